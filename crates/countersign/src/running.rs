//! One process that serves: from loaded files to listening sockets, reload without a failed request, drain.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use arc_swap::ArcSwap;
use control::Control;
use feed::Current;
use net::settings::{Limits, ServerSettings, Timeouts};
use prometheus_client::registry::Registry;
use proxy::access_log::{self, AccessLog};
use proxy::admin::Admin;
use proxy::audit::{Audit, AuditSettings, Fsync};
use proxy::authz::Authz;
use proxy::clock::UnixMs;
use proxy::edge::Edge;
use proxy::judge::{Proofs, Shared};
use proxy::metrics::Metrics;
use proxy::minter::Minter;
use proxy::otlp::{self, Otlp};
use proxy::token_endpoint::{InForce, TokenEndpoint};
use proxy::upstreams::Upstreams;
use proxy::view::Views;

use crate::config::{self, Loaded};
use crate::telemetry;

/// Path of the edge under the trust domain.
const EDGE_PATH: &str = "/edge";
const ADMIN_DRAIN: Duration = Duration::from_millis(200);

/// Everything that runs in this process.
pub struct Running {
    control: Control,
    edge: Option<net::Server>,
    authz: Option<net::Server>,
    token_endpoint: Option<(net::Server, InForce)>,
    admin: net::Server,
    shared: Arc<Shared>,
    access_log: Option<AccessLog>,
    otlp: Option<Otlp>,
    draining: Arc<AtomicBool>,
    drain: Drain,
    started_with: Fixed,
    pub state: PathBuf,
    pub audit_file: PathBuf,
}

/// How long each door may take to close.
#[derive(Clone, Copy)]
struct Drain {
    edge: Duration,
    authz: Duration,
    token_endpoint: Duration,
}

impl Drain {
    fn of(loaded: &Loaded) -> Drain {
        Drain {
            edge: loaded.edge.as_ref().map_or(Duration::ZERO, |edge| edge.drain),
            authz: loaded.authz.as_ref().map_or(Duration::ZERO, |authz| authz.drain),
            token_endpoint: loaded.token_endpoint.as_ref().map_or(Duration::ZERO, |exchange| exchange.drain),
        }
    }
}

/// Settings that a reload cannot change, as they were at the start.
struct Fixed {
    trust_domain: Arc<str>,
    edge: Option<Door>,
    proxy_protocol: Vec<wire::network::Network>,
    authz: Option<(Door, Vec<PathBuf>, proxy::authz::Settings)>,
    token_endpoint: Option<Door>,
    admin: SocketAddr,
    audit: config::AuditSettings,
    access_log: Option<access_log::Settings>,
    telemetry: Option<Arc<otlp::Settings>>,
    log: config::LogSettings,
}

impl Fixed {
    fn of(loaded: &Loaded) -> Fixed {
        Fixed {
            trust_domain: Arc::clone(&loaded.desired.trust_domain),
            proxy_protocol: loaded.edge.as_ref().map(|edge| edge.proxy_protocol.clone()).unwrap_or_default(),
            edge: loaded.edge.as_ref().map(|edge| Door::of(&edge.server)),
            authz: loaded
                .authz
                .as_ref()
                .map(|authz| (Door::of(&authz.server), authz.sockets.clone(), authz.asked.clone())),
            token_endpoint: loaded.token_endpoint.as_ref().map(|door| Door::of(&door.server)),
            admin: loaded.admin.listen,
            audit: loaded.audit.clone(),
            access_log: loaded.access_log.clone(),
            telemetry: loaded.telemetry.clone(),
            log: loaded.log,
        }
    }

    /// The keys whose new value has to wait for the next start.
    fn waiting(&self, now: &Fixed) -> Vec<&'static str> {
        let mut waiting = match (&self.edge, &now.edge) {
            (Some(old), Some(new)) => old.waiting(new),
            (None, None) => Vec::new(),
            _ => vec!["edge"],
        };
        let audit = |settings: &config::AuditSettings| {
            (settings.file.clone(), settings.fsync, settings.rotate_bytes, settings.rotate_keep)
        };
        let differ = [
            ("edge.proxy_protocol", self.proxy_protocol != now.proxy_protocol),
            ("authz", self.authz != now.authz),
            ("token_endpoint (all but tls, callers and scopes)", self.token_endpoint != now.token_endpoint),
            ("admin.listen", self.admin != now.admin),
            ("audit (all but on_failure)", audit(&self.audit) != audit(&now.audit)),
            ("access_log", self.access_log != now.access_log),
            ("telemetry", telemetry_differs(self.telemetry.as_deref(), now.telemetry.as_deref())),
            ("log", self.log != now.log),
        ];
        waiting.extend(differ.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key));
        waiting
    }
}

