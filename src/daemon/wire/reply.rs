//! The payload of REPLY: a response head, then body bytes.
//!
//! `u16` status, `u16` headers, `i64` Content-Length (negative: none declared), `u32` length of what
//! follows up to the body, `u32` length of the status line, status line, then for each header `u32`
//! name length, `u32` value length, name, value.

#![forbid(unsafe_code)]

use super::{HEADER, Header, Kind, Malformed, Reader};
use crate::exchange::response::ResponseHead;
use crate::exchange::{Pair, Slice, Text};

/// Bytes before the status line's length.
const FIXED: usize = 2 + 2 + 8 + 4;
/// A head cannot be larger.
pub const LARGEST_HEAD: usize = 1024 * 1024;
/// So many headers need no memory of their own.
const PAIRS: usize = 48;

/// Appends the head to `out`, with room for the frame's header before it, which [`finish`] fills
/// in when the length of the body is known. `out` is empty.
///
/// # Errors
/// The head is larger than [`LARGEST_HEAD`], or has more than 65,535 fields.
#[inline]
pub fn encode(head: &ResponseHead<'_>, out: &mut Vec<u8>) -> Result<(), Malformed> {
    debug_assert!(out.is_empty());
    let items = head.headers.items();
    let count = u16::try_from(items.len()).map_err(|_| Malformed)?;
    out.extend_from_slice(&[0; HEADER]);
    out.extend_from_slice(&head.status.to_le_bytes());
    out.extend_from_slice(&count.to_le_bytes());
    out.extend_from_slice(&head.content_length.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    let line = head.status_line.bytes();
    out.extend_from_slice(&(line.len() as u32).to_le_bytes());
    out.extend_from_slice(line);
    for Pair { name, value } in items {
        let (name, value) = (name.bytes(), value.bytes());
        out.extend_from_slice(&(name.len() as u32).to_le_bytes());
        out.extend_from_slice(&(value.len() as u32).to_le_bytes());
        out.extend_from_slice(name);
        out.extend_from_slice(value);
    }
    let length = out.len() - HEADER - FIXED;
    if length > LARGEST_HEAD {
        return Err(Malformed);
    }
    let place = HEADER + FIXED - 4;
    out[place..place + 4].copy_from_slice(&(length as u32).to_le_bytes());
    Ok(())
}

/// Fills in the frame's header: `out` begins with what [`encode`] wrote and may hold body bytes
/// after it; `more` further body bytes follow `out` on the wire.
#[inline]
pub fn finish(out: &mut [u8], more: usize, flags: u8, load: u16) {
    let header = Header {
        length: (out.len() - HEADER + more) as u32,
        kind: Kind::Reply,
        flags,
        aux: load,
    };
    out[..HEADER].copy_from_slice(&header.encode());
}

/// How many bytes of a REPLY's payload the head takes, from its first bytes; `None` if these are
/// too few to say.
#[inline]
pub fn head_length(payload: &[u8]) -> Option<Result<usize, Malformed>> {
    let fixed = payload.get(..FIXED)?;
    let length = u32::from_le_bytes([fixed[12], fixed[13], fixed[14], fixed[15]]) as usize;
    if length > LARGEST_HEAD {
        return Some(Err(Malformed));
    }
    Some(Ok(FIXED + length))
}

/// Decodes a head from exactly its bytes and calls `take` with it.
///
/// # Errors
/// The bytes are not what [`encode`] writes. The texts themselves are not judged.
#[inline]
pub fn decode<T>(head: &[u8], take: impl FnOnce(&ResponseHead<'_>) -> T) -> Result<T, Malformed> {
    let mut reader = Reader(head);
    let status = reader.u16()?;
    let count = usize::from(reader.u16()?);
    let content_length = reader.i64()?;
    let _length = reader.u32()?;
    let line = reader.u32()? as usize;
    let status_line = Text::new(reader.bytes(line)?);
    if reader.0.len() < count * 8 {
        return Err(Malformed);
    }
    const EMPTY: Pair<'static> = Pair {
        name: Text::EMPTY,
        value: Text::EMPTY,
    };
    let mut inline = [EMPTY; PAIRS];
    let mut spilled = Vec::new();
    let pairs = if count <= PAIRS {
        &mut inline[..count]
    } else {
        spilled.resize(count, EMPTY);
        &mut spilled[..]
    };
    for pair in pairs.iter_mut() {
        let name = reader.u32()? as usize;
        let value = reader.u32()? as usize;
        pair.name = Text::new(reader.bytes(name)?);
        pair.value = Text::new(reader.bytes(value)?);
    }
    if !reader.0.is_empty() {
        return Err(Malformed);
    }
    Ok(take(&ResponseHead {
        status,
        status_line,
        headers: Slice::new(pairs),
        content_length,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::wire::flag;

    fn frame(count: usize) -> Vec<u8> {
        let field = Pair {
            name: "X-Field".into(),
            value: "value".into(),
        };
        let fields = vec![field; count];
        let head = ResponseHead {
            status: 201,
            status_line: "201 Created".into(),
            headers: Slice::new(&fields),
            content_length: -1,
        };
        let mut out = Vec::new();
        encode(&head, &mut out).unwrap();
        out.extend_from_slice(b"body");
        finish(&mut out, 3, flag::END, 7);
        out
    }

    #[test]
    fn replies_survive_the_wire() {
        for count in [0, 1, PAIRS, PAIRS + 1, 300] {
            let out = frame(count);
            let header = Header::peek(&out).unwrap().unwrap();
            assert_eq!(header.kind, Kind::Reply);
            assert_eq!(header.aux, 7);
            let payload = &out[HEADER..];
            assert_eq!(header.length as usize, payload.len() + 3);
            let length = head_length(payload).unwrap().unwrap();
            assert_eq!(&payload[length..], b"body");
            let seen = decode(&payload[..length], |head| {
                assert_eq!(head.status_line.bytes(), b"201 Created");
                (head.status, head.content_length, head.headers.items().len())
            });
            assert_eq!(seen, Ok((201, -1, count)));
        }
    }

    #[test]
    fn cut_or_damaged_heads_are_refused() {
        let out = frame(3);
        let payload = &out[HEADER..];
        assert_eq!(head_length(&payload[..15]), None);
        let length = head_length(payload).unwrap().unwrap();
        for cut in 0..length {
            assert!(decode(&payload[..cut], |_| ()).is_err());
        }
        let mut damaged = payload.to_vec();
        damaged[12..16].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(head_length(&damaged), Some(Err(Malformed)));
        for at in 0..length {
            for byte in [0, 1, 0x7f, 0xff] {
                let mut damaged = payload[..length].to_vec();
                damaged[at] = byte;
                let _ = decode(&damaged, |head| format!("{head:?}"));
            }
        }
    }
}
