//! What becomes of applications that do what they may not.

use super::client::{Call, Client, Script, get};

fn application(body: &str) -> Script {
    let body = body.replace('\n', "\n    ");
    Script::new(&format!(
        "import asyncio, sys\nSTART = {{'type': 'http.response.start', 'status': 200}}\nBODY = {{'type': 'http.response.body', 'body': b'body'}}\nasync def application(scope, receive, send):\n    {body}\n"
    ))
}

#[test]
fn an_exception_before_the_head_is_a_500() {
    let answer = get(&application("raise ValueError('oops')"));
    assert_eq!((answer.status, answer.is_error), (500, true));
    assert!(
        answer.logged("RWSGI0650") && answer.logged("ValueError: oops"),
        "{answer:?}"
    );
    // The head alone has not been sent.
    let answer = get(&application("await send(START)\nraise ValueError('oops')"));
    assert_eq!((answer.status, answer.is_error), (500, true));
}

#[test]
fn an_exception_after_the_head_is_a_visible_cut() {
    let answer = get(&application(
        "await send(START)\nawait send({**BODY, 'more_body': True})\nraise ValueError('oops')",
    ));
    assert_eq!((answer.status, answer.text()), (200, "body"));
    assert!(answer.is_cut());
    assert!(answer.logged("ValueError: oops"));
}

#[test]
fn an_exception_after_the_end_is_logged() {
    let script = application("await send(START)\nawait send(BODY)\nraise ValueError('late')");
    let answer = get(&script);
    assert_eq!((answer.status, answer.is_cut()), (200, false));
}

#[test]
fn an_application_that_says_nothing_is_a_500() {
    for body in ["pass", "await send(START)"] {
        let answer = get(&application(body));
        assert_eq!((answer.status, answer.is_error), (500, true), "{body}");
        assert!(answer.logged("RWSGI0651"), "{answer:?}");
    }
    let answer = get(&application(
        "await send(START)\nawait send({**BODY, 'more_body': True})",
    ));
    assert!(answer.is_cut() && answer.logged("RWSGI0651"));
}

#[test]
fn system_exit_ends_the_request_only() {
    for body in [
        "sys.exit(3)",
        "raise KeyboardInterrupt",
        "raise asyncio.CancelledError",
    ] {
        let answer = get(&application(body));
        assert_eq!(answer.status, 500, "{body}: {answer:?}");
    }
    assert_eq!(
        get(&application("await send(START)\nawait send(BODY)")).status,
        200
    );
}

#[test]
fn wrong_messages_raise() {
    for (body, what) in [
        ("await send(BODY)", "http.response.start is expected"),
        (
            "await send(START)\nawait send(START)",
            "http.response.body is expected",
        ),
        ("await send(1)", "must be a dict"),
        ("await send({})", "'type'"),
        ("await send({'type': 'nonsense'})", "nonsense"),
        ("await send({'type': 'http.response.start'})", "'status'"),
        ("await send({**START, 'status': '200'})", "must be an int"),
        ("await send({**START, 'status': 99})", "from 200 to 999"),
        (
            "await send({**START, 'headers': [('a', 'b')]})",
            "must be bytes",
        ),
        ("await send({**START, 'headers': [(b'a',)]})", "two parts"),
        (
            "await send({**START, 'headers': [(b'a b', b'c')]})",
            "header name",
        ),
        (
            "await send({**START, 'headers': [(b'a', b'c\\r\\nd: e')]})",
            "header value",
        ),
        (
            "await send({**START, 'headers': [(b'content-length', b'x')]})",
            "content-length",
        ),
        (
            "await send(START)\nawait send({**BODY, 'body': 'text'})",
            "must be bytes",
        ),
        ("await send()", "one argument"),
        ("await receive(1)", "no arguments"),
    ] {
        let answer = get(&application(body));
        assert_eq!((answer.status, answer.is_error), (500, true), "{body}");
        assert!(answer.logged(what), "{body}: {answer:#?}");
    }
}

#[test]
fn a_wrong_length_is_seen() {
    let start = "await send({**START, 'headers': [(b'content-length', b'6')]})\n";
    let longer = format!("{start}await send({{**BODY, 'body': b'1234567'}})");
    let answer = get(&application(&longer));
    assert!(
        answer.is_error && answer.logged("longer than Content-Length"),
        "{answer:?}"
    );
    let shorter = format!("{start}await send(BODY)");
    let answer = get(&application(&shorter));
    assert!(
        answer.is_error && answer.logged("shorter than Content-Length"),
        "{answer:?}"
    );
    let head = application(&shorter);
    let answer = Client::new().call(&Call {
        method: "HEAD",
        ..Call::to(&head)
    });
    assert_eq!((answer.status, answer.content_length), (200, 6));
}

#[test]
fn a_script_that_does_not_load_is_a_500_with_its_traceback() {
    let answer = get(&Script::new("import does_not_exist"));
    assert_eq!((answer.status, answer.is_error), (500, true));
    assert!(answer.logged("does_not_exist"), "{answer:?}");
}

#[test]
fn what_is_no_request_is_refused() {
    use std::io::Write;
    let mut client = Client::new();
    client.stream.write_all(&[0xff; 64]).unwrap();
    let frame = client.frame().expect("a word of refusal");
    assert_eq!(frame.header.kind, crate::daemon::wire::Kind::Retry);
    assert!(client.frame().is_none(), "the connection is closed");
}
