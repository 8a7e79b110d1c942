//! Scripts that are loaded before a worker is ready.

use std::os::unix::ffi::OsStrExt;

use super::channel::Channel;
use crate::daemon::control::{FromWorker, Script};
use crate::exchange::{Level, script_file};
use crate::messages::{self, Code};
use crate::python::attach;
use crate::python::exceptions;
use crate::python::raise::Raised;
use crate::python::runtime::Runtime;
use crate::python::script;

/// Why a script is not there.
pub enum Failure {
    /// Lines that say why, the traceback among them.
    Raised(Vec<Vec<u8>>),
    /// `SystemExit` was raised; the lines as well.
    Exit(Vec<Vec<u8>>),
}

impl Failure {
    /// The lines.
    pub fn lines(&self) -> &[Vec<u8>] {
        let (Failure::Raised(lines) | Failure::Exit(lines)) = self;
        lines
    }
}

/// How the message about a script of WSGIImportScript begins.
pub const CODE: Option<Code> = Some(messages::IMPORT_FAILED);
/// How it goes on.
pub const WHAT: &str = "an imported script could not be loaded";

/// Loads a script in the interpreter of its application group. The calling thread is not attached.
/// The lines about a failure begin with `code`, if there is one, and `what`.
///
/// # Errors
/// Why it cannot be had; nothing has been logged.
pub fn load(
    runtime: &Runtime,
    script: &Script,
    code: Option<Code>,
    what: &str,
) -> Result<(), Failure> {
    let Ok(interpreter) = runtime.interpreter(&script.application_group) else {
        return Err(Failure::Raised(vec![
            b"there is no interpreter for the application group".to_vec(),
        ]));
    };
    let mtime_us = script_file::modification_time(&script.path).unwrap_or(0);
    let guard = attach::attach(interpreter);
    let py = guard.token();
    let module = script::script(py, &script.path);
    module.preload(py, mtime_us).map_err(|raised: Raised| {
        let exception = raised.take(py);
        let lines = exceptions::lines(py, code, what, &script.path, &exception);
        if exceptions::is_system_exit(py, &exception) {
            Failure::Exit(lines)
        } else {
            Failure::Raised(lines)
        }
    })
}

/// The scripts of a configuration.
pub struct Listed {
    /// Those of `import=`: one that fails is logged, and the others are loaded all the same.
    pub imports: Vec<Script>,
    /// Those of `require=`.
    pub required: Vec<Script>,
}

/// Whether there is no such file any more: nobody can ask for it, so it must not keep a worker from
/// being replaced for ever.
fn is_deleted(script: &Script) -> bool {
    let path = std::path::Path::new(std::ffi::OsStr::from_bytes(&script.path));
    path.symlink_metadata()
        .is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
}

/// Loads everything that has to be there before the first request.
///
/// # Errors
/// What the supervisor is to be told about the first required script that fails.
pub fn load_listed(
    runtime: &Runtime,
    channel: &Channel,
    scripts: &Listed,
) -> Result<(), FromWorker> {
    for script in &scripts.imports {
        if let Err(failure) = load(runtime, script, CODE, WHAT) {
            for line in failure.lines() {
                channel.log(Level::Error, line);
            }
        }
    }
    for script in &scripts.required {
        if is_deleted(script) {
            let path = String::from_utf8_lossy(&script.path);
            let line = format!("script '{path}' has been deleted and is not loaded any more");
            channel.log(Level::Info, line.as_bytes());
            continue;
        }
        // The supervisor's message, which this follows, has a code.
        let what = "the changed script could not be loaded";
        if let Err(failure) = load(runtime, script, None, what) {
            return Err(FromWorker::Failed {
                script: Some(script.clone()),
                text: failure.lines().join(&b"\n"[..]),
            });
        }
    }
    Ok(())
}
