//! `ap_get_module_config` and `ap_set_module_config`, which are macros in C.

use core::ffi::c_void;

use super::ap_conf_vector_t;
use crate::httpd::hooks::module_index;

/// This module's entry of a configuration vector; null if there is none yet.
///
/// # Safety
/// `vector` is a configuration vector of httpd (`module_config`, `per_dir_config`,
/// `request_config`), and what this module keeps in vectors of its kind is a `T`.
#[inline(always)]
pub unsafe fn get<T>(vector: *const ap_conf_vector_t) -> *mut T {
    // SAFETY: httpd allocates a vector with one pointer for every loaded module.
    unsafe { *vector.cast::<*mut T>().offset(module_index() as isize) }
}

/// Sets this module's entry of a configuration vector.
///
/// # Safety
/// As for [`get`]; `value` lives at least as long as the vector's pool.
#[inline(always)]
pub unsafe fn set<T>(vector: *mut ap_conf_vector_t, value: *mut T) {
    // SAFETY: as in `get`.
    unsafe { *vector.cast::<*mut c_void>().offset(module_index() as isize) = value.cast() }
}
