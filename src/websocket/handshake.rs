//! The opening handshake: what a request asks for, and what to answer.

use tungstenite::handshake::derive_accept_key;

use super::extension::{self, Deflate};

/// The value of `Sec-WebSocket-Version` that a refusal with 426 carries.
pub const VERSION: &str = "13";

/// A valid handshake of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer<'a> {
    key: &'a [u8],
    subprotocols: Vec<&'a str>,
    deflate: Option<Deflate>,
}

/// Why a request is no handshake that can be accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// An ordinary HTTP request: no upgrade to WebSocket, or one of a method other than GET, which
    /// is then to be ignored.
    NotWebSocket,
    /// To be answered with 400, for this reason.
    BadRequest(&'static str),
    /// To be answered with 426 and `Sec-WebSocket-Version:` [`VERSION`].
    Version,
}

/// What the 101 has to say beside `Upgrade: websocket` and `Connection: Upgrade`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accept {
    /// The value of `Sec-WebSocket-Accept`.
    pub key: String,
    /// The value of `Sec-WebSocket-Extensions`, if the field is to be there.
    pub extensions: Option<String>,
    /// What has been agreed on, for [`Connection::new`](super::Connection::new).
    pub deflate: Option<Deflate>,
}

/// Whether the fields ask for an upgrade to WebSocket: `Upgrade` names it, `Connection` names
/// `upgrade`.
///
/// Names of fields are compared without regard to case; so are they in [`parse`].
pub fn is_websocket<'a>(headers: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> bool {
    let mut upgrade = false;
    let mut connection = false;
    for (name, value) in headers {
        if name.eq_ignore_ascii_case(b"upgrade") {
            upgrade |= names(value, b"websocket");
        } else if name.eq_ignore_ascii_case(b"connection") {
            connection |= names(value, b"upgrade");
        }
    }
    upgrade && connection
}

/// Reads the handshake of a request.
///
/// A field that is there several times is read as a list.
///
/// # Errors
/// See [`Refusal`].
pub fn parse<'a>(
    method: &[u8],
    headers: impl Iterator<Item = (&'a [u8], &'a [u8])>,
) -> Result<Offer<'a>, Refusal> {
    let mut upgrade = false;
    let mut connection = false;
    let mut version = None;
    let mut key = None;
    let mut subprotocols = Vec::new();
    let mut deflate = None;
    // A request that asks for no upgrade is an ordinary one, whatever else is wrong.
    let mut wrong = None;
    for (name, value) in headers {
        if name.eq_ignore_ascii_case(b"upgrade") {
            upgrade |= names(value, b"websocket");
        } else if name.eq_ignore_ascii_case(b"connection") {
            connection |= names(value, b"upgrade");
        } else if name.eq_ignore_ascii_case(b"sec-websocket-version") {
            if version.replace(value.trim_ascii()).is_some() {
                wrong = wrong.or(Some("Sec-WebSocket-Version is there twice"));
            }
        } else if name.eq_ignore_ascii_case(b"sec-websocket-key") {
            if key.replace(value.trim_ascii()).is_some() {
                wrong = wrong.or(Some("Sec-WebSocket-Key is there twice"));
            }
        } else if name.eq_ignore_ascii_case(b"sec-websocket-protocol") {
            if !add_subprotocols(value, &mut subprotocols) {
                wrong = wrong.or(Some("Sec-WebSocket-Protocol is invalid"));
            }
        } else if name.eq_ignore_ascii_case(b"sec-websocket-extensions") {
            match extension::choose(value) {
                Ok(chosen) => deflate = deflate.or(chosen),
                Err(extension::Malformed) => {
                    wrong = wrong.or(Some("Sec-WebSocket-Extensions is invalid"));
                }
            }
        }
    }
    if !(upgrade && connection && method == b"GET") {
        return Err(Refusal::NotWebSocket);
    }
    // Before everything else: what another version demands of the other fields is not known.
    match version {
        None => return Err(Refusal::BadRequest("Sec-WebSocket-Version is missing")),
        Some(version) if version != VERSION.as_bytes() => return Err(Refusal::Version),
        Some(_) => {}
    }
    if let Some(wrong) = wrong {
        return Err(Refusal::BadRequest(wrong));
    }
    match key {
        None => Err(Refusal::BadRequest("Sec-WebSocket-Key is missing")),
        Some(key) if !is_key(key) => Err(Refusal::BadRequest("Sec-WebSocket-Key is invalid")),
        Some(key) => Ok(Offer {
            key,
            subprotocols,
            deflate,
        }),
    }
}

impl<'a> Offer<'a> {
    /// The subprotocols that the client knows, the preferred one first.
    ///
    /// They consist of printable ASCII characters other than the comma.
    pub fn subprotocols(&self) -> impl Iterator<Item = &'a str> + '_ {
        self.subprotocols.iter().copied()
    }

    /// What to answer, with `compression` only if the client has offered it.
    pub fn accept(&self, compression: bool) -> Accept {
        let deflate = self.deflate.filter(|_| compression);
        Accept {
            key: derive_accept_key(self.key),
            extensions: deflate.map(Deflate::answer),
            deflate,
        }
    }
}

/// Whether a list of tokens has this one, in any case.
fn names(list: &[u8], token: &[u8]) -> bool {
    elements(list).any(|element| element.eq_ignore_ascii_case(token))
}

fn elements(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    list.split(|&byte| byte == b',')
        .map(<[u8]>::trim_ascii)
        .filter(|element| !element.is_empty())
}

/// Whether they are such as [`Offer::subprotocols`] promises.
fn add_subprotocols<'a>(list: &'a [u8], to: &mut Vec<&'a str>) -> bool {
    for element in elements(list) {
        match core::str::from_utf8(element) {
            // Not only tokens, as RFC 6455 has it: clients put credentials there.
            Ok(text) if text.bytes().all(|byte| matches!(byte, b' '..=b'~')) => to.push(text),
            _ => return false,
        }
    }
    true
}

/// Whether it is 16 bytes in base64.
fn is_key(key: &[u8]) -> bool {
    let Some(digits) = key.strip_suffix(b"==") else {
        return false;
    };
    digits.len() == 22
        && digits
            .iter()
            .all(|&byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/'))
}
