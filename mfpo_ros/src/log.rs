//! Log output: one readable line an event on standard error. `RUST_LOG` decides what is shown; without it the
//! level of `--ros-args --log-level`, and without that `info`.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::args::ros_log_level;

/// Sets up log output for the whole process. A second call changes nothing.
pub fn init() {
    let level = ros_log_level(std::env::args()).unwrap_or("info");
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    // Fails only when a subscriber is already there, which then stays.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .try_init();
}
