//! A connection as a stream of bytes, after HTTP: through its own filters, so that TLS and HTTP/2 do
//! their part.

use core::ops::Range;
use core::ptr::NonNull;
use std::os::fd::RawFd;

use super::{Connection, Request};
use crate::exchange::response::ResponseHead;
use crate::httpd::sys::{self, apr_bucket_brigade, conn_rec, ring};

/// Less than this httpd's network filter keeps, in memory that it makes for it, unless it is told to
/// flush, which must not be where it could have to wait.
const KEPT: usize = 4096;

/// What a read brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrived {
    /// Something has been read; there may be more.
    Some,
    /// Nothing is there.
    Nothing,
    /// Nothing more will come.
    End,
}

/// A connection that carries another protocol than HTTP. It may be handed from thread to thread, and
/// used by one at a time.
pub struct Stream {
    connection: NonNull<conn_rec>,
    input: *mut apr_bucket_brigade,
    output: *mut apr_bucket_brigade,
}

impl Request<'_> {
    /// Sends `101 Switching Protocols` with the fields of `head`, and takes the request's own filters
    /// and those that know HTTP from the connection's chains. Blocks. The connection ends with this
    /// request. A client that has gone shows in the connection.
    pub fn switch_protocols(self, head: &ResponseHead<'_>) {
        let fields = self.headers_out();
        for field in head.headers.items() {
            let name = self.pool().copy(field.name.bytes());
            let value = self.pool().copy(field.value.bytes());
            // SAFETY: strings of the request's pool.
            unsafe { fields.add(name.as_ptr(), value.as_ptr()) };
        }
        // SAFETY: a live request of this thread, and constants; nothing has been sent for it.
        unsafe {
            fields.set(c"Connection".as_ptr(), c"Upgrade".as_ptr());
            let raw = self.as_ptr();
            self.set_status(sys::HTTP_SWITCHING_PROTOCOLS, core::ptr::null());
            sys::ap_send_interim_response(raw, 1);
            let connection = (*raw).connection;
            // It would wait for more to send along.
            sys::ap_remove_output_filter_byhandle(
                (*connection).output_filters,
                c"SSL/TLS Coalescing Filter".as_ptr(),
            );
            // It counts bytes of requests.
            sys::ap_remove_input_filter_byhandle(
                (*connection).input_filters,
                c"reqtimeout".as_ptr(),
            );
            (*raw).input_filters = (*connection).input_filters;
            (*raw).proto_input_filters = (*connection).input_filters;
            (*raw).output_filters = (*connection).output_filters;
            (*raw).proto_output_filters = (*connection).output_filters;
            (*connection).keepalive = sys::AP_CONN_CLOSE;
        }
    }

    /// Whether the client's version of HTTP has switches of protocols.
    pub fn may_switch_protocols(self) -> bool {
        const HTTP_1_1: i32 = 1001;
        // SAFETY: a live request of this thread.
        unsafe { (*self.as_ptr()).proto_num >= HTTP_1_1 }
    }

    /// What the access log says of the size of the response.
    pub fn set_bytes_sent(self, count: u64) {
        // SAFETY: a live request of this thread.
        unsafe {
            (*self.as_ptr()).bytes_sent = i64::try_from(count).unwrap_or(i64::MAX);
            (*self.as_ptr()).sent_bodyct = i64::from(count > 0);
        }
    }
}

impl Stream {
    /// The connection of a request that has switched protocols. Brigades are made in its pool.
    ///
    /// # Safety
    /// The result is used only while the connection lives, and by one thread at a time.
    pub unsafe fn new(request: Request<'_>) -> Stream {
        // SAFETY: a live request of this thread; pool and allocator are those of its connection.
        unsafe {
            let connection = (*request.as_ptr()).connection;
            let brigade =
                || sys::apr_brigade_create((*connection).pool, (*connection).bucket_alloc);
            Stream {
                connection: NonNull::new_unchecked(connection),
                input: brigade(),
                output: brigade(),
            }
        }
    }

