//! Robots, bundles and a clock for tests.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use candle_core::Device;
use mfpo_node::control_loop::{ControlLoop, Decision, Settings, Tuning};
use mfpo_node::joint_states::{JointStateMessage, JointStates, Refusal};
use mfpo_node::probe::ProbeSettings;
use mfpo_node::safety::{FallbackChoice, Tightening};
use mfpo_node::time::MonoTime;
use mfpo_node::weights::{Expected, Policy, StageSettings};
use mfpo_policy::bundle::{CriticManifest, SealRequest, seal, with_guard};
use mfpo_policy::critic::{Critic, ValueSupport};
use mfpo_policy::guard::GuardManifest;
use mfpo_policy::mean_flow::MeanFlow;
use mfpo_policy::parameters::Parameters;
use mfpo_policy::spec::{
    ActionJoint, ActionSpec, Axis, CommandInterface, GoalSpec, JointSpec, ObservationSpec, ObservationTerm,
    RobotSpec,
};
use mfpo_policy::subject::Subject;

pub const MS: u64 = 1_000_000;
pub const STALE_AFTER: u64 = 50 * MS;

/// Test time: milliseconds after some instant.
pub fn at(ms: f64) -> MonoTime {
    MonoTime::from_nanos(5_000 * MS + (ms * MS as f64) as u64)
}

/// Joints `a` (limited) and `b` (continuous), 50 Hz.
pub fn robot(interface: CommandInterface) -> RobotSpec {
    let joint = |name: &str, limit: Option<f64>| JointSpec {
        name: name.into(),
        position_min: limit.map(|l| -l),
        position_max: limit,
        velocity_max: 2.0,
        effort_max: 1.0,
        command_rate_max: None,
        acceleration_max: None,
    };
    let terms = ["a", "b"].into_iter().flat_map(|name| {
        [
            ObservationTerm::SinPosition { joint: name.into() },
            ObservationTerm::Velocity {
                joint: name.into(),
                scale: 0.1,
            },
        ]
    });
    RobotSpec {
        robot: "two_joints".into(),
        joints: vec![joint("a", Some(1.0)), joint("b", None)],
        observation: ObservationSpec {
            terms: terms
                .chain([ObservationTerm::PreviousAction { index: 1 }])
                .collect(),
        },
        action: ActionSpec {
            interface,
            // Not the order of the joints: commands follow this one.
            joints: ["b", "a"]
                .map(|name| ActionJoint {
                    joint: name.into(),
                    offset: 0.0,
                    scale: 0.5,
                })
                .into(),
        },
        control_period_ns: 20 * MS,
        goal: None,
    }
}

/// `robot` with a policy that observes where to go.
pub fn reaching() -> RobotSpec {
    let mut spec = robot(CommandInterface::Velocity);
    spec.goal = Some(GoalSpec {
        frame: "base".into(),
        min: [0.1, -0.2, 0.0],
        max: [0.5, 0.2, 0.3],
    });
    let terms = [(Axis::Y, 2.0), (Axis::X, 1.0)].map(|(axis, scale)| ObservationTerm::Goal { axis, scale });
    spec.observation.terms.extend(terms);
    spec
}

/// A sealed bundle with random weights.
pub fn bundle(spec: &RobotSpec, run: &str, version: u64) -> Vec<u8> {
    bundle_for(&Subject::Robot(spec.clone()), run, version)
}

/// The same for whatever a policy acts on.
pub fn bundle_for(subject: &Subject, run: &str, version: u64) -> Vec<u8> {
    seal_with(subject, (run, version), None)
}

/// A sealed bundle with random weights, and critics to choose the best of several actions with.
pub fn bundle_with_critics(spec: &RobotSpec, run: &str, version: u64) -> Vec<u8> {
    let support = ValueSupport {
        minimum: -10.0,
        maximum: 0.0,
        atoms: 21,
    };
    let sizes = (spec.observation_size(), spec.action_size(), support.atoms);
    let critics = [2, 3].map(|seed| Critic::initialize(seed, sizes, &[16], &Device::Cpu).unwrap());
    let manifest = CriticManifest {
        support,
        clipped_double_q: true,
    };
    let subject = Subject::Robot(spec.clone());
    seal_with(
        &subject,
        (run, version),
        Some(([&critics[0], &critics[1]], manifest)),
    )
}

