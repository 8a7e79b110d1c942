//! The bridge to `prelude.py`: what is cold and better said in Python.

use core::ffi::CStr;

use pyo3::ffi;

use super::attach::Attached;
use super::exceptions;
use super::object::{self, Owned, tuple};
use super::order;
use super::raise::{Raised, Result};
use super::runtime::Runtime;
use super::slots::{self, Methods, object_slot};
use crate::exchange::Level;
use crate::exchange::interpreters::Settings;
use crate::metrics::datagram::GcCounters;

const SOURCE: &str = concat!(include_str!("prelude.py"), "\0");

/// The namespaces of the prelude in one interpreter, and what of them is used more than once.
pub struct Prelude {
    namespace: Owned,
    /// That of `api.py`.
    api: Owned,
    /// `FileWrapper`, the class behind `wsgi.file_wrapper`.
    pub file_wrapper: Owned,
    /// `RequestTimeout`, the exception that interrupts a request.
    pub request_timeout: Owned,
    /// `event_callbacks`, a list.
    pub event_callbacks: Owned,
}

/// Executes a source in a new namespace.
pub fn execute(_py: Attached, source: &'static str) -> Result<Owned> {
    let source = CStr::from_bytes_with_nul(source.as_bytes()).map_err(|_| Raised)?;
    // SAFETY: C strings; a new dict as globals, with the builtins that code needs.
    unsafe {
        let code = Owned::from_new(ffi::Py_CompileString(
            source.as_ptr(),
            c"<rwsgi>".as_ptr(),
            ffi::Py_file_input,
        ))?;
        let namespace = Owned::from_new(ffi::PyDict_New())?;
        let name = Owned::from_new(ffi::PyUnicode_FromString(c"rwsgi.runtime".as_ptr()))?;
        for (key, value) in [
            (c"__builtins__", ffi::PyEval_GetBuiltins()),
            (c"__name__", name.as_ptr()),
        ] {
            if ffi::PyDict_SetItemString(namespace.as_ptr(), key.as_ptr(), value) < 0 {
                return Err(Raised);
            }
        }
        drop(Owned::from_new(ffi::PyEval_EvalCode(
            code.as_ptr(),
            namespace.as_ptr(),
            namespace.as_ptr(),
        ))?);
        Ok(namespace)
    }
}

/// What a namespace has under a name.
pub fn item(py: Attached, namespace: &Owned, name: &CStr) -> Result<Owned> {
    // SAFETY: our own dict and a C string.
    let found = unsafe { object::dict_item_by_name(py, namespace.as_ptr(), name)? };
    debug_assert!(found.is_some(), "the prelude has no {name:?}");
    found.ok_or(Raised)
}

/// Calls a function of a namespace.
pub fn call<const N: usize>(
    py: Attached,
    namespace: &Owned,
    name: &CStr,
    arguments: [Owned; N],
) -> Result<Owned> {
    let function = item(py, namespace, name)?;
    let arguments = tuple(py, arguments)?;
    // SAFETY: live objects.
    order::outside(py, || unsafe {
        Owned::from_new(ffi::PyObject_Call(
            function.as_ptr(),
            arguments.as_ptr(),
            core::ptr::null_mut(),
        ))
    })
}

impl Prelude {
    /// Compiles and executes the sources.
    pub fn load(py: Attached) -> Result<Prelude> {
        let namespace = execute(py, SOURCE)?;
        let api = execute(py, super::api::SOURCE)?;
        Ok(Prelude {
            file_wrapper: item(py, &namespace, c"FileWrapper")?,
            request_timeout: item(py, &namespace, c"RequestTimeout")?,
            event_callbacks: item(py, &api, c"event_callbacks")?,
            namespace,
            api,
        })
    }

    /// Calls a function of the prelude.
    fn call<const N: usize>(
        &self,
        py: Attached,
        name: &CStr,
        arguments: [Owned; N],
    ) -> Result<Owned> {
        call(py, &self.namespace, name, arguments)
    }

