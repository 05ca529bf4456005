//! What the audit log asks of the file system, in one place, so that tests can let each step fail.
//!
//! Never decides anything: an error goes to the caller as it is.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Result, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

pub(super) trait Disk: Send {
    /// Opens for appending; makes the file with mode 0600.
    fn open(&self, path: &Path) -> Result<File> {
        OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)
    }

    /// Appends all bytes. After an error any number of them may be in the file.
    fn write(&self, mut file: &File, bytes: &[u8]) -> Result<()> {
        file.write_all(bytes)
    }

    /// Cuts the file off at `size`.
    fn cut(&self, file: &File, size: u64) -> Result<()> {
        file.set_len(size)
    }

    fn sync(&self, file: &File) -> Result<()> {
        file.sync_data()
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        std::fs::rename(from, to)
    }
}

/// The real one.
pub(super) struct SystemDisk;

impl Disk for SystemDisk {}

/// Two writers would break each other's chain. A file system without locks is no reason to stand still.
pub(super) fn locked_by_another(file: &File) -> bool {
    matches!(file.try_lock(), Err(TryLockError::WouldBlock))
}
