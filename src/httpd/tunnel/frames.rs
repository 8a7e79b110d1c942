//! What a worker sends into a tunnel, taken apart as it arrives and with next to no memory: bytes for
//! the end user pass through where they lie, and there may be thousands of tunnels.

#![forbid(unsafe_code)]

use core::ops::Range;

use crate::daemon::wire::{HEADER, Header, Kind, LogLine, Malformed, flag};

/// So much of a line for the error log is kept; httpd writes less of it.
const LONGEST_LINE: usize = 64 * 1024;

/// What has been said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// Bytes for the end user: a range of what was given.
    Data(Range<usize>),
    /// A line for the error log: level, and where in a program it was made if the worker says so.
    Log(u16, Option<(&'a [u8], u32)>, &'a [u8]),
    /// Nothing more will be said.
    End,
}

/// How far a stream of frames has been taken apart.
#[derive(Debug, Default)]
pub struct Frames {
    /// The beginning of a header.
    begun: [u8; HEADER],
    /// How much of it there is.
    have: u8,
    /// The frame that is being taken apart.
    open: Option<Header>,
    /// Payload bytes of it that are still to come.
    left: u32,
    /// What has come of a LOG frame.
    line: Vec<u8>,
    ended: bool,
}

impl Frames {
    /// Whether the bytes for the end user that have come so far are whole messages.
    pub fn is_between_messages(&self) -> bool {
        !matches!(self.open, Some(header) if header.kind == Kind::Data)
    }

