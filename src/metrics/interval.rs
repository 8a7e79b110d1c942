//! What the requests of one interval add up to.

#![forbid(unsafe_code)]

use super::figures::{Durations, Figures};

/// Buckets of a histogram: 16 octaves from 1 ms to 65.536 s, four equal parts each, and one for
/// what took longer. The first also takes what was shorter than 1 ms.
pub const BUCKETS: usize = 65;

/// The parts of a request that are told apart, in the order of the telemetry's field numbers. The
/// last three are parts of the others, not further ones.
pub const PHASES: [&str; 8] = [
    "server",
    "queue",
    "daemon",
    "application",
    "request",
    "gil_wait",
    "input_read",
    "output_write",
];

/// The indices in [`PHASES`] that only daemon mode has.
pub const DAEMON_ONLY: [usize; 2] = [1, 2];

/// One part of all requests. Times are in microseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Phase {
    /// The sum.
    pub total_us: u64,
    /// The shortest and the longest; `None` without a request.
    pub range_us: Option<(u64, u64)>,
    /// How many took how long.
    pub buckets: [u32; BUCKETS],
}

impl Default for Phase {
    fn default() -> Self {
        Phase {
            total_us: 0,
            range_us: None,
            buckets: [0; BUCKETS],
        }
    }
}

impl Phase {
    fn add(&mut self, microseconds: u64) {
        self.total_us = self.total_us.saturating_add(microseconds);
        self.range_us = Some(match self.range_us {
            None => (microseconds, microseconds),
            Some((least, most)) => (least.min(microseconds), most.max(microseconds)),
        });
        self.buckets[bucket(microseconds)] += 1;
    }

    /// The mean of `count` requests, seconds; 0 without any.
    pub fn mean_s(&self, count: u64) -> f64 {
        match count {
            0 => 0.0,
            count => self.total_us as f64 / 1e6 / count as f64,
        }
    }
}

/// The bucket of a duration; its lower bound belongs to it, its upper to the next.
pub fn bucket(microseconds: u64) -> usize {
    let milliseconds = microseconds / 1000;
    if milliseconds == 0 {
        return 0;
    }
    if milliseconds >= 65_536 {
        return BUCKETS - 1;
    }
    let octave = milliseconds.ilog2();
    let lower = 1000 << octave;
    octave as usize * 4 + ((microseconds - lower) * 4 / lower) as usize
}

/// A request that has ended.
#[derive(Clone, Copy, Debug, Default)]
pub struct Completed {
    /// How long its parts took.
    pub durations: Durations,
    /// What it did.
    pub figures: Figures,
    /// The status of its response; 0, if there was none, counts as 500.
    pub status: u16,
}

/// What requests add up to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interval {
    /// How many ended.
    pub requests: u64,
    /// In the order of [`PHASES`].
    pub phases: [Phase; PHASES.len()],
    /// How often their threads took the GIL.
    pub gil_waits: u64,
    /// Bytes of request bodies that applications read.
    pub input_bytes: u64,
    /// Reads.
    pub input_reads: u64,
    /// Bytes of responses.
    pub output_bytes: u64,
    /// Blocks.
    pub output_writes: u64,
    /// By the first digit of the status, from 1 to 5. Their sum is `requests`.
    pub statuses: [u64; 5],
}

impl Interval {
    /// One more request.
    pub fn add(&mut self, request: &Completed) {
        let Completed {
            durations,
            figures,
            status,
        } = request;
        self.requests += 1;
        let times = [
            durations.server_us,
            durations.queue_us,
            durations.daemon_us,
            durations.application_us,
            durations.total_us(),
            figures.gil_wait_us,
            figures.input_us,
            figures.output_us,
        ];
        for (phase, microseconds) in self.phases.iter_mut().zip(times) {
            phase.add(microseconds);
        }
        self.gil_waits += figures.gil_waits;
        self.input_bytes += figures.input_bytes;
        self.input_reads += figures.input_reads;
        self.output_bytes += figures.output_bytes;
        self.output_writes += figures.output_writes;
        let class = match status / 100 {
            class @ 1..=4 => usize::from(class) - 1,
            _ => 4,
        };
        self.statuses[class] += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_have_the_bounds_that_are_documented() {
        // (microseconds, bucket)
        for (microseconds, expected) in [
            (0, 0),
            (999, 0),
            (1000, 0),
            (1249, 0),
            (1250, 1),
            (1999, 3),
            (2000, 4),
            (2500, 5),
            (3999, 7),
            (4000, 8),
            (65_535_999, 63),
            (65_536_000, 64),
            (u64::MAX, 64),
        ] {
            assert_eq!(bucket(microseconds), expected, "{microseconds}");
        }
        let mut last = 0;
        for microseconds in (0..70_000_000).step_by(97) {
            let bucket = bucket(microseconds);
            assert!(bucket == last || bucket == last + 1, "{microseconds}");
            last = bucket;
        }
        assert_eq!(last, BUCKETS - 1);
    }

    #[test]
    fn requests_add_up() {
        let mut interval = Interval::default();
        for (status, application_us) in [(200, 5_000), (404, 1_000), (0, 3_000), (999, 3_000)] {
            interval.add(&Completed {
                durations: Durations {
                    server_us: 10,
                    application_us,
                    ..Durations::default()
                },
                figures: Figures {
                    input_bytes: 7,
                    gil_waits: 2,
                    ..Figures::default()
                },
                status,
            });
        }
        assert_eq!(interval.requests, 4);
        assert_eq!(interval.statuses, [0, 1, 0, 1, 2]);
        assert_eq!((interval.input_bytes, interval.gil_waits), (28, 8));
        let application = &interval.phases[3];
        assert_eq!(application.range_us, Some((1_000, 5_000)));
        assert_eq!(application.mean_s(interval.requests), 0.003);
        assert_eq!(application.buckets.iter().sum::<u32>(), 4);
        assert_eq!(interval.phases[4].total_us, 12_040);
        assert_eq!(Phase::default().mean_s(0), 0.0);
    }
}
