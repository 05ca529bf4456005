//! Forged identity fields and ambiguous paths against the running binary: what the service gets is what was decided on.
use crate::serving::{Serving, Setup};
use serde_json::json;
use testkit::client::{self, Response};
use testkit::issuer::Issuer;
use testkit::upstream::Upstream;

/// Stands in every forged value, so that one look at what arrived tells whether any of it did.
const FORGED: &str = "forged-7";

struct World {
    serving: Serving,
    upstream: Upstream,
    token: String,
}

impl World {
    /// The people of support may do everything but `/admin`, and `/public` is open.
    fn start() -> World {
        let (issuer, upstream) = (Issuer::start(), Upstream::start());
        let mut setup = Setup::new(&issuer.url(), &upstream.url());
        setup.services = vec![("all".into(), everything_but_admin(&upstream.url()))];
        let serving = setup.start();
        let token = issuer.token("ana", "acme", &json!({ "groups": ["support"] }));
        serving.wait_ready_for("/ready", &token);
        World { serving, upstream, token }
    }

    fn ask(&self, target: &str, more: &[(&str, &str)]) -> Response {
        self.serving.get_with(target, Some(&self.token), more)
    }

    /// The request arrives, stamped once, and nothing forged with it.
    fn check_stripped(&self, more: &[(&str, &str)]) {
        let answer = self.ask("/orders/1", more);
        self.serving.expect(&answer, 200, "none");
        self.check_clean(&format!("{more:?}"));
    }

    fn check_clean(&self, what: &str) {
        let seen = self.upstream.last();
        let head = String::from_utf8_lossy(&seen.head).into_owned();
        assert!(!head.contains(FORGED), "{what}: {head}");
        assert_eq!(seen.count("txn-token"), 1, "{what}: {head}");
        assert_eq!(seen.count("authorization"), 0, "{what}: {head}");
        for name in ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "forwarded", "host"] {
            assert_eq!(seen.count(name), 1, "{name}: {head}");
        }
        assert_eq!(seen.field("x-forwarded-for"), Some("127.0.0.1"));
    }

    /// The request is refused with this, and nothing of it arrives.
    fn check_refused(&self, target: &str, more: &[(&str, &str)], status: u16, reason: &str) {
        let before = self.upstream.count();
        let answer = self.ask(target, more);
        assert_eq!(answer.status, status, "{target} {more:?}: {}", answer.text());
        self.serving.expect(&answer, status, reason);
        assert_eq!(self.upstream.count(), before, "{target} {more:?} reached the service");
    }
}

fn everything_but_admin(upstream: &str) -> String {
    format!(
        "service: all\nupstream: \"{upstream}\"\nexpose: {{ host: \"*\", path: /** }}\nrules:\n\
         \x20 - {{ name: support does everything, who: \"group:support\", can: \"* /**\" }}\n\
         \x20 - {{ name: anyone reads public pages, who: anyone, can: \"GET /public/**\" }}\n\
         never:\n  - {{ name: nobody administers, who: anyone, can: \"* /admin/**\" }}\n"
    )
}

const IDENTITY: [&str; 34] = [
    "Txn-Token",
    "tXN-tOKEN",
    "Countersign-User",
    "COUNTERSIGN-GROUPS",
    "Countersign-Hop",
    "Countersign-Txn",
    "Countersign-Anything",
    "Workload-Identity-Token",
    "Workload-Proof-Token",
    "X-Forwarded-User",
    "X-FORWARDED-GROUPS",
    "X-Forwarded-For",
    "X-Forwarded-Proto",
    "X-Forwarded-Host",
    "X-Forwarded-Client-Cert",
    "Forwarded",
    "X-Real-IP",
    "X-Auth-User",
    "X-Auth-Request-Email",
    "X-User",
    "x-user-id",
    "Remote-User",
    "remote-groups",
    "X-Remote-User",
    "X-Original-URL",
    "X-Rewrite-URL",
    "X-Forwarded-Uri",
    "X-HTTP-Method-Override",
    "True-Client-IP",
    "CF-Connecting-IP",
    "X-Goog-Authenticated-User-Email",
    "X-Amzn-Oidc-Identity",
    "X-SSL-Client-DN",
    "Proxy",
];

#[test]
fn a1_no_identity_field_of_a_client_reaches_the_service() {
    let world = World::start();
    for name in IDENTITY {
        world.check_stripped(&[(name, FORGED)]);
    }
    // All at once, each twice, the second time in another case and comma-joined.
    let joined = format!("{FORGED}, root, {FORGED}");
    let lower: Vec<String> = IDENTITY.iter().map(|name| name.to_lowercase()).collect();
    let all: Vec<(&str, &str)> = IDENTITY
        .iter()
        .zip(&lower)
        .take(30)
        .flat_map(|(name, lower)| [(*name, FORGED), (lower.as_str(), joined.as_str())])
        .collect();
    world.check_stripped(&all);
    world.check_stripped(&[("tracestate", &format!("cs={FORGED}")), ("cookie", &format!("__Host-cs={FORGED}"))]);
}

