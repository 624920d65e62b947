//! The file of a unix socket: made so that it is never open to more than it should be, and removed
//! at the end.

use std::{
    fs::{self, Metadata, Permissions},
    io::{self, ErrorKind},
    os::unix::{
        fs::{FileTypeExt, MetadataExt, PermissionsExt, chown},
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
};

use rustix::fs::{Access, access};

use crate::{config::SocketConfig, files};

/// The file of a socket that this process listens on. Dropped, it is removed if it is still ours.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

/// Why a unix socket cannot be listened on. Each text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// A program listens there.
    #[error(
        "cannot listen on unix:{}: a program listens there; stop it, or choose another path with \
         --listen unix:PATH", .0.display()
    )]
    Live(PathBuf),
    /// Something else has the path.
    #[error(
        "cannot listen on unix:{path}: {path} is not a socket, so it is left alone; move it away, or \
         choose another path with --listen unix:PATH", path = .0.display()
    )]
    NoSocket(PathBuf),
    /// There is no such folder.
    #[error(
        "cannot listen on unix:{}: the folder {} does not exist; make it, or choose another path with \
         --listen unix:PATH", .path.display(), .folder.display()
    )]
    NoFolder {
        /// The socket.
        path: PathBuf,
        /// The folder.
        folder: PathBuf,
    },
    /// The system has no such group.
    #[error("socket.group: this machine has no group {0}; name one that it has, or its number")]
    NoGroup(String),
    /// The operating system refused.
    #[error("cannot listen on unix:{}: cannot {doing}: {cause}", .path.display())]
    Io {
        /// The attempted step, as in `give it to its group`.
        doing: &'static str,
        /// The socket.
        path: PathBuf,
        /// The error of the system.
        cause: io::Error,
    },
}

impl SocketFile {
    /// Listens at a path. A socket without a listener is replaced; anything else that is there
    /// stays.
    ///
    /// # Errors
    /// If something is there, or the system refuses.
    pub fn bind(path: &Path, config: &SocketConfig) -> Result<(UnixListener, Self), SocketError> {
        let failed = |doing| move |cause| SocketError::Io { doing, path: path.to_owned(), cause };
        let group = config.group.as_deref().map(group_id).transpose()?;
        check_vacant(path)?;
        // In a folder that no other user can enter, so that there is no moment at which they could
        // connect.
        let folder = folder(path)?;
        let private = tempfile::Builder::new().prefix(".s").rand_bytes(6).tempdir_in(folder);
        let private =
            private.map_err(files::without_path).map_err(failed("make a folder beside it"))?;
        let made = private.path().join("s");
        let listener = UnixListener::bind(&made).map_err(failed("make it"))?;
        chown(&made, None, group).map_err(failed("give it to its group"))?;
        let mode = Permissions::from_mode(config.mode);
        fs::set_permissions(&made, mode).map_err(failed("set its mode"))?;
        let file = fs::symlink_metadata(&made).map_err(failed("look at it"))?;
        fs::rename(&made, path).map_err(failed("put it in its place"))?;
        Ok((listener, Self { path: path.to_owned(), device: file.dev(), inode: file.ino() }))
    }

    /// Whether it could listen at a path, as far as that shows without doing it: a program that listens
    /// there may have ended by then.
    ///
    /// # Errors
    /// Checks that a socket can be made at the path.
    pub fn check(path: &Path, config: &SocketConfig) -> Result<(), SocketError> {
        config.group.as_deref().map(group_id).transpose()?;
        let may_write = access(folder(path)?, Access::WRITE_OK | Access::EXEC_OK);
        may_write.map_err(|cause| SocketError::Io {
            doing: "write to its folder",
            path: path.to_owned(),
            cause: cause.into(),
        })?;
        match fs::symlink_metadata(path) {
            Ok(file) if !file.file_type().is_socket() => {
                Err(SocketError::NoSocket(path.to_owned()))
            }
            _ => Ok(()),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let is_ours = |file: Metadata| (file.dev(), file.ino()) == (self.device, self.inode);
        if fs::symlink_metadata(&self.path).is_ok_and(is_ours) {
            // If it fails, the next start finds a socket without a listener.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// The folder of a socket, which must be there.
fn folder(path: &Path) -> Result<&Path, SocketError> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    if folder.is_dir() {
        return Ok(folder);
    }
    Err(SocketError::NoFolder { path: path.to_owned(), folder: folder.to_owned() })
}

/// Fails if there is anything at the path but a socket without a listener.
fn check_vacant(path: &Path) -> Result<(), SocketError> {
    let failed = |doing| move |cause| SocketError::Io { doing, path: path.to_owned(), cause };
    let file = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        file => file.map_err(failed("look at it"))?,
    };
    if !file.file_type().is_socket() {
        return Err(SocketError::NoSocket(path.to_owned()));
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => Ok(()),
        Err(cause) => Err(failed("see whether it is in use")(cause)),
        Ok(_) => Err(SocketError::Live(path.to_owned())),
    }
}

fn group_id(group: &str) -> Result<u32, SocketError> {
    let by_name = || uzers::get_group_by_name(group).map(|group| group.gid());
    let id = group.parse().ok().or_else(by_name);
    id.ok_or_else(|| SocketError::NoGroup(group.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: SocketConfig = SocketConfig { mode: 0o600, group: None };

    #[test]
    fn a_socket_has_its_mode_and_its_group_and_nothing_stays_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("p.sock");
        let own = fs::metadata(folder.path()).unwrap().gid();
        let config = SocketConfig { mode: 0o620, group: Some(own.to_string()) };
        let (_listener, _file) = SocketFile::bind(&path, &config).unwrap();
        let file = fs::metadata(&path).unwrap();
        assert_eq!((file.mode() & 0o7777, file.gid()), (0o620, own));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        UnixStream::connect(&path).unwrap();
    }

    #[test]
    fn a_dead_socket_is_replaced_and_a_live_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("p.sock");
        drop(UnixListener::bind(&path).unwrap());
        let (_listener, _file) = SocketFile::bind(&path, &CONFIG).unwrap();
        let again = SocketFile::bind(&path, &CONFIG).unwrap_err();
        assert!(matches!(&again, SocketError::Live(_)), "{again}");
        UnixStream::connect(&path).unwrap();
    }

    #[test]
    fn what_is_no_socket_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notes");
        fs::write(&path, "milk").unwrap();
        let error = SocketFile::bind(&path, &CONFIG).unwrap_err();
        assert!(matches!(&error, SocketError::NoSocket(_)), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "milk");
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(matches!(SocketFile::bind(&link, &CONFIG), Err(SocketError::NoSocket(_))));
    }

    #[test]
    fn at_the_end_only_our_own_file_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("p.sock");
        let (listener, file) = SocketFile::bind(&path, &CONFIG).unwrap();
        drop(file);
        assert!(!path.exists());
        drop(listener);
        let (listener, old) = SocketFile::bind(&path, &CONFIG).unwrap();
        drop(listener);
        let (_listener, _new) = SocketFile::bind(&path, &CONFIG).unwrap();
        drop(old);
        UnixStream::connect(&path).unwrap();
    }

    #[test]
    fn a_group_that_is_not_there_is_named() {
        let config = SocketConfig { group: Some("no such group".into()), ..CONFIG };
        let error = SocketFile::bind(Path::new("/nonexistent/s"), &config).unwrap_err();
        assert!(error.to_string().starts_with("socket.group: "), "{error}");
        assert_eq!(group_id("root").unwrap(), 0);
    }
}
