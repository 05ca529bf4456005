//! Why a request was judged as it was: the nearest rules, clause by clause, with what would have to change. For operators
//! and records only; off the hot path, bounded in rules and in text. Never changes a verdict.

use super::ServicePolicy;
use super::clause::Who;
use super::decide::{Facet, Input, Judge, Peer, Truth};
use super::facts::acting;
use super::rule::{Needs, Rule};
use super::verdict::RuleId;
use crate::principal::{Membership, Principal};

/// The nearest rules and what each clause said.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Explanation {
    /// First the `never` rules that refuse, then the allow rules, fewest failed clauses first. At most eight.
    pub rules: Vec<RuleTrace>,
}

#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct RuleTrace {
    pub rule: RuleId,
    pub never: bool,
    pub shadow: bool,
    pub clauses: Vec<ClauseTrace>,
}

/// One clause: what it asks, whether it held, and what would have to change.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ClauseTrace {
    /// As the rule file names it; `who (agent)` is `who` for the agent that acts for the principal.
    pub clause: String,
    pub asks: String,
    pub held: Held,
    pub change: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Held {
    Yes,
    No,
    Unknown,
    Error,
}

const RULES_MAX: usize = 8;
const NAMES_MAX: usize = 10;
const TEXT_CHARS_MAX: usize = 240;

pub(super) fn explain(policy: &ServicePolicy, input: &Input<'_>) -> Explanation {
    let judge = Judge { policy, input };
    let covers = |rule: &Rule| judge.can(rule);
    let refusing = policy.never.iter().filter(|rule| covers(rule) && judge.forbids(rule).is_some());
    let mut rules: Vec<RuleTrace> = refusing.take(RULES_MAX).map(|rule| trace(&judge, rule)).collect();
    // Counting needs no text, so that a flood of refusals costs little however many rules there are.
    let mut nearest: Vec<(bool, usize, &Rule)> =
        policy.rules.iter().map(|rule| (!covers(rule), failed_clauses(&judge, rule), rule)).collect();
    nearest.sort_by_key(|(elsewhere, failed, _)| (*failed, *elsewhere));
    let any_covers = nearest.iter().any(|(elsewhere, ..)| !elsewhere);
    let nearest = nearest.into_iter().filter(|(elsewhere, ..)| !(any_covers && *elsewhere));
    let room = RULES_MAX.saturating_sub(rules.len());
    rules.extend(nearest.take(room).map(|(.., rule)| trace(&judge, rule)));
    Explanation { rules }
}

impl Judge<'_> {
    fn can(&self, rule: &Rule) -> bool {
        let method = super::method::Methods::of_request(self.input.method);
        rule.cans.iter().any(|can| can.methods.overlaps(method) && can.pattern.matches(self.input.path))
    }

    fn is_delegated(&self) -> bool {
        self.input.principal.is_some_and(|principal| principal.agent.is_some())
    }
}

/// Every clause but `when`, which is evaluated for the chosen few only.
fn failed_clauses(judge: &Judge<'_>, rule: &Rule) -> usize {
    let holds = [
        judge.who(rule, Facet::Principal) == Truth::Yes,
        !judge.is_delegated() || judge.who(rule, Facet::Agent) == Truth::Yes,
        judge.from(rule),
        judge.can(rule),
        judge.agent(rule),
        rule.assurance.is_none_or(|needs| judge.assured(needs)),
        judge.acr(rule),
    ];
    holds.into_iter().filter(|holds| !holds).count()
}

fn trace(judge: &Judge<'_>, rule: &Rule) -> RuleTrace {
    let mut clauses = vec![who_trace(judge, rule)];
    if judge.is_delegated() {
        clauses.push(who_agent_trace(judge, rule));
    }
    clauses.push(from_trace(judge, rule));
    clauses.push(can_trace(judge, rule));
    if !rule.agents.is_empty() {
        clauses.push(agent_trace(judge, rule));
    }
    if !rule.acr.is_empty() {
        clauses.push(acr_trace(judge, rule));
    }
    if let Some(needs) = rule.assurance {
        clauses.extend(assurance_traces(judge, needs));
    }
    if rule.when.is_some() {
        clauses.push(when_trace(judge, rule));
    }
    RuleTrace { rule: (*rule.grant.id).clone(), never: rule.never, shadow: rule.shadow, clauses }
}

