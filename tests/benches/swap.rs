//! `bench swap`: policies swapped under load. One after the other goes over DDS to a node that commands a robot at
//! 500 Hz; from the publication to the first record of the new policy is what a swap takes. Every record must name a
//! run and a version that were published, versions must rise, and every tick must have its record unless the node counts it
//! as missed; anything else fails.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{bail, ensure};
use clap::Parser;
use hdrhistogram::Histogram;
use mfpo_node::metrics::latencies;
use mfpo_node::time::MonoTime;
use mfpo_ros::r2r::mfpo_msgs::msg::PolicyAction;
use mfpo_tests::rig::{
    self, Account, Bundles, Evidence, Figures, Node, NodeOptions, Receiver, Robot, Sampler, Sequence,
    Trainer, machine,
};
use serde_json::json;

const RUN: &str = "bench";
const NAMESPACE: &str = "/bench";
/// A swap that takes longer has failed, ns.
const PATIENCE: u64 = 10_000_000_000;
/// The status, which counts missed ticks, comes this often at least, ns.
const STATUS_EVERY: u64 = 500_000_000;
/// The status that counts the last tick comes within this time, ns.
const LAST_STATUS: u64 = 1_100_000_000;
/// The records of the ticks that a status counts have come so long after it, ns.
const LAST_RECORDS: u64 = 200_000_000;

/// Measures swaps of policies under load.
#[derive(Debug, Clone, Parser)]
#[command(name = "swap", version)]
struct Arguments {
    /// Policies that are swapped in.
    #[arg(long, default_value_t = 1_000)]
    swaps: u64,
    /// Control rate, Hz.
    #[arg(long, default_value_t = 500.0)]
    rate: f64,
    /// Time between two bundles, s; with --stages at least as long as they take.
    #[arg(long, default_value_t = 0.1)]
    every: f64,
    /// The node's own stages of a swap (shadow, blend, probation) instead of none.
    #[arg(long)]
    stages: bool,
    /// What makes the node tick.
    #[arg(long, default_value = "fixed_rate", value_parser = ["fixed_rate", "on_state"])]
    trigger: String,
    /// Real-time priority of the control thread, 1 to 99; 0 is none.
    #[arg(long, default_value_t = 50)]
    realtime_priority: u64,
    /// No trainer learns beside it.
    #[arg(long)]
    idle: bool,
    /// More parameters of the node, as name:=value; may be repeated.
    #[arg(long = "parameter", value_name = "NAME:=VALUE")]
    parameters: Vec<String>,
    /// End with one line of JSON.
    #[arg(long)]
    json: bool,
    /// `cargo bench` says this to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    rig::isolate();
    rig::ended("swap", run(&Arguments::parse()))
}

fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let trainer = Trainer::beside(!arguments.idle, folder.path())?;
    println!("{}", machine());
    println!(
        "12 joints, 128-128 policy, {} Hz {}, priority {}, {}, {}",
        arguments.rate,
        arguments.trigger,
        arguments.realtime_priority,
        if arguments.stages {
            "default stages"
        } else {
            "no stages"
        },
        Trainer::described(trainer.is_some())
    );
    let swapped = measure(arguments, folder.path())?;
    swapped.print();
    if arguments.json {
        let ms = |quantile| 1e-6 * swapped.latency.value_at_quantile(quantile) as f64;
        let line = json!({
            "swaps": swapped.swaps, "missed_ticks": swapped.missed_ticks,
            "publish_to_active_p50_ms": ms(0.5), "publish_to_active_p99_ms": ms(0.99),
            "publish_to_active_max_ms": 1e-6 * swapped.latency.max() as f64,
            "rate_hz": arguments.rate, "trigger": arguments.trigger, "ticks": swapped.records,
            "ticks_node": swapped.account.ticks, "ticks_without_record": swapped.account.without_record,
            "stages": arguments.stages, "blended_ticks": swapped.blended,
            "realtime_priority": arguments.realtime_priority, "trainer": !arguments.idle, "machine": machine(),
        });
        println!("{line}");
    }
    Ok(())
}

struct Swapped {
    swaps: u64,
    missed_ticks: u64,
    latency: Histogram<u64>,
    records: u64,
    /// The records against what the node counts.
    account: Account,
    /// Records of a blend between two policies.
    blended: u64,
    /// What is known of the swaps with missed ticks.
    misses: Vec<String>,
}

impl Swapped {
    fn print(&self) {
        println!("{}", rig::HEAD);
        println!("{}", Figures::of(&self.latency).row("published -> active, us"));
        println!(
            "{} swaps, {} records, each of one known run and version, {} of a blend with the one before; {} missed ticks",
            self.swaps, self.records, self.blended, self.missed_ticks
        );
        println!(
            "{} ticks as the node counts them, {} of them skipped and without a record",
            self.account.ticks, self.account.without_record
        );
        for miss in &self.misses {
            println!("{miss}");
        }
    }
}

fn measure(arguments: &Arguments, folder: &Path) -> anyhow::Result<Swapped> {
    let trigger = if arguments.trigger == "on_state" {
        "on_state"
    } else {
        "fixed_rate"
    };
    let mut parameters = arguments.parameters.clone();
    if !arguments.stages {
        parameters.extend(rig::without_stages());
    }
    let options = NodeOptions {
        namespace: NAMESPACE.into(),
        trigger,
        realtime_priority: arguments.realtime_priority,
        parameters,
    };
    let node = Node::start(folder, &rig::bundle(RUN, 1, arguments.rate)?, &options)?;
    let robot = Robot::start(&[NAMESPACE.into()], arguments.rate);
    let bundles = Bundles::start(RUN, 2, arguments.rate);
    let swapped = std::thread::scope(|scope| {
        let swapping = scope.spawn(|| swap(arguments, &node, bundles));
        swapping.join()
    });
    robot.end()?;
    match swapped {
        Ok(swapped) => swapped,
        Err(_) => bail!("the receiver panicked"),
    }
}

