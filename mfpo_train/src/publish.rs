//! A trained weight leaves the trainer: seal, write to the run folder (temporary file, then rename, so that a reader
//! never sees half a bundle), and hand to the topic. Versions rise by one within a run, and by more
//! where it goes on with other numbers; version 0 is untrained.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, ensure};
use candle_core::Device;
use mfpo_policy::bundle::{self, SealRequest};
use mfpo_policy::guard::GuardManifest;
use mfpo_policy::sampler::ActionSampler;
use mfpo_policy::signature::SigningKey;
use mfpo_policy::subject::Subject;
use rand::Rng;

use crate::algorithm::MeanFlowPolicy;

/// A bundle that is ready to be sent.
#[derive(Debug, Clone)]
pub struct SealedBundle {
    /// Unique name of the training run.
    pub run: String,
    /// Place in the run.
    pub version: u64,
    /// The robot or the task that it is for.
    pub subject: String,
    /// Digest that the manifest states.
    pub digest: String,
    /// The file.
    pub bytes: Vec<u8>,
}

/// What a bundle is called, and the observations that its golden probes are made of.
#[derive(Debug, Clone)]
pub struct Label<'a> {
    /// Unique name of the training run.
    pub run: &'a str,
    /// Place in the run.
    pub version: u64,
    /// Some observations, each `[S]`; without any, random ones are used.
    pub probe_observations: Vec<Vec<f32>>,
    /// When an observation is outside what the policy knows, where that is known.
    pub guard: Option<GuardManifest>,
    /// Who vouches for it.
    pub key: Option<&'a SigningKey>,
}

impl SealedBundle {
    /// Seals `policy` with the target critics for best of N.
    pub fn seal(policy: &MeanFlowPolicy, subject: &Subject, label: Label<'_>) -> anyhow::Result<Self> {
        let mut bytes = bundle::seal(&SealRequest {
            subject,
            run: label.run,
            version: label.version,
            sampling_steps: policy.sampling_steps,
            actor: &policy.actor,
            critics: Some(([&policy.critics[0], &policy.critics[1]], policy.critic_manifest)),
            normalizer: policy.normalizer.clone(),
            probe_observations: label.probe_observations,
        })?;
        if let Some(guard) = label.guard {
            bytes = bundle::with_guard(&bytes, guard)?;
        }
        if let Some(key) = label.key {
            bytes = bundle::sign(&bytes, key)?;
        }
        let digest = bundle::open(&bytes)?.digest().to_owned();
        Ok(Self {
            run: label.run.to_owned(),
            version: label.version,
            subject: subject.name().to_owned(),
            digest,
            bytes,
        })
    }

    /// The sampler that whoever opens it runs.
    pub fn sampler(&self) -> anyhow::Result<ActionSampler> {
        Ok(bundle::open(&self.bytes)?.sampler(&Device::Cpu)?)
    }
}

/// How bundles get to running nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Announce {
    /// In one message where they are small, else in parts
    #[default]
    Auto,
    /// Each in one message, however large
    Message,
    /// In parts that keep nobody waiting
    Parts,
    /// By digest and path: for nodes that see the run folder under the same path
    Path,
}

impl Announce {
    /// A larger bundle does not go in one message, unless that is asked for, bytes.
    const LARGE: usize = 4 << 20;

    /// The way that a bundle of `size` bytes takes.
    #[must_use]
    pub fn of_size(self, size: usize) -> Self {
        match self {
            Self::Auto if size > Self::LARGE => Self::Parts,
            Self::Auto => Self::Message,
            asked => asked,
        }
    }
}

/// A part is not smaller, bytes: more messages would not be any better.
const SMALLEST_PART: usize = 256 << 10;
/// A bundle has no more parts, so that a latched topic of depth 256 holds all of them.
const MOST_PARTS: usize = 256;

/// A file cut into parts.
pub fn parts(bytes: &[u8]) -> impl ExactSizeIterator<Item = &[u8]> {
    bytes.chunks(SMALLEST_PART.max(bytes.len().div_ceil(MOST_PARTS)))
}

