//! The request body as `wsgi.input` reads it: lazily, with a small buffer for lines.

use core::cell::{Cell, RefCell};

use pyo3::ffi;

use crate::exchange::{BodyError, Wait};
use crate::metrics::observation::Observation;
use crate::python::attach::Attached;
use crate::python::object::{self, Owned};
use crate::python::raise::{Kind, Raised, Result, raise};
use crate::python::request::Leased;

/// What a line is looked for in at a time.
const LINE_BLOCK: usize = 8192;
/// The most that is allocated before data has come that fills it.
const FIRST_ALLOCATION: usize = 1024 * 1024;
/// Less than this is first tried without letting the GIL go.
const SMALL_READ: usize = 16 * 1024;

/// A request body. Used by whoever holds the lease of the exchange, while attached except where it
/// says otherwise.
#[derive(Default)]
pub struct Body {
    /// Read but not delivered: what follows a line.
    buffer: RefCell<Vec<u8>>,
    ended: Cell<bool>,
    failed: Cell<Option<u16>>,
    /// Where reads are counted, if anybody wants to know.
    pub observation: Cell<Option<&'static Observation>>,
}

impl Body {
    /// The status that a failed read deserves, if one failed.
    pub fn failure(&self) -> Option<u16> {
        self.failed.get()
    }

    /// `read(size)`: exactly `size` bytes, fewer only at the end; all if `size` is `None`.
    pub fn read(&self, py: Attached, exchange: &Leased<'_>, size: Option<usize>) -> Result<Owned> {
        let data = self.read_now(py, exchange, size)?;
        self.note_delivered(&data);
        Ok(data)
    }

    fn read_now(&self, py: Attached, exchange: &Leased<'_>, size: Option<usize>) -> Result<Owned> {
        self.check(py)?;
        let wanted = size.unwrap_or(isize::MAX as usize);
        let buffered = self.buffer.borrow().len();
        if wanted <= buffered || self.ended.get() {
            return self.take(py, wanted.min(buffered));
        }
        let mut room = wanted.min(FIRST_ALLOCATION.max(buffered * 2));
        let mut block = Block::new(py, room)?;
        block.push(&self.buffer.take());
        loop {
            let space = block.space();
            let end = if space.len() <= SMALL_READ {
                match self.observed(|| exchange.read(space, Wait::No)) {
                    Err(BodyError::WouldBlock) => self.fill(py, exchange, space),
                    other => other.map(Filled::one),
                }
            } else {
                self.fill(py, exchange, space)
            };
            match end {
                Ok(filled) => {
                    block.length += filled.bytes;
                    if filled.ended {
                        self.ended.set(true);
                        return block.finish();
                    }
                }
                Err(error) => return Err(self.fail(py, error)),
            }
            if block.length == room {
                if room == wanted {
                    return block.finish();
                }
                room = wanted.min(room * 2);
                block.grow(room)?;
            }
        }
    }

    /// `readline(size)`: up to and with the next line end, at most `size` bytes.
    pub fn read_line(
        &self,
        py: Attached,
        exchange: &Leased<'_>,
        size: Option<usize>,
    ) -> Result<Owned> {
        let line = self.read_line_now(py, exchange, size)?;
        self.note_delivered(&line);
        Ok(line)
    }

    fn read_line_now(
        &self,
        py: Attached,
        exchange: &Leased<'_>,
        size: Option<usize>,
    ) -> Result<Owned> {
        self.check(py)?;
        let limit = size.unwrap_or(usize::MAX);
        let mut searched = 0;
        loop {
            let (end, length) = {
                let buffer = self.buffer.borrow();
                let end = buffer[searched..].iter().position(|&c| c == b'\n');
                (end.map(|at| searched + at + 1), buffer.len())
            };
            let line = end.unwrap_or(length).min(limit);
            if end.is_some() || line == limit || self.ended.get() {
                return self.take(py, line);
            }
            searched = length;
            self.read_more(py, exchange)?;
        }
    }

    /// Adds a block to the buffer, or notes the end.
    fn read_more(&self, py: Attached, exchange: &Leased<'_>) -> Result<()> {
        let mut block = [0; LINE_BLOCK];
        let read = match self.observed(|| exchange.read(&mut block, Wait::No)) {
            Err(BodyError::WouldBlock) => py.detached(|may_block| {
                self.observed(|| exchange.read(&mut block, Wait::Yes(may_block)))
            }),
            other => other,
        };
        match read {
            Ok(0) => self.ended.set(true),
            Ok(length) => self.buffer.borrow_mut().extend_from_slice(&block[..length]),
            Err(error) => return Err(self.fail(py, error)),
        }
        Ok(())
    }

