//! `tests:` of a rule file: made-up callers and requests with the verdict the team expects, parsed at load, run over the
//! real decision. Never used to decide a real request.

use super::ServicePolicy;
use super::compile::Problems;
use super::decide::{Input, Peer};
use super::source::{Flaw, Place, ServiceSource, TestSource, shown};
use super::verdict::{Decision, Verdict};
use crate::path::NormalPath;
use crate::principal::{Agent, Assurance, Kind, Membership, Principal};
use crate::spiffe::SpiffeId;
use std::sync::Arc;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestOutcome {
    pub place: Place,
    /// `ana@support from edge: GET /orders/42`
    pub title: String,
    pub passed: bool,
    /// `allow by support reads orders`
    pub expected: String,
    /// `deny (no_rule_matched)`
    pub got: String,
}

/// One parsed entry.
#[derive(Debug)]
pub(super) struct Case {
    place: Place,
    title: String,
    principal: Option<Principal>,
    /// `None`: the edge.
    peer: Option<SpiffeId>,
    method: String,
    path: NormalPath,
    query: Option<String>,
    expect: Expect,
    by: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expect {
    Allow,
    Deny,
    StepUp,
}

const CASES_MAX: usize = 5_000;
/// Tests run at one moment and from one address (RFC 5737), so that they give the same answer every day.
const NOW: i64 = 1_800_000_000;
const CLIENT_IP: std::net::IpAddr = std::net::IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
const AS_FIX: &str = "write `anyone`, a person with groups as in `ana@support,leads`, `workload:/shop/web`, \
                      `agent:report-bot`, or `agent:report-bot for ana@support`";

pub(super) fn parse(source: &ServiceSource, problems: &mut Problems) -> Vec<Case> {
    if source.tests.len() > CASES_MAX {
        let flaw = Flaw::new(format!("more than {CASES_MAX} tests"), "keep those that tell two rules apart");
        problems.add("tests", CASES_MAX, "try", flaw);
    }
    let tests = source.tests.iter().take(CASES_MAX).enumerate();
    tests
        .filter_map(|(index, test)| {
            parse_case(source, test, &mut |field, flaw| problems.add("tests", index, field, flaw))
        })
        .collect()
}

fn parse_case(source: &ServiceSource, test: &TestSource, report: &mut dyn FnMut(&'static str, Flaw)) -> Option<Case> {
    let mut good = |field, result: Result<(), Flaw>| result.map_err(|flaw| report(field, flaw)).is_ok();
    let caller = parse_as(&test.as_, &source.trust_domain);
    let peer = parse_from(test.from.as_deref(), &source.trust_domain);
    let request = parse_try(&test.try_, source);
    let expect = parse_expect(&test.expect);
    let by = check_by(test.by.as_deref(), expect.as_ref().ok().copied(), source);
    let checks = [
        good("as", caller.as_ref().map(drop).map_err(Clone::clone)),
        good("from", peer.as_ref().map(drop).map_err(Clone::clone)),
        good("try", request.as_ref().map(drop).map_err(Clone::clone)),
        good("expect", expect.as_ref().map(drop).map_err(Clone::clone)),
        good("by", by),
    ];
    if checks.contains(&false) {
        return None;
    }
    let (principal, (method, path, query)) = (caller.ok()?, request.ok()?);
    // A workload calls from where it runs, unless the test says otherwise.
    let own = principal.as_ref().and_then(|principal| SpiffeId::parse(&principal.subject).ok());
    let peer = peer.ok()?.unwrap_or(own);
    let place = peer.as_ref().map_or("edge", SpiffeId::as_str);
    Some(Case {
        place: test.place.clone(),
        title: format!("{} from {place}: {}", shown(test.as_.trim()), shown(test.try_.trim())),
        principal,
        peer,
        method,
        path,
        query,
        expect: expect.ok()?,
        by: test.by.as_deref().map(|by| by.trim().to_owned()),
    })
}

fn parse_expect(text: &str) -> Result<Expect, Flaw> {
    match text.trim() {
        "allow" => Ok(Expect::Allow),
        "deny" => Ok(Expect::Deny),
        "step-up" => Ok(Expect::StepUp),
        other => Err(Flaw::new(format!("`{}` is no verdict", shown(other)), "write `allow`, `deny` or `step-up`")),
    }
}

fn check_by(by: Option<&str>, expect: Option<Expect>, source: &ServiceSource) -> Result<(), Flaw> {
    let Some(by) = by.map(str::trim) else { return Ok(()) };
    let allows = source.rules.iter().any(|rule| rule.name.trim() == by);
    let refuses = source.never.iter().any(|rule| rule.name.trim() == by);
    match (allows, refuses, expect) {
        (false, false, _) => {
            Err(Flaw::new(format!("no rule is named `{}`", shown(by)), "write the `name` of a rule of this file"))
        }
        (false, true, Some(Expect::Allow | Expect::StepUp)) => Err(Flaw::new(
            format!("`{}` is a `never` rule; it cannot allow", shown(by)),
            "name an allow rule, or expect `deny`",
        )),
        _ => Ok(()),
    }
}

/// `Ok(None)`: not given.
fn parse_from(text: Option<&str>, domain: &str) -> Result<Option<Option<SpiffeId>>, Flaw> {
    let Some(text) = text.map(str::trim) else { return Ok(None) };
    if text == "edge" {
        return Ok(Some(None));
    }
    let id = if text.starts_with('/') { format!("spiffe://{domain}{text}") } else { text.to_owned() };
    SpiffeId::parse(&id).map(|id| Some(Some(id))).map_err(|error| {
        Flaw::new(
            format!("`{}` is no calling workload: {error}", shown(text)),
            "write `edge`, a SPIFFE path as in `/shop/web`, or a whole `spiffe://` ID",
        )
    })
}

fn parse_try(text: &str, source: &ServiceSource) -> Result<(String, NormalPath, Option<String>), Flaw> {
    let fix = "write one method and one path, as in `GET /orders/42?limit=5`";
    let mut words = text.split_ascii_whitespace();
    let (Some(method), Some(target), None) = (words.next(), words.next(), words.next()) else {
        return Err(Flaw::new(format!("`{}` is no request", shown(text)), fix));
    };
    if !method.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'-') {
        return Err(Flaw::new(format!("`{}` is no single HTTP method", shown(method)), fix));
    }
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query.to_owned())),
        None => (target, None),
    };
    let path = NormalPath::parse(path, source.tolerance).map_err(|error| {
        Flaw::new(format!("`{}` would be refused before any rule: {error}", shown(path)), "write a plain path")
    })?;
    Ok((method.to_owned(), path, query))
}

