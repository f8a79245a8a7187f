//! Who publishes on the topics that this node listens to, and whether it is heard: a publisher whose quality of service
//! offers less than is requested, or that sends another type of message, is silent here, and is named instead. r2r knows
//! no events of the middleware, so that the graph is looked at from time to time, on the service's thread.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use mfpo_ros::fit::{Shortfall, shortfalls};
use mfpo_ros::graph::Owner;
use tokio::sync::watch;

use super::qos_overrides::{End, POLICIES, parameter};
use super::r2r;
use r2r::QosProfile;

use crate::status::{Others, Reporters, Unheard};
use crate::time::MonoTime;

/// How often the graph is looked at, ns.
const LOOK_EVERY: u64 = Duration::from_millis(500).as_nanos() as u64;
/// How long after a look that has failed it is looked again, ns.
const LOOK_AGAIN: u64 = Duration::from_secs(10).as_nanos() as u64;
/// Publishers that are named at most.
const MOST: usize = 16;
/// The topic of the joint states, relative.
const JOINT_STATES: &str = "joint_states";
/// Every node publishes here: its publishers are the nodes that there are.
const NODES: &str = "/parameter_events";
/// A node, by the identity of that publisher.
type Node = [u8; 16];

/// A topic that this node listens to.
pub struct Listened {
    /// Its name in the code, relative.
    pub topic: String,
    /// Its full name before any remapping: the one that `qos_overrides` go by.
    pub full: String,
    /// Its name on the network.
    pub remapped: String,
    /// Type of its messages.
    pub kind: String,
    /// The quality of service that is requested.
    pub requested: QosProfile,
}

/// The other end of such a topic.
struct Publisher {
    owner: Owner,
    kind: String,
    offered: QosProfile,
}

/// Looks at the publishers of some topics.
pub struct Publishers {
    listened: Vec<Listened>,
    commands: Commands,
    looked_at: Option<MonoTime>,
    /// What the last look has found: the graph learns of an endpoint and of its node one after the other.
    seen: Others,
    told: watch::Sender<Others>,
    /// The nodes that the last look has found.
    nodes: Vec<Node>,
    come_and_gone: ComeAndGone,
    several_sources: SeveralSources,
    /// The last look has failed.
    has_failed: bool,
    /// That looks fail has been told.
    is_told: bool,
}

/// The topics that only one node may publish on, and which.
#[derive(Debug, Clone, Default)]
pub struct Commands {
    /// Their names on the network.
    pub topics: Vec<String>,
    /// The full name of this process' node that publishes there.
    pub node: String,
}

/// How many nodes have come and gone since the beginning; counted on the service's thread, read wherever it is of use.
#[derive(Debug, Clone, Default)]
pub struct ComeAndGone(Arc<AtomicU64>);

impl ComeAndGone {
    /// The count: another one than before says that somebody has come or gone.
    pub fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Counts the nodes that are in one of two lists alone.
    fn compare(&self, before: &[Node], after: &[Node]) {
        let only =
            |these: &[Node], others: &[Node]| these.iter().filter(|node| !others.contains(node)).count();
        let changed = only(before, after) + only(after, before);
        self.0.fetch_add(changed as u64, Ordering::Relaxed);
    }
}

/// Whether more than one publisher reports joints; found on the service's thread, read by the control thread.
#[derive(Debug, Clone, Default)]
pub struct SeveralSources(Arc<AtomicBool>);

impl SeveralSources {
    /// As the last look has found it.
    pub fn are_there(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    fn set(&self, are_there: bool) {
        self.0.store(are_there, Ordering::Relaxed);
    }
}

impl Publishers {
    /// Of the topics that are `listened` to, and of `commands`; what is found comes out of the receiver.
    pub fn new(listened: Vec<Listened>, commands: Commands) -> (Self, watch::Receiver<Others>) {
        let (told, found) = watch::channel(Others::default());
        let publishers = Self {
            listened,
            commands,
            looked_at: None,
            seen: Others::default(),
            told,
            nodes: Vec::new(),
            come_and_gone: ComeAndGone::default(),
            several_sources: SeveralSources::default(),
            has_failed: false,
            is_told: false,
        };
        (publishers, found)
    }

    /// Whether nodes come and go, as the looks find it.
    pub fn come_and_gone(&self) -> ComeAndGone {
        self.come_and_gone.clone()
    }

    /// Whether several publishers report joints, as the looks find it.
    pub fn several_sources(&self) -> SeveralSources {
        self.several_sources.clone()
    }

    /// Looks again, where it is time; `node` is any node of this process.
    pub fn look(&mut self, node: &r2r::Node) {
        self.look_by(|publishers| (publishers.find(node), nodes(node)), MonoTime::now());
    }

