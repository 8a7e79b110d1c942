//! Events of the process, and the dictionary that every event is.

use core::ffi::CStr;

use pyo3::ffi;

use super::attach::{self, Attached};
use super::exceptions;
use super::object::{Owned, dict_item_by_name, float, int, latin1};
use super::raise::{Raised, Result};
use super::runtime::Runtime;
use crate::messages;
use crate::metrics::observation::{Reader, is_wanted_by, want};

/// The payload of an event under construction.
pub struct Event<'p> {
    py: Attached,
    dict: Owned,
    name: &'p str,
}

impl<'p> Event<'p> {
    /// An event of this name, without payload.
    ///
    /// # Errors
    /// No memory.
    pub fn new(py: Attached, name: &'p str) -> Result<Event<'p>> {
        // SAFETY: attached.
        let dict = unsafe { Owned::from_new(ffi::PyDict_New())? };
        Ok(Event { py, dict, name })
    }

    /// Adds an object.
    pub fn put(&self, key: &CStr, value: &Owned) -> Result<()> {
        // SAFETY: our own dict, a C string, a live object of the attached interpreter.
        match unsafe { ffi::PyDict_SetItemString(self.dict.as_ptr(), key.as_ptr(), value.as_ptr()) }
        {
            0 => Ok(()),
            _ => Err(Raised),
        }
    }

    /// Adds a number.
    pub fn put_int(&self, key: &CStr, value: i64) -> Result<()> {
        self.put(key, &int(self.py, value)?)
    }

    /// Adds a point in time or a duration, given in microseconds, as seconds.
    pub fn put_seconds(&self, key: &CStr, microseconds: i64) -> Result<()> {
        self.put(key, &float(self.py, microseconds as f64 / 1e6)?)
    }

    /// Adds a text.
    pub fn put_text(&self, key: &CStr, value: &[u8]) -> Result<()> {
        self.put(key, &latin1(self.py, value)?)
    }

    /// Tells the subscribers, and gives what they have made of the value under `key`.
    ///
    /// # Errors
    /// Raises `RequestTimeout` if that came meanwhile.
    pub fn publish_for(self, key: &CStr) -> Result<Option<Owned>> {
        let (py, dict) = (self.py, self.dict.clone_ref(self.py));
        self.publish()?;
        // SAFETY: our own dict.
        unsafe { dict_item_by_name(py, dict.as_ptr(), key) }
    }

    /// Tells the subscribers.
    ///
    /// # Errors
    /// Raises `RequestTimeout` if that came meanwhile.
    pub fn publish(self) -> Result<()> {
        let prelude = self.py.interpreter().prelude();
        prelude.publish(self.py, self.name, self.dict)
    }
}

/// Whether anybody has subscribed to events in the attached interpreter.
///
/// The list itself says so, since programs append to it as well as call `subscribe_events`.
#[inline]
pub fn has_subscribers(py: Attached) -> bool {
    let callbacks = &py.interpreter().prelude().event_callbacks;
    // SAFETY: a live list, whose size is read.
    unsafe { ffi::PyList_GET_SIZE(callbacks.as_ptr()) != 0 }
}

/// Has requests observed from now on if anybody has subscribed to events here.
#[inline]
pub fn notice_subscribers(py: Attached) {
    if has_subscribers(py) && !is_wanted_by(Reader::Events) {
        want(Reader::Events);
    }
}

/// Tells the subscribers in all interpreters of an event. The calling thread is not attached.
fn tell_all(runtime: &Runtime, name: &str, fill: impl Fn(&Event<'_>) -> Result<()>) {
    for interpreter in runtime.interpreters() {
        let guard = attach::attach(interpreter);
        let py = guard.token();
        let told = Event::new(py, name).and_then(|event| {
            fill(&event)?;
            event.publish()
        });
        if let Err(raised) = told {
            let what = format!("the event '{name}' could not be told of");
            let code = messages::EVENT_CALLBACK_FAILED;
            exceptions::log_for_process(py, code, &what, &raised.take(py));
        }
    }
}

/// The process stops; `reason` is one of `daemon::control`, or empty.
pub fn process_stopping(runtime: &Runtime, reason: &str) {
    tell_all(runtime, "process_stopping", |event| {
        event.put_text(c"shutdown_reason", reason.as_bytes())
    });
}

/// The process has got a signal that means nothing to the server.
pub fn process_signal(runtime: &Runtime, name: &str, number: i32) {
    tell_all(runtime, "process_signal", |event| {
        event.put_text(c"signame", name.as_bytes())?;
        event.put_int(c"signum", number.into())
    });
}
