//! APR arrays of values that can be copied.

use core::marker::PhantomData;
use core::ptr::NonNull;

use super::Pool;
use crate::httpd::sys::{self, apr_array_header_t};

/// A growing array in a pool. Lives as long as the pool it was made in.
pub struct Array<T: Copy> {
    raw: NonNull<apr_array_header_t>,
    items: PhantomData<T>,
}

impl<T: Copy> Clone for Array<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T: Copy> Copy for Array<T> {}

impl<T: Copy> Array<T> {
    /// An empty array.
    pub fn new(pool: Pool<'_>) -> Self {
        const { assert!(align_of::<T>() <= 8) };
        // SAFETY: the pool is live; APR ends the process rather than give null.
        let raw = unsafe { sys::apr_array_make(pool.as_ptr(), 4, size_of::<T>() as i32) };
        Array {
            // SAFETY: see above.
            raw: unsafe { NonNull::new_unchecked(raw) },
            items: PhantomData,
        }
    }

    /// Adds a value at the end.
    pub fn push(&mut self, value: T) {
        // SAFETY: `apr_array_push` gives room for one element of the size given to `new`.
        unsafe {
            let place: *mut T = sys::apr_array_push(self.raw.as_ptr()).cast();
            place.write(value);
        }
    }

    /// The values.
    #[inline(always)]
    pub fn items(&self) -> &[T] {
        // SAFETY: the header describes the elements that `push` wrote.
        unsafe {
            let header = self.raw.as_ref();
            core::slice::from_raw_parts(header.elts.cast(), header.nelts as usize)
        }
    }

    /// A new array: the values of `self`, then those of `other`.
    pub fn followed_by(&self, other: &Self, pool: Pool<'_>) -> Self {
        let mut both = Array::new(pool);
        for value in self.items().iter().chain(other.items()) {
            both.push(*value);
        }
        both
    }
}
