//! The id of a request in the logs (`%L`), which applications get as `mod_wsgi.request_id`.
//!
//! httpd makes it only when it logs something for the request, by a hook that modules such as
//! mod_unique_id fill. Where nobody but httpd's core does, the same value is made here: a tenth of
//! the instructions, on the path of every request.

use core::sync::atomic::{AtomicBool, Ordering};

use super::request::Request;
use super::{mpm, text};
use crate::httpd::sys;

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
/// The digits of 64 bits in base 64, without padding.
const LENGTH: usize = 11;

/// Whether the hook has no function but that of httpd's core.
static CORE_ONLY: AtomicBool = AtomicBool::new(false);

/// To be called when a child process begins: all modules have registered their hooks.
pub fn note_child() {
    // SAFETY: no arguments; null if nobody has registered one, which the core always has.
    let count = unsafe { sys::ap_hook_get_generate_log_id().as_ref() }.map(|hooks| hooks.nelts);
    CORE_ONLY.store(count == Some(1), Ordering::Relaxed);
}

impl<'r> Request<'r> {
    /// The id, made now if there is none yet: the log lines that follow have the same. Of the
    /// request's pool; `None` only if a module says so.
    #[inline(always)]
    pub fn log_id(self) -> Option<&'r [u8]> {
        let raw = self.as_ptr();
        // SAFETY: the request lives and is this thread's alone.
        unsafe {
            if (*raw).log_id.is_null() {
                if CORE_ONLY.load(Ordering::Relaxed) {
                    (*raw).log_id = self.make_log_id().cast();
                } else {
                    sys::ap_run_generate_log_id((*raw).connection, raw, &raw mut (*raw).log_id);
                }
            }
            text::optional((*raw).log_id)
        }
    }

    /// As httpd's core makes it (server/core.c): the bits of time, process and thread.
    #[inline(always)]
    fn make_log_id(self) -> *const u8 {
        // SAFETY: the connection of a request lives with it.
        let thread = unsafe { (*(*self.as_ptr()).connection).current_thread };
        let process = u64::from(mpm::child_pid());
        let bits = self.time() as u64
            ^ (process << 40)
            ^ ((process >> 24) << 56)
            ^ ((thread as usize as u64) << 32);
        let place: *mut [u8; LENGTH + 1] = self.pool().allocate(LENGTH + 1).cast();
        // SAFETY: fresh memory of that size.
        unsafe { place.write(encode(bits)) };
        place.cast()
    }
}

/// Base 64 of the bytes as they lie in memory, with a NUL.
#[inline(always)]
fn encode(bits: u64) -> [u8; LENGTH + 1] {
    let mut left = u64::from_be_bytes(bits.to_ne_bytes());
    let mut digits = [0; LENGTH + 1];
    for digit in &mut digits[..LENGTH] {
        *digit = ALPHABET[(left >> 58) as usize];
        left <<= 6;
    }
    digits
}

#[cfg(test)]
mod tests {
    use super::encode;

    #[test]
    fn digits_are_those_of_base_64() {
        assert_eq!(&encode(0), b"AAAAAAAAAAA\0");
        assert_eq!(&encode(u64::MAX), b"//////////8\0");
        let bits = u64::from_ne_bytes(*b"a log id");
        assert_eq!(&encode(bits), b"YSBsb2cgaWQ\0");
    }
}
