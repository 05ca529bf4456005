//! Judges what an issuer answered, piece by piece, and says for each piece what to mend. What counts as right is known by
//! `trust`, which judges tokens and keys by the same functions; nothing is asked of the network here.

mod introspection;

use crate::inspect::{Mark, Report};
use control::examine::{Answer, Examined, Step};
use serde_json::Value;
use trust::issuer::{Introspect, NameSet, Profile};
use trust::jwk::{KeySet, LeftOut};
use trust::keys::Freshness;

/// Clocks that differ by more than this are worth a note, although the leeway may forgive it. Seconds.
const SKEW_NOTED_S: i64 = 5;
/// Key sets that may be called fresh for longer are asked for sooner anyway.
const FRESH_MAX_S: u64 = 3_600;
const DAY_S: u64 = 86_400;

/// The issuer's keys as the last good answer had them, for judging a token.
pub fn keys(examined: &Examined) -> Option<KeySet> {
    let last =
        examined.keys.iter().rev().find_map(|step| step.answer.as_ref().ok().filter(|answer| answer.status == 200))?;
    KeySet::parse(&last.body).ok().map(|(keys, _)| keys)
}

/// `now` in Unix seconds, at the time of the answers.
pub fn judge(
    profile: &Profile,
    asking: Option<&feed::Introspection>,
    examined: &Examined,
    now: i64,
    report: &mut Report,
) {
    let document = examined.discovery.as_ref().and_then(|step| discovery(profile, step, report));
    clock(profile, examined, now, report);
    match examined.keys.first() {
        Some(first) => key_set(profile, first, examined.keys.get(1), report),
        // One mistake, one finding: discovery said it.
        None if examined.discovery.is_some() => {
            report.add("keys", "place", Mark::Unchecked, "not known until discovery is mended, or `jwks_uri:` is set");
        }
        None => report.add("keys", "place", Mark::Note, "a file of the configuration; `countersign check` reads it"),
    }
    configured(profile, document.as_ref(), report);
    if let (Some(asking), Some(questioned)) = (asking, &examined.introspection) {
        introspection::judge(asking, questioned, document.as_ref(), report);
    }
    match &examined.fetched {
        Ok(()) => report.add("verdict", "keys", Mark::Good, "countersign would have this issuer's keys"),
        Err(why) => {
            let text = format!("countersign would have no keys of this issuer, and refuse its tokens with 503: {why}");
            report.add("verdict", "keys", Mark::Wrong, text);
        }
    }
}

/// The body of a good answer; else the finding why there is none.
fn good_body<'a>(section: &'static str, step: &'a Step, report: &mut Report) -> Option<&'a Answer> {
    let what = match &step.answer {
        Ok(answer) if answer.status == 200 => return Some(answer),
        Ok(answer) if (300..400).contains(&answer.status) => {
            let to = answer.headers.get("location").and_then(|to| to.to_str().ok()).unwrap_or("somewhere");
            format!(
                "{} redirects ({}) to `{to}`, and redirects are not followed: configure the place itself",
                step.url, answer.status
            )
        }
        Ok(answer) => {
            format!("{} answers with status {}: is this the issuer's URL, and is it up?", step.url, answer.status)
        }
        Err(why) => {
            format!("{}: {why}. Check the name, the firewall between here and there, and the certificate", step.url)
        }
    };
    report.add(section, "answer", Mark::Wrong, what);
    None
}

fn discovery(profile: &Profile, step: &Step, report: &mut Report) -> Option<Value> {
    let answer = good_body("discovery", step, report)?;
    let document: Value = match serde_json::from_slice(&answer.body) {
        Ok(document @ Value::Object(_)) => document,
        _ => {
            let text = format!("{} is no JSON object: {}", step.url, looks_like(answer));
            report.add("discovery", "document", Mark::Wrong, text);
            return None;
        }
    };
    report.add("discovery", "document", Mark::Good, format!("{}, {} bytes", step.url, answer.body.len()));
    let issuer = document.get("issuer").and_then(Value::as_str);
    match issuer {
        Some(issuer) if profile.accepts_discovered_issuer(issuer) => {
            report.add("discovery", "issuer", Mark::Good, format!("`{issuer}`"));
        }
        Some(issuer) => {
            let near = profile.near_miss(issuer).map(|near| format!(" ({near})")).unwrap_or_default();
            let text = format!(
                "the document is of `{issuer}`{near}, and `{}` is configured: tokens will carry the former, so write that under \
                 `issuer:`",
                profile.issuers().first().map_or("nothing", String::as_str)
            );
            report.add("discovery", "issuer", Mark::Wrong, text);
        }
        None => report.add(
            "discovery",
            "issuer",
            Mark::Wrong,
            "is missing: this is no discovery document of OpenID Connect",
        ),
    }
    match document.get("jwks_uri").and_then(Value::as_str) {
        Some(uri) => report.add("discovery", "jwks_uri", Mark::Note, format!("`{uri}`")),
        None => report.add(
            "discovery",
            "jwks_uri",
            Mark::Wrong,
            "is missing, so there is no place for keys; set `jwks_uri:`",
        ),
    }
    Some(document)
}

