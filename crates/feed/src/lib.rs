//! The contract between control and data plane: the whole state a data plane needs (`Snapshot`), its version (`epoch`),
//! and what a data plane may ask for. Both planes name this crate and never each other.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use trust::issuer::{Profile, SenderConstrained};
use trust::keys::IssuerKeys;
use trust::policy::ServicePolicy;

/// What the operator wants, from the files: control adds keys and an epoch and publishes a [`Snapshot`].
#[derive(Clone)]
pub struct Desired {
    pub trust_domain: Arc<str>,
    pub issuers: Vec<Arc<Profile>>,
    pub services: Vec<Arc<Service>>,
    /// Where issuers are asked about tokens; one for each profile that has `introspect`.
    pub introspection: Vec<Arc<Introspection>>,
    /// Where groups are asked for that tokens leave out; one for each profile that has `overage`.
    pub graph: Vec<Arc<Graph>>,
}

/// How Microsoft Graph is asked for the groups of one issuer's people.
pub struct Graph {
    /// Configured name of the issuer.
    pub issuer: Arc<str>,
    pub client_id: String,
    pub auth: ClientAuth,
    /// Without a slash at the end, e.g. `https://graph.microsoft.com`.
    pub endpoint: String,
    /// Where tokens for Graph come from, without a slash at the end, e.g. `https://login.microsoftonline.com`.
    pub login: String,
}

/// How one issuer is asked about tokens (RFC 7662).
pub struct Introspection {
    /// Configured name of the issuer.
    pub issuer: Arc<str>,
    /// `None`: what discovery says, on the issuer's own host.
    pub endpoint: Option<String>,
    pub client_id: String,
    pub auth: ClientAuth,
    /// Only signed answers (RFC 9701) are taken.
    pub signed: bool,
}

/// How we prove to an issuer that we are the client we say.
pub enum ClientAuth {
    /// What both know.
    Secret(Secret),
    /// A key whose public half the issuer knows (RFC 7523, `private_key_jwt`).
    Key {
        key: trust::client_key::ClientKey,
        /// Whom assertions name as their reader; `None`: as the issuer's kind of endpoint has it.
        audience: Option<String>,
    },
}

/// Something nobody else may know. It cannot be printed, copied or compared, and is wiped on drop.
pub struct Secret(zeroize::Zeroizing<String>);

impl Secret {
    pub fn new(text: zeroize::Zeroizing<String>) -> Secret {
        Secret(text)
    }

    /// For sending it to whom it is shared with, and for nothing else.
    pub fn danger_reveal(&self) -> &str {
        &self.0
    }
}

/// One protected service, ready to enforce.
pub struct Service {
    pub name: Arc<str>,
    /// `None`: only proxies that ask protect it; the edge forwards nothing there.
    pub upstream: Option<Upstream>,
    pub expose: Vec<Expose>,
    pub policy: ServicePolicy,
    /// `tolerate:` of the file: what the path normaliser lets through.
    pub tolerance: trust::path::Tolerance,
    pub body_bytes_max: u64,
    /// Whole exchange, from the request's head to the answer's head.
    pub request_timeout: Duration,
    /// Refuse requests that cannot be recorded (`strict`), or count and alarm.
    pub strict: bool,
    /// Whether the caller's own access token goes on to the upstream.
    pub authorization: Authorization,
    /// Whether a token that anybody could use who has it is good enough for this service.
    pub sender_constrained: SenderConstrained,
    /// How long one Txn-Token may be reused for equal requests; zero = never.
    pub txn_reuse: Duration,
    /// `None`: what the service itself says about other origins goes on as it is.
    pub cors: Option<Box<Cors>>,
    /// Served to clients that look for it (RFC 9728).
    pub resource: Option<Box<Resource>>,
    /// `None`: no WebSocket is opened to this service.
    pub websocket: Option<WebSocket>,
}

/// Which scripts of other origins may read the service's answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cors {
    pub origins: CorsOrigins,
    pub methods: Vec<String>,
    /// Request fields that a script may set.
    pub headers: Vec<String>,
    /// Answer fields that a script may read, as the list that every answer carries.
    pub expose: String,
    pub credentials: bool,
    /// How long a browser may remember the answer to a preflight.
    pub max_age: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CorsOrigins {
    Any,
    /// As browsers write them: scheme, host, and a port that is not the scheme's own.
    Listed(Vec<String>),
}

/// Protected resource metadata (RFC 9728).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    /// Lower-case host of the resource, without port.
    pub host: String,
    /// Where the document is: `/.well-known/oauth-protected-resource`, then the resource's own path.
    pub path: String,
    /// Its full URL, for challenges.
    pub url: String,
    /// JSON.
    pub document: Arc<str>,
}

