//! The task that runs an application for one request.
//!
//! It is a task of asyncio with everything that libraries look for (`current_task()`, cancellation,
//! a context of its own), around a coroutine of ours that knows how the request has to end. It begins
//! at once, in the callback that has read the request, and is over at once if the application
//! never waits: no further round of the event loop is needed.

use core::cell::{Cell, RefCell};

use pyo3::ffi;

use super::awaitable::Endpoint;
use super::coroutine::{Coroutine, Step, close_iterator, coroutine_slots, iterate, throw_into};
use super::event_loop::PythonLoop;
use crate::python::attach::Attached;
use crate::python::interpreter::Interpreter;
use crate::python::object::{Owned, tuple};
use crate::python::order;
use crate::python::raise::{Kind, Result, raise};
use crate::python::slots;

/// The coroutine around the application's.
#[repr(C)]
pub struct Run {
    header: ffi::PyObject,
    interpreter: &'static Interpreter,
    endpoint: Endpoint,
    state: RefCell<State>,
    entered: Cell<bool>,
}

#[derive(Default)]
enum State {
    /// The application, and the scope and channels that it is called with.
    New(Owned, [Owned; 3]),
    /// The application's coroutine.
    Running(Owned),
    #[default]
    Over,
}

/// Makes the type, once per interpreter.
pub fn make_type(py: Attached) -> Result<Owned> {
    let mut slots = coroutine_slots::<Run>();
    slots.push(slots::slot(
        ffi::Py_tp_dealloc,
        slots::free_instance::<Run> as *mut _,
    ));
    // SAFETY: the slots are written for Run, which begins with its header.
    unsafe { slots::make_type::<Run>(py, c"rwsgi.Request", 0, slots) }
}

impl Run {
    /// Goes on with the application, and ends the request when it ends.
    fn drive(&self, py: Attached, go_on: impl FnOnce(&Owned) -> Result<Step>) -> Result<Step> {
        let coroutine = match self.state.take() {
            State::Running(coroutine) => coroutine,
            State::New(application, arguments) => {
                self.enter(py);
                match call(py, &application, &arguments) {
                    Ok(coroutine) => coroutine,
                    Err(raised) => {
                        drop(arguments);
                        self.end(py, Err(raised.take(py)));
                        return Ok(Step::Returned(Owned::none(py)));
                    }
                }
            }
            State::Over => return Err(raise(py, Kind::Runtime, "the request is over")),
        };
        let step = order::outside(py, || go_on(&coroutine));
        match step {
            Ok(Step::Yielded(future)) => {
                self.state.replace(State::Running(coroutine));
                return Ok(Step::Yielded(future));
            }
            Ok(Step::Returned(_)) => self.end(py, Ok(())),
            Err(raised) => self.end(py, Err(raised.take(py))),
        }
        Ok(Step::Returned(Owned::none(py)))
    }

    /// The first step: what the log writes from here on belongs to the request.
    fn enter(&self, py: Attached) {
        if self.entered.replace(true) {
            return;
        }
        if let Err(raised) = super::log::enter(py, &self.endpoint) {
            raised.clear(py);
        }
    }

    fn end(&self, py: Attached, result: core::result::Result<(), Owned>) {
        match &self.endpoint {
            Endpoint::Http(http) => http.ended(py, result),
            Endpoint::WebSocket(session) => session.ended(py, result),
        }
    }
}

/// `application(scope, receive, send)`.
fn call(py: Attached, application: &Owned, arguments: &[Owned; 3]) -> Result<Owned> {
    let [scope, receive, send] = arguments;
    let vector = [
        core::ptr::null_mut(),
        scope.as_ptr(),
        receive.as_ptr(),
        send.as_ptr(),
    ];
    // SAFETY: three live arguments, and a free place before them that a bound method may use.
    let result = order::outside(py, || unsafe {
        Owned::from_new(ffi::PyObject_Vectorcall(
            application.as_ptr(),
            vector.as_ptr().add(1),
            3 | ffi::PY_VECTORCALL_ARGUMENTS_OFFSET,
            core::ptr::null_mut(),
        ))
    })?;
    // SAFETY: a live object.
    if unsafe { ffi::PyCoro_CheckExact(result.as_ptr()) } != 0 {
        return Ok(result);
    }
    // A coroutine of `types.coroutine` is a generator.
    // SAFETY: a live object.
    if unsafe { ffi::PyGen_CheckExact(result.as_ptr()) } != 0 {
        return Ok(result);
    }
    // An awaitable of another kind: its iterator can be stepped as well.
    super::coroutine::method(py, &result, &py.interpreter().asgi().names.await_, &[])
}

