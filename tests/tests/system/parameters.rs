//! Parameters over the standard services, as `ros2 param` uses them, and the parameter files that are installed.

use mfpo_policy::spec::CommandInterface;
use mfpo_tests::bundles::{sealed, two_joints};
use mfpo_tests::peer::state;
use mfpo_tests::{Peer, Qos, TestEnv, assert_says, repository};
use serde_json::{Value, json};

const BOOL: u8 = 1;
const INTEGER: u8 = 2;
const DOUBLE: u8 = 3;
const STRING: u8 = 4;
const DOUBLES: u8 = 8;

fn boolean(value: bool) -> Value {
    json!({"type": BOOL, "bool_value": value})
}

fn text(value: &str) -> Value {
    json!({"type": STRING, "string_value": value})
}

fn number(value: f64) -> Value {
    json!({"type": DOUBLE, "double_value": value})
}

fn numbers(values: &[f64]) -> Value {
    json!({"type": DOUBLES, "double_array_value": values})
}

fn get(peer: &mut Peer, names: &[&str]) -> Vec<Value> {
    let request = json!({"names": names});
    let answer = peer.call("/control/get_parameters", "rcl_interfaces/GetParameters", request);
    answer["values"].as_array().expect("values").clone()
}

#[test]
fn parameters_are_listed_described_and_refused_with_a_reason() {
    let env = TestEnv::new();
    let mut peer = env.peer("");
    let _control = env.control(&["stale_timeout:=0.25", "accept_runs:=['a', 'b']"]);

    let list = json!({"prefixes": [], "depth": 0});
    let listed = peer.call("/control/list_parameters", "rcl_interfaces/ListParameters", list);
    let listed = listed["result"]["names"].to_string();
    let names = [
        "policy",
        "device",
        "rate",
        "trigger",
        "candidates",
        "seed",
        "stale_timeout",
        "fallback",
        "damping",
        "accept_bundles",
        "accept_runs",
        "command_topic_type",
        "robot",
    ];
    assert_says(&listed, &names);
    let request = json!({"names": names});
    let told = peer.call(
        "/control/describe_parameters",
        "rcl_interfaces/DescribeParameters",
        request,
    );
    for (name, descriptor) in names
        .iter()
        .zip(told["descriptors"].as_array().expect("descriptors"))
    {
        assert_eq!(descriptor["name"], *name);
        assert!(
            descriptor["description"].as_str().map(str::len) > Some(10),
            "{descriptor}"
        );
    }
    let values = get(&mut peer, &["stale_timeout", "accept_runs", "trigger"]);
    assert_eq!(values[0]["double_value"], 0.25);
    assert_eq!(values[1]["string_array_value"], json!(["a", "b"]));
    assert_eq!(values[2]["string_value"], "fixed_rate");

    for (name, value, words) in [
        (
            "trigger",
            text("onstate"),
            ["expected one of fixed_rate, on_state", "did you mean 'on_state'"],
        ),
        ("stale_timeout", number(-1.0), ["above 0", "got -1"]),
        (
            "rate",
            number(0.5),
            ["cannot be changed while the node runs", "at the start"],
        ),
        ("accept_bundles", text("yes"), ["expected boolean", "yes"]),
        (
            "accept_bundle",
            boolean(true),
            ["unknown parameter", "did you mean 'accept_bundles'"],
        ),
    ] {
        let (successful, reason) = peer.set_parameter(name, value);
        assert!(!successful, "{name}: {reason}");
        assert_says(&reason, &words);
    }
    let values = get(&mut peer, &["stale_timeout", "accept_bundles"]);
    assert_eq!(
        values[0]["double_value"], 0.25,
        "what was refused changed nothing"
    );
    assert_eq!(values[1]["bool_value"], true);
}

#[test]
fn quality_of_service_that_was_given_is_listed_described_and_read_only() {
    let env = TestEnv::new();
    let mut peer = env.peer("");
    let names = [
        "qos_overrides./commands.publisher.reliability",
        "qos_overrides./joint_states.subscription.depth",
    ];
    let [reliability, depth] = names;
    let _control = env.control(&[&format!("{reliability}:=best_effort"), &format!("{depth}:=7")]);
    let list = json!({"prefixes": ["qos_overrides"], "depth": 0});
    let listed = peer.call("/control/list_parameters", "rcl_interfaces/ListParameters", list);
    let listed = listed["result"]["names"].as_array().expect("names");
    let mut listed: Vec<&str> = listed.iter().filter_map(Value::as_str).collect();
    listed.sort_unstable();
    assert_eq!(listed, names);
    let values = get(&mut peer, &names);
    assert_eq!(values[0]["string_value"], "best_effort");
    assert_eq!(values[1]["integer_value"], 7);
    let told = peer.call(
        "/control/describe_parameters",
        "rcl_interfaces/DescribeParameters",
        json!({"names": names}),
    );
    for (descriptor, words) in told["descriptors"].as_array().expect("descriptors").iter().zip([
        ["the reliability", "publisher of topic /commands"],
        ["the depth", "subscription of topic /joint_states"],
    ]) {
        assert_eq!(descriptor["read_only"], true, "{descriptor}");
        assert_says(descriptor["description"].as_str().unwrap_or_default(), &words);
    }
    let (successful, reason) = peer.set_parameter(depth, json!({"type": INTEGER, "integer_value": 8}));
    assert!(!successful, "{reason}");
    assert_says(
        &reason,
        &["cannot be changed while the node runs", "at the start"],
    );
    assert_eq!(get(&mut peer, &[depth])[0]["integer_value"], 7);
}

