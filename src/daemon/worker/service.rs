//! Service scripts, `threads=0`: a process for the import scripts alone. They run on the main
//! thread; SIGTERM raises SystemExit in them.

use std::os::fd::AsRawFd;

use super::Worker;
use super::channel::Received;
use super::{imports, signals};
use crate::daemon::control::{FromWorker, ToWorker};
use crate::exchange::Level;
use crate::messages;
use crate::python::attach;
use crate::python::exceptions;
use crate::python::runtime::Runtime;

impl Worker {
    /// Is the service: waits to be told to go, and runs the scripts.
    pub fn run_scripts(&'static self, runtime: &'static Runtime) {
        self.channel.tell(&FromWorker::Ready {
            pid: std::process::id(),
        });
        if !self.is_told_to_go() {
            return;
        }
        signals::leave_termination_to_python();
        self.start_attendant();
        if let Some(main) = runtime.interpreters().last() {
            let guard = attach::attach(main);
            let py = guard.token();
            if let Err(raised) = main.prelude().tell(py, c"terminate_by_exception") {
                let what = "the handler of SIGTERM could not be installed";
                let code = messages::WORKER_START_FAILED;
                exceptions::log_for_process(py, code, what, &raised.take(py));
            }
        }
        // SAFETY: no arguments.
        let main_thread = unsafe { libc::pthread_self() };
        let obey = move || self.obey_for_service(main_thread);
        let started = std::thread::Builder::new()
            .name("rwsgi-control".to_owned())
            .spawn(obey);
        if let Err(error) = started {
            super::life::fail(
                Some(self.channel),
                &format!("no thread can be started: {error}"),
            );
        }
        for script in &self.config.imports {
            match imports::load(runtime, script, imports::CODE, "a service script failed") {
                Ok(()) => {}
                // The usual way to end.
                Err(imports::Failure::Exit(_)) => return,
                Err(failure) => {
                    for line in failure.lines() {
                        self.channel.log(Level::Error, line);
                    }
                }
            }
        }
    }

    fn next_message(&self) -> Received {
        loop {
            let mut wait = libc::pollfd {
                fd: self.channel.fd(),
                events: libc::POLLIN,
                revents: 0,
            };
            // SAFETY: one valid structure.
            unsafe { libc::poll(&mut wait, 1, -1) };
            match self.channel.receive() {
                Received::Nothing => {}
                received => return received,
            }
        }
    }

    fn is_told_to_go(&self) -> bool {
        loop {
            match self.next_message() {
                Received::Message(ToWorker::Go) => return true,
                Received::Message(ToWorker::Drain { .. }) | Received::Closed => return false,
                Received::Message(_) | Received::Garbage | Received::Nothing => {}
            }
        }
    }

    /// The control loop beside the scripts.
    fn obey_for_service(&self, main_thread: libc::pthread_t) {
        loop {
            match self.next_message() {
                Received::Message(ToWorker::DumpAll) => self.dump_all(),
                Received::Message(ToWorker::Drain { .. }) | Received::Closed => {
                    // SAFETY: the main thread lives as long as the process.
                    unsafe { libc::pthread_kill(main_thread, libc::SIGTERM) };
                    return;
                }
                Received::Message(_) | Received::Garbage | Received::Nothing => {}
            }
        }
    }

    /// Where the handlers wake somebody.
    pub fn wake_descriptor(&self) -> i32 {
        self.control.as_raw_fd()
    }
}
