//! What the path normaliser costs: plain paths (nearly all), encoded ones, and a hostile one.
use criterion::{Criterion, criterion_group, criterion_main};
use std::hint::black_box;
use trust::path::{NormalPath, Pattern, Tolerance};

fn paths(criterion: &mut Criterion) {
    let long = format!("/{}", "segment/".repeat(64));
    let cases = [
        ("plain", "/orders/42/refund"),
        ("plain, 513 bytes", &long),
        ("encoded", "/caf%c3%a9/a%20b/%7Euser"),
        ("dot segments", "/a/b/../c/./d"),
        ("hostile", "/public/%2e%2e;/admin"),
    ];
    for (name, path) in cases {
        criterion.bench_function(&format!("path normalise, {name}"), |bench| {
            bench.iter(|| NormalPath::parse(black_box(path), Tolerance::default()).is_ok())
        });
    }
    let (Ok(pattern), Ok(path)) =
        (Pattern::parse("/orders/*/refund"), NormalPath::parse("/orders/42/refund", Tolerance::default()))
    else {
        return;
    };
    criterion.bench_function("pattern match", |bench| bench.iter(|| black_box(&pattern).matches(black_box(&path))));
}

criterion_group!(benches, paths);
criterion_main!(benches);
