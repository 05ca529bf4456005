//! Tokens that must not be accepted, through the running binary: one public text for all, the exact reason in the record.
use std::collections::BTreeSet;
use std::sync::Mutex;

use crate::serving::{Serving, Setup};
use serde_json::{Value, json};
use testkit::client::Response;
use testkit::issuer::Issuer;
use testkit::signing::{Kind, SigningKey, base64url};
use testkit::upstream::Upstream;

struct World {
    issuer: Issuer,
    upstream: Upstream,
    serving: Serving,
    /// What callers were told, without the decision's id.
    told: Mutex<BTreeSet<String>>,
}

impl World {
    fn start() -> World {
        World::start_with(&[Kind::Es256, Kind::Rs256])
    }

    fn start_with(kinds: &[Kind]) -> World {
        let (issuer, upstream) = (Issuer::start_with(kinds), Upstream::start());
        let serving = Setup::new(&issuer.url(), &upstream.url()).start();
        let world = World { issuer, upstream, serving, told: Mutex::default() };
        world.serving.wait_ready_for("/orders/1", &world.good());
        world
    }

    fn good(&self) -> String {
        self.issuer.token("ana", "acme", &support())
    }

    /// Claims of a good token with these changes.
    fn claims(&self, extra: &Value) -> Value {
        testkit::signing::overlay(self.issuer.claims("ana", "acme", &support()), extra)
    }

    fn refuse(&self, what: &str, token: &str, reason: &str) {
        self.refuse_header(what, &format!("Bearer {token}"), reason);
    }

    fn refuse_header(&self, what: &str, authorization: &str, reason: &str) {
        let before = self.upstream.count();
        let answer = self.serving.get_with("/orders/1", None, &[("authorization", authorization)]);
        let record = self.serving.record(&answer);
        let found = (answer.status, record["reason"].as_str().unwrap_or("none"));
        assert_eq!(found, (401, reason), "{what}: {record:#}");
        assert_eq!(self.upstream.count(), before, "{what} reached the service");
        self.told.lock().unwrap().insert(told(&answer));
        assert_eq!(
            answer.field("www-authenticate"),
            Some("Bearer realm=\"countersign\", error=\"invalid_token\""),
            "{what}"
        );
    }

    /// The token with these header members or claims changed is refused for this reason.
    fn refuse_claims(&self, extra: &Value, reason: &str) {
        let token = self.issuer.mint(&json!({}), &self.claims(extra));
        self.refuse(&extra.to_string(), &token, reason);
    }

    fn refuse_header_members(&self, header: &Value, reason: &str) {
        let token = self.issuer.mint(header, &self.claims(&json!({})));
        self.refuse(&header.to_string(), &token, reason);
    }
}

impl Drop for World {
    /// All refusals of one test looked alike from outside, and the good token still works.
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert!(self.told.lock().unwrap().len() <= 1, "{:#?}", self.told);
            assert_eq!(self.serving.get("/orders/1", Some(&self.good())).status, 200);
        }
    }
}

fn support() -> Value {
    json!({ "groups": ["support"] })
}

fn told(answer: &Response) -> String {
    let id = answer.field("countersign-decision").unwrap();
    assert!(answer.text().contains(id));
    answer.text().replace(id, "ID")
}

#[test]
fn api_49_alg_none_and_confusions() {
    let world = World::start();
    let claims = world.claims(&json!({}));
    let (es, rs) = (world.issuer.key_of(Kind::Es256), world.issuer.key_of(Kind::Rs256));
    for alg in ["none", "None", "nOnE", "HS256", "HS512", "ES384", "RS1", ""] {
        world.refuse_header_members(&json!({ "alg": alg }), "algorithm_refused");
    }
    let unsigned = |alg: &str| {
        let header = json!({ "alg": alg, "typ": "at+jwt", "kid": es.kid }).to_string();
        format!("{}.{}.", base64url(header), base64url(claims.to_string()))
    };
    let answer = world.serving.get("/orders/1", Some(&unsigned("none")));
    let reason = world.serving.record(&answer)["reason"].as_str().unwrap().to_owned();
    assert!(answer.status == 401 && ["algorithm_refused", "token_malformed"].contains(&reason.as_str()), "{reason}");
    // HMAC keyed with what everybody can read: the public key.
    for secret in [rs.public_der(), es.public_der(), rs.jwk().to_string().into_bytes()] {
        let header = json!({ "alg": "HS256", "typ": "at+jwt", "kid": rs.kid }).to_string();
        let signed = format!("{}.{}", base64url(header), base64url(claims.to_string()));
        let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &secret);
        let tag = aws_lc_rs::hmac::sign(&key, signed.as_bytes());
        world.refuse("HMAC with the public key", &format!("{signed}.{}", base64url(tag)), "algorithm_refused");
    }
    // An RSA key does one algorithm only, and a kid belongs to one key.
    let as_ps = rs.sign(&json!({ "alg": "PS256" }), &claims);
    world.refuse("RS256 said to be PS256", &as_ps, "signature_bad");
    world.refuse("ES256 with the kid of an RSA key", &es.sign(&json!({ "kid": rs.kid }), &claims), "signature_bad");
}

