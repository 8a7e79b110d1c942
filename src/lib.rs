//! rwsgi hosts Python web applications inside Apache httpd 2.4.
//!
//! One source tree, several artefacts, none knowing the others' world:
//!
//! | artefact | feature | what it is |
//! |---|---|---|
//! | `mod_rwsgi.so` | `httpd` | the httpd module: directives, hooks, the exchange over `request_rec`. Links no libpython. |
//! | `_rwsgi.cpython-3XY-….so` | `python` | the gateway: the WSGI server over CPython and an [`exchange::Exchange`]. Names no httpd symbol. One per Python version. |
//! | `rwsgi-daemon` | `supervisor` | the program that keeps the workers of a process group running. Neither httpd nor Python in it. |
//!
//! Module and gateway meet in [`exchange`], the narrow waist: a request head of borrowed bytes, a body reader,
//! a response writer, a log sink. Between the two shared objects the waist is the versioned C ABI
//! of [`exchange::abi`]; inside a crate it is the trait.
//!
//! Where to look:
//! * [`exchange`]: the waist and the pure rules (header names, response validation).
//! * `httpd`: everything that knows httpd (`sys`, `apache`, `config`, `hooks`).
//! * `python`: the embedded runtime: interpreters, thread states, objects, scripts, logging.
//! * [`daemon`]: daemon mode: the wire between httpd and a worker, the supervisor.
//! * [`metrics`]: timings and counts, telemetry.
//! * `consult`: functions of scripts that the server asks about a request (access, users, groups).
//! * `websocket`: the WebSocket protocol (framing, compression, handshake), without I/O or Python.
//! * `wsgi`: the WSGI server: environ, `start_response`, input, the response loop.
//! * `asgi`: the ASGI server: event loops, scope, `receive` and `send`, lifespan, WebSockets.
//!
//! `docs/architecture.md` is the map, `docs/safety.md` the list of invariants that the `unsafe`
//! blocks rest on.

pub mod daemon;
pub mod exchange;
pub mod messages;
pub mod metrics;

/// The version of this product.
pub const VERSION: [u32; 3] = [0, 1, 0];

/// The version of mod_wsgi whose behaviour and Python interface we offer, as `mod_wsgi.version`:
/// programs test for features by it.
pub const MOD_WSGI_VERSION: [u32; 3] = [6, 1, 1];

#[cfg(feature = "httpd")]
pub mod httpd;

#[cfg(feature = "python")]
pub mod asgi;
#[cfg(feature = "python")]
pub mod consult;
#[cfg(feature = "python")]
pub mod gateway;
#[cfg(feature = "python")]
pub mod python;
#[cfg(feature = "websocket")]
pub mod websocket;
#[cfg(feature = "python")]
pub mod wsgi;