/// A sealed bundle whose every action is `sign`, whatever it sees.
pub fn bundle_of_one_action(spec: &RobotSpec, version: u64, sign: f32) -> Vec<u8> {
    let subject = Subject::Robot(spec.clone());
    let actor = actor(&subject, version);
    let tensors = actor.iter().map(|(name, tensor)| {
        let tensor = if name == "MLP_0/Dense_2/bias" {
            (tensor.zeros_like().unwrap() - 1000.0 * f64::from(sign)).unwrap()
        } else {
            tensor.clone()
        };
        (name.clone(), tensor)
    });
    let actor = Parameters::new(tensors.collect());
    seal_actor(&subject, ("run", version), &actor, None)
}

fn actor(subject: &Subject, seed: u64) -> Parameters {
    let action_size = subject.action_size();
    let sizes = (subject.observation_size(), action_size, action_size);
    MeanFlow::initialize(seed, sizes, &[16, 16], &Device::Cpu).unwrap()
}

fn seal_with(
    subject: &Subject,
    (run, version): (&str, u64),
    critics: Option<([&Parameters; 2], CriticManifest)>,
) -> Vec<u8> {
    seal_actor(subject, (run, version), &actor(subject, version), critics)
}

fn seal_actor(
    subject: &Subject,
    (run, version): (&str, u64),
    actor: &Parameters,
    critics: Option<([&Parameters; 2], CriticManifest)>,
) -> Vec<u8> {
    seal(&SealRequest {
        subject,
        run,
        version,
        sampling_steps: 2,
        actor,
        critics,
        normalizer: None,
        probe_observations: Vec::new(),
    })
    .unwrap()
}

pub fn expected() -> Expected {
    Expected::new(String::new(), None, 1, Vec::new())
}

pub fn policy(spec: &RobotSpec, version: u64) -> Box<Policy> {
    Box::new(expected().validate(&bundle(spec, "run", version)).unwrap())
}

pub fn settings() -> Settings {
    Settings {
        candidates: 1,
        compute_budget: 0,
        seed: 7,
        stale_after: STALE_AFTER,
        fallback: FallbackChoice::Auto,
        damping: 0.25,
        fallback_effort: Vec::new(),
        fade_in: 0.0,
        recovery_inputs: 1,
        enable_timeout: 0,
        goal_timeout: 0,
        guard: false,
        stages: StageSettings::NONE,
        tightening: Tightening::NONE,
    }
}

pub fn probing() -> ProbeSettings {
    ProbeSettings {
        is_allowed: true,
        amplitude: 0.05,
        seconds: 1.0,
        effort: 0.1,
        by_hand: 0.3,
        by_hand_timeout: 5.0,
    }
}

pub fn control_loop(spec: &RobotSpec) -> (ControlLoop, JointStates) {
    let control = ControlLoop::new(spec, policy(spec, 1), settings()).unwrap();
    (control, JointStates::new(spec, STALE_AFTER))
}

/// A loop that takes the best of so many actions.
pub fn best_of(candidates: usize, spec: &RobotSpec) -> (ControlLoop, JointStates) {
    let expected = Expected::new(String::new(), None, candidates, Vec::new());
    let policy = expected.validate(&bundle_with_critics(spec, "run", 1)).unwrap();
    let settings = Settings {
        candidates,
        ..settings()
    };
    let control = ControlLoop::new(spec, Box::new(policy), settings).unwrap();
    (control, JointStates::new(spec, STALE_AFTER))
}

/// [`best_of`] as many as fit into `compute_budget`, ns; 0 is all of them.
pub fn best_within(compute_budget: u64, candidates: usize, spec: &RobotSpec) -> (ControlLoop, JointStates) {
    let (mut control, states) = best_of(candidates, spec);
    let settings = Settings {
        candidates,
        compute_budget,
        ..settings()
    };
    control.tune(&mut Tuning::new(spec, settings).unwrap());
    (control, states)
}

