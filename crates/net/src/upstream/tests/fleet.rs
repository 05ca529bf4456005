//! Fleets over real sockets: what is tried again and what never, who is put aside, who is found ill, names with several
//! addresses, old connections, and headers that tell the client's address.
use super::*;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering::SeqCst};
use std::time::Instant;

fn status(status: u16) -> Reply {
    Reply::Keep(format!("HTTP/1.1 {status} X\r\ncontent-length: 4\r\n\r\nbody").into_bytes())
}

fn retries() -> Retries {
    Retries {
        reset: true,
        connect: true,
        statuses: vec![502, 503, 504],
        attempts: 2,
        budget_percent: 100,
        per_try_timeout: None,
    }
}

fn retrying(addresses: &[SocketAddr], retries: Retries) -> Arc<Target> {
    let settings = TargetSettings { retries: Some(Box::new(retries)), ..settings(addresses) };
    Arc::new(new_target(settings).unwrap())
}

/// One endpoint does `first` with whatever it gets, the other answers. What 20 requests on new pools get, and how many
/// requests arrived in all.
async fn check(first: fn() -> Reply, target: impl Fn(&[SocketAddr]) -> Arc<Target>, make: fn() -> Request) -> Found {
    let bad = serve_raw((0..100).map(|_| first()).collect()).await;
    let good = serve_raw((0..100).map(|_| ok()).collect()).await;
    let mut found = Found::default();
    for _ in 0..20 {
        let target = target(&[bad.address, good.address]);
        match exchange(&Pool::new(), &target, make()).await {
            Ok((StatusCode::OK, _)) => found.good += 1,
            Ok(_) | Err(_) => found.bad += 1,
        }
    }
    found.sent = bad.requests().len() + good.requests().len();
    found
}

#[derive(Debug, Default)]
struct Found {
    good: usize,
    bad: usize,
    sent: usize,
}

fn put_with_body() -> Request {
    request(Method::PUT, "/x", Body::full("value"))
}
fn post() -> Request {
    request(Method::POST, "/x", Body::empty())
}

#[tokio::test]
async fn m15_only_what_a_service_asked_for_is_tried_again_elsewhere() {
    let bad: [(fn() -> Reply, Retries); 5] = [
        (|| status(503), Retries { reset: false, ..retries() }),
        (|| status(502), retries()),
        (|| status(504), retries()),
        (|| close(""), Retries { statuses: Vec::new(), ..retries() }),
        (|| Reply::Silence, Retries { per_try_timeout: Some(Duration::from_millis(50)), ..Retries::default() }),
    ];
    for (first, mut asked) in bad {
        asked.attempts = 2;
        asked.budget_percent = 100;
        let found = check(first, |addresses| retrying(addresses, asked.clone()), || get("/")).await;
        assert_eq!((found.good, found.bad), (20, 0), "{asked:?}");
    }
    let found = check(|| status(500), |addresses| retrying(addresses, retries()), || get("/")).await;
    assert!(found.bad > 0 && found.sent == 20, "another status was meant for the caller: {found:?}");
    let found =
        check(|| status(503), |addresses| Arc::new(new_target(settings(addresses)).unwrap()), || get("/")).await;
    assert!(found.bad > 0 && found.sent == 20, "nobody asked: {found:?}");
}

#[tokio::test]
async fn m15_no_retry_repeats_what_may_do_harm_twice() {
    for make in [post, put_with_body] {
        for first in [(|| status(503)) as fn() -> Reply, || close(""), || close("HTTP/1.1 2")] {
            let found = check(first, |addresses| retrying(addresses, retries()), make).await;
            assert_eq!(found.sent, 20, "each was sent once: {found:?}");
            assert!(found.bad > 0, "{found:?}");
        }
    }
    let limited = || Retries { per_try_timeout: Some(Duration::from_millis(20)), ..retries() };
    let short = |addresses: &[SocketAddr]| {
        let settings = TargetSettings { first_byte_timeout: Duration::from_millis(40), ..settings(addresses) };
        Arc::new(new_target(TargetSettings { retries: Some(Box::new(limited())), ..settings }).unwrap())
    };
    let found = check(|| Reply::Silence, short, post).await;
    assert!(found.sent == 20 && found.bad > 0, "{found:?}");
}

#[tokio::test]
async fn m15_once_an_answer_began_nothing_is_tried_again() {
    let found = check(|| close("HTTP/1.1 2"), |addresses| retrying(addresses, retries()), || get("/")).await;
    assert!(found.sent == 20 && found.bad > 0, "{found:?}");
}

