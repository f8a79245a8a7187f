//! What the node did, kept so that it can be computed again: MCAP files with every tick, the status, the log, and each
//! policy that acted. [`ring`] takes ticks from the control thread without delaying it, [`recorder`] decides on a thread
//! of its own what is kept, [`history`] holds the last seconds before a fault, [`mod@file`] writes, [`folder`] keeps within
//! the disk that it may use, [`health`] tells how it gets on. Whether the recording is what was computed says
//! [`crate::replay`].

pub mod bundles;
pub mod file;
pub mod folder;
pub mod health;
pub mod history;
pub mod recorder;
pub mod ring;
pub mod tick;

use std::collections::BTreeMap;
use std::path::PathBuf;

pub use health::Health;
pub use recorder::{Note, Recorder, Recording};
pub use ring::{TickContext, TickStream, TickTap, tick_ring};
pub use tick::TickMessage;

/// The format of the metadata; a reader refuses another.
pub const FORMAT: &str = "mfpo-recording/1";
/// Name of the metadata record that says what recorded, and with which kernel and seed.
pub const METADATA: &str = "mfpo";
/// Name of the metadata record with the node's parameters.
pub const PARAMETERS: &str = "parameters";
/// Media type of an attached policy, whose name is its digest.
pub const BUNDLE_TYPE: &str = "application/x-mfpo-policy-bundle";

/// When a recording is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// All the time.
    Continuous,
    /// When something goes wrong: the seconds before and a few after.
    BeforeFault,
}

impl Mode {
    /// The names of the parameter `record.mode`.
    pub const NAMES: [&'static str; 2] = ["continuous", "before_fault"];

    /// The mode of a name.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "continuous" => Some(Self::Continuous),
            "before_fault" => Some(Self::BeforeFault),
            _ => None,
        }
    }
}

/// What is to be recorded, and where.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Where the files go.
    pub folder: PathBuf,
    /// When they are written.
    pub mode: Mode,
    /// What is kept before a fault, ns.
    pub before: u64,
    /// What is kept after it, ns.
    pub after: u64,
    /// A file ends after this time, ns, and another begins.
    pub file_time: u64,
    /// What the files may take together, bytes; the oldest are removed.
    pub most_bytes: u64,
}

/// What every file says of the node.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Facts {
    /// Full name of the node, without the first `/`.
    pub node: String,
    /// Namespace of its topics, `/` for none.
    pub namespace: String,
    /// Seed of the policy's noise.
    pub seed: u64,
    /// Where policies run.
    pub device: String,
    /// Its parameters.
    pub parameters: BTreeMap<String, String>,
}

/// What a file has topics for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channel {
    /// Every tick.
    Tick = 0,
    /// `policy/status`.
    Status = 1,
    /// `/rosout`, the node's own lines.
    Log = 2,
}
