//! Every clause with the request it allows and the one it refuses, and how clauses, facets and lists combine.

use super::tests_world::*;
use super::*;
use crate::principal::{Asking, Assurance, Kind, Membership, Principal};

fn check(policy: &ServicePolicy, principal: &Principal, request: &str, expected: &str) {
    assert_eq!(Ask::new(principal, request).of(policy), expected, "{request} {principal:?}");
}

fn named(name: &str, rule: RuleSource) -> RuleSource {
    RuleSource { name: name.to_owned(), ..rule }
}

#[test]
fn a9_an_empty_rule_file_denies_everything() {
    let policy = compile(vec![], vec![]);
    for method in ["GET", "HEAD", "OPTIONS", "POST", "BREW"] {
        check(&policy, &person("ana", &["support"]), &format!("{method} /"), "no_rule_matched");
    }
    assert_eq!(Ask::new(None, "GET /").of(&policy), "token_missing");
}

#[test]
fn a9_unknown_groups_and_a_never_on_a_group_are_denied() {
    let policy = compile(
        vec![named("read", rule(&["group:support"], &["GET /**"])), named("all", rule(&["signed-in"], &["GET /**"]))],
        vec![named("no contractors", rule(&["group:contractors"], &["* /**"]))],
    );
    check(&policy, &person("ana", &["support"]), "GET /orders/1", "allow read");
    check(&policy, &person_of_unknown_groups("ana", &["support"]), "GET /orders/1", "never_matched no contractors");
    check(&policy, &person("ana", &["support", "contractors"]), "GET /orders/1", "never_matched no contractors");
}

#[test]
fn unknown_groups_are_never_absent_and_never_present() {
    let policy = compile(vec![named("read", rule(&["group:support"], &["GET /a"]))], vec![]);
    check(&policy, &person("ana", &["support"]), "GET /a", "allow read");
    check(&policy, &person("bo", &["finance"]), "GET /a", "no_rule_matched");
    check(&policy, &person_of_unknown_groups("bo", &["finance"]), "GET /a", "groups_unknown read");
    check(&policy, &person_of_unknown_groups("ana", &["support"]), "GET /a", "allow read");
    check(&policy, &person_of_unknown_groups("bo", &["finance"]), "GET /b", "no_rule_matched");
    let both = compile(
        vec![
            named("read", rule(&["group:support"], &["GET /a"])),
            named("web only", RuleSource { from: texts(&["/shop/web"]), ..rule(&["group:x"], &["GET /b"]) }),
            named("all", rule(&["signed-in"], &["GET /a"])),
        ],
        vec![],
    );
    check(&both, &person_of_unknown_groups("bo", &[]), "GET /a", "allow all");
    check(&both, &person_of_unknown_groups("bo", &[]), "GET /b", "no_rule_matched");
}

#[test]
fn who_names_callers_by_kind() {
    let cases = [
        ("anyone", "anyone"),
        ("signed-in", "person"),
        ("user:entra|ana", "person"),
        ("group:support", "person"),
        ("group:entra|support", "person"),
        ("role:admin", "person"),
        ("scope:read", "person"),
        ("workload:ci|build", "workload"),
        ("workload:/shop", "svid"),
        ("workload:spiffe://acme.example/shop/web", "svid"),
        ("agent:bot", "agent"),
        ("agent:*", "agent"),
    ];
    let full = Principal {
        roles: Membership::complete(names(&["admin"])),
        scopes: Membership::complete(names(&["read"])),
        ..person("ana", &["support"])
    };
    let id = "spiffe://acme.example/shop/web";
    let svid = Principal { subject: id.into(), ..principal(Kind::Workload, "mesh", id) };
    let callers = [
        ("person", full),
        ("workload", principal(Kind::Workload, "ci", "build")),
        ("svid", svid),
        ("agent", principal(Kind::Agent, "entra", "bot")),
    ];
    for (who, wanted) in cases {
        let policy = compile(vec![named("r", rule(&[who], &["GET /a"]))], vec![]);
        for (name, caller) in &callers {
            let allowed = wanted == "anyone" || wanted == *name;
            check(&policy, caller, "GET /a", if allowed { "allow r" } else { "no_rule_matched" });
        }
        let nobody = if wanted == "anyone" { "allow r" } else { "token_missing" };
        assert_eq!(Ask::new(None, "GET /a").of(&policy), nobody, "{who}");
    }
}

