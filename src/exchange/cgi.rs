//! A request head as CGI variables (RFC 3875 section 4.1), for scripts that are asked about a request
//! before it is known who serves it.

#![forbid(unsafe_code)]

use std::borrow::Cow;

use super::{Authorization, RequestHead, Text};

/// A variable: name and value.
pub type Variable<'a> = (&'a [u8], Cow<'a, [u8]>);

/// What the environ of an application would say of the request, without what the gateway adds and
/// without the header fields; but with the credentials, where these pass. Of two variables with
/// one name the later one counts.
pub fn variables<'a>(head: &RequestHead<'a>) -> Vec<Variable<'a>> {
    let site = &head.site;
    let mut variables: Vec<Variable<'a>> = head
        .variables
        .items()
        .iter()
        .map(|pair| (pair.name.bytes(), Cow::Borrowed(pair.value.bytes())))
        .collect();
    let mut put = |name: &'static str, value: Option<&'a [u8]>| {
        if let Some(value) = value {
            variables.push((name.as_bytes(), Cow::Borrowed(value)));
        }
    };
    for (name, value) in [
        ("REQUEST_METHOD", head.method),
        ("REQUEST_URI", head.request_uri),
        ("PATH_INFO", head.path_info),
        ("QUERY_STRING", head.query_string),
        ("SERVER_PROTOCOL", head.protocol),
        ("SERVER_SOFTWARE", site.server_software),
        ("SERVER_NAME", site.server_name),
        ("SERVER_ADDR", site.server_addr),
        ("SERVER_PORT", site.server_port),
        ("DOCUMENT_ROOT", site.document_root),
        ("REQUEST_SCHEME", site.request_scheme),
        ("SCRIPT_FILENAME", site.script_filename),
        ("REMOTE_ADDR", head.remote_addr),
        ("mod_wsgi.script_name", head.script_name),
        ("mod_wsgi.path_info", head.path_info),
        ("mod_wsgi.request_handler", site.request_handler),
        ("mod_wsgi.listener_host", site.listener_host),
        ("mod_wsgi.listener_port", site.listener_port),
    ] {
        put(name, Some(value.bytes()));
    }
    for (name, value) in [
        ("SERVER_ADMIN", site.server_admin),
        ("CONTEXT_PREFIX", site.context_prefix),
        ("CONTEXT_DOCUMENT_ROOT", site.context_document_root),
        ("mod_wsgi.mount_point", head.mount_point),
        ("mod_wsgi.request_id", head.request_id),
        ("mod_wsgi.connection_id", head.connection_id),
    ] {
        put(name, value.bytes());
    }
    let script_name = head.mount_point.bytes();
    put(
        "SCRIPT_NAME",
        script_name.or(Some(head.script_name.bytes())),
    );
    put("HTTPS", head.https.then_some(&b"1"[..]));
    put("HTTP_AUTHORIZATION", credentials(head, b"Authorization"));
    put(
        "HTTP_PROXY_AUTHORIZATION",
        credentials(head, b"Proxy-Authorization"),
    );
    let numbers: [(&[u8], u32); 2] = [
        (b"REMOTE_PORT", head.remote_port.into()),
        (b"mod_wsgi.server_pid", head.server_pid),
    ];
    for (name, number) in numbers {
        variables.push((name, Cow::Owned(number.to_string().into_bytes())));
    }
    variables
}

/// A header field with credentials, where the application may see it.
fn credentials<'a>(head: &RequestHead<'a>, name: &[u8]) -> Option<&'a [u8]> {
    let passes = match head.authorization {
        Authorization::Hidden => false,
        Authorization::Pass => name == b"Authorization",
        Authorization::PassBoth => true,
    };
    let mut fields = head.headers.items().iter().filter(|_| passes);
    fields
        .find(|field| field.name.bytes().eq_ignore_ascii_case(name))
        .map(|field| Text::bytes(field.value))
}
