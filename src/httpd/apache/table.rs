//! APR tables: ordered pairs of strings, names without regard to case.

use core::ffi::{CStr, c_char};
use core::marker::PhantomData;
use core::ptr::NonNull;

use super::{Pool, text};
use crate::httpd::sys::{self, apr_table_entry_t, apr_table_t};

/// A table of a request.
#[derive(Clone, Copy)]
pub struct Table<'t> {
    raw: NonNull<apr_table_t>,
    lifetime: PhantomData<&'t apr_table_t>,
}

impl<'t> Table<'t> {
    /// Wraps `raw`.
    ///
    /// # Safety
    /// `raw` is a table that lives for `'t` and is used by this thread only.
    #[inline(always)]
    pub unsafe fn new(raw: *mut apr_table_t) -> Self {
        Table {
            // SAFETY: the caller's promise.
            raw: unsafe { NonNull::new_unchecked(raw) },
            lifetime: PhantomData,
        }
    }

    /// An empty table, with room for `count` entries at first.
    pub fn make(pool: Pool<'t>, count: usize) -> Self {
        let count = i32::try_from(count).unwrap_or(i32::MAX);
        // SAFETY: the pool is live, and the table lives in it. APR never gives null.
        unsafe { Table::new(sys::apr_table_make(pool.as_ptr(), count)) }
    }

    /// The table, for httpd.
    pub fn as_ptr(self) -> *mut apr_table_t {
        self.raw.as_ptr()
    }

    /// The value of the first entry named `name`.
    #[inline]
    pub fn get(self, name: &CStr) -> Option<&'t [u8]> {
        // SAFETY: a live table; its values lie in a pool that outlives it.
        unsafe { text::optional(sys::apr_table_get(self.raw.as_ptr(), name.as_ptr())) }
    }

    /// The value of the first entry named `name`, where the name is no C string.
    pub fn find(self, name: &[u8]) -> Option<&'t [u8]> {
        self.iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }

    /// All entries in order. The table must not be changed meanwhile.
    #[inline(always)]
    pub fn iter(self) -> impl Iterator<Item = (&'t [u8], &'t [u8])> {
        // SAFETY: the array of a live table; an entry's name and value are C strings.
        let entries: &'t [apr_table_entry_t] = unsafe {
            let array = sys::apr_table_elts(self.raw.as_ptr());
            let count = (*array).nelts as usize;
            if count == 0 {
                &[]
            } else {
                core::slice::from_raw_parts((*array).elts.cast(), count)
            }
        };
        entries
            .iter()
            .filter(|entry| !entry.key.is_null())
            // SAFETY: as above; a missing value is null, which reads as empty.
            .map(|entry| unsafe { (text::bytes(entry.key), text::bytes(entry.val)) })
    }

    /// Adds an entry without copying.
    ///
    /// # Safety
    /// Both strings live as long as the table.
    #[inline(always)]
    pub unsafe fn add(self, name: *const c_char, value: *const c_char) {
        // SAFETY: the caller's promise.
        unsafe { sys::apr_table_addn(self.raw.as_ptr(), name, value) }
    }

    /// Removes all entries named `name`.
    pub fn unset(self, name: &CStr) {
        // SAFETY: a live table and a C string.
        unsafe { sys::apr_table_unset(self.raw.as_ptr(), name.as_ptr()) }
    }

    /// Sets an entry without copying.
    ///
    /// # Safety
    /// Both strings live as long as the table.
    #[inline(always)]
    pub unsafe fn set(self, name: *const c_char, value: *const c_char) {
        // SAFETY: the caller's promise.
        unsafe { sys::apr_table_setn(self.raw.as_ptr(), name, value) }
    }
}
