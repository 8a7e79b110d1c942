//! The messages between the supervisor and a worker (or a preloading template): one per packet of
//! a `SOCK_SEQPACKET` pair, a type byte and then the fields, little endian, texts with `u32`
//! lengths before them.

#![forbid(unsafe_code)]

use super::wire::{Malformed, Reader};
use crate::exchange::Lifespan;

/// No packet is larger; longer texts are cut by the sender.
pub const LARGEST: usize = 64 * 1024;

/// A script that a worker has loaded or shall load.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Script {
    /// The application group (interpreter) that it lives in.
    pub application_group: Vec<u8>,
    /// The file's absolute path.
    pub path: Vec<u8>,
}

/// An ASGI application whose startup has been completed: a replacement shall do that before it is
/// ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Application {
    /// Its script.
    pub script: Script,
    /// The name of its callable.
    pub callable: Vec<u8>,
    /// Whether that name was not configured.
    pub callable_is_default: bool,
    /// `ASGILifespan`.
    pub lifespan: Lifespan,
}

impl Application {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(u8::from(self.callable_is_default));
        out.push(self.lifespan as u8);
        put_script(out, &self.script);
        put(out, &self.callable);
    }

    fn take(reader: &mut Reader<'_>) -> Result<Application, Malformed> {
        let callable_is_default = match reader.u8()? {
            0 => false,
            1 => true,
            _ => return Err(Malformed),
        };
        Ok(Application {
            callable_is_default,
            lifespan: Lifespan::from_number(reader.u8()?).ok_or(Malformed)?,
            script: script(reader)?,
            callable: text(reader)?,
        })
    }

    /// As bytes, for a configuration.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.put(&mut out);
        out
    }

    /// From bytes.
    ///
    /// # Errors
    /// They are not what [`encode`](Self::encode) writes.
    pub fn decode(bytes: &[u8]) -> Result<Application, Malformed> {
        let mut reader = Reader(bytes);
        let application = Application::take(&mut reader)?;
        whole(&reader, application)
    }
}

/// Why a worker asks to be replaced, or is told to end. The names are those of mod_wsgi's
/// `process_stopping` event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Reason {
    /// SIGTERM or SIGINT; httpd stops or restarts.
    ShutdownSignal = 0,
    /// SIGUSR1 without an eviction-timeout.
    GracefulSignal = 1,
    /// SIGUSR1 with one.
    EvictionSignal = 2,
    /// `maximum-requests`.
    MaximumRequests = 3,
    /// `restart-interval`.
    RestartInterval = 4,
    /// `inactivity-timeout`.
    InactivityTimeout = 5,
    /// `request-timeout`.
    RequestTimeout = 6,
    /// `startup-timeout`.
    StartupTimeout = 7,
    /// `deadlock-timeout`.
    DeadlockTimeout = 8,
    /// `cpu-time-limit`.
    CpuTimeLimit = 9,
    /// A script has changed.
    ScriptReload = 10,
    /// `max-rss`.
    MaxRss = 11,
    /// Its supervisor is gone.
    SupervisorGone = 12,
}

impl Reason {
    const ALL: [(Reason, &'static str); 13] = [
        (Reason::ShutdownSignal, "shutdown_signal"),
        (Reason::GracefulSignal, "graceful_signal"),
        (Reason::EvictionSignal, "eviction_signal"),
        (Reason::MaximumRequests, "maximum_requests"),
        (Reason::RestartInterval, "restart_interval"),
        (Reason::InactivityTimeout, "inactivity_timeout"),
        (Reason::RequestTimeout, "request_timeout"),
        (Reason::StartupTimeout, "startup_timeout"),
        (Reason::DeadlockTimeout, "deadlock_timeout"),
        (Reason::CpuTimeLimit, "cpu_time_limit"),
        (Reason::ScriptReload, "script_reload"),
        (Reason::MaxRss, "max_rss"),
        (Reason::SupervisorGone, "supervisor_gone"),
    ];

    /// Its name in logs and events.
    pub fn name(self) -> &'static str {
        Reason::ALL[self as usize].1
    }

    fn from_number(number: u8) -> Result<Reason, Malformed> {
        Reason::ALL
            .get(usize::from(number))
            .map(|(reason, _)| *reason)
            .ok_or(Malformed)
    }
}

