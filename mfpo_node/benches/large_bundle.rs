//! `bench large_bundle`: what the control loop feels while a bundle of 50 MB arrives, as one message, as the path of its file,
//! and in parts; over real DDS, with a `control` process of its own and the bundle's sender at the lowest priority, as a trainer
//! on the same machine would be.
//!
//! A tick's lateness is the time by which its command is behind the earliest of all on the schedule of deadlines.

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
use mfpo_policy::bundle::{CriticManifest, SealRequest, open, seal};
use mfpo_policy::critic::{Critic, ValueSupport};
use mfpo_policy::mean_flow::MeanFlow;
use mfpo_policy::spec::{
    ActionJoint, ActionSpec, CommandInterface, JointSpec, ObservationSpec, ObservationTerm, RobotSpec,
};
use mfpo_policy::subject::Subject;
use mfpo_ros::r2r::mfpo_msgs::msg::{PolicyAction, PolicyBundle, PolicyBundleChunk, PolicyStatus};
use mfpo_ros::{Inbox, convert, create_node, qos, time};
use serde_json::{Value, json};

const JOINTS: usize = 12;
const ACTIVE: u8 = 2;
const RUN: &str = "bench";
/// Nothing is measured for this long after the node has become active, and nothing arrives for as long before the first bundle.
const CALM: Duration = Duration::from_secs(3);
/// What comes so long after a bundle has gone live still counts as its doing.
const AFTERMATH: Duration = Duration::from_millis(500);
/// So many rows of skipped ticks are told for each bundle.
const MOST_HOLES: usize = 3;
/// A part of a bundle, bytes, and the time between two, as the trainer sends them.
const PART: usize = 256 << 10;
const BETWEEN_PARTS: Duration = Duration::from_millis(5);

/// Measures what the control loop feels while large bundles arrive.
#[derive(Debug, Clone, Parser)]
#[command(name = "large_bundle", version)]
struct Arguments {
    /// Size of a bundle, MB.
    #[arg(long, default_value_t = 50.0)]
    megabytes: f64,
    /// Bundles of each way.
    #[arg(long, default_value_t = 5)]
    bundles: u64,
    /// Control rate, Hz.
    #[arg(long, default_value_t = 500.0)]
    rate: f64,
    /// Real-time priority of the control thread, 1 to 99; 0 is none.
    #[arg(long, default_value_t = 0)]
    realtime_priority: u64,
    /// How the bundles come.
    #[arg(long, value_delimiter = ',', default_value = "message,path,parts")]
    ways: Vec<String>,
    /// The program `control`.
    #[arg(long, default_value = env!("CARGO_BIN_EXE_control"))]
    control: PathBuf,
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
            eprintln!("bench large_bundle: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<()> {
    isolate();
    let folder = tempfile::tempdir()?;
    let files = Files::seal(folder.path(), arguments)?;
    println!(
        "{} bundles of {:.1} MB a way, {} Hz, priority {}; us",
        arguments.bundles,
        files.size as f64 * 1e-6,
        arguments.rate,
        arguments.realtime_priority
    );
    println!(
        "{:<28} {:>7} {:>9} {:>9} {:>9} {:>9} {:>7} {:>9}",
        "lateness of ticks", "ticks", "p50", "p99", "p99.9", "max", "missed", "live, ms"
    );
    let mut results = Vec::new();
    for way in &arguments.ways {
        results.extend(measure(way, arguments, &files)?.report(way, arguments));
    }
    if arguments.json {
        println!("{}", json!({"results": results}));
    }
    Ok(())
}

/// Away from other robots and other tests on this machine, unless the user has chosen where.
fn isolate() {
    let own = (std::process::id() % 90 + 10).to_string();
    for (name, value) in [
        ("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST"),
        ("ROS_DOMAIN_ID", &own),
    ] {
        if std::env::var_os(name).is_none() {
            // SAFETY: no other thread has been started yet.
            unsafe { std::env::set_var(name, value) };
        }
    }
}

/// Sealed bundles, versions 0 to the number of bundles.
struct Files {
    folder: PathBuf,
    digests: Vec<String>,
    size: usize,
}

impl Files {
    fn seal(folder: &Path, arguments: &Arguments) -> anyhow::Result<Self> {
        let mut files = Self {
            folder: folder.to_owned(),
            digests: Vec::new(),
            size: 0,
        };
        for version in 0..=arguments.bundles {
            let bytes = large_bundle(version, arguments)?;
            files.digests.push(open(&bytes)?.digest().to_owned());
            files.size = bytes.len();
            std::fs::write(files.path(version), bytes)?;
        }
        Ok(files)
    }

