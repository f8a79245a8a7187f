//! The demo's ears on ROS 2, and its one request; the only file of this crate that names r2r.
//!
//! A thread looks at the topics 30 times a second: the demo must not take time from the control node, so that the
//! joint states, which come much faster, are read with a queue of one.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use futures::FutureExt;
use mfpo_ros::r2r::{self, QosProfile, WrappedServiceTypeSupport};
use mfpo_ros::{Inbox, RosError, create_node, qos, time};
use r2r::mfpo_msgs::msg::{EpisodeResult, PolicyStatus};
use r2r::rcl_interfaces::msg::{Parameter, ParameterType, ParameterValue};
use r2r::rcl_interfaces::srv::SetParameters;
use r2r::sensor_msgs::msg::JointState;

use crate::story::{NodeState, NodeStatus};
use crate::trial::Episode;

/// How often the topics are looked at.
const LOOK: Duration = Duration::from_millis(33);
/// Messages taken of each topic at one look.
const MOST: usize = 8;
/// A request that has no answer is sent again.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// Name of the control node.
const CONTROL: &str = "control";
/// Its parameter that allows swaps.
const ACCEPT_BUNDLES: &str = "accept_bundles";

/// What was heard.
pub enum Heard {
    /// The control node's status.
    Status(NodeStatus),
    /// An episode of the robot ended.
    Episode(Episode),
    /// The robot's first joint, rad.
    Angle(f64),
    /// The control node's answer to the request to accept bundles.
    AcceptBundles(Result<(), String>),
}

/// The thread that listens; it ends when this is dropped.
pub struct RosLink {
    heard: Receiver<Heard>,
    accept: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl RosLink {
    /// Joins ROS 2 as the node `demo`.
    ///
    /// # Errors
    /// When ROS 2 does not start.
    pub fn open() -> anyhow::Result<Self> {
        let (tell, heard) = channel();
        let accept = Arc::new(AtomicBool::new(false));
        let stop = Arc::new(AtomicBool::new(false));
        let mut ears = Ears::new(tell, Arc::clone(&accept))?;
        let stopped = Arc::clone(&stop);
        let thread = std::thread::Builder::new().name("ros".into()).spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                std::thread::sleep(LOOK);
                ears.look();
            }
        })?;
        Ok(Self {
            heard,
            accept,
            stop,
            thread: Some(thread),
        })
    }

    /// What was heard since the last call.
    pub fn heard(&self) -> Vec<Heard> {
        self.heard.try_iter().collect()
    }

    /// Asks the control node to accept bundles, through its parameter service.
    pub fn accept_bundles(&self) {
        self.accept.store(true, Ordering::Relaxed);
    }

    /// Does the thread still listen?
    pub fn is_alive(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }
}

impl Drop for RosLink {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic of that thread has already been printed.
            let _ = thread.join();
        }
    }
}

type Request = <SetParameters::Service as WrappedServiceTypeSupport>::Request;
type Response = <SetParameters::Service as WrappedServiceTypeSupport>::Response;
type Answer = Pin<Box<dyn Future<Output = r2r::Result<Response>> + Send>>;

struct Ears {
    node: r2r::Node,
    status: Inbox<PolicyStatus>,
    episodes: Inbox<EpisodeResult>,
    states: Inbox<JointState>,
    parameters: r2r::Client<SetParameters::Service>,
    /// The request that has no answer yet, and when it was sent.
    asked: Option<(Instant, Answer)>,
    accept: Arc<AtomicBool>,
    tell: Sender<Heard>,
}

impl Ears {
    fn new(tell: Sender<Heard>, accept: Arc<AtomicBool>) -> Result<Self, RosError> {
        let mut node = create_node("demo")?;
        let service = format!("{CONTROL}/set_parameters");
        let parameters = node
            .create_client(&service, QosProfile::services_default())
            .map_err(RosError::while_doing(format!("creating a client of '{service}'")))?;
        Ok(Self {
            status: Inbox::subscribe(&mut node, "policy/status", qos::POLICY_STATUS)?,
            episodes: Inbox::subscribe(&mut node, "robot/episode", qos::ROBOT_EPISODE)?,
            states: Inbox::subscribe(&mut node, "joint_states", qos::JOINT_STATES.keep_last(1))?,
            node,
            parameters,
            asked: None,
            accept,
            tell,
        })
    }

    fn look(&mut self) {
        for _ in 0..MOST {
            self.node.spin_once(Duration::ZERO);
        }
        while let Some(status) = self.status.pop() {
            self.tell(Heard::Status(node_status(status)));
        }
        while let Some(result) = self.episodes.pop() {
            self.tell(Heard::Episode(episode(&result)));
        }
        let state = self.states.latest();
        if let Some(angle) = state.and_then(|state| state.position.first().copied()) {
            self.tell(Heard::Angle(angle));
        }
        self.ask();
    }

    fn tell(&self, heard: Heard) {
        // The conductor drops its end last, when nobody wants to know any more.
        let _ = self.tell.send(heard);
    }

    /// Sends the request until it is answered.
    fn ask(&mut self) {
        if !self.accept.load(Ordering::Relaxed) {
            return;
        }
        if let Some((at, answer)) = &mut self.asked {
            if let Some(answer) = answer.now_or_never() {
                self.answered(verdict(answer));
                return;
            }
            if at.elapsed() < ASK_AGAIN {
                return;
            }
        }
        match self.parameters.request(&accept_bundles()) {
            Ok(answer) => self.asked = Some((Instant::now(), Box::pin(answer))),
            Err(error) => self.answered(Err(error.to_string())),
        }
    }

    fn answered(&mut self, verdict: Result<(), String>) {
        self.accept.store(false, Ordering::Relaxed);
        self.asked = None;
        self.tell(Heard::AcceptBundles(verdict));
    }
}

fn accept_bundles() -> Request {
    Request {
        parameters: vec![Parameter {
            name: ACCEPT_BUNDLES.to_owned(),
            value: ParameterValue {
                type_: ParameterType::PARAMETER_BOOL as u8,
                bool_value: true,
                ..Default::default()
            },
        }],
    }
}

fn verdict(answer: r2r::Result<Response>) -> Result<(), String> {
    let answer = answer.map_err(|error| error.to_string())?;
    match answer.results.first() {
        Some(result) if result.successful => Ok(()),
        Some(result) => Err(result.reason.clone()),
        None => Err("an answer without a result".to_owned()),
    }
}

fn episode(result: &EpisodeResult) -> Episode {
    let ended = time::nanoseconds(&result.stamp);
    let seconds = if result.real_time_factor > 0.0 {
        result.duration / result.real_time_factor
    } else {
        result.duration
    };
    Episode {
        index: result.index,
        began: ended - (seconds * 1e9) as i64,
        ended,
        success: result.success,
        episode_return: result.episode_return,
        real_time_factor: result.real_time_factor,
    }
}

fn node_status(status: PolicyStatus) -> NodeStatus {
    NodeStatus {
        stamp: time::nanoseconds(&status.stamp),
        state: NodeState::from_number(status.state),
        message: status.message,
        run: status.run,
        version: status.version,
        digest: status.digest,
        swaps: status.swaps,
        rejections: status.rejections,
        last_rejection: status.last_rejection,
        ticks: status.ticks,
        missed_ticks: status.missed_ticks,
        fallback_ticks: status.fallback_ticks,
        tick_rate: status.tick_rate,
        latency_p50: status.latency_p50,
        latency_p99: status.latency_p99,
        latency_max: status.latency_max,
    }
}
