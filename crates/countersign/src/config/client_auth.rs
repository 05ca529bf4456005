//! How we prove to an issuer which of its clients we are: a secret, or a private key, each from a file of its own. It
//! never shows what stands in them.
use super::decode::At;
use super::problem::Span;
use super::settings::Context;
use super::token_kinds::{AssertionAlgorithmWord, ClientAuthSection};
use feed::ClientAuth;
use trust::client_key::{ClientKey, ClientKeyError, Naming};
use trust::jwk::Algorithm;
use zeroize::Zeroizing;

/// Longest client secret, in bytes.
const SECRET_BYTES_MAX: usize = 1024;
/// Longest `key_id` and `audience`, in bytes.
const NAME_BYTES_MAX: usize = 1024;

/// The two ways that a section may name.
pub(super) struct Asked<'a> {
    pub(super) secret: Option<&'a At<String>>,
    pub(super) key: Option<&'a At<ClientAuthSection>>,
}

/// `section` is the one at `at` that needs it. `None`: a problem was reported.
pub(super) fn client_auth(
    asked: &Asked<'_>,
    at: Span,
    section: &str,
    rsa_default: Algorithm,
    context: &mut Context<'_, '_>,
) -> Option<ClientAuth> {
    match (asked.secret, asked.key) {
        (Some(file), None) => secret(file, context).map(ClientAuth::Secret),
        (None, Some(section)) => key(&section.value, rsa_default, context),
        (Some(_), Some(section)) => {
            context.to.report(section.at, "both `client_secret_file` and `client_auth`", "remove one of them");
            None
        }
        (None, None) => {
            let what = format!("`{section}` says neither `client_secret_file` nor `client_auth`");
            context.to.report(at, what, "add `client_secret_file:`, or `client_auth: { private_key_file: … }`");
            None
        }
    }
}

/// A client's secret, the only line of its file. `None`: a problem was reported.
fn secret(named: &At<String>, context: &mut Context<'_, '_>) -> Option<feed::Secret> {
    let bytes = Zeroizing::new(context.read(named, true)?);
    let text = std::str::from_utf8(&bytes).unwrap_or_default().trim();
    if text.is_empty() || text.len() > SECRET_BYTES_MAX || text.chars().any(char::is_control) {
        let what = format!("`{}` holds no client secret", named.value);
        context.to.report(named.at, what, "write the secret into it, one line of text");
        return None;
    }
    Some(feed::Secret::new(Zeroizing::new(text.to_owned())))
}

fn key(section: &ClientAuthSection, rsa_default: Algorithm, context: &mut Context<'_, '_>) -> Option<ClientAuth> {
    let file = section.private_key_file.0.as_ref()?;
    for name in [&section.key_id, &section.audience].into_iter().flatten() {
        if name.value.len() > NAME_BYTES_MAX || name.value.chars().any(char::is_control) {
            context.to.report(name.at, "more than 1024 bytes, or control characters", "write what the issuer expects");
            return None;
        }
    }
    let pem = Zeroizing::new(context.read(file, true)?);
    let certificate = match &section.certificate_file {
        Some(named) => Some(String::from_utf8_lossy(&context.read(named, false)?).into_owned()),
        None => None,
    };
    let naming =
        Naming { key_id: section.key_id.as_ref().map(|at| at.value.as_str()), certificate: certificate.as_deref() };
    let text = std::str::from_utf8(&pem).unwrap_or_default();
    let wanted = section.algorithm.as_ref().map(|at| algorithm(at.value));
    match ClientKey::from_pem(text, wanted, rsa_default, naming) {
        Ok(key) => Some(ClientAuth::Key { key, audience: section.audience.as_ref().map(|at| at.value.clone()) }),
        Err(error) => {
            report(section, error, context);
            None
        }
    }
}

/// At the file, or the word, that it is about.
fn report(section: &ClientAuthSection, error: ClientKeyError, context: &mut Context<'_, '_>) {
    let about = match error {
        ClientKeyError::NoCertificate | ClientKeyError::ForeignCertificate => section.certificate_file.as_ref(),
        _ => section.private_key_file.0.as_ref(),
    };
    let Some(named) = about else { return };
    let fix = match error {
        ClientKeyError::NoKey => "name the file that begins with `-----BEGIN PRIVATE KEY-----`",
        ClientKeyError::Locked => "write it without a passphrase: `openssl pkey -in locked.pem -out client.key`",
        ClientKeyError::Kind => {
            "make one: `openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out client.key`"
        }
        ClientKeyError::Algorithm(_) => "a key of P-256 signs ES256, one of RSA RS256 or PS256: correct `algorithm`",
        ClientKeyError::NoCertificate => "name the file that begins with `-----BEGIN CERTIFICATE-----`",
        ClientKeyError::ForeignCertificate => "name the certificate that was made for this key, the leaf first",
    };
    context.to.report(named.at, format!("`{}` {error}", named.value), fix);
}

fn algorithm(word: AssertionAlgorithmWord) -> Algorithm {
    match word {
        AssertionAlgorithmWord::Es256 => Algorithm::Es256,
        AssertionAlgorithmWord::Rs256 => Algorithm::Rs256,
        AssertionAlgorithmWord::Ps256 => Algorithm::Ps256,
    }
}
