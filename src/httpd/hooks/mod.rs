//! What httpd calls: the hooks, and how it finds the module.

pub mod auth;
pub mod child;
pub mod consult;
pub mod dispatch;
pub mod handler;
pub mod identity;
pub mod loops;
pub mod start;
pub mod translate;

pub use identity::module_index;

use core::ffi::{CStr, c_char, c_int};

use crate::httpd::daemon::{generation, scoreboard};
use crate::httpd::sys::boundary::{Place, guard};
use crate::httpd::sys::{self, apr_pool_t, server_rec};
use crate::httpd::tunnel::parked;

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

// The access script may ask for TLS variables, for which mod_ssl may have to renegotiate.
static BEFORE_ACCESS: Names<2> = {
    let [ssl] = names([c"mod_ssl.c"]);
    Names([ssl, core::ptr::null()])
};
static AFTER_ACCESS: Names<2> = {
    let [host] = names([c"mod_authz_host.c"]);
    Names([host, core::ptr::null()])
};

/// httpd's `monitor`: called in the parent every ten seconds or so.
unsafe extern "C" fn monitor(_: *mut apr_pool_t, server: *mut server_rec) -> c_int {
    guard(Place::Server(server), sys::DECLINED, || {
        generation::try_again();
        scoreboard::refresh();
        sys::DECLINED
    })
}

/// Registers the hooks with httpd.
fn register_hooks(pool: *mut apr_pool_t) {
    // SAFETY: functions of the types that httpd asks for; the names live for ever. Nothing panics.
    unsafe {
        let none = core::ptr::null();
        sys::ap_hook_check_config(Some(start::check_config), none, none, sys::APR_HOOK_MIDDLE);
        sys::ap_hook_post_config(Some(start::post_config), none, none, sys::APR_HOOK_MIDDLE);
        let last = sys::APR_HOOK_REALLY_LAST;
        sys::ap_hook_post_config(Some(start::launch), none, none, last);
        sys::ap_hook_monitor(Some(monitor), none, none, sys::APR_HOOK_MIDDLE);
        sys::ap_hook_child_init(Some(child::child_init), none, none, sys::APR_HOOK_MIDDLE);
        sys::ap_hook_child_stopping(
            Some(child::child_stopping),
            none,
            none,
            sys::APR_HOOK_MIDDLE,
        );
        // Last: what other modules do in it is over when the keeper may begin.
        sys::ap_hook_suspend_connection(Some(parked::suspend_connection), none, none, last);
        sys::ap_hook_translate_name(
            Some(translate::translate_name),
            BEFORE_TRANSLATE.0.as_ptr(),
            AFTER_TRANSLATE.0.as_ptr(),
            sys::APR_HOOK_MIDDLE,
        );
        sys::ap_hook_handler(Some(handler::handler), none, none, sys::APR_HOOK_MIDDLE);
        auth::register_providers(pool);
    }
}

/// Registers the hook of access scripts; to be called once for a configuration that has scripts for
/// access, users or groups, while httpd reads it (httpd sorts its hooks once more after that).
///
/// These scripts see the URL, so they must be asked for every one: also for a subrequest or an
/// internal redirect within the same section, where httpd would otherwise rely on what it decided
/// for the first URL. (It still does within one directory, if only directory sections matter.) A hook
/// that is registered in this way, without `AP_AUTH_INTERNAL_PER_CONF`, says so, for the whole server.
/// Hence none is registered where there are no such scripts.
pub fn check_every_url() {
    // SAFETY: a function of the type that httpd asks for; the names live for ever. httpd reads its
    // configuration in one thread, which is the only one that uses the name of the module whose hooks
    // are being registered: hooks are sorted by it.
    unsafe {
        let loading = (&raw const sys::apr_hook_debug_current).read();
        (&raw mut sys::apr_hook_debug_current).write(c"mod_rwsgi.c".as_ptr());
        sys::ap_hook_access_checker(
            Some(auth::access_checker),
            BEFORE_ACCESS.0.as_ptr(),
            AFTER_ACCESS.0.as_ptr(),
            sys::APR_HOOK_MIDDLE,
        );
        (&raw mut sys::apr_hook_debug_current).write(loading);
    }
}
