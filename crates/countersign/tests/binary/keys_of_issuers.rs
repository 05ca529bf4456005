//! Issuers that rotate, lie, stall and die, seen from requests: a rotation never causes a 401 for a valid token.
use crate::serving::{LIMIT, Serving, Setup};
use serde_json::json;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};
use testkit::issuer::{Fault, Issuer, OldKeys};
use testkit::process::Process;
use testkit::signing::base64url;
use testkit::upstream::Upstream;

fn support() -> serde_json::Value {
    json!({ "groups": ["support"] })
}

fn served(issuer: &Issuer, upstream: &Upstream) -> Serving {
    Setup::new(&issuer.url(), &upstream.url()).start()
}

#[test]
fn api_39_a_rotation_with_the_old_key_gone_costs_one_fetch_and_no_401() {
    let (issuer, upstream) = (Issuer::start(), Upstream::start());
    let serving = served(&issuer, &upstream);
    serving.wait_ready_for("/orders/1", &issuer.token("ana", "acme", &support()));
    let before = issuer.fetches();
    issuer.rotate(OldKeys::Drop);
    let tokens: Vec<String> = (0..8).map(|n| issuer.token(&format!("person{n}"), "acme", &support())).collect();
    std::thread::scope(|scope| {
        for token in &tokens {
            scope.spawn(|| (0..5).for_each(|_| assert_eq!(serving.get("/orders/1", Some(token)).status, 200)));
        }
    });
    assert_eq!(issuer.fetches(), before + 1);
}

/// Sends `count` requests over one connection, each with a kid nobody knows, and returns how many were answered 401. The claims
/// are good and the signature is noise: a key would be needed to find that out.
fn flood(edge: SocketAddr, connection: usize, count: usize, claims: &serde_json::Value) -> usize {
    let payload = base64url(claims.to_string());
    let request = |n: usize| {
        let kid = format!("random-{connection}-{n}");
        let header = base64url(json!({ "alg": "ES256", "typ": "at+jwt", "kid": kid }).to_string());
        let last = if n + 1 == count { "Connection: close\r\n" } else { "" };
        let token = format!("{header}.{payload}.{}", base64url([7; 64]));
        format!("GET /orders/1 HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n{last}\r\n")
    };
    let mut stream = TcpStream::connect(edge).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let mut writing = stream.try_clone().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || (0..count).for_each(|n| writing.write_all(request(n).as_bytes()).unwrap()));
        let mut answers = String::new();
        stream.read_to_string(&mut answers).unwrap();
        answers.matches("HTTP/1.1 401 ").count()
    })
}

/// Tokens of each of the flood's connections; `COUNTERSIGN_FLOOD` makes a longer one, for the figures it prints
/// (docs/performance.md).
fn flood_size() -> usize {
    std::env::var("COUNTERSIGN_FLOOD").map_or(3_000, |text| text.parse().expect("a number of tokens"))
}

/// What a flood cost the good requests beside it. Told, not judged: a loaded machine is no defect.
fn tell(flood: usize, elapsed: Duration, mut good: Vec<Duration>, fetches: u64) {
    good.sort_unstable();
    let at = |per_cent: usize| good.get(good.len() * per_cent / 100).copied().unwrap_or_default();
    let each_s = flood as f64 / elapsed.as_secs_f64();
    let _ = writeln!(
        std::io::stderr(),
        "{each_s:.0} unknown kids a second for {elapsed:.1?}: {} good requests, p50 {:.1?}, p99 {:.1?}; {fetches} fetches",
        good.len(),
        at(50),
        at(99),
    );
}

