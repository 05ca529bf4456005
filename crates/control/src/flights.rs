//! One question for all who ask the same: who comes second waits for the first one's answer, and answers are remembered as
//! long as they say. Bounded: beyond the bound an answer is used and not remembered.
use std::collections::HashMap;
use std::future::Future;
use std::hash::Hash;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::board::lock;

pub(crate) struct Flights<K, V> {
    known: Mutex<HashMap<K, Known<V>>>,
    known_max: usize,
}

enum Known<V> {
    /// Somebody is asking.
    Asking(watch::Receiver<Option<V>>),
    Answered(V, Instant),
}

impl<V> Known<V> {
    fn counts(&self, now: Instant) -> bool {
        match self {
            Known::Asking(_) => true,
            Known::Answered(_, until) => now < *until,
        }
    }
}

impl<K: Clone + Eq + Hash + Send + 'static, V: Clone + Send + Sync + 'static> Flights<K, V> {
    pub(crate) fn new(known_max: usize) -> Arc<Flights<K, V>> {
        Arc::new(Flights { known: Mutex::default(), known_max })
    }

    /// What is known, what somebody asks right now, or the answer of `question`, which says how long it counts. It is asked
    /// on `runtime`, so that it goes on when the request that asked first is gone. `None` when `runtime` has stopped.
    pub(crate) async fn ask<F>(
        self: &Arc<Self>,
        runtime: &tokio::runtime::Handle,
        key: K,
        question: impl FnOnce() -> F,
    ) -> Option<V>
    where
        F: Future<Output = (V, Duration)> + Send + 'static,
    {
        let mut asking = {
            let mut known = lock(&self.known);
            match known.get(&key) {
                Some(Known::Answered(answer, until)) if Instant::now() < *until => return Some(answer.clone()),
                Some(Known::Asking(receiver)) if receiver.has_changed().is_ok() => receiver.clone(),
                _ => {
                    let (sender, receiver) = watch::channel(None);
                    known.insert(key.clone(), Known::Asking(receiver.clone()));
                    let (flights, question) = (Arc::clone(self), question());
                    runtime.spawn(async move {
                        let (answer, life) = question.await;
                        flights.remember(key, answer.clone(), life);
                        // Nobody may be waiting any more.
                        let _ = sender.send(Some(answer));
                    });
                    receiver
                }
            }
        };
        asking.wait_for(Option::is_some).await.ok().and_then(|answer| answer.clone())
    }

    fn remember(&self, key: K, answer: V, life: Duration) {
        let now = Instant::now();
        let mut known = lock(&self.known);
        known.remove(&key);
        if known.len() >= self.known_max {
            known.retain(|_, known| known.counts(now));
        }
        if known.len() < self.known_max {
            known.insert(key, Known::Answered(answer, now + life));
        }
    }
}
