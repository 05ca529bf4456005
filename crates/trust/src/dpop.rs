//! DPoP proofs (RFC 9449) as a resource server checks them: a small JWS that the client signs anew for every request, with
//! the key its access token is bound to.
//!
//! Pure: the clock, the memory of proofs already seen ([`Replays`]) and the secret behind nonces ([`Nonces`]) are the
//! caller's. A proof says who holds a key and nothing more; it never stands in for a token, and no token for a proof.
mod nonce;
mod replay;
#[cfg(test)]
mod tests;
mod url;

pub use nonce::{Freshness, NONCE_LIFE_S, Nonces};
pub use replay::{REPLAYS_MAX, ReplayError, Replays};

use crate::json::{self, JsonError, Object};
use crate::jwk::VerifyingKey;
use crate::jws::{JwsError, Unverified};
use crate::path::{NormalPath, Tolerance};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::Value;
use std::sync::Arc;

/// Largest proof we read, in bytes. One over P-256 has about 500, one over RSA 4096 about 2,000.
pub const PROOF_BYTES_MAX: usize = 8 * 1024;
/// A proof is accepted this many seconds before and after its `iat`, by our clock.
pub const WINDOW_S: i64 = 60;
/// Longest `jti` and longest `nonce`, in bytes.
const ID_BYTES_MAX: usize = 256;
/// What a proof may be signed with, for the `algs` of a challenge (RFC 9449 §7.1): every algorithm we know is asymmetric.
pub const ALGORITHMS: &str = "ES256 ES384 ES512 EdDSA PS256 PS384 PS512 RS256 RS384 RS512";

/// The request a proof must have been made for.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    pub method: &'a str,
    /// As the client sees it: `https` also where something in front of us ends TLS.
    pub https: bool,
    /// Host and port as the client wrote them.
    pub authority: &'a str,
    /// The path that was decided on.
    pub path: &'a NormalPath,
    /// How that path was read.
    pub tolerance: Tolerance,
    /// SHA-256 of the access token's text.
    pub token_sha256: &'a [u8; 32],
    /// Unix seconds.
    pub now: i64,
}

/// Why a proof is none for this request; for the record and operators.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    #[error("the proof: {0}")]
    Jws(#[from] JwsError),
    #[error("`typ` is not `dpop+jwt`")]
    Kind,
    #[error("`jwk` of the proof: {0}")]
    Key(&'static str),
    #[error("claims of the proof: {0}")]
    Json(JsonError),
    #[error("`{claim}` of the proof is not {expected}")]
    Claim { claim: &'static str, expected: &'static str },
    #[error("the proof was made for method `{0}`")]
    Method(String),
    #[error("the proof was made for `{proof}`, the request went to `{asked}`{why}")]
    Url { proof: String, asked: String, why: &'static str },
    #[error("the proof was made for another token (`ath`)")]
    Token,
    #[error("the proof is {0} s old, more than {WINDOW_S}: it was kept, or the client's clock is slow")]
    Old(i64),
    #[error("the proof was made {0} s in the future: the client's clock is fast, or this host's is slow")]
    Future(i64),
}

/// A proof that was checked in full, but for two things that need memory: whether it was seen before ([`Replays`]) and
/// whether its nonce is ours ([`Nonces`]).
#[derive(Debug)]
pub struct Proof {
    thumbprint: [u8; 32],
    id: [u8; 32],
    issued_at: i64,
    nonce: Option<String>,
}

impl Proof {
    /// Everything RFC 9449 §4.3 asks for, the cheap checks first; the signature is checked before anything is accepted.
    pub fn verify(text: &str, asked: &Asked<'_>) -> Result<Proof, ProofError> {
        let (jws, jwk) = Unverified::parse_with_own_key(text, PROOF_BYTES_MAX)?;
        if jws.typ() != Some("dpop+jwt") {
            return Err(ProofError::Kind);
        }
        let claims = json::object(jws.danger_unverified_payload(), PROOF_BYTES_MAX).map_err(ProofError::Json)?;
        let issued_at = check_times(&claims, asked.now)?;
        check_method(&claims, asked.method)?;
        url::check(required(&claims, "htu", PROOF_BYTES_MAX)?, asked)?;
        check_token(&claims, asked.token_sha256)?;
        let jti = required(&claims, "jti", ID_BYTES_MAX)?.to_owned();
        let nonce = match claims.contains_key("nonce") {
            true => Some(required(&claims, "nonce", ID_BYTES_MAX)?.to_owned()),
            false => None,
        };
        let key = Arc::new(VerifyingKey::from_jwk(&jwk).map_err(ProofError::Key)?);
        jws.verify_with(&key)?;
        let thumbprint = sha256(key.thumbprint()).ok_or(ProofError::Key("no thumbprint"))?;
        Ok(Proof { thumbprint, id: identity(&thumbprint, &jti), issued_at, nonce })
    }

    /// RFC 7638 SHA-256 thumbprint of the key that signed, to be compared with the token's `cnf.jkt`.
    pub fn thumbprint(&self) -> &[u8; 32] {
        &self.thumbprint
    }

    pub fn nonce(&self) -> Option<&str> {
        self.nonce.as_deref()
    }
}

/// One use of one key: what must not come twice.
fn identity(thumbprint: &[u8; 32], jti: &str) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest(&SHA256, &[thumbprint, jti.as_bytes()].concat()).as_ref());
    out
}

