//! `train --until-success`: a run that ends once it succeeds, and what it means to go on with it.

use mfpo_train::checkpoint::{Checkpoints, Header};

use super::*;

#[test]
fn a_run_that_succeeded_is_not_measured_again_and_goes_on_where_no_success_is_asked_for() {
    let mut training = Training::new(160);
    // Two evaluations with any share at all, those of steps 0 and 120.
    let early = ["--until-success=0", "--set=evaluation.every=20"];
    training.args.extend(early.map(str::to_owned));
    assert!(training.spawn().wait_with_output().unwrap().status.success());
    let run = training.path("");
    let metrics = || std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let header = || -> Header { Checkpoints::new(&run).load().unwrap().0 };
    let (measured, ended) = (metrics(), header());
    assert_eq!(ended.step, 120);

    let report = told(&[
        "train",
        "--json-progress",
        "--resume",
        text(&run),
        "--until-success=0",
    ]);
    let report: Value = serde_json::from_str(report.trim_end()).unwrap();
    assert_eq!(report["step"], 120, "the only report: {report}");
    assert!(report["return"].is_number(), "{report}");
    assert_eq!(metrics(), measured, "it has succeeded, and is measured already");
    assert_eq!((header().step, header().version), (120, ended.version));

    told(&["train", "--quiet", "--resume", text(&run)]);
    assert_eq!(header().step, 160);
}
