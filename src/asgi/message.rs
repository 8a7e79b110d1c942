//! The messages that an application sends: dicts, of which everything is checked.

use pyo3::ffi;

use crate::exchange::response;
use crate::exchange::{Pair, Text};
use crate::python::attach::Attached;
use crate::python::object::{self, Owned, bytes_of, type_name};
use crate::python::raise::{Kind, Raised, Result, raise};

/// A message; a dict.
pub struct Message<'m>(&'m Owned);

impl<'m> Message<'m> {
    /// Takes a message.
    ///
    /// # Errors
    /// Raises TypeError if it is no dict.
    pub fn new(py: Attached, object: &'m Owned) -> Result<Message<'m>> {
        // SAFETY: a live object.
        unsafe {
            if ffi::PyDict_Check(object.as_ptr()) == 0 {
                let what = format!(
                    "a message must be a dict, not {}",
                    type_name(object.as_ptr())
                );
                return Err(raise(py, Kind::Type, &what));
            }
        }
        Ok(Message(object))
    }

    /// What it has under `key`; `None` counts as nothing.
    ///
    /// # Errors
    /// What a key's comparison raises.
    #[inline]
    pub fn get(&self, py: Attached, key: &Owned) -> Result<Option<Owned>> {
        // SAFETY: a live dict and a live key.
        let found = unsafe { object::dict_item(py, self.0.as_ptr(), key.as_ptr())? };
        // SAFETY: attached.
        Ok(found.filter(|value| value.as_ptr() != unsafe { ffi::Py_None() }))
    }

    /// Its type.
    ///
    /// # Errors
    /// Raises KeyError or TypeError if it has none.
    pub fn kind(&self, py: Attached) -> Result<Owned> {
        let key = &py.interpreter().asgi().names.type_;
        match self.get(py, key)? {
            // SAFETY: a live object.
            Some(kind) if unsafe { ffi::PyUnicode_Check(kind.as_ptr()) } != 0 => Ok(kind),
            _ => Err(raise(py, Kind::Type, "a message must have a 'type', a str")),
        }
    }

    /// An int.
    ///
    /// # Errors
    /// Raises TypeError or OverflowError.
    pub fn integer(&self, py: Attached, key: &Owned) -> Result<Option<i64>> {
        let Some(value) = self.get(py, key)? else {
            return Ok(None);
        };
        // SAFETY: a live object.
        unsafe {
            // http.HTTPStatus is an int as well.
            if ffi::PyLong_Check(value.as_ptr()) == 0 {
                return Err(self.wrong(py, key, "an int", &value));
            }
            let number = ffi::PyLong_AsLongLong(value.as_ptr());
            if number == -1 && crate::python::raise::is_raised(py) {
                return Err(Raised);
            }
            Ok(Some(number))
        }
    }

    /// Whether something is true.
    ///
    /// # Errors
    /// What its `__bool__` raises.
    #[inline]
    pub fn truth(&self, py: Attached, key: &Owned) -> Result<bool> {
        let Some(value) = self.get(py, key)? else {
            return Ok(false);
        };
        // SAFETY: a live object.
        match unsafe { ffi::PyObject_IsTrue(value.as_ptr()) } {
            -1 => Err(Raised),
            truth => Ok(truth == 1),
        }
    }

    /// A str, as UTF-8.
    ///
    /// # Errors
    /// Raises TypeError, or UnicodeEncodeError for lone surrogates.
    pub fn text(&self, py: Attached, key: &Owned) -> Result<Option<Str>> {
        let Some(value) = self.get(py, key)? else {
            return Ok(None);
        };
        // SAFETY: a live object.
        if unsafe { ffi::PyUnicode_Check(value.as_ptr()) } == 0 {
            return Err(self.wrong(py, key, "a str", &value));
        }
        Str::new(py, value).map(Some)
    }

    /// A bytes object.
    ///
    /// # Errors
    /// Raises TypeError.
    #[inline]
    pub fn bytes(&self, py: Attached, key: &Owned) -> Result<Option<Owned>> {
        let Some(value) = self.get(py, key)? else {
            return Ok(None);
        };
        // SAFETY: a live object; a bytearray or memoryview is copied, so that it cannot change.
        unsafe {
            if ffi::PyBytes_Check(value.as_ptr()) != 0 {
                return Ok(Some(value));
            }
            if ffi::PyByteArray_Check(value.as_ptr()) != 0
                || ffi::PyMemoryView_Check(value.as_ptr()) != 0
            {
                return Owned::from_new(ffi::PyBytes_FromObject(value.as_ptr())).map(Some);
            }
        }
        Err(self.wrong(py, key, "bytes", &value))
    }

    /// Header fields, in order.
    ///
    /// # Errors
    /// Raises TypeError or ValueError.
    pub fn headers(&self, py: Attached) -> Result<Fields> {
        let mut fields = Fields::default();
        let Some(value) = self.get(py, &py.interpreter().asgi().names.headers)? else {
            return Ok(fields);
        };
        // SAFETY: live objects; the sequence keeps its items, which are read before anything else
        // runs. (A list is not copied, but nothing here runs application code, unless an item is
        // neither list nor tuple, and then it is the item's own code.)
        unsafe {
            let items = Owned::from_new(ffi::PySequence_Tuple(value.as_ptr()))?;
            let count = ffi::PyTuple_GET_SIZE(items.as_ptr());
            fields.fields.reserve(count as usize);
            for index in 0..count {
                let item = ffi::PyTuple_GET_ITEM(items.as_ptr(), index);
                fields.add(py, item)?;
            }
        }
        Ok(fields)
    }

    #[cold]
    fn wrong(&self, py: Attached, key: &Owned, wanted: &str, found: &Owned) -> Raised {
        // SAFETY: live objects.
        let (key, found) = unsafe {
            (
                object::latin1_bytes(py, key.as_ptr()).unwrap_or_default(),
                type_name(found.as_ptr()),
            )
        };
        let key = String::from_utf8_lossy(key);
        raise(
            py,
            Kind::Type,
            &format!("'{key}' of a message must be {wanted}, not {found}"),
        )
    }
}

/// A str and its UTF-8 form.
pub struct Str {
    object: Owned,
    data: *const u8,
    length: usize,
}

impl Str {
    fn new(_py: Attached, object: Owned) -> Result<Str> {
        let mut length = 0;
        // SAFETY: a live str, whose UTF-8 form lives as long.
        let data = unsafe { ffi::PyUnicode_AsUTF8AndSize(object.as_ptr(), &mut length) };
        if data.is_null() {
            return Err(Raised);
        }
        Ok(Str {
            object,
            data: data.cast(),
            length: length as usize,
        })
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        let _ = &self.object;
        // SAFETY: valid UTF-8 by CPython's contract, alive as long as the object.
        unsafe {
            core::str::from_utf8_unchecked(core::slice::from_raw_parts(self.data, self.length))
        }
    }
}

/// Header fields of a response, checked.
#[derive(Default)]
pub struct Fields {
    fields: Vec<(Owned, Owned)>,
    /// Content-Length.
    pub content_length: Option<u64>,
}

impl Fields {
    /// # Safety
    /// `item` is live.
    unsafe fn add(&mut self, py: Attached, item: *mut ffi::PyObject) -> Result<()> {
        // SAFETY: live by contract; borrowed items get references of their own.
        let (name, value) = unsafe {
            let pair = Owned::from_new(ffi::PySequence_Tuple(item))?;
            if ffi::PyTuple_GET_SIZE(pair.as_ptr()) != 2 {
                let what = "an item of 'headers' must have two parts, name and value";
                return Err(raise(py, Kind::Value, what));
            }
            let part = |index| {
                let part = ffi::PyTuple_GET_ITEM(pair.as_ptr(), index);
                if ffi::PyBytes_Check(part) == 0 {
                    let what = format!(
                        "names and values in 'headers' must be bytes, not {}",
                        type_name(part)
                    );
                    return Err(raise(py, Kind::Type, &what));
                }
                Ok(Owned::from_borrowed(py, part))
            };
            (part(0)?, part(1)?)
        };
        // SAFETY: live bytes objects.
        let (name_bytes, value_bytes) =
            unsafe { (bytes_of(name.as_ptr()), bytes_of(value.as_ptr())) };
        match response::check_field(name_bytes, value_bytes) {
            Ok(()) => {}
            // Libraries set them as if there were no server in front; they mean nothing here.
            Err(response::FieldError::HopByHop) => return Ok(()),
            Err(error) => {
                return Err(raise(
                    py,
                    Kind::Value,
                    &error.about(name_bytes, value_bytes),
                ));
            }
        }
        if name_bytes.eq_ignore_ascii_case(b"content-length") {
            let length = response::parse_content_length(value_bytes);
            match (length, self.content_length) {
                (Some(length), None) => self.content_length = Some(length),
                (Some(length), Some(known)) if length == known => {}
                _ => {
                    let what = format!(
                        "'content-length' must be one decimal number, not b'{}'",
                        value_bytes.escape_ascii()
                    );
                    return Err(raise(py, Kind::Value, &what));
                }
            }
            return Ok(());
        }
        self.fields.push((name, value));
        Ok(())
    }

    /// The fields but Content-Length.
    pub fn pairs(&self) -> Vec<Pair<'_>> {
        self.fields
            .iter()
            // SAFETY: live bytes objects, which never change.
            .map(|(name, value)| unsafe {
                Pair {
                    name: Text::new(bytes_of(name.as_ptr())),
                    value: Text::new(bytes_of(value.as_ptr())),
                }
            })
            .collect()
    }
}

/// Whether a str is one of ours: the same object usually, equal otherwise.
#[inline]
pub fn is(_py: Attached, text: &Owned, name: &Owned) -> bool {
    text.as_ptr() == name.as_ptr()
        // SAFETY: two live strs.
        || unsafe { ffi::PyUnicode_Compare(text.as_ptr(), name.as_ptr()) == 0 }
}
