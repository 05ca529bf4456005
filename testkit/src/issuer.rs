//! Our own OpenID provider: discovery and keys over HTTP, any token, and every way of failing that the field has seen.
use std::hash::{Hash, Hasher};
use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use crate::http1::{Connection, Head, Listener, answer, lock, read_sized};
use crate::signing::{Kind, SigningKey, overlay};

/// How an endpoint answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// As it should.
    None,
    Status(u16),
    /// Accepts and never answers.
    Hang,
    /// 200 with an HTML page.
    Html,
    /// 200 with `{"keys":[]}`.
    EmptyKeys,
    /// 200 with 10 MB of JSON.
    Huge,
    /// A good head, then one byte now and then.
    Slowloris,
    /// 302 to this place.
    Redirect(String),
    /// Closes without a word.
    Close,
    /// 200 with exactly this body.
    Body(String),
}

/// What a rotation does with the keys that were there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OldKeys {
    Keep,
    Drop,
}

struct State {
    keys: Vec<Arc<SigningKey>>,
    keys_made: usize,
    jwks_fault: Fault,
    discovery_fault: Fault,
    cache_control: Option<String>,
    etag: bool,
    date: Option<String>,
    more: Value,
    issuer: Option<String>,
    jwks_uri: Option<String>,
    delay: Duration,
    introspection: Value,
    introspection_fault: Fault,
    introspection_type: String,
    introspected: Vec<Introspected>,
}

/// One question about a token, as it came.
#[derive(Debug, Clone)]
pub struct Introspected {
    pub authorization: String,
    pub accept: String,
    pub form: String,
}

#[derive(Default)]
struct Counts {
    jwks: AtomicUsize,
    not_modified: AtomicUsize,
    discovery: AtomicUsize,
}

/// A running issuer. Its identifier is `http://127.0.0.1:<port>`.
pub struct Issuer {
    state: Arc<Mutex<State>>,
    counts: Arc<Counts>,
    listener: Listener,
}

impl Issuer {
    /// With one ES256 key.
    pub fn start() -> Issuer {
        Issuer::start_with(&[Kind::Es256])
    }

    /// With one key of each of these kinds; the first one signs.
    pub fn start_with(kinds: &[Kind]) -> Issuer {
        let state = Arc::new(Mutex::new(State {
            keys: Vec::new(),
            keys_made: 0,
            jwks_fault: Fault::None,
            discovery_fault: Fault::None,
            cache_control: None,
            etag: false,
            date: None,
            more: json!({}),
            issuer: None,
            jwks_uri: None,
            delay: Duration::ZERO,
            introspection: json!({"active": false}),
            introspection_fault: Fault::None,
            introspection_type: "application/json".into(),
            introspected: Vec::new(),
        }));
        let counts: Arc<Counts> = Arc::default();
        let (shared, counted) = (Arc::clone(&state), Arc::clone(&counts));
        let listener = Listener::start(None, move |connection| serve(connection, &shared, &counted));
        let issuer = Issuer { state, counts, listener };
        for kind in kinds {
            issuer.add_key(*kind);
        }
        issuer
    }

    /// The issuer identifier.
    pub fn url(&self) -> String {
        format!("http://{}", self.listener.address())
    }

    pub fn jwks_url(&self) -> String {
        format!("{}/jwks", self.url())
    }

    pub fn address(&self) -> std::net::SocketAddr {
        self.listener.address()
    }

    /// Publishes one more key, under a kid that was never used before.
    pub fn add_key(&self, kind: Kind) -> Arc<SigningKey> {
        let mut state = lock(&self.state);
        state.keys_made += 1;
        let kid = format!("{}-{}", kind.name().to_lowercase(), state.keys_made);
        let key = Arc::new(SigningKey::generate(kind, &kid));
        state.keys.push(Arc::clone(&key));
        key
    }

    /// A new key of the signing key's kind, which signs from now on.
    pub fn rotate(&self, old: OldKeys) -> Arc<SigningKey> {
        let kind = self.key().kind;
        let key = self.add_key(kind);
        let keys = &mut lock(&self.state).keys;
        match old {
            OldKeys::Drop => *keys = vec![Arc::clone(&key)],
            OldKeys::Keep => keys.rotate_right(1),
        }
        key
    }

    /// Other material under the signing key's kid.
    pub fn reuse_kid(&self) -> Arc<SigningKey> {
        let mut state = lock(&self.state);
        let key = Arc::new(SigningKey::generate(state.keys[0].kind, &state.keys[0].kid));
        state.keys[0] = Arc::clone(&key);
        key
    }

    /// Publishes exactly these keys; the first one signs.
    pub fn set_keys(&self, keys: Vec<Arc<SigningKey>>) {
        lock(&self.state).keys = keys;
    }

