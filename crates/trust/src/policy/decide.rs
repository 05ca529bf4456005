//! The decision: `never` first, then the rules, for the principal and for the agent acting for it. Default deny; what is
//! unknown or fails never allows and always forbids. No cache, and no allocation on the way to a permit.

use super::ServicePolicy;
use super::clause::{From, Party, Who};
use super::facts::WhenError;
use super::method::{Methods, is_read};
use super::route::Candidate;
use super::rule::{Grant, Needs, Rule};
use super::verdict::{Decision, Denial, Permit, RuleId, StepUp, Verdict};
use crate::path::NormalPath;
use crate::principal::{Asking, Kind, Member, Principal};
use crate::reason::Reason;
use crate::spiffe::SpiffeId;
use std::sync::Arc;

/// Who calls, by connection. `Edge` also at the edge itself: there the caller of the service will be this edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer<'a> {
    Edge,
    Workload(&'a SpiffeId),
}

/// Everything a decision may depend on.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    pub principal: Option<&'a Principal>,
    pub peer: Peer<'a>,
    pub method: &'a str,
    pub path: &'a NormalPath,
    pub query: Option<&'a str>,
    pub host: &'a str,
    pub client_ip: Option<std::net::IpAddr>,
    pub now: i64,
}

/// A passkey touch may lie this far in our future: control and edge have two clocks.
pub(super) const CLOCK_LEEWAY_S: i64 = 5;

/// Whether one clause holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Truth {
    No,
    Unknown,
    Yes,
}

/// Which of the two judgements of a request is made: as the principal, or as the agent that acts for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Facet {
    Principal,
    Agent,
}

/// What one allow rule says, weakest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Says {
    Nothing,
    /// Only unknown membership stands in the way.
    GroupsUnknown,
    /// Only a failing `when` stands in the way.
    Failed,
    StepUp,
    Permit,
}

/// The strongest rule so far; of equals, the first in the file.
#[derive(Debug, Clone, Copy)]
struct Best {
    says: Says,
    at: Candidate,
}

impl Best {
    const NONE: Best = Best { says: Says::Nothing, at: Candidate { rule: usize::MAX, can: usize::MAX } };

    fn offer(&mut self, says: Says, at: Candidate) {
        let earlier = (at.rule, at.can) < (self.at.rule, self.at.can);
        if says > self.says || (says == self.says && earlier) {
            *self = Best { says, at };
        }
    }

    /// Could this rule still matter?
    fn is_open_to(&self, at: Candidate) -> bool {
        self.says < Says::Permit || at.rule < self.at.rule
    }
}

pub(super) fn decide(policy: &ServicePolicy, input: &Input<'_>) -> Decision {
    let judge = Judge { policy, input };
    let method = Methods::of_request(input.method);
    let mut shadow = Vec::new();
    if let Some(denial) = judge.never(method, &mut shadow) {
        return Decision { verdict: Verdict::Denial(denial), shadow };
    }
    let verdict = judge.allow(method, &mut shadow);
    Decision { verdict, shadow }
}

/// One decision under way.
#[derive(Clone, Copy)]
pub(super) struct Judge<'a> {
    pub(super) policy: &'a ServicePolicy,
    pub(super) input: &'a Input<'a>,
}

impl<'a> Judge<'a> {
    fn never(&self, method: Methods, shadow: &mut Vec<Arc<RuleId>>) -> Option<Denial> {
        let mut first: Option<(usize, Reason)> = None;
        self.policy.never_routes.visit(self.input.path, method, &mut |at| {
            let Some(rule) = self.policy.never.get(at.rule) else { return };
            if first.is_some_and(|(found, _)| found <= at.rule) && !rule.shadow {
                return;
            }
            match self.forbids(rule) {
                None => {}
                Some(_) if rule.shadow => note(shadow, rule),
                Some(reason) => first = Some((at.rule, reason)),
            }
        });
        let (at, reason) = first?;
        Some(Denial { reason, rule: self.policy.never.get(at).map(|rule| Arc::clone(&rule.grant.id)) })
    }

