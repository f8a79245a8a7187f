//! The divergence network's loss: the mean of `div v` over `[r, t]` of the new policy's instantaneous velocity.
//!
//! `D_tgt = div - (t - r) dD/dt` with `div = mean_n probe_n^T J_x u probe_n` at `h = 0` and `dD/dt` along `(vel, 1, 1)`.

use candle_core::Tensor;
use mfpo_policy::gradient::FlowRows;
use mfpo_policy::mean_flow::FlowPoint;

use super::actor::interpolate;
use super::{
    BatchTensors, Draws, Engine, LearnerError, MfpoLearner, Passes, Trace, UpdateInfo, check_finite,
};
use crate::replay_buffer::Batch;

impl MfpoLearner {
    /// Uses the new actor at points made from `first_actions` (`[B, A]`, samples of the old one).
    pub(super) fn update_divergence(
        &mut self,
        batch: &Batch,
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
        let mut probes = vec![0.0; b * self.config.probes * a];
        draws.probes(&mut probes);
        if self.engine == Engine::Packed {
            let rows = FlowRows {
                observations: &batch.observations,
                x: &x,
                t: &times.t,
                h: &times.intervals(),
            };
            info.divergence_loss = self.descend_divergence_on_cpu(rows, &probes, trace)?;
            return Ok(());
        }
        let (t, h) = self.time_tensors(&times)?;
        let x = Tensor::from_vec(x, (b, a), &self.device)?;
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
        self.check_finite(&[("divergence_loss", info.divergence_loss)])?;
        self.divergence.descend(&loss, "logp_mvel", trace)?;
        self.policy_changed = true;
        Ok(())
    }

    /// `rows.h` is that of the divergence network; the policy's own velocity is taken at `h = 0`.
    fn descend_divergence_on_cpu(
        &mut self,
        rows: FlowRows<'_>,
        probes: &[f32],
        trace: &mut Trace,
    ) -> Result<f64, LearnerError> {
        let (b, n, a) = (rows.t.len(), self.config.probes, self.config.action_size);
        // Directions by probe, [N, B, A].
        let directions: Vec<f32> = (0..n)
            .flat_map(|d| (0..b).flat_map(move |r| &probes[(r * n + d) * a..][..a]))
            .copied()
            .collect();
        let now = FlowRows {
            h: &vec![0.0; b],
            ..rows
        };
        let Passes {
            moving,
            still,
            flow: pass,
            tangents: policy,
            ..
        } = &mut self.passes;
        let (actor, own) = self.team.both(
            || still.pack(self.actor.network(), false),
            || moving.pack(self.divergence.network(), true),
        );
        actor.and(own)?;
        policy.renew(still, now, &directions, &self.team)?;
        let product = |row: usize, d: usize| &policy.tangents[(d * b + row) * a..][..a];
        let divergence: Vec<f32> = (0..b)
            .map(|row| {
                let of_probe = |d: usize| -> f32 {
                    let probe = &probes[(row * n + d) * a..][..a];
                    probe.iter().zip(product(row, d)).map(|(p, j)| p * j).sum()
                };
                (0..n).map(of_probe).sum::<f32>() / n as f32
            })
            .collect();
        if trace.is_on() {
            let by_row = (0..b).flat_map(|row| (0..n).flat_map(move |d| product(row, d)));
            trace.slice("probe_jvp", &by_row.copied().collect::<Vec<f32>>());
        }
        trace.slice("logp_vel", policy.value());
        trace.slice("div_estimation", &divergence);
        pass.renew(moving, rows, (policy.value(), &divergence), &self.team)?;
        trace.slice("logp_pred", pass.prediction());
        trace.slice("logp_du_dt", &pass.derivative);
        trace.slice("logp_tgt", &pass.target);
        trace.number("logp_loss", pass.loss);
        check_finite(&[("divergence_loss", pass.loss)], self.updates + 1)?;
        self.divergence
            .apply(&pass.gradients, &self.team, "logp_mvel", trace)?;
        self.policy_changed = true;
        Ok(pass.loss)
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
