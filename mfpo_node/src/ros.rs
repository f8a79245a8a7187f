//! Everything of this crate that knows ROS. Three nodes on three threads, so that nothing that happens on one delays
//! another: `control_thread` takes joint states and sends commands; the node made here serves parameters, life cycle and
//! operators, checks bundles and publishes the status; `bundles` takes them in. Between them are rings that nobody waits on.

mod bundles;
mod control_thread;
mod description;
mod end;
mod life;
mod messages;
mod policies;
mod probing;
mod publishers;
mod qos_overrides;
mod recorded;
mod requests;
mod running;
mod service;
mod standstill;
mod subscribers;
mod swaps;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use anyhow::Context as _;
use mfpo_policy::kernel::InstructionSet;
use mfpo_ros::parameter_server::ParameterServer;
use mfpo_ros::parameters::Parameters;
use mfpo_ros::rosout::{LogQueue, Rosout};
use mfpo_ros::{ParamsFile, SpinThread, create_node, qos, shutdown, thread};
use r2r::QosProfile;
use rtrb::RingBuffer;
use tokio::sync::mpsc;

use crate::config::{Config, declared};
use crate::metrics::TickRecord;
use crate::pulse::Pulse;
use crate::recording::Recorder;
use crate::status::LoopEvent;

use bundles::{Arrived, BundleThread, BundleTopics};
use control_thread::{ControlThread, MOST_ORDERS, MOST_RETIRED};
use end::{end_recording, give_up, wait_for};
use messages::{Receivers, Stamps};
use publishers::{ComeAndGone, Commands, Publishers};
use qos_overrides::{End, Overrides};
use recorded::facts;
use requests::Operators;
use service::{FromLoop, Inputs, Outputs, Service};
use standstill::LONGEST_END;
use subscribers::{Audience, Offered, Subscribers};

pub(crate) use mfpo_ros::r2r;

/// Name of the node that holds parameters, bundles and status.
const NODE: &str = "control";
/// Name of the node that bundles arrive at.
const BUNDLE_NODE: &str = "control_bundles";
/// Name of the node that the control thread spins.
const LOOP_NODE: &str = "control_loop";

/// Runs the node until SIGINT or SIGTERM; what `log` holds goes to `/rosout`.
///
/// # Errors
/// When ROS 2 does not start, a parameter is wrong, or the policy to start with is refused.
pub fn run(log: LogQueue) -> anyhow::Result<()> {
    shutdown::install().context("installing the signal handlers")?;
    if let Err(error) = InstructionSet::check_asked() {
        tracing::warn!("{error}");
    }
    let mut node = create_node(NODE)?;
    let loop_node = create_node(LOOP_NODE)?;
    let bundle_node = create_node(BUNDLE_NODE)?;
    tell_ignored_files(&node)?;
    let mut parameters = read_parameters(&node)?;
    let config = Config::read(&parameters)?;
    parameters.freeze();
    let stamps = Stamps::new(config.use_sim_time);
    let mut overrides = read_overrides(&node)?;
    overrides
        .declared()
        .for_each(|declared| parameters.declare(declared));
    let (takes_bundles, bundles) = take_bundles(bundle_node, &mut overrides)?;
    let descriptions = if config.use_robot_description {
        Some(overrides.subscribe(&mut node, "robot_description", qos::ROBOT_DESCRIPTION)?)
    } else {
        None
    };
    let mut outputs = outputs(&mut node, log, stamps.clone(), &mut overrides)?;
    let recorder = config.recording.clone().map(|settings| {
        let namespace = node.namespace().context("reading the node's namespace")?;
        let facts = facts(&config, &parameters, &outputs.node, &namespace);
        Recorder::start(settings, facts).context("starting the recorder")
    });
    let recorder = recorder.transpose()?;
    outputs.recording = recorder.as_ref().map(|(recording, _)| recording.clone());

    let (to_loop, orders) = RingBuffer::new(MOST_ORDERS);
    let (retire, retired) = RingBuffer::new(MOST_RETIRED);
    let (tell, events) = RingBuffer::<LoopEvent>::new(256);
    let (record, records) = RingBuffer::<TickRecord>::new(16_384);
    let pulse = Arc::new(Pulse::default());
    let from_loop = FromLoop {
        retired,
        events,
        records,
        pulse: Arc::clone(&pulse),
    };
    let rings = control_thread::Rings {
        orders,
        retire,
        tell,
        record,
        pulse: Arc::clone(&pulse),
    };
    let commanding = loop_node
        .fully_qualified_name()
        .context("the name of the control loop's node")?;
    let mut control = ControlThread::new(loop_node, &config, rings, (stamps, &mut overrides))?;
    overrides.check_all_used()?;
    outputs.receivers = control.receivers();
    let offered = overrides.offered();
    let is_command = |topic: &&Offered| topic.audience == Audience::Robot;
    let commands = offered.iter().filter(is_command);
    let commands = Commands {
        topics: commands.map(|topic| topic.remapped.clone()).collect(),
        node: commanding,
    };
    let (mut publishers, others) = Publishers::new(overrides.listened(), commands);
    control.heed(publishers.several_sources());
    outputs.subscribers = Subscribers::new(offered, publishers.come_and_gone());
    let inputs = Inputs {
        bundles,
        parameters: ParameterServer::new(&mut node)?,
        operators: Operators::new(&mut node)?,
        descriptions,
        others,
    };
    let mut service = Service::new(config, parameters, (to_loop, from_loop), outputs)?;
    service.begin()?;
    let spin = SpinThread::start_showing(node, "service", move |node| publishers.look(node))
        .context("starting the service thread")?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .context("starting the service runtime")?;
    // Nothing may fail any more once this one commands the robot: nobody would bring it to its last command.
    let control = thread::spawn("control_loop", move || control.run());
    let control = control.context("starting the control thread")?;
    let served = catch_unwind(AssertUnwindSafe(|| {
        runtime.block_on(service.serve(inputs, &control))
    }));
    // Whatever has happened here: the robot gets its last safe command.
    shutdown::request();
    let Some(controlled) = wait_for(control, &pulse, LONGEST_END) else {
        give_up(recorder, &pulse);
    };
    drop(spin);
    drop(takes_bundles);
    let ended = match (served, controlled, shutdown::failure()) {
        (Err(_), ..) => Err("the service panicked; the robot was stopped".to_owned()),
        (_, Err(_), why) => {
            let why = why.unwrap_or("the control thread panicked");
            Err(format!("{why}; the robot was told to stop"))
        }
        (.., Some(why)) => Err(format!("{why}; the robot was stopped")),
        (Ok(()), Ok(()), None) => Ok(()),
    };
    let why = ended
        .as_ref()
        .err()
        .map_or("the node was asked to end", String::as_str);
    end_recording(recorder, why);
    ended.map_err(anyhow::Error::msg)
}

