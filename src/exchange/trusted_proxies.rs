//! What proxies in front of the server say of a request: `WSGITrustedProxyHeaders` and
//! `WSGITrustedProxies`.
//!
//! Every header belongs to one category or, `Forwarded`, to several. A category of which at least
//! one header is configured is *managed*: where the peer is trusted, the configured headers that
//! it sent are applied in the order of the configuration, so that the last one wins; every other
//! header of the category is taken out of the request, since a client may have made it up. Where
//! the peer is not trusted, all of them are. Headers of other categories stay as they are.
//!
//! A value that cannot be what it stands for (a port that is no number) changes nothing.

#![forbid(unsafe_code)]

use core::net::IpAddr;
use std::borrow::Cow;

use super::forwarded::{self, Element, Node};
use super::subnet::{self, Subnet};
use super::{Opt, Pair, RequestHead, Slice, Text, header_names};

/// A header that proxies send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Header {
    /// `X-Forwarded-For`: a list, to which every proxy adds its client.
    XForwardedFor,
    /// `X-Client-IP`.
    XClientIp,
    /// `X-Real-IP`.
    XRealIp,
    /// `X-Forwarded-Host`.
    XForwardedHost,
    /// `X-Host`.
    XHost,
    /// `X-Forwarded-Server`.
    XForwardedServer,
    /// `X-Forwarded-Port`.
    XForwardedPort,
    /// `X-Script-Name`.
    XScriptName,
    /// `X-Forwarded-Script-Name`.
    XForwardedScriptName,
    /// `X-Forwarded-Prefix`.
    XForwardedPrefix,
    /// `X-Forwarded-Proto`: http or https.
    XForwardedProto,
    /// `X-Forwarded-Scheme`: likewise.
    XForwardedScheme,
    /// `X-Scheme`: likewise.
    XScheme,
    /// `X-Forwarded-HTTPS`: on or off.
    XForwardedHttps,
    /// `X-Forwarded-SSL`: likewise.
    XForwardedSsl,
    /// `X-HTTPS`: likewise.
    XHttps,
    /// `Forwarded`, RFC 7239.
    Forwarded,
}

use Header::*;

/// What a header changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Category {
    /// `REMOTE_ADDR`.
    Client,
    /// `HTTP_HOST`.
    Host,
    /// `SERVER_NAME`.
    Server,
    /// `SERVER_PORT`.
    Port,
    /// `SCRIPT_NAME`.
    Script,
    /// `wsgi.url_scheme`.
    Scheme,
}

/// How many categories there are.
const CATEGORIES: usize = 6;

/// Every header with its name in lower case and its categories, in the order of [`Header`].
static HEADERS: [(Header, &str, &[Category]); 17] = [
    (XForwardedFor, "x-forwarded-for", &[Category::Client]),
    (XClientIp, "x-client-ip", &[Category::Client]),
    (XRealIp, "x-real-ip", &[Category::Client]),
    (XForwardedHost, "x-forwarded-host", &[Category::Host]),
    (XHost, "x-host", &[Category::Host]),
    (XForwardedServer, "x-forwarded-server", &[Category::Server]),
    (XForwardedPort, "x-forwarded-port", &[Category::Port]),
    (XScriptName, "x-script-name", &[Category::Script]),
    (
        XForwardedScriptName,
        "x-forwarded-script-name",
        &[Category::Script],
    ),
    (XForwardedPrefix, "x-forwarded-prefix", &[Category::Script]),
    (XForwardedProto, "x-forwarded-proto", &[Category::Scheme]),
    (XForwardedScheme, "x-forwarded-scheme", &[Category::Scheme]),
    (XScheme, "x-scheme", &[Category::Scheme]),
    (XForwardedHttps, "x-forwarded-https", &[Category::Scheme]),
    (XForwardedSsl, "x-forwarded-ssl", &[Category::Scheme]),
    (XHttps, "x-https", &[Category::Scheme]),
    (
        Forwarded,
        "forwarded",
        &[Category::Client, Category::Host, Category::Scheme],
    ),
];

impl Header {
    /// The header of that name, in any case; `None` for a name that means nothing here.
    pub fn named(name: &[u8]) -> Option<Header> {
        HEADERS
            .iter()
            .find(|(_, text, _)| name.eq_ignore_ascii_case(text.as_bytes()))
            .map(|(header, ..)| *header)
    }

    /// The header that has become the CGI variable `name`, `HTTP_X_…`.
    fn of_variable(name: &[u8]) -> Option<Header> {
        let name = name.strip_prefix(b"HTTP_")?;
        HEADERS
            .iter()
            .find(|(_, text, _)| {
                let mut variable = Vec::new();
                header_names::write_name(text.as_bytes(), &mut variable);
                variable.get(5..) == Some(name)
            })
            .map(|(header, ..)| *header)
    }

