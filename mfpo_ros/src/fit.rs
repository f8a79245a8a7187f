//! Whether a subscription hears a publisher: DDS connects the two only where the publisher offers, policy by policy, at
//! least what the subscription requests. Where it does not, no message passes and nobody is told, so that it is told here.

use std::fmt;
use std::time::Duration;

use r2r::QosProfile;
use r2r::qos::{DurabilityPolicy, LivelinessPolicy, ReliabilityPolicy};

/// From here on a duration is without end: middlewares write infinity as 68 or as 292 years.
const INFINITE: Duration = Duration::from_secs(2_000_000_000);

/// A policy on which a publisher offers less than a subscription requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shortfall {
    /// The policy, as ROS 2 names it.
    pub policy: &'static str,
    /// What the publisher offers.
    pub offered: String,
    /// What the subscription requests.
    pub requested: String,
}

impl Shortfall {
    /// The same, told of the subscription.
    pub fn of_subscription(&self) -> String {
        let Self {
            policy,
            offered,
            requested,
        } = self;
        format!("it requests {policy} {requested}, offered is {offered}")
    }
}

impl fmt::Display for Shortfall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            policy,
            offered,
            requested,
        } = self;
        write!(f, "it offers {policy} {offered}, expected {requested}")
    }
}

/// Where `offered` is less than `requested`; nothing where the two fit. What the graph does not know of a policy is not
/// held against it. History, depth and lifespan are each end's own affair.
pub fn shortfalls(offered: &QosProfile, requested: &QosProfile) -> Vec<Shortfall> {
    let ranked = [
        (
            "reliability",
            reliability(&offered.reliability),
            reliability(&requested.reliability),
        ),
        (
            "durability",
            durability(&offered.durability),
            durability(&requested.durability),
        ),
        (
            "liveliness",
            liveliness(&offered.liveliness),
            liveliness(&requested.liveliness),
        ),
    ];
    let periods = [
        ("deadline", offered.deadline, requested.deadline),
        (
            "liveliness_lease_duration",
            offered.liveliness_lease_duration,
            requested.liveliness_lease_duration,
        ),
    ];
    let ranked = ranked.into_iter().filter_map(|(policy, offered, requested)| {
        let ((offered, less), (requested, more)) = (offered?, requested?);
        (less < more).then(|| Shortfall {
            policy,
            offered: offered.to_owned(),
            requested: requested.to_owned(),
        })
    });
    let longer = periods
        .into_iter()
        .filter(|(_, offered, requested)| limit(*offered) > limit(*requested));
    let periods = longer.map(|(policy, offered, requested)| Shortfall {
        policy,
        offered: words(offered),
        requested: format!("{} at most", words(requested)),
    });
    ranked.chain(periods).collect()
}

/// Its name and its rank; the higher one offers more.
fn reliability(policy: &ReliabilityPolicy) -> Option<(&'static str, u8)> {
    match policy {
        ReliabilityPolicy::BestEffort => Some(("best_effort", 0)),
        ReliabilityPolicy::Reliable => Some(("reliable", 1)),
        _ => None,
    }
}

fn durability(policy: &DurabilityPolicy) -> Option<(&'static str, u8)> {
    match policy {
        DurabilityPolicy::Volatile => Some(("volatile", 0)),
        DurabilityPolicy::TransientLocal => Some(("transient_local", 1)),
        _ => None,
    }
}

/// The default is automatic.
fn liveliness(policy: &LivelinessPolicy) -> Option<(&'static str, u8)> {
    match policy {
        LivelinessPolicy::Automatic | LivelinessPolicy::SystemDefault => Some(("automatic", 0)),
        LivelinessPolicy::ManualByTopic => Some(("manual_by_topic", 1)),
        _ => None,
    }
}

/// The default, zero, is no limit.
fn limit(duration: Duration) -> Duration {
    if duration.is_zero() || duration >= INFINITE {
        Duration::MAX
    } else {
        duration
    }
}

fn words(duration: Duration) -> String {
    match limit(duration) {
        Duration::MAX => "infinite".to_owned(),
        limit => format!("{} s", limit.as_secs_f64()),
    }
}

#[cfg(test)]
mod tests {
    use std::ptr::null_mut;

    use r2r_rcl::{rmw_qos_compatibility_type_t as Verdict, rmw_qos_profile_check_compatible};

    use super::*;

    /// Every reliability, durability and liveliness that an endpoint may have, with the periods that matter.
    fn profiles() -> Vec<QosProfile> {
        let periods = [Duration::ZERO, Duration::from_millis(100), Duration::from_secs(1)];
        let mut profiles = Vec::new();
        for reliability in [ReliabilityPolicy::BestEffort, ReliabilityPolicy::Reliable] {
            for durability in [DurabilityPolicy::Volatile, DurabilityPolicy::TransientLocal] {
                for liveliness in [LivelinessPolicy::Automatic, LivelinessPolicy::ManualByTopic] {
                    for deadline in periods {
                        for lease in periods {
                            let profile = QosProfile::default()
                                .reliability(reliability.clone())
                                .durability(durability.clone())
                                .liveliness(liveliness.clone());
                            profiles.push(profile.deadline(deadline).liveliness_lease_duration(lease));
                        }
                    }
                }
            }
        }
        profiles
    }

    fn middleware_connects(offered: &QosProfile, requested: &QosProfile) -> bool {
        let mut verdict = Verdict::RMW_QOS_COMPATIBILITY_OK;
        // SAFETY: both profiles are passed by value, `verdict` outlives the call, and without a buffer no reason is written.
        let answer = unsafe {
            rmw_qos_profile_check_compatible(
                offered.clone().into(),
                requested.clone().into(),
                &mut verdict,
                null_mut(),
                0,
            )
        };
        assert_eq!(answer, 0);
        verdict == Verdict::RMW_QOS_COMPATIBILITY_OK
    }

    #[test]
    fn what_falls_short_is_what_the_middleware_does_not_connect() {
        let profiles = profiles();
        let mut apart = 0;
        for offered in &profiles {
            for requested in &profiles {
                let fits = shortfalls(offered, requested).is_empty();
                assert_eq!(
                    fits,
                    middleware_connects(offered, requested),
                    "{offered:?} {requested:?}"
                );
                apart += usize::from(!fits);
            }
        }
        assert!(
            apart > profiles.len() && apart < profiles.len().pow(2),
            "{apart} pairs do not fit"
        );
    }

    #[test]
    fn each_policy_is_named_with_what_is_offered_and_requested() {
        let offered = QosProfile::sensor_data().deadline(Duration::from_secs(2));
        let requested = QosProfile::default()
            .transient_local()
            .deadline(Duration::from_millis(500));
        let told: Vec<String> = shortfalls(&offered, &requested)
            .iter()
            .map(Shortfall::to_string)
            .collect();
        assert_eq!(
            told,
            [
                "it offers reliability best_effort, expected reliable",
                "it offers durability volatile, expected transient_local",
                "it offers deadline 2 s, expected 0.5 s at most",
            ]
        );
    }

    #[test]
    fn what_is_without_end_or_unknown_is_no_shortfall() {
        let endless = QosProfile::default().deadline(Duration::new(9_223_372_036, 854_775_807));
        assert_eq!(shortfalls(&endless, &QosProfile::default()), []);
        assert_eq!(shortfalls(&QosProfile::unknown(), &QosProfile::default()), []);
        let strict = QosProfile::default().liveliness_lease_duration(Duration::from_secs(1));
        assert_eq!(
            shortfalls(&endless, &strict)[0].to_string(),
            "it offers liveliness_lease_duration infinite, expected 1 s at most"
        );
    }
}
