//! httpd and APR as C sees them, and what is a macro there.
//!
//! The bindings are generated at build time from the installed headers (`build.rs`), because
//! distributions add fields to structures without a new version number.

#[allow(
    non_camel_case_types,
    non_snake_case,
    non_upper_case_globals,
    dead_code,
    missing_docs,
    rustdoc::all,
    unsafe_op_in_unsafe_fn,
    clippy::all,
    clippy::undocumented_unsafe_blocks
)]
mod bindings {
    include!(concat!(env!("OUT_DIR"), "/httpd_bindings.rs"));
}

pub mod boundary;
pub mod log;
pub mod ring;
pub mod slot;

pub use bindings::*;

/// httpd's and APR's symbols in unit tests, which link neither.
#[cfg(test)]
#[allow(non_upper_case_globals, clippy::missing_docs_in_private_items)]
mod stand_ins {
    include!(concat!(env!("OUT_DIR"), "/httpd_stand_ins.rs"));

    fn no_httpd(name: &str) -> ! {
        eprintln!("a unit test called {name}, which only httpd has");
        std::process::abort();
    }
}
