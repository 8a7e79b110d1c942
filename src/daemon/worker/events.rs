//! Tells applications of what happens to the process: signals, and that it ends.
//!
//! Their callbacks may take as long as they like, and may have to wait for the GIL, so a thread of its
//! own calls them: the control loop goes on. It is started by the first event.

use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;

use crate::daemon::control::Reason;
use crate::python::events;
use crate::python::runtime;
use crate::python::slots::boundary;

/// What applications are told.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// SIGHUP or SIGUSR2.
    Signal(&'static str, i32),
    /// The worker starts no further request.
    Stopping(Reason),
}

/// The thread, once there has been an event.
#[derive(Default)]
pub struct Events(Mutex<State>);

#[derive(Default)]
struct State {
    thread: Option<(Sender<Event>, JoinHandle<()>)>,
    stopping: bool,
}

impl Events {
    /// A signal has come. Nobody is told any more when the worker stops.
    pub fn signal(&self, name: &'static str, number: i32) {
        self.tell(Event::Signal(name, number));
    }

    /// The worker stops. Only the first reason counts.
    pub fn stopping(&self, reason: Reason) {
        self.tell(Event::Stopping(reason));
    }

    fn tell(&self, event: Event) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.stopping {
            return;
        }
        state.stopping = matches!(event, Event::Stopping(_));
        if state.thread.is_none() {
            let (sender, receiver) = mpsc::channel();
            let thread = std::thread::Builder::new()
                .name("rwsgi-events".to_owned())
                .spawn(move || boundary(|| (), || serve(&receiver)));
            // Without memory for a thread nobody can be told.
            state.thread = thread.ok().map(|thread| (sender, thread));
        }
        if let Some((sender, _)) = &state.thread {
            // It fails when the thread is gone, which only a bug makes happen.
            let _ = sender.send(event);
        }
    }

    /// Waits until all callbacks have returned.
    pub fn finish(&self) {
        let thread = {
            let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            state.stopping = true;
            state.thread.take()
        };
        if let Some((sender, thread)) = thread {
            drop(sender);
            let _ = thread.join();
        }
    }
}

fn serve(events: &Receiver<Event>) {
    let Some(runtime) = runtime::runtime() else {
        return;
    };
    while let Ok(event) = events.recv() {
        match event {
            Event::Signal(name, number) => events::process_signal(runtime, name, number),
            Event::Stopping(reason) => events::process_stopping(runtime, reason.name()),
        }
    }
}
