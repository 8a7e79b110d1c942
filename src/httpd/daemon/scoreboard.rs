//! httpd's scoreboard for process groups with `server-metrics=On`: their workers have none, so
//! httpd's processes write down what theirs says.
//!
//! The page is made once, by httpd's parent, which all of them have it from: how large a scoreboard
//! can be is fixed while httpd runs.

use std::os::fd::OwnedFd;
use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::httpd::apache::scoreboard;
use crate::metrics::page::Page;
use crate::metrics::scoreboard::largest;

/// Bytes; a scoreboard that needs more is not passed on.
const LARGEST: usize = 64 * 1024 * 1024;

static PAGE: OnceLock<(Page, OwnedFd)> = OnceLock::new();

/// A descriptor by which the page can be read. To be called in httpd's parent.
///
/// # Errors
/// The system's.
pub fn descriptor() -> std::io::Result<OwnedFd> {
    if PAGE.get().is_none() {
        let (processes, threads) = scoreboard::limits();
        let page = Page::create(largest(processes, threads).min(LARGEST))?;
        let _ = PAGE.set(page);
    }
    match PAGE.get() {
        Some((_, fd)) => fd.try_clone(),
        None => Err(std::io::ErrorKind::Other.into()),
    }
}

/// Writes the page if it is too old; does nothing where nobody wants it. May be called in any
/// process of httpd, by any thread.
#[cold]
pub fn refresh() {
    let Some((page, _)) = PAGE.get() else {
        return;
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now_us = now.map_or(0, |now| i64::try_from(now.as_micros()).unwrap_or(0));
    if page.is_due(now_us)
        && let Some(scoreboard) = scoreboard::read()
    {
        page.write(&scoreboard.encode());
    }
}
