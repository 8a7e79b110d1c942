//! The life of Python in a child process.

use core::ffi::{c_int, c_void};
use core::sync::atomic::{AtomicBool, AtomicPtr, Ordering};
use std::time::Instant;

use crate::exchange::abi::{
    HashSeed, HostTable, Import, InterpreterOptions, MetricsOptions, Opt, RuntimeOptions, Slice,
    Source, Text, VERSION,
};
use crate::exchange::interpreters::Rule;
use crate::exchange::{Level, abi::GatewayTable};
use crate::httpd::apache::{Pool, PoolStr, Server, log_id, mpm, scoreboard};
use crate::httpd::config::interpreters::Interpreters;
use crate::httpd::config::{Globals, ServerConfig, server::Seed, values};
use crate::httpd::daemon::{Groups, generation};
use crate::httpd::gateway::{Choice, load};
use crate::httpd::hooks::loops;
use crate::httpd::sys::boundary::{Place, guard};
use crate::httpd::sys::{self, apr_pool_t, apr_status_t, server_rec};
use crate::httpd::tunnel::keeper;
use crate::messages::{GATEWAY_MISMATCH, LOAD_FAILED, NO_PYTHON};

/// The gateway of this process while Python runs in it. Set by `child_init`, before the threads
/// that serve requests are there, and never in the parent.
static GATEWAY: AtomicPtr<GatewayTable> = AtomicPtr::new(core::ptr::null_mut());

/// Whether Python has been started in this process: it is not started twice, not even when `-X`
/// makes one process live through several configurations.
static STARTED: AtomicBool = AtomicBool::new(false);

/// The main server of the configuration that this process serves, for lines that belong to no
/// request. Its pool outlives the child's.
static MAIN: AtomicPtr<server_rec> = AtomicPtr::new(core::ptr::null_mut());

/// `WSGIServerMetrics`, for this process.
static SERVER_METRICS: AtomicBool = AtomicBool::new(false);

/// Whether the event loops of this process have been told that it ends.
static DRAINED: AtomicBool = AtomicBool::new(false);

/// Whether this process ends without waiting for requests.
static ENDS_NOW: AtomicBool = AtomicBool::new(false);

/// How long Python's exit handlers may take; httpd's parent is less patient than ten seconds.
const STOP_DEADLINE_MS: u32 = 3_000;

/// How many new requests may wait for the GIL at once where nothing is configured.
const REQUEST_PERMITS: u32 = 4;

static HOST: HostTable = HostTable {
    version: VERSION,
    size: size_of::<HostTable>() as u32,
    log: host_log,
    log_from: host_log_from,
    logs: host_logs,
    is_ending,
    scoreboard: host_scoreboard,
};

/// The gateway; `None` where Python does not run in this process.
#[inline(always)]
pub fn gateway() -> Option<&'static GatewayTable> {
    // SAFETY: the table of a shared object that is never unloaded.
    unsafe { GATEWAY.load(Ordering::Acquire).as_ref() }
}

/// httpd's `child_init`: after privileges are dropped, before any thread of the MPM runs.
///
/// # Safety
/// Called by httpd.
pub unsafe extern "C" fn child_init(pchild: *mut apr_pool_t, server: *mut server_rec) {
    guard(Place::Server(server), (), || {
        // SAFETY: the child's pool, and the main server of the configuration it serves.
        let (pool, server) = unsafe { (Pool::new(pchild), Server::new(server)) };
        MAIN.store(server.as_ptr(), Ordering::Release);
        DRAINED.store(false, Ordering::Relaxed);
        ENDS_NOW.store(false, Ordering::Relaxed);
        mpm::note_child();
        log_id::note_child();
        let Some(config) = ServerConfig::of(server) else {
            return;
        };
        generation::leave_to_parent(pool);
        keeper::prepare(pool);
        for group in config.globals().groups().map_or(&[][..], Groups::all) {
            group.prepare_client();
        }
        let metrics = config.globals().telemetry.server_metrics;
        SERVER_METRICS.store(metrics == Some(true), Ordering::Relaxed);
        let Some(choice) = config.globals().gateway else {
            return;
        };
        if let Err(message) = start(server, config.globals(), &choice) {
            server.log(Level::Alert, message.as_bytes());
            return;
        }
        loops::prepare(server);
        // SAFETY: the function may be called at any time with any data.
        unsafe { pool.on_clear(core::ptr::null_mut(), stop) };
    });
}

