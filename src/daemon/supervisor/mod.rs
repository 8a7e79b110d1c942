//! The supervisor of one process group.
