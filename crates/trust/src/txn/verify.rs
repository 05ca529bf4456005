//! Checking a Txn-Token against the minters' published keys.
//!
//! Signature before claims, exact kind, `iss` pinned to the key that signed; every refusal has one reason. Looks at no
//! revocation list: the caller does, on every request, by what [`VerifiedTxn`] tells.
use super::{BYTES_MAX, KEYS_MAX, LEEWAY_S, LIFE_MAX_S, PublishedKey, PublishedKeys, Refused, TYP};
use crate::json::{self, Object};
use crate::jwk::{Algorithm, LeftOut, VerifyingKey};
use crate::jws::{JwsError, Unverified};
use crate::reason::Reason;
use crate::spiffe::SpiffeId;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Checks Txn-Tokens against published keys. Made anew for every new set.
#[derive(Debug)]
pub struct Verifier {
    audience: String,
    seq: u64,
    minters: BTreeMap<String, Minter>,
    left_out: Vec<LeftOut>,
    may_mint: fn(&str) -> bool,
}

/// One published key and its owner.
#[derive(Debug)]
struct Minter {
    key: Arc<VerifyingKey>,
    id: Arc<str>,
    not_before: i64,
    expires_at: i64,
}

/// Proof that a Txn-Token was checked.
#[derive(Debug, Clone)]
pub struct VerifiedTxn {
    claims: Object,
    kid: Arc<VerifyingKey>,
    minter: Arc<str>,
    issued_at: i64,
    expires_at: i64,
}

fn refused<T>(reason: Reason, detail: impl Into<String>) -> Result<T, Refused> {
    Err(Refused { reason, detail: detail.into() })
}

impl Verifier {
    /// `audience` is the trust domain's name; `may_mint` says whether the role of a minter's SPIFFE ID may mint. Keys
    /// that do not fit, of another trust domain, or beyond [`KEYS_MAX`] are left out.
    pub fn new(audience: &str, keys: &PublishedKeys, may_mint: fn(&str) -> bool) -> Verifier {
        let mut minters: BTreeMap<String, Minter> = BTreeMap::new();
        let mut left_out = Vec::new();
        for (at, published) in keys.keys.iter().enumerate() {
            let minter = match at < KEYS_MAX && !minters.contains_key(&published.kid) {
                true => minter(published, audience),
                false => Err("the key stands twice, or the set is too large"),
            };
            match minter {
                Ok(minter) => drop(minters.insert(published.kid.clone(), minter)),
                Err(why) => left_out.push(LeftOut { kid: Some(json::excerpt(&published.kid)), why }),
            }
        }
        Verifier { audience: audience.to_owned(), seq: keys.seq, minters, left_out, may_mint }
    }

    /// The `seq` of the published set; whoever replaces a verifier must never go back.
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// Published keys that no token can be checked with, and why.
    pub fn left_out(&self) -> &[LeftOut] {
        &self.left_out
    }

    /// `now` in unix seconds.
    pub fn verify(&self, token: &str, now: i64) -> Result<VerifiedTxn, Refused> {
        let unverified = Unverified::parse(token, BYTES_MAX).map_err(malformed)?;
        let minter = self.minter_of(&unverified)?;
        let verified = unverified.verify_with(&minter.key).map_err(malformed)?;
        let claims = match json::object(verified.payload(), BYTES_MAX) {
            Ok(claims) => claims,
            Err(error) => return refused(Reason::ClaimsMalformed, error.to_string()),
        };
        self.check_issuer(&claims, minter)?;
        self.check_audience(&claims)?;
        let (issued_at, expires_at) = check_times(&claims, minter, now)?;
        check_shape(&claims)?;
        let (kid, minter) = (Arc::clone(&minter.key), Arc::clone(&minter.id));
        Ok(VerifiedTxn { claims, kid, minter, issued_at, expires_at })
    }

