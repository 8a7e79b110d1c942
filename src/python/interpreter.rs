//! Application groups: interpreters, and everything that belongs to one.
//!
//! The main interpreter serves the group `""`, or, unless the configuration uses that group, the
//! first group that the process meets: so NumPy and other C extensions work without further
//! configuration. Every other group gets a sub-interpreter, which shares the main one's GIL unless
//! `WSGIPerInterpreterGIL` gives it one of its own. Interpreters are never destroyed before the
//! process ends.

use core::cell::{OnceCell, RefCell};
use std::sync::OnceLock;

use pyo3::ffi;

use super::attach::{self, Attached};
use super::gate::Gate;
use super::object::Owned;
use super::prelude::Prelude;
use super::raise::Result;
use super::running::Running;
use super::runtime::Runtime;
use super::script::Scripts;
use super::{log, order, raise};
use crate::exchange::Level;
use crate::exchange::interpreters::Settings;
use crate::messages;

/// One interpreter. Lives until the process ends (it is leaked on purpose), so references to it
/// are `'static`; what it owns is touched only by threads that are attached to it.
pub struct Interpreter {
    raw: *mut ffi::PyInterpreterState,
    slot: usize,
    /// Where requests queue for the interpreter's own GIL, if it has one.
    gate: Option<Gate>,
    group: OnceLock<Box<[u8]>>,
    /// What the critical sections of [`order`] lock.
    #[cfg(Py_GIL_DISABLED)]
    lock: OnceCell<Owned>,
    types: OnceCell<Types>,
    prelude: OnceCell<Prelude>,
    wsgi: OnceCell<crate::wsgi::State>,
    asgi: OnceCell<crate::asgi::State>,
    /// The scripts that have been asked for.
    pub scripts: RefCell<Scripts>,
    /// What is noted of its garbage collector; any thread may use it.
    pub gc: crate::metrics::gc::Watch,
    /// The requests that run in it.
    pub running: Running,
}

// SAFETY: the cells are filled while the interpreter is being made, by one thread, before it is
// published; `scripts` and `running` are touched only while attached to this interpreter, that is, by
// the one thread that holds its GIL, shared or its own, or is in its critical section (`order`), and
// no borrow of them is kept across a detach.
unsafe impl Sync for Interpreter {}
// SAFETY: as above; nothing in it belongs to a thread.
unsafe impl Send for Interpreter {}

/// The heap types of an interpreter that this layer makes.
pub struct Types {
    /// [`log::TextLog`].
    pub text_log: Owned,
}

/// How an interpreter is to be.
pub(super) struct Plan<'a> {
    /// Its index in the tables of thread states.
    pub slot: usize,
    /// The application group that it serves, if that is known.
    pub group: Option<&'a [u8]>,
    /// What is configured.
    pub settings: Settings,
    /// Present if it gets a GIL of its own.
    pub gate: Option<Gate>,
}

