//! From a decoded service file to a `feed::Service`: limits, exposure, and the rules handed to the policy compiler, whose
//! problems are given their line and column here.
use super::browsers;
use super::decode::{At, Decode, OneOrMany};
use super::issuer::sender_constrained;
use super::load::FailingTests;
use super::numbers::{HOUR, MIB, MINUTE, SECOND, TIB, interval, size};
use super::problem::Span;
use super::service::{
    AuditWord, AuthorizationWord, ExposeSection, ModeWord, RuleSection, ServiceFile, TestSection, TolerateSection,
    TxnWord, WebSocketSection, WebSocketValue, WebSocketWord,
};
use super::settings::Context;
use super::upstream::{self, is_host};
use super::wide::warn_of_rules;
use super::yaml::{Node, Value};
use feed::Expose;
use std::sync::Arc;
use std::time::Duration;
use trust::issuer::Profile;
use trust::path::{Pattern, Tolerance};
use trust::policy::{Place, Problem as RuleProblem, RuleSource, ServicePolicy, ServiceSource, TestSource};
use trust::spiffe::check_trust_domain;

/// Origins of one service whose pages may open a WebSocket.
const ORIGINS_MAX: usize = 64;

/// A service as far as it could be built, and what the checks across files need.
pub struct Building {
    /// `None` after a problem.
    pub service: Option<feed::Service>,
    pub rules: ServiceSource,
    pub name: Option<(String, Span)>,
    /// Host, path pattern and place of every `expose`.
    pub places: Vec<(String, String, Span)>,
}

/// What the platform file means for its services.
pub struct Platform<'a> {
    pub trust_domain: &'a str,
    /// `None` after a problem with any of them.
    pub issuers: Option<&'a [Arc<Profile>]>,
    pub failing: FailingTests,
    /// Proxies ask here, so a service need not say where it runs.
    pub others_forward: bool,
}

pub fn build(node: &Node, platform: &Platform<'_>, context: &mut Context<'_, '_>) -> Option<Building> {
    let problems_before = context.to.problems.len();
    let file = ServiceFile::decode(node, &mut context.to)?;
    let name = file.service.0.as_ref().map(|at| (at.value.clone(), at.at));
    check_name(&file, context);
    check_workload(&file, context);
    let (expose, places) = expose(&file, context);
    if expose.is_empty() && file.expose.is_none() {
        let at = name.as_ref().map_or(node.at, |(_, at)| *at);
        let what = "no `expose`: no request can reach this service in this version";
        let warning = context.to.source.problem(at, what, "add `expose: { host: …, path: … }`").warning();
        context.to.problems.push(warning);
    }
    if file.upstream.is_none() && !platform.others_forward {
        let fix = "add `upstream: http://host:port`; it may be left out only where others forward, who ask first (`authz`, \
                   `token_endpoint`)";
        context.to.report(node.at, "no `upstream`: the edge would not know where to forward to", fix);
    }
    // `None` where it had a problem, which was reported.
    let upstream = match &file.upstream {
        Some(named) => upstream::upstream(named, context).map(Some),
        None => Some(None),
    };
    let limits = file.limits.clone().unwrap_or_default();
    let body_bytes_max = size(limits.body.as_ref(), 16 * MIB, 0..=TIB, &mut context.to);
    let ms = Duration::from_millis(10);
    let request_timeout = interval(limits.request_timeout.as_ref(), MINUTE, ms..=24 * HOUR, &mut context.to);
    let txn_reuse = interval(file.txn_reuse.as_ref(), 10 * SECOND, Duration::ZERO..=MINUTE, &mut context.to);
    let websocket = websocket(file.websocket.as_ref(), context);
    let tolerance = tolerance(file.tolerate.as_ref());
    let (rules, complete) = source(&file, platform.trust_domain, tolerance, context);
    let policy = policy(node, &rules, complete, platform.failing, context);
    if let Some(issuers) = platform.issuers {
        warn_of_rules(&file, issuers, &mut context.to);
    }
    let cors = file.cors.as_ref().and_then(|section| browsers::cors(section, context));
    let sender_constrained = sender_constrained(file.sender_constrained.as_ref());
    let resource = file.resource_metadata.as_ref().and_then(|section| {
        let issuers = platform.issuers.unwrap_or_default();
        let around = browsers::Around { service: &rules.service, expose: &expose, issuers };
        browsers::resource(section, &around, context)
    });
    let broken = context.to.problems.iter().skip(problems_before).any(super::Problem::is_error);
    let service = match (upstream, policy) {
        (Some(upstream), Some(policy)) if !broken => Some(feed::Service {
            name: rules.service.as_str().into(),
            upstream,
            expose,
            policy,
            tolerance,
            body_bytes_max,
            request_timeout,
            strict: file.audit.as_ref().is_some_and(|at| at.value == AuditWord::Strict),
            authorization: match file.authorization.as_ref().map(|at| at.value) {
                Some(AuthorizationWord::Pass) => feed::Authorization::Pass,
                Some(AuthorizationWord::Strip) | None => feed::Authorization::Strip,
            },
            sender_constrained,
            txn_reuse,
            cors: cors.map(Box::new),
            resource: resource.map(Box::new),
            websocket,
        }),
        _ => None,
    };
    Some(Building { service, rules, name, places })
}

