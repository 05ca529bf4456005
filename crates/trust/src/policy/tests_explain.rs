//! The explanation of a refusal: order, bounds, and what each clause says has to change.

use super::tests_world::*;
use super::*;
use crate::principal::Principal;

fn named(name: &str, rule: RuleSource) -> RuleSource {
    RuleSource { name: name.to_owned(), ..rule }
}

/// Each rule as `name: clause=held …`.
fn told(policy: &ServicePolicy, ask: &Ask<'_>) -> Vec<String> {
    let explanation = ask.with(|input| policy.explain(input));
    let one = |rule: &RuleTrace| {
        let clauses: Vec<String> = rule.clauses.iter().map(|c| format!("{}={:?}", c.clause, c.held)).collect();
        format!("{}: {}", rule.rule.name, clauses.join(" "))
    };
    explanation.rules.iter().map(one).collect()
}

/// What `clause` of the first rule says has to change.
fn change(policy: &ServicePolicy, principal: Option<&Principal>, request: &str, clause: &str) -> String {
    let explanation = Ask::new(principal, request).with(|input| policy.explain(input));
    let found = explanation.rules[0].clauses.iter().find(|trace| trace.clause == clause).unwrap();
    found.change.clone().unwrap_or_default()
}

#[test]
fn the_nearest_rule_comes_first_and_says_what_is_missing() {
    let policy = compile(
        vec![
            named("far", RuleSource { from: texts(&["/shop/web"]), ..rule(&["group:leads"], &["GET /orders/**"]) }),
            named("near", rule(&["group:support"], &["GET /orders/**"])),
            named("elsewhere", rule(&["signed-in"], &["GET /users/**"])),
        ],
        vec![],
    );
    let bo = person("bo", &["finance"]);
    let got = told(&policy, &Ask::new(&bo, "GET /orders/42"));
    assert_eq!(got, ["orders/near: who=No from=Yes can=Yes", "orders/far: who=No from=No can=Yes"]);
    let needs = change(&policy, Some(&bo), "GET /orders/42", "who");
    assert_eq!(needs, "needs group:support; the token's groups are finance");
    let elsewhere = told(&policy, &Ask::new(&bo, "DELETE /orders/42"));
    assert_eq!(elsewhere[0], "orders/elsewhere: who=Yes from=Yes can=No");
    let text = change(&policy, Some(&bo), "DELETE /orders/42", "can");
    assert_eq!(text, "covers other requests; this one is DELETE /orders/42");
}

