//! From WSGIPythonHome and what is installed to one gateway.

#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

use super::directory::Installed;
use super::home::{Home, Links};
use super::record::{Build, Record};
use super::resident::Resident;
use crate::messages::{BAD_PYTHON_HOME, Code, NO_GATEWAY, NO_GATEWAY_DIRECTORY};

/// Why no gateway was found.
#[derive(Debug)]
pub struct Failure {
    /// Which message.
    pub code: Code,
    /// What it says.
    pub message: String,
}

/// A gateway and how its Python is to be started.
#[derive(Debug)]
pub struct Found {
    /// The gateway's shared object.
    pub gateway: PathBuf,
    /// Its record.
    pub record: Record,
    /// The libpython.
    pub libpython: PathBuf,
    /// The interpreter's executable.
    pub program: Option<PathBuf>,
    /// The prefix, where WSGIPythonHome names one.
    pub home: Option<PathBuf>,
}

/// A Python that runs in processes of its own.
#[derive(Debug)]
pub struct Interpreter {
    /// The executable.
    pub program: PathBuf,
    /// The version, as the gateway's record or the environment says.
    pub version: String,
    /// Its build can run without the global lock.
    pub free_threaded: bool,
    /// The directory of the gateways.
    pub gateways: PathBuf,
}

/// A home that is configured, and by what.
#[derive(Clone, Copy, Debug)]
pub struct Configured<'a> {
    /// `WSGIPythonHome`, `python-home=`.
    pub what: &'static str,
    /// The directory.
    pub directory: &'a Path,
}

/// Chooses the interpreter of a process group, which need not have a shared library. Nothing is
/// executed. All paths of the result are seen from `root`, the group's root directory; empty is the
/// system's own.
pub fn interpreter(
    module: &Path,
    home: Option<Configured<'_>>,
    root: &Path,
) -> Result<Interpreter, Failure> {
    let installed = installed(module)?;
    let outside = |path: &Path| match path.strip_prefix("/") {
        Ok(rest) if root.is_absolute() => root.join(rest),
        _ => path.to_owned(),
    };
    let links = if root.is_absolute() {
        Links::Foreign
    } else {
        Links::Own
    };
    let (record, program) = match home {
        None => {
            let record = default(&installed)?;
            (record, record.executable.clone())
        }
        Some(home) => {
            let directory = &outside(home.directory);
            let what = home.what;
            let (record, program, _) = for_home(&installed, Configured { what, directory }, links)?;
            // `for_home` always names one.
            let program = program.unwrap_or_else(|| record.executable.clone());
            let inside = program
                .strip_prefix(directory)
                .map_or(program.clone(), |rest| home.directory.join(rest));
            (record, inside)
        }
    };
    let exists = |path: &Path| {
        let seen = outside(path);
        seen.exists() || links == Links::Foreign && seen.is_symlink()
    };
    let gateway = record.file(&installed.directory);
    let fail = |code, message| Err(Failure { code, message });
    if !gateway.exists() {
        return fail(
            NO_GATEWAY,
            format!("the gateway {} is missing", gateway.display()),
        );
    }
    if !exists(&program) {
        let (code, message) = match home {
            Some(home) => (
                BAD_PYTHON_HOME,
                format!(
                    "{} {} has no {}, which the processes of the group would run",
                    home.what,
                    home.directory.display(),
                    program.display()
                ),
            ),
            None if root.is_absolute() => (
                NO_GATEWAY,
                format!(
                    "{}, the Python of the default gateway, does not exist within the root \
                     directory {}",
                    program.display(),
                    root.display()
                ),
            ),
            None => (
                NO_GATEWAY,
                format!(
                    "{}, the Python that the default gateway was built for, does not exist; \
                     install it, or build a gateway for another one with 'make gateway PYTHON=...'",
                    program.display()
                ),
            ),
        };
        return fail(code, message);
    }
    if !outside(&installed.directory).is_dir() {
        return fail(
            NO_GATEWAY_DIRECTORY,
            format!(
                "the directory of gateways {} does not exist within the root directory {}; make it \
                 visible there with 'mount --bind', or copy it",
                installed.directory.display(),
                root.display()
            ),
        );
    }
    Ok(Interpreter {
        program,
        version: record.version.clone(),
        free_threaded: record.is_free_threaded(),
        gateways: installed.directory,
    })
}

