//! Virtual hosts.

use core::marker::PhantomData;
use core::ptr::NonNull;

use super::{Pool, text};
use crate::exchange::{Level, Source};
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

    /// The main server of the configuration that httpd is reading or has read last. Only httpd's
    /// parent calls this, in its only thread.
    pub fn main() -> Option<Server<'s>> {
        // SAFETY: httpd sets it before it reads directives, and never to a dead one.
        let raw = unsafe { (&raw const sys::ap_server_conf).read() };
        NonNull::new(raw).map(|raw| Server {
            raw,
            lifetime: PhantomData,
        })
    }

    /// httpd's pool for the whole life of the process.
    pub fn process_pool(self) -> Pool<'s> {
        // SAFETY: every server belongs to the process.
        unsafe { Pool::new((*(*self.as_ptr()).process).pool) }
    }

    /// Whether it is a virtual host.
    pub fn is_virtual(self) -> bool {
        // SAFETY: a live server.
        unsafe { (*self.as_ptr()).is_virtual != 0 }
    }

    /// `Timeout`, microseconds.
    pub fn timeout_us(self) -> i64 {
        // SAFETY: a live server.
        unsafe { (*self.as_ptr()).timeout }
    }

    /// The descriptor of its error log; `None` if it logs elsewhere (syslog).
    pub fn error_log(self) -> Option<i32> {
        let mut fd = -1;
        // SAFETY: a live server and its open file.
        unsafe {
            let file = (*self.as_ptr()).error_log;
            if file.is_null() || sys::apr_os_file_get(&mut fd, file) != sys::APR_SUCCESS {
                return None;
            }
        }
        (fd >= 0).then_some(fd)
    }

    /// The most detailed level that it logs of this module.
    pub fn log_level(self) -> Level {
        const LEVELS: [Level; 8] = [
            Level::Trace1,
            Level::Debug,
            Level::Info,
            Level::Notice,
            Level::Warning,
            Level::Error,
            Level::Crit,
            Level::Alert,
        ];
        let index = crate::httpd::hooks::module_index();
        let logs = |level: &Level| {
            // SAFETY: a live server.
            unsafe { sys::rwsgi_server_logs(self.as_ptr(), index, *level as i32) != 0 }
        };
        LEVELS.into_iter().find(logs).unwrap_or(Level::Alert)
    }

    /// Logs a line with the main log, whatever `LogLevel` is. Any thread. Where there is no error
    /// log yet the line goes to standard error, if its level is notice or above.
    pub fn log_anyway(level: Level, line: &[u8]) {
        // SAFETY: null is the main log.
        unsafe { sys::log::server(core::ptr::null(), level, line) }
    }

    /// Logs a line with this server's log. Any thread.
    pub fn log(self, level: Level, line: &[u8]) {
        // SAFETY: a live server.
        unsafe { sys::log::server(self.as_ptr(), level, line) }
    }

    /// The same for a message that says where it was made.
    pub fn log_from(self, level: Level, source: Source<'_>, line: &[u8]) {
        // SAFETY: a live server.
        unsafe { sys::log::server_from(self.as_ptr(), level, Some(source), line) }
    }

    /// Whether lines of this level are logged. Any thread.
    pub fn logs(self, level: Level) -> bool {
        // SAFETY: a live server.
        unsafe { sys::log::server_logs(self.as_ptr(), level) }
    }
}
