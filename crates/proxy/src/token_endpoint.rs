//! The token endpoint (RFC 8693, in the profile of draft-ietf-oauth-transaction-tokens): a workload that mutual TLS proved
//! names the request it will send, shows the access token that came with it, and gets the edge's verdict as a Txn-Token.
//!
//! No caller that is not listed, no token without a decision, none without a record. It forwards nothing and believes
//! nobody's word about who somebody is.

mod answer;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use http::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, Method, Version};
use net::{Body, BodyError, Connection, Peer, Refusal, Request, Response, Seldom};
use trust::json;
use trust::reason::Reason;
use trust::spiffe::Pattern;
use wire::token_exchange::{self, Exchange, Fault, MEDIA_TYPE, Named};

pub use crate::judge::exchange::Scopes;

use crate::audit::record::{Asker, RequestFacts};
use crate::clock::UnixMs;
use crate::judge::exchange::{Granted, Wanted};
use crate::judge::recording::{self, Recording};
use crate::judge::{Judge, Shared, Stop};

/// The one place where tokens are asked for.
pub const PATH: &str = "/token";
/// An access token of the largest size, percent-encoded throughout, and what belongs to it.
const FORM_BYTES_MAX: usize = 64 * 1024;
const JSON_BYTES_MAX: usize = 16 * 1024;
/// A caller that is not listed comes again and again: the log says it this often.
const SAY_AGAIN: Duration = Duration::from_secs(10);

/// Who may ask, and for what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    pub trust_domain: Arc<str>,
    /// Workloads of the trust domain; everybody else is refused.
    pub callers: Vec<Pattern>,
    pub scopes: Scopes,
    /// How long a request's body may take.
    pub body_timeout: Duration,
}

/// The settings in force, for all workers: who may ask can be taken back while they run.
pub type InForce = Arc<ArcSwap<Settings>>;

/// One worker of the token endpoint.
pub struct TokenEndpoint {
    judge: Judge,
    settings: InForce,
    said: Seldom,
}

impl TokenEndpoint {
    pub fn new(shared: Arc<Shared>, settings: InForce) -> TokenEndpoint {
        TokenEndpoint { judge: Judge::new(shared), settings, said: Seldom::every(SAY_AGAIN) }
    }

    async fn answer(&self, request: Request, connection: &Arc<Connection>) -> Response {
        let now = UnixMs::now();
        let settings = self.settings.load_full();
        let peer = connection.tls.as_ref().and_then(|tls| tls.peer.as_deref());
        let Some(peer) = peer.filter(|peer| settings.callers.iter().any(|caller| caller.matches(peer.id()))) else {
            let refusal = self.refuse_caller(peer);
            read_unneeded(request, settings.body_timeout).await;
            return refusal;
        };
        let Ok(id) = self.judge.ids.decision(now) else {
            return answer::refusal(&Stop::new(Reason::MintFailed, ""), "");
        };
        let facts = facts(&request, connection, peer);
        let mut recording = self.judge.record(facts, request.headers(), id, now);
        // Who is no longer known is told that first.
        let elsewhere = Elsewhere::of(&request).filter(|_| peer.is_current(now.seconds()));
        let granted = match elsewhere {
            None => self.exchange(request, connection, (peer, &settings), &mut recording, now).await,
            Some(_) => {
                read_unneeded(request, settings.body_timeout).await;
                Err(Stop::new(Reason::ExchangeMalformed, "tokens are asked for with POST, at `/token`"))
            }
        };
        match granted {
            Ok(granted) => {
                let response = answer::granted(&granted, recording.decision_id());
                recording.answered(response)
            }
            Err(stop) => {
                let mut response = answer::refusal(&stop, recording.decision_id());
                if let Some(elsewhere) = elsewhere {
                    answer::not_here(&mut response, elsewhere);
                }
                recording.refused(stop.reason, stop.detail, response)
            }
        }
    }

    /// Not recorded: a workload that is not listed could fill the disk. Counted, and logged now and then.
    fn refuse_caller(&self, peer: Option<&Peer>) -> Response {
        self.judge.shared.metrics.token_caller_refused();
        if self.said.is_due(Instant::now()) {
            let caller = peer.map(|peer| peer.id().as_str());
            tracing::warn!(
                caller,
                "asked for a token, but is not among `token_endpoint.callers`; add it there if it may"
            );
        }
        answer::refusal(&Stop::new(Reason::CallerRefused, ""), "")
    }