fn installed(module: &Path) -> Result<Installed, Failure> {
    super::directory::read(module).map_err(|message| Failure {
        code: NO_GATEWAY_DIRECTORY,
        message,
    })
}

/// Chooses for the module file `module` and the configured home. Where none is configured, a libpython
/// that is in httpd already (`resident`) decides before the default.
pub fn choose(
    module: &Path,
    home: Option<&Path>,
    resident: Option<&Resident>,
) -> Result<Found, Failure> {
    let installed = installed(module)?;
    let (record, program, home) = match home {
        None => {
            let suits = |record: &&Record| resident.is_none_or(|other| other.suits(record.build()));
            let standard = default(&installed);
            let record = match standard.as_ref().ok().filter(|record| suits(record)) {
                Some(record) => record,
                None => match installed.records.iter().find(suits) {
                    Some(record) if resident.is_some() => record,
                    _ => standard?,
                },
            };
            (record, Some(record.executable.clone()), None)
        }
        Some(directory) => {
            let what = "WSGIPythonHome";
            for_home(&installed, Configured { what, directory }, Links::Own)?
        }
    };
    finish(
        &installed,
        record,
        program.filter(|file| file.exists()),
        home,
    )
}

fn default(installed: &Installed) -> Result<&Record, Failure> {
    let by_name = installed
        .default
        .as_ref()
        .and_then(|stem| installed.records.iter().find(|record| record.stem == *stem));
    match (by_name, installed.records.as_slice()) {
        (Some(record), _) => Ok(record),
        (None, [only]) => Ok(only),
        (None, []) => Err(Failure {
            code: NO_GATEWAY,
            message: format!(
                "no gateway is installed in {}; run 'make gateway PYTHON=/usr/bin/python3' and \
                 'make install'",
                installed.directory.display()
            ),
        }),
        (None, _) => Err(Failure {
            code: NO_GATEWAY,
            message: format!(
                "{} does not name one of the gateways installed ({}); write the stem of one of \
                 them into it, or set WSGIPythonHome",
                installed.directory.join("default").display(),
                versions(installed)
            ),
        }),
    }
}

fn versions(installed: &Installed) -> String {
    let all: Vec<String> = installed
        .records
        .iter()
        .map(|record| record.build().to_string())
        .collect();
    if all.is_empty() {
        "none".to_owned()
    } else {
        all.join(", ")
    }
}

type ForHome<'i> = (&'i Record, Option<PathBuf>, Option<PathBuf>);

fn for_home<'i>(
    installed: &'i Installed,
    configured: Configured<'_>,
    links: Links,
) -> Result<ForHome<'i>, Failure> {
    let directory = configured.directory;
    let examined = super::home::examine(directory, links).map_err(|refusal| Failure {
        code: BAD_PYTHON_HOME,
        message: format!("{} {} {refusal}", configured.what, directory.display()),
    })?;
    let (wanted, program) = match examined {
        Home::Venv { build, program } => (vec![build], Some(program)),
        Home::Prefix { builds } => (builds, None),
    };
    // Several versions may share a prefix: the default gateway's, else the newest with a gateway.
    let standard = default(installed).ok();
    let record = standard
        .filter(|record| wanted.contains(&record.build()))
        .or_else(|| {
            let of = |build: &Build| installed.records.iter().find(|r| r.build() == *build);
            wanted.iter().rev().find_map(of)
        })
        .ok_or_else(|| missing(installed, configured, &wanted))?;
    match program {
        Some(program) => Ok((record, Some(program), None)),
        None => {
            let program = directory.join(format!("bin/python{}", record.build()));
            Ok((record, Some(program), Some(directory.to_owned())))
        }
    }
}

