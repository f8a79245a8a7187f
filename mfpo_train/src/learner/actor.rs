//! The policy's loss: the MeanFlow identity towards the velocity of the Boltzmann policy.
//!
//! `u_tgt = v - (t - r) du/dt`, `du/dt` along `(v, 1, 1)` in `(x, t, h)`; loss `mean (sg(u_tgt) - u)^2`.

use std::borrow::Cow;

use candle_core::Tensor;
use mfpo_policy::gradient::FlowRows;
use mfpo_policy::mean_flow::FlowPoint;

use super::velocity::estimate_in_team;
use super::{
    BatchTensors, Draws, Engine, LearnerError, MfpoLearner, Passes, ProposalSet, Times, Trace, UpdateInfo,
    VelocityEstimate, VelocityProblem, check_finite,
};
use crate::replay_buffer::Batch;

/// K1 policy samples for each row.
struct PolicySamples {
    /// `[B, K1, A]`.
    actions: Vec<f32>,
    /// `[B, K1]`.
    log_probs: Vec<f32>,
    /// The first sample of each row, `[B, A]`.
    first: Vec<f32>,
}

/// `x_t = (1 - t) a + t eps` and its times.
struct FlowPoints {
    x_t: Vec<f32>,
    times: Times,
}

impl MfpoLearner {
    /// Uses the new critics, the old actor, divergence network and temperature; returns the first policy sample of each
    /// row, `[B, A]`.
    pub(super) fn update_actor(
        &mut self,
        batch: &Batch,
        tensors: &BatchTensors,
        draws: &mut dyn Draws,
        info: &mut UpdateInfo,
        trace: &mut Trace,
    ) -> Result<Vec<f32>, LearnerError> {
        let samples = self.policy_samples(batch, draws)?;
        trace.slice("policy_actions", &samples.actions);
        trace.slice("policy_logps", &samples.log_probs);
        let mean: f64 = samples.log_probs.iter().map(|l| f64::from(*l)).sum();
        info.entropy = -mean / samples.log_probs.len() as f64;
        trace.number("entropy", info.entropy);
        self.check_finite(&[("entropy", info.entropy)])?;

        let mut noise = vec![0.0; samples.first.len()];
        draws.actor_noise(&mut noise);
        let times = draws.actor_times(batch.size);
        let x_t = interpolate(&samples.first, &noise, &times.t);
        trace.slice("x_t", &x_t);
        let points = FlowPoints { x_t, times };
        let estimate = self.velocity(batch, &samples, &points, draws, trace)?;
        info.ess_policy = average(&estimate.ess_policy);
        info.ess_clean = average(&estimate.ess_clean);
        info.actor_loss = match self.engine {
            Engine::Packed => self.descend_actor_on_cpu(batch, &points, &estimate.velocity, trace)?,
            Engine::Candle => self.descend_actor(tensors, &points, &estimate.velocity, trace)?,
        };
        self.policy_changed = true;
        Ok(samples.first)
    }

    fn policy_samples(
        &mut self,
        batch: &Batch,
        draws: &mut dyn Draws,
    ) -> Result<PolicySamples, LearnerError> {
        let (b, k, a) = (batch.size, self.config.policy_candidates, self.config.action_size);
        let (mut actions, mut log_probs) = (vec![0.0; b * k * a], vec![0.0; b * k]);
        draws.candidate_noise(&mut actions);
        let team = self.team.clone();
        let policy = self.packed_policy()?;
        policy.sample_with_log_prob(&team, &batch.observations, k, (&mut actions, &mut log_probs))?;
        let first = actions
            .chunks_exact(k * a)
            .flat_map(|row| &row[..a])
            .copied()
            .collect();
        Ok(PolicySamples {
            actions,
            log_probs,
            first,
        })
    }

