//! Simulated time on the control thread, which hears it where it hears the joint states: whoever else reads it never holds this
//! thread up, and time stands still only where no clock arrives, not where another thread of the node is late.

use std::sync::Arc;

use mfpo_ros::{Inbox, qos, time};

use super::super::messages::Stamps;
use super::super::qos_overrides::Overrides;
use super::super::r2r;
use r2r::rosgraph_msgs::msg::Clock;

use crate::sim_time::SimTime;
use crate::time::MonoTime;

/// Topic /clock of a node that goes by it.
pub struct ClockTopic {
    inbox: Inbox<Clock>,
    time: Arc<SimTime>,
}

impl ClockTopic {
    /// Subscribes `node`, where the stamps are of simulated time.
    ///
    /// # Errors
    /// When a parameter asks for a quality of service that does not exist, or rcl refuses the topic.
    pub fn subscribe(
        node: &mut r2r::Node,
        stamps: &Stamps,
        overrides: &mut Overrides,
    ) -> anyhow::Result<Option<Self>> {
        let Some(time) = stamps.simulated().cloned() else {
            return Ok(None);
        };
        let inbox = overrides.subscribe(node, "/clock", qos::CLOCK)?;
        Ok(Some(Self { inbox, time }))
    }

    /// Takes over the newest time that has arrived. Never waits.
    pub fn take(&mut self) {
        if let Some(message) = self.inbox.latest() {
            self.time.hear(time::nanoseconds(&message.clock), MonoTime::now());
        }
    }
}
