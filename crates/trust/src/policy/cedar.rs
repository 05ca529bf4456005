//! The rules of a service as Cedar policies, built through Cedar's public syntax tree: for reading, for Cedar's own
//! analysis tools, and as the oracle that the native decision is tested against. No text of a rule file is ever pasted
//! into policy text.
//!
//! A request is asked once as the principal and, if an agent acts for it, once more as the agent (`context.facts.facet`);
//! both must be allowed. `context.facts` is the projection of a decision's input, listed in `docs/rules.md`. Cedar skips a
//! policy that errors: whoever evaluates the export must take an error in a `forbid` for a refusal. Shadow rules are not
//! enforced, so they are not exported.

use super::clause::{Can, From, Name, Party, Who};
use super::decide::CLOCK_LEEWAY_S;
use super::rule::{Needs, Rule};
use super::syntax::*;
use crate::path::Segment;
use cedar_policy::pst::{
    ActionConstraint, BinaryOp, Clause, Effect, PrincipalConstraint, ResourceConstraint, SmolStr, StaticPolicy,
    Template,
};
use cedar_policy::{Policy, pst};
use std::collections::BTreeMap;

/// Every enforced rule, `never` rules first.
pub(super) fn policies(policy: &super::ServicePolicy) -> Vec<Policy> {
    let rules = policy.never.iter().chain(&policy.rules).filter(|rule| !rule.shadow);
    rules.filter_map(|rule| policy_of(rule, &policy.trust_domain)).collect()
}

pub(super) fn text(policy: &super::ServicePolicy) -> String {
    let texts: Vec<String> = policies(policy).iter().filter_map(Policy::to_cedar).collect();
    texts.join("\n\n") + "\n"
}

/// Cannot fail for a rule that compiled: its `when` went through the same conversion at load.
fn policy_of(rule: &Rule, domain: &str) -> Option<Policy> {
    let id = rule.grant.id.name.as_str();
    let effect = if rule.never { Effect::Forbid } else { Effect::Permit };
    let template = Template::new(id, effect, PrincipalConstraint::Any, ActionConstraint::Any, ResourceConstraint::Any);
    let annotations = BTreeMap::from([
        ("id".to_owned(), SmolStr::from(id)),
        ("src".to_owned(), SmolStr::from(rule.grant.id.place.to_string())),
    ]);
    let template = template.with_annotations(annotations).try_with_clauses(clauses(rule, domain)).ok()?;
    Policy::from_pst(pst::Policy::Static(StaticPolicy::try_from(template).ok()?)).ok()
}

/// One `when` per clause of the rule, in the order of the decision: `when:` last, so that it errors only where it counts.
fn clauses(rule: &Rule, domain: &str) -> Vec<Clause> {
    let mut all = vec![any(rule.cans.iter().map(can))];
    all.push(who(rule, domain));
    if let Some(from) = from(rule, domain) {
        all.push(from);
    }
    if !rule.agents.is_empty() {
        let named = rule.agents.iter().map(|party| party_of(party, domain, "acting", fact("issuer")));
        all.push(all_of([fact("agent_acts"), any(named)]));
    }
    if let Some(expression) = when(rule) {
        all.push(expression);
    }
    if !rule.acr.is_empty() {
        all.push(binary(BinaryOp::ContainsAny, fact("contexts"), set(rule.acr.iter().map(AsRef::as_ref))));
    }
    all.extend(rule.assurance.map(assured));
    all.into_iter().map(Clause::When).collect()
}

fn can(can: &Can) -> Tree {
    let mut parts = Vec::new();
    if !can.methods.is_all() {
        parts.push(binary(BinaryOp::Contains, set(can.methods.names()), fact("method")));
    }
    let segments = can.pattern.segments();
    let deep = segments.last() == Some(&Segment::Deep);
    let literals = segments.iter().map(|segment| match segment {
        Segment::Literal(literal) => Some(&**literal),
        Segment::Any | Segment::Deep => None,
    });
    let fixed = segments.len() - usize::from(deep);
    parts.push(segments_match("path", fixed, deep, literals));
    all_of(parts)
}

/// `context.facts.<record>` holds `n` and, for each segment, `s1`, `s2`, ….
fn segments_match<'a>(record: &str, fixed: usize, deep: bool, literals: impl Iterator<Item = Option<&'a str>>) -> Tree {
    let op = if deep { BinaryOp::GreaterEq } else { BinaryOp::Eq };
    let mut parts = vec![binary(op, attr(fact(record), "n"), long(i64::try_from(fixed).unwrap_or(i64::MAX)))];
    for (at, literal) in literals.enumerate() {
        if let Some(literal) = literal {
            let name = format!("s{}", at + 1);
            parts.push(has(fact(record), &name));
            parts.push(equals(attr(fact(record), &name), literal));
        }
    }
    all_of(parts)
}

