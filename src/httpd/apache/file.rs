//! Files that a response sends.

use core::marker::PhantomData;

use super::Pool;
use crate::httpd::sys::{self, apr_file_t};

/// An open file of a request's pool, which closes it; or of whatever pool httpd moves it to while
/// the response is on its way.
pub struct File<'p> {
    raw: *mut apr_file_t,
    lifetime: PhantomData<&'p apr_file_t>,
}

impl<'p> File<'p> {
    /// Opens anew what the descriptor `fd` refers to, so that reading moves no position of the
    /// application's. `Err` is an errno.
    pub fn open_again(fd: i32, sendfile: bool, pool: Pool<'p>) -> Result<Self, i32> {
        let path = pool.copy(format!("/proc/self/fd/{fd}").as_bytes());
        let mut raw = core::ptr::null_mut();
        // SAFETY: a C string and a live pool, which closes the file.
        let status = unsafe {
            let flags = flags(sendfile);
            sys::apr_file_open(&mut raw, path.as_ptr(), flags, 0, pool.as_ptr())
        };
        Self::checked(raw, status)
    }

    /// Duplicates `fd`: where there is no /proc, or the file may not be opened again. `Err` is an
    /// errno.
    pub fn duplicate(fd: i32, sendfile: bool, pool: Pool<'p>) -> Result<Self, i32> {
        let mut number = fd;
        let mut borrowed = core::ptr::null_mut();
        let mut raw = core::ptr::null_mut();
        // SAFETY: `apr_os_file_put` wraps the descriptor without owning it; the duplicate belongs
        // to the pool.
        let status = unsafe {
            let flags = flags(sendfile);
            match sys::apr_os_file_put(&mut borrowed, &mut number, flags, pool.as_ptr()) {
                sys::APR_SUCCESS => sys::apr_file_dup(&mut raw, borrowed, pool.as_ptr()),
                status => status,
            }
        };
        let file = Self::checked(raw, status)?;
        let mut copy = -1;
        // SAFETY: an open file; the descriptor must not reach programs that the application starts.
        unsafe {
            if sys::apr_os_file_get(&mut copy, file.raw) == sys::APR_SUCCESS {
                libc::fcntl(copy, libc::F_SETFD, libc::FD_CLOEXEC);
            }
        }
        Ok(file)
    }

    fn checked(raw: *mut apr_file_t, status: sys::apr_status_t) -> Result<Self, i32> {
        if status == sys::APR_SUCCESS {
            Ok(File {
                raw,
                lifetime: PhantomData,
            })
        } else {
            Err(status)
        }
    }

    /// The pointer itself.
    pub fn as_ptr(&self) -> *mut apr_file_t {
        self.raw
    }
}

fn flags(sendfile: bool) -> i32 {
    let sendfile = if sendfile {
        sys::APR_FOPEN_SENDFILE_ENABLED
    } else {
        0
    };
    sys::APR_FOPEN_READ | sys::APR_FOPEN_BINARY | sendfile
}