fn telemetry_differs(old: Option<&otlp::Settings>, new: Option<&otlp::Settings>) -> bool {
    match (old, new) {
        (Some(old), Some(new)) => !old.is_same(new),
        (old, new) => old.is_some() != new.is_some(),
    }
}

/// A listener as a restart would see it.
#[derive(PartialEq, Eq)]
struct Door {
    listen: Vec<SocketAddr>,
    limits: Limits,
    timeouts: Timeouts,
    workers: usize,
    /// Whether there is a certificate; which one may change.
    tls: bool,
}

impl Door {
    fn of(server: &ServerSettings) -> Door {
        let ServerSettings { listen, tls, limits, timeouts, workers, .. } = server.clone();
        Door { listen, limits, timeouts, workers, tls: tls.is_some() }
    }

    fn waiting(&self, new: &Door) -> Vec<&'static str> {
        let differ = [
            ("edge.listen", self.listen != new.listen),
            ("edge.workers", self.workers != new.workers),
            ("edge.limits", self.limits != new.limits),
            ("edge.timeouts", self.timeouts != new.timeouts),
            ("edge.tls (on or off)", self.tls != new.tls),
        ];
        differ.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key).collect()
    }
}

impl Running {
    /// Starts control, audit, edge, authz, token endpoint and admin. A listener that cannot be opened ends the start; an issuer that is down
    /// does not.
    pub fn start(mut loaded: Loaded) -> anyhow::Result<Running> {
        let current = Current::new();
        let spiffe_id = format!("spiffe://{}{EDGE_PATH}", loaded.desired.trust_domain);
        let minter = Minter::new(&spiffe_id, UnixMs::now().seconds())?;
        crate::operator::make_private(&loaded.state)?;
        let (started_with, drain) = (Fixed::of(&loaded), Drain::of(&loaded));
        let collect = loaded.access_log.as_ref().map(|log| access_log::Collect { query: log.query });
        let access_log = loaded.access_log.map(AccessLog::open).transpose()?;
        let traces = loaded.telemetry.as_ref().and_then(|telemetry| telemetry.traces.clone());
        let otlp = loaded.telemetry.map(Otlp::new);
        let sinks = access_log.iter().map(AccessLog::sink).chain(otlp.iter().filter_map(Otlp::sink)).collect();
        let audit = Audit::open_for(audit_settings(&loaded.audit), sinks)?;
        let options = control::Options { state_dir: Some(loaded.state.clone()), ..control::Options::default() };
        let control = Control::start(loaded.desired, current.clone(), options).context("control cannot start")?;
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        telemetry::register(&mut registry, control.keys(), audit.clone(), access_log.clone(), otlp.clone());
        let shared = Arc::new(Shared {
            views: Views::new(current.clone(), metrics.clone()),
            metrics,
            audit,
            access_log: collect,
            traces,
            refuse_unrecorded: AtomicBool::new(loaded.audit.on_failure == config::OnFailure::Refuse),
            minter: Arc::new(minter),
            key_demand: control.keys(),
            introspect: control.introspection(),
            groups: control.groups(),
            proofs: Proofs::new()?,
        });
        shared.views.trust_proxies(loaded.edge.as_mut().and_then(|edge| edge.trusted_proxies.take()));
        registry.register_collector(Box::new(Upstreams(Arc::clone(&shared))));
        // Upstreams are watched from now on, and not from the first request.
        drop(shared.views.now());
        let draining = Arc::new(AtomicBool::new(false));
        let edge = loaded.edge.map(|edge| start_edge(edge.server, &shared)).transpose()?;
        let authz = loaded.authz.map(|authz| start_authz(authz, &shared)).transpose()?;
        let token_endpoint = loaded.token_endpoint.map(|door| start_token_endpoint(door, &shared)).transpose()?;
        let registry = Arc::new(registry);
        otlp.as_ref().map(|otlp| otlp.start(Arc::clone(&registry))).transpose()?;
        let (of_admin, is_draining, of_minter) = (current, Arc::clone(&draining), Arc::clone(&shared.minter));
        let admin = net::Server::start(admin_settings(loaded.admin.listen), move |_worker| Admin {
            registry: Arc::clone(&registry),
            current: of_admin.clone(),
            draining: Arc::clone(&is_draining),
            minter: Arc::clone(&of_minter),
        })?;
        Ok(Running {
            control,
            edge,
            authz,
            token_endpoint,
            admin,
            shared,
            access_log,
            otlp,
            draining,
            drain,
            started_with,
            state: loaded.state,
            audit_file: loaded.audit.file,
        })
    }

