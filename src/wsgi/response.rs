//! Iterating over what the application returned (PEP 3333, "Specification Details").
//!
//! A list or a tuple is complete already: it goes out in one piece with the end of the response,
//! so the server computes its length and writes once. Anything else is iterated, and each block
//! reaches the client before the next is asked for.

use pyo3::ffi;

use super::request::{COPY_LIMIT, RequestState};
use crate::exchange::memory::Borrowed;
use crate::exchange::{Level, Send};
use crate::messages;
use crate::python::attach::Attached;
#[cfg(Py_GIL_DISABLED)]
use crate::python::object;
use crate::python::object::{Owned, bytes_of, optional_attribute, type_name};
use crate::python::order;
use crate::python::raise::{Kind, Raised, Result, is_raised, raise};

/// What is left to be done when the application's part is over.
#[derive(Debug)]
pub enum Rest {
    /// Nothing: the response has been sent to its end.
    Nothing,
    /// What was appended is to be sent as the end of the response, without the GIL.
    SendEnd,
    /// The response is shorter than it declared: what was appended is to be sent, and the client
    /// must see that it is cut.
    Abort,
    /// The client is gone.
    Gone,
}

/// Sends the response body.
///
/// # Errors
/// The application's exception, or what is wrong with its result.
pub fn send(py: Attached, request: &RequestState, result: &Owned) -> Result<Rest> {
    let object = result.as_ptr();
    // SAFETY: a live object.
    unsafe {
        if ffi::PyList_CheckExact(object) != 0 || ffi::PyTuple_CheckExact(object) != 0 {
            return send_sequence(py, request, object);
        }
        let file_wrapper = &py.interpreter().prelude().file_wrapper;
        if ffi::PyObject_TypeCheck(object, file_wrapper.as_ptr().cast()) != 0
            && let Some(rest) = send_file(py, request, result)?
        {
            return Ok(rest);
        }
    }
    send_iterable(py, request, result)
}

/// # Safety
/// `object` is a live exact list or tuple.
unsafe fn send_sequence(
    py: Attached,
    request: &RequestState,
    object: *mut ffi::PyObject,
) -> Result<Rest> {
    request.require_start(py)?;
    let exchange = request.core.exchange(py)?;
    // Items that are lent keep a reference of ours: another thread may change the list meanwhile.
    let mut lent = Vec::new();
    // SAFETY: live by contract; items are borrowed while nothing of Python runs.
    unsafe {
        let list = ffi::PyList_CheckExact(object) != 0;
        #[cfg(Py_GIL_DISABLED)]
        let steady = list.then(|| object::steady_items(py, object)).transpose()?;
        #[cfg(Py_GIL_DISABLED)]
        let (list, object) = (false, steady.as_ref().map_or(object, Owned::as_ptr));
        let count = ffi::Py_SIZE(object);
        let item = |index| {
            if list {
                ffi::PyList_GET_ITEM(object, index)
            } else {
                ffi::PyTuple_GET_ITEM(object, index)
            }
        };
        for index in 0..count {
            check_block(py, item(index))?;
        }
        for index in 0..count {
            let data = bytes_of(item(index));
            let data = &data[..request.response.allowed(data.len())];
            if data.len() <= COPY_LIMIT {
                exchange.append(data);
            } else {
                lent.push(Owned::from_borrowed(py, item(index)));
                exchange.append_borrowed(Borrowed::new(data));
            }
            request.note_sent(data.len() as u64);
        }
    }
    if lent.is_empty() || request.response.missing().is_some() {
        let how = how_it_ends(request);
        if lent.is_empty() {
            return Ok(how);
        }
        request.hand_on(py, &exchange, Send::Keep);
        return Ok(how);
    }
    request.hand_on(py, &exchange, Send::End);
    Ok(Rest::Nothing)
}

fn how_it_ends(request: &RequestState) -> Rest {
    if request.response.missing().is_some() {
        Rest::Abort
    } else {
        Rest::SendEnd
    }
}

