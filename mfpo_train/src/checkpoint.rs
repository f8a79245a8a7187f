//! A run on disk: one safetensors file from which it goes on bit by bit.
//!
//! The file holds the arrays of a [`State`] and, as JSON in its metadata, a [`Header`] with a digest over everything. It is
//! written beside the old one and renamed, so that a run that is killed, or a disk that is full, leaves the old one whole.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, SafeTensorError, SafeTensors, View};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::borrow::Cow;
use thiserror::Error;

use crate::state::{Numbers, State, StateError};

/// Rises when old checkpoints can no longer be read.
pub const FORMAT: u32 = 1;
const KEY: &str = mfpo_policy::bundle::CHECKPOINT_KEY;
const LAST: &str = "last.safetensors";
const NOT_FINITE: &str = "not_finite.safetensors";

/// Why a checkpoint was not written or not taken.
#[derive(Debug, Error)]
pub enum CheckpointError {
    /// The file cannot be read.
    #[error("cannot read the checkpoint {}: {source}; --resume takes a run folder that holds one, as eval does", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file cannot be written; the one before is untouched.
    #[error(
        "cannot write the checkpoint {}: {reason}; the checkpoint before it is whole; free some space, or write fewer with \
         run.checkpoint_every", .path.display()
    )]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The file is not what was written.
    #[error(
        "the checkpoint {} is corrupt: {reason}; the run cannot go on from it, take a copy of it from a backup or start the \
         run again in another folder", .path.display()
    )]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What was found.
        reason: String,
    },
    /// Another version of the program wrote it.
    #[error(
        "the checkpoint {} has format {got}, written by mfpo_train {program}; expected format {FORMAT}; use that version of \
         the program, or start the run again", .path.display()
    )]
    Format {
        /// The file.
        path: PathBuf,
        /// Its format.
        got: u32,
        /// Version of the program that wrote it.
        program: String,
    },
    /// The state does not fit the task, the networks or the buffer.
    #[error("the checkpoint does not fit this run: {0}")]
    State(#[from] StateError),
}

/// What a checkpoint says of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// [`FORMAT`].
    pub format: u32,
    /// Version of the program.
    pub program: String,
    /// Unique name of the run.
    pub run: String,
    /// Name of the task.
    pub task: String,
    /// Seed of the run.
    pub seed: u64,
    /// Environment steps done.
    pub step: u64,
    /// The resolved configuration, TOML.
    pub config: String,
    /// Version of the newest bundle, if there is one.
    pub version: Option<u64>,
    /// What the recorder knows of the run.
    pub record: crate::recorder::Record,
    /// SHA-256 over the header (with an empty digest) and the arrays.
    #[serde(default)]
    pub digest: String,
}

/// The checkpoints of a run folder.
#[derive(Debug, Clone)]
pub struct Checkpoints {
    folder: PathBuf,
}

impl Checkpoints {
    /// Those of the run folder `folder`.
    pub fn new(folder: &Path) -> Self {
        Self {
            folder: folder.join("checkpoints"),
        }
    }

    /// The file that a run goes on from.
    pub fn last(&self) -> PathBuf {
        self.folder.join(LAST)
    }

    /// Replaces the last checkpoint.
    ///
    /// # Errors
    /// [`CheckpointError::Write`]; the checkpoint before is untouched then.
    pub fn save(&self, header: Header, state: &State<'_>) -> Result<(), CheckpointError> {
        self.write(LAST, header, state)
    }

    /// Keeps the state of a run that broke, beside the last good checkpoint.
    ///
    /// # Errors
    /// [`CheckpointError::Write`].
    pub fn save_broken(&self, header: Header, state: &State<'_>) -> Result<PathBuf, CheckpointError> {
        self.write(NOT_FINITE, header, state)?;
        Ok(self.folder.join(NOT_FINITE))
    }

    fn write(&self, name: &str, mut header: Header, state: &State<'_>) -> Result<(), CheckpointError> {
        let path = self.folder.join(name);
        header.digest = String::new();
        header.digest = digest(
            &header,
            state
                .iter()
                .map(|(name, numbers)| (name.as_str(), bytes(numbers))),
        );
        let unfinished = path.with_extension("writing");
        let result = fs::create_dir_all(&self.folder)
            .map_err(|e| e.to_string())
            .and_then(|()| serialize(&header, state, &unfinished))
            .and_then(|()| rename(&unfinished, &path).map_err(|e| e.to_string()));
        result.map_err(|reason| CheckpointError::Write { path, reason })
    }

