//! Starting a supervisor: fork, drop privileges, exec.
//!
//! Between fork and exec only system calls are made: other threads of the parent may have held any
//! lock, that of the memory allocator too. Whatever needs memory is prepared before.

use core::ffi::{CStr, c_char, c_int};
use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use super::identity::Identity;

/// The first descriptor that belongs to the supervisor: its configuration.
const CONFIG: c_int = 3;

/// The descriptors as the supervisor will see them.
#[derive(Debug, PartialEq, Eq)]
pub struct Numbers {
    /// The listeners, one per slot.
    pub listeners: Vec<u32>,
    /// The generation's pipe.
    pub lifeline: u32,
    /// The page with httpd's scoreboard, where there is one.
    pub scoreboard: u32,
}

/// The descriptors of a group with so many listeners.
pub fn numbers(listeners: usize) -> Numbers {
    let first = CONFIG as u32 + 1;
    let lifeline = first + u32::try_from(listeners).unwrap_or(u32::MAX - first - 1);
    Numbers {
        listeners: (first..lifeline).collect(),
        lifeline,
        scoreboard: lifeline + 1,
    }
}

/// How a supervisor is started; the same for every start of it.
#[derive(Debug)]
pub struct Recipe {
    /// The program, opened before: it need not be reachable after chroot, or for the user.
    pub program: OwnedFd,
    /// Its arguments, the name first.
    pub arguments: Vec<CString>,
    /// Its environment, `NAME=VALUE`.
    pub environment: Vec<CString>,
    /// Who it runs as; `None` where httpd itself is not root.
    pub identity: Option<Identity>,
    /// The root directory.
    pub chroot: Option<CString>,
    /// The working directory, seen from the root directory.
    pub home: Option<CString>,
    /// The mask of permissions.
    pub umask: Option<u32>,
    /// The nice value.
    pub priority: Option<c_int>,
    /// Standard output and error.
    pub log: OwnedFd,
    /// The sockets, one per slot.
    pub listeners: Vec<OwnedFd>,
    /// Read end of the generation's pipe.
    pub lifeline: OwnedFd,
    /// The page with httpd's scoreboard, if the group may see it.
    pub scoreboard: Option<OwnedFd>,
}

/// A step of the start that may fail, as the child reports it.
const STEPS: [&str; 14] = [
    "setpgid",
    "setpriority (cpu-priority)",
    "chroot (chroot)",
    "setgid (group)",
    "setgroups (supplementary-groups)",
    "setuid (user)",
    "giving up root for good",
    "chdir (home)",
    "prctl(PR_SET_PDEATHSIG)",
    "opening /dev/null",
    "moving descriptors",
    "closing descriptors",
    "execveat",
    "seeing that httpd is still there",
];

/// Why no supervisor runs.
#[derive(Debug)]
pub struct Failure {
    /// What was being done.
    pub step: &'static str,
    /// The system's reason.
    pub error: io::Error,
}

fn failure(step: &'static str) -> Failure {
    Failure {
        step,
        error: io::Error::last_os_error(),
    }
}

fn owned(fd: c_int, step: &'static str) -> Result<OwnedFd, Failure> {
    if fd < 0 {
        return Err(failure(step));
    }
    // SAFETY: a new descriptor that belongs to nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A pipe whose ends are not inherited by programs: read end, write end.
pub fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut ends = [-1; 2];
    // SAFETY: room for two descriptors, which belong to nobody else.
    unsafe {
        if libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok((OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])))
    }
}

/// A memory file with `text` that nobody can change.
fn sealed(text: &[u8]) -> Result<OwnedFd, Failure> {
    const STEP: &str = "memfd_create";
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    // SAFETY: a C string.
    let fd = owned(
        unsafe { libc::memfd_create(c"rwsgi-group".as_ptr(), flags) },
        STEP,
    )?;
    let mut rest = text;
    while !rest.is_empty() {
        // SAFETY: our own descriptor, readable bytes.
        let written = unsafe { libc::write(fd.as_raw_fd(), rest.as_ptr().cast(), rest.len()) };
        match usize::try_from(written) {
            Ok(count) if count > 0 => rest = &rest[count..],
            _ => return Err(failure(STEP)),
        }
    }
    let seals = libc::F_SEAL_SEAL | libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_WRITE;
    // SAFETY: our own descriptor.
    unsafe {
        if libc::fcntl(fd.as_raw_fd(), libc::F_ADD_SEALS, seals) != 0
            || libc::lseek(fd.as_raw_fd(), 0, libc::SEEK_SET) != 0
        {
            return Err(failure(STEP));
        }
    }
    Ok(fd)
}

