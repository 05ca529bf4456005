//! A small world for the tests of this module: people, agents, rules and requests in one line each.

use super::*;
use crate::path::{NormalPath, Tolerance};
use crate::principal::{Agent, Assurance, Kind, Membership, Principal};
use crate::spiffe::SpiffeId;

pub(super) const NOW: i64 = 1_800_000_000;

pub(super) fn names(names: &[&str]) -> impl Iterator<Item = Arc<str>> {
    names.iter().map(|name| Arc::from(*name)).collect::<Vec<_>>().into_iter()
}

pub(super) fn principal(kind: Kind, issuer: &str, id: &str) -> Principal {
    Principal {
        kind,
        subject: format!("{issuer}|{id}").into(),
        issuer: issuer.into(),
        id: id.into(),
        client: None,
        groups: Membership::complete([]),
        roles: Membership::complete([]),
        scopes: Membership::complete([]),
        agent: None,
        assurance: Assurance::default(),
        expires_at: NOW + 3_600,
    }
}

pub(super) fn person(id: &str, groups: &[&str]) -> Principal {
    Principal { groups: Membership::complete(names(groups)), ..principal(Kind::Person, "entra", id) }
}

pub(super) fn person_of_unknown_groups(id: &str, groups: &[&str]) -> Principal {
    Principal { groups: Membership::partial(names(groups)), ..principal(Kind::Person, "entra", id) }
}

pub(super) fn through_agent(principal: Principal, agent: &str) -> Principal {
    Principal { agent: Some(Agent { name: agent.into() }), ..principal }
}

pub(super) fn touched(principal: Principal, seconds_ago: i64, hardware_key: bool) -> Principal {
    let assurance = Assurance { passkey_at: Some(NOW - seconds_ago), hardware_key, ..Assurance::default() };
    Principal { assurance, ..principal }
}

pub(super) fn spiffe(text: &str) -> SpiffeId {
    SpiffeId::parse(text).unwrap()
}

pub(super) fn texts(list: &[&str]) -> Vec<String> {
    list.iter().map(|text| (*text).to_owned()).collect()
}

/// A rule of `who` and `can`, named after both.
pub(super) fn rule(who: &[&str], can: &[&str]) -> RuleSource {
    RuleSource {
        name: format!("{} {}", who.join(" or "), can.join(" and ")),
        place: Place { file: "services/orders.yaml".to_owned(), line: 7, column: 5 },
        who: texts(who),
        can: texts(can),
        ..RuleSource::default()
    }
}

pub(super) fn service(rules: Vec<RuleSource>, never: Vec<RuleSource>) -> ServiceSource {
    ServiceSource {
        service: "orders".to_owned(),
        trust_domain: "acme.example".to_owned(),
        rules,
        never,
        ..ServiceSource::default()
    }
}

pub(super) fn compile(rules: Vec<RuleSource>, never: Vec<RuleSource>) -> ServicePolicy {
    match ServicePolicy::compile(&service(rules, never)) {
        Ok(policy) => policy,
        Err(problems) => panic!("{problems:#?}"),
    }
}

/// A request to decide: `GET /orders/42?amount=5` from the edge unless said otherwise.
pub(super) struct Ask<'a> {
    pub(super) principal: Option<&'a Principal>,
    pub(super) peer: Peer<'a>,
    pub(super) request: &'a str,
    pub(super) now: i64,
}

impl<'a> Ask<'a> {
    pub(super) fn new(principal: impl Into<Option<&'a Principal>>, request: &'a str) -> Ask<'a> {
        Ask { principal: principal.into(), peer: Peer::Edge, request, now: NOW }
    }

    pub(super) fn from(self, peer: &'a SpiffeId) -> Ask<'a> {
        Ask { peer: Peer::Workload(peer), ..self }
    }

    pub(super) fn with<T>(&self, judge: impl FnOnce(&Input<'_>) -> T) -> T {
        let (method, target) = self.request.split_once(' ').unwrap();
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (target, None),
        };
        let path = NormalPath::parse(path, Tolerance::default()).unwrap();
        judge(&Input {
            principal: self.principal,
            peer: self.peer,
            method,
            path: &path,
            query,
            host: "shop.acme.example",
            client_ip: Some([203, 0, 113, 9].into()),
            now: self.now,
        })
    }

    /// `allow <rule>`, `step-up <rule>` or `<reason> <rule>`, rule names without the service.
    pub(super) fn of(&self, policy: &ServicePolicy) -> String {
        let bare = |rule: &RuleId| rule.name.strip_prefix("orders/").unwrap().to_owned();
        match self.with(|input| policy.decide(input)).verdict {
            Verdict::Permit(permit) => format!("allow {}", bare(permit.rule())),
            Verdict::StepUp(step_up) => format!("step-up {}", bare(&step_up.rule)),
            Verdict::Denial(denial) => match denial.rule {
                Some(rule) => format!("{} {}", denial.reason.code(), bare(&rule)),
                None => denial.reason.code().to_owned(),
            },
        }
    }
}
