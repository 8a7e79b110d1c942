//! The lifespan of an application: its startup, perhaps more than one, and its end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pyo3::ffi;

use super::callbacks::{ENDED, STARTED};
use super::{Application, Problem, Stage, end};
use crate::daemon::control;
use crate::exchange::Level;
use crate::messages;
use crate::python::attach::Attached;
use crate::python::object::{Owned, float, int, interned};
use crate::python::order;
use crate::python::raise::Result;

/// How long an application whose startup has failed is left alone.
const RETRY: Duration = Duration::from_secs(1);

impl Application {
    pub(super) fn begin(self: &Arc<Self>, py: Attached) {
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
    pub(super) fn start_again(self: &Arc<Self>, py: Attached) {
        if let Stage::Failed(at) = self.stage.get()
            && at.elapsed() >= RETRY
            && self.active.get() == 0
        {
            self.begin(py);
        }
    }

    /// The startup has been answered.
    pub(super) fn started(&self, py: Attached, problem: Problem) {
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
                let state = crate::asgi::state::copy(py, &self.state.borrow());
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
    pub(super) fn retire(&self, py: Attached) {
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

    pub(super) fn end(&self, py: Attached) {
        let lifespan = self.lifespan.take();
        let Some(lifespan) = lifespan else {
            return self.ended(py);
        };
        let shut_down = || -> Result<()> {
            let seconds = self.event_loop.house.bounds().shutdown.as_secs_f64();
            let seconds = float(py, seconds.min(1e6))?;
            let ended = self.function(py, &ENDED)?;
            let name = interned(py, "shutdown")?;
            crate::asgi::coroutine::method(py, &lifespan, &name, &[&seconds, &ended]).map(drop)
        };
        if let Err(raised) = shut_down() {
            raised.clear(py);
            self.ended(py);
        }
    }

    pub(super) fn ended(&self, py: Attached) {
        let then = self.at_end.take();
        if let Some(then) = then {
            then(py);
        }
    }
}
