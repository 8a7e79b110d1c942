//! The whole WSGI server against a real interpreter, over an exchange in memory. Each application is
//! wrapped in `wsgiref.validate` where it is meant to conform.

mod environ;
mod events;
mod handlers;
mod input;
mod memory_exchange;
mod observed;
mod responses;
mod scripts;
mod start_response;
mod streams;
mod threads;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, Once};

use memory_exchange::{MemoryExchange, Recorded};

use super::server;
use crate::exchange::abi::HashSeed;
use crate::exchange::{
    AsgiSettings, Authorization, Interface, Level, Opt, Pair, RequestHead, Site, Slice, Target,
    Text,
};
use crate::python::options::{self, Options};
use crate::python::runtime;
use crate::python::services::Services;

/// Lines that went to the process log.
static PROCESS_LOG: Mutex<Vec<String>> = Mutex::new(Vec::new());

pub(crate) fn start_python() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let options = Options {
            program_name: None,
            home: None,
            python_path: Vec::new(),
            warnings: Vec::new(),
            optimize: -1,
            hash_seed: HashSeed::Unset,
            hash_seed_value: 0,
            dont_write_bytecode: true,
            restrict_stdin: false,
            restrict_stdout: false,
            restrict_signal: true,
            multithread: true,
            multiprocess: false,
            reserve_main: false,
            threads: 4,
            processes: 1,
            request_permits: 2,
            server_version: [2, 4, 0],
            server_description: b"test".to_vec(),
            server_built: b"today".to_vec(),
            mpm_name: b"none".to_vec(),
            uvloop: false,
            concurrency: 0,
            process_group: None,
            python_eggs: None,
            working_directory: None,
            run_once: false,
            interpreters: options::Interpreters {
                // `make test-free-threaded` runs everything with and without.
                free_threading: std::env::var_os("RWSGI_TEST_FREE_THREADING").is_some(),
                ..options::Interpreters::default()
            },
            metrics: options::MetricsOptions::default(),
        };
        let log = |_: Level, line: &[u8]| {
            PROCESS_LOG
                .lock()
                .unwrap()
                .push(String::from_utf8_lossy(line).into_owned());
        };
        let services = Services {
            log: Box::new(log),
            log_from: Box::new(move |level, _, line| log(level, line)),
            logs: Box::new(|_| true),
            is_ending: Box::new(|| false),
            replacement: None,
            scoreboard: Box::new(|| None),
        };
        runtime::start(options, services).expect("Python starts");
    });
}

/// A script file in a directory of its own.
struct App {
    path: PathBuf,
    mtime_us: i64,
    group: &'static str,
}

impl App {
    fn new(source: &str) -> App {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        start_python();
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("rwsgi-test-{}-{number}.wsgi", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, source).unwrap();
        App {
            path,
            mtime_us: 1,
            group: "main",
        }
    }

    /// Replaces the source; the file is newer then.
    fn change(&mut self, source: &str) {
        std::fs::write(&self.path, source).unwrap();
        self.mtime_us += 1;
    }

    fn get(&self) -> Recorded {
        self.call(Call::default())
    }

