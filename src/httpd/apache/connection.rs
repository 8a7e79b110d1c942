//! Connections, those of mod_http2's streams among them.

use core::marker::PhantomData;
use core::ptr::NonNull;
use core::time::Duration;
use std::os::fd::RawFd;

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

    /// The pointer itself.
    #[inline(always)]
    pub fn as_ptr(self) -> *mut conn_rec {
        self.raw.as_ptr()
    }

    /// This module's entry of the connection's own vector; null if there is none.
    #[inline(always)]
    pub fn slot<T>(self) -> *mut T {
        // SAFETY: the connection's vector. Only `tunnel::parked` calls this.
        unsafe { sys::slot::get(self.raw().conn_config) }
    }

    /// Sets what [`slot`](Self::slot) gives.
    ///
    /// # Safety
    /// Who looks there knows what to do with it, and how long it lives.
    pub unsafe fn set_slot<T>(self, value: *mut T) {
        // SAFETY: as above, and the caller's promise.
        unsafe { sys::slot::set(self.raw().conn_config, value) }
    }

    /// Whether it is a stream of an HTTP/2 connection.
    #[inline]
    pub fn is_stream(self) -> bool {
        !self.raw().master.is_null()
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
        // SAFETY: a live connection. mod_http2 sets this for a stream from another thread, so each
        // call looks anew.
        unsafe { (&raw const (*self.raw.as_ptr()).aborted).read_volatile() != 0 }
    }

    /// Whether TLS protects the connection (any module; an HTTP/2 stream asks its master).
    #[inline]
    pub fn is_tls(self) -> bool {
        // SAFETY: a live connection.
        unsafe { sys::ap_ssl_conn_is_ssl(self.raw.as_ptr()) != 0 }
    }

    /// The client's socket; `None` for the stream of an HTTP/2 connection.
    pub fn socket(self) -> Option<RawFd> {
        if !self.raw().master.is_null() {
            return None;
        }
        let mut fd = -1;
        // SAFETY: a live connection that this thread serves; its socket is open as long as the
        // connection lives.
        unsafe {
            let socket = sys::ap_get_conn_socket(self.raw.as_ptr());
            if socket.is_null() || sys::apr_os_sock_get(&mut fd, socket) != sys::APR_SUCCESS {
                return None;
            }
        }
        (fd >= 0).then_some(fd)
    }

    /// Whether the network filter holds bytes.
    pub fn has_output(self) -> bool {
        self.raw().data_in_output_filters != 0
    }

    /// Whether the network filter holds bytes for which the socket has no room; tries once more,
    /// without blocking. `false` for the stream of an HTTP/2 connection.
    pub fn is_backed_up(self) -> bool {
        if !self.raw().master.is_null() || self.raw().data_in_output_filters == 0 {
            return false;
        }
        // SAFETY: a live connection that this thread serves; every chain ends with the network
        // filter, which takes null as "go on" (as the MPMs use it).
        unsafe {
            let mut last = self.raw().output_filters;
            if last.is_null() {
                return false;
            }
            while !(*last).next.is_null() {
                last = (*last).next;
            }
            let Some(filter) = (*(*last).frec).filter_func.out_func else {
                return false;
            };
            // A failure shows in `aborted`, and the next write fails.
            filter(last, core::ptr::null_mut());
        }
        self.raw().data_in_output_filters != 0 && !self.aborted()
    }

    /// How long one read or write at the socket may take.
    pub fn timeout(self) -> Duration {
        let mut timeout = 0;
        // SAFETY: as in `socket`; every connection has a server.
        unsafe {
            let socket = sys::ap_get_conn_socket(self.raw.as_ptr());
            if !socket.is_null() {
                sys::apr_socket_timeout_get(socket, &mut timeout);
            }
            if timeout <= 0 {
                timeout = (*self.raw().base_server).timeout;
            }
        }
        Duration::from_micros(timeout.unsigned_abs())
    }

    /// Sets what [`timeout`](Self::timeout) gives, and gives what it was. Without effect for the
    /// stream of an HTTP/2 connection.
    pub fn set_timeout(self, timeout: Duration) -> Duration {
        let before = self.timeout();
        if self.raw().master.is_null() {
            let timeout = i64::try_from(timeout.as_micros()).unwrap_or(i64::MAX);
            // SAFETY: as in `socket`.
            unsafe {
                let socket = sys::ap_get_conn_socket(self.raw.as_ptr());
                if !socket.is_null() {
                    sys::apr_socket_timeout_set(socket, timeout);
                }
            }
        }
        before
    }

    /// Nothing can be sent to the client any more: httpd closes the connection.
    #[cold]
    pub fn abort(self) {
        // SAFETY: a live connection that this thread serves.
        unsafe { (*self.raw.as_ptr()).aborted = 1 }
    }

    /// Lets the connection end after this response.
    #[inline]
    pub fn close_after_response(self) {
        // SAFETY: a live connection that this thread serves.
        unsafe { (*self.raw.as_ptr()).keepalive = sys::AP_CONN_CLOSE }
    }
}
