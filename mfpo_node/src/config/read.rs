//! Values read from declared parameters.

use std::path::{Path, PathBuf};

use mfpo_policy::signature::TrustedKeys;
use mfpo_ros::parameters::{ParameterError, ParameterValue as Value, Parameters, shown};

use super::{CommandTopic, Config};
use crate::control_loop::Settings;
use crate::diagnostics::{Threshold, Thresholds};
use crate::probe::ProbeSettings;
use crate::realtime::Realtime;
use crate::recording;
use crate::safety::{FallbackChoice, Tightening};
use crate::schedule::Trigger;
use crate::weights::StageSettings;

impl Config {
    /// Reads parameters that [`declared()`](super::declared()) made and checked.
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
            allow_downgrade: read.flag("allow_downgrade")?,
            command_topic: read.named("command_topic_type", |name| match name {
                "float64_multi_array" => Some(CommandTopic::Float64MultiArray),
                "joint_trajectory" => Some(CommandTopic::JointTrajectory),
                _ => None,
            })?,
            robot: read.text("robot")?,
            use_robot_description: read.flag("use_robot_description")?,
            dry_run: read.flag("dry_run")?,
            realtime: Realtime {
                priority: read.whole("realtime_priority")?,
                lock_memory: read.flag("lock_memory")?,
                cpu_affinity: read.indices("cpu_affinity")?,
            },
            probe: ProbeSettings {
                is_allowed: read.flag("probe.allowed")?,
                amplitude: read.number("probe.amplitude")?,
                seconds: read.number("probe.seconds")?,
                effort: read.number("probe.effort")?,
                by_hand: read.number("probe.by_hand")?,
                by_hand_timeout: read.number("probe.by_hand_timeout")?,
            },
            thresholds: Thresholds {
                periodicity_mean_error: read.threshold("periodicity.mean_error")?,
                periodicity_deviation: read.threshold("periodicity.standard_deviation")?,
                execution_mean: read.threshold("execution_time.mean")?,
                execution_deviation: read.threshold("execution_time.standard_deviation")?,
            },
            use_sim_time: read.flag("use_sim_time")?,
            recording: read.recording()?,
        })
    }
}
/// Whose signatures count. Read once, at the start, and not with the rest: the keys may lie in files, and one that is gone
/// later must neither keep an operator from changing another parameter nor leave everybody trusted.
///
/// # Errors
/// A key that cannot be read, also where it could when the parameter was checked.
pub fn trusted_keys(parameters: &Parameters) -> Result<TrustedKeys, ParameterError> {
    const NAME: &str = "trusted_keys";
    read_keys(Read(parameters).get(NAME)?).map_err(|reason| bad(NAME, &reason))
}

struct Read<'a>(&'a Parameters);

impl Read<'_> {
    fn get(&self, name: &str) -> Result<&Value, ParameterError> {
        self.0.get(name).ok_or_else(|| bad(name, "is not declared"))
    }

    fn text(&self, name: &str) -> Result<String, ParameterError> {
        match self.get(name)? {
            Value::String(text) => Ok(text.clone()),
            other => Err(bad(name, &format!("expected text, got {}", shown(other)))),
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
            compute_budget: self.nanoseconds("compute_budget")?,
            seed: self.whole("seed")?,
            stale_after: self.nanoseconds("stale_timeout")?,
            fallback: self.named("fallback", FallbackChoice::from_name)?,
            damping: self.number("damping")?,
            fallback_effort: self.numbers("fallback_effort")?,
            fade_in: self.number("fade_in")?,
            recovery_inputs: self.whole("recovery_inputs")?,
            enable_timeout: self.nanoseconds("enable_timeout")?,
            goal_timeout: self.nanoseconds("goal_timeout")?,
            guard: self.flag("guard")?,
            stages: StageSettings {
                shadow: self.number("swap.shadow")?,
                blend: self.number("swap.blend")?,
                probation: self.number("swap.probation")?,
                interventions_rise: self.number("swap.interventions_rise")?,
                latency_factor: self.number("swap.latency_factor")?,
            },
            tightening: Tightening {
                position_margin: self.number("limits.position_margin")?,
                velocity_scale: self.number("limits.velocity_scale")?,
                effort_scale: self.number("limits.effort_scale")?,
                command_rate_max: self.limit("limits.command_rate_max")?,
                acceleration_max: self.limit("limits.acceleration_max")?,
            },
        })
    }

    fn recording(&self) -> Result<Option<recording::Settings>, ParameterError> {
        let Some(folder) = self.path("record.folder")? else {
            return Ok(None);
        };
        Ok(Some(recording::Settings {
            folder,
            mode: self.named("record.mode", recording::Mode::from_name)?,
            before: self.nanoseconds("record.seconds")?,
            after: self.nanoseconds("record.seconds_after")?,
            file_time: self.nanoseconds("record.file_seconds")?,
            most_bytes: self.whole("record.megabytes_max")? * 1_000_000,
        }))
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
            other => Err(bad(name, &format!("expected a number, got {}", shown(other)))),
        }
    }

    fn whole(&self, name: &str) -> Result<u64, ParameterError> {
        match self.get(name)? {
            Value::Integer(number) if *number >= 0 => Ok(number.unsigned_abs()),
            other => Err(bad(
                name,
                &format!("expected a whole number from 0, got {}", shown(other)),
            )),
        }
    }

    fn indices(&self, name: &str) -> Result<Vec<usize>, ParameterError> {
        match self.get(name)? {
            Value::IntegerArray(numbers) => Ok(numbers.iter().map(|n| *n as usize).collect()),
            other => Err(bad(
                name,
                &format!("expected whole numbers, got {}", shown(other)),
            )),
        }
    }

    fn numbers(&self, name: &str) -> Result<Vec<f64>, ParameterError> {
        match self.get(name)? {
            Value::DoubleArray(numbers) => Ok(numbers.clone()),
            other => Err(bad(name, &format!("expected numbers, got {}", shown(other)))),
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
/// The words of a parameter that is a list of them.
fn texts(value: &Value) -> Vec<String> {
    match value {
        Value::StringArray(texts) => texts.clone(),
        _ => Vec::new(),
    }
}
/// Public keys, each in words or in a file. An empty word is none: a parameter file cannot say an empty list.
pub(super) fn read_keys(value: &Value) -> Result<TrustedKeys, String> {
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
