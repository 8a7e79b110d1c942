//! The httpd side of process groups: what is configured, and the supervisors in the parent.
//!
//! * [`options`], [`values`], [`accounts`]: the options of `WSGIDaemonProcess`.
//! * [`directives`]: the directives about process groups.
//! * [`group`]: the groups of a configuration.
//! * [`places`]: the directories and files that the options name.
//! * [`identity`]: who a group runs as.
//! * [`trial`]: whether its user can use them.
//! * [`start`]: from the configuration to running supervisors.
//! * [`socket`]: the listening sockets.
//! * [`spawn`]: fork, drop privileges, exec.
//! * [`generation`]: the supervisors that run; their deaths, restarts and end.
//! * [`scoreboard`]: what workers are told of httpd's processes.
//! * [`route`]: which process group serves a request.

pub mod accounts;
pub mod directives;
pub mod generation;
pub mod group;
pub mod identity;
pub mod options;
pub mod places;
pub mod route;
pub mod scoreboard;
pub mod socket;
pub mod spawn;
pub mod start;
pub mod trial;
pub mod values;

pub use group::{Group, Groups};
