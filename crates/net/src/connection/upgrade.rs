//! What becomes of a connection, or of one HTTP/2 stream, that asked for a tunnel. The service says whether there is one;
//! here it begins, after the head of its answer, or the request was one like any other.
use super::{Session, admit_http2, catch_panic, problem, settle, until_cut};
use crate::head::Violation;
use crate::live::{Cut, InFlight, Refused};
use crate::server::Service;
use crate::socket::Socket;
use crate::tunnel::{End, Ended, Tunnel, Wanted};
use crate::{Body, Request, Response};
use http::{HeaderValue, Method, StatusCode, header};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;

/// A tunnel, and the request it counts as.
pub(super) struct Agreed {
    pub(super) tunnel: Box<Tunnel>,
    pub(super) in_flight: InFlight,
}

impl<S: Service> Session<S> {
    /// Both sides agreed, and the head of the answer went out.
    pub(super) async fn tunnel(&self, mut socket: Socket, agreed: Agreed) -> Cut {
        socket.begin_tunnel();
        let Agreed { tunnel, in_flight } = agreed;
        let cut = until_cut(&self.live, pin!(self.run_tunnel(*tunnel, End::Socket(Box::new(socket))))).await;
        drop(in_flight);
        cut.map_or_else(|cut| cut, |()| Cut::None)
    }

    async fn run_tunnel(&self, tunnel: Tunnel, client: End) {
        let phase = self.worker.process.phase.clone();
        let Some(running) = tunnel.join(client, &self.worker.clock, phase, |slot| self.worker.tunnels.add(slot)) else {
            return;
        };
        if matches!(catch_panic(pin!(running.run())).await, None | Some(Ended::Panic)) {
            self.panicked();
        }
    }

    /// RFC 8441: the stream of an extended CONNECT becomes the tunnel once its answer is on its way.
    pub(super) async fn answer_connect(
        self: Arc<Self>,
        mut request: http::Request<Incoming>,
    ) -> Result<Response, Infallible> {
        let in_flight = InFlight::begin(Arc::clone(&self.live));
        let upgrade = request.extensions_mut().remove::<OnUpgrade>();
        let mut request = Box::new(request.map(Body::incoming));
        let admitted = admit_connect(&mut request)
            .and_then(|()| admit_http2(&mut request, self.worker.process.limits.header_fields_max));
        let mut response = match admitted {
            Ok(()) => self.ask(request).await,
            Err(violation) => self.refuse(Refused::from_violation(violation)),
        };
        match (response.body_mut().take_tunnel(), upgrade) {
            (Some(tunnel), Some(upgrade)) => {
                *response.status_mut() = StatusCode::OK;
                let session = Arc::clone(&self);
                // It ends with the stream, which ends with the connection.
                tokio::spawn(async move {
                    if let Ok(stream) = upgrade.await {
                        session.run_tunnel(*tunnel, End::Upgraded(stream)).await;
                    }
                    drop(in_flight);
                });
                Ok(response)
            }
            // To the client any 2xx would mean that its tunnel is open.
            (None, Some(_)) if !response.status().is_success() => {
                settle(&mut response, false, in_flight);
                Ok(response)
            }
            _ => {
                let mut response = problem(502, "no tunnel was opened");
                settle(&mut response, false, in_flight);
                Ok(response)
            }
        }
    }
}

/// Of all CONNECT requests only one for a WebSocket becomes a request here: the GET it stands for (RFC 8441 §5).
fn admit_connect(request: &mut Request) -> Result<(), Violation> {
    match request.extensions_mut().remove::<hyper::ext::Protocol>() {
        Some(protocol) if protocol.as_str().eq_ignore_ascii_case("websocket") => {
            *request.method_mut() = Method::GET;
            request.extensions_mut().insert(Wanted::ExtendedConnect);
            Ok(())
        }
        Some(_) => Err(Violation { status: 501, reason: "a :protocol that is not implemented" }),
        None => Err(Violation { status: 501, reason: "CONNECT is not implemented" }),
    }
}

/// The head that opens a tunnel over HTTP/1.1 (RFC 9110 §7.8).
pub(super) fn switching(mut response: Response) -> Response {
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    response
}
