//! From the decoded platform file to what the process needs: listeners, limits, audit, log. Issuers are in `issuer`.
use super::TokenEndpointSettings;
use super::authz::authz;
use super::decode::{At, Decoder, OneOrMany};
use super::files::{Files, ReadError};
use super::numbers::{HOUR, KIB, MIB, MINUTE, SECOND, TIB, count, interval, size};
use super::platform::{
    AuditSection, ClientCertificatesWord, EdgeLimits, EdgeSection, EdgeTimeouts, LogSection, OnFailureWord,
    PlatformFile, TlsSection,
};
use super::problem::Span;
use super::proxies;
use super::telemetry;
use super::token_endpoint::token_endpoint;
use super::units;
use super::{AdminSettings, AuditSettings, AuthzSettings, EdgeSettings, Fsync, LogLevel, LogSettings, OnFailure};
use net::settings::{CertificateDemand, Limits, ServerSettings, Timeouts, TlsIdentity};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

const PEM_BYTES_MAX: usize = 1024 * 1024;
const LISTENERS_MAX: usize = 64;
const DEFAULT_ADMIN: &str = "127.0.0.1:9901";
const DEFAULT_STATE: &str = "/var/lib/countersign";

/// What building needs besides the decoded file. `watched` grows by every file that is read.
pub struct Context<'a, 'd> {
    pub files: &'a dyn Files,
    /// Folder of the platform file; relative paths start there.
    pub base: &'a Path,
    pub watched: &'a mut Vec<PathBuf>,
    pub to: Decoder<'d>,
}

impl Context<'_, '_> {
    pub fn path(&self, text: &str) -> PathBuf {
        self.base.join(text)
    }

    /// Reads a file that a setting names; its absence is a problem of that setting.
    pub fn read(&mut self, named: &At<String>, secret: bool) -> Option<Vec<u8>> {
        let path = self.path(&named.value);
        self.watched.push(path.clone());
        let contents = match self.files.read(&path, PEM_BYTES_MAX) {
            Ok(contents) => contents,
            Err(error) => {
                let fix = match error {
                    ReadError::Missing => "create it, or correct the path; it is relative to the platform file",
                    ReadError::Denied => "let the user that runs countersign read it: chown or chmod 640",
                    _ => "name a regular file",
                };
                self.to.report(named.at, format!("`{}` cannot be read: {error}", named.value), fix);
                return None;
            }
        };
        if contents.bytes.len() > PEM_BYTES_MAX {
            self.to.report(named.at, format!("`{}` is larger than 1 MiB", named.value), "name the right file");
            return None;
        }
        if secret && (contents.world_readable() || contents.world_writable()) {
            let what = format!("every user of this machine can read the key file `{}`", named.value);
            self.to.report(named.at, what, format!("chmod 600 {}", path.display()));
        }
        Some(contents.bytes)
    }
}

/// The settings of one process. `None` had a problem that was reported; `Some(None)` was not asked for.
pub struct Process {
    pub edge: Option<Option<EdgeSettings>>,
    pub authz: Option<Option<AuthzSettings>>,
    pub token_endpoint: Option<Option<TokenEndpointSettings>>,
    pub admin: AdminSettings,
    pub audit: AuditSettings,
    pub access_log: Option<proxy::access_log::Settings>,
    pub telemetry: Option<std::sync::Arc<proxy::otlp::Settings>>,
    pub log: LogSettings,
    pub state: PathBuf,
}

/// `at` is where the file begins.
pub fn process(file: &PlatformFile, at: Span, context: &mut Context<'_, '_>) -> Process {
    check_version(file, &mut context.to);
    let state = context.path(file.state.as_ref().map_or(DEFAULT_STATE, |state| &state.value));
    if file.edge.is_none() && file.authz.is_none() && file.token_endpoint.is_none() {
        let fix = "add `edge: { listen: … }` to forward requests, or `authz: { listen: …, from: nginx }` for a proxy that asks";
        context.to.report(at, "neither `edge` nor `authz`: nothing would listen", fix);
    }
    let edge = built(file.edge.as_ref(), |section| edge(section, context));
    let authz = built(file.authz.as_ref(), |section| authz(section, context));
    let domain = file.trust_domain.0.as_ref().map_or("", |named| named.value.as_str());
    let token_endpoint = built(file.token_endpoint.as_ref(), |section| token_endpoint(section, domain, context));
    let edges = addresses(edge.as_ref(), |edge| &edge.server);
    let asked = addresses(authz.as_ref(), |authz| &authz.server);
    let exchange = addresses(token_endpoint.as_ref(), |exchange| &exchange.server);
    if let Some(section) = &file.authz {
        let fix = "give it a port of its own; clients must not reach it";
        apart(section.at, &asked, &[("edge", &edges)], fix, &mut context.to);
    }
    if let Some(section) = &file.token_endpoint {
        let fix = "give it a port of its own; it lets nobody in without a certificate";
        apart(section.at, &exchange, &[("edge", &edges), ("authz role", &asked)], fix, &mut context.to);
    }
    let taken: [(&str, &[SocketAddr]); 3] = [("edge", &edges), ("authz role", &asked), ("token endpoint", &exchange)];
    let admin = admin(file, &taken, context);
    let audit = audit(file.audit.as_ref(), &state, context);
    let access_log = telemetry::access_log(file.access_log.as_ref(), &audit.file, context);
    let telemetry = telemetry::telemetry(file.telemetry.as_ref(), context);
    let log = log(file.log.as_ref());
    Process { edge, authz, token_endpoint, admin, audit, access_log, telemetry, log, state }
}

