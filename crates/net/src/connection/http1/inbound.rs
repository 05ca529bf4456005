//! What a client sends over HTTP/1: heads for the connection, and each body for whoever reads it. Every byte passes the guard
//! first. It holds one head, and of what comes later only a bounded part.
use super::received::Received;
use crate::body::BodyError;
use crate::chunked::Decoder;
use crate::guard::{Fault, GuardLimits, Machine, Position};
use crate::head::{Framing, Violation};
use crate::live::{Cut, Refused, Waiting};
use crate::server::Refusal;
use crate::socket::Socket;
use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::Frame;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

/// Bytes of further requests that are taken from the socket while one is answered; more waits in the kernel.
const HELD_BYTES_MAX: usize = 64 * 1024;
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// What comes next on a connection.
pub(super) enum Next {
    Request(Box<Received>),
    /// The head is refused, and everything after it swallowed. `true`: it was a HEAD.
    Refused(Refused, bool),
    /// Nothing of a head came in time.
    Overdue,
    /// The client is done, or gone.
    Ended,
}

/// What a read answers once the input has ended for us.
#[derive(Clone, Copy)]
enum Input {
    Open,
    /// After a refused head, or a body that nobody wants any more.
    Swallowed,
    Broken(BodyError),
    Ended,
}

/// The body of the request that is being answered.
enum Incoming {
    None,
    /// So many bytes are still to be handed on.
    Length(u64),
    Chunked(Box<Decoder>),
}

pub(crate) struct Inbound {
    socket: Socket,
    machine: Machine,
    input: Input,
    incoming: Incoming,
    /// Counts requests, so that the body of one is never read as that of another.
    exchange: u64,
    /// The client shut down its side while an answer was due.
    saw_end: bool,
    trailers: Option<HeaderMap>,
    /// What is left to say before the client sends its body (RFC 9110 §10.1.1).
    invitation: &'static [u8],
    /// It was said, and may not have left yet.
    must_flush: bool,
    /// Whoever waits for the body.
    reader: Option<Waker>,
}

impl Inbound {
    pub(super) fn new(socket: Socket, limits: GuardLimits) -> Inbound {
        Inbound {
            socket,
            machine: Machine::new(limits),
            input: Input::Open,
            incoming: Incoming::None,
            exchange: 0,
            saw_end: false,
            trailers: None,
            invitation: &[],
            must_flush: false,
            reader: None,
        }
    }

    pub(super) fn socket(&mut self) -> &mut Socket {
        &mut self.socket
    }

    /// Notes what the client owes now that no byte is there.
    fn note_waiting(&self) {
        self.socket.live().wait(match self.machine.position() {
            Position::InHead => Waiting::Head,
            Position::Between if self.machine.messages() == 0 => Waiting::Head,
            Position::Between => Waiting::Request,
            Position::InBody => Waiting::Body,
        });
    }

    /// The next head. Ask only once the last request is answered and its body gone.
    pub(super) fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Next> {
        loop {
            if !matches!(self.input, Input::Open) {
                return Poll::Ready(Next::Ended);
            }
            if self.socket.live().cut() == Cut::HeaderTimeout {
                return Poll::Ready(self.header_timeout());
            }
            let machine = &mut self.machine;
            let polled = self.socket.poll_input(cx, usize::MAX, |bytes| judge_head(machine, bytes));
            let judged = match polled {
                Poll::Pending => {
                    self.note_waiting();
                    return Poll::Pending;
                }
                Poll::Ready(Ok(Some(judged))) => judged,
                Poll::Ready(Ok(None) | Err(_)) => {
                    self.input = Input::Ended;
                    continue;
                }
            };
            return Poll::Ready(match judged {
                Ok(None) => continue,
                Ok(Some(Ok(received))) => self.begin(received),
                Ok(Some(Err(violation))) => self.refuse(Refused::from_violation(violation), false),
                Err(fault @ Fault::Head { head_method, .. }) => self.refuse(Refused::from_fault(fault), head_method),
                Err(fault @ Fault::Body(_)) => self.refuse(Refused::from_fault(fault), false),
            });
        }
    }

    fn begin(&mut self, received: Received) -> Next {
        let live = self.socket.live();
        live.begin();
        live.wait_from_now(Waiting::Nothing);
        self.exchange += 1;
        self.incoming = match self.machine.announced() {
            Framing::None => Incoming::None,
            Framing::Length(length) => Incoming::Length(length),
            Framing::Chunked => Incoming::Chunked(Box::default()),
        };
        let is_invited = received.expects_continue && self.has_body() && self.socket.unread_bytes() == 0;
        self.invitation = if is_invited { CONTINUE } else { &[] };
        self.trailers = None;
        self.reader = None;
        Next::Request(Box::new(received))
    }

    fn refuse(&mut self, refused: Refused, is_head: bool) -> Next {
        self.input = Input::Swallowed;
        self.socket.live().begin();
        Next::Refused(refused, is_head)
    }

