//! A directive while httpd reads its configuration.

use core::ffi::{CStr, c_char, c_int};
use core::ptr::NonNull;

use super::{Pool, PoolStr, Server, text};
use crate::httpd::sys::{self, cmd_parms};

/// One occurrence of a directive.
pub struct Command<'c> {
    raw: &'c cmd_parms,
}

impl<'c> Command<'c> {
    /// Wraps `raw`.
    ///
    /// # Safety
    /// What httpd handed to a directive's function, for the duration of that call.
    pub unsafe fn new(raw: &'c cmd_parms) -> Self {
        Command { raw }
    }

    /// The pool of what is being configured: the configuration's, or a request's for `.htaccess`.
    pub fn pool(&self) -> Pool<'c> {
        // SAFETY: httpd gives every directive a pool.
        unsafe { Pool::new(self.raw.pool) }
    }

    /// The server in whose context the directive stands.
    pub fn server(&self) -> Server<'c> {
        // SAFETY: httpd gives every directive a server.
        unsafe { Server::new(self.raw.server) }
    }

    /// Whether it stands in a directory section or in `.htaccess`.
    pub fn is_in_directory(&self) -> bool {
        !self.raw.path.is_null()
    }

    /// The directives within a section, by name, with their lines.
    pub fn children(&self) -> Vec<(String, i32)> {
        let mut found = Vec::new();
        // SAFETY: httpd's tree of directives, which lives as long as the configuration is read.
        unsafe {
            let mut child = self
                .raw
                .directive
                .as_ref()
                .map_or(core::ptr::null_mut(), |own| own.first_child);
            while let Some(directive) = child.as_ref() {
                let name = text::bytes(directive.directive);
                let name = String::from_utf8_lossy(name).into_owned();
                found.push((name, directive.line_num));
                child = directive.next;
            }
        }
        found
    }

    /// Whether it stands in `.htaccess`: it is read for a request, by one of many threads.
    pub fn is_in_htaccess(&self) -> bool {
        self.check_context(sys::NOT_IN_HTACCESS).is_err()
    }

    /// The file and the line, for messages.
    pub fn place(&self) -> String {
        // SAFETY: httpd gives the directive that it is working on, or null.
        unsafe {
            match self.raw.directive.as_ref() {
                Some(directive) => {
                    let file = text::bytes(directive.filename);
                    format!("{}:{}", String::from_utf8_lossy(file), directive.line_num)
                }
                None => "the configuration".to_owned(),
            }
        }
    }

    /// httpd's message if the directive may not stand here.
    pub fn check_context(&self, forbidden: c_int) -> Result<(), String> {
        // SAFETY: the structure is only read.
        let message = unsafe {
            let raw = core::ptr::from_ref(self.raw).cast_mut();
            text::optional(sys::ap_check_cmd_context(
                raw,
                forbidden as core::ffi::c_uint,
            ))
        };
        match message {
            Some(message) => Err(String::from_utf8_lossy(message).into_owned()),
            None => Ok(()),
        }
    }

    /// The arguments, split by httpd's rules of quoting.
    pub fn words(&self, arguments: &'c CStr) -> Words<'c> {
        Words::new(self.pool(), arguments)
    }

    /// Compiles a regular expression; `None` if it is malformed.
    pub fn regex(&self, pattern: &PoolStr) -> Option<Regex> {
        // SAFETY: a C string; the result lives in the pool, with a clean-up of httpd's.
        let raw = unsafe {
            sys::ap_pregcomp(self.pool().as_ptr(), pattern.as_ptr(), sys::AP_REG_EXTENDED)
        };
        NonNull::new(raw).map(|raw| Regex { raw })
    }

    /// Makes a path absolute, relative to `ServerRoot`.
    pub fn absolute(&self, path: PoolStr) -> PoolStr {
        // SAFETY: a C string; the result is one in the pool, or null for a malformed path.
        unsafe {
            let result = sys::ap_server_root_relative(self.pool().as_ptr(), path.as_ptr());
            match text::optional(result) {
                Some(bytes) => PoolStr::from_raw(result, bytes.len()),
                None => path,
            }
        }
    }
}

/// Words of a directive's arguments.
pub struct Words<'c> {
    pool: Pool<'c>,
    rest: &'c CStr,
}

impl<'c> Words<'c> {
    /// Takes away the `>` at the end of a section's arguments. httpd has taken it away itself where
    /// there are no arguments; false if it is missing.
    pub fn close_bracket(&mut self) -> bool {
        self.skip_blanks();
        let rest = self.rest.to_bytes().trim_ascii_end();
        if rest.is_empty() {
            return true;
        }
        let Some(arguments) = rest.strip_suffix(b">") else {
            return false;
        };
        // SAFETY: a C string in the pool of the configuration, which outlives 'c.
        self.rest = unsafe { CStr::from_ptr(self.pool.copy(arguments).as_ptr()) };
        true
    }

