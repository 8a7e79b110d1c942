//! The request's body.

use core::cell::Cell;

use super::HttpdExchange;
use crate::exchange::BodyError;
use crate::httpd::apache::Brigade;
use crate::httpd::apache::brigade::Kind;
use crate::httpd::sys::{self, apr_status_t};

/// How much one call of the filters asks for at least: what httpd's socket bucket holds.
const LEAST: usize = 8_192;
/// And at most: what is set aside in memory meanwhile.
const MOST: usize = 65_536;
/// Filters may give nothing at all, without an error; not for ever.
const EMPTY_ANSWERS: u32 = 64;

#[derive(Clone, Copy)]
enum Phase {
    Open,
    Ended,
    Failed(u16),
}

/// Where reading stands.
pub struct BodyState<'r> {
    /// What has arrived and has not been read.
    input: Cell<Option<Brigade<'r>>>,
    /// How much of its first bucket has been read.
    consumed: Cell<usize>,
    phase: Cell<Phase>,
}

impl BodyState<'_> {
    /// Nothing has been read.
    #[inline]
    pub fn new() -> Self {
        BodyState {
            input: Cell::new(None),
            consumed: Cell::new(0),
            phase: Cell::new(Phase::Open),
        }
    }
}

impl Default for BodyState<'_> {
    fn default() -> Self {
        Self::new()
    }
}

impl<'r> HttpdExchange<'r> {
    /// Reads what fits into `buffer`; waits only if `block`.
    pub fn read_body(&self, buffer: &mut [u8], block: bool) -> Result<usize, BodyError> {
        if buffer.is_empty() {
            return Ok(0);
        }
        match self.body.phase.get() {
            Phase::Open => {}
            Phase::Ended => return Ok(0),
            Phase::Failed(status) => return Err(BodyError::Failed { status }),
        }
        let input = self.input();
        for _ in 0..EMPTY_ANSWERS {
            if let Some(count) = self.take(input, buffer, block)? {
                return Ok(count);
            }
            let size = buffer.len().clamp(LEAST, MOST);
            match input.receive(block, size) {
                // A body that is malformed when the response has begun: httpd's filter has ended
                // the response and says nothing of it here, and the rubbish is in the brigade.
                sys::APR_SUCCESS if self.request.response_has_ended() => {
                    input.discard();
                    return Err(self.lost(sys::HTTP_BAD_REQUEST));
                }
                sys::APR_SUCCESS if input.is_empty() && !block => {
                    return Err(BodyError::WouldBlock);
                }
                sys::APR_SUCCESS => {}
                status => return Err(self.failed(status, block)),
            }
        }
        Err(self.lost(sys::HTTP_BAD_REQUEST))
    }

    /// Whether the end of the body has been seen, though perhaps not yet read.
    pub fn body_has_ended(&self) -> bool {
        match self.body.phase.get() {
            Phase::Open => {}
            Phase::Ended => return true,
            Phase::Failed(_) => return false,
        }
        let Some(input) = self.body.input.get() else {
            return false;
        };
        while let Some(bucket) = input.first() {
            match bucket.kind() {
                Kind::Eos => {
                    self.body.phase.set(Phase::Ended);
                    return true;
                }
                Kind::Other => bucket.delete(),
                Kind::Data | Kind::Error(_) => break,
            }
        }
        false
    }

    /// Takes what is left of the body from the connection, so that nothing of it can pass for the
    /// next request or for the body of a redirected one. Blocks. A body that nobody has asked the
    /// client for ends the connection instead, which a stream of HTTP/2 cannot.
    ///
    /// `Err` is what the handler must return.
    pub fn discard_body(&self) -> Result<(), i32> {
        let failed = matches!(self.body.phase.get(), Phase::Failed(_));
        if failed || !self.request.may_have_body() || self.body_has_ended() {
            return Ok(());
        }
        let connection = self.request.connection();
        if self.request.expects_continue() && connection.socket().is_some() {
            connection.close_after_response();
            return Ok(());
        }
        // Not httpd's `ap_discard_request_body`: that does nothing for a stream of HTTP/2.
        let mut buffer = [0; LEAST];
        loop {
            match self.read_body(&mut buffer, true) {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(_) if self.filter_error.get() => return Err(sys::AP_FILTER_ERROR),
                Err(BodyError::Failed { status }) => return Err(status.into()),
                Err(BodyError::WouldBlock) => return Err(sys::HTTP_BAD_REQUEST),
            }
        }
    }

    fn input(&self) -> Brigade<'r> {
        if let Some(input) = self.body.input.get() {
            return input;
        }
        let input = Brigade::new(self.request);
        self.body.input.set(Some(input));
        input
    }

    /// Takes bytes out of `input`: `None` when it is used up.
    fn take(
        &self,
        input: Brigade<'r>,
        buffer: &mut [u8],
        block: bool,
    ) -> Result<Option<usize>, BodyError> {
        let mut filled = 0;
        while filled < buffer.len() {
            let Some(mut bucket) = input.first() else {
                break;
            };
            match bucket.kind() {
                Kind::Data => {}
                Kind::Eos if filled > 0 => break,
                Kind::Eos => {
                    self.body.phase.set(Phase::Ended);
                    return Ok(Some(0));
                }
                Kind::Error(_) if filled > 0 => break,
                Kind::Error(status) => return Err(self.lost(status)),
                Kind::Other => {
                    bucket.delete();
                    continue;
                }
            }
            // Waiting for a second bucket would keep the first from the application.
            let data = match bucket.read(block && filled == 0) {
                Ok(data) => data,
                Err(_) if filled > 0 => break,
                Err(status) => return Err(self.failed(status, block)),
            };
            let consumed = self.body.consumed.get();
            let fresh = &data[consumed.min(data.len())..];
            let count = fresh.len().min(buffer.len() - filled);
            buffer[filled..filled + count].copy_from_slice(&fresh[..count]);
            filled += count;
            if count == fresh.len() {
                bucket.delete();
                self.body.consumed.set(0);
            } else {
                self.body.consumed.set(consumed + count);
            }
        }
        Ok((filled > 0).then_some(filled))
    }

    /// What an error of a filter or bucket means.
    fn failed(&self, status: apr_status_t, block: bool) -> BodyError {
        // SAFETY: no pointers.
        if !block && unsafe { sys::rwsgi_status_is_eagain(status) } != 0 {
            return BodyError::WouldBlock;
        }
        // SAFETY: no pointers.
        let mapped = unsafe { sys::ap_map_http_request_error(status, sys::HTTP_BAD_REQUEST) };
        self.lost(mapped)
    }

    /// The body cannot be read any more, and the connection cannot be used for another request.
    fn lost(&self, status: i32) -> BodyError {
        self.request.connection().close_after_response();
        if status == sys::AP_FILTER_ERROR {
            // The filter has sent the error response.
            self.filter_error.set(true);
        }
        let status = u16::try_from(status)
            .ok()
            .filter(|status| (400..=599).contains(status))
            .unwrap_or(400);
        self.body.phase.set(Phase::Failed(status));
        BodyError::Failed { status }
    }
}
