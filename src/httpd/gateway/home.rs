//! What WSGIPythonHome names.

#![forbid(unsafe_code)]

use std::fs;
use std::path::{Path, PathBuf};

use super::record::{Minor, value};

/// A Python, as its files tell.
#[derive(Debug, PartialEq, Eq)]
pub enum Home {
    /// A virtual environment.
    Venv {
        /// The Python it was made with.
        minor: Minor,
        /// Its `bin/python`.
        program: PathBuf,
    },
    /// A prefix, with the versions whose standard library is there.
    Prefix {
        /// At least one, ascending.
        minors: Vec<Minor>,
    },
}

/// Where symbolic links are followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Links {
    /// Here.
    Own,
    /// Within another root directory: where they lead cannot be told from here.
    Foreign,
}

/// Looks at `directory`. `Err` is the end of the sentence "WSGIPythonHome <directory> ...".
pub fn examine(directory: &Path, links: Links) -> Result<Home, String> {
    if !directory.is_dir() {
        return Err(if directory.exists() {
            "is no directory".to_owned()
        } else {
            "does not exist".to_owned()
        });
    }
    match fs::read_to_string(directory.join("pyvenv.cfg")) {
        Ok(text) => examine_venv(directory, &text, links),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => examine_prefix(directory),
        Err(error) => Err(format!("has a pyvenv.cfg that cannot be read: {error}")),
    }
}

/// The version that a `pyvenv.cfg` records: `version` (venv) or `version_info` (virtualenv, uv).
pub fn venv_version(text: &str) -> Option<Minor> {
    ["version", "version_info"]
        .iter()
        .find_map(|key| Minor::parse(value(text, key)?))
}

fn examine_venv(directory: &Path, text: &str, links: Links) -> Result<Home, String> {
    let minor = venv_version(text)
        .ok_or("has a pyvenv.cfg that records no version ('version' or 'version_info')")?;
    let program = directory.join("bin/python");
    let dangles = links == Links::Foreign && program.is_symlink();
    if !dangles && !program.exists() {
        return Err(
            "is a virtual environment without bin/python: the Python it was made with is gone"
                .to_owned(),
        );
    }
    Ok(Home::Venv { minor, program })
}

fn examine_prefix(directory: &Path) -> Result<Home, String> {
    let mut minors = Vec::new();
    for library in ["lib", "lib64"] {
        let Ok(entries) = fs::read_dir(directory.join(library)) else {
            continue;
        };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let version = name
                .to_str()
                .and_then(|name| name.strip_prefix("python"))
                .filter(|version| version.starts_with("3."));
            if let Some(minor) = version.and_then(Minor::parse)
                && entry.path().join("os.py").exists()
            {
                minors.push(minor);
            }
        }
    }
    minors.sort_unstable();
    minors.dedup();
    if minors.is_empty() {
        return Err(
            "is neither a virtual environment (no pyvenv.cfg) nor the prefix of a Python \
             installation (no lib/python3.X/os.py)"
                .to_owned(),
        );
    }
    Ok(Home::Prefix { minors })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_virtual_environments() {
        let venv = "home = /usr/bin\ninclude-system-site-packages = false\nversion = 3.11.2\n";
        assert_eq!(venv_version(venv), Some(Minor(3, 11)));
        let virtualenv = "home = /usr/bin\nimplementation = CPython\n\
                          version_info = 3.12.1.final.0\nvirtualenv = 20.25.0\n";
        assert_eq!(venv_version(virtualenv), Some(Minor(3, 12)));
        assert_eq!(venv_version("home = /usr/bin\n"), None);
    }

    #[test]
    fn directories() {
        let root = std::env::temp_dir().join(format!("rwsgi-home-{}", std::process::id()));
        let make = |path: &str, text: &str| {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        make("venv/pyvenv.cfg", "version = 3.11.2\n");
        make("venv/bin/python", "");
        make("broken/pyvenv.cfg", "version = 3.11.2\n");
        make("prefix/lib/python3.12/os.py", "");
        make("prefix/lib/python3.9/os.py", "");
        make("prefix/lib/python3.13/README", "");
        make("prefix/lib/python3/os.py", "");
        make("empty/x", "");
        let program = root.join("venv/bin/python");
        let minor = Minor(3, 11);
        assert_eq!(
            examine(&root.join("venv"), Links::Own),
            Ok(Home::Venv { minor, program })
        );
        let minors = vec![Minor(3, 9), Minor(3, 12)];
        assert_eq!(
            examine(&root.join("prefix"), Links::Own),
            Ok(Home::Prefix { minors })
        );
        for (name, what) in [
            ("broken", "without bin/python"),
            ("empty", "neither"),
            ("absent", "does not exist"),
            ("empty/x", "no directory"),
        ] {
            let error = examine(&root.join(name), Links::Own).unwrap_err();
            assert!(error.contains(what), "{name}: {error}");
        }
        fs::remove_dir_all(&root).unwrap();
    }
}
