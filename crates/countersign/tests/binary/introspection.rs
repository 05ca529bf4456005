//! Tokens that only their issuer can read, through the running binary: its word counts for half a minute, and without it
//! nobody is let in.
use crate::keys_of_issuers::Provider;
use crate::serving::{LIMIT, Serving, Setup};
use serde_json::{Value, json};
use testkit::issuer::{Fault, Issuer};
use testkit::upstream::Upstream;

struct World {
    issuer: Issuer,
    upstream: Upstream,
    serving: Serving,
}

impl World {
    fn start(more: &str) -> World {
        let (issuer, upstream) = (Issuer::start(), Upstream::start());
        let mut setup = Setup::new(&issuer.url(), &upstream.url());
        let introspection =
            format!(", introspection: {{ client_id: \"ed:ge\", client_secret_file: secret{more} }} }}\n");
        setup.issuers = setup.issuers.replace(" }\n", &introspection);
        setup.files.push(("secret".into(), b"s3cr+t %\n".to_vec()));
        let serving = setup.start();
        let world = World { issuer, upstream, serving };
        world.serving.wait_ready_for("/orders/1", &world.jwt_for_readiness());
        world
    }

    /// Keys are there once a JWT is accepted; with `tokens: all` the issuer has to agree.
    fn jwt_for_readiness(&self) -> String {
        self.issuer.introspect_as(active(json!({ "iss": self.issuer.url() })));
        self.issuer.token("ana", "acme", &json!({ "groups": ["support"] }))
    }

    fn says(&self, changes: Value) {
        self.issuer.introspect_as(active(changes));
    }

    #[track_caller]
    fn refuse(&self, token: &str, status: u16, reason: &str) {
        let before = self.upstream.count();
        self.serving.expect(&self.serving.get("/orders/1", Some(token)), status, reason);
        assert_eq!(self.upstream.count(), before);
    }

    fn questions(&self) -> usize {
        self.issuer.introspected().len()
    }
}

fn active(changes: Value) -> Value {
    let base = json!({
        "active": true, "token_type": "Bearer", "sub": "ana", "client_id": "web", "aud": "acme", "groups": ["support"],
        "exp": 4_000_000_000_i64
    });
    testkit::signing::overlay(base, &changes)
}

#[test]
fn api_65_an_opaque_token_is_what_its_issuer_says_and_asked_about_once() {
    let world = World::start("");
    let before = world.questions();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| assert_eq!(world.serving.get("/orders/1", Some("opaque-1")).status, 200));
        }
    });
    let asked = world.issuer.introspected();
    assert_eq!(asked.len(), before + 1, "one question for all workers and requests");
    let question = asked.last().unwrap();
    assert_eq!(question.form, "token=opaque-1&token_type_hint=access_token");
    // base64 of `ed%3Age:s3cr%2Bt%20%25` (RFC 6749 §2.3.1)
    assert_eq!(question.authorization, "Basic ZWQlM0FnZTpzM2NyJTJCdCUyMCUyNQ==");
    let answer = world.serving.get("/orders/1", Some("opaque-1"));
    let record = world.serving.record(&answer);
    assert_eq!(
        (&record["principal"]["subject"], &record["token"]["facts"]["algorithm"]),
        (&json!("id|ana"), &json!("introspection"))
    );
    let everything = std::fs::read_to_string(world.serving.audit_file()).unwrap() + &world.serving.process.stderr();
    assert!(!everything.contains("opaque-1") && !everything.contains("s3cr"), "{everything}");
    world.says(json!({ "groups": ["finance"] }));
    world.refuse("opaque-2", 403, "no_rule_matched");
}

