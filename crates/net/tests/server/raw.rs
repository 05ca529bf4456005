//! A server with a small service, and clients that speak raw bytes to it. Every wait has a limit.
use net::settings::{Limits, ServerSettings, Timeouts, TlsIdentity};
use net::{Body, BodyError, Connection, Refusal, Request, Response, Server, Service};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

pub(crate) const LIMIT: Duration = Duration::from_secs(10);

/// What the service saw.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) requests: Mutex<Vec<String>>,
    pub(crate) refusals: Mutex<Vec<Refusal>>,
    pub(crate) body_errors: Mutex<Vec<BodyError>>,
    pub(crate) panics: AtomicUsize,
    pub(crate) given_up: AtomicUsize,
    pub(crate) server_names: Mutex<Vec<Option<String>>>,
    pub(crate) client_certificates: Mutex<Vec<Option<[u8; 32]>>>,
    pub(crate) peers: Mutex<Vec<Option<net::Peer>>>,
    pub(crate) go: Notify,
    /// Bodies of requests that were answered without them.
    pub(crate) kept: Mutex<Vec<Body>>,
}

impl Seen {
    #[track_caller]
    pub(crate) fn wait_for(&self, what: &str, condition: impl Fn(&Seen) -> bool) {
        wait_until(what, || condition(self));
    }
}

#[track_caller]
pub(crate) fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let until = Instant::now() + LIMIT;
    while !condition() {
        assert!(Instant::now() < until, "waited in vain for {what}");
        std::thread::yield_now();
        std::thread::sleep(Duration::from_millis(1));
    }
}

pub(crate) struct App(Arc<Seen>);

impl App {
    pub(crate) fn new(seen: Arc<Seen>) -> App {
        App(seen)
    }
}

/// Counts a request whose future was dropped before its end.
struct GivenUp<'a>(&'a Seen, bool);
impl Drop for GivenUp<'_> {
    fn drop(&mut self) {
        if !self.1 {
            self.0.given_up.fetch_add(1, SeqCst);
        }
    }
}

impl Service for App {
    async fn call(&self, request: Request, connection: &Arc<Connection>) -> Response {
        let seen = &self.0;
        seen.requests.lock().unwrap().push(format!("{} {}", request.method(), request.uri()));
        seen.server_names.lock().unwrap().push(connection.tls.as_ref().and_then(|tls| tls.server_name.clone()));
        let certificate = connection.tls.as_ref().and_then(|tls| tls.client_certificate);
        seen.client_certificates.lock().unwrap().push(certificate);
        let peer = connection.tls.as_ref().and_then(|tls| tls.peer.as_deref());
        seen.peers.lock().unwrap().push(peer.cloned());
        match request.uri().path() {
            "/echo" => Response::new(request.into_body()),
            "/read" => match request.into_body().read_all(1 << 20).await {
                Ok(bytes) => Response::new(Body::full(bytes)),
                Err(error) => {
                    seen.body_errors.lock().unwrap().push(error);
                    recorded(match error {
                        BodyError::TooLarge => 413,
                        BodyError::Stalled => 408,
                        _ => 502,
                    })
                }
            },
            "/judge" => match request.into_body().read_all(1 << 20).await {
                Ok(bytes) => Response::new(Body::full(bytes)),
                Err(_) => {
                    let mut response = recorded(422);
                    *response.body_mut() = Body::full("judged");
                    response
                }
            },
            "/late" => {
                seen.go.notified().await;
                let (mut sender, body) = Body::stream(1);
                // Ready with the head, so that both are one write and nothing follows it.
                sender.send("late").await.unwrap();
                let seen = Arc::clone(seen);
                tokio::spawn(async move {
                    sender.closed().await;
                    seen.given_up.fetch_add(1, SeqCst);
                });
                Response::new(body)
            }
            "/count" => {
                let mut body = request.into_body();
                let mut bytes = 0;
                while let Ok(Some(data)) = body.next_data().await {
                    bytes += data.len();
                }
                Response::new(Body::full(bytes.to_string()))
            }
            "/keep" => {
                seen.kept.lock().unwrap().push(request.into_body());
                Response::new(Body::full("kept"))
            }
            "/elsewhere" => {
                let _given_up = GivenUp(seen, false);
                let mut body = request.into_body();
                let read = tokio::spawn(async move { while let Ok(Some(_)) = body.next_data().await {} });
                // Its end is nothing to the task that answers: that one waits for ever.
                drop(read);
                std::future::pending().await
            }
            "/refuse" => status(413),
            "/big" => {
                let (mut sender, body) = Body::stream(2);
                tokio::spawn(async move {
                    for _ in 0..1024 {
                        if sender.send(vec![b'x'; 64 * 1024]).await.is_err() {
                            return;
                        }
                    }
                });
                Response::new(body)
            }
            "/events" => {
                let (mut sender, body) = Body::stream(1);
                let seen = Arc::clone(seen);
                tokio::spawn(async move {
                    for event in 0..1000 {
                        if sender.send(format!("data: {event}\n\n")).await.is_err() {
                            break;
                        }
                        tokio::select! { () = seen.go.notified() => {}, () = sender.closed() => break }
                    }
                    seen.given_up.fetch_add(1, SeqCst);
                });
                Response::new(body)
            }
            "/wait" => {
                let mut given_up = GivenUp(seen, false);
                seen.go.notified().await;
                given_up.1 = true;
                Response::new(Body::full("waited"))
            }
            "/panic" => panic!("as asked"),
            _ => Response::new(Body::full("hello")),
        }
    }
    fn refused(&self, refusal: Refusal, _: &Connection) {
        self.0.refusals.lock().unwrap().push(refusal);
    }
    fn panicked(&self, _: &Connection) {
        self.0.panics.fetch_add(1, SeqCst);
    }
}

