//! Programs and packages of the operating system: found, or named with the line that installs them.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};

use crate::process;
use crate::python::{self, NotFound, Python};
use crate::ros::Ros;
use crate::workspace::Workspace;

/// PATH without what lies in .deps: a set-up must not lean on what it is about to replace.
pub fn search_path(workspace: &Workspace) -> Vec<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .filter(|folder| !folder.starts_with(workspace.deps()))
        .collect()
}

/// The first program of this name on `folders`.
pub fn find_program(folders: &[PathBuf], name: &str) -> Option<PathBuf> {
    folders
        .iter()
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
}

/// The line that installs system packages.
pub fn install_line<S: AsRef<str>>(packages: &[S]) -> String {
    let sudo = if is_root() { "" } else { "sudo " };
    let names: Vec<&str> = packages.iter().map(|package| package.as_ref()).collect();
    format!("{sudo}apt-get install -y {}", names.join(" "))
}

/// The line that installs the driver of an NVIDIA GPU.
pub fn driver_line() -> String {
    driver_line_on(&std::fs::read_to_string("/etc/os-release").unwrap_or_default())
}

/// The same on the system of `os_release`: Ubuntu has a package for each version of the driver, and a program that chooses.
fn driver_line_on(os_release: &str) -> String {
    let value = |key: &str| {
        let line = os_release.lines().find_map(|line| line.strip_prefix(key));
        line.unwrap_or_default().trim_matches('"')
    };
    let is_ubuntu = value("ID=") == "ubuntu" || value("ID_LIKE=").split(' ').any(|like| like == "ubuntu");
    if is_ubuntu {
        let sudo = if is_root() { "" } else { "sudo " };
        let line = install_line(&["ubuntu-drivers-common"]);
        return format!("{line} && {sudo}ubuntu-drivers install");
    }
    format!(
        "{}    # of Debian's components contrib and non-free",
        install_line(&["nvidia-driver"])
    )
}

/// System packages that are missing for a set-up with `ros`.
pub fn missing_packages(workspace: &Workspace, ros: &Ros) -> Vec<String> {
    let folders = search_path(workspace);
    let mut packages = Vec::new();
    if lacks_compiler(&folders) {
        packages.push("build-essential".to_owned());
    }
    if *ros != Ros::Wheels && find_program(&folders, "cmake").is_none() {
        packages.push("cmake".to_owned());
    }
    packages.extend(missing_python(&Python::find(workspace), Some(ros)));
    packages
}

/// Whether a program is missing on `folders` that the messages are built with: without make, CMake says nothing of use.
pub fn lacks_compiler(folders: &[PathBuf]) -> bool {
    ["cc", "c++", "make"]
        .iter()
        .any(|name| find_program(folders, name).is_none())
}

/// System packages that `python` lacks for a set-up with `ros`. A Python that does not fit is there already as `python3`, so
/// that one that does has to be asked for by its own name.
pub fn missing_python(python: &Result<Python, NotFound>, ros: Option<&Ros>) -> Vec<String> {
    let (name, parts) = match python {
        Err(NotFound { seen }) if seen.is_empty() => ("python3".to_owned(), vec!["", "-venv", "-dev"]),
        Err(_) => (python::FITTING.to_owned(), vec!["", "-venv", "-dev"]),
        Ok(python) => {
            let mut parts = Vec::new();
            if !python.has_venv {
                parts.push("-venv");
            }
            if ros == Some(&Ros::Wheels) && !python.has_headers {
                parts.push("-dev");
            }
            (python.name(), parts)
        }
    };
    parts.into_iter().map(|part| format!("{name}{part}")).collect()
}

/// Installs what is missing when root on a system with apt, else says the line to type.
pub fn require(workspace: &Workspace, ros: &Ros) -> Result<()> {
    let missing = missing_packages(workspace, ros);
    if missing.is_empty() {
        return Ok(());
    }
    let line = install_line(&missing);
    if !is_root() || find_program(&search_path(workspace), "apt-get").is_none() {
        bail!(
            "missing on this system: {}{}. Type this, then run the command again:\n  {line}",
            missing.join(", "),
            python_hint(workspace)
        );
    }
    eprintln!("missing on this system: {}; running: {line}", missing.join(", "));
    apt_get(workspace, &missing, &line)?;
    match missing_packages(workspace, ros) {
        still if still.is_empty() => Ok(()),
        still => bail!(
            "still missing after `{line}`: {}{}",
            still.join(", "),
            python_hint(workspace)
        ),
    }
}