#[test]
fn the_same_id_at_another_issuer_is_another_person() {
    let policy = compile(
        vec![
            named("ana", rule(&["user:entra|ana"], &["GET /a"])),
            named("ops", rule(&["group:entra|ops"], &["GET /b"])),
        ],
        vec![],
    );
    let stranger =
        Principal { groups: Membership::complete(names(&["ops"])), ..principal(Kind::Person, "partner", "ana") };
    check(&policy, &person("ana", &["ops"]), "GET /a", "allow ana");
    check(&policy, &stranger, "GET /a", "no_rule_matched");
    check(&policy, &person("ana", &["ops"]), "GET /b", "allow ops");
    check(&policy, &stranger, "GET /b", "no_rule_matched");
}

#[test]
fn spiffe_paths_are_matched_by_segment_and_within_the_trust_domain() {
    let policy = compile(
        vec![
            named("web", RuleSource { from: texts(&["/shop/web"]), ..rule(&["anyone"], &["GET /a"]) }),
            named("edge", RuleSource { from: texts(&["edge"]), ..rule(&["anyone"], &["GET /b"]) }),
            named("any", rule(&["anyone"], &["GET /c"])),
            named("far", RuleSource { from: texts(&["spiffe://far.example/x"]), ..rule(&["anyone"], &["GET /d"]) }),
        ],
        vec![],
    );
    let ask = |peer: &str, path: &str| {
        let request = format!("GET {path}");
        match peer {
            "edge" => Ask::new(None, &request).of(&policy),
            id => Ask::new(None, &request).from(&spiffe(id)).of(&policy),
        }
    };
    assert_eq!(ask("spiffe://acme.example/shop/web", "/a"), "allow web");
    assert_eq!(ask("spiffe://acme.example/shop/web/v2", "/a"), "allow web");
    assert_eq!(ask("spiffe://acme.example/shop/webhook", "/a"), "token_missing");
    assert_eq!(ask("spiffe://far.example/shop/web", "/a"), "token_missing");
    assert_eq!(ask("edge", "/a"), "token_missing");
    assert_eq!(ask("edge", "/b"), "allow edge");
    assert_eq!(ask("spiffe://acme.example/edge", "/b"), "token_missing");
    assert_eq!(ask("edge", "/c"), "allow any");
    assert_eq!(ask("spiffe://acme.example/other", "/c"), "allow any");
    assert_eq!(ask("spiffe://far.example/other", "/c"), "token_missing");
    assert_eq!(ask("spiffe://far.example/x", "/d"), "allow far");
    assert_eq!(ask("spiffe://far.example/x/y", "/d"), "token_missing");
}

#[test]
fn a_workload_is_named_by_segment_too() {
    let policy = compile(vec![named("r", rule(&["workload:/shop/web"], &["GET /a"]))], vec![]);
    let workload = |id: &str| Principal { subject: id.into(), ..principal(Kind::Workload, "mesh", id) };
    check(&policy, &workload("spiffe://acme.example/shop/web/v2"), "GET /a", "allow r");
    check(&policy, &workload("spiffe://acme.example/shop/webhook"), "GET /a", "no_rule_matched");
    check(&policy, &workload("spiffe://acme.example.evil/shop/web"), "GET /a", "no_rule_matched");
    check(&policy, &principal(Kind::Workload, "ci", "spiffe://acme.example/shop/web"), "GET /a", "no_rule_matched");
}

