//! From `token_endpoint:` to what the token endpoint needs: who may ask, and what the scopes of the issuers cover. Mutual TLS
//! is no choice here: without a CA of the workloads there is no such endpoint.
use super::TokenEndpointSettings;
use super::decode::{At, Decoder, Named, Needed, OneOrMany, section};
use super::platform::{ClientCertificatesWord, EdgeLimits, EdgeTimeouts, TlsSection};
use super::settings::{Context, Listening, drain, server};
use net::settings::ServerSettings;
use proxy::token_endpoint::{Scopes, Settings};
use std::collections::HashMap;
use trust::spiffe::Pattern;

const CALLERS_MAX: usize = 256;
const SCOPES_MAX: usize = 256;
const PURPOSES_MAX: usize = 64;

section! {
    /// Where workloads and gateways that forward by themselves exchange an access token for the Txn-Token of one request (RFC 8693): `POST /token`, over mutual TLS with X.509-SVIDs. See docs/token-endpoint.md. `tls`, `callers` and `scopes` change without a restart.
    TokenEndpointSection as "`token_endpoint`" hints [
        ("port", "did you mean `listen`? Write address and port: `listen: 0.0.0.0:9003`"),
        ("address", "did you mean `listen`?"),
        ("allow", "did you mean `callers`?"),
        ("clients", "did you mean `callers`?"),
        ("certificate", "it belongs under `tls:`"),
        ("key", "it belongs under `tls:`"),
        ("client_ca", "it belongs under `tls:`"),
        ("audience", "it is the trust domain; remove it"),
    ] {
        /// One address or a list, `ip:port`, e.g. `0.0.0.0:9003`.
        listen: Needed<OneOrMany<At<String>>>,
        /// Certificate and key of this endpoint, and the CAs of the workloads.
        tls: Needed<TokenTlsSection>,
        /// Workloads that may ask: paths of the trust domain (`/gateway` names it and what is below it) or whole `spiffe://` IDs; at most 256. Whoever may ask gets Txn-Tokens for the access tokens he holds.
        callers: Needed<OneOrMany<At<String>>>,
        /// What a scope of your issuers covers, e.g. `access_as_user: [orders.read]`. A scope always covers the purpose of its own name. At most 256 scopes with 64 purposes each.
        scopes: Option<Named<OneOrMany<At<String>>>>,
        /// Limits of one connection and of the process.
        limits: Option<EdgeLimits>,
        /// How long a caller may take; a request's body may take as long as its head (`header`).
        timeouts: Option<EdgeTimeouts>,
        /// Worker threads. Default: one per core; 1 to 1024.
        workers: Option<At<u64>>,
    }
}

section! {
    /// Mutual TLS, version 1.3.
    TokenTlsSection as "`tls`" hints [
        ("cert", "did you mean `certificate`?"),
        ("ca", "did you mean `client_ca`?"),
        ("client_certificates", "they are always required here; remove it"),
    ] {
        /// PEM file with the chain, leaf first. Replaced without a restart when the file changes.
        certificate: Needed<At<String>>,
        /// PEM file with the key (PKCS#8, PKCS#1 or SEC1). Must not be readable by everybody.
        key: Needed<At<String>>,
        /// PEM file with the CAs of your trust domain's X.509-SVIDs. A client without one of this trust domain does not come in. Replaced without a restart when the file changes.
        client_ca: Needed<At<String>>,
    }
}

pub fn token_endpoint(
    section: &At<TokenEndpointSection>,
    trust_domain: &str,
    context: &mut Context<'_, '_>,
) -> Option<TokenEndpointSettings> {
    let section = &section.value;
    let drain = drain(section.timeouts.as_ref(), &mut context.to);
    let tls = section.tls.0.as_ref().and_then(mutual);
    let listening = Listening {
        listen: section.listen.0.as_ref(),
        tls: tls.as_ref(),
        limits: section.limits.as_ref(),
        timeouts: section.timeouts.as_ref(),
        workers: section.workers.as_ref(),
    };
    let server = server(&listening, context);
    let callers = section.callers.0.as_ref().and_then(|listed| callers(listed, trust_domain, &mut context.to));
    let scopes = match &section.scopes {
        Some(named) => scopes(named, &mut context.to),
        None => Some(Scopes::default()),
    };
    // Without mutual TLS it is not what was asked for: that something is missing was reported.
    let (_, mut server) = (tls?, server?);
    server.tls.as_mut()?.client_certificates.as_mut()?.svids_of = Some(trust_domain.to_owned());
    let ServerSettings { timeouts, .. } = &server;
    let asked = Settings {
        trust_domain: trust_domain.into(),
        callers: callers?,
        scopes: scopes?,
        body_timeout: timeouts.header,
    };
    Some(TokenEndpointSettings { server, asked, drain })
}