fn addresses<T>(built: Option<&Option<T>>, server: impl Fn(&T) -> &ServerSettings) -> Vec<SocketAddr> {
    built.into_iter().flatten().flat_map(|door| server(door).listen.iter().copied()).collect()
}

/// Two doors on one address would each get some of the connections.
fn apart(at: Span, own: &[SocketAddr], taken: &[(&str, &[SocketAddr])], fix: &str, to: &mut Decoder<'_>) {
    let is_both = |address: &&SocketAddr, taken: &[SocketAddr]| address.port() != 0 && taken.contains(address);
    for (whose, taken) in taken {
        if let Some(both) = own.iter().find(|address| is_both(address, taken)) {
            to.report(at, format!("`{both}` is the {whose}'s address too"), fix);
        }
    }
}

fn check_version(file: &PlatformFile, to: &mut Decoder<'_>) {
    if let Some(At { value, at }) = &file.version.0
        && *value != 1
    {
        to.report(*at, format!("version {value} is not known to this countersign"), "write `version: 1`");
    }
}

/// A part that is there is built; one that is not is no problem.
fn built<S, T>(section: Option<S>, build: impl FnOnce(S) -> Option<T>) -> Option<Option<T>> {
    match section {
        Some(section) => build(section).map(Some),
        None => Some(None),
    }
}

fn edge(section: &EdgeSection, context: &mut Context<'_, '_>) -> Option<EdgeSettings> {
    let drain = drain(section.timeouts.as_ref(), &mut context.to);
    let listening = Listening {
        listen: section.listen.0.as_ref(),
        tls: section.tls.as_ref(),
        limits: section.limits.as_ref(),
        timeouts: section.timeouts.as_ref(),
        workers: section.workers.as_ref(),
    };
    let proxy_protocol = built(section.proxy_protocol.as_ref(), |list| proxies::networks(list, &mut context.to));
    let trusted_proxies = built(section.trusted_proxies.as_ref(), |from| proxies::trusted(from, &mut context.to));
    let server = server(&listening, context)?;
    // What was asked for and could not be read was reported: without it, this edge is not what was asked for.
    let proxy_protocol = proxy_protocol?.unwrap_or_default();
    let trusted_proxies = trusted_proxies?;
    let preamble = (!proxy_protocol.is_empty()).then(|| proxies::preamble(proxy_protocol.clone()));
    Some(EdgeSettings { server: ServerSettings { preamble, ..server }, drain, proxy_protocol, trusted_proxies })
}

/// What the sections of all listeners have in common.
pub(super) struct Listening<'a> {
    pub(super) listen: Option<&'a OneOrMany<At<String>>>,
    pub(super) tls: Option<&'a TlsSection>,
    pub(super) limits: Option<&'a EdgeLimits>,
    pub(super) timeouts: Option<&'a EdgeTimeouts>,
    pub(super) workers: Option<&'a At<u64>>,
}

pub(super) fn server(section: &Listening<'_>, context: &mut Context<'_, '_>) -> Option<ServerSettings> {
    let limits = limits(section.limits, &mut context.to);
    let timeouts = timeouts(section.timeouts, &mut context.to);
    let cores = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    let workers = count(section.workers, cores, 1..=1024, &mut context.to);
    let tls = built(section.tls, |tls| identity(tls, context));
    let listen = listen(section.listen?, &mut context.to);
    let workers = usize::try_from(workers).unwrap_or(1);
    Some(ServerSettings { listen: listen?, tls: tls?, preamble: None, limits, timeouts, workers })
}

