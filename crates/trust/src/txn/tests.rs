//! Minting and checking Txn-Tokens: what they say, how long they live, and everything that is none.
use super::*;
use crate::jwk::made::b64;
use crate::principal::{Agent, Assurance, Kind, Membership};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::sync::LazyLock;

const NOW: i64 = 1_795_000_000;
const EDGE: &str = "spiffe://acme.example/edge/eu1";
const TXN: &str = "0193e4c2-0000-7000-8000-000000000001";

static PKCS8: LazyLock<Vec<u8>> = LazyLock::new(new_pkcs8);
static EDGE_KEY: LazyLock<SigningKey> = LazyLock::new(|| key(&PKCS8, EDGE));
static VERIFIER: LazyLock<Verifier> = LazyLock::new(|| verifier(&[EDGE_KEY.published()]));

fn new_pkcs8() -> Vec<u8> {
    EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new()).unwrap().as_ref().to_vec()
}

fn key(pkcs8: &[u8], minter: &str) -> SigningKey {
    SigningKey::from_pkcs8(pkcs8, minter, NOW - 3600, NOW + 3600).unwrap()
}

fn edges_may_mint(id: &str) -> bool {
    id.contains("/edge/")
}

fn verifier(keys: &[&PublishedKey]) -> Verifier {
    let keys = PublishedKeys { seq: 1, keys: keys.iter().map(|key| (*key).clone()).collect() };
    Verifier::new("acme.example", &keys, edges_may_mint)
}

fn ana() -> Principal {
    Principal {
        kind: Kind::Person,
        subject: "okta|00u1abcd".into(),
        issuer: "okta".into(),
        id: "00u1abcd".into(),
        client: None,
        groups: Membership::complete(["support".into(), "staff".into()]),
        roles: Membership::complete([]),
        scopes: Membership::complete([]),
        agent: None,
        assurance: Assurance::default(),
        expires_at: NOW + 3600,
    }
}

static UNBOUND: LazyLock<Binding> = LazyLock::new(Binding::default);

fn claims(principal: &Principal) -> Claims<'_> {
    Claims {
        audience: "acme.example",
        txn: TXN.parse().unwrap(),
        issued_at: NOW,
        expires_at: NOW + 60,
        principal,
        scope: "orders.read",
        req_wl: EDGE,
        req_ip: None,
        sid: None,
        binding: &UNBOUND,
        route: "orders:GET /orders/{id}",
        params: &[],
        groups: &[],
    }
}

fn payload(token: &str) -> Value {
    let payload = token.split('.').nth(1).unwrap();
    let bytes = base64::Engine::decode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, payload).unwrap();
    serde_json::from_slice(&bytes).unwrap()
}

/// A token of any header and payload, signed by the very key of the edge.
fn signed(header: &Value, payload: &str) -> String {
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &PKCS8).unwrap();
    let signed = format!("{}.{}", b64(header.to_string()), b64(payload));
    let signature = pair.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
    format!("{signed}.{}", b64(signature))
}

fn header() -> Value {
    json!({"typ": TYP, "alg": "ES256", "kid": EDGE_KEY.kid()})
}

fn good_claims() -> Value {
    payload(&EDGE_KEY.mint(&claims(&ana())).unwrap())
}

fn with(mut object: Value, name: &str, value: Value) -> Value {
    object[name] = value;
    object
}

fn without(mut object: Value, name: &str) -> Value {
    object.as_object_mut().unwrap().remove(name);
    object
}

fn reason(token: &str, now: i64) -> Result<(), Reason> {
    VERIFIER.verify(token, now).map(|_| ()).map_err(|refused| refused.reason)
}

/// The good claims with `name` replaced, under the right header and key.
fn check_claim(name: &str, value: Value, expected: Result<(), Reason>) {
    let claims = with(good_claims(), name, value).to_string();
    assert_eq!(reason(&signed(&header(), &claims), NOW), expected, "{claims}");
}