#[test]
fn api_40_random_kids_cost_at_most_three_fetches_and_valid_traffic_goes_on() {
    const CONNECTIONS: usize = 4;
    let each = flood_size();
    let (issuer, upstream) = (Issuer::start(), Upstream::start());
    let serving = served(&issuer, &upstream);
    let good = issuer.token("ana", "acme", &support());
    serving.wait_ready_for("/orders/1", &good);
    let before = issuer.fetches();
    let claims = issuer.claims("eve", "acme", &support());
    let started = Instant::now();
    let mut took = Vec::new();
    std::thread::scope(|scope| {
        let (edge, claims) = (serving.edge, &claims);
        let floods: Vec<_> =
            (0..CONNECTIONS).map(|connection| scope.spawn(move || flood(edge, connection, each, claims))).collect();
        while !floods.iter().all(std::thread::ScopedJoinHandle::is_finished) {
            let asked = Instant::now();
            assert_eq!(serving.get("/orders/1", Some(&good)).status, 200);
            took.push(asked.elapsed());
        }
        for flood in floods {
            assert_eq!(flood.join().unwrap(), each);
        }
    });
    let elapsed = started.elapsed();
    let fetches = u64::try_from(issuer.fetches() - before).unwrap();
    tell(CONNECTIONS * each, elapsed, took, fetches);
    assert!(fetches <= 3 * (1 + elapsed.as_secs() / 60), "{fetches} in {elapsed:?}");
    let metrics = serving.metrics();
    let throttled = "countersign_kid_miss_total{issuer=\"id\",outcome=\"throttled\"} ";
    let count = metrics.lines().find_map(|line| line.strip_prefix(throttled)?.parse::<usize>().ok());
    // What came while a fetch was under way waited for it and counts as refreshed.
    assert!(count.is_some_and(|count| count > CONNECTIONS * each / 2), "{metrics}");
}

#[test]
fn api_42_a_provider_that_dies_or_lies_does_not_take_the_known_keys_away() {
    let (issuer, upstream) = (Issuer::start(), Upstream::start());
    let serving = served(&issuer, &upstream);
    let good = issuer.token("ana", "acme", &support());
    serving.wait_ready_for("/orders/1", &good);
    for fault in [Fault::Status(500), Fault::Html, Fault::EmptyKeys, Fault::Huge] {
        issuer.misbehave(fault.clone());
        // A token with an unknown kid makes the edge ask for keys, and get what the fault gives.
        let forged = issuer.mint(&json!({ "kid": format!("{fault:?}") }), &issuer.claims("eve", "acme", &support()));
        assert_eq!(serving.get("/orders/1", Some(&forged)).status, 401);
        assert_eq!(serving.get("/orders/1", Some(&good)).status, 200, "{fault:?}");
    }
    issuer.down();
    let another = issuer.token("ben", "acme", &support());
    assert_eq!(serving.get("/orders/1", Some(&another)).status, 200);
}

#[test]
fn api_47_a_provider_that_is_down_at_start_stops_nothing_and_heals_alone() {
    let (issuer, upstream) = (Issuer::start(), Upstream::start());
    let token = issuer.token("ana", "acme", &support());
    issuer.down();
    let serving = served(&issuer, &upstream);
    let answer = serving.get("/orders/1", Some(&token));
    serving.expect(&answer, 503, "keys_unavailable");
    assert!(answer.field("retry-after").is_some());
    assert_eq!(serving.get("/public/page", None).status, 200, "what needs no issuer works");
    issuer.up();
    serving.wait_ready_for("/orders/1", &token);
}

#[test]
fn api_43_a_kid_reused_with_new_material_heals() {
    let (issuer, upstream) = (Issuer::start(), Upstream::start());
    let serving = served(&issuer, &upstream);
    serving.wait_ready_for("/orders/1", &issuer.token("ana", "acme", &support()));
    issuer.reuse_kid();
    serving.wait_ready_for("/orders/1", &issuer.token("ana", "acme", &support()));
}

/// npm `oidc-provider`, a certified OpenID provider, and the tokens its clients get from it.
pub(crate) struct Provider {
    process: Process,
    pub(crate) url: String,
}

impl Provider {
    pub(crate) fn start(port: u16) -> Provider {
        let script = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/peers/oidc-provider.mjs");
        assert!(script.with_file_name("node_modules").is_dir(), "run `npm ci` in tests/peers, or `cargo xtask peers`");
        let mut process = Process::start("node", &[script.into_os_string(), port.to_string().into()]);
        let url = process.wait_line("ready ", LIMIT).trim_start_matches("ready ").trim().to_owned();
        Provider { process, url }
    }

