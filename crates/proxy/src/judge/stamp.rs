//! The Txn-Token of a permitted request: reused where it says the same, minted where it does not.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use http::HeaderValue;
use trust::path::NormalPath;
use trust::policy::Permit;
use trust::reason::Reason;
use trust::txn::{Claims, SigningKey};

use super::recording::Recording;
use super::{Judge, Place, Stop};
use crate::audit::chain::base64url;
use crate::clock::UnixMs;
use crate::token_cache::{Entry, MintKey, Minted, client_net, client_net_text};
use crate::view::View;

/// Life of a Txn-Token, in seconds (WIRE §1).
const TOKEN_LIFE_S: i64 = 60;

impl Judge {
    pub(super) fn stamp(
        &self,
        place: &Place,
        permit: &Permit,
        entry: &Entry,
        ip: IpAddr,
        now: UnixMs,
        recording: &mut Recording,
    ) -> Result<HeaderValue, Stop> {
        let (signing, kid) = self.shared.minter.signing(now.seconds());
        let key = MintKey {
            route: Arc::clone(permit.route()),
            scope: Arc::clone(permit.scope()),
            client_net: client_net(ip),
            kid,
            epoch: place.view.snapshot.epoch,
        };
        let reuse = if permit.per_request() { Duration::ZERO } else { place.served.service.txn_reuse };
        if let Some(minted) = entry.minted(&key, reuse, now) {
            self.shared.metrics.txn_reused.inc();
            recording.stamped(&minted);
            return Ok(minted.header);
        }
        let params = if permit.per_request() { parameters(permit.route(), &place.path) } else { Vec::new() };
        let minted = self.mint(&place.view, permit, entry, (key, &params), &signing, now)?;
        self.shared.metrics.txn_minted.inc();
        recording.stamped(&minted);
        let header = minted.header.clone();
        if !reuse.is_zero() {
            self.tokens.remember(entry, minted);
        }
        Ok(header)
    }

    fn mint(
        &self,
        view: &View,
        permit: &Permit,
        entry: &Entry,
        (key, params): (MintKey, &[(Arc<str>, String)]),
        signing: &SigningKey,
        now: UnixMs,
    ) -> Result<Minted, Stop> {
        let req_ip = client_net_text(key.client_net);
        let said = Said { permit, req_wl: self.shared.minter.spiffe_id(), req_ip: Some(&req_ip), params };
        let Signed { token, txn, tth, expires_at } = self.sign(view, entry, &said, signing, now)?;
        let mut header = HeaderValue::from_str(&token).map_err(|error| failed(&error))?;
        header.set_sensitive(true);
        Ok(Minted { key, header, txn, tth, minted_at: now, expires_at })
    }

    pub(super) fn sign(
        &self,
        view: &View,
        entry: &Entry,
        said: &Said<'_>,
        signing: &SigningKey,
        now: UnixMs,
    ) -> Result<Signed, Stop> {
        let txn = self.ids.txn(now).map_err(|error| failed(&error))?;
        let issued_at = now.seconds();
        let expires_at = (issued_at + TOKEN_LIFE_S).min(entry.principal.expires_at.max(issued_at + 1));
        let groups: Vec<Arc<str>> =
            entry.principal.groups.names().filter(|name| view.groups.contains(*name)).cloned().collect();
        let claims = Claims {
            audience: &view.snapshot.trust_domain,
            txn,
            issued_at,
            expires_at,
            principal: &entry.principal,
            scope: said.permit.scope(),
            req_wl: said.req_wl,
            req_ip: said.req_ip,
            sid: None,
            binding: &entry.binding,
            route: said.permit.route(),
            params: said.params,
            groups: &groups,
        };
        let token = signing.mint(&claims).map_err(|error| failed(&error))?;
        let tth = base64url(digest(&SHA256, token.as_bytes()).as_ref()).into();
        Ok(Signed { token, txn: txn.to_string().into(), tth, expires_at })
    }
}

/// What a Txn-Token says besides the principal.
pub(super) struct Said<'a> {
    pub(super) permit: &'a Permit,
    /// SPIFFE ID of who asked for it.
    pub(super) req_wl: &'a str,
    /// Truncated client address.
    pub(super) req_ip: Option<&'a str>,
    pub(super) params: &'a [(Arc<str>, String)],
}

/// A new Txn-Token. It must not be shown: no `Debug`.
pub(super) struct Signed {
    pub(super) token: String,
    pub(super) txn: Arc<str>,
    pub(super) tth: Arc<str>,
    pub(super) expires_at: i64,
}

fn failed(why: &dyn std::fmt::Display) -> Stop {
    Stop::new(Reason::MintFailed, why.to_string())
}

/// What stood where the route template has wildcards, numbered from 1 in their order; `**` is one parameter.
pub(super) fn parameters(route: &str, path: &NormalPath) -> Vec<(Arc<str>, String)> {
    let template = route.split_once(" /").map_or("", |(_, template)| template);
    let mut segments = path.segments();
    let mut found = Vec::new();
    for wanted in template.split('/') {
        let value = match wanted {
            "**" => segments.by_ref().collect::<Vec<_>>().join("/"),
            "*" => segments.next().unwrap_or_default().to_owned(),
            _ => {
                segments.next();
                continue;
            }
        };
        found.push((Arc::from((found.len() + 1).to_string()), value));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(route: &str, path: &str, expected: &[(&str, &str)]) {
        let path = NormalPath::parse(path, trust::path::Tolerance::default()).unwrap();
        let got = parameters(route, &path);
        let got: Vec<(&str, &str)> = got.iter().map(|(name, value)| (name.as_ref(), value.as_str())).collect();
        assert_eq!(got, expected, "{route}");
    }

    #[test]
    fn parameters_are_what_stands_at_the_wildcards() {
        check("orders:POST /orders/*/refund", "/orders/42/refund", &[("1", "42")]);
        check("orders:GET /orders/**", "/orders/42/items", &[("1", "42/items")]);
        check("orders:GET /a/*/b/*", "/a/1/b/2", &[("1", "1"), ("2", "2")]);
        check("orders:GET /plain", "/plain", &[]);
    }
}