    async fn exchange(
        &self,
        request: Request,
        connection: &Connection,
        (peer, settings): (&Peer, &Settings),
        recording: &mut Recording,
        now: UnixMs,
    ) -> Result<Granted, Stop> {
        if let Err(stop) = check_head(&request, peer, now) {
            read_unneeded(request, settings.body_timeout).await;
            return Err(stop);
        }
        let body = read_body((*request).into_body(), settings.body_timeout, recording).await?;
        // Whoever sends slowly is judged by the time at which he has asked.
        let now = UnixMs::now();
        let caller = peer.id();
        let exchange = Exchange::read(&body, &settings.trust_domain, caller.as_str()).map_err(unreadable)?;
        let named = named(&exchange.request_details)?;
        let client_ip = client_ip(&exchange.request_context)?;
        recording.names(&named.method, &named.host, named.target.path(), client_ip);
        let wanted = Wanted {
            named: &named,
            subject_token: &exchange.subject_token,
            scope: &exchange.scope,
            caller,
            certificate: connection.tls.as_ref().and_then(|tls| tls.client_certificate),
            client_ip,
        };
        self.judge.exchange(&wanted, &settings.scopes, recording, now).await
    }
}

impl net::Service for TokenEndpoint {
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

/// What is known before the request that a token is for could be read: who asks, and from where.
fn facts(request: &Request, connection: &Connection, peer: &Peer) -> RequestFacts {
    let facts = recording::facts(request, connection);
    RequestFacts {
        proxy: facts.client_ip.map(Asker::Address),
        client_ip: None,
        peer: crate::audit::record::bounded(peer.id().as_str()).into(),
        ..facts
    }
}

/// A request for something else than a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Elsewhere {
    Path,
    Method,
}

impl Elsewhere {
    fn of(request: &Request) -> Option<Elsewhere> {
        if request.uri().path() != PATH {
            return Some(Elsewhere::Path);
        }
        (*request.method() != Method::POST).then_some(Elsewhere::Method)
    }
}

/// A form, by nobody but the certificate's owner.
fn check_head(request: &Request, peer: &Peer, now: UnixMs) -> Result<(), Stop> {
    let malformed = |why: &str| Err(Stop::new(Reason::ExchangeMalformed, why));
    if !peer.is_current(now.seconds()) {
        return Err(Stop::new(Reason::CallerExpired, "the caller's certificate ended while its connection stayed"));
    }
    if request.uri().query().is_some() {
        return malformed("parameters stand in the body: what stands in a URL is logged");
    }
    if request.headers().contains_key(AUTHORIZATION) {
        return malformed("the caller is known by its certificate; send no `Authorization`");
    }
    if !is_form(request.headers()) {
        return malformed("the body is not `application/x-www-form-urlencoded`, in plain bytes");
    }
    Ok(())
}

/// Over HTTP/2 an answer before the end of a body resets its stream, and some clients take that for no answer. What is no
/// larger than a form is passed over.
async fn read_unneeded(request: Request, timeout: Duration) {
    if request.version() == Version::HTTP_2 {
        let reading = (*request).into_body().read_all(FORM_BYTES_MAX);
        let _unneeded = tokio::time::timeout(timeout, reading).await;
    }
}

/// All of it within one time: a body that comes byte by byte never stalls.
async fn read_body(body: Body, timeout: Duration, recording: &mut Recording) -> Result<bytes::Bytes, Stop> {
    let reading = body.on_end(recording.request_end()).read_all(FORM_BYTES_MAX);
    match tokio::time::timeout(timeout, reading).await {
        Ok(Ok(body)) => Ok(body),
        Ok(Err(error)) => Err(Stop::new(of_body(error), format!("the form: {error}"))),
        Err(_) => Err(Stop::new(Reason::RequestTimeout, "the form did not arrive in time")),
    }
}

fn is_form(headers: &HeaderMap) -> bool {
    let mut kinds = headers.get_all(CONTENT_TYPE).iter();
    let (Some(kind), None) = (kinds.next(), kinds.next()) else { return false };
    let Ok(kind) = kind.to_str() else { return false };
    let (media_type, parameters) = kind.split_once(';').unwrap_or((kind, "charset=utf-8"));
    let is_utf8 = parameters.trim().eq_ignore_ascii_case("charset=utf-8");
    media_type.trim().eq_ignore_ascii_case(MEDIA_TYPE) && is_utf8 && !headers.contains_key(CONTENT_ENCODING)
}

fn of_body(error: BodyError) -> Reason {
    match error {
        BodyError::TooLarge => Reason::BodyTooLarge,
        BodyError::Stalled => Reason::RequestTimeout,
        BodyError::Gone => Reason::ClientGone,
        BodyError::Malformed | BodyError::ForbiddenTrailer => Reason::RequestMalformed,
    }
}

fn unreadable(fault: Fault) -> Stop {
    let reason = match fault {
        Fault::GrantType => Reason::GrantUnsupported,
        Fault::RequestedType | Fault::SubjectType(_) => Reason::ExchangeUnsupported,
        Fault::Audience | Fault::Resource => Reason::TargetWrong,
        Fault::Scope => Reason::ScopeRefused,
        _ => Reason::ExchangeMalformed,
    };
    Stop::new(reason, fault.to_string())
}

