//! Records of gateways: `key = value` lines that the build wrote.

#![forbid(unsafe_code)]

use core::fmt;
use std::path::{Path, PathBuf};

/// Major and minor version of a Python: what a gateway is built for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Minor(pub u32, pub u32);

impl fmt::Display for Minor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

impl Minor {
    /// From `3.11`, `3.11.2`, `3.13.0rc1`.
    pub fn parse(version: &str) -> Option<Minor> {
        let mut parts = version.trim().split('.');
        let major = parts.next()?.parse().ok()?;
        let minor = parts.next()?;
        let digits = minor.bytes().take_while(u8::is_ascii_digit).count();
        Some(Minor(major, minor[..digits].parse().ok()?))
    }
}

/// What a gateway and its Python must agree in: the version, and whether the build is one without the
/// global lock, which is another ABI.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Build {
    /// The version.
    pub minor: Minor,
    /// Without the global lock: `3.14t`.
    pub free_threaded: bool,
}

impl fmt::Display for Build {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.free_threaded { "t" } else { "" };
        write!(f, "{}{kind}", self.minor)
    }
}

/// One gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// File name of the shared object and of the record, without the suffix.
    pub stem: String,
    /// The version in full.
    pub version: String,
    /// Its major and minor number.
    pub minor: Minor,
    /// The shared library; `None` if that Python has none and can only run as a process of its own.
    pub libpython: Option<PathBuf>,
    /// `sys.prefix`.
    pub prefix: PathBuf,
    /// The interpreter.
    pub executable: PathBuf,
}

/// The value of `key` in lines of `key = value`.
pub fn value<'t>(text: &'t str, key: &str) -> Option<&'t str> {
    text.lines().find_map(|line| {
        let (name, value) = line.split_once('=')?;
        (name.trim() == key).then_some(value.trim())
    })
}

impl Record {
    /// From a record's text.
    pub fn parse(stem: &str, text: &str) -> Result<Record, String> {
        let field = |key| value(text, key).ok_or_else(|| format!("it has no '{key}'"));
        let version = field("version")?;
        let minor = Minor::parse(version).ok_or_else(|| format!("'{version}' is no version"))?;
        let libpython = field("libpython")?;
        Ok(Record {
            stem: stem.to_owned(),
            version: version.to_owned(),
            minor,
            libpython: (!libpython.is_empty()).then(|| PathBuf::from(libpython)),
            prefix: PathBuf::from(field("prefix")?),
            executable: PathBuf::from(field("executable")?),
        })
    }

    /// Whether the Python is one without the global lock, which C extensions must be built for.
    pub fn is_free_threaded(&self) -> bool {
        let tag = self.stem.split('-').nth(1).unwrap_or("");
        tag.ends_with('t')
    }

    /// What it is built for.
    pub fn build(&self) -> Build {
        Build {
            minor: self.minor,
            free_threaded: self.is_free_threaded(),
        }
    }

    /// The shared object in `directory`.
    pub fn file(&self, directory: &Path) -> PathBuf {
        directory.join(format!("{}.so", self.stem))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEM: &str = "_rwsgi.cpython-311-x86_64-linux-gnu";

    #[test]
    fn versions() {
        for (text, minor) in [
            ("3.11", Some(Minor(3, 11))),
            ("3.11.2", Some(Minor(3, 11))),
            ("3.14.0rc2", Some(Minor(3, 14))),
            ("3.15rc1", Some(Minor(3, 15))),
            (" 3.9.18.final.0 ", Some(Minor(3, 9))),
            ("3", None),
            ("", None),
            ("x.y", None),
        ] {
            assert_eq!(Minor::parse(text), minor, "{text}");
        }
    }

    #[test]
    fn records() {
        let text = "version = 3.11.2\nlibpython = /usr/lib/libpython3.11.so.1.0\n\
                    prefix = /usr\nexecutable = /usr/bin/python3.11\n";
        let record = Record::parse(STEM, text).unwrap();
        assert_eq!(record.minor, Minor(3, 11));
        assert_eq!(
            record.libpython.as_deref(),
            Some(Path::new("/usr/lib/libpython3.11.so.1.0"))
        );
        assert_eq!(
            record.file(Path::new("/m")),
            Path::new("/m/_rwsgi.cpython-311-x86_64-linux-gnu.so")
        );
        assert!(!record.is_free_threaded());
        let free = Record::parse("_rwsgi.cpython-313t-x86_64-linux-gnu", text).unwrap();
        assert!(free.is_free_threaded());
    }

    #[test]
    fn a_static_python_has_no_library() {
        let text = "version = 3.12.1\nlibpython =\nprefix = /p\nexecutable = /p/bin/python3.12\n";
        assert_eq!(Record::parse(STEM, text).unwrap().libpython, None);
    }

    #[test]
    fn what_is_missing_is_named() {
        let error = Record::parse(STEM, "version = 3.11.2\n").unwrap_err();
        assert!(error.contains("libpython"), "{error}");
        assert!(Record::parse(STEM, "version = x\nlibpython =\n").is_err());
    }
}
