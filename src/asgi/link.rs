//! One connection to httpd, as its event loop has it: never blocks.

use core::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::http::Http;
use super::websocket::Session;
use crate::daemon::wire::{HEADER, Header, Kind, LogLine, flag};
use crate::exchange::{Level, Source};

/// With more than this waiting to be sent, `send()` of an application waits.
pub const HIGH_WATER: usize = 64 * 1024;
/// With less than this it goes on.
pub const LOW_WATER: usize = 16 * 1024;
/// Lines of the log are dropped when so much waits: an application must not fill the memory.
const LOG_LIMIT: usize = 4 * 1024 * 1024;

/// What a connection is used for.
#[derive(Clone)]
pub enum Phase {
    /// The next request is awaited.
    Idle,
    /// An HTTP request is being served.
    Http(Arc<Http>),
    /// It is a tunnel.
    WebSocket(Arc<Session>),
    /// It is closed as soon as everything has been sent: what comes is not looked at. (After a
    /// tunnel it is the end user's own bytes.)
    Closing,
}

/// What waits to be sent.
enum Piece {
    Bytes {
        bytes: Vec<u8>,
        sent: usize,
    },
    /// A frame on whose first byte a descriptor rides.
    File(Vec<u8>, OwnedFd),
}

/// A connection. Touched by its loop's thread only.
pub struct Link {
    socket: RefCell<Option<OwnedFd>>,
    fd: RawFd,
    /// What epoll reports for it.
    pub token: u64,
    epoll: RawFd,
    /// What it is used for.
    pub phase: RefCell<Phase>,
    /// The beginning of a frame.
    pub input: RefCell<Vec<u8>>,
    output: RefCell<VecDeque<Piece>>,
    waiting: Cell<usize>,
    watches_room: Cell<bool>,
    /// Nothing more is read from it at present: there may be something.
    pub stopped: Cell<bool>,
    /// The answer to a READ of an earlier request has not come to its end: nobody wants it.
    pub owes_body: Cell<bool>,
}

/// What became of something that was to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// It has been sent, or is kept until there is room.
    Accepted,
    /// The peer has gone.
    Gone,
}

/// What reading gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Got {
    /// So many bytes.
    Bytes(usize),
    /// Nothing more at present.
    Nothing,
    /// The peer has gone.
    End,
}

impl Link {
    /// Takes over a connected socket, and has `epoll` report it as `token`.
    ///
    /// # Errors
    /// The system's.
    pub fn new(socket: OwnedFd, epoll: RawFd, token: u64) -> io::Result<Rc<Link>> {
        let fd = socket.as_raw_fd();
        let link = Link {
            socket: RefCell::new(Some(socket)),
            fd,
            token,
            epoll,
            phase: RefCell::new(Phase::Idle),
            input: RefCell::default(),
            output: RefCell::default(),
            waiting: Cell::new(0),
            watches_room: Cell::new(false),
            stopped: Cell::new(false),
            owes_body: Cell::new(false),
        };
        link.watch(libc::EPOLL_CTL_ADD, 0)?;
        open_descriptors().push(fd);
        Ok(Rc::new(link))
    }

