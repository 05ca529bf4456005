//! hyper's view of time (HTTP/2 keep-alive pings) and of spawning (HTTP/2 streams), on the worker's own tokio runtime.
use hyper::rt::{Executor, Sleep, Timer};
use std::future::Future;
use std::pin::Pin;
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

/// Runs HTTP/2 streams; `panicked` is told when one of them panicked, and nothing else ends.
#[derive(Clone)]
pub(crate) struct StreamExecutor<P> {
    pub(crate) panicked: P,
}

impl<F, P> Executor<F> for StreamExecutor<P>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
    P: Fn() + Clone + Send + 'static,
{
    fn execute(&self, future: F) {
        let panicked = self.panicked.clone();
        tokio::spawn(async move {
            let future = std::pin::pin!(future);
            if crate::worker::catch_panic(future).await.is_none() {
                panicked();
            }
        });
    }
}
