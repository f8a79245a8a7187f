//! One recording: an MCAP file that says of itself what is needed to compute its actions again. Whole chunks are
//! written, so that a file that was never finished is readable up to its last one.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};

use mcap::records::{MessageHeader, Metadata};
use mcap::{Attachment, Compression, McapError, WriteOptions, Writer};
use mfpo_policy::kernel::InstructionSet;
use mfpo_policy::spec::RobotSpec;

use super::bundles::Bundles;
use super::history::Entry;
use super::tick::{self, LAST_REASON, fallback_name};
use super::{BUNDLE_TYPE, Channel, FORMAT, Facts, METADATA, PARAMETERS};
use crate::safety::Rule;

/// A chunk is written when it is as large as this, bytes, or at a [`RecordingFile::flush`].
const CHUNK: u64 = 1 << 20;
/// What separates a definition from those of the types in it.
const SEPARATOR: &str =
    "\n================================================================================\n";
const TIME: &str = "MSG: builtin_interfaces/Time\nint32 sec\nuint32 nanosec\n";
const STATUS: &str = include_str!("../../../msg/msg/PolicyStatus.msg");
/// Fields of `rcl_interfaces/Log`.
const LOG: &str = "builtin_interfaces/Time stamp\nuint8 level\nstring name\nstring msg\nstring file\nstring function\n\
                   uint32 line\n";

/// Why a recording cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum CannotRecord {
    /// The folder or the file.
    #[error("{}: {source}", path.display())]
    Io {
        /// Of what.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// While writing.
    #[error("{}: {}", path.display(), cause(source))]
    Write {
        /// The file.
        path: PathBuf,
        /// What the writer says.
        source: McapError,
    },
    /// The folder takes no recordings at all.
    #[error(
        "parameter record.folder: nothing can be recorded in '{}': {reason}; expected a folder that this user may write to, or \
         can make (empty records nothing)",
        path.display()
    )]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system says.
        reason: std::io::Error,
    },
    /// The system gives no thread.
    #[error("the recorder has no thread: {0}")]
    Thread(std::io::Error),
    /// A message that has no CDR.
    #[error("a tick cannot be written: {0}")]
    Encode(#[from] cdr_encoding::Error),
}

/// The system's own words where there are some.
fn cause(error: &McapError) -> String {
    match error {
        McapError::Io(error) => error.to_string(),
        other => other.to_string(),
    }
}

/// A recording that is being written.
pub struct RecordingFile {
    path: PathBuf,
    writer: Writer<BufWriter<File>>,
    file: File,
    sequences: [u32; 3],
    attached: HashSet<String>,
    ticks: u64,
}

impl RecordingFile {
    /// Begins a file for the ticks of one robot; `why` it is written is kept with it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn create(path: &Path, facts: &Facts, spec: &RobotSpec, why: &str) -> Result<Self, CannotRecord> {
        let io = |source| CannotRecord::Io {
            path: path.to_owned(),
            source,
        };
        let file = File::create_new(path).map_err(io)?;
        let second = file.try_clone().map_err(io)?;
        let options = WriteOptions::new()
            .profile("ros2")
            .library(concat!("mfpo_node ", env!("CARGO_PKG_VERSION")))
            .compression(Some(Compression::Zstd))
            .compression_threads(0)
            .chunk_size(Some(CHUNK))
            // A chunk is put together in memory and written at once.
            .disable_seeking(true);
        let begin = || -> Result<_, McapError> {
            let mut writer = options.create(BufWriter::new(file))?;
            describe(&mut writer, facts, spec, why)?;
            announce(&mut writer, &facts.namespace)?;
            Ok(writer)
        };
        Ok(Self {
            writer: begin().map_err(|source| CannotRecord::Write {
                path: path.to_owned(),
                source,
            })?,
            path: path.to_owned(),
            file: second,
            sequences: [0; 3],
            attached: HashSet::new(),
            ticks: 0,
        })
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Ticks in it.
    pub fn ticks(&self) -> u64 {
        self.ticks
    }

    /// Its size so far, bytes.
    pub fn size(&self) -> u64 {
        self.file.metadata().map_or(0, |data| data.len())
    }

