//! `bench scale`: how many robots one machine can control. Nodes side by side under namespaces, each with a robot of its
//! own; the rate that each holds, and the share of a core that each takes.

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::ensure;
use clap::Parser;
use mfpo_ros::r2r::mfpo_msgs::msg::PolicyStatus;
use mfpo_ros::{Inbox, create_node, qos, time};
use mfpo_tests::rig::{self, ACTIVE, Node, NodeOptions, Robot, machine};
use serde_json::{Value, json};

/// How long the nodes may take until every one commands.
const PATIENCE: Duration = Duration::from_secs(90);
/// The newest status of a node, which comes twice a second, is no older at the end, s.
const NEWEST: f64 = 2.0;

/// Measures nodes side by side.
#[derive(Debug, Clone, Parser)]
#[command(name = "scale", version)]
struct Arguments {
    /// Numbers of nodes.
    #[arg(long, value_delimiter = ',', default_value = "1,4,16")]
    nodes: Vec<usize>,
    /// Control rate of each, Hz.
    #[arg(long, default_value_t = 100.0)]
    rate: f64,
    /// How long each number is measured, s.
    #[arg(long, default_value_t = 20.0)]
    seconds: f64,
    /// Real-time priority of the control threads, 1 to 99; 0 is none.
    #[arg(long, default_value_t = 0)]
    realtime_priority: u64,
    /// End with one line of JSON.
    #[arg(long)]
    json: bool,
    /// `cargo bench` says this to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    rig::isolate();
    rig::ended("scale", run(&Arguments::parse()))
}

fn run(arguments: &Arguments) -> anyhow::Result<()> {
    println!("{}", machine());
    println!(
        "12 joints, 128-128 policy, {} Hz fixed_rate, priority {}, {} s each",
        arguments.rate, arguments.realtime_priority, arguments.seconds
    );
    println!(
        "| nodes | deadlines kept a second: lowest, mean | missed ticks | CPU of a node, of one core | slowest p99 of a second, \
         state taken -> command with rmw |"
    );
    println!("|---|---|---|---|---|");
    let mut results = Vec::new();
    for &count in &arguments.nodes {
        let folder = tempfile::tempdir()?;
        results.push(measure(arguments, folder.path(), count)?);
    }
    if arguments.json {
        println!(
            "{}",
            json!({"rate_hz": arguments.rate, "machine": machine(), "results": results})
        );
    }
    Ok(())
}

/// Nodes with what each of them says.
struct Fleet {
    listener: mfpo_ros::r2r::Node,
    nodes: Vec<Node>,
    inboxes: Vec<Inbox<PolicyStatus>>,
    newest: Vec<PolicyStatus>,
    /// The slowest 99th percentile of a second that any of them has told, s.
    slowest_p99: f64,
}

impl Fleet {
    fn start(arguments: &Arguments, folder: &Path, namespaces: &[String]) -> anyhow::Result<Self> {
        let bundle = rig::bundle("bench", 1, arguments.rate)?;
        let mut listener = create_node("bench_listener")?;
        let (mut nodes, mut inboxes) = (Vec::new(), Vec::new());
        for namespace in namespaces {
            let topic = format!("{namespace}/policy/status");
            inboxes.push(Inbox::subscribe(&mut listener, &topic, qos::POLICY_STATUS)?);
            let options = NodeOptions {
                namespace: namespace.clone(),
                trigger: "fixed_rate",
                realtime_priority: arguments.realtime_priority,
                parameters: Vec::new(),
            };
            nodes.push(Node::start(folder, &bundle, &options)?);
        }
        let newest = vec![PolicyStatus::default(); nodes.len()];
        Ok(Self {
            listener,
            nodes,
            inboxes,
            newest,
            slowest_p99: 0.0,
        })
    }

    /// Takes over what the nodes say, for a while.
    fn listen(&mut self, time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.listener.spin_once(Duration::from_millis(20));
            for (inbox, newest) in self.inboxes.iter_mut().zip(&mut self.newest) {
                if let Some(status) = inbox.latest() {
                    self.slowest_p99 = self.slowest_p99.max(status.latency_p99);
                    *newest = status;
                }
            }
        }
    }

    fn wait_until_active(&mut self) -> anyhow::Result<()> {
        let end = Instant::now() + PATIENCE;
        while self.newest.iter().any(|status| status.state != ACTIVE) {
            let waiting = self.newest.iter().filter(|status| status.state != ACTIVE).count();
            ensure!(Instant::now() < end, "{waiting} nodes do not command");
            self.listen(Duration::from_millis(200));
        }
        // Their start is not what is measured.
        self.listen(Duration::from_secs(2));
        Ok(())
    }

    fn cpu_seconds(&self) -> f64 {
        self.nodes.iter().map(|node| node.cpu_time().as_secs_f64()).sum()
    }
}

fn measure(arguments: &Arguments, folder: &Path, count: usize) -> anyhow::Result<Value> {
    let namespaces: Vec<String> = (0..count).map(|i| format!("/robot_{i}")).collect();
    let mut fleet = Fleet::start(arguments, folder, &namespaces)?;
    let robot = Robot::start(&namespaces, arguments.rate);
    fleet.wait_until_active()?;
    let (before, cpu, began) = (fleet.newest.clone(), fleet.cpu_seconds(), Instant::now());
    fleet.slowest_p99 = 0.0;
    fleet.listen(Duration::from_secs_f64(arguments.seconds));
    let elapsed = began.elapsed().as_secs_f64();
    let cpu = (fleet.cpu_seconds() - cpu) / elapsed / count as f64;
    robot.end()?;
    let since = |what: fn(&PolicyStatus) -> u64| -> Vec<u64> {
        let pairs = fleet.newest.iter().zip(&before);
        pairs.map(|(now, before)| what(now) - what(before)).collect()
    };
    let missed: u64 = since(|s| s.missed_ticks).iter().sum();
    let ticks: u64 = since(|s| s.ticks).iter().sum();
    let pairs = before.iter().zip(&fleet.newest);
    let rates = pairs.map(|(before, now)| rate_held(before, now, arguments.seconds));
    let rates = rates.collect::<anyhow::Result<Vec<f64>>>()?;
    let lowest = rates.iter().copied().fold(f64::INFINITY, f64::min);
    let mean = rates.iter().sum::<f64>() / count as f64;
    let p99 = 1e6 * fleet.slowest_p99;
    println!(
        "| {count} | {lowest:.1}, {mean:.1} Hz | {missed} of {ticks} | {:.1} % | {p99:.0} us |",
        100.0 * cpu
    );
    Ok(json!({
        "nodes": count, "rate_hz": arguments.rate, "rate_lowest_hz": lowest, "rate_mean_hz": mean,
        "ticks": ticks, "missed_ticks": missed, "cpu_percent_per_node": 100.0 * cpu,
        "node_p99_worst_second_us": p99, "realtime_priority": arguments.realtime_priority,
    }))
}

/// Deadlines a second that a node has kept from one status to another one about so many seconds later, Hz.
fn rate_held(before: &PolicyStatus, now: &PolicyStatus, seconds: f64) -> anyhow::Result<f64> {
    let between = 1e-9 * (time::nanoseconds(&now.stamp) - time::nanoseconds(&before.stamp)) as f64;
    ensure!(
        between > 0.0 && between >= seconds - NEWEST,
        "a node's newest status is from {between:.1} s after the first; expected about {seconds} s: has it ended?"
    );
    let of = |status: &PolicyStatus| status.ticks as f64 - status.missed_ticks as f64;
    Ok((of(now) - of(before)) / between)
}
