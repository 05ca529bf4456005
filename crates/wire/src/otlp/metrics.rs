//! The series of the admin address as OTLP metrics: counters and histograms as cumulative sums since the process began, gauges
//! as they are.
use bytes::{BufMut as _, Bytes, BytesMut};

use super::{Attribute, attribute};
use crate::openmetrics::{Family, Sample};
use crate::protobuf::Writer;

const CUMULATIVE: u64 = 2;

/// From when on was counted, and now: Unix nanoseconds.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    pub start: u64,
    pub now: u64,
}

/// `Metric` messages of at most `points_max` points each. Counters that never counted are left out, as OpenTelemetry's own
/// libraries do.
pub fn metric_messages(families: &[Family], window: Window, points_max: usize) -> Vec<Bytes> {
    let mut metrics = Vec::new();
    for family in families {
        let points: Vec<Writer> = match family.kind.as_str() {
            "counter" => family.samples.iter().filter(|sample| sample.value > 0.0).map(|s| number(s, window)).collect(),
            "gauge" => family.samples.iter().map(|sample| number(sample, window)).collect(),
            "histogram" => histograms(family, window),
            _ => continue,
        };
        metrics.extend(points.chunks(points_max.max(1)).map(|points| metric(family, points)));
    }
    metrics
}

fn metric(family: &Family, points: &[Writer]) -> Bytes {
    let mut data = Writer::with_capacity(points.iter().map(|point| point.0.len() + 4).sum::<usize>() + 8);
    points.iter().for_each(|point| data.message(1, point));
    let number = match family.kind.as_str() {
        "counter" => {
            data.number(2, CUMULATIVE);
            data.number(3, 1);
            7
        }
        "histogram" => {
            data.number(2, CUMULATIVE);
            9
        }
        _ => 5,
    };
    let mut metric = Writer::with_capacity(data.0.len() + family.name.len() + family.help.len() + 24);
    metric.bytes(1, family.name.as_bytes());
    metric.bytes(2, family.help.as_bytes());
    metric.bytes(3, unit(family).as_bytes());
    metric.message(number, &data);
    metric.0.freeze()
}

/// As UCUM writes it; a count has none.
fn unit(family: &Family) -> &'static str {
    if family.unit == "seconds" || family.name.ends_with("_seconds") { "s" } else { "" }
}

/// A `NumberDataPoint`.
fn number(sample: &Sample, window: Window) -> Writer {
    let mut point = Writer::with_capacity(128);
    times(&mut point, window);
    point.fixed64(4, sample.value.to_bits());
    sample.labels.iter().for_each(|(name, value)| point.message(7, &attribute(name, Attribute::Text(value))));
    point
}

fn times(point: &mut Writer, window: Window) {
    point.fixed64(2, window.start);
    point.fixed64(3, window.now);
}

/// The samples of one series, told apart by their labels without `le`.
#[derive(Default)]
struct Histogram {
    labels: Vec<(String, String)>,
    /// Upper bound, and how many were at or below it.
    buckets: Vec<(f64, f64)>,
    sum: f64,
    count: f64,
}

fn histograms(family: &Family, window: Window) -> Vec<Writer> {
    let mut all: Vec<Histogram> = Vec::new();
    for sample in &family.samples {
        let labels: Vec<_> = sample.labels.iter().filter(|(name, _)| name != "le").cloned().collect();
        // The samples of a series stand together.
        if all.last().is_none_or(|last| last.labels != labels) {
            all.push(Histogram { labels, ..Histogram::default() });
        }
        let Some(histogram) = all.last_mut() else { continue };
        match sample.name.strip_prefix(family.name.as_str()) {
            Some("_sum") => histogram.sum = sample.value,
            Some("_count") => histogram.count = sample.value,
            Some("_bucket") => {
                let bound = sample.labels.iter().find(|(name, _)| name == "le").map(|(_, bound)| bound.as_str());
                let bound = bound.and_then(|text| if text == "+Inf" { Some(f64::INFINITY) } else { text.parse().ok() });
                histogram.buckets.extend(bound.map(|bound| (bound, sample.value)));
            }
            _ => {}
        }
    }
    all.retain(|histogram| histogram.count > 0.0);
    all.iter_mut().map(|histogram| histogram.encode(window)).collect()
}

impl Histogram {
    /// A `HistogramDataPoint`: each bucket for itself, the last one without a bound.
    fn encode(&mut self, window: Window) -> Writer {
        self.buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (mut counts, mut bounds) = (BytesMut::new(), BytesMut::new());
        let mut below = 0.0;
        for (bound, count) in &self.buckets {
            counts.put_u64_le((count - below).max(0.0) as u64);
            below = *count;
            if bound.is_finite() {
                bounds.put_f64_le(*bound);
            }
        }
        let mut point = Writer::with_capacity(256);
        times(&mut point, window);
        point.fixed64(4, self.count as u64);
        point.fixed64(5, self.sum.to_bits());
        point.bytes(6, &counts);
        point.bytes(7, &bounds);
        self.labels.iter().for_each(|(name, value)| point.message(9, &attribute(name, Attribute::Text(value))));
        point
    }
}
