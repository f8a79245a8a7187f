//! The critics' loss: cross-entropy to the projected soft Bellman target (C51 with clipped double critics).

use candle_core::Tensor;
use mfpo_policy::critic::{Critic, ValueSupport, log_softmax};
use mfpo_policy::fast::{FastCritic, Wanted};

use super::actor::average;
use super::{BatchTensors, Draws, Engine, LearnerError, MfpoLearner, Trace, UpdateInfo};
use crate::replay_buffer::Batch;

impl MfpoLearner {
    /// Both critics on the same target, then the target critics: `target <- tau new + (1 - tau) target`.
    pub(super) fn update_critics(
        &mut self,
        batch: &Batch,
        tensors: &BatchTensors,
        draws: &mut dyn Draws,
        info: &mut UpdateInfo,
        trace: &mut Trace,
    ) -> Result<(), LearnerError> {
        let target = self.critic_target(batch, draws, trace)?;
        match self.engine {
            Engine::Packed => self.descend_critics_on_cpu(batch, &target, info, trace)?,
            Engine::Candle => self.descend_critics(tensors, &target, info, trace)?,
        }
        self.move_targets()
    }

    /// `target <- tau new + (1 - tau) target`.
    fn move_targets(&mut self) -> Result<(), LearnerError> {
        let pairs = self
            .critics
            .iter()
            .zip(&self.targets)
            .flat_map(|(critic, (target, _))| {
                let both = critic.parameters().iter().zip(target.iter());
                both.map(|((_, new), (_, target))| (target, new))
            });
        let mut moves: Vec<_> = pairs.map(|(target, new)| (target, new, Ok(()))).collect();
        let (tau, engine) = (self.config.tau, self.engine);
        self.tensor_team()
            .each(moves.iter_mut().collect(), |(target, new, result)| {
                *result = super::optimizer::move_towards(target, new, tau, engine);
            });
        Ok(moves.into_iter().try_for_each(|(_, _, result)| result)?)
    }

    fn descend_critics_on_cpu(
        &mut self,
        batch: &Batch,
        target: &[f32],
        info: &mut UpdateInfo,
        trace: &mut Trace,
    ) -> Result<(), LearnerError> {
        let (s, a) = (self.config.observation_size, self.config.action_size);
        let rows = batch
            .observations
            .chunks_exact(s)
            .zip(batch.actions.chunks_exact(a));
        let mut inputs = Vec::with_capacity(batch.size * (s + a));
        for (observation, action) in rows {
            inputs.extend_from_slice(observation);
            inputs.extend_from_slice(action);
        }
        let team = &self.team;
        let mut results = [Ok(()), Ok(())];
        let passes = self.critics.iter().zip(&mut self.passes.critics);
        team.each(passes.zip(&mut results).collect(), |((critic, pass), result)| {
            *result = pass.renew(critic.network(), &inputs, target, team);
        });
        results.into_iter().collect::<Result<(), _>>()?;
        let losses = self.passes.critics.each_ref().map(|pass| pass.loss);
        self.take_losses(losses, info)?;
        for (i, (critic, pass)) in self.critics.iter_mut().zip(&self.passes.critics).enumerate() {
            if i == 0 {
                let total: f64 = pass.values.iter().map(|q| f64::from(*q)).sum();
                info.q_mean = total / pass.values.len() as f64;
            }
            trace.slice(&format!("critic_logits_{}", i + 1), pass.logits());
            trace.slice(&format!("critic_value_{}", i + 1), &pass.values);
            trace.number(&format!("critic_loss_{}", i + 1), losses[i]);
            critic.apply(&pass.gradients, team, &format!("critic_{}", i + 1), trace)?;
        }
        Ok(())
    }

    /// Both losses, before either critic takes its step.
    fn take_losses(&self, losses: [f64; 2], info: &mut UpdateInfo) -> Result<(), LearnerError> {
        [info.critic_loss_1, info.critic_loss_2] = losses;
        self.check_finite(&[("critic_loss_1", losses[0]), ("critic_loss_2", losses[1])])
    }

