//! How Python is to be run in this process.

use crate::exchange::abi::{self, HashSeed, RuntimeOptions};
use crate::exchange::interpreters::{Rule, Settings};
use crate::metrics::recorder::Setup;
use crate::metrics::reporter::Service;

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
    /// ASGI runs in uvloop, where that is installed.
    pub uvloop: bool,
    /// ASGI requests that an event loop has in hand at most; 0: no bound.
    pub concurrency: u32,
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
    pub(super) fn setup(&self, options: &Options) -> Setup {
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
            uvloop: options.uvloop,
            // httpd's threads bound it.
            concurrency: 0,
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
