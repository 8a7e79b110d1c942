//! From HTTP field names to CGI variable names, exactly as httpd maps them.
//!
//! RFC 3875 section 4.1.18 with httpd's hardening (`util_script.c`): a name with a character
//! outside `[A-Za-z0-9-]` is dropped, so that `X_Forwarded_User` cannot pass for
//! `X-Forwarded-User`; `Proxy` never becomes `HTTP_PROXY` (CVE-2016-5387); the credentials pass
//! only where the configuration says so; Content-Type and Content-Length have no prefix.

#![forbid(unsafe_code)]

use super::head::Authorization;

/// What becomes of a header field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variable {
    /// The variable [`KNOWN`]`[index]`.
    Known(u8),
    /// A variable whose name [`write_name`] makes.
    Other,
    /// The application never sees it.
    Dropped,
}

macro_rules! known {
    ($($header:literal => $variable:literal,)*) => {
        /// Common fields: name in lower case, and the variable that carries the value.
        pub const KNOWN: &[(&str, &str)] = &[$(($header, $variable),)*];
    };
}

known! {
    "authorization" => "HTTP_AUTHORIZATION",
    "proxy-authorization" => "HTTP_PROXY_AUTHORIZATION",
    "proxy" => "",
    "content-type" => "CONTENT_TYPE",
    "content-length" => "CONTENT_LENGTH",
    "host" => "HTTP_HOST",
    "accept" => "HTTP_ACCEPT",
    "accept-charset" => "HTTP_ACCEPT_CHARSET",
    "accept-encoding" => "HTTP_ACCEPT_ENCODING",
    "accept-language" => "HTTP_ACCEPT_LANGUAGE",
    "access-control-request-headers" => "HTTP_ACCESS_CONTROL_REQUEST_HEADERS",
    "access-control-request-method" => "HTTP_ACCESS_CONTROL_REQUEST_METHOD",
    "baggage" => "HTTP_BAGGAGE",
    "cache-control" => "HTTP_CACHE_CONTROL",
    "cdn-loop" => "HTTP_CDN_LOOP",
    "cf-connecting-ip" => "HTTP_CF_CONNECTING_IP",
    "cf-ipcountry" => "HTTP_CF_IPCOUNTRY",
    "cf-ray" => "HTTP_CF_RAY",
    "cf-visitor" => "HTTP_CF_VISITOR",
    "connection" => "HTTP_CONNECTION",
    "content-disposition" => "HTTP_CONTENT_DISPOSITION",
    "content-encoding" => "HTTP_CONTENT_ENCODING",
    "content-language" => "HTTP_CONTENT_LANGUAGE",
    "content-md5" => "HTTP_CONTENT_MD5",
    "content-range" => "HTTP_CONTENT_RANGE",
    "cookie" => "HTTP_COOKIE",
    "date" => "HTTP_DATE",
    "depth" => "HTTP_DEPTH",
    "destination" => "HTTP_DESTINATION",
    "dnt" => "HTTP_DNT",
    "early-data" => "HTTP_EARLY_DATA",
    "expect" => "HTTP_EXPECT",
    "forwarded" => "HTTP_FORWARDED",
    "from" => "HTTP_FROM",
    "hx-request" => "HTTP_HX_REQUEST",
    "if-match" => "HTTP_IF_MATCH",
    "if-modified-since" => "HTTP_IF_MODIFIED_SINCE",
    "if-none-match" => "HTTP_IF_NONE_MATCH",
    "if-range" => "HTTP_IF_RANGE",
    "if-unmodified-since" => "HTTP_IF_UNMODIFIED_SINCE",
    "keep-alive" => "HTTP_KEEP_ALIVE",
    "max-forwards" => "HTTP_MAX_FORWARDS",
    "origin" => "HTTP_ORIGIN",
    "overwrite" => "HTTP_OVERWRITE",
    "pragma" => "HTTP_PRAGMA",
    "priority" => "HTTP_PRIORITY",
    "range" => "HTTP_RANGE",
    "referer" => "HTTP_REFERER",
    "save-data" => "HTTP_SAVE_DATA",
    "sec-ch-ua" => "HTTP_SEC_CH_UA",
    "sec-ch-ua-mobile" => "HTTP_SEC_CH_UA_MOBILE",
    "sec-ch-ua-platform" => "HTTP_SEC_CH_UA_PLATFORM",
    "sec-fetch-dest" => "HTTP_SEC_FETCH_DEST",
    "sec-fetch-mode" => "HTTP_SEC_FETCH_MODE",
    "sec-fetch-site" => "HTTP_SEC_FETCH_SITE",
    "sec-fetch-user" => "HTTP_SEC_FETCH_USER",
    "sec-gpc" => "HTTP_SEC_GPC",
    "te" => "HTTP_TE",
    "traceparent" => "HTTP_TRACEPARENT",
    "tracestate" => "HTTP_TRACESTATE",
    "transfer-encoding" => "HTTP_TRANSFER_ENCODING",
    "upgrade" => "HTTP_UPGRADE",
    "upgrade-insecure-requests" => "HTTP_UPGRADE_INSECURE_REQUESTS",
    "user-agent" => "HTTP_USER_AGENT",
    "via" => "HTTP_VIA",
    "x-amzn-trace-id" => "HTTP_X_AMZN_TRACE_ID",
    "x-correlation-id" => "HTTP_X_CORRELATION_ID",
    "x-csrf-token" => "HTTP_X_CSRF_TOKEN",
    "x-csrftoken" => "HTTP_X_CSRFTOKEN",
    "x-forwarded-for" => "HTTP_X_FORWARDED_FOR",
    "x-forwarded-host" => "HTTP_X_FORWARDED_HOST",
    "x-forwarded-port" => "HTTP_X_FORWARDED_PORT",
    "x-forwarded-prefix" => "HTTP_X_FORWARDED_PREFIX",
    "x-forwarded-proto" => "HTTP_X_FORWARDED_PROTO",
    "x-forwarded-server" => "HTTP_X_FORWARDED_SERVER",
    "x-http-method-override" => "HTTP_X_HTTP_METHOD_OVERRIDE",
    "x-real-ip" => "HTTP_X_REAL_IP",
    "x-request-id" => "HTTP_X_REQUEST_ID",
    "x-requested-with" => "HTTP_X_REQUESTED_WITH",
    "x-xsrf-token" => "HTTP_X_XSRF_TOKEN",
}

