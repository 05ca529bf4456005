//! What the edge derives once from each snapshot: routes, upstream targets, the groups rules mention. Workers share it;
//! a request holds one view from its first check to its record.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwapOption;
use feed::{Current, Expose, Issuer, Service, Snapshot};
use net::Connection;
use net::upstream::{
    Addresses, ClientIdentity, Fleets, HealthCheck, Outliers, Preface, Retries, Status, Target, TargetSettings,
    UpstreamTls,
};
use trust::path::{NormalPath, PathError, Segment, Tolerance};
use wire::proxy_protocol;
use wire::websocket::Origin;

use crate::forwarded::TrustedProxies;
use crate::metrics::{Metrics, NO_SERVICE, ServiceStats};

/// One service of a snapshot with what is derived from it.
pub struct Served {
    pub service: Arc<Service>,
    /// `Err` says why nothing can be forwarded.
    pub target: Result<Arc<Target>, String>,
    pub stats: ServiceStats,
    /// Of pages that may open WebSockets besides its own.
    pub(crate) websocket_origins: Vec<Origin>,
}

/// A snapshot, ready for requests.
pub struct View {
    pub snapshot: Arc<Snapshot>,
    pub no_service: ServiceStats,
    /// Groups that some loaded rule mentions: the only ones that go into tokens and records.
    pub groups: BTreeSet<Arc<str>>,
    /// `None`: nobody speaks for another.
    pub trusted_proxies: Option<Arc<TrustedProxies>>,
    served: Vec<Arc<Served>>,
    hosts: HashMap<String, Routes>,
    any_host: Routes,
}

/// The routes of one host, most specific first, bucketed by their first literal segment.
#[derive(Default)]
struct Routes {
    by_first: HashMap<String, Vec<Route>>,
    wild: Vec<Route>,
    tolerance: Tolerance,
}

struct Route {
    expose: Expose,
    service: usize,
    specificity: Vec<u8>,
}

/// Where a request goes.
pub enum Routed {
    To(Arc<Served>, NormalPath),
    Nowhere,
    PathRefused(PathError),
}

impl View {
    fn new(
        snapshot: Arc<Snapshot>,
        metrics: &Metrics,
        fleets: &Fleets,
        trusted_proxies: Option<Arc<TrustedProxies>>,
    ) -> View {
        let serve = |service| Arc::new(serve(service, metrics, fleets));
        let served: Vec<Arc<Served>> = snapshot.services.iter().map(serve).collect();
        let mut hosts: HashMap<String, Routes> = HashMap::new();
        let mut any_host = Routes::default();
        for (index, service) in snapshot.services.iter().enumerate() {
            for expose in &service.expose {
                let routes =
                    if expose.host == "*" { &mut any_host } else { hosts.entry(expose.host.clone()).or_default() };
                routes.add(expose.clone(), index, service.tolerance);
            }
        }
        hosts.values_mut().chain([&mut any_host]).for_each(Routes::sort);
        let groups = snapshot.services.iter().flat_map(|s| s.policy.groups_mentioned().iter().cloned()).collect();
        View {
            no_service: metrics.service(&NO_SERVICE.into()),
            snapshot,
            groups,
            trusted_proxies,
            served,
            hosts,
            any_host,
        }
    }

    /// Normalises the path once and finds its service. What one service tolerates does not open another: the path is
    /// judged again by the tolerance of the service it leads to.
    pub fn route(&self, host: &str, raw_path: &str) -> Routed {
        let of_host = self.hosts.get(host);
        let first = of_host.map(|routes| self.route_in(routes, raw_path));
        match first {
            None | Some(Routed::Nowhere) => self.route_in(&self.any_host, raw_path),
            Some(found) => found,
        }
    }

    fn route_in(&self, routes: &Routes, raw_path: &str) -> Routed {
        let path = match NormalPath::parse(raw_path, routes.tolerance) {
            Ok(path) => path,
            Err(error) => return Routed::PathRefused(error),
        };
        let Some(served) = routes.find(&path).and_then(|index| self.served.get(index)) else {
            return Routed::Nowhere;
        };
        if served.service.tolerance != routes.tolerance
            && let Err(error) = NormalPath::parse(raw_path, served.service.tolerance)
        {
            return Routed::PathRefused(error);
        }
        Routed::To(Arc::clone(served), path)
    }

    /// The metadata at this host and path (RFC 9728).
    pub fn resource(&self, host: &str, path: &str) -> Option<&feed::Resource> {
        let all = self.served.iter().filter_map(|served| served.service.resource.as_deref());
        all.into_iter().find(|resource| resource.host == host && resource.path == path)
    }

    /// The issuers that answer to this `iss`: more than one where clusters share a name and differ in keys.
    pub fn issuers<'a>(&'a self, iss: &'a str) -> impl Iterator<Item = &'a Issuer> {
        self.snapshot.issuers.iter().filter(move |issuer| issuer.profile.accepts_iss(iss))
    }
}

