//! The connection scope of an application (ASGI 3.0, "HTTP & WebSocket ASGI Message Format" 2.4).

use pyo3::ffi;

use super::state::{State, copy, dict};
use crate::exchange::header_names::{self, Variable};
use crate::exchange::{Pair, RequestHead};
use crate::python::attach::Attached;
use crate::python::object::{self, Owned, bytes, int, latin1, tuple};
use crate::python::raise::Result;

/// What kind of connection a scope is for.
pub enum Kind<'a> {
    /// An HTTP request.
    Http,
    /// A WebSocket, with the subprotocols that the client offers.
    WebSocket(&'a [&'a str]),
}

/// Makes the scope. `state` is that of the application's lifespan, of which the scope gets a copy.
///
/// # Errors
/// No memory.
pub fn make(py: Attached, kind: &Kind<'_>, head: &RequestHead<'_>, state: &Owned) -> Result<Owned> {
    let asgi = py.interpreter().asgi();
    let names = &asgi.names;
    // SAFETY: a new dict.
    let scope = unsafe { Owned::from_new(ffi::PyDict_New())? };
    let put = |key: &Owned, value: Owned| -> Result<()> {
        // SAFETY: our own dict; live objects.
        unsafe { object::set_item(py, scope.as_ptr(), key.as_ptr(), value.as_ptr()) }
    };
    let (type_, scheme) = match (kind, head.https) {
        (Kind::Http, false) => (&names.http, &names.http),
        (Kind::Http, true) => (&names.http, &names.https),
        (Kind::WebSocket(_), false) => (&names.websocket, &names.ws),
        (Kind::WebSocket(_), true) => (&names.websocket, &names.wss),
    };
    put(&names.type_, type_.clone_ref(py))?;
    put(&names.asgi, copy(py, &asgi.asgi)?)?;
    put(&names.http_version, http_version(py, asgi, head))?;
    put(&names.server, server(py, head)?)?;
    put(&names.client, client(py, head)?)?;
    put(&names.scheme, scheme.clone_ref(py))?;
    if let Kind::Http = kind {
        put(&names.method, method(py, asgi, head.method.bytes())?)?;
    }
    let root = mount(head);
    put(&names.root_path, text(py, root)?)?;
    put(&names.path, path(py, root, head.path_info.bytes())?)?;
    put(
        &names.raw_path,
        bytes(py, raw_path(head.request_uri.bytes()))?,
    )?;
    put(
        &names.query_string,
        match head.query_string.bytes() {
            [] => asgi.empty.clone_ref(py),
            query => bytes(py, query)?,
        },
    )?;
    put(&names.headers, headers(py, asgi, head)?)?;
    put(&names.state, copy(py, state)?)?;
    let extensions = match kind {
        Kind::Http => {
            let extensions = copy(py, &asgi.http_extensions)?;
            if has_trailers(head) {
                let (name, value) = (&names.response_trailers, dict(py, [])?);
                // SAFETY: our own dict; live objects.
                unsafe {
                    object::set_item(py, extensions.as_ptr(), name.as_ptr(), value.as_ptr())?;
                }
            }
            extensions
        }
        Kind::WebSocket(offered) => {
            // SAFETY: a new list, to which live objects are appended.
            unsafe {
                let list = Owned::from_new(ffi::PyList_New(0))?;
                for protocol in *offered {
                    let protocol = text(py, protocol.as_bytes())?;
                    if ffi::PyList_Append(list.as_ptr(), protocol.as_ptr()) < 0 {
                        return Err(crate::python::raise::Raised);
                    }
                }
                put(&names.subprotocols, list)?;
            }
            copy(py, &asgi.websocket_extensions)?
        }
    };
    if head.https
        && let Some(tls) = tls(py, head.variables.items())?
    {
        // SAFETY: our own dict; live objects.
        unsafe {
            object::set_item(py, extensions.as_ptr(), names.tls.as_ptr(), tls.as_ptr())?;
        }
    }
    put(&names.extensions, extensions)?;
    Ok(scope)
}

/// `SCRIPT_NAME`, where a trusted proxy has its say.
fn mount<'a>(head: &RequestHead<'a>) -> &'a [u8] {
    head.mount_point
        .bytes()
        .unwrap_or_else(|| head.script_name.bytes())
}

/// Whether httpd can send fields behind the body of the response: over HTTP/2 alone.
pub fn has_trailers(head: &RequestHead<'_>) -> bool {
    matches!(head.protocol.bytes(), b"HTTP/2.0" | b"HTTP/2")
}

fn http_version(py: Attached, asgi: &State, head: &RequestHead<'_>) -> Owned {
    match head.protocol.bytes() {
        b"HTTP/2.0" | b"HTTP/2" => &asgi.names.http_2,
        b"HTTP/1.0" => &asgi.names.http_1_0,
        _ => &asgi.names.http_1_1,
    }
    .clone_ref(py)
}

fn method(py: Attached, asgi: &State, method: &[u8]) -> Result<Owned> {
    match method {
        b"GET" => Ok(asgi.names.get.clone_ref(py)),
        _ => latin1(py, &method.to_ascii_uppercase()),
    }
}

/// Text of the request: UTF-8, as ASGI has it; what is none is replaced.
fn text(py: Attached, data: &[u8]) -> Result<Owned> {
    if data.is_ascii() {
        return latin1(py, data);
    }
    // SAFETY: pointer and length of a slice, a C string.
    unsafe {
        Owned::from_new(ffi::PyUnicode_DecodeUTF8(
            data.as_ptr().cast(),
            data.len() as ffi::Py_ssize_t,
            c"replace".as_ptr(),
        ))
    }
}

