//! libmujoco out of its wheel, in a folder of its own with the name that a linker looks for.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::venv::Venv;
use crate::workspace::Workspace;

/// The library's file, as the wheel `mujoco` in requirements/tools.txt holds it.
pub const LIBRARY: &str = "libmujoco.so.3.17.0";

/// The folder with the library.
pub fn folder(workspace: &Workspace) -> PathBuf {
    workspace.deps().join("mujoco/lib")
}

/// Whether the library is there.
pub fn is_current(workspace: &Workspace) -> bool {
    let folder = folder(workspace);
    folder.join(LIBRARY).is_file() && folder.join("libmujoco.so").is_file()
}

/// Copies the library out of `venv`.
pub fn install(workspace: &Workspace, venv: &Venv) -> Result<()> {
    let folder = folder(workspace);
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let source = venv.site_packages()?.join("mujoco").join(LIBRARY);
    let partial = folder.join("partial");
    fs::copy(&source, &partial).with_context(|| format!("cannot copy {}", source.display()))?;
    fs::rename(&partial, folder.join(LIBRARY)).context("cannot place libmujoco")?;
    link(&folder)
}

fn link(folder: &Path) -> Result<()> {
    let link = folder.join("libmujoco.so");
    let _ = fs::remove_file(&link); // one that is not there, or that leads to another version
    symlink(LIBRARY, &link).with_context(|| format!("cannot make {}", link.display()))
}
