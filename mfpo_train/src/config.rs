//! What a run is made of: numbers from a TOML file, changed by `--set section.key=value`.
//!
//! A configuration is the built-in one of the task (`configs/<task>.toml`, else `configs/paper.toml`), then the file
//! given with `--config` laid over it, then each `--set`. A key that does not exist is refused with the closest one.

mod error;
mod source;

use mfpo_policy::device::DeviceName;
use mfpo_policy::sampler::ActionSampler;
use mfpo_sim::{Randomization, TaskOptions};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use crate::algorithm::AlgorithmKind;
use crate::learner::LearnerConfig;
use crate::sac::SacConfig;

pub use error::ConfigError;
pub use source::{BUILT_IN, built_in_names};
use source::{DEFAULT, apply_override, built_in, merge, read, table};

const SECTIONS: [&str; 6] = ["run", "evaluation", "environment", "task", "learner", "sac"];

/// Everything a run depends on, beside the task and the seed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrainConfig {
    /// Lengths and intervals.
    pub run: RunConfig,
    /// How the policy is measured during the run.
    pub evaluation: EvaluationConfig,
    /// What differs between episodes, in training and in evaluation: the action delay above all.
    pub environment: Randomization,
    /// The task's own options, for example `frame_skip`; the section may be left out.
    #[serde(default)]
    pub task: TaskOptions,
    /// MFPO.
    pub learner: LearnerConfig,
    /// SAC, its peer; the section may be left out.
    pub sac: SacConfig,
}

/// Lengths and intervals, in environment steps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunConfig {
    /// Who learns: `mfpo` with the numbers of `[learner]`, or `sac` with those of `[sac]`.
    #[serde(default)]
    pub algorithm: AlgorithmKind,
    /// Where the updates are computed: `cpu`, `cuda` or `cuda:N`.
    #[serde(default)]
    pub device: DeviceName,
    /// Learns from `(observation - mean) / deviation` with running statistics.
    #[serde(default)]
    pub normalize_observations: bool,
    /// Each bundle carries a guard that the observations which the training met last do not trip.
    #[serde(default)]
    pub guard: bool,
    /// Length of the run.
    pub steps: u64,
    /// Uniformly random actions at the start; no update, bundle or evaluation happens before they are done. The step after
    /// them has the first.
    pub random_steps: u64,
    /// Transitions that the replay buffer holds.
    pub replay_capacity: usize,
    /// Between two lines of `metrics.jsonl` and of `--json-progress`.
    pub report_every: u64,
    /// Between two bundles.
    pub publish_every: u64,
    /// Between two checkpoints, from which `--resume` goes on.
    #[serde(default = "RunConfig::checkpoint_every")]
    pub checkpoint_every: u64,
    /// A checkpoint is also due when the last one is this old, s; 0: never.
    #[serde(default = "RunConfig::checkpoint_seconds")]
    pub checkpoint_seconds: u64,
    /// Environments that step at the same time. Each step of each is followed by an update, so that the policy that acts
    /// is up to this many updates old.
    #[serde(default = "RunConfig::environments")]
    pub environments: usize,
}

impl RunConfig {
    fn checkpoint_every() -> u64 {
        10_000
    }

    fn checkpoint_seconds() -> u64 {
        300
    }

    fn environments() -> usize {
        1
    }
}

/// How the policy is measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvaluationConfig {
    /// Between two evaluations, environment steps.
    pub every: u64,
    /// Episodes of an evaluation.
    pub episodes: u64,
    /// Candidates of which the target critics choose the best; 1 for none.
    pub candidates: usize,
    /// Where there are candidates, measures the same starts also with one sample an action.
    #[serde(default = "EvaluationConfig::without_selection")]
    pub without_selection: bool,
}

impl EvaluationConfig {
    fn without_selection() -> bool {
        true
    }
}

impl TrainConfig {
    /// The configuration of `task`: built-in, then the file or built-in name `source`, then `overrides`.
    pub fn load(task: &str, source: Option<&str>, overrides: &[String]) -> Result<Self, ConfigError> {
        let mut table = built_in(task).or_else(|| built_in(DEFAULT)).unwrap_or_default();
        match source {
            Some(name) if built_in(name).is_some() => table = built_in(name).unwrap_or_default(),
            Some(path) => merge(&mut table, read(path)?),
            None => {}
        }
        Self::overridden(table, overrides)
    }

    /// The configuration that [`TrainConfig::to_toml`] wrote, then `overrides`.
    pub fn parse(text: &str, overrides: &[String]) -> Result<Self, ConfigError> {
        Self::overridden(table("the configuration in the checkpoint", text)?, overrides)
    }

    fn overridden(mut table: Table, overrides: &[String]) -> Result<Self, ConfigError> {
        for text in overrides {
            apply_override(&mut table, text)?;
        }
        let config = Self::from_table(table)?;
        config.check()?;
        Ok(config)
    }

    /// The configuration as TOML, for the run folder; `load` reads it back.
    pub fn to_toml(&self) -> Result<String, toml::ser::Error> {
        toml::to_string_pretty(self)
    }

