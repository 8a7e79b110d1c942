//! Signals of a worker. Nothing is blocked: processes that the application starts inherit the mask of
//! the thread that starts them. A handler notes the signal and wakes the control loop.

use core::ffi::c_int;
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, Ordering};

/// SIGTERM or SIGINT.
pub const TERMINATE: u32 = 1;
/// SIGUSR1.
pub const GRACEFUL: u32 = 2;
/// SIGXCPU.
pub const CPU_TIME: u32 = 4;
/// SIGHUP.
pub const HANG_UP: u32 = 8;
/// SIGUSR2.
pub const USER_2: u32 = 16;

static NOTED: AtomicU32 = AtomicU32::new(0);
static WAKE: AtomicI32 = AtomicI32::new(-1);
static OWNER: AtomicI32 = AtomicI32::new(0);
static STARTING: AtomicBool = AtomicBool::new(true);

/// Takes over the signals of this process, whatever Python has installed. `wake` is an eventfd.
/// Until [`started`] is called, SIGTERM ends the process at once: it has nothing to finish.
pub fn install(wake: i32) {
    WAKE.store(wake, Ordering::Relaxed);
    adopt();
    for signal in [
        libc::SIGTERM,
        libc::SIGINT,
        libc::SIGUSR1,
        libc::SIGXCPU,
        libc::SIGHUP,
        libc::SIGUSR2,
    ] {
        set(signal, note as *const () as usize);
    }
}

/// Leaves SIGTERM to Python: for service scripts.
pub fn leave_termination_to_python() {
    STARTING.store(false, Ordering::Relaxed);
}

/// This process has been forked from one whose handlers it keeps.
pub fn adopt() {
    // SAFETY: no arguments.
    OWNER.store(unsafe { libc::getpid() }, Ordering::Relaxed);
}

/// From now on SIGTERM is for the control loop.
pub fn started() {
    STARTING.store(false, Ordering::Relaxed);
}

/// The signals since the last call.
pub fn take() -> u32 {
    NOTED.swap(0, Ordering::AcqRel)
}

fn set(signal: c_int, handler: usize) {
    // SAFETY: plain data; the handlers only do what is safe in a signal handler.
    unsafe {
        let mut action: libc::sigaction = core::mem::zeroed();
        action.sa_sigaction = handler;
        action.sa_flags = libc::SA_RESTART | libc::SA_ONSTACK;
        libc::sigemptyset(&mut action.sa_mask);
        libc::sigaction(signal, &action, core::ptr::null_mut());
    }
}

extern "C" fn note(signal: c_int) {
    // SAFETY: getpid, sigaction, raise, _exit and write may be called in a signal handler; errno is
    // put back.
    unsafe {
        if libc::getpid() != OWNER.load(Ordering::Relaxed) {
            if matches!(signal, libc::SIGHUP | libc::SIGUSR2) {
                return;
            }
            // A process that the application has forked: what happens without a handler.
            libc::signal(signal, libc::SIG_DFL);
            libc::raise(signal);
            return;
        }
        let bit = match signal {
            libc::SIGUSR1 => GRACEFUL,
            libc::SIGXCPU => CPU_TIME,
            libc::SIGHUP => HANG_UP,
            libc::SIGUSR2 => USER_2,
            _ => TERMINATE,
        };
        if bit == TERMINATE && STARTING.load(Ordering::Relaxed) {
            libc::_exit(0);
        }
        NOTED.fetch_or(bit, Ordering::AcqRel);
        let errno = *libc::__errno_location();
        let one = 1_u64;
        libc::write(
            WAKE.load(Ordering::Relaxed),
            (&raw const one).cast(),
            size_of::<u64>(),
        );
        *libc::__errno_location() = errno;
    }
}
