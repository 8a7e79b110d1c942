//! What the process around Python offers.

use crate::exchange::{Level, Source};

/// Takes a line of the log.
pub type Log = dyn Fn(Level, &[u8]) + Send + Sync;

/// Takes a line of the log that says where it was made.
pub type LogFrom = dyn Fn(Level, Source<'_>, &[u8]) + Send + Sync;

/// What becomes of a request whose script has changed, in a process that loads no script twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changed {
    /// It waits for another process: `serve` gives
    /// [`STALE`](crate::exchange::abi::outcome::STALE).
    Wait,
    /// The old code answers it.
    UseOld,
    /// It fails: the new code does not load, and the old must not be used.
    Fail,
}

/// Takes care of changed scripts by replacing the process. Both may be called from any thread that
/// is not attached.
pub trait Replacement: Send + Sync {
    /// A script has been loaded for the first time.
    fn loaded(&self, application_group: &[u8], path: &[u8]);
    /// A request has found that a script has changed; `keep` says that the old code may go on.
    fn changed(&self, application_group: &[u8], path: &[u8], mtime_us: i64, keep: bool) -> Changed;
}

/// What the process around Python offers. All may be called from any thread.
pub struct Services {
    /// Takes lines that belong to no request.
    pub log: Box<Log>,
    /// Takes such lines that say where they were made.
    pub log_from: Box<LogFrom>,
    /// Says whether lines of a level are logged outside of requests.
    pub logs: Box<dyn Fn(Level) -> bool + Send + Sync>,
    /// Says whether the process is about to end.
    pub is_ending: Box<dyn Fn() -> bool + Send + Sync>,
    /// Present where scripts are never loaded a second time.
    pub replacement: Option<Box<dyn Replacement>>,
    /// What httpd tells about its processes, encoded ([`crate::metrics::scoreboard`]), if it does.
    pub scoreboard: Box<Scoreboard>,
}

/// Gives httpd's scoreboard.
pub type Scoreboard = dyn Fn() -> Option<Vec<u8>> + Send + Sync;
