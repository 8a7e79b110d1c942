use super::*;
use crate::exchange::{Authorization, Site};

const PROXIES: &[&str] = &["10.0.0.0/8", "2001:db8::/32"];

/// A request and what is configured for it.
#[derive(Clone, Copy)]
struct Case<'a> {
    trust: &'a [&'a str],
    proxies: Option<&'a [&'a str]>,
    peer: &'a str,
    headers: &'a [(&'a str, &'a str)],
    variables: &'a [(&'a str, &'a str)],
    tls: bool,
    https_variable: bool,
}

const CASE: Case<'static> = Case {
    trust: &[],
    proxies: None,
    peer: "10.0.0.1",
    headers: &[],
    variables: &[],
    tls: false,
    https_variable: false,
};

/// What the application sees.
#[derive(Debug, PartialEq)]
struct Seen {
    client: String,
    server: String,
    port: String,
    mount_point: Option<String>,
    https: bool,
    headers: Vec<(String, String)>,
    variables: Vec<(String, String)>,
}

impl Seen {
    fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter().filter(|(other, _)| other == name);
        let value = found.next().map(|(_, value)| value.as_str());
        assert!(found.next().is_none(), "{name} twice");
        value
    }
}

fn seen(case: Case<'_>) -> Seen {
    let headers: Vec<Header> = case
        .trust
        .iter()
        .map(|name| Header::named(name.as_bytes()).unwrap())
        .collect();
    let proxies: Option<Vec<Subnet>> = case.proxies.map(|list| {
        let parse = |text: &&str| Subnet::parse(text.as_bytes()).unwrap();
        list.iter().map(parse).collect()
    });
    let rules = Rules {
        headers: &headers,
        proxies: proxies.as_deref(),
    };
    seen_by(rules, case)
}

fn seen_by(rules: Rules<'_>, case: Case<'_>) -> Seen {
    fn pairs<'a>(list: &'a [(&'a str, &'a str)]) -> Vec<Pair<'a>> {
        let pair = |(name, value): &(&'a str, &'a str)| Pair {
            name: (*name).into(),
            value: (*value).into(),
        };
        list.iter().map(pair).collect()
    }
    fn text(text: Text<'_>) -> String {
        String::from_utf8_lossy(text.bytes()).into_owned()
    }
    fn texts(list: &[Pair<'_>]) -> Vec<(String, String)> {
        list.iter()
            .map(|pair| (text(pair.name), text(pair.value)))
            .collect()
    }
    let (fields, variables) = (pairs(case.headers), pairs(case.variables));
    let head = RequestHead {
        site: Site {
            server_software: Text::EMPTY,
            server_name: "inner".into(),
            server_addr: Text::EMPTY,
            server_port: "8080".into(),
            server_admin: Opt::NONE,
            document_root: Text::EMPTY,
            context_prefix: Opt::NONE,
            context_document_root: Opt::NONE,
            request_scheme: "http".into(),
            script_filename: Text::EMPTY,
            process_group: Text::EMPTY,
            application_group: Text::EMPTY,
            callable_object: Text::EMPTY,
            request_handler: Text::EMPTY,
            listener_host: Text::EMPTY,
            listener_port: "8080".into(),
        },
        method: "GET".into(),
        request_uri: "/".into(),
        script_name: "/inner".into(),
        mount_point: Opt::NONE,
        path_info: "/".into(),
        query_string: Text::EMPTY,
        protocol: "HTTP/1.1".into(),
        remote_addr: case.peer.into(),
        remote_port: 1,
        https: case.tls || case.https_variable,
        authorization: Authorization::Hidden,
        request_time_us: 0,
        accept_time_us: 0,
        daemon_time_us: 0,
        daemon_connects: 0,
        daemon_restarts: 0,
        server_pid: 1,
        request_id: Opt::NONE,
        connection_id: Opt::NONE,
        headers: Slice::new(&fields),
        variables: Slice::new(&variables),
    };
    with_proxies(rules, &head, case.https_variable, |head| {
        assert_eq!(text(head.script_name), "/inner");
        assert_eq!(text(head.site.listener_port), "8080");
        Seen {
            client: text(head.remote_addr),
            server: text(head.site.server_name),
            port: text(head.site.server_port),
            mount_point: head
                .mount_point
                .bytes()
                .map(|value| String::from_utf8_lossy(value).into_owned()),
            https: head.https,
            headers: texts(head.headers.items()),
            variables: texts(head.variables.items()),
        }
    })
}

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
fn lists_of_clients() {
    for (proxies, value, client, kept) in [
        (None, "1.1.1.1, 2.2.2.2", "1.1.1.1", "1.1.1.1, 2.2.2.2"),
        (
            None,
            " , ,1.1.1.1 ,2.2.2.2",
            "1.1.1.1",
            " , ,1.1.1.1 ,2.2.2.2",
        ),
        (None, "anything", "anything", "anything"),
        (Some(PROXIES), "1.1.1.1", "1.1.1.1", "1.1.1.1"),
        (Some(PROXIES), "6.6.6.6, 1.1.1.1", "1.1.1.1", "1.1.1.1"),
        (
            Some(PROXIES),
            "6.6.6.6, 1.1.1.1,10.0.0.2",
            "1.1.1.1",
            "1.1.1.1, 10.0.0.2",
        ),
        (
            Some(PROXIES),
            "6.6.6.6, 1.1.1.1,10.0.0.2,,10.0.0.3 ,",
            "1.1.1.1",
            "1.1.1.1, 10.0.0.2, 10.0.0.3",
        ),
        (
            Some(PROXIES),
            "10.0.0.9, 10.0.0.2",
            "10.0.0.9",
            "10.0.0.9, 10.0.0.2",
        ),
        (Some(PROXIES), "10.0.0.9", "10.0.0.9", "10.0.0.9"),
        (
            Some(PROXIES),
            "10.0.0.9, 6.6.6.6, 10.0.0.2",
            "6.6.6.6",
            "6.6.6.6, 10.0.0.2",
        ),
        (Some(PROXIES), "1.1.1.1, x, 10.0.0.2", "x", "x, 10.0.0.2"),
        (
            Some(PROXIES),
            "1.1.1.1, 10.0.0.2:80",
            "10.0.0.2:80",
            "10.0.0.2:80",
        ),
        (
            Some(PROXIES),
            "2001:db9::1, 2001:DB8::5",
            "2001:db9::1",
            "2001:db9::1, 2001:DB8::5",
        ),
        (
            Some(PROXIES),
            "2.2.2.2, ::ffff:10.0.0.2",
            "2.2.2.2",
            "2.2.2.2, ::ffff:10.0.0.2",
        ),
    ] {
        let seen = seen(Case {
            trust: &["X-Forwarded-For"],
            proxies,
            headers: &[("x-forwarded-for", value)],
            ..CASE
        });
        assert_eq!(
            (seen.client.as_str(), seen.header("x-forwarded-for")),
            (client, Some(kept)),
            "{value}"
        );
    }
}

