//! WebSockets: the handshake, and what goes through the tunnel.

use std::io::{Read, Write};

use super::client::{Answer, Call, Client, Script};
use crate::daemon::wire::{Kind, flag, reply};
use crate::exchange::AsgiSettings;

pub const HEADERS: &[(&str, &str)] = &[
    ("Host", "example.com"),
    ("Upgrade", "websocket"),
    ("Connection", "Upgrade"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Protocol", "chat, superchat"),
];

const ECHO: &str = r#"
async def application(scope, receive, send):
    assert scope["type"] == "websocket" and scope["scheme"] == "ws"
    assert scope["subprotocols"] == ["chat", "superchat"]
    assert "method" not in scope
    assert (await receive()) == {"type": "websocket.connect"}
    await send({"type": "websocket.accept", "subprotocol": "chat", "headers": [(b"x-mine", b"1")]})
    while True:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            print("closed with", message["code"], message["reason"])
            return
        if message.get("text") == "close":
            await send({"type": "websocket.close", "code": 3000, "reason": "enough"})
            continue
        if message.get("text") == "raise":
            raise ValueError("oops")
        if message.get("text") == "return":
            return
        del message["type"]
        await send({"type": "websocket.send", **message})
"#;

fn call<'a>(script: &'a Script) -> Call<'a> {
    Call {
        headers: HEADERS,
        ..Call::to(script)
    }
}

pub fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [1, 2, 3, 4];
    let mut frame = vec![first, 0x80 | payload.len() as u8];
    frame.extend_from_slice(&mask);
    frame.extend(payload.iter().enumerate().map(|(i, c)| c ^ mask[i % 4]));
    frame
}

/// An open WebSocket.
struct Socket(Client);

