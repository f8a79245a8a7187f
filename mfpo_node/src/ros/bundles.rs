//! Bundles arrive on a node and a thread of their own, at a lower priority than everything else: taking a message of 50 MB
//! apart takes a while, in which services and diagnostics go on. Those that come in parts are put together here.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use mfpo_ros::{Inbox, thread};
use tokio::sync::mpsc;

use super::policies::yield_to_control;
use super::r2r;
use r2r::mfpo_msgs::msg::{PolicyBundle, PolicyBundleChunk};

use crate::time::MonoTime;
use crate::weights::Offer;
use crate::weights::parts::{Name, Part, Parts};

/// Nothing can wake a `spin_once` that waits, so that this is also the longest that stopping takes.
const WAIT: Duration = Duration::from_millis(20);
/// Bundles that wait for the service; each may be large.
const ROOM: usize = 2;

/// What has arrived.
pub enum Arrived {
    /// A bundle.
    Bundle {
        /// Its training run, as the message says.
        run: String,
        /// Its version, as the message says.
        version: u64,
        /// The bundle, or why there is none.
        offer: Result<Offer, String>,
    },
    /// Why one that came in parts will not.
    GivenUp(String),
}

/// The topics that bundles come on.
pub struct BundleTopics {
    /// A whole bundle in each message, or where its file lies.
    pub whole: Inbox<PolicyBundle>,
    /// In parts.
    pub parts: Inbox<PolicyBundleChunk>,
}

/// Takes bundles until it is dropped.
pub struct BundleThread {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl BundleThread {
    /// Starts to spin `node`, which holds `topics`.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(node: r2r::Node, topics: BundleTopics) -> std::io::Result<(Self, mpsc::Receiver<Arrived>)> {
        let (tell, arrived) = mpsc::channel(ROOM);
        let stop = Arc::new(AtomicBool::new(false));
        let taker = Taker {
            node,
            topics,
            parts: Parts::default(),
            tell,
            stop: Arc::clone(&stop),
        };
        let thread = Some(thread::spawn_with("bundles", taker, Taker::run)?);
        Ok((Self { stop, thread }, arrived))
    }
}

impl Drop for BundleThread {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic of that thread has already been told.
            let _ = thread.join();
        }
    }
}

struct Taker {
    node: r2r::Node,
    topics: BundleTopics,
    parts: Parts,
    tell: mpsc::Sender<Arrived>,
    stop: Arc<AtomicBool>,
}

impl Taker {
    fn run(&mut self) {
        yield_to_control();
        while !self.stop.load(Ordering::Relaxed) {
            self.node.spin_once(WAIT);
            while let Some(bundle) = self.topics.whole.pop() {
                self.told(Arrived::Bundle {
                    run: bundle.run,
                    version: bundle.version,
                    offer: Offer::of(bundle.data, bundle.path, bundle.digest),
                });
            }
            while let Some(chunk) = self.topics.parts.pop() {
                self.put(chunk);
            }
            if let Some(error) = self.parts.give_up(MonoTime::now()) {
                self.told(Arrived::GivenUp(error.to_string()));
            }
        }
    }

    fn put(&mut self, chunk: PolicyBundleChunk) {
        let part = Part {
            name: Name {
                run: chunk.run,
                version: chunk.version,
                digest: chunk.digest,
            },
            size: chunk.size,
            index: chunk.index,
            count: chunk.count,
            data: chunk.data,
        };
        let now = MonoTime::now();
        if let Some(error) = self.parts.make_room(&part.name, now) {
            self.told(Arrived::GivenUp(error.to_string()));
        }
        let Name { run, version, .. } = part.name.clone();
        match self.parts.take(part, now) {
            Ok(None) => {}
            Ok(Some(bytes)) => self.told(Arrived::Bundle {
                run,
                version,
                offer: Ok(Offer::Bytes(bytes)),
            }),
            Err(error) => self.told(Arrived::GivenUp(error.to_string())),
        }
    }

    /// Hands something to the service; waits for room, unless all is about to end.
    fn told(&self, mut arrived: Arrived) {
        while !self.stop.load(Ordering::Relaxed) {
            match self.tell.try_send(arrived) {
                Err(mpsc::error::TrySendError::Full(back)) => {
                    arrived = back;
                    std::thread::sleep(WAIT);
                }
                Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => return,
            }
        }
    }
}
