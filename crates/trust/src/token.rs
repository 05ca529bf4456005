//! An issuer's access token, from text to [`Principal`]: the whole verification profile (RFC 9068, 7519, 8725), one exact
//! reason per refusal.
use crate::{issuer::Profile, jwk::KeySet, principal::Principal, reason::Reason};

/// Largest access token we read, in bytes.
pub const BYTES_MAX: usize = 16 * 1024;

/// A token that was refused. `detail` is for the record and operators, never for the caller.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {detail}", reason.code())]
pub struct Refused {
    pub reason: Reason,
    pub detail: String,
}

/// What an unverified token claims about itself: enough to choose the issuer and to refuse cheaply before any key fetch.
#[derive(Debug)]
pub struct Peeked<'a> {
    _text: &'a str,
}

impl<'a> Peeked<'a> {
    /// Shape, header, size; claims are parsed strictly but believed in nothing.
    pub fn parse(_text: &'a str) -> Result<Peeked<'a>, Refused> {
        todo!()
    }
    pub fn iss(&self) -> &str {
        todo!()
    }
    pub fn kid(&self) -> Option<&str> {
        todo!()
    }
    /// The cheap checks of an unknown kid: algorithm allowed, audience plausible, not expired. `Err` saves a fetch.
    pub fn plausible(&self, _profile: &Profile, _now: i64) -> Result<(), Refused> {
        todo!()
    }
    /// Signature first, then kind, issuer, audience, times, `cnf`, subject.
    pub fn verify(self, _profile: &Profile, _keys: &KeySet, _now: i64) -> Result<VerifiedToken, Refused> {
        todo!()
    }
}

/// Proof that an access token was checked in full.
#[derive(Debug)]
pub struct VerifiedToken {
    _private: (),
}

impl VerifiedToken {
    pub fn principal(&self) -> &Principal {
        todo!()
    }
    pub fn into_principal(self) -> Principal {
        todo!()
    }
    /// Facts for the record and for `why`.
    pub fn facts(&self) -> &Facts {
        todo!()
    }
}

/// What was seen while verifying, for the audit record.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Facts {
    pub kid: Option<String>,
    pub algorithm: String,
    pub audience: Vec<String>,
    pub issued_at: Option<i64>,
    pub expires_at: i64,
    /// `jti`, `uti` (Entra) or nothing.
    pub token_id: Option<String>,
}
