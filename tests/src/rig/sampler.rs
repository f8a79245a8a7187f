//! Evidence of what the machine did while a tick was late: a thread that wakes up on an absolute schedule and notes how
//! late it was itself, how long the control thread has waited for a core, and what the hypervisor took.

use std::collections::VecDeque;
use std::fmt;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use mfpo_node::time::MonoTime;

use super::go_realtime;

/// Between two samples, ns.
const EVERY: u64 = 4_000_000;
/// Samples that are kept: two seconds.
const KEPT: usize = 500;

#[derive(Debug, Clone, Copy)]
struct Sample {
    at: MonoTime,
    /// How late the sampler itself woke up, ns.
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
    /// The latest that a thread which does nothing but sleep woke up, ms.
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
            "the control thread waited {run_delay_ms:.2} ms for a core, a thread that only sleeps was {witness_late_ms:.2} \
             ms late, the hypervisor took {steal_ms:.0} ms"
        )
    }
}

/// Samples until it is dropped.
pub struct Sampler {
    samples: Arc<Mutex<VecDeque<Sample>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Sampler {
    /// Watches the thread whose schedstat this is.
    pub fn start(schedstat: Option<PathBuf>) -> Self {
        let samples = Arc::new(Mutex::new(VecDeque::with_capacity(KEPT)));
        let stop = Arc::new(AtomicBool::new(false));
        let thread = {
            let (samples, stop) = (Arc::clone(&samples), Arc::clone(&stop));
            std::thread::spawn(move || {
                go_realtime();
                sample(schedstat, &samples, &stop);
            })
        };
        Self {
            samples,
            stop,
            thread: Some(thread),
        }
    }

    /// What happened from some moment on, a sample before it included.
    pub fn since(&self, began: MonoTime) -> Evidence {
        let samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        let first = samples.iter().rfind(|s| s.at <= began).or(samples.front());
        let (Some(first), Some(last)) = (first, samples.back()) else {
            return Evidence::default();
        };
        let within = samples.iter().filter(|s| s.at >= began);
        Evidence {
            run_delay_ms: 1e-6 * last.run_delay.saturating_sub(first.run_delay) as f64,
            witness_late_ms: 1e-6 * within.map(|s| s.late).max().unwrap_or(0) as f64,
            steal_ms: 10.0 * last.steal.saturating_sub(first.steal) as f64,
        }
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic of that thread has already been printed.
            let _ = thread.join();
        }
    }
}

fn sample(schedstat: Option<PathBuf>, samples: &Mutex<VecDeque<Sample>>, stop: &AtomicBool) {
    let schedstat = schedstat.and_then(|path| File::open(path).ok());
    let stat = File::open("/proc/stat").ok();
    let mut next = MonoTime::now();
    while !stop.load(Ordering::Relaxed) {
        let at = MonoTime::now();
        let new = Sample {
            at,
            late: at.since(next),
            run_delay: field(schedstat.as_ref(), 1),
            // cpu user nice system idle iowait irq softirq steal
            steal: field(stat.as_ref(), 8),
        };
        let mut samples = samples.lock().unwrap_or_else(PoisonError::into_inner);
        if samples.len() == KEPT {
            samples.pop_front();
        }
        samples.push_back(new);
        drop(samples);
        next = next.plus(EVERY);
        next.sleep_until();
    }
}

/// A number of a file's first line.
fn field(file: Option<&File>, index: usize) -> u64 {
    let mut bytes = [0; 256];
    let read = file
        .and_then(|file| file.read_at(&mut bytes, 0).ok())
        .unwrap_or(0);
    let text = String::from_utf8_lossy(bytes.get(..read).unwrap_or_default());
    let line = text.lines().next().unwrap_or_default();
    let number = line.split_whitespace().nth(index);
    number.and_then(|number| number.parse().ok()).unwrap_or(0)
}
