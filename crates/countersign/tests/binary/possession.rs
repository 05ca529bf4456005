//! Tokens that are bound to a key of their sender, through the running binary: the proof is asked of every request, and
//! nothing but the right one will do.
use crate::keys_of_issuers::Provider;
use crate::serving::{Serving, Setup};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use testkit::client::Response;
use testkit::dpop;
use testkit::issuer::Issuer;
use testkit::signing::{Kind, SigningKey};
use testkit::upstream::Upstream;

const URL: &str = "http://shop.acme.example/orders/1";
const ALGS: &str = "algs=\"ES256 ES384 ES512 EdDSA PS256 PS384 PS512 RS256 RS384 RS512\"";

struct World {
    issuer: Issuer,
    upstream: Upstream,
    serving: Serving,
    key: SigningKey,
    /// A good token, bound to `key`.
    token: String,
}

impl World {
    fn start() -> World {
        World::start_with(|_| {})
    }

    fn start_with(change: impl FnOnce(&mut Setup)) -> World {
        let (issuer, upstream) = (Issuer::start(), Upstream::start());
        let mut setup = Setup::new(&issuer.url(), &upstream.url());
        change(&mut setup);
        let serving = setup.start();
        let key = SigningKey::generate(Kind::Es256, "client");
        let bound = json!({ "groups": ["support"], "cnf": { "jkt": dpop::thumbprint(&key) } });
        let token = issuer.token("ana", "acme", &bound);
        let world = World { issuer, upstream, serving, key, token };
        testkit::wait_for("keys are there", crate::serving::LIMIT, || world.send(&[&world.proof(URL)]).status != 503);
        world
    }

    fn proof(&self, url: &str) -> String {
        dpop::proof(&self.key, "GET", url, &self.token)
    }

    fn claims(&self, changes: &Value) -> Value {
        testkit::signing::overlay(dpop::claims("GET", URL, &self.token), changes)
    }

    /// GET /orders/1 with the bound token and these `DPoP` fields.
    fn send(&self, proofs: &[&str]) -> Response {
        self.send_as("DPoP", &self.token, proofs)
    }

    fn send_as(&self, scheme: &str, token: &str, proofs: &[&str]) -> Response {
        let authorization = format!("{scheme} {token}");
        let mut fields = vec![("authorization", authorization.as_str())];
        fields.extend(proofs.iter().map(|proof| ("dpop", *proof)));
        self.serving.get_with("/orders/1", None, &fields)
    }

    /// Refused as `reason`, with the DPoP challenge that `error` gives, and never seen by the service.
    #[track_caller]
    fn refuse(&self, answer: &Response, reason: &str, error: &str) {
        let record = self.serving.expect(answer, 401, reason);
        assert_eq!(record["decision"], "refuse", "{record:#}");
        let expected = format!("DPoP realm=\"countersign\", error=\"{error}\", {ALGS}");
        assert_eq!(answer.field("www-authenticate"), Some(expected.as_str()));
    }

    #[track_caller]
    fn refuse_proof(&self, proof: &str) {
        let before = self.upstream.count();
        self.refuse(&self.send(&[proof]), "dpop_proof", "invalid_dpop_proof");
        assert_eq!(self.upstream.count(), before);
    }
}

#[test]
fn a_bound_token_with_its_proof_is_accepted_and_neither_reaches_the_service() {
    let world = World::start();
    let answer = world.send(&[&world.proof(URL)]);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let record = world.serving.record(&answer);
    assert_eq!(record["token"]["facts"]["bound"], "dpop", "{record:#}");
    let seen = world.upstream.last();
    assert_eq!((seen.field("dpop"), seen.field("authorization")), (None, None));
    let stamp = seen.field("txn-token").unwrap().split('.').nth(1).unwrap();
    let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(stamp).unwrap()).unwrap();
    assert_eq!(claims["rctx"]["cnf"], json!({ "jkt": dpop::thumbprint(&world.key) }), "what was proved is told");
    // From the cache of verified tokens the proof is asked for all the same.
    world.refuse(&world.send(&[]), "dpop_proof", "invalid_dpop_proof");
    assert_eq!(world.send(&[&world.proof("HTTP://SHOP.acme.example:80/x/../orders/1?page=2")]).status, 200);
}

