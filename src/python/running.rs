//! The requests that run in an interpreter, for `mod_wsgi.active_requests`.
//!
//! Every request is listed, since the first look at the running ones may come from a signal or
//! from a debugger in the middle of them. Only from that look on is the dictionary kept up to date.

use core::cell::Cell;
use std::sync::OnceLock;
#[cfg(Py_GIL_DISABLED)]
use std::sync::{Mutex, PoisonError};

use pyo3::ffi;

use super::attach::Attached;
use super::object::{Owned, latin1};
use super::raise::{Raised, Result};
use super::request::{Kept, RequestCore};

/// The running requests of one interpreter: a list without memory of its own. It changes only while
/// attached, so the interpreter's GIL orders all access; where there is none, a lock does.
#[derive(Default)]
pub struct Running {
    first: Cell<*const RequestCore>,
    /// `active_requests`, once somebody has asked for it.
    shown: OnceLock<Owned>,
    #[cfg(Py_GIL_DISABLED)]
    lock: Mutex<()>,
}

/// The place of a request in its list.
pub struct Links {
    next: Cell<*const RequestCore>,
    previous: Cell<*const RequestCore>,
    listed: Cell<bool>,
}

impl Default for Links {
    fn default() -> Self {
        Links {
            next: Cell::new(core::ptr::null()),
            previous: Cell::new(core::ptr::null()),
            listed: Cell::new(false),
        }
    }
}

impl Running {
    fn ordered<R>(&self, work: impl FnOnce() -> R) -> R {
        #[cfg(Py_GIL_DISABLED)]
        let _guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        work()
    }

    /// Adds a request.
    ///
    /// # Safety
    /// `core` stays where it is until [`Links::remove`] has been called for it.
    #[inline]
    pub unsafe fn add(&self, py: Attached, core: &RequestCore) {
        self.ordered(|| {
            let next = self.first.get();
            core.links.next.set(next);
            core.links.listed.set(true);
            // SAFETY: what is listed lives, by this function's contract.
            if let Some(next) = unsafe { next.as_ref() } {
                next.links.previous.set(core);
            }
            self.first.set(core);
        });
        if self.is_shown() {
            self.show_one(py, core)
                .unwrap_or_else(|raised| raised.clear(py));
        }
    }

    #[inline]
    fn is_shown(&self) -> bool {
        self.shown.get().is_some()
    }

    #[cold]
    fn show_one(&self, py: Attached, core: &RequestCore) -> Result<()> {
        let (Some(dict), Some(id)) = (self.shown.get(), core.id()) else {
            return Ok(());
        };
        let (id, data) = (latin1(py, id)?, core.data(py)?);
        // SAFETY: live objects of the attached interpreter.
        match unsafe { ffi::PyDict_SetItem(dict.as_ptr(), id.as_ptr(), data.as_ptr()) } {
            0 => Ok(()),
            _ => Err(Raised),
        }
    }

    #[cold]
    fn hide_one(&self, py: Attached, core: &RequestCore) -> Result<()> {
        let (Some(dict), Some(id)) = (self.shown.get(), core.id()) else {
            return Ok(());
        };
        let id = latin1(py, id)?;
        // SAFETY: live objects of the attached interpreter.
        match unsafe { ffi::PyDict_DelItem(dict.as_ptr(), id.as_ptr()) } {
            0 => Ok(()),
            _ => Err(Raised),
        }
    }

    /// `active_requests`: the data of each request that has an id, by that.
    pub fn show(&self, py: Attached) -> Result<Owned> {
        if let Some(dict) = self.shown.get() {
            return Ok(dict.clone_ref(py));
        }
        // SAFETY: attached.
        let made = unsafe { Owned::from_new(ffi::PyDict_New())? };
        let dict = self.shown.get_or_init(|| made).clone_ref(py);
        // From here on requests come and go in it by themselves. Making objects may let them do so.
        let mut seen: Vec<*const RequestCore> = Vec::new();
        while let Some((core, _kept)) = self.next_not_in(&seen) {
            seen.push(core);
            self.show_one(py, core)?;
            if !self.ordered(|| core.links.listed.get()) {
                // It has ended meanwhile, before it was in the dictionary.
                self.hide_one(py, core)?;
            }
        }
        Ok(dict)
    }

    /// A running request that has not been seen, kept while the result lives.
    fn next_not_in(&self, seen: &[*const RequestCore]) -> Option<(&RequestCore, Option<Kept<'_>>)> {
        self.ordered(|| {
            let mut core = self.first.get();
            while !core.is_null() && seen.contains(&core) {
                // SAFETY: what is listed lives.
                core = unsafe { (*core).links.next.get() };
            }
            // SAFETY: it lives while it is listed, and then until it is not kept any more.
            let core = unsafe { core.as_ref()? };
            Some((core, core.keep()))
        })
    }
}

impl Links {
    /// Takes the request off the list, if it is there.
    #[inline]
    pub(super) fn remove(&self, py: Attached, core: &RequestCore) {
        if !self.listed.replace(false) {
            return;
        }
        let running = &py.interpreter().running;
        running.ordered(|| {
            let (next, previous) = (self.next.get(), self.previous.get());
            // SAFETY: what is listed lives; links change only here and in `add`.
            unsafe {
                match previous.as_ref() {
                    Some(previous) => previous.links.next.set(next),
                    None => running.first.set(next),
                }
                if let Some(next) = next.as_ref() {
                    next.links.previous.set(previous);
                }
            }
        });
        if running.is_shown() {
            running
                .hide_one(py, core)
                .unwrap_or_else(|raised| raised.clear(py));
        }
    }
}
