//! The task that runs an application, and the awaitables that it gets.

use super::client::{Call, Client, Script, get};

fn answers(body: &str) -> String {
    let body = body.replace('\n', "\n    ");
    let script = Script::new(&format!(
        "import asyncio, contextvars, inspect, collections.abc, threading, sys\nlevel = contextvars.ContextVar('level', default=0)\nasync def run(scope, receive, send):\n    {body}\nasync def application(scope, receive, send):\n    text = str(await run(scope, receive, send))\n    await send({{'type': 'http.response.start', 'status': 200}})\n    await send({{'type': 'http.response.body', 'body': text.encode()}})\n"
    ));
    let answer = get(&script);
    assert_eq!(answer.status, 200, "{body}: {answer:#?}");
    answer.text().to_owned()
}

#[test]
fn it_is_a_task_of_asyncio() {
    let task = "t = asyncio.current_task()\nreturn isinstance(t, asyncio.Task) and t in asyncio.all_tasks() and not t.done()";
    // A task that has begun eagerly is listed once it has waited.
    assert_eq!(answers(&format!("await asyncio.sleep(0)\n{task}")), "True");
    assert_eq!(
        answers("return type(asyncio.current_task()).__name__"),
        "Task"
    );
    assert_eq!(
        answers("return asyncio.get_running_loop() is asyncio.current_task().get_loop()"),
        "True"
    );
}

#[test]
fn each_request_has_a_context_of_its_own() {
    for _ in 0..3 {
        assert_eq!(
            answers(
                "before = level.get()\nlevel.set(before + 1)\nawait asyncio.sleep(0)\nreturn before, level.get()"
            ),
            "(0, 1)"
        );
    }
}

#[test]
fn what_receive_returns_is_a_coroutine() {
    assert_eq!(
        answers(
            "r = receive()\nok = asyncio.iscoroutine(r), isinstance(r, collections.abc.Coroutine), inspect.isawaitable(r)\nawait r\nreturn ok"
        ),
        "(True, True, True)"
    );
    assert_eq!(
        answers("return (await asyncio.create_task(receive()))['type']"),
        "http.request"
    );
    assert_eq!(
        answers("return (await asyncio.wait_for(receive(), 5))['type']"),
        "http.request"
    );
    assert_eq!(
        answers("return (await asyncio.gather(receive(), asyncio.sleep(0)))[0]['type']"),
        "http.request"
    );
}

#[test]
fn a_receive_that_is_given_up_loses_nothing() {
    let body = "await receive()\ntry:\n    await asyncio.wait_for(receive(), 0.01)\nexcept asyncio.TimeoutError:\n    return 'timeout'";
    assert_eq!(answers(body), "timeout");
    // Never awaited: nothing happens.
    assert_eq!(
        answers("receive(); receive()\nreturn (await receive())['body']"),
        "b''"
    );
    assert_eq!(
        answers(
            "r = receive()\nawait r\ntry:\n    await r\nexcept RuntimeError as e:\n    return e"
        ),
        "cannot reuse an awaitable that has been awaited"
    );
    assert_eq!(
        answers("r = receive()\nr.close()\nreturn 'closed'"),
        "closed"
    );
    assert_eq!(
        answers(
            "r = receive()\ntry:\n    r.throw(KeyError('x'))\nexcept KeyError as e:\n    return repr(e)"
        ),
        "KeyError('x')"
    );
}

#[test]
fn many_wait_at_the_same_time() {
    let script = Script::new(
        r#"
import asyncio
inside = 0
everybody = None
async def application(scope, receive, send):
    global inside, everybody
    if everybody is None:
        everybody = asyncio.get_running_loop().create_future()
    inside += 1
    if inside == 100:
        everybody.set_result(None)
    await everybody
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": b"%d" % inside})
"#,
    );
    let mut clients: Vec<Client> = (0..100).map(|_| Client::new()).collect();
    for client in &mut clients {
        client.send(&Call::to(&script));
    }
    for client in &mut clients {
        assert_eq!(client.answer().text(), "100");
    }
}

#[test]
fn other_threads_must_not_send() {
    let body = "def elsewhere():\n    try:\n        send({'type': 'x'}).send(None)\n    except RuntimeError as error:\n        return str(error)\nreturn await asyncio.get_running_loop().run_in_executor(None, elsewhere)";
    assert!(answers(body).contains("in the server's event loop"));
}

#[test]
fn lines_of_the_log_find_their_request() {
    let script = Script::new(
        r#"
import asyncio, contextvars, sys
async def child():
    await asyncio.sleep(0)
    print("from a child task")
async def application(scope, receive, send):
    print("from the application")
    await asyncio.create_task(child())
    context = contextvars.copy_context()
    await asyncio.get_running_loop().run_in_executor(None, context.run, print, "from a thread")
    # What a thread has written takes a round of the loop.
    await asyncio.sleep(0.05)
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body"})
"#,
    );
    let answer = get(&script);
    for what in ["from the application", "from a child task", "from a thread"] {
        assert!(answer.logged(what), "{what}: {answer:?}");
    }
}
