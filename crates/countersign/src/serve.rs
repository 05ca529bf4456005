//! A serving process from start to end: signals, file changes, the minute's tick, the drain.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use notify::{RecursiveMode, Watcher as _};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use crate::config::{self, Problems};
use crate::running::Running;

/// What the records of a drain that was cut short may cost.
const LAST_FLUSH: Duration = Duration::from_secs(2);
const TICK: Duration = Duration::from_secs(60);
/// Editors write a file in several steps; a change counts when nothing more came for this long.
const SETTLE: Duration = Duration::from_millis(150);

/// Serves until a signal, or until `exit_after`. Then drains; a second signal ends the process at once.
pub async fn until_stopped(
    mut running: Running,
    config: &Path,
    watched: Vec<PathBuf>,
    exit_after: Option<Duration>,
) -> anyhow::Result<()> {
    let mut signals = Signals::new()?;
    let mut changes = Changes::watch(&watched);
    let mut tick = tokio::time::interval(TICK);
    let end = async {
        match exit_after {
            Some(after) => tokio::time::sleep(after).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(end);
    loop {
        tokio::select! {
            biased;
            name = stop(&mut signals.terminate, &mut signals.interrupt) => {
                tracing::info!(signal = name, "draining: no new connections are accepted");
                break;
            }
            () = &mut end => break,
            _ = signals.hangup.recv() => {
                running.reopen_logs();
                reload(&mut running, config, &mut changes);
            }
            () = changes.settled() => reload(&mut running, config, &mut changes),
            _ = tick.tick() => running.tick(),
        }
    }
    let audit = running.audit();
    let (ended, end) = tokio::sync::oneshot::channel();
    std::thread::Builder::new().name("drain".into()).spawn(move || {
        running.drain();
        // Nobody waits any more only if the second signal came first.
        let _sent = ended.send(());
    })?;
    tokio::select! {
        _ = end => Ok(()),
        _ = stop(&mut signals.terminate, &mut signals.interrupt) => {
            audit.flush(LAST_FLUSH);
            anyhow::bail!("a second signal ended the drain; open connections were cut")
        }
    }
}

/// Loads the files again. A file with problems changes nothing: the running configuration stays in force.
fn reload(running: &mut Running, config: &Path, changes: &mut Changes) {
    match config::load(config, &config::Disk) {
        Ok(loaded) => {
            log_problems(&loaded.warnings, "warning");
            *changes = Changes::watch(&loaded.watched);
            running.apply(loaded);
        }
        Err(problems) => {
            log_problems(&problems, "problem");
            tracing::error!(
                problems = problems.errors(),
                "the configuration was not loaded again; the running one stays in force"
            );
        }
    }
}

pub fn log_problems(problems: &Problems, kind: &str) {
    for problem in problems.iter() {
        tracing::warn!(place = %format!("{}:{}:{}", problem.file, problem.line, problem.column), what = %problem.what, fix = %problem.fix, "{kind}");
    }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> anyhow::Result<Signals> {
        let on = |kind| signal(kind).context("cannot listen for signals");
        Ok(Signals {
            terminate: on(SignalKind::terminate())?,
            interrupt: on(SignalKind::interrupt())?,
            hangup: on(SignalKind::hangup())?,
        })
    }
}

async fn stop(terminate: &mut Signal, interrupt: &mut Signal) -> &'static str {
    tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    }
}

/// Tells when a watched file changed and then stayed still for a moment.
struct Changes {
    events: mpsc::Receiver<()>,
    _watcher: Option<notify::RecommendedWatcher>,
}

impl Changes {
    /// Folders are watched, not files: editors and Kubernetes replace files by renaming.
    fn watch(paths: &[PathBuf]) -> Changes {
        let (send, events) = mpsc::channel(1);
        let wanted = Wanted::of(paths);
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            if event.is_ok_and(|event| !event.kind.is_access() && event.paths.iter().any(|path| wanted.covers(path))) {
                // A full channel already holds the news.
                let _full = send.try_send(());
            }
        });
        let mut watcher = match watcher {
            Ok(watcher) => watcher,
            Err(error) => {
                tracing::warn!(%error, "file changes are not seen; send SIGHUP after a change");
                return Changes { events, _watcher: None };
            }
        };
        let folders: std::collections::BTreeSet<&Path> = paths
            .iter()
            .map(|path| if path.is_dir() { path.as_path() } else { path.parent().unwrap_or(path) })
            .collect();
        for folder in folders {
            if let Err(error) = watcher.watch(folder, RecursiveMode::NonRecursive) {
                tracing::warn!(%error, folder = %folder.display(), "changes in this folder are not seen; send SIGHUP after a change");
            }
        }
        Changes { events, _watcher: Some(watcher) }
    }

    async fn settled(&mut self) {
        if self.events.recv().await.is_none() {
            return std::future::pending().await;
        }
        while let Ok(Some(())) = tokio::time::timeout(SETTLE, self.events.recv()).await {}
    }
}

/// Which changes in a watched folder matter: an audit log beside the configuration must not cause a reload per record.
struct Wanted {
    files: Vec<PathBuf>,
    folders: Vec<PathBuf>,
}

impl Wanted {
    fn of(paths: &[PathBuf]) -> Wanted {
        let (folders, files) = paths.iter().map(|path| absolute(path)).partition(|path| path.is_dir());
        Wanted { files, folders }
    }

    fn covers(&self, path: &Path) -> bool {
        let path = absolute(path);
        let yaml = path.extension().is_some_and(|ending| ending == "yaml" || ending == "yml");
        // Kubernetes swaps a link named `..data` under a mounted ConfigMap or Secret.
        let swapped = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b".."));
        let listed = path.parent().is_some_and(|parent| self.folders.iter().any(|folder| folder == parent));
        self.files.contains(&path) || swapped || (yaml && listed)
    }
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_changes_of_configuration_count() {
        let folder = tempfile::tempdir().unwrap();
        let services = folder.path().join("services");
        std::fs::create_dir(&services).unwrap();
        let wanted =
            Wanted::of(&[folder.path().join("countersign.yaml"), folder.path().join("edge.pem"), services.clone()]);
        let check = |name: &str, expected| assert_eq!(wanted.covers(&folder.path().join(name)), expected, "{name}");
        check("countersign.yaml", true);
        check("edge.pem", true);
        check("audit.ndjson", false);
        check("services/orders.yaml", true);
        check("services/new.yml", true);
        check("services/.orders.yaml.swp", false);
        check("..data", true);
    }
}
