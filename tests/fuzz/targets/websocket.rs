//! What WebSocket clients send: handshakes, and streams of frames cut anywhere.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rwsgi::websocket::{Connection, Deflate, Event, Limits, handshake};

const LARGEST: usize = 1 << 16;

/// What a connection says when it gets `bytes` in pieces of `size`, and what it sends.
fn receive(bytes: &[u8], size: usize, deflate: Option<Deflate>) -> (Vec<Event>, Vec<u8>) {
    let limits = Limits {
        max_message: LARGEST,
    };
    let mut connection = Connection::new(limits, deflate);
    let mut out = Vec::new();
    let mut events = Vec::new();
    for piece in bytes.chunks(size) {
        connection.receive(piece, &mut out, &mut events);
    }
    let ended = matches!(
        events.last(),
        Some(Event::Closed { .. } | Event::Failed { .. })
    );
    assert_eq!(connection.is_closed(), ended);
    // Of those there is one per piece at most.
    events.retain(|event| *event != Event::Ping);
    (events, out)
}

fuzz_target!(|input: &[u8]| {
    let [size, frames @ ..] = input else {
        return;
    };
    // A handshake in lines, to begin with an offer of compression.
    let (extensions, lines) = match frames.iter().position(|&byte| byte == b'\n') {
        Some(end) if size & 1 == 0 => (&frames[..end], &frames[end + 1..]),
        _ => (&b"permessage-deflate"[..], &b""[..]),
    };
    let fields: [(&[u8], &[u8]); 5] = [
        (b"Upgrade", b"websocket"),
        (b"Connection", b"upgrade"),
        (b"Sec-WebSocket-Version", b"13"),
        (b"Sec-WebSocket-Key", b"dGhlIHNhbXBsZSBub25jZQ=="),
        (b"Sec-WebSocket-Extensions", extensions),
    ];
    let more = lines.split(|&byte| byte == b'\n').map(|line| {
        let colon = line.iter().position(|&byte| byte == b':');
        let (name, value) = line.split_at(colon.unwrap_or(0));
        (name, value)
    });
    let _ = handshake::parse(b"GET", more.clone());
    let deflate = match handshake::parse(b"GET", fields.into_iter().chain(more)) {
        Ok(offer) => {
            for subprotocol in offer.subprotocols() {
                assert!(
                    subprotocol
                        .bytes()
                        .all(|byte| (b' '..=b'~').contains(&byte))
                );
            }
            offer.accept(true).deflate
        }
        Err(_) => None,
    };
    let (whole, answers) = receive(frames, usize::MAX, deflate);
    let (split, sent) = receive(frames, usize::from(*size) + 1, deflate);
    assert_eq!(whole, split);
    // Pings that do not fit are left out, and which of them depends on the pieces.
    if answers.len() < 16 * 1024 {
        assert_eq!(answers, sent);
    }
    for event in whole {
        let length = match event {
            Event::Text(text) => text.len(),
            Event::Binary(bytes) => bytes.len(),
            _ => 0,
        };
        assert!(length <= LARGEST);
    }
});
