//! What stripping costs: a typical request of twelve fields, and a hostile one.
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use http::{HeaderMap, HeaderName, HeaderValue};
use wire::identity;

const TYPICAL: [(&str, &str); 12] = [
    ("host", "shop.acme.example"),
    ("user-agent", "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36"),
    ("accept", "application/json"),
    ("accept-encoding", "gzip, br"),
    ("accept-language", "en"),
    ("authorization", "Bearer aaaaaaaaaaaaaaaa"),
    ("connection", "keep-alive"),
    ("content-length", "2"),
    ("content-type", "application/json"),
    ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    ("x-request-id", "0af76519"),
    ("cookie", "theme=dark; lang=en"),
];

const HOSTILE: [(&str, &str); 8] = [
    ("txn-token", "x"),
    ("X-Forwarded-For", "6.6.6.6"),
    ("x-forwarded-user", "ana"),
    ("x-original-url", "/admin"),
    ("remote.user", "ana"),
    ("tracestate", "a=1,cs=x,b=2"),
    ("cookie", "a=1; __Host-Http-cs=x"),
    ("connection", "x-once"),
];

fn map(lines: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(lines.len());
    for (name, value) in lines {
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(value)) {
            headers.append(name, value);
        }
    }
    headers
}

fn strip(criterion: &mut Criterion) {
    let hostile: Vec<_> = TYPICAL.into_iter().filter(|(name, _)| *name != "cookie").chain(HOSTILE).collect();
    for (name, headers) in [("typical", map(&TYPICAL)), ("hostile", map(&hostile))] {
        criterion.bench_function(&format!("header stripping, {name}"), |bench| {
            let clean = |mut headers: HeaderMap| identity::clean_request(&mut headers).is_ok();
            bench.iter_batched(|| headers.clone(), clean, BatchSize::SmallInput)
        });
    }
    let headers = map(&TYPICAL);
    let uri = http::Uri::from_static("/orders/42");
    criterion.bench_function("request host", |bench| bench.iter(|| identity::request_host(&uri, &headers).is_ok()));
}

criterion_group!(benches, strip);
criterion_main!(benches);
