//! Owned references to Python objects, and making the common ones.

use core::ffi::CStr;
use core::ptr::NonNull;

use pyo3::ffi;

use super::attach::Attached;
use super::raise::{Raised, Result};

/// A strong reference.
///
/// Must be dropped by a thread that is attached to the interpreter that the object belongs to.
/// There is no thread-safe fallback (a pool of deferred references is per process and would mix
/// interpreters): whoever keeps one says in its own contract why that holds.
pub struct Owned(NonNull<ffi::PyObject>);

impl Owned {
    /// Takes over a new reference as the C API returns it; null means that an exception is set.
    ///
    /// # Safety
    /// `pointer` is null or a strong reference that nobody else will release.
    #[inline]
    pub unsafe fn from_new(pointer: *mut ffi::PyObject) -> Result<Owned> {
        NonNull::new(pointer).map(Owned).ok_or(Raised)
    }

    /// Makes a strong reference of a borrowed one.
    ///
    /// # Safety
    /// `pointer` is a live object of the interpreter that `_py` is attached to.
    #[inline]
    pub unsafe fn from_borrowed(_py: Attached, pointer: *mut ffi::PyObject) -> Owned {
        // SAFETY: live and attached by contract; a live object is never null.
        unsafe {
            ffi::Py_INCREF(pointer);
            Owned(NonNull::new_unchecked(pointer))
        }
    }

    /// `None`.
    pub fn none(py: Attached) -> Owned {
        // SAFETY: None is a live object in every interpreter.
        unsafe { Owned::from_borrowed(py, ffi::Py_None()) }
    }

    /// The borrowed pointer, valid while `self` is.
    #[inline]
    pub fn as_ptr(&self) -> *mut ffi::PyObject {
        self.0.as_ptr()
    }

    /// Gives the reference away, as C slots return it.
    #[inline]
    pub fn into_ptr(self) -> *mut ffi::PyObject {
        let pointer = self.0.as_ptr();
        core::mem::forget(self);
        pointer
    }

    /// Another reference to the same object.
    #[inline]
    pub fn clone_ref(&self, py: Attached) -> Owned {
        // SAFETY: we own a reference, so the object lives.
        unsafe { Owned::from_borrowed(py, self.as_ptr()) }
    }
}

impl Drop for Owned {
    #[inline]
    fn drop(&mut self) {
        debug_assert!(super::attach::thread_is_attached());
        // SAFETY: we own the reference; the type's contract says that we are attached.
        unsafe { ffi::Py_DECREF(self.0.as_ptr()) }
    }
}

#[cfg(not(Py_3_13))]
unsafe extern "C" {
    // Exported by 3.9 to 3.12, where PyObject_GetOptionalAttr does not exist yet.
    fn _PyObject_LookupAttr(
        object: *mut ffi::PyObject,
        name: *mut ffi::PyObject,
        result: *mut *mut ffi::PyObject,
    ) -> core::ffi::c_int;
}

/// The attribute `name` (a str) of `object`, if it has one; no AttributeError is ever made.
///
/// # Safety
/// Both are live objects of the attached interpreter.
pub unsafe fn optional_attribute(
    _py: Attached,
    object: *mut ffi::PyObject,
    name: *mut ffi::PyObject,
) -> Result<Option<Owned>> {
    let mut found = core::ptr::null_mut();
    // SAFETY: live objects by contract, attached by `_py`.
    #[cfg(Py_3_13)]
    let status = unsafe { ffi::PyObject_GetOptionalAttr(object, name, &mut found) };
    // SAFETY: as above.
    #[cfg(not(Py_3_13))]
    let status = unsafe { _PyObject_LookupAttr(object, name, &mut found) };
    if status < 0 {
        return Err(Raised);
    }
    // SAFETY: the call gave us a new reference or null.
    Ok(unsafe { Owned::from_new(found) }.ok())
}

