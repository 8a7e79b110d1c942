//! The response: stored until something is sent, then given to httpd.

use core::ffi::{c_char, c_int};

use super::{HttpdExchange, ResponseRules};
use crate::exchange::response::ResponseHead;
use crate::exchange::{ClientGone, Send};
use crate::httpd::apache::{Brigade, File, Pool, Request};
use crate::httpd::sys;

/// Where a header field goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Place {
    /// `headers_out`.
    Plain,
    /// `headers_out`, and perhaps a local redirect.
    Location,
    /// `ap_set_content_type`: the last one wins, and filters may be chosen by it.
    ContentType,
    /// `err_headers_out`, so that error pages keep it.
    Always,
}

fn place_of(name: &[u8]) -> Place {
    match name.len() {
        8 if name.eq_ignore_ascii_case(b"Location") => Place::Location,
        12 if name.eq_ignore_ascii_case(b"Content-Type") => Place::ContentType,
        16 if name.eq_ignore_ascii_case(b"WWW-Authenticate") => Place::Always,
        _ => Place::Plain,
    }
}

#[derive(Clone, Copy)]
struct Field {
    name: *const c_char,
    value: *const c_char,
    place: Place,
}

/// What takes the place of a response of the application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replacement {
    /// httpd's page for an error status (`WSGIErrorOverride`).
    ErrorPage(c_int),
    /// What a path of this server answers (`WSGILocalRedirect`): a C string of the request's pool.
    Local(*const c_char),
}

/// Status and headers, copied into the request's pool: httpd formats and logs them long after the
/// application's objects are gone.
#[derive(Clone, Copy)]
pub struct StoredHead {
    status: c_int,
    /// Null for httpd's own text.
    line: *const c_char,
    content_length: i64,
    fields: *const Field,
    count: usize,
    /// The last Location, or null.
    location: *const c_char,
}

/// Writes C strings one after another into a block that is large enough.
struct Writer(*mut u8);

impl Writer {
    /// # Safety
    /// The block has room for the text and a NUL.
    #[inline(always)]
    unsafe fn write(&mut self, text: &[u8]) -> *const c_char {
        let start = self.0;
        // SAFETY: the caller's promise.
        unsafe {
            start.copy_from_nonoverlapping(text.as_ptr(), text.len());
            start.add(text.len()).write(0);
            self.0 = start.add(text.len() + 1);
        }
        start.cast_const().cast()
    }
}

impl StoredHead {
    /// Copies everything with one allocation.
    pub fn copy(head: &ResponseHead<'_>, pool: Pool<'_>) -> Self {
        let items = head.headers.items();
        let line = head.status_line.bytes();
        let text: usize = items
            .iter()
            .map(|field| field.name.bytes().len() + field.value.bytes().len() + 2)
            .sum();
        const { assert!(align_of::<Field>() <= 8) };
        let table = size_of::<Field>() * items.len();
        let block = pool.allocate(table + text + line.len().max(4) + 1);
        let fields: *mut Field = block.cast();
        // SAFETY: the block has room for the table, all texts and their NULs, as added up above;
        // apr_palloc aligns to 8.
        unsafe {
            let mut writer = Writer(block.add(table));
            let mut location = core::ptr::null();
            for (index, field) in items.iter().enumerate() {
                let name = field.name.bytes();
                let field = Field {
                    name: writer.write(name),
                    value: writer.write(field.value.bytes()),
                    place: place_of(name),
                };
                if field.place == Place::Location {
                    location = field.value;
                }
                fields.add(index).write(field);
            }
            // "200" and "200 " ask for httpd's text; a status without one needs no text.
            let line = if line.len() > 4 {
                writer.write(line)
            } else if head.status == 200 || Request::knows_status(head.status.into()) {
                core::ptr::null()
            } else {
                let digits = line.first_chunk().unwrap_or(b"500");
                writer.write(&[digits[0], digits[1], digits[2], b' '])
            };
            StoredHead {
                status: c_int::from(head.status),
                line,
                content_length: head.content_length,
                fields,
                count: items.len(),
                location,
            }
        }
    }

    /// Gives all of it to httpd.
    fn apply(&self, request: Request<'_>) {
        // SAFETY: `copy` filled the table; its strings lie in the request's pool.
        unsafe {
            request.set_status(self.status, self.line);
            for index in 0..self.count {
                let field = *self.fields.add(index);
                match field.place {
                    Place::Plain | Place::Location => {
                        request.headers_out().add(field.name, field.value)
                    }
                    Place::ContentType => request.set_content_type(field.value),
                    Place::Always => request.err_headers_out().add(field.name, field.value),
                }
            }
        }
        if self.content_length >= 0 {
            request.set_content_length(self.content_length);
        }
    }
}

impl StoredHead {
    /// What takes the place of a response with this head.
    #[inline]
    pub(super) fn replacement(&self, rules: ResponseRules) -> Option<Replacement> {
        // What is no status of HTTP has no error page.
        if matches!(self.status, 400..=599) {
            return rules
                .error_override
                .then_some(Replacement::ErrorPage(self.status));
        }
        // SAFETY: null, or a C string that `copy` has written.
        let is_path = || unsafe { !self.location.is_null() && *self.location.cast::<u8>() == b'/' };
        (self.status == sys::HTTP_OK && rules.local_redirect && is_path())
            .then_some(Replacement::Local(self.location))
    }

