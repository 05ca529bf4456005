//! Warnings that are worth saying again, and not at each occasion. It says when; what is said is the caller's.
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Due at once, and then at most once per period.
#[derive(Debug)]
pub struct Seldom {
    period: Duration,
    last: Mutex<Option<Instant>>,
}

impl Seldom {
    pub fn every(period: Duration) -> Seldom {
        Seldom { period, last: Mutex::new(None) }
    }

    pub fn is_due(&self, now: Instant) -> bool {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = last.is_none_or(|last| now.saturating_duration_since(last) >= self.period);
        if is_due {
            *last = Some(now);
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warning_is_said_at_once_and_then_every_ten_seconds() {
        let (seldom, start) = (Seldom::every(Duration::from_secs(10)), Instant::now());
        for (after_ms, expected) in
            [(0, true), (1, false), (9_999, false), (10_000, true), (10_001, false), (25_000, true), (34_999, false)]
        {
            assert_eq!(seldom.is_due(start + Duration::from_millis(after_ms)), expected, "after {after_ms} ms");
        }
    }
}
