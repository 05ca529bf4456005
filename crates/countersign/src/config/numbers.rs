//! Numbers, sizes and durations within their bounds, and the defaults for what was left out. Never clamps: a value out of
//! bounds is a problem, not a surprise.
use super::decode::{At, ByteSize, Decoder, Interval};
use super::units::{show_duration, show_size};
use std::ops::RangeInclusive;
use std::time::Duration;

pub const SECOND: Duration = Duration::from_secs(1);
pub const MINUTE: Duration = Duration::from_secs(60);
pub const HOUR: Duration = Duration::from_secs(3600);
pub const DAY: Duration = Duration::from_secs(24 * 3600);
pub const KIB: u64 = 1 << 10;
pub const MIB: u64 = 1 << 20;
pub const TIB: u64 = 1 << 40;

pub fn interval(
    field: Option<&At<Interval>>,
    default: Duration,
    bounds: RangeInclusive<Duration>,
    to: &mut Decoder<'_>,
) -> Duration {
    let Some(At { value: Interval(value), at }) = field else { return default };
    if !bounds.contains(value) {
        let (low, high) = (show_duration(*bounds.start()), show_duration(*bounds.end()));
        to.report(*at, format!("`{}` is out of bounds", show_duration(*value)), format!("choose {low} to {high}"));
    }
    *value
}

pub fn size(field: Option<&At<ByteSize>>, default: u64, bounds: RangeInclusive<u64>, to: &mut Decoder<'_>) -> u64 {
    let Some(At { value: ByteSize(value), at }) = field else { return default };
    if !bounds.contains(value) {
        let (low, high) = (show_size(*bounds.start()), show_size(*bounds.end()));
        to.report(*at, format!("`{}` is out of bounds", show_size(*value)), format!("choose {low} to {high}"));
    }
    *value
}

pub fn count(field: Option<&At<u64>>, default: u64, bounds: RangeInclusive<u64>, to: &mut Decoder<'_>) -> u64 {
    let Some(At { value, at }) = field else { return default };
    if !bounds.contains(value) {
        let fix = format!("choose {} to {}", bounds.start(), bounds.end());
        to.report(*at, format!("`{value}` is out of bounds"), fix);
    }
    *value
}