    fn categories(self) -> &'static [Category] {
        HEADERS[self as usize].2
    }
}

/// What is configured.
#[derive(Clone, Copy, Debug)]
pub struct Rules<'a> {
    /// `WSGITrustedProxyHeaders`, in order.
    pub headers: &'a [Header],
    /// `WSGITrustedProxies`; `None` trusts every peer.
    pub proxies: Option<&'a [Subnet]>,
}

impl Rules<'_> {
    fn trusts(&self, address: IpAddr) -> bool {
        self.proxies
            .is_none_or(|proxies| proxies.iter().any(|subnet| subnet.contains(address)))
    }

    /// Whether the peer's address is a trusted proxy's.
    fn trusts_peer(&self, address: &[u8]) -> bool {
        // A link-local address may carry the name of its interface.
        let end = address.iter().position(|c| *c == b'%');
        self.proxies.is_none()
            || subnet::address(&address[..end.unwrap_or(address.len())])
                .is_some_and(|address| self.trusts(address))
    }
}

/// Applies `rules` to `head` and calls `serve` with the result. `https_variable` is what a variable
/// `HTTPS` of the configuration says: unlike the connection's own protection it counts where the
/// proxy's scheme is not understood.
///
/// `head.mount_point` is set where a header has said `SCRIPT_NAME`; `head.script_name` stays.
#[cold]
pub fn with_proxies<T>(
    rules: Rules<'_>,
    head: &RequestHead<'_>,
    https_variable: bool,
    serve: impl FnOnce(&RequestHead<'_>) -> T,
) -> T {
    let changes = Changes::of(rules, head, https_variable);
    let headers = changes.headers(head);
    let variables: Vec<Pair<'_>> = head
        .variables
        .items()
        .iter()
        .filter(|pair| {
            Header::of_variable(pair.name.bytes()).is_none_or(|header| changes.keeps(header))
        })
        .copied()
        .collect();
    let mut changed = RequestHead {
        headers: Slice::new(&headers),
        variables: Slice::new(&variables),
        https: changes.https.unwrap_or(head.https),
        mount_point: Opt::new(changes.script.as_deref()),
        ..*head
    };
    if let Some(client) = &changes.client {
        changed.remote_addr = Text::new(client);
    }
    if let Some(name) = &changes.server {
        changed.site.server_name = Text::new(name);
    }
    if let Some(port) = &changes.port {
        changed.site.server_port = Text::new(port);
    }
    serve(&changed)
}

type Value<'a> = Cow<'a, [u8]>;

/// What becomes of a request.
struct Changes<'a> {
    client: Option<Value<'a>>,
    host: Option<Value<'a>>,
    server: Option<Value<'a>>,
    port: Option<Value<'a>>,
    script: Option<Value<'a>>,
    https: Option<bool>,
    /// Which categories are managed, and by which header that was sent.
    managed: [bool; CATEGORIES],
    winners: [Option<Header>; CATEGORIES],
    /// `X-Forwarded-For` and `Forwarded` without what untrusted peers have written.
    forwarded_for: Option<Vec<u8>>,
    forwarded: Option<Vec<u8>>,
}

