//! `countersign why ID`: one refused (or allowed) request explained to an operator, from its audit record alone.

use std::io::Write;
use std::path::{Path, PathBuf};

use proxy::audit::Record;
use proxy::audit::read;
use proxy::audit::record::Decision;
use trust::policy::{ClauseTrace, Held, RuleTrace};

use crate::cli::WhyArgs;
use crate::exit::Exit;
use crate::operator;
use crate::text::{clean, moment};

pub fn run(args: &WhyArgs, out: &mut dyn Write) -> anyhow::Result<Exit> {
    let files = log_files(args.file.as_deref(), args.state.state.as_deref())?;
    let Some(record) = read::find(&files, &args.id)? else {
        writeln!(out, "no record of decision `{}` in {}", clean(&args.id), list(&files))?;
        return Ok(Exit::Usage);
    };
    if args.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&record)?)?;
    } else {
        explain(&record, out)?;
    }
    Ok(Exit::Good)
}

/// The audit files meant by `--file`, or those of the running (or last) process of a state folder.
pub fn log_files(file: Option<&Path>, state: Option<&Path>) -> anyhow::Result<Vec<PathBuf>> {
    let file = match file {
        Some(file) => file.to_owned(),
        None => {
            let folder = operator::find(state);
            // A running process may hold the newest records for some milliseconds; one that does not run holds none.
            let _flushed = operator::ask(&folder, &operator::Question::Flush);
            match operator::facts(&folder) {
                Ok(facts) => facts.audit,
                Err(missing) => {
                    let usual = folder.join("audit.ndjson");
                    if usual.exists() { usual } else { return Err(missing) }
                }
            }
        }
    };
    let files = read::files_of(&file);
    anyhow::ensure!(!files.is_empty(), "there is no audit log `{}`: name it with --file", file.display());
    Ok(files)
}

pub fn list(files: &[PathBuf]) -> String {
    files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(", ")
}

fn explain(record: &Record, out: &mut dyn Write) -> std::io::Result<()> {
    let request = &record.request;
    let (word, colour) = match record.decision {
        Decision::Permit => ("allowed", "32"),
        Decision::Deny => ("denied", "31"),
        Decision::StepUp => ("asked for a stronger sign-in", "33"),
        Decision::Refuse => ("refused", "31"),
        Decision::Error => ("allowed, then failed", "33"),
        Decision::Preflight => ("answered by `cors:`, without a decision", "32"),
    };
    writeln!(
        out,
        "\x1b[1;{colour}m{word}\x1b[0m  {} {}{}  -> {}",
        clean(&request.method),
        clean(&request.host),
        clean(&request.path),
        record.status
    )?;
    let service = record.service.as_deref().unwrap_or("none");
    field(
        out,
        "decision",
        &format!(
            "{} at {}, by {}, epoch {}",
            clean(&record.id),
            moment(record.time_ms),
            clean(&record.own),
            record.epoch
        ),
    )?;
    field(
        out,
        "service",
        &format!(
            "{}, caller {} from {} ({})",
            clean(service),
            clean(&request.peer),
            request.client_ip.map_or_else(|| "an unknown address".to_owned(), |ip| ip.to_string()),
            clean(&request.protocol)
        ),
    )?;
    if let Some(reason) = &record.reason {
        let detail = record.detail.as_deref().map_or(String::new(), |detail| format!(": {}", clean(detail)));
        field(out, "reason", &format!("{}{detail}", clean(reason)))?;
    }
    if let Some(rule) = &record.rule {
        field(out, "rule", &format!("{} ({})", clean(&rule.name), place(&rule.place)))?;
    }
    if let Some(upstream) = &record.upstream {
        let tries = if upstream.tries == 1 { String::new() } else { format!(", at try {}", upstream.tries) };
        field(out, "upstream", &format!("{}{tries}", clean(&upstream.address)))?;
    }
    who(record, out)?;
    for rule in &record.shadow {
        field(
            out,
            "shadow",
            &format!("rule `{}` would have matched ({}); it is not enforced", clean(&rule.name), place(&rule.place)),
        )?;
    }
    if let Some(explanation) = &record.explanation {
        rules(&explanation.rules, out)?;
    }
    Ok(())
}

