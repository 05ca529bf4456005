//! Control against our own hostile issuer, over real sockets.
use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use feed::{Current, Desired, KeyDemand, KeyDemandOutcome};
use testkit::{Fault, Issuer, OldKeys, wait_for};
use trust::issuer::{Preset, Profile, Settings};
use trust::keys::{Limits, State};

use crate::{Control, Deadlines, IssuerReport, Options};

const LIMIT: Duration = Duration::from_secs(20);

fn settings(name: &str, issuer: &str) -> Settings {
    Settings {
        name: name.into(),
        preset: Preset::Generic,
        issuer: Some(issuer.to_owned()),
        audience: vec!["acme".to_owned()],
        ..Settings::default()
    }
}

fn desired(issuers: impl IntoIterator<Item = Settings>) -> Desired {
    let profile = |settings| match Profile::new(settings) {
        Ok(profile) => Arc::new(profile),
        Err(problems) => unreachable!("{problems:?}"),
    };
    Desired {
        trust_domain: "acme.example".into(),
        issuers: issuers.into_iter().map(profile).collect(),
        services: vec![],
        introspection: vec![],
        graph: vec![],
    }
}

/// Quick retries and deadlines; everything else as in production.
fn options() -> Options {
    Options {
        limits: Limits { backoff_min_ms: 20, backoff_max_ms: 100, ..Limits::default() },
        deadlines: Deadlines {
            connect: Duration::from_millis(500),
            total: Duration::from_millis(700),
            ..Deadlines::default()
        },
        ..Options::default()
    }
}

struct Running {
    control: Control,
    current: Current,
    runtime: tokio::runtime::Runtime,
}

impl Running {
    fn start(desired: Desired, options: Options) -> Running {
        let current = Current::new();
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        match (Control::start(desired, current.clone(), options), runtime) {
            (Ok(control), Ok(runtime)) => Running { control, current, runtime },
            _ => unreachable!("threads can be started"),
        }
    }

    /// Kids in the published snapshot.
    fn kids(&self, issuer: &str) -> BTreeSet<String> {
        let snapshot = self.current.load();
        let issuers = snapshot.iter().flat_map(|snapshot| snapshot.issuers.iter());
        let keys =
            issuers.filter(|line| &**line.profile.name() == issuer).flat_map(|line| line.keys.set.keys().to_vec());
        keys.filter_map(|key| key.kid().map(str::to_owned)).collect()
    }

    fn report(&self, issuer: &str) -> IssuerReport {
        match self.control.key_report().issuers.into_iter().find(|line| &*line.name == issuer) {
            Some(report) => report,
            None => unreachable!("`{issuer}` is configured"),
        }
    }

    fn ask(&self, issuer: &str, kid: &str) -> KeyDemandOutcome {
        self.runtime.block_on(self.control.keys().unknown_kid(issuer, Some(kid)))
    }

    #[track_caller]
    fn wait_kid(&self, issuer: &str, kid: &str) {
        wait_for(&format!("key {kid} of {issuer}"), LIMIT, || self.kids(issuer).contains(kid));
    }
}

fn one(issuer: &Issuer) -> Desired {
    desired([settings("idp", &issuer.url())])
}

#[test]
fn api_39_rotation_over_sockets_is_one_fetch_and_no_refusal() {
    let issuer = Issuer::start();
    let running = Running::start(one(&issuer), options());
    running.wait_kid("idp", &issuer.key().kid);
    assert_eq!((issuer.fetches(), issuer.discoveries()), (1, 1));
    let new = issuer.rotate(OldKeys::Drop);
    issuer.delay(Duration::from_millis(100));
    let keys = running.control.keys();
    let outcomes = running.runtime.block_on(async {
        let asks: Vec<_> = (0..300)
            .map(|_| {
                let (keys, kid) = (Arc::clone(&keys), new.kid.clone());
                async move { keys.unknown_kid("idp", Some(&kid)).await }
            })
            .collect();
        let mut tasks = tokio::task::JoinSet::new();
        let local = tokio::task::LocalSet::new();
        local
            .run_until(async {
                for ask in asks {
                    tasks.spawn_local(ask);
                }
                let mut outcomes = Vec::new();
                while let Some(Ok(outcome)) = tasks.join_next().await {
                    outcomes.push(outcome);
                }
                outcomes
            })
            .await
    });
    assert_eq!(outcomes, vec![KeyDemandOutcome::Refreshed; 300]);
    assert!(running.kids("idp").contains(&new.kid), "published before anybody was told to look");
    assert_eq!(issuer.fetches(), 2);
    assert_eq!(running.report("idp").kid_misses.refreshed, 300);
}

