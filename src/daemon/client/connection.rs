//! One connection to a worker: the system calls.

use core::mem::{MaybeUninit, offset_of, size_of};
use core::time::Duration;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use libc::{c_int, c_void, sockaddr_un, socklen_t};

/// The path of a listening socket, as the kernel wants it.
#[derive(Clone)]
pub struct Address {
    raw: sockaddr_un,
    length: socklen_t,
}

impl Address {
    /// `None` if the path is empty, has a NUL or is too long for the kernel.
    pub fn new(path: &[u8]) -> Option<Address> {
        // SAFETY: all fields are plain data.
        let mut raw: sockaddr_un = unsafe { core::mem::zeroed() };
        raw.sun_family = libc::AF_UNIX as libc::sa_family_t;
        if path.is_empty() || path.contains(&0) || path.len() >= raw.sun_path.len() {
            return None;
        }
        for (place, &byte) in raw.sun_path.iter_mut().zip(path) {
            *place = byte as libc::c_char;
        }
        let length = offset_of!(sockaddr_un, sun_path) + path.len() + 1;
        Some(Address {
            raw,
            length: length as socklen_t,
        })
    }
}

/// What a connection is made with.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How long one write may take; not zero.
    pub write_timeout: Duration,
    /// How long one read may take; not zero.
    pub read_timeout: Duration,
    /// `SO_SNDBUF`, or 0.
    pub send_buffer: usize,
    /// `SO_RCVBUF`, or 0.
    pub receive_buffer: usize,
}

/// Why a frame could not be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendError {
    /// The peer has gone.
    Gone,
    /// It took too long.
    Timeout,
}

/// What a receive brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// So many bytes; at least one.
    Bytes(usize),
    /// The peer has gone, everything that was sent to it had been read.
    Eof,
    /// The peer has gone with some bytes unread.
    Reset,
    /// Nothing is there: at once if the call was not to wait, else for as long as a read may take.
    Nothing,
}

/// A connected socket in blocking mode, with the timeouts of [`Options`], close-on-exec.
#[derive(Debug)]
pub struct Connection {
    socket: OwnedFd,
}

/// Descriptors that may come with one receive; the kernel closes any more.
const DESCRIPTORS: usize = 4;
/// Bytes of control data for them.
// SAFETY: computes a size.
const CONTROL: usize =
    unsafe { libc::CMSG_SPACE((DESCRIPTORS * size_of::<RawFd>()) as u32) } as usize;

/// Control data, aligned as the kernel wants it.
#[repr(C, align(8))]
struct Control([MaybeUninit<u8>; CONTROL]);