fn who(record: &Record, out: &mut dyn Write) -> std::io::Result<()> {
    match &record.principal {
        Some(who) => {
            let agent = who.agent.as_deref().map_or(String::new(), |agent| format!(", through agent {}", clean(agent)));
            field(out, "who", &format!("{} {}{agent}", who.kind, clean(&who.subject)))?;
            let groups: Vec<String> = who.groups.iter().map(|group| clean(group)).collect();
            let named = if groups.is_empty() { "none that a rule mentions".to_owned() } else { groups.join(", ") };
            let state = if who.groups_state == "complete" { "" } else { " (UNKNOWN: the issuer left some out)" };
            field(out, "groups", &format!("{named}{state}"))?;
        }
        None => field(out, "who", "nobody: no token was accepted")?,
    }
    let Some(token) = &record.token else { return Ok(()) };
    let mut parts = Vec::new();
    parts.extend(token.issuer.as_deref().map(|issuer| format!("issuer {}", clean(issuer))));
    parts.extend(token.kid.as_deref().map(|kid| format!("kid {}", clean(kid))));
    parts.extend(token.keys_version.map(|version| format!("key set v{version}")));
    parts.extend(token.keys_age_s.map(|age| format!("{age} s old")));
    if let Some(facts) = &token.facts {
        let now = i64::try_from(record.time_ms / 1000).unwrap_or(i64::MAX);
        parts.push(format!("audience {}", facts.audience.iter().map(|a| clean(a)).collect::<Vec<_>>().join(", ")));
        parts.extend(facts.issued_at.map(|at| relative("issued", at - now)));
        parts.push(relative("ends", facts.expires_at - now));
        parts.push(if token.cached { "verified before".into() } else { "verified for this request".into() });
    }
    field(out, "token", &parts.join(", "))
}

/// `issued 4 s before`, `ends 3596 s after` the request; a token from the future shows a clock that is off.
fn relative(what: &str, seconds: i64) -> String {
    match seconds {
        0 => format!("{what} in the same second"),
        s if s < 0 => format!("{what} {} s before", s.unsigned_abs()),
        s if what == "issued" => format!("{what} {s} s AFTER (a clock is off)"),
        s => format!("{what} {s} s after"),
    }
}

fn rules(traces: &[RuleTrace], out: &mut dyn Write) -> std::io::Result<()> {
    if traces.is_empty() {
        return writeln!(out, "\nNo rule speaks of this method and path.");
    }
    writeln!(out, "\nNearest rules, the one that lacks least first:")?;
    for trace in traces {
        let list = if trace.never { "never" } else { "rule" };
        let shadow = if trace.shadow { ", shadow" } else { "" };
        writeln!(out, "  {list} `{}` ({}{shadow})", clean(&trace.rule.name), place(&trace.rule.place))?;
        for clause in &trace.clauses {
            self::clause(clause, out)?;
        }
    }
    Ok(())
}

fn clause(clause: &ClauseTrace, out: &mut dyn Write) -> std::io::Result<()> {
    let (mark, colour) = match clause.held {
        Held::Yes => ("pass", "32"),
        Held::No => ("FAIL", "31"),
        Held::Unknown => ("UNKNOWN", "33"),
        Held::Error => ("ERROR", "33"),
    };
    let change = clause.change.as_deref().map_or(String::new(), |change| format!("   <- {}", clean(change)));
    writeln!(out, "    \x1b[{colour}m{mark:<7}\x1b[0m {:<12} {}{change}", clean(&clause.clause), clean(&clause.asks))
}

fn field(out: &mut dyn Write, name: &str, value: &str) -> std::io::Result<()> {
    writeln!(out, "  {name:<9} {value}")
}

fn place(place: &trust::policy::Place) -> String {
    format!("{}:{}", clean(&place.file), place.line)
}
