//! Films: what a player reads is the episode that was measured, in real time, and nothing else changes by it. Without
//! EGL (`MFPO_WITHOUT_RENDERING` is set by `cargo xtask test`) only the refusals are checked.

use std::path::Path;
use std::process::Command;

use mfpo_train::checkpoint::Checkpoints;
use openh264::decoder::Decoder;
use openh264::formats::YUVSource;
use serde_json::Value;
use shiguredo_mp4::boxes::{Avc1Box, SampleEntry};
use shiguredo_mp4::demux::{Input, Mp4FileDemuxer};

/// Columns and rows of the films here.
const SIZE: (usize, usize) = (96, 64);
/// Makes EGL's dispatcher find no driver, as on a machine without one.
const NO_DRIVER: [(&str, &str); 2] = [
    ("__EGL_VENDOR_LIBRARY_DIRS", "/nowhere"),
    ("__EGL_VENDOR_LIBRARY_FILENAMES", "/nowhere"),
];

fn can_draw() -> bool {
    std::env::var_os("MFPO_WITHOUT_RENDERING").is_none()
}

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mfpo_train"));
    command.args(args).env("RUST_LOG", "warn");
    command
}

/// What the program prints when it succeeds.
fn told(args: &[&str]) -> String {
    let output = command(args).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

fn launch_policy() -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../launch/policies");
    folder.join("swing_arm.safetensors").display().to_string()
}

/// A film as a player sees it.
struct Seen {
    /// `[height, width, 3]` each.
    pictures: Vec<Vec<u8>>,
    /// s
    duration: f64,
}

/// Takes the file apart and decodes every picture.
fn play(path: &Path) -> Seen {
    let bytes = std::fs::read(path).unwrap();
    let mut demuxer = Mp4FileDemuxer::new();
    demuxer.handle_input(Input {
        position: 0,
        data: &bytes,
    });
    let [track] = demuxer.tracks().unwrap() else {
        panic!("one track");
    };
    let duration = track.duration as f64 / f64::from(track.timescale.get());
    let mut decoder = Decoder::new().unwrap();
    let mut pictures = Vec::new();
    while let Some(sample) = demuxer.next_sample().unwrap() {
        let start = sample.data_offset as usize;
        let units = &bytes[start..start + sample.data_size];
        let mut stream = match sample.sample_entry {
            Some(SampleEntry::Avc1(entry)) => parameters(entry),
            Some(other) => panic!("{other:?}"),
            None => Vec::new(),
        };
        append_units(units, &mut stream);
        let picture = decoder
            .decode(&stream)
            .unwrap()
            .expect("a picture from every sample");
        assert_eq!(picture.dimensions(), SIZE);
        let mut rgb = vec![0; 3 * SIZE.0 * SIZE.1];
        picture.write_rgb8(&mut rgb);
        pictures.push(rgb);
    }
    Seen { pictures, duration }
}

const START: [u8; 4] = [0, 0, 0, 1];

fn parameters(entry: &Avc1Box) -> Vec<u8> {
    assert_eq!(
        (usize::from(entry.visual.width), usize::from(entry.visual.height)),
        SIZE
    );
    let sets = entry.avcc_box.sps_list.iter().chain(&entry.avcc_box.pps_list);
    sets.flat_map(|set| START.iter().chain(set).copied()).collect()
}

/// Units after their lengths, as units after start codes.
fn append_units(mut units: &[u8], stream: &mut Vec<u8>) {
    while let Some((length, rest)) = units.split_first_chunk::<4>() {
        let (unit, rest) = rest.split_at(u32::from_be_bytes(*length) as usize);
        stream.extend(START);
        stream.extend(unit);
        units = rest;
    }
}

/// Mean difference of two pictures, levels of 255.
fn difference(one: &[u8], other: &[u8]) -> f64 {
    let differences = one.iter().zip(other).map(|(a, b)| f64::from(a.abs_diff(*b)));
    differences.sum::<f64>() / one.len() as f64
}

