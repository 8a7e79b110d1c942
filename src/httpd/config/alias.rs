//! `WSGIScriptAlias`, `ASGIScriptAlias` and their forms with regular expressions.

use core::ffi::CStr;

use super::script_options::ScriptOptions;
use crate::httpd::apache::command::Regex;
use crate::httpd::apache::{Pool, PoolStr};

/// What an alias compares the path with.
#[derive(Clone, Copy)]
pub enum Pattern {
    /// A path prefix, component by component.
    Prefix(PoolStr),
    /// A regular expression.
    Regex(Regex),
}

/// One alias.
#[derive(Clone, Copy)]
pub struct Alias {
    /// What it matches.
    pub pattern: Pattern,
    /// The script file or the directory of script files.
    pub target: PoolStr,
    /// Where and how the script runs.
    pub options: ScriptOptions,
}

/// Where an alias leads.
pub struct Mapped {
    /// The target, with groups of a regular expression filled in.
    pub target: PoolStr,
    /// Where in the path the part begins that follows the target.
    pub rest: usize,
}

impl Alias {
    /// Maps a path. Any thread.
    pub fn map(&self, uri: &CStr, pool: Pool<'_>) -> Option<Mapped> {
        let path = uri.to_bytes();
        match &self.pattern {
            Pattern::Prefix(prefix) => {
                let matched = match_prefix(path, prefix.bytes())?;
                Some(Mapped {
                    target: self.target,
                    // The alias of everything keeps its slash.
                    rest: if prefix.bytes() == b"/" { 0 } else { matched },
                })
            }
            Pattern::Regex(regex) => {
                let (end, target) = regex.substitute(uri, &self.target, pool)?;
                (end > 0 && end <= path.len()).then(|| Mapped {
                    target,
                    rest: if &path[..end] == b"/" { 0 } else { end },
                })
            }
        }
    }
}

/// How many bytes of `path` the alias `prefix` matches, by mod_alias's rules: a run of slashes in
/// one matches a run in the other, and the last component must match as a whole.
pub fn match_prefix(path: &[u8], prefix: &[u8]) -> Option<usize> {
    let last = *prefix.last()?;
    let skip =
        |bytes: &[u8], from: usize| from + bytes[from..].iter().take_while(|c| **c == b'/').count();
    let (mut p, mut u) = (0, 0);
    while p < prefix.len() {
        if path.get(u) != Some(&prefix[p]) {
            return None;
        }
        if prefix[p] == b'/' {
            p = skip(prefix, p);
            u = skip(path, u);
        } else {
            p += 1;
            u += 1;
        }
    }
    let whole = last == b'/' || matches!(path.get(u), None | Some(b'/'));
    whole.then_some(u)
}

#[cfg(test)]
mod tests {
    use super::match_prefix;

    #[test]
    fn prefixes() {
        for (path, prefix, matched) in [
            ("/", "/", Some(1)),
            ("/a/b", "/", Some(1)),
            ("//a", "/", Some(2)),
            ("/foo", "/foo", Some(4)),
            ("/foo/", "/foo", Some(4)),
            ("/foo/bar", "/foo", Some(4)),
            ("/foobar", "/foo", None),
            ("/fo", "/foo", None),
            ("/foo", "/foo/", None),
            ("/foo/", "/foo/", Some(5)),
            ("/foo//bar", "/foo/", Some(6)),
            ("//foo///bar/x", "/foo/bar", Some(11)),
            ("/foo/bar", "//foo//bar", Some(8)),
            ("foo", "/foo", None),
            ("*", "/", None),
            ("", "/", None),
            ("/foo", "", None),
        ] {
            assert_eq!(
                match_prefix(path.as_bytes(), prefix.as_bytes()),
                matched,
                "{path} {prefix}"
            );
        }
    }
}
