//! `--seeds`: one run a seed, each a process of its own, on one display.
//!
//! The children write `--json-progress`; this program reads it. A run that was there before goes on from its
//! checkpoint, where it is the run that the command asks for; where one is another run, nothing starts.
//! When this program ends, however it ends, nobody reads the children's reports any more, and they stop at the next one
//! in good order, each with a checkpoint.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail, ensure};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use rustix::process::{Pid, Signal, kill_process};
use signal_hook::consts::SIGINT;
use toml::Value;

use crate::checkpoint::Checkpoints;
use crate::config::TrainConfig;
use crate::overlay::{self, Along, RunCurve};
use crate::progress::{Report, message};
use crate::train::is_done;

/// How often somebody's wish to stop is looked for.
const LOOK: Duration = Duration::from_millis(100);

/// More seeds are a slip of the keyboard.
const MOST: u64 = 1_000;

/// Seeds as a person writes them: `0..4` are 0, 1, 2, 3 and 4; `0,3,7` are these.
///
/// # Errors
/// A sentence that says what was expected.
pub fn parse(text: &str) -> Result<Vec<u64>, String> {
    let expected =
        || format!("'{text}': expected a range such as 0..4 (with its last) or a list such as 0,3,7");
    let number = |text: &str| text.trim().parse::<u64>().map_err(|_| expected());
    let mut seeds = match text.split_once("..") {
        Some((first, last)) => {
            let (first, last) = (number(first)?, number(last.trim_start_matches('='))?);
            if last.saturating_sub(first) >= MOST {
                return Err(format!("'{text}': expected at most {MOST} seeds"));
            }
            (first..=last).collect()
        }
        None => text.split(',').map(number).collect::<Result<Vec<_>, _>>()?,
    };
    seeds.sort_unstable();
    seeds.dedup();
    if seeds.is_empty() {
        Err(expected())
    } else {
        Ok(seeds)
    }
}

/// Runs of several seeds.
pub struct Plan {
    /// One run each.
    pub seeds: Vec<u64>,
    /// The task of every run.
    pub task: String,
    /// The configuration of every run, as the command asks for it.
    pub config: TrainConfig,
    /// Holds one run folder a seed: `s0`, `s1` ...
    pub folder: PathBuf,
    /// Processes at the same time.
    pub jobs: usize,
    /// Arguments of `train` for a run that starts.
    pub start: Vec<String>,
    /// Arguments of `train` for a run that goes on.
    pub go_on: Vec<String>,
    /// Changes of the configuration, which also say when a run is done.
    pub overrides: Vec<String>,
    /// Nothing is shown.
    pub quiet: bool,
}

/// What a child says.
enum News {
    Report(usize, Box<Report>),
    Ended(usize),
}

/// The run that a folder holds already.
struct Saved {
    task: String,
    config: TrainConfig,
    /// Nothing is left to do.
    done: bool,
}

/// A run and where it is.
struct Run {
    seed: u64,
    folder: PathBuf,
    /// What its folder held before; taken when the run starts.
    before: anyhow::Result<Option<Saved>>,
    bar: ProgressBar,
    child: Option<Child>,
    /// Bytes of its log that other programs have written before.
    logged: u64,
    failure: Option<String>,
    /// It was told to stop before its end.
    is_stopped: bool,
}

/// Runs every seed, and draws `curve.png` over all of them. Tells whether one was stopped before its end.
///
/// # Errors
/// When a folder holds another run than the plan's: nothing has started then. When a run failed; the others
/// have gone on to their ends.
pub fn train(plan: &Plan, stop: &AtomicBool) -> anyhow::Result<bool> {
    let mut found = Vec::new();
    for seed in &plan.seeds {
        let folder = plan.folder.join(format!("s{seed}"));
        // A checkpoint that cannot be read is the failure of this run alone.
        let saved = Saved::read(&folder, &plan.overrides);
        if let Ok(Some(saved)) = &saved {
            saved.check(&folder, plan)?;
        }
        found.push((*seed, folder, saved));
    }
    fs::create_dir_all(&plan.folder)
        .with_context(|| format!("cannot make the folder {}", plan.folder.display()))?;
    let target = if plan.quiet {
        ProgressDrawTarget::hidden()
    } else {
        ProgressDrawTarget::stderr_with_hz(5)
    };
    let bars = MultiProgress::with_draw_target(target);
    let mut runs: Vec<Run> = found
        .into_iter()
        .map(|(seed, folder, before)| Run::new(seed, folder, before, &bars))
        .collect();
    let (sender, news) = channel();
    let mut waiting: VecDeque<usize> = (0..runs.len()).collect();
    let mut running = 0;
    let mut told_to_stop = false;
    while running > 0 || !waiting.is_empty() {
        while running < plan.jobs && !told_to_stop {
            let Some(index) = waiting.pop_front() else { break };
            match runs[index].start(index, plan, &sender) {
                Ok(started) => running += usize::from(started),
                Err(error) => runs[index].fail(format!("{error:#}")),
            }
        }
        if stop.load(Ordering::Relaxed) && !told_to_stop {
            told_to_stop = true;
            waiting.drain(..).for_each(|index| runs[index].stopped());
            runs.iter().for_each(Run::interrupt);
        }
        running -= take(&news, &mut runs, stop);
    }
    finish(plan, &runs)
}

