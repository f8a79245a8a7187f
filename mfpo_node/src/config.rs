//! Parameters of the node: declared here with default, description and check, and read once into [`Config`].

use std::path::PathBuf;

use mfpo_policy::device::DeviceName;
use mfpo_policy::sampler::ActionSampler;
use mfpo_ros::parameters::{Check, Declared, ParameterError, ParameterValue as Value, Parameters, closest};

use crate::safety::FallbackChoice;
use crate::schedule::Trigger;

/// The parameter that may change while the node runs.
pub const ACCEPT_BUNDLES: &str = "accept_bundles";

const MOST_CANDIDATES: i64 = ActionSampler::MOST_CANDIDATES as i64;

/// How commands are published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommandTopic {
    /// `std_msgs/Float64MultiArray`, as ros2_control's forward command controllers read it.
    Float64MultiArray,
    /// `trajectory_msgs/JointTrajectory` with one point.
    JointTrajectory,
}

impl CommandTopic {
    const NAMES: [&'static str; 2] = ["float64_multi_array", "joint_trajectory"];
}

/// Everything that the parameters say.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Bundle to start with; without one the node waits for the topic.
    pub policy: Option<PathBuf>,
    /// `cpu` or `cuda[:N]`.
    pub device: String,
    /// Control rate, Hz; `None` takes the policy's.
    pub rate: Option<f64>,
    /// What makes the loop tick.
    pub trigger: Trigger,
    /// Actions sampled at each tick, of which the critics choose.
    pub candidates: usize,
    /// Seed of the policy's noise.
    pub seed: u64,
    /// A joint whose newest state is older is stale, ns.
    pub stale_after: u64,
    /// What the robot is told when the policy must not act.
    pub fallback: FallbackChoice,
    /// N m s/rad; 0 is automatic.
    pub damping: f64,
    /// Are bundles of the topic looked at?
    pub accept_bundles: bool,
    /// Training runs that may take over from the first one; `*` is any.
    pub accept_runs: Vec<String>,
    /// How commands are published.
    pub command_topic: CommandTopic,
    /// The robot that a bundle must be for; empty is any.
    pub robot: String,
    /// SCHED_FIFO priority of the control thread; 0 is none.
    pub realtime_priority: u64,
}

/// The parameters at their defaults.
pub fn declared() -> Vec<Declared> {
    let text = |value: &str| Value::String(value.to_owned());
    let fixed = |name, default, check: Check, description| Declared {
        name,
        default,
        description,
        at_run_time: false,
        check,
    };
    vec![
        fixed(
            "policy",
            text(""),
            any,
            "Path of the policy bundle to start with; empty waits for the topic policy/bundle",
        ),
        fixed(
            "device",
            text("cpu"),
            device,
            "Where the policy runs: cpu, cuda or cuda:N",
        ),
        fixed(
            "rate",
            Value::Double(0.0),
            not_negative,
            "Control rate [Hz]; 0 takes the policy's own, a policy trained for another rate is refused",
        ),
        fixed(
            "trigger",
            text("fixed_rate"),
            trigger,
            "What makes the loop tick: fixed_rate (newest state at each deadline) or on_state (arriving states)",
        ),
        fixed(
            "candidates",
            Value::Integer(1),
            candidates,
            "Actions sampled at each tick [count]; with more than 1 the bundle's critics choose the best",
        ),
        fixed(
            "seed",
            Value::Integer(0),
            not_negative_integer,
            "Seed of the policy's noise",
        ),
        fixed(
            "stale_timeout",
            Value::Double(0.1),
            positive,
            "Age at which a joint's state is stale and the fallback acts [s]",
        ),
        fixed(
            "fallback",
            text("auto"),
            fallback,
            "Command while states are stale: auto, hold (position), ramp (velocity), damp (effort), zero (velocity, effort)",
        ),
        fixed(
            "damping",
            Value::Double(0.0),
            not_negative,
            "Damping of the effort fallback [N m s/rad]; 0 is full effort at full speed",
        ),
        Declared {
            at_run_time: true,
            ..fixed(
                ACCEPT_BUNDLES,
                Value::Bool(true),
                any,
                "Whether bundles of the topic go live; while false the newest one is kept and considered later",
            )
        },
        fixed(
            "accept_runs",
            Value::StringArray(Vec::new()),
            any,
            "Training runs that may take over from the first one; '*' is any, empty is none",
        ),
        fixed(
            "command_topic_type",
            text("float64_multi_array"),
            command_topic,
            "Type of the topic commands: float64_multi_array or joint_trajectory",
        ),
        fixed(
            "robot",
            text(""),
            any,
            "Name of the robot that a bundle must be for; empty takes the first bundle's",
        ),
        fixed(
            "realtime_priority",
            Value::Integer(0),
            priority,
            "SCHED_FIFO priority of the control thread, 1 to 99; 0 leaves it to the ordinary scheduler",
        ),
    ]
}