#[tokio::test]
async fn a_single_endpoint_is_tried_again_when_asked() {
    let server = serve_raw(vec![status(503), close(""), ok()]).await;
    let response = Pool::new().send(&retrying(&[server.address], retries()), get("/")).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let answered = response.extensions().get::<Answered>().unwrap();
    assert_eq!((answered.address.as_ref(), answered.tries), (server.address.to_string().as_str(), 3));
}

#[tokio::test]
async fn when_the_tries_are_used_up_the_last_answer_stands() {
    let server = serve_raw((0..9).map(|_| status(503)).collect()).await;
    let found = exchange(&Pool::new(), &retrying(&[server.address], retries()), get("/")).await.unwrap();
    assert_eq!(found, (StatusCode::SERVICE_UNAVAILABLE, "body".into()));
    assert_eq!(server.requests().len(), 3);
}

#[tokio::test]
async fn retries_stay_within_their_budget() {
    let server = serve_raw((0..400).map(|_| status(503)).collect()).await;
    let target = retrying(&[server.address], Retries { budget_percent: 10, attempts: 1, ..retries() });
    let (pool, began) = (Pool::new(), Instant::now());
    for _ in 0..100 {
        exchange(&pool, &target, get("/")).await.unwrap();
    }
    let seconds = usize::try_from(began.elapsed().as_secs()).unwrap() + 1;
    let retried = server.requests().len() - 100;
    assert!((10..=20 + seconds).contains(&retried), "10 saved, 10 earned, one per second: {retried}");
    let status = target.status().unwrap();
    assert_eq!(usize::try_from(status.retries).unwrap(), retried);
    assert!(status.retries_refused >= 60, "{status:?}");
}

#[tokio::test]
async fn all_of_a_requests_tries_share_its_time() {
    let server = serve_raw((0..9).map(|_| Reply::Silence).collect()).await;
    let asked = Retries { per_try_timeout: Some(Duration::from_millis(60)), attempts: 5, ..retries() };
    let whole = Duration::from_millis(100);
    let target =
        TargetSettings { request_timeout: whole, retries: Some(Box::new(asked)), ..settings(&[server.address]) };
    let found = exchange(&Pool::new(), &Arc::new(new_target(target).unwrap()), get("/")).await;
    assert!(matches!(found, Err(ForwardError::RequestTimeout(limit)) if limit == whole), "{found:?}");
    assert!(server.requests().len() <= 3);
}

#[tokio::test]
async fn a_failure_names_the_endpoint_of_several() {
    let (one, two) = (serve_raw(Vec::new()).await, dead_address());
    let short = Duration::from_millis(50);
    let settings = TargetSettings { first_byte_timeout: short, ..settings(&[one.address, two]) };
    let found = exchange(&Pool::new(), &Arc::new(new_target(settings).unwrap()), get("/")).await.unwrap_err();
    assert!(matches!(&found, ForwardError::At { error, .. } if matches!(**error, ForwardError::FirstByteTimeout(_))));
    assert_eq!(found.to_string(), format!("no answer within 50ms (from {})", one.address));
}

#[tokio::test]
async fn an_endpoint_that_fails_is_put_aside() {
    let bad = serve_raw((0..100).map(|_| status(503)).collect()).await;
    let good = serve_raw((0..400).map(|_| ok()).collect()).await;
    let target = Arc::new(new_target(settings(&[bad.address, good.address])).unwrap());
    let pool = Pool::new();
    for _ in 0..200 {
        exchange(&pool, &target, get("/")).await.unwrap();
    }
    assert!(bad.requests().len() <= 5, "{} requests went to it", bad.requests().len());
    // A slow start of the test could let it fail less than five times: then it was just too dear.
    let status = target.status().unwrap();
    assert!(status.ejections <= 1 && status.endpoints.len() == 2, "{status:?}");
}

#[tokio::test]
async fn a_callers_short_deadline_puts_no_endpoint_aside() {
    for (patience, ejections) in [(Some(Duration::from_millis(10)), 0), (None, 1)] {
        let silent = [serve_raw(Vec::new()).await, serve_raw(Vec::new()).await];
        let outliers = Outliers { failures: 1, base: Duration::from_secs(60), ..Outliers::default() };
        let addresses = [silent[0].address, silent[1].address];
        let short = Duration::from_millis(50);
        let settings = TargetSettings { first_byte_timeout: short, outliers, ..settings(&addresses) };
        let (pool, target) = (Pool::new(), Arc::new(new_target(settings).unwrap()));
        for _ in 0..3 {
            let mut sent = get("/");
            if let Some(patience) = patience {
                sent.extensions_mut().insert(Patience(patience));
            }
            exchange(&pool, &target, sent).await.unwrap_err();
        }
        assert_eq!(target.status().unwrap().ejections, ejections, "{patience:?}");
    }
}

