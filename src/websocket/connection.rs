//! A connection after the handshake: bytes in, events and bytes out.

use std::io::Cursor;

use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use super::close::{self, Failure, LARGEST_CONTROL};
use super::{Deflate, deflate, mask};

/// The longest header of a client's frame.
const LONGEST_HEADER: usize = 14;

/// From so many unsent bytes on, pings wait for their answer, and only the latest gets one.
const CROWDED: usize = 16 * 1024;

/// Messages below this are not compressed: they are one segment as they are, and hardly shrink, while
/// each costs ten microseconds.
const WORTH_COMPRESSING: usize = 128;

/// What a client may ask of us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The largest message in bytes, when inflated. A larger one fails the connection with 1009, as soon
    /// as its size is known.
    pub max_message: usize,
}

/// What the client has said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A text message.
    Text(String),
    /// A binary message.
    Binary(Vec<u8>),
    /// The client has pinged, and is answered. Said at most once per call of
    /// [`receive`](Connection::receive).
    Ping,
    /// A pong, asked for or not.
    Pong(Vec<u8>),
    /// The client has closed. Our close frame is sent or in `out`: the TCP connection is to be closed
    /// when that has been sent. The last event.
    Closed {
        /// Its code; 1005 if it gave none.
        code: u16,
        /// Its reason, often empty.
        reason: String,
    },
    /// The client has broken a rule. A close frame that says so is in `out`, unless one was sent
    /// before: the TCP connection is to be closed when that has been sent. The last event.
    Failed {
        /// 1002, 1007 or 1009.
        code: u16,
        /// For the log; the close frame has it too.
        reason: &'static str,
    },
}

/// The state of the protocol on one connection. Knows nothing of sockets.
///
/// `out` of all methods is where bytes for the client are appended, whole frames only. The caller may
/// take them away at any time. If it keeps them elsewhere until the client takes them, it says how
/// many there are ([`set_unsent`](Self::set_unsent)): then pings to which the client does not take the
/// answers cost no memory.
#[derive(Debug)]
pub struct Connection {
    max_message: usize,
    deflate: Option<Deflate>,
    /// Our close frame has been written.
    closing: bool,
    /// Nothing more is expected of the client.
    over: bool,
    /// The beginning of a header.
    header: [u8; LONGEST_HEADER],
    header_length: u8,
    /// The frame whose payload is arriving.
    frame: Option<Frame>,
    /// The message whose frames are arriving.
    message: Option<Message>,
    /// The payload of the control frame that is arriving.
    control: [u8; LARGEST_CONTROL],
    control_length: u8,
    /// The payload of the ping that waits for room.
    ping: Option<Box<[u8]>>,
    /// Bytes for the client that are no longer in `out`.
    unsent: usize,
}

#[derive(Clone, Copy, Debug)]
struct Frame {
    kind: Kind,
    /// Begins with the byte for the next byte of payload.
    mask: [u8; 4],
    left: usize,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    /// Of the message that is arriving.
    Data {
        last: bool,
    },
    Close,
    Ping,
    Pong,
}

#[derive(Debug)]
struct Message {
    text: bool,
    compressed: bool,
    /// Unmasked. Empty once we have closed: nobody wants it.
    bytes: Vec<u8>,
    /// How many of the bytes are known to be whole characters; of text that is not compressed.
    valid: usize,
}

impl Message {
    /// Checks the text as far as it has come.
    fn check(&mut self) -> Result<(), Failure> {
        if !self.text || self.compressed {
            return Ok(());
        }
        match core::str::from_utf8(&self.bytes[self.valid..]) {
            Ok(_) => self.valid = self.bytes.len(),
            // The rest may be the start of a character.
            Err(error) if error.error_len().is_none() => self.valid += error.valid_up_to(),
            Err(_) => return Err(NOT_UTF8),
        }
        Ok(())
    }

    /// The message is complete.
    fn finish(self, max_message: usize) -> Result<Event, Failure> {
        let bytes = if self.compressed {
            deflate::inflate(self.bytes, max_message)?
        } else {
            self.bytes
        };
        if self.text {
            String::from_utf8(bytes)
                .map(Event::Text)
                .map_err(|_| NOT_UTF8)
        } else {
            Ok(Event::Binary(bytes))
        }
    }
}

const NOT_UTF8: Failure = Failure::data("text is not UTF-8");

