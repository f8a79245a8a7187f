//! A trainer at work on every core beside what is measured.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::bail;

use crate::{Process, program};

/// It has really begun once it has used this much of the cores.
const BEGUN: Duration = Duration::from_secs(3);
const PATIENCE: Duration = Duration::from_secs(120);

/// A real `mfpo_train train` with nice 19; it ends with this.
pub struct Trainer(#[allow(dead_code, reason = "it runs until it is dropped")] Process);

impl Trainer {
    /// [`Trainer::start`] where it `is_wanted`.
    ///
    /// # Errors
    /// When it ends or does not begin.
    pub fn beside(is_wanted: bool, folder: &Path) -> anyhow::Result<Option<Self>> {
        is_wanted.then(|| Self::start(folder)).transpose()
    }

    /// Starts it and waits until it learns.
    ///
    /// # Errors
    /// When it ends or does not begin.
    pub fn start(folder: &Path) -> anyhow::Result<Self> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let mut command = Command::new(program("mfpo_train"));
        command.args(["train", "--task", "HalfCheetah-v5", "--quiet", "--nice", "19"]);
        command
            .args(["--steps", "1000000", "--out"])
            .arg(folder.join("run"));
        for set in [
            &format!("learner.threads={cores}"),
            "run.random_steps=300",
            "evaluation.every=1000000",
            "evaluation.episodes=1",
        ] {
            command.args(["--set", set]);
        }
        let mut process = Process::start("mfpo_train", command, &folder.join("trainer.log"));
        let end = Instant::now() + PATIENCE;
        while process.cpu_time() < BEGUN {
            if process.has_ended().is_some() || Instant::now() > end {
                bail!("the trainer does not train:\n{}", process.log());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(Self(process))
    }

    /// What the figures have to say of it: nice works within a session only where the kernel groups by session.
    pub fn described(is_there: bool) -> String {
        let groups = std::fs::read_to_string("/proc/sys/kernel/sched_autogroup_enabled").unwrap_or_default();
        match (is_there, groups.trim()) {
            (false, _) => "no trainer beside it".into(),
            (true, "1") => {
                "a trainer with nice 19 on every core, in the node's session (sched_autogroup_enabled is 1: \
                            nice would not count across sessions)"
                    .into()
            }
            (true, _) => "a trainer with nice 19 on every core".into(),
        }
    }
}
