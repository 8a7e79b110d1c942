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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::{Opt, Pair, Site, Slice};

    fn told(change: impl FnOnce(&mut RequestHead<'_>)) -> Vec<(String, String)> {
        let pair = |name: &'static str, value: &'static str| Pair {
            name: name.into(),
            value: value.into(),
        };
        let headers = [
            pair("Host", "example.org"),
            pair("authorization", "secret"),
            pair("Proxy-Authorization", "another"),
        ];
        let variables = [pair("FOO", "bar"), pair("REQUEST_METHOD", "spoofed")];
        let mut head = RequestHead {
            site: Site {
                server_software: "test/1".into(),
                server_name: "localhost".into(),
                server_addr: "127.0.0.1".into(),
                server_port: "80".into(),
                server_admin: Opt::NONE,
                document_root: "/srv".into(),
                context_prefix: Opt::new(Some(b"")),
                context_document_root: Opt::NONE,
                request_scheme: "http".into(),
                script_filename: "/srv/app.wsgi".into(),
                process_group: Text::EMPTY,
                application_group: Text::EMPTY,
                callable_object: "application".into(),
                request_handler: "wsgi-script".into(),
                listener_host: Text::EMPTY,
                listener_port: "80".into(),
            },
            method: "GET".into(),
            request_uri: "/app/x".into(),
            script_name: "/app".into(),
            mount_point: Opt::NONE,
            path_info: "/x".into(),
            query_string: Text::EMPTY,
            protocol: "HTTP/1.1".into(),
            remote_addr: "192.0.2.7".into(),
            remote_port: 40_000,
            https: false,
            authorization: Authorization::Hidden,
            request_time_us: 0,
            accept_time_us: 0,
            daemon_connects: 0,
            daemon_restarts: 0,
            daemon_time_us: 0,
            server_pid: 12,
            request_id: Opt::NONE,
            connection_id: Opt::NONE,
            headers: Slice::new(&headers),
            variables: Slice::new(&variables),
        };
        change(&mut head);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        variables_of(&head, text)
    }

    fn variables_of(
        head: &RequestHead<'_>,
        text: impl Fn(&[u8]) -> String,
    ) -> Vec<(String, String)> {
        variables(head)
            .iter()
            .map(|(name, value)| (text(name), text(value)))
            .collect()
    }

    /// The last value counts.
    fn value<'v>(variables: &'v [(String, String)], name: &str) -> Option<&'v str> {
        let mut found = variables.iter().rev().filter(|(other, _)| other == name);
        found.next().map(|(_, value)| value.as_str())
    }

    #[test]
    fn a_plain_request() {
        let variables = told(|_| ());
        for (name, expected) in [
            ("REQUEST_METHOD", "GET"),
            ("SCRIPT_NAME", "/app"),
            ("mod_wsgi.script_name", "/app"),
            ("PATH_INFO", "/x"),
            ("QUERY_STRING", ""),
            ("REMOTE_PORT", "40000"),
            ("mod_wsgi.server_pid", "12"),
            ("CONTEXT_PREFIX", ""),
            ("FOO", "bar"),
        ] {
            assert_eq!(value(&variables, name), Some(expected), "{name}");
        }
        for name in [
            "HTTPS",
            "HTTP_AUTHORIZATION",
            "HTTP_PROXY_AUTHORIZATION",
            "SERVER_ADMIN",
            "mod_wsgi.mount_point",
            "mod_wsgi.callable_object",
        ] {
            assert_eq!(value(&variables, name), None, "{name}");
        }
    }

    #[test]
    fn credentials_pass_where_they_may() {
        let variables = told(|head| head.authorization = Authorization::Pass);
        assert_eq!(value(&variables, "HTTP_AUTHORIZATION"), Some("secret"));
        assert_eq!(value(&variables, "HTTP_PROXY_AUTHORIZATION"), None);
        let variables = told(|head| head.authorization = Authorization::PassBoth);
        assert_eq!(value(&variables, "HTTP_AUTHORIZATION"), Some("secret"));
        let proxy = value(&variables, "HTTP_PROXY_AUTHORIZATION");
        assert_eq!(proxy, Some("another"));
    }

    #[test]
    fn what_a_trusted_proxy_says() {
        let variables = told(|head| {
            head.https = true;
            head.mount_point = Opt::new(Some(b"/outside"));
        });
        assert_eq!(value(&variables, "HTTPS"), Some("1"));
        assert_eq!(value(&variables, "SCRIPT_NAME"), Some("/outside"));
        assert_eq!(value(&variables, "mod_wsgi.script_name"), Some("/app"));
        let mount_point = value(&variables, "mod_wsgi.mount_point");
        assert_eq!(mount_point, Some("/outside"));
    }
}
