//! `bench tick`: joint state published -> command received, over real DDS, with a `control` process of its own.
//!
//! A thread publishes the states of 12 joints at a fixed rate; another one receives `commands` and `policy/action`. A
//! command belongs to the state that its `policy/action` names: the noise of the policy makes every command different,
//! so that the two are matched by value. On-state mode gives the round trip, fixed-rate mode the lateness of the
//! deadlines; each with and without real-time priority.
//!
//! A state that a newer one overhauled before its tick waits until the command that was computed from a newer one, a deadline
//! that was skipped until the command of the next one: the headline has one value for each state, and for each deadline.

use std::cell::RefCell;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::bail;
use clap::Parser;
use hdrhistogram::Histogram;
use mfpo_node::metrics::latencies;
use mfpo_node::time::MonoTime;
use mfpo_ros::r2r::mfpo_msgs::msg::{PolicyAction, PolicyStatus};
use mfpo_ros::time;
use mfpo_tests::rig::{
    self, Answers, Charged, Figures, HEAD, Node, NodeOptions, Receiver, Robot, Trainer, machine, served,
};
use serde_json::{Value, json};

/// The robot publishes for this long before anything is measured, s.
const WARM_UP: f64 = 1.0;
/// How long the node may take to start, s.
const START: f64 = 20.0;
/// The status that counts the last tick comes within this time, ns.
const LAST_STATUS: u64 = 700_000_000;

/// Measures what a tick takes over real DDS.
#[derive(Debug, Clone, Parser)]
#[command(name = "tick", version)]
struct Arguments {
    /// Rates of the joint states, Hz.
    #[arg(long, value_delimiter = ',', default_value = "500,1000")]
    rates: Vec<f64>,
    /// Samples of each rate in on-state mode; at least 30000 for a meaningful p99.9.
    #[arg(long, default_value_t = 30_000)]
    samples: usize,
    /// Samples of each rate in fixed-rate mode; 0 leaves it out.
    #[arg(long, default_value_t = 30_000)]
    fixed_samples: usize,
    /// Real-time priorities of the control thread, 1 to 99; 0 is none.
    #[arg(long, value_delimiter = ',', default_value = "50,0")]
    priorities: Vec<u64>,
    /// No trainer learns beside it.
    #[arg(long)]
    idle: bool,
    /// Another parameter of the node, as NAME:=VALUE; may be given again.
    #[arg(long = "parameter")]
    parameters: Vec<String>,
    /// The headline's rate, Hz; its first priority counts.
    #[arg(long, default_value_t = 500.0)]
    headline: f64,
    /// End with one line of JSON.
    #[arg(long)]
    json: bool,
    /// `cargo bench` says this to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    rig::isolate();
    rig::ended("tick", run(&Arguments::parse()))
}

fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let trainer = Trainer::beside(!arguments.idle, folder.path())?;
    println!("{}", machine());
    println!(
        "12 joints, 128-128 policy, T = 1, {}; us",
        Trainer::described(trainer.is_some())
    );
    println!("{HEAD}  missed");
    let mut results = Vec::new();
    for &rate in &arguments.rates {
        for &realtime_priority in &arguments.priorities {
            for (trigger, samples) in [
                ("on_state", arguments.samples),
                ("fixed_rate", arguments.fixed_samples),
            ] {
                let case = Case {
                    parameters: &arguments.parameters,
                    realtime_priority,
                    rate,
                    trigger,
                    samples,
                };
                if samples > 0 {
                    results.extend(case.measure(folder.path())?.report(&case));
                }
            }
        }
    }
    if arguments.json {
        println!("{}", summary(&results, arguments));
    }
    Ok(())
}

/// One line that a program can read: the headline's case at the top, all cases below.
fn summary(results: &[Value], arguments: &Arguments) -> Value {
    let is_headline = |case: &&Value| {
        case["what"] == "round_trip"
            && (case["rate_hz"].as_f64().unwrap_or(0.0) - arguments.headline).abs() < 1e-9
    };
    let headline = results.iter().find(is_headline).or(results.first());
    let mut line = headline.cloned().unwrap_or_else(|| json!({}));
    line["machine"] = json!(machine());
    line["trainer"] = json!(!arguments.idle);
    line["results"] = json!(results);
    line
}

