//! The waist as a C ABI, for two shared objects that may come from different builds.
//!
//! `mod_rwsgi.so` loads a gateway, asks its entry point [`ENTRY_POINT`] for a [`GatewayTable`],
//! compares [`VERSION`] and the table sizes, and calls it once per request. The gateway calls back
//! through the [`ExchangeTable`] of that request and the [`HostTable`] of the process. No function
//! of either table unwinds.

#![allow(unsafe_code)]

use core::ffi::{CStr, c_void};
use core::marker::PhantomData;

use super::head::{RequestHead, Target};
use super::response::ResponseHead;

/// Raised whenever a table or a structure that crosses the ABI changes its meaning or layout.
pub const VERSION: u32 = 6;

/// The exported symbol of a gateway, of type [`EntryPoint`].
pub const ENTRY_POINT: &CStr = c"rwsgi_gateway";

/// Returns the gateway's table, which lives as long as the process.
pub type EntryPoint = unsafe extern "C" fn() -> *const GatewayTable;

/// Borrowed bytes, never null.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Text<'a> {
    pointer: *const u8,
    length: usize,
    lifetime: PhantomData<&'a [u8]>,
}

impl<'a> Text<'a> {
    /// The empty text.
    pub const EMPTY: Text<'static> = Text::new(&[]);

    /// Borrows `bytes`.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Text {
            pointer: bytes.as_ptr(),
            length: bytes.len(),
            lifetime: PhantomData,
        }
    }

    /// The bytes.
    #[inline]
    pub fn bytes(self) -> &'a [u8] {
        // SAFETY: `new` is the only constructor on either side of the ABI, so pointer and length
        // are those of a slice that lives for 'a.
        unsafe { core::slice::from_raw_parts(self.pointer, self.length) }
    }
}

impl<'a> From<&'a [u8]> for Text<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Text::new(bytes)
    }
}

impl<'a> From<&'a str> for Text<'a> {
    fn from(text: &'a str) -> Self {
        Text::new(text.as_bytes())
    }
}

impl<'a> From<&'a CStr> for Text<'a> {
    fn from(text: &'a CStr) -> Self {
        Text::new(text.to_bytes())
    }
}

impl core::fmt::Debug for Text<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "b\"{}\"", self.bytes().escape_ascii())
    }
}

/// Borrowed bytes that may be absent.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Opt<'a> {
    pointer: *const u8,
    length: usize,
    lifetime: PhantomData<&'a [u8]>,
}

impl<'a> Opt<'a> {
    /// Absent.
    pub const NONE: Opt<'static> = Opt {
        pointer: core::ptr::null(),
        length: 0,
        lifetime: PhantomData,
    };

    /// Borrows `bytes`, if any.
    pub const fn new(bytes: Option<&'a [u8]>) -> Self {
        match bytes {
            Some(bytes) => Opt {
                pointer: bytes.as_ptr(),
                length: bytes.len(),
                lifetime: PhantomData,
            },
            None => Opt::NONE,
        }
    }

    /// The bytes, if any.
    #[inline]
    pub fn bytes(self) -> Option<&'a [u8]> {
        if self.pointer.is_null() {
            return None;
        }
        // SAFETY: a non-null pointer was set by `new` together with its slice's length.
        Some(unsafe { core::slice::from_raw_parts(self.pointer, self.length) })
    }
}

impl core::fmt::Debug for Opt<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.bytes() {
            Some(bytes) => Text::new(bytes).fmt(f),
            None => f.write_str("-"),
        }
    }
}

/// A borrowed slice.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Slice<'a, T> {
    pointer: *const T,
    length: usize,
    lifetime: PhantomData<&'a [T]>,
}

impl<'a, T> Slice<'a, T> {
    /// Borrows `items`.
    pub const fn new(items: &'a [T]) -> Self {
        Slice {
            pointer: items.as_ptr(),
            length: items.len(),
            lifetime: PhantomData,
        }
    }