    /// Kind and algorithm are exact, and `kid` must name one of our keys.
    fn minter_of(&self, unverified: &Unverified<'_>) -> Result<&Minter, Refused> {
        if unverified.typ() != Some(TYP) {
            return refused(Reason::TokenKind, format!("`typ` is {}, not `{TYP}`", shown(unverified.typ())));
        }
        if unverified.algorithm() != Algorithm::Es256 {
            let name = unverified.algorithm().name();
            return refused(Reason::AlgorithmRefused, format!("`alg` is `{name}`, not `ES256`"));
        }
        match unverified.kid().and_then(|kid| self.minters.get(kid)) {
            Some(minter) => Ok(minter),
            None => refused(Reason::KeyUnknown, format!("no minter has the key {}", shown(unverified.kid()))),
        }
    }

    fn check_issuer(&self, claims: &Object, minter: &Minter) -> Result<(), Refused> {
        let iss = text(claims, "iss")?;
        if iss != &*minter.id {
            let detail = format!("`iss` is `{}`, but the key belongs to `{}`", json::excerpt(iss), minter.id);
            return refused(Reason::IssuerUnknown, detail);
        }
        if !(self.may_mint)(iss) {
            return refused(Reason::IssuerUnknown, format!("the role of `{iss}` may not mint"));
        }
        Ok(())
    }

    /// One string, byte for byte: a list would make the token good for others too.
    fn check_audience(&self, claims: &Object) -> Result<(), Refused> {
        match claims.get("aud") {
            Some(Value::String(aud)) if *aud == self.audience => Ok(()),
            Some(Value::String(aud)) => {
                let detail = format!("`aud` is `{}`, not `{}`", json::excerpt(aud), self.audience);
                refused(Reason::AudienceWrong, detail)
            }
            _ => refused(Reason::AudienceWrong, "`aud` is not one string"),
        }
    }
}

/// A published key becomes a minter when every word of it is as WIRE says, and its `kid` is really its thumbprint.
fn minter(published: &PublishedKey, audience: &str) -> Result<Minter, &'static str> {
    let id = SpiffeId::parse(&published.cs_iss).map_err(|_| "`cs_iss` is no SPIFFE ID")?;
    if id.trust_domain() != audience {
        return Err("`cs_iss` belongs to another trust domain");
    }
    if published.cs_nbf >= published.cs_exp {
        return Err("`cs_exp` is not after `cs_nbf`");
    }
    let key = published.verifying_key()?;
    if key.algorithms() != [Algorithm::Es256] {
        return Err("not a P-256 key");
    }
    if key.thumbprint() != published.kid {
        return Err("`kid` is not the key's thumbprint");
    }
    let (not_before, expires_at) = (published.cs_nbf, published.cs_exp);
    Ok(Minter { key: Arc::new(key), id: id.as_str().into(), not_before, expires_at })
}

fn malformed(error: JwsError) -> Refused {
    let reason = match &error {
        JwsError::TooLarge(_) => Reason::TokenTooLarge,
        JwsError::Shape | JwsError::Header(_) => Reason::TokenMalformed,
        JwsError::HeaderForbidden(_) => Reason::TokenHeaderForbidden,
        JwsError::Algorithm(_) => Reason::AlgorithmRefused,
        JwsError::KeyUnknown(_) => Reason::KeyUnknown,
        JwsError::Signature => Reason::SignatureBad,
    };
    Refused { reason, detail: error.to_string() }
}

/// A key may issue between its two dates; what it issued then lives out its own, short life.
fn check_times(claims: &Object, minter: &Minter, now: i64) -> Result<(i64, i64), Refused> {
    let (iat, exp) = (seconds(claims, "iat")?, seconds(claims, "exp")?);
    if exp <= iat || exp.saturating_sub(iat) > LIFE_MAX_S {
        return refused(Reason::ClaimsMalformed, format!("a life from {iat} to {exp} is not 1 to {LIFE_MAX_S} s long"));
    }
    if iat > now.saturating_add(LEEWAY_S) {
        return refused(Reason::Clock, format!("issued {} s in the future", iat.saturating_sub(now)));
    }
    if now >= exp.saturating_add(LEEWAY_S) {
        return refused(Reason::Expired, format!("expired {} s ago", now.saturating_sub(exp)));
    }
    if claims.contains_key("nbf") && seconds(claims, "nbf")? > now.saturating_add(LEEWAY_S) {
        return refused(Reason::NotYetValid, "`nbf` is in the future");
    }
    if iat < minter.not_before.saturating_sub(LEEWAY_S) || iat >= minter.expires_at {
        return refused(Reason::KeyUnknown, "issued outside the life of the minter's key");
    }
    Ok((iat, exp))
}

