//! Two byte streams joined after an upgrade was agreed upon on both sides (RFC 9110 §7.8, RFC 8441): opaque bytes both ways,
//! for as long as the permission they were opened with stands. It never opens a stream, and never decides who may have one.
//!
//! A tunnel is made by [`crate::upstream::Pool::open`], travels to the client's connection as the body of an answer, and
//! begins only there, after the head of that answer.
mod ends;
mod frames;
mod pipe;
mod slot;
#[cfg(test)]
mod tests;
mod watched;

use crate::Body;
use crate::live::Clock;
use crate::worker::Phase;
pub(crate) use ends::End;
use frames::Frames;
use pipe::{Broken, Pipe};
pub(crate) use slot::Slot;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::watch;
pub(crate) use watched::Watched;

/// How a request asks for a tunnel; stands in the request's extensions, and only there: a request without it is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// HTTP/1.1 with an `Upgrade` field, whatever it says: the service judges it.
    Upgrade,
    /// HTTP/2 extended CONNECT with `:protocol` `websocket` (RFC 8441). Its method reads `GET`.
    ExtendedConnect,
}

/// May bytes still pass? Asked before every part that does, and several times a second while none does.
pub trait Permission: Send + Sync + 'static {
    /// `None`: they may. What is withdrawn once stays so.
    fn withdrawn(&self) -> Option<Withdrawn>;
}

/// Why a tunnel may not go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Withdrawn {
    /// The token it was opened with has ended.
    TokenExpired,
    /// What is in force now would not permit it.
    RulesChanged,
}

/// Why a tunnel ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Ended {
    /// The client closed it, or went away.
    Client = 1,
    /// The upstream closed it, or went away.
    Upstream = 2,
    /// No byte went either way for `idle_timeout`.
    Idle = 3,
    /// One side took no byte for as long as a body may stall.
    Stalled = 4,
    TokenExpired = 5,
    RulesChanged = 6,
    /// The process stopped, and the time to drain was over.
    Drain = 7,
    /// A panic was caught.
    Panic = 8,
}

impl Ended {
    pub const ALL: [Ended; 8] = [
        Ended::Client,
        Ended::Upstream,
        Ended::Idle,
        Ended::Stalled,
        Ended::TokenExpired,
        Ended::RulesChanged,
        Ended::Drain,
        Ended::Panic,
    ];

    /// The stable code, `snake_case`.
    pub const fn code(self) -> &'static str {
        match self {
            Ended::Client => "client",
            Ended::Upstream => "upstream",
            Ended::Idle => "idle",
            Ended::Stalled => "stalled",
            Ended::TokenExpired => "token_expired",
            Ended::RulesChanged => "rules_changed",
            Ended::Drain => "drain",
            Ended::Panic => "panic",
        }
    }

    /// The WebSocket Close frame that tells a client why we end (RFC 6455 §5.5.1, §7.4.1), where there is something to tell.
    const fn close_frame(self) -> Option<&'static [u8]> {
        match self {
            // 1008: policy violation.
            Ended::TokenExpired | Ended::RulesChanged => Some(b"\x88\x02\x03\xf0"),
            // 1001: going away.
            Ended::Idle => Some(b"\x88\x02\x03\xe9"),
            _ => None,
        }
    }
}

/// What passed, and why it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TunnelEnd {
    /// From the client.
    pub bytes_in: u64,
    /// To the client.
    pub bytes_out: u64,
    pub ended: Ended,
}

/// How long a tunnel may live, and who hears of its end.
pub struct Terms {
    /// It ends when no byte went either way for so long.
    pub idle_timeout: Duration,
    pub permission: Arc<dyn Permission>,
    /// Runs exactly once, also when the tunnel never began.
    pub on_end: Box<dyn FnOnce(TunnelEnd) + Send>,
}

/// The upstream's side of a tunnel that it agreed to.
pub struct UpstreamEnd {
    pub(crate) stream: End,
    /// What has to live as long as the tunnel.
    pub(crate) keep: Option<Box<dyn Send>>,
}

impl UpstreamEnd {
    /// The body of the answer that opens the tunnel. Dropping it gives the tunnel up.
    pub fn into_body(self, terms: Terms) -> Body {
        Body::tunnel(Box::new(Tunnel { upstream: self, terms: Told(Some(terms)) }))
    }
}

/// A tunnel that waits for its client.
pub(crate) struct Tunnel {
    upstream: UpstreamEnd,
    terms: Told,
}

/// Tells the end of a tunnel that never began.
struct Told(Option<Terms>);

impl Drop for Told {
    fn drop(&mut self) {
        if let Some(terms) = self.0.take() {
            (terms.on_end)(TunnelEnd { bytes_in: 0, bytes_out: 0, ended: Ended::Client });
        }
    }
}

