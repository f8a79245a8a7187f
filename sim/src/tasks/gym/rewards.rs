//! The lowest and the highest reward of a step, from those of its terms.
//!
//! Terms of commands, distances and heights have bounds that follow from the model. No law bounds a speed, so that each task
//! that pays for one has a `SPEED_MAX`, at least twice what was met: in 75 and more episodes of 1,000 steps that went on past
//! their ends, under commands at the ends of their ranges, held for 3 to 40 steps or in rhythm. What is faster is no motion of
//! such a body, but physics that diverged.

use crate::physics::Physics;

/// Lowest and highest value.
pub(super) type Range = (f64, f64);

/// A term times its weight; a negative one turns the range round.
pub(super) fn weighted(weight: f64, (low, high): Range) -> Range {
    let (one, other) = (weight * low, weight * high);
    (one.min(other), one.max(other))
}

/// A sum of terms.
pub(super) fn sum<const N: usize>(terms: [Range; N]) -> Range {
    let add = |(low, high): Range, term: Range| (low + term.0, high + term.1);
    terms.into_iter().fold((0.0, 0.0), add)
}

/// A term that is clipped.
pub(super) fn clipped((low, high): Range, [least, most]: [f64; 2]) -> Range {
    (low.max(least).min(most), high.max(least).min(most))
}

/// What is paid in some states alone.
pub(super) fn at_times(reward: f64) -> Range {
    (reward.min(0.0), reward.max(0.0))
}

/// A velocity of at most `speed`, in either direction.
pub(super) fn either_way(speed: f64) -> Range {
    (-speed, speed)
}

/// The sum of `count` squares of values from `[low, high]`.
pub(super) fn squares(count: usize, [low, high]: [f64; 2]) -> Range {
    (0.0, count as f64 * low.powi(2).max(high.powi(2)))
}

/// The sum of the squares of all commands.
pub(super) fn squared_commands(physics: &Physics) -> Range {
    let largest = |range: &[f64; 2]| squares(1, *range).1;
    (0.0, physics.actuator_ctrlrange().iter().map(largest).sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_holds_every_value_of_its_terms_and_no_more() {
        assert_eq!(weighted(-2.0, (-1.0, 3.0)), (-6.0, 2.0));
        assert_eq!(weighted(0.0, (0.0, f64::INFINITY)), (0.0, 0.0));
        assert_eq!(sum([(-1.0, 2.0), (0.5, 0.5), at_times(-3.0)]), (-3.5, 2.5));
        assert_eq!(
            clipped((0.0, f64::INFINITY), [f64::NEG_INFINITY, 10.0]),
            (0.0, 10.0)
        );
        assert_eq!(clipped((0.0, f64::INFINITY), [0.5, 2.0]), (0.5, 2.0));
        assert_eq!(squares(3, [-2.0, 1.0]), (0.0, 12.0));
        assert_eq!(at_times(5.0), (0.0, 5.0));
        assert_eq!(either_way(4.0), (-4.0, 4.0));
    }
}
