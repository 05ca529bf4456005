//! Txn-Token (draft-ietf-oauth-transaction-tokens, WIRE §1): what the edge signs for one transaction, and its check.
use crate::{principal::Principal, reason::Reason};
use std::sync::Arc;

pub const TYP: &str = "txntoken+jwt";
pub const BYTES_MAX: usize = 4 * 1024;

/// A minter's P-256 key, in memory only. Wiped on drop, never printed.
pub struct SigningKey {
    _private: (),
}

/// The public half as published: one JWK with `cs_iss`, `cs_nbf`, `cs_exp`.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct PublishedKey {
    pub kty: String,
    pub crv: String,
    pub x: String,
    pub y: String,
    pub kid: String,
    pub alg: String,
    pub key_ops: Vec<String>,
    pub cs_iss: String,
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
    pub expires_at: i64,
    pub principal: &'a Principal,
    pub scope: &'a str,
    pub req_wl: &'a str,
    /// Truncated client address, `203.0.113.0/24`.
    pub req_ip: Option<&'a str>,
    pub sid: Option<&'a str>,
    pub route: &'a str,
    pub params: &'a [(Arc<str>, String)],
    /// Only the groups some loaded rule mentions.
    pub groups: &'a [Arc<str>],
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MintError {
    #[error("the token would be {0} bytes, more than {BYTES_MAX}")]
    TooLarge(usize),
    #[error("the signature failed")]
    Signature,
}

impl SigningKey {
    /// `pkcs8` as aws-lc-rs made it (the caller draws the randomness). `minter` is the edge's SPIFFE ID.
    pub fn from_pkcs8(_pkcs8: &[u8], _minter: &str, _not_before: i64, _expires_at: i64) -> Option<SigningKey> {
        todo!()
    }
    pub fn kid(&self) -> &str {
        todo!()
    }
    pub fn published(&self) -> &PublishedKey {
        todo!()
    }
    /// Signs. ES256 needs randomness, which aws-lc-rs draws inside: the one exception to this crate's purity.
    pub fn mint(&self, _claims: &Claims<'_>) -> Result<String, MintError> {
        todo!()
    }
}

/// Checks Txn-Tokens against published keys.
#[derive(Debug)]
pub struct Verifier {
    _private: (),
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {detail}", reason.code())]
pub struct Refused {
    pub reason: Reason,
    pub detail: String,
}

/// Proof that a Txn-Token was checked.
#[derive(Debug, Clone)]
pub struct VerifiedTxn {
    _private: (),
}

impl Verifier {
    /// `may_mint` says whether the role of a minter's SPIFFE ID may mint.
    pub fn new(_audience: &str, _keys: &PublishedKeys, _may_mint: fn(&str) -> bool) -> Verifier {
        todo!()
    }
    pub fn verify(&self, _token: &str, _now: i64) -> Result<VerifiedTxn, Refused> {
        todo!()
    }
}

impl VerifiedTxn {
    pub fn subject(&self) -> &str {
        todo!()
    }
    pub fn txn(&self) -> &str {
        todo!()
    }
    pub fn claims(&self) -> &crate::json::Object {
        todo!()
    }
}
