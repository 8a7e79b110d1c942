//! The page in which a worker shows what it is doing: shared memory between it and its supervisor.
//!
//! The worker writes, the supervisor reads and trusts nothing of it: all fields are atomic, texts
//! are bounded, and a value that makes no sense only spoils a log line. Times are milliseconds of
//! `CLOCK_MONOTONIC`, 0 for "never".

use core::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::io;

/// Bytes of a request's description, longer ones are cut.
pub const TEXT: usize = 240;

/// What concerns the whole worker.
#[repr(C)]
pub struct Summary {
    /// Requests that have been started.
    pub started: AtomicU64,
    /// Threads that serve a request.
    pub busy: AtomicU32,
    /// Scripts that have been loaded.
    pub loaded: AtomicU32,
    /// When a thread last had the GIL just to show that it can be had.
    pub pulse_ms: AtomicU64,
    /// When something last happened that counts as activity.
    pub activity_ms: AtomicU64,
    /// When the first request began.
    pub first_request_ms: AtomicU64,
}

/// What one thread does.
#[repr(C)]
pub struct Row {
    /// Counts requests: even while the thread is free, odd while it serves one.
    pub number: AtomicU32,
    /// Bytes of `text`.
    length: AtomicU32,
    /// When the request began.
    pub since_ms: AtomicU64,
    text: [AtomicU8; TEXT],
}

/// A request as the supervisor sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Running {
    /// The row's index.
    pub row: u16,
    /// The row's number, to tell whether it is still the same request.
    pub number: u32,
    /// When it began.
    pub since_ms: u64,
    /// Method, path and log id; control characters are escaped when logged.
    pub text: Vec<u8>,
}

/// A mapped board.
pub struct Board {
    start: *mut u8,
    rows: u16,
}

// SAFETY: only atomics are accessed through the pointer.
unsafe impl Send for Board {}
// SAFETY: as above.
unsafe impl Sync for Board {}

/// `CLOCK_MONOTONIC`, milliseconds, exact to a tick of the kernel; never 0.
pub fn now_ms() -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: writes the time; the clock always exists.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC_COARSE, &mut time) };
    (time.tv_sec as u64 * 1000 + time.tv_nsec as u64 / 1_000_000).max(1)
}

impl Board {
    fn size(rows: u16) -> usize {
        size_of::<Summary>() + usize::from(rows) * size_of::<Row>()
    }

