//! Users and groups of the system.

use core::ffi::c_char;
use std::ffi::CString;

use crate::httpd::apache::text;
use crate::httpd::config::values::Refusal;

/// A user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The number.
    pub uid: u32,
    /// The primary group.
    pub gid: u32,
    /// The name; empty for a number that the system does not know.
    pub name: Vec<u8>,
    /// The home directory; empty likewise.
    pub home: Vec<u8>,
}

/// Calls a function of the `getpwnam_r` family with a buffer that is large enough; `None` if there
/// is no such entry.
fn entry<T, R>(
    mut ask: impl FnMut(*mut T, *mut c_char, usize, *mut *mut T) -> i32,
    read: impl FnOnce(&T) -> R,
) -> Option<R> {
    let mut size = 2048;
    loop {
        let mut buffer = vec![0; size];
        // SAFETY: C structures of numbers and pointers, for which zeros are valid.
        let mut place: T = unsafe { core::mem::zeroed() };
        let mut found = core::ptr::null_mut();
        match ask(&mut place, buffer.as_mut_ptr(), size, &mut found) {
            libc::ERANGE if size < 1 << 20 => size *= 4,
            // SAFETY: what was found is `place`, whose strings lie in `buffer`; both are live.
            0 if !found.is_null() => return Some(read(unsafe { &*found })),
            _ => return None,
        }
    }
}

fn user_of(entry: &libc::passwd) -> User {
    // SAFETY: strings of a live entry.
    let (name, home) = unsafe { (text::bytes(entry.pw_name), text::bytes(entry.pw_dir)) };
    User {
        uid: entry.pw_uid,
        gid: entry.pw_gid,
        name: name.to_vec(),
        home: home.to_vec(),
    }
}

/// The user with a number, if the system knows it.
pub fn user_by_id(uid: u32) -> Option<User> {
    entry(
        // SAFETY: the arguments are what `entry` promises.
        |place, buffer, size, found| unsafe { libc::getpwuid_r(uid, place, buffer, size, found) },
        user_of,
    )
}

/// A number behind `#`.
fn id(value: &[u8]) -> Option<u32> {
    let digits = value.strip_prefix(b"#")?;
    let plain = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    let number = core::str::from_utf8(digits).ok().filter(|_| plain)?.parse();
    // The largest one means "no change" to the system.
    number.ok().filter(|number| *number != u32::MAX)
}

/// A user by name or `#number`.
pub fn user(value: &[u8]) -> Result<User, Refusal> {
    if let Some(uid) = id(value) {
        return Ok(user_by_id(uid).unwrap_or(User {
            uid,
            gid: u32::MAX,
            name: Vec::new(),
            home: Vec::new(),
        }));
    }
    let found = CString::new(value).ok().and_then(|name| {
        entry(
            // SAFETY: as above, and a C string.
            |place, buffer, size, found| unsafe {
                libc::getpwnam_r(name.as_ptr(), place, buffer, size, found)
            },
            user_of,
        )
    });
    found.ok_or_else(|| {
        format!(
            "must be a user of this system or #NUMBER; there is no user '{}'",
            String::from_utf8_lossy(value)
        )
    })
}

/// A group by name or `#number`.
pub fn group(value: &[u8]) -> Result<u32, Refusal> {
    if let Some(gid) = id(value) {
        return Ok(gid);
    }
    let found = CString::new(value).ok().and_then(|name| {
        entry(
            // SAFETY: as in `user`.
            |place: *mut libc::group, buffer, size, found| unsafe {
                libc::getgrnam_r(name.as_ptr(), place, buffer, size, found)
            },
            |entry| entry.gr_gid,
        )
    });
    found.ok_or_else(|| {
        format!(
            "must be a group of this system or #NUMBER; there is no group '{}'",
            String::from_utf8_lossy(value)
        )
    })
}

/// All groups of a user, as `initgroups` would set them; `primary` comes first.
pub fn groups_of(user: &User, primary: u32) -> Vec<u32> {
    let Ok(name) = CString::new(user.name.clone()) else {
        return vec![primary];
    };
    if user.name.is_empty() {
        return vec![primary];
    }
    let mut count: i32 = 64;
    loop {
        let mut groups = vec![0; usize::try_from(count).unwrap_or(64)];
        let room = count;
        // SAFETY: a C string and room for `count` groups.
        let status =
            unsafe { libc::getgrouplist(name.as_ptr(), primary, groups.as_mut_ptr(), &mut count) };
        if status >= 0 {
            groups.truncate(usize::try_from(count).unwrap_or(0));
            return groups;
        }
        // It has said how many there are; ask for more room in any case.
        count = count.max(room.saturating_mul(2));
        if count > 1 << 16 {
            return vec![primary];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        let root = user(b"root").unwrap();
        assert_eq!((root.uid, root.gid), (0, 0));
        assert_eq!(user(b"#0").unwrap(), root);
        let unknown = user(b"#54321").unwrap();
        assert_eq!((unknown.uid, &unknown.name[..]), (54_321, &b""[..]));
        for text in ["no such user", "#", "#x", "#-1", "#4294967295", "0", ""] {
            assert!(user(text.as_bytes()).is_err(), "{text}");
        }
        assert_eq!(group(b"root"), Ok(0));
        assert_eq!(group(b"#7"), Ok(7));
        assert!(group(b"no such group").unwrap_err().contains("no such"));
        assert_eq!(user_by_id(54_321), None);
    }

    #[test]
    fn groups_begin_with_the_primary_one() {
        assert_eq!(groups_of(&user(b"root").unwrap(), 12_345)[0], 12_345);
        assert_eq!(groups_of(&user(b"#54321").unwrap(), 9), [9]);
    }
}
