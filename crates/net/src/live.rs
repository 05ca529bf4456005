//! What a live connection is doing and since when, on a coarse clock: plain atomics written by the connection's task and read
//! once per tick by its worker, so that no request arms a timer. It holds no socket and makes no decision on content.
use crate::guard::Fault;
use crate::head::Violation;
use crate::server::Refusal;
use crate::settings::Timeouts;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Waker};
use std::time::Duration;

/// After a client shut down its sending side, its answer, or the next part of it, is worth waiting for this long: longer, and
/// it is taken for a client that closed, so that the abort reaches the upstream.
pub(crate) const HALF_CLOSE_MS: u64 = 2_000;
/// How long a closed connection may keep sending before it is cut, so that our last answer is not lost to a reset.
pub(crate) const LINGER_MS: u64 = 2_000;

/// Milliseconds since the worker started, as of the last tick. Never 0, so that 0 can mean "not".
#[derive(Debug)]
pub(crate) struct Clock(AtomicU64);

impl Clock {
    pub(crate) fn new() -> Clock {
        Clock(AtomicU64::new(1))
    }
    pub(crate) fn set(&self, since_start: Duration) {
        self.0.store(u64::try_from(since_start.as_millis()).unwrap_or(u64::MAX).saturating_add(1), Relaxed);
    }
    pub(crate) fn now(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// What the connection waits for from its client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Waiting {
    Nothing = 0,
    Handshake = 1,
    /// The head of a request, which began, or should have after the accept.
    Head = 2,
    /// The next request on a kept-alive connection.
    Request = 3,
    Body = 4,
    /// The client's close, after ours.
    Close = 5,
}

/// Why a connection has to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Cut {
    None = 0,
    /// End at once.
    Now = 1,
    HandshakeTimeout = 2,
    HeaderTimeout = 3,
    /// Close in good order: nothing is in flight.
    Idle = 4,
    /// Break the request's body off; the service may still answer.
    BodyStall = 5,
}

/// A refusal on its way to the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) refusal: Refusal,
    pub(crate) status: u16,
    pub(crate) reason: &'static str,
}

impl Refused {
    pub(crate) fn from_violation(violation: Violation) -> Refused {
        let refusal = match violation.status {
            414 | 431 => Refusal::HeaderTooLarge,
            _ => Refusal::Malformed(violation.reason),
        };
        Refused { refusal, status: violation.status, reason: violation.reason }
    }
    pub(crate) fn from_fault(fault: Fault) -> Refused {
        match fault {
            Fault::Head { violation, .. } => Refused::from_violation(violation),
            Fault::Body(reason) => Refused { refusal: Refusal::Malformed(reason), status: 400, reason },
        }
    }
}

#[derive(Debug)]
pub(crate) struct Live {
    clock: Arc<Clock>,
    waiting: AtomicU8,
    waiting_since: AtomicU64,
    in_flight: AtomicU32,
    idle_since: AtomicU64,
    write_blocked_since: AtomicU64,
    /// When the client's end of stream was seen while an answer was due, or our last write after it; 0 = not.
    half_closed_since: AtomicU64,
    /// A next request, or the end of the stream, was held back for the answer that is due.
    wake_after_answer: AtomicBool,
    /// When we began to close in good order; 0 = not.
    farewell_since: AtomicU64,
    cut: AtomicU8,
    /// The request's body broke its framing: whatever the service answers, the client is told 4xx.
    body_broken: AtomicBool,
    /// The next answer says `Connection: close`.
    closing: AtomicBool,
    refused: Mutex<Option<Refused>>,
    waker: Mutex<Option<Waker>>,
}

impl Live {
    pub(crate) fn new(clock: Arc<Clock>, waiting: Waiting) -> Live {
        let now = clock.now();
        Live {
            clock,
            waiting: AtomicU8::new(waiting as u8),
            waiting_since: AtomicU64::new(now),
            in_flight: AtomicU32::new(0),
            idle_since: AtomicU64::new(now),
            write_blocked_since: AtomicU64::new(0),
            half_closed_since: AtomicU64::new(0),
            wake_after_answer: AtomicBool::new(false),
            farewell_since: AtomicU64::new(0),
            cut: AtomicU8::new(0),
            body_broken: AtomicBool::new(false),
            closing: AtomicBool::new(false),
            refused: Mutex::new(None),
            waker: Mutex::new(None),
        }
    }

    /// The wait begins anew, even if it is for the same thing.
    pub(crate) fn wait_from_now(&self, waiting: Waiting) {
        self.waiting_since.store(self.clock.now(), Relaxed);
        self.waiting.store(waiting as u8, Relaxed);
    }
    /// The wait goes on if it is for the same thing.
    pub(crate) fn wait(&self, waiting: Waiting) {
        if self.waiting.load(Relaxed) != waiting as u8 {
            self.wait_from_now(waiting);
        }
    }

    pub(crate) fn now(&self) -> u64 {
        self.clock.now()
    }
    pub(crate) fn in_flight(&self) -> u32 {
        self.in_flight.load(Relaxed)
    }
    pub(crate) fn begin(&self) {
        self.in_flight.fetch_add(1, Relaxed);
    }
    fn end(&self) {
        self.idle_since.store(self.clock.now(), Relaxed);
        self.in_flight.fetch_sub(1, Relaxed);
        if self.wake_after_answer.load(Relaxed) {
            self.wake_after_answer.store(false, Relaxed);
            self.wake();
        }
    }