fn websocket(value: Option<&At<WebSocketValue>>, context: &mut Context<'_, '_>) -> Option<feed::WebSocket> {
    let section = match value.map(|at| &at.value) {
        Some(WebSocketValue::Word(WebSocketWord::Deny)) => return None,
        Some(WebSocketValue::Settings(section)) => section.clone(),
        Some(WebSocketValue::Word(WebSocketWord::Allow)) | None => WebSocketSection::default(),
    };
    let idle_timeout = interval(section.idle_timeout.as_ref(), HOUR, SECOND..=7 * 24 * HOUR, &mut context.to);
    let mut origins = Vec::new();
    for At { value, at } in section.origins.iter().flat_map(|origins| &origins.0) {
        match wire::websocket::Origin::parse(value) {
            Ok(origin) => origins.push(origin.to_string()),
            Err(error) => {
                context.to.report(
                    *at,
                    format!("`{value}` is no origin"),
                    format!("{error}, e.g. `https://app.acme.example`"),
                );
            }
        }
        if origins.len() > ORIGINS_MAX {
            context.to.report(*at, format!("more than {ORIGINS_MAX} origins"), "list those that open WebSockets here");
            break;
        }
    }
    Some(feed::WebSocket { origins, idle_timeout })
}

/// The name stands in Txn-Token scopes, metrics labels and records.
fn check_name(file: &ServiceFile, context: &mut Context<'_, '_>) {
    let Some(At { value, at }) = &file.service.0 else { return };
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if value.len() > 63 || !value.bytes().all(allowed) {
        context.to.report(*at, format!("`{value}` is no service name"), "use 1 to 63 of `a-z 0-9 -`, e.g. `orders`");
    }
}

fn check_workload(file: &ServiceFile, context: &mut Context<'_, '_>) {
    let Some(At { value, at }) = &file.workload else { return };
    if let Err(error) = trust::spiffe::check_path(value) {
        context.to.report(*at, format!("`{value}` is no workload path: {error}"), "e.g. `/shop/orders`");
    }
}

fn expose(file: &ServiceFile, context: &mut Context<'_, '_>) -> (Vec<Expose>, Vec<(String, String, Span)>) {
    let none = OneOrMany(Vec::new());
    let mut exposed = Vec::new();
    let mut places = Vec::new();
    for At { value, at } in &file.expose.as_ref().unwrap_or(&none).0 {
        let Some(one) = expose_one(value, context) else { continue };
        places.push((one.host.clone(), one.path.as_str().to_owned(), *at));
        exposed.push(one);
    }
    (exposed, places)
}

