//! PolicyBundle: a policy as one safetensors file. The metadata's key `mfpo` holds the [`Manifest`] as JSON; tensors
//! are named `actor/...` and, for best of N, `critic_1/...` and `critic_2/...`. Any safetensors reader opens it.
//!
//! [`seal`] writes one, [`open`] is the only way to a [`VerifiedBundle`]: structure, sizes, digest and finite weights
//! have been checked, whatever the bytes were.

use std::collections::{BTreeMap, HashMap};
use std::time::{SystemTime, UNIX_EPOCH};

use candle_core::{Device, Tensor};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::critic::Critic;
use crate::fast::values;
use crate::mean_flow::MeanFlow;
use crate::noise::NormalNoise;
use crate::parameters::{NetworkError, Parameters};
use crate::sampler::{ActionSampler, Normalizer, PolicyNetworks, SampleError};
use crate::spec::SpecError;
use crate::subject::Subject;

pub use crate::manifest::{CriticManifest, GoldenProbe, Manifest};

/// The format that this code writes and reads.
pub const FORMAT: &str = "mfpo-policy-bundle/1";
/// Key of the manifest in the file's metadata.
pub const METADATA_KEY: &str = "mfpo";
/// A larger file is refused before it is read, bytes.
pub const MOST_BYTES: usize = 512 << 20;
/// More sampling steps than this are a mistake.
pub const MOST_STEPS: usize = 1000;

