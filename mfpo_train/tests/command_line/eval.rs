//! `eval` of a run: by its folder, by its checkpoint, by its last bundle.

use mfpo_train::checkpoint::{Checkpoints, Header};

use super::*;

/// Trains to the end, and tells the run folder.
fn trained(training: &Training) -> PathBuf {
    let args: Vec<&str> = training.args.iter().map(String::as_str).collect();
    told(&args);
    training.folder.path().join("run")
}

/// A short training on a task with options, conditions and a normaliser that are not the usual ones.
fn hopper(sets: &[&str]) -> Training {
    let mut training = Training::new(130);
    training.args.push("--task=Hopper-v5".to_owned());
    let own = [
        "task.frame_skip=8",
        "environment.mass=0.3",
        "run.normalize_observations=true",
    ];
    let sets = own.iter().chain(sets).map(|set| format!("--set={set}"));
    training.args.extend(sets);
    training
}

/// The last evaluation in the metrics.
fn evaluation(run: &Path) -> Value {
    let metrics = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let mut lines = metrics
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.rfind(|line| line["kind"] == "evaluation").unwrap()
}

/// What `eval` measures in as many episodes as the run did.
fn measured(path: &Path, more: &[&str]) -> Value {
    let eval = ["eval", text(path), "--episodes=2", "--json"];
    serde_json::from_str(&told(&[&eval[..], more].concat())).unwrap()
}

#[test]
fn a_run_of_sac_is_measured_as_it_measured_itself() {
    let training = hopper(&[
        "run.algorithm=sac",
        "sac.hidden_sizes=[16, 16]",
        "sac.batch_size=16",
    ]);
    let run = trained(&training);
    let (own, by_folder) = (evaluation(&run), measured(&run, &[]));
    for key in ["mean_return", "std_return", "mean_length"] {
        assert_eq!(by_folder[key], own[key], "{key}");
    }
    assert_eq!(
        (&by_folder["environment_of"], &by_folder["environment"]["mass"]),
        (&"run".into(), &0.3.into())
    );
    for file in ["checkpoints/last.safetensors", "last.sac.safetensors"] {
        assert_eq!(measured(&run.join(file), &[]), by_folder, "{file}");
    }
    for other in ["--seed=1", "--environment=task", "--set=environment.mass=0.1"] {
        let elsewhere = measured(&run, &[other]);
        assert_ne!(elsewhere["mean_return"], by_folder["mean_return"], "{other}");
    }
    let words = told(&["eval", text(&run), "--episodes=2"]);
    assert!(
        words.contains(" at step 130 (SAC): 2 episodes, 1 candidate(s)"),
        "{words}"
    );
    let words = refusal(&["eval", text(&run), "--candidates=2"]);
    assert!(
        words.contains("run holds nothing that chooses among candidates"),
        "{words}"
    );
}

#[test]
fn the_best_policy_of_sac_is_kept_under_its_own_name_and_is_no_bundle() {
    let training = hopper(&[
        "run.algorithm=sac",
        "sac.hidden_sizes=[16, 16]",
        "sac.batch_size=16",
        "evaluation.every=5",
    ]);
    let run = trained(&training);
    let best = run.join("best.sac.safetensors");
    let metrics = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let lines = metrics
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    let evaluations = lines.filter(|line| line["kind"] == "evaluation");
    let returns: Vec<f64> = evaluations
        .map(|line| line["mean_return"].as_f64().unwrap())
        .collect();
    assert!(returns.len() > 3, "{returns:?}");
    let highest = returns.iter().copied().fold(f64::MIN, f64::max);
    assert_eq!(measured(&best, &[])["mean_return"], highest, "{returns:?}");
    // Elsewhere, too: task, options and conditions are in the file.
    let elsewhere = training.folder.path().join("elsewhere.safetensors");
    std::fs::copy(&best, &elsewhere).unwrap();
    assert_eq!(measured(&elsewhere, &[]), measured(&best, &[]));
    for subcommand in ["inspect", "verify", "guard"] {
        let words = refusal(&[subcommand, text(&best)]);
        assert!(
            words.contains("it is the policy of a SAC run, which mfpo_train eval measures"),
            "{subcommand}: {words}"
        );
    }
    let mut damaged = std::fs::read(&best).unwrap();
    *damaged.last_mut().unwrap() ^= 1;
    std::fs::write(&best, damaged).unwrap();
    let words = refusal(&["eval", text(&best)]);
    assert!(
        words.contains("best.sac.safetensors is refused") && words.contains("its digest differs"),
        "{words}"
    );
    // A run whose checkpoint is gone has still a policy to give.
    std::fs::remove_dir_all(run.join("checkpoints")).unwrap();
    let words = refusal(&["eval", text(&run)]);
    let last = run.join("last.sac.safetensors");
    assert!(words.contains(&format!("give {}\n", last.display())), "{words}");
}

