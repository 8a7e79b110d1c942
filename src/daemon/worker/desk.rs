//! The place where one thread serves its requests, as other threads see it.

use core::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{Worker, socket};
use crate::daemon::wire::{Header, Kind};
use crate::exchange::Level;
use crate::python::interpreter::Interpreter;
use crate::python::request::Watch;

/// One per serving thread; never goes away.
pub struct Desk {
    /// The thread's row on the board.
    pub row: u16,
    /// For interrupting what the thread does in Python.
    pub watch: Watch,
    /// Where the current request, or the last one, is served.
    interpreter: AtomicPtr<Interpreter>,
    wire: Mutex<Wire>,
}

/// The sending direction of the connection whose request is being served.
pub struct Wire {
    /// Negative: none, or its reply has been sent to its end.
    fd: i32,
}

impl Wire {
    /// From now on nothing of this request may be sent.
    #[inline]
    pub fn close(&mut self) {
        self.fd = -1;
    }
}

impl Desk {
    /// The desk of the thread with this row.
    pub fn new(row: u16) -> Desk {
        Desk {
            row,
            watch: Watch::default(),
            interpreter: AtomicPtr::default(),
            wire: Mutex::new(Wire { fd: -1 }),
        }
    }

    /// Sending needs this lock: frames of a request come from several threads.
    #[inline]
    pub fn lock(&self) -> MutexGuard<'_, Wire> {
        self.wire.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request begins whose reply goes to `fd`.
    #[inline]
    pub fn open(&self, fd: i32) {
        self.lock().fd = fd;
    }

    /// The request is over.
    #[inline]
    pub fn close(&self) {
        self.lock().close();
    }

    /// Notes where the thread is about to serve.
    #[inline]
    pub fn set_interpreter(&self, interpreter: &'static Interpreter) {
        let interpreter = core::ptr::from_ref(interpreter).cast_mut();
        self.interpreter.store(interpreter, Ordering::Release);
    }

    /// Where the thread serves, if it has ever served.
    pub fn interpreter(&self) -> Option<&'static Interpreter> {
        // SAFETY: null, or an interpreter, which is never freed.
        unsafe { self.interpreter.load(Ordering::Acquire).as_ref() }
    }

    /// Logs a line for the current request; when its reply has been sent, with the worker's own
    /// lines.
    pub fn log(&self, worker: &Worker, level: Level, line: &[u8]) {
        let wire = self.lock();
        if wire.fd >= 0 {
            let header = Header {
                aux: level as u16,
                ..Header::new(Kind::Log, line.len() as u32)
            };
            let frame = [&header.encode(), line].concat();
            if socket::send(wire.fd, &frame).is_ok() {
                return;
            }
        }
        drop(wire);
        worker.channel.log(level, line);
    }
}