fn missing(installed: &Installed, home: Configured<'_>, wanted: &[Build]) -> Failure {
    let found: Vec<String> = wanted.iter().map(Build::to_string).collect();
    let newest = wanted.last().map_or_else(String::new, Build::to_string);
    Failure {
        code: NO_GATEWAY,
        message: format!(
            "{} {} is Python {}, but no gateway for that version is installed in {} (installed: \
             {}); add one with 'make gateway PYTHON=python{newest}' and 'make install'",
            home.what,
            home.directory.display(),
            found.join(" and "),
            installed.directory.display(),
            versions(installed)
        ),
    }
}

fn finish(
    installed: &Installed,
    record: &Record,
    program: Option<PathBuf>,
    home: Option<PathBuf>,
) -> Result<Found, Failure> {
    let fail = |message| {
        Err(Failure {
            code: NO_GATEWAY,
            message,
        })
    };
    let gateway = record.file(&installed.directory);
    if !gateway.exists() {
        return fail(format!("the gateway {} is missing", gateway.display()));
    }
    let Some(libpython) = &record.libpython else {
        return fail(format!(
            "Python {} ({}) has no shared library, which httpd's own processes need; use a Python \
             built with --enable-shared (Debian: apt install libpython{})",
            record.version,
            record.executable.display(),
            record.minor
        ));
    };
    if !libpython.exists() {
        return fail(format!(
            "{}, the shared library of Python {} that the gateway was built for, does not exist; \
             install that Python, or build the gateway again with 'make gateway PYTHON=python{}'",
            libpython.display(),
            record.version,
            record.minor
        ));
    }
    Ok(Found {
        gateway,
        libpython: libpython.clone(),
        record: record.clone(),
        program,
        home,
    })
}

#[cfg(test)]
mod tests {
    use super::super::record::Minor;
    use super::*;
    use std::fs;

    /// A module file with gateways beside it, removed at the end.
    struct Tree(PathBuf);

    impl Drop for Tree {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    impl Tree {
        fn new(name: &str) -> Self {
            let root = std::env::temp_dir().join(format!("rwsgi-{name}-{}", std::process::id()));
            fs::create_dir_all(root.join("rwsgi")).unwrap();
            fs::write(root.join("mod_rwsgi.so"), "").unwrap();
            fs::write(root.join("libpython"), "").unwrap();
            Tree(root)
        }

        fn gateway(&self, tag: &str, version: &str, libpython: &str) -> &Self {
            let stem = self.0.join("rwsgi").join(format!("_rwsgi.cpython-{tag}-x"));
            let text = format!(
                "version = {version}\nlibpython = {libpython}\nprefix = /p\nexecutable = /p/x\n"
            );
            fs::write(format!("{}.conf", stem.display()), text).unwrap();
            fs::write(format!("{}.so", stem.display()), "").unwrap();
            self
        }

        fn shared(&self, tag: &str, version: &str) -> &Self {
            let libpython = self.0.join("libpython").display().to_string();
            self.gateway(tag, version, &libpython)
        }

        fn venv(&self, version: &str) -> PathBuf {
            let venv = self.0.join(format!("venv-{version}"));
            fs::create_dir_all(venv.join("bin")).unwrap();
            fs::write(venv.join("bin/python"), "").unwrap();
            fs::write(venv.join("pyvenv.cfg"), format!("version = {version}\n")).unwrap();
            venv
        }

        fn choose_beside(&self, version: &str) -> Result<Found, Failure> {
            let other = Resident {
                version: version.to_owned(),
                file: String::new(),
            };
            choose(&self.0.join("mod_rwsgi.so"), None, Some(&other))
        }

        fn choose(&self, home: Option<&Path>) -> Result<Found, Failure> {
            choose(&self.0.join("mod_rwsgi.so"), home, None)
        }
    }

