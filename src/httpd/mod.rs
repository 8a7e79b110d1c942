//! Everything that knows httpd: `mod_rwsgi.so`.
//!
//! * [`sys`]: generated bindings, APR's ring and bucket macros, the panic boundary, logging.
//! * [`apache`]: thin typed wrappers around httpd's structures.
//! * [`config`]: the table of directives, typed configuration, `%{...}` expansion.
//! * [`daemon`]: process groups: their directives, and their supervisors in the parent.
//! * [`gateway`]: which gateway serves this configuration, and loading it into a child.
//! * [`exchange`]: the waist over `request_rec`.
//! * [`tunnel`]: bytes between a client and a worker after a switch of protocols.
//! * [`hooks`]: what httpd calls, and the module record.
//!
//! The object stays mapped over restarts (`-z nodelete`), so no static holds anything derived from
//! a configuration; what belongs to a configuration lives in its pools. `docs/safety.md` lists
//! the rules of httpd that the `unsafe` blocks rest on.

pub mod apache;
pub mod config;
pub mod daemon;
pub mod exchange;
pub mod gateway;
pub mod hooks;
pub mod sys;
pub mod tunnel;

/// The version that `Server:` and the start-up lines name.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The handler name that `SetHandler` and `AddHandler` use and aliases set.
pub const HANDLER: &core::ffi::CStr = c"wsgi-script";
