//! What Python knows of an event loop, and the thread that runs it.

use core::cell::{Cell, RefCell};
use core::sync::atomic::Ordering;
use std::os::fd::AsRawFd;
use std::sync::PoisonError;

use pyo3::ffi;

use super::EventLoop;
use crate::asgi::coroutine;
use crate::asgi::link::Phase;
use crate::exchange::Level;
use crate::messages;
use crate::python::attach::{self, Attached};
use crate::python::object::{Owned, boolean, float, int};
use crate::python::order;
use crate::python::raise::{Kind as Raise, Raised, Result, raise};
use crate::python::slots::{self, Methods, object_slot};

/// What Python knows of the loop.
pub struct PythonLoop {
    /// The event loop.
    pub event_loop: Owned,
    /// `asyncio.Task`.
    pub task_class: Owned,
    /// Its keyword arguments.
    pub task_options: Owned,
    create_future: Owned,
    /// What is `loop.call_soon` while a task is being made, and what it has caught.
    #[cfg(not(Py_3_12))]
    pub catcher: Owned,
    /// What `loop.call_soon` is otherwise.
    #[cfg(not(Py_3_12))]
    pub call_soon: Owned,
    /// The coroutine of the task that is being made.
    #[cfg(not(Py_3_12))]
    pub making: Cell<*mut ffi::PyObject>,
    /// A callable and its context.
    #[cfg(not(Py_3_12))]
    pub caught: Cell<Option<(Owned, Owned)>>,
}

#[cfg(not(Py_3_12))]
impl PythonLoop {
    /// Whether a callback is the first step of the task that is being made.
    ///
    /// # Safety
    /// It is live.
    unsafe fn is_step_of_new_task(&self, py: Attached, step: &Owned) -> bool {
        let names = &py.interpreter().asgi().names;
        let coroutine = || -> Result<Owned> {
            // SAFETY: live objects.
            let task = unsafe {
                Owned::from_new(ffi::PyObject_GetAttr(step.as_ptr(), names.self_.as_ptr()))?
            };
            coroutine::method(py, &task, &names.get_coro, &[])
        };
        match coroutine() {
            Ok(coroutine) => coroutine.as_ptr() == self.making.get(),
            Err(raised) => {
                raised.clear(py);
                false
            }
        }
    }
}

impl EventLoop {
    pub(super) fn run(&'static self) {
        self.thread
            .store(crate::python::request::this_thread(), Ordering::Relaxed);
        // SAFETY: no arguments.
        let thread = unsafe { libc::pthread_self() };
        self.python_thread.store(thread as u64, Ordering::Relaxed);
        let guard = attach::attach(self.interpreter);
        let py = guard.token();
        if let Err(raised) = self.run_attached(py) {
            let exception = raised.take(py);
            let code = messages::ASGI_LOOP_FAILED;
            let what = "the event loop of an application group has failed";
            crate::python::exceptions::log_for_process(py, code, what, &exception);
            drop(exception);
        }
        // Whatever is left: httpd must not wait for it.
        self.inner.stopped.set(true);
        for place in self.inner.links.take() {
            if let Some(link) = place.link {
                link.close();
                let phase = core::mem::replace(&mut *link.phase.borrow_mut(), Phase::Idle);
                match phase {
                    Phase::Idle | Phase::Closing => {}
                    Phase::Http(http) => http.on_gone(py),
                    Phase::WebSocket(session) => session.on_gone(py),
                }
            }
        }
        self.inner.applications.take();
        let mut inbox = self.inbox.lock().unwrap_or_else(PoisonError::into_inner);
        inbox.closed = true;
        let rest = core::mem::take(&mut inbox.messages);
        drop(inbox);
        drop(rest);
    }

