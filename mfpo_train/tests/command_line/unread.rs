//! What is told to nobody: `| head` has seen enough, a terminal is gone.

use super::*;

/// The writing end of a pipe that nobody reads any more.
fn nobody() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer.into()
}

#[test]
fn a_subcommand_that_nobody_reads_ends_as_quietly_as_other_programs() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let policy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../launch/policies/swing_arm.safetensors");
    let (key, signed, actions) = (at("key"), at("signed.safetensors"), at("actions.jsonl"));
    std::fs::write(&actions, "[0.5]\n".repeat(2_000)).unwrap();
    for args in [
        &["tasks"][..],
        &["inspect", text(&policy)],
        &["verify", text(&policy)],
        &["keygen", key.as_str()],
        &[
            "sign",
            text(&policy),
            "--key",
            key.as_str(),
            "--out",
            signed.as_str(),
        ],
        &["eval", text(&policy), "--episodes", "1"],
        &["eval", text(&policy), "--episodes", "1", "--json"],
        &["rollout", "swing_arm", "--actions", actions.as_str()],
    ] {
        let output = command(args).stdout(nobody()).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(141), "{args:?}: {said}");
        assert!(said.is_empty(), "{args:?}: {said}");
    }
    assert!(Path::new(&signed).exists(), "files come before words");
}

#[test]
fn a_guard_is_written_also_where_nobody_reads_the_table() {
    let folder = tempfile::tempdir().unwrap();
    let policy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../launch/policies/swing_arm.safetensors");
    let guarded = folder.path().join("guarded.safetensors");
    let args = [
        "guard",
        text(&policy),
        "--episodes",
        "2",
        "--write",
        text(&guarded),
        "--force",
    ];
    let output = command(&args).stdout(nobody()).output().unwrap();
    assert_eq!(output.status.code(), Some(141));
    assert!(output.stderr.is_empty() && guarded.exists());
}

#[test]
fn an_error_that_nobody_reads_is_no_panic() {
    let mut refused = command(&["inspect", "/nowhere.safetensors"]);
    let status = refused.stderr(nobody()).status().unwrap();
    assert_eq!(status.code(), Some(1));
}

#[test]
fn a_training_whose_progress_nobody_reads_any_more_stops_with_a_checkpoint() {
    let training = Training::new(1_000_000);
    let args: Vec<&str> = training.args.iter().map(String::as_str).collect();
    let mut child = command(&args)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut reports = BufReader::new(child.stdout.take().unwrap()).lines();
    let trained = reports
        .by_ref()
        .map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap());
    trained
        .take_while(|report| report["updates"].as_u64().unwrap() < 30)
        .for_each(drop);
    drop(reports);
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(141), "{said}");
    assert!(said.contains("nobody reads the progress"), "{said}");
    let (header, _) = mfpo_train::checkpoint::Checkpoints::new(&training.folder.path().join("run"))
        .load()
        .unwrap();
    assert!((130..1_000_000).contains(&header.step), "{}", header.step);
    assert!(training.path("curve.png").exists());
}

#[test]
fn a_training_whose_log_nobody_reads_goes_on_to_its_end() {
    let training = Training::new(120);
    let args: Vec<&str> = training.args.iter().map(String::as_str).collect();
    let mut train = command(&args);
    let status = train
        .env("RUST_LOG", "info")
        .stdout(Stdio::null())
        .stderr(nobody())
        .status()
        .unwrap();
    assert!(status.success());
    let checkpoints = mfpo_train::checkpoint::Checkpoints::new(&training.folder.path().join("run"));
    assert_eq!(checkpoints.load().unwrap().0.step, 120);
}
