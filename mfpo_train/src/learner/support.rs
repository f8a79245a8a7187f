//! The value support chosen from observed returns instead of by hand (option `support_from_returns`).
//!
//! The support is the range of the discounted returns of all finished episodes, from each of their steps, widened by half
//! its width on either side. When better (or worse) returns come near an end it is chosen again; the critics' heads are
//! then carried over to the new atoms, so that what they know of values stays, and their moments start anew. So they are where
//! a run goes on with another support that was set by hand.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};
use mfpo_policy::critic::{Critic, ValueSupport};
use mfpo_policy::parameters::{NetworkError, Parameters};

use super::network::TrainedNetwork;
use super::{LearnerError, MfpoLearner};
use crate::state::{State, StateError};

/// Share of the range that is added on either side.
const MARGIN: f64 = 0.5;
/// The support is chosen again when a return comes within this share of its width to an end.
const NEAR: f64 = 0.1;
/// The narrowest range of returns that is taken seriously.
const LEAST_WIDTH: f64 = 1.0;
/// A new atom beyond the old support gets the logit of the old end less this.
const BEYOND: f32 = 5.0;

/// The range of discounted returns.
#[derive(Debug, Clone)]
pub(super) struct ObservedReturns {
    /// Of the episode under way in each environment, at least one.
    rewards: Vec<Vec<f64>>,
    range: Option<(f64, f64)>,
}

impl Default for ObservedReturns {
    fn default() -> Self {
        Self {
            rewards: vec![Vec::new()],
            range: None,
        }
    }
}

impl ObservedReturns {
    pub(super) fn add(&mut self, environment: usize, reward: f64, ended: bool, discount: f64) {
        if environment >= self.rewards.len() {
            self.rewards.resize(environment + 1, Vec::new());
        }
        let rewards = &mut self.rewards[environment];
        rewards.push(reward);
        if !ended {
            return;
        }
        let mut total = 0.0;
        for reward in rewards.drain(..).rev() {
            total = reward + discount * total;
            let (low, high) = self.range.unwrap_or((total, total));
            self.range = Some((low.min(total), high.max(total)));
        }
    }

    pub(super) fn state(&self) -> State<'_> {
        let mut state = State::default();
        for (environment, rewards) in self.rewards.iter().enumerate() {
            state.put(&array_of(environment), &rewards[..]);
        }
        state.put(
            "range",
            self.range.map_or_else(Vec::new, |(low, high)| vec![low, high]),
        );
        state
    }

    pub(super) fn restored(mut state: State<'_>) -> Result<Self, StateError> {
        let mut rewards = vec![state.take_f64(&array_of(0))?];
        // A checkpoint of before has one list, whatever the number of its environments.
        loop {
            match state.take_f64(&array_of(rewards.len())) {
                Ok(more) => rewards.push(more),
                Err(StateError::Missing(_)) => break,
                Err(error) => return Err(error),
            }
        }
        let range = match state.take_f64("range")?[..] {
            [low, high] => Some((low, high)),
            _ => None,
        };
        Ok(Self { rewards, range })
    }

    /// The support to change to, if `now` does not serve; `chosen` says whether `now` was chosen from returns.
    fn support(&self, now: ValueSupport, chosen: bool) -> Option<ValueSupport> {
        let (low, high) = self.range?;
        let near = NEAR * (now.maximum - now.minimum);
        if chosen && low > now.minimum + near && high < now.maximum - near {
            return None;
        }
        let margin = MARGIN * (high - low).max(LEAST_WIDTH);
        let (mut minimum, mut maximum) = (low - margin, high + margin);
        if chosen {
            (minimum, maximum) = (minimum.min(now.minimum), maximum.max(now.maximum));
        }
        Some(ValueSupport {
            minimum,
            maximum,
            atoms: now.atoms,
        })
    }
}

/// Where the rewards of an environment are saved.
fn array_of(environment: usize) -> String {
    match environment {
        0 => "rewards".to_owned(),
        _ => format!("rewards_{environment}"),
    }
}

impl MfpoLearner {
    /// Chooses the support where the option is on and the returns ask for it.
    pub(super) fn choose_support(&mut self) -> Result<(), LearnerError> {
        let Some(returns) = &self.returns else {
            return Ok(());
        };
        let now = self.config.support();
        let Some(new) = returns.support(now, self.support_chosen) else {
            return Ok(());
        };
        tracing::info!(
            "value support {:.1} to {:.1}, from observed returns",
            new.minimum,
            new.maximum
        );
        self.move_support(new)?;
        self.support_chosen = true;
        Ok(())
    }

    /// Carries the critics and their targets over to the atoms of `new`.
    pub(super) fn move_support(&mut self, new: ValueSupport) -> Result<(), LearnerError> {
        let now = self.config.support();
        let (rate, device, engine) = (self.config.learning_rate, self.device.clone(), self.engine);
        let load = move |p: &Parameters| Critic::load(p, new).map(|n| engine.critic(n));
        let moved = |p: &Parameters| carry_over(p, (now, new), &device);
        for critic in &mut self.critics {
            let parameters = moved(critic.parameters())?;
            *critic = TrainedNetwork::new(parameters, rate, (&device, engine), load)?;
        }
        for target in &mut self.targets {
            let parameters = moved(&target.0)?;
            let network = load(&parameters)?;
            *target = (parameters, network);
        }
        (self.config.value_min, self.config.value_max) = (new.minimum, new.maximum);
        Ok(())
    }
}

