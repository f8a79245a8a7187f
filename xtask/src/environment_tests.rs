//! The laws of the environment, held by running the written setup.bash in a real bash.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::{Environment, Folders};
use crate::cuda::{Cuda, Toolkit};
use crate::ros::Ros;

struct Deps {
    _folder: tempfile::TempDir,
    deps: PathBuf,
}

impl Deps {
    /// A .deps whose path needs quoting.
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path().canonicalize().expect("a real path");
        let deps = root.join("a clone $HOME/.deps");
        fs::create_dir_all(&deps).expect("a folder");
        Self {
            _folder: folder,
            deps,
        }
    }

    fn environment(&self, ros: &Ros) -> Environment {
        self.environment_with(ros, None)
    }

    fn environment_with(&self, ros: &Ros, cuda: Option<&Cuda>) -> Environment {
        let (venv, overlay) = (self.deps.join("venv"), self.deps.join("overlay/kilted-1"));
        let site_packages = venv.join("lib/python3.11/site-packages");
        let folders = Folders {
            deps: &self.deps,
            venv: &venv,
            site_packages: &site_packages,
            wheel_libraries: &[site_packages.join("ros_rcl.libs")],
            overlay: Some(&overlay),
            mujoco: &self.deps.join("mujoco/lib"),
            models: &self.deps.join("models"),
            compiler_headers: Some(Path::new("/usr/lib/gcc/include")),
            cuda,
        };
        Environment::new(ros, &folders)
    }

    /// Sources setup.bash in `folder`, `times` over, then prints the environment.
    fn source(folder: &Path, before: &[(&str, &str)], times: usize) -> Output {
        let script = "for _ in $(seq $TIMES); do source \"$0/setup.bash\" || exit 1; done; /usr/bin/env -0";
        let mut command = Command::new("/bin/bash");
        command
            .args(["--norc", "--noprofile", "-u", "-c", script])
            .arg(folder)
            .env_clear();
        command
            .env("PATH", "/usr/bin:/bin")
            .env("TIMES", times.to_string());
        command.envs(before.iter().copied()).output().expect("bash runs")
    }
}

fn variables(output: &Output) -> BTreeMap<String, String> {
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8_lossy(&output.stdout);
    text.split('\0')
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.into(), value.into()))
        .collect()
}

fn sourced(folder: &Path, distro: &str) -> Ros {
    Ros::Sourced {
        distro: distro.into(),
        prefixes: vec![folder.join("opt/ros").join(distro)],
    }
}

#[test]
fn sourced_shell_and_xtask_come_to_the_same_values() {
    let deps = Deps::new();
    let environment = deps.environment(&Ros::Wheels);
    environment.write().expect("written");
    let before = [
        ("LD_LIBRARY_PATH", "/usr/local/lib"),
        ("PYTHONPATH", ""),
        ("RMW_IMPLEMENTATION", "rmw_cyclonedds_cpp"),
    ];
    let shell = variables(&Deps::source(&deps.deps, &before, 1));
    let own = environment.values(|name| match name {
        "PATH" => Some("/usr/bin:/bin".into()),
        name => before
            .iter()
            .find(|(key, _)| *key == name)
            .map(|(_, value)| (*value).into()),
    });
    assert!(own.len() >= 7, "{own:?}");
    for (name, value) in own {
        assert_eq!(shell.get(name), Some(&value), "{name}");
    }
    assert_eq!(shell["RMW_IMPLEMENTATION"], "rmw_fastrtps_cpp");
}

#[test]
fn sourcing_twice_changes_nothing_and_leaves_no_helpers_behind() {
    let deps = Deps::new();
    deps.environment(&Ros::Wheels).write().expect("written");
    let once = variables(&Deps::source(&deps.deps, &[], 1));
    let twice = variables(&Deps::source(&deps.deps, &[], 2));
    let of_interest = |all: &BTreeMap<String, String>| {
        all.iter()
            .filter(|(name, _)| *name != "TIMES")
            .map(|(a, b)| (a.clone(), b.clone()))
            .collect::<Vec<_>>()
    };
    assert_eq!(of_interest(&once), of_interest(&twice));
    assert!(once.keys().all(|name| !name.contains("mfpo_")), "{once:?}");
}

