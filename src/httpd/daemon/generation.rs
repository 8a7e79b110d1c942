//! The supervisors that run, of this and of former configurations, as httpd's parent knows them.
//!
//! A graceful restart clears the configuration's pool while children of the old generation still
//! serve, so supervisors outlive it: this list belongs to the parent process. A supervisor ends by
//! itself when nobody is left who could send it requests, which it knows by the end of the
//! *lifeline*: a pipe whose write end the parent and, by fork, its children hold.

use core::ffi::{c_int, c_void};
use std::ffi::OsStr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::spawn::{Failure, Recipe};
use crate::daemon::group::GroupConfig;
use crate::exchange::Level;
use crate::httpd::apache::{Pool, mpm};
use crate::httpd::sys::boundary::{Place, guard};
use crate::httpd::sys::{self, apr_pool_t, apr_proc_t, apr_status_t, server_rec};
use crate::messages::{SUPERVISOR_DIED, SUPERVISOR_KILLED, SUPERVISOR_NOT_STARTED};

/// A supervisor that lived so long was not broken from the beginning.
const HEALTHY: Duration = Duration::from_secs(10);
/// The longest time that a supervisor, started again, waits before it starts workers.
const LONGEST_DELAY_S: u32 = 30;
/// How much longer than its workers a supervisor may take to end when httpd stops, and how long at
/// most.
const STOP_MARGIN_S: u64 = 3;
const STOP_LIMIT_S: u64 = 15;

/// A supervisor, or the place of one that could not be started.
pub struct Supervisor {
    id: usize,
    label: String,
    recipe: Recipe,
    config: GroupConfig,
    sockets: Vec<Vec<u8>>,
    /// 0: none runs.
    pid: libc::pid_t,
    started: Instant,
    /// How often in a row it died early.
    early_deaths: u32,
    /// The generation's children are being replaced: it is not started again.
    retired: bool,
    /// Where it is logged; null (the main log) once the configuration is gone.
    server: *mut server_rec,
    registration: Registration,
}

// SAFETY: the parent has one thread that touches these.
unsafe impl Send for Supervisor {}

/// All supervisors, and what their generations hold open.
struct Parent {
    next_id: usize,
    supervisors: Vec<Supervisor>,
    /// Write end of the current generation's pipe.
    lifeline: Option<OwnedFd>,
    /// The process that made them: children inherit the list, but not the duty.
    pid: u32,
}

static PARENT: Mutex<Parent> = Mutex::new(Parent {
    next_id: 1,
    supervisors: Vec::new(),
    lifeline: None,
    pid: 0,
});

fn parent() -> MutexGuard<'static, Parent> {
    PARENT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What httpd is told so that it reports the death of a process.
struct Registration {
    pool: *mut apr_pool_t,
    process: *mut apr_proc_t,
}

impl Registration {
    /// Registers `pid`, whose death is reported with `id`.
    fn new(process_pool: *mut apr_pool_t) -> Option<Self> {
        let mut pool = core::ptr::null_mut();
        // SAFETY: the pool of the process, which outlives configurations.
        unsafe {
            let status =
                sys::apr_pool_create_ex(&mut pool, process_pool, None, core::ptr::null_mut());
            if status != sys::APR_SUCCESS {
                return None;
            }
            let process = sys::apr_palloc(pool, size_of::<apr_proc_t>()).cast::<apr_proc_t>();
            process.write(core::mem::zeroed());
            Some(Registration { pool, process })
        }
    }

    fn watch(&self, pid: libc::pid_t, id: usize) {
        // SAFETY: a live pool and a structure in it; the number is only handed back.
        unsafe {
            (*self.process).pid = pid;
            sys::apr_proc_other_child_register(
                self.process,
                Some(maintain),
                id as *mut c_void,
                core::ptr::null_mut(),
                self.pool,
            );
        }
    }

    fn forget(id: usize) {
        // SAFETY: takes any pointer and removes what was registered with it.
        unsafe { sys::apr_proc_other_child_unregister(id as *mut c_void) }
    }

    /// Gives the memory back.
    fn end(self) {
        // SAFETY: our own pool, used by nothing any more.
        unsafe { sys::apr_pool_destroy(self.pool) }
    }
}