impl Interpreter {
    /// Wraps an interpreter that was just made and to which the calling thread is attached; gives
    /// it types, prelude and the state of the WSGI server.
    ///
    /// # Safety
    /// `raw` is the interpreter of the attached state; the plan's slot is its own.
    pub(super) unsafe fn build(
        raw: *mut ffi::PyInterpreterState,
        plan: Plan<'_>,
        runtime: &Runtime,
    ) -> Result<&'static Interpreter> {
        let interpreter: &'static Interpreter = Box::leak(Box::new(Interpreter {
            raw,
            slot: plan.slot,
            gate: plan.gate,
            group: OnceLock::new(),
            #[cfg(Py_GIL_DISABLED)]
            lock: OnceCell::new(),
            types: OnceCell::new(),
            prelude: OnceCell::new(),
            wsgi: OnceCell::new(),
            asgi: OnceCell::new(),
            scripts: RefCell::default(),
            gc: crate::metrics::gc::Watch::default(),
            running: Running::default(),
        }));
        // SAFETY: attached, by contract.
        let py = unsafe { Attached::assume(interpreter) };
        #[cfg(Py_GIL_DISABLED)]
        // SAFETY: attached; any object will do.
        let _ = interpreter
            .lock
            .set(unsafe { Owned::from_new(ffi::PyList_New(0))? });
        let types = Types {
            text_log: log::make_type(py)?,
        };
        let _ = interpreter.types.set(types);
        let _ = interpreter.prelude.set(Prelude::load(py)?);
        interpreter.prelude().install(py, runtime)?;
        if let Some(group) = plan.group {
            interpreter.claim(py, group);
        }
        interpreter.configure(py, runtime, &plan.settings)?;
        let _ = interpreter
            .wsgi
            .set(crate::wsgi::State::build(py, runtime)?);
        if runtime.options.metrics.service.is_some() {
            crate::metrics::gc::watch(py)?;
        }
        Ok(interpreter)
    }

    /// What the critical sections of [`order`] lock.
    #[cfg(Py_GIL_DISABLED)]
    pub(super) fn lock(&self) -> &Owned {
        self.lock.get().expect("set by build")
    }

    /// The C API's pointer.
    pub fn raw(&self) -> *mut ffi::PyInterpreterState {
        self.raw
    }

    /// Index in the tables of thread states; 0 is the main interpreter.
    pub fn slot(&self) -> usize {
        self.slot
    }

    /// The types.
    pub fn types(&self) -> &Types {
        self.types.get().expect("set by build")
    }

    /// The prelude.
    pub fn prelude(&self) -> &Prelude {
        self.prelude.get().expect("set by build")
    }

    /// What the WSGI server keeps per interpreter.
    #[inline]
    pub fn wsgi(&self) -> &crate::wsgi::State {
        self.wsgi.get().expect("set by build")
    }

    /// What the ASGI server keeps per interpreter; made by its event loop's thread, before any
    /// object of that server exists.
    ///
    /// # Panics
    /// Before [`build_asgi`](Self::build_asgi).
    #[inline]
    pub fn asgi(&self) -> &crate::asgi::State {
        self.asgi.get().expect("made by the event loop")
    }

    /// The same, if there is one.
    pub fn asgi_if_built(&self) -> Option<&crate::asgi::State> {
        self.asgi.get()
    }

    /// Makes it. Called by the thread of the interpreter's one event loop.
    ///
    /// # Errors
    /// What importing asyncio raises.
    pub fn build_asgi(&self, py: Attached) -> Result<&crate::asgi::State> {
        if self.asgi.get().is_none() {
            let state = crate::asgi::State::build(py)?;
            let _ = self.asgi.set(state);
        }
        Ok(self.asgi())
    }

    /// Gives the interpreter to an application group, once.
    fn claim(&self, py: Attached, group: &[u8]) {
        if self.group.set(group.into()).is_ok()
            && let Err(raised) = self.prelude().set_application_group(py, group)
        {
            raised.clear(py);
        }
    }

    /// [`claim`](Self::claim) for the main interpreter, which was made before it was known whose it
    /// would be.
    pub(super) fn claim_main(&self, py: Attached, runtime: &Runtime, group: &[u8]) {
        self.claim(py, group);
        let settings = runtime.options.interpreter(Some(group));
        if settings != runtime.options.interpreter(None)
            && let Err(raised) = self.configure(py, runtime, &settings)
        {
            raised.clear(py);
        }
    }

    /// Applies what is configured for the interpreter.
    fn configure(&self, py: Attached, runtime: &Runtime, settings: &Settings) -> Result<()> {
        let mut settings = settings.clone();
        if let Some(seconds) = settings.switch_interval {
            let refused = if runtime.options.is_free_threaded() {
                Some((
                    messages::SWITCH_INTERVAL_WITHOUT_GIL,
                    "this process runs without the global lock (WSGIFreeThreading)",
                ))
            } else if settings.switch_interval_is_scoped
                && !self.has_own_gil()
                && !self.group().is_empty()
            {
                Some((
                    messages::SWITCH_INTERVAL_SHARED,
                    "its interpreter shares the global lock with others, for which it would change \
                     as well; give it one of its own (WSGIPerInterpreterGIL On)",
                ))
            } else {
                None
            };
            if let Some((code, why)) = refused {
                let line = format!(
                    "{code}the switch interval of {seconds} s has no effect for application group \
                     '{}': {why}",
                    String::from_utf8_lossy(self.group())
                );
                py.detached(|_| super::runtime::log(Level::Warning, &line));
                settings.switch_interval = None;
            }
        }
        self.prelude().configure(py, &settings)
    }

    /// Whether it has a GIL of its own.
    pub fn has_own_gil(&self) -> bool {
        self.gate.is_some()
    }

    /// Where requests queue for its GIL.
    #[inline]
    pub fn gate<'r>(&'r self, runtime: &'r Runtime) -> &'r Gate {
        self.gate.as_ref().unwrap_or(&runtime.gate)
    }

    /// Whether it serves `group`.
    #[inline]
    pub(super) fn serves(&self, group: &[u8]) -> bool {
        self.group.get().is_some_and(|own| **own == *group)
    }

    /// Whether a group has been given to it.
    pub(super) fn is_claimed(&self) -> bool {
        self.group.get().is_some()
    }

    /// The application group that it serves; empty until one has been given to it.
    pub fn group(&self) -> &[u8] {
        self.group.get().map_or(&b""[..], |group| group)
    }

    /// For messages: `main interpreter` or `sub-interpreter 'X'`, with the group.
    pub fn description(&self) -> Vec<u8> {
        let process = super::runtime::runtime().and_then(|r| r.options.process_group.as_deref());
        let mode = process.map_or_else(
            || b"embedded mode".to_vec(),
            |name| [b"process group '", name, b"'"].concat(),
        );
        match (self.slot, self.group()) {
            (0, b"") => [b"main interpreter, ", &mode[..]].concat(),
            (0, group) => [b"main interpreter, group '", group, b"', ", &mode].concat(),
            (_, group) => [b"sub-interpreter '", group, b"', ", &mode].concat(),
        }
    }
}