/// Loads the gateway and starts Python. `Err` is a message.
fn start(server: Server<'_>, globals: &Globals, choice: &Choice) -> Result<(), String> {
    if STARTED.swap(true, Ordering::AcqRel) {
        return Err(format!(
            "{LOAD_FAILED}Python has already run in this process and cannot be started again; stop \
             and start httpd"
        ));
    }
    // A hang while loading shows nothing else in the log.
    let about = format!(
        "starting Python {} ({})",
        choice.version.text(),
        choice.libpython.text()
    );
    server.log(Level::Info, about.as_bytes());
    let began = Instant::now();
    let table =
        load::load(choice).map_err(|failure| format!("{}{}", failure.code, failure.message))?;
    if !same_minor(table.python, &choice.version.text()) {
        return Err(format!(
            "{GATEWAY_MISMATCH}{} was built for another Python than its record says; run 'make \
             gateway' again",
            choice.gateway.text()
        ));
    }
    if start_with(table, globals, choice) != 0 {
        return Err(format!(
            "{NO_PYTHON}Python could not be started; requests in this process are answered with 500"
        ));
    }
    GATEWAY.store(core::ptr::from_ref(table).cast_mut(), Ordering::Release);
    let about = format!("Python started in {} ms", began.elapsed().as_millis());
    server.log(Level::Info, about.as_bytes());
    Ok(())
}

/// Whether `PY_VERSION_HEX` and a version in text agree in major and minor number.
fn same_minor(hex: u32, text: &str) -> bool {
    let prefix = format!("{}.{}.", hex >> 24, (hex >> 16) & 0xff);
    text.starts_with(&prefix)
}

/// The rules for httpd's own processes; WSGISwitchInterval outside of all blocks is for them alone.
fn embedded_rules(interpreters: &Interpreters, single: bool) -> Vec<Rule> {
    let base = Rule {
        switch_interval: interpreters.base.switch_interval,
        ..Rule::default()
    };
    let mut rules = vec![base];
    rules.extend(interpreters.rules(b"", single));
    rules
}

fn start_with(table: &GatewayTable, globals: &Globals, choice: &Choice) -> c_int {
    let interpreters = &globals.interpreters;
    let path = interpreters.base.python_path;
    let python_path: Vec<Text<'_>> = path
        .iter()
        .flat_map(|list| values::directories(list.bytes()))
        .map(Text::from)
        .collect();
    let warnings: Vec<Text<'_>> = globals
        .warnings
        .items()
        .iter()
        .map(|filter| Text::from(filter.bytes()))
        .collect();
    let imports: Vec<Import<'_>> = globals
        .imports
        .items()
        .iter()
        .map(|script| Import {
            application_group: Text::from(script.application_group.bytes()),
            path: Text::from(script.path.bytes()),
        })
        .collect();
    let seed = globals.hash_seed.unwrap_or(Seed {
        kind: HashSeed::Unset,
        value: 0,
    });
    // With -X a person debugs at the terminal.
    let single = mpm::is_defined(c"ONE_PROCESS");
    let rules: Vec<Vec<u8>> = embedded_rules(interpreters, single)
        .iter()
        .map(Rule::encode)
        .collect();
    let rules: Vec<Text<'_>> = rules.iter().map(|rule| Text::new(rule)).collect();
    let threads = mpm::threads();
    let processes = mpm::processes();
    let options = RuntimeOptions {
        program_name: Opt::new(choice.program.as_ref().map(|program| program.bytes())),
        home: Opt::new(choice.home.as_ref().map(|home| home.bytes())),
        imports: Slice::new(&imports),
        python_path: Slice::new(&python_path),
        python_eggs: Opt::new(globals.python_eggs.as_ref().map(PoolStr::bytes)),
        warnings: Slice::new(&warnings),
        optimize: globals
            .optimize
            .map_or(-1, |level| i32::try_from(level).unwrap_or(i32::MAX)),
        hash_seed: seed.kind,
        hash_seed_value: seed.value,
        dont_write_bytecode: globals.dont_write_bytecode.unwrap_or(false),
        restrict_stdin: interpreters.base.restrict_stdin.unwrap_or(false) && !single,
        restrict_stdout: interpreters.base.restrict_stdout.unwrap_or(false) && !single,
        restrict_signal: interpreters.base.restrict_signal.unwrap_or(true),
        multithread: threads != 1,
        multiprocess: processes != 1,
        reserve_main: globals.reserve_main,
        threads,
        processes,
        request_permits: globals.request_permits.unwrap_or(REQUEST_PERMITS),
        server_version: mpm::version(),
        server_description: Text::from(mpm::description()),
        server_built: Text::from(mpm::built()),
        mpm_name: Text::from(mpm::name()),
        uvloop: globals.uvloop,
        metrics: metrics(globals),
        interpreters: InterpreterOptions {
            rules: Slice::new(&rules),
            free_threading: interpreters.free_threading(b""),
            destroy: interpreters.destroy.unwrap_or(true),
        },
    };
    // SAFETY: both tables are valid; this is the child's first thread, after the fork.
    unsafe { (table.start)(&HOST, &options) }
}

