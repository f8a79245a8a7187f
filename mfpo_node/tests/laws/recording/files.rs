//! Which files a recorder leaves, when, and with what in each.

use super::*;

#[test]
fn before_a_fault_the_last_seconds_are_kept_and_a_few_after() {
    let folder = tempfile::tempdir().unwrap();
    let mut robot = Recorded::new(record_settings(folder.path(), Mode::BeforeFault));
    (0..500).for_each(|_| robot.tick(false));
    assert!(files(folder.path()).is_empty(), "nothing has gone wrong");
    (0..10).for_each(|_| robot.tick(true));
    (0..200).for_each(|_| robot.tick(false));
    let [file] = files(folder.path()).try_into().unwrap();
    let report = replay(&file).unwrap();
    assert!(report.is_identical() && !report.is_unfinished, "{report:?}");
    assert!(
        report.metadata["why"].contains("the joint states are not fit"),
        "{report:?}"
    );
    // 2 s before the third tick of silence, and 1 s after it.
    assert!((150..=153).contains(&report.ticks), "{report:?}");
    assert_eq!((report.ticks - report.actions, report.missing), (8, 0));

    // Nothing is recorded twice: a bundle that is refused, then an order.
    robot.recording.note(Note::Fault(
        "a bundle was refused: it is for another robot".into(),
    ));
    (0..10).for_each(|_| robot.tick(false));
    let saved = robot.recording.save();
    (0..100).for_each(|_| robot.tick(false));
    let [_, second] = files(folder.path()).try_into().unwrap();
    assert_eq!(saved.try_recv().unwrap(), Ok(second.clone()));
    let report = replay(&second).unwrap();
    assert!(
        report.is_identical() && report.metadata["why"].contains("another robot"),
        "{report:?}"
    );
    assert!(
        (160..=163).contains(&report.ticks),
        "100 before, 10, 50 after: {report:?}"
    );
    robot.end();
    let files = files(folder.path());
    assert_eq!(files.len(), 3, "the end of the node is worth a recording");
    assert!(replay(&files[2]).unwrap().is_identical());
}

#[test]
fn a_folder_that_takes_no_file_disturbs_nobody_and_is_tried_again() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("recordings");
    std::fs::write(&place, "in the way").unwrap();
    let mut robot = Recorded::new(record_settings(&place, Mode::Continuous));
    (0..100).for_each(|_| robot.tick(false));
    let health = robot.recording.health();
    assert!(health.failure.unwrap().contains("recordings"));
    assert_eq!((health.written, health.kept, health.file), (0, 100, None));
    std::fs::remove_file(&place).unwrap();
    (0..300).for_each(|_| robot.tick(false));
    assert!(!place.exists(), "10 s have not passed");
    (0..300).for_each(|_| robot.tick(false));
    let health = robot.recording.health();
    robot.end();
    let [file] = files(&place).try_into().unwrap();
    let report = replay(&file).unwrap();
    assert_eq!((health.failures, &health.failure), (1, &None));
    assert_eq!((health.written, health.file), (report.ticks, Some(file)));
    assert!(report.is_identical(), "{report:?}");
    // From 2 s before the disk took it.
    assert!((295..=305).contains(&report.ticks), "{report:?}");
}

#[test]
fn a_fault_that_the_disk_did_not_take_is_written_when_it_does() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("recordings");
    std::fs::write(&place, "in the way").unwrap();
    let mut robot = Recorded::new(record_settings(&place, Mode::BeforeFault));
    (0..500).for_each(|_| robot.tick(false));
    (0..10).for_each(|_| robot.tick(true));
    // Another one while the disk is not asked.
    (0..100).for_each(|_| robot.tick(false));
    (0..10).for_each(|_| robot.tick(true));
    std::fs::remove_file(&place).unwrap();
    (0..600).for_each(|_| robot.tick(false));
    let [file] = files(&place).try_into().unwrap();
    let report = replay(&file).unwrap();
    assert!(report.is_identical() && !report.is_unfinished, "{report:?}");
    assert!(
        report.metadata["why"].contains("the joint states are not fit"),
        "{report:?}"
    );
    // From 2 s before the first fault until the disk took it, 10 s later.
    assert!((595..=610).contains(&report.ticks), "{report:?}");
    assert_eq!(robot.recording.health().failure, None);
    // What comes after is kept for as long as before.
    assert!(robot.recording.health().kept <= 101);
    robot.end();
}

#[test]
fn recordings_follow_each_other_without_a_gap_and_each_holds_its_policy() {
    let folder = tempfile::tempdir().unwrap();
    let settings = RecordSettings {
        file_time: SECOND,
        ..record_settings(folder.path(), Mode::Continuous)
    };
    let mut robot = Recorded::new(settings);
    (0..200).for_each(|_| robot.tick(false));
    robot.end();
    let reports: Vec<Report> = files(folder.path())
        .iter()
        .map(|file| replay(file).unwrap())
        .collect();
    assert_eq!(reports.len(), 4);
    assert!(
        reports.iter().all(|r| r.is_identical() && r.policies == 1),
        "{reports:?}"
    );
    assert_eq!(reports.iter().map(|r| r.ticks).sum::<u64>(), 200);
}

#[test]
fn ticks_that_the_recorder_has_not_read_when_saving_is_asked_for_are_saved() {
    // The tick is there before the recorder looks, or comes while it does.
    for looks_before in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let mut robot = Recorded::new(record_settings(folder.path(), Mode::BeforeFault));
        robot.look();
        robot.step(false);
        if looks_before {
            robot.look();
        }
        let saved = robot.recording.save();
        robot.look();
        robot.look();
        let [file] = files(folder.path()).try_into().unwrap();
        assert_eq!(saved.try_recv().unwrap(), Ok(file.clone()));
        robot.end();
        assert_eq!(replay(&file).unwrap().ticks, 1);
    }
    // Who asks as the node ends is answered, too.
    let folder = tempfile::tempdir().unwrap();
    let mut robot = Recorded::new(record_settings(folder.path(), Mode::BeforeFault));
    robot.look();
    robot.step(false);
    let saved = robot.recording.save();
    robot.end();
    assert_eq!(files(folder.path()), [saved.try_recv().unwrap().unwrap()]);
}
