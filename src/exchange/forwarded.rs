//! The header field `Forwarded`, RFC 7239.
//!
//! Every proxy adds an element at the end; what stands before it may come from anybody. Elements
//! are therefore taken off from the right: what a trusted proxy has appended is found whatever the
//! text before it does, an unbalanced quote for example, and a malformed element ends the walk.

#![forbid(unsafe_code)]

use core::net::IpAddr;
use std::borrow::Cow;

use super::subnet;

/// The identifier of a client that is not disclosed, RFC 7239 section 6.2.
pub const UNKNOWN: &[u8] = b"unknown";

/// Who made a request, RFC 7239 section 6.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node<'a> {
    /// An address; its port is left out.
    Address(IpAddr),
    /// `unknown`, or an obfuscated identifier with its underscore.
    Identifier(Cow<'a, [u8]>),
}

/// The parameters of an element that are of use here; `by` and unknown ones are checked for their
/// form only.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Element<'a> {
    /// `for`.
    pub client: Option<Node<'a>>,
    /// `host`.
    pub host: Option<Cow<'a, [u8]>>,
    /// `proto`.
    pub scheme: Option<Cow<'a, [u8]>>,
}

/// The elements of a field value, the last one first, without the blanks around them; empty ones
/// are left out (RFC 9110 section 5.6.1).
pub fn from_the_right(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(value);
    core::iter::from_fn(move || {
        loop {
            let text = rest?;
            let element = match last_comma(text) {
                Some(comma) => {
                    rest = Some(&text[..comma]);
                    &text[comma + 1..]
                }
                None => {
                    rest = None;
                    text
                }
            };
            let element = element.trim_ascii();
            if !element.is_empty() {
                return Some(element);
            }
        }
    })
}

/// The last comma that stands in no quoted string, seen from the end.
fn last_comma(text: &[u8]) -> Option<usize> {
    let mut end = text.len();
    loop {
        end -= text[..end]
            .iter()
            .rev()
            .position(|c| matches!(c, b',' | b'"'))?
            + 1;
        if text[end] == b',' {
            return Some(end);
        }
        // The end of a quoted string: on to its beginning. A string without one takes all.
        end = opening_quote(&text[..end])?;
    }
}

/// The last quote that is not escaped.
fn opening_quote(text: &[u8]) -> Option<usize> {
    let mut end = text.len();
    loop {
        end -= text[..end].iter().rev().position(|c| *c == b'"')? + 1;
        let backslashes = text[..end]
            .iter()
            .rev()
            .take_while(|c| **c == b'\\')
            .count();
        if backslashes % 2 == 0 {
            return Some(end);
        }
    }
}

