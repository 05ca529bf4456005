//! HTTP/1 towards a client, in the one task of its connection: a head, its answer, the next head. Each request is counted
//! from its head to its answer's last byte. It never decides about a request that the guard let through.
use super::upgrade::{Agreed, switching};
use super::{Session, broken_body, catch_panic, keep_waker_once, mark_unsent};
use crate::live::{Cut, InFlight, Refused};
use crate::server::Service;
use crate::socket::Socket;
use crate::tunnel::Wanted;
use crate::{Body, Request, Response};
use inbound::{Inbound, Next, Owner, RequestBody, Shared, is_read, lock};
use outbound::{Client, Outbound};
use received::Received;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

pub(crate) mod inbound;
mod outbound;
mod received;

/// What became of one request.
enum Done {
    /// The next one may come.
    Kept,
    Closing,
    Tunnel(Agreed),
    /// The connection is gone.
    Cut(Cut),
}

impl<S: Service> Session<S> {
    pub(super) async fn serve_http1(&self, socket: Socket) -> Cut {
        let owner = Owner::new(Inbound::new(socket, super::guard_limits(&self.worker.process.limits)));
        match catch_panic(pin!(self.exchanges(owner))).await {
            Some(cut) => cut,
            None => {
                self.panicked();
                Cut::Now
            }
        }
    }

    async fn exchanges(&self, owner: Owner) -> Cut {
        let mut known = false;
        while let Some(shared) = owner.shared() {
            let next = poll_fn(|cx| {
                keep_waker_once(&self.live, cx, &mut known);
                self.poll_next(shared, cx)
            });
            let done = match next.await {
                Err(Cut::Idle) => return self.close(shared, Cut::Idle).await,
                Err(cut) => return cut,
                Ok(Next::Ended) => Done::Closing,
                Ok(Next::Overdue) => return self.close(shared, Cut::HeaderTimeout).await,
                // Boxed here and below: an idle connection would hold room for it.
                Ok(Next::Refused(refused, is_head)) => Box::pin(self.turn_away(shared, refused, is_head)).await,
                Ok(Next::Request(received)) => Box::pin(self.exchange(shared, received)).await,
            };
            match done {
                Done::Kept => {}
                Done::Closing => return self.close(shared, Cut::None).await,
                Done::Tunnel(agreed) => {
                    let Some(socket) = owner.into_socket() else { break };
                    return Box::pin(self.tunnel(socket, agreed)).await;
                }
                Done::Cut(cut) => return cut,
            }
        }
        Cut::Now
    }

    /// A request that came before the end of an idle connection is answered.
    fn poll_next(&self, shared: &Shared, cx: &mut Context<'_>) -> Poll<Result<Next, Cut>> {
        let cut = self.live.cut();
        if cut == Cut::Now {
            return Poll::Ready(Err(cut));
        }
        let mut inbound = lock(shared);
        match inbound.poll_head(cx) {
            Poll::Pending if cut == Cut::Idle && inbound.is_between() => Poll::Ready(Err(cut)),
            polled => polled.map(Ok),
        }
    }

    /// The guard's refusal of a head.
    async fn turn_away(&self, shared: &Shared, refused: Refused, is_head: bool) -> Done {
        let client = Client { is_head, is_http_10: false, keeps: false, takes_trailers: false };
        let in_flight = InFlight::admitted(Arc::clone(&self.live));
        self.send(shared, self.refuse(refused), client, in_flight).await
    }

    async fn exchange(&self, shared: &Shared, received: Box<Received>) -> Done {
        let in_flight = InFlight::admitted(Arc::clone(&self.live));
        let Received { head, is_head, is_http_10, keeps, takes_trailers, wants_upgrade, .. } = *received;
        let body = RequestBody::of(shared).map_or_else(Body::empty, Body::inbound);
        let mut request: Request = Box::new(http::Request::from_parts(head, body));
        if wants_upgrade {
            request.extensions_mut().insert(Wanted::Upgrade);
        }
        let mut response = match self.ask_while_watching(shared, request).await {
            Ok(response) => response,
            Err(cut) => return Done::Cut(cut),
        };
        if self.live.is_body_broken() {
            response = broken_body(response);
        }
        if wants_upgrade && let Some(tunnel) = response.body_mut().take_tunnel() {
            return self.switch(shared, response, Agreed { tunnel, in_flight }).await;
        }
        let client = Client { is_head, is_http_10, keeps, takes_trailers };
        self.send(shared, response, client, in_flight).await
    }

    /// The service's answer, unless the client is gone before.
    async fn ask_while_watching(&self, shared: &Shared, request: Request) -> Result<Response, Cut> {
        let mut answering = pin!(self.ask(request));
        self.until_now(|cx| match answering.as_mut().poll(cx) {
            Poll::Ready(response) => Poll::Ready(Ok(response)),
            Poll::Pending => match lock(shared).poll_watch(cx) {
                Ok(()) => Poll::Pending,
                Err(_) => Poll::Ready(Err(Cut::Now)),
            },
        })
        .await?
    }

    async fn send(&self, shared: &Shared, mut response: Response, mut client: Client, in_flight: InFlight) -> Done {
        mark_unsent(&mut response, client.is_head);
        let first = {
            let mut inbound = lock(shared);
            let first = inbound.begin_answer();
            // Whoever reads the body still may come to its end.
            client.keeps &= is_read(shared) || inbound.is_fit(false);
            first
        };
        client.keeps &= !self.live.is_closing() && self.live.cut() != Cut::Idle;
        let mut outbound = Outbound::new(response, client, first);
        let sent = self.until_now(|cx| outbound.poll(shared, cx)).await;
        let keeps = outbound.keeps();
        drop((outbound, in_flight));
        match sent {
            Ok(Ok(())) if keeps && lock(shared).is_fit(is_read(shared)) => Done::Kept,
            Ok(Ok(())) => Done::Closing,
            Ok(Err(lost)) => {
                tracing::debug!(?lost, remote = %self.connection.remote, "an answer was broken off");
                Done::Cut(Cut::Now)
            }
            Err(cut) => Done::Cut(cut),
        }
    }

    /// The head that opens a tunnel, all of it, before the tunnel's first byte.
    async fn switch(&self, shared: &Shared, response: Response, agreed: Agreed) -> Done {
        let head = outbound::head_of_switch(&switching(response));
        let mut rest = head.as_slice();
        let written = self.until_now(|cx| {
            let mut inbound = lock(shared);
            while !rest.is_empty() {
                let count = ready!(inbound.socket().poll_write(cx, rest))?;
                rest = rest.get(count.max(1)..).unwrap_or_default();
            }
            inbound.socket().poll_flush(cx)
        });
        match written.await {
            Ok(Ok(())) => Done::Tunnel(agreed),
            Ok(Err(_)) => Done::Cut(Cut::Now),
            Err(cut) => Done::Cut(cut),
        }
    }

    async fn close(&self, shared: &Shared, cut: Cut) -> Cut {
        lock(shared).give_up();
        // A client that is gone needs no good order.
        let _ = self.until_now(|cx| lock(shared).poll_close(cx)).await;
        cut
    }

    /// Polls until done, or until the worker's clock ends the connection at once.
    async fn until_now<T>(&self, mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>) -> Result<T, Cut> {
        poll_fn(|cx| match self.live.cut() {
            Cut::Now => Poll::Ready(Err(Cut::Now)),
            _ => poll(cx).map(Ok),
        })
        .await
    }
}
