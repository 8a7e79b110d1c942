//! What the client needs to know of the end user's side beyond an [`Exchange`].

use core::time::Duration;
use std::os::fd::{OwnedFd, RawFd};

use crate::exchange::Exchange;
use crate::exchange::Pair;
use crate::exchange::response::ResponseHead;

/// The end user's request and response. Used by one thread, which may block.
pub trait Front: Exchange {
    /// Whether a body may come: neither the head nor the server says that there is none.
    fn has_body(&self) -> bool;

    /// Whether the end user waits for `100 Continue` before the body is sent.
    fn expects_continue(&self) -> bool;

    /// Whether it is known without reading that the body has been read to its end.
    fn body_ended(&self) -> bool;

    /// Whether the response has no body whatever its head says.
    fn is_head(&self) -> bool;

    /// Whether anything was handed on: an error page cannot take the response's place any more.
    fn has_sent(&self) -> bool;

    /// Whether the server has already answered by itself (a body that is too large).
    fn has_answered(&self) -> bool;

    /// The end user's socket; `None` if the connection is shared with other requests (HTTP/2).
    fn socket(&self) -> Option<RawFd>;

    /// Whether bytes that were handed on still wait for room in the socket; tries to send them,
    /// without blocking. Always `false` without a [`socket`](Self::socket).
    fn is_backed_up(&self) -> bool;

    /// As [`append_file`](Exchange::append_file), but the file is never mapped into memory: whoever
    /// made it shorter meanwhile would kill this process.
    fn append_unmapped(&self, fd: RawFd, offset: u64, length: u64) -> Result<(), i32>;

    /// Sets how long one write to the end user may take, and gives what it was.
    fn set_write_timeout(&self, timeout: Duration) -> Duration;

    /// How long one write to the end user may take.
    fn write_timeout(&self) -> Duration;

    /// The end user has taken nothing for that long: nothing more is sent.
    fn give_up(&self);

    /// The connection ends after this response: what the end user still sends is not waited for.
    fn close_after_response(&self);

    /// Whether the end user has gone, as far as that is known without a look at the
    /// [`socket`](Self::socket), or is not to be served any longer. Asked now and then while a worker
    /// is silent.
    fn has_gone(&self) -> bool;

    /// Sends an interim response, if the end user's protocol has such. Nothing has been handed on.
    /// The head has been checked: a status from 102 to 199 without 101, and fields without any about
    /// a body. May block.
    fn interim(&self, head: &ResponseHead<'_>);

    /// Adds fields that follow the body of the response, if the end user's protocol has such. They
    /// have been checked; the end of the response has not been handed on.
    fn trailers(&self, fields: &[Pair<'_>]);

    /// Adds `Retry-After` to an error page.
    fn retry_after(&self, seconds: u32);

    /// Answers with this head, whose status is 101, and carries bytes between the end user and the
    /// worker behind `socket` from now on, of which those in `received` have already come. Gives
    /// what the handler returns. It may return while the bytes are still being carried, in which
    /// case this request is not touched again.
    fn switch(&self, head: &ResponseHead<'_>, socket: OwnedFd, received: &[u8]) -> i32;
}
