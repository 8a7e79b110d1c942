//! Application groups: interpreters, and everything that belongs to one.
//!
//! The main interpreter serves the group `""`, or, unless the configuration uses that group, the
//! first group that the process meets: so NumPy and other C extensions work without further
//! configuration. Every other group gets a sub-interpreter with the shared GIL. Interpreters are
//! never destroyed before the process ends.

use core::cell::{OnceCell, RefCell};
use std::sync::OnceLock;

use pyo3::ffi;

use super::attach::{self, Attached};
use super::object::Owned;
use super::prelude::Prelude;
use super::raise::Result;
use super::runtime::Runtime;
use super::script::Scripts;
use super::{log, raise};

/// One interpreter. Lives until the process ends (it is leaked on purpose), so references to it
/// are `'static`; what it owns is touched only by threads that are attached to it.
pub struct Interpreter {
    raw: *mut ffi::PyInterpreterState,
    slot: usize,
    group: OnceLock<Box<[u8]>>,
    types: OnceCell<Types>,
    prelude: OnceCell<Prelude>,
    wsgi: OnceCell<crate::wsgi::State>,
    /// The scripts that have been asked for.
    pub scripts: RefCell<Scripts>,
    /// What is noted of its garbage collector; any thread may use it.
    pub gc: crate::metrics::gc::Watch,
}

// SAFETY: the cells are filled while the interpreter is being made, by one thread, before it is
// published; `scripts` is touched only while attached, that is, by one thread at a time, and no
// borrow of it is kept across a detach.
unsafe impl Sync for Interpreter {}
// SAFETY: as above; nothing in it belongs to a thread.
unsafe impl Send for Interpreter {}

/// The heap types of an interpreter that this layer makes.
pub struct Types {
    /// [`log::TextLog`].
    pub text_log: Owned,
}

impl Interpreter {
    /// Wraps an interpreter that was just made and to which the calling thread is attached; gives
    /// it types, prelude and the state of the WSGI server.
    ///
    /// # Safety
    /// `raw` is the interpreter of the attached state; `slot` is its own.
    pub(super) unsafe fn build(
        raw: *mut ffi::PyInterpreterState,
        slot: usize,
        runtime: &Runtime,
    ) -> Result<&'static Interpreter> {
        let interpreter: &'static Interpreter = Box::leak(Box::new(Interpreter {
            raw,
            slot,
            group: OnceLock::new(),
            types: OnceCell::new(),
            prelude: OnceCell::new(),
            wsgi: OnceCell::new(),
            scripts: RefCell::default(),
            gc: crate::metrics::gc::Watch::default(),
        }));
        // SAFETY: attached, by contract.
        let py = unsafe { Attached::assume(interpreter) };
        let types = Types {
            text_log: log::make_type(py)?,
        };
        let _ = interpreter.types.set(types);
        let _ = interpreter.prelude.set(Prelude::load(py)?);
        interpreter.prelude().install(py, runtime)?;
        let _ = interpreter
            .wsgi
            .set(crate::wsgi::State::build(py, runtime)?);
        if runtime.options.metrics.service.is_some() {
            crate::metrics::gc::watch(py)?;
        }
        Ok(interpreter)
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

    /// Gives the interpreter to an application group, once.
    pub(super) fn claim(&self, py: Attached, group: &[u8]) {
        if self.group.set(group.into()).is_ok()
            && let Err(raised) = self.prelude().set_application_group(py, group)
        {
            raised.clear(py);
        }
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

/// Makes a sub-interpreter with the shared GIL. The calling thread is not attached.
///
/// # Errors
/// A text that says why not.
pub(super) fn create_sub_interpreter(
    runtime: &Runtime,
    main: &'static Interpreter,
    slot: usize,
    group: &[u8],
) -> core::result::Result<&'static Interpreter, String> {
    let guard = attach::attach(main);
    // SAFETY: attached to the main interpreter; Py_NewInterpreter leaves us attached to the new
    // one. Its first thread state is used for building it only and then kept for ever: CPython up
    // to 3.11 cannot make a thread state in an interpreter that has lost its last one.
    unsafe {
        let main_state = ffi::PyThreadState_Get();
        let state = ffi::Py_NewInterpreter();
        if state.is_null() {
            ffi::PyThreadState_Swap(main_state);
            return Err("Py_NewInterpreter failed".to_owned());
        }
        let built = Interpreter::build(ffi::PyInterpreterState_Get(), slot, runtime);
        let result = match built {
            Ok(interpreter) => {
                interpreter.claim(Attached::assume(interpreter), group);
                Ok(interpreter)
            }
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
