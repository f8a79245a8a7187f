//! `~/probe` against a robot of another process, right and wrong.

use mfpo_policy::spec::CommandInterface;
use mfpo_tests::bundles::{sealed, two_joints};
use mfpo_tests::peer::{Simulated, state};
use mfpo_tests::{Peer, Process, Qos, TestEnv, assert_says, until};
use serde_json::{Value, json};

const MOVE: u8 = 0;
const BY_HAND: u8 = 1;
const KIND: &str = "mfpo_msgs/Probe";
const SERVICE: &str = "/control/probe";

/// A node that waits to be activated, and a robot.
fn start(
    env: &TestEnv,
    interface: CommandInterface,
    robot: &Simulated,
    parameters: &[&str],
) -> (Peer, Process) {
    let policy = env.file("v1", &sealed(&two_joints(interface), 1));
    let mut peer = env.peer("");
    let policy = format!("policy:={}", policy.display());
    let own = [policy.as_str(), "autostart:=false", "probe.seconds:=0.6"];
    let control = env.control(&[&own, parameters].concat());
    let name = match interface {
        CommandInterface::Position => "position",
        CommandInterface::Velocity => "velocity",
        CommandInterface::Effort => "effort",
    };
    peer.simulate(name, robot);
    assert!(peer.change_state("control", "configure"));
    peer.status("every joint reports", |s| {
        let ages = s["joint_ages"].as_array().map(Vec::as_slice).unwrap_or_default();
        ages.len() == 2 && ages.iter().all(Value::is_number)
    });
    (peer, control)
}

fn request(mode: u8) -> Value {
    json!({"mode": mode, "joints": ["elbow", "wrist"]})
}

fn probe(peer: &mut Peer) -> Value {
    peer.begin(SERVICE, KIND, request(MOVE));
    peer.answered()
}

fn findings(answer: &Value) -> [String; 2] {
    assert_eq!(answer["joints"], json!(["elbow", "wrist"]), "{answer:#}");
    [0, 1].map(|i| answer["findings"][i].as_str().expect("a finding").to_owned())
}

#[test]
fn a_right_robot_passes_and_is_left_at_rest_until_an_explicit_start() {
    for interface in [
        CommandInterface::Position,
        CommandInterface::Velocity,
        CommandInterface::Effort,
    ] {
        let env = TestEnv::new();
        let (mut peer, control) = start(&env, interface, &Simulated::RIGHT, &["probe.allowed:=true"]);
        peer.begin(SERVICE, KIND, request(MOVE));
        let status = peer.status("it says what it does", |s| s["state"] == state::PROBING);
        assert_eq!(status["lifecycle"], "inactive");
        let (done, why) = peer.trigger("start");
        assert!(!done);
        assert_says(&why, &["probe is under way"]);
        let answer = peer.answered();
        assert_eq!(
            (&answer["ok"], findings(&answer)),
            (&json!(true), Default::default()),
            "{answer:#}"
        );
        control.says(&["joint 'elbow' is as the policy expects"]);

        peer.status("nothing is commanded any more", |s| s["state"] == state::INACTIVE);
        let records = peer.messages("policy/action", 0);
        let commands = peer.messages("commands", 0);
        assert!(
            commands.len() > 50 && records.len() > 50,
            "{} {}",
            commands.len(),
            records.len()
        );
        assert!(records.iter().all(|r| r["fallback"] == true));
        // Where it began: at 0.
        let last = commands[commands.len() - 1]["data"]
            .as_array()
            .expect("a command")
            .clone();
        assert!(
            last.iter().all(|c| c.as_f64().is_some_and(|c| c.abs() < 5e-3)),
            "{last:?}"
        );
        assert!(peer.trigger("start").0);
        peer.active();
    }
}

