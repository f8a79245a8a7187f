//! A task's own options, read into its struct.

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{SimError, TaskOptions};

/// Reads `options` into the struct of `task`; names that it does not have are refused with the closest one.
///
/// # Errors
/// [`SimError::TaskOption`].
pub fn read<T: DeserializeOwned>(task: &str, options: &TaskOptions) -> Result<T, SimError> {
    serde_json::from_value(Value::Object(options.clone())).map_err(|error| SimError::TaskOption {
        task: task.to_owned(),
        reason: explain(&error.to_string()),
    })
}

/// A task without options.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoOptions {}

impl NoOptions {
    /// Refuses every option.
    ///
    /// # Errors
    /// [`SimError::TaskOption`].
    pub fn check(task: &str, options: &TaskOptions) -> Result<(), SimError> {
        read::<Self>(task, options).map(|_| ())
    }
}

/// Adds the closest name to serde's "unknown field `x`, expected one of `a`, `b`".
fn explain(message: &str) -> String {
    let mut quoted = message.split('`').skip(1).step_by(2);
    let (Some(unknown), true) = (quoted.next(), message.starts_with("unknown field")) else {
        return format!("an option has a value of another type: {message}");
    };
    let known: Vec<&str> = quoted.collect();
    let similarity = |name: &str| strsim::jaro_winkler(name, unknown);
    let closest = known
        .iter()
        .max_by(|a, b| similarity(a).total_cmp(&similarity(b)));
    match closest {
        Some(closest) => format!(
            "it has no option '{unknown}'; did you mean '{closest}'? Its options are: {}",
            known.join(", ")
        ),
        None => format!("it has no option '{unknown}', and no other"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default, serde::Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Options {
        frame_skip: usize,
        #[allow(dead_code)]
        reset_noise_scale: f64,
    }

    #[test]
    fn unknown_options_name_the_closest_and_types_are_checked() {
        let read = |text: &str| read::<Options>("Ant-v5", &serde_json::from_str(text).unwrap());
        assert_eq!(read(r#"{"frame_skip": 3}"#).unwrap().frame_skip, 3);
        let text = read(r#"{"frame_skp": 3}"#).unwrap_err().to_string();
        assert!(
            text.contains("'Ant-v5'") && text.contains("did you mean 'frame_skip'?"),
            "{text}"
        );
        let text = read(r#"{"frame_skip": -3}"#).unwrap_err().to_string();
        assert!(text.contains("another type"), "{text}");
    }
}