/// Actions that a step has sampled; 0 where the policy was not asked.
pub fn sampled(decision: &Decision<'_>) -> usize {
    match decision {
        Decision::Command(tick) => tick.asked.map_or(0, |asked| asked.depth.candidates),
        Decision::Wait(_) => 0,
    }
}

/// A guard: three ticks in a row in which four candidates are spread by more than `spread_max`. It asks for the other signals,
/// too, and allows all that they can be: actions are within 1 of zero, and the critics' support begins at -10.
pub fn guard_of(spread_max: f64) -> GuardManifest {
    GuardManifest {
        disagreement_max: Some(2.1),
        spread_max: Some(spread_max),
        value_min: Some(-10.1),
        candidates: 4,
        in_a_row: 3,
    }
}

/// A policy with the guard of `spread_max`.
pub fn guarded_policy(spec: &RobotSpec, version: u64, spread_max: f64) -> Box<Policy> {
    policy_with(spec, version, guard_of(spread_max))
}

/// A policy with a guard of four candidates.
pub fn policy_with(spec: &RobotSpec, version: u64, guard: GuardManifest) -> Box<Policy> {
    let bundle = with_guard(&bundle_with_critics(spec, "run", version), guard).unwrap();
    let expected = Expected::new(String::new(), None, 4, Vec::new());
    Box::new(expected.validate(&bundle).unwrap())
}

/// Settings that take the best of four actions, guarded.
pub fn guarded_settings() -> Settings {
    Settings {
        candidates: 4,
        guard: true,
        ..settings()
    }
}

/// A loop whose guard allows so much.
pub fn guarded(spec: &RobotSpec, spread_max: f64) -> (ControlLoop, JointStates) {
    let policy = guarded_policy(spec, 1, spread_max);
    let control = ControlLoop::new(spec, policy, guarded_settings()).unwrap();
    (control, JointStates::new(spec, STALE_AFTER))
}

/// Sends a message without a stamp.
pub fn send(
    states: &mut JointStates,
    now: MonoTime,
    names: &[&str],
    positions: &[f64],
    velocities: &[f64],
) -> Result<(), Refusal> {
    let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
    let message = JointStateMessage {
        stamp: now.nanos().cast_signed(),
        names: &names,
        positions,
        velocities,
    };
    states.apply(message, now)
}

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
    /// Bytes that are taken and not given back, and the most that were at the same time. What another thread has taken is
    /// given back here, too, so that only differences mean something.
    static HELD: Cell<(isize, isize)> = const { Cell::new((0, 0)) };
}

/// The system's allocator, which counts what this thread asks of it.
pub struct CountingAllocator;

// SAFETY: every call is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // Old and new may be there at the same time.
        count(size as isize);
        // SAFETY: the caller's promises are passed on.
        let moved = unsafe { System.realloc(pointer, layout, size) };
        hold(-(layout.size() as isize));
        moved
    }
}

/// Counts a call of this thread, and the bytes that it takes or gives back.
fn count(bytes: isize) {
    let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
    hold(bytes);
}

/// Counts bytes that this thread takes or gives back.
fn hold(bytes: isize) {
    let _ = HELD.try_with(|held| {
        let (now, most) = held.get();
        held.set((now + bytes, most.max(now + bytes)));
    });
}

/// Calls to the allocator, of any kind, that `run` makes on this thread.
pub fn allocations(run: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.with(Cell::get);
    run();
    ALLOCATIONS.with(Cell::get) - before
}

/// The most bytes that `run` has allocated on this thread at the same time, beyond those that were there before.
pub fn peak_of<T>(run: impl FnOnce() -> T) -> (T, usize) {
    let before = HELD.with(|held| {
        let (now, _) = held.get();
        held.set((now, now));
        now
    });
    let result = run();
    let (_, most) = HELD.with(Cell::get);
    (result, usize::try_from(most - before).unwrap_or(0))
}
