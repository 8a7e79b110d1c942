//! Interim responses: what is sent before the response, like `103 Early Hints`.

use super::HttpdExchange;
use crate::exchange::response::ResponseHead;
use crate::httpd::apache::Table;

/// mod_http2 reads the lines of interim responses again, into a buffer of 8192 bytes; a longer one
/// would end the stream.
const LONGEST_LINE: usize = 8_000;

impl HttpdExchange<'_> {
    /// Sends an interim response, unless the client would not know what it is. A failure shows when
    /// the response is sent.
    pub(super) fn send_interim(&self, head: &ResponseHead<'_>) {
        let fields = head.headers.items();
        let fits = |name: &[u8], value: &[u8]| name.len() + value.len() + 4 <= LONGEST_LINE;
        if self.sent.get()
            // What includes a part has one response, and it is not this one.
            || self.request.including().is_some()
            || head.status_line.bytes().len() > LONGEST_LINE
            || !fields.iter().all(|field| fits(field.name.bytes(), field.value.bytes()))
        {
            return;
        }
        let pool = self.request.pool();
        let line = head.status_line.bytes();
        // "103" and "103 " ask for httpd's text.
        let line = (line.len() > 4).then(|| pool.copy(line));
        let table = Table::make(pool, fields.len());
        for field in fields {
            let (name, value) = (field.name.bytes(), field.value.bytes());
            let (name, value) = (pool.copy(name), pool.copy(value));
            // SAFETY: strings and table lie in one pool.
            unsafe { table.add(name.as_ptr(), value.as_ptr()) }
        }
        let line = line.map_or(core::ptr::null(), |line| line.as_ptr().cast_const());
        // SAFETY: strings of the request's pool; nothing of the response has been handed on.
        unsafe { self.request.send_interim(head.status.into(), line, table) }
    }
}
