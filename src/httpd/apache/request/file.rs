//! The file that a request is mapped to.

use core::ffi::{CStr, c_int};

use super::Request;
use crate::httpd::apache::PoolStr;
use crate::httpd::sys;

/// What a file is, as httpd found it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// It does not exist.
    Missing,
    /// A regular file.
    Regular,
    /// A directory.
    Directory,
    /// Anything else.
    Other,
}

impl Request<'_> {
    /// What [`filename`](Self::filename) is.
    #[inline(always)]
    pub fn file_kind(self) -> FileKind {
        match self.raw().finfo.filetype {
            sys::APR_NOFILE => FileKind::Missing,
            sys::APR_REG => FileKind::Regular,
            sys::APR_DIR => FileKind::Directory,
            _ => FileKind::Other,
        }
    }

    /// When the file was changed, microseconds since the epoch; 0 if httpd does not know.
    #[inline(always)]
    pub fn file_mtime(self) -> i64 {
        let finfo = &self.raw().finfo;
        if finfo.valid & sys::APR_FINFO_MTIME != 0 {
            finfo.mtime
        } else {
            0
        }
    }

    /// Names the file of the request and looks at it, so that httpd's directory walk finds it
    /// known and spares its own look at every component.
    pub fn name_file(self, file: PoolStr) -> FileKind {
        // SAFETY: a live request of this thread; the string lives at least as long.
        unsafe {
            let raw = self.as_ptr();
            (*raw).filename = file.as_ptr();
            let found = sys::ap_run_dirwalk_stat(&raw mut (*raw).finfo, raw, sys::APR_FINFO_MIN);
            if found != sys::APR_SUCCESS {
                (*raw).finfo.filetype = sys::APR_NOFILE;
            }
        }
        self.file_kind()
    }

    /// Names a file that httpd's directory walk has yet to find.
    pub fn name_path(self, path: PoolStr) {
        // SAFETY: as in `name_file`.
        unsafe {
            let raw = self.as_ptr();
            (*raw).filename = path.as_ptr();
            (*raw).finfo.filetype = sys::APR_NOFILE;
        }
    }

    /// Sets the path behind the script.
    pub fn set_path_info(self, path: PoolStr) {
        // SAFETY: as in `name_file`.
        unsafe { (*self.as_ptr()).path_info = path.as_ptr() }
    }

    /// Chooses the handler.
    pub fn set_handler(self, name: &'static CStr) {
        // SAFETY: as in `name_file`.
        unsafe { (*self.as_ptr()).handler = name.as_ptr() }
    }

    /// Whether `Options` has all of `options`.
    #[inline]
    pub fn allows(self, options: c_int) -> bool {
        // SAFETY: a live request.
        unsafe { sys::ap_allow_options(self.as_ptr()) & options == options }
    }

    /// Whether `AcceptPathInfo Off` refuses extra path.
    #[inline(always)]
    pub fn refuses_path_info(self) -> bool {
        self.raw().used_path_info == sys::AP_REQ_REJECT_PATH_INFO
    }

    /// Where the extra path begins in [`uri`](Self::uri), by httpd's own rule.
    #[cold]
    pub fn path_info_start(self) -> usize {
        let raw = self.raw();
        if raw.path_info.is_null() || raw.uri.is_null() {
            return self.uri().len();
        }
        // SAFETY: two C strings, only read.
        let start = unsafe { sys::ap_find_path_info(raw.uri, raw.path_info) };
        usize::try_from(start).unwrap_or(0).min(self.uri().len())
    }
}
