//! Services, parameters, the log, bundles that are checked and refused, and goals never delay a tick: all are asked for as fast
//! as somebody can ask, while the policy commands the robot 100 times a second.
//!
//! Where other programs use the machine, too, a tick may be late all the same. As in the soak, a miss is the machine's where the
//! kernel's own record accounts for it: the control thread waited for a core, a thread that only sleeps came late, too, or
//! the hypervisor took the time. Every other miss is the node's.

use std::path::{Path, PathBuf};
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

use mfpo_node::time::MonoTime;
use mfpo_policy::spec::{CommandInterface, RobotSpec};
use mfpo_ros::r2r::mfpo_msgs::msg::PolicyAction;
use mfpo_ros::time;
use mfpo_tests::bundles::{sealed, two_joints};
use mfpo_tests::rig::{Misses, Sampler};
use mfpo_tests::{Peer, Qos, TestEnv, assert_says, until};
use serde_json::{Value, json};

const RATE: f64 = 100.0;
/// How long nobody asks for anything, and how long somebody does.
const CALM: Duration = Duration::from_secs(2);
const FLOOD: Duration = Duration::from_secs(3);
/// How often the records are looked at.
const LOOK: Duration = Duration::from_millis(10);
/// After so long the last records have arrived, and what the machine did is noted.
const SETTLED: Duration = Duration::from_millis(200);
/// Ticks of the flood that may be late beyond those of the calm before it, without any evidence: a core that was halted between
/// two samples. A service that holds the control thread up does so at each of the requests, dozens.
const MOST: u64 = 2;
/// Bytes that are no bundle, and have to be looked at all the same.
const NOISE: usize = 1 << 20;

#[test]
fn services_parameters_logging_bundle_checks_and_goals_delay_no_tick() {
    // It measures time; others would be measured with it.
    let env = TestEnv::alone();
    let spec = RobotSpec {
        control_period_ns: (1e9 / RATE) as u64,
        ..two_joints(CommandInterface::Effort)
    };
    let policy = env.file("v1", &sealed(&spec, 1));
    let other_robot = RobotSpec {
        robot: "three_joints".into(),
        ..spec.clone()
    };
    let bad = Bad {
        half: env.file("half", &sealed(&spec, 2)[..2000]),
        noise: env.file("noise", &vec![0x5a; NOISE]),
        other_robot: env.file("other", &sealed(&other_robot, 3)),
        nowhere: env.path("nowhere"),
    };
    // Whoever asks is a program of its own, so that its requests hold up neither the robot's states nor what it records.
    let (mut peer, mut operator) = (env.peer(""), env.peer("/operator"));
    // Where the priority is not permitted it goes on without.
    let control = env.control(&[&format!("policy:={}", policy.display()), "realtime_priority:=50"]);
    peer.report_both_joints();
    peer.active();
    let schedstat = until("the control thread runs", || control.schedstat("control_loop"));
    let sampler = Sampler::start(Some(schedstat));

    let began = Instant::now();
    let calm = Spell::watch(&peer, &sampler, || began.elapsed() < CALM);
    let (flood, requests) = scope(|scope| {
        let asking = scope.spawn(|| bad.ask_for(FLOOD, &mut operator));
        let flood = Spell::watch(&peer, &sampler, || !asking.is_finished());
        (flood, asking.join().expect("whoever asks"))
    });

    println!(
        "{requests} requests answered; {} ticks missed, {} before",
        flood.counted, calm.counted
    );
    assert!(
        flood.ours() <= calm.ours() + MOST,
        "{requests} requests have delayed {} ticks, expected {MOST} at most beside the {} of the calm before:\n{}",
        flood.ours(),
        calm.ours(),
        flood.misses.in_words().join("\n")
    );
    let status = peer.active();
    assert_eq!((&status["version"], &status["swaps"]), (&json!(1), &json!(0)));
    assert!(status["rejections"].as_u64() >= Some(2), "{status:#}");
    // All this has been told of, too.
    control.says(&["probe refused"]);
    control.says(&["bundle refused"]);
    control.says(&["parameter stale_timeout is now"]);
}

/// The ticks of some time.
struct Spell {
    /// Those that were missed, as the records tell.
    misses: Misses,
    /// The same by the node's own count.
    counted: u64,
}

impl Spell {
    /// Looks on while it goes on.
    fn watch(peer: &Peer, sampler: &Sampler, goes_on: impl Fn() -> bool) -> Self {
        let before = missed(peer);
        let mut seen = peer.count("policy/action");
        let mut misses = Misses::new(RATE);
        let mut is_over = false;
        while !is_over {
            is_over = !goes_on();
            sleep(if is_over { SETTLED } else { LOOK });
            for record in peer.messages("policy/action", seen) {
                seen += 1;
                let action = action(&record);
                let at = handed_over(&action);
                if let Some(miss) = misses.of(&action, at) {
                    misses.count(miss);
                }
            }
            misses.judge(MonoTime::now(), sampler);
        }
        Self {
            misses,
            counted: missed(peer) - before,
        }
    }

    /// Ticks that were missed and for which the machine does not account. A record may be lost on its way to a peer that is
    /// held up, which then looks as if its tick had been left out: the node's own count tells.
    fn ours(&self) -> u64 {
        let of_count = self.counted.saturating_sub(self.misses.by_machine);
        self.misses.by_us.min(of_count)
    }
}

/// What the node counts so far; of a status that was made after this was called.
fn missed(peer: &Peer) -> u64 {
    // The first one may have been under way.
    let newest = peer.next("policy/status", 2).pop().unwrap_or_default();
    newest["missed_ticks"].as_u64().expect("a number")
}

/// What the look at the ticks needs of a record.
fn action(record: &Value) -> PolicyAction {
    let number = |name: &str| record["stamp"][name].as_i64().expect("a number");
    PolicyAction {
        stamp: time::stamp(1_000_000_000 * number("sec") + number("nanosec")),
        sequence: record["sequence"].as_u64().expect("a number"),
        fallback: record["fallback"] == true,
        ..PolicyAction::default()
    }
}

/// When a command was handed to the middleware. Its record comes later, by way of another program: the machine's record is
/// looked at from the command on, not from the arrival.
fn handed_over(action: &PolicyAction) -> MonoTime {
    let ago = time::system_nanoseconds() - time::nanoseconds(&action.stamp);
    MonoTime::now().shifted(-ago)
}

/// Files that are no policy for this robot.
struct Bad {
    half: PathBuf,
    noise: PathBuf,
    other_robot: PathBuf,
    nowhere: PathBuf,
}

impl Bad {
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