    /// The items.
    #[inline]
    pub fn items(&self) -> &'a [T] {
        // SAFETY: `new` is the only constructor on either side of the ABI, so pointer and length
        // are those of a slice that lives for 'a.
        unsafe { core::slice::from_raw_parts(self.pointer, self.length) }
    }
}

impl<T: core::fmt::Debug> core::fmt::Debug for Slice<'_, T> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.items().fmt(f)
    }
}

/// Where in a program a message of the log was made.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Source<'a> {
    /// The file.
    pub file: Text<'a>,
    /// The line.
    pub line: u32,
}

/// A name and its value.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Pair<'a> {
    /// The name.
    pub name: Text<'a>,
    /// The value.
    pub value: Text<'a>,
}

/// Results of [`ExchangeTable::read`] that are no byte counts.
pub mod read {
    /// Nothing there yet.
    pub const WOULD_BLOCK: isize = -1;
    /// Failed with HTTP status `-1000 - result`.
    pub const FAILED: isize = -1000;
}

/// The functions of [`Exchange`](super::Exchange), each with the exchange's context first.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct ExchangeTable {
    /// [`VERSION`].
    pub version: u32,
    /// `size_of::<ExchangeTable>()`.
    pub size: u32,
    /// [`read`](super::Exchange::read) into `capacity` bytes; see [`read`] for negative results.
    /// `wait` is 1 if the call may block.
    pub read:
        unsafe extern "C" fn(*mut c_void, buffer: *mut u8, capacity: usize, wait: u8) -> isize,
    /// [`start`](super::Exchange::start).
    pub start: unsafe extern "C" fn(*mut c_void, *const ResponseHead<'_>),
    /// [`append`](super::Exchange::append) when `copy` is not 0, else
    /// [`append_borrowed`](super::Exchange::append_borrowed).
    pub append: unsafe extern "C" fn(*mut c_void, data: *const u8, length: usize, copy: u8),
    /// [`append_file`](super::Exchange::append_file); 0 or an errno.
    pub append_file: unsafe extern "C" fn(*mut c_void, fd: i32, offset: u64, length: u64) -> i32,
    /// [`send`](super::Exchange::send); `how` is a [`Send`](super::Send); not 0 if the client is
    /// gone.
    pub send: unsafe extern "C" fn(*mut c_void, how: u8) -> i32,
    /// [`abort`](super::Exchange::abort).
    pub abort: unsafe extern "C" fn(*mut c_void),
    /// [`log`](super::Exchange::log); `level` is a [`Level`](super::Level).
    pub log: unsafe extern "C" fn(*mut c_void, level: u8, foreign: u8, line: Text<'_>),
    /// [`client_gone`](super::Exchange::client_gone), not 0 if so.
    pub client_gone: unsafe extern "C" fn(*mut c_void) -> i32,
    /// [`log_from`](super::Exchange::log_from).
    pub log_from:
        unsafe extern "C" fn(*mut c_void, level: u8, foreign: u8, *const Source<'_>, Text<'_>),
    /// [`logs`](super::Exchange::logs), not 0 if so.
    pub logs: unsafe extern "C" fn(*mut c_void, level: u8, foreign: u8) -> i32,
}

/// What the gateway may call at any time, from any thread.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct HostTable {
    /// [`VERSION`].
    pub version: u32,
    /// `size_of::<HostTable>()`.
    pub size: u32,
    /// Logs one line outside of a request. `level` is a [`Level`](super::Level).
    pub log: unsafe extern "C" fn(level: u8, line: Text<'_>),
    /// The same for a message that says where it was made.
    pub log_from: unsafe extern "C" fn(level: u8, *const Source<'_>, line: Text<'_>),
    /// Not 0 if lines of this level are logged outside of requests.
    pub logs: unsafe extern "C" fn(level: u8) -> i32,
    /// Not 0 if the process is about to end: what a thread leaves behind then need not be tidied.
    pub is_ending: unsafe extern "C" fn() -> i32,
    /// Passes httpd's scoreboard to `take`, encoded as [`crate::metrics::scoreboard`] says, if that
    /// is allowed.
    pub scoreboard: unsafe extern "C" fn(
        context: *mut c_void,
        take: unsafe extern "C" fn(*mut c_void, Text<'_>),
    ),
}

/// One call of the gateway: everything borrowed for the duration of [`GatewayTable::handle`].
#[repr(C)]
pub struct Request<'a> {
    /// What was asked.
    pub head: &'a RequestHead<'a>,
    /// What answers it.
    pub target: Target<'a>,
    /// First argument of every function of `table`.
    pub context: *mut c_void,
    /// The exchange.
    pub table: &'a ExchangeTable,
    /// [`native`](super::Exchange::native); null where the application must not have it.
    pub native: *mut c_void,
}

/// How the gateway's `handle` ended: [`DONE`](outcome::DONE), [`CUT`](outcome::CUT) or an HTTP status.
pub mod outcome {
    /// The response was sent to its end.
    pub const DONE: i32 = 0;
    /// The response had begun and was cut short; `abort` has been called or the client is gone.
    pub const CUT: i32 = -1;
    /// Nothing was done: the script has changed and this process loads no script a second time.
    /// Only from a gateway that was started as a worker.
    pub const STALE: i32 = -2;
    /// Nothing was done: the callable is an ASGI application, and the target's interface is
    /// [`Auto`](crate::exchange::Interface::Auto).
    pub const ASGI: i32 = -3;
}

/// How `PYTHONHASHSEED` is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum HashSeed {
    /// Not configured: the environment decides.
    Unset = 0,
    /// Random.
    Random = 1,
    /// The number in [`RuntimeOptions::hash_seed_value`].
    Fixed = 2,
}