#[test]
fn empty_lists_change_nothing_and_are_dropped() {
    for value in ["", " ", ",", " , ,"] {
        let seen = seen(Case {
            trust: &["X-Forwarded-For"],
            proxies: Some(PROXIES),
            headers: &[("X-Forwarded-For", value)],
            ..CASE
        });
        assert_eq!(seen.client, "10.0.0.1");
        assert_eq!(seen.headers, []);
    }
}

/// What a header changes.
type Change = fn(&mut Seen);

/// Every header, a value and what it changes.
const EACH: &[(&str, &str, Change)] = &[
    ("X-Forwarded-For", "1.1.1.1", |seen| {
        seen.client = "1.1.1.1".into()
    }),
    ("X-Client-IP", "not checked", |seen| {
        seen.client = "not checked".into()
    }),
    ("X-Real-IP", "::9", |seen| seen.client = "::9".into()),
    ("X-Forwarded-Server", "outer", |seen| {
        seen.server = "outer".into()
    }),
    ("X-Forwarded-Port", "443", |seen| seen.port = "443".into()),
    ("X-Script-Name", "/m", |seen| {
        seen.mount_point = Some("/m".into())
    }),
    ("X-Forwarded-Script-Name", "", |seen| {
        seen.mount_point = Some("".into())
    }),
    ("X-Forwarded-Prefix", "/m/n/", |seen| {
        seen.mount_point = Some("/m/n".into())
    }),
    ("X-Forwarded-Prefix", "/", |seen| {
        seen.mount_point = Some("".into())
    }),
    ("X-Forwarded-Proto", "HTTPS", |seen| seen.https = true),
    ("X-Forwarded-Scheme", "https", |seen| seen.https = true),
    ("X-Scheme", "https", |seen| seen.https = true),
    ("X-Forwarded-HTTPS", "on", |seen| seen.https = true),
    ("X-Forwarded-SSL", "True", |seen| seen.https = true),
    ("X-HTTPS", "1", |seen| seen.https = true),
    ("Forwarded", "for=1.1.1.1", |seen| {
        seen.client = "1.1.1.1".into()
    }),
    ("Forwarded", "proto=https", |seen| seen.https = true),
];

