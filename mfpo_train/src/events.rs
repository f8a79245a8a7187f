//! The lines of `metrics.jsonl` once more, as scalars for TensorBoard: `tensorboard --logdir <run folder>`.

use std::path::Path;

use serde_json::{Map, Value};
use tfrecord::{EventMeta, EventWriter, EventWriterConfig};
use thiserror::Error;

use crate::appended_file::AppendedFile;

/// TensorBoard finds a file by `tfevents` in its name.
const FILE: &str = "events.out.tfevents.mfpo";
/// Say where a number belongs, and are none themselves.
const PLACE: [&str; 3] = ["kind", "step", "seconds"];

/// The events cannot be written.
#[derive(Debug, Error)]
#[error("cannot write the events for TensorBoard: {0}")]
pub struct EventsError(#[from] tfrecord::Error);

/// Writes one event file.
pub struct Events {
    writer: EventWriter<AppendedFile>,
    /// Start of the run, seconds since 1970.
    started: f64,
}

impl Events {
    /// Starts the file of a run folder anew; a run that goes on writes its old lines again.
    pub fn create(folder: &Path, started: f64) -> Result<Self, EventsError> {
        let config = EventWriterConfig { auto_flush: false };
        let file = AppendedFile::create(&folder.join(FILE)).map_err(tfrecord::Error::from)?;
        let writer = EventWriter::from_writer(file, config)?;
        Ok(Self { writer, started })
    }

    /// Writes every number of a line of `metrics.jsonl` as `<kind>/<name>`.
    pub fn line(&mut self, line: &Map<String, Value>) -> Result<(), EventsError> {
        let number = |name: &str| line.get(name).and_then(Value::as_f64).unwrap_or(0.0);
        let (step, wall_time) = (number("step") as i64, self.started + number("seconds"));
        let kind = line.get("kind").and_then(Value::as_str).unwrap_or("run");
        for (name, value) in line.iter().filter(|(name, _)| !PLACE.contains(&name.as_str())) {
            self.value(&format!("{kind}/{name}"), value, (step, wall_time))?;
        }
        Ok(self.writer.flush()?)
    }

    fn value(&mut self, tag: &str, value: &Value, (step, wall_time): (i64, f64)) -> Result<(), EventsError> {
        if let Some(number) = value.as_f64() {
            let meta = EventMeta::new(step, wall_time);
            self.writer.write_scalar(tag, meta, number as f32)?;
        }
        for (name, inner) in value.as_object().into_iter().flatten() {
            self.value(&format!("{tag}/{name}"), inner, (step, wall_time))?;
        }
        Ok(())
    }
}
