//! How good a policy is: episodes in an environment of its own seeds, actions from the sampler that the robot runs (SAC: the mode).
//!
//! With `candidates` = 1 each action is one sample. With more, the bundle's target critics choose the best of them,
//! as the paper does. Nothing of the training's randomness is used.

use anyhow::Context;
use mfpo_policy::noise::NormalNoise;
use mfpo_policy::sampler::{ActionSampler, SampleError};
use mfpo_sim::env::{Env, evaluation_seed};
use serde::{Deserialize, Serialize};

/// What to measure.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Episodes.
    pub episodes: u64,
    /// Candidates an action; 1 for no selection.
    pub candidates: usize,
    /// Another seed, other starts.
    pub seed: u64,
}

/// A policy that can be measured.
pub trait Actor {
    /// Components of an action.
    fn action_size(&self) -> usize;

    /// Can it choose among candidates?
    fn selects(&self) -> bool {
        false
    }

    /// Writes the action for `observation`, the best of `candidates` where the policy can choose.
    ///
    /// # Errors
    /// When a size does not fit, or the action is not finite.
    fn act(
        &mut self,
        observation: &[f32],
        noise: &mut NormalNoise,
        candidates: usize,
        action: &mut [f32],
    ) -> Result<(), SampleError>;
}

impl Actor for ActionSampler {
    fn action_size(&self) -> usize {
        ActionSampler::action_size(self)
    }

    fn selects(&self) -> bool {
        self.has_critics()
    }

    fn act(
        &mut self,
        observation: &[f32],
        noise: &mut NormalNoise,
        candidates: usize,
        action: &mut [f32],
    ) -> Result<(), SampleError> {
        let mut draws = vec![0.0; candidates * action.len()]; // [N, A]
        noise.fill(&mut draws);
        self.sample_into(observation, &draws, candidates, action)?;
        Ok(())
    }
}

/// Somebody who looks on while a policy is measured, and changes nothing.
pub trait Onlooker {
    /// Looks at `env` after the reset of `episode` (`step` is 0) and after each of its steps.
    fn look(&mut self, episode: u64, step: u64, env: &mut dyn Env);
}

/// Nobody looks on.
impl Onlooker for () {
    fn look(&mut self, _: u64, _: u64, _: &mut dyn Env) {}
}

/// What was measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Mean of the returns.
    pub mean_return: f64,
    /// Their standard deviation.
    pub std_return: f64,
    /// Share of episodes that succeeded; absent when the task does not define success.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub success: Option<f64>,
    /// Mean length of an episode, steps.
    pub mean_length: f64,
    /// Episodes.
    pub episodes: u64,
    /// Candidates an action.
    pub candidates: usize,
    /// The same starts with one sample an action, where the evaluation chose among candidates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub without_selection: Option<Returns>,
}

/// Returns of an evaluation.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Returns {
    /// Their mean.
    pub mean_return: f64,
    /// Their standard deviation.
    pub std_return: f64,
}

/// [`evaluate_before`] as the plan says, and where that chooses among candidates also without a choice.
pub fn evaluate_both_ways(
    env: &mut dyn Env,
    policy: &mut dyn Actor,
    plan: Plan,
    onlooker: &mut dyn Onlooker,
) -> anyhow::Result<Evaluation> {
    let mut evaluation = evaluate_before(env, policy, plan, onlooker)?;
    if plan.candidates > 1 && policy.selects() {
        let plan = Plan {
            candidates: 1,
            ..plan
        };
        let plain = evaluate(env, policy, plan)?;
        evaluation.without_selection = Some(Returns {
            mean_return: plain.mean_return,
            std_return: plain.std_return,
        });
    }
    Ok(evaluation)
}

/// Runs the episodes of `plan` in `env`.
pub fn evaluate(env: &mut dyn Env, policy: &mut dyn Actor, plan: Plan) -> anyhow::Result<Evaluation> {
    evaluate_before(env, policy, plan, &mut ())
}

/// [`evaluate`] while somebody looks on.
pub fn evaluate_before(
    env: &mut dyn Env,
    policy: &mut dyn Actor,
    plan: Plan,
    onlooker: &mut dyn Onlooker,
) -> anyhow::Result<Evaluation> {
    let mut stage = Stage {
        env,
        policy,
        onlooker,
        noise: NormalNoise::new(plan.seed),
        plan,
    };
    let mut episodes = Vec::new();
    for index in 0..plan.episodes {
        let episode = stage.run_episode(index);
        episodes.push(episode.with_context(|| format!("evaluation episode {index}"))?);
    }
    Ok(summarise(&episodes, plan))
}

/// One episode.
#[derive(Debug, Clone, Copy)]
struct Episode {
    total_reward: f64,
    length: u64,
    success: Option<bool>,
}

/// What episodes are run with.
struct Stage<'a> {
    env: &'a mut dyn Env,
    policy: &'a mut dyn Actor,
    onlooker: &'a mut dyn Onlooker,
    noise: NormalNoise,
    plan: Plan,
}

impl Stage<'_> {
    fn run_episode(&mut self, index: u64) -> anyhow::Result<Episode> {
        let mut observation = self.env.reset(evaluation_seed(self.plan.seed, index))?;
        let mut action = vec![0.0; self.policy.action_size()];
        let mut episode = Episode {
            total_reward: 0.0,
            length: 0,
            success: None,
        };
        loop {
            self.onlooker.look(index, episode.length, self.env);
            self.policy
                .act(&observation, &mut self.noise, self.plan.candidates, &mut action)?;
            let step = self.env.step(&action)?;
            episode.total_reward += step.reward;
            episode.length += 1;
            if step.terminated || step.truncated {
                self.onlooker.look(index, episode.length, self.env);
                episode.success = step.info.success;
                return Ok(episode);
            }
            observation = step.observation;
        }
    }
}

fn summarise(episodes: &[Episode], plan: Plan) -> Evaluation {
    let count = episodes.len() as f64;
    let mean_return = episodes.iter().map(|e| e.total_reward).sum::<f64>() / count;
    let variance = episodes
        .iter()
        .map(|e| (e.total_reward - mean_return).powi(2))
        .sum::<f64>()
        / count;
    let successes: Option<Vec<bool>> = episodes.iter().map(|e| e.success).collect();
    Evaluation {
        mean_return,
        std_return: variance.sqrt(),
        success: successes.map(|all| all.iter().filter(|success| **success).count() as f64 / count),
        mean_length: episodes.iter().map(|e| e.length as f64).sum::<f64>() / count,
        episodes: plan.episodes,
        candidates: plan.candidates,
        without_selection: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAN: Plan = Plan {
        episodes: 2,
        candidates: 1,
        seed: 0,
    };

    fn episode(total_reward: f64, success: Option<bool>) -> Episode {
        Episode {
            total_reward,
            length: 10,
            success,
        }
    }

    #[test]
    fn mean_deviation_and_success_are_those_of_the_episodes() {
        let told = summarise(&[episode(1.0, Some(true)), episode(5.0, Some(false))], PLAN);
        assert_eq!(
            (told.mean_return, told.std_return, told.success, told.mean_length),
            (3.0, 2.0, Some(0.5), 10.0)
        );
    }

    #[test]
    fn a_task_without_success_has_none() {
        assert_eq!(
            summarise(&[episode(1.0, None), episode(5.0, None)], PLAN).success,
            None
        );
    }
}