/// The request that the token is for: all three of it, and nothing that goes unread.
fn named(details: &str) -> Result<Named, Stop> {
    let [method, path, host] = texts(details, "request_details", ["method", "path", "host"])?;
    let missing = |name: &str| Stop::new(Reason::ExchangeMalformed, format!("`request_details` names no `{name}`"));
    let method = method.ok_or_else(|| missing("method"))?;
    let path = path.ok_or_else(|| missing("path"))?;
    let host = host.ok_or_else(|| missing("host"))?;
    Named::read(&method, &path, &host).map_err(unreadable)
}

fn client_ip(context: &str) -> Result<Option<IpAddr>, Stop> {
    if context.is_empty() {
        return Ok(None);
    }
    let [req_ip] = texts(context, "request_context", ["req_ip"])?;
    req_ip.map(|text| token_exchange::address(&text).map_err(unreadable)).transpose()
}

/// The members of one JSON object, texts all of them. A member that is not known here is refused: whoever sent it counts on
/// its going into the token.
fn texts<const N: usize>(
    text: &str,
    parameter: &'static str,
    names: [&'static str; N],
) -> Result<[Option<String>; N], Stop> {
    let malformed = |why: String| Stop::new(Reason::ExchangeMalformed, format!("`{parameter}` {why}"));
    let mut object =
        json::object(text.as_bytes(), JSON_BYTES_MAX).map_err(|_| malformed("is no JSON object of 16 KiB".into()))?;
    let mut found = [const { None }; N];
    for (place, name) in found.iter_mut().zip(names) {
        *place = match object.remove(name) {
            None => None,
            Some(serde_json::Value::String(text)) => Some(text),
            Some(_) => return Err(malformed(format!("holds a `{name}` that is no text"))),
        };
    }
    if object.is_empty() {
        return Ok(found);
    }
    Err(malformed(format!("may hold only {}", names.map(|name| format!("`{name}`")).join(", "))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn the_request_that_is_named_is_named_whole_and_alone() {
        let check = |details: &str, expected: Result<&str, &str>| {
            let got = named(details).map(|named| format!("{} {}{}", named.method, named.host, named.target));
            assert_eq!(got.as_ref().map(String::as_str).map_err(|stop| stop.detail.as_str()), expected, "{details}");
        };
        check(r#"{"method":"GET","path":"/a?b=c","host":"A.example"}"#, Ok("GET a.example/a?b=c"));
        check(r#"{"method":"GET","path":"/a"}"#, Err("`request_details` names no `host`"));
        check("{}", Err("`request_details` names no `method`"));
        let only = "`request_details` may hold only `method`, `path`, `host`";
        check(r#"{"method":"GET","path":"/a","host":"a","amount":"500"}"#, Err(only));
        check(r#"{"method":1,"path":"/a","host":"a"}"#, Err("`request_details` holds a `method` that is no text"));
        let no_object = "`request_details` is no JSON object of 16 KiB";
        check(r#"{"method":"GET","method":"PUT","path":"/a","host":"a"}"#, Err(no_object));
        check(r#"["GET"]"#, Err(no_object));
        check("GET /a", Err(no_object));
        check(
            r#"{"method":"GET","path":"a","host":"a"}"#,
            Err("the path of `request_details` is no path and query as it would be sent"),
        );
    }

    #[test]
    fn nobody_is_told_more_of_the_subject_than_its_token_says() {
        let check = |context: &str, expected: Result<Option<&str>, ()>| {
            let got = client_ip(context).map(|ip| ip.map(|ip| ip.to_string()));
            assert_eq!(got.as_ref().map(Option::as_deref).map_err(|_| ()), expected, "{context}");
        };
        check("", Ok(None));
        check("{}", Ok(None));
        check(r#"{"req_ip":"::ffff:192.0.2.7"}"#, Ok(Some("192.0.2.7")));
        for name in ["amr", "acr", "auth_time", "sid", "cnf", "dev", "hp"] {
            check(&format!(r#"{{"req_ip":"192.0.2.7","{name}":"x"}}"#), Err(()));
        }
        check(r#"{"req_ip":"somewhere"}"#, Err(()));
    }

    #[test]
    fn a_form_is_one_in_so_many_words() {
        let check = |pairs: &[(&'static str, &'static str)], expected: bool| {
            let mut headers = HeaderMap::new();
            pairs.iter().for_each(|(name, value)| _ = headers.append(*name, HeaderValue::from_static(value)));
            assert_eq!(is_form(&headers), expected, "{pairs:?}");
        };
        let form = ("content-type", "application/x-www-form-urlencoded");
        check(&[form], true);
        check(&[("content-type", "Application/X-WWW-Form-Urlencoded; charset=UTF-8")], true);
        check(&[("content-type", "application/x-www-form-urlencoded;charset=utf-16")], false);
        check(&[("content-type", "application/json")], false);
        check(&[("content-type", "multipart/form-data; boundary=x")], false);
        check(&[form, form], false);
        check(&[form, ("content-encoding", "gzip")], false);
        check(&[], false);
    }
}
