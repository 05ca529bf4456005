//! Keys that sign, for test tokens. Any header, any payload: nothing here refuses to sign nonsense.
use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RSA_PSS_SHA256,
    RsaKeyPair,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

/// What a key signs with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Es256,
    Rs256,
    Ps256,
    EdDsa,
}

impl Kind {
    pub const ALL: [Kind; 4] = [Kind::Es256, Kind::Rs256, Kind::Ps256, Kind::EdDsa];

    /// The JOSE name.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Es256 => "ES256",
            Kind::Rs256 => "RS256",
            Kind::Ps256 => "PS256",
            Kind::EdDsa => "EdDSA",
        }
    }
}

enum Private {
    Ec(EcdsaKeyPair),
    Rsa(RsaKeyPair),
    Ed(Ed25519KeyPair),
}

/// A private key with the kid it is published under.
pub struct SigningKey {
    pub kid: String,
    pub kind: Kind,
    private: Private,
}

pub fn base64url(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

impl SigningKey {
    pub fn generate(kind: Kind, kid: &str) -> SigningKey {
        let private = match kind {
            Kind::Es256 => Private::Ec(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap()),
            Kind::Rs256 | Kind::Ps256 => Private::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).unwrap()),
            Kind::EdDsa => Private::Ed(Ed25519KeyPair::generate().unwrap()),
        };
        SigningKey { kid: kid.to_owned(), kind, private }
    }

    /// The public half as a JWK with `kid`, `alg` and `use: sig`.
    pub fn jwk(&self) -> Value {
        let mut jwk = match &self.private {
            Private::Ec(pair) => {
                // SEC 1 uncompressed point: 4, x, y.
                let point = pair.public_key().as_ref();
                json!({"kty": "EC", "crv": "P-256", "x": base64url(&point[1..33]), "y": base64url(&point[33..65])})
            }
            Private::Rsa(pair) => {
                let (n, e) = rsa_numbers(pair.public_key().as_ref());
                json!({"kty": "RSA", "n": base64url(n), "e": base64url(e)})
            }
            Private::Ed(pair) => json!({"kty": "OKP", "crv": "Ed25519", "x": base64url(pair.public_key().as_ref())}),
        };
        jwk["kid"] = json!(self.kid);
        jwk["alg"] = json!(self.kind.name());
        jwk["use"] = json!("sig");
        jwk
    }

    /// The public half as a SubjectPublicKeyInfo, DER.
    pub fn public_der(&self) -> Vec<u8> {
        match &self.private {
            Private::Ec(pair) => AsDer::as_der(pair.public_key()).unwrap().as_ref().to_vec(),
            Private::Rsa(pair) => AsDer::as_der(pair.public_key()).unwrap().as_ref().to_vec(),
            Private::Ed(pair) => AsDer::as_der(pair.public_key()).unwrap().as_ref().to_vec(),
        }
    }

    /// The raw JOSE signature.
    pub fn signature(&self, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match &self.private {
            Private::Ec(pair) => pair.sign(&random, message).unwrap().as_ref().to_vec(),
            Private::Ed(pair) => pair.sign(message).as_ref().to_vec(),
            Private::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                let padding: &'static dyn aws_lc_rs::signature::RsaEncoding =
                    if self.kind == Kind::Ps256 { &RSA_PSS_SHA256 } else { &RSA_PKCS1_SHA256 };
                pair.sign(padding, &random, message, &mut signature).unwrap();
                signature
            }
        }
    }

    /// A compact JWS over exactly these bytes.
    pub fn sign_bytes(&self, header: &[u8], payload: &[u8]) -> String {
        let signed = format!("{}.{}", base64url(header), base64url(payload));
        let signature = self.signature(signed.as_bytes());
        format!("{signed}.{}", base64url(signature))
    }

    /// A compact JWS with this key's `alg` and `kid` and `typ: at+jwt`. Members of `header` replace those; `null` removes.
    pub fn sign(&self, header: &Value, claims: &Value) -> String {
        let base = json!({"alg": self.kind.name(), "kid": self.kid, "typ": "at+jwt"});
        let header = overlay(base, header);
        self.sign_bytes(header.to_string().as_bytes(), claims.to_string().as_bytes())
    }
}

/// Members of `over` replace those of `base`; `null` removes.
pub fn overlay(mut base: Value, over: &Value) -> Value {
    let object = base.as_object_mut().expect("an object");
    for (name, value) in over.as_object().into_iter().flatten() {
        if value.is_null() {
            object.remove(name);
        } else {
            object.insert(name.clone(), value.clone());
        }
    }
    base
}

/// Modulus and exponent of a PKCS #1 RSAPublicKey in DER, without leading zeros.
fn rsa_numbers(der: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let (sequence, _) = der_value(der);
    let (n, rest) = der_value(sequence);
    let (e, _) = der_value(rest);
    let plain = |bytes: &[u8]| bytes.iter().copied().skip_while(|byte| *byte == 0).collect();
    (plain(n), plain(e))
}

/// Value of the first DER element, and what follows it.
fn der_value(der: &[u8]) -> (&[u8], &[u8]) {
    let first = usize::from(der[1]);
    let (length, start) = if first < 128 {
        (first, 2)
    } else {
        let bytes = first - 128;
        (der[2..2 + bytes].iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), 2 + bytes)
    };
    (&der[start..start + length], &der[start + length..])
}
