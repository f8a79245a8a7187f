//! What is recorded is what was computed, and computing it again shows any bit that is another.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mcap::records::{MessageHeader, Record};
use mcap::{Attachment, WriteOptions};
use mfpo_node::control_loop::{ControlLoop, Decision, Reason, Settings, Tuning};
use mfpo_node::joint_states::JointStates;
use mfpo_node::recording::tick::{NAME, fallback_code};
use mfpo_node::recording::{
    Facts, METADATA, Mode, Note, Recorder, Recording, Settings as RecordSettings, TickContext, TickMessage,
    TickTap,
};
use mfpo_node::replay::{ReplayError, Report, replay};
use mfpo_node::safety::Unknown;
use mfpo_node::time::MonoTime;
use mfpo_node::weights::{Expected, Policy, StageSettings};
use mfpo_policy::bundle::with_guard;
use mfpo_policy::guard::GuardManifest;
use mfpo_policy::spec::{CommandInterface, RobotSpec};

use super::support::{MS, STALE_AFTER, at, bundle_with_critics, robot, send, settings};

const SECOND: u64 = 1000 * MS;

fn record_settings(folder: &Path, mode: Mode) -> RecordSettings {
    RecordSettings {
        folder: folder.to_owned(),
        mode,
        before: 2 * SECOND,
        after: SECOND,
        file_time: 3600 * SECOND,
        most_bytes: 400_000_000,
    }
}

/// A robot that is commanded and recorded.
struct Recorded {
    spec: RobotSpec,
    control: ControlLoop,
    states: JointStates,
    recorder: Recorder,
    recording: Recording,
    tap: TickTap,
    ticks: u64,
    now: f64,
}

/// A policy with critics, as a bundle that is kept.
fn policy(spec: &RobotSpec, version: u64) -> (Box<Policy>, Arc<[u8]>) {
    opened(&bundle_with_critics(spec, "run", version))
}

fn opened(bytes: &[u8]) -> (Box<Policy>, Arc<[u8]>) {
    let mut expected = Expected::new(String::new(), None, 12, Vec::new());
    expected.keeps_bundles = true;
    let mut policy = expected.validate(bytes).unwrap();
    let kept = policy.take_bundle().unwrap();
    assert_eq!(*kept, *bytes);
    (Box::new(policy), kept)
}

impl Recorded {
    fn new(settings: RecordSettings) -> Self {
        let spec = robot(CommandInterface::Effort);
        let facts = Facts {
            node: "left/control".into(),
            namespace: "/left".into(),
            seed: super::support::settings().seed,
            device: "cpu".into(),
            parameters: BTreeMap::from([("seed".into(), "7".into())]),
        };
        let (recording, recorder) = Recorder::new(settings, facts);
        let (first, bundle) = policy(&spec, 1);
        recording.note(Note::Policy(Arc::clone(first.identity()), bundle));
        let tap = recording.robot(&Arc::new(spec.clone()));
        let control = ControlLoop::new(&spec, first, loop_settings(0)).unwrap();
        Self {
            states: JointStates::new(&spec, STALE_AFTER),
            control,
            recorder,
            recording,
            tap,
            spec,
            ticks: 0,
            now: 0.0,
        }
    }

    /// Ticks once, with new states where the robot is not silent.
    fn tick(&mut self, is_silent: bool) {
        self.now += 20.0;
        let (now, k) = (at(self.now), self.ticks as f64);
        if !is_silent {
            send(
                &mut self.states,
                now,
                &["a", "b"],
                &[(0.02 * k).sin(), 0.1],
                &[0.5, 0.0],
            )
            .unwrap();
        }
        let Decision::Command(tick) = self.control.step(&self.states, now) else {
            panic!("nothing commanded")
        };
        self.tap.note(&tick, context(self.ticks, now));
        self.ticks += 1;
        drop(self.control.after(1e-5));
        self.recorder.look(now, system(now));
    }

    fn swap(&mut self, version: u64) {
        self.swap_to(policy(&self.spec, version));
    }

    fn swap_to(&mut self, (next, bundle): (Box<Policy>, Arc<[u8]>)) {
        self.recording
            .note(Note::Policy(Arc::clone(next.identity()), bundle));
        drop(self.control.begin_swap(next));
    }

    fn budget(&mut self, compute_budget: u64) {
        let mut tuning = Tuning::new(&self.spec, loop_settings(compute_budget)).unwrap();
        self.control.tune(&mut tuning);
    }

