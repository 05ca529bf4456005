//! `when`: what loads, what it reads, and what a failing expression does to an allow rule and to a `never` rule.

use super::tests_world::*;
use super::*;
use crate::principal::{Assurance, Kind, Principal};

fn when(text: &str, rule: RuleSource) -> RuleSource {
    RuleSource { name: "r".to_owned(), when: Some(text.to_owned()), ..rule }
}

fn check_load(who: &str, text: &str, part: &str) {
    let source = service(vec![when(text, rule(&[who], &["* /**"]))], vec![]);
    let got = ServicePolicy::compile(&source).err().unwrap_or_default();
    if part.is_empty() {
        assert!(got.is_empty(), "{text}: {got:?}");
        return;
    }
    let fits = got.len() == 1 && got[0].field == "when" && format!("{} -> {}", got[0].what, got[0].fix).contains(part);
    assert!(fits, "{text}: {got:#?}");
}

/// The verdict for ana, in group support, over an allow rule with this expression.
fn check(text: &str, request: &str, expected: &str) {
    let policy = compile(vec![when(text, rule(&["anyone", "signed-in"], &["* /**"]))], vec![]);
    assert_eq!(Ask::new(&person("ana", &["support"]), request).of(&policy), expected, "{text} {request}");
}

#[test]
fn expressions_are_checked_at_load() {
    for good in [
        "context.request.params.amount <= 500",
        "context.request.method == \"POST\" && context.request.path like \"/orders/*\"",
        "context.principal.groups.contains(\"support\")",
        "context.principal has client && context.principal.client == \"spa\"",
        "context has agent && context.agent == \"report-bot\"",
        "context.client_ip.isInRange(ip(\"10.0.0.0/8\"))",
        "context.time > 1700000000",
        "context.request.params.price.lessThan(decimal(\"9.99\"))",
        "[\"eu\", \"us\"].contains(context.request.params.region)",
        "if context.request.params has dry_run then context.request.params.dry_run == true else true",
    ] {
        check_load("signed-in", good, "");
    }
    check_load("signed-in", "", "cannot be read");
    check_load("signed-in", "context.request.", "cannot be read");
    check_load("signed-in", "true } when { false", "cannot be read");
    check_load("signed-in", "true) }; permit(principal, action, resource", "cannot be read");
    check_load("signed-in", "context.request.verb == \"GET\"", "there is no `context.request.verb`");
    check_load("signed-in", "context.user == \"ana\"", "there is no `context.user`");
    check_load("signed-in", "principal == Caller::\"x\"", "`principal`, `action` or `resource`");
    check_load("signed-in", "context.request == context.request", "as a whole");
    check_load("signed-in", "context.request.params.amount", "does not type-check");
    check_load("signed-in", "context.time <= \"500\"", "does not type-check");
    check_load("signed-in", "context.principal.client == \"spa\"", "ask first for");
    check_load("signed-in", "context.agent == \"bot\"", "ask first for");
    check_load("anyone", "context.principal.id == \"ana\"", "ask first for");
    check_load("anyone", "context has principal && context.principal.id == \"ana\"", "");
    check_load("signed-in", "1 == 2", "can never be true");
    check_load("signed-in", "context.request.params.a == 1 || context.request.params.a == \"x\"", "is used as");
    check_load("signed-in", &format!("{}true", "true && ".repeat(300)), "bytes long");
    check_load("signed-in", &format!("{}true", "true && ".repeat(100)), "too many operators");
    check_load("signed-in", &format!("{}true{}", "(".repeat(30), ")".repeat(30)), "too deep");
}

#[test]
fn expressions_read_the_request_and_the_principal() {
    check("context.request.method == \"POST\"", "POST /a", "allow r");
    check("context.request.method == \"POST\"", "GET /a", "no_rule_matched");
    check("context.request.path like \"/orders/*\"", "GET /orders/1", "allow r");
    check("context.request.host == \"shop.acme.example\"", "GET /a", "allow r");
    check("context has principal && context.principal.groups.contains(\"support\")", "GET /a", "allow r");
    check("context has principal && context.principal.groups.contains(\"leads\")", "GET /a", "no_rule_matched");
    check("context has principal && context.principal.kind == \"person\"", "GET /a", "allow r");
    check("context has principal && context.principal.subject == \"entra|ana\"", "GET /a", "allow r");
    check("context has principal.client && context.principal.client == \"spa\"", "GET /a", "no_rule_matched");
    check("context.peer == \"edge\"", "GET /a", "allow r");
    check("context.time == 1800000000", "GET /a", "allow r");
    check("context.client_ip.isInRange(ip(\"203.0.113.0/24\"))", "GET /a", "allow r");
    check("context.client_ip.isInRange(ip(\"10.0.0.0/8\"))", "GET /a", "no_rule_matched");
    check("!(context has agent)", "GET /a", "allow r");
}

