//! `Forwarded`, RFC 7239.

use super::*;

#[test]
fn forwarded_chains() {
    for (value, client, host, https, kept) in [
        (
            "for=1.1.1.1;host=a;proto=https",
            "1.1.1.1",
            "a",
            true,
            "for=1.1.1.1;host=a;proto=https",
        ),
        // The client's own words are cut off.
        (
            "for=6.6.6.6;host=evil, for=1.1.1.1",
            "1.1.1.1",
            "h",
            false,
            "for=1.1.1.1",
        ),
        (
            "host=evil;proto=https, for=1.1.1.1;host=a",
            "1.1.1.1",
            "a",
            false,
            "for=1.1.1.1;host=a",
        ),
        // Through two proxies: what the outer one says of host and scheme counts.
        (
            "for=6.6.6.6;host=evil, for=1.1.1.1;proto=https;host=a, for=10.0.0.2;proto=http;host=b",
            "1.1.1.1",
            "a",
            true,
            "for=1.1.1.1;proto=https;host=a, for=10.0.0.2;proto=http;host=b",
        ),
        // The outer one says nothing of them.
        (
            "for=1.1.1.1, for=\"10.0.0.2:80\";host=b",
            "1.1.1.1",
            "b",
            false,
            "for=1.1.1.1, for=\"10.0.0.2:80\";host=b",
        ),
        (
            "for=\"[2001:db9::1]:7\", for=\"[2001:db8::9]\"",
            "2001:db9::1",
            "h",
            false,
            "for=\"[2001:db9::1]:7\", for=\"[2001:db8::9]\"",
        ),
        (
            "for=10.0.0.3, for=10.0.0.2",
            "10.0.0.3",
            "h",
            false,
            "for=10.0.0.3, for=10.0.0.2",
        ),
        (
            "for=_hidden, for=10.0.0.2",
            "_hidden",
            "h",
            false,
            "for=_hidden, for=10.0.0.2",
        ),
        (
            "for=6.6.6.6, for=unknown",
            "unknown",
            "h",
            false,
            "for=unknown",
        ),
        (
            "for=6.6.6.6, for=_x;host=a",
            "_x",
            "a",
            false,
            "for=_x;host=a",
        ),
        // A proxy that does not name its client ends the walk.
        (
            "for=6.6.6.6;host=evil, proto=https, for=10.0.0.2",
            "10.0.0.2",
            "h",
            true,
            "proto=https, for=10.0.0.2",
        ),
        (
            "for=6.6.6.6, proto=https",
            "10.0.0.1",
            "h",
            true,
            "proto=https",
        ),
        // So does what is malformed.
        (
            "for=6.6.6.6, for=10.0.0.9;, \"x, for=10.0.0.2",
            "10.0.0.2",
            "h",
            false,
            "for=10.0.0.2",
        ),
        (
            "for=\"6.6.6.6, for=1.1.1.1",
            "1.1.1.1",
            "h",
            false,
            "for=1.1.1.1",
        ),
        (
            "for=\"6.6.6.6, for=10.0.0.2",
            "10.0.0.2",
            "h",
            false,
            "for=10.0.0.2",
        ),
        // If it is the peer's own element, the client is not known.
        ("for=1.1.1.1, for=", "unknown", "h", false, "for=unknown"),
        (
            "for=1.1.1.1;host=evil for=2.2.2.2",
            "unknown",
            "h",
            false,
            "for=unknown",
        ),
        ("{{garbage}}", "unknown", "h", false, "for=unknown"),
    ] {
        let seen = seen(Case {
            trust: &["Forwarded"],
            proxies: Some(PROXIES),
            headers: &[("Host", "h"), ("Forwarded", value)],
            ..CASE
        });
        let found = (seen.client.as_str(), seen.header("Host"), seen.https);
        assert_eq!(found, (client, Some(host), https), "{value}");
        assert_eq!(seen.header("Forwarded"), Some(kept), "{value}");
    }
}

#[test]
fn forwarded_chains_of_anybody() {
    let value = "garbage, for=1.1.1.1;proto=https, for=2.2.2.2;host=a;proto=http, host=b";
    let case = Case {
        trust: &["Forwarded"],
        headers: &[("Host", "h"), ("Forwarded", value)],
        ..CASE
    };
    let seen = seen(case);
    assert_eq!(seen.client, "1.1.1.1");
    assert_eq!(seen.header("Host"), Some("a"));
    assert_eq!(seen.header("Forwarded"), Some(value));
    assert!(seen.https);
}

#[test]
fn forwarded_shares_its_categories() {
    let headers = [
        ("Forwarded", "for=1.1.1.1;proto=https;host=a"),
        ("X-Forwarded-For", "2.2.2.2"),
        ("X-Forwarded-Proto", "http"),
        ("X-Forwarded-Host", "b"),
        ("X-Forwarded-Port", "99"),
        ("Host", "h"),
    ];
    let found = seen(Case {
        trust: &["Forwarded", "X-Forwarded-Proto"],
        headers: &headers,
        ..CASE
    });
    assert_eq!((found.client.as_str(), found.https), ("1.1.1.1", false));
    assert_eq!(found.header("Host"), Some("a"));
    let names: Vec<&str> = found
        .headers
        .iter()
        .map(|(name, _)| name.as_str())
        .collect();
    assert_eq!(
        names,
        ["Forwarded", "X-Forwarded-Proto", "X-Forwarded-Port", "Host"]
    );
    // Where it is not configured, it cannot speak for a category that another header manages.
    let found = seen(Case {
        trust: &["X-Forwarded-For"],
        headers: &headers,
        ..CASE
    });
    assert_eq!(found.header("Forwarded"), None);
    assert_eq!(found.header("X-Forwarded-Host"), Some("b"));
}
