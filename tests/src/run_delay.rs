//! How long a thread was ready and waited for a core, as the kernel counts it: the second number of
//! `/proc/PID/task/ID/schedstat`, ns since the thread began. The kernel adds a wait when it ends.

use std::collections::VecDeque;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use mfpo_node::time::MonoTime;

use crate::rig::go_realtime;

/// Between two looks at the kernel's count, ns.
const EVERY: u64 = 4_000_000;

/// The kernel's count for one thread.
pub struct RunDelay {
    schedstat: Option<File>,
}

impl RunDelay {
    /// Of the thread whose schedstat this is.
    pub fn of(schedstat: Option<PathBuf>) -> Self {
        Self {
            schedstat: schedstat.and_then(|path| File::open(path).ok()),
        }
    }

    /// What it has waited for a core since it began, ns; 0 where the kernel does not tell, and once it has ended.
    pub fn total(&self) -> u64 {
        number(self.schedstat.as_ref(), 1)
    }
}

/// A number of a file's first line; 0 where there is none.
pub fn number(file: Option<&File>, index: usize) -> u64 {
    let mut bytes = [0; 256];
    let read = file
        .and_then(|file| file.read_at(&mut bytes, 0).ok())
        .unwrap_or(0);
    let text = String::from_utf8_lossy(bytes.get(..read).unwrap_or_default());
    let line = text.lines().next().unwrap_or_default();
    let number = line.split_whitespace().nth(index);
    number.and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// Looks on until it is asked for the longest wait of one thread.
pub struct LongestWait {
    stop: Arc<AtomicBool>,
    /// Until it has told.
    thread: Option<JoinHandle<u64>>,
}

impl LongestWait {
    /// Of the thread that `delay` is of: what it waits within any time of this length, in one piece or in several.
    pub fn within(window: Duration, delay: RunDelay) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let thread = {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || {
                // Who comes late here would add up waits of a longer time.
                go_realtime();
                look_on(&delay, Recent::of(window), &stop)
            })
        };
        Self {
            stop,
            thread: Some(thread),
        }
    }

    /// How long it was.
    ///
    /// # Panics
    /// When the thread that looks on has.
    pub fn told(mut self) -> Duration {
        self.stop.store(true, Ordering::Relaxed);
        let told = self.thread.take().map(JoinHandle::join);
        Duration::from_nanos(told.map_or(0, |told| told.expect("who looks on")))
    }
}

impl Drop for LongestWait {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic of that thread has already been printed.
            let _ = thread.join();
        }
    }
}

fn look_on(delay: &RunDelay, mut recent: Recent, stop: &AtomicBool) -> u64 {
    let (mut next, mut longest) = (MonoTime::now(), 0);
    while !stop.load(Ordering::Relaxed) {
        longest = recent.grown_by(MonoTime::now(), delay.total()).max(longest);
        next = next.plus(EVERY);
        next.sleep_until();
    }
    longest
}

/// A count as it was within the last time, and once before it.
struct Recent {
    window: u64,
    counts: VecDeque<(MonoTime, u64)>,
}

impl Recent {
    fn of(window: Duration) -> Self {
        Self {
            window: u64::try_from(window.as_nanos()).unwrap_or(u64::MAX),
            counts: VecDeque::new(),
        }
    }

    /// What has been added to a count that is `total` by `at`.
    fn grown_by(&mut self, at: MonoTime, total: u64) -> u64 {
        self.counts.push_back((at, total));
        let latest = at.minus(self.window);
        while self.counts.get(1).is_some_and(|(time, _)| *time <= latest) {
            self.counts.pop_front();
        }
        let before = self.counts.front().map_or(total, |(_, before)| *before);
        total.saturating_sub(before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn waits_add_up_within_the_time_and_no_longer() {
        let at = |ms: u64| MonoTime::from_nanos((1_000 + ms) * MS);
        let mut recent = Recent::of(Duration::from_millis(20));
        let counts = [
            (0, 5),
            (4, 9),
            (8, 9),
            (24, 25),
            (28, 25),
            (44, 25),
            (60, 25),
            (64, 0),
        ];
        let grown = counts.map(|(ms, total)| recent.grown_by(at(ms), total * MS) / MS);
        // At 24 ms what was counted by 4 ms is the newest before the time; at 28 ms it is what was by 8 ms. The thread has
        // ended by 64 ms.
        assert_eq!(grown, [0, 4, 4, 16, 16, 0, 0, 0]);
    }
}
