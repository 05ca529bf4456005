//! How a request of ours says which client we are, and proves it: a shared secret, or an assertion signed for this one
//! request (RFC 7523). Never logs either, and sends them nowhere.
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use feed::Secret;
use http::HeaderValue;
use trust::client_key::ClientKey;
use uuid::Uuid;
use zeroize::Zeroizing;

/// `client_secret_basic` (RFC 6749 §2.3.1): both halves form-encoded first.
pub(crate) fn basic(client_id: &str, secret: &Secret) -> Result<HeaderValue, String> {
    let secret = Zeroizing::new(urlencoded(secret.danger_reveal()));
    let pair = Zeroizing::new(format!("{}:{}", urlencoded(client_id), &*secret));
    let text = Zeroizing::new(format!("Basic {}", STANDARD.encode(pair.as_bytes())));
    HeaderValue::from_str(&text).map_err(|_| "the client's secret cannot be sent".to_owned())
}

/// `private_key_jwt`: what goes into the form, beginning with `&`.
pub(crate) fn assertion(
    client_id: &str,
    key: &ClientKey,
    audience: &str,
    now: i64,
) -> Result<Zeroizing<String>, String> {
    let signed = key
        .assertion(client_id, audience, now, Uuid::now_v7())
        .ok_or_else(|| "the client's key does not sign".to_owned())?;
    Ok(Zeroizing::new(format!(
        "&client_id={}&client_assertion_type=urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer\
         &client_assertion={}",
        urlencoded(client_id),
        *signed
    )))
}

/// `application/x-www-form-urlencoded`, every byte but the unreserved ones of RFC 3986 written out.
pub(crate) fn urlencoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}
