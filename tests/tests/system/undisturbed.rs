//! Services, parameters, the log, bundles that are checked, refused and taken, and goals never delay a tick: all are asked for
//! as fast as somebody can ask, while the policy commands the robot 500 times a second and the node records every tick.
//!
//! How late each deadline was comes from the recording. Where other programs use the machine, too, a tick may be late all the
//! same. So there are quiet turns between the others, in which nobody asks for anything; what is compared is how late ticks
//! are in most turns of a kind. A tick is left out where the kernel's own record accounts for it: the control thread waited for
//! a core, a thread that only sleeps came late, too, or the hypervisor took the time. That a tick which is held up in each turn
//! would be seen is not taken on trust: in turns of their own the control thread is held up by a debugger's means. That quiet
//! turns are no excuse for the others is not, either: they have a bound of their own.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use mfpo_node::replay::replay_with;
use mfpo_node::time::MonoTime;
use mfpo_policy::spec::{CommandInterface, RobotSpec};
use mfpo_ros::time;
use mfpo_tests::bundles::{RUN, digest_of, sealed, sealed_large, two_joints};
use mfpo_tests::peer::{state, states};
use mfpo_tests::rig::{Sampler, Served, Turns, served, without_stages};
use mfpo_tests::{Held, Peer, Process, Qos, TestEnv, assert_says, until};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

const PERIOD: u64 = 2_000_000;
/// Turns of each kind, twice as many quiet ones.
const ROUNDS: u64 = 6;
/// What a turn lasts, or several times that where what it does takes longer: the worst of a longer time is worse.
const SPELL: Duration = Duration::from_millis(800);
/// How long somebody asks in a turn.
const ASKING: Duration = Duration::from_millis(500);
/// What a turn did may show for this long after it.
const AFTERMATH: Duration = Duration::from_millis(100);
/// Ticks of quiet turns that the machine does not account for are no later than this, ms (99 of 100): a control period.
const QUIET: f64 = 1e-6 * PERIOD as f64;
/// The control thread is held up for so long and a little more: at least two ticks are late by milliseconds.
const HOLD: Duration = Duration::from_millis(5);
/// The machine's record is kept for longer than all of this takes.
const KEPT: Duration = Duration::from_secs(120);
/// A deadline that was served no later than this is looked at as it is, ms; the machine's record of any other one is looked at.
const ON_TIME: f64 = 1.0;
/// Bytes that are no bundle, and have to be looked at all the same.
const NOISE: usize = 1 << 20;
/// About the size of a bundle that is taken, bytes, and the version before the first of them.
const LARGE: usize = 10 << 20;
const BEFORE_LARGE: u64 = 10;
/// A part of a bundle that comes in parts, bytes, and the time between two, as the trainer sends them.
const PART: usize = 256 << 10;
const BETWEEN_PARTS: Duration = Duration::from_millis(5);

#[test]
fn services_parameters_logging_bundle_checks_and_goals_delay_no_tick() {
    // It measures time; others would be measured with it.
    let env = TestEnv::alone();
    let spec = RobotSpec {
        control_period_ns: PERIOD,
        ..two_joints(CommandInterface::Effort)
    };
    let files = Files::write(&env, &spec);
    // In namespaces of their own they hear no commands and no records, which would keep a core busy. Whoever asks is a program
    // of its own, so that its requests do not hold up the robot's states.
    let (mut robot, mut operator) = (env.peer("/robot"), env.peer("/operator"));
    let mut control = start(&env, &files, &mut robot);
    let schedstat = until("the control thread runs", || control.schedstat("control_loop"));
    let sampler = Sampler::keeping(KEPT, Some(schedstat));
    sleep(SPELL);

    let mut turns = Vec::new();
    let mut requests = 0;
    for round in 1..=ROUNDS {
        turns.push(Turn::of(Kind::Quiet, || ()));
        turns.push(Turn::of(Kind::Asked, || {
            requests += files.ask_for(ASKING, &mut operator)
        }));
        let [loaded, sent] = files.large_of(round);
        turns.push(Turn::of(Kind::Loaded, || loaded.load(&mut operator, &robot)));
        turns.push(Turn::of(Kind::Quiet, || ()));
        turns.push(Turn::of(Kind::Sent, || sent.send(&mut operator, &robot)));
        turns.push(Turn::of(Kind::Held, || hold_up(&control)));
    }
    let status = robot.newest("/policy/status").unwrap_or_default();
    assert_eq!(status["swaps"], 2 * ROUNDS, "{status:#}");
    assert!(status["rejections"].as_u64() >= Some(2), "{status:#}");
    // All this has been told of, too.
    control.says(&["probe refused"]);
    control.says(&["bundle refused"]);
    control.says(&["parameter stale_timeout is now"]);
    control.signal(Signal::SIGTERM);
    assert_eq!(control.ended().code(), Some(0));

    println!(
        "{requests} requests answered, {} bundles of {LARGE} bytes taken",
        2 * ROUNDS
    );
    judge(&turns, &recorded(&env.path("recordings")), &sampler);
}

