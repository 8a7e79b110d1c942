//! The codes of all messages of level warning and above.
//!
//! A line in the error log begins with `RWSGI0123:`. `docs/messages.md` lists every code with cause
//! and remedy; a test compares the two. Numbers are never reused.

#![forbid(unsafe_code)]

use core::fmt;

/// The number of a message; its `Display` is the prefix of the line, `RWSGI0123: `.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code(pub u16);

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RWSGI{:04}: ", self.0)
    }
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $number:literal;)*) => {
        $($(#[$doc])* pub const $name: Code = Code($number);)*

        /// Every code, in order.
        pub const ALL: &[(&str, Code)] = &[$((stringify!($name), $name),)*];
    };
}

codes! {
    // 0001-0099: the httpd side.
    /// A panic was caught at the boundary to httpd.
    HTTPD_PANIC = 1;
    /// The directory of gateways cannot be found or read.
    NO_GATEWAY_DIRECTORY = 2;
    /// No gateway is installed for the Python that was asked for.
    NO_GATEWAY = 3;
    /// WSGIPythonHome is no Python prefix and no virtual environment.
    BAD_PYTHON_HOME = 4;
    /// libpython or the gateway could not be loaded.
    LOAD_FAILED = 5;
    /// The gateway is of another build.
    GATEWAY_MISMATCH = 6;
    /// A request came while Python is not available in this process.
    NO_PYTHON = 7;
    /// Embedded mode is restricted.
    EMBEDDED_RESTRICTED = 8;
    /// The process group is not known.
    UNKNOWN_PROCESS_GROUP = 9;
    /// The script does not exist.
    SCRIPT_NOT_FOUND = 10;
    /// The script is a directory or no regular file.
    SCRIPT_NOT_A_FILE = 11;
    /// ExecCGI is off where the script lies.
    EXEC_CGI_OFF = 12;
    /// AcceptPathInfo is off and there is extra path.
    NO_PATH_INFO = 13;
    /// A request body with an unknown transfer coding, or a chunked one where that is off.
    BODY_REFUSED = 14;
    /// Content-Length of a request cannot be parsed.
    BAD_CONTENT_LENGTH = 15;
    /// The request body is larger than LimitRequestBody.
    BODY_TOO_LARGE = 16;
    /// The module is loaded under both of its names.
    LOADED_TWICE = 17;

    // 0100-0199: the Python runtime.
    /// Python could not be started.
    PYTHON_START_FAILED = 100;
    /// An interpreter could not be made.
    INTERPRETER_FAILED = 101;
    /// A panic was caught at the boundary to Python.
    GATEWAY_PANIC = 102;
    /// A script could not be loaded.
    SCRIPT_FAILED = 103;
    /// A changed script could not be loaded; the old code goes on serving.
    RELOAD_FAILED = 104;
    /// `reload_required` raised.
    RELOAD_REQUIRED_FAILED = 105;
    /// The script has no such callable.
    NO_CALLABLE = 106;
    /// An exit handler raised.
    EXIT_HANDLER_FAILED = 107;
    /// Python did not end in time.
    STOP_TIMED_OUT = 108;
    /// `signal.signal` was ignored.
    SIGNAL_IGNORED = 109;
    /// A directory of the Python path is missing.
    BAD_PYTHON_PATH = 110;

    // 0200-0299: the WSGI server.
    /// The application raised an exception.
    APPLICATION_RAISED = 200;
    /// The application raised SystemExit.
    APPLICATION_EXITED = 201;
    /// The response ended before its declared length.
    RESPONSE_TOO_SHORT = 203;
    /// `close()` raised.
    CLOSE_FAILED = 204;
    /// The request body could not be read.
    BODY_READ_FAILED = 205;
    /// The response had begun when the application failed; it was cut short.
    RESPONSE_CUT = 206;
    /// `RequestTimeout` was raised in the request.
    REQUEST_INTERRUPTED = 207;

    // 0300-0329: daemon mode, the client in httpd.
    /// No worker could be reached in time.
    DAEMON_UNAVAILABLE = 300;
    /// The request waited longer than queue-timeout.
    DAEMON_QUEUE_TIMEOUT = 301;
    /// No answer within socket-timeout.
    DAEMON_TIMEOUT = 302;
    /// The worker ended while it had the request.
    DAEMON_DIED = 303;
    /// A response that had begun was cut short.
    DAEMON_CUT = 304;
    /// Module and worker are of different builds.
    DAEMON_VERSION = 305;
    /// What the worker sent is no valid answer.
    DAEMON_BAD_ANSWER = 306;
    /// The head of the request is too large for the wire.
    DAEMON_REQUEST_TOO_LARGE = 307;
    /// The worker does not accept requests of this user.
    DAEMON_FORBIDDEN = 308;
    /// Fresh connections broke again and again before the request was started.
    DAEMON_NOT_SERVED = 309;
    /// The system refused a connection.
    DAEMON_CONNECT_FAILED = 310;
    /// A file that the worker sent for the response cannot be used.
    DAEMON_BAD_FILE = 311;
    /// A worker switches protocols for a client whose version of HTTP has no such thing.
    TUNNEL_HTTP_1_0 = 320;
    /// The worker ended while it had a WebSocket.
    TUNNEL_DIED = 321;
    /// What a worker sent for a WebSocket is not valid.
    TUNNEL_BROKEN = 322;
    /// The thread that carries WebSockets could not be started.
    TUNNEL_NO_KEEPER = 323;

    // 0330-0369: process groups, on the httpd side.
    /// A process group cannot be started as it is configured.
    BAD_PROCESS_GROUP = 330;
    /// The program rwsgi-daemon is not installed.
    NO_SUPERVISOR_PROGRAM = 331;
    /// A listening socket could not be made.
    SOCKET_FAILED = 332;
    /// The pipe of a generation could not be made.
    LIFELINE_FAILED = 333;
    /// A supervisor could not be started.
    SUPERVISOR_NOT_STARTED = 334;
    /// A supervisor died.
    SUPERVISOR_DIED = 335;
    /// A supervisor did not end in time.
    SUPERVISOR_KILLED = 336;
    /// user= and the like have no effect.
    USER_IGNORED = 337;
    /// The process group is kept from serving here (WSGIRestrictProcess).
    PROCESS_GROUP_RESTRICTED = 338;
    /// The process group belongs to another virtual host.
    PROCESS_GROUP_ELSEWHERE = 339;
    /// The process group is a service script.
    SERVICE_SCRIPT = 340;
    /// The script does not belong to script-user or script-group, or others may write it.
    SCRIPT_OWNER = 341;
    /// The script lies outside of the group's chroot.
    SCRIPT_OUTSIDE = 342;
    /// The connections to a process group are not set up in this process.
    NO_CLIENT = 343;
    /// Core dumps make the memory of httpd's children readable for a process group.
    CORE_DUMPS = 344;
    /// A process group that is named in the configuration is not declared.
    UNDECLARED_PROCESS_GROUP = 345;

    // 0400-0449: the supervisor of a process group.
    /// The configuration of the group is wrong.
    BAD_GROUP = 400;
    /// A system call failed that the supervisor cannot do without.
    SUPERVISOR_FAILED = 401;
    /// The worker's Python finds no gateway of its version (written by the bootstrap).
    NO_GATEWAY_FOR_WORKER = 402;
    /// A worker could not be executed or prepared.
    WORKER_NOT_EXECUTED = 403;
    /// A worker's process could not be made.
    WORKER_NOT_SPAWNED = 404;
    /// A worker says that it cannot begin.
    WORKER_FAILED = 405;
    /// A worker died before it was ready.
    WORKER_DIED_STARTING = 406;
    /// A worker died.
    WORKER_DIED = 407;
    /// A request that a dead worker was serving.
    REQUEST_LOST = 408;
    /// A replacement does not start; the old worker goes on.
    REPLACEMENT_FAILED = 409;
    /// A worker did not end in time and was killed.
    WORKER_KILLED = 410;
    /// All workers were killed.
    KILLED_ALL = 411;
    /// `request-timeout`.
    REQUEST_OVERDUE = 412;
    /// `interrupt-timeout`.
    INTERRUPT_OVERDUE = 413;
    /// `deadlock-timeout`.
    DEADLOCK = 414;
    /// `startup-timeout`.
    STARTUP_OVERDUE = 415;
    /// The template of `preload=on` cannot begin.
    TEMPLATE_FAILED = 416;
    /// The template of `preload=on` died.
    TEMPLATE_DIED = 417;
    /// A line of `env-file` was skipped.
    BAD_ENV_LINE = 418;
    /// A process sent what is no message.
    BAD_MESSAGE = 419;
    /// The memory of workers cannot be measured.
    NO_RSS = 420;

    // 0450-0489: the workers of daemon mode.
    /// A worker cannot begin.
    WORKER_START_FAILED = 450;
    /// A user who may not connect has tried to.
    WORKER_PEER_REFUSED = 451;
    /// A script of WSGIImportScript could not be loaded.
    IMPORT_FAILED = 452;
    /// A message of the supervisor could not be understood.
    WORKER_CONTROL = 453;
    /// Bytes that are no request.
    WORKER_MALFORMED = 454;
    /// A request of another version of the protocol.
    WORKER_VERSION = 455;
    /// No further connection can be accepted.
    WORKER_NO_DESCRIPTORS = 456;
    /// The locale is not supported.
    WORKER_LOCALE = 457;
    /// The response headers are too large for the wire.
    WORKER_HEAD_TOO_LARGE = 458;
    /// A request that runs for long, with the stack of its thread.
    WORKER_SLOW_REQUEST = 459;
    /// A signal handler of the application raised.
    SIGNAL_HANDLER_RAISED = 460;

    // 0500-0529: scripts that are asked about requests.
    /// A script has no function that it must have.
    NO_FUNCTION = 500;
    /// A function of a script raised.
    CONSULTATION_FAILED = 501;
    /// A function of a script returned what it may not.
    BAD_ANSWER = 502;
    /// WSGIAccessScript has refused a request.
    ACCESS_REFUSED = 503;
    /// The provider `wsgi` is used where no script is configured.
    NO_USER_SCRIPT = 504;
    /// `Require wsgi-group` is used where no script is configured.
    NO_GROUP_SCRIPT = 505;

    // 0560-0589: interpreters.
    /// WSGIPerInterpreterGIL needs Python 3.12.
    OWN_GIL_UNKNOWN = 560;
    /// WSGIFreeThreading needs a build without the global lock.
    NOT_FREE_THREADED = 561;
    /// WSGIFreeThreading cannot be set for one application group.
    FREE_THREADING_SCOPED = 562;
    /// WSGIPerInterpreterGIL without a global lock.
    OWN_GIL_SKIPPED = 563;
    /// A switch interval for an interpreter that shares its lock.
    SWITCH_INTERVAL_SHARED = 564;
    /// A switch interval without a global lock.
    SWITCH_INTERVAL_WITHOUT_GIL = 565;

    // 0590-0609: events.
    /// A subscriber of an event raised, or a module of applications could not be set up.
    EVENT_CALLBACK_FAILED = 590;

    // 0610-0629: metrics and telemetry.
    /// Telemetry cannot be sent.
    NO_TELEMETRY = 610;
    /// The page with httpd's scoreboard could not be made.
    NO_SCOREBOARD_PAGE = 611;

    // 0630-0649: a configuration written for mod_wsgi.
    /// A directive or option that mod_wsgi has removed.
    REMOVED_DIRECTIVE = 630;
    /// mod_wsgi is loaded beside this module.
    MOD_WSGI_LOADED = 631;
    /// A directive that cannot have the effect that it was written for.
    POINTLESS_DIRECTIVE = 632;
    /// Another libpython is in httpd already.
    OTHER_PYTHON = 633;

    // 0650-0679: ASGI.
    /// An ASGI application raised, or could not be set up.
    ASGI_FAILED = 650;
    /// An ASGI application returned before its response was complete.
    ASGI_UNFINISHED = 651;
    /// The startup of an application's lifespan failed.
    ASGI_LIFESPAN_FAILED = 652;
    /// The shutdown of an application's lifespan failed.
    ASGI_SHUTDOWN_FAILED = 653;
    /// An event loop could not be started, or has failed.
    ASGI_LOOP_FAILED = 654;
    /// uvloop is configured and cannot be used.
    ASGI_NO_UVLOOP = 655;
    /// A request took longer than request-timeout.
    ASGI_TIMEOUT = 656;
    /// A task raised SystemExit or KeyboardInterrupt.
    ASGI_TASK_EXIT = 657;
    /// An event loop does not go round.
    ASGI_STUCK = 658;
}

#[cfg(test)]
mod tests {
    use super::ALL;

    #[test]
    fn codes_are_unique_and_documented() {
        let docs = include_str!("../docs/messages.md");
        for (index, (name, code)) in ALL.iter().enumerate() {
            assert!(index == 0 || ALL[index - 1].1.0 < code.0, "{name}");
            let heading = format!("| RWSGI{:04} |", code.0);
            assert!(docs.contains(&heading), "{name} is not in docs/messages.md");
        }
    }
}