#[test]
fn another_shell_than_bash_is_told_so_and_keeps_its_environment() {
    let deps = Deps::new();
    deps.environment(&Ros::Wheels).write().expect("written");
    let script = "unset BASH_VERSION; source \"$0/setup.bash\"; echo \"$? ${MUJOCO_DYNAMIC_LINK_DIR:-none}\"";
    let output = Command::new("/bin/bash")
        .args(["--norc", "--noprofile", "-u", "-c", script])
        .arg(&deps.deps)
        .env_clear()
        .output()
        .expect("bash runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("is for bash") && said.contains("type bash"),
        "{said}"
    );
    assert_eq!(String::from_utf8_lossy(&output.stdout), "1 none\n");
}

#[test]
fn moved_set_up_names_its_new_folder() {
    let deps = Deps::new();
    deps.environment(&Ros::Wheels).write().expect("written");
    let moved = deps.deps.parent().expect("a parent").join("moved");
    fs::rename(&deps.deps, &moved).expect("moved");
    let shell = variables(&Deps::source(&moved, &[], 1));
    assert_eq!(
        shell["MUJOCO_DYNAMIC_LINK_DIR"],
        moved.join("mujoco/lib").to_string_lossy()
    );
}

#[test]
fn cuda_is_in_the_environment_only_where_it_was_asked_for() {
    let deps = Deps::new();
    deps.environment(&Ros::Wheels).write().expect("written");
    let without = variables(&Deps::source(&deps.deps, &[], 1));
    assert!(
        without.keys().all(|name| !name.starts_with("CUDA")),
        "{without:?}"
    );
    let home = deps.deps.join("cuda/wheels/nvidia/cu13");
    let cuda = Cuda {
        toolkit: Toolkit::Wheels(home.clone()),
        capability: "86".into(),
    };
    let environment = deps.environment_with(&Ros::Wheels, Some(&cuda));
    environment.write().expect("written");
    let shell = variables(&Deps::source(&deps.deps, &[], 2));
    let home = home.to_string_lossy().into_owned();
    assert_eq!([&shell["CUDA_HOME"], &shell["CUDA_PATH"]], [&home, &home]);
    assert_eq!(shell["CUDA_COMPUTE_CAP"], "86");
    assert!(
        shell["PATH"].starts_with(&format!("{home}/bin:")),
        "{}",
        shell["PATH"]
    );
    let libraries = format!("{home}/lib64:");
    assert!(
        shell["LD_LIBRARY_PATH"].starts_with(&libraries),
        "{}",
        shell["LD_LIBRARY_PATH"]
    );
    // What r2r is built anew for is not touched.
    for name in ["AMENT_PREFIX_PATH", "MUJOCO_DYNAMIC_LINK_DIR", "LIBCLANG_PATH"] {
        assert_eq!(shell.get(name), without.get(name), "{name}");
    }
}

#[test]
fn toolkit_of_the_system_itself_leaves_the_library_path_alone() {
    let deps = Deps::new();
    let cuda = Cuda {
        toolkit: Toolkit::Own("/usr".into()),
        capability: "90".into(),
    };
    let environment = deps.environment_with(&Ros::Wheels, Some(&cuda));
    let values = environment.values(|name| (name == "PATH").then(|| "/usr/bin:/bin".into()));
    assert_eq!(values["CUDA_HOME"], "/usr");
    assert!(
        !values["LD_LIBRARY_PATH"].contains("/usr/lib"),
        "{}",
        values["LD_LIBRARY_PATH"]
    );
}

#[test]
fn wheels_are_not_mixed_with_a_sourced_ros() {
    let deps = Deps::new();
    deps.environment(&Ros::Wheels).write().expect("written");
    let other = deps.deps.parent().expect("a parent").join("opt");
    fs::create_dir_all(other.join("lib")).expect("a folder");
    fs::write(other.join("lib/librcl.so"), "").expect("a file");
    let output = Deps::source(&deps.deps, &[("AMENT_PREFIX_PATH", &other.to_string_lossy())], 1);
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("cargo xtask setup"));
}

