//! The body of a request, asked for in portions.
//!
//! The client sends nothing unasked. A READ says how much the application waits for (`wanted`) and
//! how much is taken at most (`limit`); the answer is always read to its end, so that between two
//! calls nothing is on its way: what exceeds the caller's buffer is kept. Thus the worker never
//! waits for room in the client's direction while the client waits for room in ours.

use std::io;

use super::socket::{self, Span};
use crate::daemon::wire::{HEADER, Header, Kind, Read, flag};

/// The most that is asked for beyond what the caller wants, at first.
const FIRST_WINDOW: usize = 64 * 1024;
/// And later, when the application goes on reading.
const LARGEST_WINDOW: usize = 256 * 1024;
/// The most that one READ asks for.
const LARGEST_GRANT: usize = 32 * 1024 * 1024;

/// Bytes that have come and have not been read.
#[derive(Default)]
pub struct Spill {
    bytes: Vec<u8>,
    read: usize,
}

impl Spill {
    /// Forgets everything.
    #[inline]
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.read = 0;
    }

    fn take(&mut self, buffer: &mut [u8]) -> usize {
        let rest = &self.bytes[self.read..];
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        self.read += count;
        if self.read == self.bytes.len() {
            self.clear();
        }
        count
    }
}

/// Why no more can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// The client has said that its own client's body is lost, with this status.
    Body(u16),
    /// The connection is broken or silent, with this status; it is of no more use.
    Connection(u16),
}

/// Where reading stands.
pub struct Incoming<'a> {
    /// What came with the request and has not been read.
    inline: &'a [u8],
    /// Whether all has come.
    complete: bool,
    lost: Option<Lost>,
    window: usize,
}

impl<'a> Incoming<'a> {
    /// A body that begins with `inline`.
    #[inline]
    pub fn new(inline: &'a [u8], complete: bool) -> Self {
        Incoming {
            inline,
            complete,
            lost: None,
            window: FIRST_WINDOW,
        }
    }

    /// Takes what has come. `None`: nothing there, but more to come.
    #[inline]
    pub fn take(&mut self, spill: &mut Spill, buffer: &mut [u8]) -> Option<Result<usize, Lost>> {
        let count = self.inline.len().min(buffer.len());
        if count > 0 {
            buffer[..count].copy_from_slice(&self.inline[..count]);
            self.inline = &self.inline[count..];
            return Some(Ok(count));
        }
        match spill.take(buffer) {
            0 => {}
            count => return Some(Ok(count)),
        }
        match self.lost {
            Some(lost) => Some(Err(lost)),
            None => self.complete.then_some(Ok(0)),
        }
    }

    /// Asks for more, with `ask`, and waits for it. Gives how much is in `buffer`; 0 is the end.
    /// There is nothing to [`take`](Self::take).
    ///
    /// # Errors
    /// The body is lost, for ever.
    pub fn fetch(
        &mut self,
        fd: i32,
        spill: &mut Spill,
        buffer: &mut [u8],
        wanted: usize,
        ask: impl FnOnce(&[u8]) -> io::Result<()>,
    ) -> Result<usize, Lost> {
        let wanted = wanted.clamp(1, LARGEST_GRANT);
        let limit = wanted.max(self.window);
        self.window = (self.window * 2).min(LARGEST_WINDOW);
        let read = Read {
            wanted: wanted as u32,
            limit: limit as u32,
        };
        let result = ask(&read.encode())
            .map_err(|_| Lost::Connection(400))
            .and_then(|()| self.receive(fd, spill, buffer, limit));
        if let Err(lost) = result {
            self.lost = Some(lost);
        }
        result
    }

    fn receive(
        &mut self,
        fd: i32,
        spill: &mut Spill,
        buffer: &mut [u8],
        limit: usize,
    ) -> Result<usize, Lost> {
        let mut filled = 0;
        let mut received = 0;
        let mut next = [0; HEADER];
        socket::receive_exact(fd, &mut next).map_err(broken)?;
        loop {
            let header = Header::decode(next).map_err(|_| Lost::Connection(400))?;
            let length = header.length as usize;
            match header.kind {
                Kind::Body if length <= limit - received => {}
                Kind::BodyFailed if length == 0 => return Err(Lost::Body(header.aux)),
                _ => return Err(Lost::Connection(400)),
            }
            received += length;
            self.complete = header.has(flag::END);
            let last = self.complete || header.has(flag::GRANT_DONE);
            // What fits goes where it belongs at once, and the next frame's header comes along.
            let direct = length.min(buffer.len() - filled);
            let kept = spill.bytes.len();
            spill.bytes.resize(kept + length - direct, 0);
            let spans = [
                Span::of_mut(&mut buffer[filled..filled + direct]),
                Span::of_mut(&mut spill.bytes[kept..]),
                Span::of_mut(if last { &mut [] } else { &mut next }),
            ];
            // SAFETY: three borrowed buffers, used for nothing else meanwhile.
            unsafe { socket::fill_spans(fd, &spans) }.map_err(broken)?;
            filled += direct;
            if last {
                if filled == 0 && !self.complete {
                    // Nothing at all is no answer to a READ.
                    return Err(Lost::Connection(400));
                }
                return Ok(filled);
            }
        }
    }
}

