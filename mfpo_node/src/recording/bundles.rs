//! The policies that may act, or have acted in what is kept: as the files that were checked, to be attached.

use std::sync::Arc;

use crate::weights::PolicyIdentity;

/// Policies that are kept whether they have acted lately or not: the live one, the one before, those being swapped in.
const KEPT: usize = 8;

struct Bundle {
    identity: Arc<PolicyIdentity>,
    bytes: Arc<[u8]>,
    used: u64,
}

/// Bundles by digest; those that were used longest ago are dropped first.
#[derive(Default)]
pub struct Bundles {
    bundles: Vec<Bundle>,
    uses: u64,
}

impl Bundles {
    /// Keeps a bundle, and drops some that `is_needed` does not name.
    pub fn keep(
        &mut self,
        identity: Arc<PolicyIdentity>,
        bytes: Arc<[u8]>,
        is_needed: impl Fn(&str) -> bool,
    ) {
        self.uses += 1;
        let used = self.uses;
        self.bundles
            .retain(|bundle| bundle.identity.digest != identity.digest);
        self.bundles.push(Bundle {
            identity,
            bytes,
            used,
        });
        while self.bundles.len() > KEPT {
            let droppable = self.bundles.iter().filter(|b| !is_needed(&b.identity.digest));
            let Some(oldest) = droppable.map(|b| b.used).min() else {
                return;
            };
            self.bundles.retain(|bundle| bundle.used != oldest);
        }
    }

    /// The bundle of a digest.
    pub fn get(&mut self, digest: &str) -> Option<Arc<[u8]>> {
        self.uses += 1;
        let bundle = self.bundles.iter_mut().find(|b| b.identity.digest == digest)?;
        bundle.used = self.uses;
        Some(Arc::clone(&bundle.bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(digest: &str) -> Arc<PolicyIdentity> {
        Arc::new(PolicyIdentity {
            robot: String::new(),
            run: String::new(),
            version: 0,
            digest: digest.to_owned(),
            weights_digest: String::new(),
            steps: 1,
            latency: 0.0,
            candidates: 1,
            has_critics: false,
            guard: None,
        })
    }

    #[test]
    fn what_acts_and_what_is_needed_stays_and_the_rest_is_dropped() {
        let mut bundles = Bundles::default();
        for number in 0..50 {
            let digest = format!("{number}");
            bundles.keep(identity(&digest), Arc::from(digest.as_bytes()), |d| d == "3");
            assert!(bundles.get("0").is_some(), "it acts all the time, at {number}");
        }
        assert!(bundles.get("3").is_some(), "a tick that is kept names it");
        assert!(bundles.get("4").is_none() && bundles.get("49").is_some());
        assert_eq!(bundles.bundles.len(), KEPT);
    }
}
