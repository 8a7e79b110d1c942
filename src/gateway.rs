//! The gateway's entry point: what `mod_rwsgi.so` finds in this shared object.

use core::ffi::c_void;
use core::ptr::NonNull;
use std::time::{Duration, Instant};

use crate::asgi::house::Embedded;
use crate::asgi::loops;
use crate::consult;
use crate::daemon::control::Script;
use crate::daemon::worker::imports;
use crate::exchange::abi::{
    self, Consultation, ExchangeTable, GatewayTable, HostTable, Import, Request, RuntimeOptions,
    Text, read,
};
use crate::exchange::memory::Borrowed;
use crate::exchange::response::ResponseHead;
use crate::exchange::{BodyError, ClientGone, Exchange, Level, MayBlock, Send, Source, Wait};
use crate::metrics::reporter;
use crate::python::attach;
use crate::python::events;
use crate::python::runtime;
use crate::python::services::Services;
use crate::python::slots::boundary;
use crate::python::stop;
use crate::wsgi::server;

static TABLE: GatewayTable = GatewayTable {
    version: abi::VERSION,
    size: size_of::<GatewayTable>() as u32,
    python: python_version(),
    start,
    handle,
    consult,
    connect,
    drain,
    stop,
};

/// Major and minor version as `PY_VERSION_HEX` has them.
const fn python_version() -> u32 {
    let minor = env!("RWSGI_PYTHON_MINOR").as_bytes();
    let mut number = 0;
    let mut index = 0;
    while index < minor.len() {
        number = number * 10 + (minor[index] - b'0') as u32;
        index += 1;
    }
    3 << 24 | number << 16
}

/// See [`abi::EntryPoint`].
#[unsafe(no_mangle)]
pub extern "C" fn rwsgi_gateway() -> *const GatewayTable {
    &TABLE
}

unsafe extern "C" fn start(host: *const HostTable, options: *const RuntimeOptions<'_>) -> i32 {
    boundary(
        || -1,
        || {
            // SAFETY: both are valid for the call; the host's table lives as long as the process.
            let (host, options) = unsafe { (*host, &*options) };
            if host.version != abi::VERSION || host.size as usize != size_of::<HostTable>() {
                return -1;
            }
            let log = move |level: Level, line: &[u8]| {
                // SAFETY: the host's function takes borrowed bytes from any thread.
                unsafe { (host.log)(level as u8, Text::new(line)) }
            };
            // SAFETY: the host's function may be called from any thread.
            let is_ending = move || unsafe { (host.is_ending)() != 0 };
            let log_from = move |level: Level, source: Source<'_>, line: &[u8]| {
                // SAFETY: as above; the source is borrowed for the call.
                unsafe { (host.log_from)(level as u8, &source, Text::new(line)) }
            };
            // SAFETY: the host's function may be called from any thread.
            let logs = move |level: Level| unsafe { (host.logs)(level as u8) != 0 };
            let services = Services {
                log: Box::new(log),
                log_from: Box::new(log_from),
                logs: Box::new(logs),
                is_ending: Box::new(is_ending),
                replacement: None,
                scoreboard: Box::new(move || scoreboard(&host)),
            };
            if runtime::start(options.into(), services).is_err() {
                return -1;
            }
            load(options.imports.items(), log);
            if let Some(runtime) = runtime::runtime() {
                runtime.begin_metrics();
            }
            0
        },
    )
}

/// httpd's scoreboard, encoded; `None` if it is not to be had.
fn scoreboard(host: &HostTable) -> Option<Vec<u8>> {
    unsafe extern "C" fn take(place: *mut c_void, bytes: Text<'_>) {
        // SAFETY: the place of `scoreboard`, below, for the duration of the host's call.
        let place = unsafe { &mut *place.cast::<Option<Vec<u8>>>() };
        *place = Some(bytes.bytes().to_vec());
    }
    let mut place: Option<Vec<u8>> = None;
    // SAFETY: the host's function may be called from any thread, and passes our context on.
    unsafe { (host.scoreboard)((&raw mut place).cast(), take) };
    place
}

