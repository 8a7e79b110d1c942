//! What a death is called.

use core::fmt;

use crate::daemon::board::Running;

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It called exit.
    Exit(i32),
    /// A signal killed it.
    Signal {
        /// Which.
        number: i32,
        /// It left a core.
        core: bool,
    },
    /// Its channel was closed before its process was known.
    Unknown,
}

/// A death, with what is known about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Death {
    /// How the process ended.
    pub ended: Ended,
    /// The kernel has killed processes for want of memory meanwhile.
    pub out_of_memory: bool,
    /// Its CPU time was at least `cpu-time-limit`.
    pub out_of_cpu_time: bool,
    /// What it wrote last to stderr, if that explains something.
    pub last_words: Option<String>,
    /// The requests that it was serving.
    pub running: Vec<Running>,
}

impl Death {
    /// It ended by itself, without an error.
    pub fn is_clean(&self) -> bool {
        self.ended == Ended::Exit(0)
    }

    /// For a log line: how it ended. `killed`: by the supervisor.
    pub(super) fn describe(&self, killed: bool) -> String {
        let mut text = match self.ended {
            Ended::Exit(code) => format!("with exit code {code}"),
            Ended::Signal { number, core } => {
                let core = if core { ", core dumped" } else { "" };
                format!("by signal {number} ({}{core})", Signal(number))
            }
            Ended::Unknown => "before it had said who it is".to_owned(),
        };
        if let Ended::Signal { number, .. } = self.ended {
            if number == libc::SIGKILL && !killed {
                text += if self.out_of_cpu_time {
                    ": its CPU time was used up (cpu-time-limit)"
                } else if self.out_of_memory {
                    ": out of memory, the kernel has killed it"
                } else {
                    ": not sent by the supervisor, but by a person, a program or the kernel"
                };
            }
        }
        if let Some(words) = &self.last_words {
            text += &format!("; it wrote last: {words}");
        }
        text
    }
}

/// A signal's name.
#[derive(Clone, Copy, Debug)]
pub struct Signal(pub i32);

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.0 {
            libc::SIGHUP => "SIGHUP",
            libc::SIGINT => "SIGINT",
            libc::SIGQUIT => "SIGQUIT",
            libc::SIGILL => "SIGILL",
            libc::SIGTRAP => "SIGTRAP",
            libc::SIGABRT => "SIGABRT",
            libc::SIGBUS => "SIGBUS",
            libc::SIGFPE => "SIGFPE",
            libc::SIGKILL => "SIGKILL",
            libc::SIGUSR1 => "SIGUSR1",
            libc::SIGSEGV => "SIGSEGV",
            libc::SIGUSR2 => "SIGUSR2",
            libc::SIGPIPE => "SIGPIPE",
            libc::SIGALRM => "SIGALRM",
            libc::SIGTERM => "SIGTERM",
            libc::SIGXCPU => "SIGXCPU",
            libc::SIGXFSZ => "SIGXFSZ",
            libc::SIGSYS => "SIGSYS",
            _ => "another signal",
        };
        f.write_str(name)
    }
}
