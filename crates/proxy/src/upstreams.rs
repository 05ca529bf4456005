//! Metrics of upstream fleets, read when they are asked for: nothing is counted twice on the way of a request. Labels are
//! configured service names and closed words. A service with one address that nobody checks has none of them.

use std::sync::Arc;

use net::upstream::{State, Status};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::judge::Shared;

/// Reads the fleets of the snapshot in force.
pub struct Upstreams(pub Arc<Shared>);

impl std::fmt::Debug for Upstreams {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Upstreams")
    }
}

impl Collector for Upstreams {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        encode(&self.0.views.upstreams(), &mut encoder)
    }
}

/// What one counter of a fleet is called, and how it is read: its label's value and number.
type Counted = (&'static str, &'static str, &'static str, fn(&Status) -> Vec<(&'static str, u64)>);

const COUNTERS: [Counted; 4] = [
    (
        "countersign_upstream_ejections",
        "Times an endpoint was put aside for its failures, by any worker",
        "cause",
        |status| vec![("failures", status.ejections)],
    ),
    (
        "countersign_upstream_retries",
        "Requests tried again by the service's choice, and such as the budget did not allow",
        "outcome",
        |status| vec![("sent", status.retries), ("refused", status.retries_refused)],
    ),
    ("countersign_upstream_checks", "Health checks of endpoints", "result", |status| {
        vec![("passed", status.checks_passed), ("failed", status.checks_failed)]
    }),
    ("countersign_upstream_look_ups", "Look-ups of `dns` upstreams that failed", "result", |status| {
        vec![("failed", status.look_ups_failed)]
    }),
];

fn encode(fleets: &[(Arc<str>, Status)], encoder: &mut DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
    // A family without a series would be a line without meaning.
    if fleets.is_empty() {
        return Ok(());
    }
    let help = "Endpoints of each upstream: well, ill (they fail their checks), or put aside for their failures";
    let mut family = encoder.encode_descriptor("countersign_upstream_endpoints", help, None, MetricType::Gauge)?;
    for (service, status) in fleets {
        for (state, word) in [(State::Well, "well"), (State::Ill, "ill"), (State::Ejected, "ejected")] {
            let count = status.endpoints.iter().filter(|(_, found)| *found == state).count();
            let gauge = ConstGauge::new(i64::try_from(count).unwrap_or(i64::MAX));
            gauge.encode(family.encode_family(&[("service", service.as_ref()), ("state", word)])?)?;
        }
    }
    for (name, help, label, read) in COUNTERS {
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (service, status) in fleets {
            for (word, count) in read(status) {
                let labels = [("service", service.as_ref()), (label, word)];
                ConstCounter::new(count).encode(family.encode_family(&labels)?)?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::registry::Registry;

    #[derive(Debug)]
    struct Fixed(Vec<(Arc<str>, Status)>);

    impl Collector for Fixed {
        fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
            encode(&self.0, &mut encoder)
        }
    }

    fn text(fleets: Vec<(Arc<str>, Status)>) -> String {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Fixed(fleets)));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        text
    }

    #[test]
    fn a11_series_of_fleets_are_bounded_by_services() {
        let status = Status {
            endpoints: (0..64).map(|n| (format!("10.0.0.{n}:1"), State::Ill)).collect(),
            ejections: 3,
            retries: 2,
            retries_refused: 1,
            checks_passed: 0,
            checks_failed: 7,
            look_ups_failed: 0,
        };
        let text = text(vec![("orders".into(), status)]);
        assert_eq!(text.lines().filter(|line| line.contains('{')).count(), 9, "{text}");
        assert!(text.contains(r#"countersign_upstream_endpoints{service="orders",state="ill"} 64"#), "{text}");
        assert!(text.contains(r#"countersign_upstream_retries_total{service="orders",outcome="refused"} 1"#), "{text}");
    }

    #[test]
    fn without_a_fleet_there_is_no_series() {
        assert!(!text(Vec::new()).contains("upstream"));
    }
}