    /// The words of `text`, which are put into `pool`.
    pub fn new(pool: Pool<'c>, text: &'c CStr) -> Self {
        Words { pool, rest: text }
    }

    /// The next word; `None` at the end.
    pub fn next_word(&mut self) -> Option<PoolStr> {
        self.skip_blanks();
        if self.rest.is_empty() {
            return None;
        }
        let mut rest: *const c_char = self.rest.as_ptr();
        // SAFETY: moves `rest` within the same C string; the result is one in the pool.
        unsafe {
            let word = sys::ap_getword_conf(self.pool.as_ptr(), &mut rest);
            self.rest = CStr::from_ptr(rest);
            Some(PoolStr::from_raw(word, text::bytes(word).len()))
        }
    }

    /// The next option, `name=value` with a value that may be quoted; `None` at the end. `Err` is
    /// what stands there instead.
    pub fn next_option(&mut self) -> Option<Result<(String, PoolStr), String>> {
        self.skip_blanks();
        let rest = self.rest.to_bytes();
        if rest.is_empty() {
            return None;
        }
        let end = rest
            .iter()
            .position(|c| *c == b'=' || c.is_ascii_whitespace());
        let Some(end) = end.filter(|&end| end > 0 && rest[end] == b'=') else {
            let word = self
                .next_word()
                .map_or_else(String::new, |word| word.text());
            return Some(Err(word));
        };
        let name = String::from_utf8_lossy(&rest[..end]).into_owned();
        self.advance(end + 1);
        let blank = self
            .rest
            .to_bytes()
            .first()
            .is_none_or(u8::is_ascii_whitespace);
        let value = if blank { None } else { self.value() };
        Some(Ok((name, value.unwrap_or_else(|| self.pool.copy(b"")))))
    }

    /// A value: a word, also one like `NAME="two words"`, whose quotes begin behind a `=`.
    fn value(&mut self) -> Option<PoolStr> {
        let rest = self.rest.to_bytes();
        let end = rest.iter().position(u8::is_ascii_whitespace);
        let unquoted = !matches!(rest.first(), Some(b'"' | b'\''));
        let quote = rest[..end.unwrap_or(rest.len())]
            .windows(2)
            .position(|pair| matches!(pair, b"=\"" | b"='"));
        let Some(at) = quote.filter(|_| unquoted) else {
            return self.next_word();
        };
        let name = self.pool.copy(&rest[..=at]);
        self.advance(at + 1);
        let value = self.next_word()?;
        Some(self.pool.concat(&[name.bytes(), value.bytes()]))
    }

    fn skip_blanks(&mut self) {
        let bytes = self.rest.to_bytes();
        let blanks = bytes.iter().take_while(|c| c.is_ascii_whitespace()).count();
        self.advance(blanks);
    }

    fn advance(&mut self, count: usize) {
        // The caller has counted within the string, so the tail with its NUL is there.
        if let Some(tail) = self.rest.to_bytes_with_nul().get(count..)
            && let Ok(tail) = CStr::from_bytes_with_nul(tail)
        {
            self.rest = tail;
        }
    }
}

/// A compiled regular expression; lives as long as the pool it was compiled in.
#[derive(Clone, Copy)]
pub struct Regex {
    raw: NonNull<sys::ap_regex_t>,
}

/// As many groups as httpd substitutes (`$0` to `$9`).
const GROUPS: usize = 10;

impl Regex {
    /// Matches `subject`. Gives the end of the match, and `template` with `$n` and `&` replaced,
    /// in `pool`. Any thread.
    pub fn substitute(
        &self,
        subject: &CStr,
        template: &PoolStr,
        pool: Pool<'_>,
    ) -> Option<(usize, PoolStr)> {
        const NO_GROUP: sys::ap_regmatch_t = sys::ap_regmatch_t {
            rm_so: -1,
            rm_eo: -1,
        };
        let mut groups = [NO_GROUP; GROUPS];
        // SAFETY: a compiled expression, C strings, as many groups as are named.
        unsafe {
            let no_match = sys::ap_regexec(
                self.raw.as_ptr(),
                subject.as_ptr(),
                GROUPS,
                groups.as_mut_ptr(),
                0,
            );
            if no_match != 0 {
                return None;
            }
            let result = sys::ap_pregsub(
                pool.as_ptr(),
                template.as_ptr(),
                subject.as_ptr(),
                GROUPS,
                groups.as_mut_ptr(),
            );
            let bytes = text::optional(result)?;
            let end = usize::try_from(groups[0].rm_eo).ok()?;
            Some((end, PoolStr::from_raw(result, bytes.len())))
        }
    }
}
