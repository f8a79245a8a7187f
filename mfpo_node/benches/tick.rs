//! `bench tick`: joint state published -> command received, over real DDS, with a `control` process of its own.
//!
//! A publisher thread sends the states of 12 joints at a fixed rate; another thread receives `commands` and
//! `policy/action`. A command belongs to the state that its `policy/action` names: the noise of the policy makes
//! every command different, so that the two are matched by value. On-state mode gives the round trip, fixed-rate mode
//! the lateness of the deadlines.

use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail};
use candle_core::Device;
use clap::Parser;
use hdrhistogram::Histogram;
use mfpo_node::metrics::latencies;
use mfpo_node::time::MonoTime;
use mfpo_policy::bundle::{SealRequest, seal};
use mfpo_policy::mean_flow::MeanFlow;
use mfpo_policy::spec::{
    ActionJoint, ActionSpec, CommandInterface, JointSpec, ObservationSpec, ObservationTerm, RobotSpec,
};
use mfpo_policy::subject::Subject;
use mfpo_ros::r2r::mfpo_msgs::msg::{PolicyAction, PolicyStatus};
use mfpo_ros::r2r::std_msgs::msg::Float64MultiArray;
use mfpo_ros::{Inbox, convert, create_node, qos, time};
use serde_json::{Value, json};

const JOINTS: usize = 12;
const ACTIVE: u8 = 2;
/// The robot publishes for this long before anything is measured, s.
const WARM_UP: f64 = 1.0;

/// Measures what a tick takes over real DDS.
#[derive(Debug, Clone, Parser)]
#[command(name = "tick", version)]
struct Arguments {
    /// Rates of the joint states, Hz.
    #[arg(long, value_delimiter = ',', default_value = "100,500,1000")]
    rates: Vec<f64>,
    /// Samples of each rate in on-state mode; at least 30000 for a meaningful p99.9.
    #[arg(long, default_value_t = 30_000)]
    samples: usize,
    /// Samples of each rate in fixed-rate mode; 0 leaves it out.
    #[arg(long, default_value_t = 3_000)]
    fixed_samples: usize,
    /// The headline's rate, Hz.
    #[arg(long, default_value_t = 500.0)]
    headline: f64,
    /// The program `control`.
    #[arg(long, default_value = env!("CARGO_BIN_EXE_control"))]
    control: PathBuf,
    /// Real-time priority of the control thread, 1 to 99; 0 is none.
    #[arg(long, default_value_t = 0)]
    realtime_priority: u64,
    /// Another parameter of the node, as NAME:=VALUE; may be given again.
    #[arg(long = "parameter")]
    parameters: Vec<String>,
    /// End with one line of JSON.
    #[arg(long)]
    json: bool,
    /// `cargo bench` says this to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse_from(mfpo_ros::args::without_ros_args(std::env::args()));
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench tick: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<()> {
    isolate();
    println!("{}", machine());
    println!("12 joints, 128-128 policy, T = 1; us");
    println!(
        "{:<34} {:>8} {:>8} {:>8} {:>8} {:>8} {:>7}",
        "", "samples", "p50", "p99", "p99.9", "max", "missed"
    );
    let mut results = Vec::new();
    for &rate in &arguments.rates {
        let modes = [
            ("on_state", arguments.samples),
            ("fixed_rate", arguments.fixed_samples),
        ];
        for (trigger, samples) in modes {
            if samples > 0 {
                let case = Case {
                    realtime_priority: arguments.realtime_priority,
                    parameters: &arguments.parameters,
                    rate,
                    trigger,
                    samples,
                };
                let measured = case.measure(&arguments.control)?;
                results.extend(measured.report(&case));
            }
        }
    }
    if arguments.json {
        println!("{}", summary(&results, arguments.headline));
    }
    Ok(())
}

/// One line that a program can read: the headline's case at the top, all cases below.
fn summary(results: &[Value], headline: f64) -> Value {
    let is_headline = |case: &&Value| {
        case["what"] == "round_trip" && (case["rate_hz"].as_f64().unwrap_or(0.0) - headline).abs() < 1e-9
    };
    let round_trip = results.iter().find(is_headline).or(results.first());
    let mut line = round_trip.cloned().unwrap_or_else(|| json!({}));
    line["machine"] = json!(machine());
    line["results"] = json!(results);
    line
}

/// Away from other robots and other tests on this machine, unless the user has chosen where.
fn isolate() {
    let own = (std::process::id() % 90 + 10).to_string();
    for (name, value) in [
        ("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST"),
        ("ROS_DOMAIN_ID", &own),
    ] {
        if std::env::var_os(name).is_none() {
            // SAFETY: no other thread runs yet.
            unsafe { std::env::set_var(name, value) };
        }
    }
}

struct Case<'a> {
    realtime_priority: u64,
    parameters: &'a [String],
    rate: f64,
    trigger: &'static str,
    samples: usize,
}

