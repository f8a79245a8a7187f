//! What the node recorded of the swaps: the files themselves, and every action computed again.

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, ensure};
use mfpo_node::replay::{Difference, replay_with};
use mfpo_tests::rig::{Audit, Audited};

/// Parameters of a node that records into a folder all the time.
pub fn parameters(folder: &Path) -> [String; 2] {
    [
        format!("record.folder:={}", folder.display()),
        "record.mode:=continuous".into(),
    ]
}

/// What recordings were found to hold.
pub struct Recorded {
    files: usize,
    /// Their size.
    pub bytes: u64,
    /// Their ticks, all of which agree with what was received.
    pub audited: Audited,
    /// Actions that were computed again.
    pub actions: u64,
    /// Policies that acted, file by file.
    policies: usize,
    /// Actions that are others now, and the first of them.
    differing: u64,
    first: Option<Difference>,
}

/// Reads the recordings of a folder, tick by tick, and computes every action again, as `replay` does.
///
/// # Errors
/// When there is none, one is damaged or not complete, or its ticks are not those that were received.
pub fn check(folder: &Path, mut audit: Audit) -> anyhow::Result<Recorded> {
    let files = files(folder)?;
    ensure!(!files.is_empty(), "the node has recorded nothing");
    let (mut bytes, mut actions, mut differing) = (0, 0, 0);
    let (mut policies, mut first) = (0, None);
    for file in &files {
        let replayed = replay_with(file, &mut |tick| audit.recorded(tick));
        let report = replayed.map_err(|error| anyhow!("replay {}: {error}", file.display()))?;
        ensure!(
            !report.is_unfinished,
            "{} was not finished, although its node has ended",
            file.display()
        );
        bytes += std::fs::metadata(file)?.len();
        actions += report.actions;
        policies += report.policies;
        differing += report.differing;
        first = first.or(report.first);
    }
    Ok(Recorded {
        files: files.len(),
        bytes,
        audited: audit.conclude()?,
        actions,
        policies,
        differing,
        first,
    })
}

/// The recordings of a folder, whatever else lies there; their names sort by time.
fn files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))?;
    let paths = entries.map(|entry| entry.map(|entry| entry.path()));
    let mut files = paths.collect::<std::io::Result<Vec<_>>>()?;
    files.retain(|file| file.extension().is_some_and(|extension| extension == "mcap"));
    files.sort();
    Ok(files)
}

impl Recorded {
    /// Is every action the one that was recorded, to the last bit?
    pub fn is_identical(&self) -> bool {
        self.differing == 0 && self.actions > 0
    }

    /// Fails where it is not.
    pub fn check(&self) -> anyhow::Result<()> {
        ensure!(
            self.is_identical(),
            "{} of {} recorded actions are others when they are computed again; expected none",
            self.differing,
            self.actions
        );
        Ok(())
    }
}

impl fmt::Display for Recorded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "recording ({} MCAP files, {:.1} MB): {} ticks, {} of them those of the records above, each of one policy that was \
             published, {} of two with a weight\nreplay: ",
            self.files,
            1e-6 * self.bytes as f64,
            self.audited.ticks,
            self.audited.received,
            self.audited.blended
        )?;
        match &self.first {
            None => write!(
                f,
                "identical: {} actions of {} policies",
                self.actions, self.policies
            ),
            Some(first) => write!(
                f,
                "different: {} of {} actions, the first at tick {}, component {}: recorded as {:e}, got {:e}",
                self.differing, self.actions, first.tick, first.component, first.recorded, first.got
            ),
        }
    }
}