/// The node, commanding a robot whose states come 100 times a second.
fn start(env: &TestEnv, files: &Files, robot: &mut Peer) -> Process {
    let mut parameters = without_stages();
    parameters.extend([
        format!("policy:={}", files.policy.display()),
        format!("record.folder:={}", env.path("recordings").display()),
        // Where the priority is not permitted it goes on without.
        "realtime_priority:=50".into(),
    ]);
    let parameters: Vec<&str> = parameters.iter().map(String::as_str).collect();
    let control = env.control(&parameters);
    robot.listen("/policy/status", "mfpo_msgs/PolicyStatus", Qos::Latched);
    let at_rest = states(&["elbow", "wrist"], &[0.1, 0.2], &[0.0, 0.0]);
    let topic = ("/joint_states", "sensor_msgs/JointState", Qos::Sensor);
    robot.repeat_as("robot", topic, &at_rest);
    status(robot, "the policy commands the robot", |s| {
        s["state"] == state::ACTIVE
    });
    control
}

/// Waits until the newest status is as `law` asks.
fn status(robot: &Peer, what: &str, law: impl Fn(&Value) -> bool) -> Value {
    until(what, || {
        robot.newest("/policy/status").filter(|status| law(status))
    })
}

/// What is done in a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Nothing.
    Quiet,
    /// Everything is asked for, and bundles are refused.
    Asked,
    /// A large bundle is read from its file, checked, taken, and goes live.
    Loaded,
    /// The same of one that comes over DDS in parts.
    Sent,
    /// The control thread is held up once.
    Held,
}

/// Some time in which one thing was done: [`SPELL`], or several times that.
struct Turn {
    kind: Kind,
    from: MonoTime,
    to: MonoTime,
}

impl Turn {
    fn of(kind: Kind, what: impl FnOnce()) -> Self {
        let from = MonoTime::now();
        what();
        sleep(AFTERMATH);
        let spells = MonoTime::now().since(from).div_ceil(nanoseconds(SPELL));
        let to = from.plus(spells * nanoseconds(SPELL));
        to.sleep_until();
        Self { kind, from, to }
    }

