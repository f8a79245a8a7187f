//! The environment variables that everything here is built and run with.
//!
//! One list, used twice: for the programs that xtask starts, and as .deps/setup.bash for a shell. Both must come
//! to the same values, because r2r is built anew (minutes) whenever AMENT_PREFIX_PATH, CMAKE_PREFIX_PATH,
//! ROS_DISTRO or IDL_PACKAGE_FILTER change.

use std::collections::BTreeMap;
use std::env;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::cuda::{Cuda, Toolkit};
use crate::ros::{self, Ros};
use crate::stamp;
use crate::workspace::DEPS;

/// What happens to one variable.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Change {
    /// It gets this value.
    Set(&'static str, String),
    /// This folder comes first in it, unless it is in there already.
    Prepend(&'static str, PathBuf),
}

/// The variables, in the order in which they change.
pub struct Environment {
    deps: PathBuf,
    ros: Ros,
    cuda: Option<Cuda>,
    changes: Vec<Change>,
}

/// Folders that the variables are made of.
pub struct Folders<'a> {
    /// What the set-up makes.
    pub deps: &'a Path,
    /// The environment of Python with the wheels.
    pub venv: &'a Path,
    /// Its Python packages.
    pub site_packages: &'a Path,
    /// Libraries that the wheels brought along.
    pub wheel_libraries: &'a [PathBuf],
    /// The prefix of mfpo_msgs, once its place is known.
    pub overlay: Option<&'a Path>,
    /// The folder with libmujoco.
    pub mujoco: &'a Path,
    /// The folder with the models of the benchmark tasks.
    pub models: &'a Path,
    /// The C compiler's own headers.
    pub compiler_headers: Option<&'a Path>,
    /// CUDA, where it was asked for.
    pub cuda: Option<&'a Cuda>,
}

impl Environment {
    /// The variables for `ros` in `folders`.
    pub fn new(ros: &Ros, folders: &Folders<'_>) -> Self {
        let mut changes = match ros {
            Ros::Wheels => wheels(folders),
            Ros::Sourced { prefixes, .. } => sourced(prefixes, folders),
        };
        changes.push(Change::Prepend("LD_LIBRARY_PATH", folders.mujoco.to_owned()));
        changes.push(Change::Set("MUJOCO_DYNAMIC_LINK_DIR", text(folders.mujoco)));
        changes.push(Change::Set("MFPO_MODELS", text(folders.models)));
        changes.push(Change::Set(
            "LIBCLANG_PATH",
            text(folders.site_packages.join("clang/native")),
        ));
        if let Some(headers) = folders.compiler_headers {
            changes.push(Change::Set(
                "BINDGEN_EXTRA_CLANG_ARGS",
                format!("-I{}", headers.display()),
            ));
        }
        changes.extend(folders.cuda.into_iter().flat_map(cuda));
        Self {
            deps: folders.deps.to_owned(),
            ros: ros.clone(),
            cuda: folders.cuda.cloned(),
            changes,
        }
    }

    /// Gives the variables to `command`.
    pub fn apply(&self, command: &mut Command) {
        let r2r_distro = ros::distro_for_r2r(self.ros.distro());
        command.env("ROS_DISTRO", r2r_distro);
        if let Ros::Sourced { prefixes, .. } = &self.ros {
            // As sourced, but without prefixes of this repository: they would change what r2r is built from.
            command.env("AMENT_PREFIX_PATH", env::join_paths(prefixes).unwrap_or_default());
        }
        for (name, value) in self.values(|name| self.before(name)) {
            command.env(name, value);
        }
    }

    fn before(&self, name: &str) -> Option<String> {
        match &self.ros {
            Ros::Sourced { prefixes, .. } if name == "AMENT_PREFIX_PATH" => {
                Some(env::join_paths(prefixes).ok()?.to_string_lossy().into_owned())
            }
            _ => env::var(name).ok(),
        }
    }

