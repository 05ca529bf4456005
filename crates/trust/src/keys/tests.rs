//! The key engine in a fake world with a fake clock: every minute of a day in milliseconds.
use super::*;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use proptest::prelude::*;
use serde_json::{Value, json};

const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;

/// A fresh P-256 key under this kid.
fn jwk(kid: &str) -> Value {
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let point = pair.public_key().as_ref();
    let number = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    json!({"kty": "EC", "crv": "P-256", "kid": kid, "x": number(&point[1..33]), "y": number(&point[33..65])})
}

fn jwk_once() -> Value {
    static JWK: std::sync::OnceLock<Value> = std::sync::OnceLock::new();
    JWK.get_or_init(|| jwk("once")).clone()
}

/// How the fake issuer answers.
#[derive(Clone)]
enum Provider {
    Keys(Vec<Value>),
    Status(u16),
    Body(Vec<u8>),
    Down,
    /// Takes the question and says nothing until told.
    Silent,
}

struct World {
    machine: Machine,
    now: Now,
    provider: Provider,
    cache_control: &'static str,
    etag: Option<&'static str>,
    fetches_ms: Vec<i64>,
    etags_sent: Vec<Option<String>>,
    in_flight: bool,
    answers: Vec<(u64, Outcome)>,
    notices: Vec<Notice>,
    asked: u64,
}

impl World {
    fn new(provider: Provider) -> World {
        World {
            machine: Machine::new(Limits::default()),
            now: Now { monotonic_ms: 5_000, unix_s: 1_800_000_000, random: 7 },
            provider,
            cache_control: "max-age=600",
            etag: None,
            fetches_ms: Vec::new(),
            etags_sent: Vec::new(),
            in_flight: false,
            answers: Vec::new(),
            notices: Vec::new(),
            asked: 0,
        }
    }

    fn started(provider: Provider) -> World {
        let mut world = World::new(provider);
        world.event(Event::Start);
        world
    }

    /// One event; a fetch is answered 20 ms later, unless the provider is silent.
    fn event(&mut self, event: Event<'_>) {
        let effects = self.machine.handle(self.now, event);
        self.answers.extend(effects.answers);
        self.notices.extend(effects.notices);
        if let Some(fetch) = effects.fetch {
            assert!(!self.in_flight, "one fetch at a time");
            self.in_flight = true;
            self.fetches_ms.push(self.now.monotonic_ms);
            self.etags_sent.push(fetch.etag);
            if !matches!(self.provider, Provider::Silent) {
                self.pass(20);
                self.answer();
            }
        }
    }

    fn answer(&mut self) {
        assert!(std::mem::take(&mut self.in_flight), "a fetch is in flight");
        let provider = self.provider.clone();
        let (status, body) = match &provider {
            Provider::Keys(keys) => (200, json!({"keys": keys}).to_string().into_bytes()),
            Provider::Body(body) => (200, body.clone()),
            Provider::Status(status) => (*status, Vec::new()),
            Provider::Down | Provider::Silent => return self.event(Event::Answered(Answer::Failed("refused"))),
        };
        let freshness = Freshness::read(self.cache_control, "");
        self.event(Event::Answered(Answer::Http { status, freshness, etag: self.etag, body: &body }));
    }

    fn pass(&mut self, ms: i64) {
        let whole = self.now.monotonic_ms.div_euclid(1000);
        self.now.monotonic_ms += ms;
        self.now.unix_s += self.now.monotonic_ms.div_euclid(1000) - whole;
        self.now.random =
            self.now.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    }

    /// Lets time go by, waking the machine whenever it wants.
    fn run(&mut self, ms: i64) {
        let end = self.now.monotonic_ms + ms;
        for _ in 0..10_000 {
            match self.machine.wake_at_ms().filter(|wake| *wake <= end) {
                Some(wake) => {
                    self.pass((wake - self.now.monotonic_ms).max(0));
                    self.event(Event::Timer);
                }
                None => return self.pass((end - self.now.monotonic_ms).max(0)),
            }
        }
        panic!("the machine spins");
    }

    fn ask(&mut self, kid: impl Into<Option<&'static str>>) -> Option<Outcome> {
        self.asked += 1;
        let waiter = self.asked;
        self.event(Event::UnknownKid { waiter, kid: kid.into() });
        self.outcome(waiter)
    }

