//! Python's life in this process: started once after the fork, ended once.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError, RwLock};

use once_cell::sync::OnceCell;
use pyo3::ffi;

use super::gate::Gate;
use super::interpreter::{self, Interpreter, Plan};
use super::options::Options;
use super::services::{Replacement, Services};
use super::{attach, configuration};
use crate::exchange::{Level, Source};
use crate::messages;
use crate::metrics::{recorder, reporter};

/// Python in this process.
pub struct Runtime {
    services: Services,
    /// How it was started.
    pub options: Options,
    /// Where new requests queue for the GIL of the main interpreter.
    pub(super) gate: Gate,
    main: OnceCell<&'static Interpreter>,
    groups: RwLock<HashMap<Box<[u8]>, &'static Interpreter>>,
    /// The next free slot; held while an interpreter is being made.
    creating: Mutex<usize>,
}

static RUNTIME: OnceCell<Runtime> = OnceCell::new();

/// The runtime, once [`start`] has been called.
#[inline]
pub fn runtime() -> Option<&'static Runtime> {
    RUNTIME.get()
}

/// The main interpreter.
///
/// # Panics
/// Before [`start`] has succeeded.
pub(super) fn main_interpreter() -> &'static Interpreter {
    RUNTIME
        .get()
        .and_then(|runtime| runtime.main.get())
        .expect("Python has been started")
}

/// Logs a line that belongs to no request.
pub fn log(level: Level, line: &str) {
    log_bytes(level, line.as_bytes());
}

/// Logs a line that belongs to no request. Call it without the GIL where a log may block.
pub fn log_bytes(level: Level, line: &[u8]) {
    if let Some(runtime) = RUNTIME.get() {
        (runtime.services.log)(level, line);
    }
}

/// [`log_bytes`] for a message that says where it was made.
pub(super) fn log_from(level: Level, source: Source<'_>, line: &[u8]) {
    if let Some(runtime) = RUNTIME.get() {
        (runtime.services.log_from)(level, source, line);
    }
}

/// Whether lines of this level are logged outside of requests.
pub(super) fn logs(level: Level) -> bool {
    RUNTIME
        .get()
        .is_some_and(|runtime| (runtime.services.logs)(level))
}

/// Whether the process is about to end.
pub(super) fn is_ending() -> bool {
    RUNTIME
        .get()
        .is_some_and(|runtime| (runtime.services.is_ending)())
}

/// Starts Python in this process; to be called once, by the thread that will call
/// [`stop`](super::stop::stop), which is not attached afterwards.
///
/// # Errors
/// A text that says what went wrong; it has been logged.
pub fn start(options: Options, services: Services) -> Result<(), String> {
    let runtime = install(options, services)?;
    let signals = configuration::SavedSignals::new();
    let result = initialise(runtime);
    // `import signal` alone installs a handler for SIGINT; signals are the server's.
    signals.restore();
    report(&result);
    result
}

/// Takes over the interpreter that has called us; to be called once, by the thread that runs it and
/// that will call [`stop`](super::stop::stop), attached to the main interpreter. It is not attached
/// afterwards, and must attach again before it returns to Python.
///
/// # Errors
/// A text that says what went wrong; it has been logged.
pub fn adopt(options: Options, services: Services) -> Result<(), String> {
    #[cfg(Py_GIL_DISABLED)]
    let options = {
        let mut options = options;
        // Whoever has started the interpreter has decided.
        options.interpreters.free_threading = !gil_is_enabled();
        options
    };
    let runtime = install(options, services)?;
    let result = set_up(runtime);
    report(&result);
    result
}

fn install(options: Options, services: Services) -> Result<&'static Runtime, String> {
    let gate = new_gate(&options, &services);
    let runtime = Runtime {
        services,
        options,
        gate,
        main: OnceCell::new(),
        groups: RwLock::default(),
        creating: Mutex::new(1),
    };
    if RUNTIME.set(runtime).is_err() {
        return Err("Python has been started before".to_owned());
    }
    Ok(RUNTIME.get().expect("set just now"))
}

/// Whether the running interpreter has its GIL. The calling thread is attached.
#[cfg(Py_GIL_DISABLED)]
fn gil_is_enabled() -> bool {
    // SAFETY: attached; a borrowed function of `sys`, whose result is ours.
    unsafe {
        let function = ffi::PySys_GetObject(c"_is_gil_enabled".as_ptr());
        let result = ffi::PyObject_CallNoArgs(function);
        let enabled = result != ffi::Py_False();
        ffi::Py_XDECREF(result);
        enabled
    }
}

/// A gate for the requests that share a global lock.
fn new_gate(options: &Options, services: &Services) -> Gate {
    let permits = if options.is_free_threaded() {
        0
    } else {
        options.request_permits
    };
    // Only a worker has few threads.
    Gate::new(permits, services.replacement.is_some())
}

fn report(result: &Result<(), String>) {
    if let Err(error) = result {
        self::log(
            Level::Alert,
            &format!(
                "{}Python could not be started: {error}",
                messages::PYTHON_START_FAILED
            ),
        );
    }
}

fn initialise(runtime: &'static Runtime) -> Result<(), String> {
    configuration::initialise(&runtime.options)?;
    set_up(runtime)
}