/// A new generation: its children will hold the lifeline. Gives the read end. `process` is httpd's
/// pool for its whole life, `configuration` that of the configuration.
///
/// # Errors
/// The system's.
pub fn begin(process: Pool<'_>, configuration: Pool<'_>) -> std::io::Result<OwnedFd> {
    let (read, write) = super::spawn::pipe()?;
    let mut parent = parent();
    // SAFETY: `retire` may be called at any time.
    unsafe {
        configuration.on_clear(core::ptr::null_mut(), retire);
        if parent.pid != std::process::id() {
            // If a later configuration is in error, httpd ends without one.
            process.on_clear(core::ptr::null_mut(), retire);
        }
    }
    parent.lifeline = Some(write);
    parent.pid = std::process::id();
    Ok(read)
}

/// Starts a supervisor and keeps watch over it. `process_pool` is httpd's pool for its whole life.
///
/// # Errors
/// A message.
pub fn add(
    config: GroupConfig,
    recipe: Recipe,
    sockets: Vec<Vec<u8>>,
    server: *mut server_rec,
    process_pool: *mut apr_pool_t,
) -> Result<(), String> {
    let label = config.label();
    let registration = Registration::new(process_pool).ok_or_else(|| {
        format!("{SUPERVISOR_NOT_STARTED}no memory for the process group '{label}'")
    })?;
    let mut parent = parent();
    let id = parent.next_id;
    parent.next_id += 1;
    // With WSGISocketRotation Off the paths have been taken over from the former generation.
    for other in &mut parent.supervisors {
        other.sockets.retain(|path| !sockets.contains(path));
    }
    let mut supervisor = Supervisor {
        id,
        label,
        recipe,
        config,
        sockets,
        pid: 0,
        started: Instant::now(),
        early_deaths: 0,
        retired: false,
        server,
        registration,
    };
    match supervisor.start() {
        Ok(()) => {
            parent.supervisors.push(supervisor);
            Ok(())
        }
        Err(failure) => {
            let message = supervisor.not_started(&failure);
            supervisor.end();
            Err(message)
        }
    }
}

impl Supervisor {
    fn start(&mut self) -> Result<(), Failure> {
        self.config.start_delay_ms = delay_s(self.early_deaths) * 1000;
        self.started = Instant::now();
        self.pid = self.recipe.start(&self.config.encode())?;
        self.registration.watch(self.pid, self.id);
        self.log(
            Level::Info,
            &format!(
                "the supervisor of the process group '{}' runs as pid {}",
                self.label, self.pid
            ),
        );
        Ok(())
    }

    fn not_started(&self, failure: &Failure) -> String {
        format!(
            "{SUPERVISOR_NOT_STARTED}the supervisor of the process group '{}' could not be \
             started: {}: {}",
            self.label, failure.step, failure.error
        )
    }

    fn log(&self, level: Level, line: &str) {
        // SAFETY: null, or a server of a configuration that is not gone: `retire` sees to that.
        unsafe { sys::log::server(self.server, level, line.as_bytes()) }
    }

    /// Removes what is left when it will not be started again.
    fn end(self) {
        self.remove_sockets();
        self.registration.end();
    }

    fn remove_sockets(&self) {
        for socket in &self.sockets {
            let _ = std::fs::remove_file(OsStr::from_bytes(socket));
        }
    }

    /// It has died. False if it is not needed any more.
    fn died(&mut self, status: c_int) -> bool {
        let pid = core::mem::take(&mut self.pid);
        if self.retired || mpm::is_exiting() || mpm::is_stopping() {
            return false;
        }
        let lived = self.started.elapsed();
        self.early_deaths = if lived < HEALTHY {
            self.early_deaths.saturating_add(1)
        } else {
            0
        };
        // One that dies before it has waited as it was told would be started as fast as its death
        // is noticed.
        let at_once = lived >= Duration::from_millis(self.config.start_delay_ms.into());
        // Its workers notice the loss themselves and drain.
        let line = format!(
            "the supervisor of the process group '{}' (pid {pid}) {}; it is started again{}",
            self.label,
            how(status),
            match (at_once, delay_s(self.early_deaths)) {
                (true, 0) => String::new(),
                (true, delay) => format!(", and begins in {delay} s"),
                (false, _) => " in some seconds".to_owned(),
            }
        );
        if status == 0 {
            // It was asked to, by a person or a script.
            self.log(Level::Notice, &line);
        } else {
            self.log(Level::Error, &format!("{SUPERVISOR_DIED}{line}"));
        }
        if at_once {
            self.start_or_wait();
        }
        true
    }

