//! The original, in a process of its own.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use mfpo_sim::physics::mujoco_version;
use mfpo_sim::{FullState, TaskOptions};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// What to drive: a random start of the original's own, then actions that it draws.
#[derive(Serialize)]
pub struct Request<'a> {
    pub task: &'a str,
    pub seed: u64,
    pub steps: usize,
    /// Before which step the state is told as well.
    pub middle: Option<usize>,
    pub options: &'a TaskOptions,
}

/// Random starts of the original's own.
#[derive(Serialize)]
struct StartsRequest<'a> {
    task: &'a str,
    starts: usize,
}

#[derive(Deserialize)]
struct Starts {
    starts: Vec<Vec<f64>>,
}

/// Which of the original's options would be at their defaults under these.
#[derive(Serialize)]
struct KeptRequest<'a> {
    task: &'a str,
    kept: &'a TaskOptions,
}

#[derive(Deserialize)]
struct Kept {
    kept: Vec<String>,
}

/// What the original says first, beside its own version.
#[derive(Deserialize)]
struct Versions {
    mujoco: String,
}

/// What came of it.
#[derive(Deserialize)]
pub struct Trajectory {
    pub start: FullState,
    /// The state in the middle of the episode, where it was asked for.
    pub middle: Option<FullState>,
    pub actions: Vec<Vec<f64>>,
    /// The reset's first.
    pub observations: Vec<Vec<f64>>,
    pub rewards: Vec<f64>,
    pub terminated: Vec<bool>,
    pub truncated: Vec<bool>,
    /// How many contacts there are after each step.
    pub contacts: Vec<usize>,
    /// The state after the last step.
    pub end: FullState,
}

/// A Python program that answers every line.
pub struct Reference {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    versions: String,
}

impl Reference {
    /// Starts `script` of `tests/python` with the Python of the set-up, which holds the originals over the same version of
    /// MuJoCo as ours.
    pub fn start(script: &str) -> Self {
        let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let python = ["venv", "tools"].map(|venv| repository.join(".deps").join(venv).join("bin/python3"));
        let python = python.into_iter().find(|python| python.exists());
        let python = python.expect("the Python of the set-up is there: cargo xtask setup");
        let mut child = Command::new(python)
            .arg(
                Path::new(env!("CARGO_MANIFEST_DIR"))
                    .join("tests/python")
                    .join(script),
            )
            // Python's MuJoCo leaves a log in the current folder.
            .current_dir(std::env::temp_dir())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut reference = Self {
            child,
            input,
            output,
            versions: String::new(),
        };
        reference.versions = reference.line();
        let theirs: Versions = serde_json::from_str(&reference.versions).unwrap();
        assert_eq!(
            theirs.mujoco,
            mujoco_version(),
            "the original runs on another version of MuJoCo (left) than what we link (right), so that its numbers are no \
             measure of ours: another version may step otherwise, and 1e-9 holds within one alone. `cargo xtask setup` \
             installs the one that mujoco-rs is made for"
        );
        reference
    }

    /// The versions that are compared with.
    pub fn versions(&self) -> &str {
        self.versions.trim()
    }

    /// Drives a task.
    pub fn drive(&mut self, request: &Request<'_>) -> Trajectory {
        self.ask(request)
    }

    /// Random starts of a task: positions, velocities, and what the task keeps in the model.
    pub fn starts(&mut self, task: &str, count: usize) -> Vec<Vec<f64>> {
        let answer: Starts = self.ask(&StartsRequest { task, starts: count });
        answer.starts
    }

    /// Names of a task's options that would be at the original's defaults under `options`.
    pub fn kept(&mut self, task: &str, options: &TaskOptions) -> Vec<String> {
        let answer: Kept = self.ask(&KeptRequest { task, kept: options });
        answer.kept
    }

    fn ask<T: DeserializeOwned>(&mut self, request: &impl Serialize) -> T {
        writeln!(self.input, "{}", serde_json::to_string(request).unwrap()).unwrap();
        let line = self.line();
        serde_json::from_str(&line).unwrap()
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        assert!(!line.is_empty(), "the original ended; what it said is above");
        line
    }
}

impl Drop for Reference {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
