//! The operator's socket of a running process, and how commands find it: `STATE/operator.sock`, one JSON line each way.
//!
//! Only the user that runs the process can reach it: the state folder has mode 0700, the socket 0600.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _};

const SOCKET: &str = "operator.sock";
const FACTS: &str = "process.json";
const QUESTION_BYTES_MAX: u64 = 64 * 1024;
const ANSWER_BYTES_MAX: u64 = 16 * 1024 * 1024;
const PATIENCE: Duration = Duration::from_secs(5);
/// Where `countersign run` keeps its state unless told otherwise.
pub const DEFAULT_STATE: &str = "/var/lib/countersign";

/// What a command asks a running process.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub enum Question {
    Keys,
    /// Write the audit records of all that happened until now.
    Flush,
    /// Withdraw a key of an issuer at once, whatever the issuer publishes.
    KillKey {
        issuer: String,
        kid: String,
    },
    /// Fetch the keys of an issuer now.
    RefreshKeys {
        issuer: String,
    },
    /// `countersign dev` only: a token of the demo issuer.
    Token {
        name: String,
        agent: Option<String>,
    },
}

/// Facts about a running process, left in its state folder so that commands work also when it does not answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Facts {
    pub pid: u32,
    pub edge: Vec<String>,
    #[serde(default)]
    pub authz: Vec<String>,
    #[serde(default)]
    pub token_endpoint: Vec<String>,
    pub admin: String,
    pub audit: PathBuf,
}

/// What answers questions: the process's parts, each behind one function.
pub trait Answers: Send + Sync + 'static {
    fn answer(&self, question: Question) -> Result<serde_json::Value, String>;
}

/// The socket and the facts of this process; both are removed on drop.
pub struct Operator {
    folder: PathBuf,
}

impl Operator {
    /// Makes the state folder if it is missing, refuses one that others may enter, and answers from now on.
    pub fn start(folder: &Path, facts: &Facts, answers: Arc<dyn Answers>) -> anyhow::Result<Operator> {
        make_private(folder)?;
        let socket = folder.join(SOCKET);
        refuse_second(folder)?;
        if socket.exists() {
            std::fs::remove_file(&socket)
                .with_context(|| format!("cannot remove the old socket `{}`", socket.display()))?;
        }
        let listener = tokio::net::UnixListener::bind(&socket)
            .with_context(|| format!("cannot listen on `{}`", socket.display()))?;
        std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o600))?;
        std::fs::write(folder.join(FACTS), serde_json::to_vec_pretty(facts)?)?;
        tokio::spawn(serve(listener, answers));
        Ok(Operator { folder: folder.to_owned() })
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        for name in [SOCKET, FACTS] {
            // Already gone is as good as removed.
            let _removed = std::fs::remove_file(self.folder.join(name));
        }
    }
}

async fn serve(listener: tokio::net::UnixListener, answers: Arc<dyn Answers>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let answers = Arc::clone(&answers);
                // One question at a time is plenty for a person; a silent caller is cut by the time limit.
                let _late = tokio::time::timeout(PATIENCE, answer_one(stream, answers)).await;
            }
            Err(error) => {
                tracing::warn!(%error, "the operator's socket does not accept");
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    }
}

async fn answer_one(stream: tokio::net::UnixStream, answers: Arc<dyn Answers>) -> std::io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut line = String::new();
    tokio::io::BufReader::new(read.take(QUESTION_BYTES_MAX)).read_line(&mut line).await?;
    let outcome = match serde_json::from_str(&line) {
        Ok(question) => answers.answer(question),
        Err(error) => Err(format!("this process does not understand the question: {error}")),
    };
    let reply = match outcome {
        Ok(value) => serde_json::json!({ "ok": value }),
        Err(why) => serde_json::json!({ "error": why }),
    };
    write.write_all(format!("{reply}\n").as_bytes()).await
}

/// Asks the process whose state folder this is.
pub fn ask(folder: &Path, question: &Question) -> anyhow::Result<serde_json::Value> {
    let socket = folder.join(SOCKET);
    let mut stream = UnixStream::connect(&socket).with_context(|| {
        format!("no countersign answers at `{}`: is it running, and as this user?", socket.display())
    })?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(format!("{}\n", serde_json::to_string(question)?).as_bytes())?;
    let mut line = String::new();
    BufReader::new(stream.take(ANSWER_BYTES_MAX)).read_line(&mut line)?;
    let mut reply: serde_json::Value = serde_json::from_str(&line).context("the answer was cut short")?;
    if let Some(error) = reply.get("error").and_then(serde_json::Value::as_str) {
        bail!("{error}");
    }
    Ok(reply.get_mut("ok").map(serde_json::Value::take).unwrap_or_default())
}

/// What the process of this state folder left about itself.
pub fn facts(folder: &Path) -> anyhow::Result<Facts> {
    let file = folder.join(FACTS);
    let bytes = std::fs::read(&file).with_context(|| {
        format!("no running countersign found (`{}` is missing): start `countersign dev` or `countersign run`, or name its folder with --state", file.display())
    })?;
    serde_json::from_slice(&bytes).with_context(|| format!("`{}` is damaged", file.display()))
}