fn status(status: u16) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = http::StatusCode::from_u16(status).unwrap();
    response
}

/// An answer that names the record of its request.
fn recorded(code: u16) -> Response {
    let mut response = status(code);
    response.headers_mut().insert("countersign-decision", "d-1".parse().unwrap());
    response
}

pub(crate) struct TestServer {
    pub(crate) server: Option<Server>,
    pub(crate) address: SocketAddr,
    pub(crate) seen: Arc<Seen>,
}

pub(crate) fn start() -> TestServer {
    start_with(|_| {})
}

pub(crate) fn start_with(change: impl FnOnce(&mut ServerSettings)) -> TestServer {
    let mut settings = ServerSettings {
        listen: vec!["127.0.0.1:0".parse().unwrap()],
        tls: None,
        preamble: None,
        limits: Limits::default(),
        timeouts: Timeouts::default(),
        workers: 1,
    };
    change(&mut settings);
    let seen = Arc::new(Seen::default());
    let shared = Arc::clone(&seen);
    let server = Server::start(settings, move |_| App(Arc::clone(&shared))).unwrap();
    TestServer { address: server.addresses()[0], server: Some(server), seen }
}

/// Short enough to be waited for, long enough for a loaded machine.
pub(crate) fn short() -> Timeouts {
    let short = Duration::from_millis(300);
    Timeouts { handshake: short, header: short, idle: short, body_stall: short }
}

pub(crate) fn identity(name: &str) -> TlsIdentity {
    let pair = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    TlsIdentity {
        certificate_pem: pair.cert.pem().into(),
        key_pem: pair.signing_key.serialize_pem().into(),
        client_certificates: None,
    }
}

impl TestServer {
    pub(crate) fn connect(&self) -> Raw {
        Raw::connect(self.address)
    }
    /// Sends everything at once and reads until the server closes.
    pub(crate) fn talk(&self, bytes: impl AsRef<[u8]>) -> String {
        let mut raw = self.connect();
        raw.send(bytes);
        raw.read_to_end()
    }
    pub(crate) fn requests(&self) -> Vec<String> {
        self.seen.requests.lock().unwrap().clone()
    }
}

pub(crate) struct Raw {
    pub(crate) stream: TcpStream,
    unread: Vec<u8>,
}

impl Raw {
    pub(crate) fn connect(address: SocketAddr) -> Raw {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream.set_write_timeout(Some(LIMIT)).unwrap();
        stream.set_nodelay(true).unwrap();
        Raw { stream, unread: Vec::new() }
    }
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).unwrap();
    }
    pub(crate) fn get(&mut self, path: &str) {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: a.example\r\n\r\n"));
    }
    fn more(&mut self) -> bool {
        let mut buffer = [0; 64 * 1024];
        let count = self.stream.read(&mut buffer).unwrap();
        self.unread.extend_from_slice(&buffer[..count]);
        count > 0
    }
    /// Everything up to and including `mark`.
    #[track_caller]
    pub(crate) fn read_until(&mut self, mark: &str) -> String {
        loop {
            if let Some(at) = memchr::memmem::find(&self.unread, mark.as_bytes()) {
                let rest = self.unread.split_off(at + mark.len());
                return String::from_utf8_lossy(&std::mem::replace(&mut self.unread, rest)).into_owned();
            }
            assert!(self.more(), "closed before {mark:?}: {}", self.unread.escape_ascii());
        }
    }
    #[track_caller]
    pub(crate) fn read_to_end(&mut self) -> String {
        while self.more() {}
        String::from_utf8_lossy(&std::mem::take(&mut self.unread)).into_owned()
    }
    /// One answer with `Content-Length`, and its body.
    #[track_caller]
    pub(crate) fn answer(&mut self) -> (String, String) {
        let head = self.read_until("\r\n\r\n").to_ascii_lowercase();
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))
            .map_or(0, |length| length.trim().parse::<usize>().unwrap());
        while self.unread.len() < length {
            assert!(self.more(), "closed within a body");
        }
        let rest = self.unread.split_off(length);
        (head, String::from_utf8_lossy(&std::mem::replace(&mut self.unread, rest)).into_owned())
    }
    pub(crate) fn shut_down_sending(&self) {
        self.stream.shutdown(std::net::Shutdown::Write).unwrap();
    }
    pub(crate) fn exact(&mut self, count: usize) -> Option<Vec<u8>> {
        while self.unread.len() < count {
            // A reset counts as closed: what matters here is that the server ended it.
            let mut buffer = [0; 64 * 1024];
            match self.stream.read(&mut buffer) {
                Ok(0) => return None,
                Ok(count) => self.unread.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("{error}"),
            }
        }
        let rest = self.unread.split_off(count);
        Some(std::mem::replace(&mut self.unread, rest))
    }
}
