//! DPoP proofs (RFC 9449) as a client makes them, and as no client should.
use crate::signing::{SigningKey, base64url, overlay};
use aws_lc_rs::digest::{SHA256, digest};
use serde_json::{Value, json};
use std::time::{SystemTime, UNIX_EPOCH};

/// RFC 7638 thumbprint: what `cnf.jkt` of a token holds that is bound to this key.
pub fn thumbprint(key: &SigningKey) -> String {
    let jwk = key.jwk();
    let members: Vec<String> = ["crv", "e", "kty", "n", "x", "y"]
        .iter()
        .filter_map(|name| jwk.get(name).map(|value| format!("\"{name}\":{value}")))
        .collect();
    base64url(digest(&SHA256, format!("{{{}}}", members.join(",")).as_bytes()))
}

/// The key's public half alone, as it stands in a proof.
pub fn public(key: &SigningKey) -> Value {
    overlay(key.jwk(), &json!({ "kid": null, "alg": null, "use": null }))
}

/// Claims of a proof made now, for this request and this token, with a `jti` of its own.
pub fn claims(method: &str, url: &str, token: &str) -> Value {
    static MADE: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    let made = MADE.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let ath = base64url(digest(&SHA256, token.as_bytes()));
    json!({ "jti": format!("proof-{made}"), "htm": method, "htu": url, "iat": now, "ath": ath })
}

/// A proof of these claims. Members of `header` replace those of the proof's own; `null` removes.
pub fn sign(key: &SigningKey, header: &Value, claims: &Value) -> String {
    let own = json!({ "typ": "dpop+jwt", "kid": null, "jwk": public(key) });
    key.sign(&overlay(own, header), claims)
}

/// A good proof.
pub fn proof(key: &SigningKey, method: &str, url: &str, token: &str) -> String {
    sign(key, &json!({}), &claims(method, url, token))
}