    fn look_by(&mut self, find: impl FnOnce(&Self) -> (Others, Vec<Node>), now: MonoTime) {
        let pause = if self.has_failed { LOOK_AGAIN } else { LOOK_EVERY };
        if self.looked_at.is_some_and(|at| now.since(at) < pause) {
            return;
        }
        self.looked_at = Some(now);
        // r2r asserts on what other programs have announced; that must not end the services of this one.
        let looked = catch_unwind(AssertUnwindSafe(|| find(self)));
        self.has_failed = looked.is_err();
        match looked {
            Ok((found, nodes)) => self.take_over(found, nodes),
            Err(_) if std::mem::replace(&mut self.is_told, true) => {}
            Err(_) => tracing::warn!(
                "the publishers cannot be looked at, and it is tried again every {} s: until then one whose quality of service \
                 does not fit is not named, and what was known of who reports joint states stays",
                LOOK_AGAIN / 1_000_000_000
            ),
        }
    }

    fn take_over(&mut self, found: Others, nodes: Vec<Node>) {
        if found == self.seen {
            self.told.send_if_modified(|told| {
                told != &found && {
                    told.clone_from(&found);
                    true
                }
            });
            // Who they are is told before anybody acts on it.
            self.several_sources.set(found.reporters.are_several());
        }
        self.seen = found;
        self.come_and_gone.compare(&self.nodes, &nodes);
        self.nodes = nodes;
    }

    fn find(&self, node: &r2r::Node) -> Others {
        let listened = self.listened.iter();
        let found: Vec<(&Listened, Vec<Publisher>)> = listened
            .map(|listened| (listened, publishers(node, &listened.remapped)))
            .collect();
        Others {
            unheard: unheard(&found),
            rivals: self.commands.rivals(node),
            reporters: reporters(&found, |topic| publishers(node, topic)),
        }
    }
}

/// The publishers on a topic, by its name on the network. A graph that cannot be read now can be read the next time.
fn publishers(node: &r2r::Node, topic: &str) -> Vec<Publisher> {
    let infos = node.get_publishers_info_by_topic(topic, false);
    let publishers = infos.unwrap_or_default().into_iter().map(|info| Publisher {
        owner: Owner::of(&info.node_namespace, &info.node_name),
        kind: info.topic_type,
        offered: info.qos_profile,
    });
    publishers.collect()
}

/// Those of which nothing arrives.
fn unheard(found: &[(&Listened, Vec<Publisher>)]) -> Vec<Unheard> {
    let pairs = found
        .iter()
        .flat_map(|(listened, publishers)| publishers.iter().filter_map(move |p| listened.unheard(p)));
    let mut found: Vec<Unheard> = pairs.collect();
    found.sort();
    found.dedup();
    found.truncate(MOST);
    found
}

/// Who reports joint states; where nobody does, other topics are looked at by `publishers`.
fn reporters(
    found: &[(&Listened, Vec<Publisher>)],
    publishers: impl Fn(&str) -> Vec<Publisher>,
) -> Reporters {
    let Some((listened, here)) = found.iter().find(|(listened, _)| listened.topic == JOINT_STATES) else {
        return Reporters::default();
    };
    let heard = here
        .iter()
        .filter(|publisher| listened.unheard(publisher).is_none());
    let mut heard: Vec<String> = heard.map(|publisher| publisher.owner.to_string()).collect();
    heard.sort();
    heard.truncate(MOST);
    let is_reported = |topic: &String| publishers(topic.as_str()).iter().any(|p| p.kind == listened.kind);
    let elsewhere = if here.is_empty() {
        listened.elsewhere().into_iter().filter(is_reported).collect()
    } else {
        Vec::new()
    };
    Reporters {
        topic: listened.remapped.clone(),
        is_published: !here.is_empty(),
        heard,
        elsewhere,
    }
}

impl Commands {
    /// Who else publishes there.
    fn rivals(&self, node: &r2r::Node) -> Vec<String> {
        let of = |topic: &String| -> Vec<String> {
            let infos = node.get_publishers_info_by_topic(topic, false);
            let owners = infos.unwrap_or_default().into_iter();
            let owners = owners.map(|info| Owner::of(&info.node_namespace, &info.node_name));
            self.rivals_among(topic, owners.collect())
        };
        self.topics.iter().flat_map(of).collect()
    }

