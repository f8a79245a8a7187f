//! What is recorded is what was computed, and computing it again shows any bit that is another.

use super::*;

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
    // Every signal is asked for; the spread is what trips.
    let guard = GuardManifest {
        disagreement_max: Some(2.1),
        spread_max: Some(1e-9),
        value_min: Some(-10.1),
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
                signal: Signal::Spread,
                got: 1.0,
                limit: 0.0,
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
