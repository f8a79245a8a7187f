//! `metrics.jsonl`: one JSON object a line, every number of it finite.
//!
//! A line has `kind` (`update`, `episode`, `evaluation`), `step`, `seconds` since the start, and the fields of what
//! was measured. A number that is not finite is an error that names the metric: the run stops there. A line that the disk
//! does not take is none: it waits for room.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Lines, Read, Seek, SeekFrom, Take, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::Serialize;
use serde_json::{Map, Value};
use thiserror::Error;

use crate::appended_file::AppendedFile;

/// Why a line was not written.
#[derive(Debug, Error)]
pub enum MetricsError {
    /// A number is NaN or infinite.
    #[error(
        "the metric '{metric}' of an {kind} is not finite at step {step}; the run stops, and bundles sealed before are intact"
    )]
    NotFinite {
        /// Path of the number, with dots.
        metric: String,
        /// What was measured.
        kind: &'static str,
        /// Environment steps so far.
        step: u64,
    },
    /// The metric is not a JSON object of numbers.
    #[error("cannot write the metrics of an {kind} as JSON: {source}")]
    Json {
        /// What was measured.
        kind: &'static str,
        /// What serde_json says.
        source: serde_json::Error,
    },
    /// The file was cut after the checkpoint was written.
    #[error(
        "metrics.jsonl holds {got} bytes, and the checkpoint was written after {expected}; put the file back that belongs to it"
    )]
    Short {
        /// Bytes at the checkpoint.
        expected: u64,
        /// Bytes now.
        got: u64,
    },
    /// The file cannot be read.
    #[error("cannot read {}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file cannot be written.
    #[error("cannot write {}", .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

fn cannot_read(path: &Path) -> impl FnOnce(io::Error) -> MetricsError {
    let path = path.to_owned();
    move |source| MetricsError::Read { path, source }
}

fn cannot_write(path: &Path) -> impl FnOnce(io::Error) -> MetricsError {
    let path = path.to_owned();
    move |source| MetricsError::Write { path, source }
}

/// Writes `metrics.jsonl`.
pub struct Metrics {
    file: AppendedFile,
    path: PathBuf,
    started: Instant,
    /// Seconds of the run before this program started.
    before: f64,
}

impl Metrics {
    /// Creates the file; seconds count from now.
    pub fn create(path: &Path) -> Result<Self, MetricsError> {
        Ok(Self {
            file: AppendedFile::create(path).map_err(cannot_write(path))?,
            path: path.to_owned(),
            started: Instant::now(),
            before: 0.0,
        })
    }

    /// The lines of the first `bytes` bytes, those that [`Metrics::resume`] keeps; nothing is changed.
    ///
    /// # Errors
    /// [`MetricsError::Short`] where there are fewer bytes.
    pub fn kept(path: &Path, bytes: u64) -> Result<Lines<BufReader<Take<File>>>, MetricsError> {
        let file = File::open(path).map_err(cannot_read(path))?;
        check_length(path, &file, bytes)?;
        Ok(BufReader::new(file.take(bytes)).lines())
    }

    /// Goes on after the first `bytes` bytes, `seconds` after the start; what follows them was not saved and is removed:
    /// look into [`Metrics::kept`] before.
    ///
    /// # Errors
    /// [`MetricsError::Short`] where there are fewer bytes; the file is as it was then.
    pub fn resume(path: &Path, bytes: u64, seconds: f64) -> Result<Self, MetricsError> {
        let opened = OpenOptions::new().write(true).open(path);
        let mut file = opened.map_err(cannot_write(path))?;
        check_length(path, &file, bytes)?;
        let cut = file.set_len(bytes).and_then(|()| file.seek(SeekFrom::End(0)));
        cut.map_err(cannot_write(path))?;
        Ok(Self {
            file: AppendedFile::after(file, path, bytes),
            path: path.to_owned(),
            started: Instant::now(),
            before: seconds,
        })
    }

    /// Bytes written so far, every line whole and on the disk: a checkpoint counts them, and must find them
    /// after a power cut.
    pub fn bytes(&mut self) -> Result<u64, MetricsError> {
        self.file.sync().map_err(cannot_write(&self.path))
    }

    /// Seconds since the start of the run, without the time it lay still.
    pub fn seconds(&self) -> f64 {
        self.before + self.started.elapsed().as_secs_f64()
    }

