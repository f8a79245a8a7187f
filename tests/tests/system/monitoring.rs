//! What others see of the node: /diagnostics, /rosout, /parameter_events, and the counts in the status.

use std::collections::BTreeMap;
use std::time::Duration;

use mfpo_policy::spec::CommandInterface;
use mfpo_tests::bundles::{sealed, two_joints};
use mfpo_tests::peer::state;
use mfpo_tests::{Peer, Qos, TestEnv, assert_says, until};
use serde_json::{Value, json};

const OK: u8 = 0;
const WARN: u8 = 1;
const ERROR: u8 = 2;
const STALE: u8 = 3;

/// Level, message and values of one part of the node.
type Part = (Value, String, BTreeMap<String, String>);

/// Each part of the node in the newest /diagnostics.
fn diagnostics(peer: &Peer) -> Option<BTreeMap<String, Part>> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let newest = peer.newest("/diagnostics")?;
    let parts = newest["status"].as_array()?.iter().map(|part| {
        let values = part["values"].as_array().into_iter().flatten();
        let values = values.map(|v| (text(&v["key"]), text(&v["value"]))).collect();
        (
            text(&part["name"]),
            (part["level"].clone(), text(&part["message"]), values),
        )
    });
    Some(parts.collect())
}

/// Waits until a part is at a level, and returns its message and values.
fn part_at(peer: &Peer, name: &str, level: u8) -> (String, BTreeMap<String, String>) {
    until(&format!("{name} is at level {level}"), || {
        let (at, message, values) = diagnostics(peer)?.remove(name)?;
        (at == level).then_some((message, values))
    })
}

#[test]
fn diagnostics_tell_at_night_what_is_wrong() {
    let env = TestEnv::new();
    let spec = two_joints(CommandInterface::Effort);
    let mut peer = env.peer("");
    peer.listen("/diagnostics", "diagnostic_msgs/DiagnosticArray", Qos::Reliable);
    let control = env.control(&[
        "stale_timeout:=0.4",
        "diagnostics.threshold.periodicity.mean_error.warn:=40.0",
        "diagnostics.threshold.periodicity.mean_error.error:=50.0",
        "diagnostics.threshold.periodicity.standard_deviation.warn:=1e6",
        "diagnostics.threshold.periodicity.standard_deviation.error:=1e7",
        "diagnostics.threshold.execution_time.mean.warn:=1e6",
        "diagnostics.threshold.execution_time.mean.error:=1e7",
        "diagnostics.threshold.execution_time.standard_deviation.warn:=1e6",
        "diagnostics.threshold.execution_time.standard_deviation.error:=1e7",
    ]);
    part_at(&peer, "control: control loop", WARN);
    part_at(&peer, "control: inputs", STALE);
    let (message, _) = part_at(&peer, "control: policy", WARN);
    assert_eq!(message, "no policy is loaded");

    peer.report_both_joints();
    peer.offer(&env.file("v1", &sealed(&spec, 1)));
    peer.active();
    let (message, values) = until("a second of ticks is told", || {
        let (level, message, values) = diagnostics(&peer)?.remove("control: control loop")?;
        let number = |name: &str| values.get(name)?.parse::<f64>().ok();
        let is_full = number("periodicity.average").is_some_and(|hz| (30.0..70.0).contains(&hz));
        (level == OK && is_full).then_some((message, values))
    });
    assert_eq!(message, "the policy commands the robot");
    let number = |name: &str| {
        let text = values.get(name).unwrap_or_else(|| panic!("{name} in {values:?}"));
        text.parse::<f64>().expect("a number")
    };
    assert_eq!(number("update_rate"), 50.0);
    for figure in ["periodicity", "execution_time"] {
        let [low, average, high] =
            ["min", "average", "max"].map(|which| number(&format!("{figure}.{which}")));
        assert!(
            0.0 < low && low <= average && average <= high,
            "{figure}: {values:?}"
        );
        assert!(number(&format!("{figure}.standard_deviation")) >= 0.0);
    }
    let (_, values) = part_at(&peer, "control: policy", OK);
    assert_eq!(
        (&*values["version"], &*values["run"], &*values["swaps"]),
        ("1", "run-a", "0")
    );
    let (message, values) = part_at(&peer, "control: inputs", OK);
    assert_says(&message, &["every joint reports"]);
    assert!(values["age.elbow"].parse::<f64>().is_ok_and(|age| age < 0.4));
    let rate = until("a second of states is told", || {
        let (_, values) = part_at(&peer, "control: inputs", OK);
        let rate = values["rate"].parse::<f64>().ok()?;
        (rate > 50.0 && values["longest_gap"].parse::<f64>().is_ok_and(|gap| gap < 0.4)).then_some(rate)
    });
    assert!(rate < 150.0, "they come at 100 Hz, not at {rate}");
    part_at(&peer, "control: safety", OK);

    peer.offer(&env.file("v0", &sealed(&spec, 0)));
    let (message, _) = part_at(&peer, "control: policy", WARN);
    assert_says(&message, &["version 1", "the last bundle was refused", "above 1"]);
    peer.silence("robot");
    let (message, _) = part_at(&peer, "control: control loop", ERROR);
    assert_says(
        &message,
        &["the fallback commands the robot", "has not reported for"],
    );
    let (message, values) = part_at(&peer, "control: safety", ERROR);
    assert_says(&message, &["has not reported"]);
    assert_eq!(values["fallbacks"], "1");
    let (message, _) = part_at(&peer, "control: inputs", STALE);
    assert_says(&message, &["[elbow, wrist]"]);
    drop(control);
}

