//! Quality of service by parameter, under the names that rclcpp gives them:
//! `qos_overrides./joint_states.subscription.reliability`. The topic is the full name before any remapping.

use anyhow::{Context as _, bail};
use mfpo_ros::parameters::{Declared, ParameterValue as Value, QOS_OVERRIDES as PREFIX, closest, shown};
use mfpo_ros::{Inbox, Remaps};

use super::publishers::Listened;
use super::r2r;
use super::subscribers::{Audience, Offered};
use r2r::QosProfile;
use r2r::qos::{DurabilityPolicy, HistoryPolicy, ReliabilityPolicy};

/// Policies that a parameter can set.
pub const POLICIES: [&str; 4] = ["reliability", "durability", "history", "depth"];

/// Which end of a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The one that sends.
    Publisher,
    /// The one that receives.
    Subscription,
}

impl End {
    const fn name(self) -> &'static str {
        match self {
            Self::Publisher => "publisher",
            Self::Subscription => "subscription",
        }
    }
}

/// The parameter that sets a policy of one end of a topic, by its full name.
pub fn parameter(full: &str, end: End, policy: &str) -> String {
    format!("{PREFIX}{full}.{}.{policy}", end.name())
}

/// The name of a message's type in ROS 2, from that in Rust: `...::sensor_msgs::msg::JointState`.
fn kind<T>() -> String {
    let parts: Vec<&str> = std::any::type_name::<T>().rsplitn(4, "::").take(3).collect();
    parts.into_iter().rev().collect::<Vec<_>>().join("/")
}

struct Override {
    parameter: String,
    topic_and_end: String,
    policy: String,
    value: Value,
    is_used: bool,
}

/// What the parameters say of the quality of service.
pub struct Overrides {
    namespace: String,
    given: Vec<Override>,
    /// The topics that were asked for, each with its end.
    known: Vec<String>,
    listened: Vec<Listened>,
    offered: Vec<Offered>,
}

impl Overrides {
    /// Reads the parameters that a node in `namespace` was given.
    pub fn read<'a>(namespace: &str, given: impl Iterator<Item = (&'a String, &'a Value)>) -> Self {
        let one = |(name, value): (&String, &Value)| {
            let (topic_and_end, policy) = name.strip_prefix(PREFIX)?.rsplit_once('.')?;
            Some(Override {
                parameter: name.clone(),
                topic_and_end: topic_and_end.to_owned(),
                policy: policy.to_owned(),
                value: value.clone(),
                is_used: false,
            })
        };
        Self {
            namespace: namespace.trim_end_matches('/').to_owned(),
            given: given.filter_map(one).collect(),
            known: Vec::new(),
            listened: Vec::new(),
            offered: Vec::new(),
        }
    }

    /// The parameters that were given, to be read like any other. Those that are in force are all of them, for a node with one
    /// that is for no topic does not start ([`Overrides::check_all_used`]).
    pub fn declared(&self) -> impl Iterator<Item = Declared> {
        self.given.iter().map(Override::declared)
    }

    /// Subscribes `node` to a topic; `usual` holds where the parameters say nothing else.
    ///
    /// # Errors
    /// When a policy or its value does not exist, or rcl refuses the topic.
    pub fn subscribe<T: r2r::WrappedTypesupport + Send + 'static>(
        &mut self,
        node: &mut r2r::Node,
        topic: &str,
        usual: QosProfile,
    ) -> anyhow::Result<Inbox<T>> {
        let requested = self.profile(topic, End::Subscription, usual)?;
        let full = self.full(topic);
        self.listened.push(Listened {
            topic: topic.to_owned(),
            remapped: remapped(node, &full)?,
            full,
            kind: kind::<T>(),
            requested: requested.clone(),
        });
        Ok(Inbox::subscribe(node, topic, requested)?)
    }

    /// The profile that `node` offers on a topic of messages of this kind, whose subscribers will be looked at; `usual` holds
    /// where the parameters say nothing else.
    ///
    /// # Errors
    /// When a policy or its value does not exist, or rcl refuses the topic.
    pub fn offer(
        &mut self,
        node: &r2r::Node,
        topic: &str,
        (usual, kind): (QosProfile, &'static str),
        audience: Audience,
    ) -> anyhow::Result<QosProfile> {
        let offered = self.profile(topic, End::Publisher, usual)?;
        let full = self.full(topic);
        self.offered.push(Offered {
            remapped: remapped(node, &full)?,
            full,
            kind,
            offered: offered.clone(),
            audience,
        });
        Ok(offered)
    }

    /// The topics that were offered.
    pub fn offered(&mut self) -> Vec<Offered> {
        std::mem::take(&mut self.offered)
    }

    /// The topics that were subscribed to.
    pub fn listened(&mut self) -> Vec<Listened> {
        std::mem::take(&mut self.listened)
    }

    /// The profile of one end of a topic: `usual`, and over it what the parameters say.
    ///
    /// # Errors
    /// When a policy or its value does not exist.
    pub fn profile(&mut self, topic: &str, end: End, usual: QosProfile) -> anyhow::Result<QosProfile> {
        let topic_and_end = format!("{}.{}", self.full(topic), end.name());
        let mut profile = usual;
        let mut of_this = self.given.iter_mut().filter(|o| o.topic_and_end == topic_and_end);
        of_this.try_for_each(|o| {
            o.is_used = true;
            profile = o.over(profile.clone())?;
            anyhow::Ok(())
        })?;
        self.known.push(topic_and_end);
        Ok(profile)
    }

    fn full(&self, topic: &str) -> String {
        if topic.starts_with('/') {
            topic.to_owned()
        } else {
            format!("{}/{topic}", self.namespace)
        }
    }

    /// Names an override that is for no topic of this node.
    ///
    /// # Errors
    /// When there is one.
    pub fn check_all_used(&self) -> anyhow::Result<()> {
        let Some(unused) = self.given.iter().find(|o| !o.is_used) else {
            return Ok(());
        };
        let known = self.known.iter().map(String::as_str);
        bail!(
            "parameter '{}' is for no topic of this node; did you mean '{PREFIX}{}.{}'? The topics are: {}",
            unused.parameter,
            closest(&unused.topic_and_end, known).unwrap_or_default(),
            unused.policy,
            self.known.join(", ")
        )
    }
}

