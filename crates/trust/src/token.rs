//! An issuer's access token, from text to [`Principal`]: the whole verification profile (RFC 9068, 7519, 8725), one exact
//! reason per refusal.
//!
//! Never believes a claim before the signature was checked and never takes one kind of token for another. What a token is
//! bound to (`cnf`) is read here and must be proved with every request: [`Binding::check`].
mod audience;
mod binding;
mod introspected;
mod kind;
mod membership;
mod overage;
mod read;
mod subject;
#[cfg(test)]
mod tests;
mod times;

pub use binding::{Binding, Bound, Scheme};
pub use introspected::{ANSWER_BYTES_MAX, ANSWER_LIFE_S, OPAQUE_BYTES_MAX, introspected, is_opaque, signed_answer};
pub use overage::{Overage, is_guid};

use crate::dpop::ProofError;
use crate::issuer::{Profile, SenderConstrained};
use crate::json::{self, Object};
use crate::jwk::KeySet;
use crate::jws::{JwsError, Unverified};
use crate::principal::Principal;
use crate::reason::Reason;

/// Largest access token we read, in bytes.
pub const BYTES_MAX: usize = 16 * 1024;

/// Longest detail text of a refusal, in characters.
const DETAIL_CHARS_MAX: usize = 400;

/// A token that was refused. `detail` is for the record and operators, never for the caller.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {detail}", reason.code())]
pub struct Refused {
    pub reason: Reason,
    pub detail: String,
}

/// The detail goes into records and terminals: one line, bounded, nothing invisible, whatever the token said.
fn refused(reason: Reason, detail: impl Into<String>) -> Refused {
    Refused { reason, detail: read::plain(&detail.into(), DETAIL_CHARS_MAX) }
}

impl From<JwsError> for Refused {
    fn from(error: JwsError) -> Refused {
        let reason = match &error {
            JwsError::TooLarge(_) => Reason::TokenTooLarge,
            JwsError::Shape | JwsError::Header(_) => Reason::TokenMalformed,
            JwsError::HeaderForbidden(_) => Reason::TokenHeaderForbidden,
            JwsError::Algorithm(_) => Reason::AlgorithmRefused,
            JwsError::KeyUnknown(_) => Reason::KeyUnknown,
            JwsError::Signature => Reason::SignatureBad,
        };
        refused(reason, error.to_string())
    }
}

impl From<ProofError> for Refused {
    fn from(error: ProofError) -> Refused {
        refused(Reason::DpopProof, error.to_string())
    }
}

/// What an unverified token claims about itself: enough to choose the issuer and to refuse cheaply before any key fetch.
#[derive(Debug)]
pub struct Peeked<'a> {
    jws: Unverified<'a>,
    /// Parsed from the very bytes that the signature covers.
    claims: Object,
    iss: String,
}