fn expected(case: Case<'_>, change: impl FnOnce(&mut Seen)) -> Seen {
    let own = |list: &[(&str, &str)]| {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        list.iter().map(own).collect()
    };
    let mut seen = Seen {
        client: case.peer.into(),
        server: "inner".into(),
        port: "8080".into(),
        mount_point: None,
        https: case.tls || case.https_variable,
        headers: own(case.headers),
        variables: own(case.variables),
    };
    change(&mut seen);
    seen
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
fn an_untrusted_peer_is_not_believed_and_its_headers_are_dropped() {
    let spoofed: Vec<(&str, &str)> = EACH
        .iter()
        .map(|(name, value, _)| (*name, *value))
        .collect();
    for peer in [
        "11.0.0.1",
        "2001:db9::1",
        "::1",
        "",
        "10.0.0.1, 10.0.0.2",
        "nonsense",
        "%",
    ] {
        for (trusted, ..) in EACH {
            let managed = Header::named(trusted.as_bytes()).unwrap().categories();
            let case = Case {
                trust: &[trusted],
                proxies: Some(PROXIES),
                peer,
                headers: &spoofed,
                ..CASE
            };
            let kept: Vec<(&str, &str)> = spoofed
                .iter()
                .filter(|(name, _)| {
                    let categories = Header::named(name.as_bytes()).unwrap().categories();
                    !categories.iter().any(|category| managed.contains(category))
                })
                .copied()
                .collect();
            let unchanged = Case {
                headers: &kept,
                ..case
            };
            assert_eq!(seen(case), expected(unchanged, |_| ()), "{peer} {trusted}");
        }
    }
}

#[test]
fn peers_are_recognised() {
    for peer in [
        "10.1.2.3",
        "::ffff:10.1.2.3",
        "2001:db8::1",
        "2001:db8::1%eth0",
    ] {
        let seen = seen(Case {
            trust: &["X-Real-IP"],
            proxies: Some(PROXIES),
            peer,
            headers: &[("X-Real-IP", "9.9.9.9")],
            ..CASE
        });
        assert_eq!(seen.client, "9.9.9.9", "{peer}");
    }
    // A list without entries trusts nobody.
    let nobody = seen(Case {
        trust: &["X-Real-IP"],
        proxies: Some(&[]),
        headers: &[("X-Real-IP", "9.9.9.9")],
        ..CASE
    });
    assert_eq!(nobody.client, "10.0.0.1");
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

/// Whatever headers come, an untrusted peer changes nothing, and a trusted proxy that appends to
/// the lists is believed, not those before it.
#[test]
fn no_text_of_a_client_makes_it_another() {
    let alphabet = b"0123456789.,;:=\"\\[]_for unknow\t\xff10.2";
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 33) as usize % below
    };
    let headers: Vec<Header> = HEADERS.iter().map(|(header, ..)| *header).collect();
    let proxies = [Subnet::parse(b"10.0.0.0/8").unwrap()];
    for round in 0..5_000 {
        let mut text = || {
            let length = random(40);
            let bytes: Vec<u8> = (0..length)
                .map(|_| alphabet[random(alphabet.len())])
                .collect();
            String::from_utf8_lossy(&bytes).into_owned()
        };
        let values: Vec<String> = HEADERS.iter().map(|_| text()).collect();
        let fields: Vec<(&str, &str)> = HEADERS
            .iter()
            .zip(&values)
            .map(|((_, name, _), value)| (*name, value.as_str()))
            .collect();
        let case = Case {
            peer: "192.0.2.1",
            headers: &fields,
            ..CASE
        };
        let rules = Rules {
            headers: &headers,
            proxies: Some(&proxies),
        };
        let nothing = Case {
            headers: &[],
            ..case
        };
        assert_eq!(seen_by(rules, case), expected(nothing, |_| ()), "{round}");

        for (header, suffix) in [
            (XForwardedFor, "198.51.100.7"),
            (XForwardedFor, "198.51.100.7, 10.0.0.2"),
            (Forwarded, "for=198.51.100.7"),
            (Forwarded, "for=\"198.51.100.7:1\", for=10.0.0.2;by=_x"),
        ] {
            let name = HEADERS[header as usize].1;
            let value = format!("{}, {suffix}", values[header as usize]);
            let seen = seen_by(
                Rules {
                    headers: &[header],
                    ..rules
                },
                Case {
                    peer: "10.0.0.1",
                    headers: &[(name, &value)],
                    ..case
                },
            );
            assert_eq!(seen.client, "198.51.100.7", "{round}: {value}");
            assert_eq!(seen.header(name), Some(suffix), "{round}: {value}");
        }
    }
}
