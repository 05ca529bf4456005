//! Signing a Txn-Token: claims are written once, straight into the bytes that are signed.
//!
//! Never mints what [`super::Verifier`] would refuse, and never shows or copies the private key.
use super::{BYTES_MAX, Claims, LIFE_MAX_S, MintError, PublishedKey, TYP};
use crate::jwk::VerifyingKey;
use crate::principal::{Agent, Assurance, Principal};
use crate::spiffe::SpiffeId;
use crate::token::Binding;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Serialize, Serializer};
use std::sync::Arc;

/// Length of r‖s in base64url.
const SIGNATURE_CHARS: usize = 86;
/// First guess of a payload's size, in bytes.
const PAYLOAD_BYTES_USUAL: usize = 768;

/// A minter's P-256 key, in memory only: never printed, never copied; aws-lc wipes it when it is dropped.
pub struct SigningKey {
    pair: EcdsaKeyPair,
    random: SystemRandom,
    /// The constant first part of every token, with its dot.
    header: String,
    published: PublishedKey,
}

impl SigningKey {
    /// `pkcs8` as aws-lc-rs made it (the caller draws the randomness). `minter` is the edge's SPIFFE ID. `None` when
    /// either is none, or the key would end before it begins.
    pub fn from_pkcs8(pkcs8: &[u8], minter: &str, not_before: i64, expires_at: i64) -> Option<SigningKey> {
        if not_before >= expires_at {
            return None;
        }
        let minter = SpiffeId::parse(minter).ok()?;
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8).ok()?;
        let published = published(&pair, &minter, not_before, expires_at)?;
        let header = format!(r#"{{"typ":"{TYP}","alg":"ES256","kid":"{}"}}"#, published.kid);
        let header = URL_SAFE_NO_PAD.encode(header) + ".";
        Some(SigningKey { pair, random: SystemRandom::new(), header, published })
    }

    /// RFC 7638 thumbprint of the public half.
    pub fn kid(&self) -> &str {
        &self.published.kid
    }

    pub fn published(&self) -> &PublishedKey {
        &self.published
    }

    /// Signs. ES256 needs randomness, which aws-lc-rs draws inside: the one exception to this crate's purity.
    pub fn mint(&self, claims: &Claims<'_>) -> Result<String, MintError> {
        let expires_at = claims.expires_at.min(proof_ends(claims));
        self.check(claims, expires_at)?;
        let mut payload = Vec::with_capacity(PAYLOAD_BYTES_USUAL);
        let mut txn = uuid::Uuid::encode_buffer();
        let txn = claims.txn.hyphenated().encode_lower(&mut txn);
        let body = Body::of(claims, txn, expires_at, &self.published.cs_iss);
        serde_json::to_writer(&mut payload, &body).map_err(|_| MintError::Claims("the claims are not writable"))?;
        let bytes = self.header.len() + payload.len().div_ceil(3) * 4 + 1 + SIGNATURE_CHARS;
        let mut token = String::with_capacity(bytes);
        token.push_str(&self.header);
        URL_SAFE_NO_PAD.encode_string(&payload, &mut token);
        let bytes = token.len() + 1 + SIGNATURE_CHARS;
        if bytes > BYTES_MAX {
            return Err(MintError::TooLarge(bytes));
        }
        let signature = self.pair.sign(&self.random, token.as_bytes()).map_err(|_| MintError::Signature)?;
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        Ok(token)
    }

    fn check(&self, claims: &Claims<'_>, expires_at: i64) -> Result<(), MintError> {
        let life = expires_at.saturating_sub(claims.issued_at);
        let key = self.published.cs_nbf..self.published.cs_exp;
        let required = [claims.audience, &claims.principal.subject, claims.scope, claims.req_wl, claims.route];
        let refuse = |why| Err(MintError::Claims(why));
        if life <= 0 {
            return refuse("the token would end before it begins");
        }
        if life > LIFE_MAX_S {
            return refuse("the token would live longer than 300 s");
        }
        if !key.contains(&claims.issued_at) {
            return refuse("the minting key is not valid at this time");
        }
        if required.iter().any(|text| text.is_empty()) {
            return refuse("a required claim is empty");
        }
        let actor = claims.principal.agent.as_ref().map(|agent| &*agent.name);
        if required.into_iter().chain(actor).any(|text| text.chars().any(char::is_control)) {
            return refuse("a claim holds a control character");
        }
        if claims.txn.get_version_num() != 7 {
            return refuse("`txn` is no UUIDv7");
        }
        if repeats(claims.params) {
            return refuse("a route parameter stands twice");
        }
        Ok(())
    }
}

/// When the principal's own proof ends. One that was accepted within its issuer's leeway has ended by our clock already:
/// it is worth one second more, the shortest life there is.
fn proof_ends(claims: &Claims<'_>) -> i64 {
    claims.principal.expires_at.max(claims.issued_at.saturating_add(1))
}

