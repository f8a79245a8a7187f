//! CUDA for the cargo feature `cuda`, on request: the toolkit of the user, else its compiler and libraries as wheels in
//! .deps/cuda, repaired so that programs can be linked with them. `rm -r .deps/cuda` takes it away again.
//!
//! The repairs of the wheels' prefix: folder lib64, links without version numbers for the linker, and in place of the
//! driver's library (which no wheel holds) functions that look for the driver when the program starts (driver/driver.c).

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::hash::Hash;
use crate::probe;
use crate::process;
use crate::progress::Step;
use crate::stamp::{self, Stamp};
use crate::system;
use crate::venv::{self, Venv};
use crate::workspace::Workspace;

const WHEELS: &str = include_str!("../requirements/cuda.txt");
const DRIVER: &str = include_str!("../driver/driver.c");
/// Rises when the repairs change.
const VERSION: &str = "cuda 1";

/// What is built for where no GPU tells what it is: Hopper.
pub const DEFAULT_CAPABILITY: &str = "90";

/// Whose toolkit it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Toolkit {
    /// The user's, in this folder.
    Own(PathBuf),
    /// Ours, in .deps/cuda.
    Wheels(PathBuf),
}

/// CUDA as builds use it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cuda {
    /// The toolkit.
    pub toolkit: Toolkit,
    /// Compute capability of the GPU that kernels are compiled for, without the point: `90`.
    pub capability: String,
}

/// What `cargo xtask setup` is told of CUDA.
#[derive(clap::Args, Default)]
pub struct Args {
    /// Also get CUDA, to build with the feature `cuda`: the toolkit of CUDA_HOME or of the nvcc on PATH, else wheels (1.2 GB).
    #[arg(long)]
    cuda: bool,
    /// Compute capability to build for, as 90 or 8.6 [default: CUDA_COMPUTE_CAP, else that of the GPU here, else 90].
    #[arg(long, value_name = "CAPABILITY", requires = "cuda")]
    compute_cap: Option<String>,
}

impl Cuda {
    /// That of an earlier request, if it is still there.
    pub fn found(workspace: &Workspace) -> Option<Self> {
        let text = fs::read_to_string(record(workspace)).ok()?;
        let (home, capability) = text.trim_end().split_once('\n')?;
        let toolkit = match home {
            "wheels" if stamp(workspace).is_current() => Toolkit::Wheels(wheels(workspace)),
            "wheels" => return None,
            own => Toolkit::Own(own.into()),
        };
        let cuda = Self {
            toolkit,
            capability: capability.to_owned(),
        };
        cuda.home().join("bin/nvcc").is_file().then_some(cuda)
    }

    /// The toolkit's folder.
    pub fn home(&self) -> &Path {
        match &self.toolkit {
            Toolkit::Own(home) | Toolkit::Wheels(home) => home,
        }
    }

    /// In words, for a person.
    pub fn summary(&self) -> String {
        let capability = &self.capability;
        match &self.toolkit {
            Toolkit::Own(home) => format!(
                "the CUDA of {}, for compute capability {capability}",
                home.display()
            ),
            Toolkit::Wheels(_) => format!("CUDA 13.0 in .deps/cuda, for compute capability {capability}"),
        }
    }
}

/// Gets what `args` ask for, or does nothing.
pub fn install(workspace: &Workspace, venv: &Venv, args: &Args) -> Result<()> {
    if !args.cuda {
        return Ok(());
    }
    let asked = args
        .compute_cap
        .clone()
        .or_else(|| environment_capability(workspace));
    let capability = match asked {
        Some(text) => capability(&text)?,
        None => match probe::compute_capability() {
            Some(text) => capability(&text)?,
            None => DEFAULT_CAPABILITY.to_owned(),
        },
    };
    let home = match own_toolkit(workspace)? {
        Some(home) => home.display().to_string(),
        None => {
            if !stamp(workspace).is_current() {
                install_wheels(workspace, venv)?;
            }
            "wheels".to_owned()
        }
    };
    stamp::replace(&record(workspace), &format!("{home}\n{capability}\n"))
}

/// Says where what an earlier request has got is no longer there.
pub fn warn_if_gone(workspace: &Workspace) {
    if record(workspace).is_file() && Cuda::found(workspace).is_none() {
        eprintln!(
            "The CUDA of an earlier set-up is gone or out of date; type: cargo xtask setup --cuda, or rm -r .deps/cuda"
        );
    }
}

/// The user's own CUDA_COMPUTE_CAP, which is not the one that an earlier setup.bash has set.
fn environment_capability(workspace: &Workspace) -> Option<String> {
    let set = std::env::var("CUDA_COMPUTE_CAP").ok()?;
    let ours = Cuda::found(workspace).is_some_and(|cuda| cuda.capability == set);
    (!ours).then_some(set)
}

/// `90` of `90`, `9.0` or `sm_90`.
fn capability(text: &str) -> Result<String> {
    let digits = text.trim().trim_start_matches("sm_").replace('.', "");
    let suffix = digits.trim_start_matches(|c: char| c.is_ascii_digit());
    let number = &digits[..digits.len() - suffix.len()];
    if !(2..=3).contains(&number.len()) || !["", "a", "f"].contains(&suffix) {
        bail!("compute capability: expected two or three digits as 90 or 8.6, got '{text}'");
    }
    Ok(digits)
}

