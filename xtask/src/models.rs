//! The model files of Gymnasium's and the DeepMind Control Suite's tasks, out of their wheels, in a folder of their own.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::hash::Hash;
use crate::stamp::{self, Stamp};
use crate::venv::Venv;
use crate::workspace::Workspace;

/// Name in our folder, and the folder of the wheel's package that holds the models.
const SUITES: [(&str, &str); 2] = [
    ("gymnasium", "gymnasium/envs/mujoco/assets"),
    ("dm_control", "dm_control/suite"),
];

/// What belongs to a model: MJCF, meshes and pictures.
const KINDS: [&str; 6] = ["xml", "stl", "obj", "msh", "skn", "png"];

/// The folder with a folder for each suite.
pub fn folder(workspace: &Workspace) -> PathBuf {
    workspace.deps().join("models")
}

/// Whether the models of `venv`'s wheels are there.
pub fn is_current(workspace: &Workspace, venv: &Venv) -> bool {
    stamp_of(workspace, venv).is_current()
}

/// Copies the models out of `venv`.
pub fn install(workspace: &Workspace, venv: &Venv) -> Result<()> {
    let stamp = stamp_of(workspace, venv);
    stamp.clear()?;
    let packages = venv.site_packages()?;
    for (suite, source) in SUITES {
        let target = folder(workspace).join(suite);
        stamp::remove_folder(&target)?;
        copy(&packages.join(source), &target)?;
    }
    stamp.set()
}

fn stamp_of(workspace: &Workspace, venv: &Venv) -> Stamp {
    let inputs = Hash::new().feed(venv.requirements()).feed("models 1");
    Stamp::new(folder(workspace).join("models.stamp"), inputs.hex())
}

/// Copies the model files under `source`, folders and all; folders without any are left out.
fn copy(source: &Path, target: &Path) -> Result<()> {
    let entries = fs::read_dir(source).with_context(|| format!("cannot read {}", source.display()))?;
    for entry in entries {
        let path = entry?.path();
        let (Some(name), is_folder) = (path.file_name(), path.is_dir()) else {
            continue;
        };
        if is_folder {
            copy(&path, &target.join(name))?;
        } else if path
            .extension()
            .is_some_and(|kind| KINDS.iter().any(|known| kind.eq_ignore_ascii_case(known)))
        {
            fs::create_dir_all(target).with_context(|| format!("cannot make {}", target.display()))?;
            fs::copy(&path, target.join(name)).with_context(|| format!("cannot copy {}", path.display()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::copy;

    #[test]
    fn models_are_copied_with_their_folders_and_nothing_else() {
        let folder = std::env::temp_dir().join(format!("mfpo-models-{}", std::process::id()));
        let (source, target) = (folder.join("source"), folder.join("target"));
        std::fs::create_dir_all(source.join("common/empty")).unwrap();
        for file in ["ant.xml", "ant.py", "common/skybox.xml", "common/foot.STL"] {
            std::fs::write(source.join(file), file).unwrap();
        }
        copy(&source, &target).unwrap();
        let there = |file: &str| target.join(file).exists();
        assert!(there("ant.xml") && there("common/skybox.xml") && there("common/foot.STL"));
        assert!(!there("ant.py") && !there("common/empty"));
        std::fs::remove_dir_all(folder).unwrap();
    }
}
