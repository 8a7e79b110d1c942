//! Telemetry datagrams, in the format of mod_wsgi 6: a header of 24 bytes, then fields, each a
//! number, a type and a value; all little-endian. Times are seconds, `f64`.
//!
//! | | bytes |
//! |---|---|
//! | header | `WSGI`, version 1, kind u8, flags u16 (0), pid u32, sequence u32, time f64 |
//! | field | number u16, type u8, for types 4 to 6 a count u16, the value |

#![forbid(unsafe_code)]

use super::figures::Cpu;
use super::interval::{DAEMON_ONLY, Interval, PHASES};
use super::slow::SlowRequest;

/// No datagram is longer.
pub const LONGEST: usize = 8192;

/// Threads that are reported one by one, at most.
pub const THREADS: usize = 128;

/// Longer texts about the process are cut.
const TEXT: usize = 128;

/// What a datagram is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// The requests of an interval.
    Request = 2,
    /// One request that takes long.
    SlowRequest = 4,
    /// A process begins to serve.
    Started = 5,
    /// A process is about to end.
    Stopping = 6,
    /// A process ends.
    Stopped = 7,
    /// An interpreter's garbage collector.
    GcSnapshot = 8,
    /// One pass of a garbage collector.
    GcEvent = 9,
}

/// What is always the same of a process.
#[derive(Clone, Debug, Default)]
pub struct Identity {
    /// The process.
    pub pid: u32,
    /// httpd's parent process.
    pub parent_pid: u32,
    /// The version of mod_wsgi whose format this is.
    pub mod_wsgi_version: Vec<u8>,
    /// As `platform.python_version()`.
    pub python_version: Vec<u8>,
    /// `Apache/2.4.x`.
    pub apache_version: Vec<u8>,
    /// The MPM.
    pub mpm_name: Vec<u8>,
    /// The machine.
    pub hostname: Vec<u8>,
    /// Empty in embedded mode.
    pub process_group: Vec<u8>,
    /// `sys.getswitchinterval()`; 0 if it is not known.
    pub switch_interval_s: f64,
}

/// What one thread did in an interval.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ThreadSample {
    /// Requests that ended.
    pub completed: u32,
    /// How long it was serving.
    pub busy_us: u64,
    /// What the requests that ended used of the processor.
    pub cpu_us: u64,
    /// How long its current request has been running.
    pub current_us: u64,
    /// How long the longest of the requests took that ended.
    pub longest_us: u64,
}

/// An interval of the process.
#[derive(Clone, Debug, Default)]
pub struct Sample {
    /// Its beginning and end, microseconds since the epoch.
    pub start_us: i64,
    pub stop_us: i64,
    /// Its length, seconds; never 0.
    pub period_s: f64,
    /// What its requests add up to.
    pub interval: Interval,
    /// What the process used of the processor.
    pub cpu: Cpu,
    /// Resident memory now, and the most there ever was, bytes.
    pub memory_rss: u64,
    pub memory_max_rss: u64,
    /// Threads that may serve requests.
    pub threads_maximum: u32,
    /// Threads that have ever served one.
    pub threads_started: u32,
    /// Threads by their number, as many as may serve.
    pub threads: Vec<ThreadSample>,
    /// Whether the process belongs to a process group.
    pub daemon: bool,
}

impl Sample {
    /// Requests per second.
    pub fn throughput(&self) -> f64 {
        self.interval.requests as f64 / self.period_s
    }

    /// The part of all threads that was busy.
    pub fn capacity_utilization(&self) -> f64 {
        let busy: u64 = self.threads.iter().map(|thread| thread.busy_us).sum();
        busy as f64 / 1e6 / self.period_s / f64::from(self.threads_maximum.max(1))
    }

    /// Threads that served in the interval.
    pub fn threads_active(&self) -> u32 {
        let active = |thread: &&ThreadSample| thread.completed > 0 || thread.current_us > 0;
        self.threads.iter().filter(active).count() as u32
    }

    /// The use of the processor as a part of one core.
    pub fn utilization(&self, microseconds: u64) -> f64 {
        microseconds as f64 / 1e6 / self.period_s
    }

