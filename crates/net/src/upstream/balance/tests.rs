//! A fleet in a made-up world: endpoints that take as long as the test says, a clock that the test turns.
use super::*;

const MS: u64 = 1_000;
const SECOND: u64 = 1_000_000;
const ALL: u64 = u64::MAX;

/// Endpoints, what is in flight on them, and a clock.
struct World {
    balance: Balance,
    takes_us: Vec<u64>,
    /// When each request in flight ends, and where; `false`: it fails.
    under_way: Vec<(u64, usize, u64)>,
    failing: Vec<bool>,
    now_us: u64,
    well: u64,
}

impl World {
    fn new(takes_ms: &[u64]) -> World {
        World {
            balance: Balance::new(Outliers::default(), takes_ms.len(), 7),
            takes_us: takes_ms.iter().map(|ms| ms * MS).collect(),
            under_way: Vec::new(),
            failing: vec![false; takes_ms.len()],
            now_us: SECOND,
            well: ALL,
        }
    }

    /// Ends what is due by now.
    fn settle(&mut self) {
        let now = self.now_us;
        self.under_way.sort_unstable();
        let due = self.under_way.iter().take_while(|(end, ..)| *end <= now).count();
        for (end, at, began) in self.under_way.drain(..due).collect::<Vec<_>>() {
            if self.failing[at] {
                self.balance.failed(at, end, end - began, Fault::Answer);
            } else {
                self.balance.answered(at, end, end - began);
            }
        }
    }

    /// Sends a request every `every_us` for `time_us`; how many each endpoint got.
    fn run(&mut self, time_us: u64, every_us: u64) -> Vec<u32> {
        let mut got = vec![0; self.takes_us.len()];
        for _ in 0..time_us / every_us {
            self.now_us += every_us;
            self.settle();
            let under_way = &self.under_way;
            let in_flight = |at| u32::try_from(under_way.iter().filter(|(_, on, _)| *on == at).count()).unwrap();
            let at = self.balance.pick(self.now_us, 0, self.well, in_flight).unwrap();
            got[at] += 1;
            self.under_way.push((self.now_us + self.takes_us[at], at, self.now_us));
        }
        got
    }

    fn fail(&mut self, at: usize, fault: Fault) -> Option<Ejected> {
        self.balance.failed(at, self.now_us, MS, fault)
    }

    /// The endpoints that get anything, all at one moment, when each of them in turn is the only one that is not busy.
    fn in_use(&mut self) -> Vec<usize> {
        let count = self.takes_us.len();
        let busy = |free: usize| move |at: usize| if at == free { 0 } else { 1_000_000 };
        let mut used: Vec<usize> =
            (0..1_000).map(|n| self.balance.pick(self.now_us, 0, self.well, busy(n % count)).unwrap()).collect();
        used.sort_unstable();
        used.dedup();
        used
    }
}

#[test]
fn equal_endpoints_share_evenly() {
    let got = World::new(&[5, 5, 5]).run(10 * SECOND, MS);
    assert!(got.iter().all(|got| (2_500..4_200).contains(got)), "{got:?}");
}

#[test]
fn a_slow_endpoint_gets_little_and_heals() {
    let mut world = World::new(&[5, 5, 500]);
    world.run(2 * SECOND, MS);
    let got = world.run(10 * SECOND, MS);
    assert!(got[2] < 200, "of 10,000: {got:?}");
    world.takes_us[2] = 5 * MS;
    world.run(40 * SECOND, MS);
    let got = world.run(10 * SECOND, MS);
    assert!(got[2] > 2_000, "it is as good as the others again: {got:?}");
}

#[test]
fn load_follows_a_stall_within_moments() {
    let mut world = World::new(&[5, 5]);
    world.run(5 * SECOND, MS);
    world.takes_us[0] = 1_000 * MS;
    let got = world.run(5 * SECOND, MS);
    assert!(got[0] < 500, "of 5,000: {got:?}");
}

#[test]
fn a_new_endpoint_is_not_flooded() {
    let mut world = World::new(&[5, 5]);
    world.run(5 * SECOND, MS);
    world.balance = world.balance.resumed(&[Some(0), Some(1), None], world.now_us);
    world.takes_us.push(5 * MS);
    world.failing.push(false);
    let first = world.run(SECOND, MS);
    assert!((10..250).contains(&first[2]), "about a tenth of its share: {first:?}");
    world.run(15 * SECOND, MS);
    let later = world.run(3 * SECOND, MS);
    assert!(later[2] > 700, "all of its share: {later:?}");
}

#[test]
fn what_stays_in_a_fleet_keeps_its_past() {
    let mut world = World::new(&[5, 5, 5]);
    world.fail(2, Fault::Connect).unwrap();
    world.balance = world.balance.resumed(&[Some(2), Some(0)], world.now_us);
    assert_eq!(world.in_use(), [1], "the one put aside stands first now");
}

#[test]
fn failures_in_a_row_put_an_endpoint_aside_and_answers_between_them_do_not() {
    let mut world = World::new(&[5, 5, 5]);
    for _ in 0..4 {
        assert_eq!(world.fail(0, Fault::Answer), None);
    }
    world.balance.answered(0, world.now_us, MS);
    for _ in 0..4 {
        assert_eq!(world.fail(0, Fault::Answer), None);
    }
    let ejected = world.fail(0, Fault::Answer).unwrap();
    assert_eq!(ejected.times, 1);
    assert!((5 * SECOND..=6 * SECOND).contains(&ejected.for_us), "{ejected:?}");
    assert_eq!(world.in_use(), [1, 2]);
}