    /// Tells the subscribers of an event; `event` is a dict, to which they may add.
    ///
    /// # Errors
    /// Raises `RequestTimeout` if that came meanwhile.
    pub fn publish(&self, py: Attached, name: &str, event: Owned) -> Result<()> {
        let name = object::interned(py, name)?;
        call(py, &self.api, c"publish", [name, event]).map(drop)
    }

    /// A function of the prelude.
    ///
    /// # Errors
    /// No memory.
    pub fn function(&self, py: Attached, name: &CStr) -> Result<Owned> {
        item(py, &self.namespace, name)
    }

    /// Whether calling an application gives a coroutine, as far as can be told.
    ///
    /// # Errors
    /// What looking at it raises.
    pub fn is_coroutine_callable(&self, py: Attached, application: &Owned) -> Result<bool> {
        let answer = self.call(py, c"is_coroutine_callable", [application.clone_ref(py)])?;
        // SAFETY: attached.
        Ok(answer.as_ptr() == unsafe { ffi::Py_True() })
    }

    /// Makes the interpreter one that serves applications: streams, `sys.path`, modules.
    pub fn install(&self, py: Attached, runtime: &Runtime) -> Result<()> {
        let options = &runtime.options;
        // SAFETY: a new dict.
        let services = unsafe { Owned::from_new(ffi::PyDict_New())? };
        let put = |name: &CStr, value: Owned| -> Result<()> {
            // SAFETY: our dict, a C string, a live object.
            if unsafe {
                ffi::PyDict_SetItemString(services.as_ptr(), name.as_ptr(), value.as_ptr())
            } < 0
            {
                return Err(Raised);
            }
            Ok(())
        };
        // SAFETY: a static method table.
        let log = unsafe {
            Owned::from_new(ffi::PyCFunction_New(
                LOG.0.as_ptr().cast_mut(),
                core::ptr::null_mut(),
            ))?
        };
        put(c"log", log)?;
        put(c"stdout", super::log::for_process(py, "<stdout>")?)?;
        put(c"stderr", super::log::for_process(py, "<stderr>")?)?;
        put(c"processes", object::int(py, options.processes.into())?)?;
        put(c"threads", object::int(py, options.threads.into())?)?;
        put(c"version", version(py, crate::VERSION)?)?;
        put(c"mod_wsgi_version", version(py, crate::MOD_WSGI_VERSION)?)?;
        put(c"server_version", version(py, options.server_version)?)?;
        put(
            c"server_description",
            object::latin1(py, &options.server_description)?,
        )?;
        put(c"server_built", object::latin1(py, &options.server_built)?)?;
        put(c"mpm_name", object::latin1(py, &options.mpm_name)?)?;
        let process_group = options.process_group.as_deref().unwrap_or_default();
        put(c"process_group", object::latin1(py, process_group)?)?;
        let directory = match &options.working_directory {
            Some(directory) => object::file_system_text(py, directory)?,
            None => Owned::none(py),
        };
        put(c"working_directory", directory)?;
        put(c"metrics", crate::metrics::module::functions(py)?)?;
        let eggs = match &options.python_eggs {
            Some(directory) => object::file_system_text(py, directory)?,
            None => Owned::none(py),
        };
        put(c"python_eggs", eggs)?;
        put(
            c"daemon",
            object::boolean(py, options.process_group.is_some()),
        )?;
        put(
            c"is_main",
            object::boolean(py, py.interpreter().slot() == 0),
        )?;
        put(c"FileWrapper", self.file_wrapper.clone_ref(py))?;
        put(c"RequestTimeout", self.request_timeout.clone_ref(py))?;
        // SAFETY: our dict.
        unsafe { super::api::offer(py, &services)? };
        drop(self.call(py, c"install", [services.clone_ref(py)])?);
        call(py, &self.api, c"install", [services]).map(drop)
    }