    /// Writes one line, which it returns, and flushes it, so that a run that is killed leaves whole lines.
    pub fn write(
        &mut self,
        kind: &'static str,
        step: u64,
        measured: &impl Serialize,
    ) -> Result<Map<String, Value>, MetricsError> {
        let mut line = Map::new();
        line.insert("kind".into(), kind.into());
        line.insert("step".into(), step.into());
        line.insert("seconds".into(), self.seconds().into());
        line.extend(finite_fields(kind, step, measured)?);
        let mut text = serde_json::to_vec(&line).map_err(|source| MetricsError::Json { kind, source })?;
        text.push(b'\n');
        let written = self.file.write_all(&text).and_then(|()| self.file.flush());
        written.map_err(cannot_write(&self.path))?;
        Ok(line)
    }
}

fn check_length(path: &Path, file: &File, expected: u64) -> Result<(), MetricsError> {
    let got = file.metadata().map_err(cannot_read(path))?.len();
    if got < expected {
        return Err(MetricsError::Short { expected, got });
    }
    Ok(())
}

/// The fields of `measured`, all numbers finite. Call it on every update, also those that are not written.
pub fn finite_fields(
    kind: &'static str,
    step: u64,
    measured: &impl Serialize,
) -> Result<Map<String, Value>, MetricsError> {
    let value = serde_json::to_value(measured).map_err(|source| MetricsError::Json { kind, source })?;
    // JSON has no NaN and no infinity: serde_json writes null for both. `None` is left out by the types here.
    match first_null(&value, String::new()) {
        Some(metric) => Err(MetricsError::NotFinite { metric, kind, step }),
        None => Ok(match value {
            Value::Object(fields) => fields,
            other => Map::from_iter([("value".to_owned(), other)]),
        }),
    }
}

/// The path of the first null in `value`.
fn first_null(value: &Value, path: String) -> Option<String> {
    let below = |key: &str| {
        if path.is_empty() {
            key.to_owned()
        } else {
            format!("{path}.{key}")
        }
    };
    match value {
        Value::Null => Some(path),
        Value::Array(items) => items
            .iter()
            .enumerate()
            .find_map(|(i, item)| first_null(item, below(&i.to_string()))),
        Value::Object(fields) => fields
            .iter()
            .find_map(|(key, field)| first_null(field, below(key))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize)]
    struct Losses {
        critic_loss: f64,
        returns: Vec<f64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        success: Option<f64>,
    }

    fn losses(critic_loss: f64, last_return: f64) -> Losses {
        Losses {
            critic_loss,
            returns: vec![1.0, last_return],
            success: None,
        }
    }

    #[test]
    fn every_line_is_one_json_object() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let mut metrics = Metrics::create(&path).unwrap();
        metrics.write("update", 7, &losses(0.5, 2.0)).unwrap();
        metrics.write("update", 8, &losses(0.25, 3.0)).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(
            (&lines[0]["kind"], &lines[0]["step"], &lines[1]["critic_loss"]),
            (&"update".into(), &7.into(), &0.25.into())
        );
        assert!(lines[0]["seconds"].as_f64().unwrap() >= 0.0);
    }

    #[test]
    fn a_file_that_cannot_be_had_is_named_with_what_was_tried() {
        let nowhere = Path::new("/nowhere/metrics.jsonl");
        let written = [
            Metrics::create(nowhere).err(),
            Metrics::resume(nowhere, 0, 0.0).err(),
        ];
        for error in written {
            assert_eq!(error.unwrap().to_string(), "cannot write /nowhere/metrics.jsonl");
        }
        let read = Metrics::kept(nowhere, 0).err();
        assert_eq!(read.unwrap().to_string(), "cannot read /nowhere/metrics.jsonl");
    }

    #[test]
    fn a_metric_that_is_not_finite_stops_the_run_and_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let mut metrics = Metrics::create(&path).unwrap();
        for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let error = metrics
                .write("update", 12, &losses(bad, 0.0))
                .unwrap_err()
                .to_string();
            assert!(
                error.contains("'critic_loss'") && error.contains("step 12"),
                "{error}"
            );
            let error = metrics
                .write("evaluation", 3, &losses(0.0, bad))
                .unwrap_err()
                .to_string();
            assert!(error.contains("'returns.1'"), "{error}");
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "");
    }
}