fn clause(name: &str, asks: String, held: Held, change: impl FnOnce() -> String) -> ClauseTrace {
    let change = (held != Held::Yes).then(|| bounded(change()));
    ClauseTrace { clause: name.to_owned(), asks: bounded(asks), held, change }
}

fn held(truth: Truth) -> Held {
    match truth {
        Truth::Yes => Held::Yes,
        Truth::No => Held::No,
        Truth::Unknown => Held::Unknown,
    }
}

fn yes_no(holds: bool) -> Held {
    if holds { Held::Yes } else { Held::No }
}

fn who_trace(judge: &Judge<'_>, rule: &Rule) -> ClauseTrace {
    let truth = judge.who(rule, Facet::Principal);
    let mut trace = clause("who", listed(&rule.who, " or "), held(truth), || {
        format!("needs {}; {}", listed(&rule.who, " or "), caller(judge.input.principal, &rule.who))
    });
    if rule.never && truth == Truth::Unknown {
        trace.change = Some(bounded(format!(
            "refuses unless the issuer says the caller is not in {}; {}",
            listed(&rule.who, " or "),
            caller(judge.input.principal, &rule.who)
        )));
    }
    trace
}

fn who_agent_trace(judge: &Judge<'_>, rule: &Rule) -> ClauseTrace {
    let name = acting(judge.input.principal).unwrap_or_default();
    clause("who (agent)", listed(&rule.who, " or "), held(judge.who(rule, Facet::Agent)), || {
        format!(
            "agent {name} acts for the caller and needs its own permission: a rule with `who: agent:{name}`, or `agent: {name}` here"
        )
    })
}

/// Who calls, as far as this `who` is concerned.
fn caller(principal: Option<&Principal>, who: &[Who]) -> String {
    let Some(principal) = principal else { return "the request carries no token".to_owned() };
    let mut parts = Vec::new();
    let asks = |test: fn(&Who) -> bool| who.iter().any(test);
    if asks(|who| matches!(who, Who::Group(_))) {
        parts.push(format!("the token's groups are {}", members(&principal.groups)));
    }
    if asks(|who| matches!(who, Who::Role(_))) {
        parts.push(format!("the token's roles are {}", members(&principal.roles)));
    }
    if asks(|who| matches!(who, Who::Scope(_))) {
        parts.push(format!("the token's scopes are {}", members(&principal.scopes)));
    }
    let by_name = asks(|who| !matches!(who, Who::Group(_) | Who::Role(_) | Who::Scope(_)));
    if by_name || parts.is_empty() {
        parts.push(format!("the caller is the {} {}", super::facts::kind_name(principal.kind), principal.subject));
    }
    let qualified = who.iter().any(|who| match who {
        Who::Group(name) | Who::Role(name) | Who::Scope(name) => {
            name.issuer.as_ref().is_some_and(|issuer| *issuer != principal.issuer)
        }
        _ => false,
    });
    if qualified {
        parts.push(format!("the token's issuer is {}", principal.issuer));
    }
    parts.join(", ")
}

fn members(membership: &Membership) -> String {
    let mut names: Vec<&str> = membership.names().take(NAMES_MAX).map(|name| &**name).collect();
    let more = membership.names().count().saturating_sub(NAMES_MAX);
    let tail = if more > 0 { format!(" and {more} more") } else { String::new() };
    if names.is_empty() {
        names.push("none");
    }
    let unsure = if membership.is_complete() { "" } else { ", and others the issuer left out" };
    format!("{}{tail}{unsure}", names.join(", "))
}

fn from_trace(judge: &Judge<'_>, rule: &Rule) -> ClauseTrace {
    let asks = match (rule.from.is_empty(), rule.never) {
        (true, true) => "any caller".to_owned(),
        (true, false) => format!("edge or any workload of {}", judge.policy.trust_domain),
        (false, _) => listed(&rule.from, " or "),
    };
    clause("from", asks.clone(), yes_no(judge.from(rule)), || {
        let peer = match judge.input.peer {
            Peer::Edge => "edge",
            Peer::Workload(id) => id.as_str(),
        };
        format!("needs {asks}; the call came from {peer}")
    })
}

