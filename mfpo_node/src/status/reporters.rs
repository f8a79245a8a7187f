//! Who reports joint states, as far as the graph shows it. Several publishers are right where each reports joints of its
//! own; which of them sent a message nobody tells, so that two that report the same joint are found by what they say of it
//! ([`crate::contradiction`]).

use super::Status;

/// Who reports joint states.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reporters {
    /// The topic's name on the network; empty as long as nobody has looked.
    pub topic: String,
    /// Does anybody publish on it, heard or not?
    pub is_published: bool,
    /// The owner of each publisher that is heard, in words and in order.
    pub heard: Vec<String>,
    /// Topics of the same name elsewhere that somebody publishes on, where nobody does on this one.
    pub elsewhere: Vec<String>,
}

impl Reporters {
    /// Does more than one publisher report joints?
    pub fn are_several(&self) -> bool {
        self.heard.len() > 1
    }

    /// Is there one publisher, and no other that is heard?
    pub(super) fn is_one(&self) -> bool {
        self.heard.len() == 1
    }

    /// The topic and its publishers.
    pub(super) fn in_words(&self) -> String {
        if self.heard.is_empty() {
            return "topic joint_states has several publishers".to_owned();
        }
        let mut owners = self.heard.clone();
        owners.dedup();
        let (topic, count, owners) = (&self.topic, self.heard.len(), owners.join(", "));
        format!("{topic} has {count} publishers ({owners})")
    }

    /// What is said where nobody publishes the topic.
    fn absent(&self) -> Option<String> {
        if self.topic.is_empty() || self.is_published {
            return None;
        }
        let topic = &self.topic;
        let Some(other) = self.elsewhere.first() else {
            return Some(format!(
                "nobody publishes {topic}: start the robot's driver, or remap (--ros-args -r joint_states:=/its/topic)"
            ));
        };
        let all = self.elsewhere.join(", ");
        Some(format!(
            "nobody publishes {topic}, but somebody does {all}: give robot and node the same namespace, or remap \
             (--ros-args -r joint_states:={other})"
        ))
    }
}

impl Status {
    /// Takes over who reports joint states, and logs what is new.
    pub(super) fn note_reporters(&mut self, reporters: Reporters) {
        if reporters == self.reporters {
            return;
        }
        let were_several = self.reporters.are_several();
        match reporters.absent() {
            Some(absent) if !reporters.elsewhere.is_empty() => tracing::warn!("{absent}"),
            Some(absent) => tracing::info!("{absent}"),
            None if reporters.are_several() => tracing::info!(
                "{}: right where each reports joints of its own",
                reporters.in_words()
            ),
            None if were_several => {
                tracing::info!("no longer several publishers of {}", reporters.topic);
            }
            None => {}
        }
        self.reporters = reporters;
    }

    /// That nobody publishes joint states, to be put behind a reason; empty where somebody does.
    pub(super) fn absent_reporters(&self) -> String {
        let absent = self.reporters.absent();
        absent.map_or_else(String::new, |words| format!("; {words}"))
    }

    /// Why a joint of which publishers tell different things is not acted on.
    pub(super) fn explain_contradiction(&self, joint: usize) -> String {
        format!(
            "publishers contradict each other about joint '{}': {}; end the wrong one (several are right where each reports \
             joints of its own: then a sensor of this joint jumps to and fro)",
            self.name(joint),
            self.reporters.in_words()
        )
    }
}
