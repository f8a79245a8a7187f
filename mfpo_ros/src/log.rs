//! Log output: one readable line an event on standard error. `RUST_LOG` decides what is shown; without it the
//! level of `--ros-args --log-level`, and without that `info`.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::args::ros_log_level;
use crate::rosout::{self, LogQueue};

/// Sets up log output for the whole process. A second call changes nothing.
pub fn init() {
    set_up(None);
}

/// [`init`] for a node that publishes its log: the same lines go into the queue.
pub fn init_with_queue() -> LogQueue {
    let (layer, queue) = rosout::queue();
    set_up(Some(layer));
    queue
}

fn set_up(layer: Option<rosout::LogLayer>) {
    let level = ros_log_level(std::env::args()).unwrap_or("info");
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false);
    // Fails only when a subscriber is already there, which then stays.
    let _ = tracing_subscriber::registry()
        .with(filter)
        .with(lines)
        .with(layer)
        .try_init();
}
