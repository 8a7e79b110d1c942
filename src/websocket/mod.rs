//! The server's side of the WebSocket protocol (RFC 6455) with permessage-deflate (RFC 7692).
//!
//! Nothing in here does I/O or knows Python: bytes of the client go in, events and bytes for the
//! client come out. [`handshake`] reads a request and says what to answer; a [`Connection`] is what
//! follows the 101.
//!
//! An idle connection is a [`Connection`] of less than 256 bytes and nothing else. A message takes
//! memory as its bytes arrive, and gives it away with the event. No connection has a compressor of
//! its own: compression is negotiated without context takeover, so that one pair per thread serves
//! all.

#![forbid(unsafe_code)]

mod close;
mod connection;
mod deflate;
mod extension;
pub mod handshake;
mod mask;
#[cfg(test)]
mod tests;

pub use close::is_close_code;
pub use connection::{Connection, Event, Limits};
pub use extension::Deflate;
