//! The worker: Python serving requests from the wire.
