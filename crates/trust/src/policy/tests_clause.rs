//! Every clause as text: what compiles, and which problem each mistake is.

use super::tests_world::*;
use super::*;
use crate::issuer::NameSet;

/// Compiles one allow rule; the problems come back as `field: what -> fix`.
fn problems_of(rule: RuleSource) -> Vec<String> {
    problems_in(vec![rule], vec![])
}

fn problems_in(rules: Vec<RuleSource>, never: Vec<RuleSource>) -> Vec<String> {
    let problems = ServicePolicy::compile(&service(rules, never)).err().unwrap_or_default();
    problems.into_iter().map(|p| format!("{}[{}].{}: {} -> {}", p.list, p.index, p.field, p.what, p.fix)).collect()
}

fn check_who(text: &str, part: &str) {
    check(problems_of(RuleSource { name: "r".to_owned(), ..rule(&[text], &["GET /a"]) }), "who", part, text);
}

fn check_can(text: &str, part: &str) {
    check(problems_of(RuleSource { name: "r".to_owned(), ..rule(&["anyone"], &[text]) }), "can", part, text);
}

fn check_from(text: &str, part: &str) {
    let from = texts(&[text]);
    check(problems_of(RuleSource { from, ..rule(&["anyone"], &["GET /a"]) }), "from", part, text);
}

/// `part` empty: no problem is expected; else exactly one, in `field`, holding `part`.
fn check(got: Vec<String>, field: &str, part: &str, text: &str) {
    if part.is_empty() {
        assert!(got.is_empty(), "{text}: {got:?}");
        return;
    }
    let fits = got.len() == 1 && got[0].starts_with(&format!("rules[0].{field}: ")) && got[0].contains(part);
    assert!(fits, "{text}: {got:#?}");
}

#[test]
fn acr_texts() {
    let of = |who: &str, acr: &str| {
        problems_of(RuleSource { acr: texts(&[acr]), name: "r".to_owned(), ..rule(&[who], &["GET /a"]) })
    };
    let urn = "urn:mace:incommon:iap:silver";
    for good in ["c1", " c99 ", urn, "phr", &"a".repeat(128)] {
        check(of("signed-in", good), "acr", "", good);
    }
    for bad in ["", " ", "c1 c2", "c\"1", "c\\1", "c\u{1}", "\u{e9}", &"a".repeat(129)] {
        check(of("signed-in", bad), "acr", "is no authentication context", bad);
    }
    check(of("anyone", "c1"), "acr", "`anyone` includes callers who have none", "anyone");
    check(of("workload:/a", "c1"), "acr", "matches nobody", "workload");
}

#[test]
fn who_texts() {
    for good in [
        "anyone",
        "signed-in",
        "user:entra|2f4c",
        "group:support",
        "group: support",
        "group:entra|support",
        "role:admin",
        "scope:orders.read",
        "scope:api://acme/.default",
        "workload:/shop/web",
        "workload:spiffe://acme.example/shop/web",
        "workload:ci|repo:acme/shop:ref:refs/heads/main",
        "workload:*",
        "agent:report-bot",
        "agent:*",
        "agent:entra|report-bot",
    ] {
        check_who(good, "");
    }
    check_who("support", "`support` names nobody");
    check_who("everyone", "write one of `anyone`");
    check_who("team:support", "`team:` is no kind of caller");
    check_who("user:ana", "write `user:<issuer>|ana`");
    check_who("user:*", "or write `signed-in`");
    check_who("group:", "has no name");
    check_who("group:|x", "has no name");
    check_who("group:*", "names every group");
    check_who("workload:web", "workload:/<path>");
    check_who("workload:/shop/", "no SPIFFE path");
    check_who("workload:/shop/*", "so `*` is not needed");
    check_who("workload:spiffe://Acme/x", "no SPIFFE ID");
    check_who("group:a\nb", "control character");
    check_who(&format!("group:{}", "x".repeat(600)), "bytes long");
}

#[test]
fn from_texts() {
    for good in ["edge", "/shop/web", "spiffe://other.example/shop/web"] {
        check_from(good, "");
    }
    check_from("web", "write `/web` if you mean");
    check_from("Edge", "write `/Edge` if you mean");
    check_from("", "write `edge`");
    check_from("/shop/../web", "no SPIFFE path");
    check_from("https://web", "no calling workload");
}

#[test]
fn can_texts() {
    for good in ["GET /orders/**", "GET,POST /orders", "* /", "GET /a · POST /b/*/c", "PROPFIND /dav/**"] {
        check_can(good, "");
    }
    check_can("/orders", "`GET /orders`, or `* /orders`");
    check_can("get /orders", "write `GET`: methods are case-sensitive");
    check_can("GET", "is not a method and a path");
    check_can("GET /a POST /b", "put ` · ` between two");
    check_can("GETT /a", "is not an HTTP method");
    check_can("GET, POST /a", "is not a method and a path");
    check_can("GET orders", "no path pattern");
    check_can("GET /a/**/b", "no path pattern");
    check_can("GET /a*", "no path pattern");
    check_can("PUBLISH orders.>", "not available on HTTP services in this version");
    check_can("CALL refund", "not available on HTTP services in this version");
    check_can("CONNECT", "not available on HTTP services in this version");
    check_can(&format!("GET {}", "/a".repeat(40)), "more than 32 segments");
}