/// An upstream that answers every gRPC call with this status, as trailers only.
struct Calls {
    status: &'static str,
    count: Arc<AtomicUsize>,
}

impl crate::Service for Calls {
    async fn call(&self, _: Request, _: &Arc<crate::Connection>) -> Response {
        self.count.fetch_add(1, SeqCst);
        let mut response = Response::new(Body::empty());
        response.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
        response.headers_mut().insert("grpc-status", self.status.parse().unwrap());
        response
    }
    fn refused(&self, _: crate::Refusal, _: &crate::Connection) {}
    fn panicked(&self, _: &crate::Connection) {}
}

fn serve_calls(status: &'static str) -> (crate::Server, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let serving = crate::settings::ServerSettings {
        listen: vec!["127.0.0.1:0".parse().unwrap()],
        tls: None,
        preamble: None,
        limits: crate::settings::Limits::default(),
        timeouts: crate::settings::Timeouts::default(),
        workers: 1,
    };
    let make = move |_| Calls { status, count: Arc::clone(&counted) };
    (crate::Server::start(serving, make).unwrap(), count)
}

/// How many of 200 calls went to the endpoint that answers so, and how often it was put aside; one failure is enough here,
/// for who is slow at first may not be asked five times.
async fn calls_to(status: &'static str) -> (usize, u64) {
    let ((bad, asked), (good, _)) = (serve_calls(status), serve_calls("0"));
    let addresses = [bad.addresses()[0], good.addresses()[0]];
    let outliers = Outliers { failures: 1, base: Duration::from_secs(60), ..Outliers::default() };
    let target = TargetSettings { http2: true, outliers, ..settings(&addresses) };
    let target = Arc::new(new_target(target).unwrap());
    let pool = Pool::new();
    for _ in 0..200 {
        let call = request(Method::POST, "/orders.Orders/Get", Body::empty());
        let answer = pool.send(&target, call).await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        answer.into_body().read_all(1).await.unwrap();
    }
    let ejections = target.status().unwrap().ejections;
    // Dropping a server joins its threads.
    tokio::task::spawn_blocking(move || drop((bad, good))).await.unwrap();
    (asked.load(SeqCst), ejections)
}

#[tokio::test]
async fn an_endpoint_whose_grpc_calls_are_unavailable_is_put_aside() {
    assert_eq!(calls_to("14").await, (1, 1));
    // Verdicts on the call are none on the endpoint.
    for status in ["4", "5", "8", "13", "16"] {
        let (asked, ejections) = calls_to(status).await;
        assert!(asked > 0 && ejections == 0, "{status}: {asked} calls, {ejections} times put aside");
    }
}

#[tokio::test]
async fn a_fleet_that_fails_as_a_whole_is_used_as_a_whole() {
    let (one, two) = (
        serve_raw((0..99).map(|_| status(503)).collect()).await,
        serve_raw((0..99).map(|_| status(503)).collect()).await,
    );
    let outliers = Outliers { failures: 1, ceiling_percent: 100, ..Outliers::default() };
    let target = TargetSettings { outliers, ..settings(&[one.address, two.address]) };
    let target = Arc::new(new_target(target).unwrap());
    let pool = Pool::new();
    for _ in 0..40 {
        assert_eq!(exchange(&pool, &target, get("/")).await.unwrap().0, StatusCode::SERVICE_UNAVAILABLE);
    }
    let states: Vec<State> = target.status().unwrap().endpoints.into_iter().map(|(_, state)| state).collect();
    assert_eq!(states, [State::Ejected, State::Ejected]);
    assert_eq!(one.requests().len() + two.requests().len(), 40);
}

#[tokio::test]
async fn nothing_is_learnt_of_a_single_address() {
    let server = serve_raw(vec![ok()]).await;
    let target = target(&server);
    let response = Pool::new().send(&target, get("/")).await.unwrap();
    assert!(target.status().is_none() && response.extensions().is_empty());
}

/// Answers every request with the status of the moment; counts the checks, and keeps the last head.
struct Checked {
    address: SocketAddr,
    status: Arc<AtomicU16>,
    checks: Arc<AtomicUsize>,
    head: Arc<Mutex<String>>,
}