fn published(pair: &EcdsaKeyPair, minter: &SpiffeId, not_before: i64, expires_at: i64) -> Option<PublishedKey> {
    let point = pair.public_key().as_ref().strip_prefix(&[0x04])?;
    let (x, y) = point.split_at_checked(32)?;
    let key = PublishedKey {
        kty: "EC".to_owned(),
        crv: "P-256".to_owned(),
        x: URL_SAFE_NO_PAD.encode(x),
        y: URL_SAFE_NO_PAD.encode(y),
        kid: String::new(),
        alg: "ES256".to_owned(),
        key_ops: vec!["verify".to_owned()],
        cs_iss: minter.as_str().to_owned(),
        cs_nbf: not_before,
        cs_exp: expires_at,
    };
    let kid = key.verifying_key().ok()?.thumbprint().to_owned();
    Some(PublishedKey { kid, ..key })
}

impl PublishedKey {
    /// The key the signature maths uses; the reason it has none otherwise.
    pub(super) fn verifying_key(&self) -> Result<VerifyingKey, &'static str> {
        match serde_json::to_value(self) {
            Ok(serde_json::Value::Object(jwk)) => VerifyingKey::from_jwk(&jwk),
            _ => Err("not a JSON object"),
        }
    }
}

/// Route parameters are few, so comparing each with each is cheaper than a set.
fn repeats(params: &[(Arc<str>, String)]) -> bool {
    params.iter().enumerate().any(|(at, (name, _))| params.iter().skip(at + 1).any(|(other, _)| other == name))
}

/// The payload, in the order it is written.
#[derive(Serialize)]
struct Body<'a> {
    iss: &'a str,
    aud: &'a str,
    iat: i64,
    exp: i64,
    txn: &'a str,
    sub: &'a str,
    scope: &'a str,
    req_wl: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    act: Option<Actor<'a>>,
    #[serde(skip_serializing_if = "RequestContext::is_empty")]
    rctx: RequestContext<'a>,
    tctx: TransactionContext<'a>,
}

#[derive(Serialize)]
struct Actor<'a> {
    sub: &'a str,
}

#[derive(Serialize)]
struct RequestContext<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    req_ip: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sid: Option<&'a str>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    amr: &'a [Arc<str>],
    #[serde(skip_serializing_if = "Option::is_none")]
    acr: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    auth_time: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cnf: Option<Confirmed>,
}

/// In the words of RFC 9449 §6.1 and RFC 8705 §3.1.
#[derive(Serialize)]
struct Confirmed {
    #[serde(skip_serializing_if = "Option::is_none")]
    jkt: Option<String>,
    #[serde(rename = "x5t#S256", skip_serializing_if = "Option::is_none")]
    certificate: Option<String>,
}

impl Confirmed {
    fn of(binding: &Binding) -> Option<Confirmed> {
        binding.bound()?;
        let text = |hash: &[u8; 32]| URL_SAFE_NO_PAD.encode(hash);
        Some(Confirmed { jkt: binding.key().map(text), certificate: binding.certificate().map(text) })
    }
}

#[derive(Serialize)]
struct TransactionContext<'a> {
    rt: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty", serialize_with = "as_members")]
    p: &'a [(Arc<str>, String)],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    g: &'a [Arc<str>],
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    gp: bool,
}

impl<'a> Body<'a> {
    fn of(claims: &Claims<'a>, txn: &'a str, expires_at: i64, minter: &'a str) -> Body<'a> {
        let Principal { subject, agent, assurance, groups, .. } = claims.principal;
        Body {
            iss: minter,
            aud: claims.audience,
            iat: claims.issued_at,
            exp: expires_at,
            txn,
            sub: subject,
            scope: claims.scope,
            req_wl: claims.req_wl,
            act: agent.as_ref().map(|Agent { name }| Actor { sub: name }),
            rctx: RequestContext::of(claims, assurance),
            tctx: TransactionContext {
                rt: claims.route,
                p: claims.params,
                g: claims.groups,
                gp: !groups.is_complete(),
            },
        }
    }
}

impl<'a> RequestContext<'a> {
    fn of(claims: &Claims<'a>, assurance: &'a Assurance) -> RequestContext<'a> {
        RequestContext {
            req_ip: claims.req_ip,
            sid: claims.sid,
            amr: &assurance.amr,
            acr: assurance.acr.as_deref(),
            auth_time: assurance.auth_time,
            cnf: Confirmed::of(claims.binding),
        }
    }

    fn is_empty(&self) -> bool {
        matches!(self, RequestContext { req_ip: None, sid: None, amr: [], acr: None, auth_time: None, cnf: None })
    }
}

fn as_members<S: Serializer>(params: &[(Arc<str>, String)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(params.iter().map(|(name, value)| (name, value)))
}