impl Connection {
    /// A connection whose handshake is complete. `deflate` is what
    /// [`Offer::accept`](super::handshake::Offer::accept) gave.
    pub fn new(limits: Limits, deflate: Option<Deflate>) -> Self {
        Connection {
            max_message: limits.max_message,
            deflate,
            closing: false,
            over: false,
            header: [0; LONGEST_HEADER],
            header_length: 0,
            frame: None,
            message: None,
            control: [0; LARGEST_CONTROL],
            control_length: 0,
            ping: None,
            unsent: 0,
        }
    }

    /// Takes bytes from the client, all of them: how they are cut makes no difference.
    ///
    /// Appends the answers that the protocol demands (to pings, to a close) to `out` and what has been said
    /// to `events`, no more than one per six bytes. After [`Event::Closed`] or [`Event::Failed`]
    /// everything further is ignored; after [`close`](Self::close) messages and pings are.
    pub fn receive(&mut self, bytes: &[u8], out: &mut Vec<u8>, events: &mut Vec<Event>) {
        let crowded = self.is_crowded(out);
        let mut pinged = false;
        let mut rest = bytes;
        while !rest.is_empty() && !self.over {
            match self.step(&mut rest, out) {
                Ok(None) => {}
                Ok(Some(Event::Ping)) if core::mem::replace(&mut pinged, true) => {}
                Ok(Some(event)) => events.push(event),
                Err(failure) => events.push(self.fail(failure, out)),
            }
        }
        if !crowded {
            self.pong(out);
        }
    }

    /// Says how many bytes that were taken away from `out` have yet to be sent. They count as those in
    /// `out` do: while there are more than 16 KiB, of the client's pings only the latest is answered, and
    /// not before there are fewer.
    ///
    /// To be called before [`receive`](Self::receive) if there are any, and when they have been sent.
    pub fn set_unsent(&mut self, bytes: usize, out: &mut Vec<u8>) {
        self.unsent = bytes;
        if !self.is_crowded(out) {
            self.pong(out);
        }
    }

    /// Sends a text message. Ignored after a close, as the other sending methods are.
    pub fn send_text(&mut self, text: &str, out: &mut Vec<u8>) {
        self.send(Data::Text, text.as_bytes(), out);
    }

    /// Sends a binary message.
    pub fn send_binary(&mut self, data: &[u8], out: &mut Vec<u8>) {
        self.send(Data::Binary, data, out);
    }

    /// Sends a ping with the first 125 bytes of `payload`, which the pong will have.
    pub fn ping(&mut self, payload: &[u8], out: &mut Vec<u8>) {
        if !self.closing {
            let payload = &payload[..payload.len().min(LARGEST_CONTROL)];
            put_control(Control::Ping, payload, out);
        }
    }

    /// Sends a close frame; only the first counts. The client's own then gives [`Event::Closed`].
    ///
    /// A code that may not be sent (see [`is_close_code`](super::is_close_code)) gives a frame without
    /// code and reason; so the client sees 1005. Of the reason, 123 bytes are sent.
    pub fn close(&mut self, code: u16, reason: &str, out: &mut Vec<u8>) {
        if self.closing {
            return;
        }
        put_control(
            Control::Close,
            close::Payload::new(code, reason).as_bytes(),
            out,
        );
        self.closing = true;
        self.ping = None;
        if let Some(message) = &mut self.message {
            message.bytes = Vec::new();
            message.valid = 0;
        }
    }

    /// Whether messages can still be sent: no close frame has been.
    pub fn can_send(&self) -> bool {
        !self.closing
    }

    /// Whether all is said, in both directions: there was [`Event::Closed`] or [`Event::Failed`].
    pub fn is_closed(&self) -> bool {
        self.over
    }

    fn send(&mut self, kind: Data, message: &[u8], out: &mut Vec<u8>) {
        if self.closing {
            return;
        }
        let start = out.len();
        let compressed = message.len() >= WORTH_COMPRESSING
            && self
                .deflate
                .is_some_and(|deflate| deflate::compress(message, deflate.window_bits(), out));
        let header = FrameHeader {
            opcode: OpCode::Data(kind),
            rsv1: compressed,
            ..FrameHeader::default()
        };
        if compressed {
            // Now its length is known.
            let mut head = [0; LONGEST_HEADER];
            let length = out.len() - start;
            let mut unused = &mut head[..];
            put_header(&header, length, &mut unused);
            let used = LONGEST_HEADER - unused.len();
            out.splice(start..start, head[..used].iter().copied());
        } else {
            out.reserve(LONGEST_HEADER + message.len());
            put_header(&header, message.len(), out);
            out.extend_from_slice(message);
        }
    }