    fn descend_critics(
        &mut self,
        tensors: &BatchTensors,
        target: &[f32],
        info: &mut UpdateInfo,
        trace: &mut Trace,
    ) -> Result<(), LearnerError> {
        let target = Tensor::from_slice(
            target,
            (target.len() / self.config.atoms, self.config.atoms),
            &self.device,
        )?;
        let (mut losses, mut numbers) = (Vec::with_capacity(2), [0.0; 2]);
        for (i, critic) in self.critics.iter().enumerate() {
            let logits = critic.network().logits(&tensors.observations, &tensors.actions)?;
            let loss = (&target * log_softmax(&logits)?)?.sum(1)?.mean_all()?.neg()?;
            numbers[i] = f64::from(loss.to_scalar::<f32>()?);
            let value = critic.network().expected_value(&logits.detach())?;
            if i == 0 {
                info.q_mean = f64::from(value.mean_all()?.to_scalar::<f32>()?);
            }
            trace.tensor(&format!("critic_logits_{}", i + 1), &logits)?;
            trace.tensor(&format!("critic_value_{}", i + 1), &value)?;
            trace.number(&format!("critic_loss_{}", i + 1), numbers[i]);
            losses.push(loss);
        }
        self.take_losses(numbers, info)?;
        for (i, (critic, loss)) in self.critics.iter_mut().zip(&losses).enumerate() {
            critic.descend(loss, &format!("critic_{}", i + 1), trace)?;
        }
        Ok(())
    }

    /// The projected target distribution `m`, `[B, atoms]`.
    fn critic_target(
        &mut self,
        batch: &Batch,
        draws: &mut dyn Draws,
        trace: &mut Trace,
    ) -> Result<Vec<f32>, LearnerError> {
        let support = self.config.support();
        let (actions, log_probs) = self.next_actions(batch, draws, trace)?;
        let y = self.target_atoms(batch, &log_probs);
        trace.slice("target_atoms", &y);
        let mut next = [None, None];
        let mut packed = std::mem::take(&mut self.packed_targets);
        let targets = self.targets.iter().zip(&mut packed);
        self.tensor_team().each(
            targets.zip(&mut next).collect(),
            |(((_, critic), packed), next)| {
                let logits = self.next_logits((critic, packed), batch, &actions);
                *next = Some(logits.map(|logits| {
                    let m = project(&softmax_rows(&logits, support.atoms), &y, &support);
                    (logits, m)
                }));
            },
        );
        self.packed_targets = packed;
        let mut projected = Vec::with_capacity(2);
        for (i, next) in next.into_iter().flatten().enumerate() {
            let (logits, m) = next?;
            trace.slice(&format!("next_logits_{}", i + 1), &logits);
            trace.slice(&format!("target_probs_{}", i + 1), &m);
            if trace.is_on() {
                trace.slice(&format!("target_value_{}", i + 1), &means(&m, &support));
            }
            projected.push(m);
        }
        let m = self.join(&projected[0], &projected[1])?;
        trace.slice("target_probs", &m);
        Ok(m)
    }

    /// `a' ~ pi(.|s')`, `[B, A]`, and their log-probabilities, `[B]`.
    fn next_actions(
        &mut self,
        batch: &Batch,
        draws: &mut dyn Draws,
        trace: &mut Trace,
    ) -> Result<(Vec<f32>, Vec<f32>), LearnerError> {
        let mut actions = vec![0.0; batch.size * self.config.action_size];
        let mut log_probs = vec![0.0; batch.size];
        draws.next_action_noise(&mut actions);
        let team = self.team.clone();
        let policy = self.packed_policy()?;
        policy.sample_with_log_prob(&team, &batch.next_observations, 1, (&mut actions, &mut log_probs))?;
        trace.slice("next_actions", &actions);
        trace.slice("next_logps", &log_probs);
        // The projection would put what is not finite on the lowest atom, where nobody sees it.
        self.check_finite(&[
            ("next_actions", average(&actions)),
            ("next_logps", average(&log_probs)),
        ])?;
        Ok((actions, log_probs))
    }

    /// A target critic's logits at the next observations, `[B, atoms]`; it changes with every update, and is packed again
    /// where it was packed before.
    fn next_logits(
        &self,
        (critic, packed): (&Critic, &mut Option<FastCritic>),
        batch: &Batch,
        actions: &[f32],
    ) -> Result<Vec<f32>, LearnerError> {
        let (s, a) = (self.config.observation_size, self.config.action_size);
        if self.engine == Engine::Packed {
            let inputs = (&batch.next_observations[..], actions);
            let packed = match packed {
                Some(packed) => {
                    packed.repack(critic)?;
                    packed
                }
                None => packed.insert(FastCritic::new(critic, s, self.config.precision.for_many_rows())?),
            };
            return Ok(packed.evaluate_in_team(&self.team, inputs, 1, Wanted::Logits));
        }
        let observations = Tensor::from_slice(&batch.next_observations, (batch.size, s), &self.device)?;
        let actions = Tensor::from_slice(actions, (batch.size, a), &self.device)?;
        Ok(critic.logits(&observations, &actions)?.flatten_all()?.to_vec1()?)
    }