    /// Does this `never` rule refuse the request, and why? Unknown membership and a failing `when` refuse too.
    pub(super) fn forbids(&self, rule: &Rule) -> Option<Reason> {
        let named = self.who(rule, Facet::Principal).max(self.who(rule, Facet::Agent));
        if named == Truth::No || !self.from(rule) {
            return None;
        }
        match self.when(rule) {
            Ok(true) => Some(Reason::NeverMatched),
            Ok(false) => None,
            Err(_) => Some(Reason::PolicyError),
        }
    }

    fn allow(&self, method: Methods, shadow: &mut Vec<Arc<RuleId>>) -> Verdict {
        let delegated = self.input.principal.is_some_and(|principal| principal.agent.is_some());
        let (mut principal, mut agent) = (Best::NONE, Best::NONE);
        self.policy.allow_routes.visit(self.input.path, method, &mut |at| {
            let Some(rule) = self.policy.rules.get(at.rule) else { return };
            if rule.shadow {
                let says = self.says(rule, Facet::Principal);
                let says = if delegated { says.max(self.says(rule, Facet::Agent)) } else { says };
                if says >= Says::StepUp {
                    note(shadow, rule);
                }
                return;
            }
            if principal.is_open_to(at) {
                principal.offer(self.says(rule, Facet::Principal), at);
            }
            if delegated && agent.is_open_to(at) {
                agent.offer(self.says(rule, Facet::Agent), at);
            }
        });
        if delegated { self.join(principal, agent) } else { self.verdict(principal, None) }
    }

    /// What one allow rule says of one facet. The clauses are tried from the cheapest on.
    fn says(&self, rule: &Rule, facet: Facet) -> Says {
        let named = self.who(rule, facet);
        if named == Truth::No || !self.from(rule) || !self.agent(rule) {
            return Says::Nothing;
        }
        match (self.when(rule), named) {
            (Ok(true), Truth::Yes) => {}
            (Ok(true), _) => return Says::GroupsUnknown,
            (Err(_), Truth::Yes) => return Says::Failed,
            _ => return Says::Nothing,
        }
        if self.acr(rule) && rule.assurance.is_none_or(|needs| self.assured(needs)) {
            return Says::Permit;
        }
        // Only a person can sign in more strongly; to anyone else the demand would be a riddle.
        let person = self.input.principal.is_some_and(|principal| principal.kind == Kind::Person);
        if person { Says::StepUp } else { Says::Nothing }
    }

    /// Both must be permitted: the principal's own refusal comes first, then the agent's.
    fn join(&self, principal: Best, agent: Best) -> Verdict {
        if principal.says < Says::StepUp {
            return self.verdict(principal, None);
        }
        if agent.says < Says::StepUp {
            let reason = if agent.says == Says::Failed { Reason::PolicyError } else { Reason::AgentNotPermitted };
            let named = if agent.says == Says::Failed { agent } else { principal };
            return Verdict::Denial(Denial { reason, rule: self.id_of(named) });
        }
        if principal.says == Says::Permit && agent.says == Says::StepUp {
            return self.verdict(agent, None);
        }
        self.verdict(principal, Some(agent))
    }

    fn verdict(&self, best: Best, agent: Option<Best>) -> Verdict {
        let Some(rule) = self.policy.rules.get(best.at.rule) else { return self.nothing_matched() };
        let id = &rule.grant.id;
        let deny = |reason| Verdict::Denial(Denial { reason, rule: Some(Arc::clone(id)) });
        match best.says {
            Says::Nothing => self.nothing_matched(),
            Says::GroupsUnknown => deny(Reason::GroupsUnknown),
            Says::Failed => deny(Reason::PolicyError),
            Says::StepUp => Verdict::StepUp(self.step_up(rule)),
            Says::Permit => Verdict::Permit(Permit {
                grant: Arc::clone(&rule.grant),
                can: best.at.can,
                read: is_read(self.input.method),
                agent: agent.and_then(|agent| self.grant_of(agent)),
            }),
        }
    }