/// The user's toolkit: that of CUDA_HOME or CUDA_PATH, else that of nvcc on PATH or in /usr/local/cuda; none of ours.
fn own_toolkit(workspace: &Workspace) -> Result<Option<PathBuf>> {
    let set = ["CUDA_HOME", "CUDA_PATH"]
        .into_iter()
        .filter_map(|name| Some((name, PathBuf::from(std::env::var_os(name)?))))
        .find(|(_, home)| !home.as_os_str().is_empty() && !home.starts_with(workspace.deps()));
    if let Some((name, home)) = set {
        return toolkit_of_variable(name, home).map(Some);
    }
    let mut folders = system::search_path(workspace);
    folders.push("/usr/local/cuda/bin".into());
    Ok(system::find_program(&folders, "nvcc").and_then(|nvcc| toolkit_of_compiler(&nvcc)))
}

fn toolkit_of_variable(name: &str, home: PathBuf) -> Result<PathBuf> {
    if home.join("bin/nvcc").is_file() {
        return Ok(home);
    }
    bail!(
        "{name} is {0}: expected a CUDA toolkit, but there is no {0}/bin/nvcc; set it to one, or unset {name} to get wheels",
        home.display()
    )
}

/// `/opt/cuda` of `/opt/cuda/bin/nvcc`, links followed.
fn toolkit_of_compiler(nvcc: &Path) -> Option<PathBuf> {
    let nvcc = nvcc.canonicalize().ok()?;
    Some(nvcc.parent()?.parent()?.to_owned())
}

fn folder(workspace: &Workspace) -> PathBuf {
    workspace.deps().join("cuda")
}

/// Which toolkit and which capability: two lines.
fn record(workspace: &Workspace) -> PathBuf {
    folder(workspace).join("toolkit")
}

fn wheels(workspace: &Workspace) -> PathBuf {
    folder(workspace).join("wheels/nvidia/cu13")
}

fn stamp(workspace: &Workspace) -> Stamp {
    let inputs = Hash::new().feed(WHEELS).feed(DRIVER).feed(VERSION);
    Stamp::new(folder(workspace).join("mfpo.stamp"), inputs.hex())
}

fn install_wheels(workspace: &Workspace, venv: &Venv) -> Result<()> {
    let stamp = stamp(workspace);
    stamp.clear()?;
    stamp::remove_folder(&folder(workspace))?;
    download(workspace, venv)?;
    let step = Step::begin("Repairing the CUDA prefix", 0);
    let home = wheels(workspace);
    link("lib", &home.join("lib64"))?;
    link_libraries(&home.join("lib"))?;
    build_driver(workspace, &home)?;
    step.done();
    stamp.set()
}

fn download(workspace: &Workspace, venv: &Venv) -> Result<()> {
    let step = Step::begin("Downloading CUDA 13.0", venv::count(WHEELS));
    let folder = folder(workspace);
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let list = folder.join("requirements.txt");
    fs::write(&list, WHEELS).with_context(|| format!("cannot write {}", list.display()))?;
    let mut command = venv::pip(&venv.program("python3"), &list);
    command.arg("--target").arg(folder.join("wheels"));
    process::run_logged(workspace, "cuda-pip", &mut command, |line| venv::show(&step, line)).context(
        "pip could not install CUDA; is the network there, and 2 GB free? A toolkit that is installed already serves as \
         well: set CUDA_HOME to its folder",
    )?;
    step.done();
    Ok(())
}

/// `libx.so` beside every `libx.so.N`, which is the name that a linker looks for.
fn link_libraries(lib: &Path) -> Result<()> {
    let entries = fs::read_dir(lib).with_context(|| format!("cannot read {}", lib.display()))?;
    for entry in entries {
        let file = entry?.file_name().to_string_lossy().into_owned();
        if let Some(name) = linker_name(&file) {
            link(&file, &lib.join(name))?;
        }
    }
    Ok(())
}

/// `libx.so` of `libx.so.N`; none for other files and for a library's second copy (`libx.alt.so.N`).
fn linker_name(file: &str) -> Option<String> {
    let (stem, _) = file.split_once(".so.")?;
    (!stem.contains('.')).then(|| format!("{stem}.so"))
}

fn link(target: &str, link: &Path) -> Result<()> {
    match symlink(target, link) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            Err(error).with_context(|| format!("cannot make {}", link.display()))
        }
        _ => Ok(()),
    }
}

/// `lib/stubs/libcuda.a`, which `-lcuda` finds.
fn build_driver(workspace: &Workspace, home: &Path) -> Result<()> {
    let header = home.join("include/cuda.h");
    let header = fs::read_to_string(&header).with_context(|| format!("cannot read {}", header.display()))?;
    let build = folder(workspace).join("driver");
    let stubs = home.join("lib/stubs");
    for folder in [&build, &stubs] {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    fs::write(build.join("driver.c"), DRIVER).context("cannot write driver.c")?;
    fs::write(build.join("functions.h"), functions(&header)).context("cannot write functions.h")?;
    let mut compile = Command::new("cc");
    compile.current_dir(&build).args([
        "-O2", "-fPIC", "-Wall", "-Werror", "-c", "driver.c", "-o", "driver.o",
    ]);
    process::run_logged(workspace, "cuda-driver", &mut compile, |_| ())?;
    let mut archive = Command::new("ar");
    archive
        .current_dir(&build)
        .arg("rcs")
        .arg(stubs.join("libcuda.a"))
        .arg("driver.o");
    process::run_logged(workspace, "cuda-archive", &mut archive, |_| ())
}

/// `FUNCTION(cuInit)` for every name in cuda.h that may be a function of the driver; one too many does no harm.
fn functions(header: &str) -> String {
    let is_function = |word: &&str| {
        let rest = word.strip_prefix("cu").unwrap_or_default();
        rest.starts_with(|c: char| c.is_ascii_uppercase())
    };
    let words = header.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let names: std::collections::BTreeSet<_> = words.filter(is_function).collect();
    names.iter().map(|name| format!("FUNCTION({name})\n")).collect()
}

#[cfg(test)]
#[path = "cuda_tests.rs"]
mod tests;
