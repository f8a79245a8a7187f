//! What the trainer tells on its standard output: one JSON object a line.

use std::io::{BufRead, BufReader};
use std::process::ChildStdout;
use std::sync::mpsc::{Receiver, channel};

use serde::Deserialize;

/// One report of `mfpo_train train --json-progress`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Report {
    /// Environment steps so far.
    pub step: u64,
    /// Environment steps of the whole run.
    pub steps: u64,
    /// Updates so far.
    pub updates: u64,
    /// Mean return of the last evaluation in the trainer's own simulator.
    #[serde(rename = "return")]
    pub mean_return: Option<f64>,
    /// Share of successes there.
    pub success: Option<f64>,
    /// Return of the last training episode.
    pub episode_return: Option<f64>,
    /// Updates per second, lately.
    pub updates_per_s: f64,
    /// Seconds since the trainer started.
    pub seconds: f64,
    /// Version of the last bundle.
    pub version: u64,
}

/// Reads reports on a thread of its own until the trainer closes its output.
pub fn listen(output: ChildStdout) -> std::io::Result<Receiver<Report>> {
    let (tell, reports) = channel();
    std::thread::Builder::new()
        .name("trainer".into())
        .spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                match serde_json::from_str(&line) {
                    Ok(report) => {
                        if tell.send(report).is_err() {
                            return;
                        }
                    }
                    Err(error) => tracing::warn!("a line of the trainer is not a report: {error}: {line}"),
                }
            }
        })?;
    Ok(reports)
}

/// What is kept of the training.
#[derive(Debug, Clone, Default)]
pub struct Training {
    /// The newest report.
    pub report: Report,
    /// Returns of the training episodes, as far as reports told them.
    pub returns: Vec<f64>,
}

impl Training {
    /// Takes a report over.
    pub fn take(&mut self, report: Report) {
        if report.episode_return != self.report.episode_return {
            self.returns.extend(report.episode_return);
        }
        self.report = report;
    }

    /// Share of the configured steps that are done.
    pub fn share(&self) -> f64 {
        if self.report.steps == 0 {
            return 0.0;
        }
        (self.report.step as f64 / self.report.steps as f64).min(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = r#"{"step":50,"steps":5000,"updates":0,"return":null,"success":null,"episode_return":12.5,
        "temperature":null,"entropy":null,"steps_per_s":80.0,"updates_per_s":0.0,"seconds":1.0,"version":0}"#;

    #[test]
    fn a_report_with_unknowns_is_read() {
        let report: Report = serde_json::from_str(LINE).unwrap();
        assert_eq!((report.step, report.steps, report.mean_return), (50, 5_000, None));
        assert_eq!(report.episode_return, Some(12.5));
    }

    #[test]
    fn an_episode_that_is_told_twice_is_one_point_of_the_curve() {
        let mut training = Training::default();
        let report: Report = serde_json::from_str(LINE).unwrap();
        training.take(report.clone());
        training.take(Report {
            step: 100,
            ..report.clone()
        });
        training.take(Report {
            step: 150,
            episode_return: Some(20.0),
            ..report
        });
        assert_eq!(training.returns, [12.5, 20.0]);
        assert_eq!(training.share(), 0.03);
    }
}
