//! One tunnel: what to do next, whoever asks and however long it takes until somebody does.
//!
//! It is driven by calls of [`Tunnel::turn`], never blocks, and has no memory beside what one end has
//! not taken of the other's bytes, at most one read of them: an end that does not take any stops the
//! other one from being read.

#![forbid(unsafe_code)]

use core::ops::Range;
use core::time::Duration;
use std::time::Instant;

use super::frames::{Frames, Piece};
use crate::daemon::client::connection::Received;

/// So many pieces go through in one direction before others get their turn.
const ROUNDS: u32 = 8;

/// How long the worker has to take what the end user said last, before it left.
const LAST_WORDS: Duration = Duration::from_secs(10);

/// A close frame of WebSocket, from a server: 1012, "service restart".
const CLOSE_RESTART: [u8; 4] = [0x88, 0x02, 0x03, 0xf4];

/// The end user's side. Nothing here blocks.
pub trait EndUser {
    /// Hands what has arrived to `take`, in one or several pieces; not all of it, perhaps.
    fn read(&mut self, take: &mut dyn FnMut(&[u8])) -> Read;

    /// Sends the pieces of `bytes`. What the socket does not take is kept.
    ///
    /// # Errors
    /// The end user has gone.
    fn write(&mut self, bytes: &[u8], pieces: &[Range<usize>]) -> Result<(), Gone>;

    /// Tries to send what is kept; whether some of it still is.
    fn is_backed_up(&mut self) -> bool;

    /// Writes a line to the error log. `source`: file and line of the program that says it.
    fn log(&mut self, level: u16, source: Option<(&[u8], u32)>, line: &[u8]);
}

/// The worker's side. Nothing here blocks.
pub trait Worker {
    /// Receives into `room`.
    fn receive(&mut self, room: &mut [u8]) -> Received;

    /// Sends; how much of it, 0 if there is no room.
    ///
    /// # Errors
    /// The worker listens no longer.
    fn send(&mut self, bytes: &[u8]) -> Result<usize, Gone>;
}

/// What a read brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read {
    /// Bytes, or nothing this time: there may be more.
    Some,
    /// All that has arrived has been read.
    Nothing,
    /// The end user sends nothing more.
    Gone,
}

/// The other end is not there any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone;

/// What passes between the ends lies here for the time of a turn. One serves many tunnels.
pub struct Buffer {
    bytes: Box<[u8]>,
    pieces: Vec<Range<usize>>,
}

impl Buffer {
    /// A buffer of so many bytes.
    pub fn new(size: usize) -> Self {
        Buffer {
            bytes: vec![0; size].into_boxed_slice(),
            pieces: Vec::new(),
        }
    }

    /// Its bytes, between two turns.
    pub fn room(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

/// Why a tunnel has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The worker has said so.
    Done,
    /// The end user has gone.
    UserGone,
    /// The end user has taken nothing for too long.
    Stalled,
    /// The worker has gone without saying so.
    Died,
    /// The worker has sent something else than it should.
    Malformed,
    /// This process is about to end.
    Stopped,
}

/// What may have happened since the last turn. To say too much costs a system call, to say too
/// little stops the tunnel.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ready {
    /// The end user's socket has bytes, or its end.
    pub user_read: bool,
    /// The end user's socket has room.
    pub user_write: bool,
    /// The worker's socket has bytes, or its end.
    pub worker_read: bool,
}

impl Ready {
    /// Anything.
    pub const ALL: Ready = Ready {
        user_read: true,
        user_write: true,
        worker_read: true,
    };
}

/// What a tunnel waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wants {
    /// Bytes of the end user.
    pub user_read: bool,
    /// Room in the end user's socket.
    pub user_write: bool,
    /// Bytes of the worker.
    pub worker_read: bool,
    /// Room in the worker's socket.
    pub worker_write: bool,
    /// And at the latest at this time.
    pub until: Option<Instant>,
}

/// What a turn ended with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// There is nothing to do before one of these things happens.
    Wait(Wants),
    /// Others should have a turn; then this one has more to do.
    Again,
    /// It is over. The end user has got everything, or cannot any more.
    Over(End),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Open,
    /// The end user has gone; the worker is to get what it said.
    Leaving(Instant),
    /// Nothing more comes; the end user is to get what is kept.
    Ending(End),
}

/// A tunnel.
pub struct Tunnel {
    phase: Phase,
    frames: Frames,
    /// What has come from the worker before there was a tunnel.
    early: Vec<u8>,
    /// What the worker has not taken.
    unsent: Vec<u8>,
    /// The end user may have sent more than has been read.
    user_pending: bool,
    /// The worker listens no longer; it may still speak.
    worker_deaf: bool,
    /// How long the end user may take nothing.
    patience: Duration,
    /// Since when it has.
    stalled: Option<Instant>,
    sent: u64,
}

impl Tunnel {
    /// A tunnel into which the worker has already sent `early`.
    pub fn new(early: &[u8], patience: Duration) -> Self {
        Tunnel {
            phase: Phase::Open,
            frames: Frames::default(),
            early: early.to_vec(),
            unsent: Vec::new(),
            user_pending: true,
            worker_deaf: false,
            patience,
            stalled: None,
            sent: 0,
        }
    }

