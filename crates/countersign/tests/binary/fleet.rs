//! Services with several endpoints: one is killed and one grows slow under load, one is ill, one is not who it should be.
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::serving::{LIMIT, Serving, Setup, orders};
use testkit::client::Connection;
use testkit::issuer::Issuer;
use testkit::tls::Ca;
use testkit::{Upstream, wait_for};

/// Healing takes as long as a slow endpoint is left alone: some 20 s, on a busy machine more.
const HEAL_LIMIT: Duration = Duration::from_secs(120);
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
const ILL: &[u8] = b"HTTP/1.1 500 Ill\r\ncontent-length: 0\r\n\r\n";

/// One of a fleet: counts what it answers, takes as long as it is told, can be killed and come back. `/healthz` is not
/// counted.
struct Endpoint {
    address: SocketAddr,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    answered: AtomicUsize,
    checked: AtomicUsize,
    delay_ms: AtomicU64,
    is_dead: AtomicBool,
    is_ill: AtomicBool,
    /// The last head.
    head: Mutex<String>,
    open: Mutex<Vec<TcpStream>>,
}

impl Endpoint {
    fn start() -> Endpoint {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = Endpoint { address: listener.local_addr().unwrap(), state: Arc::default() };
        endpoint.listen(listener);
        endpoint
    }

    fn listen(&self, listener: TcpListener) {
        let state = Arc::clone(&self.state);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if state.is_dead.load(SeqCst) {
                    return;
                }
                state.open.lock().unwrap().push(stream.try_clone().unwrap());
                let state = Arc::clone(&state);
                std::thread::spawn(move || state.converse(stream));
            }
        });
    }

    /// No connection is taken any more, and those that are open are cut.
    fn kill(&self) {
        self.state.is_dead.store(true, SeqCst);
        // Wakes the listener, so that it goes.
        drop(TcpStream::connect(self.address));
        wait_for("the port to be free", LIMIT, || TcpStream::connect(self.address).is_err());
        for stream in self.state.open.lock().unwrap().drain(..) {
            drop(stream.shutdown(Shutdown::Both));
        }
    }

    fn revive(&self) {
        self.state.is_dead.store(false, SeqCst);
        self.listen(TcpListener::bind(self.address).unwrap());
    }

    fn slow(&self, ms: u64) {
        self.state.delay_ms.store(ms, SeqCst);
    }

    fn answered(&self) -> usize {
        self.state.answered.load(SeqCst)
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl State {
    fn converse(&self, mut stream: TcpStream) {
        let (mut head, mut byte) = (Vec::new(), [0]);
        while stream.read(&mut byte).is_ok_and(|read| read == 1) {
            head.extend_from_slice(&byte);
            if !head.ends_with(b"\r\n\r\n") {
                continue;
            }
            let is_check = head.windows(13).any(|bytes| bytes == b"GET /healthz ");
            *self.head.lock().unwrap() = String::from_utf8_lossy(&head).into_owned();
            head.clear();
            let answer = if self.is_ill.load(SeqCst) { ILL } else { ANSWER };
            if is_check {
                self.checked.fetch_add(1, SeqCst);
            } else {
                std::thread::sleep(Duration::from_millis(self.delay_ms.load(SeqCst)));
                self.answered.fetch_add(1, SeqCst);
            }
            if stream.write_all(answer).is_err() {
                return;
            }
        }
    }
}

/// A process whose service `orders` has this upstream, read by anyone under `/public`.
fn start(upstream: &str, files: Vec<(String, Vec<u8>)>) -> (Issuer, Serving) {
    let issuer = Issuer::start();
    let mut setup = Setup::new(&issuer.url(), "http://127.0.0.1:1");
    setup.services[0].1 = orders("PLACE").replace("\"PLACE\"", upstream);
    setup.edge = "  workers: 1\n".into();
    setup.files = files;
    let serving = setup.start();
    (issuer, serving)
}

/// Clients that ask without a pause until they are stopped; every answer has to be good.
struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<std::thread::JoinHandle<usize>>,
}

impl Load {
    fn start(edge: SocketAddr, clients: usize) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let one = |_| {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || {
                let mut connection = Connection::open(edge);
                let mut count = 0;
                while !stop.load(SeqCst) {
                    connection.write("GET /public/x HTTP/1.1\r\nhost: shop.acme.example\r\n\r\n").unwrap();
                    let answer = connection.read().expect("an answer");
                    assert_eq!(answer.status, 200, "{}", answer.text());
                    count += 1;
                }
                count
            })
        };
        let clients = (0..clients).map(one).collect();
        Load { stop, clients }
    }

    /// How many requests were answered. Fails if one was not, or not well.
    fn stop(self) -> usize {
        self.stop.store(true, SeqCst);
        self.clients.into_iter().map(|client| client.join().expect("every request is answered with 200")).sum()
    }
}

