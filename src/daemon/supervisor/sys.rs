//! The system calls that `std` does not offer, each as a function with a `Result`.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

fn check_size(result: isize) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// Takes over a descriptor that a system call has just made.
fn own(fd: libc::c_int) -> io::Result<OwnedFd> {
    let fd = check(fd)?;
    // SAFETY: a new descriptor is owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// An `epoll` set.
pub struct Epoll(OwnedFd);

impl Epoll {
    pub fn new() -> io::Result<Epoll> {
        // SAFETY: no pointers.
        own(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) }).map(Epoll)
    }

    /// Reports when `fd` can be read, under `token`. A closed descriptor leaves the set.
    pub fn add(&self, fd: &impl AsRawFd, token: u64) -> io::Result<()> {
        let mut event = libc::epoll_event {
            events: libc::EPOLLIN as u32,
            u64: token,
        };
        // SAFETY: the event is read during the call.
        check(unsafe {
            libc::epoll_ctl(
                self.0.as_raw_fd(),
                libc::EPOLL_CTL_ADD,
                fd.as_raw_fd(),
                &mut event,
            )
        })
        .map(drop)
    }

    /// Takes `fd` out of the set.
    pub fn remove(&self, fd: &impl AsRawFd) {
        // SAFETY: no event is read when a descriptor is deleted.
        unsafe {
            libc::epoll_ctl(
                self.0.as_raw_fd(),
                libc::EPOLL_CTL_DEL,
                fd.as_raw_fd(),
                core::ptr::null_mut(),
            )
        };
    }

    /// The tokens of what can be read, after at most `timeout_ms` (for ever if negative).
    pub fn wait(&self, timeout_ms: i32) -> io::Result<Vec<u64>> {
        const AT_ONCE: usize = 32;
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; AT_ONCE];
        // SAFETY: at most `AT_ONCE` events are written.
        let count = unsafe {
            libc::epoll_wait(
                self.0.as_raw_fd(),
                events.as_mut_ptr(),
                AT_ONCE as i32,
                timeout_ms,
            )
        };
        match check(count) {
            Ok(count) => Ok(events[..count as usize]
                .iter()
                .map(|event| event.u64)
                .collect()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }
}

/// The signals that the supervisor handles, blocked and read from a descriptor.
pub struct Signals(OwnedFd);

impl Signals {
    pub fn new(signals: &[i32]) -> io::Result<Signals> {
        // SAFETY: the set is initialised before it is used.
        unsafe {
            let mut set: libc::sigset_t = core::mem::zeroed();
            libc::sigemptyset(&mut set);
            for &signal in signals {
                libc::sigaddset(&mut set, signal);
            }
            check(libc::sigprocmask(
                libc::SIG_SETMASK,
                &set,
                core::ptr::null_mut(),
            ))?;
            own(libc::signalfd(
                -1,
                &set,
                libc::SFD_CLOEXEC | libc::SFD_NONBLOCK,
            ))
            .map(Signals)
        }
    }

    /// The next signal that has come.
    pub fn next(&self) -> Option<i32> {
        // SAFETY: plain data of the size that is passed.
        unsafe {
            let mut info: libc::signalfd_siginfo = core::mem::zeroed();
            let size = size_of::<libc::signalfd_siginfo>();
            let read = libc::read(self.0.as_raw_fd(), (&raw mut info).cast(), size);
            (read == size as isize).then_some(info.ssi_signo as i32)
        }
    }
}

impl AsRawFd for Signals {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// Ignores a signal.
pub fn ignore(signal: i32) {
    // SAFETY: no handler is installed.
    unsafe { libc::signal(signal, libc::SIG_IGN) };
}

/// Gives a signal its default effect back.
pub fn restore(signal: i32) {
    // SAFETY: no handler is installed.
    unsafe { libc::signal(signal, libc::SIG_DFL) };
}

/// As many open files as the hard limit allows: there are several for each worker.
pub fn raise_open_files() {
    let most = hard_limit(libc::RLIMIT_NOFILE);
    let limit = libc::rlimit {
        rlim_cur: most,
        rlim_max: most,
    };
    // SAFETY: the limit is read during the call. If it fails, the old one stays.
    unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) };
}

/// A pipe: read end (non-blocking), write end; both close-on-exec.
pub fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut ends = [-1; 2];
    // SAFETY: two descriptors are written; they are new.
    unsafe {
        check(libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC))?;
        let ends = (OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1]));
        // Only our end: the worker's stderr must block as people expect it.
        check(libc::fcntl(
            ends.0.as_raw_fd(),
            libc::F_SETFL,
            libc::O_NONBLOCK,
        ))?;
        Ok(ends)
    }
}

