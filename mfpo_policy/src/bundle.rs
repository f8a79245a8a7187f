//! PolicyBundle: a policy as one safetensors file. The metadata's key `mfpo` holds the [`Manifest`] as JSON; tensors
//! are named `actor/...` and, for best of N, `critic_1/...` and `critic_2/...`. Any safetensors reader opens it.
//!
//! [`seal`] writes one, [`sign`] says who vouches for it, [`open`] is the only way to a [`VerifiedBundle`]: structure, sizes, digest and finite weights
//! have been checked, whatever the bytes were.

use std::time::{SystemTime, UNIX_EPOCH};

use candle_core::Device;
use thiserror::Error;

use crate::bounds;
use crate::contents::Contents;
use crate::critic::{Critic, ValueSupport};
use crate::guard::GuardManifest;
use crate::mean_flow::MeanFlow;
use crate::noise::NormalNoise;
use crate::parameters::{NetworkError, Parameters};
use crate::sampler::{ActionSampler, Normalizer, PolicyNetworks, SampleError};
use crate::signature::{PublicKey, SignatureError, SigningKey};
use crate::spec::SpecError;
use crate::subject::Subject;
use crate::weights::Weights;

pub use crate::bounds::{most_for_opening, most_for_sampler};
pub use crate::manifest::{CriticManifest, GoldenProbe, Manifest};

/// The format that this code writes and reads.
pub const FORMAT: &str = "mfpo-policy-bundle/1";
/// Key of the manifest in the file's metadata.
pub const METADATA_KEY: &str = "mfpo";
/// Key in the metadata of a trainer's checkpoint, which is a safetensors file, too, but no bundle.
pub const CHECKPOINT_KEY: &str = "mfpo_checkpoint";
/// Key in the metadata of the policy of a SAC run, likewise.
pub const SAC_POLICY_KEY: &str = "mfpo_sac_policy";
/// A larger file is refused before it is read, bytes.
pub const MOST_BYTES: usize = 512 << 20;
/// More sampling steps than this are a mistake.
pub const MOST_STEPS: usize = 1000;

/// Why a bundle could not be sealed or opened.
#[derive(Debug, Error)]
pub enum BundleError {
    /// Not a safetensors file, or cut short.
    #[error("not a complete safetensors file ({got} bytes): {reason}")]
    Structure {
        /// What lies in it, what was expected, and what to do.
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
    /// A critic's answer differs from the recorded one.
    #[error(
        "golden probe {probe}: critic {critic} values the action at {got}; expected {expected} +- {tolerance}"
    )]
    Value {
        /// Index of the probe.
        probe: usize,
        /// Which critic, from 1.
        critic: usize,
        /// The recorded value.
        expected: f32,
        /// The value computed here.
        got: f32,
        /// The tolerance.
        tolerance: f64,
    },
    /// The weights in memory are not those of the bundle.
    #[error(
        "the digest of the weights, read back from the memory that they run from, is {got}; expected {expected}, that of the \
         bundle's; load it again, and test this computer's memory if that does not help"
    )]
    Memory {
        /// The digest of the bundle's tensors.
        expected: String,
        /// The digest of what lies in memory.
        got: String,
    },
    /// The robot or the task in the manifest is not valid.
    #[error("the manifest's robot or task is not valid: {0}")]
    Spec(#[from] SpecError),
    /// The signature is not of this bundle.
    #[error(transparent)]
    Signature(#[from] SignatureError),
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
    let mut networks = vec![("actor", request.actor)];
    if let Some(([first, second], _)) = &request.critics {
        networks.extend([("critic_1", *first), ("critic_2", *second)]);
    }
    let actor = MeanFlow::load(request.actor, request.subject.action_size())?;
    let manifest = Manifest {
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
        probes: probes(request, &actor)?,
        probe_tolerance: 1e-3,
        guard: None,
        digest: String::new(),
    };
    let bytes = Contents::new(manifest, &networks)?.write()?;
    open(&bytes)?;
    Ok(bytes)
}

/// The bundle `bytes` with a signature of `key` in place of the one that it may have.
///
/// # Errors
/// Any [`BundleError`] of [`open`]: only a valid bundle is signed.
pub fn sign(bytes: &[u8], key: &SigningKey) -> Result<Vec<u8>, BundleError> {
    open(bytes)?;
    let mut contents = Contents::read(bytes)?;
    contents.signature = Some(key.sign(&contents.manifest.digest));
    let signed = contents.write()?;
    open(&signed)?;
    Ok(signed)
}

/// The bundle `bytes` with `guard` in place of the one that it may have. Its digest is another one, and no signature is of
/// that: it has to be signed anew.
///
/// # Errors
/// Any [`BundleError`] of [`open`]; the guard needs critics, without which nobody samples several candidates.
pub fn with_guard(bytes: &[u8], guard: GuardManifest) -> Result<Vec<u8>, BundleError> {
    open(bytes)?;
    let mut contents = Contents::read(bytes)?;
    contents.manifest.guard = Some(guard);
    contents.manifest.digest = contents.digest();
    contents.signature = None;
    let guarded = contents.write()?;
    open(&guarded)?;
    Ok(guarded)
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
        critics: critics(request)?,
        clipped_double_q: true,
        steps: request.sampling_steps,
        normalizer: request.normalizer.clone(),
    };
    let mut sampler = ActionSampler::new(&networks, &Device::Cpu)?;
    let make = |observation: Vec<f32>| {
        let (mut draw, mut action) = (vec![0.0; actor.action_size()], vec![0.0; actor.action_size()]);
        noise.fill(&mut draw);
        sampler.sample_into(&observation, &draw, 1, &mut action)?;
        let values = sampler.values_of(&observation, &action)?;
        Ok(GoldenProbe {
            observation,
            noise: draw,
            action,
            values,
        })
    };
    observations.into_iter().map(make).collect()
}

