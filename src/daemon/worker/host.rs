//! What Python is told of the process that it runs in: its options, and the services around it.

use core::sync::atomic::Ordering;
use std::sync::OnceLock;

use super::life::{CHANNEL, ENDING, worker};
use super::template;
use crate::daemon::control::Script;
use crate::daemon::group::GroupConfig;
use crate::exchange::abi::HashSeed;
use crate::metrics::page::Page;
use crate::metrics::reporter::Service;
use crate::python::options::{Interpreters, MetricsOptions, Options};
use crate::python::services::{Changed, Replacement, Services};

/// How Python is to be set up. What the command line and the environment of the interpreter say has
/// been said there.
pub fn options(config: &GroupConfig) -> Options {
    let mut server_version = [0; 3];
    for (place, number) in server_version.iter_mut().zip(&config.server_version) {
        *place = *number;
    }
    Options {
        program_name: None,
        home: None,
        python_path: config.python_path.clone(),
        warnings: Vec::new(),
        optimize: -1,
        hash_seed: HashSeed::Unset,
        hash_seed_value: 0,
        dont_write_bytecode: config.dont_write_bytecode,
        restrict_stdin: config.restrict_stdin,
        restrict_stdout: config.restrict_stdout,
        restrict_signal: config.restrict_signal,
        multithread: config.threads != 1,
        multiprocess: config.multiprocess,
        reserve_main: config.reserve_main,
        threads: config.threads,
        processes: config.processes,
        request_permits: config.request_permits,
        server_version,
        server_description: config.server_description.clone(),
        server_built: config.server_built.clone(),
        mpm_name: config.mpm_name.clone(),
        uvloop: config.uvloop,
        concurrency: config.concurrency,
        process_group: Some(config.name.clone()),
        // The supervisor has put it into the environment.
        python_eggs: None,
        working_directory: config.home.clone(),
        run_once: config.threads == 1 && config.maximum_requests == 1,
        metrics: MetricsOptions {
            // A service script serves no requests.
            service: config
                .telemetry_socket
                .as_ref()
                .filter(|_| config.threads > 0)
                .map(|path| Service {
                    path: path.clone(),
                    interval_s: config.telemetry_interval,
                }),
            slow_requests_s: config.slow_requests,
            with_user_agent: config.telemetry_user_agent,
            parent_pid: config.parent_pid,
        },
        interpreters: Interpreters {
            rules: config.interpreter_options.clone(),
            switch_interval: config.switch_interval,
            free_threading: config.free_threading == Some(true),
            destroy: config.destroy_interpreter,
        },
    }
}

/// httpd's scoreboard, as it was when httpd last wrote it down.
fn scoreboard() -> Option<Vec<u8>> {
    static PAGE: OnceLock<Option<Page>> = OnceLock::new();
    let config = &worker()?.config;
    let fd = config.scoreboard_fd.filter(|_| config.server_metrics)?;
    PAGE.get_or_init(|| Page::map(i32::try_from(fd).ok()?).ok())
        .as_ref()?
        .read()
}

/// What the process offers to Python. There may be no worker yet: a template has its channel only.
pub fn services() -> Services {
    Services {
        log: Box::new(|level, line| match CHANNEL.get() {
            Some(channel) => channel.log(level, line),
            None => eprintln!("{}", String::from_utf8_lossy(line)),
        }),
        // The supervisor writes these lines; its format has no place for where they were made.
        log_from: Box::new(|level, _, line| {
            if let Some(channel) = CHANNEL.get() {
                channel.log(level, line);
            }
        }),
        logs: Box::new(|level| CHANNEL.get().is_none_or(|channel| channel.logs(level))),
        is_ending: Box::new(|| ENDING.load(Ordering::Relaxed)),
        replacement: Some(Box::new(Scripts)),
        scoreboard: Box::new(scoreboard),
    }
}

struct Scripts;

impl Scripts {
    fn script(group: &[u8], path: &[u8]) -> Script {
        Script {
            application_group: group.to_vec(),
            path: path.to_vec(),
        }
    }
}

impl Replacement for Scripts {
    fn loaded(&self, group: &[u8], path: &[u8]) {
        let script = Scripts::script(group, path);
        match worker() {
            Some(worker) => worker.tell_loaded(script),
            None => template::note_loaded(script),
        }
    }

    fn changed(&self, group: &[u8], path: &[u8], mtime_us: i64, keep: bool) -> Changed {
        let script = Scripts::script(group, path);
        match worker() {
            Some(worker) => worker.waiting.changed(script, mtime_us, keep),
            None => Changed::UseOld,
        }
    }
}
