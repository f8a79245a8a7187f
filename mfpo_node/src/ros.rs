//! Everything of this crate that knows ROS. Two nodes on two threads, so that nothing that happens on one delays the
//! other: `control_thread` takes joint states and sends commands; the node made here serves parameters, takes
//! bundles, checks them and publishes the status. Between them are rings that nobody waits on.

mod control_thread;
mod messages;
mod service;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};

use anyhow::Context as _;
use mfpo_ros::parameters::Parameters;
use mfpo_ros::{Inbox, SpinThread, create_node, qos, shutdown};
use r2r::mfpo_msgs::msg::PolicyBundle;
use rtrb::RingBuffer;

use crate::config::{Config, declared};
use crate::metrics::TickRecord;
use crate::status::LoopEvent;

use control_thread::ControlThread;
use messages::Stamps;
use service::{FromLoop, Inputs, Service};

pub(crate) use mfpo_ros::r2r;

/// Name of the node that holds parameters, bundles and status.
const NODE: &str = "control";
/// Name of the node that the control thread spins.
const LOOP_NODE: &str = "control_loop";

/// Runs the node until SIGINT or SIGTERM.
///
/// # Errors
/// When ROS 2 does not start, a parameter is wrong, or the policy to start with is refused.
pub fn run() -> anyhow::Result<()> {
    shutdown::install().context("installing the signal handlers")?;
    let mut node = create_node(NODE)?;
    let loop_node = create_node(LOOP_NODE)?;
    let parameters = read_parameters(&node)?;
    let config = Config::read(&parameters)?;
    let parameters = Arc::new(Mutex::new(parameters));
    let (handler, changes) = node
        .make_derived_parameter_handler(parameters)
        .context("serving parameters")?;
    let bundles = Inbox::<PolicyBundle>::subscribe(&mut node, "policy/bundle", qos::POLICY_BUNDLE)?;
    let status = node
        .create_publisher("policy/status", qos::POLICY_STATUS)
        .context("creating the publisher of policy/status")?;

    let (to_loop, orders) = RingBuffer::new(8);
    let (retire, retired) = RingBuffer::new(8);
    let (tell, events) = RingBuffer::<LoopEvent>::new(256);
    let (record, records) = RingBuffer::<TickRecord>::new(16_384);
    let from_loop = FromLoop {
        retired,
        events,
        records,
    };
    let stamps = Stamps::new(&node);
    let mut service = Service::new(&config, to_loop, from_loop, (status, stamps.clone()))?;
    if let Some(path) = &config.policy {
        service.start_with(path)?;
    }
    let rings = control_thread::Rings {
        orders,
        retire,
        tell,
        record,
    };
    let control = ControlThread::new(loop_node, &config, rings, stamps)?;
    let thread = std::thread::Builder::new()
        .name("control".into())
        .spawn(move || control.run())
        .context("starting the control thread")?;

    let spin = SpinThread::start(node, "service").context("starting the service thread")?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .context("starting the service runtime")?;
    let inputs = Inputs {
        bundles,
        changes: Box::pin(changes),
    };
    // r2r panics when it cannot answer; on a task of its own that ends the parameter services and nothing else.
    let answering = runtime.spawn(handler);
    let served = catch_unwind(AssertUnwindSafe(|| {
        runtime.block_on(service.serve(inputs, &thread))
    }));
    // Whatever has happened here: the robot gets its last safe command.
    shutdown::request();
    let controlled = thread.join();
    answering.abort();
    drop(spin);
    match (served, controlled) {
        (Ok(()), Ok(())) => Ok(()),
        (Err(_), _) => anyhow::bail!("the service panicked; the robot was stopped"),
        (_, Err(_)) => anyhow::bail!("the control thread panicked; the robot was told to stop"),
    }
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
