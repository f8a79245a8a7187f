//! Who subscribes to the commands, to the records of them or to the status and does not receive them. The middleware tells how
//! many subscribers it serves and nothing of the others, so that the graph is looked at, on a thread of its own and for a few
//! seconds, when that can have changed: some seconds after the robot is commanded, after a node has come or gone or the number
//! that the commands are served to has changed, and again and again while something is wrong.

use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

use mfpo_ros::RosError;
use mfpo_ros::fit::shortfalls;
use mfpo_ros::graph::{Endpoint, Observer, Owner};
use mfpo_ros::shutdown;

use super::publishers::ComeAndGone;
use super::qos_overrides::{End, POLICIES, parameter};
use super::r2r;
use r2r::QosProfile;

use crate::time::MonoTime;

/// How long a look takes at least, and at most: discovery takes its time, and what is lost of it by UDP comes again after 3 s
/// (Fast DDS).
const LOOK: (Duration, Duration) = (Duration::from_millis(3_500), Duration::from_secs(6));
/// How often the graph is read while it is looked at.
const READ_EVERY: Duration = Duration::from_millis(100);
/// From a change to its look, ns: what starts has not subscribed to everything yet, and the robot's first motion has passed.
const SETTLE: u64 = Duration::from_secs(5).as_nanos() as u64;
/// How long changes that follow each other put a look off at most, ns.
const LONGEST: u64 = Duration::from_secs(15).as_nanos() as u64;
/// From one look to the next at least, ns: each is a participant that comes and goes.
const REST: u64 = Duration::from_secs(10).as_nanos() as u64;
/// From one look to the next where nothing changes and something is wrong, ns.
const AGAIN: u64 = Duration::from_secs(30).as_nanos() as u64;
/// Name of the observer; lists of nodes leave it out.
const OBSERVER: &str = "_control_observer";

/// Who a topic is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// The robot: that nobody subscribes is wrong.
    Robot,
    /// Whoever cares, and maybe nobody.
    Anybody,
}

/// A topic that this node publishes on.
#[derive(Debug, Clone)]
pub struct Offered {
    /// Its full name before any remapping: the one that `qos_overrides` go by.
    pub full: String,
    /// Its name on the network.
    pub remapped: String,
    /// Type of its messages.
    pub kind: &'static str,
    /// The quality of service that is offered.
    pub offered: QosProfile,
    /// Who it is for.
    pub audience: Audience,
}

/// What is known of the receivers of the commands without a look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// Is the robot commanded?
    pub is_commanding: bool,
    /// Subscribers that the middleware serves, where there is such a topic.
    pub served: Option<usize>,
    /// Nobody is served, and not only for a moment.
    pub reach_nobody: bool,
}

/// Looks for subscribers that are not served.
pub struct Subscribers {
    offered: Vec<Offered>,
    come_and_gone: ComeAndGone,
    under_way: Option<JoinHandle<Result<Vec<String>, RosError>>>,
    occasions: Occasions,
}

impl Subscribers {
    /// Of the topics that are `offered`.
    pub fn new(offered: Vec<Offered>, come_and_gone: ComeAndGone) -> Self {
        Self {
            offered,
            come_and_gone,
            under_way: None,
            occasions: Occasions::default(),
        }
    }

    /// Starts a look where it is time for one; returns what a look that has ended has found.
    pub fn look(&mut self, known: Known, now: MonoTime) -> Option<Vec<String>> {
        let is_due = self.occasions.is_due(known, self.come_and_gone.count(), now);
        if is_due && self.under_way.is_none() && !self.offered.is_empty() {
            self.occasions.begin(now);
            let offered = self.offered.clone();
            let thread = std::thread::Builder::new().name("observer".into());
            match thread.spawn(move || find(&offered)) {
                Ok(thread) => self.under_way = Some(thread),
                Err(error) => tracing::warn!("the subscribers cannot be looked at: {error}"),
            }
        }
        let thread = self.under_way.take_if(|thread| thread.is_finished())?;
        match thread.join() {
            Ok(Ok(found)) => {
                self.occasions.is_wrong = !found.is_empty();
                Some(found)
            }
            Ok(Err(error)) => {
                tracing::warn!("the subscribers cannot be looked at: {error}");
                None
            }
            Err(_) => {
                tracing::warn!("the subscribers cannot be looked at: the look panicked");
                None
            }
        }
    }
}

/// When to look.
#[derive(Debug, Default)]
struct Occasions {
    /// How many were served and how many nodes had come and gone, where the robot was commanded.
    last: Option<(usize, u64)>,
    /// The changes that no look has followed.
    changes: Option<Changes>,
    looked_at: Option<MonoTime>,
    /// The last look has found something.
    is_wrong: bool,
}

/// When the first and the last of some changes were seen.
#[derive(Debug, Clone, Copy)]
struct Changes {
    first: MonoTime,
    last: MonoTime,
}