#[test]
fn swaps_can_be_frozen_and_allowed_while_the_node_runs() {
    let env = TestEnv::new();
    let spec = two_joints(CommandInterface::Effort);
    let policy = env.file("v1", &sealed(&spec, 1));
    let mut peer = env.peer("");
    let control = env.control(&[&format!("policy:={}", policy.display())]);
    peer.report_both_joints();
    peer.active();
    assert_eq!(
        peer.set_parameter("accept_bundles", boolean(false)),
        (true, String::new())
    );
    control.says(&["parameter accept_bundles is now"]);
    for version in [2, 3] {
        let bundle = env.file("newer", &sealed(&spec, version));
        let message = json!({"run": "run-a", "version": version, "data": {"file": bundle}});
        peer.publish("policy/bundle", "mfpo_msgs/PolicyBundle", Qos::Latched, message);
        control.says(&[
            &format!("version {version} of run"),
            "is kept until accept_bundles is true",
        ]);
    }
    let frozen = peer.status("it says that a bundle waits", |s| {
        s["message"]
            .as_str()
            .unwrap_or_default()
            .contains("waits for accept_bundles")
    });
    assert_eq!((&frozen["version"], &frozen["swaps"]), (&1.into(), &0.into()));
    assert_eq!(frozen["state"], state::ACTIVE);

    assert_eq!(
        peer.set_parameter("accept_bundles", boolean(true)),
        (true, String::new())
    );
    let status = peer.status("the newest bundle is live", |s| s["version"] == 3);
    assert_eq!(status["swaps"], 1, "version 2 was never worth a swap");
}

#[test]
fn a_postures_effort_is_refused_where_it_does_not_fit_and_commanded_while_states_are_stale_where_it_does() {
    let env = TestEnv::new();
    let policy = env.file("policy", &sealed(&two_joints(CommandInterface::Effort), 1));
    let mut peer = env.peer("");
    let _control = env.control(&[&format!("policy:={}", policy.display())]);
    peer.report_both_joints();
    peer.active();
    let (successful, reason) = peer.set_parameter("fallback_effort", numbers(&[0.25]));
    assert!(!successful, "{reason}");
    assert_says(&reason, &["holds 1 numbers", "2, one for each of [wrist, elbow]"]);
    assert_eq!(
        peer.set_parameter("fallback_effort", numbers(&[0.25, -0.125])),
        (true, String::new())
    );
    let (successful, reason) = peer.set_parameter("fallback", text("zero"));
    assert!(!successful, "{reason}");
    assert_says(&reason, &["fallback_effort is set", "uses none"]);
    peer.silence("robot");
    peer.status("the fallback commands", |s| s["state"] == state::FALLBACK);
    let commands = peer.next("commands", 5);
    assert_eq!(commands[4]["data"], json!([0.25, -0.125]));
}

#[test]
fn the_installed_parameter_files_are_accepted() {
    let env = TestEnv::new();
    for (file, runs) in [("control.yaml", json!([])), ("demo.yaml", json!(["*"]))] {
        let path = repository().join("launch/params").join(file);
        let mut peer = env.peer("");
        let _control = env.start(
            "control",
            &["--ros-args", "--params-file", &path.display().to_string()],
        );
        peer.status("it waits for a policy", |s| {
            s["state"] == state::WAITING_FOR_POLICY
        });
        let values = get(&mut peer, &["robot", "accept_runs", "stale_timeout"]);
        // The robot is the task's, which is an argument of the launch file.
        assert_eq!(values[0]["string_value"], "", "{file}");
        assert_eq!(values[1]["string_array_value"], runs, "{file}");
        assert_eq!(values[2]["double_value"], 0.1, "{file}");
    }
}

#[test]
fn a_parameter_file_for_another_node_is_named() {
    let env = TestEnv::new();
    let yaml = b"/left/control:\n  ros__parameters:\n    stale_timeout: 0.5\n";
    let file = env.file("left.yaml", yaml).display().to_string();
    let control = env.start("control", &["--ros-args", "--params-file", &file]);
    control.says(&[
        "left.yaml",
        "holds nothing for this node",
        "[/left/control]",
        "expected one for '/control', 'control' or '/**'",
    ]);
}
