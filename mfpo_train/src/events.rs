//! The lines of `metrics.jsonl` once more, as scalars for TensorBoard: `tensorboard --logdir <run folder>`.

use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

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

/// The file, which its writer keeps to itself.
#[derive(Clone)]
struct SharedFile(Arc<Mutex<AppendedFile>>);

impl SharedFile {
    fn file(&self) -> MutexGuard<'_, AppendedFile> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Write for SharedFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file().flush()
    }
}

/// Writes one event file.
pub struct Events {
    writer: EventWriter<SharedFile>,
    /// That of the writer.
    file: SharedFile,
    /// Start of the run, seconds since 1970.
    started: f64,
}

impl Events {
    /// Starts the file of a run folder anew; a run that goes on writes its old lines again.
    pub fn create(folder: &Path, started: f64) -> Result<Self, EventsError> {
        let config = EventWriterConfig { auto_flush: false };
        let file = AppendedFile::create(&folder.join(FILE)).map_err(tfrecord::Error::from)?;
        let file = SharedFile(Arc::new(Mutex::new(file)));
        let writer = EventWriter::from_writer(file.clone(), config)?;
        Ok(Self {
            writer,
            file,
            started,
        })
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

    /// Hands the last events to the disk.
    ///
    /// # Errors
    /// When the disk does not take them; a run that goes on writes all of them again.
    pub fn finish(&mut self) -> Result<(), EventsError> {
        self.writer.flush()?;
        self.file.file().sync().map_err(tfrecord::Error::from)?;
        Ok(())
    }

    /// Writes into `file` from now on, and returns the one before.
    #[cfg(test)]
    pub(crate) fn redirect(&self, file: std::fs::File) -> std::fs::File {
        self.file.file().redirect(file)
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
