//! Proofs against the requests they were, and were not, made for.
use super::*;
use crate::jwk::Algorithm;
use crate::jwk::made::{Signer, b64};
use serde_json::json;
use std::sync::LazyLock;

/// 2026-09-21T13:33:20Z, the moment of every test.
const NOW: i64 = 1_790_000_000;
const TOKEN: &str = "header.payload.signature";
const HTU: &str = "https://shop.acme.example/orders/42";

static SIGNER: LazyLock<Signer> = LazyLock::new(|| Signer::new(Algorithm::Es256));

fn token_sha256() -> [u8; 32] {
    digest(&SHA256, TOKEN.as_bytes()).as_ref().try_into().unwrap()
}

fn claims() -> Value {
    json!({ "jti": "j-1", "htm": "GET", "htu": HTU, "iat": NOW, "ath": b64(token_sha256()) })
}

/// [`claims`] with some replaced; `null` takes one away.
fn but(changes: Value) -> Value {
    let mut claims = claims();
    for (name, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => claims.as_object_mut().unwrap().remove(name),
            value => claims.as_object_mut().unwrap().insert(name.clone(), value.clone()),
        };
    }
    claims
}

fn public(signer: &Signer) -> Value {
    let mut jwk = signer.jwk("k");
    jwk.as_object_mut().unwrap().remove("kid");
    jwk
}

fn header(signer: &Signer) -> Value {
    json!({ "typ": "dpop+jwt", "alg": signer.algorithm.name(), "jwk": public(signer) })
}

fn proof(claims: &Value) -> String {
    SIGNER.token(header(&SIGNER).to_string(), claims.to_string())
}

struct World {
    path: NormalPath,
    token: [u8; 32],
}

fn world(path: &str) -> World {
    World { path: NormalPath::parse(path, Tolerance::default()).unwrap(), token: token_sha256() }
}

impl World {
    fn asked(&self) -> Asked<'_> {
        Asked {
            method: "GET",
            https: true,
            authority: "shop.acme.example",
            path: &self.path,
            tolerance: Tolerance::default(),
            token_sha256: &self.token,
            now: NOW,
        }
    }
}

#[track_caller]
fn check(text: &str, expected: Result<(), &str>) {
    let world = world("/orders/42");
    let got = Proof::verify(text, &world.asked()).map(|_| ()).map_err(|error| error.to_string());
    match (&got, expected) {
        (Err(got), Err(expected)) => assert!(got.contains(expected), "{got}"),
        _ => assert_eq!(got, expected.map_err(str::to_owned), "{text}"),
    }
}

#[track_caller]
fn check_claims(changes: Value, expected: Result<(), &str>) {
    check(&proof(&but(changes)), expected);
}

#[test]
fn a_proof_of_every_algorithm_is_accepted_and_names_its_key() {
    let world = world("/orders/42");
    for algorithm in Algorithm::ALL {
        let signer = Signer::new(algorithm);
        let text = signer.token(header(&signer).to_string(), claims().to_string());
        let proof = Proof::verify(&text, &world.asked()).unwrap_or_else(|error| panic!("{algorithm:?}: {error}"));
        let Value::Object(jwk) = public(&signer) else { unreachable!() };
        assert_eq!(b64(proof.thumbprint()), VerifyingKey::from_jwk(&jwk).unwrap().thumbprint());
        assert!(ALGORITHMS.split(' ').any(|name| name == algorithm.name()));
    }
    assert_eq!(ALGORITHMS.split(' ').count(), Algorithm::ALL.len());
}

#[test]
fn api_67_a_proof_for_another_request_is_refused() {
    check_claims(json!({}), Ok(()));
    check_claims(json!({ "htm": "POST" }), Err("method `POST`"));
    check_claims(json!({ "htm": "get" }), Err("method `get`"));
    check_claims(json!({ "ath": b64([0; 32]) }), Err("another token"));
    check_claims(json!({ "ath": format!("{}=", b64(token_sha256())) }), Err("another token"));
    for claim in ["jti", "htm", "htu", "ath", "iat"] {
        check_claims(json!({ claim: null }), Err(claim));
        check_claims(json!({ claim: "" }), Err(claim));
        check_claims(json!({ claim: [claims()[claim]] }), Err(claim));
    }
    check_claims(json!({ "jti": "j".repeat(256) }), Ok(()));
    check_claims(json!({ "jti": "j".repeat(257) }), Err("jti"));
    check_claims(json!({ "nonce": "n".repeat(257) }), Err("nonce"));
    check_claims(json!({ "nonce": 7 }), Err("nonce"));
}

