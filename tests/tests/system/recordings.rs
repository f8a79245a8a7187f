//! What a node has recorded over real ROS 2: the same bits when it is computed again, whatever ended the recording, and
//! readable for everybody's tools.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mfpo_policy::spec::CommandInterface;
use mfpo_tests::bundles::{digest_of, sealed, two_joints};
use mfpo_tests::peer::state;
use mfpo_tests::{Peer, Process, TestEnv, assert_says, program, repository, until};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// A robot that version 1 commands, and that is recorded.
fn recorded(env: &TestEnv, parameters: &[&str]) -> (Peer, Process) {
    let policy = env.file("v1", &sealed(&two_joints(CommandInterface::Effort), 1));
    let mut peer = env.peer("");
    let own = [
        format!("policy:={}", policy.display()),
        format!("record.folder:={}", env.path("recordings").display()),
    ];
    let own: Vec<&str> = own.iter().map(String::as_str).collect();
    let control = env.control(&[&own, parameters].concat());
    peer.report_both_joints();
    peer.active();
    (peer, control)
}

/// The recordings that are there.
fn files(env: &TestEnv) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(env.path("recordings")) else {
        return Vec::new();
    };
    let mut files: Vec<_> = entries.map(|entry| entry.expect("a file").path()).collect();
    files.sort();
    files
}

/// What `replay` says, and whether all is identical.
fn replay(env: &TestEnv, file: &Path) -> (bool, String) {
    replay_with(env, file, &[])
}

/// [`replay`] with variables in its environment.
fn replay_with(env: &TestEnv, file: &Path, variables: &[(&str, &str)]) -> (bool, String) {
    let mut command = env.command(&program("replay"));
    let output = command.arg(file).envs(variables.iter().copied()).output();
    let output = output.expect("replay");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.success(),
        text(&output.stdout) + &text(&output.stderr),
    )
}

