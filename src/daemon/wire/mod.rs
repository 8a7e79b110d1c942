//! The frames between an httpd child (the client) and a worker, on a UNIX stream socket.
//!
//! A frame is a [`Header`] of 8 bytes and its payload; all numbers are little endian. A connection
//! serves one request at a time and holds no state between two.
//!
//! | type | direction | payload | aux |
//! |---|---|---|---|
//! | [`Kind::Request`] | to the worker | see [`request`]; may end with the whole body or its beginning | [`VERSION`] |
//! | [`Kind::Body`] | to the worker | body bytes | |
//! | [`Kind::BodyFailed`] | to the worker | none: the client's body is lost | HTTP status |
//! | [`Kind::Read`] | to the client | `u32` bytes that the worker waits for, `u32` bytes that it takes at most | |
//! | [`Kind::Reply`] | to the client | head (see [`reply`]), then body bytes | load |
//! | [`Kind::Data`] | to the client | body bytes | load |
//! | [`Kind::File`] | to the client | `u64` offset, `u64` length; the descriptor rides on the frame's first byte (`SCM_RIGHTS`) | load |
//! | [`Kind::Status`] | to the client | none: the server shall answer with this error status | HTTP status |
//! | [`Kind::Log`] | to the client | a line of the error log; with [`flag::SOURCE`] see [`LogLine`] | level |
//! | [`Kind::GoAway`] | to the client | none: nothing on this connection will be started any more | |
//! | [`Kind::Retry`] | to the client | none: this request was not started | a [`Refused`] |
//! | [`Kind::Interim`] | to the client | as REPLY, without body: a response before the response (status 102 to 199) | |
//! | [`Kind::Trailers`] | to the client | as REPLY, without body: fields that follow the body; several may come, before END | |
//! | [`Kind::Switch`] | to the client | as REPLY, without body: 101, the connection becomes a tunnel | |
//!
//! # Rules
//!
//! * The client sends a whole REQUEST and then nothing until it has got a READ; it answers a READ
//!   with BODY frames, of which the last has [`flag::GRANT_DONE`] or [`flag::END`] (the body is
//!   complete), or with BODY_FAILED, and again sends nothing. It blocks for its own client only
//!   until `wanted` bytes have been sent; beyond that it sends what has already arrived.
//! * The worker acts on a REQUEST only when the whole frame is in its memory.
//! * The frame that ends the reply has [`flag::END`]; with [`flag::BAD`] the response is cut short
//!   and the end user must see that. [`flag::CLOSE`]: the sender closes after this frame. `aux` of
//!   the frame with END is the number of threads that are busy in the worker.
//! * LOG may come at any time between REQUEST and END, and counts as a sign that the request has
//!   been started.
//! * After SWITCH the client sends what comes from the end user as it is, without frames, and the
//!   worker DATA and LOG frames, each DATA with whole messages of the new protocol, until a DATA with
//!   END. The end of the connection without END: the worker has died. The client closes its side
//!   when the end user has gone.
//! * A worker that serves ASGI takes the end of the connection before the end of the reply for the
//!   end of the end user.
//! * What the end of a connection means is decided by the client alone; see `reference` in
//!   `docs/daemon.md`: before any byte of an answer, EPIPE and ECONNRESET, GOAWAY and RETRY mean
//!   "not started", EOF means "may have been started".

#![forbid(unsafe_code)]

pub mod reply;
pub mod request;

/// The version of this protocol; travels in the `aux` of every REQUEST.
pub const VERSION: u16 = 3;

/// Bytes of a [`Header`].
pub const HEADER: usize = 8;

/// No frame is larger; a larger length is a protocol error.
pub const LARGEST: u32 = 64 * 1024 * 1024;

/// No REQUEST is larger, its inline body included: httpd's own limits are far below.
pub const LARGEST_REQUEST: u32 = 4 * 1024 * 1024;

/// A body up to this size that has arrived when the request is sent rides on the REQUEST.
pub const INLINE_BODY: usize = 16 * 1024;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A request.
    Request = 1,
    /// Bytes of its body.
    Body = 2,
    /// Its body cannot be read.
    BodyFailed = 3,
    /// The worker wants body bytes.
    Read = 16,
    /// The head of the response and body bytes.
    Reply = 17,
    /// Further body bytes.
    Data = 18,
    /// A range of a file as body.
    File = 19,
    /// No response: an error status.
    Status = 20,
    /// A line of the log.
    Log = 21,
    /// The connection is of no more use.
    GoAway = 22,
    /// The request was not started.
    Retry = 23,
    /// A response before the response.
    Interim = 24,
    /// The connection becomes a tunnel.
    Switch = 25,
    /// Fields behind the body of the response.
    Trailers = 26,
}

