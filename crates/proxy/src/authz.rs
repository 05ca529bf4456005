//! The authz role: a proxy that already stands in front of the services asks for each request, and gets the edge's verdict
//! and Txn-Token. Over HTTP for nginx `auth_request`, Traefik, Caddy and Envoy (`subrequest`), over gRPC for Envoy (`envoy`).
//!
//! It forwards nothing and cannot rewrite what the proxy sends, so it judges the very bytes the proxy names and refuses what
//! it would have had to change. One listener speaks one of the two: a client's own request must never pass for a question.

mod envoy;
mod subrequest;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::HeaderMap;
use http::header::HOST;
use net::{Connection, Refusal, Request, Response, Seldom};
use trust::reason::Reason;
use wire::network::Network;
use wire::question::{Places, Question};

use crate::answer::Form;
use crate::audit::record::{Asker, RequestFacts, Socket};
use crate::clock::UnixMs;
use crate::judge::recording::{self, Recording};
use crate::judge::{self, Asked, Client, Judge, Judged, Shared, Stop};

/// A proxy that asks wrongly does so with every request: the log says it this often.
const SAY_AGAIN: Duration = Duration::from_secs(10);

/// Who may ask, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    pub from: From,
    /// Addresses of the proxies; everybody else is refused, but who comes through a Unix-domain socket.
    pub callers: Vec<Network>,
}

/// How the question comes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum From {
    Http {
        places: Places,
        statuses: Statuses,
        /// How to mend a proxy that leaves a field out, for the log.
        mend: &'static str,
    },
    /// Envoy's `ext_authz` over gRPC.
    Grpc,
}

/// Which statuses the proxy can make use of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Statuses {
    /// All: the proxy passes our answer on.
    Full,
    /// Envoy takes 5xx for "nobody answers", and lets the request pass where it is told to then: 403 in their place.
    NoServerErrors,
    /// nginx `auth_request` knows 401 and 403, and makes 500 of any other.
    AuthRequest,
}

/// One worker of the authz role.
pub struct Authz {
    judge: Judge,
    settings: Arc<Settings>,
    said: Seldom,
}

impl Authz {
    pub fn new(shared: Arc<Shared>, settings: Arc<Settings>) -> Authz {
        Authz { judge: Judge::new(shared), settings, said: Seldom::every(SAY_AGAIN) }
    }

    async fn answer(&self, request: Request, connection: &Arc<Connection>) -> Response {
        let now = UnixMs::now();
        let caller = connection.remote.ip().to_canonical();
        // Whoever came through a socket's file was let in by its owner and mode.
        if !connection.is_unix() && !self.settings.callers.iter().any(|network| network.contains(caller)) {
            return self.refuse_caller(caller).await;
        }
        match &self.settings.from {
            From::Http { places, statuses, mend } => {
                let way = subrequest::Way { places, statuses: *statuses, mend };
                self.answer_subrequest(request, &way, connection, now).await
            }
            From::Grpc => self.answer_envoy(request, connection, now).await,
        }
    }

    /// Not recorded: anybody could fill the disk. Counted, and logged now and then.
    async fn refuse_caller(&self, caller: IpAddr) -> Response {
        self.judge.shared.metrics.authz_caller_refused();
        if self.said.is_due(Instant::now()) {
            tracing::warn!(%caller, "asked for a verdict, but is not among `authz.callers`; add it there if it is a proxy of yours");
        }
        let stop = Stop::new(Reason::ProxyRefused, "");
        match self.settings.from {
            From::Http { .. } => subrequest::unrecorded(&stop),
            From::Grpc => envoy::unrecorded(&stop).await,
        }
    }

    /// The question judged as the edge would judge the request itself. `headers` are the client's, cleaned; their `Host`
    /// becomes the request's, for a proof of possession is made for that and not for our own address.
    async fn verdict(
        &self,
        question: &Question,
        headers: &mut HeaderMap,
        recording: &mut Recording,
        now: UnixMs,
    ) -> Result<Judged, Stop> {
        recording.https(question.https);
        headers.insert(HOST, question.authority.clone());
        let view = self.judge.begin(&question.method, recording)?;
        recording.host(&question.host);
        let place = judge::route(view, &question.host, &question.target, recording)?;
        // The proxy sends the path as it stands.
        judge::refuse_other_bytes(&place, &question.target)?;
        let client = Client { ip: question.address, https: question.https, certificate: None };
        let asked = Asked { method: &question.method, host: &question.host, target: &question.target, headers, client };
        let judged = self.judge.judge(place, asked, recording, now).await?;
        // It may have been routed anew, to a service that tolerates something else.
        judge::refuse_other_bytes(&judged.place, &question.target)?;
        Ok(judged)
    }

    fn record(&self, facts: RequestFacts, headers: &HeaderMap, id: String, now: UnixMs) -> Recording {
        self.judge.record(facts, headers, id, now)
    }

    /// A proxy that does not say what it must is its operator's to mend: no client can.
    fn log_misconfigured(&self, caller: IpAddr, what: &str, mend: &str) {
        if self.said.is_due(Instant::now()) {
            tracing::warn!(proxy = %caller, what, mend, "a proxy asks in a way that cannot be judged; its requests are refused");
        }
    }
}

impl net::Service for Authz {
    fn call(&self, request: Request, connection: &Arc<Connection>) -> impl Future<Output = Response> + Send {
        self.answer(request, connection)
    }

    fn refused(&self, refusal: Refusal, connection: &Connection) {
        self.judge.shared.refused(refusal, connection);
    }

    fn panicked(&self, connection: &Connection) {
        self.judge.shared.panicked(connection);
    }
}

/// The form of a refusal to this client. Never a gRPC status: that is a 200, which a proxy that asks takes for a yes.
fn form(question: &Question, headers: &HeaderMap) -> Form {
    match Form::of(&question.method, headers) {
        Form::Page => Form::Page,
        Form::Problem | Form::Head | Form::Grpc { .. } => Form::Problem,
    }
}

/// What is known before the question could be read.
fn unread(request: &Request, connection: &Connection) -> RequestFacts {
    let facts = recording::facts(request, connection);
    let proxy = match connection.is_unix() {
        true => Some(Asker::Socket(Socket::Unix)),
        false => facts.client_ip.map(Asker::Address),
    };
    RequestFacts { proxy, client_ip: None, tls: None, ..facts }
}

fn read(facts: RequestFacts, question: &Question) -> RequestFacts {
    RequestFacts {
        method: recording::method(&question.method),
        path: crate::audit::record::bounded(question.target.path()),
        client_ip: Some(question.address),
        ..facts
    }
}
