//! `countersign audit verify|show|grep`: the audit log checked and searched, from its files alone.

use std::io::Write;

use proxy::audit::Record;
use proxy::audit::chain::{Place, Report};
use proxy::audit::read;

use super::why::{list, log_files};
use crate::cli::{AuditArgs, AuditCommand, AuditFileArgs};
use crate::exit::Exit;
use crate::text::{clean, moment};

pub fn run(args: &AuditArgs, out: &mut dyn Write) -> anyhow::Result<Exit> {
    match &args.command {
        AuditCommand::Verify(files) => verify(files, out),
        AuditCommand::Show { id, files } => show(id, files, out),
        AuditCommand::Grep { terms, files } => grep(terms, files, out),
    }
}

fn verify(args: &AuditFileArgs, out: &mut dyn Write) -> anyhow::Result<Exit> {
    let files = log_files(args.file.as_deref(), args.state.state.as_deref())?;
    let report = read::verify(&files)?;
    if args.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&as_json(&report))?)?;
    } else {
        tell(&report, &list(&files), out)?;
    }
    Ok(if report.finding.is_none() { Exit::Good } else { Exit::Bad })
}

fn as_json(report: &Report) -> serde_json::Value {
    let truncated_at: Vec<_> = report
        .truncated_at
        .iter()
        .map(|at| serde_json::json!({ "file": at.file.as_path(), "line": at.line }))
        .collect();
    let finding = report.finding.as_ref().map(|finding| {
        serde_json::json!({ "file": finding.at.file.as_path(), "line": finding.at.line, "record": finding.record, "fault": finding.fault.to_string() })
    });
    serde_json::json!({
        "whole": report.finding.is_none(), "lines": report.lines, "decisions": report.decisions,
        "processes": report.processes, "missing": report.gaps, "truncated_at": truncated_at, "finding": finding,
    })
}

fn tell(report: &Report, files: &str, out: &mut dyn Write) -> std::io::Result<()> {
    match &report.finding {
        None => writeln!(
            out,
            "\x1b[1;32mwhole\x1b[0m  {} decisions of {} process(es) in {} lines of {files}",
            report.decisions, report.processes, report.lines
        )?,
        Some(finding) => {
            writeln!(
                out,
                "\x1b[1;31mnot whole\x1b[0m  {} at {}:{}",
                clean(&finding.record),
                finding.at.file.display(),
                finding.at.line
            )?;
            writeln!(out, "  {}; everything before it is whole, nothing after it was looked at", finding.fault)?;
        }
    }
    for Place { file, line } in &report.truncated_at {
        writeln!(out, "  truncated at {}:{line}: the process was stopped while writing; not tampered", file.display())?;
    }
    if report.gaps > 0 {
        writeln!(out, "  {} records are missing: the log could not be written then, and says so itself", report.gaps)?;
    }
    Ok(())
}

fn show(id: &str, args: &AuditFileArgs, out: &mut dyn Write) -> anyhow::Result<Exit> {
    let files = log_files(args.file.as_deref(), args.state.state.as_deref())?;
    match read::find(&files, id)? {
        Some(record) => {
            writeln!(out, "{}", serde_json::to_string_pretty(&record)?)?;
            Ok(Exit::Good)
        }
        None => {
            writeln!(out, "no record of decision `{}` in {}", clean(id), list(&files))?;
            Ok(Exit::Bad)
        }
    }
}

fn grep(terms: &[String], args: &AuditFileArgs, out: &mut dyn Write) -> anyhow::Result<Exit> {
    let files = log_files(args.file.as_deref(), args.state.state.as_deref())?;
    let mut found = false;
    let mut failed = None;
    read::each_record(&files, |record, line| {
        if failed.is_some() || !terms.iter().all(|term| matches(&record, line, term)) {
            return;
        }
        found = true;
        let written =
            if args.json { out.write_all(line).and_then(|()| out.write_all(b"\n")) } else { one_line(&record, out) };
        failed = written.err();
    })?;
    match failed {
        Some(error) => Err(error.into()),
        None if found => Ok(Exit::Good),
        None => Ok(Exit::Bad),
    }
}

fn one_line(record: &Record, out: &mut dyn Write) -> std::io::Result<()> {
    let who = record.principal.as_ref().map_or("-", |who| &who.subject);
    let request = &record.request;
    writeln!(
        out,
        "{}  {}  {:<7} {:>3}  {:<20} {} {}{}  {}",
        moment(record.time_ms),
        clean(&record.id),
        record.decision.name(),
        record.status,
        clean(who),
        clean(&request.method),
        clean(&request.host),
        clean(&request.path),
        clean(record.reason.as_deref().unwrap_or_default()),
    )
}

/// `FIELD=VALUE` compares one field; a bare value is looked for in the whole line.
fn matches(record: &Record, line: &[u8], term: &str) -> bool {
    let Some((name, value)) = term.split_once('=') else {
        return String::from_utf8_lossy(line).contains(term);
    };
    let who = record.principal.as_ref();
    let found = match name {
        "id" => Some(record.id.clone()),
        "decision" => Some(record.decision.name().to_owned()),
        "reason" => record.reason.as_deref().map(str::to_owned),
        "service" => record.service.as_deref().map(str::to_owned),
        "rule" => record.rule.as_ref().map(|rule| rule.name.clone()),
        "sub" | "subject" => who.map(|who| who.subject.to_string()),
        "agent" => who.and_then(|who| who.agent.as_deref().map(str::to_owned)),
        "issuer" => who.map(|who| who.issuer.to_string()),
        "status" => Some(record.status.to_string()),
        "method" => Some(record.request.method.to_string()),
        "host" => Some(record.request.host.clone()),
        "path" => Some(record.request.path.clone()),
        "ip" | "client_ip" => record.request.client_ip.map(|ip| ip.to_string()),
        "txn" => record.txn.as_deref().map(str::to_owned),
        "trace_id" => record.trace_id.clone(),
        _ => None,
    };
    found.is_some_and(|found| found == value)
}
