//! Which episodes count. A trial is one pass of the robot over all of its starts under one policy.

/// One episode of the robot, as `robot/episode` told it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Episode {
    /// Number since the robot started, from 0.
    pub index: u64,
    /// When it began, ns since the Unix epoch.
    pub began: i64,
    /// When it ended, ns since the Unix epoch.
    pub ended: i64,
    /// Was the goal held?
    pub success: bool,
    /// Sum of rewards.
    pub episode_return: f64,
    /// Simulated seconds for each second of the clock.
    pub real_time_factor: f64,
}

/// One pass over all starts: the first episode of each start that began after the policy was live.
#[derive(Debug, Clone, PartialEq)]
pub struct Trial {
    /// Digest of the policy.
    pub digest: String,
    /// Version of the policy within its run.
    pub version: u64,
    /// The policy was live from here on, ns since the Unix epoch.
    since: i64,
    /// By start.
    outcomes: Vec<Option<bool>>,
    returns: f64,
}

impl Trial {
    /// A trial of the policy that has been live since `since`, over `starts` starts.
    pub fn new(starts: u64, digest: &str, version: u64, since: i64) -> Self {
        Self {
            digest: digest.to_owned(),
            version,
            since,
            outcomes: vec![None; usize::try_from(starts).unwrap_or(0)],
            returns: 0.0,
        }
    }

    /// Counts `episode`, unless it began too early or its start was counted already. Did it count?
    pub fn take(&mut self, episode: &Episode) -> bool {
        let starts = self.outcomes.len() as u64;
        let start = usize::try_from(episode.index % starts.max(1)).unwrap_or(0);
        let Some(outcome) = self.outcomes.get_mut(start) else {
            return false;
        };
        if episode.began < self.since || outcome.is_some() {
            return false;
        }
        *outcome = Some(episode.success);
        self.returns += episode.episode_return;
        true
    }

    /// Starts.
    pub fn starts(&self) -> usize {
        self.outcomes.len()
    }

    /// Episodes that count so far.
    pub fn counted(&self) -> usize {
        self.outcomes.iter().flatten().count()
    }

    /// Successful ones among them.
    pub fn successes(&self) -> usize {
        self.outcomes.iter().flatten().filter(|success| **success).count()
    }

    /// Has every start been counted?
    pub fn is_complete(&self) -> bool {
        self.counted() == self.starts()
    }

    /// Share of successes, once every start has been counted.
    pub fn success(&self) -> Option<f64> {
        self.is_complete()
            .then(|| self.successes() as f64 / self.starts().max(1) as f64)
    }

    /// Mean return, once every start has been counted.
    pub fn mean_return(&self) -> Option<f64> {
        self.is_complete()
            .then(|| self.returns / self.starts().max(1) as f64)
    }

    /// By start; `None` where it has not been counted yet.
    pub fn outcomes(&self) -> &[Option<bool>] {
        &self.outcomes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn episode(index: u64, began: i64, success: bool) -> Episode {
        Episode {
            index,
            began,
            ended: began + 10,
            success,
            episode_return: 2.0,
            real_time_factor: 1.0,
        }
    }

    #[test]
    fn an_episode_that_began_before_the_policy_was_live_does_not_count() {
        let mut trial = Trial::new(3, "d", 1, 100);
        assert!(!trial.take(&episode(0, 99, true)));
        assert!(trial.take(&episode(1, 100, true)));
        assert_eq!((trial.counted(), trial.is_complete()), (1, false));
    }

    #[test]
    fn every_start_counts_once_whatever_index_the_pass_begins_with() {
        let mut trial = Trial::new(4, "d", 1, 0);
        for index in 7..11 {
            assert_eq!(trial.success(), None);
            assert!(trial.take(&episode(index, 1, index % 2 == 0)));
        }
        assert!(!trial.take(&episode(11, 1, true)), "start 3 was episode 7");
        assert_eq!(
            (trial.success(), trial.successes(), trial.counted()),
            (Some(0.5), 2, 4)
        );
        assert_eq!(trial.mean_return(), Some(2.0));
    }

    #[test]
    fn the_first_episode_of_a_start_counts_not_the_best() {
        let mut trial = Trial::new(2, "d", 1, 0);
        trial.take(&episode(0, 1, false));
        assert!(!trial.take(&episode(2, 2, true)));
        trial.take(&episode(1, 3, false));
        assert_eq!(trial.success(), Some(0.0));
    }
}