    /// Starts it; what fails is tried again later.
    fn start_or_wait(&mut self) {
        if let Err(failure) = self.start() {
            self.pid = 0;
            let message = self.not_started(&failure);
            self.log(Level::Alert, &format!("{message}; it is tried again"));
        }
    }
}

/// How long the supervisor waits after so many early deaths in a row: not at all the first time.
fn delay_s(early_deaths: u32) -> u32 {
    match early_deaths {
        0 | 1 => 0,
        more => 1u32
            .checked_shl(more - 2)
            .map_or(LONGEST_DELAY_S, |delay| delay.min(LONGEST_DELAY_S)),
    }
}

/// How a process ended, as httpd reports it: exit code and signal in one number.
fn how(status: c_int) -> String {
    match status {
        0 => "ended with exit code 0".to_owned(),
        number => format!("ended with exit code or signal {number}"),
    }
}

/// httpd's report about a supervisor, in the parent's main loop: it must not block.
unsafe extern "C" fn maintain(reason: c_int, data: *mut c_void, status: c_int) {
    guard(Place::Server(core::ptr::null_mut()), (), || {
        // Restarts leave it alone, and so does the end of its pool, which we bring about.
        if reason != sys::APR_OC_REASON_DEATH && reason != sys::APR_OC_REASON_LOST {
            return;
        }
        let id = data as usize;
        let mut parent = parent();
        let Some(index) = parent.supervisors.iter().position(|one| one.id == id) else {
            return;
        };
        Registration::forget(id);
        if !parent.supervisors[index].died(status) {
            parent.supervisors.remove(index).end();
        }
    });
}

/// Starts what could not be started at once. Called now and then in the parent.
pub fn try_again() {
    let mut parent = parent();
    if parent.pid != std::process::id() || mpm::is_stopping() {
        return;
    }
    for supervisor in &mut parent.supervisors {
        if supervisor.pid == 0 && !supervisor.retired {
            supervisor.start_or_wait();
        }
    }
}

/// Clean-up of the configuration's pool: httpd restarts, or ends.
///
/// # Safety
/// Called by APR.
unsafe extern "C" fn retire(_: *mut c_void) -> apr_status_t {
    guard(
        Place::Server(core::ptr::null_mut()),
        sys::APR_SUCCESS,
        || {
            let mut parent = parent();
            if parent.pid != std::process::id() {
                return sys::APR_SUCCESS;
            }
            if mpm::is_exiting() {
                let supervisors = core::mem::take(&mut parent.supervisors);
                drop(parent);
                stop(supervisors);
                return sys::APR_SUCCESS;
            }
            parent.lifeline = None;
            let all = core::mem::take(&mut parent.supervisors);
            let (running, waiting): (Vec<_>, Vec<_>) = all.into_iter().partition(|one| one.pid > 0);
            parent.supervisors = running;
            for supervisor in waiting {
                supervisor.end();
            }
            for supervisor in &mut parent.supervisors {
                supervisor.retired = true;
                supervisor.server = core::ptr::null_mut();
                // A listener that stays open here would take connections that nobody answers.
                supervisor.recipe.listeners.clear();
            }
            sys::APR_SUCCESS
        },
    )
}

