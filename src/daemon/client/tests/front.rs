//! An end user in memory.

use core::cell::{Cell, RefCell};
use core::time::Duration;
use std::collections::VecDeque;
use std::io::Write;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;

use crate::daemon::client::Front;
use crate::exchange::abi::outcome;
use crate::exchange::memory::Borrowed;
use crate::exchange::response::ResponseHead;
use crate::exchange::{BodyError, ClientGone, Exchange, Level, MayBlock, Pair, Send, Text, Wait};

/// What the end user sends of the body.
#[derive(Clone, Debug)]
pub enum Body {
    /// Has arrived.
    Here(Vec<u8>),
    /// Arrives when it is waited for.
    Later(Vec<u8>),
    /// Cannot be read.
    Failed(u16),
}

/// What the response was, in order; neighbouring data joined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    Interim(u16, Vec<(String, String)>),
    Trailers(Vec<(String, String)>),
    Start(u16),
    Data(Vec<u8>),
    Flush,
    End,
    Abort,
    /// A switch of protocols, and what had come behind it.
    Switch(Vec<u8>),
}

/// A part of a brigade.
pub enum Part {
    Copied(Vec<u8>),
    Lent(Borrowed),
    File(Vec<u8>),
}

pub struct FakeFront {
    pub body: RefCell<VecDeque<Body>>,
    pub expects_continue: bool,
    pub head_request: bool,
    pub seen: RefCell<Vec<Seen>>,
    pub logged: RefCell<Vec<(Level, String)>>,
    pub retry: Cell<u32>,
    /// Reads that were allowed to wait.
    pub waits: Cell<u32>,
    /// The end user leaves after so many sends.
    pub leaves_after: Cell<Option<u32>>,
    /// Where the response goes; what the socket does not take stays in `pending`, as in httpd.
    pub socket: Option<UnixStream>,
    pub pending: RefCell<VecDeque<u8>>,
    pub appended: RefCell<Vec<Part>>,
    pub sent: Cell<bool>,
    pub gone: Cell<bool>,
    pub timeout: Cell<Duration>,
    pub closes: Cell<bool>,
    /// Content-Length of the response.
    pub length: Cell<i64>,
    /// How often it was asked whether the end user has gone.
    pub looks: Cell<u32>,
    /// Seen to have gone when it has been asked so often.
    pub gone_after_looks: Option<u32>,
    /// The worker's socket after a switch of protocols.
    pub tunnel: Cell<Option<OwnedFd>>,
}

impl Default for FakeFront {
    fn default() -> Self {
        FakeFront {
            body: RefCell::default(),
            expects_continue: false,
            head_request: false,
            seen: RefCell::default(),
            logged: RefCell::default(),
            retry: Cell::default(),
            waits: Cell::default(),
            leaves_after: Cell::default(),
            socket: None,
            pending: RefCell::default(),
            appended: RefCell::default(),
            sent: Cell::default(),
            gone: Cell::default(),
            timeout: Cell::new(Duration::from_secs(20)),
            closes: Cell::default(),
            length: Cell::new(-1),
            looks: Cell::default(),
            gone_after_looks: None,
            tunnel: Cell::default(),
        }
    }
}

impl FakeFront {
    /// All body bytes that were sent on.
    pub fn data(&self) -> Vec<u8> {
        let seen = self.seen.borrow();
        seen.iter().fold(Vec::new(), |mut all, seen| {
            if let Seen::Data(data) = seen {
                all.extend_from_slice(data);
            }
            all
        })
    }

    /// The first line logged with a code.
    pub fn code(&self) -> Option<String> {
        let logged = self.logged.borrow();
        let line = logged.iter().find(|(_, line)| line.starts_with("RWSGI"));
        line.map(|(_, line)| line[..9].to_owned())
    }

    fn note(&self, what: Seen) {
        let mut seen = self.seen.borrow_mut();
        match (seen.last_mut(), what) {
            (Some(Seen::Data(before)), Seen::Data(more)) => before.extend_from_slice(&more),
            (_, what) => seen.push(what),
        }
    }

    /// Writes what is pending, as far as the socket takes it; all with `block`.
    fn write(&self, block: bool) {
        let Some(mut socket) = self.socket.as_ref() else {
            return;
        };
        let mut pending = self.pending.borrow_mut();
        socket.set_nonblocking(!block).unwrap();
        while !pending.is_empty() {
            match socket.write(pending.as_slices().0) {
                Ok(count) => drop(pending.drain(..count)),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
                Err(_) => {
                    self.gone.set(true);
                    break;
                }
            }
        }
    }

    /// What httpd's network filter does: blocks for a flush, and for more than 64 KiB.
    fn network(&self, data: &[u8], flush: bool) {
        self.pending.borrow_mut().extend(data);
        self.write(flush || self.pending.borrow().len() >= 65_536);
    }
}

impl Exchange for FakeFront {
    fn read(&self, buffer: &mut [u8], wait: Wait<'_>) -> Result<usize, BodyError> {
        assert!(!buffer.is_empty());
        if matches!(wait, Wait::Yes(_)) {
            self.waits.set(self.waits.get() + 1);
        }
        let mut body = self.body.borrow_mut();
        match body.pop_front() {
            None => Ok(0),
            Some(Body::Failed(status)) => {
                body.push_front(Body::Failed(status));
                Err(BodyError::Failed { status })
            }
            Some(Body::Later(data)) if matches!(wait, Wait::No) => {
                body.push_front(Body::Later(data));
                Err(BodyError::WouldBlock)
            }
            Some(Body::Later(mut data) | Body::Here(mut data)) => {
                let count = data.len().min(buffer.len());
                buffer[..count].copy_from_slice(&data[..count]);
                data.drain(..count);
                if !data.is_empty() {
                    body.push_front(Body::Here(data));
                }
                Ok(count)
            }
        }
    }

