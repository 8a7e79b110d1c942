//! One request, from its head to the end of its response.

use core::ffi::c_void;
use core::ptr::NonNull;
use std::time::Instant;

use pyo3::ffi;

use super::environ::{Headers, Incoming, Template};
use super::request::RequestState;
use super::response::{self, Rest};
use super::{events, input, start_response};
use crate::exchange::abi::outcome;
use crate::exchange::{
    Exchange, Interface, Level, MayBlock, RequestHead, Send, Target, script_file,
};
use crate::messages;
use crate::metrics::observation::{Observation, Observed, Reader, is_wanted_by};
use crate::python::attach::{self, Attached};
use crate::python::events::{has_subscribers, notice_subscribers};
use crate::python::exceptions;
use crate::python::interpreter::Interpreter;
use crate::python::object::{Owned, interned};
use crate::python::order;
use crate::python::raise::Result;
use crate::python::runtime::Runtime;
use crate::python::script::Unavailable;
use crate::python::{capsule, log, script};

/// How the part of the request that needs Python ended.
enum Served {
    /// What is left to send.
    Rest(Rest),
    /// Nothing was sent: the server shall answer with this status.
    Status(u16),
    /// Nothing was done: the script has changed.
    Stale,
    /// Nothing was done: the callable is an ASGI application.
    Asgi,
    /// Something was sent: the client must see that it is cut.
    Cut,
    /// Everything has been done; this is the outcome.
    Finished(i32),
}

/// Serves one request on the calling thread, which is not attached. Returns an
/// [`outcome`](crate::exchange::abi::outcome).
pub fn serve(
    runtime: &Runtime,
    exchange: &dyn Exchange,
    head: &RequestHead<'_>,
    target: &Target<'_>,
) -> i32 {
    match runtime.interpreter(head.site.application_group.bytes()) {
        Ok(interpreter) => serve_in(runtime, interpreter, exchange, head, target),
        Err(_) => 500,
    }
}

/// [`serve`], with the interpreter of the request's application group.
#[inline]
pub fn serve_in(
    runtime: &Runtime,
    interpreter: &'static Interpreter,
    exchange: &dyn Exchange,
    head: &RequestHead<'_>,
    target: &Target<'_>,
) -> i32 {
    let looked_at;
    let target = if target.mtime_us == 0 {
        looked_at = look_at(target);
        &looked_at
    } else {
        target
    };
    let mut headers = Headers::empty();
    headers.scan(head);
    let mut incoming = Incoming {
        head,
        headers: &headers,
        started_us: 0,
    };
    let observed = Observed::new(head);
    let waits_since = observed.begin().map(|_| Instant::now());
    let gate = interpreter.gate(runtime);
    let permit = gate.enter();
    let queued = clock_us();
    let guard = attach::attach(interpreter);
    drop(permit);
    incoming.started_us = clock_us();
    if let (Some(observation), Some(since)) = (observed.get(), waits_since) {
        observation.note_application_start(incoming.started_us, Some(since));
    }
    let served = serve_attached(guard.token(), exchange, target, &incoming, &observed);
    if gate.learns() {
        gate.note(clock_us() - incoming.started_us);
    }
    let waited_long = incoming.started_us.saturating_sub(queued) >= LONG_WAIT_US;
    if waited_long {
        wake_others(guard.token());
    }
    drop(guard);
    if waited_long {
        gate.let_in();
    }
    let outcome = finish(exchange, served, observed.get());
    if matches!(outcome, outcome::STALE | outcome::ASGI) {
        observed.forget();
    }
    outcome
}

/// The server could not tell when the script was modified: handler scripts may lie where it must not
/// look.
#[cold]
fn look_at<'a>(target: &Target<'a>) -> Target<'a> {
    Target {
        mtime_us: script_file::modification_time(target.script.bytes()).unwrap_or(0),
        ..*target
    }
}

/// Who waits so long for the GIL waits for a request that computes: short ones give it up sooner,
/// and CPython asks a thread to give it up after this time.
const LONG_WAIT_US: i64 = 5_000;

/// Waiting threads that a request wakes that has waited long: more gained nothing, fewer lost half.
const WAKE_UPS: u32 = 8;