/// A script to load.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Import<'a> {
    /// The application group.
    pub application_group: Text<'a>,
    /// The file's absolute path.
    pub path: Text<'a>,
}

/// What is measured and reported.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct MetricsOptions<'a> {
    /// The path of the socket that telemetry goes to, if any.
    pub socket: Opt<'a>,
    /// Seconds between two reports.
    pub interval_s: f64,
    /// Seconds from which on a request is reported by itself; 0: never.
    pub slow_requests_s: f64,
    /// Whether it is reported with its `User-Agent`.
    pub with_user_agent: bool,
    /// httpd's parent process.
    pub parent_pid: u32,
}

/// How Python is to be started in this process.
#[repr(C)]
pub struct RuntimeOptions<'a> {
    /// `sys.executable` of a virtual environment (its `bin/python`), if one is configured.
    pub program_name: Opt<'a>,
    /// The prefix of an installation, if one is configured and it is no virtual environment.
    pub home: Opt<'a>,
    /// Scripts to load as soon as Python runs, in order; one that does not load is logged.
    pub imports: Slice<'a, Import<'a>>,
    /// Directories for `site.addsitedir`, moved to the front of `sys.path`.
    pub python_path: Slice<'a, Text<'a>>,
    /// `PYTHON_EGG_CACHE` in `os.environ`, if configured.
    pub python_eggs: Opt<'a>,
    /// As `-W`, in order.
    pub warnings: Slice<'a, Text<'a>>,
    /// As many `-O`; negative: not configured.
    pub optimize: i32,
    /// How hashes are seeded.
    pub hash_seed: HashSeed,
    /// The seed, where fixed.
    pub hash_seed_value: u32,
    /// As `-B`.
    pub dont_write_bytecode: bool,
    /// `sys.stdin` raises.
    pub restrict_stdin: bool,
    /// `sys.stdout` raises.
    pub restrict_stdout: bool,
    /// `signal.signal` is ignored and logged.
    pub restrict_signal: bool,
    /// `wsgi.multithread`.
    pub multithread: bool,
    /// `wsgi.multiprocess`.
    pub multiprocess: bool,
    /// The main interpreter is kept for the application group `""`; otherwise it goes to the first
    /// group of the process.
    pub reserve_main: bool,
    /// Threads that may serve requests at the same time in this process (`threads_per_process`).
    pub threads: u32,
    /// Processes at most (`maximum_processes`).
    pub processes: u32,
    /// How many new requests may wait for the GIL at once; the others queue first come, first
    /// served.
    pub request_permits: u32,
    /// Version of the server, as `apache.version`.
    pub server_version: [u32; 3],
    /// `apache.description`.
    pub server_description: Text<'a>,
    /// `apache.build_date`.
    pub server_built: Text<'a>,
    /// `apache.mpm_name`.
    pub mpm_name: Text<'a>,
    /// `ASGILoop uvloop`.
    pub uvloop: bool,
    /// What is measured and reported.
    pub metrics: MetricsOptions<'a>,
    /// What concerns interpreters.
    pub interpreters: InterpreterOptions<'a>,
}