    pub fn edge_addresses(&self) -> Vec<SocketAddr> {
        self.edge.as_ref().map(net::Server::addresses).unwrap_or_default()
    }

    /// Addresses, and `unix:` with the paths of sockets.
    pub fn authz_doors(&self) -> Vec<String> {
        let Some(server) = &self.authz else { return Vec::new() };
        let sockets = server.sockets().map(|path| format!("unix:{}", path.display()));
        server.addresses().iter().map(ToString::to_string).chain(sockets).collect()
    }

    pub fn token_endpoint_addresses(&self) -> Vec<SocketAddr> {
        self.token_endpoint.as_ref().map(|(server, _)| server.addresses()).unwrap_or_default()
    }

    pub fn admin_addresses(&self) -> Vec<SocketAddr> {
        self.admin.addresses()
    }

    pub fn minter(&self) -> Arc<Minter> {
        Arc::clone(&self.shared.minter)
    }

    pub fn audit(&self) -> Audit {
        self.shared.audit.clone()
    }

    pub fn keys(&self) -> Arc<control::Keys> {
        self.control.keys()
    }

    /// Takes over newly loaded files. What cannot change while running is said, and everything else applied.
    pub fn apply(&mut self, mut loaded: Loaded) {
        let asked = Fixed::of(&loaded);
        if asked.trust_domain != self.started_with.trust_domain {
            tracing::error!(
                "`trust_domain` cannot change while running, so nothing was loaded again: restart, or change it back"
            );
            return;
        }
        let mut waiting = self.started_with.waiting(&asked);
        waiting.extend((loaded.state != self.state).then_some("state"));
        if !waiting.is_empty() {
            tracing::warn!(keys = waiting.join(", "), "these settings changed and count at the next start only");
        }
        replace_tls(self.edge.as_ref(), loaded.edge.as_ref().map(|edge| &edge.server));
        replace_tls(self.authz.as_ref(), loaded.authz.as_ref().map(|authz| &authz.server));
        if let (Some((server, in_force)), Some(door)) = (&self.token_endpoint, &loaded.token_endpoint) {
            in_force.store(Arc::new(door.asked.clone()));
            replace_tls(Some(server), Some(&door.server));
        }
        self.drain = Drain::of(&loaded);
        let refuse = loaded.audit.on_failure == config::OnFailure::Refuse;
        self.shared.refuse_unrecorded.store(refuse, Ordering::Relaxed);
        let (services, issuers) = (loaded.desired.services.len(), loaded.desired.issuers.len());
        self.shared.views.trust_proxies(loaded.edge.as_mut().and_then(|edge| edge.trusted_proxies.take()));
        let epoch = self.control.update(loaded.desired);
        // Upstreams that are gone are watched no longer, and new ones at once.
        drop(self.shared.views.now());
        tracing::info!(epoch, services, issuers, "the configuration was loaded again");
    }

    /// Once a minute: new minter keys when due.
    pub fn tick(&self) {
        match self.shared.minter.rotate_if_due(UnixMs::now().seconds()) {
            Ok(true) => tracing::info!(
                "the edge signs Txn-Tokens with a new key; the old one stays published until its tokens ended"
            ),
            Ok(false) => {}
            Err(error) => tracing::error!(%error, "the edge keeps its old signing key"),
        }
    }

    /// After an external log rotation.
    pub fn reopen_logs(&self) {
        self.shared.audit.reopen();
        self.access_log.iter().for_each(AccessLog::reopen);
    }

