//! The process groups of a configuration.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicPtr, Ordering};
use core::time::Duration;

use super::options::Options;
use super::start::Plan;
use crate::daemon::client::{self, Pools};
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
    client: AtomicPtr<Pools>,
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

    /// Its root directory; empty without `chroot`.
    #[inline]
    pub fn root(&self) -> &[u8] {
        match self.options.chroot.as_deref() {
            None | Some(b"/") => b"",
            Some(root) => root,
        }
    }

    /// The connections of this process to the group; `None` before `child_init`, and if it has no
    /// sockets.
    #[inline]
    pub fn client(&self) -> Option<&Pools> {
        // SAFETY: null, or given away by `prepare_client` and never taken back.
        unsafe { self.client.load(Ordering::Acquire).as_ref() }
    }

    /// Sets up the connections, in a child of httpd. They live as long as the process.
    pub fn prepare_client(&self) {
        if self.sockets.is_empty() {
            return;
        }
        let options = &self.options;
        let server_timeout = u64::try_from(self.server().timeout_us()).unwrap_or(0);
        let socket_timeout = match options.socket_timeout {
            0 => Duration::from_micros(server_timeout).max(Duration::from_secs(1)),
            seconds => Duration::from_secs(seconds.into()),
        };
        let default = client::Settings::default();
        let pools = Pools::new(client::Settings {
            group: self.name().to_vec(),
            sockets: self.sockets.clone(),
            connect_timeout: Duration::from_secs(options.connect_timeout.into()),
            socket_timeout,
            response_buffer: match options.response_buffer_size {
                0 => default.response_buffer,
                size => size as usize,
            },
            response_timeout: match options.response_socket_timeout {
                0 => None,
                seconds => Some(Duration::from_secs(seconds.into())),
            },
            send_buffer: options.send_buffer_size as usize,
            receive_buffer: options.receive_buffer_size as usize,
        });
        // With -X a process may come here again, for a configuration of its own.
        self.client
            .store(Box::into_raw(Box::new(pools)), Ordering::Release);
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
        own.as_ptr() == server.as_ptr() || !own.is_virtual() || own.hostname() == server.hostname()
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