    #[test]
    fn the_default_is_named_or_the_only_one() {
        let tree = Tree::new("default");
        tree.shared("311", "3.11.2");
        assert_eq!(tree.choose(None).unwrap().record.minor, Minor(3, 11));
        tree.shared("312", "3.12.1");
        assert_eq!(tree.choose(None).unwrap_err().code, NO_GATEWAY);
        fs::write(tree.0.join("rwsgi/default"), "_rwsgi.cpython-312-x\n").unwrap();
        assert_eq!(tree.choose(None).unwrap().record.minor, Minor(3, 12));
    }

    #[test]
    fn a_libpython_that_is_there_decides_before_the_default() {
        let tree = Tree::new("resident");
        tree.shared("311", "3.11.2").shared("312", "3.12.1");
        let stem = |version| tree.choose_beside(version).map(|found| found.record.minor);
        assert_eq!(stem("3.12.9 (main)").ok(), Some(Minor(3, 12)));
        // There is none for it, and no default either.
        assert!(stem("3.13.0 (main)").is_err());
        fs::write(tree.0.join("rwsgi/default"), "_rwsgi.cpython-311-x\n").unwrap();
        assert_eq!(stem("3.12.9 (main)").ok(), Some(Minor(3, 12)));
        assert_eq!(stem("3.11.9 (main)").ok(), Some(Minor(3, 11)));
        // The caller finds that they do not fit.
        assert_eq!(stem("3.13.0 (main)").ok(), Some(Minor(3, 11)));
    }

    #[test]
    fn a_virtual_environment_decides_by_its_version() {
        let tree = Tree::new("venv");
        tree.shared("311", "3.11.2")
            .shared("312", "3.12.1")
            .shared("313t", "3.13.0")
            .shared("313", "3.13.0");
        let venv = tree.venv("3.12.7");
        let found = tree.choose(Some(&venv)).unwrap();
        assert_eq!(found.record.minor, Minor(3, 12));
        assert_eq!(found.program, Some(venv.join("bin/python")));
        assert_eq!(found.home, None);
        let found = tree.choose(Some(&tree.venv("3.13.1"))).unwrap();
        assert_eq!(found.record.stem, "_rwsgi.cpython-313-x");
        // One without the global lock is another Python.
        let free = tree.venv("3.13.2");
        fs::create_dir_all(free.join("lib/python3.13t")).unwrap();
        let found = tree.choose(Some(&free)).unwrap();
        assert_eq!(found.record.stem, "_rwsgi.cpython-313t-x");
        fs::remove_file(tree.0.join("rwsgi/_rwsgi.cpython-313t-x.conf")).unwrap();
        let message = tree.choose(Some(&free)).unwrap_err().message;
        assert!(message.contains("PYTHON=python3.13t"), "{message}");
    }

    #[test]
    fn a_version_without_gateway_is_named_with_the_remedy() {
        let tree = Tree::new("missing");
        tree.shared("311", "3.11.2");
        let failure = tree.choose(Some(&tree.venv("3.9.1"))).unwrap_err();
        assert_eq!(failure.code, NO_GATEWAY);
        for part in [
            "Python 3.9",
            "installed: 3.11",
            "make gateway PYTHON=python3.9",
        ] {
            assert!(failure.message.contains(part), "{}", failure.message);
        }
    }

    #[test]
    fn a_prefix_keeps_its_home() {
        let tree = Tree::new("prefix");
        tree.shared("311", "3.11.2");
        let prefix = tree.0.join("prefix");
        for version in ["3.11", "3.13"] {
            let library = prefix.join(format!("lib/python{version}"));
            fs::create_dir_all(&library).unwrap();
            fs::write(library.join("os.py"), "").unwrap();
        }
        let found = tree.choose(Some(&prefix)).unwrap();
        assert_eq!(found.record.minor, Minor(3, 11));
        assert_eq!(found.home.as_deref(), Some(prefix.as_path()));
    }

