//! Parameters of the node: declared here with default, description, range and check, and read into [`Config`].

use std::path::{Path, PathBuf};

use mfpo_policy::device::DeviceName;
use mfpo_policy::sampler::ActionSampler;
use mfpo_policy::signature::TrustedKeys;
use mfpo_ros::parameters::{Declared, ParameterError, ParameterValue as Value, Parameters, Range, closest};

use crate::control_loop::Settings;
use crate::diagnostics::{Threshold, Thresholds};
use crate::safety::{FallbackChoice, Tightening};
use crate::schedule::Trigger;

const MOST_CANDIDATES: i64 = ActionSampler::MOST_CANDIDATES as i64;
/// No time here is longer, s: what is meant is then certainly something else.
const LONGEST: f64 = 3600.0;

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
    /// Folder whose newest bundle goes live.
    pub policy_folder: Option<PathBuf>,
    /// `cpu` or `cuda[:N]`.
    pub device: String,
    /// Control rate, Hz; `None` takes the policy's.
    pub rate: Option<f64>,
    /// What makes the loop tick.
    pub trigger: Trigger,
    /// What the control loop needs to know besides the policy.
    pub settings: Settings,
    /// Does the node configure and activate itself?
    pub autostart: bool,
    /// Are bundles of the topic looked at?
    pub accept_bundles: bool,
    /// Training runs that may take over from the first one; `*` is any.
    pub accept_runs: Vec<String>,
    /// Whose signatures count.
    pub trusted_keys: TrustedKeys,
    /// How commands are published.
    pub command_topic: CommandTopic,
    /// The robot that a bundle must be for; empty is any.
    pub robot: String,
    /// SCHED_FIFO priority of the control thread; 0 is none.
    pub realtime_priority: u64,
    /// When the diagnostics warn.
    pub thresholds: Thresholds,
    /// Time from /clock?
    pub use_sim_time: bool,
}

fn text(value: &str) -> Value {
    Value::String(value.to_owned())
}

/// The parameters at their defaults.
pub fn declared() -> Vec<Declared> {
    let groups = [policies(), control(), safety(), limits(), diagnostics()];
    groups.into_iter().flatten().collect()
}

/// Where policies come from.
fn policies() -> Vec<Declared> {
    vec![
        Declared::new(
            "policy",
            text(""),
            "Path of the policy bundle to start with; empty waits for the topic policy/bundle",
        ),
        Declared::new(
            "policy_folder",
            text(""),
            "Folder that is watched: its newest *.safetensors goes live once it has passed every check; empty is none",
        ),
        Declared::new("device", text("cpu"), "Where the policy runs: cpu, cuda or cuda:N")
            .check(device, "cpu, cuda or cuda:N"),
        Declared::new(
            "accept_bundles",
            Value::Bool(true),
            "Whether bundles of topic and folder go live; while false the newest one is kept and considered later",
        )
        .at_run_time(),
        Declared::new(
            "accept_runs",
            Value::StringArray(Vec::new()),
            "Training runs that may take over from the first one; '*' is any, empty is none",
        )
        .at_run_time(),
        Declared::new(
            "trusted_keys",
            Value::StringArray(Vec::new()),
            "Public keys whose signatures count, 64 hexadecimal digits or files of `mfpo_train keygen`; empty needs no signature",
        )
        .check(trusted_keys, "64 hexadecimal digits, or a file that holds a public key"),
        Declared::new(
            "robot",
            text(""),
            "Name of the robot that a bundle must be for; empty takes the first bundle's",
        ),
    ]
}

/// How the loop runs.
fn control() -> Vec<Declared> {
    vec![
        Declared::new(
            "autostart",
            Value::Bool(true),
            "Whether the node configures itself and becomes active as soon as the robot is ready; false waits for \
             ros2 lifecycle set (or ~/start)",
        ),
        Declared::new(
            "rate",
            Value::Double(0.0),
            "Control rate [Hz]; 0 takes the policy's own, a policy trained for another rate is refused",
        )
        .check(not_negative, "from 0")
        .range(Range::Double(0.0, 100_000.0)),
        Declared::new(
            "trigger",
            text("fixed_rate"),
            "What makes the loop tick: fixed_rate (newest state at each deadline) or on_state (arriving states)",
        )
        .check(trigger, "fixed_rate or on_state"),
        Declared::new(
            "candidates",
            Value::Integer(1),
            "Actions sampled at each tick [count]; with more than 1 the bundle's critics choose the best",
        )
        .check(candidates, "more than 1 needs a bundle with critics")
        .range(Range::Integer(1, MOST_CANDIDATES))
        .at_run_time(),
        Declared::new("seed", Value::Integer(0), "Seed of the policy's noise")
            .check(not_negative_integer, "from 0")
            .range(Range::Integer(0, i64::MAX)),
        Declared::new(
            "command_topic_type",
            text("float64_multi_array"),
            "Type of the topic commands: float64_multi_array or joint_trajectory",
        )
        .check(command_topic, "float64_multi_array or joint_trajectory"),
        Declared::new(
            "realtime_priority",
            Value::Integer(0),
            "SCHED_FIFO priority of the control thread, 1 to 99, and one less of the middleware's; 0 leaves them to the ordinary scheduler",
        )
        .check(priority, "from 0 to 99")
        .range(Range::Integer(0, 99)),
        Declared::new(
            "use_sim_time",
            Value::Bool(false),
            "Whether stamps come from the topic /clock of a simulator; ages and deadlines stay on the machine's own clock",
        ),
    ]
}

