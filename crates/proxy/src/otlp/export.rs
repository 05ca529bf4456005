//! The queue of encoded spans, and the thread that sends them and the metrics.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;

use bytes::Bytes;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use tokio::sync::{Notify, watch};
use wire::otlp::{Source, Window, export_request, metric_messages};

use super::Settings;
use super::deliver::{Delivered, Patience, Sender};
use super::spans;
use crate::audit::{Record, Sink};
use crate::clock::UnixMs;

const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Of one request; collectors take 4 MiB at least.
const REQUEST_BYTES_MAX: usize = 1024 * 1024;
const POINTS_MAX: usize = 1000;

/// Bounds, and how long things may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Spans, and their bytes, that wait at most.
    pub spans: usize,
    pub bytes: usize,
    /// Of one request.
    pub batch: usize,
    /// How long spans gather before a batch that is not full is sent.
    pub gather: Duration,
    pub patience: Patience,
    /// How long the end of the process waits for the last export.
    pub stop: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        let patience = Patience { first_pause: Duration::from_secs(1), give_up_after: Duration::from_secs(60) };
        let (gather, stop) = (Duration::from_secs(1), Duration::from_secs(5));
        Limits { spans: 16_384, bytes: 16 * 1024 * 1024, batch: 1024, gather, patience, stop }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("cannot start the thread that exports telemetry: {0}")]
    Thread(std::io::Error),
}

/// Counters for metrics.
#[derive(Debug, Default)]
pub struct Stats {
    pub spans_sent: AtomicU64,
    /// The queue was full.
    pub spans_overflowed: AtomicU64,
    /// The collector did not want them.
    pub spans_refused: AtomicU64,
    /// The collector could not be reached, or asked for patience for too long.
    pub spans_given_up: AtomicU64,
    /// Exports of metrics that failed; the next one tells all of it again.
    pub metrics_failed: AtomicU64,
}

/// A handle to the exporter. Cheap to clone.
#[derive(Clone)]
pub struct Otlp(Arc<Shared>);

struct Shared {
    settings: Arc<Settings>,
    limits: Limits,
    /// `service.instance.id`: of this process alone.
    instance: String,
    began: UnixMs,
    queue: Mutex<Queue>,
    wake: Notify,
    stop: watch::Sender<bool>,
    stats: Stats,
    /// Closed by the thread's end.
    ended: Mutex<Option<mpsc::Receiver<()>>>,
}

#[derive(Default)]
struct Queue {
    spans: VecDeque<Bytes>,
    bytes: usize,
}

impl Otlp {
    /// Nothing is sent before [`Otlp::start`].
    pub fn new(settings: Arc<Settings>) -> Otlp {
        Otlp::with_limits(settings, Limits::default())
    }

    pub(super) fn with_limits(settings: Arc<Settings>, limits: Limits) -> Otlp {
        Otlp(Arc::new(Shared {
            settings,
            limits,
            instance: uuid::Uuid::now_v7().to_string(),
            began: UnixMs::now(),
            queue: Mutex::new(Queue::default()),
            wake: Notify::new(),
            stop: watch::Sender::new(false),
            stats: Stats::default(),
            ended: Mutex::new(None),
        }))
    }

    /// Where finished records go, if spans are wanted.
    pub fn sink(&self) -> Option<Box<dyn Sink>> {
        self.0.settings.traces.is_some().then(|| Box::new(self.clone()) as Box<dyn Sink>)
    }

    pub fn stats(&self) -> &Stats {
        &self.0.stats
    }

    /// Starts the thread. `registry` is what the metrics are read from.
    pub fn start(&self, registry: Arc<Registry>) -> Result<(), StartError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(StartError::Thread)?;
        let shared = Arc::clone(&self.0);
        let (alive, ended) = mpsc::channel::<()>();
        std::thread::Builder::new()
            .name("otlp".into())
            .spawn(move || {
                let _alive = alive;
                runtime.block_on(async {
                    tokio::join!(shared.send_spans(), shared.send_metrics(&registry));
                });
            })
            .map_err(StartError::Thread)?;
        *self.0.ended.lock().unwrap_or_else(PoisonError::into_inner) = Some(ended);
        Ok(())
    }

    /// Sends what waits, once, and the metrics a last time. What takes longer than 5 s is given up.
    pub fn stop(&self) {
        self.0.stop.send_replace(true);
        let ended = self.0.ended.lock().unwrap_or_else(PoisonError::into_inner).take();
        let waited = ended.map(|ended| ended.recv_timeout(self.0.limits.stop));
        if let Some(Err(mpsc::RecvTimeoutError::Timeout)) = waited {
            let spans = self.0.queue().spans.len();
            tracing::warn!(spans, "the collector does not answer: what it was not sent yet is given up");
        }
    }
}

