//! Start-up in the parent: which gateway is to be used, and the server's banner. Python itself is
//! never started here.

use core::ffi::c_int;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::exchange::Level;
use crate::httpd::apache::{Pool, PoolStr, Server, mpm};
use crate::httpd::config::ServerConfig;
use crate::httpd::daemon::start;
use crate::httpd::gateway::{Choice, choose, load};
use crate::httpd::sys::boundary::{Place, guard};
use crate::httpd::sys::{self, apr_pool_t, server_rec};
use crate::messages::{LOADED_TWICE, NO_GATEWAY_DIRECTORY};

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
            match resolve(pool, server) {
                Ok(()) => {
                    start::warn_undeclared(server);
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
    if super::is_loaded_twice() {
        return Err(format!(
            "{LOADED_TWICE}mod_rwsgi.so is loaded both as rwsgi_module and as wsgi_module: keep one \
             of the two LoadModule lines"
        ));
    }
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
    // What is to be loaded or asked in httpd's own processes needs Python there, whatever may be asked for.
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
        Some(groups) if !groups.all().is_empty() => {
            "; if all applications run in process groups, set WSGIRestrictEmbedded On"
        }
        _ => "",
    };
    let found = choose::choose(&module, home.as_deref())
        .map_err(|failure| format!("{}{}{hint}", failure.code, failure.message))?;
    let keep = |path: &Path| -> PoolStr { pool.copy(path.as_os_str().as_bytes()) };
    globals.gateway = Some(Choice {
        gateway: keep(&found.gateway),
        libpython: keep(&found.libpython),
        version: pool.copy(found.record.version.as_bytes()),
        program: found.program.as_deref().map(keep),
        home: found.home.as_deref().map(keep),
    });
    Ok(())
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