    /// Applies what is configured for this interpreter; may be called again with other settings.
    pub fn configure(&self, py: Attached, settings: &Settings) -> Result<()> {
        let mut layers = Vec::new();
        for layer in &settings.python_path {
            let directories = layer
                .iter()
                .map(|directory| object::file_system_text(py, directory))
                .collect::<Result<Vec<_>>>()?;
            layers.push(list(py, directories)?);
        }
        let interval = match settings.switch_interval {
            Some(seconds) => object::float(py, seconds)?,
            None => Owned::none(py),
        };
        let arguments = [
            object::boolean(py, settings.restrict_stdin),
            object::boolean(py, settings.restrict_stdout),
            object::boolean(py, settings.restrict_signal),
            list(py, layers)?,
            interval,
        ];
        drop(self.call(py, c"configure", arguments)?);
        call(py, &self.api, c"complete_apache", []).map(drop)
    }

    /// Tells the modules which application group the interpreter serves.
    pub fn set_application_group(&self, py: Attached, group: &[u8]) -> Result<()> {
        let group = object::latin1(py, group)?;
        call(py, &self.api, c"set_application_group", [group]).map(drop)
    }

    /// Loads a script file and returns its module, whose `__mtime__` is the int `mtime`.
    pub fn load_script(&self, py: Attached, path: &[u8], mtime: &Owned) -> Result<Owned> {
        let path = object::file_system_text(py, path)?;
        self.call(py, c"load_script", [path, mtime.clone_ref(py)])
    }

    /// `(descriptor, offset, length)` of a file wrapper whose file the server can send itself.
    pub fn file_range(&self, py: Attached, wrapper: Owned) -> Result<Option<(i32, u64, u64)>> {
        let range = self.call(py, c"file_range", [wrapper])?;
        // SAFETY: the prelude returns None or a tuple of three ints.
        unsafe {
            if range.as_ptr() == ffi::Py_None() {
                return Ok(None);
            }
            let number = |index| -> Result<i64> {
                let value = ffi::PyLong_AsLongLong(ffi::PyTuple_GET_ITEM(range.as_ptr(), index));
                if value < 0 && super::raise::is_raised(py) {
                    return Err(Raised);
                }
                Ok(value)
            };
            Ok(Some((
                number(0)? as i32,
                number(1)? as u64,
                number(2)? as u64,
            )))
        }
    }

    /// The binary stream of a text stream.
    ///
    /// # Safety
    /// `text` is live.
    pub unsafe fn binary_log(&self, py: Attached, text: *mut ffi::PyObject) -> Result<Owned> {
        // SAFETY: live by contract; the class is in the namespace.
        let text = unsafe { Owned::from_borrowed(py, text) };
        self.call(py, c"Log", [text])
    }

    /// The lines of an exception's traceback.
    pub fn format_exception(&self, py: Attached, exception: &Owned) -> Result<Vec<Vec<u8>>> {
        let lines = self.call(py, c"format_exception", [exception.clone_ref(py)])?;
        Ok(list_of_lines(&lines))
    }

    /// The stack of a thread, as Python names it, in this interpreter; empty if it is not there.
    pub fn thread_stack(&self, py: Attached, thread: u64) -> Result<Vec<Vec<u8>>> {
        // Python's numbers are unsigned long; addresses fit into an i64.
        let thread = object::int(py, thread as i64)?;
        Ok(list_of_lines(&self.call(py, c"thread_stack", [thread])?))
    }

    /// For the main interpreter of a worker process; `dump_signal` 0 is none.
    pub fn be_worker(&self, py: Attached, dump_signal: i32) -> Result<()> {
        let signal = object::int(py, dump_signal.into())?;
        self.call(py, c"be_worker", [signal]).map(drop)
    }

    /// `sys.getswitchinterval()`, seconds.
    pub fn switch_interval(&self, py: Attached) -> Result<f64> {
        let seconds = self.call(py, c"switch_interval", [])?;
        // SAFETY: a live object; what is no float gives -1.
        match unsafe { ffi::PyFloat_AsDouble(seconds.as_ptr()) } {
            -1.0 => Err(Raised),
            seconds => Ok(seconds),
        }
    }

