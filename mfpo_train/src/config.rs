//! What a run is made of: numbers from a TOML file, changed by `--set section.key=value`.
//!
//! A configuration is the built-in one of the task (`configs/<task>.toml`, else `configs/paper.toml`), then the file
//! given with `--config` laid over it, then each `--set`. A key that does not exist is refused with the closest one.

mod error;
mod source;

use mfpo_policy::device::DeviceName;
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
    /// Length of the run.
    pub steps: u64,
    /// Uniformly random actions at the start; no update happens before they are done.
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
    /// Environments that step at the same time. Each step of each is followed by an update, so that the policy that acts
    /// is up to this many updates old.
    #[serde(default = "RunConfig::environments")]
    pub environments: usize,
}

impl RunConfig {
    fn checkpoint_every() -> u64 {
        10_000
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
            ("evaluation.candidates", self.evaluation.candidates as u64),
        ];
        for (key, got) in positive {
            require(got >= 1, key, "a whole number of 1 or more", got)?;
        }
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
mod tests {
    use super::*;

    fn load(overrides: &[&str]) -> Result<TrainConfig, ConfigError> {
        let overrides: Vec<String> = overrides.iter().map(|text| (*text).to_owned()).collect();
        TrainConfig::load("swing_arm", None, &overrides)
    }

    fn refusal(overrides: &[&str]) -> String {
        load(overrides).unwrap_err().to_string()
    }

    #[test]
    fn every_built_in_configuration_loads() {
        for (name, _) in BUILT_IN {
            TrainConfig::load(name, Some(name), &[]).unwrap();
        }
    }

    #[test]
    fn an_override_changes_one_key() {
        let changed = load(&[
            "learner.discount=0.5",
            "learner.temperature=0.2",
            "learner.hidden_sizes=[8, 9]",
            "run.steps = 12",
        ])
        .unwrap();
        assert_eq!((changed.learner.discount, changed.run.steps), (0.5, 12));
        assert_eq!(changed.learner.hidden_sizes, [8, 9]);
        let mut expected = load(&[]).unwrap();
        expected.learner.discount = 0.5;
        expected.learner.initial_temperature = 0.2;
        expected.learner.hidden_sizes = vec![8, 9];
        expected.run.steps = 12;
        assert_eq!(changed, expected);
    }

    #[test]
    fn a_whole_number_may_be_written_with_an_exponent() {
        assert_eq!(load(&["run.steps=1e4"]).unwrap().run.steps, 10_000);
        assert_eq!(load(&["run.steps=2.5e3"]).unwrap().run.steps, 2_500);
        assert!(refusal(&["run.steps=1.5"]).contains("steps"));
        let small = load(&["learner.learning_rate=1e-4"]).unwrap();
        assert_eq!(small.learner.learning_rate, 1e-4);
    }

