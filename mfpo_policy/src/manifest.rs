//! What a PolicyBundle says of itself: JSON in the metadata of the file.

use serde::{Deserialize, Serialize};

use crate::critic::ValueSupport;
use crate::sampler::Normalizer;
use crate::spec::RobotSpec;

/// An input with the action that the policy gave when it was sealed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GoldenProbe {
    /// `[S]`, before normalisation.
    pub observation: Vec<f32>,
    /// Standard normal, `[A]`.
    pub noise: Vec<f32>,
    /// `[A]`, in `[-1, 1]`.
    pub action: Vec<f32>,
}

/// The critics of a bundle.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CriticManifest {
    /// The atoms.
    pub support: ValueSupport,
    /// Whether best of N takes the smaller critic (else the mean).
    pub clipped_double_q: bool,
}

/// What a bundle says of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`crate::bundle::FORMAT`].
    pub format: String,
    /// Unique id of the training run.
    pub run: String,
    /// Version within the run; rises.
    pub version: u64,
    /// When it was sealed, seconds since 1970 (UTC).
    pub created_unix_s: u64,
    /// The robot that it was trained for: joints, units, limits, observation, action, control period.
    pub robot: RobotSpec,
    /// [`RobotSpec::hash`] of `robot`.
    pub spec_hash: String,
    /// T of the sampler.
    pub sampling_steps: usize,
    /// Widths of the actor's hidden layers.
    pub hidden_sizes: Vec<usize>,
    /// The critics for best of N, where the bundle carries them.
    pub critics: Option<CriticManifest>,
    /// What observations are normalised with.
    pub normalizer: Option<Normalizer>,
    /// Inputs and actions that the policy must reproduce.
    pub probes: Vec<GoldenProbe>,
    /// Largest allowed difference of a probe's action.
    pub probe_tolerance: f32,
    /// SHA-256 of the manifest with this field empty and of all tensors, hexadecimal.
    pub digest: String,
}