    /// Whether the process has the phase.
    pub fn has_phase(&self, index: usize) -> bool {
        self.daemon || !DAEMON_ONLY.contains(&index)
    }
}

/// What the garbage collector of an interpreter says of itself, generation by generation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GcCounters {
    /// `gc.get_count()`.
    pub count: [u64; 3],
    /// `gc.get_threshold()`.
    pub threshold: [u64; 3],
    /// `gc.get_stats()`: collections, collected and uncollectable objects.
    pub collections: [u64; 3],
    pub collected: [u64; 3],
    pub uncollectable: [u64; 3],
    /// `gc.isenabled()`.
    pub enabled: u64,
    /// `gc.get_freeze_count()`.
    pub frozen: u64,
}

/// One pass of a garbage collector.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GcEvent {
    /// When it began, microseconds since the epoch.
    pub start_us: i64,
    /// How long it took.
    pub duration_us: u64,
    /// The generation.
    pub generation: u64,
    /// Objects that were freed, and those that could not be.
    pub collected: u64,
    pub uncollectable: u64,
}

/// A datagram under construction.
struct Datagram(Vec<u8>);

impl Datagram {
    fn new(kind: Kind, pid: u32, sequence: u32, time_us: i64) -> Self {
        let mut bytes = Vec::with_capacity(512);
        bytes.extend_from_slice(b"WSGI");
        bytes.extend_from_slice(&[1, kind as u8, 0, 0]);
        bytes.extend_from_slice(&pid.to_le_bytes());
        bytes.extend_from_slice(&sequence.to_le_bytes());
        bytes.extend_from_slice(&(time_us as f64 / 1e6).to_le_bytes());
        Datagram(bytes)
    }

    fn field(&mut self, number: u16, kind: u8) {
        self.0.extend_from_slice(&number.to_le_bytes());
        self.0.push(kind);
    }

