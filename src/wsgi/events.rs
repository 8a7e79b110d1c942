//! Events of a request, for those who have called `mod_wsgi.subscribe_events`.
//!
//! The names and the keys are mod_wsgi's. Without subscribers a request costs the look at an empty
//! list at each of the three places.

use core::ffi::CStr;

use pyo3::ffi;

use super::environ::Incoming;
use super::request::RequestState;
use super::server::clock_us;
use crate::metrics::thread;
use crate::python::attach::Attached;
use crate::python::events::{Event, has_subscribers};
use crate::python::exceptions;
use crate::python::object::{Owned, tuple};
use crate::python::raise::Result;

/// What every event of a request has.
fn new<'p>(py: Attached, name: &'p str, request: &RequestState) -> Result<Event<'p>> {
    let event = Event::new(py, name)?;
    if let Some(id) = request.core.id() {
        event.put_text(c"request_id", id)?;
    }
    event.put(c"request_data", &request.core.data(py)?)?;
    Ok(event)
}

/// Who serves the request, and since when.
fn put_circumstances(event: &Event<'_>, incoming: &Incoming<'_>) -> Result<()> {
    let head = incoming.head;
    event.put_int(c"thread_id", thread::number().into())?;
    event.put_int(c"server_pid", head.server_pid.into())?;
    event.put_seconds(c"request_start", head.request_time_us)?;
    event.put_seconds(c"queue_start", head.accept_time_us)?;
    event.put_seconds(c"daemon_start", head.daemon_time_us)?;
    event.put_seconds(c"application_start", incoming.started_us)
}

/// `request_started`: the application is about to be called. Gives the application to call, which
/// subscribers may replace.
///
/// # Errors
/// Raises `RequestTimeout` if that came meanwhile, or there is no memory.
#[cold]
pub fn request_started(
    py: Attached,
    request: &RequestState,
    incoming: &Incoming<'_>,
    application: &Owned,
    environ: &Owned,
) -> Result<Owned> {
    let event = new(py, "request_started", request)?;
    put_circumstances(&event, incoming)?;
    let head = incoming.head;
    event.put_int(c"daemon_connects", head.daemon_connects.into())?;
    event.put_int(c"daemon_restarts", head.daemon_restarts.into())?;
    event.put_text(c"callable_object", head.site.callable_object.bytes())?;
    event.put(c"application_object", application)?;
    event.put(c"request_environ", environ)?;
    let replaced = event.publish_for(c"application_object")?;
    Ok(replaced.unwrap_or_else(|| application.clone_ref(py)))
}

/// `response_started`: `start_response` was called with these arguments, which have not been
/// checked yet.
///
/// # Errors
/// As for [`request_started`].
///
/// # Safety
/// All are live.
#[cold]
pub unsafe fn response_started(
    py: Attached,
    request: &RequestState,
    status: *mut ffi::PyObject,
    headers: *mut ffi::PyObject,
    exc_info: Option<*mut ffi::PyObject>,
) -> Result<()> {
    let event = new(py, "response_started", request)?;
    // SAFETY: live by contract; None is.
    let [status, headers, exc_info] = unsafe {
        [status, headers, exc_info.unwrap_or(ffi::Py_None())]
            .map(|object| Owned::from_borrowed(py, object))
    };
    event.put(c"response_status", &status)?;
    event.put(c"response_headers", &headers)?;
    event.put(c"exception_info", &exc_info)?;
    event.publish()
}

/// `request_exception`: the application has raised. Whatever happens here is logged.
pub fn request_exception(py: Attached, request: &RequestState, exception: &Owned) {
    if !has_subscribers(py) {
        return;
    }
    let told = new(py, "request_exception", request).and_then(|event| {
        // SAFETY: a live exception and its type; a new reference to the traceback, or null.
        let traceback = unsafe {
            Owned::from_new(ffi::PyException_GetTraceback(exception.as_ptr()))
                .unwrap_or_else(|_| Owned::none(py))
        };
        // SAFETY: as above.
        let class = unsafe { Owned::from_borrowed(py, ffi::Py_TYPE(exception.as_ptr()).cast()) };
        let information = tuple(py, [class, exception.clone_ref(py), traceback])?;
        event.put(c"exception_info", &information)?;
        event.publish()
    });
    log_failure(py, request, "request_exception", told);
}

/// `request_finished`: the response has been handed on, and `close()` called. `status` is that of
/// the answer.
#[cold]
pub fn request_finished(
    py: Attached,
    request: &RequestState,
    incoming: &Incoming<'_>,
    status: u16,
) {
    if !has_subscribers(py) {
        return;
    }
    let finish_us = clock_us();
    let told = new(py, "request_finished", request).and_then(|event| {
        put_circumstances(&event, incoming)?;
        put_figures(&event, request)?;
        event.put_seconds(c"application_finish", finish_us)?;
        let time = (finish_us - incoming.started_us).max(0);
        event.put_seconds(c"application_time", time)?;
        event.put_int(c"status", status.into())?;
        event.publish()
    });
    log_failure(py, request, "request_finished", told);
}

/// What the request has done and used. Nothing is known of a request in whose course somebody was
/// the first to subscribe, but for the length of its response.
fn put_figures(event: &Event<'_>, request: &RequestState) -> Result<()> {
    let observation = request.observation();
    let mut figures = observation.map(|seen| seen.figures()).unwrap_or_default();
    figures.output_bytes = request.response.sent.get();
    let counts: [(&CStr, u64); 5] = [
        (c"input_reads", figures.input_reads),
        (c"input_length", figures.input_bytes),
        (c"output_length", figures.output_bytes),
        (c"output_writes", figures.output_writes),
        (c"gil_wait_count", figures.gil_waits),
    ];
    for (key, count) in counts {
        event.put_int(key, count as i64)?;
    }
    let times: [(&CStr, u64); 3] = [
        (c"input_time", figures.input_us),
        (c"output_time", figures.output_us),
        (c"gil_wait_time", figures.gil_wait_us),
    ];
    for (key, microseconds) in times {
        event.put_seconds(key, microseconds as i64)?;
    }
    if let Some(observation) = observation {
        let cpu = observation.cpu();
        for (key, microseconds) in [
            (c"cpu_user_time", cpu.user_us),
            (c"cpu_system_time", cpu.system_us),
            (c"cpu_time", cpu.user_us + cpu.system_us),
        ] {
            event.put_seconds(key, microseconds as i64)?;
        }
    }
    Ok(())
}

/// It is too late for anything but a line in the log: the request is answered, or answered for.
fn log_failure(py: Attached, request: &RequestState, name: &str, told: Result<()>) {
    if let Err(raised) = told {
        let what = format!("the event '{name}' could not be told of");
        let code = crate::messages::EVENT_CALLBACK_FAILED;
        exceptions::log_for_request(py, &request.core, code, &what, b"", &raised.take(py));
    }
}
