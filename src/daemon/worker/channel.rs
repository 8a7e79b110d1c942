//! The control channel to the supervisor.

use core::sync::atomic::{AtomicU32, Ordering};
use std::io::{self, Write};

use crate::daemon::control::{FromWorker, LARGEST, ToWorker};
use crate::daemon::fds;
use crate::exchange::Level;

/// Seconds that sending may take.
const LONGEST_SEND: u32 = 10;

/// The worker's end. Packets are atomic, so any thread may send.
pub struct Channel {
    fd: i32,
    /// The highest level that is logged.
    level: u32,
    /// The process that it belongs to; processes that the application forks must not use it.
    owner: AtomicU32,
}

/// What [`Channel::receive`] gave.
#[derive(Debug)]
pub enum Received {
    /// A message.
    Message(ToWorker),
    /// Bytes that are none.
    Garbage,
    /// Nothing there.
    Nothing,
    /// The supervisor is gone.
    Closed,
}

impl Channel {
    /// The channel at descriptor `fd`; lines above `level` are dropped.
    pub fn new(fd: i32, level: u32) -> Channel {
        Channel {
            fd,
            level,
            owner: AtomicU32::new(std::process::id()),
        }
    }

    /// The channel at its usual descriptor.
    pub fn usual(level: u32) -> Channel {
        // A supervisor that hangs must not make requests hang.
        super::socket::set_send_timeout(fds::CONTROL, LONGEST_SEND);
        Channel::new(fds::CONTROL, level)
    }

    /// The descriptor, to wait for.
    pub fn fd(&self) -> i32 {
        self.fd
    }

    /// This process has been forked, and the channel is its own now.
    pub fn adopt(&self) {
        super::socket::set_send_timeout(self.fd, LONGEST_SEND);
        self.owner.store(std::process::id(), Ordering::Relaxed);
    }

    /// Sends a message. A supervisor that is gone is noticed elsewhere.
    ///
    /// # Errors
    /// The system's.
    pub fn send(&self, message: &FromWorker) -> io::Result<()> {
        let packet = message.encode();
        loop {
            // SAFETY: borrowed bytes; an open socket.
            let sent = unsafe {
                libc::send(
                    self.fd,
                    packet.as_ptr().cast(),
                    packet.len(),
                    libc::MSG_NOSIGNAL,
                )
            };
            if sent >= 0 {
                return Ok(());
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
    }

    /// Sends a message whose loss changes nothing: nobody is there to hear it.
    pub fn tell(&self, message: &FromWorker) {
        let _ = self.send(message);
    }

    /// Whether lines of this level are logged.
    pub fn logs(&self, level: Level) -> bool {
        level as u32 <= self.level
    }

    /// Logs a line that belongs to no request.
    pub fn log(&self, level: Level, line: &[u8]) {
        if !self.logs(level) {
            return;
        }
        let message = FromWorker::Log {
            level: level as u8,
            line: line.to_vec(),
        };
        let own = self.owner.load(Ordering::Relaxed) == std::process::id();
        if !own || self.send(&message).is_err() {
            let _ = io::stderr().write_all(&[line, b"\n"].concat());
        }
    }

    /// Receives one message without waiting.
    pub fn receive(&self) -> Received {
        let mut packet = vec![0; LARGEST];
        loop {
            // SAFETY: a borrowed buffer; an open socket.
            let got = unsafe {
                libc::recv(
                    self.fd,
                    packet.as_mut_ptr().cast(),
                    packet.len(),
                    libc::MSG_DONTWAIT,
                )
            };
            match usize::try_from(got) {
                Ok(0) => return Received::Closed,
                Ok(length) => {
                    return match ToWorker::decode(&packet[..length]) {
                        Ok(message) => Received::Message(message),
                        Err(_) => Received::Garbage,
                    };
                }
                Err(_) => match io::Error::last_os_error().kind() {
                    io::ErrorKind::Interrupted => {}
                    io::ErrorKind::WouldBlock => return Received::Nothing,
                    _ => return Received::Closed,
                },
            }
        }
    }
}
