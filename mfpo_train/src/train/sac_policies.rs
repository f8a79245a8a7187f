//! The last and the best policy of a SAC run, each in a file of its own: what a run of MFPO leaves as bundles.
//!
//! What the disk does not take ends no run: it waits, and is tried again at the next saving, as bundles are.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::Run;
use crate::publish::{tell_that_it_waits, write_atomically};
use crate::sac::GaussianPolicy;
use crate::sac::policy_file::{self, PolicyHeader};

/// The file of the policy that was measured last, at the end of a run the last one.
pub(crate) const LAST: &str = "last.sac.safetensors";
/// The file of the policy with the highest return of an evaluation.
pub(crate) const BEST: &str = "best.sac.safetensors";

/// The two files in the folder of a run.
pub(super) struct SacPolicies {
    folder: PathBuf,
    /// What the disk has not taken, by the file's name.
    waiting: BTreeMap<&'static str, Vec<u8>>,
}

impl SacPolicies {
    /// Those of the run folder `folder`; nothing is written yet.
    pub(super) fn new(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            waiting: BTreeMap::new(),
        }
    }

    /// Replaces the file `name`.
    pub(super) fn keep(&mut self, name: &'static str, bytes: Vec<u8>) {
        let path = self.folder.join(name);
        match write_atomically(&path, &bytes) {
            Ok(()) => drop(self.waiting.remove(name)),
            Err(error) => {
                tell_that_it_waits(&path, &error);
                self.waiting.insert(name, bytes);
            }
        }
    }

    /// Tries again what the disk did not take.
    pub(super) fn try_again(&mut self) {
        for (name, bytes) in std::mem::take(&mut self.waiting) {
            self.keep(name, bytes);
        }
    }

    /// What the disk has not taken, a clause a file.
    pub(super) fn unwritten(&self) -> Vec<String> {
        let names = self.waiting.keys();
        names.map(|name| format!("{name} is an older one")).collect()
    }

    /// The file of the last policy, if there is one.
    pub(super) fn last(&self) -> Option<PathBuf> {
        Some(self.folder.join(LAST)).filter(|path| path.is_file())
    }
}

impl Run {
    /// Keeps the policy of SAC as it is now.
    ///
    /// # Errors
    /// When a number of it is not finite.
    pub(super) fn keep_sac(&mut self, policy: &GaussianPolicy, is_best: bool) -> anyhow::Result<()> {
        let config = self.config.to_toml()?;
        let header = PolicyHeader::new(&self.name, &self.task, self.step, config);
        let bytes = policy_file::encode(header, policy)?;
        if is_best {
            self.sac_policies.keep(BEST, bytes.clone());
        }
        self.sac_policies.keep(LAST, bytes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::publish::unfinished;

    #[test]
    fn what_the_disk_does_not_take_waits_for_the_next_saving() {
        let folder = tempfile::tempdir().unwrap();
        let mut policies = SacPolicies::new(folder.path());
        assert_eq!(policies.last(), None);
        policies.keep(LAST, vec![0]);
        policies.keep(BEST, vec![0]);
        let last = policies.last().unwrap();
        // A folder in the place of the file that is being written.
        fs::create_dir(unfinished(&last)).unwrap();
        policies.keep(LAST, vec![1]);
        policies.keep(LAST, vec![2]);
        policies.keep(BEST, vec![2]);
        policies.try_again();
        assert_eq!(fs::read(&last).unwrap(), [0]);
        assert_eq!(fs::read(folder.path().join(BEST)).unwrap(), [2]);
        assert_eq!(policies.unwritten(), ["last.sac.safetensors is an older one"]);
        fs::remove_dir(unfinished(&last)).unwrap();
        policies.try_again();
        assert_eq!(fs::read(&last).unwrap(), [2], "only the newest counts");
        assert!(policies.unwritten().is_empty());
    }
}
