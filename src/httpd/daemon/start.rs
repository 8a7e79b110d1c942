//! From a configuration to running supervisors.

use std::ffi::{CString, OsStr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use super::group::{Group, Groups};
use super::identity::{self, Identity};
use super::socket::{self, Naming};
use super::{generation, places, route, scoreboard, spawn};
use crate::daemon::control::Script;
use crate::daemon::group::GroupConfig;
use crate::exchange::Level;
use crate::exchange::abi::HashSeed;
use crate::httpd::apache::{Pool, PoolStr, Server, mpm};
use crate::httpd::config::interpreters::Interpreters;
use crate::httpd::config::server::Seed;
use crate::httpd::config::{Globals, ServerConfig, expand};
use crate::httpd::gateway::choose::{self, Configured};
use crate::httpd::gateway::load;
use crate::messages::{
    BAD_PROCESS_GROUP, CORE_DUMPS, LIFELINE_FAILED, NO_GATEWAY_DIRECTORY, NO_SCOREBOARD_PAGE,
    NO_SUPERVISOR_PROGRAM, SOCKET_FAILED, UNDECLARED_PROCESS_GROUP, USER_IGNORED,
};

/// The file name of the supervisor, beside the gateways.
const PROGRAM: &str = "rwsgi-daemon";

/// How a group is started.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Who it runs as.
    pub identity: Identity,
    /// The interpreter that its workers run.
    pub python: PathBuf,
    /// The directory of the gateways.
    pub gateways: PathBuf,
    /// The working directory; `None`: httpd's.
    pub home: Option<PathBuf>,
    /// The version of Python.
    pub version: String,
    /// Its build can run without the global lock.
    pub free_threaded: bool,
}

fn path(bytes: &[u8]) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(bytes))
}

/// Completes the groups, now that all of the configuration is known.
///
/// # Errors
/// A message.
pub fn complete(globals: &mut Globals, pool: Pool<'_>) -> Result<(), String> {
    let home = globals.python_home.map(|home| path(home.bytes()));
    let Some(groups) = globals.groups_mut() else {
        return Ok(());
    };
    if groups.all().is_empty() {
        return Ok(());
    }
    let module = load::module_file()
        .ok_or_else(|| format!("{NO_GATEWAY_DIRECTORY}the place of mod_rwsgi.so is not known"))?;
    if groups.socket_prefix.is_none() {
        let default = mpm::runtime_path(c"wsgi", pool)
            .ok_or_else(|| format!("{BAD_PROCESS_GROUP}DefaultRuntimeDir is malformed"))?;
        groups.socket_prefix = Some(default.bytes().to_vec());
    }
    let prefix = groups.socket_prefix.clone().unwrap_or_default();
    for group in groups.all_mut() {
        let plan = plan(group, &module, home.as_deref(), &prefix)
            .map_err(|message| in_group(group, &message))?;
        group.plan = Some(plan);
    }
    Ok(())
}

/// A message about a group; one that has no code yet gets one.
fn in_group(group: &Group, message: &str) -> String {
    if message.starts_with("RWSGI") {
        // "RWSGI0003: text" becomes "RWSGI0003: WSGIDaemonProcess NAME: text".
        let (code, text) = message.split_once(": ").unwrap_or((message, ""));
        return format!("{code}: WSGIDaemonProcess {}: {text}", group.label());
    }
    format!(
        "{BAD_PROCESS_GROUP}WSGIDaemonProcess {}: {message}",
        group.label()
    )
}