    /// A caller without a token is asked for one; a known caller is refused.
    fn nothing_matched(&self) -> Verdict {
        let reason = if self.input.principal.is_some() { Reason::NoRuleMatched } else { Reason::TokenMissing };
        Verdict::Denial(Denial { reason, rule: None })
    }

    fn id_of(&self, best: Best) -> Option<Arc<RuleId>> {
        self.policy.rules.get(best.at.rule).map(|rule| Arc::clone(&rule.grant.id))
    }

    fn grant_of(&self, best: Best) -> Option<Arc<Grant>> {
        self.policy.rules.get(best.at.rule).map(|rule| Arc::clone(&rule.grant))
    }

    /// Does `who` name this facet? An agent that acts for someone is named by `agent:` and `anyone` only, or by the
    /// rule's own `agent` clause together with the one it acts for.
    pub(super) fn who(&self, rule: &Rule, facet: Facet) -> Truth {
        let strongest = |test: &dyn Fn(&Who) -> Truth| rule.who.iter().map(test).max().unwrap_or(Truth::No);
        match facet {
            Facet::Principal => strongest(&|who| is_principal(who, self.input.principal, &self.policy.trust_domain)),
            Facet::Agent => {
                let Some(principal) = self.input.principal else { return Truth::No };
                let agent = strongest(&|who| is_agent(who, principal, &self.policy.trust_domain));
                if rule.agents.is_empty() { agent } else { agent.max(self.who(rule, Facet::Principal)) }
            }
        }
    }

    pub(super) fn from(&self, rule: &Rule) -> bool {
        let domain = &*self.policy.trust_domain;
        if rule.from.is_empty() {
            // An allow rule means our own workloads; a `never` rule means everybody.
            return rule.never || self.peer_is_ours();
        }
        rule.from.iter().any(|from| match (from, self.input.peer) {
            (From::Edge, Peer::Edge) => true,
            (From::Below(path), Peer::Workload(id)) => id.trust_domain() == domain && id.is_at_or_below(path),
            (From::Exact(text), Peer::Workload(id)) => id.as_str() == &**text,
            _ => false,
        })
    }

    fn peer_is_ours(&self) -> bool {
        match self.input.peer {
            Peer::Edge => true,
            Peer::Workload(id) => id.trust_domain() == &*self.policy.trust_domain,
        }
    }

    /// Does the `agent` clause hold? The acting agent is the one that acts for the principal, else the principal if it
    /// is an agent itself.
    pub(super) fn agent(&self, rule: &Rule) -> bool {
        if rule.agents.is_empty() {
            return true;
        }
        let Some(principal) = self.input.principal else { return false };
        let (subject, id) = match (&principal.agent, principal.kind) {
            (Some(agent), _) => (&agent.name, &agent.name),
            (None, Kind::Agent) => (&principal.subject, &principal.id),
            (None, Kind::Person | Kind::Workload) => return false,
        };
        rule.agents.iter().any(|party| is_party(party, &principal.issuer, subject, id, &self.policy.trust_domain))
    }

    /// A rule without `when` holds.
    pub(super) fn when(&self, rule: &Rule) -> Result<bool, WhenError> {
        rule.when.as_ref().map_or(Ok(true), |when| when.holds(self))
    }

    /// Does the `acr` clause hold? A rule without it holds.
    pub(super) fn acr(&self, rule: &Rule) -> bool {
        rule.acr.is_empty()
            || self
                .input
                .principal
                .is_some_and(|principal| principal.assurance.contexts.iter().any(|context| rule.acr.contains(context)))
    }

