//! A thread that does in Python what the supervisor wishes. It may have to wait for the GIL, even
//! for ever, and nobody waits for it.

use core::sync::atomic::Ordering;
use std::io::Write;
use std::sync::PoisonError;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use pyo3::ffi;

use super::Worker;
use super::desk::Desk;
use crate::asgi::loops;
use crate::daemon::board::{Row, now_ms};
use crate::daemon::control::{FromWorker, Reason};
use crate::exchange::Level;
use crate::messages;
use crate::python::attach::{self, AttachGuard};
use crate::python::interpreter::Interpreter;
use crate::python::runtime;

/// What is to be done with the request that a thread serves.
#[derive(Clone, Copy, Debug)]
pub enum Wish {
    /// Raise `RequestTimeout` in it.
    Interrupt {
        /// The thread's row.
        row: u16,
        /// The row's number.
        number: u32,
    },
    /// Log the stack of its thread.
    Dump {
        /// The thread's row.
        row: u16,
        /// The row's number.
        number: u32,
    },
}

/// How often the attendant shows that the GIL can be had.
const PULSE: Duration = Duration::from_secs(1);

impl Worker {
    /// Starts the attendant.
    pub fn start_attendant(&'static self) {
        let (sender, receiver) = mpsc::channel();
        let run = move || crate::python::slots::boundary(|| (), || self.attend(&receiver));
        let started = std::thread::Builder::new()
            .name("rwsgi-attendant".to_owned())
            .spawn(run);
        if started.is_ok() {
            *self.wishes.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender);
        }
    }

    /// Has something done as soon as the GIL can be had.
    pub fn wish(&self, wish: Wish) {
        let wishes = self.wishes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = &*wishes {
            // It fails when the attendant is gone, which only a bug makes happen.
            let _ = sender.send(wish);
        }
    }

    fn attend(&self, wishes: &Receiver<Wish>) {
        let watches = self.config.deadlock_timeout > 0 || self.config.request_timeout > 0;
        let mut next = Instant::now();
        loop {
            if watches && Instant::now() >= next {
                if self.config.deadlock_timeout > 0 {
                    self.pulse();
                }
                self.look_after_loops();
                next = Instant::now() + PULSE;
            }
            let wish = if watches {
                wishes.recv_timeout(next.saturating_duration_since(Instant::now()))
            } else {
                wishes.recv().map_err(|_| RecvTimeoutError::Disconnected)
            };
            match wish {
                Ok(Wish::Interrupt { row, number }) => self.interrupt(row, number),
                Ok(Wish::Dump { row, number }) => self.dump(row, number),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn pulse(&self) {
        let Some(runtime) = runtime::runtime() else {
            return;
        };
        // Each GIL that there is; requests of an interpreter without one of its own need the main one's.
        let mut interpreters = runtime.interpreters();
        let main = interpreters.pop();
        interpreters.retain(|interpreter| interpreter.has_own_gil());
        for interpreter in interpreters.into_iter().chain(main) {
            drop(attach::attach(interpreter));
        }
        if main.is_some() {
            self.board
                .summary()
                .pulse_ms
                .store(now_ms(), Ordering::Relaxed);
        }
    }

    /// An event loop in which a coroutine blocks serves nobody: its worker is to be replaced.
    fn look_after_loops(&self) {
        let (seconds, reason) = match self.config.request_timeout {
            0 => (self.config.deadlock_timeout, Reason::DeadlockTimeout),
            seconds => (seconds, Reason::RequestTimeout),
        };
        let Some(event_loop) = loops::stuck(Duration::from_secs(seconds.into())) else {
            return;
        };
        let guard = attach::attach(event_loop.interpreter);
        let py = guard.token();
        let prelude = event_loop.interpreter.prelude();
        let stack = prelude.thread_stack(py, event_loop.python_thread());
        let stack = stack.unwrap_or_else(|raised| {
            raised.clear(py);
            Vec::new()
        });
        drop(guard);
        let header = format!(
            "{}an event loop with requests in hand has not gone round for {seconds} s; a coroutine \
             blocks it. The worker is replaced. The Python stack of its thread:",
            messages::ASGI_STUCK
        );
        self.channel.log(Level::Error, header.as_bytes());
        for line in &stack {
            self.channel.log(Level::Error, line);
        }
        self.channel.tell(&FromWorker::Retire { reason });
    }

    /// Attaches where the thread with this row serves its request, if it still is that request.
    fn visit(
        &self,
        row: u16,
        number: u32,
    ) -> Option<(&Desk, &Row, &'static Interpreter, AttachGuard)> {
        let desk = self.desks.get(usize::from(row))?;
        let row = self.board.row(row)?;
        let interpreter = desk.interpreter()?;
        let guard = attach::attach(interpreter);
        let same = row.number.load(Ordering::Acquire) == number
            && desk
                .interpreter()
                .is_some_and(|now| core::ptr::eq(now, interpreter));
        same.then_some((desk, row, interpreter, guard))
    }

    fn interrupt(&self, row: u16, number: u32) {
        // What is inside Python stays there while we are attached, so it is still that request.
        if let Some((desk, _, interpreter, guard)) = self.visit(row, number) {
            let class = &interpreter.prelude().request_timeout;
            let py = guard.token();
            desk.watch.interrupt(py, class);
            let thread = desk.watch.thread();
            let line =
                format!("Injected RequestTimeout into thread {thread:#x} (interrupt-timeout)");
            py.detached(|_| runtime::log(Level::Info, &line));
        }
    }

    fn dump(&self, row: u16, number: u32) {
        let Some((desk, row, interpreter, guard)) = self.visit(row, number) else {
            return;
        };
        let py = guard.token();
        let thread = desk.watch.thread();
        let stack = match interpreter.prelude().thread_stack(py, thread) {
            Ok(stack) => stack,
            Err(raised) => {
                raised.clear(py);
                Vec::new()
            }
        };
        drop(guard);
        let seconds = now_ms().saturating_sub(row.since_ms.load(Ordering::Relaxed)) as f64 / 1e3;
        let header = format!(
            "{}this request has been running for {seconds:.1} s; {}",
            messages::WORKER_SLOW_REQUEST,
            if stack.is_empty() {
                "its thread is not in Python code"
            } else {
                "the Python stack of its thread:"
            }
        );
        let mut lines = vec![header.into_bytes()];
        lines.extend(stack);
        desk.log_for(self, row, number, Level::Warning, &lines);
    }

    /// Writes the Python stacks of all threads to stderr, without the GIL. Called by the control
    /// loop.
    pub fn dump_all(&self) {
        let header = format!(
            "Python stacks of all threads of process {}:\n",
            std::process::id()
        );
        let _ = std::io::stderr().write_all(header.as_bytes());
        let Some(dump) = dump_function() else {
            // SAFETY: no pointers. `faulthandler` has a handler for it, see `dump_signal`.
            unsafe { libc::pthread_kill(libc::pthread_self(), dump_signal()) };
            return;
        };
        let Some(runtime) = runtime::runtime() else {
            return;
        };
        for interpreter in runtime.interpreters() {
            let mut header = interpreter.description();
            header.push(b'\n');
            let _ = std::io::stderr().write_all(&header);
            // SAFETY: made for signal handlers: it reads thread states as well as it can, without
            // the GIL. The interpreter lives.
            unsafe { dump(2, interpreter.raw(), core::ptr::null_mut()) };
        }
    }
}

type DumpFunction = unsafe extern "C" fn(
    i32,
    *mut ffi::PyInterpreterState,
    *mut ffi::PyThreadState,
) -> *const core::ffi::c_char;

/// What `faulthandler` uses itself. It is private, and newer versions do not export it.
fn dump_function() -> Option<DumpFunction> {
    // SAFETY: a C string.
    let symbol = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"_Py_DumpTracebackThreads".as_ptr()) };
    if symbol.is_null() {
        return None;
    }
    // SAFETY: a function of that type in every version that exports it (3.9 to 3.12).
    Some(unsafe { core::mem::transmute::<*mut core::ffi::c_void, DumpFunction>(symbol) })
}

/// The signal by which `faulthandler` is to dump the stacks.
fn dump_signal() -> i32 {
    libc::SIGRTMAX() - 1
}

/// The signal for `Prelude::be_worker`: 0 where it is not needed.
pub fn wanted_dump_signal() -> i32 {
    match dump_function() {
        Some(_) => 0,
        None => dump_signal(),
    }
}