    fn end(mut self) {
        self.recording.note(Note::End("the test ends".into()));
        self.recorder.look(at(self.now), system(at(self.now)));
    }
}

/// With a blend of 10 ticks at a swap.
fn loop_settings(compute_budget: u64) -> Settings {
    Settings {
        candidates: 12,
        compute_budget,
        stages: StageSettings {
            blend: 0.2,
            ..StageSettings::NONE
        },
        ..settings()
    }
}

pub fn context(sequence: u64, now: MonoTime) -> TickContext {
    TickContext {
        sequence,
        stamp: now.nanos() as i64,
        oldest: (0, now),
        taken: now,
        decided: now,
        handed_over: now,
        missed: 0,
    }
}

/// What the system's clock shows then, ns.
fn system(now: MonoTime) -> u64 {
    1_700_000_000 * SECOND + now.nanos()
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    files.sort();
    files
}

/// 120 ticks of two policies at every depth, with a silence in between, in one file.
fn recorded(folder: &Path) -> PathBuf {
    let mut robot = Recorded::new(record_settings(folder, Mode::Continuous));
    for (number, budget) in [0, 1, SECOND, 0].into_iter().enumerate() {
        robot.budget(budget);
        (0..25).for_each(|_| robot.tick(false));
        (0..5).for_each(|_| robot.tick(number == 1));
        if number == 1 {
            robot.swap(2);
        }
    }
    robot.end();
    let [file] = files(folder).try_into().unwrap();
    file
}

#[test]
fn what_was_recorded_is_identical_when_it_is_computed_again() {
    let folder = tempfile::tempdir().unwrap();
    let report = replay(&recorded(folder.path())).unwrap();
    assert!(report.is_identical(), "{report:?}");
    assert_eq!((report.ticks, report.policies, report.missing), (120, 2, 0));
    // Five ticks of silence, of which the first two still have fresh states.
    assert_eq!(report.actions, 117, "{report:?}");
    assert!(!report.is_unfinished && report.first.is_none());
    assert_eq!(report.kernel(), Report::kernel_here());
    let said = |key: &str| report.metadata[key].as_str();
    assert_eq!(
        (said("seed"), said("node"), said("robot")),
        ("7", "left/control", "two_joints")
    );
    assert_eq!((said("joints"), said("command_joints")), ("a, b", "b, a"));
    let spec: RobotSpec = serde_json::from_str(said("robot_spec")).unwrap();
    assert_eq!(spec.hash(), robot(CommandInterface::Effort).hash());
}

/// Copies a recording, with each of its parts changed.
fn copied(
    from: &Path,
    mut tick: impl FnMut(u64, &mut TickMessage),
    bundle: impl Fn(&str, &mut Vec<u8>),
    metadata: impl Fn(&mut BTreeMap<String, String>),
) -> PathBuf {
    let to = from.with_extension("copy");
    let bytes = std::fs::read(from).unwrap();
    let mut writer = WriteOptions::new()
        .create(std::fs::File::create(&to).unwrap())
        .unwrap();
    let schema = writer.add_schema(NAME, "ros2msg", &[]).unwrap();
    let channel = writer
        .add_channel(schema, "/tick", "cdr", &BTreeMap::new())
        .unwrap();
    let mut number = 0;
    for record in mcap::read::ChunkFlattener::new(&bytes).unwrap() {
        match record.unwrap() {
            Record::Metadata(mut data) => {
                if data.name == METADATA {
                    metadata(&mut data.metadata);
                }
                writer.write_metadata(&data).unwrap();
            }
            Record::Attachment { header, data, .. } => {
                let mut data = data.into_owned();
                bundle(&header.name, &mut data);
                let attachment = Attachment {
                    log_time: 0,
                    create_time: 0,
                    name: header.name,
                    media_type: header.media_type,
                    data: Cow::Owned(data),
                };
                writer.attach(&attachment).unwrap();
            }
            Record::Message { header, data } if header.channel_id == 0 => {
                let mut message = TickMessage::decode(&data).unwrap();
                tick(number, &mut message);
                number += 1;
                let header = MessageHeader {
                    channel_id: channel,
                    ..header
                };
                writer
                    .write_to_known_channel(&header, &message.encode().unwrap())
                    .unwrap();
            }
            _ => {}
        }
    }
    writer.finish().unwrap();
    to
}

