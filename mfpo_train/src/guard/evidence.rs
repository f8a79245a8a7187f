//! Which rate of false alarms so much data can vouch for. Of `k` alarms in a time T the true rate is, with 95 % confidence,
//! below `m / T`, where a Poisson variable of mean `m` is `k` or less in 5 % of all cases; for `k = 0` that is the rule of
//! three, `3 / T`. A lower rate cannot be stated, however few alarms there were.

/// The normal quantile of 95 %.
const QUANTILE: f64 = 1.645;

/// How long nothing was wrong.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Evidence {
    /// Time without a fault, s.
    pub(super) seconds: f64,
    /// Episodes that it comes from.
    pub(super) episodes: u64,
}

impl Evidence {
    /// The rate that `alarms` vouch for, an hour.
    pub(super) fn highest_rate(&self, alarms: u64) -> f64 {
        highest_mean(alarms) * 3600.0 / self.seconds
    }

    /// No lower rate can be stated, an hour.
    pub(super) fn lowest_rate(&self) -> f64 {
        self.highest_rate(0)
    }

    /// Episodes of this length that can vouch for `rate`, an hour.
    pub(super) fn episodes_for(&self, rate: f64) -> u64 {
        (self.episodes as f64 * self.lowest_rate() / rate).ceil() as u64
    }
}

/// The approximation of Wilson and Hilferty (1931) to half the chi-square quantile, within 1 % of it.
fn highest_mean(alarms: u64) -> f64 {
    let shape = alarms as f64 + 1.0;
    shape * (1.0 - 1.0 / (9.0 * shape) + QUANTILE / (3.0 * shape.sqrt())).powi(3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_are_those_of_the_tables_and_none_is_the_rule_of_three() {
        for (alarms, exact) in [(0, 2.996), (1, 4.744), (2, 6.296), (10, 16.962), (100, 118.08)] {
            let got = highest_mean(alarms);
            assert!((got / exact - 1.0).abs() < 0.01, "{alarms}: {got}, not {exact}");
        }
    }

    #[test]
    fn a_rate_needs_the_time_that_can_show_it() {
        let evidence = Evidence {
            seconds: 250.0,
            episodes: 100,
        };
        // 3 in 250 s.
        assert!((evidence.lowest_rate() - 43.2).abs() < 0.6);
        let needed = evidence.episodes_for(10.0);
        assert!((420..=432).contains(&needed), "{needed}");
        let enough = Evidence {
            seconds: 2.5 * needed as f64,
            episodes: needed,
        };
        assert!(enough.lowest_rate() <= 10.0 && enough.highest_rate(1) > 10.0);
    }
}
