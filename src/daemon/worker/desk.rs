//! The place where one thread serves its requests, as other threads see it.

use core::sync::atomic::{AtomicI32, AtomicPtr, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{Worker, socket};
use crate::daemon::board::Row;
use crate::daemon::wire::{Header, Kind, LogLine, flag};
use crate::exchange::{Level, Source};
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
    /// Changed with the lock only, or in a process that has been forked off.
    fd: AtomicI32,
    lock: Mutex<()>,
}

/// The right to send on the connection whose request is being served.
pub struct Wire<'d> {
    desk: &'d Desk,
    _guard: MutexGuard<'d, ()>,
}

impl Wire<'_> {
    /// The socket; negative: there is no request, or its reply has been sent to its end.
    #[inline]
    pub fn fd(&self) -> i32 {
        self.desk.fd.load(Ordering::Relaxed)
    }

    /// From now on nothing of this request may be sent.
    #[inline]
    pub fn close(&self) {
        self.desk.fd.store(-1, Ordering::Relaxed);
    }

    fn log(&self, level: Level, line: &[u8]) -> bool {
        self.send_log(level, 0, line)
    }

    fn log_from(&self, level: Level, source: Source<'_>, line: &[u8]) -> bool {
        let line = LogLine {
            file: source.file.bytes(),
            number: source.line,
            line,
        };
        self.send_log(level, flag::SOURCE, &line.encode())
    }

    fn send_log(&self, level: Level, flags: u8, payload: &[u8]) -> bool {
        let header = Header {
            aux: level as u16,
            flags,
            ..Header::new(Kind::Log, payload.len() as u32)
        };
        self.fd() >= 0 && socket::send(self.fd(), &[&header.encode(), payload].concat()).is_ok()
    }
}

impl Desk {
    /// The desk of the thread with this row.
    pub fn new(row: u16) -> Desk {
        Desk {
            row,
            watch: Watch::default(),
            interpreter: AtomicPtr::default(),
            fd: AtomicI32::new(-1),
            lock: Mutex::new(()),
        }
    }

    /// Sending needs this lock: frames of a request come from several threads.
    #[inline]
    pub fn lock(&self) -> Wire<'_> {
        Wire {
            desk: self,
            _guard: self.lock.lock().unwrap_or_else(PoisonError::into_inner),
        }
    }

    /// A request begins whose reply goes to `fd`.
    #[inline]
    pub fn open(&self, fd: i32) {
        let _wire = self.lock();
        self.fd.store(fd, Ordering::Relaxed);
    }

    /// The request is over.
    #[inline]
    pub fn close(&self) {
        self.lock().close();
    }

    /// In a process that has been forked off: there is no request here, whoever had the lock.
    pub fn forget_in_forked_child(&self) {
        self.fd.store(-1, Ordering::Relaxed);
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
        let logged = self.lock().log(level, line);
        if !logged {
            worker.channel.log(level, line);
        }
    }

    /// [`Desk::log`] for a message that says where it was made.
    pub fn log_from(&self, worker: &Worker, level: Level, source: Source<'_>, line: &[u8]) {
        let logged = self.lock().log_from(level, source, line);
        if !logged {
            worker.channel.log(level, line);
        }
    }

    /// Logs lines for the request with this number of the row, if the thread still serves it.
    pub fn log_for(
        &self,
        worker: &Worker,
        row: &Row,
        number: u32,
        level: Level,
        lines: &[Vec<u8>],
    ) {
        let wire = self.lock();
        // A request ends by closing, which needs the lock, and leaves the row after that.
        if row.number.load(Ordering::Acquire) != number {
            return;
        }
        for line in lines {
            if !wire.log(level, line) {
                worker.channel.log(level, line);
            }
        }
    }
}
