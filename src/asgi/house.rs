//! What the process around an event loop decides and keeps count of.

use core::time::Duration;
use std::os::fd::OwnedFd;

use crate::daemon::control::Application;
use crate::daemon::wire::Refused;
use crate::daemon::wire::request::WireRequest;
use crate::exchange::Level;

/// Whether a request that has been read is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It is; [`House::finished`] will be called once.
    Start,
    /// It is not, and the client is told why.
    Refuse(Refused),
    /// It waits in the house: give it back.
    Wait,
}

/// Why a connection and its request are given back to the house.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Returned {
    /// [`Admission::Wait`].
    Limit,
    /// The script has changed, and this process loads nothing twice. It had been admitted.
    Stale,
    /// The application is no ASGI application. It had been admitted.
    NotAsgi,
    /// It is for another application group.
    Elsewhere,
}

/// How long things may take.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// A request, if that is limited.
    pub request: Option<Duration>,
    /// Running requests and WebSockets when the loop is to end.
    pub drain: Duration,
    /// `lifespan.shutdown` and what else runs at the end.
    pub shutdown: Duration,
}

/// The process. Any thread may call it; nothing of it blocks or attaches to Python.
pub trait House: Send + Sync {
    /// A request has been read.
    fn admit(&self, request: &WireRequest<'_>) -> Admission;

    /// A request that was admitted has been answered, or given up.
    fn finished(&self);

    /// Takes a connection back that has no more to do with the loop, with the request that has come
    /// over it.
    fn take_back(&self, socket: OwnedFd, frame: Vec<u8>, why: Returned);

    /// Whether a loop that is told to drain ends when nothing is in hand, and begins nothing: others
    /// take its requests. Otherwise it only ends what has no end of its own.
    fn has_successor(&self) -> bool;

    /// How busy the process is, as the frame that ends a reply tells it.
    fn load(&self) -> u16;

    /// How long things may take.
    fn bounds(&self) -> Bounds;

    /// A line that belongs to no request.
    fn log(&self, level: Level, line: &[u8]);

    /// An application has begun to serve: its startup, if it has one, is complete.
    fn application_started(&self, application: Application);

    /// A loop has begun; its thread has not ended before [`House::loop_ended`] is called.
    fn loop_began(&self);

    /// A loop has ended.
    fn loop_ended(&self);
}

/// An httpd child: httpd itself bounds everything.
pub struct Embedded;

/// How long requests may go on in a child that is to end.
const DRAIN: Duration = Duration::from_secs(10);
/// httpd's parent is not patient with its children.
const SHUTDOWN: Duration = Duration::from_secs(2);

impl House for Embedded {
    fn admit(&self, _: &WireRequest<'_>) -> Admission {
        Admission::Start
    }

    fn finished(&self) {}

    fn take_back(&self, _: OwnedFd, _: Vec<u8>, _: Returned) {
        // Closed: the client answers for it. Nothing of this process asks for it.
    }

    fn has_successor(&self) -> bool {
        false
    }

    fn load(&self) -> u16 {
        0
    }

    fn bounds(&self) -> Bounds {
        Bounds {
            request: None,
            drain: DRAIN,
            shutdown: SHUTDOWN,
        }
    }

    fn log(&self, level: Level, line: &[u8]) {
        crate::python::runtime::log_bytes(level, line);
    }

    fn application_started(&self, _: Application) {}

    fn loop_began(&self) {}

    fn loop_ended(&self) {}
}
