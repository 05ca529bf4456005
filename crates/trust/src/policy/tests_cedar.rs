//! The oracle: over generated rule sets and requests, the native verdict is the verdict of Cedar over the exported text.

use super::decide::Judge;
use super::facts::{ROWS, WhenError};
use super::params::ParamError;
use super::tests_world::*;
use super::*;
use crate::path::{NormalPath, Tolerance};
use crate::principal::{Agent, Assurance, Kind, Membership, Principal};
use crate::spiffe::SpiffeId;
use cedar_policy::{
    Authorizer, Context, Effect, Entities, EntityUid, PolicySet, Request, RestrictedExpression as Value,
};
use proptest::prelude::*;
use std::str::FromStr;

fn text(value: &str) -> Value {
    Value::new_string(value.to_owned())
}

fn record(pairs: Vec<(&str, Value)>) -> Value {
    Value::new_record(pairs.into_iter().map(|(name, value)| (name.to_owned(), value))).unwrap()
}

/// `n`, `s1`, `s2`, … and, for a SPIFFE ID, its domain.
fn segments(domain: &str, id: &str, path: &str) -> Value {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let count = i64::try_from(parts.len()).unwrap();
    let mut pairs = vec![
        ("n".to_owned(), Value::new_long(count)),
        ("domain".to_owned(), text(domain)),
        ("id".to_owned(), text(id)),
    ];
    pairs.extend(parts.iter().enumerate().map(|(at, part)| (format!("s{}", at + 1), text(part))));
    Value::new_record(pairs).unwrap()
}

fn spiffe_record(subject: &str) -> Value {
    match SpiffeId::parse(subject) {
        Ok(id) => segments(id.trust_domain(), subject, id.path()),
        Err(_) => segments("", "", ""),
    }
}

fn sets(membership: Option<&Membership>) -> (Value, Value) {
    let names = membership.into_iter().flat_map(Membership::names).map(|name| text(name));
    (Value::new_set(names.collect::<Vec<_>>()), Value::new_bool(membership.is_none_or(Membership::is_complete)))
}

/// The input as `context.facts` has it.
fn facts(input: &Input<'_>, facet: &str, best_assurance: bool, unknown: &[String]) -> Value {
    let principal = input.principal;
    let of = |read: fn(&Principal) -> &str| principal.map_or("", read);
    let subject = of(|p| &p.subject);
    let delegate = principal.and_then(|p| p.agent.as_ref()).map(|agent| &*agent.name);
    let own = principal.filter(|p| p.kind == Kind::Agent).map(|p| (&*p.id, &*p.subject));
    let (acting_id, acting_subject) = delegate.map(|name| (name, name)).or(own).unwrap_or(("", ""));
    let touched = principal.and_then(|p| p.assurance.passkey_at);
    let age = if best_assurance { 0 } else { touched.map_or(0, |at| input.now - at) };
    let hardware = best_assurance || principal.is_some_and(|p| p.assurance.hardware_key);
    let said = principal.into_iter().flat_map(|p| &p.assurance.contexts).map(|context| text(context));
    let contexts: Vec<Value> = if best_assurance { ACR.map(text).to_vec() } else { said.collect() };
    let (groups, groups_complete) = sets(principal.map(|p| &p.groups));
    let (roles, roles_complete) = sets(principal.map(|p| &p.roles));
    let (scopes, scopes_complete) = sets(principal.map(|p| &p.scopes));
    let (peer, from_edge) = match input.peer {
        Peer::Edge => (segments("", "", ""), true),
        Peer::Workload(id) => (segments(id.trust_domain(), id.as_str(), id.path()), false),
    };
    let kind = principal.map_or("", |p| match p.kind {
        Kind::Person => "person",
        Kind::Workload => "workload",
        Kind::Agent => "agent",
    });
    record(vec![
        ("facet", text(facet)),
        ("kind", text(kind)),
        ("issuer", text(of(|p| &p.issuer))),
        ("id", text(of(|p| &p.id))),
        ("subject", text(subject)),
        ("spiffe", spiffe_record(subject)),
        ("groups", groups),
        ("groups_complete", groups_complete),
        ("roles", roles),
        ("roles_complete", roles_complete),
        ("scopes", scopes),
        ("scopes_complete", scopes_complete),
        ("delegated", Value::new_bool(delegate.is_some())),
        ("agent_acts", Value::new_bool(delegate.is_some() || own.is_some())),
        ("acting_id", text(acting_id)),
        ("acting_subject", text(acting_subject)),
        ("acting_spiffe", spiffe_record(acting_subject)),
        ("from_edge", Value::new_bool(from_edge)),
        ("peer", peer),
        ("method", text(input.method)),
        ("path", segments("", "", input.path.as_str())),
        ("passkey", Value::new_bool(best_assurance || touched.is_some())),
        ("passkey_age_s", Value::new_long(age)),
        ("hardware_key", Value::new_bool(hardware)),
        ("contexts", Value::new_set(contexts)),
        ("unknown", Value::new_set(unknown.iter().map(|name| text(name)).collect::<Vec<_>>())),
    ])
}

