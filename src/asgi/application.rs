//! The callable of a script, and its lifespan.

use core::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use pyo3::ffi;

use super::awaitable::Endpoint;
use super::event_loop::EventLoop;
use super::task;
use crate::daemon::control;
use crate::daemon::wire::request::WireRequest;
use crate::exchange::{Interface, Level, Lifespan};
use crate::messages;
use crate::python::attach::Attached;
use crate::python::object::{Owned, bytes_of, float, int, interned};
use crate::python::order;
use crate::python::raise::{Raised, Result};
use crate::python::request::RequestCore;
use crate::python::script::{self, Loaded, Unavailable};
use crate::python::slots::{self, Methods, object_slot};

/// How long an application whose startup has failed is left alone.
const RETRY: Duration = Duration::from_secs(1);

/// Where an application is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// `lifespan.startup` has not been answered.
    Starting,
    /// It serves.
    Serving,
    /// It could not start, at that time.
    Failed(Instant),
}

/// A request that waits for the startup.
struct Waiting {
    endpoint: Endpoint,
    arguments: [Owned; 3],
}

/// Something to be done, attached, when an application has ended.
type AtEnd = Box<dyn FnOnce(Attached)>;

/// An application: a callable of one version of a script. Touched by its loop's thread only.
pub struct Application {
    /// The script.
    pub path: Box<[u8]>,
    name: Box<[u8]>,
    name_is_default: bool,
    event_loop: &'static EventLoop,
    loaded: Rc<Loaded>,
    callable: Owned,
    mode: Lifespan,
    lifespan: RefCell<Option<Owned>>,
    state: RefCell<Owned>,
    stage: Cell<Stage>,
    waiting: RefCell<Vec<Waiting>>,
    /// Requests that it has in hand.
    active: Cell<u32>,
    /// Another version serves: it ends with its last request.
    retired: Cell<bool>,
    /// Who wants to know what becomes of the startup.
    tell: RefCell<Option<Sender<Problem>>>,
    at_end: RefCell<Option<AtEnd>>,
}

// SAFETY: touched by the loop's thread only; requests let go of it before they can be freed
// elsewhere, and capsules that hold it are called and freed by the loop's own objects.
unsafe impl Send for Application {}
// SAFETY: as above.
unsafe impl Sync for Application {}

/// Why a request has no application.
pub enum Missing {
    /// To be answered with 500; why has been logged.
    Failed,
    /// The script has changed and is loaded by another process.
    Stale,
    /// It is no ASGI application.
    NotAsgi,
}

/// The application that answers a request; loaded, and its startup begun, if that is due.
///
/// # Errors
/// See [`Missing`].
pub fn find(
    py: Attached,
    event_loop: &'static EventLoop,
    core: &RequestCore,
    request: &WireRequest<'_>,
) -> core::result::Result<Arc<Application>, Missing> {
    let target = &request.target;
    let path = target.script.bytes();
    let name = request.head.site.callable_object.bytes();
    let names = py.interpreter().wsgi().names();
    let script = script::script(py, path);
    let loaded = match script.module(py, names, core, target) {
        Ok(loaded) => loaded,
        Err(Unavailable::Stale) => return Err(Missing::Stale),
        Err(Unavailable::Failed | Unavailable::Interrupted) => return Err(Missing::Failed),
    };
    let wanted = Wanted {
        path,
        name,
        name_is_default: target.callable_is_default,
        lifespan: target.asgi.lifespan,
    };
    let failed = |raised: Raised| {
        crate::python::exceptions::log_for_request(
            py,
            core,
            messages::ASGI_FAILED,
            "the application could not be set up",
            path,
            &raised.take(py),
        );
        Missing::Failed
    };
    if let Some(known) = wanted.known(event_loop, &loaded) {
        known.start_again(py);
        return Ok(known);
    }
    let callable = callable(py, &loaded, &wanted).map_err(failed)?;
    let Some(callable) = callable else {
        let line = format!(
            "{}script '{}' has no callable '{}'{}; define it or name another with \
             WSGICallableObject",
            messages::NO_CALLABLE,
            String::from_utf8_lossy(path),
            String::from_utf8_lossy(name),
            if target.callable_is_default {
                " or 'app'"
            } else {
                ""
            },
        );
        py.detached(|_| core.log(Level::Error, line.as_bytes()));
        return Err(Missing::Failed);
    };
    if target.interface == Interface::Auto
        && !py
            .interpreter()
            .prelude()
            .is_coroutine_callable(py, &callable)
            .map_err(failed)?
    {
        return Err(Missing::NotAsgi);
    }
    wanted
        .make(py, event_loop, loaded, callable)
        .map_err(failed)
}