/// What happens when something is wrong.
fn safety() -> Vec<Declared> {
    let seconds = Range::Double(0.0, LONGEST);
    vec![
        Declared::new(
            "stale_timeout",
            Value::Double(0.1),
            "Age at which a joint's state is stale and the fallback acts [s]; at least the control period",
        )
        .check(positive, "above 0")
        .range(seconds)
        .at_run_time(),
        Declared::new(
            "fallback",
            text("auto"),
            "Command while states are stale: auto, hold (position), ramp (velocity), damp (effort), zero (velocity, effort)",
        )
        .check(fallback, "one that fits the robot's command interface")
        .at_run_time(),
        Declared::new(
            "damping",
            Value::Double(0.0),
            "Damping of the effort fallback [N m s/rad]; 0 is full effort at full speed",
        )
        .check(not_negative, "from 0")
        .range(Range::Double(0.0, 1e6))
        .at_run_time(),
        Declared::new(
            "recovery_inputs",
            Value::Integer(1),
            "Good inputs in a row after which the policy takes over from the fallback [count]; 0 waits for ~/start",
        )
        .check(not_negative_integer, "from 0")
        .range(Range::Integer(0, 1_000_000))
        .at_run_time(),
        Declared::new(
            "fade_in",
            Value::Double(0.2),
            "Time over which the policy's command takes over on activation, after a fallback and on a swap [s]; 0 is at once",
        )
        .check(not_negative, "from 0")
        .range(Range::Double(0.0, 60.0))
        .at_run_time(),
        Declared::new(
            "enable_timeout",
            Value::Double(0.0),
            "How long one heartbeat on topic enable permits motion [s]; 0 needs no heartbeat",
        )
        .check(not_negative, "from 0")
        .range(seconds),
    ]
}

/// Limits below those of the bundle's spec.
fn limits() -> Vec<Declared> {
    let largest = Range::Double(0.0, 1e6);
    vec![
        Declared::new(
            "limits.position_margin",
            Value::Double(0.0),
            "Kept away from each position limit of the policy's robot [rad]",
        )
        .check(not_negative, "less than half the range of every joint")
        .range(Range::Double(0.0, 100.0))
        .at_run_time(),
        Declared::new(
            "limits.velocity_scale",
            Value::Double(1.0),
            "Part of the robot's velocity limits that may be used [1]",
        )
        .check(positive, "above 0")
        .range(Range::Double(0.0, 1.0))
        .at_run_time(),
        Declared::new(
            "limits.effort_scale",
            Value::Double(1.0),
            "Part of the robot's effort limits that may be used [1]",
        )
        .check(positive, "above 0")
        .range(Range::Double(0.0, 1.0))
        .at_run_time(),
        Declared::new(
            "limits.command_rate_max",
            Value::Double(0.0),
            "Largest rate of change of a command [rad/s, rad/s^2 or N m/s]; 0 is the robot's own",
        )
        .check(not_negative, "from 0")
        .range(largest)
        .at_run_time(),
        Declared::new(
            "limits.acceleration_max",
            Value::Double(0.0),
            "Largest acceleration of a commanded position or velocity [rad/s^2]; 0 is none",
        )
        .check(not_negative, "from 0")
        .range(largest)
        .at_run_time(),
    ]
}

/// When /diagnostics warns; the names are those of ros2_control's controller_manager.
fn diagnostics() -> Vec<Declared> {
    let threshold = |name, default, description| {
        Declared::new(name, Value::Double(default), description)
            .check(positive, "above 0")
            .range(Range::Double(0.0, 1e9))
            .at_run_time()
    };
    vec![
        threshold(
            "diagnostics.threshold.periodicity.mean_error.warn",
            5.0,
            "Difference between the rate and its average at which /diagnostics warns [Hz]",
        ),
        threshold(
            "diagnostics.threshold.periodicity.mean_error.error",
            10.0,
            "The same, at which it is an error [Hz]",
        ),
        threshold(
            "diagnostics.threshold.periodicity.standard_deviation.warn",
            5.0,
            "Standard deviation of the rate at which /diagnostics warns [Hz]",
        ),
        threshold(
            "diagnostics.threshold.periodicity.standard_deviation.error",
            10.0,
            "The same, at which it is an error [Hz]",
        ),
        threshold(
            "diagnostics.threshold.execution_time.mean.warn",
            1000.0,
            "Average time from state taken to command handed over at which /diagnostics warns [us]",
        ),
        threshold(
            "diagnostics.threshold.execution_time.mean.error",
            2000.0,
            "The same, at which it is an error [us]",
        ),
        threshold(
            "diagnostics.threshold.execution_time.standard_deviation.warn",
            500.0,
            "Standard deviation of that time at which /diagnostics warns [us]",
        ),
        threshold(
            "diagnostics.threshold.execution_time.standard_deviation.error",
            1000.0,
            "The same, at which it is an error [us]",
        ),
    ]
}