/// What a worker says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FromWorker {
    /// Everything is loaded; it takes requests as soon as it is told to ([`ToWorker::Go`]).
    Ready {
        /// Its process.
        pid: u32,
    },
    /// It cannot begin, and ends. The text (a traceback, if it is one) is to be logged.
    Failed {
        /// The script that does not load, if that is the reason.
        script: Option<Script>,
        /// Why, lines separated by line feeds.
        text: Vec<u8>,
    },
    /// It has loaded a script: a replacement shall load it before it is ready.
    Loaded {
        /// Which.
        script: Script,
    },
    /// The startup of an ASGI application has been completed.
    Started {
        /// Which.
        application: Application,
    },
    /// A request has found that a script has changed, and waits for a replacement.
    Stale {
        /// Which.
        script: Script,
        /// The new modification time, microseconds since the epoch.
        mtime_us: i64,
    },
    /// It should be replaced; it goes on serving.
    Retire {
        /// Why.
        reason: Reason,
    },
    /// It has reached a limit and starts no further request until it is told to
    /// ([`ToWorker::Go`]) or to end ([`ToWorker::Drain`]).
    Paused {
        /// Why.
        reason: Reason,
    },
    /// It has answered all it had and has closed its connections; exit handlers run now.
    Drained,
    /// A line of the log that belongs to no request.
    Log {
        /// A [`Level`](crate::exchange::Level).
        level: u8,
        /// The line, without its line feed.
        line: Vec<u8>,
    },
}

/// What the supervisor says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToWorker {
    /// Take requests (again).
    Go,
    /// Start no further request, answer those that run, close everything, run exit handlers, end.
    Drain {
        /// Why.
        reason: Reason,
    },
    /// The replacement for a changed script does not load: the old code goes on, and requests that
    /// wait are answered with it.
    StaysOld {
        /// Which script.
        script: Script,
        /// The modification time that was tried.
        mtime_us: i64,
        /// Milliseconds for which the same state is not to be reported again.
        retry_ms: u32,
    },
    /// Raise `mod_wsgi.RequestTimeout` in a thread, if it still serves that request.
    Interrupt {
        /// Index of the thread's row on the board.
        row: u16,
        /// The row's request number.
        number: u32,
    },
    /// Log the Python stack of a thread that still serves that request.
    DumpRequest {
        /// Index of the thread's row on the board.
        row: u16,
        /// The row's request number.
        number: u32,
    },
    /// Write the stacks of all threads to stderr, without the GIL.
    DumpAll,
    /// To a template: fork a worker. The descriptors of its control channel, board and listener
    /// come with the packet, in this order.
    Fork,
}

fn put(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    out.extend_from_slice(bytes);
}

fn put_script(out: &mut Vec<u8>, script: &Script) {
    put(out, &script.application_group);
    put(out, &script.path);
}

fn text(reader: &mut Reader<'_>) -> Result<Vec<u8>, Malformed> {
    let length = reader.u32()? as usize;
    reader.bytes(length).map(<[u8]>::to_vec)
}

fn script(reader: &mut Reader<'_>) -> Result<Script, Malformed> {
    Ok(Script {
        application_group: text(reader)?,
        path: text(reader)?,
    })
}

fn whole<T>(reader: &Reader<'_>, value: T) -> Result<T, Malformed> {
    if reader.0.is_empty() {
        Ok(value)
    } else {
        Err(Malformed)
    }
}

impl FromWorker {
    /// The packet. Texts are cut so that it is never larger than [`LARGEST`].
    pub fn encode(&self) -> Vec<u8> {
        let cut = |text: &[u8]| text[..text.len().min(LARGEST / 2)].to_vec();
        let mut out = Vec::new();
        match self {
            FromWorker::Ready { pid } => {
                out.push(1);
                out.extend_from_slice(&pid.to_le_bytes());
            }
            FromWorker::Failed { script, text } => {
                out.push(2);
                out.push(u8::from(script.is_some()));
                if let Some(script) = script {
                    put_script(&mut out, script);
                }
                put(&mut out, &cut(text));
            }
            FromWorker::Loaded { script } => {
                out.push(3);
                put_script(&mut out, script);
            }
            FromWorker::Stale { script, mtime_us } => {
                out.push(4);
                put_script(&mut out, script);
                out.extend_from_slice(&mtime_us.to_le_bytes());
            }
            FromWorker::Retire { reason } => out.extend_from_slice(&[5, *reason as u8]),
            FromWorker::Paused { reason } => out.extend_from_slice(&[6, *reason as u8]),
            FromWorker::Drained => out.push(7),
            FromWorker::Started { application } => {
                out.push(9);
                application.put(&mut out);
            }
            FromWorker::Log { level, line } => {
                out.extend_from_slice(&[8, *level]);
                put(&mut out, &cut(line));
            }
        }
        out
    }

    /// From a packet.
    pub fn decode(packet: &[u8]) -> Result<FromWorker, Malformed> {
        let mut reader = Reader(packet);
        let message = match reader.u8()? {
            1 => FromWorker::Ready { pid: reader.u32()? },
            2 => FromWorker::Failed {
                script: match reader.u8()? {
                    0 => None,
                    1 => Some(script(&mut reader)?),
                    _ => return Err(Malformed),
                },
                text: text(&mut reader)?,
            },
            3 => FromWorker::Loaded {
                script: script(&mut reader)?,
            },
            4 => FromWorker::Stale {
                script: script(&mut reader)?,
                mtime_us: reader.i64()?,
            },
            5 => FromWorker::Retire {
                reason: Reason::from_number(reader.u8()?)?,
            },
            6 => FromWorker::Paused {
                reason: Reason::from_number(reader.u8()?)?,
            },
            7 => FromWorker::Drained,
            8 => FromWorker::Log {
                level: reader.u8()?,
                line: text(&mut reader)?,
            },
            9 => FromWorker::Started {
                application: Application::take(&mut reader)?,
            },
            _ => return Err(Malformed),
        };
        whole(&reader, message)
    }
}

