//! Answers of the token endpoint: the token (RFC 8693 §2.2.1), or an error (RFC 6749 §5.2) that tells the caller what he can
//! mend, and what he may tell the one he asks for. Never says which check of a token failed.

use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, PRAGMA, RETRY_AFTER};
use http::{HeaderName, HeaderValue, StatusCode};
use net::{Body, Response};
use serde_json::{Map, Value, json};
use trust::reason::Reason;
use wire::token_exchange::TXN_TOKEN;

use super::Elsewhere;
use crate::answer::{self, DECISION_HEADER};
use crate::judge::Stop;
use crate::judge::exchange::Granted;

/// The status that the request itself, had it come to the edge, would have been answered with.
const STATUS_HEADER: HeaderName = HeaderName::from_static("countersign-status");
const RETRY_SECONDS: &str = "2";

pub(super) fn granted(granted: &Granted, decision_id: &str) -> Response {
    let body = json!({
        "access_token": granted.token,
        "issued_token_type": TXN_TOKEN,
        "token_type": "N_A",
        "expires_in": granted.expires_in_s,
    });
    document(StatusCode::OK, &body, decision_id)
}

pub(super) fn refusal(stop: &Stop, decision_id: &str) -> Response {
    let public = stop.reason.public();
    let mut body = Map::new();
    body.insert("error".into(), error(stop.reason).into());
    body.insert("error_description".into(), description(stop).into());
    if !is_the_callers_own(stop.reason) {
        // For whoever the caller asks for: an edge would have answered him with these fields.
        let challenges = challenges(stop);
        body.extend((!challenges.is_empty()).then(|| ("www_authenticate".to_owned(), challenges.into())));
    }
    let mut response = document(status(stop.reason), &Value::Object(body), decision_id);
    let headers = response.headers_mut();
    if !is_the_callers_own(stop.reason) {
        headers.insert(STATUS_HEADER, HeaderValue::from(public.status));
    }
    if public.status == StatusCode::SERVICE_UNAVAILABLE.as_u16() {
        headers.insert(RETRY_AFTER, HeaderValue::from_static(RETRY_SECONDS));
    }
    response
}

/// A refusal of what is no request for a token.
pub(super) fn not_here(response: &mut Response, elsewhere: Elsewhere) {
    *response.status_mut() = match elsewhere {
        Elsewhere::Path => StatusCode::NOT_FOUND,
        Elsewhere::Method => {
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
            StatusCode::METHOD_NOT_ALLOWED
        }
    };
}

fn document(status: StatusCode, body: &Value, decision_id: &str) -> Response {
    let mut response = Response::new(Body::full(body.to_string()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(PRAGMA, HeaderValue::from_static("no-cache"));
    if let Some(id) = HeaderValue::from_str(decision_id).ok().filter(|id| !id.is_empty()) {
        headers.insert(DECISION_HEADER, id);
    }
    response
}

/// Concerns the asking, and nothing that the caller's own caller did.
fn is_the_callers_own(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::CallerRefused
            | Reason::CallerExpired
            | Reason::ExchangeMalformed
            | Reason::GrantUnsupported
            | Reason::ExchangeUnsupported
            | Reason::TargetWrong
            | Reason::BodyTooLarge
            | Reason::RequestTimeout
    )
}

fn challenges(stop: &Stop) -> Vec<String> {
    answer::challenges(&answer::Refusal {
        reason: stop.reason,
        decision_id: "",
        step_up: stop.step_up.as_ref(),
        form: answer::Form::Problem,
        challenge: &stop.challenge,
        resource_metadata: None,
    })
}

/// RFC 8693 §2.2.2: a subject token that is not accepted is an invalid request, whatever is wrong with it.
fn error(reason: Reason) -> &'static str {
    match reason {
        Reason::CallerRefused => "unauthorized_client",
        Reason::CallerExpired => "invalid_client",
        Reason::GrantUnsupported => "unsupported_grant_type",
        Reason::TargetWrong | Reason::NoRoute => "invalid_target",
        Reason::ScopeUnknown | Reason::ScopeRefused => "invalid_scope",
        Reason::StepUp => "insufficient_user_authentication",
        Reason::ClaimsChallenge => "insufficient_claims",
        _ => match reason.public().status {
            403 => "access_denied",
            503 => "temporarily_unavailable",
            500.. => "server_error",
            _ => "invalid_request",
        },
    }
}

