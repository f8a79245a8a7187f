//! `--seeds`: one run a seed, each a process of its own, on one display.
//!
//! The children write `--json-progress`; this program reads it. A run that was there before goes on from its checkpoint.
//! When this program ends, however it ends, nobody reads the children's reports any more, and they stop at the next one.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use rustix::process::{Pid, Signal, kill_process};

use crate::checkpoint::Checkpoints;
use crate::config::TrainConfig;
use crate::overlay::{self, Along};
use crate::progress::{Report, message};

/// How often somebody's wish to stop is looked for.
const LOOK: Duration = Duration::from_millis(100);

/// Seeds as a person writes them: `0..4` are 0, 1, 2, 3 and 4; `0,3,7` are these.
///
/// # Errors
/// A sentence that says what was expected.
pub fn parse(text: &str) -> Result<Vec<u64>, String> {
    let expected =
        || format!("'{text}': expected a range such as 0..4 (with its last) or a list such as 0,3,7");
    let number = |text: &str| text.trim().parse::<u64>().map_err(|_| expected());
    let mut seeds = match text.split_once("..") {
        Some((first, last)) => (number(first)?..=number(last.trim_start_matches('='))?).collect(),
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

/// A run and where it is.
struct Run {
    seed: u64,
    folder: PathBuf,
    bar: ProgressBar,
    child: Option<Child>,
    last: Report,
    failure: Option<String>,
}

/// Runs every seed, and draws `curve.png` over all of them.
///
/// # Errors
/// When a run failed; the others have gone on to their ends.
pub fn train(plan: &Plan, stop: &AtomicBool) -> anyhow::Result<()> {
    fs::create_dir_all(&plan.folder)
        .with_context(|| format!("cannot make the folder {}", plan.folder.display()))?;
    let target = if plan.quiet {
        ProgressDrawTarget::hidden()
    } else {
        ProgressDrawTarget::stderr_with_hz(5)
    };
    let bars = MultiProgress::with_draw_target(target);
    let mut runs: Vec<Run> = plan
        .seeds
        .iter()
        .map(|seed| Run::new(*seed, &plan.folder, &bars))
        .collect();
    let (sender, news) = channel();
    let mut waiting: VecDeque<usize> = (0..runs.len()).collect();
    let mut running = 0;
    let mut told_to_stop = false;
    while running > 0 || !waiting.is_empty() {
        while running < plan.jobs && !told_to_stop {
            let Some(index) = waiting.pop_front() else { break };
            running += usize::from(runs[index].start(index, plan, &sender)?);
        }
        if stop.load(Ordering::Relaxed) && !told_to_stop {
            told_to_stop = true;
            waiting.clear();
            runs.iter().for_each(Run::interrupt);
        }
        running -= take(&news, &mut runs);
    }
    finish(plan, &runs, told_to_stop)
}

/// Takes what the children say for a while; how many have ended.
fn take(news: &Receiver<News>, runs: &mut [Run]) -> usize {
    match news.recv_timeout(LOOK) {
        Ok(News::Report(index, report)) => {
            runs[index].show(*report);
            0
        }
        Ok(News::Ended(index)) => {
            runs[index].end();
            1
        }
        Err(_) => 0,
    }
}

fn finish(plan: &Plan, runs: &[Run], stopped: bool) -> anyhow::Result<()> {
    let folders: Vec<PathBuf> = runs
        .iter()
        .map(|run| run.folder.clone())
        .filter(|f| f.join("run.json").exists())
        .collect();
    let curve = plan.folder.join("curve.png");
    match overlay::find_runs(&folders) {
        Ok(measured) if !measured.is_empty() => overlay::draw(&measured, Along::Steps, &curve)?,
        _ => {}
    }
    let returns: Vec<f64> = runs.iter().filter_map(|run| run.last.mean_return).collect();
    if !returns.is_empty() {
        let mean = returns.iter().sum::<f64>() / returns.len() as f64;
        tracing::info!(
            "{} of {} seeds measured, mean return {mean:.1}; {}",
            returns.len(),
            runs.len(),
            curve.display()
        );
    }
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
    if stopped {
        tracing::info!("stopped; the same command goes on with every seed");
    }
    Ok(())
}

impl Run {
    fn new(seed: u64, folder: &Path, bars: &MultiProgress) -> Self {
        let style = ProgressStyle::with_template(
            "{prefix} {wide_bar:.cyan/dim} {pos}/{len} steps, {msg}, {eta} left",
        );
        let bar = ProgressBar::new(1).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        let bar = bars.add(bar);
        bar.set_prefix(format!("seed {seed}"));
        bar.set_message("waiting");
        Self {
            seed,
            folder: folder.join(format!("s{seed}")),
            bar,
            child: None,
            last: Report::default(),
            failure: None,
        }
    }

    fn log(&self) -> PathBuf {
        self.folder.with_extension("log")
    }

    /// Starts the process; false when the run is done already.
    fn start(&mut self, index: usize, plan: &Plan, news: &Sender<News>) -> anyhow::Result<bool> {
        let saved = Checkpoints::new(&self.folder);
        let mut args = vec!["train".to_owned(), "--json-progress".to_owned()];
        if saved.last().exists() {
            let (header, _) = saved.load()?;
            let config = TrainConfig::parse(&header.config, &plan.overrides)?;
            if header.step >= config.run.steps {
                self.bar.abandon_with_message("done before");
                return Ok(false);
            }
            args.push(format!("--resume={}", self.folder.display()));
            args.extend(plan.go_on.iter().cloned());
        } else {
            ensure!(
                !self.folder.join("metrics.jsonl").exists(),
                "{} holds a run without a checkpoint; remove the folder, or give another --out",
                self.folder.display()
            );
            args.push(format!("--out={}", self.folder.display()));
            args.push(format!("--seed={}", self.seed));
            args.extend(plan.start.iter().cloned());
        }
        let log =
            File::create(self.log()).with_context(|| format!("cannot write {}", self.log().display()))?;
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

    fn show(&mut self, report: Report) {
        self.bar.set_length(report.steps);
        self.bar.set_position(report.step);
        self.bar.set_message(message(&report));
        self.last = report;
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

    /// The child has closed its output.
    fn end(&mut self) {
        let Some(mut child) = self.child.take() else {
            return;
        };
        self.failure = match child.wait() {
            Ok(status) if status.success() => None,
            Ok(status) => {
                let text = fs::read_to_string(self.log()).unwrap_or_default();
                let last = text.lines().rev().find(|line| !line.trim().is_empty());
                Some(format!(
                    "{} ({status}, {})",
                    last.unwrap_or("no message"),
                    self.log().display()
                ))
            }
            Err(error) => Some(error.to_string()),
        };
        if self.failure.is_some() {
            self.bar.abandon_with_message("failed");
        } else {
            self.bar.abandon();
        }
    }
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
    fn a_range_has_its_last_seed() {
        assert_eq!(parse("0..4").unwrap(), [0, 1, 2, 3, 4]);
        assert_eq!(parse("2..=3").unwrap(), [2, 3]);
        assert_eq!(parse("7, 0,3,3").unwrap(), [0, 3, 7]);
        for bad in ["", "a", "4..0", "1..", "0,,2", "-1"] {
            assert!(
                parse(bad).unwrap_err().contains("expected a range such as 0..4"),
                "{bad}"
            );
        }
    }
}
