//! The names that httpd knows the module by.
//!
//! A configuration written for mod_wsgi tests for that module, `<IfModule mod_wsgi.c>` or
//! `<IfModule wsgi_module>`, and sets its level in the error log, `LogLevel wsgi:info`. All of that
//! must go on meaning what it did when only the `LoadModule` line has changed; a block that is
//! skipped in silence would be the worst. Therefore
//!
//! * there are two module records with the same hooks, so that `LoadModule rwsgi_module` works as
//!   well as `LoadModule wsgi_module` with the path of this file (the name also decides the tag of
//!   the lines in the error log);
//! * whichever is loaded answers to the names of both.
//!
//! httpd finds a module by its `name` among those that are linked, then asks mod_so, by way of the
//! optional function `ap_find_loaded_module_symbol`, for whatever else the name may mean
//! (server/core.c, `find_module`). The latter is what `include/shim.c` widens: an optional function
//! is an entry of a registry in which every module may put its own.

use core::ffi::{c_int, c_ulong};
use core::sync::atomic::{AtomicI32, Ordering};

use crate::httpd::apache::modules;
use crate::httpd::config::{server, settings, table};
use crate::httpd::sys::{self, apr_pool_t, module};
use crate::messages::{LOADED_TWICE, MOD_WSGI_LOADED};

/// Declares a module record. httpd writes its index, its place in the list and its handle into it;
/// it is only accessed through raw pointers.
macro_rules! record {
    ($(#[$doc:meta])* $name:ident, $register:ident) => {
        $(#[$doc])*
        #[unsafe(no_mangle)]
        pub static mut $name: module = module {
            version: sys::MODULE_MAGIC_NUMBER_MAJOR,
            minor_version: sys::MODULE_MAGIC_NUMBER_MINOR,
            module_index: -1,
            // Not mod_wsgi.c: that name is to tell whether mod_wsgi itself is loaded.
            name: c"mod_rwsgi.c".as_ptr(),
            dynamic_load_handle: core::ptr::null_mut(),
            next: core::ptr::null_mut(),
            magic: sys::MODULE_MAGIC_COOKIE as c_ulong,
            rewrite_args: None,
            create_dir_config: Some(settings::create),
            merge_dir_config: Some(settings::merge),
            create_server_config: Some(server::create),
            merge_server_config: Some(server::merge),
            cmds: table::COMMANDS.as_ptr(),
            register_hooks: Some($register),
            flags: 0,
        };
    };
}

record! {
    /// What `LoadModule rwsgi_module` looks up.
    rwsgi_module, register_rwsgi
}
record! {
    /// What `LoadModule wsgi_module` looks up: the line of mod_wsgi with another path.
    wsgi_module, register_wsgi
}

/// The number of the record that is loaded.
static INDEX: AtomicI32 = AtomicI32::new(-1);

/// The module's number in configuration vectors and log levels.
#[inline(always)]
pub fn module_index() -> c_int {
    INDEX.load(Ordering::Relaxed)
}

unsafe extern "C" fn register_rwsgi(pool: *mut apr_pool_t) {
    // SAFETY: httpd calls after it has given the record its number.
    unsafe { register(pool, &raw mut rwsgi_module) }
}

unsafe extern "C" fn register_wsgi(pool: *mut apr_pool_t) {
    // SAFETY: as above.
    unsafe { register(pool, &raw mut wsgi_module) }
}

/// # Safety
/// Called by httpd while it loads the record, in its only thread.
unsafe fn register(pool: *mut apr_pool_t, record: *mut module) {
    // SAFETY: one of the two records, which live for ever; nothing changes it now. Nothing here
    // panics.
    unsafe {
        // Where both are loaded the first keeps its hooks; `check` ends the start.
        if loaded().into_iter().filter(|loaded| *loaded).count() > 1 {
            return;
        }
        INDEX.store((*record).module_index, Ordering::Relaxed);
        sys::rwsgi_answer_to_all_names(record);
        super::register_hooks(pool);
    }
}

/// Which of the two records are loaded: httpd takes the number from one that it unloads.
fn loaded() -> [bool; 2] {
    // SAFETY: both live for ever; httpd writes the numbers in its only thread, which is this one.
    unsafe {
        [
            (&raw const rwsgi_module.module_index).read() >= 0,
            (&raw const wsgi_module.module_index).read() >= 0,
        ]
    }
}

/// Whether httpd may go on with the modules that it has loaded. Called when it has read its
/// configuration, in the parent.
///
/// # Errors
/// A message: the module is loaded under both names, or mod_wsgi is loaded as well. Both would
/// take every directive, and both would answer the requests.
pub fn check() -> Result<(), String> {
    if loaded() == [true, true] {
        return Err(format!(
            "{LOADED_TWICE}mod_rwsgi.so is loaded both as rwsgi_module and as wsgi_module: keep one \
             of the two LoadModule lines"
        ));
    }
    if modules::is_linked(c"mod_wsgi.c") {
        return Err(format!(
            "{MOD_WSGI_LOADED}mod_wsgi is loaded, too, and has the same directives; remove its \
             LoadModule line (on Debian: a2dismod wsgi)"
        ));
    }
    Ok(())
}
