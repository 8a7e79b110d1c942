//! What the server keeps in every interpreter that serves ASGI: types, names, constants.

use core::ffi::CStr;

use pyo3::ffi;

use super::{awaitable, task};
use crate::exchange::header_names;
use crate::python::attach::Attached;
use crate::python::object::{self, Owned, bytes, interned};
use crate::python::prelude;
use crate::python::raise::Result;

/// Names, made once and interned, so that finding them in a dict compares pointers.
macro_rules! names {
    ($($field:ident = $text:literal)*) => {
        /// Interned names.
        pub struct Names {
            $(
                #[doc = concat!("`", $text, "`")]
                pub $field: Owned,
            )*
        }

        impl Names {
            fn new(py: Attached) -> Result<Names> {
                Ok(Names { $($field: interned(py, $text)?,)* })
            }
        }
    };
}

names! {
    type_ = "type"
    asgi = "asgi"
    http = "http"
    https = "https"
    ws = "ws"
    wss = "wss"
    websocket = "websocket"
    http_version = "http_version"
    http_1_0 = "1.0"
    http_1_1 = "1.1"
    http_2 = "2"
    server = "server"
    client = "client"
    scheme = "scheme"
    method = "method"
    get = "GET"
    root_path = "root_path"
    path = "path"
    raw_path = "raw_path"
    query_string = "query_string"
    headers = "headers"
    state = "state"
    extensions = "extensions"
    subprotocols = "subprotocols"
    subprotocol = "subprotocol"
    tls = "tls"
    status = "status"
    body = "body"
    more_body = "more_body"
    links = "links"
    text = "text"
    bytes = "bytes"
    code = "code"
    reason = "reason"
    message = "message"
    http_request = "http.request"
    http_disconnect = "http.disconnect"
    response_start = "http.response.start"
    response_body = "http.response.body"
    response_pathsend = "http.response.pathsend"
    early_hint = "http.response.early_hint"
    response_trailers = "http.response.trailers"
    trailers = "trailers"
    more_trailers = "more_trailers"
    websocket_connect = "websocket.connect"
    websocket_receive = "websocket.receive"
    websocket_disconnect = "websocket.disconnect"
    websocket_accept = "websocket.accept"
    websocket_send = "websocket.send"
    websocket_close = "websocket.close"
    denial_start = "websocket.http.response.start"
    denial_body = "websocket.http.response.body"
    lifespan_startup = "lifespan.startup"
    lifespan_shutdown = "lifespan.shutdown"
    done = "done"
    set_result = "set_result"
    cancel = "cancel"
    send = "send"
    throw = "throw"
    close = "close"
    await_ = "__await__"
    call_soon = "call_soon"
    value = "value"
    self_ = "__self__"
    get_coro = "get_coro"
}

/// Everything that an interpreter has for ASGI.
pub struct State {
    /// [`awaitable::Channel`].
    pub channel_type: Owned,
    /// [`awaitable::Awaitable`].
    pub awaitable_type: Owned,
    /// [`task::Run`].
    pub run_type: Owned,
    /// Names.
    pub names: Names,
    /// `b""`.
    pub empty: Owned,
    /// `{"version": "3.0", "spec_version": …}` for a scope.
    pub asgi: Owned,
    /// The extensions of an HTTP scope.
    pub http_extensions: Owned,
    /// The extensions of a WebSocket scope.
    pub websocket_extensions: Owned,
    /// Names of header fields in lower case, as bytes, in the order of [`header_names::KNOWN`].
    pub header_names: Vec<Owned>,
    /// Under which a task's context has the request that it belongs to.
    pub request_variable: Owned,
    /// The namespace of `loop.py`.
    namespace: Owned,
}

const SOURCE: &str = concat!(include_str!("loop.py"), "\0");

impl State {
    /// Makes everything; once per interpreter.
    ///
    /// # Errors
    /// asyncio cannot be imported, or there is no memory.
    pub fn build(py: Attached) -> Result<State> {
        let namespace = prelude::execute(py, SOURCE)?;
        let constant = |name: &CStr| prelude::item(py, &namespace, name);
        let header_names = header_names::KNOWN
            .iter()
            .map(|(name, _)| bytes(py, name.as_bytes()))
            .collect::<Result<Vec<_>>>()?;
        Ok(State {
            channel_type: awaitable::make_channel_type(py)?,
            awaitable_type: awaitable::make_awaitable_type(py)?,
            run_type: task::make_type(py)?,
            names: Names::new(py)?,
            empty: bytes(py, b"")?,
            asgi: constant(c"ASGI")?,
            http_extensions: constant(c"HTTP_EXTENSIONS")?,
            websocket_extensions: constant(c"WEBSOCKET_EXTENSIONS")?,
            header_names,
            // SAFETY: a C string; no default.
            request_variable: unsafe {
                Owned::from_new(ffi::PyContextVar_New(
                    c"rwsgi.request".as_ptr(),
                    core::ptr::null_mut(),
                ))?
            },
            namespace,
        })
    }

    /// Calls a function of `loop.py`.
    ///
    /// # Errors
    /// What it raises.
    pub fn call<const N: usize>(
        &self,
        py: Attached,
        name: &CStr,
        arguments: [Owned; N],
    ) -> Result<Owned> {
        prelude::call(py, &self.namespace, name, arguments)
    }
}

/// A copy of a dict of ours.
///
/// # Errors
/// No memory.
pub fn copy(_py: Attached, dict: &Owned) -> Result<Owned> {
    // SAFETY: an exact dict.
    unsafe { Owned::from_new(ffi::PyDict_Copy(dict.as_ptr())) }
}

/// A dict of these items.
///
/// # Errors
/// No memory.
pub fn dict<const N: usize>(py: Attached, items: [(&Owned, Owned); N]) -> Result<Owned> {
    // SAFETY: a new dict; live objects.
    unsafe {
        let dict = Owned::from_new(ffi::PyDict_New())?;
        for (key, value) in &items {
            object::set_item(py, dict.as_ptr(), key.as_ptr(), value.as_ptr())?;
        }
        Ok(dict)
    }
}
