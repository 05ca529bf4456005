//! WebSockets through the binary: opened only when rules, origin and upstream agree, ended when one of them no longer does.
use serde_json::{Value, json};
use testkit::client::Response;
use testkit::issuer::Issuer;

use crate::serving::tunnel::{Answer, Client, KEY, Peer, handshake};
use crate::serving::{LIMIT, Serving, Setup};

struct World {
    issuer: Issuer,
    peer: Peer,
    setup: Setup,
    serving: Serving,
}

impl World {
    fn start(answer: Answer) -> World {
        World::start_with(answer, "", |_| {})
    }

    /// `service` is added to the service file.
    fn start_with(answer: Answer, service: &str, change: impl FnOnce(&mut Setup)) -> World {
        let (issuer, peer) = (Issuer::start(), Peer::start(answer));
        let mut setup = Setup::new(&issuer.url(), &format!("http://{}", peer.address));
        setup.services[0].1.push_str(service);
        setup.edge = "  workers: 1\n".into();
        change(&mut setup);
        let serving = setup.start();
        World { issuer, peer, setup, serving }
    }

    fn open(&self, path: &str, fields: &[(&str, &str)]) -> Result<Client, Response> {
        Client::open(self.serving.edge, path, fields)
    }

    fn opened(&self, path: &str, fields: &[(&str, &str)]) -> Client {
        self.open(path, fields).unwrap_or_else(|answer| panic!("{path}: {} {}", answer.status, answer.text()))
    }

    /// Refused by us with this reason, and no byte reached the upstream.
    #[track_caller]
    fn check_refused(&self, path: &str, fields: &[(&str, &str)], status: u16, reason: &str) {
        let heads = self.peer.heads().len();
        let Err(answer) = self.open(path, fields) else { panic!("{path} {fields:?} was opened") };
        self.serving.expect(&answer, status, reason);
        assert_eq!(self.peer.heads().len(), heads, "{path} {fields:?} reached the upstream");
    }

    /// The lines of the audit log about tunnels, once there are so many.
    fn lines(&self, count: usize) -> Vec<Value> {
        testkit::wait_value("the tunnels' records", LIMIT, || {
            let text = std::fs::read_to_string(self.serving.audit_file()).ok()?;
            let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            let lines: Vec<Value> = lines.filter(|line| line["tunnel"] == "websocket").collect();
            (lines.len() >= count).then_some(lines)
        })
    }

    /// Why the first tunnel ended.
    fn ended(&self) -> Value {
        let lines = self.lines(2);
        assert_eq!((&lines[0]["kind"], &lines[0]["ended"]), (&json!("decision"), &json!("open")), "{lines:?}");
        assert_eq!((&lines[1]["kind"], &lines[1]["id"]), (&json!("end"), &lines[0]["id"]), "{lines:?}");
        lines[1].clone()
    }

    fn token(&self, extra: &Value) -> String {
        let mut claims = json!({ "groups": ["support"] });
        claims.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        format!("Bearer {}", self.issuer.token("ana", "acme", &claims))
    }

    /// Opens one for `ana` of `support`, as soon as the issuer's keys are known.
    fn opened_signed_in(&self, bearer: &str) -> Client {
        testkit::wait_value("the token is accepted", LIMIT, || {
            self.open("/orders/feed", &[("authorization", bearer)]).ok()
        })
    }
}