    fn integer(&mut self, number: u16, value: u64) {
        self.field(number, 1);
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    fn float(&mut self, number: u16, value: f64) {
        self.field(number, 2);
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    /// Microseconds, sent as seconds.
    fn seconds(&mut self, number: u16, microseconds: u64) {
        self.float(number, microseconds as f64 / 1e6);
    }

    /// An empty text is left out.
    fn text(&mut self, number: u16, value: &[u8]) {
        if value.is_empty() {
            return;
        }
        self.field(number, 4);
        self.0
            .extend_from_slice(&(value.len() as u16).to_le_bytes());
        self.0.extend_from_slice(value);
    }

    fn short_text(&mut self, number: u16, value: &[u8]) {
        self.text(number, &value[..value.len().min(TEXT)]);
    }

    fn integers(&mut self, number: u16, values: impl ExactSizeIterator<Item = u32>) {
        self.field(number, 5);
        self.0
            .extend_from_slice(&(values.len() as u16).to_le_bytes());
        for value in values {
            let value = i32::try_from(value).unwrap_or(i32::MAX);
            self.0.extend_from_slice(&value.to_le_bytes());
        }
    }

    /// Microseconds, sent as seconds.
    fn seconds_list(&mut self, number: u16, values: impl ExactSizeIterator<Item = u64>) {
        self.field(number, 6);
        self.0
            .extend_from_slice(&(values.len() as u16).to_le_bytes());
        for value in values {
            self.0
                .extend_from_slice(&(value as f64 / 1e6).to_le_bytes());
        }
    }

    fn versions(&mut self, identity: &Identity) {
        self.short_text(1, &identity.mod_wsgi_version);
        self.short_text(2, &identity.python_version);
        self.short_text(3, &identity.apache_version);
        self.short_text(4, &identity.mpm_name);
        self.place(identity);
        self.integer(7, identity.parent_pid.into());
    }

    fn place(&mut self, identity: &Identity) {
        self.short_text(5, &identity.hostname);
        self.short_text(6, &identity.process_group);
    }

    fn switch_interval(&mut self, identity: &Identity) {
        if identity.switch_interval_s > 0.0 {
            self.float(13, identity.switch_interval_s);
        }
    }
}

/// [`Kind::Started`]: a process begins to serve.
pub fn started(identity: &Identity, sequence: u32, start_us: i64) -> Vec<u8> {
    let mut datagram = Datagram::new(Kind::Started, identity.pid, sequence, start_us);
    datagram.versions(identity);
    datagram.switch_interval(identity);
    datagram.0
}

/// [`Kind::Stopping`]: a process is about to end, and has `active` requests.
pub fn stopping(
    identity: &Identity,
    sequence: u32,
    now_us: i64,
    reason: &str,
    active: u32,
) -> Vec<u8> {
    let mut datagram = Datagram::new(Kind::Stopping, identity.pid, sequence, now_us);
    datagram.place(identity);
    datagram.short_text(130, reason.as_bytes());
    datagram.integer(133, active.into());
    datagram.0
}

/// How a process has ended.
#[derive(Clone, Copy, Debug)]
pub struct End<'a> {
    /// Why, in mod_wsgi's words.
    pub reason: &'a str,
    /// When it began and ended, microseconds since the epoch.
    pub start_us: i64,
    pub now_us: i64,
    /// Requests that it has served.
    pub requests: u64,
    /// Requests that were cut off.
    pub active: u32,
}

/// [`Kind::Stopped`].
pub fn stopped(identity: &Identity, sequence: u32, end: &End<'_>) -> Vec<u8> {
    let mut datagram = Datagram::new(Kind::Stopped, identity.pid, sequence, end.now_us);
    datagram.place(identity);
    datagram.short_text(130, end.reason.as_bytes());
    let uptime = end.now_us.saturating_sub(end.start_us);
    datagram.seconds(131, u64::try_from(uptime).unwrap_or(0));
    datagram.integer(132, end.requests);
    datagram.integer(134, end.active.into());
    datagram.integer(135, u64::from(end.active == 0));
    datagram.0
}

/// [`Kind::Request`]: what happened in an interval. `interval_s` and `slow_s` are as configured,
/// seconds.
pub fn requests(
    identity: &Identity,
    sequence: u32,
    sample: &Sample,
    interval_s: f64,
    slow_s: f64,
) -> Vec<u8> {
    let mut datagram = Datagram::new(Kind::Request, identity.pid, sequence, sample.stop_us);
    let interval = &sample.interval;
    datagram.versions(identity);
    datagram.float(10, sample.period_s);
    datagram.float(11, interval_s);
    datagram.float(12, slow_s);
    datagram.switch_interval(identity);
    datagram.integer(20, interval.requests);
    datagram.float(21, sample.throughput());
    datagram.float(22, sample.capacity_utilization());
    datagram.float(30, sample.utilization(sample.cpu.user_us));
    datagram.float(31, sample.utilization(sample.cpu.system_us));
    datagram.float(32, sample.utilization(sample.cpu.total_us()));
    datagram.integer(40, sample.memory_rss);
    datagram.integer(41, sample.memory_max_rss);
    datagram.integer(50, sample.threads_maximum.into());
    datagram.integer(51, sample.threads_started.into());
    datagram.integer(52, sample.threads_active().into());
    let phases = || {
        (0..PHASES.len())
            .filter(|&index| sample.has_phase(index))
            .map(|index| (index as u16, &interval.phases[index]))
    };
    for (index, phase) in phases() {
        datagram.float(60 + index, phase.mean_s(interval.requests));
    }
    for (index, phase) in phases() {
        if let Some((least, most)) = phase.range_us {
            datagram.seconds(70 + index, least);
            datagram.seconds(80 + index, most);
        }
    }
    for (index, phase) in phases() {
        datagram.integers(90 + index, phase.buckets.iter().copied());
    }
    datagram.integer(100, interval.input_bytes);
    datagram.integer(101, interval.input_reads);
    datagram.integer(102, interval.output_bytes);
    datagram.integer(103, interval.output_writes);
    let threads = &sample.threads[..sample.threads.len().min(THREADS)];
    if !threads.is_empty() {
        let threads = threads.iter();
        datagram.integers(110, threads.clone().map(|thread| thread.completed));
        datagram.seconds_list(111, threads.clone().map(|thread| thread.busy_us));
        datagram.seconds_list(112, threads.clone().map(|thread| thread.cpu_us));
        datagram.seconds_list(113, threads.clone().map(|thread| thread.current_us));
        datagram.seconds_list(114, threads.map(|thread| thread.longest_us));
    }
    for (number, count) in (120..).zip(interval.statuses) {
        datagram.integer(number, count);
    }
    datagram.0
}

/// [`Kind::SlowRequest`].
pub fn slow_request(
    identity: &Identity,
    sequence: u32,
    now_us: i64,
    request: &SlowRequest,
) -> Vec<u8> {
    let mut datagram = Datagram::new(Kind::SlowRequest, identity.pid, sequence, now_us);
    let SlowRequest {
        durations, figures, ..
    } = request;
    datagram.integer(200, request.completed.into());
    datagram.float(201, request.start_us as f64 / 1e6);
    datagram.seconds(202, request.duration_us);
    datagram.integer(203, request.thread_id.into());
    datagram.integer(205, request.server_pid.into());
    datagram.seconds(220, durations.server_us);
    datagram.seconds(221, durations.queue_us);
    datagram.seconds(222, durations.daemon_us);
    datagram.seconds(223, durations.application_us);
    datagram.seconds(224, figures.gil_wait_us);
    datagram.integer(225, figures.gil_waits);
    datagram.integer(230, figures.input_bytes);
    datagram.integer(231, figures.input_reads);
    datagram.integer(232, figures.output_bytes);
    datagram.integer(233, figures.output_writes);
    datagram.seconds(234, figures.input_us);
    datagram.seconds(235, figures.output_us);
    datagram.integer(240, request.status.into());
    datagram.seconds(250, request.cpu.user_us);
    datagram.seconds(251, request.cpu.system_us);
    datagram.integer(260, request.active_at_start.into());
    datagram.integer(261, request.active_at_completion.into());
    let texts = &request.texts;
    datagram.text(204, &texts.log_id);
    for (number, text) in (210..).zip([
        &texts.method,
        &texts.scheme,
        &texts.hostname,
        &texts.script_name,
        &texts.path_info,
        &texts.protocol,
        &texts.peer_ip,
        &texts.user_agent,
    ]) {
        datagram.text(number, text);
    }
    datagram.0
}

/// [`Kind::GcSnapshot`]: `dropped` passes since the last one were too many to be remembered. A
/// process with one interpreter does not name it.
pub fn gc_snapshot(
    identity: &Identity,
    sequence: u32,
    now_us: i64,
    interpreter: Option<&[u8]>,
    counters: &GcCounters,
    dropped: u64,
) -> Vec<u8> {
    let mut datagram = Datagram::new(Kind::GcSnapshot, identity.pid, sequence, now_us);
    let lists = [
        counters.count,
        counters.threshold,
        counters.collections,
        counters.collected,
        counters.uncollectable,
    ];
    for (number, value) in (300..).zip(lists.into_iter().flatten()) {
        datagram.integer(number, value);
    }
    datagram.integer(315, counters.enabled);
    datagram.integer(316, counters.frozen);
    datagram.integer(317, dropped);
    datagram.short_text(8, interpreter.unwrap_or_default());
    datagram.0
}

/// [`Kind::GcEvent`].
pub fn gc_event(
    identity: &Identity,
    sequence: u32,
    now_us: i64,
    interpreter: Option<&[u8]>,
    event: &GcEvent,
) -> Vec<u8> {
    let mut datagram = Datagram::new(Kind::GcEvent, identity.pid, sequence, now_us);
    datagram.float(320, event.start_us as f64 / 1e6);
    datagram.seconds(321, event.duration_us);
    datagram.integer(322, event.generation);
    datagram.integer(323, event.collected);
    datagram.integer(324, event.uncollectable);
    datagram.short_text(8, interpreter.unwrap_or_default());
    datagram.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::interval::{BUCKETS, Phase};

    /// The fields: number, type, value.
    fn fields(datagram: &[u8]) -> Vec<(u16, u8, Vec<u8>)> {
        let mut rest = &datagram[24..];
        let mut all = Vec::new();
        while !rest.is_empty() {
            let (number, kind) = (u16::from_le_bytes([rest[0], rest[1]]), rest[2]);
            rest = &rest[3..];
            let size = match kind {
                1..=3 => 8,
                _ => {
                    let count = usize::from(u16::from_le_bytes([rest[0], rest[1]]));
                    rest = &rest[2..];
                    count * [1, 4, 8][usize::from(kind - 4)]
                }
            };
            all.push((number, kind, rest[..size].to_vec()));
            rest = &rest[size..];
        }
        all
    }

    fn identity() -> Identity {
        Identity {
            pid: 7,
            hostname: b"h".to_vec(),
            process_group: vec![b'g'; 1000],
            ..Identity::default()
        }
    }

    #[test]
    fn the_header() {
        let datagram = stopping(&identity(), 3, 1_500_000, "why", 2);
        let expected = [
            &b"WSGI\x01\x06\0\0\x07\0\0\0\x03\0\0\0"[..],
            &1.5_f64.to_le_bytes(),
        ];
        assert_eq!(datagram[..24], expected.concat());
        let fields = fields(&datagram);
        assert_eq!(fields[0], (5, 4, b"h".to_vec()));
        assert_eq!(fields[1].2.len(), TEXT);
        assert_eq!(fields[2], (130, 4, b"why".to_vec()));
        assert_eq!(fields[3], (133, 1, 2_u64.to_le_bytes().to_vec()));
    }

    #[test]
    fn the_largest_sample_fits() {
        let phase = Phase {
            range_us: Some((1, 2)),
            ..Phase::default()
        };
        let sample = Sample {
            period_s: 1.0,
            interval: Interval {
                requests: 1,
                phases: [(); PHASES.len()].map(|()| phase.clone()),
                ..Interval::default()
            },
            threads: vec![ThreadSample::default(); 1000],
            daemon: true,
            ..Sample::default()
        };
        let long = Identity {
            mod_wsgi_version: vec![b'x'; 200],
            python_version: vec![b'x'; 200],
            apache_version: vec![b'x'; 200],
            mpm_name: vec![b'x'; 200],
            hostname: vec![b'x'; 200],
            switch_interval_s: 1.0,
            ..identity()
        };
        let datagram = requests(&long, 1, &sample, 1.0, 0.0);
        assert!(datagram.len() <= LONGEST, "{}", datagram.len());
        let fields = fields(&datagram);
        let of = |number| fields.iter().find(|field| field.0 == number).unwrap();
        assert_eq!(of(97).2.len(), BUCKETS * 4);
        assert_eq!(of(110).2.len(), THREADS * 4);
        assert_eq!(of(114).2.len(), THREADS * 8);
    }

    #[test]
    fn embedded_mode_has_no_queue() {
        let sample = Sample {
            period_s: 1.0,
            ..Sample::default()
        };
        let datagram = requests(&identity(), 1, &sample, 1.0, 0.0);
        let numbers: Vec<u16> = fields(&datagram).iter().map(|field| field.0).collect();
        for absent in [61, 62, 91, 92, 70, 80, 110] {
            assert!(!numbers.contains(&absent), "{absent}");
        }
        for present in [60, 63, 67, 90, 97, 120, 124] {
            assert!(numbers.contains(&present), "{present}");
        }
    }

    #[test]
    fn the_fields_of_a_collector_are_in_order() {
        let counters = GcCounters {
            count: [1, 2, 3],
            uncollectable: [13, 14, 15],
            enabled: 1,
            frozen: 17,
            ..GcCounters::default()
        };
        let fields = fields(&gc_snapshot(&identity(), 1, 0, Some(b"i"), &counters, 18));
        let value = |number: u16| {
            let field = fields.iter().find(|field| field.0 == number).unwrap();
            u64::from_le_bytes(field.2.clone().try_into().unwrap())
        };
        assert_eq!((value(300), value(302), value(314)), (1, 3, 15));
        assert_eq!((value(315), value(316), value(317)), (1, 17, 18));
        assert_eq!(fields.last().unwrap(), &(8, 4, b"i".to_vec()));
    }
}