    /// The parts of it that last [`SPELL`].
    fn spells(&self) -> impl Iterator<Item = Range<MonoTime>> {
        let spell = nanoseconds(SPELL);
        let from = self.from;
        (0..self.to.since(from) / spell)
            .map(move |number| from.plus(number * spell)..from.plus((number + 1) * spell))
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Holds the control thread up, as a lock would for which it waits.
fn hold_up(control: &Process) {
    sleep(SPELL / 2);
    let held = Held::thread(control, "control_loop");
    sleep(HOLD);
    drop(held);
}

/// Every deadline of the recordings in a folder.
fn recorded(folder: &Path) -> Vec<Served> {
    let entries = std::fs::read_dir(folder).expect("recordings");
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("a file").path()).collect();
    files.sort();
    let mut ticks = Vec::new();
    for file in files {
        let report = replay_with(&file, &mut |tick| {
            // A stop's ticks are none of the schedule, and what the fallback commanded came too late for the policy.
            if tick.fallback == 0 {
                ticks.push((tick.sequence, tick.stamp.nanoseconds()));
            }
        });
        let report = report.unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        assert!(report.is_identical(), "{report:?}");
    }
    served(&ticks, PERIOD)
}

/// Ticks are no later where something is asked for than where nothing is, and those of a thread that is held up are.
fn judge(turns: &[Turn], deadlines: &[Served], sampler: &Sampler) {
    let of = |kind: Kind| {
        let mut turns_of_this = Turns::default();
        let mut left_out = 0;
        for spell in turns
            .iter()
            .filter(|turn| turn.kind == kind)
            .flat_map(Turn::spells)
        {
            let late = lateness(&spell, deadlines, sampler);
            left_out += late.iter().filter(|late| late.is_none()).count();
            turns_of_this.take(&late.into_iter().flatten().collect::<Vec<_>>());
        }
        println!("{kind:?}: {turns_of_this}; left out for the machine's sake: {left_out}");
        turns_of_this
    };
    let quiet = of(Kind::Quiet);
    assert!(quiet.count() > 1_000, "{quiet}");
    assert!(
        quiet.p99() <= QUIET,
        "ticks are late where nothing is asked for: {quiet}; expected {QUIET} ms at most (p99)"
    );
    for kind in [Kind::Asked, Kind::Loaded, Kind::Sent] {
        let these = of(kind);
        assert!(these.count() > 1_000, "{kind:?}: {these}");
        assert!(
            !these.are_worse_than(&quiet),
            "{kind:?}: ticks are delayed: {these}; expected about what they are in quiet turns: {quiet}"
        );
    }
    let held = of(Kind::Held);
    assert!(
        held.are_worse_than(&quiet),
        "a control thread that is held up in each turn is not seen: {held}; quiet turns: {quiet}"
    );
}

/// How late each deadline of this time was served, ms; `None` where the machine accounts for it.
fn lateness(spell: &Range<MonoTime>, deadlines: &[Served], sampler: &Sampler) -> Vec<Option<f64>> {
    let behind = time::system_nanoseconds() - MonoTime::now().nanos().cast_signed();
    let at = |stamp: i64| MonoTime::from_nanos((stamp - behind).unsigned_abs());
    let of_this = deadlines.iter().filter_map(|deadline| {
        let served = at(deadline.stamp);
        let due = served.minus(deadline.late);
        spell.contains(&due).then(|| {
            let late = 1e-6 * deadline.late as f64;
            let is_excused = late > ON_TIME && sampler.between(due, served).explains(late);
            (!is_excused).then_some(late)
        })
    });
    of_this.collect()
}

/// Policies, and files that are none for this robot.
struct Files {
    policy: PathBuf,
    /// Newer ones that are valid: two for each round.
    large: Vec<Large>,
    half: PathBuf,
    noise: PathBuf,
    other_robot: PathBuf,
    nowhere: PathBuf,
}

impl Files {
    fn write(env: &TestEnv, spec: &RobotSpec) -> Self {
        let other_robot = RobotSpec {
            robot: "three_joints".into(),
            ..spec.clone()
        };
        let large = |number: u64| {
            let is_sent = number.is_multiple_of(2);
            let part = if is_sent { PART } else { usize::MAX };
            Large::write(env, spec, BEFORE_LARGE + number, part)
        };
        Self {
            policy: env.file("v1", &sealed(spec, 1)),
            large: (1..=2 * ROUNDS).map(large).collect(),
            half: env.file("half", &sealed(spec, 2)[..2000]),
            noise: env.file("noise", &vec![0x5a; NOISE]),
            other_robot: env.file("other", &sealed(&other_robot, 99)),
            nowhere: env.path("nowhere"),
        }
    }

    /// The large bundles of a round: one that is loaded, one that is sent in parts.
    fn large_of(&self, round: u64) -> [&Large; 2] {
        let first = 2 * round as usize - 2;
        [&self.large[first], &self.large[first + 1]]
    }

