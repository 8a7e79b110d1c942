//! Thread states, and the proof that a thread may touch an interpreter's objects.
//!
//! One `PyThreadState` per (OS thread, interpreter), made on first use and kept in thread-local
//! storage until the thread ends, so that `threading.local` and context variables survive between
//! requests. Attaching is `PyEval_RestoreThread`, never `PyGILState_Ensure`, which cannot name an
//! interpreter.

use core::cell::{Cell, RefCell};
use core::marker::PhantomData;
use core::mem::ManuallyDrop;
use core::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

use pyo3::ffi;

use super::interpreter::Interpreter;
use super::order;
use crate::exchange::MayBlock;
use crate::metrics::observation;

/// Proof that the calling thread is attached to `interpreter`. Cannot leave the thread.
#[derive(Clone, Copy)]
pub struct Attached {
    interpreter: &'static Interpreter,
    thread_bound: PhantomData<*mut ()>,
}

impl Attached {
    /// States what the caller knows: Python itself has called it on a thread that is attached.
    ///
    /// # Safety
    /// The calling thread is attached to `interpreter` for as long as the token is used.
    pub unsafe fn assume(interpreter: &'static Interpreter) -> Attached {
        Attached {
            interpreter,
            thread_bound: PhantomData,
        }
    }

    /// The interpreter.
    pub fn interpreter(self) -> &'static Interpreter {
        self.interpreter
    }

    /// Runs `work` without the GIL and attaches again, also when `work` panics. `work` must not
    /// touch Python objects other than the memory of immutable ones that the caller keeps alive.
    pub fn detached<R>(self, work: impl FnOnce(&MayBlock) -> R) -> R {
        struct Reattach(*mut ffi::PyThreadState);
        impl Drop for Reattach {
            fn drop(&mut self) {
                // SAFETY: the state that PyEval_SaveThread gave to this thread.
                let restore = || unsafe { ffi::PyEval_RestoreThread(self.0) };
                if observation::is_wanted() {
                    observation::waits_for_gil(restore);
                } else {
                    restore();
                }
            }
        }
        // SAFETY: attached by `self`.
        let _reattach = Reattach(unsafe { ffi::PyEval_SaveThread() });
        work(&MayBlock::detached())
    }
}

/// Attached while it lives.
pub struct AttachGuard {
    token: Attached,
    section: ManuallyDrop<order::Section>,
}

impl AttachGuard {
    /// The token.
    pub fn token(&self) -> Attached {
        self.token
    }

    /// Keeps the thread attached for ever: no other thread can run Python code any more.
    pub fn keep(self) {
        core::mem::forget(self);
    }
}

impl Drop for AttachGuard {
    fn drop(&mut self) {
        INSIDE.with(|inside| inside.set(inside.get() - 1));
        // SAFETY: dropped nowhere else; before the thread detaches.
        unsafe { ManuallyDrop::drop(&mut self.section) };
        // SAFETY: attached by the token; detaching returns the state that is kept in the
        // thread-local table.
        unsafe { ffi::PyEval_SaveThread() };
    }
}

/// The first state of the main interpreter. CPython up to 3.11 keeps it inside the interpreter and
/// cannot make it a second time, so it is never deleted, not even when its thread ends.
/// Sub-interpreters have a first state that belongs to no thread (`interpreter::create_…`).
static FIRST: AtomicPtr<ffi::PyThreadState> = AtomicPtr::new(core::ptr::null_mut());

/// Set when Python has been stopped: thread states are left alone from then on.
static STOPPED: AtomicBool = AtomicBool::new(false);

thread_local! {
    static STATES: States = const { States(RefCell::new(Vec::new())) };
    /// How many attach guards this thread holds, that is, whether it serves a request.
    static INSIDE: Cell<u32> = const { Cell::new(0) };
}

/// This thread's states by interpreter slot; null where there is none yet.
struct States(RefCell<Vec<*mut ffi::PyThreadState>>);

impl States {
    fn get(&self, slot: usize) -> *mut ffi::PyThreadState {
        self.0
            .borrow()
            .get(slot)
            .copied()
            .unwrap_or(core::ptr::null_mut())
    }

    fn put(&self, slot: usize, state: *mut ffi::PyThreadState) {
        let mut states = self.0.borrow_mut();
        if states.len() <= slot {
            states.resize(slot + 1, core::ptr::null_mut());
        }
        states[slot] = state;
    }
}

impl Drop for States {
    /// The thread ends (mod_http2's come and go): its states must not outlive it.
    fn drop(&mut self) {
        // The main interpreter's, slot 0, goes last: up to 3.11 it is the one that
        // PyGILState_Ensure finds.
        for &state in self
            .0
            .borrow()
            .iter()
            .rev()
            .filter(|state| !state.is_null())
        {
            // At the end of the process nobody needs the memory, and a busy thread of an
            // application could keep us waiting for the GIL.
            if STOPPED.load(Ordering::Acquire) || super::runtime::is_ending() {
                return;
            }
            if state == FIRST.load(Ordering::Acquire) {
                continue;
            }
            // SAFETY: a state of this thread, not attached since the thread ends outside of
            // Python; cleared and deleted while attached, as the C API demands.
            unsafe {
                ffi::PyEval_RestoreThread(state);
                ffi::PyThreadState_Clear(state);
                ffi::PyThreadState_DeleteCurrent();
            }
        }
    }
}

/// Notes the state that starting Python has given to this thread.
pub(super) fn adopt_first(state: *mut ffi::PyThreadState) {
    FIRST.store(state, Ordering::Release);
    STATES.with(|states| states.put(0, state));
}

/// Attaches the calling thread. Blocks for the GIL.
///
/// The caller is not attached to any interpreter.
pub fn attach(interpreter: &'static Interpreter) -> AttachGuard {
    let state = STATES.with(|states| {
        let known = states.get(interpreter.slot());
        if known.is_null() {
            create_state(states, interpreter)
        } else {
            known
        }
    });
    // SAFETY: this thread's own state of a live interpreter; not attached, by contract.
    unsafe { ffi::PyEval_RestoreThread(state) };
    INSIDE.with(|inside| inside.set(inside.get() + 1));
    let token = Attached {
        interpreter,
        thread_bound: PhantomData,
    };
    AttachGuard {
        token,
        section: ManuallyDrop::new(order::Section::enter(token)),
    }
}

#[cold]
fn create_state(states: &States, interpreter: &'static Interpreter) -> *mut ffi::PyThreadState {
    let main = super::runtime::main_interpreter();
    // Up to 3.11 the first state of a thread becomes the one that PyGILState_Ensure uses, and that
    // must be the main interpreter's.
    if interpreter.slot() != 0 && states.get(0).is_null() {
        // SAFETY: the interpreter lives until the process ends; no GIL needed.
        states.put(0, unsafe { ffi::PyThreadState_New(main.raw()) });
    }
    // SAFETY: as above.
    let state = unsafe { ffi::PyThreadState_New(interpreter.raw()) };
    states.put(interpreter.slot(), state);
    state
}

/// Whether the calling thread is inside a request.
pub fn thread_is_inside() -> bool {
    INSIDE.try_with(|inside| inside.get() > 0).unwrap_or(false)
}

/// Whether the calling thread is attached to any interpreter; for assertions.
pub fn thread_is_attached() -> bool {
    // SAFETY: reads the current thread state, null if there is none.
    unsafe { !ffi::compat::PyThreadState_GetUnchecked().is_null() }
}

/// From now on ending threads leave their states alone.
pub(super) fn stop() {
    STOPPED.store(true, Ordering::Release);
}