/// A control channel: both ends close-on-exec, ours non-blocking.
pub fn channel() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut ends = [-1; 2];
    let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC;
    // SAFETY: two descriptors are written; they are new.
    unsafe {
        check(libc::socketpair(libc::AF_UNIX, kind, 0, ends.as_mut_ptr()))?;
        let ends = (OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1]));
        check(libc::fcntl(
            ends.0.as_raw_fd(),
            libc::F_SETFL,
            libc::O_NONBLOCK,
        ))?;
        Ok(ends)
    }
}

/// A file in memory with this content.
pub fn memory_file(name: &CStr, content: &[u8]) -> io::Result<OwnedFd> {
    use std::io::Write as _;
    // SAFETY: a C string.
    let fd = own(unsafe { libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC) })?;
    let mut file = std::fs::File::from(fd);
    file.write_all(content)?;
    Ok(file.into())
}

/// What a read brought.
#[derive(Debug, PartialEq, Eq)]
pub enum Got {
    /// So many bytes.
    Bytes(usize),
    /// Nothing yet.
    Nothing,
    /// Nothing any more.
    End,
}

fn got(result: io::Result<usize>) -> Got {
    match result {
        Ok(0) => Got::End,
        Ok(count) => Got::Bytes(count),
        Err(error) => match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Got::Nothing,
            _ => Got::End,
        },
    }
}

/// Reads from a non-blocking descriptor.
pub fn read(fd: &impl AsRawFd, buffer: &mut [u8]) -> Got {
    // SAFETY: at most the buffer's length is written.
    got(check_size(unsafe {
        libc::read(fd.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len())
    }))
}

/// Writes once.
pub fn write(fd: &impl AsRawFd, data: &[u8]) -> io::Result<usize> {
    // SAFETY: at most the data's length is read.
    check_size(unsafe { libc::write(fd.as_raw_fd(), data.as_ptr().cast(), data.len()) })
}

/// Sends a packet, with descriptors. Never blocks.
pub fn send(channel: &impl AsRawFd, packet: &[u8], fds: &[RawFd]) -> io::Result<()> {
    const MOST: usize = 4;
    assert!(fds.len() <= MOST);
    let mut part = libc::iovec {
        iov_base: packet.as_ptr().cast_mut().cast(),
        iov_len: packet.len(),
    };
    // u64: the alignment of a control message.
    let mut space = [0u64; 8];
    let bytes = size_of_val(fds) as u32;
    // SAFETY: the header points to live data; the control message fits into `space` (16 bytes of
    // header and at most 16 of descriptors), and is filled before it is sent.
    let result = unsafe {
        let mut header: libc::msghdr = core::mem::zeroed();
        header.msg_iov = &mut part;
        header.msg_iovlen = 1;
        if !fds.is_empty() {
            header.msg_control = space.as_mut_ptr().cast();
            header.msg_controllen = libc::CMSG_SPACE(bytes) as _;
            let message = libc::CMSG_FIRSTHDR(&header);
            (*message).cmsg_level = libc::SOL_SOCKET;
            (*message).cmsg_type = libc::SCM_RIGHTS;
            (*message).cmsg_len = libc::CMSG_LEN(bytes) as _;
            core::ptr::copy_nonoverlapping(
                fds.as_ptr().cast::<u8>(),
                libc::CMSG_DATA(message),
                bytes as usize,
            );
        }
        libc::sendmsg(
            channel.as_raw_fd(),
            &header,
            libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT,
        )
    };
    check_size(result).map(drop)
}

/// A child that has ended.
#[derive(Clone, Copy, Debug)]
pub struct Reaped {
    /// Its process.
    pub pid: u32,
    /// As from `waitpid`.
    pub status: i32,
    /// Seconds of CPU time that it has used.
    pub cpu_s: u64,
}

/// A child that has ended, if there is one.
pub fn reap() -> Option<Reaped> {
    let mut status = 0;
    // SAFETY: status and usage are plain data that is written.
    unsafe {
        let mut usage: libc::rusage = core::mem::zeroed();
        let pid = libc::wait4(-1, &mut status, libc::WNOHANG, &mut usage);
        let pid = u32::try_from(pid).ok().filter(|pid| *pid > 0)?;
        let micros = usage.ru_utime.tv_usec + usage.ru_stime.tv_usec;
        let cpu_s = usage.ru_utime.tv_sec + usage.ru_stime.tv_sec + micros / 1_000_000;
        Some(Reaped {
            pid,
            status,
            cpu_s: cpu_s as u64,
        })
    }
}

