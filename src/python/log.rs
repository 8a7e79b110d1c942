//! The text stream behind `wsgi.errors`, `sys.stderr` and `sys.stdout`.
//!
//! Every line that ends becomes one line of the error log. `wsgi.errors` belongs to one request
//! and raises after its end; the process streams follow whatever request their thread serves, and
//! go to the server's own log outside of one.

use core::cell::{Cell, RefCell};

use pyo3::ffi;

use super::attach::Attached;
use super::interpreter::Interpreter;
use super::object::{Owned, latin1, type_name};
use super::order;
use super::raise::{Kind, Raised, Result, raise};
use super::request::{RequestCore, current};
use super::slots::{self, Methods, object_slot};
use crate::exchange::Level;

/// A longer run without a line end is broken here; httpd cuts lines at about 8 KiB.
const LONGEST_LINE: usize = 8000;

thread_local! {
    /// Unfinished text of a thread outside of any request.
    static LINE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// A stream object.
#[repr(C)]
pub struct TextLog {
    header: ffi::PyObject,
    interpreter: &'static Interpreter,
    target: Target,
}

enum Target {
    /// `wsgi.errors` of a request; null when that has ended.
    Request(Cell<*const RequestCore>),
    /// `sys.stderr` or `sys.stdout`.
    Process(&'static str),
}

/// Makes the type, once per interpreter.
pub fn make_type(py: Attached) -> Result<Owned> {
    let slots = vec![
        slots::slot(
            ffi::Py_tp_dealloc,
            slots::free_instance::<TextLog> as *mut _,
        ),
        slots::slot(ffi::Py_tp_methods, METHODS.0.as_ptr() as *mut _),
        slots::slot(ffi::Py_tp_getattro, get_attribute as *mut _),
    ];
    // SAFETY: the slots are written for TextLog, which begins with its header.
    unsafe { slots::make_type::<TextLog>(py, c"mod_wsgi.TextLog", 0, slots) }
}

/// The stream of a request.
///
/// # Safety
/// [`end`] is called on the result before `core` goes away.
pub unsafe fn for_request(py: Attached, core: &RequestCore) -> Result<Owned> {
    new(py, Target::Request(Cell::new(core)))
}

/// A stream of the process; `name` as in `<stderr>`.
pub fn for_process(py: Attached, name: &'static str) -> Result<Owned> {
    new(py, Target::Process(name))
}

fn new(py: Attached, target: Target) -> Result<Owned> {
    let value = TextLog {
        header: slots::header(),
        interpreter: py.interpreter(),
        target,
    };
    // SAFETY: the interpreter's log type was made for TextLog by `make_type`.
    unsafe { slots::new_instance(py, &py.interpreter().types().text_log, value) }
}

/// Ends the stream of a request: what is written from now on raises.
///
/// # Safety
/// `stream` was made by [`for_request`].
pub unsafe fn end(_py: Attached, stream: &Owned) {
    // SAFETY: by contract an instance of TextLog.
    let stream = unsafe { &*stream.as_ptr().cast::<TextLog>() };
    if let Target::Request(core) = &stream.target {
        core.set(core::ptr::null());
    }
}

/// Writes out the unfinished line of a request that ends.
pub(super) fn flush_request(py: Attached, core: &RequestCore) {
    if !core.line.borrow().is_empty() {
        let line = core.line.take();
        py.detached(|_| core.log(Level::Error, &line));
    }
}

/// Splits what is complete off `buffer` after `text` was added: each line once, no empty ones.
fn add(buffer: &mut Vec<u8>, text: &[u8]) -> Vec<Vec<u8>> {
    let mut lines = Vec::new();
    let mut take = |line: &mut Vec<u8>| {
        while line.len() > LONGEST_LINE {
            let rest = line.split_off(LONGEST_LINE);
            lines.push(core::mem::replace(line, rest));
        }
        if !line.is_empty() {
            lines.push(core::mem::take(line));
        }
    };
    let mut parts = text.split(|&c| c == b'\n');
    // There is always a first part, and what follows the last line end is not a line yet.
    if let Some(first) = parts.next() {
        buffer.extend_from_slice(first);
    }
    for part in parts {
        take(buffer);
        buffer.extend_from_slice(part);
    }
    if buffer.len() > LONGEST_LINE {
        take(buffer);
    }
    lines
}

impl TextLog {
    /// Adds text; `flush` also writes out an unfinished line.
    fn write(&self, py: Attached, text: &[u8], flush: bool) -> Result<()> {
        let core = match &self.target {
            Target::Request(core) => {
                // SAFETY: cleared before the core goes away, by a thread that is attached as we
                // are now.
                let core = unsafe { core.get().as_ref() };
                Some(core.ok_or_else(|| {
                    raise(
                        py,
                        Kind::Runtime,
                        "wsgi.errors was used after its request had ended",
                    )
                })?)
            }
            // SAFETY: used within this call only, on the thread that owns the request.
            Target::Process(_) => unsafe { current() },
        };
        let collect = |buffer: &mut Vec<u8>| {
            let mut lines = add(buffer, text);
            if flush && !buffer.is_empty() {
                lines.push(core::mem::take(buffer));
            }
            lines
        };
        match core {
            Some(core) => {
                let lines = collect(&mut core.line.borrow_mut());
                if !lines.is_empty() {
                    let _kept = core.keep();
                    py.detached(|_| lines.iter().for_each(|l| core.log(Level::Error, l)));
                }
            }
            None => {
                let lines = LINE.with(|line| collect(&mut line.borrow_mut()));
                if !lines.is_empty() && !crate::asgi::log::log(py, Level::Error, None, &lines) {
                    py.detached(|_| {
                        for line in &lines {
                            super::runtime::log_bytes(Level::Error, line);
                        }
                    });
                }
            }
        }
        Ok(())
    }

    fn name(&self) -> &'static str {
        match self.target {
            Target::Request(_) => "<wsgi.errors>",
            Target::Process(name) => name,
        }
    }
}

/// Runs a method on a stream with the token of its interpreter.
///
/// # Safety
/// Called by CPython with `object` an instance of TextLog.
unsafe fn method(
    object: *mut ffi::PyObject,
    body: impl FnOnce(Attached, &TextLog) -> Result<Owned>,
) -> *mut ffi::PyObject {
    object_slot(|| {
        // SAFETY: an instance of TextLog, kept alive by the caller; CPython calls us attached to
        // the interpreter that made it.
        unsafe {
            let stream = &*object.cast::<TextLog>();
            let py = Attached::assume(stream.interpreter);
            order::within(py, || body(py, stream))
        }
    })
}

static METHODS: Methods<14> = Methods([
    slots::one_arg(c"write", write),
    slots::one_arg(c"write_bytes", write_bytes),
    slots::any_args(c"reconfigure", reconfigure),
    slots::one_arg(c"writelines", write_lines),
    slots::no_args(c"flush", flush),
    slots::no_args(c"close", close),
    slots::no_args(c"isatty", answer_false),
    slots::no_args(c"readable", answer_false),
    slots::no_args(c"seekable", answer_false),
    slots::no_args(c"writable", answer_true),
    slots::no_args(c"fileno", fileno),
    slots::no_args(c"__enter__", enter),
    slots::fast_args(c"__exit__", exit),
    slots::end(),
]);

/// The UTF-8 bytes of a str, lone surrogates replaced.
///
/// # Safety
/// `text` is live.
pub(crate) unsafe fn utf8(py: Attached, text: *mut ffi::PyObject) -> Result<Vec<u8>> {
    // SAFETY: live by contract; a str's UTF-8 form lives as long as the str.
    unsafe {
        if ffi::PyUnicode_Check(text) == 0 {
            let message = format!("write() argument must be str, not {}", type_name(text));
            return Err(raise(py, Kind::Type, &message));
        }
        let mut length = 0;
        let data = ffi::PyUnicode_AsUTF8AndSize(text, &mut length);
        if !data.is_null() {
            return Ok(core::slice::from_raw_parts(data.cast::<u8>(), length as usize).to_vec());
        }
        Raised.clear(py);
        let encoded = Owned::from_new(ffi::PyUnicode_AsEncodedString(
            text,
            c"utf-8".as_ptr(),
            c"replace".as_ptr(),
        ))?;
        Ok(super::object::bytes_of(encoded.as_ptr()).to_vec())
    }
}

unsafe extern "C" fn write(
    object: *mut ffi::PyObject,
    text: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: METH_O of TextLog: both are live.
    unsafe {
        method(object, |py, stream| {
            stream.write(py, &utf8(py, text)?, false)?;
            super::object::int(py, ffi::PyUnicode_GetLength(text) as i64)
        })
    }
}

unsafe extern "C" fn write_lines(
    object: *mut ffi::PyObject,
    lines: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: METH_O of TextLog: both are live; the iterator's items are ours.
    unsafe {
        method(object, |py, stream| {
            let iterator = Owned::from_new(ffi::PyObject_GetIter(lines))?;
            while let Ok(line) = Owned::from_new(ffi::PyIter_Next(iterator.as_ptr())) {
                stream.write(py, &utf8(py, line.as_ptr())?, false)?;
            }
            if super::raise::is_raised(py) {
                return Err(Raised);
            }
            Ok(Owned::none(py))
        })
    }
}

unsafe extern "C" fn flush(
    object: *mut ffi::PyObject,
    _: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: METH_NOARGS of TextLog.
    unsafe {
        method(object, |py, stream| {
            stream.write(py, b"", true)?;
            Ok(Owned::none(py))
        })
    }
}

/// PEP 3333: applications must not close the stream; it stays open if one does.
unsafe extern "C" fn close(
    object: *mut ffi::PyObject,
    nothing: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: METH_NOARGS of TextLog.
    unsafe { flush(object, nothing) }
}

/// For the stream's `buffer`: text as bytes, of which a character may end in the next call.
unsafe extern "C" fn write_bytes(
    object: *mut ffi::PyObject,
    data: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: METH_O of TextLog: both are live. The buffer is filled by the call, copied, and
    // released while attached.
    unsafe {
        method(object, |py, stream| {
            let mut view = core::mem::zeroed::<ffi::Py_buffer>();
            if ffi::PyObject_GetBuffer(data, &mut view, ffi::PyBUF_SIMPLE) < 0 {
                return Err(Raised);
            }
            let length = view.len as usize;
            let text = match length {
                0 => Vec::new(),
                _ => core::slice::from_raw_parts(view.buf.cast::<u8>(), length).to_vec(),
            };
            ffi::PyBuffer_Release(&mut view);
            stream.write(py, &text, false)?;
            super::object::int(py, length as i64)
        })
    }
}

/// As that of `io.TextIOWrapper`, for libraries that ask for UTF-8 or unbuffered output: both are
/// so already, and nothing changes.
unsafe extern "C" fn reconfigure(
    object: *mut ffi::PyObject,
    _: *mut ffi::PyObject,
    _: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: METH_VARARGS and METH_KEYWORDS of TextLog.
    unsafe { flush(object, core::ptr::null_mut()) }
}

unsafe extern "C" fn answer_false(
    object: *mut ffi::PyObject,
    _: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: METH_NOARGS of TextLog.
    unsafe { method(object, |py, _| Ok(super::object::boolean(py, false))) }
}

unsafe extern "C" fn answer_true(
    object: *mut ffi::PyObject,
    _: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: METH_NOARGS of TextLog.
    unsafe { method(object, |py, _| Ok(super::object::boolean(py, true))) }
}

unsafe extern "C" fn fileno(
    object: *mut ffi::PyObject,
    _: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: METH_NOARGS of TextLog.
    unsafe {
        method(object, |py, _| {
            Err(raise(py, Kind::Os, "a log stream has no file descriptor"))
        })
    }
}

unsafe extern "C" fn enter(
    object: *mut ffi::PyObject,
    _: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: METH_NOARGS of TextLog.
    unsafe { method(object, |py, _| Ok(Owned::from_borrowed(py, object))) }
}

unsafe extern "C" fn exit(
    object: *mut ffi::PyObject,
    _: *mut *mut ffi::PyObject,
    _: ffi::Py_ssize_t,
) -> *mut ffi::PyObject {
    // SAFETY: METH_FASTCALL of TextLog.
    unsafe {
        method(object, |py, stream| {
            stream.write(py, b"", true)?;
            Ok(Owned::none(py))
        })
    }
}

/// The attributes of a text stream; everything else is a method.
unsafe extern "C" fn get_attribute(
    object: *mut ffi::PyObject,
    name: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: tp_getattro of TextLog: both are live, `name` is a str.
    unsafe {
        let found = object_slot_or_none(object, name);
        match found {
            Some(value) => value,
            None => ffi::PyObject_GenericGetAttr(object, name),
        }
    }
}

/// # Safety
/// As for [`get_attribute`].
unsafe fn object_slot_or_none(
    object: *mut ffi::PyObject,
    name: *mut ffi::PyObject,
) -> Option<*mut ffi::PyObject> {
    // SAFETY: by contract; the name's data is read at once.
    unsafe {
        let stream = &*object.cast::<TextLog>();
        let py = Attached::assume(stream.interpreter);
        let wanted = super::object::latin1_bytes(py, name)
            .map_err(|raised| raised.clear(py))
            .ok()?;
        let text: &[u8] = match wanted {
            b"encoding" => b"utf-8",
            b"errors" => b"replace",
            b"mode" => b"w",
            b"name" => stream.name().as_bytes(),
            b"closed" => return Some(super::object::boolean(py, false).into_ptr()),
            b"line_buffering" | b"write_through" => {
                return Some(super::object::boolean(py, true).into_ptr());
            }
            b"newlines" => return Some(Owned::none(py).into_ptr()),
            b"buffer" => {
                return Some(object_slot(|| {
                    stream.interpreter.prelude().binary_log(py, object)
                }));
            }
            _ => return None,
        };
        Some(object_slot(|| latin1(py, text)))
    }
}

#[cfg(test)]
mod tests {
    use super::{LONGEST_LINE, add};

    #[test]
    fn lines_are_complete_or_kept() {
        let mut buffer = Vec::new();
        assert!(add(&mut buffer, b"a").is_empty());
        assert_eq!(
            add(&mut buffer, b"b\nc\n\nd"),
            [b"ab".to_vec(), b"c".to_vec()]
        );
        assert_eq!(buffer, b"d");
        assert_eq!(add(&mut buffer, b"\n"), [b"d".to_vec()]);
        assert!(buffer.is_empty());
    }

    #[test]
    fn long_lines_are_broken() {
        let mut buffer = Vec::new();
        let lines = add(&mut buffer, &vec![b'x'; LONGEST_LINE * 2 + 1]);
        let total: usize = lines.iter().map(Vec::len).sum();
        assert!(lines.iter().all(|line| line.len() <= LONGEST_LINE));
        assert_eq!(total + buffer.len(), LONGEST_LINE * 2 + 1);
    }
}