    fn watch(&self, operation: i32, more: i32) -> io::Result<()> {
        let events = libc::EPOLLIN | libc::EPOLLRDHUP | libc::EPOLLET | more;
        let mut event = libc::epoll_event {
            events: events as u32,
            u64: self.token,
        };
        // SAFETY: open descriptors and a valid structure.
        match unsafe { libc::epoll_ctl(self.epoll, operation, self.fd, &mut event) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Whether the connection has been closed on this side.
    pub fn is_closed(&self) -> bool {
        self.socket.borrow().is_none()
    }

    /// Closes it. What waits is lost.
    pub fn close(&self) {
        self.output.borrow_mut().clear();
        self.waiting.set(0);
        *self.input.borrow_mut() = Vec::new();
        drop(self.drop_socket());
    }

    fn drop_socket(&self) -> Option<OwnedFd> {
        let socket = self.socket.take()?;
        open_descriptors().retain(|fd| *fd != self.fd);
        Some(socket)
    }

    /// Closes it as soon as everything has been sent; whether that is now.
    pub fn close_when_sent(&self) -> bool {
        *self.phase.borrow_mut() = Phase::Closing;
        if self.waiting.get() == 0 {
            self.close();
            return true;
        }
        false
    }

    /// Gives the socket away; nothing waits.
    pub fn into_socket(&self) -> Option<OwnedFd> {
        let socket = self.drop_socket()?;
        // SAFETY: open descriptors. It fails only if it is not in the set.
        unsafe {
            libc::epoll_ctl(
                self.epoll,
                libc::EPOLL_CTL_DEL,
                self.fd,
                core::ptr::null_mut(),
            )
        };
        Some(socket)
    }

    /// Reads into `buffer`.
    pub fn read(&self, buffer: &mut [u8]) -> Got {
        if self.is_closed() {
            return Got::End;
        }
        loop {
            // SAFETY: a borrowed buffer; an open socket.
            let got = unsafe {
                libc::recv(
                    self.fd,
                    buffer.as_mut_ptr().cast(),
                    buffer.len(),
                    libc::MSG_DONTWAIT,
                )
            };
            match usize::try_from(got) {
                Ok(0) => return Got::End,
                Ok(got) => return Got::Bytes(got),
                Err(_) => match io::Error::last_os_error().kind() {
                    io::ErrorKind::WouldBlock => return Got::Nothing,
                    io::ErrorKind::Interrupted => {}
                    _ => return Got::End,
                },
            }
        }
    }

    /// Bytes that wait to be sent.
    #[inline]
    pub fn waiting(&self) -> usize {
        self.waiting.get()
    }

    /// Sends pieces of bytes one after another; what there is no room for is kept.
    pub fn send<const N: usize>(&self, pieces: [&[u8]; N]) -> Sent {
        if self.is_closed() {
            return Sent::Gone;
        }
        let mut sent = 0;
        if self.output.borrow().is_empty() {
            match self.send_now(pieces) {
                Ok(count) => sent = count,
                Err(_) => return Sent::Gone,
            }
        }
        let total: usize = pieces.iter().map(|piece| piece.len()).sum();
        if sent < total {
            self.keep(pieces, sent, total - sent);
        }
        Sent::Accepted
    }

    fn send_now<const N: usize>(&self, pieces: [&[u8]; N]) -> io::Result<usize> {
        let mut vectors = pieces.map(|piece| libc::iovec {
            iov_base: piece.as_ptr().cast_mut().cast(),
            iov_len: piece.len(),
        });
        // SAFETY: plain data for which all zeroes is a value.
        let mut message: libc::msghdr = unsafe { core::mem::zeroed() };
        message.msg_iov = vectors.as_mut_ptr();
        message.msg_iovlen = N as _;
        loop {
            let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
            // SAFETY: the vectors are those of borrowed slices.
            let sent = unsafe { libc::sendmsg(self.fd, &message, flags) };
            match usize::try_from(sent) {
                Ok(sent) => return Ok(sent),
                Err(_) => {
                    let error = io::Error::last_os_error();
                    match error.kind() {
                        io::ErrorKind::Interrupted => {}
                        io::ErrorKind::WouldBlock => return Ok(0),
                        _ => return Err(error),
                    }
                }
            }
        }
    }

    #[cold]
    fn keep<const N: usize>(&self, pieces: [&[u8]; N], mut skip: usize, count: usize) {
        let mut bytes = Vec::with_capacity(count);
        for piece in pieces {
            let from = skip.min(piece.len());
            skip -= from;
            bytes.extend_from_slice(&piece[from..]);
        }
        self.waiting.set(self.waiting.get() + bytes.len());
        self.output
            .borrow_mut()
            .push_back(Piece::Bytes { bytes, sent: 0 });
        self.watch_room();
    }

    /// Sends a frame with a descriptor.
    pub fn send_file(&self, frame: Vec<u8>, file: OwnedFd) -> Sent {
        if self.is_closed() {
            return Sent::Gone;
        }
        self.waiting.set(self.waiting.get() + frame.len());
        self.output.borrow_mut().push_back(Piece::File(frame, file));
        self.flush()
    }

    fn watch_room(&self) {
        if !self.watches_room.replace(true) {
            let _ = self.watch(libc::EPOLL_CTL_MOD, libc::EPOLLOUT);
        }
    }

    /// Sends what waits, as far as there is room.
    pub fn flush(&self) -> Sent {
        if self.is_closed() {
            return Sent::Gone;
        }
        let mut output = self.output.borrow_mut();
        while let Some(piece) = output.front_mut() {
            let (result, whole) = match piece {
                Piece::Bytes { bytes, sent } => {
                    let result = self.send_now([&bytes[*sent..]]);
                    if let Ok(count) = result {
                        *sent += count;
                    }
                    (result, *sent == bytes.len())
                }
                Piece::File(frame, file) => {
                    let result = send_descriptor(self.fd, frame, file.as_raw_fd());
                    let whole = matches!(result, Ok(count) if count > 0);
                    (result, whole)
                }
            };
            match result {
                Ok(count) => {
                    let count = match piece {
                        // A frame with a descriptor is small enough to be sent whole, or not at all.
                        Piece::File(frame, _) if whole => frame.len(),
                        _ => count,
                    };
                    self.waiting.set(self.waiting.get() - count);
                    if !whole {
                        drop(output);
                        self.watch_room();
                        return Sent::Accepted;
                    }
                    output.pop_front();
                }
                Err(_) => {
                    drop(output);
                    return Sent::Gone;
                }
            }
        }
        drop(output);
        if self.watches_room.replace(false) {
            let _ = self.watch(libc::EPOLL_CTL_MOD, 0);
        }
        if matches!(*self.phase.borrow(), Phase::Closing) {
            self.close();
        }
        Sent::Accepted
    }

    /// A frame without payload.
    pub fn send_header(&self, kind: Kind, flags: u8, aux: u16) -> Sent {
        let header = Header {
            flags,
            aux,
            ..Header::new(kind, 0)
        };
        self.send([&header.encode()])
    }

    /// A line for the log of the request.
    pub fn log(&self, level: Level, source: Option<Source<'_>>, line: &[u8]) -> bool {
        if self.is_closed() || self.waiting.get() > LOG_LIMIT {
            return false;
        }
        let (flags, payload) = match source {
            None => (0, line.to_vec()),
            Some(source) => {
                let line = LogLine {
                    file: source.file.bytes(),
                    number: source.line,
                    line,
                };
                (flag::SOURCE, line.encode())
            }
        };
        let header = Header {
            flags,
            aux: level as u16,
            ..Header::new(Kind::Log, payload.len() as u32)
        };
        self.send([&header.encode(), &payload]) == Sent::Accepted
    }
}

/// The descriptors of all connections of the process: what a child that an application forks has to
/// close, so that httpd sees the end of a connection when this process ends it.
static OPEN: Mutex<Vec<RawFd>> = Mutex::new(Vec::new());

fn open_descriptors() -> MutexGuard<'static, Vec<RawFd>> {
    OPEN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Closes the connections in a process that has been forked off this one.
pub fn close_in_forked_child() {
    // Somebody may have held the lock when the process was forked: then nothing can be done.
    if let Ok(descriptors) = OPEN.try_lock() {
        for fd in descriptors.iter() {
            // SAFETY: the descriptor of an open connection, of no use to this process.
            unsafe { libc::close(*fd) };
        }
    }
}

/// Sends a frame with a descriptor, whole or not at all: it is smaller than any socket's buffer.
fn send_descriptor(fd: RawFd, frame: &[u8], descriptor: RawFd) -> io::Result<usize> {
    #[repr(C, align(8))]
    struct Control([u8; 64]);
    debug_assert!(frame.len() <= HEADER + 16);
    let mut control = Control([0; 64]);
    let mut vector = libc::iovec {
        iov_base: frame.as_ptr().cast_mut().cast(),
        iov_len: frame.len(),
    };
    // SAFETY: plain data for which all zeroes is a value; the control block is aligned and large
    // enough for one descriptor.
    let sent = unsafe {
        let mut message: libc::msghdr = core::mem::zeroed();
        message.msg_iov = &mut vector;
        message.msg_iovlen = 1;
        message.msg_control = control.0.as_mut_ptr().cast();
        message.msg_controllen = libc::CMSG_SPACE(size_of::<i32>() as u32) as _;
        let header = libc::CMSG_FIRSTHDR(&message);
        (*header).cmsg_level = libc::SOL_SOCKET;
        (*header).cmsg_type = libc::SCM_RIGHTS;
        (*header).cmsg_len = libc::CMSG_LEN(size_of::<i32>() as u32) as _;
        libc::CMSG_DATA(header)
            .cast::<i32>()
            .write_unaligned(descriptor);
        libc::sendmsg(fd, &message, libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT)
    };
    match usize::try_from(sent) {
        Ok(sent) => Ok(sent),
        Err(_) => {
            let error = io::Error::last_os_error();
            match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(0),
                _ => Err(error),
            }
        }
    }
}
