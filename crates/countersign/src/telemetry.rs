//! Logs of the process, and the metrics that come from control and from the logs rather than from requests.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use control::Keys;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};
use proxy::access_log::AccessLog;
use proxy::audit::{Audit, Health};
use proxy::otlp::Otlp;
use tracing_subscriber::EnvFilter;

use crate::config::{LogFormat, LogSettings};

/// Starts logging to standard error: JSON lines, or text for people. Call once.
pub fn start_logs(settings: &LogSettings) {
    let filter = EnvFilter::try_new(settings.level.name()).unwrap_or_else(|_| EnvFilter::new("info"));
    let terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let json = match settings.format {
        Some(format) => format == LogFormat::Json,
        None => !terminal,
    };
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    // A second start (tests) keeps the first one.
    let _again = if json { logs.json().flatten_event(true).try_init() } else { logs.with_ansi(terminal).try_init() };
}

/// Adds the metrics of issuers' keys, of the audit log, and of access log and exporter, if there are any.
pub fn register(
    registry: &mut Registry,
    keys: Arc<Keys>,
    audit: Audit,
    access_log: Option<AccessLog>,
    otlp: Option<Otlp>,
) {
    registry.register_collector(Box::new(FromParts { keys, audit, access_log, otlp }));
}

struct FromParts {
    keys: Arc<Keys>,
    audit: Audit,
    access_log: Option<AccessLog>,
    otlp: Option<Otlp>,
}

impl std::fmt::Debug for FromParts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FromParts")
    }
}

impl Collector for FromParts {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        self.encode_keys(&mut encoder)?;
        self.encode_audit(&mut encoder)?;
        self.encode_access_log(&mut encoder)?;
        self.encode_otlp(&mut encoder)
    }
}

impl FromParts {
    fn encode_keys(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let report = self.keys.key_report();
        let mut ages = encoder.encode_descriptor(
            "countersign_jwks_age",
            "Since the last good answer of the issuer's key set",
            Some(&Unit::Seconds),
            prometheus_client::metrics::MetricType::Gauge,
        )?;
        for issuer in &report.issuers {
            if let Some(age_s) = issuer.keys.age_s {
                let gauge = ConstGauge::new(age_s);
                gauge.encode(ages.encode_family(&[("issuer", issuer.name.as_ref())])?)?;
            }
        }
        let mut keys = encoder.encode_descriptor(
            "countersign_issuer_keys",
            "Keys in use",
            None,
            prometheus_client::metrics::MetricType::Gauge,
        )?;
        for issuer in &report.issuers {
            let gauge = ConstGauge::new(i64::try_from(issuer.keys.keys.len()).unwrap_or(i64::MAX));
            gauge.encode(keys.encode_family(&[("issuer", issuer.name.as_ref())])?)?;
        }
        let mut misses = encoder.encode_descriptor(
            "countersign_kid_miss",
            "Tokens with an unknown key id, by what became of the question",
            None,
            prometheus_client::metrics::MetricType::Counter,
        )?;
        for issuer in &report.issuers {
            let counts = [
                ("refreshed", issuer.kid_misses.refreshed),
                ("throttled", issuer.kid_misses.throttled),
                ("unreachable", issuer.kid_misses.unreachable),
            ];
            for (outcome, count) in counts {
                let labels = [("issuer", issuer.name.as_ref()), ("outcome", outcome)];
                ConstCounter::new(count).encode(misses.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }

    fn encode_audit(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let stats = self.audit.stats();
        let counters = [
            ("countersign_audit_written", "Records written", &stats.written),
            ("countersign_audit_missing", "Records that could not be written", &stats.missing),
            ("countersign_audit_write_errors", "Failed writes", &stats.write_errors),
        ];
        for (name, help, value) in counters {
            encode_counter(encoder, name, help, value)?;
        }
        let failing = ConstGauge::new(i64::from(self.audit.health() == Health::Failing));
        let metric = encoder.encode_descriptor(
            "countersign_audit_failing",
            "1 while records cannot be written",
            None,
            failing.metric_type(),
        )?;
        failing.encode(metric)
    }
    fn encode_access_log(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let Some(stats) = self.access_log.as_ref().map(AccessLog::stats) else { return Ok(()) };
        encode_counter(encoder, "countersign_access_log_written", "Lines written", &stats.written)?;
        encode_counter(encoder, "countersign_access_log_missing", "Lines lost", &stats.missing)
    }

    fn encode_otlp(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let Some(stats) = self.otlp.as_ref().map(Otlp::stats) else { return Ok(()) };
        encode_counter(encoder, "countersign_otlp_spans_sent", "Spans that the collector took", &stats.spans_sent)?;
        let mut dropped = encoder.encode_descriptor(
            "countersign_otlp_spans_dropped",
            "Spans lost, by why",
            None,
            prometheus_client::metrics::MetricType::Counter,
        )?;
        let causes = [
            ("overflow", &stats.spans_overflowed),
            ("refused", &stats.spans_refused),
            ("unreachable", &stats.spans_given_up),
        ];
        for (cause, count) in causes {
            let counter = ConstCounter::new(count.load(Ordering::Relaxed));
            counter.encode(dropped.encode_family(&[("cause", cause)])?)?;
        }
        let failed = &stats.metrics_failed;
        encode_counter(encoder, "countersign_otlp_metrics_failed", "Exports of metrics that failed", failed)
    }
}

fn encode_counter(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    value: &AtomicU64,
) -> Result<(), std::fmt::Error> {
    let counter = ConstCounter::new(value.load(Ordering::Relaxed));
    counter.encode(encoder.encode_descriptor(name, help, None, counter.metric_type())?)
}
