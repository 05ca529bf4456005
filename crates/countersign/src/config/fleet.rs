//! From `health:`, `outliers:` and `retries:` of an upstream to their settings, and the words they are written in. Nothing
//! here is looked up or asked.
use super::decode::{At, Decode, Decoder, OneOrMany};
use super::numbers::{DAY, HOUR, MINUTE, SECOND, count, interval};
use super::service::{HealthSection, OutliersSection, RetriesSection};
use super::yaml::Node;
use feed::{HealthCheck, Outliers, Retries};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use std::borrow::Cow;
use std::ops::RangeInclusive;
use std::time::Duration;

const PATH_BYTES_MAX: usize = 1024;

/// `20%`, 0 to 100.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Percent(pub u32);

impl Decode for Percent {
    fn decode(node: &Node, to: &mut Decoder<'_>) -> Option<Self> {
        let text = String::decode(node, to)?;
        let number = text.strip_suffix('%').and_then(number).filter(|number| *number <= 100);
        if number.is_none() {
            to.report(node.at, format!("`{text}` is no percentage"), "write a whole number and `%`: `0%` to `100%`");
        }
        number.map(|number| Percent(number.into()))
    }
}

/// `200` or `200-299`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusRange(pub RangeInclusive<u16>);

impl Decode for StatusRange {
    fn decode(node: &Node, to: &mut Decoder<'_>) -> Option<Self> {
        let text = String::decode(node, to)?;
        let (low, high) = text.split_once('-').unwrap_or((&text, &text));
        let status = |text: &str| number(text).filter(|status| (200..=599).contains(status));
        let range = status(low).zip(status(high)).filter(|(low, high)| low <= high);
        if range.is_none() {
            let fix = "write a status or a range of them, 200 to 599: `200`, `200-299`";
            to.report(node.at, format!("`{text}` is no range of statuses"), fix);
        }
        range.map(|(low, high)| StatusRange(low..=high))
    }
}

/// What may be tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryOn {
    Connect,
    Reset,
    Status(u16),
}

impl Decode for RetryOn {
    fn decode(node: &Node, to: &mut Decoder<'_>) -> Option<Self> {
        let text = String::decode(node, to)?;
        match text.as_str() {
            "connect" => Some(RetryOn::Connect),
            "reset" => Some(RetryOn::Reset),
            status => {
                let found = number(status).filter(|status| (502..=504).contains(status)).map(RetryOn::Status);
                if found.is_none() {
                    let fix = "one of `502`, `503`, `504`, `connect`, `reset`: other answers were meant for the caller";
                    to.report(node.at, format!("`{text}` is never tried again"), fix);
                }
                found
            }
        }
    }
}

/// Digits only, no sign.
fn number(text: &str) -> Option<u16> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

macro_rules! schema {
    ($name:ident, $schema:expr) => {
        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }
            fn json_schema(_generator: &mut SchemaGenerator) -> Schema {
                $schema
            }
        }
    };
}
schema!(Percent, json_schema!({ "type": "string", "pattern": "^[0-9]{1,3}%$", "examples": ["20%"] }));
schema!(
    StatusRange,
    json_schema!({ "type": ["string", "integer"], "pattern": "^[0-9]{3}(-[0-9]{3})?$", "examples": ["200-299"] })
);
schema!(
    RetryOn,
    json_schema!({ "type": ["string", "integer"], "pattern": "^([0-9]{3}|connect|reset)$", "enum": [502, 503, 504, "connect", "reset"] })
);

pub fn health(section: &HealthSection, to: &mut Decoder<'_>) -> Option<HealthCheck> {
    let ms = Duration::from_millis(1);
    let row = |field: Option<&At<u64>>, default, to: &mut Decoder<'_>| narrow(count(field, default, 1..=100, to));
    let every = interval(section.interval.as_ref(), 5 * SECOND, 100 * ms..=HOUR, to);
    let timeout = interval(section.timeout.as_ref(), SECOND, 10 * ms..=MINUTE, to);
    let healthy_after = row(section.healthy_after.as_ref(), 2, to);
    let unhealthy_after = row(section.unhealthy_after.as_ref(), 3, to);
    let expect = section.expect.as_ref().map_or(200..=299, |at| at.value.0.clone());
    let At { value: path, at } = section.path.0.as_ref()?;
    let allowed = path.len() <= PATH_BYTES_MAX && path.bytes().all(|b| b.is_ascii_graphic() && b != b'#');
    if !path.starts_with('/') || !allowed {
        to.report(*at, format!("`{path}` is no path"), "begin it with `/`; no spaces, no `#`: `/healthz`");
        return None;
    }
    Some(HealthCheck { path: path.clone(), interval: every, timeout, healthy_after, unhealthy_after, expect })
}

pub fn outliers(section: &OutliersSection, default: &Outliers, to: &mut Decoder<'_>) -> Outliers {
    let short = Duration::from_millis(100);
    let base = interval(section.base.as_ref(), default.base, short..=HOUR, to);
    let longest = interval(section.longest.as_ref(), default.longest.max(base), short..=DAY, to);
    if let Some(at) = section.longest.as_ref().filter(|_| longest < base) {
        to.report(at.at, "the longest time aside is shorter than the first", "make `longest` at least `base`");
    }
    let failures = count(section.failures.as_ref(), u64::from(default.failures), 1..=1000, to);
    Outliers {
        failures: narrow(failures),
        base,
        longest,
        ceiling_percent: section.ceiling.as_ref().map_or(default.ceiling_percent, |at| at.value.0),
        slow_start: interval(section.slow_start.as_ref(), default.slow_start, Duration::ZERO..=10 * MINUTE, to),
    }
}

pub fn retries(section: &RetriesSection, to: &mut Decoder<'_>) -> Option<Retries> {
    let attempts = narrow(count(section.attempts.as_ref(), 2, 1..=5, to));
    let budget_percent = section.budget.as_ref().map_or(20, |at| at.value.0);
    let bounds = Duration::from_millis(10)..=HOUR;
    let per_try_timeout = section.per_try_timeout.as_ref();
    let per_try_timeout = per_try_timeout.map(|limit| interval(Some(limit), SECOND, bounds, to));
    let OneOrMany(on) = section.on.0.as_ref()?;
    let on: Vec<RetryOn> = on.iter().map(|at| at.value).collect();
    let mut statuses: Vec<u16> =
        on.iter().filter_map(|on| if let RetryOn::Status(s) = on { Some(*s) } else { None }).collect();
    statuses.sort_unstable();
    statuses.dedup();
    let has = |what| on.contains(&what);
    let (reset, connect) = (has(RetryOn::Reset), has(RetryOn::Connect));
    Some(Retries { reset, connect, statuses, attempts, budget_percent, per_try_timeout })
}

fn narrow(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