#[test]
fn set_up_of_another_clone_is_replaced_and_not_taken_for_a_ros() {
    let (deps, other) = (Deps::new(), Deps::new());
    for deps in [&deps, &other] {
        deps.environment(&Ros::Wheels).write().expect("written");
        fs::create_dir_all(deps.deps.join("venv/lib")).expect("a folder");
        fs::write(deps.deps.join("venv/lib/librcl.so"), "").expect("a file");
    }
    let theirs = variables(&Deps::source(&other.deps, &[], 1));
    let before = [("AMENT_PREFIX_PATH", theirs["AMENT_PREFIX_PATH"].as_str())];
    let shell = variables(&Deps::source(&deps.deps, &before, 2));
    let own = variables(&Deps::source(&deps.deps, &[], 1));
    assert_eq!(shell["AMENT_PREFIX_PATH"], own["AMENT_PREFIX_PATH"]);
    // Beside a ROS 2 that the user has sourced, too.
    let ros = sourced(&deps.deps, "jazzy");
    deps.environment(&ros).write().expect("written");
    let base = deps.deps.join("opt/ros/jazzy").to_string_lossy().into_owned();
    let mixed = format!("{}:{base}", theirs["AMENT_PREFIX_PATH"]);
    let [mixed, alone] =
        [&mixed, &base].map(|ament| variables(&Deps::source(&deps.deps, &[("AMENT_PREFIX_PATH", ament)], 2)));
    assert_eq!(mixed["AMENT_PREFIX_PATH"], alone["AMENT_PREFIX_PATH"]);
    // What bears another mark is some other program's.
    fs::write(other.deps.join("setup.bash"), "# Something else.\n").expect("a file");
    deps.environment(&Ros::Wheels).write().expect("written");
    assert!(!Deps::source(&deps.deps, &before, 1).status.success());
}

#[test]
fn set_up_for_a_sourced_ros_wants_it_sourced_and_puts_the_messages_before_it() {
    let deps = Deps::new();
    let ros = sourced(&deps.deps, "jazzy");
    deps.environment(&ros).write().expect("written");
    let without = Deps::source(&deps.deps, &[], 1);
    assert!(!without.status.success());
    assert!(String::from_utf8_lossy(&without.stderr).contains("opt/ros/jazzy"));
    let base = deps.deps.join("opt/ros/jazzy").to_string_lossy().into_owned();
    let shell = variables(&Deps::source(
        &deps.deps,
        &[("AMENT_PREFIX_PATH", &base), ("ROS_DISTRO", "jazzy")],
        1,
    ));
    assert_eq!(
        shell["AMENT_PREFIX_PATH"],
        format!("{}/overlay/kilted-1:{base}", deps.deps.display())
    );
    assert_eq!(shell["PATH"], "/usr/bin:/bin");
    assert_eq!(shell["ROS_DISTRO"], "jazzy");
}

#[test]
fn distribution_of_the_user_is_overruled_for_cargo_only_where_r2r_does_not_know_it() {
    let deps = Deps::new();
    let config = |ros: &Ros| deps.environment(ros).cargo_config();
    assert!(config(&Ros::Wheels).contains("ROS_DISTRO = \"jazzy\""));
    assert!(config(&sourced(&deps.deps, "kilted")).contains("value = \"jazzy\", force = true"));
    for known in ["humble", "jazzy", "rolling"] {
        let own = config(&sourced(&deps.deps, known));
        assert!(
            own.contains(&format!("ROS_DISTRO = \"{known}\"")) && !own.contains("force"),
            "{own}"
        );
    }
    for ros in [Ros::Wheels, sourced(&deps.deps, "kilted")] {
        assert!(!deps.environment(&ros).bash().contains("ROS_DISTRO"));
    }
}
