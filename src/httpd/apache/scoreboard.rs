//! httpd's scoreboard: what its processes and threads are doing.

use core::ffi::{c_char, c_int};

use crate::httpd::sys;
use crate::metrics::scoreboard::{Process, Scoreboard, Worker};

/// How many processes and threads in each it has room for: fixed while httpd runs.
pub fn limits() -> (u32, u32) {
    (
        super::mpm::query(sys::AP_MPMQ_HARD_LIMIT_DAEMONS),
        super::mpm::query(sys::AP_MPMQ_HARD_LIMIT_THREADS),
    )
}

/// What it says now; `None` where there is none. Others change it meanwhile: what belongs together
/// may not be of one moment.
pub fn read() -> Option<Scoreboard> {
    // SAFETY: shared memory that is mapped as long as httpd runs, null if it is not; everything is
    // copied out at once, and texts are bounded by their arrays.
    unsafe {
        if sys::ap_exists_scoreboard_image() == 0 {
            return None;
        }
        let global = sys::ap_get_scoreboard_global().as_ref()?;
        let (processes, threads) = (global.server_limit, global.thread_limit);
        let mut scoreboard = Scoreboard {
            server_limit: number(processes),
            thread_limit: number(threads),
            running_generation: number(global.running_generation),
            restart_us: global.restart_time,
            processes: Vec::new(),
        };
        for index in 0..processes {
            scoreboard.processes.push(process(index, threads));
        }
        Some(scoreboard)
    }
}

fn number(value: c_int) -> u32 {
    u32::try_from(value).unwrap_or(0)
}

/// # Safety
/// There is a scoreboard with room for these.
unsafe fn process(index: c_int, threads: c_int) -> Process {
    // SAFETY: by contract.
    unsafe {
        let Some(process) = sys::ap_get_scoreboard_process(index).as_ref() else {
            return Process::default();
        };
        Process {
            pid: number(process.pid),
            generation: number(process.generation),
            quiescing: process.quiescing != 0,
            workers: (0..threads).map(|thread| worker(index, thread)).collect(),
        }
    }
}

/// # Safety
/// There is a scoreboard with room for these.
unsafe fn worker(index: c_int, thread: c_int) -> Worker {
    // SAFETY: by contract.
    unsafe {
        let Some(worker) = sys::ap_get_scoreboard_worker_from_indexes(index, thread).as_ref()
        else {
            return Worker::default();
        };
        Worker {
            number: number(worker.thread_num),
            generation: number(worker.generation),
            status: letter(c_int::from(worker.status)),
            access_count: worker.access_count,
            bytes_served: u64::try_from(worker.bytes_served).unwrap_or(0),
            start_us: worker.start_time,
            stop_us: worker.stop_time,
            last_used_us: worker.last_used,
            client: text(&worker.client),
            request: text(&worker.request),
            vhost: text(&worker.vhost),
        }
    }
}

fn text(array: &[c_char]) -> Vec<u8> {
    let end = array.iter().position(|&c| c == 0).unwrap_or(array.len());
    array[..end].iter().map(|&c| c as u8).collect()
}

/// As mod_status shows a thread.
fn letter(status: c_int) -> u8 {
    match status {
        sys::SERVER_DEAD => b'.',
        sys::SERVER_READY => b'_',
        sys::SERVER_STARTING => b'S',
        sys::SERVER_BUSY_READ => b'R',
        sys::SERVER_BUSY_WRITE => b'W',
        sys::SERVER_BUSY_KEEPALIVE => b'K',
        sys::SERVER_BUSY_LOG => b'L',
        sys::SERVER_BUSY_DNS => b'D',
        sys::SERVER_CLOSING => b'C',
        sys::SERVER_GRACEFUL => b'G',
        sys::SERVER_IDLE_KILL => b'I',
        _ => b'?',
    }
}