/// Somebody who gets every bundle.
pub trait BundleSink: Send {
    /// Sends `bundle`, which lies in `file`.
    fn publish(&mut self, bundle: &SealedBundle, file: &Path) -> anyhow::Result<()>;
}

/// Writes bundles to `<run folder>/bundles` and `<run folder>/last.safetensors`, and sends them. What the disk does not
/// take ends no run: the newest and the best bundle wait, and are tried again at the next saving, before the checkpoint. A
/// run that is killed meanwhile goes on from the checkpoint before, and makes them again.
pub struct Publisher {
    folder: PathBuf,
    sink: Option<Box<dyn BundleSink>>,
    /// The newest bundle, where it is not on the disk.
    newest: Option<SealedBundle>,
    /// The best one, likewise.
    best: Option<SealedBundle>,
}

impl Publisher {
    /// Publishes into the run folder `folder`, and to `sink` if there is one.
    pub fn new(folder: &Path, sink: Option<Box<dyn BundleSink>>) -> anyhow::Result<Self> {
        let bundles = folder.join("bundles");
        fs::create_dir_all(&bundles)
            .with_context(|| format!("cannot make the folder {}", bundles.display()))?;
        Ok(Self {
            folder: folder.to_owned(),
            sink,
            newest: None,
            best: None,
        })
    }

    /// Publishes one bundle. One that the disk does not take is not sent either: nobody could look up what a robot ran.
    ///
    /// # Errors
    /// When it cannot be sent.
    pub fn publish(&mut self, bundle: &SealedBundle) -> anyhow::Result<()> {
        let (file, last) = (self.file(bundle.version), self.last());
        // One that still waits is older.
        self.newest = None;
        for path in [&file, &last] {
            if let Err(error) = write_atomically(path, &bundle.bytes) {
                tell_that_it_waits(path, &error);
                self.newest = Some(bundle.clone());
                return Ok(());
            }
        }
        if let Some(sink) = &mut self.sink {
            sink.publish(bundle, &file)
                .context("cannot publish on the topic policy/bundle")?;
        }
        tracing::debug!(
            version = bundle.version,
            bytes = bundle.bytes.len(),
            "bundle published"
        );
        Ok(())
    }

    /// Keeps a bundle as the best one so far.
    pub fn keep_best(&mut self, bundle: &SealedBundle) {
        let path = self.folder.join("best.safetensors");
        let written = write_atomically(&path, &bundle.bytes);
        self.best = written.is_err().then(|| bundle.clone());
        if let Err(error) = written {
            tell_that_it_waits(&path, &error);
        }
    }

    /// Tries again what the disk did not take.
    ///
    /// # Errors
    /// As [`Publisher::publish`].
    pub fn try_again(&mut self) -> anyhow::Result<()> {
        if let Some(bundle) = self.best.take() {
            self.keep_best(&bundle);
        }
        match self.newest.take() {
            Some(bundle) => self.publish(&bundle),
            None => Ok(()),
        }
    }

    /// What the disk has not taken, a clause a file. No run that goes on makes an old best bundle again.
    pub fn unwritten(&self) -> Vec<String> {
        let newest = self.newest.as_ref();
        let newest = newest.map(|_| "last.safetensors is an older one".to_owned());
        let best = self.best.as_ref().map(|bundle| {
            let file = self.file(bundle.version);
            if file.exists() {
                format!(
                    "best.safetensors is an older one (the best is {}: copy it)",
                    file.display()
                )
            } else {
                format!("best.safetensors is an older one than version {}", bundle.version)
            }
        });
        newest.into_iter().chain(best).collect()
    }

