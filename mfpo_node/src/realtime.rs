//! What the control thread asks of the kernel: priority, processors of its own, memory that stays, sleeps that end on
//! time. What is not permitted is told with the line that permits it, and the thread goes on without.

use std::hint::black_box;

use mfpo_ros::realtime::raise_middleware;
use nix::errno::Errno;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::mman::{MlockAllFlags, mlockall, munlockall};
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};
use nix::unistd::Pid;

/// Stack that is touched before the first tick, bytes: more than a tick needs, well below the thread's 2 MiB.
const STACK: usize = 512 * 1024;

/// What the parameters ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Realtime {
    /// SCHED_FIFO priority; 0 is none.
    pub priority: u64,
    /// Is the memory of the whole process kept from being paged out, and every page there before it is used?
    pub lock_memory: bool,
    /// Processors that the thread may run on; empty is all.
    pub cpu_affinity: Vec<usize>,
}

impl Realtime {
    /// The most processors that can be told apart.
    pub const MOST_CPUS: usize = CpuSet::count();

    /// Sets up the calling thread; what fails changes nothing, and is logged.
    pub fn set_up(&self) {
        precise_timers();
        prefault_stack();
        if !self.cpu_affinity.is_empty() {
            match stay_on(&self.cpu_affinity) {
                Ok(()) => tracing::info!("the control thread stays on processors {:?}", self.cpu_affinity),
                Err(error) => tracing::warn!(
                    "cpu_affinity {:?} cannot be had ({}); going on on every processor. Expected some of those that \
                     this process may use: {}",
                    self.cpu_affinity,
                    error.desc(),
                    permitted()
                ),
            }
        }
        if self.priority > 0 {
            match go_first(self.priority) {
                Ok(()) => {
                    // Joint states come on the middleware's threads: they go just behind this one.
                    let raised = raise_middleware(self.priority.saturating_sub(1).max(1));
                    tracing::info!(
                        "the control thread runs with real-time priority {}, and {raised} threads of the middleware \
                         just behind it",
                        self.priority
                    );
                }
                Err(error) => tracing::warn!(
                    "real-time priority {} is not permitted ({}); going on without. To permit it, {}",
                    self.priority,
                    error.desc(),
                    permit("rtprio 98")
                ),
            }
        }
        if self.lock_memory {
            match lock_memory() {
                Ok(()) => tracing::info!("the memory of this process is locked"),
                Err(NotLocked { limit, error }) => tracing::warn!(
                    "the memory is not locked ({}; expected no limit of locked memory, got {} KiB); going on without. \
                     To permit it, {} (in a container: --ulimit memlock=-1)",
                    error.desc(),
                    limit / 1024,
                    permit("memlock unlimited")
                ),
            }
        }
    }
}

/// What permits it.
fn permit(item: &str) -> String {
    format!(
        "write the line '@realtime - {item}' to /etc/security/limits.d/realtime.conf, add the user to the group realtime, \
         and log in again"
    )
}

/// Why the memory could not be locked.
struct NotLocked {
    /// The limit, bytes.
    limit: u64,
    error: Errno,
}

/// Locks what this process has and whatever it will have. Under a limit, what it will have could not be had at all one
/// day, in the middle of a motion: so all or nothing.
fn lock_memory() -> Result<(), NotLocked> {
    let fails = |limit| move |error| NotLocked { limit, error };
    // Where it may not be raised, it is as it was.
    let _ = setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY);
    let (limit, _) = getrlimit(Resource::RLIMIT_MEMLOCK).map_err(fails(0))?;
    mlockall(MlockAllFlags::MCL_CURRENT).map_err(fails(limit))?;
    if limit != RLIM_INFINITY && address_space() <= limit {
        // It could only be locked because there is little of it yet.
        let _ = munlockall();
        return Err(fails(limit)(Errno::ENOMEM));
    }
    // There is no limit, or this process has the capability (CAP_IPC_LOCK) to which none applies.
    mlockall(MlockAllFlags::MCL_CURRENT | MlockAllFlags::MCL_FUTURE).map_err(fails(limit))
}

/// The size of everything that is mapped, bytes.
fn address_space() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm
        .split(' ')
        .next()
        .and_then(|pages| pages.parse::<u64>().ok());
    // SAFETY: sysconf takes a number and changes nothing.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    pages.unwrap_or(0) * page.unsigned_abs()
}

fn stay_on(cpus: &[usize]) -> Result<(), Errno> {
    let mut set = CpuSet::new();
    cpus.iter().try_for_each(|cpu| set.set(*cpu))?;
    sched_setaffinity(Pid::from_raw(0), &set)
}

/// The processors that this process may use, in words.
fn permitted() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let list = status
        .lines()
        .find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    list.unwrap_or("unknown").trim().to_owned()
}

/// Puts this thread before every ordinary one.
fn go_first(priority: u64) -> Result<(), Errno> {
    let parameters = libc::sched_param {
        sched_priority: i32::try_from(priority).unwrap_or(1),
    };
    // SAFETY: the pointer is valid for the call; 0 is the calling thread. A failure changes nothing.
    Errno::result(unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &parameters) }).map(|_| ())
}

/// Asks the kernel to end this thread's sleeps on time, not up to 50 us later.
fn precise_timers() {
    // SAFETY: PR_SET_TIMERSLACK takes a number and concerns only the calling thread; a failure changes nothing.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1_u64) };
}

/// Touches the stack, so that no tick is the first to use a page of it.
#[inline(never)]
fn prefault_stack() {
    black_box(&mut [0_u8; STACK]);
}
