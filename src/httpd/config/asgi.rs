//! The directives about ASGI applications: their values, and what they come to for a request.

#![forbid(unsafe_code)]

use super::Settings;
use super::values::{Refusal, one_of};
use crate::exchange::{AsgiSettings, Interface, Lifespan};
use crate::httpd::daemon::values::{bytes, within};

/// The largest message that can be allowed: what an `int` of any language can count.
const LARGEST_MESSAGE: u32 = i32::MAX as u32;

/// `interface=` of an alias.
pub fn interface(value: &[u8]) -> Result<Interface, Refusal> {
    one_of(
        value,
        &[
            ("wsgi", Interface::Wsgi),
            ("asgi", Interface::Asgi),
            ("auto", Interface::Auto),
        ],
    )
}

/// `ASGILifespan`.
pub fn lifespan(value: &[u8]) -> Result<Lifespan, Refusal> {
    one_of(
        value,
        &[
            ("Auto", Lifespan::Auto),
            ("On", Lifespan::On),
            ("Off", Lifespan::Off),
        ],
    )
}

/// `ASGIWebSocketMaxMessage`, bytes.
pub fn max_message(value: &[u8]) -> Result<u32, Refusal> {
    let size = bytes(value, 1)
        .ok()
        .and_then(|size| u32::try_from(size).ok());
    match size {
        Some(size @ 1..=LARGEST_MESSAGE) => Ok(size),
        _ => Err(format!(
            "must be a number of bytes from 1 to {LARGEST_MESSAGE}, which may end with K, M or G; it \
             is '{}'",
            String::from_utf8_lossy(value)
        )),
    }
}

/// `ASGIWebSocketQueue`, messages.
pub fn queue(value: &[u8]) -> Result<u16, Refusal> {
    within(value, 1, u16::MAX.into()).map(small)
}

/// `ASGIWebSocketPing`, seconds.
pub fn ping(value: &[u8]) -> Result<u16, Refusal> {
    within(value, 0, u16::MAX.into()).map(small)
}

fn small(number: u32) -> u16 {
    u16::try_from(number).unwrap_or(u16::MAX)
}

/// What `settings` come to, those of the inner level first.
pub fn effective(levels: [&Settings; 2]) -> AsgiSettings {
    const DEFAULT: AsgiSettings = AsgiSettings::DEFAULT;
    fn first<T>(levels: [&Settings; 2], field: impl Fn(&Settings) -> Option<T>, default: T) -> T {
        levels.into_iter().find_map(field).unwrap_or(default)
    }
    AsgiSettings {
        lifespan: first(levels, |s| s.asgi_lifespan, DEFAULT.lifespan),
        websocket: first(levels, |s| s.asgi_websocket, DEFAULT.websocket),
        websocket_compression: first(
            levels,
            |s| s.asgi_websocket_compression,
            DEFAULT.websocket_compression,
        ),
        websocket_ping_s: first(levels, |s| s.asgi_websocket_ping, DEFAULT.websocket_ping_s),
        websocket_queue: first(levels, |s| s.asgi_websocket_queue, DEFAULT.websocket_queue),
        websocket_max_message: first(
            levels,
            |s| s.asgi_websocket_max_message,
            DEFAULT.websocket_max_message,
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        assert_eq!(interface(b"ASGI"), Ok(Interface::Asgi));
        assert_eq!(interface(b"auto"), Ok(Interface::Auto));
        assert_eq!(interface(b"wsgi"), Ok(Interface::Wsgi));
        let refusal = interface(b"rsgi").unwrap_err();
        assert_eq!(refusal, "must be one of: wsgi | asgi | auto; it is 'rsgi'");
        assert_eq!(lifespan(b"on"), Ok(Lifespan::On));
        assert_eq!(lifespan(b"AUTO"), Ok(Lifespan::Auto));
        assert_eq!(lifespan(b"Off"), Ok(Lifespan::Off));
        let refusal = lifespan(b"yes").unwrap_err();
        assert!(refusal.contains("Auto | On | Off"), "{refusal}");
    }

    #[test]
    fn numbers_have_their_bounds() {
        assert_eq!(max_message(b"1"), Ok(1));
        assert_eq!(max_message(b"2147483647"), Ok(LARGEST_MESSAGE));
        assert_eq!(
            max_message(b"16M"),
            Ok(AsgiSettings::DEFAULT.websocket_max_message)
        );
        for text in ["0", "2147483648", "2G", "16MB", "", "-1"] {
            let refusal = max_message(text.as_bytes()).unwrap_err();
            assert!(refusal.contains("from 1 to 2147483647"), "{refusal}");
        }
        assert_eq!(queue(b"65535"), Ok(65_535));
        for text in ["0", "65536", "x"] {
            assert!(queue(text.as_bytes()).is_err(), "{text}");
        }
        assert_eq!(ping(b"0"), Ok(0));
        assert_eq!(ping(b"20"), Ok(20));
        assert!(ping(b"1.5").is_err());
    }

    #[test]
    fn the_inner_level_wins_and_the_rest_is_as_documented() {
        let outer = Settings {
            asgi_lifespan: Some(Lifespan::On),
            asgi_websocket_queue: Some(7),
            ..Settings::UNSET
        };
        let inner = Settings {
            asgi_websocket_queue: Some(9),
            asgi_websocket: Some(false),
            ..Settings::UNSET
        };
        let expected = AsgiSettings {
            lifespan: Lifespan::On,
            websocket: false,
            websocket_queue: 9,
            ..AsgiSettings::DEFAULT
        };
        assert_eq!(effective([&inner, &outer]), expected);
        let nothing = [&Settings::UNSET, &Settings::UNSET];
        assert_eq!(effective(nothing), AsgiSettings::DEFAULT);
    }
}