/// Ends all supervisors: politely, then not. httpd ends, so that their registrations, whose pools may
/// be gone already, are left alone.
fn stop(supervisors: Vec<Supervisor>) {
    let began = Instant::now();
    for supervisor in supervisors.iter().filter(|one| one.pid > 0) {
        // SAFETY: our own child, which has not been waited for.
        unsafe { libc::kill(supervisor.pid, libc::SIGTERM) };
    }
    for supervisor in supervisors {
        if supervisor.pid > 0 {
            let patience = u64::from(supervisor.config.shutdown_timeout) + STOP_MARGIN_S;
            let deadline = began + Duration::from_secs(patience.min(STOP_LIMIT_S));
            if !ends_until(supervisor.pid, deadline) {
                // SAFETY: our own child and its process group, which it leads.
                unsafe {
                    libc::kill(-supervisor.pid, libc::SIGKILL);
                    libc::waitpid(supervisor.pid, core::ptr::null_mut(), 0);
                }
                // The error log's own structures are gone by now; its descriptor is still there.
                eprintln!(
                    "{SUPERVISOR_KILLED}the process group '{}' (supervisor pid {}) did not end in \
                     time and was killed",
                    supervisor.label, supervisor.pid
                );
            }
        }
        supervisor.remove_sockets();
    }
}

/// Waits for the end of a child until `deadline`.
fn ends_until(pid: libc::pid_t, deadline: Instant) -> bool {
    // SAFETY: no pointers; a descriptor that belongs to nobody else.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    if let Ok(fd) = i32::try_from(fd)
        && fd >= 0
    {
        // SAFETY: as above.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        wait_readable(&fd, deadline);
    } else {
        // Linux before 5.3: look every now and then.
        while Instant::now() < deadline && !is_done(pid) {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    // SAFETY: our own child.
    unsafe { libc::waitpid(pid, core::ptr::null_mut(), libc::WNOHANG) != 0 }
}

/// Whether a child has ended, without taking its status.
fn is_done(pid: libc::pid_t) -> bool {
    // SAFETY: fills the structure.
    unsafe {
        let mut info: libc::siginfo_t = core::mem::zeroed();
        let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
        let asked = libc::waitid(libc::P_PID, pid as libc::id_t, &mut info, flags);
        asked != 0 || info.si_pid() == pid
    }
}

fn wait_readable(fd: &OwnedFd, deadline: Instant) {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let mut poll = libc::pollfd {
            fd: fd.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        let milliseconds = c_int::try_from(left.as_millis()).unwrap_or(c_int::MAX);
        // SAFETY: one structure.
        let ready = unsafe { libc::poll(&mut poll, 1, milliseconds) };
        if ready > 0 || left.is_zero() {
            return;
        }
    }
}

/// In a new child of httpd, whose pool is `pool`: what only the parent needs is closed. The lifeline
/// stays.
pub fn leave_to_parent(pool: Pool<'_>) {
    let mut parent = parent();
    if parent.pid != std::process::id() {
        // The descriptors are closed; the pools of the registrations are the parent's.
        parent.supervisors.clear();
    } else if !parent.supervisors.is_empty() {
        // With -X the parent is the child, and ends without clearing the configuration's pool.
        // SAFETY: the function may be called at any time.
        unsafe { pool.on_clear(core::ptr::null_mut(), end_with_child) };
    }
}

/// Clean-up of the child's pool where the child is the parent.
unsafe extern "C" fn end_with_child(_: *mut c_void) -> apr_status_t {
    guard(
        Place::Server(core::ptr::null_mut()),
        sys::APR_SUCCESS,
        || {
            let supervisors = core::mem::take(&mut parent().supervisors);
            stop(supervisors);
            sys::APR_SUCCESS
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_and_have_an_end() {
        let delays: Vec<u32> = (0..9).map(delay_s).collect();
        assert_eq!(delays, [0, 0, 1, 2, 4, 8, 16, 30, 30]);
        assert_eq!(delay_s(u32::MAX), LONGEST_DELAY_S);
    }

    #[test]
    fn ends_are_awaited() {
        let mut quick = std::process::Command::new("true").spawn().unwrap();
        let soon = Instant::now() + Duration::from_secs(10);
        assert!(ends_until(quick.id() as i32, soon));
        let _ = quick.try_wait();
        let mut slow = std::process::Command::new("sleep")
            .arg("100")
            .spawn()
            .unwrap();
        let began = Instant::now();
        assert!(!ends_until(
            slow.id() as i32,
            began + Duration::from_millis(50)
        ));
        assert!(began.elapsed() >= Duration::from_millis(50));
        assert!(!is_done(slow.id() as i32));
        slow.kill().unwrap();
        slow.wait().unwrap();
    }
}
