//! What is configured for a server, and what holds for all of them.

use core::ffi::c_void;

use super::interpreters::Interpreters;
use super::remarks::Remark;
use super::scripts::SideScripts;
use super::telemetry::Telemetry;
use super::{Alias, Settings, settings};
use crate::exchange::abi::HashSeed;
use crate::httpd::apache::{Array, Pool, PoolStr, Server};
use crate::httpd::daemon::Groups;
use crate::httpd::gateway::Choice;
use crate::httpd::sys::{apr_pool_t, server_rec};

/// How `PYTHONHASHSEED` is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seed {
    /// Random or fixed.
    pub kind: HashSeed,
    /// The seed, where fixed.
    pub value: u32,
}

/// A script to load when a process starts.
#[derive(Clone, Copy)]
pub struct Import {
    /// The application group.
    pub application_group: PoolStr,
    /// The file.
    pub path: PoolStr,
}

/// Directives that only the main server may have; every virtual host points to the main server's.
#[derive(Clone, Copy)]
pub struct Globals {
    /// `WSGIPythonHome`.
    pub python_home: Option<PoolStr>,
    /// `WSGIPythonOptimize`.
    pub optimize: Option<u32>,
    /// `WSGIPythonWarnings`, in order.
    pub warnings: Array<PoolStr>,
    /// `WSGIPythonHashSeed`.
    pub hash_seed: Option<Seed>,
    /// `WSGIDontWriteBytecode`.
    pub dont_write_bytecode: Option<bool>,
    /// What concerns interpreters.
    pub interpreters: Interpreters,
    /// `WSGIRestrictEmbedded`.
    pub restrict_embedded: Option<bool>,
    /// `WSGICaseSensitivity`.
    pub case_sensitivity: Option<bool>,
    /// `WSGIRequestPermits`.
    pub request_permits: Option<u32>,
    /// What is measured and reported.
    pub telemetry: Telemetry,
    /// The gateway for this configuration; set when httpd has read all of it.
    pub gateway: Option<Choice>,
    /// Whether the main interpreter is asked for by name; set at the same time.
    pub reserve_main: bool,
    /// `WSGIPythonEggs`.
    pub python_eggs: Option<PoolStr>,
    /// `ASGILoop uvloop`.
    pub uvloop: bool,
    /// What is to be said of this configuration.
    pub remarks: Array<Remark>,
    /// Scripts that httpd's own processes load when they start.
    pub imports: Array<Import>,
    /// Scripts that are asked about requests.
    pub side_scripts: SideScripts,
    /// The process groups; null as long as there is nothing to say of them.
    groups: *mut Groups,
}

impl Globals {
    /// The process groups, if there are any.
    #[inline]
    pub fn groups(&self) -> Option<&Groups> {
        // SAFETY: null, or made by `groups_or_new` in the configuration's pool.
        unsafe { self.groups.as_ref() }
    }

    /// The same, to be changed while httpd starts, which it does in one thread.
    pub fn groups_mut(&mut self) -> Option<&mut Groups> {
        // SAFETY: as above.
        unsafe { self.groups.as_mut() }
    }

    /// The same; made in `pool`, the configuration's, if there are none.
    pub fn groups_or_new(&mut self, pool: Pool<'_>) -> &mut Groups {
        if self.groups.is_null() {
            self.groups = pool.own(Groups::default());
        }
        // SAFETY: as above.
        unsafe { &mut *self.groups }
    }
}

/// The configuration of the main server or a virtual host.
#[derive(Clone, Copy)]
pub struct ServerConfig {
    /// Settings for what no directory section says otherwise.
    pub settings: Settings,
    /// `WSGIScriptAlias`, `ASGIScriptAlias` and their like, those of the virtual host first.
    pub aliases: Array<Alias>,
    /// Whether a directive within this server asks for the application group `""`, or may do so
    /// by a variable.
    pub names_main_group: bool,
    globals: *mut Globals,
}

impl ServerConfig {
    /// The configuration of `server`.
    #[inline(always)]
    pub fn of<'s>(server: Server<'s>) -> Option<&'s ServerConfig> {
        // SAFETY: `create` and `merge` put it there; nothing changes it after start-up.
        unsafe { server.config::<ServerConfig>().as_ref() }
    }

    /// The same while httpd reads its configuration, which it does in one thread.
    pub fn of_mut<'s>(server: Server<'s>) -> Option<&'s mut ServerConfig> {
        // SAFETY: as above; the callers hold one such reference at a time.
        unsafe { server.config::<ServerConfig>().as_mut() }
    }

    /// What holds for the whole server.
    #[inline(always)]
    pub fn globals(&self) -> &Globals {
        // SAFETY: `create` made it in the same pool.
        unsafe { &*self.globals }
    }

    /// The same while httpd reads its configuration.
    pub fn globals_mut(&mut self) -> &mut Globals {
        // SAFETY: as above, and one thread reads the configuration.
        unsafe { &mut *self.globals }
    }
}

/// httpd's `create_server_config`.
///
/// # Safety
/// Called by httpd.
pub unsafe extern "C" fn create(pool: *mut apr_pool_t, _: *mut server_rec) -> *mut c_void {
    // SAFETY: the configuration pool. Nothing here can panic.
    let pool = unsafe { Pool::new(pool) };
    let globals = pool.place(Globals {
        python_home: None,
        optimize: None,
        warnings: Array::new(pool),
        hash_seed: None,
        dont_write_bytecode: None,
        interpreters: Interpreters::new(pool),
        restrict_embedded: None,
        case_sensitivity: None,
        request_permits: None,
        telemetry: Telemetry::default(),
        gateway: None,
        reserve_main: false,
        python_eggs: None,
        uvloop: false,
        remarks: Array::new(pool),
        imports: Array::new(pool),
        side_scripts: SideScripts::default(),
        groups: core::ptr::null_mut(),
    });
    let config = pool.place(ServerConfig {
        settings: Settings::UNSET,
        aliases: Array::new(pool),
        names_main_group: false,
        globals,
    });
    core::ptr::from_mut(config).cast()
}

/// httpd's `merge_server_config`: a virtual host over the main server.
///
/// # Safety
/// Called by httpd with results of [`create`].
pub unsafe extern "C" fn merge(
    pool: *mut apr_pool_t,
    parent: *mut c_void,
    child: *mut c_void,
) -> *mut c_void {
    // SAFETY: the caller's promise. Nothing here can panic.
    let (pool, parent, child) = unsafe {
        (
            Pool::new(pool),
            &*parent.cast::<ServerConfig>(),
            &*child.cast::<ServerConfig>(),
        )
    };
    let merged = pool.place(ServerConfig {
        settings: settings::merged(&child.settings, &parent.settings, pool),
        aliases: child.aliases.followed_by(&parent.aliases, pool),
        names_main_group: child.names_main_group || parent.names_main_group,
        globals: parent.globals,
    });
    core::ptr::from_mut(merged).cast()
}