    fn velocity(
        &mut self,
        batch: &Batch,
        samples: &PolicySamples,
        points: &FlowPoints,
        draws: &mut dyn Draws,
        trace: &mut Trace,
    ) -> Result<VelocityEstimate, LearnerError> {
        let (k1, k2, a) = (
            self.config.policy_candidates,
            self.config.gaussian_candidates,
            self.config.action_size,
        );
        let clean = clean_actions(points, (k2, a), draws, trace);
        // One evaluation of [B, K1 + K2] rows: the observation's share of layer 1 serves both sets.
        let rows = samples
            .actions
            .chunks_exact(k1 * a)
            .zip(clean.chunks_exact(k2 * a));
        let mut actions = Vec::with_capacity(samples.actions.len() + clean.len());
        for (policy, clean) in rows {
            actions.extend_from_slice(policy);
            actions.extend_from_slice(clean);
        }
        let team = self.team.clone();
        let critics = self.packed_critics()?;
        let values = critics.values(&team, &batch.observations, &actions, k1 + k2)?;
        let b = batch.size;
        let (mut q_policy, mut q_clean) = (Vec::with_capacity(b * k1), Vec::with_capacity(b * k2));
        for row in values.chunks_exact(k1 + k2) {
            let (policy, clean) = row.split_at(k1);
            q_policy.extend_from_slice(policy);
            q_clean.extend_from_slice(clean);
        }
        let alpha = self.temperature.alpha();
        let mut log_probs = Cow::Borrowed(&samples.log_probs);
        if self.config.leave_one_out {
            // The first sample made x_t; so improbable a sample gets the weight 0.
            log_probs.to_mut().iter_mut().step_by(k1).for_each(|l| *l = 1e30);
        }
        let problem = VelocityProblem {
            x_t: &points.x_t,
            t: &points.times.t,
            alpha,
            policy: ProposalSet {
                actions: &samples.actions,
                values: &q_policy,
            },
            log_probs: &log_probs,
            clean: ProposalSet {
                actions: &clean,
                values: &q_clean,
            },
        };
        let estimate = estimate_in_team(&problem, &self.team);
        trace.number("alpha", f64::from(alpha));
        trace.slice("q_policy", &q_policy);
        trace.slice("q_clean", &q_clean);
        trace_estimate(&estimate, trace);
        Ok(estimate)
    }

    fn descend_actor_on_cpu(
        &mut self,
        batch: &Batch,
        points: &FlowPoints,
        velocity: &[f32],
        trace: &mut Trace,
    ) -> Result<f64, LearnerError> {
        let rows = FlowRows {
            observations: &batch.observations,
            x: &points.x_t,
            t: &points.times.t,
            h: &points.times.intervals(),
        };
        let Passes {
            moving, flow: pass, ..
        } = &mut self.passes;
        moving.pack(self.actor.network(), true)?;
        pass.renew(moving, rows, (velocity, velocity), &self.team)?;
        trace.slice("u_pred", pass.prediction());
        trace.slice("du_dt", &pass.derivative);
        trace.slice("u_tgt", &pass.target);
        trace.number("actor_loss", pass.loss);
        check_finite(&[("actor_loss", pass.loss)], self.updates + 1)?;
        if self.config.flip_actor_loss_sign {
            let all = pass.gradients.iter_mut().flat_map(|(_, gradient)| gradient);
            all.for_each(|g| *g = -*g);
        }
        self.actor.apply(&pass.gradients, &self.team, "actor", trace)?;
        Ok(pass.loss)
    }