#[test]
fn never_wins_whatever_allows_and_from_whatever_domain() {
    let policy = compile(
        vec![named("all", rule(&["anyone"], &["* /**"]))],
        vec![
            named("admin", rule(&["signed-in"], &["* /admin/**"])),
            named("web", RuleSource { from: texts(&["/shop/web"]), ..rule(&["anyone"], &["* /internal"]) }),
        ],
    );
    let ana = person("ana", &[]);
    check(&policy, &ana, "GET /a", "allow all");
    check(&policy, &ana, "GET /admin", "never_matched admin");
    check(&policy, &ana, "BREW /admin/x", "never_matched admin");
    assert_eq!(Ask::new(None, "GET /admin").of(&policy), "allow all");
    let far = spiffe("spiffe://far.example/x");
    assert_eq!(Ask::new(&ana, "GET /admin").from(&far).of(&policy), "never_matched admin");
    let web = spiffe("spiffe://acme.example/shop/web");
    assert_eq!(Ask::new(None, "GET /internal").from(&web).of(&policy), "never_matched web");
    assert_eq!(Ask::new(None, "GET /internal").of(&policy), "allow all");
}

#[test]
fn head_is_judged_as_get_in_both_lists() {
    let policy = compile(
        vec![named("read", rule(&["anyone"], &["GET /**"])), named("head", rule(&["anyone"], &["HEAD /h"]))],
        vec![named("secret", rule(&["anyone"], &["GET /secret/**"]))],
    );
    let ask = |request| Ask::new(None, request).of(&policy);
    assert_eq!(ask("HEAD /a"), "allow read");
    assert_eq!(ask("HEAD /secret/x"), "never_matched secret");
    assert_eq!(ask("OPTIONS /a"), "token_missing");
    assert_eq!(ask("get /a"), "token_missing");
    let only = compile(vec![named("head", rule(&["anyone"], &["HEAD /h"]))], vec![]);
    assert_eq!(Ask::new(None, "HEAD /h").of(&only), "allow head");
    assert_eq!(Ask::new(None, "GET /h").of(&only), "token_missing");
}

#[test]
fn the_first_rule_in_the_file_that_permits_is_the_one_recorded() {
    let policy = compile(
        vec![
            named("narrow", rule(&["group:x"], &["GET /a/b"])),
            named("wide", rule(&["anyone"], &["GET /**", "GET /a/*"])),
            named("exact", rule(&["anyone"], &["GET /a/b"])),
        ],
        vec![],
    );
    check(&policy, &person("ana", &[]), "GET /a/b", "allow wide");
    check(&policy, &person("ana", &["x"]), "GET /a/b", "allow narrow");
}

#[test]
fn an_agent_needs_both_permissions() {
    let policy = compile(
        vec![
            named("people", rule(&["group:support"], &["GET /orders/**", "GET /both"])),
            named("bots", rule(&["agent:report-bot"], &["GET /orders/**", "GET /bots"])),
            named("public", rule(&["anyone"], &["GET /public"])),
            named("signed in", rule(&["signed-in"], &["GET /both"])),
        ],
        vec![],
    );
    let ana = || person("ana", &["support"]);
    check(&policy, &through_agent(ana(), "report-bot"), "GET /orders/1", "allow people");
    check(&policy, &through_agent(ana(), "other-bot"), "GET /orders/1", "agent_not_permitted people");
    check(&policy, &through_agent(ana(), "report-bot"), "GET /both", "agent_not_permitted people");
    check(&policy, &through_agent(person("bo", &[]), "report-bot"), "GET /orders/1", "no_rule_matched");
    check(&policy, &through_agent(ana(), "report-bot"), "GET /bots", "no_rule_matched");
    check(&policy, &through_agent(ana(), "other-bot"), "GET /public", "allow public");
    check(&policy, &principal(Kind::Agent, "entra", "report-bot"), "GET /bots", "allow bots");
    let permit = Ask::new(&through_agent(ana(), "report-bot"), "GET /orders/1").with(|input| policy.decide(input));
    let Verdict::Permit(permit) = permit.verdict else { panic!("{permit:?}") };
    assert_eq!(permit.agent_rule().unwrap().name, "orders/bots");
}

