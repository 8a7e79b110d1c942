//! The server as a whole: version, processing module, phase.

use core::ffi::{CStr, c_char, c_int};
use core::sync::atomic::{AtomicU32, Ordering};

use super::text;
use crate::httpd::sys;

pub(super) fn query(code: c_int) -> u32 {
    let mut result = 0;
    // SAFETY: fills an int; any thread, once the MPM is loaded.
    let status = unsafe { sys::ap_mpm_query(code, &mut result) };
    if status == sys::APR_SUCCESS {
        u32::try_from(result).unwrap_or(1)
    } else {
        1
    }
}

/// The pid of this child: asking the system costs a call per request.
static CHILD: AtomicU32 = AtomicU32::new(0);

/// To be called when a child process begins.
pub fn note_child() {
    CHILD.store(std::process::id(), Ordering::Relaxed);
}

/// The pid of this child process.
#[inline(always)]
pub fn child_pid() -> u32 {
    CHILD.load(Ordering::Relaxed)
}

/// httpd's parent process, as one of its children sees it.
pub fn parent_pid() -> u32 {
    if is_defined(c"ONE_PROCESS") {
        return std::process::id();
    }
    std::os::unix::process::parent_id()
}

/// Threads of a child process that serve requests (without mod_http2's own).
pub fn threads() -> u32 {
    query(sys::AP_MPMQ_MAX_THREADS)
}

/// Child processes at most.
pub fn processes() -> u32 {
    query(sys::AP_MPMQ_MAX_DAEMONS)
}

/// Whether the MPM can let go of connections for a while.
pub fn is_async() -> bool {
    let mut result = 0;
    // SAFETY: fills an int.
    let status = unsafe { sys::ap_mpm_query(sys::AP_MPMQ_IS_ASYNC, &mut result) };
    status == sys::APR_SUCCESS && result != sys::AP_MPMQ_NOT_SUPPORTED
}

/// Whether the MPM of this process has begun to stop, gracefully or not.
pub fn is_stopping() -> bool {
    i32::try_from(query(sys::AP_MPMQ_MPM_STATE)) == Ok(sys::AP_MPMQ_STOPPING)
}

fn constant(text: *const c_char) -> &'static [u8] {
    // SAFETY: the callers pass strings that httpd keeps for the life of the process.
    unsafe { text::bytes(text) }
}

/// `event`, `worker`, `prefork`.
pub fn name() -> &'static [u8] {
    // SAFETY: no arguments; a constant of the loaded MPM.
    constant(unsafe { sys::ap_show_mpm() })
}

/// `Apache/2.4.x (Debian)`, whatever `ServerTokens` says.
pub fn description() -> &'static [u8] {
    // SAFETY: no arguments; lives until the next restart replaces it.
    constant(unsafe { sys::ap_get_server_description() })
}

/// What `ServerTokens` leaves of the description: `SERVER_SOFTWARE`.
#[inline]
pub fn banner() -> &'static [u8] {
    // SAFETY: as above.
    constant(unsafe { sys::ap_get_server_banner() })
}

/// When httpd was built.
pub fn built() -> &'static [u8] {
    // SAFETY: as above.
    constant(unsafe { sys::ap_get_server_built() })
}

/// Major, minor, patch.
pub fn version() -> [u32; 3] {
    let mut version = sys::ap_version_t {
        major: 0,
        minor: 0,
        patch: 0,
        add_string: core::ptr::null(),
    };
    // SAFETY: fills the structure.
    unsafe { sys::ap_get_server_revision(&mut version) };
    [version.major, version.minor, version.patch].map(|part| u32::try_from(part).unwrap_or(0))
}

/// Whether `-D name` was given on the command line (`-X` is `ONE_PROCESS`).
pub fn is_defined(name: &CStr) -> bool {
    // SAFETY: a C string.
    unsafe { sys::ap_exists_config_define(name.as_ptr()) != 0 }
}

/// Whether this is the first of the two times that httpd reads its configuration at start-up.
pub fn is_rehearsal() -> bool {
    // SAFETY: no pointers.
    unsafe { sys::ap_state_query(sys::AP_SQ_MAIN_STATE) == sys::AP_SQ_MS_CREATE_PRE_CONFIG }
}

/// Whether httpd is about to end: its pools are being destroyed for good.
pub fn is_exiting() -> bool {
    // SAFETY: no pointers.
    unsafe { sys::ap_state_query(sys::AP_SQ_MAIN_STATE) == sys::AP_SQ_MS_EXITING }
}

/// How often httpd has been restarted.
pub fn generation() -> u32 {
    query(sys::AP_MPMQ_GENERATION)
}

/// Number of the user and the group that httpd's children run as.
pub fn child_identity() -> (u32, u32) {
    // SAFETY: plain numbers that the `User` and `Group` directives set; read by the parent's only
    // thread.
    unsafe {
        let config = &raw const sys::ap_unixd_config;
        ((*config).user_id, (*config).group_id)
    }
}

/// Whether `CoreDumpDirectory` is configured.
pub fn wants_core_dumps() -> bool {
    // SAFETY: as above.
    unsafe { (&raw const sys::ap_coredumpdir_configured).read() != 0 }
}

/// A path relative to `DefaultRuntimeDir`; `None` if it is malformed.
pub fn runtime_path(name: &CStr, pool: super::Pool<'_>) -> Option<super::PoolStr> {
    // SAFETY: a C string; the result is null or one in the pool.
    unsafe {
        let path = sys::ap_runtime_dir_relative(pool.as_ptr(), name.as_ptr());
        text::optional(path).map(|bytes| super::PoolStr::from_raw(path, bytes.len()))
    }
}

/// Whether httpd only checks its configuration (`apachectl configtest`).
pub fn is_config_test() -> bool {
    // SAFETY: no pointers.
    unsafe { sys::ap_state_query(sys::AP_SQ_RUN_MODE) == sys::AP_SQ_RM_CONFIG_TEST }
}