async fn serve_checked() -> Checked {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let found = Checked {
        address: listener.local_addr().unwrap(),
        status: Arc::new(AtomicU16::new(200)),
        checks: Arc::default(),
        head: Arc::default(),
    };
    let (status, checks, head) = (Arc::clone(&found.status), Arc::clone(&found.checks), Arc::clone(&found.head));
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut buffer = vec![0; 4096];
            let Ok(count) = stream.read(&mut buffer).await else { continue };
            let text = String::from_utf8_lossy(&buffer[..count]).into_owned();
            if text.starts_with("GET /healthz") {
                checks.fetch_add(1, SeqCst);
                *head.lock().unwrap() = text;
            }
            let status = status.load(SeqCst);
            let answer = format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    found
}

fn health() -> HealthCheck {
    HealthCheck {
        path: "/healthz?deep=1".into(),
        interval: Duration::from_millis(10),
        timeout: LIMIT,
        healthy_after: 2,
        unhealthy_after: 3,
        expect: 200..=299,
    }
}

async fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(LIMIT, wait).await.unwrap_or_else(|_| panic!("in vain for: {what}"));
}

fn state(target: &Target, at: usize) -> State {
    target.status().unwrap().endpoints[at].1
}

#[tokio::test]
async fn checks_find_the_ill_and_the_well_and_end_with_the_target() {
    let (one, two) = (serve_checked().await, serve_checked().await);
    let fleets = Fleets::new();
    let settings = TargetSettings { health: Some(health()), ..settings(&[one.address, two.address]) };
    let target = Arc::new(fleets.target(settings.clone()).unwrap());
    let again = fleets.target(settings).unwrap();
    one.status.store(500, SeqCst);
    wait_for("the first to be ill", || state(&target, 0) == State::Ill).await;
    assert_eq!(state(&again, 0), State::Ill, "an equal target is checked once");
    assert_eq!(state(&target, 1), State::Well);
    let pool = Pool::new();
    for _ in 0..20 {
        assert_eq!(exchange(&pool, &target, get("/")).await.unwrap().0, StatusCode::OK);
    }
    two.status.store(503, SeqCst);
    wait_for("both to be ill", || state(&target, 1) == State::Ill).await;
    // All are ill: all are used.
    assert!(exchange(&pool, &target, get("/")).await.unwrap().0.is_server_error());
    one.status.store(204, SeqCst);
    wait_for("the first to be well", || state(&target, 0) == State::Well).await;
    let status = target.status().unwrap();
    assert!(status.checks_passed > 0 && status.checks_failed > 0);

    let head = one.head.lock().unwrap().clone();
    assert!(head.starts_with("GET /healthz?deep=1 HTTP/1.1\r\n"), "{head}");
    assert!(head.contains(&format!("host: {}\r\n", one.address)), "{head}");
    for field in ["authorization", "txn-token", "forwarded", "cookie"] {
        assert!(!head.to_ascii_lowercase().contains(field), "{head}");
    }
    drop((target, again, pool));
    let rest = one.checks.load(SeqCst);
    // One check may be under way; a task that went on would check dozens of times.
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(one.checks.load(SeqCst) <= rest + 1, "{rest} and then {}", one.checks.load(SeqCst));
}

#[tokio::test]
async fn an_endpoint_nobody_listens_on_is_ill() {
    let fleets = Fleets::new();
    let settings = TargetSettings { health: Some(health()), ..settings(&[dead_address()]) };
    let target = fleets.target(settings).unwrap();
    wait_for("it to be ill", || state(&target, 0) == State::Ill).await;
    fleets.stop();
    wait_for("the checks to end", || {
        let before = target.status().unwrap().checks_failed;
        std::thread::sleep(Duration::from_millis(50));
        target.status().unwrap().checks_failed == before
    })
    .await;
}

fn dns(host: &str, port: u16) -> TargetSettings {
    let addresses = Addresses::Dns { host: host.into(), port, refresh: Duration::from_secs(1) };
    TargetSettings { addresses, ..settings(&[]) }
}

#[tokio::test]
async fn every_address_of_a_name_is_an_endpoint() {
    let server = serve_raw((0..10).map(|_| ok()).collect()).await;
    let fleets = Fleets::new();
    let target = Arc::new(fleets.target(dns("localhost", server.address.port())).unwrap());
    let pool = Pool::new();
    for _ in 0..10 {
        // `localhost` may be ::1 as well, where nobody listens.
        assert_eq!(exchange(&pool, &target, get("/")).await.unwrap().0, StatusCode::OK);
    }
    let status = target.status().unwrap();
    assert!(status.endpoints.iter().any(|(address, _)| *address == server.address.to_string()), "{status:?}");
}

