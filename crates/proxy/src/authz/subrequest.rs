//! Questions over HTTP: nginx `auth_request`, Traefik and Caddy forward-auth, Envoy's HTTP `ext_authz`. 200 with the
//! Txn-Token means yes; whatever else is a refusal to pass on. Bodies are never read.

use std::sync::Arc;

use http::header::CACHE_CONTROL;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use net::{Body, Connection, Request, Response};
use trust::reason::Reason;
use wire::question::{Fault, Places};

use super::{Authz, Statuses, read, unread};
use crate::answer::{self, DECISION_HEADER, Form};
use crate::clock::UnixMs;
use crate::judge::recording::Recording;
use crate::judge::{Judged, Stop};

const TXN_TOKEN: HeaderName = HeaderName::from_static("txn-token");
/// The status meant, where the proxy understands fewer.
const STATUS_HEADER: HeaderName = HeaderName::from_static("countersign-status");

/// How this listener is asked, and may answer.
pub(super) struct Way<'a> {
    pub(super) places: &'a Places,
    pub(super) statuses: Statuses,
    pub(super) mend: &'static str,
}

/// What the shape of a refusal depends on.
struct Shape {
    form: Form,
    statuses: Statuses,
}

impl Authz {
    pub(super) async fn answer_subrequest(
        &self,
        mut request: Request,
        way: &Way<'_>,
        connection: &Arc<Connection>,
        now: UnixMs,
    ) -> Response {
        // A HEAD of the question itself has no body, whatever the question is about.
        let is_head = request.method() == Method::HEAD;
        let mut shape = Shape { form: if is_head { Form::Head } else { Form::Problem }, statuses: way.statuses };
        let Ok(id) = self.judge.ids.decision(now) else {
            return unrecorded(&Stop::new(Reason::MintFailed, ""));
        };
        let mut facts = unread(&request, connection);
        let question = way.places.read(request.method(), request.uri(), request.headers());
        if let Ok(question) = &question {
            facts = read(facts, question);
            if !is_head {
                shape.form = super::form(question, request.headers());
            }
        }
        let mut recording = self.record(facts, request.headers(), id, now);
        let question = match question {
            Ok(question) => question,
            Err(fault) => return self.unreadable(&fault, way, recording, &shape, connection),
        };
        let judged = match clean(request.headers_mut()) {
            Ok(()) => self.verdict(&question, request.headers_mut(), &mut recording, now).await,
            Err(stop) => Err(stop),
        };
        match judged {
            Ok(judged) => {
                let response = permitted(judged, recording.decision_id());
                recording.answered(response)
            }
            Err(stop) => refused(stop, recording, &shape),
        }
    }

    fn unreadable(
        &self,
        fault: &Fault,
        way: &Way<'_>,
        recording: Recording,
        shape: &Shape,
        connection: &Connection,
    ) -> Response {
        let what = fault.to_string();
        let reason = match fault {
            Fault::Missing(_) => Reason::ProxyFieldMissing,
            Fault::Multiple(_) => Reason::ProxyFieldMultiple,
            Fault::Malformed { .. } => Reason::ProxyFieldMalformed,
            Fault::Request(_) => Reason::RequestMalformed,
        };
        if reason != Reason::RequestMalformed {
            self.log_misconfigured(connection.remote.ip().to_canonical(), &what, way.mend);
        }
        refused(Stop::new(reason, what), recording, shape)
    }
}

/// As at the edge. But these proxies cannot take a field away by the beginning of its name, so what only we may say is
/// refused, not dropped: dropped here, it would still go from the proxy to the service.
fn clean(headers: &mut HeaderMap) -> Result<(), Stop> {
    if let Some(name) = headers.keys().find(|name| wire::identity::is_ours(name)) {
        let detail = format!("the client sent `{name}`, which the proxy would send on");
        return Err(Stop::new(Reason::HeaderForbidden, detail));
    }
    wire::identity::clean_request(headers).map_err(|error| Stop::new(Reason::HeaderForbidden, error.to_string()))
}

/// `Txn-Token` always stands here, empty when nobody is signed in: a proxy that copies it replaces the client's own.
fn permitted(judged: Judged, decision_id: &str) -> Response {
    let mut response = Response::new(Body::empty());
    let headers = response.headers_mut();
    headers.insert(TXN_TOKEN, judged.stamp.unwrap_or_else(|| HeaderValue::from_static("")));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Ok(id) = HeaderValue::from_str(decision_id) {
        headers.insert(DECISION_HEADER, id);
    }
    if let Some(nonce) = judged.dpop_nonce {
        headers.insert(answer::DPOP_NONCE, *nonce);
    }
    response
}

/// For a question that has no decision. 403 is understood by every proxy.
pub(super) fn unrecorded(stop: &Stop) -> Response {
    refusal(stop, "", &Shape { form: Form::Problem, statuses: Statuses::AuthRequest })
}

fn refused(stop: Stop, recording: Recording, shape: &Shape) -> Response {
    let response = refusal(&stop, recording.decision_id(), shape);
    recording.refused(stop.reason, stop.detail, response)
}

fn refusal(stop: &Stop, decision_id: &str, shape: &Shape) -> Response {
    let Shape { form, statuses } = *shape;
    let step_up = stop.step_up.as_ref();
    let challenge = &stop.challenge;
    let refusal =
        answer::Refusal { reason: stop.reason, decision_id, step_up, form, challenge, resource_metadata: None };
    let mut response = answer::refusal(&refusal);
    let meant = response.status();
    response.headers_mut().insert(STATUS_HEADER, HeaderValue::from(meant.as_u16()));
    let is_understood = match statuses {
        Statuses::Full => true,
        Statuses::NoServerErrors => !meant.is_server_error(),
        Statuses::AuthRequest => meant == StatusCode::UNAUTHORIZED,
    };
    if !is_understood {
        *response.status_mut() = StatusCode::FORBIDDEN;
    }
    response
}