/// What is configured for the interpreters of a process.
#[repr(C)]
pub struct InterpreterOptions<'a> {
    /// The rules in order, each in the text form of [`Rule`](super::interpreters::Rule).
    pub rules: Slice<'a, Text<'a>>,
    /// Run without the global lock, where the build can.
    pub free_threading: bool,
    /// Exit handlers run when the process ends.
    pub destroy: bool,
}

/// What a function of a script may return; bits of [`Question::accepts`].
pub mod accepts {
    /// `None`.
    pub const NONE: u32 = 1;
    /// `True` or `False`.
    pub const BOOL: u32 = 2;
    /// A str, handed over as UTF-8.
    pub const UTF8: u32 = 4;
    /// A str, handed over as latin-1.
    pub const LATIN1: u32 = 8;
    /// A bytes object.
    pub const BYTES: u32 = 16;
    /// An iterable of str (latin-1) and bytes.
    pub const NAMES: u32 = 32;
    /// Text may be empty.
    pub const EMPTY: u32 = 64;
}

/// Kinds of answers.
pub mod answer {
    /// `None`.
    pub const NONE: u8 = 0;
    /// `False`.
    pub const FALSE: u8 = 1;
    /// `True`.
    pub const TRUE: u8 = 2;
    /// Text, without NUL.
    pub const TEXT: u8 = 3;
    /// One of several names, without NUL; there may be none.
    pub const NAME: u8 = 4;
    /// The script has no such function, which is not required.
    pub const MISSING: u8 = 5;
}

/// A function to be called as `function(environ, *arguments)`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Question<'a> {
    /// Its name.
    pub function: Text<'a>,
    /// What it gets behind the environ, as str of latin-1.
    pub arguments: Slice<'a, Text<'a>>,
    /// What it may return: bits of [`accepts`].
    pub accepts: u32,
    /// Whether it is an error that the script does not have it.
    pub required: bool,
}

