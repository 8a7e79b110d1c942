//! Bucket brigades.

use core::ffi::c_int;

use super::{File, Request};
use crate::httpd::sys::{self, apr_bucket, apr_bucket_brigade, apr_status_t, ring};

/// A brigade of the request's own thread, allocated in its pool and reused until the request ends.
#[derive(Clone, Copy)]
pub struct Brigade<'r> {
    raw: *mut apr_bucket_brigade,
    request: Request<'r>,
}

impl<'r> Brigade<'r> {
    /// An empty brigade. httpd empties it when the request's pool is cleared.
    #[inline]
    pub fn new(request: Request<'r>) -> Self {
        let alloc = request.connection().bucket_alloc();
        Brigade {
            // SAFETY: pool and allocator are those of the request and its connection.
            raw: unsafe { sys::apr_brigade_create(request.pool().as_ptr(), alloc) },
            request,
        }
    }

    /// The pointer itself.
    #[inline(always)]
    pub fn as_ptr(&self) -> *mut apr_bucket_brigade {
        self.raw
    }

    #[inline(always)]
    fn insert(&self, bucket: *mut apr_bucket) {
        // SAFETY: every caller has just made the bucket with this connection's allocator.
        unsafe { ring::insert_tail(self.raw, bucket) }
    }

    /// Whether there is no bucket.
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        // SAFETY: `new` made the brigade.
        unsafe { ring::is_empty(self.raw) }
    }

    /// Appends a copy of `data`. Small pieces share a buffer.
    #[inline]
    pub fn append_copy(&self, data: &[u8]) {
        if self.is_empty() {
            // The usual answer is one small piece: a buffer of just that size.
            let alloc = self.request.connection().bucket_alloc();
            // SAFETY: copies the bytes, since no free function is given.
            let bucket = unsafe {
                sys::apr_bucket_heap_create(data.as_ptr().cast(), data.len(), None, alloc)
            };
            self.insert(bucket);
        } else {
            // SAFETY: copies the bytes; without a flush function it cannot fail.
            unsafe {
                sys::apr_brigade_write(
                    self.raw,
                    None,
                    core::ptr::null_mut(),
                    data.as_ptr().cast(),
                    data.len(),
                );
            }
        }
    }

    /// Appends bytes without copying; httpd copies what it cannot send during the next
    /// [`pass`](Self::pass).
    ///
    /// # Safety
    /// The `length` bytes at `data` stay valid and unchanged until the next `pass` has returned.
    pub unsafe fn append_borrowed(&self, data: *const u8, length: usize) {
        let alloc = self.request.connection().bucket_alloc();
        // SAFETY: the caller's promise; that is what a transient bucket needs.
        let bucket = unsafe { sys::apr_bucket_transient_create(data.cast(), length, alloc) };
        self.insert(bucket);
    }

    /// Appends a range of a regular file, which httpd may map into memory if `map`.
    pub fn append_file(&self, file: File<'r>, offset: u64, length: u64, map: bool) {
        // Where it is read and not mapped: so much at a time.
        const READ_SIZE: usize = 64 * 1024;
        let offset = i64::try_from(offset).unwrap_or(i64::MAX);
        let length = i64::try_from(length).unwrap_or(i64::MAX);
        // SAFETY: an open file of this request's pool. The bucket is this brigade's.
        unsafe {
            let pool = self.request.pool().as_ptr();
            let bucket =
                sys::apr_brigade_insert_file(self.raw, file.as_ptr(), offset, length, pool);
            if !map {
                sys::apr_bucket_file_enable_mmap(bucket, 0);
            }
            sys::apr_bucket_file_set_buf_size(bucket, READ_SIZE);
        }
    }

    /// Appends FLUSH.
    pub fn append_flush(&self) {
        let alloc = self.request.connection().bucket_alloc();
        // SAFETY: a bucket without data.
        let bucket = unsafe { sys::apr_bucket_flush_create(alloc) };
        self.insert(bucket);
    }

    /// Appends EOS, the end of the response.
    #[inline]
    pub fn append_eos(&self) {
        let alloc = self.request.connection().bucket_alloc();
        // SAFETY: a bucket without data.
        let bucket = unsafe { sys::apr_bucket_eos_create(alloc) };
        self.insert(bucket);
    }

    /// Appends an error bucket: httpd's filters then see that the response is broken.
    pub fn append_error(&self, status: c_int) {
        let alloc = self.request.connection().bucket_alloc();
        // SAFETY: the text is optional, the pool the request's.
        let bucket = unsafe {
            sys::ap_bucket_error_create(
                status,
                core::ptr::null(),
                self.request.pool().as_ptr(),
                alloc,
            )
        };
        self.insert(bucket);
    }

    /// Hands everything to the output filters; the brigade is empty afterwards. May block.
    #[inline]
    pub fn pass(&self) -> apr_status_t {
        // SAFETY: the chain belongs to the request, which this thread serves.
        unsafe {
            let status = sys::ap_pass_brigade((*self.request.as_ptr()).output_filters, self.raw);
            // What a failing filter left behind must not be sent a second time.
            if !ring::is_empty(self.raw) {
                self.discard();
            }
            status
        }
    }

    /// Destroys all buckets.
    pub fn discard(&self) {
        // SAFETY: `new` made the brigade.
        unsafe { sys::apr_brigade_cleanup(self.raw.cast()) };
    }

    /// Fills the (empty) brigade with at most `size` bytes of the request's body.
    pub fn receive(&self, block: bool, size: usize) -> apr_status_t {
        let mode = read_mode(block);
        // SAFETY: the chain belongs to the request, which this thread serves.
        unsafe {
            sys::ap_get_brigade(
                (*self.request.as_ptr()).input_filters,
                self.raw,
                sys::AP_MODE_READBYTES,
                mode,
                i64::try_from(size).unwrap_or(i64::MAX),
            )
        }
    }

    /// The first bucket.
    #[inline]
    pub fn first(&self) -> Option<Bucket<'_>> {
        // SAFETY: `new` made the brigade.
        let raw = unsafe { ring::first(self.raw) };
        (!raw.is_null()).then_some(Bucket {
            raw,
            brigade: core::marker::PhantomData,
        })
    }
}

