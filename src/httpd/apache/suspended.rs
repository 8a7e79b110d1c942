//! A connection that the event MPM has let go of: what is left to do of it, and its end.
//!
//! A handler that returns `SUSPENDED` makes that MPM run the hook `suspend_connection`, set two fields
//! and forget the connection, but for counting it. From then on the connection belongs to whoever
//! takes it over, to its end, which is the end of its pool. None of these functions blocks, once
//! [`take_over`](Suspended::take_over) has been called.

use core::ptr::NonNull;
use std::os::fd::RawFd;

use super::thread::Thread;
use super::{Connection, Request, mpm};
use crate::httpd::sys::{self, conn_rec, request_rec, ring};

/// A suspended connection with its request.
pub struct Suspended {
    connection: NonNull<conn_rec>,
    /// Until it has ended.
    request: Option<NonNull<request_rec>>,
}

// SAFETY: it is used by one thread at a time, and nothing of a connection is bound to a thread.
unsafe impl Send for Suspended {}

impl Request<'_> {
    /// Whether its handler may return `SUSPENDED`: it serves a request that the event MPM itself has
    /// begun, in a way that the MPM can let go of.
    pub fn may_be_suspended(self) -> bool {
        // SAFETY: a live request of this thread; `cs` is of a connection that is not a stream's.
        unsafe {
            let raw = self.as_ptr();
            let connection = (*raw).connection;
            (*connection).master.is_null()
                && !(*connection).cs.is_null()
                && (*connection).clogging_input_filters() == 0
                && (*connection).aborted == 0
                // Their ends are those of the request that they are part of.
                && (*raw).main.is_null()
                && (*raw).prev.is_null()
                && mpm::is_async()
        }
    }
}

impl Suspended {
    /// A connection that is about to be suspended, or has been.
    ///
    /// # Safety
    /// `request` is a request of [`may_be_suspended`](Request::may_be_suspended). But for
    /// [`has_let_go`](Self::has_let_go), the result is used only after that has been true, and by
    /// one thread at a time; it alone ends the connection.
    pub unsafe fn new(request: Request<'_>) -> Suspended {
        // SAFETY: a live request; it has a connection.
        unsafe {
            Suspended {
                connection: NonNull::new_unchecked((*request.as_ptr()).connection),
                request: NonNull::new(request.as_ptr()),
            }
        }
    }

    /// Whether the MPM has done with the connection all that others could notice.
    pub fn has_let_go(&self) -> bool {
        // SAFETY: a live connection. The field is the first that the MPM sets after the hook; it is
        // read as it may be changing.
        unsafe {
            (&raw const (*self.connection.as_ptr()).sbh)
                .read_volatile()
                .is_null()
        }
    }

    /// Whether a connection is being suspended for good, in the hook `suspend_connection`: the same
    /// hook tells of connections that wait for their next request.
    ///
    /// # Safety
    /// `connection` is what the hook was given.
    pub unsafe fn is_final(connection: *mut conn_rec) -> bool {
        // SAFETY: the caller's promise; the hook is for connections of the MPM.
        unsafe {
            let state = (*connection).cs;
            !state.is_null() && (*state).state == sys::CONN_STATE_SUSPENDED
        }
    }

    /// Makes the connection one of `thread`, the calling one, that never blocks and keeps no memory
    /// which it does not use.
    pub fn take_over(&mut self, thread: Option<Thread>) {
        // SAFETY: the contract of `new`.
        unsafe {
            let connection = self.connection.as_ptr();
            // The one that it had may end before it.
            (*connection).current_thread = thread.map_or(core::ptr::null_mut(), Thread::as_ptr);
            trim(self.allocator());
            let socket = sys::ap_get_conn_socket(connection);
            sys::apr_socket_timeout_set(socket, 0);
            // A read that got less than it asked for makes the next one wait.
            sys::apr_socket_opt_set(socket, sys::APR_INCOMPLETE_READ, 0);
        }
    }

