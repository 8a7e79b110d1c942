//! Order among the threads of an interpreter where there is no GIL.
//!
//! Everything in this crate that touches what the threads of an interpreter share (scripts, the
//! objects that a request hands out, the requests that run) was written for threads that take turns:
//! another one may come between only where a thread detaches or calls Python. A build without the
//! GIL gets the same by a critical section (PEP 703) on an object of the interpreter: it is entered
//! with every attach and in every function that Python calls, and left while application code runs
//! ([`outside`]). CPython suspends it by itself wherever the thread waits, so it cannot deadlock: to
//! forget [`outside`] costs concurrency, never correctness.
//!
//! Where there is a GIL, nothing of this costs anything.

#[cfg(not(Py_GIL_DISABLED))]
mod with_gil {
    use crate::python::attach::Attached;

    /// A critical section that lasts while this lives.
    pub struct Section;

    impl Section {
        /// Enters it.
        #[inline(always)]
        pub fn enter(_: Attached) -> Self {
            Section
        }
    }

    /// Runs `work` within it.
    #[inline(always)]
    pub fn within<R>(_: Attached, work: impl FnOnce() -> R) -> R {
        work()
    }

    /// Runs `work`, which calls application code, outside of it.
    #[inline(always)]
    pub fn outside<R>(_: Attached, work: impl FnOnce() -> R) -> R {
        work()
    }

    /// The calling thread attaches to another interpreter by hand while this lives.
    pub struct Aside;

    impl Aside {
        /// Forgets the section of this thread for a while.
        #[inline(always)]
        pub fn set() -> Self {
            Aside
        }
    }
}

#[cfg(Py_GIL_DISABLED)]
mod without_gil {
    use core::cell::Cell;
    use core::mem::MaybeUninit;

    use pyo3::ffi;

    use crate::python::attach::Attached;

    thread_local! {
        /// The innermost section of this thread that is entered; null outside.
        static CURRENT: Cell<*mut ffi::PyCriticalSection> =
            const { Cell::new(core::ptr::null_mut()) };
    }

    /// A section at a place that does not move.
    struct Entered {
        section: *mut ffi::PyCriticalSection,
        outer: *mut ffi::PyCriticalSection,
    }

    impl Entered {
        /// # Safety
        /// `section` is valid, and does not move, until the result is dropped: attached, and after
        /// all that were entered later.
        unsafe fn new(py: Attached, section: *mut ffi::PyCriticalSection) -> Self {
            begin(py, section);
            Entered {
                section,
                outer: CURRENT.replace(section),
            }
        }
    }

    impl Drop for Entered {
        fn drop(&mut self) {
            CURRENT.set(self.outer);
            // SAFETY: entered by `new`, and the innermost now.
            unsafe { ffi::PyCriticalSection_End(self.section) }
        }
    }

    fn begin(py: Attached, section: *mut ffi::PyCriticalSection) {
        let lock = py.interpreter().lock();
        // SAFETY: attached; a valid place, by the contract of `Entered::new`; a live object.
        unsafe { ffi::PyCriticalSection_Begin(section, lock.as_ptr()) }
    }

    /// A critical section that lasts while this lives.
    pub struct Section {
        // Dropped first: the place must outlast it.
        _entered: Entered,
        _place: Box<MaybeUninit<ffi::PyCriticalSection>>,
    }

    impl Section {
        /// Enters it.
        pub fn enter(py: Attached) -> Self {
            let mut place = Box::new(MaybeUninit::uninit());
            Section {
                // SAFETY: a box does not move its content, and outlasts the field before it.
                _entered: unsafe { Entered::new(py, place.as_mut_ptr()) },
                _place: place,
            }
        }
    }

    /// Runs `work` within it.
    pub fn within<R>(py: Attached, work: impl FnOnce() -> R) -> R {
        let mut place = MaybeUninit::uninit();
        // SAFETY: the place is on the stack below, and outlasts what is declared after it.
        let _entered = unsafe { Entered::new(py, place.as_mut_ptr()) };
        work()
    }

    /// Runs `work`, which calls application code, outside of it.
    pub fn outside<R>(py: Attached, work: impl FnOnce() -> R) -> R {
        struct Again(Attached, *mut ffi::PyCriticalSection);
        impl Drop for Again {
            fn drop(&mut self) {
                begin(self.0, self.1);
                CURRENT.set(self.1);
            }
        }
        let section = CURRENT.replace(core::ptr::null_mut());
        if section.is_null() {
            return work();
        }
        // SAFETY: the innermost section of this thread; entered again before its owner leaves it.
        unsafe { ffi::PyCriticalSection_End(section) };
        let _again = Again(py, section);
        work()
    }

    /// The calling thread attaches to another interpreter by hand while this lives.
    pub struct Aside(*mut ffi::PyCriticalSection);

    impl Aside {
        /// Forgets the section of this thread for a while: it belongs to a thread state that is
        /// not attached, and is suspended.
        pub fn set() -> Self {
            Aside(CURRENT.replace(core::ptr::null_mut()))
        }
    }

    impl Drop for Aside {
        fn drop(&mut self) {
            CURRENT.set(self.0);
        }
    }
}

#[cfg(not(Py_GIL_DISABLED))]
pub use with_gil::{Aside, Section, outside, within};
#[cfg(Py_GIL_DISABLED)]
pub use without_gil::{Aside, Section, outside, within};