fn expose_one(section: &ExposeSection, context: &mut Context<'_, '_>) -> Option<Expose> {
    let host = section.host.0.as_ref().map(|At { value, at }| {
        let good = value == "*" || is_host(value) || value.parse::<std::net::IpAddr>().is_ok();
        if !good {
            let fix = match value.rsplit_once(':') {
                Some((name, port)) if port.parse::<u16>().is_ok() => {
                    format!("write `{name}`; the port is the listener's")
                }
                _ => "a host name such as `shop.acme.example`, or `\"*\"` for any".to_owned(),
            };
            context.to.report(*at, format!("`{value}` is no host name"), fix);
        }
        good.then(|| value.to_ascii_lowercase())
    });
    let text = section.path.as_ref().map_or("/**", |at| at.value.as_str());
    let path = Pattern::parse(text).map_err(|error| {
        if let Some(At { value, at }) = &section.path {
            let fix = "e.g. `/orders/**`: `*` is one segment, a last `**` any number";
            context.to.report(*at, format!("`{value}` is no path pattern: {error}"), fix);
        }
    });
    Some(Expose { host: host??, path: path.ok()? })
}

fn tolerance(section: Option<&TolerateSection>) -> Tolerance {
    let Some(section) = section else { return Tolerance::default() };
    let on = |field: &Option<At<bool>>| field.as_ref().is_some_and(|at| at.value);
    Tolerance {
        encoded_slash: on(&section.encoded_slash),
        path_parameters: on(&section.path_parameters),
        empty_segments: on(&section.empty_segments),
        trailing_dots: on(&section.trailing_dots),
    }
}

/// Is everything the compiler will see what the author wrote?
#[derive(Clone, Copy, PartialEq, Eq)]
enum Complete {
    Yes,
    /// A rule or test lacks a field that had a problem; it was left out, so tests mean nothing.
    No,
}

fn source(
    file: &ServiceFile,
    domain: &str,
    tolerance: Tolerance,
    context: &Context<'_, '_>,
) -> (ServiceSource, Complete) {
    let place = |at: Span| Place { file: context.to.source.place.clone(), line: at.line, column: at.column };
    let list = |rules: &Option<Vec<At<RuleSection>>>| -> Vec<Option<RuleSource>> {
        rules.iter().flatten().map(|at| rule(&at.value, place(at.at))).collect()
    };
    let (rules, never) = (list(&file.rules), list(&file.never));
    let tests: Vec<_> = file.tests.iter().flatten().map(|at| test(&at.value, place(at.at))).collect();
    let complete = rules.iter().chain(&never).all(Option::is_some) && tests.iter().all(Option::is_some);
    let source = ServiceSource {
        service: file.service.0.as_ref().map(|at| at.value.clone()).unwrap_or_default(),
        trust_domain: domain.to_owned(),
        tolerance,
        rules: rules.into_iter().flatten().collect(),
        never: never.into_iter().flatten().collect(),
        tests: tests.into_iter().flatten().collect(),
    };
    (source, if complete { Complete::Yes } else { Complete::No })
}

fn rule(section: &RuleSection, place: Place) -> Option<RuleSource> {
    let texts = |many: &OneOrMany<At<String>>| many.0.iter().map(|at| at.value.clone()).collect::<Vec<_>>();
    let optional = |many: &Option<OneOrMany<At<String>>>| many.as_ref().map(texts).unwrap_or_default();
    let on = |field: &Option<At<bool>>| field.as_ref().is_some_and(|at| at.value);
    Some(RuleSource {
        name: section.name.0.as_ref()?.value.clone(),
        place,
        who: texts(section.who.0.as_ref()?),
        from: optional(&section.from),
        can: texts(section.can.0.as_ref()?),
        fresh_s: section.fresh.as_ref().map(|at| at.value.0.as_secs()),
        passkey: on(&section.passkey),
        hardware_key: on(&section.hardware_key),
        acr: optional(&section.acr),
        agent: optional(&section.agent),
        when: section.when.as_ref().map(|at| at.value.clone()),
        shadow: section.mode.as_ref().is_some_and(|at| at.value == ModeWord::Shadow),
        txn_per_request: section.txn.as_ref().is_some_and(|at| at.value == TxnWord::PerRequest),
    })
}

