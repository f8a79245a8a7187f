//! Witnesses of how well the machine keeps time: one thread for each core sleeps on an absolute schedule and does
//! nothing else. Where even a witness came late, nobody else can be blamed for a late tick.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Measures until it is asked.
pub struct Witness {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Duration>>,
}

impl Witness {
    /// Wakes up at each multiple of `period`.
    pub fn start(period: Duration) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let start = |_| {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || latest(period, &stop))
        };
        Self {
            threads: (0..cores).map(start).collect(),
            stop,
        }
    }

    /// The latest that one woke up.
    pub fn worst(self) -> Duration {
        self.stop.store(true, Ordering::Relaxed);
        let told = self.threads.into_iter().map(|t| t.join().expect("a witness"));
        told.max().unwrap_or_default()
    }
}

/// Sleeps until each multiple of `period`, and tells the worst lateness.
fn latest(period: Duration, stop: &AtomicBool) -> Duration {
    let (mut next, mut worst) = (Instant::now(), Duration::ZERO);
    while !stop.load(Ordering::Relaxed) {
        next += period;
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
        worst = worst.max(Instant::now().saturating_duration_since(next));
    }
    worst
}
