//! The ASGI server: ASGI 3.0 over the wire of daemon mode, in a worker and in an httpd child alike.
//!
//! One thread per application group runs an event loop (asyncio's, or uvloop's). It owns the
//! connections to httpd that carry ASGI requests: a descriptor of an epoll set is all that the loop
//! watches, and one callback serves whatever is ready in it. No other thread touches Python for a
//! request.
//!
//! | file | what |
//! |---|---|
//! | [`event_loop`] | the thread, its epoll set, what other threads may ask of it |
//! | [`loops`] | the loops of the process: found, made, ended |
//! | [`house`] | what the process around a loop decides: limits, timeouts, what becomes of refused requests |
//! | [`link`](mod@link) | one connection: bytes in, bytes out |
//! | [`arrival`] | a REQUEST frame on its way to the application |
//! | [`application`] | the callable of a script, and its lifespan |
//! | [`scope`] | the connection scope |
//! | [`http`] | `receive` and `send` of an HTTP request |
//! | [`websocket`] | the same of a WebSocket |
//! | [`message`] | the messages that an application sends |
//! | [`awaitable`] | the Python objects `receive`, `send`, and what they return |
//! | [`coroutine`] | coroutines of our own, and how others are driven |
//! | [`task`] | the task that runs the application |
//! | [`log`](mod@log) | which request a line of the log belongs to |
//!
//! # Threads
//!
//! Everything but what [`event_loop`] says of its inbox is touched by the loop's thread only, while
//! it is attached. Python objects that applications keep may be freed by any thread, so what they
//! hold is counted atomically and has let go of everything that belongs to the loop by then.

pub mod application;
pub mod arrival;
pub mod awaitable;
pub mod coroutine;
pub mod event_loop;
pub mod house;
pub mod http;
pub mod link;
pub mod log;
pub mod loops;
pub mod message;
pub mod scope;
pub mod state;
pub mod task;
pub mod websocket;

pub use state::State;

#[cfg(test)]
mod tests;
