//! Python's life in this process: started once after the fork, ended once.

use core::ffi::{CStr, c_int};
use std::collections::HashMap;
use std::ffi::CString;
use std::sync::{Condvar, Mutex, PoisonError, RwLock};
use std::time::Duration;

use once_cell::sync::OnceCell;
use pyo3::ffi;

use super::attach;
use super::gate::Gate;
use super::interpreter::{self, Interpreter, Plan};
use crate::exchange::abi::{self, HashSeed, RuntimeOptions};
use crate::exchange::interpreters::{Rule, Settings};
use crate::exchange::{Level, Source};
use crate::messages;
use crate::metrics::recorder::{self, Setup};
use crate::metrics::reporter::{self, Service};

/// The interpreter that the gateway was built for: what Python takes itself for unless the
/// configuration names another home.
const EXECUTABLE: &str = env!("RWSGI_PYTHON_EXECUTABLE");

/// [`RuntimeOptions`], owned.
#[derive(Debug)]
pub struct Options {
    pub program_name: Option<Vec<u8>>,
    pub home: Option<Vec<u8>>,
    pub python_path: Vec<Vec<u8>>,
    pub python_eggs: Option<Vec<u8>>,
    pub warnings: Vec<Vec<u8>>,
    pub optimize: i32,
    pub hash_seed: HashSeed,
    pub hash_seed_value: u32,
    pub dont_write_bytecode: bool,
    pub restrict_stdin: bool,
    pub restrict_stdout: bool,
    pub restrict_signal: bool,
    pub multithread: bool,
    pub multiprocess: bool,
    pub reserve_main: bool,
    pub threads: u32,
    pub processes: u32,
    pub request_permits: u32,
    pub server_version: [u32; 3],
    pub server_description: Vec<u8>,
    pub server_built: Vec<u8>,
    pub mpm_name: Vec<u8>,
    /// The process group that this process belongs to; `None` in embedded mode.
    pub process_group: Option<Vec<u8>>,
    /// First entry of `sys.path`.
    pub working_directory: Option<Vec<u8>>,
    /// `wsgi.run_once`: the process serves a single request.
    pub run_once: bool,
    /// What is measured and reported.
    pub metrics: MetricsOptions,
    /// What concerns interpreters.
    pub interpreters: Interpreters,
}

/// What is measured and reported.
#[derive(Clone, Debug, Default)]
pub struct MetricsOptions {
    /// Where telemetry goes, if anywhere.
    pub service: Option<Service>,
    /// Seconds from which on a request is reported by itself; 0: never.
    pub slow_requests_s: f64,
    /// Whether it is reported with its `User-Agent`.
    pub with_user_agent: bool,
    /// httpd's parent process; 0 if it is not known.
    pub parent_pid: u32,
}

impl MetricsOptions {
    fn setup(&self, options: &Options) -> Setup {
        let microseconds = |seconds: f64| (seconds * 1e6) as u64;
        Setup {
            threads: options.threads,
            daemon: options.process_group.is_some(),
            slow_us: microseconds(self.slow_requests_s),
            with_user_agent: self.with_user_agent,
            interval_us: self
                .service
                .as_ref()
                .map_or(0, |service| microseconds(service.interval_s)),
        }
    }
}

/// What is configured for the interpreters of this process, beside what [`Options`] says for all.
#[derive(Clone, Debug)]
pub struct Interpreters {
    /// In order, see [`interpreters`](crate::exchange::interpreters).
    pub rules: Vec<Rule>,
    /// `sys.setswitchinterval`, seconds, where no rule says otherwise.
    pub switch_interval: Option<f64>,
    /// Run without the global lock, where the build can.
    pub free_threading: bool,
    /// Exit handlers run when the process ends.
    pub destroy: bool,
}

impl Default for Interpreters {
    fn default() -> Self {
        Interpreters {
            rules: Vec::new(),
            switch_interval: None,
            free_threading: false,
            destroy: true,
        }
    }
}

impl Options {
    /// What holds for the interpreter of an application group; `None`: it is not known yet which
    /// group that will be.
    pub fn interpreter(&self, group: Option<&[u8]>) -> Settings {
        let base = Settings {
            per_interpreter_gil: false,
            switch_interval: self.interpreters.switch_interval,
            switch_interval_is_scoped: false,
            restrict_stdin: self.restrict_stdin,
            restrict_stdout: self.restrict_stdout,
            restrict_signal: self.restrict_signal,
            python_path: vec![self.python_path.clone()],
        };
        base.with(&self.interpreters.rules, group)
    }