/// See `python::gate`: every release of the GIL wakes one of the threads that wait for it. Usually
/// we have it back before that one runs; when we have not, others have been served, and our own
/// response has waited enough.
#[cold]
fn wake_others(py: Attached) {
    for _ in 0..WAKE_UPS {
        let released = clock_us();
        py.detached(|_| ());
        if clock_us().saturating_sub(released) >= LOST_US {
            return;
        }
    }
}

/// A release and retake of the GIL that takes so long has let another thread in between.
const LOST_US: i64 = 200;

/// Microseconds since the epoch.
#[inline]
pub fn clock_us() -> i64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: writes the time; the clock always exists.
    unsafe { libc::clock_gettime(libc::CLOCK_REALTIME, &mut time) };
    time.tv_sec * 1_000_000 + time.tv_nsec / 1000
}

/// What can be done without Python: the last write, in one go with the end of the response.
#[inline]
fn finish(exchange: &dyn Exchange, served: Served, observation: Option<&Observation>) -> i32 {
    match observation {
        Some(observation) => {
            if let Served::Status(status) = served {
                observation.note_status(status);
            }
            observation.sends(|| finish_now(exchange, served))
        }
        None => finish_now(exchange, served),
    }
}

fn finish_now(exchange: &dyn Exchange, served: Served) -> i32 {
    let may_block = MayBlock::detached();
    match served {
        Served::Rest(Rest::Nothing) => outcome::DONE,
        Served::Rest(Rest::SendEnd) => match exchange.send(Send::End, &may_block) {
            Ok(()) => outcome::DONE,
            Err(_) => outcome::CUT,
        },
        Served::Rest(Rest::Abort) => {
            // The head and what there is must have left before the end is refused.
            if exchange.send(Send::Flush, &may_block).is_ok() {
                exchange.abort(&may_block);
            }
            outcome::CUT
        }
        Served::Cut => {
            exchange.abort(&may_block);
            outcome::CUT
        }
        Served::Rest(Rest::Gone) => outcome::CUT,
        Served::Finished(outcome) => outcome,
        Served::Status(status) => status.into(),
        Served::Stale => outcome::STALE,
        Served::Asgi => outcome::ASGI,
    }
}

/// The objects that an application gets for one request. When they are dropped, whatever the way
/// out, they are cut off from the request, and nobody else uses its exchange any more.
struct Handed<'r> {
    py: Attached,
    request: &'r RequestState,
    start_response: Owned,
    input: Owned,
    errors: Owned,
    native: Option<Owned>,
}

impl<'r> Handed<'r> {
    fn new(
        py: Attached,
        request: &'r RequestState,
        native: Option<NonNull<c_void>>,
    ) -> Result<Handed<'r>> {
        // Before the others, which need an end.
        let native = native
            .map(|pointer| capsule::new(py, pointer))
            .transpose()?;
        // SAFETY: each is ended by our Drop, before the request goes; on an early return the
        // objects made so far have one reference, here, and are gone at once.
        unsafe {
            Ok(Handed {
                py,
                request,
                start_response: start_response::new(py, request)?,
                input: input::new(py, request)?,
                errors: log::for_request(py, &request.core)?,
                native,
            })
        }
    }
}

impl Drop for Handed<'_> {
    fn drop(&mut self) {
        self.request.core.end();
        // SAFETY: made by the respective constructors, above.
        unsafe {
            start_response::end(self.py, &self.start_response);
            input::end(self.py, &self.input);
            log::end(self.py, &self.errors);
        }
        if let Some(native) = &self.native {
            capsule::end(self.py, native);
        }
        self.request.core.leave(self.py);
    }
}

