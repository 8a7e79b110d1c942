//! httpd's list of modules.

use core::ffi::CStr;

use crate::httpd::sys;

/// Whether a module with this file name (`mod_alias.c`) is part of httpd or has been loaded.
/// httpd's parent, while it reads its configuration or has just read it.
pub fn is_linked(name: &CStr) -> bool {
    // SAFETY: a C string; the list is only changed by the thread that calls this.
    unsafe { !sys::ap_find_linked_module(name.as_ptr()).is_null() }
}
