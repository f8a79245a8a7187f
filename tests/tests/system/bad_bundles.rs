//! A bundle that must not go live is refused with expected and got, in the log and in `policy/status`; the running
//! policy is untouched, and commands go on.

use mfpo_policy::spec::{CommandInterface, ObservationTerm, RobotSpec};
use mfpo_policy::subject::{Subject, TaskSpec};
use mfpo_tests::bundles::{RUN, digest_of, forged, reworded, sealed, sealed_for, sealed_in, two_joints};
use mfpo_tests::peer::state;
use mfpo_tests::{Peer, Process, TestEnv, assert_says};
use serde_json::Value;

fn spec() -> RobotSpec {
    two_joints(CommandInterface::Effort)
}

fn changed(change: impl FnOnce(&mut RobotSpec)) -> RobotSpec {
    let mut spec = spec();
    change(&mut spec);
    spec
}

/// A node that runs version 5 and gets bundles by topic.
struct Running {
    env: TestEnv,
    control: Process,
    peer: Peer,
    live: Vec<u8>,
}

impl Running {
    fn start() -> Self {
        let env = TestEnv::new();
        let live = sealed(&spec(), 5);
        let policy = env.file("live.safetensors", &live);
        let mut peer = env.peer("");
        let control = env.control(&[&format!("policy:={}", policy.display())]);
        peer.report_both_joints();
        peer.active();
        Self {
            env,
            control,
            peer,
            live,
        }
    }

    fn offer(&mut self, bundle: &[u8]) {
        let file = self.env.file("offered", bundle);
        self.peer.offer(&file);
    }

    /// Offers a bundle that must be refused, and checks that nothing else happens.
    fn refuses(&mut self, case: &str, bundle: &[u8], words: &[&str]) {
        let before = self.peer.newest("policy/status").unwrap_or_default();
        self.offer(bundle);
        let after = self.peer.status(&format!("one more rejection ({case})"), |s| {
            s["rejections"].as_u64() == before["rejections"].as_u64().map(|n| n + 1)
        });
        let reason = after["last_rejection"].as_str().unwrap_or_default();
        assert_says(reason, words);
        self.control.says(&["bundle refused", reason]);
        for kept in ["state", "run", "version", "digest", "previous_digest", "swaps"] {
            assert_eq!(after[kept], before[kept], "{case}: {kept}");
        }
        assert_eq!(after["digest"], digest_of(&self.live), "{case}");
        self.commands_go_on(case);
    }

    fn commands_go_on(&self, case: &str) {
        let records = self.peer.next("policy/action", 5);
        assert!(
            records
                .iter()
                .all(|r| r["version"] == 5 && r["fallback"] == false),
            "{case}: {records:?}"
        );
    }

    /// Offers a bundle that must go live.
    fn accepts(&mut self, bundle: &[u8]) -> Value {
        self.offer(bundle);
        let digest = digest_of(bundle);
        self.peer
            .status("the offered bundle is live", |s| s["digest"] == *digest)
    }
}

#[test]
fn a_damaged_bundle_is_refused_and_the_robot_goes_on() {
    let mut node = Running::start();
    let newer = sealed(&spec(), 6);
    let half = &newer[..newer.len() / 2];
    node.refuses(
        "truncated",
        half,
        &["not a complete safetensors file", &half.len().to_string()],
    );
    node.refuses("empty", &[], &["not a complete safetensors file", "0 bytes"]);
    node.refuses(
        "not a bundle",
        &[0x5a; 5_000],
        &["not a complete safetensors file"],
    );
    let mut corrupt = newer.clone();
    *corrupt.last_mut().expect("bytes") ^= 1;
    node.refuses(
        "corrupt",
        &corrupt,
        &["digest is", "promises", &digest_of(&newer)],
    );

    let status = node.accepts(&newer);
    assert_eq!(status["swaps"], 1);
    assert_eq!(
        status["previous_digest"],
        digest_of(&node.live),
        "the previous policy is kept"
    );
    assert_eq!(status["rejections"], 4, "what was refused stays counted");
}

#[test]
fn a_bundle_with_weights_that_are_not_finite_is_refused() {
    let mut node = Running::start();
    for (number, shown) in [(f32::NAN, "NaN"), (f32::INFINITY, "inf")] {
        let bundle = forged(&sealed(&spec(), 6), |_, tensors| {
            let (_, bytes) = tensors.get_mut("actor/MLP_0/Dense_1/bias").expect("a bias");
            bytes[8..12].copy_from_slice(&number.to_le_bytes());
        });
        let words = [
            "weight 2 of 'actor/MLP_0/Dense_1/bias' is",
            shown,
            "must be finite",
        ];
        node.refuses("not finite", &bundle, &words);
    }
}

#[test]
fn a_bundle_for_another_robot_or_another_rate_is_refused() {
    let mut node = Running::start();
    let other = sealed(&changed(|spec| spec.robot = "three_joints".into()), 6);
    node.refuses(
        "robot",
        &other,
        &["is for robot 'three_joints'", "expected 'two_joints'"],
    );
    let slower = sealed(&changed(|spec| spec.control_period_ns = 40_000_000), 6);
    node.refuses(
        "period",
        &slower,
        &["trained for 25 Hz", "40 ms", "expected 50 Hz"],
    );
    let limits = sealed(&changed(|spec| spec.joints[0].velocity_max = 9.0), 6);
    node.refuses(
        "limits",
        &limits,
        &["another robot spec", "joint limits", "expected", "got"],
    );
    let names = sealed(&renamed_joint(), 6);
    node.refuses(
        "joints",
        &names,
        &["joints: expected elbow, wrist, got elbow, hand"],
    );
}