#[test]
fn whose_word_a_text_takes() {
    let check = |who: &str, expected: Option<Vouched>| assert_eq!(Vouched::of(who), expected, "{who}");
    let any = |set, name: &str| Some(Vouched::ByAny { set, name: name.into() });
    let one = |issuer: &str| Some(Vouched::By { issuer: issuer.into() });
    check("group:support", any(NameSet::Groups, "support"));
    check("role: admin", any(NameSet::Roles, "admin"));
    check("scope:orders.read", any(NameSet::Scopes, "orders.read"));
    for who in
        ["group:entra|support", "role:entra|a", "scope:entra|a", "user:entra|2f4c", "workload:entra|x", "agent:entra|x"]
    {
        check(who, one("entra"));
    }
    for who in [
        "anyone",
        "signed-in",
        "agent:*",
        "agent:report-bot",
        "workload:/shop/web",
        "workload:spiffe://a/b",
        "group:",
        "x",
    ] {
        check(who, None);
    }
}

#[test]
fn every_problem_is_reported_at_once_with_its_place() {
    let broken =
        RuleSource { name: String::new(), from: texts(&["web"]), ..rule(&["bob", "group:"], &["get /a", "/b"]) };
    let got = problems_in(vec![rule(&["anyone"], &["GET /ok"]), broken], vec![rule(&["nobody"], &["* /**"])]);
    let fields: Vec<&str> = got.iter().filter_map(|text| text.split_once(": ").map(|(place, _)| place)).collect();
    let expected = [
        "never[0].who",
        "rules[1].who",
        "rules[1].who",
        "rules[1].from",
        "rules[1].can",
        "rules[1].can",
        "rules[1].name",
    ];
    assert_eq!(fields, expected, "{got:#?}");
}

#[test]
fn what_a_rule_must_say() {
    check(problems_of(RuleSource { who: vec![], ..rule(&["x"], &["GET /a"]) }), "who", "the rule names nobody", "");
    check(problems_of(RuleSource { can: vec![], ..rule(&["anyone"], &["x"]) }), "can", "covers no request", "");
    check(
        problems_of(RuleSource { name: " ".to_owned(), ..rule(&["anyone"], &["GET /a"]) }),
        "name",
        "has no name",
        "",
    );
    let twice = problems_in(vec![rule(&["anyone"], &["GET /a"])], vec![rule(&["anyone"], &["GET /a"])]);
    assert!(twice.iter().any(|text| text.starts_with("never[0].name") && text.contains("line 7")), "{twice:#?}");
}

#[test]
fn rules_that_can_match_nobody_are_problems() {
    let passkey = |who: &str| RuleSource { passkey: true, ..rule(&[who], &["GET /a"]) };
    check(problems_of(passkey("anyone")), "passkey", "write `who: signed-in`", "");
    check(problems_of(passkey("workload:/shop/web")), "passkey", "matches nobody", "");
    check(problems_of(passkey("signed-in")), "passkey", "", "");
    let fresh = |fresh_s| RuleSource { fresh_s: Some(fresh_s), ..rule(&["signed-in"], &["GET /a"]) };
    check(problems_of(fresh(0)), "fresh", "between `1s` and `30d`", "");
    check(problems_of(fresh(u64::MAX)), "fresh", "between `1s` and `30d`", "");
    check(problems_of(fresh(300)), "fresh", "", "");
    let walled = problems_in(vec![rule(&["signed-in"], &["DELETE /a/*"])], vec![rule(&["anyone"], &["DELETE /**"])]);
    check(walled, "can", "refuses it to anyone", "");
}

#[test]
fn never_refuses_clauses_that_mean_nothing_there() {
    let never = RuleSource {
        fresh_s: Some(5),
        passkey: true,
        hardware_key: true,
        acr: texts(&["c1"]),
        agent: texts(&["report-bot"]),
        txn_per_request: true,
        ..rule(&["agent:*"], &["DELETE /**"])
    };
    let got = problems_in(vec![], vec![never]);
    let fields: Vec<&str> = got.iter().filter_map(|text| text.split_once(": ").map(|(place, _)| place)).collect();
    let expected = [
        "never[0].fresh",
        "never[0].passkey",
        "never[0].hardware_key",
        "never[0].acr",
        "never[0].txn",
        "never[0].agent",
    ];
    assert_eq!(fields, expected);
}

#[test]
fn the_service_itself_is_checked() {
    let source = ServiceSource { trust_domain: "Acme".to_owned(), ..service(vec![], vec![]) };
    let problems = ServicePolicy::compile(&source).err().unwrap_or_default();
    assert!(problems.len() == 1 && problems[0].field == "trust_domain", "{problems:?}");
    assert!(ServicePolicy::compile(&ServiceSource::default()).is_err());
}

#[test]
fn only_groups_that_a_rule_mentions_are_mentioned() {
    let policy = compile(
        vec![rule(&["group:support", "role:admin"], &["GET /a"]), rule(&["group:entra|ops"], &["GET /b"])],
        vec![rule(&["group:support", "group:contractors"], &["DELETE /**"])],
    );
    let groups: Vec<&str> = policy.groups_mentioned().iter().map(|group| &**group).collect();
    assert_eq!(groups, ["contractors", "ops", "support"]);
}
