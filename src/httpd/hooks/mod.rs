//! What httpd calls: the module record and the hooks.

pub mod child;
pub mod handler;
pub mod start;
pub mod translate;

use core::ffi::{CStr, c_char, c_int, c_ulong};
use core::sync::atomic::{AtomicI32, Ordering};

use crate::httpd::config::{server, settings, table};
use crate::httpd::daemon::{generation, scoreboard};
use crate::httpd::sys::boundary::{Place, guard};
use crate::httpd::sys::{self, apr_pool_t, module, server_rec};

/// A module record for `LoadModule`. httpd writes its index, its place in the list and its handle
/// into it; it is only accessed through raw pointers.
const fn record(name: &'static CStr, register: unsafe extern "C" fn(*mut apr_pool_t)) -> module {
    module {
        version: sys::MODULE_MAGIC_NUMBER_MAJOR,
        minor_version: sys::MODULE_MAGIC_NUMBER_MINOR,
        module_index: -1,
        name: name.as_ptr(),
        dynamic_load_handle: core::ptr::null_mut(),
        next: core::ptr::null_mut(),
        magic: sys::MODULE_MAGIC_COOKIE as c_ulong,
        rewrite_args: None,
        create_dir_config: Some(settings::create),
        merge_dir_config: Some(settings::merge),
        create_server_config: Some(server::create),
        merge_server_config: Some(server::merge),
        cmds: table::COMMANDS.as_ptr(),
        register_hooks: Some(register),
        flags: 0,
    }
}

/// `LoadModule rwsgi_module …/mod_rwsgi.so`.
#[unsafe(no_mangle)]
pub static mut rwsgi_module: module = record(c"mod_rwsgi.c", register);

/// `LoadModule wsgi_module …/mod_rwsgi.so`: the same under mod_wsgi's name, so that
/// `<IfModule mod_wsgi.c>`, `<IfModule wsgi_module>` and `LogLevel wsgi:info` of an old
/// configuration mean this module.
#[unsafe(no_mangle)]
pub static mut wsgi_module: module = record(c"mod_wsgi.c", register_as_mod_wsgi);

/// See [`module_index`].
static INDEX: AtomicI32 = AtomicI32::new(-1);

/// The module's number in configuration vectors and log levels, under whichever name it was loaded.
#[inline(always)]
pub fn module_index() -> c_int {
    INDEX.load(Ordering::Relaxed)
}

/// Whether it was loaded under both names, which cannot work: it has one configuration.
pub fn is_loaded_twice() -> bool {
    // SAFETY: httpd writes the numbers while it loads and unloads modules, in the thread that asks
    // this.
    unsafe {
        (&raw const rwsgi_module.module_index).read() >= 0
            && (&raw const wsgi_module.module_index).read() >= 0
    }
}

unsafe extern "C" fn register(_: *mut apr_pool_t) {
    // SAFETY: httpd has numbered the record before it calls this, and calls nothing else meanwhile.
    register_hooks(unsafe { (&raw const rwsgi_module.module_index).read() });
}

unsafe extern "C" fn register_as_mod_wsgi(_: *mut apr_pool_t) {
    // SAFETY: as above.
    register_hooks(unsafe { (&raw const wsgi_module.module_index).read() });
}

/// Names of modules in the form that httpd's sorting wants, ended by null.
struct Names<const N: usize>([*const c_char; N]);

// SAFETY: constants; httpd only reads them.
unsafe impl<const N: usize> Sync for Names<N> {}

const fn names<const N: usize>(list: [&'static CStr; N]) -> [*const c_char; N] {
    let mut pointers = [core::ptr::null(); N];
    let mut index = 0;
    while index < N {
        pointers[index] = list[index].as_ptr();
        index += 1;
    }
    pointers
}

// mod_alias first: what it maps (static files, usually) is not ours.
static BEFORE_TRANSLATE: Names<2> = {
    let [alias] = names([c"mod_alias.c"]);
    Names([alias, core::ptr::null()])
};
static AFTER_TRANSLATE: Names<3> = {
    let [userdir, vhost] = names([c"mod_userdir.c", c"mod_vhost_alias.c"]);
    Names([userdir, vhost, core::ptr::null()])
};

/// httpd's `monitor`: called in the parent every ten seconds or so.
unsafe extern "C" fn monitor(_: *mut apr_pool_t, server: *mut server_rec) -> c_int {
    guard(Place::Server(server), sys::DECLINED, || {
        generation::try_again();
        scoreboard::refresh();
        sys::DECLINED
    })
}

fn register_hooks(index: c_int) {
    INDEX.store(index, Ordering::Relaxed);
    // SAFETY: functions of the types that httpd asks for; the names live for ever. Nothing panics.
    unsafe {
        let none = core::ptr::null();
        sys::ap_hook_check_config(Some(start::check_config), none, none, sys::APR_HOOK_MIDDLE);
        sys::ap_hook_post_config(Some(start::post_config), none, none, sys::APR_HOOK_MIDDLE);
        let last = sys::APR_HOOK_REALLY_LAST;
        sys::ap_hook_post_config(Some(start::launch), none, none, last);
        sys::ap_hook_monitor(Some(monitor), none, none, sys::APR_HOOK_MIDDLE);
        sys::ap_hook_child_init(Some(child::child_init), none, none, sys::APR_HOOK_MIDDLE);
        sys::ap_hook_translate_name(
            Some(translate::translate_name),
            BEFORE_TRANSLATE.0.as_ptr(),
            AFTER_TRANSLATE.0.as_ptr(),
            sys::APR_HOOK_MIDDLE,
        );
        sys::ap_hook_handler(Some(handler::handler), none, none, sys::APR_HOOK_MIDDLE);
    }
}
