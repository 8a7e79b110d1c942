//! The page that passes httpd's scoreboard to the workers of process groups: shared memory that
//! httpd's processes write and workers read.
//!
//! httpd's parent makes it, its children have it by fork, workers map a descriptor that cannot be
//! written to. Whoever finds that it is old may write it ([`Page::is_due`]); as that is decided at
//! most once a second, two writers at the same time are unlikely, and a reader that finds a checksum
//! wrong tries again. httpd believes nothing of it but the time when it is due.

use core::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// How old it may become, microseconds.
const AGE_US: i64 = 1_000_000;

/// How often a reader tries.
const ATTEMPTS: u32 = 5;

/// Its first words: when it is due to be written, microseconds of the epoch; the length of what
/// follows, and its checksum.
const HEADER: usize = 3;

/// A mapped page.
pub struct Page {
    words: *const AtomicU64,
    count: usize,
}

// SAFETY: only atomics are accessed through the pointer.
unsafe impl Send for Page {}
// SAFETY: as above.
unsafe impl Sync for Page {}

fn checksum(length: u64, words: impl Iterator<Item = u64>) -> u64 {
    // FNV-1a, word by word.
    words.fold(0xcbf2_9ce4_8422_2325 ^ length, |hash, word| {
        (hash ^ word).wrapping_mul(0x0100_0000_01b3).rotate_left(23)
    })
}

