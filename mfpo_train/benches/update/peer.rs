//! The JAX program that takes turns, in a process of its own.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, ensure};
use serde::Deserialize;

use super::Times;

/// The running peer.
pub struct Peer {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    name: String,
}

#[derive(Deserialize)]
struct Hello {
    jax: String,
}

#[derive(Deserialize)]
struct Answer {
    wall_ms: Vec<f64>,
    cpu_ms: Vec<f64>,
    losses: Vec<f64>,
}

impl Peer {
    /// Starts the peer for a task's sizes and waits until it is compiled and warm.
    pub fn start(
        python: &Path,
        (observation, action, clipped): (usize, usize, bool),
        threads: usize,
    ) -> anyhow::Result<Self> {
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("../benches/peers/update_jax.py");
        let sizes = [observation, action, usize::from(clipped), threads];
        let mut child = Command::new(python)
            .env_remove("PYTHONPATH")
            .arg(program)
            .args(sizes.map(|n| n.to_string()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot run {}", python.display()))?;
        let input = child.stdin.take().context("the peer has no input")?;
        let output = BufReader::new(child.stdout.take().context("the peer has no output")?);
        let mut peer = Self {
            child,
            input,
            output,
            name: String::new(),
        };
        let hello: Hello = serde_json::from_str(&peer.line()?)?;
        peer.name = format!("jax {}", hello.jax);
        Ok(peer)
    }

    /// What it is.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Lets it do `count` updates.
    pub fn updates(&mut self, count: u32, times: &mut Times) -> anyhow::Result<()> {
        writeln!(self.input, "{count}").context("the peer ended")?;
        let answer: Answer = serde_json::from_str(&self.line()?)?;
        ensure!(
            answer.losses.iter().all(|loss| loss.is_finite()),
            "the peer's losses are no longer finite"
        );
        times.wall.extend(answer.wall_ms);
        times.cpu.extend(answer.cpu_ms);
        Ok(())
    }

    fn line(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        ensure!(!line.is_empty(), "the peer ended; what it said is above");
        Ok(line)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