/// A critic's parameters with the head carried over from the atoms `old` to the atoms `new`.
fn carry_over(
    p: &Parameters,
    (old, new): (ValueSupport, ValueSupport),
    device: &Device,
) -> Result<Parameters, NetworkError> {
    let sources = sources(old, new);
    let columns: Vec<u32> = sources.iter().map(|(column, _)| *column).collect();
    let columns = Tensor::from_slice(&columns, columns.len(), device)?;
    let shifts: Vec<f32> = sources.iter().map(|(_, shift)| *shift).collect();
    let shifts = Tensor::from_slice(&shifts, shifts.len(), device)?;
    let mut tensors = BTreeMap::new();
    for (name, tensor) in p.iter() {
        let tensor = tensor.detach();
        let moved = match name.as_str() {
            "Dense_0/kernel" => tensor.index_select(&columns, 1)?,
            "Dense_0/bias" => (tensor.index_select(&columns, 0)? + &shifts)?,
            _ => tensor.copy()?,
        };
        tensors.insert(name.clone(), moved);
    }
    Ok(Parameters::new(tensors))
}

/// For each new atom the nearest old one, and what is added to its logit.
fn sources(old: ValueSupport, new: ValueSupport) -> Vec<(u32, f32)> {
    let last = (old.atoms - 1) as f64;
    let source = |j: usize| {
        let place = (new.minimum + j as f64 * new.step() - old.minimum) / old.step();
        let beyond = place < -0.5 || place > last + 0.5;
        (
            place.round().clamp(0.0, last) as u32,
            if beyond { -BEYOND } else { 0.0 },
        )
    };
    (0..new.atoms).map(source).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn support(minimum: f64, maximum: f64) -> ValueSupport {
        ValueSupport {
            minimum,
            maximum,
            atoms: 101,
        }
    }

    #[test]
    fn returns_are_discounted_from_every_step_of_finished_episodes() {
        let mut returns = ObservedReturns::default();
        for reward in [1.0, 2.0] {
            returns.add(0, reward, false, 0.5);
        }
        assert_eq!(returns.range, None, "the episode is not over");
        returns.add(0, 4.0, true, 0.5);
        // From the last step 4, from the one before 2 + 0.5 * 4, from the first 1 + 0.5 * 4.
        assert_eq!(returns.range, Some((3.0, 4.0)));
        returns.add(0, -6.0, true, 0.5);
        assert_eq!(returns.range, Some((-6.0, 4.0)));
    }

    /// Two environments in turn, where the first earns 1 a step and the other nothing, for three steps.
    fn two_environments() -> ObservedReturns {
        let mut returns = ObservedReturns::default();
        for _ in 0..3 {
            returns.add(0, 1.0, false, 0.5);
            returns.add(1, 0.0, false, 0.5);
        }
        returns
    }

    #[test]
    fn the_returns_of_an_environment_are_of_its_own_rewards() {
        let mut returns = two_environments();
        returns.add(1, 0.0, true, 0.5);
        assert_eq!(returns.range, Some((0.0, 0.0)));
        returns.add(0, 1.0, true, 0.5);
        // 1 + 0.5 + 0.25 + 0.125.
        assert_eq!(returns.range, Some((0.0, 1.875)));
    }

    #[test]
    fn a_saved_state_keeps_environments_apart_and_one_of_before_is_the_first_ones() {
        let returns = two_environments();
        let mut state = returns.state();
        let mut restored = ObservedReturns::restored(state.clone()).unwrap();
        assert_eq!(restored.rewards, returns.rewards);
        restored.add(0, 1.0, true, 0.5);
        assert_eq!(restored.range, Some((1.0, 1.875)));

        state.take_f64("rewards_1").unwrap();
        let before = ObservedReturns::restored(state).unwrap();
        assert_eq!(before.rewards, [[1.0; 3]]);
    }

    #[test]
    fn the_support_is_chosen_once_and_grows_when_a_return_comes_near_its_end() {
        let mut returns = ObservedReturns::default();
        let paper = support(-1600.0, 1600.0);
        assert_eq!(returns.support(paper, false), None);
        returns.add(0, 10.0, true, 0.9);
        returns.add(0, -10.0, true, 0.9);
        let first = returns.support(paper, false).unwrap();
        assert_eq!(first, support(-20.0, 20.0));
        assert_eq!(returns.support(first, true), None);
        returns.add(0, 15.0, true, 0.9);
        assert_eq!(returns.support(first, true), None, "15 is not near 20");
        returns.add(0, 18.0, true, 0.9);
        assert_eq!(returns.support(first, true), Some(support(-24.0, 32.0)));
    }

    #[test]
    fn what_a_critic_knows_survives_a_wider_support() {
        let (old, new) = (support(-20.0, 20.0), support(-24.0, 52.0));
        let mean = |logits: &[f64], support: ValueSupport| {
            let total: f64 = logits.iter().map(|l| l.exp()).sum();
            let value =
                |(j, l): (usize, &f64)| (support.minimum + j as f64 * support.step()) * l.exp() / total;
            logits.iter().enumerate().map(value).sum::<f64>()
        };
        for centre in [-8.0, 0.0, 9.0] {
            let logit = |j| -0.5 * ((old.minimum + f64::from(j) * old.step() - centre) / 3.0).powi(2);
            let logits: Vec<f64> = (0..101).map(logit).collect();
            let carried = sources(old, new);
            let carried: Vec<f64> = carried
                .iter()
                .map(|(j, shift)| logits[*j as usize] + f64::from(*shift))
                .collect();
            let (before, after) = (mean(&logits, old), mean(&carried, new));
            assert!((before - after).abs() < 0.1, "{before} {after}");
        }
    }
}
