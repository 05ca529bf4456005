//! What a token costs: reading its JSON, checking an issuer's signature, minting and checking a Txn-Token.
//!
//! `cargo bench -p trust --bench tokens`. The rows named "maths alone" are the signature check without any parsing: the
//! difference to the row above is what our own reading costs.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use criterion::{Criterion, criterion_group, criterion_main};
use serde_json::{Value, json};
use std::hint::black_box;
use std::sync::Arc;
use trust::jwk::{Algorithm, KeySet};
use trust::jws::Unverified;
use trust::principal::{Assurance, Kind, Membership, Principal};
use trust::txn::{Claims, PublishedKeys, SigningKey, Verifier};

const NOW: i64 = 1_795_000_000;
const EDGE: &str = "spiffe://acme.example/edge/eu1";
const BYTES_MAX: usize = 16 * 1024;

fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The claims of an ordinary access token, about 700 bytes.
fn access_claims() -> String {
    json!({
        "iss": "https://login.example/2f4c7a10-0000-4000-8000-1234567890ab/v2.0", "aud": "api://acme",
        "sub": "AAAAAAAAAAAAAAAAAAAAAIkzqFVrSaSaFHy782bbtaQ", "oid": "00000000-0000-0000-66f3-3332eca7ea81",
        "tid": "2f4c7a10-0000-4000-8000-1234567890ab", "azp": "9a1e0000-1111-2222-3333-444455556666", "ver": "2.0",
        "iat": NOW, "nbf": NOW, "exp": NOW + 3600, "scp": "orders.read orders.write", "name": "Ana Example",
        "groups": ["support", "staff", "oncall", "berlin", "vpn"], "roles": ["reader"], "uti": "fqiBqXLPj0eQa82S-IYFAA",
    })
    .to_string()
}

fn keys(jwk: &Value) -> KeySet {
    let document = json!({ "keys": [jwk] }).to_string();
    KeySet::parse(document.as_bytes()).map(|(keys, _)| keys).unwrap_or_default()
}

/// An ES256 token and the keys to check it with.
fn es256() -> (String, KeySet) {
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).ok();
    let Some(pair) = pair else { return Default::default() };
    let point = pair.public_key().as_ref();
    let (x, y) = (b64(point.get(1..33).unwrap_or_default()), b64(point.get(33..).unwrap_or_default()));
    let signed = signing_input("ES256");
    let signature = pair.sign(&SystemRandom::new(), signed.as_bytes()).map(b64).unwrap_or_default();
    let jwk = json!({"kty": "EC", "crv": "P-256", "x": x, "y": y, "kid": "k"});
    (format!("{signed}.{signature}"), keys(&jwk))
}

/// An RS256 token of a 2048-bit key, and the keys to check it with.
fn rs256() -> (String, KeySet) {
    let Ok(pair) = RsaKeyPair::generate(KeySize::Rsa2048) else { return Default::default() };
    let modulus = pair.public_key().modulus().big_endian_without_leading_zero().to_vec();
    let signed = signing_input("RS256");
    let mut signature = vec![0; pair.public_modulus_len()];
    let done = pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), signed.as_bytes(), &mut signature);
    assert!(done.is_ok());
    let jwk = json!({"kty": "RSA", "n": b64(modulus), "e": "AQAB", "kid": "k"});
    (format!("{signed}.{}", b64(signature)), keys(&jwk))
}

fn signing_input(algorithm: &str) -> String {
    let header = json!({"alg": algorithm, "kid": "k", "typ": "at+jwt"}).to_string();
    format!("{}.{}", b64(header), b64(access_claims()))
}

fn verify(criterion: &mut Criterion, name: &str, algorithm: Algorithm, (token, keys): (String, KeySet)) {
    let check = || Unverified::parse(black_box(&token), BYTES_MAX).and_then(|token| token.verify(&keys, &[algorithm]));
    assert!(check().is_ok());
    criterion.bench_function(&format!("jws/{name} verify"), |bencher| bencher.iter(check));
    let (signed, signature) = token.rsplit_once('.').unwrap_or_default();
    let signature = URL_SAFE_NO_PAD.decode(signature).unwrap_or_default();
    let key = keys.keys().first().cloned();
    let check = || key.as_ref().is_some_and(|key| key.check(algorithm, black_box(signed.as_bytes()), &signature));
    assert!(check());
    criterion.bench_function(&format!("jws/{name} maths alone"), |bencher| bencher.iter(check));
}

fn signatures(criterion: &mut Criterion) {
    verify(criterion, "ES256", Algorithm::Es256, es256());
    verify(criterion, "RS256", Algorithm::Rs256, rs256());
}

fn documents(criterion: &mut Criterion) {
    let claims = access_claims();
    criterion.bench_function("json/access claims", |bencher| {
        bencher.iter(|| trust::json::object(black_box(claims.as_bytes()), BYTES_MAX));
    });
    let groups: Vec<String> = (0..5_000).map(|at| format!("group-{at:05}")).collect();
    let many = json!({ "groups": groups }).to_string();
    criterion.bench_function("json/5,000 groups", |bencher| {
        bencher.iter(|| trust::json::object(black_box(many.as_bytes()), 256 * 1024));
    });
}

fn ana() -> Principal {
    Principal {
        kind: Kind::Person,
        subject: "okta|00u1abcd".into(),
        issuer: "okta".into(),
        id: "00u1abcd".into(),
        client: Some("9a1e".into()),
        groups: Membership::complete(["support".into(), "staff".into()]),
        roles: Membership::complete([]),
        scopes: Membership::complete([]),
        agent: None,
        assurance: Assurance { amr: vec!["hwk".into()], auth_time: Some(NOW - 60), ..Assurance::default() },
        expires_at: NOW + 3600,
    }
}

fn transaction_tokens(criterion: &mut Criterion) {
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new()).ok();
    let key = pkcs8.and_then(|pkcs8| SigningKey::from_pkcs8(pkcs8.as_ref(), EDGE, NOW - 60, NOW + 3600));
    let Some(key) = key else { return };
    let principal = ana();
    let groups: [Arc<str>; 1] = ["support".into()];
    let binding = trust::token::Binding::default();
    let claims = Claims {
        audience: "acme.example",
        txn: uuid::Uuid::from_u128(0x0193_e4c2_0000_7000_8000_0000_0000_0001),
        issued_at: NOW,
        expires_at: NOW + 60,
        principal: &principal,
        scope: "orders.read",
        req_wl: EDGE,
        req_ip: Some("203.0.113.0/24"),
        sid: None,
        binding: &binding,
        route: "orders:GET /orders/{id}",
        params: &[],
        groups: &groups,
    };
    criterion.bench_function("txn/mint", |bencher| bencher.iter(|| key.mint(black_box(&claims))));
    let token = key.mint(&claims).unwrap_or_default();
    let published = PublishedKeys { seq: 1, keys: vec![key.published().clone()] };
    let verifier = Verifier::new("acme.example", &published, |_| true);
    assert!(verifier.verify(&token, NOW).is_ok());
    criterion.bench_function("txn/verify", |bencher| bencher.iter(|| verifier.verify(black_box(&token), NOW)));
}

criterion_group!(benches, documents, signatures, transaction_tokens);
criterion_main!(benches);