    /// Removes what a killed run was writing.
    pub fn remove_unfinished(&self) {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        for entry in entries {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name.starts_with(".tmp") || name.ends_with(".writing") {
                // What cannot be removed is in nobody's way.
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    /// Reads the last checkpoint, and checks all of it.
    ///
    /// # Errors
    /// [`CheckpointError`] naming the file and what to do.
    pub fn load(&self) -> Result<(Header, State<'static>), CheckpointError> {
        let path = self.last();
        parse(&path, &read(&path)?, "")
    }

    /// Is the last checkpoint still the one whose header [`Checkpoints::load`] told? Reads no array.
    ///
    /// # Errors
    /// [`CheckpointError::Read`].
    pub fn holds(&self, header: &Header) -> Result<bool, CheckpointError> {
        let path = self.last();
        let text = metadata(&path, KEY).map_err(|source| CheckpointError::Read { path, source })?;
        let now: Option<Header> = text.and_then(|text| serde_json::from_str(&text).ok());
        Ok(now.is_some_and(|now| now.digest == header.digest))
    }
}

/// Reads the checkpoint in the file `path`, and checks all of it. Of its arrays only those of `part` are kept: a replay buffer
/// takes gigabytes.
///
/// # Errors
/// As [`Checkpoints::load`].
pub fn load_part(path: &Path, part: &str) -> Result<(Header, State<'static>), CheckpointError> {
    let (header, mut state) = parse(path, &read(path)?, &format!("{part}/"))?;
    Ok((header, state.take_part(part)))
}

/// Is the file a checkpoint, of whatever format? Reads no array; what cannot be read is none.
pub fn is_checkpoint(path: &Path) -> bool {
    // What is read of a pipe is gone.
    path.is_file() && matches!(metadata(path, KEY), Ok(Some(_)))
}

fn read(path: &Path) -> Result<Vec<u8>, CheckpointError> {
    fs::read(path).map_err(|source| CheckpointError::Read {
        path: path.to_owned(),
        source,
    })
}

/// What a safetensors file says under `key` in its metadata, of a checkpoint the JSON of a [`Header`]; none where it says nothing
/// there, or is none. Reads no array.
pub(crate) fn metadata(path: &Path, key: &str) -> io::Result<Option<String>> {
    #[derive(Deserialize)]
    struct Head {
        #[serde(rename = "__metadata__")]
        metadata: HashMap<String, String>,
    }
    let head = read_head(path)?;
    let head: Option<Head> = serde_json::from_slice(&head).ok();
    Ok(head.and_then(|mut head| head.metadata.remove(key)))
}

/// The header of a safetensors file, which stands behind its length; nothing where the file is shorter than that.
fn read_head(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let mut length = [0; 8];
    file.read_exact(&mut length)?;
    let length = u64::from_le_bytes(length);
    let mut head = Vec::new();
    // Files of another kind begin with something else, and may be large.
    if length <= file.metadata()?.len() {
        file.take(length).read_to_end(&mut head)?;
    }
    Ok(head)
}

/// Checks all of a checkpoint, and takes the arrays whose names begin with `start`.
fn parse(path: &Path, buffer: &[u8], start: &str) -> Result<(Header, State<'static>), CheckpointError> {
    let corrupt = |reason: String| CheckpointError::Corrupt {
        path: path.to_owned(),
        reason,
    };
    let tensors = SafeTensors::deserialize(buffer).map_err(|e| corrupt(e.to_string()))?;
    let (_, header) = SafeTensors::read_metadata(buffer).map_err(|e| corrupt(e.to_string()))?;
    let text = header.metadata().as_ref().and_then(|metadata| metadata.get(KEY));
    let text = text.ok_or_else(|| corrupt(format!("it has no metadata '{KEY}'")))?;
    check_format(path, text)?;
    let header: Header = serde_json::from_str(text).map_err(|e| corrupt(format!("its header: {e}")))?;
    let mut sorted = tensors.tensors();
    sorted.sort_by(|(a, _), (b, _)| a.cmp(b));
    let blank = Header {
        digest: String::new(),
        ..header.clone()
    };
    let views = sorted.iter().map(|(name, view)| (name.as_str(), view.data()));
    if digest(&blank, views) != header.digest {
        return Err(corrupt("its digest differs from its content".to_owned()));
    }
    let mut state = State::default();
    for (name, view) in sorted.iter().filter(|(name, _)| name.starts_with(start)) {
        state.put(name, numbers(view.dtype(), view.data()).map_err(corrupt)?);
    }
    Ok((header, state))
}

/// Another format may have another header: its number is read first.
fn check_format(path: &Path, header: &str) -> Result<(), CheckpointError> {
    #[derive(Deserialize)]
    struct Head {
        format: u32,
        #[serde(default)]
        program: String,
    }
    let head: Head = serde_json::from_str(header).map_err(|e| CheckpointError::Corrupt {
        path: path.to_owned(),
        reason: format!("its header: {e}"),
    })?;
    if head.format == FORMAT {
        return Ok(());
    }
    Err(CheckpointError::Format {
        path: path.to_owned(),
        got: head.format,
        program: head.program,
    })
}

fn serialize(header: &Header, state: &State<'_>, path: &Path) -> Result<(), String> {
    let header = serde_json::to_string(header).map_err(|e| e.to_string())?;
    let metadata = HashMap::from([(KEY.to_owned(), header)]);
    let arrays = state
        .iter()
        .map(|(name, numbers)| (name, ArrayView::new(numbers)));
    safetensors::serialize_to_file(arrays, Some(metadata), path).map_err(|e| match e {
        SafeTensorError::IoError(e) => e.to_string(),
        other => other.to_string(),
    })
}

/// Also after a power cut either the old file is there or the whole new one.
fn rename(from: &Path, to: &Path) -> io::Result<()> {
    File::open(from)?.sync_all()?;
    fs::rename(from, to)
}

/// SHA-256 over a header and the arrays, in the order of their names.
pub(crate) fn digest<'a>(
    header: &impl Serialize,
    arrays: impl Iterator<Item = (&'a str, &'a [u8])>,
) -> String {
    let mut hash = Sha256::new();
    hash.update(serde_json::to_vec(header).unwrap_or_default());
    for (name, bytes) in arrays {
        for part in [name.as_bytes(), bytes] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
    }
    hex::encode(hash.finalize())
}

/// The numbers as they lie in memory, which is little-endian on every machine that this program is built for.
fn bytes<'a>(numbers: &'a Numbers<'_>) -> &'a [u8] {
    const { assert!(cfg!(target_endian = "little")) };
    match numbers {
        Numbers::F32(values) => bytemuck::cast_slice(values),
        Numbers::F64(values) => bytemuck::cast_slice(values),
        Numbers::U64(values) => bytemuck::cast_slice(values),
    }
}

fn numbers(dtype: Dtype, bytes: &[u8]) -> Result<Numbers<'static>, String> {
    Ok(match dtype {
        Dtype::F32 => Numbers::F32(Cow::Owned(bytemuck::pod_collect_to_vec(bytes))),
        Dtype::F64 => Numbers::F64(Cow::Owned(bytemuck::pod_collect_to_vec(bytes))),
        Dtype::U64 => Numbers::U64(Cow::Owned(bytemuck::pod_collect_to_vec(bytes))),
        other => return Err(format!("an array of {other:?}; expected F32, F64 or U64")),
    })
}

/// An array as safetensors writes it.
struct ArrayView<'a> {
    numbers: &'a Numbers<'a>,
    shape: [usize; 1],
}

