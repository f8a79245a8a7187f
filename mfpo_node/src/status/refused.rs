//! Joint states that were refused, in the log. A position out of reach looks the same from a second publisher, from a simulator
//! that is set elsewhere and from a sensor that jumps: the graph tells which of them it can be.

use super::Status;
use crate::joint_states::Refusal;

/// A simulator begins anew at most so often from one line to the next, which is a second or more.
const EPISODES: u64 = 4;

impl Status {
    /// Logs that a joint state was refused, and so were `untold` ones like it; `true` where that is a warning. Of a single
    /// publisher a jump now and then is most likely a simulator's next episode, and no warning after the first.
    pub fn log_refused(&mut self, refusal: &Refusal, untold: u64) -> bool {
        let words = self.explain_refused(refusal, untold);
        let is_alone = matches!(refusal, Refusal::Jump { .. }) && self.reporters.is_one();
        let may_be_an_episode = is_alone && untold < EPISODES;
        if may_be_an_episode && std::mem::replace(&mut self.knows_jumps, true) {
            tracing::info!("{words}");
            return false;
        }
        tracing::warn!("{words}");
        true
    }

    /// Why a joint state was refused, and what may be behind it.
    fn explain_refused(&self, refusal: &Refusal, untold: u64) -> String {
        let behind = match refusal {
            Refusal::Jump { .. } => self.explain_jump(),
            _ => String::new(),
        };
        let more = match untold {
            0 => String::new(),
            untold => format!(" ({untold} more like it since the last line)"),
        };
        format!("{refusal}{behind}{more}")
    }

    fn explain_jump(&self) -> String {
        if self.reporters.are_several() {
            let publishers = self.reporters.in_words();
            return format!(": do two publishers contradict each other? {publishers}");
        }
        let alone = ": a simulator that begins anew, or a sensor that jumps";
        let or_not = if self.reporters.is_one() {
            ""
        } else {
            ", or two publishers that contradict each other"
        };
        [alone, or_not].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::Reporters;

    fn jump() -> Refusal {
        Refusal::Jump {
            joint: "elbow".to_owned(),
            by: 0.63,
            ms: 10.0,
            expected: 0.18,
        }
    }

    fn reported_by(nodes: &[&str]) -> Status {
        Status {
            reporters: Reporters {
                topic: "/joint_states".to_owned(),
                heard: nodes.iter().map(|node| format!("node '/{node}'")).collect(),
                ..Reporters::default()
            },
            ..Status::default()
        }
    }

    #[test]
    fn a_jump_of_a_single_publisher_is_a_simulator_or_a_sensor_and_a_warning_once() {
        let mut status = reported_by(&["robot"]);
        let text = status.explain_refused(&jump(), 0);
        for part in [
            "joint 'elbow' is 0.630 rad from where it was",
            "set elsewhere: a simulator that begins anew, or a sensor that jumps",
        ] {
            assert!(text.contains(part), "{text}");
        }
        assert!(!text.contains("publishers"), "{text}");
        assert!(status.log_refused(&jump(), 0), "the first");
        assert!(
            !status.log_refused(&jump(), 0) && !status.log_refused(&jump(), 1),
            "the next episodes warn of nothing"
        );
        assert!(status.log_refused(&jump(), 30), "no simulator begins so often");
        assert!(status.log_refused(&Refusal::Empty, 0) && status.log_refused(&Refusal::Empty, 0));
    }

    #[test]
    fn a_jump_of_several_publishers_asks_whether_they_contradict_each_other_each_time() {
        let mut status = reported_by(&["driver", "mock"]);
        let text = status.explain_refused(&jump(), 3);
        for part in [
            "do two publishers contradict each other? /joint_states has 2 publishers (node '/driver', node '/mock')",
            "(3 more like it since the last line)",
        ] {
            assert!(text.contains(part), "{text}");
        }
        assert!(status.log_refused(&jump(), 0) && status.log_refused(&jump(), 0));
        let unknown = reported_by(&[]).explain_refused(&jump(), 0);
        assert!(
            unknown.ends_with("or two publishers that contradict each other"),
            "{unknown}"
        );
    }
}
