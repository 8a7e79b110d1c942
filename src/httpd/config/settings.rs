//! Settings that a server or a directory may have.

use core::ffi::{c_char, c_void};

use super::handler_script::{self, HandlerScripts};
use super::scripts::SideScript;
use crate::exchange::Lifespan;
use crate::exchange::subnet::Subnet;
use crate::exchange::trusted_proxies::Header;
use crate::httpd::apache::{Array, Pool, PoolRef, PoolStr};
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

/// Declares [`Settings`]: every field is an `Option`, and `None` inherits.
macro_rules! settings {
    ($($(#[$doc:meta])* $field:ident: $type:ty,)*) => {
        /// Settings of a server or a directory; `None` inherits.
        #[derive(Clone, Copy)]
        pub struct Settings {
            $($(#[$doc])* pub $field: Option<$type>,)*
        }

        impl Settings {
            /// Nothing is set.
            pub const UNSET: Settings = Settings { $($field: None,)* };

            /// `self` where it says something, else `parent`.
            pub fn over(&self, parent: &Settings) -> Settings {
                Settings { $($field: self.$field.or(parent.$field),)* }
            }
        }
    };
}

settings! {
    /// `WSGIProcessGroup`.
    process_group: PoolStr,
    /// `WSGIRestrictProcess`; the empty name is embedded mode.
    restrict_process: Array<PoolStr>,
    /// `WSGIIgnoreActivity`.
    ignore_activity: bool,
    /// `WSGIApplicationGroup`.
    application_group: PoolStr,
    /// `WSGICallableObject`.
    callable_object: PoolStr,
    /// `WSGIPassAuthorization`.
    pass_authorization: bool,
    /// `WSGIScriptReloading`.
    script_reloading: bool,
    /// `WSGIReloadFailure Keep`.
    keep_on_failure: bool,
    /// `WSGIChunkedRequest`.
    chunked_request: bool,
    /// `WSGIMapHEADToGET`.
    map_head_to_get: MapHead,
    /// `WSGIErrorOverride`.
    error_override: bool,
    /// `WSGIEnableSendfile`.
    enable_sendfile: bool,
    /// `WSGITrustedProxyHeaders`, in order; an empty list trusts none.
    trusted_headers: Array<Header>,
    /// `WSGITrustedProxies`.
    trusted_proxies: Array<Subnet>,
    /// `WSGILocalRedirect`.
    local_redirect: bool,
    /// `WSGIAccessScript`.
    access_script: PoolRef<SideScript>,
    /// `WSGIAuthUserScript`.
    auth_user_script: PoolRef<SideScript>,
    /// `WSGIAuthGroupScript`.
    auth_group_script: PoolRef<SideScript>,
    /// `WSGIHandlerScript`, those of this section first.
    handler_scripts: HandlerScripts,
    /// `WSGIDispatchScript`.
    dispatch_script: PoolRef<SideScript>,
    /// `WSGIPassApacheRequest`.
    pass_apache_request: bool,
    /// `ASGILifespan`.
    asgi_lifespan: Lifespan,
    /// `ASGIWebSocket`.
    asgi_websocket: bool,
    /// `ASGIWebSocketCompression`.
    asgi_websocket_compression: bool,
    /// `ASGIWebSocketMaxMessage`, bytes.
    asgi_websocket_max_message: u32,
    /// `ASGIWebSocketQueue`, messages.
    asgi_websocket_queue: u16,
    /// `ASGIWebSocketPing`, seconds.
    asgi_websocket_ping: u16,
}

// SAFETY: the strings are read-only once httpd has read its configuration.
unsafe impl Sync for Settings {}

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
        let pool = Pool::new(pool);
        core::ptr::from_mut(pool.place(merged(child, parent, pool))).cast()
    }
}

/// The settings of a section within another.
pub fn merged(child: &Settings, parent: &Settings, pool: Pool<'_>) -> Settings {
    let mut merged = child.over(parent);
    handler_script::overlay(&mut merged, child, parent, pool);
    merged
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
