//! One request judged for a workload that will send it itself and wants the Txn-Token for it: the steps of every door, with
//! the workload as the peer, and no more scope than its subject token has.
//!
//! Never a token without a permit. What cannot be proved here, such as a DPoP key, refuses.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use trust::policy::{Input, Peer};
use trust::principal::Membership;
use trust::reason::Reason;
use trust::spiffe::SpiffeId;
use trust::token::{Bound, Scheme};
use wire::token_exchange::Named;

use super::identify::{Credential, Presented};
use super::recording::Recording;
use super::stamp::{Said, Signed, parameters};
use super::{Judge, Stop, decide, possession, refuse_other_bytes, route};
use crate::clock::UnixMs;
use crate::token_cache::{client_net, client_net_text};

/// What is wanted, and by whom.
pub(crate) struct Wanted<'a> {
    pub(crate) named: &'a Named,
    pub(crate) subject_token: &'a str,
    pub(crate) scope: &'a str,
    /// As mutual TLS proved it.
    pub(crate) caller: &'a SpiffeId,
    /// SHA-256 of the caller's certificate.
    pub(crate) certificate: Option<[u8; 32]>,
    /// Where the request came from at first, if the caller says.
    pub(crate) client_ip: Option<IpAddr>,
}

/// A token given out. It must not be shown: no `Debug`.
pub(crate) struct Granted {
    pub(crate) token: String,
    pub(crate) expires_in_s: i64,
}

/// Which purposes a scope of the issuers covers besides the one of its own name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scopes(pub HashMap<String, Vec<String>>);

impl Scopes {
    fn covers(&self, scope: &str, wanted: &str) -> bool {
        scope == wanted || self.0.get(scope).is_some_and(|purposes| purposes.iter().any(|purpose| purpose == wanted))
    }

    /// What is not known to be there is not there: an unknown scope is no scope.
    fn check(&self, of_subject: &Membership, wanted: &str) -> Result<(), Stop> {
        if of_subject.names().any(|scope| self.covers(scope, wanted)) {
            return Ok(());
        }
        if of_subject.is_complete() {
            let detail = "the scope that is asked for goes beyond the scopes of the subject token";
            return Err(Stop::new(Reason::ScopeRefused, detail));
        }
        let detail = "the issuer does not say which scopes the subject token has, so none can be granted from it";
        Err(Stop::new(Reason::ScopeUnknown, detail))
    }
}

impl Judge {
    pub(crate) async fn exchange(
        &self,
        wanted: &Wanted<'_>,
        scopes: &Scopes,
        recording: &mut Recording,
        now: UnixMs,
    ) -> Result<Granted, Stop> {
        let Named { method, target, host } = wanted.named;
        let view = self.begin(method, recording)?;
        let mut place = route(view, host, target, recording)?;
        refuse_other_bytes(&place, target)?;
        let presented = Presented::Token(Scheme::Bearer, wanted.subject_token);
        let (judged_by, credential) = self.identify(&place.view, &presented, recording, now).await?;
        if !Arc::ptr_eq(&judged_by, &place.view) {
            recording.judged_by(&judged_by);
            place = route(judged_by, host, target, recording)?;
            // By the newer snapshot it may lead to a service that tolerates something else.
            refuse_other_bytes(&place, target)?;
        }
        self.refuse_unrecorded(&place.served)?;
        let Some(Credential { entry, .. }) = credential else {
            return Err(Stop::new(Reason::TokenMissing, "no subject token"));
        };
        if matches!(entry.binding.bound(), Some(Bound::Dpop | Bound::DpopAndCertificate)) {
            let detail = "the subject token is bound to a DPoP key, which nobody can prove at the token endpoint";
            return Err(Stop::new(Reason::SenderConstrained, detail));
        }
        possession::bearer(&place, &entry.binding, wanted.certificate.as_ref())?;
        scopes.check(&entry.principal.scopes, wanted.scope)?;
        let input = Input {
            principal: Some(&entry.principal),
            peer: Peer::Workload(wanted.caller),
            method: method.as_str(),
            path: &place.path,
            query: target.query(),
            host,
            client_ip: wanted.client_ip,
            now: now.seconds(),
        };
        let permit = decide(&place, &input, recording)?;
        if **permit.scope() != *wanted.scope {
            let detail =
                format!("the rules grant `{}` for this request, and something else is asked for", permit.scope());
            return Err(Stop::new(Reason::ScopeRefused, detail));
        }
        let (signing, _) = self.shared.minter.signing(now.seconds());
        let req_ip = wanted.client_ip.map(|ip| client_net_text(client_net(ip)));
        // It is for this request alone, so it says which one that is.
        let params = parameters(permit.route(), &place.path);
        let said = Said { permit: &permit, req_wl: wanted.caller.as_str(), req_ip: req_ip.as_deref(), params: &params };
        let Signed { token, txn, tth, expires_at } = self.sign(&place.view, &entry, &said, &signing, now)?;
        self.shared.metrics.txn_minted.inc();
        recording.minted(&txn, &tth);
        Ok(Granted { token, expires_in_s: expires_at - now.seconds() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_is_granted_only_from_what_is_known_of_the_subject() {
        let scopes = Scopes([("api".to_owned(), vec!["orders.read".to_owned()])].into());
        let check = |of_subject: Membership, wanted: &str, expected: Option<Reason>| {
            let got = scopes.check(&of_subject, wanted).err().map(|stop| stop.reason);
            assert_eq!(got, expected, "{of_subject:?} {wanted}");
        };
        let names = |names: &[&str]| names.iter().map(|name| Arc::from(*name)).collect::<Vec<Arc<str>>>();
        let complete = |list: &[&str]| Membership::complete(names(list));
        check(complete(&["orders.read"]), "orders.read", None);
        check(complete(&["openid", "api"]), "orders.read", None);
        check(complete(&["api"]), "orders.write", Some(Reason::ScopeRefused));
        check(complete(&["orders.read"]), "orders.write", Some(Reason::ScopeRefused));
        check(complete(&["orders.read"]), "api", Some(Reason::ScopeRefused));
        check(complete(&["orders", "orders.*", "ORDERS.READ"]), "orders.read", Some(Reason::ScopeRefused));
        check(complete(&[]), "orders.read", Some(Reason::ScopeRefused));
        check(Membership::partial(names(&[])), "orders.read", Some(Reason::ScopeUnknown));
        check(Membership::partial(names(&["orders.read"])), "orders.read", None);
    }
}