    fn run_attached(&'static self, py: Attached) -> Result<()> {
        let options = crate::python::runtime::runtime().map(|runtime| &runtime.options);
        let uvloop = options.is_some_and(|options| options.uvloop);
        let state = py.interpreter().build_asgi(py)?;
        let made = state.call(py, c"new_loop", [boolean(py, uvloop)])?;
        // SAFETY: a tuple of two, as `loop.py` has it.
        let (event_loop, problem) = unsafe {
            (
                Owned::from_borrowed(py, ffi::PyTuple_GET_ITEM(made.as_ptr(), 0)),
                Owned::from_borrowed(py, ffi::PyTuple_GET_ITEM(made.as_ptr(), 1)),
            )
        };
        // SAFETY: attached.
        if problem.as_ptr() != unsafe { ffi::Py_None() } {
            // SAFETY: a live object.
            let text = unsafe { crate::python::object::latin1_bytes(py, problem.as_ptr()) };
            let text = text.map_or_else(
                |raised| {
                    raised.clear(py);
                    String::new()
                },
                |text| String::from_utf8_lossy(text).into_owned(),
            );
            let line = format!(
                "{}uvloop cannot be used ({text}); asyncio's own event loop serves instead: install \
                 uvloop in the application's environment, or configure asyncio",
                messages::ASGI_NO_UVLOOP
            );
            self.house.log(Level::Warning, line.as_bytes());
        }
        let python = self.python_loop(py, event_loop)?;
        let event_loop = python.event_loop.clone_ref(py);
        let _ = self.inner.python.set(python);
        let ready = self.function(py, &READY)?;
        let log = self.function(py, &LOG)?;
        let descriptor = int(py, self.epoll.as_raw_fd().into())?;
        drop(state.call(
            py,
            c"run",
            [event_loop.clone_ref(py), descriptor, ready, log],
        )?);
        let seconds = float(py, self.house.bounds().shutdown.as_secs_f64().min(1e6))?;
        drop(state.call(py, c"finish", [event_loop, seconds])?);
        Ok(())
    }

    fn python_loop(&'static self, py: Attached, event_loop: Owned) -> Result<PythonLoop> {
        // SAFETY: C strings; new references.
        unsafe {
            let asyncio = Owned::from_new(ffi::PyImport_ImportModule(c"asyncio".as_ptr()))?;
            let task_class = Owned::from_new(ffi::PyObject_GetAttrString(
                asyncio.as_ptr(),
                c"Task".as_ptr(),
            ))?;
            let create_future = Owned::from_new(ffi::PyObject_GetAttrString(
                event_loop.as_ptr(),
                c"create_future".as_ptr(),
            ))?;
            #[cfg(not(Py_3_12))]
            let call_soon = Owned::from_new(ffi::PyObject_GetAttrString(
                event_loop.as_ptr(),
                c"call_soon".as_ptr(),
            ))?;
            let task_options = Owned::from_new(ffi::PyDict_New())?;
            let mut options = vec![(c"loop", event_loop.clone_ref(py))];
            if cfg!(Py_3_12) {
                options.push((c"eager_start", boolean(py, true)));
            }
            for (name, value) in options {
                if ffi::PyDict_SetItemString(task_options.as_ptr(), name.as_ptr(), value.as_ptr())
                    < 0
                {
                    return Err(Raised);
                }
            }
            Ok(PythonLoop {
                event_loop,
                task_class,
                task_options,
                create_future,
                #[cfg(not(Py_3_12))]
                catcher: self.function(py, &CATCH)?,
                #[cfg(not(Py_3_12))]
                call_soon,
                #[cfg(not(Py_3_12))]
                making: Cell::new(core::ptr::null_mut()),
                #[cfg(not(Py_3_12))]
                caught: Cell::new(None),
            })
        }
    }

    /// A function of ours that knows the loop.
    fn function<const N: usize>(
        &'static self,
        py: Attached,
        method: &'static Methods<N>,
    ) -> Result<Owned> {
        let capsule = self.capsule(py)?;
        // SAFETY: a static method table and a live object.
        unsafe {
            Owned::from_new(ffi::PyCFunction_New(
                method.0.as_ptr().cast_mut(),
                capsule.as_ptr(),
            ))
        }
    }

    fn capsule(&'static self, _py: Attached) -> Result<Owned> {
        // SAFETY: a pointer that stays valid, and a static name.
        unsafe {
            Owned::from_new(ffi::PyCapsule_New(
                core::ptr::from_ref(self).cast_mut().cast(),
                NAME.as_ptr(),
                None,
            ))
        }
    }

    /// What Python knows of the loop.
    ///
    /// # Errors
    /// Raises RuntimeError before there is anything.
    pub fn python(&self, py: Attached) -> Result<&PythonLoop> {
        let python = self.inner.python.get();
        python.ok_or_else(|| raise(py, Raise::Runtime, "the event loop has not begun"))
    }

    /// A new future of the loop.
    ///
    /// # Errors
    /// No memory.
    pub fn new_future(&self, py: Attached) -> Result<Owned> {
        let python = self.python(py)?;
        // SAFETY: a live callable.
        unsafe { Owned::from_new(ffi::PyObject_CallNoArgs(python.create_future.as_ptr())) }
    }

