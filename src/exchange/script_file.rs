//! When a script file was last modified: the number by which both sides know its version.

#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;

/// When the file was last modified, microseconds since the epoch as APR counts them; `None` if the
/// calling process cannot tell. Asks the file system, so it may block.
pub fn modification_time(path: &[u8]) -> Option<i64> {
    let status = std::fs::metadata(OsStr::from_bytes(path)).ok()?;
    Some(status.mtime() * 1_000_000 + status.mtime_nsec() / 1000)
}
