//! The application that a request is for: found, or made of the callable of its script.

use core::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::Sender;

use pyo3::ffi;

use super::{Application, Problem, Stage};
use crate::asgi::event_loop::EventLoop;
use crate::daemon::control;
use crate::daemon::wire::request::WireRequest;
use crate::exchange::{Interface, Level, Lifespan};
use crate::messages;
use crate::python::attach::Attached;
use crate::python::object::{Owned, interned};
use crate::python::raise::{Raised, Result};
use crate::python::request::RequestCore;
use crate::python::script::{self, Loaded, Unavailable};

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

/// The callable, by its configured name, or `app` where nobody has configured one.
fn callable(py: Attached, loaded: &Loaded, wanted: &Wanted<'_>) -> Result<Option<Owned>> {
    let text = crate::python::object::latin1(py, wanted.name)?;
    let found = loaded.global(py, &text)?;
    if found.is_some() || !wanted.name_is_default {
        return Ok(found);
    }
    loaded.global(py, &interned(py, "app")?)
}