impl<'a> Peeked<'a> {
    /// Shape, header, size; claims are parsed strictly but believed in nothing.
    pub fn parse(text: &'a str) -> Result<Peeked<'a>, Refused> {
        if text.len() <= BYTES_MAX && !text.contains('.') {
            return Err(refused(
                Reason::TokenMalformed,
                "an opaque token: only its issuer can check it. Make the issuer send a JWT (Okta: a custom authorization \
                 server; Auth0: ask with `audience`; Google: an identity token), or configure `introspection` for it",
            ));
        }
        let jws = Unverified::parse(text, BYTES_MAX)?;
        let claims = json::object(jws.danger_unverified_payload(), BYTES_MAX)
            .map_err(|error| refused(Reason::ClaimsMalformed, format!("claims: {error}")))?;
        let iss = match claims.get("iss") {
            Some(serde_json::Value::String(iss)) => iss.clone(),
            Some(_) => return Err(refused(Reason::ClaimsMalformed, "`iss` is not a string")),
            None => return Err(refused(Reason::IssuerUnknown, "the token has no `iss`")),
        };
        Ok(Peeked { jws, claims, iss })
    }

    pub fn iss(&self) -> &str {
        &self.iss
    }

    pub fn kid(&self) -> Option<&str> {
        self.jws.kid()
    }

    /// The configured issuers that this token may be of, in the given order and never empty. More than one only where
    /// several share an `iss` (Kubernetes clusters do): then the keys tell them apart, so try each with its own key set.
    pub fn candidates<'p>(&self, profiles: impl IntoIterator<Item = &'p Profile>) -> Result<Vec<&'p Profile>, Refused> {
        let mut found = Vec::new();
        let mut miss = None;
        for profile in profiles {
            if profile.accepts_iss(&self.iss) {
                found.push(profile);
            } else if profile.is_foreign_tenant(&self.iss) || (miss.is_none() && profile.near_miss(&self.iss).is_some())
            {
                // A foreign tenant is the more exact answer than a mere look-alike.
                miss = Some(iss_refusal(profile, &self.iss));
            }
        }
        if found.is_empty() {
            return Err(miss.unwrap_or_else(|| {
                refused(Reason::IssuerUnknown, format!("no configured issuer is {}", read::quoted(&self.iss)))
            }));
        }
        Ok(found)
    }

    /// The cheap checks of an unknown kid: algorithm allowed, then everything but the subject. `Err` saves a fetch.
    pub fn plausible(&self, profile: &Profile, now: i64) -> Result<(), Refused> {
        let algorithm = self.jws.algorithm();
        if !profile.algorithms().contains(&algorithm) {
            return Err(JwsError::Algorithm(algorithm.name().to_owned()).into());
        }
        judge(&self.claims, self.jws.typ(), profile, now).map(|_| ())
    }

    /// Signature first, then kind, issuer, audience, times, tenant, `cnf`, subject.
    pub fn verify(self, profile: &Profile, keys: &KeySet, now: i64) -> Result<VerifiedToken, Refused> {
        let Peeked { jws, claims, .. } = self;
        let signed = jws.verify(keys, profile.algorithms())?;
        let (times, binding) = judge(&claims, signed.typ(), profile, now)?;
        let principal = subject::principal(&claims, profile, times.expires_at)?;
        let facts = Facts {
            kid: signed.key().kid().map(str::to_owned),
            algorithm: signed.algorithm().name().to_owned(),
            audience: audience::seen(&claims),
            issued_at: times.issued_at,
            expires_at: times.expires_at,
            token_id: read::token_id(&claims),
            bound: binding.bound(),
        };
        let overage = overage::of(&claims, profile, &principal);
        Ok(VerifiedToken { principal, facts, binding, overage })
    }
}

/// Everything but signature and subject. Runs on unverified claims only to refuse earlier.
fn judge(claims: &Object, typ: Option<&str>, profile: &Profile, now: i64) -> Result<(times::Times, Binding), Refused> {
    kind::check(claims, typ, profile)?;
    let iss = read::text(claims, "iss")?.unwrap_or_default();
    if !profile.accepts_iss(iss) {
        return Err(iss_refusal(profile, iss));
    }
    audience::check(claims, profile)?;
    let times = times::check(claims, profile.settings().leeway_s, now)?;
    subject::check_tenant(claims, iss, profile)?;
    let binding = Binding::of(claims)?;
    constrained_enough(&binding, profile)?;
    Ok((times, binding))
}

fn constrained_enough(binding: &Binding, profile: &Profile) -> Result<(), Refused> {
    if profile.settings().sender_constrained == SenderConstrained::Required && binding.bound().is_none() {
        return Err(refused(
            Reason::SenderConstrained,
            "the token is bound to nothing (no `cnf`), and this issuer is configured with `sender_constrained: required`",
        ));
    }
    Ok(())
}

fn iss_refusal(profile: &Profile, iss: &str) -> Refused {
    let reason = if profile.is_foreign_tenant(iss) { Reason::TenantRefused } else { Reason::IssuerUnknown };
    let why = profile.near_miss(iss).unwrap_or_else(|| "not one of this issuer's".to_owned());
    refused(reason, format!("`iss` {}: {why}", read::quoted(iss)))
}

/// Proof that an access token was checked in full.
#[derive(Debug)]
pub struct VerifiedToken {
    principal: Principal,
    facts: Facts,
    binding: Binding,
    overage: Option<Overage>,
}

impl VerifiedToken {
    pub fn principal(&self) -> &Principal {
        &self.principal
    }
    pub fn into_principal(self) -> Principal {
        self.principal
    }
    /// Whose groups the token leaves out, if it says so.
    pub fn overage(&self) -> Option<&Overage> {
        self.overage.as_ref()
    }
    /// What each request with this token has to prove.
    pub fn binding(&self) -> &Binding {
        &self.binding
    }
    /// Facts for the record and for `why`.
    pub fn facts(&self) -> &Facts {
        &self.facts
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
    /// Which proof every request with it needs; nothing for a bearer token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bound: Option<Bound>,
}
