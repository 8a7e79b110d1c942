//! Whether a thread of the MPM has gone on.
//!
//! After the hook `suspend_connection` the MPM's thread still writes two fields of the connection.
//! Only when it is certain that it has done so may the connection's memory be given back. Nothing in
//! httpd says when that is, so it is seen from outside: the thread has come to the same hook again, it
//! has ended, or it sleeps, which it does nowhere between the hook and those two fields.

use core::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

/// What a thread leaves behind when it ends.
const ENDED: u64 = u64::MAX;

/// A thread, as others see it.
#[derive(Debug)]
struct Mark {
    thread: libc::pid_t,
    /// How often it has come to the hook.
    steps: AtomicU64,
}

/// The thread's own end of it.
struct Own(Arc<Mark>);

impl Own {
    fn new() -> Own {
        Own(Arc::new(Mark {
            // SAFETY: takes nothing and cannot fail.
            thread: unsafe { libc::gettid() },
            steps: AtomicU64::new(0),
        }))
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        self.0.steps.store(ENDED, Ordering::Release);
    }
}

thread_local! {
    static OWN: Own = Own::new();
}

/// The calling thread has come to the hook: what it was doing when it was there before is over.
pub fn step() {
    let _ = OWN.try_with(|own| {
        let steps = own.0.steps.load(Ordering::Relaxed);
        own.0.steps.store(steps + 1, Ordering::Release);
    });
}

/// A thread that is about to go on.
#[derive(Debug)]
pub struct Departure {
    mark: Arc<Mark>,
    steps: u64,
}

impl Departure {
    /// The calling thread. `None` if it is ending.
    pub fn of_this_thread() -> Option<Departure> {
        OWN.try_with(|own| Departure {
            mark: own.0.clone(),
            steps: own.0.steps.load(Ordering::Relaxed),
        })
        .ok()
    }

    /// Whether it has gone on. Once true it stays so.
    pub fn is_over(&self) -> bool {
        self.mark.steps.load(Ordering::Acquire) != self.steps || sleeps(self.mark.thread)
    }
}

/// Whether a thread of this process sleeps or is no more; `false` if that cannot be found out.
fn sleeps(thread: libc::pid_t) -> bool {
    match std::fs::read(format!("/proc/self/task/{thread}/stat")) {
        // "number (name) state ...": the name may have anything in it.
        Ok(text) => {
            let end = text.iter().rposition(|&byte| byte == b')');
            let state = end.and_then(|end| text.get(end + 2));
            // Sleeping, or dead. Waiting for a page (D) it may be anywhere.
            matches!(state, Some(b'S' | b'Z' | b'X'))
        }
        // It has ended, unless there is no /proc here.
        Err(_) => std::fs::exists("/proc/self/task").unwrap_or(false),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::atomic::AtomicBool;

    use super::*;

    #[test]
    fn a_thread_that_works_on_has_not_gone_on() {
        let go_on = AtomicBool::new(false);
        let (ready, wait) = (Barrier::new(2), Barrier::new(2));
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                step();
                let departure = Departure::of_this_thread().unwrap();
                let handed = std::sync::Mutex::new(Some(departure));
                scope.spawn(|| {});
                ready.wait();
                let departure = handed.lock().unwrap().take().unwrap();
                // It looks at itself: it runs, so it cannot be sleeping.
                assert!(!departure.is_over());
                while !go_on.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
                step();
                assert!(departure.is_over());
                wait.wait();
            });
            ready.wait();
            go_on.store(true, Ordering::Relaxed);
            wait.wait();
            thread.join().unwrap();
        });
    }

    #[test]
    fn sleep_and_end_are_seen() {
        let (send, receive) = std::sync::mpsc::channel();
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            step();
            send.send(Departure::of_this_thread().unwrap()).unwrap();
            let _ = ended.recv();
        });
        let departure = receive.recv().unwrap();
        // It waits for the test, and nobody steps for it.
        while !departure.is_over() {
            std::thread::yield_now();
        }
        drop(end);
        thread.join().unwrap();
        assert!(departure.is_over());
        assert_eq!(departure.mark.steps.load(Ordering::Acquire), ENDED);
    }
}
