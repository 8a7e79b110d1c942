//! The bridge to `api.py`, the modules that applications import: what they need of the gateway.

use core::ffi::CStr;

use pyo3::ffi;

use super::attach::Attached;
use super::exceptions;
use super::interpreter::Interpreter;
use super::object::{self, Owned};
use super::raise::{Kind, Raised, Result, raise};
use super::request::current;
use super::slots::{self, Methods, object_slot};
use crate::exchange::{Level, Source, Text};
use crate::messages;

/// The source of the modules.
pub(super) const SOURCE: &str = concat!(include_str!("api.py"), "\0");

static METHODS: Methods<6> = Methods([
    slots::no_args(c"want_events", want_events),
    slots::no_args(c"request_data", request_data),
    slots::no_args(c"active_requests", active_requests),
    slots::fast_args(c"failed", failed),
    slots::one_arg(c"logs", logs),
    slots::fast_args(c"log_record", log_record),
]);

const INTERPRETER: &CStr = c"rwsgi.interpreter";

/// Adds the functions to the dictionary that `install` gets. Each knows its interpreter.
///
/// # Safety
/// `services` is a live dict.
pub(super) unsafe fn offer(py: Attached, services: &Owned) -> Result<()> {
    // SAFETY: interpreters are never freed; a static table, of whose entries each is complete.
    unsafe {
        let interpreter = core::ptr::from_ref(py.interpreter()).cast_mut();
        let this = Owned::from_new(ffi::PyCapsule_New(
            interpreter.cast(),
            INTERPRETER.as_ptr(),
            None,
        ))?;
        for method in &METHODS.0 {
            let function = Owned::from_new(ffi::PyCFunction_New(
                core::ptr::from_ref(method).cast_mut(),
                this.as_ptr(),
            ))?;
            if ffi::PyDict_SetItemString(services.as_ptr(), method.ml_name, function.as_ptr()) < 0 {
                return Err(Raised);
            }
        }
    }
    Ok(())
}

/// Runs a function of the table.
///
/// # Safety
/// Called by CPython with `this` as given to `offer`.
unsafe fn function(
    this: *mut ffi::PyObject,
    body: impl FnOnce(Attached) -> Result<Owned>,
) -> *mut ffi::PyObject {
    object_slot(|| {
        // SAFETY: the capsule of `offer`; CPython calls us attached to that interpreter, to which
        // the function belongs.
        unsafe {
            let interpreter = ffi::PyCapsule_GetPointer(this, INTERPRETER.as_ptr());
            let interpreter = interpreter.cast::<Interpreter>().as_ref().ok_or(Raised)?;
            let py = Attached::assume(interpreter);
            super::order::within(py, || body(py))
        }
    })
}

/// `request_data()`: a dictionary of the request that the calling thread serves.
unsafe extern "C" fn request_data(
    this: *mut ffi::PyObject,
    _: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: a function of the table; the request is that of this thread.
    unsafe {
        function(this, |py| match current() {
            Some(request) => request.data(py),
            None => Err(raise(py, Kind::Runtime, "no active request for thread")),
        })
    }
}

/// `want_events()`: somebody has subscribed. Requests that run already are told of, too.
unsafe extern "C" fn want_events(
    this: *mut ffi::PyObject,
    _: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: a function of the table.
    unsafe {
        function(this, |py| {
            super::events::notice_subscribers(py);
            Ok(Owned::none(py))
        })
    }
}

/// `active_requests()`: the dictionary of that name.
unsafe extern "C" fn active_requests(
    this: *mut ffi::PyObject,
    _: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: a function of the table.
    unsafe { function(this, |py| py.interpreter().running.show(py)) }
}