    fn start(&self, head: &ResponseHead<'_>) {
        assert!(!self.sent.get(), "a head after data");
        self.note(Seen::Start(head.status));
        self.length.set(head.content_length);
    }

    fn append(&self, data: &[u8]) {
        self.appended.borrow_mut().push(Part::Copied(data.to_vec()));
    }

    fn append_borrowed(&self, data: Borrowed) {
        self.appended.borrow_mut().push(Part::Lent(data));
    }

    fn append_file(&self, fd: i32, offset: u64, length: u64) -> Result<(), i32> {
        // SAFETY: the caller's descriptor, for the time of the call.
        let file = unsafe { BorrowedFd::borrow_raw(fd) };
        let file = std::fs::File::from(file.try_clone_to_owned().unwrap());
        let mut data = vec![0; length as usize];
        file.read_exact_at(&mut data, offset).unwrap();
        self.appended.borrow_mut().push(Part::File(data));
        Ok(())
    }

    fn send(&self, how: Send, _: &MayBlock) -> Result<(), ClientGone> {
        self.sent.set(true);
        let left = self.leaves_after.get();
        if left == Some(0) {
            self.gone.set(true);
        }
        self.leaves_after
            .set(left.map(|left| left.saturating_sub(1)));
        let mut all = Vec::new();
        for part in self.appended.borrow_mut().drain(..) {
            match part {
                Part::Copied(data) | Part::File(data) => all.extend_from_slice(&data),
                // SAFETY: the contract of `append_borrowed`: valid until this call returns.
                Part::Lent(lent) => all.extend_from_slice(unsafe {
                    core::slice::from_raw_parts(lent.as_ptr(), lent.len())
                }),
            }
        }
        if self.gone.get() {
            return Err(ClientGone);
        }
        self.network(&all, how != Send::Keep);
        if !all.is_empty() {
            self.note(Seen::Data(all));
        }
        match how {
            Send::Flush => self.note(Seen::Flush),
            Send::End => self.note(Seen::End),
            Send::Keep => {}
        }
        Ok(())
    }

    fn abort(&self, _: &MayBlock) {
        self.appended.borrow_mut().clear();
        self.note(Seen::Abort);
    }

    fn log(&self, level: Level, foreign: bool, line: &[u8]) {
        assert!(!foreign);
        let line = String::from_utf8_lossy(line).into_owned();
        self.logged.borrow_mut().push((level, line));
    }

    fn client_gone(&self) -> bool {
        self.gone.get()
    }
}

impl Front for FakeFront {
    fn has_body(&self) -> bool {
        !self.body.borrow().is_empty() || self.expects_continue
    }

    fn expects_continue(&self) -> bool {
        self.expects_continue && self.waits.get() == 0
    }

    fn body_ended(&self) -> bool {
        self.body.borrow().is_empty()
    }

    fn is_head(&self) -> bool {
        self.head_request
    }

    fn has_sent(&self) -> bool {
        self.sent.get()
    }

    fn has_answered(&self) -> bool {
        false
    }

    fn socket(&self) -> Option<RawFd> {
        self.socket.as_ref().map(AsRawFd::as_raw_fd)
    }

    fn is_backed_up(&self) -> bool {
        self.write(false);
        !self.pending.borrow().is_empty() && !self.gone.get()
    }

    fn append_unmapped(&self, fd: RawFd, offset: u64, length: u64) -> Result<(), i32> {
        self.append_file(fd, offset, length)
    }

    fn set_write_timeout(&self, timeout: Duration) -> Duration {
        self.timeout.replace(timeout)
    }

    fn write_timeout(&self) -> Duration {
        self.timeout.get()
    }

    fn give_up(&self) {
        self.gone.set(true);
    }

    fn close_after_response(&self) {
        self.closes.set(true);
    }

    fn has_gone(&self) -> bool {
        self.looks.set(self.looks.get() + 1);
        self.gone.get()
            || self
                .gone_after_looks
                .is_some_and(|looks| self.looks.get() >= looks)
    }

    fn interim(&self, head: &ResponseHead<'_>) {
        assert!(!self.sent.get(), "an interim response after data");
        let fields = texts(head.headers.items());
        self.note(Seen::Interim(head.status, fields));
    }

    fn trailers(&self, fields: &[Pair<'_>]) {
        self.note(Seen::Trailers(texts(fields)));
    }

    fn retry_after(&self, seconds: u32) {
        self.retry.set(seconds);
    }

    fn switch(&self, head: &ResponseHead<'_>, socket: OwnedFd, received: &[u8]) -> i32 {
        assert_eq!(head.status, 101);
        self.note(Seen::Switch(received.to_vec()));
        self.tunnel.set(Some(socket));
        outcome::DONE
    }
}

fn texts(fields: &[Pair<'_>]) -> Vec<(String, String)> {
    let text = |text: Text<'_>| String::from_utf8_lossy(text.bytes()).into_owned();
    let pair = |field: &Pair<'_>| (text(field.name), text(field.value));
    fields.iter().map(pair).collect()
}
