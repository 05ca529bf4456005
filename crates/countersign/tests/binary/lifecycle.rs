//! Reload, drain, new certificates and a full disk while requests run: none of them costs a request.
use crate::serving::{LIMIT, Serving, Setup};
use serde_json::json;
use testkit::client;
use testkit::issuer::Issuer;
use testkit::process::Process;
use testkit::tls::Ca;
use testkit::upstream::Upstream;

fn support() -> serde_json::Value {
    json!({ "groups": ["support"] })
}

/// `h2load` against nginx behind the edge, with a token.
fn load(serving: &Serving, token: &str, requests: usize, more: &[&str]) -> Process {
    let mut arguments = vec!["-n".to_owned(), requests.to_string(), "-c".into(), "4".into()];
    arguments.extend(more.iter().map(|argument| (*argument).to_owned()));
    arguments.extend([
        "-H".into(),
        format!("authorization: Bearer {token}"),
        format!("http://{}/orders/1", serving.edge),
    ]);
    Process::start("h2load", &arguments)
}

fn reloads(serving: &Serving) -> usize {
    serving.process.stderr().matches("the configuration was loaded again").count()
}

fn check_reloads_cost_nothing(more: &[&str]) {
    let issuer = Issuer::start();
    let nginx = crate::serving::nginx::Nginx::start();
    let serving = Setup::new(&issuer.url(), &nginx.url()).start();
    let token = issuer.token("ana", "acme", &support());
    serving.wait_ready_for("/orders/1", &token);
    let mut load = load(&serving, &token, 8_000, more);
    load.wait_line("progress: 10% done", LIMIT);
    for n in 1..=8 {
        serving.process.signal("HUP");
        testkit::wait_for("it is loaded again", LIMIT, || reloads(&serving) >= n);
    }
    assert!(load.wait(LIMIT).success());
    let out = load.stdout();
    assert!(out.contains("8000 succeeded, 0 failed, 0 errored, 0 timeout"), "{out}");
    assert!(out.contains("status codes: 8000 2xx"), "{out}");
    let (code, text) = serving.command(&["audit", "verify"]);
    assert_eq!(code, 0, "{text}");
}

#[test]
fn reloads_under_load_cost_no_request_over_http_1() {
    check_reloads_cost_nothing(&["--h1"]);
}

#[test]
fn reloads_under_load_cost_no_request_over_http_2() {
    check_reloads_cost_nothing(&["-m", "10"]);
}

/// `h2load`'s count of requests by what became of them: `started`, `done`, `succeeded`, `failed`, `errored`, `timeout`.
fn counted(out: &str, what: &str) -> usize {
    let line = out.lines().find(|line| line.starts_with("requests:")).unwrap_or_else(|| panic!("{out}"));
    let found = line.split([':', ',']).find_map(|part| part.trim().strip_suffix(what)?.trim().parse().ok());
    found.unwrap_or_else(|| panic!("no `{what}`: {line}"))
}

/// A connection that was used once and is kept.
fn kept_connection(edge: std::net::SocketAddr) -> std::net::TcpStream {
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect(edge).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream.write_all(b"GET /public/kept HTTP/1.1\r\nHost: shop.acme.example\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"from nginx\n") {
        let mut buffer = [0; 1024];
        let count = stream.read(&mut buffer).unwrap();
        assert!(count > 0, "{}", answer.escape_ascii());
        answer.extend_from_slice(&buffer[..count]);
    }
    stream
}

/// SIGTERM in the middle of the load. Its client does not come back, so most requests are never made; every one that was sent
/// is answered. `unsent_max`: requests the client had counted as started, and not sent when it read that no more are taken.
fn check_sigterm_costs_nothing(more: &[&str], unsent_max: usize) {
    use std::io::Read as _;
    let issuer = Issuer::start();
    let nginx = crate::serving::nginx::Nginx::start();
    let mut serving = Setup::new(&issuer.url(), &nginx.url()).start();
    let token = issuer.token("ana", "acme", &support());
    serving.wait_ready_for("/orders/ready", &token);
    let kept: Vec<_> = (0..4).map(|_| kept_connection(serving.edge)).collect();
    let total = 100_000;
    let mut load = load(&serving, &token, total, more);
    testkit::wait_for("load", LIMIT, || {
        number(&serving.metrics(), "countersign_requests_total{service=\"orders\",reason=\"none\"}") > 1_000.0
    });
    serving.process.signal("TERM");
    for mut stream in kept {
        let mut rest = Vec::new();
        assert_eq!(stream.read_to_end(&mut rest).unwrap(), 0, "an idle connection is closed in good order");
    }
    assert_eq!(serving.process.wait(LIMIT).code(), Some(0), "{}", serving.process.stderr());
    load.wait(LIMIT);
    let out = load.stdout();
    let count = |what: &str| counted(&out, what);
    let (started, succeeded) = (count("started"), count("succeeded"));
    assert!(started > 1_000 && started < total, "{out}");
    // What it had started and not sent, the client counts as errored or not, as it comes.
    let errored = count("errored");
    assert!(errored >= total - started && errored <= total - succeeded && count("timeout") == 0, "{out}");
    assert!(started - succeeded <= unsent_max, "{out}");
    assert!(out.contains(&format!("status codes: {succeeded} 2xx, 0 3xx, 0 4xx, 0 5xx")), "{out}");
    let log = std::fs::read_to_string(serving.audit_file()).unwrap();
    let of_load: Vec<&str> = log.lines().filter(|line| line.contains("\"/orders/1\"")).collect();
    let complete = of_load.iter().filter(|line| line.contains("\"status\":200") && line.contains("\"complete\""));
    assert_eq!(
        (of_load.len(), complete.count()),
        (succeeded, succeeded),
        "what reached the edge was answered and recorded"
    );
    assert!(!serving.process.stderr().contains("connections were cut"), "{}", serving.process.stderr());
}