/// The caller is known, so 401 and 403 would say the wrong thing to him: what is refused is his question.
fn status(reason: Reason) -> StatusCode {
    let status = match (reason, reason.public().status) {
        (Reason::CallerExpired, status) => status,
        (_, 401 | 403 | 404) => 400,
        (_, status) => status,
    };
    StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

/// In the characters that RFC 6749 §5.2 allows. What the caller can mend is told exactly, for he has proved who he is.
fn description(stop: &Stop) -> String {
    let own = is_the_callers_own(stop.reason) && !stop.detail.is_empty();
    let text = if own { stop.detail.as_str() } else { stop.reason.public().detail };
    text.chars().map(|c| if matches!(c, ' '..='!' | '#'..='[' | ']'..='~') { c } else { '?' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(reason: Reason, expected: (u16, &str), meant: Option<&str>) {
        let response = refusal(&Stop::new(reason, "d"), "0ABC");
        let shown = response.headers().get(STATUS_HEADER).map(|value| value.to_str().unwrap());
        assert_eq!((response.status().as_u16(), error(reason)), expected, "{reason:?}");
        assert_eq!(shown, meant, "{reason:?}");
    }

    #[test]
    fn errors_are_those_of_the_standards() {
        check(Reason::ExchangeMalformed, (400, "invalid_request"), None);
        check(Reason::GrantUnsupported, (400, "unsupported_grant_type"), None);
        check(Reason::CallerRefused, (400, "unauthorized_client"), None);
        check(Reason::CallerExpired, (401, "invalid_client"), None);
        check(Reason::TargetWrong, (400, "invalid_target"), None);
        check(Reason::NoRoute, (400, "invalid_target"), Some("404"));
        check(Reason::ScopeRefused, (400, "invalid_scope"), Some("403"));
        check(Reason::Expired, (400, "invalid_request"), Some("401"));
        check(Reason::SenderConstrained, (400, "invalid_request"), Some("401"));
        check(Reason::PathRefused, (400, "invalid_request"), Some("400"));
        check(Reason::NoRuleMatched, (400, "access_denied"), Some("403"));
        check(Reason::StepUp, (400, "insufficient_user_authentication"), Some("401"));
        check(Reason::KeysUnavailable, (503, "temporarily_unavailable"), Some("503"));
        check(Reason::AuditUnavailable, (503, "temporarily_unavailable"), Some("503"));
        check(Reason::MintFailed, (500, "server_error"), Some("500"));
        check(Reason::BodyTooLarge, (413, "invalid_request"), None);
        check(Reason::RequestTimeout, (408, "invalid_request"), None);
    }

    #[test]
    fn failed_token_checks_look_alike_and_no_description_breaks_out() {
        let texts: std::collections::BTreeSet<_> = [
            Reason::Expired,
            Reason::SignatureBad,
            Reason::AudienceWrong,
            Reason::TokenKind,
            Reason::SenderConstrained,
        ]
        .map(|reason| (error(reason), description(&Stop::new(reason, format!("{reason:?}")))))
        .into();
        assert_eq!(texts.len(), 1);
        for reason in Reason::ALL {
            let text = description(&Stop::new(reason, "a\"b\\c\r\nd\u{e9}"));
            assert!(
                !text.contains(['"', '\\', '\r', '\n']) && text.is_ascii() && !text.is_empty(),
                "{reason:?}: {text}"
            );
        }
    }
}