#[test]
fn api_40_random_kids_over_sockets_cost_at_most_three_fetches() {
    let issuer = Issuer::start();
    let running = Running::start(one(&issuer), options());
    running.wait_kid("idp", &issuer.key().kid);
    let began = Instant::now();
    for n in 0..20_000 {
        let outcome = running.ask("idp", &format!("random-{n}"));
        assert_ne!(outcome, KeyDemandOutcome::Unreachable);
    }
    assert!(began.elapsed() > Duration::from_secs(60) || issuer.fetches() <= 3, "{} fetches", issuer.fetches());
    assert!(running.kids("idp").contains(&issuer.key().kid));
    let report = running.report("idp");
    assert!(report.kid_misses.throttled >= 19_990, "{:?}", report.kid_misses);
    assert!(report.keys.in_vain <= 1024);
    assert_eq!(running.ask("nobody", "x"), KeyDemandOutcome::Unreachable);
}

#[test]
fn api_42_lying_and_dying_issuers_lose_no_key() {
    let issuer = Issuer::start();
    let running = Running::start(one(&issuer), options());
    let kid = issuer.key().kid.clone();
    running.wait_kid("idp", &kid);
    let faults = [
        Fault::Status(500),
        Fault::Html,
        Fault::EmptyKeys,
        Fault::Huge,
        Fault::Close,
        Fault::Redirect("http://127.0.0.1:9/jwks".to_owned()),
        Fault::Body("{\"keys\":[{\"kty\":\"AKP\"}]}".to_owned()),
        Fault::Hang,
        Fault::Slowloris,
    ];
    for fault in faults {
        issuer.misbehave(fault.clone());
        let failed = running.report("idp").keys.fetches_failed;
        running.control.keys().refresh("idp");
        wait_for(&format!("a failed fetch for {fault:?}"), LIMIT, || {
            running.report("idp").keys.fetches_failed > failed
        });
        assert!(running.kids("idp").contains(&kid), "{fault:?}");
    }
    issuer.down();
    let failed = running.report("idp").keys.fetches_failed;
    wait_for("a refused connection", LIMIT, || running.report("idp").keys.fetches_failed > failed);
    assert!(running.kids("idp").contains(&kid));
    assert!(running.report("idp").keys.last_error.is_some());
    issuer.misbehave(Fault::None);
    issuer.up();
    wait_for("recovery", LIMIT, || running.report("idp").keys.last_error.is_none());
    assert_eq!(running.report("idp").keys.version, 1, "nothing ever changed");
}

#[test]
fn api_46_an_unchanged_set_is_asked_for_with_its_etag() {
    let issuer = Issuer::start();
    issuer.etag(true);
    let running = Running::start(one(&issuer), options());
    running.wait_kid("idp", &issuer.key().kid);
    running.control.keys().refresh("idp");
    wait_for("a 304", LIMIT, || running.report("idp").keys.fetches_not_modified == 1);
    assert_eq!((issuer.not_modified(), running.report("idp").keys.state), (1, State::Fresh));
}

#[test]
fn api_47_an_issuer_down_at_start_delays_nothing_and_heals_alone() {
    let issuer = Issuer::start();
    issuer.down();
    let running = Running::start(one(&issuer), options());
    let first = running.current.load();
    assert_eq!(first.map(|snapshot| (snapshot.epoch, snapshot.issuers.len())), Some((1, 1)), "ready at once");
    wait_for("a failure", LIMIT, || running.report("idp").keys.last_error.is_some());
    assert_eq!(running.ask("idp", "any"), KeyDemandOutcome::Unreachable);
    issuer.up();
    running.wait_kid("idp", &issuer.key().kid);
}

