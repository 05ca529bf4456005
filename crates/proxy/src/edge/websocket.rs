//! A request for a WebSocket: its handshake on the client's side, its handshake on the upstream's side, and the tunnel between
//! them, which begins only when both agreed. What becomes of its bytes is not looked at here, or anywhere.

use http::header::{AUTHORIZATION, CONTENT_LENGTH, HOST, ORIGIN};
use http::{HeaderMap, HeaderValue, StatusCode};
use net::tunnel::{Terms, UpstreamEnd, Wanted};
use net::upstream::Opened;
use net::{Connection, Request, Response};
use std::sync::Arc;
use trust::policy::Permit;
use trust::reason::Reason;
use wire::websocket::{self, ACCEPT, HandshakeError, KEY};

use super::alike::Alike;
use super::{Edge, finish, forward_failed, prepare};
use crate::answer::{DPOP_NONCE, Form};
use crate::clock::UnixMs;
use crate::judge::recording::Recording;
use crate::judge::standing::{self, Standing};
use crate::judge::{Asked, Client, Judged, Place, Stop};

/// A client's handshake, read before its fields were cleaned.
pub(super) struct Handshake {
    wanted: Wanted,
    /// Over HTTP/1.1.
    key: Option<HeaderValue>,
    standing: standing::Asked,
}

/// `None`: an ordinary request, whatever other protocol it may have offered.
pub(super) fn read(request: &Request) -> Result<Option<Handshake>, Stop> {
    let Some(wanted) = request.extensions().get::<Wanted>().copied() else { return Ok(None) };
    let headers = request.headers();
    let key = match wanted {
        Wanted::Upgrade => {
            let has_body = request.body().len_hint() != Some(0);
            match websocket::read_upgrade(request.method(), headers, has_body).map_err(malformed)? {
                Some(key) => Some(key),
                None => return Ok(None),
            }
        }
        Wanted::ExtendedConnect => websocket::read_extended_connect(headers).map(|()| None).map_err(malformed)?,
    };
    let mut fields = HeaderMap::new();
    for name in [AUTHORIZATION, ORIGIN, HOST].iter().chain(&wire::forwarded::READ) {
        for mut value in headers.get_all(name).iter().cloned() {
            value.set_sensitive(*name == AUTHORIZATION);
            fields.append(name.clone(), value);
        }
    }
    Ok(Some(Handshake { wanted, key, standing: standing::Asked { fields, target: request.uri().clone() } }))
}

fn malformed(error: HandshakeError) -> Stop {
    let reason = match error {
        HandshakeError::Version => Reason::WebsocketVersion,
        _ => Reason::WebsocketMalformed,
    };
    Stop::new(reason, error.to_string())
}

impl Edge {
    /// Judged as the GET that it is. Whether the service takes WebSockets, and from this page, is no question of who asks,
    /// and comes first.
    pub(super) async fn judge_websocket(
        &self,
        handshake: Handshake,
        place: Place,
        request: Request,
        (alike, client, form, connection): (&Alike, Client, Form, &Connection),
        recording: &mut Recording,
        now: UnixMs,
    ) -> Result<Response, Stop> {
        standing::admits(&place.served, &handshake.standing.fields, client)?;
        let (method, target, headers) = (request.method(), request.uri(), request.headers());
        let asked = Asked { method, host: &alike.host, target, headers, client };
        let judged = self.judge.judge(place, asked, recording, now).await?;
        // Keys may have been fetched, and more may have changed meanwhile.
        standing::admits(&judged.place.served, &handshake.standing.fields, client)?;
        let Handshake { wanted, key, standing } = handshake;
        let standing = Standing::of(&self.judge.shared, &judged, standing, alike.host.clone(), Client::of(connection));
        let Judged { place, permit, stamp, dpop_nonce, .. } = judged;
        let mut prepared = prepare(request, &place, alike, form, stamp, recording)?;
        if let Some(preface) = crate::view::preface(&place.served.service, client.ip, connection) {
            prepared.extensions_mut().insert(preface);
        }
        let mut response = self.open_websocket((wanted, key), (permit, standing), &place, prepared, recording).await?;
        if let Some(nonce) = dpop_nonce {
            response.headers_mut().insert(DPOP_NONCE, *nonce);
        }
        Ok(response)
    }

    async fn open_websocket(
        &self,
        (wanted, client_key): (Wanted, Option<HeaderValue>),
        (permit, standing): (Permit, Standing),
        place: &Place,
        mut request: Request,
        recording: &mut Recording,
    ) -> Result<Response, Stop> {
        let service = &place.served.service;
        let over_http2 = service.upstream.as_ref().is_some_and(|upstream| upstream.protocol.is_http2());
        let target = place.served.target.as_ref().map_err(|why| Stop::new(Reason::UpstreamConnect, why.clone()))?;
        let key = match (&client_key, over_http2) {
            (_, true) => None,
            (Some(key), false) => Some(key.clone()),
            (None, false) => Some(self.key_of_our_own()?),
        };
        let headers = request.headers_mut();
        headers.remove(CONTENT_LENGTH);
        headers.remove(ACCEPT);
        match &key {
            Some(key) => headers.insert(KEY, key.clone()),
            None => headers.remove(KEY),
        };
        let opened = self.pool.open(permit, target, request).await.map_err(|error| forward_failed(&error))?;
        let (mut response, stream) = match opened {
            Opened::Answer(response) => return not_opened(response, wanted, recording),
            Opened::Tunnel(response, stream) => (response, stream),
        };
        if let Some(key) = &key {
            websocket::check_accept(response.headers(), key)
                .map_err(|error| Stop::new(Reason::UpstreamProtocol, error.to_string()))?;
        }
        finish(&mut response, recording);
        let headers = response.headers_mut();
        headers.remove(CONTENT_LENGTH);
        headers.remove(ACCEPT);
        if let Some(accept) = client_key.as_ref().and_then(websocket::accept_of) {
            headers.insert(ACCEPT, accept);
        }
        *response.status_mut() = match wanted {
            Wanted::Upgrade => StatusCode::SWITCHING_PROTOCOLS,
            Wanted::ExtendedConnect => StatusCode::OK,
        };
        Ok(join(response, stream, place, standing, recording))
    }

    fn key_of_our_own(&self) -> Result<HeaderValue, Stop> {
        let failed = || Stop::new(Reason::MintFailed, "the system gave no randomness");
        websocket::key_from(self.judge.ids.nonce().map_err(|_| failed())?).ok_or_else(failed)
    }
}

/// The upstream answered as to any other request. Over HTTP/2 a client would take any 2xx for an open tunnel.
fn not_opened(mut response: Response, wanted: Wanted, recording: &Recording) -> Result<Response, Stop> {
    if wanted == Wanted::ExtendedConnect && response.status().is_success() {
        let detail = format!("it answered {} and opened no WebSocket", response.status().as_u16());
        return Err(Stop::new(Reason::UpstreamProtocol, detail));
    }
    finish(&mut response, recording);
    response.headers_mut().remove(ACCEPT);
    Ok(response)
}

/// The opening is recorded here, whatever becomes of the tunnel; its end, when it ends.
fn join(
    response: Response,
    stream: UpstreamEnd,
    place: &Place,
    standing: Standing,
    recording: &mut Recording,
) -> Response {
    let idle_timeout = place.served.service.websocket.as_ref().map_or_else(Default::default, |ws| ws.idle_timeout);
    let open = recording.opened(response.status().as_u16());
    let terms = Terms { idle_timeout, permission: Arc::new(standing), on_end: Box::new(move |end| open.ended(end)) };
    response.map(|_| stream.into_body(terms))
}
