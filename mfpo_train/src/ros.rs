//! The topic `policy/bundle`: every bundle goes to whoever listens, and the last one to whoever comes later; as it is, as the
//! path of its file, or in parts on `policy/bundle_chunk`. The only file of this crate that names r2r.

use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;
use mfpo_ros::r2r::mfpo_msgs::msg::{PolicyBundle, PolicyBundleChunk};
use mfpo_ros::r2r::{self, Publisher};
use mfpo_ros::{create_node, qos, time};

use crate::publish::{Announce, BundleSink, SealedBundle, parts};

/// Time between two parts: with the smallest ones 50 MB a second, which leaves the middleware time for others.
const BETWEEN_PARTS: Duration = Duration::from_millis(5);

/// Publishes bundles on ROS 2.
pub struct BundleTopic {
    announce: Announce,
    publisher: Publisher<PolicyBundle>,
    /// Made with the first bundle that goes in parts.
    parts: Option<PartSender>,
    /// Lives as long as the publisher. It is not spun: it receives nothing, and rcl's wait returns at once where there
    /// is nothing to wait for, so that a thread that spins it would take a whole core.
    node: r2r::Node,
}

impl BundleTopic {
    /// A node `mfpo_train` with the topic `policy/bundle`; namespace and remaps come from `--ros-args`.
    pub fn open(announce: Announce) -> anyhow::Result<Self> {
        let mut node = create_node("mfpo_train")?;
        let publisher = node.create_publisher("policy/bundle", qos::POLICY_BUNDLE)?;
        Ok(Self {
            announce,
            publisher,
            parts: None,
            node,
        })
    }

    fn message(bundle: &SealedBundle) -> PolicyBundle {
        PolicyBundle {
            stamp: time::now(),
            run: bundle.run.clone(),
            version: bundle.version,
            robot: bundle.subject.clone(),
            digest: bundle.digest.clone(),
            ..Default::default()
        }
    }

    fn send_in_parts(&mut self, bundle: &SealedBundle) -> anyhow::Result<()> {
        let sender = match &self.parts {
            Some(sender) => sender,
            None => self.parts.insert(PartSender::start(&mut self.node)?),
        };
        sender.send(bundle)
    }
}

impl BundleSink for BundleTopic {
    fn publish(&mut self, bundle: &SealedBundle, file: &Path) -> anyhow::Result<()> {
        let mut message = Self::message(bundle);
        match self.announce.of_size(bundle.bytes.len()) {
            Announce::Parts => return self.send_in_parts(bundle),
            Announce::Path => {
                let file = file.canonicalize();
                let file =
                    file.with_context(|| format!("cannot announce a bundle of run '{}'", bundle.run))?;
                message.path = file.to_string_lossy().into_owned();
            }
            Announce::Auto | Announce::Message => message.data.clone_from(&bundle.bytes),
        }
        self.publisher.publish(&message)?;
        Ok(())
    }
}

/// Sends bundles in parts on a thread of its own, so that learning goes on meanwhile.
struct PartSender {
    bundles: Option<Sender<SealedBundle>>,
    thread: Option<JoinHandle<()>>,
}

impl PartSender {
    fn start(node: &mut r2r::Node) -> anyhow::Result<Self> {
        let publisher = node.create_publisher("policy/bundle_chunk", qos::POLICY_BUNDLE_CHUNK)?;
        let (bundles, wanted) = channel();
        let thread = std::thread::Builder::new().name("parts".into());
        let thread = thread.spawn(move || send_all(&publisher, &wanted));
        Ok(Self {
            bundles: Some(bundles),
            thread: Some(thread.context("starting the thread that sends bundles in parts")?),
        })
    }

    fn send(&self, bundle: &SealedBundle) -> anyhow::Result<()> {
        let bundles = self.bundles.as_ref();
        let sent = bundles.and_then(|bundles| bundles.send(bundle.clone()).ok());
        sent.context("the thread that sends bundles in parts has ended")
    }
}

impl Drop for PartSender {
    /// The last bundle still goes out.
    fn drop(&mut self) {
        self.bundles = None;
        if let Some(thread) = self.thread.take() {
            // A panic of that thread has already been printed.
            let _ = thread.join();
        }
    }
}

/// Sends the newest bundle, again and again, until there are no more.
fn send_all(publisher: &Publisher<PolicyBundleChunk>, wanted: &Receiver<SealedBundle>) {
    while let Ok(bundle) = wanted.recv() {
        let newest = wanted.try_iter().last().unwrap_or(bundle);
        if let Err(error) = send(publisher, &newest) {
            tracing::warn!("version {} was not sent in parts: {error}", newest.version);
        }
    }
}

fn send(publisher: &Publisher<PolicyBundleChunk>, bundle: &SealedBundle) -> anyhow::Result<()> {
    let parts = parts(&bundle.bytes);
    let count = u32::try_from(parts.len())?;
    for (index, part) in (0..count).zip(parts) {
        publisher.publish(&PolicyBundleChunk {
            stamp: time::now(),
            run: bundle.run.clone(),
            version: bundle.version,
            digest: bundle.digest.clone(),
            size: bundle.bytes.len() as u64,
            index,
            count,
            data: part.to_vec(),
        })?;
        std::thread::sleep(BETWEEN_PARTS);
    }
    Ok(())
}
