//! What a robot waits for: from the publication of each of its states to the first command that was computed from that state or
//! from a newer one. A state that a newer one overhauled before its tick, or that was lost, has no command of its own; were
//! it left out, the percentiles would lack exactly the times at which the node was late (coordinated omission).

use std::collections::{HashMap, VecDeque};

use hdrhistogram::Histogram;
use mfpo_node::metrics::latencies;
use mfpo_node::time::MonoTime;

use super::pairing::key;

/// Commands and records that wait for their other half, at most.
const KEPT: usize = 1_000;

/// A state and its command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// When the state was published.
    pub state: MonoTime,
    /// When the command that was computed from it arrived.
    pub arrival: MonoTime,
}

/// What waits for its other half, at most so many of them; of equal ones the newest.
#[derive(Debug, Default)]
struct Waiting {
    /// When it came, and its place in the order.
    at: HashMap<Vec<u64>, (MonoTime, u64)>,
    /// Places, and what came there. What is gone, or has come again since, has another place or none.
    order: VecDeque<(u64, Vec<u64>)>,
    places: u64,
}

impl Waiting {
    fn put(&mut self, key: Vec<u64>, at: MonoTime) {
        self.places += 1;
        self.order.push_back((self.places, key.clone()));
        self.at.insert(key, (at, self.places));
        if self.order.len() > KEPT
            && let Some((place, oldest)) = self.order.pop_front()
            && self.at.get(&oldest).is_some_and(|(_, own)| *own == place)
        {
            self.at.remove(&oldest);
        }
    }

    fn take(&mut self, key: &[u64]) -> Option<MonoTime> {
        self.at.remove(key).map(|(at, _)| at)
    }
}

/// Commands, and the states that their records name. The two are matched by value: the noise of the policy makes every
/// command another one. Either may arrive first.
#[derive(Debug, Default)]
pub struct Answers {
    commands: Waiting,
    records: Waiting,
    recorded: u64,
    found: Vec<Answer>,
}

impl Answers {
    /// A command has arrived.
    pub fn command(&mut self, command: &[f64], arrival: MonoTime) {
        let key = key(command);
        match self.records.take(&key) {
            Some(state) => self.found.push(Answer { state, arrival }),
            None => self.commands.put(key, arrival),
        }
    }

    /// The policy has computed a command from the state that was published then.
    pub fn record(&mut self, command: &[f64], state: MonoTime) {
        self.recorded += 1;
        let key = key(command);
        match self.commands.take(&key) {
            Some(arrival) => self.found.push(Answer { state, arrival }),
            None => self.records.put(key, state),
        }
    }

    /// Commands with their states so far.
    pub fn count(&self) -> u64 {
        self.found.len() as u64
    }

    /// Records whose command has not come.
    pub fn unmatched(&self) -> u64 {
        self.recorded - self.count()
    }

    /// From the state to the command, ns, of each command: what is left out are states without one of their own.
    pub fn of_commands(&self) -> Histogram<u64> {
        let mut histogram = latencies();
        for answer in &self.found {
            histogram.saturating_record(answer.arrival.since(answer.state));
        }
        histogram
    }

    /// Of each of the `states` that were published, in their order, from the first to the last that has a command.
    pub fn of_states(&self, states: &[MonoTime]) -> Charged {
        let mut answers = self.found.clone();
        answers.sort_by_key(|answer| answer.state);
        let mut charged = Charged {
            latency: latencies(),
            without_own: 0,
        };
        let (Some(first), Some(last)) = (answers.first().copied(), answers.last().copied()) else {
            return charged;
        };
        // Of the commands for this state and for newer ones the earliest counts.
        let mut earliest = last.arrival;
        for answer in answers.iter_mut().rev() {
            earliest = earliest.min(answer.arrival);
            answer.arrival = earliest;
        }
        let measured = |state: &&MonoTime| (first.state..=last.state).contains(*state);
        for &state in states.iter().filter(measured) {
            let next = answers.partition_point(|answer| answer.state < state);
            let Some(answer) = answers.get(next) else { break };
            charged.without_own += u64::from(answer.state != state);
            charged.latency.saturating_record(answer.arrival.since(state));
        }
        charged
    }
}

/// What the states of a robot waited for.
#[derive(Debug)]
pub struct Charged {
    /// Until the first command that was computed from it or from a newer one, ns.
    pub latency: Histogram<u64>,
    /// States without a command of their own.
    pub without_own: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(microseconds: u64) -> MonoTime {
        MonoTime::from_nanos(1_000_000_000 + 1_000 * microseconds)
    }

    /// States every 2 ms, each answered after 200 us but those that `is_overhauled` names.
    fn run(count: u64, is_overhauled: impl Fn(u64) -> bool) -> (Vec<MonoTime>, Answers) {
        let mut answers = Answers::default();
        let states: Vec<_> = (0..count).map(|number| at(2_000 * number)).collect();
        for number in (0..count).filter(|number| !is_overhauled(*number)) {
            let command = [number as f64];
            answers.command(&command, at(2_000 * number + 200));
            answers.record(&command, at(2_000 * number));
        }
        (states, answers)
    }

    #[test]
    fn an_overhauled_state_waits_for_the_command_of_the_next_one() {
        let (states, answers) = run(10, |number| (4..7).contains(&number));
        let charged = answers.of_states(&states);
        assert_eq!((charged.latency.len(), charged.without_own), (10, 3));
        assert!(charged.latency.equivalent(charged.latency.max(), 6_200_000));
        let own = answers.of_commands();
        assert_eq!(own.len(), 7);
        assert!(own.equivalent(own.max(), 200_000), "this is what would be told");
        let longer = |nanoseconds| charged.latency.count_between(nanoseconds, u64::MAX >> 1);
        assert_eq!(
            (longer(6_000_000), longer(4_000_000), longer(2_000_000)),
            (1, 2, 3)
        );
    }

    #[test]
    fn states_before_the_first_command_and_after_the_last_are_not_measured() {
        let (states, answers) = run(10, |number| !(3..=7).contains(&number));
        let charged = answers.of_states(&states);
        assert_eq!((charged.latency.len(), charged.without_own), (5, 0));
        let nothing = Answers::default().of_states(&states);
        assert_eq!(nothing.latency.len(), 0);
    }

    #[test]
    fn a_command_waits_as_long_where_an_equal_one_was_matched_before() {
        let mut answers = Answers::default();
        answers.command(&[0.5], at(0));
        answers.record(&[0.5], at(0));
        for number in 1..KEPT {
            answers.command(&[number as f64], at(2_000));
        }
        answers.command(&[0.5], at(4_000));
        answers.command(&[-1.0], at(4_000));
        answers.record(&[0.5], at(3_800));
        assert_eq!((answers.count(), answers.unmatched()), (2, 0));
        answers.record(&[1.0], at(1_800));
        assert_eq!(answers.unmatched(), 1, "of {KEPT} only the newest wait");
    }

    #[test]
    fn a_second_command_of_the_same_state_makes_no_state_slower() {
        let (states, mut answers) = run(3, |_| false);
        answers.record(&[0.5], at(0));
        assert_eq!((answers.count(), answers.unmatched()), (3, 1));
        answers.command(&[0.5], at(1_700));
        assert_eq!(
            (answers.count(), answers.unmatched()),
            (4, 0),
            "the record came first"
        );
        let charged = answers.of_states(&states);
        assert_eq!(charged.latency.len(), 3);
        assert!(charged.latency.equivalent(charged.latency.max(), 200_000));
    }
}