/// The critics that are to be sealed, where they fit.
fn critics(request: &SealRequest<'_>) -> Result<Option<[Critic; 2]>, BundleError> {
    let Some(([first, second], manifest)) = &request.critics else {
        return Ok(None);
    };
    check_support(&manifest.support)?;
    let load = |parameters: &Parameters| {
        let critic = Critic::load(parameters, manifest.support)?;
        check_input(&critic, request.subject)?;
        Ok::<_, BundleError>(critic)
    };
    Ok(Some([load(first)?, load(second)?]))
}

/// A bundle whose structure, sizes, digest and weights have been checked. Only [`open`] makes one.
#[derive(Debug, Clone)]
pub struct VerifiedBundle {
    manifest: Manifest,
    parameters: Parameters,
    signer: Option<PublicKey>,
}

/// Checks a bundle and reads it.
///
/// # Errors
/// A [`BundleError`] that says what was expected and what came. Nothing panics, and no more is allocated than
/// [`most_for_opening`] says, whatever the file claims to hold (`tests/bundles`, `fuzz/`).
pub fn open(bytes: &[u8]) -> Result<VerifiedBundle, BundleError> {
    let mut contents = Contents::read(bytes)?;
    let signer = contents.signer()?;
    let bundle = VerifiedBundle {
        parameters: contents.take_parameters()?,
        manifest: contents.manifest,
        signer,
    };
    bundle.check()?;
    Ok(bundle)
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

    /// Whose signature it carries; it fits, but whether it counts is up to [`crate::signature::TrustedKeys`].
    pub fn signer(&self) -> Option<PublicKey> {
        self.signer
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

    /// SHA-256 of the names, shapes and values of the weights alone: unlike the digest it does not cover the manifest.
    ///
    /// # Errors
    /// When a tensor cannot be read.
    pub fn weights_digest(&self) -> Result<String, BundleError> {
        Ok(Weights::of_parameters(&self.parameters).digest()?)
    }

    /// A sampler on `device`, whose weights were read back from its memory and are the bundle's.
    ///
    /// # Errors
    /// When the device has no memory left, or what lies in it is not what the bundle holds.
    pub fn sampler(&self, device: &Device) -> Result<ActionSampler, BundleError> {
        let sampler = ActionSampler::new(&self.networks(device)?, device)?;
        let (expected, got) = (self.weights_digest()?, sampler.weights_digest()?);
        if expected != got {
            return Err(BundleError::Memory { expected, got });
        }
        Ok(sampler)
    }

    /// Compares `sampler` with the golden probes: the computer that runs the policy computes what the trainer did.
    ///
    /// # Errors
    /// [`BundleError::Probe`] or [`BundleError::Value`] with the first difference.
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
            self.check_values(number, sampler)?;
        }
        Ok(())
    }

    /// The same of what the critics say of a probe's action, where the bundle notes it. An action lies in a range of 2, and a
    /// value, in that of the support, is held to the same part of it.
    fn check_values(&self, number: usize, sampler: &mut ActionSampler) -> Result<(), BundleError> {
        let probe = &self.manifest.probes[number];
        let (Some(expected), Some(critics)) = (probe.values, &self.manifest.critics) else {
            return Ok(());
        };
        let Some(got) = sampler.values_of(&probe.observation, &probe.action)? else {
            return Ok(());
        };
        let half_width = 0.5 * (critics.support.maximum - critics.support.minimum);
        let tolerance = f64::from(self.manifest.probe_tolerance) * half_width;
        for (index, (got, expected)) in got.into_iter().zip(expected).enumerate() {
            if (f64::from(got) - f64::from(expected)).abs() > tolerance {
                return Err(BundleError::Value {
                    probe: number,
                    critic: index + 1,
                    expected,
                    got,
                    tolerance,
                });
            }
        }
        Ok(())
    }

    /// Every promise of the manifest that can be checked without a robot or a simulator.
    fn check(&self) -> Result<(), BundleError> {
        let manifest = &self.manifest;
        bounds::check_manifest(manifest)?;
        manifest.subject.validate()?;
        self.check_networks()?;
        self.check_numbers()
    }

    fn check_networks(&self) -> Result<(), BundleError> {
        let (manifest, subject) = (&self.manifest, &self.manifest.subject);
        if let Some(critics) = &manifest.critics {
            check_support(&critics.support)?;
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
            check_input(critic, subject)?;
        }
        bounds::check_cost(&networks)?;
        let expected = Weights::of_networks(&networks);
        match self.parameters.iter().find(|(name, _)| !expected.contains(name)) {
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
        if let Some(guard) = &manifest.guard {
            guard.check(manifest.critics.is_some(), manifest.sampling_steps)?;
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
            if probe.values.is_some() && manifest.critics.is_none() {
                return Err(mismatch(
                    "what critics say of a probe",
                    "left out in a bundle without critics",
                    "two values",
                ));
            }
        }
        Ok(())
    }
}

fn check_support(support: &ValueSupport) -> Result<(), BundleError> {
    let ends = [support.minimum, support.maximum];
    // They are computed with as 32-bit floats.
    let is_finite = ends.iter().all(|end| (*end as f32).is_finite());
    if is_finite && support.minimum < support.maximum && support.atoms >= 2 {
        return Ok(());
    }
    Err(mismatch(
        "the critics' support",
        "finite, rising, 2 atoms or more",
        &format!("{support:?}"),
    ))
}

fn check_input(critic: &Critic, subject: &Subject) -> Result<(), BundleError> {
    expect(
        "a critic's input size",
        &(subject.observation_size() + subject.action_size()),
        &critic.trunk.mlp.input_size(),
    )
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
