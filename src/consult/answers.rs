//! What a function may return, and what the server is told of it.

use pyo3::ffi;

use crate::exchange::abi::accepts;
use crate::python::attach::Attached;
use crate::python::object::{Owned, bytes_of, latin1_bytes, type_name};
use crate::python::order;
use crate::python::raise::{Raised, Result, is_raised};

/// What a function has answered.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// `None`.
    None,
    /// `True` or `False`.
    Bool(bool),
    /// A str or bytes object.
    Text(Vec<u8>),
    /// Several of them.
    Names(Vec<Vec<u8>>),
    /// There is no such function.
    Missing,
}

/// Why a result is no answer.
pub enum Unusable {
    /// It is of another kind; says what it is.
    Wrong(String),
    /// Looking at it raised.
    Raised(Raised),
}

impl From<Raised> for Unusable {
    fn from(raised: Raised) -> Self {
        Unusable::Raised(raised)
    }
}

/// Takes a result for an answer, if it is one of the kinds `accepted` (bits of [`accepts`]).
///
/// # Errors
/// It is none of them, or an exception of the application.
pub fn read(py: Attached, result: &Owned, accepted: u32) -> core::result::Result<Answer, Unusable> {
    let takes = |kind| accepted & kind != 0;
    let object = result.as_ptr();
    // SAFETY: a live object, compared with and tested for types.
    unsafe {
        if takes(accepts::NONE) && object == ffi::Py_None() {
            return Ok(Answer::None);
        }
        if takes(accepts::BOOL) && (object == ffi::Py_True() || object == ffi::Py_False()) {
            return Ok(Answer::Bool(object == ffi::Py_True()));
        }
        let is_str = ffi::PyUnicode_Check(object) != 0;
        if is_str && takes(accepts::UTF8) {
            let mut length = 0;
            let data = ffi::PyUnicode_AsUTF8AndSize(object, &mut length);
            if data.is_null() {
                return Err(Raised.into());
            }
            let text = core::slice::from_raw_parts(data.cast::<u8>(), length as usize);
            return Ok(Answer::Text(checked(text, takes(accepts::EMPTY))?));
        }
        if (is_str && takes(accepts::LATIN1))
            || (ffi::PyBytes_Check(object) != 0 && takes(accepts::BYTES))
        {
            let text = text_of(py, object)?;
            return Ok(Answer::Text(checked(text, takes(accepts::EMPTY))?));
        }
        // A single name is no list of names, although it can be iterated over.
        let is_text = is_str || ffi::PyBytes_Check(object) != 0;
        if takes(accepts::NAMES) && !is_text && is_iterable(object) {
            return names(py, object);
        }
        Err(Unusable::Wrong(describe(object)))
    }
}

/// The latin-1 bytes of a str, or those of a bytes object.
///
/// # Safety
/// `object` is a live str or bytes object, and outlives the result.
unsafe fn text_of<'a>(py: Attached, object: *mut ffi::PyObject) -> Result<&'a [u8]> {
    // SAFETY: by contract.
    unsafe {
        if ffi::PyUnicode_Check(object) != 0 {
            latin1_bytes(py, object)
        } else {
            Ok(bytes_of(object))
        }
    }
}

/// Text as C code may have it: a NUL would cut a name down to another one.
fn checked(text: &[u8], may_be_empty: bool) -> core::result::Result<Vec<u8>, Unusable> {
    if text.is_empty() && !may_be_empty {
        return Err(Unusable::Wrong("an empty text".to_owned()));
    }
    if text.contains(&0) {
        return Err(Unusable::Wrong("a text with a NUL character".to_owned()));
    }
    Ok(text.to_vec())
}

/// # Safety
/// `object` is live.
unsafe fn is_iterable(object: *mut ffi::PyObject) -> bool {
    // SAFETY: a live object; its type is only read.
    unsafe { (*ffi::Py_TYPE(object)).tp_iter.is_some() || ffi::PySequence_Check(object) != 0 }
}

/// # Safety
/// `object` is live.
unsafe fn names(
    py: Attached,
    object: *mut ffi::PyObject,
) -> core::result::Result<Answer, Unusable> {
    let mut found = Vec::new();
    // SAFETY: a live object; the iterator's items are ours.
    unsafe {
        let iterator = Owned::from_new(ffi::PyObject_GetIter(object))?;
        let next = || Owned::from_new(ffi::PyIter_Next(iterator.as_ptr()));
        while let Ok(item) = order::outside(py, next) {
            let item = item.as_ptr();
            if ffi::PyUnicode_Check(item) == 0 && ffi::PyBytes_Check(item) == 0 {
                let what = describe(item);
                return Err(Unusable::Wrong(format!("an iterable with {what} in it")));
            }
            found.push(checked(text_of(py, item)?, false)?);
        }
    }
    if is_raised(py) {
        return Err(Raised.into());
    }
    Ok(Answer::Names(found))
}

/// # Safety
/// `object` is live.
unsafe fn describe(object: *mut ffi::PyObject) -> String {
    // SAFETY: by contract.
    unsafe {
        if object == ffi::Py_None() {
            return "None".to_owned();
        }
        format!("an object of type {}", type_name(object))
    }
}

/// What a function must return, for messages.
pub fn wanted(accepted: u32) -> String {
    let takes = |kind| accepted & kind != 0;
    let nonempty = !takes(accepts::EMPTY);
    let mut kinds = Vec::new();
    if takes(accepts::BOOL) {
        kinds.extend(["True", "False"]);
    }
    if takes(accepts::UTF8 | accepts::LATIN1) {
        kinds.push(if nonempty {
            "a str that is not empty"
        } else {
            "a str"
        });
    }
    if takes(accepts::BYTES) {
        kinds.push(if nonempty {
            "bytes that are not empty"
        } else {
            "bytes"
        });
    }
    if takes(accepts::NAMES) {
        kinds.push("an iterable of names, each a str or bytes that are not empty");
    }
    if takes(accepts::NONE) {
        kinds.push("None");
    }
    match kinds.split_last() {
        Some((last, [])) => (*last).to_owned(),
        Some((last, others)) => format!("{} or {last}", others.join(", ")),
        None => String::new(),
    }
}
