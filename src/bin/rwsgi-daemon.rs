//! `rwsgi-daemon`: the supervisor of one process group.

use std::ffi::OsString;

fn main() {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    std::process::exit(rwsgi::daemon::supervisor::main(&arguments));
}
