//! `access_log:` and `telemetry:` through the whole loader: what is off unless asked for, and each mistake at its place.
use super::*;
use proxy::access_log::Format;
use proxy::otlp;
use proxy::traces::TrustParent;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

const PLATFORM: &str = "\
version: 1
trust_domain: acme.example
issuers:
  acme: { issuer: https://id.acme.example, audience: orders }
edge: { listen: 127.0.0.1:8080 }
services: services/*.yaml
";
const SERVICE: &str = "service: orders\nupstream: http://127.0.0.1:9001\nexpose: { host: a.example, path: /** }\n\
                       rules:\n  - { name: r, who: group:g, can: GET /** }\n";
const LOCAL: &str = "endpoint: \"http://127.0.0.1:4318\"";

fn load_with(text: &str, fields: &str, mode: u32) -> Result<Loaded, Problems> {
    let files = Memory::default()
        .with("etc/c.yaml", format!("{PLATFORM}{text}\n"), 0o640)
        .with("etc/services/orders.yaml", SERVICE, 0o640)
        .with("etc/fields", fields, mode);
    load(Path::new("etc/c.yaml"), &files)
}

fn access_log(text: &str) -> Option<proxy::access_log::Settings> {
    load_with(text, "", 0o600).unwrap_or_else(|problems| panic!("{problems}")).access_log
}

fn telemetry(keys: &str) -> Arc<otlp::Settings> {
    let loaded = load_with(&format!("telemetry: {{ {keys} }}"), "X-Key: s3cret: yes\n\nx-tenant:shop", 0o600);
    let loaded = loaded.unwrap_or_else(|problems| panic!("{problems}"));
    assert!(loaded.warnings.is_empty(), "{}", loaded.warnings);
    loaded.telemetry.expect("it was asked for")
}

/// The whole text of what is wrong, problems and warnings.
fn check_problem(keys: &str, (fields, mode): (&str, u32), expected: &str) {
    let problems = match load_with(&format!("telemetry: {{ {keys} }}"), fields, mode) {
        Ok(loaded) => loaded.warnings,
        Err(problems) => problems,
    };
    let found: Vec<&str> = problems.iter().map(|problem| problem.what.as_str()).collect();
    assert_eq!(found, [expected], "{keys}");
    assert!(problems.iter().all(|problem| problem.line == 7 && !problem.fix.is_empty()), "{problems}");
    assert!(!problems.to_string().contains("s3cret"), "{problems}");
}

#[test]
fn an_access_log_is_off_and_tells_little_unless_asked() {
    let of = access_log;
    assert_eq!(of(""), None);
    let log = of("access_log: { file: a.log }\n").unwrap();
    assert_eq!(
        (log.file.as_path(), log.format, log.query, log.subject),
        (Path::new("etc/a.log"), Format::Json, false, false)
    );
    let log = of("access_log: { file: /dev/stdout, format: combined, query: true, subject: true }\n").unwrap();
    assert_eq!(
        (log.file.as_path(), log.format, log.query, log.subject),
        (Path::new("/dev/stdout"), Format::Combined, true, true)
    );
}

#[test]
fn telemetry_is_off_and_tells_and_trusts_nobody_unless_asked() {
    assert!(load_with("", "", 0o600).unwrap().telemetry.is_none());
    let settings = telemetry(&format!("{LOCAL}, traces: {{}}"));
    assert_eq!((settings.endpoint.as_str(), settings.service_name.as_str()), ("http://127.0.0.1:4318", "countersign"));
    assert_eq!((settings.timeout, settings.metrics), (Duration::from_secs(10), None));
    let traces = settings.traces.as_ref().unwrap();
    assert_eq!((traces.sample, traces.trust_parent, traces.caller), (1_000_000, TrustParent::Never, false));

    let settings = telemetry(
        "endpoint: \"https://otel.example/base/\", headers_file: fields, timeout: 1m, service_name: edge, metrics: { interval: 5s }, \
         traces: { sample: 0.25%, trust_parent: always, caller: true }",
    );
    assert_eq!((settings.endpoint.as_str(), settings.service_name.as_str()), ("https://otel.example/base", "edge"));
    assert_eq!(settings.metrics, Some(Duration::from_secs(5)));
    let fields: Vec<(&str, &str)> =
        settings.fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(fields, [("x-key", "s3cret: yes"), ("x-tenant", "shop")]);
    let traces = settings.traces.as_ref().unwrap();
    assert_eq!((traces.sample, traces.trust_parent, traces.caller), (2_500, TrustParent::Always, true));
    assert_eq!(telemetry(&format!("{LOCAL}, metrics: {{}}")).metrics, Some(Duration::from_secs(60)));
}

#[test]
fn mistakes_about_telemetry_stand_at_their_place() {
    let check = |keys: &str, expected: &str| check_problem(keys, ("", 0o600), expected);
    check(LOCAL, "neither `traces` nor `metrics`: nothing would be sent");
    check("traces: {}", "`endpoint` is missing in `telemetry`");
    for (bad, problem) in [
        ("127.0.0.1:4318", "is no http or https URL"),
        ("grpc://127.0.0.1:4317", "is no http or https URL"),
        ("http://user:pass@otel.example", "names a user, or no host"),
        ("https://otel.example?key=1", "holds a query or a fragment"),
        ("https://otel.example/v1/traces", "names one kind of data; the path is appended to it"),
        ("https://otel example", "is no URL"),
    ] {
        check(&format!("endpoint: \"{bad}\", traces: {{}}"), &format!("`{bad}` {problem}"));
    }
    for bad in ["101%", "10", "-1%", "0.00001%", "1.%", ".5%", "1e1%"] {
        check(&format!("{LOCAL}, traces: {{ sample: \"{bad}\" }}"), &format!("`{bad}` is no percentage"));
    }
    check(&format!("{LOCAL}, traces: {{}}, service_name: {}", "x".repeat(256)), "this is no name");
    check(&format!("{LOCAL}, traces: {{ trust_parent: proxies }}"), "`proxies` is not known here");
    check(&format!("{LOCAL}, headers: {{}}, traces: {{}}"), "unknown key `headers` in `telemetry`");
    check(&format!("{LOCAL}, ca_file: fields, traces: {{}}"), "`fields` holds no PEM block of a certificate");
}

#[test]
fn the_bounds_of_telemetry_have_two_sides() {
    for (good, bad) in [
        ("timeout: 1s, traces: {}", "timeout: 999ms, traces: {}"),
        ("timeout: 1m, traces: {}", "timeout: 61s, traces: {}"),
        ("metrics: { interval: 5s }", "metrics: { interval: 4s }"),
        ("metrics: { interval: 1h }", "metrics: { interval: 61m }"),
    ] {
        telemetry(&format!("{LOCAL}, {good}"));
        let problems = load_with(&format!("telemetry: {{ {LOCAL}, {bad} }}"), "", 0o600).err().unwrap().to_string();
        assert!(problems.contains("is out of bounds"), "{bad}: {problems}");
    }
    for sample in ["0%", "100%", "100.0000%", "0.0001%"] {
        telemetry(&format!("{LOCAL}, traces: {{ sample: {sample} }}"));
    }
}

#[test]
fn a_collectors_secrets_are_private_well_formed_and_never_repeated() {
    let keys = format!("{LOCAL}, headers_file: fields, traces: {{}}");
    let broken = |line: usize| format!("line {line} of `fields` is no header field for a collector");
    check_problem(&keys, ("x: s3cret", 0o644), "every user of this machine can read the key file `fields`");
    check_problem(&keys, ("s3cret", 0o600), &broken(1));
    check_problem(&keys, ("a: 1\n\nbad name: s3cret", 0o600), &broken(3));
    check_problem(&keys, ("a: s3cret\u{7}", 0o600), &broken(1));
    check_problem(&keys, ("Host: s3cret", 0o600), &broken(1));
    check_problem(&keys, ("Content-Length: 7", 0o600), &broken(1));
    check_problem(&keys, ("a:", 0o600), &broken(1));
    check_problem(&keys, (&"a: s3cret\n".repeat(17), 0o600), &broken(17));
    check_problem(
        "endpoint: \"http://otel.example:4318\", headers_file: fields, traces: {}",
        ("x: s3cret", 0o600),
        "what `fields` holds would go to `otel.example` in clear text",
    );
}
