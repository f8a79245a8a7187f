//! `cargo xtask test --aarch64`: the tests of mfpo_policy compiled for 64-bit ARM, and run in QEMU's emulator of one program.
//!
//! Neither ROS 2 nor MuJoCo is in them, so that nothing is set up.

use std::env;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Result, bail};

use crate::cargo;
use crate::process;
use crate::system::{self, find_program, install_line};
use crate::workspace::Workspace;

const TARGET: &str = "aarch64-unknown-linux-gnu";
const COMPILER: &str = "aarch64-linux-gnu-gcc";
const EMULATOR: &str = "qemu-aarch64";
/// Where the compiler's packages keep the C library for it.
const LIBRARIES: &str = "/usr/aarch64-linux-gnu";

/// Runs the tests, those that `words` name; what is missing for it is an error, never a skip.
pub fn test(workspace: &Workspace, words: &[String]) -> Result<ExitCode> {
    let missing = missing(workspace);
    if !missing.is_empty() {
        bail!(
            "nothing was tested. Type this, then run the command again:\n  {}",
            missing.join("\n  ")
        );
    }
    let mut test = cargo::bare(workspace);
    test.args([
        "test",
        "--release",
        "--locked",
        "--target",
        TARGET,
        "-p",
        "mfpo_policy",
    ])
    .args(words)
    .env(of_target("LINKER"), COMPILER)
    .env(of_target("RUNNER"), format!("{EMULATOR} -L {LIBRARIES}"));
    cargo::run(test)?;
    Ok(ExitCode::SUCCESS)
}

/// The variable that sets `key` of the target in cargo's configuration.
fn of_target(key: &str) -> String {
    let target = TARGET.replace('-', "_").to_uppercase();
    format!("CARGO_TARGET_{target}_{key}")
}

/// The lines that install what is not there.
fn missing(workspace: &Workspace) -> Vec<String> {
    let folders = system::search_path(workspace);
    let packages: Vec<_> = [
        (COMPILER, "gcc-aarch64-linux-gnu libc6-dev-arm64-cross"),
        (EMULATOR, "qemu-user"),
    ]
    .into_iter()
    .filter_map(|(program, packages)| find_program(&folders, program).is_none().then_some(packages))
    .collect();
    let mut lines = Vec::new();
    if !has_standard_library() {
        lines.push(format!("rustup target add {TARGET}"));
    }
    if !packages.is_empty() {
        lines.push(install_line(&packages));
    }
    lines
}

/// Whether the compiler that cargo takes has Rust's own libraries for the target.
fn has_standard_library() -> bool {
    let compiler = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    process::output(Command::new(compiler).args(["--print", "target-libdir", "--target", TARGET]))
        .is_some_and(|folder| Path::new(&folder).is_dir())
}

#[cfg(test)]
mod tests {
    use super::of_target;

    #[test]
    fn variables_are_named_as_cargo_reads_them() {
        assert_eq!(
            of_target("RUNNER"),
            "CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER"
        );
    }
}
