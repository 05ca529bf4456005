//! The real Envoy of `examples/envoy`, which asks over gRPC with its `ext_authz` filter.
use std::path::{Path, PathBuf};

use crate::authz::{self, Proxy, World, replaced};
use crate::serving::Serving;
use testkit::client;

fn world() -> World {
    World::of_example("envoy", |text| text)
}

fn envoy(world: &World) -> Proxy {
    envoy_with(world, |text| text)
}

fn envoy_with(world: &World, change: impl Fn(String) -> String) -> Proxy {
    start(world, "envoy.yaml", change)
}

fn start(world: &World, file: &str, change: impl Fn(String) -> String) -> Proxy {
    Proxy::start(world, ("envoy", file), change, |config, _folder| {
        let program = program();
        let arguments = [
            "-c".into(),
            config.as_os_str().to_owned(),
            "--use-dynamic-base-id".into(),
            "--concurrency".into(),
            "1".into(),
            "-l".into(),
            "warning".into(),
        ];
        (program, arguments.into())
    })
}

fn program() -> PathBuf {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/peers/test/bin/envoy");
    assert!(program.exists(), "Envoy is missing: run `cargo xtask peers`");
    program
}

#[test]
fn a7_envoy_gets_each_verdict_and_the_service_our_txn_token() {
    let world = world();
    let envoy = envoy(&world);
    authz::check_verdicts(&world, &envoy);
    authz::check_dpop(&world, &envoy);
    let nowhere = client::get(envoy.address, "/orders/1", &[("host", "other.example")]);
    world.serving.expect(&nowhere, 404, "no_route");
    let problem = nowhere.json();
    assert_eq!(problem["decision"].as_str(), nowhere.field("countersign-decision"), "the answer of the edge itself");
}

/// The same over a Unix-domain socket (`pipe`), HTTP/2 by prior knowledge.
#[test]
fn a7_envoy_asks_through_a_unix_socket() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("authz.sock").display().to_string();
    let world = World::of_example("envoy", |text| {
        let both = format!("listen: [127.0.0.1:0, \"unix:{path}\"]\n  callers: [192.0.2.1]");
        replaced(text, "listen: 127.0.0.1:0\n  from: envoy", &format!("{both}\n  from: envoy"))
    });
    let tcp = format!("socket_address: {{ address: 127.0.0.1, port_value: {} }}", world.door().port());
    let envoy = envoy_with(&world, |text| replaced(text, &tcp, &format!("pipe: {{ path: {path} }}")));
    let record = world.serving.expect(&envoy.get("/orders/42", Some(&world.token), &[]), 200, "none");
    assert_eq!((&record["request"]["peer"], &record["request"]["proxy"]), (&"authz".into(), &"unix".into()));
    world.check_stamped(&world.upstream.last(), "id|ana");
    world.serving.expect(&envoy.get("/orders/42", None, &[]), 401, "token_missing");
}

#[test]
fn a7_envoy_passes_no_word_of_a_client_for_its_own() {
    let world = world();
    let envoy = envoy(&world);
    authz::check_spoofs(&world, &envoy);
    authz::check_nominations(&world, &envoy);
    authz::check_our_fields(&world, &envoy, 200);
    let cookies = [("cookie", "__Host-cs=forged-7; a=1"), ("tracestate", "cs=forged-7,b=2")];
    world.serving.expect(&envoy.get("/orders/7", Some(&world.token), &cookies), 200, "none");
    let seen = world.upstream.last();
    world.check_stamped(&seen, "id|ana");
    assert_eq!((seen.field("cookie"), seen.field("tracestate")), (Some("a=1"), Some("b=2")));
}

#[test]
fn a7_envoy_sends_the_bytes_that_were_decided_on() {
    let world = world();
    let envoy = envoy(&world);
    authz::check_paths(&world, &envoy);
    authz::check_methods(&world, &envoy);
    authz::check_bodies(&world, &envoy);
}

