//! The metrics functions of the Python module `mod_wsgi`.

use core::ffi::CStr;

use pyo3::ffi;

use super::datagram::{Sample, ThreadSample};
use super::interval::PHASES;
use super::observation;
use super::recorder;
use super::scoreboard::{Scoreboard, Worker};
use crate::python::attach::Attached;
use crate::python::interpreter::Interpreter;
use crate::python::object::{self, Owned, boolean, float, int, latin1};
use crate::python::raise::{Raised, Result};
use crate::python::runtime::{self, Runtime};
use crate::python::slots::{self, Methods};
use crate::wsgi::server::clock_us;

/// What the functions get as `self`: the interpreter.
const CAPSULE: &CStr = c"rwsgi.interpreter";

static FUNCTIONS: Methods<5> = Methods([
    slots::no_args(c"start_recording_metrics", start_recording_metrics),
    slots::no_args(c"request_metrics", request_metrics),
    slots::no_args(c"process_metrics", process_metrics),
    slots::no_args(c"server_metrics", server_metrics),
    slots::end(),
]);

/// The functions by their names, for the module that they become part of.
pub fn functions(py: Attached) -> Result<Owned> {
    let dict = Dict::new(py)?;
    let interpreter = core::ptr::from_ref(py.interpreter()).cast_mut().cast();
    // SAFETY: a pointer that is valid for ever and no destructor; a C string.
    let capsule =
        unsafe { Owned::from_new(ffi::PyCapsule_New(interpreter, CAPSULE.as_ptr(), None))? };
    for method in &FUNCTIONS.0[..FUNCTIONS.0.len() - 1] {
        // SAFETY: a static method table; its names are C strings.
        unsafe {
            let method = core::ptr::from_ref(method).cast_mut();
            let function = Owned::from_new(ffi::PyCFunction_New(method, capsule.as_ptr()))?;
            dict.put(CStr::from_ptr((*method).ml_name), function)?;
        }
    }
    Ok(dict.dict)
}

/// A dict under construction.
struct Dict {
    py: Attached,
    dict: Owned,
}

impl Dict {
    fn new(py: Attached) -> Result<Dict> {
        // SAFETY: no arguments.
        let dict = unsafe { Owned::from_new(ffi::PyDict_New())? };
        Ok(Dict { py, dict })
    }

    fn put(&self, key: &CStr, value: Owned) -> Result<()> {
        // SAFETY: our dict, a C string, a live object.
        match unsafe { ffi::PyDict_SetItemString(self.dict.as_ptr(), key.as_ptr(), value.as_ptr()) }
        {
            0 => Ok(()),
            _ => Err(Raised),
        }
    }

    /// With a key that is put together.
    fn put_named(&self, key: &str, value: Owned) -> Result<()> {
        let key = object::interned(self.py, key)?;
        // SAFETY: our exact dict, live objects.
        unsafe { object::set_item(self.py, self.dict.as_ptr(), key.as_ptr(), value.as_ptr()) }
    }

    fn integer(&self, key: &CStr, value: impl TryInto<i64>) -> Result<()> {
        self.put(key, int(self.py, value.try_into().unwrap_or(i64::MAX))?)
    }

    fn float(&self, key: &CStr, value: f64) -> Result<()> {
        self.put(key, float(self.py, value)?)
    }

    /// Microseconds, told as seconds.
    fn seconds(&self, key: &CStr, microseconds: i64) -> Result<()> {
        self.float(key, microseconds as f64 / 1e6)
    }

    fn text(&self, key: &CStr, value: &[u8]) -> Result<()> {
        self.put(key, latin1(self.py, value)?)
    }
}

/// A list of what `make` makes of each item.
fn list<T>(
    items: impl ExactSizeIterator<Item = T>,
    make: impl Fn(T) -> Result<Owned>,
) -> Result<Owned> {
    // First all of them: nothing of Python may run while the list has empty places.
    let items = items.map(make).collect::<Result<Vec<Owned>>>()?;
    // SAFETY: a new list whose places are filled once, with references that are given away.
    unsafe {
        let list = Owned::from_new(ffi::PyList_New(items.len() as ffi::Py_ssize_t))?;
        for (index, item) in items.into_iter().enumerate() {
            let item = item.into_ptr();
            ffi::PyList_SET_ITEM(list.as_ptr(), index as ffi::Py_ssize_t, item);
        }
        Ok(list)
    }
}

fn seconds(py: Attached, microseconds: u64) -> Result<Owned> {
    float(py, microseconds as f64 / 1e6)
}