    /// Writes an entry, and first the policies that it names where they are not there yet.
    ///
    /// # Errors
    /// When the disk does not take it.
    pub fn write(&mut self, entry: &Entry, bundles: &mut Bundles) -> Result<(), CannotRecord> {
        for policy in entry.policies.iter().flatten() {
            if self.attached.contains(&policy.digest) {
                continue;
            }
            self.attached.insert(policy.digest.clone());
            let Some(bytes) = bundles.get(&policy.digest) else {
                tracing::warn!(
                    "the recording lacks the policy of version {}: it is no longer kept",
                    policy.version
                );
                continue;
            };
            self.attach(&policy.digest, &bytes, entry.time)?;
        }
        let channel = entry.channel as usize;
        let sequence = self.sequences.get(channel).copied().unwrap_or_default();
        let header = MessageHeader {
            channel_id: entry.channel as u16,
            sequence,
            log_time: entry.time,
            publish_time: entry.stamp,
        };
        self.writer
            .write_to_known_channel(&header, &entry.bytes)
            .map_err(|source| self.failed(source))?;
        if let Some(next) = self.sequences.get_mut(channel) {
            *next = sequence.wrapping_add(1);
        }
        self.ticks += u64::from(entry.channel == Channel::Tick);
        Ok(())
    }

    /// Everything so far reaches the system: SIGKILL takes nothing of it.
    ///
    /// # Errors
    /// When the disk does not take it.
    pub fn flush(&mut self) -> Result<(), CannotRecord> {
        self.writer.flush().map_err(|source| self.failed(source))
    }

    /// Ends the file, and waits until it is on the disk.
    ///
    /// # Errors
    /// When the disk does not take it.
    pub fn finish(mut self) -> Result<(), CannotRecord> {
        self.writer.finish().map_err(|source| self.failed(source))?;
        self.file.sync_all().map_err(|source| CannotRecord::Io {
            path: self.path.clone(),
            source,
        })
    }

    fn attach(&mut self, digest: &str, bytes: &[u8], time: u64) -> Result<(), CannotRecord> {
        let attachment = Attachment {
            log_time: time,
            create_time: time,
            name: digest.to_owned(),
            media_type: BUNDLE_TYPE.to_owned(),
            data: Cow::Borrowed(bytes),
        };
        self.writer
            .attach(&attachment)
            .map_err(|source| self.failed(source))
    }

    fn failed(&self, source: McapError) -> CannotRecord {
        CannotRecord::Write {
            path: self.path.clone(),
            source,
        }
    }
}

/// What recorded, and how its actions are computed again.
fn describe(
    writer: &mut Writer<BufWriter<File>>,
    facts: &Facts,
    spec: &RobotSpec,
    why: &str,
) -> Result<(), McapError> {
    let joined = |names: &[&str]| names.join(", ");
    let joints: Vec<&str> = spec.joints.iter().map(|joint| joint.name.as_str()).collect();
    let commanded: Vec<&str> = spec
        .action
        .joints
        .iter()
        .map(|joint| joint.joint.as_str())
        .collect();
    let reasons: Vec<String> = (1..=LAST_REASON)
        .map(|code| format!("{code}: {}", fallback_name(code)))
        .collect();
    let pairs = [
        ("format", FORMAT.to_owned()),
        ("why", why.to_owned()),
        ("node", facts.node.clone()),
        ("version", env!("CARGO_PKG_VERSION").to_owned()),
        ("kernel", InstructionSet::detect().name().to_owned()),
        ("device", facts.device.clone()),
        ("seed", facts.seed.to_string()),
        ("robot", spec.robot.clone()),
        ("robot_spec", serde_json::to_string(spec).unwrap_or_default()),
        ("joints", joined(&joints)),
        ("command_joints", joined(&commanded)),
        ("command_unit", spec.action.interface.unit().to_owned()),
        ("rules", joined(&Rule::NAMES)),
        ("fallbacks", reasons.join(", ")),
    ];
    let metadata = pairs.map(|(name, value)| (name.to_owned(), value)).into();
    writer.write_metadata(&Metadata {
        name: METADATA.to_owned(),
        metadata,
    })?;
    writer.write_metadata(&Metadata {
        name: PARAMETERS.to_owned(),
        metadata: facts.parameters.clone(),
    })
}

/// The topics, under the numbers of [`Channel`].
fn announce(writer: &mut Writer<BufWriter<File>>, namespace: &str) -> Result<(), McapError> {
    let within = |topic: &str| format!("{}/{topic}", namespace.trim_end_matches('/'));
    let topics = [
        (Channel::Tick, within("policy/tick"), tick::NAME, tick::DEFINITION),
        (
            Channel::Status,
            within("policy/status"),
            "mfpo_msgs/msg/PolicyStatus",
            STATUS,
        ),
        (Channel::Log, "/rosout".to_owned(), "rcl_interfaces/msg/Log", LOG),
    ];
    for (channel, topic, name, definition) in topics {
        let definition = format!("{definition}{SEPARATOR}{TIME}");
        let id = channel as u16;
        // A schema's number is not 0.
        writer.add_schema_with_id(id + 1, name, "ros2msg", definition.as_bytes())?;
        writer.add_channel_with_id(id, id + 1, &topic, "cdr", &BTreeMap::new())?;
    }
    Ok(())
}