/// What the client asked for as (https, authority, path), the `htu` of the proof, and whether they are the same.
#[track_caller]
fn check_htu((https, authority, path): (bool, &str, &str), htu: &str, same: bool) {
    let world = world(path);
    let asked = Asked { https, authority, ..world.asked() };
    let got = Proof::verify(&proof(&but(json!({ "htu": htu }))), &asked);
    match same {
        true => assert!(got.is_ok(), "{htu}: {got:?}"),
        false => assert!(matches!(got, Err(ProofError::Url { .. })), "{htu}: {got:?}"),
    }
}

#[test]
fn api_67_htu_is_the_url_the_client_asked_for() {
    let shop = (true, "shop.acme.example", "/orders/42");
    // RFC 3986 §6.2.2 and §6.2.3; query and fragment do not count.
    for same in [
        HTU,
        "HTTPS://Shop.Acme.Example/orders/42",
        "https://shop.acme.example:443/orders/42",
        "https://shop.acme.example:/orders/42",
        "https://shop.acme.example./orders/42",
        "https://shop.acme.example/orders/42?page=1",
        "https://shop.acme.example/orders/42#here",
        "https://shop.acme.example/orders/%34%32",
        "https://shop.acme.example/x/../orders/./42",
    ] {
        check_htu(shop, same, true);
    }
    for other in [
        "http://shop.acme.example/orders/42",
        "https://shop.acme.example:8443/orders/42",
        "https://shop.acme.example:80/orders/42",
        "https://shop.acme.example:+443/orders/42",
        "https://shop.acme.example.evil/orders/42",
        "https://evil@shop.acme.example/orders/42",
        "https://shop.acme.example/Orders/42",
        "https://shop.acme.example/orders/42/",
        "https://shop.acme.example/orders/42/items",
        "https://shop.acme.example//orders/42",
        "https://shop.acme.example/orders%2F42",
        "https://shop.acme.example/orders\\42",
        "https://shop.acme.example/orders/42;x",
        "https://shop.acme.example",
        "https:///orders/42",
        "https:/shop.acme.example/orders/42",
        "//shop.acme.example/orders/42",
        "/orders/42",
        "https://shop.acme%2eexample/orders/42",
        "https://[::1]/orders/42",
        "htu",
    ] {
        check_htu(shop, other, false);
    }
    check_htu((true, "shop.acme.example:8443", "/"), "https://shop.acme.example:8443", true);
    check_htu((true, "shop.acme.example:8443", "/"), "https://shop.acme.example/", false);
    check_htu((false, "shop.acme.example", "/"), "http://shop.acme.example:80/", true);
    check_htu((false, "shop.acme.example", "/"), "https://shop.acme.example/", false);
    check_htu((true, "SHOP.acme.example", "/a"), "https://shop.acme.example/a", true);
    check_htu((true, "[2001:DB8::1]:8443", "/a"), "https://[2001:db8:0:0::1]:8443/a", true);
    check_htu((true, "[2001:db8::1]", "/a"), "https://[2001:db8::2]/a", false);
    check_htu((true, "", "/a"), "https:///a", false);
}

#[test]
fn api_67_a_proof_is_good_for_a_minute_on_either_side() {
    for (iat, good) in [(0, true), (-60, true), (-61, false), (60, true), (61, false), (-600, false), (600, false)] {
        check_claims(json!({ "iat": NOW + iat }), if good { Ok(()) } else { Err("clock") });
    }
    check_claims(json!({ "iat": NOW as f64 + 0.5 }), Ok(()));
    for iat in [json!("1790000000"), json!(-1), json!(1e300), json!(true)] {
        check_claims(json!({ "iat": iat }), Err("iat"));
    }
    // A proof needs no end of its own; one that has it is held to it.
    check_claims(json!({ "exp": NOW + 5, "nbf": NOW - 5 }), Ok(()));
    check_claims(json!({ "exp": NOW - 60 }), Err("clock"));
    check_claims(json!({ "nbf": NOW + 61 }), Err("clock"));
    check_claims(json!({ "exp": "soon" }), Err("exp"));
}

#[test]
fn a8_nothing_but_a_proof_is_a_proof() {
    for typ in [json!("JWT"), json!("at+jwt"), json!("DPOP+JWT"), json!("application/dpop+jwt"), json!(""), Value::Null]
    {
        let mut header = header(&SIGNER);
        header["typ"] = typ.clone();
        let text = SIGNER.token(header.to_string(), claims().to_string());
        check(&text, Err(if typ.is_null() { "`typ`" } else { "not `dpop+jwt`" }));
    }
    let mut header = header(&SIGNER);
    header.as_object_mut().unwrap().remove("typ");
    check(&SIGNER.token(header.to_string(), claims().to_string()), Err("not `dpop+jwt`"));
}

