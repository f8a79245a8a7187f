//! A recording, computed again: every action from its observation, its draw under the recording's seed, its depth and
//! its policy, which is attached. Needs no ROS, and no more memory than one chunk or attachment, one tick and two policies.

mod policies;

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use mcap::McapError;
use mcap::records::Record;
use mcap::sans_io::linear_reader::{LinearReadEvent, LinearReader, LinearReaderOptions};
use mfpo_policy::bundle::{BundleError, MOST_BYTES};
use mfpo_policy::kernel::InstructionSet;
use mfpo_policy::noise::NormalNoise;
use mfpo_policy::sampler::{ActionSampler, Depth, SampleError};
use policies::Policies;
use thiserror::Error;

use crate::control_loop::mix;
use crate::recording::tick::{NAME, NotATick, TickMessage};
use crate::recording::{BUNDLE_TYPE, FORMAT, METADATA};

/// Read at once, bytes.
const BLOCK: usize = 1 << 20;
/// A record that says to be larger is damaged, bytes: nothing is larger than a bundle.
const LARGEST_RECORD: usize = MOST_BYTES + BLOCK;

/// Why a recording could not be computed again.
#[derive(Debug, Error)]
pub enum ReplayError {
    /// The file cannot be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// It is no MCAP file.
    #[error("not an MCAP file: its first bytes are others; expected a recording of the control node")]
    NotMcap,
    /// The file is not what was written.
    #[error(
        "the file is damaged after {ticks} ticks: {source}; expected the bytes that were recorded, copy it again"
    )]
    Damaged {
        /// Ticks that could be read.
        ticks: u64,
        /// What the reader says.
        source: McapError,
    },
    /// Some other MCAP file, or of another version.
    #[error(
        "no recording of the control node: its metadata '{METADATA}' {got}; expected '{FORMAT}' (parameter record.folder)"
    )]
    Format {
        /// What it says.
        got: String,
    },
    /// A value of the metadata is no number.
    #[error("the recording's metadata says {key} '{got}'; expected a whole number from 0")]
    Number {
        /// Which value.
        key: &'static str,
        /// What it says.
        got: String,
    },
    /// A tick cannot be read.
    #[error(transparent)]
    Tick(#[from] NotATick),
    /// An attached policy is not what it was.
    #[error("the policy {digest} that is attached is refused: {source}")]
    Policy {
        /// Its name in the file.
        digest: String,
        /// Why.
        source: Box<BundleError>,
    },
    /// An attachment holds another policy than its name says.
    #[error("the attachment {expected} holds the policy {got}; expected the one of its name")]
    Digest {
        /// The name.
        expected: String,
        /// The policy.
        got: String,
    },
    /// A tick names a policy that the file does not hold.
    #[error(
        "tick {tick} is of the policy '{digest}', which is not attached; expected every policy that acted"
    )]
    NoPolicy {
        /// Which tick.
        tick: u64,
        /// Its policy.
        digest: String,
    },
    /// The policy gives no action where it gave one.
    #[error("tick {tick}: the policy gives no action now: {source}; expected the recorded one")]
    Sample {
        /// Which tick.
        tick: u64,
        /// Why.
        source: SampleError,
    },
    /// Nothing to compare.
    #[error(
        "the recording holds {ticks} ticks, and in none of them a policy acted; expected some actions to compute"
    )]
    Empty {
        /// Ticks in it.
        ticks: u64,
    },
}

/// The first action that is another now.
#[derive(Debug, Clone, PartialEq)]
pub struct Difference {
    /// Number of the tick.
    pub tick: u64,
    /// Its draw.
    pub draw: u64,
    /// Run and version of the policy.
    pub policy: (String, u64),
    /// Component of the action.
    pub component: usize,
    /// As recorded.
    pub recorded: f32,
    /// As computed now.
    pub got: f32,
}

