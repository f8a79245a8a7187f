//! A whole training in the test's own process.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use mfpo_train::config::TrainConfig;
use mfpo_train::progress::ProgressMode;
use mfpo_train::train::Options;

/// A training from its start into `folder` that is told to nobody, waits for nothing and goes on to its end.
pub fn options(task: &str, config: TrainConfig, seed: u64, folder: &Path) -> Options {
    Options {
        task: task.to_owned(),
        config,
        seed,
        folder: folder.to_owned(),
        checkpoint: None,
        progress: ProgressMode::Quiet,
        sink: None,
        signing_key: None,
        until_success: None,
        films: None,
        least: Duration::ZERO,
        stop: Arc::new(AtomicBool::new(false)),
    }
}
