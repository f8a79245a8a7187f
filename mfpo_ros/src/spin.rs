//! A thread that spins a node until it is dropped. Streams of the node are then served by whoever awaits them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::thread;

/// Nothing can wake a `spin_once` that waits, so that this is also the longest that stopping takes.
const WAIT: Duration = Duration::from_millis(20);

/// Spins one node, which must have something to receive (rcl's wait returns at once otherwise), on a thread of its own; the
/// thread ends, and the node is destroyed, when this is dropped. Where it panics nobody is served any more, and the process is
/// asked to end.
pub struct SpinThread {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl SpinThread {
    /// Starts to spin `node` on a thread called `name`.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(node: r2r::Node, name: &str) -> std::io::Result<Self> {
        Self::start_showing(node, name, |_| {})
    }

    /// [`SpinThread::start`], which shows the node to `look` after each wait: at least 50 times a second.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start_showing(
        node: r2r::Node,
        name: &str,
        mut look: impl FnMut(&r2r::Node) + Send + 'static,
    ) -> std::io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&stop);
        let thread = thread::spawn_with(name, node, move |node| {
            while !seen.load(Ordering::Relaxed) {
                node.spin_once(WAIT);
                look(node);
            }
        })?;
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for SpinThread {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic of that thread has already been told.
            let _ = thread.join();
        }
    }
}
