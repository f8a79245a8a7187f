//! What the node sends, as a robot and an observer receive it.

use std::time::Duration;

use anyhow::bail;
use mfpo_node::time::MonoTime;
use mfpo_ros::r2r::mfpo_msgs::msg::{PolicyAction, PolicyBundle, PolicyStatus};
use mfpo_ros::r2r::std_msgs::msg::Float64MultiArray;
use mfpo_ros::r2r::{self, Node, Publisher};
use mfpo_ros::{Inbox, create_node, qos, time};

use super::{ACTIVE, go_realtime};

/// How long the node may take to command.
const PATIENCE: u64 = 30_000_000_000;

/// Subscriptions to the node of a namespace, and a publisher of bundles.
pub struct Receiver {
    /// The node that is spun.
    pub node: Node,
    commands: Inbox<Float64MultiArray>,
    actions: Inbox<PolicyAction>,
    statuses: Inbox<PolicyStatus>,
    bundles: Publisher<PolicyBundle>,
    /// The newest status.
    pub status: PolicyStatus,
}

impl Receiver {
    /// Subscribes; the calling thread gets real-time priority where that is permitted.
    ///
    /// # Errors
    /// When rcl refuses something.
    pub fn new(namespace: &str) -> anyhow::Result<Self> {
        let mut node = create_node("bench_receiver")?;
        let topic = |name: &str| format!("{namespace}/{name}");
        let commands = Inbox::subscribe(&mut node, &topic("commands"), qos::COMMANDS)?;
        let actions = Inbox::subscribe(&mut node, &topic("policy/action"), qos::POLICY_ACTION)?;
        let statuses = Inbox::subscribe(&mut node, &topic("policy/status"), qos::POLICY_STATUS)?;
        let bundles = node.create_publisher(&topic("policy/bundle"), qos::POLICY_BUNDLE)?;
        go_realtime();
        Ok(Self {
            node,
            commands,
            actions,
            statuses,
            bundles,
            status: PolicyStatus::default(),
        })
    }

    /// Waits for a message at most so long and hands on what has arrived, with the time; commands first.
    pub fn pump(
        &mut self,
        longest: Duration,
        mut on_command: impl FnMut(&Float64MultiArray, MonoTime),
        mut on_action: impl FnMut(&PolicyAction, MonoTime),
    ) {
        self.node.spin_once(longest);
        let now = MonoTime::now();
        while let Some(command) = self.commands.pop() {
            on_command(&command, now);
        }
        while let Some(action) = self.actions.pop() {
            on_action(&action, now);
        }
        if let Some(newest) = self.statuses.latest() {
            self.status = newest;
        }
    }

    /// Does the policy command?
    pub fn is_active(&self) -> bool {
        self.status.state == ACTIVE
    }

    /// Waits until the policy has commanded for so long, s.
    ///
    /// # Errors
    /// When it does not begin.
    pub fn wait_until_active(&mut self, seconds: f64) -> anyhow::Result<()> {
        let began = MonoTime::now();
        let mut active_since = None;
        loop {
            self.pump(Duration::from_millis(10), |_, _| {}, |_, _| {});
            let now = MonoTime::now();
            if !self.is_active() {
                active_since = None;
                if now.since(began) > PATIENCE {
                    bail!("the node does not command; it says: '{}'", self.status.message);
                }
                continue;
            }
            let since = *active_since.get_or_insert(now);
            if now.since(since) as f64 > 1e9 * seconds {
                return Ok(());
            }
        }
    }

    /// Publishes a bundle.
    ///
    /// # Errors
    /// When rcl does not take it.
    pub fn offer(&self, run: &str, version: u64, data: Vec<u8>) -> r2r::Result<()> {
        self.bundles.publish(&PolicyBundle {
            stamp: time::now(),
            run: run.to_owned(),
            version,
            robot: String::new(),
            digest: String::new(),
            data,
            ..PolicyBundle::default()
        })
    }
}