/// Tells the end of a tunnel exactly once: when its task is done, or was dropped.
struct Ending {
    slot: Arc<Slot>,
    on_end: Option<Box<dyn FnOnce(TunnelEnd) + Send>>,
    phase: watch::Receiver<Phase>,
}

impl Drop for Ending {
    fn drop(&mut self) {
        let cut = if std::thread::panicking() {
            Ended::Panic
        } else if *self.phase.borrow() == Phase::Running {
            Ended::Client
        } else {
            Ended::Drain
        };
        let ended = self.slot.end(cut);
        let (bytes_in, bytes_out) = self.slot.bytes();
        if let Some(tell) = self.on_end.take() {
            tell(TunnelEnd { bytes_in, bytes_out, ended });
        }
    }
}

/// How long our last words may take to leave.
const FAREWELL: Duration = Duration::from_secs(1);

/// A tunnel with both its ends. The task that runs it owns them.
pub(crate) struct Running {
    client: End,
    upstream: End,
    _keep: Option<Box<dyn Send>>,
    frames: Frames,
    ending: Ending,
}

impl Tunnel {
    /// `watch` is told of the slot before a byte passes.
    pub(crate) fn join(
        self,
        client: End,
        clock: &Arc<Clock>,
        phase: watch::Receiver<Phase>,
        watch: impl FnOnce(&Arc<Slot>),
    ) -> Option<Running> {
        let Tunnel { upstream, mut terms } = self;
        let terms = terms.0.take()?;
        let slot = Arc::new(Slot::new(Arc::clone(clock), terms.permission, terms.idle_timeout));
        watch(&slot);
        Some(Running {
            client,
            upstream: upstream.stream,
            _keep: upstream.keep,
            frames: Frames::default(),
            ending: Ending { slot, on_end: Some(terms.on_end), phase },
        })
    }
}

impl Running {
    /// Returns why it ended: `Ended::Panic` when the worker's clock caught one, which nobody has counted yet.
    pub(crate) async fn run(mut self) -> Ended {
        let (mut up, mut down) = (Pipe::new(slot::Way::Up), Pipe::new(slot::Way::Down));
        let mut known = false;
        let ended = poll_fn(|cx| {
            if !known {
                self.ending.slot.keep_waker(cx);
                known = true;
            }
            self.poll_both(cx, &mut up, &mut down)
        })
        .await;
        // Marked first: from here on no pipe is polled, and what they hold goes nowhere.
        let ended = self.ending.slot.end(ended);
        drop((up, down));
        self.farewell(ended).await;
        ended
    }

    fn poll_both(&mut self, cx: &mut Context<'_>, up: &mut Pipe, down: &mut Pipe) -> Poll<Ended> {
        let slot = &self.ending.slot;
        if let Some(ended) = slot.ended() {
            return Poll::Ready(ended);
        }
        let sides = (Ended::Client, Ended::Upstream);
        if let Poll::Ready(ended) = poll_one(up, &mut self.client, &mut self.upstream, slot, None, sides, cx) {
            return Poll::Ready(ended);
        }
        let frames = Some(&mut self.frames);
        let sides = (Ended::Upstream, Ended::Client);
        if let Poll::Ready(ended) = poll_one(down, &mut self.upstream, &mut self.client, slot, frames, sides, cx) {
            return Poll::Ready(ended);
        }
        match slot.half_closed_by() {
            Some(first) if up.is_done() && down.is_done() => Poll::Ready(first),
            _ => Poll::Pending,
        }
    }

    /// Both sides are closed; a client that waits at the end of a frame is told why.
    async fn farewell(&mut self, ended: Ended) {
        if let Some(frame) = ended.close_frame().filter(|_| self.frames.is_close_due()) {
            let client = &mut self.client;
            // A client that takes nothing is closed without a word.
            let _ = tokio::time::timeout(FAREWELL, client.write_all(frame)).await;
        }
        let upstream = &mut self.upstream;
        let _ = tokio::time::timeout(FAREWELL, poll_fn(|cx| upstream.poll_shut(cx))).await;
        self.client.close(FAREWELL).await;
    }
}

/// `Ready` when the tunnel is over; a direction that ended in good order is noted.
fn poll_one(
    pipe: &mut Pipe,
    from: &mut End,
    to: &mut End,
    slot: &Slot,
    frames: Option<&mut Frames>,
    (source, sink): (Ended, Ended),
    cx: &mut Context<'_>,
) -> Poll<Ended> {
    if pipe.is_done() {
        return Poll::Pending;
    }
    match pipe.poll(from, to, slot, frames, cx) {
        Poll::Pending => Poll::Pending,
        Poll::Ready(Ok(())) => {
            slot.half_close(source);
            Poll::Pending
        }
        Poll::Ready(Err(Broken::Source)) => Poll::Ready(source),
        Poll::Ready(Err(Broken::Sink)) => Poll::Ready(sink),
        Poll::Ready(Err(Broken::Cut(ended))) => Poll::Ready(ended),
    }
}
