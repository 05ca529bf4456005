//! One strict JWS (RFC 7515 compact) reader for every token kind.
//!
//! Exactly three parts, canonical base64url without padding, `alg` and key agreed before any claim is believed, and a
//! header that tries to bring its own key (`jku jwk x5u x5c`) or an unknown obligation (`crit`, `b64`) is refused.
use crate::jwk::{Algorithm, KeySet, VerifyingKey};

/// Why a text is no acceptable JWS.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JwsError {
    #[error("larger than {0} bytes")]
    TooLarge(usize),
    #[error("not three parts of canonical base64url")]
    Shape,
    #[error("header: {0}")]
    Header(crate::json::JsonError),
    #[error("header parameter `{0}` is not accepted")]
    HeaderForbidden(String),
    #[error("algorithm `{0}` is not accepted")]
    Algorithm(String),
    #[error("no key fits `kid` {0:?}")]
    KeyUnknown(Option<String>),
    #[error("the signature does not fit")]
    Signature,
}

/// A JWS whose header was read and whose signature was not checked. Nothing it says may be believed.
#[derive(Debug)]
pub struct Unverified<'a> {
    _text: &'a str,
}

impl<'a> Unverified<'a> {
    /// Reads the header strictly; `text` at most `bytes_max` bytes (16 KiB for access tokens, 4 KiB for Txn-Tokens).
    pub fn parse(_text: &'a str, _bytes_max: usize) -> Result<Unverified<'a>, JwsError> {
        todo!()
    }
    pub fn algorithm(&self) -> Algorithm {
        todo!()
    }
    pub fn kid(&self) -> Option<&str> {
        todo!()
    }
    pub fn typ(&self) -> Option<&str> {
        todo!()
    }
    /// The payload before its signature was checked: for choosing an issuer and for cheap refusals only.
    pub fn danger_unverified_payload(&self) -> &[u8] {
        todo!()
    }
    /// Checks the signature with the key of `keys` that `kid` names; without `kid`, with at most 4 keys that fit `alg`.
    pub fn verify(self, _keys: &KeySet, _allowed: &[Algorithm]) -> Result<Verified, JwsError> {
        todo!()
    }
}

/// Proof that a signature was checked.
#[derive(Debug)]
pub struct Verified {
    _private: (),
}

impl Verified {
    pub fn payload(&self) -> &[u8] {
        todo!()
    }
    pub fn typ(&self) -> Option<&str> {
        todo!()
    }
    pub fn key(&self) -> &VerifyingKey {
        todo!()
    }
    pub fn algorithm(&self) -> Algorithm {
        todo!()
    }
}
