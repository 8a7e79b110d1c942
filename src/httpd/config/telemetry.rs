//! What is measured and reported: WSGITelemetryService and its like.

use super::directives::Target;
use super::values;
use crate::httpd::apache::PoolStr;
use crate::httpd::apache::command::Words;

/// Longer paths have no room in the address of a socket (`sun_path`, with a NUL at its end).
const LONGEST_PATH: usize = 107;

/// Seconds between two reports: at least, and at most.
const INTERVALS: (f64, f64) = (0.5, 86_400.0);

/// Seconds: more is no threshold.
const LONGEST_REQUEST: f64 = 1e9;

/// What the directives of this file say. Global: for all of httpd, process groups included.
#[derive(Clone, Copy, Default)]
pub struct Telemetry {
    /// `WSGITelemetryService`: the path of the socket.
    pub socket: Option<PoolStr>,
    /// `interval=`, seconds.
    pub interval: Option<f64>,
    /// `WSGITelemetryOptions`: whether slow requests are told with their `User-Agent`.
    pub user_agent: bool,
    /// `WSGISlowRequests`, seconds; 0: not reported.
    pub slow_requests: f64,
    /// `WSGIServerMetrics`.
    pub server_metrics: Option<bool>,
}

impl Telemetry {
    /// Seconds between two reports.
    pub fn interval(&self) -> f64 {
        self.interval.unwrap_or(1.0)
    }
}

/// `WSGITelemetryService unix:/PATH [interval=SECONDS]`.
pub fn service(target: &mut Target<'_>, mut words: Words<'_>) -> Result<(), String> {
    let usage = || {
        format!(
            "WSGITelemetryService takes 1-2 arguments, {}",
            target.help()
        )
    };
    let service = words.next_word().ok_or_else(usage)?;
    let interval = words.next_word();
    if words.next_word().is_some() {
        return Err(usage());
    }
    let path = path(service.bytes())?;
    let interval = interval.map(|word| parse_interval(word.bytes()));
    let path = target.command.pool().copy(path);
    let telemetry = &mut target.server()?.globals_mut().telemetry;
    telemetry.socket = Some(path);
    if let Some(interval) = interval {
        telemetry.interval = Some(interval?);
    }
    Ok(())
}

fn path(service: &[u8]) -> Result<&[u8], String> {
    let shown = String::from_utf8_lossy(service);
    let Some(path) = service.strip_prefix(b"unix:") else {
        return Err(format!(
            "WSGITelemetryService target must be 'unix:/path'; it is '{shown}' (there is no \
             'udp:host:port' any more: the receiver runs on this machine)"
        ));
    };
    if path.first() != Some(&b'/') {
        return Err(format!(
            "WSGITelemetryService needs the absolute path of a socket, 'unix:/path'; it is \
             '{shown}'"
        ));
    }
    if path.len() > LONGEST_PATH {
        return Err(format!(
            "WSGITelemetryService: the path of a socket has at most {LONGEST_PATH} bytes; \
             '{}' has {}",
            String::from_utf8_lossy(path),
            path.len()
        ));
    }
    Ok(path)
}

fn parse_interval(word: &[u8]) -> Result<f64, String> {
    let shown = String::from_utf8_lossy(word);
    let Some(value) = word.strip_prefix(b"interval=") else {
        return Err(format!(
            "WSGITelemetryService second argument must be 'interval=SECONDS'; it is '{shown}'"
        ));
    };
    let (least, most) = INTERVALS;
    match seconds(value) {
        Some(seconds) if (least..=most).contains(&seconds) => Ok(seconds),
        _ => Err(format!(
            "WSGITelemetryService interval must be a number of seconds, at least {least} and at \
             most {most}; it is '{}'",
            String::from_utf8_lossy(value)
        )),
    }
}

/// A decimal number that is not negative.
fn seconds(text: &[u8]) -> Option<f64> {
    let plain = |c: &u8| c.is_ascii_digit() || *c == b'.';
    if !text.iter().all(plain) {
        return None;
    }
    core::str::from_utf8(text).ok()?.parse().ok()
}

/// `WSGIServerMetrics On|Off`.
pub fn server_metrics(target: &mut Target<'_>, word: PoolStr) -> Result<(), String> {
    let value = target.accept(values::on_off(word.bytes()))?;
    target.server()?.globals_mut().telemetry.server_metrics = Some(value);
    Ok(())
}

