//! The divergence network's loss: the mean of `div v` over `[r, t]` of the new policy's instantaneous velocity.
//!
//! `D_tgt = div - (t - r) dD/dt` with `div = mean_n probe_n^T J_x u probe_n` at `h = 0` and `dD/dt` along `(vel, 1, 1)`.

use candle_core::Tensor;
use mfpo_policy::mean_flow::FlowPoint;

use super::actor::interpolate;
use super::{BatchTensors, Draws, LearnerError, MfpoLearner, Trace, UpdateInfo};

impl MfpoLearner {
    /// Uses the new actor at points made from `first_actions` (`[B, A]`, samples of the old one).
    pub(super) fn update_divergence(
        &mut self,
        tensors: &BatchTensors,
        first_actions: &[f32],
        draws: &mut dyn Draws,
        info: &mut UpdateInfo,
        trace: &mut Trace,
    ) -> Result<(), LearnerError> {
        let a = self.config.action_size;
        let b = first_actions.len() / a;
        let mut noise = vec![0.0; b * a];
        draws.divergence_noise(&mut noise);
        let times = draws.divergence_times(b);
        let x = interpolate(first_actions, &noise, &times.t);
        trace.slice("logp_x_t", &x);
        let x = Tensor::from_vec(x, (b, a), &self.device)?;
        let (t, h) = self.time_tensors(&times)?;
        let mut probes = vec![0.0; b * self.config.probes * a];
        draws.probes(&mut probes);
        let probes = Tensor::from_vec(probes, (b, self.config.probes, a), &self.device)?;
        let now = FlowPoint {
            observation: &tensors.observations,
            x: &x,
            t: &t,
            h: &h.zeros_like()?,
        };
        let (velocity, divergence) = self.divergence_of_policy(now, &probes, trace)?;
        let at = FlowPoint {
            observation: &tensors.observations,
            x: &x,
            t: &t,
            h: &h,
        };
        let one = t.ones_like()?;
        let (_, dd_dt) = self.divergence.detached()?.jvp(at, (&velocity, &one, &one))?;
        let target = (&divergence - (&dd_dt * &h)?)?;
        let predicted = self.divergence.network().forward(at)?;
        let loss = (target.detach() - &predicted)?.sqr()?.mean_all()?;
        trace.tensor("logp_pred", &predicted)?;
        trace.tensor("logp_du_dt", &dd_dt)?;
        trace.tensor("logp_tgt", &target)?;
        info.divergence_loss = f64::from(loss.to_scalar::<f32>()?);
        trace.number("logp_loss", info.divergence_loss);
        self.divergence.descend(&loss, "logp_mvel", trace)?;
        self.policy = None;
        Ok(())
    }

    /// The velocity `[B, A]` and Hutchinson's estimate of its divergence `[B, 1]` from probes `[B, N, A]`.
    fn divergence_of_policy(
        &self,
        at: FlowPoint<'_>,
        probes: &Tensor,
        trace: &mut Trace,
    ) -> Result<(Tensor, Tensor), LearnerError> {
        let (b, n, a) = probes.dims3()?;
        let actor = self.actor.detached()?;
        let still = at.t.zeros_like()?;
        let mut velocity = None;
        let mut products = Vec::with_capacity(n);
        for probe in 0..n {
            let direction = probes.narrow(1, probe, 1)?.reshape((b, a))?;
            let (value, product) = actor.jvp(at, (&direction, &still, &still))?;
            velocity = Some(value);
            products.push(product);
        }
        let jvp = Tensor::stack(&products, 1)?; // [B, N, A]
        let divergence = (probes * &jvp)?.sum(2)?.mean_keepdim(1)?; // [B, 1]
        let velocity = velocity.map_or_else(|| actor.forward(at), Ok)?;
        trace.tensor("logp_vel", &velocity)?;
        trace.tensor("probe_jvp", &jvp)?;
        trace.tensor("div_estimation", &divergence)?;
        Ok((velocity, divergence))
    }
}