#[test]
fn api_50_a_token_brings_no_key_of_its_own() {
    let world = World::start();
    let attacker = SigningKey::generate(Kind::Es256, "attacker");
    let stranger = Issuer::start();
    for (name, value) in [
        ("jku", json!(stranger.jwks_url())),
        ("x5u", json!(stranger.jwks_url())),
        ("jwk", attacker.jwk()),
        ("x5c", json!([base64url(attacker.public_der())])),
    ] {
        let header = json!({ name: value, "kid": world.issuer.key().kid });
        world.refuse(name, &attacker.sign(&header, &world.claims(&json!({}))), "token_header_forbidden");
    }
    assert_eq!(stranger.fetches(), 0, "nobody asked the attacker");
}

#[test]
fn api_51_audience_and_issuer_are_exact() {
    let world = World::start();
    for near in ["acme/", "Acme", "acm", "acme ", "https://acme", ""] {
        world.refuse_claims(&json!({ "aud": near }), "audience_wrong");
    }
    world.refuse_claims(&json!({ "aud": null }), "audience_wrong");
    world.refuse_claims(&json!({ "aud": [] }), "audience_wrong");
    world.refuse_claims(&json!({ "aud": ["other", "ACME"] }), "audience_wrong");
    world.refuse_claims(&json!({ "aud": { "acme": true } }), "claims_malformed");
    world.refuse_claims(&json!({ "iss": null }), "issuer_unknown");
    let listed = world.issuer.mint(&json!({}), &world.claims(&json!({ "aud": ["acme", "other"] })));
    assert_eq!(world.serving.get("/orders/1", Some(&listed)).status, 200);
}

#[test]
fn api_52_times_are_numbers_and_hold() {
    let world = World::start();
    let now = testkit::unix_now();
    for exp in [json!(null), json!((now + 300).to_string()), json!(-1), json!(1e308), json!(true)] {
        world.refuse_claims(&json!({ "exp": exp }), "claims_malformed");
    }
    world.refuse_claims(&json!({ "exp": now - 120 }), "expired");
    world.refuse_claims(&json!({ "nbf": now + 300 }), "not_yet_valid");
    world.refuse_claims(&json!({ "nbf": "soon" }), "claims_malformed");
}

#[test]
fn api_53_unknown_obligations() {
    let world = World::start();
    world.refuse_header_members(&json!({ "crit": ["exp"] }), "token_header_forbidden");
    world.refuse_header_members(&json!({ "crit": [] }), "token_header_forbidden");
    world.refuse_header_members(&json!({ "b64": false }), "token_header_forbidden");
    world.refuse_header_members(&json!({ "b64": false, "crit": ["b64"] }), "token_header_forbidden");
}

#[test]
fn api_54_an_id_token_is_no_access_token() {
    let world = World::start();
    // As most providers write them: `typ: JWT`, nothing that only an access token has.
    for audience in ["acme", "testkit"] {
        let claims = world.claims(&json!({ "aud": audience, "client_id": null, "jti": null, "nonce": "n-1" }));
        for header in [json!({ "typ": "JWT" }), json!({ "typ": null })] {
            let token = world.issuer.mint(&header, &claims);
            world.refuse("an ID token", &token, "token_kind");
        }
    }
    for id_token in [json!({ "nonce": "n-1" }), json!({ "at_hash": "aGFzaA" }), json!({ "c_hash": "aGFzaA" })] {
        world.refuse_claims(&id_token, "token_kind");
    }
}

