//! Throwaway issuer keys, made once per test process: RS256 for most providers, ES256 for one that rotated.
use crate::issuer::Profile;
use crate::json::Object;
use crate::jwk::{Algorithm, KeySet};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{self, EcdsaKeyPair, KeyPair, RsaKeyPair};
use base64::Engine;
use serde_json::{Value, json};
use std::sync::LazyLock;

pub(crate) enum Signer {
    Rsa { kid: &'static str, key: RsaKeyPair },
    Ec { kid: &'static str, key: EcdsaKeyPair },
}

static RSA: LazyLock<Signer> = LazyLock::new(|| rsa("rsa-1"));
static EC: LazyLock<Signer> = LazyLock::new(|| ec("ec-1"));

/// The key of the profile's own provider.
pub(crate) fn of(profile: &Profile) -> &'static Signer {
    if profile.algorithms().contains(&Algorithm::Es256) { &EC } else { &RSA }
}

pub(crate) fn rsa(kid: &'static str) -> Signer {
    let key = RsaKeyPair::generate(aws_lc_rs::rsa::KeySize::Rsa2048).unwrap();
    Signer::Rsa { kid, key }
}

pub(crate) fn ec(kid: &'static str) -> Signer {
    let key = EcdsaKeyPair::generate(&signature::ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    Signer::Ec { kid, key }
}

pub(crate) fn base64url(bytes: impl AsRef<[u8]>) -> String {
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes)
}

impl Signer {
    pub(crate) fn algorithm(&self) -> &'static str {
        match self {
            Signer::Rsa { .. } => "RS256",
            Signer::Ec { .. } => "ES256",
        }
    }

    pub(crate) fn kid(&self) -> &'static str {
        match self {
            Signer::Rsa { kid, .. } | Signer::Ec { kid, .. } => kid,
        }
    }

    pub(crate) fn jwk(&self) -> Value {
        match self {
            Signer::Rsa { kid, key } => {
                // RSAPublicKey of a 2048-bit key: two length-prefixed headers, 256 bytes of modulus, then 65537.
                let der = key.public_key().as_ref();
                assert_eq!(der.len(), 270);
                json!({ "kty": "RSA", "use": "sig", "alg": "RS256", "kid": kid, "n": base64url(&der[9..265]), "e": "AQAB" })
            }
            Signer::Ec { kid, key } => {
                let point = key.public_key().as_ref();
                let (x, y) = point[1..].split_at(32);
                json!({ "kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": kid, "x": base64url(x), "y": base64url(y) })
            }
        }
    }

    pub(crate) fn keys(&self) -> KeySet {
        let document = json!({ "keys": [self.jwk()] }).to_string();
        KeySet::parse(document.as_bytes()).unwrap().0
    }

    pub(crate) fn token(&self, typ: Option<&str>, claims: &Object) -> String {
        let mut header = json!({ "alg": self.algorithm(), "kid": self.kid() });
        if let Some(typ) = typ {
            header["typ"] = typ.into();
        }
        self.compact(&header, &Value::Object(claims.clone()).to_string())
    }

    /// Any header over any payload text, validly signed.
    pub(crate) fn compact(&self, header: &Value, payload: &str) -> String {
        let signed = format!("{}.{}", base64url(header.to_string()), base64url(payload));
        let random = SystemRandom::new();
        let signature = match self {
            Signer::Rsa { key, .. } => {
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(&signature::RSA_PKCS1_SHA256, &random, signed.as_bytes(), &mut signature).unwrap();
                signature
            }
            Signer::Ec { key, .. } => key.sign(&random, signed.as_bytes()).unwrap().as_ref().to_vec(),
        };
        format!("{signed}.{}", base64url(signature))
    }
}
