//! The process groups of a configuration.

use core::ffi::c_void;
use core::ptr::NonNull;
use core::sync::atomic::AtomicPtr;

use super::options::Options;
use super::start::Plan;
use crate::httpd::apache::Server;
use crate::httpd::sys::server_rec;

/// A process group: what `WSGIDaemonProcess` declares.
pub struct Group {
    /// Its place in the configuration, from 0 on.
    pub index: usize,
    /// What is configured.
    pub options: Options,
    /// How it is started; made when all of the configuration is known.
    pub plan: Option<Plan>,
    /// Where its sockets are, one per slot; known when they have been made.
    pub sockets: Vec<Vec<u8>>,
    /// What the httpd child that this is in keeps for the group: connections. Set by
    /// `child_init`, before the threads that serve requests are there.
    pub client: AtomicPtr<c_void>,
    server: NonNull<server_rec>,
}

impl Group {
    /// The name.
    pub fn name(&self) -> &[u8] {
        &self.options.worker.name
    }

    /// The name, for messages.
    pub fn label(&self) -> String {
        self.options.worker.label()
    }

    /// The server that declares it.
    pub fn server(&self) -> Server<'_> {
        // SAFETY: a server of the configuration that this group belongs to.
        unsafe { Server::new(self.server.as_ptr()) }
    }

    /// Where it is declared, for messages.
    pub fn place(&self) -> String {
        let server = self.server();
        if server.is_virtual() {
            let name = String::from_utf8_lossy(server.hostname());
            format!("the virtual host '{name}'")
        } else {
            "the main server".to_owned()
        }
    }

    /// Whether requests for `server` may use it: all if the main server declares it, else those for
    /// virtual hosts with the same `ServerName`.
    #[inline]
    pub fn serves(&self, server: Server<'_>) -> bool {
        let own = self.server();
        own.as_ptr() == server.as_ptr()
            || !own.is_virtual()
            || own.hostname() == server.hostname()
    }
}

/// All groups of a configuration, and what holds for all of them. Owned by the configuration's pool.
#[derive(Default)]
pub struct Groups {
    list: Vec<Group>,
    /// `WSGISocketPrefix`, absolute.
    pub socket_prefix: Option<Vec<u8>>,
    /// `WSGISocketRotation`.
    pub socket_rotation: Option<bool>,
    /// `WSGIAcceptMutex`, which has no effect.
    pub accept_mutex: Option<String>,
}

impl Groups {
    /// The group named `name`.
    #[inline]
    pub fn find(&self, name: &[u8]) -> Option<&Group> {
        self.list.iter().find(|group| group.name() == name)
    }

    /// The same, to be changed.
    pub fn find_mut(&mut self, name: &[u8]) -> Option<&mut Group> {
        self.list.iter_mut().find(|group| group.name() == name)
    }

    /// All of them.
    pub fn all(&self) -> &[Group] {
        &self.list
    }

    /// The same, to be changed.
    pub fn all_mut(&mut self) -> &mut [Group] {
        &mut self.list
    }

    /// Adds a group that `server` declares.
    pub fn add(&mut self, options: Options, server: Server<'_>) {
        self.list.push(Group {
            index: self.list.len(),
            options,
            plan: None,
            sockets: Vec::new(),
            client: AtomicPtr::new(core::ptr::null_mut()),
            // SAFETY: never null.
            server: unsafe { NonNull::new_unchecked(server.as_ptr()) },
        });
    }

    /// The names, for messages.
    pub fn names(&self) -> String {
        let names: Vec<String> = self.list.iter().map(Group::label).collect();
        if names.is_empty() {
            "none".to_owned()
        } else {
            names.join(", ")
        }
    }
}