fn read_mode(block: bool) -> sys::apr_read_type_e {
    if block {
        sys::APR_BLOCK_READ
    } else {
        sys::APR_NONBLOCK_READ
    }
}

/// What kind a bucket is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Bytes.
    Data,
    /// The end of the body.
    Eos,
    /// An error of a filter, with its HTTP status.
    Error(c_int),
    /// Other metadata.
    Other,
}

/// A bucket in a brigade.
pub struct Bucket<'b> {
    raw: *mut apr_bucket,
    brigade: core::marker::PhantomData<&'b mut apr_bucket_brigade>,
}

impl<'b> Bucket<'b> {
    /// Its kind.
    #[inline]
    pub fn kind(&self) -> Kind {
        // SAFETY: a bucket of a live brigade; an error bucket's data is an `ap_bucket_error`, whose
        // second field is the status.
        unsafe {
            if ring::is_eos(self.raw) {
                Kind::Eos
            } else if ring::is_error(self.raw) {
                Kind::Error((*(*self.raw).data.cast::<sys::ap_bucket_error>()).status)
            } else if ring::is_metadata(self.raw) {
                Kind::Other
            } else {
                Kind::Data
            }
        }
    }

    /// Its bytes, read if need be.
    #[inline]
    pub fn read(&mut self, block: bool) -> Result<&[u8], apr_status_t> {
        // SAFETY: a bucket of a live brigade; the borrow keeps it from being deleted.
        unsafe { ring::read(self.raw, read_mode(block)) }
    }

    /// Removes and destroys it.
    #[inline]
    pub fn delete(self) {
        // SAFETY: a bucket of a live brigade, not used afterwards since `self` is consumed.
        unsafe { ring::delete(self.raw) }
    }
}
