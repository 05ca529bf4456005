//! What tests need of the outside world: a hostile issuer, an upstream that tells what it saw, a client that sends any
//! bytes, and processes that die with their test. Loopback only, plain threads, nothing shared with the code under test.
//!
//! Everything here panics when it cannot do its work: a kit that fails is a test that fails.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a kit that fails is a test that fails"
)]

pub mod client;
pub mod dpop;
pub mod graph;
mod http1;
pub mod issuer;
pub mod process;
pub mod signing;
pub mod tls;
pub mod upstream;

use std::time::{Duration, Instant};

pub use issuer::{Fault, Issuer, OldKeys};
pub use process::{Process, free_port};
pub use signing::{Kind, SigningKey};
pub use upstream::{Seen, Upstream};

/// Waits until `condition` holds, looking every few milliseconds. Panics with `what` after `limit`.
#[track_caller]
pub fn wait_for(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + limit;
    while !condition() {
        assert!(Instant::now() < end, "waited {limit:?} in vain for: {what}");
        std::thread::sleep(Duration::from_millis(3));
    }
}

/// Like [`wait_for`], for a value.
#[track_caller]
pub fn wait_value<T>(what: &str, limit: Duration, mut value: impl FnMut() -> Option<T>) -> T {
    let mut found = None;
    wait_for(what, limit, || {
        found = value();
        found.is_some()
    });
    found.expect("the condition held")
}

/// Unix seconds now.
pub fn unix_now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock after 1970");
    i64::try_from(since.as_secs()).expect("a clock before the year 292 billion")
}
