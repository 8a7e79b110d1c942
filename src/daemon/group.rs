//! The configuration of one process group, and its text form.
//!
//! httpd's parent writes it into a memfd; `rwsgi-daemon FILE` reads it from a file that a person
//! wrote. One `key=value` per line; `\n` and `\\` stand for a line feed and a backslash; empty
//! lines and lines that begin with `#` are skipped; a key that takes several values is repeated.
//! Keys that are not given have the default of `WSGIDaemonProcess`.

#![forbid(unsafe_code)]

use core::fmt::Write as _;

use super::control::{Application, Script};
use crate::exchange::interpreters::Rule;

/// A value in the text form.
trait Value {
    /// Writes `key=value` lines; none for an absent value.
    fn write(&self, key: &str, out: &mut Vec<u8>);
    /// Takes one value.
    fn read(&mut self, value: &[u8]) -> Result<(), String>;
}

fn line(key: &str, value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(key.as_bytes());
    out.push(b'=');
    for &byte in value {
        match byte {
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\\' => out.extend_from_slice(b"\\\\"),
            _ => out.push(byte),
        }
    }
    out.push(b'\n');
}

fn unescape(value: &[u8]) -> Result<Vec<u8>, String> {
    let mut out = Vec::with_capacity(value.len());
    let mut bytes = value.iter();
    while let Some(&byte) = bytes.next() {
        out.push(match byte {
            b'\\' => match bytes.next() {
                Some(b'n') => b'\n',
                Some(b'\\') => b'\\',
                _ => return Err("a backslash must be followed by n or a backslash".to_owned()),
            },
            _ => byte,
        });
    }
    Ok(out)
}

fn parse<T: core::str::FromStr>(value: &[u8]) -> Result<T, String> {
    let text = String::from_utf8_lossy(value);
    text.parse().map_err(|_| format!("'{text}' is no number"))
}

macro_rules! numbers {
    ($($type:ty)*) => {$(
        impl Value for $type {
            fn write(&self, key: &str, out: &mut Vec<u8>) {
                line(key, self.to_string().as_bytes(), out);
            }
            fn read(&mut self, value: &[u8]) -> Result<(), String> {
                *self = parse(value)?;
                Ok(())
            }
        }
    )*};
}

numbers!(u32 u64 i32 f64);

impl Value for bool {
    fn write(&self, key: &str, out: &mut Vec<u8>) {
        line(key, if *self { b"on" } else { b"off" }, out);
    }
    fn read(&mut self, value: &[u8]) -> Result<(), String> {
        *self = match value {
            b"on" => true,
            b"off" => false,
            _ => return Err("the value must be on or off".to_owned()),
        };
        Ok(())
    }
}

impl Value for Vec<u8> {
    fn write(&self, key: &str, out: &mut Vec<u8>) {
        line(key, self, out);
    }
    fn read(&mut self, value: &[u8]) -> Result<(), String> {
        *self = unescape(value)?;
        Ok(())
    }
}

impl<T: Value + Default> Value for Option<T> {
    fn write(&self, key: &str, out: &mut Vec<u8>) {
        if let Some(value) = self {
            value.write(key, out);
        }
    }
    fn read(&mut self, value: &[u8]) -> Result<(), String> {
        let mut inner = T::default();
        inner.read(value)?;
        *self = Some(inner);
        Ok(())
    }
}

impl Value for Vec<Vec<u8>> {
    fn write(&self, key: &str, out: &mut Vec<u8>) {
        for value in self {
            line(key, value, out);
        }
    }
    fn read(&mut self, value: &[u8]) -> Result<(), String> {
        self.push(unescape(value)?);
        Ok(())
    }
}

impl Value for Vec<u32> {
    fn write(&self, key: &str, out: &mut Vec<u8>) {
        for value in self {
            value.write(key, out);
        }
    }
    fn read(&mut self, value: &[u8]) -> Result<(), String> {
        self.push(parse(value)?);
        Ok(())
    }
}

/// `GROUP:PATH`; a colon cannot be part of the group's name here.
impl Value for Vec<Script> {
    fn write(&self, key: &str, out: &mut Vec<u8>) {
        for script in self {
            let value = [&script.application_group[..], b":", &script.path].concat();
            line(key, &value, out);
        }
    }
    fn read(&mut self, value: &[u8]) -> Result<(), String> {
        let value = unescape(value)?;
        // A group's name may have colons (host:port|path), a path begins with a slash.
        let at = value
            .windows(2)
            .position(|pair| pair == b":/")
            .ok_or("the form is APPLICATION-GROUP:/PATH")?;
        self.push(Script {
            application_group: value[..at].to_vec(),
            path: value[at + 1..].to_vec(),
        });
        Ok(())
    }
}

