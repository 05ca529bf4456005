//! What a decision can be. A `Permit` is a proof: its fields are private and only `decide` makes one.

use super::rule::Grant;
use super::source::Place;
use crate::principal::Asking;
use crate::reason::Reason;
use std::sync::Arc;

/// Name and place of a rule, as records carry it: `orders/support reads orders`, `services/orders.yaml:7`.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct RuleId {
    pub name: String,
    pub place: Place,
}

/// A verdict, with what shadow rules would have said.
#[derive(Debug)]
pub struct Decision {
    pub verdict: Verdict,
    /// Shadow rules that held for this request: an allow rule would have allowed it, a `never` rule refused it.
    pub shadow: Vec<Arc<RuleId>>,
}

#[derive(Debug)]
pub enum Verdict {
    Permit(Permit),
    StepUp(StepUp),
    Denial(Denial),
}

/// May go on. Not `Clone`; forwarding takes it by value. Only a decision makes one:
///
/// ```compile_fail,E0451
/// fn forge(real: trust::policy::Permit) -> trust::policy::Permit {
///     trust::policy::Permit { read: true, ..real }
/// }
/// ```
/// ```compile_fail,E0599
/// fn twice(real: &trust::policy::Permit) -> trust::policy::Permit {
///     trust::policy::Permit::clone(real)
/// }
/// ```
#[derive(Debug)]
pub struct Permit {
    pub(super) grant: Arc<Grant>,
    pub(super) can: usize,
    pub(super) read: bool,
    /// The rule that permits the acting agent, where one acts; often the same rule.
    pub(super) agent: Option<Arc<Grant>>,
}

impl Permit {
    pub fn service(&self) -> &Arc<str> {
        &self.grant.service
    }

    pub fn rule(&self) -> &Arc<RuleId> {
        &self.grant.id
    }

    /// The rule that permits the agent acting for the principal, where one acts.
    pub fn agent_rule(&self) -> Option<&Arc<RuleId>> {
        self.agent.as_ref().map(|grant| &grant.id)
    }

    /// Purpose for the Txn-Token: `orders.read` (GET, HEAD, OPTIONS), `orders.write` (other methods).
    pub fn scope(&self) -> &Arc<str> {
        if self.read { &self.grant.scope_read } else { &self.grant.scope_write }
    }

    /// Route template of the matched `can`, e.g. `orders:GET /orders/**`.
    pub fn route(&self) -> &Arc<str> {
        self.grant.routes.get(self.can).unwrap_or(&self.grant.service)
    }

    /// A rule with `fresh`, `countersign` or `txn: per-request`: the Txn-Token is minted for this request alone.
    pub fn per_request(&self) -> bool {
        self.grant.per_request || self.agent.as_ref().is_some_and(|grant| grant.per_request)
    }
}

/// May not. `reason` is for the record; callers are told `Reason::public`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    pub reason: Reason,
    /// The rule that decided: the `never` that matched, the rule whose groups were unknown or whose `when` failed, or,
    /// for `AgentNotPermitted`, the rule that permits the person.
    pub rule: Option<Arc<RuleId>>,
}

/// May after a stronger sign-in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepUp {
    pub rule: Arc<RuleId>,
    /// For RFC 9470 `max_age`.
    pub max_age_s: Option<u64>,
    /// For RFC 9470 `acr_values`, any of which will do, never empty: as the rule's `acr` has them, or for a passkey `phr`
    /// (phishing-resistant) or `phrh` (in hardware), of OpenID Connect EAP ACR values.
    pub acr_values: Vec<Arc<str>>,
    /// In whose words to ask.
    pub asking: Asking,
}
