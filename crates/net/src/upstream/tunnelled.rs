//! One request that asks an upstream for a tunnel, and its answer. Over HTTP/1.1 it goes on a connection of its own, never
//! from the pool and never back; over HTTP/2 on a stream (RFC 8441). It is sent once, whatever happens.
use super::balance::Fault;
use super::endpoint::Endpoint;
use super::exchange::{Failure, InFlight, Outgoing, Waits, answer, fit, told};
use super::group::Group;
use super::http1::{Home, Http1, Reply, Sending};
use super::tries::Tries;
use super::{ForwardError, Preface, Target};
use crate::tunnel::{End, UpstreamEnd};
use crate::{Body, Request, Response};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Version, header};
use std::pin::pin;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// An HTTP/2 connection may be used before its SETTINGS came. Whether it takes an extended CONNECT is known only then.
const SETTINGS_WAIT: Duration = Duration::from_secs(1);
const SETTINGS_LOOK_EVERY: Duration = Duration::from_millis(5);

/// What an upstream made of a request for a tunnel.
pub enum Opened {
    /// It agreed. The answer has its head and no body; `Sec-WebSocket-Accept` is for the caller to check.
    Tunnel(Response, UpstreamEnd),
    /// It answered, as to any other request.
    Answer(Response),
}

pub(super) async fn open(group: &Group, target: &Target, mut request: Request) -> Result<Opened, ForwardError> {
    let preface = target.settings.own_preface.as_ref().map(|own| match request.extensions_mut().remove::<Preface>() {
        Some(Preface(of_client)) => of_client,
        None => own.clone(),
    });
    fit(&mut request, target)?;
    ask_for_websocket(&mut request, target);
    let mut tries = Tries::new(group, target, Waits::of(&request, target), false);
    let request = request.map(|_| Outgoing::nothing());
    loop {
        let Some((at, endpoint)) = group.pick(tries.tried, tries.began) else {
            tries.nobody_left(group, target).await?;
            continue;
        };
        let leased = timeout_at(tries.until, lease(endpoint, target, preface.as_deref().unwrap_or_default())).await;
        match leased.map_err(|_| ForwardError::RequestTimeout(tries.waits.all))? {
            Ok(link) => {
                let opened = exchange(link, endpoint, request, &tries).await;
                note(group, target, at, &tries, &opened);
                return opened;
            }
            // It was reached, and will not have it.
            Err(error @ ForwardError::Protocol(_)) => return Err(error),
            Err(error) => tries.not_connected(group, target, at, error).await?,
        }
    }
}

/// What this tells of the endpoint, for choosing the next one.
fn note(group: &Group, target: &Target, at: usize, tries: &Tries<'_>, opened: &Result<Opened, ForwardError>) {
    match opened {
        Ok(_) => {
            let now = Instant::now();
            group.answered(at, now, now.duration_since(tries.began));
        }
        Err(error) => group.failed(target, at, tries.began, Fault::Answer, error),
    }
}

enum Link {
    Http1(Http1),
    Http2(super::endpoint::Http2),
}

fn ask_for_websocket(request: &mut Request, target: &Target) {
    if target.settings.http2 {
        *request.method_mut() = Method::CONNECT;
        request.extensions_mut().insert(hyper::ext::Protocol::from_static("websocket"));
        return;
    }
    let headers = request.headers_mut();
    headers.remove(header::TE);
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
}

async fn lease(endpoint: &Endpoint, target: &Target, preface: &[u8]) -> Result<Link, ForwardError> {
    if target.settings.http2 {
        lease_http2(endpoint, target).await.map(Link::Http2)
    } else {
        endpoint.open_http1(target, preface).await.map(Link::Http1)
    }
}

async fn lease_http2(endpoint: &Endpoint, target: &Target) -> Result<super::endpoint::Http2, ForwardError> {
    let (connection, _) = endpoint.http2(target).await?;
    let until = Instant::now() + SETTINGS_WAIT;
    let takes_tunnels = &connection.takes_tunnels;
    takes_tunnels.asked.notify_one();
    while !takes_tunnels.announced.load(Relaxed) {
        if Instant::now() >= until {
            return Err(ForwardError::Protocol(
                "it did not announce extended CONNECT (RFC 8441), so no WebSocket can be opened over HTTP/2".into(),
            ));
        }
        tokio::time::sleep(SETTINGS_LOOK_EVERY).await;
        takes_tunnels.asked.notify_one();
    }
    Ok(connection)
}

