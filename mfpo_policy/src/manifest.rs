//! What a PolicyBundle says of itself: JSON in the metadata of the file.

use serde::{Deserialize, Serialize};

use crate::bundle::{BundleError, FORMAT};
use crate::critic::ValueSupport;
use crate::guard::GuardManifest;
use crate::sampler::Normalizer;
use crate::spec::RobotSpec;
use crate::subject::{Subject, TaskSpec};

/// An input with the action that the policy gave when it was sealed, and with what its critics said of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GoldenProbe {
    /// `[S]`, before normalisation.
    pub observation: Vec<f32>,
    /// Standard normal, `[A]`.
    pub noise: Vec<f32>,
    /// `[A]`, in `[-1, 1]`.
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
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(into = "Fields")]
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

/// The manifest as it lies in the file: `robot` with `spec_hash`, or `task`. The digest is over this text, so that the
/// order of the fields is part of the format.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    format: String,
    run: String,
    version: u64,
    created_unix_s: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    robot: Option<RobotSpec>,
    /// [`RobotSpec::hash`] of `robot`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    spec_hash: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    task: Option<TaskSpec>,
    sampling_steps: usize,
    hidden_sizes: Vec<usize>,
    critics: Option<CriticManifest>,
    normalizer: Option<Normalizer>,
    probes: Vec<GoldenProbe>,
    probe_tolerance: f32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    guard: Option<GuardManifest>,
    digest: String,
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
        let Format { format } = serde_json::from_str(json).map_err(unreadable)?;
        if format != FORMAT {
            return Err(BundleError::Format { got: format });
        }
        let fields: Fields = serde_json::from_str(json).map_err(unreadable)?;
        fields.try_into()
    }
}

impl From<Manifest> for Fields {
    fn from(manifest: Manifest) -> Self {
        let (robot, spec_hash, task) = match manifest.subject {
            Subject::Robot(robot) => {
                let hash = robot.hash();
                (Some(robot), Some(hash), None)
            }
            Subject::Task(task) => (None, None, Some(task)),
        };
        Self {
            format: manifest.format,
            run: manifest.run,
            version: manifest.version,
            created_unix_s: manifest.created_unix_s,
            robot,
            spec_hash,
            task,
            sampling_steps: manifest.sampling_steps,
            hidden_sizes: manifest.hidden_sizes,
            critics: manifest.critics,
            normalizer: manifest.normalizer,
            probes: manifest.probes,
            probe_tolerance: manifest.probe_tolerance,
            guard: manifest.guard,
            digest: manifest.digest,
        }
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
