//! The payload of REQUEST.
//!
//! | part | what |
//! |---|---|
//! | numbers | times, pid, port, flags, counts, the length of each text |
//! | site | the lengths of its 18 values (`u32::MAX`: absent), then the values |
//! | texts | method to mount point, one after another |
//! | pairs | for each header, then each variable: `u32` name length, `u32` value length, name, value |
//! | body | the body, or what of it had arrived |
//!
//! The site travels in every request and is recognised by its content, so that a connection holds
//! no state.

#![forbid(unsafe_code)]

use super::{HEADER, Header, Kind, LARGEST_REQUEST, Malformed, Reader, VERSION, flag};
use crate::exchange::{
    AsgiSettings, Authorization, Interface, Lifespan, Opt, Pair, RequestHead, Site, Slice, Target,
    Text,
};

/// Texts of a request, beside its site and pairs.
const TEXTS: usize = 10;
/// Values of a site, and the two paths of a target.
const SITE: usize = 18;
/// Marks an absent text.
const ABSENT: u32 = u32::MAX;
/// So many pairs need no memory of their own.
const PAIRS: usize = 64;
/// So many are usual; less memory is prepared for them.
const FEW: usize = 20;

mod bit {
    pub const HTTPS: u8 = 1;
    pub const RELOADING: u8 = 2;
    pub const KEEP_ON_FAILURE: u8 = 4;
    pub const IGNORE_ACTIVITY: u8 = 8;
    pub const HANDLER_SCRIPT: u8 = 16;
    pub const CALLABLE_IS_DEFAULT: u8 = 32;
    pub const WEBSOCKET: u8 = 64;
    pub const WEBSOCKET_COMPRESSION: u8 = 128;
}

/// A request on its way to a worker.
#[derive(Clone, Copy, Debug)]
pub struct WireRequest<'a> {
    /// What was asked.
    pub head: RequestHead<'a>,
    /// What answers it.
    pub target: Target<'a>,
    /// `WSGIIgnoreActivity`: it does not count as activity.
    pub ignore_activity: bool,
    /// The most detailed level of which the request's log takes lines, as
    /// [`Level`](crate::exchange::Level).
    pub log_level: u8,
    /// The body or its beginning.
    pub body: &'a [u8],
    /// Whether that is all of it.
    pub body_complete: bool,
}

/// A request that cannot be sent: it is larger than [`LARGEST_REQUEST`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLarge;

/// Where the counts of attempts are in a frame: after the times, pid, port, bits and level.
const ATTEMPTS: usize = HEADER + 3 * 8 + 4 + 2 + 2 + 1;

/// Bytes before the first text: the frame's header, the numbers, all lengths.
const FIXED: usize = ATTEMPTS + 2 * 2 + ASGI + 2 * 2 + TEXTS * 4 + 4 + SITE * 4;
/// Of these, what concerns ASGI: interface, lifespan, ping, queue, largest message.
const ASGI: usize = 1 + 1 + 2 + 2 + 4;

/// The fixed part under construction: one copy into the frame instead of one for each number.
struct Fixed {
    bytes: [u8; FIXED],
    at: usize,
}

impl Fixed {
    #[inline(always)]
    fn put<const N: usize>(&mut self, bytes: [u8; N]) {
        self.bytes[self.at..self.at + N].copy_from_slice(&bytes);
        self.at += N;
    }

    #[inline(always)]
    fn put_lengths(&mut self, texts: &[Option<&[u8]>]) {
        for text in texts {
            let length = text.map_or(ABSENT, |text| text.len() as u32);
            self.put(length.to_le_bytes());
        }
    }
}

