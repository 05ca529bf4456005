//! Counters of the data plane. Label values come from closed sets only (configured service names, reason codes), so no
//! request can add a series.

use std::sync::Arc;

use net::Refusal;
use net::tunnel::Ended;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use trust::reason::Reason;

/// Service label of requests that reached no service.
pub const NO_SERVICE: &str = "-";
const LATENCY_BUCKETS_S: [f64; 12] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5, 10.0];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByReason {
    service: Text,
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByService {
    service: Text,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByKind {
    kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByEnd {
    ended: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Text(Arc<str>);

impl EncodeLabelValue for Text {
    fn encode(&self, encoder: &mut LabelValueEncoder) -> Result<(), std::fmt::Error> {
        EncodeLabelValue::encode(&self.0.as_ref(), encoder)
    }
}

/// Every counter of this process's data plane.
#[derive(Clone)]
pub struct Metrics {
    requests: Family<ByReason, Counter>,
    latency: Family<ByService, Histogram, fn() -> Histogram>,
    refusals: Family<ByKind, Counter>,
    pub token_cache_hits: Counter,
    pub token_cache_misses: Counter,
    pub txn_minted: Counter,
    pub txn_reused: Counter,
    pub panics: Counter,
    pub in_flight: Gauge,
    tunnels_open: Gauge,
    tunnels_ended: Family<ByEnd, Counter>,
    pub epoch: Gauge,
}

/// The counters of one service, resolved once per snapshot so that a request touches atomics only.
pub struct ServiceStats {
    answered: Counter,
    by_reason: Vec<(Reason, Counter)>,
    latency: Histogram,
}

impl ServiceStats {
    /// One request ended. `reason` is `None` when the upstream answered.
    pub fn ended(&self, reason: Option<Reason>, seconds: f64) {
        match reason {
            None => _ = self.answered.inc(),
            Some(reason) => {
                if let Some((_, counter)) = self.by_reason.iter().find(|(known, _)| *known == reason) {
                    counter.inc();
                }
            }
        }
        self.latency.observe(seconds);
    }
}

impl Metrics {
    pub fn register(registry: &mut Registry) -> Metrics {
        let metrics = Metrics {
            requests: Family::default(),
            latency: Family::new_with_constructor(|| Histogram::new(LATENCY_BUCKETS_S)),
            refusals: Family::default(),
            token_cache_hits: Counter::default(),
            token_cache_misses: Counter::default(),
            txn_minted: Counter::default(),
            txn_reused: Counter::default(),
            panics: Counter::default(),
            in_flight: Gauge::default(),
            tunnels_open: Gauge::default(),
            tunnels_ended: Family::default(),
            epoch: Gauge::default(),
        };
        let m = &metrics;
        registry.register(
            "countersign_requests",
            "Requests by service and reason; `none` when the upstream answered",
            m.requests.clone(),
        );
        registry.register(
            "countersign_request_seconds",
            "From the head of a request to the end of its answer",
            m.latency.clone(),
        );
        registry.register(
            "countersign_refusals",
            "Requests and connections refused before they were judged",
            m.refusals.clone(),
        );
        registry.register(
            "countersign_token_cache_hits",
            "Access tokens found among the verified ones",
            m.token_cache_hits.clone(),
        );
        registry.register(
            "countersign_token_cache_misses",
            "Access tokens verified anew",
            m.token_cache_misses.clone(),
        );
        registry.register("countersign_txn_minted", "Txn-Tokens signed", m.txn_minted.clone());
        registry.register("countersign_txn_reused", "Txn-Tokens used again", m.txn_reused.clone());
        registry.register(
            "countersign_panics",
            "Panics caught while answering; each ended one connection",
            m.panics.clone(),
        );
        registry.register("countersign_requests_in_flight", "Requests being answered now", m.in_flight.clone());
        registry.register("countersign_tunnels_open", "WebSockets open now", m.tunnels_open.clone());
        registry.register("countersign_tunnels_ended", "WebSockets that ended, by why", m.tunnels_ended.clone());
        registry.register("countersign_epoch", "Epoch of the snapshot in force", m.epoch.clone());
        metrics
    }

    pub fn service(&self, name: &Arc<str>) -> ServiceStats {
        let of = |reason: &'static str| {
            self.requests.get_or_create(&ByReason { service: Text(Arc::clone(name)), reason }).clone()
        };
        ServiceStats {
            answered: of("none"),
            by_reason: Reason::ALL.iter().map(|reason| (*reason, of(reason.code()))).collect(),
            latency: self.latency.get_or_create(&ByService { service: Text(Arc::clone(name)) }).clone(),
        }
    }

    pub fn refused(&self, refusal: Refusal) {
        let kind = match refusal {
            Refusal::Malformed(_) => "malformed",
            Refusal::HeaderTooLarge => "header_too_large",
            Refusal::HeaderTimeout => "header_timeout",
            Refusal::Handshake => "handshake",
            Refusal::HandshakeTimeout => "handshake_timeout",
            Refusal::TooManyConnections => "too_many_connections",
            Refusal::Flood(_) => "flood",
            Refusal::Preamble(_) => "preamble",
        };
        self.refusals.get_or_create(&ByKind { kind }).inc();
    }

    /// Somebody who is no proxy of ours asked for a verdict.
    pub fn authz_caller_refused(&self) {
        self.refusals.get_or_create(&ByKind { kind: "authz_caller" }).inc();
    }

    /// A workload that is not listed asked for a token.
    pub fn token_caller_refused(&self) {
        self.refusals.get_or_create(&ByKind { kind: "token_caller" }).inc();
    }

    /// Counts an open tunnel until the value is dropped.
    pub fn tunnel(&self) -> InFlight {
        self.tunnels_open.inc();
        InFlight(self.tunnels_open.clone())
    }

    pub fn tunnel_ended(&self, ended: Ended) {
        self.tunnels_ended.get_or_create(&ByEnd { ended: ended.code() }).inc();
    }

    /// Counts a request in flight until the value is dropped.
    pub fn enter(&self) -> InFlight {
        self.in_flight.inc();
        InFlight(self.in_flight.clone())
    }
}

pub struct InFlight(Gauge);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a11_series_are_bounded_by_services_and_reasons() {
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        let service: Arc<str> = "orders".into();
        for _ in 0..3 {
            let stats = metrics.service(&service);
            Reason::ALL.iter().for_each(|reason| stats.ended(Some(*reason), 0.001));
            stats.ended(None, 0.001);
        }
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        let series = text.lines().filter(|line| line.starts_with("countersign_requests_total{")).count();
        assert_eq!(series, Reason::ALL.len() + 1);
        assert!(text.contains(r#"countersign_requests_total{service="orders",reason="expired"} 3"#), "{text}");
    }
}