/// Runs a function of the module: `None` where there is nothing to tell.
///
/// # Safety
/// Called by CPython with the capsule that [`functions`] has made.
unsafe fn function(
    capsule: *mut ffi::PyObject,
    body: impl FnOnce(Attached) -> Result<Option<Owned>>,
) -> *mut ffi::PyObject {
    slots::object_slot(|| {
        // SAFETY: by contract; CPython calls functions attached to the interpreter that they belong
        // to, which lives for ever.
        let py = unsafe {
            let pointer = ffi::PyCapsule_GetPointer(capsule, CAPSULE.as_ptr());
            let interpreter = pointer.cast::<Interpreter>().as_ref().ok_or(Raised)?;
            Attached::assume(interpreter)
        };
        Ok(body(py)?.unwrap_or_else(|| Owned::none(py)))
    })
}

/// Whether there are figures for the application: not where they go to a telemetry service, and not
/// in a process that it has forked.
fn has_figures() -> bool {
    let reported = |runtime: &Runtime| runtime.options.metrics.service.is_some();
    !runtime::runtime().is_some_and(reported) && recorder::is_this_process()
}

unsafe extern "C" fn start_recording_metrics(
    capsule: *mut ffi::PyObject,
    _: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: METH_NOARGS.
    unsafe {
        function(capsule, |_| {
            if recorder::is_this_process() {
                recorder::start();
            }
            Ok(None)
        })
    }
}

unsafe extern "C" fn request_metrics(
    capsule: *mut ffi::PyObject,
    _: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: METH_NOARGS.
    unsafe {
        function(capsule, |py| {
            if !has_figures() {
                return Ok(None);
            }
            let sample = py.detached(|_| recorder::sample());
            sample.map(|sample| requests(py, &sample)).transpose()
        })
    }
}

fn requests(py: Attached, sample: &Sample) -> Result<Owned> {
    let dict = Dict::new(py)?;
    let interval = &sample.interval;
    dict.integer(c"pid", std::process::id())?;
    dict.seconds(c"start_time", sample.start_us)?;
    dict.seconds(c"stop_time", sample.stop_us)?;
    dict.float(c"sample_period", sample.period_s)?;
    dict.integer(c"request_count", interval.requests)?;
    dict.float(c"request_throughput", sample.throughput())?;
    dict.integer(c"request_threads_maximum", sample.threads_maximum)?;
    dict.integer(c"request_threads_started", sample.threads_started)?;
    dict.integer(c"request_threads_active", sample.threads_active())?;
    dict.float(c"capacity_utilization", sample.capacity_utilization())?;
    let each = |of: fn(&ThreadSample) -> u64| {
        list(sample.threads.iter(), |thread| seconds(py, of(thread)))
    };
    for key in [c"request_threads_completed", c"request_threads_buckets"] {
        let counts = list(sample.threads.iter(), |thread| {
            int(py, thread.completed.into())
        })?;
        dict.put(key, counts)?;
    }
    dict.put(c"request_threads_busy_time", each(|thread| thread.busy_us)?)?;
    dict.put(c"request_threads_cpu_time", each(|thread| thread.cpu_us)?)?;
    dict.put(
        c"request_threads_current_elapsed",
        each(|thread| thread.current_us)?,
    )?;
    dict.put(
        c"request_threads_max_duration",
        each(|thread| thread.longest_us)?,
    )?;
    for (index, name) in PHASES.into_iter().enumerate() {
        let phase = &interval.phases[index];
        let known = sample.has_phase(index);
        let or_none = |value: Option<Owned>| value.unwrap_or_else(|| Owned::none(py));
        let mean = known.then(|| float(py, phase.mean_s(interval.requests)));
        dict.put_named(&format!("{name}_time"), or_none(mean.transpose()?))?;
        let range = phase.range_us.filter(|_| known);
        for (end, value) in [
            ("min", range.map(|range| range.0)),
            ("max", range.map(|range| range.1)),
        ] {
            let value = value.map(|value| int(py, value as i64)).transpose()?;
            dict.put_named(&format!("{name}_time_{end}_us"), or_none(value))?;
        }
        let buckets = if known { phase.buckets } else { [0; _] };
        let buckets = list(buckets.into_iter(), |count| int(py, count.into()))?;
        dict.put_named(&format!("{name}_time_buckets"), buckets)?;
    }
    dict.integer(c"gil_wait_count", interval.gil_waits)?;
    dict.integer(c"input_bytes", interval.input_bytes)?;
    dict.integer(c"input_reads", interval.input_reads)?;
    dict.integer(c"output_bytes", interval.output_bytes)?;
    dict.integer(c"output_writes", interval.output_writes)?;
    let classes = [
        c"status_1xx",
        c"status_2xx",
        c"status_3xx",
        c"status_4xx",
        c"status_5xx",
    ];
    for (class, count) in classes.into_iter().zip(interval.statuses) {
        dict.integer(class, count)?;
    }
    // The second of each pair is the older name, which says "time" for a utilisation.
    for (keys, microseconds) in [
        (
            [c"cpu_user_utilization", c"cpu_user_time"],
            sample.cpu.user_us,
        ),
        (
            [c"cpu_system_utilization", c"cpu_system_time"],
            sample.cpu.system_us,
        ),
        ([c"cpu_utilization", c"cpu_time"], sample.cpu.total_us()),
    ] {
        for key in keys {
            dict.float(key, sample.utilization(microseconds))?;
        }
    }
    dict.integer(c"memory_rss", sample.memory_rss)?;
    dict.integer(c"memory_max_rss", sample.memory_max_rss)?;
    Ok(dict.dict)
}

