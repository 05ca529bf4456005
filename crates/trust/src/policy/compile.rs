//! From clauses as written to the native decision structure. Reports every problem at once and never compiles half a
//! file: a service with one problem has no policy, and no policy denies.

use super::ServicePolicy;
use super::cases;
use super::clause::{self, Can, Who};
use super::params::Kind;
use super::route::{Candidate, Routes};
use super::rule::{Grant, Needs, Rule};
use super::source::{Flaw, Problem, RuleSource, ServiceSource, shown};
use super::verdict::RuleId;
use super::when::When;
use crate::path::Segment;
use crate::spiffe;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

const RULES_MAX: usize = 5_000;
const ENTRIES_MAX: usize = 1_000;
const NAME_BYTES_MAX: usize = 200;
const FRESH_MAX_S: u64 = 30 * 24 * 60 * 60;

pub(super) fn compile(source: &ServiceSource) -> Result<ServicePolicy, Vec<Problem>> {
    let mut problems = Problems::default();
    check_service(source, &mut problems);
    let never = compile_list(source, "never", &source.never, &mut problems);
    let rules = compile_list(source, "rules", &source.rules, &mut problems);
    check_names(source, &mut problems);
    check_reachable(&rules, &never, &mut problems);
    check_params(&rules, &never, &mut problems);
    let cases = cases::parse(source, &mut problems);
    if !problems.found.is_empty() {
        problems.found.sort_by_key(|problem| (problem.list != "service", problem.list == "tests", problem.index));
        return Err(problems.found);
    }
    let (rules, never): (Vec<Rule>, Vec<Rule>) = (strip(rules), strip(never));
    Ok(ServicePolicy {
        trust_domain: source.trust_domain.as_str().into(),
        allow_routes: routes_of(&rules),
        never_routes: routes_of(&never),
        groups: groups_of(rules.iter().chain(&never)),
        cases,
        rules,
        never,
    })
}

/// Problems as they are found; the place of the text at hand is kept here.
#[derive(Default)]
pub(super) struct Problems {
    found: Vec<Problem>,
}

impl Problems {
    pub(super) fn add(&mut self, list: &'static str, index: usize, field: &'static str, flaw: Flaw) {
        self.found.push(Problem { list, index, field, what: flaw.what, fix: flaw.fix });
    }
}

fn check_service(source: &ServiceSource, problems: &mut Problems) {
    if source.service.is_empty() || source.service.len() > NAME_BYTES_MAX {
        let flaw = Flaw::new("the service has no usable name", "write `service: <name>`, at most 200 bytes");
        problems.add("service", 0, "service", flaw);
    }
    if let Err(error) = spiffe::check_trust_domain(&source.trust_domain) {
        let what = format!("`{}` is no trust domain: {error}", shown(&source.trust_domain));
        problems.add("service", 0, "trust_domain", Flaw::new(what, "mend `trust_domain` in countersign.yaml"));
    }
    for (list, count) in [("rules", source.rules.len()), ("never", source.never.len())] {
        if count > RULES_MAX {
            let flaw = Flaw::new(
                format!("{count} entries are more than the {RULES_MAX} of one service"),
                "join rules that differ in `who` or `can` only, or split the service",
            );
            problems.add(list, 0, "name", flaw);
        }
    }
}

/// The compiled rules with their place in the list; a rule with a problem is left out here, and then so is the policy.
fn compile_list(
    source: &ServiceSource,
    list: &'static str,
    rules: &[RuleSource],
    problems: &mut Problems,
) -> Vec<(usize, Rule)> {
    let scope = |class: &str| Arc::<str>::from(format!("{}.{class}", source.service));
    let shared = Shared { service: source.service.as_str().into(), read: scope("read"), write: scope("write") };
    let compiled = rules.iter().take(RULES_MAX).enumerate().filter_map(|(index, rule)| {
        let mut parts = Parts { list, index, problems: &mut *problems };
        let rule = compile_rule(rule, &shared, &mut parts)?;
        Some((index, rule))
    });
    compiled.collect()
}

