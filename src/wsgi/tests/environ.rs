//! The environ dictionary.

use super::{Call, evaluate, unvalidated};

#[test]
fn environ_of_a_plain_request() {
    let call = || Call {
        path_info: "/a/b",
        request_uri: "/m//a/b?q=1",
        script_name: "/m",
        query_string: "q=1",
        headers: &[
            ("Host", "example.org"),
            ("X-Odd", "1"),
            ("X_Bad", "2"),
            ("Proxy", "evil"),
            ("Authorization", "secret"),
            ("Content-Type", "text/x"),
        ],
        variables: &[
            ("FOO", "bar"),
            ("REQUEST_METHOD", "spoofed"),
            ("wsgi.input", "spoofed"),
            ("HTTP_HOST", "spoofed"),
            ("REMOTE_USER", "me"),
        ],
        ..Call::default()
    };
    let expression = "{k: v for k, v in environ.items() if isinstance(v, str)}";
    let shown = evaluate(expression, call());
    for (key, value) in [
        ("REQUEST_METHOD", "GET"),
        ("SCRIPT_NAME", "/m"),
        ("PATH_INFO", "/a/b"),
        ("QUERY_STRING", "q=1"),
        ("REQUEST_URI", "/m//a/b?q=1"),
        ("SERVER_NAME", "localhost"),
        ("SERVER_PORT", "80"),
        ("REMOTE_ADDR", "192.0.2.7"),
        ("REMOTE_PORT", "40000"),
        ("HTTP_HOST", "example.org"),
        ("HTTP_X_ODD", "1"),
        ("CONTENT_TYPE", "text/x"),
        ("FOO", "bar"),
        ("REMOTE_USER", "me"),
        ("wsgi.url_scheme", "http"),
        ("mod_wsgi.path_info", "/a/b"),
        ("mod_wsgi.script_name", "/m"),
        ("mod_wsgi.application_group", "main"),
    ] {
        assert!(
            shown.contains(&format!("'{key}': '{value}'")),
            "{key} in {shown}"
        );
    }
    for absent in ["BAD", "PROXY", "AUTHORIZATION", "evil", "secret", "spoofed"] {
        assert!(!shown.contains(absent), "{absent} in {shown}");
    }
    assert_eq!(
        evaluate("[k for k, v in environ.items() if v is None]", call()),
        "[]"
    );
    assert_eq!(
        evaluate(
            "type(environ['wsgi.input']).__name__, environ['mod_wsgi.thread_id'] > 0",
            call()
        ),
        "('Input', True)"
    );
}

#[test]
fn what_differs_from_the_template_is_replaced() {
    let app = unvalidated(
        "start_response('200 OK', TEXT)\n\
         keys = ('SERVER_NAME', 'SCRIPT_NAME', 'wsgi.url_scheme', 'REQUEST_METHOD')\n\
         return [' '.join(environ[k] for k in keys).encode()]",
    );
    let first = app.get();
    assert_eq!(first.text(), "localhost  http GET");
    let other = app.call(Call {
        server_name: "other",
        script_name: "/x",
        https: true,
        method: "PUT",
        ..Call::default()
    });
    assert_eq!(other.text(), "other /x https PUT");
    assert_eq!(app.get().text(), first.text());
}

#[test]
fn text_is_latin_1() {
    let call = Call {
        path_info: "/ü",
        headers: &[("X-A", "ü")],
        ..Call::default()
    };
    assert_eq!(
        evaluate("environ['PATH_INFO'], environ['HTTP_X_A']", call),
        "('/Ã¼', 'Ã¼')"
    );
}

#[test]
fn a_mount_point_stands_before_the_script_name() {
    let app = unvalidated(
        "start_response('200 OK', TEXT)\n\
         keys = ('SCRIPT_NAME', 'mod_wsgi.mount_point', 'mod_wsgi.script_name', 'PATH_INFO')\n\
         return [repr([environ.get(key) for key in keys]).encode()]",
    );
    // The first request makes the template; what it was told is no other request's.
    for (mount_point, seen) in [
        (Some("/outer"), "['/outer', '/outer', '/inner', '/p']"),
        (None, "['/inner', None, '/inner', '/p']"),
        (Some(""), "['', '', '/inner', '/p']"),
        (None, "['/inner', None, '/inner', '/p']"),
    ] {
        let answer = app.call(Call {
            mount_point,
            script_name: "/inner",
            path_info: "/p",
            ..Call::default()
        });
        assert_eq!(answer.text(), seen);
    }
}
