//! Weights by name, wherever they lie: in a bundle, on a device, or packed in the memory that the kernel computes with. Their
//! digest is the same for the same numbers, so that what acts can be compared with the file that it came from:
//! SHA-256 of each name, shape and row-major values as 32-bit floats, in the order of the names; all little-endian, lengths
//! and sizes as 64-bit numbers.

use std::collections::BTreeMap;

use candle_core::Tensor;
use sha2::{Digest, Sha256};

use crate::critic::Critic;
use crate::fast::values;
use crate::kernel::PackedMatrix;
use crate::mean_flow::MeanFlow;
use crate::nn::{Linear, TimeEmbedder, Trunk};
use crate::parameters::{NetworkError, Parameters};
use crate::sampler::PolicyNetworks;

/// Some rows of a weight.
#[derive(Debug, Clone)]
pub(crate) enum Part<'a> {
    /// Packed for the kernel.
    Packed(&'a PackedMatrix),
    /// As they are.
    Numbers(&'a [f32]),
    /// On whatever device.
    Tensor(&'a Tensor),
}

impl Part<'_> {
    fn values(&self) -> Result<Vec<f32>, NetworkError> {
        match self {
            Self::Packed(matrix) => Ok(matrix.unpacked()),
            Self::Numbers(numbers) => Ok(numbers.to_vec()),
            Self::Tensor(tensor) => values(tensor),
        }
    }
}

/// One weight: its parts, one below the other, make up the shape.
#[derive(Debug, Clone)]
struct Weight<'a> {
    shape: Vec<usize>,
    parts: Vec<Part<'a>>,
}

/// Weights by name.
#[derive(Debug, Clone, Default)]
pub(crate) struct Weights<'a>(BTreeMap<String, Weight<'a>>);

impl<'a> Weights<'a> {
    /// Those of a bundle.
    pub(crate) fn of_parameters(parameters: &'a Parameters) -> Self {
        let mut weights = Self::default();
        parameters
            .iter()
            .for_each(|(name, tensor)| weights.tensor(name.clone(), tensor));
        weights
    }

    /// Those that networks are made of, named as in a bundle.
    pub(crate) fn of_networks(networks: &'a PolicyNetworks) -> Self {
        let mut weights = Self::default();
        weights.mean_flow("actor", &networks.actor);
        for (critic, name) in networks.critics.iter().flatten().zip(["critic_1", "critic_2"]) {
            weights.critic(name, critic);
        }
        weights
    }

    /// Adds a weight.
    pub(crate) fn insert(&mut self, name: String, shape: Vec<usize>, parts: Vec<Part<'a>>) {
        self.0.insert(name, Weight { shape, parts });
    }

    /// Adds a tensor.
    pub(crate) fn tensor(&mut self, name: String, tensor: &'a Tensor) {
        self.insert(name, tensor.dims().to_vec(), vec![Part::Tensor(tensor)]);
    }

    /// Adds what embeds a time.
    pub(crate) fn embedder(&mut self, name: &str, embedder: &'a TimeEmbedder) {
        self.tensor(format!("{name}/FourierFeatures_0/kernel"), &embedder.frequencies);
        self.linear(&format!("{name}/MLP_0/Dense_0"), &embedder.hidden);
        self.linear(&format!("{name}/MLP_0/Dense_1"), &embedder.output);
    }

    /// Is there one of this name?
    pub(crate) fn contains(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// The digest, hexadecimal.
    ///
    /// # Errors
    /// When a device cannot be read.
    pub(crate) fn digest(&self) -> Result<String, NetworkError> {
        let mut hash = Sha256::new();
        for (name, weight) in &self.0 {
            feed_name(&mut hash, name, &weight.shape);
            for part in &weight.parts {
                for numbers in part.values()?.chunks(1024) {
                    let bytes: Vec<u8> = numbers.iter().flat_map(|v| v.to_le_bytes()).collect();
                    hash.update(&bytes);
                }
            }
        }
        Ok(hex::encode(hash.finalize()))
    }

    fn linear(&mut self, name: &str, linear: &'a Linear) {
        self.tensor(format!("{name}/kernel"), &linear.kernel);
        self.tensor(format!("{name}/bias"), &linear.bias);
    }

    fn trunk(&mut self, prefix: &str, trunk: &'a Trunk, head: &str) {
        for (i, layer) in trunk.mlp.layers.iter().enumerate() {
            self.linear(&format!("{prefix}/MLP_0/Dense_{i}"), &layer.linear);
            self.tensor(format!("{prefix}/MLP_0/LayerNorm_{i}/scale"), &layer.scale);
            self.tensor(format!("{prefix}/MLP_0/LayerNorm_{i}/bias"), &layer.shift);
        }
        self.linear(&format!("{prefix}/{head}"), &trunk.head);
    }

    /// Adds a mean flow network.
    pub(crate) fn mean_flow(&mut self, prefix: &str, network: &'a MeanFlow) {
        self.embedder(&format!("{prefix}/TimestepEmbedder_0"), &network.condition.time);
        self.embedder(
            &format!("{prefix}/TimestepEmbedder_1"),
            &network.condition.interval,
        );
        let head = format!("MLP_0/Dense_{}", network.trunk.mlp.layers.len());
        self.trunk(prefix, &network.trunk, &head);
    }

    /// Adds a critic.
    pub(crate) fn critic(&mut self, prefix: &str, critic: &'a Critic) {
        self.trunk(prefix, &critic.trunk, "Dense_0");
    }
}

/// What stands before a weight's values.
pub(crate) fn feed_name(hash: &mut Sha256, name: &str, shape: &[usize]) {
    hash.update((name.len() as u64).to_le_bytes());
    hash.update(name.as_bytes());
    hash.update((shape.len() as u64).to_le_bytes());
    shape.iter().for_each(|d| hash.update((*d as u64).to_le_bytes()));
}