    fn bad_signature(&mut self, kid: &'static str) -> Option<Outcome> {
        self.asked += 1;
        let waiter = self.asked;
        self.event(Event::SignatureBad { waiter, kid: Some(kid) });
        self.outcome(waiter)
    }

    fn outcome(&self, waiter: u64) -> Option<Outcome> {
        let all: Vec<_> = self.answers.iter().filter(|(id, _)| *id == waiter).collect();
        assert!(all.len() <= 1, "answered twice");
        all.first().map(|(_, outcome)| *outcome)
    }

    fn kids(&self) -> Vec<String> {
        let keys = self.machine.keys();
        keys.set.keys().iter().map(|key| key.kid().unwrap_or("-").to_owned()).collect()
    }

    fn state(&self) -> State {
        self.machine.report(self.now).state
    }

    /// Most fetches in any minute.
    fn fetches_per_minute(&self) -> usize {
        let within = |start: &i64| self.fetches_ms.iter().filter(|at| (*start..*start + MINUTE).contains(at)).count();
        self.fetches_ms.iter().map(within).max().unwrap_or(0)
    }
}

fn throttled(outcome: Option<Outcome>) -> bool {
    matches!(outcome, Some(Outcome::Throttled { next_allowed_ms }) if next_allowed_ms > 0)
}

#[test]
fn api_39_rotation_with_the_old_key_dropped_costs_one_fetch() {
    let mut world = World::started(Provider::Keys(vec![jwk("old")]));
    assert_eq!((world.kids(), world.machine.keys().version), (vec!["old".into()], 1));
    world.run(MINUTE);
    world.provider = Provider::Silent;
    for waiter in 1000..1500 {
        world.event(Event::UnknownKid { waiter, kid: Some("new") });
    }
    assert!(world.answers.is_empty(), "all wait for one fetch");
    world.provider = Provider::Keys(vec![jwk("new")]);
    world.pass(300);
    world.answer();
    assert_eq!(world.fetches_ms.len(), 2, "the first one and one for the rotation");
    assert!((1000..1500).all(|waiter| world.outcome(waiter) == Some(Outcome::Refreshed)));
    assert_eq!(world.kids(), ["new", "old"], "the old key lives on for its grace");
    assert_eq!(world.machine.keys().version, 2);
    assert_eq!(world.ask("new"), Some(Outcome::Refreshed));
    assert_eq!(world.fetches_ms.len(), 2);
}

#[test]
fn api_39_who_asks_while_an_older_answer_is_under_way_gets_one_more_fetch() {
    let mut world = World::started(Provider::Keys(vec![jwk("old")]));
    world.run(2 * MINUTE);
    world.provider = Provider::Silent;
    world.ask("first");
    world.pass(100);
    world.ask("rotated-just-now");
    // The answer is from before the rotation.
    world.in_flight = false;
    let body = json!({"keys": [jwk("old")]}).to_string();
    let stale = Answer::Http { status: 200, freshness: Freshness::Silent, etag: None, body: body.as_bytes() };
    world.event(Event::Answered(stale));
    assert_eq!(world.outcome(1), Some(Outcome::Refreshed), "asked before the fetch: told to look, in vain");
    assert_eq!((world.outcome(2), world.fetches_ms.len()), (None, 3));
    world.provider = Provider::Keys(vec![jwk("rotated-just-now")]);
    world.answer();
    assert_eq!(world.outcome(2), Some(Outcome::Refreshed));
    assert!(world.kids().contains(&"rotated-just-now".to_owned()));
}