unsafe extern "C" fn process_metrics(
    capsule: *mut ffi::PyObject,
    _: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: METH_NOARGS.
    unsafe {
        function(capsule, |py| {
            if !has_figures() || !recorder::is_recording() {
                return Ok(None);
            }
            process(py).map(Some)
        })
    }
}

fn process(py: Attached) -> Result<Owned> {
    let now = clock_us();
    let threads: Vec<_> = observation::all()
        .into_iter()
        .filter_map(|observation| observation.lifetime(now))
        .collect();
    let start = recorder::process_start_us();
    let cpu = super::figures::Cpu::of_process();
    let (active, requests) = recorder::counts();
    let busy: u64 = threads.iter().map(|thread| thread.busy_us).sum();
    let dict = Dict::new(py)?;
    dict.integer(c"pid", std::process::id())?;
    dict.put(c"request_busy_time", seconds(py, busy)?)?;
    dict.integer(c"request_count", requests)?;
    let memory = recorder::memory_rss();
    dict.integer(c"memory_max_rss", recorder::memory_max_rss(memory))?;
    dict.integer(c"memory_rss", memory)?;
    dict.put(c"cpu_user_time", seconds(py, cpu.user_us)?)?;
    dict.put(c"cpu_system_time", seconds(py, cpu.system_us)?)?;
    dict.put(c"cpu_time", seconds(py, cpu.total_us())?)?;
    dict.seconds(c"restart_time", start)?;
    dict.seconds(c"current_time", now)?;
    dict.integer(c"running_time", (now - start).max(0) / 1_000_000)?;
    dict.integer(c"request_threads", threads.len() as i64)?;
    dict.integer(c"active_requests", active)?;
    let threads = list(threads.into_iter(), |thread| {
        let entry = Dict::new(py)?;
        entry.integer(c"thread_id", thread.thread_id)?;
        entry.integer(c"request_count", thread.requests)?;
        Ok(entry.dict)
    })?;
    dict.put(c"threads", threads)?;
    Ok(dict.dict)
}

unsafe extern "C" fn server_metrics(
    capsule: *mut ffi::PyObject,
    _: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: METH_NOARGS.
    unsafe {
        function(capsule, |py| {
            let bytes = py.detached(|_| runtime::runtime()?.scoreboard());
            let scoreboard = bytes.and_then(|bytes| Scoreboard::decode(&bytes));
            scoreboard
                .map(|scoreboard| server(py, &scoreboard))
                .transpose()
        })
    }
}

fn server(py: Attached, scoreboard: &Scoreboard) -> Result<Owned> {
    let now = clock_us();
    let dict = Dict::new(py)?;
    dict.integer(c"server_limit", scoreboard.server_limit)?;
    dict.integer(c"thread_limit", scoreboard.thread_limit)?;
    dict.integer(c"running_generation", scoreboard.running_generation)?;
    dict.seconds(c"restart_time", scoreboard.restart_us)?;
    dict.seconds(c"current_time", now)?;
    let running = now.saturating_sub(scoreboard.restart_us).max(0);
    dict.integer(c"running_time", running / 1_000_000)?;
    let processes = list(
        scoreboard.processes.iter().enumerate(),
        |(number, process)| {
            let entry = Dict::new(py)?;
            entry.integer(c"process_num", number as i64)?;
            entry.integer(c"pid", process.pid)?;
            entry.integer(c"generation", process.generation)?;
            entry.put(c"quiescing", boolean(py, process.quiescing))?;
            let workers = list(process.workers.iter(), |of| worker(py, of))?;
            entry.put(c"workers", workers)?;
            Ok(entry.dict)
        },
    )?;
    dict.put(c"processes", processes)?;
    Ok(dict.dict)
}

fn worker(py: Attached, worker: &Worker) -> Result<Owned> {
    let entry = Dict::new(py)?;
    entry.integer(c"thread_num", worker.number)?;
    entry.integer(c"generation", worker.generation)?;
    entry.text(c"status", &[worker.status])?;
    entry.integer(c"access_count", worker.access_count)?;
    entry.integer(c"bytes_served", worker.bytes_served)?;
    entry.seconds(c"start_time", worker.start_us)?;
    entry.seconds(c"stop_time", worker.stop_us)?;
    entry.seconds(c"last_used", worker.last_used_us)?;
    entry.text(c"client", &worker.client)?;
    entry.text(c"request", &worker.request)?;
    entry.text(c"vhost", &worker.vhost)?;
    Ok(entry.dict)
}
