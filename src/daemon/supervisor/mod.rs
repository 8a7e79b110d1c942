//! The supervisor of one process group: the program `rwsgi-daemon`.
//!
//! One thread, one `epoll` set, no sleeping. Everything that is a decision is in [`machine`], which
//! knows no process; everything else carries it out:
//!
//! * `cli`, `check`: the command line; what a configuration must fulfil.
//! * `reactor`: signals, channels, pipes and timers in, actions out.
//! * `process`, `environment`, `bootstrap`: how a worker is made.
//! * `output`, `log`: workers' stderr, and the lines of the log.
//! * `memory`: what the kernel says about memory.
//! * `sys`: the system calls.

mod bootstrap;
mod check;
mod cli;
mod environment;
mod log;
pub mod machine;
mod memory;
mod output;
mod process;
mod reactor;
mod sockets;
mod sys;

pub use cli::main;
