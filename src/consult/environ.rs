//! The environ of a consultation: what a function is handed, until the consultation ends.

use pyo3::ffi;

use super::ServerSide;
use super::tls::{self, Tls};
use crate::exchange::abi::Consultation;
use crate::exchange::header_names::{self, KNOWN, Variable};
use crate::exchange::{Authorization, Exchange};
use crate::python::attach::Attached;
use crate::python::object::{Owned, file_system_text, int, latin1, set_item, tuple};
use crate::python::raise::Result;
use crate::python::request::RequestCore;
use crate::python::runtime::runtime;
use crate::python::{capsule, log};

/// What the functions get. When it is dropped it is cut off from the request.
pub struct Handed<'c> {
    py: Attached,
    core: &'c RequestCore,
    /// The environ.
    pub environ: Owned,
    errors: Owned,
    native: Option<Owned>,
    tls: Option<Owned>,
    /// What `tls` points to.
    _view: Box<Tls<'c>>,
}

impl<'c> Handed<'c> {
    /// What there is to hand out; the environ is still empty.
    pub fn new(
        py: Attached,
        core: &'c RequestCore,
        side: &'c ServerSide<'c>,
        consultation: &Consultation<'_>,
    ) -> Result<Handed<'c>> {
        let view = Box::new(Tls { side });
        let native = side.native();
        let native = native
            .map(|pointer| capsule::new(py, pointer))
            .transpose()?;
        // SAFETY: both are ended by our Drop, before what they point to goes; on an early return they
        // have one reference, here, and are gone at once.
        let (errors, tls) = unsafe {
            let errors = log::for_request(py, core)?;
            let tls = match consultation.offers_tls {
                true => Some(tls::new(py, &view)?),
                false => None,
            };
            (errors, tls)
        };
        Ok(Handed {
            py,
            core,
            // SAFETY: a new dict.
            environ: unsafe { Owned::from_new(ffi::PyDict_New())? },
            errors,
            native,
            tls,
            _view: view,
        })
    }

    /// Fills the environ.
    pub fn fill(&self, consultation: &Consultation<'_>) -> Result<()> {
        let py = self.py;
        let put = |name: &[u8], value: &Owned| -> Result<()> {
            let name = latin1(py, name)?;
            // SAFETY: our exact dict, live objects of this interpreter.
            unsafe { set_item(py, self.environ.as_ptr(), name.as_ptr(), value.as_ptr()) }
        };
        for variable in consultation.variables.items() {
            let name = variable.name.bytes();
            let value = variable.value.bytes();
            let value = match name {
                b"DOCUMENT_ROOT" | b"SCRIPT_FILENAME" => file_system_text(py, value)?,
                _ => latin1(py, value)?,
            };
            put(name, &value)?;
        }
        let mut name = Vec::new();
        for field in consultation.headers.items() {
            name.clear();
            match header_names::variable(field.name.bytes(), Authorization::Hidden) {
                Variable::Known(index) => {
                    name.extend_from_slice(KNOWN[index as usize].1.as_bytes());
                }
                Variable::Other => header_names::write_name(field.name.bytes(), &mut name),
                Variable::Dropped => continue,
            }
            put(&name, &latin1(py, field.value.bytes())?)?;
        }
        put(b"wsgi.errors", &self.errors)?;
        put(b"mod_wsgi.process_group", &latin1(py, b"")?)?;
        let group = consultation.application_group.bytes();
        put(b"mod_wsgi.application_group", &latin1(py, group)?)?;
        let version = |numbers: [u32; 3]| {
            let [major, minor, patch] = numbers.map(|number| int(py, number.into()));
            tuple(py, [major?, minor?, patch?])
        };
        put(b"mod_wsgi.version", &version(crate::MOD_WSGI_VERSION)?)?;
        let server = runtime().map(|runtime| runtime.options.server_version);
        put(b"apache.version", &version(server.unwrap_or_default())?)?;
        if let Some(native) = &self.native {
            put(b"apache.request_rec", native)?;
        }
        if let Some(tls) = &self.tls {
            put(b"mod_ssl.is_https", &tls::method(py, tls, c"is_https")?)?;
            put(b"mod_ssl.var_lookup", &tls::method(py, tls, c"var_lookup")?)?;
        }
        Ok(())
    }
}

impl Drop for Handed<'_> {
    fn drop(&mut self) {
        self.core.end();
        // SAFETY: made by the respective constructors, above.
        unsafe {
            log::end(self.py, &self.errors);
            if let Some(tls) = &self.tls {
                tls::end(self.py, tls);
            }
        }
        if let Some(native) = &self.native {
            capsule::end(self.py, native);
        }
        self.core.leave(self.py);
    }
}