/// `WSGISlowRequests SECONDS`.
pub fn slow_requests(target: &mut Target<'_>, word: PoolStr) -> Result<(), String> {
    match seconds(word.bytes()) {
        Some(seconds) if seconds <= LONGEST_REQUEST => {
            target.server()?.globals_mut().telemetry.slow_requests = seconds;
            Ok(())
        }
        _ => Err(format!(
            "WSGISlowRequests must be a number of seconds that is not negative, 0 for none; it is \
             '{}'",
            word.text()
        )),
    }
}

/// `WSGITelemetryOptions [+|-]FLAG ... | None | All`.
pub fn options(target: &mut Target<'_>, mut words: Words<'_>) -> Result<(), String> {
    let mut list = Vec::new();
    while let Some(word) = words.next_word() {
        list.push(word.text());
    }
    let telemetry = &mut target.server()?.globals_mut().telemetry;
    telemetry.user_agent = flags(&list, telemetry.user_agent)?;
    Ok(())
}

/// Whether `User-Agent` is told, after `words`, where it was `before`.
fn flags(words: &[String], before: bool) -> Result<bool, String> {
    const WHO: &str = "WSGITelemetryOptions";
    if words.is_empty() {
        return Err(format!("{WHO} needs at least one flag, None or All"));
    }
    let is_relative = |word: &String| word.starts_with(['+', '-']);
    let relative = words.iter().all(is_relative);
    if !relative && words.iter().any(is_relative) {
        return Err(format!(
            "{WHO}: flags with + or - cannot be mixed with flags without in one directive"
        ));
    }
    let mut wanted = relative && before;
    for word in words {
        let name = word.trim_start_matches(['+', '-']);
        if name.is_empty() {
            return Err(format!("{WHO}: '{word}' alone is no flag"));
        }
        let is = |other: &str| name.eq_ignore_ascii_case(other);
        match (is("None"), is("All"), is("CaptureUserAgent")) {
            (true, _, _) | (_, true, _) if relative => {
                return Err(format!("{WHO}: '{name}' takes no + or -"));
            }
            (true, _, _) => wanted = false,
            (_, true, _) => wanted = true,
            (_, _, true) => wanted = !word.starts_with('-'),
            _ => {
                return Err(format!(
                    "{WHO}: unknown flag '{name}'; known are CaptureUserAgent, None, All"
                ));
            }
        }
    }
    Ok(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(words: &str, before: bool) -> Result<bool, String> {
        let words: Vec<String> = words.split(' ').map(str::to_owned).collect();
        flags(&words, before)
    }

    #[test]
    fn flags_replace_or_change() {
        for (words, before, after) in [
            ("CaptureUserAgent", false, true),
            ("captureuseragent", false, true),
            ("+CaptureUserAgent", false, true),
            ("-CaptureUserAgent", true, false),
            ("-CaptureUserAgent +CaptureUserAgent", false, true),
            ("None", true, false),
            ("All", false, true),
            ("None CaptureUserAgent", false, true),
        ] {
            assert_eq!(set(words, before), Ok(after), "{words}");
        }
        for (words, error) in [
            ("+CaptureUserAgent CaptureUserAgent", "mixed"),
            ("Everything", "unknown flag 'Everything'"),
            ("+Everything", "unknown flag 'Everything'"),
            ("+", "alone"),
            ("-", "alone"),
            ("+None", "takes no"),
            ("-All", "takes no"),
        ] {
            let message = set(words, false).unwrap_err();
            assert!(message.contains(error), "{words}: {message}");
        }
        assert!(flags(&[], false).is_err());
    }

    #[test]
    fn services() {
        assert_eq!(path(b"unix:/run/x"), Ok(&b"/run/x"[..]));
        let long = [b"unix:/".to_vec(), vec![b'x'; 107]].concat();
        for bad in [
            &b"udp:localhost:1"[..],
            b"/run/x",
            b"unix:run/x",
            b"unix:",
            &long,
        ] {
            assert!(path(bad).is_err());
        }
        assert!(path(&long[..long.len() - 1]).is_ok());
        assert_eq!(parse_interval(b"interval=0.5"), Ok(0.5));
        assert_eq!(parse_interval(b"interval=10"), Ok(10.0));
        for bad in [
            "interval=0.4",
            "interval=x",
            "interval=",
            "interval=inf",
            "interval=1e3",
            "interval=-1",
            "5",
            "interval=1e400",
            "interval=1.2.3",
        ] {
            assert!(parse_interval(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
