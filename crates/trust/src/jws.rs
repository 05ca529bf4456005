//! One strict JWS (RFC 7515 compact) reader for every token kind.
//!
//! Exactly three parts, canonical base64url without padding, `alg` and key agreed before any claim is believed, and a
//! header that tries to bring its own key (`jku jwk x5u x5c`) or an unknown obligation (`crit`, `b64`) is refused. One
//! kind must bring its key, and has its own way in: [`Unverified::parse_with_own_key`].
use crate::json::{self, Object};
use crate::jwk::{Algorithm, KID_BYTES_MAX, KeySet, VerifyingKey};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::Value;
use std::sync::Arc;

/// Most keys one signature is tried with: without `kid`, or when several keys share it.
pub const TRIES_MAX: usize = 4;
/// Header parameters that bring a key of their own, or an obligation we do not know (RFC 7515 §4.1, RFC 7797), or that
/// change what the payload is (`zip`). `jwk` is refused too, but where it is the whole point. `x5t` and `x5t#S256` only
/// name a key; they are ignored.
const FORBIDDEN: [&str; 6] = ["jku", "x5u", "x5c", "crit", "b64", "zip"];
/// Largest header, in bytes after decoding.
const HEADER_BYTES_MAX: usize = 4 * 1024;

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
    /// The set has no key of this `kid`, or none at all for a token without `kid`: newer keys may help.
    #[error("{}", key_unknown(.0.as_deref()))]
    KeyUnknown(Option<String>),
    /// A key was found, and it is not the key that signed this, or may not be used with this algorithm.
    #[error("the signature does not fit")]
    Signature,
}

fn key_unknown(kid: Option<&str>) -> String {
    match kid {
        Some(kid) => format!("no key has the token's `kid`, `{kid}`"),
        None => "the token names no `kid`, and no key fits without one".to_owned(),
    }
}

/// A JWS whose header was read and whose signature was not checked. Nothing it says may be believed.
#[derive(Debug)]
pub struct Unverified<'a> {
    /// Header and payload as they were sent, with the dot between them.
    signed: &'a str,
    algorithm: Algorithm,
    kid: Option<String>,
    typ: Option<String>,
    header: Object,
    payload: Vec<u8>,
    signature: Vec<u8>,
}

