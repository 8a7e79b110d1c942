//! Which process group serves a request, and what is checked before.

use core::ffi::c_int;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::Group;
use crate::httpd::apache::{PoolStr, Request};
use crate::httpd::config::Effective;
use crate::httpd::hooks::handler::Refusal;
use crate::httpd::sys;
use crate::messages::{
    Code, PROCESS_GROUP_ELSEWHERE, PROCESS_GROUP_RESTRICTED, SCRIPT_OUTSIDE, SCRIPT_OWNER,
    SERVICE_SCRIPT, UNKNOWN_PROCESS_GROUP,
};

/// `WSGIRestrictProcess`: whether the process group `name` (empty: embedded mode) is one of
/// `allowed`. As in mod_wsgi without regard to case.
///
/// # Errors
/// Why the request is refused.
pub fn check_allowed(allowed: &[PoolStr], name: &[u8]) -> Result<(), Refusal> {
    if allowed
        .iter()
        .any(|other| other.bytes().eq_ignore_ascii_case(name))
    {
        return Ok(());
    }
    let shown = if name.is_empty() {
        "%{GLOBAL} (httpd's own processes)".to_owned()
    } else {
        format!("'{}'", String::from_utf8_lossy(name))
    };
    Err(refuse(
        PROCESS_GROUP_RESTRICTED,
        format!("WSGIRestrictProcess does not allow the process group {shown} here"),
    ))
}

/// `path` as processes see it whose root directory is `root` (empty: the system's own).
#[inline]
pub fn within<'p>(root: &[u8], path: &'p [u8]) -> &'p [u8] {
    match path.strip_prefix(root) {
        Some([]) if !root.is_empty() => b"/",
        Some(rest) if root.is_empty() || rest.first() == Some(&b'/') => rest,
        _ => path,
    }
}

/// Whether `script`, which answers `request`, may be run by `group`: `chroot`, `script-user`,
/// `script-group`.
///
/// # Errors
/// Why the request is refused.
#[inline]
pub fn check_script(request: Request<'_>, script: &[u8], group: &Group) -> Result<(), Refusal> {
    let root = group.root();
    if !root.is_empty() && within(root, request.filename()).len() == request.filename().len() {
        return Err(outside(request, group));
    }
    let options = &group.options;
    if options.script_user.is_some() || options.script_group.is_some() {
        return check_owner(script, group);
    }
    Ok(())
}

/// `script-user` and `script-group`: the script and its directory must belong to them, and nobody
/// else may be able to change either.
#[cold]
fn check_owner(script: &[u8], group: &Group) -> Result<(), Refusal> {
    let script = Path::new(OsStr::from_bytes(script));
    let places = [Some(script), script.parent()];
    for place in places.into_iter().flatten() {
        let owned = std::fs::metadata(place)
            .map_err(|error| error.to_string())
            .and_then(|found| {
                let rights = Rights {
                    uid: found.uid(),
                    gid: found.gid(),
                    mode: found.mode(),
                };
                rights.check(group.options.script_user, group.options.script_group)
            });
        owned.map_err(|why| {
            Refusal::new(
                sys::HTTP_FORBIDDEN,
                SCRIPT_OWNER,
                format!(
                    "{} {why}, which the process group '{}' does not accept (script-user, \
                     script-group)",
                    place.display(),
                    group.label()
                ),
            )
        })?;
    }
    Ok(())
}

/// Whose a file is and who may change it.
struct Rights {
    uid: u32,
    gid: u32,
    mode: u32,
}

impl Rights {
    /// `Err` is the end of the sentence "<file> ...".
    fn check(&self, user: Option<u32>, group: Option<u32>) -> Result<(), String> {
        if user.is_some_and(|uid| uid != self.uid) {
            return Err(format!("belongs to the user with number {}", self.uid));
        }
        if group.is_some_and(|gid| gid != self.gid) {
            return Err(format!("belongs to the group with number {}", self.gid));
        }
        if self.mode & 0o002 != 0 {
            return Err("can be written by everybody".to_owned());
        }
        if user.is_some() && self.mode & 0o020 != 0 {
            return Err("can be written by its group".to_owned());
        }
        Ok(())
    }
}

