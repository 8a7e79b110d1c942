//! Whether the head of a response may be given to httpd.
//!
//! The gateway has checked what the application said; but a worker runs the application's code,
//! and what that code can write to the wire must not become a response that the server would not
//! have sent.

#![forbid(unsafe_code)]

use crate::exchange::response::{FieldError, ResponseHead, StatusError, check_field, parse_status};

/// Checks status and fields.
///
/// # Errors
/// What is wrong.
#[inline]
pub fn check(head: &ResponseHead<'_>) -> Result<(), &'static str> {
    match parse_status(head.status_line.bytes()) {
        Ok(status) if status == head.status => {}
        _ => return Err("the status line"),
    }
    check_fields(head)
}

/// Checks status and fields of an interim response: 102 to 199, but for 101, which ends HTTP.
///
/// # Errors
/// What is wrong.
pub fn check_interim(head: &ResponseHead<'_>) -> Result<(), &'static str> {
    let line = head.status_line.bytes();
    let agrees = line.starts_with(head.status.to_string().as_bytes());
    if !matches!(head.status, 102..=199)
        || parse_status(line) != Err(StatusError::Interim)
        || !agrees
    {
        return Err("the status line");
    }
    if head.content_length >= 0 {
        return Err("Content-Length of an interim response");
    }
    check_fields(head)
}

/// Checks the fields that follow a body: they say nothing of its length (RFC 9110 section 6.5.1).
///
/// # Errors
/// What is wrong.
pub fn check_trailers(head: &ResponseHead<'_>) -> Result<(), &'static str> {
    if head.content_length >= 0 {
        return Err("Content-Length among the trailers");
    }
    check_fields(head)
}

#[inline(always)]
fn check_fields(head: &ResponseHead<'_>) -> Result<(), &'static str> {
    for field in head.headers.items() {
        let name = field.name.bytes();
        if check_field(name, field.value.bytes()).is_err() {
            return Err("a header field");
        }
        // It has a place of its own, where it is a number.
        if name.len() == 14 && name.eq_ignore_ascii_case(b"Content-Length") {
            return Err("Content-Length among the header fields");
        }
    }
    Ok(())
}

/// Checks the head of a switch of protocols, which names the new one.
///
/// # Errors
/// What is wrong.
pub fn check_switch(head: &ResponseHead<'_>) -> Result<(), &'static str> {
    if head.status != 101 {
        return Err("the status of a switch of protocols");
    }
    let mut names_it = false;
    for field in head.headers.items() {
        let name = field.name.bytes();
        let is = |which: &[u8]| name.eq_ignore_ascii_case(which);
        match check_field(name, field.value.bytes()) {
            Ok(()) if is(b"Content-Length") => {
                return Err("Content-Length in a switch of protocols");
            }
            Ok(()) => {}
            // It comes after the characters of the value have been looked at.
            Err(FieldError::HopByHop) if is(b"Upgrade") => names_it = true,
            Err(FieldError::HopByHop) if is(b"Connection") => {}
            Err(_) => return Err("a header field"),
        }
    }
    if names_it {
        Ok(())
    } else {
        Err("no Upgrade in a switch of protocols")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::{Pair, Slice};

    fn verdict(status: u16, line: &str, name: &str, value: &str) -> bool {
        let fields = [Pair {
            name: name.into(),
            value: value.into(),
        }];
        check(&ResponseHead {
            status,
            status_line: line.into(),
            headers: Slice::new(&fields),
            content_length: -1,
        })
        .is_ok()
    }

    #[test]
    fn only_valid_interim_heads_pass() {
        let fields = [Pair {
            name: "Link".into(),
            value: "</a.css>; rel=preload".into(),
        }];
        let good = ResponseHead {
            status: 103,
            status_line: "103 Early Hints".into(),
            headers: Slice::new(&fields),
            content_length: -1,
        };
        assert_eq!(check_interim(&good), Ok(()));
        for (status, line) in [(103, "103"), (102, "102 Processing"), (199, "199 Odd")] {
            let head = ResponseHead {
                status,
                status_line: line.into(),
                ..good
            };
            assert_eq!(check_interim(&head), Ok(()), "{line}");
        }
        for (status, line) in [
            (100, "100 Continue"),
            (101, "101 Switching Protocols"),
            (200, "200 OK"),
            (103, "102 Processing"),
            (103, "103\r\nX: y"),
            (103, "103 Early\r\nX: y"),
            (103, "1030"),
            (103, ""),
        ] {
            let head = ResponseHead {
                status,
                status_line: line.into(),
                ..good
            };
            assert!(check_interim(&head).is_err(), "{line}");
        }
        let counted = ResponseHead {
            content_length: 0,
            ..good
        };
        assert!(check_interim(&counted).is_err());
        let fields = [Pair {
            name: "Link".into(),
            value: "a\r\nb".into(),
        }];
        let split = ResponseHead {
            headers: Slice::new(&fields),
            ..good
        };
        assert!(check_interim(&split).is_err());
    }

    #[test]
    fn only_valid_heads_pass() {
        assert!(verdict(200, "200 OK", "X-A", "b"));
        assert!(verdict(404, "404", "Set-Cookie", ""));
        assert!(!verdict(200, "404 Not Found", "X-A", "b"));
        assert!(!verdict(100, "100 Continue", "X-A", "b"));
        assert!(!verdict(99, "099 Odd", "X-A", "b"));
        assert!(!verdict(200, "200 OK\r\nX: y", "X-A", "b"));
        assert!(!verdict(200, "200 OK", "X A", "b"));
        assert!(!verdict(200, "200 OK", "", "b"));
        assert!(!verdict(200, "200 OK", "X-A", "b\r\nc"));
        assert!(!verdict(200, "200 OK", "Transfer-Encoding", "chunked"));
        assert!(!verdict(200, "200 OK", "connection", "close"));
        assert!(!verdict(200, "200 OK", "content-length", "5"));
    }

    #[test]
    fn a_switch_names_its_protocol_and_nothing_that_is_not_its_business() {
        let verdict = |status: u16, fields: &[(&'static str, &'static str)]| {
            let fields: Vec<Pair<'_>> = fields
                .iter()
                .map(|&(name, value)| Pair {
                    name: name.into(),
                    value: value.into(),
                })
                .collect();
            check_switch(&ResponseHead {
                status,
                status_line: "101 Switching Protocols".into(),
                headers: Slice::new(&fields),
                content_length: -1,
            })
            .is_ok()
        };
        let upgrade = ("Upgrade", "websocket");
        assert!(verdict(
            101,
            &[upgrade, ("connection", "upgrade"), ("X", "y")]
        ));
        assert!(!verdict(200, &[upgrade]));
        assert!(!verdict(101, &[("X", "y")]));
        assert!(!verdict(101, &[("Upgrade", "a\r\nb")]));
        assert!(!verdict(101, &[upgrade, ("Transfer-Encoding", "chunked")]));
        assert!(!verdict(101, &[upgrade, ("content-length", "5")]));
        assert!(!verdict(101, &[upgrade, ("X Y", "5")]));
    }
}
