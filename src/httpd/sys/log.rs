//! httpd's error log.

use core::ffi::{CStr, c_char, c_int};
use std::ffi::CString;

use super::{
    ap_log_error_, ap_log_rerror_, request_rec, rwsgi_request_logs, rwsgi_server_logs, server_rec,
};
use crate::exchange::{Level, Source};
use crate::httpd::hooks::module_index;

/// What a message may take in httpd's line of 8192 bytes, with room for time, tags, client and
/// referer before and after it.
const ROOM: usize = 7_000;

/// The message is an argument, never a format.
const FORMAT: &CStr = c"%.*s";

/// Whether a line of `level` is logged for the request.
///
/// # Safety
/// `request` is a live request of the calling thread.
pub unsafe fn request_logs(request: *const request_rec, level: Level) -> bool {
    // SAFETY: the caller's promise.
    unsafe { rwsgi_request_logs(request, module_index(), level as c_int) != 0 }
}

/// Logs a line with the request's virtual host, log id and client. Any thread may call it that
/// serves the request.
///
/// # Safety
/// `request` is a live request of the calling thread.
pub unsafe fn request(request: *mut request_rec, level: Level, line: &[u8]) {
    // SAFETY: passed on.
    unsafe { request_from(request, level, None, line) }
}

/// [`request`] for a message that says where it was made: what `%F` of `ErrorLogFormat` shows.
///
/// # Safety
/// As for [`request`].
pub unsafe fn request_from(
    request: *mut request_rec,
    level: Level,
    source: Option<Source<'_>>,
    line: &[u8],
) {
    // SAFETY: the caller's promise.
    if !unsafe { request_logs(request, level) } {
        return;
    }
    let (file, number) = place(source);
    pieces(line, |piece| {
        // SAFETY: a C string or null, which httpd does not keep; the format takes a length and that
        // many bytes without NUL; httpd copies them.
        unsafe {
            ap_log_rerror_(
                pointer(&file),
                number,
                module_index(),
                level as c_int,
                0,
                request,
                FORMAT.as_ptr(),
                piece.len() as c_int,
                piece.as_ptr(),
            );
        }
    });
}

/// Whether a line of `level` is logged with a server's log; those of the main log always are.
///
/// # Safety
/// `server` is null (the main log) or a live server.
pub unsafe fn server_logs(server: *const server_rec, level: Level) -> bool {
    // SAFETY: the caller's promise.
    server.is_null() || unsafe { rwsgi_server_logs(server, module_index(), level as c_int) != 0 }
}

/// Logs a line with a server's log. Any thread.
///
/// # Safety
/// `server` is null (the main log) or a live server.
pub unsafe fn server(server: *const server_rec, level: Level, line: &[u8]) {
    // SAFETY: passed on.
    unsafe { server_from(server, level, None, line) }
}

/// [`server`] for a message that says where it was made, as in [`request_from`].
///
/// # Safety
/// As for [`server`].
pub unsafe fn server_from(
    server: *const server_rec,
    level: Level,
    source: Option<Source<'_>>,
    line: &[u8],
) {
    // SAFETY: the caller's promise.
    if !unsafe { server_logs(server, level) } {
        return;
    }
    let (file, number) = place(source);
    pieces(line, |piece| {
        // SAFETY: as in `request`.
        unsafe {
            ap_log_error_(
                pointer(&file),
                number,
                module_index(),
                level as c_int,
                0,
                server,
                FORMAT.as_ptr(),
                piece.len() as c_int,
                piece.as_ptr(),
            );
        }
    });
}

/// What is shown of a file's name: the end tells more, and the message needs room, too.
const LONGEST_FILE: usize = 200;

/// File and line as httpd takes them. It escapes messages but not this name, which a program chose.
fn place(source: Option<Source<'_>>) -> (Option<CString>, c_int) {
    source.map_or((None, 0), |source| {
        let file = source.file.bytes();
        let shown = &file[file.len().saturating_sub(LONGEST_FILE)..];
        let visible: Vec<u8> = shown
            .iter()
            .map(|&byte| {
                if byte < b' ' || byte == 0x7f {
                    b'?'
                } else {
                    byte
                }
            })
            .collect();
        let line = c_int::try_from(source.line).unwrap_or(0);
        (CString::new(visible).ok(), line)
    })
}

fn pointer(text: &Option<CString>) -> *const c_char {
    text.as_deref().map_or(core::ptr::null(), CStr::as_ptr)
}

/// Cuts `line` into pieces that httpd logs whole, and makes NUL bytes, which would end a piece,
/// visible.
fn pieces(line: &[u8], mut log: impl FnMut(&[u8])) {
    if line.contains(&0) {
        let visible = line
            .split(|&c| c == 0)
            .collect::<Vec<_>>()
            .join(&b"\\0"[..]);
        return pieces(&visible, log);
    }
    let mut rest = line;
    loop {
        let (piece, more) = rest.split_at(fitting(rest));
        log(piece);
        if more.is_empty() {
            return;
        }
        rest = more;
    }
}

/// How many bytes of `line` fit, as httpd escapes them. At least 1 unless `line` is empty.
fn fitting(line: &[u8]) -> usize {
    if line.len() <= ROOM / 4 {
        return line.len();
    }
    let mut taken = 0;
    for (index, &byte) in line.iter().enumerate() {
        taken += match byte {
            b'"' | b'\\' => 2,
            b' '..=b'~' => 1,
            // As `\xe4`.
            _ => 4,
        };
        if taken > ROOM {
            // Not within a character of UTF-8: those are at most four bytes long.
            let boundary = (index.saturating_sub(3)..=index)
                .rev()
                .find(|&i| line[i] & 0xc0 != 0x80);
            return boundary.unwrap_or(index).max(1);
        }
    }
    line.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::Text;

    fn collect(line: &[u8]) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        pieces(line, |piece| all.push(piece.to_vec()));
        all
    }

    #[test]
    fn short_lines_stay_whole() {
        for line in [&b""[..], b"a", b"Traceback (most recent call last):"] {
            assert_eq!(collect(line), [line]);
        }
    }

    #[test]
    fn long_lines_are_split_and_nothing_is_lost() {
        for line in [
            vec![b'a'; 20_000],
            "\u{e4}\u{20ac}".repeat(5_000).into_bytes(),
        ] {
            let all = collect(&line);
            assert!(all.len() > 1);
            assert!(all.iter().all(|piece| fitting(piece) == piece.len()));
            assert!(all.iter().all(|piece| core::str::from_utf8(piece).is_ok()));
            assert_eq!(all.concat(), line);
        }
    }

    #[test]
    fn nul_is_visible() {
        assert_eq!(collect(b"a\0b"), [b"a\\0b"]);
    }

    #[test]
    fn names_of_files_cannot_forge_lines() {
        let source = |file| Source {
            file: Text::new(file),
            line: 7,
        };
        let shown = |file| place(Some(source(file))).0.unwrap().into_bytes();
        assert_eq!(shown(b"/srv/app.py"), b"/srv/app.py");
        assert_eq!(shown(b"a\n[core:alert]\x1b[31m\0"), b"a?[core:alert]?[31m?");
        assert_eq!(shown(&[b'x'; 5000]).len(), LONGEST_FILE);
        assert_eq!(place(None), (None, 0));
    }

    #[test]
    fn garbage_is_split_too() {
        assert_eq!(collect(&[0x80; 9_000]).concat(), [0x80; 9_000]);
    }
}