fn plan(group: &Group, module: &Path, home: Option<&Path>, prefix: &[u8]) -> Result<Plan, String> {
    let options = &group.options;
    let identity = identity::of(options)?;
    socket::check_length(prefix, group.index, slots(&options.worker))?;
    let root = path(group.root());
    let own = options.python_home.as_deref().map(path);
    let configured = match (&own, home) {
        (Some(directory), _) => Some(Configured {
            what: "python-home",
            directory,
        }),
        (None, Some(directory)) => Some(Configured {
            what: "WSGIPythonHome",
            directory,
        }),
        (None, None) => None,
    };
    let interpreter = choose::interpreter(module, configured, &root)
        .map_err(|failure| format!("{}{}", failure.code, failure.message))?;
    let program = interpreter.gateways.join(PROGRAM);
    if !program.is_file() {
        return Err(format!(
            "{NO_SUPERVISOR_PROGRAM}{} is missing; run 'make build' and 'make install'",
            program.display()
        ));
    }
    let plan = Plan {
        home: home_of(group, &identity),
        identity,
        python: interpreter.program,
        version: interpreter.version,
        free_threaded: interpreter.free_threaded,
        gateways: interpreter.gateways,
    };
    places::try_out(
        options,
        &plan.identity,
        plan.home.as_deref(),
        &plan.python,
        &plan.gateways,
    )?;
    Ok(plan)
}

/// The working directory: what is configured, else the user's own where that is not httpd's. Where
/// the user has none, as is common for accounts of services, it is the root directory.
fn home_of(group: &Group, identity: &Identity) -> Option<PathBuf> {
    if let Some(home) = &group.options.worker.home {
        return Some(path(home));
    }
    let user = &identity.user;
    if !identity::is_root() || user.uid == mpm::child_identity().0 {
        return None;
    }
    let own = path(&user.home);
    let usable = own.is_absolute() && places::can_enter(&group.options, identity, &own);
    Some(if usable { own } else { PathBuf::from("/") })
}

/// How many sockets a group has: a service script has none.
fn slots(config: &GroupConfig) -> u32 {
    if config.threads == 0 {
        0
    } else {
        config.processes
    }
}

/// Starts all supervisors. Called at the end of `post_config`, in the parent, when httpd is about to
/// serve.
///
/// # Errors
/// A message.
pub fn launch(main: Server<'_>, pool: Pool<'_>) -> Result<(), String> {
    let Some(config) = ServerConfig::of_mut(main) else {
        return Ok(());
    };
    let globals = config.globals_mut();
    let shared = Shared::of(globals);
    let Some(groups) = globals
        .groups_mut()
        .filter(|groups| !groups.all().is_empty())
    else {
        return Ok(());
    };
    if let Some(mechanism) = &groups.accept_mutex {
        let line = format!(
            "WSGIAcceptMutex {mechanism} has no effect: every worker has a socket of its own"
        );
        main.log(Level::Debug, line.as_bytes());
    }
    let lifeline = generation::begin(main.process_pool(), pool).map_err(|error| {
        format!("{LIFELINE_FAILED}no pipe could be made for the process groups: {error}")
    })?;
    let naming = groups.socket_naming();
    for group in groups.all_mut() {
        start(group, &shared, &naming, &lifeline, main)
            .map_err(|message| in_group(group, &message))?;
    }
    Ok(())
}

/// Process groups that are named somewhere, by a plain name, but declared nowhere: a warning, since
/// the name may be in a part of the configuration that is never used.
pub fn warn_undeclared(main: Server<'_>) {
    let Some(globals) = ServerConfig::of(main).map(ServerConfig::globals) else {
        return;
    };
    let mut warned: Vec<&[u8]> = Vec::new();
    for server in main.and_following() {
        let Some(config) = ServerConfig::of(server) else {
            continue;
        };
        let aliases = config.aliases.items().iter();
        let handlers = config.settings.handler_scripts.iter();
        let handlers = handlers.flat_map(|scripts| scripts.items());
        let names = aliases
            .filter_map(|alias| alias.options.process_group.as_ref())
            .chain(handlers.filter_map(|handler| handler.options.process_group.as_ref()))
            .chain(&config.settings.process_group);
        for name in names.map(PoolStr::bytes) {
            let literal = !name.is_empty() && expand::parse(name) == expand::Form::Literal;
            let known = || {
                let groups = globals.groups();
                groups.is_some_and(|groups| groups.find(name).is_some())
            };
            if literal && !warned.contains(&name) && !known() {
                warned.push(name);
                let line = format!(
                    "{UNDECLARED_PROCESS_GROUP}no WSGIDaemonProcess declares the process group \
                     '{}', which is used in the configuration of {}",
                    String::from_utf8_lossy(name),
                    String::from_utf8_lossy(server.hostname())
                );
                main.log(Level::Warning, line.as_bytes());
            }
        }
    }
}

