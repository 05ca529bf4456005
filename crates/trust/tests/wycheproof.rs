//! The Wycheproof vectors for every signature algorithm we accept: forged, malformed, truncated and edge-case signatures,
//! judged through the same key that a JWKS gives. Their verdict is ours, without exception.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test file as a whole: a vector that is not as expected ends the test"
)]

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use trust::jwk::{Algorithm, VerifyingKey};
use wycheproof::{ecdsa, eddsa, rsa_pkcs1_verify as pkcs1, rsa_pss_verify as pss};

fn hex(text: &Value) -> Vec<u8> {
    let digits = text.as_str().unwrap().as_bytes();
    let digit = |at: usize| (digits[at] as char).to_digit(16).unwrap() as u8;
    (0..digits.len() / 2).map(|at| digit(2 * at) << 4 | digit(2 * at + 1)).collect()
}

fn number(hexadecimal: &Value) -> String {
    URL_SAFE_NO_PAD.encode(hex(hexadecimal))
}

/// The JWK of a group, made from its raw key: the vectors leave some of their own JWKs out.
fn jwk(group: &Value, algorithm: Algorithm) -> Value {
    let key = &group["publicKey"];
    let mut jwk = if key.get("uncompressed").is_some() {
        let point = hex(&key["uncompressed"]);
        let (x, y) = point[1..].split_at(point.len() / 2);
        let crv = match algorithm {
            Algorithm::Es256 => "P-256",
            Algorithm::Es384 => "P-384",
            _ => "P-521",
        };
        json!({"kty": "EC", "crv": crv, "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y)})
    } else if key.get("pk").is_some() {
        json!({"kty": "OKP", "crv": "Ed25519", "x": number(&key["pk"])})
    } else {
        json!({"kty": "RSA", "n": number(&key["modulus"]), "e": number(&key["publicExponent"])})
    };
    jwk["alg"] = json!(algorithm.name());
    jwk
}

/// Every test of the set gets its verdict, and there are at least `tests_min` of them.
fn check(data: &str, algorithm: Algorithm, tests_min: usize) {
    let set: Value = serde_json::from_str(data).unwrap();
    let mut tests = 0;
    for group in set["testGroups"].as_array().unwrap() {
        let jwk = jwk(group, algorithm);
        let key = VerifyingKey::from_jwk(jwk.as_object().unwrap()).unwrap_or_else(|why| panic!("{jwk}: {why}"));
        for test in group["tests"].as_array().unwrap() {
            let accepted = key.check(algorithm, &hex(&test["msg"]), &hex(&test["sig"]));
            match test["result"].as_str().unwrap() {
                "valid" => assert!(accepted, "{algorithm:?} {test}"),
                "invalid" => assert!(!accepted, "{algorithm:?} {test}"),
                // Legacy encodings that a verifier may refuse: we do.
                _ => assert!(!accepted, "{algorithm:?} {test}"),
            }
            tests += 1;
        }
    }
    assert!(tests >= tests_min, "{algorithm:?}: only {tests} tests");
}

#[test]
fn ecdsa_raw_signatures() {
    check(ecdsa::TestName::EcdsaSecp256r1Sha256P1363.json_data(), Algorithm::Es256, 200);
    check(ecdsa::TestName::EcdsaSecp384r1Sha384P1363.json_data(), Algorithm::Es384, 200);
    check(ecdsa::TestName::EcdsaSecp521r1Sha512P1363.json_data(), Algorithm::Es512, 200);
}

#[test]
fn ed25519_signatures() {
    check(eddsa::TestName::Ed25519.json_data(), Algorithm::EdDsa, 100);
}

#[test]
fn rsa_pkcs1_signatures() {
    check(pkcs1::TestName::Rsa2048Sha256.json_data(), Algorithm::Rs256, 200);
    check(pkcs1::TestName::Rsa3072Sha384.json_data(), Algorithm::Rs384, 200);
    check(pkcs1::TestName::Rsa4096Sha512.json_data(), Algorithm::Rs512, 200);
    check(pkcs1::TestName::Rsa8192Sha256.json_data(), Algorithm::Rs256, 50);
}

#[test]
fn rsa_pss_signatures_with_a_salt_as_long_as_the_hash() {
    check(pss::TestName::RsaPss2048Sha256Mgf1SaltLen32.json_data(), Algorithm::Ps256, 50);
    check(pss::TestName::RsaPss2048Sha384Mgf1SaltLen48.json_data(), Algorithm::Ps384, 50);
    check(pss::TestName::RsaPss4096Sha512Mgf1SaltLen64.json_data(), Algorithm::Ps512, 50);
}

/// RFC 7518 §3.5 wants the salt as long as the hash; other lengths are another algorithm.
#[test]
fn rsa_pss_signatures_with_another_salt_are_refused() {
    for (data, algorithm) in [
        (pss::TestName::RsaPss2048Sha256Mgf1SaltLen0.json_data(), Algorithm::Ps256),
        (pss::TestName::RsaPss4096Sha512Mgf1SaltLen32.json_data(), Algorithm::Ps512),
    ] {
        let set: Value = serde_json::from_str(data).unwrap();
        for group in set["testGroups"].as_array().unwrap() {
            let key = VerifyingKey::from_jwk(jwk(group, algorithm).as_object().unwrap()).unwrap();
            let valid_elsewhere = |test: &&Value| test["result"] == "valid";
            for test in group["tests"].as_array().unwrap().iter().filter(valid_elsewhere) {
                assert!(!key.check(algorithm, &hex(&test["msg"]), &hex(&test["sig"])), "{algorithm:?} {test}");
            }
        }
    }
}
