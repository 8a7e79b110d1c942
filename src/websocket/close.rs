//! Codes and reasons of close frames.

use core::fmt;

/// The largest payload of a control frame.
pub(super) const LARGEST_CONTROL: usize = 125;

/// A frame or message that the rules forbid.
pub(super) const PROTOCOL_ERROR: u16 = 1002;
/// What a close frame without a code means. Never sent.
pub(super) const NO_STATUS: u16 = 1005;
/// Text that is not UTF-8, or data that does not inflate.
pub(super) const INVALID_DATA: u16 = 1007;
/// A message larger than the limit.
pub(super) const TOO_BIG: u16 = 1009;

/// Whether a close frame may carry this code (RFC 6455, 7.4, and IANA's registry).
pub fn is_close_code(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

/// The payload of a close frame.
pub(super) struct Payload {
    bytes: [u8; LARGEST_CONTROL],
    length: usize,
}

impl Payload {
    /// A code that may not be sent gives an empty payload; of a long reason the start is taken.
    pub(super) fn new(code: u16, reason: &str) -> Self {
        let mut payload = Payload {
            bytes: [0; LARGEST_CONTROL],
            length: 0,
        };
        if is_close_code(code) {
            payload.push(&code.to_be_bytes());
            let mut end = reason.len().min(LARGEST_CONTROL - 2);
            while !reason.is_char_boundary(end) {
                end -= 1;
            }
            payload.push(&reason.as_bytes()[..end]);
        }
        payload
    }

    fn push(&mut self, bytes: &[u8]) {
        let end = self.length + bytes.len();
        self.bytes[self.length..end].copy_from_slice(bytes);
        self.length = end;
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

/// Why the connection has to be failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) code: u16,
    pub(super) reason: &'static str,
}

impl Failure {
    pub(super) const fn protocol(reason: &'static str) -> Self {
        Failure {
            code: PROTOCOL_ERROR,
            reason,
        }
    }

    pub(super) const fn data(reason: &'static str) -> Self {
        Failure {
            code: INVALID_DATA,
            reason,
        }
    }

    pub(super) const TOO_BIG: Self = Failure {
        code: TOO_BIG,
        reason: "message too big",
    };
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.reason, self.code)
    }
}

/// What the payload of the client's close frame says: code and reason.
pub(super) fn read(payload: &[u8]) -> Result<(u16, &str), Failure> {
    let Some((code, reason)) = payload.split_first_chunk::<2>() else {
        return if payload.is_empty() {
            Ok((NO_STATUS, ""))
        } else {
            Err(Failure::protocol("close frame of one byte"))
        };
    };
    let code = u16::from_be_bytes(*code);
    if !is_close_code(code) {
        return Err(Failure::protocol("invalid close code"));
    }
    match core::str::from_utf8(reason) {
        Ok(reason) => Ok((code, reason)),
        Err(_) => Err(Failure::data("close reason is not UTF-8")),
    }
}
