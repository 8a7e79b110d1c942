//! `preload=on`: a process that imports everything once and forks the workers, which share its memory
//! until they write to it.
//!
//! Each worker is forked twice, so that it becomes a child of the supervisor (a subreaper). Only
//! the main interpreter survives a fork, so only what lives there is preloaded.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use pyo3::ffi;

use super::channel::Channel;
use super::host;
use super::life::{self, exit, fail};
use super::{imports, signals};
use crate::daemon::control::{FromWorker, LARGEST, Script, ToWorker};
use crate::daemon::fds;
use crate::daemon::group::GroupConfig;
use crate::exchange::Level;
use crate::messages;
use crate::python::attach::{self, AttachGuard};
use crate::python::interpreter::Interpreter;
use crate::python::options::Options;
use crate::python::runtime::{self, Runtime};

/// The scripts that the template has loaded: the workers have them, too.
static LOADED: Mutex<Vec<Script>> = Mutex::new(Vec::new());

/// Notes a script that has been loaded before the workers are forked.
pub fn note_loaded(script: Script) {
    LOADED
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(script);
}

/// Is the template of this process.
///
/// # Safety
/// Called on the main thread, attached to the main interpreter, and nothing else of this module has
/// been called in this process.
pub unsafe fn run() -> ! {
    let config = match life::read_config() {
        Ok(config) => config,
        Err(error) => fail(None, &error),
    };
    let channel = life::channel(config.log_level);
    if let Err(error) = life::check_descriptors(false) {
        fail(Some(channel), &error);
    }
    life::prepare_process(&config, channel);
    let options = host::options(&config);
    let (early, late) = divide(&config, &options);
    if let Err(error) = runtime::adopt(options, host::services()) {
        fail(Some(channel), &error);
    }
    let Some(runtime) = runtime::runtime() else {
        fail(Some(channel), "the runtime is not there");
    };
    life::be_worker(runtime);
    if let Err(message) = imports::load_listed(runtime, channel, &early) {
        channel.tell(&message);
        exit(1);
    }
    let Some(main) = runtime.interpreters().pop() else {
        fail(Some(channel), "there is no main interpreter");
    };
    {
        let guard = attach::attach(main);
        let py = guard.token();
        if let Err(raised) = main.prelude().tell(py, c"before_first_fork") {
            raised.clear(py);
        }
    }
    channel.tell(&FromWorker::Ready {
        pid: std::process::id(),
    });
    let late = GroupConfig {
        imports: late.imports,
        required: late.required,
        ..config
    };
    serve_forks(main, runtime, channel, late)
}

/// What is loaded before the fork and what after it: only the main interpreter survives.
fn divide(config: &GroupConfig, options: &Options) -> (imports::Listed, imports::Listed) {
    let mut scripts = config.imports.iter().chain(&config.required);
    let first = scripts.find(|script| !options.has_own_gil(&script.application_group));
    let main_group = match first {
        _ if config.reserve_main => Vec::new(),
        Some(script) => script.application_group.clone(),
        None => Vec::new(),
    };
    let split = |scripts: &[Script]| -> (Vec<Script>, Vec<Script>) {
        scripts
            .iter()
            .cloned()
            .partition(|script| script.application_group == main_group)
    };
    let (early_imports, late_imports) = split(&config.imports);
    let (early_required, late_required) = split(&config.required);
    let listed = |imports, required| imports::Listed { imports, required };
    (
        listed(early_imports, early_required),
        listed(late_imports, late_required),
    )
}

/// Forks workers until the supervisor ends this.
fn serve_forks(
    main: &'static Interpreter,
    runtime: &'static Runtime,
    channel: &'static Channel,
    config: GroupConfig,
) -> ! {
    loop {
        match receive(channel.fd()) {
            Ok((Some(ToWorker::Fork), Some(descriptors))) => {
                if is_forked(main, channel, descriptors) {
                    become_worker(main, runtime, channel, config)
                }
            }
            Ok((Some(ToWorker::Fork), None)) => {
                complain(channel, "it has asked for a fork without three descriptors");
            }
            Ok((Some(ToWorker::Drain { .. }), _)) => exit(0),
            Ok((Some(_), _)) => {}
            Ok((None, _)) => complain(channel, "a message was not understood"),
            Err(_) => exit(0),
        }
    }
}

fn complain(channel: &Channel, what: &str) {
    let line = format!(
        "{}rwsgi-daemon: {what}; install daemon and gateway of one build",
        messages::WORKER_CONTROL
    );
    channel.log(Level::Error, line.as_bytes());
}

type Descriptors = [OwnedFd; 3];