fn can_trace(judge: &Judge<'_>, rule: &Rule) -> ClauseTrace {
    let texts: Vec<&str> = rule.cans.iter().map(|can| &*can.text).collect();
    clause("can", texts.join(" · "), yes_no(judge.can(rule)), || {
        format!("covers other requests; this one is {} {}", judge.input.method, judge.input.path.as_str())
    })
}

fn agent_trace(judge: &Judge<'_>, rule: &Rule) -> ClauseTrace {
    let asks = listed(&rule.agents, " or ");
    clause("agent", asks.clone(), yes_no(judge.agent(rule)), || match acting(judge.input.principal) {
        Some(name) => format!("needs agent {asks}; the acting agent is {name}"),
        None => format!("needs agent {asks}; no agent acts here"),
    })
}

fn acr_trace(judge: &Judge<'_>, rule: &Rule) -> ClauseTrace {
    let asks = listed(&rule.acr, " or ");
    clause("acr", asks.clone(), yes_no(judge.acr(rule)), || {
        let said = judge.input.principal.map_or(&[][..], |principal| &principal.assurance.contexts);
        let said = if said.is_empty() { "none".to_owned() } else { listed(said, ", ") };
        format!("needs authentication context {asks}; the token says {said}")
    })
}

fn assurance_traces(judge: &Judge<'_>, needs: Needs) -> Vec<ClauseTrace> {
    let assurance = judge.input.principal.map(|principal| &principal.assurance);
    let touched = assurance.and_then(|assurance| assurance.passkey_at);
    let since = match touched {
        Some(at) => format!("the last touch was {} s ago", judge.input.now.saturating_sub(at)),
        None => "no passkey was touched in this sign-in".to_owned(),
    };
    let without_key = Needs { hardware_key: false, ..needs };
    let mut traces = Vec::new();
    match needs.fresh_s {
        Some(fresh_s) => {
            let asks = format!("a passkey touch at most {fresh_s} s old");
            let change = format!("needs {asks}; {since}");
            traces.push(clause("fresh", asks, yes_no(judge.assured(without_key)), || change));
        }
        None => {
            let change = format!("needs a passkey; {since}");
            traces.push(clause("passkey", "a passkey".to_owned(), yes_no(judge.assured(without_key)), || change));
        }
    }
    if needs.hardware_key {
        let hardware = touched.is_some() && assurance.is_some_and(|assurance| assurance.hardware_key);
        traces.push(clause("hardware_key", "a hardware key".to_owned(), yes_no(hardware), || {
            "needs a passkey that lives in attested hardware".to_owned()
        }));
    }
    traces
}

fn when_trace(judge: &Judge<'_>, rule: &Rule) -> ClauseTrace {
    let text = rule.when.as_ref().map(|when| when.text.to_string()).unwrap_or_default();
    let named = judge.who(rule, Facet::Principal).max(judge.who(rule, Facet::Agent));
    if named == Truth::No {
        return clause("when", text, Held::Unknown, || "not evaluated, because `who` does not hold".to_owned());
    }
    match judge.when(rule) {
        Ok(holds) => clause("when", text, yes_no(holds), || "the expression is false for this request".to_owned()),
        Err(error) => clause("when", text, Held::Error, || format!("the expression failed: {error}")),
    }
}

fn listed<T: std::fmt::Display>(items: &[T], between: &str) -> String {
    let shown: Vec<String> = items.iter().take(NAMES_MAX).map(ToString::to_string).collect();
    let more = items.len().saturating_sub(NAMES_MAX);
    let tail = if more > 0 { format!("{between}{more} more") } else { String::new() };
    format!("{}{tail}", shown.join(between))
}

fn bounded(text: String) -> String {
    match text.char_indices().nth(TEXT_CHARS_MAX) {
        Some((at, _)) => format!("{}…", text.get(..at).unwrap_or_default()),
        None => text,
    }
}