/// Which application is wanted.
struct Wanted<'a> {
    path: &'a [u8],
    name: &'a [u8],
    name_is_default: bool,
    lifespan: Lifespan,
}

impl Wanted<'_> {
    /// The one that there is.
    fn known(
        &self,
        event_loop: &'static EventLoop,
        loaded: &Rc<Loaded>,
    ) -> Option<Arc<Application>> {
        event_loop
            .applications()
            .borrow()
            .iter()
            .find(|known| {
                Rc::ptr_eq(&known.loaded, loaded)
                    && *known.path == *self.path
                    && *known.name == *self.name
            })
            .map(Arc::clone)
    }

    /// A new one, whose startup begins. It takes the place of that of an older version.
    fn make(
        &self,
        py: Attached,
        event_loop: &'static EventLoop,
        loaded: Rc<Loaded>,
        callable: Owned,
    ) -> Result<Arc<Application>> {
        // SAFETY: a new dict.
        let state = unsafe { Owned::from_new(ffi::PyDict_New())? };
        let application = Arc::new(Application {
            path: self.path.into(),
            name: self.name.into(),
            name_is_default: self.name_is_default,
            event_loop,
            loaded,
            callable,
            mode: self.lifespan,
            lifespan: RefCell::new(None),
            state: RefCell::new(state),
            stage: Cell::new(Stage::Starting),
            waiting: RefCell::default(),
            active: Cell::new(0),
            retired: Cell::new(false),
            tell: RefCell::new(None),
            at_end: RefCell::new(None),
        });
        let replaced = {
            let mut all = event_loop.applications().borrow_mut();
            let (replaced, mut kept): (Vec<_>, Vec<_>) = all.drain(..).partition(|known| {
                known.path == application.path && known.name == application.name
            });
            kept.push(Arc::clone(&application));
            *all = kept;
            replaced
        };
        for old in replaced {
            old.retire(py);
        }
        application.begin(py);
        Ok(application)
    }
}

/// Begins the startup of an application for which there is no request yet; its script has been
/// loaded. `tell` gets what has come of it: lines that say why it cannot serve. Nothing comes if
/// there is no such application.
pub fn begin_early(
    py: Attached,
    event_loop: &'static EventLoop,
    application: &control::Application,
    tell: Sender<Problem>,
) {
    let wanted = Wanted {
        path: &application.script.path,
        name: &application.callable,
        name_is_default: application.callable_is_default,
        lifespan: application.lifespan,
    };
    let Some(loaded) = script::script(py, wanted.path).current() else {
        return;
    };
    if wanted.known(event_loop, &loaded).is_some() {
        return;
    }
    let begin = || -> Result<()> {
        let Some(callable) = callable(py, &loaded, &wanted)? else {
            return Ok(());
        };
        let application = wanted.make(py, event_loop, Rc::clone(&loaded), callable)?;
        match application.stage.get() {
            Stage::Starting => *application.tell.borrow_mut() = Some(tell),
            _ => {
                let _ = tell.send(None);
            }
        }
        Ok(())
    };
    if let Err(raised) = begin() {
        raised.clear(py);
    }
}

/// What has become of a startup: nothing to complain of, or lines that say why not.
pub type Problem = Option<Vec<Vec<u8>>>;