impl Occasions {
    /// Is it time?
    fn is_due(&mut self, known: Known, come_and_gone: u64, now: MonoTime) -> bool {
        let served = known.served.filter(|_| known.is_commanding);
        let seen = served.map(|served| (served, come_and_gone));
        if seen.is_none() {
            *self = Self {
                looked_at: self.looked_at,
                ..Self::default()
            };
            return false;
        }
        if seen != self.last {
            self.last = seen;
            let first = self.changes.map_or(now, |changes| changes.first);
            self.changes = Some(Changes { first, last: now });
        }
        let passed = |pause| self.looked_at.is_none_or(|at| now.since(at) >= pause);
        let is_due = self.changes.is_some_and(|changes| {
            known.reach_nobody || changes.has_settled(now) || now.since(changes.first) >= LONGEST
        });
        passed(REST) && is_due || passed(AGAIN) && (self.is_wrong || known.reach_nobody)
    }

    /// A look begins. What has changed just before may come too late for it, and is looked at again.
    fn begin(&mut self, now: MonoTime) {
        let unsettled = self.changes.filter(|changes| !changes.has_settled(now));
        self.changes = unsettled.map(|changes| Changes {
            first: now,
            ..changes
        });
        self.looked_at = Some(now);
    }
}

impl Changes {
    fn has_settled(&self, now: MonoTime) -> bool {
        now.since(self.last) >= SETTLE
    }
}

impl Drop for Subscribers {
    fn drop(&mut self) {
        // It sees that the process ends; the middleware must not be left while it is in use.
        if let Some(thread) = self.under_way.take() {
            let _ = thread.join();
        }
    }
}

/// What the graph shows of the subscribers of these topics, in words.
fn find(offered: &[Offered]) -> Result<Vec<String>, RosError> {
    let started = Instant::now();
    let observer = Observer::create(OBSERVER)?;
    let mut last = Vec::new();
    while !shutdown::requested() {
        let read = |topic: &Offered| observer.subscriptions(&topic.remapped);
        let found = offered.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        let is_missed = |(topic, ends): (&Offered, &Vec<Endpoint>)| topic.misses(ends);
        let mut ends = found.iter().flatten();
        let is_known =
            !offered.iter().zip(&found).any(is_missed) && ends.all(|end| end.owner != Owner::Unknown);
        let took = started.elapsed();
        if took >= LOOK.1 || took >= LOOK.0 && is_known && found == last {
            let of = |(topic, ends): (&Offered, &Vec<Endpoint>)| topic.unserved(ends);
            return Ok(offered.iter().zip(&found).flat_map(of).collect());
        }
        last = found;
        sleep(READ_EVERY);
    }
    Ok(Vec::new())
}

impl Offered {
    /// Does nobody subscribe where somebody should?
    fn misses(&self, subscribers: &[Endpoint]) -> bool {
        self.audience == Audience::Robot && subscribers.is_empty()
    }

