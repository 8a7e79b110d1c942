//! Threads of ours, as httpd's modules see them.

use core::ptr::NonNull;

use crate::httpd::sys;

/// APR's idea of a thread that is not one of APR's. It lives as long as the process.
#[derive(Clone, Copy)]
pub struct Thread(NonNull<sys::apr_thread_t>);

impl Thread {
    /// The calling thread; to be called once by each. Modules may ask for its pool, which is its own.
    pub fn adopt() -> Option<Thread> {
        let mut pool = core::ptr::null_mut();
        let mut thread = core::ptr::null_mut();
        // SAFETY: a pool below the root of all, which may be made by any thread; what is put there is
        // copied.
        unsafe {
            let none = core::ptr::null_mut();
            if sys::apr_pool_create_ex(&mut pool, none, None, core::ptr::null_mut())
                != sys::APR_SUCCESS
            {
                return None;
            }
            let mut own = sys::apr_os_thread_current();
            sys::apr_os_thread_put(&mut thread, &mut own, pool);
        }
        NonNull::new(thread).map(Thread)
    }

    /// The pointer itself.
    pub fn as_ptr(self) -> *mut sys::apr_thread_t {
        self.0.as_ptr()
    }
}