    /// Not ready from now on; stops accepting, finishes what is in flight, cuts the rest after the drain time, writes the
    /// last records. Blocks.
    pub fn drain(self) {
        self.draining.store(true, Ordering::Relaxed);
        self.shared.views.stop_watching_upstreams();
        // Side by side: what one door still has in flight must not keep the other accepting.
        let token_endpoint = self.token_endpoint.map(|(server, _)| server);
        let others = [(self.authz, self.drain.authz), (token_endpoint, self.drain.token_endpoint)];
        let others: Vec<_> = others
            .into_iter()
            .filter_map(|(door, grace)| door.map(|door| std::thread::spawn(move || drain_door(door, grace))))
            .collect();
        if let Some(edge) = self.edge {
            drain_door(edge, self.drain.edge);
        }
        for other in others {
            // A panic of that thread was logged by it, and its server is cut all the same.
            let _drained = other.join();
        }
        self.admin.drain(ADMIN_DRAIN);
        self.control.stop();
        self.shared.audit.stop();
        self.access_log.iter().for_each(AccessLog::stop);
        self.otlp.iter().for_each(Otlp::stop);
    }
}

fn start_edge(settings: ServerSettings, shared: &Arc<Shared>) -> Result<net::Server, net::server::StartError> {
    let shared = Arc::clone(shared);
    net::Server::start(settings, move |_worker| Edge::new(Arc::clone(&shared)))
}

fn start_authz(settings: config::AuthzSettings, shared: &Arc<Shared>) -> Result<net::Server, net::server::StartError> {
    let (shared, asked) = (Arc::clone(shared), Arc::new(settings.asked));
    net::Server::start_with(settings.server, &settings.sockets, move |_worker| {
        Authz::new(Arc::clone(&shared), Arc::clone(&asked))
    })
}

fn start_token_endpoint(
    settings: config::TokenEndpointSettings,
    shared: &Arc<Shared>,
) -> Result<(net::Server, InForce), net::server::StartError> {
    let in_force: InForce = Arc::new(ArcSwap::from_pointee(settings.asked));
    let (shared, of_workers) = (Arc::clone(shared), Arc::clone(&in_force));
    let server = net::Server::start(settings.server, move |_worker| {
        TokenEndpoint::new(Arc::clone(&shared), Arc::clone(&of_workers))
    })?;
    Ok((server, in_force))
}

/// A listener that runs with TLS gets the certificate of the new files.
fn replace_tls(running: Option<&net::Server>, asked: Option<&ServerSettings>) {
    let identity = asked.and_then(|server| server.tls.clone());
    if let (Some(server), Some(identity)) = (running, identity)
        && server.has_tls()
        && let Err(error) = server.replace_tls(identity)
    {
        tracing::error!(%error, "the new certificate is not taken; the old one goes on");
    }
}

fn drain_door(server: net::Server, grace: Duration) {
    let cut = server.drain(grace);
    if cut > 0 {
        tracing::warn!(
            cut,
            drain_ms = grace.as_millis(),
            "connections were cut: they did not end within the drain time"
        );
    }
}

fn audit_settings(settings: &config::AuditSettings) -> AuditSettings {
    AuditSettings {
        file: settings.file.clone(),
        fsync: match settings.fsync {
            config::Fsync::Batch => Fsync::Batch,
            config::Fsync::Every(time) => Fsync::Every(time),
            config::Fsync::Never => Fsync::Never,
        },
        rotate_bytes: settings.rotate_bytes,
        keep: settings.rotate_keep,
    }
}

