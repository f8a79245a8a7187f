use super::*;
use crate::algorithm::AlgorithmKind;

fn run(seed: u64, sets: &[&str], values: &[f64]) -> RunCurve {
    let sets: Vec<String> = sets.iter().map(|text| (*text).to_owned()).collect();
    let config = TrainConfig::load("swing_arm", None, &sets).unwrap();
    let evaluations = values
        .iter()
        .enumerate()
        .map(|(i, v)| (i as u64 * 10, i as f64, *v));
    RunCurve {
        folder: format!("runs/{seed}"),
        info: RunInfo::new("run", "swing_arm", config.run.algorithm, seed),
        config,
        evaluations: evaluations.collect(),
    }
}

#[test]
fn seeds_are_one_curve_and_what_differs_is_named() {
    let runs = [
        run(0, &[], &[1.0, 4.0, 9.0]),
        run(1, &[], &[3.0, 8.0]),
        run(0, &["run.algorithm=sac"], &[0.0]),
        run(2, &["learner.tau=0.5"], &[5.0]),
    ];
    assert_eq!(runs[2].info.algorithm, AlgorithmKind::Sac);
    let groups = groups(&runs, Along::Steps);
    let labels: Vec<&str> = groups.iter().map(|group| group.label.as_str()).collect();
    assert_eq!(
        labels,
        [
            "MFPO (mean and range of 2 seeds)",
            "SAC (seed 0)",
            "MFPO, learner.tau = 0.5 (seed 2)"
        ]
    );
    // The third point of the first run has no partner.
    assert_eq!(groups[0].points, [(0.0, 2.0, 1.0, 3.0), (10.0, 6.0, 4.0, 8.0)]);
    let text = summary(&runs);
    assert!(
        text.starts_with("MFPO (mean and range of 2 seeds): step 10, interquartile mean 6.0 [4.0, 8.0]"),
        "{text}"
    );
    let told: Vec<bool> = text.lines().map(|line| line.contains("left out")).collect();
    assert_eq!(told, [true, false, false], "{text}");
    assert!(
        text.contains("not all of them were measured, up to 20\n"),
        "{text}"
    );
    let folder = tempfile::tempdir().unwrap();
    draw(&runs, Along::Seconds, &folder.path().join("plot.png")).unwrap();
    assert!(folder.path().join("plot.png").exists());
}

#[test]
fn a_step_that_was_measured_twice_counts_once() {
    let mut runs = [run(0, &[], &[1.0, 4.0]), run(1, &[], &[3.0])];
    runs[0].evaluations.push((10, 2.0, 6.0));
    let groups = super::groups(&runs, Along::Steps);
    // The second run was not measured there.
    assert_eq!(groups[0].points, [(0.0, 2.0, 1.0, 3.0)]);
    runs[1].evaluations.push((10, 3.0, 8.0));
    let groups = super::groups(&runs, Along::Steps);
    assert_eq!(groups[0].points[1..], [(10.0, 7.0, 6.0, 8.0)]);
}

#[test]
fn runs_without_a_step_in_common_are_told_and_not_silently_left_out() {
    let mut runs = [run(0, &[], &[1.0]), run(1, &[], &[3.0])];
    runs[1].evaluations[0].0 = 7;
    let text = summary(&runs);
    assert!(
        text.contains("no step at which all were measured") && text.contains("up to 7"),
        "{text}"
    );
}

#[test]
fn runs_of_one_seed_are_no_more_evidence_than_one() {
    let runs = [0, 0, 0, 1].map(|seed| run(seed, &[], &[4.0 * seed as f64]));
    let text = summary(&runs);
    let expected = "MFPO (mean and range of 4 runs of 2 seed(s)): step 0, interquartile mean 2.0 [0.0, 4.0]";
    assert!(text.starts_with(expected), "{text}");
}

#[test]
fn what_another_algorithm_learns_by_is_no_difference_and_many_are_counted() {
    let many = [
        "learner.tau=0.5",
        "learner.atoms=51",
        "learner.probes=3",
        "learner.discount=0.9",
    ];
    let runs = [
        run(0, &["run.algorithm=sac"], &[1.0]),
        run(1, &["run.algorithm=sac", "learner.tau=0.5"], &[1.0]),
        run(2, &["run.algorithm=sac", "sac.tau=0.5"], &[1.0]),
        run(3, &["sac.tau=0.5"], &[1.0]),
        run(4, &many, &[1.0]),
        run(5, &many[..3], &[1.0]),
    ];
    let groups = groups(&runs, Along::Steps);
    let labels: Vec<&str> = groups.iter().map(|group| group.label.as_str()).collect();
    assert_eq!(
        labels,
        [
            "SAC (mean and range of 2 seeds)",
            "SAC, sac.tau = 0.5 (seed 2)",
            "MFPO (seed 3)",
            "MFPO, 4 other settings in runs/4 (seed 4)",
            "MFPO, learner.atoms = 51, learner.probes = 3, learner.tau = 0.5 (seed 5)",
        ]
    );
}