/// What all rules of one service say alike.
struct Shared {
    service: Arc<str>,
    read: Arc<str>,
    write: Arc<str>,
}

/// One rule under compilation: where its problems go.
struct Parts<'a> {
    list: &'static str,
    index: usize,
    problems: &'a mut Problems,
}

impl Parts<'_> {
    fn flaw(&mut self, field: &'static str, flaw: Flaw) {
        self.problems.add(self.list, self.index, field, flaw);
    }

    /// Every text of a list clause, each problem reported.
    fn each<'t, T>(
        &mut self,
        field: &'static str,
        texts: impl Iterator<Item = &'t str>,
        parse: fn(&str) -> Result<T, Flaw>,
    ) -> Vec<T> {
        let mut parsed = Vec::new();
        for (count, text) in texts.enumerate() {
            if count == ENTRIES_MAX {
                let what = format!("more than {ENTRIES_MAX} entries");
                self.flaw(field, Flaw::new(what, "use a group or a wider pattern instead"));
                break;
            }
            match parse(text) {
                Ok(value) => parsed.push(value),
                Err(flaw) => self.flaw(field, flaw),
            }
        }
        parsed
    }
}

fn compile_rule(source: &RuleSource, shared: &Shared, parts: &mut Parts<'_>) -> Option<Rule> {
    let before = parts.problems.found.len();
    let never = parts.list == "never";
    let who = parts.each("who", source.who.iter().map(String::as_str), clause::parse_who);
    let from = parts.each("from", source.from.iter().map(String::as_str), clause::parse_from);
    let cans = source.can.iter().flat_map(|text| clause::split_can(text));
    let cans = parts.each("can", cans, clause::parse_can);
    let agents = parts.each("agent", source.agent.iter().map(String::as_str), clause::parse_agent);
    check_present(source, parts);
    let when = when_of(source, &who, parts);
    if never {
        check_never(source, parts);
    }
    let acr = parts.each("acr", source.acr.iter().map(String::as_str), clause::parse_acr);
    let assurance = assurance_of(source, &who, parts);
    if parts.problems.found.len() > before {
        return None;
    }
    let per_request = source.txn_per_request || source.fresh_s.is_some();
    Some(Rule {
        grant: Arc::new(grant_of(source, shared, &cans, per_request)),
        name: source.name.trim().into(),
        who,
        from,
        cans,
        agents,
        assurance,
        acr,
        when,
        shadow: source.shadow,
        never,
    })
}

fn grant_of(source: &RuleSource, shared: &Shared, cans: &[Can], per_request: bool) -> Grant {
    let name = format!("{}/{}", shared.service, source.name.trim());
    Grant {
        service: Arc::clone(&shared.service),
        id: Arc::new(RuleId { name, place: source.place.clone() }),
        scope_read: Arc::clone(&shared.read),
        scope_write: Arc::clone(&shared.write),
        routes: cans.iter().map(|can| format!("{}:{}", shared.service, can.text).into()).collect(),
        per_request,
    }
}

fn check_present(source: &RuleSource, parts: &mut Parts<'_>) {
    let name = source.name.trim();
    if name.is_empty() {
        let fix = "write `name:` with a few words; records, tests and refusals name the rule by it";
        parts.flaw("name", Flaw::new("the rule has no name", fix));
    } else if name.len() > NAME_BYTES_MAX || name.chars().any(char::is_control) {
        let what = format!("`{}` is too long or holds a control character", shown(name));
        parts.flaw("name", Flaw::new(what, format!("use at most {NAME_BYTES_MAX} bytes on one line")));
    }
    if source.who.is_empty() {
        let fix = "write `who:`; `anyone` means also callers without a token, `signed-in` every person";
        parts.flaw("who", Flaw::new("the rule names nobody", fix));
    }
    if source.can.is_empty() {
        let fix = "write `can:` with methods and a path, as in `GET /orders/**`, or `* /**` for everything";
        parts.flaw("can", Flaw::new("the rule covers no request", fix));
    }
}