    /// The variables' values where `before` says what they were.
    fn values(&self, before: impl Fn(&str) -> Option<String>) -> BTreeMap<&'static str, String> {
        let mut values = BTreeMap::new();
        for change in &self.changes {
            match change {
                Change::Set(name, value) => {
                    values.insert(*name, value.clone());
                }
                Change::Prepend(name, folder) => {
                    let old = values.remove(name).or_else(|| before(name)).unwrap_or_default();
                    values.insert(*name, prepend(&text(folder), &old));
                }
            }
        }
        values
    }

    /// Writes setup.bash, and what cargo alone has to know.
    pub fn write(&self) -> Result<()> {
        stamp::replace(&self.deps.join("setup.bash"), &self.bash())?;
        stamp::replace(&self.deps.join("cargo.toml"), &self.cargo_config())
    }

    /// In words, for a person.
    pub fn summary(&self) -> String {
        let of_ros = match &self.ros {
            Ros::Wheels => "ROS 2 kilted (wheels), MuJoCo and mfpo_msgs in .deps".to_owned(),
            Ros::Sourced { distro, .. } => format!("ROS 2 {distro} (sourced), MuJoCo and mfpo_msgs in .deps"),
        };
        match &self.cuda {
            Some(cuda) => format!("{of_ros}; {}", cuda.summary()),
            None => of_ros,
        }
    }

    /// Name of the distribution of ROS 2.
    pub fn distro(&self) -> &str {
        self.ros.distro()
    }

    /// CUDA, where it was asked for.
    pub fn cuda(&self) -> Option<&Cuda> {
        self.cuda.as_ref()
    }

    fn bash(&self) -> String {
        let mut out = format!("{BASH_MARK}{BASH_HEAD}");
        out.push_str(&match &self.ros {
            Ros::Wheels => BASH_NO_OTHER_ROS.to_owned(),
            Ros::Sourced { prefixes, distro } => bash_same_ros(prefixes, distro),
        });
        for change in &self.changes {
            let line = match change {
                Change::Set(name, value) => format!("export {name}={}", self.quote(value)),
                Change::Prepend(name, folder) => {
                    format!("_mfpo_prepend {name} {}", self.quote(&text(folder)))
                }
            };
            let _ = writeln!(out, "{line}");
        }
        out.push_str("unset -f _mfpo_prepend _mfpo_others\nunset _mfpo_deps _mfpo_prefixes\n");
        out
    }

    /// `value` between quotes for bash, with the folder of the file itself where it names .deps.
    fn quote(&self, value: &str) -> String {
        let parts: Vec<_> = value.split(&text(&self.deps)).map(escape).collect();
        format!("\"{}\"", parts.join("$_mfpo_deps"))
    }

    /// ROS_DISTRO for cargo alone, which r2r cannot do without: forced only over a sourced distribution that r2r has no
    /// name for.
    fn cargo_config(&self) -> String {
        let distro = self.ros.distro();
        let known = ros::distro_for_r2r(distro);
        match &self.ros {
            Ros::Wheels => format!("{CARGO_HEAD}[env]\nROS_DISTRO = \"{known}\"\n"),
            Ros::Sourced { .. } if known != distro => {
                format!("{CARGO_HEAD}[env]\nROS_DISTRO = {{ value = \"{known}\", force = true }}\n")
            }
            Ros::Sourced { .. } => format!("{CARGO_HEAD_KNOWN}[env]\nROS_DISTRO = \"{known}\"\n"),
        }
    }
}

const CARGO_HEAD: &str =
    "# Written by `cargo xtask setup`. r2r has no name for kilted; the jazzy bindings fit.\n";

const CARGO_HEAD_KNOWN: &str =
    "# Written by `cargo xtask setup`. r2r is told the distribution in a shell that lacks ROS_DISTRO, too.\n";

/// The first line of every setup.bash: what lies beside it belongs to the set-up of some clone.
pub const BASH_MARK: &str = "# Written by `cargo xtask setup`; source it, do not edit it.";

/// Does `prefix` lie in what a set-up has made, of this clone or of another?
pub fn is_of_set_up(prefix: &Path) -> bool {
    let is_marked = |deps: &Path| {
        std::fs::read_to_string(deps.join("setup.bash"))
            .is_ok_and(|text| text.lines().next() == Some(BASH_MARK))
    };
    let mut deps = prefix
        .ancestors()
        .filter(|folder| folder.file_name().is_some_and(|name| name == DEPS));
    deps.any(is_marked)
}

