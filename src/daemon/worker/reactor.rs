//! The threads that serve requests.
//!
//! All wait in one edge-triggered epoll set with the listener and the idle connections, and take one
//! event at a time, so a worker reads no more requests than it has free threads. A small request
//! costs three system calls: `epoll_wait`, `recv`, `send`.

use core::sync::atomic::Ordering;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::PoisonError;

use super::connections::Held;
use super::desk::Desk;
use super::exchange::{Scratch, WireExchange};
use super::limit::Start;
use super::socket::{self, Received};
use super::waiting::{Entered, Waiting};
use super::{DRAINING, Job, LISTENER, PAUSED, WAKE, WORK, Worker, drain_eventfd};
use crate::daemon::board::now_ms;
use crate::daemon::control::{FromWorker, Reason, Script};
use crate::daemon::fds;
use crate::daemon::wire::request::{self, WireRequest};
use crate::daemon::wire::{HEADER, Header, Kind, Refused, VERSION, flag};
use crate::exchange::abi::outcome;
use crate::exchange::{Interface, Level, RequestHead};
use crate::messages;
use crate::python::runtime;
use crate::wsgi::server;

/// Room for a request, kept by every serving thread; larger ones make room for themselves.
const INPUT: usize = 32 * 1024;

/// What a serving thread works with.
struct Local {
    desk: &'static Desk,
    scratch: Scratch,
    input: Vec<u8>,
}

impl Worker {
    /// Starts the serving threads.
    ///
    /// # Errors
    /// The system's, when there is no memory for a thread.
    pub fn start_threads(&'static self) -> io::Result<()> {
        let stack = match self.config.stack_size {
            0 => crate::python::threads::default_stack_size(),
            size => usize::try_from(size).unwrap_or(usize::MAX),
        };
        for desk in &self.desks {
            self.serving.fetch_add(1, Ordering::AcqRel);
            let run = move || {
                desk.watch.attend();
                crate::python::slots::boundary(|| (), || self.serve_until_drained(desk));
                self.serving.fetch_sub(1, Ordering::AcqRel);
                super::signal_eventfd(self.control.as_raw_fd());
            };
            std::thread::Builder::new()
                .name(format!("rwsgi-{}", desk.row))
                .stack_size(stack)
                .spawn(run)?;
        }
        Ok(())
    }

    fn serve_until_drained(&'static self, desk: &'static Desk) {
        let mut local = Local {
            desk,
            scratch: Scratch::default(),
            input: vec![0; INPUT],
        };
        loop {
            let state = self.state.load(Ordering::Acquire);
            if state & DRAINING != 0 {
                return;
            }
            if state & PAUSED != 0 {
                self.wait_until_resumed();
                continue;
            }
            let token = self.next_event();
            match token {
                WAKE => self.on_wake(),
                _ if self.state.load(Ordering::Acquire) != 0 => self.defer(token),
                _ => self.on_event(&mut local, token),
            }
        }
    }