    /// Makes a memfd of the right size (close-on-exec) and maps it.
    ///
    /// # Errors
    /// The system's.
    pub fn create(rows: u16) -> io::Result<(Board, std::os::fd::OwnedFd)> {
        use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
        // SAFETY: a C string; a new descriptor is owned by nobody else.
        let fd = unsafe {
            let fd = libc::memfd_create(c"rwsgi-board".as_ptr(), libc::MFD_CLOEXEC);
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            OwnedFd::from_raw_fd(fd)
        };
        // SAFETY: our own descriptor.
        if unsafe { libc::ftruncate(fd.as_raw_fd(), Board::size(rows) as libc::off_t) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok((Board::map(fd.as_raw_fd(), rows)?, fd))
    }

    /// Maps the board behind `fd`, which may be closed afterwards.
    ///
    /// # Errors
    /// The system's; also if the file is too small for `rows`.
    pub fn map(fd: i32, rows: u16) -> io::Result<Board> {
        // SAFETY: plain data is filled; a shared mapping of a file that is large enough, checked.
        unsafe {
            let mut status: libc::stat = core::mem::zeroed();
            if libc::fstat(fd, &mut status) != 0 {
                return Err(io::Error::last_os_error());
            }
            if (status.st_size as usize) < Board::size(rows) {
                return Err(io::Error::from(io::ErrorKind::InvalidData));
            }
            let start = libc::mmap(
                core::ptr::null_mut(),
                Board::size(rows),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                fd,
                0,
            );
            if start == libc::MAP_FAILED {
                return Err(io::Error::last_os_error());
            }
            Ok(Board {
                start: start.cast(),
                rows,
            })
        }
    }

    /// What concerns the whole worker.
    #[inline]
    pub fn summary(&self) -> &Summary {
        // SAFETY: the mapping begins with one, is page-aligned, and lives as long as `self`.
        unsafe { &*self.start.cast() }
    }

    /// The row of a thread; `None` if there is no such row.
    #[inline]
    pub fn row(&self, index: u16) -> Option<&Row> {
        if index >= self.rows {
            return None;
        }
        let offset = size_of::<Summary>() + usize::from(index) * size_of::<Row>();
        // SAFETY: within the mapping, checked; sizes are multiples of 8, the mapping is aligned.
        Some(unsafe { &*self.start.add(offset).cast() })
    }

    /// The requests that run.
    pub fn running(&self) -> Vec<Running> {
        (0..self.rows)
            .filter_map(|index| self.row(index)?.read(index))
            .collect()
    }
}

impl Drop for Board {
    fn drop(&mut self) {
        // SAFETY: our own mapping; nothing refers to it any more.
        unsafe { libc::munmap(self.start.cast(), Board::size(self.rows)) };
    }
}

impl Row {
    /// The thread begins with a request. Only that thread calls this.
    #[inline]
    pub fn begin(&self, now_ms: u64, parts: [&[u8]; 5]) {
        let mut length = 0;
        for part in parts {
            let count = part.len().min(TEXT - length);
            // SAFETY: within the text, of which this thread is the only writer and which no other
            // thread of this process reads. The supervisor may read it half written.
            unsafe {
                let place = self.text.as_ptr().add(length).cast_mut().cast::<u8>();
                place.copy_from_nonoverlapping(part.as_ptr(), count);
            }
            length += count;
        }
        self.length.store(length as u32, Ordering::Relaxed);
        self.since_ms.store(now_ms, Ordering::Relaxed);
        let number = self.number.load(Ordering::Relaxed) | 1;
        self.number.store(number, Ordering::Release);
    }

    /// The thread is free again. Only that thread calls this.
    #[inline]
    pub fn end(&self) {
        let number = self.number.load(Ordering::Relaxed) | 1;
        self.number.store(number.wrapping_add(1), Ordering::Release);
    }

    fn read(&self, row: u16) -> Option<Running> {
        let number = self.number.load(Ordering::Acquire);
        if number & 1 == 0 {
            return None;
        }
        let length = (self.length.load(Ordering::Relaxed) as usize).min(TEXT);
        let text = self.text[..length]
            .iter()
            .map(|byte| byte.load(Ordering::Relaxed))
            .collect();
        Some(Running {
            row,
            number,
            since_ms: self.since_ms.load(Ordering::Relaxed),
            text,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn what_one_side_writes_the_other_reads() {
        let (worker, fd) = Board::create(3).unwrap();
        let supervisor = Board::map(fd.as_raw_fd(), 3).unwrap();
        assert_eq!(supervisor.running(), []);
        worker
            .row(1)
            .unwrap()
            .begin(5, [b"GET", b" ", b"/a", b" ", b"id"]);
        worker.summary().busy.fetch_add(1, Ordering::Relaxed);
        let running = supervisor.running();
        assert_eq!(running.len(), 1);
        assert_eq!((running[0].row, running[0].since_ms), (1, 5));
        assert_eq!(running[0].text, b"GET /a id");
        worker.row(1).unwrap().end();
        assert_eq!(supervisor.running(), []);
        worker
            .row(1)
            .unwrap()
            .begin(6, [&[b'x'; 500], b"", b"", b"", b""]);
        let again = supervisor.running();
        assert_eq!(again[0].text.len(), TEXT);
        assert_ne!(again[0].number, running[0].number);
        assert!(worker.row(3).is_none());
    }

    #[test]
    fn a_board_that_is_too_small_is_refused() {
        let (_board, fd) = Board::create(1).unwrap();
        assert!(Board::map(fd.as_raw_fd(), 2).is_err());
    }
}
