//! Upstreams known by their SPIFFE ID, and such as ask who we are.
use super::*;
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use rustls::server::WebPkiClientVerifier;

const ID: &str = "spiffe://acme.example/shop/orders";

/// A certificate authority, and what it issues.
struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Authority {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let pem = params.self_signed(&key).unwrap().pem();
        Authority { pem, issuer: Issuer::new(params, key) }
    }

    /// A leaf with these URIs and names, as PEM.
    fn issue(&self, uris: &[&str], names: &[&str]) -> ClientIdentity {
        self.issue_for(Duration::from_secs(3_600), uris, names)
    }

    fn issue_for(&self, time: Duration, uris: &[&str], names: &[&str]) -> ClientIdentity {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let mut params =
            CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap();
        params.subject_alt_names.extend(uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap())));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.not_after = rcgen::date_time_ymd(1970, 1, 1) + now + time;
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        ClientIdentity {
            certificate_pem: certificate.pem().into_bytes(),
            key_pem: key.serialize_pem().into_bytes().into(),
        }
    }

    fn roots(&self) -> Arc<[u8]> {
        self.pem.as_bytes().into()
    }

    /// Serves with this certificate, and answers every request; `asks`: only to whom it issued one itself.
    async fn serve(&self, leaf: &ClientIdentity, asks: bool) -> RawServer {
        let (chain, key) = crate::tls::chain_and_key(&leaf.certificate_pem, &leaf.key_pem).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider));
        let builder = builder.with_safe_default_protocol_versions().unwrap();
        let builder = if asks {
            let roots = Arc::new(crate::upstream::roots::only(self.pem.as_bytes()).unwrap());
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider).build().unwrap();
            builder.with_client_cert_verifier(verifier)
        } else {
            builder.with_no_client_auth()
        };
        let config = builder.with_single_cert(chain, key).unwrap();
        serve(Some(TlsAcceptor::from(Arc::new(config))), (0..20).map(|_| ok()).collect()).await
    }
}

fn target(server: &RawServer, tls: UpstreamTls) -> Arc<Target> {
    Arc::new(new_target(TargetSettings { tls: Some(tls), ..settings(&[server.address]) }).unwrap())
}

fn expecting(authority: &Authority) -> UpstreamTls {
    let named = UpstreamTls::named("orders.example", Some(authority.roots()));
    UpstreamTls { spiffe_id: Some(ID.into()), ..named }
}

/// `None`: the peer is taken. Else the refusal holds this text.
async fn check(uris: &[&str], names: &[&str], refusal: Option<&str>) {
    let authority = Authority::new();
    let server = authority.serve(&authority.issue(uris, names), false).await;
    let found = exchange(&Pool::new(), &target(&server, expecting(&authority)), get("/")).await;
    match (found, refusal) {
        (Ok((StatusCode::OK, _)), None) => {}
        (Err(ForwardError::Identity(why)), Some(text)) => assert!(why.contains(text), "{why}"),
        (found, _) => panic!("{uris:?} {names:?}: {found:?}"),
    }
}

#[tokio::test]
async fn svid_an_upstream_is_the_workload_it_should_be() {
    check(&[ID], &[], None).await;
    check(&[ID], &["other.example"], None).await;
}

#[tokio::test]
async fn svid_another_workload_two_ids_none_and_a_name_are_refused() {
    let all = ["orders.example"];
    check(&["spiffe://acme.example/shop/orders2"], &all, Some("`spiffe://acme.example/shop/orders2`")).await;
    check(&["spiffe://acme.example/shop/orders/v2"], &all, Some("was expected")).await;
    check(&["spiffe://other.example/shop/orders"], &all, Some("was expected")).await;
    check(&[ID, "spiffe://acme.example/shop/web"], &all, Some("2 URIs")).await;
    check(&[ID, "https://orders.example/"], &all, Some("2 URIs")).await;
    check(&[], &all, Some("no URI")).await;
    check(&["spiffe://acme.example/shop/orders/"], &all, Some("no SPIFFE ID")).await;
}