#[test]
fn a_threshold_that_is_broken_is_named_with_its_figure() {
    let env = TestEnv::new();
    let policy = env.file("v1", &sealed(&two_joints(CommandInterface::Effort), 1));
    let mut peer = env.peer("");
    peer.listen("/diagnostics", "diagnostic_msgs/DiagnosticArray", Qos::Reliable);
    let mean = "diagnostics.threshold.execution_time.mean";
    let _control = env.control(&[
        &format!("policy:={}", policy.display()),
        &format!("{mean}.warn:=1e-6"),
        &format!("{mean}.error:=1e-3"),
    ]);
    peer.report_both_joints();
    let message = until("it is an error", || {
        let (level, message, _) = diagnostics(&peer)?.remove("control: control loop")?;
        (level == ERROR && message.contains("not regular")).then_some(message)
    });
    assert_says(
        &message,
        &["us from state to command on average", "expected at most 0.001"],
    );
}

#[test]
fn a_heartbeat_that_comes_near_to_its_timeout_is_a_warning_with_its_period() {
    let env = TestEnv::new();
    let policy = env.file("v1", &sealed(&two_joints(CommandInterface::Effort), 1));
    let mut peer = env.peer("");
    peer.listen("/diagnostics", "diagnostic_msgs/DiagnosticArray", Qos::Reliable);
    let _control = env.control(&[&format!("policy:={}", policy.display()), "enable_timeout:=3.0"]);
    peer.report_both_joints();
    until("the heartbeat is missed", || {
        let (at, message, _) = diagnostics(&peer)?.remove("control: inputs")?;
        (at == STALE && message.contains("no heartbeat on topic enable yet")).then_some(())
    });
    peer.repeat_enable(Some(true));
    peer.active();
    // Ten a second.
    until("a second of heartbeats is told", || {
        let values = diagnostics(&peer)?.remove("control: inputs")?.2;
        let period = values.get("enable.period.average")?.parse::<f64>().ok()?;
        (0.05..0.2).contains(&period).then_some(())
    });
    // More than half of what is allowed, and less than all of it.
    peer.repeat_enable(None);
    std::thread::sleep(Duration::from_secs(2));
    peer.repeat_enable(Some(true));
    let words = "heartbeat on topic enable is near to being late";
    let part = until("it is a warning", || {
        let (at, message, values) = diagnostics(&peer)?.remove("control: inputs")?;
        (at == WARN && message.contains(words)).then_some((message, values))
    });
    assert_says(&part.0, &["expected at most 1500 ms", "half of enable_timeout"]);
    let gap = part.1["enable.longest_gap"].parse::<f64>().expect("seconds");
    assert!(gap > 1.5, "{gap}");
    until("that is over", || {
        let (_, message, _) = diagnostics(&peer)?.remove("control: inputs")?;
        (!message.contains(words)).then_some(())
    });
}

#[test]
fn the_log_arrives_on_rosout_and_a_late_listener_gets_it_too() {
    let env = TestEnv::new();
    let mut peer = env.peer("");
    let control = env.control(&[]);
    control.says(&["waiting for a policy"]);
    peer.listen("/rosout", "rcl_interfaces/Log", Qos::Latched);
    let line = until("the log arrives", || {
        let mut lines = peer.messages("/rosout", 0).into_iter();
        lines.find(|l| {
            l["name"] == "control"
                && l["msg"]
                    .as_str()
                    .is_some_and(|m| m.contains("waiting for a policy"))
        })
    });
    assert_eq!(line["level"], 20);
    assert!(
        line["file"].as_str().is_some_and(|f| f.ends_with("service.rs")),
        "{line}"
    );
    peer.offer(&env.file("half", &sealed(&two_joints(CommandInterface::Effort), 1)[..999]));
    let line = until("a warning arrives", || {
        let mut lines = peer.messages("/rosout", 0).into_iter();
        lines.find(|l| l["msg"].as_str().is_some_and(|m| m.contains("bundle refused")))
    });
    assert_eq!((&line["level"], &line["name"]), (&json!(30), &json!("control")));
    assert!(line["stamp"]["sec"].as_i64() > Some(0));
}