pub(super) fn drain(section: Option<&EdgeTimeouts>, to: &mut Decoder<'_>) -> Duration {
    let drain = section.and_then(|timeouts| timeouts.drain.as_ref());
    interval(drain, 30 * SECOND, Duration::ZERO..=HOUR, to)
}

fn listen(texts: &OneOrMany<At<String>>, to: &mut Decoder<'_>) -> Option<Vec<SocketAddr>> {
    let mut addresses: Vec<SocketAddr> = Vec::new();
    for At { value, at } in &texts.0 {
        match address(value, *at, to) {
            Some(address) if address.port() != 0 && addresses.contains(&address) => {
                to.report(*at, format!("`{value}` is listed twice"), "remove one");
            }
            Some(address) => addresses.push(address),
            None => {}
        }
    }
    if let Some(At { at, .. }) = texts.0.get(LISTENERS_MAX) {
        to.report(*at, format!("more than {LISTENERS_MAX} addresses"), "listen on `0.0.0.0` or `[::]` instead");
    }
    (addresses.len() == texts.0.len()).then_some(addresses)
}

fn address(text: &str, at: Span, to: &mut Decoder<'_>) -> Option<SocketAddr> {
    if let Ok(address) = text.parse() {
        return Some(address);
    }
    let port = text.strip_prefix(':').unwrap_or(text);
    let fix = match text.strip_prefix("localhost:") {
        Some(port) => format!("write `127.0.0.1:{port}`; names are not looked up here"),
        None if port.parse::<u16>().is_ok() => {
            format!("write `0.0.0.0:{port}`, or `127.0.0.1:{port}` for this machine only")
        }
        None => "write ip and port, e.g. `0.0.0.0:443` or `[::]:443`".to_owned(),
    };
    to.report(at, format!("`{text}` is no address"), fix);
    None
}

fn limits(section: Option<&EdgeLimits>, to: &mut Decoder<'_>) -> Limits {
    let default = Limits::default();
    let Some(section) = section else { return default };
    let narrow = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
    Limits {
        header_bytes_max: narrow(size(section.header.as_ref(), default.header_bytes_max as u64, KIB..=MIB, to)),
        header_fields_max: narrow(count(
            section.header_fields.as_ref(),
            default.header_fields_max as u64,
            10..=1000,
            to,
        )),
        connections_max: narrow(count(section.connections.as_ref(), default.connections_max as u64, 1..=1_000_000, to)),
        streams_max: u32::try_from(count(section.streams.as_ref(), u64::from(default.streams_max), 1..=1000, to))
            .unwrap_or(default.streams_max),
    }
}

fn timeouts(section: Option<&EdgeTimeouts>, to: &mut Decoder<'_>) -> Timeouts {
    let default = Timeouts::default();
    let Some(section) = section else { return default };
    Timeouts {
        handshake: interval(section.handshake.as_ref(), default.handshake, SECOND..=2 * MINUTE, to),
        header: interval(section.header.as_ref(), default.header, SECOND..=2 * MINUTE, to),
        idle: interval(section.idle.as_ref(), default.idle, SECOND..=HOUR, to),
        body_stall: interval(section.body_stall.as_ref(), default.body_stall, SECOND..=HOUR, to),
    }
}

/// Reads certificate and key, and checks that they are PEM, and a pair.
pub(super) fn identity(section: &TlsSection, context: &mut Context<'_, '_>) -> Option<TlsIdentity> {
    let certificate = section.certificate.0.as_ref().and_then(|at| context.read(at, false));
    let key = section.key.0.as_ref().and_then(|at| context.read(at, true));
    let client_certificates = client_certificates(section, context)?;
    let identity = TlsIdentity { certificate_pem: certificate?, key_pem: key?, client_certificates };
    for (named, pem, label, due) in [
        (&section.certificate.0, &identity.certificate_pem, "CERTIFICATE", "a certificate"),
        (&section.key.0, &identity.key_pem, "PRIVATE KEY", "a private key"),
    ] {
        let named = named.as_ref()?;
        if !holds_pem(pem, label) {
            let fix = format!("name a PEM file with a `-----BEGIN … {label}-----` block");
            context.to.report(named.at, format!("`{}` holds no PEM block of {due}", named.value), fix);
            return None;
        }
    }
    match identity.check() {
        Ok(()) => Some(identity),
        Err(error) => {
            let at = section.key.0.as_ref().map(|named| named.at).unwrap_or_default();
            let fix = "name the key that was made for this certificate, and the chain with its leaf first";
            context.to.report(at, error.to_string(), fix);
            None
        }
    }
}

