//! Every parameter is where a user looks for it.

use std::path::Path;

use mfpo_node::config::{Config, declared};
use mfpo_ros::parameters::{ParameterValue, Parameters};

fn text(path: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    std::fs::read_to_string(root.join(path)).unwrap()
}

#[test]
fn the_parameter_file_explains_every_parameter_that_the_launch_file_does_not_set() {
    let yaml = text("launch/params/control.yaml");
    for parameter in declared() {
        if ["policy", "device", "use_sim_time"].contains(&&*parameter.name) {
            continue;
        }
        let leaf = parameter.name.rsplit('.').next().unwrap();
        let is_there = yaml.contains(&format!(" {leaf}:")) || yaml.contains(&format!("{{{leaf}:"));
        assert!(is_there, "{} is not in control.yaml", parameter.name);
    }
}

#[test]
fn the_readme_lists_every_parameter() {
    let readme = text("README.md");
    for parameter in declared().iter().filter(|p| !p.name.starts_with("diagnostics.")) {
        let cell = format!("`{}`", parameter.name);
        assert!(readme.contains(&cell), "{cell} is not in README.md");
    }
}

#[test]
fn every_default_passes_its_own_check_and_is_described() {
    let mut parameters = Parameters::new(declared());
    for parameter in declared() {
        parameters.set(&parameter.name, &parameter.default).unwrap();
        assert!(parameter.description.len() > 20, "{}", parameter.name);
        let is_number = matches!(
            parameter.default,
            ParameterValue::Double(_) | ParameterValue::Integer(_)
        );
        assert_eq!(
            parameter.range.is_some(),
            is_number,
            "{}: a number has a range",
            parameter.name
        );
    }
    Config::read(&parameters).unwrap();
}
