//! What must hold for any input, one function per parser that meets hostile bytes. libFuzzer calls them with what it
//! invents, the test below with every input kept in `corpus/`. They never open a socket or a file themselves.
#![forbid(unsafe_code)]

mod access_token;
mod answer;
mod dpop;
mod ext_authz;
mod front;
mod grpc;
mod telemetry;
mod token_exchange;
mod txn;
mod websocket;
pub use access_token::access_token;
pub use answer::h1_answer;
pub use dpop::dpop;
pub use ext_authz::ext_authz;
pub use front::front;
pub use grpc::grpc;
pub use telemetry::telemetry;
pub use token_exchange::token_exchange;
pub use txn::txn;
pub use websocket::websocket;

use trust::jwk::{Algorithm, KeySet};
use trust::jws::Unverified;
use trust::path::{NormalPath, Pattern, Tolerance};
use trust::policy::{Input, Peer, RuleSource, ServicePolicy, ServiceSource, TestSource, Verdict};
use trust::principal::{Assurance, Kind, Membership, Principal};

/// A text that was never signed is never verified, and nothing in it makes the reader fail otherwise than by an error.
pub fn jws(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    drop(trust::token::Peeked::parse(text).map(|peeked| (peeked.iss().len(), peeked.kid().map(str::len))));
    if let Ok(unverified) = Unverified::parse(text, trust::token::BYTES_MAX) {
        assert!(Algorithm::ALL.iter().any(|known| *known == unverified.algorithm()));
        assert!(unverified.danger_unverified_payload().len() <= text.len());
        assert!(unverified.verify(&KeySet::from_keys(Vec::new()), &Algorithm::ALL).is_err(), "verified without a key");
    }
}

/// What the strict reader accepts, the lenient one reads as the same object; and writing it gives it back.
pub fn json(input: &[u8]) {
    if let Ok(object) = trust::json::object(input, 64 * 1024) {
        let value = serde_json::Value::Object(object);
        let lenient: Result<serde_json::Value, _> = serde_json::from_slice(input);
        assert_eq!(lenient.ok().as_ref(), Some(&value), "two readers disagree");
    }
}

/// A key set that is accepted has keys, and each key has a thumbprint and something it may check.
pub fn jwks(input: &[u8]) {
    if let Ok((keys, _left_out)) = KeySet::parse(input) {
        assert!(!keys.is_empty(), "an empty set was accepted");
        for key in keys.keys() {
            assert_eq!(key.thumbprint().len(), 43);
            for algorithm in key.algorithms() {
                assert!(!key.check(*algorithm, b"message", b""), "an empty signature fits");
            }
        }
    }
}

/// Normalising is idempotent, and what comes out cannot climb or hide a separator.
pub fn path(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    if let Ok(path) = NormalPath::parse(text, Tolerance::default()) {
        let normal = path.as_str();
        assert!(normal.starts_with('/') && !normal.contains("//"));
        assert!(normal.split('/').all(|segment| segment != "." && segment != ".."), "`{normal}` climbs");
        assert!(!normal.contains(['\\', ';', '\0', '?', '#', ' ']), "`{normal}` hides a separator");
        let again = NormalPath::parse(normal, Tolerance::default());
        assert_eq!(again.as_ref().map(NormalPath::as_str), Ok(normal), "not idempotent");
    }
    if let Ok(pattern) = Pattern::parse(text) {
        assert!(!pattern.as_str().is_empty());
    }
}

