//! Connections, those of mod_http2's streams among them.

use core::marker::PhantomData;
use core::ptr::NonNull;

use super::text;
use crate::httpd::sys::{self, apr_bucket_alloc_t, conn_rec};

/// A connection. For an HTTP/2 stream it is a secondary one, whose `cs` is its master's and whose
/// socket is a dummy: neither is ever touched here.
#[derive(Clone, Copy)]
pub struct Connection<'c> {
    raw: NonNull<conn_rec>,
    lifetime: PhantomData<&'c conn_rec>,
}

impl<'c> Connection<'c> {
    /// Wraps `raw`.
    ///
    /// # Safety
    /// `raw` is a connection that lives for `'c` and is used by this thread only.
    #[inline(always)]
    pub unsafe fn new(raw: *mut conn_rec) -> Self {
        Connection {
            // SAFETY: the caller's promise.
            raw: unsafe { NonNull::new_unchecked(raw) },
            lifetime: PhantomData,
        }
    }

    #[inline(always)]
    fn raw(self) -> &'c conn_rec {
        // SAFETY: only read here, field by field, between httpd's own writes on this thread.
        unsafe { self.raw.as_ref() }
    }

    /// What buckets are made from.
    #[inline(always)]
    pub fn bucket_alloc(self) -> *mut apr_bucket_alloc_t {
        self.raw().bucket_alloc
    }

    /// Address of the server's end, as text.
    #[inline]
    pub fn local_ip(self) -> &'c [u8] {
        // SAFETY: a string in the connection's pool.
        unsafe { text::bytes(self.raw().local_ip) }
    }

    /// Name of the server's end, where httpd knows one.
    #[inline]
    pub fn local_host(self) -> &'c [u8] {
        // SAFETY: every connection has a local address; the name lies in its pool.
        unsafe { text::bytes((*self.raw().local_addr).hostname) }
    }

    /// Port of the server's end.
    #[inline]
    pub fn local_port(self) -> u16 {
        // SAFETY: every connection has a local address.
        unsafe { (*self.raw().local_addr).port }
    }

    /// Port of the client's end.
    #[inline]
    pub fn client_port(self) -> u16 {
        // SAFETY: every connection has a client address.
        unsafe { (*self.raw().client_addr).port }
    }

    /// The id that the error log uses, where one has been made.
    #[inline]
    pub fn log_id(self) -> Option<&'c [u8]> {
        // SAFETY: a string in the connection's pool.
        unsafe { text::optional(self.raw().log_id) }
    }

    /// Whether the client is known to have gone.
    #[inline(always)]
    pub fn aborted(self) -> bool {
        self.raw().aborted != 0
    }

    /// Whether TLS protects the connection (any module; an HTTP/2 stream asks its master).
    #[inline]
    pub fn is_tls(self) -> bool {
        // SAFETY: a live connection.
        unsafe { sys::ap_ssl_conn_is_ssl(self.raw.as_ptr()) != 0 }
    }

    /// Lets the connection end after this response.
    #[inline]
    pub fn close_after_response(self) {
        // SAFETY: a live connection that this thread serves.
        unsafe { (*self.raw.as_ptr()).keepalive = sys::AP_CONN_CLOSE }
    }
}