struct Case<'a> {
    parameters: &'a [String],
    realtime_priority: u64,
    rate: f64,
    trigger: &'static str,
    samples: usize,
}

struct Measured {
    /// Commands and the states that they were computed from.
    answers: Answers,
    /// When the robot published its states.
    states: Vec<MonoTime>,
    compute: Histogram<u64>,
    /// The node's own share of every tick, state taken -> command handed to rmw.
    node: Histogram<u64>,
    /// What of it is not the computation: messages made, and handed to rmw.
    publish: Histogram<u64>,
    /// The same in a program that does nothing else: the rig's robot hands a state to rmw.
    bare: Histogram<u64>,
    /// Number of each deadline, and when its command was with rmw, ns.
    ticks: Vec<(u64, i64)>,
    status: PolicyStatus,
    /// Missed ticks of the start, which are not measured.
    missed_before: u64,
    /// The slowest of the node's own 99th percentiles of a second, s; NaN while it has told none.
    node_p99_worst_second: f64,
}

impl Case<'_> {
    fn measure(&self, folder: &Path) -> anyhow::Result<Measured> {
        let options = NodeOptions {
            namespace: "/bench".into(),
            trigger: self.trigger,
            realtime_priority: self.realtime_priority,
            parameters: self.parameters.to_vec(),
        };
        let bundle = rig::bundle("bench", 1, self.rate)?;
        let _node = Node::start(folder, &bundle, &options)?;
        // Those of before the measurement too, however long it takes to begin: none may be missing.
        let most = ((60.0 + 1e-9 * self.limit() as f64) * self.rate) as usize;
        let robot = Robot::noting(most, &[options.namespace], self.rate);
        // On a thread of its own, which keeps its priority for itself.
        let measured = std::thread::scope(|scope| scope.spawn(|| self.receive()).join());
        let published = robot.end()?;
        match measured {
            Ok(measured) => Ok(Measured {
                bare: published.took,
                states: published.states,
                ..measured?
            }),
            Err(_) => bail!("the receiver panicked"),
        }
    }

    /// What a row is of.
    fn name(&self, what: &str) -> String {
        let priority = match self.realtime_priority {
            0 => "no priority".to_owned(),
            priority => format!("priority {priority}"),
        };
        format!("{} Hz {}, {priority}: {what}", self.rate, self.trigger)
    }

    /// A row for programs.
    fn line(&self, what: &str, figures: &Figures) -> Value {
        let mut line = figures.json();
        let more = json!({
            "what": what, "trigger": self.trigger, "rate_hz": self.rate,
            "realtime_priority": self.realtime_priority,
        });
        merge(&mut line, more);
        line
    }

    /// Everything has to be over by then, ns: the node's start, and three times what the samples take.
    fn limit(&self) -> u64 {
        (1e9 * (START + 3.0 * self.samples as f64 / self.rate)) as u64
    }

    /// Receives until enough commands have been matched to the states they answer.
    fn receive(&self) -> anyhow::Result<Measured> {
        let mut receiver = Receiver::new("/bench")?;
        receiver.wait_until_active(WARM_UP)?;
        let mut measured = Measured::new(&receiver.status);
        let began = MonoTime::now();
        let mut enough_at = None;
        loop {
            let both = RefCell::new(&mut measured);
            receiver.pump(
                Duration::from_millis(10),
                |command, now| both.borrow_mut().answers.command(&command.data, now),
                |action, _| both.borrow_mut().take(action),
            );
            measured.look_at(&receiver.status);
            let now = MonoTime::now();
            let is_enough = measured.answers.count() >= self.samples as u64;
            if is_enough && now.since(*enough_at.get_or_insert(now)) > LAST_STATUS {
                return Ok(measured);
            }
            if now.since(began) > self.limit() {
                bail!(
                    "only {} of {} samples came in time at {} Hz; the node says: '{}'",
                    measured.answers.count(),
                    self.samples,
                    self.rate,
                    receiver.status.message
                );
            }
        }
    }
}

