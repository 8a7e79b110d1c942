//! Whether a descriptor that a worker sent may become part of a response.

use std::fs::File;
use std::os::fd::AsRawFd;

/// The worker must be able to read it itself: httpd may open the file anew with its own rights,
/// and a descriptor that only names a file (`O_PATH`), or may only be written to, would turn those
/// rights into the worker's.
///
/// # Errors
/// What is wrong.
pub fn check(file: &File, offset: u64, length: u64) -> Result<(), String> {
    // SAFETY: no pointers.
    let flags = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETFL) };
    if flags < 0 || flags & libc::O_PATH != 0 || flags & libc::O_ACCMODE == libc::O_WRONLY {
        return Err("it is not open for reading".to_owned());
    }
    let about = file.metadata().map_err(|error| error.to_string())?;
    if !about.is_file() {
        return Err("it is no regular file".to_owned());
    }
    match offset.checked_add(length) {
        Some(end) if end <= about.len() => Ok(()),
        _ => Err(format!(
            "it has {} bytes, not {length} from {offset} on",
            about.len()
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::OpenOptionsExt;

    #[test]
    fn only_readable_regular_files_pass() {
        let path = std::env::temp_dir().join(format!("rwsgi-client-{}", std::process::id()));
        std::fs::write(&path, b"0123456789").unwrap();
        let open = |options: &mut std::fs::OpenOptions| options.open(&path).unwrap();
        let readable = open(std::fs::OpenOptions::new().read(true));
        let writable = open(std::fs::OpenOptions::new().write(true));
        let name_only = open(
            std::fs::OpenOptions::new()
                .read(true)
                .custom_flags(libc::O_PATH),
        );
        std::fs::remove_file(&path).unwrap();
        assert_eq!(check(&readable, 2, 8), Ok(()));
        assert!(check(&readable, 3, 8).is_err());
        assert!(check(&readable, u64::MAX, 2).is_err());
        assert!(check(&writable, 0, 1).is_err());
        assert!(check(&name_only, 0, 1).is_err());
        let device = File::open("/dev/zero").unwrap();
        assert!(check(&device, 0, 0).is_err());
    }
}