#[test]
fn api_55_a_genuine_proof_is_no_access_token() {
    // With everything an access token would need, and signed by the key of its own header.
    let iss = "https://id.partner.example";
    let dressed =
        but(json!({ "iss": iss, "sub": "ana", "aud": "acme", "client_id": "web", "scope": "x", "exp": NOW + 60 }));
    for text in [proof(&claims()), proof(&dressed)] {
        let refused = crate::token::Peeked::parse(&text).expect_err("a proof");
        assert_eq!(refused.reason, crate::reason::Reason::TokenHeaderForbidden);
    }
    check(&proof(&dressed), Ok(()));
}

#[test]
fn api_67_the_key_is_a_public_one_and_signed_this() {
    let sign = |header: &Value| SIGNER.token(header.to_string(), claims().to_string());
    let with = |changes: Value| {
        let mut header = header(&SIGNER);
        header.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        sign(&header)
    };
    let member = |name: &str, value: Value| {
        let mut jwk = public(&SIGNER);
        jwk[name] = value;
        with(json!({ "jwk": jwk }))
    };
    check(&sign(&header(&SIGNER)), Ok(()));
    check(&member("d", json!("AAAA")), Err("private key members"));
    check(&member("k", json!("AAAA")), Err("private key members"));
    check(&member("alg", json!("RS256")), Err("does not fit"));
    check(&member("use", json!("enc")), Err("`use`"));
    check(&member("x", json!("AAAA")), Err("wrong length"));
    check(&with(json!({ "jwk": { "kty": "oct", "k": "AAAA" } })), Err("symmetric"));
    check(&with(json!({ "jwk": "text" })), Err("`jwk`"));
    check(&with(json!({ "jwk": null })), Err("`jwk`"));
    for name in ["jku", "x5u", "x5c", "crit", "b64", "zip"] {
        check(&with(json!({ name: "x" })), Err(name));
    }
    // Another key than the one that signed: a proof that was tampered with, or made by a thief for the victim's key.
    let other = Signer::new(Algorithm::Es256);
    check(&with(json!({ "jwk": public(&other) })), Err("signature"));
    check(&with(json!({ "alg": "none" })), Err("`none`"));
    check(&with(json!({ "alg": "HS256" })), Err("`HS256`"));
    check(&with(json!({ "alg": "ES384" })), Err("signature"));
    let good = sign(&header(&SIGNER));
    check(good.rsplit_once('.').unwrap().0, Err("three parts"));
    check(&format!("{good}="), Err("three parts"));
    check(&format!("{}.", good.rsplit_once('.').unwrap().0), Err("three parts"));
    check(&"x".repeat(PROOF_BYTES_MAX + 1), Err("larger than"));
    check("", Err("three parts"));
}

