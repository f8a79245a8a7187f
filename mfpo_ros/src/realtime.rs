//! Real-time priority for threads that are not ours. A control thread that goes before all others is of little use
//! while the middleware's threads, which bring it the joint states, wait behind whatever else the machine does.

use nix::libc;

/// How Fast DDS names its threads.
const MIDDLEWARE: &str = "dds.";

/// Gives every thread of the middleware in this process the real-time priority `priority` (SCHED_FIFO), and returns how
/// many have it. The middleware's threads are there once the first node is.
pub fn raise_middleware(priority: u64) -> usize {
    let Ok(threads) = std::fs::read_dir("/proc/self/task") else {
        return 0;
    };
    let is_of_middleware = |entry: &std::fs::DirEntry| {
        std::fs::read_to_string(entry.path().join("comm")).is_ok_and(|name| name.starts_with(MIDDLEWARE))
    };
    let ids = threads
        .flatten()
        .filter(is_of_middleware)
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    ids.filter(|id| raise(*id, priority)).count()
}

fn raise(thread: libc::pid_t, priority: u64) -> bool {
    let parameters = libc::sched_param {
        sched_priority: i32::try_from(priority).unwrap_or(1),
    };
    // SAFETY: the pointer is valid for the call; a thread that has ended, or a missing permission, is an error.
    unsafe { libc::sched_setscheduler(thread, libc::SCHED_FIFO, &parameters) == 0 }
}
