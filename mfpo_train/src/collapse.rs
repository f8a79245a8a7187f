//! Whether the policy has collapsed onto single actions, told once: of all candidates one has all the weight, so that the
//! velocity it learns follows one action of the critics' liking, and nothing is left that explores.

use crate::algorithm::UpdateMetrics;

/// Up to this effective sample size one candidate has all the weight.
const ONE: f64 = 1.05;

/// So many updates in a row are no accident.
const UPDATES: u32 = 1_000;

/// Watches the effective sample sizes of both sets of candidates.
#[derive(Debug, Default)]
pub struct CollapseWatch {
    updates_in_a_row: u32,
}

impl CollapseWatch {
    /// Takes the metrics of an update; returns what to tell the user, at the update that completes 1,000 in a row.
    /// Metrics without sample sizes (SAC's) are nothing to go by.
    pub fn update(&mut self, metrics: &UpdateMetrics) -> Option<String> {
        let (policy, clean) = (metrics.get("ess_policy")?, metrics.get("ess_clean")?);
        if policy.max(clean) > ONE {
            // One that was told is told again only when it comes back for good.
            self.updates_in_a_row = 0;
            return None;
        }
        self.updates_in_a_row = self.updates_in_a_row.saturating_add(1);
        (self.updates_in_a_row == UPDATES).then(|| {
            let number = |name| metrics.get(name).unwrap_or(f64::NAN);
            format!(
                "the policy has collapsed onto single actions: for {UPDATES} updates one candidate has had all the weight \
                 (ess_policy {policy:.2}, ess_clean {clean:.2}) at a temperature of {:.1e} and an entropy of {:.2}. Where the \
                 entropy stays above its target, larger networks or a higher learner.target_entropy_per_dim bring the target \
                 within reach; learner.temperature_min keeps the temperature up",
                number("temperature"),
                number("entropy"),
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metrics(ess_policy: f64, ess_clean: f64) -> UpdateMetrics {
        UpdateMetrics(vec![
            ("ess_policy", ess_policy),
            ("ess_clean", ess_clean),
            ("temperature", 2e-5),
            ("entropy", -2.4),
        ])
    }

    #[test]
    fn a_collapse_is_told_once_and_again_only_after_a_recovery() {
        let mut watch = CollapseWatch::default();
        let mut told = |count: u32, (policy, clean): (f64, f64)| -> Vec<String> {
            (0..count)
                .filter_map(|_| watch.update(&metrics(policy, clean)))
                .collect()
        };
        assert_eq!(told(UPDATES - 1, (1.0, 1.02)), Vec::<String>::new());
        // One set with some spread is none.
        assert_eq!(told(1, (1.0, 1.2)), Vec::<String>::new());
        assert_eq!(told(UPDATES - 1, (1.0, 1.0)), Vec::<String>::new());
        let first = told(1, (1.0, 1.0));
        assert!(
            first[0].contains("temperature of 2.0e-5 and an entropy of -2.40"),
            "{first:?}"
        );
        assert_eq!(told(5 * UPDATES, (1.0, 1.0)), Vec::<String>::new());
        told(1, (2.0, 2.0));
        assert_eq!(told(UPDATES, (1.0, 1.0)).len(), 1);
    }

    #[test]
    fn metrics_without_sample_sizes_are_nothing_to_go_by() {
        let mut watch = CollapseWatch::default();
        let sac = UpdateMetrics(vec![("temperature", 0.1)]);
        assert!((0..2 * UPDATES).all(|_| watch.update(&sac).is_none()));
    }
}
