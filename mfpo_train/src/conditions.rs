//! Under which conditions a policy is measured. A run has measured its policies under the section `[environment]` of its
//! configuration - the action delay above all -, and so is its last checkpoint, and its bundle, where the run's folder is around
//! it; elsewhere the conditions are the task's own.

use std::fmt::{self, Display, Formatter};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use mfpo_policy::bundle::Manifest;
use mfpo_sim::Randomization;
use serde::Serialize;

use crate::config::{self, TrainConfig};
use crate::run_info::RunInfo;

/// Which conditions are wanted.
#[derive(clap::Args)]
pub struct ConditionArgs {
    /// What differs between episodes: as in the run, whose folder the bundle lies in, or as the task has it on its own
    /// [default: run, where the folder is there and is of the task]
    #[arg(long, value_enum, value_name = "WHOSE")]
    environment: Option<Whose>,
    /// Change one number of it, for example environment.action_delay_max=0.02; may be repeated
    #[arg(long = "set", value_name = "environment.KEY=VALUE")]
    overrides: Vec<String>,
}

/// Whose conditions they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Whose {
    /// Those of the training run
    Run,
    /// The task's own
    Task,
}

/// Conditions of a measurement.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Conditions {
    /// Where they come from.
    pub environment_of: Whose,
    /// What differs between episodes.
    pub environment: Randomization,
}

impl ConditionArgs {
    /// The conditions for the bundle in `file`, measured on `task`.
    ///
    /// # Errors
    /// When those of the run are wanted and its folder is not there, or a change is none of them.
    pub fn resolve(&self, file: &Path, manifest: &Manifest, task: &str) -> anyhow::Result<Conditions> {
        let run = folder_of_run(file, &manifest.run);
        let environment_of = match (self.environment, &run) {
            (Some(whose), _) => whose,
            (None, Some((_, info))) if info.task == task => Whose::Run,
            (None, _) => Whose::Task,
        };
        let own = match (environment_of, run) {
            (Whose::Task, run) => {
                if self.environment.is_none() && self.overrides.is_empty() && run.is_none() {
                    tracing::info!(
                        "measured as the task is on its own: the folder of the run '{}' is not around {}, and whether it had \
                         another action delay is not known; --set environment.KEY=VALUE says so",
                        manifest.run,
                        file.display()
                    );
                }
                Randomization::default()
            }
            (Whose::Run, Some((folder, _))) => environment_of_run(&folder)?,
            (Whose::Run, None) => bail!(
                "--environment run: {} does not lie in the folder of its run '{}'; expected run.json and config.toml beside it \
                 or above it; use --environment task, with --set environment.KEY=VALUE for what the run had",
                file.display(),
                manifest.run
            ),
        };
        self.changed(environment_of, &own)
    }

    /// The conditions for a policy that a run has learnt on the task `learnt` under `own`, measured on `task`.
    ///
    /// # Errors
    /// When a change is none of the conditions.
    pub fn resolve_in_run(
        &self,
        (learnt, own): (&str, &Randomization),
        task: &str,
    ) -> anyhow::Result<Conditions> {
        let usual = if learnt == task { Whose::Run } else { Whose::Task };
        match self.environment.unwrap_or(usual) {
            Whose::Run => self.changed(Whose::Run, own),
            Whose::Task => self.changed(Whose::Task, &Randomization::default()),
        }
    }

    fn changed(&self, environment_of: Whose, own: &Randomization) -> anyhow::Result<Conditions> {
        Ok(Conditions {
            environment_of,
            environment: config::environment(own, &self.overrides)?,
        })
    }
}

/// The folder of `run` that the bundle lies in, directly or in `bundles`.
fn folder_of_run(file: &Path, run: &str) -> Option<(PathBuf, RunInfo)> {
    // A link to a bundle is as good as the bundle.
    let file = file.canonicalize().ok()?;
    file.ancestors().skip(1).take(2).find_map(|folder| {
        let info = RunInfo::read(folder).ok()?;
        (info.run == run).then(|| (folder.to_owned(), info))
    })
}

fn environment_of_run(folder: &Path) -> anyhow::Result<Randomization> {
    let path = folder.join("config.toml");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let config = TrainConfig::parse(&text, &[]).with_context(|| path.display().to_string())?;
    Ok(config.environment)
}

impl Display for Conditions {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let e = &self.environment;
        match (e.action_delay_min, e.action_delay_max) {
            (_, None) => write!(f, "the task's own action delay")?,
            (_, Some(0.0)) => write!(f, "no action delay")?,
            (shortest, Some(longest)) => {
                write!(f, "action delay {} to {} ms", shortest * 1e3, longest * 1e3)?;
            }
        }
        for (what, value) in [
            ("position_noise", e.position_noise),
            ("velocity_noise", e.velocity_noise),
            ("mass", e.mass),
            ("damping", e.damping),
            ("effort", e.effort),
        ] {
            if value != 0.0 {
                write!(f, ", {what} {value}")?;
            }
        }
        let whose = match self.environment_of {
            Whose::Run => "run",
            Whose::Task => "task",
        };
        write!(f, " (of the {whose})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_measured_under_its_own_conditions_on_its_own_task() {
        let own = Randomization {
            mass: 0.2,
            ..Randomization::none()
        };
        for (environment, task, whose, mass) in [
            (None, "reach_arm", Whose::Run, 0.2),
            (None, "swing_arm", Whose::Task, 0.0),
            (Some(Whose::Task), "reach_arm", Whose::Task, 0.0),
            (Some(Whose::Run), "swing_arm", Whose::Run, 0.2),
        ] {
            let args = ConditionArgs {
                environment,
                overrides: vec!["environment.effort=0.1".to_owned()],
            };
            let got = args.resolve_in_run(("reach_arm", &own), task).unwrap();
            assert_eq!((got.environment_of, got.environment.mass), (whose, mass));
            assert_eq!(got.environment.effort, 0.1);
        }
    }

    #[test]
    fn conditions_are_told_in_words() {
        let mut conditions = Conditions {
            environment_of: Whose::Task,
            environment: Randomization::default(),
        };
        assert_eq!(
            conditions.to_string(),
            "the task's own action delay (of the task)"
        );
        conditions.environment = Randomization {
            action_delay_min: 0.004,
            action_delay_max: Some(0.02),
            mass: 0.1,
            ..Randomization::none()
        };
        conditions.environment_of = Whose::Run;
        assert_eq!(
            conditions.to_string(),
            "action delay 4 to 20 ms, mass 0.1 (of the run)"
        );
    }
}
