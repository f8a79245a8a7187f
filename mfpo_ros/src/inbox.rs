//! A subscription that is read on the thread that spins, without an executor. r2r's stream holds ten messages and
//! then drops the newest: drain an inbox after each `spin_once`.

use std::pin::Pin;

use futures::future::FutureExt;
use futures::stream::{Stream, StreamExt};
use r2r::{Node, QosProfile, WrappedTypesupport};

use crate::node::RosError;

/// Messages of one topic that have arrived.
pub struct Inbox<T> {
    stream: Pin<Box<dyn Stream<Item = T> + Send>>,
}

impl<T: WrappedTypesupport + Send + 'static> Inbox<T> {
    /// Subscribes `node` to `topic`.
    ///
    /// # Errors
    /// When rcl refuses the topic's name or type.
    pub fn subscribe(node: &mut Node, topic: &str, qos: QosProfile) -> Result<Self, RosError> {
        let stream = node
            .subscribe::<T>(topic, qos)
            .map_err(RosError::while_doing(format!("subscribing to '{topic}'")))?;
        Ok(Self {
            stream: Box::pin(stream),
        })
    }

    /// The oldest message that has arrived and not been read yet. Never waits.
    pub fn pop(&mut self) -> Option<T> {
        self.stream.next().now_or_never().flatten()
    }

    /// The newest message that has arrived; older ones are dropped. Never waits.
    pub fn latest(&mut self) -> Option<T> {
        std::iter::from_fn(|| self.pop()).last()
    }

    /// Waits for the next message; `None` when the node is gone.
    pub async fn next(&mut self) -> Option<T> {
        self.stream.next().await
    }
}