    /// The key that signs.
    pub fn key(&self) -> Arc<SigningKey> {
        Arc::clone(&lock(&self.state).keys[0])
    }

    /// The first published key of this kind.
    pub fn key_of(&self, kind: Kind) -> Arc<SigningKey> {
        Arc::clone(lock(&self.state).keys.iter().find(|key| key.kind == kind).expect("a key of this kind"))
    }

    /// The published document.
    pub fn jwks(&self) -> Value {
        json!({"keys": lock(&self.state).keys.iter().map(|key| key.jwk()).collect::<Vec<_>>()})
    }

    /// Claims of a good access token for five minutes. `extra` replaces members; `null` removes.
    pub fn claims(&self, sub: &str, audience: &str, extra: &Value) -> Value {
        let now = crate::unix_now();
        let base = json!({
            "iss": self.url(), "sub": sub, "aud": audience, "client_id": "testkit", "jti": format!("{sub}-{now}"),
            "iat": now, "exp": now + 300,
        });
        overlay(base, extra)
    }

    /// A good access token with `extra` claims.
    pub fn token(&self, sub: &str, audience: &str, extra: &Value) -> String {
        self.key().sign(&json!({}), &self.claims(sub, audience, extra))
    }

    /// Any header members, any claims, signed by the signing key.
    pub fn mint(&self, header: &Value, claims: &Value) -> String {
        self.key().sign(header, claims)
    }

    /// How the JWKS endpoint answers from now on.
    pub fn misbehave(&self, fault: Fault) {
        lock(&self.state).jwks_fault = fault;
    }

    /// How the discovery endpoint answers from now on.
    pub fn misbehave_in_discovery(&self, fault: Fault) {
        lock(&self.state).discovery_fault = fault;
    }

    /// `Cache-Control` of the JWKS answer; `None` leaves the field out.
    pub fn cache_control(&self, value: Option<&str>) {
        lock(&self.state).cache_control = value.map(str::to_owned);
    }

    /// Send an `ETag` and answer 304 to its `If-None-Match`.
    pub fn etag(&self, on: bool) {
        lock(&self.state).etag = on;
    }

    /// What discovery says `issuer` is; `None` is the truth.
    /// Tells the time this many seconds off.
    pub fn tell_time(&self, off_s: i64) {
        let now = std::time::SystemTime::now();
        let off = Duration::from_secs(off_s.unsigned_abs());
        let told = if off_s < 0 { now - off } else { now + off };
        lock(&self.state).date = Some(httpdate::fmt_http_date(told));
    }

    /// Further members of the discovery document.
    pub fn announce(&self, more: Value) {
        lock(&self.state).more = more;
    }

    pub fn claim_issuer(&self, issuer: Option<&str>) {
        lock(&self.state).issuer = issuer.map(str::to_owned);
    }

    /// What discovery says `jwks_uri` is; `None` is the truth.
    pub fn claim_jwks_uri(&self, uri: Option<&str>) {
        lock(&self.state).jwks_uri = uri.map(str::to_owned);
    }

    /// Every answer waits so long.
    pub fn delay(&self, delay: Duration) {
        lock(&self.state).delay = delay;
    }

    /// Connections are refused; open ones are cut.
    pub fn down(&self) {
        self.listener.down();
    }

    /// Listens again, on the same port.
    pub fn up(&self) {
        self.listener.up();
    }

    /// JWKS requests so far, 304s included.
    pub fn fetches(&self) -> usize {
        self.counts.jwks.load(Ordering::SeqCst)
    }

    /// JWKS requests answered with 304.
    pub fn not_modified(&self) -> usize {
        self.counts.not_modified.load(Ordering::SeqCst)
    }

    /// What every question about a token is answered with (RFC 7662); before that, nothing is active.
    pub fn introspect_as(&self, answer: Value) {
        lock(&self.state).introspection = answer;
    }

    /// The same, as this text of this media type.
    pub fn introspect_as_text(&self, media_type: &str, text: &str) {
        let mut state = lock(&self.state);
        state.introspection_type = media_type.to_owned();
        state.introspection_fault = Fault::Body(text.to_owned());
    }

    pub fn misbehave_in_introspection(&self, fault: Fault) {
        let mut state = lock(&self.state);
        state.introspection_type = "application/json".into();
        state.introspection_fault = fault;
    }

    /// Questions about tokens so far.
    pub fn introspected(&self) -> Vec<Introspected> {
        lock(&self.state).introspected.clone()
    }

    /// Discovery requests so far.
    pub fn discoveries(&self) -> usize {
        self.counts.discovery.load(Ordering::SeqCst)
    }
}

