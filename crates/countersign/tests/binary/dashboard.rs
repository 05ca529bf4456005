//! The dashboard for Grafana names series that a running process really has.
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::Path;

use crate::serving::Setup;
use testkit::issuer::Issuer;
use testkit::upstream::Upstream;

/// Names of series in a query, with `_bucket` and the like as they stand.
fn names(query: &str) -> impl Iterator<Item = &str> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    query.split(move |c| !is_name(c)).filter(|word| word.starts_with("countersign_"))
}

fn queries<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
    match value {
        Value::Object(object) => {
            for (name, value) in object {
                match value.as_str() {
                    Some(text) if matches!(name.as_str(), "expr" | "query") => found.push(text),
                    _ => queries(value, found),
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| queries(value, found)),
        _ => {}
    }
}

#[test]
fn every_series_of_the_dashboard_is_there() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/grafana/countersign.json");
    let dashboard: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    let mut asked = Vec::new();
    queries(&dashboard, &mut asked);
    let wanted: BTreeSet<&str> = asked.iter().flat_map(|query| names(query)).collect();
    assert!(wanted.len() >= 12 && asked.len() >= 12, "{wanted:?}");
    for query in asked {
        let count = |c| query.matches(c).count();
        assert!(count('(') == count(')') && count('{') == count('}') && count('[') == count(']'), "{query}");
    }

    let (issuer, one, other) = (Issuer::start(), Upstream::start(), Upstream::start());
    let mut setup = Setup::new(&issuer.url(), &one.url());
    let both = format!("[\"{}\", \"{}\"]", one.url(), other.url());
    setup.services[0].1 = setup.services[0].1.replace(&format!("\"{}\"", one.url()), &both);
    let serving = setup.start();
    let token = issuer.token("ana", "acme", &json!({ "groups": ["support"] }));
    serving.wait_ready_for("/orders/1", &token);
    // One malformed request and one unknown key, so that their series exist.
    let _refused = testkit::client::send(serving.edge, "GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n");
    let unknown = testkit::SigningKey::generate(testkit::Kind::Es256, "nobody's");
    serving.get("/orders/1", Some(&unknown.sign(&json!({}), &issuer.claims("ana", "acme", &json!({})))));
    let metrics = serving.metrics();
    let has = |name: &str| metrics.lines().any(|line| line.split(['{', ' ']).next() == Some(name));
    let missing: Vec<&&str> = wanted.iter().filter(|name| !has(name)).collect();
    assert!(missing.is_empty(), "{missing:?}\n{metrics}");
}
