//! APR's rings, brigades and buckets: macros in C, inline functions here.
//!
//! A brigade is a ring whose sentinel is "the bucket whose links are the ring's head"; it is
//! compared with, never read. include/shim.c asserts the layout.

use core::ffi::c_char;
use core::mem::offset_of;

use super::{
    ap_bucket_type_error, apr_bucket, apr_bucket_brigade, apr_bucket_type_eos, apr_read_type_e,
    apr_status_t,
};

/// `APR_BRIGADE_SENTINEL`.
///
/// # Safety
/// `brigade` points to a brigade.
#[inline(always)]
pub unsafe fn sentinel(brigade: *mut apr_bucket_brigade) -> *mut apr_bucket {
    // SAFETY: only an address is computed.
    let head = unsafe { &raw mut (*brigade).list };
    head.cast::<u8>()
        .wrapping_sub(offset_of!(apr_bucket, link))
        .cast()
}

/// `APR_BRIGADE_FIRST`, or null when the brigade is empty.
///
/// # Safety
/// `brigade` points to a brigade.
#[inline(always)]
pub unsafe fn first(brigade: *mut apr_bucket_brigade) -> *mut apr_bucket {
    // SAFETY: the head's links are always valid.
    let first = unsafe { (*brigade).list.next };
    // SAFETY: the caller's promise.
    if first == unsafe { sentinel(brigade) } {
        core::ptr::null_mut()
    } else {
        first
    }
}

/// `APR_BRIGADE_EMPTY`.
///
/// # Safety
/// `brigade` points to a brigade.
#[inline(always)]
pub unsafe fn is_empty(brigade: *mut apr_bucket_brigade) -> bool {
    // SAFETY: the caller's promise.
    unsafe { first(brigade).is_null() }
}

/// `APR_BRIGADE_INSERT_TAIL`.
///
/// # Safety
/// `brigade` points to a brigade, `bucket` to a bucket that is in none and that was made by the
/// same bucket allocator.
#[inline(always)]
pub unsafe fn insert_tail(brigade: *mut apr_bucket_brigade, bucket: *mut apr_bucket) {
    // SAFETY: the last element's links, or the head's own where the ring is empty (the sentinel's
    // links are the head's), are valid.
    unsafe {
        let sentinel = sentinel(brigade);
        let last = (*brigade).list.prev;
        (*bucket).link.next = sentinel;
        (*bucket).link.prev = last;
        if last == sentinel {
            (*brigade).list.next = bucket;
        } else {
            (*last).link.next = bucket;
        }
        (*brigade).list.prev = bucket;
    }
}

/// `apr_bucket_delete`: removes a bucket from its brigade and destroys it.
///
/// # Safety
/// `bucket` is in a brigade and not used afterwards.
#[inline(always)]
pub unsafe fn delete(bucket: *mut apr_bucket) {
    // SAFETY: neighbours of a bucket in a ring are buckets or the head in the guise of one; only
    // the links are written. Every bucket type has `destroy`, every bucket `free`.
    unsafe {
        let next = (*bucket).link.next;
        let previous = (*bucket).link.prev;
        (&raw mut (*next).link.prev).write(previous);
        (&raw mut (*previous).link.next).write(next);
        let destroy = (*(*bucket).type_).destroy.unwrap_unchecked();
        destroy((*bucket).data);
        let free = (*bucket).free.unwrap_unchecked();
        free(bucket.cast());
    }
}

/// `apr_bucket_read`.
///
/// # Safety
/// `bucket` is in a brigade. The bytes live until the bucket is deleted.
#[inline(always)]
pub unsafe fn read<'a>(
    bucket: *mut apr_bucket,
    mode: apr_read_type_e,
) -> Result<&'a [u8], apr_status_t> {
    let mut data: *const c_char = core::ptr::null();
    let mut length = 0;
    // SAFETY: every bucket type has `read`, which fills both on success.
    unsafe {
        let read = (*(*bucket).type_).read.unwrap_unchecked();
        match read(bucket, &mut data, &mut length, mode) {
            0 if length == 0 => Ok(&[]),
            0 => Ok(core::slice::from_raw_parts(data.cast(), length)),
            status => Err(status),
        }
    }
}

/// `APR_BUCKET_IS_EOS`.
///
/// # Safety
/// `bucket` is a bucket.
#[inline(always)]
pub unsafe fn is_eos(bucket: *mut apr_bucket) -> bool {
    // SAFETY: the caller's promise.
    unsafe { (*bucket).type_ == &raw const apr_bucket_type_eos }
}

/// `AP_BUCKET_IS_ERROR`.
///
/// # Safety
/// `bucket` is a bucket.
#[inline(always)]
pub unsafe fn is_error(bucket: *mut apr_bucket) -> bool {
    // SAFETY: the caller's promise.
    unsafe { (*bucket).type_ == &raw const ap_bucket_type_error }
}

/// `APR_BUCKET_IS_METADATA`.
///
/// # Safety
/// `bucket` is a bucket.
#[inline(always)]
pub unsafe fn is_metadata(bucket: *mut apr_bucket) -> bool {
    // SAFETY: the caller's promise; every bucket has a type.
    unsafe { (*(*bucket).type_).is_metadata != 0 }
}
