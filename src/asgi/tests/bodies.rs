//! Bodies, both ways.

use super::client::{Call, Client, Script, get};
use crate::daemon::wire::{Kind, flag};

const ECHO: &str = r#"
async def application(scope, receive, send):
    parts, seen = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise RuntimeError("disconnected")
        parts.append(message["body"])
        seen += 1
        if not message["more_body"]:
            break
    body = b"".join(parts)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x-seen", b"%d" % seen)]})
    await send({"type": "http.response.body", "body": body})
"#;

#[test]
fn no_body_is_an_empty_last_message() {
    let answer = get(&Script::new(ECHO));
    assert_eq!((answer.status, answer.text()), (200, ""));
    assert_eq!(answer.headers, [("x-seen".to_owned(), "1".to_owned())]);
    assert_eq!(answer.parts, 1, "one frame for the whole response");
}

#[test]
fn a_body_that_has_arrived_is_one_message() {
    let script = Script::new(ECHO);
    let answer = Client::new().call(&Call {
        method: "POST",
        body: b"hello",
        ..Call::to(&script)
    });
    assert_eq!(answer.text(), "hello");
}

#[test]
fn the_rest_of_a_body_is_asked_for() {
    let script = Script::new(ECHO);
    let mut client = Client::new();
    client.send(&Call {
        method: "POST",
        body: b"one ",
        complete: false,
        ..Call::to(&script)
    });
    let large = vec![b'x'; 60_000];
    let answer = client.answer_with(&[b"two ", &large, b"", b" three"]);
    assert_eq!(answer.body.len(), 8 + 60_000 + 6);
    assert!(answer.text().starts_with("one two xxx") && answer.text().ends_with(" three"));
}

#[test]
fn nothing_is_asked_for_that_nobody_reads() {
    let script = Script::new(
        r#"
async def application(scope, receive, send):
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": b"done"})
"#,
    );
    let mut client = Client::new();
    client.send(&Call {
        method: "POST",
        complete: false,
        ..Call::to(&script)
    });
    assert_eq!(client.answer().text(), "done");
}

#[test]
fn a_stream_comes_part_by_part() {
    let script = Script::new(
        r#"
async def application(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"a", b"1"), (b"a", b"2"), (b"connection", b"close")]})
    for number in range(3):
        await send({"type": "http.response.body", "body": b"%d" % number, "more_body": True})
    await send({"type": "http.response.body"})
"#,
    );
    let answer = get(&script);
    assert_eq!((answer.text(), answer.parts), ("012", 4));
    let a = |value: &str| ("a".to_owned(), value.to_owned());
    assert_eq!(answer.headers, [a("1"), a("2")]);
    assert_eq!(answer.content_length, -1);
}

#[test]
fn a_client_that_does_not_read_stops_the_application() {
    let script = Script::new(
        r#"
sent = 0
async def application(scope, receive, send):
    global sent
    if scope["path"] == "/sent":
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"%d" % sent})
        return
    await send({"type": "http.response.start", "status": 200})
    for number in range(500):
        await send({"type": "http.response.body", "body": bytes(10_000), "more_body": True})
        sent += 1
    await send({"type": "http.response.body"})
"#,
    );
    let mut slow = Client::new();
    slow.send(&Call::to(&script));
    // The head is there, so the application runs.
    let first = slow.frame_of(Kind::Reply);
    assert!(!first.header.has(flag::END));
    let mut other = Client::new();
    let mut sent = 0;
    // It comes to rest.
    loop {
        let call = Call {
            path_info: "/sent",
            uri: "/sent",
            ..Call::to(&script)
        };
        let now: u32 = other.call(&call).text().parse().unwrap();
        if now == sent && now > 0 {
            break;
        }
        sent = now;
        std::thread::sleep(core::time::Duration::from_millis(50));
    }
    assert!(sent < 200, "{sent} blocks were taken although nobody reads");
    let mut total = 0;
    loop {
        let frame = slow.frame_of(Kind::Data);
        total += frame.payload.len();
        if frame.header.has(flag::END) {
            break;
        }
    }
    assert_eq!(total, 499 * 10_000);
}