/// Index of `Authorization` in [`KNOWN`].
const AUTHORIZATION: u8 = 0;
/// Index of `Proxy-Authorization` in [`KNOWN`].
const PROXY_AUTHORIZATION: u8 = 1;
/// Index of `Proxy` in [`KNOWN`].
const PROXY: u8 = 2;

/// Slots of the open-addressing table below: a power of two, at least three times `KNOWN.len()`.
const SLOTS: usize = 256;
const EMPTY: u8 = u8::MAX;

const fn slot_of(name: &[u8]) -> usize {
    // Folding with 0x20 makes letters lower case and leaves digits and '-' alone.
    let length = name.len();
    let first = (name[0] | 0x20) as usize;
    let middle = (name[length / 2] | 0x20) as usize;
    let last = (name[length - 1] | 0x20) as usize;
    (length * 31 + first * 7 + middle * 61 + last * 17) % SLOTS
}

/// Linear probing, filled by the compiler: no search that might not end, no start-up work.
static TABLE: [u8; SLOTS] = {
    let mut table = [EMPTY; SLOTS];
    let mut index = 0;
    while index < KNOWN.len() {
        let mut slot = slot_of(KNOWN[index].0.as_bytes());
        while table[slot] != EMPTY {
            slot = (slot + 1) % SLOTS;
        }
        table[slot] = index as u8;
        index += 1;
    }
    table
};

/// Known names are compared eight bytes at a time; none is longer than this.
const LONGEST: usize = 32;
type Words = [u64; LONGEST / 8];

/// A known name, and where it has letters: there, and only there, 0x20 makes no difference.
struct Pattern {
    name: Words,
    letters: Words,
}

impl Pattern {
    fn matches(&self, name: &Words) -> bool {
        (0..name.len()).all(|i| name[i] | self.letters[i] == self.name[i])
    }
}

static PATTERNS: [Pattern; KNOWN.len()] = {
    const NONE: Pattern = Pattern {
        name: [0; LONGEST / 8],
        letters: [0; LONGEST / 8],
    };
    let mut patterns = [NONE; KNOWN.len()];
    let mut index = 0;
    while index < KNOWN.len() {
        let name = KNOWN[index].0.as_bytes();
        let mut at = 0;
        while at < name.len() {
            let shift = 8 * (at % 8);
            patterns[index].name[at / 8] |= (name[at] as u64) << shift;
            if name[at].is_ascii_alphabetic() {
                patterns[index].letters[at / 8] |= 0x20 << shift;
            }
            at += 1;
        }
        index += 1;
    }
    patterns
};