fn flip(value: &mut f32, bit: u32) {
    *value = f32::from_bits(value.to_bits() ^ (1 << bit));
}

#[test]
fn one_other_bit_is_found_and_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = recorded(folder.path());
    let of_tick = |change: &dyn Fn(&mut TickMessage)| {
        let copy = copied(
            &file,
            |number, tick| {
                if number == 17 {
                    change(tick);
                }
            },
            |_, _| {},
            |_| {},
        );
        replay(&copy).unwrap()
    };
    assert!(of_tick(&|_| {}).is_identical(), "a copy is as good");
    // The last bit of a position of 0.3 rad is far below what an action shows; a bit in its middle is not.
    for (what, report) in [
        ("observation", of_tick(&|tick| flip(&mut tick.observation[0], 12))),
        ("draw", of_tick(&|tick| tick.draw ^= 1)),
        ("candidates", of_tick(&|tick| tick.candidates = 1)),
        ("action", of_tick(&|tick| flip(&mut tick.action[1], 0))),
    ] {
        assert!(!report.is_identical(), "{what}");
        let first = report.first.unwrap();
        assert_eq!((first.tick, first.policy), (17, ("run".into(), 1)), "{what}");
        assert_eq!(report.differing, 1, "{what}");
        assert!(report.largest > 0.0, "{what}");
        if what == "action" {
            assert_eq!(first.component, 1);
            assert_eq!(first.recorded.to_bits() ^ 1, first.got.to_bits());
        }
    }
}

#[test]
fn a_blend_of_two_policies_is_computed_again_too() {
    let folder = tempfile::tempdir().unwrap();
    let file = recorded(folder.path());
    let mut weights = Vec::new();
    let copy = copied(
        &file,
        |_, tick| {
            if tick.previous_depth().is_some() {
                weights.push(tick.policy_weight);
                tick.policy_weight += 1e-3;
            }
        },
        |_, _| {},
        |_| {},
    );
    assert!(
        weights.len() >= 9 && weights.is_sorted() && weights[0] < 0.2,
        "{weights:?}"
    );
    let report = replay(&copy).unwrap();
    assert_eq!(report.policies, 2);
    assert!(
        report.differing as usize > weights.len() / 2,
        "another weight is another action: {report:?}"
    );
    assert!(report.first.unwrap().tick >= 60, "the swap is after 60 ticks");
}

#[test]
fn what_the_guard_refused_is_recorded_and_computed_again_too() {
    let folder = tempfile::tempdir().unwrap();
    let mut robot = Recorded::new(record_settings(folder.path(), Mode::Continuous));
    let guard = GuardManifest {
        spread_max: 1e-9,
        candidates: 8,
        in_a_row: 3,
    };
    let guarded = with_guard(&bundle_with_critics(&robot.spec, "run", 2), guard).unwrap();
    (0..10).for_each(|_| robot.tick(false));
    let settings = Settings {
        guard: true,
        ..loop_settings(0)
    };
    robot
        .control
        .tune(&mut Tuning::new(&robot.spec, settings).unwrap());
    robot.swap_to(opened(&guarded));
    // In the third tick of the blend the guard fires, and version 1 acts again.
    (0..10).for_each(|_| robot.tick(false));
    assert_eq!(robot.control.slot().current().identity().version, 1);
    robot.end();
    let [file] = files(folder.path()).try_into().unwrap();
    let report = replay(&file).unwrap();
    assert!(report.is_identical(), "{report:?}");
    assert_eq!((report.ticks, report.actions, report.missing), (20, 20, 0));
    let mut guarded = Vec::new();
    let note = |_, tick: &mut TickMessage| {
        if tick.fallback
            == fallback_code(Some(&Reason::Guard(Unknown {
                spread: 1.0,
                most: 0.0,
            })))
        {
            guarded.push((tick.sequence, tick.version));
        }
    };
    copied(&file, note, |_, _| {}, |_| {});
    assert_eq!(guarded, [(12, 2)]);
}

