//! Which request a line of the log belongs to.
//!
//! Many requests take turns on one thread, so the thread does not tell. The context of a task does:
//! it has the request in a variable, and tasks and threads that the application starts for the
//! request inherit it (`asyncio.create_task`, `asyncio.to_thread`, anyio).

use core::sync::atomic::{AtomicBool, Ordering};

use pyo3::ffi;

use super::awaitable::{self, Channel, Endpoint};
use crate::exchange::{Level, Source};
use crate::python::attach::Attached;
use crate::python::object::Owned;
use crate::python::raise::Result;

/// Whether there is an event loop in this process: without one nobody has to look.
static WANTED: AtomicBool = AtomicBool::new(false);

/// An event loop begins.
pub(super) fn want() {
    WANTED.store(true, Ordering::Relaxed);
}

/// In the context of the calling task, lines belong to `endpoint` from now on.
pub(super) fn enter(py: Attached, endpoint: &Endpoint) -> Result<()> {
    let state = py.interpreter().asgi();
    let marker = awaitable::channel(py, endpoint.clone(), true)?;
    // SAFETY: a live context variable and a live object; the token is not needed.
    unsafe {
        drop(Owned::from_new(ffi::PyContextVar_Set(
            state.request_variable.as_ptr(),
            marker.as_ptr(),
        ))?);
    }
    Ok(())
}

/// The request that the current context belongs to. The calling thread is attached.
fn current(py: Attached) -> Option<Endpoint> {
    if !WANTED.load(Ordering::Relaxed) {
        return None;
    }
    let state = py.interpreter().asgi_if_built()?;
    let mut value = core::ptr::null_mut();
    // SAFETY: a live context variable; the result is ours. What is in it we have put there, but an
    // application may have found the variable, so its type is compared.
    unsafe {
        if ffi::PyContextVar_Get(
            state.request_variable.as_ptr(),
            core::ptr::null_mut(),
            &mut value,
        ) < 0
        {
            ffi::PyErr_Clear();
            return None;
        }
        let value = Owned::from_new(value).ok();
        if value.is_none() {
            // Null without a value raises nothing.
            ffi::PyErr_Clear();
        }
        let value = value?;
        if ffi::Py_TYPE(value.as_ptr()).cast() != state.channel_type.as_ptr() {
            return None;
        }
        Some((*value.as_ptr().cast::<Channel>()).endpoint.clone())
    }
}

/// Logs a line for the request of the current context. `false`: there is none, or it is over.
pub fn log(py: Attached, level: Level, source: Option<Source<'_>>, lines: &[Vec<u8>]) -> bool {
    let Some(endpoint) = current(py) else {
        return false;
    };
    let (event_loop, token) = match &endpoint {
        Endpoint::Http(http) => (http.event_loop, http.log_token()),
        Endpoint::WebSocket(session) => (session.event_loop, session.log_token()),
    };
    if token == 0 {
        return false;
    }
    if crate::python::request::this_thread() == event_loop.thread() {
        return lines
            .iter()
            .all(|line| event_loop.log_for(token, level, source, line));
    }
    for line in lines {
        event_loop.log_from_elsewhere(token, level, line.clone());
    }
    true
}