impl Measured {
    fn new(status: &PolicyStatus) -> Self {
        Self {
            answers: Answers::default(),
            states: Vec::new(),
            compute: latencies(),
            node: latencies(),
            publish: latencies(),
            bare: latencies(),
            ticks: Vec::new(),
            missed_before: status.missed_ticks,
            status: status.clone(),
            node_p99_worst_second: f64::NAN,
        }
    }

    fn take(&mut self, action: &PolicyAction) {
        self.node.saturating_record((action.latency * 1e9) as u64);
        self.publish
            .saturating_record(((action.latency - action.compute_time) * 1e9) as u64);
        if action.fallback {
            return;
        }
        let published = MonoTime::from_nanos(time::nanoseconds(&action.state_stamp).unsigned_abs());
        self.answers.record(&action.command, published);
        self.compute.saturating_record((action.compute_time * 1e9) as u64);
        self.ticks
            .push((action.sequence, time::nanoseconds(&action.stamp)));
    }

    /// The node's percentiles change once a second.
    fn look_at(&mut self, status: &PolicyStatus) {
        if status.latency_p99 != self.status.latency_p99 {
            // Of a number and NaN it is the number.
            self.node_p99_worst_second = self.node_p99_worst_second.max(status.latency_p99);
        }
        if status.ticks != self.status.ticks {
            self.status = status.clone();
        }
    }

    /// Deadline -> command with rmw, where the earliest command of all counts as on time: the deadlines are
    /// `first + k * period`, and the record of a tick holds k. Of every deadline, and of those with a command of their own.
    fn lateness(&self, rate: f64) -> (Charged, Histogram<u64>) {
        let mut charged = Charged {
            latency: latencies(),
            without_own: 0,
        };
        let mut own = latencies();
        for deadline in served(&self.ticks, (1e9 / rate).round() as u64) {
            charged.latency.saturating_record(deadline.late);
            if deadline.is_skipped {
                charged.without_own += 1;
            } else {
                own.saturating_record(deadline.late);
            }
        }
        (charged, own)
    }

    /// What the headline is of, each state or deadline, and those with a command of their own.
    fn headline(&self, case: &Case<'_>) -> (&'static str, Charged, Histogram<u64>) {
        if case.trigger == "on_state" {
            let charged = self.answers.of_states(&self.states);
            return ("round_trip", charged, self.answers.of_commands());
        }
        let (charged, own) = self.lateness(case.rate);
        ("lateness", charged, own)
    }

    fn report(&self, case: &Case<'_>) -> Vec<Value> {
        let (what, charged, own) = self.headline(case);
        let headline = Figures::of(&charged.latency);
        println!("{} {:>7}", headline.row(&case.name(what)), self.missed());
        println!("    without a command of their own: {}", charged.without_own);
        let own = Figures::of(&own);
        println!("{}", own.row(&case.name("of own commands")));
        let compute = Figures::of(&self.compute);
        println!("{}", compute.row(&case.name("compute")));
        let node = Figures::of(&self.node);
        let worst = 1e6 * self.node_p99_worst_second;
        println!("{}", node.row(&case.name("state taken -> rmw")));
        let (publish, bare) = (Figures::of(&self.publish), Figures::of(&self.bare));
        println!("{}", publish.row(&case.name("of it handing over")));
        println!("{}", bare.row(&case.name("the rig hands over")));
        println!("    the slowest second's p99 of state taken -> command with rmw: {worst:.1} us");
        let mut line = case.line(what, &headline);
        let more = json!({
            "missed_ticks": self.missed(), "ticks": self.status.ticks, "node_p99_us": node.p99,
            "node_p99_worst_second_us": worst, "unmatched": self.answers.unmatched(),
            "without_own_command": charged.without_own,
        });
        merge(&mut line, more);
        vec![
            line,
            case.line("own_commands", &own),
            case.line("compute", &compute),
            case.line("node", &node),
            case.line("publish", &publish),
            case.line("bare_publish", &bare),
        ]
    }

    fn missed(&self) -> u64 {
        self.status.missed_ticks - self.missed_before
    }
}

fn merge(line: &mut Value, more: Value) {
    if let (Value::Object(line), Value::Object(more)) = (line, more) {
        line.extend(more);
    }
}
