//! Which policy each tick is of: one that was published, never an older one than before; while one takes over from another,
//! the two of them, with the weight of the newer.

use mfpo_ros::r2r::mfpo_msgs::msg::PolicyAction;

/// What a tick says of its policies.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Named<'a> {
    /// Number of the tick.
    pub sequence: u64,
    /// Run of the policy that acts.
    pub run: &'a str,
    /// Its version.
    pub version: u64,
    /// Its weight against the one before; 1 outside of a blend.
    pub weight: f64,
    /// Run and version of the one before, where the tick names it.
    pub previous: Option<(&'a str, u64)>,
}

impl<'a> From<&'a PolicyAction> for Named<'a> {
    fn from(action: &'a PolicyAction) -> Self {
        let previous = (action.previous_run.as_str(), action.previous_version);
        Self {
            sequence: action.sequence,
            run: &action.run,
            version: action.version,
            weight: action.policy_weight,
            previous: (!previous.0.is_empty()).then_some(previous),
        }
    }
}

/// The policies of one run, in the order in which they act.
#[derive(Debug)]
pub struct Lineage {
    run: &'static str,
    published: u64,
    acting: u64,
    before: Option<u64>,
    /// Ticks of a blend.
    pub blended: u64,
    /// The first tick that is of no known policy.
    pub wrong: Option<String>,
}

impl Lineage {
    /// So far only this version was published, and acts.
    pub fn new(run: &'static str, version: u64) -> Self {
        Self {
            run,
            published: version,
            acting: version,
            before: None,
            blended: 0,
            wrong: None,
        }
    }

    /// A bundle of this version is on its way.
    pub fn published(&mut self, version: u64) {
        self.published = version;
    }

    /// The version that acts.
    pub fn acting(&self) -> u64 {
        self.acting
    }

    /// Takes the next tick; is it the first one of another version?
    pub fn take(&mut self, tick: &Named<'_>) -> bool {
        let is_known = tick.run == self.run && (self.acting..=self.published).contains(&tick.version);
        let is_another = is_known && tick.version > self.acting;
        if is_another {
            self.before = Some(self.acting);
            self.acting = tick.version;
        }
        self.blended += u64::from(tick.weight != 1.0);
        if self.wrong.is_none() && !(is_known && self.is_fitting_blend(tick)) {
            self.wrong = Some(self.complaint(tick));
        }
        is_another
    }

    fn is_fitting_blend(&self, tick: &Named<'_>) -> bool {
        let Some((run, version)) = tick.previous else {
            return tick.weight == 1.0;
        };
        (0.0..=1.0).contains(&tick.weight) && run == self.run && Some(version) == self.before
    }

    fn complaint(&self, tick: &Named<'_>) -> String {
        let Self {
            run,
            published,
            acting,
            before,
            ..
        } = self;
        format!(
            "tick {} names run '{}' version {}, weight {} against {:?}; expected run '{run}' version {acting} to {published}, \
             against version {before:?} of it where the weight is below 1",
            tick.sequence, tick.run, tick.version, tick.weight, tick.previous
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tick(version: u64) -> Named<'static> {
        Named {
            sequence: 7,
            run: "bench",
            version,
            weight: 1.0,
            previous: None,
        }
    }

    fn blend(version: u64, weight: f64, previous: u64) -> Named<'static> {
        Named {
            weight,
            previous: Some(("bench", previous)),
            ..tick(version)
        }
    }

    fn is_right(ticks: &[Named<'_>]) -> bool {
        let mut lineage = Lineage::new("bench", 1);
        lineage.published(3);
        for tick in ticks {
            lineage.take(tick);
        }
        lineage.wrong.is_none()
    }

    #[test]
    fn every_tick_is_of_one_published_version_and_versions_rise() {
        assert!(is_right(&[tick(1), tick(1), tick(2), tick(3)]));
        assert!(is_right(&[tick(1), tick(3)]), "one may be left out");
        assert!(!is_right(&[tick(1), tick(4)]), "not published");
        assert!(!is_right(&[tick(2), tick(1)]), "an older one");
        let other = Named {
            run: "other",
            ..tick(1)
        };
        assert!(!is_right(&[other]));
        let none = Named {
            run: "",
            version: 0,
            ..tick(0)
        };
        assert!(!is_right(&[none]), "no policy at all");
    }

    #[test]
    fn a_blend_is_with_the_version_before_and_has_a_weight() {
        assert!(is_right(&[tick(1), blend(2, 0.0, 1), blend(2, 0.9, 1), tick(2)]));
        assert!(is_right(&[tick(1), tick(2), blend(3, 0.5, 2), blend(3, 1.0, 2)]));
        assert!(!is_right(&[blend(1, 0.5, 1)]), "nobody was before it");
        assert!(!is_right(&[tick(2), blend(3, 0.5, 1)]), "two before");
        let alone = Named {
            weight: 0.5,
            ..tick(2)
        };
        assert!(!is_right(&[tick(1), alone]), "against nobody");
        assert!(!is_right(&[blend(2, 1.5, 1)]));
        assert!(!is_right(&[blend(2, f64::NAN, 1)]));
        let mut lineage = Lineage::new("bench", 1);
        lineage.published(2);
        assert!(lineage.take(&blend(2, 0.5, 1)) && !lineage.take(&blend(2, 0.6, 1)));
        assert_eq!((lineage.blended, lineage.acting()), (2, 2));
    }
}