impl Sink for Otlp {
    fn take(&mut self, records: &[Box<Record>]) {
        let caller = self.0.settings.traces.as_ref().is_some_and(|traces| traces.caller);
        let spans: Vec<Bytes> = records.iter().filter_map(|record| spans::encode(record, caller)).collect();
        self.0.push(spans);
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, spans: Vec<Bytes>) {
        if spans.is_empty() {
            return;
        }
        let mut overflowed = 0;
        let mut queue = self.queue();
        let before = queue.spans.len();
        for span in spans {
            if queue.spans.len() >= self.limits.spans || queue.bytes + span.len() > self.limits.bytes {
                overflowed += 1;
                continue;
            }
            queue.bytes += span.len();
            queue.spans.push_back(span);
        }
        let waiting = queue.spans.len();
        drop(queue);
        self.stats.spans_overflowed.fetch_add(overflowed, Ordering::Relaxed);
        // For the first one, and for a full batch.
        if before == 0 || (before < self.limits.batch && waiting >= self.limits.batch) {
            self.wake.notify_one();
        }
    }

    fn take_batch(&self) -> Vec<Bytes> {
        let mut queue = self.queue();
        let mut bytes = 0;
        let mut batch = Vec::new();
        while let Some(span) = queue.spans.pop_front_if(|span| bytes + span.len() <= REQUEST_BYTES_MAX) {
            bytes += span.len();
            batch.push(span);
            if batch.len() >= self.limits.batch {
                break;
            }
        }
        queue.bytes -= bytes;
        batch
    }

    fn sender<'a>(&'a self, what: &'static str, path: &'static str, patience: Patience) -> Sender<'a> {
        Sender { settings: &self.settings, patience, what, path, failing: AtomicBool::new(false) }
    }

    fn request(&self, seen: &[Bytes]) -> Bytes {
        let resource = [
            ("service.name", self.settings.service_name.as_str()),
            ("service.version", VERSION),
            ("service.instance.id", &self.instance),
        ];
        export_request(Source { resource: &resource, version: VERSION }, seen)
    }

    async fn send_spans(&self) {
        let sender = self.sender("spans", "/v1/traces", self.limits.patience);
        let mut stop = self.stop.subscribe();
        loop {
            self.gather(&mut stop).await;
            loop {
                let batch = self.take_batch();
                if batch.is_empty() {
                    break;
                }
                let delivered = sender.deliver(&self.request(&batch), &mut stop).await;
                self.account(delivered, batch.len() as u64);
            }
            if *stop.borrow() {
                return;
            }
        }
    }

    /// Until there is a batch, or something and time went by, or the end.
    async fn gather(&self, stop: &mut watch::Receiver<bool>) {
        if self.queue().spans.is_empty() {
            tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => return,
                () = self.wake.notified() => {}
            }
        }
        if self.queue().spans.len() < self.limits.batch {
            tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => {}
                () = self.wake.notified() => {}
                () = tokio::time::sleep(self.limits.gather) => {}
            }
        }
    }

    fn account(&self, delivered: Delivered, spans: u64) {
        let (sent, lost, counter) = match delivered {
            Delivered::Taken { rejected } => {
                let rejected = rejected.min(spans);
                (spans - rejected, rejected, &self.stats.spans_refused)
            }
            Delivered::Refused => (0, spans, &self.stats.spans_refused),
            Delivered::GivenUp => (0, spans, &self.stats.spans_given_up),
        };
        self.stats.spans_sent.fetch_add(sent, Ordering::Relaxed);
        counter.fetch_add(lost, Ordering::Relaxed);
    }

    async fn send_metrics(&self, registry: &Registry) {
        let Some(interval) = self.settings.metrics else { return };
        let give_up_after = self.limits.patience.give_up_after.min(interval);
        let sender = self.sender("metrics", "/v1/metrics", Patience { give_up_after, ..self.limits.patience });
        let mut stop = self.stop.subscribe();
        let mut tick = tokio::time::interval(interval);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        // The first tick comes at once, and there is nothing to tell yet.
        tick.tick().await;
        loop {
            tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => {}
                _ = tick.tick() => {}
            }
            for request in self.metric_requests(registry) {
                match sender.deliver(&request, &mut stop).await {
                    Delivered::Taken { rejected: 0 } => {}
                    _ => _ = self.stats.metrics_failed.fetch_add(1, Ordering::Relaxed),
                }
            }
            if *stop.borrow() {
                return;
            }
        }
    }

    fn metric_requests(&self, registry: &Registry) -> Vec<Bytes> {
        let mut text = String::with_capacity(64 * 1024);
        if encode(&mut text, registry).is_err() {
            return Vec::new();
        }
        let nanos = |at: UnixMs| at.0.saturating_mul(1_000_000);
        let window = Window { start: nanos(self.began), now: nanos(UnixMs::now()) };
        let metrics = metric_messages(&wire::openmetrics::families(&text), window, POINTS_MAX);
        let mut requests = Vec::new();
        let mut rest = metrics.as_slice();
        while !rest.is_empty() {
            let mut bytes = 0;
            let fits = rest.iter().take_while(|metric| {
                bytes += metric.len();
                bytes <= REQUEST_BYTES_MAX
            });
            let (now, later) = rest.split_at(fits.count().max(1));
            requests.push(self.request(now));
            rest = later;
        }
        requests
    }
}
