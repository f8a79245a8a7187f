//! The critic's gradient: cross-entropy of its logits to a target distribution.

use super::trunk::{TrunkMemory, TrunkWeights};
use super::{NamedGradients, SEGMENT, Team};
use crate::critic::{Critic, ValueSupport};
use crate::parameters::NetworkError;

/// What a backward pass of the critic's loss gives, with the memory that it took.
#[derive(Debug, Clone, Default)]
pub struct CriticGradient {
    /// `mean_r CE(target_r, logits_r)`, nats.
    pub loss: f64,
    /// `Q(s, a)`, `[R]`.
    pub values: Vec<f32>,
    /// Of the loss, by parameter.
    pub gradients: NamedGradients,
    weights: TrunkWeights,
    memory: TrunkMemory,
}

impl CriticGradient {
    /// Loss and gradients at `inputs` (`[s, a]`, `[R, S + A]`) with `target` (`[R, atoms]`).
    ///
    /// # Errors
    /// When a tensor cannot be read or the sizes do not fit.
    pub fn of(critic: &Critic, inputs: &[f32], target: &[f32], team: &Team) -> Result<Self, NetworkError> {
        let mut pass = Self::default();
        pass.renew(critic, inputs, target, team)?;
        Ok(pass)
    }

    /// [`CriticGradient::of`] in the memory that is there.
    ///
    /// # Errors
    /// As [`CriticGradient::of`].
    pub fn renew(
        &mut self,
        critic: &Critic,
        inputs: &[f32],
        target: &[f32],
        team: &Team,
    ) -> Result<(), NetworkError> {
        let (weights, memory) = (&mut self.weights, &mut self.memory);
        weights.pack(&critic.trunk, "Dense_0", Some((0, 0)), &[])?;
        let rows = inputs.len() / weights.input_size();
        let atoms = weights.output_size();
        if target.len() != rows * atoms || rows == 0 {
            return Err(NetworkError::Shape {
                name: "the critic's target".into(),
                expected: vec![rows, atoms],
                got: vec![target.len() / atoms.max(1), atoms],
            });
        }
        weights.shape(memory, rows);
        memory.inputs[0].copy_from_slice(inputs);
        let mut losses = vec![0.0f64; rows.div_ceil(SEGMENT)];
        self.values.resize(rows, 0.0);
        let jobs: Vec<_> = memory
            .segments()
            .into_iter()
            .zip(self.values.chunks_mut(SEGMENT))
            .zip(&mut losses)
            .collect();
        let weights = &*weights;
        team.each(jobs, |(((first, mut at), values), loss)| {
            weights.forward(&mut at);
            let target = &target[first * atoms..][..at.output.len()];
            *loss = cross_entropy(at.output, target, rows, &critic.support, (at.gradient, values));
            weights.backward(&mut at);
        });
        self.gradients.resize_with(weights.parameters(), Default::default);
        weights.gradients(memory, &mut self.gradients, team);
        self.loss = losses.iter().sum::<f64>() / rows as f64;
        Ok(())
    }

    /// `[R, atoms]`.
    pub fn logits(&self) -> &[f32] {
        &self.memory.output
    }
}

/// `sum_r CE(target_r, softmax(logits_r))`; `gradient` becomes that of the mean over `rows`,
/// `(softmax sum_j m_j - m) / rows`, and `values` the expected values.
fn cross_entropy(
    logits: &[f32],
    target: &[f32],
    rows: usize,
    support: &ValueSupport,
    (gradient, values): (&mut [f32], &mut [f32]),
) -> f64 {
    let (atoms, middle) = (support.atoms, 0.5 * (support.atoms - 1) as f64);
    let mut total = 0.0;
    let parts = logits.chunks_exact(atoms).zip(target.chunks_exact(atoms));
    let results = gradient.chunks_exact_mut(atoms).zip(values);
    for ((logits, target), (gradient, value)) in parts.zip(results) {
        let highest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        gradient
            .iter_mut()
            .zip(logits)
            .for_each(|(g, l)| *g = (l - highest).exp());
        let sum: f64 = gradient.iter().map(|g| f64::from(*g)).sum();
        let places = gradient.iter().enumerate();
        let mean: f64 = places.map(|(j, g)| f64::from(*g) * (j as f64 - middle)).sum();
        *value = (support.minimum + support.step() * (middle + mean / sum)) as f32;
        let (sum, mass) = (sum as f32, target.iter().sum::<f32>());
        let log_sum = sum.ln();
        for ((g, l), m) in gradient.iter_mut().zip(logits).zip(target) {
            total -= f64::from(m * (l - highest - log_sum));
            *g = (*g / sum * mass - m) / rows as f32;
        }
    }
    total
}
