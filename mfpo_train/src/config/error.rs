//! Why a configuration was refused: what came, what was expected, what resembles it.

use thiserror::Error;

use super::{SECTIONS, built_in_names};

/// Why a configuration was refused.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// A key that nothing reads.
    #[error("unknown key '{key}' in the configuration{}; the keys of [{section}] are: {known}", closest_hint(.closest))]
    UnknownKey {
        /// The key with its section.
        key: String,
        /// The section it was in.
        section: String,
        /// The valid key that resembles it most.
        closest: Option<String>,
        /// All valid keys of the section.
        known: String,
    },
    /// A section that nothing reads.
    #[error("unknown section '{section}' in the configuration{}; the sections are: {}", closest_hint(.closest), SECTIONS.join(", "))]
    UnknownSection {
        /// The section.
        section: String,
        /// The valid section that resembles it most.
        closest: Option<String>,
    },
    /// A section that a measurement does not read.
    #[error(
        "section [{section}] has no part in a measurement; expected [environment], for example --set \
         environment.action_delay_max=0.02"
    )]
    OtherSection {
        /// The section.
        section: String,
    },
    /// A value of the wrong type, or a key that is missing.
    #[error("section [{section}] of the configuration: {reason}")]
    Section {
        /// The section.
        section: &'static str,
        /// What serde says.
        reason: String,
    },
    /// A number that cannot work.
    #[error("{key} is {got}; expected {expected}")]
    OutOfRange {
        /// The key with its section.
        key: &'static str,
        /// What a valid value looks like.
        expected: String,
        /// The value that came.
        got: String,
    },
    /// A range of the environment that makes no sense.
    #[error("section [environment] of the configuration: {0}")]
    Environment(#[from] mfpo_sim::SimError),
    /// `--set` without a key or a value.
    #[error("--set '{0}' is not of the form section.key=value, for example learner.discount=0.98")]
    Override(String),
    /// Not TOML.
    #[error("{path} is not valid TOML: {reason}")]
    Syntax {
        /// The file.
        path: String,
        /// Where and why.
        reason: String,
    },
    /// Neither a file nor a built-in name.
    #[error(
        "cannot read the configuration '{path}': {source}{}; give a file, or one of the built-in names: {}",
        closest_hint(.closest),
        built_in_names()
    )]
    Read {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
        /// The file there, or the built-in name, that resembles it most.
        closest: Option<String>,
    },
}

fn closest_hint(closest: &Option<String>) -> String {
    closest
        .as_ref()
        .map_or_else(String::new, |key| format!("; did you mean '{key}'?"))
}