fn looks_like(answer: &Answer) -> &'static str {
    let text = String::from_utf8_lossy(&answer.body);
    if text.trim_start().starts_with('<') {
        "it is a web page. Something between here and the issuer asks for a sign-in, or the URL is another one's"
    } else if text.trim().is_empty() {
        "it is empty"
    } else {
        "something else answers there; look at it with curl"
    }
}

/// By the `Date` of any answer: a clock that is off makes good tokens look expired, or too young.
fn clock(profile: &Profile, examined: &Examined, now: i64, report: &mut Report) {
    let answers = examined.discovery.iter().chain(&examined.keys).filter_map(|step| step.answer.as_ref().ok());
    let told = answers.filter_map(|answer| answer.headers.get("date")?.to_str().ok()).find_map(unix_seconds);
    let Some(told) = told else {
        let text = "not compared: no answer carries a `Date`";
        return report.add("clock", "difference", Mark::Unchecked, text);
    };
    let off = now.saturating_sub(told);
    let leeway = profile.settings().leeway_s;
    let which = if off > 0 { "ahead of" } else { "behind" };
    let text = format!("this host is {} s {which} the issuer; {leeway} s are forgiven (`leeway`)", off.abs());
    match off.abs() {
        within if within <= SKEW_NOTED_S => {
            report.add("clock", "difference", Mark::Good, format!("{within} s, as far as `Date` tells"));
        }
        within if within <= leeway => report.add("clock", "difference", Mark::Note, text),
        _ => {
            let fix = "good tokens will be refused as expired or not yet valid. Mend this host's time (chrony, systemd-timesyncd)";
            report.add("clock", "difference", Mark::Wrong, format!("{text}: {fix}"));
        }
    }
}

fn unix_seconds(date: &str) -> Option<i64> {
    let since = httpdate::parse_http_date(date).ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
    i64::try_from(since.as_secs()).ok()
}

fn key_set(profile: &Profile, step: &Step, again: Option<&Step>, report: &mut Report) {
    let Some(answer) = good_body("keys", step, report) else { return };
    let (keys, left_out) = match KeySet::parse(&answer.body) {
        Ok(parsed) => parsed,
        Err(error) => {
            let page = answer.body.trim_ascii_start().starts_with(b"<");
            let hint = if page { looks_like(answer) } else { "ask whoever runs the issuer" };
            report.add("keys", "set", Mark::Wrong, format!("{} has no usable key: {error}. {hint}", step.url));
            return;
        }
    };
    report.add("keys", "set", Mark::Good, format!("{}, {} usable", step.url, keys.keys().len()));
    for key in keys.keys().iter().take(16) {
        let algorithms: Vec<&str> = key.algorithms().iter().map(|algorithm| algorithm.name()).collect();
        report.add("keys", key.kid().unwrap_or("no kid"), Mark::Note, algorithms.join(", "));
    }
    for LeftOut { kid, why } in left_out.iter().take(16) {
        report.add("keys", kid.as_deref().unwrap_or("no kid"), Mark::Note, format!("not used: {why}"));
    }
    algorithms(profile, &keys, report);
    if keys.keys().len() > 1 && keys.keys().iter().any(|key| key.kid().is_none()) {
        let text = "a key has no `kid` beside others: tokens without `kid` are tried with at most 4 keys";
        report.add("keys", "kid", Mark::Note, text);
    }
    rotation(answer, report);
    agreement(&keys, again, report);
}