/// `never` refuses whoever it matches; what strengthens a sign-in has no meaning there.
fn check_never(source: &RuleSource, parts: &mut Parts<'_>) {
    let set = [
        ("fresh", source.fresh_s.is_some()),
        ("passkey", source.passkey),
        ("hardware_key", source.hardware_key),
        ("acr", !source.acr.is_empty()),
        ("txn", source.txn_per_request),
    ];
    for (field, _) in set.into_iter().filter(|(_, set)| *set) {
        let what = format!("`{field}` has no meaning in `never`");
        parts.flaw(field, Flaw::new(what, "remove it, or put it on the allow rule that needs it"));
    }
    if !source.agent.is_empty() {
        let fix = "name the agents in `who`, as in `who: agent:report-bot`";
        parts.flaw("agent", Flaw::new("`agent` has no meaning in `never`", fix));
    }
}

fn when_of(source: &RuleSource, who: &[Who], parts: &mut Parts<'_>) -> Option<When> {
    let text = source.when.as_deref()?;
    When::parse(text, who.contains(&Who::Anyone)).map_err(|flaw| parts.flaw("when", flaw)).ok()
}

fn assurance_of(source: &RuleSource, who: &[Who], parts: &mut Parts<'_>) -> Option<Needs> {
    if parts.list == "never" {
        return None;
    }
    if !source.acr.is_empty() {
        check_strong("acr", "a strong sign-in", who, parts);
    }
    if !(source.passkey || source.hardware_key || source.fresh_s.is_some()) {
        return None;
    }
    let field = match (source.fresh_s, source.passkey) {
        (Some(_), _) => "fresh",
        (None, true) => "passkey",
        (None, false) => "hardware_key",
    };
    if source.fresh_s.is_some_and(|fresh_s| fresh_s == 0 || fresh_s > FRESH_MAX_S) {
        let fix = "write a time between `1s` and `30d`, as in `fresh: 5m`";
        parts.flaw("fresh", Flaw::new("this time can never hold, or always does", fix));
    }
    check_strong(field, "a passkey", who, parts);
    Some(Needs { fresh_s: source.fresh_s, hardware_key: source.hardware_key })
}

fn check_strong(field: &'static str, wanted: &str, who: &[Who], parts: &mut Parts<'_>) {
    if who.contains(&Who::Anyone) {
        let what = format!("`{field}` asks for {wanted}, and `anyone` includes callers who have none");
        parts.flaw(field, Flaw::new(what, "write `who: signed-in`"));
    } else if !who.is_empty() && who.iter().all(|who| matches!(who, Who::Workload(_))) {
        let what = format!("the rule matches nobody: `{field}` asks for {wanted}, and a workload has none");
        parts.flaw(field, Flaw::new(what, "remove it, or name people in `who`"));
    }
}

/// Names are what records and tests refer to: one name, one rule.
fn check_names(source: &ServiceSource, problems: &mut Problems) {
    let mut seen: BTreeMap<&str, &RuleSource> = BTreeMap::new();
    let lists = [("rules", &source.rules), ("never", &source.never)];
    for (list, index, rule) in lists.into_iter().flat_map(|(list, rules)| {
        rules.iter().take(RULES_MAX).enumerate().map(move |(index, rule)| (list, index, rule))
    }) {
        let name = rule.name.trim();
        match seen.get(name) {
            Some(first) if !name.is_empty() => {
                let what =
                    format!("a second rule is named `{}`; the first stands at line {}", shown(name), first.place.line);
                problems.add(list, index, "name", Flaw::new(what, "give each rule its own name"));
            }
            _ => drop(seen.insert(name, rule)),
        }
    }
}