/// A str of latin-1 `bytes`, as PEP 3333 wants native strings.
#[inline]
pub fn latin1(_py: Attached, bytes: &[u8]) -> Result<Owned> {
    let length = bytes.len() as ffi::Py_ssize_t;
    if bytes.len() > 1 && bytes.is_ascii() {
        // The fast path of PyUnicode_DecodeLatin1 without its second scan.
        // SAFETY: a new compact ASCII str has `length` writable bytes behind its header.
        unsafe {
            let text = Owned::from_new(ffi::PyUnicode_New(length, 127))?;
            let data = ffi::PyUnicode_DATA(text.as_ptr());
            core::ptr::copy_nonoverlapping(bytes.as_ptr(), data.cast(), bytes.len());
            return Ok(text);
        }
    }
    // One character strings come from CPython's cache here.
    // SAFETY: pointer and length of a slice.
    unsafe {
        Owned::from_new(ffi::PyUnicode_DecodeLatin1(
            bytes.as_ptr().cast(),
            length,
            core::ptr::null(),
        ))
    }
}

/// A str of file system `bytes` (surrogateescape), latin-1 if that fails.
pub fn file_system_text(py: Attached, bytes: &[u8]) -> Result<Owned> {
    // SAFETY: pointer and length of a slice.
    let decoded = unsafe {
        Owned::from_new(ffi::PyUnicode_DecodeFSDefaultAndSize(
            bytes.as_ptr().cast(),
            bytes.len() as ffi::Py_ssize_t,
        ))
    };
    decoded.or_else(|raised| {
        raised.clear(py);
        latin1(py, bytes)
    })
}

/// An interned str; `text` is ASCII.
pub fn interned(_py: Attached, text: &str) -> Result<Owned> {
    // SAFETY: pointer and length of a str; interning replaces the reference by an equal one.
    unsafe {
        let mut pointer =
            ffi::PyUnicode_FromStringAndSize(text.as_ptr().cast(), text.len() as ffi::Py_ssize_t);
        if !pointer.is_null() {
            ffi::PyUnicode_InternInPlace(&mut pointer);
        }
        Owned::from_new(pointer)
    }
}

/// A bytes object.
pub fn bytes(_py: Attached, data: &[u8]) -> Result<Owned> {
    // SAFETY: pointer and length of a slice.
    unsafe {
        Owned::from_new(ffi::PyBytes_FromStringAndSize(
            data.as_ptr().cast(),
            data.len() as ffi::Py_ssize_t,
        ))
    }
}

/// An int.
pub fn int(_py: Attached, value: i64) -> Result<Owned> {
    // SAFETY: no pointers.
    unsafe { Owned::from_new(ffi::PyLong_FromLongLong(value)) }
}

/// A float.
pub fn float(_py: Attached, value: f64) -> Result<Owned> {
    // SAFETY: no pointers.
    unsafe { Owned::from_new(ffi::PyFloat_FromDouble(value)) }
}

/// `True` or `False`.
pub fn boolean(py: Attached, value: bool) -> Owned {
    // SAFETY: both are live objects in every interpreter.
    unsafe {
        Owned::from_borrowed(
            py,
            if value {
                ffi::Py_True()
            } else {
                ffi::Py_False()
            },
        )
    }
}

/// A tuple of the given objects.
pub fn tuple<const N: usize>(_py: Attached, items: [Owned; N]) -> Result<Owned> {
    // SAFETY: a new tuple of N empty slots, each filled once with a reference that we give away.
    unsafe {
        let tuple = Owned::from_new(ffi::PyTuple_New(N as ffi::Py_ssize_t))?;
        for (index, item) in items.into_iter().enumerate() {
            ffi::PyTuple_SET_ITEM(tuple.as_ptr(), index as ffi::Py_ssize_t, item.into_ptr());
        }
        Ok(tuple)
    }
}

/// Sets `dict[key] = value`.
///
/// # Safety
/// `dict` is an exact dict, all are live objects of the attached interpreter.
#[inline]
pub unsafe fn set_item(
    _py: Attached,
    dict: *mut ffi::PyObject,
    key: *mut ffi::PyObject,
    value: *mut ffi::PyObject,
) -> Result<()> {
    // SAFETY: by contract.
    if unsafe { ffi::PyDict_SetItem(dict, key, value) } < 0 {
        return Err(Raised);
    }
    Ok(())
}

