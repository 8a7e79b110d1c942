//! What the end of an attempt means: whether the request may have been started.
//!
//! The worker acts only on a whole REQUEST, and the client sends nothing after it until the worker
//! has asked or answered. Therefore what the kernel says about a connection that broke tells
//! whether the worker had read the request (`docs/daemon.md` has the table).

#![forbid(unsafe_code)]

use crate::daemon::wire::Refused;

/// Fresh connections that may fail for one request.
pub const FRESH_FAILURES: u32 = 3;

/// How an attempt ended without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The frame could not be sent: EPIPE or ECONNRESET, at once or after a part of it.
    SendFailed,
    /// The frame could not be sent in time.
    SendTimeout,
    /// ECONNRESET: the peer has gone with some of our bytes unread.
    Reset,
    /// The peer has gone and had read everything.
    Eof,
    /// GOAWAY.
    GoAway,
    /// RETRY.
    Refused(Refused),
    /// Nothing came within the time for one read.
    Timeout,
    /// What came is no answer.
    Malformed,
}

/// How far the attempt was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Any frame had come, or any byte of one.
    pub answered: bool,
    /// The connection had just been made.
    pub fresh: bool,
    /// Fresh connections that had failed for this request before.
    pub fresh_failures: u32,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Send it again, on another connection. `suspect`: avoid the slot for a while.
    Resend {
        /// The slot has failed.
        suspect: bool,
    },
    /// The worker has said that it did not start the request: send it again, for as long as a
    /// connection would be waited for. `there`: to the same slot, which has a new worker.
    Again {
        /// The request waited there for its replacement.
        there: bool,
    },
    /// Answer with an error. `suspect` as above.
    Fail {
        /// Why.
        failure: Failure,
        /// The slot has failed.
        suspect: bool,
    },
}

/// Why a request is answered with an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Several fresh connections in a row were not served.
    NotServed,
    /// The request waited longer than queue-timeout.
    QueueTimeout,
    /// No answer in time.
    AnswerTimeout,
    /// The worker ended with the request in its hands.
    Died,
    /// The worker is of another version.
    Version,
    /// What came is no answer, or the worker could not understand the request.
    Malformed,
    /// The worker does not accept requests of this user.
    Forbidden,
}

/// Judges the end of an attempt.
pub fn judge(event: Event, progress: Progress) -> Verdict {
    let fail = |failure, suspect| Verdict::Fail { failure, suspect };
    let suspect = matches!(event, Event::SendFailed | Event::Reset | Event::Eof);
    let not_started = match event {
        Event::SendFailed => true,
        Event::Reset | Event::GoAway => !progress.answered,
        Event::Refused(Refused::Draining) => !progress.answered,
        Event::Refused(Refused::QueueTimeout) => return fail(Failure::QueueTimeout, false),
        Event::Refused(Refused::Version) => return fail(Failure::Version, false),
        Event::Refused(Refused::Malformed) => return fail(Failure::Malformed, false),
        Event::Refused(Refused::Forbidden) => return fail(Failure::Forbidden, false),
        Event::SendTimeout | Event::Timeout => return fail(Failure::AnswerTimeout, false),
        Event::Malformed => return fail(Failure::Malformed, false),
        Event::Eof => false,
    };
    if !not_started {
        return fail(Failure::Died, suspect);
    }
    match event {
        Event::GoAway => return Verdict::Again { there: false },
        Event::Refused(_) => return Verdict::Again { there: true },
        _ => {}
    }
    // A pooled connection that fails is used up, which ends by itself; fresh ones are counted.
    if progress.fresh && progress.fresh_failures + 1 >= FRESH_FAILURES {
        return fail(Failure::NotServed, suspect);
    }
    Verdict::Resend { suspect }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Progress = Progress {
        answered: false,
        fresh: false,
        fresh_failures: 0,
    };
    const ANSWERED: Progress = Progress {
        answered: true,
        ..FIRST
    };

    fn resent(event: Event, progress: Progress) -> Option<bool> {
        match judge(event, progress) {
            Verdict::Resend { suspect } => Some(suspect),
            Verdict::Again { .. } => Some(false),
            Verdict::Fail { .. } => None,
        }
    }

    #[test]
    fn what_was_not_started_is_sent_again() {
        assert_eq!(resent(Event::SendFailed, FIRST), Some(true));
        assert_eq!(resent(Event::Reset, FIRST), Some(true));
        assert_eq!(resent(Event::GoAway, FIRST), Some(false));
        let draining = Event::Refused(Refused::Draining);
        assert_eq!(resent(draining, FIRST), Some(false));
    }

    #[test]
    fn what_may_have_been_started_is_never_sent_again() {
        for progress in [FIRST, ANSWERED] {
            for event in [
                Event::Eof,
                Event::Timeout,
                Event::SendTimeout,
                Event::Malformed,
            ] {
                assert_eq!(resent(event, progress), None, "{event:?}");
            }
        }
        let draining = Event::Refused(Refused::Draining);
        for event in [Event::Reset, Event::GoAway, draining] {
            let verdict = judge(event, ANSWERED);
            assert!(
                matches!(
                    verdict,
                    Verdict::Fail {
                        failure: Failure::Died,
                        ..
                    }
                ),
                "{event:?}"
            );
        }
    }

    #[test]
    fn failures_have_their_names() {
        for (event, failure, suspect) in [
            (Event::Eof, Failure::Died, true),
            (Event::Timeout, Failure::AnswerTimeout, false),
            (Event::Malformed, Failure::Malformed, false),
            (
                Event::Refused(Refused::QueueTimeout),
                Failure::QueueTimeout,
                false,
            ),
            (Event::Refused(Refused::Version), Failure::Version, false),
            (
                Event::Refused(Refused::Malformed),
                Failure::Malformed,
                false,
            ),
            (
                Event::Refused(Refused::Forbidden),
                Failure::Forbidden,
                false,
            ),
        ] {
            assert_eq!(judge(event, FIRST), Verdict::Fail { failure, suspect });
        }
    }

    #[test]
    fn only_fresh_connections_are_counted() {
        for fresh_failures in 0..5 {
            let pooled = Progress {
                fresh_failures,
                ..FIRST
            };
            assert!(resent(Event::Reset, pooled).is_some());
            let fresh = Progress {
                fresh: true,
                ..pooled
            };
            let again = fresh_failures + 1 < FRESH_FAILURES;
            assert_eq!(resent(Event::Reset, fresh).is_some(), again);
            if !again {
                assert!(matches!(
                    judge(Event::Reset, fresh),
                    Verdict::Fail {
                        failure: Failure::NotServed,
                        suspect: true
                    }
                ));
            }
            // A worker that takes its leave has not failed.
            assert_eq!(judge(Event::GoAway, fresh), Verdict::Again { there: false });
            let draining = Event::Refused(Refused::Draining);
            assert_eq!(judge(draining, fresh), Verdict::Again { there: true });
        }
    }
}
