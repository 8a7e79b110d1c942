//! A worker that follows a script.

use std::io::{ErrorKind, Read as _, Write as _};
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;

use crate::daemon::wire::{HEADER, Header, Kind, flag, reply};
use crate::exchange::response::ResponseHead;
use crate::exchange::{Pair, Slice};

/// A path for a socket that nobody else uses.
pub fn path() -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("rwsgi-client-{}-{number}.sock", std::process::id()))
}

/// One slot: its socket and the thread behind it.
pub struct Worker {
    pub path: PathBuf,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    /// Calls `script` with the listener in a thread of its own.
    pub fn start(script: impl FnOnce(UnixListener) + Send + 'static) -> Worker {
        let path = path();
        let listener = UnixListener::bind(&path).unwrap();
        Worker {
            path,
            thread: Some(std::thread::spawn(move || script(listener))),
        }
    }

    /// Calls `script` with the first connection.
    pub fn serve(script: impl FnOnce(Peer) + Send + 'static) -> Worker {
        Worker::start(move |listener| script(Peer::accept(&listener)))
    }

    /// Waits for the script's end; its panic is the test's.
    pub fn finish(mut self) {
        if let Some(thread) = self.thread.take()
            && let Err(panic) = thread.join()
        {
            std::panic::resume_unwind(panic);
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// The worker's end of a connection.
pub struct Peer(pub UnixStream);

impl Peer {
    pub fn accept(listener: &UnixListener) -> Peer {
        Peer(listener.accept().unwrap().0)
    }

    /// The next frame; `None` when the client has closed.
    pub fn frame(&mut self) -> Option<(Header, Vec<u8>)> {
        let mut bytes = [0; HEADER];
        match self.0.read_exact(&mut bytes) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return None,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
            Err(error) => panic!("{error}"),
        }
        let header = Header::decode(bytes).unwrap();
        let mut payload = vec![0; header.length as usize];
        self.0.read_exact(&mut payload).unwrap();
        Some((header, payload))
    }

    /// The next frame, which must be of this kind.
    pub fn expect(&mut self, kind: Kind) -> (Header, Vec<u8>) {
        let (header, payload) = self.frame().expect("the client has closed");
        assert_eq!(header.kind, kind);
        (header, payload)
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).unwrap();
    }

    pub fn put(&mut self, kind: Kind, flags: u8, aux: u16, payload: &[u8]) {
        let header = Header {
            flags,
            aux,
            ..Header::new(kind, payload.len() as u32)
        };
        self.send(&[&header.encode(), payload].concat());
    }

    /// A REPLY with `200 OK`.
    pub fn reply(&mut self, length: i64, body: &[u8], flags: u8) {
        self.send(&reply_frame("200 OK", &[("X-A", "b")], length, body, flags));
    }

    /// Takes a request and answers it.
    pub fn hello(&mut self) {
        self.expect(Kind::Request);
        self.reply(5, b"hello", flag::END);
    }

    /// Sends bytes with a descriptor on the first.
    pub fn send_with(&mut self, bytes: &[u8], file: &impl AsRawFd) {
        let fd = file.as_raw_fd();
        let mut piece = libc::iovec {
            iov_base: bytes.as_ptr().cast_mut().cast(),
            iov_len: bytes.len(),
        };
        let mut control = [0_u64; 4];
        // SAFETY: a message with one piece and one control entry, all on the stack; the buffer
        // has room for it.
        unsafe {
            let mut message: libc::msghdr = core::mem::zeroed();
            message.msg_iov = &raw mut piece;
            message.msg_iovlen = 1;
            message.msg_control = control.as_mut_ptr().cast();
            message.msg_controllen = libc::CMSG_SPACE(4) as _;
            let entry = libc::CMSG_FIRSTHDR(&raw const message);
            (*entry).cmsg_level = libc::SOL_SOCKET;
            (*entry).cmsg_type = libc::SCM_RIGHTS;
            (*entry).cmsg_len = libc::CMSG_LEN(4) as _;
            libc::CMSG_DATA(entry).cast::<i32>().write_unaligned(fd);
            let sent = libc::sendmsg(self.0.as_raw_fd(), &raw const message, 0);
            assert_eq!(sent, bytes.len() as isize);
        }
    }
}

pub fn reply_frame(
    line: &str,
    fields: &[(&str, &str)],
    length: i64,
    body: &[u8],
    flags: u8,
) -> Vec<u8> {
    let fields: Vec<Pair<'_>> = fields
        .iter()
        .map(|(name, value)| Pair {
            name: (*name).into(),
            value: (*value).into(),
        })
        .collect();
    let head = ResponseHead {
        status: line[..3].parse().unwrap(),
        status_line: line.into(),
        headers: Slice::new(&fields),
        content_length: length,
    };
    let mut frame = Vec::new();
    reply::encode(&head, &mut frame).unwrap();
    frame.extend_from_slice(body);
    reply::finish(&mut frame, 0, flags, 1);
    frame
}

/// An INTERIM frame.
pub fn interim_frame(line: &str, fields: &[(&str, &str)]) -> Vec<u8> {
    head_frame(Kind::Interim, line, fields, -1)
}

/// A TRAILERS frame.
pub fn trailers_frame(fields: &[(&str, &str)], length: i64) -> Vec<u8> {
    head_frame(Kind::Trailers, "200", fields, length)
}

fn head_frame(kind: Kind, line: &str, fields: &[(&str, &str)], length: i64) -> Vec<u8> {
    let mut frame = reply_frame(line, fields, length, b"", 0);
    let header = Header::new(kind, (frame.len() - HEADER) as u32);
    frame[..HEADER].copy_from_slice(&header.encode());
    frame
}
