//! The frames that a worker sends, taken apart as they arrive.

#![forbid(unsafe_code)]

use core::ops::Range;

use crate::daemon::wire::{HEADER, Header, Kind, Malformed, reply};

/// What is received at once, and what is set aside for it. With a head and what TLS adds it is
/// less than the 64 KiB from which on httpd's network filter blocks.
pub const ROOM: usize = 56 * 1024;

/// Frames other than REPLY and DATA are kept whole until they are complete; so is the head of a
/// REPLY. None may be larger.
pub const LARGEST_KEPT: usize = reply::LARGEST_HEAD + 64;

/// The next piece of what has arrived. Ranges are of [`Incoming::bytes`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The head of a REPLY. Body steps follow.
    Head {
        /// The frame's header.
        header: Header,
        /// The bytes for [`reply::decode`].
        head: Range<usize>,
    },
    /// Body bytes of a REPLY or DATA, possibly none; the frame is complete if `done`.
    Body {
        /// The frame's header.
        header: Header,
        /// The bytes.
        bytes: Range<usize>,
        /// Whether the frame ends with them. Exactly one step of each frame says so.
        done: bool,
    },
    /// Any other frame, whole.
    Frame {
        /// Its header.
        header: Header,
        /// Its payload.
        payload: Range<usize>,
    },
    /// More has to be received.
    More,
}

/// The frame that is being taken apart.
#[derive(Clone, Copy, Debug)]
struct Open {
    header: Header,
    /// Payload bytes that no step has had yet.
    left: usize,
    /// A REPLY whose head has yet to come.
    head: bool,
}

/// A receive buffer and how far it has been taken apart.
#[derive(Debug, Default)]
pub struct Incoming {
    memory: Vec<u8>,
    taken: usize,
    open: Option<Open>,
}

impl Incoming {
    /// Everything is forgotten, the memory kept.
    pub fn reset(&mut self) {
        self.memory.clear();
        self.taken = 0;
        self.open = None;
    }

    /// What the ranges of steps refer to.
    #[inline]
    pub fn bytes(&self, range: Range<usize>) -> &[u8] {
        &self.memory[range]
    }

    /// Where received bytes are appended, up to its capacity.
    #[inline]
    pub fn memory(&mut self) -> &mut Vec<u8> {
        &mut self.memory
    }

    /// How many bytes can be received before [`make_room`](Self::make_room) or
    /// [`replace`](Self::replace) must be called.
    #[inline]
    pub fn room(&self) -> usize {
        self.memory.capacity() - self.memory.len()
    }

    /// Whether all that has been received has been taken apart and no frame is open.
    #[inline]
    pub fn is_between_frames(&self) -> bool {
        self.open.is_none() && self.taken == self.memory.len()
    }

    /// What has been received and not been taken apart.
    pub fn rest(&self) -> &[u8] {
        &self.memory[self.taken..]
    }

    /// How many bytes have been received and not been taken apart.
    #[inline]
    pub fn arrived(&self) -> usize {
        self.memory.len() - self.taken
    }

    /// Payload bytes of a REPLY or DATA frame that are still to be received.
    pub fn body_left(&self) -> usize {
        match self.open {
            Some(open) if is_body(open.header.kind) && !open.head => open.left,
            _ => 0,
        }
    }

    /// How many bytes, from where steps have come to, the next step needs in one piece.
    fn wanted(&self) -> usize {
        let least = match self.open {
            None => HEADER,
            Some(open) if open.head => match reply::head_length(&self.memory[self.taken..]) {
                Some(Ok(length)) => length,
                _ => HEADER,
            },
            Some(open) if is_body(open.header.kind) => 1,
            Some(open) => open.left,
        };
        least.max(HEADER)
    }

    /// Makes room for the next step. Ranges of earlier steps are of no more use.
    pub fn make_room(&mut self) {
        self.memory.drain(..self.taken);
        self.taken = 0;
        let wanted = self.wanted().max(ROOM);
        if self.memory.capacity() < wanted {
            self.memory.reserve_exact(wanted - self.memory.len());
        }
    }

    /// Gives the memory away, with all ranges of earlier steps valid in it, and goes on in
    /// `fresh`.
    pub fn replace(&mut self, mut fresh: Vec<u8>) -> Vec<u8> {
        fresh.clear();
        fresh.extend_from_slice(&self.memory[self.taken..]);
        self.taken = 0;
        core::mem::replace(&mut self.memory, fresh)
    }

