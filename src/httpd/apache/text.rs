//! C strings as bytes.

use core::ffi::{CStr, c_char};

/// The bytes of a C string; empty for null.
///
/// # Safety
/// `string` is null or a NUL-terminated string that is unchanged for `'a`.
#[inline(always)]
pub unsafe fn bytes<'a>(string: *const c_char) -> &'a [u8] {
    // SAFETY: the caller's promise.
    unsafe { optional(string) }.unwrap_or(&[])
}

/// The bytes of a C string, `None` for null.
///
/// # Safety
/// As for [`bytes`].
#[inline(always)]
pub unsafe fn optional<'a>(string: *const c_char) -> Option<&'a [u8]> {
    if string.is_null() {
        return None;
    }
    // SAFETY: the caller's promise.
    Some(unsafe { CStr::from_ptr(string) }.to_bytes())
}

/// A port in decimal digits, without allocation.
pub struct Port {
    number: u16,
    digits: [u8; 5],
    start: usize,
}

impl Port {
    /// Writes the digits.
    #[inline]
    pub fn new(number: u16) -> Self {
        let mut digits = [0; 5];
        let mut start = digits.len();
        let mut rest = number;
        loop {
            start -= 1;
            digits[start] = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        Port {
            number,
            digits,
            start,
        }
    }

    /// The number.
    #[inline(always)]
    pub fn number(&self) -> u16 {
        self.number
    }

    /// The digits.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        &self.digits[self.start..]
    }

    /// The digits, but nothing for a default port.
    pub fn in_group_name(&self) -> &[u8] {
        match self.number {
            80 | 443 => b"",
            _ => self.bytes(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Port;

    #[test]
    fn ports() {
        for (number, text) in [
            (0, "0"),
            (9, "9"),
            (80, "80"),
            (8080, "8080"),
            (65535, "65535"),
        ] {
            assert_eq!(Port::new(number).bytes(), text.as_bytes());
        }
        assert_eq!(Port::new(443).in_group_name(), b"");
        assert_eq!(Port::new(8443).in_group_name(), b"8443");
    }
}