#[test]
fn sigterm_under_load_costs_no_request_over_http_1() {
    check_sigterm_costs_nothing(&["--h1"], 0);
}

#[test]
fn sigterm_under_load_costs_no_request_over_http_2() {
    check_sigterm_costs_nothing(&["-m", "10"], 4 * 10);
}

#[test]
fn what_is_in_flight_at_sigterm_is_answered_and_recorded() {
    let (issuer, upstream) = (Issuer::start(), Upstream::start());
    let mut serving = Setup::new(&issuer.url(), &upstream.url()).start();
    let token = issuer.token("ana", "acme", &support());
    serving.wait_ready_for("/orders/ready", &token);
    let edge = serving.edge;
    let slow: Vec<_> = (0..12)
        .map(|n| {
            let bearer = format!("Bearer {token}");
            std::thread::spawn(move || {
                let fields = [("host", "shop.acme.example"), ("authorization", bearer.as_str())];
                client::get(edge, &format!("/orders/slow-{n}?do=delay:1500"), &fields).status
            })
        })
        .collect();
    testkit::wait_for("all are at the service", LIMIT, || upstream.count() == 13);
    serving.process.signal("TERM");
    testkit::wait_for("no connection is accepted", LIMIT, || std::net::TcpStream::connect(edge).is_err());
    for request in slow {
        assert_eq!(request.join().unwrap(), 200);
    }
    assert_eq!(serving.process.wait(LIMIT).code(), Some(0), "{}", serving.process.stderr());
    let log = std::fs::read_to_string(serving.audit_file()).unwrap();
    assert_eq!(log.matches("\"/orders/slow-").count(), 12);
}

#[test]
fn a_certificate_is_replaced_when_its_file_changes() {
    let (issuer, upstream) = (Issuer::start(), Upstream::start());
    let (old, new) = (Ca::new(), Ca::new());
    let mut setup = Setup::new(&issuer.url(), &upstream.url());
    setup.edge = "  tls: { certificate: edge.pem, key: edge.key }\n".into();
    let files = |ca: &Ca| {
        let identity = ca.server(&["localhost"]);
        vec![
            ("edge.pem".to_owned(), identity.certificate_pem.into_bytes()),
            ("edge.key".to_owned(), identity.key_pem.into_bytes()),
        ]
    };
    setup.files = files(&old);
    let serving = setup.start();
    let folder = serving.folder.path();
    std::fs::write(folder.join("old-ca.pem"), &old.certificate_pem).unwrap();
    std::fs::write(folder.join("new-ca.pem"), &new.certificate_pem).unwrap();
    let trusts = |ca: &str, more: &[&str]| {
        let ca = folder.join(ca).display().to_string();
        let url = format!("https://localhost:{}/public/x", serving.edge.port());
        let resolve = format!("localhost:{}:127.0.0.1", serving.edge.port());
        let mut arguments =
            vec!["-sS", "--cacert", &ca, "--resolve", &resolve, "-w", "%{http_code}", "-o", "/dev/null"];
        arguments.extend(more);
        arguments.push(&url);
        testkit::process::run("curl", &arguments).1 == "200"
    };
    assert!(trusts("old-ca.pem", &["--http1.1"]) && trusts("old-ca.pem", &["--http2"]) && !trusts("new-ca.pem", &[]));
    setup.files = files(&new);
    setup.write(folder);
    testkit::wait_for("the new certificate is served", LIMIT, || trusts("new-ca.pem", &[]));
    assert!(!trusts("old-ca.pem", &[]));
    // A pair that does not fit is not taken; the good one goes on.
    let before = serving.process.stderr().len();
    std::fs::write(folder.join("edge.key"), old.server(&["localhost"]).key_pem).unwrap();
    testkit::wait_for("the log says so", LIMIT, || {
        let log = serving.process.stderr();
        let new = log.get(before..).unwrap_or_default();
        new.contains("the configuration was not loaded again") || new.contains("the new certificate is not taken")
    });
    assert!(trusts("new-ca.pem", &[]));
}

