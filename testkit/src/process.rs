//! Programs under test, real peers too: started with captured output, killed with the test that started them.
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::http1::lock;

/// A loopback port that nobody listens on at this moment. It lies below the range from which the kernel takes ports for
/// those who do not care (Linux: 32768 and up), so no test beside this one can get it meanwhile.
pub fn free_port() -> u16 {
    const FIRST: u32 = 20_000;
    const COUNT: u32 = 12_000;
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    let start = std::process::id().wrapping_mul(61);
    let mut candidates = (0..COUNT).map(|_| {
        let next = start.wrapping_add(GIVEN.fetch_add(1, Ordering::Relaxed));
        u16::try_from(FIRST + next % COUNT).expect("below 32768")
    });
    candidates.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).expect("a free loopback port")
}

/// A running program. Dropping it kills it.
pub struct Process {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Arc<Mutex<String>>,
    stderr: Arc<Mutex<String>>,
    readers: Vec<JoinHandle<()>>,
}

impl Process {
    /// Starts `program`; in a test of the binary that is `env!("CARGO_BIN_EXE_countersign")`.
    #[track_caller]
    pub fn start<S: AsRef<OsStr>>(program: impl AsRef<OsStr>, arguments: &[S]) -> Process {
        let mut command = Command::new(program.as_ref());
        command.args(arguments);
        Process::start_command(command)
    }

    /// For a working folder or environment of one's own.
    #[track_caller]
    pub fn start_command(mut command: Command) -> Process {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let program = command.get_program().to_owned();
        let mut child = command.spawn().unwrap_or_else(|error| panic!("cannot start {program:?}: {error}"));
        let (stdout, stderr) = (Arc::default(), Arc::default());
        let readers = vec![
            collect(child.stdout.take().expect("piped"), Arc::clone(&stdout)),
            collect(child.stderr.take().expect("piped"), Arc::clone(&stderr)),
        ];
        Process { stdin: child.stdin.take(), child, stdout, stderr, readers }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has written to its standard output so far.
    pub fn stdout(&self) -> String {
        lock(&self.stdout).clone()
    }

    /// What it has written to its standard error so far.
    pub fn stderr(&self) -> String {
        lock(&self.stderr).clone()
    }

    /// Writes a line to its standard input.
    #[track_caller]
    pub fn write_line(&mut self, line: &str) {
        self.try_write_line(line).expect("it reads its standard input");
    }

    /// The same, for a program that may have ended.
    #[track_caller]
    pub fn try_write_line(&mut self, line: &str) -> std::io::Result<()> {
        let stdin = self.stdin.as_mut().expect("its standard input is open");
        writeln!(stdin, "{line}").and_then(|()| stdin.flush())
    }

    pub fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// The first line on standard output or error that holds `part`. Panics, with all output, after `limit` or when the
    /// program ends without it.
    #[track_caller]
    pub fn wait_line(&mut self, part: &str, limit: Duration) -> String {
        let end = Instant::now() + limit;
        loop {
            let ended = self.child.try_wait().expect("a child").is_some();
            if ended {
                self.join_readers();
            }
            let (stdout, stderr) = (self.stdout(), self.stderr());
            if let Some(line) = stdout.lines().chain(stderr.lines()).find(|line| line.contains(part)) {
                return line.to_owned();
            }
            assert!(!ended, "ended without `{part}`\nstdout:\n{stdout}\nstderr:\n{stderr}");
            assert!(Instant::now() < end, "no `{part}` in {limit:?}\nstdout:\n{stdout}\nstderr:\n{stderr}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Sends a signal by its name without `SIG`: `TERM`, `HUP`, `INT`, `KILL`, `STOP`, `CONT`.
    #[track_caller]
    pub fn signal(&self, name: &str) {
        let kill = Command::new("kill").arg(format!("-{name}")).arg(self.id().to_string()).status().expect("kill(1)");
        assert!(kill.success(), "cannot send SIG{name}");
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("a child").is_none()
    }

    /// Waits for its end.
    #[track_caller]
    pub fn wait(&mut self, limit: Duration) -> ExitStatus {
        let end = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                self.join_readers();
                return status;
            }
            let (stdout, stderr) = (self.stdout(), self.stderr());
            assert!(Instant::now() < end, "still running after {limit:?}\nstdout:\n{stdout}\nstderr:\n{stderr}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Resident memory in KiB, as the kernel says.
    pub fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).expect("a running process");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("VmRSS");
        line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number")
    }

    /// A grandchild may hold the pipes open for longer; what it writes is not waited for.
    fn join_readers(&mut self) {
        let end = Instant::now() + Duration::from_secs(1);
        while self.readers.iter().any(|reader| !reader.is_finished()) && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn collect(from: impl Read + Send + 'static, into: Arc<Mutex<String>>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let mut from = BufReader::new(from);
        let mut line = Vec::new();
        while from.read_until(b'\n', &mut line).is_ok_and(|bytes| bytes > 0) {
            lock(&into).push_str(&String::from_utf8_lossy(&line));
            line.clear();
        }
    })
}

/// Runs a program to its end and gives status, standard output and standard error.
#[track_caller]
pub fn run<S: AsRef<OsStr>>(program: impl AsRef<OsStr>, arguments: &[S]) -> (ExitStatus, String, String) {
    let mut process = Process::start(program, arguments);
    process.close_stdin();
    let status = process.wait(Duration::from_secs(60));
    (status, process.stdout(), process.stderr())
}
