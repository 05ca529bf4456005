//! JSON Web Keys (RFC 7517, 7518, 8037): which keys of a set can check a signature, and the check itself.
//!
//! One bad key never spoils the set: unknown `kty`, `crv`, `alg` and `use: enc` are left out, key by key, and named.
//! Keys are parsed once, into the form the signature maths wants; nothing a token says chooses how a key is used.

mod parse;

use aws_lc_rs::signature::{self as sig, ParsedPublicKey, RsaParameters, VerificationAlgorithm};
use std::sync::Arc;

/// Largest key set document, in bytes.
pub const SET_BYTES_MAX: usize = 256 * 1024;
/// Most keys in one set document.
pub const SET_KEYS_MAX: usize = 100;
/// Longest `kid`, in bytes.
pub const KID_BYTES_MAX: usize = 1024;

/// Signature algorithms we accept. No `none`, no HS*, ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Algorithm {
    Es256,
    Es384,
    Es512,
    Rs256,
    Rs384,
    Rs512,
    Ps256,
    Ps384,
    Ps512,
    EdDsa,
}

impl Algorithm {
    pub const ALL: [Algorithm; 10] = {
        use Algorithm::*;
        [Es256, Es384, Es512, Rs256, Rs384, Rs512, Ps256, Ps384, Ps512, EdDsa]
    };

    /// The JOSE name, e.g. `ES256` (RFC 7518 §3.1, RFC 8037 §3.1).
    pub const fn name(self) -> &'static str {
        match self {
            Algorithm::Es256 => "ES256",
            Algorithm::Es384 => "ES384",
            Algorithm::Es512 => "ES512",
            Algorithm::Rs256 => "RS256",
            Algorithm::Rs384 => "RS384",
            Algorithm::Rs512 => "RS512",
            Algorithm::Ps256 => "PS256",
            Algorithm::Ps384 => "PS384",
            Algorithm::Ps512 => "PS512",
            Algorithm::EdDsa => "EdDSA",
        }
    }

    /// Exact names only; `Ed25519` (RFC 9864) is another name of the one EdDSA curve we know.
    pub fn from_name(name: &str) -> Option<Algorithm> {
        if name == "Ed25519" {
            return Some(Algorithm::EdDsa);
        }
        Algorithm::ALL.into_iter().find(|algorithm| algorithm.name() == name)
    }

    /// Length of every valid signature, in bytes; RSA's is the length of the key's modulus.
    const fn signature_bytes(self) -> Option<usize> {
        match self {
            Algorithm::Es256 | Algorithm::EdDsa => Some(64),
            Algorithm::Es384 => Some(96),
            Algorithm::Es512 => Some(132),
            _ => None,
        }
    }

    /// The RSA parameters, 2048 to 8192 bits; `None` for algorithms of other key types.
    fn rsa(self) -> Option<&'static RsaParameters> {
        match self {
            Algorithm::Rs256 => Some(&sig::RSA_PKCS1_2048_8192_SHA256),
            Algorithm::Rs384 => Some(&sig::RSA_PKCS1_2048_8192_SHA384),
            Algorithm::Rs512 => Some(&sig::RSA_PKCS1_2048_8192_SHA512),
            Algorithm::Ps256 => Some(&sig::RSA_PSS_2048_8192_SHA256),
            Algorithm::Ps384 => Some(&sig::RSA_PSS_2048_8192_SHA384),
            Algorithm::Ps512 => Some(&sig::RSA_PSS_2048_8192_SHA512),
            _ => None,
        }
    }

    /// The raw r‖s (RFC 7518 §3.4) or Ed25519 verifier; `None` for RSA.
    fn curve(self) -> Option<&'static dyn VerificationAlgorithm> {
        match self {
            Algorithm::Es256 => Some(&sig::ECDSA_P256_SHA256_FIXED),
            Algorithm::Es384 => Some(&sig::ECDSA_P384_SHA384_FIXED),
            Algorithm::Es512 => Some(&sig::ECDSA_P521_SHA512_FIXED),
            Algorithm::EdDsa => Some(&sig::ED25519),
            _ => None,
        }
    }
}

