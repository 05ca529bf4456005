//! Where an issuer's keys come from, and how to get there: discovery, a JWKS URL, or a file. It never follows a redirect,
//! nor a discovery document that suddenly points to another host.
use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use bytes::Bytes;
use net::client::{Get, Got, get};
use trust::issuer::{Profile, Settings};
use trust::keys::{DOCUMENT_BYTES_MAX, Freshness, Limits};

use crate::Options;
use crate::board::lock;

/// Equal sources have equal keys: a reload that changes anything else of an issuer keeps them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Source {
    place: Place,
    /// What decides whether a discovery document is the issuer's own.
    issuer: Option<String>,
    tenant: Option<String>,
    tenants: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Discovery(String),
    Uri(String),
    File(PathBuf),
}

impl Source {
    pub(crate) fn of(profile: &Profile) -> Source {
        let Settings { jwks_uri, jwks_file, issuer, tenant, tenants, .. } = profile.settings();
        let place = match (jwks_file, jwks_uri) {
            (Some(file), _) => Place::File(file.clone()),
            (None, Some(uri)) => Place::Uri(uri.clone()),
            (None, None) => Place::Discovery(profile.discovery_url()),
        };
        Source { place, issuer: issuer.clone(), tenant: tenant.clone(), tenants: tenants.clone() }
    }

    /// The discovery document's URL, if keys are found by it.
    pub(crate) fn discovery(&self) -> Option<&str> {
        if let Place::Discovery(url) = &self.place { Some(url) } else { None }
    }

    /// The configured place of the keys.
    pub(crate) fn uri(&self) -> Option<&str> {
        if let Place::Uri(url) = &self.place { Some(url) } else { None }
    }

    pub(crate) fn is_file(&self) -> bool {
        matches!(self.place, Place::File(_))
    }

    /// A file is the operator's own word: what is not in it any more is withdrawn at once.
    pub(crate) fn limits(&self, limits: &Limits) -> Limits {
        if self.is_file() { Limits { retire_grace_ms: 0, ..limits.clone() } } else { limits.clone() }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Discovery(url) | Place::Uri(url) => f.write_str(url),
            Place::File(path) => write!(f, "{}", path.display()),
        }
    }
}

/// How one fetch ended.
pub(crate) enum Fetched {
    Http { status: u16, freshness: Freshness, etag: Option<String>, body: Bytes },
    Failed(String),
}