/// `None`: a problem was reported.
fn client_certificates(
    section: &TlsSection,
    context: &mut Context<'_, '_>,
) -> Option<Option<net::settings::ClientCertificates>> {
    let demand = match section.client_certificates.as_ref().map(|at| at.value) {
        Some(ClientCertificatesWord::Request) => CertificateDemand::Request,
        Some(ClientCertificatesWord::Require) => CertificateDemand::Require,
        Some(ClientCertificatesWord::Off) | None => {
            if let Some(ca) = &section.client_ca {
                let fix = "write `client_certificates: request` or `require` beside it, or remove it";
                context.to.report(ca.at, "`client_ca`, and clients are not asked for a certificate", fix);
                return None;
            }
            return Some(None);
        }
    };
    let ca_pem = match &section.client_ca {
        None => None,
        Some(named) => Some(certificates(named, context)?),
    };
    Some(Some(net::settings::ClientCertificates { demand, ca_pem, svids_of: None }))
}

/// A PEM file with certificates.
pub(super) fn certificates(named: &At<String>, context: &mut Context<'_, '_>) -> Option<Vec<u8>> {
    let pem = context.read(named, false)?;
    if !holds_pem(&pem, "CERTIFICATE") {
        let fix = "name a PEM file with a `-----BEGIN CERTIFICATE-----` block";
        context.to.report(named.at, format!("`{}` holds no PEM block of a certificate", named.value), fix);
        return None;
    }
    Some(pem)
}

fn holds_pem(pem: &[u8], label: &str) -> bool {
    let text = String::from_utf8_lossy(pem);
    text.lines().any(|line| line.starts_with("-----BEGIN ") && line.trim_end().ends_with(&format!("{label}-----")))
}

fn admin(file: &PlatformFile, taken: &[(&str, &[SocketAddr])], context: &mut Context<'_, '_>) -> AdminSettings {
    let fallback = SocketAddr::from(([127, 0, 0, 1], 9901));
    debug_assert_eq!(DEFAULT_ADMIN.parse(), Ok(fallback));
    let Some(named) = file.admin.as_ref().and_then(|admin| admin.listen.as_ref()) else {
        return AdminSettings { listen: fallback };
    };
    let listen = address(&named.value, named.at, &mut context.to).unwrap_or(fallback);
    let fix = "give it a port of its own; it serves metrics without asking who reads them";
    apart(named.at, &[listen], taken, fix, &mut context.to);
    AdminSettings { listen }
}

fn audit(section: Option<&AuditSection>, state: &Path, context: &mut Context<'_, '_>) -> AuditSettings {
    let empty = AuditSection::default();
    let section = section.unwrap_or(&empty);
    let rotate = section.rotate.clone().unwrap_or_default();
    let file = match &section.file {
        Some(file) => context.path(&file.value),
        None => state.join("audit.ndjson"),
    };
    let keep = count(rotate.keep.as_ref(), 16, 1..=100_000, &mut context.to);
    AuditSettings {
        file,
        fsync: section.fsync.as_ref().map_or(Fsync::Every(SECOND), |at| fsync(at, &mut context.to)),
        rotate_bytes: size(rotate.size.as_ref(), 256 * MIB, MIB..=TIB, &mut context.to),
        rotate_keep: usize::try_from(keep).unwrap_or(usize::MAX),
        on_failure: match section.on_failure.as_ref().map(|at| at.value) {
            Some(OnFailureWord::Refuse) => OnFailure::Refuse,
            Some(OnFailureWord::Count) | None => OnFailure::Count,
        },
    }
}

fn fsync(named: &At<String>, to: &mut Decoder<'_>) -> Fsync {
    let bounds = Duration::from_millis(100)..=MINUTE;
    match (named.value.as_str(), units::duration(&named.value)) {
        ("batch", _) => return Fsync::Batch,
        ("never", _) => return Fsync::Never,
        (_, Some(every)) if bounds.contains(&every) => return Fsync::Every(every),
        _ => {}
    }
    let fix = "write `batch`, `never`, or an interval from 100ms to 1m";
    to.report(named.at, format!("`{}` is no fsync policy", named.value), fix);
    Fsync::Every(SECOND)
}

fn log(section: Option<&LogSection>) -> LogSettings {
    let format = section.and_then(|log| log.format.as_ref()).map(|at| at.value);
    let level = section.and_then(|log| log.level.as_ref()).map_or(LogLevel::Info, |at| at.value);
    LogSettings { format, level }
}