#[test]
fn api_47_a_restart_during_an_outage_still_knows_the_keys() {
    let dir = tempfile::tempdir().unwrap();
    let kept = Options { state_dir: Some(dir.path().to_owned()), ..options() };
    let file = dir.path().join("keys/idp.json");
    let issuer = Issuer::start();
    let old = issuer.key().kid.clone();
    let new = issuer.add_key(testkit::Kind::Es256).kid.clone();
    let running = Running::start(one(&issuer), kept.clone());
    running.wait_kid("idp", &new);
    assert!(running.control.keys().kill_key("idp", &old));
    let holds = |part: &str| std::fs::read_to_string(&file).is_ok_and(|text| text.contains(part));
    wait_for("the killed key is kept", LIMIT, || holds(&format!("\"killed\":[\"{old}\"]")));
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    running.control.stop();

    issuer.down();
    let running = Running::start(one(&issuer), kept.clone());
    assert_eq!(running.kids("idp"), BTreeSet::from([new]), "in the first snapshot, without the killed one");
    running.control.stop();

    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o622)).unwrap();
    let running = Running::start(one(&issuer), kept.clone());
    assert!(running.kids("idp").is_empty(), "what others can write is not believed");
    running.control.stop();

    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let moved = Settings { jwks_uri: Some(issuer.jwks_url()), ..settings("idp", &issuer.url()) };
    let running = Running::start(desired([moved]), kept);
    assert!(running.kids("idp").is_empty(), "keys of another source are not taken up");
}

#[test]
fn api_48_one_dead_issuer_among_fifty_delays_nobody() {
    let (well, hanging) = (Issuer::start(), Issuer::start());
    hanging.misbehave_in_discovery(Fault::Hang);
    let mut all: Vec<_> = (0..49).map(|n| settings(&format!("idp{n}"), &well.url())).collect();
    all.insert(0, settings("dead", &hanging.url()));
    let slow = Options { deadlines: Deadlines { total: Duration::from_secs(60), ..Deadlines::default() }, ..options() };
    let running = Running::start(desired(all), slow);
    for n in 0..49 {
        running.wait_kid(&format!("idp{n}"), &well.key().kid);
    }
    assert_eq!(running.report("dead").keys.state, State::Never);
    assert_eq!(well.fetches(), 49);
}

#[test]
fn api_59_two_issuers_of_one_name_keep_their_keys_apart() {
    let (a, b) = (Issuer::start(), Issuer::start());
    b.rotate(OldKeys::Drop);
    let same = "https://kubernetes.example";
    let cluster = |name: &str, issuer: &Issuer| Settings { jwks_uri: Some(issuer.jwks_url()), ..settings(name, same) };
    let running = Running::start(desired([cluster("east", &a), cluster("west", &b)]), options());
    running.wait_kid("east", &a.key().kid);
    running.wait_kid("west", &b.key().kid);
    assert!(running.kids("east").is_disjoint(&running.kids("west")));
}

#[test]
fn api_90_keys_that_move_to_another_host_are_not_followed() {
    let (issuer, other) = (Issuer::start(), Issuer::start());
    other.rotate(OldKeys::Drop);
    let mut options = options();
    options.deadlines.rediscover = Duration::ZERO;
    let running = Running::start(one(&issuer), options);
    running.wait_kid("idp", &issuer.key().kid);
    assert_eq!(running.report("idp").alarm, None);
    issuer.claim_jwks_uri(Some(&other.jwks_url()));
    running.control.keys().refresh("idp");
    wait_for("the alarm", LIMIT, || running.report("idp").alarm.is_some());
    assert!(running.report("idp").alarm.is_some_and(|alarm| alarm.contains(&other.jwks_url())));
    let new = issuer.rotate(OldKeys::Drop);
    assert_eq!(running.ask("idp", &new.kid), KeyDemandOutcome::Refreshed);
    assert!(running.kids("idp").contains(&new.kid), "the old place is still asked");
    assert_eq!(other.fetches(), 0);
    issuer.claim_jwks_uri(None);
    running.control.keys().refresh("idp");
    wait_for("the alarm to end", LIMIT, || running.report("idp").alarm.is_none());
}

