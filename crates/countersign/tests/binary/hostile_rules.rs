//! Rules that contradict, fail, vanish or change under load, in the running binary: nothing is ever widened.
use crate::serving::{LIMIT, Serving, Setup};
use serde_json::{Value, json};
use testkit::client;
use testkit::issuer::Issuer;
use testkit::upstream::Upstream;

struct World {
    issuer: Issuer,
    upstream: Upstream,
    serving: Serving,
}

impl World {
    /// A service `probe` that anyone may ask, and these.
    fn start(services: &[(&str, &str)]) -> World {
        let (issuer, upstream) = (Issuer::start(), Upstream::start());
        let mut setup = Setup::new(&issuer.url(), &upstream.url());
        setup.services = vec![(
            "probe".into(),
            service("probe", &upstream, "rules:\n  - { name: all, who: anyone, can: \"GET /**\" }\n"),
        )];
        setup
            .services
            .extend(services.iter().map(|(name, rules)| ((*name).to_owned(), service(name, &upstream, rules))));
        let serving = setup.start();
        assert_eq!(serving.get("/probe/x", None).status, 200);
        World { issuer, upstream, serving }
    }

    fn token(&self, sub: &str, extra: &Value) -> String {
        self.issuer.token(sub, "acme", extra)
    }

    /// Denied for this reason, and never seen by the service.
    fn check_denied(&self, target: &str, extra: &Value, reason: &str) -> Value {
        let before = self.upstream.count();
        let record = self.serving.expect(&self.serving.get(target, Some(&self.token("ana", extra))), 403, reason);
        assert_eq!(self.upstream.count(), before, "{target} {extra}");
        record
    }

    fn check_allowed(&self, target: &str, extra: &Value) -> Value {
        self.serving.expect(&self.serving.get(target, Some(&self.token("ana", extra))), 200, "none")
    }

    fn status(&self, target: &str, token: &str) -> u16 {
        self.serving.get(target, Some(token)).status
    }

    fn service_file(&self, name: &str) -> std::path::PathBuf {
        self.serving.folder.path().join(format!("services/{name}.yaml"))
    }
}

/// A service under `/name/**`.
fn service(name: &str, upstream: &Upstream, rules: &str) -> String {
    format!("service: {name}\nupstream: \"{}\"\nexpose: {{ host: \"*\", path: /{name}/** }}\n{rules}", upstream.url())
}

fn groups(names: &[&str]) -> Value {
    json!({ "groups": names })
}

#[test]
fn a9_unknown_groups_never_allow_and_always_forbid() {
    let world = World::start(&[
        (
            "both",
            "rules:\n  - { name: support, who: \"group:support\", can: \"* /**\" }\n  - { name: people, who: signed-in, can: \"GET /**\" }\n\
                  never:\n  - { name: interns, who: \"group:interns\", can: \"* /**\" }\n",
        ),
        (
            "allow",
            "rules:\n  - { name: support, who: \"group:support\", can: \"* /**\" }\n  - { name: leads, who: \"group:leads\", can: \"* /**\" }\n",
        ),
    ]);
    world.check_allowed("/both/1", &groups(&["support"]));
    world.check_denied("/both/1", &groups(&["interns", "support"]), "never_matched");
    // Nobody knows whether she is an intern: the token says that the list was too long for it.
    let overage = json!({ "_claim_names": { "groups": "src1" }, "_claim_sources": { "src1": { "endpoint": "https://graph.example" } } });
    for unknown in [overage, json!({ "hasgroups": true }), json!({ "hasgroups": true, "groups": ["finance"] })] {
        let record = world.check_denied("/both/1", &unknown, "never_matched");
        assert_eq!(record["principal"]["groups_state"], "unknown", "{record:#}");
        world.check_denied("/allow/1", &unknown, "groups_unknown");
    }
    world.check_denied("/allow/1", &groups(&[]), "no_rule_matched");
}

