//! What httpd tells about its own processes (`mod_wsgi.server_metrics()`), as bytes: from the module
//! to the gateway of the same process, and by a shared page to the workers of process groups.

#![forbid(unsafe_code)]

/// httpd's scoreboard. Times are microseconds since the epoch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scoreboard {
    /// Processes at most.
    pub server_limit: u32,
    /// Threads in each at most.
    pub thread_limit: u32,
    /// Counts the graceful restarts.
    pub running_generation: u32,
    /// When httpd was started or restarted.
    pub restart_us: i64,
    /// As many as `server_limit`.
    pub processes: Vec<Process>,
}

/// The place of a process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Process {
    /// 0 where there is none.
    pub pid: u32,
    /// The generation that it belongs to.
    pub generation: u32,
    /// Whether it ends as soon as it can.
    pub quiescing: bool,
    /// As many as `thread_limit`.
    pub workers: Vec<Worker>,
}

/// The place of a thread.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Worker {
    /// Its number among all.
    pub number: u32,
    /// The generation that it belongs to.
    pub generation: u32,
    /// What it does: a letter as mod_status shows it.
    pub status: u8,
    /// Requests that it has served.
    pub access_count: u64,
    /// Bytes that it has sent.
    pub bytes_served: u64,
    /// When its last request began and ended, and when this was last changed.
    pub start_us: i64,
    pub stop_us: i64,
    pub last_used_us: i64,
    /// The client, the request line and the virtual host of its last request.
    pub client: Vec<u8>,
    pub request: Vec<u8>,
    pub vhost: Vec<u8>,
}

/// Bytes of an encoded worker with texts as long as httpd keeps them.
const LARGEST_WORKER: usize = 64 + 3 * 130;

/// Room for any scoreboard with these limits.
pub fn largest(server_limit: u32, thread_limit: u32) -> usize {
    32 + server_limit as usize * (16 + thread_limit as usize * LARGEST_WORKER)
}

struct Writer(Vec<u8>);

impl Writer {
    fn number(&mut self, value: u64) {
        // LEB128: most are small.
        let mut rest = value;
        while rest >= 0x80 {
            self.0.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        self.0.push(rest as u8);
    }

    fn time(&mut self, value: i64) {
        self.number(u64::try_from(value).unwrap_or(0));
    }

    fn text(&mut self, value: &[u8]) {
        let value = &value[..value.len().min(128)];
        self.number(value.len() as u64);
        self.0.extend_from_slice(value);
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (&first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(first)
    }

    fn number(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    fn small(&mut self) -> Option<u32> {
        u32::try_from(self.number()?).ok()
    }

    fn time(&mut self) -> Option<i64> {
        i64::try_from(self.number()?).ok()
    }

    fn text(&mut self) -> Option<Vec<u8>> {
        let length = usize::try_from(self.number()?).ok()?;
        let text = self.0.get(..length)?;
        self.0 = &self.0[length..];
        Some(text.to_vec())
    }
}

impl Scoreboard {
    /// As bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer(Vec::new());
        out.number(self.server_limit.into());
        out.number(self.thread_limit.into());
        out.number(self.running_generation.into());
        out.time(self.restart_us);
        out.number(self.processes.len() as u64);
        for process in &self.processes {
            out.number(process.pid.into());
            out.number(process.generation.into());
            out.number(process.quiescing.into());
            out.number(process.workers.len() as u64);
            for worker in &process.workers {
                out.number(worker.number.into());
                out.number(worker.generation.into());
                out.number(worker.status.into());
                out.number(worker.access_count);
                out.number(worker.bytes_served);
                out.time(worker.start_us);
                out.time(worker.stop_us);
                out.time(worker.last_used_us);
                out.text(&worker.client);
                out.text(&worker.request);
                out.text(&worker.vhost);
            }
        }
        out.0
    }

    /// From bytes; `None` if they are no scoreboard.
    pub fn decode(bytes: &[u8]) -> Option<Scoreboard> {
        let mut from = Reader(bytes);
        let mut scoreboard = Scoreboard {
            server_limit: from.small()?,
            thread_limit: from.small()?,
            running_generation: from.small()?,
            restart_us: from.time()?,
            processes: Vec::new(),
        };
        for _ in 0..from.number()? {
            let mut process = Process {
                pid: from.small()?,
                generation: from.small()?,
                quiescing: from.number()? != 0,
                workers: Vec::new(),
            };
            for _ in 0..from.number()? {
                process.workers.push(Worker {
                    number: from.small()?,
                    generation: from.small()?,
                    status: u8::try_from(from.number()?).ok()?,
                    access_count: from.number()?,
                    bytes_served: from.number()?,
                    start_us: from.time()?,
                    stop_us: from.time()?,
                    last_used_us: from.time()?,
                    client: from.text()?,
                    request: from.text()?,
                    vhost: from.text()?,
                });
            }
            scoreboard.processes.push(process);
        }
        from.0.is_empty().then_some(scoreboard)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Scoreboard {
        let worker = Worker {
            number: 3,
            generation: 1,
            status: b'W',
            access_count: u64::MAX,
            bytes_served: 1 << 40,
            start_us: i64::MAX,
            stop_us: 0,
            last_used_us: 1_700_000_000_000_000,
            client: b"192.0.2.1".to_vec(),
            request: vec![b'x'; 128],
            vhost: Vec::new(),
        };
        Scoreboard {
            server_limit: 2,
            thread_limit: 1,
            running_generation: 4,
            restart_us: 5,
            processes: vec![
                Process {
                    pid: 77,
                    generation: 1,
                    quiescing: true,
                    workers: vec![worker],
                },
                Process::default(),
            ],
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let scoreboard = example();
        let bytes = scoreboard.encode();
        assert!(bytes.len() <= largest(2, 1));
        assert_eq!(Scoreboard::decode(&bytes), Some(scoreboard));
    }

    #[test]
    fn damaged_bytes_are_refused() {
        let bytes = example().encode();
        for length in 0..bytes.len() {
            assert_eq!(Scoreboard::decode(&bytes[..length]), None);
        }
        assert_eq!(Scoreboard::decode(&[bytes, vec![0]].concat()), None);
        assert_eq!(Scoreboard::decode(&[0xff; 100]), None);
    }
}