    /// How many bytes the end user has been sent.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// Does what can be done at `now`, or a good part of it.
    pub fn turn(
        &mut self,
        user: &mut impl EndUser,
        worker: &mut impl Worker,
        buffer: &mut Buffer,
        ready: Ready,
        now: Instant,
    ) -> Turn {
        self.user_pending |= ready.user_read;
        let mut again = false;
        if self.phase == Phase::Open {
            let mut end = self.begin(user);
            if end.is_none() && ready.worker_read {
                end = self.outward(user, worker, buffer);
            }
            if end.is_none() {
                again = self.inward(user, worker, now);
            }
            if let Some(end) = end {
                self.end(user, end);
            }
        }
        if let Phase::Leaving(until) = self.phase {
            self.flush(worker);
            if self.unsent.is_empty() || now >= until {
                return Turn::Over(End::UserGone);
            }
        }
        if self.phase == Phase::Ending(End::UserGone) {
            return Turn::Over(End::UserGone);
        }
        let blocked = !matches!(self.phase, Phase::Leaving(_)) && user.is_backed_up();
        if let (Phase::Ending(end), false) = (self.phase, blocked) {
            return Turn::Over(end);
        }
        if !blocked || ready.user_write {
            self.stalled = None;
        }
        if blocked && now >= *self.stalled.get_or_insert(now) + self.patience {
            return Turn::Over(End::Stalled);
        }
        if again {
            return Turn::Again;
        }
        let open = self.phase == Phase::Open;
        Turn::Wait(Wants {
            user_read: open && self.unsent.is_empty(),
            user_write: blocked,
            worker_read: open && !blocked,
            worker_write: !self.unsent.is_empty(),
            until: match self.phase {
                Phase::Leaving(until) => Some(until),
                _ => self.stalled.map(|since| since + self.patience),
            },
        })
    }

    /// This process is about to end: the tunnel ends as soon as the end user has what is on its way.
    pub fn stop(&mut self, user: &mut impl EndUser) {
        if self.phase == Phase::Open {
            self.end(user, End::Stopped);
        }
    }

    /// Hands on what came before there was a tunnel.
    fn begin(&mut self, user: &mut impl EndUser) -> Option<End> {
        if self.early.is_empty() {
            return None;
        }
        let early = core::mem::take(&mut self.early);
        let mut pieces = Vec::new();
        self.pass(user, &early, &mut pieces)
    }

    /// From the worker to the end user.
    fn outward(
        &mut self,
        user: &mut impl EndUser,
        worker: &mut impl Worker,
        buffer: &mut Buffer,
    ) -> Option<End> {
        for _ in 0..ROUNDS {
            if user.is_backed_up() {
                break;
            }
            match worker.receive(&mut buffer.bytes) {
                Received::Bytes(count) => {
                    let Buffer { bytes, pieces } = buffer;
                    let end = self.pass(user, &bytes[..count], pieces);
                    // Less than there is room for: that was all, for now.
                    if end.is_some() || count < bytes.len() {
                        return end;
                    }
                }
                Received::Nothing => break,
                Received::Eof | Received::Reset => return Some(End::Died),
            }
        }
        // What is left keeps the socket readable.
        None
    }

    fn pass(
        &mut self,
        user: &mut impl EndUser,
        bytes: &[u8],
        pieces: &mut Vec<Range<usize>>,
    ) -> Option<End> {
        pieces.clear();
        let fed = self.frames.feed(bytes, |piece| match piece {
            Piece::Data(range) => pieces.push(range),
            Piece::Log(level, source, line) => user.log(level, source, line),
            Piece::End => {}
        });
        if !pieces.is_empty() {
            self.sent += pieces.iter().map(|piece| piece.len() as u64).sum::<u64>();
            if user.write(bytes, pieces).is_err() {
                return Some(End::UserGone);
            }
        }
        match fed {
            Err(_) => Some(End::Malformed),
            Ok(()) => self.frames.has_ended().then_some(End::Done),
        }
    }

    /// From the end user to the worker; whether there may be more to do.
    fn inward(&mut self, user: &mut impl EndUser, worker: &mut impl Worker, now: Instant) -> bool {
        for _ in 0..ROUNDS {
            self.flush(worker);
            if !self.unsent.is_empty() || !self.user_pending {
                return false;
            }
            let read = user.read(&mut |bytes| self.send(worker, bytes));
            match read {
                Read::Some => {}
                Read::Nothing => self.user_pending = false,
                Read::Gone => {
                    self.phase = Phase::Leaving(now + LAST_WORDS);
                    return false;
                }
            }
        }
        self.unsent.is_empty() && self.user_pending
    }

    /// Sends bytes of the end user, or keeps them.
    fn send(&mut self, worker: &mut impl Worker, mut bytes: &[u8]) {
        while self.unsent.is_empty() && !bytes.is_empty() && !self.worker_deaf {
            match worker.send(bytes) {
                Ok(0) => break,
                Ok(count) => bytes = &bytes[count..],
                // What it has said before is still read.
                Err(Gone) => self.worker_deaf = true,
            }
        }
        if !self.worker_deaf {
            self.unsent.extend_from_slice(bytes);
        }
    }

    /// Sends what was kept for the worker.
    fn flush(&mut self, worker: &mut impl Worker) {
        if !self.unsent.is_empty() {
            let kept = core::mem::take(&mut self.unsent);
            self.send(worker, &kept);
        }
    }

    /// Nothing more is read of either end.
    fn end(&mut self, user: &mut impl EndUser, end: End) {
        self.phase = Phase::Ending(end);
        self.unsent = Vec::new();
        let abrupt = matches!(end, End::Died | End::Malformed | End::Stopped);
        // Between two messages the end user can be told why.
        if abrupt && self.frames.is_between_messages() {
            self.sent += CLOSE_RESTART.len() as u64;
            // Whether it is still there shows in what is asked next.
            let _ = user.write(
                &CLOSE_RESTART,
                core::slice::from_ref(&(0..CLOSE_RESTART.len())),
            );
        }
    }
}

#[cfg(test)]
mod tests;