/// What a WebSocket to a service may do besides what its rules say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebSocket {
    /// Origins of pages that may open one, besides pages of the request's own host: `scheme://host[:port]`, in lower case.
    pub origins: Vec<String>,
    /// It is closed when no byte went either way for so long.
    pub idle_timeout: Duration,
}

/// What becomes of the `Authorization` field once its token was verified.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Authorization {
    /// The upstream gets the Txn-Token only and cannot replay the caller's token elsewhere.
    #[default]
    Strip,
    /// For upstreams that verify the issuer's token themselves.
    Pass,
}

/// Where a service is reachable on the edge. More than one entry is possible.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expose {
    /// Lower-case host without port, or `*`.
    pub host: String,
    pub path: trust::path::Pattern,
}

/// Where a service runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstream {
    pub endpoints: Endpoints,
    pub protocol: Protocol,
    /// Set for https: whom to expect, and who we are.
    pub tls: Option<UpstreamTls>,
    pub connect_timeout: Duration,
    pub first_byte_timeout: Duration,
    pub idle_timeout: Duration,
    /// A connection this old takes no new request.
    pub max_age: Duration,
    pub outliers: Outliers,
    /// `None`: nobody asks whether they are well.
    pub health: Option<HealthCheck>,
    pub retries: Option<Retries>,
    /// Tell each endpoint the client's address before the first byte.
    pub proxy_protocol: Option<ProxyProtocol>,
}

impl Upstream {
    /// Plain HTTP/1.1 with what holds where nothing else is asked for.
    pub fn plain(endpoints: Endpoints) -> Upstream {
        let seconds = Duration::from_secs;
        Upstream {
            endpoints,
            protocol: Protocol::Http1,
            tls: None,
            connect_timeout: seconds(3),
            first_byte_timeout: seconds(30),
            idle_timeout: seconds(30),
            max_age: seconds(600),
            outliers: Outliers {
                failures: 5,
                base: seconds(5),
                longest: seconds(300),
                ceiling_percent: 50,
                slow_start: seconds(15),
            },
            health: None,
            retries: None,
            proxy_protocol: None,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoints {
    Listed(Vec<Address>),
    /// Every address of this name, looked up anew after each `refresh`.
    Dns {
        address: Address,
        refresh: Duration,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// Name or IP literal (IPv6 without brackets).
    pub host: String,
    pub port: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    Http1,
    /// h2 over TLS, h2c by prior knowledge without.
    Http2,
    /// As `Http2`, for a service that takes gRPC calls: their streams have no bound but for each message, and wait for as
    /// long as the caller does.
    Grpc,
}

impl Protocol {
    pub fn is_http2(self) -> bool {
        matches!(self, Protocol::Http2 | Protocol::Grpc)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamTls {
    /// The name to send, and to verify where no SPIFFE ID is expected.
    pub server_name: String,
    /// The workload to expect, vouched for by `roots_pem` alone.
    pub spiffe_id: Option<trust::spiffe::SpiffeId>,
    /// PEM of extra roots (`ca_file`), already read; the platform's roots otherwise.
    pub roots_pem: Option<Arc<[u8]>>,
    /// Our own certificate towards this upstream.
    pub identity: Option<Arc<ClientIdentity>>,
}

/// Certificate chain and key as PEM. The key is never printed or copied, and wiped in the end.
#[derive(PartialEq, Eq)]
pub struct ClientIdentity {
    pub certificate_pem: Vec<u8>,
    pub key_pem: zeroize::Zeroizing<Vec<u8>>,
}

impl std::fmt::Debug for ClientIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ClientIdentity")
    }
}

/// When an endpoint that fails is put aside, and how it comes back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outliers {
    /// Failures in a row.
    pub failures: u32,
    /// The first time so long, each time twice as long, up to `longest`.
    pub base: Duration,
    pub longest: Duration,
    /// At most this part of the endpoints at once.
    pub ceiling_percent: u32,
    pub slow_start: Duration,
}

/// One request to each endpoint every so often.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthCheck {
    pub path: String,
    pub interval: Duration,
    pub timeout: Duration,
    pub healthy_after: u32,
    pub unhealthy_after: u32,
    /// Statuses of a passed check.
    pub expect: std::ops::RangeInclusive<u16>,
}

/// What is tried again, besides what is always safe: idempotent requests without a body only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retries {
    pub reset: bool,
    pub connect: bool,
    pub statuses: Vec<u16>,
    /// Tries besides the first.
    pub attempts: u32,
    /// Retries per hundred requests.
    pub budget_percent: u32,
    pub per_try_timeout: Option<Duration>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyProtocol {
    V1,
    V2,
}

/// One issuer as a data plane sees it.
#[derive(Clone)]
pub struct Issuer {
    pub profile: Arc<Profile>,
    pub keys: IssuerKeys,
}

/// Everything one request is judged against. Immutable; a change is a new snapshot with a higher epoch.
pub struct Snapshot {
    pub epoch: u64,
    pub trust_domain: Arc<str>,
    pub issuers: Vec<Issuer>,
    pub services: Vec<Arc<Service>>,
}

/// Where the current snapshot stands. `None` until the first: a data plane is not ready before it.
#[derive(Clone, Default)]
pub struct Current(Arc<arc_swap::ArcSwapOption<Snapshot>>);

impl Current {
    pub fn new() -> Current {
        Current::default()
    }

    /// The snapshot to judge one request against.
    pub fn load(&self) -> Option<Arc<Snapshot>> {
        self.0.load_full()
    }

    /// Cheap borrow for the hot path.
    pub fn peek(&self) -> arc_swap::Guard<Option<Arc<Snapshot>>> {
        self.0.load()
    }

    /// Publishes a snapshot. An epoch that does not grow is ignored and `false` is returned.
    pub fn publish(&self, next: Arc<Snapshot>) -> bool {
        let mut published = false;
        self.0.rcu(|now| {
            published = now.as_ref().is_none_or(|now| now.epoch < next.epoch);
            if published { Some(Arc::clone(&next)) } else { now.clone() }
        });
        published
    }
}

/// What became of a request for an unknown key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyDemandOutcome {
    /// The key sets were refreshed; look again in the current snapshot.
    Refreshed,
    /// Refused without a fetch: this kid is known to be unknown, or the fetch budget is spent.
    Throttled { next_allowed_s: u64 },
    /// The issuer could not be reached.
    Unreachable,
}

/// What became of a question about a token.
#[derive(Debug, Clone)]
pub enum IntrospectionOutcome {
    /// The issuer's answer, not judged yet, and the Unix second in which it was asked. An answer may serve several
    /// requests for [`trust::token::ANSWER_LIFE_S`] from then on.
    Answered { answer: Arc<trust::json::Object>, asked_at: i64 },
    /// There is no answer that could be believed: why, for operators. Nobody may be let in.
    Unavailable(Arc<str>),
}

/// A data plane that met a token only its issuer can read asks control through this. Implementations bound the wait to 2 s,
/// ask once for all who ask about the same token, and bound how many questions are open.
pub trait Introspect: Send + Sync {
    /// `token_sha256` is the hash of `token`'s text.
    fn introspect<'a>(
        &'a self,
        issuer: &'a str,
        token: &'a str,
        token_sha256: [u8; 32],
    ) -> Pin<Box<dyn Future<Output = IntrospectionOutcome> + Send + 'a>>;
}