impl Kind {
    /// From the number on the wire.
    pub fn from_number(number: u8) -> Option<Kind> {
        Some(match number {
            1 => Kind::Request,
            2 => Kind::Body,
            3 => Kind::BodyFailed,
            16 => Kind::Read,
            17 => Kind::Reply,
            18 => Kind::Data,
            19 => Kind::File,
            20 => Kind::Status,
            21 => Kind::Log,
            22 => Kind::GoAway,
            23 => Kind::Retry,
            24 => Kind::Interim,
            25 => Kind::Switch,
            26 => Kind::Trailers,
            _ => return None,
        })
    }
}

/// Bits of [`Header::flags`].
pub mod flag {
    /// BODY: the body is complete. REPLY, DATA, FILE, STATUS: the response is.
    pub const END: u8 = 1;
    /// The sender closes the connection after this frame.
    pub const CLOSE: u8 = 2;
    /// With END: the response is cut short.
    pub const BAD: u8 = 4;
    /// REPLY, DATA, FILE: must reach the end user now; without it the server may buffer.
    pub const FLUSH: u8 = 8;
    /// BODY: the READ is answered, the body goes on.
    pub const GRANT_DONE: u8 = 16;
    /// LOG: the payload says where in a program the line was made.
    pub const SOURCE: u8 = 32;
}

/// Why a request was not started: `aux` of RETRY.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Refused {
    /// The worker is about to end; send it again.
    Draining = 0,
    /// The worker speaks another version of this protocol; its number is no secret, but this
    /// client cannot use it.
    Version = 1,
    /// The request waited longer than queue-timeout.
    QueueTimeout = 2,
    /// The frame could not be understood.
    Malformed = 3,
    /// The peer is not the user who may connect.
    Forbidden = 4,
}

impl Refused {
    /// From the number on the wire.
    pub fn from_number(number: u16) -> Option<Refused> {
        Some(match number {
            0 => Refused::Draining,
            1 => Refused::Version,
            2 => Refused::QueueTimeout,
            3 => Refused::Malformed,
            4 => Refused::Forbidden,
            _ => return None,
        })
    }
}

/// What every frame begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Bytes of the payload.
    pub length: u32,
    /// What it is.
    pub kind: Kind,
    /// See [`flag`].
    pub flags: u8,
    /// See the table of frames.
    pub aux: u16,
}

/// Bytes that are no frame of this protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

impl Header {
    /// A header with neither flags nor aux.
    pub const fn new(kind: Kind, length: u32) -> Header {
        Header {
            length,
            kind,
            flags: 0,
            aux: 0,
        }
    }

    /// As on the wire.
    #[inline]
    pub fn encode(self) -> [u8; HEADER] {
        let [a, b, c, d] = self.length.to_le_bytes();
        let [e, f] = self.aux.to_le_bytes();
        [a, b, c, d, self.kind as u8, self.flags, e, f]
    }

    /// From the wire.
    #[inline]
    pub fn decode(bytes: [u8; HEADER]) -> Result<Header, Malformed> {
        let [a, b, c, d, kind, flags, e, f] = bytes;
        let length = u32::from_le_bytes([a, b, c, d]);
        let kind = Kind::from_number(kind).ok_or(Malformed)?;
        let largest = match kind {
            Kind::Request => LARGEST_REQUEST,
            _ => LARGEST,
        };
        if length > largest {
            return Err(Malformed);
        }
        Ok(Header {
            length,
            kind,
            flags,
            aux: u16::from_le_bytes([e, f]),
        })
    }

    /// The header at the beginning of `bytes`; `None` if there are too few.
    #[inline]
    pub fn peek(bytes: &[u8]) -> Option<Result<Header, Malformed>> {
        bytes.first_chunk().map(|first| Header::decode(*first))
    }

    /// Whether a bit of [`flag`] is set.
    #[inline]
    pub fn has(self, bit: u8) -> bool {
        self.flags & bit != 0
    }
}

/// Takes values from the front of a payload.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    #[inline]
    pub(super) fn bytes(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    #[inline]
    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (taken, rest) = self.0.split_first_chunk::<N>().ok_or(Malformed)?;
        self.0 = rest;
        Ok(*taken)
    }

    #[inline]
    pub(super) fn u8(&mut self) -> Result<u8, Malformed> {
        self.array::<1>().map(|[byte]| byte)
    }

    #[inline]
    pub(super) fn u16(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_le_bytes)
    }

    #[inline]
    pub(super) fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_le_bytes)
    }

    #[inline]
    pub(super) fn i64(&mut self) -> Result<i64, Malformed> {
        self.array().map(i64::from_le_bytes)
    }
}

/// The payload of READ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Read {
    /// Bytes that the worker waits for; at least 1.
    pub wanted: u32,
    /// Bytes that it takes at most; at least `wanted`.
    pub limit: u32,
}

