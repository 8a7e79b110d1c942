//! The two ends of a tunnel.

use core::ops::Range;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use super::LARGEST;
use super::machine::{EndUser, Gone, Read, Worker};
use crate::daemon::client::connection::Received;
use crate::exchange::{Source, Text};
use crate::httpd::apache::Request;
use crate::httpd::apache::stream::{Arrived, Stream};
use crate::httpd::hooks::child::level_of;

/// The ends, without the request that they were made for.
pub struct Ends {
    /// The end user's connection.
    pub stream: Stream,
    socket: OwnedFd,
    /// So many bytes may go to the end user at once.
    window: usize,
}

impl Ends {
    /// The ends. The worker's socket may be in blocking mode.
    pub fn new(stream: Stream, socket: OwnedFd, window: usize) -> Self {
        Ends {
            stream,
            socket,
            window,
        }
    }

    /// The worker's socket.
    pub fn worker(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    /// Both, for a turn.
    pub fn both<'e>(&'e mut self, request: Option<Request<'e>>) -> (User<'e>, Peer) {
        let peer = Peer {
            socket: self.socket.as_raw_fd(),
            window: self.window,
        };
        let user = User {
            stream: &mut self.stream,
            request,
        };
        (user, peer)
    }
}

/// The end user's end.
pub struct User<'e> {
    stream: &'e mut Stream,
    request: Option<Request<'e>>,
}

/// What is read of the end user at once: as much as httpd's socket bucket and mod_ssl have.
const PIECE: usize = 8 * 1024;

impl EndUser for User<'_> {
    fn read(&mut self, take: &mut dyn FnMut(&[u8])) -> Read {
        match self.stream.read(PIECE, take) {
            Arrived::Some => Read::Some,
            Arrived::Nothing => Read::Nothing,
            Arrived::End => Read::Gone,
        }
    }

    fn write(&mut self, bytes: &[u8], pieces: &[Range<usize>]) -> Result<(), Gone> {
        if self.stream.write(bytes, pieces) {
            Ok(())
        } else {
            Err(Gone)
        }
    }

    fn is_backed_up(&mut self) -> bool {
        self.stream.connection().is_backed_up()
    }

    fn log(&mut self, level: u16, source: Option<(&[u8], u32)>, line: &[u8]) {
        let Some(request) = self.request else {
            return;
        };
        let level = level_of(u8::try_from(level).unwrap_or(u8::MAX));
        match source {
            None => request.log(level, line),
            Some((file, line_number)) => {
                let source = Source {
                    file: Text::new(file),
                    line: line_number,
                };
                request.log_from(level, source, line);
            }
        }
    }
}

/// The worker's end.
pub struct Peer {
    socket: RawFd,
    window: usize,
}

impl Worker for Peer {
    fn receive(&mut self, room: &mut [u8]) -> Received {
        let room = &mut room[..self.window.min(LARGEST)];
        loop {
            // SAFETY: writes into the room. Descriptors that may come along are closed by the
            // kernel.
            let received = unsafe {
                libc::recv(
                    self.socket,
                    room.as_mut_ptr().cast(),
                    room.len(),
                    libc::MSG_DONTWAIT,
                )
            };
            return match usize::try_from(received) {
                Ok(0) => Received::Eof,
                Ok(count) => Received::Bytes(count),
                Err(_) => match last_errno() {
                    libc::EINTR => continue,
                    libc::EAGAIN => Received::Nothing,
                    _ => Received::Reset,
                },
            };
        }
    }

    fn send(&mut self, bytes: &[u8]) -> Result<usize, Gone> {
        loop {
            // SAFETY: reads the bytes.
            let sent = unsafe {
                libc::send(
                    self.socket,
                    bytes.as_ptr().cast(),
                    bytes.len(),
                    libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
                )
            };
            return match usize::try_from(sent) {
                Ok(count) => Ok(count),
                Err(_) => match last_errno() {
                    libc::EINTR => continue,
                    libc::EAGAIN => Ok(0),
                    _ => Err(Gone),
                },
            };
        }
    }
}

fn last_errno() -> i32 {
    io::Error::last_os_error().raw_os_error().unwrap_or(0)
}
