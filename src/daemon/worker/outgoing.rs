//! A response on its way: collected while attached, sent in as few calls as possible.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use super::socket::{self, Span};
use crate::daemon::wire::{FileRange, HEADER, Header, Kind, Malformed, flag, reply};
use crate::exchange::memory::Borrowed;
use crate::exchange::response::ResponseHead;

/// A frame carries no more of a body than this.
const LARGEST_PAYLOAD: usize = 16 * 1024 * 1024;
/// Memory above this is not kept for the next request.
const KEPT: usize = 256 * 1024;

/// What stands between the bytes that are collected in the buffer.
enum Foreign {
    Lent(Borrowed),
    File(OwnedFd, FileRange),
}

/// The response of one request after another, in memory that is used again.
#[derive(Default)]
pub struct Outgoing {
    /// Room for a frame's header, the head of the response unless it has been sent, body bytes.
    buffer: Vec<u8>,
    /// Bytes of the buffer before the body.
    head: usize,
    /// What comes before the byte at that place of the buffer.
    foreign: Vec<(usize, Foreign)>,
    /// The response has a head, which has not been sent.
    has_head: bool,
}

/// What is sent one after another: memory, or a file.
enum Part<'a> {
    Memory(Span),
    File(&'a OwnedFd, FileRange),
}

impl Outgoing {
    /// Forgets everything.
    #[inline]
    pub fn clear(&mut self) {
        self.buffer.clear();
        self.head = 0;
        self.has_head = false;
        if !self.foreign.is_empty() {
            self.foreign.clear();
        }
        if self.buffer.capacity() > KEPT {
            self.buffer = Vec::new();
        }
    }

    /// Sets the head, which has not been sent.
    ///
    /// # Errors
    /// It is too large.
    #[inline]
    pub fn start(&mut self, head: &ResponseHead<'_>) -> Result<(), Malformed> {
        let body = self.buffer.split_off(self.head);
        let old = self.head;
        self.buffer.clear();
        reply::encode(head, &mut self.buffer)?;
        self.head = self.buffer.len();
        self.has_head = true;
        if !body.is_empty() {
            self.buffer.extend_from_slice(&body);
        }
        for (place, _) in &mut self.foreign {
            *place = *place - old + self.head;
        }
        Ok(())
    }

    #[inline]
    fn make_room_for_header(&mut self) {
        if self.buffer.is_empty() {
            self.buffer.extend_from_slice(&[0; HEADER]);
            self.head = HEADER;
        }
    }

    /// Adds body bytes.
    #[inline]
    pub fn append(&mut self, data: &[u8]) {
        self.make_room_for_header();
        self.buffer.extend_from_slice(data);
    }

    /// Adds body bytes that are lent until [`send`](Self::send).
    pub fn append_borrowed(&mut self, data: Borrowed) {
        self.make_room_for_header();
        if !data.is_empty() {
            self.foreign.push((self.buffer.len(), Foreign::Lent(data)));
        }
    }

    /// Adds a range of a file.
    pub fn append_file(&mut self, fd: OwnedFd, range: FileRange) {
        self.make_room_for_header();
        if range.length > 0 {
            self.foreign
                .push((self.buffer.len(), Foreign::File(fd, range)));
        }
    }

    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// The whole of it as one frame, if it is small and in one piece: the usual case.
    #[inline]
    pub fn as_one_frame(&mut self, flags: u8, load: u16) -> Option<&[u8]> {
        if !self.foreign.is_empty() || self.buffer.len() > LARGEST_PAYLOAD {
            return None;
        }
        self.make_room_for_header();
        self.fill_header(0, flags, load);
        Some(&self.buffer)
    }

    #[inline]
    fn fill_header(&mut self, more: usize, flags: u8, load: u16) {
        if self.has_head {
            reply::finish(&mut self.buffer, more, flags, load);
        } else {
            let length = (self.buffer.len() - HEADER + more) as u32;
            let header = Header {
                flags,
                aux: load,
                ..Header::new(Kind::Data, length)
            };
            self.buffer[..HEADER].copy_from_slice(&header.encode());
        }
    }