/// One clause per line (`who`, `from`, `can`, `agent`, `when`, then `who` of a `never`, a test's `as` and `try`, and a
/// query): any text compiles or is refused with problems that say what to do, a rule that asks for somebody permits nobody,
/// whom a `never` refuses nothing permits, and whatever compiled can be explained, tested and exported.
pub fn rules(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let mut lines = text.lines().map(str::to_owned);
    let mut list = || lines.next().filter(|line| !line.is_empty()).into_iter().collect::<Vec<_>>();
    let (who, from, can, agent, when) = (list(), list(), list(), list(), list().pop());
    let (never_who, as_, try_, query) = (list(), list().pop(), list().pop(), list().pop());
    let asks_for_somebody = !who.iter().any(|who| who.contains("anyone"));
    let never = RuleSource { name: "never".to_owned(), who: never_who, can: can.clone(), ..RuleSource::default() };
    let rule = RuleSource { name: "fuzzed".to_owned(), who, from, can, agent, when, ..RuleSource::default() };
    let test =
        as_.zip(try_).map(|(as_, try_)| TestSource { as_, try_, expect: "allow".to_owned(), ..TestSource::default() });
    let source = ServiceSource {
        service: "orders".to_owned(),
        trust_domain: "acme.example".to_owned(),
        rules: vec![rule],
        never: if never.who.is_empty() { Vec::new() } else { vec![never] },
        tests: test.into_iter().collect(),
        ..ServiceSource::default()
    };
    match ServicePolicy::compile(&source) {
        Err(problems) => {
            assert!(!problems.is_empty());
            assert!(problems.iter().all(|problem| !problem.what.is_empty() && !problem.fix.is_empty()));
        }
        Ok(policy) => {
            let query = query.as_deref();
            assert!(!(permits(&policy, None, query) && asks_for_somebody), "permitted without a principal");
            let refused = source.never.iter().any(|never| never.who.iter().any(|who| who == "signed-in"));
            assert!(!(permits(&policy, Some(&ana()), query) && refused), "permitted what never refuses");
            assert_eq!(policy.run_tests().len(), source.tests.len());
            assert!(!policy.to_cedar().is_empty());
        }
    }
}

fn permits(policy: &ServicePolicy, principal: Option<&Principal>, query: Option<&str>) -> bool {
    let Ok(path) = NormalPath::parse("/orders/42", Tolerance::default()) else { return false };
    let input = Input {
        principal,
        peer: Peer::Edge,
        method: "GET",
        path: &path,
        query,
        host: "shop.acme.example",
        client_ip: None,
        now: 1_800_000_000,
    };
    assert!(policy.explain(&input).rules.len() <= 8);
    matches!(policy.decide(&input).verdict, Verdict::Permit(_))
}

fn ana() -> Principal {
    Principal {
        kind: Kind::Person,
        subject: "entra|ana".into(),
        issuer: "entra".into(),
        id: "ana".into(),
        client: None,
        groups: Membership::partial(["support".into()]),
        roles: Membership::complete([]),
        scopes: Membership::complete([]),
        agent: None,
        assurance: Assurance::default(),
        expires_at: i64::MAX,
    }
}

/// A field that is accepted and written again is the same hop.
pub fn hop(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    if let Ok(hop) = wire::hop::Hop::parse(text) {
        assert!(hop.depth <= 16);
        assert_eq!(wire::hop::Hop::parse(&hop.to_field()), Ok(hop));
    }
}

/// A certificate that is taken for a workload's names it once, by a path under a trust domain.
pub fn svid(input: &[u8]) {
    if let Ok(id) = trust::svid::leaf_id(input) {
        assert!(id.path().len() > 1 && !id.trust_domain().is_empty());
        let found = input.windows(id.as_str().len()).any(|window| window == id.as_str().as_bytes());
        assert!(found, "an ID that does not stand in the certificate");
    }
    if let Ok(ends) = trust::svid::not_after(input) {
        // From the year 0 to the year 9999.
        assert!((-62_200_000_000..=253_402_300_799).contains(&ends), "a certificate ends at {ends}");
    }
}

/// The first byte chooses a split; the rest is what a client sends. Splits change neither the verdict nor what passes, and
/// what passes is a prefix of what came.
pub fn h1_guard(input: &[u8]) {
    let Some((&split, bytes)) = input.split_first() else { return };
    let whole = judged(std::iter::once(bytes));
    assert_eq!(whole, judged(bytes.chunks(usize::from(split).max(1))), "pieces of {split}");
    assert_eq!(whole, judged(bytes.chunks(1)), "single bytes");
    assert!(bytes.starts_with(&whole.0), "something passed that never came");
}

fn judged<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<u8>, Option<net::guard::Fault>, u64) {
    let limits = net::guard::GuardLimits { header_bytes_max: 512, header_fields_max: 8 };
    let mut machine = net::guard::Machine::new(limits);
    let mut passed = Vec::new();
    let mut fault = None;
    for piece in pieces {
        if let Err(found) = machine.feed(piece, &mut |bytes| passed.extend_from_slice(bytes)) {
            assert!(fault.is_none(), "a machine that stopped found another fault");
            fault = Some(found);
        }
        assert!(machine.held_bytes() <= 1024, "more is held than any line may have");
    }
    (passed, fault, machine.messages())
}

