//! What workers write to stdout and stderr: a pipe each, cut into lines.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;

use super::sys::{self, Got};

/// A longer line is cut into several.
const LONGEST: usize = 4 * 1024;
/// So many lines are remembered, to explain a death.
const REMEMBERED: usize = 24;

/// The read end of a process's stderr. It may live on after the process: children of the process
/// have it, too.
pub struct Output {
    fd: OwnedFd,
    rest: Vec<u8>,
    last: VecDeque<Vec<u8>>,
}

impl Output {
    /// Takes over a non-blocking read end.
    pub fn new(fd: OwnedFd) -> Output {
        Output {
            fd,
            rest: Vec::new(),
            last: VecDeque::new(),
        }
    }

    /// The descriptor, to wait for.
    pub fn fd(&self) -> &OwnedFd {
        &self.fd
    }

    /// Reads what there is, at most some 64 KiB, and hands on complete lines. Returns whether the
    /// end was reached.
    pub fn read(&mut self, mut line: impl FnMut(&[u8])) -> bool {
        let mut buffer = [0; LONGEST];
        for _ in 0..16 {
            match sys::read(&self.fd, &mut buffer) {
                Got::Nothing => return false,
                Got::Bytes(count) => self.take(&buffer[..count], &mut line),
                Got::End => {
                    self.flush(&mut line);
                    return true;
                }
            }
        }
        false
    }

    fn take(&mut self, mut data: &[u8], line: &mut impl FnMut(&[u8])) {
        while let Some(at) = data.iter().position(|&byte| byte == b'\n') {
            self.rest.extend_from_slice(&data[..at]);
            self.flush(line);
            data = &data[at + 1..];
        }
        self.rest.extend_from_slice(data);
        if self.rest.len() >= LONGEST {
            self.flush(line);
        }
    }

    /// Hands on a line that has no end yet.
    pub fn flush(&mut self, line: &mut impl FnMut(&[u8])) {
        let text = core::mem::take(&mut self.rest);
        if text.is_empty() {
            return;
        }
        line(&text);
        if self.last.len() == REMEMBERED {
            self.last.pop_front();
        }
        self.last.push_back(text);
    }

    /// The line that explains a death: Python's fatal error, else the last line.
    pub fn last_words(&self) -> Option<String> {
        let fatal = self
            .last
            .iter()
            .find(|line| line.starts_with(b"Fatal Python error"));
        let line = fatal.or_else(|| self.last.back())?;
        Some(String::from_utf8_lossy(line).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(output: &mut Output) -> (Vec<String>, bool) {
        let mut lines = Vec::new();
        let end = output.read(|line| lines.push(String::from_utf8_lossy(line).into_owned()));
        (lines, end)
    }

    #[test]
    fn lines_are_put_together() {
        let (read, write) = sys::pipe().unwrap();
        let mut output = Output::new(read);
        sys::write(&write, b"one\n\ntw").unwrap();
        assert_eq!(lines(&mut output), (vec!["one".to_owned()], false));
        sys::write(&write, b"o\nthree").unwrap();
        assert_eq!(lines(&mut output), (vec!["two".to_owned()], false));
        drop(write);
        assert_eq!(lines(&mut output), (vec!["three".to_owned()], true));
        assert_eq!(output.last_words().as_deref(), Some("three"));
    }

    #[test]
    fn fatal_errors_come_first() {
        let (read, write) = sys::pipe().unwrap();
        let mut output = Output::new(read);
        sys::write(&write, b"a\nFatal Python error: Aborted\nThread 1\n").unwrap();
        lines(&mut output);
        assert_eq!(
            output.last_words().as_deref(),
            Some("Fatal Python error: Aborted")
        );
    }

    #[test]
    fn endless_lines_are_cut() {
        let (read, write) = sys::pipe().unwrap();
        let mut output = Output::new(read);
        sys::write(&write, &[b'x'; LONGEST * 2]).unwrap();
        let (lines, _) = lines(&mut output);
        assert_eq!(lines.len(), 2);
    }
}