/// One public key and what it may check.
#[derive(Debug)]
pub struct VerifyingKey {
    kid: Option<String>,
    thumbprint: String,
    algorithms: Vec<Algorithm>,
    /// One parsed form for each of `algorithms`, in the same order.
    parsed: Vec<ParsedPublicKey>,
    /// For RSA: length of the modulus, hence of every signature.
    modulus_bytes: usize,
}

impl VerifyingKey {
    /// One JWK as a JSON object; the reason it is left out otherwise.
    pub fn from_jwk(jwk: &crate::json::Object) -> Result<VerifyingKey, &'static str> {
        parse::key(jwk)
    }

    pub fn kid(&self) -> Option<&str> {
        self.kid.as_deref()
    }

    /// RFC 7638 SHA-256 thumbprint, base64url without padding.
    pub fn thumbprint(&self) -> &str {
        &self.thumbprint
    }

    /// The algorithms this key may be used with: the JWK's `alg` when it says one, else what `kty`/`crv` allows.
    pub fn algorithms(&self) -> &[Algorithm] {
        &self.algorithms
    }

    /// Is `signature` this key's signature over `signed`? `false` too for an algorithm the key may not be used with.
    pub fn check(&self, algorithm: Algorithm, signed: &[u8], signature: &[u8]) -> bool {
        let expected_bytes = algorithm.signature_bytes().unwrap_or(self.modulus_bytes);
        let key = self.algorithms.iter().zip(&self.parsed).find(|(own, _)| **own == algorithm);
        match key {
            Some((_, key)) if signature.len() == expected_bytes => key.verify_sig(signed, signature).is_ok(),
            _ => false,
        }
    }
}

/// A key left out of a set, and why; for `keys`, logs and metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    pub kid: Option<String>,
    pub why: &'static str,
}

/// The usable keys of one JWKS document, in the document's order.
#[derive(Debug, Default)]
pub struct KeySet {
    keys: Vec<Arc<VerifyingKey>>,
    /// Positions in `keys`, sorted by `kid`; among equal `kid`s the document's order.
    by_kid: Vec<usize>,
}

/// Why a document is no usable key set. The caller keeps the last good one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeySetError {
    #[error("larger than {0} bytes")]
    TooLarge(usize),
    #[error("not a JSON object with a `keys` array")]
    Syntax,
    #[error("more than {0} keys")]
    TooMany(usize),
    #[error("no usable signature key among {0}")]
    NoneUsable(usize),
}

impl KeySet {
    /// At most 256 KiB and 100 keys; RSA 2048 to 8192 bits.
    ///
    /// Two keys with one `kid` are both kept, because issuers publish the same `kid` once per algorithm and some reuse a
    /// `kid` while they rotate: a signature is then tried with each that fits. An exact repetition is left out.
    pub fn parse(jwks: &[u8]) -> Result<(KeySet, Vec<LeftOut>), KeySetError> {
        parse::set(jwks)
    }

    pub fn from_keys(keys: Vec<Arc<VerifyingKey>>) -> KeySet {
        let mut by_kid: Vec<usize> = (0..keys.len()).collect();
        by_kid.sort_by_key(|at| keys.get(*at).and_then(|key| key.kid().map(str::to_owned)));
        KeySet { keys, by_kid }
    }

    pub fn keys(&self) -> &[Arc<VerifyingKey>] {
        &self.keys
    }

    /// The keys that carry exactly this `kid`.
    pub fn with_kid(&self, kid: &str) -> impl Iterator<Item = &Arc<VerifyingKey>> {
        let start = self.by_kid.partition_point(|at| self.kid_at(*at) < Some(kid));
        let rest = self.by_kid.get(start..).unwrap_or_default();
        rest.iter().filter_map(|at| self.keys.get(*at)).take_while(move |key| key.kid() == Some(kid))
    }

    fn kid_at(&self, at: usize) -> Option<&str> {
        self.keys.get(at).and_then(|key| key.kid())
    }

    pub fn len(&self) -> usize {
        self.keys().len()
    }

    pub fn is_empty(&self) -> bool {
        self.keys().is_empty()
    }
}

#[cfg(test)]
pub(crate) mod made;
#[cfg(test)]
mod tests;