/// The calling thread is attached to the main interpreter, and not any more afterwards.
fn set_up(runtime: &'static Runtime) -> Result<(), String> {
    // SAFETY: Python has been initialised, and this thread is attached to the main interpreter.
    unsafe {
        attach::adopt_first(ffi::PyThreadState_Get());
        let group = runtime.options.reserve_main.then_some(&b""[..]);
        let plan = Plan {
            slot: 0,
            group,
            settings: runtime.options.interpreter(group),
            gate: None,
        };
        let built = Interpreter::build(ffi::PyInterpreterState_Get(), plan, runtime);
        let result = match built {
            Ok(main) => {
                let _ = runtime.main.set(main);
                recorder::begin(runtime.options.metrics.setup(&runtime.options));
                if runtime.options.reserve_main {
                    runtime.register(b"", main);
                }
                Ok(())
            }
            Err(_) => Err(raised_text()),
        };
        ffi::PyEval_SaveThread();
        result
    }
}

/// The exception that is set, printed by Python itself: there is no prelude to format it.
fn raised_text() -> String {
    // SAFETY: attached, called when an exception is set; prints to the C stderr, the error log.
    unsafe { ffi::PyErr_Print() };
    "the interpreter could not be set up; the traceback is in the error log".to_owned()
}

/// No interpreter can be had for a group; why has been logged.
#[derive(Debug)]
pub struct Unavailable;

impl Runtime {
    /// The interpreter of an application group, made on first use. The calling thread is not
    /// attached.
    ///
    /// # Errors
    /// None could be made; why has been logged.
    #[inline]
    pub fn interpreter(&self, group: &[u8]) -> Result<&'static Interpreter, Unavailable> {
        // Most processes serve one group: no need to lock and hash at every request.
        if let Some(&main) = self.main.get()
            && main.serves(group)
        {
            return Ok(main);
        }
        let groups = self.groups.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(&interpreter) = groups.get(group) {
            return Ok(interpreter);
        }
        drop(groups);
        self.create(group)
    }

    fn register(&self, group: &[u8], interpreter: &'static Interpreter) {
        self.groups
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(group.into(), interpreter);
    }

    #[cold]
    fn create(&self, group: &[u8]) -> Result<&'static Interpreter, Unavailable> {
        // Taken only while not attached, and attached inside: never the other way round.
        let mut next_slot = self.creating.lock().unwrap_or_else(PoisonError::into_inner);
        let known = self
            .groups
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(group)
            .copied();
        if let Some(interpreter) = known {
            return Ok(interpreter);
        }
        let main = *self.main.get().ok_or(Unavailable)?;
        let own_gil = self.options.has_own_gil(group);
        if group.is_empty() || (!main.is_claimed() && !own_gil) {
            let guard = attach::attach(main);
            main.claim_main(guard.token(), self, group);
            self.register(group, main);
            return Ok(main);
        }
        let plan = Plan {
            slot: *next_slot,
            group: Some(group),
            settings: self.options.interpreter(Some(group)),
            gate: own_gil.then(|| new_gate(&self.options, &self.services)),
        };
        if plan.settings.per_interpreter_gil && self.options.is_free_threaded() {
            log(
                Level::Warning,
                &format!(
                    "{}WSGIPerInterpreterGIL has no effect for application group '{}': this \
                     process runs without the global lock (WSGIFreeThreading)",
                    messages::OWN_GIL_SKIPPED,
                    String::from_utf8_lossy(group)
                ),
            );
        }
        match interpreter::create_sub_interpreter(self, main, plan) {
            Ok(interpreter) => {
                *next_slot += 1;
                self.register(group, interpreter);
                log(
                    Level::Info,
                    &format!(
                        "created {}{}",
                        String::from_utf8_lossy(&interpreter.description()),
                        if own_gil { " with own GIL" } else { "" }
                    ),
                );
                Ok(interpreter)
            }
            Err(error) => {
                log(
                    Level::Error,
                    &format!(
                        "{}no interpreter for application group '{}': {error}",
                        messages::INTERPRETER_FAILED,
                        String::from_utf8_lossy(group)
                    ),
                );
                Err(Unavailable)
            }
        }
    }

    /// Whether there is a main interpreter.
    pub(super) fn has_started(&self) -> bool {
        self.main.get().is_some()
    }

    /// What httpd tells about its processes, encoded.
    pub fn scoreboard(&self) -> Option<Vec<u8>> {
        (self.services.scoreboard)()
    }

    /// The process is about to serve: its figures count from now on, and telemetry is sent if that
    /// is configured. Called by a thread that is not attached, also by a process that has been
    /// forked from the one that has called [`adopt`].
    pub fn begin_metrics(&'static self) {
        recorder::begin(self.options.metrics.setup(&self.options));
        reporter::start(self);
    }

    /// Who takes care of changed scripts, where they are not loaded a second time.
    pub fn replacement(&self) -> Option<&dyn Replacement> {
        self.services.replacement.as_deref()
    }

    /// All interpreters that there are, the main one last.
    pub fn interpreters(&self) -> Vec<&'static Interpreter> {
        let groups = self.groups.read().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<_> = groups.values().copied().collect();
        all.extend(self.main.get());
        all.sort_by_key(|interpreter| core::cmp::Reverse(interpreter.slot()));
        all.dedup_by_key(|interpreter| interpreter.slot());
        all
    }
}