impl ToWorker {
    /// The packet.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let target = |out: &mut Vec<u8>, row: u16, number: u32| {
            out.extend_from_slice(&row.to_le_bytes());
            out.extend_from_slice(&number.to_le_bytes());
        };
        match self {
            ToWorker::Go => out.push(1),
            ToWorker::Drain { reason } => out.extend_from_slice(&[2, *reason as u8]),
            ToWorker::StaysOld {
                script,
                mtime_us,
                retry_ms,
            } => {
                out.push(3);
                put_script(&mut out, script);
                out.extend_from_slice(&mtime_us.to_le_bytes());
                out.extend_from_slice(&retry_ms.to_le_bytes());
            }
            ToWorker::Interrupt { row, number } => {
                out.push(4);
                target(&mut out, *row, *number);
            }
            ToWorker::DumpRequest { row, number } => {
                out.push(5);
                target(&mut out, *row, *number);
            }
            ToWorker::DumpAll => out.push(6),
            ToWorker::Fork => out.push(7),
        }
        out
    }

    /// From a packet.
    pub fn decode(packet: &[u8]) -> Result<ToWorker, Malformed> {
        let mut reader = Reader(packet);
        let message = match reader.u8()? {
            1 => ToWorker::Go,
            2 => ToWorker::Drain {
                reason: Reason::from_number(reader.u8()?)?,
            },
            3 => ToWorker::StaysOld {
                script: script(&mut reader)?,
                mtime_us: reader.i64()?,
                retry_ms: reader.u32()?,
            },
            4 => ToWorker::Interrupt {
                row: reader.u16()?,
                number: reader.u32()?,
            },
            5 => ToWorker::DumpRequest {
                row: reader.u16()?,
                number: reader.u32()?,
            },
            6 => ToWorker::DumpAll,
            7 => ToWorker::Fork,
            _ => return Err(Malformed),
        };
        whole(&reader, message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn a_script() -> Script {
        Script {
            application_group: b"group".to_vec(),
            path: b"/srv/app.wsgi".to_vec(),
        }
    }

    #[test]
    fn what_workers_say_survives() {
        for message in [
            FromWorker::Ready { pid: 7 },
            FromWorker::Failed {
                script: Some(a_script()),
                text: b"Traceback".to_vec(),
            },
            FromWorker::Failed {
                script: None,
                text: Vec::new(),
            },
            FromWorker::Loaded { script: a_script() },
            FromWorker::Started {
                application: Application {
                    script: a_script(),
                    callable: b"app".to_vec(),
                    callable_is_default: true,
                    lifespan: Lifespan::On,
                },
            },
            FromWorker::Stale {
                script: a_script(),
                mtime_us: -5,
            },
            FromWorker::Retire {
                reason: Reason::SupervisorGone,
            },
            FromWorker::Paused {
                reason: Reason::MaximumRequests,
            },
            FromWorker::Drained,
            FromWorker::Log {
                level: 6,
                line: b"line".to_vec(),
            },
        ] {
            let packet = message.encode();
            assert_eq!(FromWorker::decode(&packet), Ok(message));
            for length in 0..packet.len() {
                assert!(FromWorker::decode(&packet[..length]).is_err());
            }
        }
    }

    #[test]
    fn what_supervisors_say_survives() {
        for message in [
            ToWorker::Go,
            ToWorker::Drain {
                reason: Reason::ScriptReload,
            },
            ToWorker::StaysOld {
                script: a_script(),
                mtime_us: 1,
                retry_ms: 1000,
            },
            ToWorker::Interrupt { row: 3, number: 9 },
            ToWorker::DumpRequest { row: 3, number: 9 },
            ToWorker::DumpAll,
            ToWorker::Fork,
        ] {
            let packet = message.encode();
            assert_eq!(ToWorker::decode(&packet), Ok(message));
            for length in 0..packet.len() {
                assert!(ToWorker::decode(&packet[..length]).is_err());
            }
        }
    }

    #[test]
    fn reasons_keep_their_numbers() {
        for (index, (reason, name)) in Reason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, index);
            assert_eq!(reason.name(), *name);
        }
    }

    #[test]
    fn long_texts_are_cut() {
        let message = FromWorker::Log {
            level: 3,
            line: vec![b'x'; LARGEST * 2],
        };
        assert!(message.encode().len() <= LARGEST);
    }
}