#[test]
fn api_55_no_other_kind_of_token_is_an_access_token() {
    let world = World::start();
    for typ in [
        "logout+jwt",
        "secevent+jwt",
        "dpop+jwt",
        "txntoken+jwt",
        "wit+jwt",
        "wpt+jwt",
        "client-authentication+jwt",
        "oauth-authz-req+jwt",
        "token-introspection+jwt",
        "id_token+jwt",
    ] {
        world.refuse_header_members(&json!({ "typ": typ }), "token_kind");
        world.refuse_header_members(&json!({ "typ": format!("application/{typ}") }), "token_kind");
    }
    // Dressed up as access tokens, they still show what they are.
    for claims in [
        json!({ "events": { "http://schemas.openid.net/event/backchannel-logout": {} } }),
        json!({ "htm": "GET", "htu": "https://shop.acme.example/" }),
        json!({ "req_wl": "spiffe://acme.example/edge", "tctx": {} }),
        json!({ "sub": world.issuer.url() }),
        json!({ "sub": "spiffe://acme.example/shop/orders" }),
        json!({ "token_use": "id" }),
        json!({ "typ": "Refresh" }),
    ] {
        world.refuse_claims(&claims, "token_kind");
    }
}

#[test]
fn api_56_duplicates_depth_size_and_control_characters() {
    let world = World::start();
    let key = world.issuer.key();
    let header = json!({ "alg": "ES256", "kid": key.kid, "typ": "at+jwt" }).to_string();
    let text = world.claims(&json!({})).to_string();
    let signed = |payload: &str| key.sign_bytes(header.as_bytes(), payload.as_bytes());
    world.refuse("sub twice", &signed(&text.replacen('{', "{\"sub\":\"root\",", 1)), "claims_malformed");
    world.refuse("groups twice", &signed(&text.replacen('{', "{\"groups\":[\"root\"],", 1)), "claims_malformed");
    let nested = format!("{{\"x\":{}{},", "[".repeat(1000), "]".repeat(1000));
    world.refuse("1,000 deep", &signed(&text.replacen('{', &nested, 1)), "claims_malformed");
    world.refuse_claims(&json!({ "sub": "ana\u{0}root" }), "claims_malformed");
    world.refuse_claims(&json!({ "sub": "ana\u{1b}[31m\r\nroot" }), "claims_malformed");
    world.refuse_claims(&json!({ "sub": "a".repeat(4000) }), "claims_malformed");
    let twice = header.replacen('{', "{\"alg\":\"none\",", 1);
    let answer = world.serving.get("/orders/1", Some(&key.sign_bytes(twice.as_bytes(), text.as_bytes())));
    assert_eq!(answer.status, 401, "alg twice");
    for broken in ["a.b", "a.b.c.d", "..", "not-a-token", "a.b.c", "eyJ.eyJ.e="] {
        world.refuse(broken, broken, "token_malformed");
    }
}

#[test]
fn api_56_a_token_of_64_kib_and_5000_groups() {
    // Past the head's default limit nothing is judged at all.
    let world = World::start();
    let large = world.issuer.mint(&json!({}), &world.claims(&json!({ "x": "a".repeat(64 * 1024) })));
    assert_eq!(world.serving.get("/orders/1", Some(&large)).status, 431);
    // With room for it, the token's own limit holds.
    let mut setup = Setup::new(&world.issuer.url(), &world.upstream.url());
    setup.edge = "  limits: { header: 256KiB }\n".into();
    let roomy = setup.start();
    roomy.wait_ready_for("/orders/1", &world.good());
    let groups: Vec<String> = (0..5000).map(|n| format!("group-{n}")).collect();
    let grouped = world.issuer.mint(&json!({}), &world.claims(&json!({ "groups": groups })));
    let before = world.upstream.count();
    for token in [&large, &grouped] {
        roomy.expect(&roomy.get("/orders/1", Some(token)), 401, "token_too_large");
    }
    assert_eq!(world.upstream.count(), before);
}

#[test]
fn api_57_an_issuer_that_nearly_matches_is_another() {
    let world = World::start();
    let url = world.issuer.url();
    for iss in [format!("{url}/"), url.to_uppercase(), url.replace("127.0.0.1", "localhost"), format!("{url}/v2.0")] {
        world.refuse_claims(&json!({ "iss": iss }), "issuer_unknown");
    }
}

const OUR_TENANT: &str = "11111111-2222-3333-4444-555555555555";
const OTHER_TENANT: &str = "99999999-2222-3333-4444-555555555555";