const BASH_HEAD: &str = r#"
[ -n "${BASH_VERSION:-}" ] || { # another shell would take the folder that it is in for .deps
  echo ".deps/setup.bash is for bash, and this is another shell: type bash, then source it there." >&2
  return 1
}
_mfpo_deps="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)"
_mfpo_prepend() { # NAME FOLDER: puts FOLDER first in NAME unless it is in there
  case ":${!1:-}:" in *":$2:"*) ;; *) export "$1=$2${!1:+:${!1}}" ;; esac
}
_mfpo_others() { # keeps in _mfpo_prefixes what is not of the set-up of another clone
  local prefix line
  local -a prefixes
  IFS=: read -ra prefixes <<<"${AMENT_PREFIX_PATH:-}"
  _mfpo_prefixes=()
  for prefix in ${prefixes[@]+"${prefixes[@]}"}; do
    line=
    if [[ "$prefix" == */.deps/* && "$prefix" != "$_mfpo_deps"/* && -r "${prefix%%/.deps/*}/.deps/setup.bash" ]]; then
      IFS= read -r line <"${prefix%%/.deps/*}/.deps/setup.bash" || :
    fi
    [[ "$line" == '# Written by `cargo xtask setup`'* ]] || _mfpo_prefixes+=("$prefix")
  done
}
_mfpo_others
"#;

const BASH_NO_OTHER_ROS: &str = r#"for _mfpo_prefix in ${_mfpo_prefixes[@]+"${_mfpo_prefixes[@]}"}; do
  if [[ -e "$_mfpo_prefix/lib/librcl.so" && "$_mfpo_prefix" != "$_mfpo_deps"/* ]]; then
    echo "The ROS 2 in $_mfpo_prefix is sourced, but the last set-up was made without it: run cargo xtask setup in this shell." >&2
    return 1
  fi
done
unset _mfpo_prefix
"#;

fn bash_same_ros(prefixes: &[PathBuf], distro: &str) -> String {
    let base = prefixes
        .last()
        .map(|prefix| escape(&text(prefix)))
        .unwrap_or_default();
    format!(
        r#"case ":${{AMENT_PREFIX_PATH:-}}:" in
  *":{base}:"*) ;;
  *)
    echo "The last set-up was made for the ROS 2 ({distro}) in {base}: source that first, or run cargo xtask setup in this shell." >&2
    return 1
    ;;
esac
export AMENT_PREFIX_PATH="$(IFS=:; echo "${{_mfpo_prefixes[*]}}")"
"#
    )
}

fn wheels(folders: &Folders<'_>) -> Vec<Change> {
    let overlay = folders.overlay.map(text);
    let prefixes: Vec<_> = overlay.into_iter().chain([text(folders.venv)]).collect();
    let mut changes = vec![
        Change::Set("AMENT_PREFIX_PATH", prefixes.join(":")),
        // rcl of the wheels is bound to this one, and ends every program that a shell tells another.
        Change::Set("RMW_IMPLEMENTATION", "rmw_fastrtps_cpp".to_owned()),
        Change::Prepend("PATH", folders.venv.join("bin")),
    ];
    if let (Some(overlay), Ok(site)) = (folders.overlay, folders.site_packages.strip_prefix(folders.venv)) {
        changes.push(Change::Prepend("PYTHONPATH", overlay.join(site)));
    }
    let libraries = folders.wheel_libraries.iter().cloned();
    let own = [folders.venv.join("lib")]
        .into_iter()
        .chain(folders.overlay.map(|overlay| overlay.join("lib")));
    changes.extend(
        libraries
            .chain(own)
            .map(|folder| Change::Prepend("LD_LIBRARY_PATH", folder)),
    );
    changes
}

fn sourced(prefixes: &[PathBuf], folders: &Folders<'_>) -> Vec<Change> {
    let Some(overlay) = folders.overlay else {
        return Vec::new();
    };
    let mut changes = vec![
        Change::Prepend("AMENT_PREFIX_PATH", overlay.to_owned()),
        Change::Prepend("LD_LIBRARY_PATH", overlay.join("lib")),
    ];
    let python = python_folder(overlay).or_else(|| prefixes.iter().find_map(|prefix| python_folder(prefix)));
    changes.extend(python.map(|python| Change::Prepend("PYTHONPATH", overlay.join(python))));
    changes
}

/// What candle's and cudarc's build scripts look at, and where programs find the libraries at run time.
fn cuda(cuda: &Cuda) -> Vec<Change> {
    let home = cuda.home();
    let libraries = home.join("lib64");
    let mut changes = vec![
        Change::Set("CUDA_HOME", text(home)),
        Change::Set("CUDA_PATH", text(home)),
        Change::Set("CUDA_COMPUTE_CAP", cuda.capability.clone()),
        Change::Prepend("PATH", home.join("bin")),
    ];
    // A system's own folder of libraries is searched anyway.
    if matches!(cuda.toolkit, Toolkit::Wheels(_)) || libraries.join("libcudart.so").exists() {
        changes.push(Change::Prepend("LD_LIBRARY_PATH", libraries));
    }
    changes
}

/// The folder of Python packages in a prefix, relative to it: `lib/python3.12/site-packages` or, on Debian's
/// Python, `local/lib/python3.10/dist-packages`.
fn python_folder(prefix: &Path) -> Option<PathBuf> {
    for lib in ["lib", "local/lib"] {
        let Ok(entries) = std::fs::read_dir(prefix.join(lib)) else {
            continue;
        };
        for entry in entries
            .flatten()
            .filter(|entry| entry.file_name().to_string_lossy().starts_with("python3"))
        {
            for name in ["site-packages", "dist-packages"] {
                if entry.path().join(name).is_dir() {
                    return Some(Path::new(lib).join(entry.file_name()).join(name));
                }
            }
        }
    }
    None
}

fn prepend(folder: &str, old: &str) -> String {
    match old {
        "" => folder.to_owned(),
        old if old.split(':').any(|entry| entry == folder) => old.to_owned(),
        old => format!("{folder}:{old}"),
    }
}

/// `text` for the inside of double quotes in bash.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        if matches!(character, '"' | '\\' | '$' | '`') {
            out.push('\\');
        }
        out.push(character);
    }
    out
}

fn text(path: impl AsRef<Path>) -> String {
    path.as_ref().to_string_lossy().into_owned()
}

#[cfg(test)]
#[path = "environment_tests.rs"]
mod tests;