#[test]
fn an_agent_clause_narrows_a_rule_to_those_agents_and_permits_them() {
    let only = RuleSource { agent: texts(&["report-bot"]), ..rule(&["group:support"], &["GET /orders/**"]) };
    let policy = compile(vec![named("through", only)], vec![]);
    let ana = || person("ana", &["support"]);
    check(&policy, &through_agent(ana(), "report-bot"), "GET /orders/1", "allow through");
    check(&policy, &through_agent(ana(), "other-bot"), "GET /orders/1", "no_rule_matched");
    check(&policy, &ana(), "GET /orders/1", "no_rule_matched");
    check(&policy, &through_agent(person("bo", &[]), "report-bot"), "GET /orders/1", "no_rule_matched");
    check(&policy, &principal(Kind::Agent, "entra", "report-bot"), "GET /orders/1", "no_rule_matched");
}

#[test]
fn never_sees_the_agent_and_the_person() {
    let policy = compile(
        vec![named("all", rule(&["anyone"], &["* /**"]))],
        vec![
            named("agents never delete", rule(&["agent:*"], &["DELETE /**"])),
            named("no finance", rule(&["group:finance"], &["POST /**"])),
        ],
    );
    let ana = through_agent(person("ana", &["finance"]), "report-bot");
    check(&policy, &ana, "GET /a", "allow all");
    check(&policy, &ana, "DELETE /a", "never_matched agents never delete");
    check(&policy, &ana, "POST /a", "never_matched no finance");
    check(&policy, &principal(Kind::Agent, "entra", "b"), "DELETE /a", "never_matched agents never delete");
    check(&policy, &person("ana", &[]), "DELETE /a", "allow all");
}

#[test]
fn step_up_is_asked_only_when_everything_else_holds() {
    let refund =
        RuleSource { fresh_s: Some(300), hardware_key: true, ..rule(&["group:leads"], &["POST /orders/*/refund"]) };
    let policy = compile(
        vec![named("refund", refund), named("pass", RuleSource { passkey: true, ..rule(&["signed-in"], &["GET /p"]) })],
        vec![],
    );
    let lead = || person("ana", &["leads"]);
    let post = "POST /orders/1/refund";
    check(&policy, &lead(), post, "step-up refund");
    check(&policy, &person("bo", &[]), post, "no_rule_matched");
    check(&policy, &touched(lead(), 300, true), post, "allow refund");
    check(&policy, &touched(lead(), 301, true), post, "step-up refund");
    check(&policy, &touched(lead(), 10, false), post, "step-up refund");
    check(&policy, &touched(lead(), -5, true), post, "allow refund");
    check(&policy, &touched(lead(), -6, true), post, "step-up refund");
    check(&policy, &touched(lead(), 90_000, false), "GET /p", "allow pass");
    check(&policy, &lead(), "GET /p", "step-up pass");
    let Verdict::StepUp(demand) = Ask::new(&lead(), post).with(|input| policy.decide(input)).verdict else { panic!() };
    assert_eq!((demand.max_age_s, demand.acr_values), (Some(300), vec!["phrh".into()]));
}

#[test]
fn an_authentication_context_is_the_issuers_word_and_asked_for_first() {
    let strong = RuleSource { acr: texts(&["c1", "c2"]), ..rule(&["group:leads", "role:job"], &["POST /a"]) };
    let both = RuleSource { acr: texts(&["c1"]), fresh_s: Some(60), ..rule(&["group:leads"], &["POST /b"]) };
    let policy = compile(vec![named("strong", strong), named("both", both)], vec![]);
    let met = |contexts: &[&str], asking: Asking| {
        let assurance = Assurance { contexts: names(contexts).collect(), asking, ..Assurance::default() };
        Principal { assurance, ..person("ana", &["leads"]) }
    };
    check(&policy, &met(&[], Asking::Acr), "POST /a", "step-up strong");
    check(&policy, &met(&["c3", "C1", "c"], Asking::Claims), "POST /a", "step-up strong");
    check(&policy, &met(&["c3", "c2"], Asking::Claims), "POST /a", "allow strong");
    check(&policy, &person("bo", &[]), "POST /a", "no_rule_matched");
    let job = Principal { roles: Membership::complete(names(&["job"])), ..principal(Kind::Workload, "ci", "job") };
    check(&policy, &job, "POST /a", "no_rule_matched");
    // The token's own `acr` counts only where the issuer's kind makes it a context.
    let acr = Assurance { acr: Some("c1".into()), ..Assurance::default() };
    check(&policy, &Principal { assurance: acr, ..person("ana", &["leads"]) }, "POST /a", "step-up strong");

    let demand =
        |principal: &Principal, request: &str| match Ask::new(principal, request).with(|i| policy.decide(i)).verdict {
            Verdict::StepUp(demand) => (demand.max_age_s, demand.acr_values.join(" "), demand.asking),
            other => panic!("{other:?}"),
        };
    assert_eq!(demand(&met(&[], Asking::Claims), "POST /a"), (None, "c1 c2".to_owned(), Asking::Claims));
    assert_eq!(demand(&met(&[], Asking::Never), "POST /b"), (None, "c1".to_owned(), Asking::Never));
    // A passkey is for us to ask for, whatever issuer it is.
    assert_eq!(demand(&met(&["c1"], Asking::Claims), "POST /b"), (Some(60), "phr".to_owned(), Asking::Acr));
}