impl Socket {
    fn open(script: &Script) -> Socket {
        let mut client = Client::new();
        client.send(&call(script));
        let frame = client.frame_of(Kind::Switch);
        reply::decode(&frame.payload, |head| {
            assert_eq!(head.status, 101);
            let find = |name: &str| {
                let found = head
                    .headers
                    .items()
                    .iter()
                    .find(|pair| pair.name.bytes().eq_ignore_ascii_case(name.as_bytes()));
                found.map(|pair| String::from_utf8_lossy(pair.value.bytes()).into_owned())
            };
            let accept = find("sec-websocket-accept");
            assert_eq!(accept.as_deref(), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
            assert_eq!(find("sec-websocket-protocol").as_deref(), Some("chat"));
            assert_eq!(find("x-mine").as_deref(), Some("1"));
            assert_eq!(find("upgrade").as_deref(), Some("websocket"));
        })
        .unwrap();
        Socket(client)
    }

    fn say(&mut self, first: u8, payload: &[u8]) {
        self.0.stream.write_all(&masked(first, payload)).unwrap();
    }

    /// The next bytes for the client; whether httpd closes then.
    fn hear(&mut self) -> (Vec<u8>, bool) {
        let frame = self.0.frame_of(Kind::Data);
        (frame.payload, frame.header.has(flag::END))
    }
}

#[test]
fn messages_are_echoed_and_a_close_is_answered() {
    let script = Script::new(ECHO);
    let mut socket = Socket::open(&script);
    socket.say(0x81, b"hello");
    assert_eq!(socket.hear(), (b"\x81\x05hello".to_vec(), false));
    socket.say(0x82, &[0, 1, 2]);
    assert_eq!(socket.hear(), (vec![0x82, 3, 0, 1, 2], false));
    socket.say(0x89, b"ping");
    assert_eq!(socket.hear(), (b"\x8a\x04ping".to_vec(), false));
    socket.say(0x88, b"\x03\xe8bye");
    let (close, end) = socket.hear();
    assert_eq!((&close[..4], end), (&b"\x88\x05\x03\xe8"[..], true));
    let mut rest = Vec::new();
    socket.0.stream.read_to_end(&mut rest).unwrap();
}

#[test]
fn the_application_may_close() {
    let script = Script::new(ECHO);
    let mut socket = Socket::open(&script);
    socket.say(0x81, b"close");
    assert_eq!(socket.hear(), (b"\x88\x08\x0b\xb8enough".to_vec(), false));
    socket.say(0x88, b"\x0b\xb8enough");
    assert_eq!(socket.hear(), (Vec::new(), true));
}

#[test]
fn an_exception_closes_with_1011_and_a_return_with_1000() {
    let script = Script::new(ECHO);
    for (text, code) in [(&b"raise"[..], 1011_u16), (b"return", 1000)] {
        let mut socket = Socket::open(&script);
        socket.say(0x81, text);
        let (close, end) = socket.hear();
        assert_eq!(close, [&[0x88, 2][..], &code.to_be_bytes()].concat());
        assert!(!end);
        socket.say(0x88, &code.to_be_bytes());
        assert_eq!(socket.hear(), (Vec::new(), true));
    }
}

#[test]
fn a_broken_rule_fails_the_connection() {
    let script = Script::new(ECHO);
    let mut socket = Socket::open(&script);
    // Not masked.
    socket.0.stream.write_all(&[0x81, 1, b'x']).unwrap();
    let (close, end) = socket.hear();
    assert_eq!(
        (close[0], &close[2..4], end),
        (0x88, &1002_u16.to_be_bytes()[..], true)
    );
}

#[test]
fn a_message_beyond_the_limit_fails_the_connection() {
    let script = Script::new(ECHO);
    let mut client = Client::new();
    client.send(&Call {
        asgi: AsgiSettings {
            websocket_max_message: 10,
            ..AsgiSettings::DEFAULT
        },
        ..call(&script)
    });
    client.frame_of(Kind::Switch);
    let mut socket = Socket(client);
    socket.say(0x81, b"0123456789");
    assert_eq!(socket.hear().0[1], 10);
    socket.say(0x81, b"01234567890");
    let (close, end) = socket.hear();
    assert_eq!((&close[2..4], end), (&1009_u16.to_be_bytes()[..], true));
}

fn answer(script: &Script) -> Answer {
    Client::new().call(&call(script))
}

#[test]
fn a_handshake_may_be_refused() {
    let script = Script::new(
        "async def application(scope, receive, send):\n    await send({'type': 'websocket.close'})\n",
    );
    let refused = answer(&script);
    assert_eq!((refused.status, refused.is_error), (403, true));
    let script = Script::new(
        r#"
async def application(scope, receive, send):
    assert "websocket.http.response" in scope["extensions"]
    await send({"type": "websocket.http.response.start", "status": 401, "headers": [(b"a", b"b")]})
    await send({"type": "websocket.http.response.body", "body": b"no ", "more_body": True})
    await send({"type": "websocket.http.response.body", "body": b"entry"})
"#,
    );
    let refused = answer(&script);
    assert_eq!((refused.status, refused.text()), (401, "no entry"));
    let script =
        Script::new("async def application(scope, receive, send):\n    raise ValueError\n");
    assert_eq!(answer(&script).status, 500);
}

#[test]
fn a_bad_handshake_does_not_reach_the_application() {
    let script =
        Script::new("async def application(scope, receive, send):\n    raise ValueError\n");
    let mut headers = HEADERS.to_vec();
    headers[4].1 = "8";
    let refused = Client::new().call(&Call {
        headers: &headers,
        ..Call::to(&script)
    });
    assert_eq!(refused.status, 426);
    assert!(
        refused
            .headers
            .contains(&("sec-websocket-version".to_owned(), "13".to_owned()))
    );
    headers[4].1 = "13";
    headers[3].1 = "short";
    let refused = Client::new().call(&Call {
        headers: &headers,
        ..Call::to(&script)
    });
    assert_eq!(refused.status, 400);
}

#[test]
fn a_client_that_goes_is_told_to_the_application() {
    let script = Script::new(
        r#"
import asyncio
seen = asyncio.Queue()
async def application(scope, receive, send):
    if scope["type"] == "http":
        body = repr(await seen.get()).encode()
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": body})
        return
    await receive()
    await send({"type": "websocket.accept", "subprotocol": "chat", "headers": [(b"x-mine", b"1")]})
    message = await receive()
    try:
        await send({"type": "websocket.send", "text": "x"})
    except OSError:
        seen.put_nowait(message["code"])
"#,
    );
    let socket = Socket::open(&script);
    drop(socket);
    let answer = Client::new().call(&Call::to(&script));
    assert_eq!(answer.text(), "1006");
}

#[test]
fn a_slow_application_stops_the_client() {
    let script = Script::new(
        r#"
import asyncio
go = None
async def application(scope, receive, send):
    global go
    if scope["type"] == "http":
        go.set_result(None)
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body"})
        return
    go = asyncio.get_running_loop().create_future()
    await receive()
    await send({"type": "websocket.accept", "subprotocol": "chat", "headers": [(b"x-mine", b"1")]})
    await go
    count = 0
    while (await receive()).get("text") != "last":
        count += 1
    await send({"type": "websocket.send", "text": str(count)})
    await receive()
"#,
    );
    let mut socket = Socket::open(&script);
    let block: Vec<u8> = (0..500).flat_map(|_| masked(0x82, &[0; 100])).collect();
    socket
        .0
        .stream
        .set_write_timeout(Some(core::time::Duration::from_millis(300)))
        .unwrap();
    let mut written = 0_usize;
    let mut at = 0;
    while let Ok(count) = socket.0.stream.write(&block[at..]) {
        written += count;
        at = (at + count) % block.len();
        assert!(
            written < 100_000_000,
            "everything is taken although nobody reads"
        );
    }
    assert_eq!(Client::new().call(&Call::to(&script)).status, 200);
    socket.0.stream.set_write_timeout(None).unwrap();
    // The frame that was cut in the middle, then the last message.
    let frame = masked(0x82, &[0; 100]);
    let rest = written % frame.len();
    if rest > 0 {
        socket.0.stream.write_all(&frame[rest..]).unwrap();
    }
    socket.say(0x81, b"last");
    let expected = written.div_ceil(frame.len()).to_string();
    let (message, _) = socket.hear();
    assert_eq!(&message[2..], expected.as_bytes());
}
