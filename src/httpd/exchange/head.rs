//! The request head, straight from `request_rec`.
//!
//! What `ap_add_common_vars` and `ap_add_cgi_vars` would write into tables is handed over as
//! borrowed strings instead; the values are the same. Only what httpd itself adds on request is
//! left out: PATH, PATH_TRANSLATED, REMOTE_HOST and the like, as in mod_wsgi.

use core::mem::MaybeUninit;
use std::borrow::Cow;

use crate::exchange::abi::{Opt, Pair, Slice, Text};
use crate::exchange::trusted_proxies::{self, Rules};
use crate::exchange::{Authorization, RequestHead, Site, slashes};
use crate::httpd::apache::text::Port;
use crate::httpd::apache::{Request, mpm};
use crate::httpd::config::settings::MapHead;
use crate::httpd::daemon::route::within;

/// Header fields of most requests fit; more spill into memory of their own.
const HEADERS: usize = 48;
/// Likewise variables; TLS with `StdEnvVars` alone has about thirty.
const VARIABLES: usize = 40;

/// Pairs on the stack, or on the heap when there are many.
struct Pairs<'r, const N: usize> {
    inline: [MaybeUninit<Pair<'r>>; N],
    count: usize,
    spilled: Vec<Pair<'r>>,
}

impl<'r, const N: usize> Pairs<'r, N> {
    #[inline(always)]
    fn new() -> Self {
        Pairs {
            inline: [const { MaybeUninit::uninit() }; N],
            count: 0,
            spilled: Vec::new(),
        }
    }

    #[inline(always)]
    fn push(&mut self, name: &'r [u8], value: &'r [u8]) {
        let pair = Pair {
            name: Text::new(name),
            value: Text::new(value),
        };
        if let Some(place) = self.inline.get_mut(self.count) {
            place.write(pair);
        } else {
            self.spill(pair);
        }
        self.count += 1;
    }

    #[cold]
    fn spill(&mut self, pair: Pair<'r>) {
        if self.spilled.is_empty() {
            self.spilled = self.filled().to_vec();
        }
        self.spilled.push(pair);
    }

    fn filled(&self) -> &[Pair<'r>] {
        let count = self.count.min(N);
        // SAFETY: `push` has initialised that many; a `MaybeUninit` has its value's layout.
        unsafe { core::slice::from_raw_parts(self.inline.as_ptr().cast(), count) }
    }

    #[inline(always)]
    fn items(&self) -> &[Pair<'r>] {
        if self.spilled.is_empty() {
            self.filled()
        } else {
            &self.spilled
        }
    }
}

/// The path, split where the script ends.
pub struct Split<'r> {
    /// `SCRIPT_NAME`.
    pub script_name: Cow<'r, [u8]>,
    /// `PATH_INFO`.
    pub path_info: Cow<'r, [u8]>,
    /// Of a script that another one includes: its own path, which `SCRIPT_NAME` goes beyond.
    included: Option<Cow<'r, [u8]>>,
}

impl Split<'_> {
    /// The path that the application is found at, which names its application group.
    #[inline]
    pub fn mount(&self) -> &[u8] {
        self.included.as_deref().unwrap_or(&self.script_name)
    }
}

impl Split<'_> {
    /// A handler may be asked for the root of the site, a directory that is no script: PEP 3333 has
    /// the slash in `PATH_INFO` then, since `SCRIPT_NAME` is put before every URL that is made.
    #[cold]
    pub fn leave_root(&mut self) {
        if &*self.script_name == b"/" && self.path_info.is_empty() {
            self.script_name = Cow::Borrowed(b"");
            self.path_info = Cow::Borrowed(b"/");
        }
    }
}

/// Splits the path of `request`; runs of slashes become one.
#[inline(always)]
pub fn split(request: Request<'_>) -> Split<'_> {
    let uri = request.uri();
    let path_info = request.path_info();
    let end = script_end(uri, path_info).unwrap_or_else(|| request.path_info_start());
    let mount = slashes::collapse(&uri[..end]);
    let path_info = slashes::collapse(path_info);
    if request.protocol() == b"INCLUDED" {
        // As CGI scripts are told: what includes it has asked for all of the path.
        return Split {
            script_name: slashes::collapse(uri),
            path_info,
            included: Some(mount),
        };
    }
    Split {
        script_name: mount,
        path_info,
        included: None,
    }
}

/// Where `path_info` begins in `uri`, if that is plain to see: the one ends with the other, and
/// no run of slashes stands where they meet.
fn script_end(uri: &[u8], path_info: &[u8]) -> Option<usize> {
    if path_info.is_empty() {
        return Some(uri.len());
    }
    let script = uri.strip_suffix(path_info)?;
    (path_info[0] == b'/' && script.last() != Some(&b'/')).then_some(script.len())
}

/// What the configuration adds to a head.
#[derive(Clone, Copy)]
pub struct Configured<'a> {
    /// The process group, empty when embedded.
    pub process_group: &'a [u8],
    /// The root directory of its processes, empty for httpd's own.
    pub chroot: &'a [u8],
    /// The application group.
    pub application_group: &'a [u8],
    /// The callable's name.
    pub callable_object: &'a [u8],
    /// `WSGIPassAuthorization`.
    pub pass_authorization: bool,
    /// `WSGIMapHEADToGET`.
    pub map_head: MapHead,
    /// `WSGITrustedProxyHeaders` and `WSGITrustedProxies`, where any header is trusted.
    pub proxies: Option<Rules<'a>>,
}

