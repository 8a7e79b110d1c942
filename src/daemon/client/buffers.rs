//! Memory that each thread keeps from request to request.

#![forbid(unsafe_code)]

use core::cell::Cell;
use core::ops::Range;
use std::os::fd::OwnedFd;

use super::frames::{Incoming, ROOM};
use crate::daemon::wire::HEADER;

/// What one request needs. A request that runs inside another on the same thread (a subrequest of
/// a filter) gets one of its own.
#[derive(Default)]
pub struct Buffers {
    /// The REQUEST frame.
    pub request: Vec<u8>,
    /// The inline body, later the BODY frames; see [`room_for_body`].
    pub upload: Vec<u8>,
    /// What the worker sends.
    pub incoming: Incoming,
    /// Body bytes in `incoming` that have not been handed on.
    pub pieces: Vec<Range<usize>>,
    /// Descriptors that came along and wait for their frames.
    pub descriptors: Vec<OwnedFd>,
}

/// Body bytes in one BODY frame.
pub const UPLOAD: usize = 64 * 1024;

/// Room for a BODY frame in [`Buffers::upload`]. Its content is of no meaning.
#[inline]
pub fn room_for_body(upload: &mut Vec<u8>) -> &mut [u8] {
    // Zeroed once in the life of a thread.
    upload.resize(HEADER + UPLOAD, 0);
    upload
}

thread_local! {
    static KEPT: Cell<Option<Box<Buffers>>> = const { Cell::new(None) };
}

impl Buffers {
    /// Lets go of what a rare large request needed.
    fn trim(&mut self) {
        self.request.clear();
        self.request.shrink_to(ROOM);
        self.incoming.reset();
        self.incoming.memory().shrink_to(ROOM);
        self.pieces.clear();
        self.descriptors.clear();
    }
}

/// Puts the buffers back, also when a panic passes.
struct Guard(Option<Box<Buffers>>);

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(mut buffers) = self.0.take() {
            buffers.trim();
            KEPT.set(Some(buffers));
        }
    }
}

/// Calls `serve` with the thread's buffers, empty.
#[inline]
pub fn with<T>(serve: impl FnOnce(&mut Buffers) -> T) -> T {
    let mut guard = Guard(Some(KEPT.take().unwrap_or_default()));
    match &mut guard.0 {
        Some(buffers) => serve(buffers),
        None => unreachable!("the guard is made with buffers"),
    }
}