/// What computing a recording again showed.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Report {
    /// What recorded: the file's metadata.
    pub metadata: BTreeMap<String, String>,
    /// Ticks in the file.
    pub ticks: u64,
    /// Of them with an action of a policy.
    pub actions: u64,
    /// Policies that acted.
    pub policies: usize,
    /// The most of them that were in memory at once.
    pub most_kept: usize,
    /// Actions between the first and the last that are not in the file.
    pub missing: u64,
    /// Actions that are others now.
    pub differing: u64,
    /// The most that a component differs.
    pub largest: f32,
    /// The first of them.
    pub first: Option<Difference>,
    /// The file ends in the middle of a record.
    pub is_unfinished: bool,
}

impl Report {
    /// Is every action, to the last bit, the one that was recorded?
    pub fn is_identical(&self) -> bool {
        self.differing == 0 && self.actions > 0
    }

    /// The instruction set that computed the recording.
    pub fn kernel(&self) -> &str {
        self.metadata.get("kernel").map_or("unknown", String::as_str)
    }

    /// The one that computes here.
    pub fn kernel_here() -> &'static str {
        InstructionSet::detect().name()
    }
}

/// Computes every action of a recording again.
///
/// # Errors
/// When the file is damaged, is no recording, or lacks a policy.
pub fn replay(path: &Path) -> Result<Report, ReplayError> {
    replay_with(path, &mut |_| {})
}

/// [`replay`] that shows every tick of the recording, in its order.
///
/// # Errors
/// As of [`replay`].
pub fn replay_with(path: &Path, on_tick: &mut dyn FnMut(&TickMessage)) -> Result<Report, ReplayError> {
    let io = |source| ReplayError::Io {
        path: path.to_owned(),
        source,
    };
    let mut file = File::open(path).map_err(io)?;
    let options = LinearReaderOptions::default()
        .with_prevalidate_chunk_crcs(true)
        .with_validate_data_section_crc(true)
        .with_validate_summary_section_crc(true)
        .with_record_length_limit(LARGEST_RECORD);
    let mut reader = LinearReader::new_with_options(options);
    let policies = Policies::new(path.to_owned(), file.try_clone().map_err(io)?);
    let mut replayer = Replayer::new(policies, on_tick);
    while let Some(event) = reader.next_event() {
        let read = event.and_then(|event| match event {
            LinearReadEvent::ReadRequest(_) => Ok(None),
            LinearReadEvent::Record { data, opcode } => mcap::parse_record(opcode, data).map(Some),
        });
        match read {
            Ok(Some(record)) => replayer.take(record)?,
            Ok(None) => {
                let read = file.read(reader.insert(BLOCK)).map_err(io)?;
                reader.notify_read(read);
            }
            Err(McapError::BadMagic) if replayer.report.metadata.is_empty() => {
                return Err(ReplayError::NotMcap);
            }
            Err(McapError::UnexpectedEof) => {
                replayer.report.is_unfinished = true;
                break;
            }
            Err(source) => {
                return Err(ReplayError::Damaged {
                    ticks: replayer.report.ticks,
                    source,
                });
            }
        }
    }
    replayer.end()
}

/// Goes through a file.
struct Replayer<'a> {
    on_tick: &'a mut dyn FnMut(&TickMessage),
    noise: NormalNoise,
    schemas: HashSet<u16>,
    channels: HashSet<u16>,
    policies: Policies,
    acted: HashSet<String>,
    draw: Option<u64>,
    report: Report,
}

impl<'a> Replayer<'a> {
    fn new(policies: Policies, on_tick: &'a mut dyn FnMut(&TickMessage)) -> Self {
        Self {
            on_tick,
            noise: NormalNoise::new(0),
            schemas: HashSet::new(),
            channels: HashSet::new(),
            policies,
            acted: HashSet::new(),
            draw: None,
            report: Report::default(),
        }
    }