/// The state folder a command means: the named one, else that of a `countersign dev` of this user, else the system's.
pub fn find(named: Option<&Path>) -> PathBuf {
    let dev = dev_folder();
    match named {
        Some(folder) => folder.to_owned(),
        // Anybody could have made a folder of this name before us.
        None if is_private(&dev) && UnixStream::connect(dev.join(SOCKET)).is_ok() => dev,
        None if Path::new(DEFAULT_STATE).join(FACTS).exists() => DEFAULT_STATE.into(),
        None => dev,
    }
}

/// Where `countersign dev` of this user keeps its state while it runs.
pub fn dev_folder() -> PathBuf {
    match std::env::var_os("XDG_RUNTIME_DIR").filter(|folder| Path::new(folder).is_dir()) {
        Some(folder) => Path::new(&folder).join("countersign-dev"),
        None => std::env::temp_dir().join(format!("countersign-dev-{}", own_uid())),
    }
}

fn is_private(folder: &Path) -> bool {
    let closed = |meta: std::fs::Metadata| meta.is_dir() && meta.uid() == own_uid() && meta.mode() & 0o077 == 0;
    std::fs::symlink_metadata(folder).is_ok_and(closed)
}

/// Ends a start early when another process serves with this state folder, before anything of its is touched.
pub fn refuse_second(folder: &Path) -> anyhow::Result<()> {
    if UnixStream::connect(folder.join(SOCKET)).is_ok() {
        bail!(
            "another countersign runs with the state folder `{}`: stop it, or name another one with --state",
            folder.display()
        );
    }
    Ok(())
}

fn own_uid() -> u32 {
    std::fs::metadata("/proc/self").map_or(0, |meta| meta.uid())
}

/// Makes a folder of mode 0700, or checks that an existing one is ours and closed to others.
pub fn make_private(folder: &Path) -> anyhow::Result<()> {
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.with_context(|| format!("cannot make the state folder `{}`", folder.display()))?;
    let meta = std::fs::symlink_metadata(folder)?;
    let mine = meta.is_dir() && meta.uid() == own_uid();
    ensure!(mine, "the state folder `{}` belongs to somebody else: name another one with --state", folder.display());
    let open = meta.mode() & 0o077;
    ensure!(open == 0, "the state folder `{}` can be entered by others: chmod 700 it", folder.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Echo;

    impl Answers for Echo {
        fn answer(&self, question: Question) -> Result<serde_json::Value, String> {
            match question {
                Question::Keys => Ok(serde_json::json!({ "epoch": 3 })),
                Question::Flush | Question::KillKey { .. } | Question::RefreshKeys { .. } => {
                    Ok(serde_json::json!(true))
                }
                Question::Token { name, .. } => Err(format!("nobody is called `{name}`")),
            }
        }
    }

    fn facts_of_test() -> Facts {
        Facts {
            pid: 1,
            edge: vec!["http://127.0.0.1:1".into()],
            authz: Vec::new(),
            token_endpoint: Vec::new(),
            admin: "127.0.0.1:2".into(),
            audit: "audit.ndjson".into(),
        }
    }

    #[tokio::test]
    async fn questions_are_answered_and_nothing_stays_behind() {
        let outer = tempfile::tempdir().unwrap();
        let folder = outer.path().join("state");
        let operator = Operator::start(&folder, &facts_of_test(), Arc::new(Echo)).unwrap();
        let asked = folder.clone();
        let ask_all = move || {
            let keys = ask(&asked, &Question::Keys).unwrap();
            let nobody = ask(&asked, &Question::Token { name: "eve".into(), agent: None }).unwrap_err();
            (keys, nobody.to_string(), facts(&asked).unwrap().pid)
        };
        let (keys, nobody, pid) = tokio::task::spawn_blocking(ask_all).await.unwrap();
        assert_eq!(keys["epoch"], 3);
        assert_eq!(nobody, "nobody is called `eve`");
        assert_eq!(pid, 1);
        let second = Operator::start(&folder, &facts_of_test(), Arc::new(Echo));
        assert!(second.err().unwrap().to_string().contains("another countersign runs"));
        drop(operator);
        assert!(std::fs::read_dir(&folder).unwrap().next().is_none());
    }

    #[test]
    fn a_folder_somebody_else_prepared_is_not_asked() {
        let outer = tempfile::tempdir().unwrap();
        let folder = outer.path().join("prepared");
        std::fs::create_dir(&folder).unwrap();
        std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert!(!is_private(&folder));
        std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o700)).unwrap();
        assert!(is_private(&folder));
        let link = outer.path().join("link");
        std::os::unix::fs::symlink(&folder, &link).unwrap();
        assert!(!is_private(&link));
    }

    #[tokio::test]
    async fn a_folder_that_others_may_enter_is_refused() {
        let outer = tempfile::tempdir().unwrap();
        let folder = outer.path().join("open");
        std::fs::create_dir(&folder).unwrap();
        std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o755)).unwrap();
        let refused = Operator::start(&folder, &facts_of_test(), Arc::new(Echo));
        assert!(refused.err().unwrap().to_string().contains("chmod 700"));
    }
}
