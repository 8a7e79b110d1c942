//! The environ dictionary: PEP 3333 "environ Variables", RFC 3875, and mod_wsgi's own keys.
//!
//! Most of it is the same for every request of a mount. A template holds it, is copied (one
//! memory copy of the hash table), and only what the request has is put in. Values that httpd
//! may change from request to request are compared with the template's and replaced if they
//! differ. What every request overwrites is in the template as a placeholder, so that the copy
//! need not grow.

use core::cell::{Cell, RefCell};
use core::mem::MaybeUninit;
use std::rc::Rc;

use pyo3::ffi;

use super::State;
use crate::exchange::header_names::{self, KNOWN, Variable};
use crate::exchange::{RequestHead, Target, Text};
use crate::metrics::thread;
use crate::python::attach::Attached;
use crate::python::object::{
    self, Owned, boolean, file_system_text, float, int, interned, latin1, set_item, tuple,
};
use crate::python::raise::{Raised, Result};

macro_rules! keys {
    ($($field:ident = $name:literal,)*) => {
        /// The interned names of variables.
        pub struct Keys {
            $($field: Owned,)*
            /// By index in [`KNOWN`].
            headers: Vec<Owned>,
        }

        impl Keys {
            /// Once per interpreter.
            pub fn new(py: Attached) -> Result<Keys> {
                Ok(Keys {
                    $($field: interned(py, $name)?,)*
                    headers: KNOWN
                        .iter()
                        .map(|(_, variable)| interned(py, variable))
                        .collect::<Result<_>>()?,
                })
            }
        }
    };
}

keys! {
    request_method = "REQUEST_METHOD",
    script_name = "SCRIPT_NAME",
    path_info = "PATH_INFO",
    query_string = "QUERY_STRING",
    request_uri = "REQUEST_URI",
    server_protocol = "SERVER_PROTOCOL",
    remote_addr = "REMOTE_ADDR",
    remote_port = "REMOTE_PORT",
    server_software = "SERVER_SOFTWARE",
    server_name = "SERVER_NAME",
    server_addr = "SERVER_ADDR",
    server_port = "SERVER_PORT",
    server_admin = "SERVER_ADMIN",
    document_root = "DOCUMENT_ROOT",
    context_prefix = "CONTEXT_PREFIX",
    context_document_root = "CONTEXT_DOCUMENT_ROOT",
    request_scheme = "REQUEST_SCHEME",
    script_filename = "SCRIPT_FILENAME",
    wsgi_version = "wsgi.version",
    wsgi_url_scheme = "wsgi.url_scheme",
    wsgi_multithread = "wsgi.multithread",
    wsgi_multiprocess = "wsgi.multiprocess",
    wsgi_run_once = "wsgi.run_once",
    wsgi_input = "wsgi.input",
    wsgi_input_terminated = "wsgi.input_terminated",
    wsgi_errors = "wsgi.errors",
    wsgi_file_wrapper = "wsgi.file_wrapper",
    mod_wsgi_version = "mod_wsgi.version",
    mod_wsgi_process_group = "mod_wsgi.process_group",
    mod_wsgi_application_group = "mod_wsgi.application_group",
    mod_wsgi_callable_object = "mod_wsgi.callable_object",
    mod_wsgi_request_handler = "mod_wsgi.request_handler",
    mod_wsgi_handler_script = "mod_wsgi.handler_script",
    mod_wsgi_script_name = "mod_wsgi.script_name",
    mod_wsgi_path_info = "mod_wsgi.path_info",
    mod_wsgi_mount_point = "mod_wsgi.mount_point",
    mod_wsgi_listener_host = "mod_wsgi.listener_host",
    mod_wsgi_listener_port = "mod_wsgi.listener_port",
    mod_wsgi_server_pid = "mod_wsgi.server_pid",
    mod_wsgi_request_id = "mod_wsgi.request_id",
    mod_wsgi_connection_id = "mod_wsgi.connection_id",
    mod_wsgi_thread_id = "mod_wsgi.thread_id",
    mod_wsgi_request_start = "mod_wsgi.request_start",
    mod_wsgi_queue_start = "mod_wsgi.queue_start",
    mod_wsgi_daemon_start = "mod_wsgi.daemon_start",
    mod_wsgi_application_start = "mod_wsgi.application_start",
    apache_version = "apache.version",
    apache_request_rec = "apache.request_rec",
    http = "http",
    https = "https",
}

