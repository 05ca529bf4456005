//! Every way a compact JWS is refused, with another library and the RFCs' own examples as witnesses of what is valid.
use super::*;
use crate::json::JsonError;
use crate::jwk::made::{Signer, b64, jwks};
use proptest::prelude::*;
use serde_json::json;
use std::sync::LazyLock;

const BYTES_MAX: usize = 16 * 1024;
const PAYLOAD: &str = r#"{"sub":"ana"}"#;

static EC: LazyLock<Signer> = LazyLock::new(|| Signer::new(Algorithm::Es256));
static RSA: LazyLock<Signer> = LazyLock::new(|| Signer::new(Algorithm::Rs256));

fn set(keys: &[Value]) -> KeySet {
    KeySet::parse(&jwks(keys)).unwrap().0
}

/// A set of an EC key `ec` and an RSA key `rsa` without `alg`.
fn both() -> KeySet {
    set(&[EC.jwk("ec"), RSA.jwk("rsa")])
}

fn verify(token: &str, keys: &KeySet, allowed: &[Algorithm]) -> Result<Verified, JwsError> {
    Unverified::parse(token, BYTES_MAX)?.verify(keys, allowed)
}

/// A token signed by the EC key `ec` with this header is refused so.
fn check_header(header: &str, expected: Result<(), JwsError>) {
    let got = verify(&EC.token(header, PAYLOAD), &both(), &Algorithm::ALL);
    assert_eq!(got.map(|_| ()), expected, "{header}");
}

fn check_shape(token: &str) {
    assert_eq!(Unverified::parse(token, BYTES_MAX).map(|_| ()).unwrap_err(), JwsError::Shape, "{token}");
}

