//! APR pools and what lives in them.

use core::ffi::{CStr, c_char, c_void};
use core::marker::PhantomData;
use core::ptr::NonNull;

use crate::httpd::sys::{self, apr_pool_t};

/// A pool. Memory from it lives until httpd clears it; nothing in it is dropped.
///
/// Not thread-safe: a pool belongs to the thread that serves its request or connection.
#[derive(Clone, Copy)]
pub struct Pool<'p> {
    raw: NonNull<apr_pool_t>,
    lifetime: PhantomData<&'p apr_pool_t>,
}

impl<'p> Pool<'p> {
    /// Wraps `raw`.
    ///
    /// # Safety
    /// `raw` is a pool that is neither cleared nor used by another thread during `'p`.
    #[inline(always)]
    pub unsafe fn new(raw: *mut apr_pool_t) -> Self {
        Pool {
            // SAFETY: the caller's promise.
            raw: unsafe { NonNull::new_unchecked(raw) },
            lifetime: PhantomData,
        }
    }

    /// The pointer itself.
    #[inline(always)]
    pub fn as_ptr(self) -> *mut apr_pool_t {
        self.raw.as_ptr()
    }

    /// Uninitialised memory, aligned for every C type. httpd ends the process when there is none.
    #[inline(always)]
    pub fn allocate(self, size: usize) -> *mut u8 {
        // SAFETY: the pool is live.
        unsafe { sys::apr_palloc(self.as_ptr(), size) }.cast()
    }

    /// Puts a value into the pool.
    #[inline]
    pub fn place<T: Copy>(self, value: T) -> &'p mut T {
        const { assert!(align_of::<T>() <= 8) };
        let place: *mut T = self.allocate(size_of::<T>()).cast();
        // SAFETY: fresh memory of that size; apr_palloc aligns to 8. `Copy` types need no drop.
        unsafe {
            place.write(value);
            &mut *place
        }
    }

    /// Gives a value to the pool, which drops it when it is cleared.
    pub fn own<T>(self, value: T) -> &'p mut T {
        /// # Safety
        /// `data` is the box that `own` gave away.
        unsafe extern "C" fn discard<T>(data: *mut c_void) -> sys::apr_status_t {
            // SAFETY: the caller's promise; APR calls a clean-up once. A panic in a destructor
            // must not unwind into APR.
            let _ = std::panic::catch_unwind(|| unsafe { drop(Box::from_raw(data.cast::<T>())) });
            sys::APR_SUCCESS
        }
        let value = Box::into_raw(Box::new(value));
        // SAFETY: the box lives until the clean-up, which is when the pool's lifetime ends.
        unsafe {
            self.on_clear(value.cast(), discard::<T>);
            &mut *value
        }
    }

    /// Copies bytes and ends them with NUL.
    #[inline]
    pub fn copy(self, bytes: &[u8]) -> PoolStr {
        // SAFETY: the bytes are readable; the result is NUL-terminated pool memory.
        unsafe {
            let copy = sys::apr_pstrmemdup(self.as_ptr(), bytes.as_ptr().cast(), bytes.len());
            PoolStr::from_raw(copy, bytes.len())
        }
    }

    /// Copies several pieces into one string.
    pub fn concat(self, pieces: &[&[u8]]) -> PoolStr {
        let length = pieces.iter().map(|piece| piece.len()).sum();
        let start = self.allocate(length + 1);
        let mut end = start;
        for piece in pieces {
            // SAFETY: the block has room for all pieces and the NUL.
            unsafe {
                end.copy_from_nonoverlapping(piece.as_ptr(), piece.len());
                end = end.add(piece.len());
            }
        }
        // SAFETY: as above.
        unsafe {
            end.write(0);
            PoolStr::from_raw(start.cast(), length)
        }
    }

    /// As [`concat`](Self::concat), for a string that nobody keeps longer than the pool.
    pub fn join(self, pieces: &[&[u8]]) -> &'p [u8] {
        let string = self.concat(pieces);
        // SAFETY: pool memory lives for 'p and nobody else has the pointer.
        unsafe { core::slice::from_raw_parts(string.as_ptr().cast(), string.length) }
    }

    /// Calls `cleanup(data)` when the pool is cleared or destroyed, but not in a forked child.
    ///
    /// # Safety
    /// `cleanup` may be called with `data` until then and does not unwind.
    pub unsafe fn on_clear(
        self,
        data: *mut c_void,
        cleanup: unsafe extern "C" fn(*mut c_void) -> sys::apr_status_t,
    ) {
        // SAFETY: the caller's promise.
        unsafe {
            sys::apr_pool_cleanup_register(
                self.as_ptr(),
                data,
                Some(cleanup),
                Some(sys::apr_pool_cleanup_null),
            );
        }
    }
}

/// A NUL-terminated string in a pool, with its length.
///
/// What holds one lives in the same pool or in one that is cleared earlier.
#[derive(Clone, Copy)]
pub struct PoolStr {
    raw: NonNull<c_char>,
    length: usize,
}

impl PoolStr {
    /// Wraps a pool string.
    ///
    /// # Safety
    /// `raw` has `length` bytes and a NUL, and lives as long as whatever will hold the result.
    #[inline(always)]
    pub unsafe fn from_raw(raw: *mut c_char, length: usize) -> Self {
        PoolStr {
            // SAFETY: the caller's promise.
            raw: unsafe { NonNull::new_unchecked(raw) },
            length,
        }
    }

    /// The bytes, without the NUL.
    #[inline(always)]
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: the contract of `from_raw`.
        unsafe { core::slice::from_raw_parts(self.raw.as_ptr().cast(), self.length) }
    }

    /// As a C string.
    pub fn as_cstr(&self) -> &CStr {
        // SAFETY: the contract of `from_raw`.
        unsafe { CStr::from_ptr(self.raw.as_ptr()) }
    }

    /// The pointer itself.
    #[inline(always)]
    pub fn as_ptr(&self) -> *mut c_char {
        self.raw.as_ptr()
    }

    /// Readable text for messages.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(self.bytes()).into_owned()
    }
}

/// A value in a pool.
///
/// What holds one lives in the same pool or in one that is cleared earlier.
pub struct PoolRef<T: Copy>(NonNull<T>);

impl<T: Copy> Clone for PoolRef<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T: Copy> Copy for PoolRef<T> {}

impl<T: Copy> PoolRef<T> {
    /// Puts a value into `pool`, which is the one of what will hold the result.
    pub fn place(pool: Pool<'_>, value: T) -> Self {
        PoolRef(NonNull::from(pool.place(value)))
    }
}

impl<T: Copy> core::ops::Deref for PoolRef<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the pool has not been cleared, by contract; nothing changes the value.
        unsafe { self.0.as_ref() }
    }
}
