//! Points in time in words: the date in UTC, and how far from now. Reads no clock.

/// `2026-08-22 09:14:03 UTC`. Days since 1970 to a date after Howard Hinnant's `civil_from_days`.
pub(super) fn date(unix_s: i64) -> String {
    let (days, second) = (unix_s.div_euclid(86_400), unix_s.rem_euclid(86_400));
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 { month_index + 3 } else { month_index - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

/// `in 4 min 12 s`, `3 h 5 min ago`, `now`.
pub(super) fn relative(unix_s: i64, now: i64) -> String {
    let distance = unix_s.saturating_sub(now);
    match distance {
        0 => "now".to_owned(),
        1.. => format!("in {}", length(distance.unsigned_abs())),
        _ => format!("{} ago", length(distance.unsigned_abs())),
    }
}

/// The two largest units.
pub(super) fn length(seconds: u64) -> String {
    let units = [(86_400, "d"), (3_600, "h"), (60, "min"), (1, "s")];
    let mut rest = seconds;
    let mut words = Vec::new();
    for (each, name) in units {
        let count = rest / each;
        rest %= each;
        if count > 0 {
            words.push(format!("{count} {name}"));
        } else if !words.is_empty() {
            break;
        }
    }
    words.truncate(2);
    if words.is_empty() { "0 s".to_owned() } else { words.join(" ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_and_distances_are_exact() {
        assert_eq!(date(0), "1970-01-01 00:00:00 UTC");
        assert_eq!(date(951_782_400), "2000-02-29 00:00:00 UTC");
        assert_eq!(date(1_767_225_599), "2025-12-31 23:59:59 UTC");
        assert_eq!(date(253_402_300_799), "9999-12-31 23:59:59 UTC");
        assert_eq!(date(-1), "1969-12-31 23:59:59 UTC");
        assert_eq!(relative(100, 100), "now");
        assert_eq!(relative(352, 100), "in 4 min 12 s");
        assert_eq!(relative(100, 100 + 3 * 3600 + 305), "3 h 5 min ago");
        assert_eq!(relative(100, 100 + 86_400 + 5), "1 d ago");
        assert_eq!(relative(i64::MIN, i64::MAX), relative(i64::MIN, i64::MAX));
    }
}