    /// Whether this process runs without the global lock.
    pub fn is_free_threaded(&self) -> bool {
        cfg!(Py_GIL_DISABLED) && self.interpreters.free_threading
    }

    /// Whether the interpreter of an application group gets a global lock of its own, and so is
    /// never the main one.
    pub fn has_own_gil(&self, group: &[u8]) -> bool {
        cfg!(Py_3_12)
            && !self.is_free_threaded()
            && self.interpreter(Some(group)).per_interpreter_gil
    }
}

impl From<&RuntimeOptions<'_>> for Options {
    fn from(options: &RuntimeOptions<'_>) -> Self {
        let texts = |slice: &crate::exchange::Slice<'_, crate::exchange::Text<'_>>| {
            slice.items().iter().map(|t| t.bytes().to_vec()).collect()
        };
        Options {
            program_name: options.program_name.bytes().map(<[u8]>::to_vec),
            home: options.home.bytes().map(<[u8]>::to_vec),
            python_path: texts(&options.python_path),
            python_eggs: options.python_eggs.bytes().map(<[u8]>::to_vec),
            warnings: texts(&options.warnings),
            optimize: options.optimize,
            hash_seed: options.hash_seed,
            hash_seed_value: options.hash_seed_value,
            dont_write_bytecode: options.dont_write_bytecode,
            restrict_stdin: options.restrict_stdin,
            restrict_stdout: options.restrict_stdout,
            restrict_signal: options.restrict_signal,
            multithread: options.multithread,
            multiprocess: options.multiprocess,
            reserve_main: options.reserve_main,
            threads: options.threads,
            processes: options.processes,
            request_permits: options.request_permits,
            server_version: options.server_version,
            server_description: options.server_description.bytes().to_vec(),
            server_built: options.server_built.bytes().to_vec(),
            mpm_name: options.mpm_name.bytes().to_vec(),
            process_group: None,
            working_directory: None,
            run_once: false,
            metrics: (&options.metrics).into(),
            interpreters: Interpreters {
                rules: rules(options.interpreters.rules.items()),
                switch_interval: None,
                free_threading: options.interpreters.free_threading,
                destroy: options.interpreters.destroy,
            },
        }
    }
}

impl From<&abi::MetricsOptions<'_>> for MetricsOptions {
    fn from(options: &abi::MetricsOptions<'_>) -> Self {
        MetricsOptions {
            service: options.socket.bytes().map(|path| Service {
                path: path.to_vec(),
                interval_s: options.interval_s,
            }),
            slow_requests_s: options.slow_requests_s,
            with_user_agent: options.with_user_agent,
            parent_pid: options.parent_pid,
        }
    }
}

