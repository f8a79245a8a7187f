//! SAC's policy on one observation: plain loops over the weights, which beat a tensor library at this size.

use std::collections::BTreeMap;

use mfpo_policy::noise::NormalNoise;
use mfpo_policy::parameters::{NetworkError, Parameters};
use mfpo_policy::sampler::{Normalizer, SampleError};

use super::network::LOG_DEVIATION;
use crate::evaluate::Actor;

/// `y = x W + b`.
#[derive(Debug, Clone)]
struct Layer {
    /// `[I, O]`, row by row.
    kernel: Vec<f32>,
    /// `[O]`.
    bias: Vec<f32>,
}

/// A tanh-squashed Gaussian policy.
#[derive(Debug, Clone)]
pub struct GaussianPolicy {
    layers: Vec<Layer>,
    /// Applied to observations first.
    pub normalizer: Option<Normalizer>,
}

impl GaussianPolicy {
    /// Copies the weights.
    ///
    /// # Errors
    /// When a parameter is missing.
    pub fn new(p: &Parameters) -> Result<Self, NetworkError> {
        let mut layers = Vec::new();
        while layers.is_empty() || p.contains(&format!("Dense_{}/kernel", layers.len())) {
            let name = format!("Dense_{}", layers.len());
            layers.push(Layer {
                kernel: p.get(&format!("{name}/kernel"))?.flatten_all()?.to_vec1()?,
                bias: p.get(&format!("{name}/bias"))?.to_vec1()?,
            });
        }
        Ok(Self {
            layers,
            normalizer: None,
        })
    }

    /// Widths from the observation over the hidden layers to mean and deviation of the action.
    pub(super) fn sizes(&self) -> Vec<usize> {
        let widths = self.layers.iter().map(|layer| layer.bias.len());
        std::iter::once(self.observation_size()).chain(widths).collect()
    }

    /// Shape and values of every array, by name.
    pub(super) fn arrays(&self) -> BTreeMap<String, (Vec<usize>, &[f32])> {
        let mut arrays = BTreeMap::new();
        let sizes = self.sizes();
        for (i, (layer, pair)) in self.layers.iter().zip(sizes.windows(2)).enumerate() {
            let (kernel, bias) = (&layer.kernel[..], &layer.bias[..]);
            arrays.insert(format!("actor/Dense_{i}/kernel"), (pair.to_vec(), kernel));
            arrays.insert(format!("actor/Dense_{i}/bias"), (vec![pair[1]], bias));
        }
        if let Some(Normalizer { mean, deviation }) = &self.normalizer {
            for (name, values) in [("mean", mean), ("deviation", deviation)] {
                arrays.insert(format!("normalizer/{name}"), (vec![values.len()], &values[..]));
            }
        }
        arrays
    }

    fn observation_size(&self) -> usize {
        let first = self.layers.first();
        first.map_or(0, |layer| layer.kernel.len() / layer.bias.len().max(1))
    }

    /// Mean and logarithm of the deviation, `[2 A]`.
    fn head(&self, observation: &[f32]) -> Result<Vec<f32>, SampleError> {
        let (what, expected, got) = ("the observation", self.observation_size(), observation.len());
        if expected != got {
            return Err(SampleError::Length { what, expected, got });
        }
        let mut x = observation.to_vec();
        if let Some(normalizer) = &self.normalizer {
            normalizer.apply(&mut x);
        }
        for (i, layer) in self.layers.iter().enumerate() {
            let mut y = layer.bias.clone();
            for (x, row) in x.iter().zip(layer.kernel.chunks_exact(y.len())) {
                y.iter_mut().zip(row).for_each(|(y, w)| *y += x * w);
            }
            if i + 1 < self.layers.len() {
                y.iter_mut().for_each(|y| *y = y.max(0.0));
            }
            x = y;
        }
        match x.iter().position(|value| !value.is_finite()) {
            None => Ok(x),
            Some(index) => Err(SampleError::NotFinite {
                index,
                value: x[index],
            }),
        }
    }

    /// `tanh(mean + deviation * noise)`.
    pub(super) fn sample(&self, observation: &[f32], noise: &[f32]) -> Result<Vec<f32>, SampleError> {
        let head = self.head(observation)?;
        let (mean, log_deviation) = head.split_at(noise.len());
        let parts = mean.iter().zip(log_deviation).zip(noise);
        Ok(parts
            .map(|((mean, log), noise)| {
                (mean + log.clamp(LOG_DEVIATION.0, LOG_DEVIATION.1).exp() * noise).tanh()
            })
            .collect())
    }
}

impl Actor for GaussianPolicy {
    fn action_size(&self) -> usize {
        self.layers.last().map_or(0, |layer| layer.bias.len() / 2)
    }

    /// The mode of the policy, `tanh(mean)`: SAC is evaluated without noise, and has nothing to choose among.
    fn act(
        &mut self,
        observation: &[f32],
        _noise: &mut NormalNoise,
        _candidates: usize,
        action: &mut [f32],
    ) -> Result<(), SampleError> {
        let still = vec![0.0; self.action_size()];
        action.copy_from_slice(&self.sample(observation, &still)?);
        Ok(())
    }
}