#[test]
fn api_58_a_tenant_outside_the_list_is_refused() {
    let (issuer, upstream) = (Issuer::start_with(&[Kind::Rs256]), Upstream::start());
    let mut setup = Setup::new(&issuer.url(), &upstream.url());
    setup.issuers = format!(
        "  entra: {{ preset: entra, tenant: common, tenants: [{OUR_TENANT}], audience: [acme], jwks_file: keys.json }}\n"
    );
    setup.files = vec![("keys.json".into(), issuer.jwks().to_string().into_bytes())];
    let serving = setup.start();
    let token = |tid: &str, of: &str| {
        let claims = json!({
            "iss": format!("https://login.microsoftonline.com/{of}/v2.0"), "tid": tid, "ver": "2.0", "azp": "shop-web",
            "oid": "aaaaaaaa-0000-0000-0000-000000000001", "scp": "orders.read", "groups": ["support"],
        });
        issuer.mint(&json!({ "typ": "JWT" }), &issuer.claims("ana", "acme", &claims))
    };
    serving.wait_ready_for("/orders/1", &token(OUR_TENANT, OUR_TENANT));
    let before = upstream.count();
    for (tid, of) in [(OTHER_TENANT, OTHER_TENANT), (OUR_TENANT, OTHER_TENANT), (OTHER_TENANT, OUR_TENANT)] {
        serving.expect(&serving.get("/orders/1", Some(&token(tid, of))), 401, "tenant_refused");
    }
    assert_eq!(upstream.count(), before);
}

#[test]
fn api_59_two_clusters_with_one_issuer_name_stay_two() {
    let (one, two, stranger, upstream) = (Issuer::start(), Issuer::start(), Issuer::start(), Upstream::start());
    let mut setup = Setup::new("", &upstream.url());
    let cluster = |name: &str| {
        format!(
            "  {name}: {{ issuer: \"https://kubernetes.default.svc\", audience: [acme], jwks_file: {name}.json, claims: {{ groups: groups }} }}\n"
        )
    };
    setup.issuers = cluster("one") + &cluster("two");
    setup.files = vec![
        ("one.json".into(), one.jwks().to_string().into_bytes()),
        ("two.json".into(), two.jwks().to_string().into_bytes()),
    ];
    setup.services =
        vec![("orders".into(), crate::serving::orders(&upstream.url()).replace("group:support", "group:one|support"))];
    let serving = setup.start();
    let token = |of: &Issuer| {
        let claims = json!({ "iss": "https://kubernetes.default.svc", "groups": ["support"] });
        of.mint(&json!({}), &of.claims("ana", "acme", &claims))
    };
    serving.wait_ready_for("/orders/1", &token(&one));
    let subject = |answer: &Response| serving.record(answer)["principal"]["subject"].as_str().map(str::to_owned);
    let (first, second) = (serving.get("/orders/1", Some(&token(&one))), serving.get("/orders/1", Some(&token(&two))));
    assert_eq!((first.status, subject(&first).as_deref()), (200, Some("one|ana")));
    assert_eq!((second.status, subject(&second).as_deref()), (403, Some("two|ana")));
    assert_eq!(serving.get("/orders/1", Some(&token(&stranger))).status, 401);
}

#[test]
fn api_66_a_token_bound_to_a_key_is_no_bearer_token() {
    let world = World::start();
    world.refuse_claims(
        &json!({ "cnf": { "jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I" } }),
        "sender_constrained",
    );
    world.refuse_claims(
        &json!({ "cnf": { "x5t#S256": "bwcK0esc3ACC3DB2Y5_lESsXE8o9ltc05O89jdN-dg2" } }),
        "sender_constrained",
    );
}

#[test]
fn two_credentials_are_400_and_neither_is_used() {
    let world = World::start();
    let (good, before) = (format!("Bearer {}", world.good()), world.upstream.count());
    for other in [good.as_str(), "Bearer x", "Basic YTpi"] {
        let answer = world.serving.get_with("/orders/1", None, &[("authorization", &good), ("Authorization", other)]);
        world.serving.expect(&answer, 400, "token_multiple");
    }
    let joined = format!("{good}, {good}");
    assert_eq!(world.serving.get_with("/orders/1", None, &[("authorization", &joined)]).status, 401);
    assert_eq!(world.upstream.count(), before);
}

#[test]
fn a8_our_own_txn_token_is_no_access_token() {
    let world = World::start();
    let ours = world.upstream.last().field("txn-token").unwrap().to_owned();
    world.refuse("our Txn-Token", &ours, "issuer_unknown");
    // Nor one of the issuer's own making, with the very claims.
    let payload = world.claims(&json!({ "txn": "x", "scope": "orders.read", "req_wl": "a", "rctx": {}, "tctx": {} }));
    for typ in ["txntoken+jwt", "at+jwt"] {
        world.refuse(typ, &world.issuer.mint(&json!({ "typ": typ }), &payload), "token_kind");
    }
    // And in its own field it counts for nothing.
    let answer = world.serving.get_with("/orders/1", None, &[("txn-token", &ours)]);
    world.serving.expect(&answer, 401, "token_missing");
}