#[cold]
fn outside(request: Request<'_>, group: &Group) -> Refusal {
    Refusal::new(
        sys::HTTP_FORBIDDEN,
        SCRIPT_OUTSIDE,
        format!(
            "the script {} lies outside of {}, the root directory of the process group '{}'",
            String::from_utf8_lossy(request.filename()),
            String::from_utf8_lossy(group.root()),
            group.label()
        ),
    )
}

/// The process group named `name`, which is not empty.
///
/// # Errors
/// Why the request is refused.
pub fn find<'r>(
    request: Request<'r>,
    config: &Effective<'r>,
    name: &[u8],
) -> Result<&'r Group, Refusal> {
    let groups = config.globals().groups();
    let Some(group) = groups.and_then(|groups| groups.find(name)) else {
        return Err(unknown(config, name));
    };
    if !group.serves(request.server()) {
        return Err(elsewhere(request, group));
    }
    if group.sockets.is_empty() {
        return Err(refuse(
            SERVICE_SCRIPT,
            format!(
                "the process group '{}' has threads=0: it runs a service script and serves no \
                 requests",
                group.label()
            ),
        ));
    }
    Ok(group)
}

fn refuse(code: Code, message: String) -> Refusal {
    const STATUS: c_int = sys::HTTP_INTERNAL_SERVER_ERROR;
    Refusal::new(STATUS, code, message)
}

#[cold]
fn unknown(config: &Effective<'_>, name: &[u8]) -> Refusal {
    let known = config
        .globals()
        .groups()
        .map_or_else(|| "none".to_owned(), super::Groups::names);
    refuse(
        UNKNOWN_PROCESS_GROUP,
        format!(
            "no WSGIDaemonProcess declares the process group '{}' (there are: {known}); \
             %{{GLOBAL}} stands for httpd's own processes",
            String::from_utf8_lossy(name)
        ),
    )
}

#[cold]
fn elsewhere(request: Request<'_>, group: &Group) -> Refusal {
    let name = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    refuse(
        PROCESS_GROUP_ELSEWHERE,
        format!(
            "the process group '{}' cannot be accessed from the virtual host '{}': it is declared \
             in the virtual host '{}'; declare it in the main server to use it everywhere",
            group.label(),
            name(request.server().hostname()),
            name(group.server().hostname())
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lose_the_root_directory() {
        for (root, path, seen) in [
            ("", "/srv/x", "/srv/x"),
            ("/jail", "/jail/srv/x", "/srv/x"),
            ("/jail", "/jail", "/"),
            ("/jail", "/jailed/x", "/jailed/x"),
            ("/jail", "/srv/x", "/srv/x"),
            ("", "", ""),
        ] {
            let seen_path = within(root.as_bytes(), path.as_bytes());
            assert_eq!(seen_path, seen.as_bytes(), "{root} {path}");
        }
    }

    #[test]
    fn owners_and_permissions() {
        let rights = |mode| Rights {
            uid: 5,
            gid: 6,
            mode,
        };
        for (mode, user, group, refused) in [
            (0o100_644, Some(5), None, ""),
            (0o100_644, None, Some(6), ""),
            (0o100_664, None, Some(6), ""),
            (0o100_664, Some(5), None, "by its group"),
            (0o100_646, Some(5), None, "by everybody"),
            (0o100_646, None, Some(6), "by everybody"),
            (0o100_644, Some(7), None, "user with number 5"),
            (0o100_644, None, Some(7), "group with number 6"),
        ] {
            let found = rights(mode).check(user, group).err().unwrap_or_default();
            assert!(
                found.contains(refused) && found.is_empty() == refused.is_empty(),
                "{mode:o}: {found}"
            );
        }
    }
}
