//! `wsgi.input`.

use core::cell::Cell;

use pyo3::ffi;

use super::request::RequestState;
use crate::python::attach::Attached;
use crate::python::interpreter::Interpreter;
use crate::python::object::Owned;
use crate::python::order;
use crate::python::raise::{Kind, Raised, Result, raise};
use crate::python::slots::{self, Methods, object_slot};

/// The object. Its request pointer is null when the request has ended.
#[repr(C)]
pub struct Input {
    header: ffi::PyObject,
    interpreter: &'static Interpreter,
    request: Cell<*const RequestState>,
}

/// Makes the type, once per interpreter.
pub fn make_type(py: Attached) -> Result<Owned> {
    let slots = vec![
        slots::slot(ffi::Py_tp_dealloc, slots::free_instance::<Input> as *mut _),
        slots::slot(ffi::Py_tp_methods, METHODS.0.as_ptr() as *mut _),
        slots::slot(ffi::Py_tp_iter, iter as *mut _),
        slots::slot(ffi::Py_tp_iternext, next as *mut _),
    ];
    // SAFETY: the slots are written for Input, which begins with its header.
    unsafe { slots::make_type::<Input>(py, c"mod_wsgi.Input", 0, slots) }
}

/// The input of a request.
///
/// # Safety
/// [`end`] is called on the result before `request` goes away.
pub unsafe fn new(py: Attached, request: &RequestState) -> Result<Owned> {
    let value = Input {
        header: slots::header(),
        interpreter: py.interpreter(),
        request: Cell::new(request),
    };
    // SAFETY: the interpreter's input type was made for Input by `make_type`.
    unsafe { slots::new_instance(py, &py.interpreter().wsgi().input, value) }
}

/// The request ends: every method raises from now on.
///
/// # Safety
/// `input` was made by [`new`].
pub unsafe fn end(_py: Attached, input: &Owned) {
    // SAFETY: by contract an instance of Input.
    unsafe {
        (*input.as_ptr().cast::<Input>())
            .request
            .set(core::ptr::null())
    }
}

static METHODS: Methods<5> = Methods([
    slots::fast_args(c"read", read),
    slots::fast_args(c"readline", read_line),
    slots::fast_args(c"readlines", read_lines),
    slots::no_args(c"close", close),
    slots::end(),
]);

/// Runs a method on a live input.
///
/// # Safety
/// Called by CPython with `object` an instance of Input.
unsafe fn method(
    object: *mut ffi::PyObject,
    name: &str,
    body: impl FnOnce(Attached, &RequestState) -> Result<Owned>,
) -> *mut ffi::PyObject {
    object_slot(|| {
        // SAFETY: an instance of Input, kept alive by the caller; CPython calls us attached to the
        // interpreter that made it. The request lives while the pointer is not null: it is
        // cleared by an attached thread, and before the state goes, its core waits for all who
        // use the exchange.
        unsafe {
            let input = &*object.cast::<Input>();
            let py = Attached::assume(input.interpreter);
            order::within(py, || match input.request.get().as_ref() {
                Some(request) => {
                    // A size may be an object with code of its own, which lets other threads run.
                    let _kept = request.core.keep();
                    body(py, request)
                }
                None => {
                    let message = format!("wsgi.input.{name} was used after its request had ended");
                    Err(raise(py, Kind::Runtime, &message))
                }
            })
        }
    })
}

/// The optional size argument: absent, None and negative mean all.
///
/// # Safety
/// `arguments` has `count` live objects.
unsafe fn size(
    py: Attached,
    name: &str,
    arguments: *const *mut ffi::PyObject,
    count: ffi::Py_ssize_t,
) -> Result<Option<usize>> {
    if count > 1 {
        let message = format!("{name}() takes at most 1 argument ({count} given)");
        return Err(raise(py, Kind::Type, &message));
    }
    // SAFETY: by contract.
    unsafe {
        if count == 0 || *arguments == ffi::Py_None() {
            return Ok(None);
        }
        let size = ffi::PyNumber_AsSsize_t(*arguments, ffi::PyExc_OverflowError);
        if size == -1 && crate::python::raise::is_raised(py) {
            return Err(Raised);
        }
        Ok(usize::try_from(size).ok())
    }
}

unsafe extern "C" fn read(
    object: *mut ffi::PyObject,
    arguments: *mut *mut ffi::PyObject,
    count: ffi::Py_ssize_t,
) -> *mut ffi::PyObject {
    // SAFETY: METH_FASTCALL of Input.
    unsafe {
        method(object, "read", |py, request| {
            let size = size(py, "read", arguments, count)?;
            request.body.read(py, &request.core.exchange(py)?, size)
        })
    }
}

unsafe extern "C" fn read_line(
    object: *mut ffi::PyObject,
    arguments: *mut *mut ffi::PyObject,
    count: ffi::Py_ssize_t,
) -> *mut ffi::PyObject {
    // SAFETY: METH_FASTCALL of Input.
    unsafe {
        method(object, "readline", |py, request| {
            let size = size(py, "readline", arguments, count)?;
            request
                .body
                .read_line(py, &request.core.exchange(py)?, size)
        })
    }
}

unsafe extern "C" fn read_lines(
    object: *mut ffi::PyObject,
    arguments: *mut *mut ffi::PyObject,
    count: ffi::Py_ssize_t,
) -> *mut ffi::PyObject {
    // SAFETY: METH_FASTCALL of Input; lines are live while they are in the list.
    unsafe {
        method(object, "readlines", |py, request| {
            let hint = size(py, "readlines", arguments, count)?.filter(|&hint| hint > 0);
            let exchange = request.core.exchange(py)?;
            let lines = Owned::from_new(ffi::PyList_New(0))?;
            let mut total = 0;
            loop {
                let line = request.body.read_line(py, &exchange, None)?;
                let length = ffi::Py_SIZE(line.as_ptr()) as usize;
                if length == 0 {
                    return Ok(lines);
                }
                if ffi::PyList_Append(lines.as_ptr(), line.as_ptr()) < 0 {
                    return Err(Raised);
                }
                total += length;
                if hint.is_some_and(|hint| total >= hint) {
                    return Ok(lines);
                }
            }
        })
    }
}

unsafe extern "C" fn close(
    object: *mut ffi::PyObject,
    _: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: METH_NOARGS of Input.
    unsafe { method(object, "close", |py, _| Ok(Owned::none(py))) }
}

unsafe extern "C" fn iter(object: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: tp_iter of Input.
    unsafe {
        method(object, "__iter__", |py, _| {
            Ok(Owned::from_borrowed(py, object))
        })
    }
}

unsafe extern "C" fn next(object: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: tp_iternext of Input: null without an exception ends the iteration.
    unsafe {
        let line = method(object, "__next__", |py, request| {
            request
                .body
                .read_line(py, &request.core.exchange(py)?, None)
        });
        if !line.is_null() && ffi::Py_SIZE(line) == 0 {
            ffi::Py_DECREF(line);
            return core::ptr::null_mut();
        }
        line
    }
}
