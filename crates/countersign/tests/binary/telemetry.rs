//! Traces and metrics of a running process, as a collector made of OpenTelemetry's own classes reads them, and collectors that
//! fail.
use serde_json::{Value, json};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use testkit::issuer::Issuer;
use testkit::process::Process;
use testkit::tls::Ca;
use testkit::upstream::Upstream;

use crate::authz::World;
use crate::serving::{LIMIT, Serving, Setup};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CLAIMED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const UNRECORDED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";

fn from_root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

/// OpenTelemetry's classes behind a port.
struct Collector {
    process: Process,
    port: u64,
}

impl Collector {
    fn start(identity: &[PathBuf]) -> Collector {
        let python = from_root("target/peers/test/bin/python");
        assert!(python.is_file(), "opentelemetry-proto is missing: run `cargo xtask peers`");
        let mut arguments = vec![from_root("tests/peers/otlp_peer.py")];
        arguments.extend_from_slice(identity);
        let mut process = Process::start(python, &arguments);
        let line = process.wait_line("port", LIMIT);
        let port = serde_json::from_str::<Value>(&line).unwrap()["port"].as_u64().unwrap();
        Collector { process, port }
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Everything that came, each export for itself.
    fn exports(&self) -> Vec<Value> {
        let text = self.process.stdout();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let all: Vec<Value> = whole.lines().skip(1).map(|line| serde_json::from_str(line).unwrap()).collect();
        assert!(all.iter().all(|export| export.get("bad").is_none()), "{text}");
        all
    }

    fn spans(&self) -> Vec<Value> {
        let exports = self.exports();
        exports.iter().flat_map(|export| export["spans"].as_array().cloned().unwrap_or_default()).collect()
    }

    /// The span of the decision that this answer names.
    fn span(&self, answer: &testkit::client::Response) -> Value {
        let id = answer.field("countersign-decision").expect("every answer names its decision").to_owned();
        testkit::wait_value("its span arrives", LIMIT, || {
            self.spans().into_iter().find(|span| span["attributes"]["countersign.decision_id"] == id)
        })
    }
}

fn start(telemetry: &str, files: &[(&str, &str)]) -> (Issuer, Upstream, Serving) {
    let (issuer, upstream) = (Issuer::start(), Upstream::start());
    let mut setup = Setup::new(&issuer.url(), &upstream.url());
    setup.extra = format!("telemetry: {{ {telemetry} }}\n");
    setup.files = files.iter().map(|(name, text)| ((*name).to_owned(), text.as_bytes().to_vec())).collect();
    let serving = setup.start();
    (issuer, upstream, serving)
}

#[test]
fn a_span_per_request_goes_to_the_collector_and_on_to_the_service() {
    let collector = Collector::start(&[]);
    let keys =
        format!("endpoint: \"{}/\", headers_file: fields, service_name: shop-edge, traces: {{}}", collector.url());
    let (issuer, upstream, serving) = start(&keys, &[("fields", "X-Api-Key: collector-secret\n\nx-tenant: shop\n")]);
    let token = issuer.token("ana", "acme", &json!({ "groups": ["support"] }));
    serving.wait_ready_for("/orders/1", &token);
    let more = [("user-agent", "curl/8.1"), ("traceparent", CLAIMED), ("tracestate", "a=1")];
    let answer = serving.get_with("/orders/7?api_key=hidden", Some(&token), &more);
    let seen = upstream.last();
    let span = collector.span(&answer);
    let of = |name: &str| span["attributes"][name].clone();
    for (name, expected) in [
        ("http.request.method", json!("GET")),
        ("url.path", json!("/orders/7")),
        ("url.scheme", json!("http")),
        ("server.address", json!("shop.acme.example")),
        ("http.route", json!("/**")),
        ("network.protocol.version", json!("1.1")),
        ("http.response.status_code", json!(200)),
        ("countersign.decision", json!("permit")),
        ("countersign.service", json!("orders")),
        ("countersign.rule", json!("orders/support works on orders")),
    ] {
        assert_eq!(of(name), expected, "{name}: {span:#}");
    }
    assert_eq!((&span["name"], &span["kind"], &span["status"]), (&json!("GET /**"), &json!(2), &json!(0)));
    assert_eq!(span["strange"], json!([]), "every other name is one of the stable conventions");
    assert!(span["end"].as_u64() > span["start"].as_u64(), "{span:#}");
    // A stranger's trace is named, and neither joined nor passed on.
    assert_eq!((&span["parent"], &span["links"]), (&json!(""), &json!([TRACE])));
    let passed = format!("00-{}-{}-01", span["trace_id"].as_str().unwrap(), span["span_id"].as_str().unwrap());
    assert_eq!((seen.field("traceparent"), seen.field("tracestate")), (Some(passed.as_str()), None));
    assert_eq!(serving.record(&answer)["trace_id"], span["trace_id"]);

    let refused = serving.get("/orders/8", None);
    let span = collector.span(&refused);
    let of = |name: &str| span["attributes"][name].clone();
    assert_eq!((of("http.response.status_code"), of("countersign.reason")), (json!(401), json!("token_missing")));
    assert_eq!((of("error.type"), &span["status"]), (Value::Null, &json!(0)), "a caller's mistake is no error of ours");

    let export = &collector.exports()[0];
    assert_eq!(export["resource"]["service.name"], "shop-edge");
    let known = ["service.name", "service.version", "service.instance.id"];
    assert!(known.iter().all(|name| export["resource"][*name].is_string()), "{export}");
    assert_eq!(
        (&export["fields"]["x-api-key"], &export["fields"]["x-tenant"]),
        (&json!("collector-secret"), &json!("shop"))
    );
    let told = collector.process.stdout();
    assert!(["hidden", "eyJ", "127.0.0.1\"", "curl", "ana"].iter().all(|private| !told.contains(private)), "{told}");
    let said = serving.process.stderr() + &serving.metrics();
    assert!(!said.contains("collector-secret"), "{said}");
}

#[test]
fn callers_are_told_of_only_where_that_is_asked_for() {
    let collector = Collector::start(&[]);
    let (issuer, upstream) = (Issuer::start(), Upstream::start());
    let mut setup = Setup::new(&issuer.url(), &upstream.url());
    setup.extra = format!("telemetry: {{ endpoint: \"{}\", traces: {{ caller: true }} }}\n", collector.url());
    setup.edge = "  trusted_proxies: { from: 127.0.0.1 }\n".into();
    let serving = setup.start();
    let token = issuer.token("ana", "acme", &json!({ "groups": ["support"] }));
    serving.wait_ready_for("/orders/1", &token);
    // As a proxy that we trust tells it.
    let more = [("user-agent", "curl/8.1"), ("x-forwarded-for", "203.0.113.9"), ("x-forwarded-proto", "https")];
    let span = collector.span(&serving.get_with("/orders/7", Some(&token), &more));
    let of = |name: &str| span["attributes"][name].clone();
    assert_eq!((of("client.address"), of("user_agent.original")), (json!("203.0.113.9"), json!("curl/8.1")));
    assert_eq!((of("url.scheme"), of("countersign.subject")), (json!("https"), json!("id|ana")));
    assert_eq!(span["strange"], json!([]));
}

#[test]
fn a_trusted_parent_goes_on_and_says_what_is_recorded() {
    let collector = Collector::start(&[]);
    let keys = format!("endpoint: \"{}\", traces: {{ trust_parent: always }}", collector.url());
    let (_issuer, upstream, serving) = start(&keys, &[]);
    let silent = serving.get_with("/public/1", None, &[("traceparent", UNRECORDED), ("tracestate", "a=1")]);
    assert!(
        upstream.last().field("traceparent").is_some_and(|passed| passed.contains(TRACE) && passed.ends_with("-00"))
    );
    let told = serving.get_with("/public/2", None, &[("traceparent", CLAIMED), ("tracestate", "a=1,cs=forged")]);
    let seen = upstream.last();
    let span = collector.span(&told);
    assert_eq!(
        (&span["trace_id"], &span["parent"], &span["links"]),
        (&json!(TRACE), &json!("b7ad6b7169203331"), &json!([]))
    );
    assert_eq!(
        seen.field("traceparent"),
        Some(format!("00-{TRACE}-{}-01", span["span_id"].as_str().unwrap()).as_str())
    );
    assert_eq!(seen.field("tracestate"), Some("a=1"));
    let id = silent.field("countersign-decision").unwrap();
    assert!(collector.spans().iter().all(|span| span["attributes"]["countersign.decision_id"] != id));
    // What fails behind us is an error, with our word for it.
    drop(upstream);
    let span = collector.span(&serving.get("/public/3", None));
    assert_eq!((&span["status"], &span["attributes"]["error.type"]), (&json!(2), &json!("upstream_connect")));
}

#[test]
fn a_question_of_a_proxy_has_a_span_of_the_request_it_is_about() {
    let collector = Collector::start(&[]);
    let url = collector.url();
    let world =
        World::of_example("nginx", |text| text + &format!("telemetry: {{ endpoint: \"{url}\", traces: {{}} }}\n"));
    let about = [
        ("X-Original-Method", "GET"),
        ("X-Original-URI", "/orders/42?api_key=hidden"),
        ("X-Original-Host", "shop.acme.example"),
        ("X-Original-Scheme", "https"),
        ("X-Original-Address", "192.0.2.9"),
        ("traceparent", CLAIMED),
    ];
    let span = collector.span(&testkit::client::get(world.door(), "/_countersign", &about));
    let of = |name: &str| span["attributes"][name].clone();
    assert_eq!(
        (of("url.path"), of("url.scheme"), of("countersign.reason")),
        (json!("/orders/42"), json!("https"), json!("token_missing"))
    );
    assert_eq!((&span["links"], &span["strange"]), (&json!([TRACE]), &json!([])));
    assert!(!collector.process.stdout().contains("hidden"));
}

#[test]
fn an_exchange_of_tokens_has_a_span_of_the_request_that_was_named() {
    let collector = Collector::start(&[]);
    let telemetry = format!("telemetry: {{ endpoint: \"{}\", traces: {{}} }}\n", collector.url());
    let world = crate::token_endpoint::World::start_with("", |setup| setup.extra.push_str(&telemetry));
    let token = world.token(&json!({}));
    let span = collector.span(&world.ask(&token, "GET", "/orders/42?api_key=hidden"));
    let of = |name: &str| span["attributes"][name].clone();
    assert_eq!(
        (of("http.request.method"), of("url.path"), of("server.address"), of("http.response.status_code")),
        (json!("GET"), json!("/orders/42"), json!("shop.acme.example"), json!(200))
    );
    assert_eq!((of("countersign.decision"), &span["strange"]), (json!("permit"), &json!([])));
    let seen = collector.process.stdout();
    assert!(!seen.contains("hidden") && !seen.contains("eyJ") && !seen.contains(&token), "{seen}");
}

#[test]
fn without_traces_what_callers_say_of_them_goes_through() {
    let (issuer, upstream) = (Issuer::start(), Upstream::start());
    let serving = Setup::new(&issuer.url(), &upstream.url()).start();
    let answer = serving.get_with("/public/1", None, &[("traceparent", CLAIMED), ("tracestate", "a=1")]);
    let seen = upstream.last();
    assert_eq!((seen.field("traceparent"), seen.field("tracestate")), (Some(CLAIMED), Some("a=1")));
    assert_eq!(serving.record(&answer)["trace_id"], TRACE);
    assert!(!serving.metrics().contains("countersign_otlp"));
}

#[test]
fn the_collector_gets_the_series_of_the_admin_address_over_tls() {
    let folder = tempfile::tempdir().unwrap();
    let ca = Ca::new();
    let identity = ca.server(&["localhost"]);
    let at = |name: &str, text: &str| {
        std::fs::write(folder.path().join(name), text).unwrap();
        folder.path().join(name)
    };
    let collector = Collector::start(&[at("cert.pem", &identity.certificate_pem), at("key.pem", &identity.key_pem)]);
    let keys =
        format!("endpoint: \"https://localhost:{}\", ca_file: ca.pem, metrics: {{ interval: 1h }}", collector.port);
    let (_issuer, _upstream, mut serving) = start(&keys, &[("ca.pem", &ca.certificate_pem)]);
    for _ in 0..3 {
        assert_eq!(serving.get("/public/1", None).status, 200);
    }
    testkit::wait_for("they are counted", LIMIT, || {
        serving.metrics().contains("countersign_requests_total{service=\"orders\",reason=\"none\"} 3")
    });
    let text = serving.metrics();
    serving.process.signal("TERM");
    assert!(serving.process.wait(LIMIT).success());
    let exports =
        testkit::wait_value("the last export", LIMIT, || Some(collector.exports()).filter(|all| !all.is_empty()));
    let metrics: Vec<&Value> = exports.iter().flat_map(|export| export["metrics"].as_array().unwrap()).collect();
    let named = |name: &str| metrics.iter().find(|metric| metric["name"] == name).copied().expect(name);
    let requests = named("countersign_requests");
    assert_eq!(
        (&requests["kind"], &requests["temporality"], &requests["monotonic"]),
        (&json!("sum"), &json!(2), &json!(true))
    );
    let point = &requests["points"][0];
    assert_eq!(
        (&point["value"], &point["attributes"]),
        (&json!(3.0), &json!({ "service": "orders", "reason": "none" }))
    );
    assert!(point["time"].as_u64() > point["start"].as_u64(), "{point}");
    let latency = named("countersign_request_seconds");
    let point = &latency["points"][0];
    let buckets: Vec<u64> = point["buckets"].as_array().unwrap().iter().filter_map(Value::as_u64).collect();
    assert_eq!((&latency["unit"], &point["count"], buckets.iter().sum::<u64>()), (&json!("s"), &json!(3), 3));
    assert_eq!(buckets.len(), point["bounds"].as_array().unwrap().len() + 1);
    assert_eq!(named("countersign_epoch")["kind"], "gauge");
    // What the admin address has and has counted, the collector has too.
    let counted = text.lines().filter(|line| !line.starts_with('#') && !line.ends_with(" 0"));
    for line in counted.filter(|line| line.contains("_total")) {
        let name = line.split("_total").next().unwrap();
        assert!(metrics.iter().any(|metric| metric["name"] == name), "{line}");
    }
}

#[test]
fn a_collector_that_nobody_vouches_for_gets_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let identity = Ca::new().server(&["localhost"]);
    let at = |name: &str, text: &str| {
        std::fs::write(folder.path().join(name), text).unwrap();
        folder.path().join(name)
    };
    let collector = Collector::start(&[at("cert.pem", &identity.certificate_pem), at("key.pem", &identity.key_pem)]);
    check_failing(&format!("https://localhost:{}", collector.port), None);
    assert_eq!(collector.exports(), Vec::<Value>::new());
}

