//! `bench large_bundle`: what the control loop feels while a bundle of 50 MB arrives, as one message, as the path of its file,
//! and in parts; over real DDS, with a `control` process of its own and the bundle's sender as another one, of the lowest
//! priority, as a trainer on the same machine would be.
//!
//! A tick's lateness is the time by which its command is behind the earliest of all on the schedule of deadlines; a deadline
//! that was skipped is as late as the command of the next one that was not. Missed
//! ticks are those that the node counts; of which of them the machine's own record tells, and of which it does not, comes
//! from the records of `policy/action`.

use std::ops::Sub;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{bail, ensure};
use clap::Parser;
use hdrhistogram::Histogram;
use mfpo_node::metrics::latencies;
use mfpo_node::time::MonoTime;
use mfpo_policy::bundle;
use mfpo_ros::r2r::mfpo_msgs::msg::PolicyAction;
use mfpo_ros::time;
use mfpo_tests::rig::{
    self, Figures, HEAD, Misses, Node, NodeOptions, Receiver, Robot, Sampler, Sealed, Sender, Trainer, Way,
    machine, served,
};
use serde_json::{Value, json};

const RUN: &str = "bench";
const NAMESPACE: &str = "/bench";
/// The policy has commanded for this long before anything is measured, s.
const WARM_UP: f64 = 3.0;
/// Nothing arrives for this long before the first bundle.
const CALM: Duration = Duration::from_secs(3);
/// What comes so long after a bundle has gone live still counts as its doing.
const AFTERMATH: Duration = Duration::from_millis(500);
/// A bundle that is not live by then has failed, ns.
const PATIENCE: u64 = 60_000_000_000;
/// So many rows of skipped ticks are told for each bundle.
const MOST_HOLES: usize = 3;

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
    /// Real-time priorities of the control thread, 1 to 99; 0 is none.
    #[arg(long, value_delimiter = ',', default_value = "50,0")]
    priorities: Vec<u64>,
    /// How the bundles come.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "message,path,parts")]
    ways: Vec<Way>,
    /// A trainer learns beside it, with nice 19, on every core.
    #[arg(long)]
    trainer: bool,
    /// Another parameter of the node, as NAME:=VALUE; may be given again.
    #[arg(long = "parameter")]
    parameters: Vec<String>,
    /// End with one line of JSON.
    #[arg(long)]
    json: bool,
    /// Be the process that sends the bundles, in this way.
    #[arg(long, hide = true)]
    send: Option<Way>,
    /// `cargo bench` says this to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    rig::isolate();
    let arguments = Arguments::parse();
    let result = match arguments.send {
        Some(way) => rig::send_bundles(NAMESPACE, way),
        None => run(&arguments),
    };
    rig::ended("large_bundle", result)
}

fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let files = Files::seal(folder.path(), arguments)?;
    let trainer = Trainer::beside(arguments.trainer, folder.path())?;
    println!("{}", machine());
    println!(
        "{} bundles of {:.1} MB a way, {} Hz fixed_rate, {}; us",
        arguments.bundles,
        files.size as f64 * 1e-6,
        arguments.rate,
        Trainer::described(trainer.is_some())
    );
    println!("{HEAD}  missed  live, ms    (lateness of ticks)");
    let mut results = Vec::new();
    for &realtime_priority in &arguments.priorities {
        for &way in &arguments.ways {
            let case = Case {
                arguments,
                files: &files,
                way,
                realtime_priority,
            };
            results.extend(case.measure()?.report(&case));
        }
    }
    if arguments.json {
        let line = json!({
            "results": results, "rate_hz": arguments.rate, "megabytes": files.size as f64 * 1e-6,
            "bundles": arguments.bundles, "trainer": arguments.trainer, "machine": machine(),
        });
        println!("{line}");
    }
    Ok(())
}

/// Sealed bundles, versions 0 to the number of bundles.
struct Files {
    folder: PathBuf,
    bundles: Vec<Sealed>,
    size: usize,
}

impl Files {
    fn seal(folder: &Path, arguments: &Arguments) -> anyhow::Result<Self> {
        let mut files = Self {
            folder: folder.to_owned(),
            bundles: Vec::new(),
            size: 0,
        };
        for version in 0..=arguments.bundles {
            let bytes = rig::large_bundle(RUN, version, arguments.rate, 1e6 * arguments.megabytes)?;
            let bundle = Sealed {
                run: RUN.into(),
                version,
                digest: bundle::open(&bytes)?.digest().to_owned(),
                file: folder.join(format!("v{version}.safetensors")),
            };
            files.size = bytes.len();
            std::fs::write(&bundle.file, bytes)?;
            files.bundles.push(bundle);
        }
        Ok(files)
    }
}

