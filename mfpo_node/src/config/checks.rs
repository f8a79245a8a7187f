//! What a parameter's value must be, and what is said of one that is not.

use mfpo_policy::device::DeviceName;
use mfpo_policy::sampler::ActionSampler;
use mfpo_ros::parameters::{ParameterValue as Value, closest, shown};

use super::CommandTopic;
use super::read::read_keys;
use crate::realtime::Realtime;
use crate::recording::Mode;
use crate::safety::FallbackChoice;
use crate::schedule::Trigger;

pub(super) const MOST_CANDIDATES: i64 = ActionSampler::MOST_CANDIDATES as i64;

/// For longer than this, s, no robot is commanded without news of it or of its operator: what is meant is then milliseconds.
pub(super) const LONGEST_BLIND: f64 = 10.0;

pub(super) fn trusted_keys(value: &Value) -> Result<(), String> {
    read_keys(value).map(|_| ())
}

/// Whole names only: a pattern that matches nothing would keep every run out without a word.
pub(super) fn runs(value: &Value) -> Result<(), String> {
    let Value::StringArray(runs) = value else {
        return Err(format!("expected names of runs, got {value:?}"));
    };
    let is_pattern = |run: &&String| run.as_str() != "*" && run.contains(['*', '?']);
    match runs.iter().find(is_pattern) {
        None => Ok(()),
        Some(got) => Err(format!(
            "'{got}' is a pattern; expected whole names of runs, or '*' alone for any: name each run that may take over"
        )),
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
        other => Err(format!(
            "expected one of {}, got {}",
            names.join(", "),
            shown(other)
        )),
    }
}

pub(super) fn trigger(value: &Value) -> Result<(), String> {
    one_of(value, &Trigger::NAMES)
}

pub(super) fn record_mode(value: &Value) -> Result<(), String> {
    one_of(value, &Mode::NAMES)
}

pub(super) fn fallback(value: &Value) -> Result<(), String> {
    one_of(value, &FallbackChoice::NAMES)
}

pub(super) fn command_topic(value: &Value) -> Result<(), String> {
    one_of(value, &CommandTopic::NAMES)
}

pub(super) fn device(value: &Value) -> Result<(), String> {
    match value {
        Value::String(text) if text.parse::<DeviceName>().is_ok() => Ok(()),
        other => Err(format!("expected cpu, cuda or cuda:N, got {}", shown(other))),
    }
}

fn in_range(value: &Value, fits: impl Fn(f64) -> bool, expected: &str) -> Result<(), String> {
    match value {
        Value::Double(number) if number.is_finite() && fits(*number) => Ok(()),
        Value::Double(number) => Err(format!("expected {expected}, got {number}")),
        other => Err(format!("expected {expected}, got {}", shown(other))),
    }
}

pub(super) fn positive(value: &Value) -> Result<(), String> {
    in_range(value, |number| number > 0.0, "a finite number above 0")
}

pub(super) fn not_negative(value: &Value) -> Result<(), String> {
    in_range(value, |number| number >= 0.0, "a finite number from 0")
}

/// A time for which the robot may be commanded without news.
pub(super) fn blind_seconds(value: &Value) -> Result<(), String> {
    let expected = format!("seconds above 0, at most {LONGEST_BLIND} (100 ms are 0.1)");
    in_range(value, |number| number > 0.0 && number <= LONGEST_BLIND, &expected)
}

/// The same, where 0 is none.
pub(super) fn blind_seconds_or_none(value: &Value) -> Result<(), String> {
    let expected = format!("seconds from 0, at most {LONGEST_BLIND} (100 ms are 0.1)");
    in_range(value, |number| (0.0..=LONGEST_BLIND).contains(&number), &expected)
}

pub(super) fn finite_numbers(value: &Value) -> Result<(), String> {
    match value {
        Value::DoubleArray(numbers) => match numbers.iter().find(|number| !number.is_finite()) {
            None => Ok(()),
            Some(got) => Err(format!("expected finite numbers, got {got}")),
        },
        other => Err(format!("expected numbers, got {}", shown(other))),
    }
}

pub(super) fn not_negative_integer(value: &Value) -> Result<(), String> {
    match value {
        Value::Integer(number) if *number >= 0 => Ok(()),
        other => Err(format!("expected a whole number from 0, got {}", shown(other))),
    }
}

/// Room for four files of a megabyte.
pub(super) fn megabytes(value: &Value) -> Result<(), String> {
    match value {
        Value::Integer(number) if *number >= 4 => Ok(()),
        other => Err(format!("expected a whole number from 4, got {}", shown(other))),
    }
}

pub(super) fn priority(value: &Value) -> Result<(), String> {
    match value {
        Value::Integer(0..=99) => Ok(()),
        other => Err(format!(
            "expected a whole number from 0 to 99, got {}",
            shown(other)
        )),
    }
}

pub(super) fn cpus(value: &Value) -> Result<(), String> {
    let highest = Realtime::MOST_CPUS as i64 - 1;
    match value {
        Value::IntegerArray(numbers) => match numbers.iter().find(|n| !(0..=highest).contains(*n)) {
            None => Ok(()),
            Some(got) => Err(format!("expected whole numbers from 0 to {highest}, got {got}")),
        },
        other => Err(format!("expected whole numbers from 0, got {}", shown(other))),
    }
}

pub(super) fn candidates(value: &Value) -> Result<(), String> {
    match value {
        Value::Integer(n) if (1..=MOST_CANDIDATES).contains(n) => Ok(()),
        other => Err(format!(
            "expected a whole number from 1 to {MOST_CANDIDATES}, got {}",
            shown(other)
        )),
    }
}
