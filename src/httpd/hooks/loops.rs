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
use crate::exchange::abi::Text;
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
    let patience = Duration::from_micros(timeout).max(Duration::from_secs(1));
    let loops = Box::new(Loops::new(patience));
    // With -X a process may come here again; what was there may be in use.
    LOOPS.store(Box::into_raw(loops), Ordering::Release);
}

/// The connections to the event loop that answers a request; `None` if it is not known that one does:
/// the application is WSGI, or has never been asked for. Otherwise it is settled in `target`.
pub fn find(head: &RequestHead<'_>, target: &mut Target<'_>) -> Option<&'static Pools> {
    loops()?.find(Group::of(head), target)
}

/// The same when the gateway has found out that the application of `interface=auto` is ASGI. The next
/// request need not ask it, unless the script has changed.
#[cold]
pub fn found(head: &RequestHead<'_>, target: &mut Target<'_>) -> Option<&'static Pools> {
    Some(loops()?.found(Group::of(head), target))
}

fn loops() -> Option<&'static Loops> {
    // SAFETY: null, or given away by `prepare` and never taken back.
    unsafe { LOOPS.load(Ordering::Acquire).as_ref() }
}

/// What a request says of its application beside the script.
#[derive(Clone, Copy)]
struct Group<'a> {
    /// The application group.
    name: &'a [u8],
    callable: &'a [u8],
}

impl<'a> Group<'a> {
    fn of(head: &RequestHead<'a>) -> Self {
        Group {
            name: head.site.application_group.bytes(),
            callable: head.site.callable_object.bytes(),
        }
    }

    /// What tells applications from each other.
    fn key(self, target: &Target<'_>) -> Vec<u8> {
        let mut key = Vec::with_capacity(128);
        for part in [self.name, self.callable, target.script.bytes()] {
            key.extend_from_slice(&part.len().to_ne_bytes());
            key.extend_from_slice(part);
        }
        key
    }
}

impl Loops {
    fn new(patience: Duration) -> Self {
        Loops {
            patience,
            pools: RwLock::default(),
            found: RwLock::default(),
        }
    }

    fn find(&self, group: Group<'_>, target: &mut Target<'_>) -> Option<&'static Pools> {
        match target.interface {
            Interface::Wsgi => return None,
            Interface::Asgi => {}
            Interface::Auto => {
                let key = group.key(target);
                let found = self.found.read().unwrap_or_else(PoisonError::into_inner);
                // Where the time is not known (0), nobody can say what the script is now.
                if target.mtime_us == 0 || found.get(&key) != Some(&target.mtime_us) {
                    return None;
                }
            }
        }
        target.interface = Interface::Asgi;
        Some(self.pools(group.name))
    }

    fn found(&self, group: Group<'_>, target: &mut Target<'_>) -> &'static Pools {
        if target.mtime_us != 0 {
            let mut found = self.found.write().unwrap_or_else(PoisonError::into_inner);
            found.insert(group.key(target), target.mtime_us);
        }
        target.interface = Interface::Asgi;
        self.pools(group.name)
    }

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
            let connector = Box::new(move || connect(&group));
            Box::leak(Box::new(Pools::local(settings, connector)))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::AsgiSettings;

    fn target(interface: Interface, mtime_us: i64) -> Target<'static> {
        Target {
            script: "/srv/app.py".into(),
            mtime_us,
            resource: Text::EMPTY,
            reloading: true,
            keep_on_failure: true,
            handler_script: false,
            interface,
            callable_is_default: true,
            asgi: AsgiSettings::DEFAULT,
        }
    }

    fn group(name: &'static str, callable: &'static str) -> Group<'static> {
        Group {
            name: name.as_bytes(),
            callable: callable.as_bytes(),
        }
    }

    #[test]
    fn each_application_group_has_connections_of_its_own() {
        let loops = Loops::new(Duration::from_secs(1));
        let find = |name| {
            let mut target = target(Interface::Asgi, 7);
            loops.find(group(name, "application"), &mut target).unwrap()
        };
        let pools = find("shop");
        assert!(core::ptr::eq(pools, find("shop")));
        assert!(!core::ptr::eq(pools, find("")));
        assert_eq!(pools.settings().group, b"shop");
        assert!(pools.is_local());
        let mut wsgi = target(Interface::Wsgi, 7);
        assert!(
            loops
                .find(group("shop", "application"), &mut wsgi)
                .is_none()
        );
    }

    #[test]
    fn what_was_found_out_holds_for_one_application_until_its_script_changes() {
        let loops = Loops::new(Duration::from_secs(1));
        let is_known = |name, callable, mtime_us| {
            let mut target = target(Interface::Auto, mtime_us);
            let known = loops.find(group(name, callable), &mut target).is_some();
            assert_eq!(target.interface == Interface::Asgi, known);
            known
        };
        assert!(!is_known("shop", "app", 7));
        let mut settled = target(Interface::Auto, 7);
        loops.found(group("shop", "app"), &mut settled);
        assert_eq!(settled.interface, Interface::Asgi);
        assert!(is_known("shop", "app", 7));
        assert!(!is_known("shop", "app", 8));
        assert!(!is_known("shop", "other", 7));
        assert!(!is_known("", "app", 7));
        assert!(!is_known("sho", "papp", 7));
    }

    #[test]
    fn an_unknown_time_is_no_time() {
        let loops = Loops::new(Duration::from_secs(1));
        loops.found(group("shop", "app"), &mut target(Interface::Auto, 0));
        let again = &mut target(Interface::Auto, 0);
        assert!(loops.find(group("shop", "app"), again).is_none());
    }
}
