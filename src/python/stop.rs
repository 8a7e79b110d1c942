//! The end of Python in this process.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use super::attach;
use super::interpreter::Interpreter;
use super::runtime::{log, runtime};
use crate::exchange::Level;
use crate::messages;

/// Has `announce` tell applications that the process stops, detached, then runs exit handlers in
/// every interpreter, the main one last, unless `WSGIDestroyInterpreter Off` says not to, and keeps
/// every GIL for ever.
///
/// The interpreters are not finalised: a native thread that comes back from a blocking call into
/// a finalised interpreter aborts the process (up to 3.13), and a process that ends gives its
/// memory back anyway. Since the GIL stays taken, no Python thread runs while the process unwinds.
/// (Without a global lock, threads that an application has left behind run on until the process is
/// gone.)
///
/// Called by the thread that called [`start`](super::runtime::start). If that thread is inside a
/// request (prefork ends its children from a signal handler), nothing is done.
pub fn stop(deadline: Duration, announce: impl FnOnce()) {
    let Some(runtime) = runtime() else {
        return;
    };
    if !runtime.has_started() || attach::thread_is_inside() {
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