fn who(rule: &Rule, domain: &str) -> Tree {
    let principal = || any(rule.who.iter().map(|who| as_principal(who, rule.never, domain)));
    let agent = || any(rule.who.iter().map(|who| as_agent(who, domain)));
    if rule.never {
        return any([principal(), all_of([fact("delegated"), agent()])]);
    }
    // An `agent` clause permits the agent together with the one it acts for.
    let agent = if rule.agents.is_empty() { agent() } else { any([agent(), principal()]) };
    let facet = |name: &str, then: Tree| all_of([equals(fact("facet"), name), then]);
    any([facet("principal", principal()), facet("agent", agent)])
}

fn as_principal(who: &Who, never: bool, domain: &str) -> Tree {
    let kind = |kind: &str, then: Vec<Tree>| all_of([equals(fact("kind"), kind)].into_iter().chain(then));
    let party = |party: &Party| party_of(party, domain, "principal", fact("issuer"));
    match who {
        Who::Anyone => truth(true),
        Who::SignedIn => kind("person", vec![]),
        Who::User { issuer, id } => kind("person", vec![equals(fact("issuer"), issuer), equals(fact("id"), id)]),
        Who::Group(name) => member(name, "groups", never),
        Who::Role(name) => member(name, "roles", never),
        Who::Scope(name) => member(name, "scopes", never),
        Who::Workload(named) => kind("workload", vec![party(named)]),
        Who::Agent(named) => kind("agent", vec![party(named)]),
    }
}

fn as_agent(who: &Who, domain: &str) -> Tree {
    match who {
        Who::Anyone => truth(true),
        Who::Agent(party) => party_of(party, domain, "acting", fact("issuer")),
        _ => truth(false),
    }
}

/// Unknown membership never allows and always forbids.
fn member(name: &Name, list: &str, never: bool) -> Tree {
    let present = binary(BinaryOp::Contains, fact(list), string(&name.name));
    let present = if never { any([present, not(fact(&format!("{list}_complete")))]) } else { present };
    // Without a principal there is no issuer, and nothing is incomplete.
    match &name.issuer {
        Some(issuer) => all_of([equals(fact("issuer"), issuer), present]),
        None => present,
    }
}

/// `whose` is `principal` (facts `id`, `subject`, `spiffe`) or `acting` (the same with the prefix `acting_`).
fn party_of(party: &Party, domain: &str, whose: &str, issuer: Tree) -> Tree {
    let named = |name: &str| if whose == "acting" { format!("acting_{name}") } else { name.to_owned() };
    match party {
        Party::Every => truth(true),
        Party::Named(Name { issuer: wanted, name }) => {
            let id = equals(fact(&named("id")), name);
            match wanted {
                Some(wanted) => all_of([equals(issuer, wanted), id]),
                None => id,
            }
        }
        Party::Exact(text) => equals(fact(&named("subject")), text),
        Party::Below(path) => below(&named("spiffe"), path, domain),
    }
}

fn below(record: &str, path: &str, domain: &str) -> Tree {
    let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
    let ours = equals(attr(fact(record), "domain"), domain);
    all_of([ours, segments_match(record, segments.len(), true, segments.iter().map(|segment| Some(*segment)))])
}

fn from(rule: &Rule, domain: &str) -> Option<Tree> {
    if rule.from.is_empty() {
        let ours = || equals(attr(fact("peer"), "domain"), domain);
        return (!rule.never).then(|| any([fact("from_edge"), ours()]));
    }
    Some(any(rule.from.iter().map(|from| match from {
        From::Edge => fact("from_edge"),
        From::Below(path) => below("peer", path, domain),
        From::Exact(text) => equals(attr(fact("peer"), "id"), text),
    })))
}

/// What the decision cannot read is an error there; here it is a name in `context.facts.unknown`.
fn when(rule: &Rule) -> Option<Tree> {
    let when = rule.when.as_ref()?;
    let unknown = binary(BinaryOp::ContainsAny, fact("unknown"), set(when.reads().iter().map(String::as_str)));
    let expression = Tree::new(when.tree.clone());
    Some(if rule.never { any([unknown, expression]) } else { all_of([not(unknown), expression]) })
}

fn assured(needs: Needs) -> Tree {
    let age = || fact("passkey_age_s");
    let mut parts = vec![fact("passkey"), binary(BinaryOp::GreaterEq, age(), long(-CLOCK_LEEWAY_S))];
    if let Some(fresh_s) = needs.fresh_s {
        parts.push(binary(BinaryOp::LessEq, age(), long(i64::try_from(fresh_s).unwrap_or(i64::MAX))));
    }
    if needs.hardware_key {
        parts.push(fact("hardware_key"));
    }
    all_of(parts)
}
