//! Txn-Token (draft-ietf-oauth-transaction-tokens): what the edge signs for one transaction, and its check.
//!
//! The claims, each with its source (T = the draft, J = RFC 7519, A = RFC 8693 §4.1, O = OpenID Connect, C = ours):
//! - `iss` (J) SPIFFE ID of the minter; a verifier pins it to the key that `kid` names
//! - `aud` (T, required) the trust domain's name, one string
//! - `iat`, `exp` (T, required) unix seconds; at most 300 apart, never past the principal's own proof
//! - `txn` (T, required) UUIDv7, unique in the trust domain
//! - `sub` (T, required) `<issuer name>|<stable id>`, or a SPIFFE ID
//! - `scope` (T, required) the purpose: service and action class of the matched rule, e.g. `orders.read`
//! - `req_wl` (T, required) who asked for the token, one string
//! - `act` (A) `{"sub": …}`, only for agents: outermost = the agent now acting for `sub`
//! - `rctx` (T) `req_ip` truncated client address · `sid` (C) first 16 bytes of SHA-256 of the session id ·
//!   `amr`, `acr`, `auth_time` (O) as the issuer said · `cnf` (C) `jkt` and `x5t#S256`: what the caller's access token is
//!   bound to, and what he proved to hold at the edge. For records; it asks nothing of whoever holds this token
//! - `tctx` (T) `rt` (C) route template · `p` (C) its parameters · `g` (C) groups that some loaded rule mentions ·
//!   `gp` (C) `true` when there may be more groups than anybody told us, so that unknown stays unknown at the next hop
//!
//! Never carries an issuer's token, never longer than [`BYTES_MAX`], never shortened to fit.

mod mint;
mod verify;

use crate::{principal::Principal, reason::Reason, token::Binding};
pub use mint::SigningKey;
use std::sync::Arc;
pub use verify::{VerifiedTxn, Verifier};

/// JOSE `typ`, compared byte by byte.
pub const TYP: &str = "txntoken+jwt";
/// Largest token, in bytes; beyond it minting fails and verifying refuses.
pub const BYTES_MAX: usize = 4 * 1024;
/// Longest life, in seconds.
pub const LIFE_MAX_S: i64 = 300;
/// How far two of our clocks may be apart, in seconds.
pub const LEEWAY_S: i64 = 5;
/// Most minter keys one verifier holds.
pub const KEYS_MAX: usize = 10_000;

/// The public half as published: one JWK with `cs_iss`, `cs_nbf`, `cs_exp`.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct PublishedKey {
    pub kty: String,
    pub crv: String,
    pub x: String,
    pub y: String,
    /// RFC 7638 thumbprint of this key.
    pub kid: String,
    pub alg: String,
    pub key_ops: Vec<String>,
    /// SPIFFE ID of the minter that owns this key.
    pub cs_iss: String,
    /// Unix seconds between which tokens may be issued with this key.
    pub cs_nbf: i64,
    pub cs_exp: i64,
}

/// The published set: a monotonic `seq` and the keys.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct PublishedKeys {
    pub seq: u64,
    pub keys: Vec<PublishedKey>,
}

/// What a Txn-Token says. Borrowed parts, so that minting allocates once.
#[derive(Debug, Clone)]
pub struct Claims<'a> {
    pub audience: &'a str,
    pub txn: uuid::Uuid,
    pub issued_at: i64,
    /// The token ends here or with the principal's own proof, whichever comes first, but lives at least one second.
    pub expires_at: i64,
    pub principal: &'a Principal,
    pub scope: &'a str,
    pub req_wl: &'a str,
    /// Truncated client address, `203.0.113.0/24`.
    pub req_ip: Option<&'a str>,
    pub sid: Option<&'a str>,
    /// What the principal's own token is bound to, proved with the request.
    pub binding: &'a Binding,
    pub route: &'a str,
    pub params: &'a [(Arc<str>, String)],
    /// Only the groups some loaded rule mentions.
    pub groups: &'a [Arc<str>],
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MintError {
    #[error("the token would be {0} bytes, more than {BYTES_MAX}")]
    TooLarge(usize),
    /// The claims ask for a token that every verifier would refuse.
    #[error("{0}")]
    Claims(&'static str),
    #[error("the signature failed")]
    Signature,
}

/// Why a text was refused as a Txn-Token. `detail` is for the record and operators, never for the caller.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {detail}", reason.code())]
pub struct Refused {
    pub reason: Reason,
    pub detail: String,
}

#[cfg(test)]
mod tests;