    /// The highest version that the run folder holds.
    pub fn highest_version(&self) -> Option<u64> {
        let bundles = fs::read_dir(self.folder.join("bundles"));
        let names = bundles
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.file_name());
        let version = |name: OsString| -> Option<u64> {
            let number = name.to_str()?.strip_prefix('v')?.strip_suffix(".safetensors")?;
            number.parse().ok()
        };
        names.filter_map(version).max()
    }

    fn file(&self, version: u64) -> PathBuf {
        self.folder.join(format!("bundles/v{version:06}.safetensors"))
    }

    /// The file that always holds the last bundle.
    pub fn last(&self) -> PathBuf {
        self.folder.join("last.safetensors")
    }
}

pub(crate) fn tell_that_it_waits(path: &Path, error: &std::io::Error) {
    tracing::warn!(
        "cannot write {}: {error}; what was there is whole, the run goes on, and it is tried again at the next saving: free \
         some space",
        path.display()
    );
}

/// Where a file is until it is whole: beside its place, under a name that nobody gives to a file of their own, and that a
/// node which watches the folder does not take for a bundle.
pub(crate) fn unfinished(path: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".mfpo-unfinished");
    path.with_file_name(name)
}

/// A file is written in parts of this size, bytes.
const WRITTEN_AT_ONCE: usize = 256 << 10;

/// Writes a file that is complete whenever it is there, also after a power cut; where that fails, the one that was there
/// stays.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let temporary = unfinished(path);
    let written = write_whole(&temporary, bytes).and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        // Half a file takes room that others lack; one that cannot be removed is overwritten the next time.
        let _ = fs::remove_file(&temporary);
    }
    written
}

fn write_whole(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = File::create(path)?;
    // In parts: on a kernel that does not preempt itself a control thread on this core waits for the end of a system call.
    bytes
        .chunks(WRITTEN_AT_ONCE)
        .try_for_each(|part| file.write_all(part))?;
    file.sync_all()
}

/// Is the folder there that a file is to be written into? Ask before what takes minutes.
///
/// # Errors
/// When it is not, by name.
pub(crate) fn check_folder(file: &Path) -> anyhow::Result<()> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    ensure!(
        folder.is_none_or(Path::is_dir) && !file.is_dir(),
        "cannot write {}: expected a file's name in a folder that is there",
        file.display()
    );
    Ok(())
}

