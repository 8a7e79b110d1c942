//! The Python objects that an application gets: `receive` and `send`, and the awaitables that they
//! return.
//!
//! Nothing happens before an awaitable is awaited, as with a coroutine. Where the answer is there
//! already, awaiting it makes no future and does not come back to the event loop.

use core::cell::RefCell;
use core::ffi::c_int;
use std::sync::Arc;

use pyo3::ffi;

use super::http::Http;
use super::websocket::Session;
use crate::python::attach::Attached;
use crate::python::interpreter::Interpreter;
use crate::python::object::Owned;
use crate::python::order;
use crate::python::raise::{Kind, Raised, Result, raise};
use crate::python::slots::{self, Methods, boundary, object_slot};

/// What a request does when it is asked.
pub enum Poll {
    /// The result.
    Ready(Owned),
    /// Ask again when this future is done.
    Wait(Owned),
}

/// Who is asked.
#[derive(Clone)]
pub enum Endpoint {
    /// An HTTP request.
    Http(Arc<Http>),
    /// A WebSocket.
    WebSocket(Arc<Session>),
}

impl Endpoint {
    fn receive(&self, py: Attached) -> Result<Poll> {
        match self {
            Endpoint::Http(http) => http.receive(py),
            Endpoint::WebSocket(session) => session.receive(py),
        }
    }

    /// `message` is there at the first call for it only.
    fn send(&self, py: Attached, message: Option<Owned>) -> Result<Poll> {
        match self {
            Endpoint::Http(http) => http.send(py, message),
            Endpoint::WebSocket(session) => session.send(py, message),
        }
    }

    fn thread(&self) -> usize {
        match self {
            Endpoint::Http(http) => http.event_loop.thread(),
            Endpoint::WebSocket(session) => session.event_loop.thread(),
        }
    }
}

/// `receive` or `send`.
#[repr(C)]
pub struct Channel {
    header: ffi::PyObject,
    call: ffi::vectorcallfunc,
    interpreter: &'static Interpreter,
    /// Whom it belongs to.
    pub endpoint: Endpoint,
    sends: bool,
}

/// What a call of a [`Channel`] returns.
#[repr(C)]
pub struct Awaitable {
    header: ffi::PyObject,
    interpreter: &'static Interpreter,
    endpoint: Endpoint,
    sends: bool,
    state: RefCell<State>,
}

#[derive(Default)]
enum State {
    /// Not awaited yet; the message of a `send`.
    New(Option<Owned>),
    /// The iterator of the future that it waits for.
    Waiting(Owned),
    #[default]
    Over,
}

/// How far a coroutine or an awaitable got.
pub enum Step {
    /// It waits for that.
    Yielded(Owned),
    /// That is its result.
    Returned(Owned),
}

struct Members([ffi::PyMemberDef; 2]);
// SAFETY: constant data: names and offsets.
unsafe impl Sync for Members {}
static CHANNEL_MEMBERS: Members = Members([
    ffi::PyMemberDef {
        name: c"__vectorcalloffset__".as_ptr(),
        type_code: ffi::Py_T_PYSSIZET,
        offset: core::mem::offset_of!(Channel, call) as ffi::Py_ssize_t,
        flags: ffi::Py_READONLY,
        doc: core::ptr::null(),
    },
    ffi::PyMemberDef {
        name: core::ptr::null(),
        type_code: 0,
        offset: 0,
        flags: 0,
        doc: core::ptr::null(),
    },
]);

/// Makes the type of [`Channel`], once per interpreter.
pub fn make_channel_type(py: Attached) -> Result<Owned> {
    let slots = vec![
        slots::slot(
            ffi::Py_tp_dealloc,
            slots::free_instance::<Channel> as *mut _,
        ),
        slots::slot(ffi::Py_tp_call, ffi::PyVectorcall_Call as *mut _),
        slots::slot(ffi::Py_tp_members, CHANNEL_MEMBERS.0.as_ptr() as *mut _),
    ];
    let flags = ffi::Py_TPFLAGS_HAVE_VECTORCALL;
    // SAFETY: the slots are written for Channel, which begins with its header.
    unsafe { slots::make_type::<Channel>(py, c"rwsgi.Channel", flags, slots) }
}

