//! A libpython that is in httpd already, put there by somebody else: a `LoadFile` line, as
//! `mod_wsgi-express module-config` writes one, or another module that embeds Python.
//!
//! Symbols that are global in a process are found where they came first. The gateway, and the
//! libpython that belongs to it, would call the functions of that other one; with another version the
//! process dies of it.

use core::ffi::{CStr, c_char, c_void};

use super::record::{Build, Minor};
use crate::httpd::apache::text;

/// A libpython that is in this process.
#[derive(Debug)]
pub struct Resident {
    /// What `Py_GetVersion` says: `3.11.2 (main, …) [GCC …]`.
    pub version: String,
    /// Its file.
    pub file: String,
}

/// The libpython whose functions would be called in this process, if there is one. Any thread.
pub fn resident() -> Option<Resident> {
    const NAME: &CStr = c"Py_GetVersion";
    // SAFETY: C strings; `dladdr` fills the structure, whose name lives as long as the object that
    // has the symbol. The function takes nothing and gives a C string that lives as long; it may be
    // called before Python is initialised.
    unsafe {
        let symbol = libc::dlsym(libc::RTLD_DEFAULT, NAME.as_ptr());
        if symbol.is_null() {
            return None;
        }
        let mut info = libc::Dl_info {
            dli_fname: core::ptr::null(),
            dli_fbase: core::ptr::null_mut(),
            dli_sname: core::ptr::null(),
            dli_saddr: core::ptr::null_mut(),
        };
        let file = match libc::dladdr(symbol, &mut info) {
            0 => &[][..],
            _ => text::bytes(info.dli_fname),
        };
        let version =
            core::mem::transmute::<*mut c_void, unsafe extern "C" fn() -> *const c_char>(symbol);
        Some(Resident {
            version: String::from_utf8_lossy(text::bytes(version())).into_owned(),
            file: String::from_utf8_lossy(file).into_owned(),
        })
    }
}

impl Resident {
    /// Whether a gateway for this build can run with it: releases of one minor version have one ABI.
    pub fn suits(&self, build: Build) -> bool {
        Minor::parse(&self.version) == Some(build.minor)
            && self.version.contains("free-threading build") == build.free_threaded
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(version: &str) -> Resident {
        Resident {
            version: version.to_owned(),
            file: String::new(),
        }
    }

    #[test]
    fn no_python_is_in_this_process() {
        assert!(resident().is_none());
    }

    #[test]
    fn versions() {
        let build = |major, minor, free_threaded| Build {
            minor: Minor(major, minor),
            free_threaded,
        };
        let ordinary = with("3.11.2 (main, Mar 13 2023, 12:18:29) [GCC 12.2.0]");
        assert!(ordinary.suits(build(3, 11, false)));
        assert!(!ordinary.suits(build(3, 1, false)));
        assert!(!ordinary.suits(build(3, 12, false)));
        assert!(!ordinary.suits(build(3, 11, true)));
        let free = with("3.14.0 free-threading build (main, Oct 7 2025) [GCC 12.2.0]");
        assert!(free.suits(build(3, 14, true)));
        assert!(!free.suits(build(3, 14, false)));
        assert!(with("3.15.0a1+ (main)").suits(build(3, 15, false)));
    }
}
