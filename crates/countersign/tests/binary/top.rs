//! `countersign top` beside a process that answers and refuses.
use serde_json::{Value, json};

use crate::serving::{LIMIT, Setup};
use testkit::issuer::Issuer;
use testkit::process::Process;
use testkit::upstream::Upstream;

#[test]
fn top_shows_what_happens_while_it_looks() {
    let (issuer, upstream) = (Issuer::start(), Upstream::start());
    let serving = Setup::new(&issuer.url(), &upstream.url()).start();
    let token = issuer.token("ana", "acme", &json!({ "groups": ["support"] }));
    serving.wait_ready_for("/orders/1", &token);
    let state = serving.folder.path().join("state");
    let arguments = ["top", "--json", "--interval", "1", "--state", state.to_str().unwrap()];
    let top = Process::start(env!("CARGO_BIN_EXE_countersign"), &arguments);
    let seen = testkit::wait_value("a look with both kinds of requests", LIMIT, || {
        serving.get("/orders/1", Some(&token));
        serving.get("/orders/1", None);
        let looks = top.stdout();
        let looks = looks.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let orders = |look: &Value| look["services"].as_array()?.iter().find(|one| one["service"] == "orders").cloned();
        looks.filter_map(|look| Some((orders(&look)?, look))).find(|(orders, _)| {
            orders["answered_per_s"].as_f64().unwrap() > 0.0 && orders["refused_per_s"].as_f64().unwrap() > 0.0
        })
    });
    let (orders, look) = seen;
    assert_eq!(orders["reason"], "token_missing");
    assert!(orders["p99_ms"].as_f64().unwrap() >= orders["p50_ms"].as_f64().unwrap());
    assert!(look["epoch"].as_f64().unwrap() >= 1.0);
    assert!(look["latest_refusals"].as_array().unwrap().iter().all(|id| id.as_str().unwrap().len() == 16));
}

#[test]
fn one_look_is_a_table_and_nobody_there_is_exit_3() {
    let (issuer, upstream) = (Issuer::start(), Upstream::start());
    let serving = Setup::new(&issuer.url(), &upstream.url()).start();
    let refused = serving.get("/orders/1", None);
    serving.record(&refused);
    let (code, text) = serving.command(&["top", "--once", "--interval", "1"]);
    assert_eq!(code, 0, "{text}");
    for part in ["in flight", "SERVICE", "orders", "token_missing", refused.field("countersign-decision").unwrap()] {
        assert!(text.contains(part), "`{part}` is missing:\n{text}");
    }
    let folder = tempfile::tempdir().unwrap();
    let arguments = ["top", "--once", "--state", folder.path().to_str().unwrap()];
    let (status, _, error) = testkit::process::run(env!("CARGO_BIN_EXE_countersign"), &arguments);
    assert_eq!(status.code(), Some(3), "{error}");
}
