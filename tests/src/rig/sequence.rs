//! The numbers of the records of `policy/action` against what the node itself counts: a tick without a record was skipped,
//! and then the node counts it as missed, or its record was lost on the way.

/// Numbers of records, in the order of their arrival; the node's first tick is number 0.
#[derive(Debug, Clone, Default)]
pub struct Sequence {
    first: Option<u64>,
    last: Option<u64>,
    /// Number of the record after a gap, and how many there are none of before it.
    gaps: Vec<(u64, u64)>,
    /// Records of the fallback: each is a missed tick itself.
    fallbacks: Vec<u64>,
    /// Records whose number was not above the one before.
    pub repeated: u64,
}

/// What is known of the records of the ticks that a node counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Account {
    /// Ticks since the first record.
    pub ticks: u64,
    /// Those without a record.
    pub without_record: u64,
    /// Those of them, at least, that were not skipped: their records were lost.
    pub lost: u64,
}

impl Sequence {
    /// A record has arrived.
    pub fn take(&mut self, number: u64, is_fallback: bool) {
        self.first.get_or_insert(number);
        if is_fallback {
            self.fallbacks.push(number);
        }
        let Some(last) = self.last else {
            self.last = Some(number);
            return;
        };
        self.repeated += u64::from(number <= last);
        let missing = number.saturating_sub(last + 1);
        if missing > 0 {
            self.gaps.push((number, missing));
        }
        self.last = Some(number.max(last));
    }

    /// What the records lack where a status counts so many `ticks` since the node began, and so many `missed` ones since
    /// before the first record. The records of those ticks must have had time to arrive.
    pub fn account(&self, ticks: u64, missed: u64) -> Account {
        // Of its newest tick a status may not count yet what was missed.
        let is_counted = |number: u64| number + 1 < ticks;
        let gaps = self.gaps.iter().filter(|(number, _)| is_counted(*number));
        let within: u64 = gaps.map(|(_, missing)| missing).sum();
        let fallbacks = self.fallbacks.iter().filter(|number| is_counted(**number));
        let skipped = missed.saturating_sub(fallbacks.count() as u64);
        let after = self.last.map_or(0, |last| ticks.saturating_sub(last + 1));
        Account {
            ticks: self.first.map_or(0, |first| ticks.saturating_sub(first)),
            without_record: within + after,
            lost: within.saturating_sub(skipped) + after,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(numbers: impl IntoIterator<Item = u64>) -> Sequence {
        let mut sequence = Sequence::default();
        for number in numbers {
            sequence.take(number, false);
        }
        sequence
    }

    #[test]
    fn a_tick_without_a_record_is_lost_unless_the_node_has_missed_it() {
        let account = |sequence: &Sequence, ticks, missed| {
            let Account {
                ticks,
                without_record,
                lost,
            } = sequence.account(ticks, missed);
            (ticks, without_record, lost)
        };
        let whole = of(10..100);
        assert_eq!(account(&whole, 100, 0), (90, 0, 0));
        assert_eq!(account(&whole, 90, 0), (80, 0, 0), "the status is an older one");
        assert_eq!(account(&whole, 103, 3), (93, 3, 3), "the last ones have not come");

        let gap = of((10..50).chain(53..100));
        assert_eq!(account(&gap, 100, 3), (90, 3, 0), "skipped");
        assert_eq!(account(&gap, 100, 1), (90, 3, 2), "the node was late once");
        assert_eq!(account(&gap, 54, 0), (44, 0, 0), "not counted yet");

        let mut fallback = of(10..50);
        fallback.take(53, true);
        (54..100).for_each(|number| fallback.take(number, false));
        assert_eq!(account(&fallback, 100, 4), (90, 3, 0));
        assert_eq!(
            account(&fallback, 100, 3),
            (90, 3, 1),
            "one missed tick has its record"
        );
        assert_eq!((fallback.repeated, of([3, 4, 4, 2, 5]).repeated), (0, 2));
    }
}
