//! How a worker is made: descriptors, limits, environment, and the fork.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};

use super::machine::{Load, Role};
use super::{bootstrap, environment, sys};
use crate::daemon::board::Board;
use crate::daemon::control::ToWorker;
use crate::daemon::fds;
use crate::daemon::group::GroupConfig;
use crate::messages;

/// The supervisor's side of a process.
pub struct Ends {
    /// Our end of the control channel, non-blocking.
    pub control: OwnedFd,
    /// What the process shows; none of a template.
    pub board: Option<Board>,
}

/// A process that was started.
pub struct Started {
    pub pid: u32,
    pub ends: Ends,
    /// The read end of its stdout and stderr, non-blocking.
    pub output: OwnedFd,
    /// Lines of `env-file` that were skipped.
    pub complaints: Vec<String>,
}

/// Rows of a worker's board.
fn rows(config: &GroupConfig) -> u16 {
    u16::try_from(config.threads).unwrap_or(u16::MAX)
}

fn why(what: &str) -> impl FnOnce(io::Error) -> String {
    move |error| format!("a process could not be started: {what}: {error}")
}

/// Starts a process.
///
/// # Errors
/// A message for the log.
pub fn start(
    config: &GroupConfig,
    role: Role,
    load: Load,
    listener: Option<RawFd>,
    null: RawFd,
) -> Result<Started, String> {
    let (environment, complaints) = environment::of_worker(std::env::vars_os(), config)?;
    let own = GroupConfig {
        imports: load.imports,
        required: load.required,
        applications: load.applications,
        listener_fds: Vec::new(),
        lifeline_fd: None,
        scoreboard_fd: config.scoreboard_fd.map(|_| fds::SCOREBOARD as u32),
        ..config.clone()
    };
    let text = sys::memory_file(c"rwsgi-config", &own.encode()).map_err(why("configuration"))?;
    let (control, theirs) = sys::channel().map_err(why("control channel"))?;
    let (output, stderr) = sys::pipe().map_err(why("pipe"))?;
    let board = match role {
        Role::Template => None,
        _ => Some(Board::create(rows(config)).map_err(why("board"))?),
    };
    let argv = strings(bootstrap::arguments(config, role).into_iter());
    let envp = strings(environment.lines());
    let complaint = format!("{}the worker cannot begin: ", messages::WORKER_NOT_EXECUTED);
    let pid = sys::launch(&sys::Launch {
        argv: &pointers(&argv),
        envp: &pointers(&envp),
        fds: &[
            null,
            stderr.as_raw_fd(),
            stderr.as_raw_fd(),
            text.as_raw_fd(),
            theirs.as_raw_fd(),
            board.as_ref().map_or(-1, |(_, fd)| fd.as_raw_fd()),
            listener.unwrap_or(-1),
            scoreboard(config),
        ],
        limits: &limits(config),
        complaint: complaint.as_bytes(),
        core_dumps: config.core_dumps,
    })
    .map_err(why("fork"))?;
    Ok(Started {
        pid,
        ends: Ends {
            control,
            board: board.map(|(board, _)| board),
        },
        output,
        complaints,
    })
}

/// Tells a template to fork a worker.
///
/// # Errors
/// A message for the log.
pub fn fork(
    config: &GroupConfig,
    template: &OwnedFd,
    listener: Option<RawFd>,
) -> Result<Ends, String> {
    let (control, theirs) = sys::channel().map_err(why("control channel"))?;
    let (board, fd) = Board::create(rows(config)).map_err(why("board"))?;
    let mut fds = vec![theirs.as_raw_fd(), fd.as_raw_fd()];
    fds.extend(listener);
    sys::send(template, &ToWorker::Fork.encode(), &fds).map_err(why("template"))?;
    Ok(Ends {
        control,
        board: Some(board),
    })
}

/// C strings; what is behind a NUL is lost, and `check` does not let one through.
fn strings(values: impl Iterator<Item = Vec<u8>>) -> Vec<CString> {
    values
        .map(|mut value| {
            let end = value.iter().position(|&byte| byte == 0);
            value.truncate(end.unwrap_or(value.len()));
            CString::new(value).unwrap_or_default()
        })
        .collect()
}

fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    strings
        .iter()
        .map(|string| string.as_ptr())
        .chain([core::ptr::null()])
        .collect()
}

/// The descriptor of the page with httpd's scoreboard, or -1.
fn scoreboard(config: &GroupConfig) -> RawFd {
    config
        .scoreboard_fd
        .and_then(|fd| RawFd::try_from(fd).ok())
        .unwrap_or(-1)
}

/// Resource limits of a worker: which, soft, hard.
fn limits(config: &GroupConfig) -> Vec<(u32, u64, u64)> {
    let mut limits = Vec::new();
    let mut limit = |which, soft: u64, hard: u64| {
        // More than the hard limit that we have ourselves cannot be had.
        let most = sys::hard_limit(which);
        limits.push((which, soft.min(most), hard.min(most)));
    };
    if config.cpu_time_limit > 0 {
        // At the soft limit SIGXCPU makes it ask for a replacement; at the hard one it is dead.
        let soft = u64::from(config.cpu_time_limit);
        let grace = u64::from(config.graceful_timeout) + u64::from(config.shutdown_timeout);
        limit(libc::RLIMIT_CPU, soft, soft + 1 + grace);
    }
    for (which, bytes) in [
        (libc::RLIMIT_DATA, config.memory_limit),
        (libc::RLIMIT_AS, config.virtual_memory_limit),
    ] {
        if bytes > 0 {
            limit(which, bytes, bytes);
        }
    }
    limit(libc::RLIMIT_NOFILE, u64::MAX, u64::MAX);
    limits
}
