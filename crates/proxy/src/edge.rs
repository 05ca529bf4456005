//! Life of a request at the edge: route, clean, judge, forward, record. Judging is done by [`crate::judge`].
//!
//! Each step takes what the step before proved. Nothing is forwarded without a permit, and every request that got this
//! far leaves one audit record, also when its task is dropped.

mod alike;
mod grpc;
#[cfg(test)]
mod tests;
mod websocket;

use std::sync::Arc;

use feed::Authorization;
use http::header::{AUTHORIZATION, HOST};
use http::{HeaderValue, Method, Uri};
use net::upstream::{Answered, ForwardError, Pool};
use net::{Body, BodyError, Connection, Refusal, Request, Response};
use trust::policy::Permit;
use trust::reason::Reason;

use self::alike::Alike;
use crate::answer::{self, DECISION_HEADER, Form};
use crate::clock::UnixMs;
use crate::cors;
use crate::judge::recording::{self, Recording};
use crate::judge::{self, Asked, Client, Judge, Judged, Place, Shared, Stop};
use crate::minter::Minter;
use crate::view::Served;

/// Where the public keys of this edge's Txn-Tokens are served, on every host.
pub const JWKS_PATH: &str = "/.well-known/countersign/jwks.json";

pub(crate) const DPOP: http::HeaderName = http::HeaderName::from_static("dpop");
const WELL_KNOWN: &str = "/.well-known/";
/// RFC 9728 §3.1: the path of a resource's metadata begins with it, and ends with the resource's own path.
pub const RESOURCE_METADATA: &str = "/.well-known/oauth-protected-resource";

const TXN_TOKEN: http::HeaderName = http::HeaderName::from_static("txn-token");

/// One worker of the edge.
pub struct Edge {
    judge: Judge,
    pool: Pool,
}

impl Edge {
    pub fn new(shared: Arc<Shared>) -> Edge {
        Edge { judge: Judge::new(shared), pool: Pool::new() }
    }

    async fn answer(&self, request: Request, connection: &Arc<Connection>) -> Response {
        let now = UnixMs::now();
        if request.uri().path().starts_with(WELL_KNOWN)
            && let Some(published) = self.published(&request)
        {
            return published;
        }
        let form = Form::of(request.method(), request.headers());
        let client = Client::of(connection);
        let Ok(decision_id) = self.judge.ids.decision(now) else {
            return answer::refusal(&answer::Refusal {
                reason: Reason::MintFailed,
                decision_id: "",
                step_up: None,
                form,
                challenge: &answer::Challenge::default(),
                resource_metadata: None,
            });
        };
        let facts = recording::facts(&request, connection);
        let mut recording = self.judge.record(facts, request.headers(), decision_id, now);
        if let Some(collect) = self.judge.shared.access_log {
            recording.saw(collect.read(request.uri(), request.headers()));
        }
        match self.judge_and_forward(request, connection, (client, form), &mut recording, now).await {
            Ok(mut response) => {
                apply_cors(&mut recording, &mut response);
                recording.answered(response)
            }
            Err(stop) => {
                let refusal = answer::Refusal {
                    reason: stop.reason,
                    decision_id: recording.decision_id(),
                    step_up: stop.step_up.as_ref(),
                    form,
                    challenge: &stop.challenge,
                    resource_metadata: recording.resource().map(|resource| resource.url.as_str()),
                };
                let mut response = answer::refusal(&refusal);
                apply_cors(&mut recording, &mut response);
                recording.refused(stop.reason, stop.detail, response)
            }
        }
    }

    async fn judge_and_forward(
        &self,
        mut request: Request,
        connection: &Connection,
        (mut client, form): (Client, Form),
        recording: &mut Recording,
        now: UnixMs,
    ) -> Result<Response, Stop> {
        let view = self.judge.begin(request.method(), recording)?;
        if let Some(proxies) = &view.trusted_proxies {
            client = proxies.caller(client, request.headers())?;
            recording.client(client);
        }
        let alike = alike::read(&request, client, connection)
            .map_err(|error| Stop::new(Reason::RequestMalformed, error.to_string()))?;
        let host = alike.host.as_str();
        recording.host(host);
        let handshake = websocket::read(&request)?;
        let place = judge::route(view, host, request.uri(), recording)?;
        wire::identity::clean_request(request.headers_mut())
            .map_err(|error| Stop::new(Reason::HeaderForbidden, error.to_string()))?;
        if let Some(handshake) = handshake {
            // Boxed: rare, and its state should not weigh in every request.
            let caller = (&*alike, client, form, connection);
            return Box::pin(self.judge_websocket(handshake, place, request, caller, recording, now)).await;
        }
        let (method, target, headers) = (request.method(), request.uri(), request.headers());
        if let Some(cors) = &place.served.service.cors {
            recording.granted(cors::grant(cors, headers));
            if cors::is_preflight(method, headers) {
                return self.preflight(cors, headers, recording);
            }
        }
        let asked = Asked { method, host, target, headers, client };
        let Judged { place, permit, stamp, dpop_nonce, .. } = self.judge.judge(place, asked, recording, now).await?;
        let mut prepared = prepare(request, &place, &alike, form, stamp, recording)?;
        if let Some(preface) = crate::view::preface(&place.served.service, client.ip, connection) {
            prepared.extensions_mut().insert(preface);
        }
        let mut response = match form {
            Form::Grpc { kind, .. } => {
                grpc::prepare(&mut prepared, kind, &place.served)?;
                grpc::answered(self.forward(permit, &place.served, prepared, recording).await?, kind)
            }
            _ => self.forward(permit, &place.served, prepared, recording).await?,
        };
        if let Some(nonce) = dpop_nonce {
            response.headers_mut().insert(answer::DPOP_NONCE, *nonce);
        }
        Ok(response)
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
        // Only a fleet says who answered: one address needs no telling.
        if let Some(answered) = response.extensions_mut().remove::<Answered>() {
            recording.upstream(answered);
        }
        finish(&mut response, recording);
        Ok(response)
    }

