//! `rwsgi-daemon`: the supervisor of one process group.

fn main() {}