    /// The connection.
    pub fn connection(&self) -> Connection<'_> {
        // SAFETY: the contract of `new`.
        unsafe { Connection::new(self.connection.as_ptr()) }
    }

    /// The pointer itself.
    pub fn as_ptr(&self) -> *mut conn_rec {
        self.connection.as_ptr()
    }

    /// Hands at most `most` bytes that have arrived to `take`, without blocking.
    pub fn read(&mut self, most: usize, take: &mut dyn FnMut(&[u8])) -> Arrived {
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        // SAFETY: the contract of `new`; the brigade is empty, and emptied here before its buckets
        // can become invalid. A bucket's bytes live until it is deleted.
        unsafe {
            let connection = self.connection.as_ptr();
            let status = sys::ap_get_brigade(
                (*connection).input_filters,
                self.input,
                sys::AP_MODE_READBYTES,
                sys::APR_NONBLOCK_READ,
                most,
            );
            match status {
                sys::APR_SUCCESS if ring::is_empty(self.input) => return Arrived::Nothing,
                sys::APR_SUCCESS if (*connection).aborted == 0 => {}
                status if sys::rwsgi_status_is_eagain(status) != 0 => {
                    self.clear_input();
                    return Arrived::Nothing;
                }
                _ => {
                    self.clear_input();
                    return Arrived::End;
                }
            }
            loop {
                let bucket = ring::first(self.input);
                if bucket.is_null() {
                    return Arrived::Some;
                }
                // An end of the request's body, which mod_http2 puts before everything else. The end
                // of the connection is a status.
                if !ring::is_metadata(bucket) {
                    match ring::read(bucket, sys::APR_NONBLOCK_READ) {
                        Ok(bytes) => take(bytes),
                        Err(_) => {
                            self.clear_input();
                            return Arrived::End;
                        }
                    }
                }
                ring::delete(bucket);
            }
        }
    }

    /// # Safety
    /// As the functions of this type.
    unsafe fn clear_input(&mut self) {
        // SAFETY: the caller's promise.
        unsafe { sys::apr_brigade_cleanup(self.input.cast()) };
    }

    /// Sends the pieces of `bytes`. What the socket does not take is kept by httpd. It blocks only if
    /// something was kept already, or the pieces are more than httpd keeps, or as a stream of
    /// HTTP/2. `false`: the client has gone.
    pub fn write(&mut self, bytes: &[u8], pieces: &[Range<usize>]) -> bool {
        // SAFETY: the contract of `new`. The bytes stay as they are until the brigade has been
        // passed, which is all that a transient bucket asks.
        unsafe {
            let connection = self.connection.as_ptr();
            let mut sum = 0;
            for piece in pieces {
                let piece = &bytes[piece.clone()];
                sum += piece.len();
                let bucket = sys::apr_bucket_transient_create(
                    piece.as_ptr().cast(),
                    piece.len(),
                    (*connection).bucket_alloc,
                );
                ring::insert_tail(self.output, bucket);
            }
            if sum < KEPT && self.has_room() {
                let flush = sys::apr_bucket_flush_create((*connection).bucket_alloc);
                ring::insert_tail(self.output, flush);
            }
            let status = sys::ap_pass_brigade((*connection).output_filters, self.output);
            sys::apr_brigade_cleanup(self.output.cast());
            status == sys::APR_SUCCESS && (*connection).aborted == 0
        }
    }

    /// Whether the socket certainly takes [`KEPT`] bytes: all that was sent has been received, and
    /// httpd keeps nothing.
    fn has_room(&self) -> bool {
        let connection = self.connection();
        let Some(socket) = connection.socket() else {
            return false;
        };
        let mut sent = 0;
        // SAFETY: fills an int.
        let asked = unsafe { libc::ioctl(socket, libc::TIOCOUTQ, &raw mut sent) };
        asked == 0 && sent == 0 && !connection.has_output()
    }

    /// What tells that a stream of HTTP/2 has input: a descriptor that becomes readable; `None` if
    /// mod_http2 has none.
    pub fn input_signal(&self) -> Option<RawFd> {
        // SAFETY: the contract of `new`.
        let fd = unsafe { sys::rwsgi_input_signal(self.connection.as_ptr()) };
        (fd >= 0).then_some(fd)
    }

    /// How many bytes may be handed to [`write`](Self::write) at once, when nothing is kept, without
    /// its blocking: what `FlushMaxThreshold` says, with room for what TLS adds.
    pub fn window(&self) -> usize {
        // SAFETY: the contract of `new`; every connection has a server, and the core module, number
        // 0, always has its configuration there.
        unsafe {
            let server = (*self.connection.as_ptr()).base_server;
            let core = *(*server)
                .module_config
                .cast::<*const sys::core_server_config>();
            (*core).flush_max_threshold / 2
        }
    }
}
