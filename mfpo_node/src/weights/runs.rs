//! Whose bundles arrive. Two training runs that publish on the same topic take turns in what the node is offered; only one of
//! them is meant, and whoever looks at the robot should know of the other.
//!
//! One run after another is no conflict: a run competes with another once it publishes again after that one has.

use crate::time::MonoTime;

/// A run that has not published for so long does not compete any more, ns.
const WINDOW: u64 = 600_000_000_000;
/// So many runs are kept in mind; the one that published least recently is forgotten first.
const MOST_RUNS: usize = 8;
/// A longer name is none of ours, bytes.
const LONGEST_NAME: usize = 256;

#[derive(Debug)]
struct Run {
    name: String,
    /// When its newest bundle arrived.
    last: MonoTime,
    competes: bool,
}

/// The runs whose bundles have arrived, by the time of their last one.
#[derive(Debug, Default)]
pub struct Runs(Vec<Run>);

impl Runs {
    /// A bundle of a run has arrived. Where that run and others compete and did not before, their names.
    pub fn published(&mut self, name: &str, now: MonoTime) -> Option<Vec<String>> {
        self.0.retain(|run| now.since(run.last) <= WINDOW);
        if name.is_empty() || name.len() > LONGEST_NAME {
            return None;
        }
        let before = self.competing(now);
        let (mut run, since) = match self.0.iter().position(|run| run.name == name) {
            Some(index) => (self.0.remove(index), index),
            None => (
                Run {
                    name: name.to_owned(),
                    last: now,
                    competes: false,
                },
                self.0.len(),
            ),
        };
        // What stands behind its old place has published since then.
        for other in &mut self.0[since..] {
            other.competes = true;
            run.competes = true;
        }
        run.last = now;
        self.0.push(run);
        if self.0.len() > MOST_RUNS {
            self.0.remove(0);
        }
        let competing = self.competing(now);
        let is_news = competing.iter().any(|name| !before.contains(name));
        is_news.then_some(competing)
    }

    /// The runs that publish at the same time, by name; none where there is but one.
    pub fn competing(&self, now: MonoTime) -> Vec<String> {
        let competing = self
            .0
            .iter()
            .filter(|run| run.competes && now.since(run.last) <= WINDOW);
        let mut names: Vec<String> = competing.map(|run| run.name.clone()).collect();
        if names.len() < 2 {
            names.clear();
        }
        names.sort();
        names
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> MonoTime {
        MonoTime::from_nanos(seconds * 1_000_000_000)
    }

    #[test]
    fn two_runs_that_take_turns_are_named_once() {
        let mut runs = Runs::default();
        assert_eq!(runs.published("a", at(1)), None);
        assert_eq!(
            runs.published("b", at(2)),
            None,
            "one after the other is no conflict"
        );
        assert_eq!(runs.published("b", at(3)), None);
        assert!(runs.competing(at(3)).is_empty());
        let both = Some(vec!["a".to_owned(), "b".to_owned()]);
        assert_eq!(runs.published("a", at(4)), both);
        assert_eq!(runs.published("b", at(5)), None, "said once");
        assert_eq!(Some(runs.competing(at(6))), both);
        assert_eq!(runs.published("c", at(7)), None);
        let all = Some(vec!["a".to_owned(), "b".to_owned(), "c".to_owned()]);
        assert_eq!(runs.published("a", at(8)), all);
    }

    #[test]
    fn a_run_that_has_ended_competes_no_more_and_is_told_of_again_when_it_comes_back() {
        let mut runs = Runs::default();
        ["a", "b", "a"].into_iter().zip(1..).for_each(|(run, second)| {
            runs.published(run, at(second));
        });
        assert_eq!(runs.competing(at(4)).len(), 2);
        let later = 3 + WINDOW / 1_000_000_000;
        assert_eq!(runs.published("a", at(later)), None);
        assert!(runs.competing(at(later)).is_empty(), "b is gone");
        assert_eq!(runs.published("b", at(later + 1)), None);
        assert_eq!(runs.published("a", at(later + 2)).map(|runs| runs.len()), Some(2));
    }

    #[test]
    fn bundles_of_nobody_and_of_very_many_runs_are_no_burden() {
        let mut runs = Runs::default();
        assert_eq!(runs.published("", at(1)), None);
        assert_eq!(runs.published(&"x".repeat(10_000), at(1)), None);
        assert!(runs.0.is_empty());
        for number in 0..1_000u64 {
            assert_eq!(
                runs.published(&format!("run-{number}"), at(2 + number / 10)),
                None
            );
        }
        assert_eq!(runs.0.len(), MOST_RUNS);
    }
}
