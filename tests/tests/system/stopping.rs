//! SIGINT and SIGTERM leave a safe last command.

use mfpo_policy::spec::CommandInterface;
use mfpo_tests::bundles::{sealed, two_joints};
use mfpo_tests::peer::state;
use mfpo_tests::{TestEnv, until};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

/// Ends a node that commands a robot, and returns the last two commands.
fn last_two_commands(interface: CommandInterface, signal: Signal) -> [Value; 2] {
    let env = TestEnv::new();
    let policy = env.file("policy", &sealed(&two_joints(interface), 1));
    let mut peer = env.peer("");
    let mut control = env.control(&[&format!("policy:={}", policy.display())]);
    peer.report_both_joints();
    peer.active();
    peer.next("commands", 10);
    control.signal(signal);
    assert_eq!(control.ended().code(), Some(0), "{signal} ends it in good order");
    let status = peer.status("it has stopped", |s| s["state"] == state::STOPPED);
    assert!(
        status["message"]
            .as_str()
            .unwrap_or_default()
            .contains("last safe command")
    );
    control.says(&["stopped; the last safe command has been sent"]);
    // What is on its way arrives.
    until("commands have ended", || {
        let before = peer.count("commands");
        std::thread::sleep(std::time::Duration::from_millis(200));
        (peer.count("commands") == before).then_some(())
    });
    let commands = peer.messages("commands", peer.count("commands") - 2);
    [commands[0]["data"].clone(), commands[1]["data"].clone()]
}

#[test]
fn effort_ends_at_zero() {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let [_, last] = last_two_commands(CommandInterface::Effort, signal);
        assert_eq!(last, json!([0.0, 0.0]), "{signal}");
    }
}

#[test]
fn velocity_ramps_down_to_zero() {
    let [before, last] = last_two_commands(CommandInterface::Velocity, Signal::SIGTERM);
    assert_eq!(last, json!([0.0, 0.0]));
    // 2 rad/s within 0.3 s, 20 ms a step.
    let step = 2.0 / 0.3 * 0.02 + 1e-9;
    let is_near = |v: &Value| v.as_f64().is_some_and(|v| v.abs() <= step);
    assert!(
        before.as_array().expect("a command").iter().all(is_near),
        "{before}"
    );
}

#[test]
fn position_stays_where_it_is() {
    let [before, last] = last_two_commands(CommandInterface::Position, Signal::SIGINT);
    assert_eq!(before, last);
}

#[test]
fn a_node_that_never_commanded_ends_without_a_command() {
    let env = TestEnv::new();
    let mut peer = env.peer("");
    let mut control = env.control(&[]);
    peer.report_both_joints();
    peer.status("it waits for a policy", |s| {
        s["state"] == state::WAITING_FOR_POLICY
    });
    control.signal(Signal::SIGINT);
    assert_eq!(control.ended().code(), Some(0));
    assert_eq!(peer.count("commands"), 0);
}