    /// Whether the end has been said.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// Takes apart what has arrived, and calls `take` with each piece, in order. What follows the end
    /// is ignored.
    ///
    /// # Errors
    /// The bytes are not what a worker sends into a tunnel. What was before has been taken.
    pub fn feed(&mut self, bytes: &[u8], mut take: impl FnMut(Piece<'_>)) -> Result<(), Malformed> {
        let mut at = 0;
        while !self.ended {
            let header = match self.open {
                Some(header) => header,
                None => match self.header(bytes, &mut at)? {
                    Some(header) => header,
                    None => return Ok(()),
                },
            };
            let count = (self.left as usize).min(bytes.len() - at);
            if count == 0 && self.left > 0 {
                return Ok(());
            }
            let range = at..at + count;
            at += count;
            self.left -= count as u32;
            let whole = self.left == 0;
            if header.kind == Kind::Data {
                if count > 0 {
                    take(Piece::Data(range));
                }
            } else if whole && self.line.is_empty() {
                line(header, &bytes[range], &mut take)?;
            } else {
                let room = LONGEST_LINE - self.line.len();
                self.line
                    .extend_from_slice(&bytes[range.start..range.end.min(range.start + room)]);
                if whole {
                    // Its memory is not kept.
                    line(header, &core::mem::take(&mut self.line), &mut take)?;
                }
            }
            if whole {
                self.open = None;
                if header.kind == Kind::Data && header.has(flag::END) {
                    self.ended = true;
                    take(Piece::End);
                }
            }
        }
        Ok(())
    }

    /// Opens the next frame, if its header is complete.
    fn header(&mut self, bytes: &[u8], at: &mut usize) -> Result<Option<Header>, Malformed> {
        let have = usize::from(self.have);
        let count = (HEADER - have).min(bytes.len() - *at);
        self.begun[have..have + count].copy_from_slice(&bytes[*at..*at + count]);
        *at += count;
        self.have += count as u8;
        if usize::from(self.have) < HEADER {
            return Ok(None);
        }
        self.have = 0;
        let header = Header::decode(self.begun)?;
        if !matches!(header.kind, Kind::Data | Kind::Log) {
            return Err(Malformed);
        }
        self.open = Some(header);
        self.left = header.length;
        Ok(Some(header))
    }
}

fn line(header: Header, payload: &[u8], take: &mut impl FnMut(Piece<'_>)) -> Result<(), Malformed> {
    if header.has(flag::SOURCE) {
        let line = LogLine::decode(payload)?;
        take(Piece::Log(
            header.aux,
            Some((line.file, line.number)),
            line.line,
        ));
    } else {
        take(Piece::Log(header.aux, None, payload));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Debug, PartialEq, Eq)]
    enum Said {
        /// All bytes up to the next thing that is said.
        Data(Vec<u8>),
        Log(u16, Option<(Vec<u8>, u32)>, Vec<u8>),
        End,
        Malformed,
    }

    /// Gives `stream` in pieces of the lengths that `next` says.
    fn read(stream: &[u8], mut next: impl FnMut() -> usize) -> Vec<Said> {
        let mut frames = Frames::default();
        let mut said = Vec::new();
        let mut rest = stream;
        while !rest.is_empty() {
            let (now, later) = rest.split_at(next().clamp(1, rest.len()));
            rest = later;
            let fed = frames.feed(now, |piece| match piece {
                Piece::Data(range) => {
                    assert!(!range.is_empty());
                    match said.last_mut() {
                        Some(Said::Data(before)) => before.extend_from_slice(&now[range]),
                        _ => said.push(Said::Data(now[range].to_vec())),
                    }
                }
                Piece::Log(level, source, line) => {
                    let source = source.map(|(file, number)| (file.to_vec(), number));
                    said.push(Said::Log(level, source, line.to_vec()));
                }
                Piece::End => said.push(Said::End),
            });
            if fed.is_err() {
                said.push(Said::Malformed);
                return said;
            }
        }
        said
    }

    fn put(kind: Kind, flags: u8, aux: u16, payload: &[u8], out: &mut Vec<u8>) {
        let header = Header {
            flags,
            aux,
            ..Header::new(kind, payload.len() as u32)
        };
        out.extend_from_slice(&header.encode());
        out.extend_from_slice(payload);
    }

    fn stream() -> Vec<u8> {
        let mut all = Vec::new();
        for body in [&b""[..], b"bytes", &[7; 70_000]] {
            put(Kind::Data, flag::FLUSH, 1, body, &mut all);
            put(Kind::Log, 0, 6, &body[..body.len() / 2], &mut all);
            let line = LogLine {
                file: b"/srv/app.py",
                number: 12,
                line: b"a line",
            };
            put(Kind::Log, flag::SOURCE, 3, &line.encode(), &mut all);
            put(Kind::Data, 0, 1, body, &mut all);
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
        let mut stream = stream();
        put(Kind::Data, flag::END, 1, b"bye", &mut stream);
        stream.extend_from_slice(b"what follows the end");
        let whole = read(&stream, || usize::MAX);
        assert_eq!(whole.last(), Some(&Said::End));
        assert_eq!(whole.len(), 10);
        assert_eq!(read(&stream, || 1), whole);
        let mut state = 0x2545_f491_4f6c_dd1d;
        for largest in [2, 9, 100, 5_000, 60_000] {
            for _ in 0..50 {
                let split = read(&stream, || random(&mut state) % largest);
                assert!(split == whole, "pieces up to {largest}");
            }
        }
    }

    #[test]
    fn the_end_comes_after_the_last_byte() {
        let mut stream = Vec::new();
        put(Kind::Data, flag::END, 0, b"bye", &mut stream);
        let said = read(&stream, || 1);
        assert_eq!(said, [Said::Data(b"bye".to_vec()), Said::End]);
        let mut empty = Vec::new();
        put(Kind::Data, flag::END, 0, b"", &mut empty);
        assert_eq!(read(&empty, || 3), [Said::End]);
    }

    #[test]
    fn a_message_in_the_middle_is_told_from_a_whole_one() {
        let mut stream = Vec::new();
        put(Kind::Data, 0, 0, b"abc", &mut stream);
        put(Kind::Log, 0, 6, b"line", &mut stream);
        let mut between = Vec::new();
        for length in 0..=stream.len() {
            let mut frames = Frames::default();
            frames.feed(&stream[..length], |_| {}).unwrap();
            between.push(frames.is_between_messages());
        }
        // From the header's end to the last byte.
        let within: Vec<usize> = (0..between.len()).filter(|&at| !between[at]).collect();
        assert_eq!(within, [8, 9, 10]);
    }

    #[test]
    fn what_does_not_belong_into_a_tunnel_is_refused() {
        for kind in [Kind::Request, Kind::Read, Kind::Reply, Kind::GoAway] {
            let mut stream = Vec::new();
            put(kind, 0, 0, b"", &mut stream);
            assert_eq!(read(&stream, || 5), [Said::Malformed]);
        }
        assert_eq!(read(&[0xff; 20], || 20), [Said::Malformed]);
        let mut short = Vec::new();
        put(Kind::Log, flag::SOURCE, 6, b"abc", &mut short);
        assert_eq!(read(&short, || 2), [Said::Malformed]);
    }

    #[test]
    fn damaged_streams_give_no_panic_and_the_same_for_any_split() {
        let good = &stream()[..2_000];
        let mut state = 0x9e37_79b9_7f4a_7c15;
        for _ in 0..3_000 {
            let mut bytes = good.to_vec();
            for _ in 0..3 {
                let at = random(&mut state) % bytes.len();
                bytes[at] = random(&mut state) as u8;
            }
            let whole = read(&bytes, || usize::MAX);
            let split = read(&bytes, || random(&mut state) % 40);
            assert_eq!(split, whole);
        }
    }

    #[test]
    fn endless_lines_take_no_memory() {
        let mut frames = Frames::default();
        let header = Header {
            aux: 6,
            ..Header::new(Kind::Log, 8 * 1024 * 1024)
        };
        frames.feed(&header.encode(), |_| {}).unwrap();
        let mut lines = Vec::new();
        for _ in 0..8 * 1024 {
            frames
                .feed(&[b'x'; 1024], |piece| {
                    if let Piece::Log(_, _, line) = piece {
                        lines.push(line.len());
                    }
                })
                .unwrap();
            assert!(frames.line.capacity() <= LONGEST_LINE);
        }
        assert_eq!(lines, [LONGEST_LINE]);
        assert_eq!(frames.line.capacity(), 0);
    }
}