/// One name, one type within a service: two rules that read one parameter differently are a mistake in one of them.
fn check_params(rules: &[(usize, Rule)], never: &[(usize, Rule)], problems: &mut Problems) {
    let mut seen: BTreeMap<&str, (Kind, &Rule)> = BTreeMap::new();
    let lists = [("rules", rules), ("never", never)];
    for (list, index, rule) in
        lists.into_iter().flat_map(|(list, rules)| rules.iter().map(move |(index, rule)| (list, *index, rule)))
    {
        for param in rule.when.iter().flat_map(|when| &when.params) {
            let (kind, first) = *seen.entry(&*param.name).or_insert((param.kind, rule));
            if kind != param.kind {
                let what = format!(
                    "parameter `{}` is {} here and {} in `{}`",
                    param.name,
                    param.kind.described(),
                    kind.described(),
                    first.name
                );
                problems.add(list, index, "when", Flaw::new(what, "compare it with values of one type in all rules"));
            }
        }
    }
}

/// A `can` that an unconditional `never` covers in full can never allow anything.
fn check_reachable(rules: &[(usize, Rule)], never: &[(usize, Rule)], problems: &mut Problems) {
    let absolute =
        || never.iter().map(|(_, rule)| rule).filter(|rule| rule.is_unconditional() && rule.who.contains(&Who::Anyone));
    for (index, rule) in rules {
        for can in &rule.cans {
            let blocker = absolute().find(|never| never.cans.iter().any(|wide| covers(wide, can)));
            if let Some(blocker) = blocker {
                let what = format!(
                    "`{}` can never be allowed: the `never` rule `{}` refuses it to anyone",
                    can.text, blocker.name
                );
                problems.add("rules", *index, "can", Flaw::new(what, "remove it here, or narrow the `never` rule"));
            }
        }
    }
}

fn covers(wide: &Can, narrow: &Can) -> bool {
    wide.methods.covers(narrow.methods) && pattern_covers(wide.pattern.segments(), narrow.pattern.segments())
}

/// Does every path of `narrow` match `wide`?
fn pattern_covers(wide: &[Segment], narrow: &[Segment]) -> bool {
    let mut narrow = narrow.iter();
    for asked in wide {
        let covered = match (asked, narrow.next()) {
            (Segment::Deep, _) => return true,
            (Segment::Any, Some(given)) => *given != Segment::Deep,
            (Segment::Literal(_), Some(given)) => asked == given,
            (_, None) => false,
        };
        if !covered {
            return false;
        }
    }
    narrow.next().is_none()
}

fn strip(rules: Vec<(usize, Rule)>) -> Vec<Rule> {
    rules.into_iter().map(|(_, rule)| rule).collect()
}

fn routes_of(rules: &[Rule]) -> Routes {
    let mut routes = Routes::new();
    for (rule, compiled) in rules.iter().enumerate() {
        for (can, parsed) in compiled.cans.iter().enumerate() {
            routes.insert(&parsed.pattern, parsed.methods, Candidate { rule, can });
        }
    }
    routes
}

fn groups_of<'a>(rules: impl Iterator<Item = &'a Rule>) -> Vec<Arc<str>> {
    let named = rules.flat_map(|rule| &rule.who).filter_map(|who| match who {
        Who::Group(name) => Some(Arc::clone(&name.name)),
        _ => None,
    });
    named.collect::<BTreeSet<_>>().into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::super::method::Methods;
    use super::*;

    #[test]
    fn coverage_is_exact_over_segments() {
        let check = |wide: &str, narrow: &str, expected| {
            let parse = |text| crate::path::Pattern::parse(text).unwrap();
            assert_eq!(pattern_covers(parse(wide).segments(), parse(narrow).segments()), expected, "{wide} {narrow}");
        };
        check("/**", "/a/*/c", true);
        check("/a/**", "/a", true);
        check("/a/**", "/ab", false);
        check("/a/*", "/a/b", true);
        check("/a/*", "/a/**", false);
        check("/a/b", "/a/*", false);
        check("/a", "/a/b", false);
        assert!(Methods::ALL.covers(Methods::of_rule("GET").unwrap()));
    }
}