fn broken(error: io::Error) -> Lost {
    Lost::Connection(match error.kind() {
        io::ErrorKind::WouldBlock => 408,
        _ => 400,
    })
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write};
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    fn frame(kind: Kind, flags: u8, aux: u16, payload: &[u8]) -> Vec<u8> {
        let header = Header {
            flags,
            aux,
            ..Header::new(kind, payload.len() as u32)
        };
        [&header.encode(), payload].concat()
    }

    /// Reads the whole body with buffers of `size`; the client answers each READ with one of
    /// `answers`. Gives the body or the failure, and what was asked for.
    fn read_all(
        inline: &[u8],
        size: usize,
        answers: Vec<Vec<u8>>,
    ) -> (Result<Vec<u8>, Lost>, Vec<Read>) {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let client = std::thread::spawn(move || {
            let mut asked = Vec::new();
            for answer in answers {
                let mut read = [0; HEADER + 8];
                theirs.read_exact(&mut read).unwrap();
                asked.push(Read::decode(&read[HEADER..]).unwrap());
                // A reader that has seen enough does not wait for the rest.
                let _ = theirs.write_all(&answer);
            }
            asked
        });
        let fd = ours.as_raw_fd();
        let mut incoming = Incoming::new(inline, false);
        let mut spill = Spill::default();
        let mut body = Vec::new();
        let result = loop {
            let mut buffer = vec![0; size];
            let got = incoming.take(&mut spill, &mut buffer).unwrap_or_else(|| {
                let ask = |frame: &[u8]| socket::send(fd, frame);
                incoming.fetch(fd, &mut spill, &mut buffer, 1, ask)
            });
            match got {
                Ok(0) => break Ok(body),
                Ok(count) => body.extend_from_slice(&buffer[..count]),
                Err(lost) => break Err(lost),
            }
        };
        drop(ours);
        (result, client.join().unwrap())
    }

    #[test]
    fn a_body_comes_in_portions() {
        for size in [1, 3, 100] {
            let first = [
                frame(Kind::Body, 0, 0, b"two"),
                frame(Kind::Body, 0, 0, b""),
                frame(Kind::Body, flag::GRANT_DONE, 0, b"three"),
            ];
            let second = frame(Kind::Body, flag::END, 0, b"four");
            let (body, asked) = read_all(b"one", size, vec![first.concat(), second]);
            assert_eq!(body.unwrap(), b"onetwothreefour", "{size}");
            assert_eq!(asked.len(), 2);
            assert_eq!(asked[0].wanted, 1);
            assert!(asked[1].limit > asked[0].limit);
        }
    }

    #[test]
    fn an_empty_last_frame_is_the_end() {
        let (body, _) = read_all(b"", 10, vec![frame(Kind::Body, flag::END, 0, b"")]);
        assert_eq!(body.unwrap(), b"");
    }

    #[test]
    fn failures_are_told_apart() {
        let partial = [
            frame(Kind::Body, 0, 0, b"x"),
            frame(Kind::BodyFailed, 0, 413, b""),
        ];
        let cases = [
            (partial.concat(), Lost::Body(413)),
            (vec![0xff; 20], Lost::Connection(400)),
            (frame(Kind::Request, 0, 0, b"x"), Lost::Connection(400)),
            (
                frame(Kind::Body, flag::GRANT_DONE, 0, b""),
                Lost::Connection(400),
            ),
            (
                frame(Kind::Body, flag::END, 0, &vec![0; LARGEST_WINDOW * 2]),
                Lost::Connection(400),
            ),
        ];
        for (answer, expected) in cases {
            let (body, _) = read_all(b"", 10, vec![answer]);
            assert_eq!(body, Err(expected));
        }
    }

    #[test]
    fn a_client_that_goes_away_is_noticed() {
        let mut answer = frame(Kind::Body, flag::END, 0, b"whole");
        answer.truncate(10);
        let (body, _) = read_all(b"", 10, vec![answer]);
        assert_eq!(body, Err(Lost::Connection(400)));
    }
}