/// The whole `context`: the facts and what `when` expressions read.
fn context(policy: &ServicePolicy, input: &Input<'_>, facet: &str, best_assurance: bool) -> Context {
    let judge = Judge { policy, input };
    let mut unknown = Vec::new();
    let (mut top, mut request, mut principal, mut params) = (vec![], vec![], vec![], vec![]);
    for row in &ROWS {
        let section = match row.section {
            "request" => &mut request,
            "principal" => &mut principal,
            _ => &mut top,
        };
        match row.fact.value(&judge) {
            Ok(value) => section.extend(value.map(|value| (row.name, value))),
            Err(_) if row.section.is_empty() => unknown.push(row.name.to_owned()),
            Err(_) => unknown.push(format!("{}.{}", row.section, row.name)),
        }
    }
    let read = policy.rules.iter().chain(&policy.never).filter_map(|rule| rule.when.as_ref());
    for param in read.flat_map(|when| &when.params) {
        match param.value(&judge) {
            Ok(Some(value)) if !params.iter().any(|(name, _)| *name == &*param.name) => {
                params.push((&*param.name, value))
            }
            Ok(_) => {}
            Err(WhenError::Param(ParamError::Missing(_))) => unknown.push(format!("params.{} missing", param.name)),
            Err(_) => unknown.push(format!("params.{}", param.name)),
        }
    }
    request.push(("params", record(params)));
    top.push(("request", record(request)));
    if input.principal.is_some() {
        top.push(("principal", record(principal)));
    }
    top.push(("facts", facts(input, facet, best_assurance, &unknown)));
    Context::from_pairs(top.into_iter().map(|(name, value)| (name.to_owned(), value))).unwrap()
}

/// Cedar's answer, with what Cedar leaves out: a `forbid` that errors forbids.
fn cedar_allows(set: &PolicySet, context: Context) -> bool {
    let uid = |text: &str| EntityUid::from_str(text).unwrap();
    let request =
        Request::new(uid("Caller::\"\""), uid("Action::\"request\""), uid("Service::\"\""), context, None).unwrap();
    let response = Authorizer::new().is_authorized(&request, set, &Entities::empty());
    let failed_forbid = response.diagnostics().errors().any(|error| {
        let cedar_policy::AuthorizationError::PolicyEvaluationError(error) = error;
        set.policy(error.policy_id()).unwrap().effect() == Effect::Forbid
    });
    response.decision() == cedar_policy::Decision::Allow && !failed_forbid
}

fn oracle(set: &PolicySet, policy: &ServicePolicy, input: &Input<'_>) -> &'static str {
    let delegated = input.principal.is_some_and(|principal| principal.agent.is_some());
    let facets: &[&str] = if delegated { &["principal", "agent"] } else { &["principal"] };
    let all = |best| facets.iter().all(|facet| cedar_allows(set, context(policy, input, facet, best)));
    let person = input.principal.is_some_and(|principal| principal.kind == Kind::Person);
    match () {
        () if all(false) => "allow",
        () if person && all(true) => "step-up",
        () => "deny",
    }
}

fn native(policy: &ServicePolicy, input: &Input<'_>) -> &'static str {
    match policy.decide(input).verdict {
        Verdict::Permit(_) => "allow",
        Verdict::StepUp(_) => "step-up",
        Verdict::Denial(_) => "deny",
    }
}

const WHO: [&str; 18] = [
    "anyone",
    "signed-in",
    "signed-in",
    "user:entra|ana",
    "user:partner|ana",
    "group:support",
    "group:support",
    "group:leads",
    "group:partner|leads",
    "role:admin",
    "scope:read",
    "workload:*",
    "workload:/shop/web",
    "workload:entra|ana",
    "agent:*",
    "agent:bot",
    "agent:entra|bot",
    "agent:/bots",
];
const FROM: [&str; 4] = ["edge", "/shop/web", "/shop", "spiffe://far.example/shop/web"];
const CAN: [&str; 10] = [
    "GET /**",
    "* /**",
    "GET /orders/**",
    "POST /orders/*",
    "GET,POST /orders/42",
    "HEAD /orders/*/refund",
    "DELETE /orders/**",
    "* /orders/*/refund",
    "OPTIONS /",
    "GET /caf\u{e9}/*",
];
const AGENT: [&str; 4] = ["bot", "*", "entra|cat", "/bots"];
const ACR: [&str; 3] = ["c1", "c2", "phr"];
const WHEN: [&str; 9] = [
    "context.request.params.amount <= 500",
    "if context.request.params has amount then context.request.params.amount <= 500 else true",
    "context has principal && context.principal.groups.contains(\"support\")",
    "context has principal && context.principal has acr && context.principal.acr == \"phr\"",
    "context.request.method == \"GET\" || context.client_ip.isInRange(ip(\"10.0.0.0/8\"))",
    "context.request.params.amount * 4611686018427387904 > 0 || context.time > 0",
    "context has agent && context.agent == \"bot\"",
    "context.request.path like \"/orders/*\" && context.peer == \"edge\"",
    "[\"eu\", \"us\"].contains(context.request.params.region)",
];
const PATHS: [&str; 8] =
    ["/", "/orders", "/orders/", "/orders/42", "/orders/42/refund", "/orders/4/refund", "/caf%C3%A9/x", "/x"];
const QUERIES: [&str; 8] =
    ["", "amount=5", "amount=501", "amount=x", "amount=5&amount=6", "Amount=5", "region=eu", "amount=2"];
const PEERS: [&str; 5] = [
    "edge",
    "spiffe://acme.example/shop/web",
    "spiffe://acme.example/shop/webhook",
    "spiffe://far.example/shop/web",
    "spiffe://acme.example",
];

fn some_of(pool: &'static [&'static str], from: usize, to: usize) -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec(prop::sample::select(pool).prop_map(str::to_owned), from..=to)
}

