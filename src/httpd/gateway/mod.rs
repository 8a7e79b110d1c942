//! Which gateway serves a configuration, and how a child loads it.
//!
//! Gateways lie in the directory `rwsgi` beside `mod_rwsgi.so`: for each Python one shared object
//! and, with the same stem, a record (`.conf`) of the Python it was built for. The file `default`
//! names the one to use where no WSGIPythonHome says otherwise.

pub mod choose;
pub mod directory;
pub mod home;
pub mod load;
pub mod record;
pub mod resident;

use crate::httpd::apache::PoolStr;

/// The gateway for a configuration; its strings lie in the configuration pool.
#[derive(Clone, Copy)]
pub struct Choice {
    /// The gateway's shared object.
    pub gateway: PoolStr,
    /// The libpython that belongs to it.
    pub libpython: PoolStr,
    /// The Python's version, for messages.
    pub version: PoolStr,
    /// Its build can run without the global lock.
    pub free_threaded: bool,
    /// The interpreter's executable: of the virtual environment, else of the installation.
    pub program: Option<PoolStr>,
    /// The prefix that WSGIPythonHome names, where it is no virtual environment.
    pub home: Option<PoolStr>,
}
