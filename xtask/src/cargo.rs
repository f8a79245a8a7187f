//! Runs cargo in the environment of the set-up, and asks it what the workspace holds.

use std::env;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::environment::Environment;
use crate::workspace::Workspace;

/// Features that are off by default and on in every command of this program.
pub const FEATURES: &str = "mfpo_sim/ros,mfpo_sim/renderer";

/// What every build of the whole workspace is told, so that all share the same artefacts.
pub const WHOLE: [&str; 5] = ["--workspace", "--release", "--locked", "--features", FEATURES];

/// The feature that builds everything for an NVIDIA GPU; those of the node and the trainer only pass it on.
const CUDA: &str = "mfpo_policy/cuda";

/// The words that add CUDA to a build where it is `wanted`.
///
/// # Errors
/// When the set-up has not got it.
pub fn cuda(environment: &Environment, wanted: bool) -> Result<&'static [&'static str]> {
    match (wanted, environment.cuda()) {
        (false, _) => Ok(&[]),
        (true, Some(_)) => Ok(&["--features", CUDA]),
        (true, None) => {
            bail!("--cuda: expected CUDA in the set-up, got none; type: cargo xtask setup --cuda")
        }
    }
}

/// A `cargo` command in the repository, with nothing that an outer cargo or another folder has set.
pub fn command(workspace: &Workspace, environment: &Environment) -> Command {
    let mut command = bare(workspace);
    environment.apply(&mut command);
    command
}

/// [`command`] without a set-up, for what needs none.
pub fn bare(workspace: &Workspace) -> Command {
    let mut command = Command::new(program());
    command.current_dir(workspace.root());
    for (name, _) in env::vars_os().filter(|(name, _)| is_of_outer_cargo(&name.to_string_lossy())) {
        command.env_remove(name);
    }
    command
}

/// The cargo that runs xtask, else the one on PATH.
fn program() -> String {
    env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned())
}

/// Variables that `cargo run` sets for the program that it runs.
fn is_of_outer_cargo(name: &str) -> bool {
    name == "CARGO"
        || name == "OUT_DIR"
        || ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_"]
            .iter()
            .any(|start| name.starts_with(start))
}

/// Runs `command` to its end on this terminal.
pub fn run(mut command: Command) -> Result<()> {
    let line = line(&command);
    run_named(&mut command, &line)
}

/// Runs `command`, which is called `name`, to its end on this terminal.
pub fn run_named(command: &mut Command, name: &str) -> Result<()> {
    eprintln!("$ {name}");
    let status = command
        .stdin(Stdio::null())
        .status()
        .with_context(|| format!("cannot run {name}"))?;
    if !status.success() {
        bail!("failed ({status}): {name}");
    }
    Ok(())
}

/// The command as one would type it.
pub fn line(command: &Command) -> String {
    let words = command.get_args().map(|word| word.to_string_lossy().into_owned());
    let name = PathBuf::from(command.get_program())
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    [name].into_iter().chain(words).collect::<Vec<_>>().join(" ")
}

/// What `cargo metadata` says of this workspace.
pub struct Metadata(Value);

impl Metadata {
    /// Asks cargo.
    pub fn read(workspace: &Workspace) -> Result<Self> {
        let mut command = Command::new(program());
        command
            .args(["metadata", "--no-deps", "--format-version", "1"])
            .current_dir(workspace.root());
        let output = command
            .stderr(Stdio::inherit())
            .output()
            .context("cannot run cargo metadata")?;
        if !output.status.success() {
            bail!("cargo metadata failed ({})", output.status);
        }
        Self::parse(&output.stdout)
    }

    fn parse(text: &[u8]) -> Result<Self> {
        Ok(Self(
            serde_json::from_slice(text).context("cargo metadata printed no JSON")?,
        ))
    }

    /// The folder of a release build's programs.
    pub fn release_folder(&self) -> Result<PathBuf> {
        let target = self.0["target_directory"]
            .as_str()
            .context("cargo metadata names no target directory")?;
        Ok(PathBuf::from(target).join("release"))
    }

    /// Name of every benchmark with its package, by name.
    pub fn benches(&self) -> Vec<(String, String)> {
        let packages = self.0["packages"]
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default();
        let mut benches: Vec<_> = packages.iter().flat_map(benches_of).collect();
        benches.sort();
        benches
    }
}

fn benches_of(package: &Value) -> Vec<(String, String)> {
    let targets = package["targets"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    let is_bench = |target: &&Value| {
        target["kind"]
            .as_array()
            .is_some_and(|kinds| kinds.iter().any(|kind| kind == "bench"))
    };
    let name = |value: &Value| value["name"].as_str().unwrap_or_default().to_owned();
    targets
        .iter()
        .filter(is_bench)
        .map(|target| (name(target), name(package)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{Metadata, is_of_outer_cargo};

    #[test]
    fn benchmarks_are_found_in_every_package() {
        let text = r#"{ "target_directory": "/t", "packages": [
            { "name": "b", "targets": [ { "name": "b", "kind": ["lib"] }, { "name": "tick", "kind": ["bench"] } ] },
            { "name": "a", "targets": [ { "name": "update", "kind": ["bench"] } ] } ] }"#;
        let metadata = Metadata::parse(text.as_bytes()).expect("JSON");
        assert_eq!(
            metadata.benches(),
            [("tick".into(), "b".into()), ("update".into(), "a".into())]
        );
        assert_eq!(
            metadata.release_folder().expect("a folder"),
            std::path::Path::new("/t/release")
        );
    }

    #[test]
    fn user_settings_of_cargo_are_kept() {
        for kept in [
            "CARGO_HOME",
            "CARGO_TARGET_DIR",
            "CARGO_BUILD_JOBS",
            "CARGO_NET_OFFLINE",
        ] {
            assert!(!is_of_outer_cargo(kept), "{kept}");
        }
        assert!(is_of_outer_cargo("CARGO_PKG_NAME"));
    }
}