    /// What the issuer can still vouch for is asked for first.
    fn step_up(&self, rule: &Rule) -> StepUp {
        let grant = Arc::clone(&rule.grant.id);
        if !self.acr(rule) {
            let asking = self.input.principal.map_or(Asking::Acr, |principal| principal.assurance.asking);
            return StepUp { rule: grant, max_age_s: None, acr_values: rule.acr.clone(), asking };
        }
        let hardware = rule.assurance.is_some_and(|needs| needs.hardware_key);
        StepUp {
            rule: grant,
            max_age_s: rule.assurance.and_then(|needs| needs.fresh_s),
            acr_values: vec![if hardware { "phrh" } else { "phr" }.into()],
            asking: Asking::Acr,
        }
    }

    pub(super) fn assured(&self, needs: Needs) -> bool {
        let Some(principal) = self.input.principal else { return false };
        let Some(touched) = principal.assurance.passkey_at else { return false };
        let age_s = self.input.now.saturating_sub(touched);
        let fresh = needs.fresh_s.is_none_or(|fresh_s| age_s <= i64::try_from(fresh_s).unwrap_or(i64::MAX));
        fresh && age_s >= -CLOCK_LEEWAY_S && (principal.assurance.hardware_key || !needs.hardware_key)
    }
}

fn note(shadow: &mut Vec<Arc<RuleId>>, rule: &Rule) {
    if !shadow.iter().any(|seen| Arc::ptr_eq(seen, &rule.grant.id)) {
        shadow.push(Arc::clone(&rule.grant.id));
    }
}

pub(super) fn is_principal(who: &Who, principal: Option<&Principal>, domain: &str) -> Truth {
    let principal = match (who, principal) {
        (Who::Anyone, _) => return Truth::Yes,
        (_, None) => return Truth::No,
        (_, Some(principal)) => principal,
    };
    let of_issuer = |issuer: &Option<Arc<str>>| issuer.as_ref().is_none_or(|issuer| *issuer == principal.issuer);
    let party = |kind, party| {
        principal.kind == kind && is_party(party, &principal.issuer, &principal.subject, &principal.id, domain)
    };
    match who {
        Who::Anyone => Truth::Yes,
        Who::SignedIn => truth(principal.kind == Kind::Person),
        Who::User { issuer, id } => {
            truth(principal.kind == Kind::Person && *issuer == principal.issuer && *id == principal.id)
        }
        Who::Group(name) if of_issuer(&name.issuer) => member(principal.groups.state(&name.name)),
        Who::Role(name) if of_issuer(&name.issuer) => member(principal.roles.state(&name.name)),
        Who::Scope(name) if of_issuer(&name.issuer) => member(principal.scopes.state(&name.name)),
        Who::Group(_) | Who::Role(_) | Who::Scope(_) => Truth::No,
        Who::Workload(wanted) => truth(party(Kind::Workload, wanted)),
        Who::Agent(wanted) => truth(party(Kind::Agent, wanted)),
    }
}

pub(super) fn is_agent(who: &Who, principal: &Principal, domain: &str) -> Truth {
    let Some(agent) = &principal.agent else { return Truth::No };
    match who {
        Who::Anyone => Truth::Yes,
        Who::Agent(party) => truth(is_party(party, &principal.issuer, &agent.name, &agent.name, domain)),
        _ => Truth::No,
    }
}

fn is_party(party: &Party, issuer: &str, subject: &str, id: &str, domain: &str) -> bool {
    match party {
        Party::Every => true,
        Party::Named(name) => name.issuer.as_ref().is_none_or(|wanted| **wanted == *issuer) && *name.name == *id,
        Party::Exact(text) => **text == *subject,
        Party::Below(path) => {
            let below = subject
                .strip_prefix("spiffe://")
                .and_then(|rest| rest.strip_prefix(domain))
                .and_then(|rest| rest.strip_prefix(&**path));
            below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        }
    }
}

fn truth(holds: bool) -> Truth {
    if holds { Truth::Yes } else { Truth::No }
}

fn member(state: Member) -> Truth {
    match state {
        Member::Present => Truth::Yes,
        Member::Absent => Truth::No,
        Member::Unknown => Truth::Unknown,
    }
}