/// # Safety
/// `object` is live.
unsafe fn check_block(py: Attached, object: *mut ffi::PyObject) -> Result<()> {
    // SAFETY: live by contract.
    unsafe {
        if ffi::PyBytes_Check(object) != 0 {
            return Ok(());
        }
        let name = type_name(object);
        let message = format!("the response iterable must yield bytes, not {name}");
        Err(raise(py, Kind::Type, &message))
    }
}

fn send_iterable(py: Attached, request: &RequestState, result: &Owned) -> Result<Rest> {
    // SAFETY: a live object.
    let iterate = || unsafe { Owned::from_new(ffi::PyObject_GetIter(result.as_ptr())) };
    let iterator = order::outside(py, iterate)?;
    let progress = &request.response;
    loop {
        // SAFETY: a live iterator.
        let next = || unsafe { Owned::from_new(ffi::PyIter_Next(iterator.as_ptr())) };
        let block = match order::outside(py, next) {
            Ok(block) => block,
            Err(_) if is_raised(py) => return Err(Raised),
            Err(_) => break,
        };
        // SAFETY: live: `block` is ours until it has been sent.
        let data = unsafe {
            check_block(py, block.as_ptr())?;
            bytes_of(block.as_ptr())
        };
        if data.is_empty() {
            continue;
        }
        let fills = progress.declared.get().is_some_and(|declared| {
            progress.sent.get().saturating_add(data.len() as u64) >= declared
        });
        request.send_block(py, data, if fills { Send::End } else { Send::Flush })?;
        if progress.client_gone.get() {
            return Ok(Rest::Gone);
        }
        if fills {
            // PEP 3333: stop iterating once as much as was declared has been sent.
            return Ok(Rest::Nothing);
        }
    }
    request.require_start(py)?;
    if progress.is_full() && progress.head_sent.get() {
        return Ok(Rest::Nothing);
    }
    Ok(how_it_ends(request))
}

/// Lets the server send the file that a file wrapper holds; `None` if it cannot.
fn send_file(py: Attached, request: &RequestState, wrapper: &Owned) -> Result<Option<Rest>> {
    if request.response.head_sent.get() {
        return Ok(None);
    }
    let prelude = py.interpreter().prelude();
    let Some((descriptor, offset, length)) = prelude.file_range(py, wrapper.clone_ref(py))? else {
        return Ok(None);
    };
    request.require_start(py)?;
    let exchange = request.core.exchange(py)?;
    let length = match request.response.declared.get() {
        Some(declared) => length.min(declared),
        None => length,
    };
    if let Err(errno) = exchange.append_file(descriptor, offset, length) {
        let error = std::io::Error::from_raw_os_error(errno);
        request.log(
            py,
            Level::Debug,
            &format!("a wrapped file is read instead of sent: {error}"),
        );
        return Ok(None);
    }
    request.note_sent(length);
    Ok(Some(how_it_ends(request)))
}

/// Calls `close()` of the result if it has one; what it raises is logged and changes nothing.
pub fn close(py: Attached, request: &RequestState, result: &Owned, script: &[u8]) {
    // SAFETY: a live object.
    let plain = unsafe {
        ffi::PyList_CheckExact(result.as_ptr()) != 0
            || ffi::PyTuple_CheckExact(result.as_ptr()) != 0
    };
    if plain {
        return;
    }
    let name = &py.interpreter().wsgi().close;
    // SAFETY: live objects of the attached interpreter.
    let closed = unsafe {
        optional_attribute(py, result.as_ptr(), name.as_ptr()).and_then(|method| match method {
            Some(method) => {
                let call = || Owned::from_new(ffi::PyObject_CallNoArgs(method.as_ptr()));
                order::outside(py, call).map(drop)
            }
            None => Ok(()),
        })
    };
    if let Err(raised) = closed {
        let exception = raised.take(py);
        let code = messages::CLOSE_FAILED;
        let what = "close() of the response raised";
        crate::python::exceptions::log_for_request(
            py,
            &request.core,
            code,
            what,
            script,
            &exception,
        );
        super::events::request_exception(py, request, &exception);
    }
}
