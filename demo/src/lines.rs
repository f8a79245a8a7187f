//! The demo without a screen: one readable line now and then, and one for each piece of news.

use std::time::{Duration, Instant};

use crate::story::{Phase, Story};

/// Time between two lines of progress.
const EVERY: Duration = Duration::from_secs(5);

/// Prints lines on standard output.
#[derive(Default)]
pub struct Lines {
    told: usize,
    last: Option<Instant>,
}

impl Lines {
    /// Prints what is new.
    pub fn show(&mut self, story: &Story) {
        let untold = story.news_count - self.told;
        let skip = story.news.len().saturating_sub(untold);
        for (at, text) in story.news.iter().skip(skip) {
            println!("[{:>5.1} s] {text}", at.as_secs_f64());
        }
        self.told = story.news_count;
        if story.phase != Phase::Done && self.last.is_none_or(|last| last.elapsed() >= EVERY) {
            self.last = Some(Instant::now());
            println!("[{:>5.1} s] {}", story.elapsed().as_secs_f64(), progress(story));
        }
    }
}

/// Where the demo is, in one line.
pub fn progress(story: &Story) -> String {
    let report = &story.training.report;
    let mut parts = vec![story.phase.name().to_owned()];
    let mut training = format!("training step {}/{}", report.step, report.steps);
    if let Some(mean_return) = report.mean_return {
        training += &format!(", return {mean_return:.1}");
    }
    parts.push(training);
    if let Some(node) = &story.node {
        parts.push(format!(
            "policy version {} at {:.1} Hz, latency p50 {:.0} us p99 {:.0} us, {} swaps, {} missed",
            node.version,
            node.tick_rate,
            1e6 * node.latency_p50,
            1e6 * node.latency_p99,
            node.swaps,
            node.missed_ticks
        ));
    }
    match story.trial() {
        Some(trial) => parts.push(format!(
            "robot: {} of {} succeeded, {} to go",
            trial.successes(),
            trial.counted(),
            trial.starts() - trial.counted()
        )),
        None if story.episodes.is_empty() => {}
        None => {
            let newest = story.newest();
            let successes = newest.iter().filter(|episode| episode.success).count();
            parts.push(format!(
                "robot: {successes} of the last {} succeeded",
                newest.len()
            ));
        }
    }
    parts.join(" | ")
}
