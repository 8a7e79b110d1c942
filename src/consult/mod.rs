//! Consultations: the server asks functions of a script about a request, outside of the request's
//! own handling. Access, user, group and dispatch scripts are asked this way
//! ([`GatewayTable::consult`](crate::exchange::abi::GatewayTable::consult)).
//!
//! * [`environ`]: the environ that every function gets, and what it is handed with it.
//! * [`answers`]: what a function may return, and what the server is told of it.
//! * [`tls`]: the callables `mod_ssl.is_https` and `mod_ssl.var_lookup`.
//!
//! A consultation has a place in the request's error log but neither body nor response. What a
//! function is handed expires when the consultation ends.

mod answers;
mod environ;
mod tls;

#[cfg(test)]
mod tests;

use core::ffi::c_void;
use core::ptr::NonNull;

use pyo3::ffi;

use self::answers::Answer;
use crate::exchange::abi::{ConsultTable, Consultation, Question, answer};
use crate::exchange::memory::Borrowed;
use crate::exchange::response::ResponseHead;
use crate::exchange::{BodyError, ClientGone, Exchange, Level, MayBlock, Send, Source, Text, Wait};
use crate::messages::{self, Code};
use crate::python::attach::{self, Attached};
use crate::python::exceptions;
use crate::python::object::{Owned, latin1};
use crate::python::order;
use crate::python::raise::{Raised, Result};
use crate::python::request::RequestCore;
use crate::python::runtime::Runtime;
use crate::python::script::{self, Loaded};

/// What consultations keep in every interpreter.
pub struct State {
    tls: Owned,
}

impl State {
    /// Makes the types; called when an interpreter is made.
    pub fn build(py: Attached) -> Result<State> {
        Ok(State {
            tls: tls::make_type(py)?,
        })
    }
}

/// There is no answer; why has been logged.
#[derive(Debug)]
pub struct Failed;

/// Asks the questions of `consultation` on the calling thread, which is not attached, and hands the
/// answers to the server.
///
/// # Errors
/// A function did not answer; why has been logged, and the server has been given nothing.
pub fn consult(
    runtime: &Runtime,
    consultation: &Consultation<'_>,
) -> core::result::Result<(), Failed> {
    let side = ServerSide {
        context: consultation.context,
        table: consultation.table,
        native: NonNull::new(consultation.native),
    };
    let group = consultation.application_group.bytes();
    // Why not has been logged.
    let interpreter = runtime.interpreter(group).map_err(|_| Failed)?;
    let permit = interpreter.gate(runtime).enter();
    let guard = attach::attach(interpreter);
    drop(permit);
    let answers = ask(guard.token(), &side, consultation);
    drop(guard);
    for (question, given) in (0..).zip(answers?) {
        side.hand_over(question, &given);
    }
    Ok(())
}

const NO_ENVIRON: &str = "the environ could not be made";

fn ask(
    py: Attached,
    side: &ServerSide<'_>,
    consultation: &Consultation<'_>,
) -> core::result::Result<Vec<Answer>, Failed> {
    // SAFETY: the server's side outlives this call, and the core does not.
    let core = unsafe { RequestCore::new(side) };
    core.enter();
    let inquiry = Inquiry {
        py,
        core: &core,
        script: consultation.target.script.bytes(),
    };
    let handed = match environ::Handed::new(py, &core, side, consultation) {
        Ok(handed) => handed,
        Err(raised) => {
            inquiry.raised(NO_ENVIRON, raised);
            core.leave(py);
            return Err(Failed);
        }
    };
    let answers = match handed.fill(consultation) {
        Ok(()) => inquiry.run(consultation, &handed),
        Err(raised) => {
            inquiry.raised(NO_ENVIRON, raised);
            Err(Failed)
        }
    };
    drop(handed);
    answers
}

/// One consultation, for what it logs.
struct Inquiry<'c> {
    py: Attached,
    core: &'c RequestCore,
    script: &'c [u8],
}

impl Inquiry<'_> {
    fn run(
        &self,
        consultation: &Consultation<'_>,
        handed: &environ::Handed<'_>,
    ) -> core::result::Result<Vec<Answer>, Failed> {
        let py = self.py;
        let names = py.interpreter().wsgi().names();
        let module = script::script(py, self.script)
            .module(py, names, self.core, &consultation.target)
            // It has been logged. Only a worker has other reasons, and is never consulted.
            .map_err(|_| Failed)?;
        let questions = consultation.questions.items().iter();
        questions
            .map(|question| self.ask(question, &module, &handed.environ))
            .collect()
    }

    fn ask(
        &self,
        question: &Question<'_>,
        module: &Loaded,
        environ: &Owned,
    ) -> core::result::Result<Answer, Failed> {
        let py = self.py;
        let name = String::from_utf8_lossy(question.function.bytes());
        let called = || -> Result<Option<Owned>> {
            let attribute = latin1(py, question.function.bytes())?;
            let Some(function) = module.global(py, &attribute)? else {
                return Ok(None);
            };
            call(py, &function, environ, question.arguments.items()).map(Some)
        };
        let result = match called() {
            Ok(Some(result)) => result,
            Ok(None) if question.required => {
                self.log(
                    messages::NO_FUNCTION,
                    &format!("it has no function {name}(); define it"),
                );
                return Err(Failed);
            }
            Ok(None) => return Ok(Answer::Missing),
            Err(raised) => {
                self.raised(&format!("{name}() failed"), raised);
                return Err(Failed);
            }
        };
        match answers::read(py, &result, question.accepts) {
            Ok(given) => Ok(given),
            Err(answers::Unusable::Raised(raised)) => {
                self.raised(&format!("what {name}() returned cannot be used"), raised);
                Err(Failed)
            }
            Err(answers::Unusable::Wrong(what)) => {
                let wanted = answers::wanted(question.accepts);
                let line = format!("{name}() returned {what}; it must return {wanted}");
                self.log(messages::BAD_ANSWER, &line);
                Err(Failed)
            }
        }
    }

    fn raised(&self, what: &str, raised: Raised) {
        let py = self.py;
        let exception = raised.take(py);
        let code = messages::CONSULTATION_FAILED;
        exceptions::log_for_request(py, self.core, code, what, self.script, &exception);
    }

    fn log(&self, code: Code, what: &str) {
        let script = String::from_utf8_lossy(self.script);
        let line = format!("{code}script '{script}': {what}");
        self.py
            .detached(|_| self.core.log(Level::Error, line.as_bytes()));
    }
}

