//! Two looks at a process's metrics, and what happened between them. It reads the text format (OpenMetrics) as far as our
//! own process writes it, and asks nobody.
use std::collections::BTreeMap;

type Labels = Vec<(String, String)>;
/// Name and labels.
type Series = (String, Labels);

/// One look: every series by its name and labels, as they stand in the text.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Look {
    series: BTreeMap<Series, f64>,
}

/// What one service did between two looks.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize)]
pub struct Service {
    pub service: String,
    pub requests_per_s: f64,
    /// Answered by the upstream.
    pub answered_per_s: f64,
    pub refused_per_s: f64,
    /// The reason most requests were refused for.
    pub reason: Option<String>,
    /// Milliseconds that half, and 99 in 100, of the requests took at most: the upper bound of the bucket they fall in.
    pub p50_ms: Option<f64>,
    pub p99_ms: Option<f64>,
}

/// What the process did between two looks.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize)]
pub struct Between {
    pub requests_in_flight: f64,
    pub websockets_open: f64,
    pub epoch: f64,
    /// Of 1; `None` when no token came.
    pub token_cache_hits: Option<f64>,
    /// Refused before they were requests.
    pub refused_early_per_s: f64,
    pub services: Vec<Service>,
}

impl Look {
    pub fn parse(text: &str) -> Look {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        Look { series: lines.filter_map(line).collect() }
    }

    fn value(&self, name: &str) -> f64 {
        // The sum of nothing is -0.0.
        self.all(name).map(|(_, value)| value).sum::<f64>() + 0.0
    }

    fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = (&'a [(String, String)], f64)> {
        self.series
            .iter()
            .filter(move |((known, _), _)| known == name)
            .map(|((_, labels), value)| (labels.as_slice(), *value))
    }

    /// What grew since `earlier`. A process that began anew counts from zero.
    fn since(&self, earlier: &Look) -> Look {
        let grown = |key: &Series, value: f64| {
            let before = earlier.series.get(key).copied().unwrap_or(0.0);
            if value >= before { value - before } else { value }
        };
        Look { series: self.series.iter().map(|(key, value)| (key.clone(), grown(key, *value))).collect() }
    }

    /// `seconds` lie between `earlier` and this look.
    pub fn between(&self, earlier: &Look, seconds: f64) -> Between {
        let grown = self.since(earlier);
        let seconds = seconds.max(0.001);
        let (hits, misses) =
            (grown.value("countersign_token_cache_hits_total"), grown.value("countersign_token_cache_misses_total"));
        Between {
            requests_in_flight: self.value("countersign_requests_in_flight"),
            websockets_open: self.value("countersign_tunnels_open"),
            epoch: self.value("countersign_epoch"),
            token_cache_hits: (hits + misses > 0.0).then(|| hits / (hits + misses)),
            refused_early_per_s: grown.value("countersign_refusals_total") / seconds,
            services: grown.services(seconds),
        }
    }

    fn services(&self, seconds: f64) -> Vec<Service> {
        let mut found: BTreeMap<&str, Service> = BTreeMap::new();
        let mut most: BTreeMap<&str, f64> = BTreeMap::new();
        for (labels, count) in self.all("countersign_requests_total") {
            let (Some(name), Some(reason)) = (label(labels, "service"), label(labels, "reason")) else { continue };
            let service =
                found.entry(name).or_insert_with(|| Service { service: name.to_owned(), ..Service::default() });
            service.requests_per_s += count / seconds;
            if reason == "none" {
                service.answered_per_s += count / seconds;
                continue;
            }
            service.refused_per_s += count / seconds;
            let most = most.entry(name).or_default();
            if count > *most {
                *most = count;
                service.reason = Some(reason.to_owned());
            }
        }
        for (name, service) in &mut found {
            service.p50_ms = self.quantile(name, 0.5);
            service.p99_ms = self.quantile(name, 0.99);
        }
        found.into_values().collect()
    }

    /// In milliseconds; infinite beyond the last bucket.
    fn quantile(&self, service: &str, of: f64) -> Option<f64> {
        let mut buckets: Vec<(f64, f64)> = self
            .all("countersign_request_seconds_bucket")
            .filter(|(labels, _)| label(labels, "service") == Some(service))
            .filter_map(|(labels, count)| Some((bound(label(labels, "le")?)?, count)))
            .collect();
        buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        let wanted = buckets.last().map(|(_, all)| all * of).filter(|wanted| *wanted > 0.0)?;
        buckets.iter().find(|(_, count)| *count >= wanted).map(|(bound, _)| bound * 1_000.0)
    }
}

fn bound(text: &str) -> Option<f64> {
    if text == "+Inf" { Some(f64::INFINITY) } else { text.parse().ok() }
}

fn label<'a>(labels: &'a [(String, String)], name: &str) -> Option<&'a str> {
    labels.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
}

fn line(text: &str) -> Option<(Series, f64)> {
    wire::openmetrics::sample(text).map(|sample| ((sample.name, sample.labels), sample.value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(requests: u32, refused: u32, fast: u32, slow: u32) -> Look {
        Look::parse(&format!(
            "# TYPE countersign_requests counter\n\
             countersign_requests_total{{service=\"orders\",reason=\"none\"}} {requests}\n\
             countersign_requests_total{{service=\"orders\",reason=\"expired\"}} {refused}\n\
             countersign_requests_total{{service=\"orders\",reason=\"no_route\"}} 1\n\
             countersign_request_seconds_bucket{{le=\"0.001\",service=\"orders\"}} {fast}\n\
             countersign_request_seconds_bucket{{le=\"0.25\",service=\"orders\"}} {slow}\n\
             countersign_request_seconds_bucket{{le=\"+Inf\",service=\"orders\"}} {slow}\n\
             countersign_requests_in_flight 3\ncountersign_token_cache_hits_total {requests}\n# EOF\n"
        ))
    }

    #[test]
    fn what_happened_between_two_looks_is_told_per_second() {
        let between = look(120, 30, 80, 150).between(&look(20, 10, 0, 0), 10.0);
        assert_eq!((between.requests_in_flight, between.token_cache_hits), (3.0, Some(1.0)));
        let [orders] = between.services.as_slice() else { panic!("{between:?}") };
        assert_eq!((orders.requests_per_s, orders.answered_per_s, orders.refused_per_s), (12.0, 10.0, 2.0));
        assert_eq!(orders.reason.as_deref(), Some("expired"));
        assert_eq!((orders.p50_ms, orders.p99_ms), (Some(1.0), Some(250.0)));
    }

    #[test]
    fn a_process_that_began_anew_counts_from_zero_and_silence_has_no_quantiles() {
        let between = look(5, 0, 5, 5).between(&look(1_000, 0, 900, 1_000), 1.0);
        assert_eq!(between.services[0].answered_per_s, 5.0);
        let between = look(5, 0, 5, 5).between(&look(5, 0, 5, 5), 1.0);
        assert_eq!((between.services[0].requests_per_s, between.services[0].p99_ms), (0.0, None));
        assert!(Look::default().between(&Look::default(), 1.0).refused_early_per_s.is_sign_positive());
        assert_eq!(Look::parse("no metrics at all\n{}\n= 1\n").between(&Look::default(), 0.0).services, []);
    }
}