#[tokio::test]
async fn a_changed_name_keeps_the_connections_of_those_that_stay_and_drains_the_others() {
    let half = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nha";
    let going = serve_raw(vec![ok(), keep(half)]).await;
    let staying = serve_raw((0..20).map(|_| ok()).collect()).await;
    let joining = serve_raw((0..20).map(|_| ok()).collect()).await;
    let addresses = |servers: &[&RawServer]| {
        Ok(servers.iter().map(|server| (server.address.ip().to_string(), server.address.port())).collect())
    };
    // Nobody looks the name up: the test answers in the name server's place.
    let fleets = Fleets::new();
    fleets.stop();
    let target = Arc::new(fleets.target(dns("orders.internal", 1)).unwrap());
    let fleet = target.fleet.as_ref().unwrap();
    let pool = Pool::new();
    fleet.resolved(addresses(&[&going]));
    exchange(&pool, &target, get("/")).await.unwrap();
    idle(&pool, 1).await;
    let in_flight = pool.send(&target, get("/half")).await.unwrap();
    fleet.resolved(addresses(&[&staying]));
    exchange(&pool, &target, get("/")).await.unwrap();
    idle(&pool, 1).await;
    fleet.resolved(addresses(&[&joining, &staying]));
    for _ in 0..10 {
        assert_eq!(exchange(&pool, &target, get("/")).await.unwrap().0, StatusCode::OK);
        idle(&pool, staying.connections() + joining.connections()).await;
    }
    assert_eq!(going.requests().len(), 2, "it is gone");
    assert_eq!(staying.connections(), 1, "its connection was kept");
    // What was in flight is its client's alone; the connection ends with it.
    drop(in_flight);
    going.ended().await;
}

#[tokio::test]
async fn a_name_that_leads_nowhere_is_told() {
    let fleets = Fleets::new();
    let settings = TargetSettings { connect_timeout: Duration::from_millis(500), ..dns("nowhere.invalid", 80) };
    let found = exchange(&Pool::new(), &Arc::new(fleets.target(settings).unwrap()), get("/")).await;
    let told = matches!(&found, Err(ForwardError::Connect { address, .. }) if address == "dns:nowhere.invalid:80");
    assert!(told, "{found:?}");
}

#[tokio::test]
async fn an_old_connection_is_closed_although_it_is_in_use() {
    let server = serve_raw((0..10_000).map(|_| ok()).collect()).await;
    let settings = TargetSettings { max_age: Duration::from_millis(100), ..settings(&[server.address]) };
    let (pool, target) = (Pool::new(), Arc::new(new_target(settings).unwrap()));
    let began = Instant::now();
    while server.connections() < 2 && began.elapsed() < LIMIT {
        assert_eq!(exchange(&pool, &target, get("/")).await.unwrap().0, StatusCode::OK);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(server.connections() >= 2);
}

#[tokio::test]
async fn a_connection_with_a_preface_is_of_one_client() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let served = tokio::spawn(async move {
        let mut first_lines = Vec::new();
        for _ in 0..3 {
            let (mut stream, _) = listener.accept().await.unwrap();
            let (mut all, mut buffer) = (String::new(), [0; 4096]);
            while !all.ends_with("\r\n\r\n") {
                let count = stream.read(&mut buffer).await.unwrap();
                all.push_str(std::str::from_utf8(&buffer[..count]).unwrap());
            }
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
            first_lines.push(all.lines().take(2).map(str::to_owned).collect::<Vec<_>>());
            // Closed by us, with the answer.
            assert_eq!(stream.read(&mut buffer).await.unwrap(), 0);
        }
        first_lines
    });
    let settings = TargetSettings { own_preface: Some(b"PROXY UNKNOWN\r\n".to_vec()), ..settings(&[address]) };
    let (pool, target) = (Pool::new(), Arc::new(new_target(settings).unwrap()));
    assert!(target.wants_preface());
    for client in [Some("1"), Some("2"), None] {
        let mut sent = get("/x");
        if let Some(client) = client {
            sent.extensions_mut().insert(Preface(format!("PROXY {client}\r\n").into_bytes()));
        }
        assert_eq!(exchange(&pool, &target, sent).await.unwrap().1, "ok");
        assert_eq!(pool.idle_connections(), 0);
    }
    let served = tokio::time::timeout(LIMIT, served).await.unwrap().unwrap();
    let lines = |line: &str| vec![line.to_owned(), "GET /x HTTP/1.1".to_owned()];
    assert_eq!(served, [lines("PROXY 1"), lines("PROXY 2"), lines("PROXY UNKNOWN")]);
    let both = TargetSettings { http2: true, own_preface: Some(Vec::new()), ..super::settings(&[address]) };
    assert!(new_target(both).is_err());
}