impl Fetched {
    fn is_good(&self) -> bool {
        matches!(self, Fetched::Http { status: 200 | 304, .. })
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Located {
    jwks_uri: String,
    at: Instant,
    /// Good keys came from there; before that, discovery may change its mind.
    proven: bool,
}

/// Finds and fetches one issuer's keys.
pub(crate) struct Locator {
    profile: Arc<Profile>,
    source: Source,
    options: Arc<Options>,
    located: Mutex<Option<Located>>,
    alarm: Mutex<Option<String>>,
}

impl Locator {
    pub(crate) fn new(profile: Arc<Profile>, source: Source, options: Arc<Options>) -> Locator {
        Locator { profile, source, options, located: Mutex::new(None), alarm: Mutex::new(None) }
    }

    /// What discovery said last.
    pub(crate) fn jwks_uri(&self) -> Option<String> {
        lock(&self.located).as_ref().map(|located| located.jwks_uri.clone())
    }

    pub(crate) fn alarm(&self) -> Option<String> {
        lock(&self.alarm).clone()
    }

    /// Is it time to read the discovery document again, although all is well?
    pub(crate) fn is_due(&self) -> bool {
        lock(&self.located).as_ref().is_some_and(|located| located.at.elapsed() >= self.options.deadlines.rediscover)
    }

    pub(crate) async fn fetch(&self, etag: Option<String>) -> Fetched {
        let etag = etag.as_deref();
        match &self.source.place {
            Place::File(path) => read(path.clone()).await,
            Place::Uri(uri) => self.jwks(uri, etag, false).await,
            Place::Discovery(url) => self.discovered(url, etag).await,
        }
    }

    /// The known place first: discovery may be down when the keys are not. Discovery again when that fails.
    async fn discovered(&self, url: &str, etag: Option<&str>) -> Fetched {
        let known = self.jwks_uri();
        if let Some(uri) = &known {
            let fetched = self.jwks(uri, etag, foreign(url, uri)).await;
            if fetched.is_good() {
                self.prove(uri);
                return fetched;
            }
            match self.discover(url).await {
                Ok(()) if self.jwks_uri() == known => return fetched,
                Ok(()) => {}
                Err(why) => {
                    return match fetched {
                        Fetched::Failed(first) => Fetched::Failed(format!("{first}; {why}")),
                        answered => answered,
                    };
                }
            }
        } else if let Err(why) = self.discover(url).await {
            return Fetched::Failed(why);
        }
        match self.jwks_uri() {
            // Another place may have another idea of the etag.
            Some(uri) => {
                let fetched = self.jwks(&uri, etag.filter(|_| known.is_none()), foreign(url, &uri)).await;
                if fetched.is_good() {
                    self.prove(&uri);
                }
                fetched
            }
            None => Fetched::Failed("discovery gave no `jwks_uri`".to_owned()),
        }
    }

    fn prove(&self, jwks_uri: &str) {
        if let Some(located) = lock(&self.located).as_mut().filter(|located| located.jwks_uri == jwks_uri) {
            located.proven = true;
        }
    }

    /// Reads the discovery document again; a failure changes nothing.
    pub(crate) async fn rediscover(&self) {
        let Place::Discovery(url) = &self.source.place else {
            return;
        };
        if let Err(why) = self.discover(url).await {
            tracing::debug!(issuer = &**self.profile.name(), why, "discovery failed; the known `jwks_uri` stays");
            if let Some(located) = lock(&self.located).as_mut() {
                located.at = Instant::now();
            }
        }
    }

    async fn discover(&self, url: &str) -> Result<(), String> {
        let got = self.get(url, None, false).await.map_err(|why| format!("discovery: {why}"))?;
        if got.status != 200 {
            return Err(format!("discovery: {}", status(&got)));
        }
        let document: Discovery = serde_json::from_slice(&got.body)
            .map_err(|_| "discovery: no JSON object with `issuer` and `jwks_uri`".to_owned())?;
        if !self.profile.accepts_discovered_issuer(&document.issuer) {
            return Err(format!("discovery: the document is of issuer `{}`", document.issuer));
        }
        check_scheme(url, &document.jwks_uri)?;
        self.locate(document.jwks_uri);
        Ok(())
    }

    /// Believes a `jwks_uri`, unless it leaves the host that was believed before.
    fn locate(&self, jwks_uri: String) {
        let mut located = lock(&self.located);
        let mut alarm = lock(&self.alarm);
        let at = Instant::now();
        if let Some(known) = located.as_mut()
            && known.proven
            && authority(&known.jwks_uri) != authority(&jwks_uri)
        {
            known.at = at;
            let text = format!(
                "discovery now points to another host for keys, `{jwks_uri}`; the keys of `{}` stay in use. If the issuer \
                 announced this move, restart, or set `jwks_uri:` to the new place",
                known.jwks_uri
            );
            if alarm.as_ref() != Some(&text) {
                tracing::warn!(issuer = &**self.profile.name(), "{text}");
                *alarm = Some(text);
            }
            return;
        }
        *alarm = None;
        let proven = located.as_ref().is_some_and(|known| known.proven);
        *located = Some(Located { jwks_uri, at, proven });
    }

    async fn jwks(&self, url: &str, etag: Option<&str>, guarded: bool) -> Fetched {
        match self.get(url, etag, guarded).await {
            Ok(got) if (300..400).contains(&got.status) && got.status != 304 => Fetched::Failed(status(&got)),
            Ok(got) => Fetched::Http {
                status: got.status,
                freshness: Freshness::read(&joined(&got.headers, "cache-control"), &joined(&got.headers, "age")),
                etag: got.headers.get("etag").and_then(|etag| etag.to_str().ok()).map(str::to_owned),
                body: got.body,
            },
            Err(why) => Fetched::Failed(why),
        }
    }

    async fn get(&self, url: &str, etag: Option<&str>, guarded: bool) -> Result<Got, String> {
        let request = Get { etag, public_addresses_only: guarded, ..self.options.get(url) };
        get(request).await.map_err(|error| error.to_string())
    }
}

/// The two members of a discovery document (OpenID Connect Discovery 1.0 §3) that keys need.
#[derive(serde::Deserialize)]
struct Discovery {
    issuer: String,
    jwks_uri: String,
}

fn authority(url: &str) -> Option<String> {
    let uri: http::Uri = url.parse().ok()?;
    Some(uri.authority()?.as_str().to_ascii_lowercase())
}

/// A discovery document may send us to another host (Google's does), but not into our own network.
pub(crate) fn foreign(discovery_url: &str, jwks_uri: &str) -> bool {
    let host = |url: &str| url.parse::<http::Uri>().ok().and_then(|uri| uri.host().map(str::to_ascii_lowercase));
    host(discovery_url) != host(jwks_uri)
}

/// Keys over plain HTTP only where the operator configured the issuer itself so.
fn check_scheme(discovery_url: &str, jwks_uri: &str) -> Result<(), String> {
    let scheme = |url: &str| url.parse::<http::Uri>().ok().and_then(|uri| uri.scheme_str().map(str::to_owned));
    match scheme(jwks_uri).as_deref() {
        Some("https") => Ok(()),
        Some("http") if scheme(discovery_url).as_deref() == Some("http") => Ok(()),
        _ => Err(format!("discovery: `jwks_uri` must be an https URL, not `{jwks_uri}`")),
    }
}

fn joined(headers: &http::HeaderMap, name: &str) -> String {
    let values: Vec<_> = headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).collect();
    values.join(",")
}

fn status(got: &Got) -> String {
    match got.headers.get("location").and_then(|to| to.to_str().ok()) {
        Some(to) => format!("status {} to `{to}`; redirects are not followed", got.status),
        None => format!("status {}", got.status),
    }
}

async fn read(path: PathBuf) -> Fetched {
    let shown = path.display().to_string();
    match tokio::task::spawn_blocking(move || read_bounded(&path)).await {
        Ok(Ok(body)) => {
            Fetched::Http { status: 200, freshness: Freshness::NoCache, etag: None, body: Bytes::from(body) }
        }
        Ok(Err(error)) => Fetched::Failed(format!("`{shown}`: {error}")),
        Err(_) => Fetched::Failed(format!("`{shown}`: reading was cut off")),
    }
}

/// One byte more than allowed, so that the parser can say "too large".
fn read_bounded(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(DOCUMENT_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}