async fn exchange(
    link: Link,
    endpoint: &Endpoint,
    request: http::Request<Outgoing>,
    tries: &Tries<'_>,
) -> Result<Opened, ForwardError> {
    let guard = InFlight::begin(endpoint);
    match link {
        Link::Http1(connection) => over_http1(connection, request, tries, guard).await,
        Link::Http2(connection) => over_http2(connection, request, tries, guard).await,
    }
}

async fn over_http1(
    mut connection: Http1,
    request: http::Request<Outgoing>,
    tries: &Tries<'_>,
    guard: InFlight,
) -> Result<Opened, ForwardError> {
    let mut sending = Sending::of(&request, Outgoing::nothing());
    let answered = answer(pin!(connection.exchange(&mut sending)), None, tries.waits.first_byte, tries.until).await;
    let mut head = answered.map_err(|failure| lost(failure, tries))?;
    if !switches_to_websocket(head.status, &head.headers)? {
        let response = Reply::answer(connection, head, sending, Home(None), Instant::now());
        let response = response.map_err(|why| ForwardError::Protocol(why.to_owned()))?;
        return Ok(Opened::Answer(response.map(|body| body.on_end(move |_| drop(guard)))));
    }
    let stream = End::Switched(Box::new(connection.switch(&mut head)));
    let mut response = Response::new(Body::empty());
    *response.status_mut() = head.status;
    *response.headers_mut() = head.headers;
    Ok(Opened::Tunnel(response, UpstreamEnd { stream, keep: Some(Box::new(guard)) }))
}

async fn over_http2(
    mut connection: super::endpoint::Http2,
    request: http::Request<Outgoing>,
    tries: &Tries<'_>,
    guard: InFlight,
) -> Result<Opened, ForwardError> {
    let mut unsent = None;
    let answered = answer(pin!(connection.send(request, &mut unsent)), None, tries.waits.first_byte, tries.until).await;
    let mut response = answered.map_err(|failure| lost(failure, tries))?;
    let keep = Box::new((guard, connection.streams));
    if response.status() != StatusCode::OK {
        let mut response = response.map(Body::incoming).map(|body| body.on_end(move |_| drop(keep)));
        *response.version_mut() = Version::HTTP_11;
        return Ok(Opened::Answer(response));
    }
    let stream = timeout_at(tries.until, hyper::upgrade::on(&mut response))
        .await
        .map_err(|_| ForwardError::RequestTimeout(tries.waits.all))?
        .map_err(|error| ForwardError::Protocol(told(&error)))?;
    let head = Response::from_parts(response.into_parts().0, Body::empty());
    Ok(Opened::Tunnel(head, UpstreamEnd { stream: End::Upgraded(stream), keep: Some(keep) }))
}

fn lost(failure: Failure, tries: &Tries<'_>) -> ForwardError {
    match failure {
        Failure::Unsent(why) | Failure::Unanswered(why) | Failure::Broken(why) => ForwardError::Protocol(why),
        Failure::Late => ForwardError::FirstByteTimeout(tries.waits.first_byte),
        Failure::Overdue | Failure::Refused(_) => ForwardError::RequestTimeout(tries.waits.all),
    }
}

/// RFC 6455 §4.1: 101 with exactly what was asked for. Any other 101 is no answer at all.
fn switches_to_websocket(status: StatusCode, headers: &HeaderMap) -> Result<bool, ForwardError> {
    if status != StatusCode::SWITCHING_PROTOCOLS {
        return Ok(false);
    }
    let mut upgrades = headers.get_all(header::UPGRADE).iter();
    let upgrade = upgrades.next().map(|value| value.as_bytes().trim_ascii());
    let connection = headers.get_all(header::CONNECTION).iter();
    let says_upgrade = connection
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .any(|option| option.trim_ascii().eq_ignore_ascii_case(b"upgrade"));
    let is_websocket = upgrade.is_some_and(|value| value.eq_ignore_ascii_case(b"websocket"));
    if is_websocket && upgrades.next().is_none() && says_upgrade {
        return Ok(true);
    }
    Err(ForwardError::Protocol("it answered 101 without `Upgrade: websocket` and `Connection: upgrade`".into()))
}
