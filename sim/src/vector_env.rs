//! Several environments of one task that step at the same time on all cores.
//!
//! Each environment is alone with its own seed and actions, so that what it gives depends neither on the others nor on the
//! number of threads.

use mfpo_policy::gradient::Team;

use crate::{Env, EnvSpec, SimError, Step};

/// Environments of one task, each at a place of its own.
pub struct VectorEnv {
    envs: Vec<Box<dyn Env>>,
    team: Team,
}

impl VectorEnv {
    /// Puts `envs` side by side; `team` steps them.
    ///
    /// # Errors
    /// [`SimError::Option`] when there is none, or they differ in their sizes.
    pub fn new(envs: Vec<Box<dyn Env>>, team: Team) -> Result<Self, SimError> {
        let sizes = |env: &dyn Env| (env.spec().observation_size, env.spec().action_size);
        let Some(first) = envs.first() else {
            return Err(SimError::Option {
                what: "environments",
                expected: "1 or more",
                got: 0.0,
            });
        };
        if let Some(other) = envs
            .iter()
            .position(|env| sizes(env.as_ref()) != sizes(first.as_ref()))
        {
            return Err(SimError::Option {
                what: "environments",
                expected: "all of the same sizes; the first that differs",
                got: other as f64,
            });
        }
        Ok(Self { envs, team })
    }

    /// What all of them have in common.
    pub fn spec(&self) -> &EnvSpec {
        self.envs[0].spec()
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.envs.len()
    }

    /// Never: there is at least one.
    pub fn is_empty(&self) -> bool {
        self.envs.is_empty()
    }

    /// Starts the episode of `seed` in environment `index`; the others stay where they are.
    ///
    /// # Errors
    /// As [`Env::reset`].
    ///
    /// # Panics
    /// When there is no environment `index`.
    pub fn reset(&mut self, index: usize, seed: u64) -> Result<Vec<f32>, SimError> {
        self.envs[index].reset(seed)
    }

    /// Applies one action to environment `index` alone.
    ///
    /// # Errors
    /// As [`Env::step`].
    ///
    /// # Panics
    /// When there is no environment `index`.
    pub fn step_one(&mut self, index: usize, action: &[f32]) -> Result<Step, SimError> {
        self.envs[index].step(action)
    }

    /// Applies one action to each environment, at the same time; what each gave, in their order.
    ///
    /// # Errors
    /// For another number of actions; else the error of the first environment that has one, as [`Env::step`].
    pub fn step(&mut self, actions: &[Vec<f32>]) -> Result<Vec<Step>, SimError> {
        if actions.len() != self.envs.len() {
            return Err(SimError::Option {
                what: "actions",
                expected: "one for each environment",
                got: actions.len() as f64,
            });
        }
        if let ([env], [action]) = (&mut self.envs[..], actions) {
            return Ok(vec![env.step(action)?]);
        }
        let mut steps: Vec<Option<Result<Step, SimError>>> = actions.iter().map(|_| None).collect();
        let jobs = self.envs.iter_mut().zip(actions).zip(&mut steps).collect();
        self.team
            .each(jobs, |((env, action), step)| *step = Some(env.step(action)));
        // Every job has filled its place.
        steps.into_iter().flatten().collect()
    }
}