    fn call(&self, call: Call<'_>) -> Recorded {
        let exchange = MemoryExchange::new(call.body, call.gone_after);
        let path = self.path.to_str().unwrap();
        let headers: Vec<_> = call.headers.iter().map(pair).collect();
        let variables: Vec<_> = call.variables.iter().map(pair).collect();
        let head = RequestHead {
            site: Site {
                server_software: "test/1".into(),
                server_name: call.server_name.into(),
                server_addr: "127.0.0.1".into(),
                server_port: "80".into(),
                server_admin: Opt::NONE,
                document_root: "/srv".into(),
                context_prefix: Opt::new(Some(b"")),
                context_document_root: Opt::new(Some(b"/srv")),
                request_scheme: "http".into(),
                script_filename: call.resource.unwrap_or(path).into(),
                process_group: Text::EMPTY,
                application_group: self.group.into(),
                callable_object: call.callable.into(),
                request_handler: if call.handler_script {
                    "mine".into()
                } else {
                    "wsgi-script".into()
                },
                listener_host: Text::EMPTY,
                listener_port: "80".into(),
            },
            method: call.method.into(),
            request_uri: call.request_uri.into(),
            script_name: call.script_name.into(),
            mount_point: Opt::new(call.mount_point.map(str::as_bytes)),
            path_info: call.path_info.into(),
            query_string: call.query_string.into(),
            protocol: "HTTP/1.1".into(),
            remote_addr: "192.0.2.7".into(),
            remote_port: 40_000,
            https: call.https,
            authorization: Authorization::Hidden,
            request_time_us: 1_500_000,
            accept_time_us: 0,
            daemon_connects: 0,
            daemon_restarts: 0,
            daemon_time_us: 0,
            server_pid: std::process::id(),
            request_id: Opt::new(call.request_id.map(str::as_bytes)),
            connection_id: Opt::NONE,
            headers: Slice::new(&headers),
            variables: Slice::new(&variables),
        };
        let target = Target {
            script: path.into(),
            mtime_us: self.mtime_us,
            resource: call.resource.unwrap_or(path).into(),
            reloading: true,
            keep_on_failure: call.keep_on_failure,
            handler_script: call.handler_script,
            interface: Interface::Wsgi,
            callable_is_default: false,
            asgi: AsgiSettings::DEFAULT,
        };
        let outcome = server::serve(runtime::runtime().unwrap(), &exchange, &head, &target);
        exchange.recorded(outcome)
    }
}

impl Drop for App {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

fn pair<'a>(pair: &(&'a str, &'a str)) -> Pair<'a> {
    Pair {
        name: pair.0.into(),
        value: pair.1.into(),
    }
}

/// What a test asks for.
struct Call<'a> {
    method: &'a str,
    callable: &'a str,
    server_name: &'a str,
    script_name: &'a str,
    mount_point: Option<&'a str>,
    request_id: Option<&'a str>,
    path_info: &'a str,
    request_uri: &'a str,
    query_string: &'a str,
    https: bool,
    headers: &'a [(&'a str, &'a str)],
    variables: &'a [(&'a str, &'a str)],
    body: memory_exchange::RequestBody<'a>,
    gone_after: Option<usize>,
    keep_on_failure: bool,
    handler_script: bool,
    resource: Option<&'a str>,
}

impl Default for Call<'_> {
    fn default() -> Self {
        Call {
            method: "GET",
            callable: "application",
            server_name: "localhost",
            script_name: "",
            mount_point: None,
            request_id: None,
            path_info: "/",
            request_uri: "/",
            query_string: "",
            https: false,
            headers: &[],
            variables: &[],
            body: memory_exchange::RequestBody::default(),
            gone_after: None,
            keep_on_failure: true,
            handler_script: false,
            resource: None,
        }
    }
}

/// A request body in three pieces.
const PIECES: memory_exchange::RequestBody<'static> = memory_exchange::RequestBody {
    pieces: &[b"one\ntw", b"o\n", b"three"],
    failure: None,
};

/// An application whose body is `body`, validated.
fn validated(body: &str) -> App {
    App::new(&format!(
        "from wsgiref.validate import validator\n\
         TEXT = [('Content-Type', 'text/plain')]\n\
         @validator\n\
         def application(environ, start_response):\n    {}\n",
        body.replace('\n', "\n    ")
    ))
}

/// The same without the validator, for what it would not let through.
fn unvalidated(body: &str) -> App {
    App::new(&format!(
        "TEXT = [('Content-Type', 'text/plain')]\n\
         def application(environ, start_response):\n    {}\n",
        body.replace('\n', "\n    ")
    ))
}

/// What an expression over `environ` gives.
fn evaluate(expression: &str, call: Call<'_>) -> String {
    let app = unvalidated(&format!(
        "result = {expression}\n\
         start_response('200 OK', TEXT)\n\
         return [repr(result).encode('utf-8')]"
    ));
    let answer = app.call(call);
    answer.assert_quiet();
    answer.text()
}
