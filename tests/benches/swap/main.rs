//! `bench swap`: policies swapped under load. One after the other goes over DDS to a node that commands a robot at
//! 500 Hz; from the publication to the first record of the new policy is what a swap takes. Every record of `policy/action`
//! must name a run and a version that were published, versions must rise, and every tick must have its record unless the
//! node counts it as missed. The node records all of it, too: its MCAP files must hold the same ticks, each of one policy
//! that was published or of two with a weight, and replay must compute every action again to the last bit. Anything else
//! fails. Ticks that were missed are told, with whose doing they were.

mod recording;
mod swapping;

use std::path::Path;
use std::process::ExitCode;

use anyhow::{bail, ensure};
use clap::Parser;
use hdrhistogram::Histogram;
use mfpo_tests::rig::{
    self, Account, Audit, Figures, Judged, Misses, NewBundle, Node, NodeOptions, Robot, Trainer, machine,
};
use serde_json::{Value, json};

use recording::Recorded;
use swapping::Swapping;

const RUN: &str = "bench";
const NAMESPACE: &str = "/bench";

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
    /// The node records nothing, and nothing is replayed: what recording costs, in turns with a run that records.
    #[arg(long)]
    no_recording: bool,
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
    let is_own = |parameter: &String| parameter.starts_with("record.");
    ensure!(
        arguments.no_recording || !arguments.parameters.iter().any(is_own),
        "parameters of recordings are this benchmark's own; for others: --no-recording"
    );
    let folder = tempfile::tempdir()?;
    let trainer = Trainer::beside(!arguments.idle, folder.path())?;
    println!("{}", machine());
    println!(
        "12 joints, 128-128 policy, {} Hz {}, priority {}, {}, {}, {}",
        arguments.rate,
        arguments.trigger,
        arguments.realtime_priority,
        if arguments.stages {
            "default stages"
        } else {
            "no stages"
        },
        if arguments.no_recording {
            "nothing recorded"
        } else {
            "everything recorded"
        },
        Trainer::described(trainer.is_some())
    );
    let (swapped, recorded) = measure(arguments, folder.path())?;
    swapped.print();
    if let Some(recorded) = &recorded {
        println!("{recorded}");
    }
    if arguments.json {
        println!("{}", swapped.json(arguments, recorded.as_ref()));
    }
    recorded.map_or(Ok(()), |recorded| recorded.check())
}

struct Swapped {
    swaps: u64,
    /// As the node counts them.
    missed_ticks: u64,
    latency: Histogram<u64>,
    records: u64,
    /// The records against what the node counts.
    account: Account,
    /// Records of a blend between two policies.
    blended: u64,
    /// Missed ticks as the records tell them, and whose doing they were.
    misses: Misses,
}

impl Swapped {
    /// Missed ticks for which the machine does not account; what the node counts beyond the records is among them.
    fn missed_ours(&self) -> u64 {
        let not_the_machines = self.missed_ticks.saturating_sub(self.misses.by_machine);
        self.misses.by_us.max(not_the_machines)
    }

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
        let (moments, explained) = self.misses.by_chance;
        println!(
            "missed ticks: {} the machine's, {} ours; of {moments} moments chosen by the clock {explained} would have been \
             called the machine's, too, had a tick been missed there",
            self.misses.by_machine,
            self.missed_ours()
        );
        for miss in self.misses.in_words() {
            println!("  {miss}");
        }
    }

    fn json(&self, arguments: &Arguments, recorded: Option<&Recorded>) -> Value {
        let ms = |quantile| 1e-6 * self.latency.value_at_quantile(quantile) as f64;
        let misses: Vec<_> = self.misses.judged.iter().map(Judged::json).collect();
        json!({
            "swaps": self.swaps, "missed_ticks": self.missed_ticks,
            "missed_ticks_ours": self.missed_ours(), "missed_ticks_machine": self.misses.by_machine,
            "misses": misses, "moments_by_chance": self.misses.by_chance.0,
            "moments_by_chance_machine": self.misses.by_chance.1,
            "publish_to_active_p50_ms": ms(0.5), "publish_to_active_p99_ms": ms(0.99),
            "publish_to_active_max_ms": 1e-6 * self.latency.max() as f64,
            "rate_hz": arguments.rate, "trigger": arguments.trigger, "ticks": self.records,
            "ticks_node": self.account.ticks, "ticks_without_record": self.account.without_record,
            "stages": arguments.stages, "blended_ticks": self.blended,
            "recorded_ticks": recorded.map(|r| r.audited.received),
            "recorded_blended_ticks": recorded.map(|r| r.audited.blended),
            "recording_mb": recorded.map(|r| 1e-6 * r.bytes as f64),
            "replayed_actions": recorded.map(|r| r.actions),
            "replay_identical": recorded.map(Recorded::is_identical),
            "realtime_priority": arguments.realtime_priority, "trainer": !arguments.idle, "machine": machine(),
        })
    }
}

fn measure(arguments: &Arguments, folder: &Path) -> anyhow::Result<(Swapped, Option<Recorded>)> {
    let trigger = if arguments.trigger == "on_state" {
        "on_state"
    } else {
        "fixed_rate"
    };
    let recordings = (!arguments.no_recording).then(|| folder.join("recordings"));
    let mut parameters = arguments.parameters.clone();
    if !arguments.stages {
        parameters.extend(rig::without_stages());
    }
    parameters.extend(recordings.iter().flat_map(|folder| recording::parameters(folder)));
    let options = NodeOptions {
        namespace: NAMESPACE.into(),
        trigger,
        realtime_priority: arguments.realtime_priority,
        parameters,
    };
    let first = NewBundle::seal(RUN, 1, arguments.rate)?;
    let node = Node::start(folder, &first.bytes, &options)?;
    let robot = Robot::start(&[NAMESPACE.into()], arguments.rate);
    // On a thread of its own, which keeps its priority for itself.
    let swapped = std::thread::scope(|scope| {
        let swapping = scope.spawn(|| Swapping::begin(arguments, &node)?.run());
        swapping.join()
    });
    let Ok(swapped) = swapped else {
        bail!("the receiver panicked");
    };
    let (swapped, told) = swapped?;
    // The robot reports until the node has ended: a stop needs states.
    node.end()?;
    robot.end()?;
    let Some(recordings) = recordings else {
        return Ok((swapped, None));
    };
    let mut audit = Audit::new(RUN, 1, first.digest);
    for (version, digest) in told.published {
        audit.published(version, digest);
    }
    for said in told.received {
        audit.received(said);
    }
    Ok((swapped, Some(recording::check(&recordings, audit)?)))
}
