//! What is left when the loop has run to its end: numbers for programs and for people, the learning curve, the last
//! policy, and a picture of the robot where rendering is available.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use serde::Serialize;

use crate::children::{Priority, Program};
use crate::conductor::TrainerEnd;
use crate::story::Story;
use crate::trial::{Episode, Trial};

/// The robot has learnt from this share of successes on ...
const LEARNT: f64 = 0.7;
/// ... when it is at least this much more than before.
const BETTER: f64 = 0.3;
/// Poses in the picture of the robot.
const POSES: usize = 8;
/// The first states of an episode arrive this late at most, ns.
const ARRIVAL: i64 = 80_000_000;
/// Cosine of an angle that counts as upright.
const UPRIGHT: f64 = 0.99;
/// Drawing may take this long.
const DRAWING: Duration = Duration::from_secs(30);
/// What a machine lacks that cannot draw.
const TO_DRAW: &str = "to get one: apt-get install libegl1 libgl1-mesa-dri";

/// The numbers. The first eight names are read by other programs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// Share of the starts at which the untrained policy reached the goal, on the robot.
    pub success_before: f64,
    /// Share of the same starts at which the last policy reached it.
    pub success_after: f64,
    /// Policies that went live in place of another while the robot moved.
    pub swaps: u64,
    /// Deadlines whose command was more than a period late, or never sent.
    pub missed_ticks: u64,
    /// State taken -> command handed to rmw, us: the median second's median.
    pub tick_p50_us: f64,
    /// The median second's 99th percentile, us.
    pub tick_p99_us: f64,
    /// Environment steps of the trainer.
    pub train_steps: u64,
    /// From the start of the first process to this summary.
    pub seconds: f64,
    /// Has the robot learnt?
    pub learnt: bool,
    /// Seed of the training.
    pub seed: u64,
    /// Training run.
    pub run: String,
    /// Version of the last policy.
    pub version: u64,
    /// Digest of the last policy.
    pub digest: String,
    /// How the trainer ended.
    pub trainer: String,
    /// Updates of the trainer.
    pub train_updates: u64,
    /// Duration of the training.
    pub train_seconds: f64,
    /// Deadlines since the first command.
    pub ticks: u64,
    /// Ticks that the watchdog commanded.
    pub fallback_ticks: u64,
    /// Bundles that the control node refused.
    pub rejections: u64,
    /// Did robot and control node run with real-time priorities?
    pub realtime: bool,
    /// The worst second's 99th percentile, us.
    pub tick_p99_worst_us: f64,
    /// The largest latency of all, us.
    pub tick_max_us: f64,
    /// Each trial on the robot.
    pub results: Vec<TrialResult>,
}

/// One trial.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TrialResult {
    /// `before` or `after`.
    pub name: &'static str,
    /// Version of the policy.
    pub version: u64,
    /// Episodes, one for each start.
    pub episodes: usize,
    /// Successful ones.
    pub successes: usize,
    /// Mean sum of rewards.
    pub mean_return: f64,
}

impl TrialResult {
    fn new(name: &'static str, trial: &Trial) -> anyhow::Result<Self> {
        Ok(Self {
            name,
            version: trial.version,
            episodes: trial.counted(),
            successes: trial.successes(),
            mean_return: rounded(trial.mean_return().context("a trial is not complete")?, 2),
        })
    }
}

impl Summary {
    /// The numbers of a loop that ran to its end.
    ///
    /// # Errors
    /// When it did not.
    pub fn new(story: &Story, trainer: &TrainerEnd) -> anyhow::Result<Self> {
        let before = story.before.as_ref().context("there was no trial before")?;
        let after = story.after.as_ref().context("there was no trial after")?;
        let node = story
            .node
            .as_ref()
            .context("the control node has not been heard")?;
        let success_before = before.success().context("the trial before is not complete")?;
        let success_after = after.success().context("the trial after is not complete")?;
        let microseconds = |latency: Option<f64>| rounded(1e6 * latency.unwrap_or_default(), 1);
        let report = &story.training.report;
        Ok(Self {
            success_before,
            success_after,
            swaps: node.swaps,
            missed_ticks: node.missed_ticks,
            tick_p50_us: microseconds(story.latencies.p50()),
            tick_p99_us: microseconds(story.latencies.p99()),
            train_steps: report.step,
            seconds: rounded(story.elapsed().as_secs_f64(), 1),
            learnt: has_learnt(success_before, success_after),
            seed: story.seed,
            run: node.run.clone(),
            version: after.version,
            digest: after.digest.clone(),
            trainer: trainer.words(),
            train_updates: report.updates,
            train_seconds: rounded(report.seconds, 1),
            ticks: node.ticks,
            fallback_ticks: node.fallback_ticks,
            rejections: node.rejections,
            realtime: story.realtime,
            tick_p99_worst_us: microseconds(story.latencies.worst_p99()),
            tick_max_us: microseconds(Some(node.latency_max)),
            results: vec![
                TrialResult::new("before", before)?,
                TrialResult::new("after", after)?,
            ],
        })
    }

