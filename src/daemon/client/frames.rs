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
    /// The head of a REPLY, for [`reply::decode`]. Body steps follow.
    Head(Range<usize>),
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
            Step::Head(range)
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
        Kind::Read | Kind::File | Kind::Status | Kind::Log | Kind::GoAway | Kind::Retry => {
            if header.length as usize > LARGEST_KEPT {
                Err(Malformed)
            } else {
                Ok(())
            }
        }
    }
}