impl Routes {
    fn add(&mut self, expose: Expose, service: usize, tolerance: Tolerance) {
        let rank = |segment: &Segment| match segment {
            Segment::Literal(_) => 0,
            Segment::Any => 1,
            Segment::Deep => 2,
        };
        let specificity = expose.path.segments().iter().map(rank).collect();
        // Segments, not text: rules and routes must read a path alike, in whatever spelling it came.
        let bucket = match expose.path.segments().first() {
            Some(Segment::Literal(first)) => self.by_first.entry(first.to_string()).or_default(),
            Some(Segment::Any | Segment::Deep) => &mut self.wild,
            None => self.by_first.entry(String::new()).or_default(),
        };
        bucket.push(Route { expose, service, specificity });
        self.tolerance.encoded_slash |= tolerance.encoded_slash;
        self.tolerance.path_parameters |= tolerance.path_parameters;
        self.tolerance.empty_segments |= tolerance.empty_segments;
        self.tolerance.trailing_dots |= tolerance.trailing_dots;
    }

    fn sort(&mut self) {
        let by_specificity = |routes: &mut Vec<Route>| routes.sort_by(|a, b| a.specificity.cmp(&b.specificity));
        self.by_first.values_mut().for_each(by_specificity);
        by_specificity(&mut self.wild);
    }

    fn find(&self, path: &NormalPath) -> Option<usize> {
        let first = path.segments().next().unwrap_or_default();
        let literal = self.by_first.get(first).into_iter().flatten();
        literal.chain(&self.wild).find(|route| route.expose.path.matches(path)).map(|route| route.service)
    }
}

fn serve(service: &Arc<Service>, metrics: &Metrics, fleets: &Fleets) -> Served {
    let target = match &service.upstream {
        Some(upstream) => target(service, upstream, fleets),
        None => Err("this service has no `upstream`: only proxies that ask protect it".to_owned()),
    };
    let origins = service.websocket.iter().flat_map(|websocket| &websocket.origins);
    Served {
        service: Arc::clone(service),
        target,
        stats: metrics.service(&service.name),
        websocket_origins: origins.filter_map(|text| Origin::parse(text).ok()).collect(),
    }
}

fn target(service: &Service, upstream: &feed::Upstream, fleets: &Fleets) -> Result<Arc<Target>, String> {
    let target = fleets.target(target_settings(service, upstream));
    if let Err(why) = &target {
        tracing::error!(service = %service.name, why, "nothing can be forwarded to this service");
    }
    target.map(Arc::new)
}

/// The upstream of a service, in the words of `net`.
fn target_settings(service: &Service, upstream: &feed::Upstream) -> TargetSettings {
    let place = |address: &feed::Address| (address.host.clone(), address.port);
    let addresses = match &upstream.endpoints {
        feed::Endpoints::Listed(addresses) => Addresses::Listed(addresses.iter().map(place).collect()),
        feed::Endpoints::Dns { address: feed::Address { host, port }, refresh } => {
            Addresses::Dns { host: host.clone(), port: *port, refresh: *refresh }
        }
    };
    let identity = |identity: &Arc<feed::ClientIdentity>| {
        let (certificate_pem, key_pem) = (identity.certificate_pem.clone(), identity.key_pem.clone());
        Arc::new(ClientIdentity { certificate_pem, key_pem })
    };
    TargetSettings {
        addresses,
        http2: upstream.protocol.is_http2(),
        tls: upstream.tls.as_ref().map(|tls| UpstreamTls {
            server_name: tls.server_name.clone(),
            spiffe_id: tls.spiffe_id.as_ref().map(|id| id.as_str().to_owned()),
            roots_pem: tls.roots_pem.clone(),
            identity: tls.identity.as_ref().map(identity),
        }),
        connect_timeout: upstream.connect_timeout,
        first_byte_timeout: upstream.first_byte_timeout,
        request_timeout: service.request_timeout,
        idle_timeout: upstream.idle_timeout,
        max_age: upstream.max_age,
        outliers: Outliers {
            failures: upstream.outliers.failures,
            base: upstream.outliers.base,
            longest: upstream.outliers.longest,
            ceiling_percent: upstream.outliers.ceiling_percent,
            slow_start: upstream.outliers.slow_start,
        },
        health: upstream.health.as_ref().map(|health| HealthCheck {
            path: health.path.clone(),
            interval: health.interval,
            timeout: health.timeout,
            healthy_after: health.healthy_after,
            unhealthy_after: health.unhealthy_after,
            expect: health.expect.clone(),
        }),
        retries: upstream.retries.as_ref().map(|retries| {
            Box::new(Retries {
                reset: retries.reset,
                connect: retries.connect,
                statuses: retries.statuses.clone(),
                attempts: retries.attempts,
                budget_percent: retries.budget_percent,
                per_try_timeout: retries.per_try_timeout,
            })
        }),
        own_preface: upstream.proxy_protocol.map(|version| proxy_protocol::encode_local(version_of(version))),
    }
}