/// Sends a signal to a process.
pub fn kill(pid: u32, signal: i32) {
    // 0 and 1 would reach others than one worker.
    if pid > 1 {
        // SAFETY: no pointers.
        unsafe { libc::kill(pid as libc::pid_t, signal) };
    }
}

/// Our own process.
pub fn getpid() -> u32 {
    std::process::id()
}

/// Orphans of our workers become our children: forked workers do, when their template forks twice.
pub fn become_subreaper() -> io::Result<()> {
    // SAFETY: no pointers.
    check(unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) }).map(drop)
}

/// Others of the same user may not read our memory.
pub fn forbid_dumping() {
    // SAFETY: no pointers.
    unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) };
}

/// Sets close-on-exec.
///
/// # Errors
/// Also if the descriptor is not open.
pub fn set_cloexec(fd: RawFd) -> io::Result<()> {
    // SAFETY: no pointers.
    check(unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) }).map(drop)
}

/// Takes over a descriptor that was inherited.
///
/// # Errors
/// If it is not open.
pub fn inherit(fd: RawFd) -> io::Result<OwnedFd> {
    set_cloexec(fd)?;
    // SAFETY: open, checked; the configuration says that it is ours, and is read once.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Whether this is a listening UNIX stream socket.
pub fn is_listener(fd: RawFd) -> bool {
    let option = |name| {
        let mut value: libc::c_int = 0;
        let mut size = size_of::<libc::c_int>() as libc::socklen_t;
        // SAFETY: value and size are plain data that is written.
        let result = unsafe {
            libc::getsockopt(
                fd,
                libc::SOL_SOCKET,
                name,
                (&raw mut value).cast(),
                &mut size,
            )
        };
        (result == 0).then_some(value)
    };
    option(libc::SO_DOMAIN) == Some(libc::AF_UNIX)
        && option(libc::SO_TYPE) == Some(libc::SOCK_STREAM)
        && option(libc::SO_ACCEPTCONN) == Some(1)
}

/// Local time, broken down, and its microseconds.
pub fn local_time() -> (libc::tm, u32) {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: both are plain data that is written.
    unsafe {
        libc::clock_gettime(libc::CLOCK_REALTIME, &mut time);
        let mut broken: libc::tm = core::mem::zeroed();
        libc::localtime_r(&time.tv_sec, &mut broken);
        (broken, (time.tv_nsec / 1000) as u32)
    }
}

/// Bytes of a page of memory.
pub fn page_size() -> u64 {
    // SAFETY: no pointers.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    u64::try_from(size).unwrap_or(4096)
}

/// Creates a listening UNIX socket, mode 0600.
pub fn listen(path: &[u8], backlog: u32) -> io::Result<OwnedFd> {
    // SAFETY: an all-zero address is a valid one.
    let mut address: libc::sockaddr_un = unsafe { core::mem::zeroed() };
    address.sun_family = libc::AF_UNIX as libc::sa_family_t;
    if path.len() >= address.sun_path.len() {
        return Err(io::Error::from_raw_os_error(libc::ENAMETOOLONG));
    }
    for (to, from) in address.sun_path.iter_mut().zip(path) {
        *to = *from as libc::c_char;
    }
    // SAFETY: the address is complete; no other thread sees the changed umask.
    unsafe {
        let socket = own(libc::socket(
            libc::AF_UNIX,
            libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK,
            0,
        ))?;
        let size = size_of::<libc::sockaddr_un>() as libc::socklen_t;
        let old = libc::umask(0o177);
        let bound = libc::bind(socket.as_raw_fd(), (&raw const address).cast(), size);
        let error = io::Error::last_os_error();
        libc::umask(old);
        if bound < 0 {
            return Err(error);
        }
        check(libc::listen(
            socket.as_raw_fd(),
            i32::try_from(backlog).unwrap_or(i32::MAX),
        ))?;
        Ok(socket)
    }
}

/// What the forked child does before it becomes a worker. All of it was prepared before the fork.
pub struct Launch<'a> {
    /// The program and its arguments, ending with null.
    pub argv: &'a [*const libc::c_char],
    /// The environment, ending with null.
    pub envp: &'a [*const libc::c_char],
    /// What becomes 0, 1, 2, …; a negative one stays closed.
    pub fds: &'a [RawFd],
    /// Resource limits: which, soft, hard.
    pub limits: &'a [(u32, u64, u64)],
    /// The written line if the program cannot be executed begins with this.
    pub complaint: &'a [u8],
    /// Stay dumpable.
    pub core_dumps: bool,
}