    fn is_crowded(&self, out: &[u8]) -> bool {
        self.unsent.saturating_add(out.len()) > CROWDED
    }

    /// Answers the ping that waits.
    fn pong(&mut self, out: &mut Vec<u8>) {
        if let Some(payload) = self.ping.take() {
            put_control(Control::Pong, &payload, out);
        }
    }

    fn fail(&mut self, failure: Failure, out: &mut Vec<u8>) -> Event {
        self.close(failure.code, failure.reason, out);
        self.end();
        Event::Failed {
            code: failure.code,
            reason: failure.reason,
        }
    }

    fn end(&mut self) {
        self.over = true;
        self.frame = None;
        self.message = None;
        self.ping = None;
    }

    /// Takes at most the rest of one frame off `bytes`.
    fn step(&mut self, bytes: &mut &[u8], out: &mut Vec<u8>) -> Result<Option<Event>, Failure> {
        let mut frame = match self.frame.take() {
            Some(frame) => frame,
            None => match self.next_header(bytes)? {
                Some((header, length)) => self.admit(&header, length)?,
                None => return Ok(None),
            },
        };
        let (piece, rest) = bytes.split_at(bytes.len().min(frame.left));
        *bytes = rest;
        match frame.kind {
            Kind::Data { last } => self.take_data(piece, frame, last)?,
            _ => self.take_control(piece, frame.mask),
        }
        frame.left -= piece.len();
        frame.mask.rotate_left(piece.len() % 4);
        if frame.left > 0 {
            self.frame = Some(frame);
            return Ok(None);
        }
        match frame.kind {
            Kind::Data { last: false } => Ok(None),
            Kind::Data { last: true } => self.finish_message(),
            Kind::Close | Kind::Ping | Kind::Pong => self.finish_control(frame.kind, out),
        }
    }

    /// The header of the next frame and the length of its payload, once they are complete.
    fn next_header(&mut self, bytes: &mut &[u8]) -> Result<Option<(FrameHeader, u64)>, Failure> {
        let kept = usize::from(self.header_length);
        if kept == 0 {
            if let Some((header, length, size)) = read_header(bytes)? {
                *bytes = &bytes[size..];
                return Ok(Some((header, length)));
            }
        }
        let (more, _) = bytes.split_at(bytes.len().min(LONGEST_HEADER - kept));
        let all = kept + more.len();
        self.header[kept..all].copy_from_slice(more);
        if let Some((header, length, size)) = read_header(&self.header[..all])? {
            *bytes = &bytes[size - kept..];
            self.header_length = 0;
            return Ok(Some((header, length)));
        }
        // So it is shorter than the longest, and all of `bytes` is in it.
        *bytes = &[];
        self.header_length = all as u8;
        Ok(None)
    }

    /// Checks what the header of a frame says.
    fn admit(&mut self, header: &FrameHeader, length: u64) -> Result<Frame, Failure> {
        if header.rsv2 || header.rsv3 {
            return Err(Failure::protocol("reserved bit"));
        }
        let Some(mask) = header.mask else {
            return Err(Failure::protocol("frame without a mask"));
        };
        if length >> 63 != 0 {
            return Err(Failure::protocol("invalid length"));
        }
        let (kind, largest) = match header.opcode {
            OpCode::Control(control) => (control_kind(control, header, length)?, LARGEST_CONTROL),
            OpCode::Data(data) => {
                let last = header.is_final;
                (Kind::Data { last }, self.admit_data(data, header)?)
            }
        };
        match usize::try_from(length) {
            Ok(left) if left <= largest => Ok(Frame { kind, mask, left }),
            _ => Err(Failure::TOO_BIG),
        }
    }

    /// How many bytes the data frame may have.
    fn admit_data(&mut self, data: Data, header: &FrameHeader) -> Result<usize, Failure> {
        let message = match (data, &self.message) {
            (Data::Continue, Some(message)) => {
                if header.rsv1 {
                    return Err(Failure::protocol("reserved bit"));
                }
                message
            }
            (Data::Text | Data::Binary, None) => {
                if header.rsv1 && self.deflate.is_none() {
                    return Err(Failure::protocol("reserved bit"));
                }
                self.message.insert(Message {
                    text: data == Data::Text,
                    compressed: header.rsv1,
                    bytes: Vec::new(),
                    valid: 0,
                })
            }
            (Data::Continue, None) => {
                return Err(Failure::protocol("continuation of no message"));
            }
            (Data::Text | Data::Binary, Some(_)) => {
                return Err(Failure::protocol("message within a message"));
            }
            (Data::Reserved(_), _) => return Err(Failure::protocol("reserved opcode")),
        };
        let largest = if message.compressed {
            // What does not shrink grows a little.
            self.max_message
                .saturating_add(self.max_message / 16)
                .saturating_add(64)
        } else {
            self.max_message
        };
        Ok(largest.saturating_sub(message.bytes.len()))
    }