fn a_rule(never: bool) -> impl Strategy<Value = RuleSource> {
    let clauses = (some_of(&WHO, 1, 3), some_of(&FROM, 0, 2), some_of(&CAN, 1, 2), some_of(&AGENT, 0, 1));
    let when = prop::option::weighted(0.3, prop::sample::select(&WHEN[..]).prop_map(str::to_owned));
    let strong = (
        prop::option::weighted(0.2, 60u64..600),
        prop::bool::weighted(0.15),
        prop::bool::weighted(0.15),
        prop::option::weighted(0.2, some_of(&ACR, 1, 2)),
    );
    (clauses, when, strong, prop::bool::weighted(0.1), prop::bool::weighted(0.3)).prop_map(
        move |((who, from, can, agent), when, (fresh_s, passkey, hardware_key, acr), shadow, narrowed)| {
            let allow = !never;
            let passkeys =
                allow && !who.iter().any(|who| who == "anyone") && !who.iter().all(|who| who.starts_with("workload:"));
            let agent = if allow && narrowed { agent } else { vec![] };
            let source = RuleSource { who, from, can, agent, when, shadow, ..RuleSource::default() };
            let acr = acr.unwrap_or_default();
            if passkeys { RuleSource { fresh_s, passkey, hardware_key, acr, ..source } } else { source }
        },
    )
}

fn a_membership(pool: &'static [&'static str]) -> impl Strategy<Value = Membership> {
    (prop::sample::subsequence(pool, 0..=pool.len()), prop::bool::weighted(0.75)).prop_map(|(list, complete)| {
        if complete { Membership::complete(names(&list)) } else { Membership::partial(names(&list)) }
    })
}

fn a_principal() -> impl Strategy<Value = Principal> {
    let kinds = prop::sample::select(vec![Kind::Person, Kind::Person, Kind::Person, Kind::Workload, Kind::Agent]);
    let ids = prop::sample::select(vec![
        "ana",
        "bo",
        "bot",
        "spiffe://acme.example/shop/web",
        "spiffe://acme.example/bots/x",
    ]);
    let agents = prop::sample::select(vec!["bot", "cat", "spiffe://acme.example/bots/x"]);
    let issuers = prop::sample::select(vec!["entra", "partner"]);
    let sets = (a_membership(&["support", "leads"]), a_membership(&["admin"]), a_membership(&["read"]));
    let contexts = prop::sample::subsequence(&ACR[..], 0..=2);
    let passkey = (prop::option::of(-10i64..700), any::<bool>(), prop::option::of(Just("phr")), contexts);
    (kinds, issuers, ids, sets, prop::option::weighted(0.35, agents), passkey).prop_map(
        |(kind, issuer, id, (groups, roles, scopes), agent, (age, hardware_key, acr, contexts))| {
            let made = principal(kind, issuer, id);
            let spiffe = kind != Kind::Person && id.starts_with("spiffe://");
            let assurance = Assurance {
                acr: acr.map(Into::into),
                contexts: contexts.into_iter().map(Into::into).collect(),
                passkey_at: age.map(|age| NOW - age),
                hardware_key,
                ..Assurance::default()
            };
            Principal {
                subject: if spiffe { id.into() } else { made.subject.clone() },
                groups,
                roles,
                scopes,
                agent: agent.map(|name| Agent { name: name.into() }),
                assurance,
                ..made
            }
        },
    )
}

