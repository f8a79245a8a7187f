//! How the seconds are shared out: the starts under the first policy, learning, the starts under the last policy.

use std::time::Duration;

/// Starts of a full trial.
pub const STARTS: u64 = 20;
/// Length of an episode of the robot.
pub const EPISODE: Duration = Duration::from_millis(2_500);
/// The shortest demo.
pub const SHORTEST: u64 = 40;
/// From the first process to the first episode, and from the last episode to the summary.
const OVERHEAD: Duration = Duration::from_secs(8);
/// Learning with live swaps takes at least this long, even in a short demo.
const LEARNING: Duration = Duration::from_secs(12);
/// The trainer gets this long from its signal to its last bundle.
const LAST_BUNDLE: Duration = Duration::from_secs(4);

/// How many starts fit twice into a demo of this length.
pub fn starts(budget: Duration) -> u64 {
    let for_trials = budget.saturating_sub(OVERHEAD + LEARNING);
    let fitting = for_trials.as_secs_f64() / (2.0 * EPISODE.as_secs_f64());
    (fitting as u64).clamp(1, STARTS)
}

/// The least duration of the training, so that there is something to swap in after the first trial on a machine
/// that learns faster than the robot moves.
pub fn shortest_training(starts: u64) -> Duration {
    let trial = EPISODE * u32::try_from(starts).unwrap_or(u32::MAX);
    OVERHEAD / 2 + trial + LEARNING
}

/// When the trainer has to be stopped, so that the last trial ends in time. One episode is under way when the last
/// policy goes live and does not count.
pub fn stop_training_at(budget: Duration, starts: u64, episode: Duration) -> Duration {
    let trial = episode * (u32::try_from(starts).unwrap_or(u32::MAX).saturating_add(1));
    budget.saturating_sub(trial + LAST_BUNDLE)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: Duration = Duration::from_secs(180);

    #[test]
    fn three_minutes_hold_two_full_trials_and_a_minute_of_learning() {
        assert_eq!(starts(FULL), STARTS);
        let stop = stop_training_at(FULL, STARTS, EPISODE);
        assert!(stop >= Duration::from_secs(120), "{stop:?}");
        assert!(stop > shortest_training(STARTS));
    }

    #[test]
    fn a_short_demo_has_fewer_starts_and_still_learns() {
        for seconds in SHORTEST..180 {
            let budget = Duration::from_secs(seconds);
            let starts = starts(budget);
            let stop = stop_training_at(budget, starts, EPISODE);
            assert!(starts >= 1 && stop >= EPISODE * (starts as u32) + LEARNING / 2);
        }
        assert!(starts(Duration::from_secs(60)) < STARTS);
    }

    #[test]
    fn a_robot_that_runs_slowly_leaves_the_trainer_less_time() {
        let slow = stop_training_at(FULL, STARTS, EPISODE.mul_f64(1.2));
        assert!(slow < stop_training_at(FULL, STARTS, EPISODE));
    }
}
