//! What the process can tell about itself and its requests: timings, counts, telemetry.
//!
//! Nothing is measured until somebody wants it: the application subscribes to events or calls
//! `start_recording_metrics()`, or the configuration names a telemetry service.
//!
//! * [`figures`], [`interval`], [`slow`]: what is measured of a request, and what requests add up to.
//! * [`datagram`]: the format of telemetry.
//! * [`scoreboard`]: what httpd tells about its own processes, as bytes.
//! * `page`: a shared page that passes it to the workers of process groups.
//! * `observation`: one request, measured while it runs.
//! * `thread`: the numbers of the threads that serve requests.
//! * `recorder`: the figures of the process since somebody last asked.
//! * `reporter`: the thread that sends telemetry; `gc` watches the garbage collectors for it.
//! * `module`: the functions of the Python module `mod_wsgi`.

pub mod datagram;
pub mod figures;
pub mod interval;
pub mod scoreboard;
pub mod slow;

#[cfg(feature = "python")]
pub mod gc;
#[cfg(feature = "python")]
pub mod module;
#[cfg(feature = "python")]
pub mod observation;
#[cfg(any(feature = "httpd", feature = "python"))]
pub mod page;
#[cfg(feature = "python")]
pub mod recorder;
#[cfg(feature = "python")]
pub mod reporter;
#[cfg(feature = "python")]
pub mod task;
#[cfg(feature = "python")]
pub mod thread;