#[test]
fn a_run_of_mfpo_is_measured_by_its_folder_as_by_its_last_bundle() {
    let training = hopper(&["learner.hidden_sizes=[16, 16]", "evaluation.candidates=3"]);
    let run = trained(&training);
    let (own, bundle) = (evaluation(&run), run.join("last.safetensors"));
    for (candidates, expected) in [
        ("--candidates=3", &own["mean_return"]),
        ("--candidates=1", &own["without_selection"]["mean_return"]),
    ] {
        let by_folder = measured(&run, &[candidates]);
        assert_eq!(by_folder["mean_return"], *expected, "{candidates}");
        assert_eq!(by_folder, measured(&bundle, &[candidates]), "{candidates}");
    }
    let other = ["--seed=1", "--environment=task"];
    assert_eq!(measured(&run, &other), measured(&bundle, &other));
    let words = refusal(&["eval", text(&run), "--task=swing_arm"]);
    assert!(
        words.contains("for the task 'Hopper-v5'") && words.contains("for the robot 'swing_arm'"),
        "{words}"
    );
}

#[test]
fn a_folder_without_a_checkpoint_is_refused_with_what_to_give() {
    let empty = tempfile::tempdir().unwrap();
    let words = refusal(&["eval", text(empty.path())]);
    for part in [
        "holds no checkpoint; expected the folder of a run, with ",
        "checkpoints/last.safetensors: give another folder, or a bundle",
    ] {
        assert!(words.contains(part), "{words}");
    }
    let training = Training::new(110);
    let run = trained(&training);
    let checkpoints = run.join("checkpoints");
    let refused_for = |folder: &Path, instead: &Path| {
        let words = refusal(&["eval", text(folder)]);
        assert!(
            words.contains(&format!("last.safetensors: give {}\n", instead.display())),
            "{words}"
        );
        told(&["eval", text(instead), "--episodes=1"]);
    };
    refused_for(training.folder.path(), &run);
    refused_for(&checkpoints, &checkpoints.join("last.safetensors"));
    std::fs::remove_dir_all(&checkpoints).unwrap();
    refused_for(&run, &run.join("last.safetensors"));
}

#[test]
fn a_checkpoint_that_cannot_be_taken_is_named_beside_the_bundle_of_its_run() {
    let training = Training::new(110);
    let run = trained(&training);
    let checkpoints = Checkpoints::new(&run);
    let (last, bundle) = (checkpoints.last(), run.join("last.safetensors"));
    let refused_with = |parts: [&str; 2]| {
        for path in [&run, &last] {
            let words = refusal(&["eval", text(path)]);
            for part in [text(&last), parts[0], parts[1]] {
                assert!(words.contains(part), "{part}: {words}");
            }
        }
    };
    let (header, state) = checkpoints.load().unwrap();
    let whole = std::fs::read(&last).unwrap();
    std::fs::write(&last, &whole[..whole.len() - 9]).unwrap();
    let instead = format!("or measure the run's last policy, {}", bundle.display());
    refused_with(["is corrupt", &instead]);
    let header = Header {
        program: "7.0".to_owned(),
        ..header
    };
    let other = Header {
        format: 99,
        ..header.clone()
    };
    checkpoints.save(other, &state).unwrap();
    refused_with([
        "has format 99, written by mfpo_train 7.0; expected format 1",
        &instead,
    ]);
    let other = Header {
        config: format!("{}\n[later]\nkey = 1\n", header.config),
        ..header
    };
    checkpoints.save(other, &state).unwrap();
    refused_with([
        "written by mfpo_train 7.0; expected one of",
        "unknown section 'later'",
    ]);
}
