//! Claims of any shape, validly signed by the issuer's own key: an issuer can be careless, or somebody else's. Never panics,
//! and what is accepted is for us, alive and has a printable name.
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use std::sync::{Arc, OnceLock};
use trust::issuer::{Preset, Profile, Settings};
use trust::jwk::{Algorithm, KeySet};
use trust::token::Peeked;

/// 2026-09-21, the moment the corpus is made for.
const NOW: i64 = 1_790_000_000;

struct World {
    pair: EcdsaKeyPair,
    keys: KeySet,
    profiles: Vec<Profile>,
}

/// `<preset digit><typ letter><claims>`, e.g. `0j{"iss":…}`: `a` at+jwt, `j` JWT, anything else none.
pub fn access_token(input: &[u8]) {
    static WORLD: OnceLock<Option<World>> = OnceLock::new();
    let Some(world) = WORLD.get_or_init(world) else { unreachable!("the fixed world is sound") };
    let [preset, typ, claims @ ..] = input else { return };
    let Some(profile) = world.profiles.get(usize::from(preset.wrapping_sub(b'0'))) else { return };
    let typ = match typ {
        b'a' => r#","typ":"at+jwt""#,
        b'j' => r#","typ":"JWT""#,
        _ => "",
    };
    let signed = format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"ES256","kid":"k"{typ}}}"#)),
        URL_SAFE_NO_PAD.encode(claims)
    );
    let Ok(signature) = world.pair.sign(&SystemRandom::new(), signed.as_bytes()) else { return };
    let token = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature));
    let Ok(peeked) = Peeked::parse(&token) else { return };
    let plausible = peeked.plausible(profile, NOW).is_ok();
    let candidate = peeked.candidates(&world.profiles).is_ok_and(|found| found.contains(&profile));
    match peeked.verify(profile, &world.keys, NOW) {
        Ok(verified) => {
            assert!(plausible && candidate, "accepted, yet it would not have come this far");
            assert!(verified.facts().expires_at + 60 > NOW);
            let principal = verified.principal();
            assert_eq!(*principal.subject, format!("{}|{}", profile.name(), principal.id));
            assert!((1..=255).contains(&principal.id.len()) && !principal.id.chars().any(char::is_control));
        }
        Err(refused) => {
            assert!(!refused.detail.is_empty() && !refused.detail.chars().any(char::is_control), "{}", refused.detail);
        }
    }
}

fn world() -> Option<World> {
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).ok()?;
    let (x, y) = pair.public_key().as_ref().get(1..)?.split_at_checked(32)?;
    let jwks = format!(
        r#"{{"keys":[{{"kty":"EC","crv":"P-256","kid":"k","x":"{}","y":"{}"}}]}}"#,
        URL_SAFE_NO_PAD.encode(x),
        URL_SAFE_NO_PAD.encode(y)
    );
    let (keys, _) = KeySet::parse(jwks.as_bytes()).ok()?;
    let profiles = Preset::ALL.into_iter().map(|preset| Profile::new(settings(preset)).ok()).collect::<Option<_>>()?;
    Some(World { pair, keys, profiles })
}

/// As the fixtures in `crates/trust/fixtures/issuers` have them, so that those seed the corpus.
fn settings(preset: Preset) -> Settings {
    let tenant = "11111111-2222-3333-4444-555555555555".to_owned();
    let issuer = match preset {
        Preset::Okta => Some("https://acme.okta.com/oauth2/default"),
        Preset::Auth0 => Some("https://acme.eu.auth0.com/"),
        Preset::Keycloak => Some("https://sso.acme.example/realms/shop"),
        Preset::Kubernetes => Some("https://kubernetes.default.svc.cluster.local"),
        Preset::Generic => Some("https://id.partner.example"),
        Preset::Entra | Preset::Cognito | Preset::Google | Preset::GithubActions => None,
    };
    let cognito = preset == Preset::Cognito;
    Settings {
        name: Arc::from(preset.name()),
        preset,
        issuer: issuer.map(str::to_owned),
        tenant: (preset == Preset::Entra).then_some(tenant),
        pool: cognito.then(|| "eu-west-1_AbCdEf123".to_owned()),
        audience: if cognito { Vec::new() } else { vec!["orders-api".to_owned(), "api://orders".to_owned()] },
        clients: if cognito { vec!["shop-web".to_owned(), "shop-batch".to_owned()] } else { Vec::new() },
        algorithms: vec![Algorithm::Es256],
        ..Settings::default()
    }
}
