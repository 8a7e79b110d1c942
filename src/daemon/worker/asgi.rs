//! What a worker decides for the event loops in it: limits, timeouts, what becomes of refused
//! requests. Requests for ASGI arrive at the serving threads like all others; the first one of a
//! connection takes the connection with it to the event loop of its application group.

use core::sync::atomic::Ordering;
use core::time::Duration;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::mpsc;
use std::time::Instant;

use super::connections::Held;
use super::limit::Start;
use super::socket;
use super::waiting::Waiting;
use super::{DRAINING, Job, Worker, signal_eventfd};
use crate::asgi::house::{Admission, Bounds, House, Returned};
use crate::asgi::loops;
use crate::daemon::board::now_ms;
use crate::daemon::control::{Application, FromWorker, Reason};
use crate::daemon::wire::request::{self, WireRequest};
use crate::daemon::wire::{HEADER, Header, Refused};
use crate::exchange::Level;
use crate::python::runtime;
use crate::wsgi::server;

/// How long requests go on in a worker that is to end, where nothing bounds them.
const LONGEST_DRAIN: Duration = Duration::from_secs(15);
/// As [`LONGEST_DRAIN`], for exit handlers.
const LONGEST_SHUTDOWN: Duration = Duration::from_secs(30);

/// How long the startup of applications may take before a worker is ready, where nothing bounds it.
const LONGEST_STARTUP: Duration = Duration::from_secs(60);

impl Worker {
    /// Starts the applications that a predecessor had started, and waits for them: the worker takes
    /// over when they serve. The calling thread is not attached.
    ///
    /// # Errors
    /// What the supervisor is to be told about a required script whose application cannot start: the
    /// predecessor goes on then.
    pub fn start_applications(&'static self) -> Result<(), FromWorker> {
        let Some(runtime) = runtime::runtime() else {
            return Ok(());
        };
        let mut begun = Vec::new();
        for application in &self.config.applications {
            let Ok(event_loop) = loops::of(runtime, &application.script.application_group, self)
            else {
                continue;
            };
            let (tell, told) = mpsc::channel();
            event_loop.begin_application(application.clone(), tell);
            begun.push((&application.script, told));
        }
        let longest = match self.config.startup_timeout {
            0 => LONGEST_STARTUP,
            seconds => Duration::from_secs(seconds.into()),
        };
        let until = Instant::now() + longest;
        for (script, told) in begun {
            // Without an answer in time, or without such an application, the first request will see.
            let left = until.saturating_duration_since(Instant::now());
            let Ok(Some(problem)) = told.recv_timeout(left) else {
                continue;
            };
            if self.config.required.contains(script) {
                return Err(FromWorker::Failed {
                    script: Some(script.clone()),
                    text: problem.join(&b"\n"[..]),
                });
            }
            let code = crate::messages::ASGI_LIFESPAN_FAILED.to_string();
            for (index, line) in problem.iter().enumerate() {
                let code = if index == 0 { code.as_bytes() } else { b"" };
                self.channel.log(Level::Error, &[code, line].concat());
            }
        }
        Ok(())
    }

    /// Gives a connection, with the request that has come over it, to the event loop of its
    /// application group.
    pub fn hand_to_loop(&'static self, held: Held<'static>, group: &[u8], frame: &[u8]) {
        let Some(runtime) = runtime::runtime() else {
            return;
        };
        let Ok(event_loop) = loops::of(runtime, group, self) else {
            // Why has been logged.
            let header = Header {
                flags: crate::daemon::wire::flag::END | crate::daemon::wire::flag::CLOSE,
                aux: 500,
                ..Header::new(crate::daemon::wire::Kind::Status, 0)
            };
            let _ = socket::send(held.fd(), &header.encode());
            return;
        };
        // From now on nothing of it is for the serving threads.
        let _ = self.epoll_ctl(libc::EPOLL_CTL_DEL, held.fd(), 0, 0);
        if let Some(socket) = held.into_socket() {
            event_loop.adopt(socket, frame.to_vec());
        }
    }

