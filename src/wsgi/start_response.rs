//! `start_response` and the `write` callable that it returns.
//!
//! They are one object: called with one argument it is `write`, with two or three it is
//! `start_response`. So no object is made for `write`, which hardly anyone uses.

use core::cell::Cell;

use pyo3::ffi;

use super::events;
use super::request::RequestState;
use crate::exchange::response::{self, ResponseHead};
use crate::exchange::{Pair, Send, Slice, Text};
use crate::python::attach::Attached;
use crate::python::events::has_subscribers;
use crate::python::interpreter::Interpreter;
#[cfg(Py_GIL_DISABLED)]
use crate::python::object;
use crate::python::object::{Owned, bytes_of, latin1_bytes, type_name};
use crate::python::order;
use crate::python::raise::{Kind, Raised, Result, raise};
use crate::python::slots::{self, object_slot};

/// The object. Its request pointer is null when the request has ended.
#[repr(C)]
pub struct StartResponse {
    header: ffi::PyObject,
    call: ffi::vectorcallfunc,
    interpreter: &'static Interpreter,
    request: Cell<*const RequestState>,
}

/// Makes the type, once per interpreter.
pub fn make_type(py: Attached) -> Result<Owned> {
    struct Members([ffi::PyMemberDef; 2]);
    // SAFETY: constant data: names and offsets.
    unsafe impl Sync for Members {}
    static MEMBERS: Members = Members([
        ffi::PyMemberDef {
            name: c"__vectorcalloffset__".as_ptr(),
            type_code: ffi::Py_T_PYSSIZET,
            offset: core::mem::offset_of!(StartResponse, call) as ffi::Py_ssize_t,
            flags: ffi::Py_READONLY,
            doc: core::ptr::null(),
        },
        ffi::PyMemberDef {
            name: core::ptr::null(),
            type_code: 0,
            offset: 0,
            flags: 0,
            doc: core::ptr::null(),
        },
    ]);
    let slots = vec![
        slots::slot(
            ffi::Py_tp_dealloc,
            slots::free_instance::<StartResponse> as *mut _,
        ),
        slots::slot(ffi::Py_tp_call, ffi::PyVectorcall_Call as *mut _),
        slots::slot(ffi::Py_tp_members, MEMBERS.0.as_ptr() as *mut _),
    ];
    let flags = ffi::Py_TPFLAGS_HAVE_VECTORCALL;
    // SAFETY: the slots are written for StartResponse, which begins with its header.
    unsafe { slots::make_type::<StartResponse>(py, c"mod_wsgi.StartResponse", flags, slots) }
}

/// The callable of a request.
///
/// # Safety
/// [`end`] is called on the result before `request` goes away.
pub unsafe fn new(py: Attached, request: &RequestState) -> Result<Owned> {
    let value = StartResponse {
        header: slots::header(),
        call,
        interpreter: py.interpreter(),
        request: Cell::new(request),
    };
    // SAFETY: the interpreter's type was made for StartResponse by `make_type`.
    unsafe { slots::new_instance(py, &py.interpreter().wsgi().start_response, value) }
}

/// The request ends: a call raises from now on.
///
/// # Safety
/// `callable` was made by [`new`].
pub unsafe fn end(_py: Attached, callable: &Owned) {
    // SAFETY: by contract an instance of StartResponse.
    unsafe {
        (*callable.as_ptr().cast::<StartResponse>())
            .request
            .set(core::ptr::null());
    }
}

unsafe extern "C" fn call(
    object: *mut ffi::PyObject,
    arguments: *const *mut ffi::PyObject,
    flags: usize,
    keywords: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    object_slot(|| {
        // SAFETY: the vectorcall of StartResponse: `arguments` has as many live objects as flags
        // and keywords say; the caller keeps all alive and is attached to the interpreter that
        // made the object.
        unsafe {
            let this = &*object.cast::<StartResponse>();
            let py = Attached::assume(this.interpreter);
            let count = ffi::PyVectorcall_NARGS(flags) as usize;
            let given = core::slice::from_raw_parts(arguments, count);
            if !keywords.is_null() && ffi::PyTuple_GET_SIZE(keywords) > 0 {
                let message = "start_response() takes no keyword arguments";
                return Err(raise(py, Kind::Type, message));
            }
            order::within(py, || this.called(py, given))
        }
    })
}