impl<'a> ArrayView<'a> {
    fn new(numbers: &'a Numbers<'a>) -> Self {
        Self {
            numbers,
            shape: [numbers.len()],
        }
    }
}

impl View for ArrayView<'_> {
    fn dtype(&self) -> Dtype {
        match self.numbers {
            Numbers::F32(_) => Dtype::F32,
            Numbers::F64(_) => Dtype::F64,
            Numbers::U64(_) => Dtype::U64,
        }
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        bytes(self.numbers).into()
    }

    fn data_len(&self) -> usize {
        bytes(self.numbers).len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header {
            format: FORMAT,
            program: "0.1.0".into(),
            run: "run".into(),
            task: "task".into(),
            seed: 3,
            step: 40,
            config: String::new(),
            version: Some(2),
            record: crate::recorder::Record::default(),
            digest: String::new(),
        }
    }

    fn state() -> State<'static> {
        let mut state = State::default();
        state.put("a", vec![1.5f32, f32::NAN, -0.0]);
        state.put("b", vec![1.0 / 3.0]);
        state.put("c", vec![u64::MAX]);
        state
    }

    fn saved() -> (tempfile::TempDir, Checkpoints) {
        let folder = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints::new(folder.path());
        checkpoints.save(header(), &state()).unwrap();
        (folder, checkpoints)
    }

    #[test]
    fn what_is_read_is_what_was_written_bit_by_bit() {
        let (_folder, checkpoints) = saved();
        let (read, mut arrays) = checkpoints.load().unwrap();
        assert_eq!((read.step, read.version), (40, Some(2)));
        let bits: Vec<u32> = arrays
            .take_f32("a")
            .unwrap()
            .iter()
            .map(|v| v.to_bits())
            .collect();
        assert_eq!(bits, [1.5f32, f32::NAN, -0.0].map(f32::to_bits));
        assert_eq!(arrays.take_f64("b").unwrap(), [1.0 / 3.0]);
        assert_eq!(arrays.take_u64("c").unwrap(), [u64::MAX]);
    }

    #[test]
    fn every_damaged_byte_is_noticed() {
        let (_folder, checkpoints) = saved();
        let whole = fs::read(checkpoints.last()).unwrap();
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            // Spaces pad the header; one that became another blank changes nothing that is read.
            let told = parse(&checkpoints.last(), &damaged, "");
            let same = told
                .as_ref()
                .is_ok_and(|(l, s)| l.step == 40 && s.iter().count() == 3);
            assert!(told.is_err() || (same && whole[at] == b' '), "byte {at}");
        }
        for length in 0..whole.len() {
            let text = parse(&checkpoints.last(), &whole[..length], "")
                .unwrap_err()
                .to_string();
            assert!(text.contains("last.safetensors is corrupt"), "{text}");
        }
    }

    #[test]
    fn of_a_checkpoint_that_is_checked_as_a_whole_one_part_is_kept() {
        let (_folder, checkpoints) = saved();
        let mut parts = State::default();
        for part in ["learner", "learners", "replay"] {
            parts.nest(part, state());
        }
        checkpoints.save(header(), &parts).unwrap();
        let last = checkpoints.last();
        let (read, part) = load_part(&last, "learner").unwrap();
        let names: Vec<&str> = part.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!((read.step, names), (40, vec!["a", "b", "c"]));
        let whole = fs::read(&last).unwrap();
        // Three parts of three numbers of 4 bytes and two of 8.
        for at in whole.len() - 3 * 28..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            fs::write(&last, damaged).unwrap();
            let text = load_part(&last, "learner").unwrap_err().to_string();
            assert!(text.contains("last.safetensors is corrupt"), "{text}");
        }
    }

    #[test]
    fn a_checkpoint_is_told_from_other_files_by_its_header_alone() {
        let (folder, checkpoints) = saved();
        let last = checkpoints.last();
        let whole = fs::read(&last).unwrap();
        fs::write(&last, &whole[..whole.len() - 9]).unwrap();
        assert!(is_checkpoint(&last), "a damaged one is one, too");
        for other in [
            &b""[..],
            b"short",
            b"[learner]\ndiscount = 0.9\n",
            &whole[..20],
            &[0; 300],
        ] {
            fs::write(&last, other).unwrap();
            assert!(!is_checkpoint(&last), "{other:?}");
        }
        assert!(!is_checkpoint(folder.path()) && !is_checkpoint(Path::new("/nowhere")));
    }

    #[test]
    fn another_format_is_refused_with_the_program_that_wrote_it() {
        let (_folder, checkpoints) = saved();
        let other = Header {
            format: 99,
            program: "7.0".into(),
            ..header()
        };
        checkpoints.save(other, &state()).unwrap();
        let text = checkpoints.load().unwrap_err().to_string();
        assert!(
            text.contains("format 99, written by mfpo_train 7.0; expected format 1"),
            "{text}"
        );
    }

    #[test]
    fn a_checkpoint_that_cannot_be_written_leaves_the_one_before() {
        let (_folder, checkpoints) = saved();
        // A folder in the place of the file that is being written.
        fs::create_dir(checkpoints.last().with_extension("writing")).unwrap();
        let text = checkpoints
            .save(header(), &State::default())
            .unwrap_err()
            .to_string();
        assert!(text.contains("the checkpoint before it is whole"), "{text}");
        assert_eq!(checkpoints.load().unwrap().1.iter().count(), 3);
    }
}
