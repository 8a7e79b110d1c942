//! What an end user who reads slowly has not taken yet.

#![forbid(unsafe_code)]

use core::ops::Range;
use std::collections::VecDeque;
use std::fs::File;

/// Memory blocks that are kept for the rest of the response once they are free.
const SPARE: usize = 4;

/// A part of a response, in order.
#[derive(Debug)]
pub enum Part {
    /// Pieces of a receive buffer.
    Memory {
        /// The buffer.
        memory: Vec<u8>,
        /// Where the body bytes are in it.
        pieces: Vec<Range<usize>>,
    },
    /// A range of a file.
    File {
        /// The file.
        file: File,
        /// Where the range begins.
        offset: u64,
        /// How long it is.
        length: u64,
    },
}

/// Parts of a response that wait for the end user.
#[derive(Debug, Default)]
pub struct Backlog {
    parts: VecDeque<Part>,
    held: usize,
    spare: Vec<Vec<u8>>,
}

impl Backlog {
    /// Whether nothing waits.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Bytes of memory that are held, used or not.
    pub fn held(&self) -> usize {
        self.held
    }

    /// Adds a part at the end.
    pub fn push(&mut self, part: Part) {
        if let Part::Memory { memory, .. } = &part {
            self.held += memory.capacity();
        }
        self.parts.push_back(part);
    }

    /// Takes the first part.
    pub fn pop(&mut self) -> Option<Part> {
        let part = self.parts.pop_front();
        if let Some(Part::Memory { memory, .. }) = &part {
            self.held -= memory.capacity();
        }
        part
    }

    /// Memory of at least `room` bytes, used before if there is any.
    pub fn memory(&mut self, room: usize) -> Vec<u8> {
        match self.spare.pop() {
            Some(memory) if memory.capacity() >= room => memory,
            _ => Vec::with_capacity(room),
        }
    }

    /// Gives back the memory of a part that is done with.
    pub fn recycle(&mut self, part: Part) {
        if let Part::Memory { memory, .. } = part
            && self.spare.len() < SPARE
        {
            self.spare.push(memory);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(capacity: usize) -> Part {
        Part::Memory {
            memory: Vec::with_capacity(capacity),
            pieces: Vec::new(),
        }
    }

    #[test]
    fn counts_what_it_holds() {
        let mut backlog = Backlog::default();
        backlog.push(part(100));
        backlog.push(part(50));
        assert!(backlog.held() >= 150);
        let first = backlog.pop().unwrap();
        assert!((50..100).contains(&backlog.held()));
        backlog.recycle(first);
        assert!(backlog.memory(60).capacity() >= 100);
        assert!(backlog.memory(60).capacity() >= 60);
        backlog.pop();
        assert_eq!((backlog.held(), backlog.is_empty()), (0, true));
    }
}
