//! Who is believed: peers, and the lists of clients.

use super::*;

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