/// Makes the type of [`Awaitable`], once per interpreter.
pub fn make_awaitable_type(py: Attached) -> Result<Owned> {
    let mut slots = coroutine_slots::<Awaitable>();
    slots.push(slots::slot(
        ffi::Py_tp_dealloc,
        slots::free_instance::<Awaitable> as *mut _,
    ));
    // SAFETY: the slots are written for Awaitable, which begins with its header.
    unsafe { slots::make_type::<Awaitable>(py, c"rwsgi.Awaitable", 0, slots) }
}

/// `receive` (or `send`) of a request.
///
/// # Errors
/// No memory.
pub fn channel(py: Attached, endpoint: Endpoint, sends: bool) -> Result<Owned> {
    let value = Channel {
        header: slots::header(),
        call,
        interpreter: py.interpreter(),
        endpoint,
        sends,
    };
    // SAFETY: made for Channel by `make_channel_type`.
    unsafe { slots::new_instance(py, &py.interpreter().asgi().channel_type, value) }
}

unsafe extern "C" fn call(
    object: *mut ffi::PyObject,
    arguments: *const *mut ffi::PyObject,
    flags: usize,
    keywords: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    object_slot(|| {
        // SAFETY: the vectorcall of Channel: `arguments` has as many live objects as flags and
        // keywords say; the caller keeps all alive and is attached to the interpreter that made the
        // object.
        unsafe {
            let this = &*object.cast::<Channel>();
            let py = Attached::assume(this.interpreter);
            let count = ffi::PyVectorcall_NARGS(flags) as usize;
            let named = if keywords.is_null() {
                0
            } else {
                ffi::PyTuple_GET_SIZE(keywords) as usize
            };
            let given = core::slice::from_raw_parts(arguments, count + named);
            let message = match *given {
                [] if !this.sends => None,
                // `send(message=…)` is as good, whatever the name.
                [message] if this.sends => Some(Owned::from_borrowed(py, message)),
                _ => {
                    let what = if this.sends {
                        "send() takes one argument, the message"
                    } else {
                        "receive() takes no arguments"
                    };
                    return Err(raise(py, Kind::Type, what));
                }
            };
            let value = Awaitable {
                header: slots::header(),
                interpreter: this.interpreter,
                endpoint: this.endpoint.clone(),
                sends: this.sends,
                state: RefCell::new(State::New(message)),
            };
            slots::new_instance(py, &this.interpreter.asgi().awaitable_type, value)
        }
    })
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

impl Coroutine for Awaitable {
    fn step(&self, py: Attached, value: Option<&Owned>) -> Result<Step> {
        let mut message = match self.state.take() {
            State::Over => {
                return Err(raise(
                    py,
                    Kind::Runtime,
                    "cannot reuse an awaitable that has been awaited",
                ));
            }
            State::New(message) => {
                if crate::python::request::this_thread() != self.endpoint.thread() {
                    let what = "receive() and send() must be awaited in the server's event loop";
                    return Err(raise(py, Kind::Runtime, what));
                }
                message
            }
            State::Waiting(iterator) => match iterate(py, &iterator, value)? {
                Step::Yielded(future) => {
                    self.state.replace(State::Waiting(iterator));
                    return Ok(Step::Yielded(future));
                }
                Step::Returned(_) => None,
            },
        };
        loop {
            let poll = if self.sends {
                self.endpoint.send(py, message.take())?
            } else {
                self.endpoint.receive(py)?
            };
            match poll {
                Poll::Ready(result) => return Ok(Step::Returned(result)),
                Poll::Wait(future) => {
                    let iterator = await_iterator(py, &future)?;
                    if let Step::Yielded(future) = iterate(py, &iterator, None)? {
                        self.state.replace(State::Waiting(iterator));
                        return Ok(Step::Yielded(future));
                    }
                }
            }
        }
    }

    fn throw(&self, py: Attached, exception: Owned) -> Result<Step> {
        match self.state.take() {
            State::Waiting(iterator) => {
                let step = throw_into(py, &iterator, exception)?;
                if let Step::Yielded(_) = step {
                    self.state.replace(State::Waiting(iterator));
                }
                Ok(step)
            }
            _ => Err(Raised::restore(py, exception)),
        }
    }

    fn close(&self, py: Attached) -> Result<()> {
        match self.state.take() {
            State::Waiting(iterator) => close_iterator(py, &iterator),
            _ => Ok(()),
        }
    }

    fn interpreter(&self) -> &'static Interpreter {
        self.interpreter
    }
}

/// `future.__await__()`.
fn await_iterator(py: Attached, future: &Owned) -> Result<Owned> {
    method(py, future, &py.interpreter().asgi().names.await_, &[])
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