    /// The connection.
    pub fn connection(&self) -> Connection<'_> {
        // SAFETY: the contract of `new`.
        unsafe { Connection::new(self.connection.as_ptr()) }
    }

    /// The request, until it has been ended.
    pub fn request(&self) -> Option<Request<'_>> {
        // SAFETY: the contract of `new`.
        self.request
            .map(|raw| unsafe { Request::new(raw.as_ptr()) })
    }

    /// Ends the request: it is logged, and its pool destroyed, when all that was written before has
    /// been sent.
    pub fn end_request(&mut self) {
        let Some(request) = self.request.take() else {
            return;
        };
        // SAFETY: the contract of `new`; the bucket owns the request from now on.
        unsafe {
            let connection = self.connection.as_ptr();
            let alloc = (*connection).bucket_alloc;
            let bucket = sys::ap_bucket_eor_create(alloc, request.as_ptr());
            self.pass(bucket);
        }
    }

    /// Lets filters and modules take their leave of the client: TLS says that it ends.
    pub fn say_goodbye(&mut self) {
        // SAFETY: the contract of `new`.
        unsafe {
            let connection = self.connection.as_ptr();
            sys::ap_prep_lingering_close(connection);
            self.pass(sys::ap_bucket_eoc_create((*connection).bucket_alloc));
        }
    }

    /// # Safety
    /// A bucket of the connection's allocator, in no brigade.
    unsafe fn pass(&mut self, bucket: *mut sys::apr_bucket) {
        // SAFETY: the contract of `new`, and the caller's promise. What no filter has taken is
        // destroyed, which ends a request as well.
        unsafe {
            let connection = self.connection.as_ptr();
            let brigade = sys::apr_brigade_create((*connection).pool, (*connection).bucket_alloc);
            ring::insert_tail(brigade, bucket);
            sys::ap_pass_brigade((*connection).output_filters, brigade);
            sys::apr_brigade_destroy(brigade);
        }
    }

    /// # Safety
    /// As the functions of this type.
    unsafe fn allocator(&self) -> *mut sys::apr_allocator_t {
        // SAFETY: the caller's promise. It is the connection's own, of which its pools and those of its
        // requests are made.
        unsafe { sys::apr_pool_allocator_get((*self.connection.as_ptr()).pool) }
    }

    /// The client's socket; `None` if it has been closed.
    pub fn socket(&self) -> Option<RawFd> {
        self.connection().socket()
    }

    /// Closes the socket and destroys the connection's pool, and with it the connection; a request
    /// that has not been ended is logged as that of a client that has gone.
    ///
    /// # Safety
    /// The MPM's thread that ran the hook has returned from it and gone on: it writes into the
    /// connection right after the hook.
    pub unsafe fn destroy(mut self) {
        // SAFETY: the contract of `new`, and the caller's promise. The MPM's own clean-ups of the pool
        // keep its accounts.
        unsafe {
            let connection = self.connection.as_ptr();
            if self.request.is_some() {
                (*connection).aborted = 1;
                self.end_request();
            }
            let socket = sys::ap_get_conn_socket(connection);
            if !socket.is_null() {
                sys::apr_socket_close(socket);
            }
            sys::apr_pool_destroy((*connection).pool);
        }
    }
}

/// Gives what the allocator keeps for later back to the system, now and from now on: a connection that
/// lives for hours is not to keep what its handshake has needed.
///
/// # Safety
/// The allocator is used by this thread only.
unsafe fn trim(allocator: *mut sys::apr_allocator_t) {
    /// Blocks that are asked for to see whether they are kept ones. One has held the request as it
    /// came, others what filters have needed.
    const KEPT: usize = 8;
    // SAFETY: the caller's promise. Blocks that have been taken are given back as a list.
    unsafe {
        sys::apr_allocator_max_free_set(allocator, NOTHING);
        let blocks = take_blocks(allocator, KEPT);
        if !blocks.is_null() {
            sys::apr_allocator_free(allocator, blocks);
        }
    }
}

/// Less than a block, as the limit of what an allocator keeps; 0 would be no limit.
const NOTHING: usize = 1;
/// The smallest block of an allocator, in which 8,000 bytes from a socket have room.
const BLOCK: usize = 8 * 1024;

/// Memory for all connections of a thread that keep none: what one needs while it is at work, for
/// what it reads for the most part, is lent to it. It would be mapped and unmapped each time.
pub struct Spare(*mut sys::apr_memnode_t);

// SAFETY: blocks belong to nobody else.
unsafe impl Send for Spare {}

impl Spare {
    /// As many as a read and a write need.
    const COUNT: usize = 3;

    /// Nothing yet.
    pub const fn new() -> Spare {
        Spare(core::ptr::null_mut())
    }

    /// Lends the blocks to the connection's allocator.
    pub fn lend(&mut self, suspended: &mut Suspended) {
        let blocks = core::mem::replace(&mut self.0, core::ptr::null_mut());
        // SAFETY: the contract of `Suspended::new`. Blocks are the system's memory, whichever
        // allocator has asked for them.
        unsafe {
            let allocator = suspended.allocator();
            sys::apr_allocator_max_free_set(allocator, Self::COUNT * BLOCK);
            if !blocks.is_null() {
                sys::apr_allocator_free(allocator, blocks);
            }
        }
    }

    /// Takes as many back. The allocator has kept no more than that.
    pub fn take_back(&mut self, suspended: &mut Suspended) {
        // SAFETY: as above.
        unsafe {
            let allocator = suspended.allocator();
            self.0 = take_blocks(allocator, Self::COUNT);
            sys::apr_allocator_max_free_set(allocator, NOTHING);
        }
    }
}

impl Default for Spare {
    fn default() -> Self {
        Self::new()
    }
}

/// Takes so many blocks, kept ones first, as a list.
///
/// # Safety
/// The allocator is used by this thread only.
unsafe fn take_blocks(
    allocator: *mut sys::apr_allocator_t,
    count: usize,
) -> *mut sys::apr_memnode_t {
    let mut list = core::ptr::null_mut();
    for _ in 0..count {
        // SAFETY: the caller's promise.
        unsafe {
            let block = sys::apr_allocator_alloc(allocator, 1);
            if block.is_null() {
                break;
            }
            (*block).next = list;
            list = block;
        }
    }
    list
}