impl StartResponse {
    /// # Safety
    /// The arguments are live.
    unsafe fn called(&self, py: Attached, given: &[*mut ffi::PyObject]) -> Result<Owned> {
        // SAFETY: live by contract. For the request pointer see `input::method`.
        unsafe {
            let Some(request) = self.request.get().as_ref() else {
                let message = "start_response or write was used after its request had ended";
                return Err(raise(py, Kind::Runtime, message));
            };
            // Where CPython waits for a lock of its own, other threads run.
            #[cfg(Py_GIL_DISABLED)]
            let _kept = request.core.keep();
            let own = core::ptr::from_ref(self).cast_mut().cast();
            match *given {
                [data] => write(py, request, data),
                [status, headers] => {
                    start(py, request, status, headers, None)?;
                    Ok(Owned::from_borrowed(py, own))
                }
                [status, headers, exc_info] => {
                    let exc_info = (exc_info != ffi::Py_None()).then_some(exc_info);
                    start(py, request, status, headers, exc_info)?;
                    Ok(Owned::from_borrowed(py, own))
                }
                _ => {
                    let message = format!(
                        "start_response() takes 2 or 3 arguments, write() takes 1 ({} given)",
                        given.len()
                    );
                    Err(raise(py, Kind::Type, &message))
                }
            }
        }
    }
}

/// # Safety
/// `data` is live.
unsafe fn write(py: Attached, request: &RequestState, data: *mut ffi::PyObject) -> Result<Owned> {
    // SAFETY: live by contract; the caller keeps it alive, and bytes never change.
    let block = unsafe {
        if ffi::PyBytes_Check(data) == 0 {
            let message = format!("write() argument must be bytes, not {}", type_name(data));
            return Err(raise(py, Kind::Type, &message));
        }
        bytes_of(data)
    };
    if !block.is_empty() {
        request.send_block(py, block, Send::Flush)?;
    }
    if request.response.client_gone.get() {
        return Err(raise(py, Kind::Os, "the client has closed the connection"));
    }
    Ok(Owned::none(py))
}

/// # Safety
/// All are live.
unsafe fn start(
    py: Attached,
    request: &RequestState,
    status: *mut ffi::PyObject,
    headers: *mut ffi::PyObject,
    exc_info: Option<*mut ffi::PyObject>,
) -> Result<()> {
    let progress = &request.response;
    // SAFETY: live by contract.
    unsafe {
        if ffi::PyUnicode_Check(status) == 0 {
            let message = format!("status must be str, not {}", type_name(status));
            return Err(raise(py, Kind::Type, &message));
        }
        if ffi::PyList_Check(headers) == 0 {
            let message = format!(
                "start_response() argument 2 must be list, not {}",
                type_name(headers)
            );
            return Err(raise(py, Kind::Type, &message));
        }
        match exc_info {
            Some(exc_info) => {
                if ffi::PyTuple_Check(exc_info) == 0 {
                    let message = "start_response() argument 'exc_info' must be a 3-tuple or None";
                    return Err(raise(py, Kind::Runtime, message));
                }
                if progress.head_sent.get() {
                    return Err(raise_again(py, exc_info));
                }
            }
            // Before anything is sent the second call counts, as in mod_wsgi, although PEP 3333 wants
            // exc_info for it.
            None if progress.head_sent.get() => {
                let message = "start_response() called more than once without exc_info";
                return Err(raise(py, Kind::Runtime, message));
            }
            None => {}
        }
        if has_subscribers(py) {
            // Callbacks let other threads run, and with them the end of the request.
            let _kept = request.core.keep();
            events::response_started(py, request, status, headers, exc_info)?;
        }
        // First, since waiting for it may let other threads change the list.
        let exchange = request.core.exchange(py)?;
        let status_line = latin1_bytes(py, status)?;
        let code = response::parse_status(status_line).map_err(|error| {
            let shown = status_line.escape_ascii();
            raise(py, Kind::Value, &format!("{error}: b'{shown}'"))
        })?;
        let mut content_length = None;
        #[cfg(Py_GIL_DISABLED)]
        let steady = object::steady_items(py, headers)?;
        #[cfg(Py_GIL_DISABLED)]
        let headers = steady.as_ptr();
        let fields = collect_fields(py, headers, &mut content_length)?;
        let head = ResponseHead {
            status: code,
            status_line: Text::new(status_line),
            headers: Slice::new(&fields),
            content_length: content_length.map_or(-1, |length| length as i64),
        };
        // The texts belong to `status` and to the items of `headers`, which live: nothing of
        // Python runs until the exchange has copied them.
        exchange.start(&head);
        progress.started.set(true);
        progress.declared.set(content_length);
        progress.status.set(code);
        if let Some(observation) = request.observation() {
            observation.note_status(code);
        }
        Ok(())
    }
}

