//! What applications do.

use std::io::Write;

use super::{open, text, websocket};
use crate::asgi::tests::client::{Call, Client, Script, get};
use crate::daemon::wire::{HEADER, Header, Kind, flag};

#[test]
fn receivers_that_gave_up_are_forgotten() {
    let count = r#"
import asyncio, gc
count = lambda: sum(type(o) is asyncio.Future for o in gc.get_objects())
async def give_up(receive):
    before = count()
    for _ in range(300):
        try:
            await asyncio.wait_for(receive(), 0.0005)
        except asyncio.TimeoutError:
            pass
    gc.collect()
    return str(count() - before)
"#;
    let kept = text(&format!(
        "{count}\nasync def application(scope, receive, send):\n    await receive()\n    text = await give_up(receive)\n    await send({{'type': 'http.response.start', 'status': 200}})\n    await send({{'type': 'http.response.body', 'body': text.encode()}})\n"
    ));
    assert!(kept.parse::<i32>().unwrap() < 50, "{kept} futures are kept");
    let script = Script::new(&format!(
        "{count}\nasync def application(scope, receive, send):\n    await receive()\n    await send({{'type': 'websocket.accept'}})\n    await send({{'type': 'websocket.send', 'text': await give_up(receive)}})\n"
    ));
    let frame = open(&script).frame_of(Kind::Data);
    let kept = String::from_utf8_lossy(&frame.payload[2..]).into_owned();
    assert!(kept.parse::<i32>().unwrap() < 50, "{kept} futures are kept");
}

#[test]
fn a_body_that_was_asked_for_too_late_is_skipped() {
    let script = Script::new(
        r#"
import asyncio
async def application(scope, receive, send):
    if scope["method"] == "POST":
        try:
            await asyncio.wait_for(receive(), 0.01)
        except asyncio.TimeoutError:
            pass
    await send({'type': 'http.response.start', 'status': 200})
    await send({'type': 'http.response.body', 'body': b'x'})
"#,
    );
    let mut client = Client::new();
    client.send(&Call {
        method: "POST",
        complete: false,
        ..Call::to(&script)
    });
    client.frame_of(Kind::Read);
    client.frame_of(Kind::Reply);
    // As the client does: the READ came first and is answered.
    client.body(b"la", 0);
    client.body(b"te", flag::GRANT_DONE);
    assert_eq!(client.call(&Call::to(&script)).status, 200);
    assert_eq!(client.call(&Call::to(&script)).status, 200);
}

#[test]
fn headers_may_be_an_iterator_with_a_mind_of_its_own() {
    let answer = get(&Script::new(
        r#"
async def application(scope, receive, send):
    def headers():
        try:
            send({'type': 'http.response.start', 'status': 200, 'headers': []}).send(None)
        except StopIteration:
            pass
        return
        yield
    try:
        await send({'type': 'http.response.start', 'status': 201, 'headers': headers()})
    except RuntimeError as error:
        print(error)
    await send({'type': 'http.response.body', 'body': b'x'})
"#,
    ));
    assert_eq!((answer.status, answer.text()), (200, "x"));
    assert!(
        answer.logged("http.response.body is expected"),
        "{answer:?}"
    );
}

#[test]
fn a_refused_handshake_wakes_whoever_receives() {
    let script = Script::new(
        r#"
import asyncio
async def application(scope, receive, send):
    if scope["type"] == "http":
        # Those that have been woken run first.
        await asyncio.sleep(0.05)
        left = sum("listen" in repr(task) for task in asyncio.all_tasks())
        await send({'type': 'http.response.start', 'status': 200})
        await send({'type': 'http.response.body', 'body': b"%d" % left})
        return
    async def listen():
        while (await receive())["type"] != "websocket.disconnect":
            pass
    await receive()
    task = asyncio.create_task(listen())
    await asyncio.sleep(0)
    await send({"type": "websocket.close"})
    await task
"#,
    );
    for _ in 0..10 {
        let mut client = Client::new();
        client.send(&websocket(&script));
        client.frame_of(Kind::Status);
        assert_eq!(client.call(&Call::to(&script)).text(), "0");
    }
}

#[test]
fn what_finalizers_schedule_while_a_task_begins_is_run() {
    let script = Script::new(
        r#"
import asyncio, gc
ran = []
called = 0
def callback(phase, info):
    global called
    # What it schedules makes garbage as well: there has to be an end.
    if phase == "stop" and called < 300:
        called += 1
        loop.call_soon(ran.append, 1)
async def application(scope, receive, send):
    global loop
    loop = asyncio.get_running_loop()
    if scope["query_string"] == b"begin":
        gc.callbacks.append(callback)
        gc.set_threshold(1)
    if scope["query_string"] == b"end":
        gc.callbacks.remove(callback)
        gc.set_threshold(700)
        await asyncio.sleep(0.05)
    body = b"all" if called == len(ran) else b"%d of %d" % (len(ran), called)
    await send({'type': 'http.response.start', 'status': 200})
    await send({'type': 'http.response.body', 'body': body})
"#,
    );
    let group = "finalizers";
    let mut client = Client::of(group);
    let call = |query| Call {
        query,
        group,
        ..Call::to(&script)
    };
    client.call(&call("begin"));
    for _ in 0..10 {
        client.call(&call(""));
    }
    assert_eq!(client.call(&call("end")).text(), "all");
}