    /// For a person, on a terminal.
    pub fn text(&self) -> String {
        let trial = |index: usize| {
            self.results.get(index).map_or_else(String::new, |trial| {
                format!(
                    "{:>2} of {} starts, mean return {:.1} (version {})",
                    trial.successes, trial.episodes, trial.mean_return, trial.version
                )
            })
        };
        let verdict = if self.learnt {
            "The robot has learnt its task while it moved."
        } else {
            "The robot has not learnt its task this time."
        };
        format!(
            "{verdict}\n\
             \x20 untrained   {}\n\
             \x20 trained     {}\n\
             \x20 swaps       {} policies went live while the robot moved, {} refused\n\
             \x20 ticks       {}, {} missed; latency p50 {:.0} us, p99 {:.0} us, largest {:.0} us\n\
             \x20 training    {} steps, {} updates in {:.0} s; {}\n\
             \x20 time        {:.0} s",
            trial(0),
            trial(1),
            self.swaps,
            self.rejections,
            self.ticks,
            self.missed_ticks,
            self.tick_p50_us,
            self.tick_p99_us,
            self.tick_max_us,
            self.train_steps,
            self.train_updates,
            self.train_seconds,
            self.trainer,
            self.seconds,
        )
    }
}

/// The rule by which the robot has learnt.
fn has_learnt(before: f64, after: f64) -> bool {
    after >= LEARNT && after - before >= BETTER - 1e-9
}

fn rounded(value: f64, digits: i32) -> f64 {
    let scale = 10_f64.powi(digits);
    (value * scale).round() / scale
}

/// Writes the report and collects what belongs to it; returns what could not be had.
pub fn write(
    folder: &Path,
    summary: &Summary,
    poses: &[f64],
    programs: &Path,
) -> anyhow::Result<Vec<String>> {
    let run = folder.join("train");
    let mut missing = Vec::new();
    for (from, to) in [
        ("last.safetensors", "policy.safetensors"),
        ("curve.png", "curve.png"),
    ] {
        if let Err(error) = fs::copy(run.join(from), folder.join(to)) {
            missing.push(format!("{to}: {error}"));
        }
    }
    missing.extend(
        draw(folder, poses, programs)
            .err()
            .map(|error| format!("robot.png: {error}")),
    );
    let json = serde_json::to_string_pretty(summary)?;
    put(&folder.join("report.json"), &format!("{json}\n"))?;
    put(&folder.join("report.md"), &markdown(summary, &missing))?;
    Ok(missing)
}

fn put(path: &Path, text: &str) -> anyhow::Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// The poses of a successful episode: evenly spread over the swing up, and the last one.
pub fn poses(angles: impl IntoIterator<Item = (i64, f64)>, episode: &Episode) -> Vec<f64> {
    let began = episode.began + ARRIVAL;
    let angles: Vec<f64> = angles
        .into_iter()
        .filter(|(at, _)| (began..episode.ended).contains(at))
        .map(|(_, angle)| angle)
        .collect();
    let upright = angles.iter().position(|angle| angle.cos() > UPRIGHT);
    let (Some(last), Some(up)) = (angles.last(), upright) else {
        return Vec::new();
    };
    let swing = (0..POSES - 1).filter_map(|k| angles.get(k * up / (POSES - 2)));
    swing.chain([last]).copied().collect()
}

/// Draws the robot with `robot_picture`, where it was built and off-screen rendering works.
fn draw(folder: &Path, poses: &[f64], programs: &Path) -> Result<PathBuf, String> {
    let program = programs.join("robot_picture");
    if !program.exists() {
        return Err("robot_picture was not built (feature mfpo_sim/renderer)".to_owned());
    }
    let out = folder.join("robot.png");
    let mut arguments = vec!["--out".to_owned(), out.display().to_string()];
    if !poses.is_empty() {
        arguments.extend(["--poses".to_owned(), format!("{poses:?}")]);
    }
    let log = folder.join("picture.log");
    let mut process = Program {
        name: "robot_picture",
        path: program,
        arguments,
        log: log.clone(),
        priority: Priority::Ordinary,
    }
    .start()
    .map_err(|error| format!("{error:#}"))?;
    let deadline = Instant::now() + DRAWING;
    while process.ended().is_none() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(20));
    }
    if process.ended().is_some_and(|status| status.success()) {
        return Ok(out);
    }
    let said = fs::read_to_string(&log).unwrap_or_default();
    let reason = said.lines().last().unwrap_or("robot_picture failed");
    Err(format!("{reason}; {TO_DRAW}"))
}