fn algorithms(profile: &Profile, keys: &KeySet, report: &mut Report) {
    let allowed = profile.algorithms();
    let names = |list: &[trust::jwk::Algorithm]| list.iter().map(|one| one.name()).collect::<Vec<_>>().join(", ");
    if keys.keys().iter().any(|key| key.algorithms().iter().any(|one| allowed.contains(one))) {
        return report.add("keys", "algorithms", Mark::Good, format!("keys for what is allowed: {}", names(allowed)));
    }
    let there: Vec<_> = keys.keys().iter().flat_map(|key| key.algorithms().to_vec()).collect();
    let text = format!(
        "no key fits an allowed algorithm ({}): the keys are for {}. Add it under `algorithms:`, if the issuer means to sign so",
        names(allowed),
        names(&there)
    );
    report.add("keys", "algorithms", Mark::Wrong, text);
}

/// How soon a rotation would be noticed without a token that needs it.
fn rotation(answer: &Answer, report: &mut Report) {
    let joined = |name: &str| {
        answer.headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).collect::<Vec<_>>().join(",")
    };
    let text = match Freshness::read(&joined("cache-control"), &joined("age")) {
        Freshness::Silent => {
            "no `max-age`: keys are looked for again within the hour, and at once when a token names a new one".into()
        }
        Freshness::NoCache => "`no-cache`: keys are looked for again every minute or so".to_owned(),
        Freshness::Seconds(seconds) if seconds > DAY_S => {
            format!(
                "fresh for {} d, says the issuer; keys are looked for again within the hour all the same",
                seconds / DAY_S
            )
        }
        Freshness::Seconds(seconds) => {
            format!("fresh for {seconds} s; looked for again after {} s", seconds.clamp(300, FRESH_MAX_S))
        }
    };
    report.add("keys", "rotation", Mark::Note, text);
}

fn agreement(keys: &KeySet, again: Option<&Step>, report: &mut Report) {
    let body = again.and_then(|step| step.answer.as_ref().ok()).map(|answer| &answer.body);
    let Some((second, _)) = body.and_then(|body| KeySet::parse(body).ok()) else { return };
    let thumbprints = |set: &KeySet| {
        let mut all: Vec<String> = set.keys().iter().map(|key| key.thumbprint().to_owned()).collect();
        all.sort();
        all
    };
    if thumbprints(keys) != thumbprints(&second) {
        let text = "two requests got two different sets: servers behind this name do not share their keys, or a rotation is \
                    under way. Tokens of one server fail wherever the other's keys are known";
        report.add("keys", "agreement", Mark::Wrong, text);
    }
}

/// What the configuration makes of this issuer, and what the issuer offers besides.
fn configured(profile: &Profile, document: Option<&Value>, report: &mut Report) {
    let settings = profile.settings();
    match (settings.audience.as_slice(), settings.clients.as_slice()) {
        ([], []) => {}
        ([], clients) => report.add("settings", "clients", Mark::Note, format!("tokens of {}", clients.join(", "))),
        (audience, _) => {
            report.add("settings", "audience", Mark::Note, format!("tokens for {}", audience.join(" or ")))
        }
    }
    let groups = match &settings.claims.groups {
        Some(path) => format!("read from `{}`", path.join(".")),
        None if profile.can_say(NameSet::Groups, "any") => "read from where this preset has them".to_owned(),
        None => {
            "never in a token, as configured: rules with `group:` cannot match. Set `claims: { groups: … }`".to_owned()
        }
    };
    report.add("settings", "groups", Mark::Note, groups);
    if settings.preset == trust::issuer::Preset::Entra {
        let text =
            "Entra leaves groups out of tokens of people with more than 200: they are unknown then, and allow nothing";
        report.add("settings", "overage", Mark::Note, text);
    }
    let offers = |name: &str| document.and_then(|document| document.get(name)).and_then(Value::as_str);
    if let Some(endpoint) = offers("introspection_endpoint").filter(|_| settings.introspect == Introspect::None) {
        report.add("issuer offers", "introspection", Mark::Note, format!("`{endpoint}`"));
    }
    let dpop = document.and_then(|document| document.get("dpop_signing_alg_values_supported"));
    if let Some(algorithms) = dpop.and_then(Value::as_array) {
        let names: Vec<&str> = algorithms.iter().filter_map(Value::as_str).collect();
        report.add("issuer offers", "DPoP", Mark::Note, names.join(", "));
    }
}
