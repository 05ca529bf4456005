//! Tokens that are wrong in every way we have met, and what a person is told about each.
use super::*;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;
use trust::issuer::Settings;

const NOW: i64 = 1_790_000_000;
/// RFC 7515 appendix A.3.
const RFC_TOKEN: &str = "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";
const RFC_KEYS: &str = r#"{"keys":[{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}]}"#;

fn token(header: Value, payload: impl AsRef<[u8]>) -> String {
    let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    format!("{}.{}.{}", part(header.to_string().as_bytes()), part(payload.as_ref()), part(&[7; 64]))
}

fn es256(claims: Value) -> String {
    token(json!({ "alg": "ES256", "kid": "k1", "typ": "JWT" }), claims.to_string())
}

fn good() -> Value {
    json!({
        "iss": "https://id.acme.example", "aud": "orders", "sub": "u-1", "client_id": "shop",
        "iat": NOW - 60, "exp": NOW + 240, "scope": "read write",
    })
}

fn with(name: &str, value: Value) -> Value {
    let mut claims = good();
    claims[name] = value;
    claims
}

fn profile() -> Profile {
    let settings = Settings {
        name: "acme".into(),
        issuer: Some("https://id.acme.example".into()),
        audience: vec!["orders".into()],
        ..Settings::default()
    };
    Profile::new(settings).unwrap()
}

fn line(finding: &Finding) -> String {
    format!("{:?} {}: {}", finding.mark, finding.name, finding.text)
}

/// Some finding holds each of `expected`; and nothing shows the signature or the whole token.
fn check(input: &str, expected: &[&str]) -> Report {
    let profile = profile();
    let report = inspect(input.as_bytes(), &Judge { profile: Some(&profile), keys: None, now: NOW });
    let text = report.0.iter().map(line).collect::<Vec<_>>().join("\n");
    for part in expected {
        assert!(text.contains(part), "no `{part}` in\n{text}");
    }
    let signature = input.trim().rsplit('.').next().unwrap_or_default();
    assert!(signature.len() < 20 || !text.contains(signature), "the signature is shown\n{text}");
    assert!(!text.contains("eyJ"), "{text}");
    report
}

#[test]
fn a_good_token_is_explained_claim_by_claim() {
    let report = check(
        &es256(good()),
        &[
            "Good kind: a signed token (JWS)",
            "Note alg: `ES256`",
            "Unchecked signature: not checked: give the issuer's keys with --jwks FILE",
            "Note kind: looks like an access token",
            "Good iss: `https://id.acme.example` is issuer `acme`",
            "Good aud: `orders` is ours",
            "Good exp: expires in 4 min (2026-09-21 14:17:20 UTC)",
            "Good iat: issued 1 min ago",
            "Note scope: `read`, `write`",
            "Unchecked edge: would accept it from `acme` if the signature fits",
        ],
    );
    assert_eq!(report.wrong(), 0, "{:?}", report.0);
}

#[test]
fn each_wrong_claim_is_named_with_its_reason() {
    let cases: &[(Value, &str)] = &[
        (with("exp", json!(NOW - 7200)), "Wrong exp: expired 2 h ago"),
        (with("exp", json!("soon")), "Wrong exp: is a text; it must be a number"),
        (with("exp", json!(NOW * 1000)), "milliseconds instead of seconds?"),
        (with("iat", json!(NOW + 600)), "Wrong iat: issued in 10 min"),
        (with("nbf", json!(NOW + 600)), "Wrong nbf: valid only in 10 min"),
        (with("aud", json!(["orders/", "x"])), "Wrong aud: `orders/`, `x`; needed is `orders`"),
        (with("aud", json!(7)), "Wrong aud: is neither a text nor a list"),
        (with("iss", json!("https://id.acme.example/")), "Wrong iss: `https://id.acme.example/` is not issuer `acme`"),
        (with("sub", json!(12)), "Wrong sub: is no text"),
        (with("cnf", json!({ "jkt": "x" })), "Note cnf: bound to a key"),
        (with("hasgroups", json!(true)), "Note groups: not in the token"),
        (with("_claim_names", json!({ "groups": "src1" })), "Note groups: not in the token"),
        (with("at_hash", json!("x")), "looks like an ID token"),
        (with("events", json!({})), "looks like a logout token or security event"),
        (with("htu", json!("x")), "looks like a DPoP proof"),
    ];
    for (claims, expected) in cases {
        let report = check(&es256(claims.clone()), &[expected]);
        // The subject is judged after the signature, and there are no keys here; unknown groups are no refusal.
        let refused = report.0.iter().any(|f| f.name == "edge" && f.mark == Mark::Wrong);
        let exempt = expected.contains("sub") || expected.contains("groups");
        assert!(refused != exempt, "the edge refuses it too: {expected}");
    }
}

