//! `countersign token inspect`: reads a token from standard input, gathers what to judge it with, and prints the findings.
use super::table::{Cell, Table, Tone};
use super::{counted, issuer_named};
use crate::cli::InspectArgs;
use crate::config::{self, Files};
use crate::exit::Exit;
use crate::inspect::{Judge, Mark, Report, inspect};
use std::io::{Read, Write};
use std::path::Path;
use trust::jwk::KeySet;

const INPUT_BYTES_MAX: u64 = 1024 * 1024;
const KEYS_BYTES_MAX: usize = 256 * 1024;

/// `now` in Unix seconds.
pub fn run(
    args: &InspectArgs,
    files: &dyn Files,
    input: &mut dyn Read,
    now: i64,
    out: &mut dyn Write,
) -> std::io::Result<Exit> {
    let profile = match &args.issuer {
        None => None,
        Some(name) => match issuer_named(&args.config.path, name, args.json, files, out)? {
            Ok(named) => Some(named.profile),
            Err(exit) => return Ok(exit),
        },
    };
    let configured = profile.as_ref().and_then(|profile| profile.settings().jwks_file.clone());
    let keys = match args.jwks.as_ref().or(configured.as_ref()) {
        None => None,
        Some(path) => match keys(path, files) {
            Ok(keys) => Some(keys),
            Err(problem) => {
                writeln!(out, "{}: {problem}", config::problem::printable(&path.display().to_string()))?;
                return Ok(Exit::Usage);
            }
        },
    };
    let mut token = Vec::new();
    input.take(INPUT_BYTES_MAX).read_to_end(&mut token)?;
    let report = inspect(&token, &Judge { profile: profile.as_deref(), keys: keys.as_ref(), now });
    if args.json {
        writeln!(out, "{:#}", report.to_json())?;
    } else {
        write_report(&report, out)?;
    }
    Ok(if report.wrong() == 0 { Exit::Good } else { Exit::Bad })
}

pub(super) fn keys(path: &Path, files: &dyn Files) -> Result<KeySet, String> {
    let contents = files.read(path, KEYS_BYTES_MAX).map_err(|error| format!("the keys cannot be read: {error}"))?;
    let (keys, _left_out) = KeySet::parse(&contents.bytes).map_err(|error| {
        format!("no usable key set: {error}; give the JWK Set that the issuer's `jwks_uri` answers")
    })?;
    Ok(keys)
}

pub(super) fn write_report(report: &Report, out: &mut dyn Write) -> std::io::Result<()> {
    let mut table = Table::default();
    let mut section = "";
    for finding in &report.0 {
        let head = if finding.section == section { "" } else { finding.section };
        section = finding.section;
        let (mark, tone) = match finding.mark {
            Mark::Good => ("ok", Tone::Good),
            Mark::Wrong => ("WRONG", Tone::Bad),
            Mark::Note => ("", Tone::Dim),
            Mark::Unchecked => ("?", Tone::Dim),
        };
        let name = Cell::new(&finding.name, Tone::Plain);
        table.row(vec![Cell::new(head, Tone::Head), Cell::new(mark, tone), name, finding.text.as_str().into()]);
    }
    write!(out, "{}", table.render(0))?;
    match report.wrong() {
        0 => writeln!(out, "\n\x1b[1;32mnothing wrong found\x1b[0m"),
        n => writeln!(out, "\n\x1b[1;31m{} found\x1b[0m, each marked WRONG above", counted(n, "mistake")),
    }
}