impl<'a> Element<'a> {
    /// Takes an element apart. `None` if it is malformed in any way: then nothing of it counts.
    pub fn parse(text: &'a [u8]) -> Option<Element<'a>> {
        let mut element = Element::default();
        let mut seen: Vec<&[u8]> = Vec::new();
        let mut rest = text;
        loop {
            rest = rest.trim_ascii_start();
            if rest.first().is_some_and(|c| *c != b';') {
                let ((name, value), after) = pair(rest)?;
                if seen.iter().any(|other| other.eq_ignore_ascii_case(name)) {
                    return None;
                }
                seen.push(name);
                match name {
                    _ if name.eq_ignore_ascii_case(b"for") => element.client = Some(node(value)?),
                    _ if name.eq_ignore_ascii_case(b"host") => element.host = Some(value),
                    _ if name.eq_ignore_ascii_case(b"proto") => element.scheme = Some(value),
                    _ => {}
                }
                rest = after.trim_ascii_start();
            }
            match rest.split_first() {
                None => return Some(element),
                Some((b';', after)) => rest = after,
                Some(_) => return None,
            }
        }
    }
}

/// A name and its value, without quotes.
type Pair<'a> = (&'a [u8], Cow<'a, [u8]>);

/// `token=value` at the beginning of `text`: name, value, and what follows.
fn pair(text: &[u8]) -> Option<(Pair<'_>, &[u8])> {
    let equals = text.iter().position(|c| !is_token(*c))?;
    let (name, rest) = text.split_at(equals);
    let rest = rest.strip_prefix(b"=").filter(|_| !name.is_empty())?;
    if let Some(quoted) = rest.strip_prefix(b"\"") {
        let (value, after) = unquote(quoted)?;
        return Some(((name, value), after));
    }
    // Colons and brackets ought to be quoted, but their meaning is plain.
    let end = rest
        .iter()
        .position(|c| !is_token(*c) && !matches!(c, b':' | b'[' | b']'))
        .unwrap_or(rest.len());
    let (value, after) = rest.split_at(end);
    (!value.is_empty()).then_some(((name, Cow::Borrowed(value)), after))
}

/// The value of a quoted string whose first quote has been taken off, and what follows it.
fn unquote(text: &[u8]) -> Option<(Cow<'_, [u8]>, &[u8])> {
    let stop = text.iter().position(|c| matches!(c, b'"' | b'\\'))?;
    let mut value = Vec::new();
    if text[stop] == b'"' {
        let plain = &text[..stop];
        let printable = plain.iter().all(|c| is_text(*c));
        return printable.then_some((Cow::Borrowed(plain), &text[stop + 1..]));
    }
    let mut rest = text;
    loop {
        match *rest {
            [b'"', ref after @ ..] => return Some((Cow::Owned(value), after)),
            [b'\\', c, ref after @ ..] if is_text(c) => {
                value.push(c);
                rest = after;
            }
            [c, ref after @ ..] if is_text(c) && c != b'\\' => {
                value.push(c);
                rest = after;
            }
            _ => return None,
        }
    }
}

/// RFC 7239 section 6: an address or a name for one, and a port that is left out.
fn node(value: Cow<'_, [u8]>) -> Option<Node<'_>> {
    let text: &[u8] = &value;
    if let Some(bracketed) = text.strip_prefix(b"[") {
        let end = bracketed.iter().position(|c| *c == b']')?;
        let port = &bracketed[end + 1..];
        if !port.is_empty() && !port.strip_prefix(b":").is_some_and(is_port) {
            return None;
        }
        let inner = &bracketed[..end];
        return subnet::address(inner)
            .filter(|_| inner.contains(&b':'))
            .map(Node::Address);
    }
    // An IPv6 address without brackets is not allowed, but its meaning is plain.
    if let Some(address) = subnet::address(text) {
        return Some(Node::Address(address));
    }
    let mut parts = text.splitn(2, |c| *c == b':');
    let name = parts.next()?;
    if !parts.next().is_none_or(is_port) {
        return None;
    }
    if let Some(address) = subnet::address(name) {
        return Some(Node::Address(address));
    }
    if !name.eq_ignore_ascii_case(UNKNOWN) && !is_obfuscated(name) {
        return None;
    }
    let length = name.len();
    Some(Node::Identifier(match value {
        Cow::Borrowed(text) => Cow::Borrowed(&text[..length]),
        Cow::Owned(mut text) => {
            text.truncate(length);
            Cow::Owned(text)
        }
    }))
}

fn is_port(text: &[u8]) -> bool {
    (1..=5).contains(&text.len()) && text.iter().all(u8::is_ascii_digit) || is_obfuscated(text)
}

fn is_obfuscated(text: &[u8]) -> bool {
    let plain = |c: &u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-');
    text.len() > 1 && text[0] == b'_' && text.iter().all(plain)
}

/// The characters of a token, RFC 9110 section 5.6.2.
fn is_token(c: u8) -> bool {
    c.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&c)
}

/// What may stand in a quoted string.
fn is_text(c: u8) -> bool {
    c == b'\t' || (c >= 0x20 && c != 0x7f)
}

#[cfg(test)]
mod tests;
