//! The way from the receive buffer to the end user.
//!
//! Body bytes stay in the receive buffer until it is full, until they must be flushed, or until the
//! response ends; then they are lent to the server without a copy. As long as the worker has not
//! finished, nothing here blocks on an end user who reads slowly, because the worker's thread would
//! be held as well: what the end user's socket does not take is kept in memory, up to
//! `response-buffer-size`, while the worker is read on. Beyond that the worker waits, too.
//!
//! Streams of one HTTP/2 connection have no socket of their own: what the worker has sent is
//! collected up to the same limit, and the stream is written to (and may block) only when that is
//! reached, when the response is complete, or when the application wants a flush and the worker
//! has nothing more.

use core::time::Duration;
use std::os::fd::AsRawFd;
use std::time::Instant;

use super::backlog::{Backlog, Part};
use super::buffers::Buffers;
use super::connection::{Watch, wait};
use super::frames::ROOM;
use super::front::Front;
use super::pump::{End, Pump};
use super::retry::Event;
use crate::exchange::memory::Borrowed;
use crate::exchange::{MayBlock, Send};

/// How long an end user may need to take what fills a socket without being thought slow: one on
/// the same machine is waited for, which is cheaper than memory.
const GRACE: Duration = Duration::from_millis(3);
/// So much can be flushed into a socket that has said to have room.
const FLUSHED: usize = 16 * 1024;

/// What has been received and not handed on, beside the pieces in the receive buffer.
#[derive(Default)]
pub struct Output {
    /// The end user must get what has come so far before anything is waited for.
    pub flush: bool,
    /// What came before the receive buffer.
    pub backlog: Backlog,
    /// How much may be flushed before the end user's socket is asked again.
    credit: usize,
    /// Since when the end user has taken nothing.
    stalled: Option<Instant>,
}

/// What a wait ended with.
enum Woken {
    /// The worker has sent something or has gone.
    Worker,
    /// The end user's socket has room, or is broken.
    User,
}