/// `function(environ, *arguments)`.
fn call(py: Attached, function: &Owned, environ: &Owned, arguments: &[Text<'_>]) -> Result<Owned> {
    let texts = arguments
        .iter()
        .map(|argument| latin1(py, argument.bytes()))
        .collect::<Result<Vec<Owned>>>()?;
    // A free place before the arguments, which a bound method may use.
    let mut pointers = vec![core::ptr::null_mut(), environ.as_ptr()];
    pointers.extend(texts.iter().map(Owned::as_ptr));
    let count = pointers.len() - 1;
    // SAFETY: live objects, as many as counted.
    order::outside(py, || unsafe {
        Owned::from_new(ffi::PyObject_Vectorcall(
            function.as_ptr(),
            pointers.as_ptr().add(1),
            count | ffi::PY_VECTORCALL_ARGUMENTS_OFFSET,
            core::ptr::null_mut(),
        ))
    })
}

/// The server during a consultation: a log, and an exchange without body and response.
struct ServerSide<'a> {
    context: *mut c_void,
    table: &'a ConsultTable,
    native: Option<NonNull<c_void>>,
}

impl ServerSide<'_> {
    fn hand_over(&self, question: u32, given: &Answer) {
        let tell = |kind, text: &[u8]| {
            // SAFETY: the context belongs to the table; the server copies the text.
            unsafe { (self.table.answer)(self.context, question, kind, Text::new(text)) }
        };
        match given {
            Answer::None => tell(answer::NONE, b""),
            Answer::Bool(false) => tell(answer::FALSE, b""),
            Answer::Bool(true) => tell(answer::TRUE, b""),
            Answer::Text(text) => tell(answer::TEXT, text),
            Answer::Names(names) => names.iter().for_each(|name| tell(answer::NAME, name)),
            Answer::Missing => tell(answer::MISSING, b""),
        }
    }

    fn is_https(&self) -> bool {
        // SAFETY: the context belongs to the table; `tls` calls it on the thread of the request.
        unsafe { (self.table.is_https)(self.context) != 0 }
    }

    fn tls_variable(&self, name: &[u8]) -> Option<&[u8]> {
        // SAFETY: as above; what it gives lives as long as the consultation.
        unsafe { (self.table.tls_variable)(self.context, Text::new(name)).bytes() }
    }
}

impl Exchange for ServerSide<'_> {
    fn read(&self, _: &mut [u8], _: Wait<'_>) -> core::result::Result<usize, BodyError> {
        Ok(0)
    }

    fn start(&self, _: &ResponseHead<'_>) {}

    fn append(&self, _: &[u8]) {}

    fn append_borrowed(&self, _: Borrowed) {}

    fn append_file(&self, _: i32, _: u64, _: u64) -> core::result::Result<(), i32> {
        Err(libc::EPIPE)
    }

    fn send(&self, _: Send, _: &MayBlock) -> core::result::Result<(), ClientGone> {
        Err(ClientGone)
    }

    fn abort(&self, _: &MayBlock) {}

    fn log(&self, level: Level, foreign: bool, line: &[u8]) {
        // SAFETY: the context belongs to the table.
        unsafe {
            (self.table.log)(
                self.context,
                level as u8,
                u8::from(foreign),
                Text::new(line),
            );
        }
    }

    fn client_gone(&self) -> bool {
        false
    }

    fn log_from(&self, level: Level, foreign: bool, source: Source<'_>, line: &[u8]) {
        let (level, foreign) = (level as u8, u8::from(foreign));
        // SAFETY: the context belongs to the table; the source is borrowed for the call.
        unsafe { (self.table.log_from)(self.context, level, foreign, &source, Text::new(line)) }
    }

    fn logs(&self, level: Level, foreign: bool) -> bool {
        // SAFETY: the context belongs to the table.
        unsafe { (self.table.logs)(self.context, level as u8, u8::from(foreign)) != 0 }
    }

    fn native(&self) -> Option<NonNull<c_void>> {
        self.native
    }
}