/// Replaces the content of `out` with the whole frame. END is set when the body is complete.
///
/// # Errors
/// The request is too large; `out` is then of no use.
#[inline]
pub fn encode(request: &WireRequest<'_>, out: &mut Vec<u8>) -> Result<(), TooLarge> {
    let WireRequest { head, target, .. } = request;
    let mut fixed = Fixed {
        bytes: [0; FIXED],
        at: HEADER,
    };
    for number in [head.request_time_us, head.accept_time_us, target.mtime_us] {
        fixed.put(number.to_le_bytes());
    }
    fixed.put(head.server_pid.to_le_bytes());
    fixed.put(head.remote_port.to_le_bytes());
    let mut bits = 0;
    for (set, bit) in [
        (head.https, bit::HTTPS),
        (target.reloading, bit::RELOADING),
        (target.keep_on_failure, bit::KEEP_ON_FAILURE),
        (request.ignore_activity, bit::IGNORE_ACTIVITY),
        (target.handler_script, bit::HANDLER_SCRIPT),
        (target.callable_is_default, bit::CALLABLE_IS_DEFAULT),
        (target.asgi.websocket, bit::WEBSOCKET),
        (
            target.asgi.websocket_compression,
            bit::WEBSOCKET_COMPRESSION,
        ),
    ] {
        if set {
            bits |= bit;
        }
    }
    fixed.put([bits, head.authorization as u8, request.log_level]);
    fixed.put(head.daemon_connects.to_le_bytes());
    fixed.put(head.daemon_restarts.to_le_bytes());
    fixed.put([target.interface as u8, target.asgi.lifespan as u8]);
    fixed.put(target.asgi.websocket_ping_s.to_le_bytes());
    fixed.put(target.asgi.websocket_queue.to_le_bytes());
    fixed.put(target.asgi.websocket_max_message.to_le_bytes());
    let (headers, variables) = (head.headers.items(), head.variables.items());
    for count in [headers.len(), variables.len()] {
        let count = u16::try_from(count).map_err(|_| TooLarge)?;
        fixed.put(count.to_le_bytes());
    }
    let texts: [Option<&[u8]>; TEXTS] = [
        Some(head.method.bytes()),
        Some(head.request_uri.bytes()),
        Some(head.script_name.bytes()),
        Some(head.path_info.bytes()),
        Some(head.query_string.bytes()),
        Some(head.protocol.bytes()),
        Some(head.remote_addr.bytes()),
        head.request_id.bytes(),
        head.connection_id.bytes(),
        head.mount_point.bytes(),
    ];
    fixed.put_lengths(&texts);
    let body = u32::try_from(request.body.len()).map_err(|_| TooLarge)?;
    fixed.put(body.to_le_bytes());
    let site = head.site.values();
    let paths = [Some(target.script.bytes()), Some(target.resource.bytes())];
    fixed.put_lengths(&site);
    fixed.put_lengths(&paths);

    out.clear();
    out.extend_from_slice(&fixed.bytes);
    for group in [&site[..], &paths, &texts] {
        for text in group.iter().flatten() {
            out.extend_from_slice(text);
        }
    }
    for pair in headers.iter().chain(variables) {
        let (name, value) = (pair.name.bytes(), pair.value.bytes());
        let lengths = (name.len() as u64 & 0xffff_ffff) | (value.len() as u64) << 32;
        out.extend_from_slice(&lengths.to_le_bytes());
        out.extend_from_slice(name);
        out.extend_from_slice(value);
    }
    out.extend_from_slice(request.body);

    let length = out.len() - HEADER;
    if length > LARGEST_REQUEST as usize {
        return Err(TooLarge);
    }
    let header = Header {
        flags: if request.body_complete { flag::END } else { 0 },
        aux: VERSION,
        ..Header::new(Kind::Request, length as u32)
    };
    out[..HEADER].copy_from_slice(&header.encode());
    Ok(())
}

/// Changes what an encoded frame says about earlier attempts to send it.
pub fn set_attempts(frame: &mut [u8], connects: u16, restarts: u16) {
    let place = &mut frame[ATTEMPTS..ATTEMPTS + 4];
    place[..2].copy_from_slice(&connects.to_le_bytes());
    place[2..].copy_from_slice(&restarts.to_le_bytes());
}

