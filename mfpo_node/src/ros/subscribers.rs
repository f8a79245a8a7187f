//! Who subscribes to the commands and does not receive them. The middleware tells how many subscribers it serves and nothing
//! of the others; where it serves none while the robot is commanded, the graph is looked at, on a thread of its own and for
//! a few seconds, and what does not fit is named.

use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

use mfpo_ros::RosError;
use mfpo_ros::fit::shortfalls;
use mfpo_ros::graph::{Endpoint, Observer, Owner};
use mfpo_ros::shutdown;

use super::qos_overrides::{End, POLICIES, parameter};
use super::r2r;
use r2r::QosProfile;

use crate::time::MonoTime;

/// How long a look takes at least, and at most: discovery takes its time.
const LOOK: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(4));
/// How often the graph is read while it is looked at.
const READ_EVERY: Duration = Duration::from_millis(100);
/// From one look to the next, ns: each is a participant that comes and goes.
const LOOK_EVERY: u64 = Duration::from_secs(30).as_nanos() as u64;
/// Name of the observer; lists of nodes leave it out.
const OBSERVER: &str = "_control_observer";

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
}

/// Looks for subscribers that are not served.
pub struct Subscribers {
    offered: Vec<Offered>,
    under_way: Option<JoinHandle<Result<Vec<String>, RosError>>>,
    looked_at: Option<MonoTime>,
}

impl Subscribers {
    /// Of the topics that are `offered`.
    pub fn new(offered: Vec<Offered>) -> Self {
        Self {
            offered,
            under_way: None,
            looked_at: None,
        }
    }

    /// Starts a look where `nobody_is_served` and it is time; returns what a look that has ended has found.
    pub fn look(&mut self, nobody_is_served: bool, now: MonoTime) -> Option<Vec<String>> {
        let is_due = self.looked_at.is_none_or(|at| now.since(at) >= LOOK_EVERY);
        if nobody_is_served && is_due && self.under_way.is_none() && !self.offered.is_empty() {
            self.looked_at = Some(now);
            let offered = self.offered.clone();
            let thread = std::thread::Builder::new().name("observer".into());
            match thread.spawn(move || find(&offered)) {
                Ok(thread) => self.under_way = Some(thread),
                Err(error) => tracing::warn!("the subscribers of commands cannot be looked at: {error}"),
            }
        }
        let thread = self.under_way.take_if(|thread| thread.is_finished())?;
        match thread.join() {
            Ok(Ok(found)) => Some(found),
            Ok(Err(error)) => {
                tracing::warn!("the subscribers of commands cannot be looked at: {error}");
                None
            }
            Err(_) => {
                tracing::warn!("the subscribers of commands cannot be looked at: the look panicked");
                None
            }
        }
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
        let mut ends = found.iter().flatten();
        let is_known = !found.iter().any(Vec::is_empty) && ends.all(|end| end.owner != Owner::Unknown);
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
    /// Why the subscribers that were found receive nothing, where that is so.
    fn unserved(&self, subscribers: &[Endpoint]) -> Vec<String> {
        if subscribers.is_empty() {
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

    const KIND: &str = "std_msgs/msg/Float64MultiArray";

    fn offered() -> Offered {
        Offered {
            full: "/left/commands".to_owned(),
            remapped: "/forward/commands".to_owned(),
            kind: KIND,
            offered: QosProfile::default().best_effort(),
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
}
