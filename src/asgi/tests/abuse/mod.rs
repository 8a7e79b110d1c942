//! What clients and applications do that nobody should do: nothing is lost, nothing breaks.

mod applications;
mod clients;

use super::client::{Call, Client, Script, get};
use super::websockets::HEADERS;
use crate::daemon::wire::Kind;

const OK: &str = "
async def application(scope, receive, send):
    await send({'type': 'http.response.start', 'status': 200})
    await send({'type': 'http.response.body', 'body': b'x'})
";

fn websocket<'a>(script: &'a Script) -> Call<'a> {
    Call {
        headers: HEADERS,
        ..Call::to(script)
    }
}

fn open(script: &Script) -> Client {
    let mut client = Client::new();
    client.send(&websocket(script));
    client.frame_of(Kind::Switch);
    client
}

/// What a script answers with.
fn text(source: &str) -> String {
    let answer = get(&Script::new(source));
    assert_eq!(answer.status, 200, "{answer:#?}");
    answer.text().to_owned()
}
