//! What a run tells about itself: `metrics.jsonl`, the progress, the learning curve, and whether the task is learnt.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::algorithm::UpdateMetrics;
use crate::collapse::CollapseWatch;
use crate::episode::Finished;
use crate::evaluate::Evaluation;
use crate::events::Events;
use crate::metrics::{Metrics, finite_fields};
use crate::pace::Pace;
use crate::plot::{self, LearningCurve};
use crate::progress::{Progress, ProgressMode, Rate, Report};

/// A success rate counts when it was reached this many evaluations in a row.
const EVALUATIONS_IN_A_ROW: u32 = 2;

/// How a run is recorded.
pub struct Setup {
    /// The run folder.
    pub folder: PathBuf,
    /// Heading of the learning curve.
    pub title: String,
    /// Start of the run, seconds since 1970.
    pub started: f64,
    /// How progress is told.
    pub progress: ProgressMode,
    /// Steps of the run.
    pub steps: u64,
    /// Steps between two reports.
    pub report_every: u64,
    /// The success rate at which the task counts as learnt.
    pub until_success: Option<f64>,
}

/// Records one run.
pub struct Recorder {
    setup: Setup,
    metrics: Metrics,
    events: Events,
    progress: Progress,
    curve: LearningCurve,
    report: Report,
    step_rate: Rate,
    update_rate: Rate,
    /// The last update that was not written yet.
    last_update: Option<UpdateMetrics>,
    successes_in_a_row: u32,
    /// The newest measurement and its step.
    measured: Option<(u64, Evaluation)>,
    collapse: CollapseWatch,
    /// Of the steps with updates; none while actions are random, which are over in no time.
    pace: Option<Pace>,
    /// Who read the progress is gone.
    is_unread: bool,
    /// The last report could not be written; that was told.
    is_lost: bool,
}

/// One training episode in `metrics.jsonl`.
#[derive(Debug, Serialize, Deserialize)]
struct EpisodeLine {
    #[serde(rename = "return")]
    total_reward: f64,
    length: u64,
}

/// What a checkpoint keeps of the recorder; the rest is in `metrics.jsonl`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Bytes of `metrics.jsonl` so far.
    pub bytes: u64,
    /// Seconds of the run so far.
    pub seconds: f64,
    /// Updates so far.
    pub updates: u64,
    /// Evaluations in a row that had enough successes. A run that goes on counts them anew in `metrics.jsonl`: it may be asked
    /// for another share, or for none.
    pub successes_in_a_row: u32,
}

impl Recorder {
    /// Starts `metrics.jsonl` in the run folder; time counts from now.
    pub fn create(setup: Setup) -> anyhow::Result<Self> {
        let path = metrics_path(&setup);
        let metrics = Metrics::create(&path)?;
        Self::new(setup, metrics, 0)
    }

    /// Goes on from `record`, taken at `step`; what `metrics.jsonl` holds since then is removed, and written anew.
    ///
    /// # Errors
    /// When `metrics.jsonl` is shorter than the record says, or what would be kept of it is not what a run writes. Then
    /// no file has changed.
    pub fn resume(setup: Setup, record: &Record, step: u64) -> anyhow::Result<Self> {
        let path = metrics_path(&setup);
        let go_on = || format!("cannot go on with {}", path.display());
        // All of it before anything is cut: what is cut cannot be had back.
        for line in recalled(&path, record.bytes).with_context(go_on)? {
            line.with_context(go_on)?;
        }
        let metrics = Metrics::resume(&path, record.bytes, record.seconds).with_context(go_on)?;
        let mut recorder = Self::new(setup, metrics, step)?;
        for line in recalled(&path, record.bytes).with_context(go_on)? {
            recorder.recall(line.with_context(go_on)?)?;
        }
        recorder.report.updates = record.updates;
        let now = Instant::now();
        recorder.update_rate = Rate::new(record.updates, now);
        recorder.pace = (record.updates > 0).then(|| Pace::new(step, now));
        Ok(recorder)
    }

    /// Takes a line of `metrics.jsonl` into the learning curve, the events and what is known of the last evaluations.
    fn recall(&mut self, line: Recalled) -> anyhow::Result<()> {
        self.events.line(&line.fields)?;
        match line.measured {
            Measured::Episode(episode) => self.draw_episode(line.step, &episode),
            Measured::Evaluation(evaluation) => self.take_evaluation(line.step, &evaluation),
            Measured::Other => {}
        }
        Ok(())
    }

    /// What [`Recorder::resume`] needs.
    pub fn record(&mut self) -> anyhow::Result<Record> {
        Ok(Record {
            bytes: self.metrics.bytes()?,
            seconds: self.seconds(),
            updates: self.report.updates,
            successes_in_a_row: self.successes_in_a_row,
        })
    }