    /// Why the subscribers that were found receive nothing, where that is so.
    fn unserved(&self, subscribers: &[Endpoint]) -> Vec<String> {
        if self.misses(subscribers) {
            return vec![format!(
                "nobody subscribes to {} (its domain is ROS_DOMAIN_ID's; namespaces and remaps make its name)",
                self.remapped
            )];
        }
        let of = |subscriber: &Endpoint| {
            let why = if subscriber.kind == self.kind {
                let shortfalls = shortfalls(&self.offered, &subscriber.qos);
                let words: Vec<String> = shortfalls
                    .iter()
                    .map(|shortfall| {
                        let (policy, words) = (shortfall.policy, shortfall.of_subscription());
                        if !POLICIES.contains(&policy) {
                            return words;
                        }
                        let parameter = parameter(&self.full, End::Publisher, policy);
                        format!(
                            "{words} (or set parameter {parameter} to {})",
                            shortfall.requested
                        )
                    })
                    .collect();
                words.join("; ")
            } else {
                format!("it takes {}, sent is {}", subscriber.kind, self.kind)
            };
            let words = format!("{} is not received by {}: {why}", self.remapped, subscriber.owner);
            (!why.is_empty()).then_some(words)
        };
        let mut unserved: Vec<String> = subscribers.iter().filter_map(of).collect();
        unserved.sort();
        unserved.dedup();
        unserved
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMANDED: Known = Known {
        is_commanding: true,
        served: Some(1),
        reach_nobody: false,
    };

    /// At which of these seconds a look begins that ends at once and finds what `wrong` says.
    fn looks(known: impl Fn(u64) -> (Known, u64), wrong: bool) -> Vec<u64> {
        let mut occasions = Occasions::default();
        let mut begun = Vec::new();
        for second in 0..100 {
            let now = MonoTime::from_nanos(second * 1_000_000_000);
            let (known, come_and_gone) = known(second);
            if occasions.is_due(known, come_and_gone, now) {
                occasions.begin(now);
                occasions.is_wrong = wrong;
                begun.push(second);
            }
        }
        begun
    }

    #[test]
    fn a_robot_that_is_commanded_is_looked_at_once_and_again_after_each_change() {
        assert_eq!(looks(|_| (COMMANDED, 3), false), [5]);
        let idle = Known {
            is_commanding: false,
            ..COMMANDED
        };
        assert_eq!(looks(|_| (idle, 3), true), Vec::<u64>::new());
        let stops_and_goes = |second| {
            (
                if !(40..=60).contains(&second) {
                    COMMANDED
                } else {
                    idle
                },
                3,
            )
        };
        assert_eq!(looks(stops_and_goes, false), [5, 66]);
        // One that comes while the last look rests, and two in a row, are looked at together.
        let come = |second| {
            (
                COMMANDED,
                u64::from(second >= 6) + u64::from(second >= 50) + u64::from(second >= 52),
            )
        };
        assert_eq!(looks(come, false), [5, 15, 57]);
        // Nor can a program that comes every second put it off for ever.
        assert_eq!(
            looks(|second| (COMMANDED, second.min(48)), false),
            [15, 30, 45, 55]
        );
        let served = |second| {
            let served = Some(if second < 20 { 1 } else { 2 });
            (Known { served, ..COMMANDED }, 3)
        };
        assert_eq!(looks(served, false), [5, 25]);
    }

    #[test]
    fn what_is_wrong_is_looked_at_again_and_nobody_at_all_at_once() {
        assert_eq!(looks(|_| (COMMANDED, 3), true), [5, 35, 65, 95]);
        let nobody = |second| {
            let reach_nobody = second >= 2;
            let served = Some(0);
            (
                Known {
                    served,
                    reach_nobody,
                    ..COMMANDED
                },
                3,
            )
        };
        assert_eq!(looks(nobody, true), [2, 12, 42, 72]);
        let not_published = Known {
            served: None,
            ..COMMANDED
        };
        assert_eq!(looks(|_| (not_published, 3), true), Vec::<u64>::new());
    }

    const KIND: &str = "std_msgs/msg/Float64MultiArray";

    fn offered() -> Offered {
        Offered {
            full: "/left/commands".to_owned(),
            remapped: "/forward/commands".to_owned(),
            kind: KIND,
            offered: QosProfile::default().best_effort(),
            audience: Audience::Robot,
        }
    }

    fn subscriber(kind: &str, qos: QosProfile) -> Endpoint {
        Endpoint {
            owner: Owner::of("/left", "driver"),
            kind: kind.to_owned(),
            qos,
        }
    }

    #[test]
    fn a_subscriber_that_requests_too_much_is_named_with_a_way_out() {
        let requested = QosProfile::default()
            .reliable()
            .deadline(Duration::from_millis(20));
        assert_eq!(
            offered().unserved(&[subscriber(KIND, requested)]),
            [
                "/forward/commands is not received by node '/left/driver': it requests reliability reliable, offered is \
              best_effort (or set parameter qos_overrides./left/commands.publisher.reliability to reliable); it requests \
              deadline 0.02 s at most, offered is infinite"
            ]
        );
    }

    #[test]
    fn another_type_is_named_one_that_fits_is_not_and_none_at_all_is_told() {
        let fits = || QosProfile::default().best_effort();
        let other = subscriber("trajectory_msgs/msg/JointTrajectory", fits());
        assert_eq!(
            offered().unserved(&[other.clone(), other, subscriber(KIND, fits())]),
            [
                "/forward/commands is not received by node '/left/driver': it takes trajectory_msgs/msg/JointTrajectory, sent is \
              std_msgs/msg/Float64MultiArray"
            ]
        );
        assert_eq!(
            offered().unserved(&[subscriber(KIND, fits())]),
            Vec::<String>::new()
        );
        let none = offered().unserved(&[]);
        assert!(
            none[0].starts_with("nobody subscribes to /forward/commands"),
            "{none:?}"
        );
    }

    #[test]
    fn a_topic_for_whoever_cares_may_have_no_subscriber_and_names_one_that_it_does_not_reach() {
        let records = Offered {
            full: "/policy/action".to_owned(),
            remapped: "/policy/action".to_owned(),
            kind: "mfpo_msgs/msg/PolicyAction",
            offered: QosProfile::default().reliable().volatile(),
            audience: Audience::Anybody,
        };
        assert_eq!(records.unserved(&[]), Vec::<String>::new());
        let latched = QosProfile::default().reliable().transient_local();
        assert_eq!(
            records.unserved(&[subscriber(records.kind, latched)]),
            [
                "/policy/action is not received by node '/left/driver': it requests durability transient_local, offered is \
              volatile (or set parameter qos_overrides./policy/action.publisher.durability to transient_local)"
            ]
        );
    }
}
