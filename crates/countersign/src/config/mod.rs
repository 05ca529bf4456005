//! The two kinds of configuration file, from disk to what runs: read, parse, decode, build, check. Every problem of every
//! file is found in one run, each at its place. Nothing here starts, listens or changes anything.
pub mod authz;
pub mod browsers;
mod client_auth;
pub mod decode;
pub mod files;
pub mod fleet;
pub mod issuer;
pub mod load;
pub mod numbers;
pub mod platform;
pub mod problem;
pub mod proxies;
pub mod rules;
pub mod schema;
pub mod service;
pub mod settings;
pub mod telemetry;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_telemetry;
pub mod token_endpoint;
pub mod token_kinds;
pub mod units;
pub mod upstream;
pub mod wide;
pub mod yaml;

pub use files::{Disk, Files, Memory};
pub use load::{FailingTests, load, load_with};
pub use problem::{Problem, Problems, Severity};

use net::settings::ServerSettings;
use proxy::forwarded::TrustedProxies;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use trust::policy::ServiceSource;
use wire::network::Network;

/// Everything the files say, checked and ready to run.
pub struct Loaded {
    pub desired: feed::Desired,
    /// Absent where only proxies ask.
    pub edge: Option<EdgeSettings>,
    /// Where proxies ask; absent where nobody does.
    pub authz: Option<AuthzSettings>,
    /// Where workloads ask for tokens; absent where none does.
    pub token_endpoint: Option<TokenEndpointSettings>,
    pub admin: AdminSettings,
    pub audit: AuditSettings,
    pub access_log: Option<proxy::access_log::Settings>,
    pub telemetry: Option<std::sync::Arc<proxy::otlp::Settings>>,
    pub log: LogSettings,
    /// Folder for what survives a restart and for the operator's socket.
    pub state: PathBuf,
    /// The rules as written, in the order of `desired.services`.
    pub sources: Vec<ServiceSource>,
    /// Files that were read and folders that were searched: a change of any means load again.
    pub watched: Vec<PathBuf>,
    /// Problems that did not stop the load.
    pub warnings: Problems,
}

/// The edge: its listeners, and how long it drains.
#[derive(Debug, Clone)]
pub struct EdgeSettings {
    pub server: ServerSettings,
    pub drain: Duration,
    /// Networks that owe a PROXY protocol header; `server` holds what is made of them.
    pub proxy_protocol: Vec<Network>,
    pub trusted_proxies: Option<TrustedProxies>,
}

/// The authz role: its listeners, how it is asked, and how long it drains.
#[derive(Debug, Clone)]
pub struct AuthzSettings {
    pub server: ServerSettings,
    /// Unix-domain sockets, absolute paths.
    pub sockets: Vec<PathBuf>,
    pub asked: proxy::authz::Settings,
    pub drain: Duration,
}

/// The token endpoint: its listeners, who may ask for what, and how long it drains.
#[derive(Debug, Clone)]
pub struct TokenEndpointSettings {
    pub server: ServerSettings,
    pub asked: proxy::token_endpoint::Settings,
    pub drain: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminSettings {
    pub listen: SocketAddr,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditSettings {
    pub file: PathBuf,
    pub fsync: Fsync,
    /// Begin a new file at this size.
    pub rotate_bytes: u64,
    /// Closed files to keep.
    pub rotate_keep: usize,
    pub on_failure: OnFailure,
}

/// When audit records are forced to disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fsync {
    /// After each written batch, before the next.
    Batch,
    Every(Duration),
    Never,
}

/// What becomes of a request that cannot be recorded, for services that are not `strict`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFailure {
    Refuse,
    Count,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogSettings {
    /// `None`: human on a terminal, else JSON.
    pub format: Option<LogFormat>,
    pub level: LogLevel,
}

pub use platform::{LogFormatWord as LogFormat, LogLevelWord as LogLevel};

impl LogLevel {
    /// The word as filters take it.
    pub const fn name(self) -> &'static str {
        match self {
            LogLevel::Error => "error",
            LogLevel::Warn => "warn",
            LogLevel::Info => "info",
            LogLevel::Debug => "debug",
            LogLevel::Trace => "trace",
        }
    }
}
