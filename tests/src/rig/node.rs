//! A `control` process under test, and what the kernel tells of it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use nix::sys::signal::Signal;

use crate::{Process, program};

/// How a node is started.
#[derive(Debug, Clone)]
pub struct NodeOptions {
    /// Its namespace.
    pub namespace: String,
    /// `fixed_rate` or `on_state`.
    pub trigger: &'static str,
    /// SCHED_FIFO priority of the control thread; 0 is none.
    pub realtime_priority: u64,
    /// More parameters, as `name:=value`.
    pub parameters: Vec<String>,
}

/// Parameters with which a new policy acts at once.
pub fn without_stages() -> Vec<String> {
    let stages = ["swap.shadow", "swap.blend", "swap.probation", "fade_in"];
    stages.map(|stage| format!("{stage}:=0.0")).into()
}

/// A running node; it ends with this.
pub struct Node {
    process: Process,
    pid: u32,
}

impl Node {
    /// Starts it with a bundle; its log goes into `folder`.
    ///
    /// # Errors
    /// When the bundle cannot be written.
    pub fn start(folder: &Path, bundle: &[u8], options: &NodeOptions) -> anyhow::Result<Self> {
        let name = options.namespace.replace('/', "");
        let policy = folder.join(format!("{name}.safetensors"));
        std::fs::write(&policy, bundle).context("writing the bundle")?;
        let mut command = Command::new(program("control"));
        command.args(["--ros-args", "-r", &format!("__ns:={}", options.namespace)]);
        command.args(["-p", &format!("policy:={}", policy.display())]);
        command.args(["-p", &format!("trigger:={}", options.trigger)]);
        command.args(["-p", &format!("realtime_priority:={}", options.realtime_priority)]);
        for parameter in &options.parameters {
            command.args(["-p", parameter]);
        }
        if std::env::var_os("RUST_LOG").is_none() {
            command.env("RUST_LOG", "warn");
        }
        let process = Process::start(&name, command, &folder.join(format!("{name}.log")));
        let pid = process.id();
        Ok(Self { process, pid })
    }

    /// Asks it to end, and waits until it has: what it recorded is then complete.
    ///
    /// # Errors
    /// When it ends otherwise than it should.
    pub fn end(mut self) -> anyhow::Result<()> {
        self.process.signal(Signal::SIGTERM);
        let status = self.process.ended();
        ensure!(
            status.success(),
            "the node ended with {status}; expected success:\n{}",
            self.log()
        );
        Ok(())
    }

    /// The time that cores have spent on it.
    pub fn cpu_time(&self) -> Duration {
        self.process.cpu_time()
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Its resident memory, bytes.
    pub fn resident(&self) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
        1024.0 * kilobytes.unwrap_or(f64::NAN)
    }

    /// The control thread's schedstat: time on a core, time it waited for one, in ns, and time slices.
    pub fn control_thread_schedstat(&self) -> Option<PathBuf> {
        self.process.schedstat("control_loop")
    }
}
