//! ASGI applications in httpd's own processes. The gateway runs an event loop for each application
//! group; a request goes to it as to a worker of daemon mode, over a socket pair, so that no thread
//! of httpd touches Python.

use core::sync::atomic::{AtomicPtr, Ordering};
use core::time::Duration;
use std::collections::HashMap;
use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::{PoisonError, RwLock};

use super::child;
use crate::daemon::client::{self, Pools};
use crate::exchange::abi::{Text, outcome};
use crate::exchange::{Interface, RequestHead, Target};
use crate::httpd::apache::Server;

/// What is kept of one response for a client who reads slowly: an event loop is not held up by one,
/// and applications are to feel it.
const RESPONSE_BUFFER: usize = 1024 * 1024;

/// What a child of httpd knows of its event loops.
struct Loops {
    /// How long a loop may take to accept what it is sent.
    patience: Duration,
    /// Connections, by application group. None is ever removed.
    pools: RwLock<HashMap<Vec<u8>, &'static Pools>>,
    /// Applications of `interface=auto` that are ASGI, with the modification time of the script by
    /// which that was found.
    found: RwLock<HashMap<Vec<u8>, i64>>,
}

/// Set by `child_init`, before the threads that serve requests are there; never in the parent. It
/// lives as long as the process.
static LOOPS: AtomicPtr<Loops> = AtomicPtr::new(core::ptr::null_mut());

/// To be called when a child process begins.
pub fn prepare(main: Server<'_>) {
    let timeout = u64::try_from(main.timeout_us()).unwrap_or(0);
    let loops = Box::new(Loops {
        patience: Duration::from_micros(timeout).max(Duration::from_secs(1)),
        pools: RwLock::default(),
        found: RwLock::default(),
    });
    // With -X a process may come here again; what was there may be in use.
    LOOPS.store(Box::into_raw(loops), Ordering::Release);
}

/// The connections to the event loop of `application_group`; `None` before [`prepare`].
pub fn pools(application_group: &[u8]) -> Option<&'static Pools> {
    loops().map(|loops| loops.pools(application_group))
}

fn loops() -> Option<&'static Loops> {
    // SAFETY: null, or given away by `prepare` and never taken back.
    unsafe { LOOPS.load(Ordering::Acquire).as_ref() }
}

impl Loops {
    fn pools(&self, application_group: &[u8]) -> &'static Pools {
        let known = self.pools.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(pools) = known.get(application_group) {
            return pools;
        }
        drop(known);
        let mut known = self.pools.write().unwrap_or_else(PoisonError::into_inner);
        let group = application_group.to_vec();
        known.entry(group).or_insert_with_key(|group| {
            let settings = client::Settings {
                group: group.clone(),
                socket_timeout: self.patience,
                response_buffer: RESPONSE_BUFFER,
                ..client::Settings::default()
            };
            let group = group.clone();
            Box::leak(Box::new(Pools::local(
                settings,
                Box::new(move || connect(&group)),
            )))
        })
    }
}

/// A new connection to the event loop of an application group.
fn connect(application_group: &[u8]) -> Option<OwnedFd> {
    let gateway = child::gateway()?;
    // SAFETY: a thread that serves a request; it is not attached to Python. The descriptor that the
    // gateway gives is ours.
    unsafe {
        let fd = (gateway.connect)(Text::new(application_group));
        (fd >= 0).then(|| OwnedFd::from_raw_fd(fd))
    }
}

/// What a request with `interface=auto` is for.
pub struct Application(Vec<u8>);

impl Application {
    /// The application that answers.
    pub fn of(head: &RequestHead<'_>, target: &Target<'_>) -> Self {
        let parts = [
            head.site.application_group.bytes(),
            head.site.callable_object.bytes(),
            target.script.bytes(),
        ];
        let mut key = Vec::with_capacity(128);
        for part in parts {
            key.extend_from_slice(&part.len().to_ne_bytes());
            key.extend_from_slice(part);
        }
        Application(key)
    }

    /// Whether it is known to be ASGI, as the script is now. Where its modification time is not known
    /// (0), nobody can say that.
    pub fn is_asgi(&self, mtime_us: i64) -> bool {
        let Some(loops) = loops().filter(|_| mtime_us != 0) else {
            return false;
        };
        let found = loops.found.read().unwrap_or_else(PoisonError::into_inner);
        found.get(&self.0) == Some(&mtime_us)
    }

    /// The gateway has found what it is: [`outcome::ASGI`], or something else. Gives whether that
    /// is ASGI.
    pub fn note(self, result: i32, mtime_us: i64) -> bool {
        let is_asgi = result == outcome::ASGI;
        if let Some(loops) = loops().filter(|_| is_asgi && mtime_us != 0) {
            let mut found = loops.found.write().unwrap_or_else(PoisonError::into_inner);
            found.insert(self.0, mtime_us);
        }
        is_asgi
    }
}

/// The same target, where it is settled that it is ASGI.
pub fn settled<'a>(target: &Target<'a>) -> Target<'a> {
    Target {
        interface: Interface::Asgi,
        ..*target
    }
}