#[test]
fn a_websocket_carries_bytes_both_ways_and_both_its_ends_are_recorded() {
    let world = World::start(Answer::Echo);
    let bearer = world.token(&json!({}));
    let mut client = world.opened_signed_in(&bearer);
    client.send("hello, opaque bytes");
    assert_eq!(client.receive(19), "hello, opaque bytes");
    let large = "x".repeat(1 << 20);
    let mut sending = client.connection.stream().try_clone().unwrap();
    let sent = large.clone();
    let sender = std::thread::spawn(move || std::io::Write::write_all(&mut sending, sent.as_bytes()).unwrap());
    assert_eq!(client.receive(1 << 20), large);
    sender.join().unwrap();
    assert!(world.serving.metrics().contains("countersign_tunnels_open 1"));
    assert_eq!(world.lines(1)[0]["ended"], "open", "recorded while it is open");
    drop(client);
    let end = world.ended();
    assert_eq!(
        (&end["ended"], &end["bytes_in"], &end["bytes_out"]),
        (&json!("client"), &json!((1 << 20) + 19), &json!((1 << 20) + 19))
    );
    assert_eq!((&end["status"], &end["principal"]["subject"]), (&json!(101), &json!("id|ana")));
    let head = world.peer.heads().remove(0);
    assert!(head.contains("txn-token: ") && !head.contains("Bearer"), "{head}");
    assert!(head.contains("upgrade: websocket\r\n") && head.contains("connection: upgrade\r\n"), "{head}");
    testkit::wait_for("the gauge falls", LIMIT, || world.serving.metrics().contains("countersign_tunnels_open 0"));
    assert!(world.serving.metrics().contains(r#"countersign_tunnels_ended_total{ended="client"} 1"#));
    for command in [["audit", "verify"], ["audit", "show"], ["why", "last"]] {
        let id = end["id"].as_str().unwrap();
        let arguments = if command == ["audit", "show"] { vec!["audit", "show", id] } else { command.to_vec() };
        let (code, text) = world.serving.command(&arguments);
        assert_eq!(code, 0, "{arguments:?}: {text}");
    }
}

#[test]
fn protocol_and_extensions_are_agreed_end_to_end() {
    let fields = [("sec-websocket-protocol", "chat, superchat"), ("sec-websocket-extensions", "permessage-deflate")];
    let answer = "HTTP/1.1 101 X\r\nupgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-protocol: chat\r\n\
                  sec-websocket-extensions: permessage-deflate\r\nsec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
    let world = World::start(Answer::Bytes(answer.into()));
    let mut client = Client::connect(world.serving.edge);
    client.send(handshake("/public/x", &fields));
    let answer = client.answer();
    assert_eq!((answer.status, answer.field("sec-websocket-protocol")), (101, Some("chat")));
    assert_eq!(answer.field("sec-websocket-extensions"), Some("permessage-deflate"));
    let head = world.peer.heads().remove(0);
    assert!(head.contains("chat, superchat") && head.contains(&format!("sec-websocket-key: {KEY}")), "{head}");
}

#[test]
fn a_denied_websocket_is_refused_like_any_request() {
    let world = World::start(Answer::Echo);
    world.check_refused("/orders/feed", &[], 401, "token_missing");
    let interns = world.token(&json!({ "groups": ["support", "interns"] }));
    world.opened_signed_in(&world.token(&json!({})));
    world.check_refused("/orders/feed", &[("authorization", &interns)], 403, "never_matched");
    world.check_refused("/nowhere", &[], 401, "token_missing");
    world.check_refused("/public/%2e%2e/orders", &[("authorization", "Bearer x")], 401, "token_malformed");
}

#[test]
fn a6_a_broken_handshake_never_reaches_the_upstream() {
    let world = World::start(Answer::Echo);
    let whole = handshake("/public/x", &[]);
    for (what, from, to, status, reason) in [
        ("no version", "sec-websocket-version: 13\r\n", "", 426, "websocket_version"),
        ("an old version", "version: 13", "version: 8", 426, "websocket_version"),
        ("no key", "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n", "", 400, "websocket_malformed"),
        ("a short key", KEY, "dGhlIHNhbXBsZQ==", 400, "websocket_malformed"),
        ("POST", "GET ", "POST ", 400, "websocket_malformed"),
        ("two protocols", "upgrade: websocket", "upgrade: websocket, h2c", 400, "websocket_malformed"),
        ("no connection option", "connection: keep-alive, Upgrade\r\n", "", 400, "websocket_malformed"),
        ("a body", "\r\n\r\n", "\r\ncontent-length: 2\r\n\r\nhi", 400, "websocket_malformed"),
    ] {
        let mut client = Client::connect(world.serving.edge);
        client.send(whole.replacen(from, to, 1));
        let answer = client.answer();
        assert_eq!(answer.status, status, "{what}");
        world.serving.expect(&answer, status, reason);
        assert_eq!(answer.field("sec-websocket-version"), (status == 426).then_some("13"), "{what}");
    }
    assert_eq!(world.peer.heads(), [""; 0]);
}

#[test]
fn a6_no_other_protocol_is_ever_tunnelled() {
    let answer = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok";
    let world = World::start(Answer::Bytes(answer.into()));
    for upgrade in ["h2c", "TLS/1.0", "foo", "websockets", "connect-udp"] {
        let mut client = Client::connect(world.serving.edge);
        client.send(handshake("/public/x", &[]).replace("upgrade: websocket", &format!("upgrade: {upgrade}")));
        assert_eq!(client.answer().text(), "ok", "{upgrade}");
        let head = world.peer.heads().pop().unwrap();
        assert!(!head.contains("upgrade") && !head.contains("connection:"), "{upgrade}: {head}");
    }
    let seen = world.peer.heads().len();
    let mut client = Client::connect(world.serving.edge);
    client.send("CONNECT shop.acme.example:443 HTTP/1.1\r\nhost: shop.acme.example:443\r\n\r\n");
    assert_eq!(client.answer().status, 501);
    // HTTP/1.0 knows no upgrade: the field means nothing there.
    let mut client = Client::connect(world.serving.edge);
    client.send(handshake("/public/x", &[]).replace("HTTP/1.1", "HTTP/1.0"));
    assert_eq!(client.answer().text(), "ok");
    assert_eq!(world.peer.heads().len(), seen + 1);
}

#[test]
fn a6_upgrade_without_101_from_the_upstream_opens_nothing() {
    let check = |what: &str, answer: &str, status: u16, reason: &str| {
        let world = World::start(Answer::Bytes(answer.into()));
        let mut client = Client::connect(world.serving.edge);
        // Bytes that a client sends before it has its 101 wait for it, and go nowhere without it.
        client.send(handshake("/public/x", &[]) + "\x01\x02 opaque\r\n\r\n");
        let found = client.answer();
        world.serving.expect(&found, status, reason);
        assert!(client.rest().starts_with(b"HTTP/1.1 400"), "{what}: judged as HTTP again");
        assert_eq!((world.peer.heads().len(), world.peer.after().as_str()), (1, ""), "{what}");
    };
    let switch = "HTTP/1.1 101 X\r\nupgrade: websocket\r\nconnection: upgrade\r\n";
    check("200", "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", 200, "none");
    check("404", "HTTP/1.1 404 No\r\ncontent-length: 0\r\n\r\n", 404, "none");
    check(
        "426",
        "HTTP/1.1 426 No\r\nupgrade: websocket\r\nconnection: upgrade\r\ncontent-length: 0\r\n\r\n",
        426,
        "none",
    );
    check("no accept", &format!("{switch}\r\n"), 502, "upstream_protocol");
    check(
        "a wrong accept",
        &format!("{switch}sec-websocket-accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n\r\n"),
        502,
        "upstream_protocol",
    );
    let accept = "sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n";
    check("two accepts", &format!("{switch}{accept}{accept}\r\n"), 502, "upstream_protocol");
    check("no upgrade", &format!("HTTP/1.1 101 X\r\nconnection: upgrade\r\n{accept}\r\n"), 502, "upstream_protocol");
    check("no connection", &format!("HTTP/1.1 101 X\r\nupgrade: websocket\r\n{accept}\r\n"), 502, "upstream_protocol");
    check(
        "another protocol",
        &format!("HTTP/1.1 101 X\r\nupgrade: h2c\r\nconnection: upgrade\r\n{accept}\r\n"),
        502,
        "upstream_protocol",
    );
    check("garbage", "SSH-2.0-dropbear\r\n\r\n", 502, "upstream_protocol");
}

#[test]
fn a6_smuggled_request_after_a_refused_upgrade_is_judged_on_its_own() {
    let smuggled = "GET /orders/secret HTTP/1.1\r\nhost: shop.acme.example\r\ntxn-token: forged\r\n\r\n";
    // The upstream does not switch, but keeps its connection open as a careless proxy's would be.
    let world = World::start(Answer::Bytes("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok".into()));
    let mut client = Client::connect(world.serving.edge);
    client.send(handshake("/public/x", &[]) + smuggled);
    assert_eq!(client.answer().text(), "ok");
    world.serving.expect(&client.answer(), 401, "token_missing");
    // We refuse the upgrade ourselves.
    client.send(handshake("/orders/feed", &[]) + smuggled);
    world.serving.expect(&client.answer(), 401, "token_missing");
    world.serving.expect(&client.answer(), 401, "token_missing");
    client.send(handshake("/public/x", &[("origin", "https://evil.example")]) + smuggled);
    world.serving.expect(&client.answer(), 403, "origin_refused");
    world.serving.expect(&client.answer(), 401, "token_missing");
    assert_eq!((world.peer.heads().len(), world.peer.after().as_str()), (1, ""));
    assert!(!world.peer.heads()[0].contains("secret"));
}

#[test]
fn bytes_sent_before_the_101_arrive_after_it_and_not_before() {
    let (go, wait) = std::sync::mpsc::channel();
    let world = World::start(Answer::Late(std::sync::Arc::new(std::sync::Mutex::new(wait))));
    let mut client = Client::connect(world.serving.edge);
    let early = "GET /early HTTP/1.1\r\nhost: a\r\n\r\n";
    client.send(handshake("/public/x", &[]) + early);
    testkit::wait_for("the handshake arrives", LIMIT, || world.peer.heads().len() == 1);
    assert_eq!(world.peer.after(), "");
    go.send(()).unwrap();
    assert_eq!(client.answer().status, 101);
    assert_eq!(client.receive(early.len()), early);
    assert_eq!(world.peer.heads().len(), 1);
}

#[test]
fn a6_foreign_origin_is_refused_before_anything_reaches_the_upstream() {
    let world = World::start_with(Answer::Echo, "websocket: { origins: [\"https://app.example\"] }\n", |_| {});
    for origin in [
        "https://evil.example",
        "https://shop.acme.example.evil.example",
        "null",
        "https://shop.acme.example:8443",
        "http://app.example",
    ] {
        world.check_refused("/public/x", &[("origin", origin), ("cookie", "session=ana")], 403, "origin_refused");
    }
    world.check_refused(
        "/public/x",
        &[("origin", "https://shop.acme.example"), ("origin", "https://evil.example")],
        403,
        "origin_refused",
    );
    for fields in [vec![], vec![("origin", "http://shop.acme.example")], vec![("origin", "https://app.example")]] {
        world.opened("/public/x", &fields);
    }
}

#[test]
fn a_service_may_take_no_websockets() {
    let world = World::start_with(
        Answer::Bytes("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok".into()),
        "websocket: deny\n",
        |_| {},
    );
    world.check_refused("/public/x", &[], 403, "websocket_refused");
    assert_eq!(world.serving.get("/public/x", None).text(), "ok");
}

/// The Close frame 1008, and nothing after it.
#[track_caller]
fn expect_policy_close(client: &mut Client) {
    assert_eq!(client.rest(), b"\x88\x02\x03\xf0", "Close 1008, then the end");
}

#[test]
fn a6_no_frame_after_the_rules_withdrew() {
    let mut world = World::start(Answer::Echo);
    let mut client = world.opened("/public/x", &[]);
    client.send("\x01\x02hi");
    assert_eq!(client.receive(4), "\x01\x02hi");
    let closed = world.setup.services[0].1.replace("who: anyone", "who: \"group:nobody\"");
    // A reload that changes nothing for it leaves it open.
    world.setup.services[0].1.push_str("limits: { body: 1MiB }\n");
    world.setup.write(world.serving.folder.path());
    world.serving.process.signal("HUP");
    testkit::wait_for("the reload", LIMIT, || world.serving.process.stderr().matches("loaded again").count() >= 1);
    client.send("\x01\x02ho");
    assert_eq!(client.receive(4), "\x01\x02ho");
    world.setup.services[0].1 = closed;
    world.setup.write(world.serving.folder.path());
    world.serving.process.signal("HUP");
    testkit::wait_for("the rules are in force", LIMIT, || world.serving.get("/public/x", None).status == 401);
    let _ = client.connection.write("late");
    expect_policy_close(&mut client);
    assert_eq!(world.peer.after(), "\x01\x02hi\x01\x02ho", "not one byte after the withdrawal");
    let end = world.ended();
    assert_eq!((&end["ended"], &end["bytes_in"]), (&json!("rules_changed"), &json!(8)));
    testkit::wait_for("the upstream's side ends too", LIMIT, || world.peer.ended() >= 1);
    assert!(world.serving.metrics().contains(r#"countersign_tunnels_ended_total{ended="rules_changed"} 1"#));
}

/// Who is believed about the caller changes who he is, also for what is open.
#[test]
fn a6_no_frame_once_the_proxy_that_spoke_for_the_caller_is_trusted_no_more() {
    let mut world = World::start_with(Answer::Echo, "", |setup| {
        setup.edge = "  trusted_proxies: { from: 127.0.0.1 }\n".into();
        setup.services[0].1 = setup.services[0].1.replace(
            "can: [\"GET,POST,PUT /public/**\"] }",
            "can: GET /public/**, when: context.client_ip.isInRange(ip(\"192.0.2.0/24\")) }",
        );
    });
    let spoken_for = [("x-forwarded-for", "192.0.2.7"), ("x-forwarded-proto", "http")];
    let mut client = world.opened("/public/x", &spoken_for);
    let reload = |world: &World, times: usize| {
        world.setup.write(world.serving.folder.path());
        world.serving.process.signal("HUP");
        testkit::wait_for("the reload", LIMIT, || {
            world.serving.process.stderr().matches("loaded again").count() >= times
        });
    };
    // One proxy more changes nothing for it.
    world.setup.edge = "  trusted_proxies: { from: [127.0.0.1, 10.0.0.0/8] }\n".into();
    reload(&world, 1);
    client.send("\x01\x02hi");
    assert_eq!(client.receive(4), "\x01\x02hi");
    world.setup.edge = "  trusted_proxies: { from: 10.0.0.0/8 }\n".into();
    reload(&world, 2);
    testkit::wait_for("the proxies are in force", LIMIT, || {
        world.serving.get_with("/public/x", None, &spoken_for).status == 401
    });
    let _ = client.connection.write("late");
    expect_policy_close(&mut client);
    assert_eq!(world.peer.after(), "\x01\x02hi", "not one byte after the withdrawal");
    assert_eq!(world.ended()["ended"], "rules_changed");
}

#[test]
fn a6_no_frame_after_the_token_ended() {
    let world = World::start_with(Answer::Echo, "", |setup| {
        setup.issuers = setup.issuers.replace("audience: [acme],", "audience: [acme], leeway: 0s,");
    });
    world.opened_signed_in(&world.token(&json!({})));
    let bearer = world.token(&json!({ "exp": testkit::unix_now() + 3 }));
    let mut client = world.opened("/orders/feed", &[("authorization", &bearer)]);
    client.send("\x01\x02hi");
    assert_eq!(client.receive(4), "\x01\x02hi");
    // Only the clock ends it: nobody sends anything.
    expect_policy_close(&mut client);
    assert_eq!(world.peer.after(), "\x01\x02hi");
    testkit::wait_for("its end is recorded", LIMIT, || {
        world.lines(3).iter().any(|line| line["ended"] == "token_expired")
    });
}

#[test]
fn a6_no_frame_after_the_issuers_key_was_withdrawn() {
    let world = World::start(Answer::Echo);
    let (kid, bearer) = (world.issuer.key().kid.clone(), world.token(&json!({})));
    let mut client = world.opened_signed_in(&bearer);
    client.send("\x01\x02hi");
    assert_eq!(client.receive(4), "\x01\x02hi");
    // A token of the new key makes the edge fetch. The old key is still published, and the WebSocket stays.
    world.issuer.rotate(testkit::issuer::OldKeys::Keep);
    world.opened_signed_in(&world.token(&json!({})));
    client.send("\x01\x02ho");
    assert_eq!(client.receive(4), "\x01\x02ho");
    let (code, text) = world.serving.command(&["keys", "kill", "id", &kid]);
    assert_eq!(code, 0, "{text}");
    testkit::wait_for("the killed key's token is refused", LIMIT, || {
        world.serving.get("/orders/1", bearer.strip_prefix("Bearer ")).status != 200
    });
    let _ = client.connection.write("late");
    expect_policy_close(&mut client);
    assert_eq!(world.peer.after(), "\x01\x02hi\x01\x02ho");
}

#[test]
fn a_silent_websocket_is_closed() {
    let world = World::start_with(Answer::Echo, "websocket: { idle_timeout: 1s }\n", |_| {});
    let mut client = world.opened("/public/x", &[]);
    client.send("\x01\x02hi");
    assert_eq!(client.receive(4), "\x01\x02hi");
    assert_eq!(client.rest(), b"\x88\x02\x03\xe9", "Close 1001");
    assert_eq!(world.ended()["ended"], "idle");
}

#[test]
fn a_websocket_at_sigterm_goes_on_until_the_drain_is_over() {
    let mut world = World::start_with(Answer::Echo, "", |setup| setup.edge.push_str("  timeouts: { drain: 2s }\n"));
    let mut client = world.opened("/public/x", &[]);
    world.serving.process.signal("TERM");
    world.serving.wait_log("drain");
    client.send("still here");
    assert_eq!(client.receive(10), "still here");
    client.rest();
    world.serving.process.wait(LIMIT);
    assert_eq!(world.ended()["ended"], "drain");
}
