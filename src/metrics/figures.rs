//! What is measured of one request, as plain numbers.

#![forbid(unsafe_code)]

/// Points in time, microseconds since the epoch; 0 where there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// The request arrived at httpd.
    pub request_start_us: i64,
    /// It was handed to a worker; 0 in embedded mode.
    pub queue_start_us: i64,
    /// The worker began with it; 0 in embedded mode.
    pub daemon_start_us: i64,
    /// Its thread had the GIL; 0 until then.
    pub application_start_us: i64,
}

/// How long each part of a request took, microseconds. Queue and daemon are 0 in embedded mode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Durations {
    /// From httpd's acceptance to the worker, or to the application.
    pub server_us: u64,
    /// Until the worker began with it.
    pub queue_us: u64,
    /// Until the application started.
    pub daemon_us: u64,
    /// Until its response had been handed on.
    pub application_us: u64,
}

impl Durations {
    /// The whole request.
    pub fn total_us(&self) -> u64 {
        self.server_us + self.queue_us + self.daemon_us + self.application_us
    }
}

impl Times {
    /// How long the parts took of a request that ended, or was looked at, at `now_us`. Clocks that
    /// were set back count as no time.
    pub fn durations(&self, now_us: i64) -> Durations {
        let between = |from: i64, to: i64| u64::try_from(to.saturating_sub(from)).unwrap_or(0);
        let application = match self.application_start_us {
            0 => now_us,
            started => started,
        };
        let application_us = between(application, now_us);
        if self.queue_start_us == 0 {
            return Durations {
                server_us: between(self.request_start_us, application),
                application_us,
                ..Durations::default()
            };
        }
        Durations {
            server_us: between(self.request_start_us, self.queue_start_us),
            queue_us: between(self.queue_start_us, self.daemon_start_us),
            daemon_us: between(self.daemon_start_us, application),
            application_us,
        }
    }
}

/// What a request has done so far. Times are in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Reads of the request body from the server.
    pub input_reads: u64,
    /// Bytes of the request body that the application was given.
    pub input_bytes: u64,
    /// Time in these reads, without waiting for the GIL.
    pub input_us: u64,
    /// Blocks of the response.
    pub output_writes: u64,
    /// Their bytes.
    pub output_bytes: u64,
    /// Time in handing them on, without waiting for the GIL.
    pub output_us: u64,
    /// How often the thread took the GIL, where the server can see it.
    pub gil_waits: u64,
    /// How long it waited for it then.
    pub gil_wait_us: u64,
}

/// What a thread or a process has used of the processor, microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cpu {
    /// In user mode.
    pub user_us: u64,
    /// In the kernel.
    pub system_us: u64,
}

impl Cpu {
    /// What was used since `before`.
    pub fn since(self, before: Cpu) -> Cpu {
        Cpu {
            user_us: self.user_us.saturating_sub(before.user_us),
            system_us: self.system_us.saturating_sub(before.system_us),
        }
    }

    /// Both together.
    pub fn total_us(self) -> u64 {
        self.user_us + self.system_us
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_add_up() {
        let daemon = Times {
            request_start_us: 100,
            queue_start_us: 130,
            daemon_start_us: 200,
            application_start_us: 205,
        };
        let durations = daemon.durations(1205);
        let expected = Durations {
            server_us: 30,
            queue_us: 70,
            daemon_us: 5,
            application_us: 1000,
        };
        assert_eq!((durations, durations.total_us()), (expected, 1105));
        let embedded = Times {
            queue_start_us: 0,
            daemon_start_us: 0,
            ..daemon
        };
        let durations = embedded.durations(1205);
        assert_eq!((durations.server_us, durations.application_us), (105, 1000));
        assert_eq!((durations.queue_us, durations.daemon_us), (0, 0));
    }

    #[test]
    fn a_request_before_its_application_and_a_clock_that_was_set_back() {
        let early = Times {
            request_start_us: 100,
            queue_start_us: 130,
            daemon_start_us: 200,
            application_start_us: 0,
        };
        let durations = early.durations(260);
        assert_eq!((durations.daemon_us, durations.application_us), (60, 0));
        assert_eq!(early.durations(50).daemon_us, 0);
    }
}
