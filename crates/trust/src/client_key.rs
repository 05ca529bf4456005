//! The key by which we prove to an issuer which of its clients we are, and the assertions it signs (RFC 7523 §3,
//! `private_key_jwt`). Never shows or copies the key, and never decides for whom an assertion is: the caller names him.
#[cfg(test)]
mod tests;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, RSA_PKCS1_SHA256, RSA_PSS_SHA256, RsaKeyPair,
};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Map, Value, json};
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::jwk::Algorithm;

/// How long an assertion is good for, in seconds: as long as it may take to be read, and clocks may differ.
const LIFE_S: i64 = 120;
/// Issuers whose clock is behind by less than this still find an assertion begun. Seconds.
const CLOCKS_DIFFER_S: i64 = 30;
/// What aws-lc signs with, in bytes of the modulus; less is too weak for anybody.
const RSA_BYTES: std::ops::RangeInclusive<usize> = 256..=1024;

/// Why a file makes no client key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ClientKeyError {
    #[error("holds no private key in PEM")]
    NoKey,
    #[error("holds a key that is locked by a passphrase")]
    Locked,
    #[error("holds no key that is of P-256, or RSA of 2048 to 8192 bits")]
    Kind,
    #[error("holds a key that does not sign {}", .0.name())]
    Algorithm(Algorithm),
    #[error("holds no certificate in PEM")]
    NoCertificate,
    #[error("is the certificate of another key")]
    ForeignCertificate,
}

enum Pair {
    Ec(EcdsaKeyPair),
    Rsa(RsaKeyPair),
}

/// What an assertion says of its key besides the algorithm.
#[derive(Debug, Clone, Copy, Default)]
pub struct Naming<'a> {
    /// `kid`: the name under which the issuer knows the public half.
    pub key_id: Option<&'a str>,
    /// PEM. The assertion then carries `x5t#S256`, by which Entra finds the key.
    pub certificate: Option<&'a str>,
}

/// A client's private key, in memory only: never printed, never copied; aws-lc wipes it when it is dropped.
pub struct ClientKey {
    pair: Pair,
    algorithm: Algorithm,
    random: SystemRandom,
    /// The constant first part of every assertion, with its dot.
    header: String,
}

impl ClientKey {
    /// `pem` is PKCS#8, or an EC or RSA key in the form of its own kind. Without `algorithm` a key of P-256 signs ES256
    /// and one of RSA signs `rsa_default`.
    pub fn from_pem(
        pem: &str,
        algorithm: Option<Algorithm>,
        rsa_default: Algorithm,
        naming: Naming<'_>,
    ) -> Result<ClientKey, ClientKeyError> {
        let pair = pair(pem)?;
        let (algorithm, fits) = match &pair {
            Pair::Ec(_) => {
                let algorithm = algorithm.unwrap_or(Algorithm::Es256);
                (algorithm, algorithm == Algorithm::Es256)
            }
            Pair::Rsa(_) => {
                let algorithm = algorithm.unwrap_or(rsa_default);
                (algorithm, matches!(algorithm, Algorithm::Rs256 | Algorithm::Ps256))
            }
        };
        if !fits {
            return Err(ClientKeyError::Algorithm(algorithm));
        }
        let mut header: Map<String, Value> = Map::new();
        header.insert("typ".to_owned(), "JWT".into());
        header.insert("alg".to_owned(), algorithm.name().into());
        header.extend(naming.key_id.map(|key_id| ("kid".to_owned(), key_id.into())));
        if let Some(certificate) = naming.certificate {
            let der = block(certificate, "CERTIFICATE").ok_or(ClientKeyError::NoCertificate)?;
            if !names(&der, &pair) {
                return Err(ClientKeyError::ForeignCertificate);
            }
            header.insert("x5t#S256".to_owned(), URL_SAFE_NO_PAD.encode(digest(&SHA256, &der)).into());
        }
        let header = URL_SAFE_NO_PAD.encode(Value::Object(header).to_string()) + ".";
        Ok(ClientKey { pair, algorithm, random: SystemRandom::new(), header })
    }

    /// One assertion, for one use by `audience`. Signing needs randomness, which aws-lc-rs draws inside. `None`: the
    /// library did not sign.
    pub fn assertion(&self, client_id: &str, audience: &str, now: i64, jti: Uuid) -> Option<Zeroizing<String>> {
        let begins = now.saturating_sub(CLOCKS_DIFFER_S);
        let claims = json!({
            "iss": client_id, "sub": client_id, "aud": audience, "jti": jti.to_string(),
            "iat": begins, "nbf": begins, "exp": now.saturating_add(LIFE_S),
        });
        let mut assertion = Zeroizing::new(self.header.clone());
        URL_SAFE_NO_PAD.encode_string(claims.to_string(), &mut assertion);
        let signature = self.sign(assertion.as_bytes())?;
        assertion.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut assertion);
        Some(assertion)
    }

    fn sign(&self, message: &[u8]) -> Option<Vec<u8>> {
        match &self.pair {
            Pair::Ec(pair) => Some(pair.sign(&self.random, message).ok()?.as_ref().to_vec()),
            Pair::Rsa(pair) => {
                let padding = if self.algorithm == Algorithm::Ps256 { &RSA_PSS_SHA256 } else { &RSA_PKCS1_SHA256 };
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(padding, &self.random, message, &mut signature).ok()?;
                Some(signature)
            }
        }
    }
}

fn pair(pem: &str) -> Result<Pair, ClientKeyError> {
    if pem.contains("-----BEGIN ENCRYPTED PRIVATE KEY-----") || pem.contains("Proc-Type: 4,ENCRYPTED") {
        return Err(ClientKeyError::Locked);
    }
    let ec = |der: &[u8]| EcdsaKeyPair::from_private_key_der(&ECDSA_P256_SHA256_FIXED_SIGNING, der).ok().map(Pair::Ec);
    let strong = |pair: RsaKeyPair| RSA_BYTES.contains(&pair.public_modulus_len()).then_some(Pair::Rsa(pair));
    let found = if let Some(der) = block(pem, "PRIVATE KEY") {
        RsaKeyPair::from_pkcs8(&der).ok().and_then(strong).or_else(|| ec(&der))
    } else if let Some(der) = block(pem, "RSA PRIVATE KEY") {
        RsaKeyPair::from_der(&der).ok().and_then(strong)
    } else if let Some(der) = block(pem, "EC PRIVATE KEY") {
        ec(&der)
    } else {
        return Err(ClientKeyError::NoKey);
    };
    found.ok_or(ClientKeyError::Kind)
}

/// The first block of this label (RFC 7468).
fn block(pem: &str, label: &str) -> Option<Zeroizing<Vec<u8>>> {
    let (_, rest) = pem.split_once(&format!("-----BEGIN {label}-----"))?;
    let (body, _) = rest.split_once(&format!("-----END {label}-----"))?;
    let mut text = Zeroizing::new(String::with_capacity(body.len()));
    text.extend(body.split_ascii_whitespace());
    STANDARD.decode(text.as_bytes()).ok().map(Zeroizing::new)
}

/// Does this certificate in DER name the key? Its SubjectPublicKeyInfo holds the public half in these very bytes.
fn names(certificate: &[u8], pair: &Pair) -> bool {
    let public = match pair {
        Pair::Ec(pair) => pair.public_key().as_ref(),
        Pair::Rsa(pair) => pair.public_key().as_ref(),
    };
    certificate.windows(public.len()).any(|part| part == public)
}