/// How long the groups of one answer count after they were asked for, in seconds.
pub const GROUPS_LIFE_S: i64 = 300;
/// After a failure they are asked for again after so many seconds.
pub const GROUPS_FAILED_S: i64 = 10;

/// What became of a question for groups.
#[derive(Debug, Clone)]
pub enum GroupsOutcome {
    /// All of them, and the Unix second in which they were asked for.
    Known { groups: Arc<[Arc<str>]>, asked_at: i64 },
    /// Why they stay unknown, for operators.
    Unknown(Arc<str>),
}

/// A data plane that met a token which leaves groups out asks control through this. Implementations bound the wait to 3 s,
/// ask once for all who ask about the same person, and bound how many questions are open.
pub trait Groups: Send + Sync {
    fn groups<'a>(
        &'a self,
        issuer: &'a str,
        whose: &'a trust::token::Overage,
    ) -> Pin<Box<dyn Future<Output = GroupsOutcome> + Send + 'a>>;
}

/// A data plane that met an unknown `kid` asks control through this. Implementations bound the wait to 2 s and the
/// number of waiters.
pub trait KeyDemand: Send + Sync {
    fn unknown_kid<'a>(
        &'a self,
        issuer: &'a str,
        kid: Option<&'a str>,
    ) -> Pin<Box<dyn Future<Output = KeyDemandOutcome> + Send + 'a>>;
    /// A known key did not fit a signature: providers do reuse a kid with new material. At most a rate-limited fetch.
    fn signature_bad<'a>(
        &'a self,
        issuer: &'a str,
        kid: Option<&'a str>,
    ) -> Pin<Box<dyn Future<Output = KeyDemandOutcome> + Send + 'a>>;
}
