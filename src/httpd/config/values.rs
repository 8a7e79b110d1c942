//! Values of directives, from text.

#![forbid(unsafe_code)]

use super::server::Seed;
use super::settings::MapHead;
use crate::exchange::abi::HashSeed;

/// Why a value is refused: the end of the sentence "<directive> ...".
pub type Refusal = String;

/// One of these names, in any case.
pub fn one_of<T: Copy>(value: &[u8], accepted: &[(&str, T)]) -> Result<T, Refusal> {
    let found = accepted
        .iter()
        .find(|(name, _)| value.eq_ignore_ascii_case(name.as_bytes()));
    match found {
        Some((_, meaning)) => Ok(*meaning),
        None => {
            let names: Vec<&str> = accepted.iter().map(|(name, _)| *name).collect();
            Err(format!(
                "must be one of: {}; it is '{}'",
                names.join(" | "),
                String::from_utf8_lossy(value)
            ))
        }
    }
}

/// `On` or `Off`, any case.
pub fn on_off(value: &[u8]) -> Result<bool, Refusal> {
    one_of(value, &[("Off", false), ("On", true)])
}

/// `ASGILoop` and `loop=`: whether it is uvloop.
pub fn event_loop(value: &[u8]) -> Result<bool, Refusal> {
    one_of(value, &[("asyncio", false), ("uvloop", true)])
}

/// `WSGIMapHEADToGET`.
pub fn map_head(value: &[u8]) -> Result<MapHead, Refusal> {
    one_of(
        value,
        &[
            ("Off", MapHead::Off),
            ("On", MapHead::On),
            ("Auto", MapHead::Auto),
        ],
    )
}

/// `WSGIReloadFailure`; true is `Keep`.
pub fn reload_failure(value: &[u8]) -> Result<bool, Refusal> {
    one_of(value, &[("Keep", true), ("Fail", false)])
}

/// A decimal number from 0 to `most`.
pub fn number(value: &[u8], most: u32) -> Result<u32, Refusal> {
    let text = core::str::from_utf8(value).unwrap_or("");
    let digits = !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit());
    match text.parse::<u32>() {
        Ok(number) if digits && number <= most => Ok(number),
        _ => Err(format!(
            "must be a whole number from 0 to {most}; it is '{}'",
            String::from_utf8_lossy(value)
        )),
    }
}

/// `WSGISwitchInterval`, seconds.
pub fn switch_interval(value: &[u8]) -> Result<f64, Refusal> {
    let text = String::from_utf8_lossy(value);
    match text.parse::<f64>() {
        Ok(seconds) if seconds > 0.0 && seconds.is_finite() => Ok(seconds),
        _ => Err(format!(
            "must be a positive number of seconds; it is '{text}'"
        )),
    }
}

/// `WSGIPythonHashSeed`.
pub fn hash_seed(value: &[u8]) -> Result<Seed, Refusal> {
    if value.eq_ignore_ascii_case(b"random") {
        return Ok(Seed {
            kind: HashSeed::Random,
            value: 0,
        });
    }
    match number(value, u32::MAX) {
        Ok(value) => Ok(Seed {
            kind: HashSeed::Fixed,
            value,
        }),
        Err(_) => Err(format!(
            "must be 'random' or a whole number from 0 to {}; it is '{}'",
            u32::MAX,
            String::from_utf8_lossy(value)
        )),
    }
}

/// The directories of a colon-separated list, without the empty ones.
pub fn directories(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    list.split(|c| *c == b':').filter(|entry| !entry.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn switches() {
        for text in ["On", "on", "ON"] {
            assert_eq!(on_off(text.as_bytes()), Ok(true));
        }
        assert_eq!(on_off(b"off"), Ok(false));
        for text in ["", "yes", "1", "Onn"] {
            let refusal = on_off(text.as_bytes()).unwrap_err();
            assert!(refusal.contains("Off | On"), "{refusal}");
        }
        assert_eq!(map_head(b"auto"), Ok(MapHead::Auto));
        assert!(map_head(b"maybe").is_err());
        assert_eq!(reload_failure(b"keep"), Ok(true));
        assert_eq!(reload_failure(b"Fail"), Ok(false));
    }

    #[test]
    fn numbers() {
        assert_eq!(number(b"0", 9), Ok(0));
        assert_eq!(number(b"9", 9), Ok(9));
        for text in ["", "-1", "+1", "10", "1x", "0x1", " 1", "4294967296", "1.5"] {
            assert!(number(text.as_bytes(), 9).is_err(), "{text}");
        }
    }

    #[test]
    fn intervals() {
        assert_eq!(switch_interval(b"0.002"), Ok(0.002));
        assert_eq!(switch_interval(b"1"), Ok(1.0));
        for text in ["0", "-1", "x", "", "inf", "nan", "1s"] {
            assert!(switch_interval(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn seeds() {
        let fixed = |value| Seed {
            kind: HashSeed::Fixed,
            value,
        };
        assert_eq!(hash_seed(b"0"), Ok(fixed(0)));
        assert_eq!(hash_seed(b"4294967295"), Ok(fixed(u32::MAX)));
        assert_eq!(hash_seed(b"random").unwrap().kind, HashSeed::Random);
        for text in ["4294967296", "-1", "x", ""] {
            assert!(hash_seed(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn lists() {
        let all: Vec<&[u8]> = directories(b":/a::/b:").collect();
        assert_eq!(all, [b"/a", b"/b"]);
    }
}
