//! The functions that a gateway calls, for [`HttpdExchange`].
//!
//! Each goes through the panic boundary: a bug here must not unwind into the gateway's frames.

use core::ffi::c_void;

use super::HttpdExchange;
use crate::exchange::abi::{ExchangeTable, Source, Text, VERSION, read as results};
use crate::exchange::memory::Borrowed;
use crate::exchange::response::ResponseHead;
use crate::exchange::{BodyError, Exchange, MayBlock, Send, Wait};
use crate::httpd::hooks::child::level_of;
use crate::httpd::sys::boundary::{Place, guard};

/// The table that every request passes.
pub static TABLE: ExchangeTable = ExchangeTable {
    version: VERSION,
    size: size_of::<ExchangeTable>() as u32,
    read,
    start,
    append,
    append_file,
    send,
    abort,
    log,
    client_gone,
    log_from,
    logs,
};

/// Calls `body` with the exchange that `context` points to.
///
/// # Safety
/// `context` is the context of a [`Request`](crate::exchange::abi::Request) whose `handle` has not
/// returned yet.
#[inline(always)]
unsafe fn with<T>(
    context: *mut c_void,
    fallback: T,
    body: impl FnOnce(&HttpdExchange<'_>) -> T,
) -> T {
    // SAFETY: the handler passes a pointer to the exchange on its stack.
    let exchange = unsafe { &*context.cast::<HttpdExchange<'_>>() };
    // The server, not the request: this may be another thread than the request's.
    guard(Place::Server(exchange.server.as_ptr()), fallback, || {
        body(exchange)
    })
}

unsafe extern "C" fn read(
    context: *mut c_void,
    buffer: *mut u8,
    capacity: usize,
    wait: u8,
) -> isize {
    const FAILED: isize = results::FAILED - 500;
    // SAFETY: the table's contract: a buffer of that capacity.
    unsafe {
        with(context, FAILED, |exchange| {
            let buffer = core::slice::from_raw_parts_mut(buffer, capacity);
            let may_block = MayBlock::detached();
            let wait = if wait == 0 {
                Wait::No
            } else {
                Wait::Yes(&may_block)
            };
            match exchange.read(buffer, wait) {
                Ok(count) => count as isize,
                Err(BodyError::WouldBlock) => results::WOULD_BLOCK,
                Err(BodyError::Failed { status }) => {
                    results::FAILED - isize::try_from(status).unwrap_or(500)
                }
            }
        })
    }
}

unsafe extern "C" fn start(context: *mut c_void, head: *const ResponseHead<'_>) {
    // SAFETY: the table's contract: a valid head.
    unsafe { with(context, (), |exchange| exchange.start(&*head)) }
}

unsafe extern "C" fn append(context: *mut c_void, data: *const u8, length: usize, copy: u8) {
    if length == 0 {
        return;
    }
    // SAFETY: the table's contract: that many bytes; without `copy` they stay until the next
    // `send` or `abort`.
    unsafe {
        with(context, (), |exchange| {
            let data = core::slice::from_raw_parts(data, length);
            if copy != 0 {
                exchange.append(data);
            } else {
                exchange.append_borrowed(Borrowed::new(data));
            }
        });
    }
}

unsafe extern "C" fn append_file(context: *mut c_void, fd: i32, offset: u64, length: u64) -> i32 {
    // SAFETY: the table's contract.
    unsafe {
        with(context, libc::EIO, |exchange| {
            exchange.append_file(fd, offset, length).err().unwrap_or(0)
        })
    }
}

unsafe extern "C" fn send(context: *mut c_void, how: u8) -> i32 {
    let how = match how {
        0 => Send::Flush,
        1 => Send::End,
        _ => Send::Keep,
    };
    // SAFETY: the table's contract.
    unsafe {
        with(context, 1, |exchange| {
            i32::from(exchange.send(how, &MayBlock::detached()).is_err())
        })
    }
}

unsafe extern "C" fn abort(context: *mut c_void) {
    // SAFETY: the table's contract.
    unsafe {
        with(context, (), |exchange| {
            exchange.abort(&MayBlock::detached())
        })
    }
}

unsafe extern "C" fn log(context: *mut c_void, level: u8, foreign: u8, line: Text<'_>) {
    // SAFETY: the table's contract.
    unsafe {
        with(context, (), |exchange| {
            exchange.log(level_of(level), foreign != 0, line.bytes());
        });
    }
}

unsafe extern "C" fn client_gone(context: *mut c_void) -> i32 {
    // SAFETY: the table's contract.
    unsafe { with(context, 1, |exchange| i32::from(exchange.client_gone())) }
}

unsafe extern "C" fn log_from(
    context: *mut c_void,
    level: u8,
    foreign: u8,
    source: *const Source<'_>,
    line: Text<'_>,
) {
    // SAFETY: the table's contract: a valid source.
    unsafe {
        with(context, (), |exchange| {
            exchange.log_from(level_of(level), foreign != 0, *source, line.bytes());
        });
    }
}

unsafe extern "C" fn logs(context: *mut c_void, level: u8, foreign: u8) -> i32 {
    // SAFETY: the table's contract.
    unsafe {
        with(context, 1, |exchange| {
            i32::from(exchange.logs(level_of(level), foreign != 0))
        })
    }
}
