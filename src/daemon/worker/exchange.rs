//! The exchange of one request over the wire.

use core::cell::{Cell, RefCell};
use core::sync::atomic::Ordering;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

use super::Worker;
use super::connections::Held;
use super::desk::Desk;
use super::incoming::{Incoming, Lost, Spill};
use super::outgoing::{self, Outgoing};
use super::socket;
use crate::daemon::board::now_ms;
use crate::daemon::wire::request::WireRequest;
use crate::daemon::wire::{FileRange, Header, Kind, flag};
use crate::exchange::memory::Borrowed;
use crate::exchange::response::ResponseHead;
use crate::exchange::{BodyError, ClientGone, Exchange, Level, MayBlock, Send, Source, Wait};
use crate::messages;

/// Memory of a serving thread that one request after another uses.
#[derive(Default)]
pub struct Scratch {
    outgoing: RefCell<Outgoing>,
    spill: RefCell<Spill>,
}

/// One request. Lives on the stack of the thread that serves it; only [`Exchange::log`] may be
/// called by others at the same time, and uses nothing but `desk`.
pub struct WireExchange<'a> {
    worker: &'static Worker,
    desk: &'static Desk,
    scratch: &'a Scratch,
    /// Given away with the end of the reply.
    held: Cell<Option<Held<'static>>>,
    fd: i32,
    incoming: RefCell<Incoming<'a>>,
    /// Events for the connection are switched off.
    disarmed: Cell<bool>,
    activity: bool,
    /// The most detailed level that the request's log takes.
    log_level: u8,
    /// Nothing can be sent.
    gone: Cell<bool>,
    /// The head is too large for the wire: the answer is an error page.
    refused: Cell<bool>,
    /// Part of a body may still come: the connection ends with the reply.
    broken: Cell<bool>,
}

impl<'a> WireExchange<'a> {
    /// The exchange of a request that has come on `held`, served at `desk`.
    #[inline]
    pub fn new(
        worker: &'static Worker,
        desk: &'static Desk,
        scratch: &'a Scratch,
        held: Held<'static>,
        request: &WireRequest<'a>,
    ) -> Self {
        let fd = held.fd();
        desk.open(fd);
        scratch.outgoing.borrow_mut().clear();
        scratch.spill.borrow_mut().clear();
        WireExchange {
            worker,
            desk,
            scratch,
            held: Cell::new(Some(held)),
            fd,
            incoming: RefCell::new(Incoming::new(request.body, request.body_complete)),
            disarmed: Cell::new(false),
            log_level: request.log_level,
            activity: worker.watches_activity && !request.ignore_activity,
            gone: Cell::new(false),
            refused: Cell::new(false),
            broken: Cell::new(false),
        }
    }

    /// The request is over without an end of its reply: gives the connection back, which the caller
    /// may use for another reply or drop, or `None` if the reply has been sent to its end.
    pub fn close(self) -> Option<Held<'static>> {
        if self.refused.get() {
            self.answer_status(500);
        }
        self.desk.close();
        if self.gone.get() {
            return None;
        }
        self.held.take()
    }

    /// Answers with an error status; nothing has been sent.
    pub fn answer_status(&self, status: u16) {
        self.scratch.outgoing.borrow_mut().clear();
        let _ = self.end_with(|fd, flags, load| {
            let header = Header {
                flags,
                aux: status,
                ..Header::new(Kind::Status, 0)
            };
            let _ = load;
            socket::send(fd, &header.encode())
        });
    }

    fn note_activity(&self) {
        if self.activity {
            let summary = self.worker.board.summary();
            summary.activity_ms.store(now_ms(), Ordering::Relaxed);
        }
    }

    /// Sends the last frame of the reply: the connection is idle before it is sent. `send` gets
    /// the socket, the flags and the load.
    #[inline]
    fn end_with(
        &self,
        send: impl FnOnce(i32, u8, u16) -> io::Result<()>,
    ) -> Result<(), ClientGone> {
        let wire = self.desk.lock();
        if wire.fd() < 0 {
            return Err(ClientGone);
        }
        let Some(held) = self.held.take() else {
            return Err(ClientGone);
        };
        // Whoever logs from now on finds no request.
        wire.close();
        let load = self.worker.load_without_this();
        let result = if self.worker.is_draining() || self.broken.get() {
            let result = send(self.fd, flag::END | flag::CLOSE, load);
            drop(held);
            result
        } else {
            if self.disarmed.get() {
                self.worker.arm(&held);
            }
            match held.give_back_pinned() {
                Ok(pinned) => {
                    let result = send(pinned.fd(), flag::END, load);
                    if result.is_err() {
                        self.worker.hang_up(pinned.fd());
                    }
                    result
                }
                Err(held) => {
                    let result = send(self.fd, flag::END, load);
                    if result.is_ok() {
                        held.hand_over(|held| self.worker.arm(held));
                    }
                    result
                }
            }
        };
        drop(wire);
        result.map_err(|_| self.client_is_gone())
    }

    fn client_is_gone(&self) -> ClientGone {
        self.gone.set(true);
        ClientGone
    }

    fn fetch(
        &self,
        buffer: &mut [u8],
        wanted: usize,
        _may_block: &MayBlock,
    ) -> Result<usize, BodyError> {
        self.note_activity();
        if !self.disarmed.replace(true)
            && let Some(held) = self.held.take()
        {
            self.worker.disarm(&held);
            self.held.set(Some(held));
        }
        let mut incoming = self.incoming.borrow_mut();
        let mut spill = self.scratch.spill.borrow_mut();
        let ask = |frame: &[u8]| {
            let wire = self.desk.lock();
            socket::send(wire.fd(), frame)
        };
        let fetched = incoming.fetch(self.fd, &mut spill, buffer, wanted, ask);
        fetched.map_err(|lost| self.lost(lost))
    }

    fn lost(&self, lost: Lost) -> BodyError {
        let status = match lost {
            Lost::Body(status) => status,
            Lost::Connection(status) => {
                self.broken.set(true);
                status
            }
        };
        BodyError::Failed { status }
    }

    fn take(&self, buffer: &mut [u8]) -> Option<Result<usize, BodyError>> {
        let mut spill = self.scratch.spill.borrow_mut();
        let taken = self.incoming.borrow_mut().take(&mut spill, buffer)?;
        Some(taken.map_err(|lost| self.lost(lost)))
    }
}