/// The rules from their text forms. Those of the server are well-formed.
fn rules(texts: &[crate::exchange::Text<'_>]) -> Vec<Rule> {
    texts
        .iter()
        .filter_map(|text| Rule::decode(text.bytes()).ok())
        .collect()
}

/// Takes a line of the log.
pub type Log = dyn Fn(Level, &[u8]) + Send + Sync;

/// Takes a line of the log that says where it was made.
pub type LogFrom = dyn Fn(Level, Source<'_>, &[u8]) + Send + Sync;

/// What becomes of a request whose script has changed, in a process that loads no script twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changed {
    /// It waits for another process: `serve` gives
    /// [`STALE`](crate::exchange::abi::outcome::STALE).
    Wait,
    /// The old code answers it.
    UseOld,
    /// It fails: the new code does not load, and the old must not be used.
    Fail,
}

/// Takes care of changed scripts by replacing the process. Both may be called from any thread that
/// is not attached.
pub trait Replacement: Send + Sync {
    /// A script has been loaded for the first time.
    fn loaded(&self, application_group: &[u8], path: &[u8]);
    /// A request has found that a script has changed; `keep` says that the old code may go on.
    fn changed(&self, application_group: &[u8], path: &[u8], mtime_us: i64, keep: bool) -> Changed;
}

/// What the process around Python offers. All may be called from any thread.
pub struct Services {
    /// Takes lines that belong to no request.
    pub log: Box<Log>,
    /// Takes such lines that say where they were made.
    pub log_from: Box<LogFrom>,
    /// Says whether lines of a level are logged outside of requests.
    pub logs: Box<dyn Fn(Level) -> bool + Send + Sync>,
    /// Says whether the process is about to end.
    pub is_ending: Box<dyn Fn() -> bool + Send + Sync>,
    /// Present where scripts are never loaded a second time.
    pub replacement: Option<Box<dyn Replacement>>,
    /// What httpd tells about its processes, encoded ([`crate::metrics::scoreboard`]), if it does.
    pub scoreboard: Box<Scoreboard>,
}

/// Gives httpd's scoreboard.
pub type Scoreboard = dyn Fn() -> Option<Vec<u8>> + Send + Sync;

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

/// Starts Python in this process; to be called once, by the thread that will call [`stop`], which
/// is not attached afterwards.
///
/// # Errors
/// A text that says what went wrong; it has been logged.
pub fn start(options: Options, services: Services) -> Result<(), String> {
    let runtime = install(options, services)?;
    let signals = SavedSignals::new();
    let result = initialise(runtime);
    // `import signal` alone installs a handler for SIGINT; signals are the server's.
    signals.restore();
    report(&result);
    result
}

/// Takes over the interpreter that has called us; to be called once, by the thread that runs it and
/// that will call [`stop`], attached to the main interpreter. It is not attached afterwards, and must
/// attach again before it returns to Python.
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
    configure(&runtime.options)?;
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

fn configure(options: &Options) -> Result<(), String> {
    // SAFETY: the configuration is initialised by CPython before use, freed on every path, and all
    // strings are C strings that CPython copies.
    unsafe {
        let mut config: ffi::PyConfig = core::mem::zeroed();
        ffi::PyConfig_InitPythonConfig(&mut config);
        let result =
            fill(&mut config, options).and_then(|()| check(ffi::Py_InitializeFromConfig(&config)));
        ffi::PyConfig_Clear(&mut config);
        result
    }
}

pub(super) fn check(status: ffi::PyStatus) -> Result<(), String> {
    // SAFETY: a status by value; its texts are static C strings or null.
    unsafe {
        if ffi::PyStatus_Exception(status) == 0 {
            return Ok(());
        }
        if status.err_msg.is_null() {
            return Err(format!("exit status {}", status.exitcode));
        }
        Err(CStr::from_ptr(status.err_msg)
            .to_string_lossy()
            .into_owned())
    }
}

fn fill(config: &mut ffi::PyConfig, options: &Options) -> Result<(), String> {
    config.parse_argv = 0;
    config.install_signal_handlers = 0;
    config.pathconfig_warnings = 0;
    #[cfg(Py_GIL_DISABLED)]
    {
        config.enable_gil = c_int::from(!options.is_free_threaded());
    }
    if options.optimize >= 0 {
        config.optimization_level = options.optimize as c_int;
    }
    if options.dont_write_bytecode {
        config.write_bytecode = 0;
    }
    match options.hash_seed {
        HashSeed::Unset => {}
        HashSeed::Random => config.use_hash_seed = 0,
        HashSeed::Fixed => {
            config.use_hash_seed = 1;
            config.hash_seed = options.hash_seed_value.into();
        }
    }
    let c_string = |text: &[u8]| CString::new(text).map_err(|_| "a NUL in a path".to_owned());
    let executable = match &options.program_name {
        Some(program) => c_string(program)?,
        None => c_string(EXECUTABLE.as_bytes())?,
    };
    let target = &raw mut *config;
    // SAFETY: the configuration is initialised; its fields take decoded copies.
    unsafe {
        check(ffi::PyConfig_SetBytesString(
            target,
            &raw mut (*target).program_name,
            executable.as_ptr(),
        ))?;
        if let Some(home) = &options.home {
            let home = c_string(home)?;
            check(ffi::PyConfig_SetBytesString(
                target,
                &raw mut (*target).home,
                home.as_ptr(),
            ))?;
        }
        for warning in &options.warnings {
            let warning = c_string(warning)?;
            let wide = ffi::Py_DecodeLocale(warning.as_ptr(), core::ptr::null_mut());
            if wide.is_null() {
                return Err("WSGIPythonWarnings cannot be decoded".to_owned());
            }
            let status = ffi::PyWideStringList_Append(&raw mut (*target).warnoptions, wide);
            ffi::PyMem_RawFree(wide.cast());
            check(status)?;
        }
    }
    Ok(())
}

/// The dispositions of all signals, to be put back after Python has imported `signal`.
struct SavedSignals(Vec<(c_int, libc::sigaction)>);

impl SavedSignals {
    fn new() -> Self {
        let mut saved = Vec::new();
        for signal in 1..32 {
            // SAFETY: plain data, filled by the call.
            unsafe {
                let mut action: libc::sigaction = core::mem::zeroed();
                if libc::sigaction(signal, core::ptr::null(), &mut action) == 0 {
                    saved.push((signal, action));
                }
            }
        }
        SavedSignals(saved)
    }

    fn restore(&self) {
        for (signal, action) in &self.0 {
            // SAFETY: an action that was in force before.
            unsafe { libc::sigaction(*signal, action, core::ptr::null_mut()) };
        }
    }
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

/// Has `announce` tell applications that the process stops, detached, then runs exit handlers in every
/// interpreter, the main one last, unless `WSGIDestroyInterpreter Off` says not to, and keeps every
/// GIL for ever.
///
/// The interpreters are not finalised: a native thread that comes back from a blocking call into
/// a finalised interpreter aborts the process (up to 3.13), and a process that ends gives its
/// memory back anyway. Since the GIL stays taken, no Python thread runs while the process unwinds.
/// (Without a global lock, threads that an application has left behind run on until the process is
/// gone.)
///
/// Called by the thread that called [`start`]. If that thread is inside a request (prefork ends its
/// children from a signal handler), nothing is done.
pub fn stop(deadline: Duration, announce: impl FnOnce()) {
    let Some(runtime) = RUNTIME.get() else {
        return;
    };
    if runtime.main.get().is_none() || attach::thread_is_inside() {
        return;
    }
    let watchdog = Watchdog::arm(deadline);
    announce();
    for interpreter in runtime.interpreters() {
        let guard = attach::attach(interpreter);
        if runtime.options.interpreters.destroy {
            interpreter.prelude().shut_down(guard.token());
        }
        if interpreter.slot() == 0 {
            attach::stop();
            guard.keep();
        } else if interpreter.has_own_gil() {
            drop(guard);
            keep_gil(interpreter);
        }
    }
    watchdog.disarm();
}

/// Has a thread take the interpreter's own GIL and keep it until the process is gone.
fn keep_gil(interpreter: &'static Interpreter) {
    let (taken, is_taken) = std::sync::mpsc::channel();
    let keep = move || {
        attach::attach(interpreter).keep();
        let _ = taken.send(());
        loop {
            std::thread::park();
        }
    };
    let keeper = std::thread::Builder::new().name("rwsgi-end".to_owned());
    // Without it (no memory for a thread) threads that the application has left behind run on.
    if keeper.spawn(keep).is_ok() {
        let _ = is_taken.recv();
    }
}

/// Ends the process when Python does not end in time.
struct Watchdog(&'static (Mutex<bool>, Condvar));

impl Watchdog {
    fn arm(deadline: Duration) -> Watchdog {
        let state: &'static (Mutex<bool>, Condvar) = Box::leak(Box::default());
        let watch = move || {
            let disarmed = state.0.lock().unwrap_or_else(PoisonError::into_inner);
            let (disarmed, _) = state
                .1
                .wait_timeout_while(disarmed, deadline, |disarmed| !*disarmed)
                .unwrap_or_else(PoisonError::into_inner);
            if !*disarmed {
                log(
                    Level::Warning,
                    &format!(
                        "{}Python did not end within {} s; the process ends without its exit \
                         handlers",
                        messages::STOP_TIMED_OUT,
                        deadline.as_secs()
                    ),
                );
                // SAFETY: ends the process at once; nothing is left to be unwound.
                unsafe { libc::_exit(0) };
            }
        };
        // Without a watchdog (no memory for a thread) the end may take longer, no more.
        let _ = std::thread::Builder::new()
            .name("rwsgi-watchdog".to_owned())
            .spawn(watch);
        Watchdog(state)
    }

    fn disarm(self) {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.0.1.notify_all();
    }
}