#[test]
fn api_66_a_bound_token_sent_as_bearer_is_refused_with_and_without_its_proof() {
    let world = World::start();
    for proofs in [vec![], vec![world.proof(URL)]] {
        let proofs: Vec<&str> = proofs.iter().map(String::as_str).collect();
        let answer = world.send_as("Bearer", &world.token, &proofs);
        world.serving.expect(&answer, 401, "sender_constrained");
        assert_eq!(answer.field("www-authenticate"), Some("Bearer realm=\"countersign\", error=\"invalid_token\""));
        assert!(answer.fields.iter().any(|(name, value)| name.eq_ignore_ascii_case("www-authenticate")
            && value == &format!("DPoP realm=\"countersign\", {ALGS}")));
    }
    // The other way round: a token that is bound to nothing gains nothing by a proof.
    let plain = world.issuer.token("ana", "acme", &json!({ "groups": ["support"] }));
    let proof = dpop::proof(&world.key, "GET", URL, &plain);
    world.refuse(&world.send_as("DPoP", &plain, &[&proof]), "sender_constrained", "invalid_token");
    let answer = world.send_as("Bearer", &plain, &[&proof]);
    assert_eq!(answer.status, 200, "a proof beside a bearer token is nobody's business");
    assert_eq!(world.upstream.last().field("dpop"), None);
    // Another client's key.
    let thief = SigningKey::generate(Kind::Es256, "thief");
    let proof = dpop::proof(&thief, "GET", URL, &world.token);
    world.refuse(&world.send(&[&proof]), "sender_constrained", "invalid_token");
}

#[test]
fn api_67_a_proof_is_good_for_one_request() {
    let world = World::start();
    let proof = world.proof(URL);
    assert_eq!(world.send(&[&proof]).status, 200);
    for _ in 0..3 {
        world.refuse(&world.send(&[&proof]), "dpop_replayed", "invalid_dpop_proof");
    }
    let same_id = world.claims(&json!({ "jti": "once" }));
    assert_eq!(world.send(&[&dpop::sign(&world.key, &json!({}), &same_id)]).status, 200);
    let again = testkit::signing::overlay(same_id, &json!({ "more": 1 }));
    let again = dpop::sign(&world.key, &json!({}), &again);
    world.refuse(&world.send(&[&again]), "dpop_replayed", "invalid_dpop_proof");
    let two = [world.proof(URL), world.proof(URL)];
    world.refuse(&world.send(&[&two[0], &two[1]]), "dpop_proof", "invalid_dpop_proof");
    world.refuse_proof(&two.join(", "));
    assert_eq!(world.send(&[&two[0]]).status, 200, "a refused request used nothing up");
}

#[test]
fn api_67_a_proof_for_anything_else_is_refused() {
    let world = World::start();
    for url in [
        "http://shop.acme.example/orders/2",
        "http://shop.acme.example/Orders/1",
        "http://shop.acme.example/orders/1/",
        "http://shop.acme.example:8080/orders/1",
        "https://shop.acme.example/orders/1",
        "http://other.acme.example/orders/1",
        "/orders/1",
    ] {
        world.refuse_proof(&world.proof(url));
    }
    let now = dpop::claims("GET", URL, "")["iat"].as_i64().unwrap();
    for changes in [
        json!({ "htm": "POST" }),
        json!({ "iat": now - 600 }),
        json!({ "iat": now + 600 }),
        json!({ "ath": testkit::signing::base64url([0; 32]) }),
        json!({ "ath": null }),
        json!({ "jti": null }),
        json!({ "jti": "j".repeat(300) }),
    ] {
        world.refuse_proof(&dpop::sign(&world.key, &json!({}), &world.claims(&changes)));
    }
    let good = world.claims(&json!({}));
    let private = testkit::signing::overlay(dpop::public(&world.key), &json!({ "d": "AAAA" }));
    for header in [
        json!({ "typ": "JWT" }),
        json!({ "jwk": null }),
        json!({ "jwk": private }),
        json!({ "x5c": ["AAAA"] }),
        json!({ "jku": "https://evil.example/keys" }),
        json!({ "alg": "none" }),
        json!({ "alg": "HS256" }),
        json!({ "jwk": dpop::public(&SigningKey::generate(Kind::Es256, "other")) }),
    ] {
        world.refuse_proof(&dpop::sign(&world.key, &header, &good));
    }
    world.refuse_proof("");
    world.refuse_proof("a.b.c");
    assert_eq!(world.send(&[&world.proof(URL)]).status, 200);
}

#[test]
fn api_55_a_proof_is_no_access_token_and_an_access_token_no_proof() {
    let world = World::start();
    let proof = world.proof(URL);
    for scheme in ["Bearer", "DPoP"] {
        let answer = world.send_as(scheme, &proof, &[&proof]);
        world.serving.expect(&answer, 401, "token_header_forbidden");
    }
    world.refuse_proof(&world.token);
}