    fn take(&mut self, record: Record<'_>) -> Result<(), ReplayError> {
        match record {
            Record::Metadata(metadata) if metadata.name == METADATA => self.begin(metadata.metadata)?,
            Record::Schema { header, .. } if header.name == NAME => {
                self.schemas.insert(header.id);
            }
            Record::Channel(channel) if self.schemas.contains(&channel.schema_id) => {
                self.channels.insert(channel.id);
            }
            Record::Attachment { header, .. } => {
                let is_policy = header.media_type == BUNDLE_TYPE;
                self.policies.passed(is_policy.then_some(header.name))?;
            }
            Record::Message { header, data } if self.channels.contains(&header.channel_id) => {
                let tick = TickMessage::decode(&data)?;
                (self.on_tick)(&tick);
                self.compare(&tick)?;
            }
            _ => {}
        }
        Ok(())
    }

    fn begin(&mut self, metadata: BTreeMap<String, String>) -> Result<(), ReplayError> {
        let text = |key: &str| metadata.get(key).cloned().unwrap_or_default();
        if text("format") != FORMAT {
            return Err(ReplayError::Format {
                got: format!("says '{}'", text("format")),
            });
        }
        let seed = text("seed").parse().map_err(|_| ReplayError::Number {
            key: "seed",
            got: text("seed"),
        })?;
        self.noise = NormalNoise::new(seed);
        self.report.metadata = metadata;
        Ok(())
    }

    fn compare(&mut self, tick: &TickMessage) -> Result<(), ReplayError> {
        self.report.ticks += 1;
        let Some(depth) = tick.depth() else { return Ok(()) };
        self.report.actions += 1;
        if let Some(before) = self.draw.replace(tick.draw) {
            self.report.missing += tick.draw.saturating_sub(before).saturating_sub(1);
        }
        let mut got = self.act(tick, &tick.digest, depth)?;
        if let Some(depth) = tick.previous_depth() {
            let before = self.act(tick, &tick.previous_digest, depth)?;
            mix(&mut got, &before, tick.policy_weight);
        }
        let mut differing = got
            .iter()
            .zip(&tick.action)
            .enumerate()
            .filter(|(_, (got, recorded))| got.to_bits() != recorded.to_bits())
            .map(|(component, (got, recorded))| (component, *got, *recorded))
            .peekable();
        if let Some(&(component, got, recorded)) = differing.peek() {
            self.report.differing += 1;
            self.report.first.get_or_insert(Difference {
                tick: tick.sequence,
                draw: tick.draw,
                policy: (tick.run.clone(), tick.version),
                component,
                recorded,
                got,
            });
        }
        for (_, got, recorded) in differing {
            self.report.largest = self.report.largest.max((got - recorded).abs());
        }
        Ok(())
    }

    /// What a policy answers to a tick's question.
    fn act(&mut self, tick: &TickMessage, digest: &str, depth: Depth) -> Result<Vec<f32>, ReplayError> {
        let Some(sampler) = self.policies.get(digest)? else {
            // Without metadata it is no recording of this program's at all.
            if self.report.metadata.is_empty() {
                return Err(ReplayError::Format {
                    got: "is missing".into(),
                });
            }
            return Err(ReplayError::NoPolicy {
                tick: tick.sequence,
                digest: digest.to_owned(),
            });
        };
        if !self.acted.contains(digest) {
            self.acted.insert(digest.to_owned());
        }
        // A damaged file may ask for more than any sampler has room for.
        let candidates = depth.candidates.min(ActionSampler::MOST_CANDIDATES + 1);
        let mut normals = vec![0.0; candidates * sampler.action_size()];
        self.noise.begin(tick.draw);
        self.noise.fill(&mut normals);
        let mut action = vec![0.0; tick.action.len()];
        sampler
            .sample_at(&tick.observation, &normals, depth, &mut action)
            .map_err(|source| ReplayError::Sample {
                tick: tick.sequence,
                source,
            })?;
        Ok(action)
    }

    fn end(mut self) -> Result<Report, ReplayError> {
        if self.report.metadata.is_empty() {
            return Err(ReplayError::Format {
                got: "is missing".into(),
            });
        }
        if self.report.actions == 0 {
            return Err(ReplayError::Empty {
                ticks: self.report.ticks,
            });
        }
        self.report.policies = self.acted.len();
        self.report.most_kept = self.policies.most_kept();
        Ok(self.report)
    }
}