/// Takes what the children say for a while; how many have ended.
fn take(news: &Receiver<News>, runs: &mut [Run], stop: &AtomicBool) -> usize {
    match news.recv_timeout(LOOK) {
        Ok(News::Report(index, report)) => {
            runs[index].show(&report);
            0
        }
        Ok(News::Ended(index)) => {
            runs[index].end(stop.load(Ordering::Relaxed));
            1
        }
        Err(_) => 0,
    }
}

fn finish(plan: &Plan, runs: &[Run]) -> anyhow::Result<bool> {
    let folders: Vec<PathBuf> = runs
        .iter()
        .map(|run| run.folder.clone())
        .filter(|f| f.join("run.json").exists())
        .collect();
    let curve = plan.folder.join("curve.png");
    // A run that failed may have measured nothing; the others are drawn.
    let measured: Vec<RunCurve> = folders.iter().flat_map(|folder| drawable(folder)).collect();
    let drawn = if measured.is_empty() {
        Ok(())
    } else {
        overlay::draw(&measured, Along::Steps, &curve)
    };
    tell_mean(&measured, runs.len(), &curve);
    let failed: Vec<String> = runs
        .iter()
        .filter_map(|run| Some(format!("seed {}: {}", run.seed, run.failure.as_ref()?)))
        .collect();
    if !failed.is_empty() {
        bail!(
            "{} of {} runs failed: {}",
            failed.len(),
            runs.len(),
            failed.join("; ")
        );
    }
    let is_stopped = runs.iter().any(|run| run.is_stopped);
    if is_stopped {
        tracing::info!("stopped; the same command goes on with every seed");
    }
    drawn?;
    Ok(is_stopped)
}

/// Tells the mean of the last returns, also of runs that were done before, where any was measured.
fn tell_mean(measured: &[RunCurve], seeds: usize, curve: &Path) {
    let returns: Vec<f64> = measured.iter().filter_map(RunCurve::last_return).collect();
    if !returns.is_empty() {
        let mean = returns.iter().sum::<f64>() / returns.len() as f64;
        tracing::info!(
            "{} of {seeds} seeds measured, mean return {mean:.1}; {}",
            returns.len(),
            curve.display()
        );
    }
}

/// The run in `folder`, where it can be drawn; where it cannot, that is told.
fn drawable(folder: &Path) -> Vec<RunCurve> {
    let found = overlay::find_runs(&[folder.to_owned()]);
    found.unwrap_or_else(|error| {
        tracing::warn!("{} is not drawn: {error:#}", folder.display());
        Vec::new()
    })
}

impl Saved {
    /// The run in `folder`, changed by `overrides`; none where there is no checkpoint.
    fn read(folder: &Path, overrides: &[String]) -> anyhow::Result<Option<Self>> {
        let checkpoints = Checkpoints::new(folder);
        if !checkpoints.last().exists() {
            return Ok(None);
        }
        let (header, state) = checkpoints.load()?;
        let steps = TrainConfig::parse(&header.config, overrides)?.run.steps;
        Ok(Some(Self {
            done: is_done(&header, &state, steps),
            config: TrainConfig::parse(&header.config, &[])?,
            task: header.task,
        }))
    }

    /// Is it a run of `plan`? Lengths, intervals and the number of measured episodes may differ.
    fn check(&self, folder: &Path, plan: &Plan) -> anyhow::Result<()> {
        let place = folder.display();
        let differences = if self.task == plan.task {
            let mut asked = plan.config.clone();
            // A command leaves the sizes to the task, which is the same.
            let learner = &self.config.learner;
            asked
                .set_sizes(learner.observation_size, learner.action_size)
                .with_context(|| {
                    format!("the run in {place} is not the one asked for; choose another --out")
                })?;
            differences(&self.config, &asked)
        } else {
            vec![format!("task: {} there, {} asked for", self.task, plan.task)]
        };
        ensure!(
            differences.is_empty(),
            "the run in {place} is not the one asked for ({}); choose another --out, or go on with it as it \
             is: train --resume {place}",
            differences.join("; ")
        );
        Ok(())
    }
}