/// Two thousand invented kids a second for a minute and a half, with a real rotation in the middle.
#[test]
fn api_40_random_kids_cost_at_most_three_fetches_a_minute_and_no_memory() {
    let mut world = World::started(Provider::Keys(vec![jwk("old")]));
    let mut most = (0, 0);
    for half_ms in 0..180_000_u64 {
        if half_ms % 2 == 0 {
            world.pass(1);
        }
        if world.machine.wake_at_ms().is_some_and(|wake| wake <= world.now.monotonic_ms) {
            world.event(Event::Timer);
        }
        if half_ms == 90_000 {
            world.provider = Provider::Keys(vec![jwk("new")]);
        }
        let kid = format!("random-{half_ms}");
        world.event(Event::UnknownKid { waiter: half_ms, kid: Some(&kid) });
        if half_ms % 1000 == 0 {
            let report = world.machine.report(world.now);
            most = (most.0.max(report.in_vain), most.1.max(report.waiting));
        }
        assert_eq!(world.answers.len() as u64, half_ms + 1, "every one is answered at once");
    }
    assert!(world.fetches_per_minute() <= 3, "{:?}", world.fetches_ms);
    assert!(most.0 <= 1024 && most.1 <= 1024, "{most:?}");
    assert_eq!(world.kids(), ["new", "old"], "the rotation came through, nothing valid was lost");
}

#[test]
fn api_40_a_flood_is_refused_without_waking_the_engine_until_the_budget_is_back() {
    let mut world = World::started(Provider::Keys(vec![jwk("a")]));
    world.run(2 * MINUTE);
    assert_eq!(world.machine.refusing_until(world.now), None);
    world.ask("x1");
    world.ask("x2");
    let (outcome, until) = world.machine.refusing_until(world.now).unwrap();
    assert!(throttled(Some(outcome)));
    assert!(throttled(world.ask("x3")));
    world.pass(until - world.now.monotonic_ms);
    assert_eq!(world.machine.refusing_until(world.now), None);
    assert_eq!(world.ask("x3"), Some(Outcome::Refreshed));
}

#[test]
fn api_41_kids_of_any_shape_are_bounded_too() {
    let mut world = World::started(Provider::Keys(vec![jwk("a")]));
    world.run(2 * MINUTE);
    let long: &'static str = Box::leak("k".repeat(KID_BYTES_MAX + 1).into_boxed_str());
    assert!(throttled(world.ask(long)));
    assert_eq!(world.fetches_ms.len(), 1, "a kid that long is nobody's");
    assert_eq!(world.ask(None), Some(Outcome::Refreshed), "looked once for tokens without a kid");
    for _ in 0..1000 {
        assert!(throttled(world.ask(None)));
        assert!(throttled(world.ask(long)));
    }
    assert_eq!(world.ask("x"), Some(Outcome::Refreshed), "the second fetch of the burst");
    for kid in ["x", "", "y", "\u{0}", "é"] {
        assert!(throttled(world.ask(kid)), "{kid:?}");
    }
    assert_eq!(world.fetches_ms.len(), 3);
}

#[test]
fn api_41_waiters_are_bounded_in_number_and_to_two_seconds() {
    let mut world = World::started(Provider::Keys(vec![jwk("a")]));
    world.provider = Provider::Silent;
    for waiter in 0..2000 {
        world.event(Event::UnknownKid { waiter, kid: Some("new") });
    }
    assert_eq!(world.answers.len(), 2000 - 1024);
    assert!(world.answers.iter().all(|(_, outcome)| throttled(Some(*outcome))));
    world.answers.clear();
    world.run(1_999);
    assert!(world.answers.is_empty());
    world.run(1);
    assert_eq!(world.answers.len(), 1024);
    assert!(world.answers.iter().all(|(_, outcome)| *outcome == Outcome::Unreachable));
    world.provider = Provider::Keys(vec![jwk("new")]);
    world.answer();
    assert!(world.kids().contains(&"new".to_owned()), "a late answer is still an answer");
}

