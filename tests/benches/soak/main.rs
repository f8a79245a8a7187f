//! `bench soak`: minutes of control with a swap every second and a fault every other second. The node's memory must
//! stay where it is, every command must be explained by a record, and no tick may be missed but those that an injected
//! fault takes from the policy, or the machine, of which there must be evidence; anything else fails.

mod faults;
mod ledger;

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{bail, ensure};
use clap::Parser;
use mfpo_node::time::MonoTime;
use mfpo_tests::rig::{self, Bundles, Judged, Node, NodeOptions, Receiver, Robot, Sampler, Trainer, machine};
use serde_json::json;

use faults::Faults;
use ledger::Ledger;

const RUN: &str = "bench";
const NAMESPACE: &str = "/bench";
const SECOND: u64 = 1_000_000_000;
/// After the last fault, until everything has arrived, ns.
const LAST: u64 = 2 * SECOND;
/// By how much the node's memory may grow, percent.
const MOST_GROWTH: f64 = 1.0;

/// Runs a node for a long time under swaps and faults.
#[derive(Debug, Clone, Parser)]
#[command(name = "soak", version)]
struct Arguments {
    /// How long, s; the second tenth, to which memory is compared, has to be past the node's start.
    #[arg(long, default_value_t = 600.0)]
    seconds: f64,
    /// Control rate, Hz.
    #[arg(long, default_value_t = 500.0)]
    rate: f64,
    /// Real-time priority of the control thread, 1 to 99; 0 is none.
    #[arg(long, default_value_t = 50)]
    realtime_priority: u64,
    /// No trainer learns beside it.
    #[arg(long)]
    idle: bool,
    /// End with one line of JSON.
    #[arg(long)]
    json: bool,
    /// `cargo bench` says this to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    rig::isolate();
    rig::ended("soak", run(&Arguments::parse()))
}

fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let trainer = Trainer::beside(!arguments.idle, folder.path())?;
    println!("{}", machine());
    println!(
        "12 joints, 128-128 policy, {} Hz fixed_rate, priority {}, {} s, a swap every second, a fault every other \
         second; {}",
        arguments.rate,
        arguments.realtime_priority,
        arguments.seconds,
        Trainer::described(trainer.is_some())
    );
    let soaked = soak(arguments, folder.path())?;
    soaked.print();
    if arguments.json {
        println!("{}", soaked.json(arguments));
    }
    soaked.check()
}

struct Soaked {
    seconds: f64,
    ledger: Ledger,
    faults: Faults,
    ticks: u64,
    node_counts: u64,
    swaps: u64,
    /// Resident memory once a second, bytes.
    resident: Vec<f64>,
}

impl Soaked {
    /// The median of the last tenth over that of the second tenth, percent: the first one fills caches.
    fn growth_percent(&self) -> f64 {
        let tenth = (self.resident.len() / 10).max(1);
        let median = |values: &[f64]| {
            let mut sorted = values.to_vec();
            sorted.sort_by(f64::total_cmp);
            sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
        };
        let early = self.resident.get(tenth..2 * tenth).unwrap_or_default();
        let late = self
            .resident
            .get(self.resident.len() - tenth..)
            .unwrap_or_default();
        100.0 * (median(late) / median(early) - 1.0)
    }

    fn print(&self) {
        let ledger = &self.ledger;
        println!(
            "{} ticks, {} swaps, {}",
            self.ticks,
            self.swaps,
            self.faults.counts()
        );
        println!(
            "missed ticks: {} within injected faults, {} outside: {} the machine's, {} ours; the node counts {}",
            ledger.missed_within,
            ledger.missed_outside(),
            ledger.misses.by_machine,
            ledger.misses.by_us,
            self.node_counts
        );
        let (moments, explained) = ledger.misses.by_chance;
        println!(
            "of {moments} moments chosen by the clock {explained} would have been called the machine's, too, had a tick been \
             missed there"
        );
        for miss in ledger.misses.in_words() {
            println!("  {miss}");
        }
        println!(
            "{} commands, {} without a record; resident memory {:.1} MB, grown by {:.2} %",
            ledger.pairing.commands,
            ledger.pairing.unexplained,
            1e-6 * self.resident.last().copied().unwrap_or(f64::NAN),
            self.growth_percent()
        );
    }

    /// What must not have been, all of it.
    fn check(&self) -> anyhow::Result<()> {
        let (ledger, growth) = (&self.ledger, self.growth_percent());
        let mut wrong = Vec::new();
        if ledger.pairing.commands == 0 {
            wrong.push("no command has come; expected one a tick".to_owned());
        }
        if ledger.pairing.unexplained > 0 {
            let commands = ledger.pairing.unexplained;
            wrong.push(format!(
                "{commands} commands have no record; expected one of each"
            ));
        }
        if ledger.misses.by_us > 0 {
            let ticks = ledger.misses.by_us;
            wrong.push(format!(
                "{ticks} ticks were missed of which no evidence says that the machine did it (above: 'ours'); expected none"
            ));
        }
        // What is no number is not known to be small: a run too short to compare, or a node that has ended.
        if growth.is_nan() || growth > MOST_GROWTH {
            wrong.push(format!(
                "the node's memory has grown by {growth:.2} %; expected {MOST_GROWTH} % at most"
            ));
        }
        ensure!(wrong.is_empty(), "{}", wrong.join("; "));
        Ok(())
    }