/// Requests are answered and recorded, whatever is behind the address; then the process ends in time.
fn check_failing(endpoint: &str, dropped: Option<&str>) {
    let (_issuer, _upstream, mut serving) = start(&format!("endpoint: \"{endpoint}\", timeout: 1s, traces: {{}}"), &[]);
    for _ in 0..5 {
        serving.expect(&serving.get("/public/1", None), 200, "none");
    }
    if let Some(cause) = dropped {
        let line = format!("countersign_otlp_spans_dropped_total{{cause=\"{cause}\"}} 5");
        testkit::wait_for(&line, LIMIT, || serving.metrics().contains(&line));
    }
    serving.wait_log("the collector does not take them");
    serving.expect(&serving.get("/public/1", None), 200, "none");
    serving.process.signal("TERM");
    assert!(serving.process.wait(LIMIT).success());
}

#[test]
fn a_collector_that_is_not_there_stops_no_request() {
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    check_failing(&format!("http://{gone}"), None);
}

#[test]
fn a_collector_that_never_answers_stops_no_request() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    check_failing(&format!("http://{}", silent.local_addr().unwrap()), None);
}

#[test]
fn a_collector_that_answers_without_end_stops_no_request_and_fills_no_memory() {
    let address = lying("HTTP/1.1 200 OK\r\ncontent-length: 100000000\r\n\r\n");
    check_failing(&format!("http://{address}"), Some("refused"));
}

/// Says this to everyone, and then goes on for ever.
fn lying(head: &'static str) -> SocketAddr {
    use std::io::Write as _;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut stream = stream;
                let mut going = stream.write_all(head.as_bytes());
                while going.is_ok() {
                    going = stream.write_all(&[b'x'; 65_536]);
                }
            });
        }
    });
    address
}
