//! Robots and policies of tests: bundles with random weights as `seal` makes them, and bundles that nobody seals.

use std::collections::{BTreeMap, HashMap};

use candle_core::Device;
use mfpo_policy::bundle::{self, CriticManifest, METADATA_KEY, Manifest, SealRequest};
use mfpo_policy::critic::{Critic, ValueSupport};
use mfpo_policy::guard::GuardManifest;
use mfpo_policy::mean_flow::MeanFlow;
use mfpo_policy::parameters::Parameters;
use mfpo_policy::spec::{
    ActionJoint, ActionSpec, CommandInterface, JointSpec, ObservationSpec, ObservationTerm, RobotSpec,
};
use mfpo_policy::subject::Subject;
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use sha2::{Digest, Sha256};

/// The training run that bundles are of unless told otherwise.
pub const RUN: &str = "run-a";

/// Robot `two_joints`: `elbow` (limited to 1 rad) and `wrist` (continuous), 50 Hz. Commands are for `wrist`, then
/// `elbow`.
pub fn two_joints(interface: CommandInterface) -> RobotSpec {
    let joint = |name: &str, limit: Option<f64>| JointSpec {
        name: name.into(),
        position_min: limit.map(|l| -l),
        position_max: limit,
        velocity_max: 2.0,
        effort_max: 1.0,
        command_rate_max: None,
        acceleration_max: None,
    };
    let terms = ["elbow", "wrist"].into_iter().flat_map(|name| {
        let joint = || name.to_owned();
        [
            ObservationTerm::SinPosition { joint: joint() },
            ObservationTerm::Velocity {
                joint: joint(),
                scale: 0.1,
            },
        ]
    });
    RobotSpec {
        robot: "two_joints".into(),
        joints: vec![joint("elbow", Some(1.0)), joint("wrist", None)],
        observation: ObservationSpec {
            terms: terms.collect(),
        },
        action: ActionSpec {
            interface,
            joints: ["wrist", "elbow"]
                .map(|name| ActionJoint {
                    joint: name.into(),
                    offset: 0.0,
                    scale: 0.5,
                })
                .into(),
        },
        control_period_ns: 20_000_000,
        goal: None,
    }
}

/// A sealed bundle of [`RUN`] with random weights.
pub fn sealed(spec: &RobotSpec, version: u64) -> Vec<u8> {
    sealed_in(RUN, spec, version)
}

/// A sealed bundle of any run with random weights.
pub fn sealed_in(run: &str, spec: &RobotSpec, version: u64) -> Vec<u8> {
    sealed_for(run, &Subject::Robot(spec.clone()), version)
}

/// A sealed bundle for whatever a policy acts on, with random weights.
pub fn sealed_for(run: &str, subject: &Subject, version: u64) -> Vec<u8> {
    seal(run, subject, version, &actor(subject, version))
}

/// A sealed bundle of [`RUN`] with random weights, critics, and a guard.
pub fn sealed_guarded(spec: &RobotSpec, version: u64, guard: GuardManifest) -> Vec<u8> {
    bundle::with_guard(&sealed_with_critics(spec, version, &[16]), guard).expect("a guard")
}

/// A sealed bundle of [`RUN`] with random weights, and critics that make it about so large, bytes.
pub fn sealed_large(spec: &RobotSpec, version: u64, bytes: usize) -> Vec<u8> {
    // Two critics of two layers of this width, 4 bytes a weight.
    let width = (bytes / 8).isqrt();
    sealed_with_critics(spec, version, &[width, width])
}

fn sealed_with_critics(spec: &RobotSpec, version: u64, hidden: &[usize]) -> Vec<u8> {
    let subject = Subject::Robot(spec.clone());
    let support = ValueSupport {
        minimum: -10.0,
        maximum: 0.0,
        atoms: 21,
    };
    let sizes = (spec.observation_size(), spec.action_size(), support.atoms);
    let critics = [2, 3].map(|seed| Critic::initialize(seed, sizes, hidden, &Device::Cpu).expect("a critic"));
    let manifest = CriticManifest {
        support,
        clipped_double_q: true,
    };
    let sealed = bundle::seal(&SealRequest {
        critics: Some(([&critics[0], &critics[1]], manifest)),
        ..request(RUN, &subject, version, &actor(&subject, version))
    });
    sealed.expect("a bundle")
}