/// Share of orange pixels, of which only the arm has any.
fn orange(picture: &[u8]) -> f64 {
    let pixels = picture.chunks_exact(3).map(|p| [p[0], p[1], p[2]].map(i32::from));
    let arm = pixels.filter(|[red, green, blue]| *red > green + 40 && *green > blue + 20);
    arm.count() as f64 / (SIZE.0 * SIZE.1) as f64
}

#[test]
fn a_film_is_the_measured_episodes_in_real_time() {
    if !can_draw() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("arm.mp4");
    let policy = launch_policy();
    let eval = ["eval", &policy, "--episodes", "2", "--json"];
    let film = ["--video", path.to_str().unwrap(), "--video-size", "96x64"];
    let filmed = told(&[&eval[..], &film].concat());
    assert_eq!(filmed, told(&eval), "the film changes what is measured");
    let evaluation: Value = serde_json::from_str(&filmed).unwrap();
    let steps = evaluation["mean_length"].as_f64().unwrap();

    let seen = play(&path);
    // A picture after each reset and each step, at 50 Hz.
    assert_eq!(seen.pictures.len(), 2 * (steps as usize + 1));
    assert!(
        (seen.duration - seen.pictures.len() as f64 * 0.02).abs() < 1e-6,
        "{} s",
        seen.duration
    );
    for picture in &seen.pictures {
        assert!((0.001..0.1).contains(&orange(picture)), "{}", orange(picture));
    }
    // The arm swings in the first second, and holds still at the end.
    let between = |a: usize, b: usize| difference(&seen.pictures[a], &seen.pictures[b]);
    let last = steps as usize;
    assert!(between(0, last) > 5.0 * between(last - 5, last) + 0.1);
    let names: Vec<_> = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|file| file.unwrap().file_name())
        .collect();
    assert_eq!(names, ["arm.mp4"], "no temporary file stays");
}

#[test]
fn a_film_without_a_name_lies_beside_the_bundle() {
    if !can_draw() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let bundle = folder.path().join("arm.safetensors");
    std::fs::copy(launch_policy(), &bundle).unwrap();
    let bundle = bundle.to_str().unwrap();
    let size = ["--video-size", "96x64"];
    let said = told(&[&["eval", bundle, "--episodes", "1", "--video"][..], &size].concat());
    let film = folder.path().join("arm.mp4");
    assert!(said.ends_with(&format!("film    {}\n", film.display())), "{said}");
    assert!(play(&film).pictures.len() > 100);
}

#[test]
fn the_policy_of_a_run_of_sac_is_filmed_into_its_folder() {
    if !can_draw() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    let sac = [
        "--algorithm=sac",
        "--set=sac.hidden_sizes=[16, 16]",
        "--set=sac.batch_size=16",
    ];
    let output = training(&run, "swing_arm", &sac).output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let eval = ["eval", run.to_str().unwrap(), "--episodes", "1", "--json"];
    let film = ["--video", "--video-size", "96x64"];
    let filmed = told(&[&eval[..], &film].concat());
    assert_eq!(filmed, told(&eval), "the film changes what is measured");
    let evaluation: Value = serde_json::from_str(&filmed).unwrap();
    let steps = evaluation["mean_length"].as_f64().unwrap();
    let seen = play(&run.join("last.mp4"));
    assert_eq!(seen.pictures.len(), steps as usize + 1);
    assert!(orange(&seen.pictures[0]) > 0.001, "the arm is not to be seen");
}

const SMALL: [&str; 10] = [
    "run.steps=160",
    "run.random_steps=100",
    "run.report_every=10",
    "run.publish_every=1000",
    "learner.hidden_sizes=[16, 16]",
    "learner.batch_size=16",
    "evaluation.every=130",
    "evaluation.episodes=2",
    "evaluation.candidates=2",
    "learner.threads=1",
];

