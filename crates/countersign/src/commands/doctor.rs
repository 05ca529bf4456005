//! `countersign doctor ISSUER`: asks an issuer as the running process would, judges the answers and, if one is given, a
//! token, and prints what to mend. It changes nothing, here or there.
use super::{NamedIssuer, inspect, issuer_named};
use crate::cli::DoctorArgs;
use crate::config::Files;
use crate::doctor;
use crate::exit::Exit;
use crate::inspect::{Judge, Mark, Report};
use control::examine::{Examined, examine};
use serde_json::json;
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::path::Path;
use trust::issuer::Profile;
use trust::jwk::KeySet;
use trust::principal::Membership;
use trust::token::Peeked;

const INPUT_BYTES_MAX: u64 = 1024 * 1024;
/// Names of one set that are shown.
const NAMES_SHOWN: usize = 20;

/// `now` reads the clock, in Unix seconds: once the answers are there.
pub fn run(
    args: &DoctorArgs,
    files: &dyn Files,
    input: &mut dyn Read,
    now: impl FnOnce() -> i64,
    out: &mut dyn Write,
) -> anyhow::Result<Exit> {
    let named = match issuer_named(&args.config.path, &args.issuer, args.json, files, out)? {
        Ok(named) => named,
        Err(exit) => return Ok(exit),
    };
    let mut token = Vec::new();
    if args.token {
        input.take(INPUT_BYTES_MAX).read_to_end(&mut token)?;
    }
    let examined = asked(&named)?;
    let now = now();
    let mut report = Report::default();
    let profile = &named.profile;
    doctor::judge(profile, named.introspection.as_deref(), &examined, now, &mut report);
    if args.token {
        let keys = doctor::keys(&examined).or_else(|| kept(profile, files));
        let judge = Judge { profile: Some(profile), keys: keys.as_ref(), now };
        report.0.extend(crate::inspect::inspect(&token, &judge).0);
        yields(profile, keys.as_ref(), &token, now, &mut report);
    }
    if let Some(file) = &args.metrics {
        write_metrics(file, &args.issuer, &report, now)?;
    }
    if args.json {
        writeln!(out, "{:#}", report.to_json())?;
    } else {
        inspect::write_report(&report, out)?;
    }
    Ok(match report.wrong() {
        0 => Exit::Good,
        _ if is_silent(&examined) => Exit::Unreachable,
        _ => Exit::Bad,
    })
}

fn asked(named: &NamedIssuer) -> std::io::Result<Examined> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let looking = examine(&named.profile, named.introspection.as_ref(), control::Options::default());
    let examined = runtime.block_on(looking);
    // A name server that says nothing must not hold the end of the command.
    runtime.shutdown_background();
    Ok(examined)
}

fn kept(profile: &Profile, files: &dyn Files) -> Option<KeySet> {
    let file = profile.settings().jwks_file.as_ref()?;
    inspect::keys(file, files).ok()
}

/// Nothing answered at all.
fn is_silent(examined: &Examined) -> bool {
    let question = examined.introspection.iter().filter_map(|question| question.asked.as_ref().ok());
    let mut steps = examined.discovery.iter().chain(&examined.keys).chain(question).peekable();
    steps.peek().is_some() && steps.all(|step| step.answer.is_err())
}

/// Whom the edge would take the token's bearer for, as rules see him.
fn yields(profile: &Profile, keys: Option<&KeySet>, token: &[u8], now: i64, report: &mut Report) {
    let text = std::str::from_utf8(token).unwrap_or_default().trim();
    let Some(keys) = keys else { return };
    let Ok(verified) = Peeked::parse(text).and_then(|peeked| peeked.verify(profile, keys, now)) else { return };
    let principal = verified.principal();
    let kind = format!("{:?}", principal.kind).to_lowercase();
    report.add("yields", "principal", Mark::Note, format!("{kind} `{}`", principal.subject));
    for (name, set) in [("groups", &principal.groups), ("roles", &principal.roles), ("scopes", &principal.scopes)] {
        report.add("yields", name, Mark::Note, listed(set));
    }
    if let Some(agent) = &principal.agent {
        report.add("yields", "agent", Mark::Note, format!("`{}` acts for this principal", agent.name));
    }
}

fn listed(set: &Membership) -> String {
    let all: Vec<&str> = set.names().map(AsRef::as_ref).collect();
    let mut text = all.iter().take(NAMES_SHOWN).copied().collect::<Vec<_>>().join(", ");
    if all.is_empty() {
        text.push_str("none");
    }
    if all.len() > NAMES_SHOWN {
        let _ = write!(text, " and {} more", all.len() - NAMES_SHOWN);
    }
    if !set.is_complete() {
        text.push_str("; and unknown ones: the issuer left some out, so no rule may count on their absence");
    }
    text
}

/// For a collector of text files (Prometheus node exporter). Written beside and moved, so that nobody reads half of it.
fn write_metrics(file: &Path, issuer: &str, report: &Report, now: i64) -> std::io::Result<()> {
    let issuer = json!(issuer).to_string();
    let (wrong, ok) = (report.wrong(), u8::from(report.wrong() == 0));
    let text = format!(
        "# HELP countersign_doctor_ok Whether the last look at the issuer found nothing wrong.\n\
         # TYPE countersign_doctor_ok gauge\ncountersign_doctor_ok{{issuer={issuer}}} {ok}\n\
         # HELP countersign_doctor_wrong Findings of the last look that are wrong.\n\
         # TYPE countersign_doctor_wrong gauge\ncountersign_doctor_wrong{{issuer={issuer}}} {wrong}\n\
         # HELP countersign_doctor_looked_seconds Unix time of the last look.\n\
         # TYPE countersign_doctor_looked_seconds gauge\ncountersign_doctor_looked_seconds{{issuer={issuer}}} {now}\n"
    );
    let beside = file.with_extension("tmp");
    std::fs::write(&beside, text)?;
    std::fs::rename(&beside, file)
}
