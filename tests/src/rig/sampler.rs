//! Evidence of what the machine did while a tick was late: a thread on each core that only sleeps, on an absolute
//! schedule, and how late it woke up; how long the control thread has waited for a core; and what the hypervisor took.
//!
//! Each core has its own, since a hypervisor halts one core at a time: its timers then go off late, so that who sleeps
//! there wakes up late without having waited for a core, and who runs there stands still. These threads go before the
//! control thread: what keeps one of them was not its doing.

use std::collections::VecDeque;
use std::fmt;
use std::fs::File;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use mfpo_node::time::MonoTime;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use super::go_realtime;
use crate::run_delay::{RunDelay, number};

/// Between two samples, ns.
const EVERY: u64 = 4_000_000;
/// What is kept of the samples, where whoever asks does so at once.
const KEPT: Duration = Duration::from_secs(2);
/// Between two times that a core's own thread wakes up, ns: it is blind to a halt for so long.
const NAP: u64 = 200_000;

#[derive(Debug, Clone, Copy)]
struct Sample {
    at: MonoTime,
    /// The latest that a core's own thread woke up since the sample before, ns.
    late: u64,
    /// What the control thread has waited for a core since it began, ns.
    run_delay: u64,
    /// What the hypervisor has taken from all cores since the start, 1/100 s.
    steal: u64,
}

/// What happened around a late tick.
#[derive(Debug, Clone, Copy, Default)]
pub struct Evidence {
    /// The control thread was ready and waited for a core, ms.
    pub run_delay_ms: f64,
    /// The latest that a thread which does nothing but sleep woke up on its core, ms.
    pub witness_late_ms: f64,
    /// What the hypervisor took from the cores, ms.
    pub steal_ms: f64,
}

impl Evidence {
    /// Does it account for a tick that was so late, ms?
    pub fn explains(&self, late_ms: f64) -> bool {
        let most = self.run_delay_ms.max(self.witness_late_ms).max(self.steal_ms);
        most >= 0.8 * late_ms
    }
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            run_delay_ms,
            witness_late_ms,
            steal_ms,
        } = self;
        write!(
            f,
            "the control thread waited {run_delay_ms:.2} ms for a core, of the threads that only sleep, one on each core, one \
             was {witness_late_ms:.2} ms late, the hypervisor took {steal_ms:.0} ms"
        )
    }
}

/// Samples until it is dropped.
pub struct Sampler {
    samples: Arc<Mutex<VecDeque<Sample>>>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Sampler {
    /// Watches the thread whose schedstat this is.
    pub fn start(schedstat: Option<PathBuf>) -> Self {
        Self::keeping(KEPT, schedstat)
    }

    /// [`Sampler::start`] for who asks up to so much later.
    pub fn keeping(time: Duration, schedstat: Option<PathBuf>) -> Self {
        let most = (time.as_nanos() / u128::from(EVERY)) as usize;
        let samples = Arc::new(Mutex::new(VecDeque::with_capacity(most)));
        let stop = Arc::new(AtomicBool::new(false));
        let late = Arc::new(AtomicU64::new(0));
        let mut threads: Vec<_> = own_cores()
            .into_iter()
            .map(|core| {
                let (late, stop) = (Arc::clone(&late), Arc::clone(&stop));
                std::thread::spawn(move || nap(core, &late, &stop))
            })
            .collect();
        let sampler = {
            let (samples, stop) = (Arc::clone(&samples), Arc::clone(&stop));
            std::thread::spawn(move || {
                go_realtime();
                sample(schedstat, &late, (&samples, most), &stop);
            })
        };
        threads.push(sampler);
        Self {
            samples,
            stop,
            threads,
        }
    }

    /// What happened from one moment to another, a sample before the one and one after the other included.
    pub fn between(&self, began: MonoTime, ended: MonoTime) -> Evidence {
        let samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        evidence(&samples, began, ended)
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // A panic of that thread has already been printed.
            let _ = thread.join();
        }
    }
}