fn apt_get(workspace: &Workspace, packages: &[String], line: &str) -> Result<()> {
    let run = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
        process::run_logged(workspace, "apt-get", &mut command, |_| ())
    };
    let mut install = vec!["install", "-y", "--no-install-recommends"];
    install.extend(packages.iter().map(String::as_str));
    run(&["update"]).and_then(|()| run(&install)).map_err(|error| {
        error.context(format!(
            "could not install system packages; is the network there? The line was: {line}{}",
            python_hint(workspace)
        ))
    })
}

/// Which Python is wanted, where only others were found.
fn python_hint(workspace: &Workspace) -> String {
    Python::find(workspace)
        .err()
        .filter(|found| !found.seen.is_empty())
        .map(|error| format!(" ({error})"))
        .unwrap_or_default()
}

/// Whether this runs as root, who needs no sudo.
pub fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").is_ok_and(|metadata| metadata.uid() == 0)
}

/// The folder of the C compiler's own headers, which libclang from a wheel does not have.
pub fn compiler_headers() -> Option<PathBuf> {
    let folder = process::output(Command::new("cc").arg("-print-file-name=include"))?;
    let folder = PathBuf::from(folder);
    folder.join("stddef.h").is_file().then_some(folder)
}

/// A program's first line of `--version`.
pub fn version_line(program: &Path) -> Option<String> {
    let text = process::output(Command::new(program).arg("--version"))?;
    text.lines().next().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::{driver_line_on, install_line, lacks_compiler, missing_python};
    use crate::python::{NotFound, Python};
    use crate::ros::Ros;

    fn python(has_venv: bool, has_headers: bool) -> Python {
        Python {
            program: "/usr/bin/python3".into(),
            version: (3, 11),
            has_venv,
            has_headers,
        }
    }

    fn missing(python: Result<Python, NotFound>, ros: &Ros) -> Vec<String> {
        missing_python(&python, Some(ros))
    }

    #[test]
    fn missing_python_parts_are_named_as_packages() {
        assert!(missing(Ok(python(true, true)), &Ros::Wheels).is_empty());
        assert_eq!(
            missing(Ok(python(false, false)), &Ros::Wheels),
            ["python3-venv", "python3-dev"]
        );
        let sourced = Ros::Sourced {
            distro: "jazzy".into(),
            prefixes: Vec::new(),
        };
        assert!(missing(Ok(python(true, false)), &sourced).is_empty());
        let none = missing(Err(NotFound { seen: Vec::new() }), &Ros::Wheels);
        assert_eq!(none, ["python3", "python3-venv", "python3-dev"]);
    }

    #[test]
    fn a_python_beside_one_that_does_not_fit_is_named_with_its_version() {
        let unfit = NotFound { seen: vec![(3, 14)] };
        assert_eq!(
            missing(Err(unfit), &Ros::Wheels),
            ["python3.12", "python3.12-venv", "python3.12-dev"]
        );
        let second = Python {
            program: "/usr/bin/python3.11".into(),
            ..python(false, true)
        };
        assert_eq!(missing(Ok(second), &Ros::Wheels), ["python3.11-venv"]);
    }

    #[test]
    fn a_compiler_without_make_is_not_enough() {
        let folder = tempfile::tempdir().expect("a folder");
        let folders = [folder.path().to_owned()];
        for name in ["cc", "c++"] {
            std::fs::write(folder.path().join(name), "").expect("a file");
        }
        assert!(lacks_compiler(&folders));
        std::fs::write(folder.path().join("make"), "").expect("a file");
        assert!(!lacks_compiler(&folders));
    }

    #[test]
    fn a_driver_is_installed_as_the_system_does_it() {
        let debian = "PRETTY_NAME=\"Debian GNU/Linux 13 (trixie)\"\nID=debian\n";
        assert!(driver_line_on(debian).contains("apt-get install -y nvidia-driver    #"));
        let derived = "ID=pop\nID_LIKE=\"ubuntu debian\"\n";
        for ubuntu in ["NAME=\"Ubuntu\"\nID=ubuntu\nID_LIKE=debian\n", derived] {
            let line = driver_line_on(ubuntu);
            assert!(
                line.ends_with("ubuntu-drivers install") && !line.contains("nvidia-driver"),
                "{line}"
            );
        }
    }

    #[test]
    fn install_line_can_be_typed_as_it_is() {
        assert!(install_line(&["a", "b"]).ends_with("apt-get install -y a b"));
    }
}