    /// Sends everything as one frame or several, of which the last has `last` added to its flags
    /// and goes to the socket that `last_socket` gives. Blocks.
    ///
    /// # Errors
    /// The socket's.
    pub fn send_frames(
        &mut self,
        fd: i32,
        flags: u8,
        last: u8,
        load: u16,
        last_socket: impl FnOnce() -> i32,
    ) -> io::Result<()> {
        self.make_room_for_header();
        let mut parts = self.parts();
        // The head and its frame header are the first part's first bytes.
        let mut kind = if self.has_head {
            Kind::Reply
        } else {
            Kind::Data
        };
        let mut spans = Vec::new();
        let mut last_socket = Some(last_socket);
        let mut socket_for = |is_last: bool| match last_socket.take_if(|_| is_last) {
            Some(socket) => (socket(), flags | last),
            None => (fd, flags),
        };
        let mut parts = parts.drain(..).peekable();
        while let Some(part) = parts.next() {
            match part {
                Part::File(file, range) => {
                    let (socket, flags) = socket_for(parts.peek().is_none());
                    let frame = range.encode(flags, load);
                    socket::send_with_descriptor(socket, &frame, file.as_raw_fd())?;
                }
                Part::Memory(span) => {
                    spans.clear();
                    let mut length = span.length;
                    spans.push(span);
                    while let Some(Part::Memory(next)) = parts.next_if(
                        |next| matches!(next, Part::Memory(next) if length + next.length <= LARGEST_PAYLOAD),
                    ) {
                        length += next.length;
                        spans.push(next);
                    }
                    let (socket, flags) = socket_for(parts.peek().is_none());
                    let header = Header {
                        flags,
                        aux: load,
                        ..Header::new(kind, length as u32)
                    };
                    kind = Kind::Data;
                    let header = header.encode();
                    spans.insert(0, Span::of(&header));
                    // SAFETY: the buffer and what was lent are valid until this returns.
                    unsafe { socket::send_spans(socket, &spans)? };
                }
            }
        }
        Ok(())
    }

    /// The head and the body in pieces of at most [`LARGEST_PAYLOAD`], without the frame's header.
    /// There is at least one.
    fn parts(&self) -> Vec<Part<'_>> {
        let mut parts = Vec::with_capacity(2 * self.foreign.len() + 1);
        let memory = |parts: &mut Vec<Part<'_>>, start: *const u8, length: usize| {
            let mut done = 0;
            while done < length {
                let piece = (length - done).min(LARGEST_PAYLOAD);
                parts.push(Part::Memory(Span {
                    start: start.wrapping_add(done),
                    length: piece,
                }));
                done += piece;
            }
        };
        let mut place = HEADER;
        for (next, foreign) in &self.foreign {
            let own = &self.buffer[place..*next];
            memory(&mut parts, own.as_ptr(), own.len());
            place = *next;
            match foreign {
                Foreign::Lent(data) => memory(&mut parts, data.as_ptr(), data.len()),
                Foreign::File(file, range) => parts.push(Part::File(file, *range)),
            }
        }
        let own = &self.buffer[place..];
        memory(&mut parts, own.as_ptr(), own.len());
        if parts.is_empty() {
            parts.push(Part::Memory(Span::of(&[])));
        }
        parts
    }

    /// Everything has been sent.
    #[inline]
    pub fn sent(&mut self) {
        self.clear();
    }
}