#[test]
fn each_fault_is_found_and_names_its_joint() {
    let degrees = 180.0 / std::f64::consts::PI;
    let right = Simulated::RIGHT;
    let swapped = Simulated {
        names: ["wrist", "elbow"],
        ..right
    };
    let flipped = Simulated {
        reads: [-1.0, 1.0],
        ..right
    };
    let in_degrees = Simulated {
        reads: [1.0, degrees],
        ..right
    };
    let dead = Simulated {
        obeys: [0.0, 1.0],
        ..right
    };
    for (interface, robot, elbow, wrist) in [
        (
            CommandInterface::Position,
            swapped,
            "'wrist' moved in its place",
            "'elbow' moved in its place",
        ),
        (
            CommandInterface::Effort,
            swapped,
            "'wrist' moved in its place",
            "'elbow' moved in its place",
        ),
        (CommandInterface::Velocity, flipped, "its sign is flipped", ""),
        (CommandInterface::Effort, flipped, "its sign is flipped", ""),
        (
            CommandInterface::Position,
            in_degrees,
            "",
            "its state is in degrees",
        ),
        (
            CommandInterface::Velocity,
            in_degrees,
            "",
            "its state is in degrees",
        ),
        (CommandInterface::Velocity, dead, "dead", ""),
    ] {
        let env = TestEnv::new();
        let (mut peer, control) = start(&env, interface, &robot, &["probe.allowed:=true"]);
        let answer = probe(&mut peer);
        assert_eq!(answer["ok"], false, "{answer:#}");
        let found = findings(&answer);
        for (found, words) in found.iter().zip([elbow, wrist]) {
            assert!(
                found.contains(words) && found.is_empty() == words.is_empty(),
                "{interface:?} {robot:?}: {answer:#}"
            );
        }
        let named = if elbow.is_empty() {
            "joint 'wrist':"
        } else {
            "joint 'elbow':"
        };
        control.says(&[named]);
    }
}

#[test]
fn joints_that_swap_places_when_told_to_stay_are_told_and_nothing_moves_further() {
    let env = TestEnv::new();
    let robot = Simulated {
        names: ["wrist", "elbow"],
        start: [0.3, -0.4],
        ..Simulated::RIGHT
    };
    let (mut peer, _control) = start(&env, CommandInterface::Position, &robot, &["probe.allowed:=true"]);
    let answer = probe(&mut peer);
    assert_says(
        answer["message"].as_str().unwrap_or_default(),
        &["ended early", "told to stay"],
    );
    assert_says(&findings(&answer)[0], &["'wrist' moved in its place"]);
    let commands = peer.messages("commands", 0);
    assert!(
        commands.windows(2).all(|c| c[0]["data"] == c[1]["data"]),
        "{commands:?}"
    );
}

#[test]
fn by_hand_the_operator_is_asked_for_one_joint_after_the_other_and_nothing_is_commanded() {
    let env = TestEnv::new();
    let robot = Simulated {
        reads: [1.0, -1.0],
        ..Simulated::RIGHT
    };
    let (mut peer, _control) = start(&env, CommandInterface::Position, &robot, &[]);
    peer.begin(SERVICE, KIND, request(BY_HAND));
    for (joint, name) in ["elbow", "wrist"].into_iter().enumerate() {
        peer.status("it asks for the joint", |s| {
            let words = format!("move joint '{name}' by hand");
            s["state"] == state::PROBING && s["message"].as_str().is_some_and(|m| m.contains(&words))
        });
        // Nobody touches the robot for a moment first.
        std::thread::sleep(std::time::Duration::from_millis(800));
        peer.push(joint, 0.3);
    }
    let answer = peer.answered();
    let [elbow, wrist] = findings(&answer);
    assert!(
        elbow.is_empty() && wrist.contains("its sign is flipped"),
        "{answer:#}"
    );
    assert_eq!(peer.count("commands"), 0);
}