impl Configured<'_> {
    /// Before it is settled who serves.
    pub const UNSETTLED: Configured<'static> = Configured {
        process_group: b"",
        chroot: b"",
        application_group: b"",
        callable_object: b"",
        pass_authorization: false,
        map_head: MapHead::Off,
        proxies: None,
    };
}

/// Builds the head of `request` and calls `serve` with it.
#[inline]
pub fn with_head<'r, T>(
    request: Request<'r>,
    split: &Split<'r>,
    configured: Configured<'_>,
    serve: impl FnOnce(&RequestHead<'_>) -> T,
) -> T {
    let connection = request.connection();
    let server = request.server();

    let mut headers = Pairs::<HEADERS>::new();
    for (name, value) in request.headers_in().iter() {
        headers.push(name, value);
    }

    let mut https_variable = false;
    let mut variables = Pairs::<VARIABLES>::new();
    for (name, value) in request.variables().iter() {
        match name.len() {
            5 if name.eq_ignore_ascii_case(b"HTTPS") => https_variable |= says_https(value),
            4 if name.eq_ignore_ascii_case(b"PATH") => {}
            // mod_wsgi keeps its own variables from applications, and configurations may hide
            // theirs in the same way.
            _ if name.starts_with(b"mod_wsgi.x-") => {}
            _ => variables.push(name, value),
        }
    }
    add_identity(request, &mut variables);

    let server_port = Port::new(request.server_port());
    // The two nearly always agree; digits are written once then.
    let listener = connection.local_port();
    let listener_port = (listener != server_port.number()).then(|| Port::new(listener));
    let head = RequestHead {
        site: Site {
            server_software: Text::from(mpm::banner()),
            server_name: Text::from(server_name(request)),
            server_addr: Text::from(connection.local_ip()),
            server_port: Text::from(server_port.bytes()),
            server_admin: Opt::new(server.admin()),
            document_root: Text::from(within(configured.chroot, request.document_root())),
            context_prefix: Opt::new(request.context_prefix()),
            context_document_root: Opt::new(
                request
                    .context_document_root()
                    .map(|path| within(configured.chroot, path)),
            ),
            request_scheme: Text::from(request.scheme()),
            script_filename: Text::from(within(configured.chroot, script_filename(request))),
            process_group: Text::from(configured.process_group),
            application_group: Text::from(configured.application_group),
            callable_object: Text::from(configured.callable_object),
            request_handler: Text::from(request.handler()),
            listener_host: Text::from(connection.local_host()),
            listener_port: Text::from(listener_port.as_ref().unwrap_or(&server_port).bytes()),
        },
        method: Text::from(method(request, configured.map_head)),
        request_uri: Text::from(request_uri(request)),
        script_name: Text::from(&*split.script_name),
        mount_point: Opt::NONE,
        path_info: Text::from(&*split.path_info),
        query_string: Text::from(request.query()),
        protocol: Text::from(request.protocol()),
        remote_addr: Text::from(request.client_ip()),
        remote_port: connection.client_port(),
        https: https_variable || connection.is_tls(),
        authorization: if request.passes_credentials() {
            Authorization::PassBoth
        } else if configured.pass_authorization {
            Authorization::Pass
        } else {
            Authorization::Hidden
        },
        request_time_us: request.time(),
        accept_time_us: 0,
        daemon_connects: 0,
        daemon_restarts: 0,
        daemon_time_us: 0,
        server_pid: mpm::child_pid(),
        request_id: Opt::new(request.log_id()),
        connection_id: Opt::new(connection.log_id()),
        headers: Slice::new(headers.items()),
        variables: Slice::new(variables.items()),
    };
    match configured.proxies {
        None => serve(&head),
        Some(rules) => trusted_proxies::with_proxies(rules, &head, https_variable, serve),
    }
}

/// Whether a variable `HTTPS` says so.
fn says_https(value: &[u8]) -> bool {
    value.eq_ignore_ascii_case(b"on") || value == b"1"
}