/// The recording as the Python packages read it.
fn read(env: &TestEnv, file: &Path) -> Value {
    let output = env
        .command(Path::new("python3"))
        .arg(repository().join("tests/python/recording.py"))
        .arg(file)
        .output()
        .expect("python3");
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{complaint}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn ticks(recording: &Value) -> &Vec<Value> {
    let ticks = &recording["topics"]["/policy/tick"]["messages"];
    ticks.as_array().expect("ticks")
}

#[test]
fn a_recording_across_a_swap_is_identical_and_everybody_can_open_it() {
    let env = TestEnv::new();
    let (mut peer, mut control) = recorded(&env, &["seed:=5"]);
    peer.next("policy/action", 20);
    let second = env.file("v2", &sealed(&two_joints(CommandInterface::Effort), 2));
    assert!(peer.load(&second).0);
    peer.status("version 2 acts", |s| s["version"] == 2);
    peer.next("policy/action", 40);
    control.signal(Signal::SIGTERM);
    assert_eq!(control.ended().code(), Some(0));
    let [file] = files(&env).try_into().expect("one recording");

    let (is_identical, words) = replay(&env, &file);
    assert!(is_identical, "{words}");
    assert_says(
        &words,
        &[
            "node /control",
            "two_joints",
            "seed 5",
            "identical: ",
            "of 2 policies",
        ],
    );
    assert!(
        !words.contains("not finished") && !words.contains("not recorded"),
        "{words}"
    );

    let recording = read(&env, &file);
    assert_eq!(recording["profile"], "ros2");
    let encodings = json!({"/policy/tick": "cdr", "/policy/status": "cdr", "/rosout": "cdr"});
    assert_eq!(recording["channels"], encodings);
    let schema = |topic: &str| &recording["topics"][topic]["schema"];
    assert_eq!(schema("/policy/status"), "mfpo_msgs/msg/PolicyStatus");
    assert_eq!(schema("/rosout"), "rcl_interfaces/msg/Log");
    check_ticks(&peer, ticks(&recording));

    let attached = recording["attachments"].as_array().expect("attachments");
    let expected = [env.path("v1"), second].map(|path| {
        let bundle = std::fs::read(path).expect("a bundle");
        let hash = hex::encode(Sha256::digest(&bundle));
        json!([digest_of(&bundle), "application/x-mfpo-policy-bundle", hash])
    });
    assert_eq!(**attached, expected, "both policies, byte for byte");
    let said = &recording["metadata"]["mfpo"];
    assert_eq!(
        (&said["seed"], &said["joints"]),
        (&json!("5"), &json!("elbow, wrist"))
    );
    assert_eq!(
        (&said["command_joints"], &said["device"]),
        (&json!("wrist, elbow"), &json!("cpu"))
    );
    assert_eq!(recording["metadata"]["parameters"]["stale_timeout"], "1");
    let lines = recording["topics"]["/rosout"]["messages"].to_string();
    assert_says(
        &lines,
        &["swapped to policy version 2", "the policy commands the robot"],
    );
    let statuses = recording["topics"]["/policy/status"]["messages"]
        .as_array()
        .expect("statuses");
    assert!(
        statuses
            .iter()
            .any(|s| s["state"] == state::ACTIVE && s["version"] == 2)
    );
}

/// Each record that was published is in the recording, number for number.
fn check_ticks(peer: &Peer, ticks: &[Value]) {
    let by_sequence: BTreeMap<u64, &Value> = ticks
        .iter()
        .map(|tick| (tick["sequence"].as_u64().expect("a number"), tick))
        .collect();
    let published = peer.messages("policy/action", 0);
    assert!(published.len() > 60);
    for action in &published {
        let sequence = action["sequence"].as_u64().expect("a number");
        let tick = by_sequence.get(&sequence);
        let tick = tick.unwrap_or_else(|| panic!("tick {sequence} is not in the recording"));
        let same = [
            "stamp",
            "state_stamp",
            "run",
            "version",
            "draw",
            "steps",
            "candidates",
            "in_stages",
            "action",
            "command_raw",
            "command",
            "blend",
            "compute_time",
            "latency",
        ];
        for field in same {
            // The action of a stop is none, and not told apart in the topic.
            if field != "action" || tick["fallback"] == 0 {
                assert_eq!(tick[field], action[field], "{field} of tick {sequence}");
            }
        }
        assert_eq!(
            tick["fallback"] != 0,
            action["fallback"] == true,
            "tick {sequence}"
        );
        let [computed, handed_over] = ["compute_time", "latency"].map(|field| action[field].as_f64());
        assert!(
            action["fallback"] == true || (computed > Some(0.0) && handed_over >= computed),
            "{action}"
        );
    }
    let last = ticks.last().expect("a tick");
    assert_eq!(
        (&last["fallback"], &last["command"]),
        (&json!(255), &json!([0.0, 0.0])),
        "the stop"
    );
}

/// The word that follows `text` in what `replay` says.
fn word_after<'a>(words: &'a str, text: &str) -> &'a str {
    let rest = words.split(text).nth(1);
    let word = rest.and_then(|rest| rest.split([' ', '\n', ';', ',']).next());
    word.unwrap_or_else(|| panic!("expected '{text}' and a word in:\n{words}"))
}

#[test]
fn replay_says_where_another_kernel_computes_and_by_how_much_actions_then_differ() {
    let env = TestEnv::new();
    let (peer, mut control) = recorded(&env, &["seed:=5"]);
    peer.next("policy/action", 60);
    control.signal(Signal::SIGTERM);
    assert_eq!(control.ended().code(), Some(0));
    let [file] = files(&env).try_into().expect("one recording");

    let (is_identical, words) = replay_with(&env, &file, &[("MFPO_KERNEL", "baseline")]);
    let recorded = word_after(&words, "recorded with kernel ");
    let here = word_after(&words, "kernel here: ");
    assert!(here.starts_with("baseline"), "{words}");
    if recorded == here {
        // This processor has no other one.
        assert!(is_identical && !words.contains("another kernel"), "{words}");
        return;
    }
    assert!(!is_identical, "not one bit of 60 actions differs:\n{words}");
    let why = format!("another kernel computed it: {recorded}, here it is {here}; ");
    let remedy = format!("MFPO_KERNEL={recorded} replay FILE");
    assert_says(&words, &["different: tick", "version 1 of run", &why, &remedy]);
    let most = word_after(&words, "actions differ, by ");
    let most: f64 = most.parse().unwrap_or_else(|error| panic!("{most}: {error}"));
    assert!(
        most > 0.0 && most < 1e-4,
        "only the last bits may differ: {words}"
    );

    let (is_identical, words) = replay_with(&env, &file, &[("MFPO_KERNEL", recorded)]);
    assert!(is_identical, "the remedy that was told: {words}");
    let (is_identical, words) = replay_with(&env, &file, &[("MFPO_KERNEL", "abacus")]);
    assert!(!is_identical);
    assert_says(
        &words,
        &["MFPO_KERNEL", "'abacus'", "expected one that this processor has"],
    );
}