    /// Fills `space` as far as the body goes, without the GIL.
    fn fill(
        &self,
        py: Attached,
        exchange: &Leased<'_>,
        space: &mut [u8],
    ) -> core::result::Result<Filled, BodyError> {
        let bytes =
            py.detached(|may_block| self.observed(|| exchange.read_full(space, may_block)))?;
        Ok(Filled {
            bytes,
            ended: bytes < space.len(),
        })
    }

    #[inline]
    fn observed(
        &self,
        read: impl FnOnce() -> core::result::Result<usize, BodyError>,
    ) -> core::result::Result<usize, BodyError> {
        match self.observation.get() {
            Some(observation) => observation.reads(read),
            None => read(),
        }
    }

    #[inline]
    fn note_delivered(&self, data: &Owned) {
        if let Some(observation) = self.observation.get() {
            // SAFETY: a live bytes object.
            observation.note_input(unsafe { ffi::Py_SIZE(data.as_ptr()) } as usize);
        }
    }

    /// The first `length` bytes of the buffer.
    fn take(&self, py: Attached, length: usize) -> Result<Owned> {
        let mut buffer = self.buffer.borrow_mut();
        let taken = object::bytes(py, &buffer[..length])?;
        buffer.drain(..length);
        Ok(taken)
    }

    fn check(&self, py: Attached) -> Result<()> {
        if self.failed.get().is_some() {
            let message = "the request body is in an error state: an earlier read has failed";
            return Err(raise(py, Kind::Os, message));
        }
        Ok(())
    }

    #[cold]
    fn fail(&self, py: Attached, error: BodyError) -> Raised {
        let status = match error {
            BodyError::Failed { status } => status,
            BodyError::WouldBlock => 400,
        };
        self.failed.set(Some(status));
        let reason = match status {
            408 => "the client did not send it in time",
            413 => "it is larger than the server allows",
            _ => "the client broke off or sent it malformed",
        };
        let message = format!("request data read error: {reason} ({status})");
        raise(py, Kind::Os, &message)
    }
}

struct Filled {
    bytes: usize,
    ended: bool,
}

impl Filled {
    fn one(bytes: usize) -> Self {
        Filled {
            bytes,
            ended: bytes == 0,
        }
    }
}

/// A bytes object under construction, that nobody else has seen.
struct Block {
    object: *mut ffi::PyObject,
    room: usize,
    length: usize,
}

impl Block {
    fn new(_py: Attached, room: usize) -> Result<Block> {
        // SAFETY: a null pointer asks for `room` uninitialised bytes.
        let object = unsafe {
            Owned::from_new(ffi::PyBytes_FromStringAndSize(
                core::ptr::null(),
                room as ffi::Py_ssize_t,
            ))?
        };
        Ok(Block {
            object: object.into_ptr(),
            room,
            length: 0,
        })
    }

    /// What is not filled yet.
    fn space(&mut self) -> &mut [u8] {
        // SAFETY: the object is ours alone and has `room` bytes. They may be uninitialised: they
        // are plain bytes that are only written to through this slice.
        unsafe {
            let data = ffi::PyBytes_AS_STRING(self.object).cast_mut().cast::<u8>();
            core::slice::from_raw_parts_mut(data.add(self.length), self.room - self.length)
        }
    }

    fn push(&mut self, data: &[u8]) {
        self.space()[..data.len()].copy_from_slice(data);
        self.length += data.len();
    }

    fn grow(&mut self, room: usize) -> Result<()> {
        self.room = room;
        // SAFETY: the only reference is ours; on failure the call frees it and nulls the pointer.
        if unsafe { _PyBytes_Resize(&mut self.object, room as ffi::Py_ssize_t) } < 0 {
            return Err(Raised);
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Owned> {
        let length = self.length;
        if length < self.room {
            self.grow(length)?;
        }
        let object = core::mem::replace(&mut self.object, core::ptr::null_mut());
        // SAFETY: our only reference, given away.
        unsafe { Owned::from_new(object) }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: null or our only reference; blocks live within an attached call.
        unsafe { ffi::Py_XDECREF(self.object) }
    }
}

unsafe extern "C" {
    fn _PyBytes_Resize(bytes: *mut *mut ffi::PyObject, size: ffi::Py_ssize_t) -> core::ffi::c_int;
}