    fn json(&self, arguments: &Arguments) -> serde_json::Value {
        let misses: Vec<_> = self.ledger.misses.judged.iter().map(Judged::json).collect();
        json!({
            "seconds": self.seconds, "ticks": self.ticks, "missed_ticks": self.ledger.missed_outside(),
            "missed_ticks_ours": self.ledger.misses.by_us, "missed_ticks_machine": self.ledger.misses.by_machine,
            "misses": misses, "moments_by_chance": self.ledger.misses.by_chance.0,
            "moments_by_chance_machine": self.ledger.misses.by_chance.1,
            "missed_ticks_in_faults": self.ledger.missed_within, "missed_ticks_node": self.node_counts,
            "faults": self.faults.count(), "swaps": self.swaps, "rss_growth_percent": self.growth_percent(),
            "commands": self.ledger.pairing.commands, "unexplained_commands": self.ledger.pairing.unexplained,
            "rate_hz": arguments.rate, "realtime_priority": arguments.realtime_priority,
            "trainer": !arguments.idle, "machine": machine(),
        })
    }
}

fn soak(arguments: &Arguments, folder: &Path) -> anyhow::Result<Soaked> {
    let options = NodeOptions {
        namespace: NAMESPACE.into(),
        trigger: "fixed_rate",
        realtime_priority: arguments.realtime_priority,
        parameters: rig::without_stages(),
    };
    let node = Node::start(folder, &rig::bundle(RUN, 1, arguments.rate)?, &options)?;
    let robot = Robot::start(&[NAMESPACE.into()], arguments.rate);
    let bundles = Bundles::start(RUN, 2, arguments.rate);
    let soaked = std::thread::scope(|scope| {
        let soaking = scope.spawn(|| Soak::new(arguments, (&node, &robot), bundles)?.run());
        soaking.join()
    });
    robot.end()?;
    match soaked {
        Ok(soaked) => soaked,
        Err(_) => bail!("the receiver panicked"),
    }
}

/// What is under way.
struct Soak<'a> {
    arguments: &'a Arguments,
    node: &'a Node,
    robot: &'a Robot,
    receiver: Receiver,
    sampler: Sampler,
    ledger: Ledger,
    faults: Faults,
    bundles: Bundles,
    version: u64,
    /// The bundle that was sent last, and the one before.
    sent: [Vec<u8>; 2],
    resident: Vec<f64>,
}

impl<'a> Soak<'a> {
    fn new(
        arguments: &'a Arguments,
        (node, robot): (&'a Node, &'a Robot),
        bundles: Bundles,
    ) -> anyhow::Result<Self> {
        let mut receiver = Receiver::new(NAMESPACE)?;
        let faults = Faults::new(&mut receiver.node)?;
        receiver.wait_until_active(1.0)?;
        Ok(Self {
            sampler: Sampler::start(node.control_thread_schedstat()),
            ledger: Ledger::new(arguments.rate),
            arguments,
            node,
            robot,
            receiver,
            faults,
            bundles,
            version: 1,
            sent: [Vec::new(), Vec::new()],
            resident: Vec::new(),
        })
    }

    fn run(mut self) -> anyhow::Result<Soaked> {
        let before = self.receiver.status.clone();
        let began = MonoTime::now();
        let end = began.plus((1e9 * self.arguments.seconds) as u64);
        // Swaps at whole seconds, faults half a second after every other one.
        let (mut next_swap, mut next_fault) = (began, began.plus(SECOND / 2));
        while MonoTime::now() < end {
            self.pump()?;
            let now = MonoTime::now();
            if now >= next_swap {
                next_swap = next_swap.plus(SECOND);
                self.swap()?;
                self.resident.push(self.node.resident());
            }
            if now >= next_fault && end.since(now) > 2 * SECOND {
                next_fault = next_fault.plus(2 * SECOND);
                self.faults.begin(now, &self.sent, (&self.receiver, self.robot))?;
            }
        }
        let ended = MonoTime::now();
        while MonoTime::now().since(ended) < LAST {
            self.pump()?;
        }
        self.conclude(&before, ended.since(began))
    }

    fn pump(&mut self) -> anyhow::Result<()> {
        let ledger = std::cell::RefCell::new(&mut self.ledger);
        let faults = &self.faults;
        self.receiver.pump(
            Duration::from_millis(2),
            |command, now| ledger.borrow_mut().command(&command.data, now),
            |action, now| {
                ledger.borrow_mut().record(action, now, faults.may_miss(now));
            },
        );
        let now = MonoTime::now();
        self.ledger.judge(now, &self.sampler);
        self.faults.go_on(now, self.robot)
    }

    fn swap(&mut self) -> anyhow::Result<()> {
        self.version += 1;
        self.ledger.published(self.version);
        let bundle = self.bundles.next()?.bytes;
        self.sent.swap(0, 1);
        self.sent[0].clone_from(&bundle);
        Ok(self.receiver.offer(RUN, self.version, bundle)?)
    }

    fn conclude(
        self,
        before: &mfpo_ros::r2r::mfpo_msgs::msg::PolicyStatus,
        nanoseconds: u64,
    ) -> anyhow::Result<Soaked> {
        let status = &self.receiver.status;
        if let Some(wrong) = self.ledger.wrong() {
            bail!("{wrong}");
        }
        ensure!(
            status.rejections == self.faults.bad_bundles(),
            "the node refused {} bundles; expected {}: {}",
            status.rejections,
            self.faults.bad_bundles(),
            status.last_rejection
        );
        ensure!(
            status.swaps == self.version - 1,
            "the node swapped {} times; expected {}",
            status.swaps,
            self.version - 1
        );
        Ok(Soaked {
            seconds: nanoseconds as f64 * 1e-9,
            ticks: status.ticks - before.ticks,
            node_counts: status.missed_ticks - before.missed_ticks,
            swaps: status.swaps,
            ledger: self.ledger,
            faults: self.faults,
            resident: self.resident,
        })
    }
}
