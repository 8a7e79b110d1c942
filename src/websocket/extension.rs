//! `Sec-WebSocket-Extensions`: which of the client's offers of permessage-deflate is taken.

/// permessage-deflate as it was agreed on, without context takeover in either direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deflate {
    /// The window that the client limits us to, 9 to 15 bits, if it does.
    pub(super) window: Option<u8>,
}

impl Deflate {
    /// The window that messages are compressed with.
    pub(super) fn window_bits(self) -> u8 {
        self.window.unwrap_or(15)
    }

    /// The value of `Sec-WebSocket-Extensions` in the answer.
    pub(super) fn answer(self) -> String {
        let mut answer = String::from(
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover",
        );
        if let Some(bits) = self.window {
            answer.push_str("; server_max_window_bits=");
            answer.push_str(&bits.to_string());
        }
        answer
    }
}

/// The header does not follow its grammar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// Reads one `Sec-WebSocket-Extensions` field and gives the first offer in it that can be taken.
///
/// # Errors
/// The value does not follow the grammar of RFC 6455, 9.1.
pub(super) fn choose(value: &[u8]) -> Result<Option<Deflate>, Malformed> {
    let mut reader = Reader { rest: value };
    let mut chosen = None;
    loop {
        // Empty elements of a list mean nothing (RFC 9110, 5.6.1).
        reader.blanks();
        if reader.is_at_end() {
            return Ok(chosen);
        }
        if reader.take(b',') {
            continue;
        }
        let offer = reader.offer()?;
        chosen = chosen.or(offer);
        reader.blanks();
        if !reader.is_at_end() && !reader.take(b',') {
            return Err(Malformed);
        }
    }
}

/// The parameters of one offer, as far as they have been read.
#[derive(Default)]
struct Parameters {
    server_takeover: bool,
    client_takeover: bool,
    server_window: Option<u8>,
    client_window: bool,
    /// One was unknown, invalid or twice there: the offer must be declined (RFC 7692, 7).
    declined: bool,
}

impl Parameters {
    fn add(&mut self, name: &[u8], value: Option<&[u8]>) {
        let bits = value.map(window_bits);
        let known = match (name, value) {
            (b"server_no_context_takeover", None) => {
                !core::mem::replace(&mut self.server_takeover, true)
            }
            (b"client_no_context_takeover", None) => {
                !core::mem::replace(&mut self.client_takeover, true)
            }
            (b"server_max_window_bits", Some(_)) => {
                // zlib compresses with no window of 8 bits.
                let bits = bits.flatten().filter(|&bits| bits > 8);
                bits.is_some() && self.server_window.replace(bits.unwrap_or(15)).is_none()
            }
            (b"client_max_window_bits", _) => {
                bits != Some(None) && !core::mem::replace(&mut self.client_window, true)
            }
            _ => false,
        };
        self.declined |= !known;
    }
}

/// A number from 8 to 15 without leading zeros.
fn window_bits(value: &[u8]) -> Option<u8> {
    match value {
        [digit @ b'8'..=b'9'] => Some(digit - b'0'),
        [b'1', digit @ b'0'..=b'5'] => Some(10 + digit - b'0'),
        _ => None,
    }
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn is_at_end(&self) -> bool {
        self.rest.is_empty()
    }

    fn blanks(&mut self) {
        while let [b' ' | b'\t', rest @ ..] = self.rest {
            self.rest = rest;
        }
    }

    fn take(&mut self, byte: u8) -> bool {
        match self.rest.split_first() {
            Some((&first, rest)) if first == byte => {
                self.rest = rest;
                true
            }
            _ => false,
        }
    }

    fn token(&mut self) -> Result<&'a [u8], Malformed> {
        let end = self.rest.iter().position(|&byte| !is_token_byte(byte));
        let (token, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
        if token.is_empty() {
            return Err(Malformed);
        }
        self.rest = rest;
        Ok(token)
    }

    /// A token, or one in quotes. No value of ours needs escapes, so they are not undone.
    fn value(&mut self) -> Result<&'a [u8], Malformed> {
        if !self.take(b'"') {
            return self.token();
        }
        let token = self.token()?;
        if self.take(b'"') {
            Ok(token)
        } else {
            Err(Malformed)
        }
    }

    /// One element of the list; `None` if it is not ours or cannot be taken.
    fn offer(&mut self) -> Result<Option<Deflate>, Malformed> {
        let ours = self.token()? == b"permessage-deflate";
        let mut parameters = Parameters::default();
        loop {
            self.blanks();
            if !self.take(b';') {
                break;
            }
            self.blanks();
            let name = self.token()?;
            self.blanks();
            let value = if self.take(b'=') {
                self.blanks();
                Some(self.value()?)
            } else {
                None
            };
            parameters.add(name, value);
        }
        Ok((ours && !parameters.declined).then_some(Deflate {
            window: parameters.server_window,
        }))
    }
}

/// RFC 9110, 5.6.2.
fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}
