//! What each header changes, and which one counts.

use super::*;

#[test]
fn the_table_is_in_the_order_of_the_headers() {
    for (index, (header, name, categories)) in HEADERS.iter().enumerate() {
        assert_eq!(*header as usize, index);
        assert_eq!(Header::named(name.as_bytes()), Some(*header));
        let upper = name.to_ascii_uppercase().replace('-', "_");
        assert_eq!(
            Header::named(name.to_ascii_uppercase().as_bytes()),
            Some(*header)
        );
        assert_eq!(
            Header::of_variable(format!("HTTP_{upper}").as_bytes()),
            Some(*header)
        );
        assert!(!categories.is_empty());
    }
    // httpd's side drops fields with an underscore; here they are not even looked at.
    assert_eq!(Header::named(b"X_Forwarded_For"), None);
    for name in [
        "",
        "X-Forwarded",
        "HTTP_X_FORWARDED_FOR",
        "Host",
        "X-Forwarded-For2",
    ] {
        assert_eq!(Header::named(name.as_bytes()), None, "{name}");
    }
}

#[test]
fn each_header_changes_its_variable() {
    for (name, value, change) in EACH {
        let case = Case {
            trust: &[name],
            headers: &[("Host", "h"), (name, value), ("A", "b")],
            ..CASE
        };
        assert_eq!(seen(case), expected(case, change), "{name}: {value}");
        let proxied = Case {
            proxies: Some(PROXIES),
            ..case
        };
        assert_eq!(seen(proxied), expected(case, change), "{name}: {value}");
    }
    for name in ["X-Forwarded-Host", "X-Host"] {
        let case = Case {
            trust: &[name],
            headers: &[
                ("A", "b"),
                ("HOST", "inner:8080"),
                (name, "outer:80"),
                ("host", "x"),
            ],
            ..CASE
        };
        let headers = [("A", "b"), ("HOST", "outer:80"), (name, "outer:80")];
        assert_eq!(
            seen(case),
            expected(
                Case {
                    headers: &headers,
                    ..case
                },
                |_| ()
            )
        );
        let case = Case {
            headers: &[(name, "outer")],
            ..case
        };
        let headers = [(name, "outer"), ("Host", "outer")];
        assert_eq!(
            seen(case),
            expected(
                Case {
                    headers: &headers,
                    ..case
                },
                |_| ()
            )
        );
    }
}

#[test]
fn without_configuration_nothing_changes() {
    let headers: Vec<(&str, &str)> = EACH
        .iter()
        .map(|(name, value, _)| (*name, *value))
        .collect();
    let case = Case {
        headers: &headers,
        ..CASE
    };
    assert_eq!(seen(case), expected(case, |_| ()));
}

#[test]
fn the_last_configured_header_that_was_sent_wins() {
    let headers = [("X-Real-IP", "1.1.1.1"), ("X-Client-IP", "2.2.2.2")];
    for (trust, client, kept) in [
        (&["X-Real-IP", "X-Client-IP"][..], "2.2.2.2", "X-Client-IP"),
        (&["X-Client-IP", "X-Real-IP"], "1.1.1.1", "X-Real-IP"),
        (
            &["X-Client-IP", "X-Real-IP", "X-Forwarded-For"],
            "1.1.1.1",
            "X-Real-IP",
        ),
        (&["X-Client-IP"], "2.2.2.2", "X-Client-IP"),
    ] {
        let seen = seen(Case {
            trust,
            headers: &headers,
            ..CASE
        });
        assert_eq!(seen.client, client);
        let names: Vec<&str> = seen.headers.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, [kept]);
    }
    // A list that was rewritten and then lost does not come back.
    let seen = seen(Case {
        trust: &["X-Forwarded-For", "Forwarded", "X-Real-IP"],
        proxies: Some(PROXIES),
        headers: &[
            ("Forwarded", "for=3.3.3.3"),
            ("X-Forwarded-For", "4.4.4.4"),
            ("X-Real-IP", "1.1.1.1"),
        ],
        ..CASE
    });
    assert_eq!(seen.client, "1.1.1.1");
    assert_eq!(
        seen.headers,
        [("X-Real-IP".to_owned(), "1.1.1.1".to_owned())]
    );
}

