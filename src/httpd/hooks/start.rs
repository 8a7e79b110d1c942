//! Start-up in the parent: which gateway is to be used, and the server's banner. Python itself is
//! never started here.

use core::ffi::c_int;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::exchange::Level;
use crate::httpd::apache::{Pool, PoolStr, Server, mpm};
use crate::httpd::config::{ServerConfig, remarks};
use crate::httpd::daemon::{Groups, start};
use crate::httpd::gateway::record::Minor;
use crate::httpd::gateway::resident::resident;
use crate::httpd::gateway::{Choice, choose, load};
use crate::httpd::hooks::identity;
use crate::httpd::sys::boundary::{Place, guard};
use crate::httpd::sys::{self, apr_pool_t, server_rec};
use crate::messages::{
    FREE_THREADING_SCOPED, NO_GATEWAY_DIRECTORY, NOT_FREE_THREADED, OTHER_PYTHON, OWN_GIL_UNKNOWN,
};

/// httpd's `check_config`: also runs for `apachectl configtest`, where `post_config` does not.
///
/// # Safety
/// Called by httpd.
pub unsafe extern "C" fn check_config(
    pconf: *mut apr_pool_t,
    _: *mut apr_pool_t,
    _: *mut apr_pool_t,
    server: *mut server_rec,
) -> c_int {
    guard(
        Place::Server(server),
        sys::HTTP_INTERNAL_SERVER_ERROR,
        || {
            // SAFETY: the configuration's pool and main server, which outlive this call.
            let (pool, server) = unsafe { (Pool::new(pconf), Server::new(server)) };
            // httpd reads everything twice at start-up; once is enough, unless there is only once.
            if mpm::is_rehearsal() && !mpm::is_config_test() {
                return sys::OK;
            }
            match identity::check().and_then(|()| resolve(pool, server)) {
                Ok(()) => {
                    if let Some(config) = ServerConfig::of(server) {
                        remarks::say(config.globals(), server);
                    }
                    start::warn_undeclared(server);
                    warn_interpreters(server);
                    sys::OK
                }
                Err(message) => {
                    server.log(Level::Crit, message.as_bytes());
                    sys::HTTP_INTERNAL_SERVER_ERROR
                }
            }
        },
    )
}

/// Completes the global values, now that all of the configuration is known.
fn resolve(pool: Pool<'_>, main: Server<'_>) -> Result<(), String> {
    let names_main_group = main
        .and_following()
        .filter_map(ServerConfig::of)
        .any(|config| config.names_main_group);
    let Some(config) = ServerConfig::of_mut(main) else {
        return Ok(());
    };
    let globals = config.globals_mut();
    globals.reserve_main = names_main_group;
    start::complete(globals, pool)?;
    // What is to be loaded or asked in httpd's own processes needs Python there, whatever serves
    // requests.
    if globals.restrict_embedded == Some(true)
        && globals.imports.items().is_empty()
        && !globals.side_scripts.in_use
    {
        return Ok(());
    }
    let module = load::module_file()
        .ok_or_else(|| format!("{NO_GATEWAY_DIRECTORY}the place of mod_rwsgi.so is not known"))?;
    let home = globals
        .python_home
        .map(|home| PathBuf::from(std::ffi::OsStr::from_bytes(home.bytes())));
    let hint = match globals.groups() {
        _ if globals.side_scripts.in_use => {
            "; scripts for access, users, groups and dispatch run in httpd's own processes"
        }
        Some(groups) if !groups.all().is_empty() => {
            "; if all applications run in process groups, set WSGIRestrictEmbedded On"
        }
        _ => "",
    };
    let resident = resident();
    let found = choose::choose(&module, home.as_deref(), resident.as_ref())
        .map_err(|failure| format!("{}{}{hint}", failure.code, failure.message))?;
    if let Some(other) = resident.filter(|other| {
        let record = &found.record;
        !other.suits(record.build())
    }) {
        let message = format!(
            "{OTHER_PYTHON}{} is in httpd already, by a LoadFile line or another module, and the \
             Python to be used is {}: no process can have both; remove that line, or install the \
             gateway for its Python",
            other.file, found.record.version
        );
        // Process groups do not mind, and they may be all that there is.
        if hint.is_empty() {
            return Err(message);
        }
        let line = format!("{message}; httpd's own processes have no Python now{hint}");
        main.log(Level::Warning, line.as_bytes());
        return Ok(());
    }
    let keep = |path: &Path| -> PoolStr { pool.copy(path.as_os_str().as_bytes()) };
    globals.gateway = Some(Choice {
        gateway: keep(&found.gateway),
        libpython: keep(&found.libpython),
        version: pool.copy(found.record.version.as_bytes()),
        free_threaded: found.record.is_free_threaded(),
        program: found.program.as_deref().map(keep),
        home: found.home.as_deref().map(keep),
    });
    Ok(())
}