#[test]
fn a1_names_with_an_underscore_are_400() {
    let world = World::start();
    for name in ["X_Auth_User", "Remote_Groups", "Txn_Token", "countersign_user", "X-Forwarded_User", "any_thing"] {
        world.check_refused("/orders/1", &[(name, FORGED)], 400, "header_forbidden");
    }
}

#[test]
fn a1_connection_nominates_no_field_that_counts() {
    let world = World::start();
    for name in
        ["txn-token", "Countersign-User", "authorization", "Host", "cookie", "x-forwarded-for", "content-length"]
    {
        world.check_refused("/orders/1", &[("connection", name)], 400, "header_forbidden");
        let several = format!("x-mine, {name}");
        world.check_refused("/orders/1", &[("Connection", &several)], 400, "header_forbidden");
    }
    world.check_stripped(&[("x-mine", FORGED), ("connection", "x-mine")]);
}

#[test]
fn a1_identity_fields_in_trailers_are_refused() {
    let world = World::start();
    for name in ["Txn-Token", "countersign-user", "X-Forwarded-User", "Remote-User"] {
        let request = format!(
            "POST /orders/1 HTTP/1.1\r\nhost: shop.acme.example\r\nauthorization: Bearer {}\r\n\
             transfer-encoding: chunked\r\ntrailer: {name}\r\n\r\n3\r\nabc\r\n0\r\n{name}: {FORGED}\r\n\r\n",
            world.token
        );
        let mut connection = client::Connection::open(world.serving.edge);
        connection.write(request).unwrap();
        let answer = connection.read().unwrap();
        world.serving.expect(&answer, 400, "header_forbidden");
    }
    for seen in world.upstream.seen() {
        assert!(seen.trailers.is_empty(), "{:?}", seen.trailers);
        assert!(seen.method == "GET" || !seen.complete, "no such request is complete");
    }
}

#[test]
fn a1_a_service_cannot_speak_for_us_to_the_client() {
    let world = World::start();
    let raw = "HTTP/1.1%20200%20OK%0D%0Atxn-token:%20forged-7%0D%0ACountersign-User:%20forged-7%0D%0A\
               countersign-decision:%20forged-7%0D%0Aset-cookie:%20__Host-cs=forged-7%0D%0Acontent-length:%202%0D%0A%0D%0Aok";
    let answer = world.ask(&format!("/orders/1?do=raw:{raw}"), &[]);
    assert_eq!((answer.status, answer.text()), (200, "ok".to_owned()));
    assert!(!String::from_utf8_lossy(&answer.head).contains(FORGED), "{}", String::from_utf8_lossy(&answer.head));
    assert!(answer.field("countersign-decision").is_some());
}

#[test]
fn api_102_identity_fields_over_http_2_are_stripped_and_refused_alike() {
    let world = World::start();
    let url = format!("http://{}/orders/1", world.serving.edge);
    let bearer = format!("authorization: Bearer {}", world.token);
    let curl = |fields: &[&str]| {
        let mut arguments = vec!["-sS", "--http2-prior-knowledge", "-o", "/dev/null", "-w", "%{http_code}", "-H"];
        arguments.push(&bearer);
        fields.iter().for_each(|field| arguments.extend(["-H", field]));
        arguments.push(&url);
        let (status, out, error) = testkit::process::run("curl", &arguments);
        assert!(status.success(), "{error}");
        out
    };
    let stripped =
        ["txn-token: forged-7", "X-Auth-User: forged-7", "x-auth-user: forged-7, root", "Remote-User: forged-7"];
    assert_eq!(curl(&stripped), "200");
    world.check_clean("HTTP/2");
    let before = world.upstream.count();
    for field in ["X_Auth_User: forged-7", "remote_groups: forged-7"] {
        assert_eq!(curl(&[field]), "400", "{field}");
    }
    assert_eq!(world.upstream.count(), before);
}

