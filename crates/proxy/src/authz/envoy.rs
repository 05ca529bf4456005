//! Questions of Envoy's `ext_authz` over gRPC. A verdict is always a `CheckResponse`, also when the question could not be
//! read: a gRPC error would let the request pass where Envoy is told to allow when it cannot ask.

use std::sync::Arc;

use bytes::Bytes;
use feed::Authorization;
use http::header::{CONTENT_TYPE, COOKIE};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use net::{Body, Connection, Request, Response};
use trust::reason::Reason;
use wire::ext_authz::{self, Answer, CHECK_PATH, Check, CheckError, HEALTH_PATH, health_serving};
use wire::identity::Forwarded;
use wire::question::Question;

use super::{Authz, read, unread};
use crate::answer::{self, DECISION_HEADER, Form};
use crate::audit::record::{RequestFacts, bounded};
use crate::clock::UnixMs;
use crate::judge::recording::Recording;
use crate::judge::{Judged, Stop};

/// gRPC's own default. With `with_request_body`, Envoy's `max_request_bytes` has to stay below it.
const MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;
const REFUSAL_BYTES_MAX: usize = 64 * 1024;
const TXN_TOKEN: HeaderName = HeaderName::from_static("txn-token");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const UNIMPLEMENTED: &str = "12";
const MEND: &str = "ask with the ext_authz filter of Envoy (API v3) and nothing between it and this address";

impl Authz {
    pub(super) async fn answer_envoy(&self, request: Request, connection: &Arc<Connection>, now: UnixMs) -> Response {
        let is_grpc = *request.method() == Method::POST
            && request.headers().get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
        let answer = match request.uri().path() {
            CHECK_PATH if is_grpc => return self.check(request, connection, now).await,
            HEALTH_PATH if is_grpc => message(health_serving()),
            _ => unimplemented(),
        };
        // An answer before the end of the question would reset its stream. What does not end soon may be reset.
        let _unneeded = request.into_body().read_all(MESSAGE_BYTES_MAX).await;
        answer
    }

    async fn check(&self, request: Request, connection: &Arc<Connection>, now: UnixMs) -> Response {
        let Ok(id) = self.judge.ids.decision(now) else {
            return unrecorded(&Stop::new(Reason::MintFailed, "")).await;
        };
        let mut facts = RequestFacts { path: String::new(), ..unread(&request, connection) };
        let body = request.into_body().read_all(MESSAGE_BYTES_MAX).await;
        let check = body
            .map_err(|error| Stop::new(Reason::ProxyFieldMalformed, format!("the question's body: {error}")))
            .and_then(|body| ext_authz::message(&body).and_then(|message| Check::parse(&message)).map_err(unreadable));
        let mut check = match check {
            Ok(check) => check,
            Err(stop) => {
                if stop.reason != Reason::RequestMalformed {
                    self.log_misconfigured(connection.remote.ip().to_canonical(), &stop.detail, MEND);
                }
                let recording = self.record(facts, &HeaderMap::new(), id, now);
                return refused(stop, recording, Form::Problem).await;
            }
        };
        facts = read(facts, &check.question);
        facts.protocol = bounded(&check.protocol).into();
        let form = super::form(&check.question, &check.headers);
        let mut recording = self.record(facts, &check.headers, id, now);
        let came = Came::of(&check.headers);
        let judged = match wire::identity::clean_request(&mut check.headers) {
            Ok(()) => self.verdict(&check.question, &mut check.headers, &mut recording, now).await,
            Err(error) => Err(Stop::new(Reason::HeaderForbidden, error.to_string())),
        };
        match judged {
            Ok(judged) => {
                let frame = permit(judged, &check, came, recording.decision_id());
                recording.answered(message(frame))
            }
            Err(stop) => refused(stop, recording, form).await,
        }
    }
}

fn unreadable(error: CheckError) -> Stop {
    let reason = match error {
        CheckError::Missing(_) => Reason::ProxyFieldMissing,
        CheckError::Twice(_) => Reason::ProxyFieldMultiple,
        CheckError::Frame | CheckError::Protobuf | CheckError::Malformed(_) | CheckError::Differs(_) => {
            Reason::ProxyFieldMalformed
        }
        CheckError::Request(_) => Reason::RequestMalformed,
    };
    Stop::new(reason, error.to_string())
}

/// What the client sent and Envoy would send on, before it was cleaned.
struct Came {
    identity: Vec<HeaderName>,
    cookie: Option<HeaderValue>,
    cookies: usize,
    tracestate: Option<HeaderValue>,
}