    #[test]
    fn processes_of_their_own_need_no_shared_library() {
        let tree = Tree::new("interpreter");
        tree.gateway("312", "3.12.1", "");
        let module = tree.0.join("mod_rwsgi.so");
        let at = |directory: &Path| {
            interpreter(
                &module,
                Some(Configured {
                    what: "python-home",
                    directory,
                }),
                Path::new(""),
            )
        };
        let venv = tree.venv("3.12.7");
        let found = at(&venv).unwrap();
        assert_eq!(found.program, venv.join("bin/python"));
        assert_eq!(found.gateways, tree.0.join("rwsgi"));
        // The record names an executable that is not there.
        let failure = interpreter(&module, None, Path::new("")).unwrap_err();
        assert!(failure.message.contains("/p/x"), "{}", failure.message);
        let failure = at(&tree.venv("3.8.1")).unwrap_err();
        assert_eq!(failure.code, NO_GATEWAY);
        for part in ["python-home", "Python 3.8", "installed: 3.12", "python3.8"] {
            assert!(failure.message.contains(part), "{}", failure.message);
        }
        let prefix = tree.0.join("prefix");
        fs::create_dir_all(prefix.join("lib/python3.12")).unwrap();
        fs::write(prefix.join("lib/python3.12/os.py"), "").unwrap();
        let failure = at(&prefix).unwrap_err();
        assert_eq!(failure.code, BAD_PYTHON_HOME);
        fs::create_dir_all(prefix.join("bin")).unwrap();
        fs::write(prefix.join("bin/python3.12"), "").unwrap();
        assert_eq!(at(&prefix).unwrap().program, prefix.join("bin/python3.12"));
    }

    #[test]
    fn a_root_directory_is_taken_into_account() {
        let tree = Tree::new("chroot");
        tree.gateway("312", "3.12.1", "");
        let module = tree.0.join("mod_rwsgi.so");
        let root = tree.0.join("jail");
        let venv = root.join("srv/venv");
        fs::create_dir_all(venv.join("bin")).unwrap();
        std::os::unix::fs::symlink("/only/inside", venv.join("bin/python")).unwrap();
        fs::write(venv.join("pyvenv.cfg"), "version = 3.12.1\n").unwrap();
        let directory = Path::new("/srv/venv");
        let home = Some(Configured {
            what: "python-home",
            directory,
        });
        let failure = interpreter(&module, home, &root).unwrap_err();
        assert_eq!(failure.code, NO_GATEWAY_DIRECTORY);
        let gateways = tree.0.join("rwsgi");
        fs::create_dir_all(root.join(gateways.strip_prefix("/").unwrap())).unwrap();
        let found = interpreter(&module, home, &root).unwrap();
        assert_eq!(found.program, Path::new("/srv/venv/bin/python"));
        assert_eq!(found.gateways, gateways);
    }

    #[test]
    fn what_cannot_be_loaded_is_refused() {
        let tree = Tree::new("refused");
        assert_eq!(tree.choose(None).unwrap_err().code, NO_GATEWAY);
        tree.gateway("312", "3.12.1", "");
        let message = tree.choose(None).unwrap_err().message;
        assert!(message.contains("no shared library"), "{message}");
        tree.gateway("312", "3.12.1", "/nowhere/libpython3.12.so");
        let message = tree.choose(None).unwrap_err().message;
        assert!(message.contains("does not exist"), "{message}");
        fs::remove_dir_all(tree.0.join("rwsgi")).unwrap();
        assert_eq!(tree.choose(None).unwrap_err().code, NO_GATEWAY_DIRECTORY);
        let absent = tree.0.join("absent");
        fs::create_dir_all(tree.0.join("rwsgi")).unwrap();
        assert_eq!(
            tree.choose(Some(&absent)).unwrap_err().code,
            BAD_PYTHON_HOME
        );
    }
}
