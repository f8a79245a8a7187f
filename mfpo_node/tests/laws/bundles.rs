//! A bundle becomes the live policy only when it fits this robot, this node and this run; each refusal says what was
//! expected and what came.

use std::collections::BTreeMap;

use mfpo_node::control_loop::ControlLoop;
use mfpo_node::safety::FallbackChoice;
use mfpo_node::weights::Expected;
use mfpo_policy::signature::{SigningKey, TrustedKeys};
use mfpo_policy::spec::CommandInterface;
use mfpo_policy::subject::{Subject, TaskSpec};

use super::support::{bundle, bundle_for, bundle_with_critics, expected, policy, robot, settings};

fn refusal(expected: &Expected, bytes: &[u8]) -> String {
    match expected.validate(bytes) {
        Ok(policy) => panic!("accepted version {}", policy.identity().version),
        Err(refused) => refused.to_string(),
    }
}

fn with_version_5_live() -> Expected {
    let spec = robot(CommandInterface::Effort);
    let mut expected = expected();
    expected.went_live(&expected.validate(&bundle(&spec, "run-a", 5)).unwrap());
    expected
}

#[test]
fn a_bundle_that_fits_is_accepted_with_its_identity() {
    let spec = robot(CommandInterface::Effort);
    let policy = expected().validate(&bundle(&spec, "run-a", 5)).unwrap();
    let identity = policy.identity();
    assert_eq!((identity.run.as_str(), identity.version), ("run-a", 5));
    assert_eq!((identity.robot.as_str(), identity.steps), ("two_joints", 2));
    assert_eq!(identity.digest.len(), 64);
}

#[test]
fn truncated_and_corrupt_bundles_are_refused() {
    let bytes = bundle(&robot(CommandInterface::Effort), "run-a", 5);
    assert!(refusal(&expected(), &bytes[..bytes.len() / 2]).contains("not a complete safetensors file"));
    let mut corrupt = bytes.clone();
    let last = corrupt.len() - 3;
    corrupt[last] ^= 0x10;
    assert!(
        refusal(&expected(), &corrupt).contains("digest"),
        "{}",
        refusal(&expected(), &corrupt)
    );
    assert!(expected().validate(&[]).is_err());
}

#[test]
fn a_bundle_of_another_robot_is_refused_with_both_names() {
    let mut other = robot(CommandInterface::Effort);
    other.robot = "three_joints".into();
    let text = refusal(&with_version_5_live(), &bundle(&other, "run-a", 6));
    assert!(
        text.contains("'three_joints'") && text.contains("'two_joints'"),
        "{text}"
    );
    let named = Expected::new("my_arm".into(), None, 1, Vec::new());
    let text = refusal(&named, &bundle(&robot(CommandInterface::Effort), "run-a", 1));
    assert!(
        text.contains("'two_joints'") && text.contains("expected 'my_arm'"),
        "{text}"
    );
}

#[test]
fn a_bundle_of_a_task_without_a_robot_is_refused_whatever_is_expected() {
    let spec = robot(CommandInterface::Effort);
    let task = Subject::Task(TaskSpec {
        name: "two_joints".into(),
        options: BTreeMap::new(),
        observation_size: spec.observation_size(),
        action_size: spec.action_size(),
        control_period_ns: spec.control_period_ns,
    });
    let named = Expected::new("two_joints".into(), None, 1, Vec::new());
    for expected in [expected(), named, with_version_5_live()] {
        let text = refusal(&expected, &bundle_for(&task, "run-a", 6));
        assert!(
            text.contains("for the task 'two_joints'") && text.contains("expected one for a robot"),
            "{text}"
        );
    }
}

#[test]
fn a_bundle_of_another_control_period_is_refused_with_both_rates() {
    let mut slow = robot(CommandInterface::Effort);
    slow.control_period_ns *= 2;
    let text = refusal(&with_version_5_live(), &bundle(&slow, "run-a", 6));
    assert!(
        text.contains("25 Hz") && text.contains("expected 50 Hz"),
        "{text}"
    );
    let at_100_hz = Expected::new(String::new(), Some(100.0), 1, Vec::new());
    let text = refusal(&at_100_hz, &bundle(&robot(CommandInterface::Effort), "run-a", 1));
    assert!(
        text.contains("50 Hz") && text.contains("expected 100 Hz"),
        "{text}"
    );
}

