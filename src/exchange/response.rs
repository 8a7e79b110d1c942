//! The head of a response, and what an application may put into it.
//!
//! httpd checks header fields late and some of them not at all (a status line with a line break
//! went through in old releases), so everything is checked here, before the server sees it. Rules:
//! PEP 3333 "The start_response() Callable", RFC 9110 sections 5.1, 5.5 and 15.

#![forbid(unsafe_code)]

use super::abi::{Pair, Slice, Text};

/// Status and header fields of a response, validated.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct ResponseHead<'a> {
    /// 200 to 999.
    pub status: u16,
    /// The status line after the protocol, for example `200 OK`. A bare code means the
    /// server's own reason phrase.
    pub status_line: Text<'a>,
    /// The fields, in order, repeated ones repeated; Content-Length is not among them.
    pub headers: Slice<'a, Pair<'a>>,
    /// The declared Content-Length; negative if there is none.
    pub content_length: i64,
}

/// What is wrong with a status line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatusError {
    /// Does not begin with exactly three digits.
    NoCode,
    /// Below 200: an interim status cannot end a response.
    Interim,
    /// No space after the code.
    NoSpace,
    /// The reason phrase has a control character.
    Control,
}

impl core::fmt::Display for StatusError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            StatusError::NoCode => "status code must be a 3 digit integer",
            StatusError::Interim => "status code must be at least 200",
            StatusError::NoSpace => "no space following status code",
            StatusError::Control => "control character in status reason phrase",
        })
    }
}

fn is_control(c: u8) -> bool {
    (c < 0x20 && c != b'\t') || c == 0x7f
}

/// Checks a status line and gives its code.
pub fn parse_status(line: &[u8]) -> Result<u16, StatusError> {
    let (code, rest) = match line {
        [a, b, c, rest @ ..] if [a, b, c].iter().all(|d| d.is_ascii_digit()) => {
            let digit = |d: &u8| u16::from(d - b'0');
            (digit(a) * 100 + digit(b) * 10 + digit(c), rest)
        }
        _ => return Err(StatusError::NoCode),
    };
    match rest {
        [] => {}
        [b' ', reason @ ..] => {
            if reason.iter().any(|&c| is_control(c)) {
                return Err(StatusError::Control);
            }
        }
        [c, ..] if c.is_ascii_digit() => return Err(StatusError::NoCode),
        _ => return Err(StatusError::NoSpace),
    }
    if code < 200 {
        return Err(StatusError::Interim);
    }
    Ok(code)
}

/// What is wrong with a header field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldError {
    /// The name is empty.
    EmptyName,
    /// The name is no token of RFC 9110.
    Name,
    /// The value has a control character (line breaks and NUL among them).
    Value,
    /// Hop-by-hop fields belong to the server (PEP 3333).
    HopByHop,
}

impl FieldError {
    /// What to tell the application, with what it has given; in mod_wsgi's words where that has any.
    pub fn about(self, name: &[u8], value: &[u8]) -> String {
        let (what, culprit) = match self {
            FieldError::EmptyName => return "header name is empty".to_owned(),
            FieldError::Name if name.contains(&b' ') => ("space character in header name", name),
            FieldError::Name if name.iter().any(u8::is_ascii_control) => {
                ("control character in header name", name)
            }
            FieldError::Name => (
                "header name has a character that is not allowed in a token",
                name,
            ),
            FieldError::Value if value.iter().any(|c| matches!(c, b'\r' | b'\n')) => {
                ("carriage return/line feed character in header value", value)
            }
            FieldError::Value => ("header value has a control character", value),
            FieldError::HopByHop => ("hop-by-hop headers are the server's business", name),
        };
        format!("{what}: b'{}'", culprit.escape_ascii())
    }
}

/// `1` for the characters of a token, RFC 9110 section 5.6.2.
static TOKEN: [u8; 256] = {
    let mut table = [0; 256];
    let mut c = 0;
    while c < 256 {
        let byte = c as u8;
        if byte.is_ascii_alphanumeric() {
            table[c] = 1;
        }
        c += 1;
    }
    let others = b"!#$%&'*+-.^_`|~";
    let mut i = 0;
    while i < others.len() {
        table[others[i] as usize] = 1;
        i += 1;
    }
    table
};

