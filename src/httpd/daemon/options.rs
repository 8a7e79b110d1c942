//! The options of `WSGIDaemonProcess`: one table.

#![forbid(unsafe_code)]

use super::accounts::{self, User};
use super::values;
use crate::daemon::group::GroupConfig;
use crate::httpd::config::values::{Refusal, directories, event_loop, on_off};

/// What is configured for a process group.
#[derive(Clone, Debug)]
pub struct Options {
    /// What the supervisor and its workers are told.
    pub worker: GroupConfig,
    /// `user=`.
    pub user: Option<User>,
    /// `group=`.
    pub group: Option<u32>,
    /// `supplementary-groups=`.
    pub supplementary_groups: Option<Vec<u32>>,
    /// `umask=`.
    pub umask: Option<u32>,
    /// `chroot=`.
    pub chroot: Option<Vec<u8>>,
    /// `cpu-priority=`.
    pub cpu_priority: Option<i32>,
    /// `python-home=`.
    pub python_home: Option<Vec<u8>>,
    /// `connect-timeout=`, seconds.
    pub connect_timeout: u32,
    /// `socket-timeout=`, seconds; 0: httpd's `Timeout`.
    pub socket_timeout: u32,
    /// `response-socket-timeout=`, seconds; 0: as `socket_timeout`.
    pub response_socket_timeout: u32,
    /// `response-flush-delay=`, milliseconds.
    pub response_flush_delay: u32,
    /// `send-buffer-size=`; 0: the system's.
    pub send_buffer_size: u32,
    /// `receive-buffer-size=`; 0: the system's.
    pub receive_buffer_size: u32,
    /// `header-buffer-size=`; 0: the default.
    pub header_buffer_size: u32,
    /// `response-buffer-size=`; 0: the default.
    pub response_buffer_size: u32,
    /// `socket-user=`.
    pub socket_user: Option<u32>,
    /// `script-user=`.
    pub script_user: Option<u32>,
    /// `script-group=`.
    pub script_group: Option<u32>,
}

impl Options {
    /// The defaults of a group named `name`.
    pub fn new(name: &[u8]) -> Self {
        Options {
            worker: GroupConfig {
                name: name.to_vec(),
                ..GroupConfig::default()
            },
            user: None,
            group: None,
            supplementary_groups: None,
            umask: None,
            chroot: None,
            cpu_priority: None,
            python_home: None,
            connect_timeout: 15,
            socket_timeout: 0,
            response_socket_timeout: 0,
            response_flush_delay: 5,
            send_buffer_size: 0,
            receive_buffer_size: 0,
            header_buffer_size: 0,
            response_buffer_size: 0,
            socket_user: None,
            script_user: None,
            script_group: None,
        }
    }

    /// Sets an option; the last of several counts, but for `env`, which adds.
    ///
    /// # Errors
    /// The end of the sentence "Invalid ... WSGIDaemonProcess option: ...", with its beginning.
    pub fn set(&mut self, name: &str, value: &[u8]) -> Result<(), String> {
        let Some(option) = TABLE.iter().find(|option| option.name == name) else {
            return Err(unknown(name));
        };
        if value.is_empty() {
            if EMPTY_IS_UNSET.contains(&name) {
                return Ok(());
            }
            return Err(format!(
                "Invalid value for WSGIDaemonProcess option: {name} must not be empty"
            ));
        }
        (option.set)(self, value).map_err(|refusal| {
            format!("Invalid value for WSGIDaemonProcess option: {name} {refusal}")
        })
    }

    /// What cannot be judged option by option.
    ///
    /// # Errors
    /// A sentence for "WSGIDaemonProcess NAME: ...".
    pub fn check(&self) -> Result<(), String> {
        if self.script_user.is_some() && self.script_group.is_some() {
            return Err("script-user and script-group exclude each other".to_owned());
        }
        if self.worker.threads == 0 && self.worker.preload {
            return Err("preload=on has no use for a service script (threads=0)".to_owned());
        }
        if self.worker.max_requests_jitter > 0 && self.worker.maximum_requests == 0 {
            return Err("max-requests-jitter needs maximum-requests".to_owned());
        }
        Ok(())
    }
}