fn serve(mut connection: Connection, state: &Mutex<State>, counts: &Counts) {
    let here = |head: &Head| format!("http://{}", head.field("host").unwrap_or_default());
    while let Some(head) = Head::read(&mut connection.stream) {
        let target = head.first_line.split(' ').nth(1).unwrap_or_default().to_owned();
        std::thread::sleep(lock(state).delay);
        let (fault, fields, body) = if target == "/.well-known/openid-configuration" {
            counts.discovery.fetch_add(1, Ordering::SeqCst);
            let state = lock(state);
            let issuer = state.issuer.clone().unwrap_or_else(|| here(&head));
            let uri = state.jwks_uri.clone().unwrap_or_else(|| format!("{}/jwks", here(&head)));
            let document = json!({
                "issuer": issuer, "jwks_uri": uri, "response_types_supported": ["code"],
                "introspection_endpoint": format!("{}/introspect", here(&head)),
            });
            let fields = state.date.clone().map(|date| ("date", date)).into_iter().collect();
            (state.discovery_fault.clone(), fields, overlay(document, &state.more).to_string())
        } else if target == "/jwks" {
            counts.jwks.fetch_add(1, Ordering::SeqCst);
            let state = lock(state);
            let keys: Vec<_> = state.keys.iter().map(|key| key.jwk()).collect();
            let mut fields: Vec<(&str, String)> = Vec::new();
            fields.extend(state.date.clone().map(|date| ("date", date)));
            fields.extend(state.cache_control.clone().map(|value| ("cache-control", value)));
            if state.etag {
                let mut hasher = std::hash::DefaultHasher::new();
                keys.iter().for_each(|jwk| jwk.to_string().hash(&mut hasher));
                fields.push(("etag", format!("\"{:x}\"", hasher.finish())));
            }
            (state.jwks_fault.clone(), fields, json!({"keys": keys}).to_string())
        } else if target == "/introspect" {
            let mut form = Vec::new();
            let bytes = head.content_length().unwrap_or(0);
            if read_sized(&mut connection.stream, bytes, |piece| form.extend_from_slice(piece)).is_err() {
                return;
            }
            let field = |name: &str| head.field(name).unwrap_or_default().to_owned();
            let mut state = lock(state);
            state.introspected.push(Introspected {
                authorization: field("authorization"),
                accept: field("accept"),
                form: String::from_utf8_lossy(&form).into_owned(),
            });
            let fields = match &state.introspection_fault {
                Fault::Body(_) => vec![("content-type", state.introspection_type.clone())],
                _ => Vec::new(),
            };
            (state.introspection_fault.clone(), fields, state.introspection.to_string())
        } else {
            (Fault::Status(404), Vec::new(), String::new())
        };
        let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let etag = fields.iter().find(|(name, _)| *name == "etag").map(|(_, value)| *value);
        let unchanged = fault == Fault::None && etag.is_some() && etag == head.field("if-none-match");
        let sent = if unchanged {
            counts.not_modified.fetch_add(1, Ordering::SeqCst);
            answer(connection.stream.get_mut(), 304, &fields, b"")
        } else {
            answer_as(&mut connection, &fault, &fields, &body)
        };
        if sent.is_err() || fault == Fault::Close {
            return;
        }
    }
}

fn answer_as(connection: &mut Connection, fault: &Fault, fields: &[(&str, &str)], body: &str) -> std::io::Result<()> {
    let down = Arc::clone(&connection.down);
    let out = connection.stream.get_mut();
    match fault {
        Fault::None => answer(out, 200, &[fields, &[("content-type", "application/json")]].concat(), body.as_bytes()),
        Fault::Body(body) => answer(out, 200, fields, body.as_bytes()),
        Fault::Status(status) => answer(out, *status, &[], b"no"),
        Fault::Html => answer(out, 200, &[("content-type", "text/html")], b"<html><body>Please sign in</body></html>"),
        Fault::EmptyKeys => answer(out, 200, fields, br#"{"keys":[]}"#),
        Fault::Redirect(to) => answer(out, 302, &[("location", to)], b""),
        Fault::Huge => {
            let filler = format!("{{\"keys\":[],\"filler\":\"{}\"}}", "x".repeat(10 << 20));
            answer(out, 200, fields, filler.as_bytes())
        }
        Fault::Close => Ok(()),
        Fault::Hang => {
            until_down(&down, || Ok(()))?;
            Err(std::io::ErrorKind::ConnectionAborted.into())
        }
        Fault::Slowloris => {
            out.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n{")?;
            out.flush()?;
            until_down(&down, || out.write_all(b" ").and_then(|()| out.flush()))?;
            Err(std::io::ErrorKind::ConnectionAborted.into())
        }
    }
}

/// One step every 20 ms until the listener goes down, the step fails, or a minute is over.
fn until_down(
    down: &std::sync::atomic::AtomicBool,
    mut step: impl FnMut() -> std::io::Result<()>,
) -> std::io::Result<()> {
    for _ in 0..3000 {
        if down.load(Ordering::SeqCst) {
            break;
        }
        step()?;
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