fn pointers(strings: &[CString]) -> Vec<*const c_char> {
    strings
        .iter()
        .map(|string| string.as_ptr())
        .chain([core::ptr::null()])
        .collect()
}

impl Recipe {
    /// Starts the supervisor with `config`, and returns when it has been exec'd: its process number.
    ///
    /// # Errors
    /// The step that failed, also if that was in the child, which has ended then.
    pub fn start(&self, config: &[u8]) -> Result<libc::pid_t, Failure> {
        let config = sealed(config)?;
        let (report, reporter) = pipe().map_err(|error| Failure {
            step: "pipe2",
            error,
        })?;
        let arguments = pointers(&self.arguments);
        let environment = pointers(&self.environment);
        let sources: Vec<c_int> = [config.as_raw_fd()]
            .into_iter()
            .chain(self.listeners.iter().map(AsRawFd::as_raw_fd))
            .chain([self.lifeline.as_raw_fd()])
            .chain(self.scoreboard.as_ref().map(AsRawFd::as_raw_fd))
            .collect();
        let mut prepared = Prepared {
            arguments: &arguments,
            environment: &environment,
            moved: vec![-1; sources.len()],
            sources,
            // SAFETY: no arguments.
            parent: unsafe { libc::getpid() },
        };
        // SAFETY: the child only makes system calls, with memory that was prepared above, and ends
        // in exec or _exit.
        let pid = unsafe { libc::fork() };
        if pid < 0 {
            return Err(failure("fork"));
        }
        if pid == 0 {
            // SAFETY: plain system calls; the report is smaller than a pipe's atomic size.
            unsafe {
                // Out of the way of the descriptors that are about to be arranged.
                let free = CONFIG + prepared.sources.len() as c_int;
                let reporter = libc::fcntl(reporter.as_raw_fd(), libc::F_DUPFD_CLOEXEC, free);
                let step = self.become_supervisor(&mut prepared);
                let words = [step as c_int, *libc::__errno_location()];
                let words: *const [c_int; 2] = &words;
                let _ = libc::write(reporter, words.cast(), size_of::<[c_int; 2]>());
                libc::_exit(70);
            }
        }
        drop(reporter);
        match read_report(&report) {
            None => Ok(pid),
            Some((step, error)) => {
                // SAFETY: our own child, which ends by itself.
                unsafe { libc::waitpid(pid, core::ptr::null_mut(), 0) };
                Err(Failure { step, error })
            }
        }
    }

    /// In the child: everything up to exec. Returns the step that failed, with `errno` set.
    ///
    /// # Safety
    /// Called between fork and exec.
    unsafe fn become_supervisor(&self, prepared: &mut Prepared<'_>) -> usize {
        // SAFETY: system calls with valid arguments; the strings outlive them.
        unsafe {
            // Signals first: httpd's handlers must not run in here.
            reset_signals();
            if libc::setpgid(0, 0) != 0 {
                return 0;
            }
            if let Some(priority) = self.priority
                && libc::setpriority(libc::PRIO_PROCESS, 0, priority) != 0
            {
                return 1;
            }
            let null = null_device();
            if null < 0 {
                return 9;
            }
            if let Err(step) = drop_privileges(self.chroot.as_deref(), self.identity.as_ref()) {
                return step;
            }
            if let Some(home) = &self.home
                && libc::chdir(home.as_ptr()) != 0
            {
                return 7;
            }
            if let Some(umask) = self.umask {
                libc::umask(umask as libc::mode_t);
            }
            // After setuid, which clears it.
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM as core::ffi::c_ulong) != 0 {
                return 8;
            }
            // httpd may have died before: nobody would tell us any more.
            if libc::getppid() != prepared.parent {
                return 13;
            }
            let program = match self.arrange_descriptors(prepared, null) {
                Ok(program) => program,
                Err(step) => return step,
            };
            libc::syscall(
                libc::SYS_execveat,
                program,
                c"".as_ptr(),
                prepared.arguments.as_ptr(),
                prepared.environment.as_ptr(),
                libc::AT_EMPTY_PATH,
            );
            12
        }
    }

    /// Puts the descriptors where the supervisor expects them: 0 to 2, the configuration, the
    /// listeners, the lifeline, the scoreboard. Everything else is closed by exec, also the program, whose number
    /// is the result.
    ///
    /// # Safety
    /// Called between fork and exec.
    unsafe fn arrange_descriptors(
        &self,
        prepared: &mut Prepared<'_>,
        null: c_int,
    ) -> Result<c_int, usize> {
        const STEP: usize = 10;
        // SAFETY: system calls on descriptors that this process has.
        unsafe {
            let free = CONFIG + prepared.sources.len() as c_int;
            // All of them out of the way first: a source may lie where another one belongs, and
            // dup2 of a descriptor onto itself would leave it to be closed by exec.
            let up = |fd: c_int| match libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, free) {
                -1 => Err(STEP),
                fd => Ok(fd),
            };
            let put = |from: c_int, to: c_int| match libc::dup2(from, to) {
                -1 => Err(STEP),
                _ => Ok(()),
            };
            let null = up(null)?;
            let log = up(self.log.as_raw_fd())?;
            let program = up(self.program.as_raw_fd())?;
            for (to, from) in prepared.moved.iter_mut().zip(&prepared.sources) {
                *to = up(*from)?;
            }
            put(null, 0)?;
            put(log, 1)?;
            put(log, 2)?;
            for (index, from) in prepared.moved.iter().enumerate() {
                put(*from, CONFIG + index as c_int)?;
            }
            if !close_on_exec_from(free) {
                return Err(11);
            }
            Ok(program)
        }
    }
}

