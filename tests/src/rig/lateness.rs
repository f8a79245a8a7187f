//! How late deadlines are served. A deadline that was skipped is served by the command of the next one that was not: were it
//! left out, the percentiles would lack exactly the times at which the node was late (coordinated omission).

/// A deadline, and when a command came for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Served {
    /// Number of the deadline.
    pub number: u64,
    /// When the command for it, or for the next one that was served, was with rmw, ns of the clock of the stamps.
    pub stamp: i64,
    /// By how much that is behind the earliest of all on the schedule, ns.
    pub late: u64,
    /// It has no command of its own.
    pub is_skipped: bool,
}

/// Every deadline from the first tick to the last. A tick is the number of its deadline and when its command was with rmw, ns;
/// numbers that do not rise are left out.
pub fn served(ticks: &[(u64, i64)], period: u64) -> Vec<Served> {
    let due = |number: u64| (number * period).cast_signed();
    let ticks = rising(ticks);
    let earliest = ticks.iter().map(|(number, stamp)| stamp - due(*number)).min();
    let Some(earliest) = earliest else {
        return Vec::new();
    };
    let mut all: Vec<Served> = Vec::with_capacity(ticks.len());
    for (own, stamp) in ticks {
        let first = all.last().map_or(own, |last| last.number + 1);
        all.extend((first..=own).map(|number| Served {
            number,
            stamp,
            late: (stamp - due(number) - earliest).unsigned_abs(),
            is_skipped: number < own,
        }));
    }
    all
}

/// The ticks whose number is above that of every one before.
fn rising(ticks: &[(u64, i64)]) -> Vec<(u64, i64)> {
    let mut all: Vec<(u64, i64)> = Vec::with_capacity(ticks.len());
    for tick in ticks {
        if all.last().is_none_or(|(newest, _)| tick.0 > *newest) {
            all.push(*tick);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERIOD: u64 = 2_000_000;

    /// Ticks that are `late`, ns, with these numbers.
    fn ticks(of: &[(u64, i64)]) -> Vec<(u64, i64)> {
        let stamp = |(number, late): &(u64, i64)| (*number, 1_000 + (number * PERIOD) as i64 + late);
        of.iter().map(stamp).collect()
    }

    #[test]
    fn a_skipped_deadline_is_as_late_as_the_command_that_came_after_it() {
        let all = served(&ticks(&[(5, 0), (6, 100), (9, 300), (10, 0)]), PERIOD);
        let told: Vec<_> = all.iter().map(|s| (s.number, s.late, s.is_skipped)).collect();
        let expected = [
            (5, 0, false),
            (6, 100, false),
            (7, 2 * PERIOD + 300, true),
            (8, PERIOD + 300, true),
            (9, 300, false),
            (10, 0, false),
        ];
        assert_eq!(told, expected);
        assert_eq!(all[2].stamp, all[4].stamp);
    }

    #[test]
    fn lateness_is_behind_the_earliest_tick_and_no_tick_is_counted_twice() {
        let all = served(&ticks(&[(1, 700), (2, 200), (2, 900), (3, 500)]), PERIOD);
        let late: Vec<_> = all.iter().map(|s| s.late).collect();
        assert_eq!(late, [500, 0, 300]);
        let early = served(&ticks(&[(1, 700), (2, 200), (2, 0), (1, 0), (3, 500)]), PERIOD);
        assert_eq!(early, all, "what is left out is not the earliest, either");
        assert!(served(&[], PERIOD).is_empty());
    }
}