#[tokio::test]
async fn svid_only_the_trust_bundle_vouches_for_a_workload() {
    let (authority, other) = (Authority::new(), Authority::new());
    let server = other.serve(&other.issue(&[ID], &[]), false).await;
    let found = exchange(&Pool::new(), &target(&server, expecting(&authority)), get("/")).await;
    assert!(matches!(found, Err(ForwardError::Identity(_))), "{found:?}");
    let without = UpstreamTls { roots_pem: None, ..expecting(&authority) };
    let found = new_target(TargetSettings { tls: Some(without), ..settings(&[server.address]) });
    assert!(found.err().unwrap().contains("trust bundle"));
}

#[tokio::test]
async fn an_upstream_that_asks_who_we_are_is_told() {
    let authority = Authority::new();
    let server = authority.serve(&authority.issue(&[ID], &[]), true).await;
    let mine = || Some(Arc::new(authority.issue(&["spiffe://acme.example/edge"], &[])));
    let pool = Pool::new();
    let told = target(&server, UpstreamTls { identity: mine(), ..expecting(&authority) });
    for _ in 0..3 {
        assert_eq!(exchange(&pool, &told, get("/")).await.unwrap().0, StatusCode::OK);
        idle(&pool, 1).await;
    }
    assert_eq!(server.connections(), 1);
    // A new certificate makes new connections, and does not use those of the old one.
    let renewed = target(&server, UpstreamTls { identity: mine(), ..expecting(&authority) });
    assert_eq!(exchange(&pool, &renewed, get("/")).await.unwrap().0, StatusCode::OK);
    assert_eq!(server.connections(), 2);
    let silent = target(&server, expecting(&authority));
    assert!(exchange(&pool, &silent, get("/")).await.is_err(), "without a certificate there is no answer");
}

#[tokio::test]
async fn m12_no_connection_outlives_a_certificate_by_which_it_was_opened() {
    let authority = Authority::new();
    let short = || authority.issue_for(Duration::from_secs(3), &[ID], &[]);
    for is_ours in [false, true] {
        let (of_peer, of_ours) =
            if is_ours { (authority.issue(&[ID], &[]), Some(Arc::new(short()))) } else { (short(), None) };
        let server = authority.serve(&of_peer, of_ours.is_some()).await;
        let tls = UpstreamTls { identity: of_ours, ..expecting(&authority) };
        let (pool, target) = (Pool::new(), target(&server, tls));
        assert_eq!(exchange(&pool, &target, get("/")).await.unwrap().0, StatusCode::OK);
        server.ended().await;
    }
}

#[test]
fn every_part_of_who_is_expected_keeps_connections_apart() {
    let authority = Authority::new();
    let base = TargetSettings { tls: Some(expecting(&authority)), ..settings(&["127.0.0.1:1".parse().unwrap()]) };
    let with = |change: &dyn Fn(&mut UpstreamTls)| {
        let mut tls = expecting(&authority);
        change(&mut tls);
        TargetSettings { tls: Some(tls), ..base.clone() }.key()
    };
    let identity = Arc::new(authority.issue(&[ID], &[]));
    let renewed = Arc::new(authority.issue(&[ID], &[]));
    let keys = [
        base.key(),
        with(&|tls| tls.spiffe_id = None),
        with(&|tls| tls.spiffe_id = Some("spiffe://acme.example/other".into())),
        with(&|tls| tls.server_name = "other.example".into()),
        with(&|tls| tls.roots_pem = Some(Authority::new().roots())),
        with(&|tls| tls.identity = Some(Arc::clone(&identity))),
        with(&|tls| tls.identity = Some(Arc::clone(&renewed))),
        TargetSettings { tls: None, ..base.clone() }.key(),
    ];
    let distinct: std::collections::HashSet<_> = keys.iter().collect();
    assert_eq!(distinct.len(), keys.len());
    assert_eq!(with(&|_| {}), base.key());
}