/// What the upstream's connection for this client begins with, if the upstream wants to know. A client that only its proxy
/// told of has no port.
pub(crate) fn preface(service: &Service, client: IpAddr, connection: &Connection) -> Option<Preface> {
    let version = version_of(service.upstream.as_ref()?.proxy_protocol?);
    let remote = connection.remote;
    let port = if remote.ip().to_canonical() == client { remote.port() } else { 0 };
    Some(Preface(proxy_protocol::encode(version, SocketAddr::new(client, port), connection.local)))
}

fn version_of(version: feed::ProxyProtocol) -> proxy_protocol::Version {
    match version {
        feed::ProxyProtocol::V1 => proxy_protocol::Version::V1,
        feed::ProxyProtocol::V2 => proxy_protocol::Version::V2,
    }
}

/// The current view, shared by all workers, derived anew when the epoch grows.
pub struct Views {
    current: Current,
    metrics: Metrics,
    trusted_proxies: ArcSwapOption<TrustedProxies>,
    fleets: Fleets,
    derived: ArcSwapOption<View>,
    deriving: Mutex<()>,
}

impl Views {
    pub fn new(current: Current, metrics: Metrics) -> Views {
        Views {
            current,
            metrics,
            fleets: Fleets::new(),
            trusted_proxies: ArcSwapOption::empty(),
            derived: ArcSwapOption::empty(),
            deriving: Mutex::new(()),
        }
    }

    /// Counts from the next snapshot on.
    pub fn trust_proxies(&self, proxies: Option<TrustedProxies>) {
        self.trusted_proxies.store(proxies.map(Arc::new));
    }

    /// `None` before the first snapshot: the data plane is not ready.
    pub fn now(&self) -> Option<Arc<View>> {
        let snapshot = self.current.peek();
        let epoch = snapshot.as_ref()?.epoch;
        match self.derived.load_full() {
            Some(view) if view.snapshot.epoch == epoch => Some(view),
            _ => self.derive(),
        }
    }

    /// From now on no upstream is checked and no upstream's name looked up: what is known of them stays.
    pub fn stop_watching_upstreams(&self) {
        self.fleets.stop();
    }

    /// The services whose upstreams have something to tell, and what.
    pub fn upstreams(&self) -> Vec<(Arc<str>, Status)> {
        let view = self.derived.load();
        let served = view.iter().flat_map(|view| &view.served);
        let status =
            |served: &Arc<Served>| Some((Arc::clone(&served.service.name), served.target.as_ref().ok()?.status()?));
        served.filter_map(status).collect()
    }

    /// The epoch in force, for whoever was judged by one and asks whether it still is.
    pub fn epoch(&self) -> Option<u64> {
        self.current.peek().as_ref().map(|snapshot| snapshot.epoch)
    }

    fn derive(&self) -> Option<Arc<View>> {
        let _one = self.deriving.lock().unwrap_or_else(PoisonError::into_inner);
        let snapshot = self.current.load()?;
        if let Some(view) = self.derived.load_full().filter(|view| view.snapshot.epoch >= snapshot.epoch) {
            return Some(view);
        }
        self.metrics.epoch.set(i64::try_from(snapshot.epoch).unwrap_or(i64::MAX));
        let trusted = self.trusted_proxies.load_full();
        let view = Arc::new(View::new(snapshot, &self.metrics, &self.fleets, trusted));
        self.derived.store(Some(Arc::clone(&view)));
        Some(view)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use trust::path::Pattern;

    fn routes(patterns: &[&str]) -> Routes {
        let mut routes = Routes::default();
        for (service, text) in patterns.iter().enumerate() {
            let expose = Expose { host: "*".into(), path: Pattern::parse(text).unwrap() };
            routes.add(expose, service, Tolerance::default());
        }
        routes.sort();
        routes
    }

    fn check(routes: &Routes, path: &str, expected: Option<usize>) {
        let path = NormalPath::parse(path, Tolerance::default()).unwrap();
        assert_eq!(routes.find(&path), expected, "{}", path.as_str());
        let matching = |route: &&Route| route.expose.path.matches(&path);
        let mut all: Vec<&Route> = routes.by_first.values().flatten().chain(&routes.wild).filter(matching).collect();
        all.sort_by(|a, b| a.specificity.cmp(&b.specificity));
        assert_eq!(all.first().map(|route| route.service), expected, "as a scan of all routes finds it");
    }

    #[test]
    fn a5_no_spelling_of_a_path_leads_past_its_route() {
        let routes = routes(&["/**", "/@admin/**", "/orders/*", "/orders/new", "/orders/**", "/", "/a:b/x"]);
        check(&routes, "/@admin/x", Some(1));
        check(&routes, "/%40admin/x", Some(1));
        check(&routes, "/%40admin", Some(1));
        check(&routes, "/a%3Ab/x", Some(6));
        check(&routes, "/orders/new", Some(3));
        check(&routes, "/orders/42", Some(2));
        check(&routes, "/orders/42/items", Some(4));
        check(&routes, "/orders", Some(4));
        check(&routes, "/", Some(5));
        check(&routes, "/elsewhere", Some(0));
    }
}