/// A name that no other run has: task, Unix time, seed, 32 random bits.
pub fn run_id(task: &str, seed: u64) -> String {
    let seconds = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |elapsed| elapsed.as_secs());
    format!("{task}-{seconds}-s{seed}-{:08x}", rand::rng().next_u32())
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// Keeps the versions that it gets.
    struct Log(Arc<Mutex<Vec<u64>>>);

    impl BundleSink for Log {
        fn publish(&mut self, bundle: &SealedBundle, file: &Path) -> anyhow::Result<()> {
            assert_eq!(fs::read(file).unwrap(), bundle.bytes);
            self.0.lock().unwrap().push(bundle.version);
            Ok(())
        }
    }

    fn bundle(version: u64) -> SealedBundle {
        SealedBundle {
            run: "run".into(),
            version,
            subject: "robot".into(),
            digest: String::new(),
            bytes: vec![version as u8; 1_000],
        }
    }

    #[test]
    fn every_version_is_kept_and_the_last_has_a_name_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let sent = Arc::new(Mutex::new(Vec::new()));
        let mut publisher = Publisher::new(folder.path(), Some(Box::new(Log(sent.clone())))).unwrap();
        publisher.publish(&bundle(0)).unwrap();
        publisher.publish(&bundle(1)).unwrap();
        assert_eq!(*sent.lock().unwrap(), [0, 1]);
        assert_eq!(fs::read(publisher.last()).unwrap(), bundle(1).bytes);
        assert_eq!(
            fs::read(folder.path().join("bundles/v000000.safetensors")).unwrap(),
            bundle(0).bytes
        );
        let names: Vec<_> = fs::read_dir(folder.path().join("bundles"))
            .unwrap()
            .map(|f| f.unwrap().file_name())
            .collect();
        assert_eq!(names.len(), 2, "no temporary file stays: {names:?}");
        for other in [".v000009.safetensors.mfpo-unfinished", "notes.txt"] {
            fs::write(folder.path().join("bundles").join(other), "").unwrap();
        }
        assert_eq!(publisher.highest_version(), Some(1));
    }

    #[test]
    fn files_of_a_similar_name_stay_what_they_are() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let path = at("policy.safetensors");
        let others = [at("policy.tmp"), at("policy.safetensors.tmp")];
        for other in &others {
            fs::write(other, "mine").unwrap();
        }
        // What a program that was killed has left is replaced.
        fs::write(unfinished(&path), "half").unwrap();
        write_atomically(&path, b"whole").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"whole");
        for other in &others {
            assert_eq!(fs::read(other).unwrap(), b"mine");
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3);
    }

    #[test]
    fn what_the_disk_does_not_take_waits_for_the_next_saving_and_is_not_sent_before() {
        let folder = tempfile::tempdir().unwrap();
        let sent = Arc::new(Mutex::new(Vec::new()));
        let mut publisher = Publisher::new(folder.path(), Some(Box::new(Log(sent.clone())))).unwrap();
        publisher.publish(&bundle(0)).unwrap();
        publisher.keep_best(&bundle(0));
        assert!(publisher.unwritten().is_empty());
        // Folders in the places of the files that are being written.
        let obstacles = [publisher.last(), folder.path().join("best.safetensors")];
        let obstacles = obstacles.map(|path| unfinished(&path));
        for path in &obstacles {
            fs::create_dir(path).unwrap();
        }
        publisher.publish(&bundle(1)).unwrap();
        publisher.publish(&bundle(2)).unwrap();
        publisher.keep_best(&bundle(2));
        publisher.try_again().unwrap();
        let best = folder.path().join("best.safetensors");
        for path in [&publisher.last(), &best] {
            assert_eq!(fs::read(path).unwrap(), bundle(0).bytes);
        }
        assert_eq!(*sent.lock().unwrap(), [0]);
        let unwritten = publisher.unwritten();
        assert_eq!(unwritten[0], "last.safetensors is an older one");
        // Its own file was written, before `last.safetensors` could not be.
        assert!(
            unwritten[1].contains("bundles/v000002.safetensors: copy it"),
            "{unwritten:?}"
        );

        for path in &obstacles {
            fs::remove_dir(path).unwrap();
        }
        publisher.try_again().unwrap();
        assert!(publisher.unwritten().is_empty());
        for path in [&publisher.last(), &best] {
            assert_eq!(fs::read(path).unwrap(), bundle(2).bytes);
        }
        assert_eq!(*sent.lock().unwrap(), [0, 2], "only the newest counts");
        publisher.try_again().unwrap();
        assert_eq!(*sent.lock().unwrap(), [0, 2], "it is sent once");
    }

    #[test]
    fn a_file_is_cut_into_parts_that_a_latched_topic_holds_all_of() {
        for size in [1, SMALLEST_PART, SMALLEST_PART + 1, 50 << 20, 300 << 20] {
            let bytes = vec![0; size];
            let parts = parts(&bytes);
            assert!(
                (1..=MOST_PARTS).contains(&parts.len()),
                "{size}: {} parts",
                parts.len()
            );
            assert_eq!(parts.map(<[u8]>::len).sum::<usize>(), size);
        }
    }

    #[test]
    fn large_bundles_go_in_parts_unless_somebody_asks_for_something_else() {
        let large = Announce::LARGE + 1;
        assert_eq!(Announce::Auto.of_size(Announce::LARGE), Announce::Message);
        assert_eq!(Announce::Auto.of_size(large), Announce::Parts);
        for asked in [Announce::Message, Announce::Parts, Announce::Path] {
            assert_eq!((asked.of_size(1), asked.of_size(large)), (asked, asked));
        }
    }

    #[test]
    fn two_runs_of_the_same_second_and_seed_have_two_names() {
        let (one, other) = (run_id("swing_arm", 3), run_id("swing_arm", 3));
        assert_ne!(one, other);
        assert!(one.starts_with("swing_arm-") && one.contains("-s3-"), "{one}");
    }
}