struct Measured {
    round_trip: Histogram<u64>,
    node: Histogram<u64>,
    /// Number of each deadline, and when its command was with rmw, ns.
    ticks: Vec<(u64, i64)>,
    unmatched: usize,
    status: PolicyStatus,
    /// Missed ticks of the start, which are not measured.
    missed_before: Option<u64>,
}

impl Case<'_> {
    fn measure(&self, control: &Path) -> anyhow::Result<Measured> {
        let folder = tempfile::tempdir()?;
        let bundle = folder.path().join("twelve_joints.safetensors");
        std::fs::write(&bundle, twelve_joint_bundle(self.rate)?)?;
        let node = Node::start(control, &bundle, self)?;
        let stop = Arc::new(AtomicBool::new(false));
        let publisher = {
            let (stop, rate) = (Arc::clone(&stop), self.rate);
            std::thread::spawn(move || publish_states(rate, &stop))
        };
        let measured = receive(self);
        stop.store(true, Ordering::Relaxed);
        let published = publisher.join();
        drop(node);
        match published {
            Ok(result) => result?,
            Err(_) => bail!("the publisher thread panicked"),
        }
        measured
    }
}

/// A `control` process; killed when dropped.
struct Node(Child);

impl Node {
    fn start(control: &Path, bundle: &Path, case: &Case<'_>) -> anyhow::Result<Self> {
        Command::new(control)
            .args(["--ros-args", "-p", &format!("policy:={}", bundle.display())])
            .args(["-p", &format!("trigger:={}", case.trigger), "-r", "__ns:=/bench"])
            .args(["-p", &format!("realtime_priority:={}", case.realtime_priority)])
            .args(case.parameters.iter().flat_map(|parameter| ["-p", parameter]))
            .env(
                "RUST_LOG",
                std::env::var("RUST_LOG").unwrap_or_else(|_| "error".into()),
            )
            .stdin(Stdio::null())
            .spawn()
            .map(Self)
            .with_context(|| {
                format!(
                    "starting '{}'; build it with cargo build --release -p mfpo_node",
                    control.display()
                )
            })
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // SAFETY: kill takes numbers; the process is our child and has not been waited for.
        unsafe { libc::kill(self.0.id() as libc::pid_t, libc::SIGINT) };
        for _ in 0..100 {
            if matches!(self.0.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Publishes states on an absolute schedule. The stamp of each is the monotonic time just before it is handed to
/// rmw, which the receiver, in the same process, compares with its own.
fn publish_states(rate: f64, stop: &AtomicBool) -> anyhow::Result<()> {
    let mut node = create_node("bench_robot")?;
    let publisher = node.create_publisher("/bench/joint_states", qos::JOINT_STATES)?;
    let names: Vec<String> = (0..JOINTS).map(joint_name).collect();
    let mut message = convert::joint_state(time::now(), names, vec![0.0; JOINTS], vec![0.0; JOINTS]);
    let period = (1e9 / rate) as u64;
    let mut next = MonoTime::now();
    let mut count = 0.0f64;
    while !stop.load(Ordering::Relaxed) {
        count += 1.0;
        for (joint, position) in message.position.iter_mut().enumerate() {
            *position = (0.01 * count + joint as f64).sin() * 0.1;
        }
        message.header.stamp = time::stamp(MonoTime::now().nanos() as i64);
        publisher.publish(&message)?;
        next = next.plus(period);
        next.sleep_until();
    }
    Ok(())
}

/// Receives until enough commands have been matched to the states they answer.
fn receive(case: &Case<'_>) -> anyhow::Result<Measured> {
    let mut node = create_node("bench_receiver")?;
    let mut commands = Inbox::<Float64MultiArray>::subscribe(&mut node, "/bench/commands", qos::COMMANDS)?;
    let mut actions =
        Inbox::<PolicyAction>::subscribe(&mut node, "/bench/policy/action", qos::POLICY_ACTION)?;
    let mut status = Inbox::<PolicyStatus>::subscribe(&mut node, "/bench/policy/status", qos::POLICY_STATUS)?;
    let mut measured = Measured::new();
    let mut arrivals = Arrivals::default();
    let mut active_since = None;
    let began = MonoTime::now();
    let limit = (20.0 + WARM_UP + 3.0 * case.samples as f64 / case.rate) * 1e9;
    while measured.round_trip.len() < case.samples as u64 {
        if MonoTime::now().since(began) as f64 > limit {
            bail!(
                "only {} of {} samples came in time at {} Hz; the node says: '{}'",
                measured.round_trip.len(),
                case.samples,
                case.rate,
                measured.status.message
            );
        }
        node.spin_once(Duration::from_millis(10));
        let now = MonoTime::now();
        while let Some(command) = commands.pop() {
            arrivals.note(&command.data, now);
        }
        if let Some(newest) = status.latest() {
            measured.status = newest;
        }
        if measured.status.state == ACTIVE {
            active_since.get_or_insert(now);
        }
        let warm = active_since.is_some_and(|since| now.since(since) as f64 > WARM_UP * 1e9);
        if warm {
            measured.missed_before.get_or_insert(measured.status.missed_ticks);
        }
        while let Some(action) = actions.pop() {
            measured.take(&action, &mut arrivals, warm);
        }
    }
    // The status that counts the last of them.
    let end = MonoTime::now();
    while MonoTime::now().since(end) < 300_000_000 {
        node.spin_once(Duration::from_millis(10));
        while commands.pop().is_some() || actions.pop().is_some() {}
        measured.status = status.latest().unwrap_or(measured.status);
    }
    Ok(measured)
}

/// Commands that have arrived and whose `policy/action` has not.
#[derive(Default)]
struct Arrivals {
    by_value: HashMap<Vec<u64>, MonoTime>,
    order: VecDeque<Vec<u64>>,
}

impl Arrivals {
    fn note(&mut self, command: &[f64], now: MonoTime) {
        let key = key(command);
        self.order.push_back(key.clone());
        self.by_value.insert(key, now);
        if self.order.len() > 1_000
            && let Some(oldest) = self.order.pop_front()
        {
            self.by_value.remove(&oldest);
        }
    }

    fn take(&mut self, command: &[f64]) -> Option<MonoTime> {
        self.by_value.remove(&key(command))
    }
}

fn key(command: &[f64]) -> Vec<u64> {
    command.iter().map(|value| value.to_bits()).collect()
}

impl Measured {
    fn new() -> Self {
        Self {
            round_trip: latencies(),
            node: latencies(),
            ticks: Vec::new(),
            unmatched: 0,
            status: PolicyStatus::default(),
            missed_before: None,
        }
    }

    fn take(&mut self, action: &PolicyAction, arrivals: &mut Arrivals, warm: bool) {
        let arrival = arrivals.take(&action.command);
        if !warm || action.fallback {
            return;
        }
        let Some(arrival) = arrival else {
            self.unmatched += 1;
            return;
        };
        let published = MonoTime::from_nanos(time::nanoseconds(&action.state_stamp).unsigned_abs());
        self.round_trip.saturating_record(arrival.since(published));
        self.node.saturating_record((action.compute_time * 1e9) as u64);
        self.ticks
            .push((action.sequence, time::nanoseconds(&action.stamp)));
    }

    /// Deadline -> command with rmw, where the earliest command of all counts as on time: the deadlines are
    /// `first + k * period`, and the record of a tick holds k.
    fn lateness(&self, rate: f64) -> Histogram<u64> {
        let mut histogram = latencies();
        let offset = |(index, stamp): &(u64, i64)| stamp - (*index as f64 * 1e9 / rate).round() as i64;
        let earliest = self.ticks.iter().map(offset).min().unwrap_or_default();
        for tick in &self.ticks {
            histogram.saturating_record((offset(tick) - earliest).unsigned_abs());
        }
        histogram
    }

    fn report(&self, case: &Case<'_>) -> Vec<Value> {
        let name = |what: &str| format!("{} Hz {}: {what}", case.rate, case.trigger);
        let mut rows = Vec::new();
        let lateness = self.lateness(case.rate);
        let parts = match case.trigger {
            "on_state" => vec![("round_trip", &self.round_trip), ("node_compute", &self.node)],
            _ => vec![("lateness", &lateness), ("node_compute", &self.node)],
        };
        for (what, histogram) in parts {
            rows.push(self.row(&name(what), what, case, histogram));
        }
        rows
    }

    fn missed(&self) -> u64 {
        self.status.missed_ticks - self.missed_before.unwrap_or(0)
    }

    fn row(&self, name: &str, what: &str, case: &Case<'_>, histogram: &Histogram<u64>) -> Value {
        let us = |quantile: f64| histogram.value_at_quantile(quantile) as f64 * 1e-3;
        let max = histogram.max() as f64 * 1e-3;
        println!(
            "{name:<34} {:>8} {:>8.1} {:>8.1} {:>8.1} {:>8.1} {:>7}",
            histogram.len(),
            us(0.5),
            us(0.99),
            us(0.999),
            max,
            self.missed()
        );
        json!({
            "what": what, "trigger": case.trigger, "rate_hz": case.rate,
            "realtime_priority": case.realtime_priority, "samples": histogram.len(),
            "p50_us": us(0.5), "p99_us": us(0.99), "p999_us": us(0.999), "max_us": max,
            "missed_ticks": self.missed(), "ticks": self.status.ticks,
            "node_p50_us": self.status.latency_p50 * 1e6, "node_p99_us": self.status.latency_p99 * 1e6,
            "unmatched": self.unmatched,
        })
    }
}

fn joint_name(index: usize) -> String {
    format!("joint_{index}")
}

/// A policy with random weights: what it does is of no interest, what it takes is the same as for a trained one.
fn twelve_joint_bundle(rate: f64) -> anyhow::Result<Vec<u8>> {
    let joints: Vec<String> = (0..JOINTS).map(joint_name).collect();
    let robot = RobotSpec {
        robot: "twelve_joints".into(),
        joints: joints
            .iter()
            .map(|name| JointSpec {
                name: name.clone(),
                position_min: Some(-3.0),
                position_max: Some(3.0),
                velocity_max: 10.0,
                effort_max: 10.0,
                command_rate_max: None,
            })
            .collect(),
        observation: ObservationSpec {
            terms: joints.iter().flat_map(|name| observed(name)).collect(),
        },
        action: ActionSpec {
            interface: CommandInterface::Effort,
            joints: joints
                .iter()
                .map(|name| ActionJoint {
                    joint: name.clone(),
                    offset: 0.0,
                    scale: 1.0,
                })
                .collect(),
        },
        control_period_ns: (1e9 / rate).round() as u64,
    };
    let sizes = (robot.observation_size(), robot.action_size(), robot.action_size());
    let actor = MeanFlow::initialize(1, sizes, &[128, 128], &Device::Cpu)?;
    Ok(seal(&SealRequest {
        subject: &Subject::Robot(robot),
        run: "bench",
        version: 1,
        sampling_steps: 1,
        actor: &actor,
        critics: None,
        normalizer: None,
        probe_observations: Vec::new(),
    })?)
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

/// Processor, number of cores, kernel.
fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let model = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("unknown processor", |(_, model)| model);
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = read("/proc/sys/kernel/osrelease");
    let load = read("/proc/loadavg");
    format!(
        "{model}, {cores} cores, Linux {}, load {}",
        kernel.trim(),
        load.split(' ').next().unwrap_or_default()
    )
}
