//! Lines of the error log, in httpd's format.

use std::fmt::Write as _;

use super::sys;
use crate::exchange::Level;
use crate::messages::Code;

/// Longer texts are cut.
const LONGEST: usize = 8 * 1024;

/// Where the supervisor logs: standard error, which is httpd's error log.
pub struct Log {
    highest: u32,
    /// Said with every text: one httpd has many supervisors.
    about: String,
}

const DAYS: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

/// httpd's name of a level.
fn name(level: u8) -> &'static str {
    match level {
        0 => "emerg",
        1 => "alert",
        2 => "crit",
        3 => "error",
        4 => "warn",
        5 => "notice",
        6 => "info",
        7 => "debug",
        _ => "trace1",
    }
}

/// Appends `text` with control characters escaped, as httpd does.
fn escape(text: &[u8], out: &mut Vec<u8>) {
    for &byte in text {
        match byte {
            b'\t' | b' '..=b'~' | 0x80.. => out.push(byte),
            _ => out.extend_from_slice(format!("\\x{byte:02x}").as_bytes()),
        }
    }
}

impl Log {
    /// Logs up to `highest`, a number of [`Level`], for the process group `name`; empty if that is
    /// not known.
    pub fn new(highest: u32, name: &[u8]) -> Log {
        let about = match name {
            b"" => String::new(),
            name => format!(" (process group '{}')", String::from_utf8_lossy(name)),
        };
        Log { highest, about }
    }

    /// Whether anything of this level is written.
    pub fn enabled(&self, level: u8) -> bool {
        u32::from(level) <= self.highest
    }

    /// Writes one line for process `pid`. Nothing more can be done if it cannot be written.
    pub fn line(&self, level: u8, pid: u32, code: Option<Code>, text: &[u8]) {
        if !self.enabled(level) {
            return;
        }
        let _ = sys::write(&STDERR, &compose(level, pid, code, text));
    }

    /// Writes a text of several lines; the code stands before the first one, the process group
    /// behind it.
    pub fn text(&self, level: Level, pid: u32, code: Option<Code>, text: &str) {
        let (first, rest) = match text.trim_end().split_once('\n') {
            Some((first, rest)) => (first, Some(rest)),
            None => (text.trim_end(), None),
        };
        let first = format!("{first}{}", self.about);
        self.line(level as u8, pid, code, first.as_bytes());
        for line in rest.into_iter().flat_map(|rest| rest.split('\n')) {
            self.line(level as u8, pid, None, line.as_bytes());
        }
    }
}

/// Standard error.
struct Stderr;
const STDERR: Stderr = Stderr;

impl std::os::fd::AsRawFd for Stderr {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        2
    }
}

fn compose(level: u8, pid: u32, code: Option<Code>, text: &[u8]) -> Vec<u8> {
    let (time, micros) = sys::local_time();
    let mut prefix = String::with_capacity(96);
    let pick = |names: &[&'static str], index: i32| {
        usize::try_from(index)
            .ok()
            .and_then(|index| names.get(index).copied())
            .unwrap_or("???")
    };
    let _ = write!(
        prefix,
        "[{} {} {:02} {:02}:{:02}:{:02}.{micros:06} {}] [rwsgi:{}] [pid {pid}] ",
        pick(&DAYS, time.tm_wday),
        pick(&MONTHS, time.tm_mon),
        time.tm_mday,
        time.tm_hour,
        time.tm_min,
        time.tm_sec,
        time.tm_year + 1900,
        name(level),
    );
    if let Some(code) = code {
        let _ = write!(prefix, "{code}");
    }
    let mut line = prefix.into_bytes();
    escape(&text[..text.len().min(LONGEST)], &mut line);
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages::WORKER_DIED;

    #[test]
    fn lines_look_like_httpds() {
        let line = compose(4, 17, Some(WORKER_DIED), b"a\tb\x07\xc3\xa4");
        let line = String::from_utf8(line).unwrap();
        // [Fri Nov 20 15:44:37.123456 2026]
        assert_eq!(line.find(']'), Some(32), "{line}");
        assert!(line.ends_with("] [rwsgi:warn] [pid 17] RWSGI0407: a\tb\\x07ä\n"));
    }

    #[test]
    fn long_lines_are_cut_and_levels_respected() {
        assert!(compose(3, 1, None, &[b'x'; LONGEST * 2]).len() < LONGEST + 100);
        let log = Log::new(4, b"site");
        assert!(log.enabled(4) && !log.enabled(5));
    }
}