#[test]
fn a_permit_without_step_up_wins_and_programs_are_never_asked() {
    let policy = compile(
        vec![
            named("strong", RuleSource { passkey: true, ..rule(&["group:leads", "role:job"], &["GET /a", "GET /b"]) }),
            named("plain", rule(&["group:leads"], &["GET /a"])),
        ],
        vec![],
    );
    check(&policy, &person("ana", &["leads"]), "GET /a", "allow plain");
    check(&policy, &person("ana", &["leads"]), "GET /b", "step-up strong");
    let job = Principal { roles: Membership::complete(names(&["job"])), ..principal(Kind::Workload, "ci", "job") };
    check(&policy, &job, "GET /b", "no_rule_matched");
}

#[test]
fn shadow_rules_are_told_and_not_enforced() {
    let shadow = |rule: RuleSource| RuleSource { shadow: true, ..rule };
    let policy = compile(
        vec![
            named("read", rule(&["signed-in"], &["GET /a"])),
            named("would allow", shadow(rule(&["group:x"], &["GET /a", "GET /**"]))),
        ],
        vec![named("would refuse", shadow(rule(&["group:y"], &["GET /a"])))],
    );
    let shadows = |principal: &Principal, request: &str| {
        let decision = Ask::new(principal, request).with(|input| policy.decide(input));
        decision.shadow.iter().map(|rule| rule.name.clone()).collect::<Vec<_>>()
    };
    check(&policy, &person("ana", &["y"]), "GET /a", "allow read");
    check(&policy, &person("ana", &["x"]), "GET /b", "no_rule_matched");
    assert_eq!(shadows(&person("ana", &["x", "y"]), "GET /a"), ["orders/would refuse", "orders/would allow"]);
    assert_eq!(shadows(&person("ana", &["x"]), "GET /b"), ["orders/would allow"]);
    assert!(shadows(&person("ana", &[]), "GET /a").is_empty());
}

#[test]
fn a_permit_says_service_rule_scope_route_and_token_kind() {
    let policy = compile(
        vec![
            named("read", rule(&["anyone"], &["GET,POST /orders/**", "* /b"])),
            named("once", RuleSource { txn_per_request: true, ..rule(&["anyone"], &["GET /once"]) }),
        ],
        vec![],
    );
    let permit = |request: &str| match Ask::new(None, request).with(|input| policy.decide(input)).verdict {
        Verdict::Permit(permit) => permit,
        other => panic!("{other:?}"),
    };
    let read = permit("HEAD /orders/1");
    assert_eq!((&**read.service(), &**read.scope(), read.per_request()), ("orders", "orders.read", false));
    assert_eq!(&**read.route(), "orders:GET,POST /orders/**");
    assert_eq!((read.rule().name.as_str(), read.rule().place.line), ("orders/read", 7));
    assert_eq!(&**permit("POST /orders/1").scope(), "orders.write");
    assert_eq!(&**permit("DELETE /b").route(), "orders:* /b");
    assert!(permit("GET /once").per_request());
}