/// Room for this many entries: constants and a browser's headers without growing.
const ENTRIES: ffi::Py_ssize_t = 80;
/// Templates per script at most; a script with more mounts than this shares.
const TEMPLATES: usize = 64;

unsafe extern "C" {
    // Private but exported by every version from 3.9 to 3.15.
    fn _PyDict_NewPresized(size: ffi::Py_ssize_t) -> *mut ffi::PyObject;
}

/// The templates of one script.
#[derive(Default)]
pub struct ScriptState {
    templates: RefCell<Vec<Rc<Template>>>,
    oldest: Cell<usize>,
}

/// A prepared environ, and the values that it was prepared from.
pub struct Template {
    environ: Owned,
    /// The callable's name, to be looked up in the script's module.
    pub callable: Owned,
    site: [Option<Box<[u8]>>; 16],
    script_name: Box<[u8]>,
    /// That of the first request, and of all behind the same proxy.
    remote_addr: Box<[u8]>,
    https: bool,
    server_pid: u32,
}

/// Indices of [`Site::values`](crate::exchange::Site::values) that follow the request (Host header, local address) rather
/// than the configuration: server name, address and port, scheme, listener.
const CHANGING: [usize; 6] = [1, 2, 3, 8, 14, 15];
/// Likewise `SCRIPT_FILENAME`: a handler script answers for many files.
const SCRIPT_FILENAME: usize = 9;
/// The others: two requests that agree in these have the same mount. Those that differ most come
/// first. Whether the script is a handler's follows from the name of the handler.
const FIXED: [usize; 9] = [11, 5, 12, 13, 10, 4, 6, 7, 0];

/// What an environ is made from.
pub struct Incoming<'a> {
    /// What was asked.
    pub head: &'a RequestHead<'a>,
    /// Its headers.
    pub headers: &'a Headers<'a>,
    /// When the thread was attached, microseconds since the epoch.
    pub started_us: i64,
}

