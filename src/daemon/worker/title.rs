//! The title of the process, as `ps` shows it.

/// Overwrites the arguments that the process was started with, and its name in the kernel.
pub fn set(title: &[u8]) {
    let mut name = [0_u8; 16];
    let length = title.len().min(15);
    name[..length].copy_from_slice(&title[..length]);
    // SAFETY: a string of at most 16 bytes with its NUL.
    unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) };

    let Some((start, end)) = arguments() else {
        return;
    };
    // SAFETY: the kernel says where the arguments of this process lie: at the far end of the main
    // thread's stack, where nobody but `ps` looks for them (Python has copied them).
    let memory = unsafe { core::slice::from_raw_parts_mut(start as *mut u8, end - start) };
    // The last byte must stay NUL, or the kernel takes the environment for a part of it.
    let room = memory.len().saturating_sub(1);
    let length = title.len().min(room);
    memory[..length].copy_from_slice(&title[..length]);
    memory[length..].fill(0);
}

/// `arg_start` and `arg_end` of proc(5).
fn arguments() -> Option<(usize, usize)> {
    let text = std::fs::read("/proc/self/stat").ok()?;
    parse(&text)
}

fn parse(stat: &[u8]) -> Option<(usize, usize)> {
    // The second field is in parentheses and may contain anything; after it comes the third.
    let rest = &stat[stat.iter().rposition(|&c| c == b')')? + 1..];
    let text = core::str::from_utf8(rest).ok()?;
    let mut fields = text.split_ascii_whitespace().skip(48 - 3);
    let start = fields.next()?.parse().ok()?;
    let end = fields.next()?.parse().ok()?;
    (start > 0 && end > start).then_some((start, end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_says_where_arguments_are() {
        let (start, end) = arguments().unwrap();
        // SAFETY: as in `set`; only read.
        let memory = unsafe { core::slice::from_raw_parts(start as *const u8, end - start) };
        let expected = std::fs::read("/proc/self/cmdline").unwrap();
        assert_eq!(memory, expected);
    }

    #[test]
    fn names_with_parentheses_do_not_confuse() {
        let mut line = b"1 (a) b) S".to_vec();
        for field in 4..=52 {
            line.extend_from_slice(format!(" {field}").as_bytes());
        }
        assert_eq!(parse(&line), Some((48, 49)));
        assert_eq!(parse(b"1 (a) S 1"), None);
    }
}
