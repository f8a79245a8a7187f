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
use crate::venv;
use crate::workspace::Workspace;

/// Ends the name of a list for NVIDIA GPUs.
pub const ON_GPU: &str = "_cuda";

/// The name of the list in `folder` with what the peers of the benchmark `name` need: where a GPU is asked for the one for
/// it, if there is one.
pub fn list(folder: &Path, name: &str, cuda: bool) -> String {
    let on_gpu = format!("{name}{ON_GPU}");
    if cuda && folder.join(format!("{on_gpu}.txt")).is_file() {
        on_gpu
    } else {
        name.to_owned()
    }
}

/// The Python that runs the peers of the list `name`; installs what `benches/peers/NAME.txt` asks for where it is
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
        venv::count(&requirements),
    );
    let base = Python::find(workspace).map_err(|error| anyhow::anyhow!("{error}"))?;
    let mut make = Command::new(&base.program);
    venv::clean(&mut make).args(["-m", "venv"]).arg(&folder);
    process::run_logged(workspace, "peers-venv", &mut make, |_| ())?;
    let mut pip = venv::pip(&python, &list);
    process::run_logged(workspace, "peers-pip", &mut pip, |line| venv::show(&step, line)).context(
        "pip could not install the peers; is the network there? Without --peers the benchmark runs alone",
    )?;
    step.done();
    stamp.set()?;
    workspace.unlock();
    Ok(python)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};
    use std::process::Command;

    use super::list;

    #[test]
    fn on_a_gpu_the_peers_are_those_for_it_where_there_are_any() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../benches/peers");
        assert_eq!(list(&folder, "update", true), "update_cuda");
        assert_eq!(list(&folder, "update", false), "update");
        assert_eq!(list(&folder, "sim", true), "sim", "none for a GPU");
    }

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