fn good() -> String {
    EC.token(r#"{"alg":"ES256","kid":"ec","typ":"at+jwt"}"#, PAYLOAD)
}

#[test]
fn a_good_token_is_proof_of_key_algorithm_and_payload() {
    let token = good();
    let unverified = Unverified::parse(&token, BYTES_MAX).unwrap();
    assert_eq!(
        (unverified.algorithm(), unverified.kid(), unverified.typ()),
        (Algorithm::Es256, Some("ec"), Some("at+jwt"))
    );
    assert_eq!(unverified.danger_unverified_payload(), PAYLOAD.as_bytes());
    assert_eq!(unverified.danger_unverified_header()["alg"], "ES256");
    let verified = unverified.verify(&both(), &[Algorithm::Es256]).unwrap();
    assert_eq!((verified.payload(), verified.typ()), (PAYLOAD.as_bytes(), Some("at+jwt")));
    assert_eq!((verified.key().kid(), verified.algorithm()), (Some("ec"), Algorithm::Es256));
    // The payload need not be JSON for the signature to be judged.
    assert!(verify(&EC.token(r#"{"alg":"ES256","kid":"ec"}"#, b"\xff\0"), &both(), &[Algorithm::Es256]).is_ok());
}

#[test]
fn every_algorithm_works_and_only_where_it_is_allowed() {
    for algorithm in Algorithm::ALL {
        let signer = Signer::new(algorithm);
        let token = signer.token(json!({"alg": algorithm.name(), "kid": "k"}).to_string(), PAYLOAD);
        let keys = set(&[signer.jwk("k")]);
        assert!(verify(&token, &keys, &[algorithm]).is_ok(), "{algorithm:?}");
        let others: Vec<Algorithm> = Algorithm::ALL.into_iter().filter(|other| *other != algorithm).collect();
        let refused = JwsError::Algorithm(algorithm.name().to_owned());
        assert_eq!(verify(&token, &keys, &others).unwrap_err(), refused);
        assert_eq!(verify(&token, &keys, &[]).unwrap_err(), refused);
    }
}

#[test]
fn only_three_parts_of_canonical_base64url_are_a_token() {
    let token = good();
    let [header, payload, signature] = token.split('.').collect::<Vec<_>>()[..] else { panic!() };
    for shape in ["", ".", "..", "...", "a", "a.b", "a.b.c.d", "YQ.YQ.YQ.YQ.YQ"] {
        check_shape(shape);
    }
    check_shape(&format!("{header}.{payload}"));
    check_shape(&format!("{header}.{payload}."));
    check_shape(&format!("{header}..{signature}"));
    check_shape(&format!(".{payload}.{signature}"));
    check_shape(&format!("{token}."));
    check_shape(&format!(".{token}"));
    for odd in ["=", "==", " ", "\n", "\r\n", "\t", "\0", "+", "/", "%", "é"] {
        for text in [
            format!("{token}{odd}"),
            format!("{odd}{token}"),
            format!("{header}{odd}.{payload}.{signature}"),
            format!("{header}.{payload}{odd}.{signature}"),
            format!("{header}.{odd}{payload}.{signature}"),
        ] {
            check_shape(&text);
        }
    }
    // 64 bytes leave two bits in the last character that say nothing: three further spellings of the same signature.
    let (start, last) = signature.split_at(signature.len() - 1);
    let same = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let spellings =
        same.chars().filter(|c| verify(&format!("{header}.{payload}.{start}{c}"), &both(), &Algorithm::ALL).is_ok());
    assert_eq!(spellings.collect::<String>(), last);
}

#[test]
fn api_56_size_is_bounded_before_anything_is_read() {
    let token = EC.token(r#"{"alg":"ES256","kid":"ec"}"#, vec![b' '; 64 * 1024]);
    assert_eq!(Unverified::parse(&token, BYTES_MAX).map(|_| ()).unwrap_err(), JwsError::TooLarge(BYTES_MAX));
    let token = good();
    assert!(Unverified::parse(&token, token.len()).is_ok());
    assert_eq!(
        Unverified::parse(&token, token.len() - 1).map(|_| ()).unwrap_err(),
        JwsError::TooLarge(token.len() - 1)
    );
    let long = format!(r#"{{"alg":"ES256","kid":"ec","x":"{}"}}"#, "x".repeat(HEADER_BYTES_MAX));
    check_header(&long, Err(JwsError::Header(JsonError::TooLarge(HEADER_BYTES_MAX))));
}

#[test]
fn api_49_alg_none_and_confusions() {
    let algorithm = |name: &str| Err(JwsError::Algorithm(name.to_owned()));
    for name in ["none", "None", "nOnE", "HS256", "HS512", "ES256K", "es256", "RSA-OAEP", "dir", ""] {
        check_header(&json!({"alg": name, "kid": "ec"}).to_string(), algorithm(name));
    }
    for header in [r#"{"kid":"ec"}"#, r#"{"alg":null}"#, r#"{"alg":["ES256"]}"#, r#"{"alg":1}"#, r#"{"ALG":"ES256"}"#] {
        check_header(header, algorithm(""));
    }
    // `none` with an empty signature is no token at all.
    check_shape(&format!("{}.{}.", b64(r#"{"alg":"none"}"#), b64(PAYLOAD)));

    // HS256 keyed with the RSA public key, as a verifier that trusts `alg` would compute it.
    let signed = format!("{}.{}", b64(r#"{"alg":"HS256","kid":"rsa"}"#), b64(PAYLOAD));
    let secret = serde_json::to_vec(&RSA.jwk("rsa")).unwrap();
    let mac =
        aws_lc_rs::hmac::sign(&aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &secret), signed.as_bytes());
    let token = format!("{signed}.{}", b64(mac));
    assert_eq!(verify(&token, &both(), &Algorithm::ALL).unwrap_err(), JwsError::Algorithm("HS256".into()));

    // RS256 → PS256: the key says RS256, so a PSS signature of the very same key is refused, and the other way round.
    let with_alg = |name: &str| {
        let mut key = RSA.jwk("rsa");
        key["alg"] = json!(name);
        set(&[key])
    };
    for (said, used) in [("RS256", Algorithm::Ps256), ("PS256", Algorithm::Rs256), ("RS256", Algorithm::Rs512)] {
        let signed = format!("{}.{}", b64(json!({"alg": used.name(), "kid": "rsa"}).to_string()), b64(PAYLOAD));
        let token = format!("{signed}.{}", b64(RSA.sign_as(used, signed.as_bytes())));
        assert_eq!(
            verify(&token, &with_alg(said), &Algorithm::ALL).unwrap_err(),
            JwsError::Signature,
            "{said} {used:?}"
        );
        assert!(verify(&token, &with_alg(used.name()), &Algorithm::ALL).is_ok());
    }
    // One algorithm named, another used to sign.
    let signed = format!("{}.{}", b64(r#"{"alg":"RS256","kid":"rsa"}"#), b64(PAYLOAD));
    let token = format!("{signed}.{}", b64(RSA.sign_as(Algorithm::Ps256, signed.as_bytes())));
    assert_eq!(verify(&token, &both(), &Algorithm::ALL).unwrap_err(), JwsError::Signature);

    // ES256 with the kid of an RSA key, and RS256 with that of an EC key: known kid, so no key is fetched for it.
    check_header(r#"{"alg":"ES256","kid":"rsa"}"#, Err(JwsError::Signature));
    check_header(r#"{"alg":"RS256","kid":"ec"}"#, Err(JwsError::Signature));
    check_header(r#"{"alg":"ES384","kid":"ec"}"#, Err(JwsError::Signature));
}

#[test]
fn es256_signatures_are_raw_r_and_s_of_exact_length() {
    let signed = format!("{}.{}", b64(r#"{"alg":"ES256","kid":"ec"}"#), b64(PAYLOAD));
    let raw = EC.sign_as(Algorithm::Es256, signed.as_bytes());
    let refuse = |signature: &[u8]| {
        let token = format!("{signed}.{}", b64(signature));
        assert_eq!(verify(&token, &both(), &Algorithm::ALL).unwrap_err(), JwsError::Signature, "{}", signature.len());
    };
    let integer = |number: &[u8]| {
        let sign = if number[0] > 127 { vec![0] } else { vec![] };
        [vec![2, (number.len() + sign.len()) as u8], sign, number.to_vec()].concat()
    };
    let (r, s) = (integer(&raw[..32]), integer(&raw[32..]));
    refuse(&[vec![0x30, (r.len() + s.len()) as u8], r, s].concat());
    refuse(&[&raw[..], &[0]].concat());
    refuse(&raw[..63]);
    refuse(&[&[0; 32], &raw[32..]].concat());
    refuse(&[&raw[..32], &[0; 32]].concat());
    refuse(&[0; 64]);
    refuse(&[0xff; 64]);
    refuse(&[&raw[32..], &raw[..32]].concat());
}

#[test]
fn api_50_a_header_never_brings_its_own_key() {
    let attacker = Signer::new(Algorithm::Es256);
    let jwk = attacker.jwk("ec");
    for (name, value) in [
        ("jku", json!("https://attacker.example/jwks.json")),
        ("jwk", jwk.clone()),
        ("x5u", json!("https://attacker.example/cert.pem")),
        ("x5c", json!(["MIIB"])),
        ("jwk", Value::Null),
    ] {
        let mut header = json!({"alg": "ES256", "kid": "ec"});
        header[name] = value;
        let refused = Err(JwsError::HeaderForbidden(name.to_owned()));
        check_header(&header.to_string(), refused.clone());
        let token = attacker.token(header.to_string(), PAYLOAD);
        assert_eq!(verify(&token, &both(), &Algorithm::ALL).map(|_| ()), refused);
    }
    // Entra names its certificate by `x5t`: a name is no key.
    check_header(r#"{"alg":"ES256","kid":"ec","x5t":"abc","x5t#S256":"def"}"#, Ok(()));
    let token = attacker.token(r#"{"alg":"ES256","kid":"ec"}"#, PAYLOAD);
    assert_eq!(verify(&token, &both(), &Algorithm::ALL).unwrap_err(), JwsError::Signature);
}

#[test]
fn api_53_unknown_obligations_are_refused() {
    let refused = |name: &str| Err(JwsError::HeaderForbidden(name.to_owned()));
    check_header(r#"{"alg":"ES256","kid":"ec","crit":["exp"],"exp":1}"#, refused("crit"));
    check_header(r#"{"alg":"ES256","kid":"ec","crit":[]}"#, refused("crit"));
    check_header(r#"{"alg":"ES256","kid":"ec","b64":false}"#, refused("b64"));
    check_header(r#"{"alg":"ES256","kid":"ec","b64":true}"#, refused("b64"));
    check_header(r#"{"alg":"ES256","kid":"ec","b64":false,"crit":["b64"]}"#, refused("crit"));
    check_header(r#"{"alg":"ES256","kid":"ec","zip":"DEF"}"#, refused("zip"));
    check_header(r#"{"alg":"ES256","kid":"ec","unknown":{"a":[1]}}"#, Ok(()));
}

#[test]
fn api_56_a_header_has_one_meaning() {
    let header = |error| Err(JwsError::Header(error));
    check_header(r#"{"alg":"ES256","alg":"none","kid":"ec"}"#, header(JsonError::Duplicate("alg".into())));
    check_header(r#"{"alg":"ES256","kid":"ec","\u006bid":"rsa"}"#, header(JsonError::Duplicate("kid".into())));
    check_header(r#"{"alg":"ES256","kid":"ec"} x"#, header(JsonError::Syntax));
    check_header(r#"[{"alg":"ES256"}]"#, header(JsonError::Syntax));
    check_header(&format!(r#"{{"a":{}{}}}"#, "[".repeat(1000), "]".repeat(1000)), header(JsonError::TooDeep(32)));
    check_header(r#"{"alg":"ES256","kid":7}"#, Err(JwsError::HeaderForbidden("kid".into())));
    check_header(r#"{"alg":"ES256","kid":null}"#, Err(JwsError::HeaderForbidden("kid".into())));
    check_header(r#"{"alg":"ES256","kid":"ec","typ":1}"#, Err(JwsError::HeaderForbidden("typ".into())));
    let long = json!({"alg": "ES256", "kid": "k".repeat(KID_BYTES_MAX + 1)}).to_string();
    check_header(&long, Err(JwsError::HeaderForbidden("kid".into())));
}

#[test]
fn an_unknown_kid_is_told_apart_from_a_wrong_signature() {
    let unknown = |kid: &str| Err(JwsError::KeyUnknown(Some(kid.to_owned())));
    check_header(r#"{"alg":"ES256","kid":"EC"}"#, unknown("EC"));
    check_header(r#"{"alg":"ES256","kid":""}"#, unknown(""));
    check_header(r#"{"alg":"ES256","kid":"../../etc\n\u001b[31m"}"#, unknown("../../etc\\n\\u{1b}[31m"));
    check_header(r#"{"alg":"ES512"}"#, Err(JwsError::KeyUnknown(None)));
    assert_eq!(
        verify(&good(), &KeySet::default(), &Algorithm::ALL).unwrap_err(),
        JwsError::KeyUnknown(Some("ec".to_owned()))
    );
    let other = set(&[Signer::new(Algorithm::Es256).jwk("ec")]);
    assert_eq!(verify(&good(), &other, &Algorithm::ALL).unwrap_err(), JwsError::Signature);
}

#[test]
fn api_45_keys_that_share_a_kid_are_each_tried() {
    let other = Signer::new(Algorithm::Es256);
    let token = good();
    for keys in [[EC.jwk("ec"), other.jwk("ec")], [other.jwk("ec"), EC.jwk("ec")], [RSA.jwk("ec"), EC.jwk("ec")]] {
        let verified = verify(&token, &set(&keys), &Algorithm::ALL).unwrap();
        assert_eq!(verified.key().thumbprint(), both().keys()[0].thumbprint());
    }
}

#[test]
fn without_kid_at_most_four_fitting_keys_are_tried() {
    let token = EC.token(r#"{"alg":"ES256"}"#, PAYLOAD);
    let others: Vec<Value> = (0..4).map(|at| Signer::new(Algorithm::Es256).jwk(&format!("o{at}"))).collect();
    let rsa: Vec<Value> = (0..4).map(|_| RSA.jwk("rsa")).collect();
    let after =
        |before: &[Value]| verify(&token, &set(&[before, &[EC.jwk("ec")]].concat()), &Algorithm::ALL).map(|_| ());
    assert_eq!(after(&[]), Ok(()));
    assert_eq!(after(&others[..3]), Ok(()));
    assert_eq!(after(&[&rsa[..], &others[..3]].concat()), Ok(()), "keys of another type do not count");
    assert_eq!(after(&others), Err(JwsError::Signature));
}

#[test]
fn rfc_7515_and_8037_examples_are_accepted_and_hs256s_is_not() {
    let check = |key: Value, token: &str, payload: &[u8], algorithm| {
        let verified = verify(token, &set(&[key]), &[algorithm]).unwrap();
        assert_eq!(verified.payload(), payload);
    };
    let joe = b"{\"iss\":\"joe\",\r\n \"exp\":1300819380,\r\n \"http://example.com/is_root\":true}";
    // RFC 7515 §A.3.
    check(
        json!({"kty": "EC", "crv": "P-256",
            "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}),
        "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ\
         .DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q",
        joe,
        Algorithm::Es256,
    );
    // RFC 8037 §A.4.
    check(
        json!({"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}),
        "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc\
         .hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg",
        b"Example of Ed25519 signing",
        Algorithm::EdDsa,
    );
    // RFC 7515 §A.1.
    let hs256 = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxl\
                 LmNvbS9pc19yb290Ijp0cnVlfQ.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
    assert_eq!(Unverified::parse(hs256, BYTES_MAX).map(|_| ()).unwrap_err(), JwsError::Algorithm("HS256".into()));
}

/// The same tokens before the library most Rust services use: a witness of what we must accept, and a list of what it
/// lets through that we do not.
mod oracle {
    use super::*;
    use jsonwebtoken as jwt;

    fn pairs() -> [(Algorithm, jwt::Algorithm); 9] {
        use {Algorithm as A, jwt::Algorithm as B};
        [
            (A::Es256, B::ES256),
            (A::Es384, B::ES384),
            (A::EdDsa, B::EdDSA),
            (A::Rs256, B::RS256),
            (A::Rs384, B::RS384),
            (A::Rs512, B::RS512),
            (A::Ps256, B::PS256),
            (A::Ps384, B::PS384),
            (A::Ps512, B::PS512),
        ]
    }

    fn encoding_key(signer: &Signer) -> jwt::EncodingKey {
        let pkcs8 = signer.pkcs8();
        match signer.algorithm {
            Algorithm::Es256 | Algorithm::Es384 => jwt::EncodingKey::from_ec_der(&pkcs8),
            Algorithm::EdDsa => jwt::EncodingKey::from_ed_der(&pkcs8),
            // PKCS#8 puts 26 bytes before the RSAPrivateKey of a 2048-bit key, which is what this constructor wants.
            _ => jwt::EncodingKey::from_rsa_der(&pkcs8[26..]),
        }
    }

    fn accepts(token: &str, signer: &Signer, algorithm: jwt::Algorithm) -> bool {
        let jwk: jwt::jwk::Jwk = serde_json::from_value(signer.jwk("k")).unwrap();
        let mut validation = jwt::Validation::new(algorithm);
        validation.set_audience(&["acme"]);
        validation.set_issuer(&["https://id.example"]);
        jwt::decode::<Value>(token, &jwt::DecodingKey::from_jwk(&jwk).unwrap(), &validation).is_ok()
    }

    #[test]
    fn what_jsonwebtoken_signs_we_accept_and_the_other_way_round() {
        let claims = json!({"iss": "https://id.example", "aud": "acme", "exp": 4_000_000_000_i64});
        for (ours, theirs) in pairs() {
            let signer = Signer::new(ours);
            let mut header = jwt::Header::new(theirs);
            header.kid = Some("k".to_owned());
            let token = jwt::encode(&header, &claims, &encoding_key(&signer)).unwrap();
            let verified = verify(&token, &set(&[signer.jwk("k")]), &[ours]).unwrap();
            assert_eq!(json::object(verified.payload(), BYTES_MAX).map(Value::Object), Ok(claims.clone()));
            let token = signer.token(json!({"alg": ours.name(), "kid": "k"}).to_string(), claims.to_string());
            assert!(accepts(&token, &signer, theirs), "{ours:?}");
        }
    }

    #[test]
    fn what_jsonwebtoken_lets_through_and_we_refuse() {
        let claims = r#"{"iss":"https://id.example","aud":"acme","exp":4000000000}"#;
        let check = |header: &str, payload: &str| {
            let token = EC.token(header, payload);
            assert!(accepts(&token, &EC, jwt::Algorithm::ES256), "{header} {payload}");
            let verified = verify(&token, &set(&[EC.jwk("k")]), &[Algorithm::Es256]);
            let read = verified.is_ok_and(|verified| json::object(verified.payload(), BYTES_MAX).is_ok());
            assert!(!read, "{header} {payload}");
        };
        check(r#"{"alg":"ES256","kid":"k","crit":["x"],"x":1}"#, claims);
        check(r#"{"alg":"ES256","kid":"k","b64":false}"#, claims);
        check(r#"{"alg":"ES256","kid":"k","jku":"https://attacker.example"}"#, claims);
        check(r#"{"alg":"ES256","kid":"k","x5u":"https://attacker.example"}"#, claims);
        check(r#"{"alg":"ES256","kid":"k","x5c":["MIIB"]}"#, claims);
        check(r#"{"alg":"ES256","kid":"k","zip":"DEF"}"#, claims);
        check(r#"{"alg":"ES256","kid":"other"}"#, claims);
        let twice = r#"{"iss":"https://id.example","aud":"acme","exp":4000000000,"groups":["a"],"groups":["admins"]}"#;
        check(r#"{"alg":"ES256","kid":"k"}"#, twice);
        let deep = format!(
            r#"{{"iss":"https://id.example","aud":"acme","exp":4000000000,"a":{}{}}}"#,
            "[".repeat(100),
            "]".repeat(100)
        );
        check(r#"{"alg":"ES256","kid":"k"}"#, &deep);
    }
}

proptest! {
    #[test]
    fn arbitrary_text_never_panics(text in any::<String>()) {
        let _ = Unverified::parse(&text, 512);
    }

    #[test]
    fn arbitrary_parts_never_panic(header in any::<Vec<u8>>(), payload in any::<Vec<u8>>(), signature in any::<Vec<u8>>()) {
        let token = format!("{}.{}.{}", b64(header), b64(payload), b64(signature));
        let _ = verify(&token, &both(), &Algorithm::ALL);
    }

    #[test]
    fn any_header_of_ours_never_panics_and_only_the_right_one_verifies(
        alg in "ES256|RS256|none|HS256", kid in "ec|rsa|x", more in "|,\"typ\":\"JWT\"|,\"crit\":\\[\\]|,\"alg\":\"ES256\"",
    ) {
        let header = format!(r#"{{"alg":"{alg}","kid":"{kid}"{more}}}"#);
        let right = alg == "ES256" && kid == "ec" && !more.contains("crit") && !more.contains("alg");
        prop_assert_eq!(verify(&EC.token(&header, PAYLOAD), &both(), &Algorithm::ALL).is_ok(), right);
    }
}

#[test]
fn every_flipped_bit_of_every_byte_is_refused() {
    for (token, keys) in [(good(), both()), (RSA.token(r#"{"alg":"RS256","kid":"rsa"}"#, PAYLOAD), both())] {
        assert!(verify(&token, &keys, &Algorithm::ALL).is_ok());
        for at in 0..token.len() {
            for bit in 0..8 {
                let mut bytes = token.clone().into_bytes();
                bytes[at] ^= 1 << bit;
                let Ok(flipped) = String::from_utf8(bytes) else { continue };
                assert!(verify(&flipped, &keys, &Algorithm::ALL).is_err(), "byte {at}, bit {bit}");
            }
        }
    }
}
