//! Resident memory of fresh processes: at rest, and with idle keep-alive connections, each after one answered request.
//! No load runs meanwhile.
use super::Bench;
use super::figures::{Case, FIGURES, Figure, OURS, PLAIN, PROCESSES, TLS};
use super::load::LOAD_CORE;
use crate::peers::python_of;
use crate::report::Report;
use crate::run::program;
use anyhow::{Context as _, Result, bail};
use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

const AT_REST: &str = "memory, idle";
const AT_REST_MB_MAX: f64 = 20.0;
/// What 1,000 plain connections may take beyond what nginx needs for them.
const BEYOND_NGINX_MB: f64 = 8.0;
const HOLD: [(&str, Case, u32); 4] = [
    ("memory, 1,000 idle connections", PLAIN, 1000),
    ("memory, 1,000 idle TLS connections", TLS, 1000),
    ("memory, 10,000 idle connections", PLAIN, 10_000),
    ("memory, 10,000 idle TLS connections", TLS, 10_000),
];
/// nginx takes memory for all its `worker_connections` at once, so it gets more of them only where they are needed.
pub(super) const NGINX_FOR_MANY: &str = "nginx-many";
const MANY: u32 = 5000;

pub(super) fn measure(bench: &Bench<'_>, report: &mut Report) -> Result<()> {
    let _origin = bench.start_origin()?;
    for process in PROCESSES.iter().filter(|process| process.workers == 1 && bench.wants(process.name)) {
        let resident = bench.start(process.name)?.resident_mb()?;
        println!("   {AT_REST:<36} {:<28} {resident:6.1} MB", process.name);
        report.add(AT_REST, process.name, "MB", &[resident]);
    }
    for (title, like, count) in HOLD {
        for figure in FIGURES.iter().filter(|figure| figure.case.key == like.key && bench.wants(figure.subject)) {
            let name = figure.processes.first().copied().context("no process")?;
            let many = name == "nginx" && count > MANY;
            let running = bench.start(if many { NGINX_FOR_MANY } else { name })?;
            let resident = with_idle_connections(figure, count, || running.resident_mb())?;
            println!("   {title:<36} {:<28} {resident:6.1} MB", figure.subject);
            report.add(title, figure.subject, "MB", &[resident]);
        }
    }
    targets(report);
    Ok(())
}

fn targets(report: &mut Report) {
    report.limit(AT_REST, OURS, AT_REST_MB_MAX);
    let [(plain, ..), (tls, ..), many @ ..] = HOLD;
    if let Some(nginx_mb) = report.value(plain, "nginx") {
        report.limit(plain, OURS, nginx_mb + BEYOND_NGINX_MB);
    }
    if let Some(nginx_mb) = report.value(tls, "nginx") {
        report.limit(tls, OURS, nginx_mb);
    }
    for (title, ..) in many {
        report.compare((title, OURS), (title, "nginx"), None);
    }
}

/// Measures while a client of its own holds the connections.
fn with_idle_connections(figure: &Figure, count: u32, measure: impl FnOnce() -> Result<f64>) -> Result<f64> {
    let (port, path) = figure.port_and_path().context("no port")?;
    let python = python_of("bench").to_string_lossy().into_owned();
    let mut command = program("taskset", &["-c", LOAD_CORE, &python, "bench/edge/idle.py"]);
    command.args([&port.to_string(), &count.to_string(), path]).args((figure.case.key == TLS.key).then_some("tls"));
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut line = String::new();
    BufReader::new(child.stdout.take().context("no output")?).read_line(&mut line)?;
    let held = line.trim() == "held";
    let measured = held.then(measure);
    drop(child.stdin.take());
    child.wait()?;
    let Some(measured) = measured else { bail!("{} refused one of {count} connections", figure.subject) };
    measured
}