    fn new(setup: Setup, metrics: Metrics, step: u64) -> anyhow::Result<Self> {
        let now = Instant::now();
        Ok(Self {
            events: Events::create(&setup.folder, setup.started)?,
            metrics,
            progress: Progress::new(setup.progress, setup.steps),
            curve: LearningCurve {
                title: setup.title.clone(),
                ..LearningCurve::default()
            },
            report: Report {
                steps: setup.steps,
                ..Report::default()
            },
            step_rate: Rate::new(step, now),
            update_rate: Rate::new(0, now),
            last_update: None,
            successes_in_a_row: 0,
            measured: None,
            collapse: CollapseWatch::default(),
            pace: None,
            is_unread: false,
            is_lost: false,
            setup,
        })
    }

    fn write(&mut self, kind: &'static str, step: u64, measured: &impl Serialize) -> anyhow::Result<()> {
        let line = self.metrics.write(kind, step, measured)?;
        Ok(self.events.line(&line)?)
    }

    /// An update happened; a number that is not finite is an error.
    pub fn update(&mut self, step: u64, info: &UpdateMetrics) -> anyhow::Result<()> {
        finite_fields("update", step, info)?;
        if self.report.updates == 0 {
            // Steps without updates are hundreds of times as fast.
            let now = Instant::now();
            (self.step_rate, self.update_rate) = (Rate::new(step - 1, now), Rate::new(0, now));
            self.pace = Some(Pace::new(step - 1, now));
        }
        self.report.updates += 1;
        self.report.temperature = info.get("temperature");
        self.report.entropy = info.get("entropy");
        self.last_update = Some(info.clone());
        if let Some(collapsed) = self.collapse.update(info) {
            tracing::warn!("step {step}: {collapsed}");
        }
        Ok(())
    }

    /// A training episode is over.
    pub fn episode(&mut self, step: u64, finished: Finished) -> anyhow::Result<()> {
        let episode = EpisodeLine {
            total_reward: finished.total_reward,
            length: finished.length,
        };
        self.write("episode", step, &episode)?;
        self.draw_episode(step, &episode);
        Ok(())
    }

    fn draw_episode(&mut self, step: u64, episode: &EpisodeLine) {
        self.curve.episodes.push((step, episode.total_reward));
        self.report.episode_return = Some(episode.total_reward);
    }

    /// The policy was measured.
    pub fn evaluation(&mut self, step: u64, evaluation: &Evaluation) -> anyhow::Result<()> {
        self.write("evaluation", step, evaluation)?;
        self.take_evaluation(step, evaluation);
        let success = evaluation
            .success
            .map_or_else(String::new, |share| format!(", success {:.0} %", 100.0 * share));
        let plain = evaluation.without_selection.map_or_else(String::new, |plain| {
            format!(", {:.1} without selection", plain.mean_return)
        });
        tracing::info!(
            "step {step}: return {:.1}{plain}{success}",
            evaluation.mean_return
        );
        self.tell(step);
        Ok(())
    }

    /// Draws a measurement, and counts it where it had enough successes.
    fn take_evaluation(&mut self, step: u64, evaluation: &Evaluation) {
        let enough = self
            .setup
            .until_success
            .zip(evaluation.success)
            .is_some_and(|(goal, share)| share >= goal);
        self.successes_in_a_row = if enough { self.successes_in_a_row + 1 } else { 0 };
        self.measured = Some((step, evaluation.clone()));
        self.curve
            .evaluations
            .push((step, evaluation.mean_return, evaluation.std_return));
        self.report.mean_return = Some(evaluation.mean_return);
        self.report.success = evaluation.success;
        if let Some(plain) = evaluation.without_selection {
            self.curve.without_selection.push((step, plain.mean_return));
        }
        if let Some(success) = evaluation.success {
            self.curve.success.push((step, success));
        }
    }

    /// A bundle of this version was published.
    pub fn published(&mut self, version: u64) {
        self.report.version = version;
    }

    /// Has the success rate asked for been reached?
    pub fn learnt(&self) -> bool {
        self.successes_in_a_row >= EVALUATIONS_IN_A_ROW
    }

    /// Tells progress and writes the last update, every `report_every` steps.
    pub fn report(&mut self, step: u64) -> anyhow::Result<()> {
        if !step.is_multiple_of(self.setup.report_every) {
            return Ok(());
        }
        if let Some(info) = self.last_update.take() {
            self.write("update", step, &info)?;
        }
        self.tell(step);
        Ok(())
    }

