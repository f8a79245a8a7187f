//! A sender of bundles that stands for the trainer: a process of its own with the lowest priority, which sends a bundle
//! whole, as the path of its file, or in parts.

use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command};
use std::time::Duration;

use anyhow::{Context as _, bail};
use mfpo_ros::r2r::mfpo_msgs::msg::{PolicyBundle, PolicyBundleChunk};
use mfpo_ros::{create_node, qos};

use crate::Process;

/// A part of a bundle, bytes, and the time between two, as the trainer sends them.
const PART: usize = 256 << 10;
const BETWEEN_PARTS: Duration = Duration::from_millis(5);

/// How a bundle comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Way {
    /// In one message.
    Message,
    /// As the path of its file.
    Path,
    /// In parts.
    Parts,
}

impl Way {
    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Message => "message",
            Self::Path => "path",
            Self::Parts => "parts",
        }
    }
}

/// A sealed bundle and its file.
#[derive(Debug, Clone)]
pub struct Sealed {
    /// Its run, one word.
    pub run: String,
    /// Its version.
    pub version: u64,
    /// Its digest.
    pub digest: String,
    /// Where it lies.
    pub file: PathBuf,
}

/// The sending process; it ends with this.
pub struct Sender {
    /// Closed first, which is the process's own end.
    orders: ChildStdin,
    process: Process,
}

impl Sender {
    /// Starts the program that calls this once more, with `arguments` that bring it to [`send_bundles`].
    ///
    /// # Errors
    /// When it is unknown which program that is.
    pub fn start(folder: &Path, arguments: &[&str]) -> anyhow::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(arguments);
        let log = folder.join("sender.log");
        let (process, orders, _) = Process::start_connected("bench_sender", command, &log);
        Ok(Self { orders, process })
    }

    /// Lets it send a bundle.
    ///
    /// # Errors
    /// When it has ended; its log is told.
    pub fn send(&mut self, bundle: &Sealed) -> anyhow::Result<()> {
        let Sealed {
            run,
            version,
            digest,
            file,
        } = bundle;
        let sent = writeln!(self.orders, "{run} {version} {digest} {}", file.display());
        sent.with_context(|| format!("the sender has ended:\n{}", self.process.log()))
    }
}

/// What the sending process does: it sends the bundles that the lines of its input name.
///
/// # Errors
/// When a file cannot be read, or rcl refuses something.
pub fn send_bundles(namespace: &str, way: Way) -> anyhow::Result<()> {
    // SAFETY: setpriority takes numbers; the threads that are started from here on have what this one has.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, 19) };
    let mut node = create_node("bench_trainer")?;
    let whole = node.create_publisher(&format!("{namespace}/policy/bundle"), qos::POLICY_BUNDLE)?;
    let topic = format!("{namespace}/policy/bundle_chunk");
    let parts = node.create_publisher(&topic, qos::POLICY_BUNDLE_CHUNK)?;
    for order in std::io::stdin().lock().lines() {
        let bundle = Sealed::read(&order?)?;
        match way {
            Way::Message => whole.publish(&bundle.message(bundle.bytes()?, String::new()))?,
            Way::Path => whole.publish(&bundle.message(Vec::new(), bundle.file.display().to_string()))?,
            Way::Parts => {
                for part in bundle.parts(&bundle.bytes()?) {
                    parts.publish(&part)?;
                    std::thread::sleep(BETWEEN_PARTS);
                }
            }
        }
    }
    Ok(())
}

impl Sealed {
    fn read(order: &str) -> anyhow::Result<Self> {
        let [run, version, digest, file] = order.splitn(4, ' ').collect::<Vec<_>>()[..] else {
            bail!("an order is 'RUN VERSION DIGEST FILE', got '{order}'");
        };
        Ok(Self {
            run: run.to_owned(),
            version: version.parse()?,
            digest: digest.to_owned(),
            file: file.into(),
        })
    }

    fn bytes(&self) -> anyhow::Result<Vec<u8>> {
        // As the node reads it: in parts.
        mfpo_node::weights::file::read(&self.file).with_context(|| format!("reading {}", self.file.display()))
    }

    fn message(&self, data: Vec<u8>, path: String) -> PolicyBundle {
        PolicyBundle {
            run: self.run.clone(),
            version: self.version,
            digest: self.digest.clone(),
            data,
            path,
            ..PolicyBundle::default()
        }
    }

    fn parts<'a>(&'a self, bytes: &'a [u8]) -> impl Iterator<Item = PolicyBundleChunk> + 'a {
        let count = bytes.len().div_ceil(PART) as u32;
        (0..)
            .zip(bytes.chunks(PART))
            .map(move |(index, part)| PolicyBundleChunk {
                run: self.run.clone(),
                version: self.version,
                digest: self.digest.clone(),
                size: bytes.len() as u64,
                index,
                count,
                data: part.to_vec(),
                ..PolicyBundleChunk::default()
            })
    }
}
