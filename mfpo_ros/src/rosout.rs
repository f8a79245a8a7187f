//! The log on `/rosout`: events of `tracing` go into a bounded queue that nobody waits on, and from there to the topic
//! on a thread that has time. Where the queue is full an event is left out and counted.

use std::fmt::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use r2r::Node;
use r2r::builtin_interfaces::msg::Time;
use r2r::rcl_interfaces::msg::Log;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use crate::node::RosError;
use crate::{qos, time};

/// Events that wait to be published; more than are logged in a second of trouble.
const ROOM: usize = 512;

/// One line of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// When it was logged, ns since the Unix epoch.
    pub stamp: i64,
    /// The level of `rcl_interfaces/Log`.
    pub level: u8,
    /// What was logged.
    pub text: String,
    /// Source file.
    pub file: &'static str,
    /// Module.
    pub module: &'static str,
    /// Line in the file.
    pub line: u32,
}

/// Lines that wait to be published.
pub struct LogQueue {
    lines: Receiver<Line>,
    lost: Arc<AtomicU64>,
}

impl LogQueue {
    /// The oldest line that waits. Never waits itself.
    pub fn pop(&self) -> Option<Line> {
        self.lines.try_recv().ok()
    }

    /// Lines that found the queue full since the last time this was asked.
    pub fn take_lost(&self) -> u64 {
        self.lost.swap(0, Ordering::Relaxed)
    }
}

/// Where `tracing` puts its events.
pub struct LogLayer {
    lines: SyncSender<Line>,
    lost: Arc<AtomicU64>,
}

/// The two ends of a queue.
pub fn queue() -> (LogLayer, LogQueue) {
    let (sender, lines) = sync_channel(ROOM);
    let lost = Arc::new(AtomicU64::new(0));
    let layer = LogLayer {
        lines: sender,
        lost: Arc::clone(&lost),
    };
    (layer, LogQueue { lines, lost })
}

impl<S: Subscriber> Layer<S> for LogLayer {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let metadata = event.metadata();
        let mut text = Text::default();
        event.record(&mut text);
        let line = Line {
            stamp: time::system_nanoseconds(),
            level: level(*metadata.level()),
            text: text.0,
            file: metadata.file().unwrap_or_default(),
            module: metadata.module_path().unwrap_or_default(),
            line: metadata.line().unwrap_or_default(),
        };
        if self.lines.try_send(line).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The numbers of `rcl_interfaces/Log`.
fn level(level: Level) -> u8 {
    match level {
        Level::ERROR => Log::ERROR as u8,
        Level::WARN => Log::WARN as u8,
        Level::INFO => Log::INFO as u8,
        Level::DEBUG | Level::TRACE => Log::DEBUG as u8,
    }
}

/// The message of an event, then its fields as `name=value`.
#[derive(Default)]
struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let between = if self.0.is_empty() { "" } else { " " };
        // Writing to a string does not fail.
        let _ = match field.name() {
            "message" => write!(self.0, "{between}{value:?}"),
            name => write!(self.0, "{between}{name}={value:?}"),
        };
    }
}

/// Publishes lines on `/rosout`.
pub struct Rosout {
    queue: LogQueue,
    publisher: r2r::Publisher<Log>,
    name: String,
}

impl Rosout {
    /// Announces the topic; lines carry the name of `node` as rclcpp's do: `left.control`.
    ///
    /// # Errors
    /// When rcl refuses it.
    pub fn new(node: &mut Node, queue: LogQueue) -> Result<Self, RosError> {
        let publisher = node
            .create_publisher("/rosout", qos::ROSOUT)
            .map_err(RosError::while_doing("creating the publisher of /rosout"))?;
        let name = node
            .fully_qualified_name()
            .map_err(RosError::while_doing("reading the node's name"))?;
        Ok(Self {
            queue,
            publisher,
            name: name.trim_start_matches('/').replace('/', "."),
        })
    }

    /// Publishes what waits, and shows each line to `also`.
    pub fn forward(&self, also: &mut dyn FnMut(&Log)) {
        let lost = self.queue.take_lost();
        if lost > 0 {
            self.publish(
                time::now(),
                Log::WARN as u8,
                format!("{lost} lines of the log were left out"),
            );
        }
        while let Some(line) = self.queue.pop() {
            let message = Log {
                file: line.file.to_owned(),
                function: line.module.to_owned(),
                line: line.line,
                ..self.log(time::stamp(line.stamp), line.level, line.text)
            };
            // A log that cannot be published cannot be logged either.
            let _ = self.publisher.publish(&message);
            also(&message);
        }
    }

    fn publish(&self, stamp: Time, level: u8, text: String) {
        let _ = self.publisher.publish(&self.log(stamp, level, text));
    }

    fn log(&self, stamp: Time, level: u8, msg: String) -> Log {
        Log {
            stamp,
            level,
            name: self.name.clone(),
            msg,
            ..Default::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[test]
    fn events_wait_in_order_with_level_place_and_fields() {
        let (layer, queue) = queue();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            tracing::warn!("hot");
            tracing::info!(joint = "elbow", "cold");
        });
        let line = queue.pop().unwrap();
        assert_eq!((line.level, line.text.as_str()), (30, "hot"));
        assert!(line.file.ends_with("rosout.rs") && line.line > 0 && line.stamp > 0);
        let line = queue.pop().unwrap();
        assert_eq!((line.level, line.text.as_str()), (20, "cold joint=\"elbow\""));
        assert!(queue.pop().is_none());
    }

    #[test]
    fn a_full_queue_is_not_waited_on_and_what_it_leaves_out_is_counted() {
        let (layer, queue) = queue();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            (0..ROOM + 7).for_each(|n| tracing::info!("{n}"));
        });
        assert_eq!((queue.take_lost(), queue.take_lost()), (7, 0));
        assert_eq!(std::iter::from_fn(|| queue.pop()).count(), ROOM);
    }
}
