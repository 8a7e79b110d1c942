//! Startup, state, and what is done about failures.

use super::client::{Call, Client, Script};
use crate::exchange::{AsgiSettings, Lifespan};

fn call<'a>(script: &'a Script, lifespan: Lifespan) -> Call<'a> {
    Call {
        asgi: AsgiSettings {
            lifespan,
            ..AsgiSettings::DEFAULT
        },
        ..Call::to(script)
    }
}

const SITE: &str = r#"
import asyncio
events = []
async def application(scope, receive, send):
    if scope["type"] == "lifespan":
        events.append((await receive())["type"])
        scope["state"]["shared"] = [7]
        await asyncio.sleep(0.01)
        STARTED
        return
    assert events == EVENTS, events
    scope["state"]["own"] = 1
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": repr(scope["state"]).encode()})
"#;

fn site(started: &str, events: &str) -> Script {
    Script::new(&SITE.replace("STARTED", started).replace("EVENTS", events))
}

const COMPLETE: &str = "await send({'type': 'lifespan.startup.complete'}); await receive()";

#[test]
fn startup_comes_before_the_first_request_and_state_is_copied() {
    let script = site(COMPLETE, "['lifespan.startup']");
    let mut clients: Vec<Client> = (0..3).map(|_| Client::new()).collect();
    for client in &mut clients {
        client.send(&call(&script, Lifespan::Auto));
    }
    for client in &mut clients {
        let answer = client.answer();
        assert_eq!(answer.text(), "{'shared': [7], 'own': 1}", "{answer:?}");
    }
}

#[test]
fn off_means_off() {
    let script = site(COMPLETE, "[]");
    let answer = Client::new().call(&call(&script, Lifespan::Off));
    assert_eq!(answer.text(), "{'own': 1}", "{answer:?}");
}

#[test]
fn an_application_without_lifespan_is_served_unless_it_must_have_one() {
    let script = site("raise KeyError('no lifespan')", "['lifespan.startup']");
    let answer = Client::new().call(&call(&script, Lifespan::Auto));
    assert_eq!(answer.status, 200, "{answer:?}");
    let script = site("raise KeyError('no lifespan')", "['lifespan.startup']");
    let answer = Client::new().call(&call(&script, Lifespan::On));
    assert_eq!((answer.status, answer.is_error), (500, true));
    let script = site("pass", "['lifespan.startup']");
    let answer = Client::new().call(&call(&script, Lifespan::On));
    assert_eq!((answer.status, answer.is_error), (500, true));
}

#[test]
fn a_failed_startup_is_a_500_and_tried_again() {
    let script = site(
        "await send({'type': 'lifespan.startup.failed', 'message': 'no database'} if len(events) == 1 else {'type': 'lifespan.startup.complete'}); await receive()",
        "['lifespan.startup'] * 2",
    );
    let mut client = Client::new();
    let answer = client.call(&call(&script, Lifespan::Auto));
    assert_eq!((answer.status, answer.is_error), (500, true));
    let began = std::time::Instant::now();
    loop {
        let answer = client.call(&call(&script, Lifespan::Auto));
        if answer.status == 200 {
            break;
        }
        assert!(began.elapsed().as_secs() < 10);
        std::thread::sleep(core::time::Duration::from_millis(100));
    }
}