impl<'a> Changes<'a> {
    fn of(rules: Rules<'_>, head: &RequestHead<'a>, https_variable: bool) -> Changes<'a> {
        let mut changes = Changes {
            client: None,
            host: None,
            server: None,
            port: None,
            script: None,
            https: None,
            managed: [false; CATEGORIES],
            winners: [None; CATEGORIES],
            forwarded_for: None,
            forwarded: None,
        };
        let trusted = rules.trusts_peer(head.remote_addr.bytes());
        // What holds if a scheme is sent that is not understood.
        let mut https = https_variable;
        for &header in rules.headers {
            for category in header.categories() {
                changes.managed[*category as usize] = true;
            }
            if !trusted {
                continue;
            }
            let Some(value) = value_of(head, header) else {
                continue;
            };
            match header {
                XForwardedFor => changes.apply_forwarded_for(rules, value),
                Forwarded => changes.apply_forwarded(rules, value, &mut https),
                XClientIp | XRealIp => {
                    if changes.sent(header, Category::Client, &value) {
                        changes.client = Some(value);
                    }
                }
                XForwardedHost | XHost => {
                    if changes.sent(header, Category::Host, &value) && is_host(&value) {
                        changes.host = Some(value);
                    }
                }
                XForwardedServer => {
                    if changes.sent(header, Category::Server, &value) && is_host(&value) {
                        changes.server = Some(value);
                    }
                }
                XForwardedPort => {
                    if changes.sent(header, Category::Port, &value) && is_port(&value) {
                        changes.port = Some(value);
                    }
                }
                // An empty script name is the root.
                XScriptName | XForwardedScriptName => {
                    changes.winners[Category::Script as usize] = Some(header);
                    if is_script_name(&value) {
                        changes.script = Some(value);
                    }
                }
                XForwardedPrefix => {
                    changes.winners[Category::Script as usize] = Some(header);
                    // Some proxies add to what the client has sent.
                    if is_script_name(&value) && !value.contains(&b',') {
                        changes.script = Some(without_trailing_slashes(value));
                    }
                }
                XForwardedProto | XForwardedScheme | XScheme => {
                    if changes.sent(header, Category::Scheme, &value) {
                        https = scheme(&value).unwrap_or(https);
                        changes.https = Some(https);
                    }
                }
                XForwardedHttps | XForwardedSsl | XHttps => {
                    if changes.sent(header, Category::Scheme, &value) {
                        https = switch(&value).unwrap_or(https);
                        changes.https = Some(https);
                    }
                }
            }
        }
        if !changes.keeps(XForwardedFor) {
            changes.forwarded_for = None;
        }
        if !changes.keeps(Forwarded) {
            changes.forwarded = None;
        }
        changes
    }

    /// Notes that `header` says something of `category`; an empty value says nothing.
    fn sent(&mut self, header: Header, category: Category, value: &[u8]) -> bool {
        if value.is_empty() {
            return false;
        }
        self.winners[category as usize] = Some(header);
        true
    }

    fn apply_forwarded_for(&mut self, rules: Rules<'_>, value: Value<'a>) {
        let elements: Vec<&[u8]> = value
            .split(|c| *c == b',')
            .map(<[u8]>::trim_ascii)
            .filter(|element| !element.is_empty())
            .collect();
        let Some(last) = elements.len().checked_sub(1) else {
            return;
        };
        self.winners[Category::Client as usize] = Some(XForwardedFor);
        if rules.proxies.is_none() {
            self.client = Some(elements[0].to_vec().into());
            return;
        }
        let trusted =
            |element: &[u8]| subnet::address(element).is_some_and(|address| rules.trusts(address));
        // From the right to the first one that no trusted proxy vouches for.
        let mut first = last;
        while first > 0 && trusted(elements[first]) {
            first -= 1;
        }
        self.client = Some(elements[first].to_vec().into());
        self.forwarded_for = Some(elements[first..].join(&b", "[..]));
    }

    fn apply_forwarded(&mut self, rules: Rules<'_>, value: Value<'a>, https: &mut bool) {
        let (element, kept) = match rules.proxies {
            None => (whole_chain(&value), None),
            Some(_) => trusted_chain(rules, &value),
        };
        self.forwarded = kept;
        if let Some(node) = element.client {
            self.winners[Category::Client as usize] = Some(Forwarded);
            self.client = Some(match node {
                Node::Address(address) => address.to_string().into_bytes().into(),
                Node::Identifier(name) => name.into_owned().into(),
            });
        }
        if let Some(host) = element.host.filter(|host| !host.is_empty()) {
            self.winners[Category::Host as usize] = Some(Forwarded);
            if is_host(&host) {
                self.host = Some(host.into_owned().into());
            }
        }
        if let Some(protocol) = element.scheme {
            self.winners[Category::Scheme as usize] = Some(Forwarded);
            *https = scheme(&protocol).unwrap_or(*https);
            self.https = Some(*https);
        }
    }

    /// Whether the request keeps `header`.
    fn keeps(&self, header: Header) -> bool {
        let categories = header.categories();
        let managed = |category: &Category| self.managed[*category as usize];
        let wins = |category: &Category| self.winners[*category as usize] == Some(header);
        !categories.iter().any(managed) || categories.iter().any(wins)
    }

    /// The header fields that the application sees.
    fn headers<'s>(&'s self, head: &RequestHead<'s>) -> Vec<Pair<'s>> {
        let mut host = self.host.as_deref();
        let mut forwarded_for = self.forwarded_for.as_deref();
        let mut forwarded = self.forwarded.as_deref();
        let mut fields = Vec::with_capacity(head.headers.items().len() + 1);
        for field in head.headers.items() {
            let name = field.name.bytes();
            let replacement = if name.eq_ignore_ascii_case(b"host") {
                self.host.is_some().then(|| host.take())
            } else {
                match Header::named(name) {
                    Some(header) if !self.keeps(header) => Some(None),
                    Some(XForwardedFor) => {
                        self.forwarded_for.is_some().then(|| forwarded_for.take())
                    }
                    Some(Forwarded) => self.forwarded.is_some().then(|| forwarded.take()),
                    _ => None,
                }
            };
            match replacement {
                None => fields.push(*field),
                Some(None) => {}
                Some(Some(value)) => fields.push(Pair {
                    name: field.name,
                    value: Text::new(value),
                }),
            }
        }
        // A field that was not sent, or came as a variable of the configuration.
        for (name, value) in [
            (&b"Host"[..], host),
            (b"X-Forwarded-For", forwarded_for),
            (b"Forwarded", forwarded),
        ] {
            if let Some(value) = value {
                fields.push(Pair {
                    name: Text::new(name),
                    value: Text::new(value),
                });
            }
        }
        fields
    }
}