/// The latin-1 bytes of a str, borrowed from it.
///
/// # Errors
/// Raises UnicodeEncodeError if a character is beyond U+00FF.
///
/// # Safety
/// `text` is a live str that outlives the result.
pub unsafe fn latin1_bytes<'a>(_py: Attached, text: *mut ffi::PyObject) -> Result<&'a [u8]> {
    // SAFETY: a live str by contract. Data of kind 1 is latin-1, one byte a character.
    unsafe {
        if ffi::PyUnicode_READY(text) < 0 {
            return Err(Raised);
        }
        if ffi::PyUnicode_KIND(text) == 1 {
            return Ok(core::slice::from_raw_parts(
                ffi::PyUnicode_DATA(text).cast::<u8>(),
                ffi::PyUnicode_GET_LENGTH(text) as usize,
            ));
        }
        // Let CPython raise the exception that describes the character.
        drop(Owned::from_new(ffi::PyUnicode_AsLatin1String(text))?);
    }
    // A str of a wider kind always has a wider character, so this is not reached.
    Ok(&[])
}

/// The bytes of a bytes object, borrowed from it.
///
/// # Safety
/// `object` is a live bytes object (or of a subclass) that outlives the result.
pub unsafe fn bytes_of<'a>(object: *mut ffi::PyObject) -> &'a [u8] {
    // SAFETY: by contract.
    unsafe {
        core::slice::from_raw_parts(
            ffi::PyBytes_AS_STRING(object).cast::<u8>(),
            ffi::Py_SIZE(object) as usize,
        )
    }
}

/// The name of an object's type, for messages.
///
/// # Safety
/// `object` is live; the result is used at once.
pub unsafe fn type_name(object: *mut ffi::PyObject) -> String {
    // SAFETY: a live object has a type whose name is a C string.
    unsafe {
        let name = (*ffi::Py_TYPE(object)).tp_name;
        core::ffi::CStr::from_ptr(name)
            .to_string_lossy()
            .into_owned()
    }
}

/// The value under `key`, if there is one.
///
/// # Errors
/// Whatever hashing or comparing the key raises.
///
/// # Safety
/// `dict` is a live dict, `key` a live object.
#[inline]
pub unsafe fn dict_item(
    py: Attached,
    dict: *mut ffi::PyObject,
    key: *mut ffi::PyObject,
) -> Result<Option<Owned>> {
    // Without the GIL a borrowed value may be gone before it is referenced.
    #[cfg(Py_GIL_DISABLED)]
    // SAFETY: live by contract; the result is ours.
    unsafe {
        let _ = py;
        let mut value = core::ptr::null_mut();
        match ffi::PyDict_GetItemRef(dict, key, &mut value) {
            -1 => Err(Raised),
            0 => Ok(None),
            _ => Owned::from_new(value).map(Some),
        }
    }
    #[cfg(not(Py_GIL_DISABLED))]
    // SAFETY: live by contract; the value is borrowed from the dict.
    unsafe {
        let found = ffi::PyDict_GetItemWithError(dict, key);
        if !found.is_null() {
            return Ok(Some(Owned::from_borrowed(py, found)));
        }
        if super::raise::is_raised(py) {
            return Err(Raised);
        }
        Ok(None)
    }
}

/// [`dict_item`] by name.
///
/// # Errors
/// No memory.
///
/// # Safety
/// `dict` is a live dict.
pub unsafe fn dict_item_by_name(
    py: Attached,
    dict: *mut ffi::PyObject,
    name: &CStr,
) -> Result<Option<Owned>> {
    // SAFETY: live by contract; a C string.
    unsafe {
        let key = Owned::from_new(ffi::PyUnicode_FromString(name.as_ptr()))?;
        dict_item(py, dict, key.as_ptr())
    }
}

/// The items of a list as a tuple: what does not change where other threads need not wait for their
/// turn.
///
/// # Errors
/// No memory.
///
/// # Safety
/// `list` is a live list.
#[cfg(Py_GIL_DISABLED)]
pub unsafe fn steady_items(_py: Attached, list: *mut ffi::PyObject) -> Result<Owned> {
    // SAFETY: live by contract.
    unsafe { Owned::from_new(ffi::PyList_AsTuple(list)) }
}