/// An option.
pub struct Row {
    /// Its name.
    pub name: &'static str,
    set: fn(&mut Options, &[u8]) -> Result<(), Refusal>,
}

macro_rules! options {
    ($($name:literal => $set:expr;)*) => {
        /// Every option.
        pub static TABLE: &[Row] = &[$(Row { name: $name, set: $set }),*];
    };
}

/// A value that goes to a field as it is parsed.
macro_rules! field {
    ($($field:ident).+, $parse:expr) => {
        |options, value| {
            let parse: fn(&[u8]) -> Result<_, Refusal> = $parse;
            options.$($field).+ = parse(value)?;
            Ok(())
        }
    };
}

fn some<T>(value: Result<T, Refusal>) -> Result<Option<T>, Refusal> {
    value.map(Some)
}

fn verbatim(value: &[u8]) -> Result<Option<Vec<u8>>, Refusal> {
    Ok(Some(value.to_vec()))
}

options! {
    "processes" => |options, value| {
        options.worker.processes = values::within(value, 1, 1024)?;
        options.worker.multiprocess = true;
        Ok(())
    };
    "threads" => field!(worker.threads, |v| values::within(v, 0, 65_533));
    "display-name" => |options, value| {
        let title = String::from_utf8_lossy(value);
        let name = format!("(wsgi:{})", options.worker.label());
        options.worker.display_name = Some(title.replace("%{GROUP}", &name).into_bytes());
        Ok(())
    };
    "user" => |options, value| {
        let user = accounts::user(value)?;
        if user.uid == 0 {
            return Err("must not be root: applications are kept from running as root".to_owned());
        }
        options.user = Some(user);
        Ok(())
    };
    "group" => field!(group, |v| some(accounts::group(v)));
    "supplementary-groups" => |options, value| {
        let groups: Result<Vec<u32>, Refusal> = value
            .split(|c| *c == b',')
            .filter(|name| !name.is_empty())
            .map(accounts::group)
            .collect();
        let groups = groups?;
        if groups.len() > MOST_GROUPS {
            return Err(format!("must not name more than {MOST_GROUPS} groups"));
        }
        options.supplementary_groups = Some(groups);
        Ok(())
    };
    "umask" => field!(umask, |v| some(values::umask(v)));
    "chroot" => field!(chroot, |v| some(values::absolute(v)));
    "home" => field!(worker.home, |v| some(values::absolute(v)));
    "lang" => field!(worker.lang, verbatim);
    "locale" => field!(worker.locale, verbatim);
    "env" => |options, value| {
        options.worker.env.push(values::variable(value)?);
        Ok(())
    };
    "env-file" => field!(worker.env_file, |v| some(values::absolute(v)));
    "python-home" => field!(python_home, |v| some(values::absolute(v)));
    "python-path" => |options, value| {
        options.worker.python_path = directories(value).map(<[u8]>::to_vec).collect();
        Ok(())
    };
    "python-eggs" => field!(worker.python_eggs, verbatim);
    "switch-interval" => field!(worker.switch_interval, |v| some(values::interval(v)));
    "stack-size" => field!(worker.stack_size, |v| values::bytes(v, LEAST_STACK));
    "preload" => field!(worker.preload, on_off);
    "concurrency" => field!(worker.concurrency, |v| values::within(v, 0, i32::MAX as u32));
    "loop" => field!(worker.uvloop, event_loop);
    "maximum-requests" => field!(worker.maximum_requests, |v| values::within(v, 0, u32::MAX));
    "max-requests-jitter" => field!(worker.max_requests_jitter, |v| values::within(v, 0, i32::MAX as u32));
    "startup-timeout" => field!(worker.startup_timeout, values::seconds);
    "shutdown-timeout" => field!(worker.shutdown_timeout, values::seconds);
    "deadlock-timeout" => field!(worker.deadlock_timeout, values::seconds);
    "inactivity-timeout" => field!(worker.inactivity_timeout, values::seconds);
    "request-timeout" => field!(worker.request_timeout, values::seconds);
    "interrupt-timeout" => field!(worker.interrupt_timeout, values::seconds);
    "graceful-timeout" => field!(worker.graceful_timeout, values::seconds);
    "eviction-timeout" => field!(worker.eviction_timeout, values::seconds);
    "restart-interval" => field!(worker.restart_interval, values::seconds);
    "connect-timeout" => field!(connect_timeout, values::seconds);
    "socket-timeout" => field!(socket_timeout, values::seconds);
    "queue-timeout" => field!(worker.queue_timeout, values::seconds);
    "listen-backlog" => field!(worker.listen_backlog, |v| values::within(v, 0, i32::MAX as u32));
    "send-buffer-size" => field!(send_buffer_size, |v| values::buffer(v, 512));
    "receive-buffer-size" => field!(receive_buffer_size, |v| values::buffer(v, 512));
    "header-buffer-size" => field!(header_buffer_size, |v| values::buffer(v, 8192));
    "response-buffer-size" => field!(response_buffer_size, |v| values::buffer(v, 65_536));
    "response-socket-timeout" => field!(response_socket_timeout, values::seconds);
    "response-flush-delay" => field!(response_flush_delay, |v| values::within(v, 0, 60_000));
    "socket-user" => field!(socket_user, |v| some(accounts::user(v).map(|user| user.uid)));
    "script-user" => field!(script_user, |v| some(accounts::user(v).map(|user| user.uid)));
    "script-group" => field!(script_group, |v| some(accounts::group(v)));
    "cpu-time-limit" => field!(worker.cpu_time_limit, values::seconds);
    "cpu-priority" => field!(cpu_priority, |v| some(values::priority(v)));
    "memory-limit" => field!(worker.memory_limit, |v| values::bytes(v, 1));
    "virtual-memory-limit" => field!(worker.virtual_memory_limit, |v| values::bytes(v, 1));
    "max-rss" => field!(worker.max_rss, |v| values::bytes(v, LEAST_RSS));
    "server-metrics" => field!(worker.server_metrics, on_off);
}

