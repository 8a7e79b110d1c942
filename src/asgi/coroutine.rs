//! Coroutines of our own, and how others are driven.
//!
//! A type with [`coroutine_slots`] is what `collections.abc.Coroutine` and asyncio take for a
//! coroutine: it has `send()`, `throw()`, `close()` and `__await__()`.

use core::ffi::c_int;

use pyo3::ffi;

use crate::python::attach::Attached;
use crate::python::interpreter::Interpreter;
use crate::python::object::Owned;
use crate::python::order;
use crate::python::raise::{Kind, Raised, Result, raise};
use crate::python::slots::{self, Methods, boundary, object_slot};

/// How far a coroutine or an awaitable got.
pub enum Step {
    /// It waits for that.
    Yielded(Owned),
    /// That is its result.
    Returned(Owned),
}

/// What has the methods of a coroutine.
pub trait Coroutine {
    /// Goes on. `value` is what is sent in, `None` for `None`.
    ///
    /// # Errors
    /// What it raises.
    fn step(&self, py: Attached, value: Option<&Owned>) -> Result<Step>;

    /// Goes on with an exception that is raised inside.
    ///
    /// # Errors
    /// What it raises, usually the same.
    fn throw(&self, py: Attached, exception: Owned) -> Result<Step>;

    /// Ends it, if it waits.
    ///
    /// # Errors
    /// What it raises.
    fn close(&self, py: Attached) -> Result<()>;

    /// Where it lives.
    fn interpreter(&self) -> &'static Interpreter;
}

/// Calls a method.
///
/// # Errors
/// What it raises.
pub fn method(_py: Attached, object: &Owned, name: &Owned, arguments: &[&Owned]) -> Result<Owned> {
    let mut vector = [core::ptr::null_mut(); 4];
    vector[0] = object.as_ptr();
    for (place, argument) in vector[1..].iter_mut().zip(arguments) {
        *place = argument.as_ptr();
    }
    // SAFETY: live objects, as many as said.
    unsafe {
        Owned::from_new(ffi::PyObject_VectorcallMethod(
            name.as_ptr(),
            vector.as_ptr(),
            arguments.len() + 1,
            core::ptr::null_mut(),
        ))
    }
}

/// Sends `value` (or `None`) into an iterator or a coroutine.
///
/// # Errors
/// What it raises, but for the end.
pub fn iterate(py: Attached, iterator: &Owned, value: Option<&Owned>) -> Result<Step> {
    #[cfg(Py_3_10)]
    // SAFETY: live objects; the result is ours.
    unsafe {
        let none = ffi::Py_None();
        let value = value.map_or(none, Owned::as_ptr);
        let mut result = core::ptr::null_mut();
        let _ = py;
        match ffi::PyIter_Send(iterator.as_ptr(), value, &mut result) {
            ffi::PySendResult::PYGEN_NEXT => Owned::from_new(result).map(Step::Yielded),
            ffi::PySendResult::PYGEN_RETURN => Owned::from_new(result).map(Step::Returned),
            ffi::PySendResult::PYGEN_ERROR => Err(Raised),
        }
    }
    #[cfg(not(Py_3_10))]
    {
        let none = Owned::none(py);
        let send = &py.interpreter().asgi().names.send;
        ended(
            py,
            method(py, iterator, send, &[value.unwrap_or(&none)]).map(Step::Yielded),
        )
    }
}

/// Raises an exception inside an iterator or a coroutine.
///
/// # Errors
/// What it raises, but for the end.
pub fn throw_into(py: Attached, iterator: &Owned, exception: Owned) -> Result<Step> {
    let throw = &py.interpreter().asgi().names.throw;
    let result = method(py, iterator, throw, &[&exception]);
    drop(exception);
    ended(py, result.map(Step::Yielded))
}

/// `close()`.
///
/// # Errors
/// What it raises.
pub fn close_iterator(py: Attached, iterator: &Owned) -> Result<()> {
    method(py, iterator, &py.interpreter().asgi().names.close, &[]).map(drop)
}