#[test]
fn api_67_where_nonces_are_required_a_proof_holds_the_one_that_was_given_out() {
    let world = World::start_with(|setup| {
        setup.issuers = setup.issuers.replace(" }\n", ", dpop: { nonce: required } }\n");
    });
    let with = |nonce: &Value| {
        let claims = world.claims(&json!({ "nonce": nonce }));
        world.send(&[&dpop::sign(&world.key, &json!({}), &claims)])
    };
    let answer = world.send(&[&world.proof(URL)]);
    world.refuse(&answer, "dpop_nonce", "use_dpop_nonce");
    let nonce = answer.field("dpop-nonce").unwrap().to_owned();
    for _ in 0..2 {
        assert_eq!(with(&json!(nonce)).status, 200, "one nonce serves many proofs");
    }
    for other in [json!("made up"), json!(format!("{nonce}A")), json!("A".repeat(24))] {
        let answer = with(&other);
        world.refuse(&answer, "dpop_nonce", "use_dpop_nonce");
        assert!(answer.field("dpop-nonce").is_some());
    }
    world.refuse(&with(&json!("")), "dpop_proof", "invalid_dpop_proof");
    // A bearer token of this issuer needs none: nothing is demanded of who has no key.
    let plain = world.issuer.token("ana", "acme", &json!({ "groups": ["support"] }));
    assert_eq!(world.send_as("Bearer", &plain, &[]).status, 200);
}

#[test]
fn plain_bearer_tokens_are_refused_where_bound_ones_are_required() {
    let of_issuer = World::start_with(|setup| {
        setup.issuers = setup.issuers.replace(" }\n", ", sender_constrained: required }\n");
    });
    let of_service = World::start_with(|setup| {
        for (_, text) in &mut setup.services {
            text.push_str("sender_constrained: required\n");
        }
    });
    for world in [&of_issuer, &of_service] {
        let plain = world.issuer.token("ana", "acme", &json!({ "groups": ["support"] }));
        world.serving.expect(&world.send_as("Bearer", &plain, &[]), 401, "sender_constrained");
        assert_eq!(world.send(&[&world.proof(URL)]).status, 200);
        assert_eq!(world.serving.get("/public/x", None).status, 200, "who shows no token has none to bind");
    }
    let answer = of_service.serving.get("/orders/1", None);
    of_service.serving.expect(&answer, 401, "token_missing");
    assert!(answer.fields.iter().any(|(_, value)| value == &format!("DPoP realm=\"countersign\", {ALGS}")));
}

/// A certified provider issues the tokens, another implementation (npm `jose`) makes the proofs.
#[test]
fn a_real_providers_bound_tokens_with_foreign_proofs() {
    let mut provider = Provider::start(0);
    let upstream = Upstream::start();
    let mut setup = Setup::new(&provider.url, &upstream.url());
    setup.issuers = format!(
        "  id: {{ issuer: \"{}\", audience: [\"urn:acme\"], claims: {{ groups: groups }}, dpop: {{ nonce: required }} }}\n",
        provider.url
    );
    let serving = setup.start();
    let answered: Value = serde_json::from_str(&provider.ask("dpop support")).unwrap();
    assert_eq!(answered["type"], "DPoP", "{answered}");
    let token = answered["token"].as_str().unwrap().to_owned();
    let send = |scheme: &str, proof: &str| {
        let authorization = format!("{scheme} {token}");
        serving.get_with("/orders/1", None, &[("authorization", &authorization), ("dpop", proof)])
    };
    let mut answer = send("DPoP", &provider.ask(&format!("proof GET {URL}")));
    if answer.status == 503 {
        testkit::wait_for("keys are there", crate::serving::LIMIT, || {
            answer = send("DPoP", &provider.ask(&format!("proof GET {URL}")));
            answer.status != 503
        });
    }
    serving.expect(&answer, 401, "dpop_nonce");
    let nonce = answer.field("dpop-nonce").unwrap().to_owned();
    let proof = provider.ask(&format!("proof GET {URL} {nonce}"));
    assert_eq!(send("DPoP", &proof).status, 200);
    serving.expect(&send("DPoP", &proof), 401, "dpop_replayed");
    let wrong = provider.ask(&format!("proof GET {URL}0 {nonce}"));
    serving.expect(&send("DPoP", &wrong), 401, "dpop_proof");
    let wrong = provider.ask(&format!("proof POST {URL} {nonce}"));
    serving.expect(&send("DPoP", &wrong), 401, "dpop_proof");
    let unused = provider.ask(&format!("proof GET {URL} {nonce}"));
    serving.expect(&send("Bearer", &unused), 401, "sender_constrained");
    assert_eq!(send("DPoP", &unused).status, 200);
    assert_eq!(upstream.count(), 2);
}

