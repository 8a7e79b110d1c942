//! Settings that a server or a directory may have.

use core::ffi::{c_char, c_void};

use crate::httpd::apache::{Array, Pool, PoolStr};
use crate::httpd::sys::apr_pool_t;

/// `WSGIMapHEADToGET`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapHead {
    /// The application sees HEAD.
    Off,
    /// It sees GET.
    On,
    /// It sees GET where a filter needs the whole response.
    Auto,
}

/// Settings of a server or a directory; `None` inherits.
#[derive(Clone, Copy)]
pub struct Settings {
    /// `WSGIProcessGroup`.
    pub process_group: Option<PoolStr>,
    /// `WSGIRestrictProcess`; the empty name is embedded mode.
    pub restrict_process: Option<Array<PoolStr>>,
    /// `WSGIIgnoreActivity`.
    pub ignore_activity: Option<bool>,
    /// `WSGIApplicationGroup`.
    pub application_group: Option<PoolStr>,
    /// `WSGICallableObject`.
    pub callable_object: Option<PoolStr>,
    /// `WSGIPassAuthorization`.
    pub pass_authorization: Option<bool>,
    /// `WSGIScriptReloading`.
    pub script_reloading: Option<bool>,
    /// `WSGIReloadFailure Keep`.
    pub keep_on_failure: Option<bool>,
    /// `WSGIChunkedRequest`.
    pub chunked_request: Option<bool>,
    /// `WSGIMapHEADToGET`.
    pub map_head_to_get: Option<MapHead>,
    /// `WSGIErrorOverride`.
    pub error_override: Option<bool>,
    /// `WSGIEnableSendfile`.
    pub enable_sendfile: Option<bool>,
}

// SAFETY: the strings are read-only once httpd has read its configuration.
unsafe impl Sync for Settings {}

impl Settings {
    /// Nothing is set.
    pub const UNSET: Settings = Settings {
        process_group: None,
        restrict_process: None,
        ignore_activity: None,
        application_group: None,
        callable_object: None,
        pass_authorization: None,
        script_reloading: None,
        keep_on_failure: None,
        chunked_request: None,
        map_head_to_get: None,
        error_override: None,
        enable_sendfile: None,
    };

    /// `self` where it says something, else `parent`.
    pub fn over(&self, parent: &Settings) -> Settings {
        Settings {
            process_group: self.process_group.or(parent.process_group),
            restrict_process: self.restrict_process.or(parent.restrict_process),
            ignore_activity: self.ignore_activity.or(parent.ignore_activity),
            application_group: self.application_group.or(parent.application_group),
            callable_object: self.callable_object.or(parent.callable_object),
            pass_authorization: self.pass_authorization.or(parent.pass_authorization),
            script_reloading: self.script_reloading.or(parent.script_reloading),
            keep_on_failure: self.keep_on_failure.or(parent.keep_on_failure),
            chunked_request: self.chunked_request.or(parent.chunked_request),
            map_head_to_get: self.map_head_to_get.or(parent.map_head_to_get),
            error_override: self.error_override.or(parent.error_override),
            enable_sendfile: self.enable_sendfile.or(parent.enable_sendfile),
        }
    }
}

/// httpd's `create_dir_config`. The pool may be a request's (`.htaccess`).
///
/// # Safety
/// Called by httpd.
pub unsafe extern "C" fn create(pool: *mut apr_pool_t, _: *mut c_char) -> *mut c_void {
    // SAFETY: the pool lives as long as the result is used. Nothing here can panic.
    let pool = unsafe { Pool::new(pool) };
    core::ptr::from_mut(pool.place(Settings::UNSET)).cast()
}

/// httpd's `merge_dir_config`. Neither argument is changed: other threads may be reading them.
///
/// # Safety
/// Called by httpd with results of [`create`] or of this function.
pub unsafe extern "C" fn merge(
    pool: *mut apr_pool_t,
    parent: *mut c_void,
    child: *mut c_void,
) -> *mut c_void {
    // SAFETY: the caller's promise. Nothing here can panic.
    unsafe {
        let parent = &*parent.cast::<Settings>();
        let child = &*child.cast::<Settings>();
        core::ptr::from_mut(Pool::new(pool).place(child.over(parent))).cast()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_says_what_it_says_and_inherits_the_rest() {
        let parent = Settings {
            pass_authorization: Some(true),
            map_head_to_get: Some(MapHead::On),
            ..Settings::UNSET
        };
        let child = Settings {
            pass_authorization: Some(false),
            enable_sendfile: Some(true),
            ..Settings::UNSET
        };
        let merged = child.over(&parent);
        assert_eq!(merged.pass_authorization, Some(false));
        assert_eq!(merged.map_head_to_get, Some(MapHead::On));
        assert_eq!(merged.enable_sendfile, Some(true));
        assert_eq!(merged.script_reloading, None);
    }
}