/// `StopIteration` is the end with a result.
fn ended(py: Attached, result: Result<Step>) -> Result<Step> {
    let raised = match result {
        Ok(step) => return Ok(step),
        Err(raised) => raised,
    };
    // SAFETY: attached; a static class.
    if unsafe { ffi::PyErr_ExceptionMatches(ffi::PyExc_StopIteration) } == 0 {
        return Err(raised);
    }
    let exception = raised.take(py);
    let name = &py.interpreter().asgi().names.value;
    // SAFETY: live objects.
    unsafe { Owned::from_new(ffi::PyObject_GetAttr(exception.as_ptr(), name.as_ptr())) }
        .map(Step::Returned)
}

/// The slots that make a type a coroutine as `collections.abc.Coroutine` and asyncio know it.
pub fn coroutine_slots<T: Coroutine>() -> Vec<ffi::PyType_Slot> {
    let mut slots = vec![
        slots::slot(ffi::Py_am_await, itself as *mut _),
        slots::slot(ffi::Py_tp_iter, itself as *mut _),
        slots::slot(ffi::Py_tp_iternext, iternext::<T> as *mut _),
        slots::slot(
            ffi::Py_tp_methods,
            T_METHODS::<T>::TABLE.0.as_ptr() as *mut _,
        ),
    ];
    #[cfg(Py_3_10)]
    slots.push(slots::slot(ffi::Py_am_send, am_send::<T> as *mut _));
    slots.shrink_to_fit();
    slots
}

/// The methods of a coroutine of type `T`.
#[allow(non_camel_case_types)]
struct T_METHODS<T>(core::marker::PhantomData<T>);

impl<T: Coroutine> T_METHODS<T> {
    const TABLE: &'static Methods<4> = &Methods([
        slots::one_arg(c"send", send::<T>),
        slots::fast_args(c"throw", throw::<T>),
        slots::no_args(c"close", close::<T>),
        slots::end(),
    ]);
}

unsafe extern "C" fn itself(object: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: called by CPython with a live object.
    unsafe { ffi::Py_INCREF(object) };
    object
}

/// Runs `body` with the coroutine and the token of its interpreter.
///
/// # Safety
/// Called by CPython, attached, with `object` a live instance of `T`.
unsafe fn with<T: Coroutine, R>(
    object: *mut ffi::PyObject,
    body: impl FnOnce(Attached, &T) -> R,
) -> R {
    // SAFETY: by contract.
    unsafe {
        let this = &*object.cast::<T>();
        let py = Attached::assume(this.interpreter());
        order::within(py, || body(py, this))
    }
}

#[cfg(Py_3_10)]
unsafe extern "C" fn am_send<T: Coroutine>(
    object: *mut ffi::PyObject,
    value: *mut ffi::PyObject,
    result: *mut *mut ffi::PyObject,
) -> ffi::PySendResult {
    let failed = || {
        // SAFETY: attached; a static class and a C string.
        unsafe {
            ffi::PyErr_SetString(
                ffi::PyExc_RuntimeError,
                c"internal error of the server; the error log says more".as_ptr(),
            );
            *result = core::ptr::null_mut();
        }
        ffi::PySendResult::PYGEN_ERROR
    };
    boundary(failed, || {
        // SAFETY: am_send of T: live objects, a place for the result.
        unsafe {
            let step = with::<T, _>(object, |py, this| {
                if value == ffi::Py_None() {
                    this.step(py, None)
                } else {
                    this.step(py, Some(&Owned::from_borrowed(py, value)))
                }
            });
            let (kind, object) = match step {
                Ok(Step::Yielded(object)) => (ffi::PySendResult::PYGEN_NEXT, object.into_ptr()),
                Ok(Step::Returned(object)) => (ffi::PySendResult::PYGEN_RETURN, object.into_ptr()),
                Err(Raised) => (ffi::PySendResult::PYGEN_ERROR, core::ptr::null_mut()),
            };
            *result = object;
            kind
        }
    })
}

