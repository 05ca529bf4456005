//! Judges what an issuer answered about a token that nobody ever issued: is the endpoint there, does it know us, and does it
//! answer so that control can believe it? It asks nothing itself.

use crate::inspect::{Mark, Report};
use control::examine::{Answer, Questioned};
use feed::{ClientAuth, Introspection};
use serde_json::Value;

const SECTION: &str = "introspection";
/// Characters of an issuer's own words that are shown.
const WORDS_MAX: usize = 80;

pub(super) fn judge(asking: &Introspection, questioned: &Questioned, document: Option<&Value>, report: &mut Report) {
    let step = match &questioned.asked {
        Ok(step) => step,
        Err(why) => return report.add(SECTION, "place", Mark::Wrong, format!("no place to ask at: {why}")),
    };
    let known_by = if asking.endpoint.is_some() { "as configured" } else { "as discovery says" };
    report.add(SECTION, "place", Mark::Good, format!("`{}`, {known_by}", step.url));
    let answer = match &step.answer {
        Ok(answer) => answer,
        Err(why) => {
            let text = format!(
                "{}: {why}. Check the name, the firewall between here and there, and the certificate; until then its opaque tokens \
                 get 503",
                step.url
            );
            return report.add(SECTION, "answer", Mark::Wrong, text);
        }
    };
    match &questioned.read {
        None => refused(asking, answer, document, report),
        Some(Err(why)) => {
            let text = format!("{} answers 200, and not so that it can be believed: {why}", step.url);
            report.add(SECTION, "answer", Mark::Wrong, text);
        }
        Some(Ok(said)) => {
            believed(said.get("active"), asking, report);
            signature(asking, answer, document, report);
        }
    }
}

/// Another status than 200.
fn refused(asking: &Introspection, answer: &Answer, document: Option<&Value>, report: &mut Report) {
    let error = own_words(answer);
    let said = error.as_ref().map(|error| format!(", `{error}`")).unwrap_or_default();
    let client = &asking.client_id;
    match answer.status {
        // RFC 6749 §5.2 lets a server that was asked without `Authorization` answer 400.
        401 | 403 => unknown_client(asking, answer.status, &said, document, report),
        400 if error.as_deref() == Some("invalid_client") => unknown_client(asking, 400, &said, document, report),
        300..400 => report.add(
            SECTION,
            "answer",
            Mark::Wrong,
            format!(
                "it redirects ({}), and redirects are not followed: write the place itself under `endpoint:`",
                answer.status
            ),
        ),
        404 | 405 | 501 => report.add(
            SECTION,
            "answer",
            Mark::Wrong,
            format!(
                "nobody takes questions there ({}): is `endpoint` right, and introspection switched on?",
                answer.status
            ),
        ),
        status => {
            let text = format!("it answers {status}{said} to a good question of `{client}`; its own log knows why");
            report.add(SECTION, "answer", Mark::Wrong, text);
        }
    }
}

fn unknown_client(asking: &Introspection, status: u16, said: &str, document: Option<&Value>, report: &mut Report) {
    let (ours, fix) = match asking.auth {
        ClientAuth::Secret(_) => {
            ("client_secret_basic", "is the secret the current one, and this client allowed to introspect?")
        }
        ClientAuth::Key { .. } => (
            "private_key_jwt",
            "does it know the public half of this key, under this `key_id`, for this algorithm, and does it want another `audience`?",
        ),
    };
    let mut text = format!("`{}` is not accepted ({status}{said}): {fix}", asking.client_id);
    let supported = methods(document);
    if !supported.is_empty() && !supported.contains(&ours) {
        text.push_str(&format!(" Besides, it says that it takes {} only, and we send {ours}", supported.join(", ")));
    }
    report.add(SECTION, "client", Mark::Wrong, text);
}

/// How clients may prove themselves there (RFC 8414 §2); of the token endpoint, where nothing else is said.
fn methods(document: Option<&Value>) -> Vec<&str> {
    let listed = |name: &str| document.and_then(|document| document.get(name)).and_then(Value::as_array);
    let listed = listed("introspection_endpoint_auth_methods_supported")
        .or_else(|| listed("token_endpoint_auth_methods_supported"));
    listed.into_iter().flatten().filter_map(Value::as_str).take(16).collect()
}

/// The `error` of an answer in the form of RFC 6749 §5.2.
fn own_words(answer: &Answer) -> Option<String> {
    let document: Value = serde_json::from_slice(&answer.body).ok()?;
    document.get("error")?.as_str().map(|error| error.chars().take(WORDS_MAX).collect())
}

fn believed(active: Option<&Value>, asking: &Introspection, report: &mut Report) {
    match active {
        Some(Value::Bool(false)) => {
            report.add(SECTION, "client", Mark::Good, format!("`{}` is accepted", asking.client_id));
            report.add(SECTION, "answer", Mark::Good, "an invented token is not active");
        }
        Some(Value::Bool(true)) => {
            let text = "it calls a token active that was invented on the spot: whoever makes one up would be judged by what else it \
                        says. Do not use this endpoint";
            report.add(SECTION, "answer", Mark::Wrong, text);
        }
        _ => {
            let text = "`active` is neither true nor false (RFC 7662 §2.2): nobody would get in. Is this the introspection endpoint?";
            report.add(SECTION, "answer", Mark::Wrong, text);
        }
    }
}

/// RFC 9701. What is required and missing was refused before.
fn signature(asking: &Introspection, answer: &Answer, document: Option<&Value>, report: &mut Report) {
    let media = answer.headers.get("content-type").and_then(|value| value.to_str().ok()).unwrap_or_default();
    if media.to_ascii_lowercase().starts_with("application/token-introspection+jwt") {
        let wanted =
            if asking.signed { "as `signed: required` asks" } else { "`signed: required` would take no other" };
        return report.add(SECTION, "signature", Mark::Good, format!("the answer is signed by the issuer; {wanted}"));
    }
    if document.is_some_and(|document| document.get("introspection_signing_alg_values_supported").is_some()) {
        let text = "the answer is not signed, and the issuer says that it can sign: `signed: required` asks for it";
        report.add(SECTION, "signature", Mark::Note, text);
    }
}
