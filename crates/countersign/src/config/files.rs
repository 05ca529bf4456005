//! How the loader sees a file system: read, list, and who may read. `Disk` is the real one; `Memory` serves tests and the
//! fuzz target. Nothing here writes.
use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Component, Path, PathBuf};

/// Entries of one folder, and matches of one glob, at most.
const ENTRIES_MAX: usize = 10_000;

/// One file as read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contents {
    pub bytes: Vec<u8>,
    /// Permission bits, where the system has them.
    pub mode: Option<u32>,
}

impl Contents {
    pub fn world_readable(&self) -> bool {
        self.mode.is_some_and(|mode| mode & 0o004 != 0)
    }

    pub fn world_writable(&self) -> bool {
        self.mode.is_some_and(|mode| mode & 0o002 != 0)
    }
}

/// Why a file or folder could not be read; the text is for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    #[error("it does not exist")]
    Missing,
    #[error("this user may not read it")]
    Denied,
    #[error("it is no regular file")]
    NotAFile,
    #[error("{0}")]
    Other(String),
}

impl From<std::io::Error> for ReadError {
    fn from(error: std::io::Error) -> ReadError {
        match error.kind() {
            std::io::ErrorKind::NotFound => ReadError::Missing,
            std::io::ErrorKind::PermissionDenied => ReadError::Denied,
            std::io::ErrorKind::IsADirectory => ReadError::NotAFile,
            _ => ReadError::Other(error.to_string()),
        }
    }
}

pub trait Files {
    /// At most `bytes_max + 1` bytes, so that the caller can tell that there were more.
    fn read(&self, path: &Path, bytes_max: usize) -> Result<Contents, ReadError>;
    /// Names in a folder, sorted.
    fn list(&self, folder: &Path) -> Result<Vec<String>, ReadError>;
}

/// The machine's own files.
#[derive(Debug, Clone, Copy, Default)]
pub struct Disk;

impl Files for Disk {
    fn read(&self, path: &Path, bytes_max: usize) -> Result<Contents, ReadError> {
        // A pipe or device could block or never end; only regular files are opened.
        if !std::fs::metadata(path)?.is_file() {
            return Err(ReadError::NotAFile);
        }
        let file = std::fs::File::open(path)?;
        let mode = mode_of(&file.metadata()?);
        let mut bytes = Vec::new();
        file.take(bytes_max as u64 + 1).read_to_end(&mut bytes)?;
        Ok(Contents { bytes, mode })
    }

    fn list(&self, folder: &Path) -> Result<Vec<String>, ReadError> {
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        let mut names = Vec::new();
        for entry in std::fs::read_dir(folder)?.take(ENTRIES_MAX) {
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }
}

#[cfg(unix)]
fn mode_of(metadata: &std::fs::Metadata) -> Option<u32> {
    Some(std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o777)
}

#[cfg(not(unix))]
fn mode_of(_metadata: &std::fs::Metadata) -> Option<u32> {
    None
}

/// A file system in memory: path to contents.
#[derive(Debug, Clone, Default)]
pub struct Memory(pub BTreeMap<PathBuf, Contents>);

impl Memory {
    pub fn with(mut self, path: &str, text: impl AsRef<[u8]>, mode: u32) -> Memory {
        self.0.insert(PathBuf::from(path), Contents { bytes: text.as_ref().to_vec(), mode: Some(mode) });
        self
    }
}

impl Files for Memory {
    fn read(&self, path: &Path, bytes_max: usize) -> Result<Contents, ReadError> {
        let found = self.0.get(path).ok_or(ReadError::Missing)?;
        let bytes = found.bytes.iter().take(bytes_max + 1).copied().collect();
        Ok(Contents { bytes, mode: found.mode })
    }