    /// A connection that comes back from an event loop: as if a thread had just taken it.
    fn hold(&'static self, socket: OwnedFd) -> Option<Held<'static>> {
        let fd = socket.as_raw_fd();
        socket::set_timeout(fd, self.config.socket_timeout);
        let token = self.connections.open(socket)?;
        let held = self.connections.take(token)?;
        if self.watch(fd, token, libc::EPOLLET).is_err() {
            return None;
        }
        Some(held)
    }
}

impl House for Worker {
    fn admit(&self, request: &WireRequest<'_>) -> Admission {
        if self.config.queue_timeout > 0 && request.head.request_time_us > 0 {
            let longest = i64::from(self.config.queue_timeout) * 1_000_000;
            if server::clock_us().saturating_sub(request.head.request_time_us) > longest {
                return Admission::Refuse(Refused::QueueTimeout);
            }
        }
        match self.limit.start() {
            Start::Free => {}
            Start::Warn => self.channel.tell(&FromWorker::Retire {
                reason: Reason::MaximumRequests,
            }),
            Start::Last => self.pause(Reason::MaximumRequests),
            Start::Beyond => return Admission::Wait,
        }
        let now = now_ms();
        let summary = self.board.summary();
        summary.busy.fetch_add(1, Ordering::Relaxed);
        if summary.started.fetch_add(1, Ordering::Relaxed) == 0 {
            summary.first_request_ms.store(now, Ordering::Relaxed);
        }
        if self.watches_activity && !request.ignore_activity {
            summary.activity_ms.store(now, Ordering::Relaxed);
        }
        Admission::Start
    }

    fn finished(&self) {
        self.board.summary().busy.fetch_sub(1, Ordering::Relaxed);
    }

    fn take_back(&self, socket: OwnedFd, frame: Vec<u8>, why: Returned) {
        let Some(this) = super::life::worker() else {
            return;
        };
        if matches!(why, Returned::Stale | Returned::NotAsgi) {
            self.finished();
        }
        let Some(held) = this.hold(socket) else {
            return;
        };
        match why {
            Returned::NotAsgi => {
                self.limit.undo();
                this.add_job(Job::Serve(Waiting { held, frame }));
            }
            Returned::Elsewhere => this.add_job(Job::Serve(Waiting { held, frame })),
            Returned::Limit => {
                self.waiting.wait_for_limit(Waiting { held, frame });
                // The worker may have been told to go on, or to end, before that.
                match self.state.load(Ordering::Acquire) {
                    0 => self.serve_again(self.waiting.goes_on()),
                    state if state & DRAINING != 0 => self.let_go(),
                    _ => {}
                }
            }
            Returned::Stale => {
                let waiting = Waiting { held, frame };
                let copy = waiting.frame.clone();
                let mut place = Some(waiting);
                if let Some(Ok(header)) = Header::peek(&copy) {
                    let _ = request::decode(header, &copy[HEADER..], |request| {
                        if let Some(waiting) = place.take() {
                            self.wait_for_replacement(request, waiting);
                        }
                    });
                }
            }
        }
    }

    fn has_successor(&self) -> bool {
        true
    }

    fn load(&self) -> u16 {
        let busy = self.board.summary().busy.load(Ordering::Relaxed);
        busy.min(u32::from(u16::MAX)) as u16
    }

    fn bounds(&self) -> Bounds {
        let seconds = |seconds: u32| Duration::from_secs(seconds.into());
        let config = &self.config;
        if self.is_hasty.load(Ordering::Relaxed) {
            let whole = match config.shutdown_timeout {
                0 => LONGEST_SHUTDOWN,
                timeout => seconds(timeout),
            };
            return Bounds {
                request: None,
                drain: whole / 4,
                shutdown: whole / 2,
            };
        }
        Bounds {
            request: (config.request_timeout > 0).then(|| seconds(config.request_timeout)),
            drain: match self.patience.load(Ordering::Relaxed) {
                0 => LONGEST_DRAIN,
                // What is ended then has a moment left before the supervisor loses its patience.
                patience => {
                    let patience = seconds(patience);
                    patience
                        .saturating_sub(Duration::from_secs(2))
                        .max(patience / 3)
                }
            },
            shutdown: match config.shutdown_timeout {
                0 => LONGEST_SHUTDOWN,
                shutdown => seconds(shutdown).mul_f64(0.8),
            },
        }
    }

    fn log(&self, level: Level, line: &[u8]) {
        self.channel.log(level, line);
    }

    fn application_started(&self, application: Application) {
        self.channel.tell(&FromWorker::Started { application });
    }

    fn loop_began(&self) {
        self.serving.fetch_add(1, Ordering::AcqRel);
    }

    fn loop_ended(&self) {
        self.serving.fetch_sub(1, Ordering::AcqRel);
        signal_eventfd(self.control.as_raw_fd());
    }
}