impl Coroutine for Run {
    fn step(&self, py: Attached, value: Option<&Owned>) -> Result<Step> {
        self.drive(py, |coroutine| iterate(py, coroutine, value))
    }

    fn throw(&self, py: Attached, exception: Owned) -> Result<Step> {
        if let State::New(..) = &*self.state.borrow() {
            // Cancelled before it has begun.
        } else {
            return self.drive(py, |coroutine| throw_into(py, coroutine, exception));
        }
        self.state.take();
        self.end(py, Err(exception));
        Ok(Step::Returned(Owned::none(py)))
    }

    fn close(&self, py: Attached) -> Result<()> {
        match self.state.take() {
            State::Running(coroutine) => close_iterator(py, &coroutine),
            _ => Ok(()),
        }
    }

    fn interpreter(&self) -> &'static Interpreter {
        self.interpreter
    }
}

/// Starts a task that runs `application` for `endpoint`, and gives it; it may be over already.
///
/// # Errors
/// No memory.
pub fn start(
    py: Attached,
    python: &PythonLoop,
    application: Owned,
    endpoint: Endpoint,
    arguments: [Owned; 3],
) -> Result<Owned> {
    let value = Run {
        header: slots::header(),
        interpreter: py.interpreter(),
        endpoint,
        state: RefCell::new(State::New(application, arguments)),
        entered: Cell::new(false),
    };
    // SAFETY: made for Run by `make_type`.
    let run = unsafe { slots::new_instance(py, &py.interpreter().asgi().run_type, value)? };
    start_eagerly(py, python, &run)
}

/// `Task(run, loop=loop, eager_start=True)`.
#[cfg(Py_3_12)]
fn start_eagerly(py: Attached, python: &PythonLoop, run: &Owned) -> Result<Owned> {
    let arguments = tuple(py, [run.clone_ref(py)])?;
    // SAFETY: live objects.
    order::outside(py, || unsafe {
        Owned::from_new(ffi::PyObject_Call(
            python.task_class.as_ptr(),
            arguments.as_ptr(),
            python.task_options.as_ptr(),
        ))
    })
}

/// The same where tasks cannot begin at once: a new task asks the loop to call its first step soon;
/// for that moment the loop has a `call_soon` of ours, which keeps the step, and we call it.
#[cfg(not(Py_3_12))]
fn start_eagerly(py: Attached, python: &PythonLoop, run: &Owned) -> Result<Owned> {
    let arguments = tuple(py, [run.clone_ref(py)])?;
    let names = &py.interpreter().asgi().names;
    python.making.set(run.as_ptr());
    // SAFETY: live objects; the loop is an instance of a Python class and has attributes of its own.
    let task = unsafe {
        let catches = ffi::PyObject_SetAttr(
            python.event_loop.as_ptr(),
            names.call_soon.as_ptr(),
            python.catcher.as_ptr(),
        ) == 0;
        if !catches {
            ffi::PyErr_Clear();
        }
        let task = Owned::from_new(ffi::PyObject_Call(
            python.task_class.as_ptr(),
            arguments.as_ptr(),
            python.task_options.as_ptr(),
        ));
        if catches
            && ffi::PyObject_DelAttr(python.event_loop.as_ptr(), names.call_soon.as_ptr()) != 0
        {
            ffi::PyErr_Clear();
        }
        task?
    };
    python.making.set(core::ptr::null_mut());
    if let Some((step, context)) = python.caught.take() {
        // SAFETY: a live context, which is not entered; a live callable.
        order::outside(py, || unsafe {
            if ffi::PyContext_Enter(context.as_ptr()) < 0 {
                return Err(crate::python::raise::Raised);
            }
            let result = Owned::from_new(ffi::PyObject_CallNoArgs(step.as_ptr()));
            ffi::PyContext_Exit(context.as_ptr());
            result
        })?;
    }
    Ok(task)
}
