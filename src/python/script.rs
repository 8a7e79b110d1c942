//! Script files: loaded once per interpreter, loaded anew when they change.
//!
//! A changed file that does not load leaves the old code serving (`WSGIReloadFailure Keep`), is
//! reported once per change, and tried again at most once a second, since the cause may lie in a
//! module that it imports.

use core::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::rc::Rc;
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use pyo3::ffi;

use super::attach::Attached;
use super::exceptions;
use super::object::{self, Owned, interned};
use super::order;
use super::raise::{Raised, Result};
use super::request::RequestCore;
use super::runtime;
use super::services::{Changed, Replacement};
use crate::exchange::script_file::modification_time;
use crate::exchange::{Level, Target};
use crate::messages::{self, Code};

/// How long a broken file is left alone before it is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// A script file in one interpreter. Touched only while attached to it.
pub struct Script {
    path: Box<[u8]>,
    /// Held by the thread that loads. Never waited for while attached.
    loading: Mutex<()>,
    loaded: RefCell<Option<Rc<Loaded>>>,
    failure: Cell<Option<Failure>>,
    /// What the WSGI server keeps per script.
    pub wsgi: crate::wsgi::ScriptState,
}

/// The scripts of an interpreter.
#[derive(Default)]
pub struct Scripts {
    by_path: HashMap<Box<[u8]>, Rc<Script>>,
    last: Option<Rc<Script>>,
}

/// The module that a version of the file gave.
pub struct Loaded {
    module: Owned,
    mtime_us: i64,
    /// The int that `__mtime__` was set to: usually still the same object.
    mtime: Owned,
    /// Loaded without a request: the first one is not asked whether it wants the script anew, as if
    /// it had loaded it.
    fresh: Cell<bool>,
}

#[derive(Clone, Copy)]
struct Failure {
    mtime_us: i64,
    at: Instant,
    traceback: u64,
}

/// Why a script cannot be had.
pub enum Unavailable {
    /// It does not load; why has been logged.
    Failed,
    /// It has changed, and the request shall wait for a process that loads it.
    Stale,
    /// Loading it took too long, and `RequestTimeout` was raised; that has been logged.
    Interrupted,
}

/// Names that are looked up in every module.
pub struct Names {
    mtime: Owned,
    reload_required: Owned,
}

impl Names {
    /// Once per interpreter.
    pub fn new(py: Attached) -> Result<Names> {
        Ok(Names {
            mtime: interned(py, "__mtime__")?,
            reload_required: interned(py, "reload_required")?,
        })
    }
}

impl Loaded {
    /// A global of the module, by name.
    pub fn global(&self, py: Attached, name: &Owned) -> Result<Option<Owned>> {
        // SAFETY: a live module has a dict.
        unsafe {
            let globals = ffi::PyModule_GetDict(self.module.as_ptr());
            object::dict_item(py, globals, name.as_ptr())
        }
    }

    /// Whether `__mtime__` is still what it was set to; applications force a reload by removing it.
    fn has_its_mtime(&self, py: Attached, names: &Names) -> bool {
        match self.global(py, &names.mtime) {
            Ok(Some(mtime)) if mtime.as_ptr() == self.mtime.as_ptr() => true,
            Ok(Some(mtime)) => {
                // SAFETY: a live object; an error only means "no int".
                let value = unsafe { ffi::PyLong_AsLongLong(mtime.as_ptr()) };
                if super::raise::is_raised(py) {
                    Raised.clear(py);
                    return false;
                }
                value == self.mtime_us
            }
            Ok(None) => false,
            Err(raised) => {
                raised.clear(py);
                false
            }
        }
    }
}

/// The script at `path` in the attached interpreter, not necessarily loaded.
#[inline]
pub fn script(py: Attached, path: &[u8]) -> Rc<Script> {
    let mut scripts = py.interpreter().scripts.borrow_mut();
    // Most interpreters have one script: no need to hash its path at every request.
    if let Some(last) = &scripts.last
        && *last.path == *path
    {
        return Rc::clone(last);
    }
    if let Some(script) = scripts.by_path.get(path) {
        let script = Rc::clone(script);
        scripts.last = Some(Rc::clone(&script));
        return script;
    }
    let script = Rc::new(Script {
        path: path.into(),
        loading: Mutex::new(()),
        loaded: RefCell::new(None),
        failure: Cell::new(None),
        wsgi: crate::wsgi::ScriptState::default(),
    });
    scripts.by_path.insert(path.into(), Rc::clone(&script));
    script
}