    fn address(&self) -> std::net::SocketAddr {
        self.url.trim_start_matches("http://").parse().unwrap()
    }

    /// An access token by client_credentials.
    fn token(&self, client: &str) -> String {
        self.token_for(client, "urn:acme")
    }

    /// The same, for a resource of one's choice.
    pub(crate) fn token_for(&self, client: &str, resource: &str) -> String {
        let body = format!(
            "grant_type=client_credentials&client_id={client}&client_secret=secret&resource={resource}&scope=orders.read"
        );
        let fields = [("content-type", "application/x-www-form-urlencoded")];
        let answer = testkit::client::request(self.address(), "POST", "/token", &fields, body);
        answer.json()["access_token"].as_str().unwrap_or_else(|| panic!("{}", answer.text())).to_owned()
    }

    /// One line of answer to one command.
    pub(crate) fn ask(&mut self, command: &str) -> String {
        let before = self.process.stdout().len();
        self.process.write_line(command);
        testkit::wait_value("the provider answers", LIMIT, || {
            let new = self.process.stdout().get(before..)?.to_owned();
            new.strip_suffix('\n').map(str::to_owned)
        })
    }

    fn jwks_fetches(&mut self) -> u64 {
        serde_json::from_str::<serde_json::Value>(&self.ask("stats")).unwrap()["jwks"].as_u64().unwrap()
    }
}

/// The main job on real input: a certified provider, nginx behind the edge, a real client in front.
#[test]
fn a_real_provider_and_a_real_upstream_through_rotation_death_and_return() {
    let mut provider = Provider::start(0);
    let nginx = crate::serving::nginx::Nginx::start();
    let mut setup = Setup::new(&provider.url, &nginx.url());
    setup.issuers =
        format!("  id: {{ issuer: \"{}\", audience: [\"urn:acme\"], claims: {{ groups: groups }} }}\n", provider.url);
    let serving = setup.start();

    let first = provider.token("support");
    serving.wait_ready_for("/orders/1", &first);
    assert_eq!(serving.get("/orders/1", Some(&provider.token("finance"))).status, 403);
    assert_eq!(serving.get("/orders/1", None).status, 401);

    let before = provider.jwks_fetches();
    assert!(provider.ask("rotate-drop").starts_with("key-"));
    for _ in 0..20 {
        assert_eq!(
            serving.get("/orders/1", Some(&provider.token("support"))).status,
            200,
            "a rotation never causes a 401"
        );
    }
    assert_eq!(provider.jwks_fetches(), before + 1);

    let last = provider.token("support");
    let port = provider.address().port();
    drop(provider);
    assert_eq!(serving.get("/orders/1", Some(&last)).status, 200, "known keys outlive the provider");

    // The provider comes back with keys nobody has seen, as after a restored backup.
    let provider = Provider::start(port);
    serving.wait_ready_for("/orders/1", &provider.token("support"));
}

#[test]
fn api_44_a_key_the_operator_kills_is_refused_at_once_and_its_cached_tokens_too() {
    let (issuer, upstream) = (Issuer::start(), Upstream::start());
    let serving = served(&issuer, &upstream);
    let token = issuer.token("ana", "acme", &support());
    serving.wait_ready_for("/orders/1", &token);
    let kid = issuer.key().kid.clone();
    let (code, text) = serving.command(&["keys", "kill", "id", &kid]);
    assert_eq!(code, 0, "{text}");
    testkit::wait_for("the killed key's token is refused", LIMIT, || {
        serving.get("/orders/1", Some(&token)).status != 200
    });
    let answer = serving.get("/orders/1", Some(&token));
    assert!([401, 503].contains(&answer.status), "{}", answer.status);
    assert_eq!(serving.command(&["keys", "kill", "nobody", &kid]).0, 3);
    issuer.rotate(OldKeys::Keep);
    serving.command(&["keys", "refresh", "id"]);
    serving.wait_ready_for("/orders/1", &issuer.token("ana", "acme", &support()));
    assert_ne!(serving.get("/orders/1", Some(&token)).status, 200, "killed stays killed");
}