/// Base64url of a SHA-256 hash, exactly.
pub(crate) fn sha256(text: &str) -> Option<[u8; 32]> {
    URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()
}

fn required<'c>(claims: &'c Object, claim: &'static str, bytes_max: usize) -> Result<&'c str, ProofError> {
    match claims.get(claim) {
        Some(Value::String(text)) if !text.is_empty() && text.len() <= bytes_max => Ok(text),
        _ => Err(ProofError::Claim { claim, expected: "a text of acceptable length" }),
    }
}

/// `iat` within the window; `exp` and `nbf`, which a proof need not have, are kept to when it has them.
fn check_times(claims: &Object, now: i64) -> Result<i64, ProofError> {
    let issued_at =
        date(claims, "iat")?.ok_or(ProofError::Claim { claim: "iat", expected: "a number of seconds since 1970" })?;
    let age = now.saturating_sub(issued_at);
    if age > WINDOW_S {
        return Err(ProofError::Old(age));
    }
    if age < -WINDOW_S {
        return Err(ProofError::Future(-age));
    }
    if let Some(expires_at) = date(claims, "exp")?.filter(|exp| now >= exp.saturating_add(WINDOW_S)) {
        return Err(ProofError::Old(now.saturating_sub(expires_at)));
    }
    if let Some(begins_at) = date(claims, "nbf")?.filter(|nbf| nbf.saturating_sub(now) > WINDOW_S) {
        return Err(ProofError::Future(begins_at.saturating_sub(now)));
    }
    Ok(issued_at)
}

/// A `NumericDate` (RFC 7519 §2). Some libraries write fractions of a second; they count for nothing here.
fn date(claims: &Object, claim: &'static str) -> Result<Option<i64>, ProofError> {
    /// 9999-12-31T23:59:59Z.
    const LAST_SECOND: f64 = 253_402_300_799.0;
    let Some(value) = claims.get(claim) else { return Ok(None) };
    match value.as_f64() {
        // Exact: a whole number far below 2^53.
        Some(seconds) if (0.0..=LAST_SECOND).contains(&seconds) => Ok(Some(seconds.floor() as i64)),
        _ => Err(ProofError::Claim { claim, expected: "a number of seconds since 1970" }),
    }
}

fn check_method(claims: &Object, method: &str) -> Result<(), ProofError> {
    match required(claims, "htm", 64)? {
        htm if htm == method => Ok(()),
        htm => Err(ProofError::Method(json::excerpt(htm))),
    }
}

fn check_token(claims: &Object, token_sha256: &[u8; 32]) -> Result<(), ProofError> {
    let ath = sha256(required(claims, "ath", 64)?).ok_or(ProofError::Token)?;
    verify_slices_are_equal(&ath, token_sha256).map_err(|_| ProofError::Token)
}
