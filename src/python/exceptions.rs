//! Exceptions of applications in the error log: a header line with a code, then the traceback.

use pyo3::ffi;

use super::attach::Attached;
use super::object::{Owned, type_name};
use super::request::RequestCore;
use crate::exchange::Level;
use crate::messages::{self, Code};

/// Logs `exception` for a request: what failed, its class, script and interpreter, and the
/// traceback, all lines in one go.
pub fn log_for_request(
    py: Attached,
    core: &RequestCore,
    code: Code,
    what: &str,
    script: &[u8],
    exception: &Owned,
) {
    let lines = lines(py, Some(code), what, script, exception);
    py.detached(|_| lines.iter().for_each(|line| core.log(Level::Error, line)));
}

/// Logs an exception that belongs to no request and no script.
pub fn log_for_process(py: Attached, code: Code, what: &str, exception: &Owned) {
    let lines = lines(py, Some(code), what, b"", exception);
    py.detached(|_| {
        for line in &lines {
            super::runtime::log_bytes(Level::Error, line);
        }
    });
}

/// Logs an exception of an exit handler in the server's own log.
pub fn log_exit_failure(py: Attached, exception: &Owned) {
    let what = "an exit handler or the end of a thread raised";
    log_for_process(py, messages::EXIT_HANDLER_FAILED, what, exception);
}

/// What is to be logged of an exception: a header line, which begins with `code` unless the line
/// follows another one that has a code, then the traceback.
pub fn lines(
    py: Attached,
    code: Option<Code>,
    what: &str,
    script: &[u8],
    exception: &Owned,
) -> Vec<Vec<u8>> {
    // SAFETY: a live exception.
    let class = unsafe { type_name(exception.as_ptr()) };
    let code = code.map(|code| code.to_string()).unwrap_or_default();
    let mut header = format!("{code}{what}: {class}").into_bytes();
    if !script.is_empty() {
        // As mod_wsgi says it: people search for that.
        header.extend_from_slice(b" exception raised processing WSGI script '");
        header.extend_from_slice(script);
        header.push(b'\'');
    }
    header.extend_from_slice(b" (");
    header.extend_from_slice(&py.interpreter().description());
    header.push(b')');
    let mut lines = vec![header];
    match py.interpreter().prelude().format_exception(py, exception) {
        Ok(traceback) => lines.extend(traceback.into_iter().flat_map(split)),
        Err(raised) => {
            // No memory or no stack left: the class in the header must do.
            raised.clear(py);
        }
    }
    lines
}

/// A line in pieces that a log takes: httpd cuts at about 8 KiB, and a text of an application has any
/// length.
fn split(line: Vec<u8>) -> Vec<Vec<u8>> {
    const LONGEST: usize = 8000;
    if line.len() <= LONGEST {
        return vec![line];
    }
    line.chunks(LONGEST).map(<[u8]>::to_vec).collect()
}

/// Whether an exception is an instance of `mod_wsgi.RequestTimeout`.
pub fn is_request_timeout(py: Attached, exception: &Owned) -> bool {
    let class = &py.interpreter().prelude().request_timeout;
    // SAFETY: live objects of the attached interpreter.
    unsafe { ffi::PyErr_GivenExceptionMatches(exception.as_ptr(), class.as_ptr()) != 0 }
}

/// Whether an exception is an instance of `SystemExit`.
pub fn is_system_exit(_py: Attached, exception: &Owned) -> bool {
    // SAFETY: a live object and a static class.
    unsafe { ffi::PyErr_GivenExceptionMatches(exception.as_ptr(), ffi::PyExc_SystemExit) != 0 }
}

/// Whether an exception is an instance of `OSError`.
pub fn is_os_error(_py: Attached, exception: &Owned) -> bool {
    // SAFETY: a live object and a static class.
    unsafe { ffi::PyErr_GivenExceptionMatches(exception.as_ptr(), ffi::PyExc_OSError) != 0 }
}
