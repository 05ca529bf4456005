//! Life of a request at the edge: route, clean, identify, decide, stamp, forward, record.
//!
//! Each step takes what the step before proved. Nothing is forwarded without a permit, and every request that got this
//! far leaves one audit record, also when its task is dropped.

mod identify;
mod recording;
mod stamp;
#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use feed::{Authorization, KeyDemand};
use http::header::{AUTHORIZATION, HOST};
use http::{HeaderValue, Method, Uri};
use net::upstream::{ForwardError, Pool};
use net::{Body, BodyError, Connection, Refusal, Request, Response};
use trust::path::NormalPath;
use trust::policy::{Input, Peer, Permit, StepUp, Verdict};
use trust::principal::Principal;
use trust::reason::Reason;

use crate::answer::{self, DECISION_HEADER};
use crate::audit::{Audit, Health};
use crate::clock::UnixMs;
use crate::ids::Ids;
use crate::metrics::Metrics;
use crate::minter::Minter;
use crate::token_cache::TokenCache;
use crate::view::{Routed, Served, View, Views};
use recording::Recording;

/// Where the public keys of this edge's Txn-Tokens are served, on every host.
pub const JWKS_PATH: &str = "/.well-known/countersign/jwks.json";

const TXN_TOKEN: http::HeaderName = http::HeaderName::from_static("txn-token");

/// What the workers of one edge share.
pub struct Shared {
    pub views: Views,
    pub metrics: Metrics,
    pub audit: Audit,
    /// Refuse what cannot be recorded also at services that are not `strict`.
    pub refuse_unrecorded: AtomicBool,
    pub minter: Arc<Minter>,
    pub key_demand: Arc<dyn KeyDemand>,
}

/// One worker of the edge.
pub struct Edge {
    shared: Arc<Shared>,
    pool: Pool,
    tokens: TokenCache,
    ids: Ids,
}

/// Why the upstream's answer is not what the caller gets.
struct Stop {
    reason: Reason,
    detail: String,
    step_up: Option<StepUp>,
}

impl Stop {
    fn new(reason: Reason, detail: impl Into<String>) -> Stop {
        Stop { reason, detail: detail.into(), step_up: None }
    }
}

impl Edge {
    pub fn new(shared: Arc<Shared>) -> Edge {
        Edge { shared, pool: Pool::new(), tokens: TokenCache::default(), ids: Ids::new() }
    }

    async fn answer(&self, request: Request, connection: &Arc<Connection>) -> Response {
        let now = UnixMs::now();
        if request.uri().path() == JWKS_PATH {
            return self.published_keys(request.method());
        }
        let navigation = answer::is_navigation(request.method(), request.headers());
        let head = request.method() == Method::HEAD;
        let Ok(decision_id) = self.ids.decision(now) else {
            return answer::refusal(&answer::Refusal {
                reason: Reason::MintFailed,
                decision_id: "",
                step_up: None,
                navigation,
                head,
            });
        };
        let mut recording = Recording::start(&self.shared, &request, connection, decision_id, now);
        match self.judge_and_forward(request, connection, &mut recording, now).await {
            Ok(response) => recording.answered(response),
            Err(stop) => {
                let refusal = answer::Refusal {
                    reason: stop.reason,
                    decision_id: recording.decision_id(),
                    step_up: stop.step_up.as_ref(),
                    navigation,
                    head,
                };
                let response = answer::refusal(&refusal);
                recording.refused(stop.reason, stop.detail, response)
            }
        }
    }

    async fn judge_and_forward(
        &self,
        mut request: Request,
        connection: &Arc<Connection>,
        recording: &mut Recording,
        now: UnixMs,
    ) -> Result<Response, Stop> {
        let view =
            self.shared.views.now().ok_or_else(|| Stop::new(Reason::PolicyMissing, "no snapshot is loaded yet"))?;
        recording.judged_by(&view);
        refuse_methods(request.method())?;
        let host = wire::identity::request_host(request.uri(), request.headers())
            .map_err(|error| Stop::new(Reason::RequestMalformed, error.to_string()))?;
        recording.host(&host);
        let (mut served, mut path) = route(&view, &host, &request, recording)?;
        wire::identity::clean_request(request.headers_mut())
            .map_err(|error| Stop::new(Reason::HeaderForbidden, error.to_string()))?;
        let (judged_by, entry) = self.identify(&view, request.headers(), recording, now).await?;
        if !Arc::ptr_eq(&judged_by, &view) {
            // Keys were fetched and more may have changed meanwhile: one snapshot judges all of the request.
            recording.judged_by(&judged_by);
            (served, path) = route(&judged_by, &host, &request, recording)?;
        }
        let view = judged_by;
        self.refuse_unrecorded(&served)?;
        let principal = entry.as_ref().map(|entry| &entry.principal);
        let permit = decide(&served, &request, &path, &host, connection, principal, now, recording)?;
        let stamp = match &entry {
            Some(entry) => {
                Some(self.stamp(&view, &served, &permit, entry, (connection.remote.ip(), &path), now, recording)?)
            }
            None => None,
        };
        let prepared = prepare(request, &served, &path, &host, connection, stamp, recording)?;
        self.forward(permit, &served, prepared, recording).await
    }