#[test]
fn api_65_an_answer_that_does_not_say_an_access_token_for_us_lets_nobody_in() {
    let world = World::start("");
    for (at, (changes, reason)) in [
        (json!({ "active": false }), "token_inactive"),
        (json!({ "active": "true" }), "token_inactive"),
        (json!({ "active": null }), "token_inactive"),
        (json!({ "aud": "billing" }), "audience_wrong"),
        (json!({ "aud": null }), "audience_wrong"),
        (json!({ "exp": 1 }), "expired"),
        (json!({ "nbf": 4_000_000_000_i64 }), "not_yet_valid"),
        (json!({ "iss": "https://evil.example" }), "issuer_unknown"),
        (json!({ "token_type": "refresh_token" }), "token_kind"),
        (json!({ "token_type": null }), "token_kind"),
        (json!({ "cnf": { "jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I" } }), "sender_constrained"),
    ]
    .into_iter()
    .enumerate()
    {
        world.says(changes);
        world.refuse(&format!("odd-{at}"), 401, reason);
    }
    world.says(json!({}));
    assert_eq!(world.serving.get("/orders/1", Some("good")).status, 200);
    // A no is remembered too, so that a bad token cannot be used to make us ask and ask.
    let before = world.questions();
    world.says(json!({ "active": false }));
    (0..5).for_each(|_| world.refuse("off", 401, "token_inactive"));
    assert_eq!(world.questions(), before + 1);
}

#[test]
fn api_89_an_issuer_that_cannot_be_asked_lets_nobody_in() {
    let world = World::start("");
    world.says(json!({}));
    assert_eq!(world.serving.get("/orders/1", Some("known")).status, 200);
    let faults = [
        Fault::Status(500),
        Fault::Status(401),
        Fault::Html,
        Fault::Close,
        Fault::Huge,
        Fault::Hang,
        Fault::Slowloris,
        Fault::Redirect("http://127.0.0.1:1/".into()),
        Fault::Body("{\"active\":true,\"active\":true}".into()),
        Fault::Body("[true]".into()),
    ];
    for (at, fault) in faults.into_iter().enumerate() {
        world.issuer.misbehave_in_introspection(fault.clone());
        world.refuse(&format!("unknown-{at}"), 503, "introspection_unavailable");
        assert_eq!(world.serving.get("/orders/1", Some("known")).status, 200, "{fault:?}: known for less than 30 s");
    }
    world.issuer.introspect_as_text("text/html", &active(json!({})).to_string());
    world.refuse("html", 503, "introspection_unavailable");
    world.issuer.misbehave_in_introspection(Fault::None);
    testkit::wait_for("it heals by itself", LIMIT, || world.serving.get("/orders/1", Some("html")).status == 200);
    world.issuer.down();
    world.refuse("later", 503, "introspection_unavailable");
    let jwt = world.issuer.token("ben", "acme", &json!({ "groups": ["support"] }));
    assert_eq!(world.serving.get("/orders/1", Some(&jwt)).status, 200, "JWTs need nobody's word");
}

#[test]
fn api_65_where_answers_must_be_signed_no_other_is_taken() {
    let world = World::start(", signed: required");
    let now = testkit::dpop::claims("GET", "x", "")["iat"].clone();
    let signed = |typ: &str, changes: Value| {
        let claims =
            json!({ "iss": world.issuer.url(), "aud": "ed:ge", "iat": now, "token_introspection": active(json!({})) });
        world.issuer.mint(&json!({ "typ": typ }), &testkit::signing::overlay(claims, &changes))
    };
    let media = "application/token-introspection+jwt";
    let check = |token: &str, text: &str, good: bool| {
        world.issuer.introspect_as_text(media, text);
        match good {
            true => assert_eq!(world.serving.get("/orders/1", Some(token)).status, 200),
            false => world.refuse(token, 503, "introspection_unavailable"),
        }
    };
    check("a", &signed("token-introspection+jwt", json!({})), true);
    assert_eq!(world.issuer.introspected().last().unwrap().accept, media);
    check("b", &signed("at+jwt", json!({})), false);
    check("c", &signed("token-introspection+jwt", json!({ "aud": "other" })), false);
    check("d", &signed("token-introspection+jwt", json!({ "iss": "https://evil.example" })), false);
    check("e", &signed("token-introspection+jwt", json!({ "iat": 1 })), false);
    check("f", &active(json!({})).to_string(), false);
    world.issuer.misbehave_in_introspection(Fault::None);
    world.refuse("g", 503, "introspection_unavailable");
}

