//! Loading libpython and the gateway into a child process.

use core::ffi::{CStr, c_int, c_void};

use super::Choice;
use crate::exchange::abi::{ENTRY_POINT, EntryPoint, GatewayTable, VERSION};
use crate::messages::{Code, GATEWAY_MISMATCH, LOAD_FAILED};

/// Why a gateway was not loaded.
pub struct Failure {
    /// Which message.
    pub code: Code,
    /// What it says.
    pub message: String,
}

/// Loads what was chosen and gives the gateway's table, which lives as long as the process.
///
/// The libpython is made global: C extensions of Python expect its symbols to be there. Both
/// objects stay loaded for ever, since Python leaves threads and exit handlers behind.
pub fn load(choice: &Choice) -> Result<&'static GatewayTable, Failure> {
    open(
        choice.libpython.as_cstr(),
        libc::RTLD_NOW | libc::RTLD_GLOBAL,
    )?;
    let gateway = open(choice.gateway.as_cstr(), libc::RTLD_NOW | libc::RTLD_LOCAL)?;
    // SAFETY: a handle of `dlopen` that is never closed.
    let symbol = unsafe { libc::dlsym(gateway, ENTRY_POINT.as_ptr()) };
    if symbol.is_null() {
        return Err(Failure {
            code: GATEWAY_MISMATCH,
            message: format!("{} is no gateway of rwsgi", choice.gateway.text()),
        });
    }
    // SAFETY: a symbol of this name is of this type: `exchange::abi` defines it for every version.
    let table = unsafe {
        let entry: EntryPoint = core::mem::transmute::<*mut c_void, EntryPoint>(symbol);
        &*entry()
    };
    if table.version != VERSION || table.size as usize != size_of::<GatewayTable>() {
        return Err(Failure {
            code: GATEWAY_MISMATCH,
            message: format!(
                "{} is of another build than mod_rwsgi.so (interface {}, size {}; expected {VERSION} \
                 and {}); build and install both together",
                choice.gateway.text(),
                table.version,
                table.size,
                size_of::<GatewayTable>()
            ),
        });
    }
    Ok(table)
}

fn open(file: &CStr, flags: c_int) -> Result<*mut c_void, Failure> {
    // SAFETY: a C string; constructors of these objects make no threads and need no state of ours.
    let handle = unsafe { libc::dlopen(file.as_ptr(), flags) };
    if !handle.is_null() {
        return Ok(handle);
    }
    // SAFETY: gives null or a C string that stays until the next call of this thread.
    let reason = unsafe { crate::httpd::apache::text::bytes(libc::dlerror()) };
    Err(Failure {
        code: LOAD_FAILED,
        message: format!(
            "{} could not be loaded: {}",
            file.to_string_lossy(),
            String::from_utf8_lossy(reason)
        ),
    })
}

/// The file of the shared object that this code is in: `mod_rwsgi.so`.
pub fn module_file() -> Option<std::path::PathBuf> {
    use std::os::unix::ffi::OsStrExt;
    let mut info = libc::Dl_info {
        dli_fname: core::ptr::null(),
        dli_fbase: core::ptr::null_mut(),
        dli_sname: core::ptr::null(),
        dli_saddr: core::ptr::null_mut(),
    };
    // SAFETY: an address of this object; the name lives as long as the object is loaded.
    let name = unsafe {
        let own: fn() -> Option<std::path::PathBuf> = module_file;
        if libc::dladdr(own as *const c_void, &mut info) == 0 {
            return None;
        }
        crate::httpd::apache::text::bytes(info.dli_fname)
    };
    Some(std::path::PathBuf::from(std::ffi::OsStr::from_bytes(name)))
}