/// Begins to take bundles.
fn take_bundles(
    mut node: r2r::Node,
    overrides: &mut Overrides,
) -> anyhow::Result<(BundleThread, mpsc::Receiver<Arrived>)> {
    let topics = BundleTopics {
        whole: overrides.subscribe(&mut node, "policy/bundle", qos::POLICY_BUNDLE)?,
        parts: overrides.subscribe(&mut node, "policy/bundle_chunk", qos::POLICY_BUNDLE_CHUNK)?,
    };
    BundleThread::start(node, topics).context("starting the thread that takes bundles")
}

/// The topics that the service publishes.
fn outputs(
    node: &mut r2r::Node,
    log: LogQueue,
    stamps: Stamps,
    overrides: &mut Overrides,
) -> anyhow::Result<Outputs> {
    let status = (qos::POLICY_STATUS, "mfpo_msgs/msg/PolicyStatus");
    let status = overrides.offer(node, "policy/status", status, Audience::Anybody)?;
    let diagnostics = overrides.profile("/diagnostics", End::Publisher, qos::DIAGNOSTICS)?;
    let name = node.fully_qualified_name().context("reading the node's name")?;
    Ok(Outputs {
        status: node
            .create_publisher("policy/status", status)
            .context("creating the publisher of policy/status")?,
        diagnostics: node
            .create_publisher("/diagnostics", diagnostics)
            .context("creating the publisher of /diagnostics")?,
        transitions: node
            .create_publisher("~/transition_event", QosProfile::default())
            .context("creating the publisher of ~/transition_event")?,
        rosout: Rosout::new(node, log)?,
        stamps,
        node: name.trim_start_matches('/').to_owned(),
        recording: None,
        receivers: Receivers::default(),
        subscribers: Subscribers::new(Vec::new(), ComeAndGone::default()),
    })
}

/// The quality of service that the parameter files and the command line gave.
fn read_overrides(node: &r2r::Node) -> anyhow::Result<Overrides> {
    let namespace = node.namespace().context("reading the node's namespace")?;
    let Ok(given) = node.params.lock() else {
        anyhow::bail!("the node's parameters cannot be read");
    };
    let values = given.iter().map(|(name, parameter)| (name, &parameter.value));
    Ok(Overrides::read(&namespace, values))
}

/// Names the parameter files of the command line that hold nothing for this node.
fn tell_ignored_files(node: &r2r::Node) -> anyhow::Result<()> {
    let name = node.name().context("reading the node's name")?;
    let full = node.fully_qualified_name().context("reading the node's name")?;
    let files = ParamsFile::of_this_process()?;
    for ignored in files.iter().filter_map(|file| file.ignored_by(&name, &full)) {
        tracing::warn!("{ignored}");
    }
    Ok(())
}

/// The parameters that the parameter files and the command line gave.
fn read_parameters(node: &r2r::Node) -> anyhow::Result<Parameters> {
    let mut parameters = Parameters::new(declared());
    let Ok(given) = node.params.lock() else {
        anyhow::bail!("the node's parameters cannot be read");
    };
    parameters.apply(given.iter().map(|(name, parameter)| (name, &parameter.value)))?;
    Ok(parameters)
}