    /// Asks for everything again and again; how many requests were answered, each as it should be.
    fn ask_for(&self, spell: Duration, operator: &mut Peer) -> usize {
        let began = Instant::now();
        let mut answered = 0;
        while began.elapsed() < spell {
            self.offer_and_load(operator);
            ask(operator);
            answered += 9;
        }
        answered
    }

    /// Three bundles and a goal by topics, where nobody answers, and four by the service, which does.
    fn offer_and_load(&self, operator: &mut Peer) {
        for file in [&self.half, &self.noise, &self.other_robot] {
            operator.offer_to("/policy/bundle", file);
        }
        let goal = json!({"header": {"frame_id": "map"}, "point": {"x": 1.0, "y": 2.0, "z": 3.0}});
        operator.publish("/goal", "geometry_msgs/PointStamped", Qos::Reliable, goal);
        let refused = |operator: &mut Peer, file: &Path, words: &[&str]| {
            let (accepted, reason) = operator.load(file);
            assert!(!accepted, "{}", file.display());
            assert_says(&reason, words);
        };
        refused(operator, &self.nowhere, &["cannot read", "nowhere"]);
        refused(operator, &self.half, &["safetensors"]);
        refused(operator, &self.noise, &["safetensors"]);
        refused(operator, &self.other_robot, &["three_joints"]);
    }
}

/// Five more, of the other services.
fn ask(operator: &mut Peer) {
    let request = json!({"mode": 0, "joints": ["elbow"]});
    let answer = operator.call("/control/probe", "mfpo_msgs/Probe", request);
    assert_eq!(answer["ok"], false);
    assert_says(answer["message"].as_str().unwrap_or_default(), &["refused"]);

    // Which is far more than the robot's states are ever old here.
    let double = |value: f64| json!({"type": 3, "double_value": value});
    let (done, reason) = operator.set_parameter("stale_timeout", double(1.5));
    assert!(done, "{reason}");
    let (done, reason) = operator.set_parameter("stale_timeout", double(-1.0));
    assert!(!done);
    assert_says(&reason, &["above 0", "got -1"]);
    let names = json!({"names": ["stale_timeout", "no_such_parameter"]});
    let answer = operator.call("/control/get_parameters", "rcl_interfaces/GetParameters", names);
    assert_eq!(answer["values"][0]["double_value"], 1.5);
    assert_eq!(answer["values"][1]["type"], 0, "not set");
    assert_eq!(operator.lifecycle("control"), "active");
}

/// A bundle that is valid and large.
struct Large {
    version: u64,
    digest: String,
    size: usize,
    /// Whole or in parts, each a file.
    parts: Vec<PathBuf>,
}

impl Large {
    fn write(env: &TestEnv, spec: &RobotSpec, version: u64, part: usize) -> Self {
        let bundle = sealed_large(spec, version, LARGE);
        let parts = bundle.chunks(part).enumerate();
        let file = |(index, part): (usize, &[u8])| env.file(&format!("large{version}-{index}"), part);
        Self {
            version,
            digest: digest_of(&bundle),
            size: bundle.len(),
            parts: parts.map(file).collect(),
        }
    }

    /// Has it loaded, and waits until it is live.
    fn load(&self, operator: &mut Peer, robot: &Peer) {
        let (accepted, reason) = operator.load(&self.parts[0]);
        assert!(accepted, "{}: {reason}", self.parts[0].display());
        self.is_live(robot);
    }

    /// Sends it in parts, and waits until it is live.
    fn send(&self, operator: &mut Peer, robot: &Peer) {
        for (index, part) in self.parts.iter().enumerate() {
            let message = json!({"stamp": "now", "run": RUN, "version": self.version, "digest": self.digest,
                "size": self.size, "index": index, "count": self.parts.len(), "data": {"file": part}});
            let topic = "/policy/bundle_chunk";
            operator.publish(topic, "mfpo_msgs/PolicyBundleChunk", Qos::Latched, message);
            sleep(BETWEEN_PARTS);
        }
        self.is_live(robot);
    }

    fn is_live(&self, robot: &Peer) {
        status(robot, "the large bundle is live", |s| {
            s["version"] == self.version
        });
    }
}