#[test]
fn a9_a_failing_condition_never_allows_and_always_forbids() {
    let sum = "when: \"context.request.params.amount <= 500\"";
    let world = World::start(&[
        (
            "never",
            &format!(
                "rules:\n  - {{ name: people, who: signed-in, can: \"GET /**\" }}\nnever:\n  - {{ name: small sums, who: signed-in, can: \"GET /**\", {sum} }}\n"
            ),
        ),
        ("allow", &format!("rules:\n  - {{ name: small sums, who: signed-in, can: \"GET /**\", {sum} }}\n")),
    ]);
    world.check_allowed("/never/1?amount=501", &json!({}));
    world.check_denied("/never/1?amount=500", &json!({}), "never_matched");
    world.check_allowed("/allow/1?amount=500", &json!({}));
    world.check_denied("/allow/1?amount=501", &json!({}), "no_rule_matched");
    for query in ["", "?amount=many", "?amount=", "?amount=1&amount=501", "?amount=99999999999999999999"] {
        world.check_denied(&format!("/never/1{query}"), &json!({}), "policy_error");
        let before = world.upstream.count();
        let answer = world.serving.get(&format!("/allow/1{query}"), Some(&world.token("ana", &json!({}))));
        assert_eq!((answer.status, world.upstream.count()), (403, before), "{query}");
    }
}

#[test]
fn a9_a_service_without_rules_denies_everybody() {
    let world = World::start(&[("none", ""), ("empty", "rules: []\n")]);
    for target in ["/none/1", "/empty/1"] {
        world.check_denied(target, &groups(&["support", "admins"]), "no_rule_matched");
        world.serving.expect(&world.serving.get(target, None), 401, "token_missing");
    }
}

#[test]
fn a9_a_deleted_service_file_closes_its_routes_and_widens_nothing() {
    let world = World::start(&[
        ("gone", "rules:\n  - { name: people, who: signed-in, can: \"* /**\" }\n"),
        ("stays", "rules:\n  - { name: support, who: \"group:support\", can: \"* /**\" }\n"),
    ]);
    let token = world.token("ana", &json!({ "groups": [] }));
    assert_eq!(world.status("/gone/1", &token), 200);
    std::fs::remove_file(world.service_file("gone")).unwrap();
    testkit::wait_for("the route is closed", LIMIT, || world.status("/gone/1", &token) == 404);
    world.serving.expect(&world.serving.get("/gone/1", Some(&token)), 404, "no_route");
    world.serving.expect(&world.serving.get("/stays/1", Some(&token)), 403, "no_rule_matched");
    assert_eq!(world.serving.get("/probe/x", None).status, 200);
}

#[test]
fn a9_a_bad_file_on_reload_changes_nothing_and_is_logged() {
    let world = World::start(&[("orders", "rules:\n  - { name: support, who: \"group:support\", can: \"* /**\" }\n")]);
    world.check_allowed("/orders/1", &groups(&["support"]));
    for (bad, named) in [
        ("rules:\n  - { name: all, whom: anyone, can: \"* /**\" }\n", "unknown key `whom`"),
        (
            "rules:\n  - { name: all, who: anyone, can: \"* /**\" }\ntests:\n  - { as: anyone, try: GET /orders/1, expect: deny }\n",
            "services/orders.yaml:7",
        ),
        ("rules: [\n", "services/orders.yaml"),
    ] {
        let refusals = |text: String| text.matches("the configuration was not loaded again").count();
        let before = refusals(world.serving.process.stderr());
        std::fs::write(world.service_file("orders"), service("orders", &world.upstream, bad)).unwrap();
        testkit::wait_for("the log says so", LIMIT, || refusals(world.serving.process.stderr()) > before);
        assert!(world.serving.process.stderr().contains(named), "{named}: {}", world.serving.process.stderr());
        world.check_allowed("/orders/1", &groups(&["support"]));
        world.check_denied("/orders/1", &groups(&["finance"]), "no_rule_matched");
        world.serving.expect(&world.serving.get("/orders/1", None), 401, "token_missing");
    }
}