/// The value of a header, repeated fields joined as httpd joins them; else that of the variable
/// that `SetEnv` and the like have made of its name.
fn value_of<'a>(head: &RequestHead<'a>, header: Header) -> Option<Value<'a>> {
    let mut found: Option<Value<'a>> = None;
    for field in head.headers.items() {
        if Header::named(field.name.bytes()) == Some(header) {
            found = Some(match found {
                None => field.value.bytes().into(),
                Some(before) => [&before, field.value.bytes()].join(&b", "[..]).into(),
            });
        }
    }
    found.or_else(|| {
        head.variables
            .items()
            .iter()
            .find(|pair| Header::of_variable(pair.name.bytes()) == Some(header))
            .map(|pair| pair.value.bytes().into())
    })
}

/// What the whole chain says where every proxy is trusted: the leftmost of each.
fn whole_chain(value: &[u8]) -> Element<'_> {
    let mut result = Element::default();
    for element in forwarded::from_the_right(value).filter_map(Element::parse) {
        result = over(element, result);
    }
    result
}

/// What trusted proxies say, the leftmost of each, and their part of the field.
///
/// The last element is the peer's; one before is trusted where the one after it names a trusted
/// proxy. If the peer's own element is malformed, the client is not known: taking the proxy itself
/// for the client would give whoever sent it the proxy's rights.
fn trusted_chain<'v>(rules: Rules<'_>, value: &'v [u8]) -> (Element<'v>, Option<Vec<u8>>) {
    let mut result = Element::default();
    let mut kept: Vec<&[u8]> = Vec::new();
    for text in forwarded::from_the_right(value) {
        let Some(element) = Element::parse(text) else {
            if kept.is_empty() {
                result.client = Some(Node::Identifier(forwarded::UNKNOWN.into()));
                kept.push(b"for=unknown");
            }
            break;
        };
        let goes_on = matches!(element.client, Some(Node::Address(node)) if rules.trusts(node));
        kept.push(text);
        result = over(element, result);
        if !goes_on {
            break;
        }
    }
    kept.reverse();
    let kept = (!kept.is_empty()).then(|| kept.join(&b", "[..]));
    (result, kept)
}

/// `element` where it says something, else `after`.
fn over<'v>(element: Element<'v>, after: Element<'v>) -> Element<'v> {
    Element {
        client: element.client.or(after.client),
        host: element.host.or(after.host),
        scheme: element.scheme.or(after.scheme),
    }
}

fn scheme(value: &[u8]) -> Option<bool> {
    match value {
        _ if value.eq_ignore_ascii_case(b"https") => Some(true),
        _ if value.eq_ignore_ascii_case(b"http") => Some(false),
        _ => None,
    }
}

fn switch(value: &[u8]) -> Option<bool> {
    let any = |words: [&str; 3]| {
        words
            .iter()
            .any(|word| value.eq_ignore_ascii_case(word.as_bytes()))
    };
    if any(["on", "true", "1"]) {
        Some(true)
    } else {
        any(["off", "false", "0"]).then_some(false)
    }
}

/// Whether `value` has the characters of a host name or address, perhaps with a port. httpd's
/// check of `Host` does not cover it.
fn is_host(value: &[u8]) -> bool {
    let plain = |c: &u8| c.is_ascii_alphanumeric() || b"-._~:[]%!$&'()*+;=".contains(c);
    value.iter().all(plain)
}

fn is_port(value: &[u8]) -> bool {
    let digits = value.len() <= 5 && value.iter().all(u8::is_ascii_digit);
    let number = || core::str::from_utf8(value).ok()?.parse::<u16>().ok();
    digits && number().is_some_and(|port| port > 0)
}

/// PEP 3333: empty or beginning with a slash. Two would make links to another host.
fn is_script_name(value: &[u8]) -> bool {
    value.is_empty() || (value[0] == b'/' && value.get(1) != Some(&b'/'))
}

fn without_trailing_slashes(value: Value<'_>) -> Value<'_> {
    let end = value
        .iter()
        .rposition(|c| *c != b'/')
        .map_or(0, |at| at + 1);
    match value {
        Cow::Borrowed(value) => Cow::Borrowed(&value[..end]),
        Cow::Owned(mut value) => {
            value.truncate(end);
            Cow::Owned(value)
        }
    }
}

#[cfg(test)]
mod tests;