#[test]
fn a_large_response_is_whole() {
    let script = Script::new(
        r#"
async def application(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"Content-Length", b"40000000")]})
    await send({"type": "http.response.body", "body": bytes(40_000_000)})
"#,
    );
    let answer = get(&script);
    assert_eq!(answer.body.len(), 40_000_000);
    assert_eq!(answer.content_length, 40_000_000);
}

#[test]
fn a_client_that_goes_is_a_disconnect() {
    let script = Script::new(
        r#"
import asyncio
seen = None
async def application(scope, receive, send):
    global seen
    if scope["path"] == "/wait":
        assert (await receive())["type"] == "http.request"
        seen = asyncio.get_running_loop().create_future()
        message = await receive()
        try:
            await send({"type": "http.response.start", "status": 200})
        except OSError:
            seen.set_result(message["type"])
        return
    while seen is None:
        await asyncio.sleep(0.01)
    body = (await seen).encode()
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": body})
"#,
    );
    let mut client = Client::new();
    client.send(&Call {
        path_info: "/wait",
        ..Call::to(&script)
    });
    let mut other = Client::new();
    other.send(&Call::to(&script));
    drop(client);
    assert_eq!(other.answer().text(), "http.disconnect");
}

#[test]
fn after_the_response_there_is_a_disconnect() {
    let script = Script::new(
        r#"
async def application(scope, receive, send):
    await receive()
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body"})
    global after
    after = (await receive())["type"]
"#,
    );
    assert_eq!(get(&script).status, 200);
    let answer = get(&script);
    assert!(answer.log.is_empty(), "{answer:?}");
}

#[test]
fn early_hints_come_before_the_response() {
    let script = Script::new(
        r#"
async def application(scope, receive, send):
    await send({"type": "http.response.early_hint", "links": [b"</a>; rel=preload"]})
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body"})
"#,
    );
    let mut client = Client::new();
    client.send(&Call::to(&script));
    let frame = client.frame_of(Kind::Interim);
    assert!(frame.payload.windows(4).any(|part| part == b"link"));
    assert_eq!(client.answer().status, 200);
}

#[test]
fn trailers_are_http_2s() {
    let script = Script::new(
        r#"
async def application(scope, receive, send):
    offered = "http.response.trailers" in scope["extensions"]
    await send({"type": "http.response.start", "status": 200, "trailers": True})
    await send({"type": "http.response.body", "body": str(offered).encode()})
    try:
        await send({"type": "http.response.body", "body": b"more"})
    except RuntimeError as error:
        assert "trailers is expected" in str(error), error
    await send({"type": "http.response.trailers", "headers": [(b"x-sum", b"1")]})
    try:
        await send({"type": "http.response.trailers"})
    except RuntimeError as error:
        assert "is complete" in str(error), error
"#,
    );
    let mut client = Client::new();
    assert_eq!(client.call(&Call::to(&script)).text(), "False");
    client.send(&Call {
        protocol: "HTTP/2.0",
        ..Call::to(&script)
    });
    let frame = client.frame_of(Kind::Reply);
    assert!(!frame.header.has(flag::END));
    let frame = client.frame_of(Kind::Trailers);
    assert!(frame.payload.windows(5).any(|part| part == b"x-sum"));
    let frame = client.frame_of(Kind::Data);
    assert!(frame.header.has(flag::END) && !frame.header.has(flag::BAD));
}

#[test]
fn a_file_goes_as_a_descriptor() {
    let script = Script::new(
        r#"
async def application(scope, receive, send):
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.pathsend", "path": __file__})
"#,
    );
    let mut client = Client::new();
    client.send(&Call::to(&script));
    client.frame_of(Kind::Reply);
    let frame = client.frame_of(Kind::File);
    assert!(frame.header.has(flag::END));
    let missing = Script::new(
        r#"
async def application(scope, receive, send):
    await send({"type": "http.response.start", "status": 200})
    try:
        await send({"type": "http.response.pathsend", "path": "/does/not/exist"})
    except FileNotFoundError as error:
        await send({"type": "http.response.body", "body": str(error).encode()})
"#,
    );
    assert!(get(&missing).text().contains("/does/not/exist"));
}