    fn path(&self, version: u64) -> PathBuf {
        self.folder.join(format!("v{version}.safetensors"))
    }
}

/// The actor is small, so that it answers in time; what makes the bundle large are the critics.
fn large_bundle(version: u64, arguments: &Arguments) -> anyhow::Result<Vec<u8>> {
    let robot = twelve_joints(arguments.rate);
    let (observation, action) = (robot.observation_size(), robot.action_size());
    let support = ValueSupport {
        minimum: -10.0,
        maximum: 0.0,
        atoms: 101,
    };
    // Two critics of two layers of this width, 4 bytes a weight.
    let width = (arguments.megabytes * 1e6 / 8.0).sqrt() as usize;
    let critic = |seed| {
        let sizes = (observation, action, support.atoms);
        Critic::initialize(seed, sizes, &[width, width], &Device::Cpu)
    };
    let critics = [critic(2 * version)?, critic(2 * version + 1)?];
    let manifest = CriticManifest {
        support,
        clipped_double_q: true,
    };
    let sizes = (observation, action, action);
    let actor = MeanFlow::initialize(version, sizes, &[128, 128], &Device::Cpu)?;
    Ok(seal(&SealRequest {
        subject: &Subject::Robot(robot),
        run: RUN,
        version,
        sampling_steps: 1,
        actor: &actor,
        critics: Some(([&critics[0], &critics[1]], manifest)),
        normalizer: None,
        probe_observations: Vec::new(),
    })?)
}

/// A tick as `policy/action` tells it, and when that arrived.
struct Tick {
    sequence: u64,
    stamp: i64,
    arrived: MonoTime,
}

/// What one way was like.
struct Measured {
    ticks: Vec<Tick>,
    /// From the begin of each bundle's sending until a moment after it went live.
    busy: Vec<(MonoTime, MonoTime)>,
    /// When nothing had been sent yet.
    calm: (MonoTime, MonoTime),
    missed_calm: u64,
    missed_busy: u64,
    to_live_ms: Vec<f64>,
}

fn measure(way: &str, arguments: &Arguments, files: &Files) -> anyhow::Result<Measured> {
    let stop = Arc::new(AtomicBool::new(false));
    let node = Node::start(arguments, &files.path(0))?;
    let states = {
        let (stop, rate) = (Arc::clone(&stop), arguments.rate);
        std::thread::spawn(move || publish_states(rate, &stop))
    };
    let (ask, asked) = std::sync::mpsc::channel();
    let sender = {
        let way = way.to_owned();
        let files = Files {
            folder: files.folder.clone(),
            digests: files.digests.clone(),
            size: files.size,
        };
        std::thread::spawn(move || send_bundles(&way, &files, &asked))
    };
    let measured = Receiver::new()?.measure(arguments, &ask);
    stop.store(true, Ordering::Relaxed);
    drop((node, ask));
    for thread in [states, sender] {
        match thread.join() {
            Ok(result) => result?,
            Err(_) => bail!("a thread of the benchmark panicked"),
        }
    }
    measured
}

/// Receives what the node tells.
struct Receiver {
    node: mfpo_ros::r2r::Node,
    actions: Inbox<PolicyAction>,
    statuses: Inbox<PolicyStatus>,
    status: PolicyStatus,
    ticks: Vec<Tick>,
}

impl Receiver {
    fn new() -> anyhow::Result<Self> {
        let mut node = create_node("bench_receiver")?;
        Ok(Self {
            actions: Inbox::subscribe(&mut node, "/bench/policy/action", qos::POLICY_ACTION)?,
            statuses: Inbox::subscribe(&mut node, "/bench/policy/status", qos::POLICY_STATUS)?,
            status: PolicyStatus::default(),
            ticks: Vec::new(),
            node,
        })
    }

    fn measure(
        mut self,
        arguments: &Arguments,
        ask: &std::sync::mpsc::Sender<u64>,
    ) -> anyhow::Result<Measured> {
        self.until("the node is active", |r| r.status.state == ACTIVE)?;
        self.wait(CALM);
        self.ticks.clear();
        let (begin, missed) = (MonoTime::now(), self.status.missed_ticks);
        self.wait(CALM);
        let calm = (begin, MonoTime::now());
        let missed_calm = self.status.missed_ticks - missed;
        let (mut busy, mut to_live_ms, mut missed_busy) = (Vec::new(), Vec::new(), 0);
        for version in 1..=arguments.bundles {
            let (sent, missed) = (MonoTime::now(), self.status.missed_ticks);
            ask.send(version).context("the sender has ended")?;
            self.until(&format!("version {version} is live"), |r| {
                r.status.version == version
            })?;
            to_live_ms.push(MonoTime::now().since(sent) as f64 * 1e-6);
            self.wait(AFTERMATH);
            busy.push((sent, MonoTime::now()));
            missed_busy += self.status.missed_ticks - missed;
        }
        Ok(Measured {
            ticks: self.ticks,
            busy,
            calm,
            missed_calm,
            missed_busy,
            to_live_ms,
        })
    }