#[test]
fn every_change_of_a_parameter_is_told_and_takes_effect() {
    let env = TestEnv::new();
    let policy = env.file("v1", &sealed(&two_joints(CommandInterface::Effort), 1));
    let mut peer = env.peer("");
    let control = env.control(&[&format!("policy:={}", policy.display()), "fade_in:=0.0"]);
    peer.listen(
        "/parameter_events",
        "rcl_interfaces/ParameterEvent",
        Qos::Reliable,
    );
    peer.report_both_joints();
    peer.active();
    let number = |value: f64| json!({"type": 3, "double_value": value});
    let text = |value: &str| json!({"type": 4, "string_value": value});
    let whole = |value: i64| json!({"type": 2, "integer_value": value});
    for (name, value, words) in [
        (
            "stale_timeout",
            number(0.001),
            vec!["stale_timeout is 0.001 s", "0.02 s"],
        ),
        (
            "fallback",
            text("hold"),
            vec!["does not fit commands in N m", "damp, zero"],
        ),
        (
            "limits.position_margin",
            number(1.0),
            vec!["half the range of joint 'elbow'"],
        ),
        ("limits.effort_scale", number(1.5), vec!["0 to 1", "got 1.5"]),
        ("candidates", whole(4), vec!["no critics", "expected 1"]),
        ("candidates", whole(100), vec!["got", "100"]),
    ] {
        let (successful, reason) = peer.set_parameter(name, value);
        assert!(!successful, "{name}: {reason}");
        assert_says(&reason, &words);
    }
    assert_eq!(
        peer.count("/parameter_events"),
        0,
        "what was refused has changed nothing"
    );

    assert_eq!(
        peer.set_parameter("limits.effort_scale", number(0.01)),
        (true, String::new())
    );
    control.says(&["parameter limits.effort_scale is now"]);
    let event = until("the change is told", || peer.newest("/parameter_events"));
    assert_eq!(
        (
            &event["node"],
            event["changed_parameters"].as_array().map(Vec::len)
        ),
        (&json!("/control"), Some(1))
    );
    let changed = &event["changed_parameters"][0];
    assert_eq!(
        (&changed["name"], &changed["value"]["double_value"]),
        (&json!("limits.effort_scale"), &json!(0.01))
    );
    let small = |c: &Value| {
        c["data"]
            .as_array()
            .is_some_and(|d| d.iter().all(|v| v.as_f64().is_some_and(|v| v.abs() <= 0.01)))
    };
    until("commands are that small", || {
        peer.newest("commands").filter(small)
    });
    assert!(peer.next("commands", 20).iter().all(small));
    let status = peer.status("the interventions are counted", |s| {
        s["interventions"].as_u64() > Some(20)
    });
    let counts: Vec<u64> = status["interventions_by_rule"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_u64)
        .collect();
    let rules = status["rules"].as_array().expect("rules");
    assert_eq!(status["command_joints"], json!(["wrist", "elbow"]));
    assert_eq!(counts.len(), 2 * rules.len());
    for (index, count) in counts.iter().enumerate() {
        assert_eq!(*count > 0, rules[index % rules.len()] == "effort", "{status}");
    }
    assert_eq!(status["state"], state::ACTIVE);
}

#[test]
fn descriptors_tell_ranges_and_what_cannot_change() {
    let env = TestEnv::new();
    let mut peer = env.peer("");
    let _control = env.control(&[]);
    let request = json!({"names": ["realtime_priority", "limits.effort_scale", "trigger"]});
    let told = peer.call(
        "/control/describe_parameters",
        "rcl_interfaces/DescribeParameters",
        request,
    );
    let told = told["descriptors"].as_array().expect("descriptors").clone();
    assert_eq!(
        (&told[0]["read_only"], &told[1]["read_only"]),
        (&json!(true), &json!(false))
    );
    assert_eq!(told[0]["integer_range"][0]["to_value"], 99);
    assert_eq!(told[1]["floating_point_range"][0]["to_value"], 1.0);
    assert_says(
        told[2]["additional_constraints"].as_str().unwrap_or_default(),
        &["on_state"],
    );
    let all = [
        json!({"name": "fade_in", "value": {"type": 3, "double_value": 0.5}}),
        json!({"name": "rate", "value": {"type": 3, "double_value": 10.0}}),
    ];
    let answer = peer.call(
        "/control/set_parameters_atomically",
        "rcl_interfaces/SetParametersAtomically",
        json!({"parameters": all}),
    );
    assert_eq!(answer["result"]["successful"], false);
    let request = json!({"names": ["fade_in"]});
    let answer = peer.call("/control/get_parameters", "rcl_interfaces/GetParameters", request);
    assert_eq!(answer["values"][0]["double_value"], 0.2, "all or none");
}

