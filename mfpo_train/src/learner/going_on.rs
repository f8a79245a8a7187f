//! Everything that the learner needs to go on after the program was stopped.

use mfpo_policy::critic::ValueSupport;
use mfpo_policy::noise::NormalNoise;
use rand_chacha::ChaCha8Rng;

use super::support::ObservedReturns;
use super::{InitialParameters, LearnerConfigError, LearnerError, MfpoLearner};
use crate::resumption::ByHand;
use crate::state::{Generator, State};

const CRITICS: [&str; 2] = ["critic_1", "critic_2"];
const TARGETS: [&str; 2] = ["target_critic_1", "target_critic_2"];

impl MfpoLearner {
    pub(super) fn saved_state(&self) -> Result<State<'_>, LearnerError> {
        let mut state = State::default();
        state.nest("actor", self.actor.state()?);
        state.nest("logp_mvel", self.divergence.state()?);
        for i in 0..2 {
            state.nest(CRITICS[i], self.critics[i].state()?);
            state.put_parameters(TARGETS[i], &self.targets[i].0)?;
        }
        state.nest("temperature", self.temperature.state());
        state.put("draws", self.draws.position());
        state.put("noise", self.noise.generator().position());
        state.put("counters", vec![self.updates, u64::from(self.support_chosen)]);
        state.put("support", vec![self.config.value_min, self.config.value_max]);
        if let Some(returns) = &self.returns {
            state.nest("returns", returns.state());
        }
        Ok(state)
    }

    /// Builds the learner anew around the saved parameters, then gives it the moments and generators.
    pub(super) fn restore_state(&mut self, mut state: State<'_>) -> Result<(), LearnerError> {
        let mut config = self.config.clone();
        let support = state.take_f64_of("support", 2)?;
        (config.value_min, config.value_max) = (support[0], support[1]);
        let [updates, support_chosen] = state.take_u64("counters")?;
        let mut parts = ["actor", "logp_mvel", CRITICS[0], CRITICS[1]].map(|name| state.take_part(name));
        let like = [
            self.actor.parameters(),
            self.divergence.parameters(),
            self.critics[0].parameters(),
            self.critics[1].parameters(),
        ];
        let [actor, divergence, first, second] = &mut parts;
        let initial = InitialParameters {
            actor: actor.take_parameters("parameters", like[0])?,
            divergence: divergence.take_parameters("parameters", like[1])?,
            critics: [
                first.take_parameters("parameters", like[2])?,
                second.take_parameters("parameters", like[3])?,
            ],
            targets: Some([
                state.take_parameters(TARGETS[0], like[2])?,
                state.take_parameters(TARGETS[1], like[3])?,
            ]),
            log_temperature: 0.0,
        };
        let mut learner = Self::with_engine(config, initial, 0, (&self.device, self.engine))?;
        let [actor, divergence, first, second] = parts;
        learner.actor.restore_moments(actor)?;
        learner.divergence.restore_moments(divergence)?;
        learner.critics[0].restore_moments(first)?;
        learner.critics[1].restore_moments(second)?;
        learner.temperature.restore(state.take_part("temperature"))?;
        learner.draws.move_to(state.take_u64("draws")?);
        learner.noise = NormalNoise::from_generator(ChaCha8Rng::at(state.take_u64("noise")?));
        (learner.updates, learner.support_chosen) = (updates, support_chosen == 1);
        let returns = state.take_part("returns");
        // Where the option is new, no return was observed so far.
        if self.returns.is_some() && returns.iter().next().is_some() {
            learner.returns = Some(ObservedReturns::restored(returns)?);
        }
        *self = learner;
        Ok(())
    }

    /// Goes on with what was changed by hand since the state was saved.
    pub(super) fn take_over(&mut self, by_hand: &ByHand) -> Result<(), LearnerError> {
        if let Some(alpha) = by_hand.temperature {
            self.temperature.set(alpha);
        }
        if by_hand.value_min.is_none() && by_hand.value_max.is_none() {
            return Ok(());
        }
        let now = self.config.support();
        let new = ValueSupport {
            minimum: by_hand.value_min.unwrap_or(now.minimum),
            maximum: by_hand.value_max.unwrap_or(now.maximum),
            ..now
        };
        if new.minimum >= new.maximum {
            return Err(LearnerError::Config(LearnerConfigError {
                key: "learner.value_max",
                expected: "a number above the value_min that the run goes on with; set both",
                got: format!("{}, and value_min {}", new.maximum, new.minimum),
            }));
        }
        // By hand: should the returns choose again, they choose anew.
        self.support_chosen = false;
        if new == now {
            return Ok(());
        }
        tracing::info!(
            "value support {:.2} to {:.2}, as the configuration says; so far it was {:.2} to {:.2}",
            new.minimum,
            new.maximum,
            now.minimum,
            now.maximum
        );
        self.move_support(new)
    }
}
