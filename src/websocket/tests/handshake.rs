//! The opening handshake.

use super::Deflate;
use crate::websocket::handshake::{Offer, Refusal, is_websocket, parse};

type Fields<'a> = Vec<(&'a str, &'a str)>;

fn fields<'a>() -> Fields<'a> {
    vec![
        ("Host", "example.com"),
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("Sec-WebSocket-Version", "13"),
    ]
}

fn replaced<'a>(name: &str, value: &'a str) -> Fields<'a> {
    let mut fields = fields();
    for field in &mut fields {
        if field.0 == name {
            field.1 = value;
        }
    }
    fields
}

fn with<'a>(more: &[(&'a str, &'a str)]) -> Fields<'a> {
    let mut fields = fields();
    fields.extend(more);
    fields
}

fn bytes<'a>(fields: &'a Fields<'a>) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
    fields
        .iter()
        .map(|(name, value)| (name.as_bytes(), value.as_bytes()))
}

fn read<'a>(fields: &'a Fields<'a>) -> Result<Offer<'a>, Refusal> {
    parse(b"GET", bytes(fields))
}

#[test]
fn the_example_of_the_rfc_is_accepted() {
    let fields = fields();
    let offer = read(&fields).unwrap();
    assert_eq!(offer.subprotocols().count(), 0);
    let accept = offer.accept(true);
    assert_eq!(accept.key, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    assert_eq!((accept.extensions, accept.deflate), (None, None));
}

#[test]
fn upgrades_are_found_in_lists_of_any_case() {
    for fields in [
        replaced("Upgrade", "WebSocket"),
        replaced("Upgrade", "h2c, websocket"),
        replaced("Connection", "keep-alive, Upgrade"),
        replaced("Connection", "keep-alive ,\tupgrade,"),
        with(&[("Connection", "close"), ("upgrade", "other")]),
        fields()
            .into_iter()
            .map(|(name, value)| (name.to_ascii_lowercase().leak() as &str, value))
            .collect(),
    ] {
        assert!(is_websocket(bytes(&fields)), "{fields:?}");
        assert!(read(&fields).is_ok(), "{fields:?}");
    }
}

#[test]
fn other_requests_are_ordinary() {
    for fields in [
        replaced("Upgrade", "h2c"),
        replaced("Upgrade", ""),
        replaced("Upgrade", "websocket2"),
        replaced("Connection", "keep-alive"),
        vec![("Upgrade", "websocket")],
        vec![("Connection", "upgrade")],
        Vec::new(),
    ] {
        assert!(!is_websocket(bytes(&fields)), "{fields:?}");
        assert_eq!(read(&fields), Err(Refusal::NotWebSocket), "{fields:?}");
    }
    let fields = fields();
    for method in [&b"POST"[..], b"HEAD", b"get", b"CONNECT"] {
        assert_eq!(parse(method, bytes(&fields)), Err(Refusal::NotWebSocket));
    }
}

#[test]
fn other_versions_are_told_ours() {
    for version in ["8", "14", "013", "", "13, 8"] {
        let fields = replaced("Sec-WebSocket-Version", version);
        assert_eq!(read(&fields), Err(Refusal::Version));
    }
    // Whatever the rest looks like.
    let mut fields = replaced("Sec-WebSocket-Version", "8");
    fields.retain(|(name, _)| *name != "Sec-WebSocket-Key");
    assert_eq!(read(&fields), Err(Refusal::Version));
}

#[test]
fn what_is_missing_or_invalid_is_refused() {
    for name in ["Sec-WebSocket-Key", "Sec-WebSocket-Version"] {
        let mut fields = fields();
        fields.retain(|field| field.0 != name);
        assert!(
            matches!(read(&fields), Err(Refusal::BadRequest(_))),
            "{name}"
        );
        let fields = with(&[(name, "13")]);
        assert!(
            matches!(read(&fields), Err(Refusal::BadRequest(_))),
            "{name}"
        );
    }
    for key in [
        "",
        "dGhlIHNhbXBsZSBub25jZQ",
        "dGhlIHNhbXBsZSBub25jZQ=",
        "dGhlIHNhbXBsZSBub25jZ===",
        "dGhlIHNhbXBsZSBub25jZQAA",
        "dGhlIHNhbXBsZSBub25j\u{e4}==",
        "dGhlIHNhbXBsZSBub25jZQ==, dGhlIHNhbXBsZSBub25jZQ==",
    ] {
        let fields = replaced("Sec-WebSocket-Key", key);
        assert!(
            matches!(read(&fields), Err(Refusal::BadRequest(_))),
            "{key}"
        );
    }
    for (name, value) in [
        ("Sec-WebSocket-Protocol", "a, \u{e4}"),
        ("Sec-WebSocket-Protocol", "a\nb"),
        ("Sec-WebSocket-Extensions", "permessage-deflate; ="),
        ("Sec-WebSocket-Extensions", "permessage-deflate, ;"),
        ("Sec-WebSocket-Extensions", "permessage-deflate x"),
        ("Sec-WebSocket-Extensions", "a; b=\"c"),
        ("Sec-WebSocket-Extensions", "a; b=\"\""),
        ("Sec-WebSocket-Extensions", "a; b=\u{e4}"),
    ] {
        let fields = with(&[(name, value)]);
        assert!(
            matches!(read(&fields), Err(Refusal::BadRequest(_))),
            "{value}"
        );
    }
}

#[test]
fn subprotocols_keep_their_order() {
    let fields = with(&[
        ("Sec-WebSocket-Protocol", "chat, superchat,,"),
        ("sec-websocket-protocol", " graphql-ws\t, base64.bearer "),
    ]);
    let offer = read(&fields).unwrap();
    let subprotocols: Vec<_> = offer.subprotocols().collect();
    assert_eq!(
        subprotocols,
        ["chat", "superchat", "graphql-ws", "base64.bearer"]
    );
}

const ANSWER: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";

/// The window of what is agreed on, if anything is.
fn agreed(extensions: &[&str]) -> Option<Option<u8>> {
    let more: Vec<_> = extensions
        .iter()
        .map(|value| ("Sec-WebSocket-Extensions", *value))
        .collect();
    let fields = with(&more);
    let offer = read(&fields).unwrap();
    assert_eq!(offer.accept(false).extensions, None);
    assert_eq!(offer.accept(false).deflate, None);
    let accept = offer.accept(true);
    let expected = accept.deflate.map(|Deflate { window }| match window {
        None => ANSWER.to_owned(),
        Some(bits) => format!("{ANSWER}; server_max_window_bits={bits}"),
    });
    assert_eq!(accept.extensions, expected);
    accept.deflate.map(|deflate| deflate.window)
}

#[test]
fn offers_of_compression_are_taken() {
    for offer in [
        "permessage-deflate",
        "permessage-deflate; client_max_window_bits",
        "permessage-deflate;client_max_window_bits=8;server_no_context_takeover",
        "permessage-deflate; client_no_context_takeover; client_max_window_bits=\"15\"",
        "foo, permessage-deflate",
        "foo; bar=baz; quux , , permessage-deflate",
    ] {
        assert_eq!(agreed(&[offer]), Some(None), "{offer}");
    }
    for bits in 9..=15 {
        let offer = format!("permessage-deflate; server_max_window_bits={bits}");
        assert_eq!(agreed(&[&offer]), Some(Some(bits)));
    }
}

#[test]
fn the_first_offer_that_can_be_taken_is() {
    let eight = "permessage-deflate; server_max_window_bits=8";
    let ten = "permessage-deflate; server_max_window_bits = \"10\"";
    assert_eq!(
        agreed(&[&format!("{eight}, {ten}, permessage-deflate")]),
        Some(Some(10))
    );
    assert_eq!(agreed(&[eight, "permessage-deflate", ten]), Some(None));
    assert_eq!(agreed(&[eight, "permessage-bzip2"]), None);
}

#[test]
fn invalid_offers_are_declined() {
    for parameters in [
        "server_max_window_bits",
        "server_max_window_bits=7",
        "server_max_window_bits=16",
        "server_max_window_bits=09",
        "server_max_window_bits=1",
        "client_max_window_bits=7",
        "client_max_window_bits=100",
        "client_max_window_bits=x",
        "server_no_context_takeover=1",
        "client_no_context_takeover=true",
        "server_no_context_takeover; server_no_context_takeover",
        "client_no_context_takeover; client_no_context_takeover",
        "server_max_window_bits=10; server_max_window_bits=10",
        "client_max_window_bits; client_max_window_bits=10",
        "unknown",
        "unknown=1",
    ] {
        let offer = format!("permessage-deflate; {parameters}");
        assert_eq!(agreed(&[&offer]), None, "{offer}");
        assert_eq!(
            agreed(&[&offer, "permessage-deflate"]),
            Some(None),
            "{offer}"
        );
    }
}