/// The name that a topic of `node` has on the network.
fn remapped(node: &r2r::Node, full: &str) -> anyhow::Result<String> {
    let name = node.name().context("reading the node's name")?;
    let namespace = node.namespace().context("reading the node's namespace")?;
    Ok(Remaps::of_this_process()?.topic(full, &name, &namespace)?)
}

impl Override {
    fn declared(&self) -> Declared {
        let (topic, end) = self.topic_and_end.rsplit_once('.').unwrap_or_default();
        let description = format!(
            "Quality of service: the {} of the node's {end} of topic {topic} (its name before any remapping)",
            self.policy
        );
        Declared::given(self.parameter.clone(), self.value.clone(), description)
    }

    fn over(&self, profile: QosProfile) -> anyhow::Result<QosProfile> {
        Ok(match (self.policy.as_str(), &self.value) {
            ("reliability", Value::String(value)) => profile.reliability(self.one_of(
                value,
                &[
                    ("reliable", ReliabilityPolicy::Reliable),
                    ("best_effort", ReliabilityPolicy::BestEffort),
                ],
            )?),
            ("durability", Value::String(value)) => profile.durability(self.one_of(
                value,
                &[
                    ("volatile", DurabilityPolicy::Volatile),
                    ("transient_local", DurabilityPolicy::TransientLocal),
                ],
            )?),
            ("history", Value::String(value)) => profile.history(self.one_of(
                value,
                &[
                    ("keep_last", HistoryPolicy::KeepLast),
                    ("keep_all", HistoryPolicy::KeepAll),
                ],
            )?),
            ("depth", Value::Integer(depth @ 1..=10_000)) => {
                let depth = usize::try_from(*depth).unwrap_or(1);
                QosProfile { depth, ..profile }
            }
            ("depth", other) => bail!(
                "parameter '{}': expected a whole number from 1 to 10000, got {}",
                self.parameter,
                shown(other)
            ),
            (policy, _) if !POLICIES.contains(&policy) => bail!(
                "parameter '{}': expected one of {}, got '{policy}'",
                self.parameter,
                POLICIES.join(", ")
            ),
            (_, other) => bail!(
                "parameter '{}': expected text, got {}",
                self.parameter,
                shown(other)
            ),
        })
    }