    /// The next step.
    ///
    /// # Errors
    /// The bytes are no frame that a worker sends.
    #[inline]
    pub fn step(&mut self) -> Result<Step, Malformed> {
        let mut open = match self.open {
            Some(open) => open,
            None => {
                let Some(header) = Header::peek(&self.memory[self.taken..]) else {
                    return Ok(Step::More);
                };
                let header = header?;
                check(header)?;
                self.taken += HEADER;
                Open {
                    header,
                    left: header.length as usize,
                    head: header.kind == Kind::Reply,
                }
            }
        };
        let step = self.step_in(&mut open);
        self.open = match step {
            Ok(Step::Body { done: true, .. } | Step::Frame { .. }) => None,
            _ => Some(open),
        };
        step
    }

    #[inline]
    fn step_in(&mut self, open: &mut Open) -> Result<Step, Malformed> {
        let start = self.taken;
        let arrived = self.memory.len() - start;
        let take = if open.head {
            let arrived = arrived.min(open.left);
            match reply::head_length(&self.memory[start..start + arrived]) {
                Some(length) => length?,
                None if arrived == open.left => return Err(Malformed),
                None => return Ok(Step::More),
            }
        } else if is_body(open.header.kind) {
            if arrived == 0 && open.left > 0 {
                return Ok(Step::More);
            }
            arrived.min(open.left)
        } else {
            open.left
        };
        if take > open.left {
            return Err(Malformed);
        }
        if take > arrived {
            return Ok(Step::More);
        }
        self.taken += take;
        open.left -= take;
        let range = start..self.taken;
        let header = open.header;
        Ok(if open.head {
            open.head = false;
            Step::Head {
                header,
                head: range,
            }
        } else if is_body(header.kind) {
            Step::Body {
                header,
                bytes: range,
                done: open.left == 0,
            }
        } else {
            Step::Frame {
                header,
                payload: range,
            }
        })
    }
}

#[inline]
fn is_body(kind: Kind) -> bool {
    matches!(kind, Kind::Reply | Kind::Data)
}

