//! Laws of the repository itself: who depends on whom, where ROS and MuJoCo are named, what launch files declare.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use mfpo_tests::repository;
use serde_json::{Value, json};

/// Who may use whom, as ARCHITECTURE.md states it: normal, build and development dependencies alike.
const MAY_USE: [(&str, &[&str]); 6] = [
    ("mfpo_policy", &[]),
    ("mfpo_ros", &["mfpo_policy"]),
    ("mfpo_sim", &["mfpo_policy", "mfpo_ros"]),
    ("mfpo_train", &["mfpo_policy", "mfpo_sim", "mfpo_ros"]),
    ("mfpo_node", &["mfpo_policy", "mfpo_ros"]),
    ("xtask", &[]),
];
/// What stands above all others; nobody depends on these.
const ABOVE_ALL: [&str; 2] = ["mfpo_tests", "mfpo_demo"];
/// Who uses mfpo_ros only with the cargo feature `ros`.
const OPTIONAL_ROS: [&str; 2] = ["mfpo_sim", "mfpo_train"];

fn cargo(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO"))
        .args(arguments)
        .args(["--locked", "--offline"])
        .current_dir(repository())
        .output()
        .expect("cargo");
    assert!(
        output.status.success(),
        "cargo {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("text")
}

fn packages() -> BTreeMap<String, Value> {
    let metadata = cargo(&["metadata", "--no-deps", "--format-version", "1"]);
    let mut metadata: Value = serde_json::from_str(&metadata).expect("JSON");
    let packages = metadata["packages"].take();
    let packages = packages.as_array().expect("packages").clone();
    let named = packages
        .into_iter()
        .map(|p| (p["name"].as_str().unwrap_or_default().to_owned(), p));
    named.collect()
}

#[test]
fn packages_depend_on_each_other_as_the_architecture_says() {
    let packages = packages();
    let members: BTreeSet<&String> = packages.keys().collect();
    let ruled: BTreeSet<String> = MAY_USE
        .iter()
        .map(|(name, _)| *name)
        .chain(ABOVE_ALL)
        .map(str::to_owned)
        .collect();
    assert_eq!(members, ruled.iter().collect(), "every package has its place");
    for (name, may_use) in MAY_USE {
        for dependency in packages[name]["dependencies"].as_array().expect("dependencies") {
            let used = dependency["name"].as_str().unwrap_or_default();
            if !packages.contains_key(used) {
                continue;
            }
            assert!(
                may_use.contains(&used),
                "{name} may not use {used}; it may use {may_use:?}"
            );
            if OPTIONAL_ROS.contains(&name) && used == "mfpo_ros" {
                assert_eq!(
                    dependency["optional"], true,
                    "{name} uses mfpo_ros without its feature"
                );
            }
        }
    }
}

#[test]
fn only_the_feature_ros_brings_ros() {
    let packages = packages();
    for name in OPTIONAL_ROS {
        let features = packages[name]["features"].as_object().expect("features");
        let brings = |needs: &Value| needs.to_string().contains("mfpo_ros");
        let bringing: Vec<&String> = features
            .iter()
            .filter(|(_, n)| brings(n))
            .map(|(f, _)| f)
            .collect();
        assert_eq!(bringing, ["ros"], "{name}");
    }
}

/// Names of all packages that a build of `package` needs.
fn needs(package: &str, features: &[&str]) -> BTreeSet<String> {
    let base = [
        "tree",
        "--prefix",
        "none",
        "--edges",
        "normal,build",
        "--format",
        "{p}",
        "-p",
        package,
    ];
    let text = cargo(&[&base[..], features].concat());
    let name = |line: &str| line.split_whitespace().next().unwrap_or_default().to_owned();
    text.lines().map(name).collect()
}

#[test]
fn the_trainer_builds_without_ros_and_the_node_without_mujoco() {
    let without_ros: &[&str] = &["--no-default-features"];
    for (package, features, needed, forbidden) in [
        ("mfpo_train", without_ros, "mujoco-rs", "r2r"),
        ("mfpo_train", &[], "r2r", "xtask"),
        ("mfpo_sim", without_ros, "mujoco-rs", "r2r"),
        ("mfpo_node", &[], "r2r", "mujoco-rs"),
        ("mfpo_ros", &[], "r2r", "mujoco-rs"),
        ("mfpo_policy", &[], "candle-core", "r2r"),
        ("mfpo_policy", &[], "candle-core", "mujoco-rs"),
        ("xtask", &[], "anyhow", "r2r"),
    ] {
        let needs = needs(package, features);
        assert!(
            needs.contains(needed),
            "{package} {features:?} needs {needed}: {needs:?}"
        );
        assert!(
            !needs.contains(forbidden),
            "{package} {features:?} must not need {forbidden}"
        );
    }
    assert!(!needs("mfpo_node", &[]).contains("mfpo_sim"));
}

/// Rust sources of a module: the file of its name, and those in its folder.
fn sources(module: &Path) -> Vec<PathBuf> {
    let own = module.with_extension("rs");
    let mut found = Vec::new();
    if module.is_dir() {
        found.extend(sources_under(module));
    }
    if own.is_file() {
        found.push(own);
    }
    assert!(!found.is_empty(), "{} is no source", module.display());
    found
}

fn sources_under(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a source folder").flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(sources_under(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

/// Sources of a folder or module with `word` outside of comments, as paths within the repository.
fn naming(word: &str, folder: &str) -> Vec<String> {
    let root = repository();
    let names = |path: &PathBuf| {
        let text = std::fs::read_to_string(path).expect("a source");
        let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        code.into_iter().any(|line| line.contains(word))
    };
    let mut found: Vec<String> = sources(&root.join(folder))
        .iter()
        .filter(|path| names(path))
        .map(|path| path.strip_prefix(&root).unwrap_or(path).display().to_string())
        .collect();
    found.sort();
    found
}

#[test]
fn one_place_of_each_package_names_ros_and_one_names_mujoco() {
    assert_eq!(naming("r2r", "sim/src"), ["sim/src/ros.rs"]);
    assert_eq!(naming("r2r", "mfpo_train/src"), ["mfpo_train/src/ros.rs"]);
    let node = naming("r2r", "mfpo_node/src");
    assert!(node.contains(&"mfpo_node/src/ros.rs".to_owned()));
    assert!(
        node.iter().all(|file| file.starts_with("mfpo_node/src/ros")),
        "{node:?}"
    );
    assert!(naming("r2r", "mfpo_policy/src").is_empty());
    assert_eq!(
        naming("mujoco_rs", "sim/src"),
        [
            "sim/src/physics.rs",
            "sim/src/physics/renderer.rs",
            "sim/src/physics/warnings.rs"
        ]
    );
    assert!(naming("mujoco_rs", "mfpo_train/src").is_empty());
}

/// What a tick goes through, from the joint states to the safe command.
const OF_A_TICK: [&str; 21] = [
    "mfpo_node/src/agreement",
    "mfpo_node/src/arrivals",
    "mfpo_node/src/backlog",
    "mfpo_node/src/budget",
    "mfpo_node/src/contradiction",
    "mfpo_node/src/control_loop",
    "mfpo_node/src/goal",
    "mfpo_node/src/joint_states",
    "mfpo_node/src/lateness",
    "mfpo_node/src/safety",
    "mfpo_node/src/schedule",
    "mfpo_node/src/sim_time",
    "mfpo_node/src/time",
    "mfpo_node/src/weights",
    "mfpo_policy/src/critic",
    "mfpo_policy/src/fast",
    "mfpo_policy/src/guard",
    "mfpo_policy/src/kernel",
    "mfpo_policy/src/noise",
    "mfpo_policy/src/observation",
    "mfpo_policy/src/sampler",
];

#[test]
fn nothing_that_a_tick_goes_through_waits_for_another_thread() {
    for module in OF_A_TICK {
        for word in [
            "Mutex", "RwLock", "Condvar", "Barrier", ".lock()", ".recv()", ".join()", "block_on",
        ] {
            let named = naming(word, module);
            let tests = |file: &String| file.ends_with("tests.rs");
            assert!(named.iter().all(tests), "{word} is named in {named:?}");
        }
    }
}

/// Reads a launch file without running it: the names, defaults and descriptions of what it declares.
const READ_LAUNCH_FILE: &str = r#"
import ast, json, sys
source = open(sys.argv[1]).read()
tree = ast.parse(source, sys.argv[1])
compile(tree, sys.argv[1], "exec")
assert any(isinstance(n, ast.FunctionDef) and n.name == "generate_launch_description" for n in tree.body)
calls = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and getattr(n.func, "id", "") == "DeclareLaunchArgument"]
def described(call):
    words = {k.arg: k.value for k in call.keywords}
    text = ast.literal_eval(words["description"])
    return [ast.literal_eval(call.args[0]), text, "default_value" in words]
print(json.dumps([described(call) for call in calls]))
"#;

fn python(program: &str, arguments: &[&str]) -> String {
    // Away from the repository, whose folder `launch` would pass for the package of that name.
    let output = Command::new("python3")
        .args(["-B", "-c", program])
        .args(arguments)
        .current_dir(std::env::temp_dir())
        .output()
        .expect("python3");
    assert!(
        output.status.success(),
        "{arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn the_launch_file_declares_and_describes_its_arguments() {
    let file = repository().join("launch/control.launch.py");
    let told = python(READ_LAUNCH_FILE, &[&file.display().to_string()]);
    let declared: Vec<(String, String, bool)> = serde_json::from_str(&told).expect("JSON");
    let names: Vec<&str> = declared.iter().map(|(name, ..)| name.as_str()).collect();
    let promised = [
        "params_file",
        "policy",
        "namespace",
        "device",
        "use_sim_time",
        "log_level",
    ];
    assert_eq!(names, promised);
    for (name, description, has_default) in &declared {
        assert!(description.len() > 20, "{name}: {description}");
        assert!(
            has_default,
            "{name} has no default, so that nothing starts without it"
        );
    }
}

/// Runs a launch file on stand-ins for ROS 2's packages, which the wheels do not hold: the parameters that its node gets with
/// the arguments `given`, in the order in which they count.
const RUN_LAUNCH_FILE: &str = r#"
import json, os, runpy, sys, types
share, given = sys.argv[2], json.loads(sys.argv[3])
class Configuration:
    def __init__(self, name): self.name = name
    def perform(self, context): return context[self.name]
class Thing:
    def __init__(self, *words, **named): self.words, self.named = words, named
def value(parameter, context):
    return parameter.words[0].perform(context) if isinstance(parameter, Thing) else parameter
modules = {
    "ament_index_python": {}, "ament_index_python.packages": {"get_package_share_directory": lambda _: share},
    "launch": {"LaunchDescription": Thing, "Substitution": object}, "launch.substitutions": {"LaunchConfiguration": Configuration},
    "launch.actions": {"DeclareLaunchArgument": Thing, "OpaqueFunction": Thing},
    "launch_ros": {}, "launch_ros.actions": {"Node": Thing}, "launch_ros.parameter_descriptions": {"ParameterValue": Thing},
}
for name, members in modules.items():
    sys.modules[name] = types.ModuleType(name)
    vars(sys.modules[name]).update(members)
*arguments, start = runpy.run_path(sys.argv[1])["generate_launch_description"]().words[0]
context = dict(given)
for argument in arguments:
    default = argument.named["default_value"]
    default = default if isinstance(default, str) else default.perform(context)
    context.setdefault(argument.words[0], default)
file, *others = start.named["function"](context)[0].named["parameters"]
told = {name: value(parameter, context) for other in others for name, parameter in other.items()}
print(json.dumps([os.path.relpath(file.perform(context), share), told]))
"#;

#[test]
fn a_parameter_file_of_ones_own_says_which_policy_acts_and_whose_time_counts() {
    let file = repository().join("launch/control.launch.py");
    let share = tempfile::tempdir().expect("a folder");
    let policy = share.path().join("policies/swing_arm.safetensors");
    std::fs::create_dir(share.path().join("policies")).expect("a folder");
    std::fs::write(&policy, "").expect("a file");
    let (file, folder) = (file.display().to_string(), share.path().display().to_string());
    let parameters = |given: serde_json::Value| -> (String, serde_json::Value) {
        let told = python(RUN_LAUNCH_FILE, &[&file, &folder, &given.to_string()]);
        serde_json::from_str(&told).expect("JSON")
    };
    let own = format!("{folder}/own.yaml");
    let installed = json!({"policy": policy.display().to_string()});
    assert_eq!(
        parameters(json!({})),
        ("params/control.yaml".to_owned(), installed)
    );
    assert_eq!(parameters(json!({"policy": ""})).1, json!({}));
    assert_eq!(
        parameters(json!({"params_file": own})),
        ("own.yaml".to_owned(), json!({}))
    );
    let given = json!({"params_file": own, "policy": "/p", "use_sim_time": "false"});
    assert_eq!(
        parameters(given).1,
        json!({"policy": "/p", "use_sim_time": "false"})
    );
}

#[test]
fn every_launch_file_compiles() {
    let folder = repository().join("launch");
    let mut compiled = 0;
    for entry in std::fs::read_dir(folder).expect("launch files").flatten() {
        let path = entry.path();
        if path.to_string_lossy().ends_with(".launch.py") {
            let program = "import sys; compile(open(sys.argv[1]).read(), sys.argv[1], 'exec')";
            python(program, &[&path.display().to_string()]);
            compiled += 1;
        }
    }
    assert!(compiled >= 4, "{compiled} launch files");
}