    /// What the garbage collector of this interpreter says of itself.
    pub fn gc_counters(&self, py: Attached) -> Result<GcCounters> {
        let numbers = self.call(py, c"gc_counters", [])?;
        let number = |index| -> u64 {
            // SAFETY: the prelude returns a tuple of 17 ints that are not negative.
            let number =
                unsafe { ffi::PyLong_AsLongLong(ffi::PyTuple_GET_ITEM(numbers.as_ptr(), index)) };
            u64::try_from(number).unwrap_or(0)
        };
        let three = |first| [number(first), number(first + 1), number(first + 2)];
        Ok(GcCounters {
            count: three(0),
            threshold: three(3),
            collections: three(6),
            collected: three(9),
            uncollectable: three(12),
            enabled: number(15),
            frozen: number(16),
        })
    }

    /// Python writes a byte to `fd` whenever a signal comes that it has a handler for.
    pub fn write_signals_to(&self, py: Attached, fd: i32) -> Result<()> {
        let fd = object::int(py, fd.into())?;
        self.call(py, c"write_signals_to", [fd]).map(drop)
    }

    /// Calls a function of the prelude that takes nothing and gives nothing: one of
    /// `terminate_by_exception`, `before_first_fork` and `after_fork`.
    pub fn tell(&self, py: Attached, name: &CStr) -> Result<()> {
        self.call(py, name, []).map(drop)
    }

    /// Joins threads and runs exit handlers; failures are logged.
    pub fn shut_down(&self, py: Attached) {
        let failures = match self.call(py, c"shut_down", []) {
            Ok(failures) => failures,
            Err(raised) => {
                let exception = raised.take(py);
                exceptions::log_exit_failure(py, &exception);
                return;
            }
        };
        // SAFETY: the prelude returns a list of exceptions.
        unsafe {
            for index in 0..ffi::PyList_GET_SIZE(failures.as_ptr()) {
                let failure =
                    Owned::from_borrowed(py, ffi::PyList_GET_ITEM(failures.as_ptr(), index));
                exceptions::log_exit_failure(py, &failure);
            }
        }
    }
}

/// A list of these objects.
fn list(py: Attached, items: Vec<Owned>) -> Result<Owned> {
    let _ = py;
    // SAFETY: attached; a new list, to which live objects are appended.
    unsafe {
        let list = Owned::from_new(ffi::PyList_New(0))?;
        for item in &items {
            if ffi::PyList_Append(list.as_ptr(), item.as_ptr()) < 0 {
                return Err(Raised);
            }
        }
        Ok(list)
    }
}

/// The content of a list of bytes that the prelude has made.
fn list_of_lines(lines: &Owned) -> Vec<Vec<u8>> {
    // SAFETY: a live list of bytes.
    unsafe {
        (0..ffi::PyList_GET_SIZE(lines.as_ptr()))
            .map(|index| object::bytes_of(ffi::PyList_GET_ITEM(lines.as_ptr(), index)).to_vec())
            .collect()
    }
}

fn version(py: Attached, numbers: [u32; 3]) -> Result<Owned> {
    let [major, minor, patch] = numbers.map(|number| object::int(py, number.into()));
    tuple(py, [major?, minor?, patch?])
}

static LOG: Methods<1> = Methods([slots::fast_args(c"log", log)]);

/// `log(level, text)`: lines in the server's own log.
unsafe extern "C" fn log(
    _: *mut ffi::PyObject,
    arguments: *mut *mut ffi::PyObject,
    count: ffi::Py_ssize_t,
) -> *mut ffi::PyObject {
    object_slot(|| {
        // SAFETY: called by the prelude with an int and a str, attached to its interpreter.
        unsafe {
            debug_assert_eq!(count, 2);
            let level = ffi::PyLong_AsLong(*arguments);
            let mut length = 0;
            let data = ffi::PyUnicode_AsUTF8AndSize(*arguments.add(1), &mut length);
            if data.is_null() {
                return Err(Raised);
            }
            let text = core::slice::from_raw_parts(data.cast::<u8>(), length as usize);
            let level = match level {
                0..=3 => Level::Error,
                4 => Level::Warning,
                5 | 6 => Level::Info,
                _ => Level::Debug,
            };
            for line in text.split(|&c| c == b'\n').filter(|line| !line.is_empty()) {
                super::runtime::log_bytes(level, line);
            }
            ffi::Py_INCREF(ffi::Py_None());
            Owned::from_new(ffi::Py_None())
        }
    })
}
