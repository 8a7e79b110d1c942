//! What the daemon client asks of [`HttpdExchange`] beyond the waist.

use core::time::Duration;
use std::os::fd::{OwnedFd, RawFd};

use super::HttpdExchange;
use crate::daemon::client::Front;
use crate::exchange::Exchange;
use crate::exchange::Pair;
use crate::exchange::abi::outcome;
use crate::exchange::response::ResponseHead;
use crate::httpd::hooks::child;
use crate::httpd::tunnel::{self, Opened};

impl Front for HttpdExchange<'_> {
    #[inline]
    fn has_body(&self) -> bool {
        self.request.may_have_body()
    }

    #[inline]
    fn expects_continue(&self) -> bool {
        self.request.expects_continue()
    }

    fn body_ended(&self) -> bool {
        self.body_has_ended()
    }

    #[inline]
    fn is_head(&self) -> bool {
        self.request.is_head()
    }

    fn has_sent(&self) -> bool {
        self.sent.get()
    }

    fn has_answered(&self) -> bool {
        self.filter_error.get()
    }

    fn socket(&self) -> Option<RawFd> {
        self.request.connection().socket()
    }

    fn is_backed_up(&self) -> bool {
        self.request.connection().is_backed_up()
    }

    fn append_unmapped(&self, fd: RawFd, offset: u64, length: u64) -> Result<(), i32> {
        self.append_range(fd, offset, length, false)
    }

    #[cold]
    fn set_write_timeout(&self, timeout: Duration) -> Duration {
        self.request.connection().set_timeout(timeout)
    }

    fn write_timeout(&self) -> Duration {
        self.request.connection().timeout()
    }

    #[cold]
    fn give_up(&self) {
        self.client_gone.set(true);
        self.request.connection().abort();
    }

    #[cold]
    fn close_after_response(&self) {
        self.request.connection().close_after_response();
    }

    #[cold]
    fn has_gone(&self) -> bool {
        self.client_gone() || child::ends_now()
    }

    #[cold]
    fn interim(&self, head: &ResponseHead<'_>) {
        self.send_interim(head);
    }

    #[cold]
    fn trailers(&self, fields: &[Pair<'_>]) {
        let pool = self.request.pool();
        let trailers = self.request.trailers_out();
        for field in fields {
            let (name, value) = (field.name.bytes(), field.value.bytes());
            let (name, value) = (pool.copy(name), pool.copy(value));
            // SAFETY: strings and table lie in one pool.
            unsafe { trailers.add(name.as_ptr(), value.as_ptr()) }
        }
    }

    #[cold]
    fn retry_after(&self, seconds: u32) {
        let value = self.request.pool().copy(seconds.to_string().as_bytes());
        // SAFETY: a constant and a string of the request's pool.
        unsafe {
            self.request
                .err_headers_out()
                .set(c"Retry-After".as_ptr(), value.as_ptr());
        }
    }

    #[cold]
    fn switch(&self, head: &ResponseHead<'_>, socket: OwnedFd, received: &[u8]) -> i32 {
        self.request.forget_continue();
        match tunnel::open(self.request, head, socket, received) {
            Opened::Over => self.sent.set(true),
            Opened::Parked => {
                self.sent.set(true);
                self.parked.set(true);
            }
            Opened::Refused(status) => return status,
        }
        outcome::DONE
    }
}
