//! All that is known of the demo: what the screen, the lines and the report tell.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::trainer::Training;
use crate::trial::{Episode, Trial};

/// Joint angles are kept for this long, ns: an episode and a little more.
const ANGLES_KEPT: i64 = 4_000_000_000;
/// Missed ticks are told at most this often.
const TELL_MISSED: Duration = Duration::from_secs(5);
/// Pieces of news that are kept.
const NEWS_KEPT: usize = 50;
/// Episodes that are shown as the newest.
pub const NEWEST: usize = 20;

/// Where the demo is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Processes start, and version 0 is sealed.
    Starting,
    /// The robot goes through its starts under the untrained policy.
    Before,
    /// Each better policy goes live while the robot moves.
    Learning,
    /// The robot goes through its starts under the last policy.
    After,
    /// The loop ran to its end.
    Done,
}

impl Phase {
    /// In the order of time.
    pub const ALL: [Self; 4] = [Self::Starting, Self::Before, Self::Learning, Self::After];

    /// For a person.
    pub fn name(self) -> &'static str {
        match self {
            Self::Starting => "start",
            Self::Before => "untrained",
            Self::Learning => "learning live",
            Self::After => "trained",
            Self::Done => "done",
        }
    }
}

/// What the control node does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeState {
    /// It has no policy.
    WaitingForPolicy,
    /// It has heard nothing of the robot.
    WaitingForStates,
    /// The policy commands the robot.
    Active,
    /// The watchdog commands the robot.
    Fallback,
    /// It has sent its last command.
    Stopped,
}

impl NodeState {
    /// From the number in `policy/status`.
    pub fn from_number(number: u8) -> Self {
        match number {
            0 => Self::WaitingForPolicy,
            1 => Self::WaitingForStates,
            2 => Self::Active,
            3 => Self::Fallback,
            // Stopped, or not active: nothing is commanded.
            _ => Self::Stopped,
        }
    }
}

/// `policy/status`, as far as the demo uses it.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeStatus {
    /// When this was true, ns since the Unix epoch.
    pub stamp: i64,
    /// What the node does.
    pub state: NodeState,
    /// In words.
    pub message: String,
    /// Training run of the live policy.
    pub run: String,
    /// Version of the live policy.
    pub version: u64,
    /// Digest of the live policy.
    pub digest: String,
    /// Policies that went live in place of another.
    pub swaps: u64,
    /// Bundles refused.
    pub rejections: u64,
    /// Why the last one was.
    pub last_rejection: String,
    /// Deadlines since the first command.
    pub ticks: u64,
    /// Deadlines whose command was more than a period late, or never sent.
    pub missed_ticks: u64,
    /// Ticks that the watchdog commanded.
    pub fallback_ticks: u64,
    /// Hz.
    pub tick_rate: f64,
    /// Median of the last second, s.
    pub latency_p50: f64,
    /// 99th percentile of the last second, s.
    pub latency_p99: f64,
    /// Largest since the start, s.
    pub latency_max: f64,
}

/// Latencies of the whole run, second by second: the status tells those of its last full second.
#[derive(Debug, Clone, Default)]
pub struct Latencies {
    seconds: Vec<(f64, f64)>,
}

impl Latencies {
    /// Takes the figures of a status over, unless they are those of the status before.
    pub fn take(&mut self, p50: f64, p99: f64) {
        if p50 > 0.0 && self.seconds.last() != Some(&(p50, p99)) {
            self.seconds.push((p50, p99));
        }
    }

    /// The median second's median, s.
    pub fn p50(&self) -> Option<f64> {
        middle(self.seconds.iter().map(|second| second.0))
    }

    /// The median second's 99th percentile, s.
    pub fn p99(&self) -> Option<f64> {
        middle(self.seconds.iter().map(|second| second.1))
    }

    /// The worst second's 99th percentile, s.
    pub fn worst_p99(&self) -> Option<f64> {
        self.seconds.iter().map(|second| second.1).reduce(f64::max)
    }
}

fn middle(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

/// What a process of the demo does, in a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PartState {
    /// It has not been started yet.
    Waiting,
    /// It runs.
    Running,
    /// It has done its work.
    Finished,
    /// It died.
    Died,
}

/// One process of the demo.
#[derive(Debug, Clone, Copy)]
pub struct Part {
    /// Its name.
    pub name: &'static str,
    /// What it does.
    pub state: PartState,
}

