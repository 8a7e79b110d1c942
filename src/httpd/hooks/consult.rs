//! Asking functions of scripts about a request, in this process: what the gateway's `consult` does.

use core::cell::RefCell;
use core::ffi::{CStr, c_void};

use super::child::{self, level_of};
use crate::exchange::abi::{
    ConsultTable, Consultation, Opt, Pair, Question, Slice, Source, Text, VERSION, answer,
};
use crate::exchange::{AsgiSettings, Interface, Level, Target, script_file};
use crate::httpd::apache::{PoolStr, Request, Server};
use crate::httpd::config::scripts::SideScript;
use crate::httpd::config::{Effective, expand};
use crate::httpd::sys::boundary::{Place, guard};
use crate::messages::NO_PYTHON;

/// What a function has answered.
#[derive(Clone, Copy)]
pub enum Answer {
    /// `None`.
    None,
    /// `True` or `False`.
    Bool(bool),
    /// Text, or one of several names, in the request's pool.
    Text(PoolStr),
    /// There is no such function.
    Missing,
}

/// No answer, and why has been logged.
#[derive(Debug)]
pub struct Failed;

/// A script that is to be asked about a request.
pub struct Inquiry<'a, 'r> {
    /// The request.
    pub request: Request<'r>,
    /// Its configuration.
    pub config: &'a Effective<'r>,
    /// The script.
    pub script: &'r SideScript,
    /// What the environ has beside the header fields and what the gateway adds.
    pub variables: &'a [Pair<'a>],
    /// The header fields, where they are not those of the request.
    pub headers: Option<&'a [Pair<'a>]>,
    /// Whether the environ has `mod_ssl.is_https` and `mod_ssl.var_lookup`.
    pub offers_tls: bool,
    /// Whether old code answers where a changed script does not load, unless `WSGIReloadFailure` says
    /// so.
    pub keep_on_failure: bool,
}

impl Inquiry<'_, '_> {
    /// Asks functions of the script, on the thread that serves the request. Gives the answers, each
    /// with the index of its question; to a question for names there may be several, or none.
    ///
    /// # Errors
    /// Not all could be answered; why has been logged.
    pub fn ask(&self, questions: &[Question<'_>]) -> Result<Vec<(usize, Answer)>, Failed> {
        let request = self.request;
        let Some(gateway) = child::gateway() else {
            let line = format!(
                "{NO_PYTHON}the script {} cannot be asked: Python does not run in this process; \
                 see the alert that was logged when it started",
                self.script.path.text()
            );
            request.log(Level::Error, line.as_bytes());
            return Err(Failed);
        };
        let received: Vec<Pair<'_>>;
        let headers = match self.headers {
            Some(headers) => headers,
            None => {
                let fields = request.headers_in().iter();
                received = fields
                    .map(|(name, value)| Pair {
                        name: Text::new(name),
                        value: Text::new(value),
                    })
                    .collect();
                &received
            }
        };
        let path = self.script.path.bytes();
        let group = self.script.application_group.as_ref();
        let side = Side {
            request,
            server: request.server(),
            answers: RefCell::default(),
        };
        let consultation = Consultation {
            application_group: Text::from(group.map_or(&b""[..], |name| {
                expand::group_of_side_script(request, name.bytes())
            })),
            target: Target {
                script: Text::from(path),
                mtime_us: script_file::modification_time(path).unwrap_or(0),
                resource: Text::EMPTY,
                handler_script: false,
                interface: Interface::Wsgi,
                callable_is_default: false,
                asgi: AsgiSettings::DEFAULT,
                reloading: self.config.get(|s| s.script_reloading).unwrap_or(true),
                keep_on_failure: self
                    .config
                    .get(|s| s.keep_on_failure)
                    .unwrap_or(self.keep_on_failure),
            },
            questions: Slice::new(questions),
            headers: Slice::new(headers),
            variables: Slice::new(self.variables),
            offers_tls: self.offers_tls,
            context: core::ptr::from_ref(&side).cast_mut().cast(),
            table: &TABLE,
            native: match self.config.get(|s| s.pass_apache_request) {
                Some(true) => request.as_ptr().cast(),
                _ => core::ptr::null_mut(),
            },
        };
        // SAFETY: everything that the consultation refers to lives until this returns.
        match unsafe { (gateway.consult)(&consultation) } {
            0 => Ok(side.answers.into_inner()),
            _ => Err(Failed),
        }
    }
}

/// What the gateway's calls are about. Only `server` is used by other threads.
struct Side<'r> {
    request: Request<'r>,
    server: Server<'r>,
    answers: RefCell<Vec<(usize, Answer)>>,
}

static TABLE: ConsultTable = ConsultTable {
    version: VERSION,
    size: size_of::<ConsultTable>() as u32,
    log,
    log_from,
    logs,
    is_https,
    tls_variable,
    answer: take_answer,
};

/// Calls `body` with what `context` points to.
///
/// # Safety
/// `context` is the context of a consultation that has not ended.
unsafe fn with<T>(context: *mut c_void, fallback: T, body: impl FnOnce(&Side<'static>) -> T) -> T {
    // SAFETY: `ask` passes a pointer to what lies on its stack. The lifetime is not longer than
    // that: nothing of it leaves `body` but what lives in the request's pool.
    let side = unsafe { &*context.cast::<Side<'static>>() };
    // The server, not the request: this may be another thread than the request's.
    guard(Place::Server(side.server.as_ptr()), fallback, || body(side))
}

unsafe extern "C" fn log(context: *mut c_void, level: u8, foreign: u8, line: Text<'_>) {
    // SAFETY: the table's contract.
    unsafe {
        with(context, (), |side| {
            let level = level_of(level);
            if foreign != 0 {
                side.server.log(level, line.bytes());
            } else {
                side.request.log(level, line.bytes());
            }
        });
    }
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
        with(context, (), |side| {
            let level = level_of(level);
            if foreign != 0 {
                side.server.log_from(level, *source, line.bytes());
            } else {
                side.request.log_from(level, *source, line.bytes());
            }
        });
    }
}

unsafe extern "C" fn logs(context: *mut c_void, level: u8, foreign: u8) -> i32 {
    // SAFETY: the table's contract.
    unsafe {
        with(context, 1, |side| {
            let level = level_of(level);
            i32::from(if foreign != 0 {
                side.server.logs(level)
            } else {
                side.request.logs(level)
            })
        })
    }
}

unsafe extern "C" fn is_https(context: *mut c_void) -> i32 {
    // SAFETY: the table's contract.
    unsafe {
        with(context, 0, |side| {
            i32::from(side.request.connection().is_tls())
        })
    }
}

unsafe extern "C" fn tls_variable(context: *mut c_void, name: Text<'_>) -> Opt<'static> {
    // SAFETY: the table's contract.
    unsafe {
        with(context, Opt::NONE, |side| {
            let name = side.request.pool().copy(name.bytes());
            let name = CStr::from_ptr(name.as_ptr());
            Opt::new(side.request.tls_variable(name))
        })
    }
}

unsafe extern "C" fn take_answer(context: *mut c_void, question: u32, kind: u8, text: Text<'_>) {
    // SAFETY: the table's contract.
    unsafe {
        with(context, (), |side| {
            let given = match kind {
                answer::FALSE => Answer::Bool(false),
                answer::TRUE => Answer::Bool(true),
                answer::TEXT | answer::NAME => Answer::Text(side.request.pool().copy(text.bytes())),
                answer::MISSING => Answer::Missing,
                _ => Answer::None,
            };
            side.answers.borrow_mut().push((question as usize, given));
        });
    }
}
