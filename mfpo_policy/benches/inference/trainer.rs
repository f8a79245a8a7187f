//! The trainer, at work in a process of its own while actions are timed.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A training of HalfCheetah on all cores, until it is dropped.
pub struct Trainer {
    child: Child,
    folder: PathBuf,
}

impl Trainer {
    /// Starts `mfpo_train`, which `cargo xtask bench` builds beside this program, and waits for its first updates.
    pub fn start() -> Result<Self, String> {
        let here = std::env::current_exe().map_err(|error| error.to_string())?;
        let program = here.parent().and_then(|deps| deps.parent());
        let program = program.map(|release| release.join("mfpo_train"));
        let program = program.filter(|path| path.is_file());
        let program = program.ok_or("mfpo_train is not built; run `cargo xtask bench inference`")?;
        let folder = std::env::temp_dir().join(format!("mfpo-inference-{}", std::process::id()));
        let child = Command::new(program)
            .args(["train", "--task", "HalfCheetah-v5", "--quiet", "--nice", "10"])
            .args(["--set", "run.random_steps=300", "--set", "run.report_every=1"])
            .args(["--set", "evaluation.episodes=1", "--out"])
            .arg(&folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("mfpo_train does not start: {error}"))?;
        let mut trainer = Self { child, folder };
        trainer.wait_for_updates()?;
        Ok(trainer)
    }

    fn wait_for_updates(&mut self) -> Result<(), String> {
        let patience = Instant::now() + Duration::from_secs(60);
        while Instant::now() < patience {
            let metrics = std::fs::read_to_string(self.folder.join("metrics.jsonl"));
            if metrics.is_ok_and(|text| text.contains("\"kind\":\"update\"")) {
                return Ok(());
            }
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(format!(
                    "mfpo_train has ended ({status}); run it by hand to see why"
                ));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Err("mfpo_train made no update within a minute".to_owned())
    }
}

impl Drop for Trainer {
    fn drop(&mut self) {
        // Neither can fail in a way that matters: the child is ours, and the folder is temporary.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
