//! The running tunnels of one worker, as its clock looks at them. A change that makes every permission be judged anew must
//! not stop the worker while ten thousand of them are, so each tick has an end, and the next one goes on where it stopped.
//!
//! It lets no byte pass that should not: a tunnel that moves asks before each part, whatever is or is not looked at here.
use super::Slot;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

/// What one tick may take. Judging a token anew costs some 70 µs: 10,000 silent tunnels take about eight seconds then.
const TICK: Duration = Duration::from_millis(25);
/// Tunnels between two looks at the time.
const STRIDE: usize = 16;

#[derive(Default)]
pub(crate) struct Watched(Mutex<Round>);

#[derive(Default)]
struct Round {
    tunnels: Vec<Weak<Slot>>,
    /// The first that was not looked at in this round.
    next: usize,
}

impl Watched {
    /// From now on the clock asks whether this tunnel may go on.
    pub(crate) fn add(&self, tunnel: &Arc<Slot>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).tunnels.push(Arc::downgrade(tunnel));
    }

    /// One tick.
    pub(crate) fn look(&self, stall: Duration) {
        self.look_for(TICK, stall);
    }

    fn look_for(&self, time: Duration, stall: Duration) {
        let mut round = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if round.tunnels.is_empty() {
            return;
        }
        let began = Instant::now();
        let mut looked = 0;
        while let Some(tunnel) = round.tunnels.get(round.next) {
            let Some(tunnel) = tunnel.upgrade() else {
                // The last one takes its place, and was not looked at either.
                let ended = round.next;
                round.tunnels.swap_remove(ended);
                continue;
            };
            tunnel.look(stall);
            round.next += 1;
            looked += 1;
            if looked % STRIDE == 0 && began.elapsed() >= time {
                return;
            }
        }
        round.next = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::Clock;
    use crate::tunnel::{Permission, Withdrawn};
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    #[derive(Default)]
    struct Counting(AtomicUsize);

    impl Permission for Counting {
        fn withdrawn(&self) -> Option<Withdrawn> {
            self.0.fetch_add(1, SeqCst);
            None
        }
    }

    #[test]
    fn a_tick_ends_and_the_next_goes_on_where_it_stopped() {
        let (watched, clock) = (Watched::default(), Arc::new(Clock::new()));
        let permissions: Vec<Arc<Counting>> = (0..40).map(|_| Arc::default()).collect();
        let slot = |permission: &Arc<Counting>| {
            let permission = Arc::clone(permission) as Arc<dyn Permission>;
            Arc::new(Slot::new(Arc::clone(&clock), permission, Duration::from_secs(60)))
        };
        let mut slots: Vec<Arc<Slot>> = permissions.iter().map(slot).collect();
        slots.iter().for_each(|slot| watched.add(slot));
        let asked = || permissions.iter().map(|permission| permission.0.load(SeqCst)).collect::<Vec<_>>();
        let tick = |time| watched.look_for(time, Duration::from_secs(60));

        tick(Duration::ZERO);
        assert_eq!(asked(), [vec![1; 16], vec![0; 24]].concat());
        tick(Duration::ZERO);
        tick(Duration::ZERO);
        assert_eq!(asked(), vec![1; 40], "each of them once, and the round is over");
        tick(Duration::MAX);
        assert_eq!(asked(), vec![2; 40], "with time enough, all in one tick");
        // Those that ended fall out, and nobody is left out for it.
        slots.drain(10..30);
        tick(Duration::ZERO);
        tick(Duration::ZERO);
        assert_eq!(asked(), [vec![3; 10], vec![2; 20], vec![3; 10]].concat());
        assert_eq!(watched.0.lock().unwrap().tunnels.len(), 20);
        slots.clear();
        tick(Duration::ZERO);
        assert!(watched.0.lock().unwrap().tunnels.is_empty());
    }
}