    fn rivals_among(&self, topic: &str, mut owners: Vec<Owner>) -> Vec<String> {
        let this = Owner::Node(self.node.clone());
        if let Some(at) = owners.iter().position(|owner| *owner == this) {
            owners.swap_remove(at);
        }
        let in_words = |owner: &Owner| {
            let again = if *owner == this {
                " that has this one's name"
            } else {
                ""
            };
            format!(
                "{topic} is also published by {owner}{again}: two programs command one robot; end one of them, or give it \
                 another namespace (one that was killed is seen for some 20 s more)"
            )
        };
        let mut rivals: Vec<String> = owners.iter().map(in_words).collect();
        rivals.sort();
        rivals.dedup();
        rivals.truncate(MOST);
        rivals
    }
}

/// The nodes that the graph shows.
fn nodes(node: &r2r::Node) -> Vec<Node> {
    let infos = node.get_publishers_info_by_topic(NODES, false);
    let infos = infos.unwrap_or_default().into_iter();
    infos.map(|info| info.endpoint_gid).collect()
}

impl Listened {
    /// Where the same could be published by mistake: under the name before any remapping, and in each namespace around it.
    fn elsewhere(&self) -> Vec<String> {
        let mut names = vec![self.full.clone()];
        if let Some((mut namespace, name)) = self.full.rsplit_once('/') {
            while let Some((around, _)) = namespace.rsplit_once('/') {
                names.push(format!("{around}/{name}"));
                namespace = around;
            }
        }
        names.retain(|name| *name != self.remapped);
        names
    }

    /// Why nothing of a publisher arrives, where that is so.
    fn unheard(&self, publisher: &Publisher) -> Option<Unheard> {
        let why = if publisher.kind == self.kind {
            let shortfalls = shortfalls(&publisher.offered, &self.requested);
            if shortfalls.is_empty() {
                return None;
            }
            let shortfalls: Vec<String> = shortfalls.iter().map(|s| self.advise(s)).collect();
            shortfalls.join("; ")
        } else {
            format!("it sends {}, expected {}", publisher.kind, self.kind)
        };
        Some(Unheard {
            topic: self.topic.clone(),
            words: format!("{} of {} is not heard: {why}", self.remapped, publisher.owner),
        })
    }