#[test]
fn a_bundle_of_other_sizes_or_joints_is_refused_with_the_difference() {
    let mut other = robot(CommandInterface::Effort);
    other.observation.terms.pop();
    let text = refusal(&with_version_5_live(), &bundle(&other, "run-a", 6));
    assert!(text.contains("observation size: expected 5, got 4"), "{text}");
    let mut other = robot(CommandInterface::Effort);
    other.joints.swap(0, 1);
    let text = refusal(&with_version_5_live(), &bundle(&other, "run-a", 6));
    assert!(text.contains("joints: expected a, b, got b, a"), "{text}");
    let text = refusal(
        &with_version_5_live(),
        &bundle(&robot(CommandInterface::Velocity), "run-a", 6),
    );
    assert!(text.contains("expected N m, got rad/s"), "{text}");
}

#[test]
fn a_joint_that_differs_is_shown_as_its_manifest_says_it() {
    let mut other = robot(CommandInterface::Effort);
    other.joints[1].effort_max = 3.5;
    let text = refusal(&with_version_5_live(), &bundle(&other, "run-a", 6));
    for part in [
        r#"joint limits: expected {"name":"b","#,
        r#""effort_max":1.0"#,
        r#", got {"name":"b","#,
        r#""effort_max":3.5"#,
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
}

#[test]
fn versions_rise_within_a_run() {
    let spec = robot(CommandInterface::Effort);
    let mut expected = with_version_5_live();
    for version in [4, 5] {
        let text = refusal(&expected, &bundle(&spec, "run-a", version));
        assert!(
            text.contains(&format!("version {version}")) && text.contains("above 5"),
            "{text}"
        );
    }
    let six = expected.validate(&bundle(&spec, "run-a", 6)).unwrap();
    expected.went_live(&six);
    assert!(refusal(&expected, &bundle(&spec, "run-a", 6)).contains("above 6"));
}

#[test]
fn an_older_version_goes_live_only_where_the_operator_allows_it() {
    let spec = robot(CommandInterface::Effort);
    let mut expected = with_version_5_live();
    assert!(refusal(&expected, &bundle(&spec, "run-a", 3)).contains("parameter allow_downgrade"));
    expected.allow_downgrade = true;
    let three = expected.validate(&bundle(&spec, "run-a", 3)).unwrap();
    expected.went_live(&three);
    expected.allow_downgrade = false;
    assert!(refusal(&expected, &bundle(&spec, "run-a", 3)).contains("above 3"));
    assert!(expected.validate(&bundle(&spec, "run-a", 4)).is_ok());
}

#[test]
fn versions_rise_also_after_everything_was_given_up_but_what_acted_last_may_begin_again() {
    let spec = robot(CommandInterface::Effort);
    let [five, six, seven] = [5, 6, 7].map(|version| bundle(&spec, "run-a", version));
    let mut expected = with_version_5_live();
    let six_identity = {
        let policy = expected.validate(&six).unwrap();
        expected.went_live(&policy);
        policy.identity().clone()
    };
    expected.went_live(&expected.validate(&seven).unwrap());
    // Version 7 was returned from.
    expected.rolled_back(&six_identity);
    for _ in 0..2 {
        expected.forget();
        for (bytes, version) in [(&five, "version 5"), (&seven, "version 7")] {
            let text = refusal(&expected, bytes);
            let parts = [version, "run 'run-a'", "above 7", "parameter allow_downgrade"];
            assert!(parts.iter().all(|part| text.contains(part)), "{text}");
        }
        assert!(
            expected.validate(&bundle(&spec, "run-b", 1)).is_ok(),
            "any run begins"
        );
        let again = expected.validate(&six).unwrap();
        expected.went_live(&again);
        assert!(refusal(&expected, &seven).contains("above 7"), "still not newer");
    }
    expected.forget();
    expected.forget();
    assert!(
        expected.validate(&six).is_ok(),
        "also where nothing was loaded meanwhile"
    );
    expected.allow_downgrade = true;
    assert!(expected.validate(&five).is_ok());
}

#[test]
fn an_announced_bundle_has_the_digest_that_was_announced() {
    let spec = robot(CommandInterface::Effort);
    let (six, seven) = (bundle(&spec, "run-a", 6), bundle(&spec, "run-a", 7));
    let digest = |bytes| mfpo_policy::bundle::open(bytes).unwrap().digest().to_owned();
    let expected = with_version_5_live();
    let accepted = expected.validate_new(&six, Some(&digest(&six))).unwrap();
    assert_eq!(accepted.map(|policy| policy.identity().version), Some(6));
    let Err(refused) = expected.validate_new(&six, Some(&digest(&seven))) else {
        panic!("accepted");
    };
    let text = refused.to_string();
    assert!(
        text.contains(&digest(&six)) && text.contains(&digest(&seven)),
        "{text}"
    );
}

#[test]
fn what_acts_tells_the_digest_of_the_weights_in_its_memory() {
    let bytes = bundle_with_critics(&robot(CommandInterface::Effort), "run-a", 5);
    let policy = expected().validate(&bytes).unwrap();
    let opened = mfpo_policy::bundle::open(&bytes).unwrap();
    assert_eq!(policy.identity().weights_digest, opened.weights_digest().unwrap());
    assert_ne!(policy.identity().weights_digest, policy.identity().digest);
}

#[test]
fn publishing_the_live_bundle_again_is_no_mistake() {
    let bytes = bundle(&robot(CommandInterface::Effort), "run-a", 5);
    let mut expected = expected();
    expected.went_live(&expected.validate(&bytes).unwrap());
    assert!(expected.validate_new(&bytes, None).unwrap().is_none());
}

#[test]
fn another_run_takes_over_only_where_the_parameter_names_it() {
    let spec = robot(CommandInterface::Effort);
    let text = refusal(&with_version_5_live(), &bundle(&spec, "run-b", 9));
    assert!(
        text.contains("'run-b'") && text.contains("[run-a]") && text.contains("accept_runs"),
        "{text}"
    );
    for allowed in ["run-b", "*"] {
        let mut expected = with_version_5_live();
        expected.accept_runs = vec![allowed.into()];
        // Versions are compared within a run only.
        assert!(expected.validate(&bundle(&spec, "run-b", 1)).is_ok());
    }
}

#[test]
fn with_trusted_keys_only_bundles_that_one_of_them_signed_are_accepted() {
    let key = |seed| SigningKey::from_seed(&[seed; 32]);
    let plain = bundle(&robot(CommandInterface::Effort), "run-a", 1);
    let signed = |seed| mfpo_policy::bundle::sign(&plain, &key(seed)).unwrap();
    assert!(expected().validate(&signed(2)).is_ok(), "nobody is asked for");
    let mut expected = expected();
    expected.trusted_keys = TrustedKeys(vec![key(1).public()]);
    assert!(expected.validate(&signed(1)).is_ok());
    let text = refusal(&expected, &plain);
    assert!(
        text.contains("the bundle is not signed") && text.contains("trusted_keys"),
        "{text}"
    );
    let text = refusal(&expected, &signed(2));
    assert!(
        text.contains(&format!("is signed by {}", key(2).public())),
        "{text}"
    );
}

#[test]
fn best_of_n_needs_critics_in_the_bundle() {
    let expected = Expected::new(String::new(), None, 4, Vec::new());
    let text = refusal(&expected, &bundle(&robot(CommandInterface::Effort), "run-a", 1));
    assert!(
        text.contains("no critics") && text.contains("candidates is 4"),
        "{text}"
    );
}

#[test]
fn a_policy_that_takes_too_long_for_its_period_is_refused() {
    let mut fast = robot(CommandInterface::Effort);
    fast.control_period_ns = 100;
    let text = refusal(&expected(), &bundle(&fast, "run-a", 1));
    assert!(text.contains("us an action; expected at most"), "{text}");
}

#[test]
fn a_stale_timeout_below_the_control_period_is_refused_with_both() {
    let spec = robot(CommandInterface::Effort);
    let mut settings = settings();
    settings.stale_after = 10_000_000;
    let Err(error) = ControlLoop::new(&spec, policy(&spec, 1), settings) else {
        panic!("accepted")
    };
    let text = error.to_string();
    assert!(
        text.contains("stale_timeout is 0.01 s") && text.contains("0.02 s"),
        "{text}"
    );
}

#[test]
fn a_fallback_that_does_not_fit_the_robot_stops_the_node_before_it_starts() {
    let spec = robot(CommandInterface::Position);
    let mut settings = settings();
    settings.fallback = FallbackChoice::Damp;
    assert!(ControlLoop::new(&spec, policy(&spec, 1), settings).is_err());
}