#[test]
fn a_bundle_for_a_task_without_a_robot_is_refused() {
    let mut node = Running::start();
    let task = Subject::Task(TaskSpec {
        name: "HalfCheetah-v5".into(),
        options: Default::default(),
        observation_size: spec().observation_size(),
        action_size: spec().action_size(),
        control_period_ns: spec().control_period_ns,
    });
    node.refuses(
        "task",
        &sealed_for(RUN, &task, 6),
        &["is for the task 'HalfCheetah-v5'", "expected one for a robot"],
    );
}

/// The robot with another name for its second joint.
fn renamed_joint() -> RobotSpec {
    let text = serde_json::to_string(&spec())
        .expect("JSON")
        .replace("wrist", "hand");
    serde_json::from_str(&text).expect("a spec")
}

#[test]
fn a_bundle_of_other_sizes_is_refused() {
    let mut node = Running::start();
    let more = sealed(
        &changed(|spec| {
            spec.observation
                .terms
                .push(ObservationTerm::PreviousAction { index: 0 })
        }),
        6,
    );
    node.refuses("observation", &more, &["observation size: expected 4, got 5"]);
    let fewer = sealed(&changed(|spec| drop(spec.action.joints.pop())), 6);
    node.refuses("action", &fewer, &["action size: expected 2, got 1"]);
    // Weights that contradict their own manifest; nobody seals these.
    let smaller = changed(|spec| drop(spec.observation.terms.pop()));
    let contradiction = forged(&sealed(&smaller, 6), |manifest, _| {
        manifest.subject = Subject::Robot(spec());
        for probe in &mut manifest.probes {
            probe.observation.push(0.0);
        }
    });
    node.refuses(
        "weights",
        &contradiction,
        &["the actor's observation size is 3; expected 4"],
    );
}

#[test]
fn a_bundle_that_is_not_newer_or_of_another_run_is_refused() {
    let mut node = Running::start();
    node.refuses(
        "older",
        &sealed(&spec(), 4),
        &["version 4", "run 'run-a'", "expected above 5"],
    );
    let same_version = forged(&sealed(&spec(), 5), |manifest, _| manifest.created_unix_s += 1);
    node.refuses("same version", &same_version, &["version 5", "expected above 5"]);
    let other_run = sealed_in("run-b", &spec(), 9);
    node.refuses("run", &other_run, &["run 'run-b'", "run 'run-a'", "accept_runs"]);

    // The live bundle again is what a latched publisher sends to whoever comes later: no mistake, and no swap.
    let live = node.live.clone();
    node.offer(&live);
    node.commands_go_on("the live bundle again");
    let status = node.peer.next("policy/status", 2).pop().unwrap_or_default();
    assert_eq!(
        (&status["rejections"], &status["swaps"]),
        (&3.into(), &0.into()),
        "{status}"
    );
    assert_eq!(node.accepts(&sealed(&spec(), 6))["state"], state::ACTIVE);
}

#[test]
fn a_bundle_whose_probes_or_spec_do_not_hold_is_refused() {
    let mut node = Running::start();
    let lie = forged(&sealed(&spec(), 6), |manifest, _| {
        manifest.probes[1].action[0] += 0.1
    });
    node.refuses("probe", &lie, &["golden probe 1", "component 0", "expected"]);
    let wrong_hash = reworded(&sealed(&spec(), 6), &spec().hash(), &"00".repeat(32));
    node.refuses(
        "spec hash",
        &wrong_hash,
        &["expected", &spec().hash(), &"00".repeat(32)],
    );
    let newer_format = forged(&sealed(&spec(), 6), |manifest, _| {
        manifest.format = "mfpo-policy-bundle/2".into();
    });
    node.refuses(
        "format",
        &newer_format,
        &["mfpo-policy-bundle/2", "reads 'mfpo-policy-bundle/1'"],
    );
}

#[test]
fn a_bad_policy_to_start_with_is_refused_with_its_name_and_the_reason() {
    let env = TestEnv::new();
    let bundle = sealed(&spec(), 1);
    let cut = env.file("cut.safetensors", &bundle[..bundle.len() - 9]);
    let good = env.file("good.safetensors", &bundle);
    for (parameters, words) in [
        (
            vec![format!("policy:={}", cut.display())],
            ["cut.safetensors", "not a complete safetensors file"],
        ),
        (
            vec!["policy:=/nowhere/p.safetensors".into()],
            ["/nowhere/p.safetensors", "No such file"],
        ),
        (
            vec![format!("policy:={}", good.display()), "robot:=other".into()],
            ["is for robot 'two_joints'", "expected 'other'"],
        ),
        (
            vec![format!("policy:={}", good.display()), "rate:=100.0".into()],
            ["trained for 50 Hz", "expected 100 Hz"],
        ),
        (
            vec![format!("policy:={}", good.display()), "candidates:=4".into()],
            ["carries no critics", "candidates is 4"],
        ),
        (
            vec![format!("policy:={}", good.display()), "fallback:=hold".into()],
            ["does not fit commands in N m", "damp, zero"],
        ),
    ] {
        let parameters: Vec<&str> = parameters.iter().map(String::as_str).collect();
        let mut control = env.control(&parameters);
        assert_eq!(control.ended().code(), Some(1), "{parameters:?}");
        let log = control.log();
        assert_says(&log, &words);
        assert!(
            words.iter().all(|word| log.matches(word).count() == 1),
            "a reason is told once: {log}"
        );
    }
}