/// What a status says.
fn said(status: &Value) -> &str {
    status["message"].as_str().unwrap_or_default()
}

/// The robot's states go on in each part of this test: what the node does hangs on /clock alone.
#[test]
fn stamps_follow_the_simulators_clock_and_the_fallback_acts_where_it_stands_still() {
    let env = TestEnv::new();
    let policy = env.file("v1", &sealed(&two_joints(CommandInterface::Effort), 1));
    let mut peer = env.peer("");
    peer.listen("/diagnostics", "diagnostic_msgs/DiagnosticArray", Qos::Reliable);
    let control = env.control(&[&format!("policy:={}", policy.display()), "use_sim_time:=true"]);
    peer.report_both_joints();
    let no_clock = "use_sim_time is set, but /clock has not come yet";
    let status = peer.status("it waits for the clock", |s| said(s).contains(no_clock));
    assert_eq!(status["state"], state::WAITING_FOR_STATES);
    let (started, why) = peer.trigger("start");
    assert!(!started, "{why}");
    assert_says(&why, &[no_clock]);
    let (message, _) = part_at(&peer, "control: inputs", STALE);
    assert_says(&message, &[no_clock]);
    assert_eq!(peer.count("commands"), 0);

    let clock = ("/clock", "rosgraph_msgs/Clock", Qos::Reliable);
    peer.repeat_as("clock", clock, &json!({"clock": {"now": -1000.0}}));
    peer.active();
    let record = peer.next("policy/action", 1).remove(0);
    let seconds = |stamp: &Value| stamp["sec"].as_f64().expect("seconds");
    let behind = seconds(&record["state_stamp"]) - seconds(&record["stamp"]);
    assert!((990.0..1010.0).contains(&behind), "{record}");

    // The simulator pauses, and says so again and again.
    peer.repeat_as("clock", clock, &json!({"clock": {"sec": 100, "nanosec": 5}}));
    let stands = "simulated time stands still: /clock has not moved for";
    let status = peer.status("the fallback commands", |s| said(s).contains(stands));
    assert_eq!(
        (&status["state"], &status["lifecycle"]),
        (&json!(state::FALLBACK), &json!("active"))
    );
    assert_eq!(status["stamp"], json!({"sec": 100, "nanosec": 5}));
    let records = peer.next("policy/action", 20);
    assert!(
        records
            .iter()
            .all(|r| r["stamp"] == status["stamp"] && r["fallback"] == true),
        "{records:?}"
    );
    control.says(&["the fallback commands the robot", stands]);
    let (message, values) = part_at(&peer, "control: inputs", STALE);
    assert_says(&message, &[stands]);
    assert!(
        values["sim_time.age"].parse::<f64>().is_ok_and(|age| age > 2.0),
        "{values:?}"
    );
    let (message, _) = part_at(&peer, "control: safety", ERROR);
    assert_says(&message, &[stands]);

    peer.repeat_as("clock", clock, &json!({"clock": {"now": -1000.0}}));
    peer.active();
    control.says(&["the policy commands the robot again"]);
}

#[test]
fn quality_of_service_can_be_set_by_parameter() {
    let env = TestEnv::new();
    let mut peer = env.peer("");
    let _control = env.control(&[
        "qos_overrides./joint_states.subscription.reliability:=reliable",
        "qos_overrides./commands.publisher.reliability:=best_effort",
    ]);
    for (topic, side, reliability) in [
        ("joint_states", "subscriptions", "RELIABLE"),
        ("commands", "publishers", "BEST_EFFORT"),
        ("policy/status", "publishers", "RELIABLE"),
    ] {
        let found = until(&format!("{topic} has {side}"), || {
            let found = peer.endpoints(topic)[side].take();
            (found.as_array().map(Vec::len) == Some(1)).then_some(found)
        });
        assert_eq!(found[0][1], reliability, "{topic}");
    }
    for (parameter, words) in [
        (
            "qos_overrides./commands.publisher.reliability:=sure",
            ["best_effort", "'sure'"],
        ),
        (
            "qos_overrides./command.publisher.depth:=2",
            ["did you mean", "/commands.publisher.depth"],
        ),
    ] {
        let output = env.run("control", &["--ros-args", "-p", parameter]);
        assert_eq!(output.status.code(), Some(1));
        assert_says(&String::from_utf8_lossy(&output.stderr), &words);
    }
}