fn test(section: &TestSection, place: Place) -> Option<TestSource> {
    Some(TestSource {
        place,
        as_: section.r#as.0.as_ref()?.value.clone(),
        from: section.from.as_ref().map(|at| at.value.clone()),
        try_: section.r#try.0.as_ref()?.value.clone(),
        expect: section.expect.0.as_ref()?.value.clone(),
        by: section.by.as_ref().map(|at| at.value.clone()),
    })
}

/// Compiles, and runs the tests when everything they could touch is there.
fn policy(
    node: &Node,
    rules: &ServiceSource,
    complete: Complete,
    failing: FailingTests,
    context: &mut Context<'_, '_>,
) -> Option<ServicePolicy> {
    let policy = match complete {
        Complete::Yes => ServicePolicy::compile(rules),
        // Tests may name a rule that was left out; they are judged once the rules can be read.
        Complete::No => ServicePolicy::compile(&ServiceSource { tests: Vec::new(), ..rules.clone() }),
    };
    let policy = match policy {
        Ok(policy) => policy,
        Err(problems) => {
            let known = |problem: &RuleProblem| {
                // The name and the trust domain are judged where they stand, and reported there.
                problem.list == "service"
                    && (rules.service.is_empty() || check_trust_domain(&rules.trust_domain).is_err())
            };
            for problem in problems.into_iter().filter(|problem| !known(problem)) {
                let at = locate(node, rules, &problem);
                context.to.report(at, problem.what, problem.fix);
            }
            return None;
        }
    };
    if rules.rules.is_empty() && complete == Complete::Yes {
        let what = format!("no `rules`: every request to `{}` is denied", rules.service);
        context.to.problems.push(context.to.source.problem(node.at, what, "add a rule, or remove the file").warning());
    }
    if complete == Complete::Yes && failing == FailingTests::AreProblems && !rules.tests.is_empty() {
        for outcome in policy.run_tests().into_iter().filter(|outcome| !outcome.passed) {
            let at = Span { line: outcome.place.line, column: outcome.place.column, width: 1 };
            let what = format!("test `{}` fails: expected {}, got {}", outcome.title, outcome.expected, outcome.got);
            context.to.report(at, what, "mend the rule or the test; `countersign test` shows all of them");
        }
    }
    Some(policy)
}

/// The place of a compiler's problem: that very text of that very field, else the field, its rule, or the list.
fn locate(node: &Node, rules: &ServiceSource, problem: &RuleProblem) -> Span {
    let place = match problem.list {
        "rules" => rules.rules.get(problem.index).map(|rule| &rule.place),
        "never" => rules.never.get(problem.index).map(|rule| &rule.place),
        "tests" => rules.tests.get(problem.index).map(|test| &test.place),
        _ => None,
    };
    let list = node.get(problem.list);
    let item = list.and_then(|list| {
        let here = |item: &&Node| place.is_some_and(|p| p.line == item.at.line && p.column == item.at.column);
        list.items().iter().find(here)
    });
    let field = item.and_then(|item| item.get(problem.field));
    // The compiler quotes the text it stumbled over, or its kind (`groups:`), first.
    let quoted = problem.what.split('`').nth(1).filter(|quoted| !quoted.is_empty());
    let named =
        |text: &&Node| matches!((&text.value, quoted), (Value::Scalar { text, .. }, Some(q)) if text.starts_with(q));
    let text = field.and_then(|field| field.items().iter().find(named));
    text.or(field).or(item).or(list).or_else(|| node.get(problem.field)).unwrap_or(node).at
}