/// The log is a link, so that the disk behind it can be filled and freed again.
fn point_to(serving: &Serving, target: &str) {
    let new = serving.folder.path().join("state/new");
    std::os::unix::fs::symlink(target, &new).unwrap();
    std::fs::rename(new, serving.audit_file()).unwrap();
}

#[test]
fn a10_a_full_disk_refuses_strict_services_and_is_counted_for_the_others() {
    let (issuer, upstream) = (Issuer::start(), Upstream::start());
    let mut setup = Setup::new(&issuer.url(), &upstream.url());
    let strict = crate::serving::orders(&upstream.url())
        .replace("service: orders", "service: strict\naudit: strict")
        .replace("path: /**", "path: /public/strict/**");
    setup.services.push(("strict".into(), strict));
    let serving = setup.start();
    let status = |target: &str| serving.get(target, None).status;
    assert_eq!((status("/public/x"), status("/public/strict/x")), (200, 200));
    std::fs::rename(serving.audit_file(), serving.folder.path().join("state/disk")).unwrap();
    point_to(&serving, "/dev/full");
    // A record that cannot be written is what finds the disk full.
    testkit::wait_for("the strict service is refused", LIMIT, || status("/public/strict/x") == 503);
    let before = upstream.count();
    let refused = serving.get("/public/strict/x", None);
    assert_eq!((refused.status, &refused.json()["title"]), (503, &json!("Temporarily unavailable")));
    assert_eq!(upstream.count(), before, "nothing unrecorded reaches a strict service");
    let unrecorded = "countersign_requests_total{service=\"strict\",reason=\"audit_unavailable\"}";
    testkit::wait_for("it is counted", LIMIT, || number(&serving.metrics(), unrecorded) >= 2.0);
    for _ in 0..20 {
        assert_eq!(status("/public/x"), 200);
    }
    testkit::wait_for("they are counted", LIMIT, || {
        number(&serving.metrics(), "countersign_audit_missing_total") >= 22.0
    });
    assert_eq!(serving.process.stderr().matches("the audit log cannot be written").count(), 1);
    // Room again: it heals by itself, says what is missing, and the chain holds.
    point_to(&serving, "disk");
    testkit::wait_for("the strict service is served", LIMIT, || status("/public/strict/x") == 200);
    serving.wait_log("the audit log can be written again");
    let (code, text) = serving.command(&["audit", "verify"]);
    assert_eq!(code, 0, "{text}");
    let log = std::fs::read_to_string(serving.audit_file()).unwrap();
    assert!(log.contains("\"kind\":\"gap\"") && log.contains("\"missing\":"), "{log}");
}

fn number(metrics: &str, series: &str) -> f64 {
    metrics.lines().find(|line| line.starts_with(series)).map_or(0.0, value)
}

fn value(line: &str) -> f64 {
    line.rsplit(' ').next().and_then(|text| text.parse().ok()).unwrap_or(0.0)
}

/// A ConfigMap's volume: each file is a link through `..data`, and a change replaces that link alone.
#[test]
fn a_configuration_mounted_by_kubernetes_is_loaded_and_loaded_again() {
    use std::os::unix::fs::symlink;
    let (issuer, upstream) = (Issuer::start(), Upstream::start());
    let mut setup = Setup::new(&issuer.url(), &upstream.url());
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    setup.write(&at("..first"));
    symlink("..first", at("..data")).unwrap();
    symlink("..data/countersign.yaml", at("countersign.yaml")).unwrap();
    symlink("..data/services", at("services")).unwrap();
    let config = at("countersign.yaml").into_os_string();
    let mut process = testkit::Process::start(env!("CARGO_BIN_EXE_countersign"), &["run".into(), "-c".into(), config]);
    let facts = testkit::wait_value("the process writes its facts", LIMIT, || {
        serde_json::from_slice::<serde_json::Value>(&std::fs::read(at("state/process.json")).ok()?).ok()
    });
    let edge: std::net::SocketAddr = facts["edge"][0].as_str().unwrap().parse().unwrap();
    let status = |path: &str| client::get(edge, path, &[("host", "shop.acme.example")]).status;
    assert_eq!((status("/public/x"), status("/open/x")), (200, 401));

    setup.services[0].1 = setup.services[0].1.replace("/public/**", "/open/**");
    setup.write(&at("..second"));
    symlink("..second", at("..data_tmp")).unwrap();
    std::fs::rename(at("..data_tmp"), at("..data")).unwrap();
    testkit::wait_for("the new files are in force", LIMIT, || (status("/public/x"), status("/open/x")) == (401, 200));
    assert!(process.is_running());
}