fn serve_attached(
    py: Attached,
    exchange: &dyn Exchange,
    target: &Target<'_>,
    incoming: &Incoming<'_>,
    observed: &Observed<'_>,
) -> Served {
    // SAFETY: the exchange outlives this call, and the state does not.
    let request = unsafe { RequestState::new(exchange, incoming.head.method.bytes() == b"HEAD") };
    request.observe(observed.get());
    request.core.enter();
    let handed = match Handed::new(py, &request, exchange.native()) {
        Ok(handed) => handed,
        Err(raised) => {
            raised.clear(py);
            request.core.leave(py);
            return Served::Status(500);
        }
    };
    // SAFETY: the head outlives this call; the core stays where it is until it has been left.
    unsafe { request.core.list(py, incoming.head.request_id) };
    let mut served = run(py, &request, &handed, target, incoming, observed);
    if is_wanted_by(Reader::Events) {
        served = finish_attached(py, &request, served);
        if request.response.called.get() {
            events::request_finished(py, &request, incoming, final_status(&request, &served));
        }
    }
    drop(handed);
    served
}

/// The status of the answer.
fn final_status(request: &RequestState, served: &Served) -> u16 {
    match served {
        Served::Status(status) => *status,
        _ if request.response.started.get() => request.response.status.get(),
        _ => 500,
    }
}

/// Whoever is told of the end of a request wants to know how long its last write took, too.
#[cold]
fn finish_attached(py: Attached, request: &RequestState, served: Served) -> Served {
    if let (Some(observation), Served::Status(status)) = (request.observation(), &served) {
        observation.note_status(*status);
    }
    if matches!(served, Served::Stale | Served::Asgi | Served::Status(_)) {
        return served;
    }
    // It is refused to other threads only, and only when the request has ended.
    match request.core.exchange(py) {
        Ok(exchange) => {
            let observation = request.observation();
            Served::Finished(py.detached(|_| finish(&*exchange, served, observation)))
        }
        Err(raised) => {
            raised.clear(py);
            served
        }
    }
}

fn run(
    py: Attached,
    request: &RequestState,
    handed: &Handed<'_>,
    target: &Target<'_>,
    incoming: &Incoming<'_>,
    observed: &Observed<'_>,
) -> Served {
    let interpreter: &Interpreter = py.interpreter();
    let state = interpreter.wsgi();
    let path = target.script.bytes();
    let script = script::script(py, path);
    let module = match script.module(py, &state.names, &request.core, target) {
        Ok(module) => module,
        Err(Unavailable::Failed) => return Served::Status(500),
        Err(Unavailable::Interrupted) => return Served::Status(504),
        Err(Unavailable::Stale) => return Served::Stale,
    };
    // The script that has just been loaded may be the first to want it.
    notice_subscribers(py);
    if request.observation().is_none()
        && let Some(observation) = observed.begin()
    {
        observation.note_application_start(incoming.started_us, None);
        request.observe(Some(observation));
    }
    let prepared = || -> Result<(std::rc::Rc<Template>, Option<Owned>)> {
        let template = script.wsgi.template(py, state, incoming.head, target)?;
        let application = module.global(py, &template.callable)?;
        Ok((template, application))
    };
    let (template, application) = match prepared() {
        Ok(prepared) => prepared,
        Err(raised) => return failed(py, request, raised.take(py), path),
    };
    let Some(application) = application else {
        // The name that ASGI applications usually have, where nobody has configured one.
        if target.interface == Interface::Auto && target.callable_is_default {
            let app = interned(py, "app").and_then(|name| module.global(py, &name));
            if let Ok(Some(app)) = app
                && let Ok(true) = py.interpreter().prelude().is_coroutine_callable(py, &app)
            {
                return Served::Asgi;
            }
        }
        request.log(
            py,
            Level::Error,
            &format!(
                "{}script '{}' has no callable '{}'; {}",
                messages::NO_CALLABLE,
                String::from_utf8_lossy(path),
                String::from_utf8_lossy(incoming.head.site.callable_object.bytes()),
                if target.handler_script {
                    "every script of WSGIHandlerScript must define that function"
                } else {
                    "define it or name another with WSGICallableObject"
                },
            ),
        );
        return Served::Status(500);
    };
    if target.interface == Interface::Auto {
        match py
            .interpreter()
            .prelude()
            .is_coroutine_callable(py, &application)
        {
            Ok(false) => {}
            Ok(true) => return Served::Asgi,
            Err(raised) => return failed(py, request, raised.take(py), path),
        }
    }
    let called = template
        .environ(
            py,
            state,
            incoming,
            &handed.input,
            &handed.errors,
            handed.native.as_ref(),
        )
        .and_then(|environ| {
            request.response.called.set(true);
            if !has_subscribers(py) {
                return call(py, &application, &environ, &handed.start_response);
            }
            let application =
                events::request_started(py, request, incoming, &application, &environ)?;
            call(py, &application, &environ, &handed.start_response)
        });
    let result = match called {
        Ok(result) => result,
        Err(raised) => return failed(py, request, raised.take(py), path),
    };
    let sent = response::send(py, request, &result);
    // Taken before close() runs, which may raise and clear.
    let sent = sent.map_err(|raised| raised.take(py));
    response::close(py, request, &result, path);
    match sent {
        Ok(rest) => {
            report_missing(py, request, &rest, path);
            Served::Rest(rest)
        }
        Err(exception) => failed(py, request, exception, path),
    }
}