    /// Notes a future that somebody awaits. Those that are done already, because whoever awaited them
    /// has given up, are forgotten now and then.
    pub fn add_waiter(&self, py: Attached, waiters: &RefCell<Vec<Owned>>, future: &Owned) {
        const MANY: usize = 16;
        let count = waiters.borrow().len();
        if count >= MANY && count.is_power_of_two() {
            let names = &py.interpreter().asgi().names;
            let (mut kept, mut done) = (Vec::new(), Vec::new());
            for waiter in waiters.take() {
                let answer = coroutine::method(py, &waiter, &names.done, &[]);
                match answer {
                    // SAFETY: attached.
                    Ok(answer) if answer.as_ptr() == unsafe { ffi::Py_False() } => {
                        kept.push(waiter);
                    }
                    Ok(_) => done.push(waiter),
                    Err(raised) => raised.clear(py),
                }
            }
            waiters.borrow_mut().append(&mut kept);
            drop(done);
        }
        waiters.borrow_mut().push(future.clone_ref(py));
    }

    /// Sets a future's result, unless it has been cancelled.
    pub fn wake_future(&self, py: Attached, future: &Owned) {
        let names = &py.interpreter().asgi().names;
        let wake = || -> Result<()> {
            let done = coroutine::method(py, future, &names.done, &[])?;
            // SAFETY: attached.
            if done.as_ptr() == unsafe { ffi::Py_True() } {
                return Ok(());
            }
            coroutine::method(py, future, &names.set_result, &[&Owned::none(py)]).map(drop)
        };
        if let Err(raised) = wake() {
            raised.clear(py);
        }
    }
}

/// The name of capsules with a loop.
const NAME: &core::ffi::CStr = c"rwsgi.EventLoop";

static READY: Methods<1> = Methods([slots::no_args(c"ready", ready)]);
static LOG: Methods<1> = Methods([slots::one_arg(c"log", log_text)]);
#[cfg(not(Py_3_12))]
static CATCH: Methods<1> = Methods([slots::any_args(c"call_soon", catch)]);

/// Runs `body` with the loop of a function's capsule.
///
/// # Safety
/// Called by CPython, attached, with `capsule` that of [`EventLoop::function`].
unsafe fn with_loop(
    capsule: *mut ffi::PyObject,
    body: impl FnOnce(Attached, &'static EventLoop) -> Result<Owned>,
) -> *mut ffi::PyObject {
    object_slot(|| {
        // SAFETY: by contract; a loop is never freed.
        unsafe {
            let pointer = ffi::PyCapsule_GetPointer(capsule, NAME.as_ptr());
            let Some(event_loop) = pointer.cast::<EventLoop>().as_ref() else {
                return Err(Raised);
            };
            let py = Attached::assume(event_loop.interpreter);
            order::within(py, || body(py, event_loop))
        }
    })
}

/// Something in the epoll set is ready.
unsafe extern "C" fn ready(
    capsule: *mut ffi::PyObject,
    _: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: METH_NOARGS of a function of ours.
    unsafe {
        with_loop(capsule, |py, event_loop| {
            event_loop.ready(py);
            Ok(Owned::none(py))
        })
    }
}

/// A warning of `loop.py`.
unsafe extern "C" fn log_text(
    capsule: *mut ffi::PyObject,
    text: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: METH_O of a function of ours, called with a str.
    unsafe {
        with_loop(capsule, |py, event_loop| {
            let text = crate::python::object::latin1_bytes(py, text)?;
            let line = [messages::ASGI_TASK_EXIT.to_string().as_bytes(), text].concat();
            event_loop.house.log(Level::Error, &line);
            Ok(Owned::none(py))
        })
    }
}

/// `call_soon(step, context=context)` of a task that is being made.
#[cfg(not(Py_3_12))]
unsafe extern "C" fn catch(
    capsule: *mut ffi::PyObject,
    arguments: *mut ffi::PyObject,
    keywords: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: METH_VARARGS and METH_KEYWORDS of a function of ours: a tuple, and a dict or null.
    unsafe {
        with_loop(capsule, |py, event_loop| {
            let python = event_loop.python(py)?;
            let context = if keywords.is_null() {
                None
            } else {
                crate::python::object::dict_item_by_name(py, keywords, c"context")?
            };
            if let (1.., Some(context)) = (ffi::PyTuple_GET_SIZE(arguments), context) {
                let step = Owned::from_borrowed(py, ffi::PyTuple_GET_ITEM(arguments, 0));
                if python.is_step_of_new_task(py, &step) {
                    drop(python.caught.replace(Some((step, context))));
                    // The handle, which a task keeps to itself.
                    return Ok(Owned::none(py));
                }
            }
            // Somebody else's: a finalizer may run at any time.
            Owned::from_new(ffi::PyObject_Call(
                python.call_soon.as_ptr(),
                arguments,
                keywords,
            ))
        })
    }
}