/// Who the user is, and where an internal redirect came from: as `ap_add_common_vars`.
#[inline]
fn add_identity<'r>(request: Request<'r>, variables: &mut Pairs<'r, VARIABLES>) {
    if let Some(user) = request.user() {
        variables.push(b"REMOTE_USER", user);
    }
    if let Some(kind) = request.auth_type() {
        variables.push(b"AUTH_TYPE", kind);
    }
    if let Some(previous) = request.previous() {
        add_redirect(request, previous, variables);
    }
}

#[cold]
fn add_redirect<'r>(
    request: Request<'r>,
    previous: Request<'r>,
    variables: &mut Pairs<'r, VARIABLES>,
) {
    if request.user().is_none() {
        let user = core::iter::successors(Some(previous), |back| back.previous())
            .find_map(|back| back.user());
        if let Some(user) = user {
            variables.push(b"REDIRECT_REMOTE_USER", user);
        }
    }
    variables.push(b"REDIRECT_URL", previous.url_for_redirect(request));
    if let Some(query) = previous.query_ptr() {
        variables.push(b"REDIRECT_QUERY_STRING", query);
    }
}

/// `SERVER_NAME`: the Host header may be in it, so what HTML would misread is escaped.
#[inline]
pub fn server_name(request: Request<'_>) -> &[u8] {
    let name = request.server_name();
    if name.iter().any(|c| matches!(c, b'<' | b'>' | b'&' | b'"')) {
        request.escape_html(name)
    } else {
        name
    }
}

/// `SCRIPT_FILENAME`: without the query that mod_proxy glues to it.
#[inline]
fn script_filename(request: Request<'_>) -> &[u8] {
    let name = request.filename();
    match name.iter().position(|c| *c == b'?') {
        Some(query) if request.notes().get(c"proxy-noquery").is_some() => &name[..query],
        _ => name,
    }
}

/// `REQUEST_URI`: as sent, or as `CGIVar` has it.
#[inline]
pub fn request_uri(request: Request<'_>) -> &[u8] {
    if request.uses_current_uri() {
        request.uri()
    } else {
        second_word(request.request_line())
    }
}

/// The target of a request line.
fn second_word(line: &[u8]) -> &[u8] {
    let blank = |from: usize| {
        line[from..]
            .iter()
            .position(u8::is_ascii_whitespace)
            .map_or(line.len(), |at| from + at)
    };
    let start = blank(0);
    let start = start
        + line[start..]
            .iter()
            .take_while(|c| c.is_ascii_whitespace())
            .count();
    &line[start..blank(start)]
}

/// `REQUEST_METHOD`: HEAD may become GET, so that filters and Content-Length are as for GET.
#[inline]
fn method(request: Request<'_>, map: MapHead) -> &[u8] {
    let mapped = request.is_get_or_head()
        && match map {
            MapHead::Off => false,
            MapHead::On => true,
            MapHead::Auto => request.is_head() && request.has_content_filter(),
        };
    if mapped { b"GET" } else { request.method() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_of_request_lines() {
        for (line, target) in [
            ("GET /a?b HTTP/1.1", "/a?b"),
            ("GET  /a%20b   HTTP/1.1", "/a%20b"),
            ("GET http://h/a HTTP/1.1", "http://h/a"),
            ("GET /a", "/a"),
            ("GET", ""),
            ("", ""),
        ] {
            assert_eq!(second_word(line.as_bytes()), target.as_bytes(), "{line}");
        }
    }

    #[test]
    fn scripts_end_where_path_info_begins() {
        for (uri, path_info, end) in [
            ("/app", "", Some(4)),
            ("/app/x", "/x", Some(4)),
            ("/x/x", "/x", Some(2)),
            ("/x", "/x", Some(0)),
            ("/", "/", Some(0)),
            ("/app//x", "/x", None),
            ("/app//x", "//x", Some(4)),
            ("/app/y", "/x", None),
            ("/appx", "x", None),
        ] {
            let found = script_end(uri.as_bytes(), path_info.as_bytes());
            assert_eq!(found, end, "{uri} {path_info}");
        }
    }

    #[test]
    fn https_variables() {
        for (value, says) in [
            ("on", true),
            ("On", true),
            ("1", true),
            ("off", false),
            ("", false),
        ] {
            assert_eq!(says_https(value.as_bytes()), says, "{value}");
        }
    }

    #[test]
    fn pairs_spill_and_keep_their_order() {
        let names: Vec<String> = (0..9).map(|number| number.to_string()).collect();
        for count in 0..names.len() {
            let mut pairs = Pairs::<4>::new();
            for name in &names[..count] {
                pairs.push(name.as_bytes(), b"");
            }
            let found: Vec<&[u8]> = pairs.items().iter().map(|pair| pair.name.bytes()).collect();
            let expected: Vec<&[u8]> = names[..count].iter().map(|name| name.as_bytes()).collect();
            assert_eq!(found, expected);
        }
    }
}