struct Case<'a> {
    arguments: &'a Arguments,
    files: &'a Files,
    way: Way,
    realtime_priority: u64,
}

impl Case<'_> {
    fn measure(&self) -> anyhow::Result<Measured> {
        let folder = self.files.folder.as_path();
        let mut parameters = self.arguments.parameters.clone();
        parameters.extend(rig::without_stages());
        let options = NodeOptions {
            namespace: NAMESPACE.into(),
            trigger: "fixed_rate",
            realtime_priority: self.realtime_priority,
            parameters,
        };
        let sender = Sender::start(folder, &["--send", self.way.name()])?;
        let [first, rest @ ..] = self.files.bundles.as_slice() else {
            bail!("no bundle to begin with");
        };
        let node = Node::start(folder, &std::fs::read(&first.file)?, &options)?;
        let robot = Robot::start(&[NAMESPACE.into()], self.arguments.rate);
        // On a thread of its own, which keeps its priority for itself.
        let measured = std::thread::scope(|scope| {
            let watching = scope.spawn(|| Watch::begin(self.arguments.rate, &node)?.measure(rest, sender));
            watching.join()
        });
        robot.end()?;
        match measured {
            Ok(measured) => measured,
            Err(_) => bail!("the receiver panicked"),
        }
    }
}

/// A tick as `policy/action` tells it, and when that arrived.
struct Tick {
    sequence: u64,
    stamp: i64,
    arrived: MonoTime,
    is_fallback: bool,
}

/// Missed ticks.
#[derive(Debug, Clone, Copy, Default)]
struct Missed {
    /// As the node counts them.
    node: u64,
    /// As the records tell them: those of which the machine's own record tells, and others.
    machine: u64,
    ours: u64,
}

impl Sub for Missed {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            node: self.node - before.node,
            machine: self.machine - before.machine,
            ours: self.ours - before.ours,
        }
    }
}

/// A time that is measured: without a bundle, or from the begin of one's sending until a moment after it went live.
struct Span {
    from: MonoTime,
    to: MonoTime,
    missed: Missed,
    /// Until it was live, ms.
    to_live_ms: f64,
}

/// What one way was like.
struct Measured {
    ticks: Vec<Tick>,
    calm: Span,
    busy: Vec<Span>,
    /// What is known of each miss.
    told: Vec<String>,
}

/// Looks on while bundles arrive.
struct Watch {
    receiver: Receiver,
    sampler: Sampler,
    misses: Misses,
    ticks: Vec<Tick>,
    /// Version of the policy in the newest record.
    acting: u64,
}

impl Watch {
    fn begin(rate: f64, node: &Node) -> anyhow::Result<Self> {
        let mut receiver = Receiver::new(NAMESPACE)?;
        receiver.wait_until_active(WARM_UP)?;
        Ok(Self {
            sampler: Sampler::start(node.control_thread_schedstat()),
            misses: Misses::new(rate),
            ticks: Vec::new(),
            acting: 0,
            receiver,
        })
    }

    fn measure(mut self, bundles: &[Sealed], mut sender: Sender) -> anyhow::Result<Measured> {
        // Misses are of times without a gap: the first record only says where they begin.
        self.wait(AFTERMATH);
        let calm = self.span(|watch| {
            watch.wait(CALM);
            Ok(())
        })?;
        let mut busy = Vec::new();
        for bundle in bundles {
            busy.push(self.span(|watch| {
                sender.send(bundle)?;
                watch.until_acts(bundle.version)
            })?);
        }
        Ok(Measured {
            ticks: self.ticks,
            calm,
            busy,
            told: self.misses.in_words(),
        })
    }

    fn span(&mut self, what: impl FnOnce(&mut Self) -> anyhow::Result<()>) -> anyhow::Result<Span> {
        let (from, before) = (MonoTime::now(), self.missed());
        what(self)?;
        let to_live_ms = MonoTime::now().since(from) as f64 * 1e-6;
        self.wait(AFTERMATH);
        Ok(Span {
            from,
            to: MonoTime::now(),
            missed: self.missed() - before,
            to_live_ms,
        })
    }