    /// For the service that the request is finally routed to.
    fn refuse_unrecorded(&self, served: &Served) -> Result<(), Stop> {
        let must_record = served.service.strict || self.shared.refuse_unrecorded.load(Ordering::Relaxed);
        if must_record && self.shared.audit.health() == Health::Failing {
            return Err(Stop::new(
                Reason::AuditUnavailable,
                "the audit log cannot be written, and what cannot be recorded is refused here",
            ));
        }
        Ok(())
    }

    async fn forward(
        &self,
        permit: Permit,
        served: &Served,
        request: Request,
        recording: &mut Recording,
    ) -> Result<Response, Stop> {
        let target = served.target.as_ref().map_err(|why| Stop::new(Reason::UpstreamConnect, why.clone()))?;
        let forwarded = self.pool.forward(permit, target, request).await;
        let mut response = forwarded.map_err(|error| forward_failed(&error))?;
        wire::identity::clean_response(response.headers_mut());
        if let Ok(id) = HeaderValue::from_str(recording.decision_id()) {
            response.headers_mut().insert(DECISION_HEADER, id);
        }
        Ok(response)
    }

    fn published_keys(&self, method: &Method) -> Response {
        let mut response = Response::new(Body::empty());
        if !matches!(*method, Method::GET | Method::HEAD) {
            *response.status_mut() = http::StatusCode::METHOD_NOT_ALLOWED;
            response.headers_mut().insert(http::header::ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        let headers = response.headers_mut();
        headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/jwk-set+json"));
        headers.insert(http::header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=60"));
        if *method == Method::GET {
            *response.body_mut() = Body::full(self.shared.minter.document());
        }
        response
    }
}

impl net::Service for Edge {
    fn call(&self, request: Request, connection: &Arc<Connection>) -> impl Future<Output = Response> + Send {
        self.answer(request, connection)
    }

    fn refused(&self, refusal: Refusal, connection: &Connection) {
        self.shared.metrics.refused(refusal);
        tracing::debug!(?refusal, remote = %connection.remote, "refused before it was judged");
    }

    fn panicked(&self, connection: &Connection) {
        self.shared.metrics.panics.inc();
        tracing::error!(remote = %connection.remote, "a panic was caught while answering; its connection was closed");
    }
}

fn route(
    view: &View,
    host: &str,
    request: &Request,
    recording: &mut Recording,
) -> Result<(Arc<Served>, NormalPath), Stop> {
    match view.route(host, request.uri().path()) {
        Routed::To(served, path) => {
            recording.routed(&served, &path);
            Ok((served, path))
        }
        Routed::Nowhere => Err(Stop::new(Reason::NoRoute, "no service is exposed at this host and path")),
        Routed::PathRefused(error) => Err(Stop::new(Reason::PathRefused, error.to_string())),
    }
}

/// CONNECT is no request for a service; TRACE would echo the fields we add (RFC 9110 §9.3.8). Methods are case-sensitive,
/// but some upstreams take `delete` for `DELETE`: what a rule and an upstream could read differently is refused.
fn refuse_methods(method: &Method) -> Result<(), Stop> {
    match *method {
        _ if method.as_str().bytes().any(|b| b.is_ascii_lowercase()) => {
            Err(Stop::new(Reason::RequestMalformed, "methods are written in upper case"))
        }
        Method::CONNECT | Method::TRACE => {
            Err(Stop::new(Reason::RequestMalformed, format!("`{method}` is not accepted")))
        }
        _ => Ok(()),
    }
}

#[expect(
    clippy::too_many_arguments,
    reason = "a decision's inputs, each of its own origin; a struct would only rename them"
)]
fn decide(
    served: &Served,
    request: &Request,
    path: &NormalPath,
    host: &str,
    connection: &Connection,
    principal: Option<&Principal>,
    now: UnixMs,
    recording: &mut Recording,
) -> Result<Permit, Stop> {
    let input = Input {
        principal,
        peer: Peer::Edge,
        method: request.method().as_str(),
        path,
        query: request.uri().query(),
        host,
        client_ip: Some(connection.remote.ip()),
        now: now.seconds(),
    };
    let decision = served.service.policy.decide(&input);
    recording.decided(&decision);
    let denial = match decision.verdict {
        Verdict::Permit(permit) => return Ok(permit),
        Verdict::StepUp(step_up) => {
            recording.explained(served.service.policy.explain(&input));
            return Err(Stop {
                reason: Reason::StepUp,
                detail: format!("rule `{}` asks for more", step_up.rule.name),
                step_up: Some(step_up),
            });
        }
        Verdict::Denial(denial) => denial,
    };
    recording.explained(served.service.policy.explain(&input));
    let detail = denial.rule.map_or_else(String::new, |rule| format!("rule `{}`", rule.name));
    // Nobody is signed in: the caller is asked to, and learns nothing about rules.
    match principal {
        None => Err(Stop::new(Reason::TokenMissing, detail)),
        Some(_) => Err(Stop::new(denial.reason, detail)),
    }
}

/// The request as the upstream gets it: the bytes that were decided on, our fields, no token of the issuer's.
fn prepare(
    mut request: Request,
    served: &Served,
    path: &NormalPath,
    host: &str,
    connection: &Connection,
    stamp: Option<HeaderValue>,
    recording: &mut Recording,
) -> Result<Request, Stop> {
    let bytes_max = served.service.body_bytes_max;
    if request.body().len_hint().is_some_and(|length| length > bytes_max) {
        return Err(Stop::new(Reason::BodyTooLarge, format!("more than {bytes_max} bytes")));
    }
    if !request.headers().contains_key(HOST) {
        let authority = request.uri().authority().map_or(host, http::uri::Authority::as_str);
        let value =
            HeaderValue::from_str(authority).map_err(|_| Stop::new(Reason::RequestMalformed, "no valid host"))?;
        request.headers_mut().insert(HOST, value);
    }
    if request.uri().authority().is_some() || request.uri().path() != path.as_str() {
        *request.uri_mut() = origin_form(path, request.uri().query())?;
    }
    let headers = request.headers_mut();
    if stamp.is_some() && served.service.authorization == Authorization::Strip {
        headers.remove(AUTHORIZATION);
    }
    if let Some(token) = stamp {
        headers.insert(TXN_TOKEN, token);
    }
    let proto = if connection.tls.is_some() { "https" } else { "http" };
    wire::identity::add_forwarded(headers, connection.remote.ip(), proto, host);
    // Nothing to count, limit or guard in most requests.
    if request.body().len_hint() != Some(0) {
        let body = std::mem::replace(request.body_mut(), Body::empty());
        let body = body.limit(bytes_max).guard_trailers(wire::identity::is_identity).on_end(recording.request_end());
        *request.body_mut() = body;
    }
    Ok(request)
}

fn origin_form(path: &NormalPath, query: Option<&str>) -> Result<Uri, Stop> {
    let target = match query {
        Some(query) => Uri::try_from(format!("{}?{query}", path.as_str())),
        None => Uri::try_from(path.as_str()),
    };
    target.map_err(|error| Stop::new(Reason::PathRefused, error.to_string()))
}

fn forward_failed(error: &ForwardError) -> Stop {
    let reason = match error {
        ForwardError::Connect { .. } => Reason::UpstreamConnect,
        ForwardError::Identity(_) => Reason::UpstreamIdentity,
        ForwardError::FirstByteTimeout(_) | ForwardError::RequestTimeout(_) => Reason::UpstreamTimeout,
        ForwardError::Protocol(_) => Reason::UpstreamProtocol,
        ForwardError::RequestBody(BodyError::TooLarge) => Reason::BodyTooLarge,
        ForwardError::RequestBody(BodyError::ForbiddenTrailer) => Reason::HeaderForbidden,
        ForwardError::RequestBody(BodyError::Stalled) => Reason::RequestTimeout,
        ForwardError::RequestBody(BodyError::Malformed) => Reason::RequestMalformed,
        ForwardError::RequestBody(BodyError::Gone) => Reason::ClientGone,
    };
    Stop::new(reason, error.to_string())
}

/// The client's address in its shortest true form (an IPv4 address that came through an IPv6 socket is IPv4).
fn client_ip(connection: &Connection) -> IpAddr {
    connection.remote.ip().to_canonical()
}