/// What the records said: each is of the policy that acted before, or of one that was published since; a blend is of
/// that one with the policy before.
struct Lineage {
    published: u64,
    acting: u64,
    before: u64,
    first_record: Option<MonoTime>,
    records: u64,
    sequence: Sequence,
    blended: u64,
    wrong: Option<String>,
}

impl Lineage {
    fn take(&mut self, action: &PolicyAction, now: MonoTime) {
        self.records += 1;
        self.sequence.take(action.sequence, action.fallback);
        let is_known = action.run == RUN && (self.acting..=self.published).contains(&action.version);
        if action.version > self.acting {
            self.before = self.acting;
            self.acting = action.version;
            self.first_record = Some(now);
        }
        if !(is_known && self.is_fitting_blend(action)) && self.wrong.is_none() {
            self.wrong = Some(format!(
                "record {} names run '{}' version {}, weight {} against run '{}' version {}; expected run '{RUN}' \
                 version {} to {}, against version {} where the weight is below 1",
                action.sequence,
                action.run,
                action.version,
                action.policy_weight,
                action.previous_run,
                action.previous_version,
                self.acting,
                self.published,
                self.before
            ));
        }
    }

    /// Takes what comes within so many ns.
    fn go_on(&mut self, receiver: &mut Receiver, time: u64) {
        let began = MonoTime::now();
        while MonoTime::now().since(began) < time {
            receiver.pump(Duration::from_millis(10), |_, _| {}, |a, now| self.take(a, now));
        }
    }

    /// The records against the ticks that the node counts, and those that it missed: none may be lost.
    fn account(&self, ticks: u64, missed: u64) -> anyhow::Result<Account> {
        let account = self.sequence.account(ticks, missed);
        ensure!(
            account.lost == 0 && self.sequence.repeated == 0,
            "of {} ticks {} have no record, and the node has missed {missed}; expected a record of each that was not \
             skipped: {} at least were lost, {} came again or too late",
            account.ticks,
            account.without_record,
            account.lost,
            self.sequence.repeated
        );
        Ok(account)
    }

    fn is_fitting_blend(&mut self, action: &PolicyAction) -> bool {
        if action.policy_weight == 1.0 {
            return true;
        }
        self.blended += 1;
        let is_weight = (0.0..1.0).contains(&action.policy_weight);
        is_weight && action.previous_run == RUN && action.previous_version == self.before
    }
}

fn swap(arguments: &Arguments, node: &Node, bundles: Bundles) -> anyhow::Result<Swapped> {
    let mut receiver = Receiver::new(NAMESPACE)?;
    receiver.wait_until_active(1.0)?;
    let sampler = Sampler::start(node.control_thread_schedstat());
    let missed_before = receiver.status.missed_ticks;
    let mut lineage = Lineage {
        published: 1,
        acting: 1,
        before: 0,
        first_record: None,
        records: 0,
        sequence: Sequence::default(),
        blended: 0,
        wrong: None,
    };
    let mut latency = latencies();
    let mut misses = Vec::new();
    let every = (1e9 * arguments.every) as u64;
    for version in 2..=arguments.swaps + 1 {
        let bundle = bundles.next()?;
        let (missed, published) = (receiver.status.missed_ticks, MonoTime::now());
        lineage.published = version;
        receiver.offer(RUN, version, bundle)?;
        let mut is_active = false;
        while !is_active || MonoTime::now().since(published) < every {
            receiver.pump(Duration::from_millis(2), |_, _| {}, |a, now| lineage.take(a, now));
            if let Some(wrong) = &lineage.wrong {
                bail!("{wrong}");
            }
            if !is_active && lineage.acting == version {
                is_active = true;
                let first = lineage.first_record.unwrap_or(published);
                latency.saturating_record(first.since(published));
            }
            ensure!(
                is_active || MonoTime::now().since(published) < PATIENCE,
                "version {version} does not act; the node says: '{}', last refusal: '{}'",
                receiver.status.message,
                receiver.status.last_rejection
            );
        }
        note_misses(
            &mut misses,
            version,
            receiver.status.missed_ticks - missed,
            sampler.since(published.minus(STATUS_EVERY)),
        );
    }
    lineage.go_on(&mut receiver, LAST_STATUS);
    let status = receiver.status.clone();
    lineage.go_on(&mut receiver, LAST_RECORDS);
    if let Some(wrong) = &lineage.wrong {
        bail!("{wrong}");
    }
    ensure!(
        status.swaps == arguments.swaps && status.rejections == 0,
        "the node counts {} swaps and {} rejections; expected {} and 0",
        status.swaps,
        status.rejections,
        arguments.swaps
    );
    let missed_ticks = status.missed_ticks - missed_before;
    Ok(Swapped {
        swaps: status.swaps,
        missed_ticks,
        latency,
        account: lineage.account(status.ticks, missed_ticks)?,
        records: lineage.records,
        blended: lineage.blended,
        misses,
    })
}

/// The status comes twice a second, so that a miss may be told with the swap after it.
fn note_misses(misses: &mut Vec<String>, version: u64, missed: u64, evidence: Evidence) {
    if missed > 0 {
        misses.push(format!(
            "{missed} missed before the status at version {version}: {evidence}"
        ));
    }
}
