//! Laws of the parameters: every default is valid, and what is wrong is refused with expected and got.

use mfpo_policy::spec::{ActionSpec, CommandInterface, ObservationSpec, RobotSpec};
use mfpo_ros::parameters::{ParameterError, ParameterValue as Value, Parameters};

use super::*;
use crate::safety::Tightening;

fn set(name: &str, value: Value) -> Result<Config, ParameterError> {
    let mut parameters = Parameters::new(declared());
    parameters.set(name, &value)?;
    Config::read(&parameters)
}

#[test]
fn the_defaults_make_a_configuration() {
    let config = Config::read(&Parameters::new(declared())).unwrap();
    let settings = config.settings;
    assert_eq!((config.policy, config.rate, settings.candidates), (None, None, 1));
    assert_eq!(
        (config.trigger, settings.stale_after),
        (Trigger::FixedRate, 100_000_000)
    );
    assert_eq!(settings.tightening, Tightening::NONE);
    assert!(
        settings.stages.interventions_rise <= 0.2,
        "a policy under which limits trip in a fifth more of the ticks does worse"
    );
    assert!(config.autostart && settings.recovery_inputs == 1);
    assert_eq!((settings.enable_timeout, settings.goal_timeout), (0, 0));
    assert!(config.accept_bundles && config.accept_runs.is_empty());
}

#[test]
fn an_unknown_parameter_names_the_closest_valid_one() {
    let error = set("trigge", Value::Bool(true)).unwrap_err().to_string();
    assert!(error.contains("did you mean 'trigger'"), "{error}");
    let error = set("stale_time", Value::Double(1.0)).unwrap_err().to_string();
    assert!(error.contains("did you mean 'stale_timeout'"), "{error}");
}

#[test]
fn runs_are_accepted_by_whole_names_or_all_of_them_and_not_by_patterns() {
    let runs = |runs: &[&str]| {
        let runs = runs.iter().map(|run| (*run).to_owned()).collect();
        set("accept_runs", Value::StringArray(runs))
    };
    let accepted: [&[&str]; 4] = [&[], &["*"], &["run-a", "run-b"], &["run-a", "*"]];
    for names in accepted {
        assert_eq!(runs(names).unwrap().accept_runs, names);
    }
    for pattern in ["run-*", "run-?", "**"] {
        let error = runs(&["run-a", pattern]).unwrap_err().to_string();
        assert!(
            error.contains(&format!("'{pattern}' is a pattern")) && error.contains("whole names"),
            "{error}"
        );
    }
}

#[test]
fn a_bad_value_is_refused_with_expected_and_got() {
    for (name, value, part) in [
        ("rate", Value::Double(-1.0), "got -1"),
        ("rate", Value::Double(f64::NAN), "got NaN"),
        (
            "trigger",
            Value::String("onstate".into()),
            "did you mean 'on_state'",
        ),
        ("fallback", Value::String("freeze".into()), "expected one of auto"),
        ("candidates", Value::Integer(0), ", got 0"),
        ("candidates", Value::Integer(0), "whole number from 1 to"),
        ("seed", Value::Integer(-1), "from 0"),
        ("realtime_priority", Value::Integer(100), "from 0 to 99"),
        ("cpu_affinity", Value::IntegerArray(vec![0, -1]), "got -1"),
        (
            "fallback_effort",
            Value::DoubleArray(vec![1.0, f64::NAN]),
            "finite numbers, got NaN",
        ),
        ("fallback_effort", Value::String("none".into()), "expected"),
        ("stale_timeout", Value::Double(0.0), "above 0"),
        (
            "stale_timeout",
            Value::Double(100.0),
            "at most 10 (100 ms are 0.1), got 100",
        ),
        (
            "enable_timeout",
            Value::Double(500.0),
            "at most 10 (100 ms are 0.1), got 500",
        ),
        ("goal_timeout", Value::Double(-0.5), "got -0.5"),
        ("goal_timeout", Value::Double(5000.0), "0 to 3600"),
        ("compute_budget", Value::Double(1e9), "0 to 3600"),
        ("limits.velocity_scale", Value::Double(1.5), "0 to 1"),
        ("device", Value::String("gpu".into()), "cuda:N"),
        ("accept_bundles", Value::String("yes".into()), "expected boolean"),
        (
            "command_topic_type",
            Value::String("trajectory".into()),
            "joint_trajectory",
        ),
    ] {
        let error = set(name, value).unwrap_err().to_string();
        assert!(error.contains(part), "{name}: {error}");
    }
}

/// A robot of 50 Hz.
fn robot(interface: CommandInterface) -> RobotSpec {
    RobotSpec {
        robot: "one_joint".into(),
        joints: Vec::new(),
        observation: ObservationSpec { terms: Vec::new() },
        action: ActionSpec {
            interface,
            joints: Vec::new(),
        },
        control_period_ns: 20_000_000,
        goal: None,
    }
}

fn doubts(name: &str, value: Value, interface: CommandInterface) -> Vec<String> {
    set(name, value).unwrap().doubts(&robot(interface))
}

#[test]
fn times_that_look_like_milliseconds_are_doubted_against_the_control_period() {
    for (name, seconds, part) in [
        ("stale_timeout", 5.0, "commanded blindly for 250 control periods"),
        ("enable_timeout", 3.0, "moves on after the last heartbeat"),
        ("compute_budget", 0.5, "longer than the control period of 0.02 s"),
    ] {
        let told = doubts(name, Value::Double(seconds), CommandInterface::Position);
        assert!(told.len() == 1 && told[0].contains(part), "{name}: {told:?}");
        let usual = doubts(name, Value::Double(0.02), CommandInterface::Position);
        assert!(usual.is_empty(), "{name}: {usual:?}");
    }
}

#[test]
fn a_trajectory_without_positions_is_doubted_with_what_to_take_instead() {
    let trajectory = || Value::String("joint_trajectory".into());
    for (interface, what) in [
        (CommandInterface::Velocity, "commands velocities"),
        (CommandInterface::Effort, "commands efforts"),
    ] {
        let told = doubts("command_topic_type", trajectory(), interface);
        assert!(
            told.len() == 1 && told[0].contains(what) && told[0].contains("expected float64_multi_array"),
            "{told:?}"
        );
    }
    assert!(doubts("command_topic_type", trajectory(), CommandInterface::Position).is_empty());
}

#[test]
fn a_trusted_key_that_is_gone_since_it_was_checked_is_an_error_and_not_trust_in_everybody() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("lab.pub");
    let key = mfpo_policy::signature::SigningKey::from_seed(&[1; 32]).public();
    std::fs::write(&file, key.to_string()).unwrap();
    let mut parameters = Parameters::new(declared());
    let value = Value::StringArray(vec![file.display().to_string()]);
    parameters.set("trusted_keys", &value).unwrap();
    assert_eq!(trusted_keys(&parameters).unwrap().0, [key]);
    std::fs::remove_file(&file).unwrap();
    let error = trusted_keys(&parameters).unwrap_err().to_string();
    assert!(
        error.contains("parameter 'trusted_keys'") && error.contains("lab.pub"),
        "{error}"
    );
    // What else the parameters say can still be read.
    Config::read(&parameters).unwrap();
}