    fn until(&mut self, what: &str, law: impl Fn(&Self) -> bool) -> anyhow::Result<()> {
        let began = MonoTime::now();
        while !law(self) {
            self.receive();
            if MonoTime::now().since(began) > 60_000_000_000 {
                bail!(
                    "60 s passed before {what}; the node says '{}', '{}'",
                    self.status.message,
                    self.status.last_rejection
                );
            }
        }
        Ok(())
    }

    fn wait(&mut self, time: Duration) {
        let end = MonoTime::now().plus(time.as_nanos() as u64);
        while MonoTime::now() < end {
            self.receive();
        }
    }

    fn receive(&mut self) {
        self.node.spin_once(Duration::from_millis(5));
        let arrived = MonoTime::now();
        while let Some(action) = self.actions.pop() {
            self.ticks.push(Tick {
                sequence: action.sequence,
                stamp: time::nanoseconds(&action.stamp),
                arrived,
            });
        }
        if let Some(newest) = self.statuses.latest() {
            self.status = newest;
        }
    }
}

impl Measured {
    fn report(&self, way: &str, arguments: &Arguments) -> Vec<Value> {
        let period = 1e9 / arguments.rate;
        let offset = |tick: &Tick| tick.stamp - (tick.sequence as f64 * period).round() as i64;
        let earliest = self.ticks.iter().map(offset).min().unwrap_or_default();
        let lateness_in = |spans: &[(MonoTime, MonoTime)]| {
            let mut histogram = latencies();
            for tick in &self.ticks {
                if spans
                    .iter()
                    .any(|(from, to)| (*from..=*to).contains(&tick.arrived))
                {
                    histogram.saturating_record((offset(tick) - earliest).unsigned_abs());
                }
            }
            histogram
        };
        let live = self.to_live_ms.iter().copied().fold(0.0, f64::max);
        for (number, (from, to)) in self.busy.iter().enumerate() {
            let holes = self.holes(*from, *to);
            if !holes.is_empty() {
                println!(
                    "{way}: bundle {}: longest rows of skipped ticks: {}",
                    number + 1,
                    holes.join(", ")
                );
            }
        }
        vec![
            row(way, "before", &lateness_in(&[self.calm]), self.missed_calm, None),
            row(
                way,
                "while bundles come",
                &lateness_in(&self.busy),
                self.missed_busy,
                Some(live),
            ),
        ]
    }
}

impl Measured {
    /// The longest rows of ticks that were skipped in a span, and when since its begin.
    fn holes(&self, from: MonoTime, to: MonoTime) -> Vec<String> {
        let within = |pair: &&[Tick]| (from..=to).contains(&pair[1].arrived);
        let hole = |pair: &[Tick]| {
            let skipped = pair[1].sequence.saturating_sub(pair[0].sequence + 1);
            (skipped, pair[1].arrived.since(from) as f64 * 1e-6)
        };
        let mut holes: Vec<_> = self.ticks.windows(2).filter(within).map(hole).collect();
        holes.retain(|(skipped, _)| *skipped > 0);
        holes.sort_by_key(|(skipped, _)| std::cmp::Reverse(*skipped));
        holes.truncate(MOST_HOLES);
        let told = |(skipped, at): (u64, f64)| format!("{skipped} at {at:.0} ms");
        holes.into_iter().map(told).collect()
    }
}

fn row(way: &str, when: &str, lateness: &Histogram<u64>, missed: u64, live_ms: Option<f64>) -> Value {
    let us = |quantile: f64| lateness.value_at_quantile(quantile) as f64 * 1e-3;
    let max = lateness.max() as f64 * 1e-3;
    println!(
        "{:<28} {:>7} {:>9.1} {:>9.1} {:>9.1} {:>9.1} {:>7} {:>9}",
        format!("{way}: {when}"),
        lateness.len(),
        us(0.5),
        us(0.99),
        us(0.999),
        max,
        missed,
        live_ms.map_or_else(String::new, |ms| format!("{ms:.0}"))
    );
    json!({"way": way, "when": when, "ticks": lateness.len(), "p50_us": us(0.5), "p99_us": us(0.99),
        "p999_us": us(0.999), "max_us": max, "missed_ticks": missed, "publish_to_active_max_ms": live_ms})
}

/// Sends the versions that it is asked for.
fn send_bundles(way: &str, files: &Files, asked: &std::sync::mpsc::Receiver<u64>) -> anyhow::Result<()> {
    // SAFETY: setpriority takes numbers; on Linux, with who = 0, it concerns the calling thread only.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, 19) };
    let mut node = create_node("bench_trainer")?;
    let whole = node.create_publisher("/bench/policy/bundle", qos::POLICY_BUNDLE)?;
    let parts = node.create_publisher("/bench/policy/bundle_chunk", qos::POLICY_BUNDLE_CHUNK)?;
    while let Ok(version) = asked.recv() {
        let path = files.path(version);
        let digest = files.digests.get(version as usize).cloned().unwrap_or_default();
        let mut message = PolicyBundle {
            run: RUN.into(),
            version,
            digest: digest.clone(),
            ..Default::default()
        };
        match way {
            "path" => message.path = path.to_string_lossy().into_owned(),
            "message" => message.data = std::fs::read(path)?,
            "parts" => {
                let bytes = std::fs::read(path)?;
                let count = bytes.len().div_ceil(PART) as u32;
                for (index, part) in (0..).zip(bytes.chunks(PART)) {
                    parts.publish(&PolicyBundleChunk {
                        run: RUN.into(),
                        version,
                        digest: digest.clone(),
                        size: bytes.len() as u64,
                        index,
                        count,
                        data: part.to_vec(),
                        ..Default::default()
                    })?;
                    std::thread::sleep(BETWEEN_PARTS);
                }
                continue;
            }
            other => bail!("a bundle comes as message, path or parts, not as '{other}'"),
        }
        whole.publish(&message)?;
    }
    Ok(())
}

/// Publishes states on an absolute schedule.
fn publish_states(rate: f64, stop: &AtomicBool) -> anyhow::Result<()> {
    let mut node = create_node("bench_robot")?;
    let publisher = node.create_publisher("/bench/joint_states", qos::JOINT_STATES)?;
    let names: Vec<String> = (0..JOINTS).map(joint_name).collect();
    let mut message = convert::joint_state(time::now(), names, vec![0.0; JOINTS], vec![0.0; JOINTS]);
    let mut next = MonoTime::now();
    while !stop.load(Ordering::Relaxed) {
        message.header.stamp = time::now();
        publisher.publish(&message)?;
        next = next.plus((1e9 / rate) as u64);
        next.sleep_until();
    }
    Ok(())
}

/// A `control` process; killed when dropped.
struct Node(Child);

impl Node {
    fn start(arguments: &Arguments, bundle: &Path) -> anyhow::Result<Self> {
        let level = std::env::var("RUST_LOG").unwrap_or_else(|_| "error".into());
        let child = Command::new(&arguments.control)
            .args(["--ros-args", "-r", "__ns:=/bench"])
            .args(["-p", &format!("policy:={}", bundle.display())])
            .args([
                "-p",
                &format!("realtime_priority:={}", arguments.realtime_priority),
            ])
            .args([
                "-p",
                "swap.shadow:=0.0",
                "-p",
                "swap.blend:=0.0",
                "-p",
                "swap.probation:=0.0",
            ])
            .env("RUST_LOG", level)
            .stdin(Stdio::null())
            .spawn();
        child
            .map(Self)
            .with_context(|| format!("starting '{}'", arguments.control.display()))
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

fn joint_name(index: usize) -> String {
    format!("joint_{index}")
}

fn twelve_joints(rate: f64) -> RobotSpec {
    let names: Vec<String> = (0..JOINTS).map(joint_name).collect();
    let terms = names.iter().flat_map(|joint| {
        let (joint, same) = (joint.clone(), joint.clone());
        let scale = 1.0;
        [
            ObservationTerm::Position { joint, scale },
            ObservationTerm::Velocity { joint: same, scale },
        ]
    });
    RobotSpec {
        robot: "twelve_joints".into(),
        joints: names
            .iter()
            .map(|name| JointSpec {
                name: name.clone(),
                position_min: Some(-3.0),
                position_max: Some(3.0),
                velocity_max: 10.0,
                effort_max: 10.0,
                command_rate_max: None,
                acceleration_max: None,
            })
            .collect(),
        observation: ObservationSpec {
            terms: terms.collect(),
        },
        action: ActionSpec {
            interface: CommandInterface::Effort,
            joints: names
                .iter()
                .map(|name| ActionJoint {
                    joint: name.clone(),
                    offset: 0.0,
                    scale: 1.0,
                })
                .collect(),
        },
        control_period_ns: (1e9 / rate).round() as u64,
        goal: None,
    }
}