/// What each answered until all of them together have answered this many more.
fn window<const N: usize>(fleet: &[Endpoint; N], requests: usize) -> [usize; N] {
    let before: Vec<usize> = fleet.iter().map(Endpoint::answered).collect();
    let since = |at: usize| fleet[at].answered() - before[at];
    wait_for("requests to be answered", HEAL_LIMIT, || (0..N).map(since).sum::<usize>() >= requests);
    std::array::from_fn(since)
}

#[test]
fn a_fleet_loses_one_and_another_grows_slow_and_no_request_fails() {
    let fleet: [Endpoint; 3] = std::array::from_fn(|_| Endpoint::start());
    let urls: Vec<String> = fleet.iter().map(Endpoint::url).collect();
    let upstream = format!(
        "{{ url: [{}], outliers: {{ base: 500ms, slow_start: 1s }}, \
         retries: {{ on: [502, 503, 504, connect, reset], budget: 100%, attempts: 3 }} }}",
        urls.join(", ")
    );
    let (_issuer, serving) = start(&upstream, Vec::new());
    let load = Load::start(serving.edge, 6);
    // One answer that the machine delays leaves its endpoint alone for a while: what counts is that it passes.
    let shared = || window(&fleet, 600).iter().all(|count| *count > 50);
    wait_for("all to take part", HEAL_LIMIT, shared);

    let [killed, slow, well] = &fleet;
    killed.kill();
    slow.slow(500);
    let dead = killed.answered();
    wait_for(&format!("the load to go to {}", well.address), HEAL_LIMIT, || {
        let hurt = window(&fleet, 1_000);
        hurt[1] < 200 && hurt[2] > 800
    });
    assert!(killed.answered() <= dead + 6, "nobody is there but for what was under way");

    killed.revive();
    slow.slow(0);
    wait_for("the load to be shared again", HEAL_LIMIT, shared);
    let answered = load.stop();
    assert!(answered > 2_000, "{answered}");
    let metrics = serving.metrics();
    assert!(
        metrics.contains("countersign_upstream_ejections_total{service=\"orders\",cause=\"failures\"}"),
        "{metrics}"
    );
    assert!(serving.process.stderr().contains("an upstream endpoint is put aside"));
    let answer = serving.get("/public/x", None);
    let record = serving.record(&answer);
    assert!(urls.iter().any(|url| url.ends_with(record["upstream"]["address"].as_str().unwrap())), "{record:#}");
    assert_eq!(record["upstream"]["tries"], 1);
    let (_, text) = serving.command(&["why", answer.field("countersign-decision").unwrap()]);
    assert!(text.contains("upstream"), "{text}");
}

#[test]
fn checks_go_on_without_traffic_and_end_with_the_service() {
    let (one, two) = (Endpoint::start(), Endpoint::start());
    let health = "health: { path: /healthz, interval: 100ms, timeout: 1s, unhealthy_after: 2 }";
    let upstream = format!("{{ url: [{}, {}], {health} }}", one.url(), two.url());
    let (_issuer, mut serving) = start(&upstream, Vec::new());
    let ill = "countersign_upstream_endpoints{service=\"orders\",state=\"ill\"} ";
    wait_for("a check before any request", LIMIT, || one.state.checked.load(SeqCst) > 0);
    one.state.is_ill.store(true, SeqCst);
    wait_for("one to be ill", LIMIT, || serving.metrics().contains(&format!("{ill}1")));
    serving.wait_log("an upstream endpoint fails its health checks");
    let before = one.answered();
    for _ in 0..20 {
        assert_eq!(serving.get("/public/x", None).status, 200);
    }
    assert_eq!(one.answered(), before, "an ill endpoint gets nothing");
    one.state.is_ill.store(false, SeqCst);
    wait_for("both to be well", LIMIT, || serving.metrics().contains(&format!("{ill}0")));
    serving.wait_log("passes its health checks again");
    let head = one.state.head.lock().unwrap().to_ascii_lowercase();
    for field in ["txn-token", "authorization", "countersign-decision", "x-forwarded", "forwarded", "cookie"] {
        assert!(!head.contains(&format!("\r\n{field}")), "a check has no {field}: {head}");
    }

    // A service that is gone is asked after no more; no request is needed for that.
    std::fs::remove_file(serving.folder.path().join("services/orders.yaml")).unwrap();
    std::fs::write(
        serving.folder.path().join("services/other.yaml"),
        orders("http://127.0.0.1:1").replace("service: orders", "service: other"),
    )
    .unwrap();
    serving.wait_log("the configuration was loaded again");
    let settled = || {
        let before = two.state.checked.load(SeqCst);
        std::thread::sleep(Duration::from_millis(400));
        two.state.checked.load(SeqCst) == before
    };
    wait_for("the checks to end", LIMIT, settled);
    serving.process.signal("TERM");
    assert_eq!(serving.process.wait(LIMIT).code(), Some(0));
}

