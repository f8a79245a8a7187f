//! A witness of how well the machine keeps time: it sleeps on an absolute schedule and does nothing else. Where even
//! the witness came late, nobody else can be blamed for a late tick.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Measures until it is asked.
pub struct Witness {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Duration>,
}

impl Witness {
    /// Wakes up at each multiple of `period`.
    pub fn start(period: Duration) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let (mut next, mut worst) = (Instant::now(), Duration::ZERO);
            while !seen.load(Ordering::Relaxed) {
                next += period;
                std::thread::sleep(next.saturating_duration_since(Instant::now()));
                worst = worst.max(Instant::now().saturating_duration_since(next));
            }
            worst
        });
        Self { stop, thread }
    }

    /// The latest that it woke up.
    pub fn worst(self) -> Duration {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the witness")
    }
}