/// What is the same for all groups.
struct Shared {
    config: GroupConfig,
    interpreters: Interpreters,
    single: bool,
    core_dumps: bool,
}

impl Shared {
    fn of(globals: &Globals) -> Self {
        let single = mpm::is_defined(c"ONE_PROCESS");
        let base = &globals.interpreters.base;
        let seed = globals.hash_seed.unwrap_or(Seed {
            kind: HashSeed::Unset,
            value: 0,
        });
        let config = GroupConfig {
            python_warnings: globals
                .warnings
                .items()
                .iter()
                .map(|filter| filter.bytes().to_vec())
                .collect(),
            python_optimize: globals
                .optimize
                .map_or(-1, |level| i32::try_from(level).unwrap_or(i32::MAX)),
            python_hash_seed: match seed.kind {
                HashSeed::Unset => None,
                HashSeed::Random => Some(b"random".to_vec()),
                HashSeed::Fixed => Some(seed.value.to_string().into_bytes()),
            },
            dont_write_bytecode: globals.dont_write_bytecode.unwrap_or(false),
            restrict_stdin: base.restrict_stdin.unwrap_or(false) && !single,
            restrict_stdout: base.restrict_stdout.unwrap_or(false) && !single,
            restrict_signal: base.restrict_signal.unwrap_or(true),
            reserve_main: globals.reserve_main,
            destroy_interpreter: globals.interpreters.destroy.unwrap_or(true),
            // Here 0 is no special number.
            request_permits: match globals.request_permits {
                None => GroupConfig::default().request_permits,
                Some(0) => u32::MAX,
                Some(permits) => permits,
            },
            server_version: mpm::version().to_vec(),
            server_description: mpm::description().to_vec(),
            server_built: mpm::built().to_vec(),
            mpm_name: mpm::name().to_vec(),
            telemetry_socket: globals.telemetry.socket.map(|path| path.bytes().to_vec()),
            telemetry_interval: globals.telemetry.interval(),
            telemetry_user_agent: globals.telemetry.user_agent,
            slow_requests: globals.telemetry.slow_requests,
            parent_pid: std::process::id(),
            ..GroupConfig::default()
        };
        Shared {
            config,
            interpreters: globals.interpreters,
            single,
            core_dumps: mpm::wants_core_dumps(),
        }
    }

