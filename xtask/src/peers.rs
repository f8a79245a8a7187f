//! The programs that a benchmark is compared with, each in an environment of Python of its own, installed on request.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::hash::Hash;
use crate::process;
use crate::progress::Step;
use crate::python::Python;
use crate::stamp::{self, Stamp};
use crate::venv::clean;
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
    clean(&mut venv).args(["-m", "venv"]).arg(&folder);
    process::run_logged(workspace, "peers-venv", &mut venv, |_| ())?;
    let mut pip = pip(&python, &list);
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

/// Installs what `list` asks for into the environment of `python`, whatever the user has set for pip.
fn pip(python: &Path, list: &Path) -> Command {
    let mut pip = Command::new(python);
    clean(&mut pip)
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
        .arg(list);
    pip
}

fn count(requirements: &str) -> u64 {
    requirements.lines().filter(|line| line.contains("==")).count() as u64
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::fs;
    use std::path::{Path, PathBuf};
    use std::process::Command;

    use super::pip;

    /// Files of benches/peers whose name ends so.
    fn files(extension: &str) -> Vec<PathBuf> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../benches/peers");
        let entries = fs::read_dir(&folder).expect("benches/peers");
        let mut found: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
        found.retain(|path| path.extension().is_some_and(|e| e == extension));
        assert!(!found.is_empty(), "no .{extension} in {}", folder.display());
        found
    }

    #[test]
    fn what_the_user_has_set_for_pip_does_not_reach_the_peers() {
        let pip = pip(Path::new("python3"), Path::new("list.txt"));
        let cleared: Vec<_> = pip
            .get_envs()
            .filter(|(_, value)| value.is_none())
            .map(|(name, _)| name)
            .collect();
        for name in ["PIP_USER", "PIP_TARGET", "PIP_PREFIX", "PYTHONPATH"] {
            assert!(cleared.contains(&OsStr::new(name)), "{name}: {cleared:?}");
        }
    }

    #[test]
    fn every_package_of_a_peer_is_pinned_to_one_version() {
        for path in files("txt") {
            let text = fs::read_to_string(&path).expect("a list");
            let wanted = text.lines().map(str::trim);
            let wanted = wanted.filter(|line| !line.is_empty() && !line.starts_with('#'));
            let loose: Vec<_> = wanted
                .filter(|line| !line.split(';').next().is_some_and(|p| p.contains("==")))
                .collect();
            assert!(loose.is_empty(), "{}: {loose:?}", path.display());
        }
    }

    #[test]
    fn every_program_of_a_peer_compiles() {
        for path in files("py") {
            let source = "import sys; compile(open(sys.argv[1]).read(), sys.argv[1], 'exec')";
            let output = Command::new("python3")
                .args(["-c", source])
                .arg(&path)
                .output()
                .expect("python3");
            let error = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{}: {error}", path.display());
        }
    }
}
