//! The panic boundary: every function that httpd, APR or the gateway calls goes through it.
//!
//! An `extern "C"` function that unwinds ends the process, and with it every connection of the
//! child. Here a panic ends only the call that caused it: the caller gets `fallback`, the error log
//! RWSGI0001. The panic's own message and place go to standard error by Rust's panic hook.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::{log, request_rec, server_rec};
use crate::exchange::Level;
use crate::messages::HTTPD_PANIC;

/// Where a caught panic is reported.
#[derive(Clone, Copy)]
pub enum Place {
    /// In the log of this request. The pointer is valid for the duration of the call.
    Request(*mut request_rec),
    /// In the log of this server; null is the main log.
    Server(*mut server_rec),
}

/// Calls `body` and gives its result, or `fallback` if it panics.
#[inline(always)]
pub fn guard<T>(place: Place, fallback: T, body: impl FnOnce() -> T) -> T {
    match attempt(body) {
        Ok(value) => value,
        Err(panic) => {
            report(place, &panic);
            fallback
        }
    }
}

/// Calls `body`; `Err` is the message of its panic.
#[inline(always)]
fn attempt<T>(body: impl FnOnce() -> T) -> Result<T, String> {
    // Unwind safety: what a panic leaves half done is the call's own request or connection state;
    // the fallback makes httpd end that.
    catch_unwind(AssertUnwindSafe(body)).map_err(message)
}

#[cold]
fn message(panic: Box<dyn Any + core::marker::Send>) -> String {
    let text = panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned());
    // A payload whose destructor panics would leave through the boundary.
    core::mem::forget(panic);
    text.unwrap_or_else(|| "no message".to_owned())
}

#[cold]
fn report(place: Place, panic: &str) {
    let line = format!("{HTTPD_PANIC}a bug in rwsgi was caught: {panic}");
    match place {
        // SAFETY: the enum's contract.
        Place::Request(request) => unsafe { log::request(request, Level::Crit, line.as_bytes()) },
        // SAFETY: as above.
        Place::Server(server) => unsafe { log::server(server, Level::Crit, line.as_bytes()) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_pass_and_panics_become_messages() {
        struct Bomb;
        impl Drop for Bomb {
            fn drop(&mut self) {
                panic!("again");
            }
        }
        assert_eq!(attempt(|| 200), Ok(200));
        let number = 7;
        assert_eq!(attempt::<i32>(|| panic!("why")), Err("why".to_owned()));
        assert_eq!(
            attempt::<i32>(|| panic!("why {number}")),
            Err("why 7".to_owned())
        );
        assert_eq!(
            attempt::<i32>(|| std::panic::panic_any(Bomb)),
            Err("no message".to_owned())
        );
    }
}
