//! CPython's own configuration, made from ours.

use core::ffi::{CStr, c_int};
use std::ffi::CString;

use pyo3::ffi;

use super::options::Options;
use crate::exchange::abi::HashSeed;

/// The interpreter that the gateway was built for: what Python takes itself for unless the
/// configuration names another home.
const EXECUTABLE: &str = env!("RWSGI_PYTHON_EXECUTABLE");

pub(super) fn initialise(options: &Options) -> Result<(), String> {
    // SAFETY: the configuration is initialised by CPython before use, freed on every path, and all
    // strings are C strings that CPython copies.
    unsafe {
        let mut config: ffi::PyConfig = core::mem::zeroed();
        ffi::PyConfig_InitPythonConfig(&mut config);
        let result =
            fill(&mut config, options).and_then(|()| check(ffi::Py_InitializeFromConfig(&config)));
        ffi::PyConfig_Clear(&mut config);
        result
    }
}

pub(super) fn check(status: ffi::PyStatus) -> Result<(), String> {
    // SAFETY: a status by value; its texts are static C strings or null.
    unsafe {
        if ffi::PyStatus_Exception(status) == 0 {
            return Ok(());
        }
        if status.err_msg.is_null() {
            return Err(format!("exit status {}", status.exitcode));
        }
        Err(CStr::from_ptr(status.err_msg)
            .to_string_lossy()
            .into_owned())
    }
}

fn fill(config: &mut ffi::PyConfig, options: &Options) -> Result<(), String> {
    config.parse_argv = 0;
    config.install_signal_handlers = 0;
    config.pathconfig_warnings = 0;
    #[cfg(Py_GIL_DISABLED)]
    {
        config.enable_gil = c_int::from(!options.is_free_threaded());
    }
    if options.optimize >= 0 {
        config.optimization_level = options.optimize as c_int;
    }
    if options.dont_write_bytecode {
        config.write_bytecode = 0;
    }
    match options.hash_seed {
        HashSeed::Unset => {}
        HashSeed::Random => config.use_hash_seed = 0,
        HashSeed::Fixed => {
            config.use_hash_seed = 1;
            config.hash_seed = options.hash_seed_value.into();
        }
    }
    let c_string = |text: &[u8]| CString::new(text).map_err(|_| "a NUL in a path".to_owned());
    let executable = match &options.program_name {
        Some(program) => c_string(program)?,
        None => c_string(EXECUTABLE.as_bytes())?,
    };
    let target = &raw mut *config;
    // SAFETY: the configuration is initialised; its fields take decoded copies.
    unsafe {
        check(ffi::PyConfig_SetBytesString(
            target,
            &raw mut (*target).program_name,
            executable.as_ptr(),
        ))?;
        if let Some(home) = &options.home {
            let home = c_string(home)?;
            check(ffi::PyConfig_SetBytesString(
                target,
                &raw mut (*target).home,
                home.as_ptr(),
            ))?;
        }
        for warning in &options.warnings {
            let warning = c_string(warning)?;
            let wide = ffi::Py_DecodeLocale(warning.as_ptr(), core::ptr::null_mut());
            if wide.is_null() {
                return Err("WSGIPythonWarnings cannot be decoded".to_owned());
            }
            let status = ffi::PyWideStringList_Append(&raw mut (*target).warnoptions, wide);
            ffi::PyMem_RawFree(wide.cast());
            check(status)?;
        }
    }
    Ok(())
}

/// The dispositions of all signals, to be put back after Python has imported `signal`.
pub(super) struct SavedSignals(Vec<(c_int, libc::sigaction)>);

impl SavedSignals {
    pub(super) fn new() -> Self {
        let mut saved = Vec::new();
        for signal in 1..32 {
            // SAFETY: plain data, filled by the call.
            unsafe {
                let mut action: libc::sigaction = core::mem::zeroed();
                if libc::sigaction(signal, core::ptr::null(), &mut action) == 0 {
                    saved.push((signal, action));
                }
            }
        }
        SavedSignals(saved)
    }

    pub(super) fn restore(&self) {
        for (signal, action) in &self.0 {
            // SAFETY: an action that was in force before.
            unsafe { libc::sigaction(*signal, action, core::ptr::null_mut()) };
        }
    }
}