/// `Ok(None)`: a caller without a token.
fn parse_as(text: &str, domain: &str) -> Result<Option<Principal>, Flaw> {
    let text = text.trim();
    let wrong = || Flaw::new(format!("`{}` is no caller", shown(text)), AS_FIX);
    if text == "anyone" {
        return Ok(None);
    }
    let (agent, rest) = match text.strip_prefix("agent:").and_then(|rest| rest.split_once(" for ")) {
        Some((agent, person)) => (Some(agent.trim()), person.trim()),
        None => (None, text),
    };
    let mut words = rest.split_ascii_whitespace();
    let mut principal = parse_party(words.next().ok_or_else(wrong)?, domain).ok_or_else(wrong)?;
    while let Some(word) = words.next() {
        add_fact(&mut principal, word, &mut words).ok_or_else(wrong)?;
    }
    if let Some(agent) = agent {
        let plain = !agent.is_empty() && !agent.contains(char::is_whitespace);
        principal.agent = plain.then(|| Some(Agent { name: agent.into() })).ok_or_else(wrong)?;
    }
    Ok(Some(principal))
}

fn parse_party(word: &str, domain: &str) -> Option<Principal> {
    if let Some(value) = word.strip_prefix("workload:") {
        return parse_program(Kind::Workload, value, domain);
    }
    if let Some(value) = word.strip_prefix("agent:") {
        return parse_program(Kind::Agent, value, domain);
    }
    let (name, groups) = word.split_once('@').unwrap_or((word, ""));
    let person = named(Kind::Person, name)?;
    Some(Principal { groups: membership(groups), ..person })
}

fn parse_program(kind: Kind, value: &str, domain: &str) -> Option<Principal> {
    let id = if value.starts_with('/') { format!("spiffe://{domain}{value}") } else { value.to_owned() };
    if !id.starts_with("spiffe://") {
        return named(kind, value);
    }
    let id = SpiffeId::parse(&id).ok()?;
    Some(made_up(kind, "mesh", id.as_str(), id.as_str()))
}

