//! The wall clock of the data plane, read once per request.

use std::time::{SystemTime, UNIX_EPOCH};

/// A moment in Unix milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct UnixMs(pub u64);

impl UnixMs {
    pub fn now() -> UnixMs {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        UnixMs(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    pub fn seconds(self) -> i64 {
        i64::try_from(self.0 / 1000).unwrap_or(i64::MAX)
    }

    /// RFC 3339 in UTC, to the millisecond.
    pub fn rfc_3339(self) -> String {
        let (year, month, day) = civil(self.0 / 86_400_000);
        let (hour, minute, second) = self.of_day();
        format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", self.0 % 1000)
    }

    /// As web servers write it, in UTC: `22/Nov/2026:13:20:00 +0000`.
    pub fn common_log(self) -> String {
        const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
        let (year, month, day) = civil(self.0 / 86_400_000);
        let (hour, minute, second) = self.of_day();
        let month = usize::try_from(month.saturating_sub(1)).ok().and_then(|at| MONTHS.get(at)).unwrap_or(&"Jan");
        format!("{day:02}/{month}/{year:04}:{hour:02}:{minute:02}:{second:02} +0000")
    }

    fn of_day(self) -> (u64, u64, u64) {
        let second = self.0 / 1000 % 86_400;
        (second / 3600, second / 60 % 60, second % 60)
    }
}

/// Days since 1970-01-01 as year, month, day of the Gregorian calendar: whole 400-year eras first, then the March-based
/// year within the era, so that the leap day is the last of its year.
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_written_as_the_field_writes_them() {
        let check = |unix_ms, rfc_3339: &str, common_log: &str| {
            let moment = UnixMs(unix_ms);
            assert_eq!((moment.rfc_3339(), moment.common_log()), (rfc_3339.into(), common_log.into()));
        };
        check(0, "1970-01-01T00:00:00.000Z", "01/Jan/1970:00:00:00 +0000");
        check(951_782_400_000, "2000-02-29T00:00:00.000Z", "29/Feb/2000:00:00:00 +0000");
        check(1_795_353_600_123, "2026-11-22T13:20:00.123Z", "22/Nov/2026:13:20:00 +0000");
        check(4_102_444_799_999, "2099-12-31T23:59:59.999Z", "31/Dec/2099:23:59:59 +0000");
    }
}
