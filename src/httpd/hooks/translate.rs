//! From URL to script: `WSGIScriptAlias`.

use core::ffi::c_int;

use crate::httpd::HANDLER;
use crate::httpd::apache::{Request, request::FileKind};
use crate::httpd::config::{Alias, ServerConfig};
use crate::httpd::sys::boundary::{Place, guard};
use crate::httpd::sys::{self, request_rec};

/// httpd's `translate_name`.
///
/// # Safety
/// Called by httpd.
pub unsafe extern "C" fn translate_name(raw: *mut request_rec) -> c_int {
    guard(Place::Request(raw), sys::HTTP_INTERNAL_SERVER_ERROR, || {
        // SAFETY: httpd calls with a request of this thread.
        let request = unsafe { Request::new(raw) };
        if map(request) { sys::OK } else { sys::DECLINED }
    })
}

/// Maps the request to a script, if an alias matches: the first one, in the order of the
/// configuration.
fn map(request: Request<'_>) -> bool {
    let Some(uri) = request.uri_cstr() else {
        return false;
    };
    let path = uri.to_bytes();
    if path.first() != Some(&b'/') {
        return false;
    }
    let Some(config) = ServerConfig::of(request.server()) else {
        return false;
    };
    for alias in config.aliases.items() {
        if let Some(mapped) = alias.map(uri, request.pool()) {
            name(request, alias, mapped.target, &path[mapped.rest..]);
            return true;
        }
    }
    false
}

fn name(request: Request<'_>, alias: &Alias, target: crate::httpd::apache::PoolStr, rest: &[u8]) {
    // Where the target itself is the script, one look at it is all that is needed: the directory
    // walk, which still applies sections, .htaccess and access control, then keeps what it finds.
    // Glued together, script and rest would be looked at component by component.
    let whole = rest.is_empty() || rest[0] == b'/';
    let is_script = whole && request.name_file(target) == FileKind::Regular;
    if is_script {
        request.set_path_info(request.pool().copy(rest));
    } else {
        request.name_path(request.pool().concat(&[target.bytes(), rest]));
    }
    request.set_handler(HANDLER);
    request.set_slot(alias);
    // Other modules know by this note that ExecCGI is not needed.
    // SAFETY: two constants.
    unsafe {
        request
            .notes()
            .set(c"alias-forced-type".as_ptr(), HANDLER.as_ptr());
    }
}