/// Decodes the payload of a REQUEST whose header is `header` and calls `serve` with it.
///
/// # Errors
/// The payload is not what [`encode`] writes.
#[inline]
pub fn decode<T>(
    header: Header,
    payload: &[u8],
    serve: impl FnOnce(&WireRequest<'_>) -> T,
) -> Result<T, Malformed> {
    let mut reader = Reader(payload);
    let request_time_us = reader.i64()?;
    let accept_time_us = reader.i64()?;
    let mtime_us = reader.i64()?;
    let server_pid = reader.u32()?;
    let remote_port = reader.u16()?;
    let bits = reader.u8()?;
    let authorization = match reader.u8()? {
        0 => Authorization::Hidden,
        1 => Authorization::Pass,
        2 => Authorization::PassBoth,
        _ => return Err(Malformed),
    };
    let log_level = reader.u8()?;
    let daemon_connects = reader.u16()?;
    let daemon_restarts = reader.u16()?;
    let interface = Interface::from_number(reader.u8()?).ok_or(Malformed)?;
    let asgi = AsgiSettings {
        lifespan: Lifespan::from_number(reader.u8()?).ok_or(Malformed)?,
        websocket: bits & bit::WEBSOCKET != 0,
        websocket_compression: bits & bit::WEBSOCKET_COMPRESSION != 0,
        websocket_ping_s: reader.u16()?,
        websocket_queue: reader.u16()?,
        websocket_max_message: reader.u32()?,
    };
    let headers = usize::from(reader.u16()?);
    let variables = usize::from(reader.u16()?);
    let mut lengths = [0; TEXTS];
    for length in &mut lengths {
        *length = reader.u32()?;
    }
    let body_length = reader.u32()? as usize;

    let mut site_lengths = [0; SITE];
    for length in &mut site_lengths {
        *length = reader.u32()?;
    }
    let mut values = [None; SITE];
    for (value, length) in values.iter_mut().zip(site_lengths) {
        *value = optional(&mut reader, length)?;
    }
    let mut texts = [None; TEXTS];
    for (text, length) in texts.iter_mut().zip(lengths) {
        *text = optional(&mut reader, length)?;
    }

    let count = headers + variables;
    // Each takes eight bytes at least: what a count can make us allocate is bounded by the payload.
    if reader.0.len() < count * 8 {
        return Err(Malformed);
    }
    const EMPTY: Pair<'static> = Pair {
        name: Text::EMPTY,
        value: Text::EMPTY,
    };
    let (mut few, mut inline, mut spilled);
    let pairs = if count <= FEW {
        few = [EMPTY; FEW];
        &mut few[..count]
    } else if count <= PAIRS {
        inline = [EMPTY; PAIRS];
        &mut inline[..count]
    } else {
        spilled = vec![EMPTY; count];
        &mut spilled[..]
    };
    for pair in pairs.iter_mut() {
        let name = reader.u32()? as usize;
        let value = reader.u32()? as usize;
        pair.name = Text::new(reader.bytes(name)?);
        pair.value = Text::new(reader.bytes(value)?);
    }
    let body = reader.bytes(body_length)?;
    if !reader.0.is_empty() {
        return Err(Malformed);
    }

    let value = |index: usize| values[index].map(Text::new).ok_or(Malformed);
    let text = |index: usize| texts[index].map(Text::new).ok_or(Malformed);
    let request = WireRequest {
        head: RequestHead {
            site: Site {
                server_software: value(0)?,
                server_name: value(1)?,
                server_addr: value(2)?,
                server_port: value(3)?,
                server_admin: Opt::new(values[4]),
                document_root: value(5)?,
                context_prefix: Opt::new(values[6]),
                context_document_root: Opt::new(values[7]),
                request_scheme: value(8)?,
                script_filename: value(9)?,
                process_group: value(10)?,
                application_group: value(11)?,
                callable_object: value(12)?,
                request_handler: value(13)?,
                listener_host: value(14)?,
                listener_port: value(15)?,
            },
            method: text(0)?,
            request_uri: text(1)?,
            script_name: text(2)?,
            mount_point: Opt::new(texts[9]),
            path_info: text(3)?,
            query_string: text(4)?,
            protocol: text(5)?,
            remote_addr: text(6)?,
            remote_port,
            https: bits & bit::HTTPS != 0,
            authorization,
            request_time_us,
            accept_time_us,
            daemon_time_us: 0,
            daemon_connects,
            daemon_restarts,
            server_pid,
            request_id: Opt::new(texts[7]),
            connection_id: Opt::new(texts[8]),
            headers: Slice::new(&pairs[..headers]),
            variables: Slice::new(&pairs[headers..]),
        },
        target: Target {
            script: value(16)?,
            mtime_us,
            resource: value(17)?,
            reloading: bits & bit::RELOADING != 0,
            keep_on_failure: bits & bit::KEEP_ON_FAILURE != 0,
            handler_script: bits & bit::HANDLER_SCRIPT != 0,
            interface,
            callable_is_default: bits & bit::CALLABLE_IS_DEFAULT != 0,
            asgi,
        },
        ignore_activity: bits & bit::IGNORE_ACTIVITY != 0,
        log_level,
        body,
        body_complete: header.has(flag::END),
    };
    Ok(serve(&request))
}