/// `failed(what, exception)`: logs an exception that is ignored.
unsafe extern "C" fn failed(
    this: *mut ffi::PyObject,
    arguments: *mut *mut ffi::PyObject,
    count: ffi::Py_ssize_t,
) -> *mut ffi::PyObject {
    // SAFETY: a function of the table, called with a str and an exception; the request is that of
    // this thread.
    unsafe {
        debug_assert_eq!(count, 2);
        function(this, |py| {
            let what = super::log::utf8(py, *arguments)?;
            let what = String::from_utf8_lossy(&what);
            let exception = Owned::from_borrowed(py, *arguments.add(1));
            let code = messages::EVENT_CALLBACK_FAILED;
            match current() {
                Some(core) => {
                    exceptions::log_for_request(py, core, code, &what, b"", &exception);
                }
                None => exceptions::log_for_process(py, code, &what, &exception),
            }
            Ok(Owned::none(py))
        })
    }
}

/// A level from a number of `api.py`.
///
/// # Safety
/// `number` is live.
unsafe fn level(number: *mut ffi::PyObject) -> Level {
    // SAFETY: live; what is no number is a detail.
    match unsafe { ffi::PyLong_AsLong(number) } {
        2 => Level::Crit,
        3 => Level::Error,
        4 => Level::Warning,
        6 => Level::Info,
        _ => Level::Debug,
    }
}

/// `logs(level)`: whether a line of this level would be logged now.
unsafe extern "C" fn logs(
    this: *mut ffi::PyObject,
    number: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: a function of the table, called with an int; the request is that of this thread.
    unsafe {
        function(this, |py| {
            let level = level(number);
            let logs = match current() {
                Some(core) => core.logs(level),
                None => super::runtime::logs(level),
            };
            Ok(object::boolean(py, logs))
        })
    }
}

/// `log_record(level, text, file, line)`: logs each line of the text.
unsafe extern "C" fn log_record(
    this: *mut ffi::PyObject,
    arguments: *mut *mut ffi::PyObject,
    count: ffi::Py_ssize_t,
) -> *mut ffi::PyObject {
    // SAFETY: a function of the table, called with four objects, of which the second is a str; the
    // request is that of this thread, which keeps it.
    unsafe {
        debug_assert_eq!(count, 4);
        function(this, |py| {
            let level = level(*arguments);
            let text = super::log::utf8(py, *arguments.add(1))?;
            let source = place(py, *arguments.add(2), *arguments.add(3));
            let core = current();
            if core.is_none() {
                let lines: Vec<Vec<u8>> = text
                    .split(|&c| c == b'\n')
                    .filter(|line| !line.is_empty())
                    .map(<[u8]>::to_vec)
                    .collect();
                let source = source.as_ref().map(Place::source);
                if crate::asgi::log::log(py, level, source, &lines) {
                    return Ok(Owned::none(py));
                }
            }
            py.detached(|_| {
                for line in text.split(|&c| c == b'\n').filter(|line| !line.is_empty()) {
                    match (core, &source) {
                        (Some(core), Some(place)) => core.log_from(level, place.source(), line),
                        (Some(core), None) => core.log(level, line),
                        (None, Some(place)) => {
                            super::runtime::log_from(level, place.source(), line);
                        }
                        (None, None) => super::runtime::log_bytes(level, line),
                    }
                }
            });
            Ok(Owned::none(py))
        })
    }
}

/// File and line of a record.
struct Place {
    file: Vec<u8>,
    line: u32,
}

impl Place {
    fn source(&self) -> Source<'_> {
        Source {
            file: Text::new(&self.file),
            line: self.line,
        }
    }
}

/// `None` if they are not what a record usually has.
///
/// # Safety
/// Both are live.
unsafe fn place(py: Attached, file: *mut ffi::PyObject, line: *mut ffi::PyObject) -> Option<Place> {
    // SAFETY: live by contract.
    unsafe {
        if ffi::PyUnicode_Check(file) == 0 || ffi::PyLong_Check(line) == 0 {
            return None;
        }
        let line = ffi::PyLong_AsLong(line);
        if line < 0 {
            // An error for a number that is too large, or none.
            ffi::PyErr_Clear();
        }
        let file = super::log::utf8(py, file)
            .map_err(|raised| raised.clear(py))
            .ok()?;
        Some(Place {
            file,
            line: u32::try_from(line).unwrap_or(0),
        })
    }
}