#[test]
fn runs_of_other_options_or_candidates_are_curves_of_their_own_in_either_order() {
    let runs = [
        run(0, &["task.frame_skip=4"], &[1.0]),
        run(1, &[], &[1.0]),
        run(2, &["evaluation.candidates=8"], &[1.0]),
    ];
    let groups = groups(&runs, Along::Steps);
    let labels: Vec<&str> = groups.iter().map(|group| group.label.as_str()).collect();
    assert_eq!(
        labels,
        [
            "MFPO (seed 0)",
            "MFPO, task.frame_skip left out (seed 1)",
            "MFPO, task.frame_skip left out, evaluation.candidates = 8 (seed 2)",
        ]
    );
}

/// Leaves a run that was measured once.
fn store(folder: &Path) {
    fs::create_dir_all(folder).unwrap();
    let run = run(0, &[], &[]);
    run.info.store(folder).unwrap();
    fs::write(folder.join("config.toml"), run.config.to_toml().unwrap()).unwrap();
    let line = serde_json::json!({
        "kind": "evaluation", "step": 1, "seconds": 1.0, "mean_return": 2.0, "std_return": 0.0,
        "mean_length": 9.0, "episodes": 1, "candidates": 1,
    });
    fs::write(folder.join("metrics.jsonl"), format!("{line}\n")).unwrap();
}

#[test]
fn folders_of_folders_of_runs_are_searched_but_no_run_is() {
    let parent = tempfile::tempdir().unwrap();
    let at = |name: &str| parent.path().join(name);
    for name in ["first", "hopper/s0", "hopper/s1", "first/before_1"] {
        store(&at(name));
    }
    fs::write(at("notes.txt"), "mine").unwrap();
    let runs = find_runs(&[parent.path().to_owned()]).unwrap();
    let folders: Vec<String> = runs.into_iter().map(|run| run.folder).collect();
    assert_eq!(
        folders,
        ["first", "hopper/s0", "hopper/s1"].map(|name| at(name).display().to_string())
    );
    let text = find_runs(&[at("notes.txt")]).unwrap_err().to_string();
    assert!(
        text.contains("notes.txt") && text.contains("expected the folder"),
        "{text}"
    );
}

#[test]
fn a_run_that_was_not_measured_yet_keeps_no_other_from_being_drawn() {
    let parent = tempfile::tempdir().unwrap();
    let at = |name: &str| parent.path().join(name);
    store(&at("new"));
    fs::write(at("new/metrics.jsonl"), "").unwrap();
    let text = find_runs(&[at("new")]).unwrap_err().to_string();
    assert!(
        text.contains("was not measured yet; wait for its first evaluation"),
        "{text}"
    );
    let text = find_runs(&[parent.path().to_owned()]).unwrap_err().to_string();
    assert!(text.contains("no run was measured yet"), "{text}");
    store(&at("old"));
    assert_eq!(find_runs(&[parent.path().to_owned()]).unwrap().len(), 1);
}

#[test]
fn a_line_that_no_run_writes_is_named() {
    let parent = tempfile::tempdir().unwrap();
    store(parent.path());
    let path = parent.path().join("metrics.jsonl");
    let before = fs::read_to_string(&path).unwrap();
    fs::write(&path, before.clone() + "{\"kind\"").unwrap();
    let runs = find_runs(&[parent.path().to_owned()]).unwrap();
    assert_eq!(
        runs[0].last_return(),
        Some(2.0),
        "a line that is not whole yet is none"
    );
    fs::write(&path, before + "{\"kind\"\n").unwrap();
    let text = find_runs(&[parent.path().to_owned()]).unwrap_err().to_string();
    assert!(text.starts_with("line 2 of "), "{text}");
}

#[test]
fn a_run_that_is_named_twice_is_one() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("one");
    store(&folder);
    let roundabout = folder.join("..").join("one");
    let named = [folder.clone(), parent.path().to_owned(), roundabout, folder];
    assert_eq!(find_runs(&named).unwrap().len(), 1);
}

#[test]
fn a_folder_that_is_no_run_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let text = find_runs(&[folder.path().to_owned()]).unwrap_err().to_string();
    assert!(text.contains("is no run and holds none"), "{text}");
}

#[test]
fn a_picture_that_cannot_be_drawn_leaves_the_one_that_was_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("plot.png");
    let runs = [run(0, &[], &[1.0, 4.0])];
    draw(&runs, Along::Steps, &path).unwrap();
    let before = fs::read(&path).unwrap();
    // A folder in the place of the picture that is being drawn.
    fs::create_dir(folder.path().join(".plot.png.mfpo-unfinished.png")).unwrap();
    let text = draw(&runs, Along::Steps, &path).unwrap_err().to_string();
    assert!(text.contains("plot.png"), "{text}");
    assert_eq!(fs::read(&path).unwrap(), before);
}
