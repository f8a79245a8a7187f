//! The weights as they lie in the memory that the kernel computes with, named as in the bundle that they came from.
//!
//! One thing there is no weight but computed from some: layer 1's bias at each step, which holds the embedding of the sampler's
//! times. [`StepSource`] keeps those, and tells whether they still make the same bits.

use candle_core::Tensor;

use super::{FastCritic, FastMeanFlow, PackedTrunk, values};
use crate::mean_flow::MeanFlow;
use crate::nn::Condition;
use crate::parameters::NetworkError;
use crate::weights::{Part, Weights};

/// What layer 1's bias at each step is computed from.
#[derive(Debug, Clone)]
pub struct StepSource {
    condition: Condition,
    /// The condition's rows of layer 1, `[E, H]`.
    kernel: Tensor,
    bias: Tensor,
}

impl StepSource {
    /// Refers to the weights of `network`.
    ///
    /// # Errors
    /// When a tensor operation fails.
    pub fn of(network: &MeanFlow) -> Result<Self, NetworkError> {
        let first = &network.trunk.mlp.layers[0].linear;
        let others = network.action_size() + network.observation_size();
        let kernel = first.kernel.narrow(0, others, network.condition.size())?;
        Ok(Self {
            condition: network.condition.clone(),
            kernel: kernel.detach(),
            bias: first.bias.clone(),
        })
    }

    /// Layer 1's bias at each step, in the order of sampling (`t = 1` first), `[T][H]`.
    ///
    /// # Errors
    /// When a tensor operation fails.
    pub fn biases(&self, steps: usize) -> Result<Vec<Vec<f32>>, NetworkError> {
        let device = self.kernel.device();
        let times: Vec<f32> = (1..=steps)
            .rev()
            .map(|i| (i as f64 / steps as f64) as f32)
            .collect();
        let t = Tensor::from_vec(times, (steps, 1), device)?;
        let h = Tensor::full((1.0 / steps as f64) as f32, (steps, 1), device)?;
        let condition = self.condition.forward(&t, &h)?.detach();
        let bias = condition.matmul(&self.kernel)?.broadcast_add(&self.bias)?;
        (0..steps).map(|i| values(&bias.get(i)?)).collect()
    }
}

impl PackedTrunk {
    /// All but layer 1's kernel.
    fn weights<'a>(&'a self, prefix: &str, head: &str, weights: &mut Weights<'a>) {
        for (i, layer) in [&self.first].into_iter().chain(&self.layers).enumerate() {
            let width = vec![layer.width()];
            if i > 0 {
                let kernel = &layer.kernel;
                weights.insert(
                    format!("{prefix}/MLP_0/Dense_{i}/kernel"),
                    vec![kernel.inner(), kernel.columns()],
                    vec![Part::Packed(kernel)],
                );
            }
            for (name, numbers) in [
                (format!("{prefix}/MLP_0/Dense_{i}/bias"), &layer.bias),
                (format!("{prefix}/MLP_0/LayerNorm_{i}/scale"), &layer.scale),
                (format!("{prefix}/MLP_0/LayerNorm_{i}/bias"), &layer.shift),
            ] {
                weights.insert(name, width.clone(), vec![Part::Numbers(numbers)]);
            }
        }
        weights.insert(
            format!("{prefix}/{head}/kernel"),
            vec![self.head.inner(), self.head.columns()],
            vec![Part::Packed(&self.head)],
        );
        weights.insert(
            format!("{prefix}/{head}/bias"),
            vec![self.head_bias.len()],
            vec![Part::Numbers(&self.head_bias)],
        );
    }
}

impl FastMeanFlow {
    /// Adds its weights; those that it was only computed from are the source's.
    ///
    /// # Errors
    /// When the source makes other biases than those in use.
    pub(crate) fn weights<'a>(
        &'a self,
        prefix: &str,
        source: &'a StepSource,
        weights: &mut Weights<'a>,
    ) -> Result<(), NetworkError> {
        let one_step = self.one_step_bias.as_ref();
        let is_whole = self.step_bias == source.biases(self.steps())?
            && one_step.is_none_or(|bias| source.biases(1).is_ok_and(|made| made.first() == Some(bias)));
        if !is_whole {
            return Err(NetworkError::Damaged {
                name: format!("{prefix}: layer 1's bias at each step"),
            });
        }
        let head = format!("MLP_0/Dense_{}", self.trunk.layers.len() + 1);
        self.trunk.weights(prefix, &head, weights);
        let (x, observation) = (&self.trunk.first.kernel, &self.trunk.observation_kernel);
        let rows = x.inner() + observation.inner() + source.condition.size();
        weights.insert(
            format!("{prefix}/MLP_0/Dense_0/kernel"),
            vec![rows, x.columns()],
            vec![
                Part::Packed(x),
                Part::Packed(observation),
                Part::Tensor(&source.kernel),
            ],
        );
        weights.embedder(&format!("{prefix}/TimestepEmbedder_0"), &source.condition.time);
        weights.embedder(
            &format!("{prefix}/TimestepEmbedder_1"),
            &source.condition.interval,
        );
        Ok(())
    }
}

impl FastCritic {
    /// Adds its weights.
    pub(crate) fn weights<'a>(&'a self, prefix: &str, weights: &mut Weights<'a>) {
        self.trunk.weights(prefix, "Dense_0", weights);
        let (x, observation) = (&self.trunk.first.kernel, &self.trunk.observation_kernel);
        weights.insert(
            format!("{prefix}/MLP_0/Dense_0/kernel"),
            vec![x.inner() + observation.inner(), x.columns()],
            vec![Part::Packed(observation), Part::Packed(x)],
        );
    }
}