/// The callable, by its configured name, or `app` where nobody has configured one.
fn callable(py: Attached, loaded: &Loaded, wanted: &Wanted<'_>) -> Result<Option<Owned>> {
    let text = crate::python::object::latin1(py, wanted.name)?;
    let found = loaded.global(py, &text)?;
    if found.is_some() || !wanted.name_is_default {
        return Ok(found);
    }
    loaded.global(py, &interned(py, "app")?)
}

impl Application {
    /// The state of its lifespan, for scopes to copy.
    pub fn state(&self, py: Attached) -> Owned {
        self.state.borrow().clone_ref(py)
    }

    /// Runs it for a request, as soon as it has started.
    pub fn serve(&self, py: Attached, endpoint: Endpoint, arguments: [Owned; 3]) {
        self.active.set(self.active.get() + 1);
        match self.stage.get() {
            Stage::Serving => self.run(
                py,
                Waiting {
                    endpoint,
                    arguments,
                },
            ),
            Stage::Starting => self.waiting.borrow_mut().push(Waiting {
                endpoint,
                arguments,
            }),
            Stage::Failed(_) => self.refuse(py, &endpoint),
        }
    }

    fn run(&self, py: Attached, request: Waiting) {
        let Waiting {
            endpoint,
            arguments,
        } = request;
        let started = self.event_loop.python(py).and_then(|python| {
            let callable = self.callable.clone_ref(py);
            task::start(py, python, callable, endpoint.clone(), arguments)
        });
        match started {
            Ok(task) => match &endpoint {
                Endpoint::Http(http) => http.set_task(task),
                Endpoint::WebSocket(session) => session.set_task(task),
            },
            Err(raised) => end(py, &endpoint, Err(raised.take(py))),
        }
    }

    /// Its startup has failed: that has been logged.
    fn refuse(&self, py: Attached, endpoint: &Endpoint) {
        match endpoint {
            Endpoint::Http(http) => http.refuse(py),
            Endpoint::WebSocket(session) => session.refuse(py),
        }
    }

    /// A request is over.
    pub fn request_ended(&self, py: Attached) {
        self.active.set(self.active.get().saturating_sub(1));
        if self.retired.get() && self.active.get() == 0 {
            self.end(py);
        }
    }

    // ---- the lifespan ----------------------------------------------------------------------

    fn begin(self: &Arc<Self>, py: Attached) {
        let begin = || -> Result<()> {
            let asgi = py.interpreter().asgi();
            let event_loop = self.event_loop.python(py)?.event_loop.clone_ref(py);
            let lifespan = asgi.call(
                py,
                c"Lifespan",
                [
                    event_loop,
                    self.callable.clone_ref(py),
                    int(py, self.mode as i64)?,
                    self.function(py, &STARTED)?,
                    py.interpreter()
                        .prelude()
                        .function(py, c"format_exception")?,
                ],
            )?;
            // SAFETY: a live object and a C string.
            unsafe {
                let state = Owned::from_new(ffi::PyObject_GetAttrString(
                    lifespan.as_ptr(),
                    c"state".as_ptr(),
                ))?;
                *self.state.borrow_mut() = state;
            }
            *self.lifespan.borrow_mut() = Some(lifespan.clone_ref(py));
            // SAFETY: a live object and a C string.
            order::outside(py, || unsafe {
                Owned::from_new(ffi::PyObject_CallMethodNoArgs(
                    lifespan.as_ptr(),
                    interned(py, "start")?.as_ptr(),
                ))
                .map(drop)
            })
        };
        self.stage.set(Stage::Starting);
        if let Err(raised) = begin() {
            let exception = raised.take(py);
            let lines = crate::python::exceptions::lines(
                py,
                Some(messages::ASGI_LIFESPAN_FAILED),
                "the lifespan of an application could not begin",
                &self.path,
                &exception,
            );
            for line in &lines {
                self.event_loop.house.log(Level::Error, line);
            }
            self.started(py, Some(lines));
        }
    }

    /// A failed startup is tried again, not too often.
    fn start_again(self: &Arc<Self>, py: Attached) {
        if let Stage::Failed(at) = self.stage.get()
            && at.elapsed() >= RETRY
            && self.active.get() == 0
        {
            self.begin(py);
        }
    }

