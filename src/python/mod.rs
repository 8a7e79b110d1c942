//! The embedded Python runtime: starting and ending it, interpreters, thread states, objects,
//! scripts and logging. Written over `pyo3::ffi`; PyO3's safe layer is never used, since its caches
//! are per process and an interpreter must own all that it hands out (`docs/safety.md`).
//!
//! * [`runtime`]: Python in this process: its start, its interpreters by application group; its
//!   [`options`] and the [`services`] of the process around it; `configuration` fills CPython's own;
//!   [`stop`] is the end.
//! * [`interpreter`]: application groups, each an interpreter with everything that belongs to it.
//! * [`attach`]: thread states, the [`attach::Attached`] token, detaching around what may block.
//! * [`gate`]: first come, first served for new requests.
//! * [`order`]: what takes the GIL's place where there is none.
//! * [`object`], [`raise`], [`slots`]: owned pointers, errors, the panic boundary of type slots.
//! * [`request`]: what a thread's current request means to this layer: where log lines go and who
//!   may use the exchange.
//! * [`events`]: what applications are told of the process.
//! * [`running`]: the requests that run in an interpreter.
//! * [`log`]: the text stream behind `wsgi.errors`, `sys.stderr` and `sys.stdout`.
//! * [`script`]: loading and reloading script files.
//! * [`prelude`], [`api`]: what is cold and better said in Python; the modules `mod_wsgi` and
//!   `apache`.

pub mod api;
pub mod attach;
pub mod capsule;
mod configuration;
pub mod events;
pub mod exceptions;
pub mod gate;
pub mod interpreter;
pub mod log;
pub mod object;
pub mod options;
pub mod order;
pub mod prelude;
pub mod raise;
pub mod request;
pub mod running;
pub mod runtime;
pub mod script;
pub mod services;
pub mod slots;
pub mod stop;
pub mod threads;