/// Any bytes as a platform file, and as a service file, load or are refused with problems that stand within the file, say
/// what to do and cannot act on a terminal.
pub fn config(input: &[u8]) {
    const PLATFORM: &str = "version: 1\ntrust_domain: a\nedge: { listen: 127.0.0.1:0 }\nservices: s/*\n";
    const SERVICE: &str = "service: a\nupstream: http://a\nexpose: { host: a }\n";
    // As YAML counts: CR ends a line too.
    let lines = String::from_utf8_lossy(input).replace("\r\n", "\n").split(['\r', '\n']).count();
    for (platform, service) in [(input, SERVICE.as_bytes()), (PLATFORM.as_bytes(), input)] {
        let files =
            countersign::config::Memory::default().with("c.yaml", platform, 0o640).with("s/a.yaml", service, 0o640);
        let problems = match countersign::config::load(std::path::Path::new("c.yaml"), &files) {
            Ok(loaded) => loaded.warnings,
            Err(problems) => {
                assert!(problems.errors() > 0, "refused without a reason");
                problems
            }
        };
        for problem in problems.iter() {
            assert!(!problem.what.is_empty() && !problem.fix.is_empty());
            assert!(problem.line as usize <= lines.max(4) + 1, "line {} of {lines}", problem.line);
            let shown = problem.render().replace("\u{1b}[", "");
            assert!(!shown.contains(|c: char| c.is_control() && c != '\n'), "a control character is shown");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    fn replay(target: &str, property: fn(&[u8])) {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
        let mut inputs = 0;
        for entry in std::fs::read_dir(&corpus).unwrap() {
            let file = entry.unwrap().path();
            let input = std::fs::read(&file).unwrap();
            // The file's name is the first thing needed when a property fails.
            let outcome = std::panic::catch_unwind(|| property(&input));
            assert!(outcome.is_ok(), "{} breaks the property of `{target}`", file.display());
            inputs += 1;
        }
        assert!(inputs > 0, "{} is empty", corpus.display());
    }

    #[test]
    fn the_h1_answer_corpus_replays() {
        replay("h1_answer", super::h1_answer);
    }

    #[test]
    fn the_h1_guard_corpus_replays() {
        replay("h1_guard", super::h1_guard);
    }

    #[test]
    fn the_jws_corpus_replays() {
        replay("jws", super::jws);
    }

    #[test]
    fn the_json_corpus_replays() {
        replay("json", super::json);
    }

    #[test]
    fn the_jwks_corpus_replays() {
        replay("jwks", super::jwks);
    }

    #[test]
    fn the_path_corpus_replays() {
        replay("path", super::path);
    }

    #[test]
    fn the_rules_corpus_replays() {
        replay("rules", super::rules);
    }

    #[test]
    fn the_ext_authz_corpus_replays() {
        replay("ext_authz", super::ext_authz);
    }

    #[test]
    fn the_hop_corpus_replays() {
        replay("hop", super::hop);
    }

    #[test]
    fn the_svid_corpus_replays() {
        replay("svid", super::svid);
    }

    #[test]
    fn the_config_corpus_replays() {
        replay("config", super::config);
    }

    #[test]
    fn the_access_token_corpus_replays() {
        replay("access_token", super::access_token);
    }

    #[test]
    fn the_front_corpus_replays() {
        replay("front", super::front);
    }

    #[test]
    fn the_grpc_corpus_replays() {
        replay("grpc", super::grpc);
    }

    #[test]
    fn the_dpop_corpus_replays() {
        replay("dpop", super::dpop);
    }

    #[test]
    fn the_telemetry_corpus_replays() {
        replay("telemetry", super::telemetry);
    }

    #[test]
    fn the_websocket_corpus_replays() {
        replay("websocket", super::websocket);
    }

    #[test]
    fn the_txn_corpus_replays() {
        replay("txn", super::txn);
    }
    #[test]
    fn the_token_exchange_corpus_replays() {
        replay("token_exchange", super::token_exchange);
    }
}
