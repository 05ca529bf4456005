//! Durations (`250ms`, `30s`, `5m`, `12h`, `7d`) and sizes (`512B`, `64KiB`, `10MiB`, `2GiB`) as the files write them. A number
//! without a unit is refused: nobody should have to guess whether `30` means seconds.
use std::time::Duration;

pub const DURATION_PATTERN: &str = "^[0-9]+(ms|s|m|h|d)$";
pub const SIZE_PATTERN: &str = "^[0-9]+(B|KiB|MiB|GiB|TiB)$";

/// `None` when `text` is no duration, or more than fits.
pub fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = split(text)?;
    let ms_each = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.checked_mul(ms_each).map(Duration::from_millis)
}

/// Bytes; `None` when `text` is no size, or more than fits.
pub fn size(text: &str) -> Option<u64> {
    let (number, unit) = split(text)?;
    let shift = match unit {
        "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        "TiB" => 40,
        _ => return None,
    };
    number.checked_mul(1 << shift)
}

/// The shortest exact way to write a duration.
pub fn show_duration(duration: Duration) -> String {
    let ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let units = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s")];
    match units.iter().find(|(each, _)| ms >= *each && ms.is_multiple_of(*each)) {
        Some((each, unit)) => format!("{}{unit}", ms / each),
        None if ms == 0 => "0s".to_owned(),
        None => format!("{ms}ms"),
    }
}

/// The shortest exact way to write a size.
pub fn show_size(bytes: u64) -> String {
    let units = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
    match units.iter().find(|(shift, _)| bytes >= 1 << shift && bytes.is_multiple_of(1 << shift)) {
        Some((shift, unit)) => format!("{}{unit}", bytes >> shift),
        None => format!("{bytes}B"),
    }
}

fn split(text: &str) -> Option<(u64, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits)?;
    Some((number.parse().ok()?, unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_duration(text: &str, expected_ms: Option<u64>) {
        assert_eq!(duration(text), expected_ms.map(Duration::from_millis), "{text}");
        if let Some(ms) = expected_ms {
            assert_eq!(duration(&show_duration(Duration::from_millis(ms))), duration(text), "{text}");
        }
    }

    fn check_size(text: &str, expected: Option<u64>) {
        assert_eq!(size(text), expected, "{text}");
        if let Some(bytes) = expected {
            assert_eq!(size(&show_size(bytes)), Some(bytes), "{text}");
        }
    }

    #[test]
    fn durations_carry_their_unit() {
        check_duration("250ms", Some(250));
        check_duration("30s", Some(30_000));
        check_duration("5m", Some(300_000));
        check_duration("12h", Some(43_200_000));
        check_duration("7d", Some(604_800_000));
        check_duration("0s", Some(0));
        for bad in
            ["", "5", "m", "5M", "5 m", "-5s", "+5s", "1.5s", "5mm", "18446744073709551615d", "99999999999999999999s"]
        {
            check_duration(bad, None);
        }
    }

    #[test]
    fn sizes_carry_their_unit() {
        check_size("512B", Some(512));
        check_size("10MiB", Some(10 * 1024 * 1024));
        check_size("2GiB", Some(2 << 30));
        check_size("1TiB", Some(1 << 40));
        for bad in ["", "10", "MiB", "10MB", "10mib", "1.5MiB", "-1B", "18446744073709551615KiB"] {
            check_size(bad, None);
        }
    }
}