    #[test]
    fn a_file_that_is_not_there_is_told_with_what_is_near() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("walker.toml"), "").unwrap();
        std::fs::write(at("walker.txt"), "").unwrap();
        let refused = |path: &std::path::Path| {
            let refused = TrainConfig::load("swing_arm", path.to_str(), &[]);
            refused.unwrap_err().to_string()
        };
        let walker = at("walker.toml").display().to_string();
        for typo in ["walkr.toml", "walker"] {
            let text = refused(&at(typo));
            assert!(text.contains(&format!("did you mean '{walker}'?")), "{text}");
        }
        let text = refused(&at("swing_arn.toml"));
        assert!(text.contains("did you mean 'swing_arm'?"), "{text}");
        std::fs::create_dir(at("run")).unwrap();
        std::fs::write(at("run/config.toml"), "").unwrap();
        let text = refused(&at("run"));
        assert!(text.contains("run/config.toml'?"), "{text}");
    }

    #[test]
    fn an_unknown_key_names_the_closest() {
        let text = refusal(&["learner.discout=0.5"]);
        assert!(
            text.contains("'learner.discout'") && text.contains("did you mean 'learner.discount'?"),
            "{text}"
        );
        let text = refusal(&["sac.discout=0.5"]);
        assert!(text.contains("did you mean 'sac.discount'?"), "{text}");
        let text = refusal(&["run.algorithm=ppo"]);
        assert!(
            text.contains("`ppo`") && text.contains("`mfpo` or `sac`"),
            "{text}"
        );
        let text = refusal(&["evaluation.episode=0.5"]);
        assert!(text.contains("did you mean 'evaluation.episodes'?"), "{text}");
        let text = refusal(&["environment.delay=0.5"]);
        assert!(
            text.contains("'environment.delay'") && text.contains("action_delay_max"),
            "{text}"
        );
    }

    #[test]
    fn an_unknown_section_names_the_closest() {
        let text = refusal(&["lerner.discount=0.5"]);
        assert!(text.contains("did you mean 'learner'?"), "{text}");
    }

    #[test]
    fn a_value_of_the_wrong_type_names_its_key() {
        let text = refusal(&["learner.discount=fast"]);
        assert!(
            text.contains("discount") && text.contains("expected f64"),
            "{text}"
        );
        assert!(refusal(&["learner.batch_size=-1"]).contains("batch_size"));
        let text = refusal(&["run.device=gpu"]);
        assert!(text.contains("expected cpu, cuda or cuda:N, got 'gpu'"), "{text}");
    }

    #[test]
    fn an_override_without_section_or_value_is_refused() {
        for text in ["discount=1", "learner.discount", ""] {
            assert!(refusal(&[text]).contains("section.key=value"));
        }
    }

    #[test]
    fn numbers_that_cannot_work_are_refused() {
        assert!(refusal(&["run.steps=0"]).starts_with("run.steps is 0; expected"));
        let text = refusal(&["environment.mass=-1.0"]);
        assert!(text.contains("[environment]") && text.contains("mass"), "{text}");
    }

    #[test]
    fn sizes_come_from_the_task() {
        let mut config = load(&[]).unwrap();
        config.set_sizes(4, 1).unwrap();
        assert_eq!(
            (config.learner.observation_size, config.learner.action_size),
            (4, 1)
        );
        let text = config.set_sizes(5, 1).unwrap_err().to_string();
        assert!(
            text.starts_with("learner.observation_size is 4; expected 5"),
            "{text}"
        );
    }

    #[test]
    fn a_file_lies_over_the_built_in_and_the_resolved_text_loads_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mine.toml");
        std::fs::write(&path, "[learner]\ndiscount = 0.25\n").unwrap();
        let source = path.to_str().unwrap();
        let mut config = TrainConfig::load("swing_arm", Some(source), &[]).unwrap();
        assert_eq!(config.learner.discount, 0.25);
        assert_eq!(config.run, load(&[]).unwrap().run);

        config.set_sizes(4, 1).unwrap();
        std::fs::write(&path, config.to_toml().unwrap()).unwrap();
        assert_eq!(TrainConfig::load("swing_arm", Some(source), &[]).unwrap(), config);
    }

    #[test]
    fn the_delay_of_a_stored_configuration_is_the_tasks_own_unless_it_was_asked_for() {
        let own = load(&[]).unwrap();
        assert_eq!(own.environment, Randomization::default());
        let before = own.to_toml().unwrap().replace(
            "[environment]",
            "[environment]\naction_delay_min = 0.0\naction_delay_max = 0.008",
        );
        assert_eq!(TrainConfig::parse(&before, &[]).unwrap(), own);

        let asked = load(&["environment.action_delay_max=0.008"]).unwrap();
        assert_eq!(asked.environment.action_delay_max, Some(0.008));
        assert_eq!(TrainConfig::parse(&asked.to_toml().unwrap(), &[]).unwrap(), asked);
    }

    #[test]
    fn a_file_that_is_not_there_or_not_toml_is_named() {
        let text = TrainConfig::load("swing_arm", Some("nowhere.toml"), &[])
            .unwrap_err()
            .to_string();
        assert!(
            text.contains("'nowhere.toml'") && text.contains("swing_arm, reach_arm, HalfCheetah-v5, paper"),
            "{text}"
        );
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("broken.toml");
        std::fs::write(&path, "[learner\n").unwrap();
        let text = TrainConfig::load("swing_arm", path.to_str(), &[])
            .unwrap_err()
            .to_string();
        assert!(text.contains("broken.toml is not valid TOML"), "{text}");
    }
}
