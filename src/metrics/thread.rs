//! A small number of its own for every thread that serves requests: `mod_wsgi.thread_id`.
//!
//! The number of a thread that has ended is given to the next one, so that numbers stay below the
//! count of threads that ever ran at the same time (mod_http2's come and go).

#![forbid(unsafe_code)]

use core::cell::Cell;
use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

struct Numbers {
    /// The highest that has been given.
    last: u32,
    /// Given and given back.
    free: BTreeSet<u32>,
}

static NUMBERS: Mutex<Numbers> = Mutex::new(Numbers {
    last: 0,
    free: BTreeSet::new(),
});

/// Gives the number back when its thread ends.
struct Lent(u32);

impl Drop for Lent {
    fn drop(&mut self) {
        let mut numbers = NUMBERS.lock().unwrap_or_else(PoisonError::into_inner);
        numbers.free.insert(self.0);
    }
}

thread_local! {
    /// Apart from what has a destructor, which makes an access dearer.
    static NUMBER: Cell<u32> = const { Cell::new(0) };
    static LENT: Cell<Option<Lent>> = const { Cell::new(None) };
}

/// The number of the calling thread, from 1.
#[inline]
pub fn number() -> u32 {
    match NUMBER.get() {
        0 => take(),
        number => number,
    }
}

#[cold]
fn take() -> u32 {
    let number = {
        let mut numbers = NUMBERS.lock().unwrap_or_else(PoisonError::into_inner);
        match numbers.free.pop_first() {
            Some(number) => number,
            None => {
                numbers.last += 1;
                numbers.last
            }
        }
    };
    NUMBER.set(number);
    LENT.set(Some(Lent(number)));
    number
}

#[cfg(test)]
mod tests {
    use super::number;

    #[test]
    fn a_thread_keeps_its_number_and_leaves_it_to_another() {
        let first = std::thread::spawn(|| (number(), number())).join().unwrap();
        assert_eq!(first.0, first.1);
        assert!(first.0 > 0);
        let (ready, wait) = (std::sync::Barrier::new(3), std::sync::Barrier::new(3));
        std::thread::scope(|scope| {
            let same_time = || {
                ready.wait();
                let mine = number();
                wait.wait();
                mine
            };
            let threads = [(); 3].map(|()| scope.spawn(same_time));
            let mut numbers = threads.map(|thread| thread.join().unwrap());
            numbers.sort_unstable();
            assert!(numbers[0] < numbers[1] && numbers[1] < numbers[2]);
        });
    }
}
