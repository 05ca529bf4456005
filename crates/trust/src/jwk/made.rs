//! Keys and signed tokens made fresh for tests, with aws-lc-rs directly, so that no code under test makes its own evidence.
use super::Algorithm;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{self as sig, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RsaKeyPair};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

pub(crate) fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

enum Pair {
    Ec(EcdsaKeyPair),
    Ed(Ed25519KeyPair),
    Rsa(RsaKeyPair),
}

/// A private key and the algorithm it was made for.
pub(crate) struct Signer {
    pair: Pair,
    pub(crate) algorithm: Algorithm,
}

impl Signer {
    pub(crate) fn new(algorithm: Algorithm) -> Signer {
        let ec = |kind| Pair::Ec(EcdsaKeyPair::generate(kind).unwrap());
        let pair = match algorithm {
            Algorithm::Es256 => ec(&sig::ECDSA_P256_SHA256_FIXED_SIGNING),
            Algorithm::Es384 => ec(&sig::ECDSA_P384_SHA384_FIXED_SIGNING),
            Algorithm::Es512 => ec(&sig::ECDSA_P521_SHA512_FIXED_SIGNING),
            Algorithm::EdDsa => Pair::Ed(Ed25519KeyPair::generate().unwrap()),
            _ => Pair::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).unwrap()),
        };
        Signer { pair, algorithm }
    }

    /// The same private key, used with another algorithm.
    pub(crate) fn sign_as(&self, algorithm: Algorithm, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match &self.pair {
            Pair::Ec(pair) => pair.sign(&random, message).unwrap().as_ref().to_vec(),
            Pair::Ed(pair) => pair.sign(message).as_ref().to_vec(),
            Pair::Rsa(pair) => {
                let padding: &'static dyn sig::RsaEncoding = match algorithm {
                    Algorithm::Rs384 => &sig::RSA_PKCS1_SHA384,
                    Algorithm::Rs512 => &sig::RSA_PKCS1_SHA512,
                    Algorithm::Ps256 => &sig::RSA_PSS_SHA256,
                    Algorithm::Ps384 => &sig::RSA_PSS_SHA384,
                    Algorithm::Ps512 => &sig::RSA_PSS_SHA512,
                    _ => &sig::RSA_PKCS1_SHA256,
                };
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(padding, &random, message, &mut signature).unwrap();
                signature
            }
        }
    }

    /// The public JWK: `kty`, its numbers and `kid`; no `alg`, no `use`.
    pub(crate) fn jwk(&self, kid: &str) -> Value {
        match &self.pair {
            Pair::Ec(pair) => {
                let point = &pair.public_key().as_ref()[1..];
                let (x, y) = point.split_at(point.len() / 2);
                let crv = match self.algorithm {
                    Algorithm::Es256 => "P-256",
                    Algorithm::Es384 => "P-384",
                    _ => "P-521",
                };
                json!({"kty": "EC", "crv": crv, "x": b64(x), "y": b64(y), "kid": kid})
            }
            Pair::Ed(pair) => json!({"kty": "OKP", "crv": "Ed25519", "x": b64(pair.public_key()), "kid": kid}),
            Pair::Rsa(pair) => {
                let (n, e) = (pair.public_key().modulus(), pair.public_key().exponent());
                let (n, e) = (n.big_endian_without_leading_zero(), e.big_endian_without_leading_zero());
                json!({"kty": "RSA", "n": b64(n), "e": b64(e), "kid": kid})
            }
        }
    }

    /// The private key in PKCS#8, for other libraries to sign with.
    pub(crate) fn pkcs8(&self) -> Vec<u8> {
        use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
        match &self.pair {
            Pair::Ec(pair) => pair.to_pkcs8v1().unwrap().as_ref().to_vec(),
            Pair::Ed(pair) => pair.to_pkcs8().unwrap().as_ref().to_vec(),
            Pair::Rsa(pair) => AsDer::<Pkcs8V1Der>::as_der(pair).unwrap().as_ref().to_vec(),
        }
    }

    /// A compact JWS over exactly these bytes.
    pub(crate) fn token(&self, header: impl AsRef<[u8]>, payload: impl AsRef<[u8]>) -> String {
        let signed = format!("{}.{}", b64(header), b64(payload));
        let signature = self.sign_as(self.algorithm, signed.as_bytes());
        format!("{signed}.{}", b64(signature))
    }
}

pub(crate) fn jwks(keys: &[Value]) -> Vec<u8> {
    serde_json::to_vec(&json!({ "keys": keys })).unwrap()
}
