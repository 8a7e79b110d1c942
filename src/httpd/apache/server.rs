//! Virtual hosts.

use core::marker::PhantomData;
use core::ptr::NonNull;

use super::text;
use crate::exchange::Level;
use crate::httpd::sys::{self, server_rec};

/// The main server or a virtual host.
#[derive(Clone, Copy)]
pub struct Server<'s> {
    raw: NonNull<server_rec>,
    lifetime: PhantomData<&'s server_rec>,
}

impl<'s> Server<'s> {
    /// Wraps `raw`.
    ///
    /// # Safety
    /// `raw` is a server of a configuration that lives for `'s`.
    #[inline(always)]
    pub unsafe fn new(raw: *mut server_rec) -> Self {
        Server {
            // SAFETY: the caller's promise.
            raw: unsafe { NonNull::new_unchecked(raw) },
            lifetime: PhantomData,
        }
    }

    /// The pointer itself.
    #[inline(always)]
    pub fn as_ptr(self) -> *mut server_rec {
        self.raw.as_ptr()
    }

    /// `ServerName`, without the port.
    #[inline]
    pub fn hostname(self) -> &'s [u8] {
        // SAFETY: a live server; its strings lie in the configuration pool.
        unsafe { text::bytes((*self.as_ptr()).server_hostname) }
    }

    /// `ServerAdmin`.
    #[inline]
    pub fn admin(self) -> Option<&'s [u8]> {
        // SAFETY: as above.
        unsafe { text::optional((*self.as_ptr()).server_admin) }
    }

    /// This module's configuration; null if no directive and no merge made one.
    #[inline(always)]
    pub fn config<T>(self) -> *mut T {
        // SAFETY: a server's vector. Only `config` calls this, with the type it stores there.
        unsafe { sys::slot::get((*self.as_ptr()).module_config) }
    }

    /// This server and all that come after it in httpd's list.
    pub fn and_following(self) -> impl Iterator<Item = Server<'s>> {
        core::iter::successors(Some(self), |server| {
            // SAFETY: the list belongs to the same configuration.
            NonNull::new(unsafe { (*server.as_ptr()).next }).map(|raw| Server {
                raw,
                lifetime: PhantomData,
            })
        })
    }

    /// Logs a line with this server's log. Any thread.
    pub fn log(self, level: Level, line: &[u8]) {
        // SAFETY: a live server.
        unsafe { sys::log::server(self.as_ptr(), level, line) }
    }
}