impl Value for Vec<Application> {
    fn write(&self, key: &str, out: &mut Vec<u8>) {
        for application in self {
            line(key, &application.encode(), out);
        }
    }
    fn read(&mut self, value: &[u8]) -> Result<(), String> {
        let application = Application::decode(&unescape(value)?);
        self.push(application.map_err(|_| "this is no application".to_owned())?);
        Ok(())
    }
}

impl Value for Vec<Rule> {
    fn write(&self, key: &str, out: &mut Vec<u8>) {
        for rule in self {
            line(key, &rule.encode(), out);
        }
    }
    fn read(&mut self, value: &[u8]) -> Result<(), String> {
        self.push(Rule::decode(&unescape(value)?)?);
        Ok(())
    }
}

macro_rules! config {
    ($($(#[$doc:meta])* $key:literal $field:ident: $type:ty = $default:expr;)*) => {
        /// One process group. Times are whole seconds where nothing else is said; 0 switches a
        /// limit off where nothing else is said.
        #[derive(Clone, Debug, PartialEq)]
        pub struct GroupConfig {
            $($(#[$doc])* pub $field: $type,)*
        }

        impl Default for GroupConfig {
            fn default() -> Self {
                GroupConfig { $($field: $default,)* }
            }
        }

        impl GroupConfig {
            /// Every key of the text form.
            pub const KEYS: &[&str] = &[$($key),*];

            /// The text form.
            pub fn encode(&self) -> Vec<u8> {
                let mut out = Vec::new();
                $(Value::write(&self.$field, $key, &mut out);)*
                out
            }

            fn set(&mut self, key: &str, value: &[u8]) -> Result<(), String> {
                match key {
                    $($key => Value::read(&mut self.$field, value),)*
                    _ => Err("there is no such key".to_owned()),
                }
            }
        }
    };
}

config! {
    /// The group's name.
    "name" name: Vec<u8> = Vec::new();
    /// Worker processes.
    "processes" processes: u32 = 1;
    /// `wsgi.multiprocess`: `processes=` was given.
    "multiprocess" multiprocess: bool = false;
    /// Threads per worker; 0 is a service script.
    "threads" threads: u32 = 15;
    /// The title of the workers, `%{GROUP}` already filled in.
    "display-name" display_name: Option<Vec<u8>> = None;
    /// Descriptors of the listening sockets, one per slot, in order: from httpd.
    "listener-fd" listener_fds: Vec<u32> = Vec::new();
    /// Paths of the listening sockets, one per slot: without httpd, the supervisor makes them.
    "socket" sockets: Vec<Vec<u8>> = Vec::new();
    /// `listen(2)` backlog of sockets that the supervisor makes.
    "listen-backlog" listen_backlog: u32 = 100;
    /// The only user, beside root and the worker's own, whose connections are accepted. Absent:
    /// the worker's own only.
    "peer-uid" peer_uid: Option<u32> = None;
    /// Read end of a pipe: when it is at its end, no client of this generation is left and the
    /// group drains and ends. Absent without httpd.
    "lifeline-fd" lifeline_fd: Option<u32> = None;
    /// Milliseconds to wait before the first worker is started: httpd restarts a supervisor that
    /// died often.
    "start-delay" start_delay_ms: u32 = 0;
    /// The highest level that is logged, a number of `exchange::Level`.
    "log-level" log_level: u32 = 4;

    /// The interpreter: an executable file.
    "python" python: Vec<u8> = Vec::new();
    /// The directory of the gateways.
    "gateway-directory" gateway_directory: Vec<u8> = Vec::new();
    /// The working directory of the workers, also the first entry of their `sys.path`; the
    /// supervisor is already there.
    "home" home: Option<Vec<u8>> = None;
    /// Directories for `site.addsitedir`, moved to the front of `sys.path`.
    "python-path" python_path: Vec<Vec<u8>> = Vec::new();
    /// `PYTHON_EGG_CACHE`.
    "python-eggs" python_eggs: Option<Vec<u8>> = None;
    /// `LANG`.
    "lang" lang: Option<Vec<u8>> = None;
    /// `LC_ALL`.
    "locale" locale: Option<Vec<u8>> = None;
    /// `NAME=VALUE`, set for the workers after `env-file`.
    "env" env: Vec<Vec<u8>> = Vec::new();
    /// A file of `NAME=VALUE` lines, read by the supervisor whenever it starts a worker.
    "env-file" env_file: Option<Vec<u8>> = None;
    /// As `-W`.
    "python-warnings" python_warnings: Vec<Vec<u8>> = Vec::new();
    /// As many `-O`; negative: not configured.
    "python-optimize" python_optimize: i32 = -1;
    /// `PYTHONHASHSEED`: `random` or a number.
    "python-hash-seed" python_hash_seed: Option<Vec<u8>> = None;
    /// As `-B`.
    "dont-write-bytecode" dont_write_bytecode: bool = false;
    /// `sys.stdin` raises.
    "restrict-stdin" restrict_stdin: bool = false;
    /// `sys.stdout` raises.
    "restrict-stdout" restrict_stdout: bool = false;
    /// `signal.signal` is ignored and logged.
    "restrict-signal" restrict_signal: bool = true;
    /// The main interpreter is kept for the application group `""`.
    "reserve-main" reserve_main: bool = false;
    /// `sys.setswitchinterval`, seconds.
    "switch-interval" switch_interval: Option<f64> = None;
    /// Rules for single interpreters, in order (`exchange::interpreters`).
    "interpreter-options" interpreter_options: Vec<Rule> = Vec::new();
    /// Whether to run without the global lock; absent where the build always has it.
    "free-threading" free_threading: Option<bool> = None;
    /// Exit handlers run when the process ends.
    "destroy-interpreter" destroy_interpreter: bool = true;
    /// Bytes of stack of the threads that serve requests; 0: the system's default.
    "stack-size" stack_size: u64 = 0;
    /// How many new requests may wait for the GIL at once.
    "request-permits" request_permits: u32 = 4;
    /// Scripts to load before the worker is ready, in order.
    "import" imports: Vec<Script> = Vec::new();
    /// Scripts that the worker's predecessor had loaded: loaded before the worker is ready, after
    /// `import`. One that does not load makes the worker say
    /// [`FromWorker::Failed`](super::control::FromWorker::Failed) and end. Only in the copy that the
    /// supervisor makes for one worker.
    "require" required: Vec<Script> = Vec::new();
    /// ASGI applications that a predecessor has started, which the worker starts before it says that
    /// it is ready. Of a script in `require`, a startup that fails makes the worker fail.
    "application" applications: Vec<Application> = Vec::new();
    /// Import once and fork the workers.
    "preload" preload: bool = false;

    /// ASGI requests that an event loop has in hand at most; 0: no bound.
    "concurrency" concurrency: u32 = 0;
    /// ASGI runs in uvloop, where that is installed.
    "uvloop" uvloop: bool = false;

    /// Requests after which a worker is replaced.
    "maximum-requests" maximum_requests: u32 = 0;
    /// Each worker adds a random number up to this to `maximum-requests`.
    "max-requests-jitter" max_requests_jitter: u32 = 0;
    /// From the first request of a worker until a script has been loaded.
    "startup-timeout" startup_timeout: u32 = 0;
    /// How long exit handlers may take; 0: for ever.
    "shutdown-timeout" shutdown_timeout: u32 = 5;
    /// How long the GIL may be held by one thread.
    "deadlock-timeout" deadlock_timeout: u32 = 300;
    /// How long a worker may have nothing to do.
    "inactivity-timeout" inactivity_timeout: u32 = 0;
    /// How long a request may run, times 1 + ln(threads).
    "request-timeout" request_timeout: u32 = 0;
    /// How long a request may take to end after `RequestTimeout` was raised in it; 0: not raised.
    "interrupt-timeout" interrupt_timeout: u32 = 0;
    /// How long running requests may take when a worker is to be replaced.
    "graceful-timeout" graceful_timeout: u32 = 15;
    /// The same after SIGUSR1; 0: `graceful-timeout`.
    "eviction-timeout" eviction_timeout: u32 = 0;
    /// Workers are replaced regularly.
    "restart-interval" restart_interval: u32 = 0;
    /// The longest time from httpd's acceptance of a request to its start in a worker.
    "queue-timeout" queue_timeout: u32 = 0;
    /// How long one read or write on a connection may take.
    "socket-timeout" socket_timeout: u32 = 300;
    /// `RLIMIT_CPU`.
    "cpu-time-limit" cpu_time_limit: u32 = 0;
    /// `RLIMIT_DATA`, bytes.
    "memory-limit" memory_limit: u64 = 0;
    /// `RLIMIT_AS`, bytes.
    "virtual-memory-limit" virtual_memory_limit: u64 = 0;
    /// Resident bytes from which on a worker is replaced.
    "max-rss" max_rss: u64 = 0;
    /// `mod_wsgi.server_metrics` may be asked.
    "server-metrics" server_metrics: bool = false;
    /// Descriptor of the page with httpd's scoreboard: from httpd, with `server-metrics`.
    "scoreboard-fd" scoreboard_fd: Option<u32> = None;
    /// The socket that telemetry goes to, as the workers see it.
    "telemetry-socket" telemetry_socket: Option<Vec<u8>> = None;
    /// Seconds between two reports.
    "telemetry-interval" telemetry_interval: f64 = 1.0;
    /// Slow requests are reported with their `User-Agent`.
    "telemetry-user-agent" telemetry_user_agent: bool = false;
    /// Seconds from which on a request is reported by itself; 0: never.
    "slow-requests" slow_requests: f64 = 0.0;
    /// httpd's parent process, for telemetry; 0 without httpd.
    "parent-pid" parent_pid: u32 = 0;
    /// Core dumps are wanted: the workers stay dumpable.
    "core-dumps" core_dumps: bool = false;

    /// `apache.version`, three numbers.
    "server-version" server_version: Vec<u32> = Vec::new();
    /// `apache.description`.
    "server-description" server_description: Vec<u8> = Vec::new();
    /// `apache.build_date`.
    "server-built" server_built: Vec<u8> = Vec::new();
    /// `apache.mpm_name`.
    "mpm-name" mpm_name: Vec<u8> = Vec::new();
}

impl GroupConfig {
    /// From the text form.
    ///
    /// # Errors
    /// A message with the number of the line. Required keys are not checked here.
    pub fn decode(text: &[u8]) -> Result<GroupConfig, String> {
        let mut config = GroupConfig::default();
        for (index, row) in text.split(|&byte| byte == b'\n').enumerate() {
            if row.is_empty() || row[0] == b'#' {
                continue;
            }
            let mut message = format!("line {}: ", index + 1);
            let Some(at) = row.iter().position(|&byte| byte == b'=') else {
                message.push_str("there is no '='");
                return Err(message);
            };
            let key = String::from_utf8_lossy(&row[..at]);
            if let Err(error) = config.set(&key, &row[at + 1..]) {
                let _ = write!(message, "{key}: {error}");
                return Err(message);
            }
        }
        Ok(config)
    }

    /// The name, for messages.
    pub fn label(&self) -> String {
        String::from_utf8_lossy(&self.name).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::Lifespan;

    #[test]
    fn every_value_survives() {
        let config = GroupConfig {
            name: b"site".to_vec(),
            multiprocess: true,
            listener_fds: vec![7, 9],
            peer_uid: Some(33),
            env: vec![b"A=1\n2\\".to_vec(), b"B=".to_vec()],
            imports: vec![Script {
                application_group: b"host:8080|/x".to_vec(),
                path: b"/srv/a:b.wsgi".to_vec(),
            }],
            required: vec![Script {
                application_group: Vec::new(),
                path: b"/srv/app.wsgi".to_vec(),
            }],
            applications: vec![Application {
                script: Script {
                    application_group: b"a\nb".to_vec(),
                    path: b"/srv/main.py".to_vec(),
                },
                callable: b"app".to_vec(),
                callable_is_default: false,
                lifespan: Lifespan::Auto,
            }],
            python_optimize: 2,
            switch_interval: Some(0.001),
            interpreter_options: vec![Rule {
                application_group: Some(b"a \\ b\n".to_vec()),
                per_interpreter_gil: Some(true),
                ..Rule::default()
            }],
            free_threading: Some(false),
            memory_limit: 1 << 40,
            server_version: vec![2, 4, 71],
            ..GroupConfig::default()
        };
        assert_eq!(GroupConfig::decode(&config.encode()), Ok(config));
    }

    #[test]
    fn people_may_leave_out_and_comment() {
        let config = GroupConfig::decode(b"# a group\n\nname=x\nthreads=3").unwrap();
        assert_eq!((config.threads, config.processes), (3, 1));
        assert_eq!(config.graceful_timeout, 15);
    }

    #[test]
    fn errors_name_the_line() {
        for (text, message) in [
            (
                "name=x\nthreads=many",
                "line 2: threads: 'many' is no number",
            ),
            ("thread=1", "line 1: thread: there is no such key"),
            ("name", "line 1: there is no '='"),
            (
                "preload=yes",
                "line 1: preload: the value must be on or off",
            ),
        ] {
            let error = GroupConfig::decode(text.as_bytes()).unwrap_err();
            assert!(error.starts_with(message), "{error}");
        }
        assert!(GroupConfig::decode(b"home=a\\b").is_err());
        assert!(GroupConfig::decode(b"import=x").is_err());
    }
}
