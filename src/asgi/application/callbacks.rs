//! What Python calls when the startup of an application has been answered, and its shutdown.

use std::sync::Arc;

use pyo3::ffi;

use super::Application;
use crate::exchange::Level;
use crate::messages;
use crate::python::attach::Attached;
use crate::python::object::{Owned, bytes_of};
use crate::python::order;
use crate::python::raise::{Raised, Result};
use crate::python::slots::{self, Methods, object_slot};

/// The name of capsules with an application.
const NAME: &core::ffi::CStr = c"rwsgi.Application";

pub(super) static STARTED: Methods<1> = Methods([slots::fast_args(c"started", started)]);
pub(super) static ENDED: Methods<1> = Methods([slots::fast_args(c"ended", ended)]);

impl Application {
    /// A function of ours that knows the application, and keeps it.
    pub(super) fn function<const N: usize>(
        &self,
        py: Attached,
        method: &'static Methods<N>,
    ) -> Result<Owned> {
        // SAFETY: `self` is in an Arc, as all applications are; the capsule has a reference of its
        // own, which its destructor gives back.
        unsafe {
            Arc::increment_strong_count(core::ptr::from_ref(self));
            let pointer = core::ptr::from_ref(self).cast_mut().cast();
            let capsule = Owned::from_new(ffi::PyCapsule_New(pointer, NAME.as_ptr(), Some(let_go)))
                .inspect_err(|_| Arc::decrement_strong_count(core::ptr::from_ref(self)))?;
            let _ = py;
            Owned::from_new(ffi::PyCFunction_New(
                method.0.as_ptr().cast_mut(),
                capsule.as_ptr(),
            ))
        }
    }

    fn report(&self, code: messages::Code, what: &str, lines: &[Vec<u8>]) {
        let line = format!("{code}{what}: {}", String::from_utf8_lossy(&self.path));
        self.event_loop.house.log(Level::Error, line.as_bytes());
        for line in lines {
            self.event_loop.house.log(Level::Error, line);
        }
    }
}

/// The destructor of such a capsule.
unsafe extern "C" fn let_go(capsule: *mut ffi::PyObject) {
    slots::boundary(
        || (),
        || {
            // SAFETY: a capsule of `Application::function`.
            unsafe {
                let pointer = ffi::PyCapsule_GetPointer(capsule, NAME.as_ptr());
                if !pointer.is_null() {
                    Arc::decrement_strong_count(pointer.cast::<Application>().cast_const());
                }
            }
        },
    );
}

/// Runs `body` with the application of a capsule and the arguments `(problem, lines)`.
///
/// # Safety
/// Called by CPython on the loop's thread, attached, with two arguments: None or a str, and a list
/// of bytes.
unsafe fn with_problem(
    capsule: *mut ffi::PyObject,
    arguments: *mut *mut ffi::PyObject,
    body: impl FnOnce(Attached, Arc<Application>, Option<(String, Vec<Vec<u8>>)>),
) -> *mut ffi::PyObject {
    object_slot(|| {
        // SAFETY: by contract.
        unsafe {
            let pointer = ffi::PyCapsule_GetPointer(capsule, NAME.as_ptr());
            if pointer.is_null() {
                return Err(Raised);
            }
            let pointer = pointer.cast::<Application>().cast_const();
            Arc::increment_strong_count(pointer);
            let application = Arc::from_raw(pointer);
            let py = Attached::assume(application.event_loop.interpreter);
            let problem = Owned::from_borrowed(py, *arguments);
            let problem = if problem.as_ptr() == ffi::Py_None() {
                None
            } else {
                let text = crate::python::log::utf8(py, problem.as_ptr())?;
                let lines = *arguments.add(1);
                let lines = (0..ffi::PyList_GET_SIZE(lines))
                    .map(|index| bytes_of(ffi::PyList_GET_ITEM(lines, index)).to_vec())
                    .collect();
                Some((String::from_utf8_lossy(&text).into_owned(), lines))
            };
            order::within(py, || body(py, application, problem));
            Ok(Owned::none(py))
        }
    })
}

/// `started(problem, lines)` of a lifespan.
unsafe extern "C" fn started(
    capsule: *mut ffi::PyObject,
    arguments: *mut *mut ffi::PyObject,
    _: ffi::Py_ssize_t,
) -> *mut ffi::PyObject {
    // SAFETY: METH_FASTCALL of a function of ours, called by `loop.py`.
    unsafe {
        with_problem(capsule, arguments, |py, application, problem| {
            let problem = problem.map(|(what, lines)| {
                let what = format!("the application cannot serve, {what}");
                if application.tell.borrow().is_none() {
                    let what = format!("{what}; requests get 500");
                    application.report(messages::ASGI_LIFESPAN_FAILED, &what, &lines);
                }
                let path = String::from_utf8_lossy(&application.path);
                let first = format!("{what}: {path}").into_bytes();
                [vec![first], lines].concat()
            });
            application.started(py, problem);
        })
    }
}

/// `ended(problem, lines)` of a lifespan.
unsafe extern "C" fn ended(
    capsule: *mut ffi::PyObject,
    arguments: *mut *mut ffi::PyObject,
    _: ffi::Py_ssize_t,
) -> *mut ffi::PyObject {
    // SAFETY: METH_FASTCALL of a function of ours, called by `loop.py`.
    unsafe {
        with_problem(capsule, arguments, |py, application, problem| {
            if let Some((what, lines)) = &problem {
                let what = format!("the application did not end as it should, {what}");
                application.report(messages::ASGI_SHUTDOWN_FAILED, &what, lines);
            }
            application.ended(py);
        })
    }
}
