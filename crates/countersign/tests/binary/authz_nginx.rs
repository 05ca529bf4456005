//! The real nginx of `examples/nginx`, which asks with `auth_request`.
use crate::authz::{self, Proxy, World, replaced};
use serde_json::json;

fn world() -> World {
    World::of_example("nginx", |text| text)
}

fn nginx(world: &World) -> Proxy {
    nginx_with(world, |text| text)
}

fn nginx_with(world: &World, change: impl Fn(String) -> String) -> Proxy {
    let program = ["/usr/sbin/nginx", "/usr/bin/nginx"].into_iter().find(|path| std::path::Path::new(path).exists());
    let program = program.expect("nginx is missing: apt-get install nginx, or cargo xtask peers");
    Proxy::start(world, ("nginx", "nginx.conf"), change, |config, folder| {
        let at = folder.display();
        let own = format!(
            "daemon off; worker_processes 1; pid {at}/pid; error_log {at}/error.log;\nhttp {{\n    access_log off; \
             client_body_temp_path {at}/b; proxy_temp_path {at}/p; fastcgi_temp_path {at}/f; uwsgi_temp_path {at}/u; \
             scgi_temp_path {at}/s;\n"
        );
        let text = std::fs::read_to_string(config).unwrap();
        std::fs::write(config, replaced(text, "http {\n", &own)).unwrap();
        let arguments = ["-p".into(), folder.as_os_str().to_owned(), "-c".into(), config.as_os_str().to_owned()];
        (program.into(), arguments.into())
    })
}

#[test]
fn a7_nginx_gets_each_verdict_and_the_service_our_txn_token() {
    let world = world();
    let nginx = nginx(&world);
    authz::check_verdicts(&world, &nginx);
    authz::check_dpop(&world, &nginx);
    // What was refused with another status than 401 and 403 comes out as what it was.
    let nowhere = testkit::client::get(nginx.address, "/orders/1", &[("host", "other.example")]);
    let record = world.serving.record(&nowhere);
    assert_eq!((nowhere.status, authz::text(&record, "/reason")), (404, "no_route"));
    assert_eq!(record["status"], 403, "what nginx was told");
}

/// The same through a Unix-domain socket: nobody but its owner and group may ask, whatever `callers` says.
#[test]
fn a7_nginx_asks_through_a_unix_socket_and_nobody_else_can() {
    use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("authz.sock");
    let socket = format!("unix:{}", path.display());
    let mut world = World::of_example("nginx", |text| {
        let listen = format!("[127.0.0.1:0, \"{socket}\"]\n  callers: [192.0.2.1]");
        replaced(text, "127.0.0.1:0\n  from: nginx", &format!("{listen}\n  from: nginx"))
    });
    let file = std::fs::symlink_metadata(&path).unwrap();
    assert_eq!((file.file_type().is_socket(), file.permissions().mode() & 0o777), (true, 0o660));
    // By its address this machine is no caller.
    assert_eq!(testkit::client::get(world.door(), "/", &[("host", authz::HOST)]).status, 403);
    let own = format!("server {}", world.door());
    // Where these tests run as root, nginx would give up that user, and could not ask: as it should be.
    let nginx = nginx_with(&world, |text| format!("user root;\n{}", replaced(text, &own, &format!("server {socket}"))));
    let allowed = nginx.get("/orders/42", Some(&world.token), &[]);
    let record = world.serving.expect(&allowed, 200, "none");
    assert_eq!((&record["request"]["peer"], &record["request"]["client_ip"]), (&json!("authz"), &json!("127.0.0.1")));
    assert_eq!(record["request"]["proxy"], "unix", "a socket has no address");
    world.check_stamped(&world.upstream.last(), "id|ana");
    world.serving.expect(&nginx.get("/orders/42", None, &[]), 401, "token_missing");
    world.serving.process.signal("TERM");
    world.serving.process.wait(crate::serving::LIMIT);
    assert!(!path.exists(), "the socket goes with its process");
}

#[test]
fn a_nonce_that_is_asked_for_reaches_the_client_through_nginx() {
    let world = World::of_example("nginx", |text| {
        replaced(text, "claims: { groups: groups }", "claims: { groups: groups }, dpop: { nonce: required }")
    });
    let nginx = nginx(&world);
    let key = testkit::signing::SigningKey::generate(testkit::signing::Kind::Es256, "client");
    let bound = json!({ "groups": ["support"], "cnf": { "jkt": testkit::dpop::thumbprint(&key) } });
    let token = world.issuer.token("ana", "acme", &bound);
    let (url, authorization) = (format!("http://{}/orders/3", authz::HOST), format!("DPoP {token}"));
    let send = |claims: &serde_json::Value| {
        let proof = testkit::dpop::sign(&key, &json!({}), claims);
        let fields = [("host", authz::HOST), ("authorization", authorization.as_str()), ("dpop", proof.as_str())];
        testkit::client::get(nginx.address, "/orders/3", &fields)
    };
    let refused = send(&testkit::dpop::claims("GET", &url, &token));
    world.serving.expect(&refused, 401, "dpop_nonce");
    let nonce = refused.field("dpop-nonce").expect("a nonce").to_owned();
    let claims = testkit::signing::overlay(testkit::dpop::claims("GET", &url, &token), &json!({ "nonce": nonce }));
    world.serving.expect(&send(&claims), 200, "none");
}

#[test]
fn a7_nginx_passes_no_word_of_a_client_for_its_own() {
    let world = world();
    let nginx = nginx(&world);
    authz::check_spoofs(&world, &nginx);
    authz::check_nominations(&world, &nginx);
    authz::check_our_fields(&world, &nginx, 400);
}

#[test]
fn a7_nginx_sends_the_bytes_that_were_decided_on() {
    let world = world();
    let nginx = nginx(&world);
    authz::check_paths(&world, &nginx);
    authz::check_methods(&world, &nginx);
    authz::check_bodies(&world, &nginx);
}

#[test]
fn a7_an_internal_redirect_of_nginx_changes_neither_question_nor_request() {
    let world = world();
    let redirects = "        location = /public/old { rewrite ^ /admin/secret last; }\n\
                     \x20       location = /public/try { try_files /nonexistent /admin/secret; }\n\
                     \x20       location = /public/error { error_page 418 = /admin/secret; return 418; }\n\
                     \x20       location / {\n";
    let nginx = nginx_with(&world, |text| replaced(text, "        location / {\n", redirects));
    for target in ["/public/old", "/public/try", "/public/error"] {
        let before = world.upstream.count();
        let answer = nginx.get(target, None, &[]);
        assert_eq!(world.upstream.count(), before + 1, "{target}: {}", answer.status);
        let record = world.serving.expect(&answer, 200, "none");
        assert_eq!(record["request"]["path"], target);
        assert_eq!(world.upstream.last().target, target, "what was decided on");
    }
    // And a service that sends nginx elsewhere gets its own request again, never another one.
    let raw = "HTTP/1.1%20200%20OK%0D%0Ax-accel-redirect:%20/admin/secret%0D%0Acontent-length:%200%0D%0A%0D%0A";
    let answer = nginx.get(&format!("/public/accel?do=raw:{raw}"), None, &[]);
    assert_eq!(answer.status, 500, "nginx ends the circle");
    assert!(world.upstream.seen().iter().all(|seen| !seen.target.starts_with("/admin")));
}

#[test]
fn a7_nginx_lets_nothing_pass_when_nobody_answers() {
    let world = world();
    let nginx = nginx(&world);
    authz::check_fails_closed(world, &nginx);
}