/// What the child needs and what must not be allocated there.
struct Prepared<'p> {
    arguments: &'p [*const c_char],
    environment: &'p [*const c_char],
    /// The configuration, the listeners, the lifeline, the scoreboard.
    sources: Vec<c_int>,
    /// Room for where they are meanwhile.
    moved: Vec<c_int>,
    parent: libc::pid_t,
}

/// All signals as a new process has them.
///
/// # Safety
/// Called between fork and exec.
pub(super) unsafe fn reset_signals() {
    // SAFETY: system calls; signals that cannot be handled are refused.
    unsafe {
        for signal in 1..=64 {
            libc::signal(signal, libc::SIG_DFL);
        }
        let mut none: libc::sigset_t = core::mem::zeroed();
        libc::sigemptyset(&mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &none, core::ptr::null_mut());
    }
}

/// Opens /dev/null; negative if that fails.
///
/// # Safety
/// Called between fork and exec, before chroot.
unsafe fn null_device() -> c_int {
    // SAFETY: a C string.
    unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_RDWR | libc::O_CLOEXEC) }
}

/// Takes on an identity for good. `Err` is the step that failed.
///
/// # Safety
/// Called in a child process between fork and exec or `_exit`.
pub unsafe fn drop_privileges(
    chroot: Option<&CStr>,
    identity: Option<&Identity>,
) -> Result<(), usize> {
    // SAFETY: system calls with valid arguments.
    unsafe {
        if let Some(root) = chroot
            && (libc::chroot(root.as_ptr()) != 0 || libc::chdir(c"/".as_ptr()) != 0)
        {
            return Err(2);
        }
        let Some(identity) = identity else {
            return Ok(());
        };
        let uid = identity.user.uid;
        if libc::setgid(identity.gid) != 0 {
            return Err(3);
        }
        if libc::setgroups(identity.groups.len(), identity.groups.as_ptr()) != 0 {
            return Err(4);
        }
        // Some systems refuse with EAGAIN at a limit of processes: every result counts.
        if libc::setuid(uid) != 0 {
            return Err(5);
        }
        let (mut real, mut effective, mut saved) = (0, 0, 0);
        libc::getresuid(&mut real, &mut effective, &mut saved);
        if libc::setuid(0) == 0 || [real, effective, saved] != [uid; 3] {
            return Err(6);
        }
        Ok(())
    }
}

/// Marks all descriptors from `first` on to be closed by exec.
///
/// # Safety
/// Called between fork and exec.
unsafe fn close_on_exec_from(first: c_int) -> bool {
    // SAFETY: system calls that touch no memory but `limit`.
    unsafe {
        let first = first as core::ffi::c_uint;
        // CLOSE_RANGE_CLOEXEC, Linux 5.11.
        if libc::syscall(libc::SYS_close_range, first, core::ffi::c_uint::MAX, 4) == 0 {
            return true;
        }
        let mut limit: libc::rlimit = core::mem::zeroed();
        if libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) != 0 {
            return false;
        }
        // The kernel has no more than this by default, whatever the limit is.
        for fd in first as c_int..limit.rlim_cur.min(1 << 20) as c_int {
            libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC);
        }
        true
    }
}

