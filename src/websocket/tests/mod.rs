//! The rules of RFC 6455 and RFC 7692, one by one, in the order of Autobahn's test suite. Numbers in
//! brackets are its sections.

mod close;
mod compression;
mod frames;
mod handshake;
mod limits;
mod mask;
mod peer;
mod splits;
mod utf8;

use std::str;

use super::{Connection, Deflate, Event, Limits};

const FIN: u8 = 0x80;
const RSV1: u8 = 0x40;
const CONTINUE: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

const MAX_MESSAGE: usize = 1 << 20;

fn plain() -> Connection {
    Connection::new(
        Limits {
            max_message: MAX_MESSAGE,
        },
        None,
    )
}

fn compressing() -> Connection {
    Connection::new(
        Limits {
            max_message: MAX_MESSAGE,
        },
        Some(Deflate { window: None }),
    )
}

/// A header as a client sends it, for a payload of this length.
fn header(first: u8, length: usize, mask: [u8; 4]) -> Vec<u8> {
    let mut bytes = vec![first];
    match length {
        0..126 => bytes.push(0x80 | length as u8),
        126..65_536 => {
            bytes.push(0x80 | 126);
            bytes.extend((length as u16).to_be_bytes());
        }
        _ => {
            bytes.push(0x80 | 127);
            bytes.extend((length as u64).to_be_bytes());
        }
    }
    bytes.extend(mask);
    bytes
}

/// A frame as a client sends it. `first` is the opcode and the bits before it.
fn frame(first: u8, payload: impl AsRef<[u8]>) -> Vec<u8> {
    let payload = payload.as_ref();
    let mask = [0x37, 0xfa, 0x21, payload.len() as u8];
    let mut bytes = header(first, payload.len(), mask);
    bytes.extend(
        payload
            .iter()
            .zip(mask.iter().cycle())
            .map(|(byte, key)| byte ^ key),
    );
    bytes
}

/// Takes what a server sent apart: first bytes and payloads of frames.
fn frames(mut bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut all = Vec::new();
    while let [first, second, rest @ ..] = bytes {
        let (length, rest) = match second {
            126 => (u16::from_be_bytes([rest[0], rest[1]]).into(), &rest[2..]),
            127 => {
                let length = u64::from_be_bytes(rest[..8].try_into().unwrap());
                (length as usize, &rest[8..])
            }
            0..126 => (usize::from(*second), rest),
            _ => panic!("a server's frame has no mask"),
        };
        all.push((*first, rest[..length].to_vec()));
        bytes = &rest[length..];
    }
    assert!(bytes.is_empty());
    all
}

/// What `bytes` make a connection say, and the frames that it sends.
fn receive(mut connection: Connection, bytes: &[u8]) -> (Vec<Event>, Vec<(u8, Vec<u8>)>) {
    let mut out = Vec::new();
    let mut events = Vec::new();
    connection.receive(bytes, &mut out, &mut events);
    (events, frames(&out))
}

/// Receives `bytes` in pieces of the lengths that `next` gives; what is said, without the pings, of
/// which there is one per call at most.
fn in_pieces(
    mut connection: Connection,
    bytes: &[u8],
    mut next: impl FnMut() -> usize,
) -> (Vec<Event>, Vec<u8>) {
    let mut out = Vec::new();
    let mut events = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let (piece, later) = rest.split_at(next().clamp(1, rest.len()));
        rest = later;
        connection.receive(piece, &mut out, &mut events);
    }
    events.retain(|event| *event != Event::Ping);
    (events, out)
}

/// Asserts that `bytes` fail the connection with `code` after `before`.
#[track_caller]
fn fails(connection: Connection, bytes: &[u8], before: &[Event], code: u16) {
    let (events, sent) = receive(connection, bytes);
    let Some((Event::Failed { code: said, reason }, others)) = events.split_last() else {
        panic!("{events:?} for {bytes:x?}");
    };
    assert_eq!((*said, others), (code, before), "{reason}");
    let mut payload = code.to_be_bytes().to_vec();
    payload.extend(reason.as_bytes());
    assert_eq!(sent.last(), Some(&(FIN | CLOSE, payload)));
}

fn text(text: &str) -> Event {
    Event::Text(text.to_owned())
}

/// Numbers that look random.
fn random(state: &mut u64) -> usize {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    (*state >> 20) as usize
}

/// Such bytes.
fn random_bytes(state: &mut u64, length: usize) -> Vec<u8> {
    (0..length).map(|_| random(state) as u8).collect()
}
