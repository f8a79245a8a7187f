//! A robot of twelve joints: its states on an absolute schedule, on a thread of its own, and policies for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;

use anyhow::bail;
use candle_core::Device;
use hdrhistogram::Histogram;
use mfpo_node::metrics::latencies;
use mfpo_node::time::MonoTime;
use mfpo_policy::bundle::{CriticManifest, SealRequest, open, seal};
use mfpo_policy::critic::{Critic, ValueSupport};
use mfpo_policy::mean_flow::MeanFlow;
use mfpo_policy::parameters::Parameters;
use mfpo_policy::spec::{
    ActionJoint, ActionSpec, CommandInterface, JointSpec, ObservationSpec, ObservationTerm, RobotSpec,
};
use mfpo_policy::subject::Subject;
use mfpo_ros::r2r::sensor_msgs::msg::JointState;
use mfpo_ros::{convert, create_node, qos, time};

use super::go_realtime;

/// Policies that are sealed ahead.
const AHEAD: usize = 16;

/// Its joints.
pub const JOINTS: usize = 12;

/// What the robot reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Says {
    /// Its states.
    States = 0,
    /// Nothing.
    Nothing = 1,
    /// Positions that are NaN.
    NotANumber = 2,
    /// One joint twice.
    Twice = 3,
}

/// What a robot has published.
pub struct Published {
    /// How long it took to hand each state to rmw, ns: what a publish costs on this machine at the least.
    pub took: Histogram<u64>,
    /// The stamps of its states, as far as they were to be noted.
    pub states: Vec<MonoTime>,
}

impl Published {
    fn nothing(most: usize) -> Self {
        Self {
            took: latencies(),
            states: Vec::with_capacity(most),
        }
    }

    /// A state has been handed to rmw.
    fn note(&mut self, stamp: MonoTime, is_first: bool) {
        self.took.saturating_record(MonoTime::now().since(stamp));
        if is_first && self.states.len() < self.states.capacity() {
            self.states.push(stamp);
        }
    }
}

/// Publishes states until it is dropped.
pub struct Robot {
    says: Arc<AtomicU8>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<anyhow::Result<Published>>>,
}

impl Robot {
    /// Reports to each of these namespaces at a rate, Hz. The stamp of a state is the monotonic time just before it is
    /// handed to rmw, which a receiver on the same machine compares with its own.
    pub fn start(namespaces: &[String], rate: f64) -> Self {
        Self::noting(0, namespaces, rate)
    }

    /// [`Robot::start`] that notes the stamps of its first states, so many at most; those for its first namespace.
    pub fn noting(most: usize, namespaces: &[String], rate: f64) -> Self {
        let says = Arc::new(AtomicU8::new(Says::States as u8));
        let stop = Arc::new(AtomicBool::new(false));
        let thread = {
            let (says, stop) = (Arc::clone(&says), Arc::clone(&stop));
            let namespaces = namespaces.to_vec();
            // What it notes has its memory from the start: this thread must not be held up.
            let published = Published::nothing(most);
            std::thread::spawn(move || publish(&namespaces, rate, (&says, &stop), published))
        };
        Self {
            says,
            stop,
            thread: Some(thread),
        }
    }

    /// What it reports from now on.
    pub fn says(&self, what: Says) {
        self.says.store(what as u8, Ordering::Relaxed);
    }

    /// Ends it, and tells what it has published.
    ///
    /// # Errors
    /// What went wrong on its thread.
    pub fn end(mut self) -> anyhow::Result<Published> {
        self.stop.store(true, Ordering::Relaxed);
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(result)) => result,
            Some(Err(_)) => bail!("the robot's thread panicked"),
            None => Ok(Published::nothing(0)),
        }
    }
}

impl Drop for Robot {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic of that thread has already been printed.
            let _ = thread.join();
        }
    }
}

fn publish(
    namespaces: &[String],
    rate: f64,
    (says, stop): (&AtomicU8, &AtomicBool),
    mut published: Published,
) -> anyhow::Result<Published> {
    let mut node = create_node("bench_robot")?;
    let topic = |namespace: &String| format!("{namespace}/joint_states");
    let publishers = namespaces
        .iter()
        .map(|namespace| node.create_publisher(&topic(namespace), qos::JOINT_STATES));
    let publishers = publishers.collect::<Result<Vec<_>, _>>()?;
    go_realtime();
    let names: Vec<String> = (0..JOINTS).map(joint_name).collect();
    let mut message = convert::joint_state(time::now(), names, vec![0.0; JOINTS], vec![0.0; JOINTS]);
    let period = (1e9 / rate) as u64;
    let mut next = MonoTime::now();
    let mut count = 0.0f64;
    while !stop.load(Ordering::Relaxed) {
        count += 1.0;
        let what = says.load(Ordering::Relaxed);
        if what != Says::Nothing as u8 {
            write_state(&mut message, count, what);
            for (number, publisher) in publishers.iter().enumerate() {
                let began = MonoTime::now();
                message.header.stamp = time::stamp(began.nanos() as i64);
                publisher.publish(&message)?;
                published.note(began, number == 0);
            }
        }
        next = next.plus(period);
        next.sleep_until();
    }
    Ok(published)
}