#[test]
fn each_clause_says_what_would_have_to_change() {
    let one = |source: RuleSource| compile(vec![named("r", source)], vec![]);
    let ana = person("ana", &[]);
    let check = |policy: &ServicePolicy, principal: Option<&Principal>, clause: &str, expected: &str| {
        assert_eq!(change(policy, principal, "GET /a", clause), expected);
    };
    check(&one(rule(&["group:x"], &["GET /a"])), None, "who", "needs group:x; the request carries no token");
    check(&one(rule(&["group:x"], &["GET /a"])), Some(&ana), "who", "needs group:x; the token's groups are none");
    let unknown = person_of_unknown_groups("ana", &["y"]);
    let expected = "needs group:x; the token's groups are y, and others the issuer left out";
    check(&one(rule(&["group:x"], &["GET /a"])), Some(&unknown), "who", expected);
    let expected = "needs user:entra|bo; the caller is the person entra|ana";
    check(&one(rule(&["user:entra|bo"], &["GET /a"])), Some(&ana), "who", expected);
    let expected = "needs group:other|x; the token's groups are none, the token's issuer is entra";
    check(&one(rule(&["group:other|x"], &["GET /a"])), Some(&ana), "who", expected);
    let web = RuleSource { from: texts(&["/shop/web"]), ..rule(&["anyone"], &["GET /a"]) };
    check(&one(web), None, "from", "needs /shop/web; the call came from edge");
    let agent = RuleSource { agent: texts(&["bot"]), ..rule(&["signed-in"], &["GET /a"]) };
    check(&one(agent), Some(&ana), "agent", "needs agent bot; no agent acts here");
    let context = RuleSource { acr: texts(&["c1", "c2"]), ..rule(&["signed-in"], &["GET /a"]) };
    let expected = "needs authentication context c1 or c2; the token says none";
    check(&one(context), Some(&ana), "acr", expected);
    let fresh = RuleSource { fresh_s: Some(60), hardware_key: true, ..rule(&["signed-in"], &["GET /a"]) };
    let expected = "needs a passkey touch at most 60 s old; no passkey was touched in this sign-in";
    check(&one(fresh.clone()), Some(&ana), "fresh", expected);
    let stale = touched(person("ana", &[]), 61, false);
    let expected = "needs a passkey touch at most 60 s old; the last touch was 61 s ago";
    check(&one(fresh.clone()), Some(&stale), "fresh", expected);
    check(&one(fresh), Some(&stale), "hardware_key", "needs a passkey that lives in attested hardware");
    let when = |text: &str| RuleSource { when: Some(text.to_owned()), ..rule(&["signed-in"], &["GET /a"]) };
    let limit = one(when("context.request.params.n < 5"));
    check(&limit, Some(&ana), "when", "the expression failed: the query has no parameter `n`");
    check(&limit, None, "when", "not evaluated, because `who` does not hold");
    check(&one(when("context.time < 5")), Some(&ana), "when", "the expression is false for this request");
}

#[test]
fn a_never_that_refuses_comes_first() {
    let policy = compile(
        vec![named("all", rule(&["anyone"], &["* /**"]))],
        vec![
            named("other", rule(&["group:y"], &["* /**"])),
            named("no contractors", rule(&["group:contractors"], &["* /**"])),
        ],
    );
    let contractor = person("ana", &["contractors"]);
    let got = told(&policy, &Ask::new(&contractor, "GET /a"));
    assert_eq!(got, ["orders/no contractors: who=Yes from=Yes can=Yes", "orders/all: who=Yes from=Yes can=Yes"]);
    let unknown = person_of_unknown_groups("ana", &[]);
    let text = change(&policy, Some(&unknown), "GET /a", "who");
    assert!(text.starts_with("refuses unless the issuer says the caller is not in group:y"), "{text}");
}

#[test]
fn an_agent_without_permission_is_named() {
    let policy = compile(vec![named("people", rule(&["group:support"], &["GET /a"]))], vec![]);
    let ana = through_agent(person("ana", &["support"]), "bot");
    let got = told(&policy, &Ask::new(&ana, "GET /a"));
    assert_eq!(got, ["orders/people: who=Yes who (agent)=No from=Yes can=Yes"]);
    let text = change(&policy, Some(&ana), "GET /a", "who (agent)");
    assert!(text.contains("`who: agent:bot`"), "{text}");
}

#[test]
fn explanations_are_bounded() {
    let many: Vec<RuleSource> = (0..50)
        .map(|n| {
            let groups: Vec<String> = (0..50).map(|g| format!("group:a-rather-long-group-name-{n}-{g}")).collect();
            RuleSource { name: format!("rule {n}"), who: groups, ..rule(&["x"], &["GET /**"]) }
        })
        .collect();
    let policy = compile(many, vec![]);
    let groups: Vec<String> = (0..500).map(|n| format!("some-group-{n}")).collect();
    let bo = person("bo", &groups.iter().map(String::as_str).collect::<Vec<_>>());
    let explanation = Ask::new(&bo, &format!("GET /{}", "x".repeat(4000))).with(|input| policy.explain(input));
    assert_eq!(explanation.rules.len(), 8);
    let bytes = serde_json::to_string(&explanation).unwrap().len();
    assert!(bytes < 16 * 1024, "{bytes}");
}
