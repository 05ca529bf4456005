//! A program under measurement: started on the cores it may use, its CPU time and memory read from `/proc`, children
//! and threads included. It is stopped when dropped, children too.
use crate::run::{output, program, succeeds};
use anyhow::{Context as _, Result, bail};
use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const START_LIMIT: Duration = Duration::from_secs(20);
const STOP_LIMIT: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(20);

pub(super) struct Running {
    child: Child,
    name: String,
}

impl Running {
    /// Starts `command` on `cores` (as taskset lists them) and waits until every port accepts.
    pub(super) fn start(name: &str, command: &[String], cores: &str, ports: &[u16], log: &Path) -> Result<Running> {
        if let Some(port) = ports.iter().find(|port| accepts(**port)) {
            bail!("something listens on port {port} already; stop it");
        }
        let output = fs::File::create(log)?;
        let mut pinned = Command::new("prlimit");
        pinned.args(["--nofile=16384:16384", "taskset", "-c", cores]).args(command);
        pinned.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let child = pinned.spawn().with_context(|| format!("cannot start {name}"))?;
        let mut running = Running { child, name: name.to_owned() };
        let deadline = Instant::now() + START_LIMIT;
        while !ports.iter().all(|port| accepts(*port)) {
            if running.child.try_wait()?.is_some() || Instant::now() > deadline {
                bail!("{name} did not start: see {}", log.display());
            }
            std::thread::sleep(POLL);
        }
        Ok(running)
    }

    /// CPU seconds in user and kernel mode so far.
    pub(super) fn cpu_s(&self, ticks_per_s: f64) -> Result<f64> {
        let ticks: u64 = self.family()?.iter().filter_map(|pid| ticks_of(&stat(*pid)?)).sum();
        Ok(f64::from(u32::try_from(ticks)?) / ticks_per_s)
    }

    /// Resident memory in MB: all of the biggest process, and what the others share with nobody.
    pub(super) fn resident_mb(&self) -> Result<f64> {
        let mut all: Vec<(u32, u32)> = self.family()?.iter().filter_map(|pid| memory_kb(*pid)).collect();
        all.sort_unstable();
        let (biggest, _) = all.pop().with_context(|| format!("{} has gone", self.name))?;
        let others: u32 = all.iter().map(|(_, anonymous)| anonymous).sum();
        Ok(f64::from(biggest + others) / 1024.0)
    }

    /// This process and its descendants.
    fn family(&self) -> Result<Vec<u32>> {
        let mut parents: Vec<(u32, u32)> = Vec::new();
        for entry in fs::read_dir("/proc")? {
            let pid = entry?.file_name().to_str().and_then(|name| name.parse().ok());
            if let Some(parent) = pid.and_then(|pid| stat(pid)?.get(1)?.parse().ok()) {
                parents.extend(pid.map(|pid| (pid, parent)));
            }
        }
        let mut family = vec![self.child.id()];
        let mut known = 0;
        while known < family.len() {
            known = family.len();
            for (pid, parent) in &parents {
                if family.contains(parent) && !family.contains(pid) {
                    family.push(*pid);
                }
            }
        }
        Ok(family)
    }
}

impl Drop for Running {
    /// SIGTERM first: a killed nginx master leaves its worker behind.
    fn drop(&mut self) {
        let pid = self.child.id().to_string();
        succeeds(program("kill", &["-TERM", &pid]));
        let deadline = Instant::now() + STOP_LIMIT;
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(POLL);
        }
        // Fails when it has ended already, which is what we want.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn accepts(port: u16) -> bool {
    TcpStream::connect(("127.0.0.1", port)).is_ok()
}

/// The fields of `/proc/PID/stat` after the command's name: state, parent, …
fn stat(pid: u32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(") ")?;
    Some(rest.split(' ').map(str::to_owned).collect())
}

/// `utime` and `stime`, fields 14 and 15 of proc(5).
fn ticks_of(stat: &[String]) -> Option<u64> {
    let field = |number: usize| stat.get(number - 3)?.parse::<u64>().ok();
    Some(field(14)? + field(15)?)
}

/// (`VmRSS`, `RssAnon`) in KiB.
fn memory_kb(pid: u32) -> Option<(u32, u32)> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name))?;
        line.split_whitespace().nth(1)?.parse().ok()
    };
    Some((field("VmRSS:")?, field("RssAnon:")?))
}

pub(super) fn ticks_per_s() -> Result<f64> {
    output(program("getconf", &["CLK_TCK"]))?.trim().parse().context("getconf CLK_TCK")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_and_kernel_time_are_fields_14_and_15() {
        let line = "S 1 2 3 0 -1 4194560 5 6 7 8 41 17 0 0 20 0";
        let fields: Vec<String> = line.split(' ').map(str::to_owned).collect();
        assert_eq!(ticks_of(&fields), Some(58));
        assert_eq!(ticks_of(&[]), None);
    }

    #[test]
    fn this_process_has_a_stat_and_memory() {
        let stat = stat(std::process::id()).unwrap();
        assert!(ticks_of(&stat).is_some());
        let (resident, anonymous) = memory_kb(std::process::id()).unwrap();
        assert!(resident >= anonymous && anonymous > 0);
    }
}