/// What curl, with this certificate and these fields, is answered.
fn curl(serving: &Serving, identity: Option<&str>, token: &str, more: &[&str]) -> Response {
    let folder = serving.folder.path();
    let path = |name: &str| folder.join(name).display().to_string();
    let url = format!("https://localhost:{}/orders/1", serving.edge.port());
    let (resolve, ca) = (format!("localhost:{}:127.0.0.1", serving.edge.port()), path("ca.pem"));
    let authorization = format!("authorization: Bearer {token}");
    let mut arguments = vec!["-sS", "-i", "--http1.1", "--cacert", &ca, "--resolve", &resolve, "-H", &authorization];
    let files = identity.map(|name| (path(&format!("{name}.pem")), path(&format!("{name}.key"))));
    if let Some((certificate, key)) = &files {
        arguments.extend(["--cert", certificate, "--key", key]);
    }
    more.iter().for_each(|field| arguments.extend(["-H", field]));
    arguments.push(&url);
    let (_, out, error) = testkit::process::run("curl", &arguments);
    testkit::client::parse(out.as_bytes()).unwrap_or_else(|| panic!("{out}{error}"))
}

#[test]
fn api_68_a_token_bound_to_a_certificate_is_good_on_connections_made_with_it_alone() {
    let (issuer, upstream, ca) = (Issuer::start(), Upstream::start(), testkit::tls::Ca::new());
    let mut setup = Setup::new(&issuer.url(), &upstream.url());
    setup.edge = "  tls: { certificate: edge.pem, key: edge.key, client_certificates: request }\n".into();
    let (own, other) = (ca.server(&["client"]), ca.server(&["other"]));
    setup.files.push(("ca.pem".into(), ca.certificate_pem.clone().into()));
    for (name, identity) in [("edge", &ca.server(&["localhost"])), ("own", &own), ("other", &other)] {
        setup.files.push((format!("{name}.pem"), identity.certificate_pem.clone().into()));
        setup.files.push((format!("{name}.key"), identity.key_pem.clone().into()));
    }
    let serving = setup.start();
    let bound = json!({ "groups": ["support"], "cnf": { "x5t#S256": testkit::tls::sha256(&own) } });
    let token = issuer.token("ana", "acme", &bound);
    testkit::wait_for("keys are there", crate::serving::LIMIT, || {
        curl(&serving, Some("own"), &token, &[]).status == 200
    });
    let answer = curl(&serving, Some("own"), &token, &[]);
    assert_eq!(answer.status, 200);
    assert_eq!(serving.record(&answer)["token"]["facts"]["bound"], "certificate");
    let before = upstream.count();
    serving.expect(&curl(&serving, Some("other"), &token, &[]), 401, "sender_constrained");
    serving.expect(&curl(&serving, None, &token, &[]), 401, "sender_constrained");
    // Whatever a header says of a certificate counts for nothing.
    let der = own.certificate_pem.lines().filter(|line| !line.starts_with('-')).collect::<String>();
    for field in ["X-Client-Cert", "Client-Cert", "X-SSL-Client-Cert", "X-Forwarded-Client-Cert", "SSL-Client-Cert"] {
        for value in [format!(":{der}:"), der.clone(), testkit::tls::sha256(&own)] {
            let field = format!("{field}: {value}");
            serving.expect(&curl(&serving, None, &token, &[&field]), 401, "sender_constrained");
            serving.expect(&curl(&serving, Some("other"), &token, &[&field]), 401, "sender_constrained");
        }
    }
    assert_eq!(upstream.count(), before);
    // The certificate alone is nobody; and a token that is bound to none is good with any.
    let plain = issuer.token("ana", "acme", &json!({ "groups": ["support"] }));
    assert_eq!(curl(&serving, Some("other"), &plain, &[]).status, 200);
    serving.expect(&curl(&serving, Some("own"), "x.y.z", &[]), 401, "token_malformed");
}

#[test]
fn a_token_bound_to_a_certificate_is_refused_where_none_is_asked_for() {
    let world = World::start();
    let ca = testkit::tls::Ca::new();
    let bound = json!({ "groups": ["support"], "cnf": { "x5t#S256": testkit::tls::sha256(&ca.server(&["client"])) } });
    let token = world.issuer.token("ana", "acme", &bound);
    let answer = world.send_as("Bearer", &token, &[]);
    world.serving.expect(&answer, 401, "sender_constrained");
    assert_eq!(answer.field("www-authenticate"), Some("Bearer realm=\"countersign\", error=\"invalid_token\""));
}