#[test]
fn one_failed_connect_is_enough() {
    let mut world = World::new(&[5, 5, 5]);
    assert!(world.fail(1, Fault::Connect).is_some());
    assert_eq!(world.in_use(), [0, 2]);
}

#[test]
fn each_ejection_in_a_row_is_twice_as_long_up_to_the_longest() {
    let mut world = World::new(&[5, 5, 5]);
    for (times, seconds) in [(1, 5), (2, 10), (3, 20), (4, 40), (5, 80), (6, 160), (7, 300), (8, 300)] {
        let ejected = world.fail(0, Fault::Connect).unwrap();
        assert_eq!(ejected.times, times);
        let due = seconds * SECOND;
        assert!((due..=due + due / 5).contains(&ejected.for_us), "{ejected:?}");
        world.now_us += ejected.for_us + 1;
    }
    // Well for long enough: the next one is short again.
    world.now_us += 700 * SECOND;
    assert_eq!(world.fail(0, Fault::Connect).unwrap().times, 1);
}

#[test]
fn an_endpoint_that_has_just_come_back_goes_at_its_first_failure() {
    let mut world = World::new(&[5, 5, 5]);
    let ejected = world.fail(0, Fault::Connect).unwrap();
    world.now_us += ejected.for_us + SECOND;
    assert_eq!(world.fail(0, Fault::Answer).unwrap().times, 2);
}

#[test]
fn no_more_than_the_ceiling_is_put_aside() {
    for (count, percent, expected) in
        [(1, 50, 0), (1, 100, 0), (2, 50, 1), (3, 50, 1), (4, 50, 2), (10, 10, 1), (10, 35, 3), (3, 100, 3), (2, 1, 1)]
    {
        let mut world = World::new(&vec![5; count]);
        world.balance.settings.ceiling_percent = percent;
        let out = (0..count).filter(|at| (0..5).any(|_| world.fail(*at, Fault::Answer).is_some())).count();
        assert_eq!(out, expected, "{percent} % of {count}");
    }
}

#[test]
fn an_unreachable_endpoint_beyond_the_ceiling_rests_a_moment() {
    let mut world = World::new(&[5, 5, 5]);
    assert!(world.fail(0, Fault::Connect).is_some());
    assert!(world.fail(1, Fault::Connect).is_none(), "the ceiling");
    assert_eq!(world.in_use(), [2]);
    world.now_us += UNREACHABLE_US;
    assert_eq!(world.in_use(), [1, 2]);
}

#[test]
fn when_all_are_bad_all_are_used() {
    let mut world = World::new(&[5, 5, 5]);
    world.balance.settings.ceiling_percent = 100;
    for at in 0..3 {
        world.fail(at, Fault::Connect).unwrap();
    }
    assert_eq!(world.in_use(), [0, 1, 2]);
    // And so when the health checks find all of them ill.
    let mut world = World::new(&[5, 5, 5]);
    world.well = 0;
    assert_eq!(world.in_use(), [0, 1, 2]);
    world.well = 0b010;
    assert_eq!(world.in_use(), [1]);
}

#[test]
fn what_was_tried_is_not_drawn_again() {
    let mut world = World::new(&[5, 5, 5]);
    for (tried, expected) in [(0b001, vec![1, 2]), (0b101, vec![1])] {
        let found: std::collections::BTreeSet<_> =
            (0..100).filter_map(|_| world.balance.pick(SECOND, tried, ALL, |_| 0)).collect();
        assert_eq!(found.into_iter().collect::<Vec<_>>(), expected);
    }
    assert_eq!(world.balance.pick(SECOND, 0b111, ALL, |_| 0), None);
    // The last resort: one that is put aside and was not tried.
    world.fail(1, Fault::Connect);
    assert_eq!(world.balance.pick(SECOND, 0b101, ALL, |_| 0), Some(1));
}

#[test]
fn a_returning_endpoint_starts_slowly() {
    let shares = |mut world: World| {
        let early = world.run(SECOND, MS)[0];
        world.run(6 * SECOND, MS);
        let middle = world.run(SECOND, MS)[0];
        world.run(10 * SECOND, MS);
        (early, middle, world.run(SECOND, MS)[0])
    };
    let mut ejected = World::new(&[5, 5, 5]);
    ejected.run(SECOND, MS);
    let away = ejected.fail(0, Fault::Connect).unwrap().for_us;
    assert_eq!(ejected.run(away - 10 * MS, MS)[0], 0, "it gets nothing while it is away");
    let mut ill = World::new(&[5, 5, 5]);
    ill.run(SECOND, MS);
    ill.well = 0b110;
    assert_eq!(ill.run(SECOND, MS)[0], 0);
    ill.well = 0b111;
    for world in [ejected, ill] {
        let (early, middle, late) = shares(world);
        assert!((5..150).contains(&early), "{early} {middle} {late}");
        assert!((early..300).contains(&middle), "{early} {middle} {late}");
        assert!(late > 220, "{early} {middle} {late}");
    }
}

#[test]
fn an_endpoint_that_fails_fast_does_not_draw_the_load() {
    let mut world = World::new(&[5, 5, 5]);
    world.balance.settings.failures = u32::MAX;
    world.run(SECOND, MS);
    world.failing[0] = true;
    world.takes_us[0] = 0;
    let got = world.run(10 * SECOND, MS);
    assert!(got[0] < 1_000, "of 10,000: {got:?}");
}