impl Script {
    /// The module to answer a request with, loaded or loaded anew where that is due.
    ///
    /// # Errors
    /// The script does not load and there is no old code, or it may not be used; or it has changed
    /// in a process that loads nothing twice.
    #[inline]
    pub fn module(
        &self,
        py: Attached,
        names: &Names,
        core: &RequestCore,
        target: &Target<'_>,
    ) -> core::result::Result<Rc<Loaded>, Unavailable> {
        let loaded = self.loaded.borrow().clone();
        match loaded {
            Some(loaded) if !self.is_stale(py, names, core, target, &loaded) => Ok(loaded),
            Some(loaded) => match runtime::runtime().and_then(|runtime| runtime.replacement()) {
                Some(replacement) => self.replace(py, core, target, loaded, replacement),
                None => self.reload(py, core, target, loaded),
            },
            None => self.load_first(py, core, target),
        }
    }

    #[inline]
    fn is_stale(
        &self,
        py: Attached,
        names: &Names,
        core: &RequestCore,
        target: &Target<'_>,
        loaded: &Loaded,
    ) -> bool {
        if !target.reloading {
            return false;
        }
        loaded.mtime_us != target.mtime_us
            || !loaded.has_its_mtime(py, names)
            || (!loaded.fresh.replace(false)
                && self.reload_required(py, names, core, target, loaded))
    }

    /// Asks the module's own `reload_required(resource)`, if it has one.
    fn reload_required(
        &self,
        py: Attached,
        names: &Names,
        core: &RequestCore,
        target: &Target<'_>,
        loaded: &Loaded,
    ) -> bool {
        let Ok(Some(function)) = loaded.global(py, &names.reload_required) else {
            return false;
        };
        // Scripts that are only consulted name no resource.
        if target.resource.bytes().is_empty() {
            return false;
        }
        let answer = || -> Result<bool> {
            let resource = super::object::file_system_text(py, target.resource.bytes())?;
            // SAFETY: live objects of the attached interpreter.
            unsafe {
                let answer = order::outside(py, || {
                    Owned::from_new(ffi::PyObject_CallFunctionObjArgs(
                        function.as_ptr(),
                        resource.as_ptr(),
                        core::ptr::null_mut::<ffi::PyObject>(),
                    ))
                })?;
                match ffi::PyObject_IsTrue(answer.as_ptr()) {
                    -1 => Err(Raised),
                    truth => Ok(truth == 1),
                }
            }
        };
        answer().unwrap_or_else(|raised| {
            self.report(
                py,
                core,
                messages::RELOAD_REQUIRED_FAILED,
                "reload_required raised, the script is not reloaded",
                &raised.take(py),
            );
            false
        })
    }

    #[cold]
    fn load_first(
        &self,
        py: Attached,
        core: &RequestCore,
        target: &Target<'_>,
    ) -> core::result::Result<Rc<Loaded>, Unavailable> {
        let _loading = self.wait_for_turn(py);
        if let Some(loaded) = self.loaded.borrow().clone() {
            return Ok(loaded);
        }
        self.load(py, target.mtime_us).map_err(|raised| {
            let exception = raised.take(py);
            let what = "the script could not be loaded";
            self.report(py, core, messages::SCRIPT_FAILED, what, &exception);
            if exceptions::is_request_timeout(py, &exception) {
                Unavailable::Interrupted
            } else {
                Unavailable::Failed
            }
        })
    }

    /// The module that the last version that loaded gave.
    pub fn current(&self) -> Option<Rc<Loaded>> {
        self.loaded.borrow().clone()
    }

    /// Loads the script where there is no request: at the start of a process. Does nothing if it is
    /// loaded.
    ///
    /// # Errors
    /// The exception; nothing has been logged.
    pub fn preload(&self, py: Attached, mtime_us: i64) -> Result<()> {
        let _loading = self.wait_for_turn(py);
        if self.loaded.borrow().is_some() {
            return Ok(());
        }
        self.load(py, mtime_us)?.fresh.set(true);
        Ok(())
    }

    /// The script has changed, and this process shall not load it again.
    #[cold]
    fn replace(
        &self,
        py: Attached,
        core: &RequestCore,
        target: &Target<'_>,
        old: Rc<Loaded>,
        replacement: &dyn Replacement,
    ) -> core::result::Result<Rc<Loaded>, Unavailable> {
        let group = py.interpreter().group();
        let keep = target.keep_on_failure;
        let current = old.mtime_us;
        if keep && target.mtime_us == 0 {
            self.report_missing(py, core);
            return Ok(old);
        }
        let changed = py.detached(|_| {
            // The server may have looked at the file before it changed, and this process been
            // started after: what counts is what the file is now.
            let mtime_us = modification_time(&self.path).unwrap_or(target.mtime_us);
            if target.mtime_us != current && mtime_us == current {
                return Changed::UseOld;
            }
            replacement.changed(group, &self.path, mtime_us, keep)
        });
        match changed {
            Changed::UseOld => Ok(old),
            Changed::Wait => Err(Unavailable::Stale),
            Changed::Fail => {
                let line = format!(
                    "{}script '{}' has changed and cannot be loaded; see the traceback of the \
                     process that tried",
                    messages::SCRIPT_FAILED,
                    String::from_utf8_lossy(&self.path)
                );
                py.detached(|_| core.log(Level::Error, line.as_bytes()));
                Err(Unavailable::Failed)
            }
        }
    }