    fn take_data(&mut self, piece: &[u8], frame: Frame, last: bool) -> Result<(), Failure> {
        if self.closing {
            return Ok(());
        }
        let Some(message) = &mut self.message else {
            return Ok(());
        };
        let bytes = &mut message.bytes;
        if bytes.capacity() - bytes.len() < piece.len() {
            // As bytes arrive, since a length is easily promised; and no more than it.
            let doubled = piece.len().max(bytes.len());
            bytes.reserve_exact(if last {
                doubled.min(frame.left)
            } else {
                doubled
            });
        }
        let start = bytes.len();
        bytes.extend_from_slice(piece);
        mask::apply(&mut bytes[start..], frame.mask);
        if last && piece.len() == frame.left {
            // It is about to be checked as a whole.
            return Ok(());
        }
        message.check()
    }

    fn finish_message(&mut self) -> Result<Option<Event>, Failure> {
        match self.message.take() {
            Some(message) if !self.closing => message.finish(self.max_message).map(Some),
            _ => Ok(None),
        }
    }

    fn take_control(&mut self, piece: &[u8], mask: [u8; 4]) {
        let start = usize::from(self.control_length);
        let end = start + piece.len();
        self.control[start..end].copy_from_slice(piece);
        mask::apply(&mut self.control[start..end], mask);
        self.control_length = end as u8;
    }

    fn finish_control(&mut self, kind: Kind, out: &mut Vec<u8>) -> Result<Option<Event>, Failure> {
        let length = usize::from(core::mem::take(&mut self.control_length));
        let payload = &self.control[..length];
        match kind {
            Kind::Pong => Ok(Some(Event::Pong(payload.to_vec()))),
            Kind::Close => {
                let (code, reason) = close::read(payload)?;
                let reason = reason.to_owned();
                self.close(code, &reason, out);
                self.end();
                Ok(Some(Event::Closed { code, reason }))
            }
            _ if self.closing => Ok(None),
            _ => {
                if self.is_crowded(out) {
                    self.ping = Some(payload.into());
                } else {
                    put_control(Control::Pong, payload, out);
                }
                Ok(Some(Event::Ping))
            }
        }
    }
}

/// The header that `bytes` start with, the length of the payload and its own.
fn read_header(bytes: &[u8]) -> Result<Option<(FrameHeader, u64, usize)>, Failure> {
    let mut cursor = Cursor::new(bytes);
    match FrameHeader::parse(&mut cursor) {
        Ok(None) => Ok(None),
        Ok(Some((header, length))) => {
            let size = cursor.position() as usize;
            if header.len(length) != size {
                return Err(Failure::protocol("length in too many bytes"));
            }
            Ok(Some((header, length, size)))
        }
        Err(_) => Err(Failure::protocol("reserved opcode")),
    }
}

fn control_kind(control: Control, header: &FrameHeader, length: u64) -> Result<Kind, Failure> {
    if header.rsv1 {
        return Err(Failure::protocol("reserved bit"));
    }
    if !header.is_final {
        return Err(Failure::protocol("fragmented control frame"));
    }
    if length > LARGEST_CONTROL as u64 {
        return Err(Failure::protocol("control frame too long"));
    }
    match control {
        Control::Close => Ok(Kind::Close),
        Control::Ping => Ok(Kind::Ping),
        Control::Pong => Ok(Kind::Pong),
        Control::Reserved(_) => Err(Failure::protocol("reserved opcode")),
    }
}

fn put_control(kind: Control, payload: &[u8], out: &mut Vec<u8>) {
    let header = FrameHeader {
        opcode: OpCode::Control(kind),
        ..FrameHeader::default()
    };
    put_header(&header, payload.len(), out);
    out.extend_from_slice(payload);
}

fn put_header(header: &FrameHeader, length: usize, out: &mut impl std::io::Write) {
    // Only writing can fail, and not to memory with room.
    let _ = header.format(length as u64, out);
}