    fn list(&self, folder: &Path) -> Result<Vec<String>, ReadError> {
        let below = |path: &Path| -> Option<String> {
            match path.strip_prefix(folder).ok()?.components().next()? {
                Component::Normal(name) => name.to_str().map(str::to_owned),
                _ => None,
            }
        };
        let mut names: Vec<String> = self.0.keys().filter_map(|path| below(path)).collect();
        names.sort();
        names.dedup();
        if names.is_empty() { Err(ReadError::Missing) } else { Ok(names) }
    }
}

/// The files a glob means, and the folders to watch for new ones. `*` matches within one name; names that start with a
/// dot are left out unless the pattern says the dot.
pub fn glob(files: &dyn Files, base: &Path, pattern: &str) -> Result<Globbed, ReadError> {
    let mut found = vec![PathBuf::from(base)];
    let mut folders = Vec::new();
    for part in Path::new(pattern).components() {
        let part = match part {
            Component::Normal(part) => part.to_string_lossy().into_owned(),
            Component::CurDir => continue,
            other => {
                found.iter_mut().for_each(|path| path.push(other.as_os_str()));
                continue;
            }
        };
        if !part.contains('*') {
            found.iter_mut().for_each(|path| path.push(&part));
            continue;
        }
        let mut next = Vec::new();
        for folder in &found {
            let names = match files.list(folder) {
                Ok(names) => names,
                Err(ReadError::Missing | ReadError::NotAFile) => continue,
                Err(ReadError::Other(_)) if found.len() > 1 => continue,
                Err(error) => return Err(error),
            };
            next.extend(names.iter().filter(|name| matches(&part, name)).map(|name| folder.join(name)));
        }
        folders.append(&mut found);
        found = next;
        found.truncate(ENTRIES_MAX);
    }
    Ok(Globbed { files: found, folders })
}

/// What [`glob`] found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Globbed {
    pub files: Vec<PathBuf>,
    pub folders: Vec<PathBuf>,
}

/// `*` is any run of characters. Linear in both: the last star takes one more character whenever the rest does not fit.
fn matches(pattern: &str, name: &str) -> bool {
    if name.starts_with('.') && !pattern.starts_with('.') {
        return false;
    }
    let mut parts = pattern.split('*');
    let Some(rest) = name.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    let mut rest = rest;
    for part in middle {
        match rest.find(part) {
            Some(at) => rest = rest.get(at + part.len()..).unwrap_or_default(),
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pattern: &str, expected: &[&str]) {
        let files = Memory::default()
            .with("etc/services/a.yaml", "", 0o644)
            .with("etc/services/b.yml", "", 0o644)
            .with("etc/services/.hidden.yaml", "", 0o644)
            .with("etc/teams/x/services/c.yaml", "", 0o644)
            .with("etc/teams/y/services/d.yaml", "", 0o644);
        let got = glob(&files, Path::new("etc"), pattern).unwrap().files;
        assert_eq!(got, expected.iter().map(PathBuf::from).collect::<Vec<_>>(), "{pattern}");
    }

    #[test]
    fn a_star_matches_within_one_name() {
        check("services/*.yaml", &["etc/services/a.yaml"]);
        check("./services/*", &["etc/services/a.yaml", "etc/services/b.yml"]);
        check("teams/*/services/*.yaml", &["etc/teams/x/services/c.yaml", "etc/teams/y/services/d.yaml"]);
        check("nowhere/*.yaml", &[]);
        check("services/a.yaml", &["etc/services/a.yaml"]);
        check("services/a*a*.yaml", &[]);
        check("services/*.y*l", &["etc/services/a.yaml", "etc/services/b.yml"]);
    }

    #[test]
    fn a_folder_is_not_read_as_a_file() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Disk.read(folder.path(), 10), Err(ReadError::NotAFile));
        assert_eq!(Disk.read(&folder.path().join("none"), 10), Err(ReadError::Missing));
    }

    #[cfg(unix)]
    #[test]
    fn a_named_pipe_is_refused_and_never_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        assert_eq!(Disk.read(&pipe, 10), Err(ReadError::NotAFile));
    }
}
