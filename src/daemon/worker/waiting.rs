//! Requests that wait without holding a thread: for a replacement that loads a changed script, or
//! for the decision whether a worker that has reached its limit goes on.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::connections::Held;
use crate::daemon::control::Script;
use crate::python::services::Changed;

/// A request that has been read and not been started.
pub struct Waiting {
    /// Its connection.
    pub held: Held<'static>,
    /// The whole frame.
    pub frame: Vec<u8>,
}

/// Why a request waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// This script has changed.
    Script(Script),
    /// The worker has served as many requests as it may.
    Limit,
}

/// What is known of a changed script.
#[derive(Clone, Copy)]
struct Change {
    mtime_us: i64,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// A request has found it, and will wait.
    Found,
    /// The supervisor knows.
    Reported,
    /// The new code does not load; not to be reported again until then.
    StaysOld(Instant),
}

/// The waiting requests of a worker.
#[derive(Default)]
pub struct WaitingRoom {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    changes: HashMap<Script, Change>,
    requests: Vec<(Cause, Waiting)>,
}

/// What is to be done after a request has been put into the room.
#[derive(Debug, PartialEq, Eq)]
pub enum Entered {
    /// Nothing: it waits, and the supervisor knows why.
    Waits,
    /// It waits, and the supervisor is to be told that the script has changed.
    Report(Script, i64),
}

impl WaitingRoom {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What becomes of a request that has found `script` changed. The first that finds a change
    /// waits; the others go on with the old code if that may be used (`keep`), or wait as well.
    pub fn changed(&self, script: Script, mtime_us: i64, keep: bool) -> Changed {
        let mut inner = self.lock();
        let known = inner.changes.get(&script).copied();
        match known
            .filter(|change| change.mtime_us == mtime_us)
            .map(|change| change.state)
        {
            Some(State::Found | State::Reported) if keep => Changed::UseOld,
            Some(State::Found | State::Reported) => Changed::Wait,
            Some(State::StaysOld(until)) if Instant::now() < until => {
                if keep {
                    Changed::UseOld
                } else {
                    Changed::Fail
                }
            }
            _ => {
                let state = State::Found;
                inner.changes.insert(script, Change { mtime_us, state });
                Changed::Wait
            }
        }
    }

    /// A request waits for the replacement of a script. It comes back as an error if the answer
    /// has come already: then it is to be served.
    pub fn wait_for_script(&self, script: Script, waiting: Waiting) -> Result<Entered, Waiting> {
        let mut inner = self.lock();
        let entered = match inner.changes.get_mut(&script) {
            // It may be a later change than the one that this request has found: its answer
            // settles both.
            Some(change) => match change.state {
                State::Found => {
                    change.state = State::Reported;
                    Entered::Report(script.clone(), change.mtime_us)
                }
                State::Reported => Entered::Waits,
                State::StaysOld(_) => return Err(waiting),
            },
            None => return Err(waiting),
        };
        inner.requests.push((Cause::Script(script), waiting));
        Ok(entered)
    }

    /// A request waits because the worker has reached its limit.
    pub fn wait_for_limit(&self, waiting: Waiting) {
        self.lock().requests.push((Cause::Limit, waiting));
    }

    /// The new code of a script does not load: gives the requests that waited for it.
    pub fn stays_old(&self, script: Script, mtime_us: i64, retry: Duration) -> Vec<Waiting> {
        let mut inner = self.lock();
        let state = State::StaysOld(Instant::now() + retry);
        let change = Change { mtime_us, state };
        match inner.changes.get(&script) {
            // Another change has been found meanwhile, which is being tried.
            Some(known)
                if known.mtime_us != mtime_us && !matches!(known.state, State::StaysOld(_)) =>
            {
                return Vec::new();
            }
            _ => inner.changes.insert(script.clone(), change),
        };
        let wanted = Cause::Script(script);
        take(&mut inner.requests, |cause| *cause == wanted)
    }

    /// The worker goes on beyond its limit: gives the requests that waited for that.
    pub fn goes_on(&self) -> Vec<Waiting> {
        take(&mut self.lock().requests, |cause| *cause == Cause::Limit)
    }

    /// The worker ends: gives all requests.
    pub fn clear(&self) -> Vec<Waiting> {
        take(&mut self.lock().requests, |_| true)
    }
}

fn take(
    requests: &mut Vec<(Cause, Waiting)>,
    mut which: impl FnMut(&Cause) -> bool,
) -> Vec<Waiting> {
    let (taken, kept): (Vec<_>, Vec<_>) = core::mem::take(requests)
        .into_iter()
        .partition(|(cause, _)| which(cause));
    *requests = kept;
    taken.into_iter().map(|(_, waiting)| waiting).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::daemon::worker::connections::Connections;

    fn script() -> Script {
        Script {
            application_group: b"g".to_vec(),
            path: b"/a.wsgi".to_vec(),
        }
    }

    fn waiting() -> Waiting {
        let connections: &'static Connections = Box::leak(Box::default());
        let (ours, _) = UnixStream::pair().unwrap();
        let token = connections.open(ours.into()).unwrap();
        Waiting {
            held: connections.take(token).unwrap(),
            frame: vec![1],
        }
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_first_waits_and_the_others_go_on() {
        let room = WaitingRoom::default();
        assert_eq!(room.changed(script(), 5, true), Changed::Wait);
        assert_eq!(room.changed(script(), 5, true), Changed::UseOld);
        assert_eq!(room.changed(script(), 5, false), Changed::Wait);
        let entered = room.wait_for_script(script(), waiting());
        assert_eq!(entered.ok(), Some(Entered::Report(script(), 5)));
        let entered = room.wait_for_script(script(), waiting());
        assert_eq!(entered.ok(), Some(Entered::Waits));
        assert_eq!(room.stays_old(script(), 5, SECOND).len(), 2);
        assert_eq!(room.changed(script(), 5, true), Changed::UseOld);
        assert_eq!(room.changed(script(), 5, false), Changed::Fail);
        assert_eq!(room.changed(script(), 6, true), Changed::Wait);
    }

    #[test]
    fn an_answer_that_came_first_lets_the_request_go_on() {
        let room = WaitingRoom::default();
        assert_eq!(room.changed(script(), 5, true), Changed::Wait);
        assert!(room.stays_old(script(), 5, SECOND).is_empty());
        assert!(room.wait_for_script(script(), waiting()).is_err());
    }

    #[test]
    fn a_change_is_tried_again_later() {
        let room = WaitingRoom::default();
        assert_eq!(room.changed(script(), 5, true), Changed::Wait);
        room.stays_old(script(), 5, Duration::ZERO);
        assert_eq!(room.changed(script(), 5, true), Changed::Wait);
    }

    #[test]
    fn a_later_change_keeps_those_of_the_earlier_waiting() {
        let room = WaitingRoom::default();
        room.changed(script(), 5, true);
        let _ = room.wait_for_script(script(), waiting());
        room.changed(script(), 6, true);
        let entered = room.wait_for_script(script(), waiting());
        assert_eq!(entered.ok(), Some(Entered::Report(script(), 6)));
        assert!(room.stays_old(script(), 5, SECOND).is_empty());
        assert_eq!(room.stays_old(script(), 6, SECOND).len(), 2);
    }

    #[test]
    fn causes_are_kept_apart() {
        let room = WaitingRoom::default();
        room.changed(script(), 5, true);
        let _ = room.wait_for_script(script(), waiting());
        room.wait_for_limit(waiting());
        assert_eq!(room.goes_on().len(), 1);
        assert_eq!(room.clear().len(), 1);
        assert!(room.clear().is_empty());
    }
}
