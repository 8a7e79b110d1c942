//! What clients do.

use std::io::Write;
use std::net::Shutdown;
use std::time::{Duration, Instant};

use super::{OK, open};
use crate::asgi::house::Embedded;
use crate::asgi::loops;
use crate::asgi::tests::client::{Call, Client, Script};
use crate::asgi::tests::websockets::masked;
use crate::daemon::wire::{Kind, flag};
use crate::python::runtime;

#[test]
fn the_bytes_of_a_tunnel_are_never_a_request() {
    let marker = std::env::temp_dir().join(format!("rwsgi-smuggled-{}", std::process::id()));
    let _ = std::fs::remove_file(&marker);
    let evil = Script::new(&format!("open({marker:?}, 'w').close()\n{OK}"));
    let script = Script::new(
        r#"
async def application(scope, receive, send):
    await receive()
    await send({"type": "websocket.accept"})
    await send({"type": "websocket.send", "bytes": bytes(4_000_000)})
"#,
    );
    let mut client = open(&script);
    // A frame that breaks a rule (it is not masked), while nothing is read.
    client.stream.write_all(&[0x81, 0x01, b'a']).unwrap();
    let _ = client.stream.write_all(&Call::to(&evil).frame());
    // Everything that was sent before is there, then the connection ends.
    client.wait_for_end();
    assert!(
        !marker.exists(),
        "the client's bytes were executed as a request"
    );
}

#[test]
fn a_client_that_goes_with_a_full_queue_is_noticed() {
    let script = Script::new(
        r#"
import asyncio
async def application(scope, receive, send):
    await receive()
    await send({"type": "websocket.accept"})
    while True:
        await asyncio.sleep(0.02)
        await send({"type": "websocket.send", "text": "x"})
"#,
    );
    let mut client = open(&script);
    for _ in 0..100 {
        client.stream.write_all(&masked(0x81, b"a")).unwrap();
    }
    // It takes nothing any more, and does not close.
    client.stream.shutdown(Shutdown::Read).unwrap();
    let until = Instant::now() + Duration::from_secs(10);
    while client.stream.write_all(&masked(0x81, b"a")).is_ok() {
        assert!(Instant::now() < until, "the server keeps the connection");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_flood_lets_others_have_their_turn() {
    let script = Script::new(
        r#"
async def application(scope, receive, send):
    await receive()
    await send({"type": "websocket.accept"})
    while (await receive())["type"] != "websocket.disconnect":
        pass
"#,
    );
    let fast = Script::new(OK);
    let mut other = Client::new();
    assert_eq!(other.call(&Call::to(&fast)).status, 200);
    let client = open(&script);
    let mut stream = client.stream.try_clone().unwrap();
    let flood = std::thread::spawn(move || {
        let pongs: Vec<u8> = (0..10_000).flat_map(|_| masked(0x8a, b"")).collect();
        while stream.write_all(&pongs).is_ok() {}
    });
    let began = Instant::now();
    for _ in 0..4 {
        assert_eq!(other.call(&Call::to(&fast)).status, 200);
    }
    let took = began.elapsed();
    client.stream.shutdown(Shutdown::Both).unwrap();
    flood.join().unwrap();
    assert!(
        took < Duration::from_secs(5),
        "four other requests took {took:?}"
    );
}

#[test]
fn a_pinned_connection_goes_to_the_loop_all_the_same() {
    use crate::daemon::worker::connections::Connections;
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let connections = Connections::default();
    let token = connections.open(theirs.into()).unwrap();
    let pinned = connections.take(token).unwrap().give_back_pinned().unwrap();
    // The next request has come before `send` has returned.
    let held = connections.take(token).unwrap();
    assert!(held.into_socket().is_some());
    drop((pinned, ours));
    assert_eq!(connections.count(), 0);
}

#[test]
fn a_close_is_heard_although_nothing_is_received() {
    let script = Script::new(
        r#"
import asyncio
async def application(scope, receive, send):
    await receive()
    await send({"type": "websocket.accept"})
    await asyncio.sleep(0.3)
    await send({"type": "websocket.close", "code": 1000})
    await asyncio.sleep(3600)
"#,
    );
    let mut client = open(&script);
    for _ in 0..100 {
        client.stream.write_all(&masked(0x81, b"a")).unwrap();
    }
    client.frame_of(Kind::Data);
    let began = Instant::now();
    client.stream.write_all(&masked(0x88, b"\x03\xe8")).unwrap();
    assert!(client.frame_of(Kind::Data).header.has(flag::END));
    assert!(began.elapsed() < Duration::from_secs(3));
}

#[test]
fn an_application_is_not_called_for_a_client_that_has_gone() {
    let script = Script::new(
        r#"
import asyncio
called = []
go = None
async def application(scope, receive, send):
    global go
    if scope["type"] == "lifespan":
        go = asyncio.get_running_loop().create_future()
        await receive()
        await asyncio.sleep(0.3)
        await send({"type": "lifespan.startup.complete"})
        await receive()
        return
    called.append(scope["query_string"])
    await send({'type': 'http.response.start', 'status': 200})
    await send({'type': 'http.response.body', 'body': repr(called).encode()})
"#,
    );
    let mut call = Call {
        query: "gone",
        ..Call::to(&script)
    };
    call.asgi.lifespan = crate::exchange::Lifespan::On;
    let mut client = Client::new();
    client.send(&call);
    client.stream.shutdown(Shutdown::Both).unwrap();
    call.query = "here";
    assert_eq!(Client::new().call(&call).text(), "[b'here']");
}

#[test]
fn another_groups_request_does_not_begin_here() {
    // In a process group the connection finds its way; here it is closed.
    let script = Script::new(OK);
    let mut client = Client::new();
    client.send(&Call {
        group: "somewhere-else",
        ..Call::to(&script)
    });
    assert!(client.frame().is_none());
    let _ = loops::of(runtime::runtime().unwrap(), b"main", &Embedded).unwrap();
}