/// Checks all header fields; Content-Length is taken out.
///
/// # Safety
/// `headers` is a live list that nobody changes while the result is in use; without a GIL, what
/// `steady_items` has made of one.
unsafe fn collect_fields<'a>(
    py: Attached,
    headers: *mut ffi::PyObject,
    content_length: &mut Option<u64>,
) -> Result<Vec<Pair<'a>>> {
    // SAFETY: live by contract; items are borrowed from the list, strings from the items.
    unsafe {
        let count = ffi::Py_SIZE(headers);
        let mut fields = Vec::with_capacity(count as usize);
        for index in 0..count {
            #[cfg(Py_GIL_DISABLED)]
            let item = ffi::PyTuple_GET_ITEM(headers, index);
            #[cfg(not(Py_GIL_DISABLED))]
            let item = ffi::PyList_GET_ITEM(headers, index);
            if ffi::PyTuple_Check(item) == 0 {
                let message = format!("each header must be a 2-tuple, not {}", type_name(item));
                return Err(raise(py, Kind::Type, &message));
            }
            let length = ffi::PyTuple_GET_SIZE(item);
            if length != 2 {
                let message = format!("each header must be a 2-tuple, got length {length}");
                return Err(raise(py, Kind::Value, &message));
            }
            let name = text(py, ffi::PyTuple_GET_ITEM(item, 0), "header names")?;
            let value = text(py, ffi::PyTuple_GET_ITEM(item, 1), "header values")?;
            response::check_field(name, value)
                .map_err(|error| raise(py, Kind::Value, &error.about(name, value)))?;
            if name.len() == b"content-length".len() && name.eq_ignore_ascii_case(b"content-length")
            {
                let length = response::parse_content_length(value).ok_or_else(|| {
                    let shown = value.escape_ascii();
                    let message = format!("Content-Length must be a whole number: '{shown}'");
                    raise(py, Kind::Value, &message)
                })?;
                *content_length = Some(length);
                continue;
            }
            fields.push(Pair {
                name: Text::new(name),
                value: Text::new(value),
            });
        }
        Ok(fields)
    }
}

/// # Safety
/// `object` is live and outlives the result.
unsafe fn text<'a>(py: Attached, object: *mut ffi::PyObject, what: &str) -> Result<&'a [u8]> {
    // SAFETY: by contract.
    unsafe {
        if ffi::PyUnicode_Check(object) == 0 {
            let message = format!("{what} must be str, not {}", type_name(object));
            return Err(raise(py, Kind::Type, &message));
        }
        latin1_bytes(py, object)
    }
}

/// PEP 3333: with the head sent, `exc_info` is raised again.
///
/// # Safety
/// `exc_info` is a live tuple.
unsafe fn raise_again(py: Attached, exc_info: *mut ffi::PyObject) -> Raised {
    // SAFETY: live by contract; the values are borrowed from the tuple.
    unsafe {
        if ffi::PyTuple_GET_SIZE(exc_info) != 3 {
            return raise(py, Kind::Type, "exc_info must be a tuple of 3 items");
        }
        let value = ffi::PyTuple_GET_ITEM(exc_info, 1);
        let traceback = ffi::PyTuple_GET_ITEM(exc_info, 2);
        if ffi::PyExceptionInstance_Check(value) == 0 {
            return raise(py, Kind::Type, "exc_info[1] must be an exception");
        }
        if traceback != ffi::Py_None() && ffi::PyException_SetTraceback(value, traceback) < 0 {
            return Raised;
        }
        Raised::restore(py, Owned::from_borrowed(py, value))
    }
}