    /// The startup has been answered.
    fn started(&self, py: Attached, problem: Problem) {
        let works = problem.is_none();
        if works && !self.retired.get() {
            self.event_loop
                .house
                .application_started(control::Application {
                    script: control::Script {
                        application_group: py.interpreter().group().to_vec(),
                        path: self.path.to_vec(),
                    },
                    callable: self.name.to_vec(),
                    callable_is_default: self.name_is_default,
                    lifespan: self.mode,
                });
        }
        if let Some(tell) = self.tell.take() {
            // Nobody may be waiting any longer.
            let _ = tell.send(problem);
        }
        self.stage.set(if works {
            Stage::Serving
        } else {
            Stage::Failed(Instant::now())
        });
        for request in self.waiting.take() {
            if works {
                // What the startup has put there was not known when the scope was made.
                let state = super::state::copy(py, &self.state.borrow());
                let name = &py.interpreter().asgi().names.state;
                let put = state.and_then(|state| {
                    let scope = request.arguments[0].as_ptr();
                    // SAFETY: our own dict; live objects.
                    unsafe {
                        crate::python::object::set_item(py, scope, name.as_ptr(), state.as_ptr())
                    }
                });
                if let Err(raised) = put {
                    raised.clear(py);
                }
                if request.endpoint.is_gone() {
                    end(py, &request.endpoint, Ok(()));
                } else {
                    self.run(py, request);
                }
            } else {
                self.refuse(py, &request.endpoint);
            }
        }
    }

    /// Another version serves from now on.
    fn retire(&self, py: Attached) {
        self.retired.set(true);
        if self.active.get() == 0 {
            self.end(py);
        }
    }

    /// Ends it; `then` is called when it has ended.
    pub fn shut_down(self: &Arc<Self>, py: Attached, then: impl FnOnce(Attached) + 'static) {
        *self.at_end.borrow_mut() = Some(Box::new(then));
        self.end(py);
    }

    fn end(&self, py: Attached) {
        let lifespan = self.lifespan.take();
        let Some(lifespan) = lifespan else {
            return self.ended(py);
        };
        let shut_down = || -> Result<()> {
            let seconds = self.event_loop.house.bounds().shutdown.as_secs_f64();
            let seconds = float(py, seconds.min(1e6))?;
            let ended = self.function(py, &ENDED)?;
            let name = interned(py, "shutdown")?;
            super::coroutine::method(py, &lifespan, &name, &[&seconds, &ended]).map(drop)
        };
        if let Err(raised) = shut_down() {
            raised.clear(py);
            self.ended(py);
        }
    }

    fn ended(&self, py: Attached) {
        let then = self.at_end.take();
        if let Some(then) = then {
            then(py);
        }
    }

    /// A function of ours that knows the application, and keeps it.
    fn function<const N: usize>(&self, py: Attached, method: &'static Methods<N>) -> Result<Owned> {
        // SAFETY: `self` is in an Arc, as all applications are; the capsule has a reference of its
        // own, which its destructor gives back.
        unsafe {
            Arc::increment_strong_count(core::ptr::from_ref(self));
            let pointer = core::ptr::from_ref(self).cast_mut().cast();
            let capsule = Owned::from_new(ffi::PyCapsule_New(pointer, NAME.as_ptr(), Some(let_go)))
                .inspect_err(|_| Arc::decrement_strong_count(core::ptr::from_ref(self)))?;
            let _ = py;
            Owned::from_new(ffi::PyCFunction_New(
                method.0.as_ptr().cast_mut(),
                capsule.as_ptr(),
            ))
        }
    }
}

fn end(py: Attached, endpoint: &Endpoint, result: core::result::Result<(), Owned>) {
    match endpoint {
        Endpoint::Http(http) => http.ended(py, result),
        Endpoint::WebSocket(session) => session.ended(py, result),
    }
}

/// The name of capsules with an application.
const NAME: &core::ffi::CStr = c"rwsgi.Application";

static STARTED: Methods<1> = Methods([slots::fast_args(c"started", started)]);
static ENDED: Methods<1> = Methods([slots::fast_args(c"ended", ended)]);