    /// What a group's supervisor and workers are told, but for descriptors.
    fn complete(&self, group: &Group, plan: &Plan, peer: u32) -> GroupConfig {
        let shared = self.config.clone();
        let own = group.options.worker.clone();
        let server = group.server();
        let timeout = match group.options.socket_timeout {
            0 => u32::try_from(server.timeout_us() / 1_000_000).unwrap_or(300),
            seconds => seconds,
        };
        let root = group.root();
        let imports = own.imports.iter().map(|script| Script {
            application_group: script.application_group.clone(),
            path: route::within(root, &script.path).to_vec(),
        });
        let mut rules = self.interpreters.rules(group.name(), self.single);
        if own.threads == 0 {
            // A service script is its process's own master.
            rules
                .iter_mut()
                .for_each(|rule| rule.restrict_signal = None);
        }
        let free_threading = self.interpreters.free_threading(group.name());
        GroupConfig {
            imports: imports.collect(),
            interpreter_options: rules,
            free_threading: plan.free_threaded.then_some(free_threading),
            destroy_interpreter: shared.destroy_interpreter,
            python: plan.python.as_os_str().as_bytes().to_vec(),
            gateway_directory: plan.gateways.as_os_str().as_bytes().to_vec(),
            peer_uid: Some(peer),
            socket_timeout: timeout.max(1),
            log_level: server.log_level() as u32,
            core_dumps: self.core_dumps,
            python_warnings: shared.python_warnings,
            python_optimize: shared.python_optimize,
            python_hash_seed: shared.python_hash_seed,
            dont_write_bytecode: shared.dont_write_bytecode,
            restrict_stdin: shared.restrict_stdin,
            restrict_stdout: shared.restrict_stdout,
            // A service script is its process's own master.
            restrict_signal: shared.restrict_signal && own.threads > 0,
            reserve_main: shared.reserve_main,
            request_permits: shared.request_permits,
            server_version: shared.server_version,
            server_description: shared.server_description,
            server_built: shared.server_built,
            mpm_name: shared.mpm_name,
            telemetry_socket: shared
                .telemetry_socket
                .map(|path| route::within(root, &path).to_vec()),
            telemetry_interval: shared.telemetry_interval,
            telemetry_user_agent: shared.telemetry_user_agent,
            slow_requests: shared.slow_requests,
            parent_pid: shared.parent_pid,
            ..own
        }
    }
}

/// Makes the sockets of a group and starts its supervisor.
fn start(
    group: &mut Group,
    shared: &Shared,
    naming: &Naming,
    lifeline: &OwnedFd,
    main: Server<'_>,
) -> Result<(), String> {
    let Some(plan) = group.plan.clone() else {
        return Err("it has not been completed".to_owned());
    };
    let root = identity::is_root();
    if !root {
        warn_unprivileged(group, &plan, main);
    } else if shared.core_dumps && plan.identity.user.uid == mpm::child_identity().0 {
        warn_core_dumps(group, main);
    }
    let socket_owner = group.options.socket_user.unwrap_or(if root {
        mpm::child_identity().0
    } else {
        plan.identity.user.uid
    });
    let mut config = shared.complete(group, &plan, socket_owner);
    let mut listeners = Vec::new();
    for slot in 0..slots(&config) {
        let path = naming.path(group.index, slot);
        let listener = socket::listen(&path, config.listen_backlog, root.then_some(socket_owner))
            .map_err(|error| {
            format!(
                "{SOCKET_FAILED}the socket {} could not be made: {error}; WSGISocketPrefix names \
                 another place",
                String::from_utf8_lossy(&path)
            )
        })?;
        socket::set_buffers(
            &listener,
            group.options.send_buffer_size,
            group.options.receive_buffer_size,
        );
        listeners.push(listener);
        group.sockets.push(path);
    }
    let numbers = spawn::numbers(listeners.len());
    config.listener_fds = numbers.listeners;
    config.lifeline_fd = Some(numbers.lifeline);
    let scoreboard = scoreboard_of(group, main);
    config.scoreboard_fd = scoreboard.is_some().then_some(numbers.scoreboard);

    let failed = |what: &str, error: std::io::Error| format!("{SOCKET_FAILED}{what}: {error}");
    let program = std::fs::File::open(plan.gateways.join(PROGRAM))
        .map_err(|error| failed("rwsgi-daemon could not be opened", error))?;
    let recipe = spawn::Recipe {
        program: program.into(),
        arguments: vec![
            text(&[b"rwsgi-daemon: ", group.name()]),
            text(&[b"--config-fd"]),
            text(&[b"3"]),
        ],
        environment: environment(&plan.identity, root),
        identity: root.then(|| plan.identity.clone()),
        chroot: group.options.chroot.as_deref().map(|root| text(&[root])),
        home: plan
            .home
            .as_deref()
            .map(|home| text(&[home.as_os_str().as_bytes()])),
        umask: group.options.umask,
        priority: group.options.cpu_priority,
        log: log_of(group, main).map_err(|error| failed("the error log", error))?,
        listeners,
        lifeline: lifeline
            .try_clone()
            .map_err(|error| failed("the lifeline", error))?,
        scoreboard,
    };
    generation::add(
        config,
        recipe,
        group.sockets.clone(),
        group.server().as_ptr(),
        main.process_pool().as_ptr(),
    )
}

