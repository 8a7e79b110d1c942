//! Memory that is lent to a server until its next `send`.

#![forbid(unsafe_code)]

/// A raw view of bytes whose owner promises to keep them until the next `send` or `abort`.
///
/// Making one is safe; only an [`Exchange`](super::Exchange) reads through it, and each
/// implementation says why that is sound.
#[derive(Clone, Copy, Debug)]
pub struct Borrowed {
    pointer: *const u8,
    length: usize,
}

impl Borrowed {
    /// Lends `data`. The caller promises that it stays valid and unchanged until the next
    /// `send` or `abort` on the same exchange has returned.
    pub fn new(data: &[u8]) -> Self {
        Borrowed {
            pointer: data.as_ptr(),
            length: data.len(),
        }
    }

    /// Where the bytes begin.
    pub fn as_ptr(self) -> *const u8 {
        self.pointer
    }

    /// How many bytes there are.
    pub fn len(self) -> usize {
        self.length
    }

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.length == 0
    }
}