fn markdown(summary: &Summary, missing: &[String]) -> String {
    let mut text = format!(
        "# A robot learnt while it moved\n\n```\n{}\n```\n\n\
         Success is measured on the robot over ROS 2, on the same starts before and after, which the trainer never \
         evaluates on; the trained policy is the last one. A latency is the time from taking the joint state to \
         handing the command to the middleware; p50 and p99 are those of the median second of the run, the worst \
         second's p99 was {:.0} us.\n\n\
         Seed {}, run `{}`, digest `{}`.\n\n",
        summary.text(),
        summary.tick_p99_worst_us,
        summary.seed,
        summary.run,
        summary.digest,
    );
    text += "| File | |\n|---|---|\n\
        | `report.json` | these numbers |\n\
        | `policy.safetensors` | the last policy |\n\
        | `curve.png` | learning curve |\n\
        | `robot.png` | the robot in the first successful episode of the last policy |\n\
        | `train/` | run folder of the trainer: configuration, metrics, every bundle |\n\
        | `demo.log`, `robot.log`, `control.log`, `trainer.log` | logs |\n";
    if !missing.is_empty() {
        text += "\nNot there:\n";
        for line in missing {
            text += &format!("- {line}\n");
        }
    }
    if missing.iter().all(|line| !line.starts_with("curve")) {
        text += "\n![learning curve](curve.png)\n";
    }
    if missing.iter().all(|line| !line.starts_with("robot")) {
        text += "\n![robot](robot.png)\n";
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::story::{NodeState, NodeStatus};

    fn trial(successes: u64, version: u64) -> Trial {
        let mut trial = Trial::new(20, "digest", version, 0);
        for index in 0..20 {
            trial.take(&Episode {
                index,
                began: 1,
                ended: 2,
                success: index < successes,
                episode_return: 10.0,
                real_time_factor: 1.0,
            });
        }
        trial
    }

    fn story(before: u64, after: u64) -> Story {
        let mut story = Story::new(Duration::from_secs(180), 3, 20);
        story.before = Some(trial(before, 0));
        story.after = Some(trial(after, 17));
        story.take_status(NodeStatus {
            stamp: 1,
            state: NodeState::Active,
            message: String::new(),
            run: "run".into(),
            version: 17,
            digest: "digest".into(),
            swaps: 9,
            rejections: 0,
            last_rejection: String::new(),
            ticks: 6_000,
            missed_ticks: 0,
            fallback_ticks: 0,
            tick_rate: 50.0,
            latency_p50: 81e-6,
            latency_p99: 160e-6,
            latency_max: 900e-6,
        });
        story
    }

    #[test]
    fn the_line_for_programs_has_the_promised_keys_with_their_values() {
        let summary = Summary::new(&story(1, 18), &TrainerEnd::Finished).unwrap();
        let line = serde_json::to_string(&summary).unwrap();
        assert_eq!(line.lines().count(), 1);
        let json: serde_json::Value = serde_json::from_str(&line).unwrap();
        for (key, value) in [
            ("success_before", 0.05),
            ("success_after", 0.9),
            ("swaps", 9.0),
            ("missed_ticks", 0.0),
            ("tick_p50_us", 81.0),
            ("tick_p99_us", 160.0),
            ("train_steps", 0.0),
        ] {
            assert_eq!(json[key].as_f64(), Some(value), "{key}");
        }
        assert!(json["seconds"].as_f64().is_some());
        assert_eq!(json["results"].as_array().map(Vec::len), Some(2));
    }

    #[test]
    fn there_is_no_summary_of_a_loop_that_did_not_end() {
        let mut story = story(1, 18);
        story.after = Some(Trial::new(20, "digest", 17, 0));
        assert!(Summary::new(&story, &TrainerEnd::Finished).is_err());
    }

    #[test]
    fn learnt_means_good_and_clearly_better_than_before() {
        assert!(has_learnt(0.4, 0.7));
        assert!(!has_learnt(0.45, 0.7), "hardly better than before");
        assert!(!has_learnt(0.0, 0.65), "not good");
    }

    #[test]
    fn poses_are_those_of_the_swing_up_and_the_last_one() {
        let millisecond = 1_000_000;
        let episode = Episode {
            index: 0,
            began: 0,
            ended: 2_500 * millisecond,
            success: true,
            episode_return: 0.0,
            real_time_factor: 1.0,
        };
        // Upright at first, which is the episode before; then up from below within 1.6 s, and past the end.
        let angles = (0..300_i64).map(|k| {
            let time = 10 * k;
            let angle = match time {
                ..80 => 0.0,
                80..1_600 => 3.1 * (1.0 - time as f64 / 1_600.0),
                1_600..2_500 => 0.01,
                _ => 3.0,
            };
            (time * millisecond, angle)
        });
        let poses = poses(angles, &episode);
        assert_eq!((poses.len(), poses.last()), (POSES, Some(&0.01)));
        assert!(
            poses[0] > 2.9 && poses.windows(2).all(|pair| pair[0] > pair[1]),
            "{poses:?}"
        );
        assert!(poses[6].cos() > UPRIGHT && poses[5].cos() < UPRIGHT);
    }
}
