//! One request of an ASGI application, measured: it shares its thread with others, so what the
//! thread does is not its own, and its figures are kept by the request itself.
//!
//! What a thread's [`Observation`](super::observation::Observation) tells beyond these (the
//! processor's time, waits for the GIL, requests that are slow and still run) there is not.

use super::figures::{Figures, Times};
use super::interval::Completed;
use super::observation::is_wanted;
use super::recorder;
use super::slow::{SlowRequest, Texts};
use crate::exchange::RequestHead;
use crate::wsgi::server::clock_us;

/// A request that runs and is observed.
#[derive(Debug)]
pub struct TaskObservation {
    times: Times,
    start_us: i64,
    server_pid: u32,
    active_at_start: u32,
    /// Where slow requests are told of.
    texts: Option<Texts>,
    figures: Figures,
    status: u16,
}

impl TaskObservation {
    /// A request begins; `None` if nobody wants it to be observed.
    #[inline]
    pub fn begin(head: &RequestHead<'_>) -> Option<Box<TaskObservation>> {
        is_wanted().then(|| Self::begin_now(head))
    }

    #[cold]
    fn begin_now(head: &RequestHead<'_>) -> Box<TaskObservation> {
        let now = clock_us();
        Box::new(TaskObservation {
            times: Times {
                request_start_us: head.request_time_us,
                queue_start_us: head.accept_time_us,
                daemon_start_us: if head.accept_time_us == 0 { 0 } else { now },
                application_start_us: now,
            },
            start_us: now,
            server_pid: head.server_pid,
            active_at_start: recorder::enter(),
            texts: (recorder::slow_us() > 0).then(|| Texts::of(head, recorder::with_user_agent())),
            figures: Figures::default(),
            status: 0,
        })
    }

    /// The application was given so much of the body.
    pub fn note_input(&mut self, bytes: usize) {
        self.figures.input_reads += 1;
        self.figures.input_bytes += bytes as u64;
    }

    /// The application has given so much of the response.
    pub fn note_output(&mut self, bytes: usize) {
        self.figures.output_writes += 1;
        self.figures.output_bytes += bytes as u64;
    }

    /// The status of the response.
    pub fn note_status(&mut self, status: u16) {
        self.status = status;
    }

    /// The request is over.
    pub fn end(self) {
        let now = clock_us();
        let durations = self.times.durations(now);
        let active_at_completion = recorder::leave();
        let duration_us = u64::try_from(now.saturating_sub(self.start_us)).unwrap_or(0);
        let least = recorder::slow_us();
        let is_slow = least > 0 && duration_us >= least;
        let slow = self.texts.filter(|_| is_slow).map(|texts| SlowRequest {
            completed: true,
            start_us: self.start_us,
            duration_us,
            server_pid: self.server_pid,
            active_at_start: self.active_at_start,
            active_at_completion,
            durations,
            figures: self.figures,
            status: self.status,
            texts,
            ..SlowRequest::default()
        });
        let completed = Completed {
            durations,
            figures: self.figures,
            status: self.status,
        };
        recorder::completed(&completed, slow);
    }
}