#[test]
fn m15_a_post_is_never_sent_twice_whatever_retries_say() {
    let (one, two) = (Endpoint::start(), Endpoint::start());
    let retries = "retries: { on: [502, 503, 504, connect, reset], budget: 100%, per_try_timeout: 50ms }";
    let outliers = "outliers: { failures: 1000 }, first_byte_timeout: 3s";
    let upstream = format!("{{ url: [{}, {}], {retries}, {outliers} }}", one.url(), two.url());
    let (_issuer, serving) = start(&upstream, Vec::new());
    for endpoint in [&one, &two] {
        endpoint.slow(100);
    }
    let post = b"POST /public/x HTTP/1.1\r\nhost: shop.acme.example\r\ncontent-length: 0\r\n\r\n";
    for _ in 0..10 {
        // Its try is not cut short either: only what may be repeated has a limit per try.
        assert_eq!(testkit::client::send(serving.edge, post).unwrap().status, 200);
    }
    assert_eq!(one.answered() + two.answered(), 10);
    for endpoint in [&one, &two] {
        endpoint.slow(4_000);
    }
    let answer = testkit::client::send(serving.edge, post).unwrap();
    serving.expect(&answer, 504, "upstream_timeout");
    wait_for("the slow answer", LIMIT, || one.answered() + two.answered() >= 11);
    assert_eq!(one.answered() + two.answered(), 11);
}

/// One request to an upstream with this certificate, expected to be `spiffe://acme.example/shop/orders`.
fn check_identity(uris: &[&str], expected: Option<&str>) {
    let ca = Ca::new();
    let upstream = Upstream::start_tls(&ca.svid(uris, &["localhost"]));
    let settings = format!(
        "{{ url: \"{}\", server_name: localhost, ca_file: bundle.pem, spiffe_id: spiffe://acme.example/shop/orders }}",
        upstream.url()
    );
    let files = vec![("bundle.pem".to_owned(), ca.certificate_pem.clone().into_bytes())];
    let (_issuer, serving) = start(&settings, files);
    let answer = serving.get("/public/x", None);
    match expected {
        None => assert_eq!(answer.status, 200, "{}", answer.text()),
        Some(why) => {
            let record = serving.expect(&answer, 502, "upstream_identity");
            assert!(record["detail"].as_str().unwrap().contains(why), "{record:#}");
            assert_eq!(upstream.count(), 0, "nothing was sent to a stranger");
        }
    }
}

#[test]
fn svid_an_upstream_that_is_somebody_else_gets_no_request() {
    let id = "spiffe://acme.example/shop/orders";
    check_identity(&[id], None);
    check_identity(&["spiffe://acme.example/shop/web"], Some("was expected"));
    check_identity(&[id, "spiffe://acme.example/shop/web"], Some("2 URIs"));
    check_identity(&[], Some("no URI"));
}

#[test]
fn an_upstream_is_told_its_clients_address() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let served = std::thread::spawn(move || {
        let mut stream = listener.accept().unwrap().0;
        let mut header = [0; 28];
        stream.read_exact(&mut header).unwrap();
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        stream.write_all(ANSWER).unwrap();
        header
    });
    let (_issuer, serving) = start(&format!("{{ url: \"http://{address}\", proxy_protocol: v2 }}"), Vec::new());
    let mut connection = Connection::open(serving.edge);
    let client = connection.stream().local_addr().unwrap();
    connection.write("GET /public/x HTTP/1.1\r\nhost: shop.acme.example\r\n\r\n").unwrap();
    assert_eq!(connection.read().unwrap().status, 200);
    let header = served.join().unwrap();
    assert_eq!(&header[..16], b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c");
    assert_eq!(&header[16..24], [127, 0, 0, 1, 127, 0, 0, 1]);
    let ports: Vec<u8> = [client.port(), serving.edge.port()].iter().flat_map(|port| port.to_be_bytes()).collect();
    assert_eq!(&header[24..], ports);
}
