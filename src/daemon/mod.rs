//! Daemon mode: applications in processes of their own.
//!
//! | part | feature | what it is |
//! |---|---|---|
//! | [`group`] | all | the configuration of one process group, and its text form |
//! | [`env_file`] | all | the format of `env-file=` |
//! | [`wire`] | all | the frames between an httpd child and a worker: a pure codec |
//! | [`control`] | all | the messages between supervisor and worker: a pure codec |
//! | [`board`] | `python`, `supervisor` | the page in which a worker shows what it is doing |
//! | `client` | `httpd` | the httpd child's side: pooled connections, one request at a time on each |
//! | `worker` | `python` | the worker's side: the reactor, the exchange over the wire |
//! | `supervisor` | `supervisor` | starts, watches and replaces the workers of one group |
//!
//! httpd's parent forks and execs one `rwsgi-daemon` (the supervisor) per process group; that execs
//! the application's own Python, which imports the gateway and becomes a worker.
//!
//! # Descriptors of a worker
//!
//! See [`fds`]: the numbers are part of the interface between supervisor and worker.

#[cfg(any(feature = "python", feature = "supervisor"))]
pub mod board;
pub mod control;
pub mod env_file;
pub mod group;
pub mod wire;

#[cfg(feature = "httpd")]
pub mod client;
#[cfg(feature = "supervisor")]
pub mod supervisor;
#[cfg(feature = "python")]
pub mod worker;

/// The descriptors that a worker (or a preloading template) finds open, beside 0, 1 and 2.
pub mod fds {
    /// The group's configuration, a memfd with the text form of [`GroupConfig`](super::group::GroupConfig).
    /// Read it with `pread`: the offset is shared with all workers.
    pub const CONFIG: i32 = 3;
    /// The control channel to the supervisor: `SOCK_SEQPACKET`, one [`control`](super::control)
    /// message per packet.
    pub const CONTROL: i32 = 4;
    /// The [`board`](super::board), a memfd. Not in a template.
    pub const BOARD: i32 = 5;
    /// The listening socket of the worker's slot. Not in a template and not in a service script.
    pub const LISTENER: i32 = 6;
    /// The page with httpd's scoreboard ([`page`](crate::metrics::page)), a memfd that can only be
    /// read. Only in a group with `server-metrics=On`.
    pub const SCOREBOARD: i32 = 7;
}