/// `ana`, or `entra|ana` where the issuer matters.
fn named(kind: Kind, text: &str) -> Option<Principal> {
    let (issuer, id) = text.split_once('|').unwrap_or(("test", text));
    let good = !issuer.is_empty() && !id.is_empty() && !id.contains(':');
    (good || (kind != Kind::Person && !id.is_empty())).then(|| made_up(kind, issuer, &format!("{issuer}|{id}"), id))
}

fn made_up(kind: Kind, issuer: &str, subject: &str, id: &str) -> Principal {
    Principal {
        kind,
        subject: subject.into(),
        issuer: issuer.into(),
        id: id.into(),
        client: None,
        groups: Membership::complete([]),
        roles: Membership::complete([]),
        scopes: Membership::complete([]),
        agent: None,
        assurance: Assurance::default(),
        expires_at: i64::MAX,
    }
}

/// `support,leads`; a `?` among them says that the issuer may have left some out.
fn membership(list: &str) -> Membership {
    let names = list.split(',').filter(|name| !name.is_empty() && *name != "?").map(Arc::from);
    if list.split(',').any(|name| name == "?") { Membership::partial(names) } else { Membership::complete(names) }
}

/// `role:admin`, `scope:read,write`, `acr:c1`, `with passkey`, `with hardware-key`.
fn add_fact<'w>(principal: &mut Principal, word: &str, rest: &mut impl Iterator<Item = &'w str>) -> Option<()> {
    if let Some(roles) = word.strip_prefix("role:") {
        principal.roles = membership(roles);
        return Some(());
    }
    if let Some(scopes) = word.strip_prefix("scope:") {
        principal.scopes = membership(scopes);
        return Some(());
    }
    if let Some(contexts) = word.strip_prefix("acr:") {
        principal.assurance.contexts = contexts.split(',').filter(|name| !name.is_empty()).map(Arc::from).collect();
        return Some(());
    }
    let hardware_key = match (word, rest.next()?) {
        ("with", "passkey") => false,
        ("with", "hardware-key") => true,
        _ => return None,
    };
    principal.assurance.passkey_at = Some(NOW);
    principal.assurance.hardware_key = hardware_key;
    Some(())
}

pub(super) fn run(policy: &ServicePolicy) -> Vec<TestOutcome> {
    policy.cases.iter().map(|case| run_case(policy, case)).collect()
}

fn run_case(policy: &ServicePolicy, case: &Case) -> TestOutcome {
    let decision = policy.decide(&Input {
        principal: case.principal.as_ref(),
        peer: case.peer.as_ref().map_or(Peer::Edge, Peer::Workload),
        method: &case.method,
        path: &case.path,
        query: case.query.as_deref(),
        host: "test",
        client_ip: Some(CLIENT_IP),
        now: NOW,
    });
    let (verdict, why, by) = summary(&decision);
    let by_matches = case.by.is_none() || case.by.as_deref() == by;
    let told = |verdict, why: &str, by: Option<&str>| {
        let by = by.map(|by| format!(" by {by}")).unwrap_or_default();
        format!("{}{why}{by}", word(verdict))
    };
    TestOutcome {
        place: case.place.clone(),
        title: case.title.clone(),
        passed: verdict == case.expect && by_matches,
        expected: told(case.expect, "", case.by.as_deref()),
        got: told(verdict, &why, by),
    }
}

fn word(expect: Expect) -> &'static str {
    match expect {
        Expect::Allow => "allow",
        Expect::Deny => "deny",
        Expect::StepUp => "step-up",
    }
}

/// The verdict, for a refusal its reason, and the rule by its name in the file.
fn summary(decision: &Decision) -> (Expect, String, Option<&str>) {
    let bare = |name: &'_ str| name.split_once('/').map_or(0, |(service, _)| service.len() + 1);
    let (expect, why, rule) = match &decision.verdict {
        Verdict::Permit(permit) => (Expect::Allow, String::new(), Some(permit.rule())),
        Verdict::StepUp(step_up) => (Expect::StepUp, String::new(), Some(&step_up.rule)),
        Verdict::Denial(denial) => (Expect::Deny, format!(" ({})", denial.reason.code()), denial.rule.as_ref()),
    };
    (expect, why, rule.and_then(|rule| rule.name.get(bare(&rule.name)..)))
}