/// The remaining claims have the form the draft gives them; a `cnf` we cannot check must not be ignored (RFC 7800 §3).
fn check_shape(claims: &Object) -> Result<(), Refused> {
    for name in ["sub", "scope", "req_wl"] {
        text(claims, name)?;
    }
    let txn = text(claims, "txn")?;
    if !uuid::Uuid::try_parse(txn).is_ok_and(|id| id.get_version_num() == 7 && id.hyphenated().to_string() == txn) {
        return refused(Reason::ClaimsMalformed, "`txn` is no UUIDv7");
    }
    if claims.contains_key("cnf") {
        return refused(Reason::SenderConstrained, "`cnf` asks for a proof that Txn-Tokens do not carry");
    }
    for name in ["rctx", "tctx"] {
        if claims.get(name).is_some_and(|context| !context.is_object()) {
            return refused(Reason::ClaimsMalformed, format!("`{name}` is no object"));
        }
    }
    let mut actor = claims.get("act");
    while let Some(acting) = actor {
        match acting.get("sub") {
            Some(Value::String(sub)) if is_name(sub) => actor = acting.get("act"),
            _ => return refused(Reason::ClaimsMalformed, "`act` names nobody"),
        }
    }
    Ok(())
}

/// A required claim: text, not empty, and without what could write a second line into somebody's log.
fn text<'c>(claims: &'c Object, name: &str) -> Result<&'c str, Refused> {
    match claims.get(name) {
        Some(Value::String(text)) if is_name(text) => Ok(text),
        Some(Value::String(text)) if !text.is_empty() => {
            refused(Reason::ClaimsMalformed, format!("`{name}` holds a control character"))
        }
        _ => refused(Reason::ClaimsMalformed, format!("`{name}` is missing or no text")),
    }
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && !text.chars().any(char::is_control)
}

/// A whole number of unix seconds, never negative, never a fraction.
fn seconds(claims: &Object, name: &str) -> Result<i64, Refused> {
    match claims.get(name).and_then(Value::as_i64) {
        Some(seconds) if seconds >= 0 => Ok(seconds),
        _ => refused(Reason::ClaimsMalformed, format!("`{name}` is missing or no whole number of seconds")),
    }
}

fn shown(text: Option<&str>) -> String {
    text.map_or_else(|| "missing".to_owned(), |text| format!("`{}`", json::excerpt(text)))
}

impl VerifiedTxn {
    /// `sub`: `<issuer name>|<stable id>` or a SPIFFE ID.
    pub fn subject(&self) -> &str {
        self.text("sub")
    }

    /// The transaction's id, a UUIDv7.
    pub fn txn(&self) -> &str {
        self.text("txn")
    }

    /// The purpose the token was minted for.
    pub fn scope(&self) -> &str {
        self.text("scope")
    }

    /// The agent now acting for the subject (outermost `act`).
    pub fn actor(&self) -> Option<&str> {
        self.claims.get("act").and_then(|act| act.get("sub")).and_then(Value::as_str)
    }

    /// `rctx.sid`, by which a session is revoked.
    pub fn sid(&self) -> Option<&str> {
        self.claims.get("rctx").and_then(|context| context.get("sid")).and_then(Value::as_str)
    }

    /// SPIFFE ID of the minter, as its key proved it.
    pub fn minter(&self) -> &str {
        &self.minter
    }

    pub fn kid(&self) -> &str {
        self.kid.kid().unwrap_or_default()
    }

    pub fn issued_at(&self) -> i64 {
        self.issued_at
    }

    pub fn expires_at(&self) -> i64 {
        self.expires_at
    }

    pub fn claims(&self) -> &Object {
        &self.claims
    }

    /// Every name asked for here was found to be text when the token was checked.
    fn text(&self, name: &str) -> &str {
        self.claims.get(name).and_then(Value::as_str).unwrap_or_default()
    }
}