#[test]
fn schemes() {
    for (headers, tls, variable, https) in [
        (&[("X-Forwarded-Proto", "http")][..], true, false, false),
        (&[("X-Forwarded-Proto", "http")], false, true, false),
        (&[("X-Forwarded-Proto", "https")], false, false, true),
        // Not understood: no change, but the connection's own protection does not count.
        (&[("X-Forwarded-Proto", "gopher")], true, false, false),
        (&[("X-Forwarded-Proto", "gopher")], false, true, true),
        (&[("X-Forwarded-Proto", "https, http")], false, false, false),
        (
            &[("X-Forwarded-Proto", "https"), ("X-Forwarded-SSL", "maybe")],
            false,
            false,
            true,
        ),
        (
            &[("X-Forwarded-Proto", "https"), ("X-Forwarded-SSL", "off")],
            false,
            false,
            false,
        ),
        (&[("X-Forwarded-SSL", "FALSE")], true, false, false),
        (&[("X-Forwarded-SSL", "0")], true, true, false),
        // Nothing said.
        (&[("X-Forwarded-Proto", "")], true, false, true),
        (&[("Forwarded", "proto=http")], true, false, false),
        (&[("Forwarded", "proto=HTTPS")], false, false, true),
        (&[("Forwarded", "proto=ws")], true, false, false),
        (&[("Forwarded", "for=1.1.1.1")], true, false, true),
    ] {
        let seen = seen(Case {
            trust: &["X-Forwarded-Proto", "X-Forwarded-SSL", "Forwarded"],
            headers,
            tls,
            https_variable: variable,
            ..CASE
        });
        assert_eq!(seen.https, https, "{headers:?} {tls} {variable}");
    }
}

#[test]
fn impossible_values_change_nothing_but_count_as_sent() {
    for (name, value) in [
        ("X-Forwarded-Port", "0"),
        ("X-Forwarded-Port", "65536"),
        ("X-Forwarded-Port", "443, 80"),
        ("X-Forwarded-Port", "+443"),
        ("X-Forwarded-Port", "https"),
        ("X-Forwarded-Host", "evil, good"),
        ("X-Forwarded-Host", "evil/path"),
        ("X-Forwarded-Host", "a b"),
        ("X-Forwarded-Host", "user@host"),
        ("X-Host", "\u{fc}"),
        ("X-Forwarded-Server", "<script>"),
        ("X-Forwarded-Server", "a\tb"),
        ("X-Script-Name", "m"),
        ("X-Script-Name", "//evil"),
        ("X-Forwarded-Script-Name", "http://evil/"),
        ("X-Forwarded-Prefix", "//evil/"),
        ("X-Forwarded-Prefix", "a"),
        ("X-Forwarded-Prefix", "/evil, /m"),
        ("Forwarded", "host=\"evil/path\""),
    ] {
        let case = Case {
            trust: &[name],
            headers: &[("Host", "h"), (name, value)],
            ..CASE
        };
        assert_eq!(seen(case), expected(case, |_| ()), "{name}: {value}");
    }
    for name in [
        "X-Forwarded-Port",
        "X-Forwarded-Host",
        "X-Forwarded-Server",
        "X-Real-IP",
    ] {
        let case = Case {
            trust: &[name],
            headers: &[("Host", "h"), (name, "")],
            ..CASE
        };
        let dropped = Case {
            headers: &[("Host", "h")],
            ..case
        };
        assert_eq!(seen(case), expected(dropped, |_| ()), "{name}");
    }
}

#[test]
fn repeated_fields_are_joined() {
    let seen = seen(Case {
        trust: &["X-Forwarded-For"],
        proxies: Some(PROXIES),
        headers: &[
            ("X-Forwarded-For", "6.6.6.6"),
            ("A", "b"),
            ("X-FORWARDED-FOR", "1.1.1.1, 10.0.0.2"),
        ],
        ..CASE
    });
    assert_eq!(seen.client, "1.1.1.1");
    assert_eq!(seen.header("X-Forwarded-For"), Some("1.1.1.1, 10.0.0.2"));
    assert_eq!(seen.header("X-FORWARDED-FOR"), None);
}

#[test]
fn variables_of_the_configuration_count_as_headers() {
    let variables = [
        ("HTTP_X_REAL_IP", "1.1.1.1"),
        ("HTTP_X_CLIENT_IP", "2"),
        ("B", "c"),
    ];
    let case = Case {
        trust: &["X-Real-IP"],
        variables: &variables,
        ..CASE
    };
    let kept = [("HTTP_X_REAL_IP", "1.1.1.1"), ("B", "c")];
    let kept = Case {
        variables: &kept,
        ..case
    };
    assert_eq!(
        seen(case),
        expected(kept, |seen| seen.client = "1.1.1.1".into())
    );
    // A header comes first.
    let sent = seen(Case {
        headers: &[("X-Real-IP", "3.3.3.3")],
        ..case
    });
    assert_eq!(sent.client, "3.3.3.3");
}