/// The words of a parameter that is a list of them.
fn texts(value: &Value) -> Vec<String> {
    match value {
        Value::StringArray(texts) => texts.clone(),
        _ => Vec::new(),
    }
}

fn trusted_keys(value: &Value) -> Result<(), String> {
    read_keys(value).map(|_| ())
}

/// Public keys, each in words or in a file. An empty word is none: a parameter file cannot say an empty list.
fn read_keys(value: &Value) -> Result<TrustedKeys, String> {
    let words = texts(value).into_iter().filter(|word| !word.is_empty());
    let keys = words.map(|word| {
        let text = if Path::new(&word).is_file() {
            std::fs::read_to_string(&word).map_err(|error| format!("cannot read '{word}': {error}"))?
        } else {
            word.clone()
        };
        text.parse().map_err(|error| format!("'{word}': {error}"))
    });
    keys.collect::<Result<_, String>>().map(TrustedKeys)
}

impl Config {
    /// Reads parameters that [`declared`] made and checked.
    ///
    /// # Errors
    /// A value that fails its check, which is then the default's fault.
    pub fn read(parameters: &Parameters) -> Result<Self, ParameterError> {
        let read = Read(parameters);
        let rate = read.number("rate")?;
        Ok(Self {
            policy: read.path("policy")?,
            policy_folder: read.path("policy_folder")?,
            device: read.text("device")?,
            rate: (rate > 0.0).then_some(rate),
            trigger: read.named("trigger", Trigger::from_name)?,
            settings: read.settings()?,
            autostart: read.flag("autostart")?,
            accept_bundles: read.flag("accept_bundles")?,
            accept_runs: texts(read.get("accept_runs")?),
            trusted_keys: read_keys(read.get("trusted_keys")?).unwrap_or_default(),
            command_topic: read.named("command_topic_type", |name| match name {
                "float64_multi_array" => Some(CommandTopic::Float64MultiArray),
                "joint_trajectory" => Some(CommandTopic::JointTrajectory),
                _ => None,
            })?,
            robot: read.text("robot")?,
            realtime_priority: read.whole("realtime_priority")?,
            thresholds: Thresholds {
                periodicity_mean_error: read.threshold("periodicity.mean_error")?,
                periodicity_deviation: read.threshold("periodicity.standard_deviation")?,
                execution_mean: read.threshold("execution_time.mean")?,
                execution_deviation: read.threshold("execution_time.standard_deviation")?,
            },
            use_sim_time: read.flag("use_sim_time")?,
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

    fn path(&self, name: &str) -> Result<Option<PathBuf>, ParameterError> {
        let path = self.text(name)?;
        Ok((!path.is_empty()).then(|| path.into()))
    }

    fn flag(&self, name: &str) -> Result<bool, ParameterError> {
        Ok(self.get(name)? == &Value::Bool(true))
    }

    fn settings(&self) -> Result<Settings, ParameterError> {
        Ok(Settings {
            candidates: self.whole("candidates")? as usize,
            seed: self.whole("seed")?,
            stale_after: self.nanoseconds("stale_timeout")?,
            fallback: self.named("fallback", FallbackChoice::from_name)?,
            damping: self.number("damping")?,
            fade_in: self.number("fade_in")?,
            recovery_inputs: self.whole("recovery_inputs")?,
            enable_timeout: self.nanoseconds("enable_timeout")?,
            tightening: Tightening {
                position_margin: self.number("limits.position_margin")?,
                velocity_scale: self.number("limits.velocity_scale")?,
                effort_scale: self.number("limits.effort_scale")?,
                command_rate_max: self.limit("limits.command_rate_max")?,
                acceleration_max: self.limit("limits.acceleration_max")?,
            },
        })
    }

    /// A limit; 0 is none.
    fn limit(&self, name: &str) -> Result<f64, ParameterError> {
        let limit = self.number(name)?;
        Ok(if limit > 0.0 { limit } else { f64::INFINITY })
    }

    fn nanoseconds(&self, name: &str) -> Result<u64, ParameterError> {
        Ok((self.number(name)? * 1e9) as u64)
    }

    fn threshold(&self, name: &str) -> Result<Threshold, ParameterError> {
        let of = |level: &str| self.number(&format!("diagnostics.threshold.{name}.{level}"));
        Ok(Threshold {
            warn: of("warn")?,
            error: of("error")?,
        })
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
#[path = "config_tests.rs"]
mod tests;
