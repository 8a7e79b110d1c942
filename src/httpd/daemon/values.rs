//! Values of the options of `WSGIDaemonProcess`, from text.
//!
//! Each function gives the value, or the end of the sentence "<option> ...".

#![forbid(unsafe_code)]

use crate::httpd::config::values::{Refusal, number};

/// The longest time that can be configured, seconds: ten years.
const LONGEST: u32 = 315_360_000;

fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value).into_owned()
}

/// A whole number from `least` to `most`.
pub fn within(value: &[u8], least: u32, most: u32) -> Result<u32, Refusal> {
    match number(value, most) {
        Ok(number) if number >= least => Ok(number),
        _ => Err(format!(
            "must be a whole number from {least} to {most}; it is '{}'",
            text(value)
        )),
    }
}

/// Seconds, 0 for no limit.
pub fn seconds(value: &[u8]) -> Result<u32, Refusal> {
    number(value, LONGEST).map_err(|_| {
        format!(
            "must be a whole number of seconds from 0 to {LONGEST}; it is '{}'",
            text(value)
        )
    })
}

/// Bytes, with an optional suffix K, M, G or T; 0 for no limit, or at least `least`.
pub fn bytes(value: &[u8], least: u64) -> Result<u64, Refusal> {
    let (digits, shift) = match value.split_last() {
        Some((b'k' | b'K', digits)) => (digits, 10),
        Some((b'm' | b'M', digits)) => (digits, 20),
        Some((b'g' | b'G', digits)) => (digits, 30),
        Some((b't' | b'T', digits)) => (digits, 40),
        _ => (value, 0),
    };
    let plain = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    let number = core::str::from_utf8(digits)
        .ok()
        .filter(|_| plain)
        .and_then(|digits| digits.parse::<u64>().ok())
        .and_then(|number| number.checked_mul(1 << shift))
        // What the system's interfaces take.
        .filter(|number| i64::try_from(*number).is_ok());
    match number {
        Some(0) => Ok(0),
        Some(number) if number >= least => Ok(number),
        _ => {
            let bound = if least > 1 {
                format!("0, or at least {least} ")
            } else {
                String::new()
            };
            Err(format!(
                "must be {bound}{}bytes (a whole number, also with K, M, G or T behind it); it is \
                 '{}'",
                if bound.is_empty() { "a number of " } else { "" },
                text(value)
            ))
        }
    }
}

/// The size of a buffer in bytes: 0, or from `least` on.
pub fn buffer(value: &[u8], least: u64) -> Result<u32, Refusal> {
    let size = bytes(value, least)?;
    u32::try_from(size)
        .ok()
        .filter(|size| i32::try_from(*size).is_ok())
        .ok_or_else(|| format!("must be less than 2G; it is '{}'", text(value)))
}

/// A mask of permissions, octal.
pub fn umask(value: &[u8]) -> Result<u32, Refusal> {
    let octal = !value.is_empty() && value.iter().all(|c| matches!(c, b'0'..=b'7'));
    core::str::from_utf8(value)
        .ok()
        .filter(|_| octal)
        .and_then(|digits| u32::from_str_radix(digits, 8).ok())
        .filter(|mask| *mask <= 0o777)
        .ok_or_else(|| {
            format!(
                "must be an octal number from 0 to 0777; it is '{}'",
                text(value)
            )
        })
}

/// A nice value.
pub fn priority(value: &[u8]) -> Result<i32, Refusal> {
    let digits = value.strip_prefix(b"-").unwrap_or(value);
    let plain = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    core::str::from_utf8(value)
        .ok()
        .filter(|_| plain)
        .and_then(|digits| digits.parse::<i32>().ok())
        .filter(|nice| (-20..=19).contains(nice))
        .ok_or_else(|| {
            format!(
                "must be a whole number from -20 (first) to 19 (last); it is '{}'",
                text(value)
            )
        })
}

/// A positive number of seconds, with a fraction.
pub fn interval(value: &[u8]) -> Result<f64, Refusal> {
    let plain = value
        .iter()
        .all(|c| matches!(c, b'0'..=b'9' | b'.' | b'e' | b'E' | b'-'));
    core::str::from_utf8(value)
        .ok()
        .filter(|_| plain)
        .and_then(|digits| digits.parse::<f64>().ok())
        .filter(|seconds| seconds.is_finite() && *seconds > 0.0 && *seconds < 1e6)
        .ok_or_else(|| {
            format!(
                "must be a number of seconds above 0, such as 0.005; it is '{}'",
                text(value)
            )
        })
}

