//! System calls on the sockets of a worker: complete or an error, never in part.

use core::ffi::c_void;
use std::io;

use crate::daemon::wire::HEADER;

/// A piece of memory that is sent or filled.
#[derive(Clone, Copy)]
pub struct Span {
    /// Where it begins.
    pub start: *const u8,
    /// How long it is.
    pub length: usize,
}

impl Span {
    /// Memory to be sent.
    pub fn of(bytes: &[u8]) -> Span {
        Span {
            start: bytes.as_ptr(),
            length: bytes.len(),
        }
    }

    /// Memory to be filled.
    pub fn of_mut(bytes: &mut [u8]) -> Span {
        Span {
            start: bytes.as_mut_ptr(),
            length: bytes.len(),
        }
    }
}

/// The kernel takes no more at once.
const SPANS: usize = 1024;

/// Sends all of `bytes`, waiting as long as the socket's own time-out allows.
///
/// # Errors
/// The peer is gone or did not take it in time.
#[inline]
pub fn send(fd: i32, bytes: &[u8]) -> io::Result<()> {
    let mut rest = bytes;
    loop {
        // SAFETY: borrowed bytes; an open socket.
        let sent = unsafe { libc::send(fd, rest.as_ptr().cast(), rest.len(), libc::MSG_NOSIGNAL) };
        match usize::try_from(sent) {
            Ok(sent) if sent == rest.len() => return Ok(()),
            Ok(sent) => rest = &rest[sent..],
            Err(_) => interrupted_or(io::Error::last_os_error())?,
        }
    }
}

fn interrupted_or(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::Interrupted {
        Ok(())
    } else {
        Err(error)
    }
}

fn vectors(spans: &[Span]) -> Vec<libc::iovec> {
    spans
        .iter()
        .filter(|span| span.length > 0)
        .map(|span| libc::iovec {
            iov_base: span.start.cast_mut().cast::<c_void>(),
            iov_len: span.length,
        })
        .collect()
}

/// Takes `count` bytes off the front.
fn advance(vectors: &mut [libc::iovec], first: &mut usize, mut count: usize) {
    while let Some(vector) = vectors.get_mut(*first) {
        if count < vector.iov_len {
            // SAFETY: within the span.
            vector.iov_base = unsafe { vector.iov_base.cast::<u8>().add(count) }.cast();
            vector.iov_len -= count;
            return;
        }
        count -= vector.iov_len;
        *first += 1;
    }
}

fn message(vectors: &mut [libc::iovec]) -> libc::msghdr {
    // SAFETY: plain data for which all zeroes is a value.
    let mut message: libc::msghdr = unsafe { core::mem::zeroed() };
    message.msg_iov = vectors.as_mut_ptr();
    message.msg_iovlen = vectors.len().min(SPANS) as _;
    message
}

/// Sends all spans, one after another.
///
/// # Errors
/// As [`send`].
///
/// # Safety
/// The spans are valid for reading.
pub unsafe fn send_spans(fd: i32, spans: &[Span]) -> io::Result<()> {
    let mut vectors = vectors(spans);
    let mut first = 0;
    while first < vectors.len() {
        let message = message(&mut vectors[first..]);
        // SAFETY: the vectors are those of valid spans, by contract.
        let sent = unsafe { libc::sendmsg(fd, &message, libc::MSG_NOSIGNAL) };
        match usize::try_from(sent) {
            Ok(sent) => advance(&mut vectors, &mut first, sent),
            Err(_) => interrupted_or(io::Error::last_os_error())?,
        }
    }
    Ok(())
}

/// Sends `bytes` with a descriptor that rides on the first byte.
///
/// # Errors
/// As [`send`].
pub fn send_with_descriptor(fd: i32, bytes: &[u8], descriptor: i32) -> io::Result<()> {
    #[repr(C, align(8))]
    struct Control([u8; 64]);
    let mut control = Control([0; 64]);
    let mut vectors = vectors(&[Span::of(bytes)]);
    let mut message = message(&mut vectors);
    // SAFETY: the control block is aligned and large enough for one descriptor (24 bytes).
    let sent = unsafe {
        message.msg_control = control.0.as_mut_ptr().cast();
        message.msg_controllen = libc::CMSG_SPACE(size_of::<i32>() as u32) as _;
        let header = libc::CMSG_FIRSTHDR(&message);
        (*header).cmsg_level = libc::SOL_SOCKET;
        (*header).cmsg_type = libc::SCM_RIGHTS;
        (*header).cmsg_len = libc::CMSG_LEN(size_of::<i32>() as u32) as _;
        libc::CMSG_DATA(header)
            .cast::<i32>()
            .write_unaligned(descriptor);
        loop {
            let sent = libc::sendmsg(fd, &message, libc::MSG_NOSIGNAL);
            match usize::try_from(sent) {
                Ok(sent) => break sent,
                Err(_) => interrupted_or(io::Error::last_os_error())?,
            }
        }
    };
    send(fd, &bytes[sent..])
}

/// What a receive call gave.
#[derive(Debug, PartialEq, Eq)]
pub enum Received {
    /// So many bytes, at least one.
    Some(usize),
    /// Nothing yet.
    Nothing,
    /// The end of the connection, or an error.
    End,
}

