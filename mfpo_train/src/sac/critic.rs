//! The critics' loss (eq. 5 and 6): `(Q_i(s, a) - y)^2 / 2`, `y = r + gamma mask (min_i Qbar_i(s', a') - alpha log pi(a'|s'))`
//! with `a' ~ pi(.|s')`.

use candle_core::Tensor;

use super::network::{sample, value};
use super::{BatchTensors, Metrics, SacLearner};
use crate::learner::optimizer::move_towards;
use crate::learner::{Engine, LearnerError, Trace, check_finite};

impl SacLearner {
    /// Both critics on the same target, then the target critics: `target <- tau new + (1 - tau) target`.
    pub(super) fn update_critics(
        &mut self,
        batch: &BatchTensors,
        noise: &Tensor,
        metrics: &mut Metrics,
        trace: &mut Trace,
    ) -> Result<(), LearnerError> {
        let target = self.critic_target(batch, noise)?;
        trace.tensor("target", &target)?;
        let (mut losses, mut numbers) = (Vec::with_capacity(2), [0.0; 2]);
        for (i, critic) in self.critics.iter().enumerate() {
            let q = value(critic.network(), &batch.observations, &batch.actions)?;
            let loss = ((&q - &target)?.sqr()?.mean_all()? * 0.5)?;
            numbers[i] = f64::from(loss.to_scalar::<f32>()?);
            if i == 0 {
                metrics.q_mean = f64::from(q.detach().mean_all()?.to_scalar::<f32>()?);
            }
            losses.push(loss);
        }
        metrics.critic_losses = numbers;
        let named = [("critic_loss_1", numbers[0]), ("critic_loss_2", numbers[1])];
        check_finite(&named, self.updates + 1)?;
        for (i, (critic, loss)) in self.critics.iter_mut().zip(&losses).enumerate() {
            critic.descend(loss, ["critic_1", "critic_2"][i], trace)?;
        }
        let engine = Engine::of(&self.device);
        for (critic, (parameters, _)) in self.critics.iter().zip(&self.targets) {
            for ((_, new), (_, target)) in critic.parameters().iter().zip(parameters.iter()) {
                move_towards(target, new, self.config.tau, engine)?;
            }
        }
        Ok(())
    }

    /// `y`, `[B]`, without gradient.
    fn critic_target(&self, batch: &BatchTensors, noise: &Tensor) -> Result<Tensor, LearnerError> {
        let (actions, log_probs) = sample(&self.actor.detached()?, &batch.next_observations, noise)?;
        let [first, second] = &self.targets;
        let first = value(&first.1, &batch.next_observations, &actions)?;
        let second = value(&second.1, &batch.next_observations, &actions)?;
        // Nothing, but for numbers that are not finite: the smaller of a number and NaN may be the number.
        let unseen = ((&first + &second)? * 0.0)?;
        let soft = ((first.minimum(&second)? + unseen)? - (log_probs * self.temperature())?)?;
        Ok((&batch.rewards + (&batch.masks * soft)? * self.config.discount)?.detach())
    }
}
