use super::{Element, Node, from_the_right};

fn elements(value: &[u8]) -> Vec<&[u8]> {
    from_the_right(value).collect()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn elements_are_taken_from_the_right() {
    for (value, expected) in [
        ("", &[][..]),
        (" , ,", &[]),
        ("for=a", &["for=a"]),
        ("for=a, for=b", &["for=b", "for=a"]),
        (" for=a ,,\tfor=b ,", &["for=b", "for=a"]),
        (r#"for="a,b", for=c"#, &["for=c", r#"for="a,b""#]),
        (r#"for=c, for="a,b""#, &[r#"for="a,b""#, "for=c"]),
        (
            r#"a="\",", b="\\", c=d"#,
            &["c=d", r#"b="\\""#, r#"a="\",""#],
        ),
        // What a client has left open takes nothing of what follows.
        (r#"for="open, for=b"#, &["for=b", r#"for="open"#]),
        (
            r#"for="open, for="[::1]:80""#,
            &[r#"for="[::1]:80""#, r#"for="open"#],
        ),
        (r#"""", for=b"#, &["for=b", r#"""""#]),
    ] {
        let found: Vec<String> = elements(value.as_bytes()).into_iter().map(text).collect();
        assert_eq!(found, expected, "{value}");
    }
}

fn client(value: &str) -> Option<String> {
    Some(match Element::parse(value.as_bytes())?.client? {
        Node::Address(address) => address.to_string(),
        Node::Identifier(name) => text(&name),
    })
}

#[test]
fn nodes() {
    for (value, expected) in [
        ("for=192.0.2.60", "192.0.2.60"),
        ("For=\"192.0.2.60\"", "192.0.2.60"),
        ("FOR=\"192.0.2.60:4711\"", "192.0.2.60"),
        ("for=192.0.2.60:4711", "192.0.2.60"),
        ("for=\"192.0.2.60:_port\"", "192.0.2.60"),
        ("for=\"[2001:db8:CAFE::17]\"", "2001:db8:cafe::17"),
        ("for=\"[2001:db8:cafe::17]:4711\"", "2001:db8:cafe::17"),
        ("for=[2001:db8::1]", "2001:db8::1"),
        ("for=\"2001:db8::1\"", "2001:db8::1"),
        ("for=\"[::ffff:10.0.0.1]\"", "10.0.0.1"),
        ("for=unknown", "unknown"),
        ("for=\"unknown:80\"", "unknown"),
        ("for=_gazonk", "_gazonk"),
        ("for=\"_a.b-c_1:80\"", "_a.b-c_1"),
        ("for=\"\\1\\92.0.2.60\"", "192.0.2.60"),
    ] {
        assert_eq!(client(value).as_deref(), Some(expected), "{value}");
    }
}

#[test]
fn malformed_elements_say_nothing() {
    for value in [
        "for",
        "for=",
        "for =1.2.3.4",
        "for= 1.2.3.4",
        "=1.2.3.4",
        "for=\"1.2.3.4",
        "for=1.2.3.4\"",
        "for=\"1.2.3.4\"x",
        "for=\"\"",
        "for=1.2.3.4 proto=http",
        "for=1.2.3.4;for=1.2.3.5",
        "for=1.2.3.4;FOR=1.2.3.4",
        "proto=http;Proto=https",
        "for=1.2.3",
        "for=example.org",
        "for=_",
        "for=_a/b",
        "for=\"1.2.3.4:\"",
        "for=\"1.2.3.4:123456\"",
        "for=\"1.2.3.4:80:80\"",
        "for=\"[::1\"",
        "for=\"[::1]80\"",
        "for=\"[::1]:\"",
        "for=\"[1.2.3.4]\"",
        "for=\"[]\"",
        "for=\"fe80::1%eth0\"",
        "for=\"a\\",
        "for=\"\u{7f}\"",
        "host=\"a\nb\"",
        "host=a/b",
        "1.2.3.4",
        "{}",
    ] {
        assert_eq!(Element::parse(value.as_bytes()), None, "{value}");
    }
}

#[test]
fn parameters() {
    let value = br#"for=192.0.2.43;by="[::1]:1";;Host="example.org:8443" ; PROTO=https;x="\"""#;
    let element = Element::parse(value).unwrap();
    assert_eq!(element.host.as_deref(), Some(&b"example.org:8443"[..]));
    assert_eq!(element.scheme.as_deref(), Some(&b"https"[..]));
    assert_eq!(Element::parse(b";"), Some(Element::default()));
    let escaped = Element::parse(br#"host="ex\ample.org""#).unwrap();
    assert_eq!(escaped.host.as_deref(), Some(&b"example.org"[..]));
}

/// xorshift64*, for tests that try many inputs.
struct Random(u64);

impl Random {
    fn next(&mut self, below: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % below
    }

    fn bytes(&mut self, alphabet: &[u8], longest: usize) -> Vec<u8> {
        (0..self.next(longest + 1))
            .map(|_| alphabet[self.next(alphabet.len())])
            .collect()
    }

    /// A well-formed element.
    fn element(&mut self) -> Vec<u8> {
        let mut element = Vec::new();
        for name in ["for", "by", "host", "proto", "ext"] {
            if self.next(3) == 0 && !element.is_empty() {
                continue;
            }
            if !element.is_empty() {
                element.push(b';');
            }
            element.extend_from_slice(name.as_bytes());
            element.push(b'=');
            match name {
                "for" => element.extend_from_slice(b"\"[2001:db8::1]:80\""),
                _ if self.next(2) == 0 => element.extend_from_slice(b"token"),
                _ => {
                    element.push(b'"');
                    for byte in self.bytes(b"ab,;=\"\\ ", 8) {
                        if matches!(byte, b'"' | b'\\') {
                            element.push(b'\\');
                        }
                        element.push(byte);
                    }
                    element.push(b'"');
                }
            }
        }
        element
    }
}

/// Nothing that stands before the elements of trusted proxies changes what these say.
#[test]
fn what_proxies_append_is_found_after_any_text() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for round in 0..20_000 {
        let anything = random.bytes(b"\"\",,;;==\\\\ab[]:. \t\x01\xff", 24);
        let appended: Vec<Vec<u8>> = (0..=random.next(3)).map(|_| random.element()).collect();
        let mut value = anything.clone();
        for element in &appended {
            value.extend_from_slice(b", ");
            value.extend_from_slice(element);
        }
        let found = elements(&value);
        for (element, found) in appended.iter().rev().zip(&found) {
            assert_eq!(text(element), text(found), "{round}: {}", text(&value));
            assert!(Element::parse(found).is_some(), "{round}: {}", text(found));
        }
        assert!(found.len() >= appended.len(), "{round}");
        // All of it can be taken apart without harm, and nothing is invented.
        for element in found {
            let _ = Element::parse(element);
            assert!(value.windows(element.len()).any(|part| part == element));
        }
    }
}