fn check_mint(change: impl FnOnce(&mut Claims<'_>), expected: MintError) {
    let ana = ana();
    let mut claims = claims(&ana);
    change(&mut claims);
    assert_eq!(EDGE_KEY.mint(&claims).unwrap_err(), expected);
}

#[test]
fn a_minted_token_says_exactly_what_the_wire_format_says() {
    let mut principal = ana();
    principal.groups = Membership::partial(["support".into()]);
    principal.agent = Some(Agent { name: "report-bot".into() });
    principal.assurance = Assurance {
        acr: Some("phr".into()),
        amr: vec!["hwk".into(), "user".into()],
        auth_time: Some(NOW - 9),
        ..Default::default()
    };
    let params: [(Arc<str>, String); 2] = [("id".into(), "4\"2\n".into()), ("é".into(), "\u{0}".into())];
    let full = Claims {
        req_ip: Some("203.0.113.0/24"),
        sid: Some("AAAAAAAAAAAAAAAAAAAAAA"),
        params: &params,
        groups: &["support".into()],
        ..claims(&principal)
    };
    let token = EDGE_KEY.mint(&full).unwrap();
    let header = format!(r#"{{"typ":"txntoken+jwt","alg":"ES256","kid":"{}"}}"#, EDGE_KEY.kid());
    assert_eq!(token.split('.').next(), Some(b64(header).as_str()));
    assert_eq!(
        payload(&token),
        json!({
            "iss": EDGE, "aud": "acme.example", "iat": NOW, "exp": NOW + 60, "txn": TXN, "sub": "okta|00u1abcd",
            "scope": "orders.read", "req_wl": EDGE, "act": {"sub": "report-bot"},
            "rctx": {"req_ip": "203.0.113.0/24", "sid": "AAAAAAAAAAAAAAAAAAAAAA", "amr": ["hwk", "user"], "acr": "phr",
                "auth_time": NOW - 9},
            "tctx": {"rt": "orders:GET /orders/{id}", "p": {"id": "4\"2\n", "é": "\u{0}"}, "g": ["support"], "gp": true},
        })
    );
    let verified = VERIFIER.verify(&token, NOW).unwrap();
    assert_eq!((verified.subject(), verified.txn(), verified.actor()), ("okta|00u1abcd", TXN, Some("report-bot")));
    assert_eq!((verified.scope(), verified.sid()), ("orders.read", Some("AAAAAAAAAAAAAAAAAAAAAA")));
    assert_eq!((verified.minter(), verified.kid()), (EDGE, EDGE_KEY.kid()));
    assert_eq!((verified.issued_at(), verified.expires_at()), (NOW, NOW + 60));
    assert_eq!(Value::Object(verified.claims().clone()), payload(&token));
    // What was not said is left out, not written as null or empty.
    let bare = good_claims();
    assert_eq!(bare["tctx"], json!({"rt": "orders:GET /orders/{id}"}));
    assert!(bare.get("act").is_none() && bare.get("rctx").is_none());
}

#[test]
fn what_the_access_token_is_bound_to_is_told_and_asks_nothing() {
    let (key, certificate) = (b64([7; 32]), b64([9; 32]));
    for cnf in
        [json!({ "jkt": key }), json!({ "x5t#S256": certificate }), json!({ "jkt": key, "x5t#S256": certificate })]
    {
        let binding = Binding::of(json!({ "cnf": cnf }).as_object().unwrap()).unwrap();
        let token = EDGE_KEY.mint(&Claims { binding: &binding, ..claims(&ana()) }).unwrap();
        assert_eq!(payload(&token)["rctx"], json!({ "cnf": cnf }));
        assert_eq!(reason(&token, NOW), Ok(()));
    }
    // In the place where it would ask for a proof it is refused.
    check_claim("cnf", json!({ "jkt": key }), Err(Reason::SenderConstrained));
}

#[test]
fn a10_no_name_in_a_token_holds_a_control_character_on_either_side() {
    for bad in ["a\nb", "\r", "a\u{0}", "\u{1b}[31m", "\u{7f}", "a\u{85}b"] {
        for name in ["sub", "scope", "req_wl"] {
            check_claim(name, json!(bad), Err(Reason::ClaimsMalformed));
        }
        check_claim("act", json!({ "sub": bad }), Err(Reason::ClaimsMalformed));
        check_claim("act", json!({ "sub": "bot", "act": { "sub": bad } }), Err(Reason::ClaimsMalformed));
        let (person, acting) = (
            Principal { subject: bad.into(), ..ana() },
            Principal { agent: Some(Agent { name: bad.into() }), ..ana() },
        );
        let ana = ana();
        for claims in [
            claims(&person),
            claims(&acting),
            Claims { scope: bad, ..claims(&ana) },
            Claims { req_wl: bad, ..claims(&ana) },
            Claims { route: bad, ..claims(&ana) },
        ] {
            assert_eq!(EDGE_KEY.mint(&claims), Err(MintError::Claims("a claim holds a control character")));
        }
    }
}

#[test]
fn the_published_key_is_a_stock_jwk_and_names_its_owner() {
    let published = EDGE_KEY.published();
    let document = serde_json::to_vec(&PublishedKeys { seq: 7, keys: vec![published.clone()] }).unwrap();
    let (set, left_out) = crate::jwk::KeySet::parse(&document).unwrap();
    assert_eq!((set.keys()[0].kid(), set.keys()[0].thumbprint()), (Some(EDGE_KEY.kid()), EDGE_KEY.kid()));
    assert_eq!(left_out, []);
    assert_eq!((published.cs_iss.as_str(), published.cs_nbf, published.cs_exp), (EDGE, NOW - 3600, NOW + 3600));
    let read: PublishedKeys = serde_json::from_slice(&document).unwrap();
    assert_eq!((read.seq, &read.keys[0]), (7, published));

    // A stock JOSE library checks the token from that document alone.
    let jwk: jsonwebtoken::jwk::Jwk = serde_json::from_value(serde_json::to_value(published).unwrap()).unwrap();
    let mut validation = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::ES256);
    validation.set_audience(&["acme.example"]);
    validation.set_issuer(&[EDGE]);
    let key = jsonwebtoken::DecodingKey::from_jwk(&jwk).unwrap();
    let token = EDGE_KEY.mint(&claims(&ana())).unwrap();
    validation.validate_exp = false;
    assert!(jsonwebtoken::decode::<Value>(&token, &key, &validation).is_ok());
}

#[test]
fn a_signing_key_needs_a_p256_key_a_spiffe_id_and_a_life() {
    let made = |pkcs8: &[u8], minter: &str, from, to| SigningKey::from_pkcs8(pkcs8, minter, from, to).is_some();
    assert!(made(&PKCS8, EDGE, 0, 1));
    assert!(!made(&PKCS8, EDGE, 1, 1));
    assert!(!made(&PKCS8, EDGE, 2, 1));
    assert!(!made(&PKCS8, "edge", 0, 1));
    assert!(!made(&PKCS8, "spiffe://ACME/edge", 0, 1));
    assert!(!made(&[], EDGE, 0, 1));
    assert!(!made(&PKCS8[1..], EDGE, 0, 1));
    let p384 = crate::jwk::made::Signer::new(crate::jwk::Algorithm::Es384).pkcs8();
    assert!(!made(&p384, EDGE, 0, 1));
}

/// Compiles only while `SigningKey` has neither `Debug` nor `Clone`: with either, the constant would be ambiguous.
#[test]
fn the_signing_key_can_neither_be_printed_nor_copied() {
    trait Unless<Marker> {
        const HOLDS: bool = true;
    }
    impl<T: ?Sized> Unless<()> for T {}
    struct Printed;
    impl<T: std::fmt::Debug + ?Sized> Unless<Printed> for T {}
    struct Copied;
    impl<T: Clone> Unless<Copied> for T {}
    const { assert!(<SigningKey as Unless<_>>::HOLDS) };
}

#[test]
fn minting_fails_rather_than_shorten_or_sign_what_nobody_would_accept() {
    let claim = MintError::Claims;
    check_mint(|c| c.expires_at = NOW, claim("the token would end before it begins"));
    check_mint(|c| c.expires_at = NOW + 301, claim("the token would live longer than 300 s"));
    check_mint(|c| c.expires_at = i64::MAX, claim("the token would live longer than 300 s"));
    check_mint(
        |c| (c.issued_at, c.expires_at) = (NOW - 3601, NOW - 3590),
        claim("the minting key is not valid at this time"),
    );
    check_mint(
        |c| (c.issued_at, c.expires_at) = (NOW + 3600, NOW + 3660),
        claim("the minting key is not valid at this time"),
    );
    check_mint(|c| c.scope = "", claim("a required claim is empty"));
    check_mint(|c| c.req_wl = "", claim("a required claim is empty"));
    check_mint(|c| c.audience = "", claim("a required claim is empty"));
    check_mint(|c| c.txn = uuid::Uuid::nil(), claim("`txn` is no UUIDv7"));
    let twice: [(Arc<str>, String); 2] = [("id".into(), "1".into()), ("id".into(), "2".into())];
    let ana = ana();
    let doubled = Claims { params: &twice, ..claims(&ana) };
    assert_eq!(EDGE_KEY.mint(&doubled), Err(claim("a route parameter stands twice")));

    let old = SigningKey::from_pkcs8(&PKCS8, EDGE, NOW - 10, NOW).unwrap();
    assert_eq!(old.mint(&claims(&ana)), Err(claim("the minting key is not valid at this time")));
}

#[test]
fn a_token_never_outlives_the_proof_it_rests_on() {
    let principal = Principal { expires_at: NOW + 7, ..ana() };
    assert_eq!(payload(&EDGE_KEY.mint(&claims(&principal)).unwrap())["exp"], NOW + 7);
    // A proof accepted within its issuer's leeway has already ended by our clock.
    for expires_at in [NOW, NOW - 30, i64::MIN] {
        let ended = Principal { expires_at, ..ana() };
        assert_eq!(payload(&EDGE_KEY.mint(&claims(&ended)).unwrap())["exp"], NOW + 1);
    }
}

#[test]
fn four_kibibytes_are_the_end_on_both_sides() {
    let ana = ana();
    let sized = |chars: usize| {
        let route = "x".repeat(chars);
        EDGE_KEY.mint(&Claims { route: &route, ..claims(&ana) })
    };
    let usual = EDGE_KEY.mint(&claims(&ana)).unwrap().len();
    let longest = (2_000..4_000).rev().find_map(|chars| sized(chars).ok()).unwrap();
    assert!((BYTES_MAX - 4..=BYTES_MAX).contains(&longest.len()), "{}", longest.len());
    assert_eq!(reason(&longest, NOW), Ok(()));
    assert!(usual < 700, "{usual}");
    for chars in [2_700, 4_096, 100_000] {
        match sized(chars) {
            Err(MintError::TooLarge(bytes)) => assert!(bytes > BYTES_MAX),
            other => panic!("{chars}: {other:?}"),
        }
    }
    let route = "x".repeat(4_000);
    let claims = with(good_claims(), "tctx", json!({ "rt": route })).to_string();
    assert_eq!(reason(&signed(&header(), &claims), NOW), Err(Reason::TokenTooLarge));
}

#[test]
fn times_have_five_seconds_of_leeway_and_no_more() {
    let token = EDGE_KEY.mint(&claims(&ana())).unwrap();
    for (now, expected) in [
        (NOW, Ok(())),
        (NOW - 5, Ok(())),
        (NOW - 6, Err(Reason::Clock)),
        (NOW - 600, Err(Reason::Clock)),
        (NOW + 59, Ok(())),
        (NOW + 64, Ok(())),
        (NOW + 65, Err(Reason::Expired)),
        (i64::MAX, Err(Reason::Expired)),
        (i64::MIN, Err(Reason::Clock)),
        (0, Err(Reason::Clock)),
    ] {
        assert_eq!(reason(&token, now), expected, "{now}");
    }
    check_claim("exp", json!(NOW + 300), Ok(()));
    for exp in [json!(NOW + 301), json!(NOW), json!(NOW - 1), json!(i64::MAX)] {
        check_claim("exp", exp, Err(Reason::ClaimsMalformed));
    }
    for name in ["iat", "exp"] {
        for wrong in [
            json!("1795000030"),
            json!(1_795_000_030.5),
            json!(-1),
            json!(1e308),
            json!(u64::MAX),
            json!(null),
            json!([NOW]),
        ] {
            check_claim(name, wrong, Err(Reason::ClaimsMalformed));
        }
        let missing = without(good_claims(), name).to_string();
        assert_eq!(reason(&signed(&header(), &missing), NOW), Err(Reason::ClaimsMalformed));
    }
    check_claim("nbf", json!(NOW + 5), Ok(()));
    check_claim("nbf", json!(NOW + 6), Err(Reason::NotYetValid));
    check_claim("nbf", json!("now"), Err(Reason::ClaimsMalformed));
}

#[test]
fn a_key_issues_only_within_its_own_life() {
    let published = PublishedKey { cs_nbf: NOW + 10, cs_exp: NOW + 20, ..EDGE_KEY.published().clone() };
    let verifier = verifier(&[&published]);
    let issued_at = |iat: i64| {
        let claims = Claims { issued_at: iat, expires_at: iat + 60, ..claims(&ANA) };
        verifier.verify(&EDGE_KEY.mint(&claims).unwrap(), iat).map(|_| ()).map_err(|refused| refused.reason)
    };
    static ANA: LazyLock<Principal> = LazyLock::new(ana);
    assert_eq!(issued_at(NOW + 4), Err(Reason::KeyUnknown));
    assert_eq!(issued_at(NOW + 5), Ok(()));
    assert_eq!(issued_at(NOW + 19), Ok(()));
    assert_eq!(issued_at(NOW + 20), Err(Reason::KeyUnknown));
    // What was issued in time lives out its life.
    let last = EDGE_KEY.mint(&Claims { issued_at: NOW + 19, expires_at: NOW + 79, ..claims(&ANA) }).unwrap();
    assert!(verifier.verify(&last, NOW + 78).is_ok());
}

#[test]
fn every_claim_has_its_one_form() {
    let malformed = Err(Reason::ClaimsMalformed);
    for name in ["sub", "scope", "req_wl", "txn", "iss"] {
        for wrong in [json!(""), json!(null), json!(7), json!(["x"]), json!({"a": "b"})] {
            check_claim(name, wrong, malformed);
        }
        assert_eq!(reason(&signed(&header(), &without(good_claims(), name).to_string()), NOW), malformed, "{name}");
    }
    for txn in [
        "1",
        "0193e4c2-0000-4000-8000-000000000001",
        "0193E4C2-0000-7000-8000-00000000000A",
        "0193e4c2000070008000000000000001",
    ] {
        check_claim("txn", json!(txn), malformed);
    }
    for aud in [
        json!("acme.example."),
        json!("ACME.example"),
        json!("other.example"),
        json!(["acme.example"]),
        json!(null),
        json!(""),
    ] {
        check_claim("aud", aud, Err(Reason::AudienceWrong));
    }
    for act in
        [json!(null), json!("bot"), json!({}), json!({"sub": ""}), json!({"sub": 1}), json!({"sub": "a", "act": {}})]
    {
        check_claim("act", act, malformed);
    }
    check_claim("act", json!({"sub": "a", "act": {"sub": "b"}}), Ok(()));
    check_claim("rctx", json!([]), malformed);
    check_claim("tctx", json!("x"), malformed);
    check_claim("cnf", json!({"jkt": "x"}), Err(Reason::SenderConstrained));
    check_claim("a later claim", json!({"x": 1}), Ok(()));
}

#[test]
fn api_56_one_token_has_one_meaning() {
    let twice = good_claims().to_string().replacen('{', r#"{"sub":"okta|admin","#, 1);
    assert_eq!(reason(&signed(&header(), &twice), NOW), Err(Reason::ClaimsMalformed));
    let deep = with(good_claims(), "x", json!(null)).to_string().replace("null", &("[".repeat(40) + &"]".repeat(40)));
    assert_eq!(reason(&signed(&header(), &deep), NOW), Err(Reason::ClaimsMalformed));
    for payload in ["", " ", "null", "[]", "\"x\"", "{}x"] {
        assert!(reason(&signed(&header(), payload), NOW).is_err(), "{payload}");
    }
}

#[test]
fn m7_who_may_not_mint_is_refused_with_a_valid_signature() {
    let sidecar = key(&new_pkcs8(), "spiffe://acme.example/shop/orders");
    let verifier = verifier(&[EDGE_KEY.published(), sidecar.published()]);
    let token = sidecar.mint(&claims(&ana())).unwrap();
    let refused = verifier.verify(&token, NOW).unwrap_err();
    assert_eq!(refused.reason, Reason::IssuerUnknown);
    assert_eq!(refused.to_string(), "issuer_unknown: the role of `spiffe://acme.example/shop/orders` may not mint");
}

#[test]
fn the_issuer_is_pinned_to_the_key() {
    // Another edge's name under this edge's key, and near misses of its own.
    for iss in ["spiffe://acme.example/edge/eu2", "spiffe://acme.example/edge/eu1/", "spiffe://ACME.example/edge/eu1"] {
        check_claim("iss", json!(iss), Err(Reason::IssuerUnknown));
    }
    // Another edge's `kid` over this edge's signature.
    let other = key(&new_pkcs8(), "spiffe://acme.example/edge/eu2");
    let verifier = verifier(&[EDGE_KEY.published(), other.published()]);
    let token = signed(&with(header(), "kid", json!(other.kid())), &good_claims().to_string());
    assert_eq!(verifier.verify(&token, NOW).unwrap_err().reason, Reason::SignatureBad);
    assert!(verifier.verify(&other.mint(&claims(&ana())).unwrap(), NOW).is_ok());
}

#[test]
fn m8_a_removed_key_ends_every_token_of_its_edge() {
    let token = EDGE_KEY.mint(&claims(&ana())).unwrap();
    let other = key(&new_pkcs8(), "spiffe://acme.example/edge/eu2");
    let without = verifier(&[other.published()]);
    assert_eq!(without.verify(&token, NOW).unwrap_err().reason, Reason::KeyUnknown);
    assert_eq!(verifier(&[]).verify(&token, NOW).unwrap_err().reason, Reason::KeyUnknown);
    assert_eq!(reason(&signed(&without_kid(), &good_claims().to_string()), NOW), Err(Reason::KeyUnknown));
}

fn without_kid() -> Value {
    without(header(), "kid")
}

#[test]
fn m9_published_keys_that_are_not_what_they_say_are_left_out() {
    let good = EDGE_KEY.published();
    let check = |change: &dyn Fn(&mut PublishedKey), why: &'static str| {
        let mut odd = good.clone();
        change(&mut odd);
        let verifier = verifier(&[&odd]);
        assert_eq!(verifier.left_out().iter().map(|key| key.why).collect::<Vec<_>>(), [why]);
        let token = EDGE_KEY.mint(&claims(&ana())).unwrap();
        assert_eq!(verifier.verify(&token, NOW).unwrap_err().reason, Reason::KeyUnknown);
    };
    check(&|key| key.cs_iss = "spiffe://other.example/edge/eu1".into(), "`cs_iss` belongs to another trust domain");
    check(&|key| key.cs_iss = "https://acme.example/edge".into(), "`cs_iss` is no SPIFFE ID");
    check(&|key| key.cs_exp = key.cs_nbf, "`cs_exp` is not after `cs_nbf`");
    check(&|key| key.kid = "x".into(), "`kid` is not the key's thumbprint");
    check(&|key| key.alg = "ES384".into(), "`alg` does not fit the key's type");
    check(&|key| key.key_ops = vec!["sign".into()], "`key_ops` does not hold `verify`");
    check(&|key| std::mem::swap(&mut key.x, &mut key.y), "the point is not on the curve");
    check(&|key| (key.kty, key.crv) = ("OKP".into(), "Ed25519".into()), "`alg` does not fit the key's type");
    // The first owner of a key keeps it.
    let stolen = PublishedKey { cs_iss: "spiffe://acme.example/edge/evil".into(), ..good.clone() };
    let both = verifier(&[good, &stolen]);
    assert_eq!(both.left_out().len(), 1);
    assert_eq!(both.verify(&EDGE_KEY.mint(&claims(&ana())).unwrap(), NOW).unwrap().minter(), EDGE);
    assert_eq!(both.seq(), 1);
}

#[test]
fn the_number_of_keys_is_bounded() {
    let good = EDGE_KEY.published().clone();
    let flood: Vec<PublishedKey> =
        (0..KEYS_MAX).map(|at| PublishedKey { kid: at.to_string(), cs_iss: String::new(), ..good.clone() }).collect();
    let verifier =
        Verifier::new("acme.example", &PublishedKeys { seq: 1, keys: [flood, vec![good]].concat() }, |_| true);
    assert_eq!(verifier.left_out().len(), KEYS_MAX + 1);
}

/// Every other kind of token, signed by the very key that mints, with the right audience and times: never a Txn-Token.
#[test]
fn a8_no_other_token_kind_is_a_txn_token_even_from_the_minters_key() {
    let refused = |typ: Option<&str>, extra: Value| {
        let mut header = header();
        match typ {
            Some(typ) => header["typ"] = json!(typ),
            None => drop(header.as_object_mut().unwrap().remove("typ")),
        }
        let mut claims = good_claims();
        for (name, value) in extra.as_object().unwrap() {
            claims[name] = value.clone();
        }
        assert_eq!(reason(&signed(&header, &claims.to_string()), NOW), Err(Reason::TokenKind), "{typ:?} {extra}");
    };
    // ID token, RFC 9068 access token, JWT-SVID, logout token, SET, DPoP proof, client assertion, WIT, WPT.
    refused(Some("JWT"), json!({"nonce": "n", "at_hash": "h"}));
    refused(None, json!({"nonce": "n"}));
    refused(Some("at+jwt"), json!({"client_id": "c", "jti": "1"}));
    refused(Some("JOSE"), json!({"sub": "spiffe://acme.example/shop/orders"}));
    refused(Some("logout+jwt"), json!({"events": {"http://schemas.openid.net/event/backchannel-logout": {}}}));
    refused(
        Some("secevent+jwt"),
        json!({"events": {"https://schemas.openid.net/secevent/caep/event-type/session-revoked": {}}}),
    );
    refused(Some("dpop+jwt"), json!({"htm": "GET", "htu": "https://shop.acme.example/", "ath": "x"}));
    refused(Some("client-authentication+jwt"), json!({"jti": "1"}));
    refused(Some("wit+jwt"), json!({}));
    refused(Some("wpt+jwt"), json!({}));
    // Older names of the same draft, and spellings that a lenient reader would take for ours.
    for typ in ["txn_token", "TXNTOKEN+JWT", "application/txntoken+jwt", "txntoken+jwt ", "txntoken", ""] {
        refused(Some(typ), json!({}));
    }
    assert_eq!(reason(&signed(&header(), &good_claims().to_string()), NOW), Ok(()));
}

#[test]
fn api_49_50_53_headers_that_bring_their_own_rules_are_refused() {
    let check = |header: Value, expected: Reason| {
        assert_eq!(reason(&signed(&header, &good_claims().to_string()), NOW), Err(expected), "{header}");
    };
    check(with(header(), "alg", json!("none")), Reason::AlgorithmRefused);
    check(with(header(), "alg", json!("HS256")), Reason::AlgorithmRefused);
    check(with(header(), "alg", json!("EdDSA")), Reason::AlgorithmRefused);
    check(with(header(), "alg", json!("ES384")), Reason::AlgorithmRefused);
    check(with(header(), "jku", json!("https://attacker.example")), Reason::TokenHeaderForbidden);
    check(with(header(), "jwk", serde_json::to_value(EDGE_KEY.published()).unwrap()), Reason::TokenHeaderForbidden);
    check(with(header(), "crit", json!(["b64"])), Reason::TokenHeaderForbidden);
    check(with(header(), "kid", json!("nobody's")), Reason::KeyUnknown);
    assert_eq!(reason("a.b.c", NOW), Err(Reason::TokenMalformed));
    assert_eq!(reason("", NOW), Err(Reason::TokenMalformed));
    assert_eq!(reason(&"a".repeat(BYTES_MAX + 1), NOW), Err(Reason::TokenTooLarge));
}

#[test]
fn every_flipped_bit_is_refused() {
    let token = EDGE_KEY.mint(&claims(&ana())).unwrap();
    for at in 0..token.len() {
        for bit in 0..8 {
            let mut bytes = token.clone().into_bytes();
            bytes[at] ^= 1 << bit;
            let Ok(flipped) = String::from_utf8(bytes) else { continue };
            assert!(reason(&flipped, NOW).is_err(), "byte {at}, bit {bit}");
        }
    }
}

proptest! {
    #[test]
    fn arbitrary_text_never_panics_and_never_verifies(text in any::<String>(), now in any::<i64>()) {
        prop_assert!(VERIFIER.verify(&text, now).is_err());
    }

    #[test]
    fn arbitrary_signed_payloads_never_panic(payload in any::<Vec<u8>>(), now in any::<i64>()) {
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &PKCS8).unwrap();
        let signed = format!("{}.{}", b64(header().to_string()), b64(payload));
        let signature = pair.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        let token = [signed, b64(signature)].join(".");
        prop_assert!(VERIFIER.verify(&token, now).is_err());
    }

    #[test]
    fn whatever_is_minted_is_verified_and_says_the_same(
        subject in "\\PC{1,40}", scope in any::<String>(), name in any::<String>(), value in any::<String>(),
        group in any::<String>(), life in -10_i64..400,
    ) {
        let principal = Principal { subject: subject.as_str().into(), ..ana() };
        let params: [(Arc<str>, String); 1] = [(name.as_str().into(), value.clone())];
        let groups: [Arc<str>; 1] = [group.as_str().into()];
        let claims = Claims {
            scope: &scope, params: &params, groups: &groups, expires_at: NOW + life, ..claims(&principal)
        };
        match EDGE_KEY.mint(&claims) {
            Ok(token) => {
                let verified = VERIFIER.verify(&token, NOW).unwrap();
                prop_assert_eq!((verified.subject(), verified.scope()), (subject.as_str(), scope.as_str()));
                prop_assert_eq!(&verified.claims()["tctx"]["p"], &json!({ name: value }));
                prop_assert_eq!(&verified.claims()["tctx"]["g"], &json!([group]));
            }
            Err(MintError::Claims(_)) => prop_assert!(scope.is_empty() || !(1..=300).contains(&life)),
            Err(MintError::TooLarge(bytes)) => prop_assert!(bytes > BYTES_MAX),
            Err(MintError::Signature) => prop_assert!(false, "no signature"),
        }
    }
}
