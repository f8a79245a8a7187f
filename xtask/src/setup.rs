//! The set-up: each step is done once, and again only when its inputs have changed.
//!
//! system packages -> wheels (ROS 2 and tools, or tools alone) -> libmujoco and models -> mfpo_msgs -> CUDA, where it is
//! asked for -> setup.bash

use std::env;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::cuda::{self, Cuda};
use crate::environment::{Environment, Folders};
use crate::messages::Overlay;
use crate::models;
use crate::mujoco;
use crate::ros::Ros;
use crate::system;
use crate::venv::Venv;
use crate::workspace::Workspace;

/// Brings all that is missing into .deps and gives the environment to build and run with.
pub fn run(workspace: &Workspace) -> Result<Environment> {
    run_with(workspace, &cuda::Args::default())
}

/// [`run`], with CUDA where `args` ask for it.
pub fn run_with(workspace: &Workspace, args: &cuda::Args) -> Result<Environment> {
    let ros = Ros::of_shell(workspace.root())?;
    ros.require_for(env::consts::ARCH)?;
    workspace.lock()?;
    let venv = Venv::new(workspace, &ros);
    let overlay = Overlay::new(workspace, &ros)?;
    if !is_complete(workspace, &venv, &overlay) {
        work(workspace, &ros, &venv, &overlay)?;
    }
    cuda::install(workspace, &venv, args)?;
    cuda::warn_if_gone(workspace);
    let environment = environment(workspace, &ros, &venv, Some(&overlay))?;
    environment.write()?;
    workspace.unlock();
    Ok(environment)
}

/// The environment of an earlier set-up, if all of it is there.
pub fn found(workspace: &Workspace, ros: &Ros) -> Option<Environment> {
    let venv = Venv::new(workspace, ros);
    let overlay = Overlay::new(workspace, ros).ok()?;
    is_complete(workspace, &venv, &overlay)
        .then(|| environment(workspace, ros, &venv, Some(&overlay)).ok())?
}

fn is_complete(workspace: &Workspace, venv: &Venv, overlay: &Overlay) -> bool {
    let wheels = venv.is_current() && mujoco::is_current(workspace) && models::is_current(workspace, venv);
    wheels && overlay.is_current(venv)
}

fn work(workspace: &Workspace, ros: &Ros, venv: &Venv, overlay: &Overlay) -> Result<()> {
    system::require(workspace, ros)?;
    if !venv.is_current() {
        venv.install(workspace)?;
        mujoco::install(workspace, venv)?;
    }
    if !mujoco::is_current(workspace) {
        mujoco::install(workspace, venv)?;
    }
    if !models::is_current(workspace, venv) {
        models::install(workspace, venv)?;
    }
    if !overlay.is_current(venv) {
        overlay.build(workspace, &environment(workspace, ros, venv, None)?)?;
    }
    Ok(())
}

fn environment(
    workspace: &Workspace,
    ros: &Ros,
    venv: &Venv,
    overlay: Option<&Overlay>,
) -> Result<Environment> {
    let site_packages = venv.site_packages()?;
    let compiler_headers = system::compiler_headers();
    let cuda = Cuda::found(workspace);
    let folders = Folders {
        deps: &workspace.deps(),
        venv: venv.folder(),
        site_packages: &site_packages,
        wheel_libraries: &wheel_libraries(&site_packages)?,
        overlay: overlay.map(Overlay::prefix),
        mujoco: &mujoco::folder(workspace),
        models: &models::folder(workspace),
        compiler_headers: compiler_headers.as_deref(),
        cuda: cuda.as_ref(),
    };
    Ok(Environment::new(ros, &folders))
}

/// The folders `ros_*.libs`, by name.
fn wheel_libraries(site_packages: &std::path::Path) -> Result<Vec<PathBuf>> {
    let entries =
        fs::read_dir(site_packages).with_context(|| format!("cannot read {}", site_packages.display()))?;
    let is_ros = |name: &str| name.starts_with("ros_") && name.ends_with(".libs");
    let mut folders: Vec<_> = entries
        .flatten()
        .filter(|entry| is_ros(&entry.file_name().to_string_lossy()))
        .map(|entry| entry.path())
        .collect();
    folders.sort();
    Ok(folders)
}