/// The frame that ends a response which has been sent already.
pub fn end_frame(bad: bool, flags: u8, load: u16) -> [u8; HEADER] {
    let header = Header {
        flags: flags | flag::END | if bad { flag::BAD } else { 0 },
        aux: load,
        ..Header::new(Kind::Data, 0)
    };
    header.encode()
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::exchange::{Slice, Text};

    fn head(status: u16) -> ResponseHead<'static> {
        ResponseHead {
            status,
            status_line: Text::new(b"200 OK"),
            headers: Slice::new(&[]),
            content_length: -1,
        }
    }

    /// The frames in `bytes`: header, body bytes.
    fn frames(mut bytes: &[u8]) -> Vec<(Header, Vec<u8>)> {
        let mut frames = Vec::new();
        while let Some(header) = Header::peek(bytes) {
            let header = header.unwrap();
            let end = HEADER + header.length as usize;
            let payload = &bytes[HEADER..end];
            let skip = match header.kind {
                Kind::Reply => reply::head_length(payload).unwrap().unwrap(),
                _ => 0,
            };
            frames.push((header, payload[skip..].to_vec()));
            bytes = &bytes[end..];
        }
        assert!(bytes.is_empty());
        frames
    }

    fn sent(outgoing: &mut Outgoing) -> Vec<(Header, Vec<u8>)> {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let reader = std::thread::spawn(move || {
            let mut all = Vec::new();
            theirs.read_to_end(&mut all).unwrap();
            all
        });
        let fd = ours.as_raw_fd();
        outgoing.send_frames(fd, 0, flag::END, 3, || fd).unwrap();
        drop(ours);
        frames(&reader.join().unwrap())
    }

    #[test]
    fn a_small_response_is_one_frame() {
        let mut outgoing = Outgoing::default();
        outgoing.start(&head(200)).unwrap();
        outgoing.append(b"one");
        // start_response again, with exc_info: the body stays.
        outgoing.start(&head(500)).unwrap();
        outgoing.append(b"two");
        let bytes = outgoing.as_one_frame(flag::END, 7).unwrap().to_vec();
        let all = frames(&bytes);
        assert_eq!(all.len(), 1);
        assert_eq!((all[0].0.kind, all[0].0.aux), (Kind::Reply, 7));
        assert_eq!(all[0].1, b"onetwo");
        outgoing.sent();
        outgoing.append(b"more");
        let bytes = outgoing.as_one_frame(flag::FLUSH, 7).unwrap().to_vec();
        assert_eq!(frames(&bytes)[0].1, b"more");
        assert_eq!(frames(&bytes)[0].0.kind, Kind::Data);
    }

    #[test]
    fn lent_memory_keeps_its_place() {
        let mut outgoing = Outgoing::default();
        let lent = vec![b'l'; 100_000];
        outgoing.start(&head(200)).unwrap();
        outgoing.append(b"a");
        outgoing.append_borrowed(Borrowed::new(&lent));
        outgoing.append(b"b");
        outgoing.start(&head(200)).unwrap();
        assert!(outgoing.as_one_frame(0, 0).is_none());
        let all = sent(&mut outgoing);
        assert_eq!(all.len(), 1);
        assert_eq!(all[0].1, [b"a", &lent[..], b"b"].concat());
        assert!(all[0].0.has(flag::END));
    }

    #[test]
    fn huge_bodies_are_several_frames_of_which_the_last_ends() {
        let mut outgoing = Outgoing::default();
        let lent = vec![b'l'; 2 * LARGEST_PAYLOAD + 5];
        outgoing.start(&head(200)).unwrap();
        outgoing.append_borrowed(Borrowed::new(&lent));
        let all = sent(&mut outgoing);
        assert!(all.len() > 2);
        assert_eq!(
            all.iter().map(|(_, body)| body.len()).sum::<usize>(),
            lent.len()
        );
        for (index, (header, _)) in all.iter().enumerate() {
            assert_eq!(header.has(flag::END), index == all.len() - 1);
            let kind = if index == 0 { Kind::Reply } else { Kind::Data };
            assert_eq!(header.kind, kind);
        }
    }

    #[test]
    fn files_are_frames_of_their_own() {
        let mut outgoing = Outgoing::default();
        let file = std::fs::File::open("/dev/null").unwrap();
        outgoing.start(&head(200)).unwrap();
        let range = FileRange {
            offset: 3,
            length: 9,
        };
        outgoing.append_file(file.into(), range);
        let all = sent(&mut outgoing);
        let kinds: Vec<Kind> = all.iter().map(|(header, _)| header.kind).collect();
        assert_eq!(kinds, [Kind::Reply, Kind::File]);
        assert!(!all[0].0.has(flag::END) && all[1].0.has(flag::END));
    }
}
