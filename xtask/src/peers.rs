//! The programs that a benchmark is compared with, each in an environment of Python of its own, installed on request.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::hash::Hash;
use crate::process;
use crate::progress::Step;
use crate::python::Python;
use crate::stamp::{self, Stamp};
use crate::workspace::Workspace;

/// The Python that runs the peers of the benchmark `name`; installs what `benches/peers/NAME.txt` asks for where it is
/// not there yet.
pub fn install(workspace: &Workspace, name: &str) -> Result<PathBuf> {
    let list = workspace.root().join("benches/peers").join(format!("{name}.txt"));
    if !list.is_file() {
        bail!("bench {name} has no peers: there is no {}", list.display());
    }
    let requirements =
        fs::read_to_string(&list).with_context(|| format!("cannot read {}", list.display()))?;
    let folder = workspace.deps().join("peers").join(name);
    let python = folder.join("bin/python3");
    let inputs = Hash::new()
        .feed(&requirements)
        .feed(folder.to_string_lossy().as_bytes());
    let stamp = Stamp::new(folder.join("mfpo.stamp"), inputs.hex());
    if stamp.is_current() && python.exists() {
        return Ok(python);
    }
    workspace.lock()?;
    stamp.clear()?;
    stamp::remove_folder(&folder)?;
    let step = Step::begin(
        format!("Installing the peers of bench {name}"),
        count(&requirements),
    );
    let base = Python::find(workspace).map_err(|error| anyhow::anyhow!("{error}"))?;
    let mut venv = Command::new(&base.program);
    venv.env_remove("PYTHONPATH").args(["-m", "venv"]).arg(&folder);
    process::run_logged(workspace, "peers-venv", &mut venv, |_| ())?;
    let mut pip = Command::new(&python);
    pip.env_remove("PYTHONPATH")
        .args([
            "-m",
            "pip",
            "install",
            "--no-deps",
            "--no-input",
            "--progress-bar",
            "off",
            "-r",
        ])
        .arg(&list);
    let collected = |line: &str| {
        if let Some(package) = line.strip_prefix("Collecting ") {
            step.advance(package.split(' ').next().unwrap_or_default());
        }
    };
    process::run_logged(workspace, "peers-pip", &mut pip, collected).context(
        "pip could not install the peers; is the network there? Without --peers the benchmark runs alone",
    )?;
    step.done();
    stamp.set()?;
    workspace.unlock();
    Ok(python)
}

fn count(requirements: &str) -> u64 {
    requirements.lines().filter(|line| line.contains("==")).count() as u64
}
