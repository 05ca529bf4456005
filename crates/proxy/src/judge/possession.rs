//! Does the caller hold what his token is bound to: the key of a DPoP proof (RFC 9449), the certificate of this connection
//! (RFC 8705)? Asked of every request; only that the token is good may come from a cache.
//!
//! Never takes a header's word for a certificate. The one lock here is taken by requests that carry a DPoP proof.

use std::sync::{Mutex, PoisonError};

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use http::HeaderValue;
use http::header::HOST;
use trust::dpop::{self, Freshness, Nonces, Proof, ReplayError, Replays};
use trust::issuer::{DpopNonce, SenderConstrained};
use trust::reason::Reason;
use trust::token::{Binding, Bound, Scheme};

use super::identify::{Credential, stop};
use super::{Asked, Judge, Place, Stop};
use crate::answer::{Challenge, Offer};
use crate::clock::UnixMs;
use crate::edge::DPOP;
use crate::ids::NoRandomness;

/// What all workers of one process remember of DPoP proofs.
pub struct Proofs {
    used: Mutex<Replays>,
    nonces: Nonces,
}

impl Proofs {
    pub fn new() -> Result<Proofs, NoRandomness> {
        let mut secret = zeroize::Zeroizing::new([0; 32]);
        SystemRandom::new().fill(&mut *secret).map_err(|_| NoRandomness)?;
        Ok(Proofs { used: Mutex::new(Replays::default()), nonces: Nonces::new(&secret) })
    }
}

impl Judge {
    /// Everything the token asks its sender to prove, and what issuer and service ask beyond that. Returns a nonce to give
    /// out when the one that was used will soon end.
    pub(super) fn prove_possession(
        &self,
        place: &Place,
        asked: Asked<'_>,
        credential: &Credential,
        now: UnixMs,
    ) -> Result<Option<Box<HeaderValue>>, Stop> {
        let (binding, certificate) = (&credential.entry.binding, asked.client.certificate.as_ref());
        if credential.scheme == Scheme::Bearer {
            return bearer(place, binding, certificate).map(|()| None);
        }
        let proof = proof(place, asked, credential, now)?;
        binding.check(Scheme::Dpop, Some(proof.thumbprint()), certificate).map_err(stop)?;
        let nonce = self.check_nonce(&proof, credential.entry.profile.settings().dpop_nonce, now)?;
        let mut used = self.shared.proofs.used.lock().unwrap_or_else(PoisonError::into_inner);
        used.use_up(&proof, now.seconds()).map_err(|error| match error {
            ReplayError::Used => Stop::new(Reason::DpopReplayed, error.to_string()),
            ReplayError::Full | ReplayError::Share => Stop::new(Reason::DpopBusy, error.to_string()),
        })?;
        Ok(nonce)
    }

    fn check_nonce(&self, proof: &Proof, demand: DpopNonce, now: UnixMs) -> Result<Option<Box<HeaderValue>>, Stop> {
        if demand == DpopNonce::Optional {
            return Ok(None);
        }
        let nonces = &self.shared.proofs.nonces;
        let newest = || HeaderValue::from_str(&nonces.newest(now.seconds())).ok().map(Box::new);
        let detail = match proof.nonce().map(|nonce| nonces.check(nonce, now.seconds())) {
            Some(Freshness::Newest) => return Ok(None),
            Some(Freshness::Ending) => return Ok(newest()),
            Some(Freshness::Refused) => "the nonce of the proof has ended, or another process gave it out",
            None => "the proof holds no nonce, and this issuer is configured with `dpop: { nonce: required }`",
        };
        let challenge = Challenge { offer: Offer::Dpop, dpop_nonce: newest(), claims: None };
        Err(Stop { challenge, ..Stop::new(Reason::DpopNonce, detail) })
    }
}

/// What a token has to have proved that was sent without a DPoP proof.
pub(super) fn bearer(place: &Place, binding: &Binding, certificate: Option<&[u8; 32]>) -> Result<(), Stop> {
    if binding.is_plain(Scheme::Bearer) {
        return match place.served.service.sender_constrained {
            SenderConstrained::Optional => Ok(()),
            SenderConstrained::Required => Err(Stop::new(
                Reason::SenderConstrained,
                "the token is bound to nothing (no `cnf`), and this service has `sender_constrained: required`",
            )
            .offering(Offer::Either)),
        };
    }
    let offer = if binding.bound() == Some(Bound::Certificate) { Offer::Bearer } else { Offer::Either };
    binding.check(Scheme::Bearer, None, certificate).map_err(|refused| stop(refused).offering(offer))
}

/// The one proof of this request, checked against what was decided on.
fn proof(place: &Place, asked: Asked<'_>, credential: &Credential, now: UnixMs) -> Result<Proof, Stop> {
    let refused = |detail: &str| Stop::new(Reason::DpopProof, detail);
    let mut fields = asked.headers.get_all(DPOP).iter();
    let field = fields.next().ok_or_else(|| refused("sent as `DPoP`, and there is no `DPoP` field with a proof"))?;
    if fields.next().is_some() {
        return Err(refused("`DPoP` stands more than once"));
    }
    let text = field.to_str().map_err(|_| refused("`DPoP` is not readable text"))?;
    let request = dpop::Asked {
        method: asked.method.as_str(),
        https: asked.client.https,
        authority: authority(asked),
        path: &place.path,
        tolerance: place.served.service.tolerance,
        token_sha256: &credential.digest,
        now: now.seconds(),
    };
    Proof::verify(text, &request).map_err(|error| stop(error.into()))
}

/// Host and port as the caller wrote them; that they are one host was checked before routing.
fn authority(asked: Asked<'_>) -> &str {
    match asked.target.authority() {
        Some(authority) => authority.as_str(),
        None => asked.headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or(asked.host),
    }
}