    fn tell(&mut self, step: u64) {
        let now = Instant::now();
        self.report.step = step;
        self.report.seconds = self.seconds();
        self.report.steps_per_s = self.step_rate.update(step, now);
        self.report.updates_per_s = self.update_rate.update(self.report.updates, now);
        let steps = self.setup.steps;
        self.report.seconds_left = self.pace.as_mut().and_then(|pace| pace.left(step, steps, now));
        match self.progress.report(&self.report) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => self.unread(step),
            Err(error) if !self.is_lost => {
                tracing::warn!("step {step}: cannot tell the progress: {error}; the run goes on without");
                self.is_lost = true;
            }
            told => self.is_lost &= told.is_err(),
        }
    }

    /// Whoever started this run to read its progress has gone: it ends as by Ctrl-C, and nothing of it is lost.
    fn unread(&mut self, step: u64) {
        tracing::warn!("step {step}: nobody reads the progress on standard output any more; the run stops");
        self.progress = Progress::Quiet;
        self.is_unread = true;
    }

    /// Has the run a reason to end before its last step?
    pub fn ends_early(&self) -> bool {
        self.learnt() || self.is_unread
    }

    /// Ends the progress at `step`, draws the learning curve and hands the last lines and events to the disk.
    ///
    /// # Errors
    /// What the disk does not take; the rest is there.
    pub fn finish(&mut self, step: u64) -> anyhow::Result<()> {
        // A run that had nothing left to do tells where it is all the same.
        if self.report.step != step {
            self.tell(step);
        }
        self.progress.finish();
        // All of them first: what one lacks keeps none of the others from the disk.
        let drawn = plot::draw(&self.curve, &self.curve_path());
        let lines = self.metrics.bytes();
        let events = self.events.finish();
        lines?;
        events?;
        Ok(drawn?)
    }

    /// Updates so far.
    pub fn updates(&self) -> u64 {
        self.report.updates
    }

    /// The highest mean return of an evaluation so far.
    pub fn best_return(&self) -> Option<f64> {
        let returns = self.curve.evaluations.iter().map(|(_, mean, _)| *mean);
        returns.reduce(f64::max)
    }

    /// The newest measurement and its step, also where a program before this one made it.
    pub fn measured(&self) -> Option<&(u64, Evaluation)> {
        self.measured.as_ref()
    }

    /// Seconds since the start.
    pub fn seconds(&self) -> f64 {
        self.metrics.seconds()
    }

    fn curve_path(&self) -> PathBuf {
        Path::new(&self.setup.folder).join("curve.png")
    }
}

/// A line of `metrics.jsonl`, read again.
struct Recalled {
    fields: Map<String, Value>,
    step: u64,
    measured: Measured,
}

/// What the learning curve needs of a line.
enum Measured {
    Episode(EpisodeLine),
    Evaluation(Evaluation),
    Other,
}

impl Recalled {
    fn parse(text: &str) -> serde_json::Result<Self> {
        #[derive(Deserialize)]
        struct Head {
            kind: String,
            step: u64,
        }
        let head: Head = serde_json::from_str(text)?;
        Ok(Self {
            fields: serde_json::from_str(text)?,
            step: head.step,
            measured: match head.kind.as_str() {
                "episode" => Measured::Episode(serde_json::from_str(text)?),
                "evaluation" => Measured::Evaluation(serde_json::from_str(text)?),
                _ => Measured::Other,
            },
        })
    }
}

/// The lines of the first `bytes` bytes of `metrics.jsonl`, one after the other: a long run has many.
fn recalled(path: &Path, bytes: u64) -> anyhow::Result<impl Iterator<Item = anyhow::Result<Recalled>>> {
    let lines = Metrics::kept(path, bytes)?.enumerate();
    Ok(lines.map(|(index, line)| {
        let parsed = line
            .map_err(anyhow::Error::from)
            .and_then(|line| Ok(Recalled::parse(&line)?));
        parsed.with_context(|| {
            format!(
                "line {} is not what a run writes; take the file from a backup, or start the run again in another folder",
                index + 1
            )
        })
    }))
}

fn metrics_path(setup: &Setup) -> PathBuf {
    setup.folder.join("metrics.jsonl")
}

#[cfg(test)]
mod tests {
    use std::fs::{self, OpenOptions};

    use super::*;

    #[test]
    fn events_that_a_full_disk_kept_waiting_are_there_at_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let setup = Setup {
            folder: folder.path().to_owned(),
            title: String::new(),
            started: 0.0,
            progress: ProgressMode::Quiet,
            steps: 10,
            report_every: 1,
            until_success: None,
        };
        let mut recorder = Recorder::create(setup).unwrap();
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let real = recorder.events.redirect(full);
        let episode = Finished {
            total_reward: 1.0,
            length: 3,
        };
        recorder.episode(3, episode).unwrap();
        let text = recorder.finish(3).unwrap_err().to_string();
        assert!(text.contains("cannot write the events for TensorBoard"), "{text}");
        let events = folder.path().join("events.out.tfevents.mfpo");
        assert_eq!(fs::metadata(&events).unwrap().len(), 0);

        recorder.events.redirect(real);
        recorder.finish(3).unwrap();
        let bytes = fs::read(&events).unwrap();
        assert!(String::from_utf8_lossy(&bytes).contains("episode/return"));
    }
}
