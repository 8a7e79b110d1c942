//! What the process can tell about itself and its requests: timings, counts, telemetry.
//!
//! Nothing is measured until somebody wants it: the application subscribes to events or calls
//! `start_recording_metrics()`, or the configuration names a telemetry service.
//!
//! * [`observation`]: one request, measured while it runs.
//! * [`thread`]: the numbers of the threads that serve requests.

#[cfg(feature = "python")]
pub mod observation;
#[cfg(feature = "python")]
pub mod thread;
