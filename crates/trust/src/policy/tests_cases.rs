//! `tests:` entries: what they can say, how they fail, and which mistakes in them are problems at load.

use super::tests_world::*;
use super::*;

fn test(as_: &str, try_: &str, expect: &str) -> TestSource {
    TestSource { as_: as_.to_owned(), try_: try_.to_owned(), expect: expect.to_owned(), ..TestSource::default() }
}

fn from(peer: &str, test: TestSource) -> TestSource {
    TestSource { from: Some(peer.to_owned()), ..test }
}

fn by(rule: &str, test: TestSource) -> TestSource {
    TestSource { by: Some(rule.to_owned()), ..test }
}

fn orders(tests: Vec<TestSource>) -> ServiceSource {
    let named = |name: &str, rule: RuleSource| RuleSource { name: name.to_owned(), ..rule };
    let web = RuleSource { from: texts(&["/shop/web"]), ..rule(&["group:support"], &["GET /internal/**"]) };
    let refund = RuleSource {
        hardware_key: true,
        when: Some("context.request.params.amount <= 500".to_owned()),
        ..rule(&["group:leads"], &["POST /orders/*/refund"])
    };
    let rules = vec![
        named("support reads", rule(&["group:support", "role:auditor"], &["GET /orders/**"])),
        named("web reads", web),
        named("refunds", refund),
        named("bot reads", rule(&["agent:report-bot", "workload:/shop/web"], &["GET /orders/**"])),
        named("approvals", RuleSource { acr: texts(&["c1"]), ..rule(&["group:support"], &["POST /orders/*/approve"]) }),
        named("ana", rule(&["user:entra|ana"], &["PUT /orders/*"])),
    ];
    let never = vec![named("agents never delete", rule(&["agent:*"], &["DELETE /**"]))];
    ServiceSource { tests, ..service(rules, never) }
}

fn run(test: TestSource) -> TestOutcome {
    let policy = match ServicePolicy::compile(&orders(vec![test])) {
        Ok(policy) => policy,
        Err(problems) => panic!("{problems:#?}"),
    };
    policy.run_tests().remove(0)
}

#[track_caller]
fn check(test: TestSource) {
    let outcome = run(test);
    assert!(outcome.passed, "{outcome:?}");
}

#[test]
fn callers_of_every_kind() {
    check(by("support reads", test("ana@support", "GET /orders/42", "allow")));
    check(by("support reads", test("bo@finance,support", "HEAD /orders/42", "allow")));
    check(test("bo@finance", "GET /orders/42", "deny"));
    check(test("bo@?", "GET /orders/42", "deny"));
    check(test("bo@support,?", "GET /orders/42", "allow"));
    check(test("anyone", "GET /orders/42", "deny"));
    check(test("eve role:auditor", "GET /orders/42", "allow"));
    check(test("eve scope:auditor", "GET /orders/42", "deny"));
    check(by("bot reads", test("workload:/shop/web/v2", "GET /orders/42", "allow")));
    check(test("workload:/shop/webhook", "GET /orders/42", "deny"));
    check(test("workload:ci|build role:auditor", "GET /orders/42", "allow"));
    check(by("bot reads", test("agent:report-bot", "GET /orders/42", "allow")));
    check(by("support reads", test("agent:report-bot for ana@support", "GET /orders/42", "allow")));
    check(test("agent:other for ana@support", "GET /orders/42", "deny"));
    check(by("agents never delete", test("agent:x for ana@support", "DELETE /orders/42", "deny")));
    check(test("entra|ana", "PUT /orders/1", "allow"));
    check(test("ana", "PUT /orders/1", "deny"));
}

#[test]
fn peers_step_up_and_queries() {
    check(from("/shop/web", test("ana@support", "GET /internal/x", "allow")));
    check(from("spiffe://acme.example/shop/web", test("ana@support", "GET /internal/x", "allow")));
    check(test("ana@support", "GET /internal/x", "deny"));
    check(from("edge", test("workload:/shop/web", "GET /orders/1", "allow")));
    check(by("refunds", test("ana@leads", "POST /orders/1/refund?amount=5", "step-up")));
    check(test("ana@leads with passkey", "POST /orders/1/refund?amount=5", "step-up"));
    check(test("ana@leads with hardware-key", "POST /orders/1/refund?amount=5", "allow"));
    check(test("ana@leads with hardware-key", "POST /orders/1/refund?amount=501", "deny"));
    check(test("ana@support", "POST /orders/1/approve", "step-up"));
    check(test("ana@support acr:c2", "POST /orders/1/approve", "step-up"));
    check(test("ana@support acr:c2,c1 with passkey", "POST /orders/1/approve", "allow"));
}

#[test]
fn a_failing_test_says_what_was_expected_and_what_came() {
    let outcome = run(by("bot reads", test("ana@support", "GET /orders/42", "allow")));
    assert!(!outcome.passed);
    assert_eq!(outcome.title, "ana@support from edge: GET /orders/42");
    assert_eq!(outcome.expected, "allow by bot reads");
    assert_eq!(outcome.got, "allow by support reads");
    let outcome = run(test("bo@finance", "GET /orders/42", "allow"));
    assert_eq!((outcome.passed, outcome.got.as_str()), (false, "deny (no_rule_matched)"));
    let outcome = run(test("agent:b", "DELETE /orders/42", "step-up"));
    assert_eq!(outcome.got, "deny (never_matched) by agents never delete");
}

#[test]
fn mistakes_in_tests_are_problems_at_load() {
    let check = |test: TestSource, field: &str, part: &str| {
        let problems = ServicePolicy::compile(&orders(vec![test])).err().unwrap_or_default();
        let fits = problems.len() == 1
            && (problems[0].list, problems[0].field) == ("tests", field)
            && problems[0].what.contains(part);
        assert!(fits, "{field} {part}: {problems:#?}");
    };
    check(test("", "GET /a", "deny"), "as", "is no caller");
    check(test("ana with sword", "GET /a", "deny"), "as", "is no caller");
    check(test("ana with", "GET /a", "deny"), "as", "is no caller");
    check(test("ana bo", "GET /a", "deny"), "as", "is no caller");
    check(test("group:support", "GET /a", "deny"), "as", "is no caller");
    check(test("workload:", "GET /a", "deny"), "as", "is no caller");
    check(test("workload:/shop/", "GET /a", "deny"), "as", "is no caller");
    check(test("agent: for ana", "GET /a", "deny"), "as", "is no caller");
    check(test("ana", "GET", "deny"), "try", "is no request");
    check(test("ana", "GET,POST /a", "deny"), "try", "no single HTTP method");
    check(test("ana", "GET /a/../../b", "deny"), "try", "refused before any rule");
    check(test("ana", "GET /a", "maybe"), "expect", "is no verdict");
    check(from("web", test("ana", "GET /a", "deny")), "from", "no calling workload");
    check(by("nobody", test("ana", "GET /a", "deny")), "by", "no rule is named `nobody`");
    check(by("agents never delete", test("ana", "GET /a", "allow")), "by", "it cannot allow");
    let all = TestSource { from: Some("web".to_owned()), by: Some("x".to_owned()), ..test("", "GET", "maybe") };
    let problems = ServicePolicy::compile(&orders(vec![all])).err().unwrap_or_default();
    assert_eq!(problems.iter().map(|p| p.field).collect::<Vec<_>>(), ["as", "from", "try", "expect", "by"]);
}