fn write_state(message: &mut JointState, count: f64, what: u8) {
    for (joint, position) in message.position.iter_mut().enumerate() {
        *position = (0.01 * count + joint as f64).sin() * 0.1;
    }
    if what == Says::NotANumber as u8 {
        message.position.fill(f64::NAN);
    }
    // The last name is the first one's where a joint appears twice.
    let last = if what == Says::Twice as u8 { 0 } else { JOINTS - 1 };
    if let Some(name) = message.name.last_mut() {
        *name = joint_name(last);
    }
}

fn joint_name(index: usize) -> String {
    format!("joint_{index}")
}

/// A policy of 128-128, T = 1, with random weights: what it does is of no interest, what it takes is the same as for a
/// trained one.
///
/// # Errors
/// When it cannot be made.
pub fn bundle(run: &str, version: u64, rate: f64) -> anyhow::Result<Vec<u8>> {
    sealed(run, version, rate, None)
}

/// The same policy with critics that make the bundle about so large, bytes.
///
/// # Errors
/// When it cannot be made.
pub fn large_bundle(run: &str, version: u64, rate: f64, bytes: f64) -> anyhow::Result<Vec<u8>> {
    let robot = spec(rate);
    let support = ValueSupport {
        minimum: -10.0,
        maximum: 0.0,
        atoms: 101,
    };
    // Two critics of two layers of this width, 4 bytes a weight.
    let width = (bytes / 8.0).sqrt() as usize;
    let sizes = (robot.observation_size(), robot.action_size(), support.atoms);
    let critic = |seed| Critic::initialize(seed, sizes, &[width, width], &Device::Cpu);
    let critics = [critic(2 * version)?, critic(2 * version + 1)?];
    let manifest = CriticManifest {
        support,
        clipped_double_q: true,
    };
    sealed(run, version, rate, Some(([&critics[0], &critics[1]], manifest)))
}

fn sealed(
    run: &str,
    version: u64,
    rate: f64,
    critics: Option<([&Parameters; 2], CriticManifest)>,
) -> anyhow::Result<Vec<u8>> {
    let robot = spec(rate);
    let sizes = (robot.observation_size(), robot.action_size(), robot.action_size());
    let actor = MeanFlow::initialize(version, sizes, &[128, 128], &Device::Cpu)?;
    Ok(seal(&SealRequest {
        subject: &Subject::Robot(robot),
        run,
        version,
        sampling_steps: 1,
        actor: &actor,
        critics,
        normalizer: None,
        probe_observations: Vec::new(),
    })?)
}

/// A bundle that is to be published.
pub struct NewBundle {
    /// Its digest.
    pub digest: String,
    /// Its file.
    pub bytes: Vec<u8>,
}

impl NewBundle {
    /// The policy of [`bundle`].
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn seal(run: &str, version: u64, rate: f64) -> anyhow::Result<Self> {
        let bytes = bundle(run, version, rate)?;
        let digest = open(&bytes)?.digest().to_owned();
        Ok(Self { digest, bytes })
    }
}

/// Policies of rising versions, sealed ahead of their use by a thread of ordinary priority: whoever publishes them has
/// real-time priority, and must not compute.
pub struct Bundles(Receiver<anyhow::Result<NewBundle>>);

impl Bundles {
    /// Those of a run from a version on.
    pub fn start(run: &'static str, first: u64, rate: f64) -> Self {
        let (sender, receiver) = sync_channel(AHEAD);
        std::thread::spawn(move || {
            // It ends when nobody waits for the next one.
            for version in first.. {
                if sender.send(NewBundle::seal(run, version, rate)).is_err() {
                    return;
                }
            }
        });
        Self(receiver)
    }

    /// The next one.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn next(&self) -> anyhow::Result<NewBundle> {
        self.0.recv()?
    }
}

fn spec(rate: f64) -> RobotSpec {
    let joints: Vec<String> = (0..JOINTS).map(joint_name).collect();
    let joint = |name: &String| JointSpec {
        name: name.clone(),
        position_min: Some(-3.0),
        position_max: Some(3.0),
        velocity_max: 10.0,
        effort_max: 10.0,
        command_rate_max: None,
        acceleration_max: None,
    };
    let action = |name: &String| ActionJoint {
        joint: name.clone(),
        offset: 0.0,
        scale: 1.0,
    };
    RobotSpec {
        robot: "twelve_joints".into(),
        joints: joints.iter().map(joint).collect(),
        observation: ObservationSpec {
            terms: joints.iter().flat_map(|name| observed(name)).collect(),
        },
        action: ActionSpec {
            interface: CommandInterface::Effort,
            joints: joints.iter().map(action).collect(),
        },
        control_period_ns: (1e9 / rate).round() as u64,
        goal: None,
    }
}

fn observed(joint: &str) -> [ObservationTerm; 2] {
    let joint = || joint.to_owned();
    [
        ObservationTerm::Position {
            joint: joint(),
            scale: 1.0,
        },
        ObservationTerm::Velocity {
            joint: joint(),
            scale: 0.1,
        },
    ]
}