    fn until_acts(&mut self, version: u64) -> anyhow::Result<()> {
        let began = MonoTime::now();
        while self.acting < version {
            self.receive();
            let status = &self.receiver.status;
            ensure!(
                MonoTime::now().since(began) < PATIENCE,
                "version {version} does not act; the node says: '{}', last refusal: '{}'",
                status.message,
                status.last_rejection
            );
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
        let (ticks, misses, acting) = (&mut self.ticks, &mut self.misses, &mut self.acting);
        let mut take = |action: &PolicyAction, arrived| {
            *acting = action.version;
            if let Some(miss) = misses.of(action, arrived) {
                misses.count(miss);
            }
            ticks.push(Tick {
                sequence: action.sequence,
                stamp: time::nanoseconds(&action.stamp),
                arrived,
                is_fallback: action.fallback,
            });
        };
        self.receiver.pump(Duration::from_millis(5), |_, _| {}, &mut take);
        self.misses.judge(MonoTime::now(), &self.sampler);
    }

    fn missed(&self) -> Missed {
        Missed {
            node: self.receiver.status.missed_ticks,
            machine: self.misses.by_machine,
            ours: self.misses.by_us,
        }
    }
}

impl Measured {
    fn report(&self, case: &Case<'_>) -> Vec<Value> {
        let lateness = self.lateness(case.arguments.rate);
        let lateness_in = |spans: &[Span]| {
            let mut histogram = latencies();
            for (late, arrived) in &lateness {
                if spans.iter().any(|s| (s.from..=s.to).contains(arrived)) {
                    histogram.saturating_record(*late);
                }
            }
            histogram
        };
        let live = self.busy.iter().map(|span| span.to_live_ms).fold(0.0, f64::max);
        let calm = std::slice::from_ref(&self.calm);
        let rows = vec![
            case.row("before", &lateness_in(calm), calm, None),
            case.row(
                "while bundles come",
                &lateness_in(&self.busy),
                &self.busy,
                Some(live),
            ),
        ];
        for (number, span) in self.busy.iter().enumerate() {
            let holes = self.holes(span);
            if !holes.is_empty() {
                println!(
                    "    bundle {}: longest rows of skipped ticks: {}",
                    number + 1,
                    holes.join(", ")
                );
            }
        }
        for miss in &self.told {
            println!("    {miss}");
        }
        rows
    }

    /// Lateness of each deadline, ns, and when the record of the command that served it arrived. What the fallback
    /// commanded served none.
    fn lateness(&self, rate: f64) -> Vec<(u64, MonoTime)> {
        let own: Vec<&Tick> = self.ticks.iter().filter(|tick| !tick.is_fallback).collect();
        let ticks: Vec<_> = own.iter().map(|tick| (tick.sequence, tick.stamp)).collect();
        let all = served(&ticks, (1e9 / rate).round() as u64);
        let arrived = |number: u64| {
            let at = own.partition_point(|tick| tick.sequence < number);
            own.get(at).map(|tick| tick.arrived)
        };
        let deadlines = all.into_iter();
        deadlines
            .filter_map(|deadline| Some((deadline.late, arrived(deadline.number)?)))
            .collect()
    }

    /// The longest rows of ticks that were skipped in a span, and when since its begin.
    fn holes(&self, span: &Span) -> Vec<String> {
        let within = |pair: &&[Tick]| (span.from..=span.to).contains(&pair[1].arrived);
        let hole = |pair: &[Tick]| {
            let skipped = pair[1].sequence.saturating_sub(pair[0].sequence + 1);
            (skipped, pair[1].arrived.since(span.from) as f64 * 1e-6)
        };
        let mut holes: Vec<_> = self.ticks.windows(2).filter(within).map(hole).collect();
        holes.retain(|(skipped, _)| *skipped > 0);
        holes.sort_by_key(|(skipped, _)| std::cmp::Reverse(*skipped));
        holes.truncate(MOST_HOLES);
        let told = |(skipped, at): (u64, f64)| format!("{skipped} at {at:.0} ms");
        holes.into_iter().map(told).collect()
    }
}

impl Case<'_> {
    fn row(&self, when: &str, lateness: &Histogram<u64>, spans: &[Span], live_ms: Option<f64>) -> Value {
        let figures = Figures::of(lateness);
        let sum = |part: fn(&Missed) -> u64| spans.iter().map(|span| part(&span.missed)).sum::<u64>();
        let (node, machine, ours) = (sum(|m| m.node), sum(|m| m.machine), sum(|m| m.ours));
        let way = self.way.name();
        let priority = match self.realtime_priority {
            0 => "no priority".to_owned(),
            priority => format!("priority {priority}"),
        };
        println!(
            "{} {node:>7} {:>9}",
            figures.row(&format!("{way}, {priority}: {when}")),
            live_ms.map_or_else(String::new, |ms| format!("{ms:.0}"))
        );
        if machine + ours > 0 {
            println!("    missed, as the records tell: {machine} the machine's, {ours} ours");
        }
        json!({
            "way": way, "when": when, "realtime_priority": self.realtime_priority, "ticks": figures.samples,
            "p50_us": figures.p50, "p99_us": figures.p99, "p999_us": figures.p999, "max_us": figures.max,
            "missed_ticks": node, "missed_ticks_machine": machine, "missed_ticks_ours": ours,
            "publish_to_active_max_ms": live_ms,
        })
    }
}