impl<'a> Unverified<'a> {
    /// Reads the header strictly; `text` at most `bytes_max` bytes (16 KiB for access tokens, 4 KiB for Txn-Tokens).
    pub fn parse(text: &'a str, bytes_max: usize) -> Result<Unverified<'a>, JwsError> {
        let jws = Unverified::read(text, bytes_max)?;
        match jws.header.contains_key("jwk") {
            true => Err(JwsError::HeaderForbidden("jwk".to_owned())),
            false => Ok(jws),
        }
    }

    /// For DPoP proofs alone (RFC 9449 §4.2), whose header must hold the public key they are signed with, and no other key.
    /// Such a signature shows who holds the key and nothing else: what the key stands for, somebody else must say.
    pub fn parse_with_own_key(text: &'a str, bytes_max: usize) -> Result<(Unverified<'a>, Object), JwsError> {
        let mut jws = Unverified::read(text, bytes_max)?;
        match jws.header.remove("jwk") {
            Some(Value::Object(jwk)) => Ok((jws, jwk)),
            Some(_) => Err(JwsError::HeaderForbidden("jwk".to_owned())),
            None => Err(JwsError::KeyUnknown(None)),
        }
    }

    fn read(text: &'a str, bytes_max: usize) -> Result<Unverified<'a>, JwsError> {
        if text.len() > bytes_max {
            return Err(JwsError::TooLarge(bytes_max));
        }
        let (signed, signature) = text.rsplit_once('.').ok_or(JwsError::Shape)?;
        let (header, payload) = signed.split_once('.').ok_or(JwsError::Shape)?;
        let (header, payload, signature) = (part(header)?, part(payload)?, part(signature)?);
        let mut header = json::object(&header, HEADER_BYTES_MAX).map_err(JwsError::Header)?;
        if let Some(name) = FORBIDDEN.iter().find(|name| header.contains_key(**name)) {
            return Err(JwsError::HeaderForbidden((*name).to_owned()));
        }
        let algorithm = algorithm(&header)?;
        let kid = take_text(&mut header, "kid")?;
        if kid.as_ref().is_some_and(|kid| kid.len() > KID_BYTES_MAX) {
            return Err(JwsError::HeaderForbidden("kid".to_owned()));
        }
        let typ = take_text(&mut header, "typ")?;
        Ok(Unverified { signed, algorithm, kid, typ, header, payload, signature })
    }

    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    pub fn kid(&self) -> Option<&str> {
        self.kid.as_deref()
    }

    pub fn typ(&self) -> Option<&str> {
        self.typ.as_deref()
    }

    /// The header's other parameters, for showing to an operator. `alg` is among them; `kid` and `typ` have their own.
    pub fn danger_unverified_header(&self) -> &Object {
        &self.header
    }

    /// The payload before its signature was checked: for choosing an issuer and for cheap refusals only.
    pub fn danger_unverified_payload(&self) -> &[u8] {
        &self.payload
    }

    /// Checks the signature with the keys of `keys` that `kid` names, or without `kid` with those that fit `alg`: in
    /// both cases only keys that may be used with `alg`, and at most [`TRIES_MAX`] of them.
    pub fn verify(self, keys: &KeySet, allowed: &[Algorithm]) -> Result<Verified, JwsError> {
        if !allowed.contains(&self.algorithm) {
            return Err(JwsError::Algorithm(self.algorithm.name().to_owned()));
        }
        let fits = |key: &&Arc<VerifyingKey>| key.algorithms().contains(&self.algorithm);
        let key = match &self.kid {
            Some(kid) => {
                let mut named = keys.with_kid(kid).peekable();
                if named.peek().is_none() {
                    return Err(JwsError::KeyUnknown(Some(json::excerpt(kid))));
                }
                self.first_that_checks(named.filter(fits))
            }
            None => {
                let mut fitting = keys.keys().iter().filter(fits).peekable();
                if fitting.peek().is_none() {
                    return Err(JwsError::KeyUnknown(None));
                }
                self.first_that_checks(fitting)
            }
        };
        let key = key.ok_or(JwsError::Signature)?;
        Ok(Verified { payload: self.payload, typ: self.typ, key, algorithm: self.algorithm })
    }

    /// Is this the signature of that one key? For token kinds that look their key up themselves.
    pub fn verify_with(self, key: &Arc<VerifyingKey>) -> Result<Verified, JwsError> {
        let key = self.first_that_checks(std::iter::once(key)).ok_or(JwsError::Signature)?;
        Ok(Verified { payload: self.payload, typ: self.typ, key, algorithm: self.algorithm })
    }

    fn first_that_checks<'k>(&self, keys: impl Iterator<Item = &'k Arc<VerifyingKey>>) -> Option<Arc<VerifyingKey>> {
        keys.take(TRIES_MAX)
            .find(|key| key.check(self.algorithm, self.signed.as_bytes(), &self.signature))
            .map(Arc::clone)
    }
}

/// One part: not empty, the url alphabet alone, no padding, no bits that a second spelling could vary (RFC 7515 §2).
fn part(encoded: &str) -> Result<Vec<u8>, JwsError> {
    let bytes = URL_SAFE_NO_PAD.decode(encoded).map_err(|_| JwsError::Shape)?;
    if bytes.is_empty() { Err(JwsError::Shape) } else { Ok(bytes) }
}

fn algorithm(header: &Object) -> Result<Algorithm, JwsError> {
    match header.get("alg") {
        Some(Value::String(name)) => Algorithm::from_name(name).ok_or_else(|| JwsError::Algorithm(json::excerpt(name))),
        _ => Err(JwsError::Algorithm(String::new())),
    }
}

fn take_text(header: &mut Object, name: &str) -> Result<Option<String>, JwsError> {
    match header.remove(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(JwsError::HeaderForbidden(name.to_owned())),
    }
}

/// Proof that a signature was checked.
#[derive(Debug)]
pub struct Verified {
    payload: Vec<u8>,
    typ: Option<String>,
    key: Arc<VerifyingKey>,
    algorithm: Algorithm,
}

impl Verified {
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    pub fn typ(&self) -> Option<&str> {
        self.typ.as_deref()
    }

    pub fn key(&self) -> &VerifyingKey {
        &self.key
    }

    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

#[cfg(test)]
mod tests;