    fn header_timeout(&mut self) -> Next {
        if self.machine.position() != Position::InHead {
            self.input = Input::Ended;
            return Next::Overdue;
        }
        let refused =
            Refused { refusal: Refusal::HeaderTimeout, status: 408, reason: "the request head did not arrive in time" };
        self.refuse(refused, false)
    }

    /// Is a part of the request's body still to be handed on?
    pub(super) fn has_body(&self) -> bool {
        !matches!(self.incoming, Incoming::None)
    }
    pub(super) fn announced_length(&self) -> Option<u64> {
        match self.incoming {
            Incoming::None => Some(0),
            Incoming::Length(left) => Some(left),
            Incoming::Chunked(_) => None,
        }
    }

    /// The next part of the body; `None` after the last.
    pub(super) fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        loop {
            if let Some(trailers) = self.trailers.take() {
                return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
            }
            if !self.has_body() {
                return Poll::Ready(None);
            }
            match self.input {
                Input::Open => {}
                Input::Broken(error) => return Poll::Ready(Some(Err(error))),
                Input::Swallowed | Input::Ended => return Poll::Ready(Some(Err(BodyError::Gone))),
            }
            if ready!(self.poll_invite(cx)).is_err() {
                self.input = Input::Broken(BodyError::Gone);
                continue;
            }
            match self.poll_part(cx) {
                Poll::Ready(Ok(data)) if data.is_empty() => {}
                Poll::Ready(Ok(data)) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Poll::Ready(Err(error)) => {
                    self.input = Input::Broken(error);
                    self.socket.live().wake();
                }
                Poll::Pending if self.socket.live().cut() == Cut::BodyStall => {
                    self.socket.live().close_after_answer();
                    self.input = Input::Broken(BodyError::Stalled);
                }
                Poll::Pending => {
                    if self.reader.as_ref().is_none_or(|reader| !reader.will_wake(cx.waker())) {
                        self.reader = Some(cx.waker().clone());
                    }
                    return Poll::Pending;
                }
            }
        }
    }

    /// Asks the client to send its body, where it waits for that.
    fn poll_invite(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.invitation.is_empty() {
            let count = ready!(self.socket.poll_write(cx, self.invitation))?;
            self.invitation = self.invitation.get(count.max(1)..).unwrap_or_default();
            self.must_flush = true;
        }
        if self.must_flush {
            ready!(self.socket.poll_flush(cx))?;
            self.must_flush = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Reads and judges once, and takes off the framing.
    fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes, BodyError>> {
        let machine = &mut self.machine;
        let polled = self.socket.poll_input(cx, usize::MAX, |bytes| judge_body(machine, bytes));
        let judged = match polled {
            Poll::Pending => {
                self.note_waiting();
                return Poll::Pending;
            }
            Poll::Ready(Ok(Some(judged))) => judged,
            Poll::Ready(Ok(None) | Err(_)) => return Poll::Ready(Err(BodyError::Gone)),
        };
        self.socket.live().clear_stall();
        self.socket.live().wait_from_now(Waiting::Nothing);
        Poll::Ready(match judged {
            Ok(bytes) => {
                let data = self.unframe(bytes);
                if !self.has_body() {
                    // Whoever read it may be another task: from here on the connection looks after its client.
                    self.socket.live().wake();
                }
                data
            }
            Err(fault) => {
                self.socket.live().refuse(Refused::from_fault(fault));
                self.socket.live().body_broke();
                Err(BodyError::Malformed)
            }
        })
    }

    fn unframe(&mut self, bytes: Bytes) -> Result<Bytes, BodyError> {
        match &mut self.incoming {
            Incoming::None => Ok(Bytes::new()),
            Incoming::Length(left) => {
                *left = left.saturating_sub(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
                if *left == 0 {
                    self.incoming = Incoming::None;
                }
                Ok(bytes)
            }
            Incoming::Chunked(decoder) => {
                // The guard has judged them: what differs here is a mistake of ours, and no body.
                let (data, _) = decoder.take(&bytes).map_err(|_| {
                    self.socket.live().body_broke();
                    BodyError::Malformed
                })?;
                if decoder.has_ended() {
                    self.trailers = decoder.take_trailers();
                    self.incoming = Incoming::None;
                }
                Ok(data)
            }
        }
    }

    /// While a request is answered nothing of the next one is judged; what comes is kept, up to a bound, to notice a client
    /// that leaves. `Err`: it is gone.
    pub(super) fn poll_watch(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.has_body() {
            if self.socket.live().cut() == Cut::BodyStall
                && let Some(reader) = &self.reader
            {
                reader.wake_by_ref();
            }
            return Ok(());
        }
        while matches!(self.input, Input::Open) && !self.saw_end && self.socket.unread_bytes() < HELD_BYTES_MAX {
            match self.socket.poll_unread(cx) {
                // A client may shut down its side and wait for the answer (RFC 9112 §9.6 knows half-closed connections).
                // What it sent before that is answered, too.
                Poll::Ready(Ok(0)) => {
                    self.socket.live().half_closed();
                    self.saw_end = true;
                }
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => break,
            }
        }
        self.note_waiting();
        Ok(())
    }

    /// The answer begins: whoever was to be invited is so no more. What is left of an invitation goes out first.
    pub(super) fn begin_answer(&mut self) -> &'static [u8] {
        let said = self.invitation;
        self.invitation = &[];
        if said.len() < CONTINUE.len() {
            return said;
        }
        // Never invited: nobody can tell whether the body comes.
        self.input = Input::Swallowed;
        &[]
    }

    /// Is the connection fit for another request? Of a body that nobody reads any more, what came already is thrown away;
    /// what somebody reads is his.
    pub(super) fn is_fit(&mut self, is_read: bool) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        let mut left = HELD_BYTES_MAX;
        while !is_read && self.has_body() && left > 0 {
            match self.poll_body(&mut cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len).max(1));
                }
                _ => break,
            }
        }
        !self.has_body() && matches!(self.input, Input::Open)
    }

    /// Whoever still reads the body hears that it is over.
    pub(super) fn give_up(&mut self) {
        if self.has_body() && matches!(self.input, Input::Open) {
            self.input = Input::Swallowed;
        }
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }

    /// Closes, in good order: see [`Socket::poll_close`].
    pub(super) fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let is_reading = !matches!(self.input, Input::Open | Input::Ended);
        let may_still_send = is_reading || self.machine.position() != Position::Between;
        self.socket.poll_close(cx, may_still_send)
    }

    /// Between two heads: may a part of the next one be there?
    pub(super) fn is_between(&self) -> bool {
        self.machine.position() == Position::Between
    }
}