/// `application(environ, start_response)`.
fn call(
    py: Attached,
    application: &Owned,
    environ: &Owned,
    start_response: &Owned,
) -> Result<Owned> {
    let arguments = [
        core::ptr::null_mut(),
        environ.as_ptr(),
        start_response.as_ptr(),
    ];
    // SAFETY: two live arguments, and a free place before them that a bound method may use.
    order::outside(py, || unsafe {
        Owned::from_new(ffi::PyObject_Vectorcall(
            application.as_ptr(),
            arguments.as_ptr().add(1),
            2 | ffi::PY_VECTORCALL_ARGUMENTS_OFFSET,
            core::ptr::null_mut(),
        ))
    })
}

#[cold]
fn failed(py: Attached, request: &RequestState, exception: Owned, script: &[u8]) -> Served {
    let served = report_failure(py, request, &exception, script);
    events::request_exception(py, request, &exception);
    served
}

fn report_failure(
    py: Attached,
    request: &RequestState,
    exception: &Owned,
    script: &[u8],
) -> Served {
    if let Some(status) = request.body.failure() {
        // The client's doing: no traceback for it, and its own status.
        request.log(
            py,
            Level::Info,
            &format!(
                "{}the request body could not be read ({status}), and the application did not \
                 handle that",
                messages::BODY_READ_FAILED
            ),
        );
        return after_failure(request, status);
    }
    if request.response.client_gone.get() && exceptions::is_os_error(py, exception) {
        // What `write()` raises then; nothing that anybody has to look after.
        let line = "the client left before the response ended, and so did the application";
        request.log(py, Level::Info, line);
        return after_failure(request, 500);
    }
    if exceptions::is_request_timeout(py, exception) {
        let what = if request.response.head_sent.get() {
            "Request interrupted by RequestTimeout, its response is cut short; thread recovered"
        } else {
            "Request interrupted by RequestTimeout; thread recovered"
        };
        let code = messages::REQUEST_INTERRUPTED;
        exceptions::log_for_request(py, &request.core, code, what, script, exception);
        return after_failure(request, 504);
    }
    let (code, what) = if exceptions::is_system_exit(py, exception) {
        (
            messages::APPLICATION_EXITED,
            "SystemExit was raised and is ignored",
        )
    } else if !request.response.started.get() {
        (messages::APPLICATION_RAISED, "the application failed")
    } else if request.response.head_sent.get() {
        (
            messages::RESPONSE_CUT,
            "the application failed after the response had begun, which is cut short",
        )
    } else {
        (messages::APPLICATION_RAISED, "the application failed")
    };
    exceptions::log_for_request(py, &request.core, code, what, script, exception);
    after_failure(request, 500)
}

fn after_failure(request: &RequestState, status: u16) -> Served {
    if request.response.client_gone.get() {
        Served::Rest(Rest::Gone)
    } else if request.response.head_sent.get() {
        Served::Cut
    } else {
        Served::Status(status)
    }
}

fn report_missing(py: Attached, request: &RequestState, rest: &Rest, script: &[u8]) {
    if let (Rest::Abort, Some((declared, sent))) = (rest, request.response.missing()) {
        request.log(
            py,
            Level::Error,
            &format!(
                "{}script '{}' declared Content-Length {declared} but gave {sent} bytes; the \
                 response is cut short",
                messages::RESPONSE_TOO_SHORT,
                String::from_utf8_lossy(script),
            ),
        );
    }
}