#[test]
fn a7_an_envoy_that_normalises_nothing_is_refused_what_it_would_send() {
    let world = world();
    let envoy = envoy_with(&world, |text| {
        let text = replaced(text, "normalize_path: true ", "normalize_path: false ");
        let text = replaced(text, "merge_slashes: true", "merge_slashes: false");
        replaced(
            text,
            "action: REJECT_REQUEST\n                common",
            "action: KEEP_UNCHANGED\n                common",
        )
    });
    authz::check_paths(&world, &envoy);
    let answer = envoy.get("/orders/x/../42", Some(&world.token), &[]);
    world.serving.expect(&answer, 400, "path_refused");
}

#[test]
fn a7_a_body_that_envoy_brings_along_decides_nothing() {
    let world = world();
    let envoy = envoy_with(&world, |text| {
        let body = "with_request_body: { max_request_bytes: 64, allow_partial_message: true, pack_as_bytes: true }";
        replaced(text, "failure_mode_allow: false", &format!("failure_mode_allow: false\n                      {body}"))
    });
    let bearer = format!("Bearer {}", world.token);
    let fields = [("host", authz::HOST), ("authorization", bearer.as_str())];
    for bytes in [0usize, 1, 64, 65, 100_000] {
        let answer = client::request(envoy.address, "POST", "/orders/42", &fields, vec![0xff; bytes]);
        world.serving.expect(&answer, 200, "none");
        assert_eq!(world.upstream.last().body_bytes, bytes as u64, "the service gets all of it");
    }
    let before = world.upstream.count();
    let answer = client::request(envoy.address, "POST", "/admin/users", &fields, "GET /orders/42 HTTP/1.1");
    world.serving.expect(&answer, 403, "never_matched");
    assert_eq!(world.upstream.count(), before);
}

#[test]
fn a7_envoy_lets_nothing_pass_when_nobody_answers() {
    let world = world();
    let envoy = envoy(&world);
    authz::check_fails_closed(world, &envoy);
}

#[test]
fn a7_envoy_asks_over_http_with_the_same_verdicts() {
    let world = World::of_example("envoy", |text| replaced(text, "from: envoy", "from: envoy-http"));
    let envoy = start(&world, "envoy-http.yaml", |text| text);
    authz::check_verdicts(&world, &envoy);
    authz::check_dpop(&world, &envoy);
    authz::check_spoofs(&world, &envoy);
    authz::check_nominations(&world, &envoy);
    authz::check_our_fields(&world, &envoy, 200);
    authz::check_paths(&world, &envoy);
    authz::check_methods(&world, &envoy);
    authz::check_bodies(&world, &envoy);
    // A client cannot make its own request pass for a question of the other kind.
    let before = world.upstream.count();
    let grpc = [("content-type", "application/grpc"), ("te", "trailers")];
    let path = "/envoy.service.auth.v3.Authorization/Check";
    assert_eq!(envoy.ask("POST", path, Some(&world.token), &grpc).field("grpc-status"), Some("7"));
    assert_eq!(world.upstream.count(), before);
    authz::check_fails_closed(world, &envoy);
}

#[test]
fn an_upgrade_through_envoy_is_asked_about_and_stays_one() {
    let world = world();
    let envoy = envoy_with(&world, |text| {
        replaced(
            text,
            "use_remote_address: true ",
            "upgrade_configs: [{ upgrade_type: websocket }]\n                use_remote_address: true ",
        )
    });
    let upgrade = [
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGVzdGtpdC10ZXN0a2l0MQ=="),
    ];
    let before = world.upstream.count();
    assert_eq!(envoy.get("/orders/socket", None, &upgrade).status, 401);
    assert_eq!(envoy.get("/admin/socket", Some(&world.token), &upgrade).status, 403);
    assert_eq!(world.upstream.count(), before);
    // The service does not switch here; that it was asked to is what counts.
    envoy.get("/orders/socket", Some(&world.token), &upgrade);
    let seen = world.upstream.last();
    world.check_stamped(&seen, "id|ana");
    assert_eq!(seen.field("upgrade"), Some("websocket"));
}

