//! Package mfpo_msgs, built for the ROS 2 that is used, in a prefix of its own.
//!
//! r2r makes its Rust types anew only when the environment changes. The prefix therefore carries a hash of the
//! message and service files in its name: other messages, another AMENT_PREFIX_PATH, and the types follow.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::environment::Environment;
use crate::hash::Hash;
use crate::process;
use crate::progress::Step;
use crate::ros::Ros;
use crate::stamp::{self, Stamp};
use crate::venv::Venv;
use crate::workspace::Workspace;

/// The prefix that mfpo_msgs is installed into.
pub struct Overlay {
    prefix: PathBuf,
    stamp: Stamp,
}

impl Overlay {
    /// The prefix for the message files as they are now, on top of `ros`.
    pub fn new(workspace: &Workspace, ros: &Ros) -> Result<Self> {
        let sources = workspace.messages();
        let interfaces = [
            files(&sources.join("msg"), "msg")?,
            files(&sources.join("srv"), "srv")?,
        ]
        .concat();
        let types = feed_files(feed_base(Hash::new(), ros), &interfaces)?;
        let name = format!("{}-{}", ros.distro(), types.hex());
        let package = [sources.join("CMakeLists.txt"), sources.join("package.xml")];
        let prefix = workspace.deps().join("overlay").join(name);
        let inputs = feed_files(types, &package)?.feed(prefix.to_string_lossy().as_bytes());
        let stamp = Stamp::new(prefix.join("mfpo.stamp"), inputs.hex());
        Ok(Self { prefix, stamp })
    }

    /// Its folder.
    pub fn prefix(&self) -> &Path {
        &self.prefix
    }

    /// Whether the messages are built, for the Python that `venv` has where it holds ROS 2.
    pub fn is_current(&self, venv: &Venv) -> bool {
        let fits = || match venv.python_packages() {
            Some(packages) => self.prefix.join(packages).is_dir(),
            None => true,
        };
        self.stamp.is_current() && fits()
    }

    /// Builds and installs the messages, in the environment without themselves.
    pub fn build(&self, workspace: &Workspace, environment: &Environment) -> Result<()> {
        let step = Step::begin("Building the messages", 0);
        self.stamp.clear()?;
        stamp::remove_folder(&self.prefix)?;
        let build = workspace.deps().join("build/mfpo_msgs");
        stamp::remove_folder(&build)?;
        let run = |arguments: &[&str]| {
            let mut command = Command::new("cmake");
            environment.apply(&mut command);
            process::run_logged(workspace, "mfpo_msgs", command.args(arguments), |line| {
                step.say(line)
            })
            .context("could not build the messages")
        };
        let sources = workspace.messages();
        let [source, build_text, prefix] =
            [&sources, &build, &self.prefix].map(|path| path.to_string_lossy());
        let install = format!("-DCMAKE_INSTALL_PREFIX={prefix}");
        run(&[
            "-S",
            &source,
            "-B",
            &build_text,
            "-DCMAKE_BUILD_TYPE=Release",
            "-DBUILD_TESTING=OFF",
            &install,
        ])?;
        run(&["--build", &build_text, "--target", "install", "--parallel"])?;
        stamp::remove_folder(&build)?;
        self.stamp.set()?;
        step.done();
        Ok(())
    }
}

fn feed_base(hash: Hash, ros: &Ros) -> Hash {
    match ros {
        Ros::Wheels => hash.feed("venv\n"),
        Ros::Sourced { prefixes, .. } => prefixes.iter().fold(hash, |hash, prefix| {
            hash.feed(prefix.to_string_lossy().as_bytes()).feed("\n")
        }),
    }
}

fn feed_files(mut hash: Hash, files: &[PathBuf]) -> Result<Hash> {
    for file in files {
        let name = file
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let text = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
        hash = hash.feed(name).feed([0]).feed(text).feed([0]);
    }
    Ok(hash)
}

/// The message or service files of a folder, by name; none where the folder is missing.
fn files(folder: &Path, ending: &str) -> Result<Vec<PathBuf>> {
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut files: Vec<_> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|end| end == ending))
        .collect();
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::Overlay;
    use crate::ros::Ros;
    use crate::workspace::Workspace;

    fn clone_with(folder: &Path, message: &str) -> Workspace {
        fs::create_dir_all(folder.join("msg/msg")).expect("a folder");
        fs::write(folder.join("msg/package.xml"), "<package/>").expect("a file");
        fs::write(folder.join("msg/CMakeLists.txt"), "project(x)").expect("a file");
        fs::write(folder.join("msg/msg/A.msg"), message).expect("a file");
        Workspace::at(folder).expect("a workspace")
    }

    #[test]
    fn other_messages_or_another_ros_give_another_prefix_and_other_build_files_do_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let workspace = clone_with(folder.path(), "uint8 a");
        let prefix = |ros: &Ros| {
            Overlay::new(&workspace, ros)
                .expect("an overlay")
                .prefix()
                .to_owned()
        };
        let first = prefix(&Ros::Wheels);
        fs::write(folder.path().join("msg/CMakeLists.txt"), "project(y)").expect("a file");
        assert_eq!(first, prefix(&Ros::Wheels));
        let sourced = Ros::Sourced {
            distro: "kilted".into(),
            prefixes: vec!["/opt/ros/kilted".into()],
        };
        assert_ne!(first, prefix(&sourced));
        fs::create_dir_all(folder.path().join("msg/srv")).expect("a folder");
        fs::write(folder.path().join("msg/srv/B.srv"), "---\nuint8 b").expect("a file");
        let with_service = prefix(&Ros::Wheels);
        assert_ne!(first, with_service);
        clone_with(folder.path(), "uint16 a");
        assert_ne!(with_service, prefix(&Ros::Wheels));
    }
}
