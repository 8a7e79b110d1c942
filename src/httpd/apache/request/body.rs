//! A request's body, before it is read, and where its answer stands.

use core::ffi::c_int;

use super::Request;
use crate::httpd::sys::{self, apr_off_t};

impl Request<'_> {
    /// Looks at Transfer-Encoding and Content-Length; reads nothing. `Err` is an HTTP status.
    #[inline]
    pub fn set_up_body(self, chunked: bool) -> Result<(), c_int> {
        let policy = if chunked {
            sys::REQUEST_CHUNKED_DECHUNK
        } else {
            sys::REQUEST_CHUNKED_ERROR
        };
        // SAFETY: a live request of this thread.
        match unsafe { sys::ap_setup_client_block(self.as_ptr(), policy) } {
            sys::OK => Ok(()),
            status => Err(status),
        }
    }

    /// How many bytes the body is said to have, after [`set_up_body`](Self::set_up_body).
    #[inline(always)]
    pub fn declared_body(self) -> apr_off_t {
        self.raw().remaining
    }

    /// Whether there may be a body to read, after [`set_up_body`](Self::set_up_body).
    #[inline(always)]
    pub fn may_have_body(self) -> bool {
        let raw = self.raw();
        raw.read_chunked != 0 || raw.remaining > 0 || !raw.kept_body.is_null()
    }

    /// Whether the client waits for `100 Continue`.
    #[inline(always)]
    pub fn expects_continue(self) -> bool {
        self.raw().expecting_100 != 0
    }

    /// `LimitRequestBody`; 0 is no limit.
    #[inline]
    pub fn body_limit(self) -> apr_off_t {
        // SAFETY: a live request.
        unsafe { sys::ap_get_limit_req_body(self.as_ptr()) }
    }

    /// Whether the end of the response has gone through httpd's filters.
    #[inline(always)]
    pub fn response_has_ended(self) -> bool {
        self.raw().eos_sent != 0
    }

    /// The client need not be told to go on any more.
    #[inline(always)]
    pub fn forget_continue(self) {
        // SAFETY: a live request of this thread.
        unsafe { (*self.as_ptr()).expecting_100 = 0 }
    }
}