#[test]
fn a_parameter_that_is_missing_ill_typed_or_doubled_never_allows() {
    let limit = "context.request.params.amount <= 500";
    check(limit, "POST /r?amount=500", "allow r");
    check(limit, "POST /r?amount=501", "no_rule_matched");
    check(limit, "POST /r?x=1&amount=-3", "allow r");
    for query in
        ["", "?", "?amount=abc", "?amount=5&amount=9000", "?amount=5&Amount=9000", "?amount=5.0", "?amount%5B%5D=5"]
    {
        check(limit, &format!("POST /r{query}"), "policy_error r");
    }
    let guarded = "if context.request.params has amount then context.request.params.amount <= 500 else true";
    check(guarded, "POST /r", "allow r");
    check(guarded, "POST /r?amount=501", "no_rule_matched");
    check(guarded, "POST /r?AMOUNT=501", "policy_error r");
    check("context.request.params.amount * 9223372036854775807 > 0", "POST /r?amount=2", "policy_error r");
}

#[test]
fn a9_an_erroring_never_denies() {
    let never = RuleSource {
        name: "cap".to_owned(),
        ..when("context.request.params.amount > 500", rule(&["anyone"], &["POST /**"]))
    };
    let policy = compile(vec![RuleSource { name: "all".to_owned(), ..rule(&["anyone"], &["* /**"]) }], vec![never]);
    let ask = |request| Ask::new(None, request).of(&policy);
    assert_eq!(ask("POST /r?amount=5"), "allow all");
    assert_eq!(ask("POST /r?amount=501"), "never_matched cap");
    assert_eq!(ask("POST /r"), "policy_error cap");
    assert_eq!(ask("POST /r?amount=x"), "policy_error cap");
    assert_eq!(ask("GET /r"), "allow all");
}

#[test]
fn unknown_membership_is_an_error_in_an_expression() {
    let text = "context.principal.groups.contains(\"staff\")";
    let allow = compile(vec![when(text, rule(&["signed-in"], &["* /**"]))], vec![]);
    let unknown = person_of_unknown_groups("ana", &["staff"]);
    assert_eq!(Ask::new(&unknown, "GET /a").of(&allow), "policy_error r");
    let negated = RuleSource { name: "n".to_owned(), ..when(text, rule(&["signed-in"], &["GET /**"])) };
    let never = compile(vec![RuleSource { name: "all".to_owned(), ..rule(&["anyone"], &["* /**"]) }], vec![negated]);
    assert_eq!(Ask::new(&person_of_unknown_groups("bo", &[]), "GET /a").of(&never), "policy_error n");
    assert_eq!(Ask::new(&person("bo", &[]), "GET /a").of(&never), "allow all");
}

#[test]
fn a_failing_rule_does_not_hide_one_that_allows_or_asks_for_more() {
    let failing = |name: &str| RuleSource {
        name: name.to_owned(),
        ..when("context.request.params.amount <= 500", rule(&["signed-in"], &["POST /a", "POST /b"]))
    };
    let policy = compile(
        vec![
            failing("first"),
            RuleSource { name: "plain".to_owned(), ..rule(&["signed-in"], &["POST /a"]) },
            RuleSource { name: "touch".to_owned(), passkey: true, ..rule(&["signed-in"], &["POST /b"]) },
        ],
        vec![],
    );
    assert_eq!(Ask::new(&person("ana", &[]), "POST /a").of(&policy), "allow plain");
    assert_eq!(Ask::new(&person("ana", &[]), "POST /b").of(&policy), "step-up touch");
}

#[test]
fn step_up_is_not_asked_when_the_expression_is_false() {
    let source = RuleSource {
        passkey: true,
        ..when("context.request.params.amount <= 500", rule(&["signed-in"], &["POST /r"]))
    };
    let policy = compile(vec![source], vec![]);
    assert_eq!(Ask::new(&person("ana", &[]), "POST /r?amount=5").of(&policy), "step-up r");
    assert_eq!(Ask::new(&person("ana", &[]), "POST /r?amount=501").of(&policy), "no_rule_matched");
    assert_eq!(Ask::new(&person("ana", &[]), "POST /r").of(&policy), "policy_error r");
}

#[test]
fn optional_attributes_are_read_where_they_are_there() {
    let text = "context.principal has acr && context.principal.acr == \"phr\" && context.principal has auth_time && \
                context.time - context.principal.auth_time < 600";
    let policy = compile(vec![when(text, rule(&["signed-in"], &["* /**"]))], vec![]);
    let with = |acr: Option<&str>, auth_time| Principal {
        assurance: Assurance { acr: acr.map(Into::into), auth_time, ..Assurance::default() },
        ..person("ana", &[])
    };
    assert_eq!(Ask::new(&with(Some("phr"), Some(NOW - 10)), "GET /a").of(&policy), "allow r");
    assert_eq!(Ask::new(&with(Some("phr"), Some(NOW - 1000)), "GET /a").of(&policy), "no_rule_matched");
    assert_eq!(Ask::new(&with(None, Some(NOW)), "GET /a").of(&policy), "no_rule_matched");
    let bot =
        compile(vec![when("context has agent && context.agent == \"bot\"", rule(&["agent:*"], &["* /**"]))], vec![]);
    assert_eq!(Ask::new(&principal(Kind::Agent, "entra", "bot"), "GET /a").of(&bot), "allow r");
    assert_eq!(Ask::new(&principal(Kind::Agent, "entra", "cat"), "GET /a").of(&bot), "no_rule_matched");
}