/// What the child says; `None` if it has been exec'd.
fn read_report(report: &OwnedFd) -> Option<(&'static str, io::Error)> {
    match read_words(report)? {
        Ok([step, error]) => {
            let step = usize::try_from(step)
                .ok()
                .and_then(|index| STEPS.get(index).copied())
                .unwrap_or("an unknown step");
            Some((step, io::Error::from_raw_os_error(error)))
        }
        Err(error) => Some(("reading the child's report", error)),
    }
}

/// Two numbers from a child; `None` if it has closed the pipe without a word.
pub(super) fn read_words(report: &OwnedFd) -> Option<io::Result<[c_int; 2]>> {
    let mut words: [c_int; 2] = [0; 2];
    let wanted = size_of_val(&words);
    loop {
        // SAFETY: our own descriptor; room for that many bytes.
        let count = unsafe { libc::read(report.as_raw_fd(), words.as_mut_ptr().cast(), wanted) };
        match usize::try_from(count) {
            Ok(0) => return None,
            Ok(count) if count == wanted => return Some(Ok(words)),
            Ok(_) => return Some(Err(io::Error::from_raw_os_error(libc::EIO))),
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Some(Err(error));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_follow_the_configuration() {
        let of = |listeners, lifeline, scoreboard| Numbers {
            listeners,
            lifeline,
            scoreboard,
        };
        assert_eq!(numbers(2), of(vec![4, 5], 6, 7));
        assert_eq!(numbers(0), of(vec![], 4, 5));
    }

    #[test]
    fn a_memory_file_cannot_be_changed() {
        let fd = sealed(b"name=x\n").unwrap();
        let mut file = std::fs::File::from(fd);
        let mut text = String::new();
        std::io::Read::read_to_string(&mut file, &mut text).unwrap();
        assert_eq!(text, "name=x\n");
        assert!(std::io::Write::write(&mut file, b"x").is_err());
        assert!(file.set_len(0).is_err());
    }

    #[test]
    fn a_supervisor_gets_what_it_needs_and_nothing_else() {
        let root = std::env::temp_dir().join(format!("rwsgi-spawn-{}", std::process::id()));
        let log = std::fs::File::create(&root).unwrap();
        let (lifeline, _write) = pipe().unwrap();
        let (listener, _other) = pipe().unwrap();
        // The shell looks at its own descriptors and shows its configuration.
        let script = "ls /proc/self/fd | tr '\\n' ' '; cat <&3; cat <&5; umask; pwd; echo $A";
        let recipe = Recipe {
            program: std::fs::File::open("/bin/sh").unwrap().into(),
            arguments: ["name", "-c", script]
                .map(|text| CString::new(text).unwrap())
                .into(),
            environment: ["A=b", "PATH=/usr/bin:/bin"]
                .map(|text| CString::new(text).unwrap())
                .into(),
            identity: None,
            chroot: None,
            home: Some(CString::new("/usr").unwrap()),
            umask: Some(0o027),
            priority: None,
            log: log.into(),
            listeners: vec![listener],
            lifeline,
            scoreboard: None,
        };
        drop(_write);
        let pid = recipe.start(b"text").unwrap();
        let mut status = 0;
        // SAFETY: our own child.
        unsafe { libc::waitpid(pid, &mut status, 0) };
        assert_eq!(status, 0);
        let said = std::fs::read_to_string(&root).unwrap();
        std::fs::remove_file(&root).unwrap();
        // 0 to 2, configuration, listener, lifeline, and the directory that ls itself reads.
        assert_eq!(said, "0 1 2 3 4 5 6 text0027\n/usr\nb\n");
    }

    #[test]
    fn failures_in_the_child_are_reported() {
        let (lifeline, _write) = pipe().unwrap();
        let recipe = Recipe {
            // No program: a file that nobody may execute.
            program: std::fs::File::open("/etc/passwd").unwrap().into(),
            arguments: vec![c"x".to_owned()],
            environment: Vec::new(),
            identity: None,
            chroot: None,
            home: None,
            umask: None,
            priority: None,
            log: std::fs::File::open("/dev/null").unwrap().into(),
            listeners: Vec::new(),
            lifeline,
            scoreboard: None,
        };
        let failure = recipe.start(b"").unwrap_err();
        assert_eq!(failure.step, "execveat");
        assert_eq!(failure.error.kind(), io::ErrorKind::PermissionDenied);
        let elsewhere = Recipe {
            home: Some(c"/does/not/exist".to_owned()),
            ..recipe
        };
        assert_eq!(elsewhere.start(b"").unwrap_err().step, "chdir (home)");
    }
}
