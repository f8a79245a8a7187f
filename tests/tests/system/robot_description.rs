//! The limits of a real publisher's `robot_description` hold on the commands that arrive.

use mfpo_policy::spec::CommandInterface;
use mfpo_tests::bundles::{sealed, two_joints};
use mfpo_tests::peer::state;
use mfpo_tests::{Peer, Process, Qos, TestEnv, assert_says};
use serde_json::{Value, json};

/// A robot with velocity commands, which version 1 commands as soon as it may.
fn start(env: &TestEnv, parameters: &[&str]) -> (Peer, Process) {
    let policy = env.file("v1", &sealed(&two_joints(CommandInterface::Velocity), 1));
    let mut peer = env.peer("");
    let policy = format!("policy:={}", policy.display());
    let control = env.control(&[&[policy.as_str(), "fade_in:=0.0"], parameters].concat());
    peer.report_both_joints();
    (peer, control)
}

/// Publishes a description with these limits of `elbow`, and a velocity of `wrist`.
fn describe(peer: &mut Peer, elbow: &str, wrist: f64) {
    let urdf = format!(
        "<?xml version=\"1.0\"?><robot name=\"two_joints\"><link name=\"base\"/>
         <joint name=\"elbow\" type=\"revolute\"><parent link=\"base\"/><limit {elbow} effort=\"1\"/></joint>
         <joint name=\"wrist\" type=\"continuous\"><limit velocity=\"{wrist}\" effort=\"1\"/></joint></robot>"
    );
    peer.publish(
        "robot_description",
        "std_msgs/String",
        Qos::Latched,
        json!({"data": urdf}),
    );
}

/// Commands are for wrist, then elbow.
fn largest(commands: &[Value], joint: usize) -> f64 {
    let of = commands.iter().filter_map(|c| c["data"][joint].as_f64());
    of.fold(0.0, |largest, value| largest.max(value.abs()))
}

#[test]
fn commands_are_clipped_to_the_described_limits_and_counted_by_rule_and_joint() {
    let env = TestEnv::new();
    let (mut peer, control) = start(&env, &[]);
    peer.active();
    let before = peer.next("commands", 20);
    let (wrist, elbow) = (largest(&before, 0), largest(&before, 1));
    assert!(wrist > 1e-3 && elbow > 1e-3, "{before:?}");

    describe(&mut peer, "lower=\"-9\" upper=\"9\" velocity=\"9\"", wrist / 4.0);
    let tight = peer.status("the description counts", |s| {
        s["robot_description"]
            .as_str()
            .is_some_and(|d| d.contains("tightens"))
    });
    assert_says(
        tight["robot_description"].as_str().unwrap_or_default(),
        &["joints [wrist]"],
    );
    control.says(&["robot_description tightens", "[wrist]"]);
    peer.next("commands", 5);
    let after = peer.next("commands", 30);
    assert!(largest(&after, 0) <= wrist / 4.0 + 1e-12, "{after:?}");
    assert!(
        largest(&after, 1) > 0.9 * elbow,
        "the other joint's limit is the bundle's: {after:?}"
    );
    let counted = peer.status("the interventions are counted", |s| {
        s["interventions_by_rule"][2].as_u64() > Some(20)
    });
    assert_eq!(counted["state"], state::ACTIVE);
    assert_eq!(
        (&counted["command_joints"][0], &counted["rules"][2]),
        (&json!("wrist"), &json!("velocity"))
    );
    let of_the_elbow = &counted["interventions_by_rule"].as_array().expect("counts")[6..];
    assert!(of_the_elbow.iter().all(|count| *count == 0), "{counted:#}");

    // Room again, as far as the bundle gives it.
    describe(&mut peer, "lower=\"-9\" upper=\"9\" velocity=\"9\"", 100.0);
    peer.status("nothing is tightened", |s| {
        s["robot_description"]
            .as_str()
            .is_some_and(|d| d.contains("joints []"))
    });
    peer.next("commands", 5);
    assert!(largest(&peer.next("commands", 30), 0) > wrist / 2.0);
}

#[test]
fn a_description_that_contradicts_the_bundle_keeps_the_robot_still_until_it_is_corrected() {
    let env = TestEnv::new();
    let mut peer = env.peer("");
    let policy = env.file("v1", &sealed(&two_joints(CommandInterface::Velocity), 1));
    let control = env.control(&["autostart:=true"]);
    describe(&mut peer, "lower=\"2\" upper=\"3\" velocity=\"1\"", 1.0);
    control.says(&["robot_description: 2 joints described"]);
    peer.report_both_joints();
    peer.offer(&policy);
    let status = peer.status("it says why it does not start", |s| {
        s["message"].as_str().is_some_and(|m| m.contains("no room"))
    });
    assert_says(
        status["message"].as_str().unwrap_or_default(),
        &["'elbow'", "2 to 3", "-1 to 1"],
    );
    control.says(&["leaves joint 'elbow' no room"]);
    let (done, why) = peer.trigger("start");
    assert!(!done);
    assert_says(&why, &["'elbow'", "no room"]);
    assert_eq!(peer.count("commands"), 0);

    describe(&mut peer, "lower=\"-1\" upper=\"3\" velocity=\"1\"", 1.0);
    peer.active();

    // A robot that moves already goes on within the limits it has; once it rests, it stays at rest.
    describe(&mut peer, "lower=\"2\" upper=\"3\" velocity=\"1\"", 1.0);
    control.says(&["no activation succeeds"]);
    peer.status("it is told", |s| {
        s["state"] == state::ACTIVE
            && s["robot_description"]
                .as_str()
                .is_some_and(|d| d.contains("no room"))
    });
    assert!(peer.change_state("control", "deactivate"));
    assert!(!peer.change_state("control", "activate"));
}

#[test]
fn a_description_that_is_none_or_lacks_a_joint_is_told_and_changes_nothing() {
    let env = TestEnv::new();
    let (mut peer, control) = start(&env, &[]);
    peer.active();
    let send = |peer: &mut Peer, text: &str| {
        peer.publish(
            "robot_description",
            "std_msgs/String",
            Qos::Latched,
            json!({"data": text}),
        );
    };
    let lacking = "<robot><joint name=\"elbow\" type=\"continuous\"/></robot>";
    let says = |words: &'static str| {
        move |s: &Value| {
            let told = s["robot_description"].as_str().unwrap_or_default();
            s["state"] == state::ACTIVE && told.contains(words)
        }
    };
    send(&mut peer, lacking);
    peer.status("a joint is missing", says("it lacks joints [wrist]"));
    send(&mut peer, "no robot");
    peer.status("it is none", says("robot_description is no XML"));
    control.says(&["the limits are as they were"]);
    send(&mut peer, lacking);
    peer.status("the same as before", says("it lacks joints [wrist]"));
}

#[test]
fn descriptions_are_not_listened_to_where_the_parameter_says_so() {
    let env = TestEnv::new();
    let (mut peer, _control) = start(&env, &["use_robot_description:=false"]);
    peer.active();
    assert_eq!(peer.endpoints("/robot_description")["subscriptions"], json!([]));
}
