//! The last seconds in memory: what is written when something goes wrong.

use std::collections::VecDeque;
use std::sync::Arc;

use super::Channel;
use crate::time::MonoTime;
use crate::weights::PolicyIdentity;

/// What is kept takes no more memory than this, bytes; 10 minutes of a large robot at 1 kHz.
const MOST_BYTES: usize = 512 << 20;
/// What an entry takes beside its message, bytes.
const OVERHEAD: usize = 96;

/// One message of a recording.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Of which topic.
    pub channel: Channel,
    /// When it came: what is kept is measured by this clock, which nobody sets.
    pub at: MonoTime,
    /// When it was, ns since the Unix epoch.
    pub time: u64,
    /// Its own stamp, ns.
    pub stamp: u64,
    /// In CDR.
    pub bytes: Vec<u8>,
    /// The policy that acted, and the one that it was taking over from.
    pub policies: [Option<Arc<PolicyIdentity>>; 2],
}

/// The entries of the last seconds.
pub struct History {
    entries: VecDeque<Entry>,
    length: u64,
    bytes: usize,
    ticks: usize,
    /// Nothing is too old.
    is_held: bool,
}

impl History {
    /// Keeps what is no older than `length`, ns.
    pub fn new(length: u64) -> Self {
        Self {
            entries: VecDeque::new(),
            length,
            bytes: 0,
            ticks: 0,
            is_held: false,
        }
    }

    /// From now on nothing is dropped because of its age, as far as the memory goes; or it is again.
    pub fn hold(&mut self, is_held: bool) {
        self.is_held = is_held;
    }

    /// Adds an entry and drops what is too old.
    pub fn push(&mut self, entry: Entry) {
        let from = entry.at.minus(self.length);
        self.bytes += entry.bytes.len() + OVERHEAD;
        self.ticks += usize::from(entry.channel == Channel::Tick);
        self.entries.push_back(entry);
        let from = if self.is_held {
            MonoTime::from_nanos(0)
        } else {
            from
        };
        while self.bytes > MOST_BYTES || self.entries.front().is_some_and(|e| e.at < from) {
            if self.pop().is_none() {
                break;
            }
        }
    }

    /// Takes the oldest entry out.
    pub fn pop(&mut self) -> Option<Entry> {
        let entry = self.entries.pop_front()?;
        self.bytes -= entry.bytes.len() + OVERHEAD;
        self.ticks -= usize::from(entry.channel == Channel::Tick);
        Some(entry)
    }

    /// Ticks that are kept.
    pub fn ticks(&self) -> usize {
        self.ticks
    }

    /// Has a policy acted in what is kept?
    pub fn names(&self, digest: &str) -> bool {
        let policies = self
            .entries
            .iter()
            .flat_map(|entry| entry.policies.iter().flatten());
        policies.into_iter().any(|policy| policy.digest == digest)
    }

    /// Drops everything.
    pub fn clear(&mut self) {
        *self = Self::new(self.length);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(time: u64, channel: Channel) -> Entry {
        Entry {
            channel,
            at: MonoTime::from_nanos(time),
            // The system's clock is set back all the time.
            time: 1_000_000 - time,
            stamp: time,
            bytes: vec![0; 10],
            policies: [None, None],
        }
    }

    #[test]
    fn what_is_older_than_the_length_is_dropped_and_the_rest_is_in_order() {
        let mut history = History::new(100);
        for time in 0..1000 {
            let channel = if time % 2 == 0 {
                Channel::Tick
            } else {
                Channel::Log
            };
            history.push(entry(time, channel));
        }
        assert_eq!(history.ticks(), 50);
        let times: Vec<u64> = std::iter::from_fn(|| history.pop())
            .map(|e| e.at.nanos())
            .collect();
        assert_eq!(times, (899..1000).collect::<Vec<_>>());
        assert_eq!((history.bytes, history.ticks()), (0, 0));
    }
}
