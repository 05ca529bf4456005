//! What a caller is told when the upstream does not answer him: `application/problem+json` (RFC 9457), a small page for
//! a browser's navigation, or a gRPC status, with the challenge RFC 6750 and RFC 9470 ask for. Never says which check failed.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{CACHE_CONTROL, CONNECTION, CONTENT_TYPE, RETRY_AFTER, UPGRADE, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use net::{Body, Response};
use std::sync::Arc;
use trust::policy::StepUp;
use trust::reason::Reason;
use wire::grpc;

/// Carries the decision id on every answer.
pub const DECISION_HEADER: HeaderName = HeaderName::from_static("countersign-decision");
/// Gives out nonces for DPoP proofs.
pub const DPOP_NONCE: HeaderName = HeaderName::from_static("dpop-nonce");
const SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
const SEC_FETCH_DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");
const REALM: &str = "countersign";
const RETRY_SECONDS: &str = "2";

/// Everything an answer of ours depends on.
pub struct Refusal<'a> {
    pub reason: Reason,
    pub decision_id: &'a str,
    pub step_up: Option<&'a StepUp>,
    pub form: Form,
    pub challenge: &'a Challenge,
    /// Where the service's metadata is (RFC 9728 §5.1), if it has any.
    pub resource_metadata: Option<&'a str>,
}

/// The form in which a caller can read a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Problem,
    /// A problem's head: the request was a HEAD.
    Head,
    /// A browser that navigates gets a page.
    Page,
    /// A status of gRPC's own. `deadline`: the caller had set one.
    Grpc {
        kind: grpc::Kind,
        deadline: bool,
    },
}

impl Form {
    pub fn of(method: &Method, headers: &HeaderMap) -> Form {
        match *method {
            Method::HEAD => Form::Head,
            Method::GET if is_navigation(headers) => Form::Page,
            Method::POST => match grpc::kind(headers) {
                Some(kind) => Form::Grpc { kind, deadline: matches!(grpc::timeout(headers), Ok(Some(_))) },
                None => Form::Problem,
            },
            _ => Form::Problem,
        }
    }
}

/// What a 401 or 403 says beyond its reason.
#[derive(Debug, Clone, Default)]
pub struct Challenge {
    pub offer: Offer,
    /// For the next DPoP proof (RFC 9449 §9).
    pub dpop_nonce: Option<Box<HeaderValue>>,
    pub claims: Option<Box<ClaimsChallenge>>,
}

/// A claims challenge as Microsoft documents it ("Claims challenges, claims requests and client capabilities").
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimsChallenge {
    /// A GUID.
    pub tenant: String,
    /// The authentication context that is wanted.
    pub context: Arc<str>,
}

impl ClaimsChallenge {
    fn parameters(&self) -> String {
        let claims = serde_json::json!({ "access_token": { "acrs": { "essential": true, "value": self.context } } });
        format!(
            "authorization_uri=\"https://login.microsoftonline.com/{}/oauth2/v2.0/authorize\", \
             error=\"insufficient_claims\", claims=\"{}\"",
            self.tenant,
            STANDARD.encode(claims.to_string())
        )
    }
}

/// The schemes a caller is told to authenticate with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Offer {
    #[default]
    Bearer,
    /// The caller spoke DPoP, or must.
    Dpop,
    /// Bearer for the error, DPoP as the way that is open (RFC 9449 §7.2).
    Either,
}

/// Is this a person's browser opening a page? Judged by Fetch Metadata, not by `Accept`.
fn is_navigation(headers: &HeaderMap) -> bool {
    let is = |name: HeaderName, value: &str| headers.get(name).is_some_and(|v| v.as_bytes() == value.as_bytes());
    is(SEC_FETCH_MODE, "navigate") && is(SEC_FETCH_DEST, "document")
}

