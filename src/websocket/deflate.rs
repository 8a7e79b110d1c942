//! Compression of messages (RFC 7692, 7.2), with one compressor and one decompressor per thread.
//!
//! Neither keeps anything between messages, so that no connection has to own one: a compressor takes
//! a quarter of a megabyte.

use core::cell::RefCell;

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use super::close::Failure;

/// What every compressed message ends with, and no sender sends.
const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];

struct Compressor {
    window_bits: u8,
    state: Compress,
}

thread_local! {
    /// For the window that was wanted last. Clients hardly ever limit it.
    static COMPRESSOR: RefCell<Option<Compressor>> = const { RefCell::new(None) };
    /// With the largest window, which reads what any smaller one wrote.
    static DECOMPRESSOR: RefCell<Option<Decompress>> = const { RefCell::new(None) };
}

/// Appends `message` compressed. Says false, with `out` as it was, if that saves nothing.
pub(super) fn compress(message: &[u8], window_bits: u8, out: &mut Vec<u8>) -> bool {
    let start = out.len();
    // No access: the thread is ending.
    let smaller = COMPRESSOR.try_with(|place| {
        let mut place = place.borrow_mut();
        let state = match &mut *place {
            Some(compressor) if compressor.window_bits == window_bits => {
                compressor.state.reset();
                &mut compressor.state
            }
            _ => {
                let state = Compress::new_with_window_bits(LEVEL, false, window_bits);
                &mut place.insert(Compressor { window_bits, state }).state
            }
        };
        compress_with(state, message, out)
    });
    let smaller = smaller.unwrap_or(false);
    if !smaller {
        out.truncate(start);
    }
    smaller
}

/// Half the time of zlib's default for a ratio a few per cent worse. Level 1 takes half of that again,
/// but is a third larger.
const LEVEL: Compression = Compression::new(2);

fn compress_with(state: &mut Compress, message: &[u8], out: &mut Vec<u8>) -> bool {
    let start = out.len();
    let mut rest = message;
    loop {
        // Mostly enough for all of it. More than six bytes, lest the end be marked twice.
        out.reserve((rest.len() / 2).max(64));
        let before = state.total_in();
        let done = state.compress_vec(rest, out, FlushCompress::Sync);
        let Some(left) = rest.get((state.total_in() - before) as usize..) else {
            return false;
        };
        rest = left;
        if done.is_err() || out.len() - start >= message.len() + TAIL.len() {
            return false;
        }
        if rest.is_empty() && out.len() < out.capacity() {
            // It has said all it has to say.
            let ended = out[start..].ends_with(&TAIL);
            out.truncate(out.len() - TAIL.len());
            return ended;
        }
    }
}

/// The message that a client compressed, if it has no more than `largest` bytes.
///
/// `compressed` is the payload of its frames; the contents are of no use afterwards.
///
/// # Errors
/// It is too big, or does not inflate.
pub(super) fn inflate(mut compressed: Vec<u8>, largest: usize) -> Result<Vec<u8>, Failure> {
    compressed.extend_from_slice(&TAIL);
    DECOMPRESSOR
        .try_with(|place| {
            let mut place = place.borrow_mut();
            let state = place.get_or_insert_with(|| Decompress::new(false));
            state.reset(false);
            inflate_with(state, &compressed, largest)
        })
        // No access: the thread is ending.
        .unwrap_or(Err(DAMAGED))
}

const DAMAGED: Failure = Failure::data("compressed data is invalid");

fn inflate_with(
    state: &mut Decompress,
    compressed: &[u8],
    largest: usize,
) -> Result<Vec<u8>, Failure> {
    let mut message = Vec::new();
    let mut room = compressed.len().saturating_mul(4).max(256);
    let mut rest = compressed;
    loop {
        if message.len() == message.capacity() {
            // One byte more than is allowed shows that there is more.
            let more = room.min(largest.saturating_add(1) - message.len());
            message.reserve_exact(more);
            room = room.saturating_mul(2);
        }
        let before = (state.total_in(), message.len());
        let status = state
            .decompress_vec(rest, &mut message, FlushDecompress::Sync)
            .map_err(|_| DAMAGED)?;
        let taken = (state.total_in() - before.0) as usize;
        rest = rest.get(taken..).ok_or(DAMAGED)?;
        if message.len() > largest {
            return Err(Failure::TOO_BIG);
        }
        let full = message.len() == message.capacity();
        if status == Status::StreamEnd {
            // A final block is allowed, and more may follow (RFC 7692, 7.2.3.4).
            state.reset(false);
        } else if !full && !rest.is_empty() && taken == 0 && message.len() == before.1 {
            return Err(DAMAGED);
        }
        if rest.is_empty() && !full {
            if message.len() < message.capacity() / 2 {
                message.shrink_to_fit();
            }
            return Ok(message);
        }
    }
}