/// Waits for a message; an error is the end of the supervisor.
fn receive(fd: i32) -> io::Result<(Option<ToWorker>, Option<Descriptors>)> {
    #[repr(C, align(8))]
    struct Control([u8; 128]);
    let mut control = Control([0; 128]);
    let mut packet = vec![0; LARGEST];
    let mut vector = libc::iovec {
        iov_base: packet.as_mut_ptr().cast(),
        iov_len: packet.len(),
    };
    let mut descriptors = Vec::new();
    // SAFETY: plain data; buffers of the sizes given; descriptors that arrive are new and ours.
    let length = unsafe {
        let mut message: libc::msghdr = core::mem::zeroed();
        message.msg_iov = &mut vector;
        message.msg_iovlen = 1;
        message.msg_control = control.0.as_mut_ptr().cast();
        message.msg_controllen = control.0.len() as _;
        let got = loop {
            let got = libc::recvmsg(fd, &mut message, libc::MSG_CMSG_CLOEXEC);
            if got >= 0 {
                break got as usize;
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        };
        let mut header = libc::CMSG_FIRSTHDR(&message);
        while !header.is_null() {
            if (*header).cmsg_level == libc::SOL_SOCKET && (*header).cmsg_type == libc::SCM_RIGHTS {
                let bytes = (*header).cmsg_len as usize - libc::CMSG_LEN(0) as usize;
                let first = libc::CMSG_DATA(header).cast::<i32>();
                for index in 0..bytes / size_of::<i32>() {
                    let descriptor = first.add(index).read_unaligned();
                    descriptors.push(OwnedFd::from_raw_fd(descriptor));
                }
            }
            header = libc::CMSG_NXTHDR(&message, header);
        }
        got
    };
    if length == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let message = ToWorker::decode(&packet[..length]).ok();
    Ok((message, <[OwnedFd; 3]>::try_from(descriptors).ok()))
}

/// Forks a worker; true in the worker, whose descriptors are in place then.
fn is_forked(main: &'static Interpreter, channel: &Channel, descriptors: Descriptors) -> bool {
    let mut pipe = [-1; 2];
    // SAFETY: two descriptors are filled in, which are ours.
    let (parent_gone, gone) = unsafe {
        if libc::pipe2(pipe.as_mut_ptr(), libc::O_CLOEXEC) != 0 {
            fork_failed(channel, &io::Error::last_os_error());
            return false;
        }
        (OwnedFd::from_raw_fd(pipe[0]), OwnedFd::from_raw_fd(pipe[1]))
    };
    let guard = attach::attach(main);
    // SAFETY: attached; what CPython demands around a fork. The process has one thread, apart from
    // what imported code may have started.
    let child = unsafe {
        ffi::PyOS_BeforeFork();
        libc::fork()
    };
    if child == 0 {
        // SAFETY: the process between: no Python runs in it.
        match unsafe { libc::fork() } {
            0 => {
                drop(gone);
                in_child(main, guard);
                wait_for_new_parent(&parent_gone);
                put_in_place(descriptors);
                return true;
            }
            failed => exit(i32::from(failed < 0)),
        }
    }
    let error = io::Error::last_os_error();
    // SAFETY: attached, after the fork.
    unsafe { ffi::PyOS_AfterFork_Parent() };
    drop(guard);
    let mut status = 0;
    if child > 0 {
        // SAFETY: our child; the status is filled.
        unsafe { libc::waitpid(child, &mut status, 0) };
    }
    if child < 0 || status != 0 {
        fork_failed(channel, &error);
    }
    // The process between is gone: closing this tells the worker.
    drop((gone, parent_gone));
    false
}

fn fork_failed(channel: &Channel, error: &io::Error) {
    let line = format!(
        "{}a worker could not be forked: {error}",
        messages::WORKER_START_FAILED
    );
    channel.log(Level::Error, line.as_bytes());
}

fn in_child(main: &'static Interpreter, guard: AttachGuard) {
    // SAFETY: in the child, on the thread that has forked and is attached.
    unsafe { ffi::PyOS_AfterFork_Child() };
    let py = guard.token();
    if let Err(raised) = main.prelude().tell(py, c"after_fork") {
        raised.clear(py);
    }
}

/// Asks for SIGTERM when the parent dies, once that is the supervisor: the process between dies at
/// once.
fn wait_for_new_parent(parent_gone: &OwnedFd) {
    let mut end = [0_u8];
    // The template closes its end after it has waited for the process between; nothing is written.
    // SAFETY: room for one byte; no pointers in the second call.
    unsafe {
        libc::read(parent_gone.as_raw_fd(), end.as_mut_ptr().cast(), 1);
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM, 0, 0, 0);
    }
}

fn put_in_place(descriptors: Descriptors) {
    // Out of the way first: one may have the number that another is to get.
    const FREE: i32 = 32;
    let high = descriptors.map(|descriptor| {
        // SAFETY: an open descriptor.
        unsafe { libc::fcntl(descriptor.as_raw_fd(), libc::F_DUPFD_CLOEXEC, FREE) }
    });
    for (from, to) in high
        .into_iter()
        .zip([fds::CONTROL, fds::BOARD, fds::LISTENER])
    {
        // SAFETY: the numbers are reserved for this; a bad descriptor shows in the checks.
        unsafe {
            libc::dup3(from, to, libc::O_CLOEXEC);
            libc::close(from);
        }
    }
}

fn become_worker(
    main: &'static Interpreter,
    runtime: &'static Runtime,
    channel: &'static Channel,
    config: GroupConfig,
) -> ! {
    channel.adopt();
    main.gc.forget();
    if let Err(error) = life::check_descriptors(true) {
        fail(Some(channel), &error);
    }
    let worker = match life::new_worker(config, channel) {
        Ok(worker) => worker,
        Err(error) => fail(Some(channel), &error),
    };
    let loaded = LOADED
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone();
    for script in loaded {
        worker.tell_loaded(script);
    }
    signals::install(worker.wake_descriptor());
    life::serve(worker, runtime)
}