/// The section every listener has, with a certificate demanded from everybody.
fn mutual(section: &TokenTlsSection) -> Option<TlsSection> {
    let client_ca = section.client_ca.0.as_ref()?;
    Some(TlsSection {
        certificate: section.certificate.clone(),
        key: section.key.clone(),
        client_certificates: Some(At { value: ClientCertificatesWord::Require, at: client_ca.at }),
        client_ca: Some(client_ca.clone()),
    })
}

fn callers(listed: &OneOrMany<At<String>>, trust_domain: &str, to: &mut Decoder<'_>) -> Option<Vec<Pattern>> {
    if let Some(At { at, .. }) = listed.0.get(CALLERS_MAX) {
        to.report(*at, format!("more than {CALLERS_MAX} callers"), "name a path that they share");
        return None;
    }
    let read: Vec<Pattern> = listed.0.iter().filter_map(|named| caller(named, trust_domain, to)).collect();
    (read.len() == listed.0.len()).then_some(read)
}

fn caller(At { value, at }: &At<String>, trust_domain: &str, to: &mut Decoder<'_>) -> Option<Pattern> {
    match Pattern::parse(value) {
        Ok(Pattern::Exact(id)) if id.trust_domain() != trust_domain => {
            let what = format!("`{value}` is not of the trust domain `{trust_domain}`");
            to.report(*at, what, "only workloads of your own trust domain may ask; correct it, or remove it");
            None
        }
        Ok(pattern) => Some(pattern),
        Err(error) => {
            let fix = format!("write a path as in `/gateway`, or a whole ID as in `spiffe://{trust_domain}/gateway`");
            to.report(*at, format!("`{value}` names no workload: {error}"), fix);
            None
        }
    }
}

fn scopes(named: &Named<OneOrMany<At<String>>>, to: &mut Decoder<'_>) -> Option<Scopes> {
    let mut read = HashMap::new();
    let mut good = true;
    for (key, purposes, _) in &named.0 {
        let over = purposes.0.get(PURPOSES_MAX).map(|purpose| purpose.at);
        let over = over.or((read.len() == SCOPES_MAX).then_some(key.at));
        if let Some(at) = over {
            to.report(at, "too many scopes or purposes", "at most 256 scopes with 64 purposes each");
            return None;
        }
        let spelled =
            |text: &str| !text.is_empty() && text.bytes().all(|byte| matches!(byte, 0x21 | 0x23..=0x5b | 0x5d..=0x7e));
        let bad = purposes.0.iter().find(|purpose| !spelled(&purpose.value)).map(|purpose| purpose.at);
        if let Some(at) = bad.or((!spelled(&key.text)).then_some(key.at)) {
            to.report(at, "no scope (RFC 6749 §3.3)", "write one word without spaces, as in `orders.read`");
            good = false;
            continue;
        }
        let purposes = purposes.0.iter().map(|purpose| purpose.value.clone()).collect();
        read.insert(key.text.clone(), purposes);
    }
    good.then_some(Scopes(read))
}

#[cfg(test)]
mod tests {
    use super::super::{Loaded, Memory, load};
    use super::*;
    use std::path::Path;
    use testkit::tls::Ca;

    const REST: &str = "version: 1\ntrust_domain: acme.example\nissuers: { id: { issuer: https://id.acme.example, audience: a } }\n\
                        services: s/*.yaml\n";
    const SERVICE: &str =
        "service: a\nexpose: { host: a.example }\nrules: [{ name: r, who: signed-in, can: GET /** }]\n";
    const TLS: &str = "tls: { certificate: t.pem, key: t.key, client_ca: ca.pem }";

    fn loaded(section: &str) -> Result<Loaded, Vec<String>> {
        let ca = Ca::new();
        let own = ca.svid(&["spiffe://acme.example/edge"], &["localhost"]);
        let files = Memory::default()
            .with("c.yaml", format!("{REST}{section}"), 0o640)
            .with("s/a.yaml", SERVICE, 0o640)
            .with("t.pem", own.certificate_pem, 0o640)
            .with("t.key", own.key_pem, 0o600)
            .with("ca.pem", ca.certificate_pem, 0o640);
        load(Path::new("c.yaml"), &files)
            .map_err(|problems| problems.iter().map(|p| format!("{} {}", p.location(), p.what)).collect())
    }

    fn with(rest: &str) -> String {
        format!("token_endpoint: {{ listen: 127.0.0.1:1, {TLS}, {rest} }}\n")
    }

    fn check(section: &str, expected: &[&str]) {
        assert_eq!(loaded(section).err().unwrap_or_default(), expected, "{section}");
    }

