//! What may be tried again, and how often: the conditions a service opted into, and a budget that keeps retries a small
//! part of the traffic, so that a fleet in trouble is not given more of it. Pure: time is an argument.
use std::time::Duration;

/// Retries allowed per second however little traffic there is, per worker.
const FLOOR_PER_SECOND: u64 = 1;
/// Retries that can be saved up.
const SAVED_MAX: u64 = 20;
/// The budget counts in parts of a retry.
const ONE: u64 = 100_000;

/// When a request is tried again beyond what is always safe. Only requests with an idempotent method and no body are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Retries {
    /// The connection ended before a byte of an answer, also when it was a new one.
    pub reset: bool,
    /// No address could be connected to.
    pub connect: bool,
    /// Answers with these statuses: 502, 503, 504.
    pub statuses: Vec<u16>,
    /// Tries besides the first.
    pub attempts: u32,
    /// Retries per hundred requests, besides a floor of some per second.
    pub budget_percent: u32,
    /// From choosing an endpoint to the head of its answer; a try that takes longer is given up, and counts as a reset.
    pub per_try_timeout: Option<Duration>,
}

/// One per worker and target. What is saved up is bounded, so a quiet hour does not pay for a storm.
#[derive(Debug, Clone)]
pub(super) struct Budget {
    percent: u64,
    left: u64,
    at_us: u64,
}

impl Budget {
    pub(super) fn new(percent: u32) -> Budget {
        Budget { percent: u64::from(percent), left: SAVED_MAX * ONE / 2, at_us: 0 }
    }

    /// A request came that may have to be tried again.
    pub(super) fn earn(&mut self) {
        self.left = (self.left + self.percent * ONE / 100).min(SAVED_MAX * ONE);
    }

    /// May one be tried again now?
    pub(super) fn spend(&mut self, now_us: u64) -> bool {
        let passed_us = now_us.saturating_sub(self.at_us).min(1_000_000 * SAVED_MAX);
        self.at_us = now_us.max(self.at_us);
        self.left = (self.left + passed_us * FLOOR_PER_SECOND * ONE / 1_000_000).min(SAVED_MAX * ONE);
        let allowed = self.left >= ONE;
        if allowed {
            self.left -= ONE;
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;

    /// So many requests, all failing, spread over `seconds`; how many retries they get.
    fn check(percent: u32, requests: u64, seconds: u64, expected: std::ops::RangeInclusive<u64>) {
        let mut budget = Budget::new(percent);
        let mut spent = 0;
        for request in 0..requests {
            budget.earn();
            spent += u64::from(budget.spend(SECOND + request * seconds * SECOND / requests));
        }
        assert!(expected.contains(&spent), "{percent} % of {requests} in {seconds} s: {spent}");
    }

    #[test]
    fn retries_stay_a_part_of_the_traffic() {
        check(20, 10_000, 1, 2_000..=2_021);
        check(20, 10_000, 100, 2_000..=2_120);
        check(100, 1_000, 1, 1_000..=1_000);
        check(0, 10_000, 1, 1..=21);
    }

    #[test]
    fn a_little_traffic_may_be_retried_whatever_its_part() {
        check(1, 60, 60, 55..=60);
    }

    #[test]
    fn a_quiet_hour_does_not_pay_for_a_storm() {
        let mut budget = Budget::new(20);
        for _ in 0..100_000 {
            budget.earn();
        }
        let spent = (0..1_000).filter(|_| budget.spend(3_600 * SECOND)).count();
        assert_eq!(spent, usize::try_from(SAVED_MAX).unwrap());
    }

    #[test]
    fn a_clock_that_goes_back_earns_nothing() {
        let mut budget = Budget::new(0);
        while budget.spend(100 * SECOND) {}
        assert!(!budget.spend(50 * SECOND));
        assert!(!budget.spend(100 * SECOND));
        assert!(budget.spend(101 * SECOND));
    }
}
