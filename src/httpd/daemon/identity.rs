//! Who a process group runs as.

use super::accounts::{self, User};
use super::options::Options;
use crate::httpd::apache::mpm;

/// Numbers that a process takes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The user; its `gid` is that of the password file.
    pub user: User,
    /// The primary group.
    pub gid: u32,
    /// All groups, the primary one first.
    pub groups: Vec<u32>,
}

/// Whether httpd's parent can give privileges away.
pub fn is_root() -> bool {
    // SAFETY: no arguments, cannot fail.
    unsafe { libc::geteuid() == 0 }
}

fn known(uid: u32, gid: u32) -> User {
    accounts::user_by_id(uid).unwrap_or(User {
        uid,
        gid,
        name: Vec::new(),
        home: Vec::new(),
    })
}

/// The identity of a group: what its options say, else that of httpd's children. Without root's
/// rights it is httpd's own, whatever is configured.
///
/// # Errors
/// A sentence for "WSGIDaemonProcess NAME: ...".
pub fn of(options: &Options) -> Result<Identity, String> {
    if !is_root() {
        // SAFETY: no arguments, cannot fail.
        let (uid, gid) = unsafe { (libc::geteuid(), libc::getegid()) };
        return Ok(Identity {
            user: known(uid, gid),
            gid,
            groups: vec![gid],
        });
    }
    let (child_uid, child_gid) = mpm::child_identity();
    let user = match &options.user {
        Some(user) => user.clone(),
        None => known(child_uid, child_gid),
    };
    if user.uid == 0 {
        return Err(
            "it would run as root, because httpd's User is root; give it a user= of its own"
                .to_owned(),
        );
    }
    // As in mod_wsgi, a user= without group= keeps httpd's group.
    let gid = options.group.unwrap_or(child_gid);
    let groups = match &options.supplementary_groups {
        Some(others) => [&[gid], &others[..]].concat(),
        None => accounts::groups_of(&user, gid),
    };
    Ok(Identity { user, gid, groups })
}