impl Exchange for WireExchange<'_> {
    fn read(&self, buffer: &mut [u8], wait: Wait<'_>) -> Result<usize, BodyError> {
        if let Some(taken) = self.take(buffer) {
            return taken;
        }
        match wait {
            Wait::No => Err(BodyError::WouldBlock),
            Wait::Yes(may_block) => self.fetch(buffer, 1, may_block),
        }
    }

    fn read_full(&self, buffer: &mut [u8], may_block: &MayBlock) -> Result<usize, BodyError> {
        let mut filled = 0;
        while filled < buffer.len() {
            let rest = &mut buffer[filled..];
            let count = match self.take(rest) {
                Some(taken) => taken?,
                None => self.fetch(rest, rest.len(), may_block)?,
            };
            if count == 0 {
                break;
            }
            filled += count;
        }
        Ok(filled)
    }

    fn start(&self, head: &ResponseHead<'_>) {
        if self.scratch.outgoing.borrow_mut().start(head).is_err() {
            // For the application it is as if the client had gone.
            let line = format!(
                "{}the response headers are larger than 1 MiB; send fewer or smaller ones",
                messages::WORKER_HEAD_TOO_LARGE
            );
            self.desk.log(self.worker, Level::Error, line.as_bytes());
            self.gone.set(true);
            self.refused.set(true);
        }
    }

    #[inline]
    fn append(&self, data: &[u8]) {
        self.scratch.outgoing.borrow_mut().append(data);
    }

    fn append_borrowed(&self, data: Borrowed) {
        self.scratch.outgoing.borrow_mut().append_borrowed(data);
    }

    fn append_file(&self, fd: i32, offset: u64, length: u64) -> Result<(), i32> {
        // SAFETY: a descriptor of the caller; the duplicate is ours.
        let duplicate = unsafe {
            let duplicate = libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 0);
            if duplicate < 0 {
                return Err(io::Error::last_os_error().raw_os_error().unwrap_or(0));
            }
            OwnedFd::from_raw_fd(duplicate)
        };
        let range = FileRange { offset, length };
        self.scratch
            .outgoing
            .borrow_mut()
            .append_file(duplicate, range);
        Ok(())
    }

    fn send(&self, how: Send, _: &MayBlock) -> Result<(), ClientGone> {
        let outgoing = &mut *self.scratch.outgoing.borrow_mut();
        if self.gone.get() {
            outgoing.clear();
            return Err(ClientGone);
        }
        self.note_activity();
        let result = match how {
            Send::End => {
                self.end_with(|fd, flags, load| match outgoing.as_one_frame(flags, load) {
                    Some(frame) => socket::send(fd, frame),
                    None => outgoing.send_frames(fd, 0, flags, load, || fd),
                })
            }
            Send::Keep if outgoing.is_empty() => Ok(()),
            Send::Flush | Send::Keep => {
                let flags = if how == Send::Flush { flag::FLUSH } else { 0 };
                let wire = self.desk.lock();
                let fd = wire.fd();
                let sent = match outgoing.as_one_frame(flags, 0) {
                    Some(frame) => socket::send(fd, frame),
                    None => outgoing.send_frames(fd, 0, flags, 0, || fd),
                };
                sent.map_err(|_| self.client_is_gone())
            }
        };
        outgoing.sent();
        result
    }

    fn abort(&self, _: &MayBlock) {
        self.scratch.outgoing.borrow_mut().clear();
        if self.gone.get() {
            return;
        }
        let _ = self
            .end_with(|fd, flags, load| socket::send(fd, &outgoing::end_frame(true, flags, load)));
    }

    fn log(&self, level: Level, _foreign: bool, line: &[u8]) {
        self.desk.log(self.worker, level, line);
    }

    fn log_from(&self, level: Level, _foreign: bool, source: Source<'_>, line: &[u8]) {
        self.desk.log_from(self.worker, level, source, line);
    }

    fn logs(&self, level: Level, _foreign: bool) -> bool {
        level as u8 <= self.log_level
    }

    fn client_gone(&self) -> bool {
        self.gone.get()
    }
}
