//! The directories and files that the options of a group name: they must be there, and the group's
//! user must be able to use them.

use std::ffi::{CString, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::identity::{self, Identity};
use super::options::Options;
use super::trial::{self, Use};
use crate::daemon::env_file;

fn path(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}

/// `file`, which processes see whose root directory is `root`, as httpd's parent sees it.
pub fn outside(root: &[u8], file: &Path) -> PathBuf {
    match file.strip_prefix("/") {
        Ok(rest) if !root.is_empty() => path(root).join(rest),
        _ => file.to_owned(),
    }
}

/// What can be said when the directive is read.
///
/// # Errors
/// A sentence for "WSGIDaemonProcess NAME: ...".
pub fn check(options: &Options) -> Result<(), String> {
    let root = options.chroot.as_deref().unwrap_or_default();
    if let Some(directory) = &options.chroot {
        if !identity::is_root() {
            return Err(format!(
                "chroot={} can only be used if httpd is started by root",
                path(directory).display()
            ));
        }
        check_directory("chroot", path(directory))?;
    }
    if let Some(home) = &options.worker.home {
        check_directory("home", &outside(root, path(home)))?;
    }
    if let Some(file) = &options.worker.env_file {
        check_environment(&outside(root, path(file)))?;
    }
    Ok(())
}

fn check_directory(option: &str, directory: &Path) -> Result<(), String> {
    match std::fs::metadata(directory) {
        Ok(found) if found.is_dir() => Ok(()),
        Ok(_) => Err(format!("{option} {} is no directory", directory.display())),
        Err(error) => Err(format!(
            "{option} {} cannot be used: {error}",
            directory.display()
        )),
    }
}

fn check_environment(file: &Path) -> Result<(), String> {
    let text = std::fs::read(file)
        .map_err(|error| format!("env-file {} cannot be read: {error}", file.display()))?;
    match env_file::lines(&text).find_map(Result::err) {
        None => Ok(()),
        Some(bad) => Err(format!(
            "env-file {}, line {}: {}; lines are NAME=VALUE, with or without quotes",
            file.display(),
            bad.number,
            bad.why
        )),
    }
}

/// Whether the group's user can use what it needs: tried out by a child process that takes on the
/// identity. `python` and `gateways` are seen from the group's root directory.
///
/// # Errors
/// A sentence for "WSGIDaemonProcess NAME: ...".
pub fn try_out(
    options: &Options,
    identity: &Identity,
    home: Option<&Path>,
    python: &Path,
    gateways: &Path,
) -> Result<(), String> {
    let mut uses = vec![
        ("the interpreter", python.to_owned(), Use::Execute),
        ("the directory of gateways", gateways.to_owned(), Use::List),
    ];
    if let Some(home) = home {
        uses.push(("the home directory", home.to_owned(), Use::Enter));
    }
    if let Some(file) = &options.worker.env_file {
        uses.push(("env-file", path(file).to_owned(), Use::Read));
    }
    let identity = identity::is_root().then_some(identity);
    let root = options.chroot.as_deref().and_then(c_string);
    let tried: Vec<(CString, Use)> = uses
        .iter()
        .filter_map(|(_, file, way)| Some((c_string(file.as_os_str().as_bytes())?, *way)))
        .collect();
    trial::try_out(identity, root.as_deref(), &tried).map_err(|refusal| {
        let within = options.chroot.as_deref().map_or_else(String::new, |root| {
            format!(" within the root directory {}", path(root).display())
        });
        match uses.get(refusal.index) {
            Some((what, file, way)) => format!(
                "{what} {} cannot be {} by {}{within}: {}",
                file.display(),
                way.participle(),
                user(identity),
                refusal.error
            ),
            None => format!("its identity cannot be taken on: {}", refusal.error),
        }
    })
}

/// Whether the group's user can enter a directory.
pub fn can_enter(options: &Options, identity: &Identity, directory: &Path) -> bool {
    let identity = identity::is_root().then_some(identity);
    let root = options.chroot.as_deref().and_then(c_string);
    c_string(directory.as_os_str().as_bytes()).is_some_and(|directory| {
        trial::try_out(identity, root.as_deref(), &[(directory, Use::Enter)]).is_ok()
    })
}

fn c_string(bytes: &[u8]) -> Option<CString> {
    CString::new(bytes).ok()
}

fn user(identity: Option<&Identity>) -> String {
    match identity {
        Some(identity) if identity.user.name.is_empty() => {
            format!("the user with number {}", identity.user.uid)
        }
        Some(identity) => format!(
            "the user '{}'",
            String::from_utf8_lossy(&identity.user.name)
        ),
        None => "the user that httpd runs as".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_within_a_root_directory() {
        for (root, file, seen) in [
            ("", "/srv", "/srv"),
            ("/jail", "/srv/x", "/jail/srv/x"),
            ("/jail", "/", "/jail/"),
        ] {
            assert_eq!(outside(root.as_bytes(), Path::new(file)), Path::new(seen));
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        let root = std::env::temp_dir().join(format!("rwsgi-places-{}", std::process::id()));
        std::fs::create_dir_all(&root).unwrap();
        std::fs::write(root.join("good"), "A=1\n").unwrap();
        std::fs::write(root.join("bad"), "A=1\nexport\n").unwrap();
        let with = |name: &str, file: &str| {
            let mut options = Options::new(b"x");
            let file = root.join(file);
            options.set(name, file.as_os_str().as_bytes()).unwrap();
            check(&options)
        };
        assert_eq!(with("home", ""), Ok(()));
        assert_eq!(with("env-file", "good"), Ok(()));
        for (name, file, word) in [
            ("home", "absent", "No such file"),
            ("home", "good", "no directory"),
            ("env-file", "absent", "No such file"),
            ("env-file", "bad", "line 2"),
        ] {
            let message = with(name, file).unwrap_err();
            assert!(
                message.contains(word) && message.contains(file),
                "{message}"
            );
        }
        std::fs::remove_dir_all(&root).unwrap();
    }
}
