//! The token endpoint under whoever is not let in, asks in another way than he must, or wants more than his token says.
use std::time::{Duration, SystemTime};

use crate::serving::LIMIT;
use crate::token_endpoint::{BATCH, GATEWAY, World, check_fields, parameters};
use serde_json::{Value, json};
use testkit::client::Response;
use testkit::dpop;
use testkit::issuer::{Fault, Issuer};
use testkit::process::Process;
use testkit::signing::{Kind, SigningKey};
use testkit::tls::Ca;

fn edited(world: &World, change: impl FnOnce(&mut Vec<(&'static str, String)>)) -> Response {
    let mut asked = parameters(&world.token(&json!({})), "orders.read", "GET", "/orders/42");
    change(&mut asked);
    world.send(Some("gateway"), &asked)
}

fn set(asked: &mut Vec<(&'static str, String)>, name: &'static str, value: &str) {
    asked.retain(|(known, _)| *known != name);
    asked.push((name, value.to_owned()));
}

#[test]
fn svid_nobody_comes_in_without_a_certificate_of_a_workload_of_ours() {
    let world = World::start();
    let foreign = Ca::new();
    let ended = SystemTime::now() - Duration::from_secs(3600);
    world.add("stranger", &foreign.svid(&[GATEWAY], &[]));
    world.add("nameless", &world.ca.server(&["gateway"]));
    world.add("two", &world.ca.svid(&[GATEWAY, BATCH], &[]));
    world.add("web", &world.ca.svid(&["https://acme.example/gateway"], &[]));
    world.add("other-domain", &world.ca.svid(&["spiffe://other.example/gateway/eu-1"], &[]));
    world.add("look-alike", &world.ca.svid(&["spiffe://acme.example.evil.example/gateway"], &[]));
    world.add("domain-itself", &world.ca.svid(&["spiffe://acme.example"], &[]));
    world.add("ended", &world.ca.svid_until(&[GATEWAY], &[], Some(ended)));
    let outside =
        ["stranger", "nameless", "two", "web", "other-domain", "look-alike", "domain-itself", "ended"].map(Some);
    for who in outside.into_iter().chain([None]) {
        let answer = world.curl(who, "/token", &["-d", "grant_type=x"]);
        assert!(answer.is_err(), "{who:?}: {}", answer.unwrap().text());
    }
    assert!(world.curl(Some("gateway"), "/token", &["--tls-max", "1.2", "-d", "grant_type=x"]).is_err(), "TLS 1.2");
    assert_eq!(world.curl(Some("gateway"), "/token", &["-d", "grant_type=x"]).unwrap().status, 400);
    world.serving.wait_log("is no X.509-SVID of ours");
    let counted = "countersign_refusals_total{kind=\"handshake\"} 10";
    testkit::wait_for("they are counted", LIMIT, || world.serving.metrics().contains(counted));
}

#[test]
fn a_workload_that_is_not_listed_gets_nothing_and_fills_no_disk() {
    let world = World::start();
    let token = world.token(&json!({}));
    world.serving.command(&["audit", "verify"]);
    let before = std::fs::read_to_string(world.serving.audit_file()).unwrap().lines().count();
    for (who, id) in [
        ("near", "spiffe://acme.example/gateway2"),
        ("above", "spiffe://acme.example/shop"),
        ("below-exact", "spiffe://acme.example/shop/batch/2"),
        ("edge", "spiffe://acme.example/edge"),
    ] {
        world.add(who, &world.ca.svid(&[id], &[]));
        let answer = world.ask_as(who, &token, "GET", "/orders/1");
        assert_eq!((answer.status, &answer.json()["error"]), (400, &json!("unauthorized_client")), "{id}");
        assert!(answer.field("countersign-decision").is_none());
        check_fields(&answer);
    }
    world.serving.wait_log("is not among `token_endpoint.callers`");
    assert!(world.serving.metrics().contains("countersign_refusals_total{kind=\"token_caller\"} 4"));
    // However much he sends, he is answered before it is read.
    let huge = world.serving.folder.path().join("huge");
    std::fs::write(&huge, vec![b'x'; 300_000]).unwrap();
    let huge = format!("@{}", huge.display());
    for more in [&[][..], &["-H", "Expect: 100-continue"], &["-H", "transfer-encoding: chunked"]] {
        let answer = world.curl(Some("near"), "/token", &[more, &["--data-binary", &huge]].concat()).unwrap();
        assert_eq!(answer.json()["error"], "unauthorized_client", "{more:?}");
    }
    let form = "x".repeat(60_000);
    let shown = [&HTTP_2[..], &["--data-binary", &form]].concat();
    assert_eq!(over_http_2(&world, "near", "/token", &shown), "400");
    let after = std::fs::read_to_string(world.serving.audit_file()).unwrap().lines().count();
    assert_eq!(before, after, "strangers fill no disk");
}

#[test]
fn a_caller_that_is_taken_off_the_list_gets_nothing_more_on_the_connection_he_has() {
    let world = World::start();
    let mut client = openssl(&world, "gateway");
    let request = "GET /token HTTP/1.1\r\nhost: localhost\r\n\r";
    client.write_line(request);
    testkit::wait_for("he is let in", LIMIT, || client.stdout().contains("HTTP/1.1 405"));
    let config = world.serving.folder.path().join("countersign.yaml");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, crate::authz::replaced(text, "callers: [/gateway, ", "callers: [")).unwrap();
    testkit::wait_for("he is known no longer", LIMIT, || {
        client.write_line(request);
        client.stdout().contains("unauthorized_client")
    });
    let token = world.token(&json!({}));
    assert_eq!(world.ask(&token, "GET", "/orders/1").json()["error"], "unauthorized_client");
    world.granted(&world.ask_as("batch", &token, "POST", "/orders/1"));
}

/// The certificate ends while the connection stays.
#[test]
fn m12_a_caller_whose_certificate_ended_is_refused_on_the_connection_he_has() {
    let world = World::start();
    let end = SystemTime::now() + Duration::from_secs(3);
    world.add("brief", &world.ca.svid_until(&[GATEWAY], &[], Some(end)));
    let mut client = openssl(&world, "brief");
    let request = "GET /token HTTP/1.1\r\nhost: localhost\r\n\r";
    client.write_line(request);
    testkit::wait_for("an answer", LIMIT, || client.stdout().contains("405"));
    testkit::wait_for("the certificate is no longer taken", LIMIT, || {
        client.write_line(request);
        let seen = client.stdout();
        seen.contains("HTTP/1.1 401") && seen.contains("invalid_client")
    });
}

const HTTP_2: [&str; 5] = ["--http2", "-o", "/dev/null", "-w", "HTTP/1.1 %{http_code} %{http_version}\r\n\r\n"];

/// The status that curl shows.
fn over_http_2(world: &World, who: &str, target: &str, more: &[&str]) -> String {
    let shown = world.curl(Some(who), target, more).unwrap();
    let text = String::from_utf8_lossy(&shown.head).into_owned();
    let status = text.trim().strip_prefix("HTTP/1.1 ").and_then(|rest| rest.strip_suffix(" 2"));
    status.unwrap_or_else(|| panic!("{text}")).to_owned()
}

/// A TLS connection that sends what is written to it.
fn openssl(world: &World, who: &str) -> Process {
    let path = |name: &str| world.serving.folder.path().join(name).display().to_string();
    let (address, certificate, key) =
        (world.door.to_string(), path(&format!("{who}.pem")), path(&format!("{who}.key")));
    let arguments = ["s_client", "-connect", &address, "-servername", "localhost", "-cert", &certificate, "-key", &key];
    Process::start("openssl", &[&arguments[..], &["-quiet", "-CAfile", &path("server-ca.pem")]].concat())
}

#[test]
fn what_is_no_request_for_a_token_is_told_so() {
    let world = World::start();
    let check = |target: &str, more: &[&str], expected: (u16, &str), reason: &str| {
        let answer = world.curl(Some("gateway"), target, more).unwrap();
        world.refused(&answer, expected, reason);
        answer
    };
    let malformed = "exchange_malformed";
    let get = check("/token", &[], (405, "invalid_request"), malformed);
    assert_eq!(get.field("allow"), Some("POST"));
    check("/token", &["-X", "PUT", "-d", "a=b"], (405, "invalid_request"), malformed);
    check("/", &["-d", "a=b"], (404, "invalid_request"), malformed);
    check("/token/", &["-d", "a=b"], (404, "invalid_request"), malformed);
    check("/orders/1", &[], (404, "invalid_request"), malformed);
    check("/token?scope=x", &["-d", "a=b"], (400, "invalid_request"), malformed);
    check("/token", &["-H", "content-type: application/json", "-d", "{}"], (400, "invalid_request"), malformed);
    check("/token", &["-H", "content-type: text/plain", "-d", "a=b"], (400, "invalid_request"), malformed);
    check("/token", &["-H", "content-encoding: gzip", "-d", "a=b"], (400, "invalid_request"), malformed);
    check("/token", &["-u", "client:secret", "-d", "a=b"], (400, "invalid_request"), malformed);
    check("/token", &["-H", "authorization: Bearer x", "-d", "a=b"], (400, "invalid_request"), malformed);
    check("/token", &["-d", ""], (400, "invalid_request"), malformed);
    check("/token", &["-d", "%zz"], (400, "invalid_request"), malformed);
    let form = "x".repeat(60_000);
    let json = ["-H", "content-type: application/json", "--data-binary", &form];
    for (target, more, status) in
        [("/token", &json[..], "400"), ("/token", &["-X", "PUT", "-d", &form], "405"), ("/else", &["-d", &form], "404")]
    {
        assert_eq!(over_http_2(&world, "gateway", target, &[&HTTP_2[..], more].concat()), status, "{target}");
    }
}

#[test]
fn a_body_too_large_or_too_slow_ends_and_is_recorded() {
    let world = World::start_with("  timeouts: { header: 1s }\n", |_| {});
    std::fs::write(world.serving.folder.path().join("huge"), "subject_token=".to_owned() + &"x".repeat(70_000))
        .unwrap();
    let huge = format!("@{}", world.serving.folder.path().join("huge").display());
    let answer = world.curl(Some("gateway"), "/token", &["--data-binary", &huge]).unwrap();
    world.refused(&answer, (413, "invalid_request"), "body_too_large");
    let chunked = world.curl(Some("gateway"), "/token", &["-H", "transfer-encoding: chunked", "--data-binary", &huge]);
    world.refused(&chunked.unwrap(), (413, "invalid_request"), "body_too_large");
    let waiting = ["-H", "Expect: 100-continue", "--data-binary", &huge];
    world.refused(
        &world.curl(Some("gateway"), "/token", &waiting).unwrap(),
        (413, "invalid_request"),
        "body_too_large",
    );
    // One byte after the other, none of them late.
    let mut client = openssl(&world, "gateway");
    client.write_line(
        "POST /token HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/x-www-form-urlencoded\r\n\
         content-length: 60000\r\n\r",
    );
    testkit::wait_for("it is cut off", LIMIT, || {
        // Once it is cut off, nobody reads any more.
        let _gone = client.try_write_line("x");
        client.stdout().contains("HTTP/1.1 408")
    });
    let head = client.stdout() + "\r\n";
    let answer = testkit::client::parse(head.as_bytes()).unwrap();
    assert_eq!(world.serving.record(&answer)["reason"], "request_timeout");
}

#[test]
fn a_missing_doubled_or_wrong_parameter_is_refused_with_the_error_of_the_standard() {
    let world = World::start();
    let check = |name: &'static str, value: &str, error: &str, reason: &str| {
        let answer = edited(&world, |asked| set(asked, name, value));
        let record = world.refused(&answer, (400, error), reason);
        assert_eq!(record["decision"], "refuse", "{name}={value}");
        assert_eq!(record["request"]["peer"], GATEWAY, "who asked is known at once");
        assert!(answer.field("countersign-status").is_none_or(|_| name == "scope"), "{name}");
    };
    let malformed = "exchange_malformed";
    for name in ["grant_type", "audience", "scope", "requested_token_type", "subject_token", "request_details"] {
        check(name, "", "invalid_request", malformed);
        let answer = edited(&world, |asked| {
            let value = asked.iter().find(|(known, _)| *known == name).unwrap().1.clone();
            asked.push((name, value));
        });
        world.refused(&answer, (400, "invalid_request"), malformed);
    }
    check("grant_type", "client_credentials", "unsupported_grant_type", "grant_unsupported");
    check("audience", "other.example", "invalid_target", "target_wrong");
    check("resource", "https://shop.acme.example", "invalid_target", "target_wrong");
    check("scope", "orders.read orders.write", "invalid_scope", "scope_refused");
    check("client_id", BATCH, "invalid_request", malformed);
    check("client_secret", "x", "invalid_request", malformed);
    check("client_assertion", "x", "invalid_request", malformed);
    check("actor_token", "x", "invalid_request", malformed);
    let kinds = "urn:ietf:params:oauth:token-type:";
    check("requested_token_type", &format!("{kinds}access_token"), "invalid_request", "exchange_unsupported");
    for kind in ["refresh_token", "id_token", "txn_token", "self_signed", "unsigned_json", "saml2", "x"] {
        check("subject_token_type", &format!("{kinds}{kind}"), "invalid_request", "exchange_unsupported");
    }
    for details in [
        "no json",
        "[]",
        r#"{"method":"GET","path":"/orders/1"}"#,
        r#"{"method":"GET","method":"PUT","path":"/orders/1","host":"shop.acme.example"}"#,
        r#"{"method":"GET","path":"orders","host":"shop.acme.example"}"#,
        r#"{"method":"G T","path":"/orders/1","host":"shop.acme.example"}"#,
        r#"{"method":"GET","path":"/orders/1","host":"shop.acme.example/x"}"#,
        r#"{"method":"GET","path":"/orders/1","host":"shop.acme.example","amount":1}"#,
    ] {
        check("request_details", details, "invalid_request", malformed);
    }
    for context in [r#"{"req_ip":"here"}"#, r#"{"amr":["hwk"]}"#, r#"{"acr":"phrh"}"#, r#"{"sid":"x"}"#, "x"] {
        check("request_context", context, "invalid_request", malformed);
    }
}

#[test]
fn a5_no_spelling_of_a_path_gets_a_token_that_its_plain_form_would_not() {
    let world = World::start();
    let token = world.token(&json!({}));
    for path in crate::authz::PATHS {
        let answer = world.ask(&token, "GET", path);
        if answer.status == 200 {
            world.granted(&answer);
            let judged = world.serving.record(&answer)["request"]["path"].as_str().unwrap().to_owned();
            assert_eq!(path.split('?').next(), Some(judged.as_str()), "the bytes decided on are the bytes named");
            assert!(judged.starts_with("/orders/"), "{path}");
        } else {
            assert_eq!(answer.status, 400, "{path}: {}", answer.text());
        }
    }
    for method in ["get", "TRACE", "CONNECT"] {
        let answer = world.ask(&token, method, "/orders/1");
        world.refused(&answer, (400, "invalid_request"), "request_malformed");
    }
}

#[test]
fn no_scope_is_granted_beyond_the_rules_or_beyond_the_subject_token() {
    let world = World::start();
    let ask = |token: &str, scope: &str| world.send(Some("gateway"), &parameters(token, scope, "GET", "/orders/1"));
    let check = |answer: &Response, reason: &str| {
        world.refused(answer, (400, "invalid_scope"), reason);
        assert_eq!(answer.field("countersign-status"), Some("403"));
    };
    let token = world.token(&json!({}));
    check(&ask(&token, "orders.write"), "scope_refused");
    check(&ask(&token, "openid"), "scope_refused");
    check(&ask(&token, "admin"), "scope_refused");
    check(&ask(&token, "ORDERS.READ"), "scope_refused");
    for scope in [json!("openid"), json!("orders.write"), json!("orders.readonly orders.*"), json!(""), json!([])] {
        check(&ask(&world.token(&json!({ "scope": scope })), "orders.read"), "scope_refused");
    }
    // The issuer says that there are scopes, and not which.
    let elsewhere = json!({ "scope": null, "_claim_names": { "scope": "src1" }, "_claim_sources": { "src1": {} } });
    let mut claims = world.issuer.claims("ana", "acme", &json!({ "groups": ["support"], "scp": null }));
    claims.as_object_mut().unwrap().extend(elsewhere.as_object().unwrap().clone());
    let header = json!({ "typ": "at+jwt", "alg": "ES256", "kid": world.issuer.key().kid });
    check(&ask(&world.issuer.key().sign(&header, &claims), "orders.read"), "scope_unknown");
}

#[test]
fn a_subject_token_that_the_edge_would_not_take_is_not_taken_here() {
    let world = World::start();
    let check = |token: &str, reason: &str| {
        let answer = world.ask(token, "GET", "/orders/1");
        world.refused(&answer, (400, "invalid_request"), reason);
        assert_eq!(answer.field("countersign-status"), Some("401"), "{reason}");
        answer.json()["error_description"].as_str().unwrap().to_owned()
    };
    let now = testkit::unix_now();
    let expired = check(&world.token(&json!({ "iat": now - 900, "exp": now - 600 })), "expired");
    let other = check(&world.token(&json!({ "aud": "other" })), "audience_wrong");
    assert_eq!(expired, other, "which check failed is in the record alone");
    check(&Issuer::start().token("ana", "acme", &json!({ "scope": "orders.read" })), "issuer_unknown");
    let good = world.token(&json!({}));
    let (signed, _) = good.rsplit_once('.').unwrap();
    check(&format!("{signed}.{}", testkit::signing::base64url([7; 64])), "signature_bad");
    check(signed, "token_malformed");
    check(&format!("{good} "), "token_malformed");
    check("opaque", "token_malformed");
    check(&format!("Bearer {good}"), "token_malformed");
    // Good at first, and expired when it comes from the cache.
    let brief = world.token(&json!({ "exp": testkit::unix_now() - 58 }));
    testkit::wait_for("its leeway ends", LIMIT, || world.ask(&brief, "GET", "/orders/1").status == 400);
    check(&brief, "expired");
}

#[test]
fn a8_no_other_kind_of_token_is_exchanged() {
    let world = World::start();
    let check = |header: &Value, extra: &Value| {
        let over = testkit::signing::overlay(json!({ "groups": ["support"], "scope": "orders.read" }), extra);
        let claims = world.issuer.claims("ana", "acme", &over);
        let mut header = header.clone();
        header["kid"] = json!(world.issuer.key().kid);
        header["alg"] = json!("ES256");
        let answer = world.ask(&world.issuer.key().sign(&header, &claims), "GET", "/orders/1");
        world.refused(&answer, (400, "invalid_request"), "token_kind");
    };
    let jwt = json!({ "typ": "JWT" });
    check(&jwt, &json!({ "nonce": "n", "at_hash": "x" }));
    check(&jwt, &json!({ "sub": "spiffe://acme.example/shop/web" }));
    check(&json!({ "typ": "logout+jwt" }), &json!({ "events": {} }));
    check(&json!({ "typ": "secevent+jwt" }), &json!({ "events": {} }));
    check(&json!({ "typ": "dpop+jwt" }), &json!({ "htm": "GET", "htu": "https://a" }));
    check(&json!({ "typ": "txntoken+jwt" }), &json!({ "req_wl": "spiffe://acme.example/edge" }));
    check(&jwt, &json!({ "sub": world.issuer.url() }));
    // Our own token, however it is called.
    let own =
        world.ask(&world.token(&json!({})), "GET", "/orders/1").json()["access_token"].as_str().unwrap().to_owned();
    let answer = world.ask(&own, "GET", "/orders/1");
    let reason = world.serving.record(&answer)["reason"].as_str().unwrap().to_owned();
    assert_eq!((answer.status, reason.as_str()), (400, "issuer_unknown"));
}

#[test]
fn api_66_a_bound_subject_token_is_taken_only_from_whom_it_is_bound_to() {
    let world = World::start();
    let check = |token: &str| {
        world.refused(&world.ask(token, "GET", "/orders/1"), (400, "invalid_request"), "sender_constrained");
    };
    let key = SigningKey::generate(Kind::Es256, "client");
    let dpop_bound = world.token(&json!({ "cnf": { "jkt": dpop::thumbprint(&key) } }));
    check(&dpop_bound);
    // A proof sent along proves nothing here: it is for another URL, and another sender.
    let proof = format!(
        "DPoP: {}",
        dpop::proof(&key, "POST", &format!("https://localhost:{}/token", world.door.port()), &dpop_bound)
    );
    let pairs: Vec<String> = parameters(&dpop_bound, "orders.read", "GET", "/orders/1")
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let mut more = vec!["-H", proof.as_str()];
    pairs.iter().for_each(|pair| more.extend(["--data-urlencode", pair.as_str()]));
    let answer = world.curl(Some("gateway"), "/token", &more).unwrap();
    world.refused(&answer, (400, "invalid_request"), "sender_constrained");

    let own = world.ca.svid(&[GATEWAY], &[]);
    world.add("own", &own);
    let bound = world.token(&json!({ "cnf": { "x5t#S256": testkit::tls::sha256(&own) } }));
    check(&bound);
    world.granted(&world.ask_as("own", &bound, "GET", "/orders/1"));
    let both = json!({ "cnf": { "x5t#S256": testkit::tls::sha256(&own), "jkt": dpop::thumbprint(&key) } });
    let answer = world.ask_as("own", &world.token(&both), "GET", "/orders/1");
    world.refused(&answer, (400, "invalid_request"), "sender_constrained");
}

#[test]
fn api_66_a_service_that_wants_bound_tokens_gets_no_token_for_a_plain_one() {
    let world = World::start_with("", |setup| {
        setup.services[0].1 =
            setup.services[0].1.replace("service: orders", "service: orders\nsender_constrained: required");
    });
    let answer = world.ask(&world.token(&json!({})), "GET", "/orders/1");
    world.refused(&answer, (400, "invalid_request"), "sender_constrained");
    let own = world.ca.svid(&[GATEWAY], &[]);
    world.add("own", &own);
    let bound = world.token(&json!({ "cnf": { "x5t#S256": testkit::tls::sha256(&own) } }));
    let txn = world.granted(&world.ask_as("own", &bound, "GET", "/orders/1"));
    assert_eq!(txn.claims()["rctx"]["cnf"]["x5t#S256"], testkit::tls::sha256(&own), "what was proved is said");
}

#[test]
fn a_parameter_that_a_rule_reads_is_that_of_the_request_named() {
    let world = World::start_with("", |setup| {
        let small =
            "  - { name: small sums, who: signed-in, can: GET /sums/**, when: context.request.params.amount <= 500 }\n";
        setup.services[0].1 = setup.services[0].1.replace("never:\n", &format!("{small}never:\n"));
    });
    let token = world.token(&json!({}));
    world.granted(&world.ask(&token, "GET", "/sums/1?amount=500"));
    world.refused(&world.ask(&token, "GET", "/sums/1?amount=501"), (400, "access_denied"), "no_rule_matched");
    for query in ["", "?amount=many", "?amount=1&amount=501"] {
        let answer = world.ask(&token, "GET", &format!("/sums/1{query}"));
        world.refused(&answer, (400, "access_denied"), "policy_error");
    }
}

#[test]
fn while_the_keys_are_not_there_nothing_is_exchanged() {
    let issuer = Issuer::start();
    issuer.misbehave(Fault::Status(500));
    let world = World::without_keys(issuer, "", |_| {});
    let answer = world.ask(&world.token(&json!({})), "GET", "/orders/1");
    world.refused(&answer, (503, "temporarily_unavailable"), "keys_unavailable");
    assert!(answer.field("retry-after").is_some());
    world.issuer.misbehave(Fault::None);
    let healed = |answer: &Response| answer.status == 200;
    testkit::wait_for("it heals", LIMIT, || healed(&world.ask(&world.token(&json!({})), "GET", "/orders/1")));
}

#[test]
fn a10_what_cannot_be_recorded_is_not_given_out_for_strict_services() {
    let world = World::start_with("", |setup| {
        setup.services[0].1 = setup.services[0].1.replace("service: orders", "service: orders\naudit: strict");
    });
    let token = world.token(&json!({}));
    std::fs::rename(world.serving.audit_file(), world.serving.folder.path().join("state/disk")).unwrap();
    std::os::unix::fs::symlink("/dev/full", world.serving.audit_file()).unwrap();
    testkit::wait_for("it is refused", LIMIT, || world.ask(&token, "GET", "/orders/1").status == 503);
    let answer = world.ask(&token, "GET", "/orders/1");
    assert_eq!((answer.status, &answer.json()["error"]), (503, &json!("temporarily_unavailable")));
    assert!(answer.json().get("access_token").is_none());
}

#[test]
fn no_record_and_no_log_line_holds_a_token_that_was_exchanged() {
    let world = World::start();
    let token = world.token(&json!({}));
    let granted = world.ask(&token, "GET", "/orders/1").json()["access_token"].as_str().unwrap().to_owned();
    edited(&world, |asked| set(asked, "scope", &token));
    edited(&world, |asked| set(asked, "audience", &token));
    edited(&world, |asked| set(asked, "request_details", &format!("{{\"method\":\"{token}\"}}")));
    world.ask(&format!("{token}x"), "GET", "/orders/1");
    world.ask(&token[1..], "GET", "/orders/1");
    world.curl(Some("gateway"), "/token", &["-d", &token]).unwrap();
    world.serving.command(&["audit", "verify"]);
    let seen = std::fs::read_to_string(world.serving.audit_file()).unwrap() + &world.serving.process.stderr();
    let part = |token: &str| token.split('.').next_back().unwrap()[..20].to_owned();
    for secret in ["eyJ".to_owned(), part(&token), part(&granted)] {
        assert!(!seen.contains(&secret), "{secret} in {seen}");
    }
    assert!(seen.contains("\"tth\""), "what was given out can be found by its hash");
}
