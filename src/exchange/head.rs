//! What was asked: the request head, as borrowed bytes.

#![forbid(unsafe_code)]

use super::abi::{Opt, Pair, Slice, Text};

/// Values that are the same for nearly every request of one virtual host and mount.
///
/// The gateway keeps environ templates and finds the right one by comparing these by content, so
/// the server may pass whatever memory is at hand.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Site<'a> {
    /// `SERVER_SOFTWARE`.
    pub server_software: Text<'a>,
    /// `SERVER_NAME`.
    pub server_name: Text<'a>,
    /// `SERVER_ADDR`.
    pub server_addr: Text<'a>,
    /// `SERVER_PORT`, decimal.
    pub server_port: Text<'a>,
    /// `SERVER_ADMIN`.
    pub server_admin: Opt<'a>,
    /// `DOCUMENT_ROOT`, bytes of the file system.
    pub document_root: Text<'a>,
    /// `CONTEXT_PREFIX`.
    pub context_prefix: Opt<'a>,
    /// `CONTEXT_DOCUMENT_ROOT`.
    pub context_document_root: Opt<'a>,
    /// `REQUEST_SCHEME`, as the server sees it.
    pub request_scheme: Text<'a>,
    /// `SCRIPT_FILENAME`, bytes of the file system.
    pub script_filename: Text<'a>,
    /// `mod_wsgi.process_group`, empty when embedded.
    pub process_group: Text<'a>,
    /// `mod_wsgi.application_group`, empty for the main interpreter.
    pub application_group: Text<'a>,
    /// `mod_wsgi.callable_object`.
    pub callable_object: Text<'a>,
    /// `mod_wsgi.request_handler`.
    pub request_handler: Text<'a>,
    /// `mod_wsgi.listener_host`.
    pub listener_host: Text<'a>,
    /// `mod_wsgi.listener_port`, decimal.
    pub listener_port: Text<'a>,
}

impl<'a> Site<'a> {
    /// All values in a fixed order, absent ones as `None`: what two sites are compared by.
    pub fn values(&self) -> [Option<&'a [u8]>; 16] {
        [
            Some(self.server_software.bytes()),
            Some(self.server_name.bytes()),
            Some(self.server_addr.bytes()),
            Some(self.server_port.bytes()),
            self.server_admin.bytes(),
            Some(self.document_root.bytes()),
            self.context_prefix.bytes(),
            self.context_document_root.bytes(),
            Some(self.request_scheme.bytes()),
            Some(self.script_filename.bytes()),
            Some(self.process_group.bytes()),
            Some(self.application_group.bytes()),
            Some(self.callable_object.bytes()),
            Some(self.request_handler.bytes()),
            Some(self.listener_host.bytes()),
            Some(self.listener_port.bytes()),
        ]
    }
}

/// Which of the credentials headers the application may see (RFC 3875 section 4.1.18 and 9.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Authorization {
    /// Neither.
    Hidden = 0,
    /// `Authorization`: `WSGIPassAuthorization On`.
    Pass = 1,
    /// `Authorization` and `Proxy-Authorization`: `CGIPassAuth On`.
    PassBoth = 2,
}

/// The request line, headers and circumstances of one request.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct RequestHead<'a> {
    /// What is constant for the virtual host and mount.
    pub site: Site<'a>,
    /// `REQUEST_METHOD`, after any mapping of HEAD to GET.
    pub method: Text<'a>,
    /// `REQUEST_URI`: the request target as it was sent.
    pub request_uri: Text<'a>,
    /// `SCRIPT_NAME` and `mod_wsgi.script_name`, percent-decoded, runs of slashes made one.
    pub script_name: Text<'a>,
    /// `SCRIPT_NAME` and `mod_wsgi.mount_point`, where a trusted proxy has said it (see
    /// [`trusted_proxies`](super::trusted_proxies)).
    pub mount_point: Opt<'a>,
    /// `PATH_INFO`, percent-decoded, runs of slashes made one.
    pub path_info: Text<'a>,
    /// `QUERY_STRING`, empty when there is none.
    pub query_string: Text<'a>,
    /// `SERVER_PROTOCOL`.
    pub protocol: Text<'a>,
    /// `REMOTE_ADDR`.
    pub remote_addr: Text<'a>,
    /// `REMOTE_PORT`.
    pub remote_port: u16,
    /// Whether `wsgi.url_scheme` is `https`.
    pub https: bool,
    /// Which credentials pass.
    pub authorization: Authorization,
    /// When the request arrived, microseconds since the epoch.
    pub request_time_us: i64,
    /// When it was handed to a worker (`mod_wsgi.queue_start`), likewise; 0 when embedded.
    pub accept_time_us: i64,
    /// When the worker began with it (`mod_wsgi.daemon_start`), likewise; 0 when embedded.
    pub daemon_time_us: i64,
    /// Connections to workers that were tried for it, the successful one included; 0 when embedded.
    pub daemon_connects: u16,
    /// How often a worker has refused it before, because it was being replaced.
    pub daemon_restarts: u16,
    /// The httpd child that received it (`mod_wsgi.server_pid`).
    pub server_pid: u32,
    /// `mod_wsgi.request_id`, the id in the server's logs.
    pub request_id: Opt<'a>,
    /// `mod_wsgi.connection_id`, where the server has made one.
    pub connection_id: Opt<'a>,
    /// The header fields as received, in order, repeated fields already joined. The gateway applies
    /// [`header_names`](super::header_names) to them.
    pub headers: Slice<'a, Pair<'a>>,
    /// Further CGI variables of this request (SetEnv, TLS, REMOTE_USER, REDIRECT_…), in order. They
    /// never override a variable that the gateway itself sets. `HTTPS` and `PATH` are not among
    /// them.
    pub variables: Slice<'a, Pair<'a>>,
}

