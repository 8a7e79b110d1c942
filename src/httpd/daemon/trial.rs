//! Whether an identity can use files: tried out by a child process that takes it on.

use core::ffi::{CStr, c_int};
use std::ffi::CString;
use std::io;
use std::os::fd::AsRawFd;

use super::identity::Identity;
use super::spawn::{drop_privileges, pipe, read_words, reset_signals};

/// What a file or directory is needed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// As a program.
    Execute,
    /// To be read.
    Read,
    /// As working directory.
    Enter,
    /// As a directory whose files are looked for.
    List,
}

impl Use {
    fn mode(self) -> c_int {
        match self {
            Use::Execute | Use::Enter => libc::X_OK,
            Use::Read => libc::R_OK,
            Use::List => libc::R_OK | libc::X_OK,
        }
    }

    /// For messages.
    pub fn participle(self) -> &'static str {
        match self {
            Use::Execute => "executed",
            Use::Read => "read",
            Use::Enter => "entered",
            Use::List => "listed",
        }
    }
}

/// What an identity cannot do.
#[derive(Debug)]
pub struct Refusal {
    /// Which of the files; past their end: the identity itself cannot be taken on.
    pub index: usize,
    /// The system's reason.
    pub error: io::Error,
}

/// Tries out, in a child process that takes on `identity` and `chroot`, whether files can be used.
///
/// # Errors
/// The first that cannot.
pub fn try_out(
    identity: Option<&Identity>,
    chroot: Option<&CStr>,
    files: &[(CString, Use)],
) -> Result<(), Refusal> {
    let refused = |index, error| Err(Refusal { index, error });
    let (report, reporter) = match pipe() {
        Ok(ends) => ends,
        Err(error) => return refused(usize::MAX, error),
    };
    // SAFETY: the child only makes system calls and ends in _exit.
    let pid = unsafe { libc::fork() };
    if pid < 0 {
        return refused(usize::MAX, io::Error::last_os_error());
    }
    if pid == 0 {
        // SAFETY: as above.
        unsafe {
            reset_signals();
            let failed = match drop_privileges(chroot, identity) {
                Err(_) => Some(c_int::MAX),
                Ok(()) => files
                    .iter()
                    .position(|(file, way)| {
                        let flags = libc::AT_EACCESS;
                        libc::faccessat(libc::AT_FDCWD, file.as_ptr(), way.mode(), flags) != 0
                    })
                    .map(|index| index as c_int),
            };
            if let Some(index) = failed {
                let words = [index, *libc::__errno_location()];
                let words: *const [c_int; 2] = &words;
                let size = size_of::<[c_int; 2]>();
                let _ = libc::write(reporter.as_raw_fd(), words.cast(), size);
            }
            libc::_exit(0);
        }
    }
    drop(reporter);
    let words = read_words(&report);
    // SAFETY: our own child, which ends by itself.
    unsafe { libc::waitpid(pid, core::ptr::null_mut(), 0) };
    match words {
        None => Ok(()),
        Some(Ok([index, error])) => refused(
            usize::try_from(index).unwrap_or(usize::MAX),
            io::Error::from_raw_os_error(error),
        ),
        Some(Err(error)) => refused(usize::MAX, error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uses_are_tried_out() {
        let file = |path: &str, way| (CString::new(path).unwrap(), way);
        let files = [file("/bin/sh", Use::Execute), file("/", Use::List)];
        assert!(try_out(None, None, &files).is_ok());
        let absent = [file("/", Use::Enter), file("/does/not/exist", Use::Read)];
        let refusal = try_out(None, None, &absent).unwrap_err();
        assert_eq!(refusal.index, 1);
        assert_eq!(refusal.error.kind(), io::ErrorKind::NotFound);
    }
}
