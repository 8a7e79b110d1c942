//! The callable of a script, and its lifespan.
//!
//! | file | what |
//! |---|---|
//! | here | an application and the requests that it serves |
//! | [`find`](mod@find) | how it is found, or made |
//! | [`lifespan`] | its startup and its end |
//! | [`callbacks`] | how it learns what has become of them |

mod callbacks;
mod find;
mod lifespan;

pub use find::{Missing, begin_early, find};

use core::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::mpsc::Sender;
use std::time::Instant;

use crate::asgi::awaitable::Endpoint;
use crate::asgi::event_loop::EventLoop;
use crate::asgi::task;
use crate::exchange::Lifespan;
use crate::python::attach::Attached;
use crate::python::object::Owned;
use crate::python::script::Loaded;

/// Where an application is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// `lifespan.startup` has not been answered.
    Starting,
    /// It serves.
    Serving,
    /// It could not start, at that time.
    Failed(Instant),
}

/// A request that waits for the startup.
struct Waiting {
    endpoint: Endpoint,
    arguments: [Owned; 3],
}

/// Something to be done, attached, when an application has ended.
type AtEnd = Box<dyn FnOnce(Attached)>;

/// What has become of a startup: nothing to complain of, or lines that say why not.
pub type Problem = Option<Vec<Vec<u8>>>;

/// An application: a callable of one version of a script. Touched by its loop's thread only.
pub struct Application {
    /// The script.
    pub path: Box<[u8]>,
    name: Box<[u8]>,
    name_is_default: bool,
    event_loop: &'static EventLoop,
    loaded: Rc<Loaded>,
    callable: Owned,
    mode: Lifespan,
    lifespan: RefCell<Option<Owned>>,
    state: RefCell<Owned>,
    stage: Cell<Stage>,
    waiting: RefCell<Vec<Waiting>>,
    /// Requests that it has in hand.
    active: Cell<u32>,
    /// Another version serves: it ends with its last request.
    retired: Cell<bool>,
    /// Who wants to know what becomes of the startup.
    tell: RefCell<Option<Sender<Problem>>>,
    at_end: RefCell<Option<AtEnd>>,
}

// SAFETY: touched by the loop's thread only; requests let go of it before they can be freed
// elsewhere, and capsules that hold it are called and freed by the loop's own objects.
unsafe impl Send for Application {}

// SAFETY: as above.
unsafe impl Sync for Application {}

impl Application {
    /// The state of its lifespan, for scopes to copy.
    pub fn state(&self, py: Attached) -> Owned {
        self.state.borrow().clone_ref(py)
    }

    /// Runs it for a request, as soon as it has started.
    pub fn serve(&self, py: Attached, endpoint: Endpoint, arguments: [Owned; 3]) {
        self.active.set(self.active.get() + 1);
        match self.stage.get() {
            Stage::Serving => self.run(
                py,
                Waiting {
                    endpoint,
                    arguments,
                },
            ),
            Stage::Starting => self.waiting.borrow_mut().push(Waiting {
                endpoint,
                arguments,
            }),
            Stage::Failed(_) => self.refuse(py, &endpoint),
        }
    }

    fn run(&self, py: Attached, request: Waiting) {
        let Waiting {
            endpoint,
            arguments,
        } = request;
        let started = self.event_loop.python(py).and_then(|python| {
            let callable = self.callable.clone_ref(py);
            task::start(py, python, callable, endpoint.clone(), arguments)
        });
        match started {
            Ok(task) => match &endpoint {
                Endpoint::Http(http) => http.set_task(task),
                Endpoint::WebSocket(session) => session.set_task(task),
            },
            Err(raised) => end(py, &endpoint, Err(raised.take(py))),
        }
    }

    /// Its startup has failed: that has been logged.
    fn refuse(&self, py: Attached, endpoint: &Endpoint) {
        match endpoint {
            Endpoint::Http(http) => http.refuse(py),
            Endpoint::WebSocket(session) => session.refuse(py),
        }
    }

    /// A request is over.
    pub fn request_ended(&self, py: Attached) {
        self.active.set(self.active.get().saturating_sub(1));
        if self.retired.get() && self.active.get() == 0 {
            self.end(py);
        }
    }
}

fn end(py: Attached, endpoint: &Endpoint, result: core::result::Result<(), Owned>) {
    match endpoint {
        Endpoint::Http(http) => http.ended(py, result),
        Endpoint::WebSocket(session) => session.ended(py, result),
    }
}
