//! One compiled rule and what it asks. Never read from a file here, never printed for callers.

use super::clause::{Can, From, Party, Who};
use super::verdict::RuleId;
use super::when::When;
use std::sync::Arc;

/// The part of a rule that a permit carries on.
#[derive(Debug)]
pub(super) struct Grant {
    pub(super) service: Arc<str>,
    pub(super) id: Arc<RuleId>,
    pub(super) scope_read: Arc<str>,
    pub(super) scope_write: Arc<str>,
    /// One per `can`.
    pub(super) routes: Vec<Arc<str>>,
    pub(super) per_request: bool,
}

/// A compiled rule of either list.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) grant: Arc<Grant>,
    /// As in the file, without the service.
    pub(super) name: Arc<str>,
    pub(super) who: Vec<Who>,
    /// Empty: any of the trust domain (for `never`: any at all).
    pub(super) from: Vec<From>,
    pub(super) cans: Vec<Can>,
    /// Only these agents may act. Empty: the clause is absent.
    pub(super) agents: Vec<Party>,
    pub(super) assurance: Option<Needs>,
    /// Authentication contexts, one of which the issuer must vouch for. Empty: the clause is absent.
    pub(super) acr: Vec<Arc<str>>,
    pub(super) when: Option<When>,
    pub(super) shadow: bool,
    pub(super) never: bool,
}

/// How strongly a person must have signed in; a passkey is always part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Needs {
    pub(super) fresh_s: Option<u64>,
    pub(super) hardware_key: bool,
}

impl Rule {
    /// Holds for every caller that `who` names: no other clause narrows it.
    pub(super) fn is_unconditional(&self) -> bool {
        self.from.is_empty()
            && self.agents.is_empty()
            && self.assurance.is_none()
            && self.acr.is_empty()
            && self.when.is_none()
            && !self.shadow
    }
}
