//! The end of a loop. Each test has a loop of its own, in an application group of its own.

use std::time::{Duration, Instant};

use super::client::{Call, Client, Script};
use super::websockets::HEADERS;
use crate::asgi::event_loop::EventLoop;
use crate::asgi::house::Embedded;
use crate::asgi::loops;
use crate::daemon::wire::Kind;
use crate::exchange::Lifespan;
use crate::python::runtime;

fn event_loop(group: &str) -> &'static EventLoop {
    loops::of(runtime::runtime().unwrap(), group.as_bytes(), &Embedded).unwrap()
}

/// Ends the loop of `group` while it has something in hand that would never end; gives how long that
/// took.
fn ends(group: &str, body: &str, headers: &[(&str, &str)], stays: bool) -> Duration {
    let body = body.replace('\n', "\n    ");
    let script = Script::new(&format!(
        "import asyncio\nasync def application(scope, receive, send):\n    {body}\n"
    ));
    let mut client = Client::of(group);
    client.send(&Call {
        group,
        headers,
        ..Call::to(&script)
    });
    let mut other = Client::of(group);
    // By now the first request has begun.
    let probe = Script::new(
        "async def application(scope, receive, send):\n    await send({'type': 'http.response.start', 'status': 200})\n    await send({'type': 'http.response.body'})\n",
    );
    let answer = other.call(&Call {
        group,
        ..Call::to(&probe)
    });
    assert_eq!(answer.status, 200);
    let kept = stays.then_some(client);
    let event_loop = event_loop(group);
    let began = Instant::now();
    event_loop.hurry();
    assert!(
        event_loop.wait_for_end(Duration::from_secs(20)),
        "{group} does not end"
    );
    drop(kept);
    began.elapsed()
}

const FOR_EVER: &str = "await asyncio.sleep(3600)";

#[test]
fn requests_that_never_end_are_cancelled() {
    let quick = Duration::from_secs(3);
    assert!(ends("gone", FOR_EVER, &[], false) < quick);
    assert!(ends("there", FOR_EVER, &[], true) < quick);
    let background = format!(
        "await send({{'type': 'http.response.start', 'status': 200}})\nawait send({{'type': 'http.response.body'}})\n{FOR_EVER}"
    );
    assert!(ends("background", &background, &[], true) < quick);
}

#[test]
fn what_ignores_its_cancellation_is_not_waited_for() {
    let stubborn = format!(
        "while True:\n    try:\n        {FOR_EVER}\n    except asyncio.CancelledError:\n        pass"
    );
    assert!(ends("stubborn", &stubborn, &[], true) < Duration::from_secs(8));
}

#[test]
fn a_websocket_that_ignores_its_close_is_cancelled() {
    let body = format!("await receive()\nawait send({{'type': 'websocket.accept'}})\n{FOR_EVER}");
    assert!(ends("websocket", &body, HEADERS, true) < Duration::from_secs(5));
}

#[test]
fn applications_are_told() {
    let group = "told";
    let marker = std::env::temp_dir().join(format!("rwsgi-told-{}", std::process::id()));
    let _ = std::fs::remove_file(&marker);
    let script = Script::new(&format!(
        r#"
import asyncio
async def application(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await send({{"type": "lifespan.startup.complete"}})
        assert (await receive())["type"] == "lifespan.shutdown"
        open({marker:?}, "w").close()
        await send({{"type": "lifespan.shutdown.complete"}})
        return
    await send({{'type': 'http.response.start', 'status': 200}})
    await send({{'type': 'http.response.body'}})
    {FOR_EVER}
"#
    ));
    let mut call = Call {
        group,
        ..Call::to(&script)
    };
    call.asgi.lifespan = Lifespan::On;
    let mut client = Client::of(group);
    assert_eq!(client.call(&call).status, 200);
    event_loop(group).hurry();
    assert!(event_loop(group).wait_for_end(Duration::from_secs(10)));
    assert!(marker.exists());
    let _ = std::fs::remove_file(&marker);
    let runtime = runtime::runtime().unwrap();
    let late = loops::connect(runtime, group.as_bytes(), &Embedded);
    assert!(late.is_err(), "there is no such loop any more");
}

#[test]
fn what_has_been_said_is_sent_to_its_end() {
    let group = "tail";
    let script = Script::new(
        r#"
async def application(scope, receive, send):
    await send({'type': 'http.response.start', 'status': 200})
    await send({'type': 'http.response.body', 'body': bytes(int(scope["query_string"]))})
"#,
    );
    let call = |query| Call {
        query,
        group,
        ..Call::to(&script)
    };
    let mut client = Client::of(group);
    assert_eq!(client.call(&call("1")).status, 200);
    client.send(&call("2000000"));
    let first = client.frame_of(Kind::Reply);
    // All but what the socket holds was still to be sent when the loop was told; reading the frame
    // whole shows that it went on.
    event_loop(group).drain();
    assert!(first.payload.len() > 2_000_000);
}