enum Expected {
    /// Decided on and forwarded as this target.
    Forwarded(&'static str),
    /// Read as `/admin/**`, however it was written.
    Never,
    PathRefused,
    /// No valid HTTP: there is no decision, so no record.
    NoRequest,
}

const PATHS: [(&str, Expected); 37] = [
    ("/orders/1", Expected::Forwarded("/orders/1")),
    ("/orders/%7Eana", Expected::Forwarded("/orders/~ana")),
    ("/orders/./2", Expected::Forwarded("/orders/2")),
    ("/orders/x/../3", Expected::Forwarded("/orders/3")),
    ("/orders/4?to=/admin/users", Expected::Forwarded("/orders/4?to=/admin/users")),
    ("/orders/5?..%2f..%2fadmin", Expected::Forwarded("/orders/5?..%2f..%2fadmin")),
    ("/ADMIN/users", Expected::Forwarded("/ADMIN/users")),
    ("/administrators", Expected::Forwarded("/administrators")),
    ("/admin", Expected::Never),
    ("/admin/", Expected::Never),
    ("/admin/users", Expected::Never),
    ("/admin/users?x=1", Expected::Never),
    ("/admin?/public/", Expected::Never),
    ("/./admin/users", Expected::Never),
    ("/orders/../admin/users", Expected::Never),
    ("/orders/%2e%2e/admin/users", Expected::Never),
    ("/orders/.%2E/admin/users", Expected::Never),
    ("/%61dmin/users", Expected::Never),
    ("/%61%64%6D%69%6e", Expected::Never),
    ("http://shop.acme.example/admin/users", Expected::Never),
    ("http://shop.acme.example/orders/../%61dmin/users", Expected::Never),
    ("//admin/users", Expected::PathRefused),
    ("/orders//admin", Expected::PathRefused),
    ("/../admin/users", Expected::PathRefused),
    ("/%2e%2e/admin/users", Expected::PathRefused),
    ("/orders%2f..%2fadmin", Expected::PathRefused),
    ("/admin%2fusers", Expected::PathRefused),
    ("/orders/..%5cadmin", Expected::PathRefused),
    ("/admin%00/users", Expected::PathRefused),
    ("/admin%c0%afusers", Expected::PathRefused),
    ("/admin;x=y/users", Expected::PathRefused),
    ("/orders/..;/admin/users", Expected::PathRefused),
    ("/%252e%252e/admin", Expected::PathRefused),
    ("/admin./users", Expected::PathRefused),
    ("/admin%20/users", Expected::PathRefused),
    ("http://other.example/admin/users", Expected::NoRequest),
    ("/orders/..\\admin", Expected::NoRequest),
];

#[test]
fn a5_the_bytes_decided_on_are_the_bytes_forwarded_and_admin_is_never_missed() {
    let world = World::start();
    for (target, expected) in &PATHS {
        let before = world.upstream.count();
        let answer = world.ask(target, &[]);
        match expected {
            Expected::Forwarded(forwarded) => {
                let record = world.serving.expect(&answer, 200, "none");
                assert_eq!(world.upstream.last().target, *forwarded, "{target}");
                assert_eq!(record["request"]["path"].as_str(), forwarded.split('?').next(), "{target}");
                continue;
            }
            Expected::Never => _ = world.serving.expect(&answer, 403, "never_matched"),
            Expected::PathRefused => _ = world.serving.expect(&answer, 400, "path_refused"),
            Expected::NoRequest => assert_eq!(answer.status, 400, "{target}: {}", answer.text()),
        }
        assert_eq!(world.upstream.count(), before, "{target} reached the service");
    }
}

#[test]
fn a5_a_fragment_in_a_target_is_no_way_round_a_rule() {
    let world = World::start();
    for target in ["/admin#/public/x", "/admin/users#x", "/#/../admin", "/orders/1#@/admin"] {
        let before = world.upstream.count();
        assert!(matches!(world.ask(target, &[]).status, 400 | 403), "{target}");
        assert_eq!(world.upstream.count(), before, "{target} reached the service");
    }
}

#[test]
fn a5_no_field_names_another_path_than_the_one_decided_on() {
    let world = World::start();
    for name in [
        "X-Original-URL",
        "X-Rewrite-URL",
        "X-Forwarded-Uri",
        "X-Forwarded-Path",
        "X-Original-URI",
        "X-Forwarded-Prefix",
    ] {
        world.check_stripped(&[(name, "/admin/forged-7")]);
        world.check_refused("/admin/users", &[(name, "/orders/1")], 403, "never_matched");
    }
}

#[test]
fn api_103_a_public_rule_opens_nothing_else() {
    let world = World::start();
    let anonymous = |target: &str, more: &[(&str, &str)]| world.serving.get_with(target, None, more);
    assert_eq!(anonymous("/public/page", &[]).status, 200);
    let before = world.upstream.count();
    for target in [
        "/orders/1?/public/page",
        "/orders/1?public",
        "/public/../orders/1",
        "/public/%2e%2e/orders/1",
        "/public/x/../../orders/1",
        "/orders/public/page",
        "/PUBLIC/page",
        "/publicity",
        "http://shop.acme.example/orders/1",
    ] {
        world.serving.expect(&anonymous(target, &[]), 401, "token_missing");
    }
    for target in ["//public/page", "/public%2f..%2forders", "/public/..;/orders/1", "/public/%252e%252e/orders/1"] {
        world.serving.expect(&anonymous(target, &[]), 400, "path_refused");
    }
    for name in ["X-Forwarded-Uri", "X-Original-URL", "X-Rewrite-URL", "X-Forwarded-Method", "X-HTTP-Method-Override"] {
        world.serving.expect(&anonymous("/orders/1", &[(name, "/public/page")]), 401, "token_missing");
    }
    assert_eq!(world.upstream.count(), before);
}