    pub(crate) fn write_blocked(&self) {
        if self.write_blocked_since.load(Relaxed) == 0 {
            self.write_blocked_since.store(self.clock.now(), Relaxed);
        }
    }
    pub(crate) fn wrote(&self) {
        // A load is cheaper than a store to a shared line, and nearly always enough.
        if self.write_blocked_since.load(Relaxed) != 0 {
            self.write_blocked_since.store(0, Relaxed);
        }
        if self.half_closed_since.load(Relaxed) != 0 {
            self.half_closed_since.store(self.clock.now(), Relaxed);
        }
    }
    /// What was blocked has left. It is no new byte of an answer.
    pub(crate) fn flushed(&self) {
        if self.write_blocked_since.load(Relaxed) != 0 {
            self.write_blocked_since.store(0, Relaxed);
        }
    }
    /// Something was held back for the answer that is due, and nothing else would make the connection look again.
    pub(crate) fn wake_after_answer(&self) {
        self.wake_after_answer.store(true, Relaxed);
    }
    pub(crate) fn half_closed(&self) {
        self.wake_after_answer();
        if self.half_closed_since.load(Relaxed) == 0 {
            self.half_closed_since.store(self.clock.now(), Relaxed);
        }
    }

    /// The connection is one end of a tunnel from here on: HTTP owes and waits for nothing.
    pub(crate) fn begin_tunnel(&self) {
        self.half_closed_since.store(0, Relaxed);
        self.write_blocked_since.store(0, Relaxed);
        self.wait_from_now(Waiting::Nothing);
    }

    /// An orderly close has begun: once nothing is in flight, the client has a moment to close too.
    pub(crate) fn said_farewell(&self) {
        self.farewell_since.store(self.clock.now(), Relaxed);
    }
    pub(crate) fn close_after_answer(&self) {
        self.closing.store(true, Relaxed);
    }
    /// Nothing is being answered and no byte of a next request has come.
    pub(crate) fn is_idle(&self) -> bool {
        let waiting = self.waiting.load(Relaxed);
        self.in_flight() == 0 && (waiting == Waiting::Request as u8 || waiting == Waiting::Head as u8)
    }
    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Relaxed)
    }
    pub(crate) fn body_broke(&self) {
        self.body_broken.store(true, Relaxed);
        self.close_after_answer();
    }
    pub(crate) fn is_body_broken(&self) -> bool {
        self.body_broken.load(Relaxed)
    }

    /// The first refusal stands.
    pub(crate) fn refuse(&self, refused: Refused) {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(refused);
    }
    pub(crate) fn take_refused(&self) -> Option<Refused> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    pub(crate) fn cut(&self) -> Cut {
        match self.cut.load(Relaxed) {
            1 => Cut::Now,
            2 => Cut::HandshakeTimeout,
            3 => Cut::HeaderTimeout,
            4 => Cut::Idle,
            5 => Cut::BodyStall,
            _ => Cut::None,
        }
    }
    pub(crate) fn set_cut(&self, cut: Cut) {
        self.cut.store(cut as u8, Relaxed);
        self.wake();
    }
    /// Data came after all: the stall is over.
    pub(crate) fn clear_stall(&self) {
        self.clear(Cut::BodyStall);
    }
    fn clear(&self, cut: Cut) {
        let _ = self.cut.compare_exchange(cut as u8, Cut::None as u8, Relaxed, Relaxed);
    }
    pub(crate) fn wake(&self) {
        if let Some(waker) = &*self.waker.lock().unwrap_or_else(PoisonError::into_inner) {
            waker.wake_by_ref();
        }
    }
    /// A task's waker does not change, so it is kept once.
    pub(crate) fn keep_waker(&self, cx: &Context<'_>) {
        *self.waker.lock().unwrap_or_else(PoisonError::into_inner) = Some(cx.waker().clone());
    }

    /// What is overdue on this connection, if anything.
    pub(crate) fn overdue(&self, timeouts: &Timeouts) -> Cut {
        let now = self.clock.now();
        let since = |since: u64| Duration::from_millis(now.saturating_sub(since));
        let blocked = self.write_blocked_since.load(Relaxed);
        if blocked != 0 && since(blocked) > timeouts.body_stall {
            return Cut::Now;
        }
        let half_closed = self.half_closed_since.load(Relaxed);
        // A client that is slow to take its answer is there.
        if half_closed != 0 && blocked == 0 && now.saturating_sub(half_closed) > HALF_CLOSE_MS {
            return Cut::Now;
        }
        let waiting_since = self.waiting_since.load(Relaxed);
        let waiting = self.waiting.load(Relaxed);
        let idle = self.in_flight() == 0;
        let passed = since(waiting_since);
        let idle_since = self.idle_since.load(Relaxed);
        let unanswered = since(idle_since.max(waiting_since));
        let farewell = self.farewell_since.load(Relaxed);
        if farewell != 0 && idle && since(farewell.max(idle_since)) > Duration::from_millis(LINGER_MS) {
            return Cut::Now;
        }
        match waiting {
            w if w == Waiting::Handshake as u8 && passed > timeouts.handshake => Cut::HandshakeTimeout,
            w if w == Waiting::Head as u8 && idle && unanswered > timeouts.header => Cut::HeaderTimeout,
            w if w == Waiting::Request as u8 && idle && unanswered > timeouts.idle => Cut::Idle,
            w if w == Waiting::Body as u8 && passed > timeouts.body_stall => Cut::BodyStall,
            w if w == Waiting::Close as u8 && passed > Duration::from_millis(LINGER_MS) => Cut::Now,
            _ => Cut::None,
        }
    }
}

/// One request being answered; dropped with the last byte of its answer, or when it is given up.
#[derive(Debug)]
pub(crate) struct InFlight(Arc<Live>);

impl InFlight {
    /// The guard counted the request when it let its head through.
    pub(crate) fn admitted(live: Arc<Live>) -> InFlight {
        InFlight(live)
    }
    pub(crate) fn begin(live: Arc<Live>) -> InFlight {
        live.begin();
        InFlight(live)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.end();
    }
}
