//! Tells a person, or the program that started this one, how far the run is.
//!
//! A person gets a bar: steps, steps/s, updates/s, return, temperature, entropy, time left. A program gets one JSON object a
//! report on standard output (`--json-progress`). What is not known yet is null, never NaN.

use std::io::Write;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use indicatif::{HumanDuration, MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::{Deserialize, Serialize};

/// How a run tells its progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProgressMode {
    /// A bar on standard error.
    Bar,
    /// JSON lines on standard output.
    Json,
    /// Nothing.
    Quiet,
}

/// One report. The names are read by other programs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Environment steps so far.
    pub step: u64,
    /// Environment steps of the whole run.
    pub steps: u64,
    /// Updates so far.
    pub updates: u64,
    /// Mean return of the last evaluation.
    #[serde(rename = "return")]
    pub mean_return: Option<f64>,
    /// Share of the last evaluation's episodes that succeeded.
    pub success: Option<f64>,
    /// Return of the last training episode.
    pub episode_return: Option<f64>,
    /// Alpha.
    pub temperature: Option<f64>,
    /// Entropy of the policy, nat.
    pub entropy: Option<f64>,
    /// Environment steps per second, lately.
    pub steps_per_s: f64,
    /// Updates per second, lately.
    pub updates_per_s: f64,
    /// Seconds since the start.
    pub seconds: f64,
    /// Seconds until all steps are done, as fast as the last minutes were; not known while actions are random.
    pub seconds_left: Option<f64>,
    /// Version of the last bundle.
    pub version: u64,
}

/// Where reports go.
pub enum Progress {
    /// To a person.
    Bar(ProgressBar),
    /// To a program.
    Json,
    /// Nowhere.
    Quiet,
}

impl Progress {
    /// A progress of `steps` environment steps.
    pub fn new(mode: ProgressMode, steps: u64) -> Self {
        match mode {
            ProgressMode::Bar => Self::Bar(bars().add(bar(steps))),
            ProgressMode::Json => Self::Json,
            ProgressMode::Quiet => Self::Quiet,
        }
    }

    /// Tells `report`.
    pub fn report(&self, report: &Report) -> std::io::Result<()> {
        match self {
            Self::Bar(bar) => {
                bar.set_position(report.step);
                bar.set_message(message(report));
                Ok(())
            }
            Self::Json => {
                let mut out = std::io::stdout().lock();
                serde_json::to_writer(&mut out, report)?;
                out.write_all(b"\n")?;
                out.flush()
            }
            Self::Quiet => Ok(()),
        }
    }

    /// Leaves the bar as it is.
    pub fn finish(&self) {
        if let Self::Bar(bar) = self {
            bar.abandon();
        }
    }
}

/// The bars of this process; log lines are written above them.
fn bars() -> &'static MultiProgress {
    static BARS: OnceLock<MultiProgress> = OnceLock::new();
    BARS.get_or_init(|| MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(5)))
}

fn bar(steps: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{wide_bar:.cyan/dim} {pos}/{len} steps, {msg}");
    ProgressBar::new(steps).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// The numbers of a report, for a person.
pub(crate) fn message(report: &Report) -> String {
    let number = |value: Option<f64>, digits| {
        value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
    };
    let mut text = format!(
        "{:.0} steps/s, {:.0} updates/s, return {}, ",
        report.steps_per_s,
        report.updates_per_s,
        number(report.mean_return.or(report.episode_return), 1),
    );
    if let Some(success) = report.success {
        text += &format!("success {:.0} %, ", 100.0 * success);
    }
    text + &format!(
        "temperature {}, entropy {}, {} left",
        number(report.temperature, 3),
        number(report.entropy, 2),
        time(report.seconds_left)
    )
}

/// A time in its largest unit.
fn time(seconds: Option<f64>) -> String {
    let time = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    time.map_or_else(|| "-".to_owned(), |time| format!("{:#}", HumanDuration(time)))
}

/// Writes log lines above the bar; give it to tracing. It never fails: a log that nobody reads any more - a closed pipe, a
/// terminal that is gone - must not end a training.
#[derive(Debug, Clone, Copy, Default)]
pub struct LogWriter;

impl Write for LogWriter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        // Not `suspend`, which panics where the terminal is gone; the bar comes back with the next report.
        let _ = bars().clear().and_then(|()| std::io::stderr().write_all(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        std::io::stderr().flush()
    }
}

/// Events per second over about the last `WINDOW`.
pub struct Rate {
    count: u64,
    since: Instant,
    /// `None` before the first interval has passed.
    per_second: Option<f64>,
}

/// The time constant of [`Rate`].
const WINDOW: Duration = Duration::from_secs(3);

impl Rate {
    /// A rate that knows nothing of the `count` events that happened before `now`.
    pub fn new(count: u64, now: Instant) -> Self {
        Self {
            count,
            since: now,
            per_second: None,
        }
    }

    /// The rate, given that `count` events happened until `now`.
    pub fn update(&mut self, count: u64, now: Instant) -> f64 {
        let seconds = now.duration_since(self.since).as_secs_f64();
        if seconds > 0.0 {
            let latest = count.saturating_sub(self.count) as f64 / seconds;
            let keep = (-seconds / WINDOW.as_secs_f64()).exp();
            self.per_second = Some(
                self.per_second
                    .map_or(latest, |before| keep * before + (1.0 - keep) * latest),
            );
            (self.count, self.since) = (count, now);
        }
        self.per_second.unwrap_or(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_rate_is_told_as_it_is() {
        let start = Instant::now();
        let mut rate = Rate::new(0, start);
        assert_eq!(rate.update(0, start), 0.0);
        for tenth in 1..=50 {
            let told = rate.update(20 * tenth, start + Duration::from_millis(100 * tenth));
            assert!((told - 200.0).abs() < 1e-6, "{told}");
        }
    }

    #[test]
    fn a_change_of_rate_is_seen_within_the_window() {
        let start = Instant::now();
        let mut rate = Rate::new(0, start);
        rate.update(1_000, start + Duration::from_secs(10));
        let told = rate.update(1_030, start + Duration::from_secs(13));
        let expected = 100.0 * (-1.0_f64).exp() + 10.0 * (1.0 - (-1.0_f64).exp());
        assert!((told - expected).abs() < 1e-9, "{told} {expected}");
    }

    #[test]
    fn what_is_not_known_yet_is_null() {
        let report = Report {
            step: 50,
            version: 3,
            success: Some(0.5),
            ..Report::default()
        };
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(
            (&json["step"], &json["version"], &json["success"]),
            (&50.into(), &3.into(), &0.5.into())
        );
        for key in ["return", "temperature", "entropy", "seconds_left"] {
            assert!(json[key].is_null(), "{key}");
        }
    }

    #[test]
    fn the_bar_says_what_a_person_asks_for() {
        let report = Report {
            steps_per_s: 120.0,
            updates_per_s: 118.4,
            mean_return: Some(61.27),
            success: Some(0.9),
            temperature: Some(0.0421),
            seconds_left: Some(7_250.0),
            ..Report::default()
        };
        assert_eq!(
            message(&report),
            "120 steps/s, 118 updates/s, return 61.3, success 90 %, temperature 0.042, entropy -, 2h left"
        );
        assert!(message(&Report::default()).ends_with(", - left"));
        let progress = Progress::Bar(ProgressBar::hidden());
        progress.report(&report).unwrap();
        let Progress::Bar(bar) = &progress else {
            unreachable!()
        };
        assert_eq!(bar.message(), message(&report));
    }
}