    fn descend_actor(
        &mut self,
        tensors: &BatchTensors,
        points: &FlowPoints,
        velocity: &[f32],
        trace: &mut Trace,
    ) -> Result<f64, LearnerError> {
        let (b, a) = (points.times.t.len(), self.config.action_size);
        let x = Tensor::from_slice(&points.x_t, (b, a), &self.device)?;
        let v = Tensor::from_slice(velocity, (b, a), &self.device)?;
        let (t, h) = self.time_tensors(&points.times)?;
        let at = FlowPoint {
            observation: &tensors.observations,
            x: &x,
            t: &t,
            h: &h,
        };
        let one = t.ones_like()?;
        let (_, du_dt) = self.actor.detached()?.jvp(at, (&v, &one, &one))?;
        let target = (&v - du_dt.broadcast_mul(&h)?)?;
        let u = self.actor.network().forward(at)?;
        let loss = (target.detach() - &u)?.sqr()?.mean_all()?;
        trace.tensor("u_pred", &u)?;
        trace.tensor("du_dt", &du_dt)?;
        trace.tensor("u_tgt", &target)?;
        let value = f64::from(loss.to_scalar::<f32>()?);
        trace.number("actor_loss", value);
        self.check_finite(&[("actor_loss", value)])?;
        let loss = if self.config.flip_actor_loss_sign {
            loss.neg()?
        } else {
            loss
        };
        self.actor.descend(&loss, "actor", trace)?;
        Ok(value)
    }

    /// t and `h = t - r`, each `[B, 1]`.
    pub(super) fn time_tensors(&self, times: &Times) -> Result<(Tensor, Tensor), LearnerError> {
        let rows = times.t.len();
        let h = times.intervals();
        let t = Tensor::from_slice(&times.t, (rows, 1), &self.device)?;
        Ok((t, Tensor::from_vec(h, (rows, 1), &self.device)?))
    }
}

/// `(1 - t) a + t eps`, `[B, A]`.
pub(super) fn interpolate(actions: &[f32], noise: &[f32], t: &[f32]) -> Vec<f32> {
    let size = actions.len() / t.len();
    let both = actions.iter().zip(noise).enumerate();
    both.map(|(i, (a, e))| (1.0 - t[i / size]) * a + t[i / size] * e)
        .collect()
}

/// `b = (x_t - t eps) / (1 - t)` with eps truncated to `[(x_t - (1 - t)) / t, (x_t + (1 - t)) / t]`, `[B, K2, A]`.
fn clean_actions(
    points: &FlowPoints,
    (k, a): (usize, usize),
    draws: &mut dyn Draws,
    trace: &mut Trace,
) -> Vec<f32> {
    let t = &points.times.t;
    let bound = |sign: f32| -> Vec<f32> {
        let x = points.x_t.iter().enumerate();
        x.map(|(i, x)| (x + sign * (1.0 - t[i / a])) / t[i / a]).collect()
    };
    let (lower, upper) = (bound(-1.0), bound(1.0));
    let mut clean = vec![0.0; t.len() * k * a];
    draws.truncated_noise((&lower, &upper), a, &mut clean);
    for (row, (b, t)) in clean
        .chunks_exact_mut(k * a)
        .zip(points.x_t.chunks_exact(a).zip(t))
    {
        for noise in row.chunks_exact_mut(a) {
            for (value, b) in noise.iter_mut().zip(b) {
                *value = (b - t * *value) / (1.0 - t);
            }
        }
    }
    trace.slice("eps_lower", &lower);
    trace.slice("eps_upper", &upper);
    trace.slice("clean_actions", &clean);
    clean
}

fn trace_estimate(estimate: &VelocityEstimate, trace: &mut Trace) {
    let values = [
        ("log_weight_policy", &estimate.log_weight_policy),
        ("weight_policy", &estimate.weight_policy),
        ("weight_clean", &estimate.weight_clean),
        ("vel_estimation_policy", &estimate.velocity_policy),
        ("vel_estimation_clean", &estimate.velocity_clean),
        ("vel_estimation", &estimate.velocity),
        ("ess_policy", &estimate.ess_policy),
        ("ess_clean", &estimate.ess_clean),
        ("vel_policy_weight", &estimate.policy_share),
    ];
    values
        .into_iter()
        .for_each(|(name, values)| trace.slice(name, values));
}

pub(super) fn average(values: &[f32]) -> f64 {
    values.iter().map(|v| f64::from(*v)).sum::<f64>() / values.len().max(1) as f64
}
