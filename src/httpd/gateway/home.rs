//! What WSGIPythonHome names.

#![forbid(unsafe_code)]

use std::fs;
use std::path::{Path, PathBuf};

use super::record::{Build, Minor, value};

/// A Python, as its files tell.
#[derive(Debug, PartialEq, Eq)]
pub enum Home {
    /// A virtual environment.
    Venv {
        /// The Python it was made with.
        build: Build,
        /// Its `bin/python`.
        program: PathBuf,
    },
    /// A prefix, with the versions whose standard library is there.
    Prefix {
        /// At least one, ascending.
        builds: Vec<Build>,
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
    // Its own modules lie in lib/python3.14t where it was made with such a build.
    let free_threaded = ["lib", "lib64"]
        .iter()
        .any(|library| directory.join(format!("{library}/python{minor}t")).is_dir());
    let build = Build {
        minor,
        free_threaded,
    };
    Ok(Home::Venv { build, program })
}

fn examine_prefix(directory: &Path) -> Result<Home, String> {
    let mut builds = Vec::new();
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
            if let Some(version) = version
                && let Some(minor) = Minor::parse(version)
                && entry.path().join("os.py").exists()
            {
                builds.push(Build {
                    minor,
                    free_threaded: version.ends_with('t'),
                });
            }
        }
    }
    builds.sort_unstable();
    builds.dedup();
    if builds.is_empty() {
        return Err(
            "is neither a virtual environment (no pyvenv.cfg) nor the prefix of a Python \
             installation (no lib/python3.X/os.py)"
                .to_owned(),
        );
    }
    Ok(Home::Prefix { builds })
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
        make("prefix/lib/python3.14t/os.py", "");
        make("free/pyvenv.cfg", "version = 3.14.7\n");
        make("free/bin/python", "");
        make("free/lib/python3.14t/site-packages/x", "");
        make("empty/x", "");
        let program = root.join("venv/bin/python");
        let of = |minor, free_threaded| Build {
            minor: Minor(3, minor),
            free_threaded,
        };
        let build = of(11, false);
        assert_eq!(
            examine(&root.join("venv"), Links::Own),
            Ok(Home::Venv { build, program })
        );
        let builds = vec![of(9, false), of(12, false), of(14, true)];
        assert_eq!(
            examine(&root.join("prefix"), Links::Own),
            Ok(Home::Prefix { builds })
        );
        let found = examine(&root.join("free"), Links::Own).unwrap();
        assert!(matches!(found, Home::Venv { build, .. } if build == of(14, true)));
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