#[test]
fn api_90_a_discovery_document_of_somebody_else_is_refused() {
    let issuer = Issuer::start();
    issuer.claim_issuer(Some("https://evil.example"));
    let running = Running::start(one(&issuer), options());
    wait_for("a failure", LIMIT, || running.report("idp").keys.last_error.is_some());
    let error = running.report("idp").keys.last_error.unwrap();
    assert!(error.contains("evil.example"), "{error}");
    assert_eq!((issuer.fetches(), running.kids("idp").len()), (0, 0));
    issuer.claim_issuer(None);
    issuer.claim_jwks_uri(Some("http://localhost:1/jwks"));
    let refused = || running.report("idp").keys.last_error.is_some_and(|error| error.contains("private"));
    wait_for("the guard against our own network", LIMIT, refused);
    issuer.claim_jwks_uri(Some("file:///etc/passwd"));
    let refused = || running.report("idp").keys.last_error.is_some_and(|error| error.contains("must be an https URL"));
    wait_for("the refusal of another scheme", LIMIT, refused);
    issuer.claim_jwks_uri(None);
    running.wait_kid("idp", &issuer.key().kid);
}

#[test]
fn a_file_is_read_again_and_what_it_drops_is_gone_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("jwks.json");
    let issuer = Issuer::start();
    let old = issuer.key().kid.clone();
    std::fs::write(&path, issuer.jwks().to_string()).unwrap();
    let from_file = || Settings { jwks_file: Some(path.clone()), ..settings("air-gapped", "https://nowhere.example") };
    let running = Running::start(desired([from_file()]), options());
    running.wait_kid("air-gapped", &old);
    let new = issuer.rotate(OldKeys::Drop).kid.clone();
    std::fs::write(&path, issuer.jwks().to_string()).unwrap();
    assert_eq!(running.ask("air-gapped", &new), KeyDemandOutcome::Refreshed);
    assert_eq!(running.kids("air-gapped"), BTreeSet::from([new.clone()]));
    std::fs::write(&path, "half a fi").unwrap();
    running.control.update(desired([from_file()]));
    wait_for("a failure", LIMIT, || running.report("air-gapped").keys.last_error.is_some());
    assert_eq!(running.kids("air-gapped"), BTreeSet::from([new]));
    assert_eq!(issuer.fetches(), 0);
}

#[test]
fn a_reload_keeps_the_keys_of_unchanged_sources() {
    let (issuer, other) = (Issuer::start(), Issuer::start());
    let running = Running::start(one(&issuer), options());
    running.wait_kid("idp", &issuer.key().kid);
    let before = running.control.key_report().epoch;
    let changed = Settings { audience: vec!["other".to_owned()], ..settings("idp", &issuer.url()) };
    let epoch = running.control.update(desired([changed, settings("second", &other.url())]));
    assert!(epoch > before);
    assert!(running.kids("idp").contains(&issuer.key().kid), "in the very snapshot of the reload");
    let audience = running.current.load().map(|snapshot| snapshot.issuers[0].profile.settings().audience.clone());
    assert_eq!(audience, Some(vec!["other".to_owned()]));
    running.wait_kid("second", &other.key().kid);
    assert_eq!(issuer.fetches(), 1);
    running.control.update(desired([settings("second", &other.url())]));
    assert_eq!(running.ask("idp", "x"), KeyDemandOutcome::Unreachable, "no longer configured");
    let keys = running.control.keys();
    let current = running.current.clone();
    running.control.stop();
    let after = running.runtime.block_on(keys.unknown_kid("second", Some("x")));
    assert_eq!(after, KeyDemandOutcome::Unreachable);
    assert!(current.load().is_some(), "the last snapshot stays");
}

#[test]
fn api_44_an_operators_kill_is_published_within_a_second() {
    let issuer = Issuer::start();
    let kid = issuer.key().kid.clone();
    let running = Running::start(one(&issuer), options());
    running.wait_kid("idp", &kid);
    assert!(running.control.keys().kill_key("idp", &kid));
    wait_for("the key to be gone", LIMIT, || running.kids("idp").is_empty());
    running.control.keys().refresh("idp");
    wait_for("a fetch", LIMIT, || issuer.fetches() == 2);
    assert!(!running.control.keys().kill_key("nobody", &kid));
    assert!(running.kids("idp").is_empty());
}