fn admin_settings(listen: SocketAddr) -> ServerSettings {
    ServerSettings {
        listen: vec![listen],
        tls: None,
        preamble: None,
        limits: Limits { connections_max: 256, ..Limits::default() },
        timeouts: Timeouts::default(),
        workers: 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Memory;
    use std::path::Path;

    const SERVICE: &str = "service: a\nupstream: http://127.0.0.1:1\n";

    fn fixed(edge: &str, rest: &str) -> Fixed {
        let platform = format!(
            "version: 1\ntrust_domain: a.example\nservices: s/*.yaml\nedge: {{ listen: 127.0.0.1:0{edge} }}\n{rest}"
        );
        let files = Memory::default().with("c.yaml", &platform, 0o640).with("s/a.yaml", SERVICE, 0o640);
        Fixed::of(&config::load(Path::new("c.yaml"), &files).unwrap_or_else(|problems| panic!("{problems}")))
    }

    #[test]
    fn what_a_reload_cannot_change_is_named() {
        let start = fixed("", "");
        let check = |edge: &str, rest: &str, expected: &[&str]| {
            assert_eq!(start.waiting(&fixed(edge, rest)), expected, "{edge} {rest}");
        };
        check("", "", &[]);
        check(", timeouts: { drain: 5s }", "", &[]);
        check("", "audit: { on_failure: refuse }\n", &[]);
        check(", trusted_proxies: { from: 10.0.0.0/8 }", "", &[]);
        check(", proxy_protocol: 10.0.0.0/8", "", &["edge.proxy_protocol"]);
        check(", limits: { streams: 64 }", "", &["edge.limits"]);
        check(
            ", timeouts: { idle: 5s }, workers: 3",
            "log: { level: debug }\n",
            &["edge.workers", "edge.timeouts", "log"],
        );
        check(
            "",
            "admin: { listen: 127.0.0.1:1 }\naudit: { fsync: never }\n",
            &["admin.listen", "audit (all but on_failure)"],
        );
        check("", "authz: { listen: 127.0.0.1:0, from: nginx }\n", &["authz"]);
        check("", "access_log: { file: a.log }\n", &["access_log"]);
        check("", "telemetry: { endpoint: \"http://127.0.0.1:4318\", metrics: {} }\n", &["telemetry"]);
    }

    #[test]
    fn nothing_of_the_authz_role_but_its_certificate_changes_while_running() {
        let start = fixed("", "authz: { listen: 127.0.0.1:0, from: nginx }\n");
        let check = |authz: &str, expected: &[&str]| assert_eq!(start.waiting(&fixed("", authz)), expected, "{authz}");
        check("authz: { listen: 127.0.0.1:0, from: nginx, timeouts: { drain: 5s } }\n", &[]);
        check("authz: { listen: 127.0.0.1:0, from: caddy }\n", &["authz"]);
        check("authz: { listen: [127.0.0.1:0, \"unix:/run/cs/a\"], from: nginx }\n", &["authz"]);
        check("authz: { listen: 127.0.0.1:0, from: nginx, callers: [10.0.0.7] }\n", &["authz"]);
        check("authz: { listen: 127.0.0.1:0, from: nginx, workers: 3 }\n", &["authz"]);
        check("", &["authz"]);
    }
    #[test]
    fn who_may_ask_for_tokens_changes_while_running_and_the_door_does_not() {
        let (first, second) = (testkit::tls::Ca::new(), testkit::tls::Ca::new());
        let of = |ca: &testkit::tls::Ca, rest: &str| {
            let own = ca.svid(&["spiffe://a.example/edge"], &["localhost"]);
            let platform = format!(
                "version: 1\ntrust_domain: a.example\nservices: s/*.yaml\ntoken_endpoint: {{ listen: 127.0.0.1:0, callers: /g, \
                 tls: {{ certificate: t.pem, key: t.key, client_ca: ca.pem }}{rest} }}\n"
            );
            let files = Memory::default()
                .with("c.yaml", &platform, 0o640)
                .with("s/a.yaml", SERVICE, 0o640)
                .with("t.pem", own.certificate_pem, 0o640)
                .with("t.key", own.key_pem, 0o600)
                .with("ca.pem", &ca.certificate_pem, 0o640);
            Fixed::of(&config::load(Path::new("c.yaml"), &files).unwrap_or_else(|problems| panic!("{problems}")))
        };
        let start = of(&first, "");
        let check = |ca, rest: &str, expected: &[&str]| assert_eq!(start.waiting(&of(ca, rest)), expected, "{rest}");
        check(&second, "", &[]);
        check(&first, ", timeouts: { drain: 5s }", &[]);
        check(&first, ", scopes: { api: a.read }", &[]);
        let door = "token_endpoint (all but tls, callers and scopes)";
        check(&first, ", workers: 3", &[door]);
        assert_eq!(start.waiting(&fixed("", "")), ["edge", door]);
    }
}