/// Options whose empty value means that nothing is said: files that are made from templates have
/// them, and mod_wsgi takes them.
const EMPTY_IS_UNSET: [&str; 7] = [
    "display-name",
    "lang",
    "locale",
    "python-eggs",
    "python-home",
    "python-path",
    "supplementary-groups",
];

/// As many as Linux takes in old versions.
const MOST_GROUPS: usize = 65_536;
/// `PTHREAD_STACK_MIN` of the common platforms.
const LEAST_STACK: u64 = 16_384;
/// No Python is smaller: a worker with such a limit would be replaced for ever.
const LEAST_RSS: u64 = 4 << 20;

/// The message for a name that is none.
fn unknown(name: &str) -> String {
    let nearest = TABLE
        .iter()
        .map(|option| (distance(name, option.name), option.name))
        .min()
        .filter(|(distance, _)| *distance <= 3);
    let hint = match nearest {
        Some((_, nearest)) => format!("; did you mean '{nearest}'?"),
        None => "; docs/directives.md lists them all".to_owned(),
    };
    format!("Invalid name of WSGIDaemonProcess option: '{name}' is none{hint}")
}

/// How many characters must be changed, added or removed to make `a` into `b`.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let changed = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> Options {
        Options::new(b"site")
    }

    fn refusal(name: &str, value: &str) -> String {
        let message = options().set(name, value.as_bytes()).unwrap_err();
        assert!(message.contains(name), "{message}");
        message
    }

    #[test]
    fn every_option_of_mod_wsgi_is_there_and_some_more() {
        // 44 of mod_wsgi, then ours: preload, env, env-file, max-rss, max-requests-jitter, loop,
        // concurrency.
        assert_eq!(TABLE.len(), 44 + 7);
        for (index, option) in TABLE.iter().enumerate() {
            assert!(
                TABLE[..index].iter().all(|other| other.name != option.name),
                "{}",
                option.name
            );
            if EMPTY_IS_UNSET.contains(&option.name) {
                options().set(option.name, b"").unwrap();
            } else {
                assert!(refusal(option.name, "").contains("must not be empty"));
            }
        }
    }

    #[test]
    fn every_option_is_documented() {
        let docs = include_str!("../../../docs/directives.md");
        for option in TABLE {
            let row = format!("| `{}=` |", option.name);
            assert!(docs.contains(&row), "{} is not documented", option.name);
        }
    }

    #[test]
    fn every_number_refuses_garbage() {
        let textual = [
            "display-name",
            "lang",
            "locale",
            "python-path",
            "python-eggs",
        ];
        for option in TABLE {
            if !textual.contains(&option.name) {
                refusal(option.name, "5 apples");
                refusal(option.name, "-7777");
            }
        }
    }

    #[test]
    fn values_arrive() {
        let mut options = options();
        for (name, value) in [
            ("processes", "1"),
            ("threads", "5"),
            ("display-name", "%{GROUP}"),
            ("umask", "0027"),
            ("home", "/srv/"),
            ("env", "A=1"),
            ("env", "B=2"),
            ("python-path", "/a:/b"),
            ("memory-limit", "64M"),
            ("switch-interval", "0.01"),
            ("supplementary-groups", "root,#5"),
            ("preload", "on"),
            ("loop", "uvloop"),
            ("concurrency", "0"),
            ("connect-timeout", "3"),
        ] {
            options.set(name, value.as_bytes()).unwrap();
        }
        let worker = &options.worker;
        assert_eq!(
            (worker.processes, worker.multiprocess, worker.threads),
            (1, true, 5)
        );
        assert_eq!(worker.display_name.as_deref(), Some(&b"(wsgi:site)"[..]));
        assert_eq!(worker.home.as_deref(), Some(&b"/srv"[..]));
        assert_eq!(worker.env, [b"A=1", b"B=2"]);
        assert_eq!(worker.python_path, [b"/a", b"/b"]);
        assert_eq!(worker.memory_limit, 64 << 20);
        assert_eq!(worker.switch_interval, Some(0.01));
        assert!(worker.preload && worker.uvloop);
        assert_eq!(worker.concurrency, 0);
        assert_eq!(options.umask, Some(0o027));
        assert_eq!(options.supplementary_groups, Some(vec![0, 5]));
        assert_eq!(options.connect_timeout, 3);
    }

    #[test]
    fn defaults_are_those_of_mod_wsgi() {
        let options = options();
        let worker = &options.worker;
        assert_eq!(
            (worker.processes, worker.multiprocess, worker.threads),
            (1, false, 15)
        );
        assert_eq!(worker.shutdown_timeout, 5);
        assert_eq!(worker.deadlock_timeout, 300);
        assert_eq!(worker.graceful_timeout, 15);
        assert_eq!(worker.listen_backlog, 100);
        assert_eq!(options.connect_timeout, 15);
        assert_eq!(options.response_flush_delay, 5);
        // What mod_wsgi does not have.
        assert_eq!((worker.uvloop, worker.concurrency), (false, 0));
        assert!(refusal("loop", "trio").contains("asyncio | uvloop"));
        assert!(refusal("concurrency", "-1").contains("from 0 to"));
    }

    #[test]
    fn users() {
        assert!(refusal("user", "root").contains("root"));
        assert!(refusal("user", "#0").contains("root"));
        assert!(refusal("user", "no-such-user").contains("no-such-user"));
        assert!(refusal("group", "no-such-group").contains("no-such-group"));
        assert!(refusal("supplementary-groups", "root,nobody-there").contains("nobody-there"));
    }

    #[test]
    fn mistyped_names_get_a_hint() {
        for (typed, meant) in [
            ("thread", "threads"),
            ("Threads", "threads"),
            ("python_home", "python-home"),
            ("max-request-jitter", "max-requests-jitter"),
        ] {
            let message = refusal(typed, "1");
            assert!(message.contains(&format!("'{meant}'")), "{message}");
        }
        assert!(refusal("colour", "red").contains("docs/directives.md"));
    }

    #[test]
    fn combinations() {
        for (set, word) in [
            (
                &[("script-user", "root"), ("script-group", "root")][..],
                "exclude",
            ),
            (&[("threads", "0"), ("preload", "on")], "service script"),
            (&[("max-requests-jitter", "5")], "maximum-requests"),
        ] {
            let mut options = options();
            for (name, value) in set {
                options.set(name, value.as_bytes()).unwrap();
            }
            let message = options.check().unwrap_err();
            assert!(message.contains(word), "{message}");
        }
        assert_eq!(options().check(), Ok(()));
    }
}