    fn wait_until_resumed(&self) {
        let mut paused = self.paused.lock().unwrap_or_else(PoisonError::into_inner);
        while self.state.load(Ordering::Acquire) == PAUSED {
            paused = self
                .resumed
                .wait(paused)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    #[inline]
    fn next_event(&self) -> u64 {
        let mut event = libc::epoll_event { events: 0, u64: 0 };
        loop {
            // SAFETY: room for one event.
            let count = unsafe { libc::epoll_wait(self.epoll.as_raw_fd(), &mut event, 1, -1) };
            if count == 1 {
                return event.u64;
            }
        }
    }

    /// An event that must not be handled now, and does not come again by itself.
    #[cold]
    fn defer(&self, token: u64) {
        if token != WORK {
            let mut deferred = self.deferred.lock().unwrap_or_else(PoisonError::into_inner);
            deferred.push(token);
        }
        // If the worker has been resumed in between, nobody else looks at the list.
        if self.state.load(Ordering::Acquire) == 0 {
            let mut deferred = self.deferred.lock().unwrap_or_else(PoisonError::into_inner);
            for token in deferred.drain(..) {
                self.add_job(Job::Event(token));
            }
        }
    }

    fn on_event(&'static self, local: &mut Local, token: u64) {
        match token {
            LISTENER => self.accept(),
            WORK => self.do_job(local),
            WAKE => {}
            _ => {
                if let Some(held) = self.connections.take(token) {
                    self.read_request(local, held);
                }
            }
        }
    }

    #[cold]
    fn do_job(&'static self, local: &mut Local) {
        if !drain_eventfd(self.work.as_raw_fd()) {
            return;
        }
        let job = {
            let mut jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
            if jobs.is_empty() {
                return;
            }
            jobs.remove(0)
        };
        match job {
            Job::Event(token) => self.on_event(local, token),
            Job::Serve(Waiting { held, frame }) => {
                let previous = core::mem::replace(&mut local.input, frame);
                let length = local.input.len();
                self.handle_frame(local, held, length);
                local.input = previous;
            }
        }
    }

    /// Accepts what is there. Each connection reports its first request as an event.
    #[cold]
    fn accept(&self) {
        loop {
            // SAFETY: no address wanted.
            let fd = unsafe {
                libc::accept4(
                    fds::LISTENER,
                    core::ptr::null_mut(),
                    core::ptr::null_mut(),
                    libc::SOCK_CLOEXEC,
                )
            };
            if fd < 0 {
                match io::Error::last_os_error().raw_os_error() {
                    Some(libc::EINTR | libc::ECONNABORTED) => continue,
                    Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::ENOBUFS) => {
                        self.accept_later();
                    }
                    _ => {}
                }
                return;
            }
            // SAFETY: a new descriptor.
            let socket = unsafe { OwnedFd::from_raw_fd(fd) };
            match socket::peer_uid(fd) {
                Ok(uid) if self.peers.contains(&uid) => {}
                answer => {
                    self.refuse_peer(fd, answer);
                    continue;
                }
            }
            socket::set_timeout(fd, self.config.socket_timeout);
            let Some(token) = self.connections.open(socket) else {
                continue;
            };
            if self.watch(fd, token, libc::EPOLLET).is_err() {
                drop(self.connections.take(token));
            }
        }
    }

    fn accept_later(&self) {
        if self.accept_again.swap(1, Ordering::AcqRel) == 0 {
            let line = format!(
                "{}no further connection can be accepted for want of file descriptors or memory; \
                 raise the limit of open files",
                messages::WORKER_NO_DESCRIPTORS
            );
            self.channel.log(Level::Error, line.as_bytes());
            super::signal_eventfd(self.control.as_raw_fd());
        }
    }

    /// Called by the control loop while connections could not be accepted.
    pub fn try_to_accept_again(&self) {
        self.accept_again.store(0, Ordering::Release);
        if !self.is_draining() {
            self.add_job(Job::Event(LISTENER));
        }
    }

    fn refuse_peer(&self, fd: i32, peer: io::Result<u32>) {
        let _ = socket::send(fd, &refusal(Refused::Forbidden));
        let peer = peer.map_or_else(|error| error.to_string(), |uid| format!("uid {uid}"));
        let line = format!(
            "{}a connection by {peer} was refused: only httpd's user may connect",
            messages::WORKER_PEER_REFUSED
        );
        self.channel.log(Level::Warning, line.as_bytes());
    }

    /// Reads a request from a connection that has reported something, and serves it.
    #[inline]
    fn read_request(&'static self, local: &mut Local, held: Held<'static>) {
        let mut held = held;
        let mut length = loop {
            match socket::receive(held.fd(), &mut local.input) {
                Received::Some(length) => break length,
                Received::End => return,
                Received::Nothing => match held.give_back() {
                    Ok(()) => return,
                    Err(still) => held = still,
                },
            }
        };
        let header = loop {
            match Header::peek(&local.input[..length]) {
                Some(Ok(header)) => break header,
                Some(Err(_)) => return self.refuse_malformed(held),
                None => {
                    let rest = &mut local.input[length..HEADER];
                    if socket::receive_exact(held.fd(), rest).is_err() {
                        return;
                    }
                    length = HEADER;
                }
            }
        };
        if header.kind != Kind::Request {
            return self.refuse_malformed(held);
        }
        if header.aux != VERSION {
            return self.refuse_version(held, header.aux);
        }
        let whole = HEADER + header.length as usize;
        if length > whole {
            return self.refuse_malformed(held);
        }
        if length < whole {
            if local.input.len() < whole {
                local.input.resize(whole, 0);
            }
            if socket::receive_exact(held.fd(), &mut local.input[length..whole]).is_err() {
                return;
            }
        }
        self.handle_frame(local, held, whole);
        if local.input.len() > INPUT {
            local.input.truncate(INPUT);
            local.input.shrink_to_fit();
        }
    }

    /// A whole REQUEST is in the thread's memory.
    fn handle_frame(&'static self, local: &Local, held: Held<'static>, length: usize) {
        let frame = &local.input[..length];
        let Some(Ok(header)) = Header::peek(frame) else {
            return self.refuse_malformed(held);
        };
        // The connection is kept here so that it is not lost with the closure.
        let mut place = Some(held);
        let decoded = request::decode(header, &frame[HEADER..], |request| {
            if let Some(held) = place.take() {
                if request.target.interface == Interface::Asgi {
                    let group = request.head.site.application_group.bytes();
                    return self.hand_to_loop(held, group, frame);
                }
                self.serve(local, held, request, frame);
            }
        });
        if decoded.is_err()
            && let Some(held) = place
        {
            self.refuse_malformed(held);
        }
    }

    fn serve(
        &'static self,
        local: &Local,
        held: Held<'static>,
        request: &WireRequest<'_>,
        frame: &[u8],
    ) {
        let now_us = server::clock_us();
        if self.config.queue_timeout > 0 && request.head.request_time_us > 0 {
            let longest = i64::from(self.config.queue_timeout) * 1_000_000;
            if now_us.saturating_sub(request.head.request_time_us) > longest {
                return answer_refusal(self, held, Refused::QueueTimeout);
            }
        }
        match self.limit.start() {
            Start::Free => {}
            Start::Warn => self.channel.tell(&FromWorker::Retire {
                reason: Reason::MaximumRequests,
            }),
            Start::Last => self.pause(Reason::MaximumRequests),
            Start::Beyond => {
                let frame = frame.to_vec();
                self.waiting.wait_for_limit(Waiting { held, frame });
                // The worker may have been told to go on, or to end, before that.
                match self.state.load(Ordering::Acquire) {
                    0 => self.serve_again(self.waiting.goes_on()),
                    state if state & DRAINING != 0 => self.let_go(),
                    _ => {}
                }
                return;
            }
        }
        let Some(runtime) = runtime::runtime() else {
            return;
        };
        let desk = local.desk;
        let now = now_ms();
        let summary = self.board.summary();
        let row = self.board.row(desk.row);
        let id = request.head.request_id.bytes().unwrap_or_default();
        if let Some(row) = row {
            let (method, uri) = (
                request.head.method.bytes(),
                request.head.request_uri.bytes(),
            );
            row.begin(now, [method, b" ", uri, b" ", id]);
        }
        summary.busy.fetch_add(1, Ordering::Relaxed);
        if summary.started.fetch_add(1, Ordering::Relaxed) == 0 {
            summary.first_request_ms.store(now, Ordering::Relaxed);
        }
        if self.watches_activity && !request.ignore_activity {
            summary.activity_ms.store(now, Ordering::Relaxed);
        }

        let head = RequestHead {
            daemon_time_us: now_us,
            ..request.head
        };
        let exchange = WireExchange::new(self, desk, &local.scratch, held, request);
        let result = match runtime.interpreter(head.site.application_group.bytes()) {
            Ok(interpreter) => {
                desk.set_interpreter(interpreter);
                server::serve_in(runtime, interpreter, &exchange, &head, &request.target)
            }
            Err(_) => 500,
        };
        if let Ok(status @ 100..) = u16::try_from(result) {
            exchange.answer_status(status);
        }
        let rest = exchange.close();

        summary.busy.fetch_sub(1, Ordering::Relaxed);
        if let Some(row) = row {
            row.end();
        }
        match (rest, result) {
            (Some(held), outcome::STALE) => {
                let frame = frame.to_vec();
                self.wait_for_replacement(request, Waiting { held, frame });
            }
            (Some(held), outcome::ASGI) => {
                self.limit.undo();
                let group = request.head.site.application_group.bytes();
                self.hand_to_loop(held, group, frame);
            }
            _ => {}
        }
    }

    /// The script has changed: the request waits without a thread.
    #[cold]
    pub(super) fn wait_for_replacement(&self, request: &WireRequest<'_>, waiting: Waiting) {
        self.limit.undo();
        let script = Script {
            application_group: request.head.site.application_group.bytes().to_vec(),
            path: request.target.script.bytes().to_vec(),
        };
        match self.waiting.wait_for_script(script, waiting) {
            Ok(Entered::Report(script, mtime_us)) => {
                self.channel.tell(&FromWorker::Stale { script, mtime_us });
            }
            Ok(Entered::Waits) => {}
            Err(waiting) => self.serve_again(vec![waiting]),
        }
        if self.is_draining() {
            self.let_go();
        }
    }

    #[cold]
    fn refuse_malformed(&self, held: Held<'_>) {
        let line = format!(
            "{}bytes came that are no request; is something else than httpd connected to this \
             worker?",
            messages::WORKER_MALFORMED
        );
        self.channel.log(Level::Error, line.as_bytes());
        refuse(held, Refused::Malformed);
    }

    #[cold]
    fn refuse_version(&self, held: Held<'_>, version: u16) {
        let line = format!(
            "{}httpd's module speaks version {version} of the protocol, this gateway {VERSION}; \
             install module and gateway of one build and restart httpd",
            messages::WORKER_VERSION
        );
        self.channel.log(Level::Error, line.as_bytes());
        refuse(held, Refused::Version);
    }
}

fn refusal(why: Refused) -> [u8; HEADER] {
    let header = Header {
        flags: flag::CLOSE,
        aux: why as u16,
        ..Header::new(Kind::Retry, 0)
    };
    header.encode()
}

/// Says that a request was not started, and closes the connection.
pub fn refuse(held: Held<'_>, why: Refused) {
    let _ = socket::send(held.fd(), &refusal(why));
}

/// Says that a request was not started; the connection stays.
fn answer_refusal(worker: &'static Worker, held: Held<'static>, why: Refused) {
    if worker.is_draining() {
        return refuse(held, why);
    }
    let header = Header {
        aux: why as u16,
        ..Header::new(Kind::Retry, 0)
    };
    match held.give_back_pinned() {
        Ok(pinned) => {
            if socket::send(pinned.fd(), &header.encode()).is_err() {
                worker.hang_up(pinned.fd());
            }
        }
        Err(held) => {
            if socket::send(held.fd(), &header.encode()).is_ok() {
                held.hand_over(|held| worker.arm(held));
            }
        }
    }
}

/// Says that nothing on this connection will be started any more, and closes it.
pub fn go_away(held: Held<'_>) {
    let header = Header {
        flags: flag::CLOSE,
        ..Header::new(Kind::GoAway, 0)
    };
    let _ = socket::send(held.fd(), &header.encode());
}