/// The exit code of a child that could not be prepared or executed.
pub const NOT_EXECUTED: i32 = 126;

/// Forks, and executes a program in the child.
///
/// # Errors
/// fork's. What fails in the child is written to its standard error, and it ends with
/// [`NOT_EXECUTED`].
pub fn launch(launch: &Launch<'_>) -> io::Result<u32> {
    let parent = getpid();
    // SAFETY: this process has one thread, so the child may do what it likes; it never returns.
    unsafe {
        let pid = check(libc::fork())?;
        if pid == 0 {
            let what = become_worker(launch, parent);
            let error = io::Error::last_os_error();
            let text = [
                launch.complaint,
                what.as_bytes(),
                b": ",
                error.to_string().as_bytes(),
                b"\n",
            ]
            .concat();
            libc::write(2, text.as_ptr().cast(), text.len());
            libc::_exit(NOT_EXECUTED);
        }
        Ok(pid as u32)
    }
}

/// Returns only if something fails: what.
///
/// # Safety
/// Only in a child that has just been forked from a process with one thread; `launch` holds valid
/// C strings and lists that end with null.
unsafe fn become_worker(launch: &Launch<'_>, parent: u32) -> &'static str {
    // Above all descriptors that the worker gets.
    const FREE: libc::c_int = 64;
    // SAFETY: as the caller promises.
    unsafe {
        // Moved up first, so that none is overwritten before it was copied, and that none is
        // "copied" to its own number, which would leave close-on-exec set.
        let mut moved = [-1; 16];
        for (to, &from) in moved.iter_mut().zip(launch.fds) {
            if from >= 0 {
                *to = libc::fcntl(from, libc::F_DUPFD_CLOEXEC, FREE);
                if *to < 0 {
                    return "a descriptor cannot be copied";
                }
            }
        }
        // Standard error first, so that what fails from here on can be said.
        for number in [2, 0, 1].into_iter().chain(3..launch.fds.len()) {
            if moved[number] < 0 {
                libc::close(number as libc::c_int);
            } else if libc::dup2(moved[number], number as libc::c_int) < 0 {
                return "a descriptor cannot be put in place";
            }
        }
        // All others are close-on-exec already, unless somebody has forgotten one.
        libc::syscall(
            libc::SYS_close_range,
            launch.fds.len() as libc::c_uint,
            libc::c_uint::MAX,
            4u32, // CLOSE_RANGE_CLOEXEC
        );

        for signal in 1..=64 {
            // Some cannot be set, and need not be.
            libc::signal(signal, libc::SIG_DFL);
        }
        let mut none: libc::sigset_t = core::mem::zeroed();
        libc::sigemptyset(&mut none);
        if libc::sigprocmask(libc::SIG_SETMASK, &none, core::ptr::null_mut()) != 0 {
            return "the signal mask cannot be cleared";
        }
        if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM, 0, 0, 0) != 0 {
            return "the parent's death cannot be watched";
        }
        if libc::getppid() as u32 != parent {
            libc::_exit(0);
        }
        for &(resource, soft, hard) in launch.limits {
            let limit = libc::rlimit {
                rlim_cur: soft,
                rlim_max: hard,
            };
            if libc::setrlimit(resource as _, &limit) != 0 {
                return "a resource limit cannot be set";
            }
        }
        if !launch.core_dumps {
            libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0);
        }
        libc::execve(launch.argv[0], launch.argv.as_ptr(), launch.envp.as_ptr());
        "the interpreter cannot be executed"
    }
}

/// The hard limit of a resource.
pub fn hard_limit(resource: u32) -> u64 {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: libc::RLIM_INFINITY,
    };
    // SAFETY: the limit is plain data that is written.
    unsafe { libc::getrlimit(resource as _, &mut limit) };
    limit.rlim_max
}

/// Names this thread, and thereby a process with one thread.
pub fn name_thread(name: &CStr) {
    // SAFETY: a C string, which is copied.
    unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr(), 0, 0, 0) };
}

/// Another descriptor of the same file, close-on-exec.
pub fn duplicate(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: no pointers.
    own(unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 3) })
}
