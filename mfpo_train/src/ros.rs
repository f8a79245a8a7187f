//! The topic `policy/bundle`: every bundle goes to whoever listens, and the last one to whoever comes later.
//! The only file of this crate that names r2r.

use mfpo_ros::r2r::{self, Publisher, mfpo_msgs::msg::PolicyBundle};
use mfpo_ros::{create_node, qos, time};

use crate::publish::{BundleSink, SealedBundle};

/// Publishes bundles on ROS 2.
pub struct BundleTopic {
    publisher: Publisher<PolicyBundle>,
    /// Lives as long as the publisher. It is not spun: it receives nothing, and rcl's wait returns at once where there
    /// is nothing to wait for, so that a thread that spins it would take a whole core.
    _node: r2r::Node,
}

impl BundleTopic {
    /// A node `mfpo_train` with the topic `policy/bundle`; namespace and remaps come from `--ros-args`.
    pub fn open() -> anyhow::Result<Self> {
        let mut node = create_node("mfpo_train")?;
        let publisher = node.create_publisher("policy/bundle", qos::POLICY_BUNDLE)?;
        Ok(Self {
            publisher,
            _node: node,
        })
    }
}

impl BundleSink for BundleTopic {
    fn publish(&mut self, bundle: &SealedBundle) -> anyhow::Result<()> {
        self.publisher.publish(&PolicyBundle {
            stamp: time::now(),
            run: bundle.run.clone(),
            version: bundle.version,
            robot: bundle.subject.clone(),
            digest: bundle.digest.clone(),
            path: String::new(),
            data: bundle.bytes.clone(),
        })?;
        Ok(())
    }
}
