//! Threads that run Python code.

/// The stack that `pthread_create` would take, in bytes: Rust's own default is smaller, and Python
/// recurses deeply.
pub fn default_stack_size() -> usize {
    const USUAL: usize = 8 * 1024 * 1024;
    // SAFETY: plain data, filled by the call.
    unsafe {
        let mut limit: libc::rlimit = core::mem::zeroed();
        if libc::getrlimit(libc::RLIMIT_STACK, &mut limit) != 0
            || limit.rlim_cur == libc::RLIM_INFINITY
        {
            return USUAL;
        }
        usize::try_from(limit.rlim_cur)
            .unwrap_or(USUAL)
            .max(512 * 1024)
    }
}