fn last_errno() -> i32 {
    io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

impl Connection {
    /// Connects. With `wait` the kernel waits that long for a place in the listener's queue.
    ///
    /// # Errors
    /// An errno: EAGAIN for a queue that is full, ECONNREFUSED or ENOENT if nobody listens.
    pub fn connect(
        address: &Address,
        options: &Options,
        wait: Option<Duration>,
    ) -> Result<Connection, i32> {
        let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC;
        let at_once = if wait.is_some() {
            0
        } else {
            libc::SOCK_NONBLOCK
        };
        // SAFETY: no pointers; a descriptor that nobody else knows becomes owned.
        let socket = unsafe {
            match libc::socket(libc::AF_UNIX, kind | at_once, 0) {
                -1 => return Err(last_errno()),
                fd => OwnedFd::from_raw_fd(fd),
            }
        };
        let connection = Connection { socket };
        connection.set_buffers(options)?;
        if let Some(wait) = wait {
            connection.set(libc::SO_SNDTIMEO, &timeval(wait))?;
        }
        loop {
            // SAFETY: a valid address of that length.
            let result = unsafe {
                let raw: *const sockaddr_un = &address.raw;
                libc::connect(connection.fd(), raw.cast(), address.length)
            };
            if result == 0 {
                break;
            }
            match last_errno() {
                // Nothing goes on in the background: it was not begun.
                libc::EINTR => {}
                errno => return Err(errno),
            }
        }
        connection.set_timeouts(options)?;
        if wait.is_none() {
            connection.set_blocking()?;
        }
        Ok(connection)
    }

    /// Takes a socket that is connected already.
    ///
    /// # Errors
    /// An errno.
    pub fn adopt(socket: OwnedFd, options: &Options) -> Result<Connection, i32> {
        let connection = Connection { socket };
        connection.set_buffers(options)?;
        connection.set_timeouts(options)?;
        connection.set_blocking()?;
        Ok(connection)
    }

    fn set_buffers(&self, options: &Options) -> Result<(), i32> {
        for (option, size) in [
            (libc::SO_SNDBUF, options.send_buffer),
            (libc::SO_RCVBUF, options.receive_buffer),
        ] {
            if size > 0 {
                let size = c_int::try_from(size).unwrap_or(c_int::MAX);
                self.set(option, &size)?;
            }
        }
        Ok(())
    }

    fn set_timeouts(&self, options: &Options) -> Result<(), i32> {
        self.set(libc::SO_SNDTIMEO, &timeval(options.write_timeout))?;
        self.set(libc::SO_RCVTIMEO, &timeval(options.read_timeout))
    }

    fn set_blocking(&self) -> Result<(), i32> {
        let mut off: c_int = 0;
        // SAFETY: reads one int.
        match unsafe { libc::ioctl(self.fd(), libc::FIONBIO, &raw mut off) } {
            0 => Ok(()),
            _ => Err(last_errno()),
        }
    }

    /// The socket, for other uses than requests.
    pub fn into_socket(self) -> OwnedFd {
        self.socket
    }

    /// The descriptor, for `poll`.
    #[inline]
    pub fn fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    fn set<T>(&self, option: c_int, value: &T) -> Result<(), i32> {
        // SAFETY: the kernel reads the value, of a type that each caller chooses for its option.
        let result = unsafe {
            libc::setsockopt(
                self.fd(),
                libc::SOL_SOCKET,
                option,
                core::ptr::from_ref(value).cast(),
                size_of::<T>() as socklen_t,
            )
        };
        if result == 0 {
            Ok(())
        } else {
            Err(last_errno())
        }
    }

    /// Sends all of `bytes`. May block.
    ///
    /// # Errors
    /// How much was sent then is not known.
    #[inline]
    pub fn send(&self, mut bytes: &[u8]) -> Result<(), SendError> {
        loop {
            // SAFETY: reads the bytes.
            let sent = unsafe {
                libc::send(
                    self.fd(),
                    bytes.as_ptr().cast(),
                    bytes.len(),
                    libc::MSG_NOSIGNAL,
                )
            };
            match usize::try_from(sent) {
                Ok(sent) if sent == bytes.len() => return Ok(()),
                Ok(sent) => bytes = &bytes[sent..],
                Err(_) => match last_errno() {
                    libc::EINTR => {}
                    libc::EAGAIN => return Err(SendError::Timeout),
                    _ => return Err(SendError::Gone),
                },
            }
        }
    }

    /// Appends to `memory` what has arrived, at most as much as it has room for (not 0), and to
    /// `descriptors` what came along. Waits for the first byte unless `flags` has MSG_DONTWAIT;
    /// for a full buffer with MSG_WAITALL.
    #[inline]
    pub fn receive(
        &self,
        memory: &mut Vec<u8>,
        descriptors: &mut Vec<OwnedFd>,
        flags: c_int,
    ) -> Received {
        let room = memory.spare_capacity_mut();
        debug_assert!(!room.is_empty());
        let mut piece = libc::iovec {
            iov_base: room.as_mut_ptr().cast(),
            iov_len: room.len(),
        };
        let mut control = Control([const { MaybeUninit::uninit() }; CONTROL]);
        loop {
            // SAFETY: all fields are plain data.
            let mut message: libc::msghdr = unsafe { core::mem::zeroed() };
            message.msg_iov = &raw mut piece;
            message.msg_iovlen = 1;
            message.msg_control = (&raw mut control).cast::<c_void>();
            message.msg_controllen = CONTROL as _;
            let flags = flags | libc::MSG_CMSG_CLOEXEC;
            // SAFETY: everything in the message is valid, the room writable.
            let received = unsafe { libc::recvmsg(self.fd(), &raw mut message, flags) };
            if received < 0 {
                match last_errno() {
                    libc::EINTR => continue,
                    libc::EAGAIN => return Received::Nothing,
                    _ => return Received::Reset,
                }
            }
            if message.msg_controllen > 0 {
                // SAFETY: the kernel has filled in the message.
                unsafe { take_descriptors(&message, descriptors) };
            }
            let count = received as usize;
            if count == 0 {
                return Received::Eof;
            }
            // SAFETY: the kernel has written that many bytes into the spare capacity.
            unsafe { memory.set_len(memory.len() + count) };
            return Received::Bytes(count);
        }
    }
}

/// # Safety
/// `message` is what `recvmsg` filled in; its descriptors belong to nobody yet.
#[cold]
unsafe fn take_descriptors(message: &libc::msghdr, descriptors: &mut Vec<OwnedFd>) {
    // SAFETY: the macros walk through the control data that the kernel wrote; each descriptor in
    // it is new in this process.
    unsafe {
        let mut header = libc::CMSG_FIRSTHDR(message);
        while let Some(entry) = header.as_ref() {
            if entry.cmsg_level == libc::SOL_SOCKET && entry.cmsg_type == libc::SCM_RIGHTS {
                let bytes = entry.cmsg_len - libc::CMSG_LEN(0) as usize;
                let data: *const RawFd = libc::CMSG_DATA(header).cast();
                for index in 0..bytes / size_of::<RawFd>() {
                    let fd = data.add(index).read_unaligned();
                    descriptors.push(OwnedFd::from_raw_fd(fd));
                }
            }
            header = libc::CMSG_NXTHDR(message, header);
        }
    }
}

fn timeval(duration: Duration) -> libc::timeval {
    // Zero would mean for ever.
    let duration = duration.max(Duration::from_micros(1));
    libc::timeval {
        tv_sec: libc::time_t::try_from(duration.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_usec: libc::suseconds_t::from(duration.subsec_micros()),
    }
}

/// What to wait for at a descriptor; `fd` negative: nothing.
#[derive(Clone, Copy, Debug)]
pub struct Watch {
    /// The descriptor.
    pub fd: RawFd,
    /// `POLLIN`, `POLLOUT`, `POLLRDHUP` (the peer sends nothing more); a peer that has gone is always
    /// seen.
    pub events: i16,
}

/// Waits until something happens at one of the descriptors; gives what, zeros after `timeout`.
pub fn wait<const N: usize>(watches: [Watch; N], timeout: Duration) -> [i16; N] {
    let mut set = watches.map(|watch| libc::pollfd {
        fd: watch.fd,
        events: watch.events,
        revents: 0,
    });
    let timeout = c_int::try_from(timeout.as_millis()).unwrap_or(c_int::MAX);
    // SAFETY: that many entries. A signal counts as the end of the time: callers look again.
    let ready = unsafe { libc::poll(set.as_mut_ptr(), N as libc::nfds_t, timeout) };
    set.map(|entry| if ready > 0 { entry.revents } else { 0 })
}
