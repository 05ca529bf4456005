//! What one decision costs: 1, 30 and 300 rules, with a `when`, with `never` and an agent, and the worst case in which
//! every rule is a candidate. Targets without `when`: 0.3, 0.5 and 1 µs; with one `when` evaluated: 10 µs.
use criterion::{Criterion, criterion_group, criterion_main};
use std::hint::black_box;
use std::sync::Arc;
use trust::path::{NormalPath, Tolerance};
use trust::policy::{Input, Peer, RuleSource, ServicePolicy, ServiceSource};
use trust::principal::{Agent, Assurance, Kind, Membership, Principal};

fn rule(name: String, who: String, can: String) -> RuleSource {
    RuleSource { name, who: vec![who], can: vec![can], ..RuleSource::default() }
}

/// `count` rules over a third as many paths, each with its own group; every third also from a workload only.
fn rules(count: usize) -> Vec<RuleSource> {
    let make = |n: usize| {
        let from = if n.is_multiple_of(3) { vec!["edge".to_owned(), "/shop/web".to_owned()] } else { Vec::new() };
        let method = match n % 3 {
            0 => "GET",
            1 => "GET,POST",
            _ => "DELETE",
        };
        let can = format!("{method} /orders/area{}/**", n / 3);
        RuleSource { from, ..rule(format!("rule {n}"), format!("group:team-{n}"), can) }
    };
    (0..count).map(make).collect()
}

fn policy(rules: Vec<RuleSource>, never: Vec<RuleSource>) -> Option<ServicePolicy> {
    let source = ServiceSource {
        service: "orders".to_owned(),
        trust_domain: "acme.example".to_owned(),
        rules,
        never,
        ..ServiceSource::default()
    };
    ServicePolicy::compile(&source).ok()
}

fn person(groups: &[&str], agent: Option<&str>) -> Principal {
    Principal {
        kind: Kind::Person,
        subject: "entra|2f4c".into(),
        issuer: "entra".into(),
        id: "2f4c".into(),
        client: None,
        groups: Membership::complete(groups.iter().map(|group| Arc::from(*group))),
        roles: Membership::complete([]),
        scopes: Membership::complete([]),
        agent: agent.map(|name| Agent { name: name.into() }),
        assurance: Assurance::default(),
        expires_at: i64::MAX,
    }
}

fn bench(criterion: &mut Criterion, name: &str, policy: Option<ServicePolicy>, who: &Principal, target: &str) {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let (Some(policy), Ok(path)) = (policy, NormalPath::parse(path, Tolerance::default())) else { return };
    let input = Input {
        principal: Some(who),
        peer: Peer::Edge,
        method: "GET",
        path: &path,
        query: Some(query),
        host: "shop.acme.example",
        client_ip: Some([192, 0, 2, 1].into()),
        now: 1_800_000_000,
    };
    criterion.bench_function(name, |bench| bench.iter(|| policy.decide(black_box(&input))));
}

fn decide(criterion: &mut Criterion) {
    let groups = ["team-0", "team-15", "team-150", "people", "support"];
    let ana = person(&groups, None);
    for (count, target) in [(1, "/orders/area0/42"), (30, "/orders/area5/42/lines"), (300, "/orders/area50/42/lines")] {
        bench(criterion, &format!("decide, {count} rules, permit"), policy(rules(count), vec![]), &ana, target);
    }
    bench(criterion, "decide, 300 rules, denied", policy(rules(300), vec![]), &ana, "/orders/area7/42");
    let never = || vec![rule("no delete".into(), "agent:*".into(), "DELETE /**".into())];
    let with_bot = || {
        let mut all = rules(30);
        all.push(rule("bot".into(), "agent:report-bot".into(), "GET /orders/**".into()));
        all
    };
    let bot = person(&groups, Some("report-bot"));
    bench(
        criterion,
        "decide, 31 rules and a never, through an agent",
        policy(with_bot(), never()),
        &bot,
        "/orders/area5/42",
    );
    let same_path = (0..300).map(|n| rule(format!("r{n}"), format!("group:other-{n}"), "GET /orders/**".into()));
    let crowded: Vec<RuleSource> = same_path.chain(rules(30)).collect();
    bench(
        criterion,
        "decide, 300 candidates before the one that permits",
        policy(crowded, vec![]),
        &ana,
        "/orders/area5/42",
    );
    let limit = RuleSource {
        when: Some("context.request.params.amount <= 500".to_owned()),
        ..rule("limit".into(), "group:support".into(), "GET /refunds/*".into())
    };
    let limited: Vec<RuleSource> = rules(30).into_iter().chain([limit]).collect();
    bench(
        criterion,
        "decide, 31 rules, one when evaluated",
        policy(limited, vec![]),
        &ana,
        "/refunds/42?amount=17&x=1",
    );
}

criterion_group!(benches, decide);
criterion_main!(benches);