#[inline]
fn optional<'a>(reader: &mut Reader<'a>, length: u32) -> Result<Option<&'a [u8]>, Malformed> {
    if length == ABSENT {
        return Ok(None);
    }
    reader.bytes(length as usize).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair<'a>(name: &'a str, value: &'a str) -> Pair<'a> {
        Pair {
            name: name.into(),
            value: value.into(),
        }
    }

    fn example<'a>(headers: &'a [Pair<'a>], variables: &'a [Pair<'a>]) -> WireRequest<'a> {
        WireRequest {
            head: RequestHead {
                site: Site {
                    server_software: "Apache".into(),
                    server_name: "localhost".into(),
                    server_addr: "127.0.0.1".into(),
                    server_port: "80".into(),
                    server_admin: Opt::NONE,
                    document_root: "/srv".into(),
                    context_prefix: Opt::new(Some(b"")),
                    context_document_root: Opt::new(Some(b"/srv")),
                    request_scheme: "http".into(),
                    script_filename: "/srv/app.wsgi".into(),
                    process_group: "site".into(),
                    application_group: "".into(),
                    callable_object: "application".into(),
                    request_handler: "wsgi-script".into(),
                    listener_host: "".into(),
                    listener_port: "80".into(),
                },
                method: "POST".into(),
                request_uri: "/a?b=c".into(),
                script_name: "".into(),
                mount_point: Opt::new(Some(b"/m")),
                path_info: "/a".into(),
                query_string: "b=c".into(),
                protocol: "HTTP/1.1".into(),
                remote_addr: "10.0.0.1".into(),
                remote_port: 4711,
                https: true,
                authorization: Authorization::Pass,
                request_time_us: 1_700_000_000_000_000,
                accept_time_us: 1_700_000_000_000_100,
                daemon_time_us: 0,
                daemon_connects: 3,
                daemon_restarts: 2,
                server_pid: 12,
                request_id: Opt::new(Some(b"abc")),
                connection_id: Opt::NONE,
                headers: Slice::new(headers),
                variables: Slice::new(variables),
            },
            target: Target {
                script: "/srv/app.wsgi".into(),
                mtime_us: 5,
                resource: "/srv/app.wsgi".into(),
                reloading: true,
                keep_on_failure: false,
                handler_script: true,
                interface: Interface::Auto,
                callable_is_default: true,
                asgi: AsgiSettings {
                    websocket_ping_s: 300,
                    websocket_queue: 1,
                    ..AsgiSettings::DEFAULT
                },
            },
            ignore_activity: true,
            log_level: 6,
            body: b"body",
            body_complete: true,
        }
    }

    fn encoded(request: &WireRequest<'_>) -> (Header, Vec<u8>) {
        let mut frame = Vec::new();
        encode(request, &mut frame).unwrap();
        let header = Header::peek(&frame).unwrap().unwrap();
        assert_eq!(header.length as usize, frame.len() - HEADER);
        assert_eq!(header.aux, VERSION);
        (header, frame.split_off(HEADER))
    }

    #[test]
    fn requests_survive_the_wire() {
        for count in [0, 1, 3, FEW - 2, FEW, PAIRS, PAIRS + 1, 500] {
            let headers: Vec<Pair<'_>> = (0..count).map(|_| pair("Host", "x")).collect();
            let variables = [pair("A", ""), pair("SSL_X", "y")];
            let request = example(&headers, &variables);
            let (header, payload) = encoded(&request);
            assert!(header.has(flag::END));
            let same = decode(header, &payload, |decoded| {
                format!("{decoded:?}") == format!("{request:?}")
            });
            assert_eq!(same, Ok(true), "{count} headers");
        }
    }

    #[test]
    fn attempts_can_be_changed_in_the_frame() {
        let mut frame = Vec::new();
        encode(&example(&[], &[]), &mut frame).unwrap();
        set_attempts(&mut frame, 500, 40_000);
        let header = Header::peek(&frame).unwrap().unwrap();
        let counts = decode(header, &frame[HEADER..], |request| {
            let head = &request.head;
            let others = (head.server_pid, head.remote_port, request.log_level);
            (head.daemon_connects, head.daemon_restarts, others)
        });
        assert_eq!(counts, Ok((500, 40_000, (12, 4711, 6))));
    }

    #[test]
    fn cut_or_longer_payloads_are_refused() {
        let headers = [pair("Host", "x")];
        let (header, payload) = encoded(&example(&headers, &[]));
        for length in 0..payload.len() {
            assert!(
                decode(header, &payload[..length], |_| ()).is_err(),
                "{length}"
            );
        }
        let longer = [&payload[..], b"x"].concat();
        assert!(decode(header, &longer, |_| ()).is_err());
    }

    #[test]
    fn any_bytes_are_read_without_a_panic() {
        let headers = [pair("Host", "x")];
        let (header, payload) = encoded(&example(&headers, &[]));
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        for _ in 0..20_000 {
            let mut bytes = payload.clone();
            for _ in 0..4 {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                let at = (state >> 32) as usize % bytes.len();
                bytes[at] = state as u8;
            }
            let _ = decode(header, &bytes, |decoded| format!("{decoded:?}"));
        }
    }

    #[test]
    fn too_large_is_an_error() {
        let body = vec![0; LARGEST_REQUEST as usize];
        let request = WireRequest {
            body: &body,
            ..example(&[], &[])
        };
        assert_eq!(encode(&request, &mut Vec::new()), Err(TooLarge));
    }
}