    /// Gives to httpd what error pages keep.
    fn apply_always(&self, request: Request<'_>) {
        for index in 0..self.count {
            // SAFETY: as in `apply`.
            unsafe {
                let field = *self.fields.add(index);
                if field.place == Place::Always {
                    request.err_headers_out().add(field.name, field.value);
                }
            }
        }
    }
}

impl<'r> HttpdExchange<'r> {
    /// The brigade for the response, the same until the request ends.
    #[inline]
    pub(super) fn brigade(&self) -> Brigade<'r> {
        if let Some(output) = self.output.get() {
            return output;
        }
        let output = Brigade::new(self.request);
        self.output.set(Some(output));
        output
    }

    /// Gives the head to httpd, once, when the first byte is about to go out: until then the
    /// request looks untouched, so that an error page can still take the response's place.
    #[inline]
    fn apply_head(&self) {
        if self.sent.replace(true) {
            return;
        }
        if let Some(head) = self.head.get() {
            head.apply(self.request);
        }
        // An interim response now would land in the middle of this one.
        self.request.forget_continue();
    }

    /// What httpd shall answer with instead of the application. It is known when the first part
    /// of the response is to be sent, and stays.
    #[inline]
    pub fn replacement(&self) -> Option<Replacement> {
        self.replacement.get()
    }

    /// Keeps what an error page needs of a response that it replaces.
    pub fn keep_for_error_page(&self) {
        if let Some(head) = self.head.get() {
            head.apply_always(self.request);
        }
    }

    /// Passes what was appended, with what `how` adds.
    pub(super) fn send_appended(&self, how: Send) -> Result<(), ClientGone> {
        let brigade = self.brigade();
        if self.replacement().is_some() {
            brigade.discard();
            self.ended.set(how == Send::End);
            return self.reachable();
        }
        let in_one = how == Send::End && !self.sent.get() && !self.discarded.get();
        if self.request.is_head() && !in_one {
            // The head is all that is sent, and a whole response in one piece gives it its length.
            // mod_http2 would now and then send data that follows the head.
            self.discarded
                .set(self.discarded.get() || !brigade.is_empty());
            brigade.discard();
        }
        match how {
            Send::Flush => brigade.append_flush(),
            Send::End => {
                self.ended.set(true);
                if self.request.may_have_body() && !self.body_has_ended() {
                    // httpd reads the rest of the body before it sends what it holds back, and the
                    // client may be waiting for the answer before it sends any.
                    brigade.append_flush();
                }
                brigade.append_eos();
            }
            Send::Keep if brigade.is_empty() => return self.reachable(),
            Send::Keep => {}
        }
        self.apply_head();
        self.pass(brigade)
    }

    /// Ends the response so that the client sees that it is cut short: httpd's filters leave out
    /// the last chunk or reset the stream, and the connection is not used again.
    pub fn cut(&self) {
        if self.ended.get() {
            return;
        }
        let brigade = self.brigade();
        if self.replacement().is_some() {
            brigade.discard();
            return;
        }
        self.apply_head();
        self.request.connection().close_after_response();
        brigade.append_error(sys::HTTP_BAD_GATEWAY);
        brigade.append_eos();
        // Whether the client is still there makes no difference any more.
        let _ = self.pass(brigade);
    }

    fn pass(&self, brigade: Brigade<'r>) -> Result<(), ClientGone> {
        if self.request.response_has_ended() {
            // httpd has ended it (see `body`): nothing may follow.
            self.client_gone.set(true);
        }
        if self.client_gone.get() || self.filter_error.get() {
            brigade.discard();
            return Err(ClientGone);
        }
        let status = brigade.pass();
        if status != sys::APR_SUCCESS {
            self.client_gone.set(true);
            // A filter that fails otherwise may have answered itself.
            if status == sys::AP_FILTER_ERROR && !self.request.connection().aborted() {
                self.filter_error.set(true);
            }
        }
        self.reachable()
    }

    fn reachable(&self) -> Result<(), ClientGone> {
        if self.client_gone.get() || self.request.connection().aborted() {
            self.client_gone.set(true);
            return Err(ClientGone);
        }
        Ok(())
    }

    /// Appends a range of the file `fd`, which may be mapped into memory if `map`. `Err` is an
    /// errno.
    pub(super) fn append_range(
        &self,
        fd: i32,
        offset: u64,
        length: u64,
        map: bool,
    ) -> Result<(), i32> {
        let pool = self.request.pool();
        let sendfile = self.rules.sendfile;
        let file = File::open_again(fd, sendfile, pool)
            .or_else(|_| File::duplicate(fd, sendfile, pool))?;
        let map = map && self.request.maps_files();
        self.brigade().append_file(file, offset, length, map);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Place, place_of};

    #[test]
    fn fields_go_where_httpd_expects_them() {
        assert_eq!(place_of(b"content-TYPE"), Place::ContentType);
        assert_eq!(place_of(b"LOCATION"), Place::Location);
        assert_eq!(place_of(b"WWW-authenticate"), Place::Always);
        for name in [&b"Content-Typo"[..], b"X", b"Set-Cookie", b"Content-Types"] {
            assert_eq!(place_of(name), Place::Plain);
        }
    }
}
