//! Thin typed wrappers around httpd's structures.
//!
//! A wrapper is a copyable handle that is as large as a pointer. It is made, by an `unsafe`
//! constructor, only where httpd hands a structure over, and its lifetime is the promise given
//! there: for as long as the callback runs. Strings that its methods return lie in pools of the
//! request, the connection or the configuration, all of which outlive the callback.

pub mod array;
pub mod brigade;
pub mod command;
pub mod connection;
pub mod file;
pub mod log_id;
pub mod modules;
pub mod mpm;
pub mod pool;
pub mod request;
pub mod scoreboard;
pub mod server;
pub mod stream;
pub mod suspended;
pub mod table;
pub mod text;
pub mod thread;

pub use array::Array;
pub use brigade::Brigade;
pub use connection::Connection;
pub use file::File;
pub use pool::{Pool, PoolRef, PoolStr};
pub use request::Request;
pub use server::Server;
pub use table::Table;
