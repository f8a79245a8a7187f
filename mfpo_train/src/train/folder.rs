//! The folder of a run: one program writes into it, and it holds one run.

use std::fs::{self, File, TryLockError};
use std::path::Path;

use anyhow::{Context, anyhow, ensure};

use super::sac_policies;
use crate::checkpoint::{Checkpoints, Header};
use crate::config::TrainConfig;
use crate::publish::write_atomically;

/// What a run leaves in its folder, beside the lock.
const PARTS: [&str; 12] = [
    "config.toml",
    "run.json",
    "metrics.jsonl",
    "events.out.tfevents.mfpo",
    "curve.png",
    "bundles",
    "last.safetensors",
    "best.safetensors",
    sac_policies::LAST,
    sac_policies::BEST,
    "films",
    "checkpoints",
];

/// Makes and locks the folder of a new run. Where there is a checkpoint, there is a run; what a run
/// without one has left makes room.
///
/// # Errors
/// When it holds a run, another program trains there, or it cannot be written.
pub(super) fn begin(folder: &Path) -> anyhow::Result<File> {
    fs::create_dir_all(folder).with_context(|| format!("cannot make the run folder {}", folder.display()))?;
    let lock = lock(folder)?;
    ensure!(
        !Checkpoints::new(folder).last().exists(),
        "{} holds a run already; give another --out, or go on with it: --resume {0}",
        folder.display()
    );
    if let Ok(metrics) = fs::metadata(folder.join("metrics.jsonl")) {
        make_room(folder, metrics.len() > 0)?;
    }
    Ok(lock)
}

/// Locks the folder of a run that goes on from the checkpoint of `header`, which was read before.
///
/// # Errors
/// When another program trains there, or did since then: its steps would be lost.
pub(super) fn go_on(folder: &Path, header: &Header) -> anyhow::Result<File> {
    let lock = lock(folder)?;
    ensure!(
        Checkpoints::new(folder).holds(header)?,
        "another program has trained in {} since its checkpoint was read; give the same command again, to go on from the \
         newer one",
        folder.display()
    );
    Ok(lock)
}

/// Replaces what a run without a checkpoint has left; what it has measured is kept beside the new run.
fn make_room(folder: &Path, measured: bool) -> anyhow::Result<()> {
    if !measured {
        tracing::warn!(
            "{} holds a run that ended before its first checkpoint; the run begins anew there",
            folder.display()
        );
        return Ok(());
    }
    let aside = (1_u32..)
        .map(|count| folder.join(format!("before_{count}")))
        .find(|path| !path.exists());
    let aside = aside.context("every name before_1, before_2, ... is taken; give another --out")?;
    let cannot = |path: &Path| format!("cannot move {} to {}", path.display(), aside.display());
    fs::create_dir(&aside).with_context(|| format!("cannot make the folder {}", aside.display()))?;
    for part in PARTS {
        let path = folder.join(part);
        if path.exists() {
            fs::rename(&path, aside.join(part)).with_context(|| cannot(&path))?;
        }
    }
    tracing::warn!(
        "{} holds a run without a checkpoint, from which nothing can go on; the run begins anew there, and \
         what there was lies in {}",
        folder.display(),
        aside.display()
    );
    Ok(())
}

/// Stores the resolved configuration; a full disk leaves the one before, without which nobody could draw the run.
pub(super) fn store_configuration(folder: &Path, config: &TrainConfig) -> anyhow::Result<()> {
    let path = folder.join("config.toml");
    let text = config.to_toml()?;
    write_atomically(&path, text.as_bytes()).with_context(|| format!("cannot write {}", path.display()))
}

/// Keeps other programs out of the run folder; the lock falls with the program, however it ends.
fn lock(folder: &Path) -> anyhow::Result<File> {
    let path = folder.join("lock");
    let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(anyhow!(
            "another program trains in {}; wait for its end, or stop it",
            folder.display()
        )),
        Err(TryLockError::Error(error)) => {
            // Some network file systems have no locks.
            tracing::warn!("cannot lock {}: {error}", path.display());
            Ok(file)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint;
    use crate::recorder::Record;
    use crate::state::State;

    #[test]
    fn a_folder_with_a_checkpoint_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        let last = Checkpoints::new(folder.path()).last();
        fs::create_dir_all(last.parent().unwrap()).unwrap();
        fs::write(&last, "").unwrap();
        let text = begin(folder.path()).unwrap_err().to_string();
        assert!(text.contains("holds a run already; give another --out"), "{text}");
    }

    #[test]
    fn a_run_without_a_checkpoint_makes_room_and_keeps_what_it_measured() {
        let folder = tempfile::tempdir().unwrap();
        let metrics = folder.path().join("metrics.jsonl");
        fs::write(&metrics, "").unwrap();
        drop(begin(folder.path()).unwrap());
        assert!(
            !folder.path().join("before_1").exists(),
            "it had measured nothing"
        );
        for count in 1..3 {
            fs::write(&metrics, "{}\n").unwrap();
            fs::write(folder.path().join("notes.txt"), "mine").unwrap();
            drop(begin(folder.path()).unwrap());
            assert!(!metrics.exists() && folder.path().join("notes.txt").exists());
            let kept = folder.path().join(format!("before_{count}/metrics.jsonl"));
            assert_eq!(fs::read_to_string(kept).unwrap(), "{}\n");
        }
    }

    #[test]
    fn a_run_that_went_on_meanwhile_is_not_taken_back() {
        let folder = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints::new(folder.path());
        let save = |step| {
            let header = Header {
                format: checkpoint::FORMAT,
                program: String::new(),
                run: "run".to_owned(),
                task: "task".to_owned(),
                seed: 3,
                step,
                config: String::new(),
                version: None,
                record: Record::default(),
                digest: String::new(),
            };
            let mut state = State::default();
            state.put("a", vec![1.0_f64]);
            checkpoints.save(header, &state).unwrap();
        };
        save(40);
        let (read, _) = checkpoints.load().unwrap();
        drop(go_on(folder.path(), &read).unwrap());
        save(60);
        let text = go_on(folder.path(), &read).unwrap_err().to_string();
        assert!(text.contains("since its checkpoint was read"), "{text}");
    }

    #[test]
    fn two_programs_do_not_begin_in_one_folder() {
        let folder = tempfile::tempdir().unwrap();
        let _lock = begin(folder.path()).unwrap();
        let text = begin(folder.path()).unwrap_err().to_string();
        assert!(text.contains("another program trains in"), "{text}");
    }
}