impl Page {
    /// Makes a page for up to `room` bytes, and a descriptor (close-on-exec) by which it can be
    /// read but not written.
    ///
    /// # Errors
    /// The system's.
    pub fn create(room: usize) -> io::Result<(Page, OwnedFd)> {
        let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
        // SAFETY: a C string; a new descriptor is owned by nobody else.
        let fd = unsafe {
            let fd = libc::memfd_create(c"rwsgi-scoreboard".as_ptr(), flags);
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            OwnedFd::from_raw_fd(fd)
        };
        let size = HEADER * 8 + room.next_multiple_of(8);
        // SAFETY: our own descriptor.
        if unsafe { libc::ftruncate(fd.as_raw_fd(), size as libc::off_t) } != 0 {
            return Err(io::Error::last_os_error());
        }
        let page = Page::map_as(fd.as_raw_fd(), libc::PROT_READ | libc::PROT_WRITE)?;
        let seals =
            libc::F_SEAL_SEAL | libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_FUTURE_WRITE;
        // SAFETY: our own descriptor. Mappings that there are stay writable.
        if unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_ADD_SEALS, seals) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok((page, fd))
    }

    /// Maps the page behind `fd`, to be read; `fd` may be closed afterwards.
    ///
    /// # Errors
    /// The system's.
    pub fn map(fd: i32) -> io::Result<Page> {
        Page::map_as(fd, libc::PROT_READ)
    }

    fn map_as(fd: i32, protection: i32) -> io::Result<Page> {
        // SAFETY: plain data is filled; a shared mapping of a file of that size, which is sealed
        // against shrinking before anybody else has it.
        unsafe {
            let mut status: libc::stat = core::mem::zeroed();
            if libc::fstat(fd, &mut status) != 0 {
                return Err(io::Error::last_os_error());
            }
            let size = status.st_size as usize;
            if size < HEADER * 8 {
                return Err(io::Error::from(io::ErrorKind::InvalidData));
            }
            let null = core::ptr::null_mut();
            let start = libc::mmap(null, size, protection, libc::MAP_SHARED, fd, 0);
            if start == libc::MAP_FAILED {
                return Err(io::Error::last_os_error());
            }
            Ok(Page {
                words: start.cast(),
                count: size / 8,
            })
        }
    }

    fn words(&self) -> &[AtomicU64] {
        // SAFETY: the mapping, page-aligned; it lives as long as `self`.
        unsafe { core::slice::from_raw_parts(self.words, self.count) }
    }

    fn due(&self) -> &AtomicI64 {
        // SAFETY: the first word of the mapping, of the same size and alignment.
        unsafe { &*self.words.cast::<AtomicI64>() }
    }

    /// Whether the caller shall write it: it is too old, and nobody else has been told to. `now_us`:
    /// microseconds since the epoch.
    #[inline]
    pub fn is_due(&self, now_us: i64) -> bool {
        let due = self.due().load(Ordering::Relaxed);
        // Also after the clock was set back.
        (now_us >= due || now_us < due - 2 * AGE_US) && self.claim(due, now_us)
    }

    #[cold]
    fn claim(&self, due: i64, now_us: i64) -> bool {
        let next = now_us + AGE_US;
        let relaxed = Ordering::Relaxed;
        let claimed = self.due().compare_exchange(due, next, relaxed, relaxed);
        claimed.is_ok()
    }

    /// Writes it. What has no room is not written.
    pub fn write(&self, bytes: &[u8]) {
        let words = self.words();
        if bytes.len() > (words.len() - HEADER) * 8 {
            return;
        }
        let length = bytes.len() as u64;
        let values = bytes.chunks(8).map(|chunk| {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            u64::from_le_bytes(word)
        });
        words[1].store(length, Ordering::Relaxed);
        words[2].store(checksum(length, values.clone()), Ordering::Relaxed);
        for (place, value) in words[HEADER..].iter().zip(values) {
            place.store(value, Ordering::Relaxed);
        }
    }

    /// Reads it; `None` if it has not been written, or not to its end.
    pub fn read(&self) -> Option<Vec<u8>> {
        for _ in 0..ATTEMPTS {
            if let Some(bytes) = self.try_read() {
                return Some(bytes);
            }
            std::thread::yield_now();
        }
        None
    }

    fn try_read(&self) -> Option<Vec<u8>> {
        let words = self.words();
        let length = words[1].load(Ordering::Relaxed);
        let expected = words[2].load(Ordering::Relaxed);
        let count = usize::try_from(length).ok()?.div_ceil(8);
        let values: Vec<u64> = words
            .get(HEADER..HEADER.checked_add(count)?)?
            .iter()
            .map(|word| word.load(Ordering::Relaxed))
            .collect();
        if count == 0 || checksum(length, values.iter().copied()) != expected {
            return None;
        }
        let mut bytes: Vec<u8> = values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect();
        bytes.truncate(length as usize);
        Some(bytes)
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // SAFETY: our own mapping; nothing refers to it any more.
        unsafe { libc::munmap(self.words.cast_mut().cast(), self.count * 8) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let (page, fd) = Page::create(100).unwrap();
        let reader = Page::map(fd.as_raw_fd()).unwrap();
        assert_eq!(reader.read(), None);
        for length in [1, 7, 8, 9, 100] {
            let bytes: Vec<u8> = (0..length).collect();
            page.write(&bytes);
            assert_eq!(reader.read(), Some(bytes));
        }
        page.write(&[1; 105]);
        assert_eq!(reader.read().unwrap().len(), 100);
    }

    #[test]
    fn a_torn_page_is_not_believed() {
        let (page, _fd) = Page::create(100).unwrap();
        page.write(&[7; 64]);
        page.words()[HEADER + 3].store(1, Ordering::Relaxed);
        assert_eq!(page.read(), None);
        page.words()[1].store(u64::MAX, Ordering::Relaxed);
        assert_eq!(page.read(), None);
    }

    #[test]
    fn one_of_many_is_told_to_write() {
        let (page, _fd) = Page::create(8).unwrap();
        assert!(page.is_due(5_000_000));
        assert!(!page.is_due(5_000_000));
        assert!(!page.is_due(5_999_999));
        assert!(page.is_due(6_000_000));
        assert!(page.is_due(1_000_000), "the clock was set back");
    }

    #[test]
    fn whoever_has_the_descriptor_cannot_write() {
        let (_page, fd) = Page::create(8).unwrap();
        let write = libc::PROT_READ | libc::PROT_WRITE;
        assert!(Page::map_as(fd.as_raw_fd(), write).is_err());
        let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
        if let Ok(again) = std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)
        {
            assert!(Page::map_as(again.as_raw_fd(), write).is_err());
            assert!(std::io::Write::write(&mut &again, b"x").is_err());
            assert!(again.set_len(0).is_err());
        }
    }
}
