//! Which process group serves a request, and what is checked before.

use core::ffi::c_int;

use super::Group;
use crate::httpd::apache::{PoolStr, Request};
use crate::httpd::config::Effective;
use crate::httpd::hooks::handler::Refusal;
use crate::httpd::sys;
use crate::messages::{
    Code, PROCESS_GROUP_ELSEWHERE, PROCESS_GROUP_RESTRICTED, SCRIPT_OUTSIDE, SERVICE_SCRIPT,
    UNKNOWN_PROCESS_GROUP,
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

/// Whether the script of `request` may be run by `group`: `chroot`, `script-user`, `script-group`.
///
/// # Errors
/// Why the request is refused.
#[inline]
pub fn check_script(request: Request<'_>, group: &Group) -> Result<(), Refusal> {
    let root = group.root();
    if !root.is_empty() && within(root, request.filename()).len() == request.filename().len() {
        return Err(outside(request, group));
    }
    Ok(())
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