    /// The file is not there, at least not now: no other process would find it either. Logged once
    /// by each process.
    fn report_missing(&self, py: Attached, core: &RequestCore) {
        let failure = Failure {
            mtime_us: 0,
            at: Instant::now(),
            traceback: 0,
        };
        let known = self.failure.replace(Some(failure));
        if known.is_some_and(|known| known.mtime_us == 0) {
            return;
        }
        let line = format!(
            "{}script '{}' is not there any more, or cannot be read; the old code goes on serving",
            messages::RELOAD_FAILED,
            String::from_utf8_lossy(&self.path)
        );
        py.detached(|_| core.log(Level::Error, line.as_bytes()));
    }

    #[cold]
    fn reload(
        &self,
        py: Attached,
        core: &RequestCore,
        target: &Target<'_>,
        old: Rc<Loaded>,
    ) -> core::result::Result<Rc<Loaded>, Unavailable> {
        let keep = target.keep_on_failure;
        let unchanged = |failure: &Failure| failure.mtime_us == target.mtime_us;
        let failure = self.failure.get();
        if keep && failure.is_some_and(|f| unchanged(&f) && f.at.elapsed() < RETRY) {
            return Ok(old);
        }
        // The request that notices the change waits for the new code, the others go on with the
        // old; without an old version that may be used, all wait.
        let _loading = if keep {
            match self.loading.try_lock() {
                Ok(guard) => guard,
                Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
                Err(TryLockError::WouldBlock) => return Ok(old),
            }
        } else {
            self.wait_for_turn(py)
        };
        if let Some(newer) = self.loaded.borrow().clone()
            && !Rc::ptr_eq(&newer, &old)
            && newer.mtime_us == target.mtime_us
        {
            return Ok(newer);
        }
        let raised = match self.load(py, target.mtime_us) {
            Ok(loaded) => return Ok(loaded),
            Err(raised) => raised,
        };
        let exception = raised.take(py);
        if !keep {
            self.report(
                py,
                core,
                messages::SCRIPT_FAILED,
                "the changed script could not be loaded",
                &exception,
            );
            return Err(Unavailable::Failed);
        }
        let traceback = self.digest(py, &exception);
        let reported = failure.is_some_and(|f| unchanged(&f) && f.traceback == traceback);
        self.failure.set(Some(Failure {
            mtime_us: target.mtime_us,
            at: Instant::now(),
            traceback,
        }));
        if !reported {
            self.report(
                py,
                core,
                messages::RELOAD_FAILED,
                "the changed script could not be loaded, the old code goes on serving",
                &exception,
            );
        }
        Ok(old)
    }

    fn report(&self, py: Attached, core: &RequestCore, code: Code, what: &str, why: &Owned) {
        exceptions::log_for_request(py, core, code, what, &self.path, why);
    }

    /// Waits, detached, until no other thread loads this script.
    fn wait_for_turn(&self, py: Attached) -> MutexGuard<'_, ()> {
        py.detached(|_| self.loading.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn load(&self, py: Attached, mtime_us: i64) -> Result<Rc<Loaded>> {
        let line = format!(
            "{} WSGI script '{}' into {}",
            if self.loaded.borrow().is_some() {
                "Reloading"
            } else {
                "Loading"
            },
            String::from_utf8_lossy(&self.path),
            String::from_utf8_lossy(&py.interpreter().description())
        );
        py.detached(|_| runtime::log(Level::Info, &line));
        let prelude = py.interpreter().prelude();
        let mtime = super::object::int(py, mtime_us)?;
        let module = prelude.load_script(py, &self.path, &mtime)?;
        let loaded = Rc::new(Loaded {
            mtime,
            module,
            mtime_us,
            fresh: Cell::new(false),
        });
        let old = self.loaded.replace(Some(Rc::clone(&loaded)));
        self.failure.set(None);
        if old.is_none()
            && let Some(replacement) = runtime::runtime().and_then(|runtime| runtime.replacement())
        {
            let group = py.interpreter().group();
            py.detached(|_| replacement.loaded(group, &self.path));
        }
        // Its end may run application code, so not while the cell is borrowed.
        drop(old);
        Ok(loaded)
    }

    fn digest(&self, py: Attached, exception: &Owned) -> u64 {
        let mut hasher = DefaultHasher::new();
        match py.interpreter().prelude().format_exception(py, exception) {
            Ok(lines) => lines.hash(&mut hasher),
            Err(raised) => raised.clear(py),
        }
        hasher.finish()
    }
}
