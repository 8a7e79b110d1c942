//! One request: attempts until it is answered or must not be sent again.

use core::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use super::buffers::{Buffers, room_for_body};
use super::connection::SendError;
use super::front::Front;
use super::pools::{Lane, Pools, Unavailable};
use super::pump::{End, Pump};
use super::retry::{Event, Failure, Progress, Verdict, judge};
use crate::daemon::wire::{INLINE_BODY, request};
use crate::exchange::abi::outcome;
use crate::exchange::{BodyError, Level, MayBlock, RequestHead, Target, Wait};
use crate::messages::{
    Code, DAEMON_BAD_ANSWER, DAEMON_CONNECT_FAILED, DAEMON_CUT, DAEMON_DIED, DAEMON_FORBIDDEN,
    DAEMON_NOT_SERVED, DAEMON_QUEUE_TIMEOUT, DAEMON_REQUEST_TOO_LARGE, DAEMON_TIMEOUT,
    DAEMON_UNAVAILABLE, DAEMON_VERSION,
};

/// After how many seconds an end user may try again when no worker could be reached.
const RETRY_AFTER: u32 = 5;

/// So much of a URI is logged.
const LONGEST_URI: usize = 1_000;

/// A request to be answered by a process group.
#[derive(Clone, Copy)]
pub struct Call<'a> {
    /// What was asked; `accept_time_us` is filled in by the client.
    pub head: &'a RequestHead<'a>,
    /// What answers it.
    pub target: Target<'a>,
    /// `WSGIIgnoreActivity`.
    pub ignore_activity: bool,
    /// The most detailed level that is logged for it, a number of [`Level`] or one above all.
    pub log_level: u8,
}

impl fmt::Display for Call<'_> {
    /// The request, for messages.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (method, uri) = (self.head.method.bytes(), self.head.request_uri.bytes());
        let uri = &uri[..uri.len().min(LONGEST_URI)];
        write!(f, "{} {}", method.escape_ascii(), uri.escape_ascii())
    }
}

/// Serves one request; see [`client::forward`](super::forward).
pub fn forward<F: Front>(pools: &Pools, front: &F, call: &Call<'_>, buffers: &mut Buffers) -> i32 {
    if let Err(status) = encode(front, call, buffers) {
        return status;
    }
    let lane = Lane::from(call.target.interface);
    let mut patience = None;
    let mut fresh_failures = 0;
    let mut there = None;
    let mut attempts = Attempts::default();
    loop {
        let lease = match pools.lease(lane, there.take(), &mut patience) {
            Ok(lease) => lease,
            Err(why) => return unavailable(pools, front, call, why),
        };
        let (slot, fresh) = (lease.slot(), lease.is_fresh());
        attempts.write(&mut buffers.request);
        let sent = lease.connection().send(&buffers.request);
        let mut pump = Pump::new(front, pools, call, lease, buffers);
        let end = match sent {
            Ok(()) => pump.run(),
            Err(SendError::Timeout) => pump.lost(Event::SendTimeout),
            Err(SendError::Gone) => pump.not_sent(),
        };
        let (event, answered) = match end {
            End::Outcome(outcome) => return outcome,
            End::Lost { event, answered } => (event, answered),
        };
        let progress = Progress {
            answered,
            fresh,
            fresh_failures,
        };
        match judge(event, progress) {
            Verdict::Resend { suspect } => {
                attempts.note(false);
                if suspect {
                    pools.suspect(slot);
                }
                fresh_failures += u32::from(fresh);
                log_resend(front, call, event);
            }
            Verdict::Again { there: same } => {
                if pools.is_over(&mut patience) {
                    return fail(pools, front, call, Failure::NotServed);
                }
                attempts.note(true);
                there = same.then_some(slot);
                log_resend(front, call, event);
            }
            Verdict::Fail { failure, suspect } => {
                if suspect {
                    pools.suspect(slot);
                }
                return fail(pools, front, call, failure);
            }
        }
    }
}

/// What the application is told of the attempts to send its request (`daemon_connects` and
/// `daemon_restarts` of `request_started`).
#[derive(Default)]
struct Attempts {
    failed: u16,
    refused: u16,
}

impl Attempts {
    /// The request is to be sent again; `refused`: a worker that is being replaced has said so.
    fn note(&mut self, refused: bool) {
        self.failed = self.failed.saturating_add(1);
        self.refused = self.refused.saturating_add(u16::from(refused));
    }

    /// Writes them into the frame, which says that there were none.
    #[inline]
    fn write(&self, frame: &mut [u8]) {
        if self.failed > 0 {
            request::set_attempts(frame, self.failed.saturating_add(1), self.refused);
        }
    }
}