#[test]
fn api_65_with_tokens_all_a_revoked_jwt_is_refused() {
    let world = World::start(", tokens: all");
    let jwt = |name: &str| world.issuer.token(name, "acme", &json!({ "groups": ["support"] }));
    world.says(json!({}));
    assert_eq!(world.serving.get("/orders/1", Some(&jwt("ana"))).status, 200);
    world.says(json!({ "active": false, "sub": "ben" }));
    world.refuse(&jwt("ben"), 401, "token_inactive");
    world.says(json!({ "sub": "somebody else" }));
    world.refuse(&jwt("cem"), 401, "token_inactive");
    world.issuer.misbehave_in_introspection(Fault::Status(500));
    world.refuse(&jwt("dan"), 503, "introspection_unavailable");
}

/// A certified provider asks its clients for assertions of each kind, and takes ours; a foreign key it refuses.
#[test]
fn a_real_provider_knows_us_by_our_key() {
    let mut provider = Provider::start(0);
    let upstream = Upstream::start();
    for client in ["ES256", "RS256", "PS256"] {
        let pem: String = serde_json::from_str(&provider.ask(&format!("client-key {client}"))).unwrap();
        let mut setup = Setup::new(&provider.url, &upstream.url());
        setup.issuers = format!(
            "  id: {{ issuer: \"{}\", audience: [\"urn:opaque\"], claims: {{ groups: groups }}, introspection: \
             {{ client_id: {client}, client_auth: {{ private_key_file: key.pem, algorithm: {client} }} }} }}\n",
            provider.url
        );
        setup.files.push(("key.pem".into(), pem.clone().into_bytes()));
        let serving = setup.start();
        for _ in 0..2 {
            let token = provider.token_for("support", "urn:opaque");
            assert_eq!(serving.get("/orders/1", Some(&token)).status, 200, "each assertion is new: {client}");
        }
        serving.expect(&serving.get("/orders/1", Some("invented")), 401, "token_inactive");
        assert!(!serving.process.stderr().contains("PRIVATE KEY") && !serving.process.stderr().contains("eyJ"));

        // A key that the provider does not know, taken by a reload.
        let foreign = rcgen::KeyPair::generate_for(match client {
            "ES256" => &rcgen::PKCS_ECDSA_P256_SHA256,
            _ => &rcgen::PKCS_RSA_SHA256,
        });
        setup.files = vec![("key.pem".into(), foreign.unwrap().serialize_pem().into_bytes())];
        setup.write(serving.folder.path());
        testkit::wait_for("the foreign key is refused", LIMIT, || {
            serving.get("/orders/1", Some(&provider.token_for("support", "urn:opaque"))).status == 503
        });
        let token = provider.token_for("support", "urn:opaque");
        serving.expect(&serving.get("/orders/1", Some(&token)), 503, "introspection_unavailable");
        serving.wait_log("are `client_id` and its secret or key right?");
    }
}

/// A certified provider's opaque tokens; then the provider is killed.
#[test]
fn api_89_a_real_providers_opaque_tokens_and_then_it_is_gone() {
    let mut provider = Provider::start(0);
    let upstream = Upstream::start();
    let mut setup = Setup::new(&provider.url, &upstream.url());
    setup.issuers = format!(
        "  id: {{ issuer: \"{}\", audience: [\"urn:opaque\"], claims: {{ groups: groups }}, \
         introspection: {{ client_id: nobody, client_secret_file: secret }} }}\n",
        provider.url
    );
    setup.files.push(("secret".into(), b"secret".to_vec()));
    let serving = setup.start();
    let token = provider.token_for("support", "urn:opaque");
    assert!(!token.contains('.'), "opaque");
    let answer = serving.get("/orders/1", Some(&token));
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(serving.record(&answer)["principal"]["subject"], "id|support");
    assert_eq!(serving.get("/orders/1", Some(&provider.token_for("finance", "urn:opaque"))).status, 403);
    serving.expect(&serving.get("/orders/1", Some("invented")), 401, "token_inactive");
    serving.expect(&serving.get("/orders/1", Some(&provider.token_for("support", "urn:acme"))), 401, "audience_wrong");
    let stats: Value = serde_json::from_str(&provider.ask("stats")).unwrap();
    assert_eq!(stats["introspection"], 3, "{stats}");
    let unseen = provider.token_for("support", "urn:opaque");
    drop(provider);
    serving.expect(&serving.get("/orders/1", Some(&unseen)), 503, "introspection_unavailable");
    assert_eq!(serving.get("/orders/1", Some(&token)).status, 200, "known for less than 30 s");
}
