//! A virtual environment of Python with pinned wheels, made whole or made anew.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::hash::Hash;
use crate::process;
use crate::progress::Step;
use crate::python::Python;
use crate::repair;
use crate::ros::Ros;
use crate::stamp::{self, Stamp};
use crate::workspace::Workspace;

/// ROS 2 and its build tools.
const ROS: &str = include_str!("../requirements/ros.txt");
/// What is needed beside any ROS 2.
const TOOLS: &str = include_str!("../requirements/tools.txt");

/// An environment that may or may not be installed yet.
pub struct Venv {
    folder: PathBuf,
    requirements: String,
    holds_ros: bool,
}

impl Venv {
    /// The one that goes with `ros`: with the wheels of ROS 2, or with the tools alone.
    pub fn new(workspace: &Workspace, ros: &Ros) -> Self {
        let holds_ros = *ros == Ros::Wheels;
        let name = if holds_ros { "venv" } else { "tools" };
        let requirements = if holds_ros {
            format!("{ROS}{TOOLS}")
        } else {
            TOOLS.to_owned()
        };
        Self {
            folder: workspace.deps().join(name),
            requirements,
            holds_ros,
        }
    }

    /// Its folder, which is the ROS 2 prefix where it holds ROS 2.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What is installed in it.
    pub fn requirements(&self) -> &str {
        &self.requirements
    }

    /// Its program `name`.
    pub fn program(&self, name: &str) -> PathBuf {
        self.folder.join("bin").join(name)
    }

    /// Whether all is installed, and still belongs to this folder and to a Python that is there.
    pub fn is_current(&self) -> bool {
        self.stamp().is_current() && self.program("python3").exists()
    }

    /// The folder of its Python packages.
    pub fn site_packages(&self) -> Result<PathBuf> {
        let lib = self.folder.join("lib");
        let entries = fs::read_dir(&lib).with_context(|| format!("cannot read {}", lib.display()))?;
        entries
            .filter_map(|entry| Some(entry.ok()?.path().join("site-packages")))
            .find(|path| path.is_dir())
            .with_context(|| format!("no site-packages in {}", lib.display()))
    }

    /// Where packages of this Python go in a prefix that builds on this one, as `lib/python3.11/site-packages`;
    /// `None` where this one holds no ROS 2.
    pub fn python_packages(&self) -> Option<PathBuf> {
        let folder = self.site_packages().ok().filter(|_| self.holds_ros)?;
        Some(folder.strip_prefix(&self.folder).ok()?.to_owned())
    }

    /// Installs all, anew if an earlier try was not finished.
    pub fn install(&self, workspace: &Workspace) -> Result<()> {
        let stamp = self.stamp();
        stamp.clear()?;
        stamp::remove_folder(&self.folder)?;
        let python = Python::find(workspace).map_err(|error| anyhow::anyhow!("{error}"))?;
        self.create(workspace, &python)?;
        self.download(workspace)?;
        if self.holds_ros {
            let step = Step::begin("Repairing the ROS 2 prefix", 0);
            repair::run(self, workspace)?;
            step.done();
        }
        stamp.set()
    }

    fn stamp(&self) -> Stamp {
        let inputs = Hash::new()
            .feed(&self.requirements)
            .feed(repair::VERSION)
            .feed(self.folder.to_string_lossy().as_bytes());
        Stamp::new(self.folder.join("mfpo.stamp"), inputs.hex())
    }

    fn create(&self, workspace: &Workspace, python: &Python) -> Result<()> {
        let (major, minor) = python.version;
        let step = Step::begin(format!("Making an environment of Python {major}.{minor}"), 0);
        let mut command = Command::new(&python.program);
        clean(&mut command).args(["-m", "venv"]).arg(&self.folder);
        process::run_logged(workspace, "venv", &mut command, |_| ())?;
        step.done();
        Ok(())
    }

    fn download(&self, workspace: &Workspace) -> Result<()> {
        let what = if self.holds_ros {
            "ROS 2 Kilted, MuJoCo and tools"
        } else {
            "MuJoCo and tools"
        };
        let step = Step::begin(format!("Downloading {what}"), count(&self.requirements));
        let list = self.folder.join("requirements.txt");
        fs::write(&list, &self.requirements).with_context(|| format!("cannot write {}", list.display()))?;
        let mut command = pip(&self.program("python3"), &list);
        process::run_logged(workspace, "pip", &mut command, |line| show(&step, line)).context(
            "pip could not install the wheels; is the network there, and 1 GB free? (A mirror is set with PIP_INDEX_URL, \
             a folder of wheels with PIP_FIND_LINKS.) The set-up goes on where it stopped when it is run again",
        )?;
        step.done();
        Ok(())
    }
}

