//! What an HTTP request may send beside its response: a file in its place, early hints before it,
//! trailers behind it.

use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;

use pyo3::ffi;

use super::send::unexpected;
use super::{Http, Stage, Trailers};
use crate::asgi::link::Sent;
use crate::asgi::message::Message;
use crate::daemon::wire::{FileRange, HEADER, Header, Kind, flag, reply};
use crate::exchange::response::ResponseHead;
use crate::exchange::{Pair, Slice, Text};
use crate::python::attach::Attached;
use crate::python::object::{Owned, bytes_of};
use crate::python::raise::{Kind as Raise, Raised, Result, raise};

impl Http {
    /// `http.response.pathsend`: httpd sends the file.
    pub(super) fn send_path(&self, py: Attached, message: &Message<'_>) -> Result<()> {
        let names = &py.interpreter().asgi().names;
        if self.stage.get() != Stage::Head {
            return Err(unexpected(py, &names.response_pathsend, self.stage.get()));
        }
        let Some(path) = message.text(py, &names.path)? else {
            let what = "http.response.pathsend needs 'path', a str";
            return Err(raise(py, Raise::Type, what));
        };
        let (file, length) = match open(path.as_str()) {
            Ok(found) => found,
            Err(error) => return Err(os_error(py, &error, path.as_str())),
        };
        let length = match self.declared.get() {
            Some(declared) if declared > length => {
                let what = "Response content shorter than Content-Length";
                return Err(raise(py, Raise::Runtime, what));
            }
            Some(declared) => declared,
            None => length,
        };
        self.sent.set(length);
        if length == 0 || self.is_head {
            self.send_data(py, &[], true);
            return Ok(());
        }
        let mut head = self.head.take();
        reply::finish(&mut head, 0, 0, 0);
        self.stage.set(Stage::Streaming);
        let load = self.event_loop.load_without_one();
        let range = FileRange { offset: 0, length };
        let ends = self.trailers.get() == Trailers::None;
        let flags = if ends { self.end_flags() } else { flag::FLUSH };
        let frame = range.encode(flags, load).to_vec();
        let mut sent = self.transmit([&head]);
        if let (Sent::Accepted, Some(link)) = (sent, &*self.link.borrow()) {
            sent = link.send_file(frame, file);
        }
        if sent == Sent::Gone {
            self.on_gone(py);
            return Ok(());
        }
        if !ends {
            self.stage.set(Stage::Trailers);
            return Ok(());
        }
        self.stage.set(Stage::Over);
        self.wake(py, &self.waiters);
        self.reply_ended();
        Ok(())
    }

    /// `http.response.early_hint`: 103 with `Link` fields (RFC 8297).
    pub(super) fn early_hint(&self, py: Attached, message: &Message<'_>) -> Result<()> {
        let names = &py.interpreter().asgi().names;
        if self.stage.get() != Stage::Silent {
            return Err(unexpected(py, &names.early_hint, self.stage.get()));
        }
        let Some(links) = message.get(py, &names.links)? else {
            return Ok(());
        };
        // SAFETY: live objects; a tuple of our own.
        let links = unsafe { Owned::from_new(ffi::PySequence_Tuple(links.as_ptr()))? };
        let mut pairs = Vec::new();
        // SAFETY: the items live as long as the tuple.
        unsafe {
            for index in 0..ffi::PyTuple_GET_SIZE(links.as_ptr()) {
                let link = ffi::PyTuple_GET_ITEM(links.as_ptr(), index);
                if ffi::PyBytes_Check(link) == 0 {
                    let what = "items of 'links' must be bytes";
                    return Err(raise(py, Raise::Type, what));
                }
                let value = bytes_of(link);
                if let Err(error) = crate::exchange::response::check_field(b"link", value) {
                    return Err(raise(py, Raise::Value, &error.about(b"link", value)));
                }
                pairs.push(Pair {
                    name: "link".into(),
                    value: Text::new(value),
                });
            }
        }
        self.send_fields(py, Kind::Interim, 103, "103 Early Hints", &pairs)
    }

    /// `http.response.trailers`: fields that follow the body.
    pub(super) fn send_trailers(&self, py: Attached, message: &Message<'_>) -> Result<()> {
        let names = &py.interpreter().asgi().names;
        let fields = message.headers(py)?;
        let more = message.truth(py, &names.more_trailers)?;
        // Both may have run code of the application.
        if self.stage.get() != Stage::Trailers {
            return Err(unexpected(py, &names.response_trailers, self.stage.get()));
        }
        if fields.content_length.is_some() {
            let what = "Content-Length cannot be among the trailers";
            return Err(raise(py, Raise::Value, what));
        }
        let pairs = fields.pairs();
        if !pairs.is_empty() && self.trailers.get() == Trailers::Sent {
            self.send_fields(py, Kind::Trailers, 200, "200", &pairs)?;
        }
        if !more && !self.gone.get() {
            self.trailers.set(Trailers::None);
            self.send_data(py, &[], true);
        }
        Ok(())
    }

    /// A frame of header fields.
    fn send_fields(
        &self,
        py: Attached,
        kind: Kind,
        status: u16,
        status_line: &str,
        fields: &[Pair<'_>],
    ) -> Result<()> {
        let head = ResponseHead {
            status,
            status_line: status_line.into(),
            headers: Slice::new(fields),
            content_length: -1,
        };
        let mut frame = Vec::new();
        if reply::encode(&head, &mut frame).is_err() {
            return Err(raise(py, Raise::Value, "there are too many header fields"));
        }
        let header = Header::new(kind, (frame.len() - HEADER) as u32);
        frame[..HEADER].copy_from_slice(&header.encode());
        if self.transmit([&frame]) == Sent::Gone {
            self.on_gone(py);
        }
        Ok(())
    }
}

fn open(path: &str) -> std::io::Result<(OwnedFd, u64)> {
    let path = std::path::Path::new(std::ffi::OsStr::from_bytes(path.as_bytes()));
    let file = std::fs::OpenOptions::new()
        .read(true)
        // A FIFO must not stop the loop.
        .custom_flags(libc::O_NONBLOCK)
        .open(path)?;
    let found = file.metadata()?;
    if !found.is_file() {
        return Err(std::io::Error::from_raw_os_error(if found.is_dir() {
            libc::EISDIR
        } else {
            libc::EINVAL
        }));
    }
    Ok((file.into(), found.len()))
}

/// An OSError of the right class, with the file's name.
fn os_error(py: Attached, error: &std::io::Error, path: &str) -> Raised {
    let errno = error.raw_os_error().unwrap_or(libc::EIO);
    let name = std::ffi::CString::new(path).unwrap_or_default();
    let _ = py;
    // SAFETY: a static class, a C string; the calling thread's errno is set for the call.
    unsafe {
        *libc::__errno_location() = errno;
        ffi::PyErr_SetFromErrnoWithFilename(ffi::PyExc_OSError, name.as_ptr());
    }
    Raised
}
