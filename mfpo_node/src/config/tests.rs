//! Laws of the parameters: every default is valid, and what is wrong is refused with expected and got.

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
    assert!(config.autostart && settings.recovery_inputs == 1 && settings.enable_timeout == 0);
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
        ("stale_timeout", Value::Double(1e9), "0 to 3600"),
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