/// The page with httpd's scoreboard, if the group may see it.
fn scoreboard_of(group: &Group, main: Server<'_>) -> Option<OwnedFd> {
    if !group.options.worker.server_metrics {
        return None;
    }
    match scoreboard::descriptor() {
        Ok(page) => Some(page),
        Err(error) => {
            let line = format!(
                "{NO_SCOREBOARD_PAGE}WSGIDaemonProcess {}: server-metrics=On has no effect: the \
                 page for it could not be made: {error}",
                group.label()
            );
            main.log(Level::Warning, line.as_bytes());
            None
        }
    }
}

/// A C string; NUL cannot come from a configuration file.
fn text(pieces: &[&[u8]]) -> CString {
    let mut bytes = pieces.concat();
    bytes.retain(|byte| *byte != 0);
    CString::new(bytes).unwrap_or_default()
}

/// httpd's environment, with the names and the home of another user put right.
fn environment(identity: &Identity, root: bool) -> Vec<CString> {
    let user = &identity.user;
    let replaced: Vec<(&[u8], &[u8])> = if root && !user.name.is_empty() {
        vec![
            (b"HOME", &user.home),
            (b"USER", &user.name),
            (b"LOGNAME", &user.name),
        ]
    } else {
        Vec::new()
    };
    let mut all = Vec::new();
    for (name, value) in std::env::vars_os() {
        let (name, value) = (name.into_vec(), value.into_vec());
        if !replaced.iter().any(|(other, _)| *other == name) {
            all.push(text(&[&name, b"=", &value]));
        }
    }
    for (name, value) in replaced {
        all.push(text(&[name, b"=", value]));
    }
    all
}

/// The error log of the virtual host that declares the group, else the main one.
fn log_of(group: &Group, main: Server<'_>) -> std::io::Result<OwnedFd> {
    let fd = group.server().error_log().or_else(|| main.error_log());
    // SAFETY: httpd's own descriptor, open as long as its configuration; 2 always is.
    unsafe { BorrowedFd::borrow_raw(fd.unwrap_or(2)) }
        .as_fd()
        .try_clone_to_owned()
}

/// Core dumps make httpd's children readable for every process of their user.
fn warn_core_dumps(group: &Group, main: Server<'_>) {
    let line = format!(
        "{CORE_DUMPS}WSGIDaemonProcess {} runs as httpd's own user while CoreDumpDirectory is set: \
         its applications can read the memory of httpd's children, TLS keys included; give it a \
         user= of its own",
        group.label()
    );
    main.log(Level::Warning, line.as_bytes());
}

/// Without root's rights another user is out of reach.
fn warn_unprivileged(group: &Group, plan: &Plan, main: Server<'_>) {
    let options = &group.options;
    let others = options
        .user
        .as_ref()
        .is_some_and(|user| user.uid != plan.identity.user.uid)
        || options.group.is_some_and(|gid| gid != plan.identity.gid)
        || options.supplementary_groups.is_some();
    if others {
        let line = format!(
            "{USER_IGNORED}WSGIDaemonProcess {}: user, group and supplementary-groups have no \
             effect, because httpd was not started by root",
            group.label()
        );
        main.log(Level::Warning, line.as_bytes());
    }
}

impl Groups {
    /// How the sockets of this start of httpd are named.
    fn socket_naming(&self) -> Naming {
        let rotates = self.socket_rotation.unwrap_or(true);
        Naming {
            prefix: self.socket_prefix.clone().unwrap_or_default(),
            pid: std::process::id(),
            generation: rotates.then(mpm::generation),
            // SAFETY: no arguments, cannot fail.
            uid: unsafe { libc::geteuid() },
        }
    }
}
