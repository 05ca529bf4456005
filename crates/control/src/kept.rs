//! The last good keys of one issuer on disk, so that a restart during an outage of the issuer still knows them. Public keys
//! only; the hard limit of the engine bounds their age. A file that cannot be read or written costs a warning, never keys.
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use trust::keys::{DOCUMENT_BYTES_MAX, Machine, Now, Restored};

use crate::board::lock;
use crate::source::Source;

/// JSON escapes can double a document; nothing we write is larger.
const FILE_BYTES_MAX: u64 = 4 * DOCUMENT_BYTES_MAX as u64;

#[derive(serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: u32,
    /// Keys are taken up only for the source they came from.
    source: String,
    /// Unix seconds.
    fetched_at: i64,
    etag: Option<String>,
    killed: Vec<String>,
    document: String,
}

const VERSION: u32 = 1;

pub(crate) struct Kept {
    path: PathBuf,
    source: String,
    slot: Arc<Mutex<Slot>>,
}

/// What is to be written next, and whether a writer is at work. Only the newest state matters: one that comes while an
/// older one is being written waits here, and is never lost (a killed key must stay killed after a restart).
#[derive(Default)]
struct Slot {
    next: Option<File>,
    writing: bool,
    /// One warning per run of failures.
    warned: bool,
}

impl Kept {
    pub(crate) fn new(state_dir: &Path, issuer: &str, source: &Source) -> Kept {
        let path = state_dir.join("keys").join(format!("{}.json", file_name(issuer)));
        Kept { path, source: source.to_string(), slot: Arc::default() }
    }

    /// Gives the engine what was kept; returns the document.
    pub(crate) fn restore(&self, machine: &mut Machine, now: Now) -> Option<Bytes> {
        match self.read() {
            Ok(Some(file)) if file.source == self.source => {
                for kid in &file.killed {
                    machine.handle(now, trust::keys::Event::Kill { kid });
                }
                let restored = Restored {
                    body: file.document.as_bytes(),
                    etag: file.etag.as_deref(),
                    fetched_at: file.fetched_at,
                };
                match machine.restore(now, &restored) {
                    Ok(()) => return Some(Bytes::from(file.document)),
                    Err(error) => tracing::info!(file = %self.path.display(), %error, "kept keys are not used"),
                }
            }
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(file = %self.path.display(), %error, "kept keys cannot be read; starting without")
            }
        }
        None
    }

    fn read(&self) -> std::io::Result<Option<File>> {
        let file = match std::fs::File::open(&self.path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        // Who can write here can make us believe any key.
        if file.metadata()?.mode() & 0o022 != 0 {
            return Err(std::io::Error::other("the file is writable by group or others; remove it or `chmod 600` it"));
        }
        let mut bytes = Vec::new();
        file.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
        let file: File = serde_json::from_slice(&bytes).map_err(std::io::Error::other)?;
        Ok((file.version == VERSION).then_some(file))
    }

    /// Writes in the background.
    pub(crate) fn write(&mut self, machine: &Machine, document: &Bytes) {
        let Some((fetched_at, etag)) = machine.last_good() else {
            return;
        };
        let Ok(document) = std::str::from_utf8(document) else {
            return;
        };
        let file = File {
            version: VERSION,
            source: self.source.clone(),
            fetched_at,
            etag: etag.map(str::to_owned),
            killed: machine.killed().map(str::to_owned).collect(),
            document: document.to_owned(),
        };
        let mut slot = lock(&self.slot);
        slot.next = Some(file);
        if !std::mem::replace(&mut slot.writing, true) {
            let (path, of_writer) = (self.path.clone(), Arc::clone(&self.slot));
            tokio::task::spawn_blocking(move || write_all(&path, &of_writer));
        }
    }
}

/// Writes the newest state until there is none newer.
fn write_all(path: &Path, slot: &Mutex<Slot>) {
    loop {
        let next = {
            let mut slot = lock(slot);
            slot.writing = slot.next.is_some();
            slot.next.take()
        };
        let Some(file) = next else {
            return;
        };
        let failed = write_whole(path, &file).err();
        let before = std::mem::replace(&mut lock(slot).warned, failed.is_some());
        if let (Some(error), false) = (failed, before) {
            tracing::warn!(file = %path.display(), %error, "keys cannot be kept for a restart");
        }
    }
}

/// A reader sees the old file or the new one, never a part.
fn write_whole(path: &Path, file: &File) -> std::io::Result<()> {
    if let Some(dir) = path.parent() {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    }
    let fresh = path.with_extension("new");
    // A leftover may carry another mode.
    match std::fs::remove_file(&fresh) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut out = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
    out.write_all(&serde_json::to_vec(file).map_err(std::io::Error::other)?)?;
    out.sync_all()?;
    std::fs::rename(&fresh, path)
}

/// Issuer names are chosen by people; a file name must not be.
fn file_name(issuer: &str) -> String {
    let mut name = String::new();
    for byte in issuer.bytes().take(64) {
        if byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_' {
            name.push(char::from(byte));
        } else {
            name.push_str(&format!("%{byte:02x}"));
        }
    }
    name
}