    #[test]
    fn it_stands_alone_and_lets_nobody_in_but_workloads_of_the_trust_domain() {
        let loaded = loaded(&with("callers: [/gateway], scopes: { api: a.read }")).unwrap_or_else(|p| panic!("{p:?}"));
        assert!(loaded.edge.is_none() && loaded.authz.is_none());
        let TokenEndpointSettings { server, asked, .. } = loaded.token_endpoint.unwrap();
        let clients = server.tls.unwrap().client_certificates.unwrap();
        assert_eq!(clients.svids_of.as_deref(), Some("acme.example"));
        assert!(clients.ca_pem.is_some() && clients.demand == net::settings::CertificateDemand::Require);
        assert_eq!(asked.callers, [Pattern::parse("/gateway").unwrap()]);
        assert_eq!(asked.scopes.0["api"], ["a.read"]);
        assert_eq!(asked.body_timeout, server.timeouts.header);
    }

    #[test]
    fn nothing_that_keeps_strangers_out_may_be_left_out() {
        check(
            "token_endpoint: { callers: /gateway }\n",
            &[
                "c.yaml:5:17 `listen` is missing in `token_endpoint`",
                "c.yaml:5:17 `tls` is missing in `token_endpoint`",
            ],
        );
        check(&with("workers: 1"), &["c.yaml:5:17 `callers` is missing in `token_endpoint`"]);
        let no_ca = "token_endpoint: { listen: 127.0.0.1:1, callers: /g, tls: { certificate: t.pem, key: t.key } }\n";
        check(no_ca, &["c.yaml:5:58 `client_ca` is missing in `tls`"]);
        let wrong = |from: &str, to: &str| with("callers: /g").replace(from, to);
        check(
            &wrong("client_ca: ca.pem", "client_ca: t.key"),
            &["c.yaml:5:90 `t.key` holds no PEM block of a certificate"],
        );
        check(
            &wrong("client_ca: ca.pem", "client_ca: no.pem"),
            &["c.yaml:5:90 `no.pem` cannot be read: it does not exist"],
        );
        let off = wrong("client_ca: ca.pem", "client_ca: ca.pem, client_certificates: off");
        assert!(loaded(&off).err().unwrap()[0].contains("`client_certificates`"));
    }

    #[test]
    fn callers_are_workloads_of_this_trust_domain() {
        let check = |callers: &str, expected: &str| {
            let got = loaded(&with(&format!("callers: {callers}"))).err().unwrap_or_default().join("; ");
            assert!(if expected.is_empty() { got.is_empty() } else { got.ends_with(expected) }, "{callers}: {got}");
        };
        check("[/gateway, spiffe://acme.example/shop/batch]", "");
        check("gateway", "`gateway` names no workload: a SPIFFE ID starts with `spiffe://`");
        check("\"*\"", "`*` names no workload: a SPIFFE ID starts with `spiffe://`");
        check("/", "none empty, `.` or `..`, and no trailing slash");
        check("spiffe://other.example/x", "`spiffe://other.example/x` is not of the trust domain `acme.example`");
        check("spiffe://acme.example", "none empty, `.` or `..`, and no trailing slash");
        check("[]", "an empty list");
        let many = |count: usize| format!("[{}]", vec!["/g"; count].join(", "));
        check(&many(256), "");
        check(&many(257), "more than 256 callers");
    }

    #[test]
    fn scopes_have_bounds_on_both_sides() {
        let check = |scopes: &str, expected: &str| {
            let got = loaded(&with(&format!("callers: /g, scopes: {scopes}"))).err().unwrap_or_default().join("; ");
            assert!(if expected.is_empty() { got.is_empty() } else { got.ends_with(expected) }, "{scopes}: {got}");
        };
        let named = |count: usize| {
            format!("{{ {} }}", (0..count).map(|n| format!("s{n}: a.read")).collect::<Vec<_>>().join(", "))
        };
        let purposes = |count: usize| format!("{{ s: [{}] }}", vec!["a.read"; count].join(", "));
        check("{ api: [a.read, a.write], \"https://api.example/x\": a.read }", "");
        check("{ api: \"a.read a.write\" }", "no scope (RFC 6749 §3.3)");
        check("{ \"a b\": a.read }", "no scope (RFC 6749 §3.3)");
        check(&named(256), "");
        check(&named(257), "too many scopes or purposes");
        check(&purposes(64), "");
        check(&purposes(65), "too many scopes or purposes");
    }

    #[test]
    fn every_door_has_an_address_of_its_own() {
        let exchange = with("callers: /g");
        let of = |rest: &str| loaded(&format!("{exchange}{rest}")).err().unwrap_or_default();
        assert_eq!(
            of("authz: { listen: 127.0.0.1:1, from: nginx }\n"),
            ["c.yaml:5:17 `127.0.0.1:1` is the authz role's address too"]
        );
        assert!(
            of("edge: { listen: 127.0.0.1:1 }\n")
                .contains(&"c.yaml:5:17 `127.0.0.1:1` is the edge's address too".to_owned())
        );
        assert_eq!(
            of("admin: { listen: 127.0.0.1:1 }\n"),
            ["c.yaml:6:18 `127.0.0.1:1` is the token endpoint's address too"]
        );
    }
}