#[test]
fn a7_an_envoy_that_may_not_ask_lets_nothing_pass() {
    let world = world();
    let envoy = envoy(&world);
    let before = world.upstream.count();
    // From now on only others may ask: a second process of ours takes the address over.
    let folder = world.serving.folder.path().join("countersign.yaml");
    let text = std::fs::read_to_string(&folder).unwrap();
    let text = replaced(text, "from: envoy", "from: envoy\n  callers: [10.0.0.0/8]");
    let text = replaced(text, "127.0.0.1:0\n  from", &format!("{}\n  from", world.door()));
    let World { serving, upstream, token, issuer: _issuer } = world;
    drop(serving.process);
    std::fs::write(&folder, text).unwrap();
    std::fs::remove_file(serving.folder.path().join("state/process.json")).ok();
    let serving = Serving::of(serving.folder);
    let answer = testkit::wait_value("Envoy asks the new process", crate::serving::LIMIT, || {
        let answer = envoy.get("/orders/42", Some(&token), &[]);
        answer.text().contains("Not a known proxy").then_some(answer)
    });
    assert_eq!(answer.status, 403);
    assert!(serving.metrics().contains("kind=\"authz_caller\""));
    assert_eq!(upstream.count(), before);
}

#[test]
fn envoys_health_check_is_answered_and_nothing_else() {
    let world = world();
    let ask = |path: &str, kind: &str| {
        let (url, kind) = (format!("http://{}{path}", world.door()), format!("content-type: {kind}"));
        let folder = tempfile::tempdir().unwrap();
        let empty = folder.path().join("empty");
        std::fs::write(&empty, [0; 5]).unwrap();
        let data = format!("@{}", empty.display());
        let arguments = ["-sS", "-i", "--http2-prior-knowledge", "-H", &kind, "--data-binary", &data, &url];
        let (status, out, error) = testkit::process::run("curl", &arguments);
        assert!(status.success(), "{error}");
        out
    };
    let healthy = ask("/grpc.health.v1.Health/Check", "application/grpc");
    assert!(healthy.contains("grpc-status: 0") && healthy.contains("\u{8}\u{1}"), "{healthy:?}");
    for path in ["/envoy.service.auth.v2.Authorization/Check", "/public/page", "/.well-known/countersign/jwks.json"] {
        let unknown = ask(path, "application/grpc");
        assert!(unknown.contains("grpc-status: 12") && !unknown.contains("txn-token"), "{unknown}");
    }
    // Over this listener a question over HTTP is none.
    assert!(ask("/envoy.service.auth.v3.Authorization/Check", "application/json").contains("grpc-status: 12"));
    // A message that says nothing is denied, in a message: an error could be taken for "nobody answers".
    let denied = ask("/envoy.service.auth.v3.Authorization/Check", "application/grpc");
    assert!(denied.contains("grpc-status: 0") && denied.contains("Proxy misconfigured"), "{denied}");
    world.serving.wait_log("ext_authz filter");
}

#[test]
fn a7_an_envoy_that_fails_open_still_hears_every_no() {
    let world = world();
    let envoy = envoy_with(&world, |text| {
        let body = "failure_mode_allow: true\n                      with_request_body: { max_request_bytes: 9000000, allow_partial_message: true }";
        replaced(text, "failure_mode_allow: false", body)
    });
    let before = world.upstream.count();
    let bearer = format!("Bearer {}", world.token);
    let fields = [("host", authz::HOST), ("authorization", bearer.as_str())];
    // More than we read: a client must not be able to make the question fail.
    let answer = client::request(envoy.address, "POST", "/admin/users", &fields, vec![b'x'; 5_000_000]);
    assert!(matches!(answer.status, 403 | 413 | 500), "{}", answer.status);
    for (name, value) in [("x-odd", "\u{e9}"), ("cookie", "a=\u{ff}")] {
        assert!(envoy.get("/admin/users", Some(&world.token), &[(name, value)]).status >= 400);
    }
    assert_eq!(world.upstream.count(), before);
}