/// Receives what is there, without waiting.
#[inline]
pub fn receive(fd: i32, buffer: &mut [u8]) -> Received {
    loop {
        // SAFETY: a borrowed buffer; an open socket.
        let got = unsafe {
            libc::recv(
                fd,
                buffer.as_mut_ptr().cast(),
                buffer.len(),
                libc::MSG_DONTWAIT,
            )
        };
        match usize::try_from(got) {
            Ok(0) => return Received::End,
            Ok(got) => return Received::Some(got),
            Err(_) => match io::Error::last_os_error().kind() {
                io::ErrorKind::WouldBlock => return Received::Nothing,
                io::ErrorKind::Interrupted => {}
                _ => return Received::End,
            },
        }
    }
}

/// Fills all of `buffer`, waiting as long as the socket's own time-out allows.
///
/// # Errors
/// `UnexpectedEof`: the peer has closed; `WouldBlock`: nothing came in time; others.
pub fn receive_exact(fd: i32, buffer: &mut [u8]) -> io::Result<()> {
    // SAFETY: borrowed for the call.
    unsafe { fill_spans(fd, &[Span::of_mut(buffer)]) }
}

/// Fills all spans, one after another.
///
/// # Errors
/// As [`receive_exact`].
///
/// # Safety
/// The spans are valid for writing, made by [`Span::of_mut`], and disjoint.
pub unsafe fn fill_spans(fd: i32, spans: &[Span]) -> io::Result<()> {
    let mut vectors = vectors(spans);
    let mut first = 0;
    while first < vectors.len() {
        let mut message = message(&mut vectors[first..]);
        // SAFETY: the vectors are those of valid spans, by contract.
        let got = unsafe { libc::recvmsg(fd, &mut message, libc::MSG_WAITALL) };
        match usize::try_from(got) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(got) => advance(&mut vectors, &mut first, got),
            Err(_) => interrupted_or(io::Error::last_os_error())?,
        }
    }
    Ok(())
}

/// The user at the other end of a UNIX socket.
///
/// # Errors
/// The system's.
pub fn peer_uid(fd: i32) -> io::Result<u32> {
    // SAFETY: plain data, filled by the call, whose size is given.
    unsafe {
        let mut credentials: libc::ucred = core::mem::zeroed();
        let mut length = size_of::<libc::ucred>() as libc::socklen_t;
        let result = libc::getsockopt(
            fd,
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut credentials).cast(),
            &mut length,
        );
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(credentials.uid)
    }
}

/// Sets how long one read or write may take; 0: for ever.
pub fn set_timeout(fd: i32, seconds: u32) {
    set_time(fd, libc::SO_RCVTIMEO, seconds);
    set_send_timeout(fd, seconds);
}

/// Sets how long one write may take; 0: for ever.
pub fn set_send_timeout(fd: i32, seconds: u32) {
    set_time(fd, libc::SO_SNDTIMEO, seconds);
}

fn set_time(fd: i32, option: i32, seconds: u32) {
    let time = libc::timeval {
        tv_sec: seconds.into(),
        tv_usec: 0,
    };
    // SAFETY: plain data of the size given. It cannot fail for a socket.
    unsafe {
        libc::setsockopt(
            fd,
            libc::SOL_SOCKET,
            option,
            (&raw const time).cast(),
            size_of::<libc::timeval>() as libc::socklen_t,
        );
    }
}

/// Room for a frame's header.
pub type HeaderBytes = [u8; HEADER];

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn large_spans_arrive_whole() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let parts: Vec<Vec<u8>> = (0..3000).map(|i| vec![i as u8; i % 700]).collect();
        let expected = parts.concat();
        let reader = std::thread::spawn(move || {
            let mut all = Vec::new();
            theirs.read_to_end(&mut all).unwrap();
            all
        });
        let spans: Vec<Span> = parts.iter().map(|part| Span::of(part)).collect();
        // SAFETY: `parts` lives.
        unsafe { send_spans(ours.as_raw_fd(), &spans).unwrap() };
        drop(ours);
        assert!(reader.join().unwrap() == expected);
    }

    #[test]
    fn filling_waits_for_all_and_tells_the_end() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let fd = ours.as_raw_fd();
        let mut buffer = [0; 4];
        assert_eq!(receive(fd, &mut buffer), Received::Nothing);
        let writer = std::thread::spawn(move || {
            for byte in b"abcdef" {
                theirs.write_all(&[*byte]).unwrap();
            }
        });
        receive_exact(fd, &mut buffer).unwrap();
        assert_eq!(&buffer, b"abcd");
        writer.join().unwrap();
        let error = receive_exact(fd, &mut buffer).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(receive(fd, &mut buffer), Received::End);
    }

    #[test]
    fn silence_ends_with_the_timeout() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        set_timeout(ours.as_raw_fd(), 1);
        let error = receive_exact(ours.as_raw_fd(), &mut [0]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn peers_are_known() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        // SAFETY: no arguments.
        let own = unsafe { libc::geteuid() };
        assert_eq!(peer_uid(ours.as_raw_fd()).unwrap(), own);
    }
}