#[test]
fn a_stop_ends_a_probe_at_once() {
    let env = TestEnv::new();
    let (mut peer, control) = start(
        &env,
        CommandInterface::Velocity,
        &Simulated::RIGHT,
        &[
            "probe.allowed:=true",
            "probe.seconds:=10.0",
            "probe.amplitude:=0.5",
        ],
    );
    peer.begin(SERVICE, KIND, request(MOVE));
    until("it moves", || {
        let newest = peer.newest("commands")?;
        (newest["data"][1].as_f64()? > 0.02).then_some(())
    });
    assert!(peer.trigger("stop").0);
    let answer = peer.answered();
    assert_says(
        answer["message"].as_str().unwrap_or_default(),
        &["ended early", "stopped by ~/stop"],
    );
    assert_eq!(answer["ok"], false);
    assert_says(&findings(&answer)[1], &["not probed"]);
    peer.status("it is inactive", |s| s["state"] == state::INACTIVE);
    assert_eq!(
        peer.newest("commands").expect("a command")["data"],
        json!([0.0, 0.0])
    );
    control.says(&["the probe ended early"]);
}

#[test]
fn a_probe_is_refused_unless_it_is_allowed_and_the_node_inactive() {
    let env = TestEnv::new();
    let (mut peer, control) = start(&env, CommandInterface::Effort, &Simulated::RIGHT, &[]);
    let refused = |peer: &mut Peer, request: Value, words: &[&str]| {
        let answer = peer.call(SERVICE, KIND, request);
        assert_eq!(answer["ok"], false);
        let message = answer["message"].as_str().unwrap_or_default().to_owned();
        assert_says(&message, &[&["refused"], words].concat());
        assert_eq!(answer["joints"], json!([]));
    };
    refused(&mut peer, request(MOVE), &["probe.allowed is false"]);
    refused(&mut peer, request(7), &["mode is 7", "expected 0"]);
    let allowed = json!({"type": 1, "bool_value": true});
    assert_eq!(
        peer.set_parameter("probe.allowed", allowed),
        (true, String::new())
    );
    let unknown = json!({"mode": MOVE, "joints": ["elbo"]});
    refused(&mut peer, unknown, &["'elbo'", "did you mean 'elbow'"]);
    assert_eq!(peer.count("commands"), 0);
    assert!(peer.trigger("start").0);
    peer.active();
    refused(
        &mut peer,
        request(MOVE),
        &["the node is active", "expected it to be inactive"],
    );
    control.says(&["probe refused"]);
}

#[test]
fn the_simulated_arm_which_gravity_pulls_at_is_as_its_policy_expects() {
    let env = TestEnv::new();
    let robot = mfpo_sim::registry::robot("swing_arm").expect("the robot");
    let spec = robot.spec();
    let policy = env.file("v1", &sealed(spec, 1));
    let mut peer = env.peer("");
    peer.listen("joint_states", "sensor_msgs/JointState", Qos::Sensor);
    // Without a command its motor brakes it: it comes to rest hanging.
    let _robot = env.start("robot", &["--no-wait", "--episode-seconds", "600"]);
    let policy = format!("policy:={}", policy.display());
    let _control = env.control(&[&policy, "autostart:=false", "probe.allowed:=true"]);
    assert!(peer.change_state("control", "configure"));
    let mut at_rest = 0;
    until("the arm hangs still", || {
        let newest = peer.newest("joint_states")?;
        let is_still = newest["velocity"][0].as_f64()?.abs() < 0.01;
        at_rest = if is_still { at_rest + 1 } else { 0 };
        (at_rest > 50).then_some(())
    });
    peer.begin(SERVICE, KIND, json!({"mode": MOVE}));
    let answer = peer.answered();
    assert_eq!(
        (&answer["ok"], &answer["findings"]),
        (&json!(true), &json!([""])),
        "{answer:#}"
    );
    let moved = answer["measured"][0].as_f64().expect("a number");
    assert!((0.01..0.2).contains(&moved), "{answer:#}");
}
