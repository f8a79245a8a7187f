//! The temperature's loss `alpha (H - target)`: alpha falls while the entropy is above its target.

use super::{LearnerError, MfpoLearner, ScalarAdam, Trace, UpdateInfo};
use crate::state::{State, StateError};

/// `alpha = exp(log_alpha)` and its optimiser.
#[derive(Debug, Clone)]
pub(super) struct Temperature {
    log_alpha: f32,
    /// The option `temperature_min`; minus infinity without it.
    log_minimum: f32,
    learning_rate: f32,
    adam: ScalarAdam,
}

impl Temperature {
    pub(super) fn new(log_alpha: f32, minimum: f64, learning_rate: f32) -> Self {
        Self {
            log_alpha,
            log_minimum: minimum.ln() as f32,
            learning_rate,
            adam: ScalarAdam::default(),
        }
    }

    pub(super) fn state(&self) -> State<'static> {
        let mut state = self.adam.state();
        state.put("log_alpha", vec![self.log_alpha]);
        state
    }

    pub(super) fn restore(&mut self, mut state: State<'_>) -> Result<(), StateError> {
        self.log_alpha = state.take_f32_of("log_alpha", 1)?[0];
        self.adam = ScalarAdam::restored(state)?;
        Ok(())
    }

    /// Goes on from `alpha`; the moments of what was learnt before say nothing of it.
    pub(super) fn set(&mut self, alpha: f64) {
        self.log_alpha = (alpha.ln() as f32).max(self.log_minimum);
        self.adam = ScalarAdam::default();
    }

    pub(super) fn alpha(&self) -> f32 {
        self.log_alpha.exp()
    }
}

impl MfpoLearner {
    /// Uses the entropy of the old policy, which the actor's update has estimated.
    pub(super) fn update_temperature(
        &mut self,
        info: &mut UpdateInfo,
        trace: &mut Trace,
    ) -> Result<(), LearnerError> {
        let alpha = self.temperature.alpha();
        // The gradient with respect to log alpha equals the loss.
        let loss = alpha * (info.entropy - self.config.target_entropy()) as f32;
        trace.number("temperature_before", f64::from(alpha));
        trace.number("temp_loss", f64::from(loss));
        trace.slice("grad/temp/log_temp", &[loss]);
        self.check_finite(&[("temperature_loss", f64::from(loss))])?;
        let Temperature {
            log_alpha,
            log_minimum,
            learning_rate,
            adam,
        } = &mut self.temperature;
        adam.step(log_alpha, loss, *learning_rate);
        *log_alpha = log_alpha.max(*log_minimum);
        trace.slice("after/temp/log_temp", &[*log_alpha]);
        info.temperature_loss = f64::from(loss);
        info.temperature = f64::from(self.temperature.alpha());
        self.check_finite(&[("temperature", info.temperature)])
    }
}
