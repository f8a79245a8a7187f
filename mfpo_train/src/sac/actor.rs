//! The policy's loss (eq. 7): `alpha log pi(a|s) - min_i Q_i(s, a)`, `a = tanh(mean + deviation * noise)` differentiated
//! through (the reparameterisation trick).

use candle_core::Tensor;

use super::network::{sample, value};
use super::{BatchTensors, Metrics, SacLearner};
use crate::learner::{LearnerError, Trace, check_finite};

impl SacLearner {
    /// Uses the new critics, whose parameters get no gradient here.
    pub(super) fn update_actor(
        &mut self,
        batch: &BatchTensors,
        noise: &Tensor,
        metrics: &mut Metrics,
        trace: &mut Trace,
    ) -> Result<(), LearnerError> {
        let (actions, log_probs) = sample(self.actor.network(), &batch.observations, noise)?;
        let [first, second] = &self.critics;
        let first = value(&first.detached()?, &batch.observations, &actions)?;
        let second = value(&second.detached()?, &batch.observations, &actions)?;
        let loss = ((&log_probs * self.temperature())? - first.minimum(&second)?)?.mean_all()?;
        metrics.actor_loss = f64::from(loss.to_scalar::<f32>()?);
        metrics.entropy = -f64::from(log_probs.detach().mean_all()?.to_scalar::<f32>()?);
        let named = [("actor_loss", metrics.actor_loss), ("entropy", metrics.entropy)];
        check_finite(&named, self.updates + 1)?;
        self.actor.descend(&loss, "actor", trace)?;
        self.policy = None;
        Ok(())
    }
}