fn training(folder: &Path, task: &str, more: &[&str]) -> Command {
    let mut command = command(&["train", "--quiet", "--seed", "3", "--task", task]);
    command.arg("--out").arg(folder).args(more);
    for set in SMALL {
        command.args(["--set", set]);
    }
    command
}

/// The lines of `metrics.jsonl` without their times.
fn metrics(folder: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(folder.join("metrics.jsonl")).unwrap();
    let line = |line: &str| {
        let mut value: Value = serde_json::from_str(line).unwrap();
        value.as_object_mut().unwrap().remove("seconds");
        value
    };
    text.lines().map(line).collect()
}

/// Names and numbers of the last checkpoint.
fn state(folder: &Path) -> String {
    let (_, state) = Checkpoints::new(folder).load().unwrap();
    let numbers = state
        .iter()
        .map(|(name, numbers)| format!("{name} {numbers:?}\n"));
    numbers.collect()
}

#[test]
fn a_filmed_run_learns_bit_by_bit_what_another_does() {
    if !can_draw() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (plain, filmed) = (folder.path().join("plain"), folder.path().join("filmed"));
    for (run, more) in [
        (&plain, &[][..]),
        (&filmed, &["--video", "--video-size", "96x64"]),
    ] {
        let output = training(run, "Hopper-v5", more).output().unwrap();
        assert!(
            output.status.success() && output.stderr.is_empty(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    assert_eq!(metrics(&plain), metrics(&filmed));
    assert_eq!(state(&plain), state(&filmed));
    assert!(!plain.join("films").exists());
    let mut films: Vec<_> = std::fs::read_dir(filmed.join("films"))
        .unwrap()
        .map(|film| film.unwrap().path())
        .collect();
    films.sort();
    let names: Vec<_> = films.iter().map(|film| film.file_name().unwrap()).collect();
    assert_eq!(
        names,
        ["step_00000000.mp4", "step_00000130.mp4", "step_00000160.mp4"]
    );
    // 125 Hz: every third step is a picture. The first episode is no longer than both together.
    let both = metrics(&filmed)
        .into_iter()
        .rfind(|line| line["kind"] == "evaluation")
        .unwrap();
    let both = 2.0 * both["mean_length"].as_f64().unwrap();
    let seen = play(&films[2]);
    let count = seen.pictures.len() as f64;
    assert!(
        count > 1.0 && count <= 1.0 + both / 3.0,
        "{count} pictures of {both} steps"
    );
    assert!((seen.duration - count * 0.024).abs() < 1e-6);
    assert!(difference(&seen.pictures[0], seen.pictures.last().unwrap()) > 0.5);
}

#[test]
fn without_egl_a_run_warns_once_what_to_install_and_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    let mut training = training(&run, "Hopper-v5", &["--video"]);
    let output = training.envs(NO_DRIVER).output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{text}");
    assert_eq!(text.matches("no films").count(), 1, "{text}");
    assert!(text.contains("apt-get install libegl1"), "{text}");
    assert_eq!(text.trim_end().lines().count(), 1, "{text}");
    assert_eq!(metrics(&run).last().unwrap()["step"], 160);
    assert!(!run.join("films").exists());
}

#[test]
fn without_egl_a_film_that_was_asked_for_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("arm.mp4").display().to_string();
    let mut eval = command(&["eval", &launch_policy(), "--video", &path]);
    let output = eval.envs(NO_DRIVER).output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text.contains("apt-get install libegl1"), "{text}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_film_that_cannot_be_written_is_refused_before_anything_is_measured() {
    if !can_draw() {
        return;
    }
    let mut eval = command(&["eval", &launch_policy(), "--video", "/nowhere/arm.mp4"]);
    let output = eval.output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text.contains("cannot write /nowhere/arm.mp4"), "{text}");
    let output = command(&[
        "eval",
        &launch_policy(),
        "--video",
        "a.mp4",
        "--video-size",
        "97x64",
    ])
    .output();
    let text = String::from_utf8(output.unwrap().stderr).unwrap();
    assert!(text.contains("even numbers"), "{text}");
}