/// What a user may have set that would send packages elsewhere, install none of them, or others than the list names. What
/// says whence they come, and through what (PIP_INDEX_URL, PIP_FIND_LINKS, PIP_CERT, PIP_PROXY, pip.conf), stays in force.
const NOT_OURS: [&str; 15] = [
    "PYTHONPATH",
    "PYTHONHOME",
    "PIP_USER",
    "PIP_TARGET",
    "PIP_PREFIX",
    "PIP_ROOT",
    "PIP_PYTHON",
    "PIP_DRY_RUN",
    "PIP_REQUIRE_VIRTUALENV",
    "PIP_REQUIRE_HASHES",
    "PIP_REQUIREMENT",
    "PIP_CONSTRAINT",
    "PIP_EDITABLE",
    "PIP_PLATFORM",
    "PIP_PYTHON_VERSION",
];

/// The user's own Python settings do not reach into the environment.
pub fn clean(command: &mut Command) -> &mut Command {
    for name in NOT_OURS {
        command.env_remove(name);
    }
    command
}

/// The pip of `python`, a program of a virtual environment: installs exactly what `list` names, into that environment
/// where the caller adds no `--target`.
pub fn pip(python: &Path, list: &Path) -> Command {
    let mut pip = Command::new(python);
    clean(&mut pip)
        // `--no-user` is for a pip.conf that says `user`.
        .args(["-m", "pip", "install", "--no-deps", "--no-input", "--no-user"])
        .args(["--progress-bar", "off", "--disable-pip-version-check", "-r"])
        .arg(list);
    pip
}

/// Shows which package pip is at.
pub fn show(step: &Step, line: &str) {
    if let Some(package) = line.strip_prefix("Collecting ") {
        step.advance(package.split(' ').next().unwrap_or_default());
    } else if line.starts_with("Installing collected") {
        step.say("installing");
    }
}

/// Packages in a list of requirements.
pub fn count(requirements: &str) -> u64 {
    requirements
        .lines()
        .filter(|line| line.contains("==") && !line.contains("< \"3.11\""))
        .count() as u64
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::path::Path;

    use super::{ROS, TOOLS, pip};

    #[test]
    fn where_packages_go_is_not_the_users_to_say_and_whence_they_come_is() {
        let pip = pip(Path::new("python3"), Path::new("list.txt"));
        let changed: Vec<_> = pip.get_envs().collect();
        for name in [
            "PIP_USER",
            "PIP_TARGET",
            "PIP_PREFIX",
            "PIP_REQUIRE_VIRTUALENV",
            "PYTHONPATH",
        ] {
            assert!(changed.contains(&(OsStr::new(name), None)), "{name}: {changed:?}");
        }
        for name in [
            "PIP_INDEX_URL",
            "PIP_EXTRA_INDEX_URL",
            "PIP_FIND_LINKS",
            "PIP_CERT",
            "PIP_PROXY",
            "PIP_CONFIG_FILE",
        ] {
            let is_changed = changed.iter().any(|(changed, _)| *changed == OsStr::new(name));
            assert!(!is_changed, "{name}: {changed:?}");
        }
    }

    #[test]
    fn every_requirement_is_pinned_to_one_version() {
        for line in ROS
            .lines()
            .chain(TOOLS.lines())
            .filter(|line| !line.starts_with('#'))
        {
            let requirement = line.split(';').next().expect("a first part").trim();
            let (name, version) = requirement
                .split_once("==")
                .unwrap_or_else(|| panic!("not pinned: {line}"));
            assert!(
                !name.is_empty() && !version.is_empty() && !version.contains('*'),
                "not pinned: {line}"
            );
        }
    }

    #[test]
    fn mujoco_is_the_version_that_mujoco_rs_links() {
        let lock = include_str!("../../Cargo.lock");
        let package = lock
            .split("name = \"mujoco-rs\"")
            .nth(1)
            .expect("mujoco-rs is a dependency");
        let version = package.split('"').nth(1).expect("a version");
        let library = version.split("+mj-").nth(1).expect("the version of the library");
        assert!(
            TOOLS.contains(&format!("mujoco=={library}\n")),
            "mujoco-rs {version} wants another library"
        );
    }
}