/// The request's headers by what becomes of them, found out before the thread is attached.
pub struct Headers<'a> {
    /// The first `count` are there.
    known: [MaybeUninit<(u8, Text<'a>)>; Headers::ROOM],
    count: usize,
    others: Vec<(Vec<u8>, Text<'a>)>,
}

impl<'a> Headers<'a> {
    const ROOM: usize = 40;

    /// None. To be filled where it stands: it is too large to be moved for every request.
    #[inline(always)]
    pub fn empty() -> Headers<'a> {
        Headers {
            known: [const { MaybeUninit::uninit() }; Headers::ROOM],
            count: 0,
            others: Vec::new(),
        }
    }

    /// Maps the names.
    pub fn scan(&mut self, head: &RequestHead<'a>) {
        for field in head.headers.items() {
            match header_names::variable(field.name.bytes(), head.authorization) {
                Variable::Known(index) => match self.known.get_mut(self.count) {
                    Some(place) => {
                        place.write((index, field.value));
                        self.count += 1;
                    }
                    None => {
                        let name = KNOWN[index as usize].1.as_bytes().to_vec();
                        self.others.push((name, field.value));
                    }
                },
                Variable::Other => {
                    let mut name = Vec::new();
                    header_names::write_name(field.name.bytes(), &mut name);
                    self.others.push((name, field.value));
                }
                Variable::Dropped => {}
            }
        }
    }

    /// Those with a name that is known: its index, and the value.
    fn known(&self) -> &[(u8, Text<'a>)] {
        // SAFETY: `scan` has initialised that many; a `MaybeUninit` has its value's layout.
        unsafe { core::slice::from_raw_parts(self.known.as_ptr().cast(), self.count) }
    }
}

impl ScriptState {
    /// The template for a request: the same mount, whatever the client's view of the server.
    pub fn template(
        &self,
        py: Attached,
        state: &State,
        head: &RequestHead<'_>,
        target: &Target<'_>,
    ) -> Result<Rc<Template>> {
        let values = head.site.values();
        for template in self.templates.borrow().iter() {
            if template.fits(&values) {
                return Ok(Rc::clone(template));
            }
        }
        let template = Rc::new(Template::build(py, state, head, target)?);
        let mut templates = self.templates.borrow_mut();
        if templates.len() < TEMPLATES {
            templates.push(Rc::clone(&template));
        } else {
            let oldest = self.oldest.get();
            self.oldest.set((oldest + 1) % TEMPLATES);
            // Its environ holds nothing but strings, so no application code runs at its end.
            templates[oldest] = Rc::clone(&template);
        }
        Ok(template)
    }
}

fn same(value: Option<&[u8]>, known: &Option<Box<[u8]>>) -> bool {
    value == known.as_deref()
}

impl Template {
    #[inline]
    fn fits(&self, values: &[Option<&[u8]>; 16]) -> bool {
        FIXED.iter().all(|&i| same(values[i], &self.site[i]))
    }

    fn build(
        py: Attached,
        state: &State,
        head: &RequestHead<'_>,
        target: &Target<'_>,
    ) -> Result<Template> {
        let keys = &state.keys;
        let site = &head.site;
        // SAFETY: a plain size.
        let environ = unsafe { Owned::from_new(_PyDict_NewPresized(ENTRIES))? };
        // SAFETY: our exact dict, live keys and values of this interpreter.
        let put = |key: &Owned, value: Owned| unsafe {
            set_item(py, environ.as_ptr(), key.as_ptr(), value.as_ptr())
        };
        let text = |value: Text<'_>| latin1(py, value.bytes());
        for (key, value) in [
            (&keys.server_software, site.server_software),
            (&keys.server_name, site.server_name),
            (&keys.server_addr, site.server_addr),
            (&keys.server_port, site.server_port),
            (&keys.request_scheme, site.request_scheme),
            (&keys.mod_wsgi_process_group, site.process_group),
            (&keys.mod_wsgi_application_group, site.application_group),
            (&keys.mod_wsgi_callable_object, site.callable_object),
            (&keys.mod_wsgi_request_handler, site.request_handler),
            (&keys.mod_wsgi_listener_host, site.listener_host),
            (&keys.mod_wsgi_listener_port, site.listener_port),
            (&keys.script_name, head.script_name),
            (&keys.mod_wsgi_script_name, head.script_name),
            (&keys.remote_addr, head.remote_addr),
            (&keys.query_string, Text::EMPTY),
            (&keys.request_method, Text::new(b"GET")),
            (&keys.server_protocol, Text::new(b"HTTP/1.1")),
        ] {
            put(key, text(value)?)?;
        }
        for (key, value) in [
            (&keys.server_admin, site.server_admin),
            (&keys.context_prefix, site.context_prefix),
            (&keys.context_document_root, site.context_document_root),
        ] {
            if let Some(value) = value.bytes() {
                put(key, latin1(py, value)?)?;
            }
        }
        let handler_script = if target.handler_script {
            file_system_text(py, target.script.bytes())?
        } else {
            latin1(py, b"")?
        };
        put(&keys.mod_wsgi_handler_script, handler_script)?;
        for (key, value) in [
            (&keys.document_root, site.document_root),
            (&keys.script_filename, site.script_filename),
        ] {
            put(key, file_system_text(py, value.bytes())?)?;
        }
        put(&keys.wsgi_version, tuple(py, [int(py, 1)?, int(py, 0)?])?)?;
        put(&keys.wsgi_url_scheme, scheme(py, keys, head.https))?;
        put(&keys.wsgi_multithread, boolean(py, state.multithread))?;
        put(&keys.wsgi_multiprocess, boolean(py, state.multiprocess))?;
        put(&keys.wsgi_run_once, boolean(py, state.run_once))?;
        put(&keys.wsgi_input_terminated, boolean(py, true))?;
        let file_wrapper = &py.interpreter().prelude().file_wrapper;
        put(&keys.wsgi_file_wrapper, file_wrapper.clone_ref(py))?;
        put(
            &keys.mod_wsgi_version,
            version(py, crate::MOD_WSGI_VERSION)?,
        )?;
        let server = crate::python::runtime::runtime().map(|r| r.options.server_version);
        put(
            &keys.apache_version,
            version(py, server.unwrap_or_default())?,
        )?;
        let pid = head.server_pid.to_string();
        put(&keys.mod_wsgi_server_pid, latin1(py, pid.as_bytes())?)?;
        put(&keys.mod_wsgi_queue_start, float(py, 0.0)?)?;
        put(&keys.mod_wsgi_daemon_start, float(py, 0.0)?)?;
        // Placeholders: `fill` overwrites every one of them.
        for key in [
            &keys.path_info,
            &keys.mod_wsgi_path_info,
            &keys.request_uri,
            &keys.remote_port,
            &keys.wsgi_input,
            &keys.wsgi_errors,
            &keys.mod_wsgi_thread_id,
            &keys.mod_wsgi_request_id,
            &keys.mod_wsgi_request_start,
            &keys.mod_wsgi_application_start,
        ] {
            put(key, Owned::none(py))?;
        }
        let callable = latin1(py, site.callable_object.bytes())?;
        Ok(Template {
            environ,
            callable,
            site: site.values().map(|value| value.map(Into::into)),
            script_name: head.script_name.bytes().into(),
            remote_addr: head.remote_addr.bytes().into(),
            https: head.https,
            server_pid: head.server_pid,
        })
    }

    /// The environ of a request.
    pub fn environ(
        &self,
        py: Attached,
        state: &State,
        incoming: &Incoming<'_>,
        input: &Owned,
        errors: &Owned,
        native: Option<&Owned>,
    ) -> Result<Owned> {
        let Incoming {
            head,
            headers,
            started_us,
        } = incoming;
        let keys = &state.keys;
        // SAFETY: our own exact dict.
        let environ = unsafe { Owned::from_new(ffi::PyDict_Copy(self.environ.as_ptr()))? };
        // SAFETY: our exact dict, live keys and values of this interpreter.
        let put = |key: &Owned, value: &Owned| unsafe {
            set_item(py, environ.as_ptr(), key.as_ptr(), value.as_ptr())
        };
        let put_text = |key: &Owned, value: Text<'_>| put(key, &latin1(py, value.bytes())?);

        // First, so that nothing of these can take the place of what we set ourselves.
        for variable in head.variables.items() {
            let name = latin1(py, variable.name.bytes())?;
            if !self.contains(&name)? {
                put(&name, &latin1(py, variable.value.bytes())?)?;
            }
        }
        self.put_changes(py, keys, head, &put, &put_text)?;

        let path_info = latin1(py, head.path_info.bytes())?;
        put(&keys.path_info, &path_info)?;
        put(&keys.mod_wsgi_path_info, &path_info)?;
        if head.request_uri.bytes() == head.path_info.bytes() {
            put(&keys.request_uri, &path_info)?;
        } else {
            put_text(&keys.request_uri, head.request_uri)?;
        }
        let mut digits = [0; 5];
        put_text(&keys.remote_port, decimal(head.remote_port, &mut digits))?;
        put(&keys.wsgi_input, input)?;
        put(&keys.wsgi_errors, errors)?;
        put(&keys.mod_wsgi_thread_id, &int(py, thread::number().into())?)?;
        put(
            &keys.mod_wsgi_request_start,
            &float(py, head.request_time_us as f64 / 1e6)?,
        )?;
        for (key, time_us) in [
            (&keys.mod_wsgi_queue_start, head.accept_time_us),
            (&keys.mod_wsgi_daemon_start, head.daemon_time_us),
        ] {
            if time_us != 0 {
                put(key, &float(py, time_us as f64 / 1e6)?)?;
            }
        }
        match head.request_id.bytes() {
            Some(value) => put(&keys.mod_wsgi_request_id, &latin1(py, value)?)?,
            // SAFETY: our exact dict with this key, which no application has seen yet.
            None => unsafe {
                if ffi::PyDict_DelItem(environ.as_ptr(), keys.mod_wsgi_request_id.as_ptr()) < 0 {
                    return Err(Raised);
                }
            },
        }
        if let Some(value) = head.connection_id.bytes() {
            put(&keys.mod_wsgi_connection_id, &latin1(py, value)?)?;
        }
        for (index, value) in headers.known() {
            put_text(&keys.headers[*index as usize], *value)?;
        }
        for (name, value) in &headers.others {
            put(&latin1(py, name)?, &latin1(py, value.bytes())?)?;
        }
        if let Some(native) = native {
            put(&keys.apache_request_rec, native)?;
        }
        put(
            &keys.mod_wsgi_application_start,
            &float(py, *started_us as f64 / 1e6)?,
        )?;
        Ok(environ)
    }

    /// Replaces what differs from the template.
    #[inline]
    fn put_changes(
        &self,
        py: Attached,
        keys: &Keys,
        head: &RequestHead<'_>,
        put: &impl Fn(&Owned, &Owned) -> Result<()>,
        put_text: &impl Fn(&Owned, Text<'_>) -> Result<()>,
    ) -> Result<()> {
        let site = &head.site;
        let changing = [
            (&keys.server_name, site.server_name),
            (&keys.server_addr, site.server_addr),
            (&keys.server_port, site.server_port),
            (&keys.request_scheme, site.request_scheme),
            (&keys.mod_wsgi_listener_host, site.listener_host),
            (&keys.mod_wsgi_listener_port, site.listener_port),
        ];
        for (index, (key, value)) in CHANGING.into_iter().zip(changing) {
            if !same(Some(value.bytes()), &self.site[index]) {
                put_text(key, value)?;
            }
        }
        if !same(
            Some(site.script_filename.bytes()),
            &self.site[SCRIPT_FILENAME],
        ) {
            let file = file_system_text(py, site.script_filename.bytes())?;
            put(&keys.script_filename, &file)?;
        }
        if *head.script_name.bytes() != *self.script_name {
            let script_name = latin1(py, head.script_name.bytes())?;
            put(&keys.script_name, &script_name)?;
            put(&keys.mod_wsgi_script_name, &script_name)?;
        }
        if let Some(mount_point) = head.mount_point.bytes() {
            let mount_point = latin1(py, mount_point)?;
            put(&keys.script_name, &mount_point)?;
            put(&keys.mod_wsgi_mount_point, &mount_point)?;
        }
        if *head.remote_addr.bytes() != *self.remote_addr {
            put_text(&keys.remote_addr, head.remote_addr)?;
        }
        if head.https != self.https {
            put(&keys.wsgi_url_scheme, &scheme(py, keys, head.https))?;
        }
        if head.server_pid != self.server_pid {
            let pid = head.server_pid.to_string();
            put(&keys.mod_wsgi_server_pid, &latin1(py, pid.as_bytes())?)?;
        }
        if head.method.bytes() != b"GET" {
            put_text(&keys.request_method, head.method)?;
        }
        if head.protocol.bytes() != b"HTTP/1.1" {
            put_text(&keys.server_protocol, head.protocol)?;
        }
        if !head.query_string.bytes().is_empty() {
            put_text(&keys.query_string, head.query_string)?;
        }
        Ok(())
    }

    fn contains(&self, name: &Owned) -> Result<bool> {
        // SAFETY: our own dict and a live str.
        match unsafe { ffi::PyDict_Contains(self.environ.as_ptr(), name.as_ptr()) } {
            -1 => Err(Raised),
            found => Ok(found == 1),
        }
    }
}

fn scheme(py: Attached, keys: &Keys, https: bool) -> Owned {
    if https { &keys.https } else { &keys.http }.clone_ref(py)
}

fn version(py: Attached, numbers: [u32; 3]) -> Result<Owned> {
    let [major, minor, patch] = numbers.map(|number| object::int(py, number.into()));
    tuple(py, [major?, minor?, patch?])
}

fn decimal(mut number: u16, digits: &mut [u8; 5]) -> Text<'_> {
    let mut first = digits.len();
    loop {
        first -= 1;
        digits[first] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return Text::new(&digits[first..]);
        }
    }
}