    /// `y_j = clip(R + gamma mask (z_j - alpha log p'), v_min, v_max)`, `[B, atoms]`.
    fn target_atoms(&self, batch: &Batch, log_probs: &[f32]) -> Vec<f32> {
        let support = self.config.support();
        let (low, high, alpha) = (
            support.minimum as f32,
            support.maximum as f32,
            self.temperature.alpha(),
        );
        let mut y = Vec::with_capacity(batch.size * support.atoms);
        for (row, log_prob) in log_probs.iter().enumerate() {
            let discount = self.config.discount as f32 * batch.masks[row];
            for j in 0..support.atoms {
                let z = (support.minimum + j as f64 * support.step()) as f32;
                y.push((batch.rewards[row] + discount * (z - alpha * log_prob)).clamp(low, high));
            }
        }
        y
    }

    /// Row by row the whole distribution with the smaller mean (a tie takes the second), or the average of both.
    fn join(&self, first: &[f32], second: &[f32]) -> Result<Vec<f32>, LearnerError> {
        if !self.config.clipped_double_q {
            return Ok(first.iter().zip(second).map(|(a, b)| 0.5 * (a + b)).collect());
        }
        let support = self.config.support();
        let (a, b) = (means(first, &support), means(second, &support));
        // Where the first is not finite the second would be taken without a word.
        self.check_finite(&[("target_value_1", average(&a)), ("target_value_2", average(&b))])?;
        let rows = first
            .chunks_exact(support.atoms)
            .zip(second.chunks_exact(support.atoms));
        let mut joined = Vec::with_capacity(first.len());
        for ((first, second), (a, b)) in rows.zip(a.iter().zip(&b)) {
            joined.extend_from_slice(if a < b { first } else { second });
        }
        Ok(joined)
    }
}

/// `softmax` of each row.
fn softmax_rows(logits: &[f32], atoms: usize) -> Vec<f32> {
    let mut probabilities = logits.to_vec();
    for row in probabilities.chunks_exact_mut(atoms) {
        let highest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        row.iter_mut().for_each(|l| *l = (*l - highest).exp());
        let total: f32 = row.iter().sum();
        row.iter_mut().for_each(|p| *p /= total);
    }
    probabilities
}

/// `sum_j m_j z_j` of each row.
fn means(m: &[f32], support: &ValueSupport) -> Vec<f32> {
    let mean = |row: &[f32]| {
        let sum: f64 = row
            .iter()
            .enumerate()
            .map(|(j, p)| f64::from(*p) * (support.minimum + j as f64 * support.step()))
            .sum();
        sum as f32
    };
    m.chunks_exact(support.atoms).map(mean).collect()
}

/// The C51 projection: probabilities `[R, atoms]` at values `y` (`[R, atoms]`, clipped to the support) spread over the two
/// nearest atoms; a value on an atom gives it everything, so that no mass is lost.
pub fn project(probabilities: &[f32], y: &[f32], support: &ValueSupport) -> Vec<f32> {
    let (atoms, last) = (support.atoms, support.atoms - 1);
    let (low, high) = (support.minimum as f32, support.maximum as f32);
    // The reference divides in single precision; the last bit decides which atom a value lands on.
    let step = (high - low) / last as f32;
    let mut out = vec![0.0f32; probabilities.len()];
    let rows = probabilities.chunks_exact(atoms).zip(y.chunks_exact(atoms));
    for ((p, y), m) in rows.zip(out.chunks_exact_mut(atoms)) {
        for (p, y) in p.iter().zip(y) {
            let b = (y.clamp(low, high) - low) / step;
            // b is not negative: its whole part is the atom below.
            let lower = (b as usize).min(last);
            let upper = if b > lower as f32 {
                (lower + 1).min(last)
            } else {
                lower
            };
            if lower == upper {
                m[lower] += p;
            } else {
                m[lower] += p * (upper as f32 - b);
                m[upper] += p * (b - lower as f32);
            }
        }
    }
    out
}
