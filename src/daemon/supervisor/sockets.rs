//! The listening sockets of the slots, and the lifeline.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use super::sys;
use crate::daemon::group::GroupConfig;

/// One listening socket per slot.
pub struct Sockets {
    listeners: Vec<OwnedFd>,
    /// Those that we have made, to be removed at the end.
    made: Vec<PathBuf>,
}

impl Sockets {
    /// Takes over those that were inherited, or makes those that are named.
    ///
    /// # Errors
    /// A message for the log.
    pub fn open(config: &GroupConfig) -> Result<Sockets, String> {
        let mut sockets = Sockets {
            listeners: Vec::new(),
            made: Vec::new(),
        };
        for &fd in &config.listener_fds {
            let fd = fd as RawFd;
            if !sys::is_listener(fd) {
                return Err(format!("descriptor {fd} is no listening UNIX socket"));
            }
            let fd = sys::inherit(fd).map_err(|error| format!("descriptor {fd}: {error}"))?;
            sockets.listeners.push(fd);
        }
        for path in &config.sockets {
            let path = Path::new(OsStr::from_bytes(path));
            remove_stale(path)
                .and_then(|()| sys::listen(path.as_os_str().as_bytes(), config.listen_backlog))
                .map(|listener| sockets.listeners.push(listener))
                .map_err(|error| {
                    format!("the socket {} cannot be made: {error}", path.display())
                })?;
            sockets.made.push(path.to_owned());
        }
        Ok(sockets)
    }

    /// The listener of a slot; none of a service script.
    pub fn of_slot(&self, slot: usize) -> Option<RawFd> {
        self.listeners.get(slot).map(|fd| fd.as_raw_fd())
    }
}

impl Drop for Sockets {
    fn drop(&mut self) {
        for path in &self.made {
            // Whoever has removed it meanwhile has done our work.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Removes a socket that nobody listens on any more.
fn remove_stale(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::FileTypeExt as _;
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(found) if !found.file_type().is_socket() => Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "there is a file of that name",
        )),
        Ok(_) => match UnixStream::connect(path) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                std::fs::remove_file(path)
            }
            _ => Err(io::Error::new(
                io::ErrorKind::AddrInUse,
                "another process listens there",
            )),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(path: &Path) -> GroupConfig {
        GroupConfig {
            sockets: vec![path.as_os_str().as_bytes().to_vec()],
            ..GroupConfig::default()
        }
    }

    #[test]
    fn sockets_are_made_private_and_removed() {
        use std::os::unix::fs::PermissionsExt as _;
        let path = std::env::temp_dir().join(format!("rwsgi-{}.sock", std::process::id()));
        let sockets = Sockets::open(&config(&path)).unwrap();
        assert!(sys::is_listener(sockets.of_slot(0).unwrap()));
        assert_eq!(sockets.of_slot(1), None);
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let error = Sockets::open(&config(&path)).err().unwrap();
        assert!(error.contains("another process"), "{error}");
        drop(sockets);
        assert!(!path.exists());
    }

    #[test]
    fn what_is_no_listener_is_refused() {
        let config = GroupConfig {
            listener_fds: vec![9999],
            ..GroupConfig::default()
        };
        assert!(Sockets::open(&config).is_err());
    }
}
