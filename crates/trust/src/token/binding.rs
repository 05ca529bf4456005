//! What ties a token to its sender (`cnf`, RFC 7800): the thumbprint of a DPoP key (RFC 9449 §6.1), the hash of a client
//! certificate (RFC 8705 §3.1), or both. Whatever is named must be proved with every request.
//!
//! RFC 7800 lets a recipient ignore members of `cnf` it does not know. Here they refuse: half a lock is none.
use super::{Refused, read, refused};
use crate::dpop;
use crate::json::Object;
use crate::reason::Reason;
use aws_lc_rs::constant_time::verify_slices_are_equal;
use serde_json::Value;

/// What a token asks its sender to prove.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Binding {
    key: Option<[u8; 32]>,
    certificate: Option<[u8; 32]>,
}

/// How the token was presented: the scheme of the `Authorization` field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    Bearer,
    Dpop,
}

/// Which proof a token asks for, as records tell it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Bound {
    Dpop,
    Certificate,
    DpopAndCertificate,
}

impl Binding {
    pub(crate) fn of(claims: &Object) -> Result<Binding, Refused> {
        let cnf = match claims.get("cnf") {
            None => return Ok(Binding::default()),
            Some(Value::Object(cnf)) if !cnf.is_empty() => cnf,
            Some(_) => return Err(constrained("`cnf` names no key that could be proved")),
        };
        let mut binding = Binding::default();
        for (name, value) in cnf {
            let place = match name.as_str() {
                "jkt" => &mut binding.key,
                "x5t#S256" => &mut binding.certificate,
                other => {
                    let detail =
                        format!("the token is bound in a way that cannot be checked here: {}", read::quoted(other));
                    return Err(constrained(detail));
                }
            };
            let hash = value.as_str().and_then(dpop::sha256);
            *place = Some(hash.ok_or_else(|| constrained(format!("`cnf.{name}` is no SHA-256 hash in base64url")))?);
        }
        Ok(binding)
    }

    /// SHA-256 thumbprint of the DPoP key (`cnf.jkt`).
    pub fn key(&self) -> Option<&[u8; 32]> {
        self.key.as_ref()
    }

    /// SHA-256 of the client certificate (`cnf.x5t#S256`).
    pub fn certificate(&self) -> Option<&[u8; 32]> {
        self.certificate.as_ref()
    }

    pub fn bound(&self) -> Option<Bound> {
        match (self.key, self.certificate) {
            (None, None) => None,
            (Some(_), None) => Some(Bound::Dpop),
            (None, Some(_)) => Some(Bound::Certificate),
            (Some(_), Some(_)) => Some(Bound::DpopAndCertificate),
        }
    }

    /// Is the token bound to nothing, and was it presented as such? Then there is nothing to prove.
    pub fn is_plain(&self, scheme: Scheme) -> bool {
        scheme == Scheme::Bearer && self.bound().is_none()
    }

    /// Did this request prove what the token asks for? `key` is the thumbprint of a DPoP proof that was checked,
    /// `certificate` the SHA-256 of the client certificate of this very TLS connection.
    pub fn check(&self, scheme: Scheme, key: Option<&[u8; 32]>, certificate: Option<&[u8; 32]>) -> Result<(), Refused> {
        match (self.key, scheme, key) {
            (None, Scheme::Bearer, _) => {}
            (None, Scheme::Dpop, _) => {
                return Err(constrained("sent as `DPoP`, but bound to no key (`cnf.jkt`): anybody could have it"));
            }
            (Some(_), Scheme::Bearer, _) => {
                return Err(constrained(
                    "bound to a DPoP key (`cnf.jkt`) and sent as `Bearer`: send it as `DPoP` with a proof",
                ));
            }
            (Some(_), Scheme::Dpop, None) => return Err(constrained("bound to a DPoP key, and no proof was checked")),
            (Some(expected), Scheme::Dpop, Some(proven)) if verify_slices_are_equal(&expected, proven).is_err() => {
                return Err(constrained("the proof was made with another key than the token's (`cnf.jkt`)"));
            }
            (Some(_), Scheme::Dpop, Some(_)) => {}
        }
        match (self.certificate, certificate) {
            (None, _) => Ok(()),
            (Some(expected), Some(shown)) if verify_slices_are_equal(&expected, shown).is_ok() => Ok(()),
            (Some(_), Some(_)) => Err(constrained(
                "bound to a client certificate (`cnf.x5t#S256`), and this connection was made with another one",
            )),
            (Some(_), None) => Err(constrained(
                "bound to a client certificate (`cnf.x5t#S256`), and this connection was made with none",
            )),
        }
    }
}

fn constrained(detail: impl Into<String>) -> Refused {
    refused(Reason::SenderConstrained, detail)
}