impl Config {
    /// Reads parameters that [`declared`] made and checked.
    ///
    /// # Errors
    /// A value that fails its check, which is then the default's fault.
    pub fn read(parameters: &Parameters) -> Result<Self, ParameterError> {
        let read = Read(parameters);
        let policy = read.text("policy")?;
        let rate = read.number("rate")?;
        Ok(Self {
            policy: (!policy.is_empty()).then(|| policy.into()),
            device: read.text("device")?,
            rate: (rate > 0.0).then_some(rate),
            trigger: read.named("trigger", Trigger::from_name)?,
            candidates: read.whole("candidates")? as usize,
            seed: read.whole("seed")?,
            stale_after: (read.number("stale_timeout")? * 1e9) as u64,
            fallback: read.named("fallback", FallbackChoice::from_name)?,
            damping: read.number("damping")?,
            accept_bundles: read.get(ACCEPT_BUNDLES)? == &Value::Bool(true),
            accept_runs: match read.get("accept_runs")? {
                Value::StringArray(runs) => runs.clone(),
                _ => Vec::new(),
            },
            command_topic: read.named("command_topic_type", |name| match name {
                "float64_multi_array" => Some(CommandTopic::Float64MultiArray),
                "joint_trajectory" => Some(CommandTopic::JointTrajectory),
                _ => None,
            })?,
            robot: read.text("robot")?,
            realtime_priority: read.whole("realtime_priority")?,
        })
    }
}

struct Read<'a>(&'a Parameters);

impl Read<'_> {
    fn get(&self, name: &str) -> Result<&Value, ParameterError> {
        self.0.get(name).ok_or_else(|| bad(name, "is not declared"))
    }

    fn text(&self, name: &str) -> Result<String, ParameterError> {
        match self.get(name)? {
            Value::String(text) => Ok(text.clone()),
            other => Err(bad(name, &format!("expected text, got {other:?}"))),
        }
    }

    fn number(&self, name: &str) -> Result<f64, ParameterError> {
        match self.get(name)? {
            Value::Double(number) => Ok(*number),
            other => Err(bad(name, &format!("expected a number, got {other:?}"))),
        }
    }

    fn whole(&self, name: &str) -> Result<u64, ParameterError> {
        match self.get(name)? {
            Value::Integer(number) if *number >= 0 => Ok(number.unsigned_abs()),
            other => Err(bad(
                name,
                &format!("expected a whole number from 0, got {other:?}"),
            )),
        }
    }

    fn named<T>(&self, name: &str, value: impl Fn(&str) -> Option<T>) -> Result<T, ParameterError> {
        let text = self.text(name)?;
        value(&text).ok_or_else(|| bad(name, &format!("got '{text}'")))
    }
}

fn bad(name: &str, reason: &str) -> ParameterError {
    ParameterError::BadValue {
        name: name.to_owned(),
        reason: reason.to_owned(),
    }
}

fn any(_: &Value) -> Result<(), String> {
    Ok(())
}

fn one_of(value: &Value, names: &[&'static str]) -> Result<(), String> {
    match value {
        Value::String(text) if names.contains(&text.as_str()) => Ok(()),
        Value::String(text) => Err(format!(
            "expected one of {}, got '{text}'; did you mean '{}'?",
            names.join(", "),
            closest(text, names.iter().copied()).unwrap_or_default()
        )),
        other => Err(format!("expected one of {}, got {other:?}", names.join(", "))),
    }
}

fn trigger(value: &Value) -> Result<(), String> {
    one_of(value, &Trigger::NAMES)
}

fn fallback(value: &Value) -> Result<(), String> {
    one_of(value, &FallbackChoice::NAMES)
}

fn command_topic(value: &Value) -> Result<(), String> {
    one_of(value, &CommandTopic::NAMES)
}

fn device(value: &Value) -> Result<(), String> {
    match value {
        Value::String(text) if text.parse::<DeviceName>().is_ok() => Ok(()),
        other => Err(format!("expected cpu, cuda or cuda:N, got {other:?}")),
    }
}

fn in_range(value: &Value, fits: impl Fn(f64) -> bool, expected: &str) -> Result<(), String> {
    match value {
        Value::Double(number) if number.is_finite() && fits(*number) => Ok(()),
        Value::Double(number) => Err(format!("expected {expected}, got {number}")),
        other => Err(format!("expected {expected}, got {other:?}")),
    }
}

fn positive(value: &Value) -> Result<(), String> {
    in_range(value, |number| number > 0.0, "a finite number above 0")
}

fn not_negative(value: &Value) -> Result<(), String> {
    in_range(value, |number| number >= 0.0, "a finite number from 0")
}

fn not_negative_integer(value: &Value) -> Result<(), String> {
    match value {
        Value::Integer(number) if *number >= 0 => Ok(()),
        other => Err(format!("expected a whole number from 0, got {other:?}")),
    }
}

fn priority(value: &Value) -> Result<(), String> {
    match value {
        Value::Integer(0..=99) => Ok(()),
        other => Err(format!("expected a whole number from 0 to 99, got {other:?}")),
    }
}

fn candidates(value: &Value) -> Result<(), String> {
    match value {
        Value::Integer(n) if (1..=MOST_CANDIDATES).contains(n) => Ok(()),
        other => Err(format!(
            "expected a whole number from 1 to {MOST_CANDIDATES}, got {other:?}"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(name: &str, value: Value) -> Result<Config, ParameterError> {
        let mut parameters = Parameters::new(declared());
        parameters.set(name, &value)?;
        Config::read(&parameters)
    }

    #[test]
    fn the_defaults_make_a_configuration() {
        let config = Config::read(&Parameters::new(declared())).unwrap();
        assert_eq!((config.policy, config.rate, config.candidates), (None, None, 1));
        assert_eq!(
            (config.trigger, config.stale_after),
            (Trigger::FixedRate, 100_000_000)
        );
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
            ("candidates", Value::Integer(0), "whole number from 1 to"),
            ("seed", Value::Integer(-1), "from 0"),
            ("realtime_priority", Value::Integer(100), "from 0 to 99"),
            ("stale_timeout", Value::Double(0.0), "above 0"),
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
}