#[test]
fn a_claim_that_stands_twice_is_refused() {
    let text = claims().to_string().replacen('{', r#"{"htu":"https://evil.example/","#, 1);
    check(&SIGNER.token(header(&SIGNER).to_string(), text), Err("stands twice"));
}

fn used(jti: &str, iat: i64, now: i64) -> Proof {
    let world = world("/orders/42");
    let text = proof(&but(json!({ "jti": jti, "iat": iat })));
    Proof::verify(&text, &Asked { now, ..world.asked() }).unwrap()
}

#[test]
fn api_67_a_proof_is_used_once_for_as_long_as_it_could_be_used() {
    let mut replays = Replays::default();
    assert_eq!(replays.use_up(&used("a", NOW, NOW), NOW), Ok(()));
    assert_eq!(replays.use_up(&used("a", NOW, NOW), NOW), Err(ReplayError::Used));
    assert_eq!(replays.use_up(&used("b", NOW, NOW), NOW), Ok(()));
    // The same id in a proof made later is the same id.
    assert_eq!(replays.use_up(&used("a", NOW + 40, NOW), NOW), Err(ReplayError::Used));
    // From the future by as much as is accepted: remembered to the last second it is accepted in.
    assert_eq!(replays.use_up(&used("late", NOW + 60, NOW), NOW), Ok(()));
    for now in NOW..=NOW + 120 {
        assert_eq!(replays.use_up(&used("late", NOW + 60, now), now), Err(ReplayError::Used), "{}", now - NOW);
    }
    assert!(replays.len() <= 1, "the others are forgotten");
    assert_eq!(replays.use_up(&used("x", NOW + 900, NOW + 900), NOW + 900), Ok(()));
    assert_eq!(replays.len(), 1);
    // Another key may choose the same id.
    let other = Signer::new(Algorithm::Es256);
    let world = world("/orders/42");
    let text = other.token(header(&other).to_string(), but(json!({ "jti": "x", "iat": NOW + 900 })).to_string());
    let proof = Proof::verify(&text, &Asked { now: NOW + 900, ..world.asked() }).unwrap();
    assert_eq!(replays.use_up(&proof, NOW + 900), Ok(()));
}

#[test]
fn api_67_a_full_memory_refuses_and_forgets_nothing() {
    let mut replays = Replays::new(3);
    for (at, jti) in ["a", "b", "c"].into_iter().enumerate() {
        assert_eq!(replays.use_up(&made_by(at, jti, NOW), NOW), Ok(()));
    }
    assert_eq!(replays.use_up(&made_by(4, "d", NOW), NOW), Err(ReplayError::Full));
    assert_eq!(replays.use_up(&made_by(0, "a", NOW), NOW), Err(ReplayError::Used));
    assert_eq!(replays.use_up(&made_by(4, "d", NOW + 90), NOW + 90), Ok(()), "their time is over");
}

/// A checked proof of the key of this number.
fn made_by(key: usize, jti: &str, issued_at: i64) -> Proof {
    let mut thumbprint = [0; 32];
    thumbprint[..8].copy_from_slice(&key.to_be_bytes());
    Proof { thumbprint, id: identity(&thumbprint, jti), issued_at, nonce: None }
}

#[test]
fn api_67_one_key_cannot_fill_the_memory_for_all() {
    let mut replays = Replays::new(160);
    let mut busy =
        |n: usize, now| (0..n).map(|at| replays.use_up(&made_by(1, &format!("{now} {at}"), now), now)).collect();
    let first: Vec<Result<(), ReplayError>> = busy(200, NOW);
    assert!(first[..80].iter().all(Result::is_ok), "alone it may take half");
    assert!(first[80..].iter().all(|taken| *taken == Err(ReplayError::Share)));
    // Others still have their share, each of them an eighth.
    for (key, allowed) in [(2, 20), (3, 20), (4, 20), (5, 20)] {
        let taken = (0..allowed).map(|at| replays.use_up(&made_by(key, &at.to_string(), NOW), NOW));
        assert!(taken.into_iter().all(|taken| taken == Ok(())), "{key}");
        if key != 5 {
            assert_eq!(replays.use_up(&made_by(key, "more", NOW), NOW), Err(ReplayError::Share), "{key}");
        }
    }
    assert_eq!(replays.use_up(&made_by(6, "more", NOW), NOW), Err(ReplayError::Full));
    assert_eq!(replays.use_up(&made_by(1, "later", NOW + 90), NOW + 90), Ok(()), "what is forgotten counts no longer");
}

#[test]
fn api_67_nonces_end_and_are_ours_alone() {
    let nonces = Nonces::new(&[1; 32]);
    let nonce = nonces.newest(NOW);
    let start = NOW.div_euclid(NONCE_LIFE_S) * NONCE_LIFE_S;
    assert_eq!(nonces.check(&nonce, NOW), Freshness::Newest);
    assert_eq!(nonces.check(&nonce, start + NONCE_LIFE_S - 1), Freshness::Newest);
    assert_eq!(nonces.check(&nonce, start + NONCE_LIFE_S), Freshness::Ending);
    assert_eq!(nonces.check(&nonce, start + 2 * NONCE_LIFE_S - 1), Freshness::Ending);
    assert_eq!(nonces.check(&nonce, start + 2 * NONCE_LIFE_S), Freshness::Refused);
    assert_eq!(nonces.check(&nonce, start - 1), Freshness::Refused);
    assert_eq!(Nonces::new(&[2; 32]).check(&nonce, NOW), Freshness::Refused, "another process");
    for other in ["", "x", "=", &nonce[1..], &format!("{nonce}A"), &nonces.newest(NOW + NONCE_LIFE_S)] {
        assert_eq!(nonces.check(other, NOW), Freshness::Refused, "{other}");
    }
    // RFC 9449 §8.1: NQCHAR only.
    assert!(nonce.bytes().all(|byte| (0x21..=0x7e).contains(&byte) && byte != b'"' && byte != b'\\'));
}