/// `path` has the whole path, `root_path` included.
fn path(py: Attached, root: &[u8], rest: &[u8]) -> Result<Owned> {
    if root.is_empty() {
        return text(py, rest);
    }
    text(py, &[root, rest].concat())
}

/// The path of the request target as it was sent, without query.
fn raw_path(target: &[u8]) -> &[u8] {
    let end = target.iter().position(|&c| c == b'?');
    let path = &target[..end.unwrap_or(target.len())];
    if path.first() == Some(&b'/') {
        return path;
    }
    // Absolute form (RFC 9112 section 3.2.2).
    let authority = path
        .windows(3)
        .position(|window| window == b"://")
        .map(|at| &path[at + 3..]);
    match authority {
        Some(rest) => match rest.iter().position(|&c| c == b'/') {
            Some(at) => &rest[at..],
            None => b"/",
        },
        None => path,
    }
}

fn decimal(text: &[u8]) -> i64 {
    text.iter()
        .filter(|c| c.is_ascii_digit())
        .take(6)
        .fold(0, |sum, c| sum * 10 + i64::from(c - b'0'))
}

fn server(py: Attached, head: &RequestHead<'_>) -> Result<Owned> {
    let address = latin1(py, head.site.server_addr.bytes())?;
    let port = int(py, decimal(head.site.server_port.bytes()))?;
    tuple(py, [address, port])
}

fn client(py: Attached, head: &RequestHead<'_>) -> Result<Owned> {
    if head.remote_addr.bytes().is_empty() {
        return Ok(Owned::none(py));
    }
    let address = latin1(py, head.remote_addr.bytes())?;
    let port = int(py, head.remote_port.into())?;
    tuple(py, [address, port])
}

/// The header fields: names in lower case, by the rules that hold for WSGI as well.
fn headers(py: Attached, asgi: &State, head: &RequestHead<'_>) -> Result<Owned> {
    let items = head.headers.items();
    // SAFETY: a new list; each item is a new reference that it takes over.
    unsafe {
        let list = Owned::from_new(ffi::PyList_New(0))?;
        for Pair { name, value } in items {
            let name = match header_names::variable(name.bytes(), head.authorization) {
                Variable::Dropped => continue,
                Variable::Known(index) => match asgi.header_names.get(usize::from(index)) {
                    Some(name) => name.clone_ref(py),
                    None => continue,
                },
                Variable::Other => bytes(py, &name.bytes().to_ascii_lowercase())?,
            };
            let pair = tuple(py, [name, bytes(py, value.bytes())?])?;
            if ffi::PyList_Append(list.as_ptr(), pair.as_ptr()) < 0 {
                return Err(crate::python::raise::Raised);
            }
        }
        Ok(list)
    }
}

/// The TLS extension (ASGI "TLS Extension" 0.2), as far as variables of the server tell
/// (`SSLOptions +StdEnvVars`, `+ExportCertData`).
#[cold]
fn tls(py: Attached, variables: &[Pair<'_>]) -> Result<Option<Owned>> {
    let find = |wanted: &str| {
        variables
            .iter()
            .find(|pair| pair.name.bytes() == wanted.as_bytes())
            .map(|pair| pair.value.bytes())
            .filter(|value| !value.is_empty())
    };
    let Some(protocol) = find("SSL_PROTOCOL") else {
        return Ok(None);
    };
    let version = match protocol {
        b"TLSv1.3" => Some(0x0304),
        b"TLSv1.2" => Some(0x0303),
        b"TLSv1.1" => Some(0x0302),
        b"TLSv1" => Some(0x0301),
        _ => None,
    };
    let or_none = |value: Option<&[u8]>| match value {
        Some(value) => text(py, value),
        None => Ok(Owned::none(py)),
    };
    // SAFETY: new objects; live ones are put into them.
    unsafe {
        let chain = Owned::from_new(ffi::PyList_New(0))?;
        let first = find("SSL_CLIENT_CERT").map(<[u8]>::to_vec);
        let others = (0..16).map_while(|number| {
            find(&format!("SSL_CLIENT_CERT_CHAIN_{number}")).map(<[u8]>::to_vec)
        });
        for certificate in first.into_iter().chain(others) {
            let certificate = text(py, &certificate)?;
            if ffi::PyList_Append(chain.as_ptr(), certificate.as_ptr()) < 0 {
                return Err(crate::python::raise::Raised);
            }
        }
        let error = match find("SSL_CLIENT_VERIFY") {
            Some(b"SUCCESS" | b"NONE") | None => None,
            other => other,
        };
        let dict = Owned::from_new(ffi::PyDict_New())?;
        for (key, value) in [
            (c"server_cert", or_none(find("SSL_SERVER_CERT"))?),
            (c"client_cert_chain", chain),
            (c"client_cert_name", or_none(find("SSL_CLIENT_S_DN"))?),
            (c"client_cert_error", or_none(error)?),
            (
                c"tls_version",
                match version {
                    Some(version) => int(py, version)?,
                    None => Owned::none(py),
                },
            ),
            // httpd tells its name only.
            (c"cipher_suite", Owned::none(py)),
        ] {
            if ffi::PyDict_SetItemString(dict.as_ptr(), key.as_ptr(), value.as_ptr()) < 0 {
                return Err(crate::python::raise::Raised);
            }
        }
        Ok(Some(dict))
    }
}

#[cfg(test)]
mod tests {
    use super::raw_path;

    #[test]
    fn raw_paths() {
        for (target, path) in [
            ("/", "/"),
            ("/a%20b?c=d", "/a%20b"),
            ("http://host/a?b", "/a"),
            ("http://host", "/"),
            ("*", "*"),
            ("/a?b?c", "/a"),
        ] {
            assert_eq!(raw_path(target.as_bytes()), path.as_bytes());
        }
    }
}