fn metrics(globals: &Globals) -> MetricsOptions<'_> {
    let telemetry = &globals.telemetry;
    // With WSGIRestrictEmbedded On, Python may run here, but not for requests.
    let serves = globals.restrict_embedded != Some(true);
    let socket = telemetry.socket.as_ref().filter(|_| serves);
    MetricsOptions {
        socket: Opt::new(socket.map(PoolStr::bytes)),
        interval_s: telemetry.interval(),
        slow_requests_s: telemetry.slow_requests,
        with_user_agent: telemetry.user_agent,
        parent_pid: mpm::parent_pid(),
    }
}

/// httpd's scoreboard for an application in this process.
unsafe extern "C" fn host_scoreboard(
    context: *mut c_void,
    take: unsafe extern "C" fn(*mut c_void, Text<'_>),
) {
    guard(Place::Server(MAIN.load(Ordering::Acquire)), (), || {
        if !SERVER_METRICS.load(Ordering::Relaxed) {
            return;
        }
        if let Some(scoreboard) = scoreboard::read() {
            // SAFETY: the gateway's function and the context that it has given for it.
            unsafe { take(context, Text::new(&scoreboard.encode())) }
        }
    });
}

/// httpd's `child_stopping`: the process begins to end. Threads may be serving requests; with prefork
/// this is called right before the end, possibly by a signal handler, and never for a graceful one.
///
/// # Safety
/// Called by httpd.
pub unsafe extern "C" fn child_stopping(_: *mut apr_pool_t, graceful: c_int) {
    guard(Place::Server(MAIN.load(Ordering::Acquire)), (), || {
        if graceful != 0 {
            drain();
        } else {
            ENDS_NOW.store(true, Ordering::Relaxed);
        }
    });
}

/// Whether requests are not to be served to their end, since the process ends at once. Requests that
/// take long ask now and then, between two waits. Where the process ends gracefully it is here that
/// the event loops are told, if nobody has: prefork has no hook for that.
pub fn ends_now() -> bool {
    let now = ENDS_NOW.load(Ordering::Relaxed);
    if !now && mpm::is_stopping() {
        drain();
    }
    now
}

/// Tells the event loops of this process that it ends.
fn drain() {
    if let Some(table) = gateway()
        && !DRAINED.swap(true, Ordering::AcqRel)
    {
        // SAFETY: the gateway's function may be called by any thread; this one is not attached to
        // Python.
        unsafe { (table.drain)() }
    }
}

/// Clean-up of the child's pool: exit of the process, after its threads have ended; with prefork
/// possibly from a signal handler, as the gateway knows.
unsafe extern "C" fn stop(_: *mut c_void) -> apr_status_t {
    guard(
        Place::Server(MAIN.load(Ordering::Acquire)),
        sys::APR_SUCCESS,
        || {
            let table = GATEWAY.swap(core::ptr::null_mut(), Ordering::AcqRel);
            // SAFETY: as in `gateway`; `start` was called by this thread and succeeded.
            unsafe {
                if let Some(table) = table.as_ref() {
                    (table.stop)(STOP_DEADLINE_MS);
                }
            }
            sys::APR_SUCCESS
        },
    )
}

/// Logs a line that belongs to no request.
unsafe extern "C" fn host_log(level: u8, line: Text<'_>) {
    let server = MAIN.load(Ordering::Acquire);
    guard(Place::Server(server), (), || {
        // SAFETY: null, which is the main log, or the server that `child_init` was given.
        unsafe { sys::log::server(server, level_of(level), line.bytes()) }
    });
}

/// The same for a message that says where it was made.
unsafe extern "C" fn host_log_from(level: u8, source: *const Source<'_>, line: Text<'_>) {
    let server = MAIN.load(Ordering::Acquire);
    guard(Place::Server(server), (), || {
        // SAFETY: as in `host_log`; the gateway passes a valid source.
        unsafe { sys::log::server_from(server, level_of(level), Some(*source), line.bytes()) }
    });
}

/// Whether a line of this level is logged outside of requests.
unsafe extern "C" fn host_logs(level: u8) -> c_int {
    // SAFETY: as in `host_log`.
    c_int::from(unsafe { sys::log::server_logs(MAIN.load(Ordering::Acquire), level_of(level)) })
}

/// Whether the MPM of this process has begun to stop.
unsafe extern "C" fn is_ending() -> c_int {
    c_int::from(mpm::is_stopping())
}

/// A level from the number that crossed the ABI.
pub fn level_of(number: u8) -> Level {
    match number {
        0 | 1 => Level::Alert,
        2 => Level::Crit,
        3 => Level::Error,
        4 => Level::Warning,
        5 => Level::Notice,
        6 => Level::Info,
        7 => Level::Debug,
        _ => Level::Trace1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_their_minor_number() {
        assert!(same_minor(0x030b_02f0, "3.11.2"));
        assert!(!same_minor(0x0301_02f0, "3.11.2"));
        assert!(!same_minor(0x030c_01f0, "3.11.2"));
    }

    #[test]
    fn levels_keep_their_numbers() {
        for number in 1..=8 {
            assert_eq!(level_of(number) as u8, number);
        }
    }
}
