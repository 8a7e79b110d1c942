//! Requests that take long: what is told of one, and the place where those wait that have ended.

#![forbid(unsafe_code)]

use std::collections::VecDeque;

use super::figures::{Cpu, Durations, Figures};
use crate::exchange::RequestHead;

/// What was asked; long texts are cut and end with "...". The query string is never among them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Texts {
    pub log_id: Vec<u8>,
    pub method: Vec<u8>,
    pub scheme: Vec<u8>,
    pub hostname: Vec<u8>,
    pub script_name: Vec<u8>,
    pub path_info: Vec<u8>,
    pub protocol: Vec<u8>,
    pub peer_ip: Vec<u8>,
    /// Empty unless it is wanted: it may say a lot about a person.
    pub user_agent: Vec<u8>,
}

impl Texts {
    /// From a request's head.
    pub fn of(head: &RequestHead<'_>, with_user_agent: bool) -> Texts {
        let header = |name: &[u8]| {
            let mut headers = head.headers.items().iter();
            let found = headers.find(|pair| pair.name.bytes().eq_ignore_ascii_case(name));
            found.map(|pair| pair.value.bytes())
        };
        let host = header(b"Host").map_or(head.site.server_name.bytes(), without_port);
        let user_agent = if with_user_agent {
            header(b"User-Agent").unwrap_or_default()
        } else {
            b""
        };
        let scheme: &[u8] = if head.https { b"https" } else { b"http" };
        Texts {
            log_id: cut(head.request_id.bytes().unwrap_or_default(), 63),
            method: cut(head.method.bytes(), 15),
            scheme: scheme.to_vec(),
            hostname: cut(host, 255),
            script_name: cut(head.script_name.bytes(), 255),
            path_info: cut(head.path_info.bytes(), 511),
            protocol: cut(head.protocol.bytes(), 15),
            peer_ip: cut(head.remote_addr.bytes(), 45),
            user_agent: cut(user_agent, 511),
        }
    }
}

/// The host of a Host header.
fn without_port(host: &[u8]) -> &[u8] {
    let after_address = host.iter().rposition(|&c| c == b']').unwrap_or(0);
    match host[after_address..].iter().position(|&c| c == b':') {
        Some(at) => &host[..after_address + at],
        None => host,
    }
}

fn cut(text: &[u8], most: usize) -> Vec<u8> {
    if text.len() <= most {
        return text.to_vec();
    }
    [&text[..most - 3], b"..."].concat()
}

/// A request that has taken longer than `WSGISlowRequests`. Of one that still runs, the figures are
/// those so far, and what is not known yet is 0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SlowRequest {
    /// Whether it has ended.
    pub completed: bool,
    /// When it began in this process, microseconds since the epoch.
    pub start_us: i64,
    /// How long it took since then.
    pub duration_us: u64,
    /// The thread that serves it.
    pub thread_id: u32,
    /// The httpd child that accepted it.
    pub server_pid: u32,
    pub durations: Durations,
    pub figures: Figures,
    pub status: u16,
    pub cpu: Cpu,
    /// Requests of the process, this one among them, when it began and when it ended.
    pub active_at_start: u32,
    pub active_at_completion: u32,
    pub texts: Texts,
}

/// Requests that have ended and have not been told of. When it is full, the oldest one goes.
#[derive(Debug)]
pub struct Ring {
    requests: VecDeque<SlowRequest>,
    room: usize,
}

impl Ring {
    /// Enough for what `threads` can complete in one interval, five times over, but within
    /// reason. Times are in microseconds.
    pub fn new(threads: u32, threshold_us: u64, interval_us: u64) -> Ring {
        let each = interval_us.div_ceil(threshold_us.max(1)).max(1);
        let room = u64::from(threads.max(1))
            .saturating_mul(each)
            .saturating_mul(5);
        Ring {
            requests: VecDeque::new(),
            room: room.clamp(32, 4096) as usize,
        }
    }

    /// A request has ended.
    pub fn push(&mut self, request: SlowRequest) {
        if self.requests.len() >= self.room {
            self.requests.pop_front();
        }
        self.requests.push_back(request);
    }

    /// Takes all out, the oldest first.
    pub fn take(&mut self) -> Vec<SlowRequest> {
        self.requests.drain(..).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_visibly() {
        assert_eq!(cut(b"abcdef", 6), b"abcdef");
        assert_eq!(cut(b"abcdefg", 6), b"abc...");
        for (host, name) in [
            (&b"www.example.com"[..], &b"www.example.com"[..]),
            (b"www.example.com:8080", b"www.example.com"),
            (b"[::1]:8080", b"[::1]"),
            (b"[::1]", b"[::1]"),
            (b"", b""),
            (b":80", b""),
        ] {
            assert_eq!(without_port(host), name);
        }
    }

    #[test]
    fn a_full_ring_forgets_the_oldest() {
        let mut ring = Ring::new(1, 1_000_000, 1_000_000);
        assert_eq!(ring.room, 32);
        for thread_id in 0..40 {
            ring.push(SlowRequest {
                thread_id,
                ..SlowRequest::default()
            });
        }
        let all = ring.take();
        assert_eq!((all.len(), all[0].thread_id), (32, 8));
        assert_eq!(ring.take(), []);
        assert_eq!(Ring::new(64, 1_000, 60_000_000).room, 4096);
        assert_eq!(Ring::new(10, 500_000, 1_000_000).room, 100);
        assert_eq!(Ring::new(u32::MAX, 0, u64::MAX).room, 4096);
    }
}