    /// A shortfall, and what to do about it.
    fn advise(&self, shortfall: &Shortfall) -> String {
        let policy = shortfall.policy;
        if !POLICIES.contains(&policy) {
            return shortfall.to_string();
        }
        let parameter = parameter(&self.full, End::Subscription, policy);
        format!(
            "{shortfall} (or set parameter {parameter} to {})",
            shortfall.offered
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_that_panics_is_tried_again_and_several_publishers_are_found_after_all() {
        let (mut publishers, mut told) = Publishers::new(Vec::new(), Commands::default());
        let several = publishers.several_sources();
        let at = |ms: u64| MonoTime::from_nanos(1_000_000 * (5_000 + ms));
        let mut looks = 0;
        let mut fails = |publishers: &mut Publishers, ms: u64| {
            let find = |_: &Publishers| -> (Others, Vec<Node>) {
                looks += 1;
                panic!("r2r does not know what was announced")
            };
            publishers.look_by(find, at(ms));
            looks
        };
        assert_eq!((fails(&mut publishers, 0), fails(&mut publishers, 9_990)), (1, 1));
        assert_eq!(fails(&mut publishers, 10_000), 2);
        let both = Reporters {
            heard: vec!["node '/driver'".to_owned(), "node '/mock'".to_owned()],
            ..Reporters::default()
        };
        let mut succeeds = |ms: u64| {
            let found = Others {
                reporters: both.clone(),
                ..Others::default()
            };
            publishers.look_by(|_| (found, Vec::new()), at(ms));
            several.are_there()
        };
        assert!(!succeeds(20_000), "the graph may know half of it yet");
        assert!(succeeds(20_500), "as often as ever once a look is through");
        assert_eq!(told.borrow_and_update().reporters, both);
    }

    #[test]
    fn whoever_else_publishes_commands_is_named() {
        let commands = Commands {
            topics: vec!["/commands".to_owned()],
            node: "/control_loop".to_owned(),
        };
        let found = |names: &[&str]| {
            let owners = names.iter().map(|name| Owner::of("/", name)).collect();
            commands.rivals_among("/commands", owners)
        };
        assert_eq!(found(&["control_loop"]), Vec::<String>::new());
        assert_eq!(found(&[]), Vec::<String>::new());
        let two = found(&["control_loop", "teleop", "control_loop"]);
        assert_eq!(two.len(), 2, "{two:?}");
        assert!(
            two[0].contains("node '/control_loop' that has this one's name"),
            "{two:?}"
        );
        assert!(two[1].contains("node '/teleop': two programs"), "{two:?}");
    }

    #[test]
    fn who_comes_and_who_goes_is_counted() {
        let seen = ComeAndGone::default();
        let counts = [
            &[[1; 16], [2; 16]][..],
            &[[2; 16], [1; 16]],
            &[[2; 16], [3; 16]],
            &[],
        ]
        .windows(2)
        .map(|pair| {
            seen.compare(pair[0], pair[1]);
            seen.count()
        })
        .collect::<Vec<_>>();
        assert_eq!(counts, [0, 2, 4]);
    }

    fn listened() -> Listened {
        Listened {
            topic: "joint_states".to_owned(),
            full: "/left/joint_states".to_owned(),
            remapped: "/states".to_owned(),
            kind: "sensor_msgs/msg/JointState".to_owned(),
            requested: QosProfile::default().transient_local(),
        }
    }

    fn publisher(kind: &str, offered: QosProfile) -> Publisher {
        Publisher {
            owner: Owner::of("/left/", "driver"),
            kind: kind.to_owned(),
            offered,
        }
    }

    #[test]
    fn a_publisher_that_does_not_fit_is_named_with_its_node_and_a_way_out() {
        let publisher = publisher("sensor_msgs/msg/JointState", QosProfile::sensor_data());
        let told = listened().unheard(&publisher).unwrap();
        assert_eq!(told.topic, "joint_states");
        assert_eq!(
            told.words,
            "/states of node '/left/driver' is not heard: it offers reliability best_effort, expected reliable (or set \
             parameter qos_overrides./left/joint_states.subscription.reliability to best_effort); it offers durability \
             volatile, expected transient_local (or set parameter \
             qos_overrides./left/joint_states.subscription.durability to volatile)"
        );
    }

    /// What is found where these publish on the topic, and the same on `elsewhere`.
    fn found_reporters(listened: &Listened, here: Vec<Publisher>, elsewhere: &str) -> Reporters {
        let kind = listened.kind.as_str();
        let others = |topic: &str| -> Vec<Publisher> {
            let there = (topic == elsewhere).then(|| publisher(kind, QosProfile::default()));
            there.into_iter().collect()
        };
        reporters(&[(listened, here)], others)
    }

    #[test]
    fn several_publishers_of_joint_states_are_told_apart_from_one_that_is_not_heard() {
        let listened = Listened {
            requested: QosProfile::sensor_data(),
            ..listened()
        };
        let kind = listened.kind.clone();
        let fits = || publisher(&kind, QosProfile::default());
        let found = found_reporters(&listened, vec![fits(), fits()], "");
        assert!(found.are_several() && found.is_published, "{found:?}");
        let other = publisher("std_msgs/msg/String", QosProfile::default());
        let found = found_reporters(&listened, vec![fits(), other], "");
        assert!(!found.are_several() && found.is_published, "{found:?}");
        assert_eq!(found.heard, ["node '/left/driver'"]);
    }

    #[test]
    fn where_nobody_reports_joint_states_another_namespace_is_named_that_has_them() {
        let namespaced = Listened {
            full: "/lab/left/joint_states".to_owned(),
            remapped: "/lab/left/joint_states".to_owned(),
            ..listened()
        };
        assert_eq!(namespaced.elsewhere(), ["/lab/joint_states", "/joint_states"]);
        let found = found_reporters(&namespaced, Vec::new(), "/joint_states");
        assert_eq!(found.topic, "/lab/left/joint_states");
        assert_eq!(found.elsewhere, ["/joint_states"]);
        // It was remapped to where nobody publishes.
        let found = found_reporters(&listened(), Vec::new(), "/left/joint_states");
        assert_eq!(found.elsewhere, ["/left/joint_states"]);
        let found = found_reporters(&listened(), Vec::new(), "");
        assert!(found.elsewhere.is_empty() && !found.is_published, "{found:?}");
    }

    #[test]
    fn a_publisher_of_another_type_is_named_and_one_that_fits_is_not() {
        let fits = QosProfile::default().transient_local();
        let other = publisher("std_msgs/msg/String", fits.clone());
        let told = listened().unheard(&other).unwrap();
        assert!(
            told.words
                .ends_with("it sends std_msgs/msg/String, expected sensor_msgs/msg/JointState"),
            "{}",
            told.words
        );
        assert_eq!(
            listened().unheard(&publisher("sensor_msgs/msg/JointState", fits)),
            None
        );
    }

    #[test]
    fn a_policy_that_no_parameter_sets_comes_without_one() {
        let requested = QosProfile::default().deadline(Duration::from_millis(20));
        let listened = Listened {
            requested,
            ..listened()
        };
        let told = listened.unheard(&publisher("sensor_msgs/msg/JointState", QosProfile::default()));
        let words = told.unwrap().words;
        assert!(
            words.ends_with("it offers deadline infinite, expected 0.02 s at most"),
            "{words}"
        );
    }
}