impl Came {
    fn of(headers: &HeaderMap) -> Came {
        Came {
            identity: headers.keys().filter(|name| wire::identity::is_identity(name)).cloned().collect(),
            cookie: headers.get(COOKIE).cloned(),
            cookies: headers.get_all(COOKIE).iter().count(),
            tracestate: headers.get(TRACESTATE).cloned(),
        }
    }
}

/// Envoy sends the client's fields on, but for what is said here: so each identity field is either set or taken away.
fn permit(judged: Judged, check: &Check, came: Came, decision_id: &str) -> Bytes {
    let Question { address, https, host, .. } = &check.question;
    let mut ours = HeaderMap::with_capacity(8);
    Forwarded::new(*address, if *https { "https" } else { "http" }, host).add(&mut ours);
    let mut remove: Vec<&str> = Vec::new();
    let strip = judged.place.served.service.authorization == Authorization::Strip;
    if judged.stamp.is_some() && strip {
        remove.extend(["authorization", "dpop"].into_iter().filter(|name| check.headers.contains_key(*name)));
    }
    if let Some(stamp) = judged.stamp {
        ours.insert(TXN_TOKEN, stamp);
    }
    for (name, before, lines) in [(COOKIE, &came.cookie, came.cookies), (TRACESTATE, &came.tracestate, 1)] {
        match check.headers.get(&name) {
            Some(now) if Some(now) != before.as_ref() || lines > 1 => _ = ours.insert(name, now.clone()),
            None if before.is_some() => remove.push(if name == COOKIE { "cookie" } else { "tracestate" }),
            _ => {}
        }
    }
    // A value that is no UTF-8 cannot be said in this protocol.
    let is_text = |value: &HeaderValue| std::str::from_utf8(value.as_bytes()).is_ok();
    remove.extend(ours.iter().filter(|(_, value)| !is_text(value)).map(|(name, _)| name.as_str()));
    remove.extend(came.identity.iter().filter(|name| !ours.contains_key(*name)).map(HeaderName::as_str));
    let set: Vec<(&str, &[u8])> = ours
        .iter()
        .filter(|(_, value)| is_text(value))
        .map(|(name, value)| (name.as_str(), value.as_bytes()))
        .collect();
    let name = DECISION_HEADER;
    let mut answer: Vec<(&str, &[u8])> = vec![(name.as_str(), decision_id.as_bytes())];
    answer.extend(judged.dpop_nonce.iter().map(|nonce| ("dpop-nonce", nonce.as_bytes())));
    Answer::Permit { set: &set, remove: &remove, answer: &answer }.encode()
}

/// For a question that has no decision.
pub(super) async fn unrecorded(stop: &Stop) -> Response {
    message(deny(stop, "", Form::Problem).await.0)
}

async fn refused(stop: Stop, recording: Recording, form: Form) -> Response {
    let (frame, status) = deny(&stop, recording.decision_id(), form).await;
    let recorded = message(frame);
    recording.refused_as(status, stop.reason, stop.detail, recorded)
}

/// The refusal of the edge, as the client will get it from Envoy; and its status.
async fn deny(stop: &Stop, decision_id: &str, form: Form) -> (Bytes, u16) {
    let step_up = stop.step_up.as_ref();
    let challenge = &stop.challenge;
    let refusal =
        answer::Refusal { reason: stop.reason, decision_id, step_up, form, challenge, resource_metadata: None };
    let (head, body) = answer::refusal(&refusal).into_parts();
    // A body of ours is in memory already: this waits for nothing.
    let body = body.read_all(REFUSAL_BYTES_MAX).await.unwrap_or_default();
    let fields: Vec<(&str, &[u8])> =
        head.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
    let status = head.status.as_u16();
    (Answer::Deny { status, fields: &fields, body: &body }.encode(), status)
}

fn message(frame: Bytes) -> Response {
    let mut trailers = HeaderMap::with_capacity(1);
    trailers.insert(GRPC_STATUS, HeaderValue::from_static("0"));
    let mut response = Response::new(Body::full_with_trailers(frame, trailers));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

/// "Trailers only", as gRPC calls an answer without a message.
fn unimplemented() -> Response {
    let mut response = Response::new(Body::empty());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(GRPC_STATUS, HeaderValue::from_static(UNIMPLEMENTED));
    headers.insert(
        GRPC_MESSAGE,
        HeaderValue::from_static("only Envoy's ext_authz v3 and grpc.health.v1 are answered here"),
    );
    response
}
