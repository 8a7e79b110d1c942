//! A request, what is configured for it, and what the application sees.

mod forwarded;
mod headers;
mod peers;

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