/// Makes a sub-interpreter. The calling thread is not attached.
///
/// # Errors
/// A text that says why not.
pub(super) fn create_sub_interpreter(
    runtime: &Runtime,
    main: &'static Interpreter,
    plan: Plan<'_>,
) -> core::result::Result<&'static Interpreter, String> {
    let guard = attach::attach(main);
    let _aside = order::Aside::set();
    // SAFETY: attached to the main interpreter; making another leaves us attached to that one. (One
    // with its own GIL: `PyThreadState_Swap` gives the GIL of the state that it leaves back, and
    // takes that of the state that it attaches.) Its first thread state is used for building it only and then kept for ever: CPython up
    // to 3.11 cannot make a thread state in an interpreter that has lost its last one.
    unsafe {
        let main_state = ffi::PyThreadState_Get();
        let state = match new_interpreter(plan.gate.is_some()) {
            Ok(state) => state,
            Err(error) => {
                ffi::PyThreadState_Swap(main_state);
                return Err(error);
            }
        };
        let built = Interpreter::build(ffi::PyInterpreterState_Get(), plan, runtime);
        let result = match built {
            Ok(interpreter) => Ok(interpreter),
            Err(raised) => {
                let text = describe(guard.token(), raised);
                ffi::Py_EndInterpreter(state);
                Err(text)
            }
        };
        ffi::PyThreadState_Swap(main_state);
        result
    }
}

/// Makes an interpreter in the C API, with a GIL of its own or with the main one's.
///
/// # Safety
/// Attached; afterwards to the new interpreter's first state, or, after an error, to none or to the
/// same as before.
unsafe fn new_interpreter(own_gil: bool) -> core::result::Result<*mut ffi::PyThreadState, String> {
    #[cfg(Py_3_12)]
    if own_gil {
        let mut state = core::ptr::null_mut();
        // SAFETY: as above; a constant that CPython copies.
        unsafe {
            let config = ffi::_PyInterpreterConfig_INIT;
            let status = ffi::Py_NewInterpreterFromConfig(&mut state, &config);
            return super::configuration::check(status).map(|()| state);
        }
    }
    let _ = own_gil;
    // SAFETY: as above.
    let state = unsafe { ffi::Py_NewInterpreter() };
    if state.is_null() {
        return Err("Py_NewInterpreter failed".to_owned());
    }
    Ok(state)
}

/// The text of an exception when there is no prelude yet to format it.
pub(super) fn describe(py: Attached, raised: raise::Raised) -> String {
    let exception = raised.take(py);
    // SAFETY: a live object; the text is copied.
    unsafe {
        let class = super::object::type_name(exception.as_ptr());
        let text = Owned::from_new(ffi::PyObject_Str(exception.as_ptr())).ok();
        let mut length = 0;
        let data = text.as_ref().map_or(core::ptr::null(), |text| {
            ffi::PyUnicode_AsUTF8AndSize(text.as_ptr(), &mut length)
        });
        if data.is_null() {
            ffi::PyErr_Clear();
            return class;
        }
        let text = core::slice::from_raw_parts(data.cast::<u8>(), length as usize);
        format!("{class}: {}", String::from_utf8_lossy(text))
    }
}