#[test]
fn a_recording_of_many_policies_is_computed_again_with_two_of_them_in_memory() {
    const POLICIES: u64 = 40;
    let folder = tempfile::tempdir().unwrap();
    let mut robot = Recorded::new(record_settings(folder.path(), Mode::Continuous));
    for version in 2..=POLICIES {
        // Longer than a blend.
        (0..12).for_each(|_| robot.tick(false));
        robot.swap(version);
    }
    (0..12).for_each(|_| robot.tick(false));
    // One that was live before the last one acts again, then a new one that blends with it.
    assert!(robot.control.roll_back());
    (0..12).for_each(|_| robot.tick(false));
    robot.swap(POLICIES + 1);
    (0..12).for_each(|_| robot.tick(false));
    robot.end();
    let [file] = files(folder.path()).try_into().unwrap();
    let report = replay(&file).unwrap();
    assert!(report.is_identical() && report.missing == 0, "{report:?}");
    assert_eq!(report.policies as u64, POLICIES + 1);
    assert_eq!(report.actions, 12 * (POLICIES + 2));
    assert_eq!(report.most_kept, 2, "the one that acts and the one before");
}

#[test]
fn another_seed_another_format_and_a_missing_policy_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = recorded(folder.path());
    let with = |key: &'static str, value: &'static str| {
        let copy = copied(
            &file,
            |_, _| {},
            |_, _| {},
            |metadata| {
                metadata.insert(key.into(), value.into());
            },
        );
        replay(&copy)
    };
    let report = with("seed", "8").unwrap();
    assert!(report.differing > 100, "{report:?}");
    assert_eq!(report.first.unwrap().tick, 0);
    let error = with("seed", "minus one").unwrap_err().to_string();
    assert!(
        error.contains("'minus one'") && error.contains("whole number"),
        "{error}"
    );
    let error = with("format", "mfpo-recording/9").unwrap_err().to_string();
    assert!(
        error.contains("mfpo-recording/9") && error.contains("mfpo-recording/1"),
        "{error}"
    );
    let copy = copied(&file, |_, tick| tick.digest = "ab".repeat(32), |_, _| {}, |_| {});
    let error = replay(&copy).unwrap_err();
    assert!(matches!(error, ReplayError::NoPolicy { tick: 0, .. }), "{error}");
}

#[test]
fn one_other_bit_in_a_policy_is_refused_and_the_policy_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = recorded(folder.path());
    let digests = std::cell::RefCell::new(Vec::new());
    let copy = copied(
        &file,
        |_, _| {},
        |name, bytes| {
            digests.borrow_mut().push(name.to_owned());
            if digests.borrow().len() == 2 {
                let last = bytes.len() - 1;
                bytes[last] ^= 1;
            }
        },
        |_| {},
    );
    let digests = digests.into_inner();
    assert_eq!(digests.len(), 2, "both policies are attached, once each");
    let error = replay(&copy).unwrap_err().to_string();
    assert!(
        error.contains(&digests[1]) && error.contains("promises"),
        "{error}"
    );
}

#[test]
fn a_file_that_is_cut_short_is_compared_as_far_as_it_goes_and_a_damaged_one_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = recorded(folder.path());
    let whole = std::fs::read(&file).unwrap();
    let copy = folder.path().join("copy");
    let of = |bytes: &[u8]| {
        std::fs::write(&copy, bytes).unwrap();
        replay(&copy)
    };
    let mut compared = Vec::new();
    for length in (0..whole.len()).step_by(509) {
        match of(&whole[..length]) {
            Ok(report) => {
                assert!(
                    report.is_identical() && report.is_unfinished,
                    "{length}: {report:?}"
                );
                compared.push(report.actions);
            }
            Err(ReplayError::Empty { .. } | ReplayError::Format { .. }) => assert!(compared.is_empty()),
            Err(error) => panic!("{length} of {} bytes: {error}", whole.len()),
        }
    }
    assert!(
        compared.is_sorted() && compared.last() == Some(&117),
        "{compared:?}"
    );
    let mut refused = 0;
    for place in (0..whole.len()).step_by(251) {
        let mut bytes = whole.clone();
        bytes[place] ^= 0x10;
        match of(&bytes) {
            // What lies after the last tick, or in what nobody reads, may be another.
            Ok(report) => assert!(
                report.is_identical() || report.first.is_some(),
                "{place}: {report:?}"
            ),
            Err(_) => refused += 1,
        }
    }
    assert!(
        refused * 251 > whole.len() * 3 / 4,
        "{refused} of {} places",
        whole.len() / 61
    );
    let error = of(b"PK\x03\x04 some other file, long enough to be looked at").unwrap_err();
    assert!(matches!(error, ReplayError::NotMcap), "{error}");
    assert!(
        replay(&folder.path().join("nothing"))
            .unwrap_err()
            .to_string()
            .contains("nothing")
    );
}

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
