//! The garbage collectors of the interpreters, watched for telemetry.
//!
//! Every pass is noted by a function in `gc.callbacks`. It is native, so that no exception that is
//! raised in a thread from outside (`RequestTimeout`) can arrive in it.

use core::ffi::CStr;
use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use pyo3::ffi;

use super::datagram::{GcCounters, GcEvent};
use crate::python::attach::Attached;
use crate::python::object::Owned;
use crate::python::raise::{Raised, Result};
use crate::python::slots::{self, Methods, object_slot};
use crate::wsgi::server::clock_us;

/// Passes that are remembered between two reports.
const REMEMBERED: usize = 256;
/// Passes that are told of in one report.
const AT_A_TIME: usize = 64;

/// What has been noted of one interpreter.
#[derive(Default)]
pub struct Watch(Mutex<Noted>);

#[derive(Default)]
struct Noted {
    /// When the pass began that has not ended yet, microseconds since the epoch.
    started_us: i64,
    events: VecDeque<GcEvent>,
    /// Passes that were forgotten, since the last report.
    dropped: u64,
}

/// What there is to be told of an interpreter.
#[derive(Debug, Default)]
pub struct Report {
    /// Now.
    pub counters: GcCounters,
    /// Since the last report, the oldest first.
    pub events: Vec<GcEvent>,
    /// Events that were too many since then.
    pub dropped: u64,
}

const CAPSULE: &CStr = c"rwsgi.gc";

static CALLBACK: Methods<1> = Methods([slots::fast_args(c"note_collection", note)]);

/// Begins to watch the collector of this interpreter.
pub fn watch(py: Attached) -> Result<()> {
    let watch: &'static Watch = &py.interpreter().gc;
    // SAFETY: a pointer that is valid for ever and no destructor; C strings; a static method table,
    // whose functions get the capsule as their first argument.
    unsafe {
        let pointer = core::ptr::from_ref(watch).cast_mut().cast();
        let capsule = Owned::from_new(ffi::PyCapsule_New(pointer, CAPSULE.as_ptr(), None))?;
        let method = CALLBACK.0.as_ptr().cast_mut();
        let function = Owned::from_new(ffi::PyCFunction_New(method, capsule.as_ptr()))?;
        let module = Owned::from_new(ffi::PyImport_ImportModule(c"gc".as_ptr()))?;
        let callbacks = Owned::from_new(ffi::PyObject_GetAttrString(
            module.as_ptr(),
            c"callbacks".as_ptr(),
        ))?;
        match ffi::PyList_Append(callbacks.as_ptr(), function.as_ptr()) {
            0 => Ok(()),
            _ => Err(Raised),
        }
    }
}

/// `note_collection(phase, info)`: called by the collector, in whichever thread it runs.
unsafe extern "C" fn note(
    capsule: *mut ffi::PyObject,
    arguments: *mut *mut ffi::PyObject,
    count: ffi::Py_ssize_t,
) -> *mut ffi::PyObject {
    object_slot(|| {
        // SAFETY: the capsule of `watch`; `count` live arguments. What an application may pass
        // instead of a collector is looked at before it is used.
        unsafe {
            let pointer = ffi::PyCapsule_GetPointer(capsule, CAPSULE.as_ptr());
            let Some(watch) = pointer.cast::<Watch>().as_ref() else {
                return Err(Raised);
            };
            if count == 2 && ffi::PyUnicode_Check(*arguments) != 0 {
                let (phase, info) = (*arguments, *arguments.add(1));
                let is =
                    |text: &CStr| ffi::PyUnicode_CompareWithASCIIString(phase, text.as_ptr()) == 0;
                if is(c"start") {
                    watch.begins();
                } else if is(c"stop") && ffi::PyDict_Check(info) != 0 {
                    watch.ends(
                        number(info, c"generation"),
                        number(info, c"collected"),
                        number(info, c"uncollectable"),
                    );
                }
            }
            ffi::Py_INCREF(ffi::Py_None());
            Owned::from_new(ffi::Py_None())
        }
    })
}

/// A number of a dict; 0 if there is none.
///
/// # Safety
/// Attached; `dict` is a live dict.
unsafe fn number(dict: *mut ffi::PyObject, key: &CStr) -> u64 {
    // SAFETY: live by contract; the value is borrowed and used at once.
    unsafe {
        let value = ffi::PyDict_GetItemString(dict, key.as_ptr());
        if value.is_null() || ffi::PyLong_Check(value) == 0 {
            return 0;
        }
        let number = ffi::PyLong_AsLongLong(value);
        if number < 0 {
            ffi::PyErr_Clear();
        }
        u64::try_from(number).unwrap_or(0)
    }
}

impl Watch {
    fn begins(&self) {
        let mut noted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        noted.started_us = clock_us();
    }

    fn ends(&self, generation: u64, collected: u64, uncollectable: u64) {
        let mut noted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let start_us = core::mem::take(&mut noted.started_us);
        if start_us == 0 {
            // It began before it was watched.
            return;
        }
        if noted.events.len() >= REMEMBERED {
            noted.events.pop_front();
            noted.dropped += 1;
        }
        noted.events.push_back(GcEvent {
            start_us,
            duration_us: u64::try_from(clock_us().saturating_sub(start_us)).unwrap_or(0),
            generation,
            collected,
            uncollectable,
        });
    }

    /// What has been noted was the doing of another process.
    pub fn forget(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Noted::default();
    }

    fn take(&self) -> (Vec<GcEvent>, u64) {
        let mut noted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = noted.events.len().min(AT_A_TIME);
        let events = noted.events.drain(..count).collect();
        (events, core::mem::take(&mut noted.dropped))
    }
}

/// What there is to be told of this interpreter.
pub fn take(py: Attached) -> Report {
    let (events, dropped) = py.interpreter().gc.take();
    let counters = py.interpreter().prelude().gc_counters(py);
    Report {
        counters: counters.unwrap_or_else(|raised| {
            raised.clear(py);
            GcCounters::default()
        }),
        events,
        dropped,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passes_are_remembered_up_to_a_limit() {
        let watch = Watch::default();
        watch.ends(0, 1, 0);
        assert_eq!(watch.take(), (vec![], 0), "it had not begun");
        for collected in 0..REMEMBERED as u64 + 3 {
            watch.begins();
            watch.ends(2, collected, 1);
        }
        let (events, dropped) = watch.take();
        assert_eq!((events.len(), dropped), (AT_A_TIME, 3));
        assert_eq!((events[0].collected, events[0].generation), (3, 2));
        assert!(events[0].start_us > 0);
        let (events, dropped) = watch.take();
        assert_eq!((events[0].collected, dropped), (3 + AT_A_TIME as u64, 0));
    }
}