/// A sealed bundle of [`RUN`] whose every action is `sign`, whatever it sees.
pub fn sealed_of_one_action(spec: &RobotSpec, version: u64, sign: f64) -> Vec<u8> {
    let subject = Subject::Robot(spec.clone());
    let tensors = actor(&subject, version);
    let tensors = tensors.iter().map(|(name, tensor)| {
        let last = "MLP_0/Dense_2/bias";
        let tensor = if name == last {
            (tensor.zeros_like().expect("zeros") - 1000.0 * sign).expect("a bias")
        } else {
            tensor.clone()
        };
        (name.clone(), tensor)
    });
    seal(RUN, &subject, version, &Parameters::new(tensors.collect()))
}

fn actor(subject: &Subject, seed: u64) -> Parameters {
    let action_size = subject.action_size();
    let sizes = (subject.observation_size(), action_size, action_size);
    MeanFlow::initialize(seed, sizes, &[16, 16], &Device::Cpu).expect("an actor")
}

fn seal(run: &str, subject: &Subject, version: u64, actor: &Parameters) -> Vec<u8> {
    bundle::seal(&request(run, subject, version, actor)).expect("a bundle")
}

fn request<'a>(run: &'a str, subject: &'a Subject, version: u64, actor: &'a Parameters) -> SealRequest<'a> {
    SealRequest {
        subject,
        run,
        version,
        sampling_steps: 2,
        actor,
        critics: None,
        normalizer: None,
        probe_observations: Vec::new(),
    }
}

/// The digest that a valid bundle states.
pub fn digest_of(bundle: &[u8]) -> String {
    bundle::open(bundle).expect("a valid bundle").digest().to_owned()
}

/// Shape and little-endian bytes of each tensor by name.
pub type Tensors = BTreeMap<String, (Vec<usize>, Vec<u8>)>;

/// Changes a bundle behind the back of `seal` and signs it again, so that its digest is right and only what was
/// changed is wrong. This is a second implementation of the format, written from its description.
pub fn forged(bundle: &[u8], change: impl FnOnce(&mut Manifest, &mut Tensors)) -> Vec<u8> {
    let mut manifest = bundle::open(bundle).expect("a valid bundle").manifest().clone();
    let mut tensors = tensors(bundle);
    change(&mut manifest, &mut tensors);
    manifest.digest.clear();
    signed(&serde_json::to_string(&manifest).expect("a manifest"), &tensors)
}

/// [`forged`] with another text in the manifest, which no `Manifest` needs to be able to hold.
pub fn reworded(bundle: &[u8], from: &str, to: &str) -> Vec<u8> {
    let mut manifest = bundle::open(bundle).expect("a valid bundle").manifest().clone();
    manifest.digest.clear();
    let json = serde_json::to_string(&manifest).expect("a manifest");
    assert!(json.contains(from), "{from} is not in {json}");
    signed(&json.replace(from, to), &tensors(bundle))
}

fn tensors(bundle: &[u8]) -> Tensors {
    let file = SafeTensors::deserialize(bundle).expect("a safetensors file");
    let tensors = file.tensors().into_iter();
    tensors
        .map(|(name, view)| (name, (view.shape().to_vec(), view.data().to_vec())))
        .collect()
}

/// A file of a manifest with an empty digest, which is put in, and tensors.
fn signed(json: &str, tensors: &Tensors) -> Vec<u8> {
    let digest = format!("\"digest\":\"{}\"", digest(json, tensors));
    let json = json.replace("\"digest\":\"\"", &digest);
    let views = tensors.iter().map(|(name, (shape, bytes))| {
        let view = TensorView::new(Dtype::F32, shape.clone(), bytes).expect("a tensor");
        (name, view)
    });
    let metadata = HashMap::from([(METADATA_KEY.to_owned(), json)]);
    safetensors::serialize(views, Some(metadata)).expect("a file")
}

/// SHA-256 of the manifest with an empty digest, then of each tensor's name, shape and bytes.
fn digest(json: &str, tensors: &Tensors) -> String {
    let number = |n: usize| (n as u64).to_le_bytes();
    let mut hash = Sha256::new();
    hash.update(json);
    for (name, (shape, bytes)) in tensors {
        hash.update(number(name.len()));
        hash.update(name.as_bytes());
        hash.update(number(shape.len()));
        shape.iter().for_each(|size| hash.update(number(*size)));
        hash.update(bytes);
    }
    hex::encode(hash.finalize())
}