/// The destructor of such a capsule.
unsafe extern "C" fn let_go(capsule: *mut ffi::PyObject) {
    slots::boundary(
        || (),
        || {
            // SAFETY: a capsule of `Application::function`.
            unsafe {
                let pointer = ffi::PyCapsule_GetPointer(capsule, NAME.as_ptr());
                if !pointer.is_null() {
                    Arc::decrement_strong_count(pointer.cast::<Application>().cast_const());
                }
            }
        },
    );
}

/// Runs `body` with the application of a capsule and the arguments `(problem, lines)`.
///
/// # Safety
/// Called by CPython on the loop's thread, attached, with two arguments: None or a str, and a list
/// of bytes.
unsafe fn with_problem(
    capsule: *mut ffi::PyObject,
    arguments: *mut *mut ffi::PyObject,
    body: impl FnOnce(Attached, Arc<Application>, Option<(String, Vec<Vec<u8>>)>),
) -> *mut ffi::PyObject {
    object_slot(|| {
        // SAFETY: by contract.
        unsafe {
            let pointer = ffi::PyCapsule_GetPointer(capsule, NAME.as_ptr());
            if pointer.is_null() {
                return Err(Raised);
            }
            let pointer = pointer.cast::<Application>().cast_const();
            Arc::increment_strong_count(pointer);
            let application = Arc::from_raw(pointer);
            let py = Attached::assume(application.event_loop.interpreter);
            let problem = Owned::from_borrowed(py, *arguments);
            let problem = if problem.as_ptr() == ffi::Py_None() {
                None
            } else {
                let text = crate::python::log::utf8(py, problem.as_ptr())?;
                let lines = *arguments.add(1);
                let lines = (0..ffi::PyList_GET_SIZE(lines))
                    .map(|index| bytes_of(ffi::PyList_GET_ITEM(lines, index)).to_vec())
                    .collect();
                Some((String::from_utf8_lossy(&text).into_owned(), lines))
            };
            order::within(py, || body(py, application, problem));
            Ok(Owned::none(py))
        }
    })
}

impl Application {
    fn report(&self, code: messages::Code, what: &str, lines: &[Vec<u8>]) {
        let line = format!("{code}{what}: {}", String::from_utf8_lossy(&self.path));
        self.event_loop.house.log(Level::Error, line.as_bytes());
        for line in lines {
            self.event_loop.house.log(Level::Error, line);
        }
    }
}

/// `started(problem, lines)` of a lifespan.
unsafe extern "C" fn started(
    capsule: *mut ffi::PyObject,
    arguments: *mut *mut ffi::PyObject,
    _: ffi::Py_ssize_t,
) -> *mut ffi::PyObject {
    // SAFETY: METH_FASTCALL of a function of ours, called by `loop.py`.
    unsafe {
        with_problem(capsule, arguments, |py, application, problem| {
            let problem = problem.map(|(what, lines)| {
                let what = format!("the application cannot serve, {what}");
                if application.tell.borrow().is_none() {
                    let what = format!("{what}; requests get 500");
                    application.report(messages::ASGI_LIFESPAN_FAILED, &what, &lines);
                }
                let path = String::from_utf8_lossy(&application.path);
                let first = format!("{what}: {path}").into_bytes();
                [vec![first], lines].concat()
            });
            application.started(py, problem);
        })
    }
}

/// `ended(problem, lines)` of a lifespan.
unsafe extern "C" fn ended(
    capsule: *mut ffi::PyObject,
    arguments: *mut *mut ffi::PyObject,
    _: ffi::Py_ssize_t,
) -> *mut ffi::PyObject {
    // SAFETY: METH_FASTCALL of a function of ours, called by `loop.py`.
    unsafe {
        with_problem(capsule, arguments, |py, application, problem| {
            if let Some((what, lines)) = &problem {
                let what = format!("the application did not end as it should, {what}");
                application.report(messages::ASGI_SHUTDOWN_FAILED, &what, lines);
            }
            application.ended(py);
        })
    }
}
