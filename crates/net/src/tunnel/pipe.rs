//! One direction of a tunnel: a part is read, asked for, and written before the next one is read. It holds what the sink did
//! not take of one part, and nothing while nothing waits.
use super::Ended;
use super::ends::End;
use super::frames::Frames;
use super::slot::{Slot, Way};
use hyper::rt::ReadBuf;
use std::cell::RefCell;
use std::task::{Context, Poll};

/// The largest part read at once, and so the most that waits for a slow sink.
const PART_BYTES_MAX: usize = 16 * 1024;
/// Parts moved before other tasks get their turn.
const PARTS_PER_TURN: usize = 16;

thread_local! {
    /// One read buffer per worker: an idle tunnel holds none.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; PART_BYTES_MAX].into_boxed_slice());
}

/// Which side failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Broken {
    Source,
    Sink,
    /// Nothing may pass any more.
    Cut(Ended),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// The source has ended; the sink is being told.
    Ending,
    Done,
}

pub(super) struct Pipe {
    way: Way,
    /// What the sink did not take of the last part.
    held: Vec<u8>,
    held_at: usize,
    unflushed: bool,
    state: State,
}

impl Pipe {
    pub(super) fn new(way: Way) -> Pipe {
        Pipe { way, held: Vec::new(), held_at: 0, unflushed: false, state: State::Open }
    }

    pub(super) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// `Ready(Ok)` once the source has ended and the sink knows.
    pub(super) fn poll(
        &mut self,
        from: &mut End,
        to: &mut End,
        slot: &Slot,
        mut frames: Option<&mut Frames>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Broken>> {
        for _ in 0..PARTS_PER_TURN {
            match self.poll_step(from, to, slot, frames.as_deref_mut(), cx) {
                Poll::Ready(Ok(())) if self.state != State::Done => {}
                Poll::Pending => return Poll::Pending,
                done => return done,
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn poll_step(
        &mut self,
        from: &mut End,
        to: &mut End,
        slot: &Slot,
        frames: Option<&mut Frames>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Broken>> {
        if !self.held.is_empty() {
            let held = std::mem::take(&mut self.held);
            let at = std::mem::take(&mut self.held_at);
            let rest = held.get(at..).unwrap_or_default();
            let taken = self.pass(rest, to, slot, frames, cx);
            return self.keep_rest(taken, at, held);
        }
        if self.unflushed {
            match to.poll_flush(cx) {
                Poll::Ready(Ok(())) => self.unflushed = false,
                Poll::Ready(Err(_)) => return Poll::Ready(Err(Broken::Sink)),
                Poll::Pending => {
                    slot.blocked(self.way);
                    return Poll::Pending;
                }
            }
        }
        if self.state == State::Ending {
            return match to.poll_shut(cx) {
                Poll::Ready(Ok(())) => {
                    self.state = State::Done;
                    Poll::Ready(Ok(()))
                }
                Poll::Ready(Err(_)) => Poll::Ready(Err(Broken::Sink)),
                Poll::Pending => Poll::Pending,
            };
        }
        SCRATCH.with_borrow_mut(|scratch| {
            let mut buffer = ReadBuf::new(scratch);
            match from.poll_read(cx, &mut buffer) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(_)) => return Poll::Ready(Err(Broken::Source)),
                Poll::Ready(Ok(())) => {}
            }
            let part = buffer.filled();
            if part.is_empty() {
                self.state = State::Ending;
                return Poll::Ready(Ok(()));
            }
            let taken = self.pass(part, to, slot, frames, cx);
            match taken {
                Poll::Ready(Ok(count)) if count == part.len() => Poll::Ready(Ok(())),
                taken => self.keep_rest(taken, 0, part.to_vec()),
            }
        })
    }

    /// Asks, then writes; says how many bytes the sink took.
    fn pass(
        &mut self,
        part: &[u8],
        to: &mut End,
        slot: &Slot,
        frames: Option<&mut Frames>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<usize, Broken>> {
        if let Err(ended) = slot.may_pass() {
            return Poll::Ready(Err(Broken::Cut(ended)));
        }
        match to.poll_write(cx, part) {
            Poll::Pending => {
                slot.blocked(self.way);
                Poll::Pending
            }
            Poll::Ready(Ok(count)) if count > 0 => {
                slot.moved(self.way, count);
                if let Some(frames) = frames {
                    frames.pass(part.get(..count).unwrap_or_default());
                }
                self.unflushed = true;
                Poll::Ready(Ok(count))
            }
            Poll::Ready(_) => Poll::Ready(Err(Broken::Sink)),
        }
    }

    /// `held` from `at` on was offered.
    fn keep_rest(&mut self, taken: Poll<Result<usize, Broken>>, at: usize, held: Vec<u8>) -> Poll<Result<(), Broken>> {
        let at = match taken {
            Poll::Ready(Err(broken)) => return Poll::Ready(Err(broken)),
            Poll::Ready(Ok(count)) => at + count,
            Poll::Pending => at,
        };
        if at < held.len() {
            self.held = held;
            self.held_at = at;
        }
        if taken.is_pending() { Poll::Pending } else { Poll::Ready(Ok(())) }
    }
}
