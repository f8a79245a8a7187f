//! Publishers that are there and not heard, and commands that nobody hears: what discovery knows of a robot that does
//! not move.

use super::{Reporters, Status};

/// A publisher on one of this node's topics of which nothing arrives.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Unheard {
    /// The topic, as the node calls it.
    pub topic: String,
    /// Who it is, why it is not heard, and what to do.
    pub words: String,
}

/// What the graph shows of other publishers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Others {
    /// Those of which nothing arrives.
    pub unheard: Vec<Unheard>,
    /// Those that publish commands too, in words.
    pub rivals: Vec<String>,
    /// Those that report joint states.
    pub reporters: Reporters,
}

/// Topics without which no robot is commanded.
const INPUTS: [&str; 3] = ["joint_states", "enable", "/clock"];

impl Status {
    /// Takes over what the graph shows now, and logs what is new.
    pub fn note_others(&mut self, others: Others) {
        self.note_unheard(others.unheard);
        self.note_rivals(others.rivals);
        self.note_reporters(others.reporters);
    }

    /// Of who else publishes commands.
    fn note_rivals(&mut self, rivals: Vec<String>) {
        for new in rivals.iter().filter(|new| !self.rivals.contains(new)) {
            tracing::warn!("{new}");
        }
        for gone in self.rivals.iter().filter(|gone| !rivals.contains(gone)) {
            tracing::info!("no longer so: {gone}");
        }
        self.rivals = rivals;
    }

    /// Of who is not heard.
    pub fn note_unheard(&mut self, unheard: Vec<Unheard>) {
        for new in unheard.iter().filter(|new| !self.unheard.contains(new)) {
            tracing::warn!("{}", new.words);
        }
        for gone in self.unheard.iter().filter(|gone| !unheard.contains(gone)) {
            tracing::info!("no longer so: {}", gone.words);
        }
        self.unheard = unheard;
    }

    /// Takes over how many subscribers of `commands` the middleware serves; `None` where nothing is published. Where none
    /// is there twice in a row while the robot is commanded, the log says so.
    pub fn note_receivers(&mut self, receivers: Option<usize>, is_commanding: bool) {
        let reach_nobody = is_commanding && receivers == Some(0);
        let were_so = std::mem::replace(&mut self.reached_nobody, reach_nobody);
        if reach_nobody && were_so && !self.reach_nobody {
            tracing::warn!("{UNRECEIVED}");
        }
        let reached_somebody = self.reach_nobody && !reach_nobody;
        self.reach_nobody = reach_nobody && were_so;
        self.receivers = receivers;
        self.is_commanding = is_commanding;
        // What was found may have been repaired; the next look tells.
        if !is_commanding || reached_somebody {
            self.unserved.clear();
        }
    }

    /// Takes over who subscribes to what the node publishes and why they receive nothing, and logs what is new.
    pub fn note_unserved(&mut self, unserved: Vec<String>) {
        if !self.is_commanding {
            return;
        }
        for new in unserved.iter().filter(|new| !self.unserved.contains(new)) {
            tracing::warn!("{new}");
        }
        for gone in self.unserved.iter().filter(|gone| !unserved.contains(gone)) {
            tracing::info!("no longer so: {gone}");
        }
        self.unserved = unserved;
    }

    /// Who else publishes commands, to be put behind a state; empty where nobody does.
    pub(super) fn rivals_in_words(&self) -> String {
        self.rivals.iter().map(|rival| format!("; {rival}")).collect()
    }

    /// Does nobody receive the commands?
    pub fn reach_nobody(&self) -> bool {
        self.reach_nobody
    }

    /// What is not heard of the inputs of the robot, to be put behind a reason; empty where all is heard.
    pub(super) fn unheard_inputs(&self) -> String {
        self.unheard_of(&INPUTS) + &self.absent_reporters()
    }

    /// What is not heard of these topics.
    pub(super) fn unheard_of(&self, topics: &[&str]) -> String {
        let of_these = |unheard: &&Unheard| topics.contains(&unheard.topic.as_str());
        let words = self.unheard.iter().filter(of_these).map(|unheard| &unheard.words);
        words.map(|words| format!("; {words}")).collect()
    }
}

/// What is said where nobody receives the commands.
pub const UNRECEIVED: &str = "nobody receives the commands: the middleware serves no subscriber of topic commands; one that \
    requests more than is offered, or another type, is not served (ros2 topic info --verbose shows both ends)";
