//! The codes of all messages of level warning and above.
//!
//! A line in the error log begins with `RWSGI0123:`. `docs/messages.md` lists every code with cause
//! and remedy; a test compares the two. Numbers are never reused.

#![forbid(unsafe_code)]

use core::fmt;

/// The number of a message; its `Display` is the prefix of the line, `RWSGI0123: `.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code(pub u16);

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RWSGI{:04}: ", self.0)
    }
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $number:literal;)*) => {
        $($(#[$doc])* pub const $name: Code = Code($number);)*

        /// Every code, in order.
        pub const ALL: &[(&str, Code)] = &[$((stringify!($name), $name),)*];
    };
}

codes! {
    // 0001-0099: the httpd side.
    /// A panic was caught at the boundary to httpd.
    HTTPD_PANIC = 1;
    /// The directory of gateways cannot be found or read.
    NO_GATEWAY_DIRECTORY = 2;
    /// No gateway is installed for the Python that was asked for.
    NO_GATEWAY = 3;
    /// WSGIPythonHome is no Python prefix and no virtual environment.
    BAD_PYTHON_HOME = 4;
    /// libpython or the gateway could not be loaded.
    LOAD_FAILED = 5;
    /// The gateway is of another build.
    GATEWAY_MISMATCH = 6;
    /// A request came while Python is not available in this process.
    NO_PYTHON = 7;
    /// Embedded mode is restricted.
    EMBEDDED_RESTRICTED = 8;
    /// The process group is not known.
    UNKNOWN_PROCESS_GROUP = 9;
    /// The script does not exist.
    SCRIPT_NOT_FOUND = 10;
    /// The script is a directory or no regular file.
    SCRIPT_NOT_A_FILE = 11;
    /// ExecCGI is off where the script lies.
    EXEC_CGI_OFF = 12;
    /// AcceptPathInfo is off and there is extra path.
    NO_PATH_INFO = 13;
    /// A request body with an unknown transfer coding, or a chunked one where that is off.
    BODY_REFUSED = 14;
    /// Content-Length of a request cannot be parsed.
    BAD_CONTENT_LENGTH = 15;
    /// The request body is larger than LimitRequestBody.
    BODY_TOO_LARGE = 16;

    // 0100-0199: the Python runtime.
    /// Python could not be started.
    PYTHON_START_FAILED = 100;
    /// An interpreter could not be made.
    INTERPRETER_FAILED = 101;
    /// A panic was caught at the boundary to Python.
    GATEWAY_PANIC = 102;
    /// A script could not be loaded.
    SCRIPT_FAILED = 103;
    /// A changed script could not be loaded; the old code goes on serving.
    RELOAD_FAILED = 104;
    /// `reload_required` raised.
    RELOAD_REQUIRED_FAILED = 105;
    /// The script has no such callable.
    NO_CALLABLE = 106;
    /// An exit handler raised.
    EXIT_HANDLER_FAILED = 107;
    /// Python did not end in time.
    STOP_TIMED_OUT = 108;
    /// `signal.signal` was ignored.
    SIGNAL_IGNORED = 109;
    /// A directory of the Python path is missing.
    BAD_PYTHON_PATH = 110;

    // 0200-0299: the WSGI server.
    /// The application raised an exception.
    APPLICATION_RAISED = 200;
    /// The application raised SystemExit.
    APPLICATION_EXITED = 201;
    /// The response ended before its declared length.
    RESPONSE_TOO_SHORT = 203;
    /// `close()` raised.
    CLOSE_FAILED = 204;
    /// The request body could not be read.
    BODY_READ_FAILED = 205;
    /// The response had begun when the application failed; it was cut short.
    RESPONSE_CUT = 206;
    /// `RequestTimeout` was raised in the request.
    REQUEST_INTERRUPTED = 207;

    // 0450-0489: the workers of daemon mode.
    /// A worker cannot begin.
    WORKER_START_FAILED = 450;
    /// A user who may not connect has tried to.
    WORKER_PEER_REFUSED = 451;
    /// A script of WSGIImportScript could not be loaded.
    IMPORT_FAILED = 452;
    /// A message of the supervisor could not be understood.
    WORKER_CONTROL = 453;
    /// Bytes that are no request.
    WORKER_MALFORMED = 454;
    /// A request of another version of the protocol.
    WORKER_VERSION = 455;
    /// No further connection can be accepted.
    WORKER_NO_DESCRIPTORS = 456;
    /// The locale is not supported.
    WORKER_LOCALE = 457;
    /// The response headers are too large for the wire.
    WORKER_HEAD_TOO_LARGE = 458;
    /// A request that runs for long, with the stack of its thread.
    WORKER_SLOW_REQUEST = 459;
}

#[cfg(test)]
mod tests {
    use super::ALL;

    #[test]
    fn codes_are_unique_and_documented() {
        let docs = include_str!("../docs/messages.md");
        for (index, (name, code)) in ALL.iter().enumerate() {
            assert!(index == 0 || ALL[index - 1].1.0 < code.0, "{name}");
            let heading = format!("| RWSGI{:04} |", code.0);
            assert!(docs.contains(&heading), "{name} is not in docs/messages.md");
        }
    }
}
