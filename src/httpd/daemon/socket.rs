//! The listening sockets of a process group: one UNIX socket per worker slot.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Bytes of `sockaddr_un.sun_path`, with the NUL at its end.
const PATH: usize = 108;

/// What the names of the sockets of one generation have in common.
#[derive(Clone, Debug)]
pub struct Naming {
    /// `WSGISocketPrefix`.
    pub prefix: Vec<u8>,
    /// httpd's parent process.
    pub pid: u32,
    /// How often httpd has been restarted; `None` with `WSGISocketRotation Off`: the user who runs
    /// httpd is part of the name instead.
    pub generation: Option<u32>,
    /// That user.
    pub uid: u32,
}

impl Naming {
    /// The path of the socket of one slot of one group.
    pub fn path(&self, group: usize, slot: u32) -> Vec<u8> {
        let mut path = self.prefix.clone();
        let rest = match self.generation {
            Some(generation) => format!(".{}.{generation}.{group}.{slot}.sock", self.pid),
            None => format!(".{}.u{}.{group}.{slot}.sock", self.pid, self.uid),
        };
        path.extend_from_slice(rest.as_bytes());
        path
    }
}

/// Whether every name that may come up fits into an address.
///
/// # Errors
/// A message.
pub fn check_length(prefix: &[u8], group: usize, slots: u32) -> Result<(), String> {
    let longest = Naming {
        prefix: prefix.to_vec(),
        // What Linux gives at most, and more restarts than a server will see.
        pid: 4_194_304,
        generation: Some(999_999),
        uid: 0,
    };
    let length = longest.path(group, slots.saturating_sub(1)).len();
    if length < PATH {
        return Ok(());
    }
    Err(format!(
        "the paths of its sockets would have up to {length} bytes, the system takes {}: choose a \
         WSGISocketPrefix that is at least {} bytes shorter than '{}'",
        PATH - 1,
        length + 1 - PATH,
        String::from_utf8_lossy(prefix)
    ))
}

/// Makes a socket that listens at `path`: mode 0600, owned by `owner` if one is given. What lies
/// there from an earlier process is removed.
///
/// # Errors
/// The system's.
pub fn listen(path: &[u8], backlog: u32, owner: Option<u32>) -> io::Result<OwnedFd> {
    let file = Path::new(OsStr::from_bytes(path));
    if path.len() >= PATH {
        return Err(io::Error::from_raw_os_error(libc::ENAMETOOLONG));
    }
    match std::fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // SAFETY: no pointers; a new descriptor belongs to nobody else.
    let socket = unsafe {
        let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        let fd = libc::socket(libc::AF_UNIX, kind, 0);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        OwnedFd::from_raw_fd(fd)
    };
    // SAFETY: zeros are valid; the length was checked, and the NUL stays.
    let mut address: libc::sockaddr_un = unsafe { core::mem::zeroed() };
    address.sun_family = libc::AF_UNIX as libc::sa_family_t;
    for (to, from) in address.sun_path.iter_mut().zip(path) {
        *to = *from as core::ffi::c_char;
    }
    // The mask makes the file 0600 from the beginning. One thread runs in httpd's parent.
    // SAFETY: a valid address of that size.
    let bound = unsafe {
        let before = libc::umask(0o177);
        let bound = libc::bind(
            socket.as_raw_fd(),
            (&raw const address).cast(),
            size_of::<libc::sockaddr_un>() as libc::socklen_t,
        );
        let error = io::Error::last_os_error();
        libc::umask(before);
        if bound == 0 { Ok(()) } else { Err(error) }
    };
    bound?;
    let finish = || {
        if let Some(owner) = owner {
            std::os::unix::fs::lchown(file, Some(owner), None)?;
        }
        let backlog = i32::try_from(backlog).unwrap_or(i32::MAX);
        // SAFETY: our own descriptor.
        if unsafe { libc::listen(socket.as_raw_fd(), backlog) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    };
    match finish() {
        Ok(()) => Ok(socket),
        Err(error) => {
            let _ = std::fs::remove_file(file);
            Err(error)
        }
    }
}

/// Sets the sizes of the buffers that accepted connections inherit; 0 is the system's.
pub fn set_buffers(socket: &OwnedFd, send: u32, receive: u32) {
    for (option, size) in [(libc::SO_SNDBUF, send), (libc::SO_RCVBUF, receive)] {
        let size = i32::try_from(size).unwrap_or(i32::MAX);
        if size > 0 {
            // SAFETY: our own descriptor and an int. A size that the system refuses is only slower.
            unsafe {
                libc::setsockopt(
                    socket.as_raw_fd(),
                    libc::SOL_SOCKET,
                    option,
                    (&raw const size).cast(),
                    size_of::<i32>() as libc::socklen_t,
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::UnixStream;

    #[test]
    fn names() {
        let mut naming = Naming {
            prefix: b"/run/wsgi".to_vec(),
            pid: 7,
            generation: Some(2),
            uid: 33,
        };
        assert_eq!(naming.path(1, 3), b"/run/wsgi.7.2.1.3.sock");
        naming.generation = None;
        assert_eq!(naming.path(1, 3), b"/run/wsgi.7.u33.1.3.sock");
    }

    #[test]
    fn long_prefixes_are_refused_before_they_are_used() {
        assert_eq!(check_length(b"/var/run/apache2/wsgi", 0, 1), Ok(()));
        let prefix = vec![b'x'; 90];
        let message = check_length(&prefix, 0, 4).unwrap_err();
        assert!(message.contains("WSGISocketPrefix"), "{message}");
        // The message says how many bytes are too many.
        let excess: usize = message
            .split("at least ")
            .nth(1)
            .and_then(|rest| rest.split(' ').next())
            .and_then(|number| number.parse().ok())
            .unwrap();
        assert_eq!(check_length(&prefix[excess..], 0, 4), Ok(()));
        assert!(check_length(&prefix[excess - 1..], 0, 4).is_err());
        let path = vec![b'x'; PATH];
        assert!(listen(&path, 1, None).is_err());
    }

    #[test]
    fn sockets_listen_and_are_private() {
        let root = std::env::temp_dir().join(format!("rwsgi-socket-{}", std::process::id()));
        let path = root.as_os_str().as_bytes();
        let first = listen(path, 5, None).unwrap();
        drop(first);
        // What a dead process has left is replaced.
        let _second = listen(path, 5, None).unwrap();
        let mode = std::fs::metadata(&root).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        UnixStream::connect(&root).unwrap();
        std::fs::remove_file(&root).unwrap();
    }
}