/// What the samples tell of the time from `began` to `ended`; they are in the order of time.
fn evidence(samples: &VecDeque<Sample>, began: MonoTime, ended: MonoTime) -> Evidence {
    let after_first = samples.partition_point(|s| s.at <= began);
    let after_last = samples.partition_point(|s| s.at < ended);
    let first = samples.get(after_first.saturating_sub(1));
    let (Some(first), Some(last)) = (first, samples.get(after_last).or(samples.back())) else {
        return Evidence::default();
    };
    // A sample tells how late the threads were since the one before it: that of before `began` is of an earlier time.
    let within = samples
        .iter()
        .skip(after_first)
        .take(after_last + 1 - after_first.min(after_last));
    Evidence {
        run_delay_ms: 1e-6 * last.run_delay.saturating_sub(first.run_delay) as f64,
        witness_late_ms: 1e-6 * within.map(|s| s.late).max().unwrap_or(0) as f64,
        steal_ms: 10.0 * last.steal.saturating_sub(first.steal) as f64,
    }
}

/// The cores that this process may run on.
fn own_cores() -> Vec<usize> {
    let allowed = sched_getaffinity(Pid::from_raw(0));
    let is_allowed = |core: &usize| allowed.is_ok_and(|set| set.is_set(*core).unwrap_or(false));
    (0..CpuSet::count()).filter(is_allowed).collect()
}

/// Sleeps on `core` and leaves in `late` by how much it came late at most, ns.
fn nap(core: usize, late: &AtomicU64, stop: &AtomicBool) {
    let mut own = CpuSet::new();
    // Where that is refused it sleeps on any core, and is one more thread that only sleeps.
    let _ = own
        .set(core)
        .and_then(|()| sched_setaffinity(Pid::from_raw(0), &own));
    go_realtime();
    let mut next = MonoTime::now();
    while !stop.load(Ordering::Relaxed) {
        next = next.plus(NAP);
        next.sleep_until();
        let now = MonoTime::now();
        let by = now.since(next);
        late.fetch_max(by, Ordering::Relaxed);
        if by > NAP {
            next = now;
        }
    }
}

fn sample(
    schedstat: Option<PathBuf>,
    late: &AtomicU64,
    (samples, most): (&Mutex<VecDeque<Sample>>, usize),
    stop: &AtomicBool,
) {
    let delay = RunDelay::of(schedstat);
    let stat = File::open("/proc/stat").ok();
    let mut next = MonoTime::now();
    while !stop.load(Ordering::Relaxed) {
        let at = MonoTime::now();
        let new = Sample {
            at,
            late: late.swap(0, Ordering::Relaxed).max(at.since(next)),
            run_delay: delay.total(),
            // cpu user nice system idle iowait irq softirq steal
            steal: number(stat.as_ref(), 8),
        };
        let mut samples = samples.lock().unwrap_or_else(PoisonError::into_inner);
        if samples.len() >= most {
            samples.pop_front();
        }
        samples.push_back(new);
        drop(samples);
        next = next.plus(EVERY);
        next.sleep_until();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Samples every 4 ms from 100 ms on; the control thread waited 3 ms, and a thread came 5 ms late, before that of 112 ms.
    fn samples() -> VecDeque<Sample> {
        let sample = |number: u64| Sample {
            at: at(100 + 4 * number),
            late: if number == 3 { 5_000_000 } else { 50_000 },
            run_delay: if number < 3 { 1_000_000 } else { 4_000_000 },
            steal: 7,
        };
        (0..10).map(sample).collect()
    }

    fn at(milliseconds: u64) -> MonoTime {
        MonoTime::from_nanos(1_000_000 * milliseconds)
    }

    #[test]
    fn evidence_is_of_the_time_asked_for_and_of_no_other() {
        let samples = samples();
        let told = |from, to| {
            let evidence = evidence(&samples, at(from), at(to));
            (evidence.run_delay_ms.round(), evidence.witness_late_ms.round())
        };
        assert_eq!(told(109, 111), (3.0, 5.0));
        assert_eq!(told(101, 130), (3.0, 5.0));
        assert_eq!(told(101, 107), (0.0, 0.0), "before it");
        assert_eq!(told(113, 500), (0.0, 0.0), "after it");
        assert_eq!(told(0, 500), (3.0, 5.0), "longer than what is kept");
        assert_eq!(told(200, 500), (0.0, 0.0));
        let nothing = evidence(&VecDeque::new(), at(0), at(500));
        assert!(!nothing.explains(0.1));
    }
}