    fn preflight(
        &self,
        cors: &feed::Cors,
        headers: &http::HeaderMap,
        recording: &mut Recording,
    ) -> Result<Response, Stop> {
        let mut response = cors::preflight(cors, headers)?;
        recording.preflight();
        if let Ok(id) = HeaderValue::from_str(recording.decision_id()) {
            response.headers_mut().insert(DECISION_HEADER, id);
        }
        Ok(response)
    }

    /// What everybody may read, without a decision: our keys, and the metadata of a service.
    fn published(&self, request: &Request) -> Option<Response> {
        let path = request.uri().path();
        if path == JWKS_PATH {
            return Some(published_keys(&self.judge.shared.minter, request.method()));
        }
        if !path.starts_with(RESOURCE_METADATA) {
            return None;
        }
        let view = self.judge.shared.views.now()?;
        let host = wire::identity::request_host(request.uri(), request.headers()).ok()?;
        let resource = view.resource(&host, path)?;
        Some(public_document(request.method(), "application/json", resource.document.to_string().into()))
    }
}

fn apply_cors(recording: &mut Recording, response: &mut Response) {
    if let Some((served, grant)) = recording.take_grant()
        && let Some(cors) = &served.service.cors
    {
        cors::apply(cors, grant, response);
    }
}

fn public_document(method: &Method, content_type: &'static str, document: bytes::Bytes) -> Response {
    let mut response = Response::new(Body::empty());
    if !matches!(*method, Method::GET | Method::HEAD) {
        *response.status_mut() = http::StatusCode::METHOD_NOT_ALLOWED;
        response.headers_mut().insert(http::header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    let headers = response.headers_mut();
    headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(http::header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=60"));
    headers.insert(http::header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    if *method == Method::GET {
        *response.body_mut() = Body::full(document);
    }
    response
}

impl net::Service for Edge {
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

/// What every answer of an upstream loses and gets.
fn finish(response: &mut Response, recording: &Recording) {
    wire::identity::clean_response(response.headers_mut());
    if let Ok(id) = HeaderValue::from_str(recording.decision_id()) {
        response.headers_mut().insert(DECISION_HEADER, id);
    }
}

/// The public keys, as JWK Set.
pub(crate) fn published_keys(minter: &Minter, method: &Method) -> Response {
    public_document(method, "application/jwk-set+json", minter.document())
}

/// The request as the upstream gets it: the bytes that were decided on, our fields, no token of the issuer's.
fn prepare(
    mut request: Request,
    place: &Place,
    alike: &Alike,
    form: Form,
    stamp: Option<HeaderValue>,
    recording: &mut Recording,
) -> Result<Request, Stop> {
    let Place { served, path, .. } = place;
    // What is bounded of gRPC's streams is each message.
    let bytes_max = if matches!(form, Form::Grpc { .. }) { u64::MAX } else { served.service.body_bytes_max };
    if request.body().len_hint().is_some_and(|length| length > bytes_max) {
        return Err(Stop::new(Reason::BodyTooLarge, format!("more than {bytes_max} bytes")));
    }
    if !request.headers().contains_key(HOST) {
        let authority = request.uri().authority().map_or(alike.host.as_str(), http::uri::Authority::as_str);
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
        // A proof is for this URL and was used here; whoever is behind could do nothing with it but keep it.
        headers.remove(DPOP);
    }
    if let Some(token) = stamp {
        headers.insert(TXN_TOKEN, token);
    }
    alike.forwarded.add(headers);
    if let Some(span) = recording.span() {
        span.pass_on(headers);
    }
    // Nothing to count, limit or guard in most requests.
    if request.body().len_hint() != Some(0) {
        let body = std::mem::replace(request.body_mut(), Body::empty());
        let body = body.limit(bytes_max).guard_trailers(wire::identity::is_identity).on_end(recording.request_end());
        *request.body_mut() = body;
    }
    Ok(request)
}

fn origin_form(path: &trust::path::NormalPath, query: Option<&str>) -> Result<Uri, Stop> {
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
        ForwardError::At { error, .. } => forward_failed(error).reason,
    };
    Stop::new(reason, error.to_string())
}
