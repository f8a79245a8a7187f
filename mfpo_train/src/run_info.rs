//! `run.json`: what a run folder is the run of.

use std::fs;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context;
use serde::{Deserialize, Serialize};

use crate::algorithm::AlgorithmKind;
use crate::publish::write_atomically;

const FILE: &str = "run.json";

/// What was run, with what.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunInfo {
    /// Unique name of the run.
    pub run: String,
    /// Name of the task.
    pub task: String,
    /// Who learns.
    pub algorithm: AlgorithmKind,
    /// Everything random follows from it.
    pub seed: u64,
    /// Version of the program.
    pub program: String,
    /// Git revision that the program was built from; `unknown` outside a clone.
    pub revision: String,
    /// Start, seconds since 1970.
    pub started: u64,
}

impl RunInfo {
    /// A run that starts now.
    pub fn new(run: &str, task: &str, algorithm: AlgorithmKind, seed: u64) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        Self {
            run: run.to_owned(),
            task: task.to_owned(),
            algorithm,
            seed,
            program: env!("CARGO_PKG_VERSION").to_owned(),
            revision: env!("MFPO_REVISION").to_owned(),
            started: now.map_or(0, |elapsed| elapsed.as_secs()),
        }
    }

    /// Writes `run.json`.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn store(&self, folder: &Path) -> anyhow::Result<()> {
        let path = folder.join(FILE);
        let text = serde_json::to_string_pretty(self)? + "\n";
        write_atomically(&path, text.as_bytes()).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Reads `run.json`.
    ///
    /// # Errors
    /// When the folder is none of a run.
    pub fn read(folder: &Path) -> anyhow::Result<Self> {
        let path = folder.join(FILE);
        let text = fs::read_to_string(&path).with_context(|| {
            format!(
                "cannot read {}: expected the folder of a run, which `train --out` leaves",
                path.display()
            )
        })?;
        serde_json::from_str(&text).with_context(|| format!("{} is not what a run writes", path.display()))
    }
}