/// The bytes of a short name, filled up with zeroes.
fn words(name: &[u8]) -> Option<Words> {
    let mut block = [0; LONGEST];
    block.get_mut(..name.len())?.copy_from_slice(name);
    let mut words = [0; LONGEST / 8];
    for (word, bytes) in words.iter_mut().zip(block.chunks_exact(8)) {
        *word = u64::from_le_bytes(bytes.try_into().unwrap_or_default());
    }
    Some(words)
}

fn known(name: &[u8]) -> Option<u8> {
    let words = words(name)?;
    let mut slot = slot_of(name);
    while TABLE[slot] != EMPTY {
        let index = TABLE[slot];
        if PATTERNS[index as usize].matches(&words) {
            return Some(index);
        }
        slot = (slot + 1) % SLOTS;
    }
    None
}

/// Decides what becomes of the field `name` (any case).
#[inline]
pub fn variable(name: &[u8], authorization: Authorization) -> Variable {
    if name.is_empty() {
        return Variable::Dropped;
    }
    if let Some(index) = known(name) {
        return gate(index, authorization);
    }
    if name.iter().all(|c| c.is_ascii_alphanumeric() || *c == b'-') {
        Variable::Other
    } else {
        Variable::Dropped
    }
}

fn gate(index: u8, authorization: Authorization) -> Variable {
    let passes = match index {
        PROXY => false,
        AUTHORIZATION => authorization != Authorization::Hidden,
        PROXY_AUTHORIZATION => authorization == Authorization::PassBoth,
        _ => true,
    };
    if passes {
        Variable::Known(index)
    } else {
        Variable::Dropped
    }
}

/// Writes `HTTP_` and the CGI form of `name` into `buffer`, replacing what it held.
pub fn write_name(name: &[u8], buffer: &mut Vec<u8>) {
    buffer.clear();
    buffer.extend_from_slice(b"HTTP_");
    buffer.extend(name.iter().map(|c| match c {
        b'-' => b'_',
        c => c.to_ascii_uppercase(),
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name_of(name: &str, authorization: Authorization) -> Option<String> {
        match variable(name.as_bytes(), authorization) {
            Variable::Known(index) => Some(KNOWN[index as usize].1.to_owned()),
            Variable::Other => {
                let mut buffer = Vec::new();
                write_name(name.as_bytes(), &mut buffer);
                Some(String::from_utf8(buffer).unwrap())
            }
            Variable::Dropped => None,
        }
    }

    #[test]
    fn every_known_name_is_found_in_any_case_and_named_by_the_rule() {
        for (header, expected) in KNOWN.iter().filter(|(header, _)| *header != "proxy") {
            let found = name_of(header, Authorization::PassBoth);
            assert_eq!(found.as_deref(), Some(*expected));
            assert_eq!(
                name_of(&header.to_uppercase(), Authorization::PassBoth),
                found
            );
            let mut by_rule = Vec::new();
            write_name(header.as_bytes(), &mut by_rule);
            let by_rule = String::from_utf8(by_rule).unwrap();
            let unprefixed = expected.starts_with("CONTENT_") && by_rule.ends_with(expected);
            assert!(*expected == by_rule || unprefixed, "{header}");
        }
        assert!(KNOWN.len() * 3 <= SLOTS);
    }

    #[test]
    fn unknown_names_are_made_by_the_rule() {
        assert_eq!(
            name_of("X-Odd-9", Authorization::Hidden).as_deref(),
            Some("HTTP_X_ODD_9")
        );
    }

    #[test]
    fn other_characters_drop_the_field() {
        let long = "x".repeat(40) + "_";
        // The last three differ from a known name in a bit that letters do not mind.
        for name in [
            "X_Forwarded_For",
            "X.A",
            "X A",
            "Ä",
            "",
            "Host\0",
            "ho_t",
            &long,
            "sec\rgpc",
            "content\rmd5",
            "content-md\x15",
        ] {
            assert_eq!(name_of(name, Authorization::PassBoth), None, "{name}");
        }
    }

    #[test]
    fn proxy_is_dropped_whatever_its_case() {
        for name in ["Proxy", "proxy", "PROXY"] {
            assert_eq!(name_of(name, Authorization::PassBoth), None);
        }
    }

    #[test]
    fn credentials_are_gated() {
        use Authorization::*;
        for (gate, plain, proxy) in [
            (Hidden, false, false),
            (Pass, true, false),
            (PassBoth, true, true),
        ] {
            assert_eq!(name_of("Authorization", gate).is_some(), plain);
            assert_eq!(name_of("Proxy-Authorization", gate).is_some(), proxy);
        }
    }
}