/// Every key that makes `asked` another run than `stored`, with both values.
fn differences(stored: &TrainConfig, asked: &TrainConfig) -> Vec<String> {
    // The numbers of two algorithms cannot be compared.
    let alike = stored.run.algorithm == asked.run.algorithm;
    let in_words =
        |value: Option<Value>| value.map_or_else(|| "left out".to_owned(), |value| value.to_string());
    let changes = stored.differing(asked).into_iter();
    let changes = changes.filter(|change| alike || change.key == "run.algorithm");
    changes
        .map(|change| {
            let (there, here) = (in_words(change.before), in_words(change.after));
            format!("{}: {there} there, {here} asked for", change.key)
        })
        .collect()
}

impl Run {
    fn new(seed: u64, folder: PathBuf, before: anyhow::Result<Option<Saved>>, bars: &MultiProgress) -> Self {
        let style = ProgressStyle::with_template("{prefix} {wide_bar:.cyan/dim} {pos}/{len} steps, {msg}");
        let bar = ProgressBar::new(1).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        let bar = bars.add(bar);
        bar.set_prefix(format!("seed {seed}"));
        bar.set_message("waiting");
        Self {
            seed,
            folder,
            before,
            bar,
            child: None,
            logged: 0,
            failure: None,
            is_stopped: false,
        }
    }

    fn log(&self) -> PathBuf {
        self.folder.with_extension("log")
    }

    /// Starts the process; false when the run is done already.
    fn start(&mut self, index: usize, plan: &Plan, news: &Sender<News>) -> anyhow::Result<bool> {
        let mut args = vec!["train".to_owned(), "--json-progress".to_owned()];
        let mut how = "from its start";
        match std::mem::replace(&mut self.before, Ok(None))? {
            Some(saved) if saved.done => {
                self.bar.abandon_with_message("done before");
                return Ok(false);
            }
            Some(_) => {
                how = "from its checkpoint";
                args.push(format!("--resume={}", self.folder.display()));
                args.extend(plan.go_on.iter().cloned());
            }
            None => {
                args.push(format!("--out={}", self.folder.display()));
                args.push(format!("--seed={}", self.seed));
                args.extend(plan.start.iter().cloned());
            }
        }
        let log = self.open_log(how)?;
        let program = std::env::current_exe().context("cannot find this program's own file")?;
        // A group of its own: Ctrl-C reaches this program only, which tells each child once.
        let mut child = Command::new(program)
            .args(args)
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .context("cannot start a run")?;
        let out = child.stdout.take();
        self.child = Some(child);
        self.bar.set_message("starting");
        let news = news.clone();
        thread::spawn(move || listen(index, out, &news));
        Ok(true)
    }

    /// Its log, where this child's words come after those of earlier attempts and a line that says when it began again.
    fn open_log(&mut self, how: &str) -> anyhow::Result<File> {
        let path = self.log();
        let mut open = || -> std::io::Result<File> {
            let mut log = OpenOptions::new().create(true).append(true).open(&path)?;
            if log.metadata()?.len() > 0 {
                let now = humantime::format_rfc3339_seconds(SystemTime::now());
                // Whoever was killed may have left half a line.
                writeln!(log, "\n--- {now} begun again, {how} ---")?;
            }
            self.logged = log.metadata()?.len();
            Ok(log)
        };
        open().with_context(|| format!("cannot write {}", path.display()))
    }

    fn show(&self, report: &Report) {
        self.bar.set_length(report.steps);
        self.bar.set_position(report.step);
        self.bar.set_message(message(report));
    }

    fn interrupt(&self) {
        let pid = self
            .child
            .as_ref()
            .and_then(|child| Pid::from_raw(child.id() as i32));
        if let Some(pid) = pid {
            // A child that has just ended needs no signal.
            let _ = kill_process(pid, Signal::INT);
        }
    }

    /// The child has closed its output; `is_told` says whether it was to stop.
    fn end(&mut self, is_told: bool) {
        let Some(mut child) = self.child.take() else {
            return;
        };
        match child.wait() {
            Ok(status) if status.success() => self.bar.abandon(),
            Ok(status) if is_told && is_interrupted(status) => self.stopped(),
            Ok(status) => {
                let reason = self.last_words().unwrap_or_else(|| "no message".to_owned());
                self.fail(format!("{reason} ({status}, {})", self.log().display()));
            }
            Err(error) => self.fail(error.to_string()),
        }
    }