#[test]
fn when_the_robot_falls_silent_the_seconds_before_are_kept() {
    let env = TestEnv::new();
    let (mut peer, control) = recorded(
        &env,
        &[
            "record.mode:=before_fault",
            "record.seconds:=2.0",
            "record.seconds_after:=0.5",
            "stale_timeout:=0.4",
        ],
    );
    let (saved, first) = peer.trigger("save_recording");
    assert!(saved, "{first}");
    control.says(&["recorded", &first]);
    std::thread::sleep(Duration::from_millis(2500));
    peer.silence("robot");
    peer.status("the fallback commands", |s| s["state"] == state::FALLBACK);
    control.says(&["recording", "joint states are not fit"]);
    until("every recording has ended", || {
        let log = control.log();
        let lines = |word: &str| log.lines().filter(|line| line.contains(word)).count();
        (lines(" recording to ") == lines(" recorded ")).then_some(())
    });

    for file in files(&env) {
        let (is_identical, words) = replay(&env, &file);
        assert!(is_identical, "{words}");
    }
    // On a busy machine a missed tick may have been worth a recording of its own, which then holds some of the seconds.
    let recordings: Vec<Value> = files(&env).iter().map(|file| read(&env, file)).collect();
    let all: BTreeMap<u64, &Value> = recordings
        .iter()
        .flat_map(ticks)
        .map(|tick| (tick["sequence"].as_u64().expect("a number"), tick))
        .collect();
    let fell = all.iter().find(|(_, tick)| tick["fallback"] == 1);
    let (&fell, tick) = fell.expect("a tick of the fallback");
    assert!(tick["observation"].as_array().is_some_and(Vec::is_empty));
    let before = all.range(..fell).count();
    assert!(
        before >= 90,
        "2 s are 100 ticks, some of which may have been missed: {before}"
    );
    let after = all.range(fell..).count();
    assert!((15..=50).contains(&after), "0.5 s are 25 ticks: {after}");
}

#[test]
fn what_was_recorded_before_sigkill_is_identical() {
    let env = TestEnv::new();
    let (peer, mut control) = recorded(&env, &[]);
    std::thread::sleep(Duration::from_millis(2500));
    control.signal(Signal::SIGKILL);
    control.ended();
    let [file] = files(&env).try_into().expect("one recording");
    let (is_identical, words) = replay(&env, &file);
    assert!(is_identical, "{words}");
    assert_says(&words, &["identical: ", "of 1 policies", "not finished"]);
    let actions = words
        .split("identical: ")
        .nth(1)
        .and_then(|rest| rest.split(' ').next());
    let actions: usize = actions.and_then(|number| number.parse().ok()).expect("a number");
    let published = peer.count("policy/action");
    assert!(
        actions + 80 > published,
        "{actions} of {published}: more than the last second is lost"
    );
}

#[test]
fn without_a_folder_nothing_is_recorded_and_a_recording_of_something_else_is_refused() {
    let env = TestEnv::new();
    let mut peer = env.peer("");
    let _control = env.control(&[]);
    let (saved, reason) = peer.trigger("save_recording");
    assert!(!saved);
    assert_says(&reason, &["record.folder"]);
    let other = env.file("other.mcap", b"this is no recording, but long enough to be one");
    let (is_identical, words) = replay(&env, &other);
    assert!(!is_identical);
    assert_says(&words, &["not an MCAP file", "expected"]);
    let (is_identical, words) = replay(&env, &env.path("nowhere.mcap"));
    assert!(!is_identical);
    assert_says(&words, &["nowhere.mcap", "No such file"]);
}