/// What the gateway calls during a consultation, each function with the context of the
/// [`Consultation`] first. Only `log` with `foreign` may be called by another thread than the one
/// that called `consult`.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct ConsultTable {
    /// [`VERSION`].
    pub version: u32,
    /// `size_of::<ConsultTable>()`.
    pub size: u32,
    /// [`log`](super::Exchange::log); `level` is a [`Level`](super::Level).
    pub log: unsafe extern "C" fn(*mut c_void, level: u8, foreign: u8, line: Text<'_>),
    /// [`log_from`](super::Exchange::log_from).
    pub log_from:
        unsafe extern "C" fn(*mut c_void, level: u8, foreign: u8, *const Source<'_>, Text<'_>),
    /// [`logs`](super::Exchange::logs), not 0 if so.
    pub logs: unsafe extern "C" fn(*mut c_void, level: u8, foreign: u8) -> i32,
    /// Not 0 if TLS protects the connection.
    pub is_https: unsafe extern "C" fn(*mut c_void) -> i32,
    /// A variable of the TLS module, by a name without NUL; absent if there is none. Lives until
    /// `consult` returns.
    pub tls_variable: unsafe extern "C" fn(*mut c_void, name: Text<'_>) -> Opt<'static>,
    /// Takes an answer to the question with that index: a kind of [`answer`], and its text. Called
    /// in the order of the questions, and only when all have been answered.
    pub answer: unsafe extern "C" fn(*mut c_void, question: u32, kind: u8, text: Text<'_>),
}

/// Questions of the server about a request, for functions of one script, outside of the
/// request's own handling: who may have access, which group shall serve it. Everything is borrowed for
/// the duration of [`GatewayTable::consult`].
#[repr(C)]
pub struct Consultation<'a> {
    /// The application group whose interpreter runs the script.
    pub application_group: Text<'a>,
    /// The script. Without a `resource` its `reload_required` is not asked.
    pub target: Target<'a>,
    /// The functions, which are called in order, with the same environ, until one fails.
    pub questions: Slice<'a, Question<'a>>,
    /// Header fields of the request for the environ, by the rules of
    /// [`header_names`](super::header_names); credentials never pass.
    pub headers: Slice<'a, Pair<'a>>,
    /// All else that the environ says of the request. `DOCUMENT_ROOT` and `SCRIPT_FILENAME` are
    /// bytes of the file system.
    pub variables: Slice<'a, Pair<'a>>,
    /// Whether the environ has `mod_ssl.is_https` and `mod_ssl.var_lookup`.
    pub offers_tls: bool,
    /// First argument of every function of `table`.
    pub context: *mut c_void,
    /// What the gateway may call.
    pub table: &'a ConsultTable,
    /// [`native`](super::Exchange::native); null where the script must not have it.
    pub native: *mut c_void,
}

/// A gateway.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct GatewayTable {
    /// [`VERSION`].
    pub version: u32,
    /// `size_of::<GatewayTable>()`.
    pub size: u32,
    /// Major and minor version of the Python that this gateway was built for, in the upper half as
    /// in `PY_VERSION_HEX`: 0x030b0000 is 3.11.
    pub python: u32,
    /// Starts Python in this process. Called once, after the fork, by the thread that will call
    /// `stop`; that thread does not hold the GIL afterwards. 0 or -1; a failure has been logged.
    pub start:
        unsafe extern "C" fn(host: *const HostTable, options: *const RuntimeOptions<'_>) -> i32,
    /// Serves one request on the calling thread; see [`outcome`].
    pub handle: unsafe extern "C" fn(request: *const Request<'_>) -> i32,
    /// Asks functions of a script about a request, on the calling thread, which serves that request.
    /// 0 if all have answered; -1 if not, and why has been logged.
    pub consult: unsafe extern "C" fn(consultation: *const Consultation<'_>) -> i32,
    /// Gives the client's end of a new connection to the ASGI server of an application group in
    /// this process, a UNIX stream socket that speaks [`crate::daemon::wire`]; its owner is the
    /// caller. Negative if there is none; why has been logged. The calling thread is not attached.
    pub connect: unsafe extern "C" fn(application_group: Text<'_>) -> i32,
    /// Lets the ASGI servers of this process end what they do, without waiting: idle connections
    /// are closed, running requests go on, WebSockets and endless responses are ended after a
    /// bound. May be called more than once, and from any thread.
    pub drain: unsafe extern "C" fn(),
    /// Runs Python's exit handlers, at most for `deadline_ms` milliseconds; then no thread can
    /// enter Python any more. Called by the thread that called `start`, when no request runs, or
    /// from a signal handler.
    pub stop: unsafe extern "C" fn(deadline_ms: u32),
}

// SAFETY: a table is constant data, functions that any thread may call.
unsafe impl Sync for GatewayTable {}
// SAFETY: as above.
unsafe impl Sync for ExchangeTable {}
// SAFETY: as above.
unsafe impl Sync for ConsultTable {}
// SAFETY: as above.
unsafe impl Sync for HostTable {}
