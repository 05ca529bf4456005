//! The real Caddy of `examples/caddy`, which asks with `forward_auth`.
use crate::authz::{self, Proxy, World};

fn world() -> World {
    World::of_example("caddy", |text| text)
}

fn caddy(world: &World) -> Proxy {
    let program =
        ["/usr/bin/caddy", "/usr/local/bin/caddy"].into_iter().find(|path| std::path::Path::new(path).exists());
    let program = program.expect("caddy is missing: apt-get install caddy, or cargo xtask peers");
    Proxy::start(
        world,
        ("caddy", "Caddyfile"),
        |text| text,
        |config, folder| {
            // Caddy keeps its state in the user's folders unless told otherwise.
            let run = format!(
                "HOME={0} XDG_DATA_HOME={0} XDG_CONFIG_HOME={0} exec {program} run --config {1} --adapter caddyfile",
                folder.display(),
                config.display()
            );
            ("/bin/sh".into(), vec!["-c".into(), run.into()])
        },
    )
}

#[test]
fn a7_caddy_gets_each_verdict_and_the_service_our_txn_token() {
    let world = world();
    let caddy = caddy(&world);
    authz::check_verdicts(&world, &caddy);
    authz::check_dpop(&world, &caddy);
    let refused = caddy.get("/admin/users", Some(&world.token), &[]);
    assert_eq!(
        refused.json()["decision"].as_str(),
        refused.field("countersign-decision"),
        "the answer of the edge itself"
    );
}

#[test]
fn a7_caddy_passes_no_word_of_a_client_for_its_own() {
    let world = world();
    let caddy = caddy(&world);
    authz::check_spoofs(&world, &caddy);
    authz::check_nominations(&world, &caddy);
    authz::check_our_fields(&world, &caddy, 200);
}

#[test]
fn a7_caddy_sends_the_bytes_that_were_decided_on() {
    let world = world();
    let caddy = caddy(&world);
    authz::check_paths(&world, &caddy);
    authz::check_methods(&world, &caddy);
    authz::check_bodies(&world, &caddy);
}

#[test]
fn a7_caddy_lets_nothing_pass_when_nobody_answers() {
    let world = world();
    let caddy = caddy(&world);
    authz::check_fails_closed(world, &caddy);
}

#[test]
fn an_upgrade_is_asked_about_and_reaches_the_service_as_one() {
    let world = world();
    let caddy = caddy(&world);
    let upgrade = |connection: &'static str| {
        [
            ("connection", connection),
            ("upgrade", "websocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGVzdGtpdC10ZXN0a2l0MQ=="),
        ]
    };
    for connection in ["Upgrade", "Upgrade, Txn-Token"] {
        let answer = caddy.get("/orders/socket", Some(&world.token), &upgrade(connection));
        world.serving.expect(&answer, 200, "none");
        let seen = world.upstream.last();
        world.check_stamped(&seen, "id|ana");
        assert_eq!((seen.field("upgrade"), seen.field("connection")), (Some("websocket"), Some("Upgrade")));
    }
    let before = world.upstream.count();
    assert_eq!(caddy.get("/orders/socket", None, &upgrade("Upgrade")).status, 401);
    assert_eq!(world.upstream.count(), before);
}