/// Makes the REQUEST frame. `Err` is the HTTP status to answer with.
#[inline]
fn encode<F: Front>(front: &F, call: &Call<'_>, buffers: &mut Buffers) -> Result<(), i32> {
    let mut body_length = 0;
    let mut body_complete = true;
    if front.has_body() {
        let room = &mut room_for_body(&mut buffers.upload)[..INLINE_BODY];
        (body_length, body_complete) = arrived(front, room)?;
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let request = request::WireRequest {
        head: RequestHead {
            accept_time_us: now.map_or(0, |now| now.as_micros() as i64),
            daemon_connects: 1,
            ..*call.head
        },
        target: call.target,
        ignore_activity: call.ignore_activity,
        log_level: call.log_level,
        body: buffers.upload.get(..body_length).unwrap_or_default(),
        body_complete,
    };
    request::encode(&request, &mut buffers.request)
        .map_err(|request::TooLarge| too_large(front, call))
}

/// Takes what has arrived of the body; whether that is all of it.
#[inline(never)]
fn arrived<F: Front>(front: &F, room: &mut [u8]) -> Result<(usize, bool), i32> {
    let mut filled = 0;
    if front.expects_continue() {
        // The end user is told to go on only when the application reads.
        return Ok((0, false));
    }
    while filled < room.len() {
        match front.read(&mut room[filled..], Wait::No) {
            Ok(0) => return Ok((filled, true)),
            Ok(count) => filled += count,
            Err(BodyError::WouldBlock) => return Ok((filled, false)),
            // The server has answered itself; nothing an application says would be sent.
            Err(BodyError::Failed { status }) if front.has_answered() => {
                return Err(i32::from(status));
            }
            // The application learns it when it reads.
            Err(BodyError::Failed { .. }) => return Ok((filled, false)),
        }
    }
    Ok((filled, front.body_ended()))
}

#[cold]
fn too_large<F: Front>(front: &F, call: &Call<'_>) -> i32 {
    let line = format!("{DAEMON_REQUEST_TOO_LARGE}the head of the request is too large: {call}");
    front.log(Level::Error, false, line.as_bytes());
    431
}

#[cold]
fn log_resend<F: Front>(front: &F, call: &Call<'_>, event: Event) {
    let line = format!("the request was not started ({event:?}) and is sent again: {call}");
    front.log(Level::Debug, false, line.as_bytes());
}

fn group(pools: &Pools) -> String {
    String::from_utf8_lossy(&pools.settings().group).into_owned()
}

/// No worker could be reached.
#[cold]
fn unavailable<F: Front>(pools: &Pools, front: &F, call: &Call<'_>, why: Unavailable) -> i32 {
    let group = group(pools);
    let seconds = pools.settings().connect_timeout.as_secs_f64();
    let reason = |errno| std::io::Error::from_raw_os_error(errno);
    let line = match why {
        Unavailable::QueueFull => format!(
            "{DAEMON_UNAVAILABLE}the queues of the process group '{group}' were full for {seconds} \
             s; it has too few processes or threads for its requests: {call}"
        ),
        Unavailable::NobodyListens(errno) => format!(
            "{DAEMON_UNAVAILABLE}the process group '{group}' was not there for {seconds} s ({}); \
             see why its supervisor does not run: {call}",
            reason(errno)
        ),
        Unavailable::Failed(errno) => format!(
            "{DAEMON_CONNECT_FAILED}no connection to {} can be made: {}: {call}",
            pools.who(),
            reason(errno)
        ),
        Unavailable::NoLoop => return 500,
    };
    front.log(Level::Error, false, line.as_bytes());
    if !matches!(why, Unavailable::Failed(_)) {
        front.retry_after(RETRY_AFTER);
    }
    503
}

/// The request cannot be answered by the application, or not to the end.
#[cold]
fn fail<F: Front>(pools: &Pools, front: &F, call: &Call<'_>, failure: Failure) -> i32 {
    let seconds = pools.settings().socket_timeout.as_secs_f64();
    let (see, patience) = if pools.is_local() {
        ("the messages before this one", "Timeout")
    } else {
        ("the supervisor's messages", "socket-timeout")
    };
    let (status, code, what): (i32, Code, String) = match failure {
        Failure::Died => (
            502,
            DAEMON_DIED,
            format!(
                "ended while it had the request, which is not sent again since it may have been \
                 carried out; see {see}"
            ),
        ),
        Failure::AnswerTimeout => (
            504,
            DAEMON_TIMEOUT,
            format!("was silent for {seconds} s ({patience})"),
        ),
        Failure::QueueTimeout => (
            504,
            DAEMON_QUEUE_TIMEOUT,
            "had no thread free for the request within queue-timeout; it was not started"
                .to_owned(),
        ),
        Failure::Version => (
            500,
            DAEMON_VERSION,
            "is of another build than mod_rwsgi.so; install both from one build and restart httpd"
                .to_owned(),
        ),
        Failure::Malformed => (
            502,
            DAEMON_BAD_ANSWER,
            "sent what is no valid answer, or did not understand the request".to_owned(),
        ),
        Failure::Forbidden => (
            503,
            DAEMON_FORBIDDEN,
            "does not accept requests of the user that httpd runs as".to_owned(),
        ),
        Failure::NotServed => (
            503,
            DAEMON_NOT_SERVED,
            format!(
                "took connection after connection and ended each before the request was started; \
                 see {see}"
            ),
        ),
    };
    let who = pools.who();
    if front.has_sent() {
        if !front.client_gone() {
            let line = format!("{DAEMON_CUT}the response was cut short: {who} {what}: {call}");
            front.log(Level::Error, false, line.as_bytes());
        }
        front.abort(&MayBlock::detached());
        return outcome::CUT;
    }
    if front.has_body() && !front.body_ended() {
        // The rest is not waited for, only to be thrown away.
        front.close_after_response();
    }
    let line = format!("{code}{who} {what}: {call}");
    front.log(Level::Error, false, line.as_bytes());
    if failure == Failure::NotServed {
        front.retry_after(RETRY_AFTER);
    }
    status
}
