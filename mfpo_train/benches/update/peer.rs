//! The JAX program that takes turns, in a process of its own, once it has shown that it computes the same update.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, ensure};
use candle_core::Device;
use mfpo_policy::device::{self, DeviceName};
use serde::Deserialize;

use super::Times;

/// The peer as it is installed.
#[derive(Clone, Copy)]
pub struct Installed<'a> {
    /// Python with what the peer needs.
    pub python: &'a Path,
    /// Where the peer computes: where we do.
    pub device: DeviceName,
}

impl Installed<'_> {
    /// Does it compute the reference's update? Tells the largest deviation.
    ///
    /// # Errors
    /// When it does not, or cannot compute at all.
    pub fn check(self) -> anyhow::Result<String> {
        let golden = repository().join("tests/golden");
        let mut program = self.program("check_update.py");
        program.arg(golden).arg(self.device.to_string());
        let output = program
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()
            .with_context(|| format!("cannot run {}", self.python.display()))?;
        ensure!(
            output.status.success(),
            "the peer is not compared: it has not shown that it computes the same update; what it said is above"
        );
        Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
    }

    fn program(self, name: &str) -> Command {
        let mut command = Command::new(self.python);
        command
            .env_remove("PYTHONPATH")
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .arg(repository().join("benches/peers").join(name));
        command
    }
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

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
    /// `cpu` or `gpu`.
    platform: String,
    /// The GPU's name.
    device: String,
}

impl Hello {
    /// Does it compute where we do? A GPU is known by its name.
    fn check(&self, device: &Device) -> anyhow::Result<()> {
        let ours = device::describe(device);
        let is_cpu = self.platform == "cpu";
        let is_same = is_cpu == device.is_cpu() && (is_cpu || self.device == ours);
        ensure!(
            is_same,
            "the peer computes on {} '{}', we on '{ours}': their times cannot be compared",
            self.platform,
            self.device
        );
        Ok(())
    }
}

#[derive(Deserialize)]
struct Answer {
    wall_ms: Vec<f64>,
    cpu_ms: Vec<f64>,
    losses: Vec<f64>,
}

impl Peer {
    /// Starts the peer for a task's sizes and waits until it is compiled and warm.
    ///
    /// # Errors
    /// When it cannot be run, or computes elsewhere than on `device`.
    pub fn start(
        installed: Installed<'_>,
        device: &Device,
        (observation, action, clipped): (usize, usize, bool),
        threads: usize,
    ) -> anyhow::Result<Self> {
        let sizes = [observation, action, usize::from(clipped), threads];
        let mut child = installed
            .program("update_jax.py")
            .args(sizes.map(|n| n.to_string()))
            .arg(installed.device.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot run {}", installed.python.display()))?;
        let input = child.stdin.take().context("the peer has no input")?;
        let output = BufReader::new(child.stdout.take().context("the peer has no output")?);
        let mut peer = Self {
            child,
            input,
            output,
            name: String::new(),
        };
        let hello: Hello = serde_json::from_str(&peer.line()?)?;
        hello.check(device)?;
        peer.name = format!("jax {} on {}", hello.jax, hello.device);
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