/// Which code answers the request.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Target<'a> {
    /// The script file's absolute path.
    pub script: Text<'a>,
    /// Its modification time, microseconds since the epoch; 0 if it is not known: the gateway looks
    /// for itself then.
    pub mtime_us: i64,
    /// The file that the request names, given to `reload_required`.
    pub resource: Text<'a>,
    /// Whether a changed script is loaded anew (`WSGIScriptReloading`).
    pub reloading: bool,
    /// Whether the old code goes on serving when the changed script does not load
    /// (`WSGIReloadFailure Keep`).
    pub keep_on_failure: bool,
    /// Whether the script answers for a handler (`WSGIHandlerScript`) and not for itself:
    /// `mod_wsgi.handler_script` is its path then, and the resource is another file.
    pub handler_script: bool,
    /// What the script is taken for.
    pub interface: Interface,
    /// Whether the name of the callable was configured; a default may give way to another.
    pub callable_is_default: bool,
    /// What is configured for ASGI.
    pub asgi: AsgiSettings,
}

/// What kind of application a script holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(u8)]
pub enum Interface {
    /// WSGI (PEP 3333).
    #[default]
    Wsgi = 0,
    /// ASGI 3.
    Asgi = 1,
    /// ASGI if its callable is a coroutine function, WSGI otherwise.
    Auto = 2,
}

impl Interface {
    /// From its number.
    pub const fn from_number(number: u8) -> Option<Interface> {
        Some(match number {
            0 => Interface::Wsgi,
            1 => Interface::Asgi,
            2 => Interface::Auto,
            _ => return None,
        })
    }
}

/// `ASGILifespan`: whether an application is told of start and end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(u8)]
pub enum Lifespan {
    /// It is; one that does not support it is served all the same.
    #[default]
    Auto = 0,
    /// It is, and one that does not support it has failed.
    On = 1,
    /// It is not.
    Off = 2,
}

impl Lifespan {
    /// From its number.
    pub const fn from_number(number: u8) -> Option<Lifespan> {
        Some(match number {
            0 => Lifespan::Auto,
            1 => Lifespan::On,
            2 => Lifespan::Off,
            _ => return None,
        })
    }
}

/// What is configured for ASGI applications.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct AsgiSettings {
    /// `ASGILifespan`.
    pub lifespan: Lifespan,
    /// `ASGIWebSocket`: handshakes reach the application.
    pub websocket: bool,
    /// `ASGIWebSocketCompression`: permessage-deflate is accepted (RFC 7692).
    pub websocket_compression: bool,
    /// `ASGIWebSocketPing`: seconds between two pings, and for the answer; 0: none.
    pub websocket_ping_s: u16,
    /// `ASGIWebSocketQueue`: messages that wait for the application, until no more are read.
    pub websocket_queue: u16,
    /// `ASGIWebSocketMaxMessage`: bytes of a message.
    pub websocket_max_message: u32,
}

impl AsgiSettings {
    /// What holds where nothing is configured.
    pub const DEFAULT: AsgiSettings = AsgiSettings {
        lifespan: Lifespan::Auto,
        websocket: true,
        websocket_compression: true,
        websocket_ping_s: 20,
        websocket_queue: 32,
        websocket_max_message: 16 * 1024 * 1024,
    };
}

impl Default for AsgiSettings {
    fn default() -> Self {
        Self::DEFAULT
    }
}
