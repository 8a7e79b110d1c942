//! Runs of slashes in paths.

#![forbid(unsafe_code)]

use std::borrow::Cow;

/// Makes every run of `/` one `/`. Borrows when there is nothing to do, which is the usual case.
pub fn collapse(path: &[u8]) -> Cow<'_, [u8]> {
    let doubled = path.windows(2).position(|pair| pair == b"//");
    let Some(first) = doubled else {
        return Cow::Borrowed(path);
    };
    let mut clean = Vec::with_capacity(path.len());
    clean.extend_from_slice(&path[..=first]);
    for &byte in &path[first + 1..] {
        if byte != b'/' || clean.last() != Some(&b'/') {
            clean.push(byte);
        }
    }
    Cow::Owned(clean)
}

#[cfg(test)]
mod tests {
    use super::collapse;
    use std::borrow::Cow;

    #[test]
    fn borrows_what_is_clean() {
        for path in [&b""[..], b"/", b"/a/b", b"a"] {
            assert!(matches!(collapse(path), Cow::Borrowed(p) if p == path));
        }
    }

    #[test]
    fn makes_runs_one() {
        assert_eq!(&*collapse(b"//"), b"/");
        assert_eq!(&*collapse(b"/a//b///c/"), b"/a/b/c/");
        assert_eq!(&*collapse(b"///a"), b"/a");
        assert_eq!(&*collapse(b"a///"), b"a/");
    }
}