pub fn refusal(refusal: &Refusal<'_>) -> Response {
    let public = refusal.reason.public();
    let status = StatusCode::from_u16(public.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = Response::new(match refusal.form {
        Form::Problem => Body::full(problem(refusal)),
        Form::Page => Body::full(page(refusal)),
        Form::Head | Form::Grpc { .. } => Body::empty(),
    });
    *response.status_mut() = status;
    let headers = response.headers_mut();
    let is_page = refusal.form == Form::Page;
    let content_type = if is_page { "text/html; charset=utf-8" } else { "application/problem+json" };
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Ok(id) = HeaderValue::from_str(refusal.decision_id) {
        headers.insert(DECISION_HEADER, id);
    }
    for text in challenges(refusal) {
        if let Ok(challenge) = HeaderValue::from_str(&text) {
            headers.append(WWW_AUTHENTICATE, challenge);
        }
    }
    if let Some(nonce) = &refusal.challenge.dpop_nonce {
        headers.insert(DPOP_NONCE, HeaderValue::clone(nonce));
    }
    if refusal.reason == Reason::WebsocketVersion {
        // RFC 6455 §4.4, RFC 9110 §15.5.22
        headers.insert("sec-websocket-version", HeaderValue::from_static(wire::websocket::VERSION_SPOKEN));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    }
    if status == StatusCode::SERVICE_UNAVAILABLE {
        headers.insert(RETRY_AFTER, HeaderValue::from_static(RETRY_SECONDS));
    }
    if is_page {
        headers.insert(
            "content-security-policy",
            HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"),
        );
        headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    }
    if let Form::Grpc { kind, deadline } = refusal.form {
        let status = grpc::status_of(public.status, deadline);
        *response.status_mut() = grpc::refuse(response.headers_mut(), kind, status, public.detail);
    }
    response
}

/// One challenge per scheme on offer, each in a field of its own, for clients that read only the first of one field.
pub(crate) fn challenges(refusal: &Refusal<'_>) -> Vec<String> {
    let public = refusal.reason.public();
    if public.status != 401 && public.oauth_error.is_none() {
        return Vec::new();
    }
    let algs = format!(", algs=\"{}\"", trust::dpop::ALGORITHMS);
    match refusal.challenge.offer {
        Offer::Bearer => vec![challenge("Bearer", refusal)],
        Offer::Dpop => vec![challenge("DPoP", refusal) + &algs],
        Offer::Either => vec![challenge("Bearer", refusal), format!("DPoP realm=\"{REALM}\"{algs}")],
    }
}

/// RFC 6750 §3 for 401 and 403, RFC 9470 §3 for a step-up demand, in the words of `scheme`.
fn challenge(scheme: &str, refusal: &Refusal<'_>) -> String {
    let public = refusal.reason.public();
    if let Some(claims) = &refusal.challenge.claims {
        return format!("{scheme} realm=\"{}\", {}", claims.tenant, claims.parameters());
    }
    let mut text = format!("{scheme} realm=\"{REALM}\"");
    if let Some(error) = public.oauth_error {
        text.push_str(&format!(", error=\"{error}\""));
    }
    if let Some(step_up) = refusal.step_up {
        text.push_str(&format!(
            ", error_description=\"a fresh or stronger sign-in is needed\", acr_values=\"{}\"",
            step_up.acr_values.join(" ")
        ));
        if let Some(max_age_s) = step_up.max_age_s {
            text.push_str(&format!(", max_age={max_age_s}"));
        }
    }
    if let Some(url) = refusal.resource_metadata {
        text.push_str(&format!(", resource_metadata=\"{url}\""));
    }
    text
}

fn problem(refusal: &Refusal<'_>) -> String {
    let public = refusal.reason.public();
    serde_json::json!({
        "type": "about:blank",
        "title": public.title,
        "status": public.status,
        "detail": public.detail,
        "decision": refusal.decision_id,
    })
    .to_string()
}

/// A page without script or outside resource; every text in it is ours.
fn page(refusal: &Refusal<'_>) -> String {
    let public = refusal.reason.public();
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>{title}</title><style>body{{font:16px/1.5 system-ui,sans-serif;max-width:34rem;margin:15vh auto;padding:0 1rem;\
         color:#1d2433;background:#fff}}code{{background:#eef1f5;padding:.1rem .4rem;border-radius:.3rem}}\
         @media(prefers-color-scheme:dark){{body{{color:#e6e9ef;background:#14181f}}code{{background:#242b36}}}}</style></head>\
         <body><h1>{title}</h1><p>{detail}</p><p>Decision id: <code>{id}</code></p></body></html>\n",
        title = public.title,
        detail = html(public.detail),
        id = refusal.decision_id,
    )
}

/// A public text as HTML: marks written out, what stands in backticks set as code.
fn html(text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let parts = text.split('`').enumerate();
    parts.map(|(at, part)| if at % 2 == 1 { format!("<code>{part}</code>") } else { part.to_owned() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(reason: Reason) -> Refusal<'static> {
        const BEARER: &Challenge = &Challenge { offer: Offer::Bearer, dpop_nonce: None, claims: None };
        Refusal {
            reason,
            decision_id: "0ABCDEFGHJKMNPQR",
            step_up: None,
            form: Form::Problem,
            challenge: BEARER,
            resource_metadata: None,
        }
    }

    fn check_challenge(refusal: &Refusal<'_>, expected: Option<&str>) {
        assert_eq!(challenges(refusal), expected.into_iter().collect::<Vec<_>>());
    }

    #[test]
    fn who_speaks_dpop_is_answered_in_dpop() {
        const ALGS: &str = "algs=\"ES256 ES384 ES512 EdDSA PS256 PS384 PS512 RS256 RS384 RS512\"";
        let nonce = Some(Box::new(HeaderValue::from_static("n-1")));
        let dpop = Challenge { offer: Offer::Dpop, dpop_nonce: nonce, claims: None };
        let answer = refusal(&Refusal { challenge: &dpop, ..of(Reason::DpopNonce) });
        let fields: Vec<&str> =
            answer.headers().get_all(WWW_AUTHENTICATE).iter().filter_map(|field| field.to_str().ok()).collect();
        assert_eq!(fields, [format!("DPoP realm=\"countersign\", error=\"use_dpop_nonce\", {ALGS}")]);
        assert_eq!(answer.headers()["dpop-nonce"], "n-1");
        let either = Challenge { offer: Offer::Either, dpop_nonce: None, claims: None };
        let answer = refusal(&Refusal { challenge: &either, ..of(Reason::SenderConstrained) });
        let fields: Vec<&str> =
            answer.headers().get_all(WWW_AUTHENTICATE).iter().filter_map(|field| field.to_str().ok()).collect();
        let bearer = "Bearer realm=\"countersign\", error=\"invalid_token\"";
        assert_eq!(fields, [bearer.to_owned(), format!("DPoP realm=\"countersign\", {ALGS}")]);
        assert!(!answer.headers().contains_key("dpop-nonce"));
    }

    #[test]
    fn challenges_follow_rfc_6750_and_9470() {
        check_challenge(&of(Reason::TokenMissing), Some("Bearer realm=\"countersign\""));
        check_challenge(&of(Reason::Expired), Some("Bearer realm=\"countersign\", error=\"invalid_token\""));
        check_challenge(&of(Reason::NoRuleMatched), Some("Bearer realm=\"countersign\", error=\"insufficient_scope\""));
        check_challenge(&of(Reason::NoRoute), None);
        check_challenge(&of(Reason::CorsRefused), None);
        let url = "https://a.example/.well-known/oauth-protected-resource";
        check_challenge(
            &Refusal { resource_metadata: Some(url), ..of(Reason::TokenMissing) },
            Some(&format!("Bearer realm=\"countersign\", resource_metadata=\"{url}\"")),
        );
    }

    /// The very header of Microsoft's documentation, but for the tenant.
    #[test]
    fn a_claims_challenge_is_as_microsoft_documents_it() {
        let claims = ClaimsChallenge { tenant: "11111111-2222-3333-4444-555555555555".into(), context: "cp1".into() };
        let challenge = Challenge { claims: Some(Box::new(claims)), ..Challenge::default() };
        let step_up = StepUp {
            rule: Arc::new(trust::policy::RuleId { name: "r".into(), place: trust::policy::Place::default() }),
            max_age_s: None,
            acr_values: vec!["cp1".into()],
            asking: trust::principal::Asking::Claims,
        };
        check_challenge(
            &Refusal { challenge: &challenge, step_up: Some(&step_up), ..of(Reason::ClaimsChallenge) },
            Some(
                "Bearer realm=\"11111111-2222-3333-4444-555555555555\", authorization_uri=\"https://login.microsoftonline.com/\
                 11111111-2222-3333-4444-555555555555/oauth2/v2.0/authorize\", error=\"insufficient_claims\", \
                 claims=\"eyJhY2Nlc3NfdG9rZW4iOnsiYWNycyI6eyJlc3NlbnRpYWwiOnRydWUsInZhbHVlIjoiY3AxIn19fQ==\"",
            ),
        );
        let plain = StepUp { acr_values: vec!["gold".into(), "silver".into()], ..step_up };
        check_challenge(
            &Refusal { step_up: Some(&plain), ..of(Reason::StepUp) },
            Some(
                "Bearer realm=\"countersign\", error=\"insufficient_user_authentication\", error_description=\"a fresh or \
                 stronger sign-in is needed\", acr_values=\"gold silver\"",
            ),
        );
        check_challenge(&of(Reason::ClaimsUnsupported), None);
    }

    #[test]
    fn failed_token_checks_give_one_public_text() {
        let texts: std::collections::BTreeSet<_> =
            [Reason::Expired, Reason::SignatureBad, Reason::KeyUnknown, Reason::AudienceWrong, Reason::TokenKind]
                .map(|reason| problem(&of(reason)))
                .into();
        assert_eq!(texts.len(), 1);
    }

    #[test]
    fn a_page_shows_every_word_of_its_text() {
        assert_eq!(
            html("send `Authorization: Bearer <token>`."),
            "send <code>Authorization: Bearer &lt;token&gt;</code>."
        );
        for reason in Reason::ALL {
            let page = page(&Refusal { form: Form::Page, ..of(reason) });
            assert_eq!(page.matches("<code>").count(), page.matches("</code>").count(), "{reason:?}");
            assert!(!page.contains('`') && !page.contains("<token>"), "{reason:?}");
        }
    }

    #[test]
    fn each_caller_gets_the_form_he_can_read() {
        let check = |method: Method, pairs: &[(&'static str, &'static str)], expected: Form| {
            let pairs = pairs.iter().map(|(n, v)| (http::HeaderName::from_static(n), HeaderValue::from_static(v)));
            assert_eq!(Form::of(&method, &pairs.collect()), expected, "{method}");
        };
        let document = [("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")];
        check(Method::GET, &document, Form::Page);
        check(Method::POST, &document, Form::Problem);
        check(Method::HEAD, &document, Form::Head);
        check(Method::GET, &[("accept", "text/html")], Form::Problem);
        check(Method::GET, &[("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "iframe")], Form::Problem);
        let grpc = |deadline| Form::Grpc { kind: grpc::Kind::Grpc, deadline };
        check(Method::POST, &[("content-type", "application/grpc+proto")], grpc(false));
        check(Method::POST, &[("content-type", "application/grpc"), ("grpc-timeout", "1S")], grpc(true));
        check(Method::POST, &[("content-type", "application/json")], Form::Problem);
        check(Method::GET, &[("content-type", "application/grpc")], Form::Problem);
    }

    #[test]
    fn a_grpc_caller_is_told_in_his_own_status() {
        let form = Form::Grpc { kind: grpc::Kind::Grpc, deadline: false };
        let check = |reason, expected: &str| {
            let response = refusal(&Refusal { form, ..of(reason) });
            let field = |name: &str| response.headers().get(name).map(|value| value.to_str().unwrap());
            assert_eq!((response.status().as_u16(), field("grpc-status")), (200, Some(expected)), "{reason:?}");
            assert_eq!(field("content-type"), Some("application/grpc"));
            assert_eq!(field("countersign-decision"), Some("0ABCDEFGHJKMNPQR"));
            assert!(field("grpc-message").is_some_and(|text| !text.is_empty()));
        };
        check(Reason::TokenMissing, "16");
        check(Reason::Expired, "16");
        check(Reason::NoRuleMatched, "7");
        check(Reason::NoRoute, "12");
        check(Reason::UpstreamConnect, "14");
        check(Reason::BodyTooLarge, "8");
    }
}
