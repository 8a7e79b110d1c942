//! The ASGI server in a real interpreter, over real sockets, with the tests as httpd.

mod abuse;
mod bodies;
mod client;
mod endings;
mod failures;
mod lifespans;
mod scopes;
mod tasks;
mod websockets;
