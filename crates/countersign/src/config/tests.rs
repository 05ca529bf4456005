//! Both files through the whole loader: what is accepted, what each mistake says and where, and what concerns several files.
use super::*;
use std::path::Path;
use std::time::Duration;

const PLATFORM: &str = "\
version: 1
trust_domain: acme.example
issuers:
  acme: { issuer: https://id.acme.example, audience: orders }
edge: { listen: 127.0.0.1:8080 }
services: services/*.yaml
";
const SERVICE: &str = "\
service: orders
upstream: http://127.0.0.1:9001
expose: { host: shop.acme.example, path: /orders/** }
rules:
  - { name: support reads, who: group:support, can: GET /orders/** }
";

fn files(platform: &str, service: &str) -> Memory {
    Memory::default().with("etc/c.yaml", platform, 0o640).with("etc/services/orders.yaml", service, 0o640)
}

fn load_files(files: &Memory) -> Result<Loaded, Problems> {
    load(Path::new("etc/c.yaml"), files)
}

/// Problems as `file:line:column what`, without the folder.
fn found(files: &Memory) -> Vec<String> {
    let problems = match load_files(files) {
        Ok(loaded) => loaded.warnings,
        Err(problems) => problems,
    };
    assert!(problems.iter().all(|p| !p.fix.is_empty() && !p.what.is_empty()), "{problems}");
    problems.iter().map(|p| format!("{} {}", p.location().trim_start_matches("etc/"), p.what)).collect()
}

fn check_service(service: &str, expected: &[&str]) {
    assert_eq!(found(&files(PLATFORM, service)), expected, "{service}");
}

fn check_platform(platform: &str, expected: &[&str]) {
    assert_eq!(found(&files(platform, SERVICE)), expected, "{platform}");
}

#[test]
fn small_files_load_with_documented_defaults() {
    let loaded = load_files(&files(PLATFORM, SERVICE)).unwrap_or_else(|problems| panic!("{problems}"));
    assert!(loaded.warnings.is_empty(), "{}", loaded.warnings);
    let service = &loaded.desired.services[0];
    assert_eq!((service.body_bytes_max, service.strict), (16 << 20, false));
    assert_eq!((service.request_timeout, service.txn_reuse), (Duration::from_secs(60), Duration::from_secs(10)));
    assert_eq!(service.upstream.as_ref().unwrap().connect_timeout, Duration::from_secs(3));
    assert_eq!(service.expose[0].host, "shop.acme.example");
    assert_eq!(loaded.sources[0].rules[0].place.to_string(), "services/orders.yaml:5");
    assert_eq!(loaded.admin.listen.to_string(), "127.0.0.1:9901");
    assert_eq!(loaded.audit.file, Path::new("/var/lib/countersign/audit.ndjson"));
    assert_eq!((loaded.audit.fsync, loaded.audit.on_failure), (Fsync::Every(Duration::from_secs(1)), OnFailure::Count));
    assert_eq!(loaded.edge.as_ref().unwrap().drain, Duration::from_secs(30));
    assert_eq!(loaded.desired.issuers[0].settings().leeway_s, 60);
    let watched: Vec<_> = loaded.watched.iter().map(|path| path.to_str().unwrap()).collect();
    assert_eq!(watched, ["etc/c.yaml", "etc/services", "etc/services/orders.yaml"]);
}

#[test]
fn everything_that_can_be_written_is_read() {
    let service = "\
service: orders
upstream: { url: [https://a.internal, https://b.internal:8443], server_name: orders.internal, ca_file: ca.pem, protocol: http2,
            connect_timeout: 250ms, first_byte_timeout: 5m, idle_timeout: 10s }
workload: /shop/orders
expose: [{ host: Shop.acme.example, path: /orders/** }, { host: \"*\" }]
tolerate: { encoded_slash: true, trailing_dots: true }
limits: { body: 2GiB, request_timeout: 1h }
audit: strict
txn_reuse: 0s
rules:
  - { name: a, who: [group:x, role:y], from: [edge, /shop/web], can: [GET /orders/**, POST /orders/*], fresh: 5m, hardware_key: true }
  - { name: b, who: signed-in, can: GET /orders/*, mode: shadow, txn: per-request, agent: report-bot }
never:
  - { name: c, who: \"agent:*\", can: DELETE /** }
";
    let root = rcgen::generate_simple_self_signed(["orders.internal".to_owned()]).unwrap().cert.pem();
    let files = files(PLATFORM, service).with("etc/ca.pem", root, 0o644);
    let loaded = load_files(&files).unwrap_or_else(|problems| panic!("{problems}"));
    let service = &loaded.desired.services[0];
    let upstream = service.upstream.as_ref().unwrap();
    let tls = upstream.tls.as_ref().unwrap();
    assert_eq!((tls.server_name.as_str(), tls.roots_pem.is_some()), ("orders.internal", true));
    assert_eq!(upstream.protocol, feed::Protocol::Http2);
    let feed::Endpoints::Listed(addresses) = &upstream.endpoints else { panic!("they were listed") };
    assert_eq!(addresses[1], feed::Address { host: "b.internal".into(), port: 8443 });
    assert_eq!((service.expose.len(), service.expose[0].host.as_str()), (2, "shop.acme.example"));
    assert!(service.strict && service.tolerance.encoded_slash && !service.tolerance.path_parameters);
    assert_eq!((service.body_bytes_max, service.txn_reuse), (2 << 30, Duration::ZERO));
    let rules = &loaded.sources[0].rules;
    assert_eq!((rules[0].fresh_s, rules[0].hardware_key, rules[0].shadow), (Some(300), true, false));
    assert!(rules[1].shadow && rules[1].txn_per_request && rules[1].agent == ["report-bot"]);
}

/// A service whose upstream is this mapping.
fn with_upstream(upstream: &str) -> String {
    SERVICE.replace("upstream: http://127.0.0.1:9001", &format!("upstream: {upstream}"))
}

fn check_upstream(upstream: &str, expected: &[&str]) {
    check_service(&with_upstream(upstream), expected);
}

#[test]
fn a_fleet_is_read_as_written() {
    let upstream = "{ dns: \"https://orders.internal:9001\", refresh: 2s, ca_file: ca.pem, spiffe_id: spiffe://acme.example/shop/orders, \
                    certificate: edge.pem, key: edge.key, max_age: 1h, \
                    health: { path: /healthz, interval: 1s, timeout: 250ms, healthy_after: 1, unhealthy_after: 5, expect: 200-204 }, \
                    outliers: { failures: 3, base: 1s, longest: 1m, ceiling: 30%, slow_start: 0s }, \
                    retries: { on: [503, connect, reset, 502, 503], attempts: 1, budget: 10%, per_try_timeout: 2s } }";
    let made = rcgen::generate_simple_self_signed(["edge".to_owned()]).unwrap();
    let (pem, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let files = files(PLATFORM, &with_upstream(upstream));
    let files =
        files.with("etc/ca.pem", &pem, 0o644).with("etc/edge.pem", &pem, 0o644).with("etc/edge.key", &key, 0o600);
    let loaded = load_files(&files).unwrap_or_else(|problems| panic!("{problems}"));
    let second = Duration::from_secs(1);
    let found = loaded.desired.services[0].upstream.as_ref().unwrap();
    let address = feed::Address { host: "orders.internal".into(), port: 9001 };
    assert_eq!(found.endpoints, feed::Endpoints::Dns { address, refresh: 2 * second });
    let tls = found.tls.as_ref().unwrap();
    assert_eq!(tls.spiffe_id.as_ref().unwrap().as_str(), "spiffe://acme.example/shop/orders");
    assert_eq!(tls.identity.as_ref().unwrap().key_pem.as_slice(), key.as_bytes());
    assert_eq!(found.max_age, 3600 * second);
    let health = found.health.as_ref().unwrap();
    assert_eq!((health.path.as_str(), health.interval, health.expect.clone()), ("/healthz", second, 200..=204));
    assert_eq!((health.timeout, health.healthy_after, health.unhealthy_after), (second / 4, 1, 5));
    let outliers = feed::Outliers {
        failures: 3,
        base: second,
        longest: 60 * second,
        ceiling_percent: 30,
        slow_start: Duration::ZERO,
    };
    assert_eq!(found.outliers, outliers);
    let retries = feed::Retries {
        reset: true,
        connect: true,
        statuses: vec![502, 503],
        attempts: 1,
        budget_percent: 10,
        per_try_timeout: Some(2 * second),
    };
    assert_eq!(found.retries.as_ref(), Some(&retries));
    assert!(loaded.watched.iter().any(|path| path.ends_with("edge.key")), "a new key is seen");
    assert!(!format!("{found:?}").contains("PRIVATE"));
}

#[test]
fn mistakes_about_a_fleet_stand_at_their_place() {
    // `wrong` is where the problem stands; the mapping begins at column 11.
    let check = |upstream: &str, wrong: &str, what: &str| {
        let column = 11 + upstream.rfind(wrong).unwrap();
        check_upstream(upstream, &[&format!("services/orders.yaml:2:{column} {what}")]);
    };
    let bounds = |upstream: &str, wrong: &str| check(upstream, wrong, &format!("`{wrong}` is out of bounds"));
    check("{ refresh: 5s }", "{", "`url` is missing in `upstream`");
    check("{ url: http://a, dns: b:1 }", "b:1", "both `url` and `dns`");
    check("{ dns: 10.0.0.1:80 }", "10.0.0.1:80", "`10.0.0.1:80` is an address and no name");
    check("{ url: http://a, refresh: 5s }", "5s", "`refresh` is for `dns`");
    bounds("{ dns: a, refresh: 500ms }", "500ms");
    bounds("{ dns: a, refresh: 2h }", "2h");
    bounds("{ url: http://a, max_age: 2d }", "2d");
    bounds("{ url: http://a, max_age: 10ms }", "10ms");
    let only_https = "this is for https, and the URL is http";
    check("{ url: http://a, spiffe_id: spiffe://a/b }", "spiffe://a/b", only_https);
    check("{ url: https://a, spiffe_id: spiffe://a/b }", "spiffe://a/b", "`spiffe_id` without `ca_file`");
    check("{ url: https://a, certificate: a.pem }", "a.pem", "`certificate` without `key`");
    check("{ url: https://a, key: a.key }", "a.key", "`key` without `certificate`");
    let one_request = "a connection with a PROXY header carries one request, and HTTP/2 is for many";
    check("{ url: http://a, protocol: http2, proxy_protocol: v2 }", "v2", one_request);
    check("{ url: http://a, proxy_protocol: v3 }", "v3", "`v3` is not known here");
    let health = |rest: &str| format!("{{ url: http://a, health: {{ path: /h, {rest} }} }}");
    bounds(&health("interval: 10ms"), "10ms");
    bounds(&health("timeout: 2m"), "2m");
    bounds(&health("healthy_after: 0"), "0");
    bounds(&health("unhealthy_after: 101"), "101");
    check(&health("expect: 299-200"), "299-200", "`299-200` is no range of statuses");
    check(&health("expect: 100"), "100", "`100` is no range of statuses");
    check("{ url: http://a, health: { path: healthz } }", "healthz", "`healthz` is no path");
    let outliers = |rest: &str| format!("{{ url: http://a, outliers: {{ {rest} }} }}");
    bounds(&outliers("failures: 0"), "0");
    bounds(&outliers("base: 1ms"), "1ms");
    check(&outliers("base: 10s, longest: 5s"), "5s", "the longest time aside is shorter than the first");
    check(&outliers("ceiling: 101%"), "101%", "`101%` is no percentage");
    check(&outliers("ceiling: 50"), "50", "`50` is no percentage");
    bounds(&outliers("slow_start: 1h"), "1h");
    let retries = |rest: &str| format!("{{ url: http://a, retries: {{ {rest} }} }}");
    check(&retries("on: [500]"), "500", "`500` is never tried again");
    check(&retries("on: [timeout]"), "timeout", "`timeout` is never tried again");
    bounds(&retries("on: 503, attempts: 6"), "6");
    bounds(&retries("on: 503, attempts: 0"), "0");
    bounds(&retries("on: 503, per_try_timeout: 1ms"), "1ms");
}

#[test]
fn a_key_that_everybody_can_read_is_refused_for_upstreams_too() {
    let made = rcgen::generate_simple_self_signed(["edge".to_owned()]).unwrap();
    let service = with_upstream("{ url: https://a, certificate: edge.pem, key: edge.key }");
    let files = files(PLATFORM, &service).with("etc/edge.pem", made.cert.pem(), 0o644);
    let files = files.with("etc/edge.key", made.signing_key.serialize_pem(), 0o644);
    assert_eq!(
        found(&files),
        ["services/orders.yaml:2:57 every user of this machine can read the key file `edge.key`"]
    );
}

#[test]
fn parts_of_a_later_version_are_refused_and_not_ignored() {
    for key in ["sign_in: {}", "passkeys: {}", "nats: {}", "store: sqlite:x", "control: {}"] {
        let got = found(&files(&format!("{PLATFORM}{key}\n"), SERVICE));
        let name = key.split(':').next().unwrap();
        assert_eq!(got, [format!("c.yaml:7:1 unknown key `{name}` in the platform file")]);
    }
}

#[test]
fn mistakes_of_the_platform_file_stand_at_their_place() {
    let with = |from: &str, to: &str| PLATFORM.replace(from, to);
    check_platform(&with("version: 1", "version: 2"), &["c.yaml:1:10 version 2 is not known to this countersign"]);
    check_platform(
        &with("acme.example\n", "ACME\n"),
        &["c.yaml:2:15 `ACME` is no trust domain: a trust domain is 1 to 255 of the characters a-z 0-9 . _ -"],
    );
    check_platform(&with("127.0.0.1:8080", ":8080"), &["c.yaml:5:17 `:8080` is no address"]);
    check_platform(
        &with("127.0.0.1:8080", "[127.0.0.1:1, 127.0.0.1:1]"),
        &["c.yaml:5:31 `127.0.0.1:1` is listed twice"],
    );
    check_platform(
        &format!("{PLATFORM}admin: {{ listen: 127.0.0.1:8080 }}\n"),
        &["c.yaml:7:18 `127.0.0.1:8080` is the edge's address too"],
    );
    check_platform(&format!("{PLATFORM}audit: {{ fsync: 5h }}\n"), &["c.yaml:7:17 `5h` is no fsync policy"]);
    check_platform(&format!("{PLATFORM}log: {{ level: loud }}\n"), &["c.yaml:7:15 `loud` is not known here"]);
    check_platform(&format!("{PLATFORM}access_log: {{}}\n"), &["c.yaml:7:13 `file` is missing in `access_log`"]);
    check_platform(
        &format!("{PLATFORM}access_log: {{ file: a.log, format: common }}\n"),
        &["c.yaml:7:36 `common` is not known here"],
    );
    check_platform(
        &format!("{PLATFORM}audit: {{ file: a.log }}\naccess_log: {{ file: a.log }}\n"),
        &["c.yaml:8:21 `a.log` is the audit log"],
    );
    check_platform(
        &with("services/*.yaml", "nowhere/*.yaml"),
        &["c.yaml:6:11 `nowhere/*.yaml` matches no file: nothing will be served"],
    );
    check_platform(&with("audience: orders", "audience: orders, leeway: 5m"), &["c.yaml:4:70 `5m` is out of bounds"]);
    check_platform("", &["c.yaml the file is empty"]);
    check_platform("# nothing\n", &["c.yaml the file is empty"]);
    check_platform("# nothing\r# at all\r", &["c.yaml the file is empty"]);
    let old_mac = PLATFORM.replace('\n', "\r");
    check_platform(&format!("# ours\r{old_mac}log: {{ level: loud }}\r"), &["c.yaml:8:15 `loud` is not known here"]);
    check_platform("- a\n", &["c.yaml:1:1 a list where the platform file is due"]);
}

#[test]
fn issuer_problems_stand_at_their_field() {
    let platform =
        PLATFORM.replace("issuer: https://id.acme.example, audience: orders", "issuer: http://id.acme.example");
    let got = found(&files(&platform, SERVICE));
    assert!(got.iter().any(|p| p.starts_with("c.yaml:4:19 issuer `acme`, `issuer`:")), "{got:?}");
    assert!(got.iter().any(|p| p.starts_with("c.yaml:4:3 issuer `acme`, `audience`:")), "{got:?}");
}

#[test]
fn bounds_have_two_sides() {
    let limit = |text: &str| {
        format!(
            "{}edge: {{ listen: 127.0.0.1:1, {text} }}\n",
            PLATFORM.replace("edge: { listen: 127.0.0.1:8080 }\n", "")
        )
    };
    for (good, bad) in [
        ("limits: { header: 1KiB }", "limits: { header: 1023B }"),
        ("limits: { header: 1MiB }", "limits: { header: 2MiB }"),
        ("limits: { header_fields: 10 }", "limits: { header_fields: 9 }"),
        ("limits: { header_fields: 1000 }", "limits: { header_fields: 1001 }"),
        ("limits: { connections: 1 }", "limits: { connections: 0 }"),
        ("limits: { connections: 1000000 }", "limits: { connections: 1000001 }"),
        ("limits: { streams: 1 }", "limits: { streams: 0 }"),
        ("limits: { streams: 1000 }", "limits: { streams: 1001 }"),
        ("timeouts: { handshake: 1s }", "timeouts: { handshake: 999ms }"),
        ("timeouts: { handshake: 2m }", "timeouts: { handshake: 121s }"),
        ("timeouts: { header: 2m }", "timeouts: { header: 0s }"),
        ("timeouts: { idle: 1h }", "timeouts: { idle: 2h }"),
        ("timeouts: { body_stall: 1s }", "timeouts: { body_stall: 2d }"),
        ("timeouts: { drain: 0s }", "timeouts: { drain: 61m }"),
        ("workers: 1", "workers: 0"),
        ("workers: 1024", "workers: 1025"),
    ] {
        assert_eq!(found(&files(&limit(good), SERVICE)), [""; 0], "{good}");
        let got = found(&files(&limit(bad), SERVICE));
        assert!(got.len() == 1 && got[0].ends_with("is out of bounds"), "{bad}: {got:?}");
    }
    for (good, bad) in [
        ("limits: { body: 0B }", "limits: { body: 2TiB }"),
        ("limits: { request_timeout: 10ms }", "limits: { request_timeout: 9ms }"),
        ("limits: { request_timeout: 1d }", "limits: { request_timeout: 25h }"),
        ("txn_reuse: 1m", "txn_reuse: 61s"),
        ("websocket: { idle_timeout: 1s }", "websocket: { idle_timeout: 999ms }"),
        ("websocket: { idle_timeout: 7d }", "websocket: { idle_timeout: 8d }"),
    ] {
        check_service(&format!("{SERVICE}{good}\n"), &[]);
        let got = found(&files(PLATFORM, &format!("{SERVICE}{bad}\n")));
        assert!(got.len() == 1 && got[0].ends_with("is out of bounds"), "{bad}: {got:?}");
    }
}

#[test]
fn websockets_are_allowed_denied_or_bounded() {
    let check = |text: &str, expected: Option<(&[&str], u64)>| {
        let loaded =
            load_files(&files(PLATFORM, &format!("{SERVICE}{text}\n"))).unwrap_or_else(|p| panic!("{text}: {p}"));
        let found = loaded.desired.services[0].websocket.clone();
        let expected = expected.map(|(origins, seconds)| feed::WebSocket {
            origins: origins.iter().map(|origin| (*origin).to_owned()).collect(),
            idle_timeout: Duration::from_secs(seconds),
        });
        assert_eq!(found, expected, "{text}");
    };
    check("", Some((&[], 3600)));
    check("websocket: allow", Some((&[], 3600)));
    check("websocket: deny", None);
    check("websocket: { idle_timeout: 5m }", Some((&[], 300)));
    check("websocket: { origins: HTTPS://App.acme.example:443 }", Some((&["https://app.acme.example"], 3600)));
    check(
        "websocket: { origins: [https://a.example:8443, http://localhost:3000] }",
        Some((&["https://a.example:8443", "http://localhost:3000"], 3600)),
    );
    check_service(
        &format!("{SERVICE}websocket: {{ origins: [\"*\", app.example, https://a.example/x] }}\n"),
        &[
            "services/orders.yaml:6:24 `*` is no origin",
            "services/orders.yaml:6:29 `app.example` is no origin",
            "services/orders.yaml:6:42 `https://a.example/x` is no origin",
        ],
    );
}

#[test]
fn rule_problems_stand_at_the_very_text() {
    let rule = |text: &str| SERVICE.replace("who: group:support", text);
    check_service(&rule("who: [group:a, grp:b]"), &["services/orders.yaml:5:43 `grp:` is no kind of caller"]);
    let got = found(&files(PLATFORM, &SERVICE.replace("GET /orders", "FETCH /orders")));
    assert!(got.len() == 1 && got[0].starts_with("services/orders.yaml:5:53 "), "{got:?}");
    let got = found(&files(PLATFORM, &rule("who: group:support, when: context.nonsense > 3")));
    assert!(got.len() == 1 && got[0].starts_with("services/orders.yaml:5:54 "), "{got:?}");
    check_service(
        &SERVICE.replace("name: support reads, ", ""),
        &["services/orders.yaml:5:5 `name` is missing in a rule"],
    );
}

#[test]
fn a_name_that_several_issuers_can_assert_is_warned_of_and_loads() {
    let with = |issuers: &str| {
        PLATFORM.replace("audience: orders }", &format!("audience: orders, claims: {{ groups: groups }} }}{issuers}"))
    };
    let check = |issuers: &str, who: &str, expected: &[&str]| {
        let files = files(&with(issuers), &SERVICE.replace("group:support", who));
        assert_eq!(found(&files), expected, "{issuers}, {who}");
        assert!(load_files(&files).is_ok(), "a warning stops nothing");
    };
    let partner = "\n  partner: { issuer: https://id.partner.example, audience: orders }";
    let at = "services/orders.yaml:5:33";
    let says =
        |who: &str, act: &str| format!("{at} `{who}` is taken from every issuer: each of `acme`, `partner` can {act}");
    check("", "group:support", &[]);
    check(partner, "group:support", &[&says("group:support", "put a caller into it")]);
    check(partner, "role:admin", &[&says("role:admin", "give it to a caller")]);
    check(partner, "scope:orders.read", &[&says("scope:orders.read", "give it to a caller")]);
    check(partner, "\"group:acme|support\"", &[]);
    check(partner, "[\"group:acme|support\", \"group:partner|support\"]", &[]);
    check(partner, "signed-in", &[]);
    // Issuers whose tokens cannot hold the name add nothing.
    let ci = "\n  ci: { preset: github-actions, audience: orders, tenants: ['65'] }";
    check(ci, "group:support", &[]);
    check(ci, "role:admin", &[]);
    let cluster = "\n  k8s: { preset: kubernetes, issuer: https://k8s.acme.example, audience: orders }";
    check(cluster, "group:support", &[]);
    // In `never` the wider reading is the safe one.
    let never = format!(
        "{}never: [{{ name: n, who: group:interns, can: '* /**' }}]\n",
        SERVICE.replace("group:", "group:acme|")
    );
    assert_eq!(found(&files(&with(partner), &never)), [""; 0]);
}

#[test]
fn a_rule_that_names_an_issuer_nobody_configured_is_warned_of() {
    for who in ["group:acmee|support", "user:acmee|ana", "workload:acmee|build", "agent:acmee|bot"] {
        let expected = format!("services/orders.yaml:5:33 `{who}` matches nobody: there is no issuer `acmee`");
        check_service(&SERVICE.replace("group:support", who), &[&expected]);
        let never = format!("{SERVICE}never: [{{ name: n, who: '{who}', can: '* /**' }}]\n");
        let expected = format!("services/orders.yaml:6:25 `{who}` matches nobody: there is no issuer `acmee`");
        check_service(&never, &[&expected]);
    }
    // A broken issuer is reported as such, and not a second time by each rule that names it.
    let broken = PLATFORM.replace("https://id", "http://id");
    let got = found(&files(&broken, &SERVICE.replace("group:support", "group:acme|support")));
    assert!(got.len() == 1 && got[0].starts_with("c.yaml:4:"), "{got:?}");
}

#[test]
fn an_issuer_that_serves_the_world_is_warned_of_until_narrowed() {
    let check = |issuer: &str, expected: &[&str]| {
        let platform = PLATFORM.replace("issuer: https://id.acme.example, audience: orders", issuer);
        assert_eq!(found(&files(&platform, SERVICE)), expected, "{issuer}");
        assert!(load_files(&files(&platform, SERVICE)).is_ok(), "a warning stops nothing");
    };
    check(
        "preset: google, audience: orders",
        &[
            "c.yaml:4:19 issuer `acme` has no `tenants`: a token of anybody with a Google account is accepted, and `signed-in` names them all",
        ],
    );
    check("preset: google, audience: orders, tenants: acme.example", &[]);
    check("preset: google, audience: orders, clients: ['1234.apps.googleusercontent.com']", &[]);
    check(
        "preset: github-actions, audience: orders",
        &[
            "c.yaml:4:19 issuer `acme` has no `tenants`: a token from a workflow of any repository in the world is accepted, \
           and only the names in rules stand in its way",
        ],
    );
    check("preset: github-actions, audience: orders, tenants: ['65']", &[]);
}

#[test]
fn a9_a_service_without_rules_loads_and_says_that_all_is_denied() {
    let (without, _) = SERVICE.split_once("rules:").unwrap();
    let expected = &["services/orders.yaml:1:1 no `rules`: every request to `orders` is denied"];
    check_service(without, expected);
    check_service(&format!("{without}rules: []\n"), expected);
    check_service(&format!("{without}rules:\n"), expected);
    assert!(load_files(&files(PLATFORM, without)).is_ok());
    check_service("", &["services/orders.yaml the file is empty"]);
    assert!(load_files(&files(PLATFORM, "")).is_err(), "an empty file is a mistake and stops the load");
}

#[test]
fn a_failing_test_stops_the_load_and_is_left_to_the_test_command() {
    let bad = format!("{SERVICE}tests:\n  - {{ as: bo@finance, try: GET /orders/1, expect: allow }}\n");
    let got = found(&files(PLATFORM, &bad));
    assert!(got.len() == 1 && got[0].starts_with("services/orders.yaml:7:5 test `"), "{got:?}");
    let loaded = load_with(Path::new("etc/c.yaml"), &files(PLATFORM, &bad), FailingTests::AreLeft);
    assert_eq!(loaded.unwrap_or_else(|p| panic!("{p}")).desired.services[0].policy.run_tests().len(), 1);
}

#[test]
fn two_services_cannot_claim_one_name_or_one_place() {
    let files = files(PLATFORM, SERVICE).with("etc/services/second.yaml", SERVICE, 0o640);
    assert_eq!(
        found(&files),
        [
            "services/second.yaml:1:10 service `orders` is also defined in etc/services/orders.yaml",
            "services/second.yaml:3:9 `shop.acme.example/orders/**` is already exposed by service `orders`",
        ]
    );
}

#[test]
fn keys_must_exist_fit_and_be_private() {
    let pair = || rcgen::generate_simple_self_signed(["shop.acme.example".to_owned()]).unwrap();
    let (one, other) = (pair(), pair());
    let platform =
        PLATFORM.replace("listen: 127.0.0.1:8080", "listen: 127.0.0.1:8443, tls: { certificate: c.pem, key: k.pem }");
    let check = |certificate: &str, key: &str, mode: u32, expected: &[&str]| {
        let files = files(&platform, SERVICE).with("etc/c.pem", certificate, 0o644).with("etc/k.pem", key, mode);
        let got = found(&files);
        assert_eq!(got.len(), expected.len(), "{got:?}");
        assert!(got.iter().zip(expected).all(|(got, expected)| got.contains(expected)), "{got:?}");
        assert!(got.iter().all(|text| !text.contains("BEGIN")));
    };
    let (certificate, key) = (one.cert.pem(), one.signing_key.serialize_pem());
    check(&certificate, &key, 0o600, &[]);
    check(&certificate, &key, 0o640, &[]);
    check(&certificate, &key, 0o644, &["every user of this machine can read the key file `k.pem`"]);
    check(&certificate, &other.signing_key.serialize_pem(), 0o600, &["certificate and key do not fit"]);
    check("text", &key, 0o600, &["`c.pem` holds no PEM block of a certificate"]);
    check(&certificate, &certificate, 0o600, &["`k.pem` holds no PEM block of a private key"]);
    let got = found(&files(&platform, SERVICE));
    assert_eq!(got[0], "c.yaml:5:53 `c.pem` cannot be read: it does not exist");
}

#[test]
fn a_ca_of_client_certificates_needs_the_demand_and_a_certificate() {
    let platform = |more: &str| {
        let tls = format!("listen: 127.0.0.1:8443, tls: {{ certificate: c.pem, key: k.pem{more} }}");
        PLATFORM.replace("listen: 127.0.0.1:8080", &tls)
    };
    let pair = rcgen::generate_simple_self_signed(["shop.acme.example".to_owned()]).unwrap();
    let check = |more: &str, expected: &[&str]| {
        let files = files(&platform(more), SERVICE)
            .with("etc/c.pem", pair.cert.pem(), 0o644)
            .with("etc/k.pem", pair.signing_key.serialize_pem(), 0o600)
            .with("etc/ca.pem", pair.cert.pem(), 0o644)
            .with("etc/none.pem", "nothing", 0o644);
        assert_eq!(found(&files), expected, "{more}");
    };
    check(", client_certificates: request", &[]);
    check(", client_certificates: require, client_ca: ca.pem", &[]);
    let idle = "c.yaml:5:83 `client_ca`, and clients are not asked for a certificate";
    check(", client_ca: ca.pem", &[idle]);
    check(
        ", client_certificates: request, client_ca: none.pem",
        &["c.yaml:5:113 `none.pem` holds no PEM block of a certificate"],
    );
}

#[test]
fn introspection_needs_a_private_secret_and_one_issuer() {
    let check = |section: &str, secret: &str, mode: u32, expected: &[&str]| {
        let platform =
            PLATFORM.replace("audience: orders }", &format!("audience: orders, introspection: {section} }}"));
        let got = found(&files(&platform, SERVICE).with("etc/s", secret, mode));
        assert_eq!(got.len(), expected.len(), "{got:?}");
        assert!(got.iter().zip(expected).all(|(got, expected)| got.contains(expected)), "{got:?}");
        assert!(got.iter().all(|text| !text.contains("hush")), "{got:?}");
    };
    check("{ client_id: a, client_secret_file: s }", "hush\n", 0o600, &[]);
    check("{ client_id: a, client_secret_file: s, tokens: all, signed: required }", "hush", 0o640, &[]);
    check(
        "{ client_id: a, client_secret_file: s }",
        "hush",
        0o644,
        &["every user of this machine can read the key file"],
    );
    check("{ client_id: a, client_secret_file: s }", " \n", 0o600, &["`s` holds no client secret"]);
    check("{ client_id: a, client_secret_file: s }", "hush\nhush", 0o600, &["`s` holds no client secret"]);
    check("{ client_id: a, client_secret_file: s }", &"h".repeat(1025), 0o600, &["`s` holds no client secret"]);
    check("{ client_id: a, client_secret_file: s }", &"h".repeat(1024), 0o600, &[]);
    check("{ client_id: a, client_secret_file: none }", "hush", 0o600, &["`none` cannot be read"]);
    check("{ client_secret_file: s }", "hush", 0o600, &["`client_id` is missing"]);
    let endpoint = |url: &str| format!("{{ client_id: a, client_secret_file: s, endpoint: \"{url}\" }}");
    check(&endpoint("https://id.acme.example/introspect?x=1"), "hush", 0o600, &[]);
    check(&endpoint("http://id.acme.example/introspect"), "hush", 0o600, &["is not https"]);
    let two = PLATFORM.replace(
        "  acme: { issuer: https://id.acme.example, audience: orders }",
        "  a: { issuer: https://a.example, audience: o, introspection: { client_id: a, client_secret_file: s } }\n  \
         b: { issuer: https://b.example, audience: o, introspection: { client_id: a, client_secret_file: s } }",
    );
    let got = found(&files(&two, SERVICE).with("etc/s", "hush", 0o600));
    assert!(got[0].contains("another issuer has `introspection` already"), "{got:?}");
}

#[test]
fn a_client_proves_itself_by_one_secret_or_one_key() {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let other = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let certificate = |key: &rcgen::KeyPair| {
        rcgen::CertificateParams::new(vec!["us.example".to_owned()]).unwrap().self_signed(key).unwrap().pem()
    };
    let with_mode = |section: &str, mode: u32, expected: &[&str]| {
        let platform = PLATFORM
            .replace("audience: orders }", &format!("audience: orders, introspection: {{ client_id: a{section} }} }}"));
        let files = files(&platform, SERVICE)
            .with("etc/k", key.serialize_pem(), mode)
            .with("etc/s", "hush", 0o600)
            .with("etc/cert.pem", certificate(&key), 0o644)
            .with("etc/foreign.pem", certificate(&other), 0o644);
        let got = found(&files);
        assert_eq!(got.len(), expected.len(), "{got:?}");
        assert!(got.iter().zip(expected).all(|(got, expected)| got.contains(expected)), "{got:?}");
        assert!(got.iter().all(|text| !text.contains("BEGIN") && !text.contains("hush")), "{got:?}");
    };
    let check = |section: &str, expected: &[&str]| with_mode(section, 0o600, expected);
    check(", client_auth: { private_key_file: k }", &[]);
    check(
        ", client_auth: { private_key_file: k, algorithm: ES256, key_id: \"1\", audience: x, certificate_file: cert.pem }",
        &[],
    );
    check("", &["`introspection` says neither `client_secret_file` nor `client_auth`"]);
    check(
        ", client_secret_file: s, client_auth: { private_key_file: k }",
        &["both `client_secret_file` and `client_auth`"],
    );
    check(", client_auth: { algorithm: ES256 }", &["`private_key_file` is missing"]);
    check(", client_auth: { private_key_file: k, algorithm: HS256 }", &["`HS256`"]);
    check(", client_auth: { private_key_file: k, algorithm: PS256 }", &["`k` holds a key that does not sign PS256"]);
    check(", client_auth: { private_key_file: s }", &["`s` holds no private key in PEM"]);
    check(", client_auth: { private_key_file: none }", &["`none` cannot be read"]);
    check(", client_auth: { private_key_file: k, certificate_file: s }", &["`s` holds no certificate in PEM"]);
    check(
        ", client_auth: { private_key_file: k, certificate_file: foreign.pem }",
        &["is the certificate of another key"],
    );
    let name = |bytes: usize| format!(", client_auth: {{ private_key_file: k, key_id: {} }}", "k".repeat(bytes));
    check(&name(1024), &[]);
    check(&name(1025), &["more than 1024 bytes"]);
    let section = ", client_auth: { private_key_file: k }";
    with_mode(section, 0o644, &["every user of this machine can read the key file `k`"]);
}

#[test]
fn graph_is_for_entra_and_its_places_are_plain_urls() {
    let check = |preset: &str, more: &str, expected: &[&str]| {
        let graph = format!("graph: {{ client_id: a, client_secret_file: s{more} }}");
        let issuer = format!("acme: {{ {preset}, audience: orders, {graph} }}");
        let platform = PLATFORM.replace("acme: { issuer: https://id.acme.example, audience: orders }", &issuer);
        let got = found(&files(&platform, SERVICE).with("etc/s", "hush", 0o600));
        assert_eq!(got.len(), expected.len(), "{got:?}");
        assert!(got.iter().zip(expected).all(|(got, expected)| got.contains(expected)), "{got:?}");
    };
    let entra = "preset: entra, tenant: 11111111-2222-3333-4444-555555555555";
    check(entra, "", &[]);
    check(entra, ", endpoint: https://graph.microsoft.us, login: https://login.microsoftonline.us", &[]);
    check(entra, ", endpoint: http://graph.example", &["is not https"]);
    check(entra, ", login: \"https://login.example/?x=1\"", &["holds a query or a fragment"]);
    check("issuer: https://id.acme.example", "", &["only Entra's groups can be asked for"]);
}

#[test]
fn a_file_that_everybody_may_change_is_refused() {
    let files = Memory::default().with("etc/c.yaml", PLATFORM, 0o640).with("etc/services/orders.yaml", SERVICE, 0o666);
    assert_eq!(
        found(&files),
        ["services/orders.yaml every user of this machine can change this file, and with it who is let in"]
    );
}

#[test]
fn one_broken_file_hides_no_problem_of_another() {
    let files = files(&PLATFORM.replace("8080", "x"), "a: [\n").with("etc/services/z.yaml", "service: Z\n", 0o640);
    let got = found(&files);
    assert_eq!(got.len(), 6, "{got:?}");
    assert!(got[0].starts_with("c.yaml:5:") && got[1].contains("not valid YAML") && got[4].contains("`Z`"), "{got:?}");
}