/// An absolute path, without a slash at its end.
pub fn absolute(value: &[u8]) -> Result<Vec<u8>, Refusal> {
    if value.first() != Some(&b'/') {
        return Err(format!("must be an absolute path; it is '{}'", text(value)));
    }
    let end = value
        .iter()
        .rposition(|c| *c != b'/')
        .map_or(1, |at| at + 1);
    Ok(value[..end].to_vec())
}

/// `NAME=VALUE`.
pub fn variable(value: &[u8]) -> Result<Vec<u8>, Refusal> {
    let name = value.split(|c| *c == b'=').next().unwrap_or_default();
    let good = !name.is_empty()
        && !name[0].is_ascii_digit()
        && name.iter().all(|c| c.is_ascii_alphanumeric() || *c == b'_');
    if good && value.len() > name.len() {
        return Ok(value.to_vec());
    }
    Err(format!(
        "must be NAME=VALUE with a name of letters, digits and '_'; it is '{}'",
        text(value)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers() {
        assert_eq!(within(b"1", 1, 5), Ok(1));
        assert_eq!(within(b"5", 1, 5), Ok(5));
        for text in ["0", "6", "-1", "", "1x", "0x1", "1.0", "+1", " 1"] {
            let refusal = within(text.as_bytes(), 1, 5).unwrap_err();
            assert!(refusal.contains("from 1 to 5"), "{refusal}");
        }
        assert_eq!(seconds(b"2592000"), Ok(2_592_000));
        for text in ["", "-1", "5s", "315360001", "1e3"] {
            assert!(seconds(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes() {
        for (text, size) in [
            ("0", 0),
            ("512", 512),
            ("1K", 1 << 10),
            ("256m", 256 << 20),
            ("2G", 2 << 30),
            ("1T", 1 << 40),
        ] {
            assert_eq!(bytes(text.as_bytes(), 1), Ok(size), "{text}");
        }
        for text in [
            "",
            "K",
            "-1",
            "1.5G",
            "1KB",
            "x",
            "99999999999999999999",
            "9999999T",
        ] {
            assert!(bytes(text.as_bytes(), 1).is_err(), "{text}");
        }
        assert_eq!(buffer(b"0", 512), Ok(0));
        assert_eq!(buffer(b"512", 512), Ok(512));
        let refusal = buffer(b"511", 512).unwrap_err();
        assert!(refusal.contains("0, or at least 512"), "{refusal}");
        assert!(buffer(b"2G", 512).is_err());
    }

    #[test]
    fn masks() {
        assert_eq!(umask(b"0027"), Ok(0o027));
        assert_eq!(umask(b"777"), Ok(0o777));
        assert_eq!(umask(b"0"), Ok(0));
        for text in ["9", "1000", "", "-1", "0o27", "u=rwx"] {
            assert!(umask(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn priorities() {
        assert_eq!(priority(b"-20"), Ok(-20));
        assert_eq!(priority(b"19"), Ok(19));
        for text in ["20", "-21", "", "-", "--1", "x"] {
            assert!(priority(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn intervals() {
        assert_eq!(interval(b"0.005"), Ok(0.005));
        assert_eq!(interval(b"1"), Ok(1.0));
        for text in ["0", "-1", "x", "", "inf", "nan", "1e99"] {
            assert!(interval(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn paths() {
        assert_eq!(absolute(b"/srv/x//"), Ok(b"/srv/x".to_vec()));
        assert_eq!(absolute(b"/"), Ok(b"/".to_vec()));
        assert!(absolute(b"srv").unwrap_err().contains("absolute"));
    }

    #[test]
    fn variables() {
        assert_eq!(variable(b"A_1=x=y"), Ok(b"A_1=x=y".to_vec()));
        assert_eq!(variable(b"A="), Ok(b"A=".to_vec()));
        for text in ["A", "=x", "1A=x", "A B=x", "A-B=x", ""] {
            assert!(variable(text.as_bytes()).is_err(), "{text}");
        }
    }
}
