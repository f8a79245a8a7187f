//! What a PolicyBundle says of itself: JSON in the metadata of the file.

use serde::{Deserialize, Serialize, Serializer};
use sha2::Sha256;

use crate::bounds;
use crate::bundle::{BundleError, FORMAT};
use crate::critic::ValueSupport;
use crate::digest::feed_json;
use crate::guard::GuardManifest;
use crate::sampler::Normalizer;
use crate::spec::RobotSpec;
use crate::subject::{Subject, TaskSpec};

/// An input with the action that the policy gave when it was sealed, and with what its critics said of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GoldenProbe {
    /// `[S]`, before normalisation.
    #[serde(deserialize_with = "bounds::observation")]
    pub observation: Vec<f32>,
    /// Standard normal, `[A]`.
    #[serde(deserialize_with = "bounds::action")]
    pub noise: Vec<f32>,
    /// `[A]`, in `[-1, 1]`.
    #[serde(deserialize_with = "bounds::action")]
    pub action: Vec<f32>,
    /// What each critic says of that action; none without critics, and in bundles of programs that did not note it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub values: Option<[f32; 2]>,
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
#[derive(Debug, Clone, PartialEq)]
pub struct Manifest {
    /// [`crate::bundle::FORMAT`].
    pub format: String,
    /// Unique id of the training run.
    pub run: String,
    /// Version within the run; rises.
    pub version: u64,
    /// When it was sealed, seconds since 1970 (UTC).
    pub created_unix_s: u64,
    /// What it was trained for: a robot with joints, units, limits, observation, action and control period, or a task.
    pub subject: Subject,
    /// T of the sampler.
    pub sampling_steps: usize,
    /// Widths of the actor's hidden layers.
    pub hidden_sizes: Vec<usize>,
    /// The critics for best of N, where the bundle carries them.
    pub critics: Option<CriticManifest>,
    /// What observations are normalised with.
    pub normalizer: Option<Normalizer>,
    /// Inputs, and the actions and values that the policy must reproduce.
    pub probes: Vec<GoldenProbe>,
    /// Largest allowed difference of a probe's action, and of its values in halves of the critics' support.
    pub probe_tolerance: f32,
    /// When an observation is outside what the policy knows, where that was calibrated.
    pub guard: Option<GuardManifest>,
    /// SHA-256 of the manifest with this field empty and of all tensors, hexadecimal.
    pub digest: String,
}

/// The manifest as it lies in the file: `robot` with `spec_hash`, or `task`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    format: String,
    run: String,
    version: u64,
    created_unix_s: u64,
    #[serde(default)]
    robot: Option<RobotSpec>,
    /// [`RobotSpec::hash`] of `robot`.
    #[serde(default)]
    spec_hash: Option<String>,
    #[serde(default)]
    task: Option<TaskSpec>,
    sampling_steps: usize,
    #[serde(deserialize_with = "bounds::layers")]
    hidden_sizes: Vec<usize>,
    critics: Option<CriticManifest>,
    normalizer: Option<Normalizer>,
    #[serde(deserialize_with = "bounds::probes")]
    probes: Vec<GoldenProbe>,
    probe_tolerance: f32,
    #[serde(default)]
    guard: Option<GuardManifest>,
    digest: String,
}

/// The same fields as they are written, without a copy of what is large. The digest is over this text, so that the order of
/// the fields is part of the format.
#[derive(Serialize)]
struct Written<'a> {
    format: &'a str,
    run: &'a str,
    version: u64,
    created_unix_s: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    robot: Option<&'a RobotSpec>,
    #[serde(skip_serializing_if = "Option::is_none")]
    spec_hash: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    task: Option<&'a TaskSpec>,
    sampling_steps: usize,
    hidden_sizes: &'a [usize],
    critics: Option<CriticManifest>,
    normalizer: Option<&'a Normalizer>,
    probes: &'a [GoldenProbe],
    probe_tolerance: f32,
    #[serde(skip_serializing_if = "Option::is_none")]
    guard: Option<GuardManifest>,
    digest: &'a str,
}

/// What every manifest has, of whatever format.
#[derive(Deserialize)]
struct Format {
    format: String,
}

impl Manifest {
    /// Reads the text in the file; the format is compared first, so that a newer bundle is named as such.
    ///
    /// # Errors
    /// [`BundleError::Format`], [`BundleError::Manifest`], or [`BundleError::Mismatch`] for a spec hash that is not the
    /// robot's.
    pub(crate) fn parse(json: &str) -> Result<Self, BundleError> {
        let unreadable = |e: serde_json::Error| BundleError::Manifest(e.to_string());
        bounds::check_words(json)?;
        let Format { format } = serde_json::from_str(json).map_err(unreadable)?;
        if format != FORMAT {
            return Err(BundleError::Format { got: format });
        }
        let fields: Fields = serde_json::from_str(json).map_err(unreadable)?;
        fields.try_into()
    }

    /// Feeds `hash` the manifest's text without its digest.
    pub(crate) fn feed(&self, hash: &mut Sha256) {
        feed_json(hash, &Written::of(self, ""));
    }
}

impl<'a> Written<'a> {
    /// What is written of `manifest`, with `digest` in place of its own.
    fn of(manifest: &'a Manifest, digest: &'a str) -> Self {
        let (robot, task) = match &manifest.subject {
            Subject::Robot(robot) => (Some(robot), None),
            Subject::Task(task) => (None, Some(task)),
        };
        Self {
            format: &manifest.format,
            run: &manifest.run,
            version: manifest.version,
            created_unix_s: manifest.created_unix_s,
            robot,
            spec_hash: robot.map(RobotSpec::hash),
            task,
            sampling_steps: manifest.sampling_steps,
            hidden_sizes: &manifest.hidden_sizes,
            critics: manifest.critics,
            normalizer: manifest.normalizer.as_ref(),
            probes: &manifest.probes,
            probe_tolerance: manifest.probe_tolerance,
            guard: manifest.guard,
            digest,
        }
    }
}

impl Serialize for Manifest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Written::of(self, &self.digest).serialize(serializer)
    }
}

impl TryFrom<Fields> for Manifest {
    type Error = BundleError;

    fn try_from(fields: Fields) -> Result<Self, BundleError> {
        let subject = match (fields.robot, fields.spec_hash, fields.task) {
            (Some(robot), Some(spec_hash), None) => {
                if robot.hash() != spec_hash {
                    return Err(BundleError::Mismatch {
                        what: "the spec hash",
                        expected: robot.hash(),
                        got: spec_hash,
                    });
                }
                Subject::Robot(robot)
            }
            (None, None, Some(task)) => Subject::Task(task),
            (robot, spec_hash, task) => {
                let named = |there: bool| if there { "given" } else { "missing" };
                return Err(BundleError::Manifest(format!(
                    "robot is {}, spec_hash {}, task {}; expected a robot with its spec_hash, or a task",
                    named(robot.is_some()),
                    named(spec_hash.is_some()),
                    named(task.is_some()),
                )));
            }
        };
        Ok(Self {
            format: fields.format,
            run: fields.run,
            version: fields.version,
            created_unix_s: fields.created_unix_s,
            subject,
            sampling_steps: fields.sampling_steps,
            hidden_sizes: fields.hidden_sizes,
            critics: fields.critics,
            normalizer: fields.normalizer,
            probes: fields.probes,
            probe_tolerance: fields.probe_tolerance,
            guard: fields.guard,
            digest: fields.digest,
        })
    }
}