/// Why a bundle could not be sealed or opened.
#[derive(Debug, Error)]
pub enum BundleError {
    /// Not a safetensors file, or cut short.
    #[error("not a complete safetensors file ({got} bytes): {reason}; copy the bundle again")]
    Structure {
        /// What the reader said.
        reason: String,
        /// Size of what came, bytes.
        got: usize,
    },
    /// A safetensors file without our metadata, or with metadata that is not a manifest.
    #[error("the file's metadata holds no readable manifest under '{METADATA_KEY}': {0}")]
    Manifest(String),
    /// Another format version.
    #[error("bundle format is '{got}'; this program reads '{FORMAT}'")]
    Format {
        /// The format that came.
        got: String,
    },
    /// Content and digest differ.
    #[error("digest is {got}, but the manifest promises {expected}; the bundle was changed or damaged")]
    Digest {
        /// The manifest's digest.
        expected: String,
        /// The digest of what came.
        got: String,
    },
    /// A value in the manifest contradicts the weights or itself.
    #[error("{what} is {got}; expected {expected}")]
    Mismatch {
        /// The value.
        what: &'static str,
        /// What was expected.
        expected: String,
        /// What came.
        got: String,
    },
    /// A weight is NaN or infinite.
    #[error("weight {index} of '{tensor}' is {value}; every weight must be finite")]
    NotFinite {
        /// Name of the tensor.
        tensor: String,
        /// Flat index.
        index: usize,
        /// The value.
        value: f32,
    },
    /// The sampler's answer differs from the recorded one.
    #[error(
        "golden probe {probe}: component {index} of the action is {got}; expected {expected} +- {tolerance}"
    )]
    Probe {
        /// Index of the probe.
        probe: usize,
        /// Component of the action.
        index: usize,
        /// The recorded value.
        expected: f32,
        /// The value computed here.
        got: f32,
        /// The tolerance.
        tolerance: f32,
    },
    /// The robot or the task in the manifest is not valid.
    #[error("the manifest's robot or task is not valid: {0}")]
    Spec(#[from] SpecError),
    /// The weights do not make the networks that the manifest describes.
    #[error("the weights do not fit: {0}")]
    Network(#[from] NetworkError),
    /// A probe could not be computed.
    #[error("a golden probe could not be computed: {0}")]
    Sample(#[from] SampleError),
}

/// What is put into a bundle.
#[derive(Debug, Clone)]
pub struct SealRequest<'a> {
    /// What the policy acts on.
    pub subject: &'a Subject,
    /// Unique id of the training run.
    pub run: &'a str,
    /// Version within the run.
    pub version: u64,
    /// T of the sampler.
    pub sampling_steps: usize,
    /// Parameters of the actor.
    pub actor: &'a Parameters,
    /// Parameters of the two (target) critics.
    pub critics: Option<([&'a Parameters; 2], CriticManifest)>,
    /// What observations are normalised with.
    pub normalizer: Option<Normalizer>,
    /// Observations for golden probes, each `[S]`; a few typical ones. Without any, three random ones are used.
    pub probe_observations: Vec<Vec<f32>>,
}

/// Writes a bundle and opens it once, so that what is returned is known to be valid.
///
/// # Errors
/// Any [`BundleError`] that [`open`] would find later.
pub fn seal(request: &SealRequest<'_>) -> Result<Vec<u8>, BundleError> {
    request.subject.validate()?;
    let mut tensors = BTreeMap::new();
    add(&mut tensors, "actor", request.actor)?;
    if let Some((critics, _)) = &request.critics {
        add(&mut tensors, "critic_1", critics[0])?;
        add(&mut tensors, "critic_2", critics[1])?;
    }
    let actor = MeanFlow::load(request.actor, request.subject.action_size())?;
    let mut manifest = Manifest {
        format: FORMAT.into(),
        run: request.run.into(),
        version: request.version,
        created_unix_s: SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |d| d.as_secs()),
        subject: request.subject.clone(),
        sampling_steps: request.sampling_steps,
        hidden_sizes: actor.trunk.mlp.hidden_sizes(),
        critics: request.critics.as_ref().map(|(_, manifest)| *manifest),
        normalizer: request.normalizer.clone(),
        probes: Vec::new(),
        probe_tolerance: 1e-3,
        digest: String::new(),
    };
    manifest.probes = probes(request, &actor)?;
    manifest.digest = digest(&manifest, &tensors);
    let bytes = write(&manifest, &tensors)?;
    open(&bytes)?;
    Ok(bytes)
}

/// A tensor as it lies in the file.
#[derive(Debug, Clone)]
struct RawTensor {
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

fn add(tensors: &mut BTreeMap<String, RawTensor>, prefix: &str, p: &Parameters) -> Result<(), BundleError> {
    for (name, tensor) in p.iter() {
        let bytes = values(tensor)?.iter().flat_map(|v| v.to_le_bytes()).collect();
        let shape = tensor.dims().to_vec();
        tensors.insert(format!("{prefix}/{name}"), RawTensor { shape, bytes });
    }
    Ok(())
}

fn write(manifest: &Manifest, tensors: &BTreeMap<String, RawTensor>) -> Result<Vec<u8>, BundleError> {
    let structure = |e: safetensors::SafeTensorError| BundleError::Structure {
        reason: e.to_string(),
        got: 0,
    };
    let json = serde_json::to_string(manifest).map_err(|e| BundleError::Manifest(e.to_string()))?;
    let views = tensors
        .iter()
        .map(|(name, t)| {
            Ok((
                name,
                TensorView::new(Dtype::F32, t.shape.clone(), &t.bytes).map_err(structure)?,
            ))
        })
        .collect::<Result<Vec<_>, BundleError>>()?;
    let metadata = HashMap::from([(METADATA_KEY.to_owned(), json)]);
    safetensors::serialize(views, Some(metadata)).map_err(structure)
}

fn probes(request: &SealRequest<'_>, actor: &MeanFlow) -> Result<Vec<GoldenProbe>, BundleError> {
    let mut noise = NormalNoise::new(request.version);
    let mut observations = request.probe_observations.clone();
    if observations.is_empty() {
        observations = vec![vec![0.0; request.subject.observation_size()]; 3];
        observations.iter_mut().for_each(|o| noise.fill(o));
    }
    let networks = PolicyNetworks {
        actor: actor.clone(),
        critics: None,
        clipped_double_q: true,
        steps: request.sampling_steps,
        normalizer: request.normalizer.clone(),
    };
    let mut sampler = ActionSampler::new(&networks, &Device::Cpu)?;
    let make = |observation: Vec<f32>| {
        let (mut draw, mut action) = (vec![0.0; actor.action_size()], vec![0.0; actor.action_size()]);
        noise.fill(&mut draw);
        sampler.sample_into(&observation, &draw, 1, &mut action)?;
        Ok(GoldenProbe {
            observation,
            noise: draw,
            action,
        })
    };
    observations.into_iter().map(make).collect()
}

fn digest(manifest: &Manifest, tensors: &BTreeMap<String, RawTensor>) -> String {
    let blank = Manifest {
        digest: String::new(),
        ..manifest.clone()
    };
    let mut hash = Sha256::new();
    hash.update(serde_json::to_vec(&blank).unwrap_or_default());
    for (name, tensor) in tensors {
        hash.update((name.len() as u64).to_le_bytes());
        hash.update(name.as_bytes());
        hash.update((tensor.shape.len() as u64).to_le_bytes());
        tensor
            .shape
            .iter()
            .for_each(|d| hash.update((*d as u64).to_le_bytes()));
        hash.update(&tensor.bytes);
    }
    hex::encode(hash.finalize())
}

/// A bundle whose structure, sizes, digest and weights have been checked. Only [`open`] makes one.
#[derive(Debug, Clone)]
pub struct VerifiedBundle {
    manifest: Manifest,
    parameters: Parameters,
}

/// Checks a bundle and reads it.
///
/// # Errors
/// A [`BundleError`] that says what was expected and what came; nothing panics, and nothing larger than the file is
/// allocated for its content.
pub fn open(bytes: &[u8]) -> Result<VerifiedBundle, BundleError> {
    let structure = |reason: String| BundleError::Structure {
        reason,
        got: bytes.len(),
    };
    if bytes.len() > MOST_BYTES {
        return Err(structure(format!("larger than {MOST_BYTES} bytes")));
    }
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(|e| structure(e.to_string()))?;
    let file = SafeTensors::deserialize(bytes).map_err(|e| structure(e.to_string()))?;
    let json = header.metadata().as_ref().and_then(|m| m.get(METADATA_KEY));
    let json = json.ok_or_else(|| BundleError::Manifest("the key is missing".into()))?;
    let manifest = Manifest::parse(json)?;
    let tensors = read(&file)?;
    let got = digest(&manifest, &tensors);
    if got != manifest.digest {
        return Err(BundleError::Digest {
            expected: manifest.digest,
            got,
        });
    }
    let bundle = VerifiedBundle {
        parameters: parameters(&tensors)?,
        manifest,
    };
    bundle.check()?;
    Ok(bundle)
}

fn read(file: &SafeTensors<'_>) -> Result<BTreeMap<String, RawTensor>, BundleError> {
    let mut tensors = BTreeMap::new();
    for (name, view) in file.tensors() {
        if view.dtype() != Dtype::F32 {
            return Err(BundleError::Mismatch {
                what: "the type of a tensor",
                expected: "F32".into(),
                got: format!("{:?} ('{name}')", view.dtype()),
            });
        }
        let raw = RawTensor {
            shape: view.shape().to_vec(),
            bytes: view.data().to_vec(),
        };
        tensors.insert(name, raw);
    }
    Ok(tensors)
}

fn parameters(tensors: &BTreeMap<String, RawTensor>) -> Result<Parameters, BundleError> {
    let mut named = BTreeMap::new();
    for (name, raw) in tensors {
        let numbers: Vec<f32> = raw
            .bytes
            .chunks_exact(4)
            .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
            .collect();
        if let Some((index, &value)) = numbers.iter().enumerate().find(|(_, v)| !v.is_finite()) {
            let tensor = name.clone();
            return Err(BundleError::NotFinite { tensor, index, value });
        }
        let tensor =
            Tensor::from_vec(numbers, raw.shape.as_slice(), &Device::Cpu).map_err(NetworkError::from)?;
        named.insert(name.clone(), tensor);
    }
    Ok(Parameters::new(named))
}

impl VerifiedBundle {
    /// What the bundle says of itself.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The digest, computed from what was read.
    pub fn digest(&self) -> &str {
        &self.manifest.digest
    }

    /// The weights, named as in the file.
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// The networks on `device`.
    ///
    /// # Errors
    /// When the device has no memory left.
    pub fn networks(&self, device: &Device) -> Result<PolicyNetworks, BundleError> {
        let parameters = self.parameters.to_device(device)?;
        let critics = match &self.manifest.critics {
            None => None,
            Some(critics) => Some([
                Critic::load(&parameters.under("critic_1"), critics.support)?,
                Critic::load(&parameters.under("critic_2"), critics.support)?,
            ]),
        };
        Ok(PolicyNetworks {
            actor: MeanFlow::load(&parameters.under("actor"), self.manifest.subject.action_size())?,
            critics,
            clipped_double_q: self.manifest.critics.is_none_or(|c| c.clipped_double_q),
            steps: self.manifest.sampling_steps,
            normalizer: self.manifest.normalizer.clone(),
        })
    }

    /// A sampler on `device`.
    ///
    /// # Errors
    /// When the device has no memory left.
    pub fn sampler(&self, device: &Device) -> Result<ActionSampler, BundleError> {
        Ok(ActionSampler::new(&self.networks(device)?, device)?)
    }

    /// Compares `sampler` with the golden probes: the computer that runs the policy computes what the trainer did.
    ///
    /// # Errors
    /// [`BundleError::Probe`] with the first difference.
    pub fn check_probes(&self, sampler: &mut ActionSampler) -> Result<(), BundleError> {
        let tolerance = self.manifest.probe_tolerance;
        let mut action = vec![0.0; sampler.action_size()];
        for (number, probe) in self.manifest.probes.iter().enumerate() {
            sampler.sample_into(&probe.observation, &probe.noise, 1, &mut action)?;
            for (index, (&got, &expected)) in action.iter().zip(&probe.action).enumerate() {
                if (got - expected).abs() > tolerance {
                    return Err(BundleError::Probe {
                        probe: number,
                        index,
                        expected,
                        got,
                        tolerance,
                    });
                }
            }
        }
        Ok(())
    }

    /// Every promise of the manifest that can be checked without a robot or a simulator.
    fn check(&self) -> Result<(), BundleError> {
        let manifest = &self.manifest;
        manifest.subject.validate()?;
        if manifest.run.is_empty() {
            return Err(mismatch("the run id", "a name", "empty"));
        }
        if !(1..=MOST_STEPS).contains(&manifest.sampling_steps) {
            let got = manifest.sampling_steps.to_string();
            return Err(mismatch(
                "the number of sampling steps",
                &format!("1 to {MOST_STEPS}"),
                &got,
            ));
        }
        self.check_networks()?;
        self.check_numbers()
    }

    fn check_networks(&self) -> Result<(), BundleError> {
        let (manifest, subject) = (&self.manifest, &self.manifest.subject);
        if let Some(critics) = &manifest.critics {
            let s = &critics.support;
            if !(s.minimum.is_finite() && s.maximum.is_finite() && s.minimum < s.maximum && s.atoms >= 2) {
                return Err(mismatch(
                    "the critics' support",
                    "finite, rising, 2 atoms or more",
                    &format!("{s:?}"),
                ));
            }
        }
        let networks = self.networks(&Device::Cpu)?;
        let (observation, action) = (subject.observation_size(), subject.action_size());
        let actor = &networks.actor;
        expect(
            "the actor's observation size",
            &observation,
            &actor.observation_size(),
        )?;
        expect(
            "the actor's output size",
            &action,
            &actor.trunk.head.output_size(),
        )?;
        expect(
            "the actor's hidden sizes",
            &format!("{:?}", manifest.hidden_sizes),
            &format!("{:?}", actor.trunk.mlp.hidden_sizes()),
        )?;
        for critic in networks.critics.iter().flatten() {
            expect(
                "a critic's input size",
                &(observation + action),
                &critic.trunk.mlp.input_size(),
            )?;
        }
        let expected = expected_names(&networks);
        match self.parameters.iter().find(|(name, _)| !expected.contains(*name)) {
            None => Ok(()),
            Some((name, _)) => Err(mismatch(
                "a tensor's name",
                "a parameter of the networks in the manifest",
                name,
            )),
        }
    }

    fn check_numbers(&self) -> Result<(), BundleError> {
        let manifest = &self.manifest;
        let (observation, action) = (
            manifest.subject.observation_size(),
            manifest.subject.action_size(),
        );
        if let Some(n) = &manifest.normalizer {
            expect("the normaliser's mean's length", &observation, &n.mean.len())?;
            expect(
                "the normaliser's deviation's length",
                &observation,
                &n.deviation.len(),
            )?;
            if !n.deviation.iter().all(|d| d.is_finite() && *d > 0.0) || !n.mean.iter().all(|m| m.is_finite())
            {
                return Err(mismatch(
                    "the normaliser",
                    "finite means and positive deviations",
                    "other numbers",
                ));
            }
        }
        if manifest.probes.is_empty() || !(manifest.probe_tolerance > 0.0 && manifest.probe_tolerance <= 0.1)
        {
            let got = format!(
                "{} probes, tolerance {}",
                manifest.probes.len(),
                manifest.probe_tolerance
            );
            return Err(mismatch(
                "the golden probes",
                "at least one, tolerance in (0, 0.1]",
                &got,
            ));
        }
        for probe in &manifest.probes {
            expect(
                "a probe's observation's length",
                &observation,
                &probe.observation.len(),
            )?;
            expect("a probe's noise's length", &action, &probe.noise.len())?;
            expect("a probe's action's length", &action, &probe.action.len())?;
        }
        Ok(())
    }
}

/// Names of every parameter that the networks read.
fn expected_names(networks: &PolicyNetworks) -> std::collections::BTreeSet<String> {
    let mut names = std::collections::BTreeSet::new();
    let mut linear = |name: String| {
        names.insert(format!("{name}/kernel"));
        names.insert(format!("{name}/bias"));
    };
    for embedder in ["TimestepEmbedder_0", "TimestepEmbedder_1"] {
        linear(format!("actor/{embedder}/MLP_0/Dense_0"));
        linear(format!("actor/{embedder}/MLP_0/Dense_1"));
    }
    let layers = networks.actor.trunk.mlp.layers.len();
    (0..=layers).for_each(|i| linear(format!("actor/MLP_0/Dense_{i}")));
    let critics = networks
        .critics
        .iter()
        .flatten()
        .map(|c| c.trunk.mlp.layers.len());
    for (index, layers) in critics.clone().enumerate() {
        (0..layers).for_each(|i| linear(format!("critic_{}/MLP_0/Dense_{i}", index + 1)));
        linear(format!("critic_{}/Dense_0", index + 1));
    }
    let mut norm = |name: String| {
        names.insert(format!("{name}/scale"));
        names.insert(format!("{name}/bias"));
    };
    (0..layers).for_each(|i| norm(format!("actor/MLP_0/LayerNorm_{i}")));
    for (index, layers) in critics.enumerate() {
        (0..layers).for_each(|i| norm(format!("critic_{}/MLP_0/LayerNorm_{i}", index + 1)));
    }
    for embedder in ["TimestepEmbedder_0", "TimestepEmbedder_1"] {
        names.insert(format!("actor/{embedder}/FourierFeatures_0/kernel"));
    }
    names
}

fn mismatch(what: &'static str, expected: &str, got: &str) -> BundleError {
    BundleError::Mismatch {
        what,
        expected: expected.to_owned(),
        got: got.to_owned(),
    }
}

fn expect<T: PartialEq + ToString>(what: &'static str, expected: &T, got: &T) -> Result<(), BundleError> {
    if expected == got {
        return Ok(());
    }
    Err(mismatch(what, &expected.to_string(), &got.to_string()))
}

#[cfg(test)]
#[path = "bundle_tests.rs"]
mod tests;