#[test]
fn api_42_no_bad_answer_takes_the_place_of_a_good_one() {
    let huge = format!("{{\"keys\":[],\"filler\":\"{}\"}}", "x".repeat(10 << 20)).into_bytes();
    let body = |text: &str| Provider::Body(text.as_bytes().to_vec());
    let bad = [
        Provider::Status(500),
        Provider::Status(404),
        Provider::Status(429),
        Provider::Status(204),
        Provider::Down,
        body(""),
        body("{}"),
        body("[]"),
        body("null"),
        body(r#"{"keys":[]}"#),
        body(r#"{"keys":{}}"#),
        body(r#"{"keys":[{"kty":"oct","k":"c2VjcmV0"}]}"#),
        body(r#"{"keys":["#),
        body("<html>Please sign in</html>"),
        Provider::Body(vec![0xff; 100]),
        Provider::Body(huge),
    ];
    let mut world = World::started(Provider::Keys(vec![jwk_once()]));
    let version = world.machine.keys().version;
    for provider in bad {
        world.provider = provider;
        let before = world.fetches_ms.len();
        world.run(20 * MINUTE);
        assert!(world.fetches_ms.len() > before, "it keeps trying");
        assert_eq!((world.kids(), world.machine.keys().version), (vec!["once".into()], version));
        assert_eq!(world.state(), State::Stale);
    }
    let began = world.notices.iter().filter(|notice| matches!(notice, Notice::OutageBegan { .. })).count();
    assert_eq!(began, 1, "told once, not at every retry");
    let error = world.machine.report(world.now).last_error.unwrap();
    assert!(!error.is_empty() && error.len() <= 300, "{error}");
    world.provider = Provider::Keys(vec![jwk_once()]);
    world.run(MINUTE);
    assert_eq!(world.state(), State::Fresh);
    assert!(matches!(world.notices.last(), Some(Notice::OutageEnded { .. })));
}

#[test]
fn api_42_keys_live_to_the_hard_limit_and_no_longer() {
    let mut world = World::started(Provider::Keys(vec![jwk("a"), jwk("b")]));
    world.provider = Provider::Down;
    world.run(24 * HOUR - 1_000);
    assert_eq!(world.kids(), ["a", "b"]);
    world.run(2_000);
    assert_eq!((world.kids().len(), world.state()), (0, State::Expired));
    assert!(world.notices.contains(&Notice::Expired));
    assert_eq!(world.machine.keys().version, 2);
    world.provider = Provider::Keys(vec![jwk("a")]);
    world.run(MINUTE);
    assert_eq!((world.kids(), world.state()), (vec!["a".into()], State::Fresh));
}

#[test]
fn api_43_a_kid_with_new_material_heals_within_one_fetch() {
    let mut world = World::started(Provider::Keys(vec![jwk("k")]));
    let old = world.machine.keys().set.keys()[0].thumbprint().to_owned();
    world.run(2 * MINUTE);
    world.provider = Provider::Keys(vec![jwk("k")]);
    assert_eq!(world.bad_signature("k"), Some(Outcome::Refreshed));
    assert_eq!(world.fetches_ms.len(), 2);
    assert_eq!(world.kids(), ["k"], "the old material is gone at once");
    assert_ne!(world.machine.keys().set.keys()[0].thumbprint(), old);
    assert!(world.notices.contains(&Notice::Replaced(vec!["k".into()])));
}

#[test]
fn api_43_forged_signatures_cost_little_and_never_the_last_fetch() {
    let keys = vec![jwk("k"), jwk("l")];
    let mut world = World::started(Provider::Keys(keys));
    world.run(2 * MINUTE);
    assert_eq!(world.bad_signature("k"), Some(Outcome::Refreshed), "one look");
    for _ in 0..1000 {
        assert!(throttled(world.bad_signature("k")), "known to be in vain");
        assert!(throttled(world.bad_signature("l")), "no budget");
    }
    assert_eq!(world.fetches_ms.len(), 2);
    world.provider = Provider::Keys(vec![jwk("new")]);
    assert_eq!(world.ask("new"), Some(Outcome::Refreshed), "a new key does not wait behind forgers");
    assert_eq!(world.fetches_ms.len(), 3);
    assert_eq!(world.bad_signature("gone-meanwhile"), Some(Outcome::Refreshed));
    assert_eq!(world.fetches_ms.len(), 3);
}

#[test]
fn api_44_a_withdrawn_key_ends_with_its_grace() {
    let (old, new) = (jwk("old"), jwk("new"));
    let mut world = World::started(Provider::Keys(vec![old.clone(), new.clone()]));
    world.provider = Provider::Keys(vec![new]);
    world.event(Event::Refresh);
    assert_eq!(world.kids(), ["new", "old"]);
    assert!(world.notices.contains(&Notice::Retired(vec!["old".into()])));
    let report = world.machine.report(world.now);
    assert!(report.keys[1].retired_at.is_some() && report.keys[0].retired_at.is_none());
    world.run(5 * MINUTE - 1_000);
    assert_eq!(world.kids(), ["new", "old"]);
    world.run(1_000);
    assert_eq!(world.kids(), ["new"]);
    assert!(world.notices.contains(&Notice::Dropped(vec!["old".into()])));
}

#[test]
fn api_44_a_key_that_comes_back_is_retired_no_more() {
    let (old, new) = (jwk("old"), jwk("new"));
    let mut world = World::started(Provider::Keys(vec![old.clone(), new.clone()]));
    world.provider = Provider::Keys(vec![new.clone()]);
    world.event(Event::Refresh);
    world.provider = Provider::Keys(vec![old, new]);
    world.event(Event::Refresh);
    world.run(HOUR);
    assert_eq!(world.kids(), ["old", "new"]);
    assert!(world.machine.report(world.now).keys.iter().all(|key| key.retired_at.is_none()));
}

#[test]
fn api_44_grace_zero_and_an_operators_kill_act_at_once() {
    let (old, new) = (jwk("old"), jwk("new"));
    let mut world = World::new(Provider::Keys(vec![old.clone(), new.clone()]));
    world.machine = Machine::new(Limits { retire_grace_ms: 0, ..Limits::default() });
    world.event(Event::Start);
    world.provider = Provider::Keys(vec![new.clone()]);
    world.event(Event::Refresh);
    assert_eq!(world.kids(), ["new"]);

    let mut world = World::started(Provider::Keys(vec![old, new]));
    world.event(Event::Kill { kid: "old" });
    assert_eq!(world.kids(), ["new"]);
    world.run(3 * HOUR);
    assert_eq!(world.ask("old"), Some(Outcome::Refreshed));
    assert_eq!(world.kids(), ["new"], "it stays out, although the issuer still publishes it");
    assert_eq!(world.machine.killed().collect::<Vec<_>>(), ["old"]);
}

#[test]
fn api_45_odd_keys_are_left_out_one_by_one() {
    let mut encryption = jwk("enc");
    encryption["use"] = json!("enc");
    let keys = vec![
        json!({"kty": "AKP", "alg": "ML-DSA-44", "kid": "pq", "pub": "AAAA"}),
        json!({"kty": "EC", "crv": "P-999", "kid": "curve", "x": "AAAA", "y": "AAAA"}),
        json!({"kid": "nothing"}),
        jwk("good"),
        encryption,
    ];
    let mut world = World::started(Provider::Keys(keys));
    assert_eq!(world.kids(), ["good"]);
    let left_out = world.machine.report(world.now).left_out;
    assert_eq!(left_out.len(), 4, "{left_out:?}");
    world.run(3 * HOUR);
    let told = world.notices.iter().filter(|notice| matches!(notice, Notice::LeftOut(_))).count();
    assert_eq!(told, 1, "told once, not at every refresh");
    assert_eq!(world.machine.keys().version, 1, "the same answer makes no new version");
}

/// The spread of refresh times, in seconds, over many random draws.
fn check_refresh(cache_control: &'static str, least_s: i64, most_s: i64) {
    let mut seen = Vec::new();
    for random in 0..201 {
        let mut world = World::new(Provider::Silent);
        world.cache_control = cache_control;
        world.event(Event::Start);
        world.provider = Provider::Keys(vec![jwk_once()]);
        world.now.random = random;
        world.answer();
        seen.push(world.machine.report(world.now).next_refresh_s.unwrap());
    }
    let (min, max) = (*seen.iter().min().unwrap(), *seen.iter().max().unwrap());
    assert!(min >= least_s && max <= most_s && max > min, "{cache_control:?}: {min}..{max}");
}

#[test]
fn api_46_refreshes_come_before_the_soft_time_to_live_ends() {
    // 90 % of (soft ± 10 %).
    check_refresh("max-age=600", 485, 594);
    check_refresh("", 242, 297);
    check_refresh("max-age=0", 242, 297);
    check_refresh("max-age=31536000", 2915, 3564);
    check_refresh("max-age=99999999999999999999", 2915, 3564);
    check_refresh("no-cache", 48, 59);
    check_refresh("no-store, max-age=600", 48, 59);
}

#[test]
fn api_46_two_days_of_refreshes_are_conditional_and_change_nothing() {
    let mut world = World::new(Provider::Keys(vec![jwk("a")]));
    world.etag = Some("\"v1\"");
    world.event(Event::Start);
    world.provider = Provider::Status(304);
    world.run(48 * HOUR);
    let fetched = world.fetches_ms.len() - 1;
    assert!((290..=600).contains(&fetched), "{fetched}");
    assert!(world.etags_sent[1..].iter().all(|etag| etag.as_deref() == Some("\"v1\"")));
    assert_eq!((world.kids(), world.machine.keys().version), (vec!["a".into()], 1));
    assert!(world.now.unix_s - world.machine.keys().fetched_at.unwrap() < 700, "304 is a good answer");
    assert_eq!(world.machine.report(world.now).fetches_not_modified, fetched as u64);
}

#[test]
fn api_46_not_modified_without_anything_known_is_a_failure() {
    let mut world = World::started(Provider::Status(304));
    assert_eq!((world.state(), world.kids().len()), (State::Never, 0));
    world.provider = Provider::Keys(vec![jwk("a")]);
    world.run(MINUTE);
    assert_eq!(world.kids(), ["a"]);
    assert!(world.etags_sent.iter().all(Option::is_none));
}

#[test]
fn api_47_dead_at_start_backs_off_and_heals_alone() {
    let mut world = World::started(Provider::Down);
    assert_eq!((world.state(), world.kids().len(), world.machine.keys().fetched_at), (State::Never, 0, None));
    world.run(10 * MINUTE);
    let pauses: Vec<i64> = world.fetches_ms.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(pauses[0] >= 500 && pauses[0] <= 1_020, "{pauses:?}");
    assert!(pauses.iter().skip(7).all(|pause| (30_000..=60_020).contains(pause)), "{pauses:?}");
    for _ in 0..100 {
        assert_eq!(world.ask("any"), Some(Outcome::Unreachable), "a demand may try, and hears the truth");
    }
    world.provider = Provider::Keys(vec![jwk("a")]);
    world.run(MINUTE + 1_000);
    assert_eq!((world.kids(), world.state()), (vec!["a".into()], State::Fresh));
    assert!(world.notices.iter().any(|n| matches!(n, Notice::OutageEnded { lasted_ms } if *lasted_ms > 9 * MINUTE)));
}

#[test]
fn api_47_a_demand_during_the_first_fetch_waits_for_it() {
    let mut world = World::started(Provider::Silent);
    assert_eq!(world.ask("a"), None);
    world.provider = Provider::Keys(vec![jwk("a")]);
    world.answer();
    assert_eq!(world.outcome(1), Some(Outcome::Refreshed));
    assert_eq!(world.fetches_ms.len(), 1);
}

#[test]
fn api_47_keys_from_before_a_restart_are_used_within_the_hard_limit() {
    let body = json!({"keys": [jwk("kept")]}).to_string();
    let restore = |age_s: i64| {
        let mut world = World::new(Provider::Down);
        let fetched_at = world.now.unix_s - age_s;
        let restored = Restored { body: body.as_bytes(), etag: Some("\"e\""), fetched_at };
        let done = world.machine.restore(world.now, &restored);
        (world, done)
    };
    let (mut world, done) = restore(23 * 3600);
    assert_eq!((done, world.kids(), world.state()), (Ok(()), vec!["kept".into()], State::Stale));
    world.event(Event::Start);
    assert_eq!(world.etags_sent, [Some("\"e\"".to_owned())]);
    assert_eq!(world.kids(), ["kept"], "a dead issuer does not matter yet");
    world.run(HOUR + 1_000);
    assert_eq!(world.kids().len(), 0, "the hard limit counts from the answer, not from the restart");
    assert_eq!(restore(24 * 3600).1, Err(RestoreError::Age { age_s: 24 * 3600 }));
    assert_eq!(restore(-600).1, Err(RestoreError::Age { age_s: -600 }), "from the future");
    let mut world = World::new(Provider::Down);
    let nonsense = Restored { body: b"{}", etag: None, fetched_at: world.now.unix_s };
    assert!(matches!(world.machine.restore(world.now, &nonsense), Err(RestoreError::Document(_))));
}

#[test]
fn api_69_clock_jumps_cost_one_refresh_and_no_key() {
    for jump_s in [-10 * 365 * 86_400, -86_400, -600, 600, 86_400, 10 * 365 * 86_400, i64::MIN / 2, i64::MAX / 2] {
        let mut world = World::started(Provider::Keys(vec![jwk("a")]));
        world.run(MINUTE);
        world.provider = Provider::Silent;
        world.now.unix_s = world.now.unix_s.saturating_add(jump_s);
        world.event(Event::Timer);
        assert_eq!((world.kids(), world.fetches_ms.len()), (vec!["a".into()], 2), "{jump_s}");
        assert!(world.notices.iter().any(|notice| matches!(notice, Notice::ClockJumped { .. })));
        world.event(Event::Timer);
        assert_eq!(world.fetches_ms.len(), 2);
    }
    let mut world = World::started(Provider::Keys(vec![jwk("a")]));
    for drift_s in [45, -45, 45, -45] {
        world.now.unix_s += drift_s;
        world.event(Event::Timer);
    }
    assert_eq!(world.fetches_ms.len(), 1, "a clock that is set right a little is no jump");
    // Even a monotonic clock that runs backwards must not spin or panic.
    world.now.monotonic_ms -= HOUR;
    world.event(Event::Timer);
    world.run(2 * HOUR);
    assert_eq!(world.kids().len(), 1);
}

#[derive(Debug, Clone)]
enum Act {
    Pass(i64),
    Jump(i64),
    Ask(u8),
    Bad(u8),
    Good(u8),
    Fail,
    NotModified,
    Timer,
    Refresh,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        (0..200_000_i64).prop_map(Act::Pass),
        (-1_000_000..1_000_000_i64).prop_map(Act::Jump),
        (0..6_u8).prop_map(Act::Ask),
        (0..6_u8).prop_map(Act::Bad),
        (0..6_u8).prop_map(Act::Good),
        Just(Act::Fail),
        Just(Act::NotModified),
        Just(Act::Timer),
        Just(Act::Refresh),
    ]
}

proptest! {
    /// Whatever happens in whatever order: one fetch at a time, every waiter answered once, versions only grow, and keys
    /// never vanish while they are younger than the hard limit.
    #[test]
    fn any_order_of_events_keeps_the_promises(acts in proptest::collection::vec(act(), 1..80)) {
        let key = |n: u8| { let mut key = jwk_once(); key["kid"] = json!(n.to_string()); key };
        let mut world = World::started(Provider::Silent);
        let (mut asked, mut version, mut good_ms) = (0_u64, 0, None);
        for act in acts {
            let freshness = Freshness::Silent;
            match act {
                Act::Pass(ms) => world.pass(ms),
                Act::Jump(seconds) => world.now.unix_s += seconds,
                Act::Ask(kid) => {
                    asked += 1;
                    world.event(Event::UnknownKid { waiter: asked, kid: Some(&kid.to_string()) });
                }
                Act::Bad(kid) => {
                    asked += 1;
                    world.event(Event::SignatureBad { waiter: asked, kid: Some(&kid.to_string()) });
                }
                Act::Timer => world.event(Event::Timer),
                Act::Refresh => world.event(Event::Refresh),
                Act::Good(kid) => {
                    if std::mem::take(&mut world.in_flight) {
                        good_ms = Some(world.now.monotonic_ms);
                    }
                    let body = json!({"keys": [key(kid)]}).to_string();
                    world.event(Event::Answered(Answer::Http { status: 200, freshness, etag: None, body: body.as_bytes() }));
                }
                Act::NotModified => {
                    if std::mem::take(&mut world.in_flight) && good_ms.is_some() {
                        good_ms = Some(world.now.monotonic_ms);
                    }
                    world.event(Event::Answered(Answer::Http { status: 304, freshness, etag: None, body: b"" }));
                }
                Act::Fail => {
                    world.in_flight = false;
                    world.event(Event::Answered(Answer::Failed("down")));
                }
            }
            let now = world.machine.keys();
            prop_assert!(now.version >= version);
            version = now.version;
            let young = good_ms.is_some_and(|at| world.now.monotonic_ms < at + 24 * HOUR);
            prop_assert!(!young || !now.set.is_empty());
        }
        world.pass(2_000);
        world.event(Event::Timer);
        for waiter in 1..=asked {
            prop_assert!(world.outcome(waiter).is_some(), "waiter {waiter} was forgotten");
        }
    }
}
