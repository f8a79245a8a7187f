//! What is recorded, and what of it is computed again: a robot that is commanded and recorded, for the laws of both.

mod files;
mod replayed;

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
use mfpo_policy::guard::{GuardManifest, Signal};
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

    /// Ticks once, with new states where the robot is not silent, and lets the recorder look.
    fn tick(&mut self, is_silent: bool) {
        self.step(is_silent);
        self.look();
    }

    fn look(&mut self) {
        self.recorder.look(at(self.now), system(at(self.now)));
    }

    fn step(&mut self, is_silent: bool) {
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
        self.look();
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
