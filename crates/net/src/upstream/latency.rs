//! How slow an endpoint is, as one number that forgets: the peak-sensitive moving average ("peak EWMA"). A slow answer
//! counts at once and in full, a fast one only with time, so that load leaves an endpoint that stalls and comes back to it
//! slowly. Pure arithmetic: it reads no clock and knows no endpoint.

/// After this long without an answer a cost is down to 37 %: an endpoint 100 times slower than the others is asked again,
/// to see whether it has recovered, after some 23 s without a request.
const DECAY_US: f64 = 5_000_000.0;
/// No answer counts for less: below it lies noise, and zero would hide how many requests are in flight.
const COST_MIN_US: f64 = 50.0;
/// No failure counts for more.
const COST_MAX_US: f64 = 30_000_000.0;

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct PeakEwma {
    cost_us: f64,
    at_us: u64,
}

impl PeakEwma {
    pub(super) fn first(took_us: u64, now_us: u64) -> PeakEwma {
        PeakEwma { cost_us: in_bounds(took_us), at_us: now_us }
    }

    /// What a request may be expected to take, in microseconds.
    pub(super) fn cost(&self, now_us: u64) -> f64 {
        (self.cost_us * self.weight(now_us)).max(COST_MIN_US)
    }

    pub(super) fn observe(&mut self, took_us: u64, now_us: u64) {
        let (took, weight) = (in_bounds(took_us), self.weight(now_us));
        self.cost_us = took.max(self.cost_us * weight + took * (1.0 - weight));
        self.at_us = now_us.max(self.at_us);
    }

    /// A failure is no answer, however fast it came: what fails at once must not look like the fastest of all.
    pub(super) fn punish(&mut self, took_us: u64, now_us: u64) {
        let doubled = self.cost(now_us) * 2.0;
        self.cost_us = in_bounds(took_us).max(doubled).min(COST_MAX_US);
        self.at_us = now_us.max(self.at_us);
    }

    fn weight(&self, now_us: u64) -> f64 {
        (-approximate(now_us.saturating_sub(self.at_us)) / DECAY_US).exp()
    }
}

fn in_bounds(took_us: u64) -> f64 {
    approximate(took_us).clamp(COST_MIN_US, COST_MAX_US)
}

#[expect(clippy::cast_precision_loss, reason = "a load is compared with another, and never counted with")]
fn approximate(us: u64) -> f64 {
    us as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000;
    const SECOND: u64 = 1_000_000;

    /// Answers, each `(at, took)` in milliseconds; then the cost in milliseconds at the time of the last one.
    fn check(answers: &[(u64, u64)], between: std::ops::Range<f64>) {
        let [(at, took), rest @ ..] = answers else { panic!("no answers") };
        let mut ewma = PeakEwma::first(took * MS, at * MS);
        for (at, took) in rest {
            ewma.observe(took * MS, at * MS);
        }
        let found = ewma.cost(answers.last().unwrap().0 * MS) / 1_000.0;
        assert!(between.contains(&found), "{answers:?}: {found} ms");
    }

    #[test]
    fn a_steady_endpoint_costs_what_it_takes() {
        check(&[(0, 10)], 9.9..10.1);
        check(&[(0, 10), (1, 10), (2_000, 10), (9_000, 10)], 9.9..10.1);
    }

    #[test]
    fn a_slow_answer_counts_at_once_and_a_fast_one_with_time() {
        check(&[(0, 10), (1, 500)], 499.0..501.0);
        check(&[(0, 500), (1, 10)], 490.0..501.0);
        check(&[(0, 500), (5_000, 10)], 180.0..200.0);
        check(&[(0, 500), (60_000, 10)], 9.9..11.0);
    }

    #[test]
    fn what_is_not_asked_is_forgotten() {
        let ewma = PeakEwma::first(500 * MS, 0);
        assert!(ewma.cost(5 * SECOND) < 200_000.0);
        assert!((ewma.cost(1_000 * SECOND) - COST_MIN_US).abs() < 1.0, "never nothing at all");
    }

    #[test]
    fn a_quick_failure_is_no_quick_answer() {
        let mut ewma = PeakEwma::first(10 * MS, 0);
        for _ in 0..5 {
            ewma.punish(0, MS);
        }
        assert!(ewma.cost(MS) > 300_000.0, "{}", ewma.cost(MS));
        for _ in 0..100 {
            ewma.punish(0, MS);
        }
        assert!(ewma.cost(MS) <= COST_MAX_US);
    }

    #[test]
    fn a_clock_that_stands_still_or_goes_back_does_no_harm() {
        let mut ewma = PeakEwma::first(10 * MS, 5 * SECOND);
        ewma.observe(20 * MS, 3 * SECOND);
        assert!((ewma.cost(0) - 20_000.0).abs() < 1.0);
    }
}