/// All that is known.
pub struct Story {
    /// When the first process was started.
    pub began: Instant,
    /// How long the demo may take.
    pub budget: Duration,
    /// Seed of the training.
    pub seed: u64,
    /// Starts in a trial.
    pub starts: u64,
    /// Where the demo is.
    pub phase: Phase,
    /// Robot, control node, trainer.
    pub parts: [Part; 3],
    /// What the trainer told.
    pub training: Training,
    /// What the control node told last.
    pub node: Option<NodeStatus>,
    /// Latencies so far.
    pub latencies: Latencies,
    /// The untrained policy on the robot.
    pub before: Option<Trial>,
    /// The last policy on the robot.
    pub after: Option<Trial>,
    /// Every episode of the robot.
    pub episodes: Vec<Episode>,
    /// Joint angle of the robot with the time, rad and ns since the Unix epoch.
    pub angles: VecDeque<(i64, f64)>,
    /// What happened, with the time since the start; the newest last.
    pub news: VecDeque<(Duration, String)>,
    /// How many pieces of news there were.
    pub news_count: usize,
    /// May robot and control node run before every other process?
    pub realtime: bool,
    /// Missed ticks that were news, and when they were.
    missed_told: u64,
    missed_told_at: Option<Instant>,
}

impl Story {
    /// Nothing has happened.
    pub fn new(budget: Duration, seed: u64, starts: u64) -> Self {
        let part = |name| Part {
            name,
            state: PartState::Waiting,
        };
        Self {
            began: Instant::now(),
            budget,
            seed,
            starts,
            phase: Phase::Starting,
            parts: [part("robot"), part("control"), part("trainer")],
            training: Training::default(),
            node: None,
            latencies: Latencies::default(),
            before: None,
            after: None,
            episodes: Vec::new(),
            angles: VecDeque::new(),
            news: VecDeque::new(),
            news_count: 0,
            realtime: false,
            missed_told: 0,
            missed_told_at: None,
        }
    }

    /// Time since the first process was started.
    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// Something happened that a person wants to know.
    pub fn say(&mut self, text: impl Into<String>) {
        let text = text.into();
        tracing::info!("{text}");
        self.news.push_back((self.elapsed(), text));
        self.news_count += 1;
        if self.news.len() > NEWS_KEPT {
            self.news.pop_front();
        }
    }

    /// Takes a status over.
    pub fn take_status(&mut self, status: NodeStatus) {
        self.latencies.take(status.latency_p50, status.latency_p99);
        let was = self.node.replace(status);
        let Some(status) = &self.node else { return };
        let mut news = Vec::new();
        if let Some(was) = was {
            if status.rejections > was.rejections {
                news.push(format!("a bundle was refused: {}", status.last_rejection));
            }
            if status.state != was.state && status.state == NodeState::Fallback {
                news.push(status.message.clone());
            }
            let untold = status.missed_ticks.saturating_sub(self.missed_told);
            if untold > 0 && self.missed_told_at.is_none_or(|at| at.elapsed() >= TELL_MISSED) {
                (self.missed_told, self.missed_told_at) = (status.missed_ticks, Some(Instant::now()));
                news.push(format!("{untold} tick(s) missed"));
            }
            if status.digest != was.digest && !was.digest.is_empty() {
                let version = status.version;
                news.push(format!(
                    "policy version {version} went live while the robot moved"
                ));
            }
        }
        for line in news {
            self.say(line);
        }
    }

    /// Takes a joint angle over.
    pub fn take_angle(&mut self, now: i64, angle: f64) {
        self.angles.push_back((now, angle));
        while self.angles.front().is_some_and(|(at, _)| now - at > ANGLES_KEPT) {
            self.angles.pop_front();
        }
    }

    /// The newest episodes, the newest last.
    pub fn newest(&self) -> &[Episode] {
        &self.episodes[self.episodes.len().saturating_sub(NEWEST)..]
    }

    /// How long an episode takes on the clock.
    pub fn episode_time(&self) -> Duration {
        let mean = |episodes: &[Episode]| {
            let total: i64 = episodes.iter().map(|e| e.ended - e.began).sum();
            Duration::from_nanos(total.unsigned_abs() / episodes.len() as u64)
        };
        match self.newest() {
            [] => crate::budget::EPISODE,
            newest => mean(newest).max(crate::budget::EPISODE),
        }
    }

    /// The trial of this phase, if it has one.
    pub fn trial(&self) -> Option<&Trial> {
        match self.phase {
            Phase::Before => self.before.as_ref(),
            Phase::After | Phase::Done => self.after.as_ref(),
            Phase::Starting | Phase::Learning => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_that_is_told_four_times_counts_once() {
        let mut latencies = Latencies::default();
        for (p50, p99) in [
            (0.0, 0.0),
            (1.0, 5.0),
            (1.0, 5.0),
            (2.0, 6.0),
            (2.0, 6.0),
            (3.0, 90.0),
        ] {
            latencies.take(p50, p99);
        }
        assert_eq!((latencies.p50(), latencies.p99()), (Some(2.0), Some(6.0)));
        assert_eq!(latencies.worst_p99(), Some(90.0));
    }

    #[test]
    fn angles_older_than_an_episode_are_forgotten() {
        let mut story = Story::new(Duration::from_secs(180), 0, 20);
        for second in 0..10 {
            story.take_angle(second * 1_000_000_000, second as f64);
        }
        assert_eq!(story.angles.front().map(|angle| angle.1), Some(5.0));
    }
}