    fn one_of<T: Clone>(&self, value: &str, choices: &[(&str, T)]) -> anyhow::Result<T> {
        if let Some((_, choice)) = choices.iter().find(|(name, _)| *name == value) {
            return Ok(choice.clone());
        }
        let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
        bail!(
            "parameter '{}': expected {}, got '{value}'",
            self.parameter,
            names.join(" or ")
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn overrides(given: &[(&str, Value)]) -> Overrides {
        let given: Vec<(String, Value)> = given.iter().map(|(n, v)| ((*n).to_owned(), v.clone())).collect();
        Overrides::read("/left", given.iter().map(|(n, v)| (n, v)))
    }

    fn text(value: &str) -> Value {
        Value::String(value.to_owned())
    }

    #[test]
    fn a_type_of_messages_has_the_name_that_ros_gives_it() {
        assert_eq!(
            kind::<r2r::sensor_msgs::msg::JointState>(),
            "sensor_msgs/msg/JointState"
        );
        assert_eq!(
            kind::<r2r::mfpo_msgs::msg::PolicyBundle>(),
            "mfpo_msgs/msg/PolicyBundle"
        );
    }

    #[test]
    fn what_the_parameters_say_goes_over_the_usual_profile() {
        let mut overrides = overrides(&[
            (
                "qos_overrides./left/joint_states.subscription.reliability",
                text("reliable"),
            ),
            (
                "qos_overrides./left/joint_states.subscription.depth",
                Value::Integer(3),
            ),
            ("stale_timeout", Value::Double(0.1)),
        ]);
        let usual = QosProfile::sensor_data().keep_last(32);
        let other = overrides
            .profile("joint_states", End::Publisher, usual.clone())
            .unwrap();
        assert_eq!(other.depth, 32);
        let profile = overrides
            .profile("joint_states", End::Subscription, usual)
            .unwrap();
        assert_eq!(
            (profile.reliability, profile.depth),
            (ReliabilityPolicy::Reliable, 3)
        );
        overrides.check_all_used().unwrap();
    }

    #[test]
    fn what_is_given_is_declared_for_this_run_with_topic_end_and_policy() {
        let name = "qos_overrides./left/joint_states.subscription.depth";
        let overrides = overrides(&[(name, Value::Integer(3)), ("stale_timeout", Value::Double(0.1))]);
        let declared: Vec<Declared> = overrides.declared().collect();
        let [depth] = declared.as_slice() else {
            panic!("{declared:?}")
        };
        assert_eq!((&*depth.name, &depth.default), (name, &Value::Integer(3)));
        assert!(!depth.at_run_time);
        assert_eq!(
            depth.description,
            "Quality of service: the depth of the node's subscription of topic /left/joint_states (its name before any remapping)"
        );
    }

    #[test]
    fn what_does_not_exist_is_refused_with_what_does() {
        for (name, value, words) in [
            (
                "qos_overrides./left/a.publisher.reliability",
                text("sure"),
                "reliable or best_effort, got 'sure'",
            ),
            (
                "qos_overrides./left/a.publisher.depth",
                Value::Integer(0),
                "from 1 to 10000",
            ),
            (
                "qos_overrides./left/a.publisher.depht",
                Value::Integer(1),
                "history, depth, got 'depht'",
            ),
            (
                "qos_overrides./left/a.publisher.history",
                Value::Bool(true),
                "expected text",
            ),
        ] {
            let error = overrides(&[(name, value)]).profile("a", End::Publisher, QosProfile::default());
            let text = error.unwrap_err().to_string();
            assert!(text.contains(words), "{text}");
        }
        let mut overrides =
            overrides(&[("qos_overrides./joint_state.subscription.depth", Value::Integer(1))]);
        overrides
            .profile("joint_states", End::Subscription, QosProfile::default())
            .unwrap();
        let text = overrides.check_all_used().unwrap_err().to_string();
        assert!(
            text.contains("did you mean 'qos_overrides./left/joint_states.subscription.depth'"),
            "{text}"
        );
    }
}