impl<F: Front> Pump<'_, F> {
    /// The end user has gone: nothing more is of use. The worker sees it by the connection's end.
    pub(super) fn gone(&mut self) -> End {
        self.lease = None;
        End::Outcome(crate::exchange::abi::outcome::CUT)
    }

    fn send(&mut self, how: Send) -> Result<(), End> {
        self.front
            .send(how, &MayBlock::detached())
            .map_err(|_| self.gone())
    }

    /// Hands on the pieces in the receive buffer.
    #[inline]
    fn pass(&mut self, how: Send) -> Result<(), End> {
        let Buffers {
            incoming, pieces, ..
        } = &mut *self.buffers;
        for piece in pieces.drain(..) {
            // The buffer is not touched before `send` has returned.
            self.front
                .append_borrowed(Borrowed::new(incoming.bytes(piece)));
        }
        self.send(how)
    }

    /// Hands on a part of the backlog.
    fn pass_part(&mut self, part: Part) -> Result<(), End> {
        match &part {
            Part::Memory { memory, pieces } => {
                for piece in pieces {
                    self.front
                        .append_borrowed(Borrowed::new(&memory[piece.clone()]));
                }
            }
            Part::File {
                file,
                offset,
                length,
            } => {
                let file = file.as_raw_fd();
                if let Err(errno) = self.front.append_unmapped(file, *offset, *length) {
                    let reason = std::io::Error::from_raw_os_error(errno);
                    return Err(self.bad_file(&reason.to_string()));
                }
            }
        }
        let sent = self.send(Send::Keep);
        self.output.backlog.recycle(part);
        sent
    }

    /// Hands on everything, at last with `how`; blocks as long as the end user needs.
    #[inline]
    pub(super) fn pass_all(&mut self, how: Send) -> Result<(), End> {
        while let Some(part) = self.output.backlog.pop() {
            self.pass_part(part)?;
        }
        self.output.flush = false;
        self.pass(how)
    }

    /// Moves the pieces in the receive buffer to the backlog, the buffer with them.
    pub(super) fn keep(&mut self) {
        if self.buffers.pieces.is_empty() {
            return;
        }
        let pieces = core::mem::take(&mut self.buffers.pieces);
        let fresh = self.output.backlog.memory(ROOM);
        let memory = self.buffers.incoming.replace(fresh);
        self.output.backlog.push(Part::Memory { memory, pieces });
    }

    /// Makes room in the receive buffer.
    pub(super) fn make_room(&mut self) -> Result<(), End> {
        if self.buffers.pieces.is_empty() {
            self.buffers.incoming.make_room();
            return Ok(());
        }
        let limit = self.pools.settings().response_buffer;
        let Some(user) = self.front.socket() else {
            self.keep();
            if self.output.backlog.held() >= limit {
                self.pass_all(Send::Keep)?;
            }
            self.buffers.incoming.make_room();
            return Ok(());
        };
        if self.output.backlog.is_empty() && self.takes_more(user) {
            self.pass(Send::Keep)?;
        } else {
            self.keep();
            while self.output.backlog.held() >= limit && !self.relieve(user)? {
                self.wait_for_either(user, false)?;
            }
        }
        self.buffers.incoming.make_room();
        Ok(())
    }

    /// Whether the end user takes a buffer full without blocking, perhaps after a moment.
    fn takes_more(&self, user: i32) -> bool {
        if !self.front.is_backed_up() {
            return true;
        }
        let [ready] = wait([watch(user, libc::POLLOUT)], GRACE);
        ready != 0 && !self.front.is_backed_up()
    }

    /// Hands on what the end user takes without blocking. `true`: nothing is left in the backlog,
    /// and what was to be flushed has been.
    fn relieve(&mut self, user: i32) -> Result<bool, End> {
        loop {
            if self.front.is_backed_up() {
                return Ok(false);
            }
            let Some(part) = self.output.backlog.pop() else {
                break;
            };
            self.output.credit = 0;
            self.pass_part(part)?;
        }
        if !self.output.flush {
            return Ok(true);
        }
        let bytes: usize = self.buffers.pieces.iter().map(|piece| piece.len()).sum();
        if bytes > self.output.credit {
            let [ready] = wait([watch(user, libc::POLLOUT)], Duration::ZERO);
            if ready == 0 {
                return Ok(false);
            }
            self.output.credit = FLUSHED;
            if bytes > FLUSHED {
                self.pass(Send::Keep)?;
                if self.front.is_backed_up() {
                    return Ok(false);
                }
            }
        }
        self.output.credit = self.output.credit.saturating_sub(bytes);
        self.output.flush = false;
        self.pass(Send::Flush)?;
        Ok(true)
    }

    /// The worker has nothing for now: what is to be flushed goes out, and what the end user did
    /// not take before. Returns when the worker has to be read again.
    pub(super) fn wait_for_worker(&mut self) -> Result<(), End> {
        let Some(user) = self.front.socket() else {
            if self.output.flush {
                self.pass_all(Send::Flush)?;
                self.buffers.incoming.make_room();
            }
            return Ok(());
        };
        loop {
            if self.relieve(user)? {
                self.output.stalled = None;
                if self.buffers.pieces.is_empty() {
                    self.buffers.incoming.make_room();
                }
                return Ok(());
            }
            if let Woken::Worker = self.wait_for_either(user, true)? {
                return Ok(());
            }
        }
    }

    /// Waits until the end user takes more or, with `worker`, the worker sends more.
    fn wait_for_either(&mut self, user: i32, worker: bool) -> Result<Woken, End> {
        let began = Instant::now();
        let stalled = *self.output.stalled.get_or_insert(began);
        let patience = self.front.write_timeout();
        let socket = match &self.lease {
            Some(lease) if worker => lease.connection().fd(),
            _ => -1,
        };
        let silence = self.patience().filter(|_| socket >= 0);
        loop {
            let user_left = patience.saturating_sub(stalled.elapsed());
            let left = match silence {
                None => user_left,
                Some(silence) => user_left.min(silence.saturating_sub(began.elapsed())),
            };
            // Rounded up: a wait that ends too early would be repeated.
            let left = left + Duration::from_millis(1);
            let [from_worker, to_user] = wait(
                [watch(socket, libc::POLLIN), watch(user, libc::POLLOUT)],
                left,
            );
            if to_user != 0 {
                self.output.stalled = None;
                return Ok(Woken::User);
            }
            if from_worker != 0 {
                return Ok(Woken::Worker);
            }
            if stalled.elapsed() >= patience {
                self.front.give_up();
                return Err(self.gone());
            }
            if silence.is_some_and(|silence| began.elapsed() >= silence) {
                return Err(self.lost(Event::Timeout));
            }
        }
    }

    /// Before the end user's body is waited for: what the worker has sent goes out, since the end
    /// user may be waiting for it. `false`: body bytes have arrived meanwhile.
    pub(super) fn hand_on_before_reading(&mut self) -> Result<bool, End> {
        let nothing = self.buffers.pieces.is_empty() && self.output.backlog.is_empty();
        if nothing && !self.output.flush {
            return Ok(true);
        }
        self.output.flush = true;
        let Some(user) = self.front.socket() else {
            self.pass_all(Send::Flush)?;
            self.buffers.incoming.make_room();
            return Ok(true);
        };
        let began = Instant::now();
        while !self.relieve(user)? {
            let patience = self.front.write_timeout();
            let both = libc::POLLOUT | libc::POLLIN;
            let [ready] = wait([watch(user, both)], patience);
            if ready & libc::POLLIN != 0 {
                return Ok(false);
            }
            if ready == 0 && began.elapsed() >= patience {
                self.front.give_up();
                return Err(self.gone());
            }
        }
        self.buffers.incoming.make_room();
        Ok(true)
    }
}

fn watch(fd: i32, events: i16) -> Watch {
    Watch { fd, events }
}
