//! Valid bundles of a few kilobytes, each of another kind: what changes start from.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};
use mfpo_policy::bundle::{CriticManifest, SealRequest, seal, sign, with_guard};
use mfpo_policy::critic::ValueSupport;
use mfpo_policy::guard::{GuardManifest, Signal};
use mfpo_policy::parameters::Parameters;
use mfpo_policy::sampler::Normalizer;
use mfpo_policy::signature::SigningKey;
use mfpo_policy::spec::{
    ActionJoint, ActionSpec, Axis, CommandInterface, GoalSpec, JointSpec, ObservationSpec, ObservationTerm,
    RobotSpec,
};
use mfpo_policy::subject::{Subject, TaskSpec};

const OBSERVATION: usize = 3;
const ACTION: usize = 1;
const FREQUENCIES: usize = 2;
const CONDITION: usize = 3;
const HIDDEN: usize = 5;
const ATOMS: usize = 4;

/// Layers by name, with small numbers.
#[derive(Default)]
struct Layers(BTreeMap<String, Tensor>);

impl Layers {
    fn tensor(mut self, name: &str, shape: &[usize]) -> Self {
        let count: usize = shape.iter().product();
        let numbers: Vec<f32> = (0..count)
            .map(|i| ((i * 7 + name.len()) % 11) as f32 * 0.1 - 0.5)
            .collect();
        let tensor = Tensor::from_vec(numbers, shape, &Device::Cpu).unwrap();
        self.0.insert(name.to_owned(), tensor);
        self
    }

    fn linear(self, name: &str, (input, output): (usize, usize)) -> Self {
        self.tensor(&format!("{name}/kernel"), &[input, output])
            .tensor(&format!("{name}/bias"), &[output])
    }

    fn hidden(self, index: usize, sizes: (usize, usize)) -> Self {
        self.linear(&format!("MLP_0/Dense_{index}"), sizes)
            .tensor(&format!("MLP_0/LayerNorm_{index}/scale"), &[sizes.1])
            .tensor(&format!("MLP_0/LayerNorm_{index}/bias"), &[sizes.1])
    }

    fn embedder(self, name: &str) -> Self {
        self.tensor(&format!("{name}/FourierFeatures_0/kernel"), &[FREQUENCIES, 1])
            .linear(&format!("{name}/MLP_0/Dense_0"), (2 * FREQUENCIES, CONDITION))
            .linear(&format!("{name}/MLP_0/Dense_1"), (CONDITION, CONDITION))
    }

    fn parameters(self) -> Parameters {
        Parameters::new(self.0)
    }
}

fn actor(width: usize) -> Parameters {
    Layers::default()
        .embedder("TimestepEmbedder_0")
        .embedder("TimestepEmbedder_1")
        .hidden(0, (ACTION + OBSERVATION + CONDITION, width))
        .hidden(1, (width, HIDDEN))
        .linear("MLP_0/Dense_2", (HIDDEN, ACTION))
        .parameters()
}

fn critic() -> Parameters {
    Layers::default()
        .hidden(0, (OBSERVATION + ACTION, HIDDEN))
        .linear("Dense_0", (HIDDEN, ATOMS))
        .parameters()
}

fn hinge() -> JointSpec {
    JointSpec {
        name: "hinge".into(),
        position_min: Some(-1.0),
        position_max: Some(1.0),
        velocity_max: 2.0,
        effort_max: 0.5,
        command_rate_max: None,
        acceleration_max: None,
    }
}

fn robot() -> RobotSpec {
    let joint = || "hinge".to_owned();
    RobotSpec {
        robot: "pendulum".into(),
        joints: vec![hinge()],
        observation: ObservationSpec {
            terms: vec![
                ObservationTerm::SinPosition { joint: joint() },
                ObservationTerm::Velocity {
                    joint: joint(),
                    scale: 0.1,
                },
                ObservationTerm::PreviousAction { index: 0 },
            ],
        },
        action: ActionSpec {
            interface: CommandInterface::Effort,
            joints: vec![ActionJoint {
                joint: joint(),
                offset: 0.0,
                scale: 0.5,
            }],
        },
        control_period_ns: 20_000_000,
        goal: None,
    }
}

/// The same with a goal and every limit.
fn robot_with_goal() -> RobotSpec {
    RobotSpec {
        joints: vec![JointSpec {
            command_rate_max: Some(5.0),
            acceleration_max: Some(40.0),
            ..hinge()
        }],
        observation: ObservationSpec {
            terms: vec![
                ObservationTerm::SinPosition {
                    joint: "hinge".into(),
                },
                ObservationTerm::Goal {
                    axis: Axis::X,
                    scale: 2.0,
                },
                ObservationTerm::PreviousAction { index: 0 },
            ],
        },
        goal: Some(GoalSpec {
            frame: "base".into(),
            min: [0.1, -0.2, 0.0],
            max: [0.4, 0.2, 0.5],
        }),
        ..robot()
    }
}

fn task() -> Subject {
    Subject::Task(TaskSpec {
        name: "Pendulum-v5".into(),
        options: BTreeMap::from([("frame_skip".into(), 3.into())]),
        observation_size: OBSERVATION,
        action_size: ACTION,
        control_period_ns: 40_000_000,
    })
}

/// A bundle of a task whose actor's first layer is of some width, and which takes some steps.
pub fn task_with(width: usize, steps: usize) -> Vec<u8> {
    let bundle = seal(&SealRequest {
        subject: &task(),
        run: "seed",
        version: 1,
        sampling_steps: steps,
        actor: &actor(width),
        critics: None,
        normalizer: None,
        probe_observations: vec![vec![0.1, -0.2, 0.3]],
    });
    bundle.unwrap()
}

/// A name and a bundle of each kind.
pub fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let (robot, with_goal) = (Subject::Robot(robot()), Subject::Robot(robot_with_goal()));
    let (task, actor, critics) = (task(), actor(HIDDEN), [critic(), critic()]);
    let manifest = CriticManifest {
        support: ValueSupport {
            minimum: -10.0,
            maximum: 0.0,
            atoms: ATOMS,
        },
        clipped_double_q: true,
    };
    let plain = SealRequest {
        subject: &robot,
        run: "seed",
        version: 1,
        sampling_steps: 2,
        actor: &actor,
        critics: None,
        normalizer: None,
        probe_observations: vec![vec![0.1, -0.2, 0.3]],
    };
    let with_critics = SealRequest {
        critics: Some(([&critics[0], &critics[1]], manifest)),
        ..plain.clone()
    };
    let told_where = SealRequest {
        subject: &with_goal,
        ..plain.clone()
    };
    let normalized = SealRequest {
        subject: &task,
        normalizer: Some(Normalizer {
            mean: vec![0.5; OBSERVATION],
            deviation: vec![2.0; OBSERVATION],
        }),
        ..plain.clone()
    };
    let robots = seal(&plain).unwrap();
    let signed = sign(&robots, &SigningKey::from_seed(&[1; 32])).unwrap();
    let valued = seal(&with_critics).unwrap();
    let guard = GuardManifest::without_limits(8, 3).with_limit(Signal::Spread, 0.5);
    let signals = guard
        .with_limit(Signal::Disagreement, 0.75)
        .with_limit(Signal::Value, -9.5);
    vec![
        ("robot", robots),
        ("signed", signed),
        ("goal", seal(&told_where).unwrap()),
        ("guard", with_guard(&valued, guard).unwrap()),
        ("signals", with_guard(&valued, signals).unwrap()),
        ("critics", valued),
        ("task", seal(&normalized).unwrap()),
    ]
}