fn check(header: Header) -> Result<(), Malformed> {
    match header.kind {
        Kind::Reply | Kind::Data => Ok(()),
        Kind::Request | Kind::Body | Kind::BodyFailed => Err(Malformed),
        Kind::Read
        | Kind::File
        | Kind::Status
        | Kind::Log
        | Kind::GoAway
        | Kind::Retry
        | Kind::Interim
        | Kind::Switch
        | Kind::Trailers => {
            if header.length as usize > LARGEST_KEPT {
                Err(Malformed)
            } else {
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::wire::{FileRange, Read, flag};
    use crate::exchange::response::ResponseHead;
    use crate::exchange::{Pair, Slice};

    /// What a stream of frames says, however it was cut into pieces.
    #[derive(Clone, Debug, PartialEq, Eq)]
    enum Said {
        Head(Vec<u8>),
        /// All body bytes of one frame, and its header.
        Body(Header, Vec<u8>),
        Frame(Header, Vec<u8>),
        Malformed,
    }

    /// Receives `stream` in pieces of the lengths that `next` gives.
    fn read(stream: &[u8], mut next: impl FnMut() -> usize) -> (Vec<Said>, bool) {
        let mut incoming = Incoming::default();
        let mut said = Vec::new();
        let mut body = Vec::new();
        let mut rest = stream;
        loop {
            match incoming.step() {
                Err(Malformed) => {
                    said.push(Said::Malformed);
                    return (said, false);
                }
                Ok(Step::Head { head, .. }) => said.push(Said::Head(incoming.bytes(head).to_vec())),
                Ok(Step::Body {
                    header,
                    bytes,
                    done,
                }) => {
                    body.extend_from_slice(incoming.bytes(bytes));
                    if done {
                        said.push(Said::Body(header, core::mem::take(&mut body)));
                    }
                }
                Ok(Step::Frame { header, payload }) => {
                    said.push(Said::Frame(header, incoming.bytes(payload).to_vec()));
                }
                Ok(Step::More) if rest.is_empty() => {
                    return (said, incoming.is_between_frames());
                }
                Ok(Step::More) => {
                    if incoming.room() == 0 {
                        incoming.make_room();
                    }
                    let count = next().clamp(1, rest.len().min(incoming.room()));
                    let (now, later) = rest.split_at(count);
                    incoming.memory().extend_from_slice(now);
                    rest = later;
                }
            }
        }
    }

    fn put(header: Header, payload: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(&header.encode());
        out.extend_from_slice(payload);
    }

    fn stream() -> Vec<u8> {
        let fields = [Pair {
            name: "X-Field".into(),
            value: "value".into(),
        }; 70];
        let head = ResponseHead {
            status: 200,
            status_line: "200 OK".into(),
            headers: Slice::new(&fields),
            content_length: 12,
        };
        let mut all = Vec::new();
        for body in [&b""[..], b"body bytes", &[7; 100_000]] {
            let mut frame = Vec::new();
            reply::encode(&head, &mut frame).unwrap();
            frame.extend_from_slice(body);
            reply::finish(&mut frame, 0, flag::FLUSH, 3);
            all.extend_from_slice(&frame);
            let line = vec![b'x'; body.len() / 3];
            let log = Header {
                aux: 6,
                ..Header::new(Kind::Log, line.len() as u32)
            };
            put(log, &line, &mut all);
            let read = Read {
                wanted: 1,
                limit: 9,
            };
            all.extend_from_slice(&read.encode());
            put(Header::new(Kind::Data, body.len() as u32), body, &mut all);
            let range = FileRange {
                offset: 1,
                length: 2,
            };
            all.extend_from_slice(&range.encode(flag::END, 1));
            put(Header::new(Kind::GoAway, 0), b"", &mut all);
        }
        all
    }

    /// Numbers that look random.
    fn random(state: &mut u64) -> usize {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        (*state >> 20) as usize
    }

    #[test]
    fn any_split_says_the_same() {
        let stream = stream();
        let (whole, ended) = read(&stream, || usize::MAX);
        assert!(ended);
        assert_eq!(whole.len(), 3 * 7);
        let (bytewise, _) = read(&stream, || 1);
        assert_eq!(bytewise, whole);
        let mut state = 0x2545_f491_4f6c_dd1d;
        for largest in [2, 9, 100, 5_000, 60_000, 200_000] {
            for _ in 0..50 {
                let (split, ended) = read(&stream, || random(&mut state) % largest);
                assert!(ended);
                assert!(split == whole, "pieces up to {largest}");
            }
        }
    }

    #[test]
    fn the_end_of_a_frame_is_told_from_its_middle() {
        let stream = stream();
        let mut ends = 0;
        for length in 0..3_000 {
            let (_, ended) = read(&stream[..length], || usize::MAX);
            ends += usize::from(ended);
        }
        // The start, and the frames of the first round and the head of the second.
        assert!((7..=14).contains(&ends), "{ends}");
    }

    #[test]
    fn damaged_streams_give_no_panic_and_the_same_for_any_split() {
        let good = &stream()[..4_000];
        let mut state = 0x9e37_79b9_7f4a_7c15;
        for _ in 0..3_000 {
            let mut bytes = good.to_vec();
            for _ in 0..3 {
                let at = random(&mut state) % bytes.len();
                bytes[at] = random(&mut state) as u8;
            }
            let (whole, _) = read(&bytes, || usize::MAX);
            let (split, _) = read(&bytes, || random(&mut state) % 40);
            assert_eq!(split, whole);
        }
    }

    #[test]
    fn what_no_worker_sends_is_refused() {
        for kind in [Kind::Request, Kind::Body, Kind::BodyFailed] {
            let (said, _) = read(&Header::new(kind, 0).encode(), || usize::MAX);
            assert_eq!(said, [Said::Malformed]);
        }
        let long = Header::new(Kind::Log, LARGEST_KEPT as u32 + 1);
        let (said, _) = read(&long.encode(), || usize::MAX);
        assert_eq!(said, [Said::Malformed]);
    }

    #[test]
    fn a_reply_too_short_for_its_head_is_refused() {
        let mut frame = Vec::new();
        put(Header::new(Kind::Reply, 5), &[0; 5], &mut frame);
        let (said, _) = read(&frame, || 1);
        assert_eq!(said, [Said::Malformed]);
    }

    #[test]
    fn replaced_memory_keeps_what_was_lent() {
        let mut incoming = Incoming::default();
        incoming.make_room();
        let mut frame = Vec::new();
        put(Header::new(Kind::Data, 4), b"abcd", &mut frame);
        frame.extend_from_slice(&frame.clone()[..5]);
        incoming.memory().extend_from_slice(&frame);
        let Ok(Step::Body { bytes, .. }) = incoming.step() else {
            panic!("no body");
        };
        assert_eq!(incoming.step(), Ok(Step::More));
        let old = incoming.replace(Vec::with_capacity(ROOM));
        assert_eq!(&old[bytes], b"abcd");
        incoming.memory().extend_from_slice(&frame[5..12]);
        let Ok(Step::Body { bytes, done, .. }) = incoming.step() else {
            panic!("no body");
        };
        assert_eq!((incoming.bytes(bytes), done), (&b"abcd"[..], true));
    }
}