    fn from_table(mut table: Table) -> Result<Self, ConfigError> {
        fill_in_sizes(&mut table);
        let config = Self {
            run: section(&mut table, "run")?,
            evaluation: section(&mut table, "evaluation")?,
            environment: section(&mut table, "environment")?,
            task: section(&mut table, "task")?,
            learner: section(&mut table, "learner")?,
            sac: section(&mut table, "sac")?,
        };
        match table.keys().next() {
            None => Ok(config),
            Some(unknown) => Err(ConfigError::UnknownSection {
                section: unknown.clone(),
                closest: closest(unknown, SECTIONS),
            }),
        }
    }

    fn check(&self) -> Result<(), ConfigError> {
        let positive = [
            ("run.steps", self.run.steps),
            ("run.report_every", self.run.report_every),
            ("run.publish_every", self.run.publish_every),
            ("run.checkpoint_every", self.run.checkpoint_every),
            ("run.environments", self.run.environments as u64),
            ("run.replay_capacity", self.run.replay_capacity as u64),
            ("run.random_steps", self.run.random_steps),
            ("evaluation.every", self.evaluation.every),
            ("evaluation.episodes", self.evaluation.episodes),
        ];
        for (key, got) in positive {
            require(got >= 1, key, "a whole number of 1 or more", got)?;
        }
        let (candidates, most) = (self.evaluation.candidates, ActionSampler::MOST_CANDIDATES);
        let expected = format!("a whole number from 1 to {most}, as many as a sampler has room for");
        require(
            (1..=most).contains(&candidates),
            "evaluation.candidates",
            &expected,
            candidates,
        )?;
        Ok(self.environment.validate()?)
    }

    /// Takes the sizes from the task; a configuration that states others is refused.
    pub fn set_sizes(&mut self, observation_size: usize, action_size: usize) -> Result<(), ConfigError> {
        let (learner, sac) = (&mut self.learner, &mut self.sac);
        for (key, stated, task) in [
            (
                "learner.observation_size",
                &mut learner.observation_size,
                observation_size,
            ),
            ("learner.action_size", &mut learner.action_size, action_size),
            (
                "sac.observation_size",
                &mut sac.observation_size,
                observation_size,
            ),
            ("sac.action_size", &mut sac.action_size, action_size),
        ] {
            let expected = format!("{task}, the size of the task (leave the key out)");
            require(*stated == 0 || *stated == task, key, &expected, *stated)?;
            *stated = task;
        }
        Ok(())
    }
}

/// The section `[environment]` changed by `overrides`, `environment.key=value` each.
///
/// # Errors
/// When an override is none of this section, or a range makes no sense.
pub fn environment(own: &Randomization, overrides: &[String]) -> Result<Randomization, ConfigError> {
    let unreadable = |error: toml::ser::Error| ConfigError::Section {
        section: "environment",
        reason: error.to_string(),
    };
    let own = Value::try_from(own).map_err(unreadable)?;
    let mut table = Table::new();
    table.insert("environment".to_owned(), own);
    for text in overrides {
        apply_override(&mut table, text)?;
    }
    let changed: Randomization = section(&mut table, "environment")?;
    if let Some(other) = table.keys().next() {
        return Err(ConfigError::OtherSection {
            section: other.clone(),
        });
    }
    changed.validate()?;
    Ok(changed)
}

/// The sizes come from the task: a file need not state them.
fn fill_in_sizes(table: &mut Table) {
    for section in ["sac", "task"] {
        table.entry(section).or_insert_with(|| Value::Table(Table::new()));
    }
    if let Some(Value::Table(learner)) = table.get_mut("learner") {
        for key in ["observation_size", "action_size"] {
            learner.entry(key).or_insert(Value::Integer(0));
        }
    }
}

/// Takes a section out of the table and reads it.
fn section<T: DeserializeOwned>(table: &mut Table, name: &'static str) -> Result<T, ConfigError> {
    let value = table.remove(name).ok_or_else(|| ConfigError::Section {
        section: name,
        reason: "is missing".to_owned(),
    })?;
    value
        .try_into()
        .map_err(|error: toml::de::Error| explain(name, &error))
}

/// Makes serde's "unknown field `x`, expected one of `a`, `b`" name the closest key.
fn explain(section: &'static str, error: &toml::de::Error) -> ConfigError {
    let message = error.message();
    let mut quoted = message.split('`').skip(1).step_by(2).map(str::to_owned);
    match quoted.next() {
        Some(unknown) if message.starts_with("unknown field") => {
            let known: Vec<String> = quoted.collect();
            ConfigError::UnknownKey {
                key: format!("{section}.{unknown}"),
                section: section.to_owned(),
                closest: closest(&unknown, known.iter().map(String::as_str))
                    .map(|key| format!("{section}.{key}")),
                known: known.join(", "),
            }
        }
        _ => ConfigError::Section {
            section,
            reason: error.to_string().trim().replace('\n', " "),
        },
    }
}

/// The candidate that resembles `word` most, if any resembles it.
pub fn closest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<String> {
    candidates
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(word, candidate), candidate))
        .filter(|(score, _)| *score > 0.6)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate.to_owned())
}

fn require(holds: bool, key: &'static str, expected: &str, got: impl ToString) -> Result<(), ConfigError> {
    if holds {
        return Ok(());
    }
    Err(ConfigError::OutOfRange {
        key,
        expected: expected.to_owned(),
        got: got.to_string(),
    })
}

#[cfg(test)]
mod tests;
