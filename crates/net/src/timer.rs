//! hyper's view of time (HTTP/2 keep-alive pings) and of spawning (HTTP/2 streams), on the worker's own tokio runtime. A
//! stream whose client gives no room for the next byte of its answer is given up here: nothing else would notice it.
use crate::worker::catch_panic;
use hyper::rt::{Executor, Sleep, Timer};
use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

#[derive(Clone, Copy, Debug)]
pub(crate) struct TokioTimer;

struct TokioSleep(Pin<Box<tokio::time::Sleep>>);

impl Future for TokioSleep {
    type Output = ();
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.0.as_mut().poll(cx)
    }
}
impl Sleep for TokioSleep {}

impl Timer for TokioTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        Box::pin(TokioSleep(Box::pin(tokio::time::sleep(duration))))
    }
    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        Box::pin(TokioSleep(Box::pin(tokio::time::sleep_until(deadline.into()))))
    }
}

thread_local! {
    /// What the answer's body did in this poll of its stream's task. The library polls a body only once there is room for
    /// the frame before, so "handed over, and not asked again" means that the client owes room.
    static ANSWER: Cell<Answer> = const { Cell::new(Answer::Untouched) };
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    Untouched,
    /// A frame was handed over.
    Handed,
    /// Nothing to hand over yet, or nothing any more: nobody waits for the client.
    Waits,
}

/// Called by an answer's body from within its poll.
pub(crate) fn note_answer(answer: Answer) {
    ANSWER.set(answer);
}

/// Runs HTTP/2 streams; `panicked` is told when one of them panicked, and nothing else ends.
#[derive(Clone)]
pub(crate) struct StreamExecutor<P> {
    pub(crate) panicked: P,
    /// How long a client may give no room for the next bytes of an answer.
    pub(crate) stall: Duration,
}

/// Ends, with nothing, when the client gave no room for `stall`.
async fn until_stalled<F: Future>(mut future: Pin<&mut F>, stall: Duration) -> Option<F::Output> {
    let mut blocked_since: Option<Instant> = None;
    let mut sleep: Option<Pin<Box<tokio::time::Sleep>>> = None;
    poll_fn(|cx| {
        ANSWER.set(Answer::Untouched);
        if let Poll::Ready(output) = future.as_mut().poll(cx) {
            return Poll::Ready(Some(output));
        }
        match ANSWER.get() {
            Answer::Handed => blocked_since = Some(Instant::now()),
            Answer::Waits => blocked_since = None,
            Answer::Untouched => {}
        }
        let Some(since) = blocked_since else { return Poll::Pending };
        let deadline = tokio::time::Instant::from_std(since + stall);
        let sleep = sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        // The timer may stand from an earlier wait: then it fires early, and is set anew only then.
        while sleep.as_mut().poll(cx).is_ready() {
            if tokio::time::Instant::now() >= deadline {
                return Poll::Ready(None);
            }
            sleep.as_mut().reset(deadline);
        }
        Poll::Pending
    })
    .await
}

impl<F, P> Executor<F> for StreamExecutor<P>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
    P: Fn() + Clone + Send + 'static,
{
    fn execute(&self, future: F) {
        let panicked = self.panicked.clone();
        let stall = self.stall;
        tokio::spawn(async move {
            let future = pin!(future);
            if catch_panic(pin!(until_stalled(future, stall))).await.is_none() {
                panicked();
            }
        });
    }
}