    /// The last line that this child has written into its log.
    fn last_words(&self) -> Option<String> {
        let bytes = fs::read(self.log()).ok()?;
        let text = String::from_utf8_lossy(bytes.get(self.logged as usize..)?);
        let last = text.lines().rev().find(|line| !line.trim().is_empty());
        last.map(str::to_owned)
    }

    fn stopped(&mut self) {
        self.is_stopped = true;
        self.bar.abandon_with_message("stopped");
    }

    fn fail(&mut self, reason: String) {
        self.failure = Some(reason);
        self.bar.abandon_with_message("failed");
    }
}

/// Has SIGINT stopped a child? One that has not come to where it listens has done nothing yet, and is ended by the signal.
fn is_interrupted(status: ExitStatus) -> bool {
    status.code() == Some(128 + SIGINT) || status.signal() == Some(SIGINT)
}

fn listen(index: usize, out: Option<ChildStdout>, news: &Sender<News>) {
    for line in out
        .into_iter()
        .flat_map(|out| BufReader::new(out).lines())
        .map_while(Result::ok)
    {
        if let Ok(report) = serde_json::from_str(&line)
            && news.send(News::Report(index, Box::new(report))).is_err()
        {
            return;
        }
    }
    // Nobody listens any more when this program ends.
    let _ = news.send(News::Ended(index));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_makes_another_run_is_told_with_both_values() {
        let config = |sets: &[&str]| {
            let sets: Vec<String> = sets.iter().map(|text| (*text).to_owned()).collect();
            TrainConfig::load("swing_arm", None, &sets).unwrap()
        };
        let stored = config(&["learner.tau=0.01"]);
        let longer = config(&["learner.tau=0.01", "run.steps=7", "learner.threads=3"]);
        assert!(differences(&stored, &longer).is_empty());
        let other = config(&["learner.tau=0.02", "task.frame_skip=4"]);
        assert_eq!(
            differences(&stored, &other),
            [
                "learner.tau: 0.01 there, 0.02 asked for",
                "task.frame_skip: left out there, 4 asked for"
            ]
        );
        let choosing = config(&[
            "learner.tau=0.01",
            "evaluation.candidates=8",
            "evaluation.episodes=3",
        ]);
        assert_eq!(
            differences(&stored, &choosing),
            ["evaluation.candidates: 1 there, 8 asked for"]
        );
        let peer = config(&["run.algorithm=sac", "sac.tau=0.02"]);
        let told = differences(&stored, &peer);
        assert!(
            told.len() == 1 && told[0].starts_with("run.algorithm: ") && told[0].contains("mfpo"),
            "{told:?}"
        );
    }

    /// The run of a shell, which has ended before anybody listened to it, or is told to have.
    fn ended(script: &str, log: &Path, is_told: bool) -> Run {
        let bars = MultiProgress::with_draw_target(ProgressDrawTarget::hidden());
        let mut run = Run::new(0, log.with_extension(""), Ok(None), &bars);
        // A signal that was ignored when a shell began does not end it.
        let mut shell = Command::new("env");
        shell.args(["--default-signal=INT", "sh", "-c", script]);
        run.child = Some(shell.spawn().unwrap());
        run.logged = fs::metadata(log).unwrap().len();
        run.end(is_told);
        run
    }

    #[test]
    fn a_run_that_is_stopped_has_not_failed_not_even_before_it_listens() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("s0.log");
        fs::write(&log, "what it said last time\n").unwrap();
        for script in ["exit 130", "kill -INT $$; exit 7"] {
            let run = ended(script, &log, true);
            assert!(
                run.is_stopped && run.failure.is_none(),
                "{script}: {:?}",
                run.failure
            );
        }
        for (script, is_told) in [("exit 1", true), ("exit 130", false), ("kill -INT $$", false)] {
            let run = ended(script, &log, is_told);
            let failure = run.failure.unwrap_or_default();
            assert!(
                !run.is_stopped && failure.starts_with("no message ("),
                "{script}: {failure}"
            );
        }
    }

    #[test]
    fn a_range_has_its_last_seed() {
        assert_eq!(parse("0..4").unwrap(), [0, 1, 2, 3, 4]);
        assert_eq!(parse("2..=3").unwrap(), [2, 3]);
        assert_eq!(parse("7, 0,3,3").unwrap(), [0, 3, 7]);
        assert_eq!(parse("1..1000").unwrap().len(), 1_000);
        assert!(parse("0..10000000000").unwrap_err().contains("at most 1000"));
        for bad in ["", "a", "4..0", "1..", "0,,2", "-1"] {
            assert!(
                parse(bad).unwrap_err().contains("expected a range such as 0..4"),
                "{bad}"
            );
        }
    }
}