#[test]
fn the_signature_is_checked_when_keys_are_given() {
    let (keys, _) = KeySet::parse(RFC_KEYS.as_bytes()).unwrap();
    let check = |token: &str, expected: &str| {
        let report = inspect(token.as_bytes(), &Judge { profile: None, keys: Some(&keys), now: NOW });
        let text = report.0.iter().map(line).collect::<Vec<_>>().join("\n");
        assert!(text.contains(expected), "{text}");
    };
    check(RFC_TOKEN, "Good signature: ES256, fits a key without `kid`");
    check(RFC_TOKEN, "Wrong exp: expired 5");
    let changed = RFC_TOKEN.replace("DtEh", "DtEi");
    check(&changed, "Wrong signature: the signature does not fit");
}

#[test]
fn what_is_no_jws_is_told_apart() {
    let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"RSA-OAEP","enc":"A256GCM"}"#);
    check(&format!("{header}.a.b.c.d"), &["Wrong kind: five parts: an encrypted token (JWE)", "Note enc: `A256GCM`"]);
    check("ya29.opaque", &["two parts: the signature is missing"]);
    check("gho_16C7e42F292c6912E7710c838347Ae178B4a", &["Wrong kind: an opaque token of 40 characters"]);
    check("", &["nothing came in"]);
    check("a.b.c.d", &["4 parts between dots"]);
    check(&token(json!({ "alg": "ES256" }), "hello"), &["Wrong payload: is a text of 5 bytes and no JSON"]);
    check(&token(json!({ "alg": "ES256" }), [0xff, 0]), &["Wrong payload: is binary, 2 bytes"]);
    check(&token(json!({ "alg": "ES256" }), "[1]"), &["is JSON but no object"]);
    check(&format!("{}.e30.c2ln", URL_SAFE_NO_PAD.encode("nope")), &["Wrong header: is no JSON object"]);
    let binary = inspect(&[0xff, 0xfe, 0], &Judge::default());
    assert_eq!(binary.wrong(), 1);
}

#[test]
fn api_49_and_50_unsigned_hmac_and_key_bringing_tokens_say_why_they_are_refused() {
    check(&token(json!({ "alg": "none" }), good().to_string()), &["algorithm `none` is not accepted; it is unsigned"]);
    check(&token(json!({ "alg": "HS256" }), good().to_string()), &["the issuer must sign with a key pair"]);
    check(
        &token(json!({ "alg": "ES256", "jku": "https://evil.example/k" }), good().to_string()),
        &["header parameter `jku` is not accepted", "Note `jku`: is there"],
    );
}

#[test]
fn what_people_paste_around_a_token_is_taken_off() {
    let token = es256(good());
    let (first, second) = token.split_at(50);
    for input in [
        format!("Authorization: Bearer {token}\n"),
        format!("bearer {token}"),
        format!("\"{token}\""),
        format!("  {first}\n   {second}\r\n"),
    ] {
        let report = check(&input, &["Note around it: taken off", "Good aud: `orders` is ours"]);
        assert_eq!(report.wrong(), 0, "{input}");
    }
}

#[test]
fn a_hostile_token_cannot_write_to_the_terminal() {
    let claims = with("sub", json!("\u{1b}[2Jana\r\n\u{202e}evil"));
    let report = check(&es256(claims), &[]);
    assert!(report.0.iter().all(|f| f.text.chars().all(|c| !c.is_control() && c != '\u{202e}')), "{:?}", report.0);
    let long = check(&es256(with("sub", json!("x".repeat(5000)))), &[]);
    assert!(long.0.iter().all(|f| f.text.len() < 2000));
}