type JudgedHead = Result<Option<Result<Received, Violation>>, Fault>;

/// Up to the end of a head; what comes after it is left.
fn judge_head(machine: &mut Machine, bytes: &[u8]) -> (usize, JudgedHead) {
    let mut received = None;
    let judged = machine.feed_to_body(bytes, &mut |head| received = Some(Received::read(head)));
    match judged {
        Ok(rest) => (bytes.len() - rest.len(), Ok(received)),
        Err(fault) => (bytes.len(), Err(fault)),
    }
}

/// Up to the end of a body, with its framing; what comes after it is left.
fn judge_body(machine: &mut Machine, bytes: &[u8]) -> (usize, Result<Bytes, Fault>) {
    let mut passed = BytesMut::new();
    let judged = machine.feed_message(bytes, &mut |part| passed.extend_from_slice(part));
    match judged {
        Ok(rest) => (bytes.len() - rest.len(), Ok(passed.freeze())),
        Err(fault) => (bytes.len(), Err(fault)),
    }
}

/// One connection's input, shared with the body that is read from it.
pub(super) type Shared = Arc<Mutex<Inbound>>;

pub(super) fn lock(shared: &Shared) -> MutexGuard<'_, Inbound> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The connection's own hold of its input. When it ends the socket is closed, whoever may still hold the body.
pub(super) struct Owner(Option<Shared>);

impl Owner {
    pub(super) fn new(inbound: Inbound) -> Owner {
        Owner(Some(Arc::new(Mutex::new(inbound))))
    }
    pub(super) fn shared(&self) -> Option<&Shared> {
        self.0.as_ref()
    }
    /// `None` while somebody holds a body.
    pub(super) fn into_socket(mut self) -> Option<Socket> {
        let inbound = Arc::try_unwrap(self.0.take()?).map_err(|shared| self.0 = Some(shared)).ok()?;
        Some(inbound.into_inner().unwrap_or_else(PoisonError::into_inner).socket)
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        if let Some(shared) = &self.0
            && Arc::strong_count(shared) > 1
        {
            let mut inbound = lock(shared);
            inbound.give_up();
            inbound.socket.let_go();
        }
    }
}

/// Does somebody hold the body of the request?
pub(super) fn is_read(shared: &Shared) -> bool {
    Arc::strong_count(shared) > 1
}

/// A request's body.
pub(crate) struct RequestBody {
    inbound: Shared,
    exchange: u64,
    length: Option<u64>,
    has_ended: bool,
}

impl RequestBody {
    pub(super) fn of(shared: &Shared) -> Option<RequestBody> {
        let inbound = lock(shared);
        let (length, exchange) = (inbound.announced_length(), inbound.exchange);
        inbound.has_body().then(|| RequestBody { inbound: Arc::clone(shared), exchange, length, has_ended: false })
    }
    /// Bytes that are still to come, if that is known.
    pub(crate) fn len_hint(&self) -> Option<u64> {
        self.length
    }
    pub(crate) fn is_at_end(&self) -> bool {
        self.has_ended
    }
    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.has_ended {
            return Poll::Ready(None);
        }
        let mut inbound = lock(&self.inbound);
        // What comes now belongs to another request.
        if inbound.exchange != self.exchange {
            return Poll::Ready(Some(Err(BodyError::Gone)));
        }
        let polled = ready!(inbound.poll_body(cx));
        self.has_ended = !inbound.has_body() && inbound.trailers.is_none();
        self.length = self.length.and(inbound.announced_length());
        Poll::Ready(polled)
    }
}