const HOP_BY_HOP: [&[u8]; 9] = [
    b"connection",
    b"keep-alive",
    b"proxy-authenticate",
    b"proxy-authorization",
    b"te",
    b"trailer",
    b"trailers",
    b"transfer-encoding",
    b"upgrade",
];

/// Whether `name` (any case) is a hop-by-hop field, RFC 2616 section 13.5.1 as PEP 3333 cites it.
pub fn is_hop_by_hop(name: &[u8]) -> bool {
    // Only these letters begin one of them: most names are told apart by one comparison.
    matches!(
        name.first(),
        Some(b'c' | b'C' | b'k' | b'K' | b'p' | b'P' | b't' | b'T' | b'u' | b'U')
    ) && HOP_BY_HOP.iter().any(|h| name.eq_ignore_ascii_case(h))
}

/// Checks one header field.
pub fn check_field(name: &[u8], value: &[u8]) -> Result<(), FieldError> {
    if name.is_empty() {
        return Err(FieldError::EmptyName);
    }
    if name.iter().any(|&c| TOKEN[c as usize] == 0) {
        return Err(FieldError::Name);
    }
    if has_control(value) {
        return Err(FieldError::Value);
    }
    if is_hop_by_hop(name) {
        return Err(FieldError::HopByHop);
    }
    Ok(())
}

/// Whether there is a control character other than TAB; a loop that the compiler vectorises.
fn has_control(value: &[u8]) -> bool {
    value.iter().fold(false, |found, &c| found | is_control(c))
}

/// Parses a Content-Length value: decimal digits, surrounding blanks allowed.
pub fn parse_content_length(value: &[u8]) -> Option<u64> {
    let digits = value.trim_ascii();
    if digits.is_empty() || digits.len() > 18 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(
        digits
            .iter()
            .fold(0, |sum, d| sum * 10 + u64::from(d - b'0')),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_lines() {
        assert_eq!(parse_status(b"200 OK"), Ok(200));
        assert_eq!(parse_status(b"200"), Ok(200));
        assert_eq!(parse_status(b"200 "), Ok(200));
        assert_eq!(parse_status(b"404 Nicht \xe4 da"), Ok(404));
        assert_eq!(parse_status(b"999 x"), Ok(999));
        for bad in [&b""[..], b"20", b"abc", b"2000 OK", b" 200", b"-20 x"] {
            assert_eq!(parse_status(bad), Err(StatusError::NoCode));
        }
        assert_eq!(parse_status(b"200OK"), Err(StatusError::NoSpace));
        assert_eq!(parse_status(b"200\tOK"), Err(StatusError::NoSpace));
        assert_eq!(parse_status(b"200 a\r\nX: y"), Err(StatusError::Control));
        assert_eq!(parse_status(b"200 a\0"), Err(StatusError::Control));
        assert_eq!(parse_status(b"100 Continue"), Err(StatusError::Interim));
    }

    #[test]
    fn fields() {
        assert_eq!(check_field(b"X-A", b"b c\t\xff"), Ok(()));
        assert_eq!(check_field(b"X-A", b""), Ok(()));
        assert_eq!(check_field(b"", b"b"), Err(FieldError::EmptyName));
        for name in [&b"a b"[..], b"a:", b"a\n", b"\xe4", b"(a)", b"a\0"] {
            assert_eq!(check_field(name, b"b"), Err(FieldError::Name));
        }
        for value in [&b"a\rb"[..], b"a\n", b"\0", b"\x7f", b"a\r\n b"] {
            assert_eq!(check_field(b"X", value), Err(FieldError::Value));
        }
        for name in HOP_BY_HOP {
            let upper = name.to_ascii_uppercase();
            assert_eq!(check_field(&upper, b"x"), Err(FieldError::HopByHop));
        }
        assert_eq!(check_field(b"Content-Type", b"text/plain"), Ok(()));
    }

    #[test]
    fn content_lengths() {
        assert_eq!(parse_content_length(b"0"), Some(0));
        assert_eq!(parse_content_length(b" 13 "), Some(13));
        for bad in [
            &b""[..],
            b"-1",
            b"+1",
            b"1,2",
            b"0x1",
            b"1 2",
            b"9999999999999999999",
        ] {
            assert_eq!(parse_content_length(bad), None);
        }
    }
}
