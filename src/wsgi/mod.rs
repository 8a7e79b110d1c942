//! The WSGI server: PEP 3333 over an [`Exchange`](crate::exchange::Exchange).
//!
//! * [`server`]: one request from its head to the end of its response.
//! * [`environ`]: the environ dictionary, copied from a template per mount.
//! * [`start_response`]: the callable of that name, and `write`.
//! * [`input`]: the object `wsgi.input`.
//! * [`body`]: the request body behind it.
//! * [`response`]: iterating over what the application returned.
//! * [`events`]: what subscribers are told of a request.
//! * [`request`]: what these share while a request lasts.

pub mod body;
pub mod environ;
pub mod events;
pub mod input;
pub mod request;
pub mod response;
pub mod server;
pub mod start_response;

#[cfg(test)]
pub(crate) mod tests;

use crate::python::attach::Attached;
use crate::python::object::{Owned, interned};
use crate::python::raise::Result;
use crate::python::runtime::Runtime;
use crate::python::script::Names;

pub use environ::ScriptState;

/// What the server keeps in every interpreter.
pub struct State {
    start_response: Owned,
    input: Owned,
    keys: environ::Keys,
    names: Names,
    close: Owned,
    consult: crate::consult::State,
    multithread: bool,
    multiprocess: bool,
    run_once: bool,
}

impl State {
    /// Makes types and names; called when an interpreter is made.
    pub fn build(py: Attached, runtime: &Runtime) -> Result<State> {
        Ok(State {
            start_response: start_response::make_type(py)?,
            input: input::make_type(py)?,
            keys: environ::Keys::new(py)?,
            names: Names::new(py)?,
            close: interned(py, "close")?,
            consult: crate::consult::State::build(py)?,
            multithread: runtime.options.multithread,
            multiprocess: runtime.options.multiprocess,
            run_once: runtime.options.run_once,
        })
    }

    /// Names that are looked up in every script.
    pub fn names(&self) -> &Names {
        &self.names
    }

    /// What consultations keep.
    pub fn consult(&self) -> &crate::consult::State {
        &self.consult
    }
}
