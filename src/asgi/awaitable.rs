//! The Python objects that an application gets: `receive` and `send`, and the awaitables that they
//! return.
//!
//! Nothing happens before an awaitable is awaited, as with a coroutine. Where the answer is there
//! already, awaiting it makes no future and does not come back to the event loop.

use core::cell::RefCell;
use std::sync::Arc;

use pyo3::ffi;

use super::coroutine::{
    Coroutine, Step, close_iterator, coroutine_slots, iterate, method, throw_into,
};
use super::http::Http;
use super::websocket::Session;
use crate::python::attach::Attached;
use crate::python::interpreter::Interpreter;
use crate::python::object::Owned;
use crate::python::raise::{Kind, Raised, Result, raise};
use crate::python::slots::{self, object_slot};

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

    /// Whether nobody is there any more to be answered.
    pub fn is_gone(&self) -> bool {
        match self {
            Endpoint::Http(http) => http.is_gone(),
            Endpoint::WebSocket(session) => session.is_gone(),
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

impl Coroutine for Awaitable {
    fn step(&self, py: Attached, value: Option<&Owned>) -> Result<Step> {
        if crate::python::request::this_thread() != self.endpoint.thread() {
            let what = "receive() and send() must be awaited in the server's event loop";
            return Err(raise(py, Kind::Runtime, what));
        }
        let mut message = match self.state.take() {
            State::Over => {
                return Err(raise(
                    py,
                    Kind::Runtime,
                    "cannot reuse an awaitable that has been awaited",
                ));
            }
            State::New(message) => message,
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