/// Directives about the global lock that have no effect with the Pythons that are there.
fn warn_interpreters(main: Server<'_>) {
    let Some(globals) = ServerConfig::of(main).map(ServerConfig::globals) else {
        return;
    };
    let interpreters = &globals.interpreters;
    if interpreters.scopes_free_threading() {
        let line = format!(
            "{FREE_THREADING_SCOPED}WSGIFreeThreading is ignored in <WSGIInterpreterOptions> with \
             application-group=: a process has a global lock or has none; select a process-group= \
             instead"
        );
        main.log(Level::Warning, line.as_bytes());
    }
    let embedded = globals.gateway.map(|choice| {
        let processes = "httpd's own processes".to_owned();
        (
            &b""[..],
            processes,
            choice.version.text(),
            choice.free_threaded,
        )
    });
    let groups = globals.groups().map_or(&[][..], Groups::all);
    let groups = groups.iter().filter_map(|group| {
        let plan = group.plan.as_ref()?;
        let processes = format!("the process group '{}'", group.label());
        Some((
            group.name(),
            processes,
            plan.version.clone(),
            plan.free_threaded,
        ))
    });
    for (name, processes, version, free_threaded) in embedded.into_iter().chain(groups) {
        let knows_own_gil = Minor::parse(&version).is_none_or(|minor| minor >= Minor(3, 12));
        if interpreters.wants_own_gil(name) && !knows_own_gil {
            let line = format!(
                "{OWN_GIL_UNKNOWN}WSGIPerInterpreterGIL has no effect in {processes}: their Python \
                 is {version}, and it takes 3.12"
            );
            main.log(Level::Warning, line.as_bytes());
        }
        if interpreters.free_threading(name) && !free_threaded {
            let line = format!(
                "{NOT_FREE_THREADED}WSGIFreeThreading On has no effect in {processes}: their Python \
                 ({version}) is a build that always has the global lock"
            );
            main.log(Level::Warning, line.as_bytes());
        }
    }
}

/// httpd's `post_config`.
///
/// # Safety
/// Called by httpd.
pub unsafe extern "C" fn post_config(
    pconf: *mut apr_pool_t,
    _: *mut apr_pool_t,
    _: *mut apr_pool_t,
    server: *mut server_rec,
) -> c_int {
    guard(
        Place::Server(server),
        sys::HTTP_INTERNAL_SERVER_ERROR,
        || {
            let component = const { VERSION_COMPONENT.as_ptr() };
            // SAFETY: the configuration's pool, a constant string.
            unsafe { sys::ap_add_version_component(pconf, component) };
            sys::OK
        },
    )
}

/// httpd's `post_config`, after all other modules: the supervisors are started.
///
/// # Safety
/// Called by httpd.
pub unsafe extern "C" fn launch(
    pconf: *mut apr_pool_t,
    _: *mut apr_pool_t,
    _: *mut apr_pool_t,
    server: *mut server_rec,
) -> c_int {
    guard(
        Place::Server(server),
        sys::HTTP_INTERNAL_SERVER_ERROR,
        || {
            if mpm::is_rehearsal() || mpm::is_config_test() {
                return sys::OK;
            }
            // SAFETY: the configuration's pool and main server, which outlive this call.
            let (pool, server) = unsafe { (Pool::new(pconf), Server::new(server)) };
            match start::launch(server, pool) {
                Ok(()) => sys::OK,
                Err(message) => {
                    server.log(Level::Alert, message.as_bytes());
                    sys::HTTP_INTERNAL_SERVER_ERROR
                }
            }
        },
    )
}

const VERSION_COMPONENT: &core::ffi::CStr = match core::ffi::CStr::from_bytes_with_nul(
    concat!("rwsgi/", env!("CARGO_PKG_VERSION"), "\0").as_bytes(),
) {
    Ok(text) => text,
    Err(_) => panic!("a version has no NUL"),
};