#[test]
fn a_rule_change_takes_effect_without_restart_and_without_a_failed_request() {
    let mut world =
        World::start(&[("orders", "rules:\n  - { name: support, who: \"group:support\", can: \"* /**\" }\n")]);
    let (support, finance) = (world.token("ana", &groups(&["support"])), world.token("bo", &groups(&["finance"])));
    assert_eq!((world.status("/orders/1", &support), world.status("/orders/1", &finance)), (200, 403));
    let done = std::sync::atomic::AtomicBool::new(false);
    let asked = std::thread::scope(|scope| {
        let (world, done, support) = (&world, &done, &support);
        let asking = scope.spawn(move || {
            let mut asked = 0;
            while !done.load(std::sync::atomic::Ordering::Relaxed) && asked < 5_000 {
                assert_eq!(world.status("/orders/1", support), 200);
                asked += 1;
            }
            asked
        });
        let file = world.service_file("orders");
        for (text, expected) in [("[\"group:support\", \"group:finance\"]", 200), ("\"group:support\"", 403)] {
            let rules = format!("rules:\n  - {{ name: new, who: {text}, can: \"* /**\" }}\n");
            std::fs::write(&file, service("orders", &world.upstream, &rules)).unwrap();
            testkit::wait_for("the rule holds", LIMIT, || world.status("/orders/1", &finance) == expected);
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        asking.join().unwrap()
    });
    assert!(asked > 0);
    assert!(world.serving.process.is_running());
}

#[test]
fn shadow_rules_are_recorded_and_not_enforced() {
    let world = World::start(&[(
        "orders",
        "rules:\n  - { name: support, who: \"group:support\", can: \"* /**\" }\n  - { name: finance soon, who: \"group:finance\", can: \"* /**\", mode: shadow }\n\
         never:\n  - { name: no more deletes, who: signed-in, can: \"DELETE /**\", mode: shadow }\n",
    )]);
    let record = world.check_denied("/orders/1", &groups(&["finance"]), "no_rule_matched");
    assert!(record["shadow"].to_string().contains("finance soon"), "{record:#}");
    let token = world.token("ana", &groups(&["support"]));
    let fields = [("host", "shop.acme.example"), ("authorization", &*format!("Bearer {token}"))];
    let deleted = client::request(world.serving.edge, "DELETE", "/orders/1", &fields, "");
    let record = world.serving.expect(&deleted, 200, "none");
    assert!(record["shadow"].to_string().contains("no more deletes"), "{record:#}");
    let record = world.check_allowed("/orders/1", &groups(&["support"]));
    assert!(!record["shadow"].to_string().contains("deletes"), "{record:#}");
}

#[test]
fn a11_two_thousand_subjects_hosts_and_paths_add_no_series() {
    let world = World::start(&[("orders", "rules:\n  - { name: people, who: signed-in, can: \"GET /**\" }\n")]);
    let ask = |n: usize| {
        let host = format!("host-{n}.example");
        let forged = format!(
            "Bearer {}",
            world.issuer.mint(&json!({ "kid": format!("k{n}") }), &world.issuer.claims("eve", "acme", &json!({})))
        );
        let bearer = format!(
            "Bearer {}",
            world.token(&format!("person-{n}"), &json!({ "jti": format!("t{n}"), "client_id": format!("client-{n}") }))
        );
        let mut statuses = vec![
            client::get(world.serving.edge, &format!("/orders/{n}/x"), &[("host", &host), ("authorization", &bearer)])
                .status,
        ];
        if n.is_multiple_of(5) {
            statuses.push(client::get(world.serving.edge, &format!("/nowhere-{n}"), &[("host", &host)]).status);
            statuses.push(
                client::get(
                    world.serving.edge,
                    &format!("/orders/{n}"),
                    &[("host", &host), ("authorization", &forged)],
                )
                .status,
            );
        }
        statuses
    };
    // One of each outcome first: what is bounded by names and reasons stands before it is counted.
    assert_eq!(ask(0), [200, 404, 401]);
    let series = || world.serving.metrics().lines().filter(|line| !line.starts_with('#')).count();
    let before = series();
    for n in 1..=2_000 {
        assert_eq!(ask(n)[0], 200);
    }
    let metrics = world.serving.metrics();
    assert!(series() <= before + 4, "{before} series grew to {}", series());
    assert!(!metrics.contains("person-") && !metrics.contains("host-1") && !metrics.contains("nowhere"), "{metrics}");
}
