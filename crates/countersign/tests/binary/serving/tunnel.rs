//! Both ends of a WebSocket in raw bytes: an upstream that makes of a handshake what the test says, and a client.
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use http::HeaderValue;
use testkit::client::{Connection, Response};

use super::LIMIT;

/// RFC 6455 §1.2
pub(crate) const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
pub(crate) const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// What an upstream makes of one request.
#[derive(Clone)]
pub(crate) enum Answer {
    /// 101 as it should be, then every byte back.
    Echo,
    /// These bytes, and every byte back after them.
    Bytes(String),
    /// As `Echo`, once the test says so.
    Late(Arc<Mutex<std::sync::mpsc::Receiver<()>>>),
}

/// An upstream that notes heads and what came after them.
pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
    after: Arc<Mutex<Vec<u8>>>,
    ended: Arc<Mutex<usize>>,
}

impl Peer {
    pub(crate) fn start(answer: Answer) -> Peer {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let peer = Peer { address, heads: Arc::default(), after: Arc::default(), ended: Arc::default() };
        let (heads, after, ended) = (Arc::clone(&peer.heads), Arc::clone(&peer.after), Arc::clone(&peer.ended));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (answer, heads, after) = (answer.clone(), Arc::clone(&heads), Arc::clone(&after));
                let ended = Arc::clone(&ended);
                std::thread::spawn(move || {
                    serve(stream, &answer, &heads, &after);
                    *ended.lock().unwrap() += 1;
                });
            }
        });
        peer
    }

    /// Every request head so far.
    pub(crate) fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }

    /// Every byte that came after a head.
    pub(crate) fn after(&self) -> String {
        String::from_utf8_lossy(&self.after.lock().unwrap()).into_owned()
    }

    /// Connections that ended.
    pub(crate) fn ended(&self) -> usize {
        *self.ended.lock().unwrap()
    }
}

fn serve(mut stream: TcpStream, answer: &Answer, heads: &Mutex<Vec<String>>, after: &Mutex<Vec<u8>>) {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        if !stream.read(&mut byte).is_ok_and(|read| read == 1) {
            return;
        }
        head.extend_from_slice(&byte);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let key = head.lines().find_map(|line| line.strip_prefix("sec-websocket-key: ")).unwrap_or_default().to_owned();
    heads.lock().unwrap().push(head);
    if let Answer::Late(go) = answer {
        let _ = go.lock().unwrap().recv_timeout(LIMIT);
    }
    let reply = match answer {
        Answer::Echo | Answer::Late(_) => switching(&key),
        Answer::Bytes(bytes) => bytes.clone(),
    };
    if stream.write_all(reply.as_bytes()).is_err() {
        return;
    }
    let mut buffer = [0; 64 * 1024];
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        after.lock().unwrap().extend_from_slice(&buffer[..count]);
        if stream.write_all(&buffer[..count]).is_err() {
            return;
        }
    }
}

fn switching(key: &str) -> String {
    let accept = HeaderValue::from_str(key).ok().and_then(|key| wire::websocket::accept_of(&key));
    let accept = accept.as_ref().and_then(|accept| accept.to_str().ok()).unwrap_or("none").to_owned();
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\nsec-websocket-accept: {accept}\r\n\r\n"
    )
}

/// A client's handshake for `path`, with these fields besides.
pub(crate) fn handshake(path: &str, fields: &[(&str, &str)]) -> String {
    let mut head = format!(
        "GET {path} HTTP/1.1\r\nhost: shop.acme.example\r\nupgrade: websocket\r\nconnection: keep-alive, Upgrade\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: {KEY}\r\n"
    );
    for (name, value) in fields {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head + "\r\n"
}

/// The client's end.
pub(crate) struct Client {
    pub(crate) connection: Connection,
}

impl Client {
    pub(crate) fn connect(edge: SocketAddr) -> Client {
        Client { connection: Connection::open(edge) }
    }

    /// Opens a WebSocket, or gives the answer back that it got instead.
    pub(crate) fn open(edge: SocketAddr, path: &str, fields: &[(&str, &str)]) -> Result<Client, Response> {
        let mut client = Client::connect(edge);
        client.send(handshake(path, fields));
        let answer = client.answer();
        if answer.status != 101 {
            return Err(answer);
        }
        assert_eq!(answer.field("sec-websocket-accept"), Some(ACCEPT), "{answer:?}");
        assert_eq!(answer.field("upgrade").map(str::to_ascii_lowercase).as_deref(), Some("websocket"), "{answer:?}");
        Ok(client)
    }

    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.connection.write(bytes).unwrap();
    }

    pub(crate) fn answer(&mut self) -> Response {
        self.connection.read().expect("an answer")
    }

    /// So many bytes of what follows.
    pub(crate) fn receive(&mut self, count: usize) -> String {
        String::from_utf8_lossy(&self.connection.read_bytes(count).expect("bytes")).into_owned()
    }

    /// What comes until the end.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        self.connection.read_to_end()
    }
}