impl Read {
    /// The whole frame.
    pub fn encode(self) -> [u8; HEADER + 8] {
        let mut frame = [0; HEADER + 8];
        frame[..HEADER].copy_from_slice(&Header::new(Kind::Read, 8).encode());
        frame[HEADER..HEADER + 4].copy_from_slice(&self.wanted.to_le_bytes());
        frame[HEADER + 4..].copy_from_slice(&self.limit.to_le_bytes());
        frame
    }

    /// From the payload.
    pub fn decode(payload: &[u8]) -> Result<Read, Malformed> {
        let mut reader = Reader(payload);
        let (wanted, limit) = (reader.u32()?, reader.u32()?);
        if !reader.0.is_empty() || wanted == 0 || limit < wanted {
            return Err(Malformed);
        }
        Ok(Read { wanted, limit })
    }
}

/// The payload of LOG with [`flag::SOURCE`]: `u32` line number, `u16` length of the file's name, the
/// name, and then the line itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogLine<'a> {
    /// The file; what is longer than 65535 bytes is cut.
    pub file: &'a [u8],
    /// The number of the line there.
    pub number: u32,
    /// What is to be logged.
    pub line: &'a [u8],
}

impl<'a> LogLine<'a> {
    /// The payload.
    pub fn encode(self) -> Vec<u8> {
        let length = u16::try_from(self.file.len()).unwrap_or(u16::MAX);
        let file = &self.file[..usize::from(length)];
        let number = self.number.to_le_bytes();
        [&number[..], &length.to_le_bytes(), file, self.line].concat()
    }

    /// From the payload.
    pub fn decode(payload: &'a [u8]) -> Result<LogLine<'a>, Malformed> {
        let mut reader = Reader(payload);
        let number = reader.u32()?;
        let length = reader.u16()?;
        let file = reader.bytes(usize::from(length))?;
        Ok(LogLine {
            file,
            number,
            line: reader.0,
        })
    }
}

/// The payload of FILE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileRange {
    /// Where the range begins.
    pub offset: u64,
    /// How long it is.
    pub length: u64,
}

impl FileRange {
    /// The whole frame.
    pub fn encode(self, flags: u8, aux: u16) -> [u8; HEADER + 16] {
        let header = Header {
            flags,
            aux,
            ..Header::new(Kind::File, 16)
        };
        let mut frame = [0; HEADER + 16];
        frame[..HEADER].copy_from_slice(&header.encode());
        frame[HEADER..HEADER + 8].copy_from_slice(&self.offset.to_le_bytes());
        frame[HEADER + 8..].copy_from_slice(&self.length.to_le_bytes());
        frame
    }

    /// From the payload.
    pub fn decode(payload: &[u8]) -> Result<FileRange, Malformed> {
        let mut reader = Reader(payload);
        let offset = u64::from_le_bytes(reader.array()?);
        let length = u64::from_le_bytes(reader.array()?);
        if !reader.0.is_empty() {
            return Err(Malformed);
        }
        Ok(FileRange { offset, length })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_survive_the_wire() {
        for number in 0..=255 {
            let Some(kind) = Kind::from_number(number) else {
                let bytes = [0, 0, 0, 0, number, 0, 0, 0];
                assert_eq!(Header::decode(bytes), Err(Malformed));
                continue;
            };
            let header = Header {
                length: 0x01_0203,
                kind,
                flags: 5,
                aux: 0x1234,
            };
            assert_eq!(Header::decode(header.encode()), Ok(header));
        }
    }

    #[test]
    fn lengths_are_bounded() {
        let header = Header::new(Kind::Request, LARGEST_REQUEST + 1);
        assert_eq!(Header::decode(header.encode()), Err(Malformed));
        let header = Header::new(Kind::Data, LARGEST + 1);
        assert_eq!(Header::decode(header.encode()), Err(Malformed));
        assert_eq!(Header::peek(&[0; 7]), None);
    }

    #[test]
    fn small_payloads() {
        let read = Read {
            wanted: 1,
            limit: 65536,
        };
        assert_eq!(Read::decode(&read.encode()[HEADER..]), Ok(read));
        assert_eq!(Read::decode(&[0; 8]), Err(Malformed));
        assert_eq!(Read::decode(&[0; 7]), Err(Malformed));
        let line = LogLine {
            file: b"/srv/app.py",
            number: 12,
            line: b"text",
        };
        let payload = line.encode();
        assert_eq!(LogLine::decode(&payload), Ok(line));
        assert_eq!(LogLine::decode(&payload[..8]), Err(Malformed));
        assert_eq!(LogLine::decode(&payload[..5]), Err(Malformed));
        let long = LogLine {
            file: &[b'x'; 70_000],
            ..line
        };
        let payload = long.encode();
        let decoded = LogLine::decode(&payload).unwrap();
        assert_eq!((decoded.file.len(), decoded.line), (65_535, &b"text"[..]));
        let range = FileRange {
            offset: 1 << 40,
            length: 17,
        };
        assert_eq!(FileRange::decode(&range.encode(0, 0)[HEADER..]), Ok(range));
    }
}
