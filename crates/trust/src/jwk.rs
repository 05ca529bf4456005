//! JSON Web Keys (RFC 7517, 7518, 8037): which keys of a set can check a signature, and the check itself.
//!
//! One bad key never spoils the set: unknown `kty`, `crv`, `alg` and `use: enc` are left out, key by key, and named.

use std::sync::Arc;

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
    /// The JOSE name, e.g. `ES256`.
    pub const fn name(self) -> &'static str {
        todo!()
    }
    pub fn from_name(_name: &str) -> Option<Algorithm> {
        todo!()
    }
}

/// One public key and what it may check.
#[derive(Debug)]
pub struct VerifyingKey {
    _private: (),
}

impl VerifyingKey {
    pub fn kid(&self) -> Option<&str> {
        todo!()
    }
    /// RFC 7638 SHA-256 thumbprint, base64url without padding.
    pub fn thumbprint(&self) -> &str {
        todo!()
    }
    /// The algorithms this key may be used with: the JWK's `alg` when it says one, else what `kty`/`crv` allows.
    pub fn algorithms(&self) -> &[Algorithm] {
        todo!()
    }
    pub fn check(&self, _algorithm: Algorithm, _signed: &[u8], _signature: &[u8]) -> bool {
        todo!()
    }
}

/// A key left out of a set, and why; for `keys`, logs and metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    pub kid: Option<String>,
    pub why: &'static str,
}

/// The usable keys of one JWKS document.
#[derive(Debug, Default)]
pub struct KeySet {
    _private: (),
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
    pub fn parse(_jwks: &[u8]) -> Result<(KeySet, Vec<LeftOut>), KeySetError> {
        todo!()
    }
    pub fn from_keys(_keys: Vec<Arc<VerifyingKey>>) -> KeySet {
        todo!()
    }
    pub fn keys(&self) -> &[Arc<VerifyingKey>] {
        todo!()
    }
    pub fn len(&self) -> usize {
        self.keys().len()
    }
    pub fn is_empty(&self) -> bool {
        self.keys().is_empty()
    }
}