/// Loads scripts before there are requests.
fn load(scripts: &[Import<'_>], log: impl Fn(Level, &[u8])) {
    let Some(runtime) = runtime::runtime() else {
        return;
    };
    for script in scripts {
        let script = Script {
            application_group: script.application_group.bytes().to_vec(),
            path: script.path.bytes().to_vec(),
        };
        if let Err(failure) = imports::load(runtime, &script, imports::CODE, imports::WHAT) {
            for line in failure.lines() {
                log(Level::Error, line);
            }
        }
    }
}

unsafe extern "C" fn handle(request: *const Request<'_>) -> i32 {
    boundary(
        || 500,
        || {
            // SAFETY: valid for the call, by the contract of `GatewayTable::handle`.
            let request = unsafe { &*request };
            let Some(runtime) = runtime::runtime() else {
                return 500;
            };
            let exchange = HostExchange {
                context: request.context,
                table: request.table,
                native: request.native,
            };
            server::serve(runtime, &exchange, request.head, &request.target)
        },
    )
}

unsafe extern "C" fn consult(consultation: *const Consultation<'_>) -> i32 {
    boundary(
        || -1,
        || {
            // SAFETY: valid for the call, by the contract of `GatewayTable::consult`.
            let consultation = unsafe { &*consultation };
            match runtime::runtime() {
                Some(runtime) if consult::consult(runtime, consultation).is_ok() => 0,
                _ => -1,
            }
        },
    )
}

unsafe extern "C" fn connect(application_group: Text<'_>) -> i32 {
    boundary(
        || -1,
        || match runtime::runtime() {
            Some(runtime) => loops::connect_raw(runtime, application_group.bytes(), &Embedded),
            None => -1,
        },
    )
}

unsafe extern "C" fn drain() {
    boundary(|| (), loops::drain);
}

unsafe extern "C" fn stop(deadline_ms: u32) {
    boundary(
        || (),
        || {
            // With prefork this may be a signal handler within a request.
            if !attach::thread_is_inside() {
                reporter::stopping("", None);
                reporter::stopped();
            }
            let mut deadline = Duration::from_millis(deadline_ms.into());
            if !attach::thread_is_inside() {
                let began = Instant::now();
                loops::hurry();
                loops::wait_for_end(deadline.mul_f64(0.9));
                // Exit handlers get what is left.
                deadline = deadline.saturating_sub(began.elapsed());
            }
            stop::stop(deadline, || {
                if let Some(runtime) = runtime::runtime() {
                    events::process_stopping(runtime, "");
                }
            });
        },
    );
}

/// An exchange behind the C ABI.
struct HostExchange<'a> {
    context: *mut c_void,
    table: &'a ExchangeTable,
    native: *mut c_void,
}

impl Exchange for HostExchange<'_> {
    fn read(&self, buffer: &mut [u8], wait: Wait<'_>) -> Result<usize, BodyError> {
        let wait = u8::from(matches!(wait, Wait::Yes(_)));
        // SAFETY: the context belongs to the table; the buffer is valid for its length.
        let result =
            unsafe { (self.table.read)(self.context, buffer.as_mut_ptr(), buffer.len(), wait) };
        match result {
            read::WOULD_BLOCK => Err(BodyError::WouldBlock),
            length if length >= 0 => Ok(length as usize),
            failed => Err(BodyError::Failed {
                status: u16::try_from(read::FAILED - failed).unwrap_or(400),
            }),
        }
    }

    fn start(&self, head: &ResponseHead<'_>) {
        // SAFETY: the context belongs to the table; the host copies the head.
        unsafe { (self.table.start)(self.context, head) }
    }

    fn append(&self, data: &[u8]) {
        // SAFETY: the context belongs to the table; the host copies the data.
        unsafe { (self.table.append)(self.context, data.as_ptr(), data.len(), 1) }
    }

    fn append_borrowed(&self, data: Borrowed) {
        // SAFETY: the context belongs to the table; whoever made `data` keeps it until the next
        // send.
        unsafe { (self.table.append)(self.context, data.as_ptr(), data.len(), 0) }
    }

    fn append_file(&self, fd: i32, offset: u64, length: u64) -> Result<(), i32> {
        // SAFETY: the context belongs to the table.
        match unsafe { (self.table.append_file)(self.context, fd, offset, length) } {
            0 => Ok(()),
            errno => Err(errno),
        }
    }

    fn send(&self, how: Send, _may_block: &MayBlock) -> Result<(), ClientGone> {
        // SAFETY: the context belongs to the table.
        match unsafe { (self.table.send)(self.context, how as u8) } {
            0 => Ok(()),
            _ => Err(ClientGone),
        }
    }

    fn abort(&self, _may_block: &MayBlock) {
        // SAFETY: the context belongs to the table.
        unsafe { (self.table.abort)(self.context) }
    }

    fn log(&self, level: Level, foreign: bool, line: &[u8]) {
        // SAFETY: the context belongs to the table.
        unsafe {
            (self.table.log)(
                self.context,
                level as u8,
                u8::from(foreign),
                Text::new(line),
            );
        }
    }

    fn log_from(&self, level: Level, foreign: bool, source: Source<'_>, line: &[u8]) {
        let (level, foreign) = (level as u8, u8::from(foreign));
        // SAFETY: the context belongs to the table; the source is borrowed for the call.
        unsafe { (self.table.log_from)(self.context, level, foreign, &source, Text::new(line)) }
    }

    fn logs(&self, level: Level, foreign: bool) -> bool {
        // SAFETY: the context belongs to the table.
        unsafe { (self.table.logs)(self.context, level as u8, u8::from(foreign)) != 0 }
    }

    fn client_gone(&self) -> bool {
        // SAFETY: the context belongs to the table.
        unsafe { (self.table.client_gone)(self.context) != 0 }
    }

    fn native(&self) -> Option<NonNull<c_void>> {
        NonNull::new(self.native)
    }
}