type Asked = (Option<Principal>, &'static str, &'static str, &'static str, &'static str, Option<[u8; 4]>);

fn a_request() -> impl Strategy<Value = Asked> {
    (
        prop::option::weighted(0.9, a_principal()),
        prop::sample::select(&PEERS[..]),
        prop::sample::select(&["GET", "HEAD", "POST", "DELETE", "OPTIONS", "BREW"][..]),
        prop::sample::select(&PATHS[..]),
        prop::sample::select(&QUERIES[..]),
        prop::option::weighted(0.8, prop::sample::select(&[[10, 0, 0, 1], [192, 0, 2, 1]][..])),
    )
}

fn compare(set: &PolicySet, policy: &ServicePolicy, asked: &Asked) -> Result<(), TestCaseError> {
    let (principal, peer, method, path, query, ip) = asked;
    let peer_id = SpiffeId::parse(peer).ok();
    let path = NormalPath::parse(path, Tolerance::default()).unwrap();
    let input = Input {
        principal: principal.as_ref(),
        peer: peer_id.as_ref().map_or(Peer::Edge, Peer::Workload),
        method,
        path: &path,
        query: Some(query),
        host: "shop.acme.example",
        client_ip: ip.map(Into::into),
        now: NOW,
    };
    prop_assert_eq!(native(policy, &input), oracle(set, policy, &input), "{:?}\n{}", asked, policy.to_cedar());
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, max_global_rejects: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn native_and_cedar_give_the_same_verdict(
        mut rules in prop::collection::vec(a_rule(false), 1..6),
        mut never in prop::collection::vec(a_rule(true), 0..3),
        requests in prop::collection::vec(a_request(), 6),
    ) {
        for (at, rule) in rules.iter_mut().chain(&mut never).enumerate() {
            rule.name = format!("rule \"{at}\"\\");
        }
        let enforced = rules.iter().chain(&never).filter(|rule| !rule.shadow).count();
        let policy = ServicePolicy::compile(&service(rules, never));
        prop_assume!(policy.is_ok());
        let policy = policy.unwrap_or_else(|problems| panic!("{problems:?}"));
        let set = PolicySet::from_str(&policy.to_cedar()).unwrap();
        prop_assert_eq!(set.policies().count(), enforced);
        for asked in &requests {
            compare(&set, &policy, asked)?;
        }
    }
}

#[test]
fn the_export_reads_as_cedar_and_names_each_rule() {
    let read = RuleSource { name: "reads".to_owned(), ..rule(&["group:support"], &["GET /orders/**"]) };
    let never = RuleSource { name: "no \"agents\"".to_owned(), ..rule(&["agent:*"], &["DELETE /**"]) };
    let shadow = RuleSource { name: "shadow".to_owned(), shadow: true, ..rule(&["anyone"], &["* /**"]) };
    let text = compile(vec![read, shadow], vec![never]).to_cedar();
    let set = PolicySet::from_str(&text).unwrap();
    let mut rules: Vec<_> =
        set.policies().map(|p| (p.effect(), p.annotation("id").unwrap(), p.annotation("src").unwrap())).collect();
    rules.sort_by_key(|(_, id, _)| *id);
    let place = "services/orders.yaml:7";
    let expected = [(Effect::Forbid, "orders/no \"agents\"", place), (Effect::Permit, "orders/reads", place)];
    assert_eq!(rules, expected, "{text}");
}

#[test]
fn user_input_stays_data_in_the_export() {
    let hostile = "x\") || true) }; permit(principal, action, resource); //";
    let named = RuleSource { name: hostile.to_owned(), ..rule(&[&format!("group:{hostile}")], &["GET /a"]) };
    let text = compile(vec![named], vec![]).to_cedar();
    let set = PolicySet::from_str(&text).unwrap();
    assert_eq!(set.policies().count(), 1, "{text}");
    assert_eq!(set.policies().next().unwrap().annotation("id").unwrap(), format!("orders/{hostile}"));
}

#[test]
fn a_rule_of_a_thousand_names_exports_within_a_small_stack() {
    let who: Vec<String> = (0..1000).map(|n| format!("group:g{n}")).collect();
    let policy = compile(vec![RuleSource { who, ..rule(&["x"], &["GET /a"]) }], vec![]);
    let text =
        std::thread::Builder::new().stack_size(2 << 20).spawn(move || policy.to_cedar()).unwrap().join().unwrap();
    assert!(text.contains("g999"));
}