/// What `send()`, `throw()` and `__next__` give: the end is an exception there.
fn as_iterator(py: Attached, step: Result<Step>, silently: bool) -> Result<Option<Owned>> {
    match step? {
        Step::Yielded(object) => Ok(Some(object)),
        // SAFETY: attached; live objects. An instance, since a tuple would be taken for arguments.
        Step::Returned(value) => unsafe {
            if silently && value.as_ptr() == ffi::Py_None() {
                return Ok(None);
            }
            let stop = Owned::from_new(ffi::PyObject_CallFunctionObjArgs(
                ffi::PyExc_StopIteration,
                value.as_ptr(),
                core::ptr::null_mut::<ffi::PyObject>(),
            ))?;
            ffi::PyErr_SetObject(ffi::PyExc_StopIteration, stop.as_ptr());
            let _ = py;
            Err(Raised)
        },
    }
}

unsafe extern "C" fn iternext<T: Coroutine>(object: *mut ffi::PyObject) -> *mut ffi::PyObject {
    boundary(core::ptr::null_mut, || {
        // SAFETY: tp_iternext of T. Null without an exception is the end with `None`.
        unsafe {
            with::<T, _>(object, |py, this| {
                match as_iterator(py, this.step(py, None), true) {
                    Ok(Some(object)) => object.into_ptr(),
                    Ok(None) | Err(Raised) => core::ptr::null_mut(),
                }
            })
        }
    })
}

unsafe extern "C" fn send<T: Coroutine>(
    object: *mut ffi::PyObject,
    value: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    object_slot(|| {
        // SAFETY: METH_O of T.
        unsafe {
            with::<T, _>(object, |py, this| {
                let step = if value == ffi::Py_None() {
                    this.step(py, None)
                } else {
                    this.step(py, Some(&Owned::from_borrowed(py, value)))
                };
                as_iterator(py, step, false).map(|object| object.unwrap_or_else(|| Owned::none(py)))
            })
        }
    })
}

unsafe extern "C" fn throw<T: Coroutine>(
    object: *mut ffi::PyObject,
    arguments: *mut *mut ffi::PyObject,
    count: ffi::Py_ssize_t,
) -> *mut ffi::PyObject {
    object_slot(|| {
        // SAFETY: METH_FASTCALL of T: `count` live arguments.
        unsafe {
            with::<T, _>(object, |py, this| {
                let given = core::slice::from_raw_parts(arguments, count as usize);
                let exception = exception_of(py, given)?;
                let step = this.throw(py, exception);
                as_iterator(py, step, false).map(|object| object.unwrap_or_else(|| Owned::none(py)))
            })
        }
    })
}

/// The exception of `throw(exception)` or `throw(type, value, traceback)`.
///
/// # Safety
/// All are live.
unsafe fn exception_of(py: Attached, given: &[*mut ffi::PyObject]) -> Result<Owned> {
    // SAFETY: live by contract; the references that PyErr_Restore takes are made before.
    unsafe {
        let Some(&first) = given.first() else {
            return Err(raise(py, Kind::Type, "throw() takes an exception"));
        };
        let second = given.get(1).copied().unwrap_or(ffi::Py_None());
        if PyExceptionInstance_Check(first) {
            return Ok(Owned::from_borrowed(py, first));
        }
        if PyExceptionInstance_Check(second) {
            return Ok(Owned::from_borrowed(py, second));
        }
        let made = if second == ffi::Py_None() {
            Owned::from_new(ffi::PyObject_CallNoArgs(first))?
        } else {
            Owned::from_new(ffi::PyObject_CallFunctionObjArgs(
                first,
                second,
                core::ptr::null_mut::<ffi::PyObject>(),
            ))?
        };
        if !PyExceptionInstance_Check(made.as_ptr()) {
            return Err(raise(py, Kind::Type, "throw() takes an exception"));
        }
        Ok(made)
    }
}

/// # Safety
/// `object` is live.
#[allow(non_snake_case)]
unsafe fn PyExceptionInstance_Check(object: *mut ffi::PyObject) -> bool {
    const FALSE: c_int = 0;
    // SAFETY: live by contract.
    unsafe { ffi::PyExceptionInstance_Check(object) != FALSE }
}

unsafe extern "C" fn close<T: Coroutine>(
    object: *mut ffi::PyObject,
    _: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    object_slot(|| {
        // SAFETY: METH_NOARGS of T.
        unsafe {
            with::<T, _>(object, |py, this| {
                this.close(py)?;
                Ok(Owned::none(py))
            })
        }
    })
}
