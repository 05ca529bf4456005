//! Listening at a Unix-domain socket: a file that its owner and group may connect to, and nobody else. It never takes the
//! place of a file that is no socket, nor of a socket somebody listens at.
use socket2::{Domain, SockAddr, Socket, Type};
use std::fs::{self, File, Permissions};
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use tokio::net::TcpStream;

const BACKLOG: i32 = 4096;
/// Owner and group may connect: to connect is to write.
const MODE: u32 = 0o660;

/// A socket's file. Dropping it removes the file, unless it is somebody else's by now.
#[derive(Debug)]
pub(crate) struct Door {
    path: PathBuf,
    /// Device and inode.
    file: (u64, u64),
}

impl Drop for Door {
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|now| (now.dev(), now.ino()) == self.file) {
            // Gone already: that is what was wanted.
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl Door {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// A file that a dead process left behind is taken over, in one step: there is no moment without a listener, and none in
/// which others than owner and group could connect.
pub(crate) fn bind(path: &Path) -> io::Result<(Door, UnixListener)> {
    refuse_taken(path)?;
    let beside = path.with_file_name(format!(".{}", std::process::id()));
    // Of a process with this number that died at this very point.
    let _ = fs::remove_file(&beside);
    let bound = bind_at(&beside).and_then(|(listener, file)| {
        fs::rename(&beside, path)?;
        Ok((Door { path: path.to_owned(), file }, listener))
    });
    if bound.is_err() {
        let _ = fs::remove_file(&beside);
    }
    bound
}

fn refuse_taken(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
        Ok(there) if !there.file_type().is_socket() => {
            return Err(io::Error::new(ErrorKind::AlreadyExists, "there is a file that is no socket"));
        }
        Ok(_) => {}
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // One whose queue is full must not be waited for.
    socket.set_nonblocking(true)?;
    match socket.connect(&SockAddr::unix(path)?) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => Ok(()),
        Ok(()) => Err(io::Error::new(ErrorKind::AddrInUse, "another process listens there")),
        Err(error) if error.kind() == ErrorKind::WouldBlock => {
            Err(io::Error::new(ErrorKind::AddrInUse, "another process listens there, and takes nobody in"))
        }
        Err(error) => Err(error),
    }
}

fn bind_at(path: &Path) -> io::Result<(UnixListener, (u64, u64))> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // Linux makes the file with the mode that the socket has by now, less the umask; the rest is given back below.
    let socket = File::from(OwnedFd::from(socket));
    socket.set_permissions(Permissions::from_mode(MODE))?;
    let socket = Socket::from(OwnedFd::from(socket));
    socket.bind(&SockAddr::unix(path)?)?;
    fs::set_permissions(path, Permissions::from_mode(MODE))?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    let file = fs::symlink_metadata(path)?;
    Ok((OwnedFd::from(socket).into(), (file.dev(), file.ino())))
}

/// A stream is a stream: what the engine does with one (read, write, shut down) means the same for either family. What is
/// TCP's alone (addresses, TCP_NODELAY) fails, and is done without.
pub(crate) fn as_stream(stream: UnixStream) -> io::Result<TcpStream> {
    stream.set_nonblocking(true)?;
    TcpStream::from_std(OwnedFd::from(stream).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_refused(path: &Path, part: &str) {
        let error = bind(path).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(error.contains(part), "{error}");
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn the_file_is_for_owner_and_group_and_goes_with_its_listener() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("authz.sock");
        let (door, listener) = bind(&path).unwrap();
        let file = fs::symlink_metadata(&path).unwrap();
        assert_eq!((file.file_type().is_socket(), file.mode() & 0o777), (true, 0o660));
        assert_eq!(names(folder.path()), ["authz.sock"]);
        let _client = UnixStream::connect(&path).unwrap();
        listener.accept().unwrap();
        check_refused(&path, "another process listens there");
        drop(door);
        assert_eq!(names(folder.path()), [""; 0]);
    }

    #[test]
    fn what_a_dead_process_left_is_taken_over_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("authz.sock");
        drop(UnixListener::bind(&path).unwrap());
        let (first, old) = bind(&path).unwrap();
        // Its listener died without a word; the file now belongs to the next one.
        drop(old);
        let (second, listener) = bind(&path).unwrap();
        drop(first);
        let _client = UnixStream::connect(&path).expect("the first one's end removed nothing");
        listener.accept().unwrap();
        drop((second, listener));

        let file = folder.path().join("file");
        fs::write(&file, "mine").unwrap();
        check_refused(&file, "no socket");
        assert_eq!(fs::read(&file).unwrap(), b"mine");
        let (link, target) = (folder.path().join("link"), folder.path().join("target"));
        std::os::unix::fs::symlink(&target, &link).unwrap();
        check_refused(&link, "no socket");
        check_refused(&folder.path().join("none/authz.sock"), "");
        check_refused(&folder.path().join("x".repeat(108)), "");
        assert_eq!(names(folder.path()), ["file", "link"]);
    }
}
