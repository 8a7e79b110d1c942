//! What the kernel says about memory.

use super::sys;

/// Counts the processes that the kernel has killed for want of memory, in our control group or,
/// where there is none, in the whole system.
pub struct OutOfMemory {
    path: String,
    seen: u64,
}

impl OutOfMemory {
    pub fn new() -> OutOfMemory {
        let path = sources()
            .into_iter()
            .find(|path| count(path).is_some())
            .unwrap_or_default();
        let seen = count(&path).unwrap_or(0);
        OutOfMemory { path, seen }
    }

    /// Whether it has happened since the last call.
    pub fn happened(&mut self) -> bool {
        let now = count(&self.path).unwrap_or(self.seen);
        let more = now > self.seen;
        self.seen = now;
        more
    }
}

/// Where the count may be: version 2 of control groups, version 1, the system.
fn sources() -> Vec<String> {
    let mut paths = Vec::new();
    for line in std::fs::read_to_string("/proc/self/cgroup")
        .unwrap_or_default()
        .lines()
    {
        let mut parts = line.splitn(3, ':').skip(1);
        if let (Some(controllers), Some(group)) = (parts.next(), parts.next()) {
            let group = group.trim_end_matches('/');
            if controllers.is_empty() {
                paths.push(format!("/sys/fs/cgroup{group}/memory.events"));
            } else if controllers.split(',').any(|name| name == "memory") {
                paths.push(format!("/sys/fs/cgroup/memory{group}/memory.oom_control"));
            }
        }
    }
    paths.push("/proc/vmstat".to_owned());
    paths
}

fn count(path: &str) -> Option<u64> {
    parse(&std::fs::read_to_string(path).ok()?)
}

fn parse(text: &str) -> Option<u64> {
    text.lines()
        .find_map(|line| line.strip_prefix("oom_kill "))
        .and_then(|number| number.trim().parse().ok())
}

/// Resident bytes of a process; `None` if they cannot be known.
pub fn resident(pid: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let pages: u64 = text.split(' ').nth(1)?.parse().ok()?;
    Some(pages * sys::page_size())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_found() {
        assert_eq!(
            parse("low 0\noom 3\noom_kill 2\noom_group_kill 0\n"),
            Some(2)
        );
        assert_eq!(
            parse("oom_kill_disable 0\nunder_oom 0\noom_kill 1\n"),
            Some(1)
        );
        assert_eq!(parse("nr_free_pages 1\n"), None);
    }

    #[test]
    fn our_own_size_is_known() {
        assert!(resident(sys::getpid()).unwrap() > 100_000);
        assert_eq!(resident(0), None);
    }
}