#[test]
fn libraries_find_the_root_task() {
    let found = text(
        r#"
import asyncio
from asyncio.base_events import _run_until_complete_cb as mark
async def application(scope, receive, send):
    found = any(
        callback is mark for task in asyncio.all_tasks() for callback, _ in (task._callbacks or ())
    )
    await send({'type': 'http.response.start', 'status': 200})
    await send({'type': 'http.response.body', 'body': repr(found).encode()})
"#,
    );
    assert_eq!(found, "True");
}

#[test]
fn a_websocket_that_is_over_logs_into_nobodys_request() {
    let script = Script::new(
        r#"
import asyncio
other = None
async def application(scope, receive, send):
    global other
    if other is None:
        other = asyncio.get_running_loop().create_future()
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close"})
        await other
        print("of the websocket")
        return
    other.set_result(None)
    await asyncio.sleep(0.1)
    await send({'type': 'http.response.start', 'status': 200})
    await send({'type': 'http.response.body'})
"#,
    );
    let mut client = Client::new();
    client.send(&websocket(&script));
    client.frame_of(Kind::Status);
    let answer = client.call(&Call::to(&script));
    assert!(!answer.logged("of the websocket"), "{answer:?}");
}

#[test]
fn long_lines_of_a_traceback_are_broken() {
    let answer = get(&Script::new(
        "async def application(scope, receive, send):\n    raise ValueError('x' * 3_000_000)\n",
    ));
    assert_eq!(answer.status, 500);
    assert!(answer.log.iter().all(|line| line.len() <= 8000));
}

#[test]
fn a_forked_child_keeps_no_connection() {
    let script = Script::new(
        r#"
import os, time
async def application(scope, receive, send):
    pid = os.fork()
    if pid == 0:
        time.sleep(30)
        os._exit(0)
    await send({'type': 'http.response.start', 'status': 200})
    await send({'type': 'http.response.body', 'body': b"%d" % pid})
"#,
    );
    // A sub-interpreter must not fork.
    let mut client = Client::new();
    let answer = client.call(&Call::to(&script));
    assert_eq!(answer.status, 200, "{answer:?}");
    let pid: i32 = answer.text().parse().unwrap();
    // What is no request has the server close.
    client.stream.write_all(&[0xff; 64]).unwrap();
    client.wait_for_end();
    // SAFETY: the child of the test.
    unsafe {
        libc::kill(pid, libc::SIGKILL);
        libc::waitpid(pid, core::ptr::null_mut(), 0);
    }
}

#[test]
fn a_generator_may_be_a_coroutine() {
    let answer = get(&Script::new(
        r#"
import types
@types.coroutine
def application(scope, receive, send):
    yield from send({'type': 'http.response.start', 'status': 200})
    yield from send({'type': 'http.response.body', 'body': b'x'})
"#,
    ));
    assert_eq!(answer.status, 200, "{answer:?}");
}

#[test]
fn a_message_too_large_for_the_wire_raises() {
    let script = Script::new(
        r#"
async def application(scope, receive, send):
    await receive()
    await send({"type": "websocket.accept"})
    try:
        await send({"type": "websocket.send", "bytes": bytes(65 * 1024 * 1024)})
    except ValueError as error:
        await send({"type": "websocket.send", "text": str(error)})
"#,
    );
    let mut client = open(&script);
    let frame = client.frame_of(Kind::Data);
    assert!(String::from_utf8_lossy(&frame.payload).contains("must not be larger"));
    let _ = Header::new(Kind::Data, HEADER as u32);
}

#[test]
fn asyncio_may_be_in_debug_mode() {
    let script = Script::new(
        r#"
import asyncio
async def application(scope, receive, send):
    loop = asyncio.get_running_loop()
    loop.set_debug(True)
    await asyncio.wait_for(asyncio.sleep(0.01), 1)
    text = repr(asyncio.current_task()) + repr(asyncio.current_task().get_stack())
    loop.set_debug(scope["query_string"] != b"last")
    await send({'type': 'http.response.start', 'status': 200})
    await send({'type': 'http.response.body', 'body': text.encode()})
"#,
    );
    let group = "debugging";
    let mut client = Client::of(group);
    for query in ["first", "second", "last"] {
        let answer = client.call(&Call {
            query,
            group,
            ..Call::to(&script)
        });
        assert_eq!(answer.status, 200, "{answer:?}");
    }
}
