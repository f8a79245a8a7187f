//! Topics are relative: several robots run side by side under namespaces.

use mfpo_tests::bundles::sealed;
use mfpo_tests::{Qos, TestEnv, until};

#[test]
fn every_program_helps_and_tells_its_version() {
    let env = TestEnv::new();
    for program in ["control", "robot", "mfpo_train"] {
        for (option, words) in [("--help", "Usage:"), ("--version", env!("CARGO_PKG_VERSION"))] {
            let output = env.run(program, &[option]);
            assert!(output.status.success(), "{program} {option}");
            assert!(
                String::from_utf8_lossy(&output.stdout).contains(words),
                "{program} {option}"
            );
        }
        let output = env.run(program, &["--hepl"]);
        assert!(!output.status.success(), "{program}");
        assert!(
            String::from_utf8_lossy(&output.stderr).contains("--help"),
            "{program}"
        );
    }
}

#[test]
fn topics_have_the_quality_of_service_that_outside_programs_rely_on() {
    let env = TestEnv::new();
    let mut peer = env.peer("");
    let _robot = env.start("robot", &["--rate", "50"]);
    let _control = env.control(&[]);
    let (reliable, latched) = (["RELIABLE", "VOLATILE"], ["RELIABLE", "TRANSIENT_LOCAL"]);
    let sensor = ["BEST_EFFORT", "VOLATILE"];
    for (topic, side, [reliability, durability]) in [
        ("joint_states", "publishers", sensor),
        ("joint_states", "subscriptions", sensor),
        ("commands", "publishers", reliable),
        ("commands", "subscriptions", reliable),
        ("policy/action", "publishers", reliable),
        ("policy/status", "publishers", latched),
        ("policy/bundle", "subscriptions", latched),
        ("goal", "subscriptions", reliable),
        ("robot/episode", "publishers", latched),
    ] {
        let found = until(&format!("{topic} has {side}"), || {
            let found = peer.endpoints(topic)[side].take();
            (found.as_array().map(Vec::len) == Some(1)).then_some(found)
        });
        assert_eq!(
            (&found[0][1], &found[0][2]),
            (&reliability.into(), &durability.into()),
            "{topic}: {found}"
        );
    }
}

#[test]
fn two_robots_run_side_by_side_under_namespaces() {
    let env = TestEnv::new();
    let spec = mfpo_sim::registry::robot("swing_arm")
        .expect("the task")
        .spec()
        .clone();
    let mut sides = Vec::new();
    for (namespace, version) in [("/left", 1), ("/right", 2)] {
        let policy = env.file(&namespace[1..], &sealed(&spec, version));
        let mut peer = env.peer(namespace);
        peer.listen("robot/episode", "mfpo_msgs/EpisodeResult", Qos::Latched);
        let remap = format!("__ns:={namespace}");
        let robot = env.start(
            "robot",
            &[
                "--rate",
                "100",
                "--episode-seconds",
                "0.5",
                "--ros-args",
                "-r",
                &remap,
            ],
        );
        let policy = format!("policy:={}", policy.display());
        let control = env.control_in(namespace, &[&policy]);
        sides.push((namespace, version, peer, robot, control));
    }
    for (namespace, version, peer, ..) in &sides {
        let status = peer.active();
        assert_eq!(status["version"], *version, "{namespace}");
        let records = peer.next("policy/action", 20);
        assert!(
            records.iter().all(|r| r["version"] == *version),
            "{namespace} hears only its own"
        );
        until(&format!("an episode of {namespace} ends"), || {
            let episode = peer.newest("robot/episode")?;
            (episode["commands_received"].as_u64() > Some(0)).then_some(())
        });
    }
    // Ending one leaves the other alone.
    let (.., left) = sides.remove(0);
    drop(left);
    sides[0].2.next("commands", 20);

    let graph = sides[0].2.graph();
    let topics: Vec<&String> = graph["topics"].as_object().expect("topics").keys().collect();
    for topic in [
        "joint_states",
        "commands",
        "policy/action",
        "policy/status",
        "policy/bundle",
    ] {
        assert!(
            topics.contains(&&format!("/right/{topic}")),
            "{topic}: {topics:?}"
        );
        assert!(
            !topics.contains(&&format!("/{topic}")),
            "{topic} leaks out of its namespace"
        );
    }
    let nodes = graph["nodes"].to_string();
    assert!(
        nodes.contains("/right/control") && nodes.contains("/right/robot"),
        "{nodes}"
    );
}
