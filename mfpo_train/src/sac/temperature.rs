//! The temperature's loss (eq. 18) as public implementations minimise it, linear in `log alpha`:
//! `log alpha (H - target)`, so that alpha falls while the entropy is above its target.

use super::{Metrics, SacLearner};

impl SacLearner {
    /// Uses the entropy that the actor's update has estimated.
    pub(super) fn update_temperature(&mut self, metrics: &mut Metrics) {
        let gradient = (metrics.entropy - self.config.target_entropy()) as f32;
        metrics.temperature_loss = f64::from(self.log_alpha) * f64::from(gradient);
        let rate = self.config.learning_rate as f32;
        self.alpha_adam.step(&mut self.log_alpha, gradient, rate);
        metrics.temperature = self.temperature();
    }
}
