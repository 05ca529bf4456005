//! The control plane: it keeps the keys of issuers and publishes snapshots to the data plane.
//!
//! It runs on one thread of its own and never on the path of a request: a data plane reads [`feed::Current`] and asks
//! through [`feed::KeyDemand`] and [`feed::Introspect`]. It never names the data plane.

mod board;
mod client_auth;
pub mod examine;
mod flights;
mod graph;
mod introspection;
mod issuer;
mod kept;
mod keys;
mod source;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use net::client::Get;
use tokio::sync::oneshot;
use trust::keys::DOCUMENT_BYTES_MAX;

pub use issuer::{IssuerReport, Misses};
pub use keys::{KeyReport, Keys};

/// What the operator may set.
#[derive(Clone, Default)]
pub struct Options {
    /// Folder for what must outlive a restart: the last good keys of every issuer. `None` keeps nothing.
    pub state_dir: Option<PathBuf>,
    /// Roots to trust besides the platform's, PEM, for issuers behind a private CA.
    pub roots_pem: Option<Arc<[u8]>>,
    /// Limits of the key engines.
    pub limits: trust::keys::Limits,
    pub deadlines: Deadlines,
}

impl Options {
    /// A fetch within these deadlines.
    pub(crate) fn get<'a>(&'a self, url: &'a str) -> Get<'a> {
        Get {
            url,
            etag: None,
            bytes_max: DOCUMENT_BYTES_MAX,
            connect_timeout: self.deadlines.connect,
            total_timeout: self.deadlines.total,
            roots_pem: self.roots_pem.as_deref(),
            public_addresses_only: false,
        }
    }

    /// A fetch that somebody waits for: all of it within `patience`.
    pub(crate) fn get_within<'a>(&'a self, patience: Duration, bytes_max: usize, url: &'a str) -> Get<'a> {
        let connect_timeout = patience.min(self.deadlines.connect);
        Get { bytes_max, connect_timeout, total_timeout: patience, ..self.get(url) }
    }
}

/// How long one fetch may take, and how long a discovery document is believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deadlines {
    pub connect: Duration,
    /// From the start to the last byte, for the discovery document and for the keys each.
    pub total: Duration,
    /// How often the discovery document is read again while all is well.
    pub rediscover: Duration,
}

impl Default for Deadlines {
    fn default() -> Deadlines {
        Deadlines {
            connect: Duration::from_secs(3),
            total: Duration::from_secs(8),
            rediscover: Duration::from_secs(3600),
        }
    }
}

/// How long a stop waits for a file that is being written.
const STOP_PATIENCE: Duration = Duration::from_secs(1);

/// The running control plane. Dropping it stops it.
pub struct Control {
    keys: Arc<Keys>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Control {
    /// Publishes the first snapshot (with the keys kept from before a restart, if any), then fetches in the background. An
    /// issuer that cannot be reached delays nothing.
    pub fn start(desired: feed::Desired, current: feed::Current, options: Options) -> std::io::Result<Control> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let keys = Arc::new(Keys::new(current, options, runtime.handle().clone()));
        keys.update(desired);
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new().name("control".into()).spawn(move || {
            // Ends when the sender is dropped; the tasks of the issuers run inside.
            let _: Result<(), oneshot::error::RecvError> = runtime.block_on(stopped);
            runtime.shutdown_timeout(STOP_PATIENCE);
        })?;
        Ok(Control { keys, stop: Some(stop), thread: Some(thread) })
    }

    /// Takes over what the operator wants now. Issuers whose keys come from the same place keep them. Returns the epoch of
    /// the snapshot, which is published when this returns.
    pub fn update(&self, desired: feed::Desired) -> u64 {
        self.keys.update(desired)
    }

    /// The handle for data planes (as [`feed::KeyDemand`]), metrics and the admin address.
    pub fn keys(&self) -> Arc<Keys> {
        Arc::clone(&self.keys)
    }

    /// The handle for data planes to ask issuers about tokens.
    pub fn introspection(&self) -> Arc<dyn feed::Introspect> {
        Arc::clone(&self.keys) as Arc<dyn feed::Introspect>
    }

    /// The handle for data planes to ask for groups that tokens leave out.
    pub fn groups(&self) -> Arc<dyn feed::Groups> {
        Arc::clone(&self.keys) as Arc<dyn feed::Groups>
    }

    /// How every issuer's keys stand.
    pub fn key_report(&self) -> KeyReport {
        self.keys.key_report()
    }

    /// Stops all fetching and waits for the thread's end. The last snapshot stays.
    pub fn stop(mut self) {
        self.stop_now();
    }

    fn stop_now(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the control thread ended by a panic");
        }
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.stop_now();
    }
}
